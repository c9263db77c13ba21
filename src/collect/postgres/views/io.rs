//! `pg_stat_io` (16 and later), without the rows in which nothing ever happened.

use super::{OFTEN, View};

pub(super) const VIEW: View = View {
    name: "pg_stat_io",
    every: OFTEN,
    sql: |server| {
        let bytes = if server.is(18) {
            ", read_bytes::float8 AS pg_io_read_bytes, write_bytes::float8 AS pg_io_write_bytes, \
             extend_bytes::float8 AS pg_io_extend_bytes"
        } else {
            ", (reads * op_bytes)::float8 AS pg_io_read_bytes, (writes * op_bytes)::float8 AS pg_io_write_bytes, \
             (extends * op_bytes)::float8 AS pg_io_extend_bytes"
        };
        server.is(16).then(|| {
            format!(
                "SELECT backend_type AS type, object, context, reads::float8 AS pg_io_reads, read_time AS \
                 pg_io_read_time, writes::float8 AS pg_io_writes, write_time AS pg_io_write_time, \
                 writebacks::float8 AS pg_io_writebacks, writeback_time AS pg_io_writeback_time, \
                 extends::float8 AS pg_io_extends, extend_time AS pg_io_extend_time, hits::float8 AS pg_io_hits, \
                 evictions::float8 AS pg_io_evictions, reuses::float8 AS pg_io_reuses, fsyncs::float8 AS pg_io_fsyncs, \
                 fsync_time AS pg_io_fsync_time{bytes} FROM pg_stat_io \
                 WHERE coalesce(reads, 0) + coalesce(writes, 0) + coalesce(extends, 0) + coalesce(hits, 0) \
                 + coalesce(fsyncs, 0) > 0"
            )
            .into()
        })
    },
};
