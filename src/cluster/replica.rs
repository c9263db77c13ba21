//! Replicas that run and do not replicate.
//!
//! The signs: no stream for a minute although the leader writes and is reachable, an old timeline, or WAL that the
//! leader never wrote. Such a replica may look fine in `/cluster`, with lag 0, and win the next election.

use crate::cluster::draft::Draft;
use crate::cluster::lag::{lag_of, source_of_truth};
use crate::cluster::member::MemberState;
use crate::cluster::options::JudgeOptions;
use crate::cluster::state::{ClusterState, Drafts};
use crate::model::{Lsn, Timestamp};

/// Any of the sources sees a stream of this member.
fn streams(state: &ClusterState, (leader, name): (&str, &str), now: Timestamp, options: &JudgeOptions) -> Option<bool> {
    let member = state.members.get(name)?;
    let sql = member.current_sql(now, options);
    let rest = member.current_rest(now, options);
    // Only a member that itself says that it runs as a replica is judged.
    let runs = sql.is_some_and(|sql| sql.in_recovery)
        || rest.is_some_and(|rest| rest.state == "running" && rest.replayed_location.is_some());
    if !runs {
        return None;
    }
    let receiver = sql.and_then(|sql| sql.receiver.as_ref());
    let by_receiver = receiver.is_some_and(|receiver| receiver.status == "streaming" || receiver.status.is_empty());
    // Patroni's word lags behind by a loop; PostgreSQL's own word wins where there is one.
    let by_rest = sql.is_none() && rest.is_some_and(|rest| rest.replication_state.as_deref() == Some("streaming"));
    let senders = state.members.get(leader).and_then(|leader| leader.current_sql(now, options)).map(|sql| &sql.senders);
    let by_sender = senders.is_some_and(|senders| {
        senders.iter().any(|sender| sender.application_name == name && sender.state == "streaming")
    });
    Some(by_receiver || by_rest || by_sender && receiver.is_some())
}

/// Restoring from an archive, being rebuilt, or meant not to stream.
fn excused(member: &MemberState, now: Timestamp, options: &JudgeOptions) -> bool {
    let rest = member.current_rest(now, options);
    let archive = rest.is_some_and(|rest| rest.replication_state.as_deref() == Some("in archive recovery"));
    let busy = rest.is_some_and(|rest| rest.state != "running");
    let tag = rest.and_then(|rest| rest.tags.get("nostream")).is_some_and(|value| value == "true");
    archive || busy || tag
}

/// The sign that is present now, in words.
fn sign(state: &ClusterState, (leader, name): (&str, &str), now: Timestamp, options: &JudgeOptions) -> Option<String> {
    let member = state.members.get(name)?;
    if excused(member, now, options) {
        return None;
    }
    let streaming = streams(state, (leader, name), now, options)?;
    let lag = lag_of(state, name, now, options);
    if let Some(bytes) = lag.ahead_bytes {
        return Some(format!("is {bytes} bytes ahead of the leader: it has WAL that the leader never wrote"));
    }
    if streaming {
        return None;
    }
    let theirs = member.timeline(now, options);
    let ours = state.members.get(leader).and_then(|leader| leader.timeline(now, options));
    match (theirs, ours) {
        (Some(theirs), Some(ours)) if theirs < ours => {
            Some(format!("runs and does not stream: it is on timeline {theirs}, the leader on {ours}"))
        }
        _ => Some("runs and does not stream from anybody".to_owned()),
    }
}

fn replay_lsn(member: &MemberState) -> Option<Lsn> {
    member.sql.answer.as_ref().and_then(|(_, sql)| sql.replay_lsn)
}

pub(super) fn tick(state: &mut ClusterState, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    let Some(leader) = source_of_truth(state, now, options) else { return };
    let names: Vec<_> = state.members.keys().filter(|name| **name != leader).cloned().collect();
    for name in names {
        let sign = sign(state, (&leader, &name), now, options);
        let streaming = streams(state, (&leader, &name), now, options);
        let Some(member) = state.members.get_mut(&name) else { continue };
        let Some(sign) = sign else {
            member.unstreamed_since = None;
            if streaming == Some(true) && state.member_memory(&name).broken.take().is_some() {
                let text = format!("{name} streams again");
                out.push(Draft::info("replica_recovered", now).member(&name).text(text));
            }
            continue;
        };
        let since = member.unstreamed_since.as_ref().map_or(now, |(since, _)| *since);
        member.unstreamed_since = Some((since, sign.clone()));
        let lsn = replay_lsn(member);
        let memory = state.member_memory(&name);
        if memory.broken.is_some() || now.since(since) < options.replica_broken_after {
            continue;
        }
        memory.broken = Some(sign.clone());
        let text = format!("{name} {sign}; it must be looked at, it may need a reinitialize");
        let draft = Draft::warning("replica_broken", now).member(&name).text(text).field("sign", sign);
        out.push(draft.field("leader", &leader).field("since", since).field_if("replay_lsn", lsn));
    }
}
