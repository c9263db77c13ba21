//! Lines of many programs in one file: syslog, the journal, `dmesg -T`.
//!
//! The envelope says when, which host and which program; the message inside is what the program wrote, in its own format.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::collect::logs::assemble::{RECORD_BYTES_MAX, RawRecord};
use crate::collect::logs::format::Format;
use crate::collect::logs::time::{ZoneSetting, parse_syslog_time, parse_time};
use crate::model::Timestamp;

use super::detect::Wrapper;

/// Programs whose unfinished records are held at a time.
const PENDING_MAX: usize = 64;

/// What an envelope says, and what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) at: Timestamp,
    pub(super) host: String,
    pub(super) program: String,
    pub(super) pid: String,
    pub(super) message: String,
}

/// A record of one program.
#[derive(Debug)]
pub(super) struct Unwrapped {
    pub(super) line: u64,
    pub(super) at: Timestamp,
    pub(super) host: String,
    pub(super) pid: String,
    pub(super) source: &'static str,
    pub(super) format: Format,
    pub(super) raw: RawRecord,
}

fn pattern(text: &str) -> Option<Regex> {
    Regex::new(text).ok()
}

/// What follows the time: host, program, pid. RFC 5424 has more words between.
static TAG: LazyLock<Option<Regex>> = LazyLock::new(|| {
    pattern(
        r"^ (?:(?P<host>[\w.:-]*[\w.-]) )?(?P<program>[A-Za-z_(][\w./@()-]*)(?:\[(?P<pid>\d+)\])?: (?P<message>(?s).*)$",
    )
});
static TAG_5424: LazyLock<Option<Regex>> = LazyLock::new(|| {
    pattern(r"^ (?P<host>\S+) (?P<program>\S+) (?P<pid>\S+) \S+ (?:-|(?:\[[^\]]*\])+) ?(?P<message>(?s).*)$")
});
static DMESG: LazyLock<Option<Regex>> = LazyLock::new(|| {
    pattern(r"^\[[A-Z][a-z]{2} (?P<head>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) (?P<year>\d{4})\] (?P<message>.*)$")
});
/// PostgreSQL numbers its syslog lines.
static CHUNK: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"^\[\d+-(?P<part>\d+)\] (?P<message>(?s).*)$"));

/// Reads a line of a syslog file. `None` when it has no envelope.
pub(super) fn syslog(line: &str, zone: ZoneSetting, now: Timestamp) -> Option<Entry> {
    if let Some(found) = DMESG.as_ref().filter(|_| line.starts_with('[')).and_then(|regex| regex.captures(line)) {
        let year = found.name("year")?.as_str();
        let middle = parse_time(format!("{year}-07-01 00:00:00").as_bytes(), zone, None)?.at;
        let at = parse_syslog_time(found.name("head")?.as_str().as_bytes(), zone, middle)?.at;
        let message = found.name("message")?.as_str().to_owned();
        return Some(Entry { at, program: "kernel".to_owned(), message, ..Entry::default() });
    }
    let after_priority = match line.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((number, rest)) if number.len() <= 3 && number.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => line,
    };
    let (rest, tag) = match after_priority.strip_prefix("1 ") {
        Some(rest) => (rest, &TAG_5424),
        None => (after_priority, &TAG),
    };
    let bytes = rest.as_bytes();
    let time = match bytes.get(10) {
        Some(b'T') => parse_time(bytes, zone, None),
        _ => parse_syslog_time(bytes, zone, now),
    }?;
    let found = tag.as_ref()?.captures(rest.get(time.length..)?)?;
    let text = |name| found.name(name).map_or("", |value| value.as_str());
    // Others than syslog write ISO times, too; but they name no host.
    if bytes.get(10) == Some(&b'T') && text("host").is_empty() {
        return None;
    }
    let nil_is_empty = |text: &str| if text == "-" { String::new() } else { text.to_owned() };
    Some(Entry {
        at: time.at,
        host: nil_is_empty(text("host")),
        program: text("program").to_owned(),
        pid: nil_is_empty(text("pid")),
        message: text("message").to_owned(),
    })
}

/// Reads a line of `journalctl -o json`.
fn journal_json(line: &str) -> Option<Entry> {
    let json: serde_json::Map<String, Value> = serde_json::from_str(line).ok()?;
    let text = |name: &str| json.get(name).map(value_text).unwrap_or_default();
    let of_sender = text("_SOURCE_REALTIME_TIMESTAMP");
    let micros = if of_sender.is_empty() { text("__REALTIME_TIMESTAMP") } else { of_sender };
    let at = Timestamp::from_nanos(micros.parse::<i64>().ok()?.checked_mul(1000)?);
    let program = [text("SYSLOG_IDENTIFIER"), text("_COMM")].into_iter().find(|name| !name.is_empty());
    let is_kernel = text("_TRANSPORT") == "kernel";
    Some(Entry {
        at,
        host: text("_HOSTNAME"),
        program: if is_kernel { "kernel".to_owned() } else { program.unwrap_or_default() },
        pid: text("_PID"),
        message: text("MESSAGE"),
    })
}

/// A value of the journal: text, bytes as numbers where it is not UTF-8, or the first of several.
fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) if values.iter().all(Value::is_number) => {
            let bytes = values.iter().filter_map(|value| u8::try_from(value.as_u64()?).ok()).collect::<Vec<_>>();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Value::Array(values) => values.first().map(value_text).unwrap_or_default(),
        _ => String::new(),
    }
}

/// Which source a program's lines are, and how they are read.
fn source_of(entry: &Entry) -> (&'static str, Format) {
    let program = entry.program.rsplit('/').next().unwrap_or("");
    // Patroni's unit writes what its PostgreSQL writes to stderr, too.
    let is_postgres = || {
        let words =
            ["LOG:  ", "ERROR:  ", "FATAL:  ", "PANIC:  ", "WARNING:  ", "DETAIL:  ", "HINT:  ", "STATEMENT:  "];
        words.iter().any(|word| entry.message.contains(word))
    };
    match program {
        "patroni" if is_postgres() => ("postgresql", Format::Stderr),
        "patroni" => ("patroni", Format::Patroni),
        "etcd" => ("etcd", Format::Etcd),
        "haproxy" => ("haproxy", Format::Haproxy),
        "pgbouncer" => ("pgbouncer", Format::Pgbouncer),
        "kernel" => ("kernel", Format::Text),
        "systemd" => ("systemd", Format::Text),
        "repmgrd" | "repmgr" => ("repmgr", Format::Text),
        "pg_autoctl" => ("pg_auto_failover", Format::Text),
        "consul" => ("consul", Format::Text),
        name if name.starts_with("postgres") => ("postgresql", Format::Stderr),
        _ => ("system", Format::Text),
    }
}

/// Puts the lines of each program together again.
#[derive(Debug)]
pub(super) struct Unwrapper {
    wrapper: Wrapper,
    zone: ZoneSetting,
    now: Timestamp,
    pending: BTreeMap<(String, &'static str, String), Unwrapped>,
    /// Lines without an envelope, and the first few of them.
    pub(super) bare: u64,
    pub(super) bare_lines: Vec<u64>,
    /// Times of the envelopes carry no zone.
    pub(super) is_zone_less: bool,
}

impl Unwrapper {
    pub(super) fn new(wrapper: Wrapper, zone: ZoneSetting, now: Timestamp) -> Self {
        Self { wrapper, zone, now, pending: BTreeMap::new(), bare: 0, bare_lines: Vec::new(), is_zone_less: false }
    }

    pub(super) fn feed(
        &mut self,
        line: u64,
        raw: &RawRecord,
        visit: &mut dyn FnMut(Unwrapped) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let text = String::from_utf8_lossy(&raw.text);
        let entry = match self.wrapper {
            Wrapper::JournalJson => journal_json(&text),
            Wrapper::Syslog => syslog(&text, self.zone, self.now),
        };
        let Some(mut entry) = entry else {
            self.bare += 1;
            if self.bare_lines.len() < 3 {
                self.bare_lines.push(line);
            }
            return ControlFlow::Continue(());
        };
        if self.wrapper == Wrapper::Syslog && !self.is_zone_less {
            let elsewhere = syslog(&text, ZoneSetting::Fixed(3600), self.now);
            self.is_zone_less = elsewhere.is_some_and(|elsewhere| elsewhere.at != entry.at);
        }
        let (source, format) = source_of(&entry);
        let chunk = CHUNK.as_ref().filter(|_| source == "postgresql").and_then(|regex| {
            let found = regex.captures(&entry.message)?;
            let is_first = found.name("part")?.as_str() == "1";
            Some((is_first, found.name("message")?.as_str().to_owned()))
        });
        let mut continues = false;
        if let Some((is_first, message)) = chunk {
            continues = !is_first;
            entry.message = message.replace("#011", "\t");
        }
        let key = (entry.host.clone(), source, entry.pid.clone());
        if let Some(known) = self.pending.get_mut(&key) {
            continues |= format != Format::Stderr
                && format.continues(&known.raw.text, false, entry.message.as_bytes(), None)
                || entry.message.starts_with('\t');
            if continues && known.raw.text.len() + entry.message.len() < RECORD_BYTES_MAX {
                known.raw.text.push(b'\n');
                known.raw.text.extend_from_slice(entry.message.as_bytes());
                return ControlFlow::Continue(());
            }
        }
        let raw = RawRecord { text: entry.message.into_bytes(), cut: raw.cut.clone(), is_partial: false };
        let next = Unwrapped { line, at: entry.at, host: entry.host, pid: entry.pid, source, format, raw };
        if let Some(done) = self.pending.insert(key, next) {
            visit(done)?;
        }
        if self.pending.len() > PENDING_MAX
            && let Some((_, done)) = self.pending.pop_first()
        {
            visit(done)?;
        }
        ControlFlow::Continue(())
    }

    /// Gives out what is held, in the order of the lines.
    pub(super) fn finish(&mut self, visit: &mut dyn FnMut(Unwrapped) -> ControlFlow<()>) -> ControlFlow<()> {
        let mut rest: Vec<_> = std::mem::take(&mut self.pending).into_values().collect();
        rest.sort_by_key(|record| record.line);
        rest.into_iter().try_for_each(visit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes() {
        let now = Timestamp::parse_rfc3339("2026-11-25T00:00:00Z").unwrap();
        for (line, expected) in [
            (
                "Nov 23 05:47:02 pg1 patroni[812]: hello: x",
                Some(("2026-11-23T05:47:02.000Z", "pg1", "patroni", "812", "hello: x")),
            ),
            (
                "<132>Nov 23 05:47:02 haproxy[19819]: hello",
                Some(("2026-11-23T05:47:02.000Z", "", "haproxy", "19819", "hello")),
            ),
            (
                "Nov  3 05:47:02 pg1 kernel: [12.3] hello",
                Some(("2026-11-03T05:47:02.000Z", "pg1", "kernel", "", "[12.3] hello")),
            ),
            (
                "2026-11-23T05:47:02.440289+01:00 pg1 systemd[1]: Stopping x.",
                Some(("2026-11-23T04:47:02.440289Z", "pg1", "systemd", "1", "Stopping x.")),
            ),
            (
                "2026-11-23T05:47:02+0100 pg1 systemd[1]: x",
                Some(("2026-11-23T04:47:02.000Z", "pg1", "systemd", "1", "x")),
            ),
            (
                "<129>1 2026-11-23T05:47:02.440289Z proxy1 haproxy 19819 - - hello",
                Some(("2026-11-23T05:47:02.440289Z", "proxy1", "haproxy", "19819", "hello")),
            ),
            ("[Mon Nov 23 05:47:02 2026] hello", Some(("2026-11-23T05:47:02.000Z", "", "kernel", "", "hello"))),
            ("2026-11-23 05:46:38,252 INFO: no action", None),
            ("2026-11-23T05:46:58.895Z [INFO]  agent.server: x", None),
            ("-- Boot 0123 --", None),
            ("", None),
        ] {
            let entry = syslog(line, ZoneSetting::Fixed(0), now);
            let found = entry.as_ref().map(|e| (e.at.to_string(), &*e.host, &*e.program, &*e.pid, &*e.message));
            let expected =
                expected.map(|(at, host, program, pid, message)| (at.to_owned(), host, program, pid, message));
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn the_journal() {
        let line = r#"{"__REALTIME_TIMESTAMP":"1795412519927001","_SOURCE_REALTIME_TIMESTAMP":"1795412519927000","_HOSTNAME":"pg1","SYSLOG_IDENTIFIER":"patroni","_PID":"7","MESSAGE":[104,105,255]}"#;
        let entry = journal_json(line).unwrap();
        assert_eq!((entry.at.to_string().as_str(), &*entry.message), ("2026-11-23T05:41:59.927Z", "hi\u{fffd}"));
        assert_eq!(journal_json("{}"), None);
        assert_eq!(journal_json("x"), None);
    }

    #[test]
    fn records_of_several_lines_and_programs() {
        let lines = [
            "Nov 23 05:47:02 pg1 patroni[7]: 2026-11-23 05:47:02,001 ERROR: get_cluster",
            "Nov 23 05:47:02 pg1 postgres[9]: [5-1] 2026-11-23 05:47:02.100 UTC [9] ERROR:  x",
            "Nov 23 05:47:02 pg1 patroni[7]: Traceback (most recent call last):",
            "Nov 23 05:47:02 pg1 postgres[9]: [5-2] #011more",
            "no envelope",
            "Nov 23 05:47:03 pg1 patroni[7]: 2026-11-23 05:47:03,001 INFO: y",
        ];
        let mut unwrapper = Unwrapper::new(Wrapper::Syslog, ZoneSetting::Fixed(0), Timestamp::from_secs(1_795_412_519));
        let mut found = Vec::new();
        let mut visit = |one: Unwrapped| {
            found.push((one.line, one.source, String::from_utf8(one.raw.text).unwrap()));
            ControlFlow::Continue(())
        };
        for (number, line) in (1..).zip(lines) {
            let raw = RawRecord { text: line.as_bytes().to_vec(), ..RawRecord::default() };
            assert!(unwrapper.feed(number, &raw, &mut visit).is_continue());
        }
        assert!(unwrapper.finish(&mut visit).is_continue());
        assert_eq!(
            found,
            [
                (
                    1,
                    "patroni",
                    "2026-11-23 05:47:02,001 ERROR: get_cluster\nTraceback (most recent call last):".to_owned()
                ),
                (2, "postgresql", "2026-11-23 05:47:02.100 UTC [9] ERROR:  x\n\tmore".to_owned()),
                (6, "patroni", "2026-11-23 05:47:03,001 INFO: y".to_owned()),
            ]
        );
        assert_eq!((unwrapper.bare, unwrapper.bare_lines), (1, vec![5]));
    }
}
