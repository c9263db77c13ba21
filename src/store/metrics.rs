//! The embedded time-series store.
//!
//! Guarantees:
//! - Samples whose [`MetricStore::append`] returned survive `kill -9`; after [`MetricStore::sync`] they survive power loss.
//! - Values come back bit-exact; times are milliseconds (rounded towards the past).
//! - A repeated write is harmless: equal samples count as duplicates, one time of a series has one value, the first one.
//! - [`MetricStore::maintain`] may be cut off at any point; nothing is lost by it and nothing appears twice.
//! - A full disk refuses appends and keeps serving reads. A damaged file is renamed `*.damaged`, named in the log, and
//!   costs only its own samples.
//!
//! Recent samples live in the [`head`], by windows of two hours: the latest few minutes in memory and in the write-ahead
//! log, the others in the window's own log. A window that has been over for the out-of-order time becomes a [`block`] file;
//! late samples of an old window become a further block of that window. The blocks of a day that is over become one.

mod block;
mod bytes;
mod codec;
mod compact;
mod head;
mod maintain;
mod postings;
mod select;
mod tombstones;
mod verify;
mod wal;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tracing::{error, warn};

use crate::model::labels::METRIC_NAME;
use crate::model::{Families, Labels, Sample};
use crate::platform::clock::Clock;
use crate::platform::disk::Disk;
use crate::platform::error::chain;
use crate::platform::journal::JournalError;
use crate::store::metrics::block::{Block, EXTENSION};
use crate::store::metrics::head::log::HeadLogError;
use crate::store::metrics::head::registry::{LabelHash, Registry, hash_of, hash_of_encoded};
use crate::store::metrics::head::{Fate, Head, Hint, NoSlot, Place, window_start};
use crate::store::metrics::maintain::Marks;
use crate::store::metrics::select::IndexCache;
use crate::store::metrics::tombstones::{DeletionError, Deletions};
use crate::store::metrics::wal::Wal;

pub use block::BlockError;
pub use select::{Selection, Series};
pub use verify::{VerifyReport, verify};

/// Samples further ahead of our clock than this are refused.
const FUTURE_MAX: Duration = Duration::from_mins(10);
/// Samples that are written and become visible together; larger batches are taken in parts.
const BATCH_SAMPLES_MAX: usize = 10_000;

/// Metric families whose metadata is remembered.
const METADATA_FAMILIES_MAX: usize = 50_000;

/// A value at a time, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub at_ms: i64,
    pub value: f64,
}

/// Equal bits: two NaNs with the same payload are equal, 0 and -0 are not.
impl PartialEq for Point {
    fn eq(&self, other: &Self) -> bool {
        self.at_ms == other.at_ms && self.value.to_bits() == other.value.to_bits()
    }
}

/// A sample whose labels are still in the form in which remote write sends them.
#[derive(Clone, Copy, Debug)]
pub struct EncodedSample<'a> {
    pub labels: &'a [u8],
    pub point: Point,
}

/// Bounds of the store.
#[derive(Clone, Debug)]
pub struct MetricOptions {
    /// Blocks whose newest sample is older are deleted; older samples are refused.
    pub retention: Duration,
    /// How far behind the newest sample of its series a sample may come.
    pub out_of_order: Duration,
    /// The oldest blocks are deleted while the store takes more; nothing else bounds its size.
    pub max_bytes: Option<u64>,
    /// Series in memory; samples of further ones are refused.
    pub max_series: usize,
}

impl Default for MetricOptions {
    fn default() -> Self {
        Self {
            retention: Duration::from_hours(30 * 24),
            out_of_order: Duration::from_hours(1),
            max_bytes: None,
            max_series: 2_000_000,
        }
    }
}

/// What the store cannot do.
#[derive(Debug, thiserror::Error)]
pub enum MetricError {
    #[error("open the metric store in {dir}")]
    Open { dir: PathBuf, source: io::Error },
    #[error("write samples to the metric store")]
    Append(#[source] JournalError),
    #[error("sync the metric store")]
    Sync(#[source] JournalError),
    #[error("open the write-ahead log of the metric store")]
    OpenLog(#[source] JournalError),
    #[error("write samples to the head of the metric store")]
    WriteHead(#[source] HeadLogError),
    #[error("read the head of the metric store")]
    ReadHead(#[source] HeadLogError),
    #[error("delete samples")]
    DeleteSamples(#[source] DeletionError),
    #[error("copy the metric store to {dir}")]
    Snapshot { dir: PathBuf, source: io::Error },
    #[error("move samples to a block")]
    Cut(#[source] BlockError),
    #[error("delete the block {path}")]
    Delete { path: PathBuf, source: io::Error },
    #[error("shorten the write-ahead log of the metric store")]
    ShortenLog(#[source] io::Error),
    #[error("read series")]
    Read(#[source] BlockError),
}

impl MetricError {
    /// Whether the disk is full, which mends itself once there is space.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Append(source) | Self::Sync(source) | Self::OpenLog(source) => source.is_disk_full(),
            Self::Cut(BlockError::Write { source, .. })
            | Self::WriteHead(HeadLogError::Write { source, .. })
            | Self::DeleteSamples(DeletionError::Write { source, .. })
            | Self::Snapshot { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}

/// What opening found.
#[derive(Clone, Debug, Default)]
pub struct MetricRecovery {
    /// Samples that came back from the write-ahead log.
    pub samples: u64,
    pub blocks: usize,
    /// Bytes of an ordinary torn end of the log, cut off.
    pub torn_bytes: u64,
    /// Batches of the log of which some samples could not be read.
    pub unreadable_batches: u64,
    /// Files that keep what could not be read.
    pub damaged: Vec<PathBuf>,
}

/// What became of the samples of one append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendOutcome {
    pub appended: usize,
    /// Equal samples that were there already.
    pub duplicates: usize,
    /// Too old, or another value at the same time.
    pub out_of_order: usize,
    pub too_far_in_future: usize,
    /// Samples of new series beyond [`MetricOptions::max_series`].
    pub over_series_limit: usize,
    /// Samples whose labels could not be read; only of [`MetricStore::append_encoded`].
    pub invalid: usize,
}

/// Sizes of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricStats {
    /// Series in memory.
    pub series: usize,
    pub label_pairs: usize,
    /// Samples appended since the start.
    pub samples_appended: u64,
    pub head_bytes: usize,
    /// Write-ahead log and the logs of the windows in memory.
    pub wal_bytes: u64,
    pub blocks: usize,
    pub block_bytes: u64,
    pub block_samples: u64,
    /// Blocks set aside since the start.
    pub blocks_damaged: u64,
    /// Times of the first sample, at most a window too early, and of the last, if there is any.
    pub min_ms: Option<i64>,
    pub max_ms: Option<i64>,
}

/// What readers see; a window moves from the head to the blocks under one lock.
#[derive(Debug)]
struct State {
    head: Head,
    /// By number: on equal times the first written value wins.
    blocks: Vec<Arc<Block>>,
    deletions: Arc<Deletions>,
}

/// The store. Share it in an `Arc`; every method blocks for memory or disk work only.
///
/// Lock order: `maintaining`, `deleting`, `wal`, `state`, `indexes`.
#[derive(Debug)]
pub struct MetricStore {
    dir: PathBuf,
    options: MetricOptions,
    disk: Disk,
    clock: Clock,
    maintaining: Mutex<Marks>,
    deleting: Mutex<()>,
    wal: Mutex<Wal>,
    state: RwLock<State>,
    indexes: Mutex<IndexCache>,
    next_block: AtomicU64,
    samples_appended: AtomicU64,
    blocks_damaged: AtomicU64,
    /// What exporters say about metric families; in memory only, since every scrape says it again.
    metadata: RwLock<Families>,
    max_ms: AtomicI64,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Bounds of the times that an append takes.
#[derive(Clone, Copy, Debug)]
struct Limits {
    oldest_ms: i64,
    newest_ms: i64,
    out_of_order_ms: i64,
    max_series: usize,
    /// Number of the next batch.
    batch: u64,
}

/// Finds places for the samples of one batch.
struct Planner<'a> {
    head: &'a mut Head,
    limits: Limits,
    /// The window of the sample before: its start and its place in the head.
    window: Option<(i64, usize)>,
    /// The series that likely comes next: they come in the order in which they first came.
    guess: u32,
    places: Vec<Place>,
}

impl Planner<'_> {
    /// Finds where a sample goes, or counts why it goes nowhere.
    fn plan(
        &mut self,
        hash: LabelHash,
        point: Point,
        labels: impl FnOnce() -> Option<Labels>,
        outcome: &mut AppendOutcome,
    ) -> Result<(), HeadLogError> {
        if point.at_ms > self.limits.newest_ms {
            outcome.too_far_in_future += 1;
            return Ok(());
        }
        if point.at_ms < self.limits.oldest_ms {
            outcome.out_of_order += 1;
            return Ok(());
        }
        let start_ms = window_start(point.at_ms);
        let at = match self.window {
            Some((start, at)) if start == start_ms => at,
            _ => self.head.window_for(point.at_ms)?,
        };
        self.window = Some((start_ms, at));
        if let Some(window) = self.head.window_at(at).filter(|window| window.has_much_to_flush()) {
            window.flush()?;
        }
        let (series, slot) = match self.head.slot((at, self.guess), hash, self.limits.max_series, labels) {
            Ok(found) => found,
            Err(why) => {
                match why {
                    NoSlot::TooManySeries => outcome.over_series_limit += 1,
                    NoSlot::Invalid => outcome.invalid += 1,
                }
                return Ok(());
            }
        };
        self.guess = series.wrapping_add(1);
        match self.judge(at, (series, slot), point)? {
            Fate::Duplicate => outcome.duplicates += 1,
            Fate::OutOfOrder => outcome.out_of_order += 1,
            Fate::Appended => {
                let window = self.head.windows().get(at).map_or(0, |window| window.number);
                self.places.push(Place { window, slot, point });
            }
        }
        Ok(())
    }

    fn judge(&mut self, at: usize, (series, slot): (u32, u32), point: Point) -> Result<Fate, HeadLogError> {
        let is_newest_window = self.head.is_newest_window(at);
        let Some(window) = self.head.window_at(at) else { return Ok(Fate::OutOfOrder) };
        if window.is_overfull(slot) {
            window.seal_full(self.limits.batch)?;
        }
        let is_newest = window.is_newest(slot, point.at_ms);
        if is_newest && is_newest_window {
            return Ok(Fate::Appended);
        }
        let fate = window.judge(slot, point)?;
        let newest_ms = self.head.newest_ms(at, series);
        let is_too_late =
            newest_ms.is_some_and(|newest| newest.saturating_sub(point.at_ms) > self.limits.out_of_order_ms);
        Ok(if fate == Fate::Appended && is_too_late { Fate::OutOfOrder } else { fate })
    }
}

impl MetricStore {
    /// Opens or creates a store; reads the logs back into memory.
    pub fn open(
        dir: &Path,
        options: MetricOptions,
        disk: &Disk,
        clock: &Clock,
    ) -> Result<(Self, MetricRecovery), MetricError> {
        let open_error = |source| MetricError::Open { dir: dir.to_owned(), source };
        disk.create_dir_all(dir).map_err(open_error)?;
        let mut recovery = MetricRecovery::default();
        let (blocks, next_block) = open_blocks(dir, disk, &mut recovery).map_err(open_error)?;
        recovery.blocks = blocks.len();
        let in_blocks: BTreeSet<u64> = blocks.iter().flat_map(|block| &block.summary.heads).copied().collect();
        let next_window = in_blocks.last().map_or(1, |last| last + 1);
        let is_in_block = |window: u64| in_blocks.contains(&window);
        let (mut head, found) =
            Head::open(disk, &dir.join("head"), &is_in_block, next_window).map_err(MetricError::ReadHead)?;
        let starts: Vec<(u64, i64)> = head.windows().iter().map(|window| (window.number, window.start_ms)).collect();
        let mut max_ms = blocks.iter().map(|block| block.summary.max_ms).max().unwrap_or(i64::MIN);
        let mut hint: (u64, Hint) = (0, None);
        let batch_min = found.next_batch();
        let (wal, journal, unreadable) = Wal::open(disk, &dir.join("wal"), batch_min, |batch, sample| {
            head.note_window(sample.window);
            if is_in_block(sample.window) {
                return true;
            }
            let Some((_, start_ms)) = starts.iter().find(|(number, _)| *number == sample.window) else { return false };
            let point = Point { at_ms: start_ms + sample.offset_ms, value: sample.value };
            if hint.0 != sample.window {
                hint = (sample.window, None);
            }
            let place = Place { window: sample.window, slot: sample.slot, point };
            let replayed = found.replay(&mut head, batch, (place, &mut hint.1));
            if replayed == Some(true) {
                recovery.samples += 1;
            }
            replayed.is_some()
        })
        .map_err(MetricError::OpenLog)?;
        recovery.torn_bytes = journal.torn_bytes + found.torn_bytes;
        recovery.unreadable_batches = unreadable;
        recovery.damaged.extend(journal.damaged);
        recovery.damaged.extend(found.damaged);
        let (deletions, damaged) = Deletions::load(disk, dir).map_err(MetricError::DeleteSamples)?;
        recovery.damaged.extend(damaged);
        max_ms = max_ms.max(head.max_ms().unwrap_or(i64::MIN));
        head.reopened(wal.next_batch(), clock.now().millis());
        let store = Self {
            dir: dir.to_owned(),
            options,
            disk: disk.clone(),
            clock: clock.clone(),
            maintaining: Mutex::default(),
            deleting: Mutex::new(()),
            wal: Mutex::new(wal),
            state: RwLock::new(State { head, blocks, deletions: Arc::new(deletions) }),
            indexes: Mutex::new(IndexCache::default()),
            next_block: AtomicU64::new(next_block),
            samples_appended: AtomicU64::new(0),
            blocks_damaged: AtomicU64::new(0),
            metadata: RwLock::default(),
            max_ms: AtomicI64::new(max_ms),
        };
        Ok((store, recovery))
    }

    /// Adds samples. When this returns, they survive `kill -9`; on an error none of them may be taken for stored, and
    /// the whole call can be repeated.
    pub fn append(&self, samples: &[Sample]) -> Result<AppendOutcome, MetricError> {
        let mut outcome = AppendOutcome::default();
        let mut scratch = Vec::new();
        for part in samples.chunks(BATCH_SAMPLES_MAX) {
            // Hashed before the locks are taken.
            let hashes: Vec<LabelHash> = part.iter().map(|sample| hash_of(&sample.labels, &mut scratch)).collect();
            self.append_batch(&mut outcome, |planner, outcome| {
                for (sample, hash) in part.iter().zip(&hashes) {
                    let point = Point { at_ms: sample.at.millis(), value: sample.value };
                    planner.plan(*hash, point, || Some(sample.labels.clone()), outcome)?;
                }
                Ok(())
            })?;
        }
        Ok(outcome)
    }

    /// As [`MetricStore::append`], for samples as remote write sends them: labels are only read when they are new, by
    /// `labels`, which answers `None` for what is no set of labels.
    pub fn append_encoded(
        &self,
        samples: &[EncodedSample<'_>],
        mut labels: impl FnMut(&[u8]) -> Option<Labels>,
    ) -> Result<AppendOutcome, MetricError> {
        let mut outcome = AppendOutcome::default();
        for part in samples.chunks(BATCH_SAMPLES_MAX) {
            let mut latest: (&[u8], LabelHash) = (&[], hash_of_encoded(&[]));
            let hashes: Vec<LabelHash> = part
                .iter()
                .map(|sample| {
                    // The samples of one series follow each other and share their bytes.
                    if !std::ptr::eq(latest.0, sample.labels) {
                        latest = (sample.labels, hash_of_encoded(sample.labels));
                    }
                    latest.1
                })
                .collect();
            self.append_batch(&mut outcome, |planner, outcome| {
                for (sample, hash) in part.iter().zip(&hashes) {
                    planner.plan(*hash, sample.point, || labels(sample.labels), outcome)?;
                }
                Ok(())
            })?;
        }
        Ok(outcome)
    }

    /// Adds what `plan` finds places for.
    fn append_batch(
        &self,
        outcome: &mut AppendOutcome,
        plan: impl FnOnce(&mut Planner<'_>, &mut AppendOutcome) -> Result<(), HeadLogError>,
    ) -> Result<(), MetricError> {
        let now = self.clock.now();
        let mut wal = self.wal.lock();
        let limits = Limits {
            oldest_ms: (now - self.options.retention).millis(),
            newest_ms: (now + FUTURE_MAX).millis(),
            out_of_order_ms: millis(self.options.out_of_order),
            max_series: self.options.max_series,
            batch: wal.next_batch(),
        };
        let mut state = self.state.write();
        let mut planner = Planner { head: &mut state.head, limits, window: None, guess: 0, places: Vec::new() };
        plan(&mut planner, outcome).map_err(MetricError::WriteHead)?;
        let places = planner.places;
        if places.is_empty() {
            return Ok(());
        }
        let mut touched: Vec<u64> = places.iter().map(|place| place.window).collect();
        touched.dedup();
        touched.sort_unstable();
        touched.dedup();
        for number in &touched {
            if let Some(window) = state.head.window_mut(*number) {
                window.flush().map_err(MetricError::WriteHead)?;
            }
        }
        let batch = wal.append(&places).map_err(MetricError::Append)?;
        self.apply(&mut state.head, &places, (batch, now.millis()), outcome);
        for number in touched {
            let sealed = state.head.window_mut(number).map(|window| window.seal_full(batch + 1));
            if let Some(Err(error)) = sealed {
                warn!(error = %chain(&error), "samples stay in memory for now");
            }
        }
        Ok(())
    }

    fn apply(&self, head: &mut Head, places: &[Place], (batch, now_ms): (u64, i64), outcome: &mut AppendOutcome) {
        let mut max_ms = i64::MIN;
        let before = outcome.appended;
        for section in places.chunk_by(|a, b| a.window == b.window) {
            let Some(window) = section.first().and_then(|place| head.window_mut(place.window)) else { continue };
            window.note_written(now_ms);
            let mut hint: Hint = None;
            for Place { slot, point, .. } in section {
                // A batch may hold the same time of a series twice.
                let fate = if window.is_newest(*slot, point.at_ms) {
                    Fate::Appended
                } else {
                    window.judge(*slot, *point).unwrap_or(Fate::OutOfOrder)
                };
                match fate {
                    Fate::Appended => {
                        window.push(*slot, *point, batch, &mut hint);
                        outcome.appended += 1;
                        max_ms = max_ms.max(point.at_ms);
                    }
                    Fate::Duplicate => outcome.duplicates += 1,
                    Fate::OutOfOrder => outcome.out_of_order += 1,
                }
            }
        }
        self.max_ms.fetch_max(max_ms, Ordering::Relaxed);
        self.samples_appended.fetch_add((outcome.appended - before) as u64, Ordering::Relaxed);
    }

    /// Makes what was appended survive power loss. Call once a second.
    pub fn sync(&self) -> Result<(), MetricError> {
        self.sync_heads()?;
        let handle = self.wal.lock().sync_handle().map_err(MetricError::Sync)?;
        let Some(Err(source)) = handle.map(|file| file.sync()) else { return Ok(()) };
        Err(MetricError::Sync(self.wal.lock().sync_failed(source)))
    }

    /// Whether appends are accepted, as far as it is not for a full disk; if not, a restart is due.
    pub fn is_writable(&self) -> bool {
        !self.wal.lock().is_poisoned()
    }

    /// Takes a block out of service because it is damaged.
    fn set_aside(&self, block: &Block, why: &BlockError) {
        let mut state = self.state.write();
        let before = state.blocks.len();
        state.blocks.retain(|other| other.path != block.path);
        if state.blocks.len() == before {
            return;
        }
        drop(state);
        self.indexes.lock().forget(&block.path);
        self.blocks_damaged.fetch_add(1, Ordering::Relaxed);
        let aside = aside_path(&block.path);
        error!(error = %chain(why), aside = %aside.display(), "set a damaged block of metrics aside; its samples are missing");
        if let Err(error) = self.disk.rename(&block.path, &aside) {
            warn!(path = %block.path.display(), %error, "cannot rename a damaged block");
        }
    }

    /// Moves everything to the windows' logs before the process ends, so that the next one has nothing to replay.
    pub fn close(&self) -> Result<(), MetricError> {
        let _only_one = self.maintaining.lock();
        self.seal(u64::MAX)
    }

    pub fn stats(&self) -> MetricStats {
        let wal_bytes = self.wal.lock().bytes();
        let state = self.state.read();
        let registries = || state.head.registries();
        let earliest = state.blocks.iter().map(|block| block.summary.min_ms).chain(state.head.min_ms()).min();
        MetricStats {
            series: state.head.series_count(),
            label_pairs: registries().map(Registry::label_pairs).sum(),
            samples_appended: self.samples_appended.load(Ordering::Relaxed),
            head_bytes: state.head.bytes(),
            wal_bytes: wal_bytes + state.head.log_bytes(),
            blocks: state.blocks.len(),
            block_bytes: state.blocks.iter().map(|block| block.bytes).sum(),
            block_samples: state.blocks.iter().map(|block| block.summary.samples).sum(),
            blocks_damaged: self.blocks_damaged.load(Ordering::Relaxed),
            min_ms: earliest,
            max_ms: earliest.map(|_| self.max_ms.load(Ordering::Relaxed)),
        }
    }

    /// Remembers what an exporter says about its metric families; the last word counts.
    pub fn set_metadata(&self, families: &Families) {
        let known = families.iter().all(|(name, family)| self.metadata.read().get(name) == Some(family));
        if known {
            return;
        }
        let mut metadata = self.metadata.write();
        for (name, family) in families {
            if metadata.len() < METADATA_FAMILIES_MAX || metadata.contains_key(name) {
                metadata.insert(name.clone(), family.clone());
            }
        }
    }

    /// What is known about metric families, by name; all, or the named one.
    pub fn metadata(&self, name: Option<&str>) -> Families {
        let metadata = self.metadata.read();
        match name {
            None => metadata.clone(),
            Some(name) => metadata.get_key_value(name).map(|(k, v)| (k.clone(), v.clone())).into_iter().collect(),
        }
    }

    /// The metric names with the most series in memory, most first.
    pub fn top_metric_names(&self, limit: usize) -> Vec<(String, usize)> {
        self.top(limit, |name, values| {
            let names = values.into_iter().filter(|_| name == METRIC_NAME);
            names.map(|(value, count)| (value.to_owned(), count)).collect()
        })
    }

    /// The label names with the most values in memory, most first.
    pub fn top_label_names(&self, limit: usize) -> Vec<(String, usize)> {
        self.top(limit, |name, values| vec![(name.to_owned(), values.len())])
    }

    /// The label pairs with the most series in memory, most first, as `name=value`.
    pub fn top_label_pairs(&self, limit: usize) -> Vec<(String, usize)> {
        self.top(limit, |name, values| {
            values.into_iter().map(|(value, count)| (format!("{name}={value}"), count)).collect()
        })
    }

    fn top(&self, limit: usize, of: impl Fn(&str, Vec<(&str, usize)>) -> Vec<(String, usize)>) -> Vec<(String, usize)> {
        let state = self.state.read();
        let current = state.head.current_registry();
        let mut all: Vec<(String, usize)> =
            current.into_iter().flat_map(Registry::cardinality).flat_map(|(name, values)| of(name, values)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(limit);
        all
    }
}

fn aside_path(path: &Path) -> PathBuf {
    path.with_extension("block.damaged")
}

/// Opens every block of the directory; sets damaged ones aside and removes what a crash left half-written or replaced.
fn open_blocks(dir: &Path, disk: &Disk, recovery: &mut MetricRecovery) -> io::Result<(Vec<Arc<Block>>, u64)> {
    let mut blocks = Vec::new();
    let mut next = 0u64;
    for path in disk.list(dir)? {
        let extension = path.extension().and_then(|extension| extension.to_str());
        if let Some(number) = block::number_of(&path) {
            next = next.max(number + 1);
        }
        if extension == Some("tmp") {
            disk.remove_file(&path)?;
        }
        if extension != Some(EXTENSION) {
            continue;
        }
        match Block::open(disk, &path) {
            Ok(block) => blocks.push(Arc::new(block)),
            Err(why) => {
                let aside = aside_path(&path);
                error!(error = %chain(&why), aside = %aside.display(), "set a damaged block of metrics aside; its samples are missing");
                disk.rename(&path, &aside)?;
                recovery.damaged.push(aside);
            }
        }
    }
    blocks.sort_by_key(|block| block.number);
    let replaced: BTreeSet<u64> = blocks.iter().flat_map(|block| &block.summary.replaces).copied().collect();
    for block in blocks.extract_if(.., |block| replaced.contains(&block.number)) {
        disk.remove_file(&block.path)?;
    }
    Ok((blocks, next))
}

#[cfg(test)]
mod tests;
