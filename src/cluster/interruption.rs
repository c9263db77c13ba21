//! A leader that takes no writes for a while and keeps the key: that it began, and what it was in the end, a crash or a
//! stop in order, in place or through recovery.

use std::time::Duration;

use crate::cluster::draft::Draft;
use crate::cluster::measure;
use crate::cluster::member::MemberState;
use crate::cluster::options::JudgeOptions;
use crate::cluster::state::{ClusterState, Drafts};
use crate::model::leadership::{CauseClass, LeaderPair};
use crate::model::observation::FailureKind;
use crate::model::{EventSeverity, Timestamp};

/// A leader that stopped taking writes and kept the key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Interruption {
    pub(super) since: Timestamp,
    /// Start time of the postmaster before.
    pub(super) start: Option<Timestamp>,
    /// Timeline before.
    pub(super) timeline: Option<u32>,
    /// Transactions committed until then, as its statistics count them.
    pub(super) commits: Option<u64>,
    /// When it took writes again, and on which timeline.
    pub(super) ended: Option<Timestamp>,
    pub(super) timeline_after: Option<u32>,
    /// It was told that it began.
    pub(super) told: bool,
}

impl Interruption {
    /// Recovery from a crash throws the cumulative statistics away, a stop in order keeps them: counts that went down tell
    /// a crash, also one of a backend alone. `None` while they were not read on both sides.
    pub(super) fn crashed(&self, member: &MemberState) -> Option<bool> {
        let (_, sql) = member.sql.answer.as_ref().filter(|(probe, _)| probe.sent >= self.since)?;
        Some(sql.commits? < self.commits?)
    }
}

/// Statistics that are not read by then will not tell whether it crashed.
const CRASH_PATIENCE: Duration = Duration::from_secs(10);

/// The member answered "writable" or stopped answering: finds leaders that take no writes, restarts in place, and crashes
/// that keep the postmaster.
pub(super) fn stated(
    state: &mut ClusterState,
    name: &str,
    (writable, now_on): (bool, Option<u32>),
    at: Timestamp,
    out: &mut Drafts,
) {
    let leads = state.memory.leader.as_deref() == Some(name);
    if !writable && leads {
        measure::trouble(state, at, true);
    }
    let was = state.memory.member_facts.get(name).is_some_and(|facts| facts.was_writable);
    let expected = state.switching(at) || state.is_standby_cluster();
    let timeline = state.memory.timeline;
    let Some(member) = state.members.get_mut(name) else { return };
    if let Some(interrupted) = member.interrupted.as_mut().filter(|_| !writable) {
        interrupted.ended = None;
    } else if !writable && was && leads && !expected {
        let commits = member.sql.answer.as_ref().and_then(|(_, sql)| sql.commits);
        let start = member.postmaster_start();
        member.interrupted = Some(Interruption { since: at, start, timeline, commits, ..Interruption::default() });
    }
    if let Some(interrupted) = member.interrupted.as_mut().filter(|_| writable) {
        interrupted.ended.get_or_insert(at);
        interrupted.timeline_after = now_on.or(interrupted.timeline_after);
        ended(state, name, at, out);
    }
}

/// Tells that the leader takes no writes. A port that refuses us may refuse only us: Patroni is heard first.
fn began(state: &mut ClusterState, name: &str, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    let proven = state.writable(name, now, options) == Some(false);
    let Some(member) = state.members.get_mut(name) else { return };
    let refused = member.sql.failing.as_ref().filter(|(_, failure)| failure.kind == FailureKind::Refused);
    let heard = refused.is_none_or(|(since, _)| member.rest.tried_at.is_some_and(|tried| tried >= *since));
    let why = member.sql.failing.as_ref().map_or("it says so itself", |(_, failure)| failure.error.as_str());
    let text = format!("the leader {name} takes no writes: {why}");
    let Some(interrupted) = member.interrupted.as_mut().filter(|interrupted| !interrupted.told && proven && heard)
    else {
        return;
    };
    interrupted.told = true;
    let draft = Draft::notice("primary_not_writable", now).by("sql").member(name).text(text);
    out.push(draft.field("since", interrupted.since));
}

/// Tells of an interruption that is over, as soon as its kind is known.
fn ended(state: &mut ClusterState, name: &str, now: Timestamp, out: &mut Drafts) {
    let leads = state.memory.leader.as_deref() == Some(name);
    let now_on = state.memory.timeline;
    let Some(member) = state.members.get_mut(name) else { return };
    let Some((before, ended)) = member.interrupted.and_then(|before| Some((before, before.ended?))) else { return };
    let crashed = before.crashed(member);
    if crashed.is_none() && now.since(ended) < CRASH_PATIENCE {
        return;
    }
    member.interrupted = None;
    if !leads {
        return;
    }
    let seconds = ended.since(before.since).as_secs_f64();
    let now_on = before.timeline_after.or(now_on);
    let restarted = before.start.is_none() || before.start != member.postmaster_start();
    let (event, text) = match crashed {
        _ if now_on != before.timeline => ("primary_promoted_again", "was demoted and promoted again"),
        Some(true) if restarted => ("primary_restarted_in_place", "crashed and was started again, without a failover"),
        Some(true) => ("primary_interrupted", "ended all sessions and recovered, because one of its processes crashed"),
        _ if restarted => ("primary_restarted_in_place", "was restarted without a failover"),
        _ => ("primary_interrupted", "took no writes for a while"),
    };
    let text = format!("PostgreSQL of the leader {name} {text}: about {seconds:.1} s without writes");
    let pair = LeaderPair {
        old_leader: Some(name),
        new_leader: Some(name),
        old_timeline: before.timeline,
        new_timeline: now_on,
        ..LeaderPair::default()
    };
    let crashed_word = crashed.map_or_else(|| "unknown".to_owned(), |crashed| crashed.to_string());
    let in_order = crashed == Some(false) && now_on == before.timeline;
    let severity = if in_order { EventSeverity::Notice } else { EventSeverity::Warning };
    let draft = Draft::new(event, severity, ended).by("sql").member(name).text(text);
    let draft = draft.field("seconds", format!("{seconds:.3}")).field("since", before.since);
    let draft = draft.field("crashed", crashed_word).field_if("cause_class", pair.class().map(CauseClass::as_str));
    out.push(draft.field_if("old_timeline", before.timeline).field_if("new_timeline", now_on));
}

/// What time and other sources add to a statement.
pub(super) fn tick(state: &mut ClusterState, name: &str, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    began(state, name, now, options, out);
    ended(state, name, now, out);
}
