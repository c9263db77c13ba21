//! An event while it is being written: everything but the cluster's name.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::model::{Event, EventSeverity, Timestamp};

/// Collects one event. Its id is made of cluster, event, member and `key`, so the same change gets the same id.
#[derive(Debug)]
pub(super) struct Draft {
    event: &'static str,
    severity: EventSeverity,
    source: &'static str,
    member: Option<String>,
    text: String,
    fields: BTreeMap<String, String>,
    at: Timestamp,
    key: String,
}

impl Draft {
    pub(super) fn new(event: &'static str, severity: EventSeverity, at: Timestamp) -> Self {
        Self {
            event,
            severity,
            source: "judge",
            member: None,
            text: String::new(),
            fields: BTreeMap::new(),
            at,
            key: at.millis().to_string(),
        }
    }

    pub(super) fn info(event: &'static str, at: Timestamp) -> Self {
        Self::new(event, EventSeverity::Info, at)
    }

    pub(super) fn notice(event: &'static str, at: Timestamp) -> Self {
        Self::new(event, EventSeverity::Notice, at)
    }

    pub(super) fn warning(event: &'static str, at: Timestamp) -> Self {
        Self::new(event, EventSeverity::Warning, at)
    }

    pub(super) fn critical(event: &'static str, at: Timestamp) -> Self {
        Self::new(event, EventSeverity::Critical, at)
    }

    /// Which source made it known; `judge` unless said.
    pub(super) fn by(mut self, source: &'static str) -> Self {
        self.source = source;
        self
    }

    pub(super) fn member(mut self, member: &str) -> Self {
        self.member = Some(member.to_owned());
        self
    }

    pub(super) fn text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    pub(super) fn field(mut self, name: &str, value: impl Display) -> Self {
        self.fields.insert(name.to_owned(), value.to_string());
        self
    }

    /// Sets the field only when the value is known.
    pub(super) fn field_if(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// Tells apart events of one kind and one time that are about different things.
    pub(super) fn keyed(mut self, what: &str, at: Timestamp) -> Self {
        self.key = format!("{what}@{}", at.millis());
        self
    }

    /// Ties the event to a revision of the DCS: the same change read again after a restart gets the same id.
    pub(super) fn revision(mut self, revision: i64) -> Self {
        self.key = format!("r{revision}");
        self.field("revision", revision)
    }

    pub(super) fn into_event(self, cluster: &str) -> Event {
        let member = self.member.as_deref().unwrap_or("-");
        Event {
            id: format!("{cluster}/{}/{member}/{}", self.event, self.key),
            time: self.at,
            cluster: cluster.to_owned(),
            member: self.member,
            event: self.event.to_owned(),
            severity: self.severity,
            source: self.source.to_owned(),
            text: self.text,
            fields: self.fields,
        }
    }
}
