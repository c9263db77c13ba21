//! PostgreSQL's `log_line_prefix`, compiled into a parser; or found out from the lines themselves.

use regex::{Captures, Regex};

use super::postgres::{DETAIL_WORDS, SEVERITY_WORDS};

/// Prefixes that are tried when the setting is not known. The first that fits most lines is taken.
const COMMON: &[&str] = &[
    "%m [%p] sid=%c,line=%l,user=%u,db=%d,app=%a,client=%h,vxid=%v,xid=%x,sqlstate=%e ",
    "%t [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h ",
    "%m [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h ",
    "%t [%p]: [%l-1] user=%u,db=%d ",
    "%t [%p]: db=%d,user=%u,app=%a,client=%h ",
    "%m [%p] user=%u,db=%d,app=%a,client=%h ",
    "%m [%p][%b][%v:%x] %q[user=%u,db=%d,app=%a] ",
    "%m [%p] %q%u@%d/%a ",
    "%m [%p] %q%u@%d ",
    "%m [%p] %u@%d ",
    "%t [%p] %u@%d ",
    "%t [%p-%l] %q%u@%d ",
    "%m [%p]: [%l] %u@%d ",
    "%t:%r:%u@%d:[%p]:",
    "%t-%c-",
    "%m [%p] %u@%d %r ",
    "%m:%r:%u@%d:[%p]:%l:%e:%s:%v:%x:%c:%q%a:",
    "%m %r %u %a [%c] [%p] ",
    "%m %u %d [%p] ",
    "%m [%p]: ",
    "%t [%p]: ",
    "%m [%p] ",
    "%t [%p] ",
    "%n [%p] ",
    "[%p] ",
    "%m ",
    "%t ",
];

/// Lines that are looked at to find a prefix.
const LINES_LOOKED_AT: usize = 200;

/// What stands before a message, by field name.
pub type PrefixFields<'a> = Vec<(&'static str, &'a str)>;

/// A compiled prefix.
#[derive(Clone, Debug)]
pub struct Prefix {
    regex: Regex,
    /// Understands any prefix a little, for lines that the setting does not explain (it may change while we read).
    fallback: Regex,
}

/// A line taken apart.
#[derive(Debug)]
pub struct PrefixedLine<'a> {
    /// Field names of ours with values; `time` and `epoch` are among them.
    pub fields: PrefixFields<'a>,
    /// `LOG`, `DETAIL` …
    pub word: &'a str,
    pub message: &'a str,
}

impl PrefixedLine<'_> {
    pub fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// Whether the line belongs to the message before it.
    pub fn is_detail(&self) -> bool {
        DETAIL_WORDS.contains(&self.word)
    }
}

/// The setting cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("log_line_prefix {setting:?} cannot be understood")]
pub struct PrefixError {
    setting: String,
    source: regex::Error,
}

const TIME: &str = r"[0-9]{4}-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9](?:\.[0-9]{1,6})?(?: (?:[A-Z]{1,5}|[+-][0-9][0-9](?::?[0-9][0-9])?))?";

/// Escapes: letter, the name of the capture, what it looks like.
const ESCAPES: &[(char, &str, &str)] = &[
    ('a', "application", ".*?"),
    ('u', "user", ".*?"),
    ('d', "database", ".*?"),
    ('r', "client", r"\S*?"),
    ('h', "client", r"\S*?"),
    ('L', "local_address", r"\S*?"),
    ('b', "backend_type", ".*?"),
    ('p', "pid", r"[0-9]*"),
    ('P', "leader_pid", r"[0-9]*"),
    ('t', "time", TIME),
    ('m', "time", TIME),
    ('n', "epoch", r"[0-9]+\.[0-9]+"),
    ('Q', "query_id", r"-?[0-9]*"),
    ('i', "command", ".*?"),
    ('e', "sqlstate", "[0-9A-Z]{5}|"),
    ('c', "session_id", r"[0-9a-f]*\.?[0-9a-f]*"),
    ('l', "session_line", r"[0-9]*"),
    ('s', "session_start", r"(?:[0-9]{4}-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9](?: [A-Z+0-9:-]+?)?|)"),
    ('v', "vxid", r"[0-9/-]*"),
    ('x', "xid", r"[0-9]*"),
];

impl Prefix {
    /// Compiles a setting.
    pub fn compile(setting: &str) -> Result<Self, PrefixError> {
        let error = |source| PrefixError { setting: setting.to_owned(), source };
        let regex = Regex::new(&to_regex(setting)).map_err(error)?;
        let words = words();
        let fallback = format!(
            r"^(?P<time>{TIME})(?:[^\n]*?\[(?P<pid>[0-9]+)\])?[^\n]*?(?P<word>{words}):  ?(?P<message>(?s).*)$"
        );
        Ok(Self { regex, fallback: Regex::new(&fallback).map_err(error)? })
    }

    /// The common prefix that fits most of these lines; the plainest where none fits any.
    pub fn detect(head: &[u8]) -> Result<Self, PrefixError> {
        let text = String::from_utf8_lossy(head);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('\t')).take(LINES_LOOKED_AT).collect();
        let mut best = Self::compile("%m [%p] ")?;
        let mut best_score = 0;
        for setting in COMMON {
            let prefix = Self::compile(setting)?;
            let score = lines.iter().filter(|line| prefix.regex.is_match(line)).count();
            if score > best_score {
                (best, best_score) = (prefix, score);
            }
        }
        Ok(best)
    }

    /// Takes a line apart. `None` when it has no prefix and severity.
    pub fn split<'a>(&self, line: &'a str) -> Option<PrefixedLine<'a>> {
        let captures = self.regex.captures(line).or_else(|| self.fallback.captures(line))?;
        let word = captures.name("word").or_else(|| captures.name("other"))?.as_str();
        let message = captures.name("message")?.as_str();
        Some(PrefixedLine { fields: named_fields(&captures), word, message })
    }
}

fn named_fields<'a>(captures: &Captures<'a>) -> PrefixFields<'a> {
    let mut fields: PrefixFields<'a> = Vec::new();
    for (_, name, _) in ESCAPES {
        if fields.iter().any(|(known, _)| known == name) {
            continue;
        }
        if let Some(value) = captures.name(name).map(|value| value.as_str().trim()) {
            // What the server writes where a process has no such thing.
            if !matches!(value, "" | "[unknown]") {
                fields.push((name, value));
            }
        }
    }
    fields
}

fn words() -> String {
    SEVERITY_WORDS.iter().chain(DETAIL_WORDS).copied().collect::<Vec<_>>().join("|")
}

fn to_regex(setting: &str) -> String {
    let mut regex = String::from("^");
    let mut used: Vec<&str> = Vec::new();
    let mut optional_parts = 0;
    let mut chars = setting.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            regex.push_str(&regex::escape(&c.to_string()));
            continue;
        }
        let mut is_padded = false;
        while chars.next_if(|c| c.is_ascii_digit() || *c == '-').is_some() {
            is_padded = true;
        }
        let Some(letter) = chars.next() else { break };
        match letter {
            '%' => regex.push('%'),
            // Processes without a session stop here.
            'q' => {
                regex.push_str("(?:");
                optional_parts += 1;
            }
            letter => {
                let Some((_, name, pattern)) = ESCAPES.iter().find(|(known, ..)| *known == letter) else { continue };
                let padding = if is_padded { " *" } else { "" };
                let (open, close) = if used.contains(name) { ("(?:", ")") } else { ("(?P<", ")") };
                let named = if used.contains(name) { String::new() } else { format!("{name}>") };
                regex.extend([padding, open, &named, pattern, close, padding]);
                used.push(name);
            }
        }
    }
    regex.push_str(&")?".repeat(optional_parts));
    // Translated words come last: they are told only by being in capitals and followed by two blanks.
    regex + &format!(r"(?:(?P<word>{}):  ?|(?P<other>\p{{Lu}}{{3,20}}):  )(?P<message>(?s).*)$", words())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Split = (Vec<(&'static str, String)>, String, String);

    fn split(setting: &str, line: &str) -> Option<Split> {
        let prefix = Prefix::compile(setting).unwrap();
        let found = prefix.split(line)?;
        let fields = found.fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Some((fields, found.word.to_owned(), found.message.to_owned()))
    }

    #[test]
    fn settings() {
        let time = ("time", "2026-11-23 05:47:28.156 UTC");
        for (setting, line, expected) in [
            ("%m [%p] ", "2026-11-23 05:47:28.156 UTC [42] LOG:  hello", vec![time, ("pid", "42")]),
            (
                "%m [%p] %q%u@%d ",
                "2026-11-23 05:47:28.156 UTC [42] app@db LOG:  hello",
                vec![("user", "app"), ("database", "db"), ("pid", "42"), time],
            ),
            ("%m [%p] %q%u@%d ", "2026-11-23 05:47:28.156 UTC [42] LOG:  hello", vec![("pid", "42"), time]),
            (
                "%t:%r:%u@%d:[%p]:",
                "2026-11-23 05:47:28.156 UTC:10.0.0.1(55):app@db:[42]:LOG:  hello",
                vec![("user", "app"), ("database", "db"), ("client", "10.0.0.1(55)"), ("pid", "42"), time],
            ),
            ("%10p|%-5u|%%", "        42|me   |%LOG:  hello", vec![("user", "me"), ("pid", "42")]),
            (
                "%m [%p] user=%u,db=%d,app=%a,client=%h ",
                "2026-11-23 05:47:28.156 UTC [42] user=[unknown],db=,app=my app, v2,client=::1 LOG:  hello",
                vec![("application", "my app, v2"), ("client", "::1"), ("pid", "42"), time],
            ),
            ("%n %e ", "1767261600.123 42P01 LOG:  hello", vec![("epoch", "1767261600.123"), ("sqlstate", "42P01")]),
            ("", "LOG:  hello", vec![]),
        ] {
            let (mut fields, word, message) = split(setting, line).unwrap_or_else(|| panic!("{setting} {line}"));
            let mut expected: Vec<(&str, String)> = expected.into_iter().map(|(n, v)| (n, v.to_owned())).collect();
            fields.sort();
            expected.sort();
            assert_eq!((fields, word.as_str(), message.as_str()), (expected, "LOG", "hello"), "{setting}");
        }
    }

    #[test]
    fn lines_that_the_setting_does_not_explain_still_give_time_and_pid() {
        let (fields, word, _) = split("%t-%c-", "2026-11-23 05:47:28 UTC [42] what ever ERROR:  x").unwrap();
        assert_eq!(fields, [("pid", "42".to_owned()), ("time", "2026-11-23 05:47:28 UTC".to_owned())]);
        assert_eq!(word, "ERROR");
        assert!(split("%m [%p] ", "cp: cannot stat 'x'").is_none());
    }

    #[test]
    fn translated_words() {
        let (_, word, message) = split("%m [%p] ", "2026-11-23 05:47:28.156 UTC [42] FEHLER:  Relation fehlt").unwrap();
        assert_eq!((word.as_str(), message.as_str()), ("FEHLER", "Relation fehlt"));
    }

    #[test]
    fn detection() {
        for (line, name, value) in [
            ("2026-11-23 05:47:28.156 UTC [42] app@db LOG:  hello", "database", "db"),
            ("2026-11-23 05:47:28 UTC [42]: [3-1] user=app,db=d,app=a,client=h LOG:  hello", "session_line", "3"),
            ("2026-11-23 05:47:28 UTC::@:[42]:LOG:  hello", "pid", "42"),
            ("2026-11-23 05:47:28 UTC-6b03.7-LOG:  hello", "session_id", "6b03.7"),
        ] {
            let prefix = Prefix::detect(format!("{line}\n\tmore\n{line}\n").as_bytes()).unwrap();
            assert_eq!(prefix.split(line).unwrap().field(name), value, "{line}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(setting in "[%a-zA-Z0-9 \\[\\]:@=,()-]{0,30}", line in "\\PC{0,80}") {
            let prefix = Prefix::compile(&setting).unwrap();
            drop(prefix.split(&line));
        }
    }
}
