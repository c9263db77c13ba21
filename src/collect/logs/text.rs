//! Lines of unknown programs: a time and a severity are taken where they can be seen.

use crate::model::Severity;

use super::parsed::{Context, Parsed};
use super::time::{ZoneSetting, parse_syslog_time, parse_time};

/// How far into a line a severity word is looked for.
const HEAD_CHARS: usize = 80;

const WORDS: &[(&str, Severity)] = &[
    ("DEBUG", Severity::Debug),
    ("TRACE", Severity::Debug),
    ("INFO", Severity::Info),
    ("LOG", Severity::Info),
    ("NOTICE", Severity::Notice),
    ("WARNING", Severity::Warning),
    ("WARN", Severity::Warning),
    ("ERROR", Severity::Error),
    ("ERR", Severity::Error),
    ("FATAL", Severity::Error),
    ("ALERT", Severity::Critical),
    ("CRIT", Severity::Critical),
    ("CRITICAL", Severity::Critical),
    ("EMERG", Severity::Critical),
    ("PANIC", Severity::Critical),
];

/// Whether a line goes on with the record before it: it is indented and has no time.
pub fn continues(line: &[u8]) -> bool {
    let indent = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    indent > 0 && line.get(indent..).is_some_and(|rest| parse_time(rest, ZoneSetting::Fixed(0), None).is_none())
}

/// Parses a record; every text is one.
pub fn parse(record: &str, context: Context) -> Parsed {
    let mut parsed = Parsed::unknown(record);
    let start = record.trim_start_matches([' ', '\t', '[']);
    let time = parse_time(start.as_bytes(), context.zone, context.last_at)
        .or_else(|| parse_syslog_time(start.as_bytes(), context.zone, context.now));
    let mut rest = start;
    if let Some(time) = time {
        parsed.at = Some(time.at);
        rest = start.get(time.length..).unwrap_or("").trim_start_matches([']', ' ', '-']);
        rest.clone_into(&mut parsed.message);
    }
    if let Some((word, severity)) = find_severity(rest) {
        parsed.severity = Some(severity);
        parsed.push_field("severity_text", word);
    }
    parsed
}

/// The first word in capitals that names a severity, or the value of `level=`.
fn find_severity(text: &str) -> Option<(&str, Severity)> {
    let end = text.char_indices().nth(HEAD_CHARS).map_or(text.len(), |(at, _)| at);
    let head = text.get(..end)?.lines().next()?;
    let words = head.split(|c: char| !c.is_ascii_alphabetic() && c != '=');
    words.into_iter().find_map(|word| {
        let (word, wanted) = match word.strip_prefix("level=") {
            Some(value) => (value, value.to_ascii_uppercase()),
            None => (word, word.to_owned()),
        };
        WORDS.iter().find(|(name, _)| *name == wanted).map(|(_, severity)| (word, *severity))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Timestamp;

    const CONTEXT: Context = Context { zone: ZoneSetting::Fixed(0), last_at: None, now: Timestamp(0) };

    #[test]
    fn lines_of_other_programs() {
        for (text, at, severity, message) in [
            (
                "[2026-11-23 05:50:11] [WARNING] connection lost",
                Some("2026-11-23T05:50:11.000Z"),
                Some(Severity::Warning),
                "[WARNING] connection lost",
            ),
            (
                "    2026-11-23T05:46:58.895Z [INFO]  agent: x",
                Some("2026-11-23T05:46:58.895Z"),
                Some(Severity::Info),
                "[INFO]  agent: x",
            ),
            ("05:54:21 11614 WARN  No encryption", None, Some(Severity::Warning), "05:54:21 11614 WARN  No encryption"),
            ("level=error msg=x", None, Some(Severity::Error), "level=error msg=x"),
            ("an ERRORS word", None, None, "an ERRORS word"),
            ("Jan  1 00:00:05 host app[1]: x", Some("1970-01-01T00:00:05.000Z"), None, "host app[1]: x"),
        ] {
            let parsed = parse(text, CONTEXT);
            assert_eq!(parsed.at.map(|at| at.to_string()).as_deref(), at, "{text}");
            assert_eq!((parsed.severity, parsed.message.as_str(), parsed.line.as_str()), (severity, message, text));
        }
        assert!(continues(b"\tat x.y(Z.java:1)"));
        assert!(!continues(b"    2026-11-23T05:46:58.895Z [INFO]"));
        assert!(!continues(b"x"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,120}") {
            drop(parse(&text, CONTEXT));
            let _ = continues(text.as_bytes());
        }
    }
}
