//! Computed durations: `[5m + step()]`, `offset -(1h / 2)`.
//!
//! What they come to depends on the query's step and length, so they are put in before evaluation.

use std::borrow::Cow;

use super::ast::{BinaryOp, Duration, DurationExpr, DurationKind, Expr, ExprKind, Selector, Span};
use super::literal::{DURATION_MS_MAX, seconds_to_ms};

/// Why a duration cannot be used, and where it stands.
pub(super) type DurationError = (Span, String);

/// What `step()` and `range()` mean, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueryTimes {
    pub(super) step: f64,
    pub(super) range: f64,
}

impl DurationExpr {
    fn seconds(&self, times: QueryTimes) -> Result<f64, DurationError> {
        Ok(match &self.kind {
            DurationKind::Literal { seconds, .. } => *seconds,
            DurationKind::Step => times.step,
            DurationKind::Range => times.range,
            DurationKind::Negate(expr) => -expr.seconds(times)?,
            DurationKind::Paren(expr) => expr.seconds(times)?,
            DurationKind::Min(a, b) => a.seconds(times)?.min(b.seconds(times)?),
            DurationKind::Max(a, b) => a.seconds(times)?.max(b.seconds(times)?),
            DurationKind::Binary { op, left, right } => {
                let (a, b) = (left.seconds(times)?, right.seconds(times)?);
                match op {
                    BinaryOp::Add => a + b,
                    BinaryOp::Sub => a - b,
                    BinaryOp::Mul => a * b,
                    BinaryOp::Div if b == 0.0 => return Err((right.span, "division by zero".to_owned())),
                    BinaryOp::Div => a / b,
                    BinaryOp::Mod if b == 0.0 => return Err((right.span, "modulo by zero".to_owned())),
                    BinaryOp::Mod => a % b,
                    _ => a.powf(b),
                }
            }
        })
    }

    /// Whether the value is the same in every query.
    pub(super) fn is_constant(&self) -> bool {
        match &self.kind {
            DurationKind::Literal { .. } => true,
            DurationKind::Step | DurationKind::Range => false,
            DurationKind::Negate(expr) | DurationKind::Paren(expr) => expr.is_constant(),
            DurationKind::Min(a, b) | DurationKind::Max(a, b) => a.is_constant() && b.is_constant(),
            DurationKind::Binary { left, right, .. } => left.is_constant() && right.is_constant(),
        }
    }
}

/// The milliseconds of an expression; ranges and steps must be above zero, offsets need not.
pub(super) fn milliseconds(expr: &DurationExpr, times: QueryTimes, positive: bool) -> Result<i64, DurationError> {
    let seconds = expr.seconds(times)?;
    if positive && seconds <= 0.0 {
        return Err((expr.span, "duration must be greater than 0".to_owned()));
    }
    if seconds.is_nan() || seconds.abs() * 1000.0 > DURATION_MS_MAX {
        return Err((expr.span, "duration out of range".to_owned()));
    }
    Ok(seconds_to_ms(seconds))
}

fn is_computed(expr: &Expr) -> bool {
    let mut found = false;
    let is_set = |duration: &Duration| duration.computed.is_some();
    expr.walk(&mut |node| {
        found |= match &node.kind {
            ExprKind::Selector(selector) => is_set(&selector.offset),
            ExprKind::Range { selector, range } => is_set(&selector.offset) || is_set(range),
            ExprKind::Subquery(subquery) => {
                is_set(&subquery.offset) || is_set(&subquery.range) || subquery.step.as_ref().is_some_and(is_set)
            }
            _ => false,
        };
    });
    found
}

/// The expression with the milliseconds of all durations filled in.
pub(super) fn resolve(expr: &Expr, times: QueryTimes) -> Result<Cow<'_, Expr>, DurationError> {
    if !is_computed(expr) {
        return Ok(Cow::Borrowed(expr));
    }
    let mut expr = expr.clone();
    fill(&mut expr, times)?;
    Ok(Cow::Owned(expr))
}

fn fill_one(duration: &mut Duration, times: QueryTimes, positive: bool) -> Result<(), DurationError> {
    if let Some(expr) = &duration.computed {
        duration.ms = milliseconds(expr, times, positive)?;
    }
    Ok(())
}

fn fill_selector(selector: &mut Selector, times: QueryTimes) -> Result<(), DurationError> {
    fill_one(&mut selector.offset, times, false)
}

fn fill(expr: &mut Expr, times: QueryTimes) -> Result<(), DurationError> {
    match &mut expr.kind {
        ExprKind::Number { .. } | ExprKind::String(_) => Ok(()),
        ExprKind::Selector(selector) => fill_selector(selector, times),
        ExprKind::Range { selector, range } => {
            fill_selector(selector, times)?;
            fill_one(range, times, true)
        }
        ExprKind::Subquery(subquery) => {
            fill_one(&mut subquery.offset, times, false)?;
            fill_one(&mut subquery.range, times, true)?;
            if let Some(step) = &mut subquery.step {
                fill_one(step, times, true)?;
            }
            fill(&mut subquery.expr, times)
        }
        ExprKind::Call(call) => call.args.iter_mut().try_for_each(|arg| fill(arg, times)),
        ExprKind::Aggregate(aggregate) => {
            aggregate.parameter.iter_mut().try_for_each(|parameter| fill(parameter, times))?;
            fill(&mut aggregate.expr, times)
        }
        ExprKind::Binary(binary) => {
            fill(&mut binary.left, times)?;
            fill(&mut binary.right, times)
        }
        ExprKind::Unary { expr, .. } | ExprKind::Paren(expr) => fill(expr, times),
    }
}
