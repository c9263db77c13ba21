//! Replication lag: bytes from the leader's position, seconds from our own history of that position.
//!
//! Invariant: unknown when the link or the leader's position is unknown; never 0 by default. An idle leader gives 0 s
//! because its position has not moved, whatever the commit times say.

use std::collections::VecDeque;

use crate::cluster::draft::Draft;
use crate::cluster::member::{MemberState, Probe};
use crate::cluster::options::JudgeOptions;
use crate::cluster::state::{ClusterState, Drafts};
use crate::model::{Lsn, Timestamp};

const HISTORY_MAX: usize = 2_048;

/// When the leader's WAL first was at a position, as far as our probes saw.
#[derive(Clone, Debug, Default)]
pub(super) struct LeaderHistory {
    owner: Option<String>,
    /// When the owner's postmaster started, as far as known.
    started: Option<Timestamp>,
    /// Positions rise, times too.
    points: VecDeque<(Timestamp, Lsn)>,
}

impl LeaderHistory {
    pub(super) fn add(&mut self, owner: &str, started: Option<Timestamp>, probe: Probe, lsn: Lsn) {
        // A position that fell with a restart is of another history: the cluster was made anew under the same names.
        let fell = self.points.back().is_some_and(|(_, last)| *last > lsn) && started != self.started;
        if self.owner.as_deref() != Some(owner) || fell {
            self.owner = Some(owner.to_owned());
            self.points.clear();
        }
        self.started = started;
        match self.points.back() {
            Some((at, last)) if *last >= lsn || *at >= probe.received => return,
            _ => self.points.push_back((probe.received, lsn)),
        }
        if self.points.len() > HISTORY_MAX {
            // The older half keeps every second point: precision falls with age.
            let half = HISTORY_MAX / 2;
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index > half || index % 2 == 0
            });
        }
    }

    /// The position at a time, as far as was seen.
    fn position_at(&self, at: Timestamp) -> Option<Lsn> {
        let index = self.points.partition_point(|(seen, _)| *seen <= at);
        self.points.get(index.checked_sub(1)?).map(|(_, lsn)| *lsn)
    }

    /// For how long a position has been overtaken at `at`; `Err` holds a lower bound when history does not reach back.
    fn behind(&self, lsn: Lsn, at: Timestamp) -> Result<f64, f64> {
        let index = self.points.partition_point(|(_, point)| *point <= lsn);
        let Some((overtaken_at, _)) = self.points.get(index) else { return Ok(0.0) };
        let seconds = at.since(*overtaken_at).as_secs_f64();
        if index == 0 { Err(seconds) } else { Ok(seconds) }
    }
}

/// Lag of one replica; each part is `None` when unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Lag {
    pub(super) bytes: Option<u64>,
    pub(super) seconds: Option<f64>,
    pub(super) receive_bytes: Option<u64>,
    /// Proof that its position is ahead of the leader's later one, in bytes: its history differs.
    pub(super) ahead_bytes: Option<u64>,
}

impl Lag {
    /// What counts of it for a replica that replays late on purpose: what it has not received, and the time beyond the
    /// delay.
    fn without_delay(self, delay: Option<f64>) -> Self {
        match delay.filter(|delay| *delay > 0.0) {
            Some(delay) => Self {
                bytes: self.receive_bytes,
                seconds: self.seconds.map(|seconds| (seconds - delay).max(0.0)),
                ..self
            },
            None => self,
        }
    }
}

/// What a replica says of its positions and its link.
struct Positions {
    probe: Probe,
    receive: Option<Lsn>,
    replay: Option<Lsn>,
    linked: bool,
    /// How old the last replayed commit was by the replica's own clock.
    commit_age_seconds: Option<f64>,
}

fn positions(member: &MemberState, now: Timestamp, options: &JudgeOptions) -> Option<Positions> {
    if let (Some(sql), Some((probe, _))) = (member.current_sql(now, options), member.sql.answer.as_ref()) {
        if !sql.in_recovery {
            return None;
        }
        // Without the right to see it the row's columns are empty.
        let linked =
            sql.receiver.as_ref().is_some_and(|receiver| receiver.status.is_empty() || receiver.status == "streaming");
        let age = sql.server_now.zip(sql.last_replay_at).map(|(now, replayed)| now.since(replayed).as_secs_f64());
        return Some(Positions {
            probe: *probe,
            receive: sql.receive_lsn,
            replay: sql.replay_lsn,
            linked,
            commit_age_seconds: age,
        });
    }
    let rest = member.current_rest(now, options)?;
    let (probe, _) = member.rest.answer.as_ref()?;
    rest.replayed_location?;
    Some(Positions {
        probe: *probe,
        receive: rest.received_location,
        replay: rest.replayed_location,
        linked: rest.replication_state.as_deref() == Some("streaming"),
        commit_age_seconds: None,
    })
}

/// The member whose position counts: the lock's owner, or else the only writable one.
pub(super) fn source_of_truth(state: &ClusterState, now: Timestamp, options: &JudgeOptions) -> Option<String> {
    if state.is_standby_cluster() {
        return state.leader(now, options).map(str::to_owned);
    }
    let writable = state.writable_members(now, options);
    match state.leader(now, options) {
        Some(leader) => writable.iter().find(|name| *name == leader).cloned(),
        None if writable.len() == 1 => writable.into_iter().next(),
        None => None,
    }
}

pub(super) fn lag_of(state: &ClusterState, name: &str, now: Timestamp, options: &JudgeOptions) -> Lag {
    let leader = source_of_truth(state, now, options);
    let Some(leader) = leader.filter(|leader| leader != name) else { return Lag::default() };
    let member = state.members.get(name);
    let Some(positions) = member.and_then(|member| positions(member, now, options)) else { return Lag::default() };
    let at_leader = state.members.get(&leader).and_then(|leader| leader.source_lsn(now, options));
    let Some((leader_probe, leader_lsn)) = at_leader else { return Lag::default() };
    // Its highest position against a leader that was asked later: a replica can only be ahead of that if it has WAL
    // that the leader never wrote.
    let highest = positions.receive.max(positions.replay);
    let asked_later = leader_probe.sent >= positions.probe.received;
    let ahead = highest.and_then(|lsn| u64::try_from(lsn.bytes_since(leader_lsn)).ok()).filter(|bytes| *bytes > 0);
    if let Some(bytes) = ahead.filter(|_| asked_later) {
        return Lag { ahead_bytes: Some(bytes), ..Lag::default() };
    }
    if !positions.linked {
        return Lag::default();
    }
    // Both positions of one instant: what the leader wrote since the replica was asked is no lag.
    let then = state.history.position_at(positions.probe.received).unwrap_or(leader_lsn);
    let distance = |lsn: Lsn| u64::try_from(then.bytes_since(lsn)).unwrap_or(0);
    let bytes = positions.replay.map(distance);
    let seconds = positions.replay.map(|replay| match state.history.behind(replay, positions.probe.received) {
        Ok(seconds) => seconds,
        Err(at_least) => positions.commit_age_seconds.unwrap_or(at_least).max(at_least),
    });
    Lag { bytes, seconds, receive_bytes: positions.receive.map(distance), ahead_bytes: None }
}

/// Bytes behind the member that it streams from; for one that streams from the leader the same as its lag.
pub(super) fn upstream_lag_bytes(
    state: &ClusterState,
    (name, upstream): (&str, &str),
    now: Timestamp,
    options: &JudgeOptions,
) -> Option<u64> {
    if source_of_truth(state, now, options).as_deref() == Some(upstream) {
        return lag_of(state, name, now, options).bytes;
    }
    let own = positions(state.members.get(name)?, now, options).filter(|own| own.linked)?;
    // A replica passes on what it has received, before it replays it.
    let upstream = positions(state.members.get(upstream)?, now, options)?;
    let available = upstream.receive.max(upstream.replay)?;
    Some(u64::try_from(available.bytes_since(own.replay?)).unwrap_or(0))
}

/// Tells when a replica's lag turns high or normal, after it stayed so for a while.
pub(super) fn tick(state: &mut ClusterState, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    let names: Vec<_> = state.members.keys().cloned().collect();
    for name in names {
        let lag = lag_of(state, &name, now, options);
        if state.memory.leader.as_ref() == Some(&name) {
            continue;
        }
        let high_before = state.member_memory(&name).lag_high;
        let judged = lag.without_delay(state.apply_delay(&name));
        let turned = match (judged.bytes, judged.seconds) {
            (Some(bytes), Some(seconds)) if high_before => {
                bytes <= options.lag_normal_bytes && seconds <= options.lag_normal_seconds
            }
            (Some(bytes), Some(seconds)) => bytes >= options.lag_high_bytes || seconds >= options.lag_high_seconds,
            _ => false,
        };
        let Some(member) = state.members.get_mut(&name) else { continue };
        if !turned {
            member.lag_turn_since = None;
            continue;
        }
        let since = *member.lag_turn_since.get_or_insert(now);
        if now.since(since) < options.lag_hold {
            continue;
        }
        member.lag_turn_since = None;
        state.member_memory(&name).lag_high = !high_before;
        let (bytes, seconds) = (lag.bytes.unwrap_or(0), lag.seconds.unwrap_or(0.0));
        let draft = if high_before {
            Draft::info("lag_normal", now).text(format!("{name} has caught up"))
        } else {
            let waiting = lag.receive_bytes.is_some_and(|receive| receive * 2 < bytes);
            let place = if waiting { "replay is behind, not the network" } else { "receiving is behind" };
            Draft::warning("lag_high", now).text(format!("{name} lags {seconds:.0} s and {bytes} bytes: {place}"))
        };
        let draft = draft.member(&name).field("lag_bytes", bytes).field("lag_seconds", format!("{seconds:.1}"));
        out.push(draft.field_if("receive_lag_bytes", lag.receive_bytes));
    }
}
