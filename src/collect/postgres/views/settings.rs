//! `pg_settings`: one series per number, in base units.

use super::{SELDOM, View};

pub(super) const VIEW: View = View {
    name: "pg_settings",
    every: SELDOM,
    sql: |_| {
        Some(
            "SELECT 'pg_settings_' || regexp_replace(lower(name), '[^a-z0-9_]', '_', 'g') || CASE \
                 WHEN unit IN ('ms', 's', 'min', 'h', 'd') THEN '_seconds' WHEN unit IS NOT NULL THEN '_bytes' \
                 ELSE '' END AS metric_name, \
             CASE WHEN vartype = 'bool' THEN (setting = 'on')::int::float8 WHEN setting::float8 = -1 THEN -1 \
                 ELSE setting::float8 * coalesce(substring(unit FROM '^[0-9]+')::float8, 1) \
                 * CASE regexp_replace(unit, '^[0-9]+', '') WHEN 'ms' THEN 0.001 WHEN 's' THEN 1 WHEN 'min' THEN 60 \
                 WHEN 'h' THEN 3600 WHEN 'd' THEN 86400 WHEN 'kB' THEN 1024 WHEN 'MB' THEN 1048576 \
                 WHEN 'GB' THEN 1073741824 ELSE 1 END END::float8 AS metric_value \
             FROM pg_settings WHERE vartype IN ('bool', 'integer', 'real') \
             UNION ALL SELECT 'daraji_postgres_settings_pending_restart', count(*) FILTER (WHERE pending_restart)::float8 \
             FROM pg_settings"
                .into(),
        )
    },
};
