//! The instance itself: that it answers, its version and start.

use super::{OFTEN, View};

pub(super) const VIEW: View = View {
    name: "instance",
    every: OFTEN,
    sql: |_| {
        Some(
            "SELECT v.version, v.short_version, 1::float8 AS pg_static, NULL::float8 AS pg_up, \
             NULL::float8 AS pg_postmaster_start_time_seconds, NULL::float8 AS pg_in_recovery, \
             NULL::float8 AS pg_conf_load_time_seconds \
             FROM (SELECT version() AS version, current_setting('server_version') AS short_version) v \
             UNION ALL \
             SELECT NULL, NULL, NULL, 1, extract(epoch FROM pg_postmaster_start_time())::float8, \
             pg_is_in_recovery()::int::float8, extract(epoch FROM pg_conf_load_time())::float8"
                .into(),
        )
    },
};
