//! The log of one window of the head: its series, and the chunks that left memory. One file, only appended to; it goes
//! when the window's block stands.
//!
//! Guarantees:
//! - A frame is there whole or not at all; what cannot be read behind the last good frame is cut off, and set aside unless
//!   it is the ordinary torn end.
//! - A chunk carries its own checksum and the place of its series' chunk before it, so that a series is read backwards.
//!
//! `FORMAT.md` describes the bytes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::model::Labels;
use crate::platform::disk::{Disk, DiskFile};
use crate::platform::error::chain;
use crate::store::metrics::Point;
use crate::store::metrics::bytes::{Reader, put_bytes, put_ivarint, put_uvarint};
use crate::store::metrics::codec::{ints, stream};
use crate::store::metrics::head::window_start;

pub(in super::super) const EXTENSION: &str = "head";
const MAGIC: &[u8; 8] = b"DRJHED01";
const FRAME_HEADER_BYTES: usize = 8;
/// No frame is larger; a larger length is damage.
const FRAME_BYTES_MAX: u32 = 64 << 20;
/// A torn end is no longer than a frame or two that was being written; more is damage in the middle.
const TORN_BYTES_MAX: u64 = 4 << 20;
/// Read at first of a chunk or a column of times; most fit.
const READ_GUESS_BYTES: usize = 512;
/// Samples of a chunk; more is damage.
const CHUNK_SAMPLES_MAX: usize = 1 << 16;

const SYMBOL: u8 = 1;
const SERIES: u8 = 2;
const TIMES: u8 = 3;
const CHUNK: u8 = 4;
const REOPENED: u8 = 5;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HeadLogError {
    #[error("read the head log {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("write the head log {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("the head log {path} is damaged at byte {at}")]
    Damaged { path: PathBuf, at: u64 },
}

/// The file, for readers.
#[derive(Debug)]
pub(in super::super) struct HeadFile {
    pub(in super::super) path: PathBuf,
    pub(in super::super) number: u64,
    start_ms: i64,
    file: DiskFile,
}

/// A chunk on its way into the log.
#[derive(Debug)]
pub(super) struct Sealed<'a> {
    pub(super) slot: u32,
    /// The series' chunk before; 0 for none.
    pub(super) before: u64,
    /// Every sample of the series in a batch below this is in this chunk or one before.
    pub(super) batch: u64,
    /// The column of times (what it is called in this frame), and the times since the start of the window.
    pub(super) column: (u32, u32),
    pub(super) times: &'a [u32],
    pub(super) pending: u16,
    pub(super) values: &'a [u8],
}

/// What a log says, in the order in which it says it.
#[derive(Debug)]
pub(super) enum Entry<'a> {
    /// The labels of the next slot.
    Series(Labels),
    Chunk(ChunkHead<'a>),
    /// The store was opened again: frames of the write-ahead log before this batch know only so many slots.
    Reopened {
        batch: u64,
        slots: u32,
    },
}

/// A chunk's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkHead<'a> {
    pub(super) at: u64,
    pub(super) slot: u32,
    before: u64,
    pub(super) batch: u64,
    /// Samples that came late: they may overlap what other chunks have.
    pub(super) is_late: bool,
    count: usize,
    min: u32,
    pub(super) max: u32,
    /// Where the column of times lies; 0 for late samples, which carry their own.
    times_at: u64,
    pending: u16,
    values: &'a [u8],
}

/// What opening cut off at the end of a log.
#[derive(Debug, Default)]
pub(in super::super) struct CutOff {
    pub(super) bytes: u64,
    /// Where it is kept, unless it is an ordinary torn end.
    pub(super) aside: Option<PathBuf>,
}

/// The log, for the writer. Entries are collected and written by [`HeadLog::flush`].
#[derive(Debug)]
pub(super) struct HeadLog {
    file: DiskFile,
    pub(super) reader: Arc<HeadFile>,
    /// Bytes of whole frames.
    bytes: u64,
    frame: Vec<u8>,
    /// A failed write may have left bytes behind the last whole frame.
    is_torn: bool,
    symbols: u32,
    /// Columns of times in this frame.
    columns: FxHashMap<(u32, u32, usize), u64>,
    needs_sync: bool,
}

pub(in super::super) fn file_name(number: u64, start_ms: i64) -> String {
    format!("{number:08}-{start_ms}.{EXTENSION}")
}

/// Number and start of the window in a file's name.
pub(in super::super) fn parse_name(path: &Path) -> Option<(u64, i64)> {
    let name = path.file_name()?.to_str()?.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    let (number, start) = name.split_once('-')?;
    let number = number.parse().ok().filter(|number| *number < u64::MAX)?;
    // Far enough from the ends of the range to add to.
    let start: i64 = start.parse().ok().filter(|start: &i64| start.unsigned_abs() < 1 << 60)?;
    (start == window_start(start)).then_some((number, start))
}

impl HeadLog {
    /// Opens a log, making it if it is missing; hands what it says to `each`.
    pub(super) fn open(
        disk: &Disk,
        path: &Path,
        mut each: impl FnMut(Entry<'_>),
    ) -> Result<(Self, CutOff), HeadLogError> {
        let write_error = |source| HeadLogError::Write { path: path.to_owned(), source };
        let mut file = disk.open_append(path).map_err(write_error)?;
        let length = file.len().map_err(write_error)?;
        let scanned = scan(&file, path, length, &mut each)?;
        let mut cut_off = CutOff { bytes: length - scanned.good, aside: None };
        if scanned.good < length && (!scanned.is_torn || cut_off.bytes > TORN_BYTES_MAX) {
            let damaged = path.with_extension("head.damaged");
            let bytes = disk.read(path).map_err(|source| HeadLogError::Read { path: path.to_owned(), source })?;
            let from = usize::try_from(scanned.good).unwrap_or(usize::MAX);
            disk.write_atomic(&damaged, bytes.get(from..).unwrap_or_default()).map_err(write_error)?;
            cut_off.aside = Some(damaged);
        }
        let mut bytes = scanned.good;
        if bytes < length {
            file.set_len(bytes).map_err(write_error)?;
        }
        if bytes == 0 {
            // A half-written mark is no frame that could be cut off: it goes with the file.
            file.append(MAGIC).map_err(|source| {
                drop(file.set_len(0));
                write_error(source)
            })?;
            disk.sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(write_error)?;
            bytes = MAGIC.len() as u64;
        }
        let reading = disk.open_read(path).map_err(write_error)?;
        let (number, start_ms) = parse_name(path).unwrap_or_default();
        let reader = Arc::new(HeadFile { path: path.to_owned(), number, start_ms, file: reading });
        let log = Self {
            file,
            reader,
            bytes,
            frame: Vec::new(),
            is_torn: false,
            symbols: scanned.symbols,
            columns: FxHashMap::default(),
            needs_sync: true,
        };
        Ok((log, cut_off))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that wait to be written.
    pub(super) fn pending_bytes(&self) -> usize {
        self.frame.len()
    }

    /// Names a symbol; returns its number in this file.
    pub(super) fn add_symbol(&mut self, text: &str) -> u32 {
        self.frame.push(SYMBOL);
        put_bytes(&mut self.frame, text.as_bytes());
        self.symbols += 1;
        self.symbols - 1
    }

    /// Declares the next slot, by symbols of this file.
    pub(super) fn add_series(&mut self, labels: &[(u32, u32)]) {
        self.frame.push(SERIES);
        put_uvarint(&mut self.frame, labels.len() as u64);
        for (name, value) in labels {
            put_uvarint(&mut self.frame, u64::from(*name));
            put_uvarint(&mut self.frame, u64::from(*value));
        }
    }

    pub(super) fn add_reopened(&mut self, batch: u64, slots: u32) {
        self.frame.push(REOPENED);
        put_uvarint(&mut self.frame, batch);
        put_uvarint(&mut self.frame, u64::from(slots));
    }

    fn position(&self) -> u64 {
        self.bytes + (FRAME_HEADER_BYTES + self.frame.len()) as u64
    }

    fn add_checked(&mut self, kind: u8, body: &[u8]) -> u64 {
        self.frame.push(kind);
        let at = self.position();
        self.frame.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.frame.extend(crc32fast::hash(body).to_le_bytes());
        self.frame.extend_from_slice(body);
        at
    }

    /// Adds a chunk; returns its place.
    pub(super) fn add_chunk(&mut self, sealed: &Sealed<'_>) -> u64 {
        let (column, start) = sealed.column;
        let key = (column, start, sealed.times.len());
        let times_at = if let Some(at) = self.columns.get(&key) {
            *at
        } else {
            let times: Vec<i64> = sealed.times.iter().map(|time| i64::from(*time)).collect();
            let mut body = Vec::new();
            put_uvarint(&mut body, times.len() as u64);
            ints::encode(&times, &mut body);
            let at = self.add_checked(TIMES, &body);
            self.columns.insert(key, at);
            at
        };
        let (first, last) = (sealed.times.first(), sealed.times.last());
        let mut body = Vec::with_capacity(32 + sealed.values.len());
        for number in [u64::from(sealed.slot), sealed.before, sealed.batch, times_at, sealed.times.len() as u64] {
            put_uvarint(&mut body, number);
        }
        put_uvarint(&mut body, u64::from(first.copied().unwrap_or_default()));
        put_uvarint(&mut body, u64::from(last.copied().unwrap_or_default()));
        put_uvarint(&mut body, u64::from(sealed.pending));
        body.extend_from_slice(sealed.values);
        self.add_checked(CHUNK, &body)
    }

    /// Adds late samples as a chunk; returns its place.
    pub(super) fn add_late(&mut self, slot: u32, before: u64, batch: u64, late: &[(u32, f64)]) -> u64 {
        let mut body = Vec::new();
        for number in [u64::from(slot), before, batch, 0, late.len() as u64] {
            put_uvarint(&mut body, number);
        }
        let (first, last) = (late.first(), late.last());
        put_uvarint(&mut body, first.map_or(0, |(time, _)| u64::from(*time)));
        put_uvarint(&mut body, last.map_or(0, |(time, _)| u64::from(*time)));
        put_uvarint(&mut body, 0);
        let mut time_before = 0;
        for (time, value) in late {
            put_ivarint(&mut body, i64::from(*time) - time_before);
            time_before = i64::from(*time);
            body.extend(value.to_bits().to_le_bytes());
        }
        self.add_checked(CHUNK, &body)
    }

    /// Writes what was added as one frame. After an error nothing of it is in the file, and it can be tried again.
    pub(super) fn flush(&mut self) -> Result<(), HeadLogError> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let written = self.write_frame();
        if written.is_ok() {
            self.frame.clear();
            self.columns.clear();
        }
        written.map_err(|source| HeadLogError::Write { path: self.reader.path.clone(), source })
    }

    fn write_frame(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.bytes)?;
            self.is_torn = false;
        }
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + self.frame.len());
        bytes.extend(u32::try_from(self.frame.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(crc32fast::hash(&self.frame).to_le_bytes());
        bytes.extend_from_slice(&self.frame);
        self.needs_sync = true;
        if let Err(error) = self.file.append(&bytes) {
            self.is_torn = self.file.set_len(self.bytes).is_err();
            return Err(error);
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Throws away what was added since the frame had so many bytes.
    pub(super) fn forget_chunks(&mut self, from: usize) {
        self.frame.truncate(from);
        self.columns.clear();
    }

    /// What to sync so that everything flushed survives power loss; `None` when it does already.
    pub(super) fn sync_handle(&mut self) -> io::Result<Option<DiskFile>> {
        if !std::mem::take(&mut self.needs_sync) {
            return Ok(None);
        }
        self.file.try_clone().map(Some)
    }
}

/// Checks a log without changing it; what is wrong with it, if anything is.
pub(in super::super) fn verify(disk: &Disk, path: &Path) -> io::Result<Option<String>> {
    let file = disk.open_read(path)?;
    let length = file.len()?;
    Ok(match scan(&file, path, length, &mut |_| {}) {
        Ok(scanned) if scanned.good == length || scanned.is_torn => None,
        Ok(scanned) => Some(HeadLogError::Damaged { path: path.to_owned(), at: scanned.good }.to_string()),
        Err(error) => Some(chain(&error)),
    })
}

struct Scanned {
    /// Bytes of the mark and whole frames.
    good: u64,
    /// What follows looks like a frame that was cut off while being written.
    is_torn: bool,
    symbols: u32,
}

fn scan(file: &DiskFile, path: &Path, length: u64, each: &mut impl FnMut(Entry<'_>)) -> Result<Scanned, HeadLogError> {
    let read = |buffer: &mut [u8], at: u64| {
        file.read_exact_at(buffer, at).map_err(|source| HeadLogError::Read { path: path.to_owned(), source })
    };
    let mut magic = [0u8; MAGIC.len()];
    if length < MAGIC.len() as u64 {
        return Ok(Scanned { good: 0, is_torn: true, symbols: 0 });
    }
    read(&mut magic, 0)?;
    if &magic != MAGIC {
        return Ok(Scanned { good: 0, is_torn: false, symbols: 0 });
    }
    let mut good = MAGIC.len() as u64;
    let mut symbols: Vec<Arc<str>> = Vec::new();
    let mut payload = Vec::new();
    let is_torn = loop {
        let left = length - good;
        let mut header = [0u8; FRAME_HEADER_BYTES];
        if left < FRAME_HEADER_BYTES as u64 {
            break true;
        }
        read(&mut header, good)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
        let bytes = u32::from_le_bytes([l0, l1, l2, l3]);
        if bytes == 0 || bytes > FRAME_BYTES_MAX {
            break false;
        }
        let after = left - FRAME_HEADER_BYTES as u64;
        if u64::from(bytes) > after {
            break true;
        }
        payload.resize(bytes as usize, 0);
        let begin = good + FRAME_HEADER_BYTES as u64;
        read(&mut payload, begin)?;
        if crc32fast::hash(&payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
            break u64::from(bytes) == after;
        }
        if for_each_entry(&payload, begin, &mut symbols, each).is_none() {
            break false;
        }
        good = begin + u64::from(bytes);
    };
    Ok(Scanned { good, is_torn, symbols: u32::try_from(symbols.len()).unwrap_or(u32::MAX) })
}

/// Reads the entries of a frame that begins at `begin`.
fn for_each_entry(
    payload: &[u8],
    begin: u64,
    symbols: &mut Vec<Arc<str>>,
    each: &mut impl FnMut(Entry<'_>),
) -> Option<()> {
    let mut reader = Reader::new(payload);
    while !reader.is_empty() {
        match reader.u8()? {
            SYMBOL => symbols.push(Arc::from(reader.text()?)),
            SERIES => {
                let mut pairs = Vec::new();
                for _ in 0..reader.count()? {
                    let (name, value) = (reader.u32()? as usize, reader.u32()? as usize);
                    pairs.push((Arc::clone(symbols.get(name)?), Arc::clone(symbols.get(value)?)));
                }
                each(Entry::Series(Labels::from_pairs(pairs)));
            }
            kind @ (TIMES | CHUNK) => {
                let at = begin + (payload.len() - reader.rest().len()) as u64;
                let bytes = reader.u32_le()? as usize;
                let _checked_by_the_frame = reader.u32_le()?;
                let body = reader.take(bytes)?;
                if kind == CHUNK {
                    each(Entry::Chunk(chunk_head(body, at)?));
                }
            }
            REOPENED => each(Entry::Reopened { batch: reader.uvarint()?, slots: reader.u32()? }),
            _ => return None,
        }
    }
    Some(())
}

fn chunk_head(body: &[u8], at: u64) -> Option<ChunkHead<'_>> {
    let mut reader = Reader::new(body);
    let slot = reader.u32()?;
    // Chains and columns lead backwards, which is what ends them.
    let before = reader.uvarint().filter(|before| *before < at)?;
    let batch = reader.uvarint()?;
    let times_at = reader.uvarint().filter(|times| *times < at)?;
    let count = usize::try_from(reader.uvarint()?).ok().filter(|count| (1..=CHUNK_SAMPLES_MAX).contains(count))?;
    let (min, max) = (reader.u32()?, reader.u32()?);
    let pending = u16::try_from(reader.uvarint()?).ok()?;
    Some(ChunkHead {
        at,
        slot,
        before,
        batch,
        is_late: times_at == 0,
        count,
        min,
        max,
        times_at,
        pending,
        values: reader.rest(),
    })
}

/// Columns of times that one reader has read.
#[derive(Debug, Default)]
pub(in super::super) struct TimesCache {
    columns: FxHashMap<(u64, u64), Vec<i64>>,
}

/// Columns that a [`TimesCache`] keeps.
const TIMES_CACHE_COLUMNS: usize = 4096;

impl HeadFile {
    /// Start of the window.
    pub(in super::super) fn start_ms(&self) -> i64 {
        self.start_ms
    }

    fn read_checked(&self, at: u64) -> Result<Vec<u8>, HeadLogError> {
        let damaged = || HeadLogError::Damaged { path: self.path.clone(), at };
        let read_error = |source| HeadLogError::Read { path: self.path.clone(), source };
        let length = self.file.len().map_err(read_error)?;
        let left = length.checked_sub(at).filter(|left| *left >= 8).ok_or_else(damaged)?;
        let guess = usize::try_from(left).unwrap_or(usize::MAX).min(READ_GUESS_BYTES);
        let mut bytes = vec![0u8; guess];
        self.file.read_exact_at(&mut bytes, at).map_err(read_error)?;
        let mut reader = Reader::new(&bytes);
        let (Some(size), Some(crc)) = (reader.u32_le(), reader.u32_le()) else { return Err(damaged()) };
        if u64::from(size) > left - 8 {
            return Err(damaged());
        }
        let size = size as usize;
        let got = guess - 8;
        bytes.drain(..8);
        if size <= got {
            bytes.truncate(size);
        } else {
            bytes.resize(size, 0);
            let rest = bytes.get_mut(got..).unwrap_or_default();
            self.file.read_exact_at(rest, at + 8 + got as u64).map_err(read_error)?;
        }
        if crc32fast::hash(&bytes) == crc { Ok(bytes) } else { Err(damaged()) }
    }

    /// Reads a series' chunks from the last one backwards: its points inside a range of times, in any order.
    /// `has_late` says whether chunks may overlap.
    pub(in super::super) fn read_series(
        &self,
        chain: u64,
        has_late: bool,
        cache: &mut TimesCache,
        (range, out): ((i64, i64), &mut Vec<Point>),
    ) -> Result<(), HeadLogError> {
        let mut at = chain;
        while at != 0 {
            let body = self.read_checked(at)?;
            let damaged = || HeadLogError::Damaged { path: self.path.clone(), at };
            let head = chunk_head(&body, at).ok_or_else(damaged)?;
            let (min, max) = (self.start_ms + i64::from(head.min), self.start_ms + i64::from(head.max));
            if max < range.0 && !has_late {
                return Ok(());
            }
            if min <= range.1 && max >= range.0 {
                self.read_chunk(&head, cache, (range, out))?;
            }
            at = head.before;
        }
        Ok(())
    }

    fn read_chunk(
        &self,
        head: &ChunkHead<'_>,
        cache: &mut TimesCache,
        (range, out): ((i64, i64), &mut Vec<Point>),
    ) -> Result<(), HeadLogError> {
        let damaged = || HeadLogError::Damaged { path: self.path.clone(), at: head.at };
        let mut push = |at_ms: i64, value: f64| {
            if (range.0..=range.1).contains(&at_ms) {
                out.push(Point { at_ms, value });
            }
        };
        if head.is_late {
            let mut reader = Reader::new(head.values);
            let mut time = 0i64;
            for _ in 0..head.count {
                time = time.wrapping_add(reader.ivarint().ok_or_else(damaged)?);
                let bits = reader.u64_le().ok_or_else(damaged)?;
                push(self.start_ms.wrapping_add(time), f64::from_bits(bits));
            }
            return Ok(());
        }
        let key = (self.number, head.times_at);
        if !cache.columns.contains_key(&key) {
            let body = self.read_checked(head.times_at)?;
            let mut reader = Reader::new(&body);
            let mut times = Vec::new();
            let count = reader.uvarint().and_then(|count| usize::try_from(count).ok());
            let count = count.filter(|count| *count <= CHUNK_SAMPLES_MAX).ok_or_else(damaged)?;
            ints::decode(&mut reader, count, &mut times).ok_or_else(damaged)?;
            if cache.columns.len() >= TIMES_CACHE_COLUMNS {
                cache.columns.clear();
            }
            cache.columns.insert(key, times);
        }
        let times = cache.columns.get(&key).map(Vec::as_slice).unwrap_or_default();
        let mut values = Vec::new();
        stream::decode(head.values, head.pending, head.count, &mut values).ok_or_else(damaged)?;
        if times.len() != values.len() {
            return Err(damaged());
        }
        for (time, value) in times.iter().zip(values) {
            push(self.start_ms.wrapping_add(*time), value);
        }
        Ok(())
    }
}
