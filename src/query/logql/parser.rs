//! LogQL tokens to an expression: recursive descent, with precedence climbing for operators between metrics.

mod stages;

use crate::model::matcher::MatcherError;
use crate::model::{MatchOp, Matcher};

use super::ParseError;
use super::ast::{
    BinOp, Cardinality, Expr, Grouping, LogExpr, Matching, MetricExpr, RangeAgg, RangeOp, Unwrap, VectorOp,
};
use super::lexer::{Place, Spanned, Tok, tokens};

/// Nesting of parentheses and calls; deeper text is refused instead of overflowing the stack.
const DEPTH_MAX: u32 = 100;

type Parsed<T> = Result<T, ParseError>;

/// Parses a query.
pub fn parse(text: &str) -> Parsed<Expr> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
    let expr = parser.expression(0)?;
    parser.expect_end()?;
    Ok(expr)
}

/// Parses a stream selector alone.
pub fn parse_selector(text: &str) -> Parsed<Vec<Matcher>> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
    let matchers = parser.selector()?;
    parser.expect_end()?;
    Ok(matchers)
}

struct Parser {
    tokens: Vec<Spanned>,
    at: usize,
    depth: u32,
}

/// What the parentheses of a range aggregation hold.
struct LogRange {
    log: LogExpr,
    unwrap: Option<Unwrap>,
    range_ns: i64,
    offset_ns: i64,
}

impl Parser {
    fn peek(&self) -> &Tok {
        self.tokens.get(self.at).map_or(&Tok::End, |spanned| &spanned.tok)
    }

    fn place(&self) -> Place {
        let last = self.tokens.get(self.at).or(self.tokens.last());
        last.map_or(Place { line: 1, column: 1 }, |spanned| spanned.place)
    }

    fn advance(&mut self) -> Tok {
        let tok = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len().saturating_sub(1));
        tok
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Tok::Op(found) if *found == op)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Tok::Ident(found) if found == word)
    }

    fn take_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        if found {
            self.advance();
        }
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    fn unexpected<T>(&self, wanted: &str) -> Parsed<T> {
        let found = self.peek().describe();
        let expecting = if wanted.is_empty() { String::new() } else { format!(", expecting {wanted}") };
        Err(ParseError::at(self.place(), format!("syntax error: unexpected {found}{expecting}")))
    }

    fn expect_op(&mut self, op: &str) -> Parsed<()> {
        if self.take_op(op) { Ok(()) } else { self.unexpected(op) }
    }

    fn expect_end(&mut self) -> Parsed<()> {
        if *self.peek() == Tok::End { Ok(()) } else { self.unexpected("$end") }
    }

    fn identifier(&mut self) -> Parsed<String> {
        if let Tok::Ident(name) = self.peek().clone() {
            self.advance();
            return Ok(name);
        }
        self.unexpected("IDENTIFIER")
    }

    fn string(&mut self) -> Parsed<String> {
        if let Tok::Str(text) = self.peek().clone() {
            self.advance();
            return Ok(text);
        }
        self.unexpected("STRING")
    }

    fn number(&mut self) -> Parsed<f64> {
        let negative = self.take_op("-");
        if !negative {
            self.take_op("+");
        }
        if let Tok::Number(value) = *self.peek() {
            self.advance();
            return Ok(if negative { -value } else { value });
        }
        self.unexpected("NUMBER")
    }

    /// Nanoseconds.
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and no range is that long")]
    fn duration(&mut self) -> Parsed<i64> {
        let negative = self.take_op("-");
        if let Tok::Duration(ns) = *self.peek() {
            self.advance();
            return Ok(if negative { -ns } else { ns } as i64);
        }
        self.unexpected("DURATION")
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH_MAX {
            return Err(ParseError::at(self.place(), "the query is nested too deeply"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn expression(&mut self, weakest: u8) -> Parsed<Expr> {
        let place = self.place();
        let mut left = self.nested(Self::primary)?;
        while let Some((op, strength)) = self.binary_operator().filter(|(_, strength)| *strength > weakest) {
            self.advance();
            let (returns_bool, matching) = self.modifiers(op)?;
            // `^` binds to the right.
            let right_weakest = if op == BinOp::Pow { strength - 1 } else { strength };
            let right_place = self.place();
            let right = self.expression(right_weakest)?;
            let (left_metric, right_metric) = (metric(left, place)?, metric(right, right_place)?);
            if op.is_set() && (is_scalar(&left_metric) || is_scalar(&right_metric)) {
                let name = op.name();
                return Err(ParseError::at(place, format!("{name} needs a vector on both sides")));
            }
            left = Expr::Metric(MetricExpr::Binary {
                op,
                returns_bool,
                matching,
                left: Box::new(left_metric),
                right: Box::new(right_metric),
            });
        }
        Ok(left)
    }

    fn binary_operator(&self) -> Option<(BinOp, u8)> {
        let name = match self.peek() {
            Tok::Op(op) => *op,
            Tok::Ident(word) => word.as_str(),
            _ => return None,
        };
        BinOp::ALL.iter().find(|(_, known, _)| *known == name).map(|(op, _, strength)| (*op, *strength))
    }

    fn modifiers(&mut self, op: BinOp) -> Parsed<(bool, Matching)> {
        let place = self.place();
        let returns_bool = self.take_word("bool");
        if returns_bool && !op.is_comparison() {
            return Err(ParseError::at(place, "bool stands only after a comparison"));
        }
        let mut matching = Matching::default();
        let on = self.is_word("on");
        if on || self.is_word("ignoring") {
            self.advance();
            matching.on = on;
            matching.labels = self.names()?;
            if self.take_word("group_left") {
                matching.cardinality = Cardinality::ManyToOne(self.optional_names()?);
            } else if self.take_word("group_right") {
                matching.cardinality = Cardinality::OneToMany(self.optional_names()?);
            }
        }
        Ok((returns_bool, matching))
    }

    /// `(a, b)`, possibly empty.
    fn names(&mut self) -> Parsed<Vec<String>> {
        self.expect_op("(")?;
        let mut names = Vec::new();
        while !self.take_op(")") {
            names.push(self.identifier()?);
            if !self.take_op(",") && !self.is_op(")") {
                return self.unexpected(", or )");
            }
        }
        Ok(names)
    }

    fn optional_names(&mut self) -> Parsed<Vec<String>> {
        if self.is_op("(") { self.names() } else { Ok(Vec::new()) }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let place = self.place();
        match self.peek().clone() {
            Tok::Op("{") => Ok(Expr::Log(self.log_expression()?)),
            Tok::Op("(") => {
                self.advance();
                let inner = self.expression(0)?;
                self.expect_op(")")?;
                Ok(inner)
            }
            Tok::Number(_) | Tok::Op("-" | "+") => Ok(Expr::Metric(MetricExpr::Literal(self.number()?))),
            Tok::Ident(name) => {
                self.advance();
                self.call(&name, place).map(Expr::Metric)
            }
            _ => self.unexpected(""),
        }
    }

    fn call(&mut self, name: &str, place: Place) -> Parsed<MetricExpr> {
        if let Some((op, _)) = RangeOp::ALL.iter().find(|(_, known)| *known == name) {
            return self.range_aggregation(*op, place);
        }
        if let Some((op, _)) = VectorOp::ALL.iter().find(|(_, known)| *known == name) {
            return self.vector_aggregation(*op, place);
        }
        match name {
            "vector" => {
                self.expect_op("(")?;
                let value = self.number()?;
                self.expect_op(")")?;
                Ok(MetricExpr::Constant(value))
            }
            "label_replace" => self.label_replace(),
            _ => Err(ParseError::at(
                place,
                format!("syntax error: unexpected {}", Tok::Ident(name.to_owned()).describe()),
            )),
        }
    }

    fn metric_argument(&mut self) -> Parsed<MetricExpr> {
        let place = self.place();
        let expr = self.expression(0)?;
        metric(expr, place)
    }

    fn label_replace(&mut self) -> Parsed<MetricExpr> {
        self.expect_op("(")?;
        let inner = Box::new(self.metric_argument()?);
        let mut texts = [const { String::new() }; 4];
        let mut place = self.place();
        for text in &mut texts {
            self.expect_op(",")?;
            place = self.place();
            *text = self.string()?;
        }
        self.expect_op(")")?;
        let [destination, replacement, source, pattern] = texts;
        let regex = crate::model::matcher::anchored_regex(&pattern)
            .map_err(|error| ParseError::at(place, format!("invalid regex in label_replace: {error}")))?;
        Ok(MetricExpr::LabelReplace { inner, destination, replacement, source, regex, pattern })
    }

    fn grouping(&mut self) -> Parsed<Option<Grouping>> {
        let without = self.is_word("without");
        if !without && !self.is_word("by") {
            return Ok(None);
        }
        self.advance();
        Ok(Some(Grouping { without, labels: self.names()? }))
    }

    fn vector_aggregation(&mut self, op: VectorOp, place: Place) -> Parsed<MetricExpr> {
        let before = self.grouping()?;
        self.expect_op("(")?;
        let parameter = if op.takes_parameter() {
            let value = self.number()?;
            if value < 1.0 {
                return Err(ParseError::at(
                    place,
                    format!("invalid parameter {value} of {}: must be at least 1", op.name()),
                ));
            }
            self.expect_op(",")?;
            Some(value)
        } else {
            None
        };
        let inner = Box::new(self.metric_argument()?);
        self.expect_op(")")?;
        let grouping = match before {
            Some(grouping) => Some(grouping),
            None => self.grouping()?,
        };
        if grouping.is_some() && matches!(op, VectorOp::Sort | VectorOp::SortDesc) {
            return Err(ParseError::at(place, format!("grouping not allowed for {} aggregation", op.name())));
        }
        Ok(MetricExpr::Vector { op, parameter, grouping, inner })
    }

    fn range_aggregation(&mut self, op: RangeOp, place: Place) -> Parsed<MetricExpr> {
        self.expect_op("(")?;
        let parameter = if op == RangeOp::QuantileOverTime {
            let value = self.number()?;
            self.expect_op(",")?;
            Some(value)
        } else {
            None
        };
        let LogRange { log, unwrap, range_ns, offset_ns } = self.log_range()?;
        self.expect_op(")")?;
        let grouping = self.grouping()?;
        let name = op.name();
        if grouping.is_some() && !op.takes_grouping() {
            return Err(ParseError::at(place, format!("grouping not allowed for {name} aggregation")));
        }
        if unwrap.is_none() && !op.works_on_lines() {
            return Err(ParseError::at(place, format!("invalid aggregation {name} without unwrap")));
        }
        if unwrap.is_some() && !op.works_on_values() {
            return Err(ParseError::at(place, format!("invalid aggregation {name} with unwrap")));
        }
        let range = RangeAgg { op, parameter, log, unwrap, range_ns, offset_ns, grouping };
        Ok(MetricExpr::Range(Box::new(range)))
    }

    /// The range may stand before or after the pipeline.
    fn log_range(&mut self) -> Parsed<LogRange> {
        let place = self.place();
        let wrapped = self.take_op("(");
        let mut log = LogExpr { matchers: self.selector()?, stages: Vec::new() };
        let mut unwrap = None;
        let mut range = None;
        let mut closed = !wrapped;
        loop {
            if range.is_none() && self.take_op("[") {
                let range_ns = self.duration()?;
                self.expect_op("]")?;
                let offset_ns = if self.take_word("offset") { self.duration()? } else { 0 };
                range = Some((range_ns, offset_ns));
            } else if self.at_stage() {
                self.stage(&mut log.stages, Some(&mut unwrap))?;
            } else if !closed && self.take_op(")") {
                closed = true;
            } else {
                break;
            }
        }
        match range {
            Some((range_ns, offset_ns)) if closed && range_ns > 0 => Ok(LogRange { log, unwrap, range_ns, offset_ns }),
            Some(_) if closed => Err(ParseError::at(place, "a range must be longer than zero")),
            _ => self.unexpected("["),
        }
    }

    fn log_expression(&mut self) -> Parsed<LogExpr> {
        let mut log = LogExpr { matchers: self.selector()?, stages: Vec::new() };
        while self.at_stage() {
            self.stage(&mut log.stages, None)?;
        }
        Ok(log)
    }

    fn selector(&mut self) -> Parsed<Vec<Matcher>> {
        let place = self.place();
        self.expect_op("{")?;
        let mut matchers = Vec::new();
        while !self.take_op("}") {
            matchers.push(self.matcher()?);
            if !self.take_op(",") && !self.is_op("}") {
                return self.unexpected("} or ,");
            }
        }
        if matchers.iter().all(Matcher::matches_empty) {
            let message = "queries require at least one regexp or equality matcher that does not have an \
                           empty-compatible value. For instance, app=~\".*\" does not meet this requirement, but \
                           app=~\".+\" will";
            return Err(ParseError::at(place, message));
        }
        Ok(matchers)
    }

    fn matcher(&mut self) -> Parsed<Matcher> {
        let name = self.identifier()?;
        let place = self.place();
        let op = match self.peek() {
            Tok::Op(op) => match_op(op),
            _ => None,
        };
        let Some(op) = op else { return self.unexpected("=, !=, =~ or !~") };
        self.advance();
        let value = self.string()?;
        Matcher::new(name, op, value).map_err(|error| bad_matcher(&error, place))
    }
}

fn bad_matcher(error: &MatcherError, place: Place) -> ParseError {
    ParseError::at(place, crate::platform::error::chain(error))
}

fn match_op(op: &str) -> Option<MatchOp> {
    match op {
        "=" => Some(MatchOp::Equal),
        "!=" => Some(MatchOp::NotEqual),
        "=~" => Some(MatchOp::Regex),
        "!~" => Some(MatchOp::NotRegex),
        _ => None,
    }
}

fn metric(expr: Expr, place: Place) -> Parsed<MetricExpr> {
    match expr {
        Expr::Metric(metric) => Ok(metric),
        Expr::Log(_) => Err(ParseError::at(place, "unexpected type for a sample expression: lines, not numbers")),
    }
}

fn is_scalar(expr: &MetricExpr) -> bool {
    match expr {
        MetricExpr::Literal(_) => true,
        MetricExpr::Binary { left, right, .. } => is_scalar(left) && is_scalar(right),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
