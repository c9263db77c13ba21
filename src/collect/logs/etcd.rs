//! etcd's log: JSON by zap, or before 3.5 plain text by capnslog.

use serde_json::Value;

use crate::model::Severity;

use super::parsed::{Context, Parsed};
use super::time::parse_time;

/// Further keys that become fields at most.
const FIELDS_MAX: usize = 16;
/// Longer values stay in the line only.
const FIELD_BYTES_MAX: usize = 256;

/// Parses one line. `None` when it is neither form.
pub fn parse(record: &str, context: Context) -> Option<Parsed> {
    if record.starts_with('{') { parse_json(record, context) } else { parse_plain(record, context) }
}

fn parse_json(record: &str, context: Context) -> Option<Parsed> {
    let json: serde_json::Map<String, Value> = serde_json::from_str(record).ok()?;
    let text = |name: &str| json.get(name).and_then(Value::as_str).unwrap_or("");
    let time = parse_time(text("ts").as_bytes(), context.zone, context.last_at)?;
    let mut parsed = Parsed {
        at: Some(time.at),
        severity: severity(text("level")),
        line: record.to_owned(),
        message: text("msg").to_owned(),
        fields: Vec::new(),
    };
    parsed.push_field("severity_text", text("level"));
    let others = json.iter().filter(|(name, _)| !matches!(name.as_str(), "level" | "ts" | "msg"));
    for (name, value) in others.take(FIELDS_MAX) {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(bool) => bool.to_string(),
            _ => continue,
        };
        let name = field_name(name);
        if value.len() <= FIELD_BYTES_MAX && !parsed.fields.iter().any(|(known, _)| *known == name) {
            parsed.push_field(&name, &value);
        }
    }
    Some(parsed)
}

/// `2026-01-01 10:00:00.123456 W | etcdserver: message`
fn parse_plain(record: &str, context: Context) -> Option<Parsed> {
    let time = parse_time(record.as_bytes(), context.zone, context.last_at)?;
    let rest = record.get(time.length..)?.trim_start();
    let (letter, rest) = rest.split_once(" | ")?;
    let message = rest.split_once(": ").map_or(rest, |(_package, message)| message);
    let word = match letter {
        "D" => "debug",
        "I" | "N" => "info",
        "W" => "warn",
        "E" => "error",
        "C" => "fatal",
        _ => return None,
    };
    let mut parsed = Parsed {
        at: Some(time.at),
        severity: severity(word),
        line: record.to_owned(),
        message: message.to_owned(),
        fields: Vec::new(),
    };
    parsed.push_field("severity_text", letter);
    Some(parsed)
}

fn severity(word: &str) -> Option<Severity> {
    Some(match word {
        "debug" => Severity::Debug,
        "info" => Severity::Info,
        "warn" => Severity::Warning,
        "error" => Severity::Error,
        "dpanic" | "panic" | "fatal" => Severity::Critical,
        _ => return None,
    })
}

/// Field names hold letters, digits and underscores only; these of ours are not overwritten.
fn field_name(key: &str) -> String {
    let name: String = key.chars().take(64).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if matches!(name.as_str(), "event" | "file" | "raw" | "severity_text") { format!("etcd_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::time::ZoneSetting;
    use super::*;
    use crate::model::Timestamp;

    const CONTEXT: Context = Context { zone: ZoneSetting::Fixed(0), last_at: None, now: Timestamp(0) };

    #[test]
    fn json_and_plain() {
        let json = r#"{"level":"warn","ts":"2026-01-01T10:00:00.123456Z","caller":"wal/wal.go:885","msg":"slow fdatasync","took":"1.2s","expected-duration":"1s","list":[1]}"#;
        let parsed = parse(json, CONTEXT).unwrap();
        assert_eq!(parsed.at.unwrap().to_string(), "2026-01-01T10:00:00.123456Z");
        assert_eq!((parsed.severity, parsed.message.as_str()), (Some(Severity::Warning), "slow fdatasync"));
        let fields: Vec<_> = parsed.fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            fields,
            [("severity_text", "warn"), ("caller", "wal/wal.go:885"), ("took", "1.2s"), ("expected_duration", "1s")]
        );
        let plain = "2026-01-01 10:00:00.123456 W | etcdserver: request took too long (1.2s) to execute";
        let parsed = parse(plain, CONTEXT).unwrap();
        assert_eq!(
            (parsed.severity, parsed.message.as_str()),
            (Some(Severity::Warning), "request took too long (1.2s) to execute")
        );
        for text in ["", "{", "{}", "x", r#"{"level":"warn","msg":"x"}"#] {
            assert_eq!(parse(text, CONTEXT), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,60}") {
            drop(parse(&text, CONTEXT));
            drop(parse(&format!("{{\"ts\":\"2026-01-01T10:00:00Z\",{text}"), CONTEXT));
            drop(parse(&format!("2026-01-01 10:00:00 {text}"), CONTEXT));
        }
    }
}
