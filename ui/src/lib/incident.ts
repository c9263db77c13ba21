// What the page of an incident tells, from what the server says of it. Pure.
import type { Cluster, Evidence, Event, Incident, LogLine, PhaseName } from '../api/types';
import { bytes, span } from './format';
import { readable } from './logtext';

const ms = (time: string) => Date.parse(time);

/** Time zero: the first sign of trouble, which may be before the incident was opened. */
export const startOf = (i: Incident): number => Math.min(ms(i.opened_at), ...(i.phases ?? []).map((p) => ms(p.at)));

/** Shown before the first sign and after the end, so that both can be seen to have been different. */
const MARGIN_MS = 60_000;

/** An open incident in which nothing has happened for so long is shown as far as something did: else its hours hide its seconds. */
const QUIET_MS = 30 * 60_000;

/** The time range that shows the whole incident. `to` is null while it goes on. */
export function windowOf(i: Incident, now: number): { from: number; to: number | null } {
  const from = startOf(i) - MARGIN_MS;
  if (i.settled_at) return { from, to: ms(i.settled_at) + MARGIN_MS };
  const last = Math.max(ms(i.opened_at), ...(i.phases ?? []).map((p) => ms(p.at)), ...(i.events ?? []).map((e) => ms(e.time)));
  const quiet = now - last > Math.max(QUIET_MS, 3 * (last - from));
  return { from, to: quiet ? last + QUIET_MS / 3 : null };
}

// --- Phases ---

export interface Step {
  name: PhaseName | 'key_lost';
  word: string;
  at: number | null;
  /** Seconds since the last step before it that is known. */
  gap: number | null;
  /** `pending` may still come, `unseen` has passed without being seen. */
  state: 'known' | 'pending' | 'unseen';
}

const STEP_WORD: Record<Step['name'], string> = {
  trigger: 'first sign', detected: 'detected', lease_expired: 'lease expired', released: 'key released', key_lost: 'key lost',
  lock_taken: 'key taken', promoted: 'promoted', first_write: 'first write', last_replica_streaming: 'all replicas stream',
};
const LEADER_STEPS: PhaseName[] = ['lease_expired', 'released', 'lock_taken', 'promoted'];
const LEADER_EVENTS = ['leader_lost', 'leader_changed', 'leader_returned'];

/** One stretch of trouble: an incident that came back has several. */
export interface Round {
  phases: { name: PhaseName; at: string }[];
  events: Event[];
  /** Nothing more comes of it. */
  over: boolean;
}

/** Each later first sign begins another round. */
export function rounds(i: Incident): Round[] {
  const out: Round[] = [];
  for (const p of i.phases ?? []) {
    if (!out.length || p.name === 'trigger') out.push({ phases: [], events: [], over: false });
    out.at(-1)!.phases.push(p);
  }
  if (!out.length) out.push({ phases: [], events: [], over: false });
  const starts = out.map((r, n) => (n === 0 ? -Infinity : ms(r.phases[0]!.at)));
  for (const e of i.events ?? []) out[starts.findLastIndex((t) => t <= ms(e.time))]!.events.push(e);
  return out.map((r, n) => ({ ...r, over: i.state === 'settled' || n < out.length - 1 }));
}

/** Whether the leadership was lost or changed, so that all steps of a failover are due. */
export const isFailover = (r: Pick<Round, 'phases' | 'events'>): boolean =>
  r.phases.some((p) => LEADER_STEPS.includes(p.name)) || r.events.some((e) => LEADER_EVENTS.includes(e.event));

/** The steps in their order, also those that are not known. */
export function steps(r: Round): Step[] {
  const known = new Map(r.phases.map((p) => [p.name, ms(p.at)]));
  const end = known.has('released') ? 'released' : known.has('lease_expired') ? 'lease_expired' : 'key_lost';
  const due: Step['name'][] = isFailover(r)
    ? ['trigger', 'detected', end, 'lock_taken', 'promoted', 'first_write', 'last_replica_streaming']
    : ['trigger', 'detected'];
  const at = due.map((name) => (name === 'key_lost' ? null : (known.get(name) ?? null)));
  const lastKnown = at.findLastIndex((t) => t !== null);
  const out = due.map((name, n): Step => ({
    name, word: STEP_WORD[name], at: at[n]!, gap: null,
    state: at[n] !== null ? 'known' : n > lastKnown && !r.over ? 'pending' : 'unseen',
  }));
  // What is known stands in the order of its times; what is not keeps its place between the others.
  const sorted = out.filter((s) => s.at !== null).sort((a, b) => a.at! - b.at!);
  let next = 0;
  const placed = out.map((s) => (s.at === null ? s : sorted[next++]!));
  let before: number | null = null;
  for (const s of placed) {
    if (s.at === null) continue;
    s.gap = before === null ? null : (s.at - before) / 1000;
    before = s.at;
  }
  return placed;
}

export interface Stretch {
  from: Step;
  to: Step;
  seconds: number;
  /** Steps that must lie in it and were not seen. */
  unseen: Step[];
}

/** The time between each known step and the next one. */
export function stretches(list: Step[]): Stretch[] {
  const out: Stretch[] = [];
  let from: Step | null = null;
  let unseen: Step[] = [];
  for (const s of list) {
    if (s.at === null) {
      unseen.push(s);
      continue;
    }
    if (from) out.push({ from, to: s, seconds: (s.at - from.at!) / 1000, unseen });
    from = s;
    unseen = [];
  }
  return out;
}

// --- Impact ---

export interface Cost {
  label: string;
  value: string;
  note: string;
  tone: 'critical' | 'warning' | 'ok' | 'unknown';
}

const has = (i: Incident, event: string) => (i.events ?? []).some((e) => e.event === event);

function writes(i: Incident, cluster: Cluster | null): Cost {
  const seconds = i.impact?.write_outage_seconds ?? null;
  const error = i.impact?.write_outage_error_seconds ?? null;
  const label = 'Writes were out';
  if (seconds === null && cluster?.standby_of) return { label, value: 'not applicable', note: 'a standby cluster takes no writes', tone: 'unknown' };
  // Members that nobody hears may take writes: then it is not known, rather than going on.
  const nobody = cluster !== null && !cluster.standby_of && cluster.writable.length === 0 && cluster.members.some((m) => m.writable === false);
  if (i.state !== 'settled' && nobody) {
    const unheard = cluster.members.filter((m) => m.writable === null).map((m) => m.name);
    const note = unheard.length ? `no member is seen to take writes; ${unheard.join(' and ')} cannot be seen` : 'no member takes writes';
    return { label, value: 'still going on', note, tone: 'critical' };
  }
  if (seconds === null) return { label, value: 'not measured', note: '', tone: 'unknown' };
  if (error !== null) return { label, value: span(seconds), note: `± ${span(error)}, measured by WAL`, tone: seconds > 0 ? 'critical' : 'ok' };
  return { label, value: span(seconds), note: 'as seen by asking every member', tone: seconds > 0 ? 'critical' : 'ok' };
}

/** What clients felt, where a probe writes as they do. */
function clients(i: Incident): Cost[] {
  const seconds = i.impact?.client_outage_seconds ?? null;
  if (seconds === null) return [];
  const error = i.impact?.client_outage_error_seconds ?? null;
  return [{ label: 'Clients were out', value: span(seconds), note: error ? `write probe, perhaps ${span(error)} less` : 'felt by the write probe', tone: 'critical' }];
}

function lostWal(i: Incident): Cost {
  const lost = i.impact?.lost_wal_bytes ?? null;
  const range = i.impact?.lost_wal ?? null;
  const label = 'Lost WAL';
  if (lost === 0) return { label, value: 'none', note: 'proven by both positions', tone: 'ok' };
  if (lost !== null) return { label, value: `at least ${bytes(lost)}`, note: range?.replace('..', ' to ') ?? '', tone: 'critical' };
  if (range) return { label, value: 'not measured', note: `possibly ${range.replace('..', ' to ')}`, tone: 'warning' };
  return { label, value: 'not measured', note: '', tone: 'unknown' };
}

function splitBrain(i: Incident, cluster: Cluster | null, now: number): Cost {
  const label = 'Split brain';
  const seconds = i.impact?.split_brain_seconds ?? null;
  const told = (i.events ?? []).filter((e) => e.event === 'split_brain_confirmed' || e.event === 'split_brain_ended');
  const last = told.at(-1);
  const live = i.state === 'settled' ? null : (cluster?.split_brain ?? null);
  if (i.state !== 'settled' && last?.event === 'split_brain_confirmed') {
    const members = String(last.fields?.members ?? '').split(',').filter(Boolean).join(' and ');
    return { label, value: 'still going on', note: `${members ? `${members}, ` : ''}for ${span(Math.max(0, Math.round((now - ms(last.time)) / 1000)))}`, tone: 'critical' };
  }
  if (seconds !== null) return { label, value: span(seconds), note: 'two members took writes', tone: 'critical' };
  if (live?.state === 'possible') return { label, value: 'possible', note: `${live.members.join(' and ')}: cannot be excluded`, tone: 'warning' };
  if (told.some((e) => e.event === 'split_brain_confirmed')) return { label, value: 'not measured', note: 'its end was not seen', tone: 'unknown' };
  // Nobody asks the members of a cluster that is not watched.
  if (i.state !== 'settled' && cluster === null) return { label, value: 'not measured', note: '', tone: 'unknown' };
  const dark = i.state === 'settled' ? [] : (cluster?.members ?? []).filter((m) => m.writable === null).map((m) => m.name);
  const note = has(i, 'split_brain_possible') ? 'it was possible, and never confirmed' : dark.length ? `${dark.join(' and ')} cannot be seen` : '';
  return { label, value: 'none seen', note, tone: note ? 'unknown' : 'ok' };
}

/** What it cost, with words for what is not known and for what goes on. `cluster` is the belief of now. */
export const costs = (i: Incident, cluster: Cluster | null, now: number): Cost[] => [writes(i, cluster), ...clients(i), lostWal(i), splitBrain(i, cluster, now)];

// --- Evidence ---

/** A record that proves something, with the member it is of: `pg1: LINE` as the log page shows the line. */
export function proofOf(e: Evidence): { member: string; text: string } {
  const at = e.text.indexOf(': ');
  const member = at > 0 && !/[\s{"'()=]/.test(e.text.slice(0, at)) ? e.text.slice(0, at) : '';
  return { member, text: readable(member ? e.text.slice(at + 2) : e.text) };
}

/** Records of the same sign under it, in the order in which they came. */
export function bySign(list: Evidence[]): { sign: string; records: Evidence[] }[] {
  const groups = new Map<string, Evidence[]>();
  for (const e of list) groups.set(e.sign ?? '', [...(groups.get(e.sign ?? '') ?? []), e]);
  return [...groups].map(([sign, records]) => ({ sign, records }));
}

export interface Absence {
  /** What was looked for, in words. */
  sign: string;
  /** Why it could not be seen; empty when it was looked for and is not there. */
  why: string;
}

/** `not found: SIGN` and `not observed: SIGN (WHY)` as the server words them. Absent and unseen are different things. */
export function absence(text: string): Absence {
  const found = /^not found: (.*)$/s.exec(text);
  if (found) return { sign: found[1]!, why: '' };
  const seen = /^not observed: (.*?)(?: \((.*)\))?$/s.exec(text);
  return seen ? { sign: seen[1]!, why: seen[2] ?? 'it could not be observed' } : { sign: text, why: '' };
}

/** `{source="kernel", member="n2"}` in words: `kernel of n2`. Null for what no word fits. */
function stream(selector: string): { source: string; member: string } | null {
  const source = /source=(~?)"([^"]+)"/.exec(selector);
  if (!source) return null;
  const member = /member(=|!=|=~|!~)"([^"]*)"/.exec(selector);
  const of = !member ? '' : member[1]!.startsWith('!') ? `others than ${member[2]}` : member[2]!;
  return { source: source[2]!.split('|').join(' or '), member: of };
}

/** What could not be seen, one line per source: the server lists each stream by itself. */
export function unseen(list: string[]): string[] {
  const logs = new Map<string, string[]>();
  const rest: string[] = [];
  for (const text of list) {
    const selector = /^no log of (\{.*\})$/.exec(text)?.[1];
    const s = selector ? stream(selector) : null;
    if (s) logs.set(s.source, [...(logs.get(s.source) ?? []), s.member]);
    else rest.push(text);
  }
  const words = [...logs].map(([source, members]) => {
    const known = [...new Set(members.filter(Boolean))].sort();
    return `no ${source === 'daraji' ? 'event of Daraji' : `log of ${source}`}${known.length && !members.includes('') ? ` from ${known.join(', ')}` : ''}`;
  });
  return [...words, ...new Set(rest)];
}

// --- Timeline ---

export interface StoryLine {
  key: string;
  at: number;
  member: string;
  source: string;
  severity: string;
  text: string;
  /** What it proves for the first cause, in words. */
  proves: string;
}

export interface Chapter {
  /** Null for what was logged before the first event. */
  event: Event | null;
  proves: string;
  /** Log lines from the event on to the next one. */
  lines: StoryLine[];
}

/**
 * Events in their order, oldest first, each with the log lines up to the next one. Records that prove the first cause are
 * marked; those that are no log lines (a silence, a sample) become lines of their own.
 */
export function story(i: Incident, events: Event[], lines: LogLine[]): Chapter[] {
  const left = [...(i.causes[0]?.evidence ?? [])];
  const take = (fits: (e: Evidence) => boolean): string => {
    const n = left.findIndex(fits);
    return n < 0 ? '' : (left.splice(n, 1)[0]!.sign || 'evidence of the first cause');
  };
  const ordered = [...new Map(events.map((e) => [e.id, e])).values()].sort((a, b) => ms(a.time) - ms(b.time));
  const chapters: Chapter[] = ordered.map((event) => ({ event, proves: take((e) => e.source === 'daraji' && e.time !== null && ms(e.time) === ms(event.time) && e.text.endsWith(event.text)), lines: [] }));
  const told: StoryLine[] = lines.map((l) => ({
    key: l.key, at: l.ms, member: l.labels.member ?? '', source: l.labels.source ?? '', severity: l.labels.severity ?? 'info', text: readable(l.line),
    proves: take((e) => e.source === l.labels.source && e.time !== null && ms(e.time) === l.ms && (proofOf(e).member || l.labels.member) === l.labels.member),
  }));
  left.forEach((e, n) => {
    if (!e.time) return;
    const p = proofOf(e);
    told.push({ key: `proof-${n}`, at: ms(e.time), member: p.member, source: e.source, severity: 'info', text: p.text, proves: e.sign || 'evidence of the first cause' });
  });
  told.sort((a, b) => a.at - b.at);
  const before: Chapter = { event: null, proves: '', lines: [] };
  let n = -1;
  for (const line of told) {
    while (n + 1 < chapters.length && ms(chapters[n + 1]!.event!.time) <= line.at) n += 1;
    (n < 0 ? before : chapters[n]!).lines.push(line);
  }
  return before.lines.length ? [before, ...chapters] : chapters;
}

/** Time since time zero: `T+21.4 s`. */
export const since = (at: number, zero: number): string => `T${at < zero ? '−' : '+'}${span(Math.abs(at - zero) / 1000)}`;

// --- Lists ---

const STATE_ORDER: Record<Incident['state'], number> = { open: 0, acknowledged: 1, settled: 2 };

/** What nobody has taken first, then what somebody has, then what is over; newest first among equals. */
export const byUrgency = (a: Incident, b: Incident): number => STATE_ORDER[a.state] - STATE_ORDER[b.state] || b.opened_at.localeCompare(a.opened_at);

/** How long it has gone on, or went on, in seconds. */
export const lasted = (i: Incident, now: number): number => Math.max(0, (i.settled_at ? ms(i.settled_at) : now) - ms(i.opened_at)) / 1000;

/** The likeliest cause in one line; a guess is told as one. */
export function causeLine(i: Pick<Incident, 'causes' | 'verdict'>): string {
  const first = i.causes[0];
  if (!first) return i.verdict ?? 'cause not known yet';
  return first.confidence === 'low' ? `no cause is proven; perhaps: ${first.title}` : `${first.title} (${first.confidence} confidence)`;
}

/** A masked log line in pieces: every other one stands for a variable. */
export const patternPieces = (pattern: string): string[] => pattern.split('<_>');
