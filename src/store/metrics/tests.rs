//! Tests of the store as a whole.

mod faults;
mod upkeep;

use super::*;
use crate::model::Timestamp;
use crate::model::{MatchOp, Matcher};
use proptest::prelude::*;
use std::collections::BTreeMap;

const HOUR_MS: i64 = 3600 * 1000;
const START_MS: i64 = 1_000_000 * HOUR_MS / 2;

struct Fixture {
    dir: tempfile::TempDir,
    disk: Disk,
    clock: Clock,
}

impl Fixture {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            disk: Disk::with_space(1 << 40),
            clock: Clock::manual(Timestamp::from_millis(START_MS)),
        }
    }

    fn open(&self) -> (MetricStore, MetricRecovery) {
        MetricStore::open(self.dir.path(), MetricOptions::default(), &self.disk, &self.clock).unwrap()
    }
}

fn sample(name: &str, at_ms: i64, value: f64) -> Sample {
    Sample::new(Labels::metric(name, &[("job", "j")]), Timestamp::from_millis(at_ms), value)
}

fn all(store: &MetricStore) -> Vec<Series> {
    store.select(&[Matcher::equal("job", "j")], i64::MIN, i64::MAX).unwrap().map(Result::unwrap).collect()
}

#[test]
fn what_was_appended_comes_back_after_reopening() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    let samples: Vec<Sample> = (0..100).map(|i| sample("a", START_MS + i * 100, i as f64 * 0.1)).collect();
    assert_eq!(store.append(&samples).unwrap(), AppendOutcome { appended: 100, ..AppendOutcome::default() });
    assert_eq!(store.append(&samples[90..]).unwrap(), AppendOutcome { duplicates: 10, ..AppendOutcome::default() });
    let before = all(&store);
    drop(store);
    let (store, recovery) = fixture.open();
    assert_eq!(recovery.samples, 100);
    assert_eq!(all(&store), before);
    assert_eq!(store.append(&samples[90..]).unwrap().duplicates, 10);
}

#[test]
fn late_samples_are_taken_within_the_hour_and_conflicts_are_refused() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    let cases = [
        (0, 1.0, (1, 0, 0, 0)),
        (-60_000, 2.0, (1, 0, 0, 0)),
        (-60_000, 2.0, (0, 1, 0, 0)),
        (-60_000, 3.0, (0, 0, 1, 0)),
        (0, 9.0, (0, 0, 1, 0)),
        (-HOUR_MS - 1, 4.0, (0, 0, 1, 0)),
        (11 * 60_000, 5.0, (0, 0, 0, 1)),
    ];
    for (offset_ms, value, expected) in cases {
        let got = store.append(&[sample("a", START_MS + offset_ms, value)]).unwrap();
        let got = (got.appended, got.duplicates, got.out_of_order, got.too_far_in_future);
        assert_eq!(got, expected, "{offset_ms} {value}");
    }
    let points: Vec<(i64, f64)> = all(&store)[0].points.iter().map(|p| (p.at_ms - START_MS, p.value)).collect();
    assert_eq!(points, [(-60_000, 2.0), (0, 1.0)]);
}

/// Six hours of two series, maintained every minute, with a late sample and a reopening in the middle.
#[test]
fn windows_become_blocks_and_nothing_is_lost_or_doubled() {
    let fixture = Fixture::new();
    let (mut store, _) = fixture.open();
    let mut expected = Vec::new();
    for minute in 0..360 {
        let at_ms = START_MS + minute * 60_000;
        fixture.clock.set(Timestamp::from_millis(at_ms));
        let mut batch = vec![sample("a", at_ms, minute as f64), sample("b", at_ms, -(minute as f64))];
        if minute == 200 {
            batch.push(sample("a", at_ms - 1_800_001, 0.5));
            expected.push((at_ms - 1_800_001, 0.5));
        }
        store.append(&batch).unwrap();
        expected.push((at_ms, minute as f64));
        if minute != 250 {
            store.maintain(fixture.clock.now()).unwrap();
        }
        if minute % 100 == 99 {
            drop(store);
            store = fixture.open().0;
        }
    }
    expected.sort_by_key(|(at_ms, _)| *at_ms);
    let stats = store.stats();
    assert!(stats.blocks >= 1, "{stats:?}");
    let series = all(&store);
    assert_eq!(series.len(), 2);
    let points: Vec<(i64, f64)> = series[0].points.iter().map(|p| (p.at_ms, p.value)).collect();
    assert_eq!(points, expected);
    let range = store.select(&[Matcher::equal("__name__", "b")], START_MS, START_MS + 60_000).unwrap();
    assert_eq!(range.map(|series| series.unwrap().points.len()).sum::<usize>(), 2);

    fixture.clock.advance(Duration::from_hours(31 * 24));
    store.maintain(fixture.clock.now()).unwrap();
    store.maintain(fixture.clock.now()).unwrap();
    assert_eq!(store.stats().blocks, 0);
    assert_eq!(all(&store).len(), 0);
}

/// The log is still there when the block stands: its samples must not come back a second time.
#[test]
fn a_crash_between_block_and_log_doubles_nothing() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    store.append(&[sample("a", START_MS, 1.0)]).unwrap();
    fixture.clock.advance(Duration::from_hours(6));
    store.append(&[sample("a", START_MS + 6 * HOUR_MS, 2.0)]).unwrap();
    let wal = fixture.dir.path().join("wal");
    let copies: Vec<(PathBuf, Vec<u8>)> =
        fixture.disk.list(&wal).unwrap().into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    store.maintain(fixture.clock.now()).unwrap();
    assert_eq!(store.stats().blocks, 1);
    drop(store);
    for (path, bytes) in copies {
        std::fs::write(path, bytes).unwrap();
    }
    let (store, recovery) = fixture.open();
    assert_eq!(recovery.samples, 1);
    assert_eq!(all(&store)[0].points.len(), 2);
}

#[test]
fn a_full_disk_refuses_and_a_retry_later_succeeds() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    store.append(&[sample("a", START_MS, 1.0)]).unwrap();
    fixture.disk.set_space(3);
    let error = store.append(&[sample("b", START_MS, 1.0)]).unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    assert_eq!(all(&store).len(), 1);
    fixture.clock.advance(Duration::from_hours(6));
    assert!(store.maintain(fixture.clock.now()).unwrap_err().is_disk_full());
    assert_eq!(all(&store).len(), 1, "a window that could not be written stays readable");
    fixture.disk.set_space(1 << 30);
    store.append(&[sample("b", START_MS, 1.0)]).unwrap();
    store.maintain(fixture.clock.now()).unwrap();
    drop(store);
    assert_eq!(all(&fixture.open().0).len(), 2);
}

#[test]
fn every_damaged_byte_of_a_block_is_noticed_and_set_aside() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    let samples: Vec<Sample> = (0..50).map(|i| sample("a", START_MS + i * 977, (i * i) as f64)).collect();
    store.append(&samples).unwrap();
    fixture.clock.advance(Duration::from_hours(6));
    store.maintain(fixture.clock.now()).unwrap();
    let good = all(&store);
    drop(store);
    let blocks: Vec<PathBuf> = fixture.disk.list(fixture.dir.path()).unwrap();
    let path = blocks.into_iter().find(|path| path.extension().is_some_and(|e| e == EXTENSION)).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for at in MAGIC_LEN..bytes.len() {
        let mut broken = bytes.clone();
        broken[at] ^= 0x10;
        std::fs::write(&path, &broken).unwrap();
        let (store, _) = fixture.open();
        assert_eq!(all(&store), [], "byte {at}");
        assert!(!path.exists());
        std::fs::remove_file(aside_path(&path)).unwrap();
    }
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(all(&fixture.open().0), good);
}

const MAGIC_LEN: usize = 8;

#[test]
fn matchers_and_labels_see_head_and_blocks() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    let with = |member: &str, at_ms| {
        Sample::new(Labels::metric("up", &[("member", member)]), Timestamp::from_millis(at_ms), 1.0)
    };
    store.append(&[with("n1", START_MS), with("n2", START_MS), with("", START_MS)]).unwrap();
    fixture.clock.advance(Duration::from_hours(6));
    store.maintain(fixture.clock.now()).unwrap();
    store.append(&[with("n3", START_MS + 6 * HOUR_MS)]).unwrap();
    let count = |op, value| {
        let matcher = Matcher::new("member", op, value).unwrap();
        store.series(&[Matcher::equal("__name__", "up"), matcher], i64::MIN, i64::MAX).unwrap().len()
    };
    let cases = [
        (MatchOp::Equal, "n1", 1),
        (MatchOp::Equal, "", 1),
        (MatchOp::NotEqual, "n1", 3),
        (MatchOp::NotEqual, "", 3),
        (MatchOp::Regex, "n[12]", 2),
        (MatchOp::Regex, ".*", 4),
        (MatchOp::NotRegex, "n.", 1),
        (MatchOp::Equal, "zz", 0),
    ];
    for (op, value, expected) in cases {
        assert_eq!(count(op, value), expected, "member{}{value:?}", op.symbol());
    }
    let values = |start, end| store.label_values("member", &[], start, end).unwrap().into_iter().collect::<Vec<_>>();
    assert_eq!(values(i64::MIN, i64::MAX), ["n1", "n2", "n3"]);
    let names = store.label_names(&[Matcher::equal("member", "n1")], i64::MIN, i64::MAX).unwrap();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["__name__", "member"]);
}

/// Bits of values keyed by series and time: what a store must return.
type Expected = BTreeMap<(String, i64), u64>;

fn contents(store: &MetricStore) -> Expected {
    let points = |series: Series| {
        let name = series.labels.metric_name().to_owned();
        series.points.into_iter().map(move |point| ((name.clone(), point.at_ms), point.value.to_bits()))
    };
    all(store).into_iter().flat_map(points).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A log cut off anywhere gives back the batches before the cut, whole and in order.
    #[test]
    fn a_cut_log_gives_back_a_prefix(batches in prop::collection::vec(1usize..6, 1..12), cut in 0.0f64..1.0) {
        let fixture = Fixture::new();
        let (store, _) = fixture.open();
        let mut prefixes = vec![Expected::new()];
        for (number, size) in (0i64..).zip(&batches) {
            let at_ms = START_MS + number * 1000;
            let samples: Vec<Sample> = (0..*size).map(|i| sample(&format!("m{i}"), at_ms, at_ms as f64 / 7.0)).collect();
            store.append(&samples).unwrap();
            prefixes.push(contents(&store));
        }
        drop(store);
        let last = fixture.disk.list(&fixture.dir.path().join("wal")).unwrap().pop().unwrap();
        let bytes = std::fs::read(&last).unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small number")]
        let kept = (bytes.len() as f64 * cut) as usize;
        std::fs::write(&last, &bytes[..kept]).unwrap();
        let (store, recovery) = fixture.open();
        prop_assert_eq!(recovery.unreadable_batches, 0);
        prop_assert!(prefixes.contains(&contents(&store)));
    }

    /// Whatever bits and times go in come out of head, log and block.
    #[test]
    fn any_samples_come_back_from_a_block(points in prop::collection::btree_map((0usize..4, 0i64..3_600_000), any::<u64>(), 1..200)) {
        let fixture = Fixture::new();
        let (store, _) = fixture.open();
        let at = |offset_ms: i64| START_MS - 1_800_000 + offset_ms;
        for ((series, offset_ms), bits) in &points {
            fixture.clock.set(Timestamp::from_millis(at(*offset_ms)));
            store.append(&[sample(&format!("m{series}"), at(*offset_ms), f64::from_bits(*bits))]).unwrap();
        }
        let expected: Expected =
            points.iter().map(|((series, offset_ms), bits)| ((format!("m{series}"), at(*offset_ms)), *bits)).collect();
        prop_assert_eq!(contents(&store), expected.clone());
        drop(store);
        let (store, _) = fixture.open();
        prop_assert_eq!(contents(&store), expected.clone());
        fixture.clock.advance(Duration::from_hours(6));
        store.maintain(fixture.clock.now()).unwrap();
        prop_assert_eq!(store.stats().head_bytes, 0);
        prop_assert_eq!(contents(&store), expected.clone());
        drop(store);
        prop_assert_eq!(contents(&fixture.open().0), expected);
    }
}
