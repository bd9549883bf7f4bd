//! [`Store`] on the tables.

use std::borrow::Cow;
use std::ops::ControlFlow;

use rivus_core::id::Incarnation;
use rivus_core::store::{
    Batch, Changed, Chunk, CommitError, Digest, Head, HighWater, Place, Record, RecordKey, RecordRead,
    RecordWrite, ScopeChange, Store, StoreError, Table,
};
use rusqlite::types::FromSqlResult;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use crate::{SqliteStore, scopes, views};

impl Store for SqliteStore {
    fn head(&self) -> Result<Head, StoreError> {
        self.head_now().map_err(|error| self.fault(&error))
    }

    fn load(&self, kind: &str, id: &str, address: &[u8]) -> Result<Option<Chunk<'_>>, StoreError> {
        let chunk = |row: &Row<'_>| {
            Ok(Chunk {
                start: Cow::Owned(row.get(0)?),
                seq: row.get::<_, i64>(1)?.cast_unsigned(),
                bytes: Cow::Owned(row.get(2)?),
                place: Place(row.get::<_, i64>(3)?.cast_unsigned()),
            })
        };
        let found = self.conn.prepare_cached(LOAD);
        let found = found.and_then(|mut load| load.query_row((kind, id, address), chunk).optional());
        found.map_err(|error| self.fault(&error))
    }

    fn changes(
        &self,
        after: u64,
        visit: &mut dyn FnMut(Changed<'_>) -> ControlFlow<()>,
    ) -> Result<Head, StoreError> {
        let read = |conn: &Connection| {
            let head = self.head_now()?;
            // No seq is beyond i64, so a position there is past every row.
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            let mut changes = conn.prepare_cached(CHANGES)?;
            let mut rows = changes.query([after])?;
            while let Some(row) = rows.next()? {
                let changed = Changed {
                    kind: text(row, 0)?,
                    id: text(row, 1)?,
                    seq: row.get::<_, i64>(2)?.cast_unsigned(),
                    bytes: blob(row, 3)?,
                };
                if visit(changed).is_break() {
                    break;
                }
            }
            Ok(head)
        };
        snapshot(&self.conn, read).map_err(|error| self.fault(&error))
    }

    fn changes_in(
        &self,
        scope: &str,
        after: u64,
        visit: &mut dyn FnMut(ScopeChange<'_>) -> ControlFlow<()>,
    ) -> Result<Head, StoreError> {
        let read = |conn: &Connection| {
            let head = head(conn)?;
            let digest = scopes::digest(conn, scope, head.digest)?;
            scopes::changes(conn, scope, after, visit)?;
            Ok(Head { digest, ..head })
        };
        snapshot(&self.conn, read).map_err(|error| self.fault(&error))
    }

    fn scopes(&self) -> Result<Vec<(String, Digest)>, StoreError> {
        scopes::named(&self.conn).map_err(|error| self.fault(&error))
    }

    fn has_left(&self, scope: &str, after: u64) -> Result<bool, StoreError> {
        scopes::has_left(&self.conn, scope, after).map_err(|error| self.fault(&error))
    }

    fn left_by(&self, kind: &str, id: &str) -> Result<Vec<String>, StoreError> {
        scopes::left_by(&self.conn, kind, id).map_err(|error| self.fault(&error))
    }

    fn kinds(&self) -> Result<Vec<String>, StoreError> {
        let kinds = self.conn.prepare_cached(KINDS);
        let kinds = kinds.and_then(|mut kinds| kinds.query_map([], |row| row.get(0))?.collect());
        kinds.map_err(|error| self.fault(&error))
    }

    fn ids(&self, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (sql, after) = after.map_or((IDS, ""), |after| (IDS_AFTER, after));
        let ids = self.conn.prepare_cached(sql);
        let ids = ids.and_then(|mut ids| ids.query_map((kind, after, limit), |row| row.get(0))?.collect());
        ids.map_err(|error| self.fault(&error))
    }

    fn records(
        &self,
        table: Table,
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut read = || {
            let mut records = self.conn.prepare_cached(RECORDS)?;
            let mut rows = records.query((table as u8, from))?;
            while let Some(row) = rows.next()? {
                if visit(blob(row, 0)?, blob(row, 1)?).is_break() {
                    break;
                }
            }
            Ok(())
        };
        read().map_err(|error| self.fault(&error))
    }

    fn record(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.conn.prepare_cached(RECORD);
        let found =
            found.and_then(|mut find| find.query_row((table as u8, key), |row| row.get(0)).optional());
        found.map_err(|error| self.fault(&error))
    }

    fn last_record(&self, table: Table, below: &[u8]) -> Result<Option<Record>, StoreError> {
        let last = self.conn.prepare_cached(LAST_RECORD);
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let last = last.and_then(|mut last| last.query_row((table as u8, below), read).optional());
        last.map_err(|error| self.fault(&error))
    }

    fn others(&self) -> Result<Option<i64>, StoreError> {
        self.data_version().map(Some)
    }

    fn together<T>(&self, read: impl FnOnce() -> T) -> Result<T, StoreError> {
        snapshot(&self.conn, |_| Ok(read())).map_err(|error| self.fault(&error))
    }

    fn begin_reading(&self) {
        self.end_reading();
        // Whatever keeps it from beginning tells so when something is read.
        let _ = execute(&self.conn, BEGIN);
    }

    fn end_reading(&self) {
        if !self.conn.is_autocommit() {
            drop(Open(&self.conn));
        }
    }

    fn projects(&self) -> bool {
        true
    }

    fn commit(&mut self, batch: Batch<'_>) -> Result<u64, CommitError> {
        self.end_reading();
        self.head.replace(None);
        match commit(&mut self.conn, batch) {
            Ok(Some(seq)) => Ok(seq),
            Ok(None) => Err(CommitError::Stale),
            Err(error) => Err(self.fault(&error).into()),
        }
    }
}

impl SqliteStore {
    /// The head as of now, or as of the snapshot that is being read.
    fn head_now(&self) -> rusqlite::Result<Head> {
        // Own commits forget it; what others commit shows in this count. If they do between it and the read the head is
        // newer than what is noted, and read once more.
        let others = self.conn.prepare_cached(DATA_VERSION)?.query_row([], |row| row.get(0))?;
        if let Some(known) = &*self.head.borrow()
            && known.0 == others
        {
            return Ok(known.1.clone());
        }
        let read = snapshot(&self.conn, head)?;
        self.head.replace(Some(Box::new((others, read.clone()))));
        Ok(read)
    }
}

/// Reads several things as of one moment.
fn snapshot<T>(
    conn: &Connection,
    read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    // A visitor may come back to read: it is in the snapshot already.
    if !conn.is_autocommit() {
        return read(conn);
    }
    execute(conn, BEGIN)?;
    let _open = Open(conn);
    read(conn)
}

/// A snapshot that ends with this.
struct Open<'c>(&'c Connection);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // Nothing was written: it may as well be taken back.
        if execute(self.0, COMMIT).is_err() && !self.0.is_autocommit() {
            let _ = execute(self.0, ROLLBACK);
        }
    }
}

fn execute(conn: &Connection, statement: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(statement)?.execute(())?;
    Ok(())
}

/// The head without its incarnations.
fn bare_head(conn: &Connection) -> rusqlite::Result<Head> {
    conn.prepare_cached(HEAD)?.query_row([], |row| {
        let digest = Digest {
            shown: u128::from_be_bytes(row.get(2)?),
            confirmed: u128::from_be_bytes(row.get(3)?),
            count: row.get::<_, i64>(4)?.cast_unsigned(),
        };
        Ok(Head {
            seq: row.get::<_, i64>(0)?.cast_unsigned(),
            incarnations: Vec::new(),
            high_water: row.get::<_, i64>(1)?.cast_unsigned(),
            digest,
        })
    })
}

fn head(conn: &Connection) -> rusqlite::Result<Head> {
    let mut head = bare_head(conn)?;
    let mut incarnations = conn.prepare_cached(INCARNATIONS)?;
    let opening = |row: &Row<'_>| {
        Ok((Incarnation(row.get::<_, i64>(0)?.cast_unsigned()), row.get::<_, i64>(1)?.cast_unsigned()))
    };
    head.incarnations = incarnations.query_map([], opening)?.collect::<rusqlite::Result<_>>()?;
    Ok(head)
}

pub(crate) fn text<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<&'r str> {
    typed(column, row.get_ref(column)?.as_str())
}

pub(crate) fn blob<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<&'r [u8]> {
    typed(column, row.get_ref(column)?.as_blob())
}

fn typed<T>(column: usize, value: FromSqlResult<T>) -> rusqlite::Result<T> {
    value.map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Null, Box::new(error))
    })
}

/// Commits the batch and gives the head seq; `None` if it is stale. Leaving without a commit rolls back.
fn commit(conn: &mut Connection, batch: Batch<'_>) -> rusqlite::Result<Option<u64>> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let before = bare_head(&transaction)?;
    if batch.head.is_some_and(|seq| seq != before.seq) {
        return Ok(None);
    }
    for read in batch.unchanged.iter() {
        if held(&transaction, read)? != read.value {
            return Ok(None);
        }
    }
    let Some(seq) = write_rows(&transaction, &batch, before.seq)? else { return Ok(None) };
    scopes::commit(&transaction, &batch, seq)?;
    if let Some(incarnation) = batch.incarnation.filter(|_| seq > before.seq) {
        let first = (before.seq + 1).cast_signed();
        transaction.prepare_cached(OPEN)?.execute((first, incarnation.0.cast_signed()))?;
    }
    for record in batch.records.iter() {
        write_record(&transaction, record, seq)?;
    }
    views::write(&transaction, &batch.views)?;
    let high_water = match batch.high_water {
        HighWater::AtLeast(time) => before.high_water.max(time),
        HighWater::Set(time) => time,
    };
    let digest = before.digest.plus(batch.sums);
    if (seq, high_water, digest) != (before.seq, before.high_water, before.digest) {
        transaction.prepare_cached(MOVE_HEAD)?.execute(params![
            seq.cast_signed(),
            high_water.cast_signed(),
            digest.shown.to_be_bytes(),
            digest.confirmed.to_be_bytes(),
            digest.count.cast_signed(),
        ])?;
    }
    transaction.commit()?;
    Ok(Some(seq))
}

/// Checks the rows read and writes the others, each with the next seq; `None` if one moved. That a written row
/// did not move is seen from how many rows the write itself found.
fn write_rows(conn: &Connection, batch: &Batch<'_>, mut seq: u64) -> rusqlite::Result<Option<u64>> {
    let mut seq_of = conn.prepare_cached(SEQ)?;
    for read in batch.reads.iter() {
        let found = seq_of.query_row((read.kind, read.id, &*read.start), |row| row.get::<_, i64>(0));
        if found.optional()?.unwrap_or(0).cast_unsigned() != read.seq {
            return Ok(None);
        }
    }
    let mut insert = conn.prepare_cached(INSERT)?;
    let (mut update, mut update_at) = (conn.prepare_cached(UPDATE)?, conn.prepare_cached(UPDATE_AT)?);
    for write in batch.rows.iter() {
        seq += 1;
        let (row, new) = (&write.row, seq.cast_signed());
        let written = if write.bytes.is_empty() {
            let old = row.seq.cast_signed();
            conn.prepare_cached(DELETE)?.execute(params![row.kind, row.id, &*row.start, old])?
        } else if row.seq == 0 {
            let scope = scopes::enter(conn, write.scope)?;
            insert.execute(params![row.kind, row.id, &*row.start, new, &*write.bytes, scope])?
        } else if !batch.moves.is_empty() {
            let (scope, old) = (scopes::enter(conn, write.scope)?, row.seq.cast_signed());
            let mut moved = conn.prepare_cached(UPDATE_MOVED)?;
            moved.execute(params![row.kind, row.id, &*row.start, new, &*write.bytes, old, scope])?
        } else if row.place == Place::default() {
            let old = row.seq.cast_signed();
            update.execute(params![row.kind, row.id, &*row.start, new, &*write.bytes, old])?
        } else {
            let (place, old) = (row.place.0.cast_signed(), row.seq.cast_signed());
            update_at.execute(params![place, new, &*write.bytes, old])?
        };
        if written == 0 {
            return Ok(None);
        }
    }
    Ok(Some(seq))
}

/// What the record holds now.
fn held(conn: &Connection, read: &RecordRead) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut find = conn.prepare_cached(RECORD)?;
    find.query_row((read.table as u8, &read.key), |row| row.get(0)).optional()
}

fn write_record(conn: &Connection, record: &RecordWrite, seq: u64) -> rusqlite::Result<()> {
    let seq = seq.to_be_bytes();
    let key = match &record.key {
        RecordKey::Bytes(bytes) => bytes.as_slice(),
        RecordKey::CommitSeq => &seq,
    };
    let table = record.table as u8;
    match &record.value {
        Some(value) => conn.prepare_cached(PUT)?.execute((table, key, value))?,
        None => conn.prepare_cached(REMOVE)?.execute((table, key))?,
    };
    Ok(())
}

pub(crate) const DATA_VERSION: &str = "PRAGMA data_version";
const HEAD: &str = "SELECT seq, high_water, shown, confirmed, count FROM head";
const INCARNATIONS: &str = "SELECT id, first FROM incarnation ORDER BY first";
const LOAD: &str = "SELECT start, seq, state, rowid FROM entity
    WHERE kind = ?1 AND id = ?2 AND start <= ?3 ORDER BY start DESC LIMIT 1";
const CHANGES: &str = "SELECT kind, id, seq, state FROM entity WHERE seq > ?1 ORDER BY seq";
/// Steps from kind to kind; a plain DISTINCT would go through every entity.
const KINDS: &str = "WITH RECURSIVE step (kind) AS (
        SELECT min(kind) FROM entity
        UNION ALL SELECT (SELECT min(kind) FROM entity WHERE kind > step.kind) FROM step WHERE kind IS NOT NULL
    ) SELECT kind FROM step WHERE kind IS NOT NULL";
const IDS: &str = "SELECT DISTINCT id FROM entity WHERE kind = ?1 AND id >= ?2 ORDER BY id LIMIT ?3";
const IDS_AFTER: &str = "SELECT DISTINCT id FROM entity WHERE kind = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
const RECORDS: &str = "SELECT key, value FROM record WHERE tab = ?1 AND key >= ?2 ORDER BY key";
const RECORD: &str = "SELECT value FROM record WHERE tab = ?1 AND key = ?2";
const LAST_RECORD: &str =
    "SELECT key, value FROM record WHERE tab = ?1 AND key < ?2 ORDER BY key DESC LIMIT 1";
const SEQ: &str = "SELECT seq FROM entity WHERE kind = ?1 AND id = ?2 AND start = ?3";
const INSERT: &str = "INSERT INTO entity (scope, kind, id, start, seq, state) VALUES (?6, ?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (kind, id, start) DO NOTHING";
const DELETE: &str = "DELETE FROM entity WHERE kind = ?1 AND id = ?2 AND start = ?3 AND seq = ?4";
const UPDATE: &str =
    "UPDATE entity SET seq = ?4, state = ?5 WHERE kind = ?1 AND id = ?2 AND start = ?3 AND seq = ?6";
const UPDATE_AT: &str = "UPDATE entity SET seq = ?2, state = ?3 WHERE rowid = ?1 AND seq = ?4";
const UPDATE_MOVED: &str = "UPDATE entity SET seq = ?4, state = ?5, scope = ?7
    WHERE kind = ?1 AND id = ?2 AND start = ?3 AND seq = ?6";
const OPEN: &str = "INSERT INTO incarnation (first, id) VALUES (?1, ?2)";
const MOVE_HEAD: &str =
    "UPDATE head SET seq = ?1, high_water = ?2, shown = ?3, confirmed = ?4, count = ?5 WHERE one = 1";
const BEGIN: &str = "BEGIN DEFERRED";
const COMMIT: &str = "COMMIT";
const ROLLBACK: &str = "ROLLBACK";
const PUT: &str = "INSERT INTO record (tab, key, value) VALUES (?1, ?2, ?3)
    ON CONFLICT (tab, key) DO UPDATE SET value = excluded.value";
const REMOVE: &str = "DELETE FROM record WHERE tab = ?1 AND key = ?2";
