//! What follows an operand: `[range]`, `[range:step]`, `offset`, `@`, `anchored`, `smoothed`; and computed durations.

use super::{Parsed, Parser, UNARY_PRECEDENCE};
use crate::query::promql::ast::{
    AggregateOp, At, BinaryOp, Duration, DurationExpr, DurationKind, Edges, Expr, ExprKind, Selector, Span, Subquery,
};
use crate::query::promql::durations::{QueryTimes, milliseconds};
use crate::query::promql::lexer::{Keyword, Kind};

const PLACES: &str = "must be preceded by an instant vector selector or range vector selector or a subquery";

/// Where durations need no query: constants.
const NO_TIMES: QueryTimes = QueryTimes { step: 0.0, range: 0.0 };

impl Parser<'_> {
    pub(super) fn is_suffix(&self) -> bool {
        use Keyword::{Anchored, Offset, Smoothed};
        matches!(self.peek(), Kind::Mark('[') | Kind::At | Kind::Keyword(Offset | Anchored | Smoothed))
    }

    /// The operand with the suffix that comes next.
    pub(super) fn suffix(&mut self, mut expr: Expr) -> Parsed<Expr> {
        match *self.peek() {
            Kind::Mark('[') => expr = self.brackets(expr)?,
            Kind::Keyword(Keyword::Offset) => {
                self.at += 1;
                let offset = self.offset()?;
                set_offset(&mut expr, offset)?;
            }
            Kind::At => {
                self.at += 1;
                let at = self.at_modifier(expr.span)?;
                set_at(&mut expr, at)?;
            }
            Kind::Keyword(Keyword::Anchored) => self.edges(&mut expr, Edges::Anchored)?,
            Kind::Keyword(Keyword::Smoothed) => self.edges(&mut expr, Edges::Smoothed)?,
            _ => return Err(self.unexpected("", "")),
        }
        expr.span = self.since(expr.span.start);
        Ok(expr)
    }

    fn edges(&mut self, expr: &mut Expr, edges: Edges) -> Parsed<()> {
        let (span, word) = (self.span(), self.token_text(0).to_ascii_lowercase());
        self.at += 1;
        let place = match &mut expr.kind {
            ExprKind::Range { selector, .. } => &mut selector.edges,
            ExprKind::Selector(selector) if edges == Edges::Smoothed => &mut selector.edges,
            _ => {
                let message = format!("{word} modifier can only be used with range vector selectors");
                return Err(Self::error_at(span, message));
            }
        };
        if place.replace(edges).is_some() {
            let message = "anchored and smoothed modifiers may not be used together or multiple times";
            return Err(Self::error_at(span, message));
        }
        Ok(())
    }

    fn brackets(&mut self, inner: Expr) -> Parsed<Expr> {
        let (start, bracket) = (inner.span.start, self.start());
        self.at += 1;
        let range = self.positive_duration("subquery selector", "number or duration")?;
        if self.take_mark(':') {
            let step = if self.take_mark(']') {
                None
            } else {
                let step = self.positive_duration("subquery selector", "number or duration or \"]\"")?;
                if !self.take_mark(']') {
                    return Err(self.unexpected("subquery selector", "\"]\""));
                }
                Some(step)
            };
            let subquery = Subquery { expr: inner, range, step, offset: Duration::default(), at: None };
            return Ok(self.node(ExprKind::Subquery(Box::new(subquery)), start));
        }
        if !self.take_mark(']') {
            return Err(self.unexpected("subquery or range", "\":\" or \"]\""));
        }
        let problem = match &inner.kind {
            ExprKind::Selector(selector) if has_offset(&selector.offset) => {
                Some("no offset modifiers allowed before range")
            }
            ExprKind::Selector(selector) if selector.at.is_some() => Some("no @ modifiers allowed before range"),
            ExprKind::Selector(_) => None,
            _ => Some("ranges only allowed for vector selectors"),
        };
        match (problem, inner.kind) {
            (None, ExprKind::Selector(selector)) => Ok(self.node(ExprKind::Range { selector, range }, start)),
            (problem, _) => Err(Self::error_at(self.since(bracket), problem.unwrap_or_default())),
        }
    }

    /// A range or step: above zero.
    fn positive_duration(&mut self, context: &str, expected: &str) -> Parsed<Duration> {
        let expr = self.duration_expression(0, context, expected)?;
        Self::duration(expr, true)
    }

    fn offset(&mut self) -> Parsed<Duration> {
        let expr = self.offset_operand()?;
        Self::duration(expr, false)
    }

    /// Signs bind closer here than inside brackets: what follows belongs to the expression outside.
    fn offset_operand(&mut self) -> Parsed<DurationExpr> {
        self.deeper()?;
        let start = self.start();
        let sign = match self.peek() {
            Kind::Op(BinaryOp::Add) => Some(false),
            Kind::Op(BinaryOp::Sub) => Some(true),
            _ => None,
        };
        let expr = if let Some(negate) = sign {
            self.at += 1;
            let inner = self.offset_operand()?;
            let kind = if negate { negated(inner) } else { inner.kind };
            DurationExpr { kind, span: self.since(start) }
        } else {
            self.duration_operand("offset", "number or duration")?
        };
        self.depth -= 1;
        Ok(expr)
    }

    /// Constants are computed at once; the rest when the query is known.
    fn duration(expr: DurationExpr, positive: bool) -> Parsed<Duration> {
        let expr = without_parens(expr);
        if !expr.is_constant() {
            return Ok(Duration { ms: 0, computed: Some(Box::new(expr)) });
        }
        let ms = milliseconds(&expr, NO_TIMES, positive);
        let ms = ms.map_err(|(span, message)| Self::error_at(span, message))?;
        let is_literal = matches!(expr.kind, DurationKind::Literal { .. });
        Ok(Duration { ms, computed: (!is_literal).then(|| Box::new(expr)) })
    }

    fn duration_expression(&mut self, min: u8, context: &str, expected: &str) -> Parsed<DurationExpr> {
        let mut left = self.duration_operand(context, expected)?;
        while let Kind::Op(op) = *self.peek() {
            let is_arithmetic = op.precedence() >= BinaryOp::Add.precedence() && op != BinaryOp::Atan2;
            if !is_arithmetic || op.precedence() < min {
                break;
            }
            let op_span = self.span();
            self.at += 1;
            self.deeper()?;
            let next = if op == BinaryOp::Pow { op.precedence() } else { op.precedence() + 1 };
            let right = self.duration_expression(next, "subquery selector", "number or duration")?;
            self.depth -= 1;
            let is_zero = matches!(right.kind, DurationKind::Literal { seconds, .. } if seconds == 0.0);
            match op {
                BinaryOp::Div if is_zero => return Err(Self::error_at(op_span, "division by zero")),
                BinaryOp::Mod if is_zero => return Err(Self::error_at(op_span, "modulo by zero")),
                _ => {}
            }
            let span = self.since(left.span.start);
            left =
                DurationExpr { kind: DurationKind::Binary { op, left: Box::new(left), right: Box::new(right) }, span };
        }
        Ok(left)
    }

    fn duration_operand(&mut self, context: &str, expected: &str) -> Parsed<DurationExpr> {
        self.deeper()?;
        let start = self.start();
        let is_min_max = |op: &str| matches!(op, "min_of" | "max_of");
        let kind = match *self.peek() {
            Kind::Number | Kind::Duration => {
                let has_unit = self.peek() == &Kind::Duration;
                DurationKind::Literal { seconds: self.number()?, has_unit }
            }
            Kind::Op(BinaryOp::Add) => {
                self.at += 1;
                self.duration_expression(UNARY_PRECEDENCE, context, expected)?.kind
            }
            Kind::Op(BinaryOp::Sub) => {
                self.at += 1;
                negated(self.duration_expression(UNARY_PRECEDENCE, context, expected)?)
            }
            Kind::Mark('(') => {
                self.at += 1;
                let inner = self.duration_expression(0, context, expected)?;
                self.expect_mark(')')?;
                DurationKind::Paren(Box::new(inner))
            }
            Kind::Keyword(keyword @ (Keyword::Step | Keyword::Range)) => {
                self.at += 1;
                self.expect_mark('(')?;
                self.expect_mark(')')?;
                if keyword == Keyword::Step { DurationKind::Step } else { DurationKind::Range }
            }
            Kind::Aggregator(op @ (AggregateOp::Min | AggregateOp::Max)) => {
                self.min_max(op == AggregateOp::Min, context, expected)?
            }
            Kind::Identifier if is_min_max(self.token_text(0)) => {
                self.min_max(self.token_text(0) == "min_of", context, expected)?
            }
            _ => return Err(self.unexpected(context, expected)),
        };
        self.depth -= 1;
        Ok(DurationExpr { kind, span: self.since(start) })
    }

    fn min_max(&mut self, is_min: bool, context: &str, expected: &str) -> Parsed<DurationKind> {
        self.at += 1;
        self.expect_mark('(')?;
        let first = Box::new(self.duration_expression(0, context, expected)?);
        self.expect_mark(',')?;
        let second = Box::new(self.duration_expression(0, context, expected)?);
        self.expect_mark(')')?;
        Ok(if is_min { DurationKind::Min(first, second) } else { DurationKind::Max(first, second) })
    }

    fn at_modifier(&mut self, expr_span: Span) -> Parsed<At> {
        for (keyword, at) in [(Keyword::StartOfQuery, At::Start), (Keyword::EndOfQuery, At::End)] {
            if self.take_keyword(keyword) {
                return if self.take_mark('(') && self.take_mark(')') {
                    Ok(at)
                } else {
                    Err(self.unexpected("@", "timestamp"))
                };
            }
        }
        let seconds = self.signed_number()?.ok_or_else(|| self.unexpected("@", "timestamp"))?;
        if !seconds.is_finite() || seconds.abs() >= 9_223_372_036_854_775_807.0 {
            let shown = if seconds.is_finite() {
                format!("{seconds:.6}")
            } else {
                crate::query::promql::format::decimal(seconds)
            };
            return Err(Self::error_at(expr_span, format!("timestamp out of bounds for @ modifier: {shown}")));
        }
        #[expect(clippy::cast_possible_truncation, reason = "saturates")]
        Ok(At::Ms((seconds * 1000.0).round() as i64))
    }
}

/// A literal's sign belongs to it.
fn negated(expr: DurationExpr) -> DurationKind {
    match expr.kind {
        DurationKind::Literal { seconds, has_unit } => DurationKind::Literal { seconds: -seconds, has_unit },
        _ => DurationKind::Negate(Box::new(expr)),
    }
}

/// Parentheses around a literal mean nothing.
fn without_parens(expr: DurationExpr) -> DurationExpr {
    match expr.kind {
        DurationKind::Paren(inner) if matches!(inner.kind, DurationKind::Literal { .. }) => *inner,
        _ => expr,
    }
}

fn has_offset(offset: &Duration) -> bool {
    offset.ms != 0 || offset.computed.is_some()
}

fn selector_of(expr: &mut Expr) -> Option<&mut Selector> {
    match &mut expr.kind {
        ExprKind::Selector(selector) | ExprKind::Range { selector, .. } => Some(selector),
        _ => None,
    }
}

fn set_offset(expr: &mut Expr, offset: Duration) -> Parsed<()> {
    let span = expr.span;
    let place = match &mut expr.kind {
        ExprKind::Subquery(subquery) => Some(&mut subquery.offset),
        _ => selector_of(expr).map(|selector| &mut selector.offset),
    };
    let Some(place) = place else { return Err(Parser::error_at(span, format!("offset modifier {PLACES}"))) };
    if has_offset(place) {
        return Err(Parser::error_at(span, "offset may not be set multiple times"));
    }
    *place = offset;
    Ok(())
}

fn set_at(expr: &mut Expr, at: At) -> Parsed<()> {
    let span = expr.span;
    let place = match &mut expr.kind {
        ExprKind::Subquery(subquery) => Some(&mut subquery.at),
        _ => selector_of(expr).map(|selector| &mut selector.at),
    };
    let Some(place) = place else { return Err(Parser::error_at(span, format!("@ modifier {PLACES}"))) };
    if place.replace(at).is_some() {
        return Err(Parser::error_at(span, "@ <timestamp> may not be set multiple times"));
    }
    Ok(())
}
