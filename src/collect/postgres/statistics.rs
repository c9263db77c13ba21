//! PostgreSQL's statistics views as samples, for versions 12 to 18.
//!
//! A view is one statement per version. Its columns say what becomes of them: text columns are labels, `float8`
//! columns are metrics called like the column; NULL is "no sample". Where the name depends on the row, the columns
//! [`NAME_COLUMN`] and [`VALUE_COLUMN`] hold name and value.
//!
//! Invariant: a view that fails costs itself only, and is named on the Targets page; rows per view are bounded.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::Type;
use tokio_postgres::{Row, Statement};

use crate::collect::config::{Address, PostgresConfig};
use crate::collect::patroni::due;
use crate::collect::poll::{CollectError, Collector, Found};
use crate::collect::postgres::session::{Session, Setup};
use crate::collect::postgres::views::{Server, VIEWS, View};
use crate::model::labels::METRIC_NAME;
use crate::model::observation::FailureKind;
use crate::model::{Labels, LabelsBuilder, Sample, Timestamp};
use crate::platform::tasks::TaskGroup;

/// Interval of the session; single views may be asked less often.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
/// All views of one round together.
pub(crate) const DEADLINE: Duration = Duration::from_secs(9);
/// Rows used of one view.
const ROWS_MAX: usize = 5000;
/// Bytes kept of one label's value.
const LABEL_BYTES_MAX: usize = 256;
pub(crate) const NAME_COLUMN: &str = "metric_name";
pub(crate) const VALUE_COLUMN: &str = "metric_value";

const SETUP: Setup = Setup { statement_timeout: Duration::from_secs(3), read_only: true };

/// Asks one PostgreSQL for its statistics.
#[derive(Debug)]
pub(crate) struct StatisticsCollector {
    config: PostgresConfig,
    address: Address,
    group: TaskGroup,
    labels: Labels,
    open: Option<Open>,
    asked_at: HashMap<&'static str, Option<Instant>>,
}

#[derive(Debug)]
struct Open {
    session: Session,
    server: Server,
    statements: HashMap<&'static str, Statement>,
    /// Views that we may not read; tried again with the next session.
    denied: HashSet<&'static str>,
}

impl StatisticsCollector {
    pub(crate) fn new(config: PostgresConfig, address: Address, labels: Labels, group: TaskGroup) -> Self {
        Self { config, address, group, labels, open: None, asked_at: HashMap::new() }
    }

    async fn open(&self) -> Result<Open, CollectError> {
        let session = Session::open(&self.config, &self.address, SETUP, &self.group).await?;
        let error = |error: tokio_postgres::Error| session.failure(&error);
        let row = session
            .client
            .query_one(
                "SELECT current_setting('server_version_num')::int4, (SELECT quote_ident(n.nspname) \
                 FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace \
                 WHERE e.extname = 'pg_stat_statements' \
                 AND current_setting('pg_stat_statements.max', true) IS NOT NULL)",
                &[],
            )
            .await
            .map_err(error)?;
        let version = u32::try_from(row.try_get::<_, i32>(0).map_err(error)?).unwrap_or(0);
        let server = Server { version, statements_schema: row.try_get(1).map_err(error)?, in_recovery: false };
        Ok(Open { session, server, statements: HashMap::new(), denied: HashSet::new() })
    }
}

impl Collector for StatisticsCollector {
    async fn collect(&mut self, at: Timestamp) -> Result<Found, CollectError> {
        // Taken out: if the deadline cuts this short, an answer is under way on the connection, which must go.
        let mut open = if let Some(open) = self.open.take().filter(|open| open.session.usable()) {
            open
        } else {
            self.asked_at.clear();
            self.open().await?
        };
        let row = open.session.client.query_one("SELECT pg_is_in_recovery()", &[]).await;
        let in_recovery = row.and_then(|row| row.try_get(0)).map_err(|error| open.session.failure(&error))?;
        if in_recovery != open.server.in_recovery {
            // The statements differ, and so does what may be asked at all.
            open.statements.clear();
            self.asked_at.clear();
        }
        open.server.in_recovery = in_recovery;
        let mut found = Found::default();
        for view in VIEWS {
            if open.denied.contains(view.name) || !due(self.asked_at.entry(view.name).or_default(), view.every) {
                continue;
            }
            match open.ask(view, &self.labels, at).await {
                Ok(samples) => found.sections.push((view.name, samples)),
                Err(error) if open.session.client.is_closed() => return Err(error),
                Err(error) => {
                    if error.kind == FailureKind::Denied {
                        open.denied.insert(view.name);
                    }
                    found.sections.push((view.name, Vec::new()));
                    found
                        .problem
                        .get_or_insert(CollectError { error: format!("{}: {}", view.name, error.error), ..error });
                }
            }
        }
        self.open = Some(open);
        Ok(found)
    }
}

impl Open {
    async fn ask(&mut self, view: &View, labels: &Labels, at: Timestamp) -> Result<Vec<Sample>, CollectError> {
        let Some(sql) = (view.sql)(&self.server) else { return Ok(Vec::new()) };
        let statement = if let Some(statement) = self.statements.get(view.name) {
            statement.clone()
        } else {
            let prepared = self.session.client.prepare(&sql).await;
            let statement = prepared.map_err(|error| self.session.failure(&error))?;
            self.statements.insert(view.name, statement.clone());
            statement
        };
        let rows = self.session.client.query(&statement, &[]).await;
        let rows = rows.map_err(|error| self.session.failure(&error))?;
        let mut samples = Vec::new();
        for row in rows.iter().take(ROWS_MAX) {
            map_row(row, labels, at, &mut samples);
        }
        Ok(samples)
    }
}

/// Turns a row into samples.
fn map_row(row: &Row, labels: &Labels, at: Timestamp, out: &mut Vec<Sample>) {
    let mut base = labels.to_builder();
    let mut name: Option<String> = None;
    for (index, column) in row.columns().iter().enumerate() {
        if matches!(*column.type_(), Type::TEXT | Type::NAME)
            && let Ok(Some(text)) = row.try_get::<_, Option<String>>(index)
        {
            if column.name() == NAME_COLUMN {
                name = Some(text);
            } else {
                base.set(column.name(), cut(&text));
            }
        }
    }
    for (index, column) in row.columns().iter().enumerate() {
        if *column.type_() != Type::FLOAT8 {
            continue;
        }
        let Ok(Some(value)) = row.try_get::<_, Option<f64>>(index) else { continue };
        let metric = match (column.name(), &name) {
            (VALUE_COLUMN, Some(name)) => name.as_str(),
            (column, _) => column,
        };
        out.push(Sample::new(named(&base, metric), at, value));
    }
}

fn named(base: &LabelsBuilder, metric: &str) -> Labels {
    let mut labels = base.clone();
    labels.set(METRIC_NAME, metric);
    labels.build()
}

/// Names in a database may be as long as somebody likes.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LABEL_BYTES_MAX)).unwrap_or(text)
}
