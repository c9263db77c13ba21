//! What an agent pushes to its server, as bytes.
//!
//! A *frame body* is one [`Batch`] in a compact form (strings once, times as differences), compressed with lz4. The agent
//! spools frame bodies and sends them as they are. A *push* is a header and some frame bodies in order of their numbers.
//!
//! Invariants: decoding never panics and allocates no more than the stated limits, whatever the bytes; an unknown
//! version is an error that names both versions.

mod codec;

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::model::observation::Port;
use crate::model::{Batch, Labels, LogRecord, Observation, Sample, Timestamp};

pub use codec::DecodeError;
use codec::{Reader, Writer};

/// Path of the endpoint that takes pushes.
pub const PUSH_PATH: &str = "/api/daraji/v1/agent/push";
/// Content type of a push.
pub const PUSH_CONTENT_TYPE: &str = "application/x-daraji-push";
/// A push is never larger than this; servers may refuse more.
pub const PUSH_BYTES_MAX: usize = 32 << 20;

const PUSH_MAGIC: &[u8; 4] = b"DRJP";
const VERSION: u8 = 1;
/// Bytes of one frame after decompression.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// One message from an agent to its server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Push {
    /// Who sends: stable for the life of the host.
    pub agent: String,
    /// Changes when the agent's spool is created anew, and the frame numbers with it start over.
    pub generation: u64,
    pub cluster: String,
    pub member: String,
    /// The agent's clock when it sent this.
    pub sent_at: Timestamp,
    /// Not in every push.
    pub status: Option<AgentStatus>,
    /// In order of their numbers; may be empty, which says only "I live".
    pub frames: Vec<EncodedFrame>,
}

/// A numbered frame body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedFrame {
    pub seq: u64,
    /// As made by [`encode_batch`].
    pub body: Vec<u8>,
}

/// What an agent says about itself, for the Targets page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentStatus {
    pub version: String,
    /// Bytes that wait on the agent's disk.
    pub spool_bytes: u64,
    pub spool_bytes_max: u64,
    /// Samples that were thrown away because the spool was full.
    pub samples_dropped: u64,
    /// Frames that were given up because the server can never use them.
    pub frames_refused: u64,
    /// The server's clock minus the agent's, as the agent measured it at its last push.
    pub clock_offset_seconds: Option<f64>,
    /// How wrong that may be: half the time that the push took.
    pub clock_offset_error_seconds: Option<f64>,
    pub files: Vec<FileStatus>,
    /// Problems that belong to no file, such as a path that matches nothing.
    pub errors: Vec<String>,
}

/// One followed log file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileStatus {
    pub path: String,
    pub source: String,
    pub format: String,
    pub size_bytes: u64,
    /// Bytes whose records are in the spool or beyond.
    pub read_bytes: u64,
    /// How often the content was replaced in place; what was written and not yet read then is lost.
    pub truncations: u64,
    /// Bytes of holes that were skipped.
    pub nul_bytes: u64,
    /// Records that ended in the middle because another began.
    pub torn_records: u64,
    pub error: Option<String>,
}

/// Addresses in one answer at most.
pub const PROBE_TARGETS_MAX: usize = 128;

/// A port that the agent shall try to reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeTarget {
    pub member: String,
    pub port: Port,
    /// `host:port`.
    pub address: String,
}

/// The server's answer to a push.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushAnswer {
    /// The highest frame number that is durable on the server; `None` when it has none of this generation.
    pub seq: Option<u64>,
    /// The server's clock when it answered.
    pub now: Option<Timestamp>,
    /// What the agent shall try every few seconds from now on: the ports of its cluster's members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probe: Vec<ProbeTarget>,
}

/// Status of an answer that carries a [`FrameRefusal`].
pub const REFUSED_STATUS: u16 = 422;

/// The server read this frame and can never use it, so that sending it again is of no use. Only this, with
/// [`REFUSED_STATUS`], makes an agent give a frame up: proxies and servers of another version refuse in other words, and
/// may think otherwise later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameRefusal {
    pub refused_frame: u64,
    pub reason: String,
}

impl FrameRefusal {
    /// Reads an answer; `None` when it is not the refusal of this frame.
    pub fn of(status: u16, body: &[u8], frame: u64) -> Option<Self> {
        let refusal: Self = serde_json::from_slice(body).ok().filter(|_| status == REFUSED_STATUS)?;
        (refusal.refused_frame == frame).then_some(refusal)
    }
}

/// Encodes a push.
pub fn encode_push(push: &Push) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.raw(PUSH_MAGIC);
    writer.byte(VERSION);
    for text in [&push.agent, &push.cluster, &push.member] {
        writer.text(text);
    }
    writer.unsigned(push.generation);
    writer.signed(push.sent_at.nanos());
    // A plain struct of texts and numbers always serialises.
    writer.bytes(&serde_json::to_vec(&push.status).unwrap_or_default());
    writer.count(push.frames.len());
    for frame in &push.frames {
        writer.unsigned(frame.seq);
        writer.bytes(&frame.body);
    }
    writer.into_bytes()
}

/// Decodes a push; the frames stay compressed.
pub fn decode_push(bytes: &[u8]) -> Result<Push, DecodeError> {
    if bytes.len() > PUSH_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: bytes.len(), bytes_max: PUSH_BYTES_MAX });
    }
    let mut reader = Reader::new(bytes);
    if reader.raw(PUSH_MAGIC.len())? != PUSH_MAGIC {
        return Err(DecodeError::NotOurs);
    }
    check_version(reader.byte()?)?;
    let mut texts = [const { String::new() }; 3];
    for text in &mut texts {
        reader.text()?.clone_into(text);
    }
    let [agent, cluster, member] = texts;
    let generation = reader.unsigned()?;
    let sent_at = Timestamp::from_nanos(reader.signed()?);
    let status = serde_json::from_slice(reader.bytes()?).map_err(|source| DecodeError::Json { source })?;
    let count = reader.count()?;
    let mut frames = Vec::with_capacity(count.min(1024));
    for _ in 0..count {
        let seq = reader.unsigned()?;
        if frames.last().is_some_and(|last: &EncodedFrame| last.seq >= seq) {
            return Err(DecodeError::Order);
        }
        frames.push(EncodedFrame { seq, body: reader.bytes()?.to_vec() });
    }
    reader.finish()?;
    Ok(Push { agent, generation, cluster, member, sent_at, status, frames })
}

fn check_version(found: u8) -> Result<(), DecodeError> {
    if found == VERSION { Ok(()) } else { Err(DecodeError::Version { found, known: VERSION }) }
}

/// Encodes a batch as a frame body.
pub fn encode_batch(batch: &Batch) -> Vec<u8> {
    let mut symbols = Symbols::default();
    let mut writer = Writer::default();
    encode_logs(&mut writer, &mut symbols, &batch.logs);
    encode_samples(&mut writer, &mut symbols, &batch.samples);
    writer.count(batch.observations.len());
    for observation in &batch.observations {
        // Observations are few and of many shapes. They hold nothing that JSON cannot write.
        writer.bytes(&serde_json::to_vec(observation).unwrap_or_default());
    }
    let mut plain = Writer::default();
    plain.count(symbols.texts.len());
    for text in &symbols.texts {
        plain.text(text);
    }
    plain.raw(&writer.into_bytes());
    let mut body = vec![VERSION];
    body.extend_from_slice(&lz4_flex::block::compress_prepend_size(&plain.into_bytes()));
    body
}

/// Decodes a frame body.
pub fn decode_batch(body: &[u8]) -> Result<Batch, DecodeError> {
    let (version, compressed) = body.split_first().ok_or(DecodeError::Short)?;
    check_version(*version)?;
    let size = compressed.first_chunk::<4>().ok_or(DecodeError::Short)?;
    let size = u32::from_le_bytes(*size) as usize;
    if size > FRAME_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: size, bytes_max: FRAME_BYTES_MAX });
    }
    let plain = lz4_flex::block::decompress_size_prepended(compressed).map_err(|_| DecodeError::Compression)?;
    let mut reader = Reader::new(&plain);
    let count = reader.count()?;
    let mut symbols: Vec<Arc<str>> = Vec::with_capacity(count.min(4096));
    for _ in 0..count {
        symbols.push(Arc::from(reader.text()?));
    }
    let logs = decode_logs(&mut reader, &symbols)?;
    let samples = decode_samples(&mut reader, &symbols)?;
    let mut observations = Vec::new();
    for _ in 0..reader.count()? {
        let json = reader.bytes()?;
        let observation: Observation = serde_json::from_slice(json).map_err(|source| DecodeError::Json { source })?;
        observations.push(observation);
    }
    reader.finish()?;
    Ok(Batch { samples, logs, observations, ..Batch::default() })
}

/// Texts that a frame names by number.
#[derive(Default)]
struct Symbols {
    texts: Vec<String>,
    numbers: FxHashMap<String, u64>,
}

impl Symbols {
    fn number(&mut self, text: &str) -> u64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u64;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}

fn symbol<'a>(symbols: &'a [Arc<str>], reader: &mut Reader<'_>) -> Result<&'a Arc<str>, DecodeError> {
    let number = usize::try_from(reader.unsigned()?).map_err(|_| DecodeError::Reference)?;
    symbols.get(number).ok_or(DecodeError::Reference)
}

fn encode_labels(writer: &mut Writer, symbols: &mut Symbols, labels: &Labels) {
    writer.count(labels.len());
    for (name, value) in labels.iter() {
        writer.unsigned(symbols.number(name));
        writer.unsigned(symbols.number(value));
    }
}

fn decode_labels(reader: &mut Reader<'_>, symbols: &[Arc<str>]) -> Result<Labels, DecodeError> {
    let count = reader.count()?;
    let mut pairs = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        let name = Arc::clone(symbol(symbols, reader)?);
        pairs.push((name, Arc::clone(symbol(symbols, reader)?)));
    }
    Ok(Labels::from_pairs(pairs))
}

fn encode_logs(writer: &mut Writer, symbols: &mut Symbols, logs: &[LogRecord]) {
    let mut numbers: BTreeMap<&Labels, u64> = BTreeMap::new();
    let mut streams: Vec<&Labels> = Vec::new();
    for record in logs {
        numbers.entry(&record.stream).or_insert_with(|| {
            streams.push(&record.stream);
            streams.len() as u64 - 1
        });
    }
    writer.count(streams.len());
    for stream in streams {
        encode_labels(writer, symbols, stream);
    }
    writer.count(logs.len());
    let mut last_at = 0;
    for record in logs {
        writer.unsigned(numbers.get(&record.stream).copied().unwrap_or(0));
        writer.signed(record.at.nanos().wrapping_sub(last_at));
        last_at = record.at.nanos();
        writer.text(&record.line);
        writer.count(record.fields.len());
        for (name, value) in &record.fields {
            writer.unsigned(symbols.number(name));
            writer.text(value);
        }
    }
}

fn decode_logs(reader: &mut Reader<'_>, symbols: &[Arc<str>]) -> Result<Vec<LogRecord>, DecodeError> {
    let count = reader.count()?;
    let mut streams = Vec::with_capacity(count.min(1024));
    for _ in 0..count {
        streams.push(decode_labels(reader, symbols)?);
    }
    let count = reader.count()?;
    let mut logs = Vec::with_capacity(count.min(4096));
    let mut at: i64 = 0;
    for _ in 0..count {
        let number = usize::try_from(reader.unsigned()?).map_err(|_| DecodeError::Reference)?;
        let stream = streams.get(number).ok_or(DecodeError::Reference)?.clone();
        at = at.wrapping_add(reader.signed()?);
        let line = reader.text()?.to_owned();
        let fields_count = reader.count()?;
        let mut fields = Vec::with_capacity(fields_count.min(64));
        for _ in 0..fields_count {
            let name = symbol(symbols, reader)?.to_string();
            fields.push((name, reader.text()?.to_owned()));
        }
        logs.push(LogRecord { at: Timestamp::from_nanos(at), stream, line, fields });
    }
    Ok(logs)
}

fn encode_samples(writer: &mut Writer, symbols: &mut Symbols, samples: &[Sample]) {
    writer.count(samples.len());
    let mut last_at = 0;
    for sample in samples {
        encode_labels(writer, symbols, &sample.labels);
        writer.signed(sample.at.nanos().wrapping_sub(last_at));
        last_at = sample.at.nanos();
        writer.raw(&sample.value.to_bits().to_le_bytes());
    }
}

fn decode_samples(reader: &mut Reader<'_>, symbols: &[Arc<str>]) -> Result<Vec<Sample>, DecodeError> {
    let count = reader.count()?;
    let mut samples = Vec::with_capacity(count.min(4096));
    let mut at: i64 = 0;
    for _ in 0..count {
        let labels = decode_labels(reader, symbols)?;
        at = at.wrapping_add(reader.signed()?);
        let bits = *reader.raw(8)?.first_chunk::<8>().ok_or(DecodeError::Short)?;
        let value = f64::from_bits(u64::from_le_bytes(bits));
        samples.push(Sample::new(labels, Timestamp::from_nanos(at), value));
    }
    Ok(samples)
}

#[cfg(test)]
mod tests;
