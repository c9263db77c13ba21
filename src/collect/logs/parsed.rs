//! What a parser makes of one record's text.

use crate::model::{Severity, Timestamp};

/// A record as its parser understands it, before it gets its stream and its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// `None` where the record carries no time of its own.
    pub at: Option<Timestamp>,
    /// `None` where nothing tells.
    pub severity: Option<Severity>,
    /// What is shown and searched.
    pub line: String,
    /// The part that the event catalogue looks at.
    pub message: String,
    /// In the order of the source, names unique, no empty values.
    pub fields: Vec<(String, String)>,
}

impl Parsed {
    /// A record of which nothing is understood.
    pub fn unknown(text: &str) -> Self {
        Self { at: None, severity: None, line: text.to_owned(), message: text.to_owned(), fields: Vec::new() }
    }

    /// Adds a field unless the value is empty.
    pub fn push_field(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.fields.push((name.to_owned(), value.to_owned()));
        }
    }
}

/// What parsers may need to know besides the text.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    pub zone: super::time::ZoneSetting,
    /// Time of the record before, in the same file.
    pub last_at: Option<Timestamp>,
    /// When the bytes were read.
    pub now: Timestamp,
}
