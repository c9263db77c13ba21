//! Classic histograms: buckets as series with the label `le`.

use std::collections::BTreeMap;

use super::eval::{ABSENT, Column, Eval, Evaluator, Val};
use crate::model::Labels;
use crate::model::labels::METRIC_NAME;

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

/// Applies a function to the buckets of every histogram at every step.
pub(super) fn per_group(
    evaluator: &Evaluator<'_>,
    columns: Vec<Column>,
    apply: impl Fn(usize, &mut Vec<Bucket>) -> f64,
) -> Eval<Val> {
    let mut groups: BTreeMap<Labels, Vec<(f64, Column)>> = BTreeMap::new();
    for column in columns {
        let bound = column.labels.get(BOUND).unwrap_or("");
        let Some(bound) = parse_bound(bound) else {
            let name = column.labels.metric_name();
            let warning = format!(
                "PromQL warning: bucket label {BOUND:?} is missing or has a malformed value of {bound:?} for metric name {name:?}"
            );
            evaluator.notes.warnings.borrow_mut().insert(warning);
            continue;
        };
        groups.entry(column.labels.without(&[METRIC_NAME, BOUND])).or_default().push((bound, column));
    }
    let mut results = Vec::new();
    for (labels, columns) in groups {
        let mut values = Vec::with_capacity(evaluator.grid.steps);
        for step in 0..evaluator.grid.steps {
            let buckets =
                columns.iter().filter_map(|(bound, column)| Some(Bucket { bound: *bound, count: column.at(step)? }));
            let mut buckets: Vec<Bucket> = buckets.collect();
            values.push(if buckets.is_empty() { ABSENT } else { apply(step, &mut buckets) });
        }
        evaluator.keep(Column { labels, values }, &mut results)?;
    }
    Ok(Val::Vector(results))
}

/// Sorts, joins equal bounds and makes counts rise; false when there is no usable histogram.
fn prepare(buckets: &mut Vec<Bucket>) -> bool {
    buckets.sort_by(|a, b| a.bound.total_cmp(&b.bound));
    buckets.dedup_by(|next, kept| {
        let same = next.bound.total_cmp(&kept.bound).is_eq();
        if same {
            kept.count += next.count;
        }
        same
    });
    if buckets.last().is_none_or(|last| last.bound != f64::INFINITY) {
        return false;
    }
    let mut before = buckets.first().map_or(0.0, |bucket| bucket.count);
    for bucket in buckets.iter_mut().skip(1) {
        let close = (bucket.count - before).abs() <= TOLERANCE * before.abs().max(bucket.count.abs());
        if bucket.count < before || close {
            bucket.count = before;
        } else {
            before = bucket.count;
        }
    }
    buckets.len() >= 2
}

pub(super) fn quantile(q: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    if !prepare(buckets) {
        return f64::NAN;
    }
    let (Some(total), Some((_, finite))) = (buckets.last(), buckets.split_last()) else { return f64::NAN };
    if total.count == 0.0 || total.count.is_nan() {
        return f64::NAN;
    }
    let rank = q * total.count;
    let Some(at) = finite.iter().position(|bucket| bucket.count >= rank) else {
        return finite.last().map_or(f64::NAN, |bucket| bucket.bound);
    };
    let Some(bucket) = finite.get(at) else { return f64::NAN };
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

pub(super) fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if !prepare(buckets) || lower.is_nan() || upper.is_nan() {
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
