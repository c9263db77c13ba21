//! What the metric store costs: CPU per sample and per new series, memory per active series, disk per sample.
//!
//! `cargo bench --bench metrics -- [ingest|memory|disk]...`; all of them without an argument. CPU time and resident memory
//! are this process' own, so they depend little on what else the machine does. Requests are made before they are timed.

use std::path::Path;
use std::time::Duration;

use daraji::model::{Labels, Sample, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::disk::Disk;
use daraji::store::metrics::{EncodedSample, MetricOptions, MetricStore, Point};
use daraji::wire::remote_write;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const START_MS: i64 = 1_700_006_400_000;
const STEP_MS: i64 = 15_000;
const SERIES_PER_REQUEST: usize = 5000;
const SERIES_PER_TARGET: usize = 1000;
const ALLOCATOR_OPTIONS: &str = "_RJEM_MALLOC_CONF";

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Numbers that look random and are the same each time.
fn scramble(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A series as PostgreSQL's exporters have them.
#[derive(Clone)]
struct Model {
    labels: Labels,
    seed: u64,
    value: f64,
}

impl Model {
    fn new(number: usize) -> Self {
        let seed = scramble(number as u64);
        let target = number / SERIES_PER_TARGET;
        let within = number % SERIES_PER_TARGET;
        let labels = Labels::metric(
            &format!("pg_stat_user_tables_metric_{:03}_total", within % 40),
            &[
                ("cluster", &format!("orders-{:03}", target / 3)),
                ("member", &format!("node{}", target % 3 + 1)),
                ("instance", &format!("10.0.{}.{}:9187", target / 250, target % 250)),
                ("job", "postgres"),
                ("datname", ["app", "postgres", "reporting"][within % 3]),
                ("relname", &format!("table_{:03}", within / 40)),
            ],
        );
        Self { labels, seed, value: (seed % 1_000_000) as f64 }
    }

    /// The next value: 42 % never change, 20 % seldom, the others are counters and gauges of all kinds.
    fn step(&mut self, round: usize) -> f64 {
        let random = scramble(self.seed ^ (round as u64).wrapping_mul(0x1234_5679));
        let small = (random >> 8) % 1000;
        match self.seed % 100 {
            0..42 => {}
            42..62 => self.value += if random.is_multiple_of(10) { (small % 20) as f64 } else { 0.0 },
            62..77 => self.value += (small * 40) as f64,
            77..85 => self.value = (self.seed % 200 + small % 30) as f64,
            85..92 => self.value = ((self.value * 1000.0).round() + (small * 3) as f64) / 1000.0,
            92..96 => self.value = (small * 8192) as f64,
            96..98 => self.value += small as f64 / 15.0,
            _ => self.value = small as f64 / 100.0,
        }
        self.value
    }
}

fn models(count: usize) -> Vec<Model> {
    (0..count).map(Model::new).collect()
}

/// The compressed requests of one round of scrapes.
fn requests(models: &mut [Model], round: usize, jitter_ms: u64) -> Outcome<Vec<Vec<u8>>> {
    let at = |number: usize| {
        let target = (number / SERIES_PER_TARGET) as u64;
        let jitter = if jitter_ms == 0 { 0 } else { scramble(target << 20 | round as u64) % jitter_ms };
        Timestamp::from_millis(START_MS + i64::try_from(round).unwrap_or(0) * STEP_MS + jitter.cast_signed())
    };
    let samples: Vec<Sample> = models
        .iter_mut()
        .enumerate()
        .map(|(number, model)| {
            let value = model.step(round);
            Sample::new(model.labels.clone(), at(number), value)
        })
        .collect();
    Ok(samples.chunks(SERIES_PER_REQUEST).map(remote_write::encode).collect::<Result<_, _>>()?)
}

fn put(store: &MetricStore, body: &[u8]) -> Outcome<usize> {
    let plain = remote_write::decompress(body)?;
    let walked = remote_write::walk(&plain)?;
    let samples: Vec<EncodedSample<'_>> = walked
        .samples
        .iter()
        .map(|(labels, at_ms, value)| EncodedSample { labels, point: Point { at_ms: *at_ms, value: *value } })
        .collect();
    Ok(store.append_encoded(&samples, |bytes| remote_write::read_labels(bytes).ok())?.appended)
}

/// User and system time of this process in seconds.
fn cpu() -> Outcome<f64> {
    let stat = procfs::process::Process::myself()?.stat()?;
    Ok((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}

/// Resident memory that is no file's.
fn memory_bytes() -> Outcome<u64> {
    let status = procfs::process::Process::myself()?.status()?;
    Ok(status.rssanon.ok_or("the kernel does not tell RssAnon")? * 1024)
}

fn directory_bytes(dir: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { directory_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

struct Bench {
    dir: tempfile::TempDir,
    clock: Clock,
    store: MetricStore,
}

impl Bench {
    fn new() -> Outcome<Self> {
        let dir = tempfile::Builder::new().prefix("daraji-bench-").tempdir()?;
        let clock = Clock::manual(Timestamp::from_millis(START_MS));
        let (store, _) = MetricStore::open(dir.path(), MetricOptions::default(), &Disk::real(), &clock)?;
        Ok(Self { dir, clock, store })
    }

    fn at_round(&self, round: usize) {
        self.clock.set(Timestamp::from_millis(START_MS + i64::try_from(round).unwrap_or(0) * STEP_MS + 1000));
    }
}

fn say(line: &str) -> Outcome<()> {
    use std::io::Write as _;
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// CPU of taking samples, maintenance included: decompress, walk, append, seal.
fn ingest(series: usize, rounds: usize) -> Outcome<()> {
    let bench = Bench::new()?;
    let mut models = models(series);
    let (mut first, mut later, mut samples) = (0.0, 0.0, 0);
    for round in 0..rounds {
        let bodies = requests(&mut models, round, 0)?;
        bench.at_round(round);
        let before = cpu()?;
        let mut taken = 0;
        for body in &bodies {
            taken += put(&bench.store, body)?;
        }
        if round % 4 == 3 {
            bench.store.maintain(bench.clock.now())?;
        }
        bench.store.sync()?;
        let spent = cpu()? - before;
        if round == 0 {
            first = spent;
        } else {
            later += spent;
            samples += taken;
        }
    }
    let each = later / samples as f64;
    say(&format!(
        "ingest   {series} series x {rounds}: {:.3} CPU-s per million samples; {:.2} CPU-us per new series",
        each * 1e6,
        (first / series as f64 - each) * 1e6,
    ))
}

/// Memory of the head while all series are active.
fn memory(series: usize, rounds: usize) -> Outcome<()> {
    let bench = Bench::new()?;
    let mut models = models(series);
    // One round of requests in memory is the generator's, so it is made before and kept.
    let mut bodies = requests(&mut models, 0, 0)?;
    let before = memory_bytes()?;
    for round in 0..rounds {
        bench.at_round(round);
        for body in &bodies {
            put(&bench.store, body)?;
        }
        if round % 4 == 3 {
            bench.store.maintain(bench.clock.now())?;
        }
        bodies = requests(&mut models, round + 1, 0)?;
    }
    let after = memory_bytes()?;
    let stats = bench.store.stats();
    say(&format!(
        "memory   {series} series x {rounds}: {:.0} bytes resident per series ({:.0} counted in the head)",
        after.saturating_sub(before) as f64 / series as f64,
        stats.head_bytes as f64 / series as f64,
    ))?;
    let started = cpu()?;
    let Bench { dir, clock, store } = bench;
    drop(store);
    let (store, recovery) = MetricStore::open(dir.path(), MetricOptions::default(), &Disk::real(), &clock)?;
    let labels = store.label_values("cluster", &[], i64::MIN, i64::MAX)?.len();
    say(&format!(
        "reopen   {series} series: {:.2} CPU-s to the first answer ({} samples from the write-ahead log, {labels} clusters)",
        cpu()? - started,
        recovery.samples,
    ))
}

/// Disk of a day, everything included, after the day's blocks were merged.
fn disk(series: usize, jitter_ms: u64) -> Outcome<()> {
    let bench = Bench::new()?;
    let mut models = models(series);
    let rounds = usize::try_from(24 * 3_600_000 / STEP_MS)?;
    let mut samples = 0;
    let mut spent = 0.0;
    for round in 0..rounds {
        let bodies = requests(&mut models, round, jitter_ms)?;
        bench.at_round(round);
        let before = cpu()?;
        for body in &bodies {
            samples += put(&bench.store, body)?;
        }
        if round % 4 == 3 {
            bench.store.maintain(bench.clock.now())?;
        }
        spent += cpu()? - before;
    }
    let before = cpu()?;
    bench.clock.advance(Duration::from_hours(30));
    for _ in 0..3 {
        bench.store.maintain(bench.clock.now())?;
    }
    spent += cpu()? - before;
    let bytes = directory_bytes(bench.dir.path())?;
    let stats = bench.store.stats();
    say(&format!(
        "disk     {series} series x {rounds}, jitter {jitter_ms} ms: {:.3} bytes per sample, {} blocks; {:.3} CPU-s per million samples, merging included",
        bytes as f64 / samples as f64,
        stats.blocks,
        spent / samples as f64 * 1e6,
    ))
}

/// Runs the memory part in a process of its own, whose allocator gives back at once what the generator has freed.
fn memory_alone() -> Outcome<()> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    let status = command.arg("memory").env(ALLOCATOR_OPTIONS, "dirty_decay_ms:0,muzzy_decay_ms:0").status()?;
    if status.success() { Ok(()) } else { Err(format!("the memory part ended with {status}").into()) }
}

fn main() -> Outcome<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|other| other == name);
    if is_wanted("ingest") {
        ingest(100_000, 60)?;
    }
    if is_wanted("memory") {
        if std::env::var_os(ALLOCATOR_OPTIONS).is_some() {
            memory(1_000_000, 20)?;
        } else {
            memory_alone()?;
        }
    }
    if is_wanted("disk") {
        for jitter_ms in [0, 20] {
            disk(5000, jitter_ms)?;
        }
    }
    Ok(())
}
