//! The log of one program of one host: what the first pass learns of it, and how the second reads it.
//!
//! Times of the first pass are "as read": those without a zone are read as UTC, nothing is corrected.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::collect::logs::LogSource;
use crate::collect::logs::assemble::RawRecord;
use crate::collect::logs::format::Format;
use crate::collect::logs::parsed::Context;
use crate::collect::logs::prefix::Prefix;
use crate::collect::logs::stream::Stream;
use crate::collect::logs::time::ZoneSetting;
use crate::model::{LogRecord, Timestamp};

use super::PROGRESS_EVERY_RECORDS;
use super::cut::cut;
use super::detect::{Kind, Wrapper};
use super::duplicates::Sketch;
use super::files::LogFile;
use super::happenings::{self, Mark};
use super::wrapped::{Unwrapped, Unwrapper};

/// Programs of hosts in one file at most.
const PARTS_MAX: usize = 256;
/// Line numbers that are kept of records that were not understood.
const EXAMPLES_MAX: usize = 3;
/// No log is from later than this; a time behind it comes from having none.
const NO_TIME: Timestamp = Timestamp::from_secs(7_258_118_400);
/// Zones are multiples of this.
pub(super) const ZONE_STEP_SECONDS: i64 = 900;
pub(super) const ZONE_SECONDS_MAX: i64 = 14 * 3600;
/// Of this many records the zone of the envelope is learned from the messages inside.
const ENVELOPE_VOTES_MAX: u32 = 200;

/// Tells the parts of one file apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartKey {
    /// From the envelope; empty for the log of one program.
    pub(super) host: String,
    pub(super) source: String,
}

/// What the first pass learns.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) key: PartKey,
    pub(super) format: Format,
    pub(super) records: u64,
    pub(super) first_at: Timestamp,
    pub(super) last_at: Timestamp,
    /// Times carry no zone.
    pub(super) zone_less: bool,
    /// Seconds east of UTC that the times of the envelope are, by what the messages inside say.
    pub(super) envelope_zones: BTreeMap<i64, u32>,
    pub(super) not_understood: u64,
    pub(super) not_understood_lines: Vec<u64>,
    pub(super) names: happenings::Names,
    pub(super) marks: Vec<Mark>,
    pub(super) sketch: Sketch,
}

impl Facts {
    fn new(key: PartKey, format: Format) -> Self {
        Self {
            key,
            format,
            records: 0,
            first_at: Timestamp::MAX,
            last_at: Timestamp::MIN,
            zone_less: false,
            envelope_zones: BTreeMap::new(),
            not_understood: 0,
            not_understood_lines: Vec::new(),
            names: happenings::Names::default(),
            marks: Vec::new(),
            sketch: Sketch::default(),
        }
    }

    fn add(&mut self, record: &LogRecord, line: u64, has_time: bool) {
        self.records += 1;
        if has_time {
            self.first_at = self.first_at.min(record.at);
            self.last_at = self.last_at.max(record.at);
        }
        let always_says = !matches!(self.format, Format::Haproxy | Format::Text);
        if always_says && record.field("severity_text").is_none() {
            self.not_understood += 1;
            if self.not_understood_lines.len() < EXAMPLES_MAX {
                self.not_understood_lines.push(line);
            }
            return;
        }
        self.sketch.add(record);
        happenings::note(record, &self.key.source, &mut self.names, &mut self.marks);
    }
}

/// How the second pass reads a part.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) cluster: String,
    pub(super) member: String,
    /// For times without a zone.
    pub(super) zone_seconds: i32,
    pub(super) ahead_seconds: f64,
    /// As read; for records that have no time at all.
    pub(super) first_at: Timestamp,
    /// Corrected by the zone only. Records in this range are in another file, too.
    pub(super) skip: Option<(Timestamp, Timestamp)>,
}

/// A time as read, as UTC by a right clock.
pub(super) fn corrected(at: Timestamp, zone_seconds: i32, ahead_seconds: f64) -> Timestamp {
    let ahead = Timestamp::from_secs_f64(ahead_seconds).nanos() + i64::from(zone_seconds) * 1_000_000_000;
    Timestamp::from_nanos(at.nanos().saturating_sub(ahead))
}

/// A piece of a file that is one record of one program.
struct Piece {
    line: u64,
    key: PartKey,
    format: Format,
    raw: RawRecord,
    /// Time and process of the envelope.
    envelope: Option<(Timestamp, String)>,
}

/// What a whole file says of itself.
#[derive(Default)]
struct FileFacts {
    envelope_is_zone_less: bool,
    bare: u64,
    bare_lines: Vec<u64>,
}

/// Reads a file piece by piece, whatever it is.
fn pieces(
    file: &LogFile,
    zone: ZoneSetting,
    visit: &mut dyn FnMut(Piece, u64) -> ControlFlow<()>,
) -> io::Result<(ControlFlow<()>, FileFacts)> {
    let (bytes, read) = file.open()?;
    let read_bytes = || read.load(Ordering::Relaxed);
    match &file.detected.kind {
        Kind::NotALog(_) => Ok((ControlFlow::Continue(()), FileFacts::default())),
        Kind::Log { source, format, prefix } => {
            let key = PartKey { host: String::new(), source: source.clone() };
            let flow = cut(bytes, *format, prefix.clone(), &mut |line, raw| {
                visit(Piece { line, key: key.clone(), format: *format, raw, envelope: None }, read_bytes())
            })?;
            Ok((flow, FileFacts::default()))
        }
        Kind::Wrapped(wrapper) => {
            let mut unwrapper = Unwrapper::new(*wrapper, zone, file.modified_at);
            let mut give = |one: Unwrapped| {
                let key = PartKey { host: one.host, source: one.source.to_owned() };
                let envelope = Some((one.at, one.pid));
                visit(Piece { line: one.line, key, format: one.format, raw: one.raw, envelope }, read_bytes())
            };
            // Every line is a record here, as it is in etcd's log.
            let mut flow = cut(bytes, Format::Etcd, None, &mut |line, raw| unwrapper.feed(line, &raw, &mut give))?;
            if flow.is_continue() {
                flow = unwrapper.finish(&mut give);
            }
            let facts = FileFacts {
                envelope_is_zone_less: *wrapper == Wrapper::Syslog && unwrapper.is_zone_less,
                bare: unwrapper.bare,
                bare_lines: unwrapper.bare_lines,
            };
            Ok((flow, facts))
        }
    }
}

/// Makes records of the pieces of one part.
struct Maker {
    stream: Stream,
    prefix: Option<Prefix>,
    last_at: Option<Timestamp>,
}

impl Maker {
    fn new(
        key: &PartKey,
        format: Format,
        (cluster, member): (&str, &str),
        zone: ZoneSetting,
        kind: &Kind,
    ) -> Option<Self> {
        let source = LogSource {
            source: key.source.clone(),
            path: Path::new("").to_owned(),
            format: Some(format),
            cluster: None,
            member: None,
            timezone: Some(zone),
            log_line_prefix: None,
        };
        let prefix = match kind {
            Kind::Log { prefix, .. } => prefix.clone(),
            // Without a prefix of its own, or with one that has a time: the fallback explains the latter.
            Kind::Wrapped(_) if format == Format::Stderr => Prefix::compile("").ok(),
            _ => None,
        };
        Some(Self { stream: Stream::new(&source, cluster, member).ok()?, prefix, last_at: None })
    }

    /// The record, and whether it has a time of its own (or its envelope's).
    fn make(&mut self, file: &LogFile, piece: &Piece) -> (LogRecord, bool) {
        let last_at = piece.envelope.as_ref().map(|(at, _)| *at).or(self.last_at);
        let context = |now| Context { zone: self.stream.zone, last_at, now };
        let record_at =
            |now| self.stream.to_record(&piece.raw, piece.format, (self.prefix.as_ref(), &file.path), context(now));
        let mut record = record_at(Timestamp::MAX);
        let mut has_time = record.at < NO_TIME;
        if !has_time {
            // No time at all, or one without a year: that of the file's last change is the nearest guess.
            record = record_at(file.modified_at);
            has_time = record.at < NO_TIME && record.at != file.modified_at;
        }
        if let Some((envelope, pid)) = &piece.envelope {
            record.at = inside(*envelope, record.at);
            if !pid.is_empty() && record.field("pid").is_none() {
                record.fields.push(("pid".to_owned(), pid.clone()));
            }
        }
        if has_time {
            self.last_at = Some(record.at);
        }
        (record, has_time)
    }
}

/// The time of a message in an envelope. The message's own is finer, but may be in another zone.
fn inside(envelope: Timestamp, message: Timestamp) -> Timestamp {
    let (zone, rest) = zone_between(message, envelope);
    let fits = zone.abs() <= ZONE_SECONDS_MAX && (-5_000_000_000..2_000_000_000).contains(&rest);
    if fits { Timestamp::from_nanos(envelope.nanos().saturating_add(rest)) } else { envelope }
}

/// The difference as a zone in seconds, and nanoseconds that remain.
pub(super) fn zone_between(a: Timestamp, b: Timestamp) -> (i64, i64) {
    let difference = a.nanos().saturating_sub(b.nanos());
    let step = ZONE_STEP_SECONDS * 1_000_000_000;
    let steps = difference.saturating_add(step / 2).div_euclid(step);
    (steps * ZONE_STEP_SECONDS, difference - steps * step)
}

/// The first pass over one file.
pub(super) fn survey(file: &LogFile, progress: &mut dyn FnMut(u64)) -> io::Result<Vec<Facts>> {
    let mut parts: BTreeMap<PartKey, (Maker, Facts)> = BTreeMap::new();
    let mut seen = 0_u64;
    let kind = &file.detected.kind;
    let (_, of_file) = pieces(file, ZoneSetting::Fixed(0), &mut |piece, read| {
        seen += 1;
        if seen.is_multiple_of(PROGRESS_EVERY_RECORDS) {
            progress(read);
        }
        if !parts.contains_key(&piece.key) {
            let maker = Maker::new(&piece.key, piece.format, ("", ""), ZoneSetting::Fixed(0), kind);
            let Some(maker) = maker.filter(|_| parts.len() < PARTS_MAX) else { return ControlFlow::Continue(()) };
            parts.insert(piece.key.clone(), (maker, Facts::new(piece.key.clone(), piece.format)));
        }
        let Some((maker, facts)) = parts.get_mut(&piece.key) else { return ControlFlow::Continue(()) };
        learn_zone(file, &piece, maker, facts);
        let (record, has_time) = maker.make(file, &piece);
        facts.add(&record, piece.line, has_time);
        ControlFlow::Continue(())
    })?;
    let mut found: Vec<Facts> = parts.into_values().map(|(_, facts)| facts).collect();
    found.retain(|facts| facts.first_at <= facts.last_at);
    let is_wrapped = matches!(kind, Kind::Wrapped(_));
    for facts in &mut found {
        facts.zone_less = if is_wrapped { of_file.envelope_is_zone_less } else { facts.zone_less };
    }
    // Lines outside of any envelope are named with the first part of the file.
    if let Some(first) = found.first_mut() {
        first.not_understood += of_file.bare;
        first.not_understood_lines.extend(of_file.bare_lines);
        first.not_understood_lines.truncate(EXAMPLES_MAX);
    }
    Ok(found)
}

/// Whether the times of a part carry a zone, and what the messages say about their envelope's.
fn learn_zone(file: &LogFile, piece: &Piece, maker: &Maker, facts: &mut Facts) {
    let votes = facts.envelope_zones.values().sum::<u32>();
    let wanted = if piece.envelope.is_some() { votes < ENVELOPE_VOTES_MAX } else { facts.records == 0 };
    if !wanted {
        return;
    }
    let at = |seconds| {
        let context = Context { zone: ZoneSetting::Fixed(seconds), last_at: None, now: Timestamp::MAX };
        maker.stream.to_record(&piece.raw, piece.format, (maker.prefix.as_ref(), &file.path), context).at
    };
    let (utc, shifted) = (at(0), at(3600));
    match &piece.envelope {
        None => facts.zone_less = utc != shifted,
        Some((envelope, _)) if utc == shifted && utc < NO_TIME => {
            let (zone, _) = zone_between(*envelope, utc);
            *facts.envelope_zones.entry(zone).or_default() += 1;
        }
        Some(_) => {}
    }
}

/// The second pass over one file.
pub(super) fn read<'a>(
    file: &LogFile,
    reading: &dyn Fn(&PartKey) -> Option<&'a Reading>,
    progress: &mut dyn FnMut(u64),
    take: &mut dyn FnMut(LogRecord) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut parts: BTreeMap<PartKey, (Maker, &Reading)> = BTreeMap::new();
    let mut seen = 0_u64;
    let (flow, _) = pieces(file, ZoneSetting::Fixed(0), &mut |piece, read| {
        seen += 1;
        if seen.is_multiple_of(PROGRESS_EVERY_RECORDS) {
            progress(read);
        }
        if !parts.contains_key(&piece.key) {
            let Some(known) = reading(&piece.key) else { return ControlFlow::Continue(()) };
            let labels = (known.cluster.as_str(), known.member.as_str());
            let kind = &file.detected.kind;
            let Some(maker) = Maker::new(&piece.key, piece.format, labels, ZoneSetting::Fixed(0), kind) else {
                return ControlFlow::Continue(());
            };
            parts.insert(piece.key.clone(), (maker, known));
        }
        let Some((maker, known)) = parts.get_mut(&piece.key) else { return ControlFlow::Continue(()) };
        let (mut record, has_time) = maker.make(file, &piece);
        if !has_time {
            record.at = known.first_at;
        }
        let in_zone = corrected(record.at, known.zone_seconds, 0.0);
        if known.skip.is_some_and(|(from, to)| in_zone >= from && in_zone <= to) {
            return ControlFlow::Continue(());
        }
        record.at = corrected(record.at, known.zone_seconds, known.ahead_seconds);
        if known.ahead_seconds != 0.0 {
            record.fields.push(("original_time".to_owned(), in_zone.to_string()));
        }
        take(record)
    })?;
    Ok(flow)
}
