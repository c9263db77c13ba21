// Log lines as a function of time, and the LogQL shapes that the UI asks. Not an engine: a fixture.
import { CLUSTERS } from './world.mjs';

function rand(seed) {
  let x = (seed * 2654435761) >>> 0;
  return () => {
    x ^= x << 13; x >>>= 0; x ^= x >>> 17; x ^= x << 5; x >>>= 0;
    return x / 4294967296;
  };
}

const NORMAL = [
  ['postgresql', 'info', 'LOG:  checkpoint starting: time', { backend_type: 'checkpointer', event: '' }],
  ['postgresql', 'info', 'LOG:  checkpoint complete: wrote 1822 buffers (11.1%); 0 WAL file(s) added, 0 removed, 2 recycled; write=269.911 s, sync=0.004 s, total=269.934 s', { backend_type: 'checkpointer', event: 'checkpoint_done' }],
  ['postgresql', 'info', 'LOG:  duration: 1204.551 ms  statement: SELECT o.id, o.total FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.state = $1', { backend_type: 'client backend', database: 'orders', user: 'app', application: 'web' }],
  ['postgresql', 'error', 'ERROR:  canceling statement due to statement timeout\nSTATEMENT:  UPDATE stock SET reserved = reserved + 1 WHERE sku = $1', { backend_type: 'client backend', database: 'orders', user: 'app', application: 'worker', sqlstate: '57014' }],
  ['postgresql', 'error', 'ERROR:  deadlock detected\nDETAIL:  Process 4123 waits for ShareLock on transaction 8812; blocked by process 4177.', { backend_type: 'client backend', database: 'orders', user: 'app', application: 'worker', sqlstate: '40P01', event: 'deadlock' }],
  ['postgresql', 'warning', 'WARNING:  there is already a transaction in progress', { backend_type: 'client backend', database: 'crm', user: 'report', application: 'psql', sqlstate: '25001' }],
  ['postgresql', 'notice', 'NOTICE:  relation "tmp_import" already exists, skipping', { backend_type: 'client backend', database: 'crm', user: 'etl', application: 'loader' }],
  ['patroni', 'info', 'no action. I am (MEMBER), the leader with the lock', { event: 'hb_leader' }],
  ['patroni', 'info', 'no action. I am (MEMBER), a secondary, and following a leader (LEADER)', { event: 'hb_replica' }],
  ['etcd', 'warning', '{"level":"warn","msg":"apply request took too long","took":"112.4ms","expected-duration":"100ms"}', { event: 'etcd_slow_apply' }],
  ['haproxy', 'info', 'orders_primary/pg2 10.0.0.12:5432 1/0/2411 -- 42/40/38/38/0', {}],
  ['pgbouncer', 'info', 'stats: 412 xacts/s, 1204 queries/s, in 310221 B/s, out 1122331 B/s, xact 1812 us, query 640 us, wait 11 us', {}],
];
const FAILOVER = [
  [-900, 'pg1', 'postgresql', 'critical', 'PANIC:  could not write to file "pg_wal/xlogtemp.812": No space left on device', { sqlstate: '53100', event: 'disk_full', backend_type: 'walwriter' }],
  [-700, 'pg1', 'postgresql', 'info', 'LOG:  server process (PID 812) was terminated by signal 6: Aborted', { event: 'pg_child_signal' }],
  [-500, 'pg1', 'patroni', 'error', 'Error communicating with PostgreSQL. Will try again later', { event: 'pg_not_running' }],
  [100, 'pg2', 'postgresql', 'error', 'FATAL:  could not receive data from WAL stream: server closed the connection unexpectedly', { sqlstate: '08006', backend_type: 'walreceiver' }],
  [120, 'pg3', 'postgresql', 'error', 'FATAL:  could not receive data from WAL stream: server closed the connection unexpectedly', { sqlstate: '08006', backend_type: 'walreceiver' }],
  [21_000, 'pg2', 'patroni', 'warning', 'Got response from pg3 http://10.0.0.13:8008/patroni: {"state": "streaming", "role": "replica"}', { event: 'peer_status' }],
  [22_400, 'pg2', 'patroni', 'info', 'promoted self to leader by acquiring session lock', { event: 'promoted' }],
  [22_600, 'pg2', 'postgresql', 'info', 'LOG:  received promote request', { event: 'promote_request' }],
  [22_900, 'pg2', 'postgresql', 'info', 'LOG:  selected new timeline ID: 7', { event: 'pg_new_timeline' }],
  [23_300, 'pg2', 'postgresql', 'info', 'LOG:  database system is ready to accept connections', { event: 'pg_ready' }],
  [24_100, 'pg3', 'patroni', 'info', 'Lock owner: pg2; I am pg3', { event: 'lock_owner' }],
  [24_600, 'pg3', 'postgresql', 'info', 'LOG:  started streaming WAL from primary at 0/5B000000 on timeline 7', { event: 'streaming_started', backend_type: 'walreceiver' }],
  [25_000, 'pg2', 'haproxy', 'warning', 'Server orders_primary/pg2 is UP, reason: Layer7 check passed, code: 200', { event: 'lb_server_up' }],
];

/** Mostly heartbeats, checkpoints and slow statements, now and then an error; standbys have no clients that write. */
function pick(x, primary) {
  const weights = primary ? [6, 6, 16, 3, 1, 2, 3, 22, 0, 3, 20, 18] : [5, 5, 4, 0, 0, 0, 0, 0, 40, 3, 10, 12];
  let left = x * weights.reduce((a, b) => a + b, 0);
  const i = weights.findIndex((w) => (left -= w) < 0);
  return NORMAL[Math.max(0, i)];
}

/** The lines of one second. */
function second(world, s) {
  const out = [];
  for (const cluster of Object.keys(CLUSTERS)) {
    const r = rand(s * 31 + cluster.length * 1009);
    r();
    const p = cluster === 'orders-prod' ? 0.55 : 0.16;
    if (r() > p) continue;
    const member = CLUSTERS[cluster].members[Math.floor(r() * CLUSTERS[cluster].members.length)];
    if (world.role(cluster, member, s * 1000) === null) continue;
    const [source, severity, line, fields] = pick(r(), world.role(cluster, member, s * 1000) === 'primary');
    const f = Object.fromEntries(Object.entries(fields).filter(([, v]) => v));
    out.push({ ms: s * 1000 + Math.floor(r() * 1000), labels: { cluster, member, source, severity, pid: String(1000 + Math.floor(r() * 9000)), ...f }, line: line.replace('MEMBER', member).replace('LEADER', CLUSTERS[cluster].members.find((m) => world.role(cluster, m, s * 1000) === 'primary') ?? 'nobody') });
  }
  for (const t of world.terms) {
    if (!Number.isFinite(t.to)) continue;
    for (const [dt, member, source, severity, line, fields] of FAILOVER) {
      const ms = t.to + dt;
      if (Math.floor(ms / 1000) === s) out.push({ ms, labels: { cluster: 'orders-prod', member, source, severity, ...fields }, line });
    }
    // Clients fail while nobody leads.
    if (s * 1000 >= t.to && s * 1000 < t.to + 23_000) {
      for (let i = 0; i < 6; i += 1) out.push({ ms: s * 1000 + i * 160, labels: { cluster: 'orders-prod', member: 'pg3', source: 'pgbouncer', severity: 'error', event: 'conn_rejected_state', database: 'orders' }, line: `C-0x55: orders/app@10.0.0.4${i}:51${i}12 pooler error: server login has been failing, cached error: connect failed` });
    }
  }
  for (const e of world.events) {
    const ms = Date.parse(e.time);
    if (Math.floor(ms / 1000) === s) out.push({ ms, labels: { cluster: e.cluster, member: e.member ?? '', source: 'daraji', severity: e.severity, event: e.event }, line: e.text });
  }
  return out;
}

export function parse(logql) {
  const close = logql.indexOf('}');
  if (!logql.startsWith('{') || close < 0) throw new Error('parse error at line 1, col 1: syntax error: unexpected IDENTIFIER, expecting {');
  const tests = [];
  for (const m of logql.slice(1, close).matchAll(/(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"/g)) tests.push(labelTest(m[1], m[2], JSON.parse(`"${m[3]}"`)));
  for (const m of logql.slice(close + 1).matchAll(/(\|=|!=|\|~|!~)\s*(?:`([^`]*)`|"((?:[^"\\]|\\.)*)")|\|\s*(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"/g)) {
    if (m[4]) tests.push(labelTest(m[4], m[5], JSON.parse(`"${m[6]}"`)));
    else {
      const text = m[2] ?? JSON.parse(`"${m[3]}"`);
      const re = m[1].endsWith('~') ? new RegExp(text) : null;
      const hit = (l) => (re ? re.test(l.line) : l.line.includes(text));
      tests.push(m[1].startsWith('!') ? (l) => !hit(l) : hit);
    }
  }
  return (l) => tests.every((t) => t(l));
}

function labelTest(name, op, value) {
  const re = op.endsWith('~') ? new RegExp(`^(?:${value})$`) : null;
  return (l) => {
    const v = l.labels[name] ?? '';
    const hit = re ? re.test(v) : v === value;
    return op.startsWith('!') ? !hit : hit;
  };
}

export function between(world, fromMs, toMs, test) {
  const out = [];
  const last = Math.min(toMs, Date.now());
  for (let s = Math.max(Math.floor(fromMs / 1000), Math.floor(last / 1000) - 2 * 86_400); s <= last / 1000; s += 1) {
    for (const l of second(world, s)) if (l.ms >= fromMs && l.ms < last && test(l)) out.push(l);
  }
  return out.sort((a, b) => a.ms - b.ms);
}

export function streams(lines) {
  const by = new Map();
  for (const l of lines) {
    const key = JSON.stringify(l.labels);
    if (!by.has(key)) by.set(key, { stream: l.labels, values: [] });
    by.get(key).values.push([`${l.ms}000000`, l.line]);
  }
  return [...by.values()];
}
