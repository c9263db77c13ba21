//! `pg_stat_database_conflicts`: queries of a standby that recovery cancelled.

use super::{OFTEN, View};

pub(super) const VIEW: View = View {
    name: "pg_stat_database_conflicts",
    every: OFTEN,
    sql: |server| {
        let slots = if server.is(16) {
            ", confl_active_logicalslot::float8 AS pg_stat_database_conflicts_confl_active_logicalslot"
        } else {
            ""
        };
        Some(
            format!(
                "SELECT datid::text AS datid, datname, \
                 confl_tablespace::float8 AS pg_stat_database_conflicts_confl_tablespace, \
                 confl_lock::float8 AS pg_stat_database_conflicts_confl_lock, \
                 confl_snapshot::float8 AS pg_stat_database_conflicts_confl_snapshot, \
                 confl_bufferpin::float8 AS pg_stat_database_conflicts_confl_bufferpin, \
                 confl_deadlock::float8 AS pg_stat_database_conflicts_confl_deadlock{slots} \
                 FROM pg_stat_database_conflicts LIMIT 200"
            )
            .into(),
        )
    },
};
