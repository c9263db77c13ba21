// What a log line says, without what the columns beside it already say. Pure.

/** A date and time with what follows it before the text: `2026-01-02 03:04:05,678 INFO: `, `… UTC [123] LOG `, `…+00:00 `. */
const STAMP = /^\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d| [A-Z]{3,5})?\]?,? /;
const LEVEL = /^(?:DEBUG|INFO|WARNING|ERROR|CRITICAL): /;

/** Keys of JSON lines that are columns here, or bookkeeping of the logger. */
const COLUMNS = new Set(['ts', 'time', 'timestamp', 'asctime', 'level', 'levelname', 'severity', 'logger', 'caller']);

/**
 * The line as the list shows it: a JSON line as its message and `key=value`, another line without its own time and level.
 * The detail shows the bytes as they were written.
 */
export function readable(line: string): string {
  if (line.startsWith('{')) return fromJson(line) ?? line;
  const text = line.replace(STAMP, '');
  return text === line ? line : text.replace(LEVEL, '') || line;
}

/** The message of a JSON line that was cut off, as far as it goes. */
function messageOf(cut: string): string | null {
  const text = /"(?:message|msg)":\s*"((?:[^"\\]|\\.)+)/.exec(cut)?.[1];
  return text ? text.replace(/\\(["\\/])/g, '$1') : null;
}

function fromJson(line: string): string | null {
  let fields: unknown;
  try {
    fields = JSON.parse(line);
  } catch {
    return messageOf(line);
  }
  if (typeof fields !== 'object' || fields === null || Array.isArray(fields)) return null;
  const all = fields as Record<string, unknown>;
  const key = ['message', 'msg'].find((k) => typeof all[k] === 'string' && all[k] !== '');
  if (!key) return null;
  const rest = Object.entries(all).filter(([k, v]) => k !== key && !COLUMNS.has(k) && v !== '' && v !== null);
  return [String(all[key]), ...rest.map(([k, v]) => `${k}=${typeof v === 'string' ? v : JSON.stringify(v)}`)].join('  ');
}
