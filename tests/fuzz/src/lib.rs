//! What the fuzz targets share: directories in memory, and files whose checksums hold, so that what lies behind the
//! checksums is reached too.

use std::path::Path;

use daraji::platform::disk::Disk;
use daraji::platform::journal::{Journal, JournalOptions};

/// A fresh directory, in memory where the host has such a file system.
///
/// # Panics
/// When there is no room for temporary files.
#[must_use]
pub fn fresh_dir() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("daraji-fuzz-");
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() };
    made.expect("a temporary directory")
}

/// Takes two bytes of length and as many bytes as there are, up to that length.
#[must_use]
pub fn take_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    Some(rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len())))
}

/// Writes the parts of `bytes` as frames of a journal, with checksums that hold.
///
/// # Panics
/// When the journal cannot be written.
pub fn write_frames(dir: &Path, mut bytes: &[u8]) {
    let (mut journal, _) =
        Journal::open(&Disk::real(), dir, JournalOptions::default(), |_, _| {}).expect("a new journal");
    while let Some((payload, rest)) = take_part(bytes) {
        journal.append(payload).expect("room for a frame");
        bytes = rest;
    }
}
