//! What all records of one configured source share, and how a raw record becomes a [`LogRecord`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;

use crate::model::{Labels, LogRecord, Severity, Timestamp};

use super::LogSource;
use super::assemble::RawRecord;
use super::catalogue::{self, Hit, SourceCatalogue};
use super::format::Format;
use super::parsed::{Context, Parsed};
use super::prefix::{Prefix, PrefixError};
use super::time::ZoneSetting;

/// Clocks may be ahead by so much.
const FUTURE_MAX: Duration = Duration::from_mins(10);

/// Settings of a source, ready for use.
#[derive(Clone, Debug)]
pub struct Stream {
    pub source: String,
    pub cluster: String,
    pub member: String,
    pub format: Option<Format>,
    pub zone: ZoneSetting,
    pub prefix: Option<Prefix>,
    /// Stream labels by severity.
    labels: Arc<[Labels]>,
}

impl Stream {
    /// `cluster` and `member` are the agent's; the source may have its own.
    pub fn new(source: &LogSource, cluster: &str, member: &str) -> Result<Self, PrefixError> {
        let cluster = source.cluster.as_deref().unwrap_or(cluster);
        let member = source.member.as_deref().unwrap_or(member);
        let labels = Severity::ALL.map(|severity| {
            Labels::from_pairs([
                ("cluster", cluster),
                ("member", member),
                ("source", source.source.as_str()),
                ("severity", severity.as_str()),
            ])
        });
        Ok(Self {
            source: source.source.clone(),
            cluster: cluster.to_owned(),
            member: member.to_owned(),
            format: source.format,
            zone: source.timezone.unwrap_or_default(),
            prefix: source.log_line_prefix.as_deref().map(Prefix::compile).transpose()?,
            labels: Arc::from(labels.as_slice()),
        })
    }

    /// Makes a record of the raw text.
    pub fn to_record(
        &self,
        raw: &RawRecord,
        format: Format,
        (prefix, path): (Option<&Prefix>, &Path),
        context: Context,
    ) -> LogRecord {
        let (text, is_lossy) = decode(&raw.text, raw.cut.is_some());
        let mut parsed = format.parse(&text, context, prefix);
        let catalogue = self.catalogue(format);
        let hit = catalogue.find(&parsed.message).or_else(|| {
            let sqlstate = parsed.fields.iter().find(|(name, _)| name == "sqlstate")?;
            catalogue::event_of_sqlstate(&sqlstate.1)
        });
        let severity = severity(parsed.severity, hit.as_ref());
        if let Some(hit) = &hit {
            push_event(&mut parsed, hit);
        }
        if let Some((full_bytes, sha256)) = &raw.cut {
            parsed.push_field("full_bytes", &full_bytes.to_string());
            parsed.push_field("sha256", sha256);
        }
        if raw.is_partial {
            parsed.push_field("partial", "true");
        }
        if is_lossy {
            parsed.push_field("raw", &base64::engine::general_purpose::STANDARD.encode(&raw.text));
        }
        parsed.push_field("file", &path.to_string_lossy());
        let at = bounded_time(&mut parsed, context);
        LogRecord {
            at,
            stream: self.labels.get(severity as usize).cloned().unwrap_or_default(),
            line: parsed.line,
            fields: parsed.fields,
        }
    }

    fn catalogue(&self, format: Format) -> Arc<SourceCatalogue> {
        catalogue::for_source(match format {
            Format::Csvlog | Format::Jsonlog | Format::Stderr => "postgresql",
            Format::Patroni => "patroni",
            Format::Etcd => "etcd",
            Format::Haproxy => "haproxy",
            Format::Pgbouncer => "pgbouncer",
            Format::Text => &self.source,
        })
    }
}

/// The record's time. One that is far ahead comes from another zone or a wrong clock: the time of reading is used, and
/// the original becomes a field.
fn bounded_time(parsed: &mut Parsed, context: Context) -> Timestamp {
    let at = parsed.at.or(context.last_at).unwrap_or(context.now);
    if at <= context.now + FUTURE_MAX {
        return at;
    }
    parsed.push_field("original_time", &at.to_string());
    context.now
}

/// The text, and whether it could not be kept as it is. A character cut in two by our own limit is no loss.
fn decode(bytes: &[u8], is_cut: bool) -> (String, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), false),
        Err(error) if is_cut && error.error_len().is_none() => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            (String::from_utf8_lossy(valid).into_owned(), false)
        }
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), true),
    }
}

/// A known message may be worse than its source says, and is less only when it is known to be harmless.
fn severity(said: Option<Severity>, hit: Option<&Hit<'_>>) -> Severity {
    let said = said.unwrap_or(Severity::Info);
    match hit.map(|hit| hit.severity) {
        None => said,
        Some(Severity::Info) => Severity::Info,
        Some(known) => said.max(known),
    }
}

/// Adds the event's name and the named parts of its message, without touching the source's own fields.
fn push_event(parsed: &mut Parsed, hit: &Hit<'_>) {
    parsed.push_field("event", hit.event);
    for (name, value) in &hit.captures {
        if parsed.fields.iter().any(|(known, _)| known == name) {
            let name = format!("event_{name}");
            if !parsed.fields.iter().any(|(known, _)| *known == name) {
                parsed.push_field(&name, value);
            }
        } else {
            parsed.push_field(name, value);
        }
    }
}
