//! The leader key: lost, changed, given back.
//!
//! Invariant: every change of the owner gives exactly one `leader_changed`, also one that happened while nobody
//! watched. Whether it was planned is read from the `failover` key.

use crate::cluster::dcs::config_diff;
use crate::cluster::draft::Draft;
use crate::cluster::measure;
use crate::cluster::options::JudgeOptions;
use crate::cluster::request;
use crate::cluster::state::{ClusterState, Drafts};
use crate::model::Timestamp;
use crate::model::leadership::{CauseClass, LeaderPair, LossReason, RequestKind, RequestOutcome};

/// How a change of the leader became known.
pub(super) struct LeaderNews<'a> {
    pub(super) at: Timestamp,
    /// The source's name in the event.
    pub(super) source: &'static str,
    pub(super) revision: Option<i64>,
    /// Why the old owner lost it, if it did.
    pub(super) reason: LossReason,
    pub(super) leader: Option<&'a str>,
    /// It was seen happening, not found on the next look.
    pub(super) watched: bool,
}

/// Compares the leader key with what was known.
pub(super) fn leader_is(state: &mut ClusterState, news: &LeaderNews<'_>, out: &mut Drafts) {
    let leader = news.leader.map(str::to_owned);
    if !state.memory.leader_known {
        state.memory.leader_known = true;
        state.memory.leader.clone_from(&leader);
        state.memory.last_leader = leader;
        return;
    }
    if state.memory.leader == leader {
        return;
    }
    if state.memory.leader.is_some() {
        lost(state, news, out);
    }
    if let Some(new) = leader {
        taken(state, news, &new, out);
    }
}

/// The owner is gone. When another one holds the key already, that is told by `taken` alone.
fn lost(state: &mut ClusterState, news: &LeaderNews<'_>, out: &mut Drafts) {
    let memory = &mut state.memory;
    let old = memory.leader.take();
    let planned = memory.request.as_ref().is_some_and(|request| request::asks_for(request, old.as_deref(), news.at));
    memory.last_leader.clone_from(&old);
    memory.lost_leader.clone_from(&old);
    memory.lost_at = Some(news.at);
    memory.lost_planned = planned;
    memory.lost_reason = news.reason;
    memory.leader_since = None;
    memory.lease_low = false;
    measure::trouble(state, news.at, false);
    if news.leader.is_some() {
        return;
    }
    let old = old.unwrap_or_default();
    let seen = news.reason != LossReason::Unknown;
    let lease = state.dcs.lease.as_ref().map(|(_, lease)| lease.ttl_seconds).filter(|_| seen);
    let draft = if planned {
        Draft::info("dcs_leader_deleted", news.at)
            .text(format!("{old} released the leader key for the requested switchover"))
    } else {
        let why = match news.reason {
            LossReason::LeaseExpired => "its lease expired, so its Patroni is dead, hung or cut off from the DCS",
            LossReason::Released => "its Patroni released it",
            LossReason::DeletedByHand => "it was deleted, and not by Patroni",
            LossReason::Unknown => "found missing on the next look",
        };
        Draft::critical("leader_lost", news.at).text(format!("{old} lost the leader key: {why}"))
    };
    let draft = draft
        .by(news.source)
        .member(&old)
        .field("old_leader", &old)
        .field("reason", news.reason.as_str())
        .field("planned", planned)
        .field_if("old_timeline", state.memory.timeline)
        .field_if("last_lease_ttl_seconds", lease);
    let draft = request::fields(draft, state.memory.request.as_ref().filter(|_| planned));
    out.push(with_revision(draft, news.revision));
}

/// Somebody holds the key.
fn taken(state: &mut ClusterState, news: &LeaderNews<'_>, new: &str, out: &mut Drafts) {
    let old = state.memory.last_leader.clone();
    let request = state.memory.request.clone();
    let memory = &mut state.memory;
    memory.leader = Some(new.to_owned());
    memory.last_leader = Some(new.to_owned());
    memory.leader_since = Some(news.at);
    if old.as_deref() == Some(new) {
        returned(state, news, new, out);
        measure::began(state, old.as_deref(), new, (news.at, false));
        return;
    }
    let asked_now = request.is_some_and(|request| {
        memory.lost_at.is_none_or(|lost_at| request.set_at <= lost_at)
            && request::asks_for(&request, old.as_deref(), news.at)
    });
    let planned = memory.lost_planned || asked_now;
    memory.lost_planned = planned;
    if !planned {
        memory.unplanned_change_at = Some(news.at);
    }
    no_longer_a_replica(state, new, news.at, out);
    // What stopped under the old owner is no interruption of a later term.
    for member in state.members.values_mut() {
        member.interrupted = None;
    }
    out.push(changed(state, news, (old.as_deref(), new), planned));
    measure::began(state, old.as_deref(), new, (news.at, planned));
    if planned {
        let draft = Draft::info("switchover_completed", news.at).by(news.source).member(new);
        let draft = draft.text(format!("{new} holds the leader key, as requested"));
        out.push(with_revision(request::fields(draft, state.memory.requests.last()), news.revision));
        request::end(&mut state.memory, RequestOutcome::Completed, news.at);
    }
}

/// Who leads has nothing to catch up with: what was wrong with it as a replica has ended.
fn no_longer_a_replica(state: &mut ClusterState, new: &str, at: Timestamp, out: &mut Drafts) {
    let facts = state.member_memory(new);
    if std::mem::take(&mut facts.lag_high) {
        let text = format!("{new} leads now: its lag has ended");
        out.push(Draft::info("lag_normal", at).member(new).text(text));
    }
    if facts.broken.take().is_some() {
        let text = format!("{new} leads now and has nobody to stream from");
        out.push(Draft::info("replica_recovered", at).member(new).text(text));
    }
    if let Some(member) = state.members.get_mut(new) {
        member.unstreamed_since = None;
        member.lag_turn_since = None;
    }
}

/// The last owner holds the key again.
fn returned(state: &mut ClusterState, news: &LeaderNews<'_>, new: &str, out: &mut Drafts) {
    let memory = &mut state.memory;
    let gap = memory.lost_at.map(|lost_at| news.at.since(lost_at));
    let seconds = gap.unwrap_or_default().as_secs_f64();
    let planned = std::mem::take(&mut memory.lost_planned);
    let draft = Draft::notice("leader_returned", news.at).by(news.source).member(new);
    let draft = draft.text(format!("{new} holds the leader key again, after {seconds:.1} s without a leader"));
    let draft = draft
        .field("gap_seconds", format!("{seconds:.3}"))
        .field("planned", planned)
        .field("reason", memory.lost_reason.as_str())
        .field("old_leader", new)
        .field("new_leader", new)
        .field_if("old_timeline", memory.timeline);
    out.push(with_revision(draft, news.revision));
}

/// Whether a switchover, and nothing else, was asked for; `None` when nobody watched.
fn switchover_asked(state: &ClusterState, news: &LeaderNews<'_>, planned: bool) -> Option<bool> {
    if planned {
        return Some(state.memory.requests.last().is_none_or(|request| request.kind == RequestKind::Switchover));
    }
    (news.watched && news.source == "dcs").then_some(false)
}

fn changed(state: &mut ClusterState, news: &LeaderNews<'_>, (old, new): (Option<&str>, &str), planned: bool) -> Draft {
    let switchover = switchover_asked(state, news, planned);
    state.memory.switchover = switchover;
    let memory = &state.memory;
    // Without the watch, or without a DCS, the failover key was not seen.
    let planned_word = match (planned, switchover) {
        (true, _) => "true",
        (false, Some(_)) => "false",
        (false, None) => "unknown",
    };
    let from = old.unwrap_or("nobody");
    let draft = if planned {
        Draft::notice("leader_changed", news.at).text(format!("{new} is the leader, as requested; before: {from}"))
    } else {
        Draft::warning("leader_changed", news.at).text(format!("{new} took over as leader from {from}"))
    };
    let pair = LeaderPair {
        old_leader: old,
        new_leader: Some(new),
        old_timeline: memory.timeline,
        switchover,
        key_was_lost: true,
        ..LeaderPair::default()
    };
    let gap = memory.lost_at.map(|lost_at| news.at.since(lost_at).as_secs_f64());
    let draft = draft
        .by(news.source)
        .member(new)
        .field_if("old_leader", old)
        .field("new_leader", new)
        .field("planned", planned_word)
        .field("reason", memory.lost_reason.as_str())
        .field_if("cause_class", pair.class().map(CauseClass::as_str))
        .field("watched", news.watched)
        .field_if("old_timeline", memory.timeline)
        .field_if("lsn", state.dcs.optime())
        .field_if("gap_seconds", gap.map(|gap| format!("{gap:.3}")));
    let draft = request::fields(draft, memory.requests.last().filter(|_| planned));
    with_revision(draft, news.revision)
}

fn with_revision(draft: Draft, revision: Option<i64>) -> Draft {
    match revision {
        Some(revision) => draft.revision(revision),
        None => draft,
    }
}

/// The `config` key: what changed, and pause.
pub(super) fn config_key(state: &mut ClusterState, at: Timestamp, out: &mut Drafts) {
    let Some(key) = state.dcs.keys.get("config").cloned() else { return };
    if let Some(before) = state.memory.config.as_ref().filter(|before| **before != key.value) {
        let diff: Vec<_> =
            config_diff(before, &key.value).into_iter().filter(|line| !line.starts_with("pause:")).collect();
        if !diff.is_empty() {
            let draft =
                Draft::info("config_changed", at).by("dcs").text(format!("configuration changed: {}", diff.join("; ")));
            out.push(draft.field("diff", diff.join("\n")).revision(key.mod_revision));
        }
    }
    state.memory.config = Some(key.value);
    if let Some(pause) = state.dcs.pause() {
        pause_is(state, at, ("dcs", pause), out);
    }
}

/// Patroni's pause, by the DCS or by REST.
pub(super) fn pause_is(
    state: &mut ClusterState,
    at: Timestamp,
    (source, pause): (&'static str, bool),
    out: &mut Drafts,
) {
    if state.memory.paused.is_some_and(|before| before != pause) {
        out.push(if pause {
            Draft::notice("paused", at).by(source).text("Patroni is paused: no automatic failover")
        } else {
            Draft::notice("resumed", at).by(source).text("Patroni is resumed")
        });
    }
    state.memory.paused = Some(pause);
}

/// A switchover that released the key and got no new leader is a lost leader after all.
pub(super) fn tick(state: &mut ClusterState, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    let memory = &mut state.memory;
    let late = memory.lost_at.is_some_and(|at| now.since(at) > options.transient_max * 2);
    if memory.leader.is_none() && memory.lost_planned && late {
        memory.lost_planned = false;
        memory.request = None;
        request::end(memory, RequestOutcome::Failed, now);
        let old = memory.last_leader.clone().unwrap_or_default();
        let text = format!("{old} released the leader key for a switchover and nobody took it");
        let draft = Draft::critical("leader_lost", now).member(&old).text(text).field("old_leader", &old);
        out.push(draft.field("reason", memory.lost_reason.as_str()).field_if("old_timeline", memory.timeline));
        out.push(
            Draft::warning("switchover_failed", now).text("the requested switchover left the cluster without a leader"),
        );
    }
}
