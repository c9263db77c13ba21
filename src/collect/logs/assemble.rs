//! Bytes to lines, lines to records, in bounded memory and without losing count of a single byte.
//!
//! - A line ends with a newline, a carriage return before it is dropped. NUL bytes, which holes in files leave behind,
//!   are skipped and counted.
//! - Whether a line continues the record before it is the format's own rule.
//! - Of a record longer than [`RECORD_BYTES_MAX`] the head is kept, with the full length and the SHA-256 of all of it; the
//!   rest streams by.
//! - [`Assembler::safe_offset`] is where to start again after a crash: the first byte that is in no finished record.

use sha2::{Digest as _, Sha256};

use super::format::Format;

/// Bytes of a record that are kept.
pub const RECORD_BYTES_MAX: usize = 256 << 10;
/// Lines of a record at most; the next line then begins a new one.
const RECORD_LINES_MAX: u32 = 5000;
/// What a record may grow to before its next line begins a new one.
const RECORD_FULL_BYTES_MAX: u64 = 1 << 20;

/// A record as it stands in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRecord {
    /// Lines joined by newlines; at most [`RECORD_BYTES_MAX`] bytes.
    pub text: Vec<u8>,
    /// Length of the whole record and its SHA-256, where only the head was kept.
    pub cut: Option<(u64, String)>,
    /// The end is missing: the file ended in the middle of a line, or the next record began inside this one.
    pub is_partial: bool,
}

/// Collects the bytes of one file.
#[derive(Debug)]
pub struct Assembler {
    format: Format,
    prefix: Option<super::prefix::Prefix>,
    /// File offset of the next byte to be fed.
    position: u64,
    /// The line that is being read, without its end.
    line: Vec<u8>,
    line_start: u64,
    /// The line has been handed to the record already; its remaining bytes follow there.
    line_is_streaming: bool,
    record: Option<Pending>,
    nul_bytes: u64,
    resyncs: u64,
}

/// A record that may go on.
#[derive(Debug)]
struct Pending {
    start: u64,
    text: Vec<u8>,
    full_bytes: u64,
    hasher: Option<Sha256>,
    lines: u32,
    /// For csvlog: inside a quoted value.
    quote_is_open: bool,
}

impl Pending {
    fn new(start: u64) -> Self {
        Self { start, text: Vec::new(), full_bytes: 0, hasher: None, lines: 0, quote_is_open: false }
    }

    fn absorb(&mut self, bytes: &[u8]) {
        self.full_bytes += bytes.len() as u64;
        self.quote_is_open ^= bytes.iter().fold(false, |is_odd, byte| is_odd ^ (*byte == b'"'));
        let room = RECORD_BYTES_MAX.saturating_sub(self.text.len());
        let kept = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        if kept.len() < bytes.len() && self.hasher.is_none() {
            self.hasher = Some(Sha256::new_with_prefix(&self.text));
            self.text.extend_from_slice(kept);
            if let Some(hasher) = &mut self.hasher {
                hasher.update(bytes);
            }
            return;
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.text.extend_from_slice(kept);
    }

    fn add_line(&mut self, line: &[u8]) {
        if self.lines > 0 {
            self.absorb(b"\n");
        }
        self.lines += 1;
        self.absorb(line);
    }

    fn finish(self, is_partial: bool) -> RawRecord {
        let cut = self.hasher.map(|hasher| (self.full_bytes, format!("{:x}", hasher.finalize())));
        RawRecord { text: self.text, cut, is_partial }
    }
}

impl Assembler {
    /// Starts at a file offset, which must be the start of a record.
    pub fn new(format: Format, prefix: Option<super::prefix::Prefix>, offset: u64) -> Self {
        Self {
            format,
            prefix,
            position: offset,
            line: Vec::new(),
            line_start: offset,
            line_is_streaming: false,
            record: None,
            nul_bytes: 0,
            resyncs: 0,
        }
    }

    /// File offset of the next byte to be fed.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Where to start again: everything before is in finished records.
    pub fn safe_offset(&self) -> u64 {
        self.record.as_ref().map_or(self.line_start, |record| record.start)
    }

    pub fn nul_bytes(&self) -> u64 {
        self.nul_bytes
    }

    /// How often a torn record was given up because the next one began inside it.
    pub fn resyncs(&self) -> u64 {
        self.resyncs
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.record.is_none() && self.line.is_empty() && !self.line_is_streaming
    }

    /// The prefix that stderr records of this file have.
    pub fn prefix(&self) -> Option<&super::prefix::Prefix> {
        self.prefix.as_ref()
    }

    /// Takes bytes until they are used up or `records` holds `records_max`; returns how many were taken.
    pub fn feed(&mut self, bytes: &[u8], records: &mut Vec<RawRecord>, records_max: usize) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && records.len() < records_max {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let piece = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            self.take_piece(piece, records);
            let taken = piece.len() + usize::from(end.is_some());
            self.position += taken as u64;
            rest = rest.get(taken..).unwrap_or_default();
            if end.is_some() {
                self.end_line(records);
            }
        }
        bytes.len() - rest.len()
    }

    /// A part of a line, without the newline.
    fn take_piece(&mut self, piece: &[u8], records: &mut Vec<RawRecord>) {
        if piece.contains(&0) {
            let before = piece.len();
            let clean: Vec<u8> = piece.iter().copied().filter(|byte| *byte != 0).collect();
            self.nul_bytes += (before - clean.len()) as u64;
            self.take_clean(&clean, records);
        } else {
            self.take_clean(piece, records);
        }
    }

    fn take_clean(&mut self, piece: &[u8], records: &mut Vec<RawRecord>) {
        if self.line_is_streaming {
            if let Some(record) = &mut self.record {
                record.absorb(piece);
            }
            return;
        }
        self.line.extend_from_slice(piece);
        if self.line.len() > RECORD_BYTES_MAX {
            let line = std::mem::take(&mut self.line);
            self.add_line(&line, records);
            self.line_is_streaming = true;
        }
    }

    fn end_line(&mut self, records: &mut Vec<RawRecord>) {
        if self.line_is_streaming {
            self.line_is_streaming = false;
            self.finish_if_complete(records);
        } else {
            let mut line = std::mem::take(&mut self.line);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            // An empty line means something only inside a record.
            if !line.is_empty() || self.record.is_some() {
                self.add_line(&line, records);
                self.finish_if_complete(records);
            }
            line.clear();
            if line.capacity() <= 4096 {
                self.line = line;
            }
        }
        self.line_start = self.position;
    }

    /// Puts a whole line, or the head of a long one, to the record it belongs to.
    fn add_line(&mut self, line: &[u8], records: &mut Vec<RawRecord>) {
        if let Some(record) = self.record.take() {
            let too_long = record.lines >= RECORD_LINES_MAX || record.full_bytes > RECORD_FULL_BYTES_MAX;
            let torn = self.format.tears(record.quote_is_open, line);
            if torn {
                self.resyncs += 1;
            }
            let continues = self.format.continues(&record.text, record.quote_is_open, line, self.prefix.as_ref());
            if continues && !too_long && !torn {
                self.record = Some(record);
            } else {
                records.push(record.finish(torn));
            }
        }
        if line.is_empty() && self.record.is_none() {
            return;
        }
        let start = self.line_start;
        self.record.get_or_insert_with(|| Pending::new(start)).add_line(line);
    }

    /// Formats whose records end with their line need not wait for the next one.
    fn finish_if_complete(&mut self, records: &mut Vec<RawRecord>) {
        let format = self.format;
        if let Some(record) = self.record.take_if(|record| format.ends_with_line(&record.text, record.quote_is_open)) {
            records.push(record.finish(false));
        }
    }

    /// Gives out the record that waits for a continuation; a line that is not complete stays.
    pub fn flush_record(&mut self, records: &mut Vec<RawRecord>) {
        // An open quote or a line that streams by will go on for sure.
        if self.line_is_streaming
            || self.record.as_ref().is_some_and(|record| self.format.is_open(record.quote_is_open))
        {
            return;
        }
        if let Some(record) = self.record.take() {
            records.push(record.finish(false));
        }
    }

    /// Gives out all that is held, complete or not.
    pub fn flush_all(&mut self, records: &mut Vec<RawRecord>) {
        let line = std::mem::take(&mut self.line);
        let has_partial_line = !line.is_empty() || self.line_is_streaming;
        if !line.is_empty() {
            self.add_line(&line, records);
        }
        self.line_is_streaming = false;
        if let Some(record) = self.record.take() {
            let open = self.format.is_open(record.quote_is_open);
            records.push(record.finish(has_partial_line || open));
        }
        self.line_start = self.position;
    }

    /// Goes on at another offset; what is held is forgotten.
    pub fn reset(&mut self, offset: u64) {
        *self = Self {
            nul_bytes: self.nul_bytes,
            resyncs: self.resyncs,
            ..Self::new(self.format, self.prefix.take(), offset)
        };
    }
}

#[cfg(test)]
mod tests;
