//! What can be read of a replica: views, registers, pending edits, the digest as the rows have it.

use std::ops::ControlFlow;

use super::{Replica, STALE_RETRIES_MAX, count, unreadable};
use crate::address::Parts;
use crate::bytes::{Cut, Reader};
use crate::pending::Pending;
use crate::row::{Corrupt, Entry, Row, State};
use crate::store::{CommitError, Store, StoreError, Table};
use crate::view::View;
use crate::work::{Work, damaged};

impl<S: Store> Replica<S> {
    /// The entity as the application sees it; `None` if it is not held or its kind not declared.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn view(&self, kind: &str, id: &str) -> Result<Option<View>, StoreError> {
        let Some(declared) = self.schema.kind(kind) else { return Ok(None) };
        let read = || self.reading().view(declared, kind, id);
        // What rules ask for is as of the same moment.
        let is_ruled = self.rules().is_some();
        settled(kind, id, || if is_ruled { self.store.together(read)? } else { read() })
    }

    /// The entity that stands for this one, if it is another: what it shows and edits of it belong there.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn root(&self, kind: &str, id: &str) -> Result<Option<String>, StoreError> {
        let declared = self.schema.kind(kind).filter(|kind| kind.aliases || kind.aliases_by_rule());
        let Some(declared) = declared else { return Ok(None) };
        settled(kind, id, || self.store.together(|| self.reading().root(declared, kind, id))?)
    }

    /// Visits the registers of an entity in order of address: what a view is made of.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn registers(
        &self,
        kind: &str,
        id: &str,
        visit: &mut dyn FnMut(Parts<'_>, &State<'_>),
    ) -> Result<(), StoreError> {
        let mut work = Work::new(&self.store);
        let at = work.entity(kind, id);
        let rows = work.rows(at).map_err(|error| unsettled(kind, id, error))?;
        for entry in rows.iter().filter(|row| !row.is_evicted()).flat_map(Row::entries) {
            let read = entry.and_then(|entry| {
                let parts = Parts::parse(entry.address).ok_or(crate::row::Corrupt)?;
                visit(parts, &entry.state()?);
                Ok(())
            });
            read.map_err(|corrupt| damaged(kind, id, corrupt))?;
        }
        Ok(())
    }

    /// Recomputes the digest from the rows: what `verify` compares with the one kept.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn recompute_digest(&self) -> Result<crate::store::Digest, StoreError> {
        let mut digest = self.evicted_digest()?;
        let mut buffer = Vec::new();
        each_entry(&self.store, &mut |kind, id, entry| {
            let state = entry.state()?;
            let mut digested = crate::row::Digested::new(&mut buffer, kind, id);
            digest.shown = digest.shown.wrapping_add(digested.hash(entry.address, &state.shown));
            if let Some(confirmed) = state.confirmed() {
                digest.confirmed = digest.confirmed.wrapping_add(digested.hash(entry.address, confirmed));
                digest.count += 1;
            }
            Ok(())
        })?;
        Ok(digest)
    }

    /// Visits the pending edits from key `from` on, in order, with their keys.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn pending(
        &self,
        from: u64,
        visit: &mut dyn FnMut(u64, Pending<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.outbox(from, &mut |key, record| Ok(visit(key, Pending::decode(record)?)))
    }

    /// Visits the records of pending edits from key `from` on, in order, up to the first that is unreadable.
    pub(super) fn outbox(
        &self,
        from: u64,
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<ControlFlow<()>, Cut>,
    ) -> Result<(), StoreError> {
        let mut failed = false;
        self.store.records(Table::Outbox, &from.to_be_bytes(), &mut |key, record| {
            let visited = Reader::new(key).u64().and_then(|key| visit(key, record));
            failed = visited.is_err();
            visited.unwrap_or(ControlFlow::Break(()))
        })?;
        if failed { Err(unreadable("a pending edit")) } else { Ok(()) }
    }

    /// Whether the edit with this key waits for the authority's verdict.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn is_pending(&self, key: u64) -> Result<bool, StoreError> {
        Ok(self.store.record(Table::Outbox, &key.to_be_bytes())?.is_some())
    }

    /// Whether the authority refused the edit with this key.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn is_rejected(&self, key: u64) -> Result<bool, StoreError> {
        Ok(self.store.record(Table::Rejected, &key.to_be_bytes())?.is_some())
    }

    /// Whether another store is known to hold what was committed here as `seq`, if that is not pending: the authority, or
    /// any peer where there is none.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn is_received(&self, seq: u64) -> Result<bool, StoreError> {
        if let Some(authority) = self.identity.authority {
            return Ok(authority.met);
        }
        Ok(self.peers()?.iter().any(|(_, peer)| peer.read.done >= seq))
    }

    /// How many edits are pending.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn pending_count(&self) -> Result<usize, StoreError> {
        count(&self.store, Table::Outbox)
    }
}

/// What is read once nobody writes meanwhile.
fn settled<T>(
    kind: &str,
    id: &str,
    mut read: impl FnMut() -> Result<T, CommitError>,
) -> Result<T, StoreError> {
    for _ in 1..STALE_RETRIES_MAX {
        match read() {
            Err(CommitError::Stale) => {}
            done => return done.map_err(|error| unsettled(kind, id, error)),
        }
    }
    read().map_err(|error| unsettled(kind, id, error))
}

/// Why an entity cannot be read.
pub(super) fn unsettled(kind: &str, id: &str, error: CommitError) -> StoreError {
    match error {
        CommitError::Store(error) => error,
        CommitError::Stale => StoreError::Busy(format!("{kind} `{id}` keeps changing")),
    }
}

/// Visits every register of the store, with its entity's kind and id.
pub(super) fn each_entry<S: Store>(
    store: &S,
    visit: &mut dyn FnMut(&str, &str, Entry<'_>) -> Result<(), Corrupt>,
) -> Result<(), StoreError> {
    let mut failed = None;
    store.changes(0, &mut |changed| {
        let read = Row::new(changed.bytes, changed.seq)
            .and_then(|row| row.entries().try_for_each(|entry| visit(changed.kind, changed.id, entry?)));
        match read {
            Ok(()) => ControlFlow::Continue(()),
            Err(corrupt) => {
                failed = Some(damaged(changed.kind, changed.id, corrupt));
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(()), Err)
}
