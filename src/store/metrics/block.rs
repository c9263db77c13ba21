//! Block files: the samples of a window or a day, immutable, sorted by labels, each file with its own index and checksums.
//!
//! Guarantees: a file has its final name only when it is complete and synced. What does not pass its checksum is an
//! error that names the file, never data. `FORMAT.md` describes the bytes.

pub(super) mod index;
pub(super) mod write;

use std::io;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashMap;

use crate::platform::disk::{Disk, DiskFile};
use crate::store::metrics::Point;
use crate::store::metrics::block::index::{BlockIndex, Column};
use crate::store::metrics::bytes::{Reader, put_ivarint, put_uvarint};
use crate::store::metrics::codec::{ints, values};

pub(super) const EXTENSION: &str = "block";
const MAGIC: &[u8; 8] = b"DRJBLK02";
const END_MAGIC: &[u8; 8] = b"DRJBLKEN";
/// Length and checksum of the summary, then the end mark.
const FOOTER_BYTES: usize = 16;
/// A summary names a handful of numbers; more is damage.
const SUMMARY_BYTES_MAX: u32 = 1 << 20;
/// Samples in a chunk.
const CHUNK_SAMPLES_MAX: usize = 8192;
/// Decoded times that one reader keeps.
const COLUMN_CACHE_TIMES: usize = 1 << 20;

/// Why a block cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    #[error("read the block {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("write the block {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("the block {path} is damaged: {what}")]
    Damaged { path: PathBuf, what: &'static str },
    #[error("the block {path} was written by a version with another format; move it away")]
    OtherFormat { path: PathBuf },
}

impl BlockError {
    /// The file.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. }
            | Self::Write { path, .. }
            | Self::Damaged { path, .. }
            | Self::OtherFormat { path } => path,
        }
    }
}

/// A part of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Section {
    offset: u64,
    bytes: u64,
    crc: u32,
}

/// What a block is about, without its index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
    pub(super) samples: u64,
    pub(super) series: u64,
    /// How often its samples were rewritten: 0 from the head, 1 from other blocks.
    pub(super) level: u8,
    /// Numbers of the head windows whose samples are all in here, so that their logs are not replayed.
    pub(super) heads: Vec<u64>,
    /// Blocks that this one replaces; they go if a crash left them.
    pub(super) replaces: Vec<u64>,
    columns: Section,
    symbols: Section,
    table: Section,
    labels: Section,
}

impl Summary {
    /// Of a block that is about to be written.
    pub(super) fn made_of(level: u8, heads: Vec<u64>, replaces: Vec<u64>) -> Self {
        Self { level, heads, replaces, ..Self::default() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.level];
        put_ivarint(&mut out, self.min_ms);
        put_ivarint(&mut out, self.max_ms);
        put_uvarint(&mut out, self.samples);
        put_uvarint(&mut out, self.series);
        for section in [self.columns, self.symbols, self.table, self.labels] {
            put_uvarint(&mut out, section.offset);
            put_uvarint(&mut out, section.bytes);
            out.extend(section.crc.to_le_bytes());
        }
        for list in [&self.heads, &self.replaces] {
            put_uvarint(&mut out, list.len() as u64);
            for number in list {
                put_uvarint(&mut out, *number);
            }
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut summary = Self {
            level: reader.u8()?,
            min_ms: reader.ivarint()?,
            max_ms: reader.ivarint()?,
            samples: reader.uvarint()?,
            series: reader.uvarint()?,
            ..Self::default()
        };
        for section in [&mut summary.columns, &mut summary.symbols, &mut summary.table, &mut summary.labels] {
            *section = Section { offset: reader.uvarint()?, bytes: reader.uvarint()?, crc: reader.u32_le()? };
        }
        for list in [&mut summary.heads, &mut summary.replaces] {
            for _ in 0..reader.count()? {
                // There must be a next number.
                list.push(reader.uvarint().filter(|number| *number < u64::MAX)?);
            }
        }
        reader.is_empty().then_some(summary)
    }
}

/// Where the samples of one series and one stretch of time lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkAt {
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
    column: u32,
    /// Samples of the column before the first one.
    skip: u32,
    pub(super) count: u32,
    offset: u64,
    bytes: u32,
    crc: u32,
}

impl ChunkAt {
    pub(super) fn overlaps(&self, start_ms: i64, end_ms: i64) -> bool {
        self.min_ms <= end_ms && self.max_ms >= start_ms
    }
}

/// Decoded columns of times, shared by the series that one reader reads.
#[derive(Debug, Default)]
pub(super) struct ColumnCache {
    columns: FxHashMap<(u64, u32), Vec<i64>>,
    times: usize,
    values: Vec<f64>,
}

/// An open block file; only its summary is in memory.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) path: PathBuf,
    pub(super) number: u64,
    file: DiskFile,
    pub(super) bytes: u64,
    pub(super) summary: Summary,
}

/// The name of a block's file.
pub(super) fn file_name(min_ms: i64, number: u64) -> String {
    format!("{:013}-{number:08}.{EXTENSION}", min_ms.max(0))
}

/// The number in a block's file name.
pub(super) fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let (_, rest) = name.split_once('-')?;
    rest.split('.').next()?.parse().ok().filter(|number| *number < u64::MAX)
}

impl Block {
    pub(super) fn open(disk: &Disk, path: &Path) -> Result<Self, BlockError> {
        let read_error = |source| BlockError::Read { path: path.to_owned(), source };
        let damaged = |what| BlockError::Damaged { path: path.to_owned(), what };
        let file = disk.open_read(path).map_err(read_error)?;
        let bytes = file.len().map_err(read_error)?;
        let footer_at = bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| damaged("it is too short"))?;
        let (mut magic, mut footer) = ([0u8; MAGIC.len()], [0u8; FOOTER_BYTES]);
        file.read_exact_at(&mut magic, 0).map_err(read_error)?;
        file.read_exact_at(&mut footer, footer_at).map_err(read_error)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3, end @ ..] = footer;
        if &end != END_MAGIC {
            return Err(damaged("its end mark is missing"));
        }
        if &magic != MAGIC {
            let known = magic.starts_with(b"DRJBLK");
            return Err(if known {
                BlockError::OtherFormat { path: path.to_owned() }
            } else {
                damaged("it is no block")
            });
        }
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        let at = footer_at.checked_sub(u64::from(len)).filter(|_| len <= SUMMARY_BYTES_MAX);
        let at = at.ok_or_else(|| damaged("its summary has a wrong length"))?;
        let mut encoded = vec![0; len as usize];
        file.read_exact_at(&mut encoded, at).map_err(read_error)?;
        if crc32fast::hash(&encoded) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(damaged("its summary fails the checksum"));
        }
        let summary = Summary::decode(&encoded).ok_or_else(|| damaged("its summary cannot be read"))?;
        let inside = |section: &Section| section.offset.checked_add(section.bytes).is_some_and(|end| end <= at);
        if ![summary.columns, summary.symbols, summary.table, summary.labels].iter().all(inside) {
            return Err(damaged("its index lies outside"));
        }
        let number = number_of(path).ok_or_else(|| damaged("its name has no number"))?;
        Ok(Self { path: path.to_owned(), number, file, bytes, summary })
    }

    pub(super) fn overlaps(&self, start_ms: i64, end_ms: i64) -> bool {
        self.summary.min_ms <= end_ms && self.summary.max_ms >= start_ms
    }

    pub(super) fn damaged(&self, what: &'static str) -> BlockError {
        BlockError::Damaged { path: self.path.clone(), what }
    }

    fn read_at(&self, section: Section, what: &'static str) -> Result<Vec<u8>, BlockError> {
        let end = section.offset.checked_add(section.bytes).filter(|end| *end <= self.bytes);
        let length = end.and_then(|_| usize::try_from(section.bytes).ok()).ok_or_else(|| self.damaged(what))?;
        let mut bytes = vec![0; length];
        match self.file.read_exact_at(&mut bytes, section.offset) {
            Ok(()) if crc32fast::hash(&bytes) == section.crc => Ok(bytes),
            Ok(()) => Err(self.damaged(what)),
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => Err(self.damaged("it ends too early")),
            Err(source) => Err(BlockError::Read { path: self.path.clone(), source }),
        }
    }

    /// Reads the index.
    pub(super) fn load_index(&self) -> Result<BlockIndex, BlockError> {
        let summary = &self.summary;
        let columns = self.read_at(summary.columns, "its list of columns fails the checksum")?;
        let symbols = self.read_at(summary.symbols, "its symbols fail the checksum")?;
        let table = self.read_at(summary.table, "its series table fails the checksum")?;
        let labels = self.read_at(summary.labels, "its label index fails the checksum")?;
        BlockIndex::decode(&columns, &symbols, table, labels).ok_or_else(|| self.damaged("its index cannot be read"))
    }

    fn read_column(&self, column: Column) -> Result<Vec<i64>, BlockError> {
        let section = Section { offset: column.offset, bytes: u64::from(column.bytes), crc: column.crc };
        let bytes = self.read_at(section, "a column of times fails the checksum")?;
        let mut times = Vec::new();
        let mut reader = Reader::new(&bytes);
        let decoded = ints::decode(&mut reader, column.count as usize, &mut times);
        let in_order = times.is_sorted_by(|a, b| a < b);
        decoded.filter(|()| in_order).ok_or_else(|| self.damaged("a column of times cannot be read"))?;
        Ok(times)
    }

    /// Reads the points of a chunk inside a range of times onto `out`.
    pub(super) fn read_chunk(
        &self,
        index: &BlockIndex,
        at: ChunkAt,
        cache: &mut ColumnCache,
        (range, out): ((i64, i64), &mut Vec<Point>),
    ) -> Result<(), BlockError> {
        let key = (self.number, at.column);
        if !cache.columns.contains_key(&key) {
            let column = index.column(at.column).ok_or_else(|| self.damaged("a chunk has no times"))?;
            let times = self.read_column(column)?;
            if cache.times + times.len() > COLUMN_CACHE_TIMES {
                cache.columns.clear();
                cache.times = 0;
            }
            cache.times += times.len();
            cache.columns.insert(key, times);
        }
        let times = cache.columns.get(&key).map(Vec::as_slice).unwrap_or_default();
        let (skip, count) = (at.skip as usize, at.count as usize);
        let times = times.get(skip..).and_then(|times| times.get(..count));
        let times = times.ok_or_else(|| self.damaged("a chunk has fewer times than values"))?;
        let from = times.partition_point(|time| *time < range.0);
        let to = times.partition_point(|time| *time <= range.1);
        if from >= to {
            return Ok(());
        }
        let section = Section { offset: at.offset, bytes: u64::from(at.bytes), crc: at.crc };
        let bytes = self.read_at(section, "a chunk fails the checksum")?;
        cache.values.clear();
        let decoded = values::decode(&bytes, count, &mut cache.values);
        decoded.ok_or_else(|| self.damaged("a chunk cannot be read"))?;
        let pairs = times.iter().zip(&cache.values).skip(from).take(to - from);
        out.extend(pairs.map(|(at_ms, value)| Point { at_ms: *at_ms, value: *value }));
        Ok(())
    }
}
