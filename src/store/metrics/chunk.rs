//! Chunks: up to [`SAMPLES_PER_CHUNK`] samples of one series as a bit stream, in order of time, bit-exact.
//!
//! Times are deltas of deltas, values are XORed with their predecessor, as in Facebook's Gorilla paper; `FORMAT.md`
//! has the bit patterns. A chunk can be read while it is still being appended to.

use std::sync::Arc;

/// A chunk with this many samples is sealed and a new one begun.
pub(super) const SAMPLES_PER_CHUNK: u16 = 120;

/// A value at a time, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub at_ms: i64,
    pub value: f64,
}

/// Equal bits: two NaNs with the same payload are equal, 0 and -0 are not.
impl PartialEq for Point {
    fn eq(&self, other: &Self) -> bool {
        self.at_ms == other.at_ms && self.value.to_bits() == other.value.to_bits()
    }
}

/// A finished chunk.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
    pub(super) count: u16,
    pub(super) bits: Arc<[u8]>,
}

impl Chunk {
    pub(super) fn overlaps(&self, start_ms: i64, end_ms: i64) -> bool {
        self.min_ms <= end_ms && self.max_ms >= start_ms
    }
}

/// Encodes points that are already in order into chunks.
pub(super) fn encode(points: &[Point]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for part in points.chunks(usize::from(SAMPLES_PER_CHUNK)) {
        let mut builder = ChunkBuilder::default();
        for point in part {
            builder.push(*point);
        }
        chunks.extend(builder.finish());
    }
    chunks
}

/// A chunk under construction.
#[derive(Clone, Debug, Default)]
pub(super) struct ChunkBuilder {
    bytes: Vec<u8>,
    /// Unused low bits of the last byte.
    free_bits: u32,
    count: u16,
    first_ms: i64,
    last_ms: i64,
    last_delta: i64,
    last_value_bits: u64,
    /// Window of meaningful bits of the last XOR that wrote one; `leading` above 63 means none yet.
    leading: u32,
    trailing: u32,
}

impl ChunkBuilder {
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= SAMPLES_PER_CHUNK
    }

    pub(super) fn first_ms(&self) -> i64 {
        self.first_ms
    }

    pub(super) fn bytes_len(&self) -> usize {
        self.bytes.capacity()
    }

    /// Adds a point; its time must be later than that of the last one.
    pub(super) fn push(&mut self, point: Point) {
        let value_bits = point.value.to_bits();
        if self.count == 0 {
            self.first_ms = point.at_ms;
            self.leading = u32::MAX;
            self.write(point.at_ms.cast_unsigned(), 64);
            self.write(value_bits, 64);
        } else {
            let delta = point.at_ms.wrapping_sub(self.last_ms);
            self.write_time(delta.wrapping_sub(self.last_delta));
            self.write_value(value_bits ^ self.last_value_bits);
            self.last_delta = delta;
        }
        self.last_ms = point.at_ms;
        self.last_value_bits = value_bits;
        self.count += 1;
    }

    /// The finished chunk; `None` when nothing was pushed.
    pub(super) fn finish(self) -> Option<Chunk> {
        (self.count > 0).then(|| self.snapshot())
    }

    /// What has been pushed so far, as a chunk of its own.
    pub(super) fn snapshot(&self) -> Chunk {
        Chunk { min_ms: self.first_ms, max_ms: self.last_ms, count: self.count, bits: Arc::from(self.bytes.as_slice()) }
    }

    fn write_time(&mut self, delta_of_delta: i64) {
        if delta_of_delta == 0 {
            self.write(0, 1);
            return;
        }
        for (prefix, prefix_bits, bits) in TIME_CLASSES {
            let half = 1i64 << (bits - 1);
            if (-half..half).contains(&delta_of_delta) {
                self.write(prefix, prefix_bits);
                self.write(delta_of_delta.cast_unsigned() & ((1 << bits) - 1), bits);
                return;
            }
        }
        self.write(0b1111, 4);
        self.write(delta_of_delta.cast_unsigned(), 64);
    }

    fn write_value(&mut self, xor: u64) {
        if xor == 0 {
            self.write(0, 1);
            return;
        }
        let leading = xor.leading_zeros().min(31);
        let trailing = xor.trailing_zeros();
        if self.leading <= leading && self.trailing <= trailing && self.leading < 64 {
            self.write(0b10, 2);
        } else {
            self.leading = leading;
            self.trailing = trailing;
            self.write(0b11, 2);
            self.write(u64::from(leading), 5);
            self.write(u64::from(64 - leading - trailing - 1), 6);
        }
        self.write(xor >> self.trailing, 64 - self.leading - self.trailing);
    }

    /// Appends the low `bits` bits of `value`, high bits first.
    fn write(&mut self, value: u64, mut bits: u32) {
        while bits > 0 {
            if self.free_bits == 0 {
                self.bytes.push(0);
                self.free_bits = 8;
            }
            let taken = bits.min(self.free_bits);
            let part = (value >> (bits - taken)) & ((1 << taken) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= u8::try_from(part << (self.free_bits - taken)).unwrap_or(0);
            }
            self.free_bits -= taken;
            bits -= taken;
        }
    }
}

/// Classes of deltas of deltas: prefix, its length, length of the number that follows. "0" alone is zero and "1111" is
/// followed by 64 bits.
const TIME_CLASSES: [(u64, u32, u32); 3] = [(0b10, 2, 9), (0b110, 3, 14), (0b1110, 4, 20)];

/// Decodes a chunk's points with times in `start_ms..=end_ms` onto `out`; `None` when the bits are damaged.
pub(super) fn decode_into(bits: &[u8], count: u16, range: (i64, i64), out: &mut Vec<Point>) -> Option<()> {
    let mut reader = BitReader { bytes: bits, at: 0 };
    let mut at_ms = 0i64;
    let mut delta = 0i64;
    let mut value_bits = 0u64;
    let (mut leading, mut trailing) = (u32::MAX, 0);
    for index in 0..count {
        if index == 0 {
            at_ms = reader.read(64)?.cast_signed();
            value_bits = reader.read(64)?;
        } else {
            delta = delta.wrapping_add(reader.read_time()?);
            at_ms = at_ms.wrapping_add(delta);
            if reader.read(1)? == 1 {
                if reader.read(1)? == 1 {
                    leading = u32::try_from(reader.read(5)?).ok()?;
                    let meaningful = u32::try_from(reader.read(6)?).ok()? + 1;
                    trailing = 64u32.checked_sub(leading + meaningful)?;
                } else if leading == u32::MAX {
                    return None;
                }
                value_bits ^= reader.read(64 - leading - trailing)? << trailing;
            }
        }
        if at_ms > range.1 {
            break;
        }
        if at_ms >= range.0 {
            out.push(Point { at_ms, value: f64::from_bits(value_bits) });
        }
    }
    Some(())
}

struct BitReader<'a> {
    bytes: &'a [u8],
    /// Position in bits.
    at: usize,
}

impl BitReader<'_> {
    fn read(&mut self, mut bits: u32) -> Option<u64> {
        let mut value = 0u64;
        while bits > 0 {
            let byte = *self.bytes.get(self.at / 8)?;
            let left = 8 - u32::try_from(self.at % 8).ok()?;
            let taken = bits.min(left);
            let part = (u64::from(byte) >> (left - taken)) & ((1 << taken) - 1);
            value = if taken == 64 { part } else { (value << taken) | part };
            self.at += taken as usize;
            bits -= taken;
        }
        Some(value)
    }

    fn read_time(&mut self) -> Option<i64> {
        if self.read(1)? == 0 {
            return Some(0);
        }
        for (_, _, bits) in TIME_CLASSES {
            if self.read(1)? == 0 {
                let raw = self.read(bits)?;
                let shift = 64 - bits;
                return Some((raw << shift).cast_signed() >> shift);
            }
        }
        Some(self.read(64)?.cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::STALE_NAN;
    use proptest::prelude::*;

    fn round_trip(points: &[Point]) -> Vec<Point> {
        let mut out = Vec::new();
        for chunk in encode(points) {
            decode_into(&chunk.bits, chunk.count, (i64::MIN, i64::MAX), &mut out).unwrap();
        }
        out
    }

    #[test]
    fn special_values_keep_their_bits() {
        let values = [0.0, -0.0, 1.0, f64::NAN, STALE_NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 5e-324];
        let points: Vec<Point> = (0..).zip(values).map(|(i, value)| Point { at_ms: i * 7919, value }).collect();
        assert_eq!(round_trip(&points), points);
    }

    #[test]
    fn a_constant_series_takes_two_bits_a_sample() {
        let points: Vec<Point> = (0..120).map(|i| Point { at_ms: i * 10_000, value: 3.0 }).collect();
        let bytes: usize = encode(&points).iter().map(|chunk| chunk.bits.len()).sum();
        assert!(bytes < 16 + 4 + 30, "{bytes}");
    }

    #[test]
    fn a_cut_chunk_is_an_error() {
        let points: Vec<Point> = (0..50).map(|i| Point { at_ms: i * 10_003, value: i as f64 * 0.1 }).collect();
        let chunk = encode(&points).remove(0);
        for len in 0..chunk.bits.len() - 1 {
            assert_eq!(decode_into(&chunk.bits[..len], chunk.count, (i64::MIN, i64::MAX), &mut Vec::new()), None);
        }
    }

    proptest! {
        #[test]
        fn any_points_come_back(start in any::<i64>(), steps in prop::collection::vec((1i64..1 << 40, any::<u64>()), 0..300)) {
            let mut at_ms = start >> 8;
            let mut points = Vec::new();
            for (step, bits) in steps {
                at_ms += if bits % 3 == 0 { 1000 } else { step };
                let value = if bits % 5 == 0 { (bits % 100) as f64 } else { f64::from_bits(bits) };
                points.push(Point { at_ms, value });
            }
            prop_assert_eq!(round_trip(&points), points);
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200), count in any::<u16>()) {
            let _ = decode_into(&bytes, count, (i64::MIN, i64::MAX), &mut Vec::new());
        }
    }
}
