//! What a replica knows of other stores: how far it has read them, what they told of themselves.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{Replica, commit_records, unreadable};
use crate::bytes::Reader;
use crate::id::StoreId;
use crate::identity::{Cursor, Peer, Position};
use crate::store::{CommitError, Head, RecordWrite, Store, StoreError, Table};

impl<S: Store> Replica<S> {
    /// How far this store has read another.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn cursor(&self, of: StoreId) -> Result<Option<Cursor>, StoreError> {
        self.cursor_of(of, None)
    }

    /// How far this store has read another, or a scope of it.
    pub(crate) fn cursor_of(&self, of: StoreId, scope: Option<&str>) -> Result<Option<Cursor>, StoreError> {
        let bytes = self.store.record(Table::Cursor, &cursor_key(of, scope))?;
        bytes.map(|bytes| Cursor::decode(&bytes).map_err(|_| unreadable("a cursor"))).transpose()
    }

    /// How far this store has read a scope of another.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn cursor_in(&self, of: StoreId, scope: &str) -> Result<Option<Cursor>, StoreError> {
        self.cursor_of(of, Some(scope))
    }

    /// How far this store has read the scopes of another that it follows by name.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn cursors_in(&self, of: StoreId) -> Result<BTreeMap<String, Cursor>, StoreError> {
        let (mut cursors, mut failed) = (BTreeMap::new(), false);
        let from = cursor_key(of, Some(""));
        self.store.records(Table::Cursor, &from, &mut |key, value| {
            let Some(scope) = key.strip_prefix(from.as_slice()) else { return ControlFlow::Break(()) };
            match (std::str::from_utf8(scope), Cursor::decode(value)) {
                (Ok(scope), Ok(cursor)) => drop(cursors.insert(scope.to_owned(), cursor)),
                _ => failed = true,
            }
            ControlFlow::Continue(())
        })?;
        if failed { Err(unreadable("a cursor")) } else { Ok(cursors) }
    }

    /// What takes out how far each scope of another store was read.
    pub(super) fn without_cursors_in(&self, of: StoreId) -> Result<Vec<RecordWrite>, StoreError> {
        let scopes = self.cursors_in(of)?.into_keys();
        let keys = scopes.map(|scope| cursor_key(of, Some(&scope)));
        Ok(keys.map(|key| RecordWrite::remove(Table::Cursor, key)).collect())
    }

    /// Up to where this store has read another, be it of one scope alone; `None` if it has not begun.
    pub(crate) fn read_up_to(&self, of: StoreId) -> Result<Option<u64>, StoreError> {
        let cursors = self.cursor(of)?.into_iter().chain(self.cursors_in(of)?.into_values());
        Ok(cursors.map(|cursor| cursor.at.max(cursor.done)).max())
    }

    /// Reads a scope of another store from the start next time.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub fn forget_cursor_in(&mut self, of: StoreId, scope: &str) -> Result<(), StoreError> {
        let mut records = vec![RecordWrite::remove(Table::Cursor, cursor_key(of, Some(scope)))];
        records.extend(self.note_read()?);
        // What was to leave because it had not come again stays.
        records.extend(self.without_notes_of(scope)?);
        commit_records(&mut self.store, records)?;
        self.saws.remove(scope);
        Ok(())
    }

    /// Reads another store from the start next time, each scope of it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub fn forget_cursor(&mut self, of: StoreId) -> Result<(), StoreError> {
        let mut records = vec![RecordWrite::remove(Table::Cursor, cursor_key(of, None))];
        records.extend(self.without_cursors_in(of)?);
        commit_records(&mut self.store, records)?;
        if self.identity.authority.is_some_and(|authority| authority.store == of) {
            self.saw = None;
            self.saws.clear();
        }
        Ok(())
    }

    /// What is known of another store.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn peer(&self, store: StoreId) -> Result<Option<Peer>, StoreError> {
        let bytes = self.store.record(Table::Peer, &store.0.to_be_bytes())?;
        bytes.map(|bytes| Peer::decode(&bytes).map_err(|_| unreadable("a record of a peer"))).transpose()
    }

    /// Every store that has been connected, with what is known of it.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn peers(&self) -> Result<Vec<(StoreId, Peer)>, StoreError> {
        let mut peers = Vec::new();
        self.store.records(Table::Peer, &[], &mut |key, value| {
            if let (Ok(store), Ok(peer)) = (Reader::new(key).u64(), Peer::decode(value)) {
                peers.push((StoreId(store), peer));
            }
            ControlFlow::Continue(())
        })?;
        Ok(peers)
    }

    /// Remembers what another store told of itself. A position never goes back within known history.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed.
    pub fn remember(&mut self, store: StoreId, peer: &Peer) -> Result<(), CommitError> {
        if self.peer(store)?.as_ref() == Some(peer) {
            return Ok(());
        }
        self.forget_recent_cut();
        commit_records(
            &mut self.store,
            vec![RecordWrite::put(Table::Peer, store.0.to_be_bytes(), peer.encode())],
        )
        .map_err(CommitError::from)
    }

    /// The newest position of this store.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn position(&self) -> Result<Position, StoreError> {
        Ok(position_of(&self.store.head()?))
    }
}

/// The newest position of a store with this head.
#[must_use]
pub fn position_of(head: &Head) -> Position {
    let incarnation = head.incarnations.last().map(|(incarnation, _)| *incarnation).unwrap_or_default();
    Position { incarnation, seq: head.seq }
}

/// Under which key it is kept how far another store, or a scope of it, was read.
pub(super) fn cursor_key(of: StoreId, scope: Option<&str>) -> Vec<u8> {
    let mut key = of.0.to_be_bytes().to_vec();
    if let Some(scope) = scope {
        key.push(0);
        key.extend_from_slice(scope.as_bytes());
    }
    key
}
