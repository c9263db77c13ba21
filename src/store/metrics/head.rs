//! The head: recent samples in memory, compressed, by series.
//!
//! Invariants:
//! - A chunk lies inside one window, so a window can be moved out by moving chunks.
//! - `chunks` and `open` are in order of time; `late` holds the points that came out of order, sorted, none of whose times
//!   is in `chunks` or `open`.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::model::{Labels, Matcher};
use crate::store::metrics::chunk::{Chunk, ChunkBuilder, Point, decode_into};
use crate::store::metrics::postings::{self, LabelIndex};

/// Length of a window, of the time that one block file covers.
pub(super) const WINDOW_MS: i64 = 2 * 3600 * 1000;

/// Start of the window that a time lies in.
pub(super) fn window_start(at_ms: i64) -> i64 {
    at_ms.div_euclid(WINDOW_MS) * WINDOW_MS
}

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Appended,
    /// The same value at the same time is there already.
    Duplicate,
    /// Too far behind the newest of its series, or another value at the same time.
    OutOfOrder,
}

#[derive(Debug)]
pub(super) struct HeadSeries {
    pub(super) labels: Labels,
    /// Generation of the write-ahead log in which it was last declared.
    pub(super) declared_in: u32,
    chunks: Vec<Chunk>,
    open: ChunkBuilder,
    late: Vec<Point>,
    /// Kept when its window is moved out, so that a repeated write is still recognised.
    last: Option<Point>,
}

impl HeadSeries {
    fn new(labels: Labels) -> Self {
        Self { labels, declared_in: 0, chunks: Vec::new(), open: ChunkBuilder::default(), late: Vec::new(), last: None }
    }

    /// What would become of the sample.
    pub(super) fn judge(&self, point: Point, out_of_order_ms: i64) -> Fate {
        let Some(last) = self.last else { return Fate::Appended };
        if point.at_ms > last.at_ms {
            return Fate::Appended;
        }
        let existing = if point.at_ms == last.at_ms { Some(last) } else { self.point_at(point.at_ms) };
        match existing {
            Some(existing) if existing == point => Fate::Duplicate,
            Some(_) => Fate::OutOfOrder,
            None if last.at_ms.saturating_sub(point.at_ms) > out_of_order_ms => Fate::OutOfOrder,
            None => Fate::Appended,
        }
    }

    fn point_at(&self, at_ms: i64) -> Option<Point> {
        if let Ok(index) = self.late.binary_search_by_key(&at_ms, |point| point.at_ms) {
            return self.late.get(index).copied();
        }
        let open = (self.open.count() > 0).then(|| self.open.snapshot());
        let chunk = self.chunks.iter().chain(open.as_ref()).find(|chunk| chunk.overlaps(at_ms, at_ms))?;
        let mut found = Vec::new();
        decode_into(&chunk.bits, chunk.count, (at_ms, at_ms), &mut found)?;
        found.pop()
    }

    /// Adds the sample unless it is a duplicate or out of order.
    pub(super) fn append(&mut self, point: Point, out_of_order_ms: i64) -> Fate {
        let fate = self.judge(point, out_of_order_ms);
        if fate == Fate::Appended {
            if self.last.is_none_or(|last| point.at_ms > last.at_ms) {
                self.append_in_order(point);
            } else {
                let index = self.late.partition_point(|late| late.at_ms < point.at_ms);
                self.late.insert(index, point);
            }
        }
        fate
    }

    fn append_in_order(&mut self, point: Point) {
        let other_window = self.open.count() > 0 && window_start(self.open.first_ms()) != window_start(point.at_ms);
        if other_window || self.open.is_full() {
            self.seal_open();
        }
        self.open.push(point);
        self.last = Some(point);
    }

    fn seal_open(&mut self) {
        self.chunks.extend(std::mem::take(&mut self.open).finish());
    }

    /// What it holds between two times: chunks in order of time, then the late points.
    fn part(&self, start_ms: i64, end_ms: i64) -> HeadPart {
        let mut chunks: Vec<Chunk> =
            self.chunks.iter().filter(|chunk| chunk.overlaps(start_ms, end_ms)).cloned().collect();
        if self.open.count() > 0 {
            chunks.push(self.open.snapshot());
        }
        chunks.retain(|chunk| chunk.overlaps(start_ms, end_ms));
        let late = self.late.iter().filter(|p| (start_ms..=end_ms).contains(&p.at_ms)).copied().collect();
        HeadPart { labels: self.labels.clone(), chunks, late }
    }

    /// Moves a window's samples out.
    fn take_window(&mut self, start_ms: i64) -> Option<HeadPart> {
        let inside = |at_ms: i64| window_start(at_ms) == start_ms;
        if self.open.count() > 0 && inside(self.open.first_ms()) {
            self.seal_open();
        }
        let chunks: Vec<Chunk> = self.chunks.extract_if(.., |chunk| inside(chunk.min_ms)).collect();
        let late: Vec<Point> = self.late.extract_if(.., |point| inside(point.at_ms)).collect();
        self.chunks.shrink_to_fit();
        self.late.shrink_to_fit();
        (!chunks.is_empty() || !late.is_empty()).then(|| HeadPart { labels: self.labels.clone(), chunks, late })
    }

    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.late.is_empty() && self.open.count() == 0
    }

    fn min_ms(&self) -> Option<i64> {
        let open = (self.open.count() > 0).then(|| self.open.first_ms());
        let chunk = self.chunks.first().map(|chunk| chunk.min_ms);
        [open, chunk, self.late.first().map(|point| point.at_ms)].into_iter().flatten().min()
    }

    fn bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.bits.len()).sum();
        chunks + self.open.bytes_len() + self.late.len() * size_of::<Point>()
    }
}

/// Samples of one series, out of the head.
#[derive(Clone, Debug)]
pub(super) struct HeadPart {
    pub(super) labels: Labels,
    pub(super) chunks: Vec<Chunk>,
    pub(super) late: Vec<Point>,
}

/// A window on its way from the head to a block file; read beside the head until the file stands.
#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) window_start_ms: i64,
    /// Every sample of the window in a batch below this is in here or in an older block.
    pub(super) batch: u64,
    /// Sorted by labels.
    pub(super) series: Vec<HeadPart>,
}

/// All recent series.
#[derive(Debug, Default)]
pub(super) struct Head {
    by_labels: FxHashMap<Labels, u32>,
    series: BTreeMap<u32, HeadSeries>,
    next_id: u32,
    index: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Vec<u32>>>,
    /// When (wall time, ms) each window with samples was first and last written to.
    pub(super) windows: BTreeMap<i64, (i64, i64)>,
}

impl Head {
    pub(super) fn series_count(&self) -> usize {
        self.series.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.series.values().map(HeadSeries::bytes).sum()
    }

    /// The id of a series; makes one while there are fewer than `max_series`.
    pub(super) fn id_of(&mut self, labels: &Labels, max_series: usize) -> Option<u32> {
        if let Some(id) = self.by_labels.get(labels) {
            return Some(*id);
        }
        if self.series.len() >= max_series {
            return None;
        }
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1)?;
        for (name, value) in labels.shared() {
            let values = self.index.entry(Arc::clone(name)).or_default();
            values.entry(Arc::clone(value)).or_default().push(id);
        }
        self.by_labels.insert(labels.clone(), id);
        self.series.insert(id, HeadSeries::new(labels.clone()));
        Some(id)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut HeadSeries> {
        self.series.get_mut(&id)
    }

    /// Adds a sample to a series that [`Head::id_of`] named.
    pub(super) fn append(&mut self, id: u32, point: Point, out_of_order_ms: i64, now_ms: i64) -> Fate {
        let Some(series) = self.series.get_mut(&id) else { return Fate::OutOfOrder };
        let fate = series.append(point, out_of_order_ms);
        if fate == Fate::Appended {
            self.windows.entry(window_start(point.at_ms)).or_insert((now_ms, now_ms)).1 = now_ms;
        }
        fate
    }

    /// Parts of the series that satisfy the matchers, in no order.
    pub(super) fn select(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Vec<HeadPart> {
        let ids = postings::select(self, matchers);
        let series = ids.iter().filter_map(|id| self.series.get(id));
        series
            .map(|series| series.part(start_ms, end_ms))
            .filter(|part| !part.chunks.is_empty() || !part.late.is_empty())
            .collect()
    }

    /// Moves a window out.
    pub(super) fn take_window(&mut self, window_start_ms: i64, batch: u64) -> Frozen {
        self.windows.remove(&window_start_ms);
        let mut series: Vec<HeadPart> =
            self.series.values_mut().filter_map(|series| series.take_window(window_start_ms)).collect();
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Frozen { window_start_ms, batch, series }
    }

    /// Forgets series without samples whose last one is older than `before_ms`.
    pub(super) fn forget_idle(&mut self, before_ms: i64) {
        let idle = |series: &HeadSeries| series.is_empty() && series.last.is_none_or(|last| last.at_ms < before_ms);
        if !self.series.values().any(idle) {
            return;
        }
        self.series.retain(|_, series| !idle(series));
        let series = &self.series;
        self.by_labels.retain(|_, id| series.contains_key(id));
        for values in self.index.values_mut() {
            for ids in values.values_mut() {
                ids.retain(|id| series.contains_key(id));
            }
            values.retain(|_, ids| !ids.is_empty());
        }
        self.index.retain(|_, values| !values.is_empty());
    }

    /// The earliest sample's time.
    pub(super) fn min_ms(&self) -> Option<i64> {
        self.series.values().filter_map(HeadSeries::min_ms).min()
    }

    /// Label names with their values and how many series have each.
    pub(super) fn label_index(&self) -> &BTreeMap<Arc<str>, BTreeMap<Arc<str>, Vec<u32>>> {
        &self.index
    }
}

impl LabelIndex for Head {
    fn all(&self) -> Vec<u32> {
        self.series.keys().copied().collect()
    }

    fn postings(&self, name: &str, value: &str) -> Vec<u32> {
        self.index.get(name).and_then(|values| values.get(value)).cloned().unwrap_or_default()
    }

    fn for_each_value(&self, name: &str, each: &mut dyn FnMut(&str, &[u32])) {
        for (value, ids) in self.index.get(name).into_iter().flatten() {
            each(value, ids);
        }
    }
}
