//! Reading: series by matchers and time, merged from head, frozen windows and blocks.
//!
//! Only the places of the chunks are gathered at first; points are decoded one series at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::{Labels, Matcher};
use crate::store::metrics::block::{Block, BlockError, BlockIndex, ChunkAt};
use crate::store::metrics::chunk::{Point, decode_into};
use crate::store::metrics::head::{Frozen, HeadPart};
use crate::store::metrics::postings::{self, LabelIndex as _};
use crate::store::metrics::{MetricError, MetricStore};

/// Memory for the indexes of recently read blocks.
const INDEX_CACHE_BYTES: usize = 24 << 20;

/// A series with its points in order of time, each time once.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub labels: Labels,
    pub points: Vec<Point>,
}

/// Indexes of recently read blocks, the latest at the back.
#[derive(Debug, Default)]
pub(super) struct IndexCache {
    entries: VecDeque<(PathBuf, Arc<BlockIndex>)>,
    bytes: usize,
}

impl IndexCache {
    fn get(&mut self, path: &Path) -> Option<Arc<BlockIndex>> {
        let at = self.entries.iter().position(|(other, _)| other == path)?;
        let entry = self.entries.remove(at)?;
        let index = Arc::clone(&entry.1);
        self.entries.push_back(entry);
        Some(index)
    }

    fn put(&mut self, path: &Path, index: &Arc<BlockIndex>) {
        self.forget(path);
        self.bytes += index.bytes;
        self.entries.push_back((path.to_owned(), Arc::clone(index)));
        while self.bytes > INDEX_CACHE_BYTES && self.entries.len() > 1 {
            if let Some((_, oldest)) = self.entries.pop_front() {
                self.bytes -= oldest.bytes;
            }
        }
    }

    pub(super) fn forget(&mut self, path: &Path) {
        if let Some(at) = self.entries.iter().position(|(other, _)| other == path) {
            self.bytes -= self.entries.remove(at).map_or(0, |(_, index)| index.bytes);
        }
    }
}

#[derive(Debug, Default)]
struct Parts {
    /// Oldest block first: on equal times the first written value wins.
    blocks: Vec<(Arc<Block>, Vec<ChunkAt>)>,
    head: Vec<HeadPart>,
}

/// The series that a [`MetricStore::select`] found, sorted by labels; decodes one at a time.
#[derive(Debug)]
pub struct Selection<'a> {
    store: &'a MetricStore,
    range: (i64, i64),
    series: std::collections::btree_map::IntoIter<Labels, Parts>,
}

impl Iterator for Selection<'_> {
    type Item = Result<Series, MetricError>;

    fn next(&mut self) -> Option<Self::Item> {
        for (labels, parts) in self.series.by_ref() {
            match self.store.read_parts(&parts, self.range) {
                Ok(points) if points.is_empty() => {}
                Ok(points) => return Some(Ok(Series { labels, points })),
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

impl MetricStore {
    /// Series that satisfy every matcher, with their points in `start_ms..=end_ms`.
    pub fn select(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Result<Selection<'_>, MetricError> {
        let series = self.gather(matchers, start_ms, end_ms)?;
        Ok(Selection { store: self, range: (start_ms, end_ms), series: series.into_iter() })
    }

    /// Labels of the series that satisfy every matcher and have a chunk that overlaps the range, sorted.
    pub fn series(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Result<Vec<Labels>, MetricError> {
        Ok(self.gather(matchers, start_ms, end_ms)?.into_keys().collect())
    }

    /// Names of the labels of such series, sorted.
    pub fn label_names(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<BTreeSet<String>, MetricError> {
        if !matchers.is_empty() {
            let series = self.gather(matchers, start_ms, end_ms)?;
            return Ok(series.keys().flat_map(Labels::iter).map(|(name, _)| name.to_owned()).collect());
        }
        let (blocks, frozen) = self.overlapping(start_ms, end_ms);
        let mut names: BTreeSet<String> =
            self.state.read().head.label_index().keys().map(ToString::to_string).collect();
        names.extend(frozen.iter().flat_map(|f| &f.series).flat_map(|s| s.labels.iter()).map(|(n, _)| n.to_owned()));
        for block in blocks {
            if let Some(index) = self.index_of(&block)? {
                names.extend(index.label_names().map(str::to_owned));
            }
        }
        Ok(names)
    }

    /// Values of a label of such series, sorted.
    pub fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<BTreeSet<String>, MetricError> {
        if !matchers.is_empty() {
            let series = self.gather(matchers, start_ms, end_ms)?;
            return Ok(series.keys().filter_map(|labels| labels.get(name)).map(str::to_owned).collect());
        }
        let (blocks, frozen) = self.overlapping(start_ms, end_ms);
        let mut values = BTreeSet::new();
        self.state.read().head.for_each_value(name, &mut |value, _| {
            values.insert(value.to_owned());
        });
        values.extend(frozen.iter().flat_map(|f| &f.series).filter_map(|s| s.labels.get(name)).map(str::to_owned));
        for block in blocks {
            if let Some(index) = self.index_of(&block)? {
                index.for_each_value(name, &mut |value, _| {
                    values.insert(value.to_owned());
                });
            }
        }
        Ok(values)
    }

    fn overlapping(&self, start_ms: i64, end_ms: i64) -> (Vec<Arc<Block>>, Vec<Arc<Frozen>>) {
        let state = self.state.read();
        let blocks = state.blocks.iter().filter(|block| block.overlaps(start_ms, end_ms)).cloned().collect();
        (blocks, state.frozen.clone())
    }

    fn gather(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Result<BTreeMap<Labels, Parts>, MetricError> {
        // One lock for all three, so that a window on its way from one to the next is seen once.
        let (head, frozen, blocks) = {
            let state = self.state.read();
            let blocks: Vec<Arc<Block>> =
                state.blocks.iter().filter(|block| block.overlaps(start_ms, end_ms)).cloned().collect();
            (state.head.select(matchers, start_ms, end_ms), state.frozen.clone(), blocks)
        };
        let mut found: BTreeMap<Labels, Parts> = BTreeMap::new();
        for block in blocks {
            let Some(index) = self.index_of(&block)? else { continue };
            for id in postings::select(index.as_ref(), matchers) {
                let Some((labels, chunks)) = index.series(id) else { continue };
                let overlaps = |chunk: &&ChunkAt| chunk.min_ms <= end_ms && chunk.max_ms >= start_ms;
                let chunks: Vec<ChunkAt> = chunks.iter().filter(overlaps).copied().collect();
                if !chunks.is_empty() {
                    found.entry(labels).or_default().blocks.push((Arc::clone(&block), chunks));
                }
            }
        }
        for part in frozen.iter().flat_map(|frozen| &frozen.series) {
            let chunk_overlaps = part.chunks.iter().any(|chunk| chunk.overlaps(start_ms, end_ms));
            let late_overlaps = part.late.iter().any(|point| (start_ms..=end_ms).contains(&point.at_ms));
            if (chunk_overlaps || late_overlaps) && matchers.iter().all(|matcher| matcher.matches(&part.labels)) {
                found.entry(part.labels.clone()).or_default().head.push(part.clone());
            }
        }
        for part in head {
            found.entry(part.labels.clone()).or_default().head.push(part);
        }
        Ok(found)
    }

    /// The index of a block; `None` when it turned out damaged and was set aside.
    fn index_of(&self, block: &Arc<Block>) -> Result<Option<Arc<BlockIndex>>, MetricError> {
        if let Some(index) = self.indexes.lock().get(&block.path) {
            return Ok(Some(index));
        }
        match block.load_index() {
            Ok(index) => {
                let index = Arc::new(index);
                self.indexes.lock().put(&block.path, &index);
                Ok(Some(index))
            }
            Err(why @ BlockError::Damaged { .. }) => {
                self.set_aside(block, &why);
                Ok(None)
            }
            Err(error) => Err(MetricError::Read(error)),
        }
    }

    fn read_parts(&self, parts: &Parts, range: (i64, i64)) -> Result<Vec<Point>, MetricError> {
        let mut points = Vec::new();
        for (block, chunks) in &parts.blocks {
            let before = points.len();
            for chunk in chunks {
                match block.read_chunk(*chunk, range, &mut points) {
                    Ok(()) => {}
                    Err(why @ BlockError::Damaged { .. }) => {
                        points.truncate(before);
                        self.set_aside(block, &why);
                        break;
                    }
                    Err(error) => return Err(MetricError::Read(error)),
                }
            }
        }
        for part in &parts.head {
            collect_head_part(part, range, &mut points);
        }
        put_in_order(&mut points);
        Ok(points)
    }
}

fn collect_head_part(part: &HeadPart, range: (i64, i64), out: &mut Vec<Point>) {
    for chunk in &part.chunks {
        // Chunks in memory were written by this process; a wrong one would be a bug, and its readable prefix is kept.
        let decoded = decode_into(&chunk.bits, chunk.count, range, out);
        debug_assert!(decoded.is_some(), "a chunk in memory cannot be decoded");
    }
    out.extend(part.late.iter().filter(|point| (range.0..=range.1).contains(&point.at_ms)));
}

/// All points of a part in order.
pub(super) fn merge_head_part(part: &HeadPart) -> Vec<Point> {
    let mut points = Vec::new();
    collect_head_part(part, (i64::MIN, i64::MAX), &mut points);
    put_in_order(&mut points);
    points
}

/// Sorts by time; of equal times the first stays.
fn put_in_order(points: &mut Vec<Point>) {
    if points.is_sorted_by(|a, b| a.at_ms < b.at_ms) {
        return;
    }
    points.sort_by_key(|point| point.at_ms);
    points.dedup_by_key(|point| point.at_ms);
}
