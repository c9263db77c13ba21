//! All followed files: finding them, knowing them again, and giving each its turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::intake::spool::{FileCheckpoint, FileKey};
use crate::model::{LogRecord, Timestamp};
use crate::platform::error::chain;
use crate::wire::agent::FileStatus;

use super::LogSource;
use super::file::{FileError, TailedFile, TurnLimits};
use super::format::Format;
use super::glob;
use super::identity;
use super::prefix::PrefixError;
use super::stream::Stream;

/// How often patterns are expanded anew.
const SCAN_EVERY: Duration = Duration::from_secs(1);
/// Files open at once.
const FILES_MAX: usize = 500;
/// What one file may read per turn, so that none starves the others.
const FILE_TURN: TurnLimits = TurnLimits { bytes: 256 << 10, records: 2000 };
/// What all files may give per turn.
const TURN_TEXT_BYTES_MAX: usize = 1 << 20;
const TURN_RECORDS_MAX: usize = 4000;
/// Checkpoints of replaced contents that are remembered, to know their copies.
const RETIRED_MAX: usize = 64;
/// Packed files are older contents that were read before they were packed.
const PACKED: [&str; 6] = ["gz", "bz2", "xz", "zst", "lz4", "zip"];

/// What one turn gave. Records and checkpoints belong together: commit both or neither.
#[derive(Debug, Default)]
pub struct Turn {
    pub records: Vec<LogRecord>,
    pub checkpoints: Vec<FileCheckpoint>,
    /// More can be read at once.
    pub has_more: bool,
}

/// Follows the files of all sources.
#[derive(Debug)]
pub struct Tailer {
    sources: Vec<(LogSource, Stream)>,
    files: BTreeMap<FileKey, TailedFile>,
    checkpoints: BTreeMap<FileKey, FileCheckpoint>,
    retired: VecDeque<FileCheckpoint>,
    last_scan: Option<Timestamp>,
    /// Names that led elsewhere while we were away have been followed.
    looked_for_renamed: bool,
    next_file: Option<FileKey>,
    errors: Vec<String>,
}

impl Tailer {
    /// Takes up where the checkpoints say.
    pub fn new<'a>(
        sources: &[LogSource],
        cluster: &str,
        member: &str,
        checkpoints: impl Iterator<Item = &'a FileCheckpoint>,
    ) -> Result<Self, PrefixError> {
        let sources = sources
            .iter()
            .map(|source| Ok((source.clone(), Stream::new(source, cluster, member)?)))
            .collect::<Result<Vec<_>, PrefixError>>()?;
        Ok(Self {
            sources,
            files: BTreeMap::new(),
            checkpoints: checkpoints.map(|checkpoint| (checkpoint.key, checkpoint.clone())).collect(),
            retired: VecDeque::new(),
            last_scan: None,
            looked_for_renamed: false,
            next_file: None,
            errors: Vec::new(),
        })
    }

    /// Reads what is new, in bounded portions, beginning with the file after the one that was last.
    pub fn turn(&mut self, now: Timestamp) -> Turn {
        if self.last_scan.is_none_or(|last| now.since(last) >= SCAN_EVERY || now < last) {
            self.last_scan = Some(now);
            self.scan(now);
        }
        let mut turn = Turn::default();
        let mut text_bytes = 0;
        for key in self.order() {
            if text_bytes >= TURN_TEXT_BYTES_MAX || turn.records.len() >= TURN_RECORDS_MAX {
                turn.has_more = true;
                self.next_file = Some(key);
                break;
            }
            let Some(file) = self.files.get_mut(&key) else { continue };
            let (before, truncations) = (turn.records.len(), file.truncations());
            // The error stays with the file, for its status; the next turn tries again.
            turn.has_more |= file.turn(now, FILE_TURN, &mut turn.records).unwrap_or(false);
            text_bytes += turn.records.iter().skip(before).map(LogRecord::text_bytes).sum::<usize>();
            if file.truncations() != truncations {
                self.retired.extend(self.checkpoints.get(&key).cloned());
            }
            if let Some(checkpoint) = file.checkpoint(now) {
                self.checkpoints.insert(key, checkpoint.clone());
                turn.checkpoints.push(checkpoint);
            }
        }
        while self.retired.len() > RETIRED_MAX {
            self.retired.pop_front();
        }
        self.files.retain(|_, file| !file.is_finished(now));
        turn
    }

    /// Keys of all files, beginning with the one whose turn it is.
    fn order(&mut self) -> Vec<FileKey> {
        let first = self.next_file.take().unwrap_or(FileKey { dev: 0, inode: 0 });
        let later = self.files.range(first..).map(|(key, _)| *key);
        later.chain(self.files.range(..first).map(|(key, _)| *key)).collect()
    }

    fn scan(&mut self, now: Timestamp) {
        self.errors.clear();
        let mut seen = BTreeSet::new();
        for index in 0..self.sources.len() {
            let Some((source, stream)) = self.sources.get(index) else { continue };
            let (pattern, stream) = (source.path.clone(), stream.clone());
            let found = glob::expand(&pattern);
            if let Some((path, error)) = found.error {
                self.errors.push(format!("cannot look into {}: {error}{}", path.display(), hint(&error)));
            } else if found.files.is_empty() {
                self.errors.push(format!("no file matches {}", pattern.display()));
            }
            for path in choose(found.files, source) {
                if let Err(error) = self.follow(&path, &stream, now, &mut seen) {
                    let (FileError::Open { source, .. } | FileError::Read { source, .. }) = &error;
                    self.errors.push(chain(&error) + hint(source));
                }
            }
        }
        if !self.looked_for_renamed {
            self.looked_for_renamed = true;
            self.follow_renamed(now);
        }
        for (key, file) in &mut self.files {
            if !seen.contains(key) {
                file.set_gone();
            }
        }
    }

    fn follow(
        &mut self,
        path: &Path,
        stream: &Stream,
        now: Timestamp,
        seen: &mut BTreeSet<FileKey>,
    ) -> Result<(), FileError> {
        let open_error = |source| FileError::Open { path: path.to_owned(), source };
        let key = match fs::metadata(path) {
            Ok(metadata) => identity::file_key(&metadata),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(open_error(error)),
        };
        if !seen.insert(key) {
            return Ok(());
        }
        if let Some(known) = self.files.get_mut(&key) {
            known.set_path(path);
            return Ok(());
        }
        if self.files.len() >= FILES_MAX {
            self.errors.push(format!("{} is not followed: {FILES_MAX} files are open already", path.display()));
            return Ok(());
        }
        let mut file = TailedFile::open(path, stream.clone(), now)?;
        let by_key = self.checkpoints.get(&file.key()).filter(|checkpoint| file.resume(checkpoint));
        if by_key.is_none() {
            // A copy of a file that was read, as copytruncate makes it.
            let known = self.retired.iter().rev().chain(self.checkpoints.values());
            let mut copies = known.filter(|checkpoint| identity::is_distinctive(checkpoint));
            let _resumed = copies.find(|checkpoint| file.resume(checkpoint));
        }
        seen.insert(file.key());
        self.files.insert(file.key(), file);
        Ok(())
    }

    /// Files that were rotated away while we did not run: what they hold beyond their checkpoint is read before they
    /// are let go.
    fn follow_renamed(&mut self, now: Timestamp) {
        let missing: Vec<FileCheckpoint> =
            self.checkpoints.values().filter(|checkpoint| !self.files.contains_key(&checkpoint.key)).cloned().collect();
        for checkpoint in missing {
            let path = Path::new(&checkpoint.path);
            let stream = self.sources.iter().find(|(source, _)| glob::matches_path(&source.path, path));
            let Some((_, stream)) = stream else { continue };
            let stream = stream.clone();
            let Some(renamed) = path.parent().and_then(|dir| find_key(dir, checkpoint.key)) else { continue };
            let Ok(mut file) = TailedFile::open(&renamed, stream, now) else { continue };
            if file.key() == checkpoint.key && file.resume(&checkpoint) && self.files.len() < FILES_MAX {
                file.set_gone();
                self.files.insert(file.key(), file);
            }
        }
    }

    /// Forgets checkpoints of files that are gone since before `before`.
    pub fn forget_unseen(&mut self, before: Timestamp) {
        let files = &self.files;
        self.checkpoints.retain(|key, checkpoint| files.contains_key(key) || checkpoint.seen_at >= before);
    }

    /// State of every followed file.
    pub fn status(&self) -> Vec<FileStatus> {
        self.files.values().map(TailedFile::status).collect()
    }

    /// What is wrong with the patterns.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// Whether a checkpoint is still of use.
    pub fn remembers(&self, key: FileKey) -> bool {
        self.checkpoints.contains_key(&key)
    }
}

/// What to do about an error.
fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "; let the agent's user read it, for instance as a member of the group postgres or adm"
        }
        _ => "",
    }
}

/// The path in a directory that leads to a file.
fn find_key(dir: &Path, key: FileKey) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.filter_map(Result::ok);
    let mut paths = entries.map(|entry| entry.path());
    paths.find(|path| {
        fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && identity::file_key(&metadata) == key)
    })
}

/// Leaves out packed files and, where one server logs in several formats beside each other, all but the best.
fn choose(files: Vec<PathBuf>, source: &LogSource) -> Vec<PathBuf> {
    let packed = |path: &PathBuf| {
        path.extension().and_then(|extension| extension.to_str()).is_some_and(|extension| PACKED.contains(&extension))
    };
    let files: Vec<PathBuf> = files.into_iter().filter(|path| !packed(path)).collect();
    if source.format.is_some() || source.source != "postgresql" {
        return files;
    }
    let mut best: BTreeMap<PathBuf, u8> = BTreeMap::new();
    for path in &files {
        let rank = best.entry(path.with_extension("")).or_insert(u8::MAX);
        *rank = (*rank).min(Format::preference(path));
    }
    files
        .into_iter()
        .filter(|path| best.get(&path.with_extension("")).is_none_or(|rank| *rank == Format::preference(path)))
        .collect()
}

#[cfg(test)]
mod tests;
