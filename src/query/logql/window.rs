//! Range aggregations: what happened in the window `(t - range, t]` before each step.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rustc_hash::FxHashMap;

use crate::model::{Labels, LabelsBuilder, LogRecord, MatchOp, Timestamp};
use crate::store::logs::{Budget, LogQuery, Measure};

use super::ast::{Grouping, RangeAgg, RangeOp};
use super::engine::{QueryError, Run, Series};
use super::labels::{ERROR, ERROR_DETAILS, LineLabels};

/// A time and what the line at it counts for.
type Point = (i64, f64);

/// Lines between two looks at the clock.
const CHECK_EVERY: usize = 1024;

/// Whether the sum over groups of series is the same as evaluating the groups themselves.
pub(super) fn is_additive(range: &RangeAgg) -> bool {
    let op = range.op;
    matches!(
        op,
        RangeOp::Rate | RangeOp::CountOverTime | RangeOp::BytesRate | RangeOp::BytesOverTime | RangeOp::SumOverTime
    )
}

/// Evaluates on the run's grid. `only` keeps no other labels apart: the caller sums over them anyway.
pub(super) fn evaluate(
    run: &mut Run<'_>,
    range: &RangeAgg,
    only: Option<&[String]>,
) -> Result<Vec<Series>, QueryError> {
    let first = run.grid.at_ns(0).saturating_sub(range.offset_ns);
    let last = run.grid.at_ns(run.grid.steps.saturating_sub(1)).saturating_sub(range.offset_ns);
    // Windows are open at their start and closed at their end; searches are the other way round.
    let start = Timestamp::from_nanos(first.saturating_sub(range.range_ns).saturating_add(1));
    let end = Timestamp::from_nanos(last.saturating_add(1));
    let mut query = LogQuery::new(range.log.matchers.clone(), start, end);
    query.needles = range.log.needles();
    query.budget = Budget { bytes_max: run.options.bytes_max, stop: run.stop.clone() };
    let points = match only {
        Some(labels) if by_columns(run, range, labels, &query) => tally(run, range, labels, &query)?,
        _ => scan(run, range, only, &query)?,
    };
    let mut series: Vec<Series> = points
        .into_iter()
        .map(|(labels, points)| Series { values: values(run, range, &points), labels })
        .filter(|series| series.values.iter().any(Option::is_some))
        .collect();
    if range.op == RangeOp::AbsentOverTime {
        series = absent(range, &series, run.grid.steps);
    }
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(series)
}

/// Whether time, stream and length of the lines are enough: nothing looks into them, and nobody asks for their fields.
fn by_columns(run: &Run<'_>, range: &RangeAgg, labels: &[String], query: &LogQuery) -> bool {
    if !range.log.stages.is_empty() || range.unwrap.is_some() {
        return false;
    }
    let names = run.store.label_names(&query.matchers, query.start, query.end);
    labels.iter().all(|label| names.contains(label))
}

fn weight(op: RangeOp, bytes: u64) -> f64 {
    if matches!(op, RangeOp::BytesRate | RangeOp::BytesOverTime) { bytes as f64 } else { 1.0 }
}

fn tally(
    run: &mut Run<'_>,
    range: &RangeAgg,
    only: &[String],
    query: &LogQuery,
) -> Result<BTreeMap<Labels, Vec<Point>>, QueryError> {
    let names: Vec<&str> = only.iter().map(String::as_str).collect();
    let mut groups: FxHashMap<Labels, Labels> = FxHashMap::default();
    let mut points: BTreeMap<Labels, Vec<Point>> = BTreeMap::new();
    let mut taken = run.points;
    let stats = run.store.tally(query, Measure::Line, &mut |at, stream, bytes| {
        let group = match groups.get(stream) {
            Some(group) => group,
            None => groups.entry(stream.clone()).or_insert_with(|| stream.only(&names)),
        };
        taken += 1;
        if taken <= run.options.points_max {
            points.entry(group.clone()).or_default().push((at.nanos(), weight(range.op, bytes)));
        }
    })?;
    add_stats(run, stats);
    run.points = taken;
    check_points(run)?;
    // The columns come in no particular order.
    for points in points.values_mut() {
        points.sort_by_key(|(at, _)| *at);
    }
    Ok(points)
}

fn check_points(run: &Run<'_>) -> Result<(), QueryError> {
    let max = run.options.points_max;
    if run.points > max {
        return Err(QueryError::Limit(format!(
            "the query counts more than {max} lines; narrow its time range or its selector"
        )));
    }
    run.check()
}

fn add_stats(run: &mut Run<'_>, stats: crate::store::logs::SearchStats) {
    run.stats.lines += stats.lines;
    run.stats.bytes += stats.bytes;
    run.stats.found += stats.found;
    run.stats.damaged += stats.damaged;
}

fn scan(
    run: &mut Run<'_>,
    range: &RangeAgg,
    only: Option<&[String]>,
    query: &LogQuery,
) -> Result<BTreeMap<Labels, Vec<Point>>, QueryError> {
    let mut points: BTreeMap<Labels, Vec<Point>> = BTreeMap::new();
    let mut failed = None;
    let mut taken = 0_usize;
    let detect_levels = run.options.detect_levels;
    let stats = run.store.search(query, &mut |_, record| {
        match sample(range, only, record, detect_levels) {
            Ok(Some((labels, value))) => points.entry(labels).or_default().push((record.at.nanos(), value)),
            Ok(None) => {}
            Err(error) => failed = Some(error),
        }
        taken += 1;
        let over = run.points + taken > run.options.points_max;
        let late = taken.is_multiple_of(CHECK_EVERY) && run.check().is_err();
        if failed.is_some() || over || late { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    add_stats(run, stats);
    run.points += taken;
    if let Some(error) = failed {
        return Err(error);
    }
    check_points(run)?;
    Ok(points)
}

/// What one line adds, and to which series.
fn sample(
    range: &RangeAgg,
    only: Option<&[String]>,
    record: &LogRecord,
    detect_levels: bool,
) -> Result<Option<(Labels, f64)>, QueryError> {
    let Some(mut passed) = range.log.run(record, detect_levels) else { return Ok(None) };
    let value = match &range.unwrap {
        Some(unwrap) => match unwrap.value(&mut passed.labels) {
            Some(value) => value,
            None => return Ok(None),
        },
        None => weight(range.op, passed.line.len() as u64),
    };
    if passed.labels.has_error() {
        let error = passed.labels.get(ERROR).unwrap_or("");
        let details = passed.labels.get(ERROR_DETAILS).unwrap_or("");
        return Err(QueryError::Invalid(format!(
            "pipeline error: '{error}' for a line: {details}. Use a label filter to skip such lines, as in | __error__=\"\""
        )));
    }
    // The level is for Grafana's colours; nobody counts by it unless asked.
    let implied = (detect_levels && range.grouping.is_none() && only.is_none()).then_some("detected_level");
    Ok(Some((labels_of(&passed.labels, range.grouping.as_ref(), only, implied), value)))
}

fn labels_of(
    labels: &LineLabels<'_>,
    grouping: Option<&Grouping>,
    only: Option<&[String]>,
    hidden: Option<&str>,
) -> Labels {
    let kept = |name: &str| {
        let in_group =
            grouping.is_none_or(|grouping| grouping.labels.iter().any(|label| label == name) != grouping.without);
        in_group && only.is_none_or(|only| only.iter().any(|label| label == name))
    };
    let mut builder = LabelsBuilder::default();
    for item in labels.iter().filter(|item| kept(&item.name) && hidden != Some(&*item.name)) {
        builder.set(&*item.name, &*item.value);
    }
    builder.build()
}

/// The series' value at each step.
fn values(run: &Run<'_>, range: &RangeAgg, points: &[Point]) -> Vec<Option<f64>> {
    let seconds = range.range_ns as f64 / 1e9;
    (0..run.grid.steps)
        .map(|step| {
            let end = run.grid.at_ns(step).saturating_sub(range.offset_ns);
            let from = points.partition_point(|(at, _)| *at <= end.saturating_sub(range.range_ns));
            let to = points.partition_point(|(at, _)| *at <= end);
            let window = points.get(from..to).filter(|window| !window.is_empty())?;
            Some(fold(range, window, seconds))
        })
        .collect()
}

fn fold(range: &RangeAgg, window: &[Point], seconds: f64) -> f64 {
    let numbers = || window.iter().map(|(_, value)| *value);
    let count = window.len() as f64;
    let sum: f64 = numbers().sum();
    match range.op {
        RangeOp::CountOverTime | RangeOp::BytesOverTime | RangeOp::SumOverTime => sum,
        RangeOp::Rate | RangeOp::BytesRate => sum / seconds,
        RangeOp::RateCounter => increase(window) / seconds,
        RangeOp::AvgOverTime => sum / count,
        RangeOp::MinOverTime => numbers().fold(f64::INFINITY, f64::min),
        RangeOp::MaxOverTime => numbers().fold(f64::NEG_INFINITY, f64::max),
        RangeOp::FirstOverTime => numbers().next().unwrap_or(f64::NAN),
        RangeOp::LastOverTime => window.last().map_or(f64::NAN, |(_, value)| *value),
        RangeOp::StdvarOverTime => variance(numbers(), count),
        RangeOp::StddevOverTime => variance(numbers(), count).sqrt(),
        RangeOp::QuantileOverTime => quantile(range.parameter.unwrap_or(f64::NAN), numbers().collect()),
        RangeOp::AbsentOverTime => 1.0,
    }
}

/// Growth of a counter that may start over at zero.
fn increase(window: &[Point]) -> f64 {
    window
        .windows(2)
        .map(|pair| match pair {
            [(_, before), (_, after)] if after >= before => after - before,
            [_, (_, after)] => *after,
            _ => 0.0,
        })
        .sum()
}

/// Population variance.
pub(super) fn variance(values: impl Iterator<Item = f64> + Clone, count: f64) -> f64 {
    let mean = values.clone().sum::<f64>() / count;
    values.map(|value| (value - mean).powi(2)).sum::<f64>() / count
}

/// As Prometheus: linear between the two nearest ranks; outside 0 to 1 it is infinite.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ranks are small and not negative")]
fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(f64::total_cmp);
    let rank = q * (values.len().saturating_sub(1)) as f64;
    let lower = values.get(rank.floor() as usize).copied().unwrap_or(f64::NAN);
    let upper = values.get(rank.ceil() as usize).copied().unwrap_or(lower);
    lower * (1.0 - rank.fract()) + upper * rank.fract()
}

/// One series wherever none of the others has a value, with the labels that the selector fixes.
fn absent(range: &RangeAgg, present: &[Series], steps: usize) -> Vec<Series> {
    let fixed = range.log.matchers.iter().filter(|matcher| matcher.op == MatchOp::Equal);
    let labels = Labels::from_pairs(fixed.map(|matcher| (matcher.name.as_str(), matcher.value.as_str())));
    let is_absent = |step: usize| present.iter().all(|series| series.values.get(step).copied().flatten().is_none());
    let values: Vec<Option<f64>> = (0..steps).map(|step| is_absent(step).then_some(1.0)).collect();
    if values.iter().any(Option::is_some) { vec![Series { labels, values }] } else { Vec::new() }
}
