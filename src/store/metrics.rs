//! The embedded time-series store.
//!
//! Guarantees:
//! - Samples whose [`MetricStore::append`] returned survive `kill -9`; after [`MetricStore::sync`] they survive power loss.
//! - Values come back bit-exact; times are milliseconds (rounded towards the past).
//! - A repeated write is harmless: equal samples count as duplicates, one time of a series has one value, the first one.
//! - [`MetricStore::maintain`] may be cut off at any point; what is in a block and still in the write-ahead log appears once.
//! - A full disk refuses appends and keeps serving reads. A damaged block is renamed `*.damaged`, named in the log, and
//!   costs only its own samples.
//!
//! Recent samples live in the [`head`] and in the write-ahead log; a window of two hours becomes a [`block`] file when it
//! has been over for the out-of-order time, and its log is dropped. Late samples of an old window become a further block of that window.

mod block;
mod bytes;
mod chunk;
#[allow(dead_code, reason = "the blocks and the head take it next")]
mod codec;
mod head;
mod postings;
mod select;
mod wal;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tracing::{error, info, warn};

use crate::model::labels::METRIC_NAME;
use crate::model::{Families, Sample, Timestamp};
use crate::platform::clock::Clock;
use crate::platform::disk::Disk;
use crate::platform::error::chain;
use crate::platform::journal::JournalError;
use crate::store::metrics::block::{Block, BlockWriter, EXTENSION};
use crate::store::metrics::head::{Fate, Frozen, Head, WINDOW_MS, window_start};
use crate::store::metrics::select::IndexCache;
use crate::store::metrics::wal::{Frame, Wal};

pub use block::BlockError;
pub use chunk::Point;
pub use select::{Selection, Series};

/// Samples further ahead of our clock than this are refused.
const FUTURE_MAX: Duration = Duration::from_mins(10);
/// A window that is still being written to late is moved to a block at the latest after this.
const LATE_WINDOW_AGE_MAX_MS: i64 = 3600 * 1000;
/// A late window that was not written to for this long is moved to a block.
const LATE_WINDOW_IDLE_MS: i64 = 300 * 1000;

/// Metric families whose metadata is remembered.
const METADATA_FAMILIES_MAX: usize = 50_000;

/// Bounds of the store.
#[derive(Clone, Debug)]
pub struct MetricOptions {
    /// Blocks whose newest sample is older are deleted; older samples are refused.
    pub retention: Duration,
    /// How far behind the newest sample of its series a sample may come.
    pub out_of_order: Duration,
    /// Series in memory; samples of further ones are refused.
    pub max_series: usize,
}

impl Default for MetricOptions {
    fn default() -> Self {
        Self { retention: Duration::from_hours(30 * 24), out_of_order: Duration::from_hours(1), max_series: 2_000_000 }
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
            Self::Cut(BlockError::Write { source, .. }) => source.kind() == io::ErrorKind::StorageFull,
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
    pub wal_bytes: u64,
    pub blocks: usize,
    pub block_bytes: u64,
    pub block_samples: u64,
    /// Blocks set aside since the start.
    pub blocks_damaged: u64,
    /// Times of the first and last sample, if there is any.
    pub min_ms: Option<i64>,
    pub max_ms: Option<i64>,
}

/// What readers see; a window moves from one field to the next under one lock.
#[derive(Debug, Default)]
struct State {
    head: Head,
    frozen: Vec<Arc<Frozen>>,
    /// By file name, oldest window first.
    blocks: Vec<Arc<Block>>,
}

/// The store. Share it in an `Arc`; every method blocks for memory or disk work only.
///
/// Lock order: `maintaining`, `wal`, `state`, `indexes`.
#[derive(Debug)]
pub struct MetricStore {
    dir: PathBuf,
    options: MetricOptions,
    disk: Disk,
    clock: Clock,
    maintaining: Mutex<()>,
    wal: Mutex<Wal>,
    state: RwLock<State>,
    indexes: Mutex<IndexCache>,
    next_block: AtomicU64,
    samples_appended: AtomicU64,
    blocks_damaged: AtomicU64,
    /// What exporters say about metric families; in memory only, since every scrape says it again.
    metadata: RwLock<Families>,
    max_ms: std::sync::atomic::AtomicI64,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl MetricStore {
    /// Opens or creates a store; reads the write-ahead log back into memory.
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
        let mut cut: BTreeMap<i64, u64> = BTreeMap::new();
        for (start_ms, batch) in blocks.iter().flat_map(|block| &block.summary.windows) {
            let mark = cut.entry(*start_ms).or_default();
            *mark = (*mark).max(*batch);
        }
        let batch_min = cut.values().copied().max().unwrap_or(0);
        let mut head = Head::default();
        let now_ms = clock.now().millis();
        let out_of_order_ms = millis(options.out_of_order);
        let mut max_ms = blocks.iter().map(|block| block.summary.max_ms).max().unwrap_or(i64::MIN);
        let (wal, journal, unreadable) = Wal::open(disk, &dir.join("wal"), batch_min, |batch, labels, point| {
            if cut.get(&window_start(point.at_ms)).is_some_and(|mark| batch < *mark) {
                return;
            }
            let Some(id) = head.id_of(labels, options.max_series) else { return };
            if head.append(id, point, out_of_order_ms, now_ms) == Fate::Appended {
                recovery.samples += 1;
                max_ms = max_ms.max(point.at_ms);
            }
        })
        .map_err(MetricError::OpenLog)?;
        recovery.torn_bytes = journal.torn_bytes;
        recovery.unreadable_batches = unreadable;
        recovery.damaged.extend(journal.damaged);
        let store = Self {
            dir: dir.to_owned(),
            options,
            disk: disk.clone(),
            clock: clock.clone(),
            maintaining: Mutex::new(()),
            wal: Mutex::new(wal),
            state: RwLock::new(State { head, frozen: Vec::new(), blocks }),
            indexes: Mutex::new(IndexCache::default()),
            next_block: AtomicU64::new(next_block),
            samples_appended: AtomicU64::new(0),
            blocks_damaged: AtomicU64::new(0),
            metadata: RwLock::default(),
            max_ms: max_ms.into(),
        };
        Ok((store, recovery))
    }

    /// Adds samples. When this returns, they survive `kill -9`; on an error none of them may be taken for stored, and
    /// the whole call can be repeated.
    pub fn append(&self, samples: &[Sample]) -> Result<AppendOutcome, MetricError> {
        let now = self.clock.now();
        let mut outcome = AppendOutcome::default();
        let out_of_order_ms = millis(self.options.out_of_order);
        let mut wal = self.wal.lock();
        wal.rotate_if_large().map_err(MetricError::Append)?;
        let frame = self.plan(samples, now, wal.generation(), &mut outcome);
        if frame.samples.is_empty() {
            return Ok(outcome);
        }
        wal.append(&frame).map_err(MetricError::Append)?;
        let mut state = self.state.write();
        for (id, _) in &frame.declared {
            if let Some(series) = state.head.get_mut(*id) {
                series.declared_in = wal.generation();
            }
        }
        let mut max_ms = i64::MIN;
        for (id, point) in frame.samples {
            match state.head.append(id, point, out_of_order_ms, now.millis()) {
                Fate::Appended => {
                    outcome.appended += 1;
                    max_ms = max_ms.max(point.at_ms);
                }
                Fate::Duplicate => outcome.duplicates += 1,
                Fate::OutOfOrder => outcome.out_of_order += 1,
            }
        }
        self.max_ms.fetch_max(max_ms, Ordering::Relaxed);
        self.samples_appended.fetch_add(outcome.appended as u64, Ordering::Relaxed);
        Ok(outcome)
    }

    /// Finds the series of the samples and leaves out what would be refused.
    fn plan(&self, samples: &[Sample], now: Timestamp, generation: u32, outcome: &mut AppendOutcome) -> Frame {
        let newest_ms = (now + FUTURE_MAX).millis();
        let oldest_ms = (now - self.options.retention).millis();
        let out_of_order_ms = millis(self.options.out_of_order);
        let mut frame = Frame::default();
        let mut declared: rustc_hash::FxHashSet<u32> = rustc_hash::FxHashSet::default();
        let mut state = self.state.write();
        for sample in samples {
            let point = Point { at_ms: sample.at.millis(), value: sample.value };
            if point.at_ms > newest_ms {
                outcome.too_far_in_future += 1;
                continue;
            }
            if point.at_ms < oldest_ms {
                outcome.out_of_order += 1;
                continue;
            }
            let id = state.head.id_of(&sample.labels, self.options.max_series);
            let Some((id, series)) = id.and_then(|id| state.head.get_mut(id).map(|series| (id, series))) else {
                outcome.over_series_limit += 1;
                continue;
            };
            match series.judge(point, out_of_order_ms) {
                Fate::Duplicate => outcome.duplicates += 1,
                Fate::OutOfOrder => outcome.out_of_order += 1,
                Fate::Appended => {
                    if series.declared_in != generation && declared.insert(id) {
                        frame.declared.push((id, series.labels.clone()));
                    }
                    frame.samples.push((id, point));
                }
            }
        }
        frame
    }

    /// Makes what was appended survive power loss. Call once a second.
    pub fn sync(&self) -> Result<(), MetricError> {
        self.wal.lock().sync().map_err(MetricError::Sync)
    }

    /// Whether appends are accepted, as far as it is not for a full disk; if not, a restart is due.
    pub fn is_writable(&self) -> bool {
        !self.wal.lock().is_poisoned()
    }

    /// Moves finished windows to blocks, drops their log, deletes blocks past the retention. Call once a minute.
    pub fn maintain(&self, now: Timestamp) -> Result<(), MetricError> {
        let _only_one = self.maintaining.lock();
        // First, since on a full disk this is what makes room.
        self.delete_old_blocks(now)?;
        self.freeze(now)?;
        let frozen = self.state.read().frozen.clone();
        for window in frozen {
            self.write_block(&window)?;
        }
        let min_ms = self.state.read().head.min_ms().unwrap_or_else(|| window_start(now.millis()));
        self.wal.lock().drop_before(min_ms).map_err(MetricError::ShortenLog)
    }

    /// Moves the windows that are over out of the head.
    fn freeze(&self, now: Timestamp) -> Result<(), MetricError> {
        let now_ms = now.millis();
        let over_before_ms = now_ms.saturating_sub(millis(self.options.out_of_order)).saturating_sub(WINDOW_MS);
        let mut wal = self.wal.lock();
        let mut state = self.state.write();
        let is_due = |start_ms: i64, (first_ms, last_ms): (i64, i64)| {
            let quiet = now_ms.saturating_sub(last_ms) >= LATE_WINDOW_IDLE_MS;
            start_ms <= over_before_ms && (quiet || now_ms.saturating_sub(first_ms) >= LATE_WINDOW_AGE_MAX_MS)
        };
        let due: Vec<i64> = state
            .head
            .windows
            .iter()
            .filter(|(start, times)| is_due(**start, **times))
            .map(|(start, _)| *start)
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        wal.rotate().map_err(MetricError::Append)?;
        for start_ms in due {
            let frozen = state.head.take_window(start_ms, wal.next_batch());
            if !frozen.series.is_empty() {
                state.frozen.push(Arc::new(frozen));
            }
        }
        state.head.forget_idle(now_ms.saturating_sub(millis(self.options.out_of_order)));
        Ok(())
    }

    fn write_block(&self, window: &Arc<Frozen>) -> Result<(), MetricError> {
        let number = self.next_block.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{:013}-{number:08}.{EXTENSION}", window.window_start_ms.max(0)));
        let windows = vec![(window.window_start_ms, window.batch)];
        let mut writer = BlockWriter::create(&self.disk, &path, windows).map_err(MetricError::Cut)?;
        for part in &window.series {
            if part.late.is_empty() {
                writer.add(&part.labels, &part.chunks).map_err(MetricError::Cut)?;
            } else {
                let points = select::merge_head_part(part);
                writer.add(&part.labels, &chunk::encode(&points)).map_err(MetricError::Cut)?;
            }
        }
        let block = writer.finish().map_err(MetricError::Cut)?;
        info!(path = %path.display(), samples = block.summary.samples, bytes = block.bytes, "wrote a block of metrics");
        let mut state = self.state.write();
        state.frozen.retain(|other| !Arc::ptr_eq(other, window));
        state.blocks.push(Arc::new(block));
        state.blocks.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(())
    }

    fn delete_old_blocks(&self, now: Timestamp) -> Result<(), MetricError> {
        let oldest_ms = (now - self.options.retention).millis();
        let old: Vec<Arc<Block>> = {
            let mut state = self.state.write();
            state.blocks.extract_if(.., |block| block.summary.max_ms < oldest_ms).collect()
        };
        for block in old {
            self.indexes.lock().forget(&block.path);
            let removed = self.disk.remove_file(&block.path);
            removed.map_err(|source| MetricError::Delete { path: block.path.clone(), source })?;
        }
        Ok(())
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

    /// Makes everything durable before the process ends.
    pub fn close(&self) -> Result<(), MetricError> {
        self.sync()
    }

    pub fn stats(&self) -> MetricStats {
        let wal_bytes = self.wal.lock().bytes();
        let state = self.state.read();
        let earliest = state.blocks.iter().map(|block| block.summary.min_ms).chain(state.head.min_ms()).min();
        MetricStats {
            series: state.head.series_count(),
            label_pairs: state.head.label_index().values().map(BTreeMap::len).sum(),
            samples_appended: self.samples_appended.load(Ordering::Relaxed),
            head_bytes: state.head.bytes(),
            wal_bytes,
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
        self.top(limit, |(name, values)| {
            let names = values.iter().filter(|_| name.as_ref() == METRIC_NAME);
            names.map(|(value, ids)| (value.to_string(), ids.len())).collect()
        })
    }

    /// The label names with the most values in memory, most first.
    pub fn top_label_names(&self, limit: usize) -> Vec<(String, usize)> {
        self.top(limit, |(name, values)| vec![(name.to_string(), values.len())])
    }

    /// The label pairs with the most series in memory, most first, as `name=value`.
    pub fn top_label_pairs(&self, limit: usize) -> Vec<(String, usize)> {
        self.top(limit, |(name, values)| {
            values.iter().map(|(value, ids)| (format!("{name}={value}"), ids.len())).collect()
        })
    }

    fn top(
        &self,
        limit: usize,
        of: impl Fn((&Arc<str>, &BTreeMap<Arc<str>, Vec<u32>>)) -> Vec<(String, usize)>,
    ) -> Vec<(String, usize)> {
        let state = self.state.read();
        let mut all: Vec<(String, usize)> = state.head.label_index().iter().flat_map(of).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(limit);
        all
    }
}

fn aside_path(path: &Path) -> PathBuf {
    path.with_extension("block.damaged")
}

/// Opens every block of the directory; sets damaged ones aside and removes what a crash left half-written.
fn open_blocks(dir: &Path, disk: &Disk, recovery: &mut MetricRecovery) -> io::Result<(Vec<Arc<Block>>, u64)> {
    let mut blocks = Vec::new();
    let mut next = 0u64;
    for path in disk.list(dir)? {
        let extension = path.extension().and_then(|extension| extension.to_str());
        if let Some(number) = block_number(&path) {
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
    Ok((blocks, next))
}

fn block_number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let (_, rest) = name.split_once('-')?;
    rest.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests;
