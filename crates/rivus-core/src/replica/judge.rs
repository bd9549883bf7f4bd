//! The authority's side: what others push is accepted or refused, edit by edit.
//!
//! One refused edit never holds up the others. An edit that touches an entity which a refused edit of the same
//! connection touched is built on sand: it is answered *again*, until its author has heard of the refusal.

use std::cell::{Cell, RefCell};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::newest::{Newest, TurnedAway, greater, newest_of, record_newest, turned_of};
use super::object::{Objection, named_twice, overgrown, spot, too_high, too_large};
use super::read::unsettled;
use super::taint::Taint;
use super::{Delta, Meanwhile, Origin, Proposed, Refusal, Replica, STALE_RETRIES_MAX, Spot};
use crate::address::{LIFE, Parts, class};
use crate::clock::{Millis, Stamp};
use crate::code::Code;
use crate::id::{ReplicaId, StoreId};
use crate::identity::Peer;
use crate::register::{Register, Saw};
use crate::row::{Change, Row};
use crate::schema::Life;
use crate::store::{CommitError, RecordRead, RecordWrite, Store, StoreError, Table};
use crate::work::{Scratch, Work, damaged};

/// What the sender of edits may do.
#[derive(Clone, Debug)]
pub struct Principal<'g> {
    /// Its store.
    pub store: StoreId,
    /// Whose stamps its edits may bear.
    pub replicas: Vec<ReplicaId>,
    /// The greatest rank that its edits may bear.
    pub rank_max: u8,
    /// What else is asked about each edit.
    pub review: Review<'g>,
}

/// What is asked about each edit that is well made.
#[derive(Clone, Copy)]
pub struct Review<'g> {
    /// Whether the sender may write into this scope. An edit needs all those in which its entities are, before it and
    /// after it.
    pub may_write: Option<&'g dyn Fn(&str) -> bool>,
    /// Whether the application takes the edit.
    pub validate: Option<&'g dyn Fn(&Proposed<'_>) -> Result<(), Refusal>>,
    /// The most registers of one edit.
    pub registers_max: usize,
    /// The longest value, in bytes.
    pub value_bytes_max: usize,
}

impl Default for Review<'_> {
    fn default() -> Self {
        Self { may_write: None, validate: None, registers_max: usize::MAX, value_bytes_max: usize::MAX }
    }
}

impl std::fmt::Debug for Review<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { may_write, validate, registers_max, value_bytes_max } = self;
        f.debug_struct("Review")
            .field("may_write", &may_write.is_some())
            .field("validate", &validate.is_some())
            .field("registers_max", registers_max)
            .field("value_bytes_max", value_bytes_max)
            .finish()
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
        /// What of the edit it is about, if it is about a part.
        spot: Option<Spot>,
    },
}

impl Verdict {
    /// Whether it is about some entity.
    fn names_spot(&self) -> bool {
        matches!(self, Self::Refused { spot: Some(_), .. })
    }
}

/// The verdicts on the edits of one push: all are accepted but for the exceptions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdicts {
    /// The authority's head after the commit.
    pub seq: u64,
    /// By the author's number.
    pub exceptions: Vec<(u64, Verdict)>,
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
        principal: &Principal<'_>,
        note: &Peer,
        taint: &mut Taint,
        heard: u64,
        answer: u64,
    ) -> Result<Verdicts, CommitError> {
        self.now = now;
        // The application may take its time over an edit.
        self.store.end_reading();
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
        principal: &Principal<'_>,
        note: &Peer,
        taint: &mut Taint,
        answer: u64,
    ) -> Result<Verdicts, CommitError> {
        let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
        let mut witness = self.witness()?;
        witness.pusher = Some(principal.store);
        let mut exceptions = Vec::new();
        let (mut newest, mut turned) = (Newest::new(), TurnedAway::new());
        let mut latest = None;
        let future = self.admission.latest(self.clock.corrected(now)).unwrap_or(u64::MAX);
        let (marks, marks_read) = self.marks_read()?;
        let head = if marks.newest > 0 { Some(self.store.head()?) } else { None };
        for edit in edits {
            let misplaced = match principal.review.may_write {
                Some(may_write) => self.misplaced(&mut work, &edit.delta, may_write)?,
                None => None,
            };
            let rests =
                || Ok::<_, StoreError>(taint.touches(&edit.delta) || self.names_refused(taint, &edit.delta)?);
            let late = match &head {
                // What is known of an entity is nobody's business who may not write it.
                _ if misplaced.as_ref().is_some_and(|verdict| verdict.names_spot()) => None,
                Some(head) => self.gone(marks, head, &edit, &mut work, &rests)?,
                None => None,
            };
            let exception = if late.is_some() {
                late
            } else if rests()? {
                Some(Verdict::Again)
            } else {
                let objection = match self.objection(now, &edit, principal)? {
                    None if misplaced.is_some() => misplaced,
                    None => too_high(&edit, principal, &mut work)?,
                    objection => objection,
                };
                match objection {
                    None => match self.ask(&edit, principal.review, &mut work)? {
                        None => overgrown(&edit.delta, &mut work)?,
                        refused => refused,
                    },
                    objection => objection,
                }
            };
            let known = match newest.entry(edit.stamp.replica) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(newest_of(&self.store, edit.stamp.replica)?),
            };
            // Of a replica's writes the time alone rises: each has the generation that its registers need. Of those that
            // were judged before, what was refused was not accepted.
            let turned = turned_of(&self.store, &mut turned, edit.stamp.replica)?;
            let again = edit.stamp.time <= known.time && !turned.has(edit.stamp.time);
            if let Some(verdict) = exception {
                // Whose acceptance its author did not hear of is accepted again, whatever has changed since: all of it
                // is here. A new one of which that is so has lost to what is newer, and its author is to hear of that.
                // Of what was collected nothing is here: what is newer is of another life.
                let is_here = match verdict {
                    Verdict::Refused { code: Code::GONE, .. } => false,
                    Verdict::Refused { code: Code::SCOPE, .. } => self.bears(&edit.delta, edit.stamp)?,
                    _ => again && self.holds(&edit.delta)? || self.bears(&edit.delta, edit.stamp)?,
                };
                if !is_here {
                    if matches!(verdict, Verdict::Refused { code: Code::CLOCK_SKEW, .. }) {
                        taint.all = Some(answer);
                    }
                    taint.add(&edit.delta, answer);
                    // What is from the future is stamped anew.
                    if principal.replicas.contains(&edit.stamp.replica) && edit.stamp.time <= future {
                        turned.note(edit.stamp.time);
                    }
                    exceptions.push((edit.number, verdict));
                }
                continue;
            }
            turned.forget(edit.stamp.time);
            witness.again = again;
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
            *known = greater(edit.stamp.instant(), *known);
            latest = latest.max(Some(edit.stamp.time));
        }
        let (records, mut unchanged) = self.noted_of_judging(principal.store, note, &newest, turned)?;
        unchanged.push(marks_read);
        let finished = work.finish()?;
        // What was accepted now is within the drift. What is known of its author from before need not be.
        if let Some(time) = latest {
            self.clock.observe(time);
        }
        let (meanwhile, origin) = (Meanwhile::Any, Origin::Remote(principal.store));
        let seq = self.commit_if(finished, records, unchanged, meanwhile, origin)?;
        Ok(Verdicts { seq, exceptions })
    }

    /// What is recorded of the sender, and of those whose edits were judged; and what of that was read.
    fn noted_of_judging(
        &self,
        sender: StoreId,
        note: &Peer,
        newest: &Newest,
        turned: TurnedAway,
    ) -> Result<(Vec<RecordWrite>, Vec<RecordRead>), StoreError> {
        let (mut records, mut reads) = (Vec::new(), Vec::new());
        if self.peer(sender)?.as_ref() != Some(note) {
            records.push(RecordWrite::put(Table::Peer, sender.0.to_be_bytes(), note.encode()));
        }
        for (replica, instant) in newest {
            record_newest(&self.store, *replica, *instant, &mut records)?;
        }
        for (read, write) in turned.into_iter().filter_map(|(replica, turned)| turned.record(replica)) {
            reads.push(read);
            records.push(write);
        }
        Ok((records, reads))
    }

    /// Why an edit may not be accepted that reaches into a scope where its author may not write. Before the edit an
    /// entity is where it is with the accepted ones before it.
    fn misplaced<D: Delta>(
        &self,
        work: &mut Work<'_, S>,
        delta: &D,
        may_write: &dyn Fn(&str) -> bool,
    ) -> Result<Option<Verdict>, CommitError> {
        let misplaced = self.entities_misplaced(work, delta, may_write)?;
        Ok(misplaced.into_iter().next().map(|((kind, id), place)| {
            let message = match place {
                Misplaced::Nowhere => {
                    return refused(Code::SCOPE, "writing is not granted to this account".to_owned());
                }
                // Where it is may be nobody's business who cannot write there.
                Misplaced::Is => format!("{kind} `{id}` is in a scope where writing is not granted"),
                Misplaced::Goes(scope) => {
                    format!("{kind} `{id}` would be in the scope `{scope}`, where writing is not granted")
                }
            };
            let spot = Some(Spot { kind, id, field: None });
            Verdict::Refused { code: Code::SCOPE, message, spot }
        }))
    }

    /// The entities of a page that are, or would be, in scopes of which `may` says no.
    ///
    /// # Errors
    /// [`CommitError`] if the store cannot be read.
    pub(crate) fn misplaced_in<D: Delta>(
        &self,
        page: &D,
        may: &dyn Fn(&str) -> bool,
    ) -> Result<BTreeSet<(String, String)>, CommitError> {
        Ok(self.entities_misplaced(&mut self.placing(), page, may)?.into_keys().collect())
    }

    fn entities_misplaced<D: Delta>(
        &self,
        work: &mut Work<'_, S>,
        delta: &D,
        may: &dyn Fn(&str) -> bool,
    ) -> Result<BTreeMap<(String, String), Misplaced>, CommitError> {
        // By entity: it comes in several parts, one of which may say where it is to be.
        let mut places: BTreeMap<(String, String), (Option<String>, Option<String>)> = BTreeMap::new();
        delta.each(|part| {
            let place = places.entry((part.kind.to_owned(), part.id.to_owned())).or_default();
            if self.scopes.address(part.kind).is_none() {
                return Ok(());
            }
            let at = work.entity(part.kind, part.id);
            if work.is_held(at)? {
                place.0 = Some(work.scope(at)?);
            }
            place.1 = self.scope_named(&part).or(place.1.take());
            Ok::<_, CommitError>(())
        })?;
        let mut misplaced = BTreeMap::new();
        for (name, (before, named)) in places {
            let place = match (before, named) {
                (None, None) if !may("") => Misplaced::Nowhere,
                (Some(scope), _) if !may(&scope) => Misplaced::Is,
                (_, Some(scope)) if !may(&scope) => Misplaced::Goes(scope),
                _ => continue,
            };
            misplaced.insert(name, place);
        }
        Ok(misplaced)
    }

    /// Whether the edit would change nothing, and something that it wrote is here: then it was accepted once.
    fn bears(&self, delta: &impl Delta, stamp: Stamp) -> Result<bool, CommitError> {
        let found = Cell::new(false);
        let holds = self.compare(delta, &|held, register| {
            found.set(found.get() || held.alive.iter().any(|candidate| candidate.stamp == stamp));
            held.join(register) == *held
        })?;
        Ok(holds && found.get())
    }

    /// Whether the edit would change nothing.
    fn holds(&self, delta: &impl Delta) -> Result<bool, CommitError> {
        self.compare(delta, &|held, register| held.join(register) == *held)
    }

    /// Whether all registers of a page are held, and this is so of each.
    fn compare(
        &self,
        delta: &impl Delta,
        is_so: &dyn Fn(&Register<'_>, &Register<'_>) -> bool,
    ) -> Result<bool, CommitError> {
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
                if !is_so(&shown, register) {
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

    /// What the application says of an edit that is well made.
    fn ask<D: Delta>(
        &self,
        edit: &Pushed<D>,
        review: Review<'_>,
        work: &mut Work<'_, S>,
    ) -> Result<Option<Verdict>, CommitError> {
        if let Some(too_large) = too_large(&edit.delta, review) {
            return Ok(Some(too_large));
        }
        let Some(validate) = review.validate else { return Ok(None) };
        let (work, failed) = (RefCell::new(work), RefCell::new(None));
        let view = |kind: &str, id: &str| {
            let Some(declared) = self.schema.kind(kind) else { return Ok(None) };
            work.borrow_mut().view(declared, kind, id).map_err(|error| {
                let told = unsettled(kind, id, error.clone());
                failed.replace(Some(error));
                told
            })
        };
        let Some(proposed) = Proposed::read(edit, &self.schema, &view) else {
            return Ok(Some(refused(Code::MALFORMED, "a register holds no value".to_owned())));
        };
        let said = validate(&proposed);
        match (failed.take(), said) {
            // What was said rests on nothing.
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(None),
            (None, Err(Refusal { message, spot })) => {
                Ok(Some(Verdict::Refused { code: Code::INVALID, message, spot }))
            }
        }
    }

    /// Why an edit may not be accepted.
    fn objection<D: Delta>(
        &self,
        now: Millis,
        edit: &Pushed<D>,
        principal: &Principal<'_>,
    ) -> Result<Option<Verdict>, StoreError> {
        let Pushed { stamp, rank, .. } = edit;
        if !principal.replicas.contains(&stamp.replica) {
            let message = format!("the stamp names replica {}, which is not the sender's", stamp.replica);
            return Ok(Some(refused(Code::FOREIGN_STAMP, message)));
        }
        if self.admission.latest(self.clock.corrected(now)).is_some_and(|latest| stamp.time > latest) {
            let ms = crate::clock::whole_millis(stamp.time);
            let message = format!("the stamp says {ms} ms, the hub's clock {} ms: set the clock", now.0);
            return Ok(Some(refused(Code::CLOCK_SKEW, message)));
        }
        if let Some(twice) = named_twice(&edit.delta) {
            return Ok(Some(twice));
        }
        if *rank > principal.rank_max {
            let message = format!("the edit claims rank {rank}, granted is {}", principal.rank_max);
            return Ok(Some(refused(Code::RANK, message)));
        }
        let judged = edit.delta.each(|part| {
            let kind = if *rank == 0 { self.schema.kind(part.kind) } else { None };
            let is_ranked = |address: &[u8]| kind.is_some_and(|kind| kind.is_ranked(address));
            part.changes.iter().try_for_each(|(address, change)| {
                let address = address.as_ref();
                let judged = if is_ranked(address) {
                    let message = format!("a field of kind `{}` needs a rank", part.kind);
                    Err(Objection::Refused(Code::RANK, message))
                } else {
                    self.object((*stamp, *rank), address, change, principal)
                };
                judged.map_err(|objection| match objection {
                    Objection::Refused(code, message) => {
                        let spot = Some(spot(part.kind, part.id, address));
                        Objection::Placed(Verdict::Refused { code, message, spot })
                    }
                    placed => placed,
                })
            })
        });
        match judged {
            Ok(()) => Ok(None),
            Err(Objection::Placed(verdict)) => Ok(Some(verdict)),
            Err(Objection::Refused(code, message)) => Ok(Some(refused(code, message))),
            Err(Objection::Store(error)) => Err(error),
        }
    }

    /// Why one register of an edit with this stamp and rank may not be accepted.
    fn object(
        &self,
        own: (Stamp, u8),
        address: &[u8],
        change: &Change<'_>,
        principal: &Principal<'_>,
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
                self.clock.high_water()
            } else {
                newest_of(&self.store, seen.replica)?.time
            };
            // Its generation is held against the register's; see `too_high`.
            if seen.instant.time > known {
                let message =
                    format!("the edit claims to have seen a write of {} that is unknown", seen.replica);
                return Err(Objection::Refused(Code::SEEN, message));
            }
        }
        Ok(())
    }
}

/// Why an entity may not be written.
enum Misplaced {
    /// Nothing says that it is in any scope.
    Nowhere,
    /// Where it is.
    Is,
    /// Where the edit puts it.
    Goes(String),
}

/// Why the look whether an edit changes something ended early.
enum Differs {
    Here,
    Failed(CommitError),
}

pub(super) fn refused(code: Code, message: String) -> Verdict {
    Verdict::Refused { code, message, spot: None }
}
