//! Filters: on the line, and on labels.

use std::fmt;
use std::net::IpAddr;

use regex::{Regex, RegexBuilder};

use crate::model::{MatchOp, Matcher};

use super::labels::LineLabels;
use super::parsers::PatternParser;
use super::units::{format_duration_ns, parse_bytes, parse_duration_ns};

const REGEX_SIZE_LIMIT_BYTES: usize = 10 << 20;

/// Compiles an expression that may match anywhere in a line.
pub(super) fn line_regex(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(REGEX_SIZE_LIMIT_BYTES).build()
}

/// One alternative of a line filter.
#[derive(Clone, Debug)]
pub(super) enum LineTest {
    Contains(String),
    Matches(Box<Regex>),
    Pattern(PatternParser),
    Ip(IpPattern),
}

/// `|= "a" or "b"`: the line passes when any alternative holds, or none where the operator is negative.
#[derive(Clone, Debug)]
pub struct LineFilter {
    pub(super) op: &'static str,
    pub(super) tests: Vec<LineTest>,
}

impl LineFilter {
    pub(super) fn passes(&self, line: &str) -> bool {
        let any = self.tests.iter().any(|test| match test {
            LineTest::Contains(text) => line.contains(text.as_str()),
            LineTest::Matches(regex) => regex.is_match(line),
            LineTest::Pattern(pattern) => pattern.matches_whole(line),
            LineTest::Ip(ip) => ip.found_in(line),
        });
        any != self.op.starts_with('!')
    }

    /// The text that every passing line contains, where there is one.
    pub(super) fn needle(&self) -> Option<&str> {
        match (self.op, self.tests.as_slice()) {
            ("|=", [LineTest::Contains(text)]) if !text.is_empty() => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for LineFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.op)?;
        for (index, test) in self.tests.iter().enumerate() {
            f.write_str(if index == 0 { " " } else { " or " })?;
            match test {
                LineTest::Contains(text) => write!(f, "{text:?}")?,
                LineTest::Matches(regex) => write!(f, "{:?}", regex.as_str())?,
                LineTest::Pattern(pattern) => write!(f, "{:?}", pattern.text())?,
                LineTest::Ip(ip) => write!(f, "ip({:?})", ip.text)?,
            }
        }
        Ok(())
    }
}

/// An address, a range `a-b` or a network `a/n`.
#[derive(Clone, Debug)]
pub(super) struct IpPattern {
    text: String,
    from: IpAddr,
    to: IpAddr,
}

impl IpPattern {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (from, to) = if let Some((from, to)) = text.split_once('-') {
            (from.trim().parse().ok()?, to.trim().parse().ok()?)
        } else if let Some((base, bits)) = text.split_once('/') {
            network(base.parse().ok()?, bits.parse().ok()?)?
        } else {
            let address: IpAddr = text.parse().ok()?;
            (address, address)
        };
        Some(Self { text: text.to_owned(), from, to })
    }

    fn holds(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.from.is_ipv4() && address >= self.from && address <= self.to
    }

    fn found_in(&self, line: &str) -> bool {
        let words = line.split(|c: char| !c.is_ascii_hexdigit() && c != '.' && c != ':');
        words
            .filter_map(|word| word.trim_matches(['.', ':']).parse().ok().or_else(|| word.parse().ok()))
            .any(|ip| self.holds(ip))
    }
}

fn network(base: IpAddr, bits: u32) -> Option<(IpAddr, IpAddr)> {
    match base {
        IpAddr::V4(base) => {
            let host = u32::MAX.checked_shr(bits).unwrap_or(0);
            let base = u32::from(base) & !host;
            (bits <= 32).then(|| (IpAddr::V4(base.into()), IpAddr::V4((base | host).into())))
        }
        IpAddr::V6(base) => {
            let host = u128::MAX.checked_shr(bits).unwrap_or(0);
            let base = u128::from(base) & !host;
            (bits <= 128).then(|| (IpAddr::V6(base.into()), IpAddr::V6((base | host).into())))
        }
    }
}

/// How a label's value is compared as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Plain,
    Duration,
    Bytes,
}

/// A condition on labels.
#[derive(Clone, Debug)]
pub struct LabelFilter(pub(super) LabelTest);

#[derive(Clone, Debug)]
pub(super) enum LabelTest {
    Text(Matcher),
    Number { name: String, op: &'static str, value: f64, unit: Unit },
    Ip { name: String, negated: bool, pattern: IpPattern },
    And(Box<LabelTest>, Box<LabelTest>),
    Or(Box<LabelTest>, Box<LabelTest>),
}

#[expect(clippy::float_cmp, reason = "LogQL compares numbers exactly")]
pub(super) fn compare(left: f64, op: &str, right: f64) -> bool {
    match op {
        "=" | "==" => left == right,
        "!=" => left != right,
        ">" => left > right,
        ">=" => left >= right,
        "<" => left < right,
        _ => left <= right,
    }
}

impl LabelFilter {
    /// The values of a label that can pass, where the filter names them: `a="x"`, `a=~"x|y"`.
    pub(super) fn named_values(&self, label: &str) -> Option<Vec<String>> {
        let LabelTest::Text(matcher) = &self.0 else { return None };
        if matcher.name != label {
            return None;
        }
        let is_word = |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        match matcher.op {
            MatchOp::Equal => Some(vec![matcher.value.clone()]),
            MatchOp::Regex if matcher.value.split('|').all(is_word) => {
                Some(matcher.value.split('|').map(str::to_owned).collect())
            }
            _ => None,
        }
    }

    pub(super) fn passes(&self, labels: &mut LineLabels<'_>) -> bool {
        self.0.passes(labels)
    }
}

impl LabelTest {
    /// A value that is no number lets the line pass with an error on it; so does an error that is there already.
    fn passes(&self, labels: &mut LineLabels<'_>) -> bool {
        match self {
            Self::Text(matcher) => matcher.matches_value(labels.get(&matcher.name).unwrap_or("")),
            Self::Number { name, op, value, unit } => {
                if labels.has_error() {
                    return true;
                }
                let Some(text) = labels.get(name) else { return false };
                let number = match unit {
                    Unit::Plain => text.parse().ok(),
                    Unit::Duration => parse_duration_ns(text),
                    Unit::Bytes => parse_bytes(text),
                };
                if let Some(number) = number {
                    return compare(number, op, *value);
                }
                let details = format!("{text:?} is not a number of this kind");
                labels.set_error("LabelFilterErr", details);
                true
            }
            Self::Ip { name, negated, pattern } => {
                if labels.has_error() {
                    return true;
                }
                labels.get(name).is_some_and(|text| pattern.found_in(text) != *negated)
            }
            Self::And(left, right) => left.passes(labels) && right.passes(labels),
            Self::Or(left, right) => left.passes(labels) || right.passes(labels),
        }
    }
}

impl fmt::Display for LabelFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LabelTest {
    #[expect(clippy::cast_possible_truncation, reason = "durations and sizes in filters are whole and small")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(matcher) => matcher.fmt(f),
            Self::Number { name, op, value, unit: Unit::Duration } => {
                write!(f, "{name}{op}{}", format_duration_ns(*value as i64))
            }
            Self::Number { name, op, value, unit: Unit::Bytes } => write!(f, "{name}{op}{value}B"),
            Self::Number { name, op, value, unit: Unit::Plain } => write!(f, "{name}{op}{value}"),
            Self::Ip { name, negated, pattern } => {
                write!(f, "{name}{}ip({:?})", if *negated { "!=" } else { "=" }, pattern.text)
            }
            Self::And(left, right) => write!(f, "({left}, {right})"),
            Self::Or(left, right) => write!(f, "({left} or {right})"),
        }
    }
}
