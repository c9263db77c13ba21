//! Moving records from the memory table into partitions, and dropping partitions.
//!
//! Every step can be interrupted:
//! 1. The write-ahead log starts a new segment whose first frame repeats the high-water marks.
//! 2. Each partition commits its records together with the frame number up to which it has them.
//! 3. Searches switch from the frozen table to the new commits, at one instant.
//! 4. Segments of the write-ahead log before step 1 are removed.
//!
//! Dying before 2 replays everything; between the commits of 2, each partition skips what it has; before 4, all of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tantivy::TantivyError;
use tracing::{error, info, warn};

use crate::model::{LogRecord, Timestamp};
use crate::platform::disk::Disk;

use super::partition::{Partition, PartitionView, Partitions, day_name, day_of, day_start, parse_day_name};
use super::{CommittedBatch, Inner, LogRecovery, LogStore, LogStoreError, codec};

/// The frozen memory table and where it ends in the write-ahead log.
struct Frozen {
    /// Frames before this one are in the frozen table or in partitions.
    frames_before: u64,
    /// The write-ahead log's own number of the first frame to keep.
    journal_seq: u64,
}

/// The one who changes partitions.
pub(super) struct Sealer {
    disk: Disk,
    dir: PathBuf,
    days: BTreeMap<i64, Partition>,
    /// Partitions whose checksums were not compared since the start.
    unverified: Vec<i64>,
    frozen: Option<Frozen>,
}

impl Sealer {
    /// Opens every partition; finishes removals that were interrupted.
    pub(super) fn open(disk: &Disk, dir: &Path, recovery: &mut LogRecovery) -> Result<Self, LogStoreError> {
        let open_error = |source| LogStoreError::Open { dir: dir.to_owned(), source };
        disk.create_dir_all(dir).map_err(open_error)?;
        let mut days = BTreeMap::new();
        for path in disk.list(dir).map_err(open_error)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(".trash-") {
                remove_all(disk, &path)?;
            }
            let Some(day) = parse_day_name(name) else { continue };
            match Partition::open(disk, &path, day) {
                Ok(partition) => {
                    days.insert(day, partition);
                }
                Err(_) if holds_no_commit(disk, &path) => remove_all(disk, &path)?,
                Err(error) => {
                    warn!(partition = name, %error, "a log partition cannot be opened and is set aside");
                    recovery.damaged.push(set_aside(disk, &path).map_err(open_error)?);
                }
            }
        }
        let unverified = days.keys().copied().collect();
        Ok(Self { disk: disk.clone(), dir: dir.to_owned(), days, unverified, frozen: None })
    }

    pub(super) fn views(&self) -> Result<Partitions, LogStoreError> {
        self.days.values().map(view_of).collect()
    }

    pub(super) fn frames_before(&self) -> u64 {
        self.days.values().map(|partition| partition.frames_before).max().unwrap_or(0)
    }

    pub(super) fn frames_before_of(&self, day: i64) -> u64 {
        self.days.get(&day).map_or(0, |partition| partition.frames_before)
    }

    /// Adds the records of one day and returns the new view.
    fn commit(
        &mut self,
        day: i64,
        records: &[(u64, &LogRecord)],
        frames_before: u64,
    ) -> Result<Arc<PartitionView>, LogStoreError> {
        let name = day_name(day);
        let seal_error = |source| LogStoreError::Seal { partition: name.clone(), source };
        if !self.days.contains_key(&day) {
            let dir = self.dir.join(&name);
            // What a creation that was cut short left behind.
            if dir.exists() && holds_no_commit(&self.disk, &dir) {
                remove_all(&self.disk, &dir)?;
            }
            let partition = Partition::create(&self.disk, &dir, day).map_err(seal_error)?;
            self.disk.sync_dir(&self.dir).map_err(|error| seal_error(TantivyError::from(error)))?;
            self.days.insert(day, partition);
        }
        let Some(partition) = self.days.get_mut(&day) else {
            return Err(seal_error(TantivyError::SystemError("the partition vanished".to_owned())));
        };
        partition.commit(records.iter().copied(), frames_before).map_err(seal_error)?;
        view_of(partition)
    }

    /// Takes a partition away: renamed first, so that an interrupted removal is finished at the next start.
    fn drop_day(&mut self, day: i64) -> Result<(), LogStoreError> {
        let Some(partition) = self.days.remove(&day) else { return Ok(()) };
        self.unverified.retain(|other| *other != day);
        let trash = self.dir.join(format!(".trash-{}", day_name(day)));
        let failed = |source| LogStoreError::Remove { path: partition.dir.clone(), source };
        self.disk.rename(&partition.dir, &trash).map_err(failed)?;
        self.disk.sync_dir(&self.dir).map_err(failed)?;
        remove_all(&self.disk, &trash)
    }
}

fn view_of(partition: &Partition) -> Result<Arc<PartitionView>, LogStoreError> {
    let view = partition.view();
    view.map(Arc::new).map_err(|source| LogStoreError::Read { partition: day_name(partition.day), source })
}

fn remove_all(disk: &Disk, path: &Path) -> Result<(), LogStoreError> {
    match disk.remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LogStoreError::Remove { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// A directory without `meta.json` and without data files never had a commit.
fn holds_no_commit(disk: &Disk, dir: &Path) -> bool {
    let files = disk.list(dir).unwrap_or_default();
    !files.iter().any(|file| {
        file.file_name().is_some_and(|name| name == "meta.json") || file.extension().is_some_and(|ext| ext == "store")
    })
}

/// Renames a damaged directory to the first free `<name>.damaged-N`.
fn set_aside(disk: &Disk, path: &Path) -> io::Result<PathBuf> {
    let mut number = 1;
    loop {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".damaged-{number}"));
        let aside = path.with_file_name(name);
        if !aside.exists() {
            disk.rename(path, &aside)?;
            return Ok(aside);
        }
        number += 1;
    }
}

impl LogStore {
    /// Housekeeping, to be called once a minute or so: drops what is too old or too much, compares the checksums of one
    /// partition that was not looked at since the start.
    pub fn maintain(&self, now: Timestamp) -> Result<(), LogStoreError> {
        self.drop_old(now)?;
        self.verify_one()
    }

    /// Seals the memory table if it is old or large, or if sealing it failed before. To be called every second, and when
    /// [`LogStore::seal_wanted`] says so: appends are refused when this does not keep up.
    pub fn seal_due(&self, now: Timestamp) -> Result<(), LogStoreError> {
        let due = {
            let state = self.0.state.read();
            let old = state.active_since.is_some_and(|since| now.since(since) >= self.0.options.seal_after);
            old || state.active_bytes >= self.0.options.seal_bytes || !state.frozen.is_empty()
        };
        if due { self.seal() } else { Ok(()) }
    }

    /// Moves everything in memory into partitions. After an error the records are where they were, searchable; the next
    /// call tries again.
    pub fn seal(&self) -> Result<(), LogStoreError> {
        let mut sealer = self.0.sealer.lock();
        if sealer.frozen.is_none() {
            // What is left to sync while appends wait is then little.
            self.sync()?;
            sealer.frozen = self.0.freeze()?;
        }
        let Some(Frozen { frames_before, journal_seq }) = sealer.frozen else { return Ok(()) };
        let batches: Arc<Vec<Arc<CommittedBatch>>> = Arc::clone(&self.0.state.read().frozen);
        let mut by_day: BTreeMap<i64, Vec<(u64, &LogRecord)>> = BTreeMap::new();
        for (seq, record) in batches.iter().flat_map(|batch| batch.iter()) {
            by_day.entry(day_of(record.at)).or_default().push((seq, record));
        }
        let mut views = Vec::new();
        for (day, mut records) in by_day {
            // Time order makes a search read the stored blocks one after the other.
            records.sort_unstable_by_key(|(seq, record)| (record.at, *seq));
            views.push(sealer.commit(day, &records, frames_before)?);
        }
        {
            let mut state = self.0.state.write();
            state.partitions.retain(|old| !views.iter().any(|new| new.day == old.day));
            state.partitions.extend(views);
            state.partitions.sort_by_key(|partition| partition.day);
            state.frozen = Arc::default();
            state.frozen_bytes = 0;
        }
        sealer.frozen = None;
        let dropped = self.0.writer.lock().journal.drop_before(journal_seq);
        // The frames are sealed: replaying them at the next start would skip them.
        if let Err(error) = dropped {
            warn!(%error, "old segments of the logs' write-ahead log could not be removed");
        }
        Ok(())
    }

    fn drop_old(&self, now: Timestamp) -> Result<(), LogStoreError> {
        let mut sealer = self.0.sealer.lock();
        let horizon = now - self.0.options.retention;
        let sizes: Vec<(i64, u64)> =
            self.0.state.read().partitions.iter().map(|partition| (partition.day, partition.bytes)).collect();
        let mut total: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
        let newest = sizes.last().map(|(day, _)| *day);
        for (day, bytes) in sizes {
            let too_old = day_start(day + 1) <= horizon;
            let too_much = self.0.options.max_bytes.is_some_and(|max| total > max) && newest != Some(day);
            if too_old || too_much {
                info!(partition = day_name(day), bytes, too_old, "dropping a log partition");
                self.0.state.write().partitions.retain(|partition| partition.day != day);
                total -= bytes;
                sealer.drop_day(day)?;
            }
        }
        Ok(())
    }

    fn verify_one(&self) -> Result<(), LogStoreError> {
        let mut sealer = self.0.sealer.lock();
        let Some(day) = sealer.unverified.pop() else { return Ok(()) };
        let Some(partition) = sealer.days.get(&day) else { return Ok(()) };
        let damaged = match partition.damaged_files() {
            Ok(files) if files.is_empty() => return Ok(()),
            Ok(files) => format!("{files:?}"),
            Err(error) => error.to_string(),
        };
        error!(partition = day_name(day), damaged, "a log partition is damaged and is set aside");
        let dir = partition.dir.clone();
        self.0.state.write().partitions.retain(|partition| partition.day != day);
        sealer.days.remove(&day);
        set_aside(&sealer.disk, &dir).map_err(|source| LogStoreError::Open { dir, source })?;
        Ok(())
    }
}

impl Inner {
    /// Makes the active table the frozen one, `None` when it is empty.
    fn freeze(&self) -> Result<Option<Frozen>, LogStoreError> {
        let mut writer = self.writer.lock();
        if self.state.read().active.is_empty() {
            return Ok(None);
        }
        writer.journal.rotate()?;
        let frames_before = writer.next_frame;
        let journal_seq = writer.journal.next_seq();
        let checkpoint = codec::encode_checkpoint(frames_before, &self.marks.lock().marks());
        writer.journal.append(&checkpoint)?;
        let mut state = self.state.write();
        state.frozen = Arc::new(std::mem::take(&mut state.active));
        state.frozen_bytes = std::mem::take(&mut state.active_bytes);
        state.active_since = None;
        Ok(Some(Frozen { frames_before, journal_seq }))
    }
}
