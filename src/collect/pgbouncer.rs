//! PgBouncer's admin console: pools, statistics, databases and lists, under pgbouncer_exporter's names.
//!
//! The console understands the simple query protocol only and adds columns with each release, so columns are found
//! by name and unknown ones ignored.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::config::SslMode as DriverSslMode;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::collect::config::{Address, PostgresConfig, SslMode};
use crate::collect::poll::{CollectError, Collector, Found};
use crate::collect::postgres::login::{Login, process_environment};
use crate::collect::postgres::session::{connect, console_failure, make_tls};
use crate::collect::postgres::stream::{Allowance, Metered};
use crate::model::labels::METRIC_NAME;
use crate::model::observation::FailureKind;
use crate::model::{Labels, Sample, Timestamp};
use crate::platform::error::chain;
use crate::platform::tasks::TaskGroup;

pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
const AGE_MAX: Duration = Duration::from_mins(10);
const ROWS_MAX: usize = 1000;

/// A column that becomes a metric, and the factor to its base unit.
type Metric = (&'static str, &'static str, f64);

struct Command {
    sql: &'static str,
    labels: &'static [(&'static str, &'static str)],
    metrics: &'static [Metric],
}

const COMMANDS: &[Command] = &[
    Command {
        sql: "SHOW POOLS",
        labels: &[("database", "database"), ("user", "user")],
        metrics: &[
            ("cl_active", "pgbouncer_pools_client_active_connections", 1.0),
            ("cl_waiting", "pgbouncer_pools_client_waiting_connections", 1.0),
            ("cl_active_cancel_req", "pgbouncer_pools_client_active_cancel_connections", 1.0),
            ("cl_waiting_cancel_req", "pgbouncer_pools_client_waiting_cancel_connections", 1.0),
            ("sv_active", "pgbouncer_pools_server_active_connections", 1.0),
            ("sv_active_cancel", "pgbouncer_pools_server_active_cancel_connections", 1.0),
            ("sv_being_canceled", "pgbouncer_pools_server_being_canceled_connections", 1.0),
            ("sv_idle", "pgbouncer_pools_server_idle_connections", 1.0),
            ("sv_used", "pgbouncer_pools_server_used_connections", 1.0),
            ("sv_tested", "pgbouncer_pools_server_testing_connections", 1.0),
            ("sv_login", "pgbouncer_pools_server_login_connections", 1.0),
            ("maxwait", "pgbouncer_pools_client_maxwait_seconds", 1.0),
        ],
    },
    Command {
        sql: "SHOW STATS",
        labels: &[("database", "database")],
        metrics: &[
            ("total_xact_count", "pgbouncer_stats_sql_transactions_pooled_total", 1.0),
            ("total_query_count", "pgbouncer_stats_queries_pooled_total", 1.0),
            ("total_received", "pgbouncer_stats_received_bytes_total", 1.0),
            ("total_sent", "pgbouncer_stats_sent_bytes_total", 1.0),
            ("total_xact_time", "pgbouncer_stats_server_in_transaction_seconds_total", 1e-6),
            ("total_query_time", "pgbouncer_stats_queries_duration_seconds_total", 1e-6),
            ("total_wait_time", "pgbouncer_stats_client_wait_seconds_total", 1e-6),
            ("total_server_assignment_count", "pgbouncer_stats_server_assignment_total", 1.0),
        ],
    },
    Command {
        sql: "SHOW DATABASES",
        labels: &[
            ("name", "name"),
            ("host", "host"),
            ("port", "port"),
            ("database", "database"),
            ("force_user", "force_user"),
            ("pool_mode", "pool_mode"),
        ],
        metrics: &[
            ("pool_size", "pgbouncer_databases_pool_size", 1.0),
            ("reserve_pool", "pgbouncer_databases_reserve_pool", 1.0),
            ("reserve_pool_size", "pgbouncer_databases_reserve_pool", 1.0),
            ("max_connections", "pgbouncer_databases_max_connections", 1.0),
            ("current_connections", "pgbouncer_databases_current_connections", 1.0),
            ("paused", "pgbouncer_databases_paused", 1.0),
            ("disabled", "pgbouncer_databases_disabled", 1.0),
        ],
    },
];

/// `SHOW LISTS` and `SHOW CONFIG` have a row per number.
const LISTS: &[(&str, &str)] = &[
    ("databases", "pgbouncer_databases"),
    ("users", "pgbouncer_users"),
    ("pools", "pgbouncer_pools"),
    ("free_clients", "pgbouncer_free_clients"),
    ("used_clients", "pgbouncer_used_clients"),
    ("login_clients", "pgbouncer_login_clients"),
    ("free_servers", "pgbouncer_free_servers"),
    ("used_servers", "pgbouncer_used_servers"),
];
const CONFIG: &[(&str, &str)] = &[
    ("max_client_conn", "pgbouncer_config_max_client_connections"),
    ("max_user_connections", "pgbouncer_config_max_user_connections"),
    ("default_pool_size", "pgbouncer_config_default_pool_size"),
];

/// Asks one console.
#[derive(Debug)]
pub(crate) struct PgBouncerCollector {
    dsn: Dsn,
    labels: Labels,
    group: TaskGroup,
    open: Option<Console>,
}

#[derive(Debug)]
struct Console {
    client: Client,
    allowance: Allowance,
    opened_at: Instant,
    _connection: DropGuard,
}

/// A parsed `postgres://` URL of a console.
#[derive(Clone)]
pub(crate) struct Dsn {
    options: tokio_postgres::Config,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl std::fmt::Debug for Dsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dsn({}:{})", self.host, self.port)
    }
}

impl Dsn {
    pub(crate) fn parse(text: &str) -> Result<Self, CollectError> {
        let foreign = |error: String| {
            CollectError::new(FailureKind::Other, error)
                .with_hint("write it like postgres://stats@10.0.0.31:6432/pgbouncer; the password comes from ~/.pgpass")
        };
        let options: tokio_postgres::Config = text.parse().map_err(|error| foreign(chain(&error)))?;
        let host = match options.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
            _ => return Err(foreign("the address of PgBouncer names no host".to_owned())),
        };
        // The driver fills in PostgreSQL's port where none is written.
        let written = options.get_ports().first().filter(|port| text.contains(&format!(":{port}")));
        let port = written.copied().unwrap_or(6432);
        Ok(Self { options, host, port })
    }
}

impl PgBouncerCollector {
    pub(crate) fn new(dsn: Dsn, labels: Labels, group: TaskGroup) -> Self {
        Self { dsn, labels, group, open: None }
    }

    async fn open(&self) -> Result<Console, CollectError> {
        let allowance = Allowance::new();
        let mut options = self.dsn.options.clone();
        let sslmode = match options.get_ssl_mode() {
            DriverSslMode::Disable => SslMode::Disable,
            DriverSslMode::Require => SslMode::Require,
            _ => SslMode::Prefer,
        };
        let config = PostgresConfig {
            user: options.get_user().map(str::to_owned),
            database: Some(options.get_dbname().unwrap_or("pgbouncer").to_owned()),
            sslmode: Some(sslmode),
            ..PostgresConfig::default()
        };
        let login = Login::resolve(&config, process_environment)?;
        options.user(&login.user).dbname(&login.database).application_name("daraji");
        if options.get_password().is_none()
            && let Some(password) = login.password(&self.dsn.host, self.dsn.port)?
        {
            // Goes into the driver, which sends it as the console asks.
            options.password(password.expose());
        }
        let address = Address { host: self.dsn.host.clone(), port: self.dsn.port };
        let stream = Metered::new(connect(&address).await?, allowance.clone());
        let connected = options.connect_raw(stream, make_tls(&login, &address.host)).await;
        let (client, connection) = connected.map_err(|error| console_failure(&error))?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        self.group.spawn_until_stop("pgbouncer connection", async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                // What went wrong is seen by the command under way.
                _ended = connection => {}
            }
        });
        Ok(Console { client, allowance, opened_at: Instant::now(), _connection: stop.drop_guard() })
    }

    fn put(&self, name: &str, labels: &[(&str, &str)], value: f64, at: Timestamp) -> Sample {
        let mut builder = self.labels.to_builder();
        builder.set(METRIC_NAME, name);
        for (name, value) in labels {
            builder.set(*name, *value);
        }
        Sample::new(builder.build(), at, value)
    }

    fn rows(&self, command: &Command, rows: &[SimpleQueryRow], at: Timestamp, out: &mut Vec<Sample>) {
        for row in rows {
            let labels: Vec<_> = command.labels.iter().map(|(column, label)| (*label, text(row, column))).collect();
            for (column, name, factor) in command.metrics {
                if let Ok(value) = text(row, column).parse::<f64>() {
                    out.push(self.put(name, &labels, value * factor, at));
                }
            }
        }
    }
}

/// The column's text; "" where it is missing or NULL.
fn text<'a>(row: &'a SimpleQueryRow, column: &str) -> &'a str {
    let index = row.columns().iter().position(|candidate| candidate.name() == column);
    index.and_then(|index| row.try_get(index).ok().flatten()).unwrap_or("")
}

async fn show(client: &Client, sql: &str) -> Result<Vec<SimpleQueryRow>, CollectError> {
    let messages = client.simple_query(sql).await.map_err(|error| console_failure(&error))?;
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).take(ROWS_MAX).collect())
}

impl Collector for PgBouncerCollector {
    async fn collect(&mut self, at: Timestamp) -> Result<Found, CollectError> {
        let usable = |open: &Console| !open.client.is_closed() && open.opened_at.elapsed() < AGE_MAX;
        let open = match self.open.take().filter(usable) {
            Some(open) => open,
            None => self.open().await?,
        };
        open.allowance.renew();
        let mut samples = vec![self.put("pgbouncer_up", &[], 1.0, at)];
        for command in COMMANDS {
            let rows = show(&open.client, command.sql).await?;
            self.rows(command, &rows, at, &mut samples);
        }
        for (sql, key, value, names) in
            [("SHOW LISTS", "list", "items", LISTS), ("SHOW CONFIG", "key", "value", CONFIG)]
        {
            for row in show(&open.client, sql).await? {
                let name = names.iter().find(|(word, _)| *word == text(&row, key));
                if let (Some((_, name)), Ok(value)) = (name, text(&row, value).parse()) {
                    samples.push(self.put(name, &[], value, at));
                }
            }
        }
        self.open = Some(open);
        Ok(Found { sections: vec![("console", samples)], ..Found::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_consoles() {
        let dsn = Dsn::parse("postgres://stats@10.0.0.31:6432/pgbouncer").unwrap();
        assert_eq!((dsn.host.as_str(), dsn.port), ("10.0.0.31", 6432));
        assert_eq!(format!("{:?}", Dsn::parse("postgres://a:secret@h/x").unwrap()), "Dsn(h:6432)");
        for bad in ["10.0.0.31", "postgres://", "host=/tmp"] {
            assert!(Dsn::parse(bad).is_err(), "{bad}");
        }
    }
}
