//! A request read in place: samples with the bytes of their labels, which the store mostly knows and need not be read.

use prost::Message as _;

use super::{RemoteWriteError, WireSeries, labels_of};
use crate::model::Labels;

/// What a request holds; labels lie in the decompressed bytes.
#[derive(Clone, Debug, Default)]
pub struct WalkedRequest<'a> {
    /// Label bytes, time in milliseconds, value.
    pub samples: Vec<(&'a [u8], i64, f64)>,
    pub histograms: usize,
    pub exemplars: usize,
}

/// A wire type of protobuf.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads fields one after the other; `None` when the bytes are no message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next field's number and value.
    fn next(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Number(u64::from(u32::from_le_bytes(self.take(4)?.try_into().ok()?))),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

/// Reads a decompressed request.
pub fn walk(plain: &[u8]) -> Result<WalkedRequest<'_>, RemoteWriteError> {
    walk_fields(plain).ok_or(RemoteWriteError::NoRequest)
}

fn walk_fields(plain: &[u8]) -> Option<WalkedRequest<'_>> {
    // A sample takes about so many bytes with its labels.
    let mut request = WalkedRequest { samples: Vec::with_capacity(plain.len() / 128), ..WalkedRequest::default() };
    let mut fields = Fields(plain);
    while !fields.0.is_empty() {
        match fields.next()? {
            (1, Value::Bytes(series)) => walk_series(series, &mut request)?,
            (1, Value::Number(_)) => return None,
            _ => {}
        }
    }
    Some(request)
}

fn walk_series<'a>(series: &'a [u8], request: &mut WalkedRequest<'a>) -> Option<()> {
    let mut fields = Fields(series);
    let first = request.samples.len();
    // From the first label to the end of the last one.
    let mut labels: Option<(usize, usize)> = None;
    let mut others_inside = false;
    while !fields.0.is_empty() {
        let begin = series.len() - fields.0.len();
        match fields.next()? {
            (1, Value::Bytes(_)) => {
                let end = series.len() - fields.0.len();
                others_inside |= labels.is_some_and(|(_, before)| before != begin);
                labels = Some((labels.map_or(begin, |(start, _)| start), end));
            }
            (2, Value::Bytes(sample)) => {
                let (at_ms, value) = walk_sample(sample)?;
                request.samples.push((&[], at_ms, value));
            }
            (3, Value::Bytes(_)) => request.exemplars += 1,
            (4, Value::Bytes(_)) => request.histograms += 1,
            (1..=4, Value::Number(_)) => return None,
            _ => {}
        }
    }
    // Where labels do not lie together, the whole series is taken for them; `read_labels` copes with both.
    let (start, end) = if others_inside { (0, series.len()) } else { labels.unwrap_or((0, 0)) };
    let labels = series.get(start..end)?;
    request.samples.get_mut(first..)?.iter_mut().for_each(|sample| sample.0 = labels);
    Some(())
}

fn walk_sample(sample: &[u8]) -> Option<(i64, f64)> {
    let mut fields = Fields(sample);
    let (mut at_ms, mut value) = (0, 0.0);
    while !fields.0.is_empty() {
        match fields.next()? {
            (1, Value::Number(bits)) => value = f64::from_bits(bits),
            (2, Value::Number(number)) => at_ms = number.cast_signed(),
            (1 | 2, Value::Bytes(_)) => return None,
            _ => {}
        }
    }
    Some((at_ms, value))
}

/// Reads the labels of a walked sample; an error says what is wrong with them.
pub fn read_labels(bytes: &[u8]) -> Result<Labels, String> {
    let series = WireSeries::decode(bytes).map_err(|error| format!("a series cannot be read: {error}"))?;
    labels_of(&series)
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

fn varint_bytes(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Appends labels as remote write sends them: the bytes that a walked sample of these labels has.
pub fn put_labels(labels: &Labels, out: &mut Vec<u8>) {
    for (name, value) in labels.iter() {
        let length = 2 + varint_bytes(name.len()) + name.len() + varint_bytes(value.len()) + value.len();
        out.push(0x0a);
        put_varint(out, length);
        out.push(0x0a);
        put_varint(out, name.len());
        out.extend_from_slice(name.as_bytes());
        out.push(0x12);
        put_varint(out, value.len());
        out.extend_from_slice(value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{decode, decompress, encode};
    use super::*;
    use crate::model::{Sample, Timestamp};
    use proptest::prelude::*;

    fn samples() -> impl Strategy<Value = Vec<Sample>> {
        let labels = prop::collection::btree_map("[a-z_]{1,5}", "[ -~ü]{0,200}", 0..5);
        prop::collection::vec((labels, any::<i32>(), any::<u64>()), 0..20).prop_map(|list| {
            let sample = |(labels, at, bits): (std::collections::BTreeMap<String, String>, i32, u64)| {
                let labels = Labels::from_pairs(labels).with("__name__", "m");
                Sample::new(labels, Timestamp::from_millis(i64::from(at)), f64::from_bits(bits))
            };
            list.into_iter().map(sample).collect()
        })
    }

    proptest! {
        #[test]
        fn walking_finds_what_decoding_finds(samples in samples()) {
            let body = encode(&samples).unwrap();
            let plain = decompress(&body).unwrap();
            let walked = walk(&plain).unwrap();
            let read: Vec<Sample> = walked
                .samples
                .iter()
                .map(|(labels, at_ms, value)| Sample::new(read_labels(labels).unwrap(), Timestamp::from_millis(*at_ms), *value))
                .collect();
            prop_assert_eq!(&read, &decode(&body).unwrap().samples);
            for ((bytes, _, _), sample) in walked.samples.iter().zip(&samples) {
                let mut canonical = Vec::new();
                put_labels(&sample.labels, &mut canonical);
                prop_assert_eq!(*bytes, canonical.as_slice());
            }
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(walked) = walk(&bytes) {
                walked.samples.iter().for_each(|(labels, _, _)| drop(read_labels(labels)));
            }
        }
    }

    #[test]
    fn labels_that_do_not_lie_together_are_read() {
        // Label a="b", a sample at 5, label __name__="m".
        let sample = [0x12, 0x0b, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 5];
        let mut series = vec![0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'b'];
        series.extend(sample);
        series.extend([0x0a, 13, 0x0a, 8]);
        series.extend(b"__name__");
        series.extend([0x12, 1, b'm']);
        let mut plain = vec![0x0a, u8::try_from(series.len()).unwrap()];
        plain.extend(&series);
        let walked = walk(&plain).unwrap();
        let [(labels, 5, value)] = walked.samples.as_slice() else { panic!("{walked:?}") };
        assert_eq!(value.to_bits(), 1.0f64.to_bits());
        assert_eq!(read_labels(labels).unwrap(), Labels::metric("m", &[("a", "b")]));
    }
}
