//! The embedded, indexed log store.
//!
//! Guarantees:
//! - A record whose `append` returned survives `kill -9`; after `sync` it survives power loss. It is searchable at once.
//! - A batch of an origin (agent, generation, seq) is stored exactly once: its high-water mark stands in the same
//!   write-ahead frame as its records, so a batch that is sent again is acknowledged and dropped.
//! - A search returns exactly the records that match, in order of (time, arrival), whether they are still in memory or
//!   sealed into a partition. The index only narrows; every result is verified on the record itself.
//! - A full disk fails the append, changes nothing, and reads go on. After a failed sync nothing is accepted any more.
//! - A damaged partition is renamed aside and named in [`LogRecovery`] or the log; it is never served and never fatal.
//!
//! Shape: write-ahead log → memory table → (seal) one tantivy index per UTC day. Bytes: `logs/FORMAT.md`.
//! Lock order: sealer, writer, marks, state. The locks of marks and state are held for moments only, never during I/O.

mod clean;
mod codec;
mod directory;
mod origins;
mod partition;
mod seal;
mod search;
mod tokens;
mod weight;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tantivy::TantivyError;
use tokio::sync::{Notify, broadcast};

use crate::model::event::{OWN_SOURCE, is_own};
use crate::model::{Labels, LogRecord, Matcher, Timestamp};
use crate::platform::clock::Clock;
use crate::platform::disk::Disk;
use crate::platform::journal::{Journal, JournalError, JournalOptions};

use codec::Frame;
use origins::{EventIds, HighWater};
use partition::{Partitions, day_of};
use seal::Sealer;

pub use search::{Budget, Direction, LogQuery, SearchStats, Visit};
pub use weight::Measure;

/// Records of one frame: the sequence number of a record is its frame's shifted, plus its place.
const SEQ_FRAME_SHIFT: u32 = 20;
const FRAME_RECORDS_MAX: usize = 1 << SEQ_FRAME_SHIFT;
/// Batches that a live reader may fall behind before it is told that it missed some.
const LIVE_BATCHES: usize = 512;

fn frame_of(seq: u64) -> u64 {
    seq >> SEQ_FRAME_SHIFT
}

/// Bounds of the store.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Whole days older than this are dropped; records older than this are not stored.
    pub retention: Duration,
    /// When the partitions are larger, the oldest days go. `None` = no bound.
    pub max_bytes: Option<u64>,
    /// A memory table larger than this is sealed by the next `maintain`.
    pub seal_bytes: usize,
    /// A memory table older than this is sealed by the next `maintain`.
    pub seal_after: Duration,
    /// Appends are refused while the memory tables hold more: sealing does not keep up.
    pub memory_bytes_max: usize,
    /// So much more is taken of our own events, which must not be lost in a storm of other lines.
    pub own_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            retention: Duration::from_hours(14 * 24),
            max_bytes: None,
            seal_bytes: 8 << 20,
            seal_after: Duration::from_mins(10),
            memory_bytes_max: 64 << 20,
            own_bytes: 8 << 20,
        }
    }
}

/// Who sent a batch, and which one it is. Sequence numbers of one generation only rise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub agent: String,
    /// Which spool: a new data directory of the agent is a new generation.
    pub generation: u64,
    pub seq: u64,
}

/// What an append did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    pub stored: usize,
    /// The origin's batch was stored before; nothing was written.
    pub duplicate_batch: bool,
    /// Events that were stored before, by their `event_id`.
    pub duplicate_events: usize,
    /// Records older than the retention, dropped.
    pub too_old: usize,
}

/// Records that became durable and searchable together.
#[derive(Debug)]
pub struct CommittedBatch {
    first_seq: u64,
    pub records: Vec<LogRecord>,
    min: Timestamp,
    max: Timestamp,
    bytes: usize,
}

impl CommittedBatch {
    fn new(frame: u64, records: Vec<LogRecord>) -> Self {
        // Labels are shared; 96 stands for the record's own structure.
        let bytes = records.iter().map(|record| record.text_bytes() + 96).sum();
        let min = records.iter().map(|record| record.at).min().unwrap_or(Timestamp::MAX);
        let max = records.iter().map(|record| record.at).max().unwrap_or(Timestamp::MIN);
        Self { first_seq: frame << SEQ_FRAME_SHIFT, records, min, max, bytes }
    }

    /// Records with their sequence numbers, in order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &LogRecord)> {
        (self.first_seq..).zip(&self.records)
    }
}

/// What the store cannot do.
#[derive(Debug, thiserror::Error)]
pub enum LogStoreError {
    #[error("open the log store in {dir}")]
    Open { dir: PathBuf, source: io::Error },
    #[error("write log records ahead")]
    Journal(#[from] JournalError),
    #[error("read the log partition {partition}")]
    Read { partition: String, source: TantivyError },
    #[error("seal log records into the partition {partition}")]
    Seal { partition: String, source: TantivyError },
    #[error("remove {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("the log store holds {bytes} bytes in memory that could not be sealed yet; send again later")]
    Behind { bytes: usize },
    #[error("a batch of {records} records is larger than the log store takes ({FRAME_RECORDS_MAX}); send smaller ones")]
    TooManyRecords { records: usize },
    #[error("the log store knows too many agents to take one more; give agents stable names")]
    TooManyAgents,
    #[error("the query reads more than {bytes_max} bytes; narrow its time range or its selector")]
    BudgetExceeded { bytes_max: u64 },
    #[error("the query was cancelled")]
    Cancelled,
}

impl LogStoreError {
    /// Whether the batch is larger than the store ever takes.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooManyRecords { .. } | Self::Journal(JournalError::TooLarge { .. }))
    }

    /// Whether the disk is full, which mends itself once there is space.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Journal(error) => error.is_disk_full(),
            Self::Seal { source, .. } => directory::is_disk_full(source),
            _ => false,
        }
    }
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRecovery {
    /// Records that came back from the write-ahead log.
    pub replayed_records: u64,
    /// Bytes of an ordinary torn end of the write-ahead log, cut off.
    pub torn_bytes: u64,
    /// Files and directories set aside because they could not be read.
    pub damaged: Vec<PathBuf>,
    /// Intact frames whose contents this version does not understand, skipped.
    pub unknown_frames: u64,
}

struct Writer {
    journal: Journal,
    next_frame: u64,
    event_ids: EventIds,
}

/// The part of memory that is searched.
#[derive(Clone, Default)]
struct State {
    active: Vec<Arc<CommittedBatch>>,
    active_bytes: usize,
    /// When the oldest batch of `active` came.
    active_since: Option<Timestamp>,
    /// Being sealed: still searched here until the partitions have it.
    frozen: Arc<Vec<Arc<CommittedBatch>>>,
    frozen_bytes: usize,
    partitions: Partitions,
}

struct Inner {
    dir: PathBuf,
    clock: Clock,
    options: LogOptions,
    sealer: Mutex<Sealer>,
    writer: Mutex<Writer>,
    /// Changed only by the writer; read by everybody.
    marks: Mutex<HighWater>,
    state: RwLock<State>,
    live: broadcast::Sender<Arc<CommittedBatch>>,
    /// Told when the memory table is large enough to be sealed.
    seal_wanted: Notify,
}

/// The log store. Clones are handles to the same store.
#[derive(Clone)]
pub struct LogStore(Arc<Inner>);

impl std::fmt::Debug for LogStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStore").field("dir", &self.0.dir).finish_non_exhaustive()
    }
}

impl LogStore {
    /// Opens or creates the store: sets damage aside, replays the write-ahead log.
    pub fn open(
        dir: &Path,
        options: LogOptions,
        disk: &Disk,
        clock: &Clock,
    ) -> Result<(Self, LogRecovery), LogStoreError> {
        let mut recovery = LogRecovery::default();
        let sealer = Sealer::open(disk, &dir.join("days"), &mut recovery)?;
        let mut replay = Replay {
            sealer: &sealer,
            high_water: HighWater::default(),
            batches: Vec::new(),
            next_frame: 0,
            unknown: 0,
        };
        let (journal, found) =
            Journal::open(disk, &dir.join("wal"), JournalOptions::default(), |_, bytes| replay.frame(bytes))?;
        let Replay { high_water, batches, next_frame, unknown, .. } = replay;
        recovery.replayed_records = batches.iter().map(|batch| batch.records.len() as u64).sum();
        recovery.torn_bytes = found.torn_bytes;
        recovery.damaged.extend(found.damaged);
        recovery.unknown_frames = unknown;
        let state = State {
            active_bytes: batches.iter().map(|batch| batch.bytes).sum(),
            active_since: (!batches.is_empty()).then(|| clock.now()),
            active: batches,
            partitions: sealer.views()?,
            ..State::default()
        };
        let next_frame = next_frame.max(sealer.frames_before());
        let writer = Writer { journal, next_frame, event_ids: EventIds::default() };
        let store = Self(Arc::new(Inner {
            dir: dir.to_owned(),
            clock: clock.clone(),
            options,
            sealer: Mutex::new(sealer),
            writer: Mutex::new(writer),
            marks: Mutex::new(high_water),
            state: RwLock::new(state),
            live: broadcast::Sender::new(LIVE_BATCHES),
            seal_wanted: Notify::new(),
        }));
        store.remember_events()?;
        Ok((store, recovery))
    }

    /// Learns the ids of the last hour's events, so that they stay unique over a restart.
    fn remember_events(&self) -> Result<(), LogStoreError> {
        let now = self.0.clock.now();
        let matchers = vec![Matcher::equal("source", OWN_SOURCE)];
        let query = LogQuery::new(matchers, now - origins::EVENT_MEMORY, Timestamp::MAX);
        let mut ids = EventIds::default();
        self.search(&query, &mut |_, record| {
            if let Some(id) = event_id(record) {
                ids.insert(record.at, id, now);
            }
            std::ops::ControlFlow::Continue(())
        })?;
        self.0.writer.lock().event_ids = ids;
        Ok(())
    }

    /// Stores records: durable against the death of the process and searchable when this returns.
    pub fn append(&self, origin: Option<&Origin>, records: &[LogRecord]) -> Result<Appended, LogStoreError> {
        if records.len() >= FRAME_RECORDS_MAX {
            return Err(LogStoreError::TooManyRecords { records: records.len() });
        }
        let now = self.0.clock.now();
        let oldest = now - self.0.options.retention;
        let mut appended = Appended::default();
        let mut kept: Vec<LogRecord> = Vec::with_capacity(records.len());
        for record in records {
            match clean::clean(record, oldest, now) {
                Some(record) => kept.push(record),
                None => appended.too_old += 1,
            }
        }

        let mut writer = self.0.writer.lock();
        if let Some(origin) = origin {
            let marks = self.0.marks.lock();
            if marks.covers(origin) {
                return Ok(Appended { duplicate_batch: true, ..Appended::default() });
            }
            if !marks.has_room_for(&origin.agent) {
                return Err(LogStoreError::TooManyAgents);
            }
        }
        let before = kept.len();
        let mut ids_here = BTreeSet::new();
        kept.retain(|record| match event_id(record) {
            Some(id) => !writer.event_ids.contains(id) && ids_here.insert(id.to_owned()),
            None => true,
        });
        appended.duplicate_events = before - kept.len();
        appended.stored = kept.len();
        if kept.is_empty() && origin.is_none() {
            return Ok(appended);
        }
        self.check_memory(&kept)?;
        let frame = writer.next_frame;
        writer.journal.append(&codec::encode_batch(frame, origin, &kept))?;
        writer.next_frame = frame + 1;
        if let Some(origin) = origin {
            self.0.marks.lock().raise(origin);
        }
        for record in &kept {
            if let Some(id) = event_id(record) {
                writer.event_ids.insert(record.at, id, now);
            }
        }
        if !kept.is_empty() {
            self.publish(CommittedBatch::new(frame, kept), now);
        }
        Ok(appended)
    }

    fn check_memory(&self, records: &[LogRecord]) -> Result<(), LogStoreError> {
        let is_ours = records.iter().all(|record| is_own(&record.stream));
        let reserve = if is_ours { self.0.options.own_bytes } else { 0 };
        let bytes = self.memory_bytes();
        if bytes > self.0.options.memory_bytes_max + reserve { Err(LogStoreError::Behind { bytes }) } else { Ok(()) }
    }

    /// Called with the writer locked, so that live readers get batches in the order of their sequence numbers.
    fn publish(&self, batch: CommittedBatch, now: Timestamp) {
        let batch = Arc::new(batch);
        {
            let mut state = self.0.state.write();
            state.active_bytes += batch.bytes;
            state.active_since.get_or_insert(now);
            state.active.push(Arc::clone(&batch));
            if state.active_bytes >= self.0.options.seal_bytes {
                self.0.seal_wanted.notify_one();
            }
        }
        // An error only means that nobody listens.
        drop(self.0.live.send(batch));
    }

    /// The last batch stored of an agent's generation.
    pub fn high_water(&self, agent: &str, generation: u64) -> Option<u64> {
        self.0.marks.lock().get(agent, generation)
    }

    /// Makes everything appended so far survive power loss.
    pub fn sync(&self) -> Result<(), LogStoreError> {
        // A disk may take seconds for this; appends go on meanwhile.
        let handle = self.0.writer.lock().journal.sync_handle()?;
        let synced = handle.map_or(Ok(()), |file| file.sync());
        synced.map_err(|source| self.0.writer.lock().journal.sync_failed(source).into())
    }

    /// Whether appends are accepted, as far as it is not for a full disk or a moment's hurry; if not, a restart is due.
    pub fn is_writable(&self) -> bool {
        !self.0.writer.lock().journal.is_poisoned()
    }

    /// Completes when the memory table has grown so large that [`LogStore::seal_due`] should be called now.
    pub async fn seal_wanted(&self) {
        self.0.seal_wanted.notified().await;
    }

    /// Batches as they are committed. A reader that falls behind gets `RecvError::Lagged` and can catch up by a search:
    /// subscribe first, then search, then drop what the search returned already (by sequence number).
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<CommittedBatch>> {
        self.0.live.subscribe()
    }

    /// Label sets of streams that match and may have records in `[start, end)`, sorted.
    pub fn streams(&self, matchers: &[Matcher], start: Timestamp, end: Timestamp) -> Vec<Labels> {
        let state = self.0.state.read().clone();
        let mut found = BTreeSet::new();
        let mut seen = rustc_hash::FxHashSet::default();
        let memory = state.active.iter().chain(state.frozen.iter());
        for record in memory.filter(|batch| batch.min < end && batch.max >= start).flat_map(|batch| &batch.records) {
            if record.at >= start && record.at < end && seen.insert(&record.stream) {
                found.insert(record.stream.clone());
            }
        }
        for segment in state.partitions.iter().flat_map(|partition| &partition.segments) {
            if segment.overlaps(start, end) {
                found.extend(segment.streams.iter().cloned());
            }
        }
        found.retain(|labels| matchers.iter().all(|matcher| matcher.matches(labels)));
        found.into_iter().collect()
    }

    /// Names of the labels that streams in `[start, end)` have, sorted.
    pub fn label_names(&self, matchers: &[Matcher], start: Timestamp, end: Timestamp) -> Vec<String> {
        let streams = self.streams(matchers, start, end);
        let names: BTreeSet<&str> = streams.iter().flat_map(|labels| labels.iter().map(|(name, _)| name)).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// Values of one label of streams in `[start, end)`, sorted.
    pub fn label_values(&self, name: &str, matchers: &[Matcher], start: Timestamp, end: Timestamp) -> Vec<String> {
        let streams = self.streams(matchers, start, end);
        let values: BTreeSet<&str> = streams.iter().filter_map(|labels| labels.get(name)).collect();
        values.into_iter().map(str::to_owned).collect()
    }

    /// Bytes of the sealed partitions on disk.
    pub fn sealed_bytes(&self) -> u64 {
        self.0.state.read().partitions.iter().map(|partition| partition.bytes).sum()
    }

    /// Bytes of records that are not sealed yet.
    pub fn memory_bytes(&self) -> usize {
        let state = self.0.state.read();
        state.active_bytes + state.frozen_bytes
    }
}

/// What makes one of our own events the same again. Other streams may have such a field and mean something else.
fn event_id(record: &LogRecord) -> Option<&str> {
    is_own(&record.stream).then(|| record.field("event_id")).flatten()
}

/// What the write-ahead log brings back.
struct Replay<'a> {
    sealer: &'a Sealer,
    high_water: HighWater,
    batches: Vec<Arc<CommittedBatch>>,
    next_frame: u64,
    unknown: u64,
}

impl Replay<'_> {
    fn frame(&mut self, bytes: &[u8]) {
        match codec::decode_frame(bytes) {
            Ok(Frame::Checkpoint { frame, marks }) => {
                self.next_frame = self.next_frame.max(frame);
                for mark in &marks {
                    self.high_water.raise(mark);
                }
            }
            Ok(Frame::Batch { frame, origin, records }) => {
                self.next_frame = self.next_frame.max(frame + 1);
                if let Some(origin) = &origin {
                    self.high_water.raise(origin);
                }
                self.keep_unsealed(CommittedBatch::new(frame, records));
            }
            Err(codec::DecodeError) => self.unknown += 1,
        }
    }

    /// A crash between the commits of two partitions leaves frames of which only some records are sealed. Those that
    /// are not keep their sequence numbers, each run of them as a batch of its own.
    fn keep_unsealed(&mut self, batch: CommittedBatch) {
        let sealed = |record: &LogRecord| frame_of(batch.first_seq) < self.sealer.frames_before_of(day_of(record.at));
        if !batch.records.iter().any(sealed) {
            if !batch.records.is_empty() {
                self.batches.push(Arc::new(batch));
            }
            return;
        }
        let first_seq = batch.first_seq;
        let frames: Vec<bool> = batch.records.iter().map(sealed).collect();
        for ((seq, record), sealed) in (first_seq..).zip(batch.records).zip(frames) {
            if !sealed {
                let mut single = CommittedBatch::new(0, vec![record]);
                single.first_seq = seq;
                self.batches.push(Arc::new(single));
            }
        }
    }
}

#[cfg(test)]
mod tests;
