//! What operators asked for through the `failover` key.
//!
//! The key is emptied, never deleted, once Patroni took it up or gave up on it; what it held is kept here, also over
//! restarts, because it alone tells a switchover from a failover.

use std::time::Duration;

use crate::cluster::dcs::parse_failover;
use crate::cluster::draft::Draft;
use crate::cluster::memory::ClusterMemory;
use crate::cluster::state::{ClusterState, Drafts};
use crate::model::Timestamp;
use crate::model::leadership::{FailoverRequest, RequestKind, RequestOutcome};

/// Requests that are kept for each cluster.
const HISTORY_MAX: usize = 16;
/// Clocks of hosts may differ by this much at the scheduled time.
const SCHEDULE_SLACK: Duration = Duration::from_secs(5);

/// The request names this owner, or none, and its time has come.
pub(super) fn asks_for(request: &FailoverRequest, old: Option<&str>, at: Timestamp) -> bool {
    let due = request.scheduled_at.is_none_or(|due| at + SCHEDULE_SLACK >= due);
    due && (request.leader.is_none() || request.leader.as_deref() == old)
}

/// A request that was seen only by its traces in the keys.
pub(super) fn by_its_traces(
    memory: &mut ClusterMemory,
    (leader, candidate): (Option<String>, Option<String>),
    at: Timestamp,
) {
    let request = FailoverRequest { leader, candidate, set_at: at, ..FailoverRequest::default() };
    begin(memory, request, at);
}

fn begin(memory: &mut ClusterMemory, request: FailoverRequest, at: Timestamp) {
    end(memory, RequestOutcome::Replaced, at);
    memory.request = Some(request.clone());
    memory.requests.push(request);
    let excess = memory.requests.len().saturating_sub(HISTORY_MAX);
    memory.requests.drain(..excess);
}

/// Says what became of the request that is not settled yet.
pub(super) fn end(memory: &mut ClusterMemory, outcome: RequestOutcome, at: Timestamp) {
    if let Some(last) = memory.requests.last_mut().filter(|last| last.outcome == RequestOutcome::Pending) {
        last.outcome = outcome;
        last.ended_at = Some(at);
    }
}

/// Fields of events about the request, or of what it led to.
pub(super) fn fields(draft: Draft, request: Option<&FailoverRequest>) -> Draft {
    let Some(request) = request else { return draft };
    draft
        .field("request", request.kind.as_str())
        .field("scheduled", request.scheduled_at.is_some())
        .field_if("candidate", request.candidate.as_ref())
        .field_if("scheduled_at", request.scheduled_at)
}

/// The `failover` key as it is now. Emptied while the leader it names still leads, the request has failed.
pub(super) fn failover_key(state: &mut ClusterState, at: Timestamp, watched: bool, out: &mut Drafts) {
    let Some(key) = state.dcs.keys.get("failover").cloned() else {
        state.memory.request = None;
        return;
    };
    let Some((leader, candidate, scheduled_at)) = parse_failover(&key.value) else {
        emptied(state, key.mod_revision, at, out);
        return;
    };
    if state.memory.request.as_ref().is_some_and(|before| before.revision == key.mod_revision) {
        return;
    }
    let kind = if leader.is_some() { RequestKind::Switchover } else { RequestKind::ManualFailover };
    let request = FailoverRequest {
        kind,
        leader,
        candidate,
        scheduled_at,
        set_at: at,
        revision: key.mod_revision,
        ..FailoverRequest::default()
    };
    if watched {
        let to = request.candidate.as_deref().unwrap_or("the best candidate");
        let when = scheduled_at.map_or_else(String::new, |at| format!(" at {}", at.to_rfc3339_millis()));
        let text = match &request.leader {
            Some(from) => format!("switchover from {from} to {to} requested{when}"),
            None => format!("manual failover to {to} requested{when}"),
        };
        let draft = Draft::info("switchover_requested", at).by("dcs").text(text);
        let draft = fields(draft, Some(&request)).field_if("leader", request.leader.as_ref());
        out.push(draft.revision(key.mod_revision));
    }
    begin(&mut state.memory, request, at);
}

fn emptied(state: &mut ClusterState, revision: i64, at: Timestamp, out: &mut Drafts) {
    let Some(request) = state.memory.request.take() else { return };
    let still_leads = state.memory.leader.is_some() && state.memory.leader == state.memory.last_leader;
    let moved = state.memory.leader_since.is_some_and(|since| since >= request.set_at);
    if !still_leads || moved {
        return;
    }
    let withdrawn = request.scheduled_at.is_some_and(|due| at < due);
    let (outcome, text) = if withdrawn {
        (RequestOutcome::Withdrawn, "the scheduled switchover was withdrawn")
    } else {
        (RequestOutcome::Failed, "the requested switchover did not happen")
    };
    end(&mut state.memory, outcome, at);
    let draft = Draft::warning("switchover_failed", at).by("dcs").text(text);
    out.push(fields(draft, Some(&request)).revision(revision));
}
