//! The events that known messages stand for. The table is `catalogue.json`: one message per line, specific ones before
//! general ones of the same source, each with samples that a test holds it to.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};

use parking_lot::Mutex;
use regex::{Regex, RegexSet, RegexSetBuilder};
use serde::Deserialize;

use crate::model::Severity;

const TABLE: &str = include_str!("catalogue.json");
/// Longer messages are looked at up to here only.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// Captured values are cut here.
const CAPTURE_BYTES_MAX: usize = 256;
/// Memory that the matcher of one source may use for its states.
const MATCHER_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Deserialize)]
struct Row {
    source: String,
    event: String,
    severity: Severity,
    regex: String,
}

/// The known messages of one source.
#[derive(Debug)]
pub struct SourceCatalogue {
    set: RegexSet,
    rows: Vec<(Row, OnceLock<Option<Regex>>)>,
}

/// A message that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit<'a> {
    pub event: &'a str,
    pub severity: Severity,
    /// Named parts of the message.
    pub captures: Vec<(String, String)>,
}

/// The catalogue of a source, compiled at its first use. A source without known messages has an empty one.
pub fn for_source(source: &str) -> Arc<SourceCatalogue> {
    static COMPILED: LazyLock<Mutex<BTreeMap<String, Arc<SourceCatalogue>>>> = LazyLock::new(Mutex::default);
    static EMPTY: LazyLock<Arc<SourceCatalogue>> =
        LazyLock::new(|| Arc::new(SourceCatalogue { set: RegexSet::empty(), rows: Vec::new() }));
    let mut compiled = COMPILED.lock();
    if let Some(known) = compiled.get(source) {
        return Arc::clone(known);
    }
    match SourceCatalogue::compile(source) {
        Some(catalogue) => {
            let catalogue = Arc::new(catalogue);
            compiled.insert(source.to_owned(), Arc::clone(&catalogue));
            catalogue
        }
        None => Arc::clone(&EMPTY),
    }
}

impl SourceCatalogue {
    /// `None` when no message of the source is known. A test proves that the table is well-formed.
    fn compile(source: &str) -> Option<Self> {
        let rows: Vec<Row> = serde_json::from_str(TABLE).ok()?;
        let rows: Vec<Row> = rows.into_iter().filter(|row| row.source == source).collect();
        if rows.is_empty() {
            return None;
        }
        let patterns = rows.iter().map(|row| row.regex.as_str());
        let set = RegexSetBuilder::new(patterns).dfa_size_limit(MATCHER_BYTES_MAX).build().ok()?;
        Some(Self { set, rows: rows.into_iter().map(|row| (row, OnceLock::new())).collect() })
    }

    /// The event of a message, if it is known.
    pub fn find(&self, message: &str) -> Option<Hit<'_>> {
        if self.rows.is_empty() {
            return None;
        }
        let message = message.get(..message.floor_char_boundary(MESSAGE_BYTES_MAX)).unwrap_or(message);
        let first_line = message.split('\n').next().unwrap_or(message);
        // Entries that end with `$` mean the end of the message proper, not of a traceback that follows it.
        let (text, index) = [first_line, message]
            .into_iter()
            .take(if first_line.len() == message.len() { 1 } else { 2 })
            .find_map(|text| self.set.matches(text).iter().next().map(|index| (text, index)))?;
        let (row, regex) = self.rows.get(index)?;
        let regex = regex.get_or_init(|| Regex::new(&row.regex).ok()).as_ref();
        let captures = regex.map(|regex| captures(regex, text)).unwrap_or_default();
        Some(Hit { event: &row.event, severity: row.severity, captures })
    }
}

/// What a SQLSTATE of PostgreSQL stands for where the message itself is not known, such as a translated one.
pub fn event_of_sqlstate(sqlstate: &str) -> Option<Hit<'static>> {
    let (event, severity) = match sqlstate {
        "57P01" => ("admin_terminate", Severity::Info),
        "57P03" => ("conn_rejected_state", Severity::Warning),
        "53300" => ("conn_exhausted", Severity::Critical),
        "53100" => ("disk_full", Severity::Critical),
        "58030" => ("io_error", Severity::Critical),
        "40P01" => ("deadlock", Severity::Warning),
        "25006" => ("readonly_write", Severity::Warning),
        "28P01" => ("auth_failed", Severity::Warning),
        "XX001" => ("page_invalid", Severity::Critical),
        _ => return None,
    };
    Some(Hit { event, severity, captures: Vec::new() })
}

fn captures(regex: &Regex, text: &str) -> Vec<(String, String)> {
    let Some(found) = regex.captures(text) else { return Vec::new() };
    // What the table calls "rest" has no meaning of its own.
    let names = regex.capture_names().flatten().filter(|name| *name != "rest");
    names
        .filter_map(|name| {
            let value = found.name(name)?.as_str();
            let value = value.get(..value.floor_char_boundary(CAPTURE_BYTES_MAX)).unwrap_or("");
            (!value.is_empty()).then(|| (name.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Sampled {
        source: String,
        event: String,
        samples: Vec<String>,
    }

    #[test]
    fn every_sample_is_its_own_event() {
        let rows: Vec<Sampled> = serde_json::from_str(TABLE).unwrap();
        assert_eq!(rows.len(), 343);
        for row in rows {
            let catalogue = for_source(&row.source);
            assert!(!row.samples.is_empty(), "{}", row.event);
            for sample in row.samples {
                let hit = catalogue.find(&sample).unwrap_or_else(|| panic!("{sample} is unknown"));
                assert_eq!(hit.event, row.event, "{sample}");
            }
        }
    }

    #[test]
    fn named_parts_and_tracebacks() {
        let catalogue = for_source("patroni");
        let hit = catalogue.find("Lock owner: n1; I am n2").unwrap();
        assert_eq!(hit.captures, [("owner".to_owned(), "n1".to_owned()), ("node".to_owned(), "n2".to_owned())]);
        let hit = catalogue.find("get_cluster\nTraceback (most recent call last):\n  x").unwrap();
        assert_eq!(hit.event, "dcs_op_exception");
        assert!(catalogue.find("nothing of the kind").is_none());
        assert!(for_source("unknown").find("x").is_none());
    }

    #[test]
    fn sqlstates_stand_for_events_of_the_table() {
        let rows: Vec<Sampled> = serde_json::from_str(TABLE).unwrap();
        for sqlstate in ["57P01", "57P03", "53300", "53100", "58030", "40P01", "25006", "28P01", "XX001"] {
            let event = event_of_sqlstate(sqlstate).unwrap().event;
            assert!(rows.iter().any(|row| row.event == event && row.source == "postgresql"), "{event}");
        }
    }
}
