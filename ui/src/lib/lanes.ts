// Turns samples of `daraji_member_role` into one lane of segments per member. Pure.
import type { Event, PromSeries, Role } from '../api/types';
import type { Window } from './time';

export interface Segment {
  from: number;
  to: number;
  role: Role;
}

export interface Lane {
  member: string;
  segments: Segment[];
}

/**
 * A gap between samples longer than `gapMs` is a time about which nothing is known and stays empty. Where two roles claim
 * the same instant the primary is shown: it is the one that must not be missed.
 */
export function roleLanes(series: PromSeries[], stepMs: number, w: Window): Lane[] {
  const gapMs = stepMs * 1.5;
  const byMember = new Map<string, Map<number, Role>>();
  for (const s of series) {
    const member = s.metric.member;
    const role = s.metric.role as Role | undefined;
    if (!member || !role) continue;
    const at = byMember.get(member) ?? new Map<number, Role>();
    for (const [t, v] of s.values) {
      const ms = t * 1000;
      if (Number(v) === 1 && (!at.has(ms) || role === 'primary')) at.set(ms, role);
    }
    byMember.set(member, at);
  }
  return [...byMember.entries()].sort(([a], [b]) => a.localeCompare(b)).map(([member, at]) => ({ member, segments: segments(at, gapMs, stepMs, w) }));
}

function segments(at: Map<number, Role>, gapMs: number, stepMs: number, w: Window): Segment[] {
  const out: Segment[] = [];
  for (const [ms, role] of [...at.entries()].sort((a, b) => a[0] - b[0])) {
    const last = out[out.length - 1];
    const end = Math.min(ms + stepMs, w.to);
    if (last && last.role === role && ms - last.to <= gapMs - stepMs) last.to = end;
    else {
      if (last && last.to > ms) last.to = ms;
      out.push({ from: Math.max(ms, w.from), to: end, role });
    }
  }
  return out.filter((s) => s.to > s.from);
}

/** Spans in which two or more members were primary at once. */
export function dualPrimary(lanes: Lane[]): { from: number; to: number; members: string[] }[] {
  const edges: { at: number; delta: 1 | -1; member: string }[] = [];
  for (const lane of lanes) {
    for (const s of lane.segments) {
      if (s.role !== 'primary') continue;
      edges.push({ at: s.from, delta: 1, member: lane.member }, { at: s.to, delta: -1, member: lane.member });
    }
  }
  edges.sort((a, b) => a.at - b.at || a.delta - b.delta);
  const active = new Set<string>();
  const out: { from: number; to: number; members: string[] }[] = [];
  let since: number | null = null;
  let who: string[] = [];
  for (const e of edges) {
    if (e.delta === 1) active.add(e.member);
    else active.delete(e.member);
    if (active.size >= 2) {
      since ??= e.at;
      who = [...active];
    } else if (since !== null) {
      if (e.at > since) out.push({ from: since, to: e.at, members: who });
      since = null;
    }
  }
  return out;
}

/** Split brains as the judge told them, oldest first; one that has not ended has no `to`. */
export function splitBrains(events: Event[]): { from: number; to: number | null; members: string[] }[] {
  const out: { from: number; to: number | null; members: string[] }[] = [];
  for (const e of [...events].sort((a, b) => (a.time < b.time ? -1 : 1))) {
    const last = out[out.length - 1];
    if (e.event === 'split_brain_confirmed') out.push({ from: Date.parse(e.time), to: null, members: String(e.fields?.members ?? '').split(',').filter(Boolean) });
    else if (e.event === 'split_brain_ended' && last && last.to === null) last.to = Date.parse(e.time);
  }
  return out.filter((s) => s.members.length > 1);
}
