//! Edits: what a user does to entities, judged on the view that the user saw, and turned into a delta.
//!
//! Owns the operations and the rules of which of them write what. A delta made here is joined like one from
//! anybody else; nothing is changed by any other way. Invariant: a refused operation refuses its whole edit,
//! which then has changed nothing and used no stamp.

mod ahead;
mod error;
mod fields;
mod intents;
mod ruled;

use std::collections::BTreeSet;

use smallvec::SmallVec;

use crate::address::{self, ALIAS, LIFE};
use crate::alias;
use crate::clock::{Clock, ClockError, Force, Instant, Millis, Stamp, TIME_END};
use crate::id::ReplicaId;
use crate::pending::{Header, Ops};
use crate::register::{Candidate, Reach, Register, Saw};
use crate::row::{Change, Entry};
use crate::schema::{Kind, Life, Schema, Writers};
use crate::scope;
use crate::store::{CommitError, Store, StoreError};
use crate::value::Value;
use crate::view::{self, View, life_reach};
use crate::work::{At, Work, damaged};

pub use error::EditError;
use intents::{Intent, Intents};

/// One operation on one entity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Op {
    /// The entity's kind.
    pub kind: String,
    /// The entity's id.
    pub id: String,
    /// What is done to it.
    pub action: Action,
}

/// What is done to an entity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Sets fields; those not named stay. A field that already shows the value is not written.
    Put(Vec<(String, Value)>),
    /// Adds a key to a set field.
    Add {
        /// The set.
        field: String,
        /// The key.
        key: String,
    },
    /// Takes a key out of a set or map field.
    Remove {
        /// The set or map.
        field: String,
        /// The key.
        key: String,
    },
    /// Sets a key of a map field.
    SetKey {
        /// The map.
        field: String,
        /// The key.
        key: String,
        /// Its new value.
        value: Value,
    },
    /// Adds to a counter field.
    Inc {
        /// The counter.
        field: String,
        /// How much; may be negative.
        by: i64,
    },
    /// Deletes the entity.
    Delete,
    /// Takes the deletion back.
    Revive,
    /// Lets another entity of the kind stand for this one from now on: it shows no more, and edits of it are edits of
    /// the other.
    Alias {
        /// The id of the other.
        to: String,
    },
}

impl Op {
    /// An operation on the entity `id` of `kind`.
    #[must_use]
    pub fn new(kind: impl Into<String>, id: impl Into<String>, action: Action) -> Self {
        Self { kind: kind.into(), id: id.into(), action }
    }
}

/// The most registers that one edit may write.
pub const EDIT_REGISTERS_MAX: usize = 65_536;
/// The most bytes of addresses and values that one edit may write.
pub const EDIT_BYTES_MAX: usize = 4 << 20;

/// An edit being made: reads see what its own operations have done so far.
#[derive(Debug)]
pub struct Tx<'s, S> {
    pub(crate) work: Work<'s, S>,
    schema: &'s Schema,
    /// By entity, as they are staged.
    intents: SmallVec<[Intents; 1]>,
    /// Of kinds with rules, by entity: what the user saw.
    befores: Vec<Option<Box<ruled::Before>>>,
    /// The operations in their stored form, if the edit will have to be judged by an authority.
    ops: Option<Ops>,
    registers: usize,
    bytes: usize,
    replica: ReplicaId,
    /// Whether it may not write what is for replicas with a rank alone.
    refuses_ranked: bool,
    /// The rows as they would be if the edit ended here, where rules look at them.
    ahead: ahead::Ahead<'s, S>,
}

/// Whether an entity shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// No register of it is held.
    Absent,
    /// No register of it is held, and an entity that is names it in a field that is a reference, on a store that follows
    /// scopes by name: it may be in another scope, of which nothing is known here. Nothing stands in for it. A
    /// transaction says [`Presence::Absent`] of it.
    Referenced,
    /// It shows.
    Alive,
    /// It is held and shows as deleted.
    Deleted,
    /// It was evicted: the authority has it.
    Evicted,
}

impl<'s, S: Store> Tx<'s, S> {
    /// An edit by `replica` on top of the rows that are staged already.
    pub(crate) fn new(
        work: Work<'s, S>,
        schema: &'s Schema,
        replica: ReplicaId,
        keep_ops: bool,
        writer: Writers,
    ) -> Self {
        Self {
            work,
            schema,
            intents: SmallVec::new(),
            befores: Vec::new(),
            ops: keep_ops.then(Ops::default),
            registers: 0,
            bytes: 0,
            replica,
            refuses_ranked: writer == Writers::Everybody && schema.has_ranked(),
            ahead: ahead::Ahead::default(),
        }
    }

    /// The entity as it shows with this edit's operations so far; `None` if it is not held.
    ///
    /// # Errors
    /// [`EditError`] if the kind is not declared or the store cannot be read.
    pub fn view(&mut self, kind: &str, id: &str) -> Result<Option<View>, EditError> {
        let declared = self.kind(kind)?;
        let root = self.root_shown(declared, kind, id)?;
        let id = root.as_deref().unwrap_or(id);
        let at = self.work.entity(kind, id);
        if self.look_ahead()? {
            // The edit depends on what it has seen, though it looks elsewhere.
            self.work.settle()?;
            self.work.view(declared, kind, id)?;
            return self.view_ahead(declared, kind, id);
        }
        if self.intents(at).is_none_or(Intents::is_empty) {
            self.work.settle()?;
            return Ok(self.work.view(declared, kind, id)?);
        }
        // Rare: reading what the same edit wrote. The intents are applied to a copy, under the greatest stamp.
        self.view_with_intents(at, declared, kind, id)
    }

    fn view_with_intents(
        &mut self,
        at: At,
        declared: &Kind,
        kind: &str,
        id: &str,
    ) -> Result<Option<View>, EditError> {
        let last = Instant { generation: u16::MAX, time: TIME_END - 1 };
        let mut copy = self.work.fork(at);
        if let Some(intents) = self.intents(at) {
            if intents.iter().any(|(_, intent)| intent.newest.is_some_and(|newest| newest >= last)) {
                return Err(ClockError::EndOfGenerations.into());
            }
            let header = Header { stamp: last.by(self.replica), rank: 0, saw: None, force: Force::No };
            let join = |register| Change::Join { register, source: None };
            let joins = delta(&self.work, at, intents, header, join)?;
            copy.apply(At::new(0), &joins)?;
        }
        copy.settle()?;
        Ok(copy.view(declared, kind, id)?)
    }

    /// Whether the entity is held and shows.
    ///
    /// # Errors
    /// As [`Tx::view`].
    pub fn presence(&mut self, kind: &str, id: &str) -> Result<Presence, EditError> {
        let declared = self.kind(kind)?;
        let root = self.root_of(declared, kind, id)?;
        let at = self.work.entity(kind, root.as_deref().unwrap_or(id));
        self.look_before(at)?;
        self.presence_at(at, declared)
    }

    /// The entity that stands for this one, with this edit's operations so far, if it is another.
    ///
    /// # Errors
    /// As [`Tx::view`].
    pub fn root(&mut self, kind: &str, id: &str) -> Result<Option<String>, EditError> {
        let declared = self.kind(kind)?;
        self.root_shown(declared, kind, id)
    }

    fn root_of(&mut self, declared: &Kind, kind: &str, id: &str) -> Result<Option<String>, EditError> {
        let mut root = id.to_owned();
        if declared.aliases {
            root = alias::root(id, |id| {
                let at = self.work.entity(kind, id);
                let found = self.look(at, ALIAS, |register| Ok(register.and_then(alias::target)))?;
                Ok::<_, EditError>(found.0)
            })?;
        }
        if declared.aliases_by_rule() {
            self.work.settle()?;
            root = self.work.first_of_name(declared, kind, &root)?.unwrap_or(root);
        }
        Ok((root != id).then_some(root))
    }

    /// Adds an operation to the edit.
    ///
    /// # Errors
    /// [`EditError`]: the operation is refused, and with it the whole edit.
    pub fn apply(&mut self, op: &Op) -> Result<(), EditError> {
        let kind = self.kind(&op.kind)?;
        if op.id.len() > address::ID_BYTES_MAX {
            return Err(EditError::TooLong { what: "an id", bytes: op.id.len(), max: address::ID_BYTES_MAX });
        }
        let redirected = self.root_of(kind, &op.kind, &op.id)?.map(|id| Op { id, ..op.clone() });
        let op = redirected.as_ref().unwrap_or(op);
        let at = self.work.entity(&op.kind, &op.id);
        self.look_before(at)?;
        let presence = self.presence_at(at, kind)?;
        if presence == Presence::Evicted {
            return Err(EditError::Evicted { kind: op.kind.clone(), id: op.id.clone() });
        }
        let wrote = match &op.action {
            Action::Delete => {
                if presence != Presence::Alive {
                    return Err(EditError::NotThere { kind: op.kind.clone(), id: op.id.clone() });
                }
                self.write(at, LIFE.to_vec(), view::FALSE.to_vec(), life_reach(kind.life))?;
                true
            }
            Action::Revive => {
                if presence != Presence::Deleted {
                    return Err(EditError::NotDeleted { kind: op.kind.clone(), id: op.id.clone() });
                }
                self.write(at, LIFE.to_vec(), view::TRUE.to_vec(), life_reach(kind.life))?;
                true
            }
            Action::Alias { to } => self.write_alias(at, kind, op, to)?,
            action => {
                if presence == Presence::Deleted && kind.life != Life::EditRevives {
                    return Err(EditError::Deleted { kind: op.kind.clone(), id: op.id.clone() });
                }
                let wrote = self.write_fields(at, kind, op, action)?;
                if let Action::Put(fields) = action {
                    self.note_named(at, fields);
                }
                let must_live = presence == Presence::Absent
                    || kind.life == Life::EditRevives && (wrote || presence == Presence::Deleted);
                if must_live {
                    self.write(at, LIFE.to_vec(), view::TRUE.to_vec(), life_reach(kind.life))?;
                }
                if wrote || must_live {
                    self.note_touched(at);
                }
                wrote || must_live
            }
        };
        if wrote && let Some(ops) = &mut self.ops {
            ops.push(op);
        }
        Ok(())
    }

    fn write_alias(&mut self, at: At, kind: &Kind, op: &Op, to: &str) -> Result<bool, EditError> {
        if !kind.aliases {
            return Err(EditError::NoAliases { kind: op.kind.clone() });
        }
        let root = self.root_of(kind, &op.kind, to)?.unwrap_or_else(|| to.to_owned());
        for id in [&op.id, &root] {
            if self.presence(&op.kind, id)? == Presence::Absent {
                return Err(EditError::NotThere { kind: op.kind.clone(), id: id.clone() });
            }
        }
        let is_new = root != op.id;
        if is_new {
            self.write(at, ALIAS.to_vec(), Value::Text(root).to_bytes(), Reach::None)?;
        }
        Ok(is_new)
    }

    /// Kind and id of the entities of this edit.
    pub(crate) fn touched(&self) -> Vec<(String, String)> {
        let staged = self.touched_at().into_iter().map(|at| self.work.staged(at));
        staged.map(|staged| (staged.kind().to_owned(), staged.id().to_owned())).collect()
    }

    fn touched_at(&self) -> Vec<At> {
        let touched = self.intents.iter().enumerate().filter(|(_, intents)| !intents.is_empty());
        touched.map(|(index, _)| At::new(index)).collect()
    }

    /// The scopes that the entities of this edit are in, by what is confirmed of them.
    pub(crate) fn scopes(&mut self) -> Result<BTreeSet<String>, EditError> {
        self.touched_at().into_iter().map(|at| Ok(self.work.scope(at)?)).collect()
    }

    /// Refuses an edit of entities in several scopes: no one subscription would bring it whole. Where each shows to be
    /// after the edit counts; entities of kinds without scopes go with any.
    pub(crate) fn refuse_several_scopes(&mut self) -> Result<(), EditError> {
        let mut first: Option<(String, At)> = None;
        for at in self.touched_at() {
            let Some(address) = self.work.scope_address(at) else { continue };
            let (scope, _) =
                self.look(at, address, |register| Ok(register.map(scope::named).unwrap_or_default()))?;
            match &first {
                None => first = Some((scope, at)),
                Some((one, _)) if *one == scope => {}
                Some((one, one_at)) => {
                    let name = |at: At| {
                        let staged = self.work.staged(at);
                        format!("{} `{}`", staged.kind(), staged.id())
                    };
                    let (one_entity, two_entity) = (name(*one_at), name(at));
                    return Err(EditError::Scopes { one: one.clone(), one_entity, two: scope, two_entity });
                }
            }
        }
        Ok(())
    }

    pub(crate) fn schema(&self) -> &'s Schema {
        self.schema
    }

    fn kind(&self, kind: &str) -> Result<&'s Kind, EditError> {
        self.schema.kind(kind).ok_or_else(|| EditError::UndeclaredKind { kind: kind.to_owned() })
    }

    fn intents(&self, at: At) -> Option<&Intents> {
        self.intents.get(at.index())
    }

    fn presence_at(&mut self, at: At, kind: &Kind) -> Result<Presence, EditError> {
        if let Some(life) = self.intents(at).and_then(|intents| intents.get(LIFE)) {
            return Ok(if life.value == view::FALSE { Presence::Deleted } else { Presence::Alive });
        }
        if self.work.is_evicted(at)? {
            return Ok(Presence::Evicted);
        }
        if let Some((held, deleted)) = self.shown_before(at) {
            let is_absent = !held && self.intents(at).is_none_or(Intents::is_empty);
            return Ok(match (is_absent, deleted) {
                (true, _) => Presence::Absent,
                (false, true) => Presence::Deleted,
                (false, false) => Presence::Alive,
            });
        }
        let held = self.work.is_held(at)?;
        let row = self.work.row(at, LIFE)?;
        let dead = match row.find(LIFE) {
            Ok(Some(entry)) => entry.shown().map(|register| view::is_dead(kind.life, &register)),
            Ok(None) => Ok(false),
            Err(corrupt) => Err(corrupt),
        };
        let dead = dead.map_err(|corrupt| self.damage(at, corrupt))?;
        Ok(if dead {
            Presence::Deleted
        } else if !held && self.intents(at).is_none_or(Intents::is_empty) {
            Presence::Absent
        } else {
            Presence::Alive
        })
    }

    fn damage(&self, at: At, corrupt: crate::row::Corrupt) -> EditError {
        let staged = self.work.staged(at);
        CommitError::from(damaged(staged.kind(), staged.id(), corrupt)).into()
    }

    /// What the address holds, decoded by `read`; the intent's value if this edit wrote it.
    fn look<T>(
        &mut self,
        at: At,
        address: &[u8],
        read: impl FnOnce(Option<&Register<'_>>) -> Result<T, crate::row::Corrupt>,
    ) -> Result<(T, Option<Instant>), EditError> {
        if let Some(intent) = self.intents.get(at.index()).and_then(|intents| intents.get(address)) {
            let own = Candidate { stamp: Stamp::LOWEST, rank: 0, saw: None, value: &intent.value };
            let newest = intent.newest;
            let seen = read(Some(&Register::plain(own)));
            return Ok((seen.map_err(|corrupt| self.damage(at, corrupt))?, newest));
        }
        let row = self.work.row(at, address)?;
        let register = row.find(address).and_then(|found| found.as_ref().map(Entry::shown).transpose());
        let seen = register.and_then(|register| {
            Ok((read(register.as_ref())?, register.map(|r| r.newest().stamp.instant())))
        });
        seen.map_err(|corrupt| self.damage(at, corrupt))
    }

    fn write(&mut self, at: At, address: Vec<u8>, value: Vec<u8>, reach: Reach) -> Result<(), EditError> {
        let (_, newest) = self.look(at, &address, |_| Ok(()))?;
        self.intend(at, address, Intent { value, reach, newest })
    }

    fn intend(&mut self, at: At, address: Vec<u8>, intent: Intent) -> Result<(), EditError> {
        // An entity's name goes over the wire with its first register.
        let staged = self.work.staged(at);
        if self.refuses_ranked && self.schema.kind(staged.kind()).is_some_and(|kind| kind.is_ranked(&address))
        {
            let field = address::Parts::parse(&address).map(|parts| parts.name.to_owned());
            return Err(EditError::Ranked {
                kind: staged.kind().to_owned(),
                field: field.unwrap_or_default(),
            });
        }
        let (named, watch) = (staged.kind().len() + staged.id().len(), staged.watch());
        let (address_len, value_len) = (address.len(), intent.value.len());
        if self.intents.len() <= at.index() {
            self.intents.resize_with(at.index() + 1, Intents::default);
        }
        let Some(intents) = self.intents.get_mut(at.index()) else { return Ok(()) };
        let is_first = intents.is_empty();
        self.ahead.note(at, watch, intent.newest);
        match intents.insert(address, intent) {
            None => {
                self.registers += 1;
                self.bytes += address_len + value_len + if is_first { named } else { 0 };
            }
            Some(before) => self.bytes = self.bytes - before.value.len() + value_len,
        }
        if self.registers > EDIT_REGISTERS_MAX || self.bytes > EDIT_BYTES_MAX {
            return Err(EditError::TooLarge { registers: self.registers, bytes: self.bytes });
        }
        Ok(())
    }

    /// Gives up the edit; the staged rows are as they were before it.
    pub(crate) fn into_work(self) -> Work<'s, S> {
        self.work
    }

    /// Ends the edit: takes a stamp, writes the delta into the staged rows, and says what was made.
    /// `None` if nothing is to be written; then no stamp was used.
    pub(crate) fn finish(
        mut self,
        clock: &mut Clock,
        how: Finish,
    ) -> Result<(Work<'s, S>, Option<Made>), EditError> {
        if self.registers == 0 {
            return Ok((self.work, None));
        }
        for index in 0..self.befores.len() {
            self.intend_by_rules(At::new(index))?;
        }
        let intents = self.intents.iter().flat_map(Intents::iter);
        let newest = intents.filter_map(|(_, intent)| intent.newest).max();
        let stamp = Stamp { replica: self.replica, ..clock.tick(how.now, newest, how.force)? };
        let header = Header { stamp, rank: how.rank, saw: how.saw, force: how.force };
        let mut work = self.work;
        let change = |register| match self.ops {
            None => Change::Join { register, source: None },
            Some(_) => Change::Pend(register),
        };
        let written = self.intents.iter().enumerate().filter(|(_, intents)| !intents.is_empty());
        let deltas = written.map(|(index, intents)| {
            let at = At::new(index);
            delta(&work, at, intents, header, change).map(|changes| (at, changes))
        });
        let deltas: SmallVec<[_; 1]> = deltas.collect::<Result<_, _>>()?;
        let record = self.ops.as_ref().map(|ops| {
            let named = deltas.iter().map(|(at, changes)| {
                let staged = work.staged(*at);
                (staged.kind(), staged.id(), changes.as_slice())
            });
            ops.record(header, &named.collect::<SmallVec<[_; 1]>>())
        });
        for (at, changes) in &deltas {
            work.apply(*at, changes)?;
        }
        Ok((work, Some(Made { stamp, record, registers: self.registers })))
    }
}

/// The changes that an edit makes to one entity.
fn delta<'i, S: Store>(
    work: &Work<'_, S>,
    at: At,
    intents: &'i Intents,
    header: Header,
    change: impl Fn(Register<'i>) -> Change<'i>,
) -> Result<SmallVec<[(&'i [u8], Change<'i>); 1]>, EditError> {
    let mut changes = SmallVec::with_capacity(intents.len());
    for (address, intent) in intents.iter() {
        let own = Candidate { stamp: header.stamp, rank: header.rank, saw: header.saw, value: &intent.value };
        let register = if intent.reach == Reach::None {
            Register::plain(own)
        } else {
            let corrupt = |c| EditError::from(CommitError::from(damaged_at(work, at, c)));
            let row = work.loaded_row(at, address).map_err(corrupt)?;
            let entry = row.find(address).map_err(corrupt)?;
            let state = entry.as_ref().map(Entry::shown).transpose().map_err(corrupt)?;
            Register::write(state.as_ref(), own, intent.reach)
        };
        changes.push((address, change(register)));
    }
    Ok(changes)
}

fn damaged_at<S: Store>(work: &Work<'_, S>, at: At, corrupt: crate::row::Corrupt) -> StoreError {
    let staged = work.staged(at);
    damaged(staged.kind(), staged.id(), corrupt)
}

/// With what an edit ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish {
    pub(crate) now: Millis,
    pub(crate) force: Force,
    pub(crate) rank: u8,
    pub(crate) saw: Option<Saw>,
}

/// A finished edit.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) stamp: Stamp,
    /// The record for the outbox, if the edit is to be judged.
    pub(crate) record: Option<Vec<u8>>,
    pub(crate) registers: usize,
}
