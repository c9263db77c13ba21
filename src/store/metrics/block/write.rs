//! Writing a block, series by series in order of labels; memory is bounded by the index, not by the samples.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64;

use crate::platform::disk::{Disk, DiskFile};
use crate::store::metrics::Point;
use crate::store::metrics::block::index::{Column, RESTART_SERIES, put_chunk, put_symbols};
use crate::store::metrics::block::{
    Block, BlockError, CHUNK_SAMPLES_MAX, ChunkAt, END_MAGIC, MAGIC, Section, Summary, number_of,
};
use crate::store::metrics::bytes::{Reader, put_uvarint};
use crate::store::metrics::codec::ints;
use crate::store::metrics::codec::values::{self, Effort};

const WRITE_BUFFER_BYTES: usize = 256 << 10;
/// Postings that are gathered at once.
const POSTINGS_AT_ONCE: usize = 4 << 20;
/// Columns of times that parts of columns are looked for in.
const KNOWN_COLUMNS_MAX: usize = 4096;
/// Blocks of a day have chunks of four hours, so that a short question reads little.
const LONG_CHUNK_MS: i64 = 4 * 3600 * 1000;

/// Columns of times that were written.
#[derive(Debug, Default)]
struct Columns {
    list: Vec<Column>,
    by_hash: FxHashMap<u64, u32>,
    /// Times of the latest columns, by their first and last time.
    known: FxHashMap<u32, Vec<i64>>,
    by_first: FxHashMap<i64, u32>,
    by_last: FxHashMap<i64, u32>,
}

impl Columns {
    /// A column that has these times, and how many it has before them.
    fn find(&self, hash: u64, times: &[i64]) -> Option<(u32, u32)> {
        let (first, last) = (times.first()?, times.last()?);
        let candidates = [self.by_hash.get(&hash), self.by_last.get(last), self.by_first.get(first)];
        candidates.into_iter().flatten().find_map(|number| {
            let known = self.known.get(number)?;
            let skip = known.binary_search(first).ok()?;
            let same = known.get(skip..)?.get(..times.len())? == times;
            same.then_some((*number, u32::try_from(skip).ok()?))
        })
    }

    fn remember(&mut self, hash: u64, times: &[i64], column: Column) -> u32 {
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(column);
        if self.known.len() >= KNOWN_COLUMNS_MAX {
            self.known.clear();
            self.by_hash.clear();
            self.by_first.clear();
            self.by_last.clear();
        }
        self.known.insert(number, times.to_vec());
        self.by_hash.insert(hash, number);
        self.by_first.entry(column.min_ms).or_insert(number);
        self.by_last.entry(column.max_ms).or_insert(number);
        number
    }
}

/// Writes a block.
#[derive(Debug)]
pub(in super::super) struct BlockWriter {
    disk: Disk,
    path: PathBuf,
    temporary: PathBuf,
    file: DiskFile,
    buffer: Vec<u8>,
    offset: u64,
    symbols: Vec<Arc<str>>,
    columns: Columns,
    table: Vec<u8>,
    /// Where in the table each group of series begins, and the end of the chunk before it.
    restarts: Vec<(u64, u64)>,
    /// End of the last chunk.
    chunk_end: u64,
    summary: Summary,
    scratch: Vec<u8>,
}

impl BlockWriter {
    /// `symbols` are the names and values of all labels, sorted, each once. The summary says what the block is made of.
    pub(in super::super) fn create(
        disk: &Disk,
        path: &Path,
        symbols: Vec<Arc<str>>,
        summary: Summary,
    ) -> Result<Self, BlockError> {
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
            symbols,
            columns: Columns::default(),
            table: Vec::new(),
            restarts: Vec::new(),
            chunk_end: MAGIC.len() as u64,
            summary: Summary { min_ms: i64::MAX, max_ms: i64::MIN, samples: 0, series: 0, ..summary },
            scratch: Vec::new(),
        })
    }

    /// Adds a series, its labels as symbols; series must come in order, and so must the points, each time once.
    pub(in super::super) fn add(&mut self, labels: &[(u32, u32)], points: &[Point]) -> Result<(), BlockError> {
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return Ok(()) };
        if self.summary.series.is_multiple_of(RESTART_SERIES as u64) {
            self.restarts.push((self.table.len() as u64, self.chunk_end));
        }
        self.summary.min_ms = self.summary.min_ms.min(first.at_ms);
        self.summary.max_ms = self.summary.max_ms.max(last.at_ms);
        self.summary.samples += points.len() as u64;
        self.summary.series += 1;
        put_uvarint(&mut self.table, labels.len() as u64);
        for (name, value) in labels {
            put_uvarint(&mut self.table, u64::from(*name));
            put_uvarint(&mut self.table, u64::from(*value));
        }
        let level = self.summary.level;
        let stretch = |point: &Point| if level == 0 { 0 } else { point.at_ms.div_euclid(LONG_CHUNK_MS) };
        let chunks: Vec<&[Point]> =
            points.chunk_by(|a, b| stretch(a) == stretch(b)).flat_map(|part| part.chunks(CHUNK_SAMPLES_MAX)).collect();
        put_uvarint(&mut self.table, chunks.len() as u64);
        for points in chunks {
            self.add_chunk(points)?;
        }
        Ok(())
    }

    fn add_chunk(&mut self, points: &[Point]) -> Result<(), BlockError> {
        let times: Vec<i64> = points.iter().map(|point| point.at_ms).collect();
        let values: Vec<f64> = points.iter().map(|point| point.value).collect();
        let (number, skip) = self.column_of(&times)?;
        let effort = if self.summary.level == 0 { Effort::Fast } else { Effort::Small };
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        values::encode(&values, effort, &mut bytes);
        let section = self.put_section(&bytes)?;
        self.scratch = bytes;
        let column = self.columns.list.get(number as usize).copied().unwrap_or_default();
        let chunk = ChunkAt {
            min_ms: times.first().copied().unwrap_or_default(),
            max_ms: times.last().copied().unwrap_or_default(),
            column: number,
            skip,
            count: length(times.len()),
            offset: section.offset,
            bytes: length(section.bytes),
            crc: section.crc,
        };
        put_chunk(&chunk, &column, self.chunk_end, &mut self.table);
        self.chunk_end = section.offset + section.bytes;
        Ok(())
    }

    /// The column that holds these times, written if there is none, and how many times it has before them.
    fn column_of(&mut self, times: &[i64]) -> Result<(u32, u32), BlockError> {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        ints::encode(times, &mut bytes);
        let hash = xxh3_64(&bytes);
        if let Some(found) = self.columns.find(hash, times) {
            self.scratch = bytes;
            return Ok(found);
        }
        let section = self.put_section(&bytes)?;
        self.scratch = bytes;
        let column = Column {
            min_ms: times.first().copied().unwrap_or_default(),
            max_ms: times.last().copied().unwrap_or_default(),
            count: length(times.len()),
            offset: section.offset,
            bytes: length(section.bytes),
            crc: section.crc,
        };
        Ok((self.columns.remember(hash, times, column), 0))
    }

    fn put_section(&mut self, bytes: &[u8]) -> Result<Section, BlockError> {
        let section = Section { offset: self.offset, bytes: bytes.len() as u64, crc: crc32fast::hash(bytes) };
        self.put(bytes)?;
        Ok(section)
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
    pub(in super::super) fn finish(mut self) -> Result<Block, BlockError> {
        let columns: Vec<u8> = self.columns.list.iter().fold(Vec::new(), |mut out, column| {
            column.put(&mut out);
            out
        });
        self.summary.columns = self.put_section(&columns)?;
        let mut symbols = Vec::new();
        put_symbols(&self.symbols, &mut symbols);
        self.summary.symbols = self.put_section(&symbols)?;
        let head = 4 + self.restarts.len() as u64 * 16;
        let mut table = length(self.summary.series).to_le_bytes().to_vec();
        for (offset, end) in &self.restarts {
            table.extend((head + offset).to_le_bytes());
            table.extend(end.to_le_bytes());
        }
        let entries = std::mem::take(&mut self.table);
        table.extend_from_slice(&entries);
        self.summary.table = self.put_section(&table)?;
        let labels = label_index(&entries);
        self.summary.labels = self.put_section(&labels)?;
        let summary = self.summary.encode();
        self.put(&summary)?;
        self.put(&length(summary.len()).to_le_bytes())?;
        self.put(&crc32fast::hash(&summary).to_le_bytes())?;
        self.put(END_MAGIC)?;
        self.flush()?;
        let dir = self.path.parent().unwrap_or(Path::new(".")).to_owned();
        let named = self.file.sync().and_then(|()| self.disk.rename(&self.temporary, &self.path));
        named.map_err(|source| self.write_error(source))?;
        self.disk.sync_dir(&dir).map_err(|source| {
            // The caller goes on without it, so it must not come back when the store opens.
            drop(self.disk.remove_file(&self.path));
            self.write_error(source)
        })?;
        let number = number_of(&self.path).unwrap_or_default();
        Ok(Block { path: self.path, number, file: self.file, bytes: self.offset, summary: self.summary })
    }

    /// Gives up; nothing stays.
    pub(in super::super) fn abandon(self) {
        drop(self.disk.remove_file(&self.temporary));
    }
}

/// A length below 4 GiB; what is longer cannot be told and makes a block that is found damaged.
fn length(length: impl TryInto<u32>) -> u32 {
    length.try_into().unwrap_or(u32::MAX)
}

/// Calls `each` with every label of the entries of a series table.
fn for_each_label(entries: &[u8], mut each: impl FnMut(u32, u32, u32)) -> Option<()> {
    let mut reader = Reader::new(entries);
    let mut series = 0u32;
    while !reader.is_empty() {
        for _ in 0..reader.uvarint()? {
            each(reader.u32()?, reader.u32()?, series);
        }
        for _ in 0..reader.uvarint()? {
            // Column and gap, length, and for a part of a column where it lies.
            let (_, _, length) = (reader.uvarint()?, reader.uvarint()?, reader.uvarint()?);
            for _ in 0..if length & 1 == 1 { 4 } else { 0 } {
                reader.uvarint()?;
            }
            reader.u32_le()?;
        }
        series += 1;
    }
    Some(())
}

/// The label index of a series table: names, for each its values, for each the series. Built some names at a time, so
/// that the postings of all names are never in memory together.
fn label_index(entries: &[u8]) -> Vec<u8> {
    let mut counts: std::collections::BTreeMap<u32, usize> = std::collections::BTreeMap::new();
    // The entries were written by this writer: they can be read.
    let _readable = for_each_label(entries, |name, _, _| *counts.entry(name).or_default() += 1);
    let names: Vec<(u32, usize)> = counts.into_iter().collect();
    let mut out = length(names.len()).to_le_bytes().to_vec();
    let mut directory: Vec<(u32, u32, u64)> = Vec::new();
    let mut body: Vec<u8> = Vec::new();
    let head = 4 + names.len() as u64 * 16;
    let mut rest = names.as_slice();
    while !rest.is_empty() {
        let mut postings = 0;
        let fits = rest.iter().take_while(|(_, count)| {
            postings += count;
            postings <= POSTINGS_AT_ONCE
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        rest = later;
        let mut gathered: std::collections::BTreeMap<u32, Vec<(u32, u32)>> =
            now.iter().map(|(name, count)| (*name, Vec::with_capacity(*count))).collect();
        let _readable = for_each_label(entries, |name, value, series| {
            if let Some(pairs) = gathered.get_mut(&name) {
                pairs.push((value, series));
            }
        });
        for (name, mut pairs) in gathered {
            pairs.sort_unstable();
            let offset = head + body.len() as u64;
            let values = put_values(&pairs, &mut body);
            directory.push((name, values, offset));
        }
    }
    for (name, values, offset) in directory {
        out.extend(name.to_le_bytes());
        out.extend(values.to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
    out.append(&mut body);
    out
}

/// Appends the values of one name with their series; returns how many values there are.
fn put_values(pairs: &[(u32, u32)], out: &mut Vec<u8>) -> u32 {
    let mut postings = Vec::new();
    let mut values = 0;
    for same in pairs.chunk_by(|a, b| a.0 == b.0) {
        let Some((value, first)) = same.first() else { continue };
        out.extend(value.to_le_bytes());
        out.extend(length(postings.len()).to_le_bytes());
        values += 1;
        let last = same.last().map_or(*first, |(_, series)| *series);
        let is_range = (last - first) as usize + 1 == same.len();
        put_uvarint(&mut postings, ((same.len() as u64) << 1) | u64::from(is_range));
        put_uvarint(&mut postings, u64::from(*first));
        if !is_range {
            for pair in same.windows(2) {
                if let [(_, before), (_, series)] = pair {
                    put_uvarint(&mut postings, u64::from(series - before));
                }
            }
        }
    }
    out.append(&mut postings);
    values
}
