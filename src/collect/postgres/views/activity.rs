//! `pg_stat_activity` by state. Groups are bounded: application names are the applications' to choose.

use super::{OFTEN, View};

pub(super) const VIEW: View = View {
    name: "pg_stat_activity",
    every: OFTEN,
    sql: |_| {
        Some(
            "SELECT coalesce(datname, '') AS datname, coalesce(state, '') AS state, coalesce(usename, '') AS usename, \
             application_name, backend_type, coalesce(wait_event_type, '') AS wait_event_type, \
             coalesce(wait_event, '') AS wait_event, count(*)::float8 AS pg_stat_activity_count, \
             coalesce(max(extract(epoch FROM now() - xact_start)), 0)::float8 AS pg_stat_activity_max_tx_duration \
             FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
             GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY count(*) DESC LIMIT 300"
                .into(),
        )
    },
};
