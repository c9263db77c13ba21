//! Faults for tests: a disk that is full, breaks at a chosen operation, or forgets what was not synced.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// How long a disk stays broken once it broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaks {
    /// For one operation; the next one works.
    Once,
    /// For good, as for a process that was killed.
    ForGood,
}

/// A change of names that power loss may undo.
#[derive(Debug)]
enum Undo {
    Created(PathBuf),
    Removed { path: PathBuf, bytes: Vec<u8> },
    Renamed { from: PathBuf, to: PathBuf, replaced: Option<Vec<u8>> },
}

impl Undo {
    fn is_in(&self, dir: &Path) -> bool {
        let (Self::Created(path) | Self::Removed { path, .. } | Self::Renamed { to: path, .. }) = self;
        path.parent() == Some(dir)
    }
}

/// The faults of a disk, and what it must remember for them.
#[derive(Debug)]
pub(super) struct Faults {
    pub(super) space_left_bytes: AtomicU64,
    pub(super) sync_fails: AtomicBool,
    operations: AtomicU64,
    breaks_at: AtomicU64,
    breaks_for_good: AtomicBool,
    /// By inode: bytes that power loss leaves. Files that were never written through this disk are not listed.
    synced: Mutex<BTreeMap<u64, u64>>,
    undo: Mutex<Vec<Undo>>,
}

fn broken() -> io::Error {
    io::Error::other("injected failure of the disk")
}

impl Faults {
    pub(super) fn with_space(bytes: u64) -> Self {
        Self {
            space_left_bytes: AtomicU64::new(bytes),
            sync_fails: AtomicBool::new(false),
            operations: AtomicU64::new(0),
            breaks_at: AtomicU64::new(u64::MAX),
            breaks_for_good: AtomicBool::new(false),
            synced: Mutex::default(),
            undo: Mutex::default(),
        }
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    pub(super) fn break_at(&self, operation: u64, how: Breaks) {
        self.breaks_at.store(operation, Ordering::SeqCst);
        self.breaks_for_good.store(how == Breaks::ForGood, Ordering::SeqCst);
    }

    /// Counts an operation that changes something; an error when it is one that fails.
    pub(super) fn begin(&self) -> io::Result<()> {
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        let at = self.breaks_at.load(Ordering::SeqCst);
        let breaks = number == at || (number > at && self.breaks_for_good.load(Ordering::SeqCst));
        if breaks { Err(broken()) } else { Ok(()) }
    }

    /// Takes up to `want` bytes from the space that is left.
    pub(super) fn take_space(&self, want: u64) -> u64 {
        let mut granted = 0;
        let update = self.space_left_bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            granted = want.min(left);
            Some(left - granted)
        });
        debug_assert!(update.is_ok(), "the closure always returns a value");
        granted
    }

    /// A file was opened for writing; `is_new` when it was not there.
    pub(super) fn opened(&self, file: &fs::File, path: &Path, is_new: bool) -> io::Result<()> {
        let metadata = file.metadata()?;
        if is_new {
            self.undo.lock().push(Undo::Created(path.to_owned()));
            self.synced.lock().insert(metadata.ino(), 0);
        } else {
            self.synced.lock().entry(metadata.ino()).or_insert(metadata.len());
        }
        Ok(())
    }

    pub(super) fn synced(&self, file: &fs::File) -> io::Result<()> {
        let metadata = file.metadata()?;
        self.synced.lock().insert(metadata.ino(), metadata.len());
        Ok(())
    }

    pub(super) fn truncated(&self, file: &fs::File, len: u64) -> io::Result<()> {
        if let Some(synced) = self.synced.lock().get_mut(&file.metadata()?.ino()) {
            *synced = len.min(*synced);
        }
        Ok(())
    }

    pub(super) fn synced_dir(&self, dir: &Path) {
        self.undo.lock().retain(|undo| !undo.is_in(dir));
    }

    /// What of a file would survive.
    fn survivor(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = fs::read(path)?;
        if let Some(synced) = self.synced.lock().get(&fs::metadata(path)?.ino()) {
            bytes.truncate(usize::try_from(*synced).unwrap_or(usize::MAX));
        }
        Ok(bytes)
    }

    pub(super) fn removing(&self, path: &Path) -> io::Result<()> {
        let undo = Undo::Removed { path: path.to_owned(), bytes: self.survivor(path)? };
        self.undo.lock().push(undo);
        Ok(())
    }

    pub(super) fn renaming(&self, from: &Path, to: &Path) -> io::Result<()> {
        let replaced = if to.exists() { Some(self.survivor(to)?) } else { None };
        self.undo.lock().push(Undo::Renamed { from: from.to_owned(), to: to.to_owned(), replaced });
        Ok(())
    }

    /// Does to the files what power loss may do: unsynced bytes and unsynced changes of names are gone.
    pub(super) fn lose_power(&self) -> io::Result<()> {
        for undo in self.undo.lock().drain(..).rev() {
            match undo {
                Undo::Created(path) => drop(fs::remove_file(path)),
                Undo::Removed { path, bytes } => fs::write(path, bytes)?,
                Undo::Renamed { from, to, replaced } => {
                    fs::rename(&to, from)?;
                    if let Some(bytes) = replaced {
                        fs::write(to, bytes)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Cuts a file to what was synced of it.
    pub(super) fn cut_to_synced(&self, path: &Path) -> io::Result<()> {
        let metadata = fs::metadata(path)?;
        if let Some(synced) = self.synced.lock().get(&metadata.ino()).filter(|synced| **synced < metadata.len()) {
            fs::OpenOptions::new().write(true).open(path)?.set_len(*synced)?;
        }
        Ok(())
    }
}
