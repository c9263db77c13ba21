//! Evaluates LogQL over the log store: lines for log expressions, numbers on a grid of steps for metric expressions.
//!
//! Invariant: bytes read, points held, series and time are bounded; what exceeds a bound is an error that says which.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::{Labels, LabelsBuilder, LogRecord, Timestamp};
use crate::store::logs::{Budget, Direction, LogQuery, LogStore, LogStoreError, SearchStats};

use super::ast::{Expr, LogExpr, MetricExpr};
use super::labels::Category;
use super::{ParseError, aggregate, binary, parse, window};

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The query asks for something that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// A bound; the text names it and what to do.
    #[error("{0}")]
    Limit(String),
    #[error("the query took longer than {} s; narrow its time range or its selector", .0.as_secs())]
    Timeout(Duration),
    #[error("the query was cancelled")]
    Cancelled,
    #[error("read log records")]
    Store(#[source] LogStoreError),
}

impl From<LogStoreError> for QueryError {
    fn from(error: LogStoreError) -> Self {
        match error {
            LogStoreError::Cancelled => Self::Cancelled,
            LogStoreError::BudgetExceeded { .. } => Self::Limit(error.to_string()),
            other => Self::Store(other),
        }
    }
}

/// Bounds of one query.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    pub timeout: Duration,
    pub bytes_max: u64,
    /// Lines that count in metric queries and need memory until the end.
    pub points_max: usize,
    pub series_max: usize,
    pub steps_max: i64,
    /// Whether lines get the label `detected_level`, from their stream's `severity`.
    pub detect_levels: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_mins(1),
            bytes_max: 4 << 30,
            points_max: 5_000_000,
            series_max: 500,
            steps_max: 11_000,
            detect_levels: true,
        }
    }
}

/// Which lines to return.
#[derive(Clone, Copy, Debug)]
pub struct LinesQuery {
    pub start: Timestamp,
    /// Not included.
    pub end: Timestamp,
    pub direction: Direction,
    pub limit: usize,
}

/// A line that passed the pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub at: Timestamp,
    pub line: String,
    /// Labels of its stream that are left.
    pub stream: Labels,
    /// The record's fields that are left.
    pub metadata: Labels,
    /// What stages made, by name; unlike other labels these may be empty.
    pub parsed: Vec<(String, String)>,
}

/// The times that a metric expression is evaluated at: `start`, `start + step` … up to and including `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub start_ns: i64,
    pub step_ns: i64,
    pub steps: usize,
}

impl Grid {
    pub fn instant(at: Timestamp) -> Self {
        Self { start_ns: at.nanos(), step_ns: 1, steps: 1 }
    }

    /// The grid of a range query; an error when the step is no step or the range has too many of them.
    pub fn range(
        start: Timestamp,
        end: Timestamp,
        step: Duration,
        options: &EngineOptions,
    ) -> Result<Self, QueryError> {
        let step_ns = i64::try_from(step.as_nanos()).unwrap_or(i64::MAX);
        if step_ns <= 0 {
            return Err(QueryError::Invalid(
                "zero or negative query resolution step widths are not accepted".to_owned(),
            ));
        }
        if end < start {
            return Err(QueryError::Invalid("end timestamp must not be before start time".to_owned()));
        }
        let intervals = end.nanos().saturating_sub(start.nanos()) / step_ns;
        if intervals > options.steps_max {
            let max = options.steps_max;
            return Err(QueryError::Invalid(format!(
                "exceeded maximum resolution of {max} points per time series. Try increasing the value of the step parameter"
            )));
        }
        Ok(Self { start_ns: start.nanos(), step_ns, steps: usize::try_from(intervals).unwrap_or(0) + 1 })
    }

    pub fn at_ns(&self, step: usize) -> i64 {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        self.start_ns.saturating_add(step.saturating_mul(self.step_ns))
    }
}

/// One series on a grid; `None` where it has no value.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub labels: Labels,
    pub values: Vec<Option<f64>>,
}

/// A metric query's result on its grid.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Scalar(Vec<f64>),
    /// In order of their labels, unless the expression sorts.
    Vector(Vec<Series>),
}

/// Evaluates; cheap to clone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Engine {
    options: EngineOptions,
}

/// One running query.
pub(super) struct Run<'a> {
    pub(super) store: &'a LogStore,
    pub(super) grid: Grid,
    pub(super) options: EngineOptions,
    pub(super) stop: CancellationToken,
    pub(super) deadline: Instant,
    pub(super) stats: SearchStats,
    pub(super) points: usize,
}

impl Engine {
    pub fn new(options: EngineOptions) -> Self {
        Self { options }
    }

    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Lines of a log expression, in the order of the query's direction.
    pub fn lines(
        &self,
        store: &LogStore,
        expr: &LogExpr,
        query: &LinesQuery,
        stop: &CancellationToken,
    ) -> Result<(Vec<Line>, SearchStats), QueryError> {
        let deadline = Instant::now() + self.options.timeout;
        let mut search = LogQuery::new(expr.matchers.clone(), query.start, query.end);
        search.direction = query.direction;
        search.needles = expr.needles();
        search.budget = Budget { bytes_max: self.options.bytes_max, stop: stop.clone() };
        let mut lines = Vec::new();
        let mut late = false;
        let stats = store.search(&search, &mut |_, record| {
            lines.extend(line_of(expr, record, self.options.detect_levels));
            late = Instant::now() >= deadline;
            if late || lines.len() >= query.limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if late { Err(QueryError::Timeout(self.options.timeout)) } else { Ok((lines, stats)) }
    }

    /// Numbers of a metric expression on a grid.
    pub fn numbers(
        &self,
        store: &LogStore,
        expr: &MetricExpr,
        grid: Grid,
        stop: &CancellationToken,
    ) -> Result<(Value, SearchStats), QueryError> {
        let deadline = Instant::now() + self.options.timeout;
        let stats = SearchStats::default();
        let mut run = Run { store, grid, options: self.options, stop: stop.clone(), deadline, stats, points: 0 };
        let value = run.evaluate(expr)?;
        if let Value::Vector(series) = &value {
            let max = self.options.series_max;
            if series.len() > max {
                return Err(QueryError::Limit(format!(
                    "maximum number of series ({max}) reached for a single query; aggregate with sum by (...), or narrow the selector"
                )));
            }
        }
        Ok((value, run.stats))
    }

    /// The line as the pipeline leaves it; `None` when the record is of another stream or is held back. For tails.
    pub fn line(&self, expr: &LogExpr, record: &LogRecord) -> Option<Line> {
        let fits = expr.matchers.iter().all(|matcher| matcher.matches(&record.stream));
        if fits { line_of(expr, record, self.options.detect_levels) } else { None }
    }

    /// For rules: the samples of a metric expression at one time.
    pub fn instant_text(&self, store: &LogStore, text: &str, at: Timestamp) -> Result<Vec<(Labels, f64)>, QueryError> {
        let (value, _) = self.numbers(store, &parse_rule(text)?, Grid::instant(at), &CancellationToken::new())?;
        Ok(match value {
            Value::Scalar(values) => values.into_iter().map(|value| (Labels::default(), value)).collect(),
            Value::Vector(series) => series
                .into_iter()
                .filter_map(|series| Some((series.labels, series.values.first().copied().flatten()?)))
                .collect(),
        })
    }
}

/// Parses the expression of a rule, which must give numbers.
pub fn parse_rule(text: &str) -> Result<MetricExpr, QueryError> {
    match parse(text)? {
        Expr::Metric(expr) => Ok(expr),
        Expr::Log(_) => Err(QueryError::Invalid("a rule needs numbers: count_over_time, rate and the like".to_owned())),
    }
}

fn line_of(expr: &LogExpr, record: &LogRecord, detect_levels: bool) -> Option<Line> {
    let out = expr.run(record, detect_levels)?;
    let (mut stream, mut metadata) = (LabelsBuilder::default(), LabelsBuilder::default());
    let mut parsed = Vec::new();
    for item in out.labels.iter() {
        match item.category {
            Category::Stream => {
                stream.set(&*item.name, &*item.value);
            }
            Category::Metadata => {
                metadata.set(&*item.name, &*item.value);
            }
            Category::Parsed => parsed.push((item.name.to_string(), item.value.to_string())),
        }
    }
    parsed.sort();
    let line = out.line.into_owned();
    Some(Line { at: record.at, line, stream: stream.build(), metadata: metadata.build(), parsed })
}

impl Run<'_> {
    pub(super) fn check(&self) -> Result<(), QueryError> {
        if self.stop.is_cancelled() {
            return Err(QueryError::Cancelled);
        }
        if Instant::now() >= self.deadline { Err(QueryError::Timeout(self.options.timeout)) } else { Ok(()) }
    }

    pub(super) fn evaluate(&mut self, expr: &MetricExpr) -> Result<Value, QueryError> {
        self.check()?;
        let steps = self.grid.steps;
        match expr {
            MetricExpr::Literal(value) => Ok(Value::Scalar(vec![*value; steps])),
            MetricExpr::Constant(value) => {
                Ok(Value::Vector(vec![Series { labels: Labels::default(), values: vec![Some(*value); steps] }]))
            }
            MetricExpr::Range(range) => window::evaluate(self, range, None).map(Value::Vector),
            MetricExpr::Vector { op, parameter, grouping, inner } => {
                let series = match (aggregate::pushed_down(*op, grouping.as_ref()), &**inner) {
                    (Some(labels), MetricExpr::Range(range)) if window::is_additive(range) => {
                        window::evaluate(self, range, Some(labels))?
                    }
                    _ => self.vector(inner)?,
                };
                Ok(Value::Vector(aggregate::aggregate(*op, *parameter, grouping.as_ref(), series, steps)))
            }
            MetricExpr::Binary { op, returns_bool, matching, left, right } => {
                let (left, right) = (self.evaluate(left)?, self.evaluate(right)?);
                binary::evaluate(*op, *returns_bool, matching, (left, right), steps)
            }
            MetricExpr::LabelReplace { inner, destination, replacement, source, regex, .. } => {
                let mut series = self.vector(inner)?;
                for one in &mut series {
                    let value = one.labels.get(source).unwrap_or("");
                    if let Some(found) = regex.captures(value) {
                        let mut text = String::new();
                        found.expand(replacement, &mut text);
                        one.labels = one.labels.with(destination, &text);
                    }
                }
                Ok(Value::Vector(series))
            }
        }
    }

    fn vector(&mut self, expr: &MetricExpr) -> Result<Vec<Series>, QueryError> {
        match self.evaluate(expr)? {
            Value::Vector(series) => Ok(series),
            Value::Scalar(_) => {
                Err(QueryError::Invalid("expected a vector, found a number; write vector(n)".to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
