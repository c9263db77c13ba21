//! Which format a file has, and what that means for cutting and parsing it. The table of formats.

use std::path::Path;

use serde::Deserialize;

use super::parsed::{Context, Parsed};
use super::prefix::Prefix;
use super::{etcd, haproxy, patroni, pgbouncer, postgres_csv, postgres_json, postgres_text, text};

/// A format of log files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// PostgreSQL's CSV, 12 to 18.
    Csvlog,
    /// PostgreSQL's JSON, 15 to 18.
    Jsonlog,
    /// PostgreSQL's plain text with a `log_line_prefix`.
    Stderr,
    /// Patroni, plain or JSON.
    Patroni,
    /// etcd: zap's JSON, or the older plain text.
    Etcd,
    Haproxy,
    Pgbouncer,
    /// Anything with lines.
    Text,
}

impl Format {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Csvlog => "csvlog",
            Self::Jsonlog => "jsonlog",
            Self::Stderr => "stderr",
            Self::Patroni => "patroni",
            Self::Etcd => "etcd",
            Self::Haproxy => "haproxy",
            Self::Pgbouncer => "pgbouncer",
            Self::Text => "text",
        }
    }

    /// Finds the format from the source's name, the path and the first bytes. `None`: more bytes are needed.
    pub fn detect(source: &str, path: &Path, head: &[u8]) -> Option<Self> {
        match source {
            "patroni" => return Some(Self::Patroni),
            "etcd" => return Some(Self::Etcd),
            "haproxy" => return Some(Self::Haproxy),
            "pgbouncer" => return Some(Self::Pgbouncer),
            "postgresql" => {}
            _ => return Some(Self::Text),
        }
        match extension(path) {
            "csv" => return Some(Self::Csvlog),
            "json" => return Some(Self::Jsonlog),
            _ => {}
        }
        let start = head.iter().position(|byte| *byte != 0)?;
        let head = head.get(start..)?;
        if head.len() < 4096 && !head.contains(&b'\n') {
            return None;
        }
        Some(if head.starts_with(b"{\"timestamp\"") {
            Self::Jsonlog
        } else if postgres_csv::begins_record(head) {
            Self::Csvlog
        } else {
            Self::Stderr
        })
    }

    /// Of several formats of one server's log, the one that says most comes first.
    pub fn preference(path: &Path) -> u8 {
        match extension(path) {
            "csv" => 0,
            "json" => 1,
            _ => 2,
        }
    }

    /// Whether a line goes on with the record before it.
    pub fn continues(self, record: &[u8], quote_is_open: bool, line: &[u8], prefix: Option<&Prefix>) -> bool {
        match self {
            Self::Csvlog => quote_is_open,
            Self::Jsonlog | Self::Etcd | Self::Haproxy => false,
            Self::Stderr => prefix.is_some_and(|prefix| postgres_text::continues(prefix, record, line)),
            Self::Patroni => !patroni::begins_record(line),
            Self::Pgbouncer => line.first() == Some(&b'\t'),
            Self::Text => text::continues(line),
        }
    }

    /// Whether this line can only be the start of a new record although the one before is not finished.
    pub fn tears(self, quote_is_open: bool, line: &[u8]) -> bool {
        self == Self::Csvlog && quote_is_open && postgres_csv::begins_record(line)
    }

    /// Whether the record is finished with its line, so that nothing must be waited for.
    pub fn ends_with_line(self, record: &[u8], quote_is_open: bool) -> bool {
        match self {
            Self::Csvlog => !quote_is_open,
            Self::Jsonlog | Self::Etcd | Self::Haproxy => true,
            Self::Patroni => record.first() == Some(&b'{'),
            Self::Stderr | Self::Pgbouncer | Self::Text => false,
        }
    }

    /// Whether more must follow for the record to be whole.
    pub fn is_open(self, quote_is_open: bool) -> bool {
        self == Self::Csvlog && quote_is_open
    }

    /// Takes a record apart. Never fails: what is not understood is shown as it is.
    pub fn parse(self, record: &str, context: Context, prefix: Option<&Prefix>) -> Parsed {
        let parsed = match self {
            Self::Csvlog => postgres_csv::parse(record, context),
            Self::Jsonlog => postgres_json::parse(record, context),
            Self::Stderr => prefix.and_then(|prefix| postgres_text::parse(record, context, prefix)),
            Self::Patroni => patroni::parse(record, context),
            Self::Etcd => etcd::parse(record, context),
            Self::Haproxy => Some(haproxy::parse(record, context)),
            Self::Pgbouncer => pgbouncer::parse(record, context),
            Self::Text => Some(text::parse(record, context)),
        };
        parsed.unwrap_or_else(|| text::parse(record, context))
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or("")
}
