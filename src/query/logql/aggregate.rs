//! Aggregations over series, step by step.

use std::collections::BTreeMap;

use crate::model::Labels;

use super::ast::{Grouping, VectorOp};
use super::engine::Series;
use super::window::variance;

/// The only labels that a sum keeps, so that whoever feeds it may drop the others at once.
pub(super) fn pushed_down(op: VectorOp, grouping: Option<&Grouping>) -> Option<&[String]> {
    match (op, grouping) {
        (VectorOp::Sum, None) => Some(&[]),
        (VectorOp::Sum, Some(Grouping { without: false, labels })) => Some(labels),
        _ => None,
    }
}

fn group_of(labels: &Labels, grouping: Option<&Grouping>) -> Labels {
    let Some(grouping) = grouping else { return Labels::default() };
    let names: Vec<&str> = grouping.labels.iter().map(String::as_str).collect();
    if grouping.without { labels.without(&names) } else { labels.only(&names) }
}

/// Aggregates on a grid of so many steps.
pub(super) fn aggregate(
    op: VectorOp,
    parameter: Option<f64>,
    grouping: Option<&Grouping>,
    series: Vec<Series>,
    steps: usize,
) -> Vec<Series> {
    if matches!(op, VectorOp::Sort | VectorOp::SortDesc) {
        return sorted(series, op == VectorOp::SortDesc);
    }
    let mut groups: BTreeMap<Labels, Vec<Series>> = BTreeMap::new();
    for one in series {
        groups.entry(group_of(&one.labels, grouping)).or_default().push(one);
    }
    if op.takes_parameter() {
        let limit = parameter.unwrap_or(1.0);
        let kept = groups.into_values().flat_map(|group| best(group, limit, op == VectorOp::Topk, steps)).collect();
        return sorted(kept, op == VectorOp::Topk);
    }
    groups
        .into_iter()
        .map(|(labels, group)| Series { labels, values: (0..steps).map(|step| at_step(op, &group, step)).collect() })
        .collect()
}

/// By the value at the last step that has one; equal ones by their labels.
fn sorted(mut series: Vec<Series>, descending: bool) -> Vec<Series> {
    let last = |series: &Series| series.values.iter().rev().find_map(|value| *value).unwrap_or(f64::NAN);
    series.sort_by(|a, b| {
        let by_value = last(a).total_cmp(&last(b));
        let by_value = if descending { by_value.reverse() } else { by_value };
        by_value.then_with(|| a.labels.cmp(&b.labels))
    });
    series
}

fn at_step(op: VectorOp, group: &[Series], step: usize) -> Option<f64> {
    let values = || group.iter().filter_map(move |series| series.values.get(step).copied().flatten());
    let count = values().count() as f64;
    if count == 0.0 {
        return None;
    }
    Some(match op {
        VectorOp::Sum => values().sum(),
        VectorOp::Avg => values().sum::<f64>() / count,
        VectorOp::Count => count,
        VectorOp::Min => values().fold(f64::INFINITY, f64::min),
        VectorOp::Max => values().fold(f64::NEG_INFINITY, f64::max),
        VectorOp::Stdvar => variance(values(), count),
        VectorOp::Stddev => variance(values(), count).sqrt(),
        VectorOp::Topk | VectorOp::Bottomk | VectorOp::Sort | VectorOp::SortDesc => return None,
    })
}

/// Keeps the highest or lowest values of each step.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the parser wants at least 1, and casts saturate"
)]
fn best(mut group: Vec<Series>, limit: f64, highest: bool, steps: usize) -> Vec<Series> {
    let limit = limit as usize;
    for step in 0..steps {
        let mut ranked: Vec<(f64, usize)> = group
            .iter()
            .enumerate()
            .filter_map(|(index, series)| Some((series.values.get(step).copied().flatten()?, index)))
            .collect();
        ranked.sort_by(|a, b| if highest { b.0.total_cmp(&a.0) } else { a.0.total_cmp(&b.0) });
        for (_, index) in ranked.into_iter().skip(limit) {
            if let Some(value) = group.get_mut(index).and_then(|series| series.values.get_mut(step)) {
                *value = None;
            }
        }
    }
    group.retain(|series| series.values.iter().any(Option::is_some));
    group
}
