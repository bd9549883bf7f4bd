//! A replica: one store, one clock, one schema, and everything that may happen to them.
//!
//! Owns the way from an edit or a page to one commit: edit, join, judge, verdicts, reset. Knows nothing of
//! frames or connections. Invariant: registers change by joining deltas alone (a local edit is a delta from
//! oneself), and every change is one commit of the store, or none.

mod aside;
mod collect;
mod conflicts;
mod delta;
mod event;
mod evict;
mod explain;
mod hold;
mod join;
mod journal;
mod judge;
mod lease;
mod leave;
mod marks;
mod migrate;
mod newest;
mod object;
mod others;
mod owners;
mod peers;
mod projection;
mod propose;
mod read;
mod rejected;
mod rejoin;
mod restamp;
mod returned;
mod roles;
mod rules;
mod scopes;
mod sketch;
mod taint;
mod trim;
mod usual;
mod verdict;
mod verify;
mod writer;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::canary::{Canary, is_on};
use crate::clock::{Admission, Clock, Force, Millis};
use crate::edit::{EditError, Finish, Made, Op, Tx};
use crate::id::{Incarnation, ReplicaId};
use crate::identity::{IDENTITY_KEY, Identity, Seeds};
use crate::register::Saw;
use crate::rules::Cover;
use crate::schema::Schema;
use crate::scope::Scopes;
use crate::store::{
    Batch, CommitError, Head, HighWater, RecordKey, RecordRead, RecordWrite, Store, StoreError, Table,
};
use crate::work::{Derived, Finished, Scratch, Work};

pub use aside::{ASIDE_BYTES_MAX, ASIDE_REGISTERS_MAX};
pub use collect::{CollectError, Collectable, Collection, GRACE_DEFAULT_MS, Sweep};
pub use conflicts::Losses;
pub(crate) use delta::Chosen;
pub use delta::{Delta, Incoming, Part};
pub use event::{Edited, Event, Origin, Watching};
pub use evict::{EvictError, Evicted};
pub use explain::{CandidateExplanation, Explanation, FieldExplanation, RegisterExplanation};
pub use hold::Blocked;
pub(crate) use hold::{Hold, Holding};
pub use join::{Follows, Joined, Trust};
pub use judge::{Principal, Pushed, Review, Verdict, Verdicts};
pub use lease::{Cut, LEASE_DEFAULT_MS, Lease, SUCCESS_NOTED_MS};
pub use leave::Kept;
pub(crate) use leave::Why;
pub(crate) use marks::Marked;
pub use marks::Marks;
pub use migrate::MigrateError;
pub use others::Noticed;
pub use owners::{OWNED_MAX, OwnError};
pub use peers::position_of;
pub use propose::{Proposed, ProposedEntity, Refusal, Spot, Write};
pub use roles::RoleError;
pub use rules::{EPOCH_AHEAD_MAX, Unresolved};
use rules::{Placed, evaluated, ruled};
pub use taint::Taint;
pub use trim::Keys;
pub use verdict::{Answer, Rejected};
pub use verify::Verification;
use writer::saw_in;

/// How far the index of the rules may be behind rows that do not concern it.
const COVER_LAG_MAX: u64 = 1000;

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
    /// The same for each scope that is followed by name.
    saws: BTreeMap<String, Saw>,
    /// Whether something is to leave the store as soon as no pending edit touches it.
    leaving: bool,
    /// How far the authority's clock was ahead of this machine's when they last met, in ms.
    ahead_ms: i64,
    /// Other writers' commits up to this number are known here.
    others: Option<i64>,
    watching: bool,
    /// How far the index of the rules follows the rows.
    cover: Cover,
    unresolved: Option<Unresolved>,
    /// Whether the store has yet to note the policies of this schema.
    unbound: bool,
    /// Where the scopes of entities stand.
    scopes: Scopes,
    /// Whether scopes were followed by name, and not everything was read since: what is not held may be elsewhere.
    is_partial: bool,
    /// What is kept beside the rows.
    derived: Derived,
    projections: projection::Projections,
    /// The machine's clock as it was told last.
    now: Millis,
    scratch: Scratch,
    events: Vec<Event>,
    /// How many commits have had losses to tell of.
    filed: u64,
    /// Whether an authority refused edits that are listed still.
    has_rejected: bool,
    /// How many times that list may have changed.
    refusals: u64,
    leasing: lease::Leasing,
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
            derived: Derived::new(Arc::clone(&schema)),
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
            saws: BTreeMap::new(),
            leaving: false,
            ahead_ms: 0,
            others: None,
            watching: false,
            cover: Cover::default(),
            unresolved: None,
            unbound: false,
            scopes: Scopes::default(),
            is_partial: false,
            projections: projection::Projections::default(),
            now: Millis(0),
            scratch: Scratch::default(),
            events: Vec::new(),
            filed: 0,
            has_rejected: false,
            refusals: 0,
            leasing: lease::Leasing::default(),
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
        self.look_for_refusals()?;
        self.reload_journal()?;
        self.is_partial = self.store.record(Table::Identity, scopes::PARTIAL_KEY)?.is_some();
        self.catch_up()?;
        self.catch_up_scopes()?;
        self.catch_up_views()?;
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

    /// Has the application hear of something that a session has met.
    pub(crate) fn tell_of(&mut self, event: Event) {
        self.events.push(event);
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
        self.now = now;
        for _ in 0..STALE_RETRIES_MAX {
            self.refresh()?;
            let how = Finish { now, force, rank: self.rank(), saw: self.saw()? };
            let (keep_ops, writer) = (self.identity.authority.is_some(), self.writer());
            let is_authority = self.identity.is_authority;
            let done = self.store.together(|| {
                let scratch = std::mem::take(&mut self.scratch);
                let rules = evaluated(&self.schema, self.unresolved);
                let (scopes, is_partial) = (&self.scopes, self.is_partial);
                let placed = Placed { scopes, tells_left: is_authority, is_partial };
                let ruled = ruled(&self.store, rules, self.watching, &self.derived, placed)?;
                let work = Work::with(&self.store, ruled, scratch);
                let mut tx = Tx::new(work, &self.schema, self.clock.replica(), keep_ops, writer);
                if ruled.rules.is_some() {
                    tx.ends(self.clock.clone(), how);
                }
                let value = edit(&mut tx)?;
                if !self.scopes.is_empty() {
                    tx.refuse_several_scopes()?;
                }
                let how = if self.saws.is_empty() || is_authority {
                    how
                } else {
                    // Of what is to leave this store has heard no more since it has left.
                    let leaves = |(kind, id): &(String, String)| leave::is_noted(&self.store, kind, id);
                    let hears = !self.leaving || !tx.touched().iter().any(leaves);
                    let saw = if hears { saw_in(&self.saws, self.saw, &tx.scopes()?) } else { None };
                    Finish { saw, ..how }
                };
                let (work, made) = tx.finish(&mut self.clock, how)?;
                let finished = made.map(|made| Ok::<_, CommitError>((work.finish()?, made)));
                Ok((value, finished.transpose()?))
            })?;
            let (value, finished) = match done {
                Ok((value, Some(finished))) => (value, finished),
                Ok((value, None)) => return Ok((value, Edited::Nothing)),
                Err(EditError::Commit(CommitError::Stale)) => continue,
                Err(error) => return Err(error),
            };
            let (finished, Made { stamp, record, registers }) = finished;
            let mut records = match &record {
                Some(record) if self.has_rejected => self.written_anew(record)?,
                _ => Vec::new(),
            };
            let clears = !records.is_empty();
            let settled = rejected::settled(&records);
            records.extend(record.map(|record| RecordWrite {
                table: Table::Outbox,
                key: RecordKey::CommitSeq,
                value: Some(record),
            }));
            match self.commit(finished, records, Meanwhile::Any, Origin::Local) {
                Ok(seq) if clears => {
                    self.events.extend(settled);
                    self.look_for_refusals()?;
                    return Ok((value, Edited::Committed { stamp, registers, seq }));
                }
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
        finished: Finished,
        records: Vec<RecordWrite>,
        meanwhile: Meanwhile,
        origin: Origin,
    ) -> Result<u64, CommitError> {
        self.commit_if(finished, records, Vec::new(), meanwhile, origin)
    }

    /// Commits unless one of these records is another by now.
    fn commit_if(
        &mut self,
        mut finished: Finished,
        mut records: Vec<RecordWrite>,
        mut unchanged: Vec<RecordRead>,
        meanwhile: Meanwhile,
        origin: Origin,
    ) -> Result<u64, CommitError> {
        if finished.since.is_some_and(|since| since != self.cover.seq) {
            // Another program has written since this edit began: its rows may not be in the rules' index yet.
            self.catch_up()?;
            return Err(CommitError::Stale);
        }
        let (mut head, high_water) = self.bounds(meanwhile);
        self.scratch = std::mem::take(&mut finished.scratch);
        if is_on(Canary::WithdrawKeepsDigest) && origin == Origin::Withdrawn {
            finished.sums = crate::row::Sums::default();
        }
        let (mut filed, conflicts) = self.file(&finished.losses)?;
        records.append(&mut filed.records);
        unchanged.append(&mut self.identity_read());
        unchanged.append(&mut filed.unchanged);
        self.commit_with_views(&finished, &mut records, &mut unchanged)?;
        let derivation = finished.derivation.take();
        if let Some(derivation) = &derivation {
            self.journal_records(derivation, origin, &mut records)?;
        }
        let mut index = std::mem::take(&mut finished.index);
        let after = finished.since.map(|since| since + finished.written());
        let derived = derivation.as_ref().filter(|derived| !derived.is_empty());
        head = head.or(derived.map(|derived| derived.since));
        let cover = after.filter(|seq| !index.is_empty() || *seq > self.cover.seq + COVER_LAG_MAX);
        if let Some(seq) = cover {
            // The index was made from rows of that moment.
            head = head.or(finished.since);
            records.append(&mut index);
            records.push(self.cover_record(Cover { seq, ..self.cover }));
        }
        let (reads, rows) = finished.rows();
        self.forget_index(&finished, &mut records);
        let (wrote_rows, moves, scopes) = (!rows.is_empty(), finished.moves(), finished.scopes());
        if wrote_rows && self.unbound {
            self.bind().map_err(StoreError::from)?;
        }
        let views: Vec<_> = derived.iter().flat_map(|derived| derived.writes()).collect();
        let seq = if rows.is_empty() && records.is_empty() {
            self.store.head()?.seq
        } else {
            self.store.commit(Batch {
                head,
                reads: reads.into(),
                unchanged: unchanged.into(),
                rows: rows.into(),
                moves: moves.into(),
                records: records.as_slice().into(),
                high_water,
                sums: finished.sums,
                scopes: scopes.into(),
                incarnation: self.incarnation,
                views: views.into(),
            })?
        };
        if after == Some(seq) {
            self.cover.seq = seq;
        }
        if let Some(derivation) = &derivation {
            self.views_follow(derivation.since, seq, &records);
        }
        if wrote_rows {
            self.incarnation = None;
        }
        self.filed += u64::from(!finished.losses.is_empty());
        self.events.extend(conflicts);
        self.tell(&finished, origin);
        Ok(seq)
    }

    /// The head that a commit depends on, if it does, and what becomes of the clock's high-water mark.
    fn bounds(&self, meanwhile: Meanwhile) -> (Option<u64>, HighWater) {
        let kept = HighWater::AtLeast(self.clock.high_water());
        match meanwhile {
            Meanwhile::Nothing { since, high_water } => {
                (Some(since), high_water.map_or(kept, HighWater::Set))
            }
            Meanwhile::Any if is_on(Canary::HighWaterNotKept) => (None, HighWater::AtLeast(0)),
            Meanwhile::Any => (None, kept),
        }
    }

    /// Keeps events of what a commit changed.
    fn tell(&mut self, finished: &Finished, origin: Origin) {
        self.events.extend(finished.clashes.iter().map(|stamp| Event::Clash { stamp: *stamp }));
        if self.watching {
            let event = |(kind, id): (&str, &str)| Event::Changed {
                kind: kind.to_owned(),
                id: id.to_owned(),
                origin,
            };
            self.events.extend(finished.changed().map(event));
            self.events.extend(finished.swayed().map(event));
        }
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

#[cfg(test)]
mod tests;
