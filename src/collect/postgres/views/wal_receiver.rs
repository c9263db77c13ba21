//! `pg_stat_wal_receiver`: the link to the upstream.

use super::{OFTEN, View};

pub(super) const VIEW: View = View {
    name: "pg_stat_wal_receiver",
    every: OFTEN,
    sql: |server| {
        let flushed = if server.is(13) { "flushed_lsn" } else { "received_lsn" };
        server.in_recovery.then(|| {
            format!(
                "SELECT coalesce(sender_host, '') AS upstream_host, coalesce(slot_name, '') AS slot_name, status, \
                 (receive_start_lsn - '0/0')::float8 AS pg_stat_wal_receiver_receive_start_lsn, \
                 receive_start_tli::float8 AS pg_stat_wal_receiver_receive_start_tli, \
                 ({flushed} - '0/0')::float8 AS pg_stat_wal_receiver_flushed_lsn, \
                 received_tli::float8 AS pg_stat_wal_receiver_received_tli, \
                 extract(epoch FROM last_msg_send_time)::float8 AS pg_stat_wal_receiver_last_msg_send_time, \
                 extract(epoch FROM last_msg_receipt_time)::float8 AS pg_stat_wal_receiver_last_msg_receipt_time, \
                 (latest_end_lsn - '0/0')::float8 AS pg_stat_wal_receiver_latest_end_lsn, \
                 extract(epoch FROM latest_end_time)::float8 AS pg_stat_wal_receiver_latest_end_time \
                 FROM pg_stat_wal_receiver WHERE status IS NOT NULL"
            )
            .into()
        })
    },
};
