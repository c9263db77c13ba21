//! Aggregations over groups of series.

use std::collections::BTreeMap;

use super::ast::{Aggregate, AggregateOp};
use super::engine::QueryError;
use super::eval::{ABSENT, Column, Eval, Evaluator, Val, merge};
use super::format::decimal;
use super::window::{Kahan, Mean, quantile};
use crate::model::Labels;
use crate::model::labels::METRIC_NAME;

/// The parameter of an aggregation over the steps.
enum Parameter {
    None,
    Numbers(Vec<f64>),
    Text(String),
}

pub(super) fn eval(evaluator: &Evaluator<'_>, aggregate: &Aggregate) -> Eval<Vec<Column>> {
    let parameter = match &aggregate.parameter {
        None => Parameter::None,
        Some(expr) => match evaluator.eval(expr)? {
            Val::Scalar(values) => Parameter::Numbers(values),
            Val::String(text) => Parameter::Text(text),
            Val::Vector(_) => return Err(QueryError::Execution("expected a scalar parameter".to_owned())),
        },
    };
    let columns = evaluator.vector(&aggregate.expr)?;
    let mut names: Vec<&str> = aggregate.grouping.iter().map(String::as_str).collect();
    if aggregate.without {
        names.push(METRIC_NAME);
    }
    let mut groups: BTreeMap<Labels, Vec<&Column>> = BTreeMap::new();
    for column in &columns {
        let key = if aggregate.without { column.labels.without(&names) } else { column.labels.only(&names) };
        groups.entry(key).or_default().push(column);
    }
    let mut results = Vec::new();
    for (labels, members) in groups {
        evaluator.budget.check()?;
        match (aggregate.op, &parameter) {
            (AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk, Parameter::Numbers(k)) => {
                pick(evaluator, aggregate.op, k, &members, &mut results)?;
            }
            (AggregateOp::CountValues, Parameter::Text(name)) => {
                count_values(evaluator, &labels, name, &members, &mut results)?;
            }
            (AggregateOp::Quantile, Parameter::Numbers(q)) => {
                let of =
                    |step: usize, values: &mut Vec<f64>| quantile(q.get(step).copied().unwrap_or(f64::NAN), values);
                evaluator.keep(fold(evaluator, labels, &members, of), &mut results)?;
            }
            (op, _) => {
                evaluator.keep(fold(evaluator, labels, &members, |_, values| reduce(op, values)), &mut results)?;
            }
        }
    }
    if aggregate.op == AggregateOp::CountValues { merge(results) } else { Ok(results) }
}

fn fold(
    evaluator: &Evaluator<'_>,
    labels: Labels,
    members: &[&Column],
    of: impl Fn(usize, &mut Vec<f64>) -> f64,
) -> Column {
    let mut present = Vec::with_capacity(members.len());
    let mut values = Vec::with_capacity(evaluator.grid.steps);
    for step in 0..evaluator.grid.steps {
        present.clear();
        present.extend(members.iter().filter_map(|column| column.at(step)));
        values.push(if present.is_empty() { ABSENT } else { of(step, &mut present) });
    }
    Column { labels, values }
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

/// topk, bottomk and limitk: series keep their labels; in order of value where the order of the first step counts.
fn pick(
    evaluator: &Evaluator<'_>,
    op: AggregateOp,
    k: &[f64],
    members: &[&Column],
    results: &mut Vec<Column>,
) -> Eval<()> {
    let steps = evaluator.grid.steps;
    let mut chosen: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    let mut order = Vec::new();
    for step in 0..steps {
        let k = k.get(step).copied().unwrap_or(0.0);
        if k.is_nan() {
            return Err(QueryError::Execution("Parameter value is NaN".to_owned()));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let k = k.max(0.0) as usize;
        let present = members.iter().enumerate();
        let mut present: Vec<(usize, f64)> = present.filter_map(|(i, column)| Some((i, column.at(step)?))).collect();
        if op != AggregateOp::Limitk {
            present.sort_by(|(_, a), (_, b)| {
                let values = if op == AggregateOp::Topk { b.partial_cmp(a) } else { a.partial_cmp(b) };
                values.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
            });
        }
        for (index, value) in present.into_iter().take(k) {
            let values = chosen.entry(index).or_insert_with(|| {
                order.push(index);
                vec![ABSENT; steps]
            });
            if let Some(place) = values.get_mut(step) {
                *place = value;
            }
        }
    }
    for index in order {
        if let (Some(column), Some(values)) = (members.get(index), chosen.remove(&index)) {
            evaluator.keep(Column { labels: column.labels.clone(), values }, results)?;
        }
    }
    Ok(())
}

fn count_values(
    evaluator: &Evaluator<'_>,
    labels: &Labels,
    name: &str,
    members: &[&Column],
    results: &mut Vec<Column>,
) -> Eval<()> {
    if name.is_empty() {
        return Err(QueryError::Execution(format!("invalid label name {name:?}")));
    }
    let steps = evaluator.grid.steps;
    let mut counts: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for column in members {
        for step in 0..steps {
            let Some(value) = column.at(step) else { continue };
            let values = counts.entry(decimal(value)).or_insert_with(|| vec![ABSENT; steps]);
            if let Some(count) = values.get_mut(step) {
                *count = if count.is_nan() { 1.0 } else { *count + 1.0 };
            }
        }
    }
    for (value, values) in counts {
        evaluator.keep(Column { labels: labels.with(name, &value), values }, results)?;
    }
    Ok(())
}
