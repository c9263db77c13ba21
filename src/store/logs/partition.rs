//! One UTC day of sealed records: a tantivy index with one document per record.
//!
//! Guarantees:
//! - A commit adds all records of a seal or none, and names in its payload the write-ahead frames it covers.
//! - What cannot be opened, or fails its checksums, is renamed aside by the caller, never served.
//! - Documents are never changed or deleted; a partition goes as a whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tantivy::columnar::Column;
use tantivy::schema::{BytesOptions, Value as _};
use tantivy::schema::{FAST, Field, IndexRecordOption, NumericOptions, STORED, Schema, TextFieldIndexing, TextOptions};
use tantivy::store::StoreReader;
use tantivy::tokenizer::{PreTokenizedString, Token};
use tantivy::{
    DocId, DocSet as _, Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, SegmentReader, TERMINATED,
    TantivyDocument, TantivyError, Term,
};

use crate::model::{Labels, LogRecord, Timestamp};
use crate::platform::disk::Disk;

use super::codec;
use super::directory::DiskDirectory;
use super::tokens::tokens;
use super::weight::{FieldScale, Measure};

/// Version of everything in a partition. A reader refuses another one.
const FORMAT: u32 = 2;
/// tantivy's least arena; the writer exists only while a seal runs.
const WRITER_ARENA_BYTES: usize = 15_000_000;
const NANOS_PER_DAY: i64 = 86_400_000_000_000;
/// Blocks of stored lines that one query keeps decompressed per segment.
const STORE_CACHE_BLOCKS: usize = 4;

/// Days since 1970-01-01 in UTC.
pub(super) fn day_of(at: Timestamp) -> i64 {
    at.nanos().div_euclid(NANOS_PER_DAY)
}

/// First instant of a day; saturates.
pub(super) fn day_start(day: i64) -> Timestamp {
    Timestamp(day.saturating_mul(NANOS_PER_DAY))
}

/// Directory name of a day: `20261125`.
pub(super) fn day_name(day: i64) -> String {
    day_start(day).to_rfc3339_millis().chars().take(10).filter(|c| *c != '-').collect()
}

/// Day of a directory name, `None` for anything else.
pub(super) fn parse_day_name(name: &str) -> Option<i64> {
    if name.len() != 8 || !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, month, day) = (name.get(0..4)?, name.get(4..6)?, name.get(6..8)?);
    Timestamp::parse_rfc3339(&format!("{year}-{month}-{day}T00:00:00Z")).ok().map(day_of)
}

#[derive(Serialize, Deserialize)]
struct Payload {
    format: u32,
    /// Every record of this day in frames before this one is in the partition.
    frames_before: u64,
}

#[derive(Clone, Copy, Debug)]
struct Fields {
    at: Field,
    seq: Field,
    bytes: Field,
    field_bytes: Field,
    stream: Field,
    tokens: Field,
    body: Field,
}

fn schema() -> (Schema, Fields) {
    let ids_only = |tokenizer| {
        let indexing = TextFieldIndexing::default().set_tokenizer(tokenizer).set_fieldnorms(false);
        TextOptions::default().set_indexing_options(indexing.set_index_option(IndexRecordOption::Basic))
    };
    let mut builder = Schema::builder();
    let fields = Fields {
        at: builder.add_i64_field("at", NumericOptions::default() | FAST),
        seq: builder.add_u64_field("seq", NumericOptions::default() | FAST),
        bytes: builder.add_u64_field("bytes", NumericOptions::default() | FAST),
        field_bytes: builder.add_u64_field("field_bytes", NumericOptions::default() | FAST),
        stream: builder.add_text_field("stream", ids_only("raw").set_fast("raw")),
        tokens: builder.add_text_field("tokens", ids_only("raw")),
        body: builder.add_bytes_field("body", BytesOptions::default() | STORED),
    };
    (builder.build(), fields)
}

/// One open partition. Searches go to its [`PartitionView`].
pub(super) struct Partition {
    pub(super) day: i64,
    pub(super) dir: PathBuf,
    pub(super) frames_before: u64,
    index: Index,
    fields: Fields,
    reader: IndexReader,
}

impl Partition {
    pub(super) fn create(disk: &Disk, dir: &Path, day: i64) -> tantivy::Result<Self> {
        disk.create_dir_all(dir)?;
        let (schema, _) = schema();
        let index = Index::create(DiskDirectory::open(disk, dir)?, schema, IndexSettings::default())?;
        Self::from_index(index, dir, day)
    }

    pub(super) fn open(disk: &Disk, dir: &Path, day: i64) -> tantivy::Result<Self> {
        let index = Index::open(DiskDirectory::open(disk, dir)?)?;
        Self::from_index(index, dir, day)
    }

    fn from_index(index: Index, dir: &Path, day: i64) -> tantivy::Result<Self> {
        let (schema, fields) = schema();
        if index.schema() != schema {
            return Err(TantivyError::SchemaError("the partition was written by another version".to_owned()));
        }
        let frames_before = match index.load_metas()?.payload {
            None => 0,
            Some(payload) => match serde_json::from_str::<Payload>(&payload) {
                Ok(Payload { format: FORMAT, frames_before }) => frames_before,
                _ => return Err(TantivyError::SchemaError("the partition was written by another version".to_owned())),
            },
        };
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual);
        let reader = reader.doc_store_cache_num_blocks(STORE_CACHE_BLOCKS).try_into()?;
        Ok(Self { day, dir: dir.to_owned(), frames_before, index, fields, reader })
    }

    /// Adds records and commits. On an error nothing was added. What earlier frames already brought is skipped.
    pub(super) fn commit<'a>(
        &mut self,
        records: impl Iterator<Item = (u64, &'a LogRecord)>,
        frames_before: u64,
    ) -> tantivy::Result<()> {
        let mut writer: IndexWriter = self.index.writer_with_num_threads(1, WRITER_ARENA_BYTES)?;
        let mut scale = FieldScale::default();
        for (seq, record) in records {
            if super::frame_of(seq) >= self.frames_before {
                let mut document = self.document(seq, record);
                document.add_u64(self.fields.field_bytes, scale.weigh(record));
                writer.add_document(document)?;
            }
        }
        let mut commit = writer.prepare_commit()?;
        let payload = serde_json::to_string(&Payload { format: FORMAT, frames_before });
        commit.set_payload(&payload.map_err(std::io::Error::from)?);
        commit.commit()?;
        self.frames_before = frames_before;
        // A merge that failed leaves the commit as it is: smaller segments, same records.
        if let Err(error) = writer.wait_merging_threads() {
            tracing::warn!(partition = %self.dir.display(), %error, "merging segments failed");
        }
        Ok(())
    }

    fn document(&self, seq: u64, record: &LogRecord) -> TantivyDocument {
        let mut words: Vec<String> = tokens(&record.line).collect();
        words.sort_unstable();
        words.dedup();
        let mut position = 0;
        let words = words.into_iter().map(|text| {
            position += 1;
            Token { text, position, ..Token::default() }
        });
        let words = PreTokenizedString { text: String::new(), tokens: words.collect() };
        let mut document = TantivyDocument::default();
        document.add_i64(self.fields.at, record.at.nanos());
        document.add_u64(self.fields.seq, seq);
        document.add_u64(self.fields.bytes, record.line.len() as u64);
        document.add_text(self.fields.stream, codec::encode_stream(&record.stream));
        document.add_pre_tokenized_text(self.fields.tokens, words);
        document.add_bytes(self.fields.body, &codec::encode_body(record));
        document
    }

    /// Reads every file and compares checksums; the names of those that are damaged.
    pub(super) fn damaged_files(&self) -> tantivy::Result<Vec<PathBuf>> {
        Ok(self.index.validate_checksum()?.into_iter().collect())
    }

    /// What is committed now, for searches.
    pub(super) fn view(&self) -> tantivy::Result<PartitionView> {
        self.reader.reload()?;
        let searcher = self.reader.searcher();
        let mut bytes = 0;
        let mut segments = Vec::new();
        for reader in searcher.segment_readers() {
            bytes += reader.space_usage()?.total().get_bytes();
            segments.push(Segment::open(reader.clone(), self.fields)?);
        }
        Ok(PartitionView { day: self.day, bytes, segments })
    }
}

/// A partition as of one commit.
pub(super) struct PartitionView {
    pub(super) day: i64,
    pub(super) bytes: u64,
    pub(super) segments: Vec<Segment>,
}

/// An immutable file set of a partition.
pub(super) struct Segment {
    reader: SegmentReader,
    fields: Fields,
    at: Column<i64>,
    seq: Column<u64>,
    bytes: Column<u64>,
    field_bytes: Column<u64>,
    stream: Option<Column<u64>>,
    /// Labels by the ordinal in `stream`.
    pub(super) streams: Vec<Labels>,
}

/// Where a record of a segment stands in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) at: Timestamp,
    pub(super) seq: u64,
    pub(super) doc: DocId,
    pub(super) stream: u32,
}

impl Segment {
    fn open(reader: SegmentReader, fields: Fields) -> tantivy::Result<Self> {
        let columns = reader.fast_fields();
        let mut streams = Vec::new();
        let stream = match columns.str("stream")? {
            None => None,
            Some(column) => {
                let mut text = String::new();
                for ord in 0..column.num_terms() as u64 {
                    text.clear();
                    column.ord_to_str(ord, &mut text)?;
                    let labels =
                        codec::decode_stream(&text).map_err(|error| std::io::Error::other(error.to_string()))?;
                    streams.push(labels);
                }
                Some(column.ords().clone())
            }
        };
        let (at, seq, bytes) = (columns.i64("at")?, columns.u64("seq")?, columns.u64("bytes")?);
        let field_bytes = columns.u64("field_bytes")?;
        Ok(Self { reader, fields, at, seq, bytes, field_bytes, stream, streams })
    }

    /// Whether any record may lie in `[start, end)`.
    pub(super) fn overlaps(&self, start: Timestamp, end: Timestamp) -> bool {
        self.reader.max_doc() > 0 && self.at.min_value() < end.nanos() && self.at.max_value() >= start.nanos()
    }

    /// Bytes of a record, without reading it.
    pub(super) fn bytes_of(&self, doc: DocId, measure: Measure) -> u64 {
        let line = self.bytes.first(doc).unwrap_or(0);
        match measure {
            Measure::Line => line,
            Measure::Record => line + self.field_bytes.first(doc).unwrap_or(0),
        }
    }

    /// Records in `[start, end)` of the wanted streams (by ordinal) that have all the tokens.
    pub(super) fn positions(
        &self,
        (start, end): (Timestamp, Timestamp),
        wanted: &[bool],
        required: &[String],
        mut each: impl FnMut(Position),
    ) -> tantivy::Result<()> {
        let mut visit = |doc: DocId| {
            let at = Timestamp(self.at.first(doc).unwrap_or(i64::MIN));
            if at < start || at >= end {
                return;
            }
            let ord = self.stream.as_ref().and_then(|column| column.first(doc)).unwrap_or(u64::MAX);
            let stream = u32::try_from(ord).unwrap_or(u32::MAX);
            if wanted.get(stream as usize).copied().unwrap_or(false) {
                each(Position { at, seq: self.seq.first(doc).unwrap_or(0), doc, stream });
            }
        };
        if required.is_empty() {
            (0..self.reader.max_doc()).for_each(visit);
            return Ok(());
        }
        let index = self.reader.inverted_index(self.fields.tokens)?;
        let mut postings = Vec::new();
        for token in required {
            let term = Term::from_field_text(self.fields.tokens, token);
            match index.read_postings(&term, IndexRecordOption::Basic)? {
                Some(list) => postings.push(list),
                None => return Ok(()),
            }
        }
        postings.sort_by_key(tantivy::postings::SegmentPostings::doc_freq);
        let Some((rarest, others)) = postings.split_first_mut() else { return Ok(()) };
        let mut doc = rarest.doc();
        while doc != TERMINATED {
            if others.iter_mut().all(|list| list.doc() == doc || (list.doc() < doc && list.seek(doc) == doc)) {
                visit(doc);
            }
            doc = rarest.advance();
        }
        Ok(())
    }

    /// A reader of lines, for one query.
    pub(super) fn bodies(&self) -> tantivy::Result<Bodies> {
        Ok(Bodies { store: self.reader.get_store_reader(STORE_CACHE_BLOCKS)?, field: self.fields.body })
    }
}

/// Reads lines and fields of a segment.
pub(super) struct Bodies {
    store: StoreReader,
    field: Field,
}

impl Bodies {
    /// `None` when the stored bytes are damaged.
    pub(super) fn get(&self, doc: DocId) -> tantivy::Result<Option<codec::Body>> {
        let document: TantivyDocument = self.store.get(doc)?;
        let body = document.get_first(self.field).and_then(|value| value.as_bytes());
        Ok(body.and_then(|bytes| codec::decode_body(bytes).ok()))
    }
}

/// Shared by searches.
pub(super) type Partitions = Vec<Arc<PartitionView>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_names() {
        for (secs, name) in [(0, "19700101"), (1_764_028_800, "20251125"), (-1, "19691231")] {
            let day = day_of(Timestamp::from_secs(secs));
            assert_eq!(day_name(day), name);
            assert_eq!(parse_day_name(name), Some(day));
        }
        for bad in ["", "2025112", "20251340", ".trash-1", "2025112é"] {
            assert_eq!(parse_day_name(bad), None, "{bad}");
        }
    }
}
