//! `pg_stat_archiver`.

use super::{OFTEN, View};

pub(super) const VIEW: View = View {
    name: "pg_stat_archiver",
    every: OFTEN,
    sql: |_| {
        Some(
            "SELECT archived_count::float8 AS pg_stat_archiver_archived_count, \
             failed_count::float8 AS pg_stat_archiver_failed_count, \
             extract(epoch FROM now() - last_archived_time)::float8 AS pg_stat_archiver_last_archive_age, \
             extract(epoch FROM last_archived_time)::float8 AS pg_stat_archiver_last_archived_time, \
             extract(epoch FROM last_failed_time)::float8 AS pg_stat_archiver_last_failed_time, \
             (coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false))::int::float8 \
                 AS daraji_postgres_archiver_failing, \
             (current_setting('archive_mode') <> 'off')::int::float8 AS daraji_postgres_archiver_enabled \
             FROM pg_stat_archiver"
                .into(),
        )
    },
};
