//! The file: whose it is, and its format.
//!
//! A file is opened for good only once it is known to be ours. Until then nothing is written, and leaving does not
//! even fold another program's log into its database. Looking at the file goes through SQLite alone: opening and
//! closing it by other means would drop the locks that this process holds on it through other connections.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rivus_core::store::StoreError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, TransactionBehavior};

use crate::fault::fault;
use crate::{Options, Synchronous, beside};

/// Opens a file, brings it to this version's format, and gives its canonical path.
pub(crate) fn open(path: &Path, options: Options) -> Result<(Connection, PathBuf), StoreError> {
    let io = |error: std::io::Error| StoreError::Io(format!("{}: {error}", path.display()));
    // Absolute, so that SQLite takes no path for one of its special names.
    let path = std::path::absolute(path).map_err(io)?;
    let name = path.display().to_string();
    refuse_place(&path)?;
    refuse_remains(&path, &name)?;
    let fault = |error: Error| fault(&name, &error);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(&path, flags).map_err(fault)?;
    conn.busy_timeout(options.busy_timeout.min(BUSY_TIMEOUT_MAX)).map_err(fault)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(fault)?;
    plan_once(&conn).map_err(fault)?;
    configure(&conn, options).map_err(fault)?;
    migrate(&mut conn, &name)?;
    switch_to_wal(&conn, options.busy_timeout).map_err(fault)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(fault)?;
    let path = path.canonicalize().map_err(io)?;
    Ok((conn, path))
}

/// Opens a store in memory.
pub(crate) fn open_in_memory(name: &str) -> Result<Connection, StoreError> {
    let mut conn = Connection::open_in_memory().map_err(|error| fault(name, &error))?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    plan_once(&conn).map_err(|error| fault(name, &error))?;
    migrate(&mut conn, name)?;
    Ok(conn)
}

/// Opens another connection to a store's file, which can only read.
pub(crate) fn open_to_read(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(busy_timeout)?;
    conn.execute_batch("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF;")?;
    Ok(conn)
}

/// Refuses where no file can be, which SQLite merely cannot open.
fn refuse_place(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Err(StoreError::Place(format!("{} is a folder: name a file in it", path.display())));
    }
    match path.parent().filter(|folder| !folder.is_dir()) {
        None => Ok(()),
        Some(folder) => {
            let text = format!("{}: there is no folder {}", path.display(), folder.display());
            Err(StoreError::Place(format!("{text}: make it, or name another")))
        }
    }
}

/// Refuses what SQLite would take for a new database. A store makes its log after its database, so a log beside
/// an empty file is all that is left after the database was cut off; SQLite deletes it.
fn refuse_remains(path: &Path, name: &str) -> Result<(), StoreError> {
    let length = |path: &Path| path.metadata().map_or(0, |file| file.len());
    // In this order: another process may be making the store right now.
    let (log, database) = (length(&beside(path, "-wal")), length(path));
    let text = match database {
        0 if log > 0 => "the file is empty but has a write-ahead log beside it, left as it is",
        1..DATABASE_BYTES_MIN => "file is not a database: it is too short",
        _ => return Ok(()),
    };
    Err(StoreError::Damaged(format!("{name}: {text}")))
}

/// Plans each statement once. Otherwise SQLite looks into what is bound, and plans the same again for every value:
/// most of the time that a load takes.
fn plan_once(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

fn configure(conn: &Connection, options: Options) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    let synchronous = match options.synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
        Synchronous::Off => "OFF",
    };
    conn.execute_batch(&format!(
        "PRAGMA synchronous = {synchronous};
         PRAGMA wal_autocheckpoint = {};
         PRAGMA journal_size_limit = {LOG_BYTES_KEPT};
         PRAGMA cache_size = -{CACHE_KIB};
         PRAGMA trusted_schema = OFF;",
        options.log_pages
    ))?;
    match options.page_count_max {
        Some(max) => conn.execute_batch(&format!("PRAGMA max_page_count = {max}")),
        None => Ok(()),
    }
}

/// Brings the file to the newest format. Writes nothing unless it is ours, or empty.
fn migrate(conn: &mut Connection, name: &str) -> Result<(), StoreError> {
    let fault = |error: Error| fault(name, &error);
    let snapshot = conn.transaction().map_err(fault)?;
    let found = format(&snapshot, name)?;
    snapshot.commit().map_err(fault)?;
    if found == newest() {
        return Ok(());
    }
    // Another process may be faster: only what is found under the write lock counts.
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
    let found = format(&transaction, name)?;
    for (to, migration) in (1..).zip(MIGRATIONS).filter(|(to, _)| *to > found) {
        tracing::debug!(name, to, "store format changes");
        migration(&transaction).map_err(fault)?;
        transaction.pragma_update(None, "user_version", to).map_err(fault)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(fault)?;
    transaction.commit().map_err(fault)
}

/// The format of a file that is ours; 0 if it is empty.
fn format(conn: &Connection, name: &str) -> Result<i64, StoreError> {
    let number = |sql| conn.query_row(sql, [], |row| row.get(0)).map_err(|error| fault(name, &error));
    let owner: i64 = number("PRAGMA application_id")?;
    let found = number("PRAGMA user_version")?;
    let known = newest();
    match (owner, found) {
        (APPLICATION_ID, 1..) if found > known => Err(StoreError::TooNew { found, known }),
        (APPLICATION_ID, 1..) => Ok(found),
        (0, 0) if number("SELECT count(*) FROM sqlite_schema")? == 0 => Ok(0),
        _ => {
            let text = "an SQLite database of another program, left as it is; name another file";
            Err(StoreError::Damaged(format!("{name}: {text}")))
        }
    }
}

/// SQLite does not wait for others here, so this does.
fn switch_to_wal(conn: &Connection, patience: Duration) -> rusqlite::Result<()> {
    let since = Instant::now();
    loop {
        let mode = conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0));
        match mode {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                if since.elapsed() >= patience {
                    return Err(error);
                }
                std::thread::sleep(WAL_RETRY);
            }
            other => return other.map(drop),
        }
    }
}

/// The newest format.
pub(crate) fn newest() -> i64 {
    (1..).zip(MIGRATIONS).map(|(version, _)| version).last().unwrap_or(0)
}

/// Each brings a file from the format of its index to the next.
const MIGRATIONS: [fn(&Connection) -> rusqlite::Result<()>; 2] = [create, divide];

/// Numbers of 64 bits are kept as the signed number of the same bits; sums of 128 bits as 16 bytes, big-endian.
fn create(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(
        "CREATE TABLE entity (
             scope INTEGER NOT NULL,
             kind TEXT NOT NULL,
             id TEXT NOT NULL,
             start BLOB NOT NULL,
             seq INTEGER NOT NULL CHECK (seq > 0),
             state BLOB NOT NULL
         ) STRICT;
         CREATE UNIQUE INDEX entity_place ON entity (kind, id, start);
         CREATE UNIQUE INDEX entity_seq ON entity (scope, seq);
         CREATE TABLE record (
             tab INTEGER NOT NULL,
             key BLOB NOT NULL,
             value BLOB NOT NULL,
             PRIMARY KEY (tab, key)
         ) STRICT, WITHOUT ROWID;
         CREATE TABLE head (
             one INTEGER PRIMARY KEY CHECK (one = 1),
             seq INTEGER NOT NULL CHECK (seq >= 0),
             high_water INTEGER NOT NULL,
             shown BLOB NOT NULL CHECK (length(shown) = 16),
             confirmed BLOB NOT NULL CHECK (length(confirmed) = 16),
             count INTEGER NOT NULL
         ) STRICT;
         INSERT INTO head VALUES (1, 0, 0, zeroblob(16), zeroblob(16), 0);
         CREATE TABLE incarnation (first INTEGER PRIMARY KEY, id INTEGER NOT NULL) STRICT;",
    )
}

/// Format 2: rows are in scopes. One order of changes for all of them, and one for each that has a name.
fn divide(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(
        "DROP INDEX entity_seq;
         CREATE UNIQUE INDEX entity_seq ON entity (seq);
         CREATE INDEX entity_scope ON entity (scope, seq) WHERE scope <> 0;
         CREATE TABLE scope (
             number INTEGER PRIMARY KEY CHECK (number > 0),
             name TEXT NOT NULL UNIQUE,
             shown BLOB NOT NULL CHECK (length(shown) = 16),
             confirmed BLOB NOT NULL CHECK (length(confirmed) = 16),
             count INTEGER NOT NULL
         ) STRICT;
         CREATE TABLE departed (
             scope INTEGER NOT NULL,
             kind TEXT NOT NULL,
             id TEXT NOT NULL,
             seq INTEGER NOT NULL CHECK (seq > 0),
             PRIMARY KEY (scope, kind, id)
         ) STRICT, WITHOUT ROWID;
         CREATE INDEX departed_entity ON departed (kind, id);
         CREATE INDEX departed_seq ON departed (scope, seq);",
    )
}

/// Says that a file is ours: `Rivu`.
pub(crate) const APPLICATION_ID: i64 = 0x5269_7675;
/// The log file is cut down to this many bytes when it starts anew.
const LOG_BYTES_KEPT: u32 = 64 << 20;
/// How much of the database each connection keeps in memory.
const CACHE_KIB: u32 = 8 << 10;
/// The smallest page that SQLite has, in bytes.
const DATABASE_BYTES_MIN: u64 = 512;
/// The longest that SQLite can wait.
const BUSY_TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX.unsigned_abs() as u64);
/// How many prepared statements are kept: all that there are, and those of some tables of views.
const STATEMENTS_MAX: usize = 64;
/// How long to wait before the next try to switch the log on.
const WAL_RETRY: Duration = Duration::from_millis(2);
