//! The write-ahead log of the head: frames of samples in a [`Journal`].
//!
//! Invariants:
//! - Every frame has a batch number that only grows, also when the journal's files are lost.
//! - Series numbers mean something inside one generation: a frame with the reset flag begins one and forgets all numbers
//!   before it. Every generation declares what it uses, so dropping whole older generations loses nothing.

use std::path::Path;

use rustc_hash::FxHashMap;

use crate::model::Labels;
use crate::platform::disk::Disk;
use crate::platform::journal::{Journal, JournalError, JournalOptions, Recovery};
use crate::store::metrics::bytes::{Reader, put_bytes, put_ivarint, put_uvarint};
use crate::store::metrics::chunk::Point;

/// A generation that has grown past this is followed by a new one, which bounds what must be kept for its last sample.
const GENERATION_BYTES: u64 = 16 << 20;
const FLAG_RESET: u8 = 1;
/// Larger batch numbers are damage: no store lives long enough, and the next one must still be a number.
pub(super) const BATCH_MAX: u64 = 1 << 62;

/// Samples on their way to the log.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// Series that this generation has not named yet.
    pub(super) declared: Vec<(u32, Labels)>,
    pub(super) samples: Vec<(u32, Point)>,
}

#[derive(Clone, Copy, Debug)]
struct Generation {
    first_seq: u64,
    max_ms: i64,
}

/// The log, open for writing.
#[derive(Debug)]
pub(super) struct Wal {
    journal: Journal,
    generations: Vec<Generation>,
    /// Counts generations of this process; what a series remembers to know whether it was declared.
    generation: u32,
    generation_bytes: u64,
    must_reset: bool,
    next_batch: u64,
}

impl Wal {
    /// Opens the log and hands every sample to `each` with the number of its batch. `batch_min` is the lowest number
    /// that a new batch may get.
    pub(super) fn open(
        disk: &Disk,
        dir: &Path,
        batch_min: u64,
        mut each: impl FnMut(u64, &Labels, Point),
    ) -> Result<(Self, Recovery, u64), JournalError> {
        let mut names: FxHashMap<u32, Labels> = FxHashMap::default();
        let mut generations: Vec<Generation> = Vec::new();
        let mut next_batch = batch_min;
        let mut unreadable = 0u64;
        // Generations are rotated here; the journal must not add boundaries of its own.
        let options = JournalOptions { segment_bytes: u64::MAX >> 1, ..JournalOptions::default() };
        let (journal, recovery) = Journal::open(disk, dir, options, |seq, payload| {
            if payload.first().is_some_and(|flags| flags & FLAG_RESET != 0) {
                names.clear();
                generations.push(Generation { first_seq: seq, max_ms: i64::MIN });
            }
            let mut max_ms = i64::MIN;
            let decoded = decode(payload, &mut names, |batch, labels, point| {
                max_ms = max_ms.max(point.at_ms);
                each(batch, labels, point);
            });
            match decoded {
                Some(batch) => next_batch = next_batch.max(batch + 1),
                None => unreadable += 1,
            }
            if let Some(last) = generations.last_mut() {
                last.max_ms = last.max_ms.max(max_ms);
            }
        })?;
        let mut wal = Self { journal, generations, generation: 0, generation_bytes: 0, must_reset: true, next_batch };
        wal.rotate()?;
        Ok((wal, recovery, unreadable))
    }

    /// What a series must remember to have been declared.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Number that the next batch gets.
    pub(super) fn next_batch(&self) -> u64 {
        self.next_batch
    }

    pub(super) fn bytes(&self) -> u64 {
        self.journal.bytes()
    }

    /// Starts a new generation when this one has grown large. Call before asking for [`Wal::generation`].
    pub(super) fn rotate_if_large(&mut self) -> Result<(), JournalError> {
        if self.generation_bytes < GENERATION_BYTES { Ok(()) } else { self.rotate() }
    }

    pub(super) fn rotate(&mut self) -> Result<(), JournalError> {
        self.journal.rotate()?;
        self.generation += 1;
        self.generation_bytes = 0;
        self.must_reset = true;
        self.generations.push(Generation { first_seq: self.journal.next_seq(), max_ms: i64::MIN });
        Ok(())
    }

    /// Writes a frame. When this returns, it survives `kill -9`.
    pub(super) fn append(&mut self, frame: &Frame) -> Result<(), JournalError> {
        let payload = self.encode(frame);
        self.journal.append(&payload)?;
        self.must_reset = false;
        self.next_batch += 1;
        self.generation_bytes += payload.len() as u64;
        if let Some(last) = self.generations.last_mut() {
            last.max_ms = frame.samples.iter().map(|(_, point)| point.at_ms).fold(last.max_ms, i64::max);
        }
        Ok(())
    }

    fn encode(&self, frame: &Frame) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + frame.samples.len() * 8);
        out.push(if self.must_reset { FLAG_RESET } else { 0 });
        put_uvarint(&mut out, self.next_batch);
        put_uvarint(&mut out, frame.declared.len() as u64);
        for (id, labels) in &frame.declared {
            put_uvarint(&mut out, u64::from(*id));
            put_uvarint(&mut out, labels.len() as u64);
            for (name, value) in labels.iter() {
                put_bytes(&mut out, name.as_bytes());
                put_bytes(&mut out, value.as_bytes());
            }
        }
        let mut before = (0i64, 0i64);
        for (id, point) in &frame.samples {
            put_ivarint(&mut out, i64::from(*id) - before.0);
            put_ivarint(&mut out, point.at_ms.wrapping_sub(before.1));
            // Small whole numbers have their zero bits at the low end; swapped they make short integers.
            put_uvarint(&mut out, point.value.to_bits().swap_bytes());
            before = (i64::from(*id), point.at_ms);
        }
        out
    }

    /// Makes what was appended survive power loss.
    pub(super) fn sync(&mut self) -> Result<(), JournalError> {
        self.journal.sync()
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.journal.is_poisoned()
    }

    /// Removes the oldest generations while all their samples are before `min_ms`. The newest stays.
    pub(super) fn drop_before(&mut self, min_ms: i64) -> std::io::Result<()> {
        let older = self.generations.len().saturating_sub(1);
        let keep_from = self.generations.iter().take(older).take_while(|generation| generation.max_ms < min_ms).count();
        if let Some(first) = self.generations.get(keep_from).filter(|_| keep_from > 0) {
            self.journal.drop_before(first.first_seq)?;
            self.generations.drain(..keep_from);
        }
        Ok(())
    }
}

/// Reads a frame; returns its batch number. Samples of undeclared series (their declaration was damaged) make `None`.
fn decode(
    payload: &[u8],
    names: &mut FxHashMap<u32, Labels>,
    mut each: impl FnMut(u64, &Labels, Point),
) -> Option<u64> {
    let mut reader = Reader::new(payload);
    let _flags = reader.u8()?;
    let batch = reader.uvarint().filter(|batch| *batch <= BATCH_MAX)?;
    for _ in 0..reader.count()? {
        let id = reader.u32()?;
        let mut pairs = Vec::new();
        for _ in 0..reader.count()? {
            pairs.push((reader.text()?, reader.text()?));
        }
        names.insert(id, Labels::from_pairs(pairs));
    }
    let mut before = (0i64, 0i64);
    let mut undeclared = false;
    while !reader.is_empty() {
        let id = before.0.checked_add(reader.ivarint()?)?;
        let at_ms = before.1.wrapping_add(reader.ivarint()?);
        let value = f64::from_bits(reader.uvarint()?.swap_bytes());
        before = (id, at_ms);
        match u32::try_from(id).ok().and_then(|id| names.get(&id)) {
            Some(labels) => each(batch, labels, Point { at_ms, value }),
            None => undeclared = true,
        }
    }
    (!undeclared).then_some(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_no_store_writes_are_damage() {
        let frame = |batch: u64, ids: &[i64]| {
            let mut out = vec![FLAG_RESET];
            put_uvarint(&mut out, batch);
            put_uvarint(&mut out, 0);
            for id in ids {
                put_ivarint(&mut out, *id);
                out.extend([0, 0]);
            }
            out
        };
        for payload in [frame(u64::MAX, &[]), frame(1, &[i64::MAX, 1])] {
            assert_eq!(decode(&payload, &mut FxHashMap::default(), |_, _, _| {}), None, "{payload:?}");
        }
        assert_eq!(decode(&frame(BATCH_MAX, &[]), &mut FxHashMap::default(), |_, _, _| {}), Some(BATCH_MAX));
    }
}
