//! Calls of functions.

use regex::Regex;
use rustc_hash::FxHashSet;

use super::ast::{Call, Expr, ExprKind, ValueType};
use super::engine::QueryError;
use super::eval::{ABSENT, Column, Eval, Evaluator, Val, is_absent, map_values, merge, same_labels_error};
use super::functions::{Body, Special, date_part};
use super::histogram;
use crate::model::Labels;
use crate::model::labels::METRIC_NAME;
use crate::model::matcher::{MatchOp, anchored_regex};
use crate::query::promql::window::Window;

fn missing() -> QueryError {
    QueryError::Execution("a function's argument is missing".to_owned())
}

fn arg(call: &Call, index: usize) -> Eval<&Expr> {
    call.args.get(index).ok_or_else(missing)
}

fn text(evaluator: &Evaluator<'_>, call: &Call, index: usize) -> Eval<String> {
    match evaluator.eval(arg(call, index)?)? {
        Val::String(text) => Ok(text),
        Val::Scalar(_) | Val::Vector(_) => Err(QueryError::Execution("expected a string".to_owned())),
    }
}

pub(super) fn eval(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    match call.function.body {
        Body::Math(apply) => {
            let columns = evaluator.vector(arg(call, 0)?)?;
            map_values(columns, |_, value| apply(value)).map(Val::Vector)
        }
        Body::Date(part) => date(evaluator, call, part),
        Body::Window(apply) => over_range(evaluator, call, apply, false),
        Body::WindowKeepingName(apply) => over_range(evaluator, call, apply, true),
        Body::Special(special) => eval_special(evaluator, call, special),
    }
}

fn over_range(
    evaluator: &Evaluator<'_>,
    call: &Call,
    apply: fn(&Window<'_>) -> Option<f64>,
    keep_name: bool,
) -> Eval<Val> {
    let mut params = Vec::new();
    for arg in call.args.iter().filter(|arg| arg.value_type() == ValueType::Scalar) {
        params.push(evaluator.scalar(arg)?);
    }
    let range = call.args.iter().find(|arg| arg.value_type() == ValueType::Matrix).ok_or_else(missing)?;
    let mut seen: FxHashSet<Labels> = FxHashSet::default();
    let mut columns = Vec::new();
    evaluator.for_each_range(range, |range, series| {
        let values = evaluator.windows(range, &series.points, &params, apply);
        let labels = if keep_name { series.labels } else { series.labels.without(&[METRIC_NAME]) };
        let before = columns.len();
        evaluator.keep(Column { labels: labels.clone(), values }, &mut columns)?;
        if columns.len() > before && !seen.insert(labels) {
            return Err(same_labels_error());
        }
        Ok(())
    })?;
    Ok(Val::Vector(columns))
}

fn date(evaluator: &Evaluator<'_>, call: &Call, part: fn(chrono::DateTime<chrono::Utc>) -> u32) -> Eval<Val> {
    let columns = match call.args.first() {
        Some(arg) => evaluator.vector(arg)?,
        None => vec![Column { labels: Labels::default(), values: times(evaluator) }],
    };
    let apply = |_, value: f64| if value.is_finite() { date_part(part, value).unwrap_or(f64::NAN) } else { f64::NAN };
    map_values(columns, apply).map(Val::Vector)
}

/// The steps' times in seconds.
fn times(evaluator: &Evaluator<'_>) -> Vec<f64> {
    evaluator.grid.times().map(|ms| ms as f64 / 1000.0).collect()
}

fn eval_special(evaluator: &Evaluator<'_>, call: &Call, special: Special) -> Eval<Val> {
    match special {
        Special::Pi => Ok(Val::Scalar(vec![std::f64::consts::PI; evaluator.grid.steps])),
        Special::Time => Ok(Val::Scalar(times(evaluator))),
        Special::Scalar => scalar(evaluator, call),
        Special::Vector => {
            let values = evaluator.scalar(arg(call, 0)?)?;
            Ok(Val::Vector(vec![Column { labels: Labels::default(), values }]))
        }
        Special::Absent => absent(evaluator, call),
        Special::AbsentOverTime => absent_over_time(evaluator, call),
        Special::Clamp | Special::ClampMin | Special::ClampMax => clamp(evaluator, call, special),
        Special::Round => round(evaluator, call),
        Special::Sort { descending } => sort(evaluator, call, descending),
        Special::SortByLabel { descending } => sort_by_label(evaluator, call, descending),
        Special::Timestamp => timestamp(evaluator, call),
        Special::LabelReplace => label_replace(evaluator, call),
        Special::LabelJoin => label_join(evaluator, call),
        Special::HistogramQuantile => {
            let q = evaluator.scalar(arg(call, 0)?)?;
            let columns = evaluator.vector(arg(call, 1)?)?;
            histogram::per_group(evaluator, columns, |step, buckets| {
                histogram::quantile(q.get(step).copied().unwrap_or(f64::NAN), buckets)
            })
        }
        Special::HistogramFraction => {
            let lower = evaluator.scalar(arg(call, 0)?)?;
            let upper = evaluator.scalar(arg(call, 1)?)?;
            let columns = evaluator.vector(arg(call, 2)?)?;
            let at = |values: &[f64], step: usize| values.get(step).copied().unwrap_or(f64::NAN);
            histogram::per_group(evaluator, columns, |step, buckets| {
                histogram::fraction(at(&lower, step), at(&upper, step), buckets)
            })
        }
    }
}

fn scalar(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    let columns = evaluator.vector(arg(call, 0)?)?;
    let only = |step: usize| {
        let mut values = columns.iter().filter_map(|column| column.at(step));
        match (values.next(), values.next()) {
            (Some(value), None) => value,
            _ => f64::NAN,
        }
    };
    Ok(Val::Scalar((0..evaluator.grid.steps).map(only).collect()))
}

/// Labels that the absent series would have: from equality matchers whose label is named once.
fn absent_labels(expr: &Expr) -> Labels {
    let (ExprKind::Selector(selector) | ExprKind::Range { selector, .. }) = &expr.inner().kind else {
        return Labels::default();
    };
    let named_once = |name: &str| selector.matchers.iter().filter(|matcher| matcher.name == name).count() == 1;
    let usable =
        selector.matchers.iter().filter(|m| m.op == MatchOp::Equal && m.name != METRIC_NAME && named_once(&m.name));
    Labels::from_pairs(usable.map(|matcher| (matcher.name.as_str(), matcher.value.as_str())))
}

fn absent(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    let expr = arg(call, 0)?;
    let columns = evaluator.vector(expr)?;
    let value = |step| if columns.iter().any(|column| column.at(step).is_some()) { ABSENT } else { 1.0 };
    let values = (0..evaluator.grid.steps).map(value).collect();
    Ok(Val::Vector(vec![Column { labels: absent_labels(expr), values }]))
}

fn absent_over_time(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    let expr = arg(call, 0)?;
    let mut values = vec![1.0; evaluator.grid.steps];
    evaluator.for_each_range(expr, |range, series| {
        let present = evaluator.windows(range, &series.points, &[], super::window::present);
        for (value, present) in values.iter_mut().zip(present) {
            if !is_absent(present) {
                *value = ABSENT;
            }
        }
        Ok(())
    })?;
    Ok(Val::Vector(vec![Column { labels: absent_labels(expr), values }]))
}

fn clamp(evaluator: &Evaluator<'_>, call: &Call, special: Special) -> Eval<Val> {
    let columns = evaluator.vector(arg(call, 0)?)?;
    let bound = evaluator.scalar(arg(call, 1)?)?;
    let at = |values: &[f64], step: usize| values.get(step).copied().unwrap_or(f64::NAN);
    // Like Go's math.Max and math.Min: NaN wins.
    let max = |a: f64, b: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) };
    let min = |a: f64, b: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) };
    let columns = match special {
        Special::ClampMin => map_values(columns, |step, value| max(at(&bound, step), value)),
        Special::ClampMax => map_values(columns, |step, value| min(at(&bound, step), value)),
        _ => {
            let upper = evaluator.scalar(arg(call, 2)?)?;
            map_values(columns, |step, value| {
                let (low, high) = (at(&bound, step), at(&upper, step));
                if low > high { ABSENT } else { max(low, min(high, value)) }
            })
        }
    };
    columns.map(Val::Vector)
}

fn round(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    let columns = evaluator.vector(arg(call, 0)?)?;
    let nearest = match call.args.get(1) {
        Some(arg) => evaluator.scalar(arg)?,
        None => vec![1.0; evaluator.grid.steps],
    };
    let apply = |step: usize, value: f64| {
        // The inverse keeps 0.1 and its like exact.
        let inverse = 1.0 / nearest.get(step).copied().unwrap_or(1.0);
        (value * inverse + 0.5).floor() / inverse
    };
    map_values(columns, apply).map(Val::Vector)
}

fn sort(evaluator: &Evaluator<'_>, call: &Call, descending: bool) -> Eval<Val> {
    let mut columns = evaluator.vector(arg(call, 0)?)?;
    let first = |column: &Column| column.values.first().copied().unwrap_or(f64::NAN);
    columns.sort_by(|a, b| {
        let (a, b) = (first(a), first(b));
        let values = if descending { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
        // NaN comes last either way.
        values.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    });
    Ok(Val::Vector(columns))
}

fn sort_by_label(evaluator: &Evaluator<'_>, call: &Call, descending: bool) -> Eval<Val> {
    let mut columns = evaluator.vector(arg(call, 0)?)?;
    let mut names = Vec::new();
    for index in 1..call.args.len() {
        names.push(text(evaluator, call, index)?);
    }
    columns.sort_by(|a, b| {
        let get = |column: &Column, name: &str| column.labels.get(name).unwrap_or("").to_owned();
        let by_names = names.iter().map(|name| get(a, name).cmp(&get(b, name))).find(|order| order.is_ne());
        let order = by_names.unwrap_or_else(|| a.labels.cmp(&b.labels));
        if descending { order.reverse() } else { order }
    });
    Ok(Val::Vector(columns))
}

fn timestamp(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    let expr = arg(call, 0)?;
    if let ExprKind::Selector(selector) = &expr.inner().kind {
        let columns = evaluator.selector(selector, true)?;
        return map_values(columns, |_, value| value).map(Val::Vector);
    }
    let times = times(evaluator);
    let columns = evaluator.vector(expr)?;
    map_values(columns, |step, _| times.get(step).copied().unwrap_or(f64::NAN)).map(Val::Vector)
}

fn check_label_name(name: &str, function: &str) -> Eval<()> {
    if name.is_empty() {
        return Err(QueryError::Execution(format!("invalid destination label name in {function}(): {name}")));
    }
    Ok(())
}

fn label_replace(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    let mut columns = evaluator.vector(arg(call, 0)?)?;
    let target = text(evaluator, call, 1)?;
    let replacement = text(evaluator, call, 2)?;
    let source = text(evaluator, call, 3)?;
    let pattern = text(evaluator, call, 4)?;
    check_label_name(&target, "label_replace")?;
    let regex: Regex = anchored_regex(&pattern)
        .map_err(|_| QueryError::Execution(format!("invalid regular expression in label_replace(): {pattern}")))?;
    for column in &mut columns {
        let value = column.labels.get(&source).unwrap_or("");
        if let Some(captures) = regex.captures(value) {
            let mut expanded = String::new();
            captures.expand(&replacement, &mut expanded);
            column.labels = column.labels.with(&target, &expanded);
        }
    }
    merge(columns).map(Val::Vector)
}

fn label_join(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    let mut columns = evaluator.vector(arg(call, 0)?)?;
    let target = text(evaluator, call, 1)?;
    let separator = text(evaluator, call, 2)?;
    check_label_name(&target, "label_join")?;
    let mut sources = Vec::new();
    for index in 3..call.args.len() {
        sources.push(text(evaluator, call, index)?);
    }
    for column in &mut columns {
        let values: Vec<&str> = sources.iter().map(|name| column.labels.get(name).unwrap_or("")).collect();
        let joined = values.join(&separator);
        column.labels = column.labels.with(&target, &joined);
    }
    merge(columns).map(Val::Vector)
}
