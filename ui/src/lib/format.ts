// Numbers, sizes and spans as a DBA reads them. `null` is unknown and is always said so, never shown as 0.

export const UNKNOWN = 'unknown';

export type Unit = 'bytes' | 'bytes/s' | 'seconds' | 'percent' | 'count' | 'per second' | 'none';

const BINARY = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
const DECIMAL = ['', 'k', 'M', 'G', 'T'];

function scaled(value: number, base: number, units: string[]): [number, string] {
  let v = Math.abs(value);
  let i = 0;
  while (v >= base && i < units.length - 1) {
    v /= base;
    i += 1;
  }
  return [value < 0 ? -v : v, units[i]!];
}

const digits = (v: number) => {
  const a = Math.abs(v);
  if (a === 0 || Number.isInteger(v)) return v.toFixed(0);
  if (a >= 100) return v.toFixed(0);
  if (a >= 10) return v.toFixed(1);
  return a >= 0.01 ? String(Number(v.toFixed(2))) : String(Number(v.toPrecision(2)));
};

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return UNKNOWN;
  const [v, unit] = scaled(value, 1024, BINARY);
  return `${digits(v)} ${unit}`;
}

export function count(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return UNKNOWN;
  const [v, unit] = scaled(value, 1000, DECIMAL);
  return `${digits(v)}${unit ? ` ${unit}` : ''}`;
}

export const integer = (value: number | null | undefined): string =>
  value === null || value === undefined ? UNKNOWN : Math.round(value).toLocaleString('en-US');

/** A span in seconds, two units at most: `350 ms`, `4.2 s`, `3m 20s`, `2h 5m`, `4d 3h`. */
export function span(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return UNKNOWN;
  const s = Math.abs(seconds);
  const sign = seconds < 0 ? '−' : '';
  if (s === 0) return '0 s';
  if (s < 0.001) return `${sign}${digits(s * 1e6)} µs`;
  if (s < 1) return `${sign}${digits(s * 1000)} ms`;
  if (s < 60) return `${sign}${digits(s < 10 ? Math.round(s * 10) / 10 : Math.round(s))} s`;
  const whole = Math.round(s);
  const two = (a: number, ua: string, b: number, ub: string) => `${sign}${a}${ua}${b ? ` ${b}${ub}` : ''}`;
  if (whole < 3600) return two(Math.floor(whole / 60), 'm', whole % 60, 's');
  if (whole < 86_400) return two(Math.floor(whole / 3600), 'h', Math.floor((whole % 3600) / 60), 'm');
  return two(Math.floor(whole / 86_400), 'd', Math.floor((whole % 86_400) / 3600), 'h');
}

/** An age in whole seconds and up: ages under a second are `now`. */
export function age(ms: number | null): string {
  if (ms === null) return 'never';
  return ms < 1000 ? 'now' : span(Math.floor(ms / 1000));
}

export function value(v: number | null | undefined, unit: Unit): string {
  if (v === null || v === undefined || Number.isNaN(v)) return UNKNOWN;
  switch (unit) {
    case 'bytes': return bytes(v);
    case 'bytes/s': return `${bytes(v)}/s`;
    case 'seconds': return span(v);
    case 'percent': return `${digits(v * 100)} %`;
    case 'per second': return `${count(v)}/s`;
    case 'count':
    case 'none': return count(v);
  }
}

/** Axis labels: as `value`, but never in words. */
export const axis = (v: number, unit: Unit): string => value(v, unit);

/** A label set as PromQL writes it, without the name. */
export function labelText(labels: Record<string, string>, hide: string[] = []): string {
  const shown = Object.entries(labels).filter(([k]) => k !== '__name__' && !hide.includes(k));
  return shown.length ? `{${shown.map(([k, v]) => `${k}="${v}"`).join(', ')}}` : '{}';
}

/** The innermost reason of an error told as a chain: `request to X failed: … : Connection refused (os error 111)` → `Connection refused`. */
export const innermost = (error: string): string => (error.split(': ').pop() ?? error).replace(/ \(os error \d+\)$/, '') || error;

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${integer(n)} ${n === 1 ? one : many}`;
}
