//! Finding records: candidates from memory and from the index, in time order, each verified on the record itself.
//!
//! A search goes day by day. Inside a day all candidates are positions of 32 bytes; where there are too many, the time
//! range is halved until they fit, so that memory stays bounded whatever matches.

use std::ops::ControlFlow;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tantivy::TantivyError;
use tokio_util::sync::CancellationToken;

use crate::model::{Labels, LogRecord, Matcher, Timestamp};

use super::partition::{Bodies, PartitionView, day_name, day_of, day_start};
use super::tokens::required_tokens;
use super::weight::{FieldScale, Measure};
use super::{CommittedBatch, LogStore, LogStoreError, State};

/// Positions held at once.
const POSITIONS_MAX: usize = 1 << 20;
/// Records between two looks at the cancellation.
const CANCEL_CHECK_RECORDS: u64 = 256;

/// Which end of the time range comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    #[default]
    Forward,
    /// Newest first; records of one instant in reverse order of arrival.
    Backward,
}

/// What one search may cost.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Bytes of lines and fields that may be read.
    pub bytes_max: u64,
    /// Ends the search when cancelled.
    pub stop: CancellationToken,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes_max: 4 << 30, stop: CancellationToken::new() }
    }
}

/// What to look for.
#[derive(Clone, Debug)]
pub struct LogQuery {
    pub matchers: Vec<Matcher>,
    pub start: Timestamp,
    /// Not included.
    pub end: Timestamp,
    pub direction: Direction,
    /// Every line must contain all of these.
    pub needles: Vec<String>,
    pub limit: Option<usize>,
    pub budget: Budget,
}

impl LogQuery {
    /// Everything of the matching streams in `[start, end)`, oldest first.
    pub fn new(matchers: Vec<Matcher>, start: Timestamp, end: Timestamp) -> Self {
        Self {
            matchers,
            start,
            end,
            direction: Direction::Forward,
            needles: Vec::new(),
            limit: None,
            budget: Budget::default(),
        }
    }
}

/// What a search cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchStats {
    /// Records that were read.
    pub lines: u64,
    /// Bytes of lines and fields that were read.
    pub bytes: u64,
    /// Records that matched and were handed over.
    pub found: u64,
    /// Stored records whose bytes were damaged, left out.
    pub damaged: u64,
}

/// Takes a record and its sequence number; `Break` ends the search.
pub type Visit<'a> = dyn FnMut(u64, &LogRecord) -> ControlFlow<()> + 'a;

#[derive(Clone, Copy)]
enum Place {
    Memory { batch: u32, record: u32 },
    Segment { segment: u32, doc: u32, stream: u32 },
}

#[derive(Clone, Copy)]
struct Candidate {
    at: Timestamp,
    seq: u64,
    place: Place,
}

impl LogStore {
    /// Hands every matching record to `visit`, in order of (time, arrival) or its reverse. It sees all records whose
    /// append returned before the call, and may see later ones.
    pub fn search(&self, query: &LogQuery, visit: &mut Visit<'_>) -> Result<SearchStats, LogStoreError> {
        let state = self.0.state.read().clone();
        let required = query.needles.iter().flat_map(|needle| required_tokens(needle)).collect();
        let mut search = Search {
            query,
            memory: Vec::new(),
            required,
            streams: FxHashMap::default(),
            stats: SearchStats::default(),
            candidates: Vec::new(),
        };
        let memory = state.active.iter().chain(state.frozen.iter());
        search.memory = memory.filter(|batch| batch.min < query.end && batch.max >= query.start).cloned().collect();
        if query.limit != Some(0) && query.start < query.end {
            let _end = search.run(&state, visit)?;
        }
        Ok(search.stats)
    }
}

impl LogStore {
    /// Like [`LogStore::search`], but only what the columns know: time, stream and bytes, in no particular order,
    /// without reading a line. Needles and limit do not apply.
    pub fn tally(
        &self,
        query: &LogQuery,
        measure: Measure,
        visit: &mut dyn FnMut(Timestamp, &Labels, u64),
    ) -> Result<SearchStats, LogStoreError> {
        let snapshot = self.0.state.read().clone();
        let (start, end) = (query.start, query.end);
        let mut stats = SearchStats::default();
        let mut streams = FxHashMap::<Labels, bool>::default();
        let mut matches = |labels: &Labels| {
            if let Some(known) = streams.get(labels) {
                return *known;
            }
            let matches = query.matchers.iter().all(|matcher| matcher.matches(labels));
            streams.insert(labels.clone(), matches);
            matches
        };
        let mut scale = FieldScale::default();
        // In the order of arrival.
        let memory = snapshot.frozen.iter().chain(snapshot.active.iter());
        for record in memory.filter(|batch| batch.min < end && batch.max >= start).flat_map(|batch| &batch.records) {
            if record.at >= start && record.at < end && matches(&record.stream) {
                stats.found += 1;
                let fields = if measure == Measure::Record { scale.weigh(record) } else { 0 };
                visit(record.at, &record.stream, record.line.len() as u64 + fields);
            }
        }
        for partition in &snapshot.partitions {
            for segment in partition.segments.iter().filter(|segment| segment.overlaps(start, end)) {
                if query.budget.stop.is_cancelled() {
                    return Err(LogStoreError::Cancelled);
                }
                let wanted: Vec<bool> = segment.streams.iter().map(&mut matches).collect();
                let found = segment.positions((start, end), &wanted, &[], |position| {
                    if let Some(labels) = segment.streams.get(position.stream as usize) {
                        stats.found += 1;
                        visit(position.at, labels, segment.bytes_of(position.doc, measure));
                    }
                });
                found.map_err(|source| read_error(partition, source))?;
            }
        }
        Ok(stats)
    }
}

struct Search<'q> {
    query: &'q LogQuery,
    memory: Vec<Arc<CommittedBatch>>,
    required: Vec<String>,
    /// Whether a stream matches, by its labels.
    streams: FxHashMap<Labels, bool>,
    stats: SearchStats,
    candidates: Vec<Candidate>,
}

impl Search<'_> {
    fn run(&mut self, state: &State, visit: &mut Visit<'_>) -> Result<ControlFlow<()>, LogStoreError> {
        let (start, end) = (self.query.start, self.query.end);
        let mut days: Vec<i64> = state.partitions.iter().map(|partition| partition.day).collect();
        for batch in &self.memory {
            days.extend(batch.records.iter().map(|record| day_of(record.at)));
        }
        days.retain(|day| day_start(*day) < end && day_start(day + 1) > start);
        days.sort_unstable();
        days.dedup();
        if self.query.direction == Direction::Backward {
            days.reverse();
        }
        for day in days {
            let partition = state.partitions.iter().find(|partition| partition.day == day);
            let range = (start.max(day_start(day)), end.min(day_start(day + 1)));
            let mut bodies = BodyReaders::new(partition);
            if self.range(partition.map(Arc::as_ref), range, &mut bodies, visit)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// One time range inside a day; halved while it holds too many candidates.
    fn range(
        &mut self,
        partition: Option<&PartitionView>,
        (start, end): (Timestamp, Timestamp),
        bodies: &mut BodyReaders,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, LogStoreError> {
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        let splittable = end.nanos() - start.nanos() > 1;
        let fits = self.collect(partition, (start, end), &mut candidates)?;
        if !fits && splittable {
            self.candidates = candidates;
            let middle = Timestamp(start.nanos() + (end.nanos() - start.nanos()) / 2);
            let mut halves = [(start, middle), (middle, end)];
            if self.query.direction == Direction::Backward {
                halves.reverse();
            }
            for half in halves {
                if self.range(partition, half, bodies, visit)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            return Ok(ControlFlow::Continue(()));
        }
        candidates.sort_unstable_by_key(|candidate| (candidate.at, candidate.seq));
        if self.query.direction == Direction::Backward {
            candidates.reverse();
        }
        let mut flow = ControlFlow::Continue(());
        for candidate in &candidates {
            if self.deliver(partition, *candidate, bodies, visit)?.is_break() {
                flow = ControlFlow::Break(());
                break;
            }
        }
        self.candidates = candidates;
        Ok(flow)
    }

    /// Collects candidates; `false` when there are more than fit, which ends the collecting where it can be split.
    fn collect(
        &mut self,
        partition: Option<&PartitionView>,
        (start, end): (Timestamp, Timestamp),
        candidates: &mut Vec<Candidate>,
    ) -> Result<bool, LogStoreError> {
        self.check_cancelled()?;
        let memory = std::mem::take(&mut self.memory);
        for (batch_index, batch) in (0u32..).zip(&memory) {
            if batch.min >= end || batch.max < start {
                continue;
            }
            for (record_index, (seq, record)) in (0u32..).zip(batch.iter()) {
                if record.at >= start && record.at < end && self.stream_matches(&record.stream) {
                    let place = Place::Memory { batch: batch_index, record: record_index };
                    candidates.push(Candidate { at: record.at, seq, place });
                }
            }
        }
        self.memory = memory;
        let Some(partition) = partition else { return Ok(true) };
        for (segment_index, segment) in (0u32..).zip(&partition.segments) {
            if !segment.overlaps(start, end) {
                continue;
            }
            let wanted: Vec<bool> = segment.streams.iter().map(|labels| self.stream_matches(labels)).collect();
            if !wanted.contains(&true) {
                continue;
            }
            let found = segment.positions((start, end), &wanted, &self.required, |position| {
                let place = Place::Segment { segment: segment_index, doc: position.doc, stream: position.stream };
                candidates.push(Candidate { at: position.at, seq: position.seq, place });
            });
            found.map_err(|source| read_error(partition, source))?;
            if candidates.len() > POSITIONS_MAX {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn stream_matches(&mut self, labels: &Labels) -> bool {
        if let Some(known) = self.streams.get(labels) {
            return *known;
        }
        let matches = self.query.matchers.iter().all(|matcher| matcher.matches(labels));
        self.streams.insert(labels.clone(), matches);
        matches
    }

    fn deliver(
        &mut self,
        partition: Option<&PartitionView>,
        candidate: Candidate,
        bodies: &mut BodyReaders,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, LogStoreError> {
        match candidate.place {
            Place::Memory { batch, record } => {
                let batch = self.memory.get(batch as usize).cloned();
                match batch.as_ref().and_then(|batch| batch.records.get(record as usize)) {
                    Some(record) => self.hand_over(candidate.seq, record, visit),
                    None => Ok(ControlFlow::Continue(())),
                }
            }
            Place::Segment { segment, doc, stream } => {
                let Some(partition) = partition else { return Ok(ControlFlow::Continue(())) };
                let body = bodies.get(partition, segment, doc).map_err(|source| read_error(partition, source))?;
                let streams = partition.segments.get(segment as usize).map(|segment| &segment.streams);
                let labels = streams.and_then(|streams| streams.get(stream as usize));
                let (Some((line, fields)), Some(labels)) = (body, labels) else {
                    self.stats.damaged += 1;
                    return Ok(ControlFlow::Continue(()));
                };
                let record = LogRecord { at: candidate.at, stream: labels.clone(), line, fields };
                self.hand_over(candidate.seq, &record, visit)
            }
        }
    }

    fn hand_over(
        &mut self,
        seq: u64,
        record: &LogRecord,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, LogStoreError> {
        self.stats.lines += 1;
        self.stats.bytes += record.text_bytes() as u64;
        if self.stats.lines.is_multiple_of(CANCEL_CHECK_RECORDS) {
            self.check_cancelled()?;
        }
        if self.stats.bytes > self.query.budget.bytes_max {
            return Err(LogStoreError::BudgetExceeded { bytes_max: self.query.budget.bytes_max });
        }
        if !self.query.needles.iter().all(|needle| record.line.contains(needle.as_str())) {
            return Ok(ControlFlow::Continue(()));
        }
        self.stats.found += 1;
        let flow = visit(seq, record);
        let full = self.query.limit.is_some_and(|limit| self.stats.found >= limit as u64);
        Ok(if full { ControlFlow::Break(()) } else { flow })
    }

    fn check_cancelled(&self) -> Result<(), LogStoreError> {
        if self.query.budget.stop.is_cancelled() { Err(LogStoreError::Cancelled) } else { Ok(()) }
    }
}

fn read_error(partition: &PartitionView, source: TantivyError) -> LogStoreError {
    LogStoreError::Read { partition: day_name(partition.day), source }
}

/// Readers of lines by segment, opened when first needed.
struct BodyReaders(Vec<Option<Bodies>>);

impl BodyReaders {
    fn new(partition: Option<&Arc<PartitionView>>) -> Self {
        let segments = partition.map_or(0, |partition| partition.segments.len());
        Self(std::iter::repeat_with(|| None).take(segments).collect())
    }

    fn get(
        &mut self,
        partition: &PartitionView,
        segment: u32,
        doc: u32,
    ) -> Result<Option<super::codec::Body>, TantivyError> {
        let index = segment as usize;
        let (Some(slot), Some(segment)) = (self.0.get_mut(index), partition.segments.get(index)) else {
            return Ok(None);
        };
        if slot.is_none() {
            *slot = Some(segment.bodies()?);
        }
        slot.as_ref().map_or(Ok(None), |bodies| bodies.get(doc))
    }
}
