// A stand-in for the server, for working on the UI and for browser tests of states that are hard to reach with a real one.
// Serves ../dist and a small, moving world (world.mjs) behind the same addresses. `node dev/fixture-server.mjs [PORT]`.
// POST /dev/scenario {"name": "splitbrain"} switches the world, POST /dev/failover starts a failover, POST /dev/outage
// {"seconds": 8} makes every request fail for a while.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Incidents } from './incidents.mjs';
import { between, parse, streams } from './loglines.mjs';
import { METRICS, range, select } from './promql.mjs';
import { SCENARIOS, World } from './world.mjs';

const DIST = join(dirname(fileURLToPath(import.meta.url)), '..', 'dist');
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const CSP = "default-src 'self'; style-src 'self' 'unsafe-inline'";
const TOKEN = 'fixture-token';

export function startFixture(port = 0) {
  const world = new World();
  const incidents = new Incidents(world);
  const silences = [];
  const state = { outageUntil: 0, sse: new Set(), sockets: new Set() };

  const server = createServer((req, res) => {
    handle(req, res).catch((error) => send(res, 500, { error: { code: 'internal', message: String(error) } }));
  });

  const send = (res, status, body, type = 'application/json') => {
    res.writeHead(status, { 'content-type': type, 'content-security-policy': CSP, 'cache-control': 'no-cache' });
    res.end(body === undefined ? '' : typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body));
  };
  const prom = (res, data) => send(res, 200, { status: 'success', data });

  async function bodyOf(req) {
    let text = '';
    for await (const chunk of req) text += chunk;
    return text ? JSON.parse(text) : {};
  }

  async function handle(req, res) {
    const url = new URL(req.url, 'http://fixture');
    const { pathname: path, searchParams: q } = url;
    if (path.startsWith('/dev/')) return dev(path, await bodyOf(req), res);
    if (Date.now() < state.outageUntil) {
      req.socket.destroy();
      return undefined;
    }
    if (!/^\/(api|loki)\//.test(path)) return asset(path, res);
    if (path === '/api/daraji/v1/session') {
      if (req.method === 'DELETE') return send(res, 204);
      const { token } = await bodyOf(req);
      if (token !== TOKEN) return send(res, 401, { error: { code: 'unauthorized', message: 'unknown token' } });
      res.setHeader('set-cookie', `daraji_token=${TOKEN}; HttpOnly; Path=/`);
      return send(res, 204);
    }
    if (world.scenario === 'token' && !(req.headers.cookie ?? '').includes(TOKEN)) return send(res, 401, { error: { code: 'unauthorized', message: 'a token is needed' } });
    if (path.startsWith('/api/daraji/v1/')) return own(path.slice(14), q, req, res);
    if (path.startsWith('/api/v2/')) return alertmanager(path.slice(7), req, res);
    if (path.startsWith('/api/v1/')) return prometheus(path.slice(7), q, res);
    return loki(path.slice(12), q, res);
  }

  function asset(path, res) {
    const name = /\.\w+$/.test(path) ? path : '/index.html';
    try {
      const body = readFileSync(join(DIST, name.replaceAll('..', '')));
      return send(res, 200, body, TYPES[/\.\w+$/.exec(name)[0]] ?? 'application/octet-stream');
    } catch {
      return send(res, 404, 'not found', 'text/plain');
    }
  }

  function dev(path, body, res) {
    if (path === '/dev/scenario') {
      if (!SCENARIOS.includes(body.name)) return send(res, 400, { error: { code: 'unknown', message: SCENARIOS.join(' ') } });
      Object.assign(world, { scenario: body.name, scenarioAt: Date.now() });
      pushClusters();
    } else if (path === '/dev/failover') world.failover(body.gap ?? 4);
    else if (path === '/dev/outage') {
      state.outageUntil = Date.now() + body.seconds * 1000;
      for (const r of state.sse) r.destroy();
      for (const s of state.sockets) s.destroy();
    }
    return send(res, 200, { scenario: world.scenario });
  }

  // --- own API ---

  function own(name, q, req, res) {
    const now = new Date();
    if (name === '/status') return send(res, 200, { version: '0.1.0', revision: 'fixture', started_at: new Date(world.start).toISOString(), now: now.toISOString(), auth: role() === null ? 'none' : 'token', role: role(), clusters: world.clusters().length });
    if (name === '/clusters') return send(res, 200, world.clusters());
    if (name === '/events' && (q.get('stream') === '1' || req.headers.accept === 'text/event-stream')) return stream(res);
    if (name === '/events') {
      if (world.scenario === 'empty') return send(res, 200, []);
      const since = q.get('since') ? Date.parse(q.get('since')) : 0;
      const until = q.get('until') ? Date.parse(q.get('until')) : Infinity;
      const list = world.events.filter((e) => (!q.get('event') || e.event === q.get('event')) && (!q.get('cluster') || e.cluster === q.get('cluster')) && Date.parse(e.time) >= since && Date.parse(e.time) <= until);
      return send(res, 200, list.slice(0, Number(q.get('limit') ?? 500)));
    }
    if (name === '/incidents') return send(res, 200, incidents.list().filter((i) => !q.get('cluster') || i.cluster === q.get('cluster')));
    if (name.startsWith('/incidents/')) return incident(name, q, req, res);
    if (name === '/targets') return send(res, 200, targets());
    if (name === '/notifications') return send(res, 200, notifications());
    return send(res, 404, { error: { code: 'not_found', message: `nothing at ${name}` } });
  }

  const role = () => (world.scenario === 'viewer' ? 'viewer' : null);

  async function incident(name, q, req, res) {
    const missing = { error: { code: 'not_found', message: 'no incident with this id' } };
    if (req.method !== 'GET') {
      const { status, body } = incidents.change(name, req.method, await bodyOf(req), role());
      return send(res, status, body);
    }
    const [, id, part] = /^\/incidents\/([^/]+)(\/patterns)?$/.exec(name) ?? [];
    const found = id === undefined ? null : incidents.one(decodeURIComponent(id));
    if (!found) return send(res, 404, missing);
    if (part) return send(res, 200, incidents.patterns(found.id));
    if (q.get('format') === 'html') return send(res, 200, `<!doctype html><title>${found.title}</title><h1>${found.title}</h1>`, 'text/html; charset=utf-8');
    return send(res, 200, found);
  }

  function stream(res) {
    res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache', 'content-security-policy': CSP });
    res.write(`event: clusters\ndata: ${JSON.stringify(world.clusters())}\n\n`);
    const listener = (e) => res.write(`id: ${e.id}\nevent: event\ndata: ${JSON.stringify(e)}\n\n`);
    world.listeners.add(listener);
    state.sse.add(res);
    res.on('close', () => {
      world.listeners.delete(listener);
      state.sse.delete(res);
    });
  }
  function pushClusters() {
    const data = `event: clusters\ndata: ${JSON.stringify(world.clusters())}\n\n`;
    for (const r of state.sse) r.write(data);
  }
  const ticker = setInterval(pushClusters, 1000);

  function targets() {
    const out = [];
    const now = Date.now();
    const iso = (ms) => new Date(ms).toISOString();
    for (const c of world.clusters()) {
      for (const m of c.members) {
        const away = m.role === 'unknown';
        for (const [source, url, every] of [['rest', `${m.rest_url}/patroni`, 2], ['sql', `postgres://${m.host}:5432/postgres`, 2], ['stats', `postgres://${m.host}:5432/postgres`, 10], ['agent', `${m.host}`, 5]]) {
          const ok = !away;
          out.push({ cluster: c.name, member: m.name, source, url, up: ok, last_ok_at: ok ? iso(now - (now % (every * 1000))) : m.seen_at, last_try_at: iso(now - (now % (every * 1000))), duration_ms: ok ? 3 + (m.name.length * every) % 9 : 2000, error: ok ? null : source === 'agent' ? 'no push since then' : `connect to ${m.host}: connection refused`, error_hint: null, interval_seconds: every, agent: source === 'agent' ? { version: '0.1.0', spool_bytes: ok ? 0 : null } : null });
        }
      }
      if (c.dcs) for (const d of c.dcs.members) out.push({ cluster: c.name, member: d.name, source: 'etcd', url: d.url, up: d.healthy, last_ok_at: d.seen_at, last_try_at: iso(now - 500), duration_ms: 2.1, error: d.error, error_hint: null, interval_seconds: 2, agent: null });
    }
    if (out.length) out.push({ cluster: 'audit', member: null, source: 'dcs', url: null, up: null, last_ok_at: null, last_try_at: null, duration_ms: null, error: 'no DCS is configured: lock owner, lease and member keys are unknown', error_hint: 'clusters:\n  - patroni: [http://10.0.3.11:8008]\n    dcs: {etcd: [http://10.0.3.21:2379], namespace: /service}', interval_seconds: null, agent: null });
    const denied = out.find((t) => t.cluster === 'billing' && t.source === 'stats');
    if (denied) Object.assign(denied, { up: false, last_ok_at: iso(now - 3_600_000), error: 'query pg_stat_replication: permission denied for function pg_stat_get_wal_senders', error_hint: 'GRANT pg_monitor TO daraji;' });
    return out;
  }

  function notifications() {
    if (world.scenario === 'empty') return [];
    const at = world.start - 14 * 60_000;
    const iso = (ms) => new Date(ms).toISOString();
    const row = (id, dt, receiver, integration, target, subject, s, extra = {}) => ({ id, created_at: iso(at + dt), receiver, integration, target, subject, cluster: subject.includes('billing') ? 'billing' : 'orders-prod', state: s, attempts: 1, next_attempt_at: null, delivered_at: s === 'done' ? iso(at + dt + 800) : null, last_error: null, ...extra });
    return [
      row(6, 500_000, 'webhook-ops', 'webhook', 'https://ops.example.net/hook', 'billing: replica pg2 falls behind', 'queued', { attempts: 4, next_attempt_at: iso(Date.now() + 45_000), last_error: 'POST: 503 Service Unavailable' }),
      row(5, 490_000, 'dba-mail', 'email', 'dba@example.net', 'billing: replica pg2 falls behind', 'done'),
      row(4, 150_000, 'dba-mail', 'email', 'dba@example.net', 'Settled: orders-prod: primary pg1 lost, failover to pg2', 'done'),
      row(3, 150_000, 'webhook-ops', 'webhook', 'https://ops.example.net/hook', 'Settled: orders-prod: primary pg1 lost, failover to pg2', 'done', { attempts: 2 }),
      row(2, 1_200, 'webhook-ops', 'webhook', 'https://ops.example.net/hook', 'orders-prod: primary pg1 lost, failover to pg2', 'done'),
      row(1, 1_200, 'dba-mail', 'email', 'dba@example.net', 'orders-prod: primary pg1 lost, failover to pg2', 'done'),
    ];
  }

  // --- Alertmanager ---

  function alerts() {
    if (world.scenario === 'empty') return [];
    const iso = (ms) => new Date(ms).toISOString();
    const list = [
      { labels: { alertname: 'ReplicaLagHigh', cluster: 'billing', member: 'pg2', severity: 'warning' }, annotations: { summary: 'pg2 of billing is more than 64 MiB behind', description: 'Replay is slower than the WAL that pg1 writes. Look for a long query on pg2 or a slow disk.' }, state: 'firing', activeAt: iso(world.start - 6 * 60_000), value: String(world.lag('billing', 'pg2', Date.now())) },
      { labels: { alertname: 'DiskFillingUp', cluster: 'billing', member: 'pg1', severity: 'warning', mountpoint: '/var/lib/postgresql' }, annotations: { summary: '/var/lib/postgresql on pg1 is 86 % full' }, state: 'firing', activeAt: iso(world.start - 52 * 60_000), value: '0.861' },
      { labels: { alertname: 'TargetMissing', cluster: 'audit', severity: 'critical' }, annotations: { summary: 'no source of audit has answered for 3 min' }, state: 'firing', activeAt: iso(world.start - 120_000), value: '1' },
      { labels: { alertname: 'ConnectionsNearLimit', cluster: 'orders-prod', member: 'pg2', severity: 'warning' }, annotations: { summary: 'pg2 uses 82 of 100 connections' }, state: 'pending', activeAt: iso(Date.now() - 40_000), value: '0.82' },
    ];
    if (world.scenario === 'splitbrain') list.unshift({ labels: { alertname: 'SplitBrain', cluster: 'orders-prod', severity: 'critical' }, annotations: { summary: 'pg1 and pg2 both accept writes' }, state: 'firing', activeAt: iso(world.start - 45_000), value: '2' });
    return list;
  }

  const silenceState = (s) => ({ ...s, status: { state: Date.parse(s.endsAt) <= Date.now() ? 'expired' : Date.parse(s.startsAt) > Date.now() ? 'pending' : 'active' } });
  const mutedBy = (labels) => silences.map(silenceState).filter((s) => s.status.state === 'active' && s.matchers.every((m) => (labels[m.name] ?? '') === m.value)).map((s) => s.id);

  async function alertmanager(name, req, res) {
    if (name === '/alerts') return send(res, 200, alerts().filter((a) => a.state === 'firing').map((a, i) => ({ labels: a.labels, annotations: a.annotations, startsAt: a.activeAt, endsAt: new Date(Date.now() + 240_000).toISOString(), fingerprint: `f${i}`, receivers: [{ name: 'dba-mail' }, { name: 'webhook-ops' }], status: { state: mutedBy(a.labels).length ? 'suppressed' : 'active', silencedBy: mutedBy(a.labels), inhibitedBy: [] } })));
    if (name === '/silences' && req.method === 'POST') {
      const body = await bodyOf(req);
      if (!body.comment) return send(res, 400, JSON.stringify('comment missing'));
      const id = createHash('sha1').update(JSON.stringify(body) + silences.length).digest('hex').slice(0, 12);
      silences.push({ ...body, id, updatedAt: new Date().toISOString() });
      return send(res, 200, { silenceID: id });
    }
    if (name === '/silences') return send(res, 200, silences.map(silenceState));
    if (name.startsWith('/silence/') && req.method === 'DELETE') {
      const s = silences.find((x) => x.id === name.slice(9));
      if (s) s.endsAt = new Date().toISOString();
      return send(res, s ? 200 : 404);
    }
    return send(res, 404, 'not found');
  }

  // --- Prometheus ---

  const RULES = [
    ['ha', 'alerts/ha.yml', [['NoLeader', 'max by (cluster) (daraji_member_role{role="primary"}) or on (cluster) 0 * daraji_cluster_health == 0', 10, 'critical'], ['SplitBrain', 'sum by (cluster) (daraji_member_writable) > 1', 0, 'critical'], ['ReplicaLagHigh', 'daraji_replication_lag_bytes > 64 * 1024 * 1024', 120, 'warning'], ['DcsQuorumLost', 'daraji_dcs_quorum == 0', 5, 'critical']]],
    ['postgresql', 'alerts/postgresql.yml', [['ConnectionsNearLimit', 'sum by (cluster, member) (pg_stat_activity_count) / on (cluster, member) pg_settings_max_connections > 0.8', 60, 'warning'], ['ArchiveFailing', 'increase(pg_stat_archiver_failed_count[10m]) > 0', 0, 'warning'], ['SlotRetainsWal', 'pg_replication_slots_pg_wal_lsn_diff > 10 * 1024 ^ 3', 300, 'warning']]],
    ['host', 'alerts/host.yml', [['DiskFillingUp', '1 - node_filesystem_avail_bytes / node_filesystem_size_bytes > 0.85', 300, 'warning'], ['TargetMissing', 'up == 0', 60, 'critical']]],
  ];

  function prometheus(name, q, res) {
    const expr = q.get('query') ?? '';
    try {
      if (name === '/query_range') return prom(res, { resultType: 'matrix', result: world.scenario === 'empty' ? [] : range(world, expr, Number(q.get('start')), Number(q.get('end')), Number(q.get('step'))) });
      if (name === '/query') return prom(res, { resultType: 'vector', result: select(world, expr).map(({ labels, f }) => ({ metric: labels, value: [Date.now() / 1000, String(f(Date.now()) ?? 'NaN')] })) });
    } catch (error) {
      return send(res, 400, { status: 'error', errorType: 'bad_data', error: `invalid parameter "query": ${error.message}` });
    }
    if (name === '/label/__name__/values') return prom(res, METRICS);
    if (name === '/alerts') return prom(res, { alerts: alerts() });
    if (name === '/rules') {
      const firing = alerts();
      return prom(res, { groups: RULES.map(([group, file, rules]) => ({ name: group, file, interval: 15, rules: rules.map(([rule, query, duration, severity]) => { const own = firing.filter((a) => a.labels.alertname === rule); return { type: 'alerting', name: rule, query, duration, labels: { severity }, annotations: {}, alerts: own, state: own.some((a) => a.state === 'firing') ? 'firing' : own.length ? 'pending' : 'inactive', health: 'ok', evaluationTime: 0.0008, lastEvaluation: new Date(Date.now() - (Date.now() % 15_000)).toISOString() }; }) })) });
    }
    return send(res, 404, { status: 'error', errorType: 'not_found', error: 'not found' });
  }

  // --- Loki ---

  function loki(name, q, res) {
    const expr = q.get('query') ?? '';
    const ms = (key, fallback) => (q.get(key) ? Number(BigInt(q.get(key)) / 1_000_000n) : fallback);
    try {
      const inner = /count_over_time\((.*)\[(\d+)s\]\)/s.exec(expr);
      const by = /sum by \((\w+)\)/.exec(expr)?.[1];
      if (name === '/query_range' && !inner) {
        const backward = q.get('direction') !== 'forward';
        const limit = Number(q.get('limit') ?? 100);
        const all = between(world, ms('start', 0), ms('end', Date.now()), parse(expr));
        return prom(res, { resultType: 'streams', result: streams(backward ? all.reverse().slice(0, limit) : all.slice(0, limit)), stats: {} });
      }
      const test = parse(inner[1].trim());
      const width = Number(inner[2]);
      if (name === '/query') {
        const at = ms('time', Date.now());
        const counts = new Map();
        for (const l of between(world, at - width * 1000, at, test)) if (l.labels[by]) counts.set(l.labels[by], (counts.get(l.labels[by]) ?? 0) + 1);
        return prom(res, { resultType: 'vector', result: [...counts].sort((a, b) => b[1] - a[1]).slice(0, 10).map(([v, n]) => ({ metric: { [by]: v }, value: [at / 1000, String(n)] })) });
      }
      const step = Number(q.get('step').replace('s', ''));
      const start = ms('start', 0) / 1000;
      const groups = new Map();
      for (const l of between(world, (start - step) * 1000, ms('end', Date.now()), test)) {
        const bucket = start + Math.ceil((l.ms / 1000 - start) / step) * step;
        const key = l.labels[by] ?? '';
        const g = groups.get(key) ?? new Map();
        g.set(bucket, (g.get(bucket) ?? 0) + 1);
        groups.set(key, g);
      }
      return prom(res, { resultType: 'matrix', result: [...groups].map(([v, g]) => ({ metric: { [by]: v }, values: [...g].sort((a, b) => a[0] - b[0]).map(([t, n]) => [t, String(n)]) })) });
    } catch (error) {
      return send(res, 400, error.message, 'text/plain');
    }
  }

  // --- Live tail: just enough of RFC 6455 to send text frames ---

  server.on('upgrade', (req, socket) => {
    const url = new URL(req.url, 'http://fixture');
    if (url.pathname !== '/loki/api/v1/tail' || Date.now() < state.outageUntil) return socket.destroy();
    const accept = createHash('sha1').update(`${req.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
    const test = parse(url.searchParams.get('query'));
    let last = Date.now() - 5000;
    const timer = setInterval(() => {
      const now = Date.now();
      const lines = between(world, last, now, test);
      last = now;
      if (lines.length) socket.write(frame(JSON.stringify({ streams: streams(lines), dropped_entries: null })));
    }, 700);
    state.sockets.add(socket);
    const stop = () => { clearInterval(timer); state.sockets.delete(socket); socket.destroy(); };
    socket.on('close', stop).on('error', stop).on('end', stop).on('data', (d) => (d[0] & 15) === 8 && stop());
    return undefined;
  });

  function frame(text) {
    const body = Buffer.from(text);
    const head = body.length < 126 ? Buffer.from([0x81, body.length]) : body.length < 65_536 ? Buffer.from([0x81, 126, body.length >> 8, body.length & 255]) : Buffer.concat([Buffer.from([0x81, 127, 0, 0, 0, 0]), Buffer.from([body.length >>> 24, (body.length >> 16) & 255, (body.length >> 8) & 255, body.length & 255])]);
    return Buffer.concat([head, body]);
  }

  return new Promise((resolve) => {
    server.listen(port, '127.0.0.1', () => {
      resolve({
        url: `http://127.0.0.1:${server.address().port}`,
        world,
        close: () => {
          clearInterval(ticker);
          for (const s of state.sockets) s.destroy();
          server.closeAllConnections();
          return new Promise((done) => server.close(done));
        },
      });
    });
  });
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { url } = await startFixture(Number(process.argv[2] ?? 7433));
  console.log(`fixture server on ${url}`);
}
