// Words for states, in one place, so that every page says the same thing the same way.
import type { Cluster, Event, Health, Member, Role, Severity, SourceClaim } from '../api/types';

export const HEALTH_WORD: Record<Health, string> = { ok: 'healthy', warning: 'warning', critical: 'critical', unknown: 'unknown' };

const HEALTH_ORDER: Record<Health, number> = { critical: 0, warning: 1, unknown: 2, ok: 3 };

export const ROLE_WORD: Record<Role, string> = {
  primary: 'primary',
  replica: 'replica',
  sync_standby: 'sync standby',
  quorum_standby: 'quorum standby',
  standby_leader: 'standby leader',
  unknown: 'unknown',
};

export const SOURCE_WORD: Record<string, string> = {
  rest: 'Patroni REST', sql: 'PostgreSQL', statistics: 'PostgreSQL statistics', dcs: 'DCS keys', etcd: 'etcd', agent: 'agent',
  haproxy: 'HAProxy', pgbouncer: 'PgBouncer', host: 'host', scrape: 'scrape', discovery: 'discovery', judge: 'Daraji',
};

/** A claim is stale when its source, polled every two seconds, has been silent for five polls. */
export const STALE_MS = 10_000;

export const worstFirst = (a: Cluster, b: Cluster): number =>
  HEALTH_ORDER[a.health] - HEALTH_ORDER[b.health] || a.name.localeCompare(b.name);

export type Tone = 'ok' | 'warning' | 'critical' | 'unknown' | 'stale' | 'info';

/** How a member stands, as tone and word: Patroni's word where there is one. */
export function memberTone(m: Member, now: number): { tone: Tone; word: string } {
  // Patroni's view has lost it, and it still takes writes: the most dangerous member there can be.
  if (!m.present && m.writable === true) return { tone: 'critical', word: 'left the DCS' };
  if (!m.present) return { tone: 'unknown', word: 'left the DCS' };
  if (m.seen_at === null) return { tone: 'unknown', word: 'never seen' };
  if (now - Date.parse(m.seen_at) > STALE_MS) return { tone: 'stale', word: 'stale' };
  if (m.state === 'unknown') return { tone: 'unknown', word: 'unknown' };
  if (m.state === 'running' || m.state === 'streaming') return { tone: 'ok', word: m.state };
  if (/fail|crash/.test(m.state)) return { tone: 'critical', word: m.state };
  return { tone: 'warning', word: m.state };
}

export const severityTone = (s: Severity): Tone => (s === 'critical' ? 'critical' : s === 'warning' ? 'warning' : 'info');

/** How a source stands: whether it answers, and how long ago it last did. What it says may be good or bad news. */
export function claimTone(s: SourceClaim, now: number): Tone {
  if (s.up === false) return 'critical';
  if (s.seen_at === null) return 'unknown';
  return now - Date.parse(s.seen_at) > STALE_MS ? 'stale' : 'ok';
}

/** What else is wrong, beside the split brain that the pages show by itself. */
export const otherReasons = (c: Pick<Cluster, 'split_brain' | 'reasons'>): Cluster['reasons'] =>
  c.split_brain ? c.reasons.filter((r) => !r.text.startsWith('split brain')) : c.reasons;

/** Parts of event names that are abbreviations or names of their own. */
const EVENT_PARTS: Record<string, string> = {
  dcs: 'DCS', rest: 'Patroni REST', postgres: 'PostgreSQL', hb: 'heartbeat', wal: 'WAL', lb: 'proxy', sql: 'SQL', pg: 'PostgreSQL', haproxy: 'HAProxy', pgbouncer: 'PgBouncer',
};

/** An event's name in words: `leader_changed` → `leader changed`, `dcs_blind` → `DCS blind`. */
export const eventWord = (e: Pick<Event, 'event'>): string => e.event.split('_').map((part) => EVENT_PARTS[part] ?? part).join(' ');
