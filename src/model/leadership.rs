//! Words for how a leader was lost and what a change of the leader was, as they stand in the fields of events.
//!
//! Events `leader_lost`, `leader_changed`, `leader_returned`, `leader_loss_explained` and `dcs_leader_deleted` carry a
//! [`LossReason`] as `reason`. Events that tell of a term's begin carry a [`CauseClass`] as `cause_class` once it is
//! known, `planned` (`true|false|unknown`: whether an operator asked for it) and, where one did, `request` (a
//! [`RequestKind`]), `scheduled` and `candidate`. Who and where: `old_leader`, `new_leader`, `old_timeline`,
//! `new_timeline`, `switch_lsn` (the end of the old timeline); each is left out while it is unknown.

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// Why the leader key went away, as far as the DCS and PostgreSQL prove it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossReason {
    /// The key and its owner's member key vanished in one revision, which is how a lease ends that nobody renews: the
    /// owner's Patroni is dead, hung or cut off from the DCS.
    LeaseExpired,
    /// Only the leader key was deleted: its owner's Patroni gave it up (switchover, shutdown, PostgreSQL cannot start).
    Released,
    /// Somebody other than Patroni: the key was overwritten, deleted together with keys that hang on no lease, revoked
    /// long before its lease could end, or deleted while its owner went on to take writes.
    DeletedByHand,
    /// It was not seen happening.
    #[default]
    Unknown,
}

impl LossReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeaseExpired => "lease_expired",
            Self::Released => "released",
            Self::DeletedByHand => "deleted_by_hand",
            Self::Unknown => "unknown",
        }
    }
}

/// What a new term is, by leader and timeline before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CauseClass {
    /// Another leader, and no switchover was asked for. A manual failover is one too; `request` tells.
    Failover,
    /// Another leader, because a switchover was asked for.
    Switchover,
    /// The same leader on a new timeline: demoted and promoted again, or restarted as a replica and promoted.
    RestartThroughRecovery,
    /// The same leader on the same timeline, which had stopped and kept the key.
    CrashRestart,
    /// The same leader on the same timeline: the key was lost and taken again without a demotion.
    KeyRetaken,
}

impl CauseClass {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Switchover => "switchover",
            Self::RestartThroughRecovery => "restart_through_recovery",
            Self::CrashRestart => "crash_restart",
            Self::KeyRetaken => "key_retaken",
        }
    }
}

/// Leader and timeline before and after, as far as known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderPair<'a> {
    pub old_leader: Option<&'a str>,
    pub new_leader: Option<&'a str>,
    pub old_timeline: Option<u32>,
    pub new_timeline: Option<u32>,
    /// Whether a switchover was asked for; `None` when nobody looked.
    pub switchover: Option<bool>,
    /// The key was without an owner in between.
    pub key_was_lost: bool,
}

impl LeaderPair<'_> {
    /// The class, where what is known decides it.
    pub fn class(&self) -> Option<CauseClass> {
        if self.old_leader? != self.new_leader? {
            return self.switchover.map(|asked| if asked { CauseClass::Switchover } else { CauseClass::Failover });
        }
        match self.new_timeline?.cmp(&self.old_timeline?) {
            std::cmp::Ordering::Greater => Some(CauseClass::RestartThroughRecovery),
            std::cmp::Ordering::Equal if self.key_was_lost => Some(CauseClass::KeyRetaken),
            std::cmp::Ordering::Equal => Some(CauseClass::CrashRestart),
            // Only a member that was replaced by an older copy goes back.
            std::cmp::Ordering::Less => None,
        }
    }
}

/// What an operator asked for through the `failover` key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// Names the leader that shall give up.
    #[default]
    Switchover,
    /// Names only a candidate; made when there is no leader or it does not matter.
    ManualFailover,
}

impl RequestKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::ManualFailover => "manual_failover",
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestOutcome {
    #[default]
    Pending,
    Completed,
    Failed,
    /// Taken back before its scheduled time.
    Withdrawn,
    /// Another request took its place.
    Replaced,
}

/// A value that the `failover` key had. Patroni empties the key afterwards: this is the only record in the DCS of what
/// an operator wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailoverRequest {
    pub kind: RequestKind,
    /// The leader that shall give up.
    pub leader: Option<String>,
    /// Who shall take over; `None` leaves it to Patroni.
    pub candidate: Option<String>,
    pub scheduled_at: Option<Timestamp>,
    /// When the watch saw it.
    pub set_at: Timestamp,
    /// Of the key; 0 when only its traces were seen.
    pub revision: i64,
    pub outcome: RequestOutcome,
    pub ended_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_changes() {
        use CauseClass::{CrashRestart, Failover, KeyRetaken, RestartThroughRecovery, Switchover};
        for (old, new, timelines, switchover, lost, expected) in [
            ("a", "b", (Some(1), None), Some(false), true, Some(Failover)),
            ("a", "b", (Some(1), Some(2)), Some(false), true, Some(Failover)),
            ("a", "b", (Some(1), Some(2)), Some(true), true, Some(Switchover)),
            ("a", "b", (Some(1), Some(2)), None, true, None),
            // Standby leaders change without a new timeline.
            ("a", "b", (Some(1), Some(1)), Some(true), true, Some(Switchover)),
            ("a", "a", (Some(1), Some(2)), None, true, Some(RestartThroughRecovery)),
            ("a", "a", (Some(1), Some(2)), None, false, Some(RestartThroughRecovery)),
            ("a", "a", (Some(2), Some(2)), None, true, Some(KeyRetaken)),
            ("a", "a", (Some(2), Some(2)), None, false, Some(CrashRestart)),
            ("a", "a", (Some(2), None), None, true, None),
            ("a", "a", (None, Some(2)), None, true, None),
            ("a", "a", (Some(3), Some(2)), None, true, None),
            ("", "b", (None, None), None, true, None),
        ] {
            let pair = LeaderPair {
                old_leader: Some(old).filter(|old| !old.is_empty()),
                new_leader: Some(new),
                old_timeline: timelines.0,
                new_timeline: timelines.1,
                switchover,
                key_was_lost: lost,
            };
            assert_eq!(pair.class(), expected, "{pair:?}");
        }
    }

    #[test]
    fn words_are_those_of_the_json() {
        for reason in [LossReason::LeaseExpired, LossReason::Released, LossReason::DeletedByHand, LossReason::Unknown] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        for kind in [RequestKind::Switchover, RequestKind::ManualFailover] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        let classes = [
            CauseClass::Failover,
            CauseClass::Switchover,
            CauseClass::RestartThroughRecovery,
            CauseClass::CrashRestart,
            CauseClass::KeyRetaken,
        ];
        for class in classes {
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
        }
    }
}
