//! PostgreSQL's stderr format. One message is several lines: the severity line, then DETAIL, HINT, CONTEXT, STATEMENT with
//! the same prefix; further lines of a value begin with a tab.
//!
//! A backend writes a whole message at once, so its lines stand together. A DETAIL of another process than the message
//! before it becomes a record of its own.

use super::parsed::{Context, Parsed};
use super::postgres;
use super::prefix::{Prefix, PrefixedLine};
use super::time::{parse_epoch, parse_time};

/// How much of a line is looked at to see where it belongs.
const HEAD_BYTES: usize = 2048;

/// Whether a line goes on with the record before it.
pub fn continues(prefix: &Prefix, record: &[u8], line: &[u8]) -> bool {
    if line.first() == Some(&b'\t') {
        return true;
    }
    let line = first_line(line);
    let Some(found) = prefix.split(&line).filter(PrefixedLine::is_detail) else { return false };
    let first = first_line(record);
    prefix.split(&first).is_some_and(|first| first.field("pid") == found.field("pid"))
}

/// Parses a record. `None` when it has no prefix, as the output of an archive command.
pub fn parse(record: &str, context: Context, prefix: &Prefix) -> Option<Parsed> {
    let (first, _) = record.split_once('\n').unwrap_or((record, ""));
    let found = prefix.split(first)?;
    let at = match found.field("time") {
        "" => parse_epoch(found.field("epoch").as_bytes()),
        time => parse_time(time.as_bytes(), context.zone, context.last_at).map(|time| time.at),
    };
    let mut message = found.message.to_owned();
    for line in record.split('\n').skip(1).take_while(|line| line.starts_with('\t')) {
        message.push('\n');
        message.push_str(line.trim_start_matches('\t'));
    }
    let severity = postgres::severity_of(found.word, found.field("sqlstate"));
    let mut parsed = Parsed { at, severity, line: record.to_owned(), message, fields: Vec::new() };
    for (name, value) in &found.fields {
        let is_nothing = matches!((*name, *value), ("xid" | "leader_pid" | "query_id", "0") | ("sqlstate", "00000"));
        if !matches!(*name, "time" | "epoch") && !is_nothing {
            parsed.push_field(name, value);
        }
    }
    parsed.push_field("severity_text", found.word);
    Some(parsed)
}

fn first_line(text: &[u8]) -> String {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line.get(..HEAD_BYTES).unwrap_or(line)).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::super::time::ZoneSetting;
    use super::*;
    use crate::model::{Severity, Timestamp};

    const CONTEXT: Context = Context { zone: ZoneSetting::Fixed(0), last_at: None, now: Timestamp(0) };
    static PREFIX: LazyLock<Prefix> = LazyLock::new(|| Prefix::compile("%m [%p] ").unwrap());
    const HEAD: &str = "2026-11-23 05:47:28.156 UTC [42] ";

    #[test]
    fn what_belongs_together() {
        let prefix = &*PREFIX;
        let record = format!("{HEAD}ERROR:  deadlock detected");
        for (line, expected) in [
            (format!("{HEAD}DETAIL:  Process 1 waits"), true),
            (format!("{HEAD}STATEMENT:  SELECT 1"), true),
            ("\tProcess 2 waits".to_owned(), true),
            (format!("{HEAD}LOG:  next"), false),
            (HEAD.replace("42", "43") + "DETAIL:  of another", false),
            ("cp: cannot stat".to_owned(), false),
        ] {
            assert_eq!(continues(prefix, record.as_bytes(), line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn a_message_with_details() {
        let prefix = &*PREFIX;
        let text = format!("{HEAD}FATAL:  could not\n\topen\n{HEAD}DETAIL:  because");
        let parsed = parse(&text, CONTEXT, prefix).unwrap();
        assert_eq!((parsed.message.as_str(), parsed.line.as_str()), ("could not\nopen", text.as_str()));
        assert_eq!(parsed.severity, Some(Severity::Error));
        assert_eq!(parsed.at.unwrap().to_string(), "2026-11-23T05:47:28.156Z");
        let fields: Vec<_> = parsed.fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(fields, [("pid", "42"), ("severity_text", "FATAL")]);
        assert_eq!(parse("cp: cannot stat", CONTEXT, prefix), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in "[\\PC\\n\\t]{0,100}") {
            let prefix = &*PREFIX;
            drop(parse(&text, CONTEXT, prefix));
            drop(parse(&format!("{HEAD}LOG:  {text}"), CONTEXT, prefix));
            let _ = continues(prefix, text.as_bytes(), format!("{HEAD}DETAIL:  {text}").as_bytes());
        }
    }
}
