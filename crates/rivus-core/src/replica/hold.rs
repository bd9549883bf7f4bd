//! Which pending edits wait for others before they are sent.
//!
//! An edit that names, by a reference rule, an entity whose creation was refused makes no sense to the authority until
//! that is there. It is *blocked by* it: so is what touches an entity that a blocked edit touches, or names one that it
//! creates. Nothing of this is stored; it follows from the outbox and the refused edits. Once the creation is made anew,
//! behind them, they wait until it is accepted. Everything else goes past them, so they get new stamps before they follow,
//! and so does what is pending behind them: an authority takes a replica's edits in the order of their stamps.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::rejected::creations;
use super::{Answer, Delta, Replica, STALE_RETRIES_MAX, Taint, Verdict, Verdicts, unreadable};
use crate::address::{self, LIFE};
use crate::clock::Millis;
use crate::edit::Op;
use crate::pending::{Pending, PendingEntity};
use crate::register::Register;
use crate::row::Row;
use crate::schema::{RuleType, Schema, Slot};
use crate::store::{Batch, CommitError, RecordRead, RecordWrite, Store, StoreError, Table};
use crate::value::Value;
use crate::view::TRUE;
use crate::work::damaged;

/// An entity's kind and id.
type Name = (String, String);

/// A pending edit that is not sent while what it refers to is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blocked {
    /// Its key in the outbox, which orders edits.
    pub key: u64,
    /// Kind and id of the entity whose creation was refused.
    pub root: Name,
    /// What it is to do.
    pub ops: Vec<Op>,
}

/// Why an edit is not sent now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Hold {
    /// The creation of this entity was refused.
    BlockedBy(Name),
    /// The creation is pending, behind this edit.
    Waits,
}

/// One look through the outbox, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Holding {
    /// Entities whose creation was refused and that are not there.
    refused: BTreeSet<Name>,
    /// Entities that held edits touch, and what blocks these.
    held: BTreeMap<Name, Hold>,
    /// Entities that edits before create: they are sent in that order.
    created: BTreeSet<Name>,
    /// What is known of entities that edits name.
    known: BTreeMap<Name, Known>,
    /// The refusals at the time of the look.
    pub(crate) refusals: u64,
    /// Whether an edit waits, and whether any is held at all.
    pub(crate) waits: bool,
    pub(crate) holds: bool,
}

/// What is known of an entity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    /// Confirmed, or not held at all: nothing to wait for.
    Free,
    /// Held, but the authority has not accepted it.
    Unconfirmed,
}

impl<S: Store> Replica<S> {
    /// Begins a look through the outbox.
    pub(crate) fn holding(&self) -> Result<Holding, StoreError> {
        let mut holding = Holding { refusals: self.refusals, ..Holding::default() };
        if !refers(&self.schema) {
            return Ok(holding);
        }
        for name in creations(&self.store)? {
            if !is_held(&self.store, &name)? {
                holding.refused.insert(name);
            }
        }
        Ok(holding)
    }

    /// Whether that look would find something else now: refusals came or went, or an entity has come from elsewhere.
    pub(crate) fn is_outdated(&self, holding: &Holding) -> Result<bool, StoreError> {
        if self.refusals != holding.refusals {
            return Ok(true);
        }
        for name in &holding.refused {
            if is_held(&self.store, name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Why the next edit of a look is held back, if it is.
    pub(crate) fn hold(&self, holding: &mut Holding, edit: &Pending<'_>) -> Result<Option<Hold>, StoreError> {
        if !refers(&self.schema) {
            return Ok(None);
        }
        let own: BTreeSet<Name> = edit.entities.iter().map(name).collect();
        let creates = |entity: &&PendingEntity<'_>| {
            let is_birth =
                |(at, register): &(&[u8], Register<'_>)| *at == LIFE && register.newest().value == TRUE;
            entity.registers.iter().any(is_birth)
        };
        let created: Vec<Name> = edit.entities.iter().filter(creates).map(name).collect();
        let mut hold = own.iter().find_map(|name| holding.held.get(name).cloned());
        for entity in &edit.entities {
            let find = |address: &[u8]| {
                let found = entity.registers.iter().find(|(at, _)| *at == address)?;
                Some(found.1.newest().value.to_vec())
            };
            for named in named(&self.schema, entity.kind, &find) {
                if own.contains(&named) {
                    continue;
                }
                match self.why(holding, named)? {
                    Some(Hold::BlockedBy(root)) => hold = Some(Hold::BlockedBy(root)),
                    Some(Hold::Waits) => hold = hold.or(Some(Hold::Waits)),
                    None => {}
                }
            }
        }
        if hold.is_none() {
            holding.created.extend(created);
        }
        if let Some(hold) = &hold {
            holding.holds = true;
            holding.waits |= *hold == Hold::Waits;
            holding.held.extend(own.into_iter().map(|name| (name, hold.clone())));
        }
        Ok(hold)
    }

    fn why(&self, holding: &mut Holding, named: Name) -> Result<Option<Hold>, StoreError> {
        if holding.refused.contains(&named) {
            return Ok(Some(Hold::BlockedBy(named)));
        }
        if let Some(hold) = holding.held.get(&named) {
            return Ok(Some(hold.clone()));
        }
        if holding.created.contains(&named) {
            return Ok(None);
        }
        let known = match holding.known.get(&named) {
            Some(known) => *known,
            None => {
                let known = known(&self.store, &named)?;
                holding.known.insert(named, known);
                known
            }
        };
        Ok((known == Known::Unconfirmed).then_some(Hold::Waits))
    }

    /// The pending edits that are not sent while what they refer to is refused, in order.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn blocked(&self) -> Result<Vec<Blocked>, StoreError> {
        let (mut holding, mut blocked, mut failed) = (self.holding()?, Vec::new(), None);
        if holding.refused.is_empty() {
            return Ok(blocked);
        }
        self.pending(0, &mut |key, edit| {
            let found = self.hold(&mut holding, &edit).and_then(|hold| match hold {
                Some(Hold::BlockedBy(root)) => {
                    let ops = edit.ops().map_err(|_| unreadable("a pending edit"))?;
                    blocked.push(Blocked { key, root, ops });
                    Ok(())
                }
                _ => Ok(()),
            });
            match found {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(blocked), Err)
    }

    /// Notes that later edits go past these: they need new stamps before they are sent.
    pub(crate) fn pass_over(&mut self, keys: &[u64]) -> Result<(), CommitError> {
        for _ in 0..STALE_RETRIES_MAX {
            let (mut unchanged, mut records) = (Vec::new(), Vec::new());
            for key in keys {
                let key = key.to_be_bytes();
                let Some(found) = self.store.record(Table::Outbox, &key)? else { continue };
                let Some(passed) = Pending::passed_over(&found) else { continue };
                unchanged.push(RecordRead { table: Table::Outbox, key: key.to_vec(), value: Some(found) });
                records.push(RecordWrite::put(Table::Outbox, key, passed));
            }
            if records.is_empty() {
                return Ok(());
            }
            let (unchanged, records) = (unchanged.into(), records.into());
            match self.store.commit(Batch { unchanged, records, ..Batch::default() }) {
                Err(CommitError::Stale) => {}
                done => return done.map(|_| ()),
            }
        }
        Err(CommitError::Stale)
    }

    /// Makes the edits from this key on anew, as if the authority had asked for that.
    pub(crate) fn make_anew(&mut self, now: Millis, from: u64) -> Result<(), CommitError> {
        let mut edits = Vec::new();
        self.pending(from, &mut |key, edit| {
            edits.push((key, edit.header.stamp));
            ControlFlow::Continue(())
        })?;
        let exceptions = edits.iter().map(|(key, _)| (*key, Verdict::Again)).collect();
        let answer = Answer { edits, verdicts: Verdicts { seq: 0, exceptions }, clock: now };
        self.verdicts(now, &answer).map(|_| ())
    }

    /// Whether an edit names what a refused edit of the same connection was to create and what is not here otherwise.
    pub(super) fn names_refused<D: Delta>(&self, taint: &Taint, delta: &D) -> Result<bool, StoreError> {
        if taint.is_empty() || !refers(&self.schema) {
            return Ok(false);
        }
        let found = delta.each(|part| {
            let find = |address: &[u8]| {
                let found = part.changes.iter().find(|(at, _)| at.as_ref() == address)?;
                Some(found.1.register()?.newest().value.to_vec())
            };
            for named in named(&self.schema, part.kind, &find) {
                if taint.holds(&named) && !is_held(&self.store, &named).map_err(Some)? {
                    return Err(None);
                }
            }
            Ok(())
        });
        match found {
            Ok(()) => Ok(false),
            Err(None) => Ok(true),
            Err(Some(error)) => Err(error),
        }
    }
}

fn name(entity: &PendingEntity<'_>) -> Name {
    (entity.kind.to_owned(), entity.id.to_owned())
}

/// Whether any kind refers to another.
fn refers(schema: &Schema) -> bool {
    schema.kinds().any(|kind| kind.rules().any(|rule| matches!(rule.what, RuleType::Reference(_))))
}

/// The entities that an edit of one of this kind names; `find` has what the edit writes at an address.
fn named(schema: &Schema, kind: &str, find: &dyn Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<Name> {
    let Some(kind) = schema.kind(kind) else { return Vec::new() };
    let named = kind.rules().filter_map(|rule| {
        let RuleType::Reference(reference) = &rule.what else { return None };
        let (address, member) = match kind.slot(&reference.field) {
            Slot::Member(group) => (address::group(&group.name), Some(&reference.field)),
            _ => (address::field(&reference.field), None),
        };
        match (Value::decode(&find(&address)?).ok()?, member) {
            (Value::Text(id), None) => Some((reference.to.clone(), id)),
            (Value::Map(members), Some(field)) => match members.get(field.as_str()) {
                Some(Value::Text(id)) => Some((reference.to.clone(), id.clone())),
                _ => None,
            },
            _ => None,
        }
    });
    named.collect()
}

/// Whether any register of the entity is held.
pub(super) fn is_held<S: Store>(store: &S, (kind, id): &Name) -> Result<bool, StoreError> {
    let Some(chunk) = store.load(kind, id, LIFE)? else { return Ok(false) };
    let row = Row::new(&chunk.bytes, chunk.seq).map_err(|corrupt| damaged(kind, id, corrupt))?;
    Ok(row.entries().next().is_some())
}

fn known<S: Store>(store: &S, (kind, id): &Name) -> Result<Known, StoreError> {
    let Some(chunk) = store.load(kind, id, LIFE)? else { return Ok(Known::Free) };
    let read = || {
        let row = Row::new(&chunk.bytes, chunk.seq)?;
        // Without a life register of its own, whatever there is says it.
        let first =
            row.find(LIFE)?.map_or_else(|| row.entries().next().transpose(), |entry| Ok(Some(entry)))?;
        let Some(first) = first else { return Ok(Known::Free) };
        Ok(if first.state()?.confirmed().is_some() { Known::Free } else { Known::Unconfirmed })
    };
    read().map_err(|corrupt| damaged(kind, id, corrupt))
}
