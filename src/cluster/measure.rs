//! What a change of the leader cost: time without writes, by the members' own WAL, and WAL that is on no timeline any
//! more.
//!
//! Invariant: a number is given only when both its ends were seen. A cluster that was idle before gives no outage; an
//! old leader whose last position is not known gives no lost WAL. Unknown is said as such, never as 0.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::draft::Draft;
use crate::cluster::member::Probe;
use crate::cluster::options::JudgeOptions;
use crate::cluster::state::{ClusterState, Drafts};
use crate::model::cluster::SplitBrainState;
use crate::model::leadership::{CauseClass, LeaderPair, LossReason};
use crate::model::{EventSeverity, Lsn, Timestamp};

/// Without new WAL for longer than this before the trouble, nobody was writing.
const IDLE_AFTER: Duration = Duration::from_secs(5);
/// What is not known by then will not be.
const PATIENCE: Duration = Duration::from_mins(1);
/// The old leader goes on to write in a split brain, and loses more.
const PATIENCE_SPLIT_BRAIN: Duration = Duration::from_mins(15);

/// The WAL of whoever leads, as it grows.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes {
    last: Option<(String, Probe, Lsn)>,
    /// The newest answer that showed more WAL than the one before.
    grown: Option<Probe>,
    trouble: Option<Trouble>,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    /// The last answer that showed writes; `None` when nobody wrote.
    since: Option<Timestamp>,
    /// The first sign after it.
    seen_at: Timestamp,
    /// PostgreSQL said that it takes no writes.
    stopped: bool,
}

/// The leader takes no writes, or its key is gone.
pub(super) fn trouble(state: &mut ClusterState, at: Timestamp, stopped: bool) {
    let writes = &mut state.writes;
    if let Some(trouble) = &mut writes.trouble {
        trouble.stopped |= stopped;
        return;
    }
    let last = writes.last.as_ref().map(|(_, probe, _)| probe.received);
    let busy = |grown: &Probe| last.is_some_and(|last| last.since(grown.received) < IDLE_AFTER);
    let since = writes.grown.filter(busy).map(|grown| grown.received);
    writes.trouble = Some(Trouble { since, seen_at: at, stopped });
}

/// The leader answered with its position.
pub(super) fn wrote(state: &mut ClusterState, name: &str, (probe, lsn): (Probe, Lsn), out: &mut Drafts) {
    let before = state.writes.last.replace((name.to_owned(), probe, lsn));
    let Some((writer, previous, _)) = before.filter(|(writer, _, before)| writer == name && lsn > *before) else {
        // Promotion and recovery write WAL by themselves: the next answer tells whether clients do.
        if let Some(trouble) = &mut state.writes.trouble {
            trouble.stopped |= state.writes.grown.is_some() && Some(name) != state.memory.lost_leader.as_deref();
        }
        return;
    };
    state.writes.grown = Some(probe);
    let Some(trouble) = state.writes.trouble.take().filter(|trouble| trouble.stopped) else { return };
    let Some(since) = trouble.since.filter(|_| !others_write(state, &writer)) else { return };
    let seconds = probe.received.since(since).as_secs_f64();
    // The first write came after the last answer without, or after the last proof that there can be none.
    let unwritable_at = state.members.get(name).and_then(|member| member.unwritable_at);
    let after = unwritable_at.map_or(previous.sent, |at| at.max(previous.sent));
    let error = trouble.seen_at.since(since) + probe.received.since(after);
    let text = format!("{name} is written to again: about {seconds:.1} s without new WAL");
    let draft = Draft::info("writes_resumed", probe.received).by("sql").member(name).text(text);
    let draft = draft.field("write_outage_seconds", format!("{seconds:.3}"));
    out.push(draft.field("write_outage_error_seconds", format!("{:.3}", error.as_secs_f64())).field("since", since));
}

/// Another member said that it takes writes when it was last asked, and answers.
fn others_write(state: &ClusterState, writer: &str) -> bool {
    state.members.iter().any(|(name, member)| {
        let was_writable = state.memory.member_facts.get(name).is_some_and(|facts| facts.was_writable);
        name != writer && was_writable && member.sql.failing.is_none()
    })
}

/// A term that began and is not measured yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Term {
    old_leader: Option<String>,
    new_leader: String,
    began_at: Timestamp,
    old_timeline: Option<u32>,
    /// Highest position that the DCS ever published for the old leader.
    published_lsn: Option<Lsn>,
    switchover: Option<bool>,
    planned: bool,
    reason: LossReason,
    /// The new leader was a synchronous standby: acknowledged commits are not lost.
    was_synchronous: Option<bool>,
}

/// Somebody took the key.
pub(super) fn began(state: &mut ClusterState, old: Option<&str>, new: &str, (at, planned): (Timestamp, bool)) {
    let mode = state.dcs.sync_mode();
    let was_synchronous = mode.map(|mode| mode == "on" && state.synchronous_before.iter().any(|name| name == new));
    state.memory.term = Some(Term {
        old_leader: old.map(str::to_owned),
        new_leader: new.to_owned(),
        began_at: at,
        old_timeline: state.memory.timeline,
        published_lsn: state.dcs.optime(),
        switchover: state.memory.switchover,
        planned,
        reason: state.memory.lost_reason,
        was_synchronous,
    });
}

pub(super) fn tick(state: &mut ClusterState, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    let Some(term) = &state.memory.term else { return };
    let split = state.memory.split_brain.as_ref().is_some_and(|split| split.state == SplitBrainState::Confirmed);
    let patience = if split { PATIENCE_SPLIT_BRAIN } else { PATIENCE };
    let expired = now.since(term.began_at) > patience;
    let new_timeline = new_timeline(state, term, now, options);
    let switch_lsn = term.old_timeline.and_then(|old| state.dcs.switch_lsn(old));
    let forked = new_timeline.zip(term.old_timeline).is_some_and(|(new, old)| new > old);
    let known = new_timeline.is_some() && (switch_lsn.is_some() || !forked) && !split;
    if !known && !expired {
        return;
    }
    let Some(term) = state.memory.term.take() else { return };
    let switch_lsn = switch_lsn.filter(|_| forked);
    out.push(measured(state, &term, (new_timeline, switch_lsn), now));
}

/// The timeline that the new leader writes, by an answer from after it took the key.
fn new_timeline(state: &ClusterState, term: &Term, now: Timestamp, options: &JudgeOptions) -> Option<u32> {
    let member = state.members.get(&term.new_leader)?;
    let (probe, _) = member.sql.answer.as_ref().filter(|(probe, _)| probe.sent >= term.began_at)?;
    let sql = member.current_sql(now.max(probe.received), options)?;
    sql.timeline.filter(|timeline| !sql.in_recovery && *timeline > 0)
}

/// The old leader's WAL beyond the end of its timeline: the part that is known, which is all of it only when its last
/// position was read after its last write.
fn lost(state: &ClusterState, term: &Term, switch_lsn: Lsn) -> Option<(Lsn, u64)> {
    let seen = term.old_leader.as_ref().and_then(|old| state.memory.member_facts.get(old)?.last_lsn);
    let last = seen.max(term.published_lsn)?;
    let bytes = u64::try_from(last.bytes_since(switch_lsn)).unwrap_or(0);
    // Behind the switch it may have written on unseen, unless it was shut down for its successor.
    (bytes > 0 || term.planned).then_some((last, bytes))
}

fn measured(
    state: &ClusterState,
    term: &Term,
    (timeline, switch): (Option<u32>, Option<Lsn>),
    now: Timestamp,
) -> Draft {
    let pair = LeaderPair {
        old_leader: term.old_leader.as_deref(),
        new_leader: Some(&term.new_leader),
        old_timeline: term.old_timeline,
        new_timeline: timeline,
        switchover: term.switchover,
        key_was_lost: true,
    };
    let class = pair.class();
    let same = term.old_leader.as_ref() == Some(&term.new_leader);
    let lost = switch.and_then(|switch| lost(state, term, switch)).filter(|_| !same);
    let words = match (lost, switch) {
        (Some((end, bytes)), Some(switch)) if bytes > 0 => {
            format!("at least {bytes} bytes of WAL from {switch} to {end} are not on its timeline")
        }
        (Some(_), _) => "no WAL is lost".to_owned(),
        (None, _) if same => "its WAL is its own".to_owned(),
        (None, _) => "whether WAL is lost is not known".to_owned(),
    };
    let on = timeline.map_or_else(|| "has not been seen writing".to_owned(), |tl| format!("writes timeline {tl}"));
    let severity = if term.planned { EventSeverity::Info } else { EventSeverity::Notice };
    let lost_bytes = if same && timeline.is_some() { Some(0) } else { lost.map(|(_, bytes)| bytes) };
    let draft = Draft::new("leader_change_measured", severity, now)
        .member(&term.new_leader)
        .text(format!("{} {on}; {words}", term.new_leader))
        .field("new_leader", &term.new_leader)
        .field("reason", term.reason.as_str())
        .field("planned", term.planned)
        .field("lost_wal_bytes", lost_bytes.map_or_else(|| "unknown".to_owned(), |bytes| bytes.to_string()))
        .field_if("cause_class", class.map(CauseClass::as_str))
        .field_if("old_leader", term.old_leader.as_ref())
        .field_if("old_timeline", term.old_timeline)
        .field_if("new_timeline", timeline)
        .field_if("switch_lsn", switch)
        .field_if("old_leader_last_lsn", lost.map(|(end, _)| end))
        .field_if("new_leader_was_synchronous", term.was_synchronous);
    draft.keyed(&term.new_leader, term.began_at)
}
