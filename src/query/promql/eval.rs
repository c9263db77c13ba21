//! Evaluation of nodes to columns: one value per step and series.

use rustc_hash::{FxHashMap, FxHashSet};

use super::ast::{At, Edges, Expr, ExprKind, Selector, Span, Subquery};
use super::engine::{AllNotes, Budget, QueryError};
use super::source::SeriesSource;
use super::window::Window;
use super::{aggregate, binary, calls};
use crate::model::labels::METRIC_NAME;
use crate::model::sample::{STALE_NAN, is_stale};
use crate::model::{Labels, Matcher};
use crate::store::metrics::{Point, Series};

/// Stands in a column where the series has no value. No evaluation yields it: stale markers are absent.
pub(super) const ABSENT: f64 = STALE_NAN;

pub(super) fn is_absent(value: f64) -> bool {
    is_stale(value)
}

/// The times at which an expression is evaluated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub(super) start_ms: i64,
    pub(super) step_ms: i64,
    pub(super) steps: usize,
}

impl Grid {
    pub(super) fn time(&self, step: usize) -> i64 {
        self.start_ms + self.step_ms * i64::try_from(step).unwrap_or(i64::MAX)
    }

    pub(super) fn end_ms(&self) -> i64 {
        self.time(self.steps.saturating_sub(1))
    }

    pub(super) fn times(&self) -> impl Iterator<Item = i64> + '_ {
        (0..self.steps).map(|step| self.time(step))
    }
}

/// A series' values over the steps.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) labels: Labels,
    pub(super) values: Vec<f64>,
    /// The name goes at the end of the query; set only where names are removed that late.
    pub(super) drop_name: bool,
}

impl Column {
    pub(super) fn new(labels: Labels, values: Vec<f64>) -> Self {
        Self { labels, values, drop_name: false }
    }

    pub(super) fn at(&self, step: usize) -> Option<f64> {
        self.values.get(step).copied().filter(|value| !is_absent(*value))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.iter().all(|value| is_absent(*value))
    }
}

/// What a node evaluates to, over all steps.
#[derive(Debug)]
pub(super) enum Val {
    Scalar(Vec<f64>),
    String(String),
    Vector(Vec<Column>),
}

pub(super) type Eval<T> = Result<T, QueryError>;

pub(super) fn same_labels_error() -> QueryError {
    QueryError::Execution("vector cannot contain metrics with the same labelset".to_owned())
}

/// Evaluates on one grid; a subquery gets an evaluator of its own.
pub(super) struct Evaluator<'a> {
    pub(super) source: &'a dyn SeriesSource,
    pub(super) grid: Grid,
    /// Start and end of the whole query, for `@ start()` and `@ end()`.
    pub(super) query_range: (i64, i64),
    /// Step of the whole query; 0 in an instant query.
    pub(super) query_step_ms: i64,
    /// Whether names are removed at the end of the query instead of by each function.
    pub(super) delayed_names: bool,
    pub(super) lookback_ms: i64,
    pub(super) default_step_ms: i64,
    pub(super) budget: &'a Budget,
    pub(super) notes: &'a AllNotes,
}

/// Where the windows of a range argument come from.
pub(super) struct RangeArg {
    pub(super) range_ms: i64,
    /// How samples beyond the edges count; then the windows hold one sample before the start and one after the end.
    pub(super) edges: Option<Edges>,
    /// The step's reference time: with offset and `@` applied.
    pub(super) ends_ms: Vec<i64>,
}

impl Evaluator<'_> {
    pub(super) fn eval(&self, expr: &Expr) -> Eval<Val> {
        self.budget.check()?;
        match &expr.kind {
            ExprKind::Number { value, .. } => Ok(Val::Scalar(vec![*value; self.grid.steps])),
            ExprKind::String(text) => Ok(Val::String(text.clone())),
            ExprKind::Selector(selector) => Ok(Val::Vector(self.selector(selector, false)?)),
            ExprKind::Range { .. } | ExprKind::Subquery(_) => {
                Err(QueryError::Execution("a range vector cannot be evaluated at a step".to_owned()))
            }
            ExprKind::Call(call) => calls::eval(self, call, expr.span),
            ExprKind::Aggregate(aggregate) => Ok(Val::Vector(aggregate::eval(self, aggregate)?)),
            ExprKind::Binary(binary) => binary::eval(self, binary),
            ExprKind::Unary { negate, expr } => self.unary(*negate, expr),
            ExprKind::Paren(expr) => self.eval(expr),
        }
    }

    pub(super) fn vector(&self, expr: &Expr) -> Eval<Vec<Column>> {
        match self.eval(expr)? {
            Val::Vector(columns) => Ok(columns),
            Val::Scalar(_) | Val::String(_) => Err(QueryError::Execution("expected an instant vector".to_owned())),
        }
    }

    pub(super) fn scalar(&self, expr: &Expr) -> Eval<Vec<f64>> {
        match self.eval(expr)? {
            Val::Scalar(values) => Ok(values),
            Val::Vector(_) | Val::String(_) => Err(QueryError::Execution("expected a scalar".to_owned())),
        }
    }

    fn unary(&self, negate: bool, expr: &Expr) -> Eval<Val> {
        match self.eval(expr)? {
            value if !negate => Ok(value),
            Val::Scalar(values) => Ok(Val::Scalar(values.iter().map(|value| -value).collect())),
            Val::Vector(mut columns) => {
                for column in &mut columns {
                    self.remove_name(column);
                    column.values.iter_mut().filter(|value| !is_absent(**value)).for_each(|value| *value = -*value);
                }
                self.distinct(columns).map(Val::Vector)
            }
            Val::String(_) => Err(QueryError::Execution("a string cannot be negated".to_owned())),
        }
    }

    pub(super) fn reference_ms(&self, at: Option<At>, offset_ms: i64, step: usize) -> i64 {
        let base = match at {
            None => self.grid.time(step),
            Some(At::Ms(ms)) => ms,
            Some(At::Start) => self.query_range.0,
            Some(At::End) => self.query_range.1,
        };
        base.saturating_sub(offset_ms)
    }

    fn references(&self, at: Option<At>, offset_ms: i64) -> Vec<i64> {
        (0..self.grid.steps).map(|step| self.reference_ms(at, offset_ms, step)).collect()
    }

    /// Current values of the selected series, or the times of their samples in seconds.
    pub(super) fn selector(&self, selector: &Selector, timestamps: bool) -> Eval<Vec<Column>> {
        if selector.edges.is_some() {
            let problem = "smoothed is only supported for range vectors yet; take avg_over_time or rate over one";
            return Err(QueryError::Execution(problem.to_owned()));
        }
        let references = self.references(selector.at, selector.offset.ms);
        let first = references.first().copied().unwrap_or(0).saturating_sub(self.lookback_ms).saturating_add(1);
        let last = references.last().copied().unwrap_or(0);
        // Prometheus forgets the offset here, and looks at the samples that it read with it.
        let forgets_offset = timestamps && selector.at.is_some();
        let references = if forgets_offset { self.references(selector.at, 0) } else { references };
        self.current(&selector.matchers, (first, last), &references, timestamps)
    }

    /// Current values at some times, or the times of their samples in seconds, of samples inside `within_ms`.
    pub(super) fn current(
        &self,
        matchers: &[Matcher],
        within_ms: (i64, i64),
        references: &[i64],
        timestamps: bool,
    ) -> Eval<Vec<Column>> {
        let mut columns = Vec::new();
        for series in self.source.select(matchers, within_ms.0, within_ms.1)? {
            let series = series?;
            self.budget.check()?;
            self.budget.take_samples(series.points.len())?;
            let mut next = 0;
            let mut values = Vec::with_capacity(references.len());
            for reference in references {
                while series.points.get(next).is_some_and(|point| point.at_ms <= *reference) {
                    next += 1;
                }
                let current = next.checked_sub(1).and_then(|at| series.points.get(at));
                let current = current.filter(|point| point.at_ms > reference.saturating_sub(self.lookback_ms));
                values.push(match current {
                    Some(point) if is_stale(point.value) => ABSENT,
                    Some(point) if timestamps => point.at_ms as f64 / 1000.0,
                    Some(point) => point.value,
                    None => ABSENT,
                });
            }
            self.keep(Column::new(series.labels, values), &mut columns)?;
        }
        Ok(columns)
    }

    /// Keeps a column that has any value, within the budget.
    pub(super) fn keep(&self, column: Column, columns: &mut Vec<Column>) -> Eval<()> {
        if !column.is_empty() {
            self.budget.take_bytes(column.values.len() * size_of::<f64>())?;
            columns.push(column);
        }
        Ok(())
    }

    /// Calls `each` with every series of a range argument, stale markers left out, and whether its name is to go.
    pub(super) fn for_each_range(
        &self,
        expr: &Expr,
        mut each: impl FnMut(&RangeArg, Series, bool) -> Eval<()>,
    ) -> Eval<RangeArg> {
        match &expr.inner().kind {
            ExprKind::Range { selector, range } => {
                let ends_ms = self.references(selector.at, selector.offset.ms);
                let arg = RangeArg { range_ms: range.ms, edges: selector.edges, ends_ms };
                let before_ms = if arg.edges.is_some() { self.lookback_ms } else { 0 };
                let after_ms = if arg.edges == Some(Edges::Smoothed) { self.lookback_ms } else { 0 };
                let start = arg.ends_ms.first().copied().unwrap_or(0).saturating_sub(range.ms);
                let first = start.saturating_sub(before_ms).saturating_add(1);
                let last = arg.ends_ms.last().copied().unwrap_or(0).saturating_add(after_ms);
                for series in self.source.select(&selector.matchers, first, last)? {
                    let mut series = series?;
                    self.budget.check()?;
                    self.budget.take_samples(series.points.len())?;
                    series.points.retain(|point| !is_stale(point.value));
                    each(&arg, series, false)?;
                }
                Ok(arg)
            }
            ExprKind::Subquery(subquery) => {
                let (arg, columns) = self.subquery(subquery)?;
                for (series, drop_name) in columns {
                    each(&arg, series, drop_name)?;
                }
                Ok(arg)
            }
            _ => Err(QueryError::Execution("expected a range vector".to_owned())),
        }
    }

    fn subquery(&self, subquery: &Subquery) -> Eval<(RangeArg, Vec<(Series, bool)>)> {
        let ends_ms = self.references(subquery.at, subquery.offset.ms);
        let arg = RangeArg { range_ms: subquery.range.ms, edges: None, ends_ms };
        // A step below a millisecond is the default one, as in Prometheus.
        let step_ms = subquery.step.as_ref().map(|step| step.ms).filter(|ms| *ms > 0).unwrap_or(self.default_step_ms);
        let before = arg.ends_ms.first().copied().unwrap_or(0).saturating_sub(subquery.range.ms);
        let last_ms = arg.ends_ms.last().copied().unwrap_or(0);
        // The first multiple of the step after the open start of the first window.
        let start_ms = (before.div_euclid(step_ms) + 1) * step_ms;
        if start_ms > last_ms {
            return Ok((arg, Vec::new()));
        }
        let steps = usize::try_from((last_ms - start_ms) / step_ms).unwrap_or(usize::MAX - 1) + 1;
        self.budget.take_bytes(steps.saturating_mul(size_of::<f64>()))?;
        let grid = Grid { start_ms, step_ms, steps };
        let inner = Evaluator { grid, ..*self };
        let mut series = Vec::new();
        for column in inner.vector(&subquery.expr)? {
            let points = column.values.iter().enumerate().filter(|(_, value)| !is_absent(**value));
            let points: Vec<Point> =
                points.map(|(step, value)| Point { at_ms: grid.time(step), value: *value }).collect();
            self.budget.take_bytes(points.len() * size_of::<Point>())?;
            series.push((Series { labels: column.labels, points }, column.drop_name));
        }
        Ok((arg, series))
    }

    /// The points themselves, for an instant query of a range vector.
    pub(super) fn raw_matrix(&self, expr: &Expr) -> Eval<Vec<Series>> {
        let mut found = Vec::new();
        self.for_each_range(expr, |arg, mut series, drop_name| {
            if drop_name {
                series.labels = series.labels.without(&[METRIC_NAME]);
            }
            let end_ms = arg.ends_ms.first().copied().unwrap_or(0);
            series.points.retain(|point| point.at_ms > end_ms - arg.range_ms && point.at_ms <= end_ms);
            self.budget.take_bytes(series.points.len() * size_of::<Point>())?;
            if !series.points.is_empty() {
                found.push(series);
            }
            Ok(())
        })?;
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(found)
    }

    /// The window with the samples beyond its edges that count.
    fn with_edges(
        &self,
        arg: &RangeArg,
        points: &[Point],
        (mut from, mut to): (usize, usize),
        end_ms: i64,
    ) -> (usize, usize) {
        let at = |index: usize| points.get(index).map(|point| point.at_ms);
        let start_ms = end_ms - arg.range_ms;
        if arg.edges.is_some() && from > 0 && at(from - 1).is_some_and(|ms| ms > start_ms - self.lookback_ms) {
            from -= 1;
        }
        let ends_exactly = to > from && at(to - 1) == Some(end_ms);
        let has_next = at(to).is_some_and(|ms| ms <= end_ms + self.lookback_ms);
        if arg.edges == Some(Edges::Smoothed) && !ends_exactly && has_next {
            to += 1;
        }
        (from, to)
    }

    /// Evaluates a function over the window of every step.
    pub(super) fn windows(
        &self,
        arg: &RangeArg,
        points: &[Point],
        params: &[Vec<f64>],
        apply: fn(&Window<'_>) -> Option<f64>,
    ) -> Vec<f64> {
        let (mut from, mut to) = (0, 0);
        let mut step_params = vec![0.0; params.len()];
        let mut values = Vec::with_capacity(arg.ends_ms.len());
        for (step, end_ms) in arg.ends_ms.iter().enumerate() {
            while points.get(to).is_some_and(|point| point.at_ms <= *end_ms) {
                to += 1;
            }
            while from < to && points.get(from).is_some_and(|point| point.at_ms <= end_ms - arg.range_ms) {
                from += 1;
            }
            for (place, column) in step_params.iter_mut().zip(params) {
                *place = column.get(step).copied().unwrap_or(f64::NAN);
            }
            let (from, to) = self.with_edges(arg, points, (from, to), *end_ms);
            let window = Window {
                points: points.get(from..to).unwrap_or_default(),
                edges: arg.edges,
                range_ms: arg.range_ms,
                end_ms: *end_ms,
                eval_ms: self.grid.time(step),
                params: &step_params,
            };
            values.push(if window.points.is_empty() { ABSENT } else { apply(&window).unwrap_or(ABSENT) });
        }
        values
    }
}

/// Joins columns with equal labels; two values at one step are an error.
pub(super) fn merge(columns: Vec<Column>) -> Eval<Vec<Column>> {
    let mut places: FxHashMap<Labels, usize> = FxHashMap::default();
    let mut merged: Vec<Column> = Vec::with_capacity(columns.len());
    for column in columns {
        let Some(place) = places.get(&column.labels).and_then(|at| merged.get_mut(*at)) else {
            places.insert(column.labels.clone(), merged.len());
            merged.push(column);
            continue;
        };
        place.drop_name |= column.drop_name;
        for (kept, new) in place.values.iter_mut().zip(&column.values) {
            if is_absent(*kept) {
                *kept = *new;
            } else if !is_absent(*new) {
                return Err(same_labels_error());
            }
        }
    }
    Ok(merged)
}

impl Evaluator<'_> {
    /// Removes the metric's name, now or at the end of the query.
    pub(super) fn remove_name(&self, column: &mut Column) {
        if self.delayed_names {
            column.drop_name = true;
        } else {
            column.labels = column.labels.without(&[METRIC_NAME]);
        }
    }

    /// Columns whose names were removed: equal labels may share one as long as they do not meet at a step.
    pub(super) fn merge(&self, columns: Vec<Column>) -> Eval<Vec<Column>> {
        if self.delayed_names { Ok(columns) } else { merge(columns) }
    }

    /// Columns that must not have equal labels, even if they do not meet at a step.
    pub(super) fn distinct(&self, mut columns: Vec<Column>) -> Eval<Vec<Column>> {
        columns.retain(|column| !column.is_empty());
        let mut seen: FxHashSet<&Labels> = FxHashSet::default();
        if !self.delayed_names && !columns.iter().all(|column| seen.insert(&column.labels)) {
            return Err(same_labels_error());
        }
        Ok(columns)
    }

    /// Applies a function to every present value and removes the name.
    pub(super) fn map_values(&self, mut columns: Vec<Column>, apply: impl Fn(usize, f64) -> f64) -> Eval<Vec<Column>> {
        for column in &mut columns {
            self.remove_name(column);
            for (step, value) in column.values.iter_mut().enumerate() {
                if !is_absent(*value) {
                    *value = apply(step, *value);
                }
            }
        }
        self.merge(columns)
    }

    pub(super) fn warn(&self, message: &str, span: Span) {
        self.notes.warnings.add(message, span);
    }

    pub(super) fn inform(&self, message: &str, span: Span) {
        self.notes.infos.add(message, span);
    }
}
