//! PostgreSQL's csvlog: 23 columns in 12, 24 in 13, 26 since 14.

use std::borrow::Cow;

use super::parsed::{Context, Parsed};
use super::postgres::{self, Columns};
use super::time::{ZoneSetting, parse_time};

const COLUMNS: [usize; 3] = [23, 24, 26];
/// Columns up to and including the severity: enough to know a record by.
const HEAD_COLUMNS: usize = 12;
const SEVERITY_COLUMN: usize = 11;

/// Parses a whole record, newlines inside quotes included. `None` when it is not one.
///
/// A record that was cut off is understood as far as it reaches, if its severity is there and no other record begins
/// inside it.
pub fn parse(record: &str, context: Context) -> Option<Parsed> {
    let (values, is_whole) = split(record);
    let count = values.len();
    let plausible = if is_whole { COLUMNS.contains(&count) } else { count > HEAD_COLUMNS && count <= 26 };
    if !plausible || (!is_whole && find_inner(record.as_bytes()).is_some()) {
        return None;
    }
    let value = |index: usize| values.get(index).map_or("", AsRef::as_ref);
    postgres::severity_of(value(SEVERITY_COLUMN), value(12))?;
    let time = parse_time(value(0).as_bytes(), context.zone, context.last_at)?;
    let columns = Columns {
        user: value(1),
        database: value(2),
        pid: value(3),
        client: value(4),
        session_id: value(5),
        session_line: value(6),
        command: value(7),
        session_start: value(8),
        vxid: value(9),
        xid: value(10),
        severity_text: value(SEVERITY_COLUMN),
        sqlstate: value(12),
        message: value(13),
        detail: value(14),
        hint: value(15),
        internal_query: value(16),
        internal_position: value(17),
        context: value(18),
        statement: value(19),
        cursor_position: value(20),
        location: value(21),
        application: value(22),
        backend_type: value(23),
        leader_pid: value(24),
        query_id: value(25),
    };
    let mut parsed = columns.to_parsed();
    parsed.at = Some(time.at);
    Some(parsed)
}

/// Whether a line begins with the first columns of a record: time, process, session, severity.
pub fn begins_record(line: &[u8]) -> bool {
    if !line.first().is_some_and(u8::is_ascii_digit) || parse_time(line, ZoneSetting::Fixed(0), None).is_none() {
        return false;
    }
    let head = line.get(..line.len().min(4096)).unwrap_or_default();
    let head = String::from_utf8_lossy(head.split(|byte| *byte == b'\n').next().unwrap_or_default());
    let (values, _) = split(&head);
    let value = |index: usize| values.get(index).map_or("", AsRef::as_ref);
    values.len() > HEAD_COLUMNS
        && !value(3).is_empty()
        && value(3).bytes().all(|byte| byte.is_ascii_digit())
        && value(5).contains('.')
        && postgres::severity_of(value(SEVERITY_COLUMN), value(12)).is_some()
}

/// Where another record begins inside the first line: a server that died in the middle of a line was followed by one
/// that went on in the same line.
pub fn find_inner(record: &[u8]) -> Option<usize> {
    let line = record.split(|byte| *byte == b'\n').next()?;
    (1..line.len()).find(|at| {
        let Some(rest) = line.get(*at..) else { return false };
        rest.get(4) == Some(&b'-') && rest.get(7) == Some(&b'-') && begins_record(rest)
    })
}

/// Values of a record, unquoted; whether the last one ended properly. More than 27 values are not looked for.
fn split(record: &str) -> (Vec<Cow<'_, str>>, bool) {
    let mut values = Vec::with_capacity(26);
    let mut rest = record;
    while values.len() < 27 {
        let (value, after) = if let Some(quoted) = rest.strip_prefix('"') {
            let Some(found) = unquote(quoted) else {
                values.push(Cow::Owned(quoted.replace("\"\"", "\"")));
                return (values, false);
            };
            found
        } else {
            let (value, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
            (Cow::Borrowed(value), after)
        };
        values.push(value);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => return (values, after.is_empty()),
        }
    }
    (values, false)
}

/// A quoted value up to its closing quote, and what follows.
fn unquote(quoted: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut from = 0;
    let mut has_escapes = false;
    loop {
        let at = from + quoted.get(from..)?.find('"')?;
        let after = quoted.get(at + 1..)?;
        if after.starts_with('"') {
            has_escapes = true;
            from = at + 2;
        } else {
            let value = quoted.get(..at)?;
            let value = if has_escapes { Cow::Owned(value.replace("\"\"", "\"")) } else { Cow::Borrowed(value) };
            return Some((value, after));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Severity, Timestamp};

    const CONTEXT: Context = Context { zone: ZoneSetting::Fixed(0), last_at: None, now: Timestamp(0) };

    #[test]
    fn a_record_of_each_version() {
        let base = "2026-11-23 05:47:28.131 UTC,\"app\",\"db\",42,\"10.0.0.1:5432\",6b03d370.77e,7,\"SELECT\",\
            2026-11-23 05:47:28 UTC,3/12,0,ERROR,42P01,\"relation \"\"x,y\"\" does not exist\",\"some\ndetail\",,,,,\
            \"SELECT *\nFROM x\",15,,\"psql\"";
        for (extra, fields) in [
            ("", vec![]),
            (",\"client backend\"", vec![("backend_type", "client backend")]),
            (",\"client backend\",,77", vec![("backend_type", "client backend"), ("query_id", "77")]),
        ] {
            let parsed = parse(&format!("{base}{extra}"), CONTEXT).unwrap();
            assert_eq!(parsed.at.unwrap().to_string(), "2026-11-23T05:47:28.131Z");
            assert_eq!(parsed.severity, Some(Severity::Error));
            assert_eq!(
                parsed.line,
                "ERROR:  relation \"x,y\" does not exist at character 15\nDETAIL:  some\n\tdetail\nSTATEMENT:  SELECT *\n\tFROM x"
            );
            let mut expected = vec![
                ("pid", "42"),
                ("user", "app"),
                ("database", "db"),
                ("sqlstate", "42P01"),
                ("application", "psql"),
                ("client", "10.0.0.1:5432"),
                ("session_id", "6b03d370.77e"),
                ("session_line", "7"),
                ("session_start", "2026-11-23 05:47:28 UTC"),
                ("command", "SELECT"),
                ("vxid", "3/12"),
                ("severity_text", "ERROR"),
            ];
            expected.extend(fields);
            let mut found: Vec<_> = parsed.fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected);
            assert!(begins_record(base.as_bytes()));
        }
    }

    #[test]
    fn what_is_no_record() {
        for text in [
            "",
            "a,b",
            "2026-11-23 05:47:28.131 UTC,,,x",
            "\"",
            "2026-11-23 05:47:28.131 UTC [1] LOG:  a,,,,,,,,,,,,,,",
        ] {
            assert_eq!(parse(text, CONTEXT), None, "{text}");
            assert!(!begins_record(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn translated_severities_are_told_by_the_sqlstate() {
        for (word, sqlstate, severity) in [
            ("FEHLER", "42P01", Some(Severity::Error)),
            ("ПРЕДУПРЕЖДЕНИЕ", "01000", Some(Severity::Warning)),
            ("HINWEIS", "00000", Some(Severity::Info)),
            ("FEHLER", "", None),
            ("1", "00000", None),
        ] {
            let text = format!("2026-11-23 05:47:28.131 UTC,,,42,,6b.7,1,,x,,0,{word},{sqlstate},\"a\",,,,,,,,,\"\"");
            assert_eq!(parse(&text, CONTEXT).and_then(|parsed| parsed.severity), severity, "{word}");
            assert_eq!(begins_record(text.as_bytes()), severity.is_some(), "{word}");
        }
    }

    #[test]
    fn a_cut_record_is_read_as_far_as_it_goes() {
        let cut =
            "2026-11-23 05:47:28.131 UTC,,,42,,6b.7,1,,2026-11-23 05:47:28 UTC,,0,LOG,00000,\"statement: SELECT 1, ";
        let parsed = parse(cut, CONTEXT).unwrap();
        assert_eq!(parsed.line, "LOG:  statement: SELECT 1, ");
    }

    #[test]
    fn a_record_inside_another_is_found() {
        let record = "2026-11-23 05:47:28.131 UTC,,,42,,6b.7,1,,x,,0,LOG,00000,\"a\",,,,,,,,,\"\"";
        let torn = "2026-11-23 05:47:27.000 UTC,,,41,,6b.6,1,,2026-11-23 05:47:26 UTC,,0,LOG,00000,\"statement: SEL";
        let joined = format!("{torn}{record}");
        assert_eq!(find_inner(joined.as_bytes()), Some(torn.len()));
        assert_eq!(parse(&joined, CONTEXT), None);
        assert_eq!(find_inner(record.as_bytes()), None);
        assert_eq!(find_inner(b""), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in "[\",\\n0-9a-zA-Z :.é-]{0,200}") {
            drop(parse(&text, CONTEXT));
            let _ = begins_record(text.as_bytes());
            let _ = begins_record(format!("2026-11-23 05:47:28.131 UTC,{text}").as_bytes());
        }

        #[test]
        fn quoting_comes_back(values in proptest::collection::vec("[\",\\na]{0,6}", 1..20)) {
            let record: Vec<String> = values.iter().map(|value| format!("\"{}\"", value.replace('"', "\"\""))).collect();
            let record = record.join(",");
            let (found, whole) = split(&record);
            prop_assert!(whole);
            prop_assert_eq!(found, values);
        }
    }
}
