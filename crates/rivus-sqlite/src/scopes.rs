//! The scopes of a store: their numbers and digests, their changes, and what has left them.

use std::ops::ControlFlow;

use rivus_core::store::{Batch, Changed, Digest, ScopeChange};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::store::{blob, text};

/// The number of a scope; 0 is the one without a name. `None` if nothing was ever in it.
fn number(conn: &Connection, scope: &str) -> rusqlite::Result<Option<i64>> {
    if scope.is_empty() {
        return Ok(Some(0));
    }
    conn.prepare_cached(NUMBER)?.query_row([scope], |row| row.get(0)).optional()
}

/// The number of a scope, a new one if it has none.
pub(crate) fn enter(conn: &Connection, scope: &str) -> rusqlite::Result<i64> {
    if let Some(number) = number(conn, scope)? {
        return Ok(number);
    }
    conn.prepare_cached(ENTER)?.execute([scope])?;
    Ok(conn.last_insert_rowid())
}

fn read_digest(row: &Row<'_>, first: usize) -> rusqlite::Result<Digest> {
    Ok(Digest {
        shown: u128::from_be_bytes(row.get(first)?),
        confirmed: u128::from_be_bytes(row.get(first + 1)?),
        count: row.get::<_, i64>(first + 2)?.cast_unsigned(),
    })
}

/// A scope's digest in a store with this one.
pub(crate) fn digest(conn: &Connection, scope: &str, whole: Digest) -> rusqlite::Result<Digest> {
    if scope.is_empty() {
        return Ok(named(conn)?.into_iter().fold(whole, |left, (_, digest)| left.minus(digest)));
    }
    let found = conn.prepare_cached(DIGEST)?.query_row([scope], |row| read_digest(row, 0)).optional()?;
    Ok(found.unwrap_or_default())
}

/// The scopes with a name that have registers.
pub(crate) fn named(conn: &Connection) -> rusqlite::Result<Vec<(String, Digest)>> {
    let mut all = conn.prepare_cached(NAMED)?;
    let all = all.query_map([], |row| Ok((row.get(0)?, read_digest(row, 1)?)))?;
    let all: Vec<(String, Digest)> = all.collect::<rusqlite::Result<_>>()?;
    Ok(all.into_iter().filter(|(_, digest)| *digest != Digest::default()).collect())
}

/// Visits the rows of a scope above a seq and what has left it since, in order.
pub(crate) fn changes(
    conn: &Connection,
    scope: &str,
    after: u64,
    visit: &mut dyn FnMut(ScopeChange<'_>) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    let Some(scope) = number(conn, scope)? else { return Ok(()) };
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    // The scope without a name has no index of its own, so that stores that know no other keep none.
    let mut rows = conn.prepare_cached(if scope == 0 { CHANGES_IN_NONE } else { CHANGES_IN })?;
    let mut left = conn.prepare_cached(LEFT)?;
    let (mut rows, mut left) = (rows.query((scope, after))?, left.query((scope, after))?);
    let mut gone = next_left(&mut left)?;
    loop {
        let row = rows.next()?;
        let until = match row {
            Some(row) => row.get::<_, i64>(2)?.cast_unsigned(),
            None => u64::MAX,
        };
        while let Some((kind, id, seq)) = gone.take_if(|(.., seq)| *seq < until) {
            if visit(ScopeChange::Left { kind: &kind, id: &id, seq }).is_break() {
                return Ok(());
            }
            gone = next_left(&mut left)?;
        }
        let Some(row) = row else { return Ok(()) };
        let changed = Changed { kind: text(row, 0)?, id: text(row, 1)?, seq: until, bytes: blob(row, 3)? };
        if visit(ScopeChange::Row(changed)).is_break() {
            return Ok(());
        }
    }
}

/// Kind, id and seq of the next entity that has left.
fn next_left(left: &mut rusqlite::Rows<'_>) -> rusqlite::Result<Option<(String, String, u64)>> {
    let Some(row) = left.next()? else { return Ok(None) };
    Ok(Some((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.cast_unsigned())))
}

/// Whether anything has left a scope above a seq.
pub(crate) fn has_left(conn: &Connection, scope: &str, after: u64) -> rusqlite::Result<bool> {
    let Some(scope) = number(conn, scope)? else { return Ok(false) };
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    conn.prepare_cached(HAS_LEFT)?.query_row((scope, after), |row| row.get(0))
}

/// The scopes that an entity has left, sorted.
pub(crate) fn left_by(conn: &Connection, kind: &str, id: &str) -> rusqlite::Result<Vec<String>> {
    let mut names = conn.prepare_cached(LEFT_BY)?;
    let names = names.query_map((kind, id), |row| row.get(0))?;
    names.collect()
}

/// Takes over what a batch moves and adds; `seq` is the head after it.
pub(crate) fn commit(conn: &Connection, batch: &Batch<'_>, seq: u64) -> rusqlite::Result<()> {
    for moved in batch.moves.iter() {
        let to = enter(conn, moved.to)?;
        conn.prepare_cached(TAKE_BACK)?.execute((to, moved.kind, moved.id))?;
        if let Some(from) = moved.from {
            let from = enter(conn, from)?;
            conn.prepare_cached(LEAVE)?.execute((from, moved.kind, moved.id, seq.cast_signed()))?;
        }
    }
    for (scope, sums) in batch.scopes.iter() {
        let number = enter(conn, scope)?;
        let before = conn.prepare_cached(DIGEST)?.query_row([scope], |row| read_digest(row, 0))?;
        let after = before.plus(*sums);
        conn.prepare_cached(MOVE_DIGEST)?.execute(params![
            number,
            after.shown.to_be_bytes(),
            after.confirmed.to_be_bytes(),
            after.count.cast_signed(),
        ])?;
    }
    Ok(())
}

const NUMBER: &str = "SELECT number FROM scope WHERE name = ?1";
const ENTER: &str =
    "INSERT INTO scope (name, shown, confirmed, count) VALUES (?1, zeroblob(16), zeroblob(16), 0)";
const DIGEST: &str = "SELECT shown, confirmed, count FROM scope WHERE name = ?1";
const NAMED: &str = "SELECT name, shown, confirmed, count FROM scope ORDER BY name";
const MOVE_DIGEST: &str = "UPDATE scope SET shown = ?2, confirmed = ?3, count = ?4 WHERE number = ?1";
/// The term that is always true names the condition of the index.
const CHANGES_IN: &str = "SELECT kind, id, seq, state FROM entity
    WHERE scope = ?1 AND scope <> 0 AND seq > ?2 ORDER BY seq";
const CHANGES_IN_NONE: &str =
    "SELECT kind, id, seq, state FROM entity WHERE +scope = ?1 AND seq > ?2 ORDER BY seq";
const LEFT: &str = "SELECT kind, id, seq FROM departed WHERE scope = ?1 AND seq > ?2 ORDER BY seq, kind, id";
const HAS_LEFT: &str = "SELECT EXISTS (SELECT 1 FROM departed WHERE scope = ?1 AND seq > ?2)";
const LEFT_BY: &str = "SELECT coalesce(name, '') AS name FROM departed LEFT JOIN scope ON number = scope
    WHERE kind = ?1 AND id = ?2 ORDER BY name";
const LEAVE: &str = "INSERT INTO departed (scope, kind, id, seq) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT (scope, kind, id) DO UPDATE SET seq = excluded.seq";
const TAKE_BACK: &str = "DELETE FROM departed WHERE scope = ?1 AND kind = ?2 AND id = ?3";
