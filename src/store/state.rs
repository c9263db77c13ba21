//! Small state that must never be lost: alert states, incidents, silences, the notification outbox, audit, tokens.
//!
//! One redb file. Every change is one transaction with all that it causes, durable (synced) when [`StateStore::write`]
//! returns. A torn write is rolled back at the next open. A file that cannot be read is renamed to `*.damaged-<time>`
//! and a fresh one is started; [`StateStore::set_aside`] names it, so that the caller can say so.
//!
//! A full disk fails the write. The engine then refuses everything, reads included, until it is opened anew: the store
//! does that by itself, at once and again with each call until it succeeds.
//!
//! The store knows names of tables and JSON; the types belong to the modules that own the tables.

pub mod tables;
pub mod tokens;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard};
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase as _, ReadableTable, TableDefinition, TableError,
    WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::Timestamp;
pub use tables::Table;

/// Version of the tables' layout. A file with a higher one was written by a newer program.
const SCHEMA_VERSION: u64 = 1;

/// Memory for pages; the whole state of a large fleet is a few MiB.
const CACHE_BYTES: usize = 8 << 20;

/// How long opening anew waits for transactions that are under way.
const REOPEN_PATIENCE: Duration = Duration::from_secs(1);

const META: Table<u64> = Table::new("meta");

/// What the state store cannot do.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("open the state in {path}; is another daraji running on this data directory?")]
    Locked { path: PathBuf },
    #[error("open the state in {path}")]
    Open { path: PathBuf, source: DatabaseError },
    #[error("state in {path} has schema version {found}, this program knows {SCHEMA_VERSION}: use a newer daraji")]
    Newer { path: PathBuf, found: u64 },
    #[error("the state in {path} was damaged while the server ran; restart it, which sets the file aside")]
    Damaged { path: PathBuf },
    #[error("the state in {path} is closed after a failure and could not be opened again yet")]
    Closed { path: PathBuf },
    #[error("set the damaged state in {path} aside")]
    SetAside { path: PathBuf, source: io::Error },
    #[error("{operation} in the state store")]
    Engine { operation: &'static str, source: Box<redb::Error> },
    #[error("encode a row of table {table}")]
    Encode { table: &'static str, source: serde_json::Error },
    #[error("row {key:?} of table {table} is not readable")]
    Decode { table: &'static str, key: String, source: serde_json::Error },
    #[error("make a token")]
    Random(#[from] crate::platform::random::RandomError),
    #[error("a token named {0:?} exists already")]
    TokenExists(String),
}

fn engine(operation: &'static str) -> impl Fn(redb::Error) -> StateError {
    move |source| StateError::Engine { operation, source: Box::new(source) }
}

/// The state store. Share it by `Arc`; reads see the last commit, writes queue for one writer.
pub struct StateStore {
    /// `None` after a failure, when opening anew failed too. Locked for writing only to open anew.
    database: RwLock<Option<Database>>,
    path: PathBuf,
    set_aside: Option<PathBuf>,
}

impl fmt::Debug for StateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl StateStore {
    /// Opens `state.redb` in `dir`, or creates it. `now` names a damaged file that is set aside.
    pub fn open(dir: &Path, now: Timestamp) -> Result<Self, StateError> {
        let path = dir.join("state.redb");
        let mut set_aside = None;
        let database = match open_checked(&path) {
            Ok(database) => database,
            Err(OpenFailure::Refused(error)) => return Err(error),
            Err(OpenFailure::Damaged) => {
                let aside = dir.join(format!("state.redb.damaged-{}", now.millis()));
                std::fs::rename(&path, &aside).map_err(|source| StateError::SetAside { path: path.clone(), source })?;
                set_aside = Some(aside);
                match open_checked(&path) {
                    Ok(database) => database,
                    Err(OpenFailure::Refused(error)) => return Err(error),
                    Err(OpenFailure::Damaged) => return Err(StateError::Locked { path }),
                }
            }
        };
        let store = Self { database: RwLock::new(Some(database)), path, set_aside };
        store.check_schema()?;
        Ok(store)
    }

    /// Where a damaged predecessor of this store was put when it was opened.
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    /// Does several changes at once: all of them are durable when this returns `Ok`, none is done on `Err`.
    pub fn write<R, E: From<StateError>>(&self, work: impl FnOnce(&WriteTx) -> Result<R, E>) -> Result<R, E> {
        let mut slot = self.database.read_recursive();
        let tx = match self.begin_write(&slot) {
            Ok(tx) => tx,
            Err(_failed_before) => {
                drop(slot);
                self.open_anew()?;
                slot = self.database.read_recursive();
                self.begin_write(&slot)?
            }
        };
        let done = match work(&tx) {
            Ok(result) => tx.0.commit().map(|()| result).map_err(|error| engine("commit")(error.into()).into()),
            // Dropping the transaction aborts it.
            Err(error) => {
                drop(tx);
                Err(error)
            }
        };
        drop(slot);
        if done.is_err() {
            // The cause stands in `done`; the next call tries again and says what is wrong then.
            drop(self.open_anew());
        }
        done
    }

    /// A consistent view of the last commit.
    pub fn read(&self) -> Result<ReadTx, StateError> {
        if let Ok(tx) = self.begin_read(&self.database.read_recursive()) {
            return Ok(tx);
        }
        self.open_anew()?;
        self.begin_read(&self.database.read_recursive())
    }

    fn begin_write(&self, slot: &RwLockReadGuard<'_, Option<Database>>) -> Result<WriteTx, StateError> {
        let database = slot.as_ref().ok_or_else(|| StateError::Closed { path: self.path.clone() })?;
        database.begin_write().map(WriteTx).map_err(|error| engine("begin a transaction")(error.into()))
    }

    fn begin_read(&self, slot: &RwLockReadGuard<'_, Option<Database>>) -> Result<ReadTx, StateError> {
        let database = slot.as_ref().ok_or_else(|| StateError::Closed { path: self.path.clone() })?;
        database.begin_read().map(ReadTx).map_err(|error| engine("begin to read")(error.into()))
    }

    /// Opens the file anew if the engine has given up on it. Whoever reads inside a transaction gets an error instead
    /// of a wait for itself.
    fn open_anew(&self) -> Result<(), StateError> {
        let Some(mut slot) = self.database.try_write_for(REOPEN_PATIENCE) else {
            return Err(StateError::Closed { path: self.path.clone() });
        };
        if slot.as_ref().is_some_and(|database| database.begin_write().is_ok()) {
            return Ok(());
        }
        // Closes the file, which must be before it is opened.
        *slot = None;
        match open_checked(&self.path) {
            Ok(database) => *slot = Some(database),
            Err(OpenFailure::Refused(error)) => return Err(error),
            Err(OpenFailure::Damaged) => return Err(StateError::Damaged { path: self.path.clone() }),
        }
        Ok(())
    }

    fn check_schema(&self) -> Result<(), StateError> {
        let found = self.read()?.get(&META, "schema_version")?;
        match found {
            Some(SCHEMA_VERSION) => Ok(()),
            Some(found) if found > SCHEMA_VERSION => Err(StateError::Newer { path: self.path.clone(), found }),
            _ => self.write(|tx| tx.put(&META, "schema_version", &SCHEMA_VERSION)),
        }
    }
}

enum OpenFailure {
    /// The file is not readable as a database.
    Damaged,
    /// Something else is wrong; the file must stay as it is.
    Refused(StateError),
}

/// Opens with every page's checksum verified. Some kinds of damage make the engine panic: that is damage too.
fn open_checked(path: &Path) -> Result<Database, OpenFailure> {
    let open = || {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        builder.create(path)
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch)) => {
            Err(OpenFailure::Refused(StateError::Locked { path: path.to_owned() }))
        }
        Ok(Err(error)) if is_damage(&error) => Err(OpenFailure::Damaged),
        Ok(Err(source)) => Err(OpenFailure::Refused(StateError::Open { path: path.to_owned(), source })),
        Err(_panic) => Err(OpenFailure::Damaged),
    }
}

fn is_damage(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Storage(redb::StorageError::Corrupted(_)) | DatabaseError::RepairAborted => true,
        DatabaseError::Storage(redb::StorageError::Io(error)) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

const fn definition(name: &'static str) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(name)
}

fn decode<T: DeserializeOwned>(table: &Table<T>, key: &str, bytes: &[u8]) -> Result<T, StateError> {
    serde_json::from_slice(bytes).map_err(|source| StateError::Decode {
        table: table.name(),
        key: key.to_owned(),
        source,
    })
}

/// Rows of a table whose keys start with `prefix`, in order of their keys, at most `limit`.
fn scan_table<T: DeserializeOwned>(
    rows: &impl ReadableTable<&'static str, &'static [u8]>,
    table: &Table<T>,
    prefix: &str,
    limit: usize,
) -> Result<Vec<(String, T)>, StateError> {
    let failed = engine("scan a table");
    let mut found = Vec::new();
    for row in rows.range(prefix..).map_err(|error| failed(error.into()))? {
        let (key, value) = row.map_err(|error| failed(error.into()))?;
        if found.len() >= limit || !key.value().starts_with(prefix) {
            break;
        }
        found.push((key.value().to_owned(), decode(table, key.value(), value.value())?));
    }
    Ok(found)
}

/// Changes that happen together.
pub struct WriteTx(WriteTransaction);

impl fmt::Debug for WriteTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteTx")
    }
}

impl WriteTx {
    /// Inserts or replaces a row.
    pub fn put<T: Serialize>(&self, table: &Table<T>, key: &str, value: &T) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(value).map_err(|source| StateError::Encode { table: table.name(), source })?;
        let failed = engine("write a row");
        let mut rows = self.0.open_table(definition(table.name())).map_err(|error| failed(error.into()))?;
        rows.insert(key, bytes.as_slice()).map_err(|error| failed(error.into()))?;
        Ok(())
    }

    /// Removes a row; says whether there was one.
    pub fn delete<T>(&self, table: &Table<T>, key: &str) -> Result<bool, StateError> {
        let failed = engine("delete a row");
        let mut rows = self.0.open_table(definition(table.name())).map_err(|error| failed(error.into()))?;
        let removed = rows.remove(key).map_err(|error| failed(error.into()))?;
        Ok(removed.is_some())
    }

    /// A row as this transaction sees it.
    pub fn get<T: DeserializeOwned>(&self, table: &Table<T>, key: &str) -> Result<Option<T>, StateError> {
        let failed = engine("read a row");
        let rows = self.0.open_table(definition(table.name())).map_err(|error| failed(error.into()))?;
        let row = rows.get(key).map_err(|error| failed(error.into()))?;
        row.map(|bytes| decode(table, key, bytes.value())).transpose()
    }

    /// Rows whose keys start with `prefix`, in order of their keys, at most `limit`.
    pub fn scan<T: DeserializeOwned>(
        &self,
        table: &Table<T>,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<(String, T)>, StateError> {
        let failed = engine("scan a table");
        let rows = self.0.open_table(definition(table.name())).map_err(|error| failed(error.into()))?;
        scan_table(&rows, table, prefix, limit)
    }
}

/// A view that later commits do not change.
pub struct ReadTx(ReadTransaction);

impl fmt::Debug for ReadTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadTx")
    }
}

impl ReadTx {
    fn open<T>(
        &self,
        table: &Table<T>,
    ) -> Result<Option<redb::ReadOnlyTable<&'static str, &'static [u8]>>, StateError> {
        match self.0.open_table(definition(table.name())) {
            Ok(rows) => Ok(Some(rows)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(engine("open a table")(error.into())),
        }
    }

    pub fn get<T: DeserializeOwned>(&self, table: &Table<T>, key: &str) -> Result<Option<T>, StateError> {
        let Some(rows) = self.open(table)? else { return Ok(None) };
        let row = rows.get(key).map_err(|error| engine("read a row")(error.into()))?;
        row.map(|bytes| decode(table, key, bytes.value())).transpose()
    }

    /// Rows whose keys start with `prefix`, in order of their keys, at most `limit`.
    pub fn scan<T: DeserializeOwned>(
        &self,
        table: &Table<T>,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<(String, T)>, StateError> {
        let Some(rows) = self.open(table)? else { return Ok(Vec::new()) };
        scan_table(&rows, table, prefix, limit)
    }

    /// The rows with the highest keys, highest first, at most `limit`.
    pub fn scan_last<T: DeserializeOwned>(
        &self,
        table: &Table<T>,
        limit: usize,
    ) -> Result<Vec<(String, T)>, StateError> {
        let Some(rows) = self.open(table)? else { return Ok(Vec::new()) };
        let failed = engine("scan a table");
        let mut found = Vec::new();
        for row in rows.iter().map_err(|error| failed(error.into()))?.rev().take(limit) {
            let (key, value) = row.map_err(|error| failed(error.into()))?;
            found.push((key.value().to_owned(), decode(table, key.value(), value.value())?));
        }
        Ok(found)
    }
}
