//! Matchers as Alertmanager's configuration and API write them: `severity=critical`, `{a="b", c=~"d|e"}`.

use serde::{Deserialize, Deserializer, Serialize};

use crate::model::{Labels, MatchOp, Matcher};

/// A text that is not a list of matchers.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MatchersError {
    #[error("{text:?} is not a matcher like severity=\"critical\" or member=~\"n.*\"")]
    Syntax { text: String },
    #[error("{message}")]
    Regex { message: String },
}

/// Whether all matchers accept the labels.
pub fn all_match(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels))
}

/// Parses matchers separated by commas, with or without braces.
pub fn parse(text: &str) -> Result<Vec<Matcher>, MatchersError> {
    let syntax = || MatchersError::Syntax { text: text.to_owned() };
    let trimmed = text.trim();
    let mut rest = match trimmed.strip_prefix('{') {
        Some(inner) => inner.strip_suffix('}').ok_or_else(syntax)?,
        None => trimmed,
    }
    .trim();
    let mut matchers = Vec::new();
    while !rest.is_empty() {
        let (name, after) = take_word(rest, "=!~,").ok_or_else(syntax)?;
        let (op, after) = take_op(after.trim_start()).ok_or_else(syntax)?;
        let (value, after) = take_word(after.trim_start(), ",").ok_or_else(syntax)?;
        if name.is_empty() {
            return Err(syntax());
        }
        let matcher = Matcher::new(name, op, value)
            .map_err(|error| MatchersError::Regex { message: crate::platform::error::chain(&error) })?;
        matchers.push(matcher);
        rest = match after.trim_start() {
            "" => "",
            more => more.strip_prefix(',').ok_or_else(syntax)?.trim_start(),
        };
    }
    if matchers.is_empty() { Err(syntax()) } else { Ok(matchers) }
}

fn take_op(text: &str) -> Option<(MatchOp, &str)> {
    [("=~", MatchOp::Regex), ("!~", MatchOp::NotRegex), ("!=", MatchOp::NotEqual), ("=", MatchOp::Equal)]
        .into_iter()
        .find_map(|(symbol, op)| text.strip_prefix(symbol).map(|rest| (op, rest)))
}

/// A quoted string, or everything up to one of `stops`.
fn take_word<'a>(text: &'a str, stops: &str) -> Option<(String, &'a str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = text.split_at(text.find(|c| stops.contains(c)).unwrap_or(text.len()));
        let word = word.trim();
        return (!word.contains(['"', '{', '}'])).then(|| (word.to_owned(), rest));
    };
    let mut word = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((word, quoted.get(at + 1..).unwrap_or(""))),
            '\\' => match chars.next()?.1 {
                'n' => word.push('\n'),
                escaped @ ('"' | '\\') => word.push(escaped),
                // Expressions are written with their backslashes as they are.
                other => word.extend(['\\', other]),
            },
            _ => word.push(c),
        }
    }
    None
}

/// Matchers of a configuration: a list whose items hold one or more matchers each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatcherList(pub Vec<Matcher>);

impl<'de> Deserialize<'de> for MatcherList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = Vec::<ParsedMatchers>::deserialize(deserializer)?;
        Ok(Self(items.into_iter().flat_map(|parsed| parsed.0).collect()))
    }
}

struct ParsedMatchers(Vec<Matcher>);

impl<'de> Deserialize<'de> for ParsedMatchers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A matcher in Alertmanager's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiMatcher {
    pub name: String,
    pub value: String,
    pub is_regex: bool,
    #[serde(default = "yes")]
    pub is_equal: bool,
}

const fn yes() -> bool {
    true
}

impl ApiMatcher {
    pub fn of(matcher: &Matcher) -> Self {
        Self {
            name: matcher.name.clone(),
            value: matcher.value.clone(),
            is_regex: matches!(matcher.op, MatchOp::Regex | MatchOp::NotRegex),
            is_equal: matches!(matcher.op, MatchOp::Equal | MatchOp::Regex),
        }
    }

    pub fn to_matcher(&self) -> Result<Matcher, crate::model::matcher::MatcherError> {
        let op = match (self.is_regex, self.is_equal) {
            (false, true) => MatchOp::Equal,
            (false, false) => MatchOp::NotEqual,
            (true, true) => MatchOp::Regex,
            (true, false) => MatchOp::NotRegex,
        };
        Matcher::new(self.name.as_str(), op, self.value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (text, expected) in [
            ("severity=critical", r#"severity="critical""#),
            (r#"{a="b", c=~"d|e"}"#, r#"a="b" c=~"d|e""#),
            ("a != b , c!~d.*", r#"a!="b" c!~"d.*""#),
            (r#"a="x,y\"z""#, r#"a="x,y\"z""#),
            (r#"a=~"\d+""#, r#"a=~"\\d+""#),
            ("a=", r#"a="""#),
            (r#"{a="b",}"#, r#"a="b""#),
        ] {
            let matchers = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), expected, "{text}");
        }
        for bad in ["", "{}", "a", "{a=b", "=b", r#"a="b"#, r#"a="b" c"#] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse("a=~(").is_err());
    }
}
