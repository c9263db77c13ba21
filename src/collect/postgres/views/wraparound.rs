//! Age of the oldest transaction and multixact ids. The exporter calls transactions seconds; so do we, beside a
//! name that tells the truth.

use super::{SELDOM, View};

pub(super) const VIEW: View = View {
    name: "wraparound",
    every: SELDOM,
    sql: |_| {
        Some(
            "SELECT datname, age(datfrozenxid)::float8 AS pg_database_wraparound_age_datfrozenxid_seconds, \
             mxid_age(datminmxid)::float8 AS pg_database_wraparound_age_datminmxid_seconds, \
             age(datfrozenxid)::float8 AS daraji_postgres_frozen_xid_age_transactions, \
             mxid_age(datminmxid)::float8 AS daraji_postgres_minimum_multixact_age \
             FROM pg_database WHERE datallowconn ORDER BY oid LIMIT 200"
                .into(),
        )
    },
};
