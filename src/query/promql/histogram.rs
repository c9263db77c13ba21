//! Classic histograms: buckets as series with the label `le`.

use std::collections::BTreeMap;

use super::ast::{Call, Span};
use super::calls::{arg, at, check_label_name, check_quantile, text};
use super::eval::{ABSENT, Column, Eval, Evaluator, Val};
use super::format::number;
use crate::model::Labels;
use crate::model::quote::Quoted;

/// The label that holds a bucket's upper bound.
const BOUND: &str = "le";
/// Decreases of cumulative counts below this share are rounding, not errors.
const TOLERANCE: f64 = 1e-12;

/// Observations up to a bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    bound: f64,
    count: f64,
}

fn parse_bound(text: &str) -> Option<f64> {
    match text.trim_start_matches('+') {
        "Inf" | "inf" => Some(f64::INFINITY),
        other => other.parse().ok(),
    }
}

pub(super) fn quantile_call(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    let q_expr = arg(call, 0)?;
    let q = evaluator.scalar(q_expr)?;
    let expr = arg(call, 1)?;
    let columns = evaluator.vector(expr)?;
    for step in 0..evaluator.grid.steps {
        check_quantile(evaluator, at(&q, step), q_expr.span);
    }
    per_group(evaluator, columns, expr.span, |step, buckets| quantile(at(&q, step), buckets)).map(Val::Vector)
}

/// One series per quantile, with the quantile in a label.
pub(super) fn quantiles_call(evaluator: &Evaluator<'_>, call: &Call, span: Span) -> Eval<Val> {
    let expr = arg(call, 0)?;
    let columns = evaluator.vector(expr)?;
    let label = text(evaluator, call, 1)?;
    check_label_name(&label, "invalid label name in histogram_quantiles()")?;
    let mut results = Vec::new();
    for index in 2..call.args.len() {
        let q = evaluator.scalar(arg(call, index)?)?;
        for step in 0..evaluator.grid.steps {
            check_quantile(evaluator, at(&q, step), span);
        }
        let found = per_group(evaluator, columns.clone(), expr.span, |step, buckets| quantile(at(&q, step), buckets))?;
        let value = number(at(&q, 0));
        results.extend(found.into_iter().map(|column| Column { labels: column.labels.with(&label, &value), ..column }));
    }
    evaluator.distinct(results).map(Val::Vector)
}

pub(super) fn fraction_call(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    let lower = evaluator.scalar(arg(call, 0)?)?;
    let upper = evaluator.scalar(arg(call, 1)?)?;
    let expr = arg(call, 2)?;
    let columns = evaluator.vector(expr)?;
    let of = |step: usize, buckets: &mut Vec<Bucket>| Found {
        value: fraction(at(&lower, step), at(&upper, step), buckets),
        was_forced: false,
    };
    per_group(evaluator, columns, expr.span, of).map(Val::Vector)
}

/// What was read off the buckets of a step.
struct Found {
    value: f64,
    /// Whether counts fell with rising bounds, beyond rounding.
    was_forced: bool,
}

/// Applies a function to the buckets of every histogram at every step.
fn per_group(
    evaluator: &Evaluator<'_>,
    columns: Vec<Column>,
    span: Span,
    apply: impl Fn(usize, &mut Vec<Bucket>) -> Found,
) -> Eval<Vec<Column>> {
    // Histograms of different names stay apart until their names go.
    let mut groups: BTreeMap<Labels, Vec<(f64, Column)>> = BTreeMap::new();
    for column in columns {
        let text = column.labels.get(BOUND).unwrap_or("");
        let Some(bound) = parse_bound(text) else {
            let label = Quoted(BOUND);
            let problem = format!("bucket label {label} is missing or has a malformed value of {}", Quoted(text));
            evaluator.warn(&with_name(&problem, column.labels.metric_name()), span);
            continue;
        };
        groups.entry(column.labels.without(&[BOUND])).or_default().push((bound, column));
    }
    let mut results = Vec::new();
    for (labels, columns) in groups {
        evaluator.budget.check()?;
        let name = labels.metric_name().to_owned();
        let mut column = Column::new(labels, Vec::with_capacity(evaluator.grid.steps));
        evaluator.remove_name(&mut column);
        for step in 0..evaluator.grid.steps {
            let buckets =
                columns.iter().filter_map(|(bound, column)| Some(Bucket { bound: *bound, count: column.at(step)? }));
            let mut buckets: Vec<Bucket> = buckets.collect();
            let found = if buckets.is_empty() { None } else { Some(apply(step, &mut buckets)) };
            if found.as_ref().is_some_and(|found| found.was_forced) {
                let problem = "input to histogram_quantile needed to be fixed for monotonicity \
                     (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
                evaluator.inform(&with_name(problem, &name), span);
            }
            column.values.push(found.map_or(ABSENT, |found| found.value));
        }
        evaluator.keep(column, &mut results)?;
    }
    evaluator.merge(results)
}

fn with_name(problem: &str, name: &str) -> String {
    if name.is_empty() { problem.to_owned() } else { format!("{problem} for metric name {}", Quoted(name)) }
}

/// Sorts and joins equal bounds; `None` when there is no usable histogram.
fn prepare(buckets: &mut Vec<Bucket>) -> Option<()> {
    buckets.sort_by(|a, b| a.bound.total_cmp(&b.bound));
    if buckets.last()?.bound != f64::INFINITY {
        return None;
    }
    buckets.dedup_by(|next, kept| {
        let same = next.bound.total_cmp(&kept.bound).is_eq();
        if same {
            kept.count += next.count;
        }
        same
    });
    Some(())
}

/// Makes counts rise; true when they fell beyond rounding.
fn force_monotonic(buckets: &mut [Bucket]) -> bool {
    let mut was_forced = false;
    let mut before = buckets.first().map_or(0.0, |bucket| bucket.count);
    for bucket in buckets.iter_mut().skip(1) {
        let sum = before.abs() + bucket.count.abs();
        let close = sum > 0.0 && (bucket.count - before).abs() / sum < TOLERANCE;
        was_forced |= bucket.count < before && !close;
        if bucket.count < before || close {
            bucket.count = before;
        } else {
            before = bucket.count;
        }
    }
    was_forced
}

fn quantile(q: f64, buckets: &mut Vec<Bucket>) -> Found {
    let plain = |value| Found { value, was_forced: false };
    if q.is_nan() {
        return plain(f64::NAN);
    }
    if q < 0.0 {
        return plain(f64::NEG_INFINITY);
    }
    if q > 1.0 {
        return plain(f64::INFINITY);
    }
    if prepare(buckets).is_none() {
        return plain(f64::NAN);
    }
    let was_forced = force_monotonic(buckets);
    if buckets.len() < 2 {
        return plain(f64::NAN);
    }
    let (Some(total), Some((_, finite))) = (buckets.last(), buckets.split_last()) else { return plain(f64::NAN) };
    if total.count == 0.0 {
        return plain(f64::NAN);
    }
    Found { value: interpolate(q * total.count, finite), was_forced }
}

/// The value below which there are `rank` observations.
fn interpolate(rank: f64, finite: &[Bucket]) -> f64 {
    // As a binary search finds it: counts may be NaN.
    let at = finite.partition_point(|bucket| bucket.count.partial_cmp(&rank).is_none_or(std::cmp::Ordering::is_lt));
    let Some(bucket) = finite.get(at) else { return finite.last().map_or(f64::NAN, |bucket| bucket.bound) };
    match at.checked_sub(1).and_then(|before| finite.get(before)) {
        None if bucket.bound <= 0.0 => bucket.bound,
        None => bucket.bound * (rank / bucket.count),
        Some(before) => {
            let share = (rank - before.count) / (bucket.count - before.count);
            before.bound + (bucket.bound - before.bound) * share
        }
    }
}

/// Observations below `value`, interpolated.
fn rank_of(value: f64, buckets: &[Bucket]) -> f64 {
    let mut before = Bucket {
        bound: if buckets.first().is_some_and(|b| b.bound > 0.0) { 0.0 } else { f64::NEG_INFINITY },
        count: 0.0,
    };
    for bucket in buckets {
        if value <= before.bound {
            return before.count;
        }
        if value < bucket.bound {
            if before.bound.is_infinite() {
                return if value == f64::NEG_INFINITY { 0.0 } else { bucket.count };
            }
            if bucket.bound.is_infinite() {
                return before.count;
            }
            let share = (value - before.bound) / (bucket.bound - before.bound);
            return before.count + (bucket.count - before.count) * share;
        }
        before = *bucket;
    }
    before.count
}

fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if prepare(buckets).is_none() || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    let total = buckets.last().map_or(0.0, |bucket| bucket.count);
    if total == 0.0 || total.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_of(upper, buckets) - rank_of(lower, buckets)) / total
}
