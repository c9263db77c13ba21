//! Long transactions, who waits for whom, prepared transactions, and what holds back the removal of dead rows.

use super::{OFTEN, View};

pub(super) const VIEW: View = View {
    name: "transactions",
    every: OFTEN,
    sql: |_| {
        Some(
            "SELECT count(*) FILTER (WHERE xact_start < now() - interval '1 minute')::float8 \
                 AS pg_long_running_transactions, \
             coalesce(extract(epoch FROM min(xact_start)), 0)::float8 \
                 AS pg_long_running_transactions_oldest_timestamp_seconds, \
             count(*) FILTER (WHERE wait_event_type = 'Lock')::float8 AS daraji_postgres_backends_waiting_for_locks, \
             count(*) FILTER (WHERE state LIKE 'idle in transaction%')::float8 \
                 AS daraji_postgres_backends_idle_in_transaction, \
             coalesce(max(age(backend_xmin)), 0)::float8 AS daraji_postgres_oldest_backend_xmin_age_transactions, \
             (SELECT count(*) FROM pg_prepared_xacts)::float8 AS pg_prepared_transactions, \
             (SELECT coalesce(max(extract(epoch FROM now() - prepared)), 0) FROM pg_prepared_xacts)::float8 \
                 AS daraji_postgres_oldest_prepared_transaction_seconds \
             FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                .into(),
        )
    },
};
