//! Reading: series by matchers and time, merged from head, frozen windows and blocks.
//!
//! Only the places of the chunks are gathered at first; points are decoded one series at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::error;

use crate::model::{Labels, Matcher};
use crate::platform::error::chain;
use crate::store::metrics::block::index::BlockIndex;
use crate::store::metrics::block::{Block, BlockError, ChunkAt, ColumnCache};
use crate::store::metrics::head::HeadPart;
use crate::store::metrics::head::log::{HeadLogError, TimesCache};
use crate::store::metrics::head::registry::Registry;
use crate::store::metrics::postings::{self, LabelIndex as _};
use crate::store::metrics::tombstones::Deletions;
use crate::store::metrics::{MetricError, MetricStore, Point, millis};

/// Memory for the indexes of recently read blocks.
const INDEX_CACHE_BYTES: usize = 64 << 20;

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

#[derive(Debug)]
struct BlockPart {
    block: Arc<Block>,
    index: Arc<BlockIndex>,
    chunks: Vec<ChunkAt>,
}

#[derive(Debug, Default)]
struct Parts {
    /// Oldest block first: on equal times the first written value wins.
    blocks: Vec<BlockPart>,
    head: Vec<HeadPart>,
}

/// What readers of one selection keep between series.
#[derive(Debug, Default)]
struct Caches {
    columns: ColumnCache,
    times: TimesCache,
}

/// The series that a [`MetricStore::select`] found, sorted by labels; decodes one at a time.
#[derive(Debug)]
pub struct Selection<'a> {
    store: &'a MetricStore,
    range: (i64, i64),
    deletions: Arc<Deletions>,
    caches: Caches,
    series: std::collections::btree_map::IntoIter<Labels, Parts>,
}

impl Iterator for Selection<'_> {
    type Item = Result<Series, MetricError>;

    fn next(&mut self) -> Option<Self::Item> {
        for (labels, parts) in self.series.by_ref() {
            let gone = self.deletions.of(&labels);
            match self.store.read_parts(&parts, self.range, &gone, &mut self.caches) {
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
        let range = (self.clip(start_ms), end_ms);
        let (series, deletions) = self.gather(matchers, range)?;
        Ok(Selection { store: self, range, deletions, caches: Caches::default(), series: series.into_iter() })
    }

    /// What is past the retention is gone for readers, even while its block waits to be deleted.
    fn clip(&self, start_ms: i64) -> i64 {
        start_ms.max(self.clock.now().millis().saturating_sub(millis(self.options.retention)))
    }

    /// Labels of the series that satisfy every matcher and have a chunk that overlaps the range, sorted.
    pub fn series(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Result<Vec<Labels>, MetricError> {
        Ok(self.gather(matchers, (self.clip(start_ms), end_ms))?.0.into_keys().collect())
    }

    /// Names of the labels of such series, sorted.
    pub fn label_names(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<BTreeSet<String>, MetricError> {
        if !matchers.is_empty() {
            let series = self.series(matchers, start_ms, end_ms)?;
            return Ok(series.iter().flat_map(Labels::iter).map(|(name, _)| name.to_owned()).collect());
        }
        let blocks = self.overlapping((self.clip(start_ms), end_ms));
        let mut names: BTreeSet<String> = {
            let state = self.state.read();
            state.head.registries().flat_map(Registry::label_names).map(str::to_owned).collect()
        };
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
            let series = self.series(matchers, start_ms, end_ms)?;
            return Ok(series.iter().filter_map(|labels| labels.get(name)).map(str::to_owned).collect());
        }
        let blocks = self.overlapping((self.clip(start_ms), end_ms));
        let mut values = BTreeSet::new();
        let mut collect = |value: &str| {
            values.insert(value.to_owned());
            false
        };
        for registry in self.state.read().head.registries() {
            registry.append_where(name, &mut collect, &mut Vec::new());
        }
        for block in blocks {
            if let Some(index) = self.index_of(&block)? {
                index.append_where(name, &mut collect, &mut Vec::new());
            }
        }
        Ok(values)
    }

    fn overlapping(&self, range: (i64, i64)) -> Vec<Arc<Block>> {
        let state = self.state.read();
        state.blocks.iter().filter(|block| block.overlaps(range.0, range.1)).cloned().collect()
    }

    fn gather(
        &self,
        matchers: &[Matcher],
        range: (i64, i64),
    ) -> Result<(BTreeMap<Labels, Parts>, Arc<Deletions>), MetricError> {
        // One lock for all, so that a window on its way to a block is seen once.
        let (head, blocks, deletions) = {
            let state = self.state.read();
            let blocks: Vec<Arc<Block>> =
                state.blocks.iter().filter(|block| block.overlaps(range.0, range.1)).cloned().collect();
            (state.head.select(matchers, range), blocks, Arc::clone(&state.deletions))
        };
        let mut found: BTreeMap<Labels, Parts> = BTreeMap::new();
        for block in blocks {
            let Some(index) = self.index_of(&block)? else { continue };
            for id in postings::select(index.as_ref(), matchers) {
                let Some(entry) = index.entry(id) else { continue };
                let mut chunks = entry.chunks;
                chunks.retain(|chunk| chunk.overlaps(range.0, range.1));
                if let Some(labels) = index.labels(&entry.labels).filter(|_| !chunks.is_empty()) {
                    let part = BlockPart { block: Arc::clone(&block), index: Arc::clone(&index), chunks };
                    found.entry(labels).or_default().blocks.push(part);
                }
            }
        }
        for (labels, parts) in head {
            found.entry(labels).or_default().head.extend(parts);
        }
        Ok((found, deletions))
    }

    /// The index of a block; `None` when it turned out damaged and was set aside.
    pub(super) fn index_of(&self, block: &Arc<Block>) -> Result<Option<Arc<BlockIndex>>, MetricError> {
        if let Some(index) = self.indexes.lock().get(&block.path) {
            return Ok(Some(index));
        }
        match block.load_index() {
            Ok(index) => {
                let index = Arc::new(index);
                self.indexes.lock().put(&block.path, &index);
                Ok(Some(index))
            }
            Err(BlockError::Read { path, source }) => Err(MetricError::Read(BlockError::Read { path, source })),
            Err(why) => {
                self.set_aside(block, &why);
                Ok(None)
            }
        }
    }

    fn read_parts(
        &self,
        parts: &Parts,
        range: (i64, i64),
        gone: &crate::store::metrics::tombstones::Gone,
        caches: &mut Caches,
    ) -> Result<Vec<Point>, MetricError> {
        let mut points = Vec::new();
        for BlockPart { block, index, chunks } in &parts.blocks {
            let before = points.len();
            for chunk in chunks {
                match block.read_chunk(index, *chunk, &mut caches.columns, (range, &mut points)) {
                    Ok(()) => {}
                    Err(BlockError::Read { path, source }) => {
                        return Err(MetricError::Read(BlockError::Read { path, source }));
                    }
                    Err(why) => {
                        points.truncate(before);
                        self.set_aside(block, &why);
                        break;
                    }
                }
            }
            gone.apply_to_block(block.number, before, &mut points);
        }
        for part in &parts.head {
            let before = points.len();
            points.extend_from_slice(&part.memory);
            read_chain(part, range, &mut caches.times, &mut points)?;
            gone.apply_to_window(part.file.number, before, &mut points);
        }
        put_in_order(&mut points);
        Ok(points)
    }
}

/// Reads what a part has in its file. Damage there costs the chunks before it, and is told.
fn read_chain(
    part: &HeadPart,
    range: (i64, i64),
    cache: &mut TimesCache,
    points: &mut Vec<Point>,
) -> Result<(), MetricError> {
    match part.file.read_series(part.chain, part.has_late, cache, (range, points)) {
        Ok(()) => Ok(()),
        Err(why @ HeadLogError::Damaged { .. }) => {
            error!(error = %chain(&why), "samples of a series cannot be read");
            Ok(())
        }
        Err(why) => Err(MetricError::ReadHead(why)),
    }
}

/// Sorts by time; of equal times the first stays.
pub(super) fn put_in_order(points: &mut Vec<Point>) {
    if points.is_sorted_by(|a, b| a.at_ms < b.at_ms) {
        return;
    }
    points.sort_by_key(|point| point.at_ms);
    points.dedup_by_key(|point| point.at_ms);
}
