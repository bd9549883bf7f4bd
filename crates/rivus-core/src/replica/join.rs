//! Joining what others sent: pages at once, registers from the future when their time has come.
//!
//! One commit holds a page, the cursor behind it and what is set aside of it.

use std::convert::Infallible;

use super::aside::quarantine;
use super::newest;
use super::peers::cursor_key;
use super::{Delta, Event, Meanwhile, Origin, Replica, STALE_RETRIES_MAX, evict, leave};
use crate::canary::{Canary, is_on};
use crate::clock::Millis;
use crate::id::StoreId;
use crate::identity::Cursor;
use crate::register::Saw;
use crate::row::Change;
use crate::store::{CommitError, RecordWrite, Store, StoreError, Table};
use crate::work::{Scratch, Work};

/// What the sender of a page is to the receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// A peer: registers from the future are set aside.
    Peer,
    /// The authority: taken as it is, but the clock follows only as far as is believable.
    Authority,
}

/// How far another store is read with what is joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Follows<'c> {
    /// The scope that is followed by name; none if the whole store is.
    pub scope: Option<&'c str>,
    /// Where that stands.
    pub cursor: Cursor,
    /// Whether it is read from the start, with what came from here.
    pub everything: bool,
    /// Whether the other store has ever collected anything.
    pub collects: bool,
}

/// What a join did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Joined {
    /// Registers in the page.
    pub registers: usize,
    /// Registers set aside.
    pub quarantined: usize,
    /// Entities whose view changed.
    pub changed: usize,
}

/// How what is joined came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Came {
    /// As changes, register by register: of what is evicted the digest alone follows.
    Unasked,
    /// As whole entities that were asked for.
    Fetched,
}

impl<S: Store> Replica<S> {
    /// Joins a page and saves the cursor with it, in one commit.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed.
    pub fn join<D: Delta + ?Sized>(
        &mut self,
        now: Millis,
        page: &D,
        from: Option<StoreId>,
        trust: Trust,
        cursor: Option<Cursor>,
    ) -> Result<Joined, CommitError> {
        let follows =
            cursor.map(|cursor| Follows { scope: None, cursor, everything: false, collects: false });
        self.join_as(Came::Unasked, now, page, from, trust, follows)
    }

    /// As [`Replica::join`], of a page that may be of one scope.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed.
    pub fn follow_page<D: Delta + ?Sized>(
        &mut self,
        now: Millis,
        page: &D,
        from: StoreId,
        trust: Trust,
        follows: Option<Follows<'_>>,
    ) -> Result<Joined, CommitError> {
        self.join_as(Came::Unasked, now, page, Some(from), trust, follows)
    }

    /// Joins entities that the authority has handed out whole: those that were evicted are at hand again.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed.
    pub fn join_fetched<D: Delta + ?Sized>(
        &mut self,
        now: Millis,
        entities: &D,
        from: StoreId,
    ) -> Result<Joined, CommitError> {
        self.join_as(Came::Fetched, now, entities, Some(from), Trust::Authority, None)
    }

    /// Above which time registers are set aside, and up to which the clock follows them.
    fn latest_of(&self, trust: Trust, now: Millis) -> (u64, u64) {
        let own_limit = self.admission.latest(now).unwrap_or(u64::MAX);
        match trust {
            Trust::Peer => (own_limit, own_limit),
            // The clock follows its authority's, even where its own machine's is slow.
            Trust::Authority => {
                let theirs = Millis(now.0.saturating_add(self.ahead_ms.max(0)));
                (u64::MAX, self.admission.latest(theirs).unwrap_or(u64::MAX))
            }
        }
    }

    /// Notes that the authority may have something from here that is not here any more; says whether that was news.
    fn begin_unheard(&mut self) -> Result<bool, StoreError> {
        if self.identity.authority.is_none_or(|authority| authority.unheard) {
            return Ok(false);
        }
        self.update_authority(|authority| authority.unheard = true)?;
        Ok(true)
    }

    fn join_as<D: Delta + ?Sized>(
        &mut self,
        came: Came,
        now: Millis,
        page: &D,
        from: Option<StoreId>,
        trust: Trust,
        follows: Option<Follows<'_>>,
    ) -> Result<Joined, CommitError> {
        self.now = now;
        let (machine, now) = (now, self.clock.corrected(now));
        let (aside, limit) = self.latest_of(trust, now);
        let latest = page.latest();
        let future = latest.is_some_and(|latest| latest > aside);
        let high_water =
            if latest.is_some_and(|latest| latest > limit) { latest_until(page, limit) } else { latest };
        let store = self.identity.store;
        for _ in 0..STALE_RETRIES_MAX {
            self.refresh()?;
            if follows.is_some() && self.identity.store != store {
                // Another process has found it to be a copy, which reads from zero.
                return Err(CommitError::Stale);
            }
            let mut joined = Joined::default();
            let (mut records, mut dropped) = (Vec::new(), false);
            let staged = self.store.together(|| {
                let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
                work.look_out(self.witness()?);
                let mut newest = newest::Newest::new();
                let notes = self.identity.is_authority;
                let places = self.places(page, (from, follows))?;
                if let (Some(places), Some(follows)) = (&places, follows.filter(|follows| follows.collects)) {
                    dropped = self.drop_stale(&mut work, places, follows)?;
                }
                page.each(|part| {
                    if is_on(Canary::UnknownDropped) && self.schema.kind(part.kind).is_none() {
                        return Ok(());
                    }
                    joined.registers += part.changes.len();
                    let at = work.entity(part.kind, part.id);
                    if came == Came::Fetched && work.is_evicted(at)? {
                        work.restore(at)?;
                        records.push(RecordWrite::remove(Table::Evicted, evict::key(part.kind, part.id)));
                    }
                    let life = || self.schema.kind(part.kind).map(|kind| kind.life);
                    if !future {
                        if notes {
                            newest::note_all(&mut newest, part.changes);
                        }
                        return work.join(at, life, part.changes);
                    }
                    let (due, early): (Vec<_>, Vec<_>) =
                        part.changes.iter().cloned().partition(|(_, change)| newest_time(change) <= aside);
                    joined.quarantined += early.len();
                    let aside = early.iter().filter(|_| !is_on(Canary::QuarantineDrops));
                    records.extend(aside.filter_map(|(a, c)| quarantine(&part, a.as_ref(), c)));
                    // What is set aside tells of its author's clock what need not be true.
                    if notes {
                        newest::note_all(&mut newest, &due);
                    }
                    work.join(at, life, &due)
                })?;
                if joined.quarantined > 0 {
                    self.check_room_aside(&records)?;
                }
                newest::record_all(&self.store, newest, &mut records)?;
                if let Some(places) = places {
                    self.note_places(&mut work, places, &mut records)?;
                }
                work.finish()
            })?;
            let finished = match staged {
                Ok(finished) => finished,
                Err(CommitError::Stale) => continue,
                Err(error) => return Err(error),
            };
            if dropped && self.begin_unheard()? {
                continue;
            }
            if let (Some(follows), Some(from)) = (follows, from) {
                self.note_cursor(from, follows, &mut records);
            }
            let notes = |record: &RecordWrite| record.table == Table::Leaving && record.value.is_some();
            let notes_leaving = records.iter().any(notes);
            joined.changed = finished.changed().count();
            if let Some(time) = high_water {
                self.clock.observe(time);
            }
            let origin = from.map_or(Origin::Local, Origin::Remote);
            match self.commit(finished, records, Meanwhile::Any, origin) {
                Ok(_) => {
                    self.leaving |= notes_leaving;
                    if joined.quarantined > 0 {
                        self.events.push(Event::Quarantined { registers: joined.quarantined, from });
                    }
                    if let (Some(follows), Some(from)) = (follows, from) {
                        self.has_read(from, follows)?;
                    }
                    self.restamp(machine, page);
                    #[cfg(feature = "canary")]
                    if is_on(Canary::RepairsEmitted) {
                        self.emit_repairs(now);
                    }
                    return Ok(joined);
                }
                Err(CommitError::Stale) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CommitError::Stale)
    }

    /// What a commit keeps of how far another store is read.
    fn note_cursor(&self, from: StoreId, follows: Follows<'_>, records: &mut Vec<RecordWrite>) {
        let key = cursor_key(from, follows.scope);
        records.push(RecordWrite::put(Table::Cursor, key, follows.cursor.encode()));
        if let Some(scope) = follows.scope {
            self.note_partial(records);
            if self.leaving {
                records.push(RecordWrite::remove(Table::Leaving, leave::scope_key(scope)));
            }
        }
    }

    /// Takes over how far another store is read, which is committed.
    fn has_read(&mut self, from: StoreId, follows: Follows<'_>) -> Result<(), StoreError> {
        let Follows { scope, cursor, .. } = follows;
        if self.identity.authority.is_some_and(|authority| authority.store == from) {
            let saw = Saw { incarnation: cursor.incarnation, done: cursor.done };
            match scope {
                None => self.saw = Some(saw),
                Some(scope) => drop(self.saws.insert(scope.to_owned(), saw)),
            }
        }
        if scope.is_some() { self.set_partial(true) } else { Ok(()) }
    }
}

pub(super) fn newest_time(change: &Change<'_>) -> u64 {
    change.register().map_or(0, |r| r.alive.iter().map(|c| c.stamp.time).max().unwrap_or(0))
}

/// The newest time of any candidate that is not above the limit.
fn latest_until<D: Delta + ?Sized>(page: &D, limit: u64) -> Option<u64> {
    let mut latest = None;
    let read = page.each::<Infallible>(|part| {
        latest = part.times().filter(|time| *time <= limit).max().max(latest);
        Ok(())
    });
    read.map_or_else(|never| match never {}, |()| latest)
}
