//! Log files: followed, cut into records, understood, and handed over exactly once.
//!
//! ```text
//! tail      which files there are, and their turns        file      one file: rotation, truncation, offsets
//! assemble  bytes -> lines -> records                     format    which parser a file needs
//! postgres… patroni etcd haproxy pgbouncer text           one parser each: record -> time, severity, line, fields
//! catalogue the events that known messages stand for      ship      tail -> spool -> sender
//! ```
//!
//! A new format is one new file and one line in `format`.

pub mod assemble;
pub mod catalogue;
pub mod etcd;
pub mod file;
pub mod format;
pub mod glob;
pub mod haproxy;
pub mod identity;
pub mod parsed;
pub mod patroni;
pub mod pgbouncer;
pub mod postgres;
pub mod postgres_csv;
pub mod postgres_json;
pub mod postgres_text;
pub mod prefix;
pub mod ship;
pub mod stream;
pub mod tail;
pub mod text;
pub mod time;

use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use crate::model::event::OWN_SOURCE;
use format::Format;

/// One entry of `logs:` in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSource {
    /// The stream label `source`: `postgresql`, `patroni`, `etcd`, `haproxy`, `pgbouncer`, or any other word.
    #[serde(deserialize_with = "canonical_source")]
    pub source: String,
    /// A path; `*` and `?` stand for parts of names in any component.
    pub path: PathBuf,
    /// Found out from the source's name and the files themselves when absent.
    #[serde(default)]
    pub format: Option<Format>,
    /// Overrides the agent's own.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Overrides the agent's own.
    #[serde(default)]
    pub member: Option<String>,
    /// Offset of times without a zone, such as `+02:00` or `UTC`; the host's own zone when absent.
    #[serde(default)]
    pub timezone: Option<time::ZoneSetting>,
    /// PostgreSQL's setting of that name, for its stderr format; tried out when absent.
    #[serde(default)]
    pub log_line_prefix: Option<String>,
}

/// Program names that people write, as the name that streams carry.
impl LogSource {
    /// What is wrong with the entry, though it can be read.
    pub fn problem(&self) -> Option<String> {
        if self.path.is_absolute() {
            return None;
        }
        Some(format!("the path {} does not begin with /", self.path.display()))
    }
}

fn canonical_source<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let word = String::deserialize(deserializer)?;
    if word == OWN_SOURCE {
        let message = format!("the source {OWN_SOURCE:?} is kept for the server's own events; choose another word");
        return Err(serde::de::Error::custom(message));
    }
    Ok(match word.as_str() {
        "postgres" | "pg" => "postgresql".to_owned(),
        "repmgrd" => "repmgr".to_owned(),
        "pg_autoctl" => "pg_auto_failover".to_owned(),
        _ => word,
    })
}
