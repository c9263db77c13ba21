//! The judge's patience: how old a fact may be, and how long a sign must last before it counts.

use std::time::Duration;

/// Thresholds of the judge. The defaults fit HA state polled every 2 s and Patroni's defaults (ttl 30, loop_wait 10).
#[derive(Clone, Debug)]
pub struct JudgeOptions {
    /// How often HA state is polled when nothing is suspected.
    pub probe_interval: Duration,
    /// A claim about a member older than this is not current. Three missed probes.
    pub fresh: Duration,
    /// DCS facts are current while something proved them younger than this.
    pub dcs_fresh: Duration,
    /// Answers over REST slower than this are not trusted to be live.
    pub rest_round_trip_max: Duration,
    /// All sources of a member must be silent this long before it is lost.
    pub member_lost_after: Duration,
    /// One source (REST, SQL, a DCS member) must fail this long before that is an event.
    pub source_down_after: Duration,
    /// A running replica without a stream is no longer healthy after this, and an event after `replica_broken_after`.
    pub unstreamed_warning_after: Duration,
    pub replica_broken_after: Duration,
    /// How long one writable and one unknown former primary must last to be a possible split brain.
    pub possible_after: Duration,
    /// The same while a switchover runs, and for a lock owner that does not write.
    pub transient_max: Duration,
    /// How long a DCS must lack a quorum before that is an event. An election takes about a second.
    pub quorum_lost_after: Duration,
    /// The DCS has not been readable for this long: blind.
    pub dcs_blind_after: Duration,
    pub lag_high_seconds: f64,
    pub lag_normal_seconds: f64,
    pub lag_high_bytes: u64,
    pub lag_normal_bytes: u64,
    /// How long lag must stay over or under its threshold.
    pub lag_hold: Duration,
    /// A member that the list of members leaves out for this long is forgotten.
    pub forget_after: Duration,
    /// Time that falls back by more than this is a clock that was set back. More than any question may take.
    pub clock_step: Duration,
    pub clusters_max: usize,
    pub members_max: usize,
}

impl Default for JudgeOptions {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_secs(2),
            fresh: Duration::from_secs(6),
            dcs_fresh: Duration::from_secs(6),
            rest_round_trip_max: Duration::from_secs(1),
            member_lost_after: Duration::from_secs(4),
            source_down_after: Duration::from_secs(5),
            unstreamed_warning_after: Duration::from_secs(10),
            replica_broken_after: Duration::from_mins(1),
            possible_after: Duration::from_secs(3),
            transient_max: Duration::from_secs(15),
            quorum_lost_after: Duration::from_secs(3),
            dcs_blind_after: Duration::from_secs(10),
            lag_high_seconds: 30.0,
            lag_normal_seconds: 5.0,
            lag_high_bytes: 256 << 20,
            lag_normal_bytes: 32 << 20,
            lag_hold: Duration::from_secs(4),
            forget_after: Duration::from_hours(24),
            clock_step: Duration::from_secs(15),
            clusters_max: 2_000,
            members_max: 64,
        }
    }
}
