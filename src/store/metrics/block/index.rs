//! The index of a block in memory: the file's own bytes, read where they are asked for.

use std::sync::Arc;

use crate::model::Labels;
use crate::store::metrics::block::{CHUNK_SAMPLES_MAX, ChunkAt};
use crate::store::metrics::bytes::{Reader, put_bytes, put_uvarint};
use crate::store::metrics::postings::LabelIndex;

/// Every so many series the table can be entered.
pub(super) const RESTART_SERIES: usize = 32;
const RESTART_BYTES: usize = 16;
const COLUMN_BYTES: usize = 36;
const NAME_BYTES: usize = 16;
const VALUE_BYTES: usize = 8;

/// A column of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Column {
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
    pub(super) count: u32,
    pub(super) offset: u64,
    pub(super) bytes: u32,
    pub(super) crc: u32,
}

impl Column {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.min_ms.to_le_bytes());
        out.extend(self.max_ms.to_le_bytes());
        out.extend(self.offset.to_le_bytes());
        out.extend(self.count.to_le_bytes());
        out.extend(self.bytes.to_le_bytes());
        out.extend(self.crc.to_le_bytes());
    }

    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            min_ms: reader.u64_le()?.cast_signed(),
            max_ms: reader.u64_le()?.cast_signed(),
            offset: reader.u64_le()?,
            count: reader.u32_le().filter(|count| *count as usize <= CHUNK_SAMPLES_MAX)?,
            bytes: reader.u32_le()?,
            crc: reader.u32_le()?,
        })
    }
}

/// Appends a chunk's place; the one before it ended at `end`.
pub(super) fn put_chunk(chunk: &ChunkAt, column: &Column, end: u64, out: &mut Vec<u8>) {
    put_uvarint(out, u64::from(chunk.column));
    put_uvarint(out, chunk.offset - end);
    let is_part = chunk.count != column.count;
    put_uvarint(out, (u64::from(chunk.bytes) << 1) | u64::from(is_part));
    if is_part {
        put_uvarint(out, u64::from(chunk.skip));
        put_uvarint(out, u64::from(chunk.count));
        put_uvarint(out, chunk.min_ms.wrapping_sub(column.min_ms).cast_unsigned());
        put_uvarint(out, chunk.max_ms.wrapping_sub(column.min_ms).cast_unsigned());
    }
    out.extend(chunk.crc.to_le_bytes());
}

/// Appends sorted symbols, each as what it does not share with the one before.
pub(super) fn put_symbols(symbols: &[Arc<str>], out: &mut Vec<u8>) {
    put_uvarint(out, symbols.len() as u64);
    let mut before: &[u8] = &[];
    for symbol in symbols {
        let text = symbol.as_bytes();
        let shared = text.iter().zip(before).take_while(|(a, b)| a == b).count();
        put_uvarint(out, shared as u64);
        put_bytes(out, text.get(shared..).unwrap_or_default());
        before = text;
    }
}

fn take_symbols(bytes: &[u8]) -> Option<Vec<Arc<str>>> {
    let mut reader = Reader::new(bytes);
    let mut symbols = Vec::new();
    let mut text: Vec<u8> = Vec::new();
    for _ in 0..reader.count()? {
        let shared = usize::try_from(reader.uvarint()?).ok().filter(|shared| *shared <= text.len())?;
        text.truncate(shared);
        text.extend_from_slice(reader.bytes()?);
        // A prefix shared again and again must not make much of little: symbols are label values, not books.
        if text.len() > 1 << 20 {
            return None;
        }
        symbols.push(Arc::from(std::str::from_utf8(&text).ok()?));
    }
    Some(symbols)
}

#[derive(Clone, Copy, Debug)]
struct Name {
    symbol: u32,
    values: usize,
    /// Where its values begin in the label section.
    offset: usize,
}

/// The index of a block.
#[derive(Debug)]
pub(in super::super) struct BlockIndex {
    symbols: Vec<Arc<str>>,
    columns: Vec<Column>,
    names: Vec<Name>,
    table: Vec<u8>,
    labels: Vec<u8>,
    series: usize,
    /// Memory, about.
    pub(in super::super) bytes: usize,
}

impl BlockIndex {
    pub(super) fn decode(columns: &[u8], symbols: &[u8], table: Vec<u8>, labels: Vec<u8>) -> Option<Self> {
        let mut reader = Reader::new(columns);
        let mut found = Vec::with_capacity(columns.len() / COLUMN_BYTES);
        while !reader.is_empty() {
            found.push(Column::take(&mut reader)?);
        }
        let symbols = take_symbols(symbols)?;
        let series = Reader::new(&table).u32_le()? as usize;
        let restarts = series.div_ceil(RESTART_SERIES).checked_mul(RESTART_BYTES)?;
        table.get(4..)?.get(..restarts)?;
        let mut reader = Reader::new(&labels);
        let mut names = Vec::new();
        for _ in 0..reader.u32_le()? {
            let (symbol, values) = (reader.u32_le()?, reader.u32_le()? as usize);
            let offset = usize::try_from(reader.u64_le()?).ok()?;
            symbols.get(symbol as usize)?;
            labels.get(offset..)?.get(..values.checked_mul(VALUE_BYTES)?)?;
            names.push(Name { symbol, values, offset });
        }
        let texts: usize = symbols.iter().map(|symbol| symbol.len() + 32).sum();
        let bytes = texts + found.len() * COLUMN_BYTES + table.len() + labels.len() + names.len() * NAME_BYTES;
        Some(Self { symbols, columns: found, names, table, labels, series, bytes })
    }

    pub(super) fn column(&self, number: u32) -> Option<Column> {
        self.columns.get(number as usize).copied()
    }

    pub(in super::super) fn series_count(&self) -> u32 {
        u32::try_from(self.series).unwrap_or(u32::MAX)
    }

    fn id(&self, text: &str) -> Option<u32> {
        let at = self.symbols.binary_search_by(|symbol| symbol.as_ref().cmp(text)).ok()?;
        u32::try_from(at).ok()
    }

    fn name(&self, name: &str) -> Option<Name> {
        let symbol = self.id(name)?;
        let at = self.names.binary_search_by_key(&symbol, |name| name.symbol).ok()?;
        self.names.get(at).copied()
    }

    /// A value of a label: its symbol and where its postings begin.
    fn value(&self, name: Name, at: usize) -> Option<(u32, usize)> {
        let mut reader = Reader::new(self.labels.get(name.offset + at * VALUE_BYTES..)?);
        let (symbol, offset) = (reader.u32_le()?, reader.u32_le()? as usize);
        Some((symbol, name.offset.checked_add(name.values * VALUE_BYTES)?.checked_add(offset)?))
    }

    fn append_postings(&self, offset: usize, out: &mut Vec<u32>) -> Option<()> {
        let mut reader = Reader::new(self.labels.get(offset..)?);
        let head = reader.uvarint()?;
        let count = usize::try_from(head >> 1).ok().filter(|count| *count <= self.series)?;
        let first = reader.u32()?;
        if head & 1 == 1 {
            let end = first.checked_add(u32::try_from(count).ok()?)?;
            out.extend(first..end);
            return Some(());
        }
        let mut id = first;
        out.push(id);
        for _ in 1..count {
            id = id.checked_add(reader.u32()?)?;
            out.push(id);
        }
        Some(())
    }

    /// A series.
    pub(in super::super) fn entry(&self, id: u32) -> Option<Entry> {
        let mut cursor = self.cursor(id)?;
        let mut entry = Entry::default();
        for _ in 0..=id as usize % RESTART_SERIES {
            cursor.next(self, &mut entry)?;
        }
        Some(entry)
    }

    /// Enters the table at the group of a series.
    pub(in super::super) fn cursor(&self, id: u32) -> Option<Cursor> {
        if id >= self.series_count() {
            return None;
        }
        let restart = 4 + id as usize / RESTART_SERIES * RESTART_BYTES;
        let mut reader = Reader::new(self.table.get(restart..)?);
        let at = usize::try_from(reader.u64_le()?).ok()?;
        Some(Cursor { at, end: reader.u64_le()? })
    }

    fn take_chunk(&self, reader: &mut Reader<'_>, end: u64) -> Option<ChunkAt> {
        let number = reader.u32()?;
        let column = self.columns.get(number as usize)?;
        let offset = end.checked_add(reader.uvarint()?)?;
        let length = reader.uvarint()?;
        let mut chunk = ChunkAt {
            min_ms: column.min_ms,
            max_ms: column.max_ms,
            column: number,
            skip: 0,
            count: column.count,
            offset,
            bytes: u32::try_from(length >> 1).ok()?,
            crc: 0,
        };
        if length & 1 == 1 {
            chunk.skip = reader.u32()?;
            chunk.count = reader.u32()?;
            chunk.min_ms = column.min_ms.wrapping_add(reader.uvarint()?.cast_signed());
            chunk.max_ms = column.min_ms.wrapping_add(reader.uvarint()?.cast_signed());
        }
        chunk.crc = reader.u32_le()?;
        Some(chunk)
    }

    /// The labels of such symbols.
    pub(in super::super) fn labels(&self, pairs: &[(u32, u32)]) -> Option<Labels> {
        let symbol = |id: u32| self.symbols.get(id as usize).cloned();
        let pairs: Option<Vec<_>> = pairs.iter().map(|(name, value)| Some((symbol(*name)?, symbol(*value)?))).collect();
        Some(Labels::from_pairs(pairs?))
    }

    pub(in super::super) fn symbols(&self) -> &[Arc<str>] {
        &self.symbols
    }

    pub(in super::super) fn label_names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().filter_map(|name| self.symbols.get(name.symbol as usize)).map(AsRef::as_ref)
    }
}

/// A series of a block.
#[derive(Debug, Default)]
pub(in super::super) struct Entry {
    /// Symbols of the labels' names and values.
    pub(in super::super) labels: Vec<(u32, u32)>,
    pub(in super::super) chunks: Vec<ChunkAt>,
}

/// A place in the series table.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Cursor {
    at: usize,
    /// End of the chunk before.
    end: u64,
}

impl Cursor {
    /// Reads the series here and goes on to the next.
    pub(in super::super) fn next(&mut self, index: &BlockIndex, entry: &mut Entry) -> Option<()> {
        let bytes = index.table.get(self.at..)?;
        let mut reader = Reader::new(bytes);
        entry.labels.clear();
        entry.chunks.clear();
        for _ in 0..reader.count()? {
            entry.labels.push((reader.u32()?, reader.u32()?));
        }
        for _ in 0..reader.count()? {
            let chunk = index.take_chunk(&mut reader, self.end)?;
            self.end = chunk.offset.checked_add(u64::from(chunk.bytes))?;
            entry.chunks.push(chunk);
        }
        self.at += bytes.len() - reader.rest().len();
        Some(())
    }
}

impl LabelIndex for BlockIndex {
    fn all(&self) -> Vec<u32> {
        (0..self.series_count()).collect()
    }

    fn append(&self, name: &str, value: &str, out: &mut Vec<u32>) {
        let (Some(name), Some(wanted)) = (self.name(name), self.id(value)) else { return };
        let (mut low, mut high) = (0, name.values);
        while low < high {
            let middle = low.midpoint(high);
            match self.value(name, middle) {
                Some((symbol, offset)) if symbol == wanted => {
                    let _damage = self.append_postings(offset, out);
                    return;
                }
                Some((symbol, _)) if symbol < wanted => low = middle + 1,
                _ => high = middle,
            }
        }
    }

    fn append_where(&self, name: &str, wanted: &mut dyn FnMut(&str) -> bool, out: &mut Vec<u32>) {
        let Some(name) = self.name(name) else { return };
        for at in 0..name.values {
            let Some((symbol, offset)) = self.value(name, at) else { return };
            let Some(text) = self.symbols.get(symbol as usize) else { return };
            if wanted(text) {
                let _damage = self.append_postings(offset, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_come_back() {
        let symbols: Vec<Arc<str>> = ["", "a", "ab", "abc", "abd", "b", "ü", "üx"].map(Arc::from).to_vec();
        let mut bytes = Vec::new();
        put_symbols(&symbols, &mut bytes);
        assert_eq!(take_symbols(&bytes).unwrap(), symbols);
        for len in 0..bytes.len() {
            assert_eq!(take_symbols(&bytes[..len]), None, "{len}");
        }
    }

    #[test]
    fn an_index_that_names_what_it_does_not_have_is_damaged() {
        let empty_table = 0u32.to_le_bytes().to_vec();
        let one_name: Vec<u8> = [1u32, 7, 0, 0, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
        let cases = [
            (vec![0; 5], vec![0], empty_table.clone(), vec![0; 4]),
            (vec![], vec![0], 3u32.to_le_bytes().to_vec(), vec![0; 4]),
            (vec![], vec![0], empty_table.clone(), one_name),
            (vec![], vec![2, 0, 1, b'a'], empty_table, vec![0; 4]),
        ];
        for (columns, symbols, table, labels) in cases {
            assert!(BlockIndex::decode(&columns, &symbols, table.clone(), labels).is_none(), "{symbols:?} {table:?}");
        }
    }
}
