//! From text to tree: precedence climbing over the lexer's tokens, then type checks, with Prometheus' error texts.

use crate::model::labels::METRIC_NAME;
use crate::model::matcher::MatchOp;
use crate::model::{Labels, Matcher};

use super::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, Expr, ExprKind, Matching, Selector, Span,
    Subquery, ValueType,
};
use super::check;
use super::functions;
use super::lexer::{Token, tokenize};

/// Longer texts are refused.
const TEXT_BYTES_MAX: usize = 256 << 10;
/// Deeper nesting is refused, so that no walk over the tree can exhaust the stack.
const DEPTH_MAX: usize = 120;
/// Binding strength of a sign before an operand: below `^`, above `*`.
const UNARY_PRECEDENCE: u8 = 6;

/// The text is not PromQL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: parse error: {message}")]
pub struct ParseError {
    pub line: usize,
    pub column: usize,
    pub span: Span,
    pub message: String,
}

impl ParseError {
    pub(super) fn new(text: &str, span: Span, message: impl Into<String>) -> Self {
        let before = text.get(..span.start.min(text.len())).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
        Self { line, column, span, message: message.into() }
    }
}

/// Parses an expression and checks its types.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(ParseError::new(
            text,
            Span::default(),
            format!("expression is longer than {TEXT_BYTES_MAX} bytes"),
        ));
    }
    let mut parser = Parser { text, tokens: tokenize(text)?, at: 0, depth: 0 };
    if parser.peek() == &Token::End {
        return Err(parser.error_here("no expression found in input"));
    }
    let expr = parser.expression(0)?;
    if parser.peek() != &Token::End {
        return Err(parser.unexpected(""));
    }
    Ok(expr)
}

/// Parses a selector such as `up{job="x"}` as the API's `match[]` has it.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    let expr = parse(text)?;
    match expr.kind {
        ExprKind::Selector(selector) if selector.offset_ms == 0 && selector.at.is_none() => Ok(selector.matchers),
        _ => Err(ParseError::new(text, expr.span, "expected a vector selector without modifiers")),
    }
}

/// Parses one series such as `up{job="x"}`, whose matchers are all equalities, into labels.
pub fn parse_series_labels(text: &str) -> Result<Labels, ParseError> {
    let text_or_name = if text.trim() == "{}" { return Ok(Labels::default()) } else { text };
    let matchers = parse_selector(text_or_name)?;
    if let Some(other) = matchers.iter().find(|matcher| matcher.op != MatchOp::Equal) {
        return Err(ParseError::new(text, Span::default(), format!("{other} is not a label of a series")));
    }
    Ok(Labels::from_pairs(matchers.iter().map(|matcher| (matcher.name.as_str(), matcher.value.as_str()))))
}

pub(super) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(Token, Span)>,
    at: usize,
    depth: usize,
}

type Parsed<T> = Result<T, ParseError>;

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn peek_second(&self) -> &Token {
        self.tokens.get(self.at + 1).map_or(&Token::End, |(token, _)| token)
    }

    fn span(&self) -> Span {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(Span::default(), |(_, span)| *span)
    }

    fn previous_end(&self) -> usize {
        self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or(0, |(_, span)| span.end)
    }

    fn advance(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(found) if *found == symbol)
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(symbol);
        self.at += usize::from(found);
        found
    }

    /// Whether the next token is this keyword, in any case.
    fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(keyword);
        self.at += usize::from(found);
        found
    }

    fn error_at(&self, span: Span, message: impl Into<String>) -> ParseError {
        ParseError::new(self.text, span, message)
    }

    fn error_here(&self, message: impl Into<String>) -> ParseError {
        self.error_at(self.span(), message)
    }

    fn unexpected(&self, context: &str) -> ParseError {
        let place = if context.is_empty() { String::new() } else { format!(" in {context}") };
        self.error_here(format!("unexpected {}{place}", self.peek().describe()))
    }

    fn expect_symbol(&mut self, symbol: &str, context: &str) -> Parsed<()> {
        if self.take_symbol(symbol) {
            Ok(())
        } else {
            Err(self.error_here(format!("unexpected {} in {context}, expected {symbol:?}", self.peek().describe())))
        }
    }

    fn deeper(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error_here("expression is nested too deeply"));
        }
        Ok(())
    }

    fn node(&self, kind: ExprKind, start: usize) -> Expr {
        Expr { kind, span: Span { start, end: self.previous_end() } }
    }

    /// Operands joined by operators that bind at least as strongly as `min`.
    fn expression(&mut self, min: u8) -> Parsed<Expr> {
        self.deeper()?;
        let entered_at = self.depth;
        let start = self.span().start;
        let mut left = self.operand()?;
        while let Some(op) = self.binary_op().filter(|op| op.precedence() >= min) {
            // Each turn makes the tree one level deeper on its left.
            self.deeper()?;
            self.advance();
            let (returns_bool, matching) = self.binary_modifiers(op)?;
            let next = if op == BinaryOp::Pow { op.precedence() } else { op.precedence() + 1 };
            let right = self.expression(next)?;
            let binary = Binary { op, left, right, returns_bool, matching };
            check::binary(&binary).map_err(|(span, message)| self.error_at(span, message))?;
            left = self.node(ExprKind::Binary(Box::new(binary)), start);
        }
        self.depth = entered_at - 1;
        Ok(left)
    }

    fn binary_op(&self) -> Option<BinaryOp> {
        let ops = [
            BinaryOp::Add,
            BinaryOp::Sub,
            BinaryOp::Mul,
            BinaryOp::Div,
            BinaryOp::Mod,
            BinaryOp::Pow,
            BinaryOp::Atan2,
            BinaryOp::Eq,
            BinaryOp::Ne,
            BinaryOp::Gt,
            BinaryOp::Lt,
            BinaryOp::Ge,
            BinaryOp::Le,
            BinaryOp::And,
            BinaryOp::Or,
            BinaryOp::Unless,
        ];
        ops.into_iter().find(|op| match self.peek() {
            Token::Symbol(symbol) => *symbol == op.symbol(),
            Token::Word(word) => word.eq_ignore_ascii_case(op.symbol()),
            _ => false,
        })
    }

    fn binary_modifiers(&mut self, op: BinaryOp) -> Parsed<(bool, Matching)> {
        let returns_bool = self.take_keyword("bool");
        let mut matching = Matching::default();
        if op.is_set() {
            matching.cardinality = Cardinality::ManyToMany;
        }
        if self.is_keyword("on") || self.is_keyword("ignoring") {
            matching.on = self.is_keyword("on");
            self.advance();
            matching.labels = self.label_list("grouping opts")?;
        }
        for (keyword, cardinality) in [("group_left", Cardinality::ManyToOne), ("group_right", Cardinality::OneToMany)]
        {
            if self.take_keyword(keyword) {
                matching.cardinality = cardinality;
                if self.is_symbol("(") {
                    matching.include = self.label_list("grouping opts")?;
                }
            }
        }
        Ok((returns_bool, matching))
    }

    fn label_list(&mut self, context: &str) -> Parsed<Vec<String>> {
        self.expect_symbol("(", context)?;
        let mut names = Vec::new();
        while !self.take_symbol(")") {
            match self.advance() {
                Token::Word(name) if !name.contains(':') => names.push(name),
                Token::String(name) if !name.is_empty() => names.push(name),
                _ => {
                    self.at -= 1;
                    return Err(
                        self.error_here(format!("unexpected {} in {context}, expected label", self.peek().describe()))
                    );
                }
            }
            if !self.take_symbol(",") {
                self.expect_symbol(")", context)?;
                break;
            }
        }
        Ok(names)
    }

    fn operand(&mut self) -> Parsed<Expr> {
        let start = self.span().start;
        if self.is_symbol("-") || self.is_symbol("+") {
            let negate = self.is_symbol("-");
            self.advance();
            let expr = self.expression(UNARY_PRECEDENCE)?;
            check::unary(&expr).map_err(|(span, message)| self.error_at(span, message))?;
            // A signed number stays a number, as in Prometheus' printer.
            let kind = match expr.kind {
                ExprKind::Number(value) => ExprKind::Number(if negate { -value } else { value }),
                kind => ExprKind::Unary { negate, expr: Box::new(Expr { kind, span: expr.span }) },
            };
            return Ok(self.node(kind, start));
        }
        let mut expr = self.primary()?;
        while let Some(next) = self.suffix(&mut expr)? {
            expr = next;
        }
        Ok(expr)
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let start = self.span().start;
        let kind = match self.peek().clone() {
            Token::Number(value) => {
                self.advance();
                ExprKind::Number(value)
            }
            Token::Duration(ms) => {
                self.advance();
                ExprKind::Number(ms as f64 / 1000.0)
            }
            Token::String(text) => {
                self.advance();
                ExprKind::String(text)
            }
            Token::Symbol("(") => {
                self.advance();
                let inner = self.expression(0)?;
                self.expect_symbol(")", "paren expression")?;
                ExprKind::Paren(Box::new(inner))
            }
            Token::Symbol("{") => ExprKind::Selector(self.selector(None)?),
            Token::Word(word) => self.word(&word)?,
            _ => return Err(self.unexpected("")),
        };
        Ok(self.node(kind, start))
    }

    fn word(&mut self, word: &str) -> Parsed<ExprKind> {
        let lower = word.to_ascii_lowercase();
        if lower == "inf" || lower == "nan" {
            self.advance();
            return Ok(ExprKind::Number(if lower == "inf" { f64::INFINITY } else { f64::NAN }));
        }
        let opens = self.peek_second() == &Token::Symbol("(");
        let groups = matches!(self.peek_second(), Token::Word(next)
            if next.eq_ignore_ascii_case("by") || next.eq_ignore_ascii_case("without"));
        let aggregate = AggregateOp::ALL.iter().find(|(_, name)| *name == lower);
        if let Some((op, _)) = aggregate.filter(|_| opens || groups) {
            self.advance();
            return self.aggregate(*op);
        }
        if opens {
            return self.call(word);
        }
        if self.binary_op().is_some() {
            return Err(self.unexpected(""));
        }
        self.advance();
        Ok(ExprKind::Selector(self.selector(Some(word.to_owned()))?))
    }

    fn grouping(&mut self, aggregate: &mut (bool, Vec<String>)) -> Parsed<bool> {
        if !self.is_keyword("by") && !self.is_keyword("without") {
            return Ok(false);
        }
        aggregate.0 = self.is_keyword("without");
        self.advance();
        aggregate.1 = self.label_list("grouping opts")?;
        Ok(true)
    }

    fn aggregate(&mut self, op: AggregateOp) -> Parsed<ExprKind> {
        let start = self.previous_end() - op.name().len();
        let mut grouping = (false, Vec::new());
        let grouped = self.grouping(&mut grouping)?;
        let mut args = self.arguments()?;
        if !grouped {
            self.grouping(&mut grouping)?;
        }
        let span = Span { start, end: self.previous_end() };
        let wanted = if op.takes_parameter() { 2 } else { 1 };
        if args.is_empty() {
            return Err(self.error_at(span, "no arguments for aggregate expression provided"));
        }
        if args.len() != wanted {
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {}",
                args.len()
            );
            return Err(self.error_at(span, message));
        }
        let expr = args.remove(wanted - 1);
        let (without, grouping) = grouping;
        let aggregate = Aggregate { op, expr, parameter: args.pop(), without, grouping };
        check::aggregate(&aggregate).map_err(|(span, message)| self.error_at(span, message))?;
        Ok(ExprKind::Aggregate(Box::new(aggregate)))
    }

    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        self.expect_symbol("(", "call to function")?;
        let mut args = Vec::new();
        if self.take_symbol(")") {
            return Ok(args);
        }
        loop {
            args.push(self.expression(0)?);
            if self.take_symbol(")") {
                return Ok(args);
            }
            if !self.take_symbol(",") {
                return Err(self.unexpected("function call, expected \",\" or \")\""));
            }
            if self.is_symbol(")") {
                return Err(self.error_here("trailing commas not allowed in function call args"));
            }
        }
    }

    fn call(&mut self, name: &str) -> Parsed<ExprKind> {
        let name_span = self.span();
        let Some(function) = functions::find(name) else {
            return Err(self.error_at(name_span, format!("unknown function with name {name:?}")));
        };
        self.advance();
        let args = self.arguments()?;
        let call = Call { function, args };
        let span = Span { start: name_span.start, end: self.previous_end() };
        check::call(&call, span).map_err(|(span, message)| self.error_at(span, message))?;
        Ok(ExprKind::Call(call))
    }

    fn selector(&mut self, name: Option<String>) -> Parsed<Selector> {
        let start = self.span().start;
        let mut selector = Selector { name, ..Selector::default() };
        if self.take_symbol("{") {
            while !self.take_symbol("}") {
                self.matcher(&mut selector)?;
                if !self.take_symbol(",") {
                    self.expect_symbol("}", "label matching")?;
                    break;
                }
            }
        }
        if let Some(name) = &selector.name {
            let clash = selector.matchers.iter().find(|m| m.name == METRIC_NAME && m.op == MatchOp::Equal);
            if let Some(clash) = clash.filter(|clash| !clash.value.is_empty()) {
                let message = format!("metric name must not be set twice: {name:?} or {:?}", clash.value);
                return Err(self.error_at(Span { start, end: self.previous_end() }, message));
            }
            selector.matchers.insert(0, Matcher::equal(METRIC_NAME, name.clone()));
        }
        if selector.matchers.iter().all(Matcher::matches_empty) {
            let message = "vector selector must contain at least one non-empty matcher";
            return Err(self.error_at(Span { start, end: self.previous_end() }, message));
        }
        Ok(selector)
    }

    fn matcher(&mut self, selector: &mut Selector) -> Parsed<()> {
        let span = self.span();
        let (name, quoted) = match self.advance() {
            Token::Word(name) if !name.contains(':') => (name, false),
            Token::String(name) => (name, true),
            _ => {
                self.at -= 1;
                return Err(self.error_here(format!(
                    "unexpected {} in label matching, expected identifier or \"}}\"",
                    self.peek().describe()
                )));
            }
        };
        let op = match self.peek() {
            Token::Symbol("=") => MatchOp::Equal,
            Token::Symbol("!=") => MatchOp::NotEqual,
            Token::Symbol("=~") => MatchOp::Regex,
            Token::Symbol("!~") => MatchOp::NotRegex,
            Token::Symbol("," | "}") if quoted => {
                if let Some(first) = &selector.name {
                    let message = format!("metric name must not be set twice: {first:?} or {name:?}");
                    return Err(self.error_at(span, message));
                }
                selector.name = Some(name);
                return Ok(());
            }
            _ => {
                let message = format!(
                    "unexpected {} in label matching, expected label matching operator",
                    self.peek().describe()
                );
                return Err(self.error_here(message));
            }
        };
        self.advance();
        let Token::String(value) = self.advance() else {
            self.at -= 1;
            return Err(
                self.error_here(format!("unexpected {} in label matching, expected string", self.peek().describe()))
            );
        };
        let matcher = Matcher::new(name, op, value).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            self.error_at(span, format!("error parsing regexp: {source}"))
        })?;
        selector.matchers.push(matcher);
        Ok(())
    }

    /// `[range]`, `[range:step]`, `offset` or `@` after an expression; `None` when there is none of them.
    fn suffix(&mut self, expr: &mut Expr) -> Parsed<Option<Expr>> {
        if self.is_symbol("[") {
            self.advance();
            return self.range(expr).map(Some);
        }
        if self.is_keyword("offset") {
            let span = self.span();
            self.advance();
            let negative = self.take_symbol("-");
            let _plus = !negative && self.take_symbol("+");
            let ms = self.duration(negative)?;
            self.set_offset(expr, ms, span)?;
        } else if self.is_symbol("@") {
            let span = self.span();
            self.advance();
            let at = self.at_modifier()?;
            self.set_at(expr, at, span)?;
        } else {
            return Ok(None);
        }
        expr.span.end = self.previous_end();
        let placeholder = Expr { kind: ExprKind::Number(0.0), span: expr.span };
        Ok(Some(std::mem::replace(expr, placeholder)))
    }

    fn duration(&mut self, negative: bool) -> Parsed<i64> {
        let ms = match self.peek() {
            Token::Duration(ms) => *ms,
            #[expect(clippy::cast_possible_truncation, reason = "saturates")]
            Token::Number(seconds) => (seconds * 1000.0).round() as i64,
            _ => {
                return Err(self.error_here(format!(
                    "unexpected {} in duration, expected number or duration",
                    self.peek().describe()
                )));
            }
        };
        self.advance();
        Ok(if negative { -ms } else { ms })
    }

    fn range(&mut self, expr: &mut Expr) -> Parsed<Expr> {
        let span = expr.span;
        let duration_span = self.span();
        let range_ms = self.duration(false)?;
        if range_ms <= 0 {
            return Err(self.error_at(duration_span, "duration must be greater than 0"));
        }
        let is_subquery = self.take_symbol(":");
        let step_span = self.span();
        let step_ms = if is_subquery && !self.is_symbol("]") { Some(self.duration(false)?) } else { None };
        if step_ms.is_some_and(|step| step <= 0) {
            return Err(self.error_at(step_span, "duration must be greater than 0"));
        }
        self.expect_symbol("]", "subquery or range")?;
        let placeholder = Expr { kind: ExprKind::Number(0.0), span };
        let inner = std::mem::replace(expr, placeholder);
        if is_subquery {
            if inner.value_type() != ValueType::Vector {
                let message = format!(
                    "subquery is only allowed on instant vector, got {} in {:?} instead",
                    inner.value_type().api_name(),
                    self.text.get(span.start..span.end).unwrap_or_default()
                );
                return Err(self.error_at(span, message));
            }
            let subquery = Subquery { expr: inner, range_ms, step_ms, offset_ms: 0, at: None };
            return Ok(self.node(ExprKind::Subquery(Box::new(subquery)), span.start));
        }
        match inner.kind {
            ExprKind::Selector(selector) if selector.offset_ms != 0 => {
                Err(self.error_at(span, "no offset modifiers allowed before range"))
            }
            ExprKind::Selector(selector) if selector.at.is_some() => {
                Err(self.error_at(span, "no @ modifiers allowed before range"))
            }
            ExprKind::Selector(selector) => Ok(self.node(ExprKind::Range { selector, range_ms }, span.start)),
            _ => Err(self.error_at(span, "ranges only allowed for vector selectors")),
        }
    }

    fn set_offset(&self, expr: &mut Expr, ms: i64, span: Span) -> Parsed<()> {
        let offset_ms = match &mut expr.kind {
            ExprKind::Selector(selector) | ExprKind::Range { selector, .. } => &mut selector.offset_ms,
            ExprKind::Subquery(subquery) => &mut subquery.offset_ms,
            _ => {
                let message = "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery";
                return Err(self.error_at(span, message));
            }
        };
        if *offset_ms != 0 {
            return Err(self.error_at(span, "offset may not be set multiple times"));
        }
        *offset_ms = ms;
        Ok(())
    }

    fn set_at(&self, expr: &mut Expr, at: At, span: Span) -> Parsed<()> {
        let place = match &mut expr.kind {
            ExprKind::Selector(selector) | ExprKind::Range { selector, .. } => &mut selector.at,
            ExprKind::Subquery(subquery) => &mut subquery.at,
            _ => {
                let message =
                    "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery";
                return Err(self.error_at(span, message));
            }
        };
        if place.is_some() {
            return Err(self.error_at(span, "@ <timestamp> may not be set multiple times"));
        }
        *place = Some(at);
        Ok(())
    }

    fn at_modifier(&mut self) -> Parsed<At> {
        for (keyword, at) in [("start", At::Start), ("end", At::End)] {
            if self.take_keyword(keyword) {
                self.expect_symbol("(", "@ modifier")?;
                self.expect_symbol(")", "@ modifier")?;
                return Ok(at);
            }
        }
        let negative = self.take_symbol("-");
        let _plus = !negative && self.take_symbol("+");
        let span = self.span();
        let seconds = match self.advance() {
            Token::Number(seconds) => seconds,
            Token::Duration(ms) => ms as f64 / 1000.0,
            _ => {
                self.at -= 1;
                return Err(self.unexpected("@ modifier, expected timestamp"));
            }
        };
        let ms = if negative { -seconds } else { seconds } * 1000.0;
        if !ms.is_finite() || ms.abs() >= 9.2e18 {
            return Err(self.error_at(span, "timestamp out of bounds for @ modifier"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "checked above")]
        Ok(At::Ms(ms.round() as i64))
    }
}

#[cfg(test)]
mod tests;
