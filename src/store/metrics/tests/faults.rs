//! The store on a disk that breaks at every operation in turn: what was acknowledged is there, bit for bit, nothing else is,
//! and the store always opens.

use super::*;
use crate::platform::disk::Breaks;

const ROUNDS: i64 = 34;
const ROUND_MS: i64 = 67 * 60_000;

/// What a workload has put in so far.
#[derive(Clone, Debug, Default)]
struct Ledger {
    /// Acknowledged, in the order of rounds.
    acknowledged: Vec<Expected>,
    /// Rounds that a sync that worked came after.
    synced: usize,
    /// Everything that was tried.
    tried: Expected,
}

/// The samples of a round: counters, a value that needs all its bits, a late one, a series that comes and goes.
fn round(number: i64) -> Vec<Sample> {
    let at_ms = START_MS + number * ROUND_MS;
    let mut batch = vec![
        sample("counter", at_ms, (number * 17) as f64),
        sample("bits", at_ms, f64::from_bits(0x3fe0_0000_0000_0001 + number.cast_unsigned() * 0x1234_5678_9abc)),
        sample("constant", at_ms + 5, -0.0),
    ];
    if number % 3 == 1 {
        batch.push(sample("counter", at_ms - 1_800_000, 0.125));
    }
    if number % 4 < 2 {
        batch.push(sample(&format!("short{}", number / 4), at_ms, f64::NAN));
    }
    batch
}

fn key(sample: &Sample) -> ((String, i64), u64) {
    ((sample.labels.metric_name().to_owned(), sample.at.millis()), sample.value.to_bits())
}

struct Bench {
    dir: tempfile::TempDir,
    clock: Clock,
}

impl Bench {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self { dir: dir.unwrap(), clock: Clock::manual(Timestamp::from_millis(START_MS)) }
    }

    fn try_open(&self, disk: &Disk) -> Result<MetricStore, MetricError> {
        MetricStore::open(self.dir.path(), MetricOptions::default(), disk, &self.clock).map(|(store, _)| store)
    }

    /// Runs the rounds from `from` on, as far as the disk allows.
    fn run(&self, store: &MetricStore, from: i64, ledger: &mut Ledger) {
        for number in from..ROUNDS {
            self.clock.set(Timestamp::from_millis(START_MS + number * ROUND_MS + 60_000));
            let batch = round(number);
            ledger.tried.extend(batch.iter().map(key));
            if store.append(&batch).is_err() {
                return;
            }
            ledger.acknowledged.push(batch.iter().map(key).collect());
            if number % 2 == 0 && store.sync().is_ok() {
                ledger.synced = ledger.acknowledged.len();
            }
            drop(store.maintain(self.clock.now()));
        }
    }

    /// Checks that the store has at least the first `rounds` and nothing that was never tried.
    fn check(store: &MetricStore, ledger: &Ledger, rounds: usize, what: &str) {
        let found = contents(store);
        for (at, bits) in ledger.acknowledged.iter().take(rounds).flatten() {
            assert_eq!(found.get(at), Some(bits), "{what}: {at:?} was acknowledged");
        }
        for (at, bits) in &found {
            assert_eq!(ledger.tried.get(at), Some(bits), "{what}: {at:?} was never written");
        }
    }

    /// Goes on where an interrupted run stopped, on a good disk, until all is there.
    fn finish(&self, ledger: &Ledger, what: &str) {
        let store = self.try_open(&Disk::real()).unwrap_or_else(|error| panic!("{what}: {}", chain(&error)));
        let mut all = ledger.clone();
        all.acknowledged.clear();
        self.run(&store, 0, &mut all);
        self.clock.advance(Duration::from_hours(48));
        for _ in 0..4 {
            store.maintain(self.clock.now()).unwrap();
        }
        let expected: Expected = (0..ROUNDS).flat_map(round).map(|sample| key(&sample)).collect();
        let found = contents(&store);
        for (at, bits) in &found {
            assert_eq!(expected.get(at), Some(bits), "{what}: {at:?}");
        }
        drop(store);
        let report = verify(self.dir.path(), &Disk::real()).unwrap();
        assert_eq!(report.problems, Vec::<String>::new(), "{what}");
        assert_eq!(contents(&self.try_open(&Disk::real()).unwrap()), found, "{what}");
    }
}

/// How many operations the undisturbed workload has.
fn operations() -> u64 {
    let bench = Bench::new();
    let disk = Disk::with_space(1 << 40);
    let store = bench.try_open(&disk).unwrap();
    let mut ledger = Ledger::default();
    bench.run(&store, 0, &mut ledger);
    Bench::check(&store, &ledger, usize::MAX, "no fault");
    assert_eq!(ledger.acknowledged.len(), usize::try_from(ROUNDS).unwrap());
    assert!(store.stats().blocks > 3, "{:?}", store.stats());
    assert!(store.state.read().blocks.iter().any(|block| block.summary.level == 1), "a day was merged");
    drop(store);
    bench.finish(&ledger, "no fault");
    disk.operations()
}

#[test]
fn killed_at_any_operation_it_keeps_what_it_acknowledged() {
    for operation in 0..operations() {
        let bench = Bench::new();
        let disk = Disk::with_space(1 << 40);
        disk.break_at(operation, Breaks::ForGood);
        let mut ledger = Ledger::default();
        let what = format!("killed at operation {operation}");
        if let Ok(store) = bench.try_open(&disk) {
            bench.run(&store, 0, &mut ledger);
            // Readers go on beside the broken disk.
            Bench::check(&store, &ledger, usize::MAX, &what);
        }
        let store = bench.try_open(&Disk::real()).unwrap_or_else(|error| panic!("{what}: {}", chain(&error)));
        Bench::check(&store, &ledger, usize::MAX, &what);
        drop(store);
        bench.finish(&ledger, &what);
    }
}

#[test]
fn power_lost_at_any_operation_it_keeps_what_it_synced() {
    for operation in 0..operations() {
        let bench = Bench::new();
        let disk = Disk::with_space(1 << 40);
        disk.break_at(operation, Breaks::ForGood);
        let mut ledger = Ledger::default();
        let what = format!("power lost at operation {operation}");
        if let Ok(store) = bench.try_open(&disk) {
            bench.run(&store, 0, &mut ledger);
        }
        let path = |name: &str| bench.dir.path().join(name);
        disk.lose_power(&[path(""), path("wal"), path("head")]).unwrap();
        let store = bench.try_open(&Disk::real()).unwrap_or_else(|error| panic!("{what}: {}", chain(&error)));
        Bench::check(&store, &ledger, ledger.synced, &what);
        drop(store);
        bench.finish(&ledger, &what);
    }
}

#[test]
fn one_failure_at_any_operation_loses_nothing() {
    for operation in 0..operations() {
        let bench = Bench::new();
        let disk = Disk::with_space(1 << 40);
        disk.break_at(operation, Breaks::Once);
        let mut ledger = Ledger::default();
        let what = format!("operation {operation} failed");
        while ledger.acknowledged.len() < usize::try_from(ROUNDS).unwrap() {
            let Ok(store) = bench.try_open(&disk) else { continue };
            while ledger.acknowledged.len() < usize::try_from(ROUNDS).unwrap() {
                let from = i64::try_from(ledger.acknowledged.len()).unwrap();
                bench.run(&store, from, &mut ledger);
                if !store.is_writable() {
                    break;
                }
            }
            Bench::check(&store, &ledger, usize::MAX, &what);
        }
        bench.finish(&ledger, &what);
    }
}

#[test]
fn a_disk_with_any_room_keeps_what_it_acknowledged() {
    for space in (0..6000).step_by(97) {
        let bench = Bench::new();
        let disk = Disk::with_space(space);
        let mut ledger = Ledger::default();
        let what = format!("{space} bytes of room");
        if let Ok(store) = bench.try_open(&disk) {
            bench.run(&store, 0, &mut ledger);
            Bench::check(&store, &ledger, usize::MAX, &what);
        }
        bench.finish(&ledger, &what);
    }
}
