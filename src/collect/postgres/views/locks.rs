//! `pg_locks` by database and mode, every mode of every connectable database, so that no lock is 0 and not absent.

use super::{OFTEN, View};

pub(super) const VIEW: View = View {
    name: "pg_locks",
    every: OFTEN,
    sql: |_| {
        Some(
            "SELECT d.datname, m.mode, coalesce(l.count, 0)::float8 AS pg_locks_count \
             FROM (SELECT oid, datname FROM pg_database WHERE datallowconn ORDER BY oid LIMIT 100) d \
             CROSS JOIN (VALUES ('accesssharelock'), ('rowsharelock'), ('rowexclusivelock'), \
                 ('shareupdateexclusivelock'), ('sharelock'), ('sharerowexclusivelock'), ('exclusivelock'), \
                 ('accessexclusivelock'), ('sireadlock')) m(mode) \
             LEFT JOIN (SELECT database, lower(mode) AS mode, count(*) AS count FROM pg_locks \
                 WHERE database IS NOT NULL GROUP BY 1, 2) l ON l.database = d.oid AND l.mode = m.mode"
                .into(),
        )
    },
};
