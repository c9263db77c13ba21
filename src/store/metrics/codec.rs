//! Column codecs: timestamps and values of many samples of one series, bit-exact and small.
//!
//! - [`ints`]: any `i64` column, in patched frames of 128.
//! - [`values`]: any `f64` column, as decimal mantissas in such frames where that is exact, else as what is smallest.
//! - [`stream`]: values as they come, one at a time, cheap to append to; what the head holds.
//!
//! Invariant: decoding takes any bytes and answers `None` for what no encoder wrote, or some values; it never panics and
//! never takes more memory than the number of values asked for.

pub(super) mod ints;
pub(super) mod stream;
pub(super) mod values;

/// Largest decimal exponent tried: further ones are exact for hardly any double.
const EXPONENT_MAX: u8 = 15;
/// Powers of ten that doubles hold exactly.
const POWERS: [f64; EXPONENT_MAX as usize + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
/// Mantissas beyond this are not told apart by doubles.
const MANTISSA_MAX: f64 = 9_007_199_254_740_991.0;

/// The integer `m` with `m / 10^exponent == value`, bit for bit, if there is one.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the magnitude is checked first")]
fn mantissa(value: f64, exponent: u8) -> Option<i64> {
    let power = POWERS.get(usize::from(exponent))?;
    let scaled = value * power;
    if scaled.is_nan() || scaled.abs() > MANTISSA_MAX {
        return None;
    }
    let mantissa = (scaled + 0.5f64.copysign(scaled)) as i64;
    (from_mantissa(mantissa, exponent).to_bits() == value.to_bits()).then_some(mantissa)
}

#[inline]
fn from_mantissa(mantissa: i64, exponent: u8) -> f64 {
    mantissa as f64 / POWERS.get(usize::from(exponent)).copied().unwrap_or(1.0)
}
