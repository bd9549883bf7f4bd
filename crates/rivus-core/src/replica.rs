//! A replica: one store, one clock, one schema, and everything that may happen to them.
//!
//! Owns the way from an edit or a page to one commit: edit, join, judge, verdicts, reset. Knows nothing of
//! frames or connections. Invariant: registers change by joining deltas alone (a local edit is a delta from
//! oneself), and every change is one commit of the store, or none.

mod delta;
mod judge;
mod usual;
mod verdict;

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use crate::address::Parts;
use crate::bytes::{Cut, Put, Reader};
use crate::canary::{Canary, is_on};
use crate::clock::{Admission, Clock, Force, Millis, Stamp};
use crate::edit::{EditError, Finish, Made, Op, Tx};
use crate::id::{Incarnation, ReplicaId, StoreId};
use crate::identity::{Authority, Cursor, IDENTITY_KEY, Identity, Peer, Position, Seeds};
use crate::pending::Pending;
use crate::register::Saw;
use crate::row::{Change, Corrupt, Entry, Row, State, decode_register, encode_register};
use crate::schema::Schema;
use crate::store::{
    Batch, CommitError, Head, HighWater, RecordKey, RecordRead, RecordWrite, Store, StoreError, Table,
};
use crate::view::View;
use crate::work::{Finished, Scratch, Work, damaged};

pub use delta::{Delta, Incoming, Part};
pub use judge::{Principal, Pushed, Taint, Verdict, Verdicts};
pub use verdict::{Answer, Rejected};

/// How often a commit that another writer overtook is tried again before the edit gives up.
const STALE_RETRIES_MAX: usize = 1000;

/// How a replica is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Random numbers, used as far as they are needed.
    pub seeds: Seeds,
    /// Which of the processes that have the store open this is, from 0.
    pub slot: u32,
    /// What to do with stamps from the future.
    pub admission: Admission,
    /// The rank of this replica's edits while no authority has granted one.
    pub rank: u8,
}

/// One running writer into a store.
#[derive(Debug)]
pub struct Replica<S> {
    store: S,
    schema: Arc<Schema>,
    identity: Identity,
    clock: Clock,
    admission: Admission,
    rank: u8,
    slot: u32,
    seeds: Seeds,
    /// Appended by the first commit of this opening.
    incarnation: Option<Incarnation>,
    /// Where this store is in the authority's changes.
    saw: Option<Saw>,
    /// How far the authority's clock was ahead of this machine's when they last met, in ms.
    ahead_ms: i64,
    /// Other writers' commits up to this number are known here.
    others: Option<i64>,
    watching: bool,
    scratch: Scratch,
    events: Vec<Event>,
}

/// Where a change came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// An edit made here.
    Local,
    /// A page from this store.
    Remote(StoreId),
    /// A verdict took a refused edit back.
    Withdrawn,
}

/// Something that an application may want to know.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The view of an entity may have changed: one event per transaction and entity.
    Changed {
        /// The entity's kind.
        kind: String,
        /// The entity's id.
        id: String,
        /// Whose doing it was.
        origin: Origin,
    },
    /// One stamp was met with two contents: somebody copied a database and both copies wrote.
    Clash {
        /// The stamp.
        stamp: Stamp,
    },
    /// Registers with stamps from the future were set aside until their time has come.
    Quarantined {
        /// How many.
        registers: usize,
        /// Who sent them.
        from: Option<StoreId>,
    },
    /// The store was found to be a copy or a restored backup and has taken a new id.
    Copied {
        /// Its id until now.
        before: StoreId,
        /// Its id from now on.
        now: StoreId,
    },
    /// The authority refused an edit; it was taken back and kept among the rejected.
    Rejected(Rejected),
}

/// What an edit did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edited {
    /// Everything showed that already: nothing written, no stamp used.
    Nothing,
    /// One transaction.
    Committed {
        /// The edit's stamp.
        stamp: Stamp,
        /// How many registers it wrote.
        registers: usize,
        /// The store's head after it.
        seq: u64,
    },
}

/// What the sender of a page is to the receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// A peer: registers from the future are set aside.
    Peer,
    /// The authority: taken as it is, but the clock follows only as far as is believable.
    Authority,
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

impl<S: Store> Replica<S> {
    /// Opens a replica of the store, giving the store and this slot their ids if they have none.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read or written.
    pub fn open(store: S, schema: Arc<Schema>, options: OpenOptions) -> Result<Self, StoreError> {
        let OpenOptions { seeds, slot, admission, rank } = options;
        let mut replica = Self {
            store,
            schema,
            identity: Identity {
                store: seeds.store,
                replicas: Vec::new(),
                former: Vec::new(),
                is_authority: false,
                authority: None,
            },
            clock: Clock::new(seeds.replica, 0),
            admission,
            rank,
            slot,
            seeds,
            incarnation: Some(seeds.incarnation),
            saw: None,
            ahead_ms: 0,
            others: None,
            watching: false,
            scratch: Scratch::default(),
            events: Vec::new(),
        };
        // Asked first: what others commit during the reading is then read again.
        replica.others = replica.store.others()?;
        replica.reload()?;
        if is_on(Canary::IncarnationReused) && !replica.head()?.incarnations.is_empty() {
            replica.incarnation = None;
        }
        Ok(replica)
    }

    /// The store's count of others' commits that are known here.
    pub(crate) fn others(&self) -> Option<i64> {
        self.others
    }

    /// Takes over what another process did to this store's identity, cursors and clock.
    pub(crate) fn refresh(&mut self) -> Result<(), StoreError> {
        let others = self.store.others()?;
        if others != self.others {
            self.reload()?;
            self.others = others;
        }
        Ok(())
    }

    /// Reads the identity, giving the store and this slot their ids if they have none.
    fn reload(&mut self) -> Result<(), StoreError> {
        let (seeds, wanted) = (self.seeds, self.slot as usize + 1);
        self.swap_identity(|identity| {
            for number in identity.replicas.len()..wanted {
                // Slots are taken from 0 up; the ids of skipped ones differ from this slot's seed.
                let id = seeds.replica.as_u128() ^ ((wanted - 1 - number) as u128);
                identity.replicas.push(ReplicaId::from_u128(id));
            }
        })?;
        // What others have taken back is taken back here too; what this process used is in the store.
        let high_water = self.store.head()?.high_water;
        let id = self.identity.replicas.get(self.slot as usize).copied();
        self.clock = Clock::new(id.unwrap_or(seeds.replica), high_water);
        self.clock.correct(self.identity.authority.map_or(0, |a| a.correction_ms));
        self.refresh_saw()
    }

    /// Changes the identity as it is in the store, whoever else may be changing it at the same time.
    fn swap_identity(&mut self, mut update: impl FnMut(&mut Identity)) -> Result<(), StoreError> {
        for _ in 0..STALE_RETRIES_MAX {
            let found = self.store.record(Table::Identity, IDENTITY_KEY)?;
            let mut identity = match &found {
                Some(bytes) => Identity::decode(bytes)?,
                None => Identity { store: self.seeds.store, ..self.identity.clone() },
            };
            let before = found.as_ref().map(|_| identity.clone());
            update(&mut identity);
            if before.as_ref() == Some(&identity) {
                self.identity = identity;
                return Ok(());
            }
            let unchanged = [RecordRead { table: Table::Identity, key: IDENTITY_KEY.to_vec(), value: found }];
            let records = [RecordWrite::put(Table::Identity, IDENTITY_KEY, identity.encode())];
            let (unchanged, records) = (unchanged.as_slice().into(), records.as_slice().into());
            let batch = Batch { unchanged, records, ..Batch::default() };
            match self.store.commit(batch) {
                Ok(_) => {
                    self.identity = identity;
                    return Ok(());
                }
                Err(CommitError::Stale) => {}
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
        Err(StoreError::Busy("others keep changing the store's identity".to_owned()))
    }

    /// The store, for reading.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Ends the replica and returns its store.
    pub fn into_store(self) -> S {
        self.store
    }

    /// The store for what has nothing to do with merging: backups, pragmas.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The schema by which this replica reads and writes.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Who the store is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The id under which this replica writes.
    pub fn id(&self) -> ReplicaId {
        self.clock.replica()
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What is done with stamps from the future.
    pub fn admission(&self) -> Admission {
        self.admission
    }

    /// Where the store stands.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub fn head(&self) -> Result<Head, StoreError> {
        self.store.head()
    }

    /// Whether changes of entities are to be kept for [`Replica::poll_events`].
    pub fn watch(&mut self, watching: Watching) {
        self.watching = watching == Watching::Yes;
    }

    /// The next event, oldest first.
    pub fn poll_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// One edit: all of the operations or none.
    ///
    /// `now` is the machine's clock.
    ///
    /// # Errors
    /// [`EditError`]; nothing has changed.
    pub fn edit(&mut self, now: Millis, ops: &[Op]) -> Result<Edited, EditError> {
        if let [op] = ops
            && let Some(edited) = self.edit_usual(now, op)?
        {
            return Ok(edited);
        }
        self.transact(now, Force::No, |tx| ops.iter().try_for_each(|op| tx.apply(op)))
            .map(|((), edited)| edited)
    }

    /// One edit made by a closure that may look before it writes.
    ///
    /// The closure runs again if another writer of the store was faster.
    ///
    /// # Errors
    /// [`EditError`], the closure's own among them; nothing has changed.
    pub fn transact<T>(
        &mut self,
        now: Millis,
        force: Force,
        mut edit: impl FnMut(&mut Tx<'_, S>) -> Result<T, EditError>,
    ) -> Result<(T, Edited), EditError> {
        for _ in 0..STALE_RETRIES_MAX {
            self.refresh()?;
            let how = Finish { now, force, rank: self.rank(), saw: self.saw()? };
            let keep_ops = self.identity.authority.is_some();
            let done = self.store.together(|| {
                let work = Work::with(&self.store, std::mem::take(&mut self.scratch));
                let mut tx = Tx::new(work, &self.schema, self.clock.replica(), keep_ops);
                let value = edit(&mut tx)?;
                let (work, made) = tx.finish(&mut self.clock, how)?;
                Ok((value, made.map(|made| (work.finish(), made))))
            })?;
            let (value, finished) = match done {
                Ok((value, Some(finished))) => (value, finished),
                Ok((value, None)) => return Ok((value, Edited::Nothing)),
                Err(EditError::Commit(CommitError::Stale)) => continue,
                Err(error) => return Err(error),
            };
            let (finished, Made { stamp, record, registers }) = finished;
            let records = record.map(|record| RecordWrite {
                table: Table::Outbox,
                key: RecordKey::CommitSeq,
                value: Some(record),
            });
            match self.commit(finished, records.into_iter().collect(), Meanwhile::Any, Origin::Local) {
                Ok(seq) => return Ok((value, Edited::Committed { stamp, registers, seq })),
                Err(CommitError::Stale) if is_on(Canary::StaleIsDone) => {
                    return Ok((value, Edited::Committed { stamp, registers, seq: 0 }));
                }
                Err(CommitError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Stale.into())
    }

    /// The rank that new edits bear.
    fn rank(&self) -> u8 {
        self.identity.authority.map_or(self.rank, |a| a.rank)
    }

    /// What new edits have seen at the authority.
    fn saw(&self) -> Result<Option<Saw>, StoreError> {
        if !self.identity.is_authority {
            return Ok(self.saw);
        }
        let head = self.store.head()?;
        let newest = self.incarnation.or(head.incarnations.last().map(|(incarnation, _)| *incarnation));
        Ok(newest.map(|incarnation| Saw { incarnation, done: head.seq }))
    }

    fn refresh_saw(&mut self) -> Result<(), StoreError> {
        let Some(authority) = self.identity.authority else { return Ok(()) };
        let cursor = self.cursor(authority.store)?;
        self.saw = cursor.map(|c| Saw { incarnation: c.incarnation, done: c.done });
        Ok(())
    }

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
        let now = self.clock.corrected(now);
        let own_limit = self.admission.latest(now).unwrap_or(u64::MAX);
        let (aside, limit) = match trust {
            Trust::Peer => (own_limit, own_limit),
            // The clock follows its authority's, even where its own machine's is slow.
            Trust::Authority => {
                let theirs = Millis(now.0.saturating_add(self.ahead_ms.max(0)));
                (u64::MAX, self.admission.latest(theirs).unwrap_or(u64::MAX))
            }
        };
        let latest = page.latest();
        let future = latest.is_some_and(|latest| latest > aside);
        let high_water =
            if latest.is_some_and(|latest| latest > limit) { latest_until(page, limit) } else { latest };
        let store = self.identity.store;
        for _ in 0..STALE_RETRIES_MAX {
            self.refresh()?;
            if cursor.is_some() && self.identity.store != store {
                // Another process has found it to be a copy, which reads from zero.
                return Err(CommitError::Stale);
            }
            let mut joined = Joined::default();
            let mut records = Vec::new();
            let staged = self.store.together(|| {
                let mut work = Work::new(&self.store);
                page.each(|part| {
                    if is_on(Canary::UnknownDropped) && self.schema.kind(part.kind).is_none() {
                        return Ok(());
                    }
                    joined.registers += part.changes.len();
                    let at = work.entity(part.kind, part.id);
                    if !future {
                        return work.apply(at, part.changes);
                    }
                    let (due, early): (Vec<_>, Vec<_>) =
                        part.changes.iter().cloned().partition(|(_, change)| newest_time(change) <= aside);
                    joined.quarantined += early.len();
                    let aside = early.iter().filter(|_| !is_on(Canary::QuarantineDrops));
                    records.extend(aside.filter_map(|(a, c)| quarantine(&part, a.as_ref(), c)));
                    work.apply(at, &due)
                })?;
                if self.identity.is_authority {
                    judge::note_newest(&self.store, page, &mut records)?;
                }
                Ok(work.finish())
            })?;
            let finished = match staged {
                Ok(finished) => finished,
                Err(CommitError::Stale) => continue,
                Err(error) => return Err(error),
            };
            if let (Some(cursor), Some(from)) = (cursor, from) {
                records.push(RecordWrite::put(Table::Cursor, from.0.to_be_bytes(), cursor.encode()));
            }
            joined.changed = finished.changed().count();
            if let Some(time) = high_water {
                self.clock.observe(time);
            }
            let origin = from.map_or(Origin::Local, Origin::Remote);
            match self.commit(finished, records, Meanwhile::Any, origin) {
                Ok(_) => {
                    if joined.quarantined > 0 {
                        self.events.push(Event::Quarantined { registers: joined.quarantined, from });
                    }
                    if let Some(cursor) = cursor
                        && from.is_some()
                        && from == self.identity.authority.map(|a| a.store)
                    {
                        self.saw = Some(Saw { incarnation: cursor.incarnation, done: cursor.done });
                    }
                    return Ok(joined);
                }
                Err(CommitError::Stale) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CommitError::Stale)
    }

    /// Joins the registers that were set aside and whose time has come, and says how many.
    ///
    /// # Errors
    /// [`CommitError`]; those not joined stay aside.
    pub fn release(&mut self, now: Millis) -> Result<usize, CommitError> {
        let limit = self.admission.latest(self.clock.corrected(now)).unwrap_or(u64::MAX);
        let mut due: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        self.store.records(Table::Quarantine, &[], &mut |key, value| {
            let time = Reader::new(key).u64().unwrap_or(u64::MAX);
            if time > limit {
                return ControlFlow::Break(());
            }
            due.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        for (key, value) in &due {
            let unreadable = |_: Cut| StoreError::Damaged("a record of the quarantine".to_owned());
            let mut reader = Reader::new(value);
            let mut read = || -> Result<Incoming<'_>, Cut> {
                let (kind, id, address) = (reader.str()?, reader.str()?, reader.slice()?);
                let register = decode_register(reader.rest())?;
                let change = Change::Join { register, source: None };
                Ok(Incoming {
                    kind: Arc::from(kind),
                    id: Arc::from(id),
                    changes: vec![(Arc::from(address), change)],
                })
            };
            let incoming = read().map_err(unreadable)?;
            if !is_on(Canary::ReleaseForgets) {
                self.join(now, &[incoming], None, Trust::Peer, None)?;
            }
            commit_records(&mut self.store, vec![RecordWrite::remove(Table::Quarantine, key.clone())])?;
        }
        Ok(due.len())
    }

    /// How many registers are set aside.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn quarantined(&self) -> Result<usize, StoreError> {
        count(&self.store, Table::Quarantine)
    }

    /// The entity as the application sees it; `None` if it is not held or its kind not declared.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn view(&self, kind: &str, id: &str) -> Result<Option<View>, StoreError> {
        let Some(declared) = self.schema.kind(kind) else { return Ok(None) };
        let mut work = Work::new(&self.store);
        let at = work.entity(kind, id);
        for _ in 0..STALE_RETRIES_MAX {
            match work.rows(at) {
                Ok(rows) => return View::read(declared, rows).map_err(|corrupt| damaged(kind, id, corrupt)),
                Err(CommitError::Store(error)) => return Err(error),
                Err(CommitError::Stale) => {}
            }
            work = Work::new(&self.store);
        }
        Err(StoreError::Busy(format!("{kind} `{id}` keeps changing")))
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
        let rows = work.rows(at).map_err(|error| match error {
            CommitError::Store(error) => error,
            CommitError::Stale => StoreError::Busy(format!("{kind} `{id}` keeps changing")),
        })?;
        for entry in rows.iter().flat_map(Row::entries) {
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
        let mut digest = crate::store::Digest::default();
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

    /// Makes this store the judge of all edits that are pushed to it.
    ///
    /// # Errors
    /// [`RoleError`]; nothing has changed.
    pub fn become_authority(&mut self) -> Result<(), RoleError> {
        self.refresh()?;
        if let Some(authority) = self.identity.authority {
            return Err(RoleError::HasAuthority { store: authority.store });
        }
        if self.identity.is_authority {
            return Ok(());
        }
        let records = judge::newest_of_all(&self.store)?;
        commit_records(&mut self.store, records)?;
        self.swap_identity(|identity| identity.is_authority = true)?;
        Ok(())
    }

    /// As [`Replica::become_authority`], and from now on refuses stamps from the future instead of setting them
    /// aside: an authority answers each edit.
    ///
    /// # Errors
    /// [`RoleError`]; nothing has changed.
    pub fn serve_as_authority(&mut self) -> Result<(), RoleError> {
        self.become_authority()?;
        if let Admission::Quarantine { drift_ms_max } = self.admission {
            self.admission = Admission::Refuse { drift_ms_max };
        }
        Ok(())
    }

    /// Notes what the authority granted: from the first time on, this store's edits are pending until judged.
    ///
    /// # Errors
    /// [`RoleError`] if the store has another authority or is one itself; nothing has changed.
    pub fn meet_authority(&mut self, store: StoreId, rank: u8) -> Result<(), RoleError> {
        self.refresh()?;
        if self.identity.is_authority {
            return Err(RoleError::IsAuthority);
        }
        let before = self.identity.authority;
        if let Some(known) = before
            && known.store != store
        {
            return Err(RoleError::OtherAuthority { known: known.store, met: store });
        }
        let fresh = Authority { store, met: false, rank, acked: 0, correction_ms: 0, restamped: 0 };
        let after = Authority { rank, ..before.unwrap_or(fresh) };
        self.swap_identity(|identity| identity.authority = Some(after))?;
        self.refresh_saw()?;
        Ok(())
    }

    /// Notes what the authority's clock reads at this machine's `now`.
    pub fn hear_clock(&mut self, now: Millis, authority: Millis) {
        self.ahead_ms = authority.0.saturating_sub(now.0);
    }

    /// The latest time that an honest stamp can bear while the authority's clock reads this.
    fn believable(&self, authority: Millis) -> u64 {
        let default = Admission::Quarantine { drift_ms_max: crate::clock::DRIFT_DEFAULT_MS };
        self.admission.latest(authority).or(default.latest(authority)).unwrap_or(u64::MAX)
    }

    /// Changes what is noted of the authority.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub fn update_authority(&mut self, mut update: impl FnMut(&mut Authority)) -> Result<(), StoreError> {
        self.swap_identity(|identity| {
            if let Some(authority) = &mut identity.authority {
                update(authority);
            }
        })?;
        self.clock.correct(self.identity.authority.map_or(0, |a| a.correction_ms));
        Ok(())
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
    fn outbox(
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

    /// How many edits are pending.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn pending_count(&self) -> Result<usize, StoreError> {
        count(&self.store, Table::Outbox)
    }

    /// The identity as commits depend on it: an edit stamped or kept pending by one that another process has replaced
    /// is made again.
    fn identity_read(&self) -> Vec<RecordRead> {
        if self.others.is_none() {
            return Vec::new();
        }
        let value = Some(self.identity.encode());
        vec![RecordRead { table: Table::Identity, key: IDENTITY_KEY.to_vec(), value }]
    }

    fn commit(
        &mut self,
        mut finished: Finished,
        records: Vec<RecordWrite>,
        meanwhile: Meanwhile,
        origin: Origin,
    ) -> Result<u64, CommitError> {
        let (head, high_water) = match meanwhile {
            Meanwhile::Nothing { since, high_water } => (Some(since), high_water.map(HighWater::Set)),
            Meanwhile::Any if is_on(Canary::HighWaterNotKept) => (None, Some(HighWater::AtLeast(0))),
            Meanwhile::Any => (None, None),
        };
        let high_water = high_water.unwrap_or(HighWater::AtLeast(self.clock.high_water()));
        self.scratch = std::mem::take(&mut finished.scratch);
        if is_on(Canary::WithdrawKeepsDigest) && origin == Origin::Withdrawn {
            finished.sums = crate::row::Sums::default();
        }
        let (reads, rows) = finished.rows();
        let wrote_rows = !rows.is_empty();
        let seq = if rows.is_empty() && records.is_empty() {
            self.store.head()?.seq
        } else {
            self.store.commit(Batch {
                head,
                reads: reads.into(),
                unchanged: self.identity_read().into(),
                rows: rows.into(),
                records: records.into(),
                high_water,
                sums: finished.sums,
                incarnation: self.incarnation,
            })?
        };
        if wrote_rows {
            self.incarnation = None;
        }
        self.events.extend(finished.clashes.drain(..).map(|stamp| Event::Clash { stamp }));
        if self.watching {
            let event = |(kind, id): (&str, &str)| Event::Changed {
                kind: kind.to_owned(),
                id: id.to_owned(),
                origin,
            };
            self.events.extend(finished.changed().map(event));
        }
        Ok(seq)
    }
}

/// What other processes may have written while a commit was prepared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meanwhile {
    /// Anything but the rows that were read.
    Any,
    /// No row at all: the commit stamps edits of theirs, or takes stamps back.
    Nothing {
        /// The head's seq before anything was read.
        since: u64,
        /// What the clock is set back to.
        high_water: Option<u64>,
    },
}

/// Whether a replica keeps events of changed entities.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watching {
    /// Somebody polls them.
    Yes,
    /// Nobody does.
    No,
}

/// The newest position of a store with this head.
#[must_use]
pub fn position_of(head: &Head) -> Position {
    let incarnation = head.incarnations.last().map(|(incarnation, _)| *incarnation).unwrap_or_default();
    Position { incarnation, seq: head.seq }
}

/// Visits every register of the store, with its entity's kind and id.
fn each_entry<S: Store>(
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

fn commit_records<S: Store>(store: &mut S, records: Vec<RecordWrite>) -> Result<(), StoreError> {
    match store.commit(Batch { records: records.into(), ..Batch::default() }) {
        Ok(_) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
        Err(CommitError::Stale) => Err(StoreError::Busy("records moved".to_owned())),
    }
}

fn count<S: Store>(store: &S, table: Table) -> Result<usize, StoreError> {
    let mut count = 0;
    store.records(table, &[], &mut |_, _| {
        count += 1;
        ControlFlow::Continue(())
    })?;
    Ok(count)
}

fn unreadable(what: &str) -> StoreError {
    StoreError::Damaged(format!("{what} is unreadable"))
}

fn newest_time(change: &Change<'_>) -> u64 {
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

fn quarantine<A>(part: &Part<'_, A>, address: &[u8], change: &Change<'_>) -> Option<RecordWrite> {
    let register = change.register()?;
    let mut value = Vec::new();
    value.slice(part.kind.as_bytes());
    value.slice(part.id.as_bytes());
    value.slice(address);
    encode_register(register, &mut value);
    let mut key = newest_time(change).to_be_bytes().to_vec();
    key.extend_from_slice(&xxh3_128(&value).to_be_bytes());
    Some(RecordWrite::put(Table::Quarantine, key, value))
}

/// Why a store cannot take a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// A store that has an authority cannot become one.
    #[error("this store belongs to the authority {store}: serve another store, or export and import it")]
    HasAuthority {
        /// The authority.
        store: StoreId,
    },
    /// An authority cannot have one.
    #[error("this store is an authority itself: sync from a store that is not served")]
    IsAuthority,
    /// The store remembers another authority.
    #[error("this store belongs to the authority {known}, not to {met}: connect to its own hub")]
    OtherAuthority {
        /// The one that it remembers.
        known: StoreId,
        /// The one that was met.
        met: StoreId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests;
