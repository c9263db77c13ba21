//! What is known about one member, by source, and whether it takes writes.
//!
//! Invariant: "writable" comes only from the member's own PostgreSQL: by SQL, or by Patroni's answer when that answer
//! can only have come from live SQL. Failures that prove nothing make it unknown, never false.

use std::collections::BTreeMap;

use crate::cluster::interruption::Interruption;
use crate::cluster::options::JudgeOptions;
use crate::cluster::skew::Skew;
use crate::model::observation::{Failure, FailureKind, MemberAddress, Observation, PatroniStatus, PostgresStatus};
use crate::model::{Lsn, Timestamp};

/// When a question was sent and its answer complete, on our clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) sent: Timestamp,
    pub(super) received: Timestamp,
}

impl Probe {
    pub(super) fn of(observation: &Observation) -> Self {
        Self { sent: observation.sent.min(observation.received), received: observation.received }
    }
}

/// What one source last said, and whether it fails now.
#[derive(Clone, Debug)]
pub(super) struct SourceState<T> {
    pub(super) answer: Option<(Probe, T)>,
    pub(super) tried_at: Option<Timestamp>,
    /// The failure that goes on since then.
    pub(super) failing: Option<(Timestamp, Failure)>,
}

impl<T> Default for SourceState<T> {
    fn default() -> Self {
        Self { answer: None, tried_at: None, failing: None }
    }
}

impl<T> SourceState<T> {
    pub(super) fn answered(&mut self, probe: Probe, value: T) {
        self.answer = Some((probe, value));
        self.tried_at = Some(probe.received);
        self.failing = None;
    }

    pub(super) fn failed(&mut self, probe: Probe, failure: &Failure) {
        self.tried_at = Some(probe.received);
        let since = self.failing.as_ref().map_or(probe.sent, |(since, _)| *since);
        self.failing = Some((since, failure.clone()));
    }

    /// Older than what is already known: answers may overtake each other.
    pub(super) fn is_old(&self, probe: Probe) -> bool {
        self.tried_at.is_some_and(|tried_at| probe.received < tried_at)
    }

    /// The answer while it is current: young enough, and nothing failed since.
    pub(super) fn current(&self, now: Timestamp, fresh: std::time::Duration) -> Option<&T> {
        let (probe, value) = self.answer.as_ref()?;
        (self.failing.is_none() && now.since(probe.received) <= fresh).then_some(value)
    }

    /// How it fails, while it has never answered.
    pub(super) fn never_answered(&self) -> Option<&Failure> {
        self.failing.as_ref().filter(|_| self.answer.is_none()).map(|(_, failure)| failure)
    }

    pub(super) fn answered_at(&self) -> Option<Timestamp> {
        self.answer.as_ref().map(|(probe, _)| probe.received)
    }

    /// The failing attempts got an answer from a live process (wrong password, starting up), so the host is not gone.
    pub(super) fn is_silent(&self) -> bool {
        self.failing
            .as_ref()
            .is_some_and(|(_, failure)| !matches!(failure.kind, FailureKind::Denied | FailureKind::Rejecting))
    }
}

/// A definite statement about being writable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) writable: bool,
    pub(super) probe: Probe,
}

/// The members' own key in the DCS.
#[derive(Clone, Debug, Default)]
pub(super) struct MemberKey {
    pub(super) state: String,
    pub(super) role: String,
    pub(super) timeline: Option<u32>,
    pub(super) patroni_version: Option<String>,
    pub(super) pending_restart: bool,
    pub(super) tags: BTreeMap<String, String>,
}

/// Everything the sources say about one member.
#[derive(Clone, Debug, Default)]
pub(super) struct MemberState {
    pub(super) address: MemberAddress,
    pub(super) rest: SourceState<PatroniStatus>,
    pub(super) sql: SourceState<PostgresStatus>,
    pub(super) agent: SourceState<()>,
    /// From the DCS; `None` when the key is gone or never seen.
    pub(super) key: Option<MemberKey>,
    pub(super) key_seen_at: Option<Timestamp>,
    pub(super) sql_verdict: Option<Verdict>,
    pub(super) rest_verdict: Option<Verdict>,
    /// Since when the list of expected members leaves it out.
    pub(super) unlisted_since: Option<Timestamp>,
    /// Since when it runs without a stream.
    pub(super) unstreamed_since: Option<(Timestamp, String)>,
    /// Since when lag is over (or, once high, under) its threshold.
    pub(super) lag_turn_since: Option<Timestamp>,
    pub(super) interrupted: Option<Interruption>,
    /// Attempts at a new session that got no answer, in a row.
    pub(super) new_sessions_failed: u32,
    pub(super) skew: Skew,
    /// When its PostgreSQL last said anything definite, by any source.
    pub(super) stated_at: Option<Timestamp>,
    /// When its PostgreSQL last said that it takes no writes, or proved it by refusing.
    pub(super) unwritable_at: Option<Timestamp>,
}

/// The refusal says nothing about the server as a whole: it is full while its sessions go on writing, or it only ended
/// our own session.
fn is_about_us(failure: &Failure) -> bool {
    ["53300", "too many clients", "too many connections", "connection slots", "57P01", "terminating connection"]
        .iter()
        .any(|sign| failure.error.contains(sign))
}

/// What a failed SQL attempt proves.
fn failure_proves(failure: &Failure) -> Option<bool> {
    match failure.kind {
        // No postmaster on the port, or one that is starting up, shutting down or in recovery.
        FailureKind::Refused => Some(false),
        FailureKind::Rejecting if !is_about_us(failure) => Some(false),
        _ => None,
    }
}

impl MemberState {
    /// Takes in a SQL answer; returns the verdict.
    pub(super) fn sql_answered(&mut self, probe: Probe, status: &PostgresStatus) -> Verdict {
        let verdict = Verdict { writable: !status.in_recovery && !status.read_only, probe };
        if let Some(node_now) = status.server_now {
            self.skew.told(probe, node_now);
        }
        self.sql_verdict = Some(verdict);
        self.sql.answered(probe, status.clone());
        verdict
    }

    pub(super) fn sql_failed(&mut self, probe: Probe, failure: &Failure) -> Option<Verdict> {
        self.sql.failed(probe, failure);
        self.sql_verdict = failure_proves(failure).map(|writable| Verdict { writable, probe });
        self.doubt();
        self.sql_verdict
    }

    /// Takes in an answer of `GET /patroni`; only answers made from live SQL give a verdict.
    pub(super) fn rest_answered(
        &mut self,
        probe: Probe,
        status: &PatroniStatus,
        options: &JudgeOptions,
    ) -> Option<Verdict> {
        let live = probe.received.since(probe.sent) <= options.rest_round_trip_max && status.state == "running";
        let writable = match status {
            _ if !live => None,
            status if status.location.is_some() => Some(true),
            status if status.replayed_location.is_some() => Some(false),
            _ => None,
        };
        self.rest_verdict = writable.map(|writable| Verdict { writable, probe });
        self.rest.answered(probe, status.clone());
        self.doubt();
        self.rest_verdict
    }

    /// Patroni sees a PostgreSQL run after its port began to refuse us: one of the two is not about what clients reach
    /// there, and neither proves anything.
    fn doubt(&mut self) {
        let refused = self.sql.failing.as_ref().filter(|(_, failure)| failure.kind == FailureKind::Refused);
        let from_sql = |rest: &PatroniStatus| rest.location.or(rest.replayed_location).is_some();
        let runs = self.rest.answer.as_ref().filter(|(_, rest)| rest.state == "running" && from_sql(rest));
        let runs = runs.filter(|_| self.rest.failing.is_none());
        if let (Some((since, _)), Some((probe, _))) = (refused, runs)
            && probe.sent >= *since
        {
            self.sql_verdict = None;
            self.rest_verdict = None;
        }
    }

    pub(super) fn rest_failed(&mut self, probe: Probe, failure: &Failure) {
        self.rest.failed(probe, failure);
        self.rest_verdict = None;
    }

    /// The latest definite statement that is still current.
    pub(super) fn verdict(&self, now: Timestamp, options: &JudgeOptions) -> Option<Verdict> {
        [self.sql_verdict, self.rest_verdict]
            .into_iter()
            .flatten()
            .filter(|verdict| now.since(verdict.probe.received) <= options.fresh)
            .max_by_key(|verdict| verdict.probe.received)
    }

    pub(super) fn current_sql(&self, now: Timestamp, options: &JudgeOptions) -> Option<&PostgresStatus> {
        self.sql.current(now, options.fresh)
    }

    pub(super) fn current_rest(&self, now: Timestamp, options: &JudgeOptions) -> Option<&PatroniStatus> {
        self.rest.current(now, options.fresh)
    }

    pub(super) fn seen_at(&self) -> Option<Timestamp> {
        [self.rest.answered_at(), self.sql.answered_at(), self.agent.answered_at()].into_iter().flatten().max()
    }

    /// All sources that were ever asked have been silent for `after`. Says since when, and how each fails.
    pub(super) fn silence(&self, now: Timestamp, after: std::time::Duration) -> Option<(Timestamp, String)> {
        let mut reasons = Vec::new();
        let mut asked = 0;
        let mut begin = Timestamp::MIN;
        let rest = ("rest", self.rest.tried_at, self.rest.is_silent(), self.rest.failing.as_ref());
        let sql = ("sql", self.sql.tried_at, self.sql.is_silent(), self.sql.failing.as_ref());
        for (name, tried_at, silent, failing) in [rest, sql] {
            if tried_at.is_none() {
                continue;
            }
            asked += 1;
            let (since, failure) = failing.filter(|(since, _)| silent && now.since(*since) >= after)?;
            begin = begin.max(*since);
            reasons.push(format!("{name} {}", kind_word(failure.kind)));
        }
        (asked > 0).then(|| (begin, reasons.join(", ")))
    }

    /// The position that its followers can have reached: what it writes, or as a standby leader what it has received.
    pub(super) fn source_lsn(&self, now: Timestamp, options: &JudgeOptions) -> Option<(Probe, Lsn)> {
        let sql = self.current_sql(now, options).and_then(sql_source_lsn);
        if let (Some(lsn), Some((probe, _))) = (sql, self.sql.answer.as_ref()) {
            return Some((*probe, lsn));
        }
        let rest = self.current_rest(now, options).and_then(rest_source_lsn)?;
        self.rest.answer.as_ref().map(|(probe, _)| (*probe, rest))
    }

    pub(super) fn postmaster_start(&self) -> Option<Timestamp> {
        let sql = self.sql.answer.as_ref().and_then(|(probe, sql)| Some((probe.received, sql.postmaster_start_time?)));
        let rest =
            self.rest.answer.as_ref().and_then(|(probe, rest)| Some((probe.received, rest.postmaster_start_time?)));
        [sql, rest].into_iter().flatten().max_by_key(|(received, _)| *received).map(|(_, start)| start)
    }

    /// The timeline its own PostgreSQL is on, by the newest current answer.
    pub(super) fn timeline(&self, now: Timestamp, options: &JudgeOptions) -> Option<u32> {
        let sql = self.current_sql(now, options).and_then(|sql| {
            sql.timeline.or_else(|| sql.receiver.as_ref().and_then(|receiver| receiver.received_timeline))
        });
        let rest = self.current_rest(now, options).and_then(|rest| rest.timeline);
        [(self.rest.answered_at(), rest), (self.sql.answered_at(), sql)]
            .into_iter()
            .filter_map(|(at, timeline)| Some((at, timeline.filter(|timeline| *timeline > 0)?)))
            .max_by_key(|(at, _)| *at)
            .map(|(_, timeline)| timeline)
    }
}

pub(super) fn sql_source_lsn(sql: &PostgresStatus) -> Option<Lsn> {
    if sql.in_recovery { sql.receive_lsn.max(sql.replay_lsn) } else { sql.current_lsn }
}

pub(super) fn rest_source_lsn(rest: &PatroniStatus) -> Option<Lsn> {
    rest.location.or(rest.received_location).max(rest.replayed_location)
}

/// One word for a kind of failure.
pub(super) fn kind_word(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Refused => "refused",
        FailureKind::Timeout => "timeout",
        FailureKind::Reset => "reset",
        FailureKind::Unreachable => "unreachable",
        FailureKind::Denied => "denied",
        FailureKind::Rejecting => "rejecting",
        FailureKind::Other => "failed",
    }
}
