//! The agent's spool: what was collected and is not yet durable on the server, with the checkpoints of the files it came
//! from.
//!
//! Guarantees:
//! - Records and the checkpoints that cover them are one frame of one journal: after `kill -9` either both are there or
//!   neither, so every line is spooled exactly once.
//! - A frame is handed out for sending only after it was synced. Its number is therefore never given to another frame,
//!   and the server can drop repetitions by (agent, generation, number).
//! - Checkpoints outlive their frames: the first frame of every segment carries all of them.
//! - The spool never grows past its bound; what is full says so and the files are the buffer.
//!
//! A new generation begins when the journal is new or was damaged, or when the spool turns up on another host (a cloned
//! image), because numbers could then repeat.

mod codec;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{Batch, Timestamp};
use crate::platform::disk::Disk;
use crate::platform::journal::{Journal, JournalError, JournalOptions, Recovery};
use crate::platform::random;
use crate::wire::agent::{EncodedFrame, encode_batch};

/// A segment is closed when it has grown past this; what is acknowledged is freed in such steps.
const SEGMENT_BYTES: u64 = 1 << 20;
/// The largest frame; a turn of the tailer stays far below.
const FRAME_BYTES_MAX: u32 = 32 << 20;
/// Checkpoints kept at most; the longest unseen go first.
const CHECKPOINTS_MAX: usize = 10_000;

/// Bounds of a spool.
#[derive(Clone, Copy, Debug)]
pub struct SpoolOptions {
    /// Bytes on disk at most.
    pub max_bytes: u64,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        Self { max_bytes: 1 << 30 }
    }
}

/// What a spool cannot do.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("use the spool's journal")]
    Journal(#[from] JournalError),
    #[error("read the spool's identity in {path}; remove the file to start a new one")]
    Identity { path: PathBuf, source: serde_json::Error },
    #[error("access the spool's files in {dir}")]
    Files { dir: PathBuf, source: io::Error },
    #[error("name the spool")]
    Random(#[from] random::RandomError),
    #[error("another process uses the spool in {dir}; stop it, or give this one a directory of its own")]
    InUse { dir: PathBuf },
    #[error("the spool is full ({bytes} of {max_bytes} bytes); it empties as soon as the server answers again")]
    Full { bytes: u64, max_bytes: u64 },
}

/// Names a spool's frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolIdentity {
    /// Made once per spool directory.
    pub agent: String,
    /// Made anew whenever frame numbers could repeat.
    pub generation: u64,
    /// Where the generation began, in words of whoever uses the spool.
    #[serde(default)]
    pub host: Option<String>,
}

/// Which file: the same name may be several files over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    pub dev: u64,
    pub inode: u64,
}

/// How far a file has been read, with what is needed to know it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileCheckpoint {
    pub key: FileKey,
    pub path: String,
    /// Bytes up to here are in durable records.
    pub offset: u64,
    /// Hash of the first `head_bytes` bytes.
    pub head_bytes: u32,
    pub head_hash: u64,
    /// Hash of the `tail_bytes` bytes before `offset`.
    pub tail_bytes: u32,
    pub tail_hash: u64,
    /// When the file was last seen to exist.
    pub seen_at: Timestamp,
}

/// The open spool. One writer.
#[derive(Debug)]
pub struct Spool {
    disk: Disk,
    dir: PathBuf,
    options: SpoolOptions,
    journal: Journal,
    identity: SpoolIdentity,
    checkpoints: BTreeMap<FileKey, FileCheckpoint>,
    /// Frames below are durable on the server.
    acknowledged: u64,
    /// Frames below have been synced.
    synced: u64,
    segment_fill_bytes: u64,
    /// The next frame opens a segment, or may: it carries every checkpoint.
    next_is_full: bool,
    /// Held as long as the spool is open; the kernel lets go of it when the process dies.
    _lock: File,
}

impl Spool {
    /// Opens or creates the spool in `dir` and recovers the checkpoints.
    pub fn open(disk: &Disk, dir: &Path, options: SpoolOptions) -> Result<(Self, Recovery), SpoolError> {
        let lock = lock_dir(disk, dir)?;
        let mut checkpoints = BTreeMap::new();
        let mut acknowledged = 0;
        let mut first_seq = None;
        let mut undecodable = false;
        let journal_options = JournalOptions { segment_bytes: u64::MAX, frame_bytes_max: FRAME_BYTES_MAX };
        let (journal, recovery) = Journal::open(disk, dir, journal_options, |seq, payload| {
            first_seq.get_or_insert(seq);
            match codec::decode_head(payload) {
                Ok(head) => {
                    // A frame was written before it could be acknowledged: what says otherwise is damage.
                    acknowledged = acknowledged.max(head.acknowledged.min(seq));
                    if head.is_full {
                        checkpoints.clear();
                    }
                    checkpoints.extend(head.checkpoints.into_iter().map(|checkpoint| (checkpoint.key, checkpoint)));
                }
                Err(_) => undecodable = true,
            }
        })?;
        let is_new = journal.next_seq() == 0;
        let damaged = !recovery.damaged.is_empty() || undecodable;
        let mut identity = load_identity(disk, dir)?;
        if is_new || damaged {
            renew_identity(disk, dir, &mut identity)?;
        }
        let spool = Self {
            disk: disk.clone(),
            dir: dir.to_owned(),
            options,
            acknowledged: acknowledged.max(first_seq.unwrap_or(0)).min(journal.next_seq()),
            synced: 0,
            segment_fill_bytes: SEGMENT_BYTES,
            next_is_full: true,
            _lock: lock,
            journal,
            identity,
            checkpoints,
        };
        Ok((spool, recovery))
    }

    pub fn identity(&self) -> &SpoolIdentity {
        &self.identity
    }

    /// Says which host this is. A spool that began on another one is a copy, whose frames have the numbers of the original's:
    /// a new generation begins.
    pub fn claim(&mut self, host: &str) -> Result<(), SpoolError> {
        match self.identity.host.replace(host.to_owned()) {
            Some(known) if known == host => Ok(()),
            Some(_) => renew_identity(&self.disk, &self.dir, &mut self.identity),
            None => write_identity(&self.disk, &self.dir, &self.identity),
        }
    }

    pub fn checkpoints(&self) -> impl Iterator<Item = &FileCheckpoint> {
        self.checkpoints.values()
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.journal.bytes()
    }

    pub fn max_bytes(&self) -> u64 {
        self.options.max_bytes
    }

    /// Whether frames wait to be acknowledged.
    pub fn has_unacknowledged(&self) -> bool {
        self.acknowledged < self.journal.next_seq()
    }

    /// Whether a frame of ordinary size would be refused just now.
    pub fn is_full(&self) -> bool {
        self.journal.bytes() + SEGMENT_BYTES > self.options.max_bytes && self.has_unacknowledged()
    }

    /// Adds one frame: records and samples together with the checkpoints of the files they came from.
    ///
    /// On an error nothing was added; the same call may be repeated later.
    pub fn append(&mut self, batch: &Batch, checkpoints: &[FileCheckpoint]) -> Result<u64, SpoolError> {
        if self.is_full() {
            return Err(SpoolError::Full { bytes: self.journal.bytes(), max_bytes: self.options.max_bytes });
        }
        if self.segment_fill_bytes >= SEGMENT_BYTES {
            self.journal.rotate()?;
            self.segment_fill_bytes = 0;
            self.next_is_full = true;
        }
        let mut full: Vec<FileCheckpoint> = Vec::new();
        if self.next_is_full {
            let touched = |key| checkpoints.iter().any(|checkpoint| checkpoint.key == key);
            full.extend(self.checkpoints.values().filter(|checkpoint| !touched(checkpoint.key)).cloned());
        }
        let head = codec::Head {
            is_full: self.next_is_full,
            acknowledged: self.acknowledged,
            checkpoints: full.into_iter().chain(checkpoints.iter().cloned()).collect(),
        };
        let payload = codec::encode(&head, &encode_batch(batch));
        let seq = self.journal.append(&payload)?;
        self.next_is_full = false;
        self.segment_fill_bytes += payload.len() as u64;
        for checkpoint in checkpoints {
            self.checkpoints.insert(checkpoint.key, checkpoint.clone());
        }
        self.bound_checkpoints();
        Ok(seq)
    }

    /// Forgets the checkpoints that are not wanted. Takes effect on disk with the next full frame.
    pub fn retain_checkpoints(&mut self, mut is_wanted: impl FnMut(&FileCheckpoint) -> bool) {
        self.checkpoints.retain(|_, checkpoint| is_wanted(checkpoint));
    }

    fn bound_checkpoints(&mut self) {
        while self.checkpoints.len() > CHECKPOINTS_MAX {
            let oldest = self.checkpoints.values().min_by_key(|checkpoint| checkpoint.seen_at).map(|found| found.key);
            let Some(key) = oldest else { break };
            self.checkpoints.remove(&key);
        }
    }

    /// Syncs what is not synced yet and returns the oldest frames that wait, up to about `bytes_max`.
    pub fn next_unacknowledged(&mut self, bytes_max: usize) -> Result<Vec<EncodedFrame>, SpoolError> {
        if !self.has_unacknowledged() {
            return Ok(Vec::new());
        }
        if self.synced < self.journal.next_seq() {
            self.journal.sync()?;
            self.synced = self.journal.next_seq();
        }
        let frames = self.journal.read_from(self.acknowledged, bytes_max)?;
        let last = frames.last().map(|(seq, _)| *seq);
        let encoded = frames.into_iter().filter_map(|(seq, payload)| {
            let body = codec::decode_head(&payload).ok()?.body.to_vec();
            Some(EncodedFrame { seq, body })
        });
        let encoded: Vec<EncodedFrame> = encoded.collect();
        if encoded.is_empty() {
            // Damage took them; waiting would not bring them back.
            self.acknowledge(last.unwrap_or(self.journal.next_seq() - 1))?;
        }
        Ok(encoded)
    }

    /// Frames up to and including `seq` are durable on the server; frees their segments.
    ///
    /// A number that was never given out means that this spool was set back in time: a new generation begins.
    pub fn acknowledge(&mut self, seq: u64) -> Result<(), SpoolError> {
        if seq >= self.journal.next_seq() {
            return renew_identity(&self.disk, &self.dir, &mut self.identity);
        }
        self.acknowledged = self.acknowledged.max(seq.saturating_add(1)).min(self.journal.next_seq());
        let files_error = |source| SpoolError::Files { dir: self.dir.clone(), source };
        self.journal.drop_before(self.acknowledged).map_err(files_error)
    }
}

fn lock_dir(disk: &Disk, dir: &Path) -> Result<File, SpoolError> {
    let files_error = |source| SpoolError::Files { dir: dir.to_owned(), source };
    disk.create_dir_all(dir).map_err(files_error)?;
    let file = File::create(dir.join("lock")).map_err(files_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SpoolError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(files_error(source)),
    }
}

/// What the directory says, or a new one.
fn load_identity(disk: &Disk, dir: &Path) -> Result<SpoolIdentity, SpoolError> {
    let path = dir.join("identity.json");
    let files_error = |source| SpoolError::Files { dir: dir.to_owned(), source };
    match disk.read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| SpoolError::Identity { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let agent = format!("{:016x}", u64::from_le_bytes(random::bytes()?));
            let mut identity = SpoolIdentity { agent, generation: 0, host: None };
            renew_identity(disk, dir, &mut identity)?;
            Ok(identity)
        }
        Err(source) => Err(files_error(source)),
    }
}

/// Begins a new generation.
fn renew_identity(disk: &Disk, dir: &Path, identity: &mut SpoolIdentity) -> Result<(), SpoolError> {
    let random = random::bytes()?;
    // Readable by every JSON reader, which an integer of 64 bits is not.
    identity.generation = u64::from_le_bytes(random) >> 11;
    write_identity(disk, dir, identity)
}

fn write_identity(disk: &Disk, dir: &Path, identity: &SpoolIdentity) -> Result<(), SpoolError> {
    let path = dir.join("identity.json");
    let json = serde_json::to_vec(identity).map_err(|source| SpoolError::Identity { path: path.clone(), source })?;
    disk.write_atomic(&path, &json).map_err(|source| SpoolError::Files { dir: dir.to_owned(), source })
}

/// The server has taken frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The highest frame number that is durable there; `None` when there is none of this generation yet.
    pub seq: Option<u64>,
}

/// Why frames were not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Worth trying again as it is.
    #[error("hand frames to the receiver: {reason}")]
    Retry { reason: String },
    /// The receiver will never take the first of these frames: set it aside and go on.
    #[error("the receiver refuses frame {seq}: {reason}")]
    Refused { seq: u64, reason: String },
}

/// Takes frames to where they become durable: over the network, or into the store of the same process.
pub trait FrameSender: Send {
    /// Sends frames in order of their numbers. A repetition must be harmless. No frames means "I live".
    fn send(
        &mut self,
        identity: &SpoolIdentity,
        frames: Vec<EncodedFrame>,
    ) -> impl Future<Output = Result<Ack, SendError>> + Send;
}

#[cfg(test)]
mod tests;
