//! Which program wrote a file, and in which form: from its lines, never from its name.
//!
//! Every line of the head votes for at most one kind; lines that continue a record vote for none. The kind with most
//! votes wins. A file in which no line has a time is no log.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::collect::logs::format::Format;
use crate::collect::logs::parsed::Context;
use crate::collect::logs::prefix::Prefix;
use crate::collect::logs::time::{ZoneSetting, parse_time};
use crate::collect::logs::{catalogue, etcd, haproxy, patroni, postgres_csv, text};
use crate::model::Timestamp;

use super::wrapped;

/// Lines that are looked at.
const LINES_MAX: usize = 400;
/// Of longer lines only the start is looked at.
const LINE_BYTES_MAX: usize = 8 << 10;
/// More control characters than one in so many bytes are no text.
const CONTROL_SHARE: usize = 32;

/// What a file is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// The log of one program.
    Log { source: String, format: Format, prefix: Option<Prefix> },
    /// Lines of many programs, each in an envelope.
    Wrapped(Wrapper),
    /// Why it is none.
    NotALog(String),
}

/// What carries lines of several programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapper {
    /// `journalctl -o json`
    JournalJson,
    /// syslog files, `journalctl` with its usual and ISO times, `dmesg -T`
    Syslog,
}

impl Wrapper {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JournalJson => "journal",
            Self::Syslog => "syslog",
        }
    }
}

/// A kind, and how many of the lines say so.
#[derive(Clone, Debug)]
pub struct Detected {
    pub kind: Kind,
    pub lines: usize,
    pub votes: usize,
}

impl Detected {
    pub(super) fn not_a_log(why: String) -> Self {
        Self { kind: Kind::NotALog(why), lines: 0, votes: 0 }
    }
}

/// What one line can be told to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Csvlog,
    Jsonlog,
    Stderr,
    Patroni,
    Etcd,
    Haproxy,
    Pgbouncer,
    Repmgr,
    PgAutoFailover,
    Consul,
    Zookeeper,
    JournalJson,
    Syslog,
    /// Something with a time.
    Timed,
}

const CLASSES: [Class; 14] = [
    Class::Csvlog,
    Class::Jsonlog,
    Class::Stderr,
    Class::Patroni,
    Class::Etcd,
    Class::Haproxy,
    Class::Pgbouncer,
    Class::Repmgr,
    Class::PgAutoFailover,
    Class::Consul,
    Class::Zookeeper,
    Class::JournalJson,
    Class::Syslog,
    Class::Timed,
];

const CONTEXT: Context = Context { zone: ZoneSetting::Fixed(0), last_at: None, now: Timestamp(0) };

fn pattern(text: &str) -> Option<Regex> {
    Regex::new(text).ok()
}

static PGBOUNCER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    pattern(r"^\S{10} \S{8}(?:\.\d+)?(?: \S+)? \[\d+\] (?:NOISE|DEBUG|LOG|WARNING|ERROR|FATAL) [^:\s]")
});
/// A word in capitals, a colon and two blanks: what stands before every message of PostgreSQL, translated or not.
static SEVERITY: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"(?:^|[\s\]:|>)])\p{Lu}{3,20}[1-5]?:  \S"));
static PATRONI: LazyLock<Option<Regex>> =
    LazyLock::new(|| pattern(r"^\s*-?\s*(?:DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL): ?\S"));
static REPMGR: LazyLock<Option<Regex>> = LazyLock::new(|| {
    pattern(
        r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \[(?:DEBUG|INFO|NOTICE|WARNING|ERROR|ALERT|CRIT|EMERG|DETAIL|HINT)\] ",
    )
});
static PG_AUTO_FAILOVER: LazyLock<Option<Regex>> =
    LazyLock::new(|| pattern(r"^(?:\S{10} )?\d\d:\d\d:\d\d \d+ (?:TRACE|DEBUG|INFO|WARN|ERROR|FATAL)  ?\S"));
static CONSUL: LazyLock<Option<Regex>> = LazyLock::new(|| {
    pattern(
        r"^\s*\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d\S* \[(?:TRACE|DEBUG|INFO|WARN|ERROR|ERR)\] +(?:agent|raft|serf|consul|connect)[.:]",
    )
});
static ZOOKEEPER: LazyLock<Option<Regex>> =
    LazyLock::new(|| pattern(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ \[myid:\d*\] - (?:DEBUG|INFO|WARN|ERROR) "));
static HAPROXY: LazyLock<Option<Regex>> =
    LazyLock::new(|| pattern(r"^\[(?:NOTICE|WARNING|ALERT)\]\s+(?:\d+/\d+ )?\(\d+\) : "));

fn is_match(regex: &LazyLock<Option<Regex>>, line: &str) -> bool {
    regex.as_ref().is_some_and(|regex| regex.is_match(line))
}

/// Looks at the first bytes of a file.
pub fn detect(head: &[u8]) -> Detected {
    let start = head.iter().position(|byte| *byte != 0).unwrap_or(head.len());
    let head = head.get(start..).unwrap_or_default();
    if head.trim_ascii().is_empty() {
        return Detected::not_a_log("is empty".to_owned());
    }
    let is_control = |byte: &&u8| **byte < b' ' && !matches!(**byte, b'\t' | b'\n' | b'\r' | 0x1b);
    if head.iter().filter(is_control).count() > head.len() / CONTROL_SHARE {
        return Detected::not_a_log("is not text".to_owned());
    }
    let mut votes = [0_usize; CLASSES.len()];
    let mut lines = 0;
    for line in whole_lines(head).take(LINES_MAX) {
        lines += 1;
        let line = String::from_utf8_lossy(line.get(..LINE_BYTES_MAX).unwrap_or(line));
        let class = classify(line.trim_end());
        if let Some(count) = class.and_then(|class| votes.get_mut(CLASSES.iter().position(|known| *known == class)?)) {
            *count += 1;
        }
    }
    // Of equals the first, which is the more specific.
    let best = CLASSES.iter().zip(votes).rev().max_by_key(|(_, votes)| *votes);
    let Some((class, count)) = best.filter(|(_, count)| *count > 0) else {
        return Detected::not_a_log("is not a log: no line has a time".to_owned());
    };
    Detected { kind: kind_of(*class, head), lines, votes: count }
}

/// Lines, without the last one if it may go on behind the head.
fn whole_lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = head.iter().rposition(|byte| *byte == b'\n').unwrap_or(head.len());
    head.get(..end).unwrap_or(head).split(|byte| *byte == b'\n')
}

fn kind_of(class: Class, head: &[u8]) -> Kind {
    let log = |source: &str, format| Kind::Log { source: source.to_owned(), format, prefix: None };
    match class {
        Class::Csvlog => log("postgresql", Format::Csvlog),
        Class::Jsonlog => log("postgresql", Format::Jsonlog),
        Class::Stderr => Kind::Log {
            source: "postgresql".to_owned(),
            format: Format::Stderr,
            // The patterns tried are our own, so they compile.
            prefix: Prefix::detect(head).ok(),
        },
        Class::Patroni => log("patroni", Format::Patroni),
        Class::Etcd => log("etcd", Format::Etcd),
        Class::Haproxy => log("haproxy", Format::Haproxy),
        Class::Pgbouncer => log("pgbouncer", Format::Pgbouncer),
        Class::Repmgr => log("repmgr", Format::Text),
        Class::PgAutoFailover => log("pg_auto_failover", Format::Text),
        Class::Consul => log("consul", Format::Text),
        Class::Zookeeper => log("zookeeper", Format::Text),
        Class::JournalJson => Kind::Wrapped(Wrapper::JournalJson),
        Class::Syslog => Kind::Wrapped(Wrapper::Syslog),
        Class::Timed => log("other", Format::Text),
    }
}

fn classify(line: &str) -> Option<Class> {
    if line.starts_with('{') {
        return classify_json(line);
    }
    if postgres_csv::begins_record(line.as_bytes()) {
        return Some(Class::Csvlog);
    }
    if is_match(&REPMGR, line) {
        return Some(Class::Repmgr);
    }
    if is_haproxy(line) {
        return Some(Class::Haproxy);
    }
    if wrapped::syslog(line, ZoneSetting::Fixed(0), Timestamp(0)).is_some() {
        return Some(Class::Syslog);
    }
    for (regex, class) in [
        (&PGBOUNCER, Class::Pgbouncer),
        (&ZOOKEEPER, Class::Zookeeper),
        (&CONSUL, Class::Consul),
        (&SEVERITY, Class::Stderr),
        (&PG_AUTO_FAILOVER, Class::PgAutoFailover),
    ] {
        if is_match(regex, line) {
            return Some(class);
        }
    }
    if let Some(time) = parse_time(line.as_bytes(), ZoneSetting::Fixed(0), None) {
        let rest = line.get(time.length..).unwrap_or("");
        if is_match(&PATRONI, rest) {
            return Some(Class::Patroni);
        }
        if etcd::parse(line, CONTEXT).is_some() {
            return Some(Class::Etcd);
        }
    }
    text::parse(line, CONTEXT).at.map(|_| Class::Timed)
}

/// HAProxy's own lines: sessions with their termination state, and what it says of its servers.
fn is_haproxy(line: &str) -> bool {
    if is_match(&HAPROXY, line) {
        return true;
    }
    let parsed = haproxy::parse(line, CONTEXT);
    parsed.fields.iter().any(|(name, _)| name == "termination_state")
        || parsed.at.is_some() && parsed.message.contains('/') && {
            // Inside of an envelope the program's name tells; here nothing but the message does.
            let after_time = !parsed.line.contains("haproxy");
            after_time && catalogue::for_source("haproxy").find(&parsed.message).is_some()
        }
}

fn classify_json(line: &str) -> Option<Class> {
    let Ok(Value::Object(json)) = serde_json::from_str::<Value>(line) else {
        // Cut off, or of several lines.
        return line
            .starts_with("{\"timestamp\":\"")
            .then_some(Class::Jsonlog)
            .filter(|_| line.contains("error_severity"));
    };
    let has = |names: &[&str]| names.iter().all(|name| json.get(*name).is_some_and(Value::is_string));
    if has(&["__REALTIME_TIMESTAMP"]) {
        Some(Class::JournalJson)
    } else if has(&["timestamp", "error_severity"]) {
        Some(Class::Jsonlog)
    } else if has(&["level", "ts", "msg"]) && etcd::parse(line, CONTEXT).is_some() {
        Some(Class::Etcd)
    } else {
        // Its names can be changed; a level word of Python's must be there.
        let parsed = patroni::parse(line, CONTEXT)?;
        (parsed.at.is_some() && parsed.severity.is_some()).then_some(Class::Patroni)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> String {
        match detect(text.as_bytes()).kind {
            Kind::Log { source, format, .. } => format!("{source} {}", format.as_str()),
            Kind::Wrapped(wrapper) => format!("wrapped {}", wrapper.as_str()),
            Kind::NotALog(why) => why,
        }
    }

    #[test]
    fn every_kind_by_one_line() {
        for (line, expected) in [
            (
                "2026-11-23 05:47:28.131 UTC,,,42,,6b.7,1,,2026-11-23 05:47:28 UTC,,0,LOG,00000,\"a\",,,,,,,,,\"\"",
                "postgresql csvlog",
            ),
            (
                "2026-11-23 05:47:28.131 CET,,,42,,6b.7,1,,2026-11-23 05:47:28 UTC,,0,FEHLER,42P01,\"a\",,,,,,,,,\"\"",
                "postgresql csvlog",
            ),
            (
                r#"{"timestamp":"2026-11-23 05:47:28.131 UTC","pid":1,"error_severity":"LOG","message":"x"}"#,
                "postgresql jsonlog",
            ),
            ("2026-11-23 05:47:28.156 UTC [42] LOG:  hello", "postgresql stderr"),
            (
                "2026-11-23 05:47:28 CET [42]: [1-1] user=,db= FATAL:  the database system is starting up",
                "postgresql stderr",
            ),
            ("2026-11-23 05:47:28.156 UTC [42] FEHLER:  Relation fehlt", "postgresql stderr"),
            ("2026-11-23 05:46:38,252 INFO: no action. I am (n1)", "patroni patroni"),
            ("2026-11-23 05:46:38 ERROR: Error communicating with DCS", "patroni patroni"),
            (r#"{"asctime": "2026-11-23 05:46:38,252", "levelname": "INFO", "message": "x"}"#, "patroni patroni"),
            (r#"{"time": "2026-11-23 05:46:38,252", "level": "INFO", "msg": "x"}"#, "patroni patroni"),
            (
                r#"{"level":"warn","ts":"2026-01-01T10:00:00.123456Z","caller":"wal/wal.go:885","msg":"slow fdatasync"}"#,
                "etcd etcd",
            ),
            ("2026-01-01 10:00:00.123456 W | etcdserver: request took too long", "etcd etcd"),
            (
                "2026-11-23T05:47:10.100000+00:00 10.77.1.100:50000 [23/Nov/2026:05:47:09.987] primary primary/n2 1/0/7 146 SD 5/4/3/2/0 0/0",
                "haproxy haproxy",
            ),
            ("[WARNING]  (19819) : Server primary/n2 is DOWN.", "haproxy haproxy"),
            (
                "2026-11-23T05:47:02.440289+00:00 Server primary/n2 is DOWN, reason: Layer7 wrong status, code: 503. 0 active and 0 backup servers left.",
                "haproxy haproxy",
            ),
            (
                "2026-11-23 05:47:09.987 UTC [19822] LOG S-0x5578f91d2e00: app/me@10.77.1.100:5000 closing because: x",
                "pgbouncer pgbouncer",
            ),
            ("2026-11-23 05:47:09.987 UTC [19822] LOG stats: 1 xacts/s", "pgbouncer pgbouncer"),
            ("[2026-11-23 05:50:11] [WARNING] connection lost", "repmgr text"),
            ("05:54:21 11614 WARN  No encryption", "pg_auto_failover text"),
            ("    2026-11-23T05:46:58.895Z [INFO]  agent.server: cluster leadership acquired", "consul text"),
            ("2026-01-01 10:00:00,123 [myid:1] - INFO  [main:Q@1] - LEADING", "zookeeper text"),
            (r#"{"__REALTIME_TIMESTAMP":"1795412519927000","MESSAGE":"x","_HOSTNAME":"pg1"}"#, "wrapped journal"),
            ("Nov 23 05:47:02 pg1 patroni[812]: 2026-11-23 05:47:02,001 INFO: no action. I am (n1)", "wrapped syslog"),
            ("<132>Nov 23 05:47:02 haproxy[19819]: Server primary/n2 is DOWN", "wrapped syslog"),
            (
                "2026-11-23T05:47:02.440289+00:00 pg1 kernel: [12.3] Out of memory: Killed process 5 (postgres)",
                "wrapped syslog",
            ),
            ("[Mon Nov 23 05:47:02 2026] Out of memory: Killed process 5 (postgres)", "wrapped syslog"),
            ("2026-11-23T05:41:59.932 progress: 5.0 s, 9.0 tps", "other text"),
            ("# TYPE up gauge", "is not a log: no line has a time"),
            (r#"{"fault": "x", "events": []}"#, "is not a log: no line has a time"),
            ("scope: demo", "is not a log: no line has a time"),
            ("", "is empty"),
            ("\0\0\0", "is empty"),
            ("\u{1}\u{2}\u{3}abc", "is not text"),
        ] {
            assert_eq!(name(line), expected, "{line}");
            assert_eq!(name(&format!("{line}\n")), expected, "{line}");
        }
    }

    #[test]
    fn tracebacks_and_dumps_between_the_lines_do_not_matter() {
        let mut text = "  File \"x.py\", line 1\n".repeat(50);
        text.push_str("2026-11-23 05:46:38,252 ERROR: Error communicating with DCS\n");
        text.push_str("pg_controldata:\n  pg_control version number: 1300\n");
        text.push_str("2026-11-23 05:46:38,252 INFO: Lock owner: n1; I am n2\n");
        assert_eq!(name(&text), "patroni patroni");
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,80}") {
            drop(detect(&bytes));
            drop(detect(text.as_bytes()));
            drop(detect(format!("Nov 23 05:47:02 {text}").as_bytes()));
            drop(detect(format!("2026-11-23 05:47:28.131 UTC {text}").as_bytes()));
            drop(detect(format!("{{\"level\":\"{text}").as_bytes()));
        }

        /// A file is what its lines are, wherever the head was cut.
        #[test]
        fn the_end_of_the_head_does_not_matter(cut in 200_usize..900) {
            let line = "2026-11-23 05:46:38,252 INFO: no action. I am (n1), the leader with the lock\n";
            let text = line.repeat(12);
            prop_assert_eq!(name(text.get(..cut).unwrap()), "patroni patroni");
        }
    }
}
