//! `pg_replication_slots`, under the exporter's names before and since its 0.20.

use super::{OFTEN, Server, View};

pub(super) const VIEW: View = View {
    name: "pg_replication_slots",
    every: OFTEN,
    sql: |server| {
        let here = here(server);
        let safe = if server.is(13) {
            ", s.safe_wal_size::float8 AS pg_replication_slots_safe_wal_size_bytes, \
             s.safe_wal_size::float8 AS pg_replication_slot_safe_wal_size_bytes"
        } else {
            ""
        };
        Some(
            format!(
                "SELECT s.slot_name, s.slot_type, coalesce(s.database, '') AS database, \
                 ({here} - s.restart_lsn)::float8 AS pg_replication_slots_pg_wal_lsn_diff, \
                 s.active::int::float8 AS pg_replication_slots_active, \
                 s.active::int::float8 AS pg_replication_slots_slot_is_active, \
                 s.active::int::float8 AS pg_replication_slot_slot_is_active, \
                 ({here} - '0/0')::float8 AS pg_replication_slots_slot_current_wal_lsn, \
                 ({here} - '0/0')::float8 AS pg_replication_slot_slot_current_wal_lsn, \
                 (s.confirmed_flush_lsn - '0/0')::float8 AS pg_replication_slots_slot_confirmed_flush_lsn, \
                 (s.confirmed_flush_lsn - '0/0')::float8 AS pg_replication_slot_slot_confirmed_flush_lsn, \
                 greatest(age(s.xmin), age(s.catalog_xmin))::float8 AS daraji_postgres_slot_xmin_age_transactions{safe} \
                 FROM pg_replication_slots s LIMIT 200"
            )
            .into(),
        )
    },
};

/// The status word is a label, and changes: it must not be one of all the other series.
pub(super) const WAL_STATUS: View = View {
    name: "pg_replication_slots wal_status",
    every: OFTEN,
    sql: |server| {
        server.is(13).then(|| {
            "SELECT s.slot_name, s.slot_type, coalesce(s.database, '') AS database, s.wal_status, \
             1::float8 AS pg_replication_slots_wal_status, 1::float8 AS pg_replication_slot_wal_status \
             FROM pg_replication_slots s WHERE s.wal_status IS NOT NULL LIMIT 200"
                .into()
        })
    },
};

fn here(server: &Server) -> &'static str {
    if server.in_recovery { "pg_last_wal_receive_lsn()" } else { "pg_current_wal_lsn()" }
}
