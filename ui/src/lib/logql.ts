// Builds LogQL from what the Logs page holds: a typed text, a scope and facet filters. Pure.

/** The labels that streams carry; everything else is a field and is filtered after the selector. */
export const STREAM_LABELS = ['cluster', 'member', 'source', 'severity'] as const;

export interface Filter {
  field: string;
  value: string;
  exclude: boolean;
}

export interface LogSearch {
  /** Free text, or LogQL when it starts with `{`. */
  text: string;
  filters: Filter[];
}

export const isLogql = (text: string): boolean => text.trimStart().startsWith('{');

/** `severity=error` / `source!=etcd`, as the URL keeps a filter. */
export function parseFilter(text: string): Filter | null {
  const m = /^([A-Za-z_][A-Za-z0-9_]*)(!?=)(.*)$/s.exec(text);
  return m ? { field: m[1]!, exclude: m[2] === '!=', value: m[3]! } : null;
}

export const filterText = (f: Filter): string => `${f.field}${f.exclude ? '!=' : '='}${f.value}`;

/** A LogQL string literal: backticks where possible, since they need no escapes. */
export function quote(text: string): string {
  if (!text.includes('`') && !/[\r\n]/.test(text)) return `\`${text}\``;
  return JSON.stringify(text);
}

const doubleQuoted = (text: string) => JSON.stringify(text);
const escapeRegex = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

function matcher(field: string, values: string[], exclude: boolean): string {
  if (values.length === 1) return `${field}${exclude ? '!=' : '='}${doubleQuoted(values[0]!)}`;
  return `${field}${exclude ? '!~' : '=~'}${doubleQuoted(values.map(escapeRegex).join('|'))}`;
}

function grouped(filters: Filter[]): { field: string; exclude: boolean; values: string[] }[] {
  const groups = new Map<string, { field: string; exclude: boolean; values: string[] }>();
  for (const f of filters) {
    const key = `${f.exclude ? '!' : ''}${f.field}`;
    const group = groups.get(key) ?? { field: f.field, exclude: f.exclude, values: [] };
    if (!group.values.includes(f.value)) group.values.push(f.value);
    groups.set(key, group);
  }
  return [...groups.values()];
}

const isStreamLabel = (field: string) => (STREAM_LABELS as readonly string[]).includes(field);

/**
 * Words of a text search: `disk full` needs both words, `"disk full"` the phrase, `-word` its absence, `/re/` a regular
 * expression. An unclosed quote is taken to the end.
 */
export function lineFilters(text: string): string[] {
  const out: string[] = [];
  for (const m of text.matchAll(/(-?)(?:"([^"]*)"?|\/((?:[^/\\]|\\.)+)\/(?=\s|$)|(\S+))/g)) {
    const negative = m[1] === '-';
    const regex = m[3];
    const word = m[2] ?? m[4] ?? '';
    if (regex !== undefined) out.push(`${negative ? '!~' : '|~'} ${quote(regex)}`);
    else if (word !== '') out.push(`${negative ? '!=' : '|='} ${quote(word)}`);
  }
  return out;
}

/** What a search looks for in a line, for marking it there: plain words escaped, regular expressions as they are. */
export function needles(text: string): RegExp | null {
  const parts: string[] = [];
  const filters = isLogql(text) ? text.slice(selectorEnd(text) + 1) : lineFilters(text).join(' ');
  for (const m of filters.matchAll(/\|([=~])\s*(?:`([^`]*)`|"((?:[^"\\]|\\.)*)")/g)) {
    const value = m[2] ?? m[3]!.replace(/\\(.)/g, '$1');
    if (value) parts.push(m[1] === '=' ? escapeRegex(value) : `(?:${value})`);
  }
  try {
    return parts.length ? new RegExp(parts.join('|'), 'g') : null;
  } catch {
    // The server's regular expressions know things that the browser's do not; then nothing is marked.
    return null;
  }
}

/** Splits a line into parts that match and parts that do not; odd places match. */
export function splitMatches(line: string, needle: RegExp | null): string[] {
  if (!needle) return [line];
  const out: string[] = [];
  let at = 0;
  for (const m of line.matchAll(needle)) {
    if (m[0] === '') continue;
    out.push(line.slice(at, m.index), m[0]);
    at = m.index + m[0].length;
  }
  out.push(line.slice(at));
  return out;
}

/** The log query (selector, line filters, field filters) of a search. */
export function buildLogql(search: LogSearch): string {
  const groups = grouped(search.filters);
  const streams = groups.filter((g) => isStreamLabel(g.field)).map((g) => matcher(g.field, g.values, g.exclude));
  const fields = groups.filter((g) => !isStreamLabel(g.field)).map((g) => `| ${matcher(g.field, g.values, g.exclude)}`);
  if (isLogql(search.text)) {
    // Typed LogQL keeps its own selector; filters chosen by clicking narrow it.
    const text = search.text.trim();
    const close = selectorEnd(text);
    if (close < 0) return text;
    const inside = text.slice(1, close).trim().replace(/,$/, '');
    const selector = `{${[inside, ...streams].filter(Boolean).join(', ')}}`;
    return [selector + text.slice(close + 1), ...fields].join(' ').trim();
  }
  // A selector needs at least one matcher that cannot match the empty value.
  const positive = groups.some((g) => isStreamLabel(g.field) && !g.exclude);
  const selector = `{${(positive ? streams : ['cluster=~".+"', ...streams]).join(', ')}}`;
  return [selector, ...lineFilters(search.text), ...fields].join(' ');
}

/** Index of the `}` that closes the selector at the start of `text`, outside strings; -1 when it is not closed. */
export function selectorEnd(text: string): number {
  let quoteChar = '';
  for (let i = 0; i < text.length; i += 1) {
    const c = text[i]!;
    if (quoteChar) {
      if (c === '\\' && quoteChar === '"') i += 1;
      else if (c === quoteChar) quoteChar = '';
    } else if (c === '"' || c === '`') quoteChar = c;
    else if (c === '}') return i;
  }
  return -1;
}

export const histogramQuery = (logql: string, stepSeconds: number): string =>
  `sum by (severity) (count_over_time(${logql} [${stepSeconds}s]))`;

export const facetQuery = (logql: string, field: string, rangeSeconds: number): string =>
  `topk(10, sum by (${field}) (count_over_time(${logql} [${rangeSeconds}s])))`;

/** The search as a facet of `field` sees it: under all other filters, so that its own values stay comparable. */
export const withoutField = (search: LogSearch, field: string): LogSearch => ({
  ...search,
  filters: search.filters.filter((f) => f.field !== field),
});

/** Adds, replaces or removes a filter: `include` and `exclude` toggle, `only` drops the field's other filters. */
export function toggleFilter(filters: Filter[], field: string, value: string, how: 'include' | 'exclude' | 'only'): Filter[] {
  const same = (f: Filter) => f.field === field && f.value === value;
  if (how === 'only') return [...filters.filter((f) => f.field !== field), { field, value, exclude: false }];
  const exclude = how === 'exclude';
  const existing = filters.find(same);
  const rest = filters.filter((f) => !same(f));
  return existing && existing.exclude === exclude ? rest : [...rest, { field, value, exclude }];
}

export const removeFilter = (filters: Filter[], gone: Filter): Filter[] =>
  filters.filter((f) => filterText(f) !== filterText(gone));
