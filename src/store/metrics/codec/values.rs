//! Columns of doubles, bit for bit.
//!
//! Values that people and programs write are decimals of few digits: their mantissas make small integers. A column says
//! which of the forms below it has; the number of values stands outside. Doubles that are no such decimals (stale markers,
//! other NaNs, infinities, -0, full-precision results) are listed beside the integers; where they are many, the column is
//! packed as doubles.
//!
//! - `0`: one value for all, 8 bytes. `1`: one decimal for all, `exponent u8, mantissa iv`.
//! - `2`: `exponent u8, specials uv, (gap uv, kind u8, [8 bytes])..., mantissas` as an integer column, in which a special
//!   repeats the value before.
//! - `3`: the bits as an integer column. `4`: a chunk of the `pco` crate.

use crate::model::sample::STALE_NAN_BITS;
use crate::store::metrics::bytes::{Reader, put_ivarint, put_uvarint};
use crate::store::metrics::codec::{EXPONENT_MAX, MANTISSA_MAX, from_mantissa, ints, mantissa};

const CONSTANT: u8 = 0;
const CONSTANT_DECIMAL: u8 = 1;
const DECIMAL: u8 = 2;
const BITS: u8 = 3;
const PACKED: u8 = 4;

/// More than one special in so many values, and the column is no column of decimals.
const SPECIALS_ONE_IN: usize = 8;
/// Shorter columns are not worth pco's header.
const PACKED_VALUES_MIN: usize = 64;
/// Columns that take fewer bytes a value are not tried with pco.
const PACKED_TRY_BYTES: usize = 4;
const PACKED_LEVEL: usize = 8;

/// Special values that occur often have a kind of their own.
const KINDS: [u64; 5] = [
    STALE_NAN_BITS,
    // Go's NaN, infinities, minus zero.
    0x7ff8_0000_0000_0001,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x8000_0000_0000_0000,
];

/// How much to spend on a smaller column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Effort {
    /// Decimals in frames; pco only where there are no decimals.
    Fast,
    /// Also decimals through pco, for blocks that are kept long.
    Small,
}

/// Appends a column.
pub(in super::super) fn encode(values: &[f64], effort: Effort, out: &mut Vec<u8>) {
    let Some((first, rest)) = values.split_first() else { return };
    if rest.iter().all(|value| value.to_bits() == first.to_bits()) {
        encode_constant(*first, out);
        return;
    }
    let start = out.len();
    let decimals = Decimals::of(values);
    match &decimals {
        Some(decimals) => decimals.encode(out),
        None => encode_bits(values, out),
    }
    let bytes = out.len() - start;
    let wasteful = bytes > values.len() * PACKED_TRY_BYTES;
    let worth_it = wasteful || (effort == Effort::Small && bytes * 4 > values.len());
    if worth_it
        && values.len() >= PACKED_VALUES_MIN
        && let Some(packed) = pack(values).filter(|packed| packed.len() < bytes * 9 / 10)
    {
        out.truncate(start);
        out.push(PACKED);
        out.extend_from_slice(&packed);
    }
}

fn encode_constant(value: f64, out: &mut Vec<u8>) {
    let found = (0..=EXPONENT_MAX).find_map(|exponent| Some((exponent, mantissa(value, exponent)?)));
    if let Some((exponent, mantissa)) = found.filter(|(_, mantissa)| mantissa.unsigned_abs() < 1 << 40) {
        out.extend([CONSTANT_DECIMAL, exponent]);
        put_ivarint(out, mantissa);
    } else {
        out.push(CONSTANT);
        out.extend(value.to_bits().to_le_bytes());
    }
}

fn encode_bits(values: &[f64], out: &mut Vec<u8>) {
    out.push(BITS);
    let bits: Vec<i64> = values.iter().map(|value| value.to_bits().cast_signed()).collect();
    ints::encode(&bits, out);
}

/// The column as the pco crate packs it, if that gives the same bits back.
fn pack(values: &[f64]) -> Option<Vec<u8>> {
    let config = pco::ChunkConfig::default().with_compression_level(PACKED_LEVEL);
    let packed = pco::standalone::simple_compress(values, &config).ok()?;
    let back: Vec<f64> = pco::standalone::simple_decompress(&packed).ok()?;
    let same = back.len() == values.len() && back.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits());
    same.then_some(packed)
}

/// A column as mantissas of one exponent.
struct Decimals {
    exponent: u8,
    mantissas: Vec<i64>,
    specials: Vec<(usize, u64)>,
}

impl Decimals {
    /// `None` when too many values are no decimals.
    fn of(values: &[f64]) -> Option<Self> {
        let specials_max = values.len() / SPECIALS_ONE_IN;
        let mut found = Self { exponent: 0, mantissas: Vec::with_capacity(values.len()), specials: Vec::new() };
        for (position, value) in values.iter().enumerate() {
            if let Some(mantissa) = found.fit(*value) {
                found.mantissas.push(mantissa);
                continue;
            }
            found.specials.push((position, value.to_bits()));
            if found.specials.len() > specials_max {
                return None;
            }
            found.mantissas.push(found.mantissas.last().copied().unwrap_or(0));
        }
        Some(found)
    }

    /// The value's mantissa, with a larger exponent than before if it needs one.
    fn fit(&mut self, value: f64) -> Option<i64> {
        if let Some(mantissa) = mantissa(value, self.exponent) {
            return Some(mantissa);
        }
        if !value.is_finite() {
            return None;
        }
        let larger = self.exponent + 1..=EXPONENT_MAX;
        let (exponent, fitted) = larger.into_iter().find_map(|e| Some((e, mantissa(value, e)?)))?;
        let factor = 10i64.checked_pow(u32::from(exponent - self.exponent))?;
        let scaled = |mantissa: &i64| mantissa.checked_mul(factor).filter(|m| m.abs() as f64 <= MANTISSA_MAX);
        let rescaled: Option<Vec<i64>> = self.mantissas.iter().map(scaled).collect();
        self.mantissas = rescaled?;
        self.mantissas.reserve(1);
        self.exponent = exponent;
        Some(fitted)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend([DECIMAL, self.exponent]);
        put_uvarint(out, self.specials.len() as u64);
        let mut before = 0;
        for (position, bits) in &self.specials {
            put_uvarint(out, (position - before) as u64);
            before = *position;
            if let Some((kind, _)) = (0u8..).zip(KINDS).find(|(_, known)| known == bits) {
                out.push(kind);
            } else {
                out.push(u8::MAX);
                out.extend(bits.to_le_bytes());
            }
        }
        ints::encode(&self.mantissas, out);
    }
}

/// Reads a column of `count` values onto `out`. The bytes must hold nothing else.
pub(in super::super) fn decode(bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Option<()> {
    if count == 0 {
        return bytes.is_empty().then_some(());
    }
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        CONSTANT => {
            let value = f64::from_bits(reader.u64_le()?);
            out.extend(std::iter::repeat_n(value, count));
        }
        CONSTANT_DECIMAL => {
            let exponent = reader.u8().filter(|exponent| *exponent <= EXPONENT_MAX)?;
            let value = from_mantissa(reader.ivarint()?, exponent);
            out.extend(std::iter::repeat_n(value, count));
        }
        DECIMAL => decode_decimals(&mut reader, count, out)?,
        BITS => {
            let mut bits = Vec::new();
            ints::decode(&mut reader, count, &mut bits)?;
            out.extend(bits.into_iter().map(|bits| f64::from_bits(bits.cast_unsigned())));
        }
        PACKED => return unpack(reader.rest(), count, out),
        _ => return None,
    }
    reader.is_empty().then_some(())
}

fn decode_decimals(reader: &mut Reader<'_>, count: usize, out: &mut Vec<f64>) -> Option<()> {
    let exponent = reader.u8().filter(|exponent| *exponent <= EXPONENT_MAX)?;
    let mut specials = Vec::new();
    let mut position = 0usize;
    for _ in 0..reader.count()? {
        position = position.checked_add(usize::try_from(reader.uvarint()?).ok()?)?;
        let bits = match reader.u8()? {
            u8::MAX => reader.u64_le()?,
            kind => *KINDS.get(usize::from(kind))?,
        };
        specials.push((position, bits));
    }
    let mut mantissas = Vec::new();
    ints::decode(reader, count, &mut mantissas)?;
    let start = out.len();
    if exponent == 0 {
        out.extend(mantissas.iter().map(|mantissa| *mantissa as f64));
    } else {
        out.extend(mantissas.iter().map(|mantissa| from_mantissa(*mantissa, exponent)));
    }
    for (position, bits) in specials {
        *out.get_mut(start + position)? = f64::from_bits(bits);
    }
    Some(())
}

/// Reads a pco chunk; memory is bounded by `count`, whatever the bytes claim.
fn unpack(bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Option<()> {
    let start = out.len();
    out.resize(start + count, 0.0);
    let progress = pco::standalone::simple_decompress_into(bytes, out.get_mut(start..)?).ok();
    let complete = progress.is_some_and(|progress| progress.n_processed == count && progress.finished);
    if !complete {
        out.truncate(start);
    }
    complete.then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::STALE_NAN;
    use proptest::prelude::*;

    fn round_trip(values: &[f64], effort: Effort) -> usize {
        let mut bytes = Vec::new();
        encode(values, effort, &mut bytes);
        let mut out = Vec::new();
        decode(&bytes, values.len(), &mut out).unwrap();
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&out), bits(values));
        bytes.len()
    }

    #[test]
    fn special_values_keep_their_bits() {
        let specials = [0.0, -0.0, f64::NAN, STALE_NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324, f64::MAX, -1.5];
        round_trip(&specials, Effort::Small);
        for special in specials.into_iter().chain([f64::from_bits(0x7ff0_dead_beef_0001)]) {
            round_trip(&[special], Effort::Fast);
            let mut values: Vec<f64> = (0..200).map(f64::from).collect();
            values[77] = special;
            values[78] = special;
            assert!(round_trip(&values, Effort::Fast) < 60, "{special}");
        }
    }

    #[test]
    fn decimals_of_mixed_digits_stay_decimals() {
        let values: Vec<f64> =
            (0u16..480).map(|i| f64::from(i) * 37.0 / [1.0, 10.0, 100.0][usize::from(i % 3)]).collect();
        assert!(round_trip(&values, Effort::Fast) < 480 * 3);
    }

    #[test]
    fn ratios_are_packed() {
        let values: Vec<f64> = (0..1000).map(|i| f64::from((i * 7919) % 400) / 15.0).collect();
        assert!(round_trip(&values, Effort::Fast) < 1000 * 3);
    }

    #[test]
    fn a_packed_column_that_claims_more_values_is_damage() {
        let values: Vec<f64> = (0..1000).map(|i| f64::from(i).sqrt()).collect();
        let packed = pack(&values).unwrap();
        for count in [0, 1, 999, 1001] {
            assert_eq!(unpack(&packed, count, &mut Vec::new()), None, "{count}");
        }
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (-1_000_000i64..1_000_000, 0u8..5).prop_map(|(m, e)| from_mantissa(m, e)),
            2 => any::<u64>().prop_map(f64::from_bits),
            1 => Just(STALE_NAN),
            1 => Just(-0.0),
            2 => (0i64..1 << 55).prop_map(|m| m as f64),
        ]
    }

    proptest! {
        #[test]
        fn any_values_come_back(values in prop::collection::vec(any_value(), 0..600)) {
            round_trip(&values, Effort::Fast);
            round_trip(&values, Effort::Small);
        }

        #[test]
        fn any_bits_come_back(values in prop::collection::vec(any::<u64>().prop_map(f64::from_bits), 0..300)) {
            round_trip(&values, Effort::Small);
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0usize..2000) {
            let mut out = Vec::new();
            let _ = decode(&bytes, count, &mut out);
            prop_assert!(out.len() <= count);
        }
    }
}
