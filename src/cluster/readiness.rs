//! Who would win if the leader failed now, with what loss, and what stands in the way, by Patroni's own rules.
//!
//! Invariant: a candidate is named only while everything that Patroni would check is known to allow it. What we cannot
//! see is a blocker that says so.

use crate::cluster::lag::{lag_of, source_of_truth};
use crate::cluster::member::MemberState;
use crate::cluster::options::JudgeOptions;
use crate::cluster::quorum;
use crate::cluster::state::ClusterState;
use crate::cluster::view;
use crate::model::cluster::{Candidate, Readiness};
use crate::model::{Lsn, Timestamp};

/// Patroni's default of `maximum_lag_on_failover`.
const LAG_MAX_DEFAULT: u64 = 1 << 20;

/// Readiness of the cluster; `None` before anything was heard of a leader.
pub(super) fn readiness(state: &ClusterState, now: Timestamp, options: &JudgeOptions) -> Option<Readiness> {
    let leader = state.memory.leader.as_deref().or(state.memory.last_leader.as_deref())?;
    let mut blockers = cluster_blockers(state, now, options);
    let others = state.members.iter().filter(|(name, member)| *name != leader && member.address.present);
    let mut candidates: Vec<_> =
        others.map(|(name, member)| candidate(state, (name, member), leader, (now, options))).collect();
    // The furthest position wins; of equals the higher failover_priority, then whoever is first.
    candidates.sort_by_key(|(candidate, rank)| (!candidate.blockers.is_empty(), std::cmp::Reverse(*rank)));
    let best = candidates.first().map(|(candidate, _)| candidate).filter(|candidate| candidate.blockers.is_empty());
    if candidates.is_empty() {
        blockers.push("there is no other member".to_owned());
    } else if best.is_none() {
        blockers.push("no member may take over".to_owned());
    }
    let best = best.filter(|_| blockers.is_empty());
    Some(Readiness {
        candidate: best.map(|candidate| candidate.member.clone()),
        lag_bytes: best.and_then(|candidate| candidate.lag_bytes),
        blockers,
        candidates: candidates.into_iter().map(|(candidate, _)| candidate).collect(),
    })
}

/// What keeps every member from taking over.
fn cluster_blockers(state: &ClusterState, now: Timestamp, options: &JudgeOptions) -> Vec<String> {
    let mut blockers = Vec::new();
    if state.memory.paused == Some(true) {
        blockers.push("Patroni is paused".to_owned());
    }
    if !state.has_dcs() {
        return blockers;
    }
    if quorum::quorum(state, now, options) == Some(false) {
        blockers.push("the DCS has no quorum".to_owned());
    } else if !state.dcs.is_current(now, options) {
        blockers.push("the DCS cannot be read: what it holds is not known".to_owned());
    }
    let no_space = |peer: &crate::cluster::dcs::DcsPeer| {
        let alarms = peer.health.as_ref().map_or(&[][..], |(_, health)| &health.alarms[..]);
        alarms.iter().any(|alarm| alarm.to_ascii_uppercase().contains("NOSPACE"))
    };
    if state.dcs.peers.values().any(no_space) {
        blockers.push("the DCS is full (NOSPACE): leases live on, nobody can take the key".to_owned());
    }
    blockers
}

type Context<'a> = (Timestamp, &'a JudgeOptions);
/// Position and priority.
type Rank = (Option<Lsn>, i64);

fn candidate(
    state: &ClusterState,
    (name, member): (&str, &MemberState),
    leader: &str,
    (now, options): Context<'_>,
) -> (Candidate, Rank) {
    let mut blockers = Vec::new();
    let rest = member.current_rest(now, options);
    let sql = member.current_sql(now, options);
    match rest {
        None => blockers.push("its Patroni does not answer".to_owned()),
        Some(rest) if rest.state != "running" => blockers.push(format!("its PostgreSQL is {}", rest.state)),
        Some(rest) if rest.watchdog_failed => blockers.push("its watchdog is required and cannot be used".to_owned()),
        Some(_) => {}
    }
    let tags = view::tags(member);
    let priority = priority(&tags);
    if tags.get("nofailover").is_some_and(|value| is_true(value)) || priority <= 0 {
        blockers.push("tag nofailover".to_owned());
    }
    if state.has_dcs() && member.key.is_none() {
        blockers.push("it is not in the DCS".to_owned());
    }
    synchronous(state, name, &mut blockers);
    failsafe(state, name, &mut blockers);
    let by_sql = sql.filter(|sql| sql.in_recovery).and_then(|sql| sql.receive_lsn.max(sql.replay_lsn));
    let position = by_sql.or_else(|| rest.and_then(|rest| rest.received_location.max(rest.replayed_location)));
    let lag_bytes = lag(state, (leader, name), position, (now, options));
    let limit = state.dcs.config().and_then(|config| config.maximum_lag_on_failover).unwrap_or(LAG_MAX_DEFAULT);
    match (position, lag_bytes) {
        (None, _) => blockers.push("its position is not known".to_owned()),
        (_, Some(lag)) if lag > limit => blockers.push(format!("lags {lag} bytes, maximum_lag_on_failover is {limit}")),
        _ => {}
    }
    timeline(state, member, (now, options), &mut blockers);
    let mut risks = Vec::new();
    let broken = state.memory.member_facts.get(name).and_then(|facts| facts.broken.clone());
    risks.extend(broken.or_else(|| member.unstreamed_since.as_ref().map(|(_, sign)| sign.clone())));
    if let Some(bytes) = lag_of(state, name, now, options).ahead_bytes {
        risks.push(format!("has {bytes} bytes of WAL that the leader never wrote"));
    }
    (Candidate { member: name.to_owned(), lag_bytes, blockers, risks }, (position, priority))
}

/// What would be lost: against the leader's position, or against the one that it published last.
fn lag(
    state: &ClusterState,
    (leader, name): (&str, &str),
    position: Option<Lsn>,
    (now, options): Context<'_>,
) -> Option<u64> {
    if source_of_truth(state, now, options).as_deref() == Some(leader)
        && let Some(bytes) = lag_of(state, name, now, options).receive_bytes
    {
        return Some(bytes);
    }
    Some(u64::try_from(state.dcs.optime()?.bytes_since(position?)).unwrap_or(0))
}

fn timeline(state: &ClusterState, member: &MemberState, (now, options): Context<'_>, blockers: &mut Vec<String>) {
    if state.dcs.config().and_then(|config| config.check_timeline) != Some(true) {
        return;
    }
    match (member.timeline(now, options), state.memory.timeline) {
        (Some(theirs), Some(ours)) if theirs < ours => {
            blockers.push(format!("its timeline {theirs} is behind {ours} (check_timeline)"));
        }
        (None, Some(_)) => blockers.push("its timeline is not known (check_timeline)".to_owned()),
        _ => {}
    }
}

fn synchronous(state: &ClusterState, name: &str, blockers: &mut Vec<String>) {
    // Synchronous replication is ignored inside a standby cluster.
    let mode = state.dcs.sync_mode().filter(|mode| mode != "off" && !state.is_standby_cluster());
    let listed = state.dcs.sync_standbys();
    if mode.is_some() && state.dcs.sync_is_active() && !listed.iter().any(|standby| standby == name) {
        blockers.push("is no synchronous standby".to_owned());
    }
}

/// In failsafe mode only members that the leader has listed may ever win.
fn failsafe(state: &ClusterState, name: &str, blockers: &mut Vec<String>) {
    if state.dcs.config().and_then(|config| config.failsafe_mode) == Some(true)
        && state.dcs.failsafe_members().is_some_and(|members| !members.iter().any(|member| member == name))
    {
        blockers.push("is not in the failsafe key".to_owned());
    }
}

fn is_true(value: &str) -> bool {
    ["true", "on", "yes", "1"].contains(&value.to_ascii_lowercase().as_str())
}

/// `failover_priority`, 1 unless set.
fn priority(tags: &std::collections::BTreeMap<String, String>) -> i64 {
    tags.get("failover_priority").and_then(|value| value.parse().ok()).unwrap_or(1)
}
