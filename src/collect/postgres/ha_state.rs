//! What a member's PostgreSQL says about its role: one statement, every two seconds.
//!
//! Invariant: reads shared memory and the process table only; no user table, no file but the control file of a
//! replica without upstream.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;
use tokio_postgres::Statement;

use crate::collect::config::{Address, PostgresConfig};
use crate::collect::poll::{CollectError, Collector, Found, Said};
use crate::collect::postgres::session::{Session, Setup};
use crate::model::observation::{Claim, Failure, FailureKind, PostgresStatus, Slot, WalReceiver, WalSender};
use crate::model::{Lsn, Timestamp};
use crate::platform::clock::Clock;
use crate::platform::tasks::TaskGroup;

/// Interval of the statement.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);
/// From connecting to the last byte.
pub(crate) const DEADLINE: Duration = Duration::from_millis(2500);
/// How often a new session replaces the one in use: a postmaster that hangs is only seen by who comes anew.
const RENEW_EVERY: Duration = Duration::from_secs(30);
const NEW_SESSION_WITHIN: Duration = Duration::from_secs(2);
/// Rows of senders and slots that are kept.
const ROWS_MAX: usize = 256;

const SETUP: Setup = Setup {
    statement_timeout: Duration::from_secs(2),
    // This session has to see whether ordinary sessions may write. It runs nothing but SELECT.
    read_only: false,
};

/// Asks one PostgreSQL for its role.
#[derive(Debug)]
pub(crate) struct HaStateCollector {
    config: PostgresConfig,
    address: Address,
    clock: Clock,
    group: TaskGroup,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    session: Session,
    statement: Statement,
    system_identifier: Option<String>,
    server_version: u32,
    may_monitor: bool,
}

impl HaStateCollector {
    pub(crate) fn new(config: PostgresConfig, address: Address, clock: Clock, group: TaskGroup) -> Self {
        Self { config, address, clock, group, open: None }
    }

    async fn open(&self) -> Result<Open, CollectError> {
        let session = Session::open(&self.config, &self.address, SETUP, &self.group).await?;
        let error = |error: tokio_postgres::Error| session.failure(&error);
        let row = session
            .client
            .query_one(
                "SELECT current_setting('server_version_num')::int4, pg_has_role(current_user, 'pg_monitor', 'USAGE'), \
                 (SELECT system_identifier::text FROM pg_control_system())",
                &[],
            )
            .await
            .map_err(error)?;
        let server_version = u32::try_from(row.try_get::<_, i32>(0).map_err(error)?).unwrap_or(0);
        let may_monitor = row.try_get(1).map_err(error)?;
        let system_identifier = row.try_get(2).map_err(error)?;
        let statement = session.client.prepare(&statement(server_version)).await.map_err(error)?;
        Ok(Open { session, statement, system_identifier, server_version, may_monitor })
    }
}

impl Collector for HaStateCollector {
    async fn collect(&mut self, _at: Timestamp) -> Result<Found, CollectError> {
        // Taken out: if the deadline cuts this short, an answer is under way on the connection, which must go.
        let open = match self.open.take().filter(|open| open.session.usable()) {
            Some(open) => open,
            None => self.open().await?,
        };
        let sent = self.clock.now();
        let row = open.session.client.query_one(&open.statement, &[]).await;
        let between = Some((sent, self.clock.now()));
        let row = row.map_err(|error| open.session.failure(&error))?;
        let body: String = row.try_get(0).map_err(|error| open.session.failure(&error))?;
        let mut status = parse(&body)?;
        status.system_identifier.clone_from(&open.system_identifier);
        status.server_version = Some(open.server_version);
        let problem = (!open.may_monitor).then(|| {
            let user = open.session.user();
            CollectError::new(FailureKind::Denied, format!("role {user} is no member of pg_monitor"))
                .with_hint(format!("GRANT pg_monitor TO {user}"))
        });
        self.open = Some(open);
        Ok(Found { claims: vec![Said { claim: Claim::Postgres(status), between }], problem, ..Found::default() })
    }

    async fn collect_more(&mut self, _at: Timestamp) -> Found {
        if self.open.as_ref().is_none_or(|open| open.session.age() < RENEW_EVERY) {
            return Found::default();
        }
        let opened = timeout(NEW_SESSION_WITHIN, self.open()).await.unwrap_or_else(|_elapsed| {
            let text = format!("no new session within {} s", NEW_SESSION_WITHIN.as_secs());
            Err(CollectError::new(FailureKind::Timeout, text))
        });
        let failure = match opened {
            Ok(open) => {
                self.open = Some(open);
                None
            }
            Err(error) => Some(Failure { kind: error.kind, error: error.error }),
        };
        Found { claims: vec![Claim::NewSession(failure).into()], ..Found::default() }
    }
}

/// Whether sessions are read only by the server's own setting. A role for monitoring is often set to read only itself:
/// that says nothing about the sessions of others.
pub(crate) const SERVER_IS_READ_ONLY: &str = "CASE WHEN current_setting('default_transaction_read_only') = 'on' THEN \
    (SELECT source NOT IN ('user', 'database user', 'client', 'session') FROM pg_settings \
     WHERE name = 'default_transaction_read_only') ELSE false END";

/// The statement for a server version.
fn statement(server_version: u32) -> String {
    // Before 13 the receiver told only what it had received.
    let flushed = if server_version >= 130_000 { "flushed_lsn" } else { "received_lsn" };
    let wal_status = if server_version >= 130_000 { "wal_status" } else { "NULL::text" };
    format!(
        "SELECT json_build_object(\
        'in_recovery', r.rec, \
        'read_only', {SERVER_IS_READ_ONLY}, \
        'timeline', CASE WHEN r.rec THEN coalesce(w.received_tli, \
            (SELECT nullif(greatest(c.timeline_id, m.min_recovery_end_timeline), 0) \
             FROM pg_control_checkpoint() c, pg_control_recovery() m)) \
          ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int8 END, \
        'current_lsn', CASE WHEN NOT r.rec THEN pg_current_wal_lsn() END, \
        'receive_lsn', CASE WHEN r.rec THEN pg_last_wal_receive_lsn() END, \
        'replay_lsn', CASE WHEN r.rec THEN pg_last_wal_replay_lsn() END, \
        'last_replay_at', CASE WHEN r.rec THEN pg_last_xact_replay_timestamp() END, \
        'replay_paused', CASE WHEN r.rec THEN pg_is_wal_replay_paused() END, \
        'postmaster_start_time', pg_postmaster_start_time(), \
        'server_now', clock_timestamp(), \
        'apply_delay_seconds', CASE WHEN r.rec THEN extract(epoch FROM \
            current_setting('recovery_min_apply_delay', true)::interval)::float8 END, \
        'receiver', CASE WHEN w.pid IS NOT NULL THEN json_build_object('status', w.status, \
            'received_timeline', w.received_tli, 'flushed_lsn', w.{flushed}, 'latest_end_lsn', w.latest_end_lsn, \
            'last_message_at', w.last_msg_receipt_time, 'sender_host', w.sender_host, 'sender_port', w.sender_port, \
            'slot_name', w.slot_name) END, \
        'senders', (SELECT json_agg(json_build_object('application_name', s.application_name, \
            'client_address', host(s.client_addr), 'state', s.state, 'sync_state', s.sync_state, \
            'sent_lsn', s.sent_lsn, 'write_lsn', s.write_lsn, 'flush_lsn', s.flush_lsn, 'replay_lsn', s.replay_lsn, \
            'replay_lag_seconds', extract(epoch FROM s.replay_lag)::float8)) FROM pg_stat_replication s), \
        'slots', (SELECT json_agg(json_build_object('name', l.slot_name, 'kind', l.slot_type, 'active', l.active, \
            'restart_lsn', l.restart_lsn, 'wal_status', {wal_status})) FROM pg_replication_slots l), \
        'connections', d.numbackends, 'commits', d.xact_commit, \
        'max_connections', current_setting('max_connections')::int4)::text \
        FROM (SELECT pg_is_in_recovery() AS rec) r \
        CROSS JOIN (SELECT sum(numbackends)::int8 AS numbackends, sum(xact_commit)::int8 AS xact_commit \
            FROM pg_stat_database) d \
        LEFT JOIN pg_stat_wal_receiver w ON true"
    )
}

/// Reads the statement's answer.
fn parse(body: &str) -> Result<PostgresStatus, CollectError> {
    let foreign = || CollectError::new(FailureKind::Other, "the server's answer to the HA statement cannot be read");
    let root: Value = serde_json::from_str(body).map_err(|_| foreign())?;
    let in_recovery = root.get("in_recovery").and_then(Value::as_bool).ok_or_else(foreign)?;
    let list = |key: &str| root.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    Ok(PostgresStatus {
        in_recovery,
        read_only: flag(&root, "read_only").unwrap_or(false),
        timeline: number(&root, "timeline"),
        current_lsn: lsn(&root, "current_lsn"),
        receive_lsn: lsn(&root, "receive_lsn"),
        replay_lsn: lsn(&root, "replay_lsn"),
        last_replay_at: time(&root, "last_replay_at"),
        replay_paused: flag(&root, "replay_paused"),
        postmaster_start_time: time(&root, "postmaster_start_time"),
        system_identifier: None,
        server_version: None,
        server_now: time(&root, "server_now"),
        apply_delay_seconds: root.get("apply_delay_seconds").and_then(Value::as_f64),
        receiver: root.get("receiver").filter(|receiver| receiver.is_object()).map(receiver),
        senders: list("senders").iter().take(ROWS_MAX).map(sender).collect(),
        slots: list("slots").iter().take(ROWS_MAX).map(slot).collect(),
        connections: number(&root, "connections"),
        max_connections: number(&root, "max_connections"),
        commits: root.get("commits").and_then(Value::as_u64),
    })
}

fn receiver(value: &Value) -> WalReceiver {
    WalReceiver {
        status: text(value, "status").unwrap_or_default(),
        received_timeline: number(value, "received_timeline"),
        flushed_lsn: lsn(value, "flushed_lsn"),
        latest_end_lsn: lsn(value, "latest_end_lsn"),
        last_message_at: time(value, "last_message_at"),
        sender_host: text(value, "sender_host"),
        sender_port: number(value, "sender_port").and_then(|port| u16::try_from(port).ok()),
        slot_name: text(value, "slot_name"),
    }
}

fn sender(value: &Value) -> WalSender {
    WalSender {
        application_name: text(value, "application_name").unwrap_or_default(),
        client_address: text(value, "client_address"),
        state: text(value, "state").unwrap_or_default(),
        sync_state: text(value, "sync_state").unwrap_or_default(),
        sent_lsn: lsn(value, "sent_lsn"),
        write_lsn: lsn(value, "write_lsn"),
        flush_lsn: lsn(value, "flush_lsn"),
        replay_lsn: lsn(value, "replay_lsn"),
        replay_lag_seconds: value.get("replay_lag_seconds").and_then(Value::as_f64),
    }
}

fn slot(value: &Value) -> Slot {
    Slot {
        name: text(value, "name").unwrap_or_default(),
        kind: text(value, "kind").unwrap_or_default(),
        active: flag(value, "active").unwrap_or(false),
        restart_lsn: lsn(value, "restart_lsn"),
        wal_status: text(value, "wal_status"),
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn flag(value: &Value, key: &str) -> Option<bool> {
    value.get(key).and_then(Value::as_bool)
}

fn number(value: &Value, key: &str) -> Option<u32> {
    value.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())
}

fn lsn(value: &Value, key: &str) -> Option<Lsn> {
    value.get(key).and_then(Value::as_str).and_then(|text| text.parse().ok())
}

fn time(value: &Value, key: &str) -> Option<Timestamp> {
    value.get(key).and_then(Value::as_str).and_then(|text| Timestamp::parse_rfc3339(text).ok())
}
