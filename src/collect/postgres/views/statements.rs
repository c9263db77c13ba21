//! `pg_stat_statements`, the 200 statements with the most time, without reading a single query text.

use std::time::Duration;

use super::View;

pub(super) const VIEW: View = View {
    name: "pg_stat_statements",
    every: Duration::from_secs(30),
    sql: |server| {
        let schema = server.statements_schema.as_deref()?;
        let time = if server.is(13) { "total_exec_time" } else { "total_time" };
        let (read, write) = if server.is(17) {
            ("shared_blk_read_time + local_blk_read_time", "shared_blk_write_time + local_blk_write_time")
        } else {
            ("blk_read_time", "blk_write_time")
        };
        let wal = if server.is(13) { "sum(wal_bytes)::float8" } else { "NULL::float8" };
        Some(
            format!(
                "SELECT coalesce(r.rolname, '') AS \"user\", coalesce(d.datname, '') AS datname, s.queryid, \
                 s.calls AS pg_stat_statements_calls_total, s.seconds AS pg_stat_statements_seconds_total, \
                 s.rows AS pg_stat_statements_rows_total, s.read AS pg_stat_statements_block_read_seconds_total, \
                 s.write AS pg_stat_statements_block_write_seconds_total, \
                 s.hit AS pg_stat_statements_shared_blocks_hit_total, \
                 s.miss AS pg_stat_statements_shared_blocks_read_total, \
                 s.temp AS pg_stat_statements_temp_blocks_written_total, s.wal AS pg_stat_statements_wal_bytes_total \
                 FROM (SELECT userid, dbid, queryid::text AS queryid, sum(calls)::float8 AS calls, \
                     (sum({time}) / 1000.0)::float8 AS seconds, sum(rows)::float8 AS rows, \
                     (sum({read}) / 1000.0)::float8 AS read, (sum({write}) / 1000.0)::float8 AS write, \
                     sum(shared_blks_hit)::float8 AS hit, sum(shared_blks_read)::float8 AS miss, \
                     sum(temp_blks_written)::float8 AS temp, {wal} AS wal \
                     FROM {schema}.pg_stat_statements(false) WHERE queryid IS NOT NULL \
                     GROUP BY userid, dbid, queryid ORDER BY sum({time}) DESC LIMIT 200) s \
                 LEFT JOIN pg_roles r ON r.oid = s.userid LEFT JOIN pg_database d ON d.oid = s.dbid"
            )
            .into(),
        )
    },
};
