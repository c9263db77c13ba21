//! One session: connecting with every guard on, and telling failures apart.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::collect::config::{Address, PostgresConfig, SslMode};
use crate::collect::poll::CollectError;
use crate::collect::postgres::login::{Login, process_environment};
use crate::collect::postgres::stream::{Allowance, Metered};
use crate::model::observation::FailureKind;
use crate::platform::error::chain;
use crate::platform::http_client::io_failure_kind;
use crate::platform::tasks::TaskGroup;

/// Sessions are renewed, because old ones keep memory on the server and survive on a standby in odd states.
const AGE_MAX: Duration = Duration::from_mins(10);
/// Long enough for one lost packet.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1300);
/// What every session asks of the server.
const GUARDS: &str = "-c lock_timeout=500 -c idle_in_transaction_session_timeout=5000 -c jit=off \
                      -c max_parallel_workers_per_gather=0 -c client_min_messages=error";

/// An open session. Dropping it closes the connection at once, also when the server hangs.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    login: Login,
    allowance: Allowance,
    opened_at: Instant,
    _connection: DropGuard,
}

/// How a session is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) statement_timeout: Duration,
    /// `default_transaction_read_only`. Off only for the session that has to see the server's own value of it.
    pub(crate) read_only: bool,
}

impl Session {
    /// Connects. The caller has a deadline around this.
    pub(crate) async fn open(
        config: &PostgresConfig,
        address: &Address,
        setup: Setup,
        group: &TaskGroup,
    ) -> Result<Self, CollectError> {
        let login = Login::resolve(config, process_environment)?;
        let mut options = tokio_postgres::Config::new();
        let read_only = if setup.read_only { " -c default_transaction_read_only=on" } else { "" };
        options
            .user(&login.user)
            .dbname(&login.database)
            .application_name("daraji")
            .options(format!("-c statement_timeout={} {GUARDS}{read_only}", setup.statement_timeout.as_millis()))
            .ssl_mode(match login.sslmode {
                SslMode::Disable => tokio_postgres::config::SslMode::Disable,
                SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
                SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
            });
        if let Some(password) = login.password(&address.host, address.port)? {
            // Goes into the driver, which sends it as the server asks.
            options.password(password.expose());
        }
        let allowance = Allowance::new();
        let stream = connect(address).await?;
        let tls = make_tls(&login, &address.host);
        let connected = options.connect_raw(Metered::new(stream, allowance.clone()), tls).await;
        let (client, connection) = connected.map_err(|error| failure(&error, &login))?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        group.spawn_until_stop("postgres connection", async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                // What went wrong is seen by the statement under way.
                _ended = connection => {}
            }
        });
        Ok(Self { client, login, allowance, opened_at: Instant::now(), _connection: stop.drop_guard() })
    }

    /// The user that is logged in.
    pub(crate) fn user(&self) -> &str {
        &self.login.user
    }

    /// What a failed statement says about the server.
    pub(crate) fn failure(&self, error: &tokio_postgres::Error) -> CollectError {
        failure(error, &self.login)
    }

    /// How long ago it was opened.
    pub(crate) fn age(&self) -> Duration {
        self.opened_at.elapsed()
    }

    /// Whether it may be used for another round, which begins with this.
    pub(crate) fn usable(&self) -> bool {
        self.allowance.renew();
        !self.client.is_closed() && self.opened_at.elapsed() < AGE_MAX
    }
}

/// Opens the TCP connection. A host that does not answer even to that is unreachable; one that hangs later times out.
pub(crate) async fn connect(address: &Address) -> Result<TcpStream, CollectError> {
    let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect((address.host.as_str(), address.port)));
    let no_answer = |_| CollectError::new(FailureKind::Unreachable, format!("connect to {address}: no answer"));
    connecting.await.map_err(no_answer)?.map_err(|error| {
        let kind = io_failure_kind(&error).filter(|kind| *kind != FailureKind::Timeout);
        CollectError::new(kind.unwrap_or(FailureKind::Unreachable), format!("connect to {address}: {error}"))
    })
}

/// TLS for one connection, for the case that the server offers it.
pub(crate) fn make_tls(login: &Login, host: &str) -> <MakeRustlsConnect as MakeTlsConnect<Metered>>::TlsConnect {
    let mut tls = (*login.tls).clone();
    match MakeTlsConnect::<Metered>::make_tls_connect(&mut tls, host) {
        Ok(connect) => connect,
        Err(never) => match never {},
    }
}

/// What a failure of connecting or asking says about the server, and what to do about it.
fn failure(error: &tokio_postgres::Error, login: &Login) -> CollectError {
    let text = chain(error);
    let user = &login.user;
    let Some(code) = error.code() else {
        return transport_failure(error, text);
    };
    let (kind, hint) = match code {
        code if *code == SqlState::CANNOT_CONNECT_NOW
            || *code == SqlState::ADMIN_SHUTDOWN
            || *code == SqlState::CRASH_SHUTDOWN =>
        {
            (FailureKind::Rejecting, None)
        }
        code if *code == SqlState::TOO_MANY_CONNECTIONS => (
            FailureKind::Rejecting,
            Some(format!(
                "all connection slots are taken; on PostgreSQL 16 and later reserved_connections and \
                 GRANT pg_use_reserved_connections TO {user} keep one for monitoring"
            )),
        ),
        code if *code == SqlState::INVALID_PASSWORD => (
            FailureKind::Denied,
            Some(format!(
                "check postgres.user and postgres.password_file; to create the role: CREATE ROLE {user} LOGIN \
                 PASSWORD '...' IN ROLE pg_monitor"
            )),
        ),
        code if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => (
            FailureKind::Denied,
            Some(format!(
                "let the monitor in by pg_hba.conf (with Patroni: postgresql.pg_hba), e.g. \
                 host {} {user} ADDRESS-OF-DARAJI/32 scram-sha-256; to create the role: CREATE ROLE {user} LOGIN \
                 PASSWORD '...' IN ROLE pg_monitor",
                login.database
            )),
        ),
        code if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            (FailureKind::Denied, Some(format!("GRANT pg_monitor TO {user}")))
        }
        code if *code == SqlState::INVALID_CATALOG_NAME => {
            (FailureKind::Other, Some("set postgres.database to a database that exists on every member".to_owned()))
        }
        code if *code == SqlState::QUERY_CANCELED || *code == SqlState::LOCK_NOT_AVAILABLE => {
            (FailureKind::Timeout, None)
        }
        _ => (FailureKind::Other, None),
    };
    CollectError { kind, error: text, hint }
}

fn transport_failure(error: &tokio_postgres::Error, text: String) -> CollectError {
    if text.contains("password missing") {
        return CollectError::new(FailureKind::Denied, "the server asks for a password and none is known").with_hint(
            "add to the cluster: postgres: {user: daraji, password_file: /etc/daraji/pg.pass}; or set PGUSER and \
             PGPASSWORD, or a line in ~/.pgpass",
        );
    }
    if let Some(kind) = io_failure_kind(error) {
        return CollectError::new(kind, text);
    }
    if text.contains("TLS") {
        let hint = "check postgres.sslmode and postgres.sslrootcert against the server's ssl settings";
        return CollectError::new(FailureKind::Denied, text).with_hint(hint);
    }
    if error.is_closed() {
        return CollectError::new(FailureKind::Reset, text);
    }
    let name_unknown = text.contains("failed to lookup address");
    CollectError::new(if name_unknown { FailureKind::Unreachable } else { FailureKind::Other }, text)
}

/// The same for PgBouncer's console, which has no roles of its own to grant.
pub(crate) fn console_failure(error: &tokio_postgres::Error) -> CollectError {
    let text = chain(error);
    let failure = match error.code() {
        None => transport_failure(error, text),
        // PgBouncer says "protocol violation" for almost everything, so the text decides.
        Some(_) if ["auth", "not allowed", "password", "no such user"].iter().any(|word| text.contains(word)) => {
            CollectError::new(FailureKind::Denied, text)
        }
        Some(_) => CollectError::new(FailureKind::Other, text),
    };
    if failure.kind == FailureKind::Denied {
        return CollectError { hint: None, ..failure }.with_hint(
            "the user must be in stats_users of pgbouncer.ini; its password comes from ~/.pgpass or PGPASSWORD",
        );
    }
    failure
}
