//! As whom this replica writes: its rank, and what its edits have seen.

use std::collections::{BTreeMap, BTreeSet};

use super::Replica;
use crate::identity::Cursor;
use crate::register::Saw;
use crate::schema::Writers;
use crate::store::{Store, StoreError};

impl<S: Store> Replica<S> {
    /// The rank that new edits bear.
    pub(super) fn rank(&self) -> u8 {
        self.identity.authority.map_or(self.rank, |a| a.rank)
    }

    /// Among whom this replica is.
    pub(super) fn writer(&self) -> Writers {
        if self.identity.is_authority || self.rank() > 0 { Writers::Ranked } else { Writers::Everybody }
    }

    /// What new edits have seen at the authority.
    pub(super) fn saw(&self) -> Result<Option<Saw>, StoreError> {
        if !self.identity.is_authority {
            return Ok(self.saw);
        }
        let head = self.store.head()?;
        let newest = self.incarnation.or(head.incarnations.last().map(|(incarnation, _)| *incarnation));
        Ok(newest.map(|incarnation| Saw { incarnation, done: head.seq }))
    }

    pub(super) fn refresh_saw(&mut self) -> Result<(), StoreError> {
        let Some(authority) = self.identity.authority else { return Ok(()) };
        let saw = |cursor: Cursor| Saw { incarnation: cursor.incarnation, done: cursor.done };
        self.saw = self.cursor(authority.store)?.map(saw);
        let scopes = self.cursors_in(authority.store)?.into_iter();
        self.saws = scopes.map(|(scope, cursor)| (scope, saw(cursor))).collect();
        self.leaving = self.is_leaving()?;
        Ok(())
    }
}

/// What an edit in these scopes has seen at the authority: what was read of the one that is furthest behind.
pub(super) fn saw_in(
    saws: &BTreeMap<String, Saw>,
    whole: Option<Saw>,
    scopes: &BTreeSet<String>,
) -> Option<Saw> {
    let seen = scopes.iter().map(|scope| saws.get(scope).copied().or(whole));
    let seen: Option<Vec<Saw>> = seen.collect();
    seen?.into_iter().min_by_key(|saw| saw.done)
}
