//! Calls of functions.

use super::ast::{Call, Expr, ExprKind, Span, ValueType};
use super::engine::QueryError;
use super::eval::{ABSENT, Column, Eval, Evaluator, Val, is_absent, same_labels_error};
use super::format::number;
use super::functions::{Body, CheckFn, Civil, QueryNumber, Special};
use super::window::{self, Window};
use super::{histogram, info, label_calls};
use crate::model::Labels;
use crate::model::labels::METRIC_NAME;
use crate::model::matcher::MatchOp;
use crate::model::quote::Quoted;

fn missing() -> QueryError {
    QueryError::Execution("a function's argument is missing".to_owned())
}

pub(super) fn arg(call: &Call, index: usize) -> Eval<&Expr> {
    call.args.get(index).ok_or_else(missing)
}

pub(super) fn text(evaluator: &Evaluator<'_>, call: &Call, index: usize) -> Eval<String> {
    match evaluator.eval(arg(call, index)?)? {
        Val::String(text) => Ok(text),
        Val::Scalar(_) | Val::Vector(_) => Err(QueryError::Execution("expected a string".to_owned())),
    }
}

/// The value of a scalar argument at a step.
pub(super) fn at(values: &[f64], step: usize) -> f64 {
    values.get(step).copied().unwrap_or(f64::NAN)
}

pub(super) fn eval(evaluator: &Evaluator<'_>, call: &Call, span: Span) -> Eval<Val> {
    let windowed = |apply, keeps_name| Windowed { apply, keeps_name, is_counter: false, check: None };
    match call.function.body {
        Body::Math(apply) => {
            let columns = evaluator.vector(arg(call, 0)?)?;
            evaluator.map_values(columns, |_, value| apply(value)).map(Val::Vector)
        }
        Body::Date(part) => date(evaluator, call, part),
        Body::Window(apply) => over_range(evaluator, call, windowed(apply, false)),
        Body::WindowKeepingName(apply) => over_range(evaluator, call, windowed(apply, true)),
        Body::Counter(apply) => over_range(evaluator, call, Windowed { is_counter: true, ..windowed(apply, false) }),
        Body::Checked(apply, check) => {
            over_range(evaluator, call, Windowed { check: Some(check), ..windowed(apply, false) })
        }
        Body::OfHistogram => {
            evaluator.vector(arg(call, 0)?)?;
            Ok(Val::Vector(Vec::new()))
        }
        Body::OfQuery(number) => Ok(Val::Scalar(vec![of_query(evaluator, number); evaluator.grid.steps])),
        Body::Special(special) => eval_special(evaluator, call, special, span),
    }
}

fn of_query(evaluator: &Evaluator<'_>, number: QueryNumber) -> f64 {
    let (start_ms, end_ms) = evaluator.query_range;
    let ms = match number {
        QueryNumber::Start => start_ms,
        QueryNumber::End => end_ms,
        QueryNumber::Step => evaluator.query_step_ms,
        QueryNumber::Range => end_ms - start_ms,
    };
    ms as f64 / 1000.0
}

/// A function over the windows of one series.
#[derive(Clone, Copy)]
struct Windowed {
    apply: fn(&Window<'_>) -> Option<f64>,
    keeps_name: bool,
    /// Whether the series should be a counter.
    is_counter: bool,
    /// What the scalar arguments must satisfy.
    check: Option<CheckFn>,
}

const COUNTER_ENDINGS: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];

fn over_range(evaluator: &Evaluator<'_>, call: &Call, windowed: Windowed) -> Eval<Val> {
    let mut params = Vec::new();
    for arg in call.args.iter().filter(|arg| arg.value_type() == ValueType::Scalar) {
        params.push(evaluator.scalar(arg)?);
    }
    let range = call.args.iter().find(|arg| arg.value_type() == ValueType::Matrix).ok_or_else(missing)?;
    // Prometheus places notes on a subquery at the start of the text.
    let is_subquery = matches!(range.inner().kind, ExprKind::Subquery(_));
    let place = if is_subquery { Span { line: 1, column: 1, ..Span::default() } } else { range.inner().span };
    let mut columns = Vec::new();
    evaluator.for_each_range(range, |arg, series, drop_name| {
        if let Some(check) = windowed.check {
            check_steps(evaluator.windows(arg, &series.points, &[], window::present), &params, check)?;
        }
        let values = evaluator.windows(arg, &series.points, &params, windowed.apply);
        if windowed.is_counter && values.iter().any(|value| !is_absent(*value)) {
            let name = series.labels.metric_name();
            if !name.is_empty() && !COUNTER_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
                let problem = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket";
                evaluator.inform(&format!("{problem}: {}", Quoted(name)), place);
            }
        }
        let mut column = Column { labels: series.labels, values, drop_name };
        if !windowed.keeps_name {
            evaluator.remove_name(&mut column);
        }
        evaluator.keep(column, &mut columns)
    })?;
    evaluator.distinct(columns).map(Val::Vector)
}

/// Checks the arguments of the steps whose window holds anything.
fn check_steps(present: Vec<f64>, params: &[Vec<f64>], check: CheckFn) -> Eval<()> {
    for (step, _) in present.into_iter().enumerate().filter(|(_, value)| !is_absent(*value)) {
        let step_params: Vec<f64> = params.iter().map(|values| at(values, step)).collect();
        check(&step_params).map_err(QueryError::Execution)?;
    }
    Ok(())
}

fn date(evaluator: &Evaluator<'_>, call: &Call, part: fn(Civil) -> f64) -> Eval<Val> {
    let columns = match call.args.first() {
        Some(arg) => evaluator.vector(arg)?,
        None => vec![Column::new(Labels::default(), times(evaluator))],
    };
    evaluator.map_values(columns, |_, value| part(Civil::at(value))).map(Val::Vector)
}

/// The steps' times in seconds.
fn times(evaluator: &Evaluator<'_>) -> Vec<f64> {
    evaluator.grid.times().map(|ms| ms as f64 / 1000.0).collect()
}

fn eval_special(evaluator: &Evaluator<'_>, call: &Call, special: Special, span: Span) -> Eval<Val> {
    match special {
        Special::Pi => Ok(Val::Scalar(vec![std::f64::consts::PI; evaluator.grid.steps])),
        Special::Time => Ok(Val::Scalar(times(evaluator))),
        Special::MaxOf | Special::MinOf => {
            let (a, b) = (evaluator.scalar(arg(call, 0)?)?, evaluator.scalar(arg(call, 1)?)?);
            let pick = if special == Special::MaxOf { go_max } else { go_min };
            Ok(Val::Scalar(a.iter().zip(&b).map(|(a, b)| pick(*a, *b)).collect()))
        }
        Special::Scalar => scalar(evaluator, call),
        Special::Vector => {
            let values = evaluator.scalar(arg(call, 0)?)?;
            Ok(Val::Vector(vec![Column::new(Labels::default(), values)]))
        }
        Special::Absent => absent(evaluator, call),
        Special::AbsentOverTime => absent_over_time(evaluator, call),
        Special::Clamp | Special::ClampMin | Special::ClampMax => clamp(evaluator, call, special),
        Special::Round => round(evaluator, call),
        Special::Sort { descending } => sort(evaluator, call, descending),
        Special::SortByLabel { descending } => label_calls::sort(evaluator, call, descending),
        Special::Timestamp => timestamp(evaluator, call),
        Special::LabelReplace => label_calls::replace(evaluator, call),
        Special::LabelJoin => label_calls::join(evaluator, call),
        Special::QuantileOverTime => quantile_over_time(evaluator, call),
        Special::HistogramQuantile => histogram::quantile_call(evaluator, call),
        Special::HistogramQuantiles => histogram::quantiles_call(evaluator, call, span),
        Special::HistogramFraction => histogram::fraction_call(evaluator, call),
        Special::Info => info::eval(evaluator, call),
    }
}

/// Go's `math.Max`: infinity wins over NaN, NaN over numbers, 0 over -0.
fn go_max(a: f64, b: f64) -> f64 {
    match (a.is_nan() || b.is_nan(), a == f64::INFINITY || b == f64::INFINITY) {
        (_, true) => f64::INFINITY,
        (true, false) => f64::NAN,
        _ if a == 0.0 && b == 0.0 => a + b,
        _ => a.max(b),
    }
}

/// Go's `math.Min`, likewise.
fn go_min(a: f64, b: f64) -> f64 {
    -go_max(-a, -b)
}

/// Warns of quantiles that are none: of the largest and the smallest, also where there is nothing to aggregate.
pub(super) fn check_quantiles(evaluator: &Evaluator<'_>, q: &[f64], span: Span) {
    if q.iter().any(|q| q.is_nan()) {
        check_quantile(evaluator, f64::NAN, span);
    }
    let numbers = || q.iter().copied().filter(|q| !q.is_nan());
    let (min, max) = (numbers().fold(0.0, f64::min), numbers().fold(0.0, f64::max));
    check_quantile(evaluator, min, span);
    check_quantile(evaluator, max, span);
}

/// Warns of a quantile that is none.
pub(super) fn check_quantile(evaluator: &Evaluator<'_>, q: f64, span: Span) {
    if !(0.0..=1.0).contains(&q) {
        let message = format!("quantile value should be between 0 and 1, got {}", number(q));
        evaluator.warn(&message, span);
    }
}

fn quantile_over_time(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    let q_expr = arg(call, 0)?;
    let q = evaluator.scalar(q_expr)?;
    evaluator.for_each_range(arg(call, 1)?, |range, series, _| {
        let present = evaluator.windows(range, &series.points, &[], window::present);
        for (step, _) in present.into_iter().enumerate().filter(|(_, value)| !is_absent(*value)) {
            check_quantile(evaluator, at(&q, step), q_expr.span);
        }
        Ok(())
    })?;
    let apply = window::quantile_over_time;
    over_range(evaluator, call, Windowed { apply, keeps_name: false, is_counter: false, check: None })
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
    Ok(Val::Vector(vec![Column::new(absent_labels(expr), values)]))
}

fn absent_over_time(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    let expr = arg(call, 0)?;
    let mut values = vec![1.0; evaluator.grid.steps];
    evaluator.for_each_range(expr, |range, series, _| {
        let present = evaluator.windows(range, &series.points, &[], window::present);
        for (value, present) in values.iter_mut().zip(present) {
            if !is_absent(present) {
                *value = ABSENT;
            }
        }
        Ok(())
    })?;
    Ok(Val::Vector(vec![Column::new(absent_labels(expr), values)]))
}

fn clamp(evaluator: &Evaluator<'_>, call: &Call, special: Special) -> Eval<Val> {
    let columns = evaluator.vector(arg(call, 0)?)?;
    let bound = evaluator.scalar(arg(call, 1)?)?;
    let columns = match special {
        Special::ClampMin => evaluator.map_values(columns, |step, value| go_max(at(&bound, step), value)),
        Special::ClampMax => evaluator.map_values(columns, |step, value| go_min(at(&bound, step), value)),
        _ => {
            let upper = evaluator.scalar(arg(call, 2)?)?;
            evaluator.map_values(columns, |step, value| {
                let (low, high) = (at(&bound, step), at(&upper, step));
                if low > high { ABSENT } else { go_max(low, go_min(high, value)) }
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
        let inverse = 1.0 / at(&nearest, step);
        (value * inverse + 0.5).floor() / inverse
    };
    evaluator.map_values(columns, apply).map(Val::Vector)
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

fn timestamp(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    let expr = arg(call, 0)?;
    if let ExprKind::Selector(selector) = &expr.inner().kind {
        let columns = evaluator.selector(selector, true)?;
        return evaluator.map_values(columns, |_, value| value).map(Val::Vector);
    }
    let times = times(evaluator);
    let columns = evaluator.vector(expr)?;
    evaluator.map_values(columns, |step, _| at(&times, step)).map(Val::Vector)
}

/// A name is anything but nothing.
pub(super) fn check_label_name(name: &str, problem: &str) -> Eval<()> {
    if name.is_empty() { Err(QueryError::Execution(format!("{problem}: {name}"))) } else { Ok(()) }
}

/// Two series became one.
pub(super) fn distinct_or_error(evaluator: &Evaluator<'_>, columns: Vec<Column>) -> Eval<Val> {
    let mut seen = rustc_hash::FxHashSet::default();
    // Labels were set on purpose here: this holds even where names are removed late.
    if !columns.iter().filter(|column| !column.is_empty()).all(|column| seen.insert(&column.labels)) {
        return Err(same_labels_error());
    }
    evaluator.distinct(columns).map(Val::Vector)
}
