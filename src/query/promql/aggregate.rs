//! Aggregations over groups of series.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::ast::{Aggregate, AggregateOp, Span};
use super::calls::{at, check_quantiles};
use super::engine::QueryError;
use super::eval::{ABSENT, Column, Eval, Evaluator, Val, is_absent};
use super::format::decimal;
use super::pick;
use super::window::{Kahan, Mean, quantile};
use crate::model::Labels;
use crate::model::labels::METRIC_NAME;
use crate::model::quote::Quoted;

/// The parameter of an aggregation over the steps.
enum Parameter {
    None,
    Numbers(Vec<f64>, Span),
    Text(String),
}

/// The series of one group, in the order in which they came.
pub(super) struct Group<'a> {
    pub(super) labels: Labels,
    pub(super) members: Vec<&'a Column>,
}

pub(super) fn eval(evaluator: &Evaluator<'_>, aggregate: &Aggregate) -> Eval<Vec<Column>> {
    let parameter = match &aggregate.parameter {
        None => Parameter::None,
        Some(expr) => match evaluator.eval(expr)? {
            Val::Scalar(values) => Parameter::Numbers(values, expr.span),
            Val::String(text) => Parameter::Text(text),
            Val::Vector(_) => return Err(QueryError::Execution("expected a scalar parameter".to_owned())),
        },
    };
    let columns = evaluator.vector(&aggregate.expr)?;
    match (aggregate.op, &parameter) {
        (AggregateOp::Quantile, Parameter::Numbers(q, span)) => check_quantiles(evaluator, q, *span),
        (AggregateOp::LimitRatio, Parameter::Numbers(ratios, span)) => {
            pick::check_ratios(evaluator, ratios, *span, !columns.is_empty())?;
        }
        (AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk, Parameter::Numbers(k, _))
            if !columns.is_empty() =>
        {
            pick::check_counts(k)?;
        }
        _ => {}
    }
    if let Parameter::Text(label) = &parameter {
        return count_values(evaluator, aggregate, label, &columns);
    }
    let mut results = Vec::new();
    for group in groups(aggregate, &columns) {
        evaluator.budget.check()?;
        match (aggregate.op, &parameter) {
            (AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk, Parameter::Numbers(k, _)) => {
                pick::by_count(evaluator, aggregate.op, k, &group, &mut results)?;
            }
            (AggregateOp::LimitRatio, Parameter::Numbers(ratios, _)) => {
                pick::by_ratio(evaluator, ratios, &group, &mut results)?;
            }
            (AggregateOp::Quantile, Parameter::Numbers(q, _)) => {
                let column = fold(evaluator, aggregate, &group, |step, values| quantile(at(q, step), values));
                evaluator.keep(column, &mut results)?;
            }
            (op, _) => {
                evaluator.keep(fold(evaluator, aggregate, &group, |_, values| reduce(op, values)), &mut results)?;
            }
        }
    }
    Ok(results)
}

/// The labels by which series are grouped.
fn group_labels(aggregate: &Aggregate, labels: &Labels) -> Labels {
    let mut names: Vec<&str> = aggregate.grouping.iter().map(String::as_str).collect();
    if aggregate.without {
        names.push(METRIC_NAME);
        labels.without(&names)
    } else {
        labels.only(&names)
    }
}

/// Groups in the order of their first series.
fn groups<'a>(aggregate: &Aggregate, columns: &'a [Column]) -> Vec<Group<'a>> {
    let mut places: FxHashMap<Labels, usize> = FxHashMap::default();
    let mut groups: Vec<Group<'a>> = Vec::new();
    for column in columns {
        let labels = group_labels(aggregate, &column.labels);
        let place = *places.entry(labels.clone()).or_insert_with(|| {
            groups.push(Group { labels, members: Vec::new() });
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(place) {
            group.members.push(column);
        }
    }
    groups
}

/// Whether a group that is made by the metric's name has names that are to go.
fn drops_name(aggregate: &Aggregate, members: &[&Column]) -> bool {
    !aggregate.without
        && aggregate.grouping.iter().any(|name| name == METRIC_NAME)
        && members.iter().any(|column| column.drop_name)
}

fn fold(
    evaluator: &Evaluator<'_>,
    aggregate: &Aggregate,
    group: &Group<'_>,
    of: impl Fn(usize, &mut Vec<f64>) -> f64,
) -> Column {
    let mut present = Vec::with_capacity(group.members.len());
    let mut values = Vec::with_capacity(evaluator.grid.steps);
    for step in 0..evaluator.grid.steps {
        present.clear();
        present.extend(group.members.iter().filter_map(|column| column.at(step)));
        values.push(if present.is_empty() { ABSENT } else { of(step, &mut present) });
    }
    Column { labels: group.labels.clone(), values, drop_name: drops_name(aggregate, &group.members) }
}

fn reduce(op: AggregateOp, values: &[f64]) -> f64 {
    let extreme = |wins: fn(f64, f64) -> bool| {
        let pick = |best: f64, value: f64| if wins(value, best) || best.is_nan() { value } else { best };
        values.iter().copied().reduce(pick).unwrap_or(f64::NAN)
    };
    match op {
        AggregateOp::Sum => values.iter().copied().fold(Kahan::default(), Kahan::plus).total(),
        AggregateOp::Count => values.len() as f64,
        AggregateOp::Avg => {
            let mut mean = Mean::default();
            for value in values {
                mean.add(*value);
            }
            mean.value()
        }
        AggregateOp::Min => extreme(|value, best| value < best),
        AggregateOp::Max => extreme(|value, best| value > best),
        AggregateOp::Stdvar => variance(values),
        AggregateOp::Stddev => variance(values).sqrt(),
        // `group`; the others have a parameter and never come here.
        _ => 1.0,
    }
}

fn variance(values: &[f64]) -> f64 {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        let delta = value - mean;
        mean += delta / count;
        squares += delta * (value - mean);
    }
    if values.iter().any(|value| !value.is_finite()) { f64::NAN } else { squares / count }
}

/// Counts equal values; the value becomes a label before the groups are made, so that `without` can take it away again.
fn count_values(
    evaluator: &Evaluator<'_>,
    aggregate: &Aggregate,
    label: &str,
    columns: &[Column],
) -> Eval<Vec<Column>> {
    if label.is_empty() {
        return Err(QueryError::Execution(format!("invalid label name {}", Quoted(label))));
    }
    let mut with_label = aggregate.clone();
    if !aggregate.without {
        with_label.grouping.push(label.to_owned());
    }
    let steps = evaluator.grid.steps;
    let mut counts: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
    for column in columns {
        evaluator.budget.check()?;
        for step in 0..steps {
            let Some(value) = column.at(step) else { continue };
            let labels = group_labels(&with_label, &column.labels.with(label, &decimal(value)));
            let values = counts.entry(labels).or_insert_with(|| vec![ABSENT; steps]);
            if let Some(count) = values.get_mut(step) {
                *count = if is_absent(*count) { 1.0 } else { *count + 1.0 };
            }
        }
    }
    let mut results = Vec::new();
    for (labels, values) in counts {
        evaluator.keep(Column::new(labels, values), &mut results)?;
    }
    Ok(results)
}
