//! `kill -9` of a process that appends to the metric store, in a loop: what was acknowledged is there, once.
//!
//! The child is this test binary, run again with an environment variable that names the store's directory.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use daraji::model::{Labels, Matcher, Sample, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::disk::Disk;
use daraji::store::metrics::{MetricOptions, MetricStore, verify};

const CHILD_DIR: &str = "DARAJI_TEST_CRASH_METRICS_DIR";
const START_SECS: i64 = 1_700_000_000;
const SERIES: usize = 20;
const ROUNDS: u64 = 25;

/// Every batch is a minute, so that windows of two hours are cut every 120 batches.
fn batch_time(batch: i64) -> Timestamp {
    Timestamp::from_secs(START_SECS + batch * 60)
}

fn batch(number: i64) -> Vec<Sample> {
    let labels = |i: usize| Labels::metric("crash", &[("i", &i.to_string())]);
    (0..SERIES).map(|i| Sample::new(labels(i), batch_time(number), number as f64)).collect()
}

fn open(dir: &Path, clock: &Clock) -> MetricStore {
    // The clock is far ahead while the store opens; nothing may count as too old for that.
    let options = MetricOptions { retention: Duration::from_hours(10 * 365 * 24), ..MetricOptions::default() };
    let (store, recovery) = MetricStore::open(dir, options, &Disk::real(), clock).unwrap();
    assert!(recovery.damaged.is_empty(), "{recovery:?}");
    assert_eq!(recovery.unreadable_batches, 0, "{recovery:?}");
    store
}

/// Batches that are complete, checked to be in order, once, and with the right values.
fn batches_in(store: &MetricStore) -> i64 {
    let selected = store.select(&[Matcher::equal("__name__", "crash")], i64::MIN, i64::MAX).unwrap();
    let mut counts = Vec::new();
    for series in selected {
        let series = series.unwrap();
        for (number, point) in (0..).zip(&series.points) {
            assert_eq!(point.at_ms, batch_time(number).millis(), "{}", series.labels);
            assert_eq!(point.value.to_bits(), (number as f64).to_bits());
        }
        counts.push(i64::try_from(series.points.len()).unwrap());
    }
    let fewest = counts.iter().copied().min().unwrap_or(0);
    assert!(counts.is_empty() || counts.len() == SERIES, "a batch came back in part: {counts:?}");
    assert!(counts.iter().all(|count| *count == fewest), "a batch came back in part: {counts:?}");
    fewest
}

/// Not a test of its own: what the killed process does. Without the variable it does nothing.
#[test]
fn crash_child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let clock = Clock::manual(batch_time(1_000_000));
    let store = open(Path::new(&dir), &clock);
    let mut out = std::io::stdout().lock();
    for number in batches_in(&store).. {
        clock.set(batch_time(number) + Duration::from_secs(10));
        assert_eq!(store.append(&batch(number)).unwrap().appended, SERIES);
        writeln!(out, "acknowledged {number}").unwrap();
        if number % 7 == 0 {
            store.maintain(clock.now()).unwrap();
        }
    }
}

/// Starts the child, kills it after about so many acknowledgements, returns the last number it acknowledged.
fn run_child_until(dir: &Path, acknowledgements: u64) -> Option<i64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crash_metrics::crash_child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut last = None;
    let mut seen = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        // The test harness prints on the same pipe, and the kill may cut the last line: only whole numbers with a
        // following line break count, which `lines` cannot tell for the very last one.
        let Some(number) = line.unwrap().split("acknowledged ").nth(1).and_then(|text| text.parse::<i64>().ok()) else {
            continue;
        };
        if last.is_none_or(|last| number == last + 1) {
            last = Some(number);
        }
        seen += 1;
        if seen == acknowledgements {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(seen > 0, "the child acknowledged nothing");
    last
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled() {
    let dir = tempfile::Builder::new().prefix("daraji-crash-metrics-").tempdir().unwrap();
    // Any numbers do; these make every kill fall elsewhere.
    let mut state = u64::from(std::process::id());
    for round in 0..ROUNDS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let last = run_child_until(dir.path(), 1 + (state >> 33) % 200).unwrap();
        let clock = Clock::manual(batch_time(last + 1));
        let store = open(dir.path(), &clock);
        let batches = batches_in(&store);
        assert!(batches > last, "round {round}: {last} was acknowledged, {batches} batches are there");
        drop(store);
        let report = verify(dir.path(), &Disk::real()).unwrap();
        assert!(report.problems.is_empty() && report.set_aside.is_empty(), "round {round}: {report:?}");
    }
}
