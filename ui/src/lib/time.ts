// Times and ranges as people type them. Pure: `now` and the zone are arguments, nothing here reads a clock.

export type Zone = 'local' | 'utc';

/** A range as the URL keeps it: either side is relative (`now`, `now-1h`) or an absolute instant (ISO 8601). */
export interface Range {
  from: string;
  to: string;
}

/** A range resolved to milliseconds since the epoch. */
export interface Window {
  from: number;
  to: number;
}

export const DEFAULT_RANGE: Range = { from: 'now-1h', to: 'now' };

export const PRESETS = ['5m', '15m', '30m', '1h', '3h', '6h', '12h', '24h', '2d', '7d', '30d'] as const;

const UNIT_MS: Record<string, number> = {
  ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000,
};

/** `90s`, `1h30m`, `7d` → milliseconds; null when it is not a duration. */
export function parseDuration(text: string): number | null {
  const compact = text.trim().toLowerCase().replace(/\s+/g, '');
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d|w))+$/.test(compact)) return null;
  let total = 0;
  for (const part of compact.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d|w)/g)) total += Number(part[1]) * UNIT_MS[part[2]!]!;
  return total > 0 ? total : null;
}

function startOfDay(ms: number, zone: Zone): number {
  const d = new Date(ms);
  return zone === 'utc' ? Date.UTC(d.getUTCFullYear(), d.getUTCMonth(), d.getUTCDate()) : new Date(d.getFullYear(), d.getMonth(), d.getDate()).getTime();
}

function fromParts(p: string[], zone: Zone): number | null {
  const [y, mo, d, h, mi, s] = p.map((x) => (x === undefined ? 0 : Number(x))) as [number, number, number, number, number, number];
  if (mo < 1 || mo > 12 || d < 1 || d > 31 || h > 23 || mi > 59 || s >= 60) return null;
  const ms = Math.round((s % 1) * 1000);
  const whole = Math.floor(s);
  return zone === 'utc' ? Date.UTC(y, mo - 1, d, h, mi, whole, ms) : new Date(y, mo - 1, d, h, mi, whole, ms).getTime();
}

/**
 * One instant: `now`, `now-90m`, `-90m`, `14:00`, `yesterday 14:00`, `2026-11-25 07:11`, ISO 8601 with zone, or an epoch
 * in seconds, milliseconds, microseconds or nanoseconds. Null when it is none of them.
 */
export function parseInstant(text: string, now: number, zone: Zone): number | null {
  const t = text.trim().toLowerCase();
  if (t === 'now') return now;
  const relative = /^(?:now)?\s*([+-])\s*(.+)$/.exec(t);
  if (relative) {
    const span = parseDuration(relative[2]!);
    if (span !== null) return relative[1] === '-' ? now - span : now + span;
  }
  const ago = /^(.+?)\s+ago$/.exec(t);
  if (ago) {
    const span = parseDuration(ago[1]!);
    if (span !== null) return now - span;
  }
  if (/^\d{9,19}$/.test(t)) {
    const digits = t.length;
    const n = Number(t);
    return digits <= 11 ? n * 1000 : digits <= 14 ? n : digits <= 17 ? n / 1000 : Math.floor(n / 1e6);
  }
  const day = /^(?:(today|yesterday)\b)?\s*(?:(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?)?$/.exec(t);
  if (day && (day[1] || day[2])) {
    const base = startOfDay(now, zone) - (day[1] === 'yesterday' ? UNIT_MS.d! : 0);
    const h = Number(day[2] ?? 0), m = Number(day[3] ?? 0), s = Number(day[4] ?? 0);
    return h > 23 || m > 59 || s >= 60 ? null : base + h * UNIT_MS.h! + m * UNIT_MS.m! + s * 1000;
  }
  const plain = /^(\d{4})-(\d{2})-(\d{2})(?:[t ](\d{2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?)?$/.exec(t);
  if (plain) return fromParts(plain.slice(1), zone);
  if (/^\d{4}-\d{2}-\d{2}t\d{2}:\d{2}.*(z|[+-]\d{2}:?\d{2})$/.test(t)) {
    const ms = Date.parse(text.trim());
    return Number.isNaN(ms) ? null : ms;
  }
  return null;
}

/** A typed range: a duration (`2h`), `A to B`, `A .. B`, or one instant (until now). The error says what would work. */
export function parseRange(text: string, now: number, zone: Zone): { range: Range } | { error: string } {
  const t = text.trim();
  if (t === '') return { error: 'type a range: 2h, yesterday 14:00, 2026-11-25 07:00 to 08:00' };
  const last = /^(?:last\s+)?(.+)$/i.exec(t)!;
  if (parseDuration(last[1]!) !== null) return { range: { from: `now-${last[1]!.replace(/\s+/g, '')}`, to: 'now' } };
  const halves = t.split(/\s+(?:to|until|–|-)\s+|\s*\.\.\s*/i);
  if (halves.length > 2) return { error: 'a range has two ends: FROM to TO' };
  const side = (s: string, day?: number): { text: string; ms: number } | null => {
    const relative = s.trim().toLowerCase().replace(/\s+/g, '');
    const ms = parseInstant(s, day ?? now, zone) ?? parseInstant(s, now, zone);
    if (ms === null) return null;
    return /^now([+-].+)?$/.test(relative) ? { text: relative, ms: parseInstant(s, now, zone)! } : { text: new Date(ms).toISOString(), ms };
  };
  const from = side(halves[0]!);
  if (!from) return { error: `“${halves[0]!.trim()}” is not a time: use 2h, 14:00, yesterday 14:00, 2026-11-25 07:00 or an epoch` };
  if (halves.length === 1) return from.ms >= now ? { error: 'the range starts in the future' } : { range: { from: from.text, to: 'now' } };
  // A bare clock time at the end belongs to the day at which the range starts.
  const bareClock = /^\d{1,2}:\d{2}(:\d{2})?$/.test(halves[1]!.trim());
  const to = side(halves[1]!, bareClock ? from.ms : undefined);
  if (!to) return { error: `“${halves[1]!.trim()}” is not a time` };
  if (to.ms <= from.ms) return { error: 'the range ends before it starts' };
  return { range: { from: from.text, to: to.text } };
}

/** Resolves a URL range at `now`; anything unreadable or backwards becomes the default hour. */
export function resolveRange(range: Range, now: number): Window {
  const from = parseInstant(range.from, now, 'utc');
  const to = parseInstant(range.to, now, 'utc');
  if (from === null || to === null || to <= from) return { from: now - UNIT_MS.h!, to: now };
  return { from, to };
}

export const isLive = (range: Range): boolean => range.to === 'now';

export function absolute(window: Window): Range {
  return { from: new Date(Math.floor(window.from)).toISOString(), to: new Date(Math.ceil(window.to)).toISOString() };
}

/** Doubles the window around its middle, never past `now`. */
export function zoomOut(w: Window, now: number): Window {
  const span = (w.to - w.from) * 2;
  const to = Math.min(now, w.to + span / 4);
  return { from: to - span, to };
}

/** Moves the window by half of its width, never past `now`. */
export function shift(w: Window, direction: -1 | 1, now: number): Window {
  const span = w.to - w.from;
  const to = Math.min(now, w.to + (direction * span) / 2);
  return { from: to - span, to };
}

const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400];

/** The smallest round step (seconds) that keeps a window within `maxPoints` points. */
export function stepSeconds(w: Window, maxPoints: number, minimum = 1): number {
  const ideal = Math.max((w.to - w.from) / 1000 / maxPoints, minimum);
  return STEPS_S.find((s) => s >= ideal) ?? Math.ceil(ideal / 86_400) * 86_400;
}

/** The range in words, for the time button: `last 1h`, or both ends. */
export function rangeLabel(range: Range, zone: Zone, now: number): string {
  const relative = /^now-(.+)$/.exec(range.from);
  if (relative && range.to === 'now') return `Last ${relative[1]}`;
  const w = resolveRange(range, now);
  const day = startOfDay(w.from, zone);
  const to = range.to === 'now' ? 'now' : day === startOfDay(w.to, zone) ? formatClock(w.to, zone) : formatDateTime(w.to, zone);
  // Bare clock times are read as today's.
  return `${day === startOfDay(now, zone) ? formatClock(w.from, zone) : formatDateTime(w.from, zone)} – ${to}`;
}

const two = (n: number, width = 2) => String(n).padStart(width, '0');

function parts(ms: number, zone: Zone): [number, number, number, number, number, number, number] {
  const d = new Date(ms);
  return zone === 'utc'
    ? [d.getUTCFullYear(), d.getUTCMonth() + 1, d.getUTCDate(), d.getUTCHours(), d.getUTCMinutes(), d.getUTCSeconds(), d.getUTCMilliseconds()]
    : [d.getFullYear(), d.getMonth() + 1, d.getDate(), d.getHours(), d.getMinutes(), d.getSeconds(), d.getMilliseconds()];
}

/** `07:11:47`, with milliseconds on request. */
export function formatClock(ms: number, zone: Zone, millis = false): string {
  const [, , , h, m, s, f] = parts(ms, zone);
  return `${two(h)}:${two(m)}:${two(s)}${millis ? `.${two(f, 3)}` : ''}`;
}

/** `2026-11-25 07:11:47`. */
export function formatDateTime(ms: number, zone: Zone, millis = false): string {
  const [y, mo, d] = parts(ms, zone);
  return `${y}-${two(mo)}-${two(d)} ${formatClock(ms, zone, millis)}`;
}

/** A tick label for an axis whose ticks are `gapMs` apart. */
export function formatTick(ms: number, gapMs: number, zone: Zone): string {
  const [, mo, d, h, m, s] = parts(ms, zone);
  if (gapMs >= UNIT_MS.d!) return `${two(mo)}-${two(d)}`;
  if (h === 0 && m === 0 && s === 0) return `${two(mo)}-${two(d)}`;
  return gapMs < 60_000 ? `${two(h)}:${two(m)}:${two(s)}` : `${two(h)}:${two(m)}`;
}

/** Round instants for about `count` ticks inside a window, aligned to the zone's midnight. */
export function ticks(w: Window, count: number, zone: Zone): { at: number[]; gap: number } {
  const gap = stepSeconds(w, count) * 1000;
  const origin = startOfDay(w.from, zone);
  const first = origin + Math.ceil((w.from - origin) / gap) * gap;
  const at: number[] = [];
  for (let t = first; t <= w.to && at.length < 64; t += gap) at.push(t);
  return { at, gap };
}

/** The zone's short name where the reader is, e.g. `UTC`, `GMT+2`. */
export function zoneName(zone: Zone, ms: number): string {
  if (zone === 'utc') return 'UTC';
  const part = new Intl.DateTimeFormat('en-GB', { timeZoneName: 'short' }).formatToParts(ms).find((p) => p.type === 'timeZoneName');
  return part?.value ?? 'local';
}
