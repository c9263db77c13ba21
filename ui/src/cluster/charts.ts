// The charts of a cluster's page as data: add one here and it is on the page. Names follow the community's exporters.
// Gauges are read through `last_over_time` with a short range: a plain selector would show the last value of a lost member
// for another five minutes, which is how "unknown" turns into "fine". Lag is the worst of each step, so that no spike falls
// between two points.
import type { Unit } from '../lib/format';

export interface ChartSpec {
  id: string;
  title: string;
  unit: Unit;
  /** `sel` is the label matcher of the cluster, `rate` a range that holds at least four samples, `step` one that covers a step. */
  queries: { expr: (sel: string, rate: string, step: string) => string; label?: string }[];
  stacked?: boolean;
  max?: number;
  empty: string;
}

/** Filesystems that fill up; the others are full by nature or live in memory. */
const REAL_DISKS = 'fstype!~"tmpfs|ramfs|squashfs|iso9660"';

export const CLUSTER_CHARTS: ChartSpec[] = [
  {
    id: 'lag', title: 'Replication lag', unit: 'bytes',
    queries: [{ expr: (s, _r, step) => `max by (member) (max_over_time(daraji_replication_lag_bytes{${s}}[${step}]))` }],
    empty: 'No replica has reported its position.',
  },
  {
    id: 'tps', title: 'Transactions', unit: 'per second',
    queries: [
      { label: 'commits', expr: (s, r) => `sum(rate(pg_stat_database_xact_commit{${s}}[${r}]))` },
      { label: 'rollbacks', expr: (s, r) => `sum(rate(pg_stat_database_xact_rollback{${s}}[${r}]))` },
    ],
    empty: 'No statistics from PostgreSQL yet.',
  },
  {
    id: 'connections', title: 'Connections by state', unit: 'count', stacked: true,
    // Background processes have no state: they are not connections.
    queries: [{ expr: (s, r) => `sum by (state) (last_over_time(pg_stat_activity_count{${s}, state!=""}[${r}]))` }],
    empty: 'No statistics from PostgreSQL yet.',
  },
  {
    id: 'wal', title: 'WAL written', unit: 'bytes/s',
    // Of PostgreSQL 14 and newer; else the position that the sender of each replica reports; else Patroni's.
    queries: [{ expr: (s, r) => ['pg_stat_wal_bytes_total', 'pg_stat_replication_pg_current_wal_lsn_bytes', 'patroni_xlog_location'].map((name) => `max by (member) (rate(${name}{${s}}[${r}]))`).join(' or ') }],
    empty: 'No WAL position yet.',
  },
  {
    id: 'checkpoints', title: 'Checkpoints per minute', unit: 'count',
    queries: [
      { label: 'timed', expr: (s, r) => `60 * (sum(rate(pg_stat_bgwriter_checkpoints_timed_total{${s}}[${r}])) or sum(rate(pg_stat_checkpointer_num_timed_total{${s}}[${r}])))` },
      { label: 'requested', expr: (s, r) => `60 * (sum(rate(pg_stat_bgwriter_checkpoints_req_total{${s}}[${r}])) or sum(rate(pg_stat_checkpointer_num_requested_total{${s}}[${r}])))` },
    ],
    empty: 'No checkpointer statistics yet.',
  },
  {
    id: 'locks', title: 'Locks by mode', unit: 'count', stacked: true,
    queries: [{ expr: (s, r) => `sum by (mode) (last_over_time(pg_locks_count{${s}}[${r}])) > 0` }],
    empty: 'No locks are held.',
  },
  {
    id: 'cache', title: 'Cache hit ratio', unit: 'percent', max: 1,
    queries: [{ expr: (s, r) => `sum by (member) (rate(pg_stat_database_blks_hit{${s}}[${r}])) / (sum by (member) (rate(pg_stat_database_blks_hit{${s}}[${r}])) + sum by (member) (rate(pg_stat_database_blks_read{${s}}[${r}])))` }],
    empty: 'No block was read in this range.',
  },
  {
    id: 'cpu', title: 'CPU busy', unit: 'percent', max: 1,
    queries: [{ expr: (s, r) => `1 - avg by (member) (rate(node_cpu_seconds_total{${s}, mode="idle"}[${r}]))` }],
    empty: 'No agent on these hosts: start `daraji agent` there.',
  },
  {
    id: 'disk', title: 'Fullest filesystem', unit: 'percent', max: 1,
    queries: [{ expr: (s) => `max by (member) (1 - node_filesystem_avail_bytes{${s}, ${REAL_DISKS}} / node_filesystem_size_bytes{${s}, ${REAL_DISKS}})` }],
    empty: 'No agent on these hosts: start `daraji agent` there.',
  },
];

export const selector = (cluster: string): string => `cluster=${JSON.stringify(cluster)}`;

/** A range that covers a step, and at least a few samples of what is watched every two seconds. */
export const stepWindow = (stepS: number): string => `${Math.max(30, stepS)}s`;

/** Collectors run every ten seconds; a rate needs a few samples, and no less than a step, or spikes fall between steps. */
export const rateWindow = (stepS: number): string => `${Math.max(60, stepS * 2)}s`;
