//! What a log line says, without what stands beside it: time, process, prefix.

use crate::collect::logs::time::{ZoneSetting, parse_time};
use crate::model::LogRecord;

/// Longer values of a JSON line are not shown behind its message.
const VALUE_BYTES_MAX: usize = 100;

/// The message of a record.
pub fn message(record: &LogRecord) -> String {
    let line = record.line.as_str();
    match record.stream.get("source").unwrap_or("") {
        "postgresql" => {
            let word = record.field("severity_text").unwrap_or("");
            let start = line.find(&format!("{word}:  ")).filter(|_| !word.is_empty()).unwrap_or(0);
            line.get(start..).unwrap_or(line).to_owned()
        }
        _ if line.starts_with('{') => of_json(line).unwrap_or_else(|| line.to_owned()),
        "pgbouncer" => line.split_once("] ").map_or(line, |(_, rest)| rest).to_owned(),
        _ => {
            let time = parse_time(line.as_bytes(), ZoneSetting::Fixed(0), None);
            let rest = time.and_then(|time| line.get(time.length..)).unwrap_or(line);
            rest.trim_start().to_owned()
        }
    }
}

/// The message of a JSON line, with the other short values behind it.
fn of_json(line: &str) -> Option<String> {
    const BESIDE: [&str; 8] = ["msg", "message", "level", "levelname", "ts", "asctime", "caller", "logger"];
    let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).ok()?;
    let mut text = json.get("msg").or_else(|| json.get("message"))?.as_str()?.to_owned();
    for (name, value) in json.iter().filter(|(name, _)| !BESIDE.contains(&name.as_str())) {
        if let Some(value) = value.as_str().filter(|value| value.len() <= VALUE_BYTES_MAX) {
            text = format!("{text} {name}={value}");
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Labels, Timestamp};

    #[test]
    fn messages() {
        for (source, word, line, expected) in [
            ("postgresql", "FATAL", "2026-11-23 05:47:28.156 UTC [42] app=x FATAL:  sorry", "FATAL:  sorry"),
            ("postgresql", "FATAL", "FATAL:  sorry", "FATAL:  sorry"),
            ("postgresql", "", "cp: cannot stat", "cp: cannot stat"),
            ("patroni", "INFO", "2026-11-23 05:47:28,156 INFO: no action", "INFO: no action"),
            ("patroni", "INFO", r#"{"asctime": "x", "levelname": "INFO", "message": "no action"}"#, "no action"),
            ("etcd", "warn", r#"{"level":"warn","ts":"x","msg":"slow","took":"1s","n":1}"#, "slow took=1s"),
            ("etcd", "", "{", "{"),
            ("pgbouncer", "LOG", "2026-11-23 05:47:28.156 UTC [1] LOG stats: x", "LOG stats: x"),
            ("haproxy", "", "2026-11-23T05:47:02.440289+00:00 Server a/b is DOWN", "Server a/b is DOWN"),
        ] {
            let fields = vec![("severity_text".to_owned(), word.to_owned())];
            let stream = Labels::from_pairs([("source", source)]);
            let record = LogRecord { at: Timestamp::default(), stream, line: line.to_owned(), fields };
            assert_eq!(message(&record), expected, "{line}");
        }
    }
}
