//! Knowing a file again after it was renamed, copied, or the program restarted.
//!
//! An inode number is given to a new file soon after the old one is gone, so it is believed only when the bytes agree
//! too: the head of the file, and the bytes just before the place up to which it was read.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use sha2::{Digest as _, Sha256};

use crate::intake::spool::{FileCheckpoint, FileKey};

/// Bytes of the head that are hashed; fewer while the file is shorter.
const HEAD_BYTES: u32 = 256;
/// Bytes before the offset that are hashed.
const TAIL_BYTES: u32 = 64;

/// A hash of some bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub bytes: u32,
    pub hash: u64,
}

pub fn file_key(metadata: &Metadata) -> FileKey {
    FileKey { dev: metadata.dev(), inode: metadata.ino() }
}

/// The head as far as it exists, at most 256 bytes, but not beyond `limit`.
pub fn head_mark(file: &File, limit: u64) -> io::Result<Mark> {
    mark(file, 0, u32::try_from(limit).unwrap_or(HEAD_BYTES).min(HEAD_BYTES))
}

/// The bytes just before `offset`.
pub fn tail_mark(file: &File, offset: u64) -> io::Result<Mark> {
    let bytes = u32::try_from(offset).unwrap_or(TAIL_BYTES).min(TAIL_BYTES);
    mark(file, offset - u64::from(bytes), bytes)
}

/// Whether the file holds bytes with this mark at `start`.
pub fn holds(file: &File, start: u64, expected: Mark) -> io::Result<bool> {
    Ok(mark(file, start, expected.bytes)? == expected)
}

/// Whether the file is the one that the checkpoint speaks of, grown or not: its head, and the bytes before the offset.
pub fn is_same(file: &File, checkpoint: &FileCheckpoint) -> io::Result<bool> {
    let head = Mark { bytes: checkpoint.head_bytes, hash: checkpoint.head_hash };
    let tail = Mark { bytes: checkpoint.tail_bytes, hash: checkpoint.tail_hash };
    let tail_start = checkpoint.offset.saturating_sub(u64::from(tail.bytes));
    Ok(holds(file, 0, head)? && holds(file, tail_start, tail)?)
}

/// Whether a checkpoint says enough to recognise a copy of its file, which has another inode.
pub fn is_distinctive(checkpoint: &FileCheckpoint) -> bool {
    checkpoint.head_bytes == HEAD_BYTES && checkpoint.tail_bytes == TAIL_BYTES
}

fn mark(file: &File, start: u64, bytes: u32) -> io::Result<Mark> {
    let mut buffer = [0; HEAD_BYTES as usize];
    let wanted = buffer.get_mut(..bytes as usize).unwrap_or_default();
    let mut filled = 0;
    while let Some(rest) = wanted.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, start + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if filled == 0 {
        return Ok(Mark::default());
    }
    let digest = Sha256::digest(wanted.get(..filled).unwrap_or_default());
    let hash = digest.first_chunk::<8>().map_or(0, |first| u64::from_le_bytes(*first));
    Ok(Mark { bytes: u32::try_from(filled).unwrap_or(0), hash })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn a_file_is_known_by_head_and_tail() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let text = "0123456789".repeat(60);
        fs::write(&path, &text).unwrap();
        let file = File::open(&path).unwrap();
        let (head, tail) = (head_mark(&file, 500).unwrap(), tail_mark(&file, 500).unwrap());
        let checkpoint = FileCheckpoint {
            key: file_key(&file.metadata().unwrap()),
            path: String::new(),
            offset: 500,
            head_bytes: head.bytes,
            head_hash: head.hash,
            tail_bytes: tail.bytes,
            tail_hash: tail.hash,
            seen_at: Timestamp::default(),
        };
        assert!(is_distinctive(&checkpoint));
        for (content, same) in [
            (text.clone() + "more", true),
            (text.clone(), true),
            (text.get(..499).unwrap().to_owned(), false),
            (text.replacen('0', "x", 1), false),
            (format!("{}x{}", &text.get(..499).unwrap(), "more"), false),
        ] {
            fs::write(&path, &content).unwrap();
            assert_eq!(is_same(&file, &checkpoint).unwrap(), same, "{}", content.len());
        }
    }
}
