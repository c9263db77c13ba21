//! The engine's entry points: instant and range queries with their limits.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ast::{Expr, ExprKind, Span, ValueType};
use super::durations::{self, QueryTimes};
use super::eval::{Column, Evaluator, Grid, Val, is_absent, merge};
use super::functions::{Body, Special};
use super::parser::{ParseError, parse};
use super::source::SeriesSource;
use crate::model::labels::METRIC_NAME;
use crate::model::{Labels, Timestamp};
use crate::query::promql::ast::AggregateOp;
use crate::store::metrics::{MetricError, Point, Series};

/// More steps than this are refused, as Prometheus does.
const STEPS_MAX: i64 = 11_000;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error("{0}")]
    BadData(String),
    #[error("{0}")]
    Execution(String),
    #[error("query timed out in expression evaluation")]
    Timeout,
    #[error("query was canceled in expression evaluation")]
    Canceled,
    #[error("expanding series")]
    Source(#[from] MetricError),
}

impl QueryError {
    /// Prometheus' `errorType`.
    pub fn api_type(&self) -> &'static str {
        match self {
            Self::Parse(_) | Self::BadData(_) => "bad_data",
            Self::Execution(_) => "execution",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::Source(_) => "internal",
        }
    }
}

/// Defaults and bounds of all queries.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How old a sample may be to count as the current one.
    pub lookback: Duration,
    pub timeout: Duration,
    /// Samples that one query may read.
    pub samples_max: u64,
    /// Memory that one query's intermediate results may take.
    pub bytes_max: u64,
    /// Step of subqueries that name none.
    pub default_step: Duration,
    /// Whether functions that drop the metric's name do so at the end of the query only (a feature flag of Prometheus).
    pub delayed_name_removal: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            lookback: Duration::from_mins(5),
            timeout: Duration::from_mins(2),
            samples_max: 50_000_000,
            bytes_max: 256 << 20,
            default_step: Duration::from_mins(1),
            delayed_name_removal: false,
        }
    }
}

/// What one query asks for beyond the engine's defaults.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Shorter than the engine's.
    pub timeout: Option<Duration>,
    pub lookback: Option<Duration>,
    pub cancel: Option<CancellationToken>,
}

/// The steps of a range query; both ends included.
#[derive(Clone, Copy, Debug)]
pub struct RangeSpec {
    pub start: Timestamp,
    pub end: Timestamp,
    pub step: Duration,
}

/// A value of a series at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct InstantSample {
    pub labels: Labels,
    pub at_ms: i64,
    pub value: f64,
}

/// A query's result.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Scalar {
        at_ms: i64,
        value: f64,
    },
    String {
        at_ms: i64,
        value: String,
    },
    /// Sorted by labels unless the expression orders them.
    Vector(Vec<InstantSample>),
    /// Sorted by labels.
    Matrix(Vec<Series>),
}

/// A query's result and what should be said about it.
#[derive(Clone, Debug)]
pub struct Output {
    pub value: Value,
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
}

/// What one running query has left.
#[derive(Debug)]
pub(super) struct Budget {
    deadline: Instant,
    cancel: Option<CancellationToken>,
    samples_left: Cell<u64>,
    bytes_left: Cell<u64>,
}

impl Budget {
    pub(super) fn check(&self) -> Result<(), QueryError> {
        if self.cancel.as_ref().is_some_and(CancellationToken::is_cancelled) {
            return Err(QueryError::Canceled);
        }
        if Instant::now() >= self.deadline { Err(QueryError::Timeout) } else { Ok(()) }
    }

    pub(super) fn take_samples(&self, samples: usize) -> Result<(), QueryError> {
        let left = self.samples_left.get().checked_sub(samples as u64);
        self.samples_left.set(left.ok_or_else(|| {
            QueryError::Execution(
                "query processing would load too many samples into memory in query execution".to_owned(),
            )
        })?);
        Ok(())
    }

    pub(super) fn take_bytes(&self, bytes: usize) -> Result<(), QueryError> {
        let left = self.bytes_left.get().checked_sub(bytes as u64);
        self.bytes_left.set(left.ok_or_else(|| {
            let advice = "ask for fewer series, a shorter range or a longer step";
            QueryError::Execution(format!("query needs more memory than one query may take; {advice}"))
        })?);
        Ok(())
    }
}

/// More different notes of a kind are not kept.
const NOTES_MAX: usize = 10_000;

/// Notes of one kind that evaluation leaves beside the result. As in Prometheus, of notes with the same words only the
/// last one's place is told.
#[derive(Debug, Default)]
pub(super) struct Notes(RefCell<BTreeMap<String, Span>>);

impl Notes {
    pub(super) fn add(&self, message: &str, span: Span) {
        let mut notes = self.0.borrow_mut();
        if notes.len() < NOTES_MAX {
            notes.insert(message.to_owned(), span);
        }
    }

    fn texts(self, kind: &str) -> Vec<String> {
        let notes = self.0.into_inner();
        notes.into_iter().map(|(text, at)| format!("{kind}: {text} ({}:{})", at.line, at.column)).collect()
    }
}

/// Warnings and infos.
#[derive(Debug, Default)]
pub(super) struct AllNotes {
    pub(super) warnings: Notes,
    pub(super) infos: Notes,
}

/// Evaluates expressions over a source; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    options: EngineOptions,
}

impl Engine {
    pub fn new(options: EngineOptions) -> Self {
        Self { options }
    }

    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Parses and evaluates at one time.
    pub fn instant_text(&self, source: &dyn SeriesSource, text: &str, at: Timestamp) -> Result<Output, QueryError> {
        self.instant(source, &parse(text)?, at, &Limits::default())
    }

    /// Evaluates at one time.
    pub fn instant(
        &self,
        source: &dyn SeriesSource,
        expr: &Expr,
        at: Timestamp,
        limits: &Limits,
    ) -> Result<Output, QueryError> {
        let at_ms = at.millis();
        let resolved = resolve(expr, 0, 0)?;
        let expr = resolved.as_ref();
        let budget = self.budget(limits);
        let notes = AllNotes::default();
        let grid = Grid { start_ms: at_ms, step_ms: 1, steps: 1 };
        let evaluator = self.evaluator(source, grid, limits, (&budget, &notes));
        let value = if expr.value_type() == ValueType::Matrix {
            Value::Matrix(evaluator.raw_matrix(expr)?)
        } else {
            match evaluator.eval(expr)? {
                Val::Scalar(values) => Value::Scalar { at_ms, value: values.first().copied().unwrap_or(f64::NAN) },
                Val::String(value) => Value::String { at_ms, value },
                Val::Vector(columns) => {
                    let columns = without_dropped_names(columns)?;
                    Value::Vector(instant_vector(columns, at_ms, !is_ordered(expr)))
                }
            }
        };
        Ok(output(value, notes))
    }

    /// Evaluates at every step of a range.
    pub fn range(
        &self,
        source: &dyn SeriesSource,
        expr: &Expr,
        spec: RangeSpec,
        limits: &Limits,
    ) -> Result<Output, QueryError> {
        let (start_ms, end_ms) = (spec.start.millis(), spec.end.millis());
        let step_ms = i64::try_from(spec.step.as_millis()).unwrap_or(i64::MAX);
        if step_ms <= 0 {
            return Err(QueryError::BadData(
                "zero or negative query resolution step widths are not accepted. Try a positive integer".to_owned(),
            ));
        }
        if end_ms < start_ms {
            return Err(QueryError::BadData("end timestamp must not be before start time".to_owned()));
        }
        let intervals = end_ms.saturating_sub(start_ms) / step_ms;
        if intervals > STEPS_MAX {
            return Err(QueryError::BadData(
                "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"
                    .to_owned(),
            ));
        }
        if !matches!(expr.value_type(), ValueType::Vector | ValueType::Scalar) {
            let found = expr.value_type().describe();
            return Err(QueryError::BadData(format!(
                "invalid expression type {found:?} for range query, must be Scalar or instant Vector"
            )));
        }
        let resolved = resolve(expr, step_ms, end_ms - start_ms)?;
        let expr = resolved.as_ref();
        let budget = self.budget(limits);
        let notes = AllNotes::default();
        let steps = usize::try_from(intervals).unwrap_or(0) + 1;
        let grid = Grid { start_ms, step_ms, steps };
        let mut evaluator = self.evaluator(source, grid, limits, (&budget, &notes));
        // `@ end()` is the end that was asked for, which the last step need not reach.
        evaluator.query_range = (start_ms, end_ms);
        evaluator.query_step_ms = step_ms;
        let columns = match evaluator.eval(expr)? {
            Val::Scalar(values) => vec![Column::new(Labels::default(), values)],
            Val::Vector(columns) => without_dropped_names(columns)?,
            Val::String(_) => Vec::new(),
        };
        let mut series: Vec<Series> = columns.into_iter().map(|column| column_series(column, grid)).collect();
        series.retain(|series| !series.points.is_empty());
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(output(Value::Matrix(series), notes))
    }

    fn budget(&self, limits: &Limits) -> Budget {
        let timeout = limits.timeout.map_or(self.options.timeout, |timeout| timeout.min(self.options.timeout));
        Budget {
            deadline: Instant::now() + timeout,
            cancel: limits.cancel.clone(),
            samples_left: Cell::new(self.options.samples_max),
            bytes_left: Cell::new(self.options.bytes_max),
        }
    }

    fn evaluator<'a>(
        &self,
        source: &'a dyn SeriesSource,
        grid: Grid,
        limits: &Limits,
        (budget, notes): (&'a Budget, &'a AllNotes),
    ) -> Evaluator<'a> {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Evaluator {
            source,
            grid,
            query_range: (grid.start_ms, grid.end_ms()),
            query_step_ms: 0,
            delayed_names: self.options.delayed_name_removal,
            lookback_ms: millis(limits.lookback.unwrap_or(self.options.lookback)).max(1),
            default_step_ms: millis(self.options.default_step).max(1),
            budget,
            notes,
        }
    }
}

/// The expression with its computed durations known.
fn resolve(expr: &Expr, step_ms: i64, range_ms: i64) -> Result<Cow<'_, Expr>, QueryError> {
    let times = QueryTimes { step: step_ms as f64 / 1000.0, range: range_ms as f64 / 1000.0 };
    durations::resolve(expr, times).map_err(|(span, message)| QueryError::Parse(ParseError { span, message }))
}

/// Removes the names that were kept until now; what became equal is joined where it does not meet at a step.
fn without_dropped_names(mut columns: Vec<Column>) -> Result<Vec<Column>, QueryError> {
    if !columns.iter().any(|column| column.drop_name) {
        return Ok(columns);
    }
    for column in columns.iter_mut().filter(|column| column.drop_name) {
        column.labels = column.labels.without(&[METRIC_NAME]);
    }
    merge(columns)
}

fn output(value: Value, notes: AllNotes) -> Output {
    Output { value, warnings: notes.warnings.texts("PromQL warning"), infos: notes.infos.texts("PromQL info") }
}

/// Whether the expression decides the order of its result.
fn is_ordered(expr: &Expr) -> bool {
    match &expr.inner().kind {
        ExprKind::Call(call) => {
            matches!(call.function.body, Body::Special(Special::Sort { .. } | Special::SortByLabel { .. }))
        }
        ExprKind::Aggregate(aggregate) => matches!(aggregate.op, AggregateOp::Topk | AggregateOp::Bottomk),
        _ => false,
    }
}

fn instant_vector(columns: Vec<Column>, at_ms: i64, sort: bool) -> Vec<InstantSample> {
    let mut samples: Vec<InstantSample> = columns
        .into_iter()
        .filter_map(|column| {
            let value = column.values.first().copied().filter(|value| !is_absent(*value))?;
            Some(InstantSample { labels: column.labels, at_ms, value })
        })
        .collect();
    if sort {
        samples.sort_by(|a, b| a.labels.cmp(&b.labels));
    }
    samples
}

fn column_series(column: Column, grid: Grid) -> Series {
    let points = column.values.iter().enumerate().filter(|(_, value)| !is_absent(**value));
    let points = points.map(|(step, value)| Point { at_ms: grid.time(step), value: *value }).collect();
    Series { labels: column.labels, points }
}
