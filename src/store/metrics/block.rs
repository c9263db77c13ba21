//! Block files: the samples of one window, immutable, sorted by labels, each file with its own index and checksums.
//!
//! Guarantees: a file has its final name only when it is complete and synced. What does not pass its checksum is an
//! error that names the file, never data. `FORMAT.md` describes the bytes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::Labels;
use crate::platform::disk::{Disk, DiskFile};
use crate::store::metrics::bytes::{Reader, put_bytes, put_ivarint, put_uvarint};
use crate::store::metrics::chunk::{Chunk, Point, decode_into};
use crate::store::metrics::postings::LabelIndex;
use crate::store::metrics::wal::BATCH_MAX;

pub(super) const EXTENSION: &str = "block";
const MAGIC: &[u8; 8] = b"DRJBLK01";
const END_MAGIC: &[u8; 8] = b"DRJBLKEN";
/// Length and checksum of the summary, then the end mark.
const FOOTER_BYTES: usize = 16;
/// A summary names a handful of numbers; more is damage.
const SUMMARY_BYTES_MAX: u32 = 1 << 20;
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// Why a block cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    #[error("read the block {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("write the block {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("the block {path} is damaged: {what}")]
    Damaged { path: PathBuf, what: &'static str },
}

/// What a block is about, without its index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
    pub(super) samples: u64,
    pub(super) series: u64,
    index_offset: u64,
    index_len: u64,
    index_crc: u32,
    /// Window starts, each with the batch number below which this block has all of the window's samples.
    pub(super) windows: Vec<(i64, u64)>,
}

impl Summary {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_ivarint(&mut out, self.min_ms);
        put_ivarint(&mut out, self.max_ms);
        for number in [self.samples, self.series, self.index_offset, self.index_len, u64::from(self.index_crc)] {
            put_uvarint(&mut out, number);
        }
        put_uvarint(&mut out, self.windows.len() as u64);
        for (start_ms, batch) in &self.windows {
            put_ivarint(&mut out, *start_ms);
            put_uvarint(&mut out, *batch);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut summary = Self {
            min_ms: reader.ivarint()?,
            max_ms: reader.ivarint()?,
            samples: reader.uvarint()?,
            series: reader.uvarint()?,
            index_offset: reader.uvarint()?,
            index_len: reader.uvarint()?,
            index_crc: reader.u32()?,
            windows: Vec::new(),
        };
        for _ in 0..reader.count()? {
            summary.windows.push((reader.ivarint()?, reader.uvarint()?));
        }
        summary.windows.iter().all(|(_, batch)| *batch <= BATCH_MAX).then_some(summary)
    }
}

/// Where a chunk lies in its file.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkAt {
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
    count: u16,
    offset: u64,
    len: u32,
    crc: u32,
}

/// Writes a block, series by series.
#[derive(Debug)]
pub(super) struct BlockWriter {
    disk: Disk,
    path: PathBuf,
    temporary: PathBuf,
    file: DiskFile,
    buffer: Vec<u8>,
    offset: u64,
    symbols: BTreeMap<Arc<str>, u32>,
    series: Vec<(Labels, Vec<ChunkAt>)>,
    summary: Summary,
}

impl BlockWriter {
    pub(super) fn create(disk: &Disk, path: &Path, windows: Vec<(i64, u64)>) -> Result<Self, BlockError> {
        let temporary = path.with_extension("tmp");
        let opened = disk.open_append(&temporary).and_then(|file| file.set_len(0).map(|()| file));
        let file = opened.map_err(|source| BlockError::Write { path: path.to_owned(), source })?;
        Ok(Self {
            disk: disk.clone(),
            path: path.to_owned(),
            temporary,
            file,
            buffer: MAGIC.to_vec(),
            offset: MAGIC.len() as u64,
            symbols: BTreeMap::new(),
            series: Vec::new(),
            summary: Summary { min_ms: i64::MAX, max_ms: i64::MIN, windows, ..Summary::default() },
        })
    }

    /// Adds a series; labels must come in order.
    pub(super) fn add(&mut self, labels: &Labels, chunks: &[Chunk]) -> Result<(), BlockError> {
        let mut places = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            self.summary.min_ms = self.summary.min_ms.min(chunk.min_ms);
            self.summary.max_ms = self.summary.max_ms.max(chunk.max_ms);
            self.summary.samples += u64::from(chunk.count);
            places.push(ChunkAt {
                min_ms: chunk.min_ms,
                max_ms: chunk.max_ms,
                count: chunk.count,
                offset: self.offset,
                len: u32::try_from(chunk.bits.len()).unwrap_or(u32::MAX),
                crc: crc32fast::hash(&chunk.bits),
            });
            self.put(&chunk.bits)?;
        }
        for (name, value) in labels.shared() {
            self.symbols.entry(Arc::clone(name)).or_default();
            self.symbols.entry(Arc::clone(value)).or_default();
        }
        self.series.push((labels.clone(), places));
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), BlockError> {
        self.buffer.extend_from_slice(bytes);
        self.offset += bytes.len() as u64;
        if self.buffer.len() >= WRITE_BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        let written = self.file.append(&self.buffer);
        self.buffer.clear();
        written.map_err(|source| self.write_error(source))
    }

    fn write_error(&self, source: io::Error) -> BlockError {
        // A half-written file must not keep eating a full disk; the first error is the one to report.
        drop(self.disk.remove_file(&self.temporary));
        BlockError::Write { path: self.path.clone(), source }
    }

    /// Completes, syncs and names the file.
    pub(super) fn finish(mut self) -> Result<Block, BlockError> {
        let index = self.encode_index();
        self.summary.index_offset = self.offset;
        self.summary.index_len = index.len() as u64;
        self.summary.index_crc = crc32fast::hash(&index);
        self.summary.series = self.series.len() as u64;
        self.put(&index)?;
        let summary = self.summary.encode();
        self.put(&summary)?;
        self.put(&u32::try_from(summary.len()).unwrap_or(u32::MAX).to_le_bytes())?;
        self.put(&crc32fast::hash(&summary).to_le_bytes())?;
        self.put(END_MAGIC)?;
        self.flush()?;
        let dir = self.path.parent().unwrap_or(Path::new(".")).to_owned();
        let named = self.file.sync().and_then(|()| self.disk.rename(&self.temporary, &self.path));
        named.and_then(|()| self.disk.sync_dir(&dir)).map_err(|source| self.write_error(source))?;
        Ok(Block { path: self.path, file: self.file, bytes: self.offset, summary: self.summary })
    }

    fn encode_index(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        put_uvarint(&mut out, self.symbols.len() as u64);
        for (number, (text, id)) in (0u32..).zip(self.symbols.iter_mut()) {
            *id = number;
            put_bytes(&mut out, text.as_bytes());
        }
        let id = |text: &str| self.symbols.get(text).copied().unwrap_or_default();
        let mut postings: BTreeMap<(u32, u32), Vec<u32>> = BTreeMap::new();
        put_uvarint(&mut out, self.series.len() as u64);
        let mut end = MAGIC.len() as u64;
        for (number, (labels, chunks)) in (0u32..).zip(&self.series) {
            put_uvarint(&mut out, labels.len() as u64);
            for (name, value) in labels.iter() {
                let pair = (id(name), id(value));
                put_uvarint(&mut out, u64::from(pair.0));
                put_uvarint(&mut out, u64::from(pair.1));
                postings.entry(pair).or_default().push(number);
            }
            put_uvarint(&mut out, chunks.len() as u64);
            for chunk in chunks {
                put_ivarint(&mut out, chunk.min_ms);
                put_ivarint(&mut out, chunk.max_ms.wrapping_sub(chunk.min_ms));
                put_uvarint(&mut out, u64::from(chunk.count));
                put_uvarint(&mut out, chunk.offset - end);
                put_uvarint(&mut out, u64::from(chunk.len));
                out.extend_from_slice(&chunk.crc.to_le_bytes());
                end = chunk.offset + u64::from(chunk.len);
            }
        }
        put_uvarint(&mut out, postings.len() as u64);
        for ((name, value), ids) in &postings {
            put_uvarint(&mut out, u64::from(*name));
            put_uvarint(&mut out, u64::from(*value));
            put_uvarint(&mut out, ids.len() as u64);
            let mut before = 0;
            for id in ids {
                put_uvarint(&mut out, u64::from(id - before));
                before = *id;
            }
        }
        out
    }
}

/// An open block file; only its summary is in memory.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) path: PathBuf,
    file: DiskFile,
    pub(super) bytes: u64,
    pub(super) summary: Summary,
}

impl Block {
    pub(super) fn open(disk: &Disk, path: &Path) -> Result<Self, BlockError> {
        let read_error = |source| BlockError::Read { path: path.to_owned(), source };
        let damaged = |what| BlockError::Damaged { path: path.to_owned(), what };
        let file = disk.open_read(path).map_err(read_error)?;
        let bytes = file.len().map_err(read_error)?;
        let footer_at = bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| damaged("it is too short"))?;
        let mut footer = [0u8; FOOTER_BYTES];
        file.read_exact_at(&mut footer, footer_at).map_err(read_error)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3, end @ ..] = footer;
        if &end != END_MAGIC {
            return Err(damaged("its end mark is missing"));
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
        if summary.index_offset.checked_add(summary.index_len).is_none_or(|end| end > at) {
            return Err(damaged("its index lies outside"));
        }
        Ok(Self { path: path.to_owned(), file, bytes, summary })
    }

    pub(super) fn overlaps(&self, start_ms: i64, end_ms: i64) -> bool {
        self.summary.min_ms <= end_ms && self.summary.max_ms >= start_ms
    }

    fn damaged(&self, what: &'static str) -> BlockError {
        BlockError::Damaged { path: self.path.clone(), what }
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, BlockError> {
        let mut bytes = vec![0; len];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => Err(self.damaged("it ends too early")),
            Err(source) => Err(BlockError::Read { path: self.path.clone(), source }),
        }
    }

    /// Reads the index.
    pub(super) fn load_index(&self) -> Result<BlockIndex, BlockError> {
        let len = usize::try_from(self.summary.index_len).map_err(|_| self.damaged("its index is too long"))?;
        let bytes = self.read_at(self.summary.index_offset, len)?;
        if crc32fast::hash(&bytes) != self.summary.index_crc {
            return Err(self.damaged("its index fails the checksum"));
        }
        BlockIndex::decode(&bytes).ok_or_else(|| self.damaged("its index cannot be read"))
    }

    /// Reads the points of a chunk inside a range of times onto `out`.
    pub(super) fn read_chunk(&self, at: ChunkAt, range: (i64, i64), out: &mut Vec<Point>) -> Result<(), BlockError> {
        if at.offset + u64::from(at.len) > self.summary.index_offset {
            return Err(self.damaged("a chunk lies outside"));
        }
        let bits = self.read_at(at.offset, at.len as usize)?;
        if crc32fast::hash(&bits) != at.crc {
            return Err(self.damaged("a chunk fails the checksum"));
        }
        decode_into(&bits, at.count, range, out).ok_or_else(|| self.damaged("a chunk cannot be read"))
    }
}

/// Symbols of the labels' names and values, and the chunks.
type IndexedSeries = (Vec<(u32, u32)>, Vec<ChunkAt>);

/// The index of a block in memory.
#[derive(Debug)]
pub(super) struct BlockIndex {
    symbols: Vec<Arc<str>>,
    series: Vec<IndexedSeries>,
    /// By label name, then value.
    postings: BTreeMap<u32, Vec<(u32, Vec<u32>)>>,
    pub(super) bytes: usize,
}

impl BlockIndex {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut index =
            Self { symbols: Vec::new(), series: Vec::new(), postings: BTreeMap::new(), bytes: bytes.len() * 4 };
        for _ in 0..reader.count()? {
            index.symbols.push(Arc::from(reader.text()?));
        }
        let mut end = MAGIC.len() as u64;
        for _ in 0..reader.count()? {
            let mut labels = Vec::new();
            for _ in 0..reader.count()? {
                let pair = (reader.u32()?, reader.u32()?);
                index.symbols.get(pair.0.max(pair.1) as usize)?;
                labels.push(pair);
            }
            let mut chunks = Vec::new();
            for _ in 0..reader.count()? {
                let chunk = decode_chunk_at(&mut reader, end)?;
                end = chunk.offset.checked_add(u64::from(chunk.len))?;
                chunks.push(chunk);
            }
            index.series.push((labels, chunks));
        }
        for _ in 0..reader.count()? {
            let (name, value) = (reader.u32()?, reader.u32()?);
            index.symbols.get(name.max(value) as usize)?;
            let mut ids = Vec::new();
            let mut id = 0u32;
            for _ in 0..reader.count()? {
                id = id.checked_add(reader.u32()?)?;
                ids.push(id);
            }
            index.postings.entry(name).or_default().push((value, ids));
        }
        Some(index)
    }

    fn symbol(&self, id: u32) -> &Arc<str> {
        // Ids were checked when the index was read; the first symbol stands for what cannot happen.
        self.symbols.get(id as usize).unwrap_or(&self.symbols[0])
    }

    fn id(&self, text: &str) -> Option<u32> {
        let at = self.symbols.binary_search_by(|symbol| symbol.as_ref().cmp(text)).ok()?;
        u32::try_from(at).ok()
    }

    /// Labels and chunks of a series.
    pub(super) fn series(&self, id: u32) -> Option<(Labels, &[ChunkAt])> {
        let (labels, chunks) = self.series.get(id as usize)?;
        let pairs =
            labels.iter().map(|(name, value)| (Arc::clone(self.symbol(*name)), Arc::clone(self.symbol(*value))));
        Some((Labels::from_pairs(pairs), chunks))
    }

    pub(super) fn label_names(&self) -> impl Iterator<Item = &str> {
        self.postings.keys().map(|name| self.symbol(*name).as_ref())
    }
}

fn decode_chunk_at(reader: &mut Reader<'_>, end: u64) -> Option<ChunkAt> {
    let min_ms = reader.ivarint()?;
    let max_ms = min_ms.wrapping_add(reader.ivarint()?);
    let count = u16::try_from(reader.uvarint()?).ok()?;
    let offset = end.checked_add(reader.uvarint()?)?;
    let len = reader.u32()?;
    let crc = u32::from_le_bytes(reader.take(4)?.try_into().ok()?);
    Some(ChunkAt { min_ms, max_ms, count, offset, len, crc })
}

impl LabelIndex for BlockIndex {
    fn all(&self) -> Vec<u32> {
        (0..).take(self.series.len()).collect()
    }

    fn postings(&self, name: &str, value: &str) -> Vec<u32> {
        let found = self.id(name).zip(self.id(value)).and_then(|(name, value)| {
            let values = self.postings.get(&name)?;
            let at = values.binary_search_by_key(&value, |(value, _)| *value).ok()?;
            values.get(at)
        });
        found.map(|(_, ids)| ids.clone()).unwrap_or_default()
    }

    fn for_each_value(&self, name: &str, each: &mut dyn FnMut(&str, &[u32])) {
        for (value, ids) in self.id(name).and_then(|name| self.postings.get(&name)).into_iter().flatten() {
            each(self.symbol(*value), ids);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_names_symbols_it_does_not_have_is_damaged() {
        // No symbols, then a posting of label 0; no symbols, then a series with label 0.
        for bytes in [&[0, 0, 1, 0, 0, 0][..], &[0, 1, 1, 0, 0, 0, 0]] {
            assert!(BlockIndex::decode(bytes).is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn a_summary_with_a_batch_number_that_leaves_no_next_one_is_damaged() {
        let summary = |batch| Summary { windows: vec![(0, batch)], ..Summary::default() }.encode();
        assert!(Summary::decode(&summary(BATCH_MAX)).is_some());
        assert!(Summary::decode(&summary(u64::MAX)).is_none());
    }
}
