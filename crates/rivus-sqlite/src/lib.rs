//! Rivus stores in SQLite files.
//!
//! [`SqliteStore`] keeps packed rows and records as they are and never looks inside. It owns the file: whose it is,
//! its format, its durability, and what each failure of SQLite means to the caller.
//!
//! Several processes may open one file, and one process may open it several times. The write-ahead log lets them
//! read while one writes, each commit takes its seqs under SQLite's write lock, and a commit whose rows moved
//! underneath is refused as stale. Each opening holds a *slot* of its own, by an operating-system lock on a file
//! beside the database that ends with the process, however it ends; so writers that run at the same time can be
//! told apart ([`SqliteStore::slot`]). The file must be on a local disk: network file systems do not keep the
//! locks and the shared memory that this stands on.

mod fault;
mod file;
mod lead;
mod scopes;
mod slot;
mod store;
#[cfg(test)]
mod tests;
mod views;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rivus_core::store::{Head, StoreError};
pub use rusqlite;
use rusqlite::Connection;

use crate::fault::fault;
pub use crate::lead::Lead;
use crate::slot::Slot;

/// When a commit is on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Synchronous {
    /// Before it returns: it survives a loss of power.
    #[default]
    Full,
    /// At the next checkpoint: it survives the end of the process, but the last commits may be lost with the power.
    Normal,
    /// When the system likes: a loss of power may damage the file. For data that can be made again.
    Off,
}

/// How to open a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// When a commit is on the disk.
    pub synchronous: Synchronous,
    /// How long a commit waits for another writer before it fails as busy.
    pub busy_timeout: Duration,
    /// How many pages of 4,096 bytes the file may have; more is a full disk.
    pub page_count_max: Option<u32>,
    /// After how many pages the write-ahead log is folded into the database.
    pub log_pages: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            synchronous: Synchronous::Full,
            busy_timeout: Duration::from_secs(5),
            page_count_max: None,
            log_pages: LOG_PAGES,
        }
    }
}

/// A store in an SQLite file, or in memory.
#[derive(Debug)]
pub struct SqliteStore {
    conn: Connection,
    /// What errors call it.
    name: String,
    /// Where the file is, unless it is in memory.
    path: Option<PathBuf>,
    slot: Slot,
    /// The head, and the count of others' commits when it was read. Every connection of a hub asks for it after every
    /// commit.
    head: RefCell<Option<Box<(i64, Head)>>>,
}

impl SqliteStore {
    /// Opens the store at `path`, and makes one if there is no file or an empty one.
    ///
    /// # Errors
    /// [`StoreError`]: `Damaged` for a file that is not a Rivus store, `TooNew` for one of a newer version, `Busy`
    /// if another process locks it or all slots are taken, `Io` if it cannot be opened. A file that is not a Rivus
    /// store of a known version is left as it was.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let (conn, path) = file::open(path, options)?;
        let name = path.display().to_string();
        let slot = Slot::take(&path)?;
        tracing::debug!(path = name, slot = slot.number(), "store opened");
        Ok(Self { conn, name, path: Some(path), slot, head: RefCell::default() })
    }

    /// A store that is gone when dropped. It has slot 0.
    ///
    /// # Errors
    /// [`StoreError::Io`] if there is no memory for it.
    pub fn open_in_memory() -> Result<Self, StoreError> {
        let name = "the store in memory".to_owned();
        let conn = file::open_in_memory(&name)?;
        Ok(Self { conn, name, path: None, slot: Slot::alone(), head: RefCell::default() })
    }

    /// The number of this opening among those that have the file open now: the lowest that was free. Free again
    /// once this store is dropped or its process ends.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slot.number()
    }

    /// Where the file is, unless it is in memory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// A number that changes when somebody else, and not this store, has committed.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub fn data_version(&self) -> Result<i64, StoreError> {
        let version = self.conn.prepare_cached(store::DATA_VERSION);
        version.and_then(|mut version| version.query_row([], |row| row.get(0))).map_err(|e| self.fault(&e))
    }

    /// Another connection to the file, which sees the last commit and can only read: for tables of views.
    ///
    /// # Errors
    /// [`StoreError::Io`] for a store in memory, which has one connection only; others if the file cannot be opened.
    pub fn read_connection(&self) -> Result<Connection, StoreError> {
        let Some(path) = &self.path else {
            let text = "a store in memory cannot be read from outside: open a file";
            return Err(StoreError::Io(text.to_owned()));
        };
        file::open_to_read(path, READ_TIMEOUT).map_err(|error| self.fault(&error))
    }

    /// Reads the whole file and checks it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with the first findings; others if it cannot be read.
    pub fn integrity_check(&self) -> Result<(), StoreError> {
        let findings = self.findings().map_err(|error| self.fault(&error))?;
        if findings.is_empty() {
            return Ok(());
        }
        Err(StoreError::Damaged(format!("{}: {}", self.name, findings.join("; "))))
    }

    fn findings(&self) -> rusqlite::Result<Vec<String>> {
        let mut findings = Vec::new();
        let mut check = self.conn.prepare(&format!("PRAGMA integrity_check({FINDINGS_MAX})"))?;
        let mut rows = check.query([])?;
        while let Some(row) = rows.next()? {
            let finding: String = row.get(0)?;
            if finding != "ok" {
                findings.push(finding);
            }
        }
        let beyond = "SELECT count(*) FROM entity WHERE seq > (SELECT seq FROM head)";
        let beyond: i64 = self.conn.query_row(beyond, [], |row| row.get(0))?;
        if beyond > 0 {
            findings.push(format!("{beyond} rows have a seq above the head"));
        }
        Ok(findings)
    }

    /// Writes a compact copy of the store, as of now, to a new file. Others may read and write meanwhile.
    ///
    /// A copy that is opened counts as a restored backup; replicas notice that by its incarnations.
    ///
    /// # Errors
    /// [`StoreError::Place`] if there is something at `path` already, [`StoreError::Io`] if it cannot be written, `Full` if there is no
    /// room for it. Nothing is left at `path` then, except what was there before.
    pub fn backup_to(&self, path: impl AsRef<Path>) -> Result<(), StoreError> {
        let target = path.as_ref();
        let name = target.display().to_string();
        let io = |what: &dyn std::fmt::Display| StoreError::Io(format!("backup to {name}: {what}"));
        let text = target.to_str().ok_or_else(|| io(&"the path is not UTF-8"))?;
        // Creating it here says that it is new, and that it is ours to remove.
        std::fs::File::create_new(target).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                StoreError::Place(format!("{name} is there already, left as it is: name a file that is not"))
            }
            _ => io(&error),
        })?;
        self.conn.execute("VACUUM INTO ?1", [text]).map(drop).map_err(|error| {
            let removed = [target.to_owned(), beside(target, "-journal")].map(std::fs::remove_file);
            tracing::debug!(path = name, ?removed, "partial backup removed");
            fault(&format!("backup of {} to {name}", self.name), &error)
        })
    }

    fn fault(&self, error: &rusqlite::Error) -> StoreError {
        fault(&self.name, error)
    }
}

/// The file with this ending beside another.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// How long a read connection waits for whoever locks the whole file, which happens only when it is opened or closed.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// After how many pages (of 4,096 bytes) the log is folded into the database, unless told otherwise.
const LOG_PAGES: u32 = 4_000;
/// How many findings an integrity check reports.
const FINDINGS_MAX: u32 = 5;
