//! The write-ahead log of the head: what is not in the logs of its windows yet, as frames in a [`Journal`].
//!
//! Invariants:
//! - Every frame has a batch number that only grows, also when the journal's files are lost.
//! - A frame names windows and slots; which series a slot is stands in the window's log, which is written first.

use std::path::Path;

use crate::platform::disk::{Disk, DiskFile};
use crate::platform::journal::{Journal, JournalError, JournalOptions, Recovery};
use crate::store::metrics::bytes::{Reader, put_ivarint, put_uvarint};
use crate::store::metrics::head::{Place, WINDOW_MS, window_start};

/// First byte of every frame of this format.
const VERSION: u8 = 2;
const NEW_TIME: u64 = 1;
const RAW: u64 = 2;
/// Larger batch numbers are damage: no store lives long enough, and the next one must still be a number.
const BATCH_MAX: u64 = 1 << 62;
/// Integers below this are shorter as integers.
const INTEGER_MAX: f64 = 281_474_976_710_656.0;

/// The log, open for writing.
#[derive(Debug)]
pub(super) struct Wal {
    journal: Journal,
    next_batch: u64,
    /// The first batch of this process and its number in the journal; from there on both count alike.
    opened: (u64, u64),
    scratch: Vec<u8>,
}

/// A sample as the log has it; its time counts from the start of its window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LoggedSample {
    pub(super) window: u64,
    pub(super) slot: u32,
    pub(super) offset_ms: i64,
    pub(super) value: f64,
}

impl Wal {
    /// Opens the log and hands every sample to `each` with the number of its batch; `each` tells whether it knew the
    /// series. `batch_min` is the lowest number that a new batch may get. Returns how many frames were not whole.
    pub(super) fn open(
        disk: &Disk,
        dir: &Path,
        batch_min: u64,
        mut each: impl FnMut(u64, LoggedSample) -> bool,
    ) -> Result<(Self, Recovery, u64), JournalError> {
        let mut next_batch = batch_min;
        let mut unreadable = 0u64;
        let (journal, recovery) = Journal::open(disk, dir, JournalOptions::default(), |_, payload| {
            let mut is_whole = true;
            match decode(payload, |batch, sample| is_whole &= each(batch, sample)) {
                Some(batch) => next_batch = next_batch.max(batch + 1),
                None => is_whole = false,
            }
            unreadable += u64::from(!is_whole);
        })?;
        let opened = (next_batch, journal.next_seq());
        Ok((Self { journal, next_batch, opened, scratch: Vec::new() }, recovery, unreadable))
    }

    /// Number that the next batch gets.
    pub(super) fn next_batch(&self) -> u64 {
        self.next_batch
    }

    pub(super) fn bytes(&self) -> u64 {
        self.journal.bytes()
    }

    /// Writes a batch and returns its number. When this returns, it survives `kill -9`.
    pub(super) fn append(&mut self, samples: &[Place]) -> Result<u64, JournalError> {
        let mut payload = std::mem::take(&mut self.scratch);
        payload.clear();
        encode(self.next_batch, samples, &mut payload);
        let appended = self.journal.append(&payload);
        self.scratch = payload;
        appended?;
        self.next_batch += 1;
        Ok(self.next_batch - 1)
    }

    /// What to sync so that everything appended survives power loss. A failure of it must be told by
    /// [`Wal::sync_failed`].
    pub(super) fn sync_handle(&mut self) -> Result<Option<DiskFile>, JournalError> {
        self.journal.sync_handle()
    }

    pub(super) fn sync_failed(&mut self, source: std::io::Error) -> JournalError {
        self.journal.sync_failed(source)
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.journal.is_poisoned()
    }

    /// Removes what holds only batches before `batch`, as far as whole segments do.
    pub(super) fn drop_before(&mut self, batch: u64) -> std::io::Result<()> {
        let (opened_batch, opened_seq) = self.opened;
        match batch.min(self.next_batch).checked_sub(opened_batch) {
            Some(since) => self.journal.drop_before(opened_seq + since),
            None => Ok(()),
        }
    }

    /// Starts a new segment, so that [`Wal::drop_before`] can remove all that came before.
    pub(super) fn rotate(&mut self) -> Result<(), JournalError> {
        self.journal.rotate()
    }
}

fn encode(batch: u64, samples: &[Place], out: &mut Vec<u8>) {
    out.push(VERSION);
    put_uvarint(out, batch);
    for section in samples.chunk_by(|a, b| a.window == b.window) {
        put_uvarint(out, section.first().map_or(0, |place| place.window));
        put_uvarint(out, section.len() as u64);
        let (mut slot_before, mut time_before) = (0i64, 0i64);
        for place in section {
            let slot = i64::from(place.slot);
            let offset = place.point.at_ms - window_start(place.point.at_ms);
            let difference = slot - slot_before;
            let zigzag = ((difference << 1) ^ (difference >> 63)).cast_unsigned();
            let integer = integer_of(place.point.value);
            let flags = if integer.is_none() { RAW } else { 0 } | if offset == time_before { 0 } else { NEW_TIME };
            put_uvarint(out, (zigzag << 2) | flags);
            if offset != time_before {
                put_ivarint(out, offset - time_before);
            }
            match integer {
                Some(integer) => put_ivarint(out, integer),
                None => out.extend(place.point.value.to_bits().to_le_bytes()),
            }
            (slot_before, time_before) = (slot, offset);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the magnitude is checked first")]
fn integer_of(value: f64) -> Option<i64> {
    if value.is_nan() || value.abs() >= INTEGER_MAX {
        return None;
    }
    let integer = value as i64;
    ((integer as f64).to_bits() == value.to_bits()).then_some(integer)
}

/// Reads a frame; returns its batch number.
pub(super) fn decode(payload: &[u8], mut each: impl FnMut(u64, LoggedSample)) -> Option<u64> {
    let mut reader = Reader::new(payload.strip_prefix(&[VERSION])?);
    let batch = reader.uvarint().filter(|batch| *batch <= BATCH_MAX)?;
    while !reader.is_empty() {
        let window = reader.uvarint().filter(|window| *window < u64::MAX)?;
        let (mut slot, mut offset_ms) = (0i64, 0i64);
        for _ in 0..reader.count()? {
            let token = reader.uvarint()?;
            let zigzag = token >> 2;
            slot = slot.checked_add((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())?;
            if token & NEW_TIME != 0 {
                offset_ms = offset_ms.checked_add(reader.ivarint()?)?;
            }
            let value = if token & RAW != 0 { f64::from_bits(reader.u64_le()?) } else { reader.ivarint()? as f64 };
            if !(0..WINDOW_MS).contains(&offset_ms) {
                return None;
            }
            each(batch, LoggedSample { window, slot: u32::try_from(slot).ok()?, offset_ms, value });
        }
    }
    Some(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::metrics::Point;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_frame_comes_back(samples in prop::collection::vec(
            (0u64..3, any::<u32>(), 0..WINDOW_MS, prop_oneof![any::<u64>(), (0u64..100).prop_map(|n| (n as f64).to_bits())]),
            0..50,
        )) {
            let place = |(window, slot, offset, bits): &(u64, u32, i64, u64)| Place {
                window: *window,
                slot: *slot,
                point: Point { at_ms: 5 * WINDOW_MS + offset, value: f64::from_bits(*bits) },
            };
            let places: Vec<Place> = samples.iter().map(place).collect();
            let mut out = Vec::new();
            encode(77, &places, &mut out);
            let mut back = Vec::new();
            prop_assert_eq!(decode(&out, |_, s| back.push((s.window, s.slot, s.offset_ms, s.value.to_bits()))), Some(77));
            prop_assert_eq!(back, samples);
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, |_, _| {});
        }
    }

    #[test]
    fn a_batch_number_that_leaves_no_next_one_is_damage() {
        for (batch, read) in [(BATCH_MAX, Some(BATCH_MAX)), (u64::MAX, None)] {
            let mut out = vec![VERSION];
            put_uvarint(&mut out, batch);
            assert_eq!(decode(&out, |_, _| {}), read);
        }
    }
}
