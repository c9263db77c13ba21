//! Patroni's log, plain (`2026-01-01 10:00:00,123 INFO: message`) or JSON. Times have no zone.
//!
//! Tracebacks, the output of pg_controldata and that of pg_rewind follow as lines without a time: they belong to the
//! record before.

use crate::model::Severity;

use super::parsed::{Context, Parsed};
use super::time::{ZoneSetting, parse_time};

const LEVELS: [(&str, Severity); 8] = [
    ("DEBUG", Severity::Debug),
    ("INFO", Severity::Info),
    ("WARNING", Severity::Warning),
    ("WARN", Severity::Warning),
    ("ERROR", Severity::Error),
    ("CRITICAL", Severity::Critical),
    ("FATAL", Severity::Critical),
    ("NOTSET", Severity::Info),
];

/// Whether a line is the first of a record.
pub fn begins_record(line: &[u8]) -> bool {
    line.starts_with(b"{\"") || parse_time(line, ZoneSetting::Fixed(0), None).is_some()
}

/// Parses a record. `None` when it does not begin like one.
pub fn parse(record: &str, context: Context) -> Option<Parsed> {
    if record.starts_with('{') { parse_json(record, context) } else { parse_plain(record, context) }
}

fn parse_plain(record: &str, context: Context) -> Option<Parsed> {
    let time = parse_time(record.as_bytes(), context.zone, context.last_at)?;
    let rest = record.get(time.length..)?.trim_start_matches([' ', '-']);
    let (level, message) = match rest.split_once(':') {
        Some((word, message)) => match level(word.trim()) {
            Some(level) => (Some((level, word.trim())), message),
            None => (None, rest),
        },
        None => (None, rest),
    };
    let mut parsed = Parsed {
        at: Some(time.at),
        severity: level.map(|(severity, _)| severity),
        line: record.to_owned(),
        message: strip_pause(message).to_owned(),
        fields: Vec::new(),
    };
    parsed.push_field("severity_text", level.map_or("", |(_, word)| word));
    Some(parsed)
}

fn parse_json(record: &str, context: Context) -> Option<Parsed> {
    let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(record).ok()?;
    let text = |names: &[&str]| names.iter().find_map(|name| json.get(*name)?.as_str()).unwrap_or("");
    // The names can be changed in Patroni's configuration; these are the usual ones.
    let time =
        parse_time(text(&["asctime", "timestamp", "time", "@timestamp"]).as_bytes(), context.zone, context.last_at);
    let word = text(&["levelname", "level", "severity"]);
    let message = text(&["message", "msg"]);
    if time.is_none() && message.is_empty() {
        return None;
    }
    let mut full = strip_pause(message).to_owned();
    let trace = text(&["exc_info", "exception"]);
    if !trace.is_empty() {
        full.push('\n');
        full.push_str(trace);
    }
    let mut parsed = Parsed {
        at: time.map(|time| time.at),
        severity: level(word),
        line: record.to_owned(),
        message: full,
        fields: Vec::new(),
    };
    parsed.push_field("severity_text", word);
    Some(parsed)
}

fn level(word: &str) -> Option<Severity> {
    LEVELS.iter().find(|(name, _)| *name == word).map(|(_, severity)| *severity)
}

/// A paused cluster's loop results begin with this word.
fn strip_pause(message: &str) -> &str {
    let message = message.trim_start();
    message.strip_prefix("PAUSE: ").unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Timestamp;

    const CONTEXT: Context = Context { zone: ZoneSetting::Fixed(3600), last_at: None, now: Timestamp(0) };

    #[test]
    fn plain_and_json() {
        for (text, severity, message) in [
            ("2026-11-23 05:46:38,252 INFO: no action. I am (n1)", Some(Severity::Info), "no action. I am (n1)"),
            (
                "2026-11-23 05:46:38,252 ERROR: touch_member\nTraceback:\n  x",
                Some(Severity::Error),
                "touch_member\nTraceback:\n  x",
            ),
            ("2026-11-23 05:46:38,252 WARNING: PAUSE: no action", Some(Severity::Warning), "no action"),
            ("2026-11-23 05:46:38,252 something: else", None, "something: else"),
            (
                r#"{"asctime": "2026-11-23 05:46:38,252", "levelname": "CRITICAL", "message": "x \"y\""}"#,
                Some(Severity::Critical),
                "x \"y\"",
            ),
        ] {
            let parsed = parse(text, CONTEXT).unwrap();
            assert_eq!(parsed.at.unwrap().to_string(), "2026-11-23T04:46:38.252Z", "{text}");
            assert_eq!((parsed.severity, parsed.message.as_str(), parsed.line.as_str()), (severity, message, text));
            assert!(begins_record(text.as_bytes()));
        }
        for text in ["Traceback (most recent call last):", "  File \"x\"", "", "  pg_control version number: 1300"] {
            assert_eq!(parse(text, CONTEXT), None, "{text}");
            assert!(!begins_record(text.as_bytes()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,60}") {
            drop(parse(&text, CONTEXT));
            drop(parse(&format!("2026-11-23 05:46:38,252 {text}"), CONTEXT));
            drop(parse(&format!("{{{text}"), CONTEXT));
        }
    }
}
