//! The current belief about a cluster, as the API shows it.
//!
//! `None` means unknown. "Two writable members" and "nobody knows" are states here, never errors and never guesses.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::leadership::FailoverRequest;
use crate::model::observation::{FailureKind, Port};
use crate::model::{EventSeverity, Lsn, Timestamp};

/// Overall state of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Ok,
    #[default]
    Unknown,
    Warning,
    Critical,
}

impl Health {
    pub const ALL: [Self; 4] = [Self::Ok, Self::Unknown, Self::Warning, Self::Critical];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What a member is now, by its own PostgreSQL and the DCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Primary,
    Replica,
    SyncStandby,
    QuorumStandby,
    StandbyLeader,
    #[default]
    Unknown,
}

impl Role {
    pub const ALL: [Self; 6] =
        [Self::Primary, Self::Replica, Self::SyncStandby, Self::QuorumStandby, Self::StandbyLeader, Self::Unknown];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::SyncStandby => "sync_standby",
            Self::QuorumStandby => "quorum_standby",
            Self::StandbyLeader => "standby_leader",
            Self::Unknown => "unknown",
        }
    }
}

/// The belief about one cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    pub name: String,
    pub health: Health,
    /// Why it is not ok, worst first.
    pub reasons: Vec<Reason>,
    /// Owner of the DCS leader key, if that is known freshly.
    pub leader: Option<String>,
    /// Members whose own PostgreSQL says now that it takes writes.
    pub writable: Vec<String>,
    pub timeline: Option<u32>,
    pub system_identifier: Option<String>,
    pub paused: Option<bool>,
    /// A switchover that was asked for is under way, or has just ended.
    #[serde(default)]
    pub switching: bool,
    pub failsafe: Option<bool>,
    /// `off`, `on` or `quorum`.
    pub sync_mode: Option<String>,
    /// `host:port` of the cluster that this one follows as a standby cluster; the port is left out when it is not
    /// configured.
    #[serde(default)]
    pub standby_of: Option<String>,
    pub split_brain: Option<SplitBrain>,
    pub lock: Option<Lock>,
    pub dcs: Option<Dcs>,
    pub config: Option<HaConfig>,
    /// When a leader that the DCS does not confirm must have given up.
    #[serde(default)]
    pub demotion: Option<Demotion>,
    /// Who would take over now; `None` before anybody led.
    #[serde(default)]
    pub readiness: Option<Readiness>,
    /// What operators asked for through the `failover` key, oldest first.
    #[serde(default)]
    pub requests: Vec<FailoverRequest>,
    pub members: Vec<Member>,
    /// Which agents can reach whose ports.
    #[serde(default)]
    pub reachability: Vec<Reach>,
}

impl Cluster {
    /// What is left of a belief that nobody has looked at again since: who belongs to the cluster and what was last heard,
    /// nothing about now.
    #[must_use]
    pub fn outdated(&self, since: Timestamp) -> Self {
        let text = format!("nothing has been judged since {}: the server hangs", since.to_rfc3339_millis());
        let member = |member: &Member| Member {
            role: Role::Unknown,
            state: "unknown".to_owned(),
            writable: None,
            lag_bytes: None,
            lag_seconds: None,
            receive_lag_bytes: None,
            upstream_lag_bytes: None,
            ..member.clone()
        };
        Self {
            health: Health::Unknown,
            reasons: vec![Reason { severity: EventSeverity::Critical, text }],
            leader: None,
            writable: Vec::new(),
            lock: None,
            demotion: None,
            readiness: None,
            reachability: Vec::new(),
            members: self.members.iter().map(member).collect(),
            ..self.clone()
        }
    }
}

/// Whether the host of one member can connect to a port of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The member whose agent tried.
    pub from: String,
    pub target: String,
    pub port: Port,
    pub reachable: bool,
    /// How it failed.
    pub failure: Option<FailureKind>,
    pub seen_at: Timestamp,
}

/// Why all sources of a member are silent: `reason` of the event `member_lost`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostReason {
    /// It takes our connections and does not answer: its processes hang.
    NotAnswering,
    /// Agents reach it and we do not: it is our own view that is cut off.
    MonitorCutOff,
    /// The host answers that nothing listens there.
    Down,
    /// No agent of another member reaches it either.
    UnreachableFromAll,
    /// Only we tried, and got no answer.
    Unknown,
}

impl LostReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAnswering => "not_answering",
            Self::MonitorCutOff => "monitor_cut_off",
            Self::Down => "down",
            Self::UnreachableFromAll => "unreachable_from_all",
            Self::Unknown => "unknown",
        }
    }
}

/// One reason why a cluster is not ok.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub severity: EventSeverity,
    pub text: String,
}

/// Two instances of one cluster that take writes, or cannot be excluded from doing so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitBrain {
    pub state: SplitBrainState,
    pub grade: Option<SplitBrainGrade>,
    pub members: Vec<String>,
    pub since: Timestamp,
}

/// How sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitBrainState {
    /// One is writable, another was when last seen and nothing shows that it stopped.
    Possible,
    /// Proven by non-overlapping probes A-B-A on our own clock.
    Confirmed,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitBrainGrade {
    /// Both take writes; no proof that both were written.
    Dual,
    /// Both were written: their histories differ.
    Diverged,
    /// Both were written and clients commit on both.
    Served,
}

/// The leader key and its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub owner: Option<String>,
    pub lease_ttl_seconds: Option<i64>,
    pub lease_granted_ttl_seconds: Option<i64>,
    pub revision: Option<i64>,
    pub seen_at: Timestamp,
}

/// The DCS as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dcs {
    /// `etcd`, `consul`, `zookeeper`.
    pub kind: String,
    pub quorum: Option<bool>,
    /// The keys shown are older than the watch allows.
    pub stale: bool,
    pub seen_at: Option<Timestamp>,
    pub members: Vec<DcsMember>,
}

/// One DCS member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DcsMember {
    pub name: String,
    pub url: String,
    pub healthy: Option<bool>,
    pub leader: Option<bool>,
    pub version: Option<String>,
    pub db_size_bytes: Option<u64>,
    pub seen_at: Option<Timestamp>,
    pub error: Option<String>,
}

/// The parts of Patroni's dynamic configuration that decide how fast a failover is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaConfig {
    pub ttl: Option<u32>,
    pub loop_wait: Option<u32>,
    pub retry_timeout: Option<u32>,
    pub maximum_lag_on_failover: Option<u64>,
    #[serde(default)]
    pub failsafe_mode: Option<bool>,
    /// Synchronous mode never falls back to asynchronous.
    #[serde(default)]
    pub synchronous_mode_strict: Option<bool>,
    /// A candidate must be on the last known timeline.
    #[serde(default)]
    pub check_timeline: Option<bool>,
}

/// Who would win if the leader failed now, by Patroni's own rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// `None`: nobody could take over, or we cannot tell; `blockers` says why.
    pub candidate: Option<String>,
    /// What the candidate has not received: the WAL that would be lost.
    pub lag_bytes: Option<u64>,
    /// What keeps everybody from taking over.
    pub blockers: Vec<String>,
    /// All other members, the best first.
    pub candidates: Vec<Candidate>,
}

/// A member as a successor of the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub member: String,
    pub lag_bytes: Option<u64>,
    /// Why Patroni would not let it; empty when it may.
    pub blockers: Vec<String>,
    /// Why it had better not, though Patroni would let it.
    pub risks: Vec<String>,
}

/// Why a leader is expected to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DemotionBasis {
    /// The DCS has no quorum: nobody can renew the key.
    QuorumLost,
    /// We cannot read the DCS; the leader's Patroni may be able to.
    DcsBlind,
    /// The DCS works and the lease is not renewed: the leader's Patroni is dead, hung or cut off.
    LeaseNotRenewed,
}

/// When a leader that the DCS no longer confirms must have demoted itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demotion {
    pub member: String,
    pub basis: DemotionBasis,
    /// A Patroni that lives and cannot reach its DCS begins to stop PostgreSQL by then.
    pub due_at: Timestamp,
    /// When the lease ends by its last reading, after which another member may take the key.
    pub lease_ends_at: Option<Timestamp>,
    /// False: failsafe mode may keep it, or its Patroni may be dead, or may see a DCS that we do not see.
    pub certain: bool,
}

/// The belief about one member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub name: String,
    pub role: Role,
    /// Patroni's word, or `unknown`.
    pub state: String,
    pub writable: Option<bool>,
    pub timeline: Option<u32>,
    pub lag_bytes: Option<u64>,
    pub lag_seconds: Option<f64>,
    pub receive_lag_bytes: Option<u64>,
    /// Behind the member that it streams from, for cascading replicas.
    #[serde(default)]
    pub upstream_lag_bytes: Option<u64>,
    /// Replay is delayed on purpose by so long; lag is judged without it.
    #[serde(default)]
    pub apply_delay_seconds: Option<f64>,
    /// How far the clock of its host is ahead of ours, and how wrong that may be.
    #[serde(default)]
    pub clock_skew_seconds: Option<f64>,
    #[serde(default)]
    pub clock_skew_error_seconds: Option<f64>,
    pub lsn: Option<Lsn>,
    pub seen_at: Option<Timestamp>,
    pub host: String,
    pub port: u16,
    pub rest_url: Option<String>,
    pub postgres_version: Option<String>,
    pub patroni_version: Option<String>,
    pub postmaster_start_time: Option<Timestamp>,
    pub upstream: Option<String>,
    pub replication_state: Option<String>,
    pub pending_restart: Option<bool>,
    pub tags: BTreeMap<String, String>,
    pub connections: Option<u32>,
    /// False: it left the DCS and is still watched at its last known address.
    pub present: bool,
    pub sources: Vec<SourceView>,
}

impl Member {
    /// A time by the clock of this member's host, such as that of a log line, on our clock, and how wrong that may be.
    /// Without it, times of two hosts must not be compared.
    pub fn on_our_clock(&self, node_time: Timestamp) -> Option<(Timestamp, Duration)> {
        let (skew, error) = (self.clock_skew_seconds?, self.clock_skew_error_seconds?);
        Some((node_time.shifted(-skew), Duration::try_from_secs_f64(error).ok()?))
    }
}

/// What one source last said about a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceView {
    /// `rest`, `sql`, `dcs`, `agent`.
    pub source: String,
    /// When it last said anything.
    pub seen_at: Option<Timestamp>,
    pub up: Option<bool>,
    pub error: Option<String>,
    /// Its claim in a few words.
    pub says: String,
}

/// `150018` as `15.18`; before version 10 the middle number counts too, which no supported server has.
pub fn postgres_version_text(server_version: u32) -> String {
    format!("{}.{}", server_version / 10_000, server_version % 10_000)
}
