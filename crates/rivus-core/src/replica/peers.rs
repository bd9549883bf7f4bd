//! What a replica knows of other stores: how far it has read them, what they told of themselves.

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
        let bytes = self.store.record(Table::Cursor, &of.0.to_be_bytes())?;
        bytes.map(|bytes| Cursor::decode(&bytes).map_err(|_| unreadable("a cursor"))).transpose()
    }

    /// Reads another store from the start next time.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub fn forget_cursor(&mut self, of: StoreId) -> Result<(), StoreError> {
        commit_records(&mut self.store, vec![RecordWrite::remove(Table::Cursor, of.0.to_be_bytes())])?;
        if self.identity.authority.is_some_and(|authority| authority.store == of) {
            self.saw = None;
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
