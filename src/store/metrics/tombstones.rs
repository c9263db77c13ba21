//! Deletions: what was deleted stays in its files until they are rewritten, and is left out when they are read.
//!
//! A deletion concerns what was there when it was asked for: blocks and windows below a number. The list is one small file,
//! replaced as a whole.

use std::io;
use std::path::{Path, PathBuf};

use crate::model::{Labels, MatchOp, Matcher};
use crate::platform::disk::Disk;
use crate::store::metrics::Point;
use crate::store::metrics::bytes::{Reader, put_bytes, put_ivarint, put_uvarint};

const FILE: &str = "deletions";
const MAGIC: &[u8; 8] = b"DRJDEL01";
/// Deletions that wait for their files to be rewritten.
const DELETIONS_MAX: usize = 10_000;

/// Why deletions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeletionError {
    #[error("read the deletions {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("write the deletions {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{DELETIONS_MAX} deletions wait already; clean the tombstones first")]
    TooMany,
}

/// Samples that are gone.
#[derive(Clone, Debug)]
pub(super) struct Deletion {
    pub(super) matchers: Vec<Matcher>,
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    /// Concerns blocks with a lower number.
    pub(super) blocks_below: u64,
    /// Concerns windows with a lower number.
    pub(super) windows_below: u64,
}

/// The deletions of one series, for reading.
#[derive(Clone, Debug, Default)]
pub(super) struct Gone(Vec<Deletion>);

impl Gone {
    /// Removes, of the points from `from` on, what is gone from a block.
    pub(super) fn apply_to_block(&self, number: u64, from: usize, points: &mut Vec<Point>) {
        self.apply(from, points, |deletion| number < deletion.blocks_below);
    }

    /// Removes, of the points from `from` on, what is gone from a window.
    pub(super) fn apply_to_window(&self, number: u64, from: usize, points: &mut Vec<Point>) {
        self.apply(from, points, |deletion| number < deletion.windows_below);
    }

    fn apply(&self, from: usize, points: &mut Vec<Point>, concerns: impl Fn(&Deletion) -> bool) {
        if self.0.is_empty() {
            return;
        }
        let gone = |point: &Point| self.0.iter().any(|d| concerns(d) && (d.start_ms..=d.end_ms).contains(&point.at_ms));
        let mut position = 0;
        points.retain(|point| {
            position += 1;
            position <= from || !gone(point)
        });
    }
}

/// All deletions.
#[derive(Clone, Debug, Default)]
pub(super) struct Deletions(Vec<Deletion>);

impl Deletions {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, deletion: Deletion) -> Result<(), DeletionError> {
        if self.0.len() >= DELETIONS_MAX {
            return Err(DeletionError::TooMany);
        }
        self.0.push(deletion);
        Ok(())
    }

    /// The deletions of a series.
    pub(super) fn of(&self, labels: &Labels) -> Gone {
        let concerns = |deletion: &&Deletion| deletion.matchers.iter().all(|matcher| matcher.matches(labels));
        Gone(self.0.iter().filter(concerns).cloned().collect())
    }

    /// Whether a block of these times may have deleted samples.
    pub(super) fn concern_block(&self, number: u64, (min_ms, max_ms): (i64, i64)) -> bool {
        self.0.iter().any(|d| number < d.blocks_below && d.start_ms <= max_ms && d.end_ms >= min_ms)
    }

    /// Forgets deletions that concern nothing any more. `blocks` and `windows` are what there is, with their times.
    pub(super) fn forget_done(&mut self, blocks: &[(u64, i64, i64)], windows: &[(u64, i64, i64)]) -> bool {
        let before = self.0.len();
        self.0.retain(|d| {
            let overlaps = |below: u64, (number, min, max): &(u64, i64, i64)| {
                *number < below && *min <= d.end_ms && *max >= d.start_ms
            };
            blocks.iter().any(|block| overlaps(d.blocks_below, block))
                || windows.iter().any(|window| overlaps(d.windows_below, window))
        });
        self.0.len() != before
    }

    /// Reads the list; a damaged one is set aside and its path returned.
    pub(super) fn load(disk: &Disk, dir: &Path) -> Result<(Self, Option<PathBuf>), DeletionError> {
        let path = dir.join(FILE);
        let bytes = match disk.read(&path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok((Self::default(), None)),
            Err(source) => return Err(DeletionError::Read { path, source }),
        };
        if let Some(deletions) = Self::decode(&bytes) {
            return Ok((deletions, None));
        }
        let aside = path.with_extension("damaged");
        disk.rename(&path, &aside).map_err(|source| DeletionError::Write { path, source })?;
        Ok((Self::default(), Some(aside)))
    }

    pub(super) fn save(&self, disk: &Disk, dir: &Path) -> Result<(), DeletionError> {
        let path = dir.join(FILE);
        disk.write_atomic(&path, &self.encode()).map_err(|source| DeletionError::Write { path, source })
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_uvarint(&mut body, self.0.len() as u64);
        for deletion in &self.0 {
            put_ivarint(&mut body, deletion.start_ms);
            put_ivarint(&mut body, deletion.end_ms);
            put_uvarint(&mut body, deletion.blocks_below);
            put_uvarint(&mut body, deletion.windows_below);
            put_uvarint(&mut body, deletion.matchers.len() as u64);
            for matcher in &deletion.matchers {
                put_bytes(&mut body, matcher.op.symbol().as_bytes());
                put_bytes(&mut body, matcher.name.as_bytes());
                put_bytes(&mut body, matcher.value.as_bytes());
            }
        }
        let mut out = MAGIC.to_vec();
        out.extend(crc32fast::hash(&body).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes.strip_prefix(MAGIC)?);
        let crc = reader.u32_le()?;
        if crc32fast::hash(reader.rest()) != crc {
            return None;
        }
        let mut list = Vec::new();
        for _ in 0..reader.count()? {
            let (start_ms, end_ms) = (reader.ivarint()?, reader.ivarint()?);
            let (blocks_below, windows_below) = (reader.uvarint()?, reader.uvarint()?);
            let mut matchers = Vec::new();
            for _ in 0..reader.count()? {
                let (op, name, value) = (reader.text()?, reader.text()?, reader.text()?);
                let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];
                let op = ops.into_iter().find(|known| known.symbol() == op)?;
                matchers.push(Matcher::new(name, op, value).ok()?);
            }
            list.push(Deletion { matchers, start_ms, end_ms, blocks_below, windows_below });
        }
        reader.is_empty().then_some(Self(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_comes_back_and_any_damage_is_noticed() {
        let mut deletions = Deletions::default();
        let matchers = vec![Matcher::equal("job", "a"), Matcher::new("i", MatchOp::NotRegex, "x.*").unwrap()];
        deletions.push(Deletion { matchers, start_ms: -5, end_ms: 7, blocks_below: 3, windows_below: 9 }).unwrap();
        let bytes = deletions.encode();
        assert_eq!(Deletions::decode(&bytes).unwrap().encode(), bytes);
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 1;
            assert!(Deletions::decode(&broken).is_none(), "byte {at}");
        }
    }
}
