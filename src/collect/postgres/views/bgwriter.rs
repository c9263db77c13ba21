//! `pg_stat_bgwriter`, and from 17 on `pg_stat_checkpointer`.
//!
//! The names before 17 stay, filled from where 17 moved the numbers to, so that checkpoint panels do not go empty.

use super::{OFTEN, View};

const BEFORE_17: &str = "SELECT checkpoints_timed::float8 AS pg_stat_bgwriter_checkpoints_timed_total, \
    checkpoints_req::float8 AS pg_stat_bgwriter_checkpoints_req_total, \
    checkpoint_write_time::float8 AS pg_stat_bgwriter_checkpoint_write_time_total, \
    checkpoint_sync_time::float8 AS pg_stat_bgwriter_checkpoint_sync_time_total, \
    buffers_checkpoint::float8 AS pg_stat_bgwriter_buffers_checkpoint_total, \
    buffers_clean::float8 AS pg_stat_bgwriter_buffers_clean_total, \
    maxwritten_clean::float8 AS pg_stat_bgwriter_maxwritten_clean_total, \
    buffers_backend::float8 AS pg_stat_bgwriter_buffers_backend_total, \
    buffers_backend_fsync::float8 AS pg_stat_bgwriter_buffers_backend_fsync_total, \
    buffers_alloc::float8 AS pg_stat_bgwriter_buffers_alloc_total, \
    extract(epoch FROM stats_reset)::float8 AS pg_stat_bgwriter_stats_reset_total \
    FROM pg_stat_bgwriter";

const SINCE_17: &str = "SELECT c.num_timed::float8 AS pg_stat_bgwriter_checkpoints_timed_total, \
    c.num_requested::float8 AS pg_stat_bgwriter_checkpoints_req_total, \
    c.write_time::float8 AS pg_stat_bgwriter_checkpoint_write_time_total, \
    c.sync_time::float8 AS pg_stat_bgwriter_checkpoint_sync_time_total, \
    c.buffers_written::float8 AS pg_stat_bgwriter_buffers_checkpoint_total, \
    b.buffers_clean::float8 AS pg_stat_bgwriter_buffers_clean_total, \
    b.maxwritten_clean::float8 AS pg_stat_bgwriter_maxwritten_clean_total, \
    i.buffers_backend AS pg_stat_bgwriter_buffers_backend_total, \
    i.fsyncs AS pg_stat_bgwriter_buffers_backend_fsync_total, \
    b.buffers_alloc::float8 AS pg_stat_bgwriter_buffers_alloc_total, \
    extract(epoch FROM b.stats_reset)::float8 AS pg_stat_bgwriter_stats_reset_total, \
    c.num_timed::float8 AS pg_stat_checkpointer_num_timed_total, \
    c.num_requested::float8 AS pg_stat_checkpointer_num_requested_total, \
    c.restartpoints_timed::float8 AS pg_stat_checkpointer_restartpoints_timed_total, \
    c.restartpoints_req::float8 AS pg_stat_checkpointer_restartpoints_req_total, \
    c.restartpoints_done::float8 AS pg_stat_checkpointer_restartpoints_done_total, \
    c.write_time::float8 AS pg_stat_checkpointer_write_time_total, \
    c.sync_time::float8 AS pg_stat_checkpointer_sync_time_total, \
    c.buffers_written::float8 AS pg_stat_checkpointer_buffers_written_total, \
    extract(epoch FROM c.stats_reset)::float8 AS pg_stat_checkpointer_stats_reset_total";

pub(super) const VIEW: View = View {
    name: "pg_stat_bgwriter",
    every: OFTEN,
    sql: |server| {
        if !server.is(17) {
            return Some(BEFORE_17.into());
        }
        // From 18 on one write may be of several blocks, and bytes are counted.
        let blocks = if server.is(18) {
            "(write_bytes + extend_bytes) / current_setting('block_size')::numeric"
        } else {
            "writes + extends"
        };
        let done = if server.is(18) {
            ", c.num_done::float8 AS pg_stat_checkpointer_num_done_total, \
             c.slru_written::float8 AS pg_stat_checkpointer_slru_written_total"
        } else {
            ""
        };
        Some(
            format!(
                "{SINCE_17}{done} FROM pg_stat_bgwriter b, pg_stat_checkpointer c, \
                 (SELECT sum({blocks})::float8 AS buffers_backend, sum(fsyncs)::float8 AS fsyncs FROM pg_stat_io \
                 WHERE object = 'relation' AND backend_type NOT IN ('checkpointer', 'background writer')) i"
            )
            .into(),
        )
    },
};
