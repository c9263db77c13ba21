// Which series are shown for an incident: those that its causes and events are about. Pure.
import type { Incident } from '../api/types';
import { CLUSTER_CHARTS, type ChartSpec } from '../cluster/charts';
import { isFailover } from '../lib/incident';

const of = (id: string): ChartSpec => CLUSTER_CHARTS.find((c) => c.id === id)!;

const AGENT = 'No agent on these hosts: start `daraji agent` there.';

const LEASE: ChartSpec = {
  id: 'lease', title: 'Lease of the leader key', unit: 'seconds',
  queries: [{ expr: (s, _r, step) => `min_over_time(daraji_leader_lease_ttl_seconds{${s}}[${step}])`, label: 'time to live' }],
  empty: 'The lease was not seen in this range.',
};
const FSYNC: ChartSpec = {
  id: 'fsync', title: 'etcd fsync, slowest 1 %', unit: 'seconds',
  queries: [{ expr: (s, r) => `histogram_quantile(0.99, sum by (le, instance) (rate(etcd_disk_wal_fsync_duration_seconds_bucket{${s}}[${r}])))` }],
  empty: 'etcd gave no statistics in this range.',
};
const DCS_AGE: ChartSpec = {
  id: 'dcs-age', title: 'Age of what the DCS said', unit: 'seconds',
  queries: [{ expr: (s, _r, step) => `max_over_time(daraji_dcs_age_seconds{${s}}[${step}])`, label: 'age' }],
  empty: 'The DCS is not watched.',
};
const SKEW: ChartSpec = {
  id: 'skew', title: 'Clock ahead of Daraji', unit: 'seconds',
  queries: [{ expr: (s) => `daraji_clock_skew_seconds{${s}}` }],
  empty: 'No clock was compared in this range.',
};
const LAG_TIME: ChartSpec = {
  id: 'lag-time', title: 'Replication lag, time', unit: 'seconds',
  queries: [{ expr: (s, _r, step) => `max by (member) (max_over_time(daraji_replication_lag_seconds{${s}}[${step}]))` }],
  empty: 'No replica has reported its position.',
};
const MEMORY: ChartSpec = {
  id: 'memory', title: 'Memory available', unit: 'percent', max: 1,
  queries: [{ expr: (s) => `min by (member) (node_memory_MemAvailable_bytes{${s}} / node_memory_MemTotal_bytes{${s}})` }],
  empty: AGENT,
};
const DISK_BUSY: ChartSpec = {
  id: 'disk-busy', title: 'Busiest disk', unit: 'percent', max: 1,
  queries: [{ expr: (s, r) => `max by (member) (rate(node_disk_io_time_seconds_total{${s}}[${r}]))` }],
  empty: AGENT,
};
const SLOTS: ChartSpec = {
  id: 'slots', title: 'WAL retained by slots', unit: 'bytes',
  queries: [{ expr: (s) => `max by (slot_name) (pg_replication_slots_pg_wal_lsn_diff{${s}})` }],
  empty: 'No replication slot was seen.',
};
const WRITABLE: ChartSpec = {
  id: 'writable', title: 'Members that take writes', unit: 'count',
  queries: [{ expr: (s, _r, step) => `max_over_time(daraji_cluster_writable_members{${s}}[${step}])`, label: 'writable' }],
  empty: 'No member was heard in this range.',
};

/** What a word in a cause's or event's or alert's name says of the series that matter, the closest first. */
const ABOUT: [RegExp, ChartSpec[]][] = [
  [/split_?brain|promoted_(in_pause|by_hand)|watchdog/i, [WRITABLE]],
  [/disk|storage|corrupt/i, [of('disk'), DISK_BUSY, of('wal')]],
  [/archiv|slot|wal_removed/i, [SLOTS, of('disk'), of('wal')]],
  [/etcd|dcs|quorum|certificate/i, [DCS_AGE, FSYNC, LEASE]],
  [/lease|patroni_|partition|leader_lost|leader_changed|candidate/i, [LEASE]],
  [/memory|oom/i, [MEMORY, of('cpu')]],
  [/host_|stalled|hung/i, [of('cpu'), DISK_BUSY, MEMORY]],
  [/clock/i, [SKEW]],
  [/connection|wal_senders|proxy|client/i, [of('connections')]],
  [/replica|replay|recovery_conflict|standby|lag|rewind/i, [of('lag'), LAG_TIME]],
  [/(?<![a-z])lock|blocked|backend|wraparound/i, [of('locks'), of('connections')]],
];
const CHARTS_MAX = 6;

/** The closest first: what the first cause is about, then the other causes, then the events and alerts. */
export function chartsFor(i: Incident): ChartSpec[] {
  // What follows from another cause says less about this one.
  const words = [...i.causes.filter((c) => c.confidence !== 'low').map((c) => c.name), ...(i.events ?? []).map((e) => e.event), ...(i.alerts ?? []).map((a) => a.name)];
  const found = words.flatMap((word) => ABOUT.filter(([about]) => about.test(word)).flatMap(([, specs]) => specs));
  // A change of leadership shows in what clients can do and in what replicas miss.
  const always = isFailover({ phases: i.phases ?? [], events: i.events ?? [] }) ? [of('tps'), of('lag')] : [of('tps'), of('connections')];
  const first = [...new Set(found)].slice(0, CHARTS_MAX - always.length);
  return [...new Set([...first, ...always])];
}
