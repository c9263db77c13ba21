//! Loki's push request: JSON, or a snappy block of a protobuf message.
//!
//! Bounds: decompressed bytes and the number of entries are checked before memory is taken for them. What a shipper may
//! have got wrong without losing its meaning (odd label names, numbers as metadata) is mended, since a shipper drops
//! what is refused. A timestamp that is no string of nanoseconds is refused: clients rely on it.

use std::collections::HashSet;
use std::fmt;
use std::io::Read as _;

use prost::Message;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;

use crate::model::{Labels, LogRecord, Timestamp};

/// Larger requests, decompressed, are refused.
pub const DECOMPRESSED_BYTES_MAX: usize = 32 << 20;
/// Requests with more entries are refused.
pub const ENTRIES_MAX: usize = 500_000;

/// Why a request cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LokiPushError {
    #[error("content encoding {encoding:?} is not supported; send snappy, gzip or deflate")]
    Encoding { encoding: String },
    #[error("decompress the request")]
    Decompress(#[source] std::io::Error),
    #[error("the request is not a snappy block")]
    Snappy(#[source] snap::Error),
    #[error(
        "the request holds more than {DECOMPRESSED_BYTES_MAX} bytes or {ENTRIES_MAX} entries; send smaller batches"
    )]
    TooLarge,
    #[error("the request is not a logproto.PushRequest")]
    Protobuf(#[source] prost::DecodeError),
    #[error("the request is not a push in JSON")]
    Json(#[source] serde_json::Error),
    #[error("cannot parse the labels {labels:?} at byte {at}: {problem}")]
    Labels { labels: String, at: usize, problem: &'static str },
}

/// Reads a request's body, given its `Content-Type` and `Content-Encoding` ("" where there is none).
pub fn decode(body: &[u8], content_type: &str, encoding: &str) -> Result<Vec<LogRecord>, LokiPushError> {
    let inflated = match encoding.trim() {
        // Protobuf is always a snappy block, so the word adds nothing.
        "" | "identity" | "snappy" => None,
        "gzip" => Some(read_bounded(flate2::read::MultiGzDecoder::new(body))?),
        "deflate" if is_zlib(body) => Some(read_bounded(flate2::read::ZlibDecoder::new(body))?),
        "deflate" => Some(read_bounded(flate2::read::DeflateDecoder::new(body))?),
        other => return Err(LokiPushError::Encoding { encoding: other.chars().take(64).collect() }),
    };
    let body = inflated.as_deref().unwrap_or(body);
    let kind = content_type.split(';').next().unwrap_or("").trim();
    if kind.eq_ignore_ascii_case("application/json") { decode_json(body) } else { decode_protobuf(body) }
}

fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [first, second, ..] if first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0)
}

fn read_bounded(source: impl std::io::Read) -> Result<Vec<u8>, LokiPushError> {
    let mut bytes = Vec::new();
    let mut bounded = source.take(DECOMPRESSED_BYTES_MAX as u64 + 1);
    bounded.read_to_end(&mut bytes).map_err(LokiPushError::Decompress)?;
    if bytes.len() > DECOMPRESSED_BYTES_MAX { Err(LokiPushError::TooLarge) } else { Ok(bytes) }
}

#[derive(Clone, PartialEq, Message)]
struct WireRequest {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<WireStream>,
}

#[derive(Clone, PartialEq, Message)]
struct WireStream {
    #[prost(string, tag = "1")]
    labels: String,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<WireEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct WireEntry {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<WireTime>,
    #[prost(bytes = "vec", tag = "2")]
    line: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<WirePair>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct WireTime {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct WirePair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// Reads a snappy block of a `PushRequest`. Lines that are not UTF-8 get replacement characters.
pub fn decode_protobuf(body: &[u8]) -> Result<Vec<LogRecord>, LokiPushError> {
    let bytes = snap::raw::decompress_len(body).map_err(LokiPushError::Snappy)?;
    if bytes > DECOMPRESSED_BYTES_MAX {
        return Err(LokiPushError::TooLarge);
    }
    let plain = snap::raw::Decoder::new().decompress_vec(body).map_err(LokiPushError::Snappy)?;
    let request = WireRequest::decode(plain.as_slice()).map_err(LokiPushError::Protobuf)?;
    bound_entries(request.streams.iter().map(|stream| stream.entries.len()))?;
    let mut records = Vec::new();
    for stream in request.streams {
        let labels = parse_labels(&stream.labels)?;
        records.extend(stream.entries.into_iter().map(|entry| {
            let time = entry.timestamp.unwrap_or_default();
            let nanos = time.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanos));
            LogRecord {
                at: Timestamp::from_nanos(nanos),
                stream: labels.clone(),
                line: text(entry.line),
                fields: fields(entry.metadata.into_iter().map(|pair| (pair.name, pair.value))),
            }
        }));
    }
    Ok(records)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn bound_entries(streams: impl Iterator<Item = usize>) -> Result<(), LokiPushError> {
    if streams.sum::<usize>() > ENTRIES_MAX { Err(LokiPushError::TooLarge) } else { Ok(()) }
}

/// Names made label names, the last value of a name, empty values dropped.
fn fields(pairs: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> =
        pairs.map(|(name, value)| (label_name(&name), value)).filter(|(_, value)| !value.is_empty()).collect();
    let mut seen = HashSet::new();
    let keep: Vec<bool> = all.iter().rev().map(|(name, _)| seen.insert(name.clone())).collect();
    let mut keep = keep.into_iter().rev();
    all.retain(|_| keep.next().unwrap_or(true));
    all
}

/// The name with everything that a label name may not hold as `_`.
fn label_name(name: &str) -> String {
    let mut clean: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if !clean.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        clean.insert(0, '_');
    }
    clean
}

#[derive(Deserialize)]
struct JsonRequest {
    streams: Vec<JsonStream>,
}

#[derive(Deserialize)]
struct JsonStream {
    #[serde(default)]
    stream: serde_json::Map<String, Value>,
    #[serde(default)]
    values: Vec<JsonEntry>,
}

struct JsonEntry {
    at: Timestamp,
    line: String,
    metadata: serde_json::Map<String, Value>,
}

impl<'de> Deserialize<'de> for JsonEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl<'de> Visitor<'de> for Entry {
            type Value = JsonEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[\"nanoseconds\", \"line\", {\"name\": \"value\"}]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entry: A) -> Result<JsonEntry, A::Error> {
                let missing = |at| move || de::Error::invalid_length(at, &Entry);
                let time: String = entry.next_element()?.ok_or_else(missing(0))?;
                let line = entry.next_element()?.ok_or_else(missing(1))?;
                let metadata: Option<Option<_>> = entry.next_element()?;
                while entry.next_element::<IgnoredAny>()?.is_some() {}
                let nanos = time.parse().map_err(|_| {
                    de::Error::custom(format_args!("the time {time:?} is not nanoseconds since the epoch"))
                })?;
                let metadata = metadata.flatten().unwrap_or_default();
                Ok(JsonEntry { at: Timestamp::from_nanos(nanos), line, metadata })
            }
        }
        deserializer.deserialize_seq(Entry)
    }
}

/// Reads `{"streams": [{"stream": {…}, "values": [["ns", "line", {…}], …]}, …]}`.
pub fn decode_json(body: &[u8]) -> Result<Vec<LogRecord>, LokiPushError> {
    if body.len() > DECOMPRESSED_BYTES_MAX {
        return Err(LokiPushError::TooLarge);
    }
    let request: JsonRequest = serde_json::from_slice(body).map_err(LokiPushError::Json)?;
    bound_entries(request.streams.iter().map(|stream| stream.values.len()))?;
    let mut records = Vec::new();
    for stream in request.streams {
        let labels = Labels::from_pairs(fields(plain(stream.stream)));
        records.extend(stream.values.into_iter().map(|entry| LogRecord {
            at: entry.at,
            stream: labels.clone(),
            line: entry.line,
            fields: fields(plain(entry.metadata)),
        }));
    }
    Ok(records)
}

fn plain(pairs: serde_json::Map<String, Value>) -> impl Iterator<Item = (String, String)> {
    pairs.into_iter().map(|(name, value)| match value {
        Value::String(value) => (name, value),
        Value::Null => (name, String::new()),
        other => (name, other.to_string()),
    })
}

/// Parses `{a="1", b="2"}` with Go's string escapes.
pub fn parse_labels(text: &str) -> Result<Labels, LokiPushError> {
    let mut cursor = Cursor { text, at: 0 };
    let mut pairs = Vec::new();
    cursor.expect('{', "expected {")?;
    loop {
        if cursor.take('}') {
            break;
        }
        let name = cursor.name()?;
        cursor.expect('=', "expected =")?;
        pairs.push((label_name(&name), cursor.string()?));
        if !cursor.take(',') {
            cursor.expect('}', "expected , or }")?;
            break;
        }
    }
    cursor.skip_blank();
    if cursor.rest().is_empty() { Ok(Labels::from_pairs(pairs)) } else { Err(cursor.error("text after }")) }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn error(&self, problem: &'static str) -> LokiPushError {
        LokiPushError::Labels { labels: self.text.chars().take(200).collect(), at: self.at, problem }
    }

    fn skip_blank(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, wanted: char) -> bool {
        self.skip_blank();
        let found = self.rest().starts_with(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn expect(&mut self, wanted: char, problem: &'static str) -> Result<(), LokiPushError> {
        if self.take(wanted) { Ok(()) } else { Err(self.error(problem)) }
    }

    fn name(&mut self) -> Result<String, LokiPushError> {
        self.skip_blank();
        if self.rest().starts_with('"') {
            return self.string();
        }
        let rest = self.rest();
        let end = rest.find(|c: char| c == '=' || c == '"' || c == '}' || c == ',' || c.is_whitespace());
        let name = rest.get(..end.unwrap_or(rest.len())).unwrap_or("");
        if name.is_empty() {
            return Err(self.error("expected a label name"));
        }
        self.at += name.len();
        Ok(name.to_owned())
    }

    fn string(&mut self) -> Result<String, LokiPushError> {
        if self.take('`') {
            let end = self.rest().find('`').ok_or_else(|| self.error("unterminated string"))?;
            let raw = self.rest().get(..end).unwrap_or("").to_owned();
            self.at += end + 1;
            return Ok(raw);
        }
        self.expect('"', "expected a quoted value")?;
        let mut bytes = Vec::new();
        loop {
            let Some(c) = self.next() else { return Err(self.error("unterminated string")) };
            match c {
                '"' => return Ok(text(bytes)),
                '\\' => self.escape(&mut bytes)?,
                other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), LokiPushError> {
        let simple = match self.next() {
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('r') => b'\r',
            Some('a') => 7,
            Some('b') => 8,
            Some('f') => 12,
            Some('v') => 11,
            Some(c @ ('\\' | '"' | '\'')) => c as u8,
            Some('x') => u8::try_from(self.digits(2, 16)?).unwrap_or(b'?'),
            Some(c @ '0'..='7') => {
                self.at -= c.len_utf8();
                u8::try_from(self.digits(3, 8)?).map_err(|_| self.error("octal escape over 377"))?
            }
            Some(c @ ('u' | 'U')) => {
                let code = self.digits(if c == 'u' { 4 } else { 8 }, 16)?;
                let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.error("unknown escape")),
        };
        bytes.push(simple);
        Ok(())
    }

    fn digits(&mut self, count: usize, radix: u32) -> Result<u32, LokiPushError> {
        let digits = self.rest().get(..count).filter(|digits| digits.chars().all(|c| c.is_digit(radix)));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, radix).ok());
        let code = code.ok_or_else(|| self.error("bad escape"))?;
        self.at += count;
        Ok(code)
    }
}

/// The stream with a `service_name`: its own, or else the value of the first of the labels that it has.
#[must_use]
pub fn with_service_name(stream: &Labels, labels: &[String]) -> Labels {
    if stream.get("service_name").is_some() {
        return stream.clone();
    }
    let service = labels.iter().find_map(|name| stream.get(name)).unwrap_or("unknown_service");
    stream.with("service_name", service)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn record(nanos: i64, stream: &[(&str, &str)], line: &str, fields: &[(&str, &str)]) -> LogRecord {
        LogRecord {
            at: Timestamp::from_nanos(nanos),
            stream: Labels::from_pairs(stream.iter().copied()),
            line: line.to_owned(),
            fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    const JSON: &[u8] = br#"{"streams": [
        {"stream": {"cluster": "demo", "bad-name": "x", "none": ""},
         "values": [["1700000000000000001", "one"], ["2", "two", {"pid": "7", "n": 5, "0": "z"}], ["3", "three", null]]},
        {"stream": {}, "values": []}]}"#;

    fn json_records() -> Vec<LogRecord> {
        let stream = [("bad_name", "x"), ("cluster", "demo")];
        vec![
            record(1_700_000_000_000_000_001, &stream, "one", &[]),
            record(2, &stream, "two", &[("pid", "7"), ("n", "5"), ("_0", "z")]),
            record(3, &stream, "three", &[]),
        ]
    }

    fn protobuf(labels: &str) -> Vec<u8> {
        let pair = |name: &str, value: &str| WirePair { name: name.to_owned(), value: value.to_owned() };
        let entry = WireEntry {
            timestamp: Some(WireTime { seconds: 1, nanos: 5 }),
            line: b"caf\xe9".to_vec(),
            metadata: vec![pair("pid", "1"), pair("user", "u"), pair("pid", "2")],
        };
        let request = WireRequest { streams: vec![WireStream { labels: labels.to_owned(), entries: vec![entry] }] };
        snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap()
    }

    #[test]
    fn json_is_read_in_every_encoding() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(JSON).unwrap();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(JSON).unwrap();
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        raw.write_all(JSON).unwrap();
        let bodies = [
            ("", JSON.to_vec()),
            ("gzip", gzip.finish().unwrap()),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", raw.finish().unwrap()),
        ];
        for (encoding, body) in bodies {
            let records = decode(&body, "application/json; charset=utf-8", encoding).unwrap();
            assert_eq!(records, json_records(), "{encoding}");
        }
    }

    #[test]
    fn protobuf_is_what_has_no_other_type() {
        let body = protobuf(r#"{cluster="de\"mo\u00e9", member=`n1`,}"#);
        for kind in ["", "application/x-protobuf", "text/plain"] {
            let records = decode(&body, kind, "").unwrap();
            let stream = [("cluster", "de\"mo\u{e9}"), ("member", "n1")];
            let fields = [("user", "u"), ("pid", "2")];
            assert_eq!(records, [record(1_000_000_005, &stream, "caf\u{fffd}", &fields)], "{kind}");
        }
    }

    #[test]
    fn bad_requests_say_what_is_wrong() {
        let json = |body: &str| decode(body.as_bytes(), "application/json", "").unwrap_err();
        assert!(matches!(json("{"), LokiPushError::Json(_)));
        assert!(matches!(json(r#"{"streams": [{"stream": {}, "values": [[5, "x"]]}]}"#), LokiPushError::Json(_)));
        assert!(matches!(json(r#"{"streams": [{"stream": {}, "values": [["5"]]}]}"#), LokiPushError::Json(_)));
        let error = json(r#"{"streams": [{"stream": {}, "values": [["1.5", "x"]]}]}"#);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("the time \"1.5\" is not nanoseconds"), "{source}");
        assert!(matches!(decode(b"x", "", "zstd"), Err(LokiPushError::Encoding { .. })));
        assert!(matches!(decode(b"x", "application/json", "gzip"), Err(LokiPushError::Decompress(_))));
        assert!(matches!(decode(b"\xff\xff\xff", "", ""), Err(LokiPushError::Snappy(_))));
        // A header that promises 1 GiB.
        assert!(matches!(decode(b"\x80\x80\x80\x80\x04x", "", ""), Err(LokiPushError::TooLarge)));
        for (labels, problem) in [
            ("", "expected {"),
            ("{a}", "expected ="),
            ("{a=b}", "expected a quoted value"),
            (r#"{a="b"#, "unterminated string"),
            (r#"{a="b"} x"#, "text after }"),
            (r#"{a="\q"}"#, "unknown escape"),
            (r#"{a="\u12"}"#, "bad escape"),
            (r#"{="x"}"#, "expected a label name"),
            (r#"{a="b" c="d"}"#, "expected , or }"),
        ] {
            let error = decode(&protobuf(labels), "", "").unwrap_err().to_string();
            assert!(error.ends_with(problem), "{labels}: {error}");
        }
    }

    #[test]
    fn bombs_are_bounded() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let block = vec![b' '; 1 << 20];
        for _ in 0..=DECOMPRESSED_BYTES_MAX >> 20 {
            gzip.write_all(&block).unwrap();
        }
        let bomb = gzip.finish().unwrap();
        assert!(matches!(decode(&bomb, "application/json", "gzip"), Err(LokiPushError::TooLarge)));
    }

    #[test]
    fn a_service_is_named() {
        for (pairs, name) in [
            (vec![("job", "j"), ("app", "a")], "a"),
            (vec![("service_name", "s"), ("app", "a")], "s"),
            (vec![("cluster", "demo")], "unknown_service"),
        ] {
            let labels = ["app".to_owned(), "job".to_owned()];
            let stream = with_service_name(&Labels::from_pairs(pairs), &labels);
            assert_eq!(stream.get("service_name"), Some(name));
        }
    }
}
