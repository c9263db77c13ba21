//! Recorded logs of every format, as records: what changes here changes what users see.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daraji::collect::logs::LogSource;
use daraji::collect::logs::tail::Tailer;
use daraji::model::{LogRecord, Timestamp};

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/logs").join(file)
}

/// Follows one file until its last record is out.
fn read(source: &str, path: &Path) -> Vec<LogRecord> {
    let source: LogSource =
        serde_json::from_value(serde_json::json!({"source": source, "path": path, "timezone": "UTC"})).unwrap();
    let mut tailer = Tailer::new(&[source], "demo", "n1", [].iter()).unwrap();
    let mut now = Timestamp::parse_rfc3339("2026-11-24T00:00:00Z").unwrap();
    let mut records = Vec::new();
    for _ in 0..20 {
        records.extend(tailer.turn(now).records);
        now = now + Duration::from_secs(1);
    }
    records
}

fn render(records: &[LogRecord]) -> String {
    let mut text = String::new();
    for record in records {
        let severity = record.stream.get("severity").unwrap_or("");
        writeln!(text, "{} {severity} {}", record.at, record.field("event").unwrap_or("-")).unwrap();
        for line in record.line.lines() {
            writeln!(text, "  | {}", line.chars().take(160).collect::<String>()).unwrap();
        }
        for (name, value) in record.fields.iter().filter(|(name, _)| !matches!(name.as_str(), "event" | "file")) {
            writeln!(text, "  {name}={}", value.chars().take(100).collect::<String>()).unwrap();
        }
    }
    text
}

#[test]
fn records_of_every_format() {
    for (source, file) in [
        ("postgresql", "conflict.csv"),
        ("postgresql", "conflict.log"),
        ("postgresql", "pg12.csv"),
        ("postgresql", "pg13.csv"),
        ("postgresql", "pg18.csv"),
        ("patroni", "restart.patroni.log"),
        ("patroni", "patroni.json.log"),
        ("etcd", "n1.etcd.log"),
        ("haproxy", "haproxy.log"),
        ("pgbouncer", "pgbouncer.log"),
        ("repmgr", "repmgr.log"),
    ] {
        insta::assert_snapshot!(file, render(&read(source, &data(file))));
    }
}

/// PostgreSQL wrote the same messages three times; each format has its own way to say them.
#[test]
fn the_three_formats_of_one_server_agree() {
    let essence = |file: &str| -> Vec<_> {
        let records = read("postgresql", &data(file));
        let field = |record: &LogRecord, name: &str| record.field(name).unwrap_or("").to_owned();
        let key = |record: &LogRecord| {
            let names = ["pid", "user", "database", "sqlstate", "severity_text", "event"];
            (record.at, record.stream.get("severity").unwrap_or("").to_owned(), names.map(|name| field(record, name)))
        };
        records.iter().map(key).collect()
    };
    let csv = essence("conflict.csv");
    assert_eq!(csv.len(), 10);
    assert_eq!(essence("conflict.json"), csv);
    assert_eq!(essence("conflict.log"), csv);
    let lines = |file| read("postgresql", &data(file)).into_iter().map(|record| record.line).collect::<Vec<_>>();
    assert_eq!(lines("conflict.json"), lines("conflict.csv"));
}
