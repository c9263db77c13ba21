//! Role, timeline, positions and lag as the instance itself sees them.
//!
//! Unlike the exporter's, the lag has no sample where it is unknown: a replica whose receiver does not stream and
//! that has replayed everything it has is not "0 s behind".

use super::{OFTEN, View};

pub(super) const VIEW: View = View {
    name: "recovery",
    every: OFTEN,
    sql: |server| {
        Some(if server.in_recovery {
            "SELECT 1::float8 AS pg_replication_is_replica, \
             CASE WHEN w.status = 'streaming' AND l.receive = l.replay THEN 0 \
                  WHEN w.status = 'streaming' OR l.receive IS DISTINCT FROM l.replay \
                  THEN greatest(0, extract(epoch FROM now() - pg_last_xact_replay_timestamp())) \
                  END::float8 AS pg_replication_lag_seconds, \
             extract(epoch FROM now() - pg_last_xact_replay_timestamp())::float8 AS pg_replication_last_replay_seconds, \
             (l.receive - '0/0')::float8 AS pg_last_wal_receive_lsn_bytes, \
             (l.replay - '0/0')::float8 AS pg_last_wal_replay_lsn_bytes, \
             (coalesce(l.replay, l.receive) - '0/0')::float8 AS pg_xlog_location_bytes, \
             pg_is_wal_replay_paused()::int::float8 AS pg_is_wal_replay_paused, \
             w.received_tli::float8 AS pg_timeline_id \
             FROM (SELECT pg_last_wal_receive_lsn() AS receive, pg_last_wal_replay_lsn() AS replay) l \
             LEFT JOIN pg_stat_wal_receiver w ON true"
                .into()
        } else {
            "SELECT 0::float8 AS pg_replication_is_replica, 0::float8 AS pg_replication_lag_seconds, \
             0::float8 AS pg_replication_last_replay_seconds, \
             (pg_current_wal_lsn() - '0/0')::float8 AS pg_xlog_location_bytes, \
             ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int8::float8 AS pg_timeline_id"
                .into()
        })
    },
};
