//! Events: changes of belief that are worth a line on a timeline.
//!
//! An event is stored once, as a log record of stream `{source="daraji"}`. Its id makes a repeated write harmless.
//! Nobody else writes to that stream: what is pushed to it from outside is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Labels, LogRecord, Severity, Timestamp};

/// The label `source` of our own events.
pub const OWN_SOURCE: &str = "daraji";

/// Whether a stream is that of our own events.
pub fn is_own(stream: &Labels) -> bool {
    stream.get("source") == Some(OWN_SOURCE)
}

/// How much attention an event asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventSeverity {
    Info,
    Notice,
    Warning,
    Critical,
}

impl EventSeverity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
        }
    }

    pub const fn as_log_severity(self) -> Severity {
        match self {
            Self::Info => Severity::Info,
            Self::Notice => Severity::Notice,
            Self::Warning => Severity::Warning,
            Self::Critical => Severity::Critical,
        }
    }

    fn from_log_severity(word: &str) -> Self {
        match word {
            "critical" | "error" => Self::Critical,
            "warning" => Self::Warning,
            "notice" => Self::Notice,
            _ => Self::Info,
        }
    }
}

/// One change of belief about one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Unique and the same when the same change is derived again from the same observations.
    pub id: String,
    pub time: Timestamp,
    pub cluster: String,
    pub member: Option<String>,
    /// A word of the vocabulary: `leader_lost`, `leader_changed`, `split_brain_confirmed` …
    pub event: String,
    pub severity: EventSeverity,
    /// Which source made the change known: `dcs`, `sql`, `rest`, `judge` …
    pub source: String,
    /// One sentence for people.
    pub text: String,
    /// Details, by name.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
}

const RESERVED: [&str; 3] = ["event", "event_id", "event_source"];

impl Event {
    /// The log record that keeps this event.
    pub fn to_log_record(&self) -> LogRecord {
        let member = self.member.as_deref().unwrap_or("");
        let stream = Labels::from_pairs([
            ("source", OWN_SOURCE),
            ("cluster", self.cluster.as_str()),
            ("member", member),
            ("severity", self.severity.as_log_severity().as_str()),
        ]);
        let mut fields = vec![
            ("event".to_owned(), self.event.clone()),
            ("event_id".to_owned(), self.id.clone()),
            ("event_source".to_owned(), self.source.clone()),
        ];
        fields.extend(self.fields.iter().map(|(name, value)| (name.clone(), value.clone())));
        LogRecord { at: self.time, stream, line: self.text.clone(), fields }
    }

    /// Reads an event back; `None` when the record is not one.
    pub fn from_log_record(record: &LogRecord) -> Option<Self> {
        if !is_own(&record.stream) {
            return None;
        }
        Some(Self {
            id: record.field("event_id")?.to_owned(),
            time: record.at,
            cluster: record.stream.get("cluster").unwrap_or("").to_owned(),
            member: record.stream.get("member").map(str::to_owned),
            event: record.field("event")?.to_owned(),
            severity: EventSeverity::from_log_severity(record.stream.get("severity").unwrap_or("")),
            source: record.field("event_source").unwrap_or("").to_owned(),
            text: record.line.clone(),
            fields: record.fields.iter().filter(|(n, _)| !RESERVED.contains(&n.as_str())).cloned().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_the_log_store() {
        let event = Event {
            id: "demo-leader_lost-17".to_owned(),
            time: Timestamp::from_millis(1_700_000_000_123),
            cluster: "demo".to_owned(),
            member: Some("n1".to_owned()),
            event: "leader_lost".to_owned(),
            severity: EventSeverity::Critical,
            source: "dcs".to_owned(),
            text: "the leader key of n1 is gone".to_owned(),
            fields: BTreeMap::from([("revision".to_owned(), "17".to_owned())]),
        };
        assert_eq!(Event::from_log_record(&event.to_log_record()), Some(event));
    }
}
