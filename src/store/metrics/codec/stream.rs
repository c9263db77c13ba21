//! Values one at a time: what the head holds of a series until it becomes a column.
//!
//! A stream is tokens, `uv` each; the two low bits say what: `0` the value before comes again so often; `1` a decimal with
//! the exponent before, as zigzag difference of mantissas; `2` an exponent, its mantissa follows (`iv`); `3` the bits follow
//! (8 bytes). Repetitions at the end are counted outside the bytes, so that a constant series takes none.

use crate::store::metrics::bytes::{Reader, put_ivarint, put_uvarint};
use crate::store::metrics::codec::{EXPONENT_MAX, from_mantissa, mantissa};

const REPEAT: u64 = 0;
const DIFFERENCE: u64 = 1;
const EXPONENT: u64 = 2;
const BITS: u64 = 3;

/// The value before was no decimal.
const NO_EXPONENT: u8 = u8::MAX;
/// After such a value only these exponents are tried, since the next one is likely no decimal either.
const EXPONENT_LIKELY_MAX: u8 = 3;

/// The state after the last value.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Tail {
    pub(in super::super) last: f64,
    /// Times that the last value came again and that no token says yet.
    pub(in super::super) pending: u16,
    exponent: u8,
}

impl Default for Tail {
    fn default() -> Self {
        Self { last: 0.0, pending: 0, exponent: NO_EXPONENT }
    }
}

impl Tail {
    /// Puts the tokens of the next value into `out`; none when it repeats the last one of a stream that `is_begun`.
    pub(in super::super) fn push(&mut self, value: f64, is_begun: bool, out: &mut Vec<u8>) {
        if is_begun && value.to_bits() == self.last.to_bits() && self.pending < u16::MAX {
            self.pending += 1;
            return;
        }
        if self.pending > 0 {
            put_uvarint(out, (u64::from(self.pending) << 2) | REPEAT);
            self.pending = 0;
        }
        self.put_value(value, is_begun, out);
        self.last = value;
    }

    fn put_value(&mut self, value: f64, is_begun: bool, out: &mut Vec<u8>) {
        if is_begun
            && let Some(before) = mantissa(self.last, self.exponent)
            && let Some(next) = mantissa(value, self.exponent)
        {
            // Both are below 2^53: the zigzag difference is below 2^55.
            let difference = next - before;
            let zigzag = ((difference << 1) ^ (difference >> 63)).cast_unsigned();
            put_uvarint(out, (zigzag << 2) | DIFFERENCE);
            return;
        }
        let likely = if is_begun && self.exponent == NO_EXPONENT { EXPONENT_LIKELY_MAX } else { EXPONENT_MAX };
        let fitting = (0..=likely).find_map(|exponent| Some((exponent, mantissa(value, exponent)?)));
        // Longer mantissas than this are no shorter than the bits.
        if let Some((exponent, mantissa)) = fitting.filter(|(_, mantissa)| mantissa.unsigned_abs() < 1 << 48) {
            self.exponent = exponent;
            put_uvarint(out, (u64::from(exponent) << 2) | EXPONENT);
            put_ivarint(out, mantissa);
        } else {
            self.exponent = NO_EXPONENT;
            put_uvarint(out, BITS);
            out.extend(value.to_bits().to_le_bytes());
        }
    }
}

/// Reads the values of a stream with so many repetitions at its end, `count` in all.
pub(in super::super) fn decode(bytes: &[u8], pending: u16, count: usize, out: &mut Vec<f64>) -> Option<()> {
    let mut reader = Reader::new(bytes);
    let end = out.len() + count;
    let (mut last, mut exponent, mut before) = (None, NO_EXPONENT, 0i64);
    while !reader.is_empty() {
        let token = reader.uvarint()?;
        let argument = token >> 2;
        let value = match token & 3 {
            REPEAT => {
                let times = usize::try_from(argument).ok().filter(|times| *times <= end - out.len())?;
                out.extend(std::iter::repeat_n(last?, times));
                continue;
            }
            DIFFERENCE => {
                if exponent == NO_EXPONENT {
                    return None;
                }
                before = before.wrapping_add((argument >> 1).cast_signed() ^ -(argument & 1).cast_signed());
                from_mantissa(before, exponent)
            }
            EXPONENT => {
                exponent = u8::try_from(argument).ok().filter(|exponent| *exponent <= EXPONENT_MAX)?;
                before = reader.ivarint()?;
                from_mantissa(before, exponent)
            }
            _ => {
                exponent = NO_EXPONENT;
                f64::from_bits(reader.u64_le()?)
            }
        };
        if out.len() == end {
            return None;
        }
        out.push(value);
        last = Some(value);
    }
    if pending > 0 {
        let times = usize::from(pending).min(end - out.len());
        out.extend(std::iter::repeat_n(last?, times));
    }
    (out.len() == end).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::STALE_NAN;
    use proptest::prelude::*;

    fn encode(values: &[f64]) -> (Vec<u8>, Tail) {
        let (mut bytes, mut tail) = (Vec::new(), Tail::default());
        for (position, value) in values.iter().enumerate() {
            tail.push(*value, position > 0, &mut bytes);
        }
        (bytes, tail)
    }

    fn round_trip(values: &[f64]) -> usize {
        let (bytes, tail) = encode(values);
        let mut out = Vec::new();
        decode(&bytes, tail.pending, values.len(), &mut out).unwrap();
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&out), bits(values));
        bytes.len()
    }

    #[test]
    fn usual_series_take_a_byte_or_two_a_value() {
        let counter: Vec<f64> = (0..100).map(|i| f64::from(i * i % 40 + 90 * i)).collect();
        let cases = [
            ("constant", vec![1.0; 100], 2),
            ("constant decimal", vec![0.25; 100], 3),
            ("counter", counter, 210),
            ("milliseconds", (0..100).map(|i| f64::from(i * 17) / 1000.0).collect(), 210),
            ("a stale marker", vec![3.0, 3.0, STALE_NAN], 12),
        ];
        for (name, values, bytes_max) in cases {
            let bytes = round_trip(&values);
            assert!(bytes <= bytes_max, "{name}: {bytes} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_values_come_back(values in prop::collection::vec(prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            (-100i64..100, 0u8..4).prop_map(|(m, e)| from_mantissa(m, e)),
            Just(-0.0), Just(0.0), Just(STALE_NAN),
        ], 0..200)) {
            round_trip(&values);
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..100), pending: u16, count in 0usize..3000) {
            let mut out = Vec::new();
            let _ = decode(&bytes, pending, count, &mut out);
            prop_assert!(out.len() <= count);
        }
    }
}
