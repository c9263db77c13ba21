//! Observations: claims of one source about one cluster, with the time they were true at.
//!
//! Sources may contradict each other; nothing here decides who is right. A failed attempt is an observation too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Lsn, Timestamp};

/// One claim. It was true at some instant between `sent` and `received`, both on our own clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    pub cluster: String,
    pub source: Source,
    /// When the question was sent (for a watch: when the event arrived).
    pub sent: Timestamp,
    /// When the answer was complete, or the attempt was given up.
    pub received: Timestamp,
    pub claim: Claim,
}

/// Who says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Patroni's REST API of this member.
    Rest { member: String },
    /// This member's PostgreSQL, by SQL on its own port.
    Sql { member: String },
    /// The keys of the cluster in the DCS, by watch or linearizable read.
    Dcs,
    /// One member of the DCS, by its own health and status, named by its URL.
    DcsMember { url: String },
    /// The agent on this member's host.
    Agent { member: String },
    /// Whoever answers at an address that clients write to.
    Proxy { address: String },
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// The configured or discovered members: who is expected, and where.
    Members(Vec<MemberAddress>),
    /// `GET /patroni` of one member.
    Patroni(PatroniStatus),
    /// `GET /cluster` as one member sees it. Served from a cache that may be stale; a claim, never the truth.
    ClusterView(ClusterView),
    /// SQL on the member's own port.
    Postgres(PostgresStatus),
    /// All keys of the cluster, after a (re)start of the watch. `stale` reads are never sent as this.
    DcsSnapshot(DcsSnapshot),
    /// One transaction of the DCS that touched the cluster's keys.
    DcsChange(DcsChange),
    /// The remaining time of the leader key's lease.
    Lease(LeaseStatus),
    /// One DCS member about itself.
    DcsHealth(DcsHealth),
    /// How far the clock of the member's host is from ours, as its agent measured it.
    Clock(ClockOffset),
    /// Which ports of the members the host of an agent can reach.
    Reach(Vec<PortProbe>),
    /// Whether PostgreSQL takes a new session beside one that goes on; what failed if not.
    NewSession(Option<Failure>),
    /// A transaction was committed.
    Written,
    /// The attempt failed.
    Failed(Failure),
}

/// Where a member is found. Addresses are as Patroni advertises them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAddress {
    pub member: String,
    pub host: String,
    pub port: u16,
    /// Base URL of the REST API, without a path.
    pub rest_url: Option<String>,
    /// False when the member has left the DCS and is watched at its last known address.
    pub present: bool,
}

/// The body of `GET /patroni`.
#[expect(clippy::struct_excessive_bools, reason = "Patroni's own flags, each with a meaning of its own")]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PatroniStatus {
    /// Patroni's word: `running`, `starting`, `stopped`, `crashed` …
    pub state: String,
    /// Patroni's word with `master` read as `primary`: `primary`, `replica`, `demoted` …
    pub role: String,
    pub timeline: Option<u32>,
    /// `xlog.location` of a primary; only set by live SQL, so its presence means "writable just now".
    pub location: Option<Lsn>,
    pub received_location: Option<Lsn>,
    pub replayed_location: Option<Lsn>,
    pub replay_paused: Option<bool>,
    pub replication_state: Option<String>,
    pub postmaster_start_time: Option<Timestamp>,
    /// 150018 for 15.18.
    pub server_version: Option<u32>,
    pub system_identifier: Option<String>,
    pub patroni_version: Option<String>,
    /// When this Patroni last read its DCS, on the member's own clock.
    pub dcs_last_seen: Option<Timestamp>,
    pub pause: bool,
    pub cluster_unlocked: bool,
    pub failsafe_mode_is_active: bool,
    /// A watchdog is required and cannot be used: this member must not lead.
    #[serde(default)]
    pub watchdog_failed: bool,
    pub sync_standby: bool,
    pub quorum_standby: bool,
    pub pending_restart: bool,
    pub tags: BTreeMap<String, String>,
}

/// The body of `GET /cluster`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    pub scope: Option<String>,
    pub pause: bool,
    pub members: Vec<ClusterViewMember>,
}

/// One member in the body of `GET /cluster`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterViewMember {
    pub name: String,
    /// `leader`, `standby_leader`, `sync_standby`, `quorum_standby`, `replica`.
    pub role: String,
    pub state: String,
    pub timeline: Option<u32>,
    pub host: String,
    pub port: u16,
    pub api_url: Option<String>,
    /// Receive lag as Patroni computes it; `None` when it says "unknown".
    pub lag_bytes: Option<u64>,
}

/// What a member's own PostgreSQL says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PostgresStatus {
    pub in_recovery: bool,
    /// `default_transaction_read_only` is on: not in recovery, yet ordinary sessions cannot write.
    pub read_only: bool,
    pub timeline: Option<u32>,
    /// Insert or flush position of a primary.
    pub current_lsn: Option<Lsn>,
    pub receive_lsn: Option<Lsn>,
    pub replay_lsn: Option<Lsn>,
    /// Commit time of the last replayed transaction, on the primary's clock.
    pub last_replay_at: Option<Timestamp>,
    pub replay_paused: Option<bool>,
    pub postmaster_start_time: Option<Timestamp>,
    pub system_identifier: Option<String>,
    /// 150018 for 15.18.
    pub server_version: Option<u32>,
    /// The server's clock when it answered.
    pub server_now: Option<Timestamp>,
    /// `recovery_min_apply_delay`: replay waits for so long after each commit.
    pub apply_delay_seconds: Option<f64>,
    pub receiver: Option<WalReceiver>,
    pub senders: Vec<WalSender>,
    pub slots: Vec<Slot>,
    pub connections: Option<u32>,
    pub max_connections: Option<u32>,
    /// Commits of all databases since the statistics were reset.
    pub commits: Option<u64>,
}

/// A row of `pg_stat_wal_receiver`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalReceiver {
    pub status: String,
    pub received_timeline: Option<u32>,
    pub flushed_lsn: Option<Lsn>,
    pub latest_end_lsn: Option<Lsn>,
    pub last_message_at: Option<Timestamp>,
    pub sender_host: Option<String>,
    pub sender_port: Option<u16>,
    pub slot_name: Option<String>,
}

/// A row of `pg_stat_replication`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WalSender {
    pub application_name: String,
    pub client_address: Option<String>,
    pub state: String,
    pub sync_state: String,
    pub sent_lsn: Option<Lsn>,
    pub write_lsn: Option<Lsn>,
    pub flush_lsn: Option<Lsn>,
    pub replay_lsn: Option<Lsn>,
    pub replay_lag_seconds: Option<f64>,
}

/// A row of `pg_replication_slots`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    pub name: String,
    /// `physical` or `logical`.
    pub kind: String,
    pub active: bool,
    pub restart_lsn: Option<Lsn>,
    pub wal_status: Option<String>,
}

/// The keys of one cluster at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DcsSnapshot {
    pub revision: i64,
    pub keys: Vec<DcsKey>,
}

/// A key below `/namespace/scope/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DcsKey {
    /// Without the prefix: `leader`, `members/n1`, `failover`, `history` …
    pub key: String,
    /// At most 64 KiB are kept.
    pub value: String,
    pub mod_revision: i64,
    pub create_revision: i64,
    /// The lease the key hangs on; 0 for none.
    pub lease: i64,
}

/// All that one revision changed: keys that vanish together are in one change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DcsChange {
    pub revision: i64,
    pub puts: Vec<DcsKey>,
    /// Deleted or expired keys, without the prefix.
    pub deletes: Vec<String>,
}

/// Answer to "how long does the leader's lease live on".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    pub lease: i64,
    /// Seconds left; -1 when the lease is gone.
    pub ttl_seconds: i64,
    pub granted_ttl_seconds: i64,
}

/// A port that every member has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Port {
    Postgres,
    Rest,
}

impl Port {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Rest => "rest",
        }
    }
}

/// One attempt to connect to a member's port; nothing is sent over the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortProbe {
    /// The member.
    pub target: String,
    pub port: Port,
    /// `None`: the connection was accepted.
    pub failure: Option<FailureKind>,
}

/// A clock against ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClockOffset {
    /// Positive when the other clock is ahead.
    pub seconds: f64,
    /// The true offset is at most this far from `seconds`.
    pub error_seconds: f64,
}

/// One DCS member's own view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DcsHealth {
    /// The member's name in the DCS, if it told.
    pub name: Option<String>,
    /// Whether it calls itself healthy, which for etcd needs a quorum.
    pub healthy: bool,
    /// Why not, in its own words.
    pub reason: Option<String>,
    pub is_leader: Option<bool>,
    pub has_leader: Option<bool>,
    /// Identity of the leader in its view, to compare across members.
    pub leader_id: Option<String>,
    pub raft_term: Option<u64>,
    pub version: Option<String>,
    pub database_bytes: Option<u64>,
    /// Identity of the DCS cluster.
    pub cluster_id: Option<String>,
    pub alarms: Vec<String>,
}

/// Why an attempt gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    /// The whole error chain.
    pub error: String,
}

/// The kinds of failure that mean different things to a judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Something answered "nobody listens here": the host lives, the process does not.
    Refused,
    /// No answer in time on a connection that was taken: the process hangs, or host or network went away meanwhile.
    Timeout,
    /// The connection ended before an answer: for Patroni's `/cluster`, "I cannot read the DCS".
    Reset,
    /// The host name or the route is unknown, or nothing answered to an attempt to connect.
    Unreachable,
    /// The server answers and will not let us in (password, pg_hba, token, certificate).
    Denied,
    /// PostgreSQL runs and rejects connections: starting up, shutting down, recovery, too many clients.
    Rejecting,
    /// Anything else, such as an answer that cannot be read.
    Other,
}
