// What the judge believes beyond roles, in words for people. Null is unknown and never a guess. Pure.
import type { Cluster, Demotion, FailoverRequest, Member, Reach } from '../api/types';
import { bytes, span } from './format';
import type { Tone } from './health';

/** A clock that is off by more than this makes times of two hosts misleading. */
const SKEW_SHOWN_SECONDS = 1;

/** `3.2 s ahead ± 0.4 s`; null while it is unknown, or no more than a second and its own error. */
export function skewText(m: Pick<Member, 'clock_skew_seconds' | 'clock_skew_error_seconds'>): string | null {
  const skew = m.clock_skew_seconds ?? null;
  const error = m.clock_skew_error_seconds ?? null;
  if (skew === null || Math.abs(skew) <= SKEW_SHOWN_SECONDS) return null;
  return `clock ${span(Math.abs(skew))} ${skew > 0 ? 'ahead' : 'behind'}${error === null ? '' : ` ± ${span(error)}`}`;
}

export interface Countdown {
  text: string;
  tone: Tone;
}

const BASIS: Record<Demotion['basis'], string> = {
  quorum_lost: 'the DCS has no quorum, nobody can renew the leader key',
  dcs_blind: 'Daraji cannot read the DCS; the leader may still reach it',
  lease_not_renewed: 'the DCS works and the lease is not renewed: its Patroni is dead, hung or cut off',
};

/** When the leader must give up, counted down; what it means when that time has passed without it. */
export function demotionText(d: Demotion, stillWritable: boolean | null, now: number): Countdown {
  const left = Math.round((Date.parse(d.due_at) - now) / 1000);
  const must = d.certain ? 'must demote itself' : 'is expected to demote itself';
  const why = BASIS[d.basis];
  if (left > 0) return { text: `${d.member} ${must} within ${span(left)}: ${why}`, tone: 'warning' };
  const ago = `${span(Math.abs(left) || 1)} ago`;
  if (stillWritable === true) return { text: `${d.member} ${d.certain ? 'had to demote itself' : 'was expected to demote itself'} ${ago} and still takes writes: ${why}`, tone: d.certain ? 'critical' : 'warning' };
  if (stillWritable === false) return { text: `${d.member} has given up, as it had to: ${why}`, tone: 'info' };
  return { text: `${d.member} ${d.certain ? 'had to demote itself' : 'was expected to demote itself'} ${ago}; whether it did is unknown: ${why}`, tone: 'unknown' };
}

const PORT_WORD: Record<Reach['port'], string> = { postgres: 'PostgreSQL', rest: 'Patroni REST' };

export interface Path {
  port: string;
  /** Members whose agents reach it, and those whose do not, with how it failed. */
  from: string[];
  notFrom: string[];
}

/** How a member's ports look from the other hosts; empty when no agent has tried lately. */
export function pathsTo(reachability: Reach[] | undefined, member: string): Path[] {
  const ports = new Map<Reach['port'], Path>();
  for (const r of reachability ?? []) {
    if (r.target !== member) continue;
    const path = ports.get(r.port) ?? { port: PORT_WORD[r.port] ?? r.port, from: [], notFrom: [] };
    if (r.reachable) path.from.push(r.from);
    else path.notFrom.push(r.failure ? `${r.from} (${r.failure})` : r.from);
    ports.set(r.port, path);
  }
  return [...ports.values()];
}

/** `cannot be reached from: pg1 (timeout)`, over all ports; null when every path that was tried works. */
export function unreachableText(reachability: Reach[] | undefined, member: string): string | null {
  const failing = pathsTo(reachability, member).filter((p) => p.notFrom.length);
  if (!failing.length) return null;
  const same = failing.length > 1 && failing.every((p) => p.notFrom.join() === failing[0]!.notFrom.join());
  return `cannot be reached from: ${same ? failing[0]!.notFrom.join(', ') : failing.map((p) => `${p.notFrom.join(', ')} on ${p.port}`).join('; ')}`;
}

/** What sets a member apart in the chain of replication. */
export function chainMarks(m: Member, cluster: Pick<Cluster, 'members'>): string[] {
  const out: string[] = [];
  const up = m.upstream ? cluster.members.find((x) => x.name === m.upstream) : undefined;
  if (up && up.role !== 'primary' && up.role !== 'standby_leader') out.push(`cascades from ${up.name}`);
  if (m.apply_delay_seconds) out.push(`delayed by ${span(m.apply_delay_seconds)}`);
  return out;
}

export interface Succession {
  /** Who would take over, or that nobody would. */
  text: string;
  tone: Tone;
  /** What would be lost. */
  loss: string;
}

/** Who would take over if the leader failed now; null before anybody led. */
export function succession(c: Pick<Cluster, 'readiness' | 'dcs' | 'paused'>): Succession | null {
  const r = c.readiness;
  if (!r) return null;
  if (r.candidate === null) {
    if (c.dcs?.stale) return { text: 'Who would take over is unknown', tone: 'unknown', loss: '' };
    return { text: c.paused ? 'Nobody would take over' : 'Nobody could take over', tone: 'warning', loss: '' };
  }
  const risky = r.candidates.find((x) => x.member === r.candidate)?.risks.length ?? 0;
  const loss = r.lag_bytes === null ? 'how much would be lost is unknown' : r.lag_bytes === 0 ? 'nothing would be lost as of now' : `${bytes(r.lag_bytes)} of WAL would be lost`;
  return { text: `${r.candidate} would take over`, tone: risky || r.lag_bytes === null ? 'warning' : 'ok', loss };
}

/** What operators have asked for and what has not happened yet. */
export function pendingRequests(requests: FailoverRequest[] | undefined): { text: string; at: string | null }[] {
  return (requests ?? []).filter((r) => r.outcome === 'pending').map((r) => ({
    text: `${r.kind === 'switchover' ? `switchover${r.leader ? ` from ${r.leader}` : ''}` : 'manual failover'}${r.candidate ? ` to ${r.candidate}` : ''} was asked for${r.scheduled_at ? ', scheduled for' : ''}`,
    at: r.scheduled_at,
  }));
}
