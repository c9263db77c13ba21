//! Bytes of a record and of a write-ahead frame. Layouts: `FORMAT.md` beside this file.
//!
//! Invariant: decoding never panics and never allocates more than the input can hold; damage is a [`DecodeError`].

use crate::model::{Labels, LogRecord, Timestamp};

use super::Origin;

const FRAME_BATCH: u8 = 1;
const FRAME_CHECKPOINT: u8 = 2;
/// Larger frame numbers are damage: shifted to the sequence numbers of their records they would not fit.
const FRAME_NUMBER_MAX: u64 = 1 << 43;

/// The bytes are not what this version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes end early or hold an unknown tag")]
pub(super) struct DecodeError;

/// One frame of the write-ahead log.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    Batch {
        frame: u64,
        origin: Option<Origin>,
        records: Vec<LogRecord>,
    },
    /// Opens a new segment: everything older than the segments that remain.
    Checkpoint {
        frame: u64,
        marks: Vec<Origin>,
    },
}

fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_origin(out: &mut Vec<u8>, origin: &Origin) {
    put_text(out, &origin.agent);
    put_varint(out, origin.generation);
    put_varint(out, origin.seq);
}

fn put_body(out: &mut Vec<u8>, record: &LogRecord) {
    put_text(out, &record.line);
    put_varint(out, record.fields.len() as u64);
    for (name, value) in &record.fields {
        put_text(out, name);
        put_text(out, value);
    }
}

/// Line and fields: what a partition stores of a record beside its columns.
pub(super) fn encode_body(record: &LogRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(record.text_bytes() + 16);
    put_body(&mut out, record);
    out
}

/// A stream's labels as one term of the index.
pub(super) fn encode_stream(labels: &Labels) -> String {
    let mut text = String::new();
    for (name, value) in labels.iter() {
        for part in [name, value] {
            text.push_str(&part.len().to_string());
            text.push(':');
            text.push_str(part);
        }
    }
    text
}

pub(super) fn decode_stream(mut text: &str) -> Result<Labels, DecodeError> {
    let mut parts: Vec<&str> = Vec::new();
    while !text.is_empty() {
        let (length, rest) = text.split_once(':').ok_or(DecodeError)?;
        let length: usize = length.parse().map_err(|_| DecodeError)?;
        let (part, rest) = rest.split_at_checked(length).ok_or(DecodeError)?;
        parts.push(part);
        text = rest;
    }
    Ok(Labels::from_pairs(parts.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?)))))
}

pub(super) fn encode_batch(frame: u64, origin: Option<&Origin>, records: &[LogRecord]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + records.iter().map(|record| record.text_bytes() + 24).sum::<usize>());
    out.push(FRAME_BATCH);
    put_varint(&mut out, frame);
    out.push(u8::from(origin.is_some()));
    if let Some(origin) = origin {
        put_origin(&mut out, origin);
    }
    let mut streams: Vec<&Labels> = Vec::new();
    let mut indexes = rustc_hash::FxHashMap::default();
    for record in records {
        indexes.entry(&record.stream).or_insert_with(|| {
            streams.push(&record.stream);
            streams.len() as u64 - 1
        });
    }
    put_varint(&mut out, streams.len() as u64);
    for stream in streams {
        put_varint(&mut out, stream.len() as u64);
        for (name, value) in stream.iter() {
            put_text(&mut out, name);
            put_text(&mut out, value);
        }
    }
    put_varint(&mut out, records.len() as u64);
    for record in records {
        out.extend_from_slice(&record.at.nanos().to_le_bytes());
        put_varint(&mut out, indexes.get(&record.stream).copied().unwrap_or(0));
        put_body(&mut out, record);
    }
    out
}

pub(super) fn encode_checkpoint(frame: u64, marks: &[Origin]) -> Vec<u8> {
    let mut out = vec![FRAME_CHECKPOINT];
    put_varint(&mut out, frame);
    put_varint(&mut out, marks.len() as u64);
    for mark in marks {
        put_origin(&mut out, mark);
    }
    out
}

pub(super) fn decode_frame(bytes: &[u8]) -> Result<Frame, DecodeError> {
    let mut input = Input(bytes);
    match input.byte()? {
        FRAME_BATCH => {
            let frame = input.frame_number()?;
            let origin = if input.byte()? == 1 { Some(input.origin()?) } else { None };
            let mut streams = Vec::new();
            for _ in 0..input.count()? {
                let mut pairs = Vec::new();
                for _ in 0..input.count()? {
                    pairs.push((input.text()?, input.text()?));
                }
                streams.push(Labels::from_pairs(pairs));
            }
            let mut records = Vec::new();
            for _ in 0..input.count()? {
                let at = Timestamp(i64::from_le_bytes(input.array()?));
                let index = usize::try_from(input.varint()?).map_err(|_| DecodeError)?;
                let stream = streams.get(index).ok_or(DecodeError)?.clone();
                let (line, fields) = input.body()?;
                records.push(LogRecord { at, stream, line, fields });
            }
            Ok(Frame::Batch { frame, origin, records })
        }
        FRAME_CHECKPOINT => {
            let frame = input.frame_number()?;
            let mut marks = Vec::new();
            for _ in 0..input.count()? {
                marks.push(input.origin()?);
            }
            Ok(Frame::Checkpoint { frame, marks })
        }
        _ => Err(DecodeError),
    }
}

/// Line and fields of a record.
pub(super) type Body = (String, Vec<(String, String)>);

pub(super) fn decode_body(bytes: &[u8]) -> Result<Body, DecodeError> {
    Input(bytes).body()
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(DecodeError)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| DecodeError)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError)
    }

    fn frame_number(&mut self) -> Result<u64, DecodeError> {
        self.varint().and_then(|number| if number <= FRAME_NUMBER_MAX { Ok(number) } else { Err(DecodeError) })
    }

    /// A number of things that take at least one byte each.
    fn count(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(self.varint()?).ok().filter(|count| *count <= self.0.len()).ok_or(DecodeError)
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.count()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError)
    }

    fn origin(&mut self) -> Result<Origin, DecodeError> {
        Ok(Origin { agent: self.text()?.to_owned(), generation: self.varint()?, seq: self.varint()? })
    }

    fn body(&mut self) -> Result<Body, DecodeError> {
        let line = self.text()?.to_owned();
        let mut fields = Vec::new();
        for _ in 0..self.count()? {
            fields.push((self.text()?.to_owned(), self.text()?.to_owned()));
        }
        Ok((line, fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at: i64, line: &str) -> LogRecord {
        LogRecord {
            at: Timestamp(at),
            stream: Labels::from_pairs([("source", "postgresql"), ("cluster", "a:1")]),
            line: line.to_owned(),
            fields: vec![("pid".to_owned(), "17".to_owned()), ("empty".to_owned(), String::new())],
        }
    }

    #[test]
    fn frames_survive_and_every_cut_is_an_error() {
        let origin = Origin { agent: "n1".to_owned(), generation: u64::MAX, seq: 300 };
        let records = vec![record(-5, "läuft ✓\nDETAIL: x"), record(i64::MAX, "")];
        let bytes = encode_batch(1 << 40, Some(&origin), &records);
        assert_eq!(decode_frame(&bytes), Ok(Frame::Batch { frame: 1 << 40, origin: Some(origin.clone()), records }));
        for cut in 0..bytes.len() {
            assert_eq!(decode_frame(&bytes[..cut]), Err(DecodeError), "cut at {cut}");
        }
        let bytes = encode_checkpoint(7, std::slice::from_ref(&origin));
        assert_eq!(decode_frame(&bytes), Ok(Frame::Checkpoint { frame: 7, marks: vec![origin] }));
        assert_eq!(decode_frame(&[FRAME_CHECKPOINT, 1, 0xff, 0xff, 0xff, 0x7f]), Err(DecodeError));
    }

    #[test]
    fn a_frame_number_that_leaves_no_room_for_records_is_damage() {
        for (frame, is_sound) in [(FRAME_NUMBER_MAX, true), (FRAME_NUMBER_MAX + 1, false), (u64::MAX, false)] {
            assert_eq!(decode_frame(&encode_batch(frame, None, &[])).is_ok(), is_sound, "{frame}");
            assert_eq!(decode_frame(&encode_checkpoint(frame, &[])).is_ok(), is_sound, "{frame}");
        }
    }

    #[test]
    fn a_stream_is_one_unambiguous_term() {
        for labels in [
            Labels::default(),
            Labels::from_pairs([("a", "1:b"), ("b", "läuft")]),
            Labels::from_pairs([("a", "1"), ("b1:", ":")]),
        ] {
            assert_eq!(decode_stream(&encode_stream(&labels)), Ok(labels));
        }
        for bad in ["1", "9:a", "x:a"] {
            assert_eq!(decode_stream(bad), Err(DecodeError), "{bad}");
        }
    }
}
