//! Leaving: entities that are in no scope any more that this store follows, or may read, are taken out of it.
//!
//! Nothing of them stays, and nothing is deleted anywhere else: no tombstone is written. What a pending edit touches
//! stays until that has its verdict, so that no edit is lost on the way; what is to leave is noted meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::evict::key;
use super::peers::cursor_key;
use super::{
    Delta, Event, Follows, Meanwhile, Origin, Replica, STALE_RETRIES_MAX, commit_records, unreadable,
};
use crate::address::LIFE;
use crate::bytes::{Cut, Put, Reader};
use crate::clock::Millis;
use crate::id::StoreId;
use crate::store::{CommitError, RecordWrite, ScopeChange, Store, StoreError, Table};
use crate::work::{Drop, Scratch, Work};

/// An entity's kind and id.
type Name = (String, String);

/// How many entities leave in one commit.
const ENTITIES_AT_ONCE: usize = 1_000;

/// What the key of a scope that is to leave begins with: that of an entity begins with the length of its kind.
const SCOPE: u8 = 0;

/// What becomes of what is here of a scope that is not followed any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// It stays as it is.
    Yes,
    /// It leaves this store.
    No,
}

/// Why a scope leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// It may not be read.
    Revoked,
    /// It is not wanted.
    Unwanted,
}

/// The entities of a page, and the scopes that are followed.
pub(super) struct Places {
    names: BTreeSet<Name>,
    /// The one that the page is of, if it is of one.
    scope: Option<String>,
    followed: BTreeSet<String>,
}

/// A scope that is to leave.
struct Scope {
    name: String,
    why: Why,
    /// How many entities of it have left.
    gone: u64,
}

impl<S: Store> Replica<S> {
    /// Whether anything is to leave that could not yet.
    pub(crate) fn is_to_leave(&self) -> bool {
        self.leaving
    }

    /// Whether anything is to leave.
    pub(super) fn is_leaving(&self) -> Result<bool, StoreError> {
        let mut found = false;
        self.store.records(Table::Leaving, &[], &mut |_, _| {
            found = true;
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Notes that entities have left a scope of the authority, and are in none that it sends.
    ///
    /// One of which this store knows that it is in another scope that it follows stays: that is told there.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub(crate) fn note_left(
        &mut self,
        of: StoreId,
        scope: &str,
        entities: &[Name],
    ) -> Result<(), StoreError> {
        self.refresh()?;
        let followed = self.cursors_in(of)?;
        let mut records = Vec::new();
        for (kind, id) in entities {
            if self.store.load(kind, id, LIFE)?.is_none() {
                continue;
            }
            let here = self.scope_of(kind, id)?;
            if here == scope || !followed.contains_key(&here) {
                records.push(RecordWrite::put(Table::Leaving, key(kind, id), here.into_bytes()));
            }
        }
        if !records.is_empty() {
            commit_records(&mut self.store, records)?;
            self.leaving = true;
        }
        Ok(())
    }

    /// Notes that a scope is to leave, and forgets how far it was read.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub(crate) fn note_leaving(&mut self, of: StoreId, scope: &str, why: Why) -> Result<(), StoreError> {
        self.refresh()?;
        let known = self.cursor_in(of, scope)?.is_some();
        if !known && self.members(scope, &BTreeSet::new())?.0.is_empty() {
            return Ok(());
        }
        let leaving = Scope { name: scope.to_owned(), why, gone: 0 };
        let mut records = vec![
            RecordWrite::put(Table::Leaving, scope_key(scope), leaving.encode()),
            RecordWrite::remove(Table::Cursor, cursor_key(of, Some(scope))),
            // It has been read as a part of everything, too.
            RecordWrite::remove(Table::Cursor, cursor_key(of, None)),
        ];
        records.extend(self.note_read()?);
        commit_records(&mut self.store, records)?;
        self.leaving = true;
        self.saws.remove(scope);
        self.saw = None;
        Ok(())
    }

    /// What is to be known of the entities in a page, if any of them may be in another scope, or be about to leave.
    pub(super) fn places<D: Delta + ?Sized>(
        &self,
        page: &D,
        (from, follows): (Option<StoreId>, Option<Follows<'_>>),
    ) -> Result<Option<Places>, CommitError> {
        let scope = follows.and_then(|follows| follows.scope);
        if scope.is_none() && !self.leaving {
            return Ok(None);
        }
        let mut names: BTreeSet<Name> = BTreeSet::new();
        page.each::<CommitError>(|part| {
            names.insert((part.kind.to_owned(), part.id.to_owned()));
            Ok(())
        })?;
        let followed = match (scope, from) {
            (Some(_), Some(from)) => self.cursors_in(from)?.into_keys().collect(),
            _ => BTreeSet::new(),
        };
        Ok(Some(Places { names, scope: scope.map(str::to_owned), followed }))
    }

    /// Drops what is held of entities in scopes that are not followed, or were not until now: they come whole, and may have
    /// been collected there, which nobody was told, and made anew since. Says whether anything was dropped: of what comes
    /// whole the authority leaves out what it has from here.
    pub(super) fn drop_stale(
        &self,
        work: &mut Work<'_, S>,
        Places { names, scope, followed }: &Places,
        follows: Follows<'_>,
    ) -> Result<bool, CommitError> {
        let mut dropped = false;
        for (kind, id) in names {
            let at = work.entity(kind, id);
            let here = work.named_scope(at)?;
            // Of one that comes in several pages the first takes back that it was to leave.
            let is_stale = match here {
                _ if follows.everything && self.store.record(Table::Leaving, &key(kind, id))?.is_some() => {
                    true
                }
                Some(here) => scope.as_ref().is_some_and(|scope| *scope != here && !followed.contains(&here)),
                None => false,
            };
            if is_stale && work.is_held(at)? && !work.is_evicted(at)? {
                dropped |= work.wipe(at, Drop::Confirmed)?;
            }
        }
        Ok(dropped)
    }

    /// Notes of the entities in a page whether they stay. One that is sent again does; one that has come in the pages of
    /// a scope because it is in another now, which is not followed any more, does not.
    pub(super) fn note_places(
        &self,
        work: &mut Work<'_, S>,
        Places { names, scope, followed }: Places,
        records: &mut Vec<RecordWrite>,
    ) -> Result<(), CommitError> {
        for (kind, id) in names {
            let at = work.entity(&kind, &id);
            let here = work.scope(at)?;
            let stays = scope.as_ref().is_none_or(|scope| *scope == here || followed.contains(&here));
            let key = key(&kind, &id);
            records.push(match stays {
                true => RecordWrite::remove(Table::Leaving, key),
                false => RecordWrite::put(Table::Leaving, key, here.into_bytes()),
            });
        }
        if !self.leaving {
            records.retain(|record| record.table != Table::Leaving || record.value.is_some());
        }
        Ok(())
    }

    /// Notes of everything confirmed that is held of scopes that may not be read any more that it leaves, and forgets how far
    /// everything was read. What comes again takes its note back.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub(crate) fn note_lost(
        &mut self,
        of: StoreId,
        may_read: &dyn Fn(&str) -> bool,
    ) -> Result<(), StoreError> {
        self.refresh()?;
        let mut records = vec![RecordWrite::remove(Table::Cursor, cursor_key(of, None))];
        records.extend(self.note_read()?);
        let (named, mut lost) = (self.store.scopes()?, Vec::new());
        let named = named.iter().map(|(scope, _)| scope.as_str());
        for scope in named.chain([""]).filter(|scope| !may_read(scope)) {
            let names = self.confirmed_in(scope)?;
            if !names.is_empty() {
                lost.push((scope.to_owned(), names.len()));
            }
            let note = |(kind, id): &Name| RecordWrite::put(Table::Leaving, key(kind, id), scope.into());
            records.extend(names.iter().map(note));
        }
        commit_records(&mut self.store, records)?;
        self.leaving |= !lost.is_empty();
        self.saw = None;
        for (scope, entities) in lost {
            self.events.push(Event::Denied { scope: scope.clone() });
            self.events.push(Event::Revoked { scope, entities });
        }
        Ok(())
    }

    /// Notes everything confirmed that is held of a scope, which is about to be read from the start: what is not sent
    /// then is in it no more.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub(crate) fn note_members(&mut self, scope: &str) -> Result<(), StoreError> {
        let note = |(kind, id): &Name| RecordWrite::put(Table::Leaving, key(kind, id), scope.into());
        let records: Vec<RecordWrite> = self.confirmed_in(scope)?.iter().map(note).collect();
        if !records.is_empty() {
            commit_records(&mut self.store, records)?;
            self.leaving = true;
        }
        Ok(())
    }

    /// The entities in a scope of which anything is confirmed here.
    fn confirmed_in(&self, scope: &str) -> Result<BTreeSet<Name>, StoreError> {
        let mut names: BTreeSet<Name> = BTreeSet::new();
        self.store.changes_in(scope, 0, &mut |change| {
            if let ScopeChange::Row(row) = change {
                names.insert((row.kind.to_owned(), row.id.to_owned()));
            }
            ControlFlow::Continue(())
        })?;
        let mut confirmed = BTreeSet::new();
        for (kind, id) in names {
            let mut work = self.placing();
            let at = work.entity(&kind, &id);
            let whole = work.whole(at).map_err(|error| super::read::unsettled(&kind, &id, error))?;
            if whole.count > 0 {
                confirmed.insert((kind, id));
            }
        }
        Ok(confirmed)
    }

    /// Follows a scope of the authority no more. Followed again, it is read from the start.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub fn unfollow(&mut self, scope: &str, kept: Kept) -> Result<(), StoreError> {
        self.refresh()?;
        let Some(authority) = self.identity.authority else { return Ok(()) };
        match kept {
            Kept::Yes => self.forget_cursor_in(authority.store, scope),
            Kept::No => self.note_leaving(authority.store, scope, Why::Unwanted),
        }
    }

    /// What takes back that a scope, or entities that were in it, are to leave.
    pub(super) fn without_notes_of(&self, scope: &str) -> Result<Vec<RecordWrite>, StoreError> {
        let mut records = vec![RecordWrite::remove(Table::Leaving, scope_key(scope))];
        self.store.records(Table::Leaving, &[], &mut |key, noted| {
            if noted == scope.as_bytes() && key.first() != Some(&SCOPE) {
                records.push(RecordWrite::remove(Table::Leaving, key));
            }
            ControlFlow::Continue(())
        })?;
        Ok(records)
    }

    /// Takes out what is to leave and is touched by no pending edit.
    ///
    /// # Errors
    /// [`CommitError`]; what has not left yet does so by the next call.
    pub(crate) fn leave(&mut self, now: Millis) -> Result<(), CommitError> {
        self.now = now;
        let mut retries = 0;
        while self.leaving {
            self.refresh()?;
            match self.leave_some() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(CommitError::Stale) if retries < STALE_RETRIES_MAX => retries += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One commit; whether there may be more to do.
    fn leave_some(&mut self) -> Result<bool, CommitError> {
        // A pending edit that comes in from here on moves the head.
        let since = self.store.head()?.seq;
        let (entities, scope) = self.noted()?;
        let mut held: BTreeSet<Name> = BTreeSet::new();
        self.pending(0, &mut |_, edit| {
            held.extend(edit.entities.iter().map(|each| (each.kind.to_owned(), each.id.to_owned())));
            ControlFlow::Continue(())
        })?;
        let mut records: Vec<RecordWrite> = Vec::new();
        let followed = match self.identity.authority {
            Some(authority) => self.cursors_in(authority.store)?,
            None => BTreeMap::new(),
        };
        let mut names: BTreeSet<Name> = BTreeSet::new();
        for (name, noted) in
            entities.into_iter().filter(|(name, _)| !held.contains(name)).take(ENTITIES_AT_ONCE)
        {
            let (kind, id) = &name;
            records.push(RecordWrite::remove(Table::Leaving, key(kind, id)));
            let here = self.scope_of(kind, id)?;
            // An edit of this store has put it elsewhere since, with the authority's consent: where it is followed,
            // and read to the end, it is there.
            if here == noted || !followed.contains_key(&here) {
                names.insert(name);
            }
        }
        let mut event = None;
        if let Some(mut scope) = scope {
            let (members, waits) = self.members(&scope.name, &held)?;
            scope.gone += members.len() as u64;
            let is_last = members.len() < ENTITIES_AT_ONCE && !waits;
            let moves = !members.is_empty() || is_last;
            names.extend(members);
            if is_last {
                records.push(RecordWrite::remove(Table::Leaving, scope_key(&scope.name)));
                event = Some(scope);
            } else if moves {
                records.push(RecordWrite::put(Table::Leaving, scope_key(&scope.name), scope.encode()));
            }
        }
        if records.is_empty() {
            // Nothing is noted any more, or all of it waits.
            self.leaving = self.is_leaving()?;
            return Ok(false);
        }
        records.extend(names.iter().map(|(kind, id)| RecordWrite::remove(Table::Evicted, key(kind, id))));
        let finished = self.store.together(|| {
            let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
            for (kind, id) in &names {
                let at = work.entity(kind, id);
                work.leave(at)?;
            }
            work.finish()
        })??;
        let meanwhile = Meanwhile::Nothing { since, high_water: None };
        self.commit(finished, records, meanwhile, Origin::Left)?;
        if let Some(Scope { name, why: Why::Revoked, gone }) = event {
            let entities = usize::try_from(gone).unwrap_or(usize::MAX);
            self.events.push(Event::Revoked { scope: name, entities });
        }
        Ok(true)
    }

    /// The entities that are noted, each with the scope in which it was then, and one of the scopes.
    fn noted(&self) -> Result<(Vec<(Name, String)>, Option<Scope>), StoreError> {
        let (mut names, mut scope, mut failed) = (Vec::new(), None, false);
        self.store.records(Table::Leaving, &[], &mut |key, value| {
            let mut read = || -> Result<(), Cut> {
                if let Some(name) = key.strip_prefix(&[SCOPE]) {
                    let name = std::str::from_utf8(name).map_err(|_| Cut)?;
                    scope = Some(Scope::decode(name, value)?);
                    return Ok(());
                }
                let mut reader = Reader::new(key);
                let kind = reader.str()?.to_owned();
                let id = std::str::from_utf8(reader.rest()).map_err(|_| Cut)?.to_owned();
                let noted = std::str::from_utf8(value).map_err(|_| Cut)?.to_owned();
                names.push(((kind, id), noted));
                Ok(())
            };
            failed |= read().is_err();
            ControlFlow::Continue(())
        })?;
        if failed { Err(unreadable("what is to leave")) } else { Ok((names, scope)) }
    }

    /// Some entities of a scope that are not held back, and whether others are.
    fn members(&self, scope: &str, held: &BTreeSet<Name>) -> Result<(BTreeSet<Name>, bool), StoreError> {
        let (mut members, mut waits) = (BTreeSet::new(), false);
        self.store.changes_in(scope, 0, &mut |change| {
            if let ScopeChange::Row(row) = change {
                let name = (row.kind.to_owned(), row.id.to_owned());
                if held.contains(&name) {
                    waits = true;
                } else {
                    members.insert(name);
                }
            }
            if members.len() < ENTITIES_AT_ONCE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok((members, waits))
    }
}

impl Scope {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.why == Why::Unwanted)];
        out.varint(self.gone);
        out
    }

    fn decode(name: &str, value: &[u8]) -> Result<Self, Cut> {
        let mut reader = Reader::new(value);
        let why = if reader.u8()? == 0 { Why::Revoked } else { Why::Unwanted };
        Ok(Self { name: name.to_owned(), why, gone: reader.varint()? })
    }
}

/// Whether an entity is to leave, as far as can be read.
pub(super) fn is_noted<S: Store>(store: &S, kind: &str, id: &str) -> bool {
    store.record(Table::Leaving, &key(kind, id)).is_ok_and(|noted| noted.is_some())
}

/// Under which key it is noted that a scope is to leave.
pub(super) fn scope_key(scope: &str) -> Vec<u8> {
    let mut key = vec![SCOPE];
    key.extend_from_slice(scope.as_bytes());
    key
}
