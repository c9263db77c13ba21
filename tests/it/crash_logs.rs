//! `kill -9` of a process that appends to the log store, in a loop: what was acknowledged is there, once and in order.
//!
//! The child is this test binary, run again with an environment variable that names the store's directory. It sends as
//! an agent does: after each death the batch that may or may not have been stored is sent again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use daraji::model::{Labels, LogRecord, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::disk::Disk;
use daraji::store::logs::{LogOptions, LogQuery, LogStore, Origin};

const CHILD_DIR: &str = "DARAJI_TEST_CRASH_LOGS_DIR";
const START_SECS: i64 = 1_764_000_000;
const ROUNDS: u64 = 25;
/// Records of one batch go to this many days, so that a seal has several commits to die between.
const DAYS: usize = 3;
const RECORDS: usize = 6;
/// Batches between two seals.
const SEAL_EVERY: u64 = 5;
const NOW: Timestamp = Timestamp::from_secs(START_SECS + 86_400 * 4);

fn origin(batch: u64) -> Origin {
    Origin { agent: "n1".to_owned(), generation: 1, seq: batch }
}

/// Every record names its batch and place; all of one day have the same time, so that only arrival orders them.
fn batch(number: u64) -> Vec<LogRecord> {
    let record = |place: usize| LogRecord {
        at: Timestamp::from_secs(START_SECS + 86_400 * i64::try_from(place % DAYS).unwrap()),
        stream: Labels::from_pairs([("source", "patroni"), ("day", &(place % DAYS).to_string())]),
        line: format!("batch {number} place {place}"),
        fields: vec![("batch".to_owned(), number.to_string())],
    };
    (0..RECORDS).map(record).collect()
}

fn open(dir: &Path) -> LogStore {
    let (store, recovery) = LogStore::open(dir, LogOptions::default(), &Disk::real(), &Clock::manual(NOW)).unwrap();
    assert!(recovery.damaged.is_empty(), "{recovery:?}");
    assert_eq!(recovery.unknown_frames, 0, "{recovery:?}");
    store
}

/// Number of complete batches; fails when any record is missing, doubled, changed or out of order.
fn batches_in(store: &LogStore) -> u64 {
    let mut found = Vec::new();
    let query = LogQuery::new(Vec::new(), Timestamp::MIN, Timestamp::MAX);
    let stats = store.search(&query, &mut |_, record| {
        found.push(record.clone());
        ControlFlow::Continue(())
    });
    assert_eq!(stats.unwrap().damaged, 0);
    assert!(found.len().is_multiple_of(RECORDS), "a batch came back in part: {} records", found.len());
    let batches = (found.len() / RECORDS) as u64;
    let mut expected: Vec<LogRecord> = (0..batches).flat_map(batch).collect();
    // Stable: records of one time keep the order of their arrival.
    expected.sort_by_key(|record| record.at);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "of {batches} batches");
    }
    batches
}

/// Not a test of its own: what the killed process does. Without the variable it does nothing.
#[test]
fn crash_child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let store = open(Path::new(&dir));
    let mut out = std::io::stdout().lock();
    let next = store.high_water("n1", 1).map_or(0, |seq| seq + 1);
    assert_eq!(batches_in(&store), next, "the mark and the records stand in the same frame");
    // What an agent does that did not hear the answer before its own death.
    if let Some(last) = next.checked_sub(1) {
        assert!(store.append(Some(&origin(last)), &batch(last)).unwrap().duplicate_batch);
    }
    for number in next.. {
        assert_eq!(store.append(Some(&origin(number)), &batch(number)).unwrap().stored, RECORDS);
        writeln!(out, "acknowledged {number}").unwrap();
        if number % SEAL_EVERY == 0 {
            store.seal().unwrap();
        }
    }
}

/// Starts the child, kills it some time after so many acknowledgements, returns the last number it acknowledged.
fn run_child_until(dir: &Path, acknowledgements: u64, delay: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crash_logs::crash_child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let mut last = None;
    let mut seen = 0;
    while output.read_line(&mut line).unwrap() > 0 {
        // The kill may cut the last line: a number counts only with its line break.
        let whole = line.strip_suffix('\n').and_then(|line| line.split("acknowledged ").nth(1));
        if let Some(number) = whole.and_then(|text| text.parse::<u64>().ok()) {
            last = Some(number);
            seen += 1;
        }
        line.clear();
        if seen == acknowledgements {
            seen += 1;
            // Not to wait for something, but to die at another place of the seal that follows.
            wait(delay);
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    last.expect("the child acknowledged nothing")
}

/// Blocks for a while by waiting for a message that never comes.
fn wait(delay: Duration) {
    let (_sender, receiver) = std::sync::mpsc::sync_channel::<()>(1);
    assert!(receiver.recv_timeout(delay).is_err());
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled() {
    let dir = tempfile::Builder::new().prefix("daraji-crash-logs-").tempdir().unwrap();
    // Any numbers do; these make every kill fall elsewhere.
    let mut state = u64::from(std::process::id());
    for round in 0..ROUNDS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let delay = Duration::from_micros((state >> 40) % 60_000);
        let last = run_child_until(dir.path(), 1 + (state >> 33) % 12, delay);
        let store = open(dir.path());
        let batches = batches_in(&store);
        assert!(batches > last, "round {round}: {last} was acknowledged, {batches} batches are there");
        assert_eq!(store.high_water("n1", 1), Some(batches - 1), "round {round}");
    }
}
