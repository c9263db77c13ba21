//! Writing blocks: from a window of the head, and from other blocks.
//!
//! Guarantees: one series is in memory at a time. What replaces something names it, so that after a crash the replaced
//! goes and nothing is there twice.

use std::path::Path;
use std::sync::Arc;

use tracing::error;

use crate::model::Labels;
use crate::platform::disk::Disk;
use crate::platform::error::chain;
use crate::store::metrics::block::index::{BlockIndex, Cursor, Entry};
use crate::store::metrics::block::write::BlockWriter;
use crate::store::metrics::block::{Block, BlockError, ColumnCache, Summary};
use crate::store::metrics::head::log::{HeadFile, HeadLogError, TimesCache};
use crate::store::metrics::head::registry::LabelTable;
use crate::store::metrics::select::put_in_order;
use crate::store::metrics::tombstones::Deletions;
use crate::store::metrics::{MetricError, Point};

const EVERYTHING: (i64, i64) = (i64::MIN, i64::MAX);

/// A window of the head as it is written: everything is in its log.
pub(super) struct SealedWindow {
    pub(super) number: u64,
    pub(super) file: Arc<HeadFile>,
    pub(super) has_late: bool,
    /// Series and the places of their last chunks.
    pub(super) chains: Vec<(u32, u64)>,
    pub(super) labels: LabelTable,
}

/// Symbols of some labels in order, and the place in that order of each number of the table.
fn order_symbols(window: &SealedWindow) -> (Vec<Arc<str>>, Vec<u32>) {
    let symbols = &window.labels.symbols;
    let mut used = vec![false; symbols.len()];
    for (series, _) in &window.chains {
        for (name, value) in window.labels.pairs(*series) {
            for symbol in [name, value] {
                if let Some(used) = used.get_mut(symbol as usize) {
                    *used = true;
                }
            }
        }
    }
    let mut sorted: Vec<(u32, &Arc<str>)> =
        (0u32..).zip(symbols).filter(|(number, _)| used.get(*number as usize) == Some(&true)).collect();
    sorted.sort_unstable_by(|a, b| a.1.cmp(b.1));
    let mut ranks = vec![0; symbols.len()];
    for (rank, (number, _)) in (0u32..).zip(&sorted) {
        if let Some(place) = ranks.get_mut(*number as usize) {
            *place = rank;
        }
    }
    (sorted.into_iter().map(|(_, symbol)| Arc::clone(symbol)).collect(), ranks)
}

/// The first two labels, by which most series are told apart.
fn sort_key(pairs: &[(u32, u32)]) -> u128 {
    let word = |at: usize| pairs.get(at).map_or(0, |(name, value)| (u128::from(*name) << 32) | u128::from(*value));
    (word(0) << 64) | word(1)
}

/// Writes a window to a block. Returns whether something could not be read.
pub(super) fn write_window(
    disk: &Disk,
    path: &Path,
    window: &SealedWindow,
    deletions: &Deletions,
) -> Result<(Block, bool), MetricError> {
    let (symbols, ranks) = order_symbols(window);
    let rank = |symbol: u32| ranks.get(symbol as usize).copied().unwrap_or(0);
    let pairs_of = |series: u32, pairs: &mut Vec<(u32, u32)>| {
        pairs.clear();
        pairs.extend(window.labels.pairs(series).map(|(name, value)| (rank(name), rank(value))));
    };
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let mut order: Vec<(u128, u32, u64)> = Vec::with_capacity(window.chains.len());
    for (series, chain) in &window.chains {
        pairs_of(*series, &mut a);
        order.push((sort_key(&a), *series, *chain));
    }
    order.sort_unstable_by(|x, y| {
        x.0.cmp(&y.0).then_with(|| {
            pairs_of(x.1, &mut a);
            pairs_of(y.1, &mut b);
            a.cmp(&b)
        })
    });
    let text = |rank: u32| symbols.get(rank as usize).cloned().unwrap_or_default();
    let labels_of = |pairs: &[(u32, u32)]| Labels::from_pairs(pairs.iter().map(|(n, v)| (text(*n), text(*v))));
    let summary = Summary::made_of(0, vec![window.number], Vec::new());
    let mut writer = BlockWriter::create(disk, path, symbols.clone(), summary).map_err(MetricError::Cut)?;
    let mut cache = TimesCache::default();
    let (mut points, mut pairs, mut is_damaged) = (Vec::new(), Vec::new(), false);
    for (_, series, chain_at) in order {
        points.clear();
        match window.file.read_series(chain_at, window.has_late, &mut cache, (EVERYTHING, &mut points)) {
            Ok(()) => {}
            Err(why @ HeadLogError::Damaged { .. }) => {
                error!(error = %chain(&why), "samples of a series cannot be read");
                is_damaged = true;
            }
            Err(why) => {
                writer.abandon();
                return Err(MetricError::ReadHead(why));
            }
        }
        pairs_of(series, &mut pairs);
        put_in_order(&mut points);
        if !deletions.is_empty() {
            deletions.of(&labels_of(&pairs)).apply_to_window(window.number, 0, &mut points);
        }
        writer.add(&pairs, &points).map_err(MetricError::Cut)?;
    }
    Ok((writer.finish().map_err(MetricError::Cut)?, is_damaged))
}

/// A block that is read from its first series to its last.
struct Input {
    block: Arc<Block>,
    index: Arc<BlockIndex>,
    /// Where each of its symbols is among those of all inputs.
    ranks: Vec<u32>,
    cursor: Option<Cursor>,
    left: u32,
    entry: Entry,
    /// The entry's labels among the symbols of all inputs; `None` at the end.
    labels: Option<Vec<(u32, u32)>>,
}

impl Input {
    fn advance(&mut self) -> Result<(), BlockError> {
        self.labels = None;
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        let damaged = || self.block.damaged("its series table cannot be read");
        let cursor = self.cursor.as_mut().ok_or_else(damaged)?;
        cursor.next(&self.index, &mut self.entry).ok_or_else(damaged)?;
        let rank = |symbol: u32| self.ranks.get(symbol as usize).copied();
        let labels: Option<Vec<(u32, u32)>> =
            self.entry.labels.iter().map(|(name, value)| Some((rank(*name)?, rank(*value)?))).collect();
        self.labels = Some(labels.ok_or_else(damaged)?);
        Ok(())
    }
}

fn inputs_of(blocks: &[(Arc<Block>, Arc<BlockIndex>)]) -> (Vec<Arc<str>>, Vec<Input>) {
    let mut symbols: Vec<Arc<str>> = blocks.iter().flat_map(|(_, index)| index.symbols()).cloned().collect();
    symbols.sort_unstable();
    symbols.dedup();
    let rank = |symbol: &Arc<str>| symbols.binary_search(symbol).ok().and_then(|rank| u32::try_from(rank).ok());
    let inputs = blocks.iter().map(|(block, index)| Input {
        block: Arc::clone(block),
        index: Arc::clone(index),
        ranks: index.symbols().iter().map(|symbol| rank(symbol).unwrap_or(0)).collect(),
        cursor: index.cursor(0),
        left: index.series_count(),
        entry: Entry::default(),
        labels: None,
    });
    let inputs = inputs.collect();
    (symbols, inputs)
}

/// Writes the samples of some blocks to one, oldest block first: on equal times its value stays.
/// An error of a block names it; nothing is left of the new one then.
pub(super) fn merge_blocks(
    disk: &Disk,
    path: &Path,
    blocks: &[(Arc<Block>, Arc<BlockIndex>)],
    deletions: &Deletions,
) -> Result<Block, BlockError> {
    let (symbols, mut inputs) = inputs_of(blocks);
    let mut heads: Vec<u64> = blocks.iter().flat_map(|(block, _)| &block.summary.heads).copied().collect();
    heads.sort_unstable();
    heads.dedup();
    let replaces = blocks.iter().map(|(block, _)| block.number).collect();
    let summary = Summary::made_of(1, heads, replaces);
    let mut writer = BlockWriter::create(disk, path, symbols.clone(), summary)?;
    let mut merge = || -> Result<(), BlockError> {
        let mut cache = ColumnCache::default();
        let mut points: Vec<Point> = Vec::new();
        for input in &mut inputs {
            input.advance()?;
        }
        while let Some(labels) = inputs.iter().filter_map(|input| input.labels.clone()).min() {
            points.clear();
            let gone = if deletions.is_empty() {
                crate::store::metrics::tombstones::Gone::default()
            } else {
                let text = |rank: u32| symbols.get(rank as usize).cloned().unwrap_or_default();
                deletions.of(&Labels::from_pairs(labels.iter().map(|(n, v)| (text(*n), text(*v)))))
            };
            for input in inputs.iter_mut().filter(|input| input.labels.as_ref() == Some(&labels)) {
                let before = points.len();
                for chunk in &input.entry.chunks {
                    input.block.read_chunk(&input.index, *chunk, &mut cache, (EVERYTHING, &mut points))?;
                }
                gone.apply_to_block(input.block.number, before, &mut points);
                input.advance()?;
            }
            put_in_order(&mut points);
            writer.add(&labels, &points)?;
        }
        Ok(())
    };
    match merge() {
        Ok(()) => writer.finish(),
        Err(error) => {
            writer.abandon();
            Err(error)
        }
    }
}
