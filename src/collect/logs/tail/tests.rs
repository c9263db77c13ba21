use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::*;

/// Files in a directory of their own, followed; time moves only when told.
struct Bed {
    dir: tempfile::TempDir,
    tailer: Tailer,
    now: Timestamp,
    checkpoints: BTreeMap<FileKey, FileCheckpoint>,
}

fn source(source: &str, path: &Path) -> LogSource {
    serde_json::from_value(serde_json::json!({"source": source, "path": path, "timezone": "UTC"})).unwrap()
}

impl Bed {
    fn new(name: &str, pattern: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tailer = Tailer::new(&[source(name, &dir.path().join(pattern))], "c", "m", [].iter()).unwrap();
        Self { dir, tailer, now: Timestamp::from_secs(1_000_000), checkpoints: BTreeMap::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    /// Runs until nothing more comes, with a second between turns.
    fn records(&mut self) -> Vec<LogRecord> {
        let mut records = Vec::new();
        let mut quiet = 0;
        while quiet < 3 {
            let turn = self.tailer.turn(self.now);
            quiet = if turn.records.is_empty() && !turn.has_more { quiet + 1 } else { 0 };
            records.extend(turn.records);
            self.checkpoints.extend(turn.checkpoints.into_iter().map(|checkpoint| (checkpoint.key, checkpoint)));
            self.now = self.now + Duration::from_secs(1);
        }
        records
    }

    fn lines(&mut self) -> Vec<String> {
        self.records().into_iter().map(|record| record.line).collect()
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    /// As after `kill -9`: only the committed checkpoints are left.
    fn restart(&mut self) {
        let sources: Vec<LogSource> = self.tailer.sources.iter().map(|(source, _)| source.clone()).collect();
        self.tailer = Tailer::new(&sources, "c", "m", self.checkpoints.values()).unwrap();
    }
}

/// Lines that make a file distinctive.
fn numbered(range: std::ops::Range<u32>) -> (String, Vec<String>) {
    let lines: Vec<String> =
        range.map(|i| format!("2026-11-23 05:00:00 line {i} with some text to fill it up")).collect();
    (lines.join("\n") + "\n", lines)
}

#[test]
fn rotation_by_rename_loses_nothing_also_while_away() {
    let mut bed = Bed::new("app", "a.log");
    let (text, first) = numbered(0..10);
    bed.append("a.log", text);
    assert_eq!(bed.lines(), first);
    let (text, late) = numbered(10..12);
    fs::rename(bed.path("a.log"), bed.path("a.log.1")).unwrap();
    bed.append("a.log.1", text);
    let (text, next) = numbered(100..103);
    bed.append("a.log", text);
    let mut lines = bed.lines();
    lines.sort();
    assert_eq!(lines, [next, late].concat().into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());

    let (text, unread) = numbered(200..202);
    bed.append("a.log", text);
    fs::rename(bed.path("a.log"), bed.path("a.log.2")).unwrap();
    let (text, fresh) = numbered(300..302);
    bed.append("a.log", text);
    bed.restart();
    let mut lines = bed.lines();
    lines.sort();
    assert_eq!(lines, [unread, fresh].concat());
}

#[test]
fn a_matching_rotated_name_is_not_read_again() {
    let mut bed = Bed::new("app", "a.log*");
    let (text, lines) = numbered(0..10);
    bed.append("a.log", &text);
    assert_eq!(bed.lines(), lines);
    fs::rename(bed.path("a.log"), bed.path("a.log.1")).unwrap();
    assert_eq!(bed.lines(), Vec::<String>::new());
    bed.restart();
    assert_eq!(bed.lines(), Vec::<String>::new());
}

#[test]
fn copytruncate_reads_the_copy_only_beyond_what_was_read() {
    let mut bed = Bed::new("app", "a.log*");
    let (text, lines) = numbered(0..10);
    bed.append("a.log", &text);
    assert_eq!(bed.lines(), lines);
    let (text, late) = numbered(10..12);
    bed.append("a.log", text);
    fs::copy(bed.path("a.log"), bed.path("a.log.1")).unwrap();
    fs::write(bed.path("a.log"), "").unwrap();
    let (text, fresh) = numbered(500..502);
    bed.append("a.log", text);
    let mut lines = bed.lines();
    lines.sort();
    assert_eq!(lines, [late, fresh].concat());
    assert_eq!(bed.tailer.status().iter().map(|file| file.truncations).sum::<u64>(), 1);
}

#[test]
fn replaced_content_of_any_size_is_read_from_its_start() {
    for size in [3, 10, 30] {
        let mut bed = Bed::new("app", "a.log");
        let (text, lines) = numbered(0..10);
        bed.append("a.log", &text);
        assert_eq!(bed.lines(), lines);
        let (text, lines) = numbered(10..10 + size);
        fs::write(bed.path("a.log"), text).unwrap();
        assert_eq!(bed.lines(), lines, "{size}");

        let (text, lines) = numbered(50..50 + size);
        fs::write(bed.path("a.log"), text).unwrap();
        bed.restart();
        assert_eq!(bed.lines(), lines, "{size}, while away");
    }
}

#[test]
fn a_deleted_file_is_drained_and_its_successor_read() {
    let mut bed = Bed::new("app", "a.log");
    bed.append("a.log", "one\n");
    assert_eq!(bed.lines(), ["one"]);
    let mut writer = OpenOptions::new().append(true).open(bed.path("a.log")).unwrap();
    fs::remove_file(bed.path("a.log")).unwrap();
    writer.write_all(b"two\nwithout end").unwrap();
    drop(writer);
    bed.append("a.log", "three\n");
    let mut records = bed.records();
    bed.pass(20);
    records.extend(bed.records());
    let mut lines: Vec<_> = records.iter().map(|record| (record.line.as_str(), record.field("partial"))).collect();
    lines.sort_unstable();
    assert_eq!(lines, [("three", None), ("two", None), ("without end", Some("true"))]);
    assert_eq!(bed.tailer.files.len(), 1, "the deleted file is closed");
}

#[test]
fn half_a_line_waits_for_its_other_half_also_over_a_restart() {
    let mut bed = Bed::new("patroni", "p.log");
    bed.append("p.log", "2026-11-23 05:46:38,252 INFO: promoted self to lea");
    assert_eq!(bed.lines(), Vec::<String>::new());
    bed.restart();
    bed.append("p.log", "der by acquiring session lock\r\n");
    let records = bed.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].line, "2026-11-23 05:46:38,252 INFO: promoted self to leader by acquiring session lock");
    assert_eq!(records[0].field("event"), Some("promote_started"));
    bed.append("p.log", "2026-11-23 05:46:39,252 CRITICAL: last words");
    assert_eq!(bed.lines(), Vec::<String>::new());
    bed.pass(60);
    let records = bed.records();
    assert_eq!(records.iter().map(|record| record.field("partial")).collect::<Vec<_>>(), [Some("true")]);
}

#[test]
fn a_record_that_follows_a_torn_one_in_the_same_line_is_saved() {
    let mut bed = Bed::new("postgresql", "a.csv");
    let record = "2026-11-23 05:47:28.131 UTC,,,42,,6b.7,1,,x,,0,LOG,00000,\"next\",,,,,,,,,\"\"\n";
    bed.append("a.csv", "2026-11-23 05:47:27.000 UTC,,,41,,6b.6,1,,x,,0,PANIC,XX000,\"statement: SEL");
    bed.append("a.csv", record);
    bed.append("a.csv", record);
    let records = bed.records();
    let found: Vec<_> = records.iter().map(|record| (record.line.as_str(), record.field("partial"))).collect();
    assert_eq!(found, [("PANIC:  statement: SEL", Some("true")), ("LOG:  next", None), ("LOG:  next", None)]);
}

#[test]
fn a_time_in_the_future_does_not_reach_the_stores() {
    let mut bed = Bed::new("patroni", "p.log");
    bed.now = Timestamp::parse_rfc3339("2026-11-23T05:00:00Z").unwrap();
    bed.append("p.log", "2026-11-23 05:09:00,000 INFO: soon\n2026-11-23 07:00:00,000 INFO: in another zone\n");
    let records = bed.records();
    let found: Vec<_> = records.iter().map(|record| (record.at.to_string(), record.field("original_time"))).collect();
    assert_eq!(found[0], ("2026-11-23T05:09:00.000Z".to_owned(), None));
    assert_eq!(found[1].1, Some("2026-11-23T07:00:00.000Z"));
    assert!(found[1].0.starts_with("2026-11-23T05:00:0"), "{found:?}");
}

#[test]
fn a_file_that_begins_empty_is_not_taken_for_truncated() {
    let mut bed = Bed::new("app", "a.log");
    bed.append("a.log", "");
    assert_eq!(bed.lines(), Vec::<String>::new());
    bed.append("a.log", "one\n");
    assert_eq!(bed.lines(), ["one"]);
    assert_eq!(bed.tailer.status()[0].truncations, 0);
}

#[test]
fn a_writer_that_goes_on_behind_a_hole_is_read() {
    let mut bed = Bed::new("app", "a.log");
    let mut writer = OpenOptions::new().create(true).write(true).truncate(true).open(bed.path("a.log")).unwrap();
    writer.write_all(b"one\n".repeat(1000).as_slice()).unwrap();
    assert_eq!(bed.lines().len(), 1000);
    // copytruncate, and a writer that does not open for appending.
    OpenOptions::new().write(true).open(bed.path("a.log")).unwrap().set_len(0).unwrap();
    writer.write_all(b"two\n").unwrap();
    assert_eq!(bed.lines(), ["two"]);
    let status = &bed.tailer.status()[0];
    assert_eq!((status.nul_bytes, status.truncations), (4000, 1));
}

#[test]
fn bytes_that_are_not_utf8_are_kept_beside_the_line() {
    let mut bed = Bed::new("app", "a.log");
    bed.append("a.log", b"caf\xe9\nna\xc3\xafve\n");
    let records = bed.records();
    assert_eq!(records.iter().map(|record| record.line.as_str()).collect::<Vec<_>>(), ["caf\u{fffd}", "naïve"]);
    assert_eq!(records.iter().map(|record| record.field("raw")).collect::<Vec<_>>(), [Some("Y2Fm6Q=="), None]);
}

#[test]
fn one_busy_file_does_not_starve_another() {
    let mut bed = Bed::new("app", "*.log");
    let (text, _) = numbered(0..20_000);
    bed.append("busy.log", text);
    bed.append("quiet.log", "here\n");
    let mut turns = 0;
    loop {
        turns += 1;
        let turn = bed.tailer.turn(bed.now);
        assert!(turn.records.len() <= TURN_RECORDS_MAX + FILE_TURN.records + 1);
        if turn.records.iter().any(|record| record.line == "here") {
            break;
        }
        bed.pass(1);
        assert!(turns < 5);
    }
}

#[test]
fn of_one_server_log_in_several_formats_the_best_is_read() {
    let mut bed = Bed::new("postgresql", "*");
    for name in ["postgresql.log", "postgresql.json", "postgresql.csv", "postgresql.csv.gz"] {
        bed.append(name, "x\n");
    }
    bed.records();
    let files: Vec<_> = bed.tailer.status().into_iter().map(|file| (file.path, file.format)).collect();
    assert_eq!(files, [(bed.path("postgresql.csv").display().to_string(), "csvlog".to_owned())]);
}

#[test]
fn a_pattern_that_matches_nothing_is_an_error_with_its_name() {
    let mut bed = Bed::new("app", "nothing-*.log");
    bed.records();
    assert!(bed.tailer.errors()[0].contains("nothing-*.log"), "{:?}", bed.tailer.errors());
}
