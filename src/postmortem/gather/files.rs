//! Which files there are, and their bytes, decompressed.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use flate2::read::MultiGzDecoder;

use crate::model::Timestamp;

use super::detect::{self, Detected, Kind};
use super::{GatherError, Note};

/// Files that are looked at at most.
const FILES_MAX: usize = 10_000;
/// Folders in folders that are followed.
const DEPTH_MAX: usize = 16;
/// Bytes that the kind of a file is found out from.
const HEAD_BYTES: u64 = 128 << 10;

/// Formats that are named instead of read.
const OTHER_COMPRESSION: &[(&[u8], &str)] = &[
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"PK\x03\x04", "a zip archive"),
    (b"LPKSHHRH", "a binary journal; export it with `journalctl -o json`"),
];

/// A file that was found.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    /// The path on the command line that led here.
    pub(super) root: PathBuf,
    pub(super) bytes: u64,
    /// When it was written last; tells the year of times without one.
    pub(super) modified_at: Timestamp,
    is_gzip: bool,
    pub(super) detected: Detected,
}

impl LogFile {
    /// Why it is none, if it is none.
    pub(super) fn not_a_log(&self) -> Option<&str> {
        match &self.detected.kind {
            Kind::NotALog(why) => Some(why),
            _ => None,
        }
    }

    /// The decompressed bytes, and how many bytes of the file were read for them.
    pub(super) fn open(&self) -> io::Result<(Box<dyn Read>, Arc<AtomicU64>)> {
        let read = Arc::new(AtomicU64::new(0));
        let counted = Counted { inner: File::open(&self.path)?, read: Arc::clone(&read) };
        Ok((decompressed(counted, self.is_gzip), read))
    }
}

fn decompressed(file: impl Read + 'static, is_gzip: bool) -> Box<dyn Read> {
    let buffered = BufReader::with_capacity(128 << 10, file);
    if is_gzip { Box::new(MultiGzDecoder::new(buffered)) } else { Box::new(buffered) }
}

struct Counted {
    inner: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// All regular files under the paths, in order, each once. A path that does not exist is an error; a file among many
/// that cannot be read is a note.
pub(super) fn find(paths: &[PathBuf], notes: &mut Vec<Note>) -> Result<Vec<LogFile>, GatherError> {
    let mut found: Vec<(PathBuf, PathBuf)> = Vec::new();
    for root in paths {
        let error = |source| GatherError::Path { path: root.clone(), source };
        let metadata = fs::metadata(root).map_err(error)?;
        if metadata.is_dir() {
            walk(root, root, 0, &mut found, notes)?;
        } else {
            found.push((root.clone(), root.clone()));
        }
    }
    found.sort();
    found.dedup_by(|a, b| a.0 == b.0);
    let mut files = Vec::new();
    for (path, root) in found {
        match look(&path, root) {
            Ok(file) => files.push(file),
            Err(error) => notes.push(Note::file(&path, format!("could not be read: {error}"))),
        }
    }
    Ok(files)
}

fn walk(
    root: &Path,
    folder: &Path,
    depth: usize,
    found: &mut Vec<(PathBuf, PathBuf)>,
    notes: &mut Vec<Note>,
) -> Result<(), GatherError> {
    if depth > DEPTH_MAX {
        notes.push(Note::file(folder, format!("left out: more than {DEPTH_MAX} folders deep")));
        return Ok(());
    }
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(source) if depth == 0 => return Err(GatherError::Path { path: root.to_owned(), source }),
        Err(error) => {
            notes.push(Note::file(folder, format!("could not be read: {error}")));
            return Ok(());
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        // Links to folders could lead in circles; links to files are what `current.log` usually is.
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder {
            walk(root, &path, depth + 1, found, notes)?;
        } else if path.is_file() {
            if found.len() >= FILES_MAX {
                return Err(GatherError::TooManyFiles { path: root.to_owned(), max: FILES_MAX });
            }
            found.push((path, root.to_owned()));
        }
    }
    Ok(())
}

fn look(path: &Path, root: PathBuf) -> io::Result<LogFile> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let modified_at = modified.map_or(Timestamp::default(), |since| Timestamp::default() + since);
    let mut magic = Vec::new();
    file.by_ref().take(8).read_to_end(&mut magic)?;
    file.rewind()?;
    let is_gzip = magic.starts_with(b"\x1f\x8b");
    let other = OTHER_COMPRESSION.iter().find(|(start, _)| magic.starts_with(start));
    let detected = if let Some((_, name)) = other {
        Detected::not_a_log(format!("is {name}: unpack it first"))
    } else {
        let mut head = Vec::new();
        let read = decompressed(file, is_gzip).take(HEAD_BYTES).read_to_end(&mut head);
        match read {
            Err(error) if head.is_empty() => return Err(error),
            // A broken end shows again when the file is read.
            _ => detect::detect(&head),
        }
    };
    Ok(LogFile { path: path.to_owned(), root, bytes: metadata.len(), modified_at, is_gzip, detected })
}
