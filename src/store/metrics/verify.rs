//! Checking a store's files without changing them.

use std::io;
use std::path::{Path, PathBuf};

use crate::platform::disk::Disk;
use crate::platform::error::chain;
use crate::store::metrics::Point;
use crate::store::metrics::block::index::Entry;
use crate::store::metrics::block::{Block, BlockError, ColumnCache, EXTENSION};
use crate::store::metrics::head::log;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    pub blocks: usize,
    /// Logs of windows in memory.
    pub head_logs: usize,
    /// Samples in blocks; a sample that is in two blocks counts twice.
    pub samples: u64,
    /// What is wrong, each with its file.
    pub problems: Vec<String>,
    /// Files that were set aside before.
    pub set_aside: Vec<PathBuf>,
}

/// Reads every byte of every block and of the head's logs in a metric store's directory. Nothing is changed, so it may be
/// run beside a server; a torn end of a log that is being written is no problem.
pub fn verify(dir: &Path, disk: &Disk) -> io::Result<VerifyReport> {
    let mut report = VerifyReport::default();
    for path in disk.list(dir)? {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(EXTENSION) => {
                report.blocks += 1;
                match verify_block(disk, &path) {
                    Ok(samples) => report.samples += samples,
                    Err(error) => report.problems.push(chain(&error)),
                }
            }
            Some("damaged") => report.set_aside.push(path),
            _ => {}
        }
    }
    for path in disk.list(&dir.join("head"))? {
        if log::parse_name(&path).is_some() {
            report.head_logs += 1;
            if let Some(problem) = log::verify(disk, &path)? {
                report.problems.push(problem);
            }
        } else if path.extension().is_some_and(|extension| extension == "damaged") {
            report.set_aside.push(path);
        }
    }
    Ok(report)
}

fn verify_block(disk: &Disk, path: &Path) -> Result<u64, BlockError> {
    let block = Block::open(disk, path)?;
    let index = block.load_index()?;
    let mut cache = ColumnCache::default();
    let mut points: Vec<Point> = Vec::new();
    let mut samples = 0u64;
    let mut entry = Entry::default();
    let mut cursor = index.cursor(0);
    let mut before: Option<crate::model::Labels> = None;
    for _ in 0..index.series_count() {
        let read = cursor.as_mut().and_then(|cursor| cursor.next(&index, &mut entry));
        read.ok_or_else(|| block.damaged("its series table cannot be read"))?;
        let labels = index.labels(&entry.labels).ok_or_else(|| block.damaged("a series has no labels"))?;
        if before.is_some_and(|before| before >= labels) {
            return Err(block.damaged("its series are out of order"));
        }
        before = Some(labels);
        points.clear();
        for chunk in &entry.chunks {
            block.read_chunk(&index, *chunk, &mut cache, ((i64::MIN, i64::MAX), &mut points))?;
        }
        if !points.is_sorted_by(|a, b| a.at_ms < b.at_ms) {
            return Err(block.damaged("the samples of a series are out of order"));
        }
        samples += points.len() as u64;
    }
    if samples != block.summary.samples {
        return Err(block.damaged("it holds another number of samples than its summary says"));
    }
    Ok(samples)
}
