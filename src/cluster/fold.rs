//! Where each kind of observation goes, and what is looked at on every tick.

use std::time::Duration;

use crate::cluster::draft::Draft;
use crate::cluster::leader::{self, LeaderNews};
use crate::cluster::loss::Before;
use crate::cluster::member::{MemberState, Probe, Verdict, rest_source_lsn, sql_source_lsn};
use crate::cluster::memory::ClusterMemory;
use crate::cluster::options::JudgeOptions;
use crate::cluster::split_brain::{self, RunFacts};
use crate::cluster::state::{ClusterState, Drafts};
use crate::cluster::{clients, interruption, lag, loss, measure, quorum, reach, replica, request, watch};
use crate::model::leadership::{CauseClass, LeaderPair, LossReason};
use crate::model::observation::{
    Claim, ClusterView, DcsChange, DcsSnapshot, Failure, Observation, PatroniStatus, Source,
};
use crate::model::{Lsn, Timestamp};

/// An unplanned change of the leader keeps the probes fast for so long.
const WATCHFUL: Duration = Duration::from_mins(1);

/// The state of a cluster that was known before a restart.
pub(super) fn remembered(memory: ClusterMemory) -> ClusterState {
    let mut state = ClusterState { started: true, ..ClusterState::default() };
    for address in &memory.members {
        let member = MemberState { address: address.clone(), ..MemberState::default() };
        state.members.insert(address.member.clone(), member);
    }
    state.memory = memory;
    state
}

pub(super) fn observe(state: &mut ClusterState, observation: &Observation, options: &JudgeOptions, out: &mut Drafts) {
    let probe = Probe::of(observation);
    if !state.started {
        state.started = true;
        out.push(Draft::info("watch_started", probe.received).text("the watch of this cluster has started"));
    }
    match (&observation.source, &observation.claim) {
        (_, Claim::Members(list)) => watch::expected(state, list, probe.received, options),
        (Source::Rest { member }, claim) => rest(state, (member, probe), claim, (options, out)),
        (Source::Sql { member }, claim) => sql(state, (member, probe), claim, (options, out)),
        (Source::Dcs, claim) => dcs(state, probe, claim, (options, out)),
        (Source::DcsMember { url }, Claim::DcsHealth(health)) => quorum::health(state, url, probe, health, out),
        (Source::DcsMember { url }, Claim::Failed(failure)) => quorum::failed(state, url, probe, failure),
        (Source::DcsMember { .. }, _) => {}
        (Source::Proxy { address }, claim) => clients::wrote(state, address, (probe, claim), out),
        (Source::Agent { member }, claim) => {
            if let Some(known) = known(state, member, options) {
                agent(known, probe, claim);
                if let Claim::Reach(ports) = claim {
                    reach::reported(state, member, (probe, ports), options, out);
                }
            }
        }
    }
}

/// The member's state; a new one while there is room.
fn known<'a>(state: &'a mut ClusterState, name: &str, options: &JudgeOptions) -> Option<&'a mut MemberState> {
    if !state.members.contains_key(name) {
        if state.members.len() >= options.members_max || name.is_empty() {
            return None;
        }
        let mut member = MemberState::default();
        name.clone_into(&mut member.address.member);
        member.address.present = true;
        state.members.insert(name.to_owned(), member);
    }
    state.members.get_mut(name)
}

fn agent(member: &mut MemberState, probe: Probe, claim: &Claim) {
    match claim {
        Claim::Failed(failure) => member.agent.failed(probe, failure),
        Claim::Clock(offset) => member.skew.add(probe.received, *offset),
        _ => member.agent.answered(probe, ()),
    }
}

type Context<'a> = (&'a JudgeOptions, &'a mut Drafts);

fn rest(state: &mut ClusterState, (name, probe): (&str, Probe), claim: &Claim, (options, out): Context<'_>) {
    let Some(member) = known(state, name, options) else { return };
    match claim {
        Claim::Patroni(status) if !member.rest.is_old(probe) => {
            let verdict = member.rest_answered(probe, status, options);
            patroni(state, (name, probe), status, out);
            if let Some(verdict) = verdict {
                let facts = RunFacts {
                    start: status.postmaster_start_time,
                    system_identifier: status.system_identifier.clone(),
                    lsn: status.location,
                };
                let statement = Statement {
                    verdict,
                    facts,
                    timeline: status.timeline,
                    writes_wal: verdict.writable,
                    lsn: rest_source_lsn(status),
                };
                stated(state, name, statement, out);
            }
        }
        Claim::ClusterView(view) => cluster_view(state, probe, view),
        Claim::Failed(failure) if !member.rest.is_old(probe) => member.rest_failed(probe, failure),
        _ => {}
    }
}

fn patroni(state: &mut ClusterState, (name, probe): (&str, Probe), status: &PatroniStatus, out: &mut Drafts) {
    let at = probe.received;
    if let Some(start) = status.postmaster_start_time {
        watch::postmaster(state, name, ("rest", start), at, out);
    }
    watch::pending_restart(state, name, status.pending_restart, at, out);
    // Each Patroni learns of a pause in its own loop; the DCS knows first.
    if !state.has_dcs() && state.memory.leader.as_deref() == Some(name) {
        leader::pause_is(state, at, ("rest", status.pause), out);
    }
    if state.memory.system_identifier.is_none() {
        state.memory.system_identifier.clone_from(&status.system_identifier);
    }
}

fn cluster_view(state: &mut ClusterState, probe: Probe, view: &ClusterView) {
    for claim in &view.members {
        let member = state.members.get_mut(&claim.name);
        if let Some(member) = member.filter(|member| member.address.host.is_empty()) {
            member.address.host.clone_from(&claim.host);
            member.address.port = claim.port;
        }
    }
    if state.view.as_ref().is_none_or(|(at, _)| *at <= probe.received) {
        state.view = Some((probe.received, view.clone()));
    }
}

fn sql(state: &mut ClusterState, (name, probe): (&str, Probe), claim: &Claim, (options, out): Context<'_>) {
    let Some(member) = known(state, name, options) else { return };
    if member.sql.is_old(probe) {
        return;
    }
    match claim {
        Claim::Postgres(status) => {
            let verdict = member.sql_answered(probe, status);
            if let Some(start) = status.postmaster_start_time {
                watch::postmaster(state, name, ("sql", start), probe.received, out);
            }
            let facts = RunFacts {
                start: status.postmaster_start_time,
                system_identifier: status.system_identifier.clone(),
                lsn: status.current_lsn,
            };
            let statement = Statement {
                verdict,
                facts,
                timeline: status.timeline,
                writes_wal: !status.in_recovery,
                lsn: sql_source_lsn(status),
            };
            stated(state, name, statement, out);
            if state.memory.system_identifier.is_none() {
                state.memory.system_identifier.clone_from(&status.system_identifier);
            }
        }
        Claim::Failed(failure) => sql_failed(state, (name, probe), failure, out),
        Claim::NewSession(failure) => watch::new_session(state, name, failure.as_ref(), probe.received, out),
        _ => {}
    }
}

fn sql_failed(state: &mut ClusterState, (name, probe): (&str, Probe), failure: &Failure, out: &mut Drafts) {
    let Some(member) = state.members.get_mut(name) else { return };
    if let Some(verdict) = member.sql_failed(probe, failure) {
        let facts = RunFacts::default();
        let statement = Statement { verdict, facts, timeline: None, writes_wal: false, lsn: None };
        stated(state, name, statement, out);
    }
}

/// A definite word of a member's PostgreSQL, whoever passed it on.
struct Statement {
    verdict: Verdict,
    facts: RunFacts,
    timeline: Option<u32>,
    writes_wal: bool,
    lsn: Option<Lsn>,
}

fn stated(state: &mut ClusterState, name: &str, statement: Statement, out: &mut Drafts) {
    let Statement { verdict, facts, timeline: on, writes_wal, lsn } = statement;
    let probe = verdict.probe;
    // Answers of one source keep their order; those of REST and SQL overtake each other.
    let Some(member) = state.members.get_mut(name) else { return };
    if member.stated_at.is_some_and(|at| at > probe.received) {
        return;
    }
    member.stated_at = Some(probe.received);
    interruption::stated(state, name, (verdict.writable, on), probe.received, out);
    split_brain::verdict(state, name, verdict, facts, out);
    loss::explained(state, name, verdict, out);
    let lsn = lsn.filter(|_| writes_or_leads(state, name, verdict));
    position(state, name, (probe, lsn), out);
    timeline(state, name, on.filter(|_| writes_wal), (probe.received, out));
}

/// A standby leader writes nothing and is followed all the same.
fn writes_or_leads(state: &ClusterState, name: &str, verdict: Verdict) -> bool {
    verdict.writable || state.memory.leader.as_deref() == Some(name) && state.is_standby_cluster()
}

/// Keeps the leader's position over time. Of two members that write, only the lock's owner counts.
fn position(state: &mut ClusterState, name: &str, (probe, lsn): (Probe, Option<Lsn>), out: &mut Drafts) {
    let Some(lsn) = lsn else { return };
    let counts = match &state.memory.leader {
        Some(leader) => leader == name,
        None => state.overlap.others(name).next().is_none(),
    };
    if counts {
        let started = state.members.get(name).and_then(MemberState::postmaster_start);
        state.history.add(name, started, probe, lsn);
        measure::wrote(state, name, (probe, lsn), out);
    }
}

/// The cluster's timeline is that of its writing leader.
fn timeline(state: &mut ClusterState, name: &str, timeline: Option<u32>, (at, out): (Timestamp, &mut Drafts)) {
    let Some(timeline) = timeline.filter(|timeline| *timeline > 0) else { return };
    let counts = match &state.memory.leader {
        Some(leader) => leader == name,
        None => state.overlap.others(name).next().is_none(),
    };
    if !counts {
        return;
    }
    let writer = state.memory.timeline_writer.replace(name.to_owned());
    let Some(before) = state.memory.timeline.replace(timeline).filter(|before| *before != timeline) else { return };
    let pair = LeaderPair {
        old_leader: writer.as_deref(),
        new_leader: Some(name),
        old_timeline: Some(before),
        new_timeline: Some(timeline),
        switchover: state.memory.switchover,
        key_was_lost: false,
    };
    let draft = Draft::info("timeline_changed", at)
        .by("sql")
        .member(name)
        .text(format!("{name} writes timeline {timeline}; before: {before}"))
        .field("old_timeline", before)
        .field("new_timeline", timeline)
        .field_if("old_leader", writer.as_ref())
        .field("new_leader", name)
        .field_if("cause_class", pair.class().map(CauseClass::as_str))
        .field_if("switch_lsn", state.dcs.switch_lsn(before));
    out.push(draft.keyed(&timeline.to_string(), at));
}

fn dcs(state: &mut ClusterState, probe: Probe, claim: &Claim, (options, out): Context<'_>) {
    state.memory.has_dcs = true;
    match claim {
        Claim::DcsSnapshot(snapshot) => dcs_snapshot(state, probe, snapshot, (options, out)),
        Claim::DcsChange(change) => dcs_change(state, probe, change, out),
        Claim::Lease(lease) => {
            state.dcs.lease_answered(probe, *lease);
            watch::lease(state, *lease, probe.received, out);
        }
        Claim::Failed(failure) => state.dcs.failed(probe, failure),
        _ => {}
    }
}

fn dcs_snapshot(state: &mut ClusterState, probe: Probe, snapshot: &DcsSnapshot, (options, out): Context<'_>) {
    let first = !state.dcs.loaded;
    let before = Before::of(state);
    if !state.dcs.load(probe, snapshot) {
        return;
    }
    let owner = state.dcs.leader().map(str::to_owned);
    let old = state.memory.leader.clone();
    // Another owner without a gap between: the change itself was not seen, nor what was asked for before it.
    let jumped = old.is_some() && owner.is_some() && old != owner;
    if jumped && state.memory.request.is_none() && state.dcs.request_was_cleared_by_leader() {
        request::by_its_traces(&mut state.memory, (old, owner.clone()), probe.received);
    }
    let news = LeaderNews {
        at: probe.received,
        source: "dcs",
        revision: state.dcs.keys.get("leader").map(|key| key.mod_revision).or(Some(snapshot.revision)),
        reason: before.by_snapshot(&state.dcs, probe.received, options),
        leader: owner.as_deref(),
        watched: !first && !jumped,
    };
    leader::leader_is(state, &news, out);
    after_keys(state, probe.received, !first, out);
}

fn dcs_change(state: &mut ClusterState, probe: Probe, change: &DcsChange, out: &mut Drafts) {
    let before = Before::of(state);
    if !state.dcs.apply(probe, change) {
        return;
    }
    let at = probe.received;
    let owner = state.dcs.leader().map(str::to_owned);
    let gone = |key: &str| change.deletes.iter().any(|deleted| deleted == key);
    // The request must be known before the key it explains is judged.
    if change.puts.iter().any(|key| key.key == "failover") && gone("leader") {
        request::failover_key(state, at, true, out);
    }
    let news = LeaderNews {
        at,
        source: "dcs",
        revision: Some(change.revision),
        reason: before.by_change(change, at),
        leader: owner.as_deref(),
        watched: true,
    };
    leader::leader_is(state, &news, out);
    for key in &change.deletes {
        if let Some(member) = key.strip_prefix("members/") {
            let text = format!("{member} has left the DCS: its lease expired or it was stopped");
            let draft = Draft::info("dcs_member_expired", at).by("dcs").member(member).text(text);
            out.push(draft.revision(change.revision));
        }
    }
    after_keys(state, at, true, out);
}

/// What follows from the keys, however they came.
fn after_keys(state: &mut ClusterState, at: Timestamp, watched: bool, out: &mut Drafts) {
    request::failover_key(state, at, watched, out);
    leader::config_key(state, at, out);
    if let Some(id) = state.dcs.system_identifier() {
        state.memory.system_identifier = Some(id);
    }
    state.memory.revision = state.dcs.revision;
    // A new leader writes its own list at once; who was on the old one decides what may be lost.
    if state.dcs.leader().is_some() && state.memory.term.is_none() {
        state.synchronous_before = state.dcs.sync_standbys();
    }
    let names: Vec<_> = state.dcs.member_names().map(str::to_owned).collect();
    for name in &names {
        if let Some(member) = state.members.get_mut(name) {
            member.key = state.dcs.member_key(name);
            member.key_seen_at = Some(at);
        }
    }
    for (name, member) in &mut state.members {
        if !names.contains(name) {
            member.key = None;
        }
    }
}

pub(super) fn tick(state: &mut ClusterState, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    quorum::tick(state, now, options, out);
    if !state.has_dcs() {
        leader_without_dcs(state, now, options, out);
    }
    leader::tick(state, now, options, out);
    watch::tick(state, now, options, out);
    split_brain::tick(state, now, options, out);
    lag::tick(state, now, options, out);
    replica::tick(state, now, options, out);
    measure::tick(state, now, options, out);
}

/// Without a DCS the leader is whom a fresh `/cluster` names, if its own PostgreSQL bears it out.
fn leader_without_dcs(state: &mut ClusterState, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    let Some((at, view)) = &state.view else { return };
    if now.since(*at) > options.fresh {
        return;
    }
    let claimed = view.members.iter().find(|member| member.role.ends_with("leader"));
    let standby = claimed.is_some_and(|member| member.role == "standby_leader");
    let claimed = claimed.map(|member| member.name.clone());
    let owner = match claimed {
        None => None,
        Some(name) if standby || state.writable(&name, now, options) == Some(true) => Some(name),
        // Not borne out: keep what was known for as long as a restart in place may take, then it is unknown.
        Some(name) if state.memory.leader.as_ref() == Some(&name) => {
            let since = *state.unconfirmed_since.get_or_insert(now);
            if now.since(since) > options.transient_max { None } else { Some(name) }
        }
        Some(_) => return,
    };
    if owner.as_ref().is_some_and(|name| state.writable(name, now, options) == Some(true)) || owner.is_none() {
        state.unconfirmed_since = None;
    }
    if owner.is_none() && !state.memory.leader_known {
        return;
    }
    let news = LeaderNews {
        at: now,
        source: "rest",
        revision: None,
        reason: LossReason::Unknown,
        leader: owner.as_deref(),
        watched: true,
    };
    leader::leader_is(state, &news, out);
}

pub(super) fn wants_fast_probe(state: &ClusterState, now: Timestamp) -> bool {
    let changed = state.memory.unplanned_change_at.is_some_and(|at| now.since(at) <= WATCHFUL);
    let lost = state.memory.lost_at.is_some_and(|at| now.since(at) <= WATCHFUL) && state.memory.leader.is_none();
    changed || lost || state.overlap.is_suspicious(now)
}
