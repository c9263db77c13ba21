//! From text to tree: precedence climbing over the lexer's tokens, with Prometheus' error texts.
//!
//! Types are checked once the whole text is known to be well formed, so that syntax is complained about first.

mod ranges;
mod selectors;

use crate::model::matcher::MatchOp;
use crate::model::quote::Quoted;
use crate::model::{Labels, Matcher};

use super::ast::{Aggregate, AggregateOp, Binary, BinaryOp, Call, Cardinality, Expr, ExprKind, Matching, Span};
use super::lexer::{Keyword, Kind, Token, tokenize};
use super::{check, functions, literal};

/// Longer texts are refused.
const TEXT_BYTES_MAX: usize = 256 << 10;
/// Deeper nesting is refused, so that no walk over the tree can exhaust the stack.
const DEPTH_MAX: usize = 120;
/// Binding strength of a sign before an operand: below `^`, above `*`.
const UNARY_PRECEDENCE: u8 = 6;

/// The text is not PromQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    pub span: Span,
    pub message: String,
}

impl std::error::Error for ParseError {}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.span.line {
            0 => f.write_str("unknown position")?,
            line => write!(f, "{line}:{}", self.span.column)?,
        }
        write!(f, ": parse error: {}", self.message)
    }
}

/// Parses an expression and checks its types.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("expression is longer than {TEXT_BYTES_MAX} bytes");
        return Err(ParseError { span: Span::of(text, 0, 0), message });
    }
    let mut parser = Parser { text, tokens: tokenize(text), at: 0, depth: 0, aggregates: 0 };
    if parser.peek() == &Kind::End {
        let span = if text.is_empty() { Span::default() } else { Span::of(text, 0, 0) };
        return Err(ParseError { span, message: "no expression found in input".to_owned() });
    }
    let expr = parser.expression(0)?;
    if parser.peek() != &Kind::End {
        return Err(parser.unexpected("", ""));
    }
    check::check(&expr)?;
    Ok(expr)
}

/// Parses a selector such as `up{job="x"}` as the API's `match[]` has it.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    let expr = parse(text)?;
    match expr.kind {
        ExprKind::Selector(selector)
            if selector.offset.ms == 0 && selector.offset.computed.is_none() && selector.at.is_none() =>
        {
            Ok(selector.matchers)
        }
        _ => Err(ParseError { span: expr.span, message: "expected a vector selector without modifiers".to_owned() }),
    }
}

/// Parses one series such as `up{job="x"}`, whose matchers are all equalities, into labels.
pub fn parse_series_labels(text: &str) -> Result<Labels, ParseError> {
    let text_or_name = if text.trim() == "{}" { return Ok(Labels::default()) } else { text };
    let matchers = parse_selector(text_or_name)?;
    if let Some(other) = matchers.iter().find(|matcher| matcher.op != MatchOp::Equal) {
        let message = format!("{other} is not a label of a series");
        return Err(ParseError { span: Span::of(text, 0, 0), message });
    }
    Ok(Labels::from_pairs(matchers.iter().map(|matcher| (matcher.name.as_str(), matcher.value.as_str()))))
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// Aggregations that are not complete: they are named where something unexpected comes.
    aggregates: usize,
}

type Parsed<T> = Result<T, ParseError>;

impl<'a> Parser<'a> {
    fn token(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead).or(self.tokens.last())
    }

    fn peek(&self) -> &Kind {
        self.token(0).map_or(&Kind::End, |token| &token.kind)
    }

    fn token_text(&self, ahead: usize) -> &'a str {
        self.token(ahead).and_then(|token| self.text.get(token.start..token.end)).unwrap_or_default()
    }

    fn is_mark(&self, mark: char) -> bool {
        self.peek() == &Kind::Mark(mark)
    }

    fn take(&mut self, kind: &Kind) -> bool {
        let found = self.peek() == kind;
        self.at += usize::from(found);
        found
    }

    fn take_mark(&mut self, mark: char) -> bool {
        self.take(&Kind::Mark(mark))
    }

    fn take_keyword(&mut self, keyword: Keyword) -> bool {
        self.take(&Kind::Keyword(keyword))
    }

    fn span_of(&self, start: usize, end: usize) -> Span {
        Span::of(self.text, start, end)
    }

    /// Where the next token stands.
    fn span(&self) -> Span {
        self.token(0).map_or(Span::default(), |token| self.span_of(token.start, token.end))
    }

    fn start(&self) -> usize {
        self.token(0).map_or(0, |token| token.start)
    }

    fn previous_end(&self) -> usize {
        self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or(0, |token| token.end)
    }

    fn since(&self, start: usize) -> Span {
        self.span_of(start, self.previous_end())
    }

    fn error_at(span: Span, message: impl Into<String>) -> ParseError {
        ParseError { span, message: message.into() }
    }

    /// What the next token is wrong for; the lexer's own errors stand for themselves.
    fn unexpected(&self, context: &str, expected: &str) -> ParseError {
        let Some(token) = self.token(0) else { return Self::error_at(self.span(), "unexpected end of input") };
        let described = token.describe(self.text);
        if matches!(token.kind, Kind::Error(_)) {
            return Self::error_at(self.span(), described);
        }
        let context = if context.is_empty() && self.aggregates > 0 { "aggregation" } else { context };
        let place = if context.is_empty() { String::new() } else { format!(" in {context}") };
        let expected = if expected.is_empty() { String::new() } else { format!(", expected {expected}") };
        Self::error_at(self.span(), format!("unexpected {described}{place}{expected}"))
    }

    fn expect_mark(&mut self, mark: char) -> Parsed<()> {
        if self.take_mark(mark) { Ok(()) } else { Err(self.unexpected("", "")) }
    }

    fn deeper(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Self::error_at(self.span(), "expression is nested too deeply"));
        }
        Ok(())
    }

    fn node(&self, kind: ExprKind, start: usize) -> Expr {
        Expr { kind, span: self.since(start) }
    }

    /// Operands joined by operators that bind at least as strongly as `min`.
    fn expression(&mut self, min: u8) -> Parsed<Expr> {
        self.deeper()?;
        let entered_at = self.depth;
        let start = self.start();
        let mut left = self.operand()?;
        while let Kind::Op(op) = *self.peek() {
            if op.precedence() < min {
                break;
            }
            // Each turn makes the tree one level deeper on its left.
            self.deeper()?;
            let op_span = self.span();
            self.at += 1;
            let (returns_bool, matching) = self.binary_modifiers(op)?;
            let next = if op == BinaryOp::Pow { op.precedence() } else { op.precedence() + 1 };
            let right = self.expression(next)?;
            let binary = Binary { op, op_span, left, right, returns_bool, matching };
            left = self.node(ExprKind::Binary(Box::new(binary)), start);
        }
        self.depth = entered_at - 1;
        Ok(left)
    }

    fn binary_modifiers(&mut self, op: BinaryOp) -> Parsed<(bool, Matching)> {
        let returns_bool = self.take_keyword(Keyword::Bool);
        let mut matching = Matching::default();
        if op.is_set() {
            matching.cardinality = Cardinality::ManyToMany;
        }
        let on = self.take_keyword(Keyword::On);
        if on || self.take_keyword(Keyword::Ignoring) {
            matching.on = on;
            matching.labels = self.label_list()?;
            let groups = [(Keyword::GroupLeft, Cardinality::ManyToOne), (Keyword::GroupRight, Cardinality::OneToMany)];
            if let Some((_, cardinality)) = groups.into_iter().find(|(keyword, _)| self.take_keyword(*keyword)) {
                matching.cardinality = cardinality;
                if self.is_mark('(') {
                    matching.include = self.label_list()?;
                }
            }
        }
        self.fill_modifiers(&mut matching)?;
        Ok((returns_bool, matching))
    }

    fn fill_modifiers(&mut self, matching: &mut Matching) -> Parsed<()> {
        if self.take_keyword(Keyword::Fill) {
            let value = self.fill_value()?;
            (matching.fill_left, matching.fill_right) = (Some(value), Some(value));
            return Ok(());
        }
        for _ in 0..2 {
            if matching.fill_left.is_none() && self.take_keyword(Keyword::FillLeft) {
                matching.fill_left = Some(self.fill_value()?);
            } else if matching.fill_right.is_none() && self.take_keyword(Keyword::FillRight) {
                matching.fill_right = Some(self.fill_value()?);
            }
        }
        Ok(())
    }

    fn fill_value(&mut self) -> Parsed<f64> {
        self.expect_mark('(')?;
        let value = self.signed_number()?.ok_or_else(|| self.unexpected("fill modifier", "number"))?;
        self.expect_mark(')')?;
        Ok(value)
    }

    /// Names in parentheses, of an aggregation or of a vector matching.
    fn label_list(&mut self) -> Parsed<Vec<String>> {
        const CONTEXT: &str = "grouping opts";
        if !self.take_mark('(') {
            return Err(self.unexpected(CONTEXT, "\"(\""));
        }
        let mut names = Vec::new();
        while !self.take_mark(')') {
            let text = self.token_text(0);
            match self.peek() {
                Kind::String => {
                    let name = literal::unquote(text);
                    if name.is_empty() {
                        let message = format!("invalid label name for grouping: {}", Quoted(&name));
                        return Err(Self::error_at(self.span(), message));
                    }
                    names.push(name);
                }
                Kind::Identifier
                | Kind::MetricIdentifier
                | Kind::Aggregator(_)
                | Kind::Keyword(_)
                | Kind::Op(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::Atan2)
                    if self.peek() != &Kind::Keyword(Keyword::Without) =>
                {
                    names.push(text.to_owned());
                }
                _ => return Err(self.unexpected(CONTEXT, "label")),
            }
            self.at += 1;
            if !self.take_mark(',') && !self.is_mark(')') {
                return Err(self.unexpected(CONTEXT, "\",\" or \")\""));
            }
        }
        Ok(names)
    }

    /// One operand with the signs before it and what follows it: `-up[5m] offset 1m`.
    fn operand(&mut self) -> Parsed<Expr> {
        let start = self.start();
        let sign = match self.peek() {
            Kind::Op(BinaryOp::Add) => Some(false),
            Kind::Op(BinaryOp::Sub) => Some(true),
            _ => None,
        };
        if let Some(negate) = sign {
            self.at += 1;
            let mut expr = self.expression(UNARY_PRECEDENCE)?;
            if let ExprKind::Number { value, .. } = &mut expr.kind {
                *value = if negate { -*value } else { *value };
                expr.span = self.span_of(start, expr.span.end);
                return Ok(expr);
            }
            return Ok(self.node(ExprKind::Unary { negate, expr: Box::new(expr) }, start));
        }
        let mut expr = self.primary()?;
        let mut suffixes = 0;
        while self.is_suffix() {
            expr = self.suffix(expr)?;
            suffixes += 1;
            if self.depth + suffixes > DEPTH_MAX {
                return Err(Self::error_at(self.span(), "expression is nested too deeply"));
            }
        }
        Ok(expr)
    }

    /// Whether an operand can begin with the next token.
    fn begins_expression(&self) -> bool {
        use Keyword::{Bool, Fill, FillLeft, FillRight, GroupLeft, GroupRight, Ignoring, On};
        match self.peek() {
            Kind::Identifier
            | Kind::MetricIdentifier
            | Kind::Number
            | Kind::Duration
            | Kind::String
            | Kind::Aggregator(_)
            | Kind::Mark('(' | '{') => true,
            Kind::Op(op) => op.is_set() || matches!(op, BinaryOp::Add | BinaryOp::Sub),
            Kind::Keyword(keyword) => {
                !matches!(keyword, Bool | Fill | FillLeft | FillRight | GroupLeft | GroupRight | Ignoring | On)
            }
            _ => false,
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let start = self.start();
        let text = self.token_text(0);
        let opens = self.token(1).is_some_and(|token| token.kind == Kind::Mark('('));
        match *self.peek() {
            Kind::Number | Kind::Duration => {
                let is_duration = self.peek() == &Kind::Duration;
                let value = self.number()?;
                Ok(self.node(ExprKind::Number { value, is_duration }, start))
            }
            Kind::String => {
                self.at += 1;
                Ok(self.node(ExprKind::String(literal::unquote(text)), start))
            }
            Kind::Mark('(') => {
                self.at += 1;
                let inner = self.expression(0)?;
                self.expect_mark(')')?;
                Ok(self.node(ExprKind::Paren(Box::new(inner)), start))
            }
            Kind::Mark('{') => self.selector(None),
            Kind::Aggregator(op) => {
                let grouped = self
                    .token(1)
                    .is_some_and(|token| matches!(token.kind, Kind::Keyword(Keyword::By | Keyword::Without)));
                if opens || grouped { self.aggregate(op) } else { self.selector(Some(text)) }
            }
            Kind::Keyword(Keyword::StartOfQuery | Keyword::EndOfQuery | Keyword::Step | Keyword::Range) if opens => {
                self.call(text)
            }
            Kind::Identifier if opens => self.call(text),
            Kind::Identifier
            | Kind::MetricIdentifier
            | Kind::Op(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
            | Kind::Keyword(
                Keyword::By
                | Keyword::Offset
                | Keyword::Without
                | Keyword::StartOfQuery
                | Keyword::EndOfQuery
                | Keyword::Step
                | Keyword::Range
                | Keyword::Anchored
                | Keyword::Smoothed,
            ) => self.selector(Some(text)),
            _ => Err(self.unexpected("", "")),
        }
    }

    /// A number or a duration in seconds, which comes next.
    fn number(&mut self) -> Parsed<f64> {
        let (span, text) = (self.span(), self.token_text(0));
        let value = match self.peek() {
            Kind::Duration => literal::duration_ms(text).map(|ms| ms as f64 / 1000.0),
            _ => literal::number(text),
        };
        self.at += 1;
        value.map_err(|message| Self::error_at(span, message))
    }

    /// A number that may have a sign; `None` when none comes.
    fn signed_number(&mut self) -> Parsed<Option<f64>> {
        let negative = self.take(&Kind::Op(BinaryOp::Sub));
        let _plus = !negative && self.take(&Kind::Op(BinaryOp::Add));
        if !matches!(self.peek(), Kind::Number | Kind::Duration) {
            return Ok(None);
        }
        let value = self.number()?;
        Ok(Some(if negative { -value } else { value }))
    }

    fn aggregate(&mut self, op: AggregateOp) -> Parsed<Expr> {
        let start = self.start();
        self.at += 1;
        self.aggregates += 1;
        let mut grouping = self.grouping()?;
        let arguments = self.arguments()?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        self.aggregates -= 1;
        let span = self.since(start);
        if matches!(self.peek(), Kind::Error(_)) {
            return Err(self.unexpected("", ""));
        }
        let given = arguments.len();
        if given == 0 {
            return Err(Self::error_at(span, "no arguments for aggregate expression provided"));
        }
        let wanted = 1 + usize::from(op.takes_parameter());
        let mut arguments = arguments.into_iter();
        let parameter = if wanted == 2 { arguments.next() } else { None };
        let (Some(expr), None) = (arguments.next(), arguments.next()) else {
            let problem = "wrong number of arguments for aggregate expression provided";
            return Err(Self::error_at(span, format!("{problem}, expected {wanted}, got {given}")));
        };
        let (without, grouping) = grouping.unwrap_or_default();
        let aggregate = Aggregate { op, expr, parameter, without, grouping };
        Ok(Expr { kind: ExprKind::Aggregate(Box::new(aggregate)), span })
    }

    /// `by (...)` (false) or `without (...)` (true) with its labels.
    fn grouping(&mut self) -> Parsed<Option<(bool, Vec<String>)>> {
        for (keyword, without) in [(Keyword::By, false), (Keyword::Without, true)] {
            if self.take_keyword(keyword) {
                return Ok(Some((without, self.label_list()?)));
            }
        }
        Ok(None)
    }

    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        self.expect_mark('(')?;
        let mut args = Vec::new();
        if self.take_mark(')') {
            return Ok(args);
        }
        loop {
            args.push(self.expression(0)?);
            if self.take_mark(')') {
                return Ok(args);
            }
            let comma = self.span();
            self.expect_mark(',')?;
            if !matches!(self.peek(), Kind::Error(_)) && !self.begins_expression() {
                return Err(Self::error_at(comma, "trailing commas not allowed in function call args"));
            }
        }
    }

    fn call(&mut self, name: &str) -> Parsed<Expr> {
        let (start, name_span) = (self.start(), self.span());
        self.at += 1;
        let args = self.arguments()?;
        let Some(function) = functions::find(name) else {
            return Err(Self::error_at(name_span, format!("unknown function with name {}", Quoted(name))));
        };
        Ok(self.node(ExprKind::Call(Call { function, args }), start))
    }
}

#[cfg(test)]
mod tests;
