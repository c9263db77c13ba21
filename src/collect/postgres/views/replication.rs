//! `pg_stat_replication`: what this instance sends, to whom, and how far they are.

use super::{OFTEN, View};

pub(super) const VIEW: View = View {
    name: "pg_stat_replication",
    every: OFTEN,
    sql: |server| {
        // A cascading replica sends what it has received.
        let here = if server.in_recovery { "pg_last_wal_receive_lsn()" } else { "pg_current_wal_lsn()" };
        Some(
            format!(
                "SELECT r.application_name, coalesce(host(r.client_addr), '') AS client_addr, \
                 coalesce(r.state, '') AS state, coalesce(s.slot_name, '') AS slot_name, r.pid::text AS pid, \
                 ({here} - '0/0')::float8 AS pg_stat_replication_pg_current_wal_lsn_bytes, \
                 ({here} - r.replay_lsn)::float8 AS pg_stat_replication_pg_wal_lsn_diff, \
                 ({here} - r.sent_lsn)::float8 AS daraji_postgres_sender_unsent_bytes, \
                 (r.sent_lsn - r.flush_lsn)::float8 AS daraji_postgres_sender_unflushed_bytes, \
                 extract(epoch FROM r.write_lag)::float8 AS pg_stat_replication_write_lag_seconds, \
                 extract(epoch FROM r.flush_lag)::float8 AS pg_stat_replication_flush_lag_seconds, \
                 extract(epoch FROM r.replay_lag)::float8 AS pg_stat_replication_replay_lag_seconds, \
                 extract(epoch FROM r.reply_time)::float8 AS pg_stat_replication_reply_time, \
                 (r.sync_state IN ('sync', 'quorum'))::int::float8 AS daraji_postgres_sender_is_sync \
                 FROM pg_stat_replication r LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid LIMIT 200"
            )
            .into(),
        )
    },
};
