//! What clients feel: one tiny transaction each second through the proxy that they use.
//!
//! It writes a transactional logical message, which needs no table and no right, and leaves a few dozen bytes of WAL.
//! Its commit does not wait for synchronous standbys: a backend that waits for one would stay behind when we hang up.
//!
//! Invariant: a server that never answers is not asked again and again. An attempt without an answer is waited for by
//! the next ones, longer each time, before another connection is opened.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::Statement;

use crate::collect::config::{Address, PostgresConfig};
use crate::collect::poll::{CollectError, Collector, Found};
use crate::collect::postgres::ha_state::SERVER_IS_READ_ONLY;
use crate::collect::postgres::session::{Session, Setup};
use crate::model::Timestamp;
use crate::model::observation::{Claim, FailureKind};
use crate::platform::tasks::TaskGroup;

pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
pub(crate) const DEADLINE: Duration = Duration::from_millis(1900);
/// A client would call this hanging.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);
/// An unanswered attempt is given up after this, and after twice as long each time, up to ...
const PATIENCE_MIN: Duration = Duration::from_secs(5);
const PATIENCE_MAX: Duration = Duration::from_mins(1);

const SETUP: Setup = Setup { statement_timeout: Duration::from_secs(5), read_only: false };

type Attempt = Pin<Box<dyn Future<Output = Result<Open, CollectError>> + Send>>;

/// Writes through one address.
pub(crate) struct WriteProbe {
    config: PostgresConfig,
    address: Address,
    group: TaskGroup,
    open: Option<Open>,
    /// What has not been answered yet, and since when.
    pending: Option<(Instant, Attempt)>,
    patience: Duration,
}

struct Open {
    session: Session,
    statement: Statement,
}

impl WriteProbe {
    pub(crate) fn new(config: PostgresConfig, address: Address, group: TaskGroup) -> Self {
        Self { config, address, group, open: None, pending: None, patience: PATIENCE_MIN }
    }

    fn attempt(&mut self) -> Attempt {
        let open = self.open.take().filter(|open| open.session.usable());
        let (config, address, group) = (self.config.clone(), self.address.clone(), self.group.clone());
        Box::pin(async move {
            let open = match open {
                Some(open) => open,
                None => connect(&config, &address, &group).await?,
            };
            write(&open).await?;
            Ok(open)
        })
    }
}

async fn connect(config: &PostgresConfig, address: &Address, group: &TaskGroup) -> Result<Open, CollectError> {
    let session = Session::open(config, address, SETUP, group).await?;
    let set = session.client.batch_execute("SET synchronous_commit = local").await;
    set.map_err(|error| session.failure(&error))?;
    // The function works in a read-only transaction too, in which clients cannot write.
    let sql = format!("SELECT pg_logical_emit_message(true, 'daraji', ''), {SERVER_IS_READ_ONLY}");
    let statement = session.client.prepare(&sql).await.map_err(|error| session.failure(&error))?;
    Ok(Open { session, statement })
}

async fn write(open: &Open) -> Result<(), CollectError> {
    let failure = |error| open.session.failure(&error);
    let row = open.session.client.query_one(&open.statement, &[]).await.map_err(failure)?;
    if row.try_get(1).map_err(failure)? {
        return Err(CollectError::new(FailureKind::Rejecting, "sessions are read only"));
    }
    Ok(())
}

impl Collector for WriteProbe {
    async fn collect(&mut self, _at: Timestamp) -> Result<Found, CollectError> {
        let (since, mut attempt) = match self.pending.take() {
            Some(pending) => pending,
            None => (Instant::now(), self.attempt()),
        };
        if let Ok(answer) = timeout(ANSWER_WITHIN, &mut attempt).await {
            self.open = Some(answer?);
            self.patience = PATIENCE_MIN;
            return Ok(Found { claims: vec![Claim::Written.into()], ..Found::default() });
        }
        let waited = since.elapsed();
        if waited < self.patience {
            self.pending = Some((since, attempt));
        } else {
            self.patience = (self.patience * 2).min(PATIENCE_MAX);
        }
        let text = format!("no answer from {} for {:.1} s", self.address, waited.as_secs_f64());
        Err(CollectError::new(FailureKind::Timeout, text))
    }
}
