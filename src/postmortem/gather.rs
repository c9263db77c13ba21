//! Log files and folders to records, without being told what they are.
//!
//! Two passes, each streaming: the first ([`Survey::of`]) finds out which program wrote each file, which member it
//! belongs to, the zone of times that carry none, and whose clock is off; the second ([`Survey::read`]) makes the same
//! records that the agents would have made of these files, with corrected times. Memory does not grow with the files.
//!
//! - What was found out is in [`Survey::parts`] and [`Survey::clocks`], with the evidence; what was not is in
//!   [`Survey::notes`]. Nothing is guessed silently.
//! - A clock is corrected only when at least two happenings, seen on both hosts, agree that it is off.
//! - A corrected record keeps what its host said in the field `original_time`.

pub mod detect;

mod clocks;
mod cut;
mod duplicates;
mod files;
mod happenings;
mod names;
mod part;
mod words;
mod wrapped;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::model::{LogRecord, Timestamp};

use files::LogFile;
use part::{Facts, PartKey, Reading};

/// Records that are handed over at once at most.
const BATCH_RECORDS: usize = 2000;
/// Text of the records that [`gather`] returns, at most.
const RECORDS_BYTES_MAX: usize = 1 << 30;
/// Records of a file between two calls of the progress function.
const PROGRESS_EVERY_RECORDS: u64 = 10_000;

/// What the user knows better than the files.
#[derive(Clone, Debug, Default)]
pub struct GatherOptions {
    /// Only records from here on, after correction.
    pub from: Option<Timestamp>,
    /// Only records before this, after correction.
    pub to: Option<Timestamp>,
    /// The cluster's name.
    pub cluster: Option<String>,
    /// Pattern of a path or a host, and the member whose logs these are. The first that matches counts.
    pub members: Vec<(String, String)>,
    /// Zone of all times that carry none, in seconds east of UTC.
    pub timezone: Option<i32>,
    /// Seconds that a member's clock was ahead.
    pub skews: BTreeMap<String, f64>,
}

/// What makes gathering impossible.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    #[error("read {path}")]
    Path { path: PathBuf, source: io::Error },
    #[error("more than {max} files under {path}; give the folder with the logs only")]
    TooManyFiles { path: PathBuf, max: usize },
    #[error("no logs among the {files} files given; the first says: {why}")]
    NoLogs { files: usize, why: String },
    #[error("the records take more than {max} bytes; narrow them with --from and --to")]
    TooMuch { max: usize },
    #[error("--skew names {member}, which has no logs here; there are {known}")]
    UnknownMember { member: String, known: String },
}

/// How sure something is that was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// Nothing tells; the usual was taken.
    Assumed,
    /// From names of files and folders, or from other hosts.
    Likely,
    /// From the contents.
    Certain,
    /// The user said so.
    Given,
}

/// Something that was found out, and from what.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding<T> {
    pub value: T,
    pub certainty: Certainty,
    pub why: String,
}

/// The log of one program of one host: a file, or the lines of one program in a file of many.
#[derive(Clone, Debug, Serialize)]
pub struct LogPart {
    pub path: PathBuf,
    /// The stream label `source`.
    pub source: String,
    pub format: &'static str,
    pub member: Finding<String>,
    /// Seconds east of UTC, for times that carry no zone.
    pub zone: Option<Finding<i32>>,
    pub records: u64,
    /// Corrected.
    pub first_at: Timestamp,
    /// Corrected.
    pub last_at: Timestamp,
    /// Records that their parser did not understand, and the first lines of such.
    pub not_understood: u64,
    pub not_understood_lines: Vec<u64>,
    /// Why the records are not taken, if they are not.
    pub left_out: Option<String>,
}

/// The clock of a member's host against that of the reference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemberClock {
    pub member: String,
    /// Positive: the clock is ahead. Zero for the reference.
    pub ahead_seconds: f64,
    /// `None`: nothing tells how far it is off.
    pub error_seconds: Option<f64>,
    /// Whether times of this member were corrected.
    pub corrected: bool,
    pub certainty: Certainty,
    pub why: String,
}

/// Something the reader should know about the files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    pub path: Option<PathBuf>,
    pub line: Option<u64>,
    pub text: String,
}

/// What the files are.
#[derive(Debug)]
pub struct Survey {
    pub cluster: Finding<String>,
    pub parts: Vec<LogPart>,
    pub clocks: Vec<MemberClock>,
    pub notes: Vec<Note>,
    files: Vec<LogFile>,
    readings: BTreeMap<(usize, PartKey), Reading>,
    window: (Timestamp, Timestamp),
}

/// Records and what they were made of.
#[derive(Debug)]
pub struct Gathered {
    /// In order of their times.
    pub records: Vec<LogRecord>,
    pub survey: Survey,
}

/// Called now and then with the number of bytes that were read so far.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

/// Reads files and folders into memory; for what fits there. [`Survey::read`] streams.
pub fn gather(paths: &[PathBuf], options: &GatherOptions) -> Result<Gathered, GatherError> {
    let survey = Survey::of(paths, options, &|_| {})?;
    let mut records = Vec::new();
    let mut bytes = 0;
    survey.read(&|_| {}, &mut |batch| {
        bytes += batch.iter().map(LogRecord::text_bytes).sum::<usize>();
        records.extend(batch);
        if bytes > RECORDS_BYTES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if bytes > RECORDS_BYTES_MAX {
        return Err(GatherError::TooMuch { max: RECORDS_BYTES_MAX });
    }
    records.sort_by_key(|record| record.at);
    Ok(Gathered { records, survey })
}

impl Survey {
    /// The first pass.
    pub fn of(paths: &[PathBuf], options: &GatherOptions, progress: Progress<'_>) -> Result<Self, GatherError> {
        let mut notes = Vec::new();
        let files = files::find(paths, &mut notes)?;
        let mut surveyed = Vec::new();
        let mut bytes = 0;
        for (index, file) in files.iter().enumerate() {
            let facts = part::survey(file, &mut |read| progress(bytes + read));
            bytes += file.bytes;
            match facts {
                Ok(facts) => surveyed.extend(facts.into_iter().map(|facts| (index, facts))),
                Err(error) => notes.push(Note::file(&file.path, format!("could not be read: {error}"))),
            }
        }
        for file in files.iter().filter(|file| file.not_a_log().is_some()) {
            notes.push(Note::file(&file.path, file.not_a_log().unwrap_or_default().to_owned()));
        }
        surveyed.retain(|(_, facts)| facts.records > 0);
        if surveyed.is_empty() {
            let why = notes.first().map_or_else(|| "there are no files".to_owned(), Note::to_string);
            return Err(GatherError::NoLogs { files: files.len(), why });
        }
        Self::conclude(files, &surveyed, options, notes)
    }

    fn conclude(
        files: Vec<LogFile>,
        surveyed: &[(usize, Facts)],
        options: &GatherOptions,
        mut notes: Vec<Note>,
    ) -> Result<Self, GatherError> {
        let members = names::members(&files, surveyed, options, &mut notes);
        let cluster = names::cluster(&files, surveyed, options, &mut notes);
        let zones = clocks::zones(surveyed, &members, options);
        let clocks = clocks::skews(surveyed, &members, &zones, options)?;
        let copies = duplicates::find(&files, surveyed, &members, &zones);
        let ahead: BTreeMap<&str, f64> = clocks
            .iter()
            .filter(|clock| clock.corrected)
            .map(|clock| (clock.member.as_str(), clock.ahead_seconds))
            .collect();
        let mut parts = Vec::new();
        let mut readings = BTreeMap::new();
        for (((index, facts), (member, zone)), copy) in surveyed.iter().zip(members.iter().zip(&zones)).zip(&copies) {
            let Some(file) = files.get(*index) else { continue };
            let ahead_seconds = ahead.get(member.value.as_str()).copied().unwrap_or(0.0);
            let zone_seconds = zone.as_ref().map_or(0, |zone| zone.value);
            let correct = |at| part::corrected(at, zone_seconds, ahead_seconds);
            // A proxy on a host of its own is nobody's: the label names members of the cluster.
            let is_member = surveyed.iter().zip(&members).any(|((_, facts), of)| {
                of.value == member.value && ["patroni", "postgresql", "etcd"].contains(&facts.key.source.as_str())
            });
            let reading = Reading {
                cluster: cluster.value.clone(),
                member: if is_member { member.value.clone() } else { String::new() },
                zone_seconds,
                ahead_seconds,
                first_at: facts.first_at,
                skip: copy.as_ref().map(|copy| copy.range),
            };
            readings.insert((*index, facts.key.clone()), reading);
            parts.push(LogPart {
                path: file.path.clone(),
                source: facts.key.source.clone(),
                format: facts.format.as_str(),
                member: member.clone(),
                zone: zone.clone(),
                records: facts.records,
                first_at: correct(facts.first_at),
                last_at: correct(facts.last_at),
                not_understood: facts.not_understood,
                not_understood_lines: facts.not_understood_lines.clone(),
                left_out: copy.as_ref().map(|copy| copy.why.clone()),
            });
        }
        notes.extend(parts.iter().filter_map(Note::not_understood));
        notes.sort();
        notes.dedup();
        let window = (options.from.unwrap_or(Timestamp::MIN), options.to.unwrap_or(Timestamp::MAX));
        Ok(Self { cluster, parts, clocks, notes, files, readings, window })
    }

    /// Members that have logs, in order.
    pub fn members(&self) -> BTreeSet<&str> {
        self.parts.iter().map(|part| part.member.value.as_str()).collect()
    }

    /// Bytes of all files, as they are on disk.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The second pass: records, file by file, in batches. A file that cannot be read any more is an error now.
    pub fn read(
        &self,
        progress: Progress<'_>,
        sink: &mut dyn FnMut(Vec<LogRecord>) -> ControlFlow<()>,
    ) -> Result<(), GatherError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for (index, file) in self.files.iter().enumerate() {
            if file.not_a_log().is_some() || !self.readings.keys().any(|(of, _)| *of == index) {
                bytes += file.bytes;
                continue;
            }
            let reading = |key: &PartKey| self.readings.get(&(index, key.clone()));
            let mut take = |record: LogRecord| {
                if record.at < self.window.0 || record.at >= self.window.1 {
                    return ControlFlow::Continue(());
                }
                batch.push(record);
                if batch.len() < BATCH_RECORDS {
                    return ControlFlow::Continue(());
                }
                sink(std::mem::take(&mut batch))
            };
            let flow = part::read(file, &reading, &mut |read| progress(bytes + read), &mut take)
                .map_err(|source| GatherError::Path { path: file.path.clone(), source })?;
            if flow.is_break() {
                return Ok(());
            }
            bytes += file.bytes;
        }
        if !batch.is_empty() {
            // The last batch: there is nothing left to break off.
            let _done = sink(batch);
        }
        Ok(())
    }
}

impl Note {
    fn file(path: &Path, text: String) -> Self {
        Self { path: Some(path.to_owned()), line: None, text }
    }

    fn about(text: String) -> Self {
        Self { path: None, line: None, text }
    }

    fn not_understood(part: &LogPart) -> Option<Self> {
        let line = *part.not_understood_lines.first()?;
        let text = format!(
            "{} of {} records were not understood as {}; they are kept as plain text",
            part.not_understood, part.records, part.format
        );
        Some(Self { path: Some(part.path.clone()), line: Some(line), text })
    }
}

/// `path:line: text`, what is absent left out.
impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}:", path.display())?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.text)
    }
}
