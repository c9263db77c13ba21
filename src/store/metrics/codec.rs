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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::values::Effort;
    use super::{stream, values};

    fn scramble(seed: usize) -> u64 {
        let x = (seed as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^ (x >> 32)
    }

    /// A column that is made of the last value and a random number.
    fn column(count: usize, start: f64, step: impl Fn(f64, u64) -> f64) -> Vec<f64> {
        let mut value = start;
        (0..count)
            .map(|at| {
                value = step(value, scramble(at));
                value
            })
            .collect()
    }

    type Shape = (&'static str, fn(usize) -> Vec<f64>);

    const SHAPES: [Shape; 11] = [
        ("gauge, constant", |n| column(n, 4.0, |v, _| v)),
        ("counter, 90 % unchanged", |n| column(n, 1e6, |v, r| v + if r % 10 == 0 { (r >> 8) % 20 } else { 0 } as f64)),
        ("counter, bytes", |n| column(n, 1e9, |v, r| v + (1_000_000 + (r >> 8) % 1_000_000) as f64)),
        ("counter, transactions", |n| column(n, 1e7, |v, r| v + (1500 + (r >> 8) % 200) as f64)),
        ("counter, seconds of .01", |n| column(n, 5e5, |v, r| ((v * 100.0).round() + (1400 + r % 100) as f64) / 100.0)),
        ("counter, ms of .001", |n| column(n, 5e5, |v, r| ((v * 1e3).round() + (5000 + r % 2000) as f64) / 1e3)),
        ("gauge, pages", |n| column(n, 0.0, |_, r| (4096 * (1_000_000 + r % 400)) as f64)),
        ("gauge, small integer", |n| column(n, 0.0, |_, r| (20 + r % 24) as f64)),
        ("gauge of .001", |n| column(n, 0.0, |_, r| (10_000 + r % 16_000) as f64 / 1e3)),
        ("gauge, full precision", |n| column(n, 0.0, |_, r| 1.0 + (r >> 12) as f64 / 3e17)),
        ("x/15", |n| column(n, 0.0, |_, r| (r % 400) as f64 / 15.0)),
    ];

    /// Nanoseconds a value takes, the best of several runs.
    fn best_ns(values: usize, mut run: impl FnMut()) -> f64 {
        let times = (0..9).map(|_| {
            let started = tokio::time::Instant::now();
            run();
            started.elapsed().as_secs_f64() * 1e9 / values as f64
        });
        times.fold(f64::MAX, f64::min)
    }

    #[test]
    #[ignore = "prints what the codecs cost; cargo test --release --lib codec::tests::table -- --ignored --nocapture"]
    fn table() {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{:26} {:>6}  {:>24}  {:>24}  {:>24}", "B and ns a value", "values", "fast", "small", "stream")
            .unwrap();
        for count in [120, 480, 5760] {
            for (name, make) in SHAPES {
                let column = make(count);
                write!(out, "{name:26} {count:>6}").unwrap();
                for effort in [Effort::Fast, Effort::Small] {
                    let (mut bytes, mut back) = (Vec::new(), Vec::new());
                    let encode = best_ns(count, || {
                        bytes.clear();
                        values::encode(&column, effort, &mut bytes);
                    });
                    let decode = best_ns(count, || {
                        back.clear();
                        values::decode(&bytes, count, &mut back).unwrap();
                    });
                    assert_eq!(back, column);
                    let size = bytes.len() as f64 / count as f64;
                    write!(out, "  {size:>6.3} {encode:>8.1} {decode:>8.1}").unwrap();
                }
                let (mut bytes, mut back, mut tail) = (Vec::new(), Vec::new(), stream::Tail::default());
                let encode = best_ns(count, || {
                    bytes.clear();
                    tail = stream::Tail::default();
                    for (at, value) in column.iter().enumerate() {
                        tail.push(*value, at > 0, &mut bytes);
                    }
                });
                let decode = best_ns(count, || {
                    back.clear();
                    stream::decode(&bytes, tail.pending, count, &mut back).unwrap();
                });
                let size = bytes.len() as f64 / count as f64;
                writeln!(out, "  {size:>6.3} {encode:>8.1} {decode:>8.1}").unwrap();
            }
        }
    }
}
