//! Prometheus remote write 1.0: a snappy block of a protobuf message.
//!
//! Bounds: the decompressed size is checked before memory is taken, since the header may lie. Histograms and exemplars
//! are not decoded; their number is reported so that the caller can refuse them openly.

mod walk;

use prost::Message;

use crate::model::labels::METRIC_NAME;
use crate::model::{Labels, Sample, Timestamp};

pub use walk::{WalkedRequest, put_labels, read_labels, walk};

/// Larger messages are refused.
pub const DECOMPRESSED_BYTES_MAX: usize = 32 << 20;

/// Why a request cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RemoteWriteError {
    #[error("the request is not a snappy block")]
    Snappy(#[source] snap::Error),
    #[error(
        "the request decompresses to {bytes} bytes; at most {DECOMPRESSED_BYTES_MAX} are taken, send smaller batches"
    )]
    TooLarge { bytes: usize },
    #[error("the request is not a prometheus.WriteRequest")]
    Protobuf(#[source] prost::DecodeError),
    #[error("the request is not a prometheus.WriteRequest; its protobuf is damaged")]
    NoRequest,
}

/// What a request holds.
#[derive(Clone, Debug, Default)]
pub struct WriteRequest {
    pub samples: Vec<Sample>,
    /// Series that were left out, each with its reason.
    pub invalid_series: Vec<String>,
    pub histograms: usize,
    pub exemplars: usize,
}

#[derive(Clone, PartialEq, Message)]
struct WireRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<WireSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct WireSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<WireLabel>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<WireSample>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    exemplars: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    histograms: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct WireLabel {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct WireSample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp_ms: i64,
}

/// Takes the compression off a request's body.
pub fn decompress(body: &[u8]) -> Result<Vec<u8>, RemoteWriteError> {
    let bytes = snap::raw::decompress_len(body).map_err(RemoteWriteError::Snappy)?;
    if bytes > DECOMPRESSED_BYTES_MAX {
        return Err(RemoteWriteError::TooLarge { bytes });
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(RemoteWriteError::Snappy)
}

/// Reads a request's body.
pub fn decode(body: &[u8]) -> Result<WriteRequest, RemoteWriteError> {
    let plain = decompress(body)?;
    let wire = WireRequest::decode(plain.as_slice()).map_err(RemoteWriteError::Protobuf)?;
    let mut request = WriteRequest::default();
    for series in wire.timeseries {
        request.histograms += series.histograms.len();
        request.exemplars += series.exemplars.len();
        match labels_of(&series) {
            Ok(labels) => {
                request.samples.extend(series.samples.iter().map(|sample| {
                    Sample::new(labels.clone(), Timestamp::from_millis(sample.timestamp_ms), sample.value)
                }));
            }
            Err(why) => request.invalid_series.push(why),
        }
    }
    Ok(request)
}

fn labels_of(series: &WireSeries) -> Result<Labels, String> {
    let pairs = series.labels.iter().map(|label| (label.name.as_str(), label.value.as_str()));
    let labels = Labels::from_pairs(pairs.clone());
    if labels.get(METRIC_NAME).is_none() {
        return Err(format!("series {labels} has no metric name"));
    }
    if pairs.clone().any(|(name, _)| name.is_empty()) {
        return Err(format!("series {labels} has an empty label name"));
    }
    let mut names: Vec<&str> = pairs.map(|(name, _)| name).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair.first() == pair.get(1)) {
        return Err(format!("series {labels} has a label name twice"));
    }
    Ok(labels)
}

/// Writes a request's body; what the agent and tests send.
pub fn encode(samples: &[Sample]) -> Result<Vec<u8>, RemoteWriteError> {
    let series = |sample: &Sample| WireSeries {
        labels: sample
            .labels
            .iter()
            .map(|(name, value)| WireLabel { name: name.to_owned(), value: value.to_owned() })
            .collect(),
        samples: vec![WireSample { value: sample.value, timestamp_ms: sample.at.millis() }],
        exemplars: Vec::new(),
        histograms: Vec::new(),
    };
    let request = WireRequest { timeseries: samples.iter().map(series).collect() };
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).map_err(RemoteWriteError::Snappy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn samples_come_back() {
        let samples = vec![
            Sample::new(Labels::metric("up", &[("job", "a")]), Timestamp::from_millis(1000), 1.0),
            Sample::new(Labels::metric("up", &[("job", "b")]), Timestamp::from_millis(2000), f64::NAN),
        ];
        assert_eq!(decode(&encode(&samples).unwrap()).unwrap().samples, samples);
    }

    #[test]
    fn a_lying_header_takes_no_memory() {
        // Claims 4 GiB - 1 and holds nothing.
        let error = decode(&[0xff, 0xff, 0xff, 0xff, 0x0f]).unwrap_err();
        assert!(matches!(error, RemoteWriteError::TooLarge { .. }), "{error:?}");
    }

    #[test]
    fn a_series_without_a_name_is_named_and_the_rest_is_kept() {
        let samples = vec![
            Sample::new(Labels::from_pairs([("job", "a")]), Timestamp::from_millis(1000), 1.0),
            Sample::new(Labels::metric("up", &[]), Timestamp::from_millis(1000), 1.0),
        ];
        let request = decode(&encode(&samples).unwrap()).unwrap();
        assert_eq!(request.samples.len(), 1);
        assert_eq!(request.invalid_series, [r#"series {job="a"} has no metric name"#]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(decode(&bytes));
        }
    }
}
