// The fixture's world: four clusters whose state is a function of time, so that history and "now" always agree.
// `orders-prod` fails over 14 minutes before the start and whenever `failover()` is called.

export const SCENARIOS = ['live', 'empty', 'token', 'splitbrain', 'dcs-stale', 'member-lost', 'viewer'];

const S = 1000;

function noise(seed, t) {
  const x = Math.sin(seed * 127.1 + Math.floor(t) * 311.7) * 43758.5453;
  return x - Math.floor(x);
}
/** Smooth noise in 0..1 with the given period in seconds. */
export function wave(seed, ms, period) {
  const t = ms / S / period;
  const i = Math.floor(t);
  const f = t - i;
  const s = f * f * (3 - 2 * f);
  return noise(seed, i) * (1 - s) + noise(seed, i + 1) * s;
}

export class World {
  constructor(startMs = Date.now()) {
    this.start = startMs;
    this.scenario = 'live';
    this.scenarioAt = startMs;
    this.events = [];
    this.listeners = new Set();
    this.seq = 0;
    // Leaderships of orders-prod: [from, leader, timeline]; between `to` and the next `from` there is no leader.
    this.terms = [
      { from: startMs - 40 * 86_400 * S, to: startMs - 14 * 60 * S, leader: 'pg1', timeline: 6 },
      { from: startMs - 14 * 60 * S + 23 * S, to: Infinity, leader: 'pg2', timeline: 7 },
    ];
    this.#failoverEvents(startMs - 14 * 60 * S, 'pg1', 'pg2', 7, false);
    this.#add(startMs - 52 * 60 * S, 'billing', 'pg1', 'config_changed', 'notice', 'dcs', 'maximum_lag_on_failover changed from 1048576 to 33554432', {});
    this.#add(startMs - 33 * 60 * S, 'crm', 'crm-a', 'switchover_completed', 'notice', 'dcs', 'switchover from crm-b to crm-a took 2.1 s', { planned: 'true' });
    this.#add(startMs - 33 * 60 * S - 1500, 'crm', 'crm-a', 'leader_changed', 'notice', 'dcs', 'crm-a is the leader, as requested; before: crm-b', { planned: 'true', cause_class: 'switchover', old_leader: 'crm-b', new_leader: 'crm-a', old_timeline: '11', new_timeline: '12', gap_seconds: '2.1' });
    this.#add(startMs - 6 * 60 * S, 'billing', 'pg2', 'lag_high', 'warning', 'sql', 'pg2 is 212 MiB behind pg1', {});
  }

  #add(time, cluster, member, event, severity, source, text, fields) {
    this.seq += 1;
    const e = { id: `e${this.seq}`, time: new Date(time).toISOString(), cluster, member, event, severity, source, text, fields };
    this.events.push(e);
    this.events.sort((a, b) => (a.time < b.time ? 1 : -1));
    return e;
  }

  emit(...args) {
    const e = this.#add(...args);
    for (const l of this.listeners) l(e);
  }

  #failoverEvents(at, from, to, timeline, live) {
    const add = live ? (...a) => this.emit(...a) : (...a) => this.#add(...a);
    add(at, 'orders-prod', from, 'leader_lost', 'critical', 'dcs', `the leader key of ${from} expired; no member holds the lock`, {});
    add(at + 800, 'orders-prod', from, 'member_lost', 'warning', 'rest', `${from} does not answer on 10.0.0.1${from.slice(-1)}:8008: connection refused`, {});
    if (live) return;
    add(at + 23 * S, 'orders-prod', to, 'leader_changed', 'critical', 'dcs', `${from} → ${to}, not planned; writes were out for 23 s`, { planned: 'false' });
    add(at + 23.4 * S, 'orders-prod', to, 'timeline_changed', 'notice', 'sql', `timeline ${timeline - 1} → ${timeline} at 0/5B000148`, {});
    add(at + 95 * S, 'orders-prod', from, 'member_returned', 'info', 'rest', `${from} is back as replica, after pg_rewind`, {});
  }

  /** Starts an unplanned failover of orders-prod now; the new leader comes after `gapS` seconds. */
  failover(gapS = 4) {
    const now = Date.now();
    const term = this.terms[this.terms.length - 1];
    if (term.from > now) return;
    const order = ['pg1', 'pg2', 'pg3'];
    const next = order[(order.indexOf(term.leader) + 1) % 3];
    term.to = now;
    this.terms.push({ from: now + gapS * S, to: Infinity, leader: next, timeline: term.timeline + 1 });
    this.#failoverEvents(now, term.leader, next, term.timeline + 1, true);
    setTimeout(() => {
      this.emit(Date.now(), 'orders-prod', next, 'leader_changed', 'critical', 'dcs', `${term.leader} → ${next}, not planned; writes were out for ${gapS} s`, { planned: 'false' });
      this.emit(Date.now(), 'orders-prod', next, 'timeline_changed', 'notice', 'sql', `timeline ${term.timeline} → ${term.timeline + 1}`, {});
    }, gapS * S).unref();
  }

  term(ms) {
    return this.terms.find((t) => ms >= t.from && ms < t.to) ?? null;
  }

  /** Role of a member at a time; null when nothing was known then. */
  role(cluster, member, ms) {
    if (cluster === 'orders-prod') {
      if (this.scenario === 'member-lost' && member === 'pg3' && ms > this.start - 240 * S) return null;
      if (this.scenario === 'splitbrain' && member === 'pg1' && ms > this.start - 45 * S) return 'primary';
      const term = this.term(ms);
      if (term?.leader === member) return 'primary';
      // The old leader is away for a while after losing the lock.
      const lost = this.terms.find((t) => t.leader === member && ms >= t.to && ms < t.to + 95 * S);
      if (lost) return null;
      return 'replica';
    }
    const c = CLUSTERS[cluster];
    if (!c) return null;
    if (cluster === 'crm') {
      const leader = ms < this.start - 33 * 60 * S ? 'crm-b' : 'crm-a';
      return member === leader ? 'primary' : member === 'crm-c' ? 'replica' : 'sync_standby';
    }
    if (cluster === 'audit' && ms > this.start - 180 * S) return null;
    if (cluster === 'crm-dr') return member === c.members[0] ? 'standby_leader' : 'replica';
    return member === c.members[0] ? 'primary' : 'replica';
  }

  lag(cluster, member, ms) {
    const role = this.role(cluster, member, ms);
    if (role === null || role === 'primary' || role === 'standby_leader') return null;
    const seed = (cluster.length * 31 + member.charCodeAt(member.length - 1)) % 97;
    let base = 4096 + wave(seed, ms, 40) ** 3 * 900_000;
    if (cluster === 'billing' && member === 'pg2') base += Math.max(0, (ms - (this.start - 9 * 60 * S)) / S) * 620_000 * (0.8 + 0.2 * wave(9, ms, 30));
    if (cluster === 'orders-prod') {
      const failed = this.terms.find((t) => ms >= t.to && ms < t.to + 150 * S);
      if (failed) base += 50e6 * Math.exp(-(ms - failed.to) / 40_000);
    }
    return Math.round(base);
  }

  /** Counted down from the moment the scenario began. */
  demotion(member) {
    return { member, basis: 'quorum_lost', due_at: new Date(this.scenarioAt + 20 * S).toISOString(), lease_ends_at: new Date(this.scenarioAt + 30 * S).toISOString(), certain: true };
  }

  readiness(name, leader, members, stale) {
    if (leader === null && name !== 'orders-prod') return null;
    const candidates = members.filter((m) => m.name !== leader).map((m) => ({
      member: m.name, lag_bytes: m.lag_bytes,
      blockers: [...(m.writable === null ? ['its Patroni does not answer', 'its position is not known'] : []), ...(m.tags.nofailover ? ['tag nofailover'] : []), ...(m.lag_bytes > 33_554_432 ? [`lags ${m.lag_bytes} bytes, maximum_lag_on_failover is 33554432`] : [])],
      risks: name === 'billing' && m.name === 'pg3' ? ['its WAL receiver is waiting'] : [],
    })).sort((a, b) => a.blockers.length - b.blockers.length || a.lag_bytes - b.lag_bytes);
    const blockers = stale ? ['the DCS has no quorum'] : candidates.some((c) => !c.blockers.length) ? [] : ['no member may take over'];
    const best = blockers.length ? null : candidates[0];
    return { candidate: best?.member ?? null, lag_bytes: best?.lag_bytes ?? null, blockers, candidates };
  }

  clusters() {
    if (this.scenario === 'empty') return [];
    return Object.keys(CLUSTERS).map((name) => this.cluster(name, Date.now()));
  }

  cluster(name, now) {
    const spec = CLUSTERS[name];
    const iso = (ms) => new Date(ms).toISOString();
    const leaderNow = name === 'orders-prod' ? (this.term(now)?.leader ?? null) : spec.members.find((m) => ['primary', 'standby_leader'].includes(this.role(name, m, now))) ?? null;
    const timeline = name === 'orders-prod' ? (this.term(now)?.timeline ?? this.terms[this.terms.length - 1].timeline - 1) : spec.timeline;
    const dead = name === 'audit';
    const stale = this.scenario === 'dcs-stale' && name === 'orders-prod';
    const members = spec.members.map((m, i) => {
      const role = this.role(name, m, now);
      const away = role === null;
      const seen = away ? iso(dead ? this.start - 180 * S : now - Math.max(12 * S, Math.min(240 * S, now - this.start + 12 * S))) : iso(now - 300 - noise(i, now / 2000) * 1500);
      const lag = this.lag(name, m, now);
      const host = `10.0.${spec.net}.1${i + 1}`;
      const claim = (source, says, error = null) => ({ source, seen_at: error ? seen : iso(now - 200 - noise(i + source.length, now / 2000) * 1800), up: error ? false : true, error, says: error ? null : says });
      const word = away ? 'unknown' : role === 'primary' ? 'running' : 'streaming';
      const cascades = name === 'crm' && i === 2;
      return {
        name: m, role: away ? 'unknown' : role, state: word, writable: away ? null : role === 'primary', timeline: away ? null : timeline,
        lag_bytes: role === 'primary' ? null : lag, lag_seconds: lag === null ? null : Number((lag / 9e6).toFixed(2)), receive_lag_bytes: lag === null ? null : Math.round(lag * 0.2),
        lsn: away ? null : `${timeline.toString(16).toUpperCase()}/${Math.floor((now / 97) % 0xfffffff).toString(16).toUpperCase()}`,
        seen_at: seen, host, port: 5432, rest_url: `http://${host}:8008`, postgres_version: spec.pg, patroni_version: '4.1.0',
        postmaster_start_time: iso(this.start - (i + 2) * 86_400 * S), upstream: away || role === 'primary' || role === 'standby_leader' ? null : cascades ? 'crm-b' : leaderNow, upstream_lag_bytes: cascades ? 0 : null, apply_delay_seconds: cascades ? 3600 : null,
        clock_skew_seconds: away ? null : name === 'billing' && i === 2 ? 3.24 : 0.0004, clock_skew_error_seconds: away ? null : 0.04, replication_state: away || role === 'primary' ? null : 'streaming',
        pending_restart: name === 'billing' && i === 2, tags: name === 'crm' && i === 2 ? { nofailover: true } : {}, connections: away ? null : role === 'primary' ? Math.round(42 + 30 * wave(3, now, 20)) : 4, present: true,
        sources: away
          ? [claim('rest', '', `connect to ${host}:8008: ${dead ? 'no route to host' : 'connection refused'}`), claim('sql', '', `connect to ${host}:5432: ${dead ? 'timed out after 2 s' : 'connection refused'}`), { source: 'dcs', seen_at: iso(now - 900), up: true, error: null, says: 'member key says running, which may be old' }, { source: 'agent', seen_at: seen, up: null, error: null, says: 'last spool push before the loss' }]
          : [claim('rest', `${role}, ${word}, timeline ${timeline}`), claim('sql', role === 'primary' ? 'not in recovery, accepts writes' : 'in recovery, replaying'), claim('dcs', m === leaderNow ? 'owns the leader key' : `member key: ${role}`), claim('agent', 'ships os, postgresql and patroni logs')],
      };
    });
    const reasons = [...spec.reasons];
    let health = spec.health;
    let split = null;
    if (name === 'orders-prod') {
      const lastFail = this.terms.length > 1 ? this.terms[this.terms.length - 2] : null;
      const since = lastFail ? now - lastFail.to : Infinity;
      if (leaderNow === null) {
        health = 'critical';
        reasons.unshift({ severity: 'critical', text: `no leader for ${Math.max(1, Math.round(since / S))} s: the leader key expired and no member took it` });
      } else if (members.some((m) => m.role === 'unknown')) {
        health = 'warning';
        const lost = members.find((m) => m.role === 'unknown');
        reasons.unshift({ severity: 'warning', text: `${lost.name} is lost: REST and PostgreSQL refuse connections` });
      } else {
        health = 'ok';
      }
      if (this.scenario === 'splitbrain') {
        health = 'critical';
        split = { state: 'confirmed', grade: 'diverged', members: ['pg1', leaderNow ?? 'pg2'], since: iso(this.start - 45 * S) };
        reasons.unshift({ severity: 'critical', text: `pg1 and ${leaderNow} both accept writes; their timelines diverged at 0/5B000148` });
      }
      if (stale) {
        health = 'warning';
        reasons.unshift({ severity: 'warning', text: 'etcd lost its quorum 42 s ago; the lock and the member keys are as they were then' });
      }
    }
    return {
      name, health, reasons, leader: stale ? null : leaderNow, writable: members.filter((m) => m.writable).map((m) => m.name), timeline: dead ? null : timeline,
      system_identifier: '7431958261047715851', paused: dead ? null : false, failsafe: false, sync_mode: name === 'crm' ? 'on' : dead ? null : 'off', split_brain: split,
      lock: dead ? null : { owner: leaderNow, lease_ttl_seconds: stale ? null : 30 - Math.floor((now / S) % 10), lease_granted_ttl_seconds: 30, revision: 182_400 + Math.floor((now - this.start) / 10_000), seen_at: iso(stale ? now - 42 * S : now - 400) },
      dcs: dead ? null : {
        kind: 'etcd', quorum: stale ? false : true, stale, seen_at: iso(stale ? now - 42 * S : now - 400),
        members: ['etcd1', 'etcd2', 'etcd3'].map((m, i) => ({ name: m, url: `http://10.0.${spec.net}.2${i + 1}:2379`, healthy: stale ? i === 0 ? null : false : true, leader: stale ? null : i === 1, version: '3.5.16', db_size_bytes: 2_142_208 + i * 4096, seen_at: iso(stale && i ? now - 42 * S : now - 800), error: stale && i ? 'no answer within 2 s' : null })),
      },
      standby_of: spec.standby_of ?? null, demotion: stale ? this.demotion(leaderNow) : null, readiness: this.readiness(name, leaderNow, members, stale),
      reachability: dead ? [] : members.flatMap((t) => members.filter((f) => f !== t && f.writable !== null).flatMap((f) => ['postgres', 'rest'].map((port) => ({ from: f.name, target: t.name, port, reachable: t.writable !== null, failure: t.writable === null ? 'timeout' : null, seen_at: iso(now - 2000) })))),
      requests: name === 'crm' ? [{ kind: 'switchover', leader: 'crm-a', candidate: 'crm-b', scheduled_at: iso(this.start + 6 * 3600 * S), set_at: iso(this.start - 300 * S), outcome: 'pending', ended_at: null }] : [],
      config: dead ? null : { ttl: 30, loop_wait: 10, retry_timeout: 10, maximum_lag_on_failover: 1_048_576 },
      members,
    };
  }
}

export const CLUSTERS = {
  'orders-prod': { members: ['pg1', 'pg2', 'pg3'], net: 0, pg: '15.18', timeline: 7, health: 'ok', reasons: [] },
  billing: { members: ['pg1', 'pg2', 'pg3'], net: 1, pg: '16.12', timeline: 3, health: 'warning', reasons: [{ severity: 'warning', text: 'pg2 falls behind: replay is slower than the WAL of pg1' }, { severity: 'warning', text: 'pg1: /var/lib/postgresql is 86 % full' }] },
  crm: { members: ['crm-a', 'crm-b', 'crm-c'], net: 2, pg: '17.8', timeline: 12, health: 'ok', reasons: [] },
  'crm-dr': { members: ['dr1', 'dr2'], net: 4, pg: '17.8', timeline: 12, health: 'ok', reasons: [], standby_of: '10.0.2.11:5432' },
  audit: { members: ['au1', 'au2'], net: 3, pg: '15.18', timeline: 1, health: 'unknown', reasons: [{ severity: 'warning', text: 'no source has answered for 3 min: the whole site may be cut off' }] },
};
