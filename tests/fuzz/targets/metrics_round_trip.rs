//! The value codec through the store: any points come back bit for bit, from memory, from the log and from a block.

#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::Arbitrary;
use daraji::model::{Labels, Sample, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::disk::Disk;
use daraji::store::metrics::{MetricOptions, MetricStore};
use daraji_fuzz::fresh_dir;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Step {
    Short { ms: u8, bits: u64 },
    Long { ms: u16, bits: u64 },
    Same { ms: u8 },
    Small { ms: u16, value: i16 },
    Far { ms: i32, bits: u64 },
}

const START_MS: i64 = 1_700_000_000_000;

fn read(store: &MetricStore) -> Vec<(i64, u64)> {
    let series = store.select(&[], i64::MIN, i64::MAX).expect("readable");
    series
        .flat_map(|series| series.expect("readable").points)
        .map(|point| (point.at_ms, point.value.to_bits()))
        .collect()
}

fuzz_target!(|steps: Vec<Step>| {
    let dir = fresh_dir();
    let clock = Clock::manual(Timestamp::from_millis(START_MS + 24 * 3_600_000));
    let open = || MetricStore::open(dir.path(), MetricOptions::default(), &Disk::real(), &clock).expect("opens").0;
    let store = open();
    let labels = Labels::metric("m", &[]);
    let mut expected = BTreeMap::new();
    let (mut at_ms, mut bits) = (START_MS, 0);
    for step in steps {
        let delta = match step {
            Step::Short { ms, bits: new } => {
                bits = new;
                i64::from(ms)
            }
            Step::Long { ms, bits: new } => {
                bits = new;
                i64::from(ms)
            }
            Step::Same { ms } => i64::from(ms),
            Step::Small { ms, value } => {
                bits = f64::from(value).to_bits();
                i64::from(ms)
            }
            Step::Far { ms, bits: new } => {
                bits = new;
                i64::from(ms) % 4_000_000
            }
        };
        at_ms = (at_ms + delta).clamp(START_MS, START_MS + 20 * 3_600_000);
        let sample = Sample::new(labels.clone(), Timestamp::from_millis(at_ms), f64::from_bits(bits));
        let outcome = store.append(&[sample]).expect("room for a sample");
        if outcome.appended == 1 {
            expected.insert(at_ms, bits);
        }
    }
    let expected: Vec<(i64, u64)> = expected.into_iter().collect();
    assert_eq!(read(&store), expected, "from memory");
    drop(store);
    let store = open();
    assert_eq!(read(&store), expected, "from the log");
    store.maintain(clock.now() + Duration::from_secs(1)).expect("blocks are written");
    assert_eq!(read(&store), expected, "from blocks");
    drop(store);
    assert_eq!(read(&open()), expected, "from blocks, opened again");
});
