//! The device's side: verdicts on its pending edits, and starting over under a new id.
//!
//! Accepted edits become confirmed; refused ones are taken back exactly, and every later pending edit that
//! rests on them, or on what a rule showed on their account, is made again from its operations, on what remains, under a new stamp. All in one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::read::each_entry;
use super::rejected::{read_rejected, rejected_record};
use super::{
    Event, Meanwhile, Origin, Replica, STALE_RETRIES_MAX, Spot, Verdict, Verdicts, saw_in, unreadable,
};
use crate::address::{Parts, class};
use crate::bytes::Cut;
use crate::canary::{Canary, is_on};
use crate::clock::{Clock, Force, Millis, Stamp};
use crate::code::Code;
use crate::edit::{Action, EditError, Finish, Op, Tx};
use crate::id::{ReplicaId, StoreId};
use crate::identity::{Cursor, IDENTITY_KEY, Identity, Peer, Seeds};
use crate::pending::{Header, Pending};
use crate::register::{Candidate, Register};
use crate::row::{Change, Row};
use crate::rules::Rules;
use crate::schema::{FieldType, Slot};
use crate::store::{CommitError, RecordWrite, Store, StoreError, Table};
use crate::view;
use crate::work::{Finished, Scratch, Work, damaged};

/// The authority's answer to one push.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The keys and stamps of the edits in the push, ascending: what was stamped anew since has no verdict yet.
    pub edits: Vec<(u64, Stamp)>,
    /// What was decided.
    pub verdicts: Verdicts,
    /// The authority's clock, in ms.
    pub clock: Millis,
}

/// An edit that the authority refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejected {
    /// Its key in the outbox, which orders edits.
    pub key: u64,
    /// Why.
    pub code: Code,
    /// Why, in words.
    pub message: String,
    /// What of it the refusal is about, if the authority said so.
    pub spot: Option<Spot>,
    /// What it was to do.
    pub ops: Vec<Op>,
}

/// A pending edit on its way through a rebuild.
pub(super) struct Waiting {
    pub(super) key: u64,
    header: Header,
    pub(super) ops: Vec<Op>,
    pub(super) record: Vec<u8>,
    pub(super) entities: BTreeSet<(String, String)>,
}

impl<S: Store> Replica<S> {
    /// Takes the authority's verdicts on pending edits, in one commit. Returns the keys of edits that were taken back
    /// with the refused ones, because they rested on them and fit no more.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed and the edits are pending still.
    pub fn verdicts(&mut self, now: Millis, answer: &Answer) -> Result<Vec<u64>, CommitError> {
        self.now = now;
        let exceptions: BTreeMap<u64, &Verdict> =
            answer.verdicts.exceptions.iter().map(|(key, verdict)| (*key, verdict)).collect();
        let skewed = exceptions
            .values()
            .any(|v| matches!(v, Verdict::Refused { code, .. } if *code == Code::CLOCK_SKEW));
        if skewed && !is_on(Canary::SkewNotCorrected) {
            let correction_ms = answer.clock.0.saturating_sub(now.0);
            self.update_authority(|authority| authority.correction_ms = correction_ms)?;
        }
        for _ in 0..STALE_RETRIES_MAX {
            // Asked before what others did is taken over: what they do from here on is then noticed.
            let since = if exceptions.is_empty() { 0 } else { self.store.head()?.seq };
            self.refresh()?;
            match self.verdicts_once(now, answer, &exceptions, skewed, since) {
                Err(CommitError::Stale) => {}
                other => return other,
            }
        }
        Err(CommitError::Stale)
    }

    fn verdicts_once(
        &mut self,
        now: Millis,
        answer: &Answer,
        exceptions: &BTreeMap<u64, &Verdict>,
        skewed: bool,
        since: u64,
    ) -> Result<Vec<u64>, CommitError> {
        let mut fallen = Vec::new();
        let Judged { accepted, mut rejected, again, waiting } = self.sort(answer, exceptions)?;
        // It may have been accepted, unheard, before a part of it was collected: the rest is there still.
        let late = !rejected.is_empty();
        let remove = |key: &u64| RecordWrite::remove(Table::Outbox, key.to_be_bytes());
        let mut records: Vec<_> = accepted.iter().map(|(key, _)| remove(key)).collect();
        let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
        for (_, record) in accepted.iter().filter(|_| !is_on(Canary::AcceptForgotten)) {
            let edit = Pending::decode(record).map_err(|_| unreadable("a pending edit"))?;
            for entity in edit.entities {
                let at = work.entity(entity.kind, entity.id);
                let changes: Vec<_> =
                    entity.registers.into_iter().map(|(a, r)| (a, Change::Accept(r))).collect();
                work.apply(at, &changes)?;
            }
        }
        let mut clock = self.clock.clone();
        let mut identity = self.identity.clone();
        let mut meanwhile = Meanwhile::Any;
        if !exceptions.is_empty() {
            let mut high_water = None;
            if skewed {
                self.lower(&mut clock, &waiting, &again, answer.clock)?;
            }
            let refused: BTreeSet<u64> = rejected.iter().map(|fallen| fallen.key).collect();
            let all_from = if skewed { again.first().copied() } else { None };
            let (none, authors) = (BTreeSet::new(), &identity.replicas);
            let rebuild = Rebuild { refused: &refused, again: &again, brought: &none, all_from, authors };
            let rebuilt;
            (work, rebuilt) = self.rebuild(work, &mut clock, now, &waiting, rebuild, &mut records)?;
            fallen.extend(rebuilt.fallen.iter().map(|fallen| fallen.key));
            rejected.extend(rebuilt.fallen);
            if skewed {
                high_water = Some(clock.high_water());
            }
            meanwhile = Meanwhile::Nothing { since, high_water };
            // An answer that was made here, and not heard, is of seq 0.
            let is_heard = |key| answer.verdicts.seq > 0 && exceptions.contains_key(key);
            if let Some(authority) = &mut identity.authority {
                authority.restamped += u64::from(skewed || rebuilt.of_others);
                authority.unheard |= late || !rebuilt.anew.iter().all(is_heard);
            }
        }
        if let Some(authority) = &mut identity.authority {
            authority.acked = authority.acked.max(answer.verdicts.seq);
        }
        let finished = work.finish()?;
        self.commit_withdrawn(finished, records, meanwhile, (clock, identity), (&waiting, rejected))?;
        Ok(fallen)
    }

    /// Sets a clock back to what is kept once edits that were refused for their stamps are stamped anew, by the clock of
    /// the authority.
    pub(super) fn lower(
        &self,
        clock: &mut Clock,
        waiting: &[Waiting],
        again: &BTreeSet<u64>,
        authority: Millis,
    ) -> Result<(), CommitError> {
        let believable = self.believable(authority);
        let kept = kept_high_water(&self.store, waiting, again, believable)?;
        clock.lower(kept.max(self.evicted_high_water(believable)?));
        Ok(())
    }

    /// Commits that edits among these were taken back, under the clock and the identity that follow, and keeps those that
    /// are refused.
    pub(super) fn commit_withdrawn(
        &mut self,
        finished: Finished,
        mut records: Vec<RecordWrite>,
        meanwhile: Meanwhile,
        (clock, identity): (Clock, Identity),
        (waiting, rejected): (&[Waiting], Vec<Fallen>),
    ) -> Result<(), CommitError> {
        if identity != self.identity {
            records.push(RecordWrite::put(Table::Identity, IDENTITY_KEY, identity.encode()));
        }
        rejected_records(waiting, &rejected, &mut records);
        let before = std::mem::replace(&mut self.clock, clock);
        if let Err(error) = self.commit(finished, records, meanwhile, Origin::Withdrawn) {
            self.clock = before;
            return Err(error);
        }
        self.identity = identity;
        if !rejected.is_empty() {
            self.has_rejected = true;
            self.refusals += 1;
        }
        let edits = by_key(waiting);
        for Fallen { key, code, message, spot } in rejected {
            let ops = edits.get(&key).map(|edit| edit.ops.clone()).unwrap_or_default();
            self.events.push(Event::Rejected(Rejected { key, code, message, spot, ops }));
        }
        Ok(())
    }

    /// What an answer makes of each edit in the outbox.
    fn sort(&self, answer: &Answer, exceptions: &BTreeMap<u64, &Verdict>) -> Result<Judged, StoreError> {
        let answered: BTreeMap<u64, Stamp> = answer.edits.iter().copied().collect();
        let mut judged = Judged::default();
        // After a refusal every pending edit may have to be made again; else only those answered matter.
        let all = !exceptions.is_empty();
        let stop = if all { u64::MAX } else { answered.keys().last().copied().unwrap_or(0) };
        let start = if all { 0 } else { answered.keys().next().copied().unwrap_or(0) };
        self.outbox(start, &mut |key, record| {
            if key > stop {
                return Ok(ControlFlow::Break(()));
            }
            // What another process stamped anew while this answer was under way is not what it is about.
            let is_answered = answered.get(&key) == Some(&Pending::stamp(record)?);
            match (is_answered, exceptions.get(&key)) {
                (true, None) => {
                    judged.accepted.push((key, record.to_vec()));
                    return Ok(ControlFlow::Continue(()));
                }
                (true, Some(Verdict::Refused { code, message, spot })) if *code != Code::CLOCK_SKEW => {
                    let (code, message, spot) = (*code, message.clone(), spot.clone());
                    judged.rejected.push(Fallen { key, code, message, spot });
                }
                (true, Some(_)) => {
                    judged.again.insert(key);
                }
                (false, _) => {}
            }
            judged.waiting.push(Waiting::read(key, record)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(judged)
    }

    /// Takes refused edits out of the rows and makes the edits that rest on them anew.
    pub(super) fn rebuild<'s>(
        &'s self,
        mut work: Work<'s, S>,
        clock: &mut Clock,
        now: Millis,
        waiting: &[Waiting],
        rebuild: Rebuild<'_>,
        records: &mut Vec<RecordWrite>,
    ) -> Result<(Work<'s, S>, Rebuilt), CommitError> {
        let mut rebuilt = Rebuilt::default();
        let mut sand: BTreeSet<(String, String)> = BTreeSet::new();
        let mut anew: BTreeSet<u64> = BTreeSet::new();
        for edit in waiting {
            let rests = edit.entities.iter().any(|entity| sand.contains(entity));
            let restamp =
                rebuild.again.contains(&edit.key) || rebuild.all_from.is_some_and(|from| edit.key >= from);
            // What it accepted by going on from it may be shown no more.
            let accepts = !rests && edit.accepts(self.schema.rules(), &sand);
            if rebuild.refused.contains(&edit.key) || restamp || rests || accepts {
                sand.extend(edit.entities.iter().cloned());
                anew.insert(edit.key);
            }
        }
        // Back to the confirmed form wherever a waiting edit touches sand, then forward again in order.
        for edit in waiting {
            let pending = Pending::decode(&edit.record).map_err(|_| unreadable("a pending edit"))?;
            for entity in pending.entities {
                if sand.contains(&(entity.kind.to_owned(), entity.id.to_owned())) {
                    let at = work.entity(entity.kind, entity.id);
                    let changes: Vec<_> =
                        entity.registers.iter().map(|(a, _)| (*a, Change::Withdraw)).collect();
                    work.apply(at, &changes)?;
                }
            }
        }
        for edit in waiting.iter().filter(|edit| rebuild.brought.contains(&edit.key)) {
            let pending = Pending::decode(&edit.record).map_err(|_| unreadable("a pending edit"))?;
            for entity in pending.entities {
                let at = work.entity(entity.kind, entity.id);
                let changes: Vec<_> = entity.registers.iter().map(|(a, _)| (*a, Change::Forget)).collect();
                work.apply(at, &changes)?;
            }
        }
        for edit in waiting {
            if rebuild.refused.contains(&edit.key) {
                records.push(RecordWrite::remove(Table::Outbox, edit.key.to_be_bytes()));
                continue;
            }
            if !anew.contains(&edit.key) {
                // It rests on nothing that was refused: its delta stands.
                let pending = Pending::decode(&edit.record).map_err(|_| unreadable("a pending edit"))?;
                for entity in pending.entities {
                    if sand.contains(&(entity.kind.to_owned(), entity.id.to_owned())) {
                        let at = work.entity(entity.kind, entity.id);
                        let changes: Vec<_> =
                            entity.registers.into_iter().map(|(a, r)| (a, Change::Pend(r))).collect();
                        work.apply(at, &changes)?;
                    }
                }
                continue;
            }
            // Its author counts it, or a connection of that process could have it counted twice.
            let author = edit.header.stamp.replica;
            let kept = rebuild.authors.contains(&author) && !is_on(Canary::RebuiltAsOwn);
            let author = if kept { author } else { clock.replica() };
            rebuilt.of_others |= author != clock.replica();
            let mut tx = Tx::new(work, &self.schema, author, true, self.writer());
            // What no longer fits (its entity is gone with the refused edit) falls whole: an edit is all or nothing.
            match edit.ops.iter().try_for_each(|op| tx.apply(op)) {
                Ok(()) => {}
                Err(EditError::Commit(error)) => return Err(error),
                Err(refused) => {
                    work = tx.into_work();
                    records.push(RecordWrite::remove(Table::Outbox, edit.key.to_be_bytes()));
                    let (code, message) = (Code::BASE, refused.to_string());
                    rebuilt.fallen.push(Fallen { key: edit.key, code, message, spot: None });
                    continue;
                }
            }
            let saw = match tx.scopes() {
                _ if self.saws.is_empty() => self.saw,
                Ok(scopes) => saw_in(&self.saws, self.saw, &scopes),
                Err(_) => None,
            };
            let how = Finish { now, force: edit.header.force, rank: self.rank(), saw };
            let (next, made) = tx.finish(clock, how).map_err(|error| match error {
                EditError::Commit(error) => error,
                other => CommitError::Store(StoreError::Io(other.to_string())),
            })?;
            work = next;
            records.push(match made.and_then(|made| made.record) {
                Some(record) => RecordWrite::put(Table::Outbox, edit.key.to_be_bytes(), record),
                None => RecordWrite::remove(Table::Outbox, edit.key.to_be_bytes()),
            });
        }
        rebuilt.anew = anew;
        Ok((work, rebuilt))
    }

    /// The refused edits, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn rejected(&self) -> Result<Vec<Rejected>, StoreError> {
        let mut all = Vec::new();
        let mut failed = false;
        self.store.records(Table::Rejected, &[], &mut |key, value| {
            if key.len() != size_of::<u64>() {
                return ControlFlow::Continue(());
            }
            match read_rejected(key, value) {
                Ok(rejected) => all.push(rejected),
                Err(_) => failed = true,
            }
            ControlFlow::Continue(())
        })?;
        if failed { Err(unreadable("a refused edit")) } else { Ok(all) }
    }

    /// Starts over under new ids: the store, which was known as `copy`, was found to be a copy, or a restored backup,
    /// of one that has gone on. If another process has done so already, this takes its ids over and changes nothing.
    ///
    /// Pending edits committed at `fork` or later get new stamps under the new replica id; earlier ones keep
    /// theirs, because the original may push them too. Without an authority nothing is pending: there the current
    /// values that this store wrote since the fork are written again under the new id. Cursors are dropped, so
    /// everything is pulled from zero.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed.
    pub fn start_over(
        &mut self,
        now: Millis,
        seeds: Seeds,
        copy: StoreId,
        fork: u64,
    ) -> Result<(), CommitError> {
        self.now = now;
        for _ in 0..STALE_RETRIES_MAX {
            let since = self.store.head()?.seq;
            self.refresh()?;
            if self.identity.store != copy {
                return Ok(());
            }
            match self.start_over_once(now, seeds, fork, since) {
                Err(CommitError::Stale) => {}
                other => return other,
            }
        }
        Err(CommitError::Stale)
    }

    fn start_over_once(
        &mut self,
        now: Millis,
        seeds: Seeds,
        fork: u64,
        since: u64,
    ) -> Result<(), CommitError> {
        let before = self.identity.clone();
        let identity = renewed(&before, seeds, self.slot);
        let replica = identity.replicas.get(self.slot as usize).copied().unwrap_or(seeds.replica);
        let mut clock = Clock::new(replica, self.clock.high_water());
        clock.correct(self.clock.correction_ms());
        let mut records = vec![RecordWrite::put(Table::Identity, IDENTITY_KEY, identity.encode())];
        self.store.records(Table::Cursor, &[], &mut |key, _| {
            records.push(RecordWrite::remove(Table::Cursor, key));
            ControlFlow::Continue(())
        })?;
        for (store, peer) in self.peers()? {
            // Nobody has read the new store; but what others told of themselves is true still, and shows whether
            // one of them is a copy.
            let peer = Peer { read: Cursor::default(), ..peer };
            records.push(RecordWrite::put(Table::Peer, store.0.to_be_bytes(), peer.encode()));
        }
        let mut waiting = Vec::new();
        self.outbox(0, &mut |key, record| {
            waiting.push(Waiting::read(key, record)?);
            Ok(ControlFlow::Continue(()))
        })?;
        let none = BTreeSet::new();
        let rebuild =
            Rebuild { refused: &none, again: &none, brought: &none, all_from: Some(fork), authors: &[] };
        let work = Work::with(&self.store, self.ruled()?, Scratch::default());
        let (mut work, rebuilt) = self.rebuild(work, &mut clock, now, &waiting, rebuild, &mut records)?;
        rejected_records(&waiting, &rebuilt.fallen, &mut records);
        if identity.authority.is_none() {
            self.write_again(&mut work, &mut clock, now, fork)?;
        }
        let finished = work.finish()?;
        let old_clock = std::mem::replace(&mut self.clock, clock);
        // A new incarnation: what others remember of the old ones is not about this store.
        self.incarnation = Some(seeds.incarnation);
        let meanwhile = Meanwhile::Nothing { since, high_water: None };
        if let Err(error) = self.commit(finished, records, meanwhile, Origin::Local) {
            self.clock = old_clock;
            return Err(error);
        }
        self.events.push(Event::Copied { before: before.store, now: identity.store });
        self.identity = identity;
        self.saw = None;
        self.saws.clear();
        Ok(())
    }

    /// Writes again, under the clock's replica, what the store's former replicas wrote at `fork` or later.
    fn write_again(
        &self,
        work: &mut Work<'_, S>,
        clock: &mut Clock,
        now: Millis,
        fork: u64,
    ) -> Result<(), CommitError> {
        let own: BTreeSet<_> = self.identity.all_replicas().collect();
        let mut rows: Vec<(String, String, Vec<u8>, u64)> = Vec::new();
        self.store.changes(fork.saturating_sub(1), &mut |changed| {
            rows.push((changed.kind.to_owned(), changed.id.to_owned(), changed.bytes.to_vec(), changed.seq));
            ControlFlow::Continue(())
        })?;
        for (kind, id, bytes, seq) in &rows {
            let corrupt = |c| damaged(kind, id, c);
            let mut changes: Vec<(&[u8], Change<'_>)> = Vec::new();
            for entry in Row::new(bytes, *seq).map_err(corrupt)?.entries() {
                let entry = entry.map_err(corrupt)?;
                let state = entry.state().map_err(corrupt)?;
                let newest = *state.shown.newest();
                // A claim made anew would be the last of its group; its place in the order is when it was made.
                let stays = [class::COUNT, class::CLAIM];
                if Parts::parse(entry.address).is_none_or(|parts| stays.contains(&parts.class))
                    || state.seq < fork
                    || state.source.is_some()
                    || !own.contains(&newest.stamp.replica)
                {
                    continue;
                }
                let stamp = clock
                    .tick(now, Some(newest.stamp.instant()), Force::No)
                    .map_err(|error| StoreError::Io(error.to_string()))?;
                let reach = self.reach_at(kind, entry.address);
                let own = Candidate { stamp, ..newest };
                let register = Register::write(Some(&state.shown), own, reach);
                changes.push((entry.address, Change::Join { register, source: None }));
            }
            let at = work.entity(kind, id);
            work.apply(at, &changes)?;
        }
        Ok(())
    }

    /// How far back a write at this address reaches, by the schema.
    fn reach_at(&self, kind: &str, address: &[u8]) -> crate::register::Reach {
        use crate::register::Reach;
        let (Some(kind), Some(parts)) = (self.schema.kind(kind), Parts::parse(address)) else {
            return Reach::None;
        };
        match (parts.class, kind.slot(parts.name)) {
            (class::LIFE, _) => view::life_reach(kind.life),
            (class::FIELD, Slot::Field(field)) => view::reach(field.ty.margin()),
            (class::KEY, Slot::Field(field)) if matches!(field.ty, FieldType::Set { .. }) => Reach::Infinite,
            _ => Reach::None,
        }
    }
}

/// An edit that is not pending any more, and why.
pub(super) struct Fallen {
    pub(super) key: u64,
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) spot: Option<Spot>,
}

/// The outbox by what an answer says.
#[derive(Default)]
struct Judged {
    accepted: Vec<(u64, Vec<u8>)>,
    rejected: Vec<Fallen>,
    again: BTreeSet<u64>,
    /// All but the accepted.
    waiting: Vec<Waiting>,
}

/// What came of making edits anew.
#[derive(Default)]
pub(super) struct Rebuilt {
    /// Those that no longer fit.
    pub(super) fallen: Vec<Fallen>,
    /// Those that are not as they were, by their keys.
    anew: BTreeSet<u64>,
    /// Whether stamps of other processes' replicas were used.
    pub(super) of_others: bool,
}

/// Which waiting edits are made anew.
#[derive(Clone, Copy)]
pub(super) struct Rebuild<'r> {
    pub(super) refused: &'r BTreeSet<u64>,
    pub(super) again: &'r BTreeSet<u64>,
    /// Those that were confirmed here, and are not at the authority: their registers go.
    pub(super) brought: &'r BTreeSet<u64>,
    pub(super) all_from: Option<u64>,
    /// Whose edits keep their author: the replicas of all processes of this store. Others' are taken over by the one
    /// that makes them anew.
    pub(super) authors: &'r [ReplicaId],
}

/// The identity of a store that starts over: every slot gets another replica id.
pub(super) fn renewed(before: &Identity, seeds: Seeds, own: u32) -> Identity {
    let mut identity = Identity { store: seeds.store, ..before.clone() };
    let slots = u32::try_from(before.replicas.len()).unwrap_or(u32::MAX).max(own.saturating_add(1));
    identity.former.append(&mut identity.replicas);
    let replica = |slot: u32| ReplicaId::from_u128(seeds.replica.as_u128() ^ u128::from(slot ^ own));
    identity.replicas = (0..slots).map(replica).collect();
    if let Some(authority) = &mut identity.authority {
        authority.acked = 0;
    }
    identity
}

impl Waiting {
    /// Whether it writes ends that it does not name, of a kind that others among these are of: a rule may have shown
    /// them on account of those.
    fn accepts(&self, rules: &Rules, others: &BTreeSet<(String, String)>) -> bool {
        let is_near = |kind: &str| others.iter().any(|(other, _)| other == kind);
        let near = self.entities.iter().filter(|(kind, _)| is_near(kind));
        let ends: Vec<_> =
            near.flat_map(|(kind, id)| rules.ends(kind).map(move |end| (id, kind, end))).collect();
        if ends.is_empty() {
            return false;
        }
        let Ok(pending) = Pending::decode(&self.record) else { return false };
        let writes = |id: &str, kind: &str, address: &[u8]| {
            let own = pending.entities.iter().filter(|entity| entity.kind == kind && entity.id == id);
            own.flat_map(|entity| &entity.registers).any(|(written, _)| *written == address)
        };
        let names = |id: &str, kind: &str, name: &str| {
            self.ops.iter().filter(|op| op.kind == kind && op.id == id).any(|op| match &op.action {
                Action::Put(fields) => fields.iter().any(|(field, _)| field == name),
                _ => false,
            })
        };
        ends.iter().any(|(id, kind, (name, address))| writes(id, kind, address) && !names(id, kind, name))
    }

    pub(super) fn read(key: u64, record: &[u8]) -> Result<Self, Cut> {
        let pending = Pending::decode(record)?;
        let entities = pending.entities.iter().map(|e| (e.kind.to_owned(), e.id.to_owned())).collect();
        Ok(Self { key, header: pending.header, ops: pending.ops()?, record: record.to_vec(), entities })
    }
}

fn by_key(waiting: &[Waiting]) -> BTreeMap<u64, &Waiting> {
    waiting.iter().map(|edit| (edit.key, edit)).collect()
}

fn rejected_records(waiting: &[Waiting], rejected: &[Fallen], records: &mut Vec<RecordWrite>) {
    let edits = by_key(waiting);
    for fallen in rejected.iter().filter(|_| !is_on(Canary::RefusedNotKept)) {
        let Some(edit) = edits.get(&fallen.key) else { continue };
        records.push(rejected_record(fallen, &edit.record));
    }
}

/// The greatest time among what is kept once the edits refused for the clock are stamped anew.
///
/// Safe to go back to: nobody else holds the stamps above it. Times above `believable` do not count: they were
/// confirmed somehow, but a clock that followed them would be refused for ever; a write over such a register
/// passes it by its generation.
fn kept_high_water<S: Store>(
    store: &S,
    waiting: &[Waiting],
    again: &BTreeSet<u64>,
    believable: u64,
) -> Result<u64, CommitError> {
    let first = again.first().copied().unwrap_or(u64::MAX);
    let kept = waiting.iter().filter(|edit| edit.key < first).map(|edit| edit.header.stamp.time);
    let mut time = kept.filter(|time| *time <= believable).max().unwrap_or(0);
    each_entry(store, &mut |_, _, entry| {
        let state = entry.state()?;
        let times = state.confirmed().into_iter().flat_map(|r| r.alive.iter()).map(|c| c.stamp.time);
        time = times.filter(|time| *time <= believable).fold(time, u64::max);
        Ok(())
    })?;
    Ok(time)
}
