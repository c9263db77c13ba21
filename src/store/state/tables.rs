//! Names of the tables, each with the type of its rows (stored as JSON).
//!
//! Tables whose rows are types of upper layers are defined by their owners, beside those types, with
//! [`Table::new`]; their names are listed here so that no two share one:
//! `alert_states` (rules), `posted_alerts`, `silences`, `nflog` (alert), `outbox`, `notifications` (notify).

use std::marker::PhantomData;

use serde_json::Value;

/// A table: text keys, rows of one type.
#[derive(Clone, Copy, Debug)]
pub struct Table<T> {
    name: &'static str,
    rows: PhantomData<fn() -> T>,
}

impl<T> Table<T> {
    pub const fn new(name: &'static str) -> Self {
        Self { name, rows: PhantomData }
    }

    pub const fn name(&self) -> &'static str {
        self.name
    }
}

/// Incidents by id, as their API shows them.
pub const INCIDENTS: Table<Value> = Table::new("incidents");

/// Snapshots of the judge's belief, by cluster, so that a restart does not repeat events.
pub const JUDGE: Table<Value> = Table::new("judge");

/// Clusters as they were last seen, by name, for a start at which nobody answers.
pub const KNOWN_CLUSTERS: Table<Value> = Table::new("known_clusters");
