//! The store's registers as a set of keys, and registers found by their keys: one pass over the rows for each.
//!
//! The set is that of the digest: confirmed forms, and of what is evicted the shares that were kept. Nothing is stored
//! beside the rows for it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::Replica;
use crate::register::Register;
use crate::row::{Corrupt, Digested, Row};
use crate::sketch::{Key, Sketch};
use crate::store::{Changed, ScopeChange, Store, StoreError};
use crate::work::damaged;

/// Addresses and registers of one entity, ascending.
type Found<'r> = Vec<(&'r [u8], Register<'r>)>;

/// Takes kind, id, and what was found there.
pub(crate) type Visit<'v> = dyn FnMut(&str, &str, &[(&[u8], Register<'_>)]) -> ControlFlow<()> + 'v;

impl<S: Store> Replica<S> {
    /// The sketch of the confirmed registers.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn sketch(&self) -> Result<Sketch, StoreError> {
        self.sketch_of(None)
    }

    /// The sketch of the confirmed registers in a scope, or of all.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub(crate) fn sketch_of(&self, scope: Option<&str>) -> Result<Sketch, StoreError> {
        let (mut sketch, mut failed, mut buffer) = (Sketch::default(), None, Vec::new());
        self.rows_of(scope, 0, &mut |changed| match add(changed, &mut buffer, &mut sketch) {
            Ok(()) => ControlFlow::Continue(()),
            Err(corrupt) => {
                failed = Some(damaged(changed.kind, changed.id, corrupt));
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(sketch), Err)
    }

    /// The rows of a scope, or all, with a seq above `after`.
    fn rows_of(
        &self,
        scope: Option<&str>,
        after: u64,
        visit: &mut dyn FnMut(Changed<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let Some(scope) = scope else { return self.store.changes(after, visit).map(drop) };
        let rows = &mut |change: ScopeChange<'_>| match change {
            ScopeChange::Row(changed) => visit(changed),
            ScopeChange::Left { .. } => ControlFlow::Continue(()),
        };
        self.store.changes_in(scope, after, rows).map(drop)
    }

    /// Looks for confirmed registers with these keys in the rows of a scope, or in all, with a seq above `after`, takes the keys that it finds
    /// out, and hands what it finds to `visit`, row by row, until that breaks off. Says up to which seq it has looked
    /// then, and nothing if there is no more to look for. What is evicted is not found.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub(crate) fn find(
        &self,
        scope: Option<&str>,
        keys: &mut BTreeSet<Key>,
        after: u64,
        visit: &mut Visit<'_>,
    ) -> Result<Option<u64>, StoreError> {
        if keys.is_empty() {
            return Ok(None);
        }
        let (mut at, mut failed, mut buffer) = (None, None, Vec::new());
        self.rows_of(scope, after, &mut |changed| {
            let found = match matching(changed, &mut buffer, keys) {
                Ok(found) => found,
                Err(corrupt) => {
                    failed = Some(damaged(changed.kind, changed.id, corrupt));
                    return ControlFlow::Break(());
                }
            };
            let ends = !found.is_empty() && visit(changed.kind, changed.id, &found).is_break();
            if keys.is_empty() {
                return ControlFlow::Break(());
            }
            at = ends.then_some(changed.seq);
            if ends { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        failed.map_or(Ok(at), Err)
    }
}

fn add(changed: Changed<'_>, buffer: &mut Vec<u8>, sketch: &mut Sketch) -> Result<(), Corrupt> {
    let row = Row::new(changed.bytes, changed.seq)?;
    let mut digested = Digested::new(buffer, changed.kind, changed.id);
    for entry in row.entries() {
        let entry = entry?;
        if let Some(confirmed) = entry.state()?.into_confirmed() {
            sketch.add(Key::of(digested.hash(entry.address, &confirmed)));
        }
    }
    if row.is_evicted() {
        for share in row.shares() {
            sketch.add(Key::of(share?.1));
        }
    }
    Ok(())
}

/// The registers of a row that are looked for; their keys are taken out.
fn matching<'r>(
    changed: Changed<'r>,
    buffer: &mut Vec<u8>,
    keys: &mut BTreeSet<Key>,
) -> Result<Found<'r>, Corrupt> {
    let mut found = Vec::new();
    let mut digested = Digested::new(buffer, changed.kind, changed.id);
    for entry in Row::new(changed.bytes, changed.seq)?.entries() {
        let entry = entry?;
        if let Some(confirmed) = entry.state()?.into_confirmed()
            && keys.remove(&Key::of(digested.hash(entry.address, &confirmed)))
        {
            found.push((entry.address, confirmed));
        }
    }
    Ok(found)
}
