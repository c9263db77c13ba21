//! An append-only log of frames in segment files: the write-ahead log of the stores and the agent's spool.
//!
//! Guarantees:
//! - A frame whose `append` returned survives the death of the process; after `sync` it survives power loss.
//! - After a crash the frames that come back are a prefix of what was appended to each segment. A torn or damaged tail is
//!   cut off and, unless it is the ordinary torn end of the last segment, kept beside it as `*.damaged`.
//! - A full disk fails the append and leaves the journal as it was.
//! - After a failed `sync` nothing is accepted any more: the kernel may have dropped the pages.
//!
//! A segment is `DRJWAL01`, then frames of `length u32 | crc32 u32 | payload`, little endian. Its file name is the
//! sequence number of its first frame, 16 hexadecimal digits and `.wal`.

use std::io;
use std::path::{Path, PathBuf};

use crate::platform::disk::{Disk, DiskFile};

const MAGIC: &[u8; 8] = b"DRJWAL01";
const FRAME_HEADER_BYTES: usize = 8;

/// Bounds of a journal.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// A segment that has grown past this is followed by a new one.
    pub segment_bytes: u64,
    /// Larger payloads are refused, and larger lengths in a file are damage.
    pub frame_bytes_max: u32,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, frame_bytes_max: 64 << 20 }
    }
}

/// What a journal cannot do.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("open the journal in {dir}")]
    Open { dir: PathBuf, source: io::Error },
    #[error("read the journal segment {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("write to the journal in {dir}")]
    Append { dir: PathBuf, source: io::Error },
    #[error("sync the journal in {dir}")]
    Sync { dir: PathBuf, source: io::Error },
    #[error("the journal in {dir} failed to sync before and takes no more writes; restart after mending the disk")]
    Poisoned { dir: PathBuf },
    #[error("a record of {bytes} bytes is larger than the journal takes ({bytes_max})")]
    TooLarge { bytes: usize, bytes_max: u32 },
}

impl JournalError {
    /// Whether the disk is full, which mends itself once there is space.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Append { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    pub frames: u64,
    /// Bytes of an ordinary torn end, cut off.
    pub torn_bytes: u64,
    /// Files that keep bytes which could not be read.
    pub damaged: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
struct Segment {
    path: PathBuf,
    first_seq: u64,
    bytes: u64,
}

/// An open journal with one writer.
#[derive(Debug)]
pub struct Journal {
    disk: Disk,
    dir: PathBuf,
    options: JournalOptions,
    segments: Vec<Segment>,
    active: Option<DiskFile>,
    next_seq: u64,
    poisoned: bool,
}

impl Journal {
    /// Opens or creates a journal and hands every intact frame to `replay`, oldest first.
    pub fn open(
        disk: &Disk,
        dir: &Path,
        options: JournalOptions,
        mut replay: impl FnMut(u64, &[u8]),
    ) -> Result<(Self, Recovery), JournalError> {
        let open_error = |source| JournalError::Open { dir: dir.to_owned(), source };
        disk.create_dir_all(dir).map_err(open_error)?;
        let mut journal = Self {
            disk: disk.clone(),
            dir: dir.to_owned(),
            options,
            segments: Vec::new(),
            active: None,
            next_seq: 0,
            poisoned: false,
        };
        let mut recovery = Recovery::default();
        let found: Vec<(u64, PathBuf)> = disk
            .list(dir)
            .map_err(open_error)?
            .into_iter()
            .filter_map(|path| segment_first_seq(&path).map(|seq| (seq, path)))
            .collect();
        let last = found.len().saturating_sub(1);
        for (index, (first_seq, path)) in found.into_iter().enumerate() {
            journal.next_seq = journal.next_seq.max(first_seq);
            let found = Segment { path, first_seq, bytes: 0 };
            journal.recover_segment(found, index == last, &mut recovery, &mut replay)?;
        }
        Ok((journal, recovery))
    }

    fn recover_segment(
        &mut self,
        mut segment: Segment,
        is_last: bool,
        recovery: &mut Recovery,
        replay: &mut impl FnMut(u64, &[u8]),
    ) -> Result<(), JournalError> {
        let bytes = match self.disk.read(&segment.path) {
            Ok(bytes) => bytes,
            Err(source) => return Err(JournalError::Read { path: segment.path, source }),
        };
        let mut seq = segment.first_seq;
        let end = scan(&bytes, self.options.frame_bytes_max, |payload| {
            replay(seq, payload);
            seq += 1;
        });
        recovery.frames += seq - segment.first_seq;
        self.next_seq = self.next_seq.max(seq);
        let good = end.good_bytes;
        if good < bytes.len() {
            let open_error = |source| JournalError::Open { dir: self.dir.clone(), source };
            let tail = bytes.get(good..).unwrap_or_default();
            if is_last && end.torn {
                recovery.torn_bytes += tail.len() as u64;
            } else {
                let aside = segment.path.with_extension("wal.damaged");
                self.disk.write_atomic(&aside, tail).map_err(open_error)?;
                recovery.damaged.push(aside);
            }
            let cut = self.disk.open_append(&segment.path).and_then(|file| file.set_len(good as u64));
            cut.map_err(open_error)?;
        }
        segment.bytes = good as u64;
        self.segments.push(segment);
        Ok(())
    }

    /// Sequence number that the next frame gets.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Adds a frame and returns its sequence number. When this returns, the frame survives `kill -9`.
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned { dir: self.dir.clone() });
        }
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|length| *length <= self.options.frame_bytes_max)
            .ok_or(JournalError::TooLarge { bytes: payload.len(), bytes_max: self.options.frame_bytes_max })?;
        let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + payload.len());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
        frame.extend_from_slice(payload);
        self.append_bytes(&frame).map_err(|source| JournalError::Append { dir: self.dir.clone(), source })?;
        let seq = self.next_seq;
        self.next_seq += 1;
        Ok(seq)
    }

    fn append_bytes(&mut self, frame: &[u8]) -> io::Result<()> {
        self.ensure_active()?;
        let (Some(file), Some(segment)) = (self.active.as_mut(), self.segments.last_mut()) else {
            return Err(io::Error::other("the journal has no active segment"));
        };
        match file.append(frame) {
            Ok(()) => {
                segment.bytes += frame.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A half frame must not stand before the next good one. Where it cannot be cut off, the segment is
                // left as it is and the next frame opens a new one.
                if file.set_len(segment.bytes).is_err() {
                    self.active = None;
                }
                Err(error)
            }
        }
    }

    /// Makes sure that there is a segment with room, open for writing.
    fn ensure_active(&mut self) -> io::Result<()> {
        let usable = (MAGIC.len() as u64)..self.options.segment_bytes;
        let full = self.segments.last().is_none_or(|segment| !usable.contains(&segment.bytes));
        if self.active.is_some() && !full {
            return Ok(());
        }
        if let (None, false, Some(segment)) = (&self.active, full, self.segments.last()) {
            let file = self.disk.open_append(&segment.path)?;
            if file.len()? == segment.bytes {
                self.active = Some(file);
                return Ok(());
            }
        }
        if let Some(file) = self.active.take() {
            file.sync()?;
        }
        self.open_segment()
    }

    fn open_segment(&mut self) -> io::Result<()> {
        let path = self.dir.join(format!("{:016x}.wal", self.next_seq));
        let mut file = self.disk.open_append(&path)?;
        file.set_len(0)?;
        file.append(MAGIC)?;
        self.disk.sync_dir(&self.dir)?;
        // A last segment without a frame has the same name: it is replaced, not doubled.
        self.segments.retain(|segment| segment.path != path);
        self.segments.push(Segment { path, first_seq: self.next_seq, bytes: MAGIC.len() as u64 });
        self.active = Some(file);
        Ok(())
    }

    /// Makes everything appended so far survive power loss.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        if let Some(Err(source)) = self.active.as_ref().map(DiskFile::sync) {
            return Err(self.sync_failed(source));
        }
        Ok(())
    }

    /// What to sync so that everything appended so far survives power loss, for callers that append on meanwhile; `None`
    /// when there is nothing to do. A failure of that sync must be told by [`Journal::sync_failed`].
    pub fn sync_handle(&mut self) -> Result<Option<DiskFile>, JournalError> {
        let handle = self.active.as_ref().map(DiskFile::try_clone).transpose();
        handle.map_err(|source| self.sync_failed(source))
    }

    /// Takes no more frames: the kernel may have dropped what could not be synced.
    pub fn sync_failed(&mut self, source: io::Error) -> JournalError {
        self.poisoned = true;
        JournalError::Sync { dir: self.dir.clone(), source }
    }

    /// Whether a sync failed, so that nothing is accepted until the journal is opened again.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Removes whole segments that hold only frames before `seq`. The last segment always stays.
    pub fn drop_before(&mut self, seq: u64) -> io::Result<()> {
        while let Some(next) = self.segments.get(1) {
            if next.first_seq > seq {
                break;
            }
            let first = self.segments.remove(0);
            self.disk.remove_file(&first.path)?;
        }
        Ok(())
    }

    /// Starts a new segment with the next frame, so that [`Journal::drop_before`] can remove all that came before.
    pub fn rotate(&mut self) -> Result<(), JournalError> {
        self.sync()?;
        if self.segments.last().is_some_and(|segment| segment.bytes > MAGIC.len() as u64) {
            self.active = None;
            self.open_segment().map_err(|source| JournalError::Append { dir: self.dir.clone(), source })?;
        }
        Ok(())
    }

    /// Frames from `seq` on, oldest first, until their payloads exceed `bytes_max` (at least one, if there is any).
    pub fn read_from(&self, seq: u64, bytes_max: usize) -> Result<Vec<(u64, Vec<u8>)>, JournalError> {
        let mut frames = Vec::new();
        let mut bytes_read = 0;
        let start = self.segments.partition_point(|segment| segment.first_seq <= seq).saturating_sub(1);
        for segment in self.segments.iter().skip(start) {
            let bytes = match self.disk.read(&segment.path) {
                Ok(bytes) => bytes,
                Err(source) => return Err(JournalError::Read { path: segment.path.clone(), source }),
            };
            let mut at = segment.first_seq;
            scan(&bytes, self.options.frame_bytes_max, |payload| {
                if at >= seq && at < self.next_seq && (frames.is_empty() || bytes_read < bytes_max) {
                    bytes_read += payload.len();
                    frames.push((at, payload.to_vec()));
                }
                at += 1;
            });
            if bytes_read >= bytes_max && !frames.is_empty() {
                break;
            }
        }
        Ok(frames)
    }
}

struct ScanEnd {
    /// Bytes up to the end of the last intact frame.
    good_bytes: usize,
    /// Whether what follows looks like a frame that was cut off while being written.
    torn: bool,
}

fn scan(bytes: &[u8], frame_bytes_max: u32, mut each: impl FnMut(&[u8])) -> ScanEnd {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return ScanEnd { good_bytes: 0, torn: bytes.len() < MAGIC.len() };
    };
    loop {
        let good_bytes = bytes.len() - rest.len();
        let Some((header, body)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return ScanEnd { good_bytes, torn: true };
        };
        let [l0, l1, l2, l3, c0, c1, c2, c3] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let crc = u32::from_le_bytes([c0, c1, c2, c3]);
        if length > frame_bytes_max {
            return ScanEnd { good_bytes, torn: false };
        }
        let Some((payload, after)) = body.split_at_checked(length as usize) else {
            return ScanEnd { good_bytes, torn: true };
        };
        if crc32fast::hash(payload) != crc {
            return ScanEnd { good_bytes, torn: after.is_empty() };
        }
        each(payload);
        rest = after;
    }
}

fn segment_first_seq(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    u64::from_str_radix(name.strip_suffix(".wal")?, 16).ok()
}

#[cfg(test)]
mod tests;
