//! Vector selectors and their matchers.

use super::{Parsed, Parser};
use crate::model::Matcher;
use crate::model::labels::METRIC_NAME;
use crate::model::matcher::MatchOp;
use crate::query::promql::ast::{BinaryOp, Expr, ExprKind, Selector};
use crate::query::promql::lexer::Kind;
use crate::query::promql::literal;

const CONTEXT: &str = "label matching";

impl Parser<'_> {
    /// A selector that begins with `name`, or with its braces.
    pub(super) fn selector(&mut self, name: Option<&str>) -> Parsed<Expr> {
        let start = self.start();
        self.at += usize::from(name.is_some());
        let mut matchers = Vec::new();
        if self.take_mark('{') {
            while !self.take_mark('}') {
                self.matcher(&mut matchers)?;
                if !self.take_mark(',') && !self.is_mark('}') {
                    return Err(self.unexpected(CONTEXT, "\",\" or \"}\""));
                }
            }
        }
        if let Some(name) = name {
            matchers.push(Matcher::equal(METRIC_NAME, name));
        }
        let selector = Selector { name: name.map(str::to_owned), matchers, ..Selector::default() };
        Ok(self.node(ExprKind::Selector(selector), start))
    }

    fn matcher(&mut self, matchers: &mut Vec<Matcher>) -> Parsed<()> {
        let (span, text) = (self.span(), self.token_text(0));
        let quoted = self.peek() == &Kind::String;
        let name = match self.peek() {
            Kind::Identifier => text.to_owned(),
            Kind::String => literal::unquote(text),
            _ => return Err(self.unexpected(CONTEXT, "identifier or \"}\"")),
        };
        self.at += 1;
        let op = match self.peek() {
            Kind::Mark('=') => MatchOp::Equal,
            Kind::Op(BinaryOp::Ne) => MatchOp::NotEqual,
            Kind::EqualRegex => MatchOp::Regex,
            Kind::NotEqualRegex => MatchOp::NotRegex,
            // A quoted text alone is the metric's name.
            _ if quoted => {
                matchers.push(Matcher::equal(METRIC_NAME, name));
                return Ok(());
            }
            _ => return Err(self.unexpected(CONTEXT, "label matching operator")),
        };
        self.at += 1;
        if self.peek() != &Kind::String {
            return Err(self.unexpected(CONTEXT, "string"));
        }
        let value = literal::unquote(self.token_text(0));
        self.at += 1;
        let matcher = Matcher::new(name, op, value).map_err(|error| {
            let source = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Self::error_at(span, source)
        })?;
        matchers.push(matcher);
        Ok(())
    }
}
