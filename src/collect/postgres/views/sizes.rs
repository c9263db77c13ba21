//! Database sizes and connection limits.
//!
//! The size of a database walks its directory, so it is asked seldom. A database that is dropped meanwhile has no
//! size, which is no error.

use super::{SELDOM, View};

pub(super) const VIEW: View = View {
    name: "pg_database_size",
    every: SELDOM,
    sql: |_| {
        Some(
            "SELECT datname, datconnlimit::float8 AS pg_database_connection_limit, \
             CASE WHEN has_database_privilege(oid, 'CONNECT') OR pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') \
                 THEN pg_database_size(oid)::float8 END AS pg_database_size_bytes \
             FROM pg_database WHERE datallowconn ORDER BY oid LIMIT 200"
                .into(),
        )
    },
};

pub(super) const ROLES: View = View {
    name: "pg_roles",
    every: SELDOM,
    sql: |_| {
        Some(
            "SELECT rolname, rolconnlimit::float8 AS pg_roles_connection_limit FROM pg_roles \
             WHERE rolcanlogin ORDER BY oid LIMIT 200"
                .into(),
        )
    },
};
