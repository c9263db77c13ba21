//! Members: lost and returned, their Patroni or PostgreSQL down or hung, restarted, failsafe, pending restarts, the lease.

use std::time::Duration;

use crate::cluster::draft::Draft;
use crate::cluster::interruption;
use crate::cluster::member::{MemberState, SourceState, kind_word};
use crate::cluster::options::JudgeOptions;
use crate::cluster::reach;
use crate::cluster::state::{ClusterState, Drafts};
use crate::model::cluster::LostReason;
use crate::model::observation::{Failure, FailureKind, LeaseStatus, MemberAddress};
use crate::model::{EventSeverity, Timestamp};

/// A silent member is told this much later when agents work: their next report says more.
const AGENTS_WITHIN: Duration = Duration::from_secs(7);
/// Seconds that a lease may fall below what one missed renewal explains, before that is news.
const LEASE_SLACK_SECONDS: i64 = 4;

/// Takes in the members that are expected. Those that are gone from the list stay, as not present, until they have been
/// left out for long.
pub(super) fn expected(state: &mut ClusterState, list: &[MemberAddress], at: Timestamp, options: &JudgeOptions) {
    for member in state.members.values_mut() {
        member.address.present = false;
        member.unlisted_since.get_or_insert(at);
    }
    for address in list.iter().filter(|address| !address.member.is_empty()) {
        if state.members.len() < options.members_max || state.members.contains_key(&address.member) {
            let member = state.members.entry(address.member.clone()).or_default();
            member.address = address.clone();
            member.unlisted_since = None;
        }
    }
    state.memory.members = state.members.values().map(|member| member.address.clone()).collect();
}

/// Forgets members that nobody has named for long, with what they explain.
fn forget(state: &mut ClusterState, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    let gone =
        |member: &MemberState| member.unlisted_since.is_some_and(|since| now.since(since) >= options.forget_after);
    let names: Vec<_> = state.members.iter().filter(|(_, member)| gone(member)).map(|(name, _)| name.clone()).collect();
    for name in names {
        state.members.remove(&name);
        state.memory.member_facts.remove(&name);
        state.memory.members.retain(|address| address.member != name);
        state.overlap.forget(&name);
        if state.memory.split_brain.as_ref().is_some_and(|split| split.members.contains(&name)) {
            state.memory.split_brain = None;
            let text = format!("{name} is no longer watched: whether it took writes was never seen");
            out.push(Draft::notice("split_brain_ended", now).text(text).field("confirmed", false));
        }
    }
}

/// A new start time of the postmaster. `started` is on the member's own clock and only compared with itself.
pub(super) fn postmaster(
    state: &mut ClusterState,
    name: &str,
    (source, started): (&'static str, Timestamp),
    at: Timestamp,
    out: &mut Drafts,
) {
    let before = state.member_memory(name).postmaster_start.replace(started);
    let Some(before) = before.filter(|before| *before != started) else { return };
    if started < before {
        // An answer from before the restart that was overtaken.
        state.member_memory(name).postmaster_start = Some(before);
        return;
    }
    let text = format!("PostgreSQL of {name} was restarted");
    let draft = Draft::info("postgres_restarted", at).by(source).member(name).text(text);
    let skew = state.members.get(name).and_then(|member| member.skew.estimate(at));
    let draft = draft.field_if("started_at", skew.map(|skew| started.shifted(-skew.seconds)));
    let draft = draft.field_if("started_at_error_seconds", skew.map(|skew| format!("{:.3}", skew.error_seconds)));
    out.push(draft.field("postmaster_start_time", started).field("before", before));
}

/// So many attempts at a new session in a row must fail: one may fall into a busy moment.
const NEW_SESSIONS_FAILED_MIN: u32 = 2;

/// Whether a new session was taken while one goes on. Refusals are told by what they say elsewhere; this is about silence.
pub(super) fn new_session(
    state: &mut ClusterState,
    name: &str,
    failure: Option<&Failure>,
    at: Timestamp,
    out: &mut Drafts,
) {
    let silent = failure.filter(|failure| failure.kind == FailureKind::Timeout);
    let leads = state.memory.leader.as_deref() == Some(name);
    let Some(member) = state.members.get_mut(name) else { return };
    member.new_sessions_failed = silent.map_or(0, |_| member.new_sessions_failed.saturating_add(1));
    let failed = member.new_sessions_failed;
    let hung = &mut state.member_memory(name).postgres_hung;
    if failed >= NEW_SESSIONS_FAILED_MIN && !std::mem::replace(hung, true) {
        let severity = if leads { EventSeverity::Critical } else { EventSeverity::Warning };
        let text = format!("PostgreSQL of {name} takes no new sessions; those that are open go on");
        let draft = Draft::new("postgres_hung", severity, at).by("sql").member(name).text(text);
        out.push(draft.field("leader", leads).field_if("error", failure.map(|failure| &failure.error)));
    } else if failed == 0 && std::mem::take(hung) {
        let text = format!("PostgreSQL of {name} takes new sessions again");
        out.push(Draft::info("postgres_hung_ended", at).by("sql").member(name).text(text));
    }
}

pub(super) fn pending_restart(state: &mut ClusterState, name: &str, pending: bool, at: Timestamp, out: &mut Drafts) {
    let before = state.member_memory(name).pending_restart.replace(pending);
    if before == Some(false) && pending {
        let text = format!("{name} must be restarted for a changed setting to take effect");
        out.push(Draft::info("pending_restart", at).by("rest").member(name).text(text));
    }
}

/// Failsafe mode is active when the primary's Patroni says so, or any one's without a primary.
pub(super) fn failsafe(state: &mut ClusterState, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    let word = |member: &MemberState| member.current_rest(now, options).map(|rest| rest.failsafe_mode_is_active);
    let writable = state.writable_members(now, options);
    // Replicas go on saying so for a ttl after it is over: the primary's word wins.
    let primary = writable.iter().filter_map(|name| state.members.get(name)).find_map(word);
    let Some(active) = primary.or_else(|| state.members.values().filter_map(word).reduce(|a, b| a || b)) else {
        return;
    };
    match (state.memory.failsafe, active) {
        (Some(false), true) => out.push(
            Draft::warning("failsafe_entered", now)
                .by("rest")
                .text("the DCS cannot be reached; Patroni keeps the leader because all members agree (failsafe mode)"),
        ),
        (Some(true), false) => {
            out.push(Draft::info("failsafe_left", now).by("rest").text("failsafe mode is over: the DCS is back"));
        }
        _ => {}
    }
    state.memory.failsafe = Some(active);
}

fn member_lost(state: &ClusterState, name: &str, (since, sources): (Timestamp, &str), now: Timestamp) -> Draft {
    let reason = reach::lost_reason(state, name, since, now);
    let why = match reason {
        LostReason::NotAnswering => "; it takes connections and does not answer",
        LostReason::MonitorCutOff => "; other members reach it, so it is our own view that is cut off",
        LostReason::Down => "; its host answers that nothing listens",
        LostReason::UnreachableFromAll => "; no other member reaches it either",
        LostReason::Unknown => "",
    };
    let draft = Draft::warning("member_lost", now).member(name).text(format!("{name} is lost: {sources}{why}"));
    let draft = draft.field("reason", reason.as_str()).field("sources", sources).field("since", since);
    draft.field_if("postgres_port", reach::port_words(state, name, since, now))
}

/// Which of the two sources of a member turned bad or good, for those that other sources still hear. One that never
/// answered is down when its host says that nobody serves the port; else what keeps us from it is not known.
fn turned<T>(source: &SourceState<T>, down: bool, now: Timestamp, options: &JudgeOptions) -> Option<(bool, String)> {
    match (&source.failing, down) {
        (Some((since, failure)), false) if now.since(*since) >= options.source_down_after => {
            let told = source.answer.is_some() || matches!(failure.kind, FailureKind::Refused | FailureKind::Rejecting);
            told.then(|| (true, kind_word(failure.kind).to_owned()))
        }
        (None, true) if source.answer.is_some() => Some((false, String::new())),
        _ => None,
    }
}

pub(super) fn tick(state: &mut ClusterState, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    let switching = state.switching(now);
    let names: Vec<_> = state.members.keys().cloned().collect();
    for name in &names {
        let facts = state.memory.member_facts.get(name).cloned().unwrap_or_default();
        let Some(member) = state.members.get(name) else { continue };
        let silence = member.silence(now, options.member_lost_after);
        let rest = turned(&member.rest, facts.rest_down, now, options);
        let sql = turned(&member.sql, facts.postgres_down, now, options);
        let answers = member.rest.failing.is_none() && member.rest.answer.is_some()
            || member.sql.failing.is_none() && member.sql.answer.is_some();
        let silence = silence.filter(|(since, _)| {
            let patient = now.since(*since) < options.member_lost_after + AGENTS_WITHIN;
            !(facts.lost || patient && reach::is_awaited(state, *since, now))
        });
        interruption::tick(state, name, now, options, out);
        if let Some((since, sources)) = silence {
            out.push(member_lost(state, name, (since, &sources), now));
            state.member_memory(name).lost = true;
        }
        let memory = state.member_memory(name);
        if facts.lost && answers {
            memory.lost = false;
            out.push(Draft::notice("member_returned", now).member(name).text(format!("{name} answers again")));
        }
        if memory.lost {
            continue;
        }
        if let Some((down, reason)) = rest {
            memory.rest_down = down;
            out.push(source_event(("rest_down", "rest_up"), ("Patroni", name), down, &reason, now));
        }
        if let Some((down, reason)) = sql.filter(|(down, _)| !(*down && switching)) {
            memory.postgres_down = down;
            out.push(source_event(("postgres_down", "postgres_up"), ("PostgreSQL", name), down, &reason, now));
        }
    }
    forget(state, now, options, out);
    failsafe(state, now, options, out);
    mismatch(state, now, options, out);
}

fn source_event(
    (down_name, up_name): (&'static str, &'static str),
    (what, member): (&str, &str),
    down: bool,
    reason: &str,
    now: Timestamp,
) -> Draft {
    let source = if what == "Patroni" { "rest" } else { "sql" };
    let draft = if down {
        let text = format!("{what} of {member} does not answer: {reason}");
        Draft::warning(down_name, now).text(text).field("reason", reason)
    } else {
        Draft::info(up_name, now).text(format!("{what} of {member} answers again"))
    };
    draft.by(source).member(member)
}

/// The lock's owner must write and nobody else may, but for the time that Patroni needs to make it so.
fn mismatch(state: &mut ClusterState, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    let found = match state.leader(now, options) {
        Some(leader) if state.is_standby_cluster() => {
            let writable = state.writable_members(now, options).into_iter().next();
            let remote = state.dcs.standby_of().filter(|_| writable.is_some());
            writable.zip(remote).map(|(name, remote)| {
                format!("{name} takes writes although this cluster follows {remote} and {leader} is its standby leader")
            })
        }
        Some(leader) => {
            let stranger = state.writable_members(now, options).into_iter().find(|name| name != leader);
            match stranger {
                Some(other) => Some(format!("{other} takes writes without the leader key, which {leader} holds")),
                None if state.writable(leader, now, options) == Some(false) => {
                    Some(format!("{leader} holds the leader key and takes no writes"))
                }
                None => None,
            }
        }
        _ => None,
    };
    let Some(text) = found else {
        state.mismatch_since = None;
        state.memory.mismatch = None;
        return;
    };
    let since = match &state.mismatch_since {
        Some((since, before)) if *before == text => *since,
        _ => now,
    };
    state.mismatch_since = Some((since, text.clone()));
    let hold = options.transient_max.max(state.loop_wait() + Duration::from_secs(5));
    if now.since(since) >= hold && state.memory.mismatch.as_ref() != Some(&text) {
        out.push(
            Draft::warning("lock_role_mismatch", now)
                .text(text.clone())
                .field_if("leader", state.memory.leader.as_ref()),
        );
        state.memory.mismatch = Some(text);
    }
}

/// The lease below what renewals allow: the leader will lose the key soon.
pub(super) fn lease(state: &mut ClusterState, lease: LeaseStatus, at: Timestamp, out: &mut Drafts) {
    let loop_wait = i64::try_from(state.loop_wait().as_secs()).unwrap_or(10);
    let floor = lease.granted_ttl_seconds - loop_wait - LEASE_SLACK_SECONDS;
    let low = lease.granted_ttl_seconds > 0 && (0..floor).contains(&lease.ttl_seconds);
    let before = std::mem::replace(&mut state.memory.lease_low, low);
    let Some(leader) = state.memory.leader.clone().filter(|_| low != before && lease.ttl_seconds >= 0) else { return };
    let seconds = lease.ttl_seconds;
    out.push(if low {
        Draft::warning("lease_not_renewed", at)
            .text(format!("{leader} has stopped renewing the leader key: it expires in {seconds} s"))
            .by("dcs")
            .member(&leader)
            .field("ttl_seconds", seconds)
    } else {
        Draft::info("lease_renewed", at).text(format!("{leader} renews the leader key again")).by("dcs").member(&leader)
    });
}
