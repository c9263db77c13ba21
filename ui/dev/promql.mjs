// Answers the few PromQL shapes that the UI asks, from the world's functions of time. Not an engine: a fixture.
import { CLUSTERS, wave } from './world.mjs';

const members = (c) => CLUSTERS[c].members;
const STATES = ['active', 'idle', 'idle in transaction'];
const MODES = ['AccessShareLock', 'RowExclusiveLock', 'RowShareLock', 'ExclusiveLock', 'ShareUpdateExclusiveLock'];

/** metric → series of labels with a value function of milliseconds (null: no sample). */
function family(world, name) {
  const out = [];
  const each = (fn) => { for (const c of Object.keys(CLUSTERS)) for (const m of members(c)) fn(c, m); };
  const seed = (c, m) => c.length * 7 + m.charCodeAt(m.length - 1);
  const alive = (c, m, ms) => world.role(c, m, ms) !== null;
  const primary = (c, m, ms) => world.role(c, m, ms) === 'primary';
  const put = (labels, f) => out.push({ labels, f });
  switch (name) {
    case 'daraji_member_role':
      each((c, m) => { for (const role of ['primary', 'replica', 'sync_standby', 'standby_leader']) put({ cluster: c, member: m, role }, (ms) => (world.role(c, m, ms) === role ? 1 : null)); });
      break;
    case 'daraji_member_writable': each((c, m) => put({ cluster: c, member: m }, (ms) => { const role = world.role(c, m, ms); return role === null ? null : role === 'primary' ? 1 : 0; })); break;
    case 'daraji_replication_lag_seconds': each((c, m) => put({ cluster: c, member: m }, (ms) => { const lag = world.lag(c, m, ms); return lag === null ? null : lag / 9e6; })); break;
    case 'daraji_cluster_writable_members': for (const c of Object.keys(CLUSTERS)) put({ cluster: c }, (ms) => members(c).filter((m) => primary(c, m, ms)).length); break;
    case 'node_disk_io_time_seconds_total': each((c, m) => put({ cluster: c, member: m }, (ms) => (alive(c, m, ms) ? 0.1 + 0.5 * wave(seed(c, m) + 3, ms, 50) ** 2 : null))); break;
    case 'daraji_replication_lag_bytes': each((c, m) => put({ cluster: c, member: m }, (ms) => world.lag(c, m, ms))); break;
    case 'daraji_leader_lease_ttl_seconds': for (const c of Object.keys(CLUSTERS)) put({ cluster: c }, (ms) => 30 - Math.floor((ms / 1000) % 10)); break;
    case 'pg_stat_database_xact_commit': each((c, m) => put({ cluster: c, member: m }, (ms) => (primary(c, m, ms) ? 420 + 260 * wave(seed(c, m), ms, 90) + 120 * wave(5, ms, 20) : alive(c, m, ms) ? 3 : null))); break;
    case 'pg_stat_database_xact_rollback': each((c, m) => put({ cluster: c, member: m }, (ms) => (primary(c, m, ms) ? 3 + 9 * wave(seed(c, m) + 4, ms, 60) : null))); break;
    case 'pg_stat_activity_count': each((c, m) => STATES.forEach((state, i) => put({ cluster: c, member: m, state }, (ms) => (primary(c, m, ms) ? Math.round([14, 46, 3][i] + [26, 12, 5][i] * wave(seed(c, m) + i, ms, 70)) : alive(c, m, ms) ? [1, 3, 0][i] : null)))); break;
    case 'patroni_xlog_location': each((c, m) => put({ cluster: c, member: m }, (ms) => (primary(c, m, ms) ? 3.2e6 + 6e6 * wave(seed(c, m) + 2, ms, 80) ** 2 : null))); break;
    case 'pg_stat_bgwriter_checkpoints_timed_total': each((c, m) => put({ cluster: c, member: m }, (ms) => (primary(c, m, ms) ? (wave(2, ms, 300) > 0.5 ? 1 : 0) : null))); break;
    case 'pg_stat_bgwriter_checkpoints_req_total': each((c, m) => put({ cluster: c, member: m }, (ms) => (primary(c, m, ms) ? (wave(8, ms, 420) > 0.75 ? 1 : 0) : null))); break;
    case 'pg_locks_count': each((c, m) => MODES.forEach((mode, i) => put({ cluster: c, member: m, mode }, (ms) => (primary(c, m, ms) ? Math.round([40, 22, 6, 3, 1][i] * (0.4 + wave(seed(c, m) + i * 3, ms, 50))) : null)))); break;
    case 'pg_stat_database_blks_hit': each((c, m) => put({ cluster: c, member: m }, (ms) => (alive(c, m, ms) ? 0.985 + 0.014 * wave(seed(c, m), ms, 200) : null))); break;
    case 'node_cpu_seconds_total': each((c, m) => put({ cluster: c, member: m }, (ms) => (alive(c, m, ms) ? (primary(c, m, ms) ? 0.28 + 0.35 * wave(seed(c, m) + 6, ms, 60) : 0.06 + 0.06 * wave(seed(c, m), ms, 60)) : null))); break;
    case 'node_filesystem_avail_bytes': each((c, m) => put({ cluster: c, member: m }, (ms) => (alive(c, m, ms) ? (c === 'billing' ? 0.82 : 0.41) + 0.03 * wave(seed(c, m), ms, 900) : null))); break;
    case 'up': each((c, m) => put({ __name__: 'up', cluster: c, member: m, instance: `${m}:9187`, job: 'postgres' }, (ms) => (alive(c, m, ms) ? 1 : 0))); break;
    default: return null;
  }
  return out;
}

export const METRICS = ['daraji_member_role', 'daraji_member_writable', 'daraji_replication_lag_bytes', 'daraji_replication_lag_seconds', 'daraji_leader_lease_ttl_seconds', 'daraji_dcs_quorum', 'daraji_cluster_health', 'pg_stat_database_xact_commit', 'pg_stat_database_xact_rollback', 'pg_stat_database_blks_hit', 'pg_stat_database_blks_read', 'pg_stat_activity_count', 'pg_locks_count', 'pg_stat_bgwriter_checkpoints_timed_total', 'pg_stat_bgwriter_checkpoints_req_total', 'patroni_xlog_location', 'node_cpu_seconds_total', 'node_filesystem_avail_bytes', 'node_filesystem_size_bytes', 'node_load1', 'up', 'etcd_server_has_leader'];

/** Throws with Prometheus' kind of message for what is visibly broken. */
export function select(world, expr) {
  const opened = (expr.match(/[({[]/g) ?? []).length;
  if (opened !== (expr.match(/[)}\]]/g) ?? []).length) throw new Error(`1:${expr.length + 1}: parse error: unclosed left parenthesis`);
  const names = expr.match(/[a-z_][a-z0-9_]*(?=\s*[{[(\s)]|$)/g) ?? [];
  const known = names.map((n) => family(world, n)).find((f) => f !== null);
  if (!known) return [];
  const cluster = /cluster="([^"]*)"/.exec(expr)?.[1];
  let series = known.filter((s) => !cluster || s.labels.cluster === cluster);
  if (/up == 0/.test(expr)) series = series.map((s) => ({ ...s, f: (ms) => (s.f(ms) === 0 ? 0 : null) }));
  const by = /(?:sum|max|avg)\s*by\s*\(([^)]*)\)/.exec(expr)?.[1]?.split(',').map((x) => x.trim());
  const aggregate = by ?? (/\b(?:sum|max|avg)\(/.test(expr) ? [] : null);
  if (aggregate === null) return series.map((s) => ({ labels: s.labels.__name__ || /[(/]/.test(expr) ? s.labels : { __name__: names[0], ...s.labels }, f: s.f }));
  const max = /\bmax\b/.test(expr);
  const groups = new Map();
  for (const s of series) {
    const labels = Object.fromEntries(aggregate.filter((k) => s.labels[k] !== undefined).map((k) => [k, s.labels[k]]));
    const key = JSON.stringify(labels);
    groups.set(key, { labels, list: [...(groups.get(key)?.list ?? []), s.f] });
  }
  return [...groups.values()].map(({ labels, list }) => ({
    labels,
    f: (ms) => {
      const values = list.map((f) => f(ms)).filter((v) => v !== null);
      return values.length === 0 ? null : max ? Math.max(...values) : values.reduce((a, b) => a + b, 0);
    },
  }));
}

export function range(world, expr, fromS, toS, stepS) {
  return select(world, expr).map(({ labels, f }) => {
    const values = [];
    for (let t = fromS; t <= toS + 1e-6; t += stepS) {
      const v = t * 1000 > Date.now() ? null : f(t * 1000);
      if (v !== null) values.push([t, String(v)]);
    }
    return { metric: labels, values };
  }).filter((s) => s.values.length);
}
