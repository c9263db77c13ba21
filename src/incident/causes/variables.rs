//! Variables in causes: `$member` in a title, a sign's words or its expression.

use std::collections::BTreeMap;

use crate::model::Timestamp;
use crate::model::quote::Quoted;

/// What can stand for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Variable {
    Cluster,
    /// The member that the cause is about.
    Member,
    /// The member that led when the trouble began.
    Leader,
    /// The member that took over.
    NewLeader,
    /// Begin and end of the sign's window, RFC 3339.
    Start,
    End,
}

impl Variable {
    pub(super) const ALL: [(Self, &'static str); 6] = [
        (Self::Cluster, "cluster"),
        (Self::Member, "member"),
        (Self::Leader, "leader"),
        (Self::NewLeader, "new_leader"),
        (Self::Start, "start"),
        (Self::End, "end"),
    ];

    pub(super) fn named(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == word).map(|(variable, _)| *variable)
    }
}

/// Values of the variables; a missing one is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bindings(BTreeMap<Variable, String>);

impl Bindings {
    pub(super) fn set(&mut self, variable: Variable, value: impl Into<String>) -> &mut Self {
        self.0.insert(variable, value.into());
        self
    }

    pub(super) fn get(&self, variable: Variable) -> Option<&str> {
        self.0.get(&variable).map(String::as_str)
    }

    /// A copy with a sign's window.
    #[must_use]
    pub(super) fn with_window(&self, start: Timestamp, end: Timestamp) -> Self {
        let mut bindings = self.clone();
        bindings.set(Variable::Start, start.to_rfc3339_millis()).set(Variable::End, end.to_rfc3339_millis());
        bindings
    }

    /// The text for people. What is not known is said so.
    pub(super) fn show(&self, text: &str) -> String {
        replace(text, |word| {
            let variable = Variable::named(word)?;
            Some(self.get(variable).map_or_else(|| unknown(variable).to_owned(), str::to_owned))
        })
    }

    /// The expression with values, escaped for the quotes they stand in; the variable that has no value as the error.
    pub(super) fn fill(&self, text: &str) -> Result<String, Variable> {
        let missing = words(text).filter_map(Variable::named).find(|variable| self.get(*variable).is_none());
        match missing {
            Some(variable) => Err(variable),
            None => Ok(replace(text, |word| self.get(Variable::named(word)?).map(escaped))),
        }
    }
}

/// Words for a value that is not known.
fn unknown(variable: Variable) -> &'static str {
    match variable {
        Variable::NewLeader => "nobody yet",
        Variable::Member | Variable::Leader => "an unknown member",
        Variable::Cluster | Variable::Start | Variable::End => "?",
    }
}

/// A value as it stands inside double quotes.
fn escaped(value: &str) -> String {
    let quoted = Quoted(value).to_string();
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or("").to_owned()
}

/// An expression with stand-ins, for checking its syntax.
pub(super) fn with_examples(text: &str) -> String {
    replace(text, |word| Variable::named(word).map(|_| "x".to_owned()))
}

/// Words after `$`, in order. A `$` that no letter follows, as in a regular expression, is none.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('$').skip(1).map(leading_word).filter(|word| !word.is_empty())
}

fn leading_word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(text.len());
    text.get(..end).unwrap_or("")
}

fn replace(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut parts = text.split('$');
    let mut out = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let word = leading_word(part);
        if let Some(value) = value(word) {
            out.push_str(&value);
            out.push_str(part.get(word.len()..).unwrap_or(""));
        } else {
            out.push('$');
            out.push_str(part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_and_filled_in() {
        let mut bindings = Bindings::default();
        bindings.set(Variable::Member, "n\"1").set(Variable::Leader, "n2");
        assert_eq!(bindings.show("$member, $leader's heir is $new_leader. $"), "n\"1, n2's heir is nobody yet. $");
        assert_eq!(bindings.fill(r#"{member="$member"} |~ "a$""#), Ok(r#"{member="n\"1"} |~ "a$""#.to_owned()));
        assert_eq!(bindings.fill("$new_leader"), Err(Variable::NewLeader));
        assert_eq!(words("$member or $x, 5$").collect::<Vec<_>>(), ["member", "x"]);
    }
}
