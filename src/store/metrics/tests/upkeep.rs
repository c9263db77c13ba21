//! Deleting, copying, bounding and checking the store.

use super::*;
use crate::wire::remote_write;

/// Three days of two series, a sample an hour, with the last hours in the head.
fn filled(fixture: &Fixture) -> MetricStore {
    let (store, _) = fixture.open();
    for hour in 0..72 {
        let at_ms = START_MS + hour * HOUR_MS;
        fixture.clock.set(Timestamp::from_millis(at_ms + 1000));
        store.append(&[sample("a", at_ms, hour as f64), sample("b", at_ms, hour as f64 / 8.0)]).unwrap();
        for _ in 0..3 {
            store.maintain(fixture.clock.now()).unwrap();
        }
    }
    store
}

fn hours(expected: impl IntoIterator<Item = (&'static str, i64)>) -> Expected {
    let value = |name: &str, hour: i64| if name == "a" { hour as f64 } else { hour as f64 / 8.0 };
    expected
        .into_iter()
        .map(|(name, h)| ((name.to_owned(), START_MS + h * HOUR_MS), value(name, h).to_bits()))
        .collect()
}

fn all_hours() -> impl Iterator<Item = (&'static str, i64)> {
    (0..72).flat_map(|hour| [("a", hour), ("b", hour)])
}

#[test]
fn finished_days_are_one_block_each() {
    let fixture = Fixture::new();
    let store = filled(&fixture);
    let count = |level| store.state.read().blocks.iter().filter(|block| block.summary.level == level).count();
    let (windows, days) = (count(0), count(1));
    assert!(days >= 2 && windows < 18, "{days} blocks of days, {windows} of windows");
    assert_eq!(contents(&store), hours(all_hours()));
    let report = verify(fixture.dir.path(), &fixture.disk).unwrap();
    assert_eq!((report.problems.len(), report.blocks), (0, windows + days));
}

#[test]
fn deleted_samples_are_gone_at_once_and_for_good() {
    let fixture = Fixture::new();
    let store = filled(&fixture);
    let matchers = [Matcher::equal("__name__", "a")];
    store.delete(&matchers, START_MS + 5 * HOUR_MS, START_MS + 70 * HOUR_MS).unwrap();
    let expected = hours(all_hours().filter(|(name, hour)| *name == "b" || !(5..=70).contains(hour)));
    assert_eq!(contents(&store), expected, "at once");
    drop(store);
    let (store, _) = fixture.open();
    assert_eq!(contents(&store), expected, "after opening again");
    store.clean_tombstones().unwrap();
    assert_eq!(contents(&store), expected, "after cleaning");
    assert!(!store.state.read().deletions.is_empty(), "the head still has some of them");
    fixture.clock.advance(Duration::from_hours(48));
    for _ in 0..4 {
        store.maintain(fixture.clock.now()).unwrap();
    }
    assert!(store.state.read().deletions.is_empty());
    drop(store);
    assert_eq!(contents(&fixture.open().0), expected, "from rewritten blocks");
}

#[test]
fn what_comes_after_a_deletion_stays() {
    let fixture = Fixture::new();
    let store = filled(&fixture);
    store.delete(&[Matcher::equal("job", "j")], i64::MIN, i64::MAX).unwrap();
    assert_eq!(contents(&store), Expected::new());
    let late = START_MS + 72 * HOUR_MS;
    fixture.clock.set(Timestamp::from_millis(late));
    store.append(&[sample("a", late, 72.0)]).unwrap();
    assert_eq!(contents(&store), hours([("a", 72)]));
}

#[test]
fn a_snapshot_is_a_store_of_its_own() {
    let fixture = Fixture::new();
    let store = filled(&fixture);
    let copy = Fixture { dir: tempfile::tempdir().unwrap(), disk: fixture.disk.clone(), clock: fixture.clock.clone() };
    store.snapshot(copy.dir.path()).unwrap();
    store.append(&[sample("a", START_MS + 71 * HOUR_MS + 500, 1.0)]).unwrap();
    drop(store);
    assert_eq!(verify(copy.dir.path(), &copy.disk).unwrap().problems, Vec::<String>::new());
    assert_eq!(contents(&copy.open().0), hours(all_hours()));
}

#[test]
fn the_oldest_blocks_go_when_the_store_is_too_large() {
    let fixture = Fixture::new();
    let bytes = filled(&fixture).stats().block_bytes;
    let options = MetricOptions { max_bytes: Some(bytes / 2), ..MetricOptions::default() };
    let (store, _) = MetricStore::open(fixture.dir.path(), options, &fixture.disk, &fixture.clock).unwrap();
    store.maintain(fixture.clock.now()).unwrap();
    assert!(store.stats().block_bytes <= bytes / 2);
    let (found, all) = (contents(&store), hours(all_hours()));
    assert!(!found.is_empty());
    assert!(
        all.keys()
            .filter(|(name, _)| name == "a")
            .rev()
            .zip(found.keys().filter(|(name, _)| name == "a").rev())
            .all(|(a, b)| a == b)
    );
}

#[test]
fn samples_past_the_retention_are_not_read() {
    let fixture = Fixture::new();
    let store = filled(&fixture);
    fixture.clock.set(Timestamp::from_millis(START_MS + (30 * 24 + 10) * HOUR_MS));
    assert_eq!(contents(&store), hours(all_hours().filter(|(_, hour)| *hour >= 10)));
}

#[test]
fn vanished_series_leave_memory() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    let at = |window: i64| START_MS + window * 2 * HOUR_MS;
    let fill = |window: i64, names: std::ops::Range<i64>| {
        fixture.clock.set(Timestamp::from_millis(at(window)));
        let samples: Vec<Sample> = names.map(|i| sample(&format!("m{i}"), at(window), 1.0)).collect();
        assert_eq!(store.append(&samples).unwrap().appended, samples.len());
        store.maintain(fixture.clock.now()).unwrap();
    };
    fill(0, 0..12_000);
    fill(1, 12_000..15_000);
    assert_eq!(store.stats().series, 15_000);
    fill(2, 12_000..12_500);
    assert_eq!(store.stats().series, 500, "a new registry");
    fill(4, 12_000..12_500);
    assert_eq!(store.state.read().head.registries().count(), 1, "the old one went with its windows");
    assert_eq!(all(&store).len(), 15_000);
}

#[test]
fn series_beyond_the_limit_are_refused() {
    let fixture = Fixture::new();
    let options = MetricOptions { max_series: 2, ..MetricOptions::default() };
    let (store, _) = MetricStore::open(fixture.dir.path(), options, &fixture.disk, &fixture.clock).unwrap();
    let samples: Vec<Sample> = ["a", "b", "c", "a"].map(|name| sample(name, START_MS, 1.0)).to_vec();
    let expected = AppendOutcome { appended: 2, duplicates: 1, over_series_limit: 1, ..AppendOutcome::default() };
    assert_eq!(store.append(&samples).unwrap(), expected);
}

#[test]
fn encoded_samples_meet_the_same_series() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    store.append(&[sample("a", START_MS, 1.0)]).unwrap();
    let mut canonical = Vec::new();
    remote_write::put_labels(&Labels::metric("a", &[("job", "j")]), &mut canonical);
    // The same labels in another order.
    let (name, job) = canonical.split_at(2 + canonical[1] as usize);
    let reversed = [job, name].concat();
    let point = |offset_ms, value| Point { at_ms: START_MS + offset_ms, value };
    let encoded = [(canonical.as_slice(), 1000, 2.0), (&reversed, 2000, 3.0), (b"\x0a\x7f", 3000, 4.0)]
        .map(|(labels, offset_ms, value)| EncodedSample { labels, point: point(offset_ms, value) });
    let outcome = store.append_encoded(&encoded, |bytes| remote_write::read_labels(bytes).ok()).unwrap();
    assert_eq!(outcome, AppendOutcome { appended: 2, invalid: 1, ..AppendOutcome::default() });
    assert_eq!(store.stats().series, 1);
    assert_eq!(all(&store)[0].points, [point(0, 1.0), point(1000, 2.0), point(2000, 3.0)]);
}

/// Several scrapes of two targets, one of which misses some, all through memory, logs and blocks.
#[test]
fn times_that_differ_between_series_are_kept_apart() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    let mut expected = Expected::new();
    for step in 0i64..400 {
        fixture.clock.set(Timestamp::from_millis(START_MS + step * 15_000));
        let mut batch = Vec::new();
        for series in 0i64..12 {
            let missed = series % 3 == 1 && step % 7 == 3 || series == 5 && step % 2 == 0 || series == 6 && step < 200;
            if !missed {
                let jitter = if series < 6 { 0 } else { (step * 31 + series / 9) % 40 };
                batch.push(sample(
                    &format!("s{series}"),
                    START_MS + step * 15_000 + jitter - 60,
                    (step * series) as f64,
                ));
            }
        }
        expected.extend(batch.iter().map(|s| ((s.labels.metric_name().to_owned(), s.at.millis()), s.value.to_bits())));
        assert_eq!(store.append(&batch).unwrap().appended, batch.len());
        if step % 4 == 3 {
            store.maintain(fixture.clock.now()).unwrap();
        }
    }
    assert_eq!(contents(&store), expected, "from memory and the log");
    drop(store);
    let (store, recovery) = fixture.open();
    assert!(recovery.samples < 12 * 60, "{recovery:?}");
    assert_eq!(contents(&store), expected, "after opening again");
    fixture.clock.advance(Duration::from_hours(6));
    store.maintain(fixture.clock.now()).unwrap();
    assert_eq!(store.stats().head_bytes, 0);
    assert_eq!(contents(&store), expected, "from a block");
}

#[test]
fn after_closing_nothing_is_replayed() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    store.append(&[sample("a", START_MS, 1.0), sample("b", START_MS, 2.0)]).unwrap();
    let before = contents(&store);
    store.close().unwrap();
    drop(store);
    let (store, recovery) = fixture.open();
    assert_eq!(recovery.samples, 0);
    assert_eq!(contents(&store), before);
}

#[test]
fn a_damaged_log_of_a_window_costs_its_own_samples_and_is_named() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    let samples: Vec<Sample> = (0..300).map(|i| sample("a", START_MS + i * 1000, i as f64)).collect();
    for part in samples.chunks(30) {
        store.append(part).unwrap();
    }
    store.close().unwrap();
    let good = contents(&store);
    drop(store);
    let path = fixture.disk.list(&fixture.dir.path().join("head")).unwrap().remove(0);
    let bytes = std::fs::read(&path).unwrap();
    for at in (0..bytes.len()).step_by(7) {
        let mut broken = bytes.clone();
        broken[at] ^= 0x10;
        std::fs::write(&path, &broken).unwrap();
        let (store, recovery) = fixture.open();
        assert!(!recovery.damaged.is_empty() || recovery.torn_bytes > 0, "byte {at}: {recovery:?}");
        for (at_ms, bits) in contents(&store) {
            assert_eq!(good.get(&at_ms), Some(&bits), "byte {at}");
        }
        drop(store);
        for path in fixture.disk.list(&fixture.dir.path().join("head")).unwrap() {
            std::fs::remove_file(path).unwrap();
        }
    }
}
