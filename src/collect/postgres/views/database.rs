//! `pg_stat_database`, and connection limits.

use super::{OFTEN, View};

const COLUMNS: &str = "SELECT datid::text AS datid, coalesce(datname, '') AS datname, \
    numbackends::float8 AS pg_stat_database_numbackends, \
    xact_commit::float8 AS pg_stat_database_xact_commit, xact_rollback::float8 AS pg_stat_database_xact_rollback, \
    blks_read::float8 AS pg_stat_database_blks_read, blks_hit::float8 AS pg_stat_database_blks_hit, \
    tup_returned::float8 AS pg_stat_database_tup_returned, tup_fetched::float8 AS pg_stat_database_tup_fetched, \
    tup_inserted::float8 AS pg_stat_database_tup_inserted, tup_updated::float8 AS pg_stat_database_tup_updated, \
    tup_deleted::float8 AS pg_stat_database_tup_deleted, conflicts::float8 AS pg_stat_database_conflicts, \
    temp_files::float8 AS pg_stat_database_temp_files, temp_bytes::float8 AS pg_stat_database_temp_bytes, \
    deadlocks::float8 AS pg_stat_database_deadlocks, \
    checksum_failures::float8 AS pg_stat_database_checksum_failures, \
    blk_read_time::float8 AS pg_stat_database_blk_read_time, \
    blk_write_time::float8 AS pg_stat_database_blk_write_time, \
    extract(epoch FROM stats_reset)::float8 AS pg_stat_database_stats_reset";

const SESSIONS: &str = ", active_time / 1000.0 AS pg_stat_database_active_time_seconds_total, \
    session_time / 1000.0 AS pg_stat_database_session_time_seconds_total, \
    idle_in_transaction_time / 1000.0 AS pg_stat_database_idle_in_transaction_time_seconds_total, \
    sessions::float8 AS pg_stat_database_sessions, sessions_abandoned::float8 AS pg_stat_database_sessions_abandoned, \
    sessions_fatal::float8 AS pg_stat_database_sessions_fatal, \
    sessions_killed::float8 AS pg_stat_database_sessions_killed";

/// Databases with the most transactions; others are left out.
const LIMIT: &str = " FROM pg_stat_database ORDER BY xact_commit DESC LIMIT 200";

pub(super) const VIEW: View = View {
    name: "pg_stat_database",
    every: OFTEN,
    sql: |server| Some(format!("{COLUMNS}{}{LIMIT}", if server.is(14) { SESSIONS } else { "" }).into()),
};
