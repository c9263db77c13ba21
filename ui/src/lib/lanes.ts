// Turns samples and events into one lane per member: its role, whether it took writes, when it held the leader key. Pure.
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

export interface Span {
  from: number;
  to: number;
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

/** When each member took writes, by samples of `daraji_member_writable`; a gap is not known and stays empty. */
export function writableSpans(series: PromSeries[], stepMs: number, w: Window): Map<string, Span[]> {
  const out = new Map<string, Span[]>();
  for (const s of series) {
    const yes = new Map(s.values.filter(([, v]) => Number(v) === 1).map(([t]) => [t * 1000, 'primary' as Role]));
    if (s.metric.member && yes.size) out.set(s.metric.member, segments(yes, stepMs * 1.5, stepMs, w).map(({ from, to }) => ({ from, to })));
  }
  return out;
}

const BLIND: Record<string, boolean> = { dcs_quorum_lost: true, dcs_blind: true, dcs_quorum_restored: false, dcs_visible: false };

/**
 * When each member held the leader key, by the judge's events, which have exact times. Nothing is known while the DCS
 * cannot be read. `owner` holds it now, and is all there is to go by when nothing happened.
 */
export function lockSpans(events: Event[], w: Window, owner: string | null): Map<string, Span[]> {
  const out = new Map<string, Span[]>();
  const held = (member: string | null | undefined, from: number, to: number) => {
    const span = { from: Math.max(from, w.from), to: Math.min(to, w.to) };
    if (member && span.to > span.from) out.set(member, [...(out.get(member) ?? []), span]);
  };
  // undefined is unknown, null is nobody.
  let holder: string | null | undefined;
  let begun = w.from;
  let blind = false;
  const turn = (at: number, next: string | null | undefined) => {
    if (!blind) held(holder, begun, at);
    [holder, begun] = [next, at];
  };
  for (const e of [...events].sort((a, b) => (a.time < b.time ? -1 : 1))) {
    const at = Date.parse(e.time);
    const field = (name: string) => (e.fields?.[name] === undefined ? undefined : String(e.fields[name]));
    const before = field('old_leader');
    if (e.event === 'leader_lost' || e.event === 'dcs_leader_deleted') {
      holder ??= before ?? e.member ?? undefined;
      turn(at, null);
    } else if (e.event === 'leader_changed' || e.event === 'leader_returned') {
      if (holder === undefined && before) {
        holder = before;
        turn(at - Number(field('gap_seconds') ?? 0) * 1000, null);
      }
      turn(at, field('new_leader') ?? e.member);
    } else if (e.event in BLIND) {
      turn(at, holder);
      blind = BLIND[e.event]!;
    }
  }
  turn(w.to, null);
  if (out.size === 0 && holder === null && !events.some((e) => LEADERSHIP.has(e.event))) held(owner, w.from, w.to);
  return out;
}

const LEADERSHIP = new Set(['leader_lost', 'dcs_leader_deleted', 'leader_changed', 'leader_returned', ...Object.keys(BLIND)]);

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
