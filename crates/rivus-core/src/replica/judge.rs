//! The authority's side: what others push is accepted or refused, edit by edit.
//!
//! One refused edit never holds up the others. An edit that touches an entity which a refused edit of the same
//! connection touched is built on sand: it is answered *again*, until its author has heard of the refusal.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use super::read::each_entry;
use super::{Delta, Meanwhile, Origin, Part, Replica, STALE_RETRIES_MAX, unreadable};
use crate::address::{LIFE, Parts, class};
use crate::bytes::{Put, Reader};
use crate::clock::{Instant, Millis, Stamp};
use crate::code::Code;
use crate::id::{ReplicaId, StoreId};
use crate::identity::Peer;
use crate::register::{Register, Saw};
use crate::row::{Change, Row};
use crate::schema::Life;
use crate::store::{CommitError, RecordWrite, Store, StoreError, Table};
use crate::work::{Scratch, Work, damaged};

/// What the sender of edits may do.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Its store.
    pub store: StoreId,
    /// Whose stamps its edits may bear.
    pub replicas: Vec<ReplicaId>,
    /// The greatest rank that its edits may bear.
    pub rank_max: u8,
    /// The scopes whose entities it may change.
    pub scopes: WriteScopes,
}

/// Which scopes somebody may write.
#[derive(Clone, Default)]
pub struct WriteScopes(Option<Arc<dyn Fn(&str) -> bool + Send + Sync>>);

impl WriteScopes {
    /// Those that this says.
    #[must_use]
    pub fn of(allows: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(allows)))
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn allow(&self, scope: &str) -> bool {
        self.0.as_ref().is_none_or(|allows| allows(scope))
    }

    fn are_all(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for WriteScopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.are_all() { "all scopes" } else { "some scopes" })
    }
}

/// An edit as it was pushed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pushed<D> {
    /// The author's number for it.
    pub number: u64,
    /// The stamp that all its registers bear.
    pub stamp: Stamp,
    /// The author's rank.
    pub rank: u8,
    /// What the author had seen.
    pub saw: Option<Saw>,
    /// The registers.
    pub delta: D,
}

/// What became of an edit that was not accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It rests on a refused edit: build it anew and push it again.
    Again,
    /// It is refused.
    Refused {
        /// Why.
        code: Code,
        /// Why, in words, and what to do.
        message: String,
    },
}

/// The verdicts on the edits of one push: all are accepted but for the exceptions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdicts {
    /// The authority's head after the commit.
    pub seq: u64,
    /// By the author's number.
    pub exceptions: Vec<(u64, Verdict)>,
}

/// What a connection's refused edits touched, until the author has heard of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Taint {
    /// By entity, the number of the answer that told of the refusal.
    entities: BTreeMap<Vec<u8>, u64>,
    /// After a refusal for the clock, all later edits rest on sand.
    all: Option<u64>,
}

impl Taint {
    fn forget(&mut self, heard: u64) {
        self.entities.retain(|_, answer| *answer > heard);
        self.all = self.all.filter(|answer| *answer > heard);
    }

    fn touches<D: Delta>(&self, delta: &D) -> bool {
        let tainted = |part: Part<'_, D::Address>| match self.entities.contains_key(&entity_key(&part)) {
            true => Err(()),
            false => Ok(()),
        };
        self.all.is_some() || !self.entities.is_empty() && delta.each(tainted).is_err()
    }

    fn add<D: Delta>(&mut self, delta: &D, answer: u64) {
        let added = delta.each::<Infallible>(|part| {
            self.entities.insert(entity_key(&part), answer);
            Ok(())
        });
        added.unwrap_or_else(|never| match never {});
    }
}

fn entity_key<A>(part: &Part<'_, A>) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 + part.kind.len() + part.id.len());
    key.slice(part.kind.as_bytes());
    key.extend_from_slice(part.id.as_bytes());
    key
}

impl<S: Store> Replica<S> {
    /// Judges pushed edits and joins the accepted ones in one commit.
    ///
    /// `note` is what is known of the sender's store from now on, saved in the same commit. `heard` is how many answers of this connection the author had heard when it pushed, `answer` the number of
    /// the answer that this will be, from 1.
    ///
    /// # Errors
    /// [`CommitError`]; nothing was judged.
    #[expect(clippy::too_many_arguments, reason = "the session owns each of them for a reason of its own")]
    pub fn judge<D: Delta>(
        &mut self,
        now: Millis,
        edits: impl Iterator<Item = Pushed<D>> + Clone,
        principal: &Principal,
        note: &Peer,
        taint: &mut Taint,
        heard: u64,
        answer: u64,
    ) -> Result<Verdicts, CommitError> {
        self.now = now;
        taint.forget(heard);
        for _ in 0..STALE_RETRIES_MAX {
            self.refresh()?;
            let mut taint_now = taint.clone();
            match self.judge_once(now, edits.clone(), principal, note, &mut taint_now, answer) {
                Err(CommitError::Stale) => {}
                Err(error) => return Err(error),
                Ok(verdicts) => {
                    *taint = taint_now;
                    if self.schema.restamps() {
                        edits.for_each(|edit| self.restamp(now, &edit.delta));
                    }
                    return Ok(verdicts);
                }
            }
        }
        Err(CommitError::Stale)
    }

    fn judge_once<D: Delta>(
        &mut self,
        now: Millis,
        edits: impl Iterator<Item = Pushed<D>>,
        principal: &Principal,
        note: &Peer,
        taint: &mut Taint,
        answer: u64,
    ) -> Result<Verdicts, CommitError> {
        let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
        let mut witness = self.witness()?;
        witness.pusher = Some(principal.store);
        let mut exceptions = Vec::new();
        let mut newest: BTreeMap<ReplicaId, Instant> = BTreeMap::new();
        for edit in edits {
            let exception = if taint.touches(&edit.delta) {
                Some(Verdict::Again)
            } else {
                let objection = match self.objection(now, &edit, principal)? {
                    None => self.misplaced(&mut work, &edit.delta, &principal.scopes)?,
                    objection => objection,
                };
                objection.map(|(code, message)| Verdict::Refused { code, message })
            };
            if let Some(verdict) = exception {
                // Whose acceptance its author did not hear of is accepted again, whatever has changed since: all of it
                // is here. What merely is older than what is here changes nothing either, and need not be true.
                if !self.holds(&edit.delta)? {
                    if matches!(verdict, Verdict::Refused { code: Code::CLOCK_SKEW, .. }) {
                        taint.all = Some(answer);
                    }
                    taint.add(&edit.delta, answer);
                    exceptions.push((edit.number, verdict));
                }
                continue;
            }
            let known = match newest.entry(edit.stamp.replica) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(newest_of(&self.store, edit.stamp.replica)?),
            };
            witness.again = edit.stamp.instant() <= *known;
            work.look_out(witness.clone());
            edit.delta.each(|part| {
                let at = work.entity(part.kind, part.id);
                let life = || self.schema.kind(part.kind).map(|kind| kind.life);
                work.join(at, life, part.changes)?;
                let has = |address: &[u8]| part.changes.iter().any(|(a, _)| a.as_ref() == address);
                if let Some(address) = self.scopes.address(part.kind)
                    && has(LIFE)
                    && !has(address)
                    && life() != Some(Life::EditRevives)
                {
                    // Its author did not know it, and created it.
                    work.note_unnamed(at);
                }
                Ok::<_, CommitError>(())
            })?;
            *known = edit.stamp.instant().max(*known);
        }
        let mut records = Vec::new();
        if self.peer(principal.store)?.as_ref() != Some(note) {
            records.push(RecordWrite::put(Table::Peer, principal.store.0.to_be_bytes(), note.encode()));
        }
        for (replica, instant) in &newest {
            record_newest(&self.store, *replica, *instant, &mut records)?;
        }
        let finished = work.finish()?;
        for instant in newest.values() {
            self.clock.observe(instant.time);
        }
        let seq = self.commit(finished, records, Meanwhile::Any, Origin::Remote(principal.store))?;
        Ok(Verdicts { seq, exceptions })
    }

    /// Why an edit may not be accepted that reaches into a scope where its author may not write. Before the edit an
    /// entity is where it is with the accepted ones before it.
    fn misplaced<D: Delta>(
        &self,
        work: &mut Work<'_, S>,
        delta: &D,
        scopes: &WriteScopes,
    ) -> Result<Option<(Code, String)>, CommitError> {
        let misplaced = self.entities_misplaced(work, delta, scopes)?;
        Ok(misplaced.into_iter().next().map(|((kind, id), scope)| {
            let message =
                format!("{kind} `{id}` is, or would be, in the scope `{scope}`, which is not granted");
            (Code::SCOPE, message)
        }))
    }

    /// The entities of a page that are, or would be, in scopes that may not be written.
    ///
    /// # Errors
    /// [`CommitError`] if the store cannot be read.
    pub(crate) fn misplaced_in<D: Delta>(
        &self,
        page: &D,
        scopes: &WriteScopes,
    ) -> Result<BTreeSet<(String, String)>, CommitError> {
        Ok(self.entities_misplaced(&mut self.placing(), page, scopes)?.into_keys().collect())
    }

    fn entities_misplaced<D: Delta>(
        &self,
        work: &mut Work<'_, S>,
        delta: &D,
        scopes: &WriteScopes,
    ) -> Result<BTreeMap<(String, String), String>, CommitError> {
        let mut misplaced = BTreeMap::new();
        if scopes.are_all() {
            return Ok(misplaced);
        }
        // By entity: it comes in several parts, one of which may say where it is to be.
        let mut places: BTreeMap<(String, String), (Option<String>, Option<String>)> = BTreeMap::new();
        delta.each(|part| {
            let at = work.entity(part.kind, part.id);
            let place = places.entry((part.kind.to_owned(), part.id.to_owned())).or_default();
            if work.is_held(at)? {
                place.0 = Some(work.scope(at)?);
            }
            let address = self.scopes.address(part.kind);
            let named = part.changes.iter().find(|(a, _)| address == Some(a.as_ref()));
            if let Some(register) = named.and_then(|(_, change)| change.register()) {
                place.1 = Some(crate::scope::named(register));
            }
            Ok::<_, CommitError>(())
        })?;
        for (name, (before, named)) in places {
            let new = before.is_none() && named.is_none();
            let mut touched = before.into_iter().chain(named).chain(new.then(String::new));
            if let Some(scope) = touched.find(|scope| !scopes.allow(scope)) {
                misplaced.insert(name, scope);
            }
        }
        Ok(misplaced)
    }

    /// Whether the edit would change nothing.
    fn holds(&self, delta: &impl Delta) -> Result<bool, CommitError> {
        let differs = delta.each(|part| {
            let corrupt = |corrupt| Differs::Failed(damaged(part.kind, part.id, corrupt).into());
            for (address, change) in part.changes {
                let address = address.as_ref();
                let chunk =
                    self.store.load(part.kind, part.id, address).map_err(|e| Differs::Failed(e.into()))?;
                let (Some(chunk), Some(register)) = (chunk, change.register()) else {
                    return Err(Differs::Here);
                };
                let entry = Row::new(&chunk.bytes, chunk.seq).and_then(|row| row.find(address));
                let entry = entry.map_err(corrupt)?.ok_or(Differs::Here)?;
                let shown = entry.shown().map_err(corrupt)?;
                if shown.join(register) != shown {
                    return Err(Differs::Here);
                }
            }
            Ok(())
        });
        match differs {
            Ok(()) => Ok(true),
            Err(Differs::Here) => Ok(false),
            Err(Differs::Failed(error)) => Err(error),
        }
    }

    /// Why an edit may not be accepted.
    fn objection<D: Delta>(
        &self,
        now: Millis,
        edit: &Pushed<D>,
        principal: &Principal,
    ) -> Result<Option<(Code, String)>, StoreError> {
        let Pushed { stamp, rank, .. } = edit;
        if !principal.replicas.contains(&stamp.replica) {
            let message = format!("the stamp names replica {}, which is not the sender's", stamp.replica);
            return Ok(Some((Code::FOREIGN_STAMP, message)));
        }
        if self.admission.latest(self.clock.corrected(now)).is_some_and(|latest| stamp.time > latest) {
            let ms = crate::clock::whole_millis(stamp.time);
            let message = format!("the stamp says {ms} ms, the hub's clock {} ms: set the clock", now.0);
            return Ok(Some((Code::CLOCK_SKEW, message)));
        }
        if *rank > principal.rank_max {
            let message = format!("the edit claims rank {rank}, granted is {}", principal.rank_max);
            return Ok(Some((Code::RANK, message)));
        }
        let judged = edit.delta.each(|part| {
            let kind = if *rank == 0 { self.schema.kind(part.kind) } else { None };
            let is_ranked = |address: &[u8]| kind.is_some_and(|kind| kind.is_ranked(address));
            if part.changes.iter().any(|(address, _)| is_ranked(address.as_ref())) {
                let message = format!("the edit writes a field of kind `{}` that needs a rank", part.kind);
                return Err(Objection::Refused(Code::RANK, message));
            }
            part.changes.iter().try_for_each(|(address, change)| {
                self.object((*stamp, *rank), address.as_ref(), change, principal)
            })
        });
        match judged {
            Ok(()) => Ok(None),
            Err(Objection::Refused(code, message)) => Ok(Some((code, message))),
            Err(Objection::Store(error)) => Err(error),
        }
    }

    /// Why one register of an edit with this stamp and rank may not be accepted.
    fn object(
        &self,
        own: (Stamp, u8),
        address: &[u8],
        change: &Change<'_>,
        principal: &Principal,
    ) -> Result<(), Objection> {
        let share = Parts::parse(address).filter(|parts| parts.class == class::COUNT);
        if share.is_some_and(|parts| principal.replicas.iter().all(|own| own.0 != *parts.key)) {
            let message = "a counter's share of a replica that is not the sender's".to_owned();
            return Err(Objection::Refused(Code::FOREIGN_STAMP, message));
        }
        let whole =
            |register: &&Register<'_>| matches!(&*register.alive, [only] if (only.stamp, only.rank) == own);
        let Some(register) = change.register().filter(whole) else {
            let message = "a register does not bear the edit's stamp and rank".to_owned();
            return Err(Objection::Refused(Code::MALFORMED, message));
        };
        for seen in register.seen.iter().filter(|seen| !principal.replicas.contains(&seen.replica)) {
            let known = if self.identity.all_replicas().any(|own| own == seen.replica) {
                Instant { generation: u16::MAX, time: self.clock.high_water() }
            } else {
                newest_of(&self.store, seen.replica)?
            };
            if seen.instant > known {
                let message =
                    format!("the edit claims to have seen a write of {} that is unknown", seen.replica);
                return Err(Objection::Refused(Code::SEEN, message));
            }
        }
        Ok(())
    }
}

/// Why the look whether an edit changes something ended early.
enum Differs {
    Here,
    Failed(CommitError),
}

/// Why a register is not accepted.
enum Objection {
    Refused(Code, String),
    Store(StoreError),
}

impl From<StoreError> for Objection {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The newest instant known of a replica.
fn newest_of<S: Store>(store: &S, replica: ReplicaId) -> Result<Instant, StoreError> {
    let Some(bytes) = store.record(Table::Newest, &replica.0)? else { return Ok(Instant::default()) };
    Reader::new(&bytes).instant().map_err(|_| unreadable("a replica's newest stamp"))
}

fn record_newest<S: Store>(
    store: &S,
    replica: ReplicaId,
    instant: Instant,
    records: &mut Vec<RecordWrite>,
) -> Result<(), StoreError> {
    if instant > newest_of(store, replica)? {
        let mut value = Vec::new();
        value.instant(instant);
        records.push(RecordWrite::put(Table::Newest, replica.0, value));
    }
    Ok(())
}

fn note<'r>(newest: &mut BTreeMap<ReplicaId, Instant>, register: &Register<'r>) {
    let alive = register.alive.iter().map(|c| (c.stamp.replica, c.stamp.instant()));
    for (replica, instant) in alive.chain(register.seen.iter().map(|s| (s.replica, s.instant))) {
        let known = newest.entry(replica).or_default();
        *known = instant.max(*known);
    }
}

/// Takes over what a page tells of replicas' newest stamps.
pub(super) fn note_newest<S: Store, D: Delta + ?Sized>(
    store: &S,
    page: &D,
    records: &mut Vec<RecordWrite>,
) -> Result<(), StoreError> {
    let mut newest = BTreeMap::new();
    page.each::<StoreError>(|part| {
        let registers = part.changes.iter().filter_map(|(_, change)| change.register());
        registers.for_each(|register| note(&mut newest, register));
        Ok(())
    })?;
    newest.into_iter().try_for_each(|(replica, instant)| record_newest(store, replica, instant, records))
}

/// The newest stamps of all replicas, from the registers.
pub(super) fn newest_of_all<S: Store>(store: &S) -> Result<Vec<RecordWrite>, StoreError> {
    let mut newest = BTreeMap::new();
    each_entry(store, &mut |_, _, entry| {
        note(&mut newest, &entry.shown()?);
        Ok(())
    })?;
    let mut records = Vec::new();
    for (replica, instant) in newest {
        record_newest(store, replica, instant, &mut records)?;
    }
    Ok(records)
}
