//! Type checks of a whole tree, with Prometheus' error texts, in the order in which Prometheus complains.

use super::ast::{Aggregate, AggregateOp, Binary, Call, Cardinality, Edges, Expr, ExprKind, Selector, Span, ValueType};
use super::functions::{Body, Special};
use super::parser::ParseError;
use crate::model::Matcher;
use crate::model::labels::METRIC_NAME;
use crate::model::quote::Quoted;

type Checked = Result<(), ParseError>;

fn fail(span: Span, message: impl Into<String>) -> Checked {
    Err(ParseError { span, message: message.into() })
}

pub(super) fn check(expr: &Expr) -> Checked {
    match &expr.kind {
        ExprKind::Number { .. } | ExprKind::String(_) => Ok(()),
        ExprKind::Selector(selector) | ExprKind::Range { selector, .. } => check_selector(selector, expr.span, false),
        ExprKind::Subquery(subquery) => {
            check(&subquery.expr)?;
            match subquery.expr.value_type() {
                ValueType::Vector => Ok(()),
                other => {
                    let found = other.api_name();
                    fail(expr.span, format!("subquery is only allowed on instant vector, got {found} instead"))
                }
            }
        }
        ExprKind::Call(call) => check_call(call, expr.span),
        ExprKind::Aggregate(aggregate) => check_aggregate(aggregate),
        ExprKind::Binary(binary) => check_binary(binary, expr.span),
        ExprKind::Unary { expr: inner, .. } => {
            check(inner)?;
            match inner.value_type() {
                ValueType::Scalar | ValueType::Vector => Ok(()),
                other => {
                    let allowed = "unary expression only allowed on expressions of type scalar or instant vector";
                    fail(expr.span, format!("{allowed}, got {:?}", other.describe()))
                }
            }
        }
        ExprKind::Paren(inner) => check(inner),
    }
}

fn check_selector(selector: &Selector, span: Span, may_match_all: bool) -> Checked {
    if let Some(name) = &selector.name {
        let (_, others) = selector.matchers.split_last().unzip();
        let clash = others.unwrap_or_default().iter().find(|matcher| matcher.name == METRIC_NAME);
        return match clash {
            Some(clash) => {
                let (name, other) = (Quoted(name), Quoted(&clash.value));
                fail(span, format!("metric name must not be set twice: {name} or {other}"))
            }
            None => Ok(()),
        };
    }
    if !may_match_all && selector.matchers.iter().all(Matcher::matches_empty) {
        return fail(span, "vector selector must contain at least one non-empty matcher");
    }
    Ok(())
}

fn expect_type(expr: &Expr, wanted: ValueType, context: &str) -> Checked {
    check(expr)?;
    let found = expr.value_type();
    if found == wanted {
        return Ok(());
    }
    fail(expr.span, format!("expected type {} in {context}, got {}", wanted.describe(), found.describe()))
}

fn check_aggregate(aggregate: &Aggregate) -> Checked {
    expect_type(&aggregate.expr, ValueType::Vector, "aggregation expression")?;
    let Some(parameter) = &aggregate.parameter else { return Ok(()) };
    let wanted = if aggregate.op == AggregateOp::CountValues { ValueType::String } else { ValueType::Scalar };
    expect_type(parameter, wanted, "aggregation parameter")
}

fn check_binary(binary: &Binary, span: Span) -> Checked {
    check(&binary.left)?;
    check(&binary.right)?;
    let (left, right) = (binary.left.value_type(), binary.right.value_type());
    let (op, matching) = (binary.op, &binary.matching);
    if binary.returns_bool && !op.is_comparison() {
        return fail(binary.op_span, "bool modifier can only be used on comparison operators");
    }
    let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
    if scalars && op.is_comparison() && !binary.returns_bool {
        return fail(binary.op_span, "comparisons between scalars must use BOOL modifier");
    }
    let twice = matching.labels.iter().find(|label| matching.on && matching.include.contains(label));
    if let Some(label) = twice {
        let label = Quoted(label);
        return fail(binary.op_span, format!("label {label} must not occur in ON and GROUP clause at once"));
    }
    for (side, kind) in [(&binary.left, left), (&binary.right, right)] {
        if !matches!(kind, ValueType::Scalar | ValueType::Vector) {
            return fail(side.span, "binary expression must contain only scalar and instant vector types");
        }
    }
    let filled = matching.fill_left.is_some() || matching.fill_right.is_some();
    if left != ValueType::Vector || right != ValueType::Vector {
        if !matching.labels.is_empty() {
            return fail(span, "vector matching only allowed between instant vectors");
        }
        if filled {
            return fail(binary.op_span, "filling in missing series only allowed between instant vectors");
        }
        if op.is_set() {
            return fail(span, format!("set operator {:?} not allowed in binary scalar expression", op.symbol()));
        }
        return Ok(());
    }
    if op.is_set() && matches!(matching.cardinality, Cardinality::ManyToOne | Cardinality::OneToMany) {
        return fail(span, format!("no grouping allowed for {:?} operation", op.symbol()));
    }
    if op.is_set() && filled {
        return fail(binary.op_span, "filling in missing series not allowed for set operators");
    }
    Ok(())
}

fn check_call(call: &Call, span: Span) -> Checked {
    let function = call.function;
    let given = call.args.len();
    let complain = |amount: &str, count: usize| {
        fail(span, format!("expected {amount}{count} argument(s) in call to {:?}, got {given}", function.name))
    };
    let (least, most) = function.arity();
    match most {
        Some(most) if least == most && given != most => return complain("", most),
        _ if given < least => return complain("at least ", least),
        Some(most) if given > most => return complain("at most ", most),
        _ => {}
    }
    let is_info = matches!(function.body, Body::Special(Special::Info));
    let Some(repeated) = function.args.last() else { return Ok(()) };
    for (index, arg) in call.args.iter().enumerate() {
        match (is_info && index == 1, &arg.kind) {
            (true, ExprKind::Selector(selector)) if selector.name.is_none() => {
                check_selector(selector, arg.span, true)?;
            }
            (true, _) => return fail(arg.span, "expected label selectors only, got vector selector instead"),
            (false, _) => {
                let wanted = function.args.get(index).unwrap_or(repeated);
                expect_type(arg, *wanted, &format!("call to function {:?}", function.name))?;
            }
        }
    }
    check_edges(call)
}

/// Only some functions know what samples at the edges mean.
fn check_edges(call: &Call) -> Checked {
    for arg in &call.args {
        let ExprKind::Range { selector, .. } = &arg.inner().kind else { continue };
        let (word, allowed): (_, &[&str]) = match selector.edges {
            None => continue,
            Some(Edges::Anchored) => ("anchored", &["changes", "delta", "increase", "rate", "resets"]),
            Some(Edges::Smoothed) => ("smoothed", &["delta", "increase", "rate"]),
        };
        if !allowed.contains(&call.function.name) {
            let names = allowed.join(", ");
            return fail(
                arg.span,
                format!("{word} modifier can only be used with: {names} - not with {}", call.function.name),
            );
        }
    }
    Ok(())
}
