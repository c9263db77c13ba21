//! `pg_stat_wal` (14 and later), and the size of `pg_wal`.

use super::{OFTEN, SELDOM, View};

const COLUMNS: &str = "SELECT wal_records::float8 AS pg_wal_records, wal_fpi::float8 AS pg_wal_fpi, \
    wal_bytes::float8 AS pg_wal_bytes, wal_buffers_full::float8 AS pg_wal_buffers_full, \
    extract(epoch FROM stats_reset)::float8 AS pg_wal_reset_time";

pub(super) const VIEW: View = View {
    name: "pg_stat_wal",
    every: OFTEN,
    sql: |server| match server.version / 10_000 {
        0..14 => None,
        14..18 => Some(
            format!(
                "{COLUMNS}, wal_write::float8 AS pg_wal_write, wal_sync::float8 AS pg_wal_sync, \
                 wal_write_time AS pg_wal_write_time, wal_sync_time AS pg_wal_sync_time FROM pg_stat_wal"
            )
            .into(),
        ),
        // The same numbers are counted with all other I/O from 18 on.
        _ => Some(
            format!(
                "{COLUMNS}, i.writes AS pg_wal_write, i.fsyncs AS pg_wal_sync, i.write_time AS pg_wal_write_time, \
                 i.fsync_time AS pg_wal_sync_time FROM pg_stat_wal, \
                 (SELECT sum(writes)::float8 AS writes, sum(fsyncs)::float8 AS fsyncs, sum(write_time)::float8 \
                 AS write_time, sum(fsync_time)::float8 AS fsync_time FROM pg_stat_io WHERE object = 'wal' \
                 AND context = 'normal') i"
            )
            .into(),
        ),
    },
};

/// Lists a directory, so it is asked seldom.
pub(super) const FILES: View = View {
    name: "pg_ls_waldir",
    every: SELDOM,
    sql: |_| {
        Some(
            "SELECT count(*)::float8 AS pg_wal_segments, coalesce(sum(size), 0)::float8 AS pg_wal_size_bytes \
             FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}'"
                .into(),
        )
    },
};
