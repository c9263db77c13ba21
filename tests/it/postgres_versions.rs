//! Every PostgreSQL version we claim to watch is asked for real, as a primary and as a replica.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use daraji::collect::PostgresReport;
use daraji::collect::config::PostgresConfig;

use crate::postgres_server::{Programs, Server, append};

/// What every version gives of a primary.
const PRIMARY: &str = "pg_up pg_static pg_postmaster_start_time_seconds pg_in_recovery \
    pg_replication_is_replica pg_replication_lag_seconds pg_replication_last_replay_seconds pg_xlog_location_bytes \
    pg_timeline_id \
    pg_stat_database_numbackends pg_stat_database_xact_commit pg_stat_database_xact_rollback pg_stat_database_blks_read \
    pg_stat_database_blks_hit pg_stat_database_tup_returned pg_stat_database_tup_fetched \
    pg_stat_database_tup_inserted pg_stat_database_tup_updated pg_stat_database_tup_deleted \
    pg_stat_database_conflicts pg_stat_database_temp_files pg_stat_database_temp_bytes pg_stat_database_deadlocks \
    pg_stat_database_blk_read_time pg_stat_database_blk_write_time \
    pg_stat_database_conflicts_confl_lock pg_stat_database_conflicts_confl_snapshot \
    pg_stat_activity_count pg_stat_activity_max_tx_duration \
    pg_long_running_transactions pg_long_running_transactions_oldest_timestamp_seconds pg_prepared_transactions \
    pg_locks_count \
    pg_stat_replication_pg_current_wal_lsn_bytes pg_stat_replication_pg_wal_lsn_diff \
    pg_replication_slots_pg_wal_lsn_diff pg_replication_slots_active pg_replication_slots_slot_is_active \
    pg_replication_slot_slot_is_active pg_replication_slot_slot_current_wal_lsn \
    pg_stat_bgwriter_checkpoints_timed_total pg_stat_bgwriter_checkpoints_req_total \
    pg_stat_bgwriter_checkpoint_write_time_total pg_stat_bgwriter_checkpoint_sync_time_total \
    pg_stat_bgwriter_buffers_checkpoint_total pg_stat_bgwriter_buffers_clean_total \
    pg_stat_bgwriter_maxwritten_clean_total pg_stat_bgwriter_buffers_backend_total \
    pg_stat_bgwriter_buffers_backend_fsync_total pg_stat_bgwriter_buffers_alloc_total \
    pg_stat_archiver_archived_count pg_stat_archiver_failed_count pg_stat_archiver_last_archive_age \
    pg_wal_segments pg_wal_size_bytes \
    pg_settings_max_connections pg_settings_shared_buffers_bytes pg_settings_effective_cache_size_bytes \
    pg_settings_work_mem_bytes pg_settings_maintenance_work_mem_bytes pg_settings_max_wal_size_bytes \
    pg_settings_random_page_cost pg_settings_seq_page_cost pg_settings_max_worker_processes \
    pg_settings_max_parallel_workers pg_settings_checkpoint_timeout_seconds \
    daraji_postgres_settings_pending_restart \
    pg_database_size_bytes pg_database_connection_limit pg_roles_connection_limit \
    pg_database_wraparound_age_datfrozenxid_seconds pg_database_wraparound_age_datminmxid_seconds \
    pg_stat_statements_calls_total pg_stat_statements_seconds_total pg_stat_statements_rows_total \
    pg_stat_statements_block_read_seconds_total pg_stat_statements_block_write_seconds_total \
    pg_stat_user_tables_n_live_tup pg_stat_user_tables_n_dead_tup pg_stat_user_tables_seq_scan";

/// What came with a version and is still there.
const SINCE: &[(u32, &str)] = &[
    (13, "pg_replication_slots_wal_status pg_replication_slot_wal_status"),
    (14, "pg_stat_database_active_time_seconds_total pg_stat_database_sessions pg_wal_records pg_wal_bytes pg_wal_fpi"),
    (14, "pg_wal_write pg_wal_sync pg_wal_buffers_full"),
    (16, "pg_io_reads pg_io_writes pg_io_hits pg_io_read_bytes pg_stat_database_conflicts_confl_active_logicalslot"),
    (17, "pg_stat_checkpointer_num_timed_total pg_stat_checkpointer_num_requested_total"),
    (17, "pg_stat_checkpointer_restartpoints_done_total pg_stat_checkpointer_buffers_written_total"),
    (18, "pg_stat_checkpointer_num_done_total"),
];

/// What a streaming replica gives besides.
const REPLICA: &str = "pg_stat_wal_receiver_flushed_lsn pg_stat_wal_receiver_received_tli \
    pg_stat_wal_receiver_last_msg_receipt_time pg_stat_wal_receiver_latest_end_lsn \
    pg_last_wal_receive_lsn_bytes pg_last_wal_replay_lsn_bytes pg_is_wal_replay_paused pg_timeline_id \
    pg_replication_lag_seconds";

const CONFIGURATION: &str = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n\
    shared_buffers = 16MB\nmax_connections = 20\nwal_level = replica\nhot_standby = on\ntrack_io_timing = on\n\
    shared_preload_libraries = 'pg_stat_statements'\narchive_mode = on\narchive_command = 'true'\n\
    primary_slot_name = 'replica'\nwal_receiver_status_interval = 1\n";

const SETUP: &str = "CREATE EXTENSION pg_stat_statements; \
    CREATE ROLE daraji LOGIN IN ROLE pg_monitor; CREATE ROLE nobody_special LOGIN; \
    SELECT pg_create_physical_replication_slot('replica', true); \
    CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 1000) g; DELETE FROM t WHERE id > 500; \
    SELECT pg_switch_wal(); CHECKPOINT;";

async fn check(major: u32) {
    daraji::platform::tls::install();
    let programs = Programs::find(major);
    let dir = programs.own_dir();
    let (data, copy) = (dir.path().join("primary"), dir.path().join("replica"));
    let data_text = data.to_str().unwrap();
    programs.run("initdb", &["-D", data_text, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]);
    append(&data.join("postgresql.conf"), CONFIGURATION);
    let primary = Server::start(&programs, &data);
    primary.client().await.batch_execute(SETUP).await.unwrap();
    primary.stop("fast");

    // Embedded servers come without pg_basebackup; a copy of a stopped one is as good.
    let copied = Command::new("cp").args(["-a", data_text, copy.to_str().unwrap()]).status().unwrap();
    assert!(copied.success());
    let primary = Server::start(&programs, &data);
    std::fs::write(copy.join("standby.signal"), "").unwrap();
    let conninfo =
        format!("primary_conninfo = 'host=127.0.0.1 port={} user=postgres application_name=n2'\n", primary.port);
    append(&copy.join("postgresql.conf"), &conninfo);
    let replica = Server::start(&programs, &copy);

    let of_replica = until_streaming(&replica).await;
    let of_primary = primary.ask("127.0.0.1", &login("daraji")).await.unwrap();
    check_primary(major, &of_primary);
    check_replica(major, &of_replica);
    check_privileges(&primary, &of_primary).await;
    check_writes(&primary, &replica).await;
    check_read_only(&primary).await;
}

fn login(user: &str) -> PostgresConfig {
    let (user, database) = (Some(user.to_owned()), Some("postgres".to_owned()));
    PostgresConfig { user, database, ..PostgresConfig::default() }
}

async fn until_streaming(replica: &Server<'_>) -> PostgresReport {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        let report = replica.ask("127.0.0.1", &login("daraji")).await.unwrap();
        let streaming = report.status.receiver.as_ref().is_some_and(|receiver| receiver.status == "streaming");
        if streaming && report.status.replay_lsn == report.status.receive_lsn {
            return report;
        }
        assert!(tokio::time::Instant::now() < deadline, "never streamed: {:?}", report.status);
    }
}

fn names(report: &PostgresReport) -> BTreeSet<&str> {
    report.samples.iter().map(|sample| sample.labels.metric_name()).collect()
}

fn value(report: &PostgresReport, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let fits = |sample: &&daraji::model::Sample| {
        sample.labels.metric_name() == name
            && labels.iter().all(|(label, value)| sample.labels.get(label) == Some(*value))
    };
    report.samples.iter().find(fits).map(|sample| sample.value)
}

fn assert_names(major: u32, report: &PostgresReport, expected: &str) {
    let names = names(report);
    let missing: Vec<&str> = expected.split_whitespace().filter(|name| !names.contains(name)).collect();
    assert!(missing.is_empty(), "PostgreSQL {major} gives no {missing:?}");
}

fn check_primary(major: u32, report: &PostgresReport) {
    assert_eq!(report.problem, None, "PostgreSQL {major}");
    assert_names(major, report, PRIMARY);
    for (since, expected) in SINCE.iter().filter(|(since, _)| *since <= major) {
        assert!(*since <= major);
        assert_names(major, report, expected);
    }
    let status = &report.status;
    assert_eq!(status.server_version.map(|version| version / 10_000), Some(major));
    assert!(!status.in_recovery && !status.read_only);
    assert_eq!(status.timeline, Some(1));
    assert!(status.current_lsn.is_some() && status.system_identifier.is_some() && status.commits > Some(0));
    assert_eq!(status.max_connections, Some(20));
    let sender = status.senders.iter().find(|sender| sender.application_name == "n2").expect("the replica's sender");
    assert_eq!((sender.state.as_str(), sender.sync_state.as_str()), ("streaming", "async"));
    assert!(sender.replay_lsn.is_some());
    let slot = status.slots.iter().find(|slot| slot.name == "replica").expect("the replica's slot");
    assert!(slot.active && slot.kind == "physical" && slot.restart_lsn.is_some());
    assert_eq!(slot.wal_status.as_deref(), (major >= 13).then_some("reserved"));

    assert_eq!(value(report, "pg_settings_shared_buffers_bytes", &[]), Some(16_777_216.0));
    assert_eq!(value(report, "pg_settings_checkpoint_timeout_seconds", &[]), Some(300.0));
    assert_eq!(value(report, "pg_replication_is_replica", &[]), Some(0.0));
    assert_eq!(value(report, "pg_locks_count", &[("datname", "postgres"), ("mode", "accessexclusivelock")]), Some(0.0));
    let backends = value(report, "pg_stat_database_numbackends", &[("datname", "postgres")]);
    assert!(backends.is_some_and(|backends| (1.0..=3.0).contains(&backends)), "{backends:?}: at most two are ours");
    let series: BTreeSet<_> = report.samples.iter().map(|sample| sample.labels.clone()).collect();
    assert_eq!(series.len(), report.samples.len(), "a series twice");
    let texts = report.samples.iter().filter(|sample| sample.labels.get("query").is_some()).count();
    assert_eq!(texts, 0, "query texts are not read");
}

fn check_replica(major: u32, report: &PostgresReport) {
    assert_eq!(report.problem, None, "PostgreSQL {major}");
    assert_names(major, report, REPLICA);
    let status = &report.status;
    assert!(status.in_recovery);
    assert_eq!((status.timeline, status.current_lsn), (Some(1), None));
    assert_eq!(status.replay_paused, Some(false));
    let receiver = status.receiver.as_ref().expect("a receiver");
    assert_eq!((receiver.received_timeline, receiver.slot_name.as_deref()), (Some(1), Some("replica")));
    assert!(receiver.flushed_lsn.is_some() && receiver.sender_port.is_some());
    assert_eq!(value(report, "pg_replication_is_replica", &[]), Some(1.0));
    assert_eq!(value(report, "pg_replication_lag_seconds", &[]), Some(0.0));
}

/// Without pg_monitor the HA state stays, and what is missing is named with the remedy.
async fn check_privileges(primary: &Server<'_>, before: &PostgresReport) {
    let report = primary.ask("127.0.0.1", &login("nobody_special")).await.unwrap();
    assert_eq!(report.status.system_identifier, before.status.system_identifier);
    let problem = report.problem.clone().expect("a problem");
    assert!(problem.contains("GRANT pg_monitor TO nobody_special"), "{problem}");
    assert!(names(&report).contains("pg_stat_database_xact_commit"));

    let error = primary.ask("127.0.0.1", &login("does_not_exist")).await.unwrap_err();
    assert!(error.contains("does_not_exist"), "{error}");
}

/// The write probe needs no right, no table and no writable default of its own role.
async fn check_writes(primary: &Server<'_>, replica: &Server<'_>) {
    primary.write(&login("nobody_special")).await.unwrap();
    let error = replica.write(&login("nobody_special")).await.unwrap_err();
    assert!(error.contains("recovery"), "{error}");
}

/// A role that may not write itself says nothing about the sessions of others; the server's own setting does.
async fn check_read_only(primary: &Server<'_>) {
    let client = primary.client().await;
    client.batch_execute("ALTER ROLE daraji SET default_transaction_read_only = on").await.unwrap();
    assert!(!primary.ask("127.0.0.1", &login("daraji")).await.unwrap().status.read_only);
    primary.write(&login("daraji")).await.unwrap();
    client.batch_execute("ALTER SYSTEM SET default_transaction_read_only = on").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    while !primary.ask("127.0.0.1", &login("nobody_special")).await.unwrap().status.read_only {
        tick.tick().await;
        assert!(tokio::time::Instant::now() < deadline, "the server's own setting was never seen");
    }
    assert_eq!(primary.write(&login("nobody_special")).await, Err("sessions are read only".to_owned()));
}

macro_rules! versions {
    ($($name:ident $major:literal),*) => {
        $(
            #[tokio::test]
            async fn $name() {
                check($major).await;
            }
        )*
    };
}

versions!(postgres_12 12, postgres_13 13, postgres_14 14, postgres_15 15, postgres_16 16, postgres_17 17, postgres_18 18);
