//! One followed file: what is new in it, in which form, and how far it is safe.
//!
//! - Renamed: the open file is read on; the name leads to the next one.
//! - Truncated, or replaced in place: begins again at the start; counted.
//! - Deleted while open: read to its end.
//! - A last line without its end is held until the rest comes, the file is gone, or nothing happened for a long time.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::intake::spool::{FileCheckpoint, FileKey};
use crate::model::{LogRecord, Timestamp};
use crate::wire::agent::FileStatus;

use super::assemble::{Assembler, RawRecord};
use super::format::Format;
use super::identity::{self, Mark};
use super::parsed::Context;
use super::postgres_csv;
use super::prefix::Prefix;
use super::stream::Stream;

/// A record that may have further lines is given out after so long without new bytes.
const RECORD_IDLE: Duration = Duration::from_millis(200);
/// A line without its end is given out after so long without new bytes: its writer is dead.
const PARTIAL_IDLE: Duration = Duration::from_secs(30);
/// A deleted file is closed after so long without new bytes, for it takes space on the disk.
const DELETED_IDLE: Duration = Duration::from_secs(10);
/// A file that has another name now is closed after so long without new bytes: writers may keep it open for a while.
const RENAMED_IDLE: Duration = Duration::from_mins(10);
/// An unchanged file is shown to exist this often.
const CHECKPOINT_EVERY: Duration = Duration::from_hours(1);
/// Bytes that are looked at to find the format.
const DETECT_BYTES: usize = 16 << 10;

/// What cannot be done with a log file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("open the log file {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("read the log file {path}")]
    Read { path: PathBuf, source: io::Error },
}

/// A followed file.
#[derive(Debug)]
pub struct TailedFile {
    path: PathBuf,
    key: FileKey,
    file: File,
    stream: Stream,
    /// Until the format is known nothing is read.
    assembler: Option<Assembler>,
    format: Option<Format>,
    start_offset: u64,
    head: Mark,
    /// The name is gone, or leads to another file.
    is_gone: bool,
    /// No name leads to the file any more.
    is_deleted: bool,
    last_growth: Timestamp,
    last_record_at: Option<Timestamp>,
    size: u64,
    modified_at: (i64, i64),
    truncations: u64,
    /// Since the last checkpoint, records were given out or the content was replaced.
    is_changed: bool,
    last_checkpoint: Timestamp,
    error: Option<String>,
}

/// Bounds of one turn.
#[derive(Clone, Copy, Debug)]
pub struct TurnLimits {
    pub bytes: usize,
    pub records: usize,
}

impl TailedFile {
    /// Opens a file to be read from its start; [`TailedFile::resume`] moves on.
    pub fn open(path: &Path, stream: Stream, now: Timestamp) -> Result<Self, FileError> {
        let open_error = |source| FileError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(open_error)?;
        let metadata = file.metadata().map_err(open_error)?;
        Ok(Self {
            path: path.to_owned(),
            key: identity::file_key(&metadata),
            file,
            format: stream.format,
            stream,
            assembler: None,
            start_offset: 0,
            head: Mark::default(),
            is_gone: false,
            is_deleted: false,
            last_growth: now,
            last_record_at: None,
            size: metadata.size(),
            modified_at: modified_at(&metadata),
            truncations: 0,
            is_changed: true,
            last_checkpoint: now,
            error: None,
        })
    }

    /// Goes on where a checkpoint says, if this is its file; true when it did.
    pub fn resume(&mut self, checkpoint: &FileCheckpoint) -> bool {
        let is_same = self.size >= checkpoint.offset && identity::is_same(&self.file, checkpoint).unwrap_or(false);
        if is_same {
            self.start_offset = checkpoint.offset;
            self.head = Mark { bytes: checkpoint.head_bytes, hash: checkpoint.head_hash };
        }
        is_same
    }

    pub fn key(&self) -> FileKey {
        self.key
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How often the content was replaced in place.
    pub fn truncations(&self) -> u64 {
        self.truncations
    }

    pub fn set_path(&mut self, path: &Path) {
        path.clone_into(&mut self.path);
        self.is_gone = false;
    }

    pub fn set_gone(&mut self) {
        self.is_gone = true;
    }

    /// Whether the file can be closed: its name is gone, and all was read.
    pub fn is_finished(&self, now: Timestamp) -> bool {
        let all_read = self.assembler.as_ref().is_none_or(Assembler::is_empty);
        self.is_gone && all_read && self.safe_offset() >= self.size && now.since(self.last_growth) >= self.gone_idle()
    }

    fn gone_idle(&self) -> Duration {
        if self.is_deleted { DELETED_IDLE } else { RENAMED_IDLE }
    }

    /// Everything before is in records that were given out.
    pub fn safe_offset(&self) -> u64 {
        self.assembler.as_ref().map_or(self.start_offset, Assembler::safe_offset)
    }

    fn position(&self) -> u64 {
        self.assembler.as_ref().map_or(self.start_offset, Assembler::position)
    }

    /// Reads what is new within the limits. True when there is more to read.
    pub fn turn(
        &mut self,
        now: Timestamp,
        limits: TurnLimits,
        records: &mut Vec<LogRecord>,
    ) -> Result<bool, FileError> {
        let result = self.read_new(now, limits, records);
        self.error = result.as_ref().err().map(|error| crate::platform::error::chain(error));
        result
    }

    fn read_new(
        &mut self,
        now: Timestamp,
        limits: TurnLimits,
        records: &mut Vec<LogRecord>,
    ) -> Result<bool, FileError> {
        let read_error = |source| FileError::Read { path: self.path.clone(), source };
        let metadata = self.file.metadata().map_err(read_error)?;
        let size = metadata.size();
        self.is_deleted = metadata.nlink() == 0;
        let mut raw = Vec::new();
        let is_touched = size != self.size || modified_at(&metadata) != self.modified_at;
        if size < self.position() || (is_touched && !self.head_is_unchanged()?) {
            self.restart(&mut raw);
        }
        // Also when the clock was set back, or nothing would ever be idle.
        if is_touched || now < self.last_growth {
            self.modified_at = modified_at(&metadata);
            self.last_growth = now;
            self.size = size;
        }
        // What was taken out of the assembler must get out even when reading fails.
        let has_more = self.feed(now, limits, &mut raw);
        self.flush_idle(now, &mut raw);
        self.is_changed |= !raw.is_empty();
        for record in raw {
            self.add_record(record, now, records);
        }
        has_more
    }

    fn feed(&mut self, now: Timestamp, limits: TurnLimits, raw: &mut Vec<RawRecord>) -> Result<bool, FileError> {
        let position = self.position();
        if position >= self.size || !self.ensure_assembler(now)? {
            return Ok(false);
        }
        let new_bytes = usize::try_from(self.size - position).unwrap_or(limits.bytes);
        let mut buffer = vec![0; limits.bytes.min(new_bytes)];
        let read_error = |source| FileError::Read { path: self.path.clone(), source };
        let count = self.file.read_at(&mut buffer, position).map_err(read_error)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if let Some(assembler) = &mut self.assembler {
            assembler.feed(bytes, raw, limits.records);
        }
        self.update_head()?;
        Ok(count > 0 && self.position() < self.size)
    }

    /// Whether the first bytes are still those that were read.
    fn head_is_unchanged(&self) -> Result<bool, FileError> {
        let read_error = |source| FileError::Read { path: self.path.clone(), source };
        identity::holds(&self.file, 0, self.head).map_err(read_error)
    }

    fn update_head(&mut self) -> Result<(), FileError> {
        let read_error = |source| FileError::Read { path: self.path.clone(), source };
        self.head = identity::head_mark(&self.file, self.position()).map_err(read_error)?;
        Ok(())
    }

    /// The content was replaced: what is held belongs to the old one.
    fn restart(&mut self, raw: &mut Vec<RawRecord>) {
        if let Some(assembler) = &mut self.assembler {
            assembler.flush_all(raw);
            assembler.reset(0);
        }
        self.start_offset = 0;
        self.head = Mark::default();
        self.truncations += 1;
        self.is_changed = true;
    }

    /// Finds out the format; false when the file does not tell yet.
    fn ensure_assembler(&mut self, now: Timestamp) -> Result<bool, FileError> {
        if self.assembler.is_some() {
            return Ok(true);
        }
        let read_error = |source| FileError::Read { path: self.path.clone(), source };
        let mut head = vec![0; DETECT_BYTES];
        let count = self.file.read_at(&mut head, self.start_offset).map_err(read_error)?;
        head.truncate(count);
        let format = self.format.or_else(|| Format::detect(&self.stream.source, &self.path, &head));
        let format = match format {
            Some(format) => format,
            None if now.since(self.last_growth) >= PARTIAL_IDLE => Format::Text,
            None => return Ok(false),
        };
        let prefix = match (format, &self.stream.prefix) {
            (Format::Stderr, Some(prefix)) => Some(prefix.clone()),
            // The patterns tried are our own, so they compile.
            (Format::Stderr, None) => Prefix::detect(&head).ok(),
            _ => None,
        };
        self.format = Some(format);
        self.assembler = Some(Assembler::new(format, prefix, self.start_offset));
        Ok(true)
    }

    fn flush_idle(&mut self, now: Timestamp, raw: &mut Vec<RawRecord>) {
        let gone_idle = self.gone_idle();
        let Some(assembler) = &mut self.assembler else { return };
        if assembler.is_empty() || assembler.position() < self.size {
            return;
        }
        let idle = now.since(self.last_growth);
        if idle >= PARTIAL_IDLE || (self.is_gone && idle >= gone_idle) {
            assembler.flush_all(raw);
        } else if idle >= RECORD_IDLE {
            assembler.flush_record(raw);
        }
    }

    fn add_record(&mut self, raw: RawRecord, now: Timestamp, records: &mut Vec<LogRecord>) {
        let record = self.make_record(&raw, now);
        if self.format == Some(Format::Csvlog)
            && record.field("session_id").is_none()
            && let Some(at) = postgres_csv::find_inner(&raw.text)
        {
            let (torn, inner) = raw.text.split_at(at);
            let torn = RawRecord { text: torn.to_vec(), cut: None, is_partial: true };
            records.push(self.make_record(&torn, now));
            records.push(self.make_record(&RawRecord { text: inner.to_vec(), is_partial: false, cut: raw.cut }, now));
        } else {
            records.push(record);
        }
    }

    fn make_record(&mut self, raw: &RawRecord, now: Timestamp) -> LogRecord {
        let format = self.format.unwrap_or(Format::Text);
        let context = Context { zone: self.stream.zone, last_at: self.last_record_at, now };
        let prefix = self.assembler.as_ref().and_then(Assembler::prefix);
        let record = self.stream.to_record(raw, format, (prefix, &self.path), context);
        self.last_record_at = Some(record.at);
        record
    }

    /// The checkpoint to commit with the records of this turn; `None` when nothing changed.
    pub fn checkpoint(&mut self, now: Timestamp) -> Option<FileCheckpoint> {
        if !self.is_changed && now.since(self.last_checkpoint) < CHECKPOINT_EVERY {
            return None;
        }
        let offset = self.safe_offset();
        // Without marks the file is known by its inode alone, which is better than reading it twice.
        let head = identity::head_mark(&self.file, offset).unwrap_or_default();
        let tail = identity::tail_mark(&self.file, offset).unwrap_or_default();
        self.is_changed = false;
        self.last_checkpoint = now;
        Some(FileCheckpoint {
            key: self.key,
            path: self.path.display().to_string(),
            offset,
            head_bytes: head.bytes,
            head_hash: head.hash,
            tail_bytes: tail.bytes,
            tail_hash: tail.hash,
            seen_at: now,
        })
    }

    pub fn status(&self) -> FileStatus {
        FileStatus {
            path: self.path.display().to_string(),
            source: self.stream.source.clone(),
            format: self.format.map_or("unknown", Format::as_str).to_owned(),
            size_bytes: self.size,
            read_bytes: self.safe_offset(),
            truncations: self.truncations,
            nul_bytes: self.assembler.as_ref().map_or(0, Assembler::nul_bytes),
            torn_records: self.assembler.as_ref().map_or(0, Assembler::resyncs),
            error: self.error.clone(),
        }
    }
}

fn modified_at(metadata: &Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}
