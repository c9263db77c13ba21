//! Label matchers as PromQL, LogQL and Alertmanager write them.

use std::fmt;

use regex::{Regex, RegexBuilder};

use crate::model::Labels;
use crate::model::go_regex::{GoRegexError, translate};
use crate::model::quote::Quoted;

/// Compiled size limit of one expression: a hostile one fails to compile instead of eating memory.
const REGEX_SIZE_LIMIT_BYTES: usize = 10 << 20;

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

impl MatchOp {
    /// The operator as it is written in a selector.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// One condition on a label. A missing label counts as "".
#[derive(Clone, Debug)]
pub struct Matcher {
    pub name: String,
    pub op: MatchOp,
    pub value: String,
    regex: Option<Regex>,
}

/// The regular expression of a matcher does not compile.
#[derive(Debug, thiserror::Error)]
#[error("invalid regular expression {pattern:?} for label {name:?}")]
pub struct MatcherError {
    pub name: String,
    pub pattern: String,
    #[source]
    source: RegexError,
}

/// Why an expression does not compile.
#[derive(Debug, thiserror::Error)]
pub enum RegexError {
    #[error("error parsing regexp: {0}")]
    Syntax(#[source] GoRegexError),
    #[error("compile the regular expression")]
    Compile(#[source] Box<regex::Error>),
}

/// Compiles an expression with Prometheus' rules: Go's syntax, anchored at both ends, `.` matches newlines.
pub fn anchored_regex(pattern: &str) -> Result<Regex, RegexError> {
    let pattern = translate(pattern).map_err(RegexError::Syntax)?;
    let built = RegexBuilder::new(&format!("^(?s:{pattern})$")).size_limit(REGEX_SIZE_LIMIT_BYTES).build();
    built.map_err(|error| RegexError::Compile(Box::new(error)))
}

impl Matcher {
    pub fn new(name: impl Into<String>, op: MatchOp, value: impl Into<String>) -> Result<Self, MatcherError> {
        let (name, value) = (name.into(), value.into());
        let regex = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => match anchored_regex(&value) {
                Ok(regex) => Some(regex),
                Err(source) => {
                    return Err(MatcherError { name, pattern: value, source });
                }
            },
        };
        Ok(Self { name, op, value, regex })
    }

    /// `name="value"`; cannot fail, unlike the regular expression forms.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: MatchOp::Equal, value: value.into(), regex: None }
    }

    /// Whether a label with this value ("" for a missing label) satisfies the matcher.
    pub fn matches_value(&self, value: &str) -> bool {
        let by_regex = || self.regex.as_ref().is_some_and(|regex| regex.is_match(value));
        match self.op {
            MatchOp::Equal => self.value == value,
            MatchOp::NotEqual => self.value != value,
            MatchOp::Regex => by_regex(),
            MatchOp::NotRegex => !by_regex(),
        }
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_value(labels.get(&self.name).unwrap_or(""))
    }

    /// Whether the matcher accepts a series that lacks the label.
    pub fn matches_empty(&self) -> bool {
        self.matches_value("")
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.op == other.op && self.value == other.value
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.name, self.op.symbol(), Quoted(&self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_anchored_and_cross_lines() {
        for (op, pattern, value, expected) in [
            (MatchOp::Equal, "a", "a", true),
            (MatchOp::NotEqual, "a", "", true),
            (MatchOp::Regex, "a|b", "ab", false),
            (MatchOp::Regex, "a.*", "a\nb", true),
            (MatchOp::Regex, ".*", "", true),
            (MatchOp::NotRegex, ".+", "", true),
            (MatchOp::NotRegex, "a", "a", false),
        ] {
            let matcher = Matcher::new("l", op, pattern).unwrap();
            assert_eq!(matcher.matches_value(value), expected, "{matcher} on {value:?}");
        }
        assert!(Matcher::new("l", MatchOp::Regex, "(").is_err());
        assert!(Matcher::new("l", MatchOp::Regex, "((a{1000}){1000}){1000}").is_err());
    }
}
