//! Log records: a time, a stream, a line, and fields.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::{Labels, Timestamp};

/// How bad a log line is, in one scale for all sources. It is the stream label `severity`.
///
/// PostgreSQL's words map as: DEBUGn → debug, LOG/INFO → info, NOTICE → notice, WARNING → warning, ERROR and FATAL →
/// error, PANIC → critical. The source's own word stays in the field `severity_text`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
}

impl Severity {
    pub const ALL: [Self; 6] = [Self::Debug, Self::Info, Self::Notice, Self::Warning, Self::Error, Self::Critical];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is none of the six severities.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{word:?} is not one of debug, info, notice, warning, error, critical")]
pub struct ParseSeverityError {
    word: String,
}

impl FromStr for Severity {
    type Err = ParseSeverityError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|severity| severity.as_str() == word)
            .ok_or_else(|| ParseSeverityError { word: word.to_owned() })
    }
}

/// One record of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    pub at: Timestamp,
    /// Few values each: cluster, member, source, severity. Everything else is a field.
    pub stream: Labels,
    /// The source's text, without the line end. May hold newlines (DETAIL, STATEMENT, tracebacks).
    pub line: String,
    /// Many values: pid, user, database, sqlstate, event … In the order of the source, names unique.
    pub fields: Vec<(String, String)>,
}

impl LogRecord {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Bytes of text the record holds; what size budgets count.
    pub fn text_bytes(&self) -> usize {
        self.line.len() + self.fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}
