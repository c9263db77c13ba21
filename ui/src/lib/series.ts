// From Prometheus matrices to the aligned columns that the chart draws. Pure.
import type { Labels, PromSeries } from '../api/types';

export interface Line {
  label: string;
  labels: Labels;
  values: (number | null)[];
}

export interface Aligned {
  /** Seconds since the epoch, evenly spaced. */
  x: number[];
  lines: Line[];
}

const MAX_LINES = 60;

/** Puts all series on one grid from `fromS` to `toS`; a missing sample is null and drawn as a gap, never bridged. */
export function align(series: PromSeries[], fromS: number, toS: number, stepS: number, name: (labels: Labels) => string): Aligned {
  const length = Math.max(1, Math.floor((toS - fromS) / stepS) + 1);
  const x = Array.from({ length }, (_, i) => fromS + i * stepS);
  const lines = series.slice(0, MAX_LINES).map((s) => {
    const values = new Array<number | null>(length).fill(null);
    for (const [t, v] of s.values) {
      const i = Math.round((t - fromS) / stepS);
      const n = Number(v);
      if (i >= 0 && i < length && Number.isFinite(n)) values[i] = n;
    }
    return { label: name(s.metric), labels: s.metric, values };
  });
  lines.sort((a, b) => a.label.localeCompare(b.label, 'en', { numeric: true }));
  return { x, lines };
}

export function last(values: (number | null)[]): number | null {
  for (let i = values.length - 1; i >= 0; i -= 1) if (values[i] !== null) return values[i]!;
  return null;
}

export function stats(values: (number | null)[]): { last: number | null; min: number | null; avg: number | null; max: number | null } {
  let min = Infinity, max = -Infinity, sum = 0, n = 0;
  for (const v of values) {
    if (v === null) continue;
    min = Math.min(min, v);
    max = Math.max(max, v);
    sum += v;
    n += 1;
  }
  return n ? { last: last(values), min, avg: sum / n, max } : { last: null, min: null, avg: null, max: null };
}

/** Cumulative columns for stacked areas: each line on top of the ones before it. */
export function stack(lines: Line[]): (number | null)[][] {
  const total: number[] = [];
  return lines.map((line) =>
    line.values.map((v, i) => {
      total[i] = (total[i] ?? 0) + (v ?? 0);
      return v === null && total[i] === 0 ? null : total[i]!;
    }),
  );
}

/** A name for a series by the labels that tell it apart from the others. */
export function distinguishing(series: PromSeries[]): (labels: Labels) => string {
  const keys = [...new Set(series.flatMap((s) => Object.keys(s.metric)))];
  const varying = keys.filter((k) => new Set(series.map((s) => s.metric[k])).size > 1);
  return (labels) => {
    if (varying.length === 0) return labels.__name__ ?? 'value';
    return varying.map((k) => labels[k]).filter((v) => v !== undefined && v !== '').join(' · ') || '(empty)';
  };
}
