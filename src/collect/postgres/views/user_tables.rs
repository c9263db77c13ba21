//! `pg_stat_user_tables` of the database we are connected to: the 50 tables with the most changed or dead rows.
//!
//! Counters of the statistics system only; no size function, which would wait behind an exclusive lock.

use super::{SELDOM, View};

pub(super) const VIEW: View = View {
    name: "pg_stat_user_tables",
    every: SELDOM,
    sql: |_| {
        Some(
            "SELECT current_database()::text AS datname, schemaname, relname, \
             seq_scan::float8 AS pg_stat_user_tables_seq_scan, seq_tup_read::float8 AS pg_stat_user_tables_seq_tup_read, \
             idx_scan::float8 AS pg_stat_user_tables_idx_scan, \
             idx_tup_fetch::float8 AS pg_stat_user_tables_idx_tup_fetch, \
             n_tup_ins::float8 AS pg_stat_user_tables_n_tup_ins, n_tup_upd::float8 AS pg_stat_user_tables_n_tup_upd, \
             n_tup_del::float8 AS pg_stat_user_tables_n_tup_del, \
             n_tup_hot_upd::float8 AS pg_stat_user_tables_n_tup_hot_upd, \
             n_live_tup::float8 AS pg_stat_user_tables_n_live_tup, n_dead_tup::float8 AS pg_stat_user_tables_n_dead_tup, \
             n_mod_since_analyze::float8 AS pg_stat_user_tables_n_mod_since_analyze, \
             coalesce(extract(epoch FROM last_vacuum), 0)::float8 AS pg_stat_user_tables_last_vacuum, \
             coalesce(extract(epoch FROM last_autovacuum), 0)::float8 AS pg_stat_user_tables_last_autovacuum, \
             coalesce(extract(epoch FROM last_analyze), 0)::float8 AS pg_stat_user_tables_last_analyze, \
             coalesce(extract(epoch FROM last_autoanalyze), 0)::float8 AS pg_stat_user_tables_last_autoanalyze, \
             vacuum_count::float8 AS pg_stat_user_tables_vacuum_count, \
             autovacuum_count::float8 AS pg_stat_user_tables_autovacuum_count, \
             analyze_count::float8 AS pg_stat_user_tables_analyze_count, \
             autoanalyze_count::float8 AS pg_stat_user_tables_autoanalyze_count \
             FROM pg_stat_user_tables \
             ORDER BY n_dead_tup + n_tup_ins + n_tup_upd + n_tup_del DESC LIMIT 50"
                .into(),
        )
    },
};
