//! Effects: what went wrong, in words that causes explain. The table of effects and how grave each is.
//!
//! An effect is an event of the judge, an alert, or, where only logs are left, a message that means the same. Its gravity
//! decides which effect an incident is about: a cause that explains only lesser ones is an aside.

/// How grave an effect is. The order is the order of gravity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gravity {
    /// Operation is poorer: a replica, the archive, a setting.
    Degraded,
    /// Clients of the primary felt it.
    Service,
    /// Leadership was lost, moved or doubled, or the DCS lost its quorum.
    Leadership,
}

use Gravity::{Degraded, Leadership, Service};

/// Every effect that the judge or the logs can show, in the judge's own words where it has them.
pub const EFFECTS: &[(&str, Gravity)] = &[
    ("leader_lost", Leadership),
    ("leader_changed", Leadership),
    ("leader_demoted", Leadership),
    ("primary_promoted_again", Leadership),
    ("split_brain_possible", Leadership),
    ("split_brain_confirmed", Leadership),
    ("promoted_outside", Leadership),
    ("dcs_quorum_lost", Leadership),
    ("dcs_blind", Service),
    ("failsafe_entered", Service),
    ("primary_restarted_in_place", Service),
    ("primary_interrupted", Service),
    ("client_writes_failed", Service),
    ("postgres_restarted", Service),
    ("writes_refused", Service),
    ("connections_refused", Service),
    ("commits_wait", Service),
    ("storage_error", Service),
    ("lease_not_renewed", Service),
    ("switchover_failed", Service),
    ("wrong_cluster", Service),
    ("postgres_down", Degraded),
    ("postgres_hung", Degraded),
    ("rest_down", Degraded),
    ("member_lost", Degraded),
    ("replica_lost", Degraded),
    ("replica_broken", Degraded),
    ("replica_restarted", Degraded),
    ("replay_blocked", Degraded),
    ("lag_high", Degraded),
    ("slot_lost", Degraded),
    ("archive_failing", Degraded),
    ("pending_restart", Degraded),
    ("paused", Degraded),
    ("dcs_member_down", Degraded),
    ("dcs_leader_changed", Degraded),
    ("dcs_no_leader", Degraded),
    ("dcs_slow", Degraded),
    ("dcs_alarm", Degraded),
    ("clock_stepped", Degraded),
    ("certificate_rejected", Degraded),
];

/// The gravity of an effect; `None` when the word is none.
pub fn gravity(effect: &str) -> Option<Gravity> {
    EFFECTS.iter().find(|(name, _)| *name == effect).map(|(_, gravity)| *gravity)
}

/// Whether a word can stand in `explains`: an effect, or an alert (their names begin with a capital).
pub fn is_explainable(word: &str) -> bool {
    gravity(word).is_some() || word.starts_with(|c: char| c.is_ascii_uppercase())
}

/// Who a message must come from to be an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Anybody,
    /// The leader of that time, or anybody while it is unknown.
    Leader,
    /// A member that was not the leader.
    Other,
}

/// Messages that mean an effect by themselves: source, the catalogue's event, who says it, the effect.
pub const OF_MESSAGES: &[(&str, &str, By, &str)] = &[
    ("patroni", "promote_started", By::Other, "leader_changed"),
    ("patroni", "promote_started", By::Leader, "primary_promoted_again"),
    ("patroni", "standby_leader_promoted", By::Other, "leader_changed"),
    ("patroni", "demoting_dcs_unreachable", By::Anybody, "leader_demoted"),
    ("patroni", "demoted_dcs_unreachable", By::Anybody, "leader_demoted"),
    ("patroni", "demoted_no_lock", By::Anybody, "leader_demoted"),
    ("patroni", "demoted_lock_update_failed", By::Anybody, "leader_demoted"),
    ("patroni", "demoted_watchdog", By::Anybody, "leader_demoted"),
    ("patroni", "lock_removed_start_failed", By::Anybody, "leader_lost"),
    ("patroni", "lock_released_datadir", By::Anybody, "leader_lost"),
    ("patroni", "primary_start_timeout", By::Anybody, "leader_lost"),
    ("patroni", "primary_crash_failover", By::Anybody, "leader_lost"),
    ("patroni", "paused_primary_no_lock", By::Anybody, "split_brain_possible"),
    ("patroni", "failsafe_active", By::Anybody, "failsafe_entered"),
    ("patroni", "sysid_mismatch", By::Anybody, "wrong_cluster"),
    ("patroni", "dcs_id_changed", By::Anybody, "wrong_cluster"),
    ("patroni", "duplicate_name", By::Anybody, "wrong_cluster"),
    ("patroni", "sync_none_strict", By::Anybody, "commits_wait"),
    ("patroni", "sync_quorum_short", By::Anybody, "commits_wait"),
    ("patroni", "sync_shrinking", By::Anybody, "commits_wait"),
    ("patroni", "manual_impossible", By::Anybody, "switchover_failed"),
    ("patroni", "candidates_empty", By::Anybody, "switchover_failed"),
    // Only with the words that a restart is needed.
    ("patroni", "config_param_changed", By::Anybody, "pending_restart"),
    ("patroni", "config_controldata_wins", By::Anybody, "pending_restart"),
    ("patroni", "pg_not_running", By::Leader, "primary_restarted_in_place"),
    ("patroni", "pg_not_running", By::Other, "replica_restarted"),
    ("patroni", "rewind_failed", By::Anybody, "replica_broken"),
    ("patroni", "pg_role_from_cache", By::Anybody, "postgres_hung"),
    ("patroni", "pg_unresponsive", By::Anybody, "postgres_hung"),
    ("postgresql", "pg_new_timeline", By::Other, "leader_changed"),
    ("postgresql", "pg_crash_reinit", By::Leader, "primary_interrupted"),
    ("postgresql", "pg_crash_recovery", By::Leader, "primary_restarted_in_place"),
    ("postgresql", "pg_shutdown_req", By::Leader, "primary_restarted_in_place"),
    ("postgresql", "disk_full", By::Anybody, "writes_refused"),
    ("postgresql", "xid_wrap_stop", By::Anybody, "writes_refused"),
    ("postgresql", "conn_exhausted", By::Anybody, "connections_refused"),
    ("postgresql", "conn_reserved", By::Anybody, "connections_refused"),
    ("postgresql", "io_error", By::Anybody, "storage_error"),
    ("postgresql", "page_invalid", By::Anybody, "storage_error"),
    ("postgresql", "checksum_failure", By::Anybody, "storage_error"),
    ("postgresql", "sync_wait_cancelled", By::Anybody, "commits_wait"),
    ("postgresql", "archive_failed", By::Anybody, "archive_failing"),
    ("postgresql", "archive_giving_up", By::Anybody, "archive_failing"),
    ("postgresql", "recovery_conflict_wait", By::Anybody, "replay_blocked"),
    ("postgresql", "recovery_conflict_cancel", By::Anybody, "replay_blocked"),
    ("postgresql", "recovery_conflict_term", By::Anybody, "replay_blocked"),
    ("postgresql", "recovery_paused", By::Anybody, "replay_blocked"),
    ("postgresql", "standby_eof", By::Anybody, "replica_lost"),
    ("postgresql", "walsender_timeout", By::Anybody, "replica_lost"),
    ("postgresql", "walreceiver_timeout", By::Anybody, "replica_lost"),
    ("postgresql", "pg_shutdown_req", By::Other, "replica_restarted"),
    ("postgresql", "wal_segment_removed", By::Anybody, "replica_broken"),
    ("postgresql", "timeline_diverged", By::Anybody, "replica_broken"),
    ("postgresql", "primary_tl_behind", By::Anybody, "replica_broken"),
    ("postgresql", "start_point_ahead", By::Anybody, "replica_broken"),
    ("postgresql", "replay_paused_params", By::Anybody, "replica_broken"),
    ("postgresql", "slot_invalidated", By::Anybody, "slot_lost"),
    // One member's word: it may only be cut off.
    ("etcd", "etcd_quorum_lost", By::Anybody, "dcs_no_leader"),
    ("etcd", "etcd_no_leader_drop", By::Anybody, "dcs_no_leader"),
    ("etcd", "etcd_health_noleader", By::Anybody, "dcs_no_leader"),
    ("patroni", "dcs_inaccessible", By::Anybody, "dcs_no_leader"),
    ("patroni", "dcs_error", By::Anybody, "dcs_no_leader"),
    ("etcd", "etcd_leader_elected", By::Anybody, "dcs_leader_changed"),
    ("etcd", "etcd_leader_lost", By::Anybody, "dcs_leader_changed"),
    ("etcd", "etcd_slow_fdatasync", By::Anybody, "dcs_slow"),
    ("etcd", "etcd_heartbeat_late", By::Anybody, "dcs_slow"),
    ("etcd", "etcd_nospace_raised", By::Anybody, "dcs_alarm"),
    ("etcd", "etcd_health_alarm", By::Anybody, "dcs_alarm"),
    ("etcd", "etcd_corrupt", By::Anybody, "dcs_alarm"),
    ("etcd", "etcd_tls_rejected", By::Anybody, "certificate_rejected"),
    ("postgresql", "tls_error", By::Anybody, "certificate_rejected"),
    ("kernel", "disk_io_error", By::Anybody, "storage_error"),
    ("kernel", "fs_readonly", By::Anybody, "storage_error"),
    ("system", "time_changed", By::Anybody, "clock_stepped"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_means_an_effect_of_the_table() {
        for (source, event, _, effect) in OF_MESSAGES {
            assert!(gravity(effect).is_some(), "{source} {event}: {effect}");
        }
    }

    #[test]
    fn words_that_can_be_explained() {
        assert!(is_explainable("leader_lost") && is_explainable("ArchiveFailing"));
        assert!(!is_explainable("leader_lots"));
    }
}
