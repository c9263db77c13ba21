//! The views that are read: one file each, one line in [`VIEWS`].
//!
//! Names are those of the exporter that public dashboards and rules expect; where a name changed between its
//! releases, both are given. Counters have no `_total` where that exporter has none.

mod activity;
mod archiver;
mod bgwriter;
mod conflicts;
mod database;
mod instance;
mod io;
mod locks;
mod recovery;
mod replication;
mod settings;
mod sizes;
mod slots;
mod statements;
mod transactions;
mod user_tables;
mod wal;
mod wal_receiver;
mod wraparound;

use std::borrow::Cow;
use std::time::Duration;

/// A statistics view.
#[derive(Debug)]
pub(crate) struct View {
    /// Names the view's series as a whole, and errors.
    pub(crate) name: &'static str,
    /// How often it is asked at most.
    pub(crate) every: Duration,
    /// The statement for a server, or `None` where it has no such view.
    pub(crate) sql: fn(&Server) -> Option<Cow<'static, str>>,
}

/// What statements depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// 150018 for 15.18.
    pub(crate) version: u32,
    pub(crate) in_recovery: bool,
    /// Quoted schema of pg_stat_statements in the database we are connected to, if it is there and loaded.
    pub(crate) statements_schema: Option<String>,
}

impl Server {
    /// Whether the server is of this major version or newer.
    pub(crate) fn is(&self, major: u32) -> bool {
        self.version >= major * 10_000
    }
}

/// Every round.
const OFTEN: Duration = Duration::from_secs(10);
/// What changes slowly or costs more.
const SELDOM: Duration = Duration::from_mins(1);

/// All views.
pub(crate) const VIEWS: &[&View] = &[
    &instance::VIEW,
    &recovery::VIEW,
    &database::VIEW,
    &conflicts::VIEW,
    &activity::VIEW,
    &transactions::VIEW,
    &locks::VIEW,
    &replication::VIEW,
    &wal_receiver::VIEW,
    &slots::VIEW,
    &slots::WAL_STATUS,
    &bgwriter::VIEW,
    &archiver::VIEW,
    &wal::VIEW,
    &wal::FILES,
    &io::VIEW,
    &settings::VIEW,
    &sizes::VIEW,
    &sizes::ROLES,
    &wraparound::VIEW,
    &statements::VIEW,
    &user_tables::VIEW,
];
