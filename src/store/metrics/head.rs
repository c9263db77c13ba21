//! The head: recent samples, by windows of two hours.
//!
//! A window is filled, frozen, written to a block and dropped as a whole; nothing is ever removed from the middle of it.
//! Windows share a [`Registry`] of series. When most of its series are gone, the next window gets a new one, and the old
//! one goes with its last window: that is how vanished series leave memory.
//!
//! Invariants: samples of a window are in one window of that number; a frozen window has everything in its log.

pub(super) mod buffers;
pub(super) mod log;
pub(super) mod registry;
pub(super) mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::{Labels, Matcher};
use crate::platform::disk::{Disk, DiskFile};
use crate::store::metrics::Point;
use crate::store::metrics::head::log::{HeadFile, HeadLogError};
use crate::store::metrics::head::registry::{LabelHash, Registry};
pub(super) use crate::store::metrics::head::window::Hint;
use crate::store::metrics::head::window::{Recovering, Window};
use crate::store::metrics::postings;

/// Length of a window, of the time that one block file covers.
pub(super) const WINDOW_MS: i64 = 2 * 3600 * 1000;
/// A registry of fewer series is not worth replacing.
const RENEW_SERIES_MIN: usize = 10_000;

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

/// Samples of one series in one window, for reading.
#[derive(Clone, Debug)]
pub(super) struct HeadPart {
    pub(super) file: Arc<HeadFile>,
    /// Place of the last chunk in the file; 0 for none.
    pub(super) chain: u64,
    pub(super) has_late: bool,
    /// What was in memory, in any order.
    pub(super) memory: Vec<Point>,
}

/// Why a sample has no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSlot {
    TooManySeries,
    /// The labels are none.
    Invalid,
}

/// Where a sample goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Number of the window.
    pub(super) window: u64,
    pub(super) slot: u32,
    pub(super) point: Point,
}

/// All recent series.
#[derive(Debug)]
pub(super) struct Head {
    disk: Disk,
    dir: PathBuf,
    registries: BTreeMap<u32, Registry>,
    /// The registry of the next window.
    current: u32,
    /// In order of their numbers; a handful.
    windows: Vec<Window>,
    next_window: u64,
}

impl Head {
    /// Opens the logs in a directory, apart from those of windows that are in blocks, which are removed.
    pub(super) fn open(
        disk: &Disk,
        dir: &Path,
        in_blocks: &dyn Fn(u64) -> bool,
        next_window: u64,
    ) -> Result<(Self, Recovery), HeadLogError> {
        let read_error = |source| HeadLogError::Read { path: dir.to_owned(), source };
        disk.create_dir_all(dir).map_err(read_error)?;
        let mut head = Self {
            disk: disk.clone(),
            dir: dir.to_owned(),
            registries: BTreeMap::from([(0, Registry::default())]),
            current: 0,
            windows: Vec::new(),
            next_window,
        };
        let mut recovery = Recovery::default();
        for path in disk.list(dir).map_err(read_error)? {
            let Some((number, start_ms)) = log::parse_name(&path) else { continue };
            head.next_window = head.next_window.max(number + 1);
            if in_blocks(number) {
                disk.remove_file(&path).map_err(read_error)?;
                continue;
            }
            let Self { registries, .. } = &mut head;
            let mut scratch = Vec::new();
            let registry = registries.entry(0).or_default();
            let mut register = |labels: &Labels| {
                let hash = registry::hash_of(labels, &mut scratch);
                registry.find(hash).or_else(|| registry.register(hash, labels))
            };
            let (window, recovering, cut_off) = Window::open(disk, &path, (number, start_ms), (0, &mut register))?;
            recovery.windows.insert(number, recovering);
            match cut_off.aside {
                Some(path) => recovery.damaged.push(path),
                None => recovery.torn_bytes += cut_off.bytes,
            }
            head.windows.push(window);
        }
        head.windows.sort_by_key(|window| window.number);
        let mut starts = BTreeSet::new();
        for window in head.windows.iter_mut().rev() {
            // Of two windows of one time the older one was about to become a block.
            window.is_frozen = !starts.insert(window.start_ms);
        }
        Ok((head, recovery))
    }

    pub(super) fn series_count(&self) -> usize {
        self.registries.get(&self.current).map_or(0, Registry::len)
    }

    pub(super) fn registry(&self, number: u32) -> Option<&Registry> {
        self.registries.get(&number)
    }

    pub(super) fn registries(&self) -> impl Iterator<Item = &Registry> {
        self.registries.values()
    }

    pub(super) fn windows(&self) -> &[Window] {
        &self.windows
    }

    pub(super) fn bytes(&self) -> usize {
        if self.windows.is_empty() {
            return 0;
        }
        let registries: usize = self.registries.values().map(Registry::bytes).sum();
        registries + self.windows.iter().map(Window::bytes).sum::<usize>()
    }

    pub(super) fn log_bytes(&self) -> u64 {
        self.windows.iter().map(Window::log_bytes).sum()
    }

    /// Number of the next window.
    pub(super) fn next_window(&self) -> u64 {
        self.next_window
    }

    /// Notes that the write-ahead log knows a window of this number, which no other may get.
    pub(super) fn note_window(&mut self, number: u64) {
        self.next_window = self.next_window.max(number.saturating_add(1));
    }

    /// The window that takes samples of this time; makes one if there is none.
    pub(super) fn window_for(&mut self, at_ms: i64) -> Result<usize, HeadLogError> {
        let start_ms = window_start(at_ms);
        let is_it = |window: &Window| window.start_ms == start_ms && !window.is_frozen;
        if let Some(at) = self.windows.iter().position(is_it) {
            return Ok(at);
        }
        self.renew_registry(start_ms);
        let number = self.next_window;
        let path = self.dir.join(window::file_name(number, start_ms));
        let (window, _, _) = Window::open(&self.disk, &path, (number, start_ms), (self.current, &mut |_| None))?;
        self.next_window += 1;
        self.windows.push(window);
        Ok(self.windows.len() - 1)
    }

    /// Starts a new registry before a new window if most series of this one were not in the window before.
    fn renew_registry(&mut self, start_ms: i64) {
        let Some(newest) = self.windows.iter().max_by_key(|window| window.start_ms) else { return };
        let known = self.series_count();
        if newest.start_ms < start_ms && known >= RENEW_SERIES_MIN && newest.series_count() * 4 < known * 3 {
            self.current += 1;
            self.registries.insert(self.current, Registry::default());
        }
    }

    pub(super) fn window_mut(&mut self, number: u64) -> Option<&mut Window> {
        self.windows.iter_mut().find(|window| window.number == number)
    }

    pub(super) fn window_at(&mut self, at: usize) -> Option<&mut Window> {
        self.windows.get_mut(at)
    }

    /// The number and the slot of a series in a window; makes them while the registry has fewer than `max_series`.
    /// `labels` is asked for series that the registry does not know. `guess` is tried before the series is looked up.
    pub(super) fn slot(
        &mut self,
        (window, guess): (usize, u32),
        hash: LabelHash,
        max_series: usize,
        labels: impl FnOnce() -> Option<Labels>,
    ) -> Result<(u32, u32), NoSlot> {
        let window = self.windows.get_mut(window).ok_or(NoSlot::TooManySeries)?;
        let registry = self.registries.get_mut(&window.registry).ok_or(NoSlot::TooManySeries)?;
        let known = if registry.is(guess, hash) { Some(guess) } else { registry.find(hash) };
        let series = if let Some(series) = known {
            series
        } else {
            let labels = labels().ok_or(NoSlot::Invalid)?;
            // A sender may write the labels in a way of its own.
            let canonical = registry::hash_of(&labels, &mut Vec::new());
            match registry.find(canonical) {
                Some(series) => series,
                None if registry.len() >= max_series => return Err(NoSlot::TooManySeries),
                None => registry.register(canonical, &labels).ok_or(NoSlot::TooManySeries)?,
            }
        };
        Ok((series, window.slot_of(series, registry)))
    }

    /// Time of the newest sample of a series of the window at `window`, there or in later ones.
    pub(super) fn newest_ms(&self, window: usize, series: u32) -> Option<i64> {
        let (start_ms, number) = self.windows.get(window).map(|window| (window.start_ms, window.registry))?;
        let hash = self.registries.get(&number)?.hash(series)?;
        let later = self.windows.iter().filter(|other| other.start_ms >= start_ms);
        later
            .filter_map(|other| {
                let series = self.registries.get(&other.registry)?.find(hash)?;
                other.newest_ms(other.find_slot(series)?)
            })
            .max()
    }

    /// Whether a window holds the newest samples of all.
    pub(super) fn is_newest_window(&self, window: usize) -> bool {
        let start_ms = self.windows.get(window).map(|window| window.start_ms);
        self.windows.iter().all(|other| Some(other.start_ms) <= start_ms)
    }

    /// Parts of the series that satisfy the matchers, in no order.
    pub(super) fn select(&self, matchers: &[Matcher], range: (i64, i64)) -> Vec<(Labels, Vec<HeadPart>)> {
        let mut found = Vec::new();
        for (number, registry) in &self.registries {
            let windows: Vec<&Window> = self
                .windows
                .iter()
                .filter(|window| window.registry == *number)
                .filter(|window| window.start_ms <= range.1 && window.start_ms.saturating_add(WINDOW_MS) > range.0)
                .collect();
            if windows.is_empty() {
                continue;
            }
            for series in postings::select(registry, matchers) {
                let parts: Vec<HeadPart> = windows.iter().filter_map(|window| window.part_of(series, range)).collect();
                if !parts.is_empty() {
                    found.push((registry.labels(series), parts));
                }
            }
        }
        found
    }

    /// Removes a window that is in a block, and what nobody uses any more.
    pub(super) fn remove(&mut self, number: u64) -> Option<Window> {
        let at = self.windows.iter().position(|window| window.number == number)?;
        let removed = self.windows.remove(at);
        if self.windows.is_empty() {
            // All series may be gone; the next window starts afresh.
            self.current += 1;
            self.registries.insert(self.current, Registry::default());
        }
        let (windows, current) = (&self.windows, self.current);
        self.registries.retain(|number, _| *number == current || windows.iter().any(|w| w.registry == *number));
        Some(removed)
    }

    /// Freezes the windows that are due by their start and by when they were first and last written to.
    pub(super) fn freeze(&mut self, is_due: impl Fn(i64, (i64, i64)) -> bool) {
        for window in self.windows.iter_mut().filter(|window| is_due(window.start_ms, window.written_ms)) {
            window.is_frozen = true;
        }
    }

    /// What to sync so that the logs survive power loss.
    pub(super) fn sync_handles(&mut self) -> std::io::Result<Vec<DiskFile>> {
        let handles = self.windows.iter_mut().map(|window| window.log.sync_handle());
        handles.filter_map(std::io::Result::transpose).collect()
    }

    /// Number of the oldest batch of which something is in memory only.
    pub(super) fn oldest_batch(&self) -> u64 {
        self.windows.iter().map(Window::oldest_batch).min().unwrap_or(u64::MAX)
    }

    /// Notes in every log that the store was opened again, so that slots declared from now on are not taken for those
    /// of batches before.
    pub(super) fn reopened(&mut self, next_batch: u64, now_ms: i64) {
        for window in &mut self.windows {
            window.note_written(now_ms);
            window.note_reopened(next_batch);
        }
    }

    /// The registry of the next window.
    pub(super) fn current_registry(&self) -> Option<&Registry> {
        self.registries.get(&self.current)
    }

    /// Time of the newest sample.
    pub(super) fn max_ms(&self) -> Option<i64> {
        self.windows.iter().filter_map(Window::max_ms).max()
    }

    /// Start of the earliest window.
    pub(super) fn min_ms(&self) -> Option<i64> {
        self.windows.iter().map(Window::min_ms).min()
    }
}

/// What opening the head found; needed until the write-ahead log has been replayed.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    windows: BTreeMap<u64, Recovering>,
    pub(super) damaged: Vec<PathBuf>,
    pub(super) torn_bytes: u64,
}

impl Recovery {
    /// The lowest number that a new batch may have.
    pub(super) fn next_batch(&self) -> u64 {
        self.windows.values().map(Recovering::next_batch).max().unwrap_or(0)
    }

    /// Adds a sample of the write-ahead log unless it is there already; `None` when its series is not known.
    pub(super) fn replay(&self, head: &mut Head, batch: u64, (place, hint): (Place, &mut Hint)) -> Option<bool> {
        let recovering = self.windows.get(&place.window)?;
        if !recovering.is_wanted(place.slot, batch)? {
            return Some(false);
        }
        let window = head.window_mut(place.window)?;
        if window.judge(place.slot, place.point).ok()? != Fate::Appended {
            return Some(false);
        }
        window.push(place.slot, place.point, batch, hint);
        Some(true)
    }
}
