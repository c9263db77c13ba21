//! What the store does beside taking and giving samples: moving them out of memory, to blocks, to larger blocks; deleting.
//!
//! Every step can be cut off: it names its result before it removes what the result replaces.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::info;

use super::{MetricError, MetricStore, millis};
use crate::model::{Matcher, Timestamp};
use crate::store::metrics::block::index::BlockIndex;
use crate::store::metrics::block::{Block, BlockError, file_name};
use crate::store::metrics::compact::{SealedWindow, merge_blocks, write_window};
use crate::store::metrics::head::window::Window;
use crate::store::metrics::head::{Head, WINDOW_MS};
use crate::store::metrics::tombstones::{Deletion, Deletions};

/// A window that is still being written to late is moved to a block at the latest after this.
const LATE_WINDOW_AGE_MAX_MS: i64 = 3600 * 1000;
/// A late window that was not written to for this long is moved to a block.
const LATE_WINDOW_IDLE_MS: i64 = 300 * 1000;
/// Samples stay in memory and in the write-ahead log about so long.
const OPEN_MS: i64 = 300 * 1000;
/// A larger write-ahead log is emptied before that.
const WAL_BYTES_MAX: u64 = 64 << 20;
/// A smaller one is not worth a new segment.
const WAL_ROTATE_BYTES: u64 = 64 << 10;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// When which batch was the next one, oldest first.
#[derive(Debug, Default)]
pub(super) struct Marks(VecDeque<(i64, u64)>);

impl Marks {
    /// Notes the next batch; returns the one that was next [`OPEN_MS`] ago.
    fn note(&mut self, now_ms: i64, next_batch: u64) -> u64 {
        // A clock that was set back makes old marks meaningless.
        self.0.retain(|(at_ms, _)| *at_ms <= now_ms);
        self.0.push_back((now_ms, next_batch));
        let old = self.0.iter().filter(|(at_ms, _)| at_ms.saturating_add(OPEN_MS) <= now_ms);
        let due = old.map(|(_, batch)| *batch).max().unwrap_or(0);
        self.0.retain(|(_, batch)| *batch >= due);
        due
    }
}

fn day_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(DAY_MS)
}

impl MetricStore {
    /// Moves samples from memory to the windows' logs, finished windows to blocks, finished days to larger blocks, and
    /// deletes what is past the retention. Call once a minute.
    pub fn maintain(&self, now: Timestamp) -> Result<(), MetricError> {
        let mut marks = self.maintaining.lock();
        // First, since on a full disk this is what makes room.
        self.delete_old_blocks(now)?;
        self.freeze(now);
        let next_batch = self.wal.lock().next_batch();
        let mut before = marks.note(now.millis(), next_batch);
        if self.wal.lock().bytes() > WAL_BYTES_MAX {
            before = u64::MAX;
        }
        self.seal(before)?;
        self.cut()?;
        self.compact(now)?;
        self.forget_deletions()
    }

    /// Marks the windows that are over, so that they take no more samples.
    fn freeze(&self, now: Timestamp) {
        let now_ms = now.millis();
        let over_before_ms = now_ms.saturating_sub(millis(self.options.out_of_order)).saturating_sub(WINDOW_MS);
        self.state.write().head.freeze(|start_ms, (first_ms, last_ms)| {
            let quiet = now_ms.saturating_sub(last_ms) >= LATE_WINDOW_IDLE_MS;
            start_ms <= over_before_ms && (quiet || now_ms.saturating_sub(first_ms) >= LATE_WINDOW_AGE_MAX_MS)
        });
    }

    /// Moves runs that began before a batch, and all of frozen windows, to the logs; then shortens the write-ahead log.
    pub(super) fn seal(&self, before: u64) -> Result<(), MetricError> {
        let windows: Vec<(u64, bool)> =
            self.state.read().head.windows().iter().map(|window| (window.number, window.is_frozen)).collect();
        for (number, is_frozen) in windows {
            let before = if is_frozen { u64::MAX } else { before };
            let mut from = Some(0);
            while let Some(slot) = from {
                // Some series at a time, so that nobody waits long.
                let wal = self.wal.lock();
                let mut state = self.state.write();
                let sealed = state.head.window_mut(number).map(|w| w.seal_slice(slot, (before, wal.next_batch())));
                from = sealed.transpose().map_err(MetricError::WriteHead)?.flatten();
            }
        }
        let oldest = self.state.read().head.oldest_batch();
        self.sync_heads()?;
        let mut wal = self.wal.lock();
        if wal.bytes() > WAL_ROTATE_BYTES {
            wal.rotate().map_err(MetricError::Append)?;
        }
        wal.drop_before(oldest).map_err(MetricError::ShortenLog)
    }

    /// Makes what is in the windows' logs survive power loss.
    pub(super) fn sync_heads(&self) -> Result<(), MetricError> {
        let handles = self.state.write().head.sync_handles();
        let synced = handles.and_then(|handles| handles.iter().try_for_each(crate::platform::disk::DiskFile::sync));
        // As with the write-ahead log: what could not be synced may be gone, so nothing more is promised.
        synced.map_err(|source| MetricError::Sync(self.wal.lock().sync_failed(source)))
    }

    /// Writes frozen windows to blocks.
    fn cut(&self) -> Result<(), MetricError> {
        loop {
            let Some(window) = self.state.read().head.frozen() else { return Ok(()) };
            self.cut_window(&window)?;
        }
    }

    fn cut_window(&self, window: &SealedWindow) -> Result<(), MetricError> {
        let mut block = None;
        let mut is_damaged = false;
        if !window.chains.is_empty() {
            let path = self.next_path(window.file.start_ms());
            let deletions = Arc::clone(&self.state.read().deletions);
            let (written, damaged) = write_window(&self.disk, &path, window, &deletions)?;
            info!(path = %path.display(), samples = written.summary.samples, bytes = written.bytes, "wrote a block of metrics");
            (block, is_damaged) = (Some(Arc::new(written)), damaged);
        }
        let removed = {
            let mut state = self.state.write();
            state.blocks.extend(block);
            state.blocks.sort_by_key(|block| block.number);
            state.head.remove(window.number)
        };
        let Some(path) = removed.as_ref().map(Window::log_path) else { return Ok(()) };
        let gone = if is_damaged {
            self.disk.rename(path, &path.with_extension("head.damaged"))
        } else {
            self.disk.remove_file(path)
        };
        gone.map_err(|source| MetricError::Delete { path: path.to_owned(), source })
    }

    fn next_path(&self, min_ms: i64) -> std::path::PathBuf {
        let number = self.next_block.fetch_add(1, Ordering::SeqCst);
        self.dir.join(file_name(min_ms, number))
    }

    /// Merges the blocks of one finished day, if there is any to merge.
    fn compact(&self, now: Timestamp) -> Result<(), MetricError> {
        let over_before = day_of(now.millis().saturating_sub(millis(self.options.out_of_order) + WINDOW_MS));
        let due = {
            let state = self.state.read();
            let busy: Vec<i64> = state.head.windows().iter().map(|window| day_of(window.start_ms)).collect();
            let mut days: BTreeMap<i64, Vec<Arc<Block>>> = BTreeMap::new();
            for block in &state.blocks {
                days.entry(day_of(block.summary.min_ms)).or_default().push(Arc::clone(block));
            }
            let is_due = |day: i64, blocks: &[Arc<Block>]| {
                day < over_before && !busy.contains(&day) && blocks.iter().any(|block| block.summary.level == 0)
            };
            days.into_iter().find(|(day, blocks)| is_due(*day, blocks)).map(|(_, blocks)| blocks)
        };
        due.map_or(Ok(()), |blocks| self.merge(&blocks))
    }

    fn merge(&self, blocks: &[Arc<Block>]) -> Result<(), MetricError> {
        let mut inputs: Vec<(Arc<Block>, Arc<BlockIndex>)> = Vec::new();
        for block in blocks {
            if let Some(index) = self.index_of(block)? {
                inputs.push((Arc::clone(block), index));
            }
        }
        let Some(min_ms) = inputs.iter().map(|(block, _)| block.summary.min_ms).min() else { return Ok(()) };
        let path = self.next_path(min_ms);
        let deletions = Arc::clone(&self.state.read().deletions);
        let merged = match merge_blocks(&self.disk, &path, &inputs, &deletions) {
            Ok(merged) => merged,
            Err(why @ (BlockError::Damaged { .. } | BlockError::OtherFormat { .. })) => {
                let damaged = inputs.iter().find(|(block, _)| why.path() == block.path);
                if let Some((block, _)) = damaged {
                    self.set_aside(block, &why);
                }
                return Ok(());
            }
            Err(error) => return Err(MetricError::Cut(error)),
        };
        info!(path = %path.display(), blocks = inputs.len(), bytes = merged.bytes, "merged blocks of metrics");
        {
            let mut state = self.state.write();
            state.blocks.retain(|block| !inputs.iter().any(|(input, _)| input.number == block.number));
            state.blocks.push(Arc::new(merged));
            state.blocks.sort_by_key(|block| block.number);
        }
        inputs.iter().try_for_each(|(block, _)| self.remove_block(block))
    }

    fn remove_block(&self, block: &Block) -> Result<(), MetricError> {
        self.indexes.lock().forget(&block.path);
        let removed = self.disk.remove_file(&block.path);
        removed.map_err(|source| MetricError::Delete { path: block.path.clone(), source })
    }

    fn delete_old_blocks(&self, now: Timestamp) -> Result<(), MetricError> {
        let oldest_ms = (now - self.options.retention).millis();
        let logs = self.wal.lock().bytes();
        let old: Vec<Arc<Block>> = {
            let mut state = self.state.write();
            let mut old: Vec<Arc<Block>> =
                state.blocks.extract_if(.., |block| block.summary.max_ms < oldest_ms).collect();
            if let Some(max_bytes) = self.options.max_bytes {
                let mut bytes = logs + state.head.log_bytes() + state.blocks.iter().map(|b| b.bytes).sum::<u64>();
                while bytes > max_bytes
                    && let Some((at, _)) = state.blocks.iter().enumerate().min_by_key(|(_, b)| b.summary.max_ms)
                {
                    let block = state.blocks.remove(at);
                    bytes -= block.bytes;
                    old.push(block);
                }
            }
            old
        };
        old.iter().try_for_each(|block| self.remove_block(block))
    }

    /// Deletes the samples of the series that satisfy every matcher, in `start_ms..=end_ms`, as far as they are there
    /// now. Their space comes back when their blocks are rewritten. Until its window is in a block, a sample that is
    /// written again to such a range stays hidden.
    pub fn delete(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Result<(), MetricError> {
        let _one_at_a_time = self.deleting.lock();
        let end_ms = end_ms.min(self.max_ms.load(Ordering::Relaxed));
        let mut state = self.state.write();
        let deletion = Deletion {
            matchers: matchers.to_vec(),
            start_ms,
            end_ms,
            blocks_below: self.next_block.load(Ordering::SeqCst),
            windows_below: state.head.next_window(),
        };
        let mut deletions = Deletions::clone(&state.deletions);
        deletions.push(deletion).map_err(MetricError::DeleteSamples)?;
        deletions.save(&self.disk, &self.dir).map_err(MetricError::DeleteSamples)?;
        state.deletions = Arc::new(deletions);
        Ok(())
    }

    /// Rewrites the blocks that hold deleted samples.
    pub fn clean_tombstones(&self) -> Result<(), MetricError> {
        let _only_one = self.maintaining.lock();
        let concerned: Vec<Arc<Block>> = {
            let state = self.state.read();
            let concerns = |block: &&Arc<Block>| {
                state.deletions.concern_block(block.number, (block.summary.min_ms, block.summary.max_ms))
            };
            state.blocks.iter().filter(concerns).cloned().collect()
        };
        for block in concerned {
            self.merge(&[block])?;
        }
        self.forget_deletions()
    }

    fn forget_deletions(&self) -> Result<(), MetricError> {
        let _one_at_a_time = self.deleting.lock();
        let mut state = self.state.write();
        if state.deletions.is_empty() {
            return Ok(());
        }
        let of_block = |block: &Arc<Block>| (block.number, block.summary.min_ms, block.summary.max_ms);
        let blocks: Vec<_> = state.blocks.iter().map(of_block).collect();
        let of_window = |window: &Window| (window.number, window.start_ms, window.start_ms + WINDOW_MS);
        let windows: Vec<_> = state.head.windows().iter().map(of_window).collect();
        let mut deletions = Deletions::clone(&state.deletions);
        if deletions.forget_done(&blocks, &windows) {
            deletions.save(&self.disk, &self.dir).map_err(MetricError::DeleteSamples)?;
            state.deletions = Arc::new(deletions);
        }
        Ok(())
    }

    /// Makes a copy of everything in a new directory, which opens as a store of its own: blocks are linked, what is in
    /// the head becomes blocks.
    pub fn snapshot(&self, dir: &Path) -> Result<(), MetricError> {
        let _only_one = self.maintaining.lock();
        let failed = |source| MetricError::Snapshot { dir: dir.to_owned(), source };
        self.disk.create_dir_all(dir).map_err(failed)?;
        self.seal(u64::MAX)?;
        let (blocks, windows, deletions) = {
            let state = self.state.read();
            let windows: Vec<SealedWindow> = state.head.sealed();
            (state.blocks.clone(), windows, Arc::clone(&state.deletions))
        };
        for block in blocks {
            let to = dir.join(block.path.file_name().unwrap_or_default());
            self.disk.hard_link(&block.path, &to).map_err(failed)?;
        }
        for window in windows.iter().filter(|window| !window.chains.is_empty()) {
            let number = self.next_block.fetch_add(1, Ordering::SeqCst);
            let path = dir.join(file_name(window.file.start_ms(), number));
            write_window(&self.disk, &path, window, &deletions)?;
        }
        deletions.save(&self.disk, dir).map_err(MetricError::DeleteSamples)?;
        self.disk.sync_dir(dir).map_err(failed)
    }
}

impl Head {
    /// A window that is frozen and wholly in its log.
    fn frozen(&self) -> Option<SealedWindow> {
        self.windows().iter().find(|window| window.is_frozen && window.is_sealed()).and_then(|w| self.seal_of(w))
    }

    /// What the logs hold of every window.
    fn sealed(&self) -> Vec<SealedWindow> {
        self.windows().iter().filter_map(|window| self.seal_of(window)).collect()
    }

    fn seal_of(&self, window: &Window) -> Option<SealedWindow> {
        let (file, has_late) = window.file();
        let labels = self.registry(window.registry)?.label_table();
        Some(SealedWindow { number: window.number, file, has_late, chains: window.chains(), labels })
    }
}
