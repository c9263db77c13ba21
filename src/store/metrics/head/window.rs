//! One window of two hours: the samples of its series, the latest in memory, the others in the window's log.
//!
//! Invariants:
//! - A slot numbers a series inside the window and its log; slots count from 0 in the order of declaration.
//! - What a series has in memory is one run: values in its buffer, times in a column that other series share while they
//!   have the same times.
//! - A run is later than every chunk of the series that is not late.

use std::path::Path;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::model::Labels;
use crate::platform::disk::Disk;
use crate::store::metrics::Point;
use crate::store::metrics::codec::stream::{self, Tail};
use crate::store::metrics::head::buffers::{Buffer, Buffers};
use crate::store::metrics::head::log::{self, CutOff, Entry, HeadFile, HeadLog, HeadLogError, Sealed, TimesCache};
use crate::store::metrics::head::registry::Registry;
use crate::store::metrics::head::{Fate, HeadPart};

/// A run of this many samples leaves memory.
const RUN_SAMPLES: u16 = 120;
/// So does one whose values take so many bytes.
const RUN_BYTES: usize = 480;
/// So do this many late samples of a series.
const LATE_SAMPLES: usize = 1000;
/// Chunks of about so many bytes are written together.
const FRAME_BYTES: usize = 4 << 20;
/// While the log cannot be written, runs grow up to this; further samples are refused.
const RUN_SAMPLES_MAX: u16 = 20_000;
/// No time yet; later than any time in a window.
const NO_TIME: u32 = u32::MAX;
const NO_SLOT: u32 = u32::MAX;

/// A series in a window.
#[derive(Debug)]
struct Record {
    series: u32,
    /// The column of its run's times, the first one's place there, and how many there are; none means no column.
    column: u32,
    start: u32,
    count: u16,
    tail: Tail,
    buffer: Buffer,
    /// Time of the newest sample since the start of the window.
    last: u32,
    /// Place of the newest chunk in the log; 0 for none.
    chain: u64,
    /// Number of the batch that brought the run's first sample.
    first_batch: u64,
}

/// A column of times, counted from the start of the window.
#[derive(Debug, Default)]
struct Column {
    times: Vec<u32>,
    /// Runs that end in it.
    users: u32,
}

/// Where the latest sample of a batch put its time: the next series likely has the same.
pub(in super::super) type Hint = Option<u32>;

/// A window.
#[derive(Debug)]
pub(in super::super) struct Window {
    pub(in super::super) number: u64,
    pub(in super::super) start_ms: i64,
    /// Number of the registry whose series these are.
    pub(in super::super) registry: u32,
    /// No more samples are taken: its block is about to be written.
    pub(in super::super) is_frozen: bool,
    /// When (wall time) it was first and last written to.
    pub(super) written_ms: (i64, i64),
    slots: Vec<u32>,
    records: Vec<Record>,
    columns: Vec<Column>,
    free_columns: Vec<u32>,
    buffers: Buffers,
    late: FxHashMap<u32, Vec<(u32, f64)>>,
    /// Batches that brought the first of the late samples in memory.
    late_batch: u64,
    has_late: bool,
    /// Slots whose run should leave memory.
    full: Vec<u32>,
    pub(super) log: HeadLog,
    /// Numbers in the log's file of the registry's symbols, plus one.
    file_symbols: Vec<u32>,
    scratch: Vec<u8>,
}

/// Gives the labels in a log the number of their series.
pub(super) type Register<'a> = &'a mut dyn FnMut(&Labels) -> Option<u32>;

/// What recovering a window needs until the write-ahead log has been replayed.
#[derive(Debug, Default)]
pub(in super::super) struct Recovering {
    /// By slot: batches below this are in the log.
    sealed: Vec<u64>,
    reopened: Vec<(u64, u32)>,
}

impl Recovering {
    /// The lowest number that a new batch may have.
    pub(in super::super) fn next_batch(&self) -> u64 {
        let reopened = self.reopened.iter().map(|(batch, _)| *batch);
        self.sealed.iter().copied().chain(reopened).max().unwrap_or(0)
    }

    /// Whether a sample of a batch is neither in the log nor void.
    pub(in super::super) fn is_wanted(&self, slot: u32, batch: u64) -> Option<bool> {
        let sealed = self.sealed.get(slot as usize)?;
        let is_void = self.reopened.iter().any(|(before, slots)| batch < *before && slot >= *slots);
        if is_void { None } else { Some(batch >= *sealed) }
    }
}

impl Window {
    /// Opens a window's log, or makes one.
    pub(in super::super) fn open(
        disk: &Disk,
        path: &Path,
        (number, start_ms): (u64, i64),
        (registry_number, registry): (u32, Register<'_>),
    ) -> Result<(Self, Recovering, CutOff), HeadLogError> {
        let mut recovering = Recovering::default();
        let (mut slots, mut records): (Vec<u32>, Vec<Record>) = (Vec::new(), Vec::new());
        let mut has_late = false;
        let (log, cut_off) = HeadLog::open(disk, path, |entry| match entry {
            Entry::Series(labels) => {
                let series = registry(&labels).unwrap_or(NO_SLOT);
                put_slot(&mut slots, series, u32::try_from(records.len()).unwrap_or(NO_SLOT));
                records.push(Record::new(series));
                recovering.sealed.push(0);
            }
            Entry::Chunk(chunk) => {
                has_late |= chunk.is_late;
                let slot = chunk.slot as usize;
                if let (Some(record), Some(sealed)) = (records.get_mut(slot), recovering.sealed.get_mut(slot)) {
                    record.chain = chunk.at;
                    if !chunk.is_late {
                        record.last = chunk.max;
                    }
                    *sealed = (*sealed).max(chunk.batch);
                }
            }
            Entry::Reopened { batch, slots } => recovering.reopened.push((batch, slots)),
        })?;
        let window = Self {
            number,
            start_ms,
            registry: registry_number,
            is_frozen: false,
            written_ms: (i64::MAX, i64::MIN),
            slots,
            records,
            columns: Vec::new(),
            free_columns: Vec::new(),
            buffers: Buffers::default(),
            late: FxHashMap::default(),
            late_batch: u64::MAX,
            has_late,
            full: Vec::new(),
            log,
            file_symbols: Vec::new(),
            scratch: Vec::new(),
        };
        Ok((window, recovering, cut_off))
    }

    pub(in super::super) fn series_count(&self) -> usize {
        self.records.len()
    }

    /// The slot of a series; declares it if there is none.
    pub(in super::super) fn slot_of(&mut self, series: u32, registry: &Registry) -> u32 {
        if let Some(slot) = self.find_slot(series) {
            return slot;
        }
        let slot = u32::try_from(self.records.len()).unwrap_or(NO_SLOT);
        let Self { file_symbols, log, .. } = self;
        let mut number_of = |symbol: u32| {
            if file_symbols.len() <= symbol as usize {
                file_symbols.resize(registry.symbols().len().max(symbol as usize + 1), 0);
            }
            let known = file_symbols.get_mut(symbol as usize);
            let (Some(known), Some(text)) = (known, registry.symbols().get(symbol as usize)) else { return 0 };
            if *known == 0 {
                *known = log.add_symbol(text) + 1;
            }
            *known - 1
        };
        let pairs: Vec<(u32, u32)> =
            registry.pairs(series).map(|(name, value)| (number_of(name), number_of(value))).collect();
        self.log.add_series(&pairs);
        put_slot(&mut self.slots, series, slot);
        self.records.push(Record::new(series));
        slot
    }

    pub(in super::super) fn find_slot(&self, series: u32) -> Option<u32> {
        self.slots.get(series as usize).copied().filter(|slot| *slot != NO_SLOT)
    }

    /// Time of the newest sample of a series.
    pub(in super::super) fn newest_ms(&self, slot: u32) -> Option<i64> {
        let last = self.records.get(slot as usize)?.last;
        (last != NO_TIME).then(|| self.start_ms + i64::from(last))
    }

    fn offset(&self, at_ms: i64) -> u32 {
        u32::try_from(at_ms - self.start_ms).unwrap_or(0)
    }

    /// Whether the series' newest sample is before this time, so that nothing needs to be looked up.
    pub(in super::super) fn is_newest(&self, slot: u32, at_ms: i64) -> bool {
        self.records.get(slot as usize).is_some_and(|record| record.last == NO_TIME || record.last < self.offset(at_ms))
    }

    /// Whether the run of a series has no room left: its log could not be written for long.
    pub(in super::super) fn is_overfull(&self, slot: u32) -> bool {
        self.records.get(slot as usize).is_some_and(|record| record.count >= RUN_SAMPLES_MAX)
    }

    /// What would become of a sample that is not the newest of its series.
    pub(in super::super) fn judge(&self, slot: u32, point: Point) -> Result<Fate, HeadLogError> {
        if self.is_newest(slot, point.at_ms) {
            return Ok(Fate::Appended);
        }
        let mut found = Vec::new();
        self.read(slot, &mut TimesCache::default(), ((point.at_ms, point.at_ms), &mut found))?;
        Ok(match found.first() {
            None => Fate::Appended,
            Some(existing) if *existing == point => Fate::Duplicate,
            Some(_) => Fate::OutOfOrder,
        })
    }

    /// Adds a sample that was judged to be new.
    pub(in super::super) fn push(&mut self, slot: u32, point: Point, batch: u64, hint: &mut Hint) {
        let offset = self.offset(point.at_ms);
        if !self.is_newest(slot, point.at_ms) {
            let late = self.late.entry(slot).or_default();
            let at = late.partition_point(|(time, _)| *time < offset);
            late.insert(at, (offset, point.value));
            if late.len() == LATE_SAMPLES {
                self.full.push(slot);
            }
            self.has_late = true;
            self.late_batch = self.late_batch.min(batch);
            return;
        }
        let Some(record) = self.records.get_mut(slot as usize) else { return };
        let is_begun = record.count > 0;
        if !is_begun {
            record.tail = Tail::default();
            record.first_batch = batch;
        }
        let was_full = record.is_full();
        self.scratch.clear();
        record.tail.push(point.value, is_begun, &mut self.scratch);
        self.buffers.append(&mut record.buffer, &self.scratch);
        record.last = offset;
        record.count += 1;
        if !was_full && record.is_full() {
            self.full.push(slot);
        }
        self.place_time(slot, offset, hint);
    }

    /// Notes the time of the sample that was just counted.
    fn place_time(&mut self, slot: u32, offset: u32, hint: &mut Hint) {
        let Some(record) = self.records.get_mut(slot as usize) else { return };
        let before = u32::from(record.count - 1);
        if before == 0 {
            let (column, start) = self.join(offset, *hint);
            if let Some(record) = self.records.get_mut(slot as usize) {
                (record.column, record.start) = (column, start);
            }
            *hint = Some(column);
            return;
        }
        let next = (record.start + before) as usize;
        if let Some(column) = self.columns.get_mut(record.column as usize) {
            if next == column.times.len() {
                column.times.push(offset);
                *hint = Some(record.column);
                return;
            }
            if column.times.get(next) == Some(&offset) {
                *hint = Some(record.column);
                return;
            }
        }
        self.part(slot, offset);
    }

    /// A column that has this time, for a run that begins with it.
    fn join(&mut self, offset: u32, hint: Hint) -> (u32, u32) {
        let hinted = hint.and_then(|number| Some((number, self.columns.get_mut(number as usize)?)));
        if let Some((number, column)) = hinted.filter(|(_, column)| column.users > 0)
            && let Ok(at) = column.times.binary_search(&offset)
        {
            column.users += 1;
            return (number, u32::try_from(at).unwrap_or(0));
        }
        (self.new_column(vec![offset]), 0)
    }

    fn new_column(&mut self, times: Vec<u32>) -> u32 {
        let column = Column { times, users: 1 };
        if let Some(number) = self.free_columns.pop()
            && let Some(free) = self.columns.get_mut(number as usize)
        {
            *free = column;
            return number;
        }
        self.columns.push(column);
        u32::try_from(self.columns.len() - 1).unwrap_or(0)
    }

    /// Gives a run a column of its own: its time is not what the others of the column have.
    fn part(&mut self, slot: u32, offset: u32) {
        let Some(record) = self.records.get(slot as usize) else { return };
        let (old, start, before) = (record.column, record.start as usize, usize::from(record.count - 1));
        let shared = self.columns.get(old as usize).and_then(|column| column.times.get(start..start + before));
        let mut times = Vec::with_capacity(before + 8);
        times.extend_from_slice(shared.unwrap_or_default());
        times.push(offset);
        self.leave(old);
        let column = self.new_column(times);
        if let Some(record) = self.records.get_mut(slot as usize) {
            (record.column, record.start) = (column, 0);
        }
    }

    fn leave(&mut self, number: u32) {
        if let Some(column) = self.columns.get_mut(number as usize) {
            column.users = column.users.saturating_sub(1);
            if column.users == 0 {
                column.times = Vec::new();
                self.free_columns.push(number);
            }
        }
    }

    fn run_times(&self, record: &Record) -> &[u32] {
        let from = record.start as usize;
        let times = self.columns.get(record.column as usize).map(|column| column.times.as_slice());
        times.and_then(|times| times.get(from..from + usize::from(record.count))).unwrap_or_default()
    }

    /// Reads the points of a series inside a range, in any order.
    fn read(
        &self,
        slot: u32,
        cache: &mut TimesCache,
        (range, out): ((i64, i64), &mut Vec<Point>),
    ) -> Result<(), HeadLogError> {
        self.read_memory(slot, range, out);
        let Some(record) = self.records.get(slot as usize) else { return Ok(()) };
        self.log.reader.read_series(record.chain, self.has_late, cache, (range, out))
    }

    /// The points of a series in memory inside a range, in any order.
    fn read_memory(&self, slot: u32, range: (i64, i64), out: &mut Vec<Point>) {
        let Some(record) = self.records.get(slot as usize) else { return };
        let inside = |time: u32| (range.0..=range.1).contains(&(self.start_ms + i64::from(time)));
        let point = |time: u32, value| Point { at_ms: self.start_ms + i64::from(time), value };
        let times = self.run_times(record);
        if let (Some(first), Some(last)) = (times.first(), times.last())
            && self.start_ms + i64::from(*first) <= range.1
            && self.start_ms + i64::from(*last) >= range.0
        {
            let mut values = Vec::new();
            let bytes = self.buffers.get(record.buffer);
            let decoded = stream::decode(bytes, record.tail.pending, usize::from(record.count), &mut values);
            debug_assert!(decoded.is_some(), "a run in memory cannot be decoded");
            let pairs = times.iter().zip(values).filter(|(time, _)| inside(**time));
            out.extend(pairs.map(|(time, value)| point(*time, value)));
        }
        let late = self.late.get(&slot).into_iter().flatten().filter(|(time, _)| inside(*time));
        out.extend(late.map(|(time, value)| point(*time, *value)));
    }

    /// What the series has inside a range, for reading without the window's lock.
    pub(in super::super) fn part_of(&self, series: u32, range: (i64, i64)) -> Option<HeadPart> {
        let slot = self.find_slot(series)?;
        let record = self.records.get(slot as usize)?;
        let mut memory = Vec::new();
        self.read_memory(slot, range, &mut memory);
        let chain = record.chain;
        (chain != 0 || !memory.is_empty()).then(|| HeadPart {
            file: Arc::clone(&self.log.reader),
            chain,
            has_late: self.has_late,
            memory,
        })
    }

    /// Writes the runs that are full to the log, if it takes them.
    pub(in super::super) fn seal_full(&mut self, batch: u64) -> Result<(), HeadLogError> {
        if self.full.is_empty() && self.log.pending_bytes() == 0 {
            return Ok(());
        }
        let mut full = std::mem::take(&mut self.full);
        full.sort_unstable();
        full.dedup();
        let sealed = self.seal(&full, batch);
        if sealed.is_err() {
            self.full = full;
        }
        sealed
    }

    /// Writes what some slots have in memory to the log and takes it out of memory. `batch` is the number of the next
    /// batch. After an error what could not be written stays as it is.
    fn seal(&mut self, slots: &[u32], batch: u64) -> Result<(), HeadLogError> {
        let mut rest = slots;
        loop {
            let sealed = self.seal_frame(rest, batch)?;
            rest = rest.get(sealed..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
        }
        if self.late.is_empty() {
            self.late_batch = u64::MAX;
        }
        Ok(())
    }

    /// Seals as many slots as make a frame; returns how many.
    fn seal_frame(&mut self, slots: &[u32], batch: u64) -> Result<usize, HeadLogError> {
        let from = self.log.pending_bytes();
        let mut chains = Vec::with_capacity(slots.len());
        for slot in slots {
            if self.log.pending_bytes() > from + FRAME_BYTES {
                break;
            }
            let mut chain = self.records.get(*slot as usize).map_or(0, |record| record.chain);
            if let Some(record) = self.records.get(*slot as usize).filter(|record| record.count > 0) {
                let first = record.start as usize;
                let times = self.columns.get(record.column as usize).map(|column| column.times.as_slice());
                let times = times.and_then(|times| times.get(first..first + usize::from(record.count)));
                chain = self.log.add_chunk(&Sealed {
                    slot: *slot,
                    before: chain,
                    batch,
                    column: (record.column, record.start),
                    times: times.unwrap_or_default(),
                    pending: record.tail.pending,
                    values: self.buffers.get(record.buffer),
                });
            }
            if let Some(late) = self.late.get(slot) {
                chain = self.log.add_late(*slot, chain, batch, late);
            }
            chains.push((*slot, chain));
        }
        if let Err(error) = self.log.flush() {
            self.log.forget_chunks(from);
            return Err(error);
        }
        let sealed = chains.len();
        for (slot, chain) in chains {
            self.late.remove(&slot);
            let Some(record) = self.records.get_mut(slot as usize) else { continue };
            record.chain = chain;
            if record.count > 0 {
                record.count = 0;
                self.buffers.clear(&mut record.buffer);
                let column = record.column;
                self.leave(column);
            }
        }
        Ok(sealed)
    }

    /// Seals, of some slots from `from` on, those whose run began before a batch; returns where to go on, if anywhere.
    pub(in super::super) fn seal_slice(
        &mut self,
        from: usize,
        (before, next): (u64, u64),
    ) -> Result<Option<usize>, HeadLogError> {
        const SLICE: usize = 4096;
        let slice = self.records.iter().enumerate().skip(from).take(SLICE);
        let due = slice.filter(|(_, record)| record.count > 0 && record.first_batch < before);
        let mut slots: Vec<u32> = due.filter_map(|(slot, _)| u32::try_from(slot).ok()).collect();
        if from == 0 && self.late_batch < before {
            slots.extend(self.late.keys());
            slots.sort_unstable();
            slots.dedup();
        }
        self.seal(&slots, next)?;
        Ok(Some(from + SLICE).filter(|from| *from < self.records.len()))
    }

    /// Whether everything is in the log.
    pub(in super::super) fn is_sealed(&self) -> bool {
        self.oldest_batch() == u64::MAX
    }

    /// Number of the oldest batch of which something is in memory only.
    pub(in super::super) fn oldest_batch(&self) -> u64 {
        let runs = self.records.iter().filter(|record| record.count > 0).map(|record| record.first_batch);
        runs.min().unwrap_or(u64::MAX).min(self.late_batch)
    }

    /// Series and the places of their last chunks, when nothing is in memory only.
    pub(in super::super) fn chains(&self) -> Vec<(u32, u64)> {
        let sealed = self.records.iter().filter(|record| record.chain != 0);
        sealed.map(|record| (record.series, record.chain)).collect()
    }

    pub(in super::super) fn file(&self) -> (Arc<HeadFile>, bool) {
        (Arc::clone(&self.log.reader), self.has_late)
    }

    /// Time of the first sample that may be there.
    pub(in super::super) fn min_ms(&self) -> i64 {
        self.start_ms
    }

    pub(in super::super) fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Memory, about.
    pub(in super::super) fn bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(|column| size_of::<Column>() + column.times.capacity() * 4).sum();
        let late: usize = self.late.values().map(|late| 48 + late.capacity() * 16).sum();
        let records = self.records.capacity() * size_of::<Record>() + self.slots.capacity() * 4;
        columns + late + records + self.buffers.bytes() + self.file_symbols.capacity() * 4
    }

    /// Goes to the log with, at the latest, the next declaration.
    pub(in super::super) fn note_reopened(&mut self, batch: u64) {
        let slots = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        self.log.add_reopened(batch, slots);
    }

    pub(in super::super) fn note_written(&mut self, now_ms: i64) {
        self.written_ms = (self.written_ms.0.min(now_ms), now_ms);
    }

    /// Whether so many declarations wait that they should be written before more are made.
    pub(in super::super) fn has_much_to_flush(&self) -> bool {
        self.log.pending_bytes() > FRAME_BYTES
    }

    /// Writes declarations that wait.
    pub(in super::super) fn flush(&mut self) -> Result<(), HeadLogError> {
        self.log.flush()
    }

    /// Time of the newest sample.
    pub(in super::super) fn max_ms(&self) -> Option<i64> {
        let last = self.records.iter().map(|record| record.last).filter(|last| *last != NO_TIME).max()?;
        Some(self.start_ms + i64::from(last))
    }

    pub(in super::super) fn log_path(&self) -> &Path {
        &self.log.reader.path
    }
}

impl Record {
    fn is_full(&self) -> bool {
        self.count >= RUN_SAMPLES || self.buffer.len() >= RUN_BYTES
    }

    fn new(series: u32) -> Self {
        Self {
            series,
            column: 0,
            start: 0,
            count: 0,
            tail: Tail::default(),
            buffer: Buffer::default(),
            last: NO_TIME,
            chain: 0,
            first_batch: 0,
        }
    }
}

fn put_slot(slots: &mut Vec<u32>, series: u32, slot: u32) {
    if series == NO_SLOT {
        return;
    }
    if slots.len() <= series as usize {
        slots.resize(series as usize + 1, NO_SLOT);
    }
    if let Some(place) = slots.get_mut(series as usize) {
        *place = slot;
    }
}

pub(super) use log::file_name;
