// The fixture's incidents: one of each kind that the page must tell well. Times hang on the world's start, so they agree
// with its logs and series. What people do (acknowledge, notes) is kept here.

const S = 1000;
const M = 60 * S;
const iso = (ms) => new Date(ms).toISOString();
const notFound = { status: 404, body: { error: { code: 'not_found', message: 'no incident with this id' } } };
const refuse = (status, code, message) => ({ status, body: { error: { code, message } } });

export class Incidents {
  constructor(world) {
    this.world = world;
    /** By incident: who took it, and the notes. */
    this.acts = new Map();
    this.act('billing-replica').notes = [{ at: iso(world.start - 4 * M), by: 'anna', text: 'A report runs on pg2 since 5 o’clock.\nI asked the BI team to stop it.' }];
    Object.assign(this.act('crm-archive'), { by: 'anna', at: iso(world.start - 30 * M) });
  }

  act(id) {
    if (!this.acts.has(id)) this.acts.set(id, { by: null, at: null, notes: [] });
    return this.acts.get(id);
  }

  list() {
    if (this.world.scenario === 'empty') return [];
    const made = [...this.world.terms.slice(0, -1).map((t, n) => this.failover(t, this.world.terms[n + 1])), this.replica(), this.archive(), this.lostContact(), this.noCause()];
    if (this.world.scenario === 'splitbrain') made.push(this.splitBrain());
    return made.map((i) => this.complete(i)).sort((a, b) => b.opened_at.localeCompare(a.opened_at));
  }

  one(id) {
    const all = this.list();
    const found = all.find((i) => i.id === id);
    if (!found) return null;
    const similar = all.filter((i) => i.id !== id && i.state === 'settled' && i.causes[0] && found.causes[0]).map((i, n) => ({ id: i.id, cluster: i.cluster, title: i.title, opened_at: i.opened_at, settled_at: i.settled_at, cause: { name: i.causes[0].name, title: i.causes[0].title }, score: 0.86 - n * 0.2 }));
    return { ...found, similar, notifications: this.messages(found) };
  }

  complete(i) {
    const a = this.act(i.id);
    const state = i.settled_at ? 'settled' : a.by ? 'acknowledged' : 'open';
    return { opener: null, is_ha: true, events_left_out: 0, missing: [], alerts: [], reopened: 0, reopened_at: [], subject: i.title, ...i, state, acknowledged_at: a.at, acknowledged_by: a.by, notes: a.notes };
  }

  /** Answers a request that changes something; `role` is the token's, null on loopback. */
  change(path, method, body, role) {
    const m = /^\/incidents\/([^/]+)\/(acknowledge|notes)$/.exec(path);
    const found = m && this.one(decodeURIComponent(m[1]));
    if (!found) return notFound;
    if (role === 'viewer') return refuse(403, 'forbidden', 'this needs a token with the role operator or admin');
    const a = this.act(found.id);
    const by = role === null ? 'local' : 'anna';
    const note = (text) => a.notes.push({ at: iso(Date.now()), by, text });
    if (m[2] === 'notes') {
      const text = String(body.text ?? '').trim();
      if (!text || text.length > 4096) return refuse(400, 'bad_request', 'a note has 1 to 4096 bytes');
      note(text);
    } else {
      if (found.state === 'settled') return refuse(409, 'conflict', 'the incident is settled: there is nothing to acknowledge');
      if (method === 'DELETE') Object.assign(a, { by: null, at: null });
      else {
        if (!a.by) Object.assign(a, { by, at: iso(Date.now()) });
        if (body.comment) note(body.comment);
      }
    }
    return { status: 200, body: this.one(found.id) };
  }

  messages(i) {
    const at = Date.parse(i.opened_at);
    if (i.id === 'audit-contact') return [];
    const row = (n, dt, kind, receiver, integration, target, more = {}) => ({ id: `${i.id}-${n}`, at: iso(at + dt), receiver, integration, target, kind, reason: kind === 'opening' ? 'first notification' : kind === 'update' ? 'the cause is known' : 'settled', subject: i.title, state: 'done', attempts: 1, delivered_at: iso(at + dt + 700), next_attempt_at: null, error: null, ...more });
    const out = [
      row(1, 600, 'opening', 'dba-mail', 'email', 'dba@example.net'),
      i.state === 'settled' ? row(2, 600, 'opening', 'webhook-ops', 'webhook', 'https://ops.example.net/hook')
        : row(2, 600, 'opening', 'webhook-ops', 'webhook', 'https://ops.example.net/hook', { state: 'queued', attempts: 4, delivered_at: null, next_attempt_at: iso(Date.now() + 45_000), error: 'POST: 503 Service Unavailable' }),
    ];
    if (i.settled_at) out.push(row(3, Date.parse(i.settled_at) - at + 900, 'closing', 'dba-mail', 'email', 'dba@example.net'));
    return out;
  }

  patterns(id) {
    const i = this.one(id);
    if (!i) return null;
    const start = Date.parse(i.opened_at) - M;
    const end = i.settled_at ? Date.parse(i.settled_at) : Math.min(Date.now(), start + 31 * M);
    const p = (member, source, pattern, before, during) => ({ source, member, pattern, lines_before: before, lines_during: during, first_seen: iso(before ? start - 55 * M : start + 2 * M), last_seen: iso(during ? end - 20 * S : start), query: `{cluster="${i.cluster}",member="${member}",source="${source}"} |> \`${pattern}\`` });
    const none = i.id === 'crm-archive';
    return {
      window: { before: iso(start - 60 * M), start: iso(start), end: iso(end) }, lines: 48_123,
      new: none ? [] : [p('pg3', 'pgbouncer', '<_>: orders/app@<_> pooler error: server login has been failing, cached error: connect failed', 0, 138), p('pg1', 'postgresql', 'PANIC:  could not write to file <_>: No space left on device', 0, 4), p('pg2', 'patroni', 'promoted self to leader by acquiring session lock', 0, 1)],
      vanished: none ? [] : [{ ...p('pg1', 'patroni', 'no action. I am (pg1), the leader with the lock', 360, 1), silent: { from: iso(start + 50 * S), to: null } }],
      changed: none ? [] : [p('pg2', 'etcd', 'apply request took too long  took=<_>  expected-duration=<_>', 14, 61)],
      without_baseline: none ? [] : [{ source: 'haproxy', member: 'proxy1' }], left_out: 0, partial: none ? 'stopped after 2 s: the time before is read back to 07:41:12Z only' : null,
    };
  }

  // --- The kinds ---

  event(base, at, member, event, severity, text, fields = {}, source = 'judge') {
    return { id: `${base.cluster}/${event}/${member ?? '-'}/${at}`, time: iso(at), cluster: base.cluster, member, event, severity, source, text, fields };
  }

  /** A disk that was full, a failover, all in order again: the cause is proven. Open while it is young. */
  failover(t, next) {
    const cluster = 'orders-prod';
    const settledAt = next.from + 120_000;
    const settled = settledAt < Date.now();
    const led = next.from <= Date.now();
    const at = (ms) => t.to + ms;
    const gap = next.from - t.to;
    const ev = (...args) => this.event({ cluster }, ...args);
    const link = (member, source, ms) => `/logs?cluster=${cluster}&member=${member}&f=source%3D${source}&from=${encodeURIComponent(iso(at(ms) - 30 * S))}&to=${encodeURIComponent(iso(at(ms) + 30 * S))}`;
    const proof = (sign, member, source, ms, text) => ({ source, time: iso(at(ms)), text: `${member}: ${text}`, link: link(member, source, ms), sign });
    const lost = `${t.leader} lost the leader key: its lease expired, so its Patroni is dead, hung or cut off from the DCS`;
    const first = next === this.world.terms[1];
    return {
      id: `${cluster}-${t.to - 700}`, cluster, severity: 'critical',
      title: led ? `${t.leader} lost the leader key (lease expired), ${next.leader} took over` : `${t.leader} lost the leader key (lease expired)`,
      opened_at: iso(at(0)), settled_at: settled ? iso(settledAt) : null,
      verdict: first ? `The disk of pg_wal on ${t.leader} was full: PostgreSQL stopped itself and ${next.leader} took over` : null,
      causes: first ? [
        {
          name: 'disk_full_wal', title: `The disk of pg_wal on ${t.leader} was full: PostgreSQL stopped itself and ${next.leader} took over`, member: t.leader, confidence: 'high', score: 0.94,
          evidence: [
            proof('writing WAL failed for want of space', t.leader, 'postgresql', -900, 'PANIC:  could not write to file "pg_wal/xlogtemp.812": No space left on device'),
            { source: 'metrics', time: iso(at(-30_000)), text: `{cluster="${cluster}", member="${t.leader}", mountpoint="/var/lib/postgresql"} = 0.0004`, link: `/explore?expr=node_filesystem_avail_bytes%7Bcluster%3D%22${cluster}%22%7D&from=${encodeURIComponent(iso(at(-600_000)))}&to=${encodeURIComponent(iso(at(60_000)))}`, sign: 'the file system was full' },
            proof('PostgreSQL went down because of it', t.leader, 'postgresql', -700, 'LOG:  server process (PID 812) was terminated by signal 6: Aborted'),
            { source: 'daraji', time: iso(at(0)), text: `${t.leader}: ${lost}`, link: link('', 'daraji', 0), sign: 'the lease ran out' },
            proof('the next one took over', next.leader, 'patroni', gap - 600, 'promoted self to leader by acquiring session lock'),
          ],
          against: [], missing: ['not found: the archiver counts failures'], symptom_of: null,
          advice: `Make room on ${t.leader} before it leads again: a slot or a failing archiver may hold WAL (pg_replication_slots, pg_stat_archiver). Never delete files of pg_wal by hand.`,
        },
        {
          name: 'leader_partitioned', title: `${t.leader} was cut off from the DCS and its peers, demoted itself, and ${next.leader} took over`, member: t.leader, confidence: 'low', score: 0.31,
          evidence: [{ source: 'daraji', time: iso(at(0)), text: `${t.leader}: ${lost}`, link: link('', 'daraji', 0), sign: 'the lease ran out' }],
          against: [proof('its PostgreSQL wrote of a full disk', t.leader, 'postgresql', -900, 'PANIC:  could not write to file "pg_wal/xlogtemp.812": No space left on device')],
          missing: ['not found: it demoted itself because the DCS was out of reach', `not observed: its peers could not reach it (no log of {source="kernel", member="${t.leader}"})`], symptom_of: null, advice: 'Look at the network between the hosts.',
        },
        { name: 'connections_refused', title: `Clients were refused on ${next.leader}`, member: next.leader, confidence: 'medium', score: 0.5, evidence: [proof('logins failed at the pooler', 'pg3', 'pgbouncer', 160, 'pooler error: server login has been failing, cached error: connect failed')], against: [], missing: [], symptom_of: 'disk_full_wal', advice: '' },
        { name: 'connections_refused', title: 'Clients were refused on pg3', member: 'pg3', confidence: 'low', score: 0.2, evidence: [], against: [], missing: [], symptom_of: 'disk_full_wal', advice: '' },
      ] : [],
      missing: first ? [`no log of {source="kernel", member="${t.leader}"}`, 'no log of {source="kernel", member="pg3"}', 'no log of {source=~"system|kernel", member="pg2"}'] : [],
      phases: [['trigger', -900], ['detected', 0], ['lease_expired', 0], ...(led ? [['lock_taken', gap - 600], ['promoted', gap], ['first_write', gap + 900], ['last_replica_streaming', gap + 2600]] : [])].map(([name, ms]) => ({ name, at: iso(at(ms)) })).filter((p) => Date.parse(p.at) <= Date.now()),
      impact: { write_outage_seconds: led ? gap / 1000 + 1.6 : null, write_outage_error_seconds: led ? 0.4 : null, client_outage_seconds: led ? gap / 1000 + 3.2 : null, client_outage_error_seconds: led ? 0.5 : null, split_brain_seconds: null, lost_wal: led ? '0/5B000148..0/5B014148' : null, lost_wal_bytes: led ? 81_920 : null },
      events: [
        ev(at(-900), t.leader, 'postgres_down', 'warning', `PostgreSQL of ${t.leader} refuses connections`, {}, 'sql'),
        ev(at(0), t.leader, 'leader_lost', 'critical', lost, { old_leader: t.leader, reason: 'lease_expired', planned: 'false', old_timeline: String(t.timeline) }, 'dcs'),
        ev(at(800), t.leader, 'member_lost', 'warning', `${t.leader} is lost: REST and PostgreSQL refuse connections`, { reason: 'down' }, 'rest'),
        ...(led ? [
          ev(at(gap - 600), next.leader, 'leader_changed', 'critical', `${next.leader} took over as leader from ${t.leader}`, { old_leader: t.leader, new_leader: next.leader, planned: 'false', cause_class: 'failover', reason: 'lease_expired', old_timeline: String(t.timeline), new_timeline: String(next.timeline), gap_seconds: String((gap - 600) / 1000) }, 'dcs'),
          ev(at(gap + 900), next.leader, 'writes_resumed', 'info', `${next.leader} is written to again: about ${(gap / 1000 + 1.6).toFixed(1)} s without new WAL`, { since: iso(at(-700)), write_outage_seconds: String(gap / 1000 + 1.6) }, 'sql'),
          ev(at(gap + 1500), next.leader, 'leader_change_measured', 'notice', `${next.leader} writes timeline ${next.timeline}; at least 81920 bytes of WAL from 0/5B000148 to 0/5B014148 are not on its timeline`, { cause_class: 'failover', old_timeline: String(t.timeline), new_timeline: String(next.timeline), lost_wal_bytes: '81920' }),
        ] : []),
        ...(settled ? [ev(at(95_000), t.leader, 'member_returned', 'notice', `${t.leader} answers again`, {}, 'rest')] : []),
      ].filter((e) => Date.parse(e.time) <= Date.now()),
      alerts: [...['pg1', 'pg2'].map(() => ({ name: 'DiskFillingUp', severity: 'warning', firing_since: iso(at(0)), resolved_at: null })), { name: 'NoLeader', severity: 'critical', firing_since: iso(at(10_000)), resolved_at: iso(next.from + 4000) }],
    };
  }

  /** No change of leadership; open, with a cause of medium confidence, and it came back once. */
  replica() {
    const cluster = 'billing';
    const at = this.world.start - 6 * M;
    const ev = (...args) => this.event({ cluster }, ...args);
    return {
      id: 'billing-replica', cluster, severity: 'warning', title: 'pg2 does not replicate', opened_at: iso(at), settled_at: null, reopened: 1, reopened_at: [iso(at + 2 * M)],
      verdict: 'A long query on pg2 holds up replay',
      causes: [{
        name: 'replay_blocked_by_query', title: 'A long query on pg2 holds up replay', member: 'pg2', confidence: 'medium', score: 0.66,
        evidence: [{ source: 'metrics', time: iso(at - M), text: '{cluster="billing", member="pg2"} = 1204', link: '/explore?expr=pg_stat_activity_max_tx_duration', sign: 'a transaction has run for minutes' }],
        against: [], missing: ['not found: a recovery conflict was logged', 'not observed: the disk is busy all the time (no samples for node_disk_io_time_seconds_total)'], symptom_of: null,
        advice: 'End the query on pg2, or set max_standby_streaming_delay to what the replica may lag.',
      }],
      missing: ['no samples for node_disk_io_time_seconds_total{cluster="billing",member="pg2"}'],
      phases: [{ name: 'trigger', at: iso(at - 20 * S) }, { name: 'detected', at: iso(at) }, { name: 'trigger', at: iso(at + 2 * M - 6 * S) }, { name: 'detected', at: iso(at + 2 * M) }],
      impact: { write_outage_seconds: null, write_outage_error_seconds: null, split_brain_seconds: null, lost_wal: null, lost_wal_bytes: null },
      events: [ev(at - 20 * S, 'pg2', 'lag_high', 'warning', 'pg2 lags 31 s and 222298112 bytes: it does not keep up with replaying', {}, 'sql'), ev(at, 'pg2', 'replica_broken', 'warning', 'pg2 receives and does not replay', { sign: 'replay stands still' }, 'sql'), ev(at + 2 * M, null, 'incident_reopened', 'notice', 'it came back 80 s after it had settled', { because: 'replica_broken' }, 'daraji')],
      alerts: [{ name: 'ReplicaLagHigh', severity: 'warning', firing_since: iso(at), resolved_at: null }],
    };
  }

  /** Somebody has it. */
  archive() {
    const cluster = 'crm';
    const at = this.world.start - 41 * M;
    return {
      id: 'crm-archive', cluster, severity: 'warning', title: 'crm-a: WAL is not archived', opened_at: iso(at), settled_at: null, opener: 'ArchiveFailing', is_ha: false,
      verdict: 'archive_command fails on crm-a',
      causes: [{ name: 'archive_failing', title: 'archive_command fails on crm-a', member: 'crm-a', confidence: 'high', score: 0.9, evidence: [{ source: 'postgresql', time: iso(at - 10 * S), text: 'crm-a: LOG:  archive command failed with exit code 1', link: `/logs?cluster=crm&member=crm-a&from=${encodeURIComponent(iso(at - 40 * S))}&to=${encodeURIComponent(iso(at + 20 * S))}`, sign: 'the archive command failed' }], against: [], missing: [], symptom_of: null, advice: 'Run archive_command by hand as postgres.' }],
      phases: [{ name: 'trigger', at: iso(at) }, { name: 'detected', at: iso(at) }],
      impact: { write_outage_seconds: null, write_outage_error_seconds: null, split_brain_seconds: null, lost_wal: null, lost_wal_bytes: 0 },
      events: [], alerts: [{ name: 'ArchiveFailing', severity: 'critical', firing_since: iso(at), resolved_at: null }],
    };
  }

  /** Nothing of the cluster answers: there is no cause, and everything is missing. */
  lostContact() {
    const cluster = 'audit';
    const at = this.world.start - 180 * S;
    const ev = (...args) => this.event({ cluster }, ...args);
    return {
      id: 'audit-contact', cluster, severity: 'critical', title: 'no source of audit has answered for 3 min', opened_at: iso(at), settled_at: null, opener: 'TargetMissing',
      verdict: 'Not enough evidence for any known cause', causes: [],
      missing: ['no log of {source="daraji"}', ...['au1', 'au2'].flatMap((m) => ['kernel', 'patroni', 'postgresql'].map((s) => `no log of {source="${s}", member="${m}"}`)), 'no samples for node_load1{cluster="audit"}'],
      phases: [{ name: 'trigger', at: iso(at - 12 * S) }, { name: 'detected', at: iso(at) }],
      impact: { write_outage_seconds: null, write_outage_error_seconds: null, split_brain_seconds: null, lost_wal: null, lost_wal_bytes: null },
      events: [ev(at - 12 * S, 'au1', 'member_lost', 'warning', 'au1 is lost: REST timed out, PostgreSQL timed out; only Daraji has tried', { reason: 'unknown' }), ev(at - 11 * S, 'au2', 'member_lost', 'warning', 'au2 is lost: REST timed out, PostgreSQL timed out; only Daraji has tried', { reason: 'unknown' })],
      alerts: [{ name: 'TargetMissing', severity: 'critical', firing_since: iso(at), resolved_at: null }],
    };
  }

  /** Long over; a failover whose middle nobody saw, and only a guess at its cause. */
  noCause() {
    const cluster = 'orders-prod';
    const at = this.world.start - 50 * 3600 * S;
    const ev = (...args) => this.event({ cluster }, ...args);
    return {
      id: 'orders-prod-unseen', cluster, severity: 'critical', title: 'pg3 took over from pg1', opened_at: iso(at), settled_at: iso(at + 210 * S),
      verdict: 'Not enough evidence. A possible cause: pg1 was powered off or lost its network',
      causes: [{ name: 'host_lost', title: 'pg1 was powered off or lost its network', member: 'pg1', confidence: 'low', score: 0.33, evidence: [{ source: 'daraji', time: iso(at), text: 'pg1: is lost: REST timed out, PostgreSQL timed out', link: null, sign: 'nothing of the host answered' }], against: [], missing: ['not observed: its kernel wrote nothing more (no log of {source="kernel", member="pg1"})', 'not found: the other members could not reach it'], symptom_of: null, advice: 'Look at the console of pg1.' }],
      missing: ['no log of {source="kernel", member="pg1"}', 'no log of {source="patroni", member="pg1"}'],
      phases: [{ name: 'trigger', at: iso(at - 2 * S) }, { name: 'detected', at: iso(at) }, { name: 'lock_taken', at: iso(at) }, { name: 'last_replica_streaming', at: iso(at + 44 * S) }],
      impact: { write_outage_seconds: null, write_outage_error_seconds: null, split_brain_seconds: null, lost_wal: null, lost_wal_bytes: null },
      events: [ev(at - 2 * S, 'pg1', 'member_lost', 'warning', 'pg1 is lost: REST timed out, PostgreSQL timed out', { reason: 'unreachable_from_all' }), ev(at, 'pg3', 'leader_changed', 'warning', 'pg3 took over as leader from pg1', { old_leader: 'pg1', new_leader: 'pg3', planned: 'unknown' }, 'rest')],
    };
  }

  /** Two members take writes, now. */
  splitBrain() {
    const cluster = 'orders-prod';
    const at = this.world.start - 45 * S;
    const ev = (...args) => this.event({ cluster }, ...args);
    const log = (member, ms, text, sign) => ({ source: 'patroni', time: iso(at + ms), text: `${member}: ${text}`, link: `/logs?cluster=${cluster}&member=${member}&from=${encodeURIComponent(iso(at + ms - 30 * S))}&to=${encodeURIComponent(iso(at + ms + 30 * S))}`, sign });
    return {
      id: 'orders-prod-split', cluster, severity: 'critical', title: 'pg1 lost the leader key (lease expired), pg2 took over, split brain of pg1 and pg2', opened_at: iso(at), settled_at: null,
      verdict: 'Patroni on pg1 died, its lease ran out and pg2 took over; PostgreSQL on pg1 was left running',
      causes: [{
        name: 'patroni_killed', title: 'Patroni on pg1 died, its lease ran out and pg2 took over; PostgreSQL on pg1 was left running', member: 'pg1', confidence: 'high', score: 0.93,
        evidence: [log('pg1', -29_000, "pg1's patroni log wrote nothing from 07:46:58.167 for 82 s, to the end", 'Patroni on pg1 wrote nothing more'), log('pg2', 400, `WARNING: Request failed to pg1: GET http://10.0.0.11:8008/patroni (HTTPConnectionPool(host='10.0.0.11', port=8008): Max retries exceeded with url: /patroni (Caused by NewConnectionError("HTTPConnection(host='10.0.0.11', port=8008): Failed to establish a new connection: [Err…`, "nothing listened on pg1's REST port any more"), log('pg3', 440, `WARNING: Request failed to pg1: GET http://10.0.0.11:8008/patroni (HTTPConnectionPool(host='10.0.0.11', port=8008): Max retries exceeded with url: /patroni`, "nothing listened on pg1's REST port any more")],
        against: [], missing: ['not observed: when it came back, Patroni on pg1 demoted PostgreSQL, which had no lock (nothing of pg1\'s patroni log after 07:46:58.167)'], symptom_of: null,
        advice: 'Find out who ended Patroni on pg1 (journal of its unit, OOM killer). Compare the data of both members before writes on pg1 after the takeover are thrown away by pg_rewind. A watchdog device would have fenced pg1.',
      }],
      missing: ['no log of {source="kernel", member="pg1"}'],
      phases: [{ name: 'trigger', at: iso(at - 21 * S) }, { name: 'detected', at: iso(at) }, { name: 'lease_expired', at: iso(at) }, { name: 'lock_taken', at: iso(at + 114) }, { name: 'promoted', at: iso(at + 636) }],
      impact: { write_outage_seconds: null, write_outage_error_seconds: null, split_brain_seconds: null, lost_wal: null, lost_wal_bytes: null },
      events: [
        ev(at - 21 * S, 'pg1', 'rest_down', 'warning', 'Patroni of pg1 does not answer: refused', {}, 'rest'),
        ev(at, 'pg1', 'leader_lost', 'critical', 'pg1 lost the leader key: its lease expired, so its Patroni is dead, hung or cut off from the DCS', { old_leader: 'pg1', reason: 'lease_expired', old_timeline: '6' }, 'dcs'),
        ev(at + 114, 'pg2', 'leader_changed', 'warning', 'pg2 took over as leader from pg1', { old_leader: 'pg1', new_leader: 'pg2', planned: 'false', cause_class: 'failover', reason: 'lease_expired' }, 'dcs'),
        ev(at + 800, null, 'split_brain_confirmed', 'critical', 'pg1 and pg2 take writes at the same time', { members: 'pg1,pg2' }),
      ],
      alerts: [{ name: 'SplitBrain', severity: 'critical', firing_since: iso(at + 800), resolved_at: null }],
    };
  }
}
