//! Operators between two metric expressions.

use std::collections::BTreeMap;

use crate::model::Labels;

use super::ast::{BinOp, Cardinality, Matching};
use super::engine::{QueryError, Series, Value};
use super::filters::compare;

/// Evaluates on a grid of so many steps.
pub(super) fn evaluate(
    op: BinOp,
    returns_bool: bool,
    matching: &Matching,
    (left, right): (Value, Value),
    steps: usize,
) -> Result<Value, QueryError> {
    match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => {
            // A comparison of numbers is 0 or 1, with or without `bool`.
            let values = left.iter().zip(&right).map(|(l, r)| apply(op, *l, *r));
            Ok(Value::Scalar(values.collect()))
        }
        (Value::Vector(series), Value::Scalar(scalar)) => {
            Ok(Value::Vector(with_scalar(op, returns_bool, series, &scalar, false)))
        }
        (Value::Scalar(scalar), Value::Vector(series)) => {
            Ok(Value::Vector(with_scalar(op, returns_bool, series, &scalar, true)))
        }
        (Value::Vector(left), Value::Vector(right)) if op.is_set() => {
            Ok(Value::Vector(set(op, matching, left, right, steps)))
        }
        (Value::Vector(left), Value::Vector(right)) => {
            vectors(op, returns_bool, matching, (left, right), steps).map(Value::Vector)
        }
    }
}

fn apply(op: BinOp, left: f64, right: f64) -> f64 {
    match op {
        BinOp::Add => left + right,
        BinOp::Sub => left - right,
        BinOp::Mul => left * right,
        BinOp::Div => left / right,
        BinOp::Mod => left % right,
        BinOp::Pow => left.powf(right),
        BinOp::Or | BinOp::And | BinOp::Unless => f64::NAN,
        comparison => f64::from(u8::from(compare(left, comparison.name(), right))),
    }
}

/// The result of one pair: a comparison without `bool` keeps `shown` or drops it.
fn combine(op: BinOp, returns_bool: bool, (left, right): (f64, f64), shown: f64) -> Option<f64> {
    let value = apply(op, left, right);
    if !op.is_comparison() || returns_bool { Some(value) } else { (value != 0.0).then_some(shown) }
}

fn with_scalar(
    op: BinOp,
    returns_bool: bool,
    mut series: Vec<Series>,
    scalar: &[f64],
    scalar_is_left: bool,
) -> Vec<Series> {
    for one in &mut series {
        for (value, number) in one.values.iter_mut().zip(scalar) {
            *value = value.and_then(|found| {
                let pair = if scalar_is_left { (*number, found) } else { (found, *number) };
                combine(op, returns_bool, pair, found)
            });
        }
    }
    series.retain(|series| series.values.iter().any(Option::is_some));
    series
}

fn key(labels: &Labels, matching: &Matching) -> Labels {
    let names: Vec<&str> = matching.labels.iter().map(String::as_str).collect();
    if matching.on { labels.only(&names) } else { labels.without(&names) }
}

fn set(op: BinOp, matching: &Matching, left: Vec<Series>, right: Vec<Series>, steps: usize) -> Vec<Series> {
    let present = |side: &[Series]| {
        let mut steps_of: BTreeMap<Labels, Vec<bool>> = BTreeMap::new();
        for series in side {
            let seen = steps_of.entry(key(&series.labels, matching)).or_insert_with(|| vec![false; steps]);
            for (seen, value) in seen.iter_mut().zip(&series.values) {
                *seen |= value.is_some();
            }
        }
        steps_of
    };
    let mask = |mut series: Series, other: &BTreeMap<Labels, Vec<bool>>, keep_when: bool| {
        let there = other.get(&key(&series.labels, matching));
        for (step, value) in series.values.iter_mut().enumerate() {
            let seen = there.is_some_and(|steps| steps.get(step).copied().unwrap_or(false));
            if seen != keep_when {
                *value = None;
            }
        }
        series
    };
    let mut result: Vec<Series> = if op == BinOp::Or {
        let of_left = present(&left);
        left.into_iter().chain(right.into_iter().map(|series| mask(series, &of_left, false))).collect()
    } else {
        let of_right = present(&right);
        left.into_iter().map(|series| mask(series, &of_right, op == BinOp::And)).collect()
    };
    result.retain(|series| series.values.iter().any(Option::is_some));
    result
}

fn vectors(
    op: BinOp,
    returns_bool: bool,
    matching: &Matching,
    (left, right): (Vec<Series>, Vec<Series>),
    steps: usize,
) -> Result<Vec<Series>, QueryError> {
    let one_is_left = matches!(matching.cardinality, Cardinality::OneToMany(_));
    let (many, one) = if one_is_left { (right, left) } else { (left, right) };
    let mut ones: BTreeMap<Labels, Series> = BTreeMap::new();
    for series in one {
        let key = key(&series.labels, matching);
        if ones.insert(key, series).is_some() {
            return Err(QueryError::Invalid(
                "found duplicate series for the match group; many-to-many matching not allowed".to_owned(),
            ));
        }
    }
    let mut results: BTreeMap<Labels, Series> = BTreeMap::new();
    for series in many {
        let match_key = key(&series.labels, matching);
        let Some(partner) = ones.get(&match_key) else { continue };
        let labels = match &matching.cardinality {
            Cardinality::OneToOne => match_key,
            Cardinality::ManyToOne(taken) | Cardinality::OneToMany(taken) => {
                let mut builder = series.labels.to_builder();
                for name in taken {
                    builder.set(name.as_str(), partner.labels.get(name).unwrap_or(""));
                }
                builder.build()
            }
        };
        let value_at = |step: usize| {
            let (m, o) = (series.values.get(step).copied().flatten()?, partner.values.get(step).copied().flatten()?);
            let pair = if one_is_left { (o, m) } else { (m, o) };
            combine(op, returns_bool, pair, pair.0)
        };
        let values: Vec<Option<f64>> = (0..steps).map(value_at).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        if results.insert(labels.clone(), Series { labels, values }).is_some() {
            let message = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)";
            return Err(QueryError::Invalid(message.to_owned()));
        }
    }
    Ok(results.into_values().collect())
}
