//! Columns of integers: differences in frames of 128, each with its own base and bit width, outliers patched.
//!
//! A column is `transform u8`, with a flag for a common divisor: `divisor uv`, then `first iv`, then frames of up to 128
//! residuals. A frame is `width u8` (bit 7: exceptions follow the base), `base iv`, `[count u8, (position u8, high bits
//! uv)...]`, then the residuals minus the base, `width` bits each, low bits first. Arithmetic wraps, so every column has a
//! form.

use crate::store::metrics::bytes::{Reader, put_ivarint, put_uvarint};

/// Residuals in a frame.
pub(super) const FRAME: usize = 128;
const TRANSFORM_BITS: u8 = 3;
const HAS_DIVISOR: u8 = 4;
const HAS_EXCEPTIONS: u8 = 0x80;
/// The transform is chosen by what it costs on the first so many values.
const SAMPLE: usize = 256;

/// What a residual is the difference to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transform {
    /// The first value.
    First = 0,
    /// The value before.
    Delta = 1,
    /// The difference before.
    DeltaOfDelta = 2,
}

/// Appends a column; an empty one takes no bytes.
pub(in super::super) fn encode(values: &[i64], out: &mut Vec<u8>) {
    let Some((first, rest)) = values.split_first() else { return };
    let divisor = common_divisor(*first, rest);
    let steps: Vec<i64> = rest.iter().map(|value| divide(value.wrapping_sub(*first), divisor)).collect();
    let sample = steps.get(..SAMPLE).unwrap_or(&steps);
    let mut scratch = Vec::new();
    let mut best: Option<(usize, Transform)> = None;
    for transform in [Transform::First, Transform::Delta, Transform::DeltaOfDelta] {
        scratch.clear();
        put_frames(sample, transform, &mut scratch);
        if best.is_none_or(|(bytes, _)| scratch.len() < bytes) {
            best = Some((scratch.len(), transform));
        }
    }
    let transform = best.map_or(Transform::First, |(_, transform)| transform);
    out.push(transform as u8 | if divisor > 1 { HAS_DIVISOR } else { 0 });
    if divisor > 1 {
        put_uvarint(out, divisor);
    }
    put_ivarint(out, *first);
    put_frames(&steps, transform, out);
}

/// Greatest common divisor of the differences, as far as it can be used; 1 when there is none.
fn common_divisor(first: i64, rest: &[i64]) -> u64 {
    let mut divisor = 0u64;
    for value in rest {
        let mut other = value.wrapping_sub(first).unsigned_abs();
        if divisor != 0 && other.is_multiple_of(divisor) {
            continue;
        }
        while other != 0 {
            (divisor, other) = (other, divisor % other);
        }
        if divisor == 1 {
            return 1;
        }
    }
    // A divisor of 2^63 is no positive i64.
    if divisor > i64::MAX as u64 { 1 } else { divisor.max(1) }
}

fn divide(difference: i64, divisor: u64) -> i64 {
    match i64::try_from(divisor) {
        Ok(divisor) if divisor > 1 => difference / divisor,
        _ => difference,
    }
}

fn put_frames(steps: &[i64], transform: Transform, out: &mut Vec<u8>) {
    let (mut before, mut delta_before) = (0i64, 0i64);
    let mut residuals = [0i64; FRAME];
    for part in steps.chunks(FRAME) {
        for (residual, step) in residuals.iter_mut().zip(part) {
            let delta = step.wrapping_sub(before);
            *residual = match transform {
                Transform::First => *step,
                Transform::Delta => delta,
                Transform::DeltaOfDelta => delta.wrapping_sub(delta_before),
            };
            (before, delta_before) = (*step, delta);
        }
        put_frame(residuals.get(..part.len()).unwrap_or_default(), out);
    }
}

fn put_frame(residuals: &[i64], out: &mut Vec<u8>) {
    let (base, width) = choose_base(residuals);
    let offset = |value: &i64| value.wrapping_sub(base).cast_unsigned();
    let exceptions: Vec<(usize, u64)> =
        residuals.iter().map(offset).enumerate().filter(|(_, offset)| bits_of(*offset) > width).collect();
    out.push(low_byte(u64::from(width)) | if exceptions.is_empty() { 0 } else { HAS_EXCEPTIONS });
    put_ivarint(out, base);
    if !exceptions.is_empty() {
        out.push(low_byte(exceptions.len() as u64));
        for (position, offset) in &exceptions {
            out.push(low_byte(*position as u64));
            put_uvarint(out, offset >> width);
        }
    }
    pack(residuals.iter().map(offset), width, out);
}

fn bits_of(offset: u64) -> u32 {
    u64::BITS - offset.leading_zeros()
}

#[expect(clippy::cast_possible_truncation, reason = "the low byte is meant")]
fn low_byte(value: u64) -> u8 {
    value as u8
}

/// The base and the width below 64 that make the frame smallest.
fn choose_base(residuals: &[i64]) -> (i64, u32) {
    let mut sorted = [0i64; FRAME];
    let sorted = sorted.get_mut(..residuals.len()).unwrap_or_default();
    sorted.copy_from_slice(residuals);
    sorted.sort_unstable();
    let (Some(min), Some(max)) = (sorted.first().copied(), sorted.last().copied()) else { return (0, 0) };
    let full_width = bits_of(max.wrapping_sub(min).cast_unsigned());
    if full_width == 0 {
        return (min, 0);
    }
    let mut best = (usize::MAX, min, 0);
    for rank in [0, 1, 2, 4, 8] {
        let Some(base) = sorted.get(rank).copied() else { break };
        let (bytes, width) = cheapest_width(sorted, base);
        if bytes < best.0 {
            best = (bytes, base, width);
        }
        // Where little is to be won by leaving out the smallest values, they are not looked at.
        if full_width <= 4 {
            break;
        }
    }
    (best.1, best.2)
}

/// The width with the smallest frame for a base, and the size of that frame's body.
fn cheapest_width(values: &[i64], base: i64) -> (usize, u32) {
    let mut counts = [0usize; u64::BITS as usize + 1];
    for value in values {
        if let Some(count) = counts.get_mut(bits_of(value.wrapping_sub(base).cast_unsigned()) as usize) {
            *count += 1;
        }
    }
    let used: Vec<(u32, usize)> = (0u32..).zip(counts).filter(|(_, count)| *count > 0).collect();
    let mut best = (usize::MAX, u64::BITS);
    for (width, _) in used.iter().rev() {
        let packed = (values.len() * *width as usize).div_ceil(8);
        let patched: usize = used
            .iter()
            .filter(|(bits, _)| bits > width)
            .map(|(bits, count)| count * (1 + (bits - width).div_ceil(7) as usize))
            .sum();
        let bytes = packed + patched + usize::from(patched > 0);
        if bytes < best.0 {
            best = (bytes, *width);
        }
    }
    // Nothing fits a width of 0 by being zero alone: all but the exceptions equal the base.
    let beyond: usize =
        used.iter().filter(|(bits, _)| *bits > 0).map(|(bits, n)| n * (1 + bits.div_ceil(7) as usize)).sum();
    if beyond + usize::from(beyond > 0) < best.0 { (beyond + usize::from(beyond > 0), 0) } else { best }
}

/// Appends the low `width` bits of each, low bits first.
fn pack(offsets: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let mask = if width == u64::BITS { u64::MAX } else { (1 << width) - 1 };
    let (mut held, mut held_bits) = (0u128, 0u32);
    for offset in offsets {
        held |= u128::from(offset & mask) << held_bits;
        held_bits += width;
        while held_bits >= 8 {
            out.push(low_byte(low_word(held)));
            held >>= 8;
            held_bits -= 8;
        }
    }
    if held_bits > 0 {
        out.push(low_byte(low_word(held)));
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low word is meant")]
fn low_word(value: u128) -> u64 {
    value as u64
}

/// Reads a column of `count` values onto `out`.
pub(in super::super) fn decode(reader: &mut Reader<'_>, count: usize, out: &mut Vec<i64>) -> Option<()> {
    if count == 0 {
        return Some(());
    }
    let head = reader.u8()?;
    let transform = match head & TRANSFORM_BITS {
        0 => Transform::First,
        1 => Transform::Delta,
        2 => Transform::DeltaOfDelta,
        _ => return None,
    };
    let divisor = if head & HAS_DIVISOR != 0 { i64::try_from(reader.uvarint()?).ok()? } else { 1 };
    let first = reader.ivarint()?;
    out.reserve(count);
    out.push(first);
    let (mut step, mut delta) = (0i64, 0i64);
    let mut left = count - 1;
    let mut residuals = [0i64; FRAME];
    while left > 0 {
        let frame = residuals.get_mut(..left.min(FRAME))?;
        left -= frame.len();
        take_frame(reader, frame)?;
        match transform {
            Transform::First => out.extend(frame.iter().map(|r| first.wrapping_add(r.wrapping_mul(divisor)))),
            Transform::Delta => out.extend(frame.iter().map(|residual| {
                step = step.wrapping_add(*residual);
                first.wrapping_add(step.wrapping_mul(divisor))
            })),
            Transform::DeltaOfDelta => out.extend(frame.iter().map(|residual| {
                delta = delta.wrapping_add(*residual);
                step = step.wrapping_add(delta);
                first.wrapping_add(step.wrapping_mul(divisor))
            })),
        }
    }
    Some(())
}

/// Reads one frame, as many residuals as the slice is long.
fn take_frame(reader: &mut Reader<'_>, residuals: &mut [i64]) -> Option<()> {
    let head = reader.u8()?;
    let width = u32::from(head & !HAS_EXCEPTIONS);
    if width > u64::BITS {
        return None;
    }
    let base = reader.ivarint()?;
    let mut patches = [(0usize, 0u64); FRAME];
    let mut count = 0;
    if head & HAS_EXCEPTIONS != 0 {
        for _ in 0..reader.u8()? {
            let position = usize::from(reader.u8()?);
            let high = reader.uvarint()?.checked_shl(width)?;
            *patches.get_mut(count)? = (position, high);
            count += 1;
        }
    }
    let packed = reader.take((residuals.len() * width as usize).div_ceil(8))?;
    unpack(packed, width, base, residuals);
    for (position, high) in patches.get(..count)? {
        let residual = residuals.get_mut(*position)?;
        *residual = residual.wrapping_add(high.cast_signed());
    }
    Some(())
}

fn unpack(packed: &[u8], width: u32, base: i64, residuals: &mut [i64]) {
    if width == 0 {
        residuals.fill(base);
        return;
    }
    let mask = if width == u64::BITS { u64::MAX } else { (1 << width) - 1 };
    let mut bit = 0usize;
    for residual in residuals {
        let offset = word_at(packed, bit, width) & mask;
        *residual = base.wrapping_add(offset.cast_signed());
        bit += width as usize;
    }
}

/// At least `width` bits from a bit position on; bits past the end are zero.
#[inline]
fn word_at(packed: &[u8], bit: usize, width: u32) -> u64 {
    let (byte, shift) = (bit / 8, bit % 8);
    if width <= 57
        && let Some(word) = packed.get(byte..).and_then(<[u8]>::first_chunk::<8>)
    {
        return u64::from_le_bytes(*word) >> shift;
    }
    let mut word = [0u8; 16];
    let rest = packed.get(byte..).unwrap_or_default();
    let rest = rest.get(..16).unwrap_or(rest);
    if let Some(head) = word.get_mut(..rest.len()) {
        head.copy_from_slice(rest);
    }
    low_word(u128::from_le_bytes(word) >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(values: &[i64]) -> usize {
        let mut bytes = Vec::new();
        encode(values, &mut bytes);
        let (mut reader, mut out) = (Reader::new(&bytes), Vec::new());
        decode(&mut reader, values.len(), &mut out).unwrap();
        assert_eq!(out, values);
        assert!(reader.is_empty());
        bytes.len()
    }

    /// Bytes that columns may take at most: header, base and width per frame, and what is unforeseeable.
    #[test]
    fn regular_columns_take_next_to_nothing() {
        let aligned: Vec<i64> = (0..480).map(|i| 1_700_000_000_000 + i * 15_000).collect();
        let jittered: Vec<i64> = aligned.iter().map(|t| t + (t / 15_000 * 7919) % 5 - 2).collect();
        let pages: Vec<i64> = (0..480).map(|i| 4096 * ((i * 37) % 11)).collect();
        let reset: Vec<i64> = (0..480).map(|i| if i < 200 { 5_000_000 + i * 3 } else { i * 3 }).collect();
        let cases = [
            ("constant", vec![7; 480], 12),
            ("aligned times", aligned, 24),
            ("times with 2 ms of jitter", jittered, 270),
            ("multiples", pages, 255),
            ("a counter that is reset", reset, 30),
        ];
        for (name, column, bytes_max) in cases {
            let bytes = round_trip(&column);
            assert!(bytes <= bytes_max, "{name}: {bytes} bytes");
        }
    }

    #[test]
    fn the_ends_of_the_range_come_back() {
        for column in [vec![], vec![i64::MIN], vec![i64::MIN, i64::MAX], vec![i64::MAX, i64::MIN, 0, -1, 1, i64::MIN]] {
            round_trip(&column);
        }
    }

    proptest! {
        #[test]
        fn any_columns_come_back(
            column in prop::collection::vec(prop_oneof![any::<i64>(), -100i64..100, Just(0), Just(i64::MAX)], 0..700),
            scale in 1i64..5000,
        ) {
            round_trip(&column);
            let scaled: Vec<i64> = column.iter().map(|value| (value % 1_000_000) * scale).collect();
            round_trip(&scaled);
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0usize..2000) {
            let mut out = Vec::new();
            let _ = decode(&mut Reader::new(&bytes), count, &mut out);
            prop_assert!(out.len() <= count);
        }
    }
}
