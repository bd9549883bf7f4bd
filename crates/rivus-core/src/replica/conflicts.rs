//! A replica's lost writes: recorded where they are decided, told to their authors, dismissed or written again.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{Edited, Event, Replica, STALE_RETRIES_MAX, unreadable};
use crate::address::{Parts, class};
use crate::clock::{Force, Millis};
use crate::conflict::{Conflict, List, Lists, LostTo, Whose, Witness};
use crate::edit::{Action, EditError, Op, Presence, Tx};
use crate::id::ReplicaId;
use crate::register::Candidate;
use crate::row::Confirmed;
use crate::schema::{FieldType, Kind, Life, Slot};
use crate::store::{Batch, CommitError, RecordRead, RecordWrite, Store, StoreError};
use crate::value::{ABSENT, Value, ValueError};
use crate::view::{FALSE, TRUE};

/// What an authority has to tell a replica of another store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Losses {
    /// Whose writes they were.
    pub replica: ReplicaId,
    /// The number of the last.
    pub last: u64,
    /// How many earlier ones had to be dropped, ever.
    pub dropped: u64,
    /// The losses, oldest first.
    pub conflicts: Vec<Conflict>,
}

/// What a commit writes of conflicts, and what must be as it was read.
#[derive(Debug, Default)]
pub(super) struct Filed {
    pub(super) records: Vec<RecordWrite>,
    pub(super) unchanged: Vec<RecordRead>,
}

impl<S: Store> Replica<S> {
    /// The writes of this store that lost to one whose author had not seen them, oldest first, with their numbers.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn conflicts(&self) -> Result<Vec<(u64, Conflict)>, StoreError> {
        List::Own.read(&self.store)
    }

    /// How many conflicts of this store are no longer listed because there were too many.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn conflicts_dropped(&self) -> Result<u64, StoreError> {
        let mut dropped = List::Own.head(&self.store)?.0.dropped;
        if self.identity.authority.is_some() {
            for replica in self.identity.all_replicas() {
                dropped += List::Of(replica).head(&self.store)?.0.dropped;
            }
        }
        Ok(dropped)
    }

    /// Takes a conflict off the list; `false` if there is none of this number.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed.
    pub fn dismiss_conflict(&mut self, number: u64) -> Result<bool, CommitError> {
        let removed = self.change_lists(|lists, store| lists.remove(store, List::Own, number..=number))?;
        Ok(removed > 0)
    }

    /// Writes the value of a lost write again, as a new edit, and takes the conflict off the list. A deleted entity is
    /// revived for it. `None` if there is no conflict of this number.
    ///
    /// # Errors
    /// [`EditError`]: the conflict is listed still.
    pub fn restore_conflict(&mut self, now: Millis, number: u64) -> Result<Option<Edited>, EditError> {
        let mut found = None;
        List::Own.visit(&self.store, number, &mut |at, bytes| {
            found = (at == number).then(|| Conflict::decode(bytes));
            ControlFlow::Break(())
        })?;
        let Some(conflict) = found.transpose().map_err(|_| unreadable("a conflict"))? else {
            return Ok(None);
        };
        let (_, edited) = self.transact(now, Force::No, |tx| restore(tx, &conflict))?;
        self.dismiss_conflict(number)?;
        Ok(Some(edited))
    }

    /// What is known, while a page or push is joined, of who had seen what.
    pub(super) fn witness(&self) -> Result<Witness, StoreError> {
        let whose = if self.identity.is_authority {
            let head = self.store.head()?;
            Whose::Everybody { history: head.incarnations.into(), head: head.seq }
        } else if self.identity.authority.is_some() {
            Whose::Nobody
        } else {
            let now = self.identity.replicas.clone();
            Whose::Own { all: self.identity.all_replicas().collect(), now }
        };
        Ok(Witness { whose, ..Witness::default() })
    }

    /// Puts losses on the lists that they belong to, and says which are this store's own.
    pub(super) fn file(&self, losses: &[Conflict]) -> Result<(Filed, Vec<Event>), StoreError> {
        let mut lists = Lists::default();
        let mut own = Vec::new();
        for conflict in losses {
            let replica = conflict.loser.replica;
            let is_own = self.identity.all_replicas().any(|own| own == replica);
            let list = if is_own { List::Own } else { List::Of(replica) };
            let number = lists.append(&self.store, list, conflict)?;
            if is_own {
                own.push(Event::Conflict { number, conflict: conflict.clone() });
            }
        }
        let (records, unchanged) = lists.into_parts();
        Ok((Filed { records, unchanged }, own))
    }

    /// A number that has changed if there may be new losses to tell.
    pub(crate) fn losses_marker(&self) -> (Option<i64>, u64) {
        (self.others, self.filed)
    }

    /// What to tell this replica of its lost writes after number `after`, up to about so many bytes.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn losses_of(
        &self,
        replica: ReplicaId,
        after: u64,
        bytes_aim: usize,
    ) -> Result<Option<Losses>, StoreError> {
        let list = List::Of(replica);
        let (head, _) = list.head(&self.store)?;
        if head.next <= after.saturating_add(1) {
            return Ok(None);
        }
        let mut losses = Losses { replica, last: after, dropped: head.dropped, conflicts: Vec::new() };
        let (mut bytes_len, mut failed) = (0, false);
        list.visit(&self.store, after.saturating_add(1), &mut |number, bytes| {
            if bytes_len > 0 && bytes_len + bytes.len() > bytes_aim {
                return ControlFlow::Break(());
            }
            bytes_len += bytes.len();
            losses.last = number;
            match Conflict::decode(bytes) {
                Ok(conflict) => losses.conflicts.push(conflict),
                Err(_) => failed = true,
            }
            ControlFlow::Continue(())
        })?;
        if failed {
            return Err(unreadable("a conflict"));
        }
        Ok((!losses.conflicts.is_empty()).then_some(losses))
    }

    /// Forgets what a replica has been told of its lost writes: it has heard of those up to number `last`.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed.
    pub fn losses_heard(&mut self, replica: ReplicaId, last: u64) -> Result<(), CommitError> {
        self.change_lists(|lists, store| lists.remove(store, List::Of(replica), 0..=last))?;
        Ok(())
    }

    /// Takes over what the authority tells of this store's lost writes.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed.
    pub fn hear_losses(&mut self, losses: &Losses) -> Result<(), CommitError> {
        let mut heard = Vec::new();
        for conflict in &losses.conflicts {
            if !self.is_written_over(conflict)? {
                heard.push(conflict);
            }
        }
        let numbers = self.change_lists(|lists, store| {
            lists.count_dropped(store, List::Of(losses.replica), |known| known.max(losses.dropped))?;
            let mut numbers = Vec::new();
            for conflict in &heard {
                if !lists.has(store, List::Own, conflict)? {
                    numbers.push((lists.append(store, List::Own, conflict)?, *conflict));
                }
            }
            Ok(numbers)
        })?;
        let event =
            |(number, conflict): (u64, &Conflict)| Event::Conflict { number, conflict: conflict.clone() };
        self.events.extend(numbers.into_iter().map(event));
        Ok(())
    }

    /// Whether the author of a lost write has written over it since, and that is pending: then the later write answers
    /// for it.
    fn is_written_over(&self, conflict: &Conflict) -> Result<bool, StoreError> {
        let mut is_over = false;
        self.registers(&conflict.kind, &conflict.id, &mut |parts, state| {
            let is_here = parts == conflict.parts() && state.confirmed != Confirmed::Same;
            let later =
                |c: &Candidate<'_>| c.stamp.replica == conflict.loser.replica && c.stamp > conflict.loser;
            is_over |= is_here && conflict.to == LostTo::Write && state.shown.alive.iter().any(later);
        })?;
        Ok(is_over)
    }

    /// Changes lists and nothing else, whoever else may be changing them.
    fn change_lists<T>(
        &mut self,
        mut change: impl FnMut(&mut Lists, &S) -> Result<T, StoreError>,
    ) -> Result<T, CommitError> {
        for _ in 0..STALE_RETRIES_MAX {
            let mut lists = Lists::default();
            let done = change(&mut lists, &self.store)?;
            let (records, unchanged) = lists.into_parts();
            if records.is_empty() {
                return Ok(done);
            }
            let batch = Batch { records: records.into(), unchanged: unchanged.into(), ..Batch::default() };
            match self.store.commit(batch) {
                Ok(_) => return Ok(done),
                Err(CommitError::Stale) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CommitError::Stale)
    }
}

/// Does again what a lost write did.
fn restore<S: Store>(tx: &mut Tx<'_, S>, conflict: &Conflict) -> Result<(), EditError> {
    let Conflict { kind, id, value, .. } = conflict;
    let parts = conflict.parts();
    let act = |tx: &mut Tx<'_, S>, action| tx.apply(&Op::new(kind, id, action));
    let is_deleted = tx.presence(kind, id)? == Presence::Deleted;
    if parts.class == class::LIFE {
        return match (value == FALSE, is_deleted) {
            (true, false) => act(tx, Action::Delete),
            (false, true) => act(tx, Action::Revive),
            _ => Ok(()),
        };
    }
    let declared = tx.schema().kind(kind);
    // A counter's share is nobody else's to overwrite: only a deletion hides it.
    let action = action_of(declared, parts, value).map_err(|_| unreadable("a conflict's value"))?;
    if is_deleted && declared.is_some_and(|kind| kind.life != Life::EditRevives) {
        act(tx, Action::Revive)?;
    }
    action.map_or(Ok(()), |action| act(tx, action))
}

/// What somebody does who writes this value into a register of a field, a group, or a key of a set or map; `None` of others.
pub(super) fn action_of(
    declared: Option<&Kind>,
    parts: Parts<'_>,
    value: &[u8],
) -> Result<Option<Action>, ValueError> {
    // It may have been written under the field's former name.
    let renamed = declared.and_then(|kind| kind.once(parts.name)).filter(|_| parts.class == class::FIELD);
    let field = renamed.map_or(parts.name, |field| field.name.as_str()).to_owned();
    Ok(match parts.class {
        class::FIELD => {
            let value = if value == ABSENT { Value::Null } else { Value::decode(value)? };
            Some(Action::Put(vec![(field, value)]))
        }
        class::GROUP => {
            let Value::Map(members) = Value::decode(value)? else { return Ok(None) };
            let group = declared.and_then(|kind| kind.group(&field));
            let members: BTreeMap<_, _> = members.into_iter().collect();
            let is_member = |name: &String| group.is_some_and(|group| group.members.contains(name));
            Some(Action::Put(members.into_iter().filter(|(name, _)| is_member(name)).collect()))
        }
        class::KEY => {
            let key = parts.text_key().unwrap_or_default().to_owned();
            let slot = declared.map(|kind| kind.slot(&field));
            let is_set =
                matches!(slot, Some(Slot::Field(field)) if matches!(field.ty, FieldType::Set { .. }));
            Some(match value {
                ABSENT => Action::Remove { field, key },
                TRUE if is_set => Action::Add { field, key },
                _ if is_set => Action::Remove { field, key },
                _ => Action::SetKey { field, key, value: Value::decode(value)? },
            })
        }
        _ => None,
    })
}
