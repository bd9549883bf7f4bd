//! Writes that a deletion hides: they are in their registers still, but nobody sees them.

use std::collections::BTreeMap;

use super::witness::{Held, Loss, Witness};
use super::{Conflict, LostTo};
use crate::address::{LIFE, Parts, class};
use crate::clock::Stamp;
use crate::register::{Candidate, Register};
use crate::row::{Change, Corrupt};
use crate::schema::Life;
use crate::store::{CommitError, Store};
use crate::view::{self, FALSE};
use crate::work::{At, Work, damaged};

/// The newest of the deletions in a life register.
fn deletion<'a>(life: &Register<'a>) -> Option<Candidate<'a>> {
    life.alive.iter().rev().find(|c| c.value == FALSE).copied()
}

/// One write of a field.
struct Write {
    address: Vec<u8>,
    stamp: Stamp,
    value: Vec<u8>,
}

impl Write {
    fn of(address: &[u8], candidate: &Candidate<'_>) -> Self {
        Self { address: address.to_vec(), stamp: candidate.stamp, value: candidate.value.to_vec() }
    }
}

fn is_users(address: &[u8]) -> bool {
    Parts::parse(address).is_some_and(|parts| (class::FIELD..=class::COUNT).contains(&parts.class))
}

impl<S: Store> Work<'_, S> {
    /// As [`Work::apply`], for what comes from others: notes the writes that deletions hide from now on.
    ///
    /// `life` is the kind's policy, none if it is not declared: then nobody sees it anyway.
    pub(crate) fn join<A: AsRef<[u8]>>(
        &mut self,
        at: At,
        life: impl FnOnce() -> Option<Life>,
        changes: &[(A, Change<'_>)],
    ) -> Result<(), CommitError> {
        let Some(witness) = self.witness() else { return self.apply(at, changes) };
        // The life register is the first of an entity.
        let first = changes.first().filter(|(address, _)| address.as_ref() == LIFE);
        let came = first.and_then(|(_, change)| change.register()).filter(|r| deletion(r).is_some());
        if came.is_none() && !witness.looks_at_incoming() {
            return self.apply(at, changes);
        }
        let Some(life) = life() else { return self.apply(at, changes) };
        let was_deleted = self.shows_deleted(at, life)?.is_some();
        let writes = match came {
            _ if was_deleted => self.news(at, changes)?,
            Some(came) => self.unseen(at, came)?,
            None => Vec::new(),
        };
        self.apply(at, changes)?;
        match self.shows_deleted(at, life)? {
            Some(deletion) if was_deleted => {
                let of_others = |write: &Write| write.stamp.replica != deletion.replica;
                self.hide(at, deletion, writes.into_iter().filter(of_others).collect())
            }
            Some(deletion) => self.hide(at, deletion, writes),
            None => Ok(()),
        }
    }

    /// The deletion that shows, if one does.
    fn shows_deleted(&mut self, at: At, life: Life) -> Result<Option<Stamp>, CommitError> {
        let found = self.row(at, LIFE)?.find(LIFE).and_then(|entry| {
            let Some(register) = entry.map(|entry| entry.shown()).transpose()? else { return Ok(None) };
            let newest = deletion(&register).filter(|_| view::is_dead(life, &register));
            Ok(newest.map(|newest| newest.stamp))
        });
        found.map_err(|corrupt| self.damage(at, corrupt))
    }

    /// The held writes that the author of a deletion, which comes in, had not seen.
    fn unseen(&mut self, at: At, came: &Register<'_>) -> Result<Vec<Write>, CommitError> {
        let Some(witness) = self.witness().cloned() else { return Ok(Vec::new()) };
        let mut unseen = Vec::new();
        let rows = self.rows(at)?;
        let read = rows.iter().flat_map(crate::row::Row::entries).try_for_each(|entry| {
            let entry = entry?;
            if is_users(entry.address) {
                let state = entry.state()?;
                let held = Held { seq: state.seq, source: state.source, candidates: &state.shown.alive };
                let lost = held.candidates.iter().filter(|write| is_lost(&witness, came, write, held));
                unseen.extend(lost.map(|write| Write::of(entry.address, write)));
            }
            Ok(())
        });
        read.map_err(|corrupt| self.damage(at, corrupt))?;
        Ok(unseen)
    }

    /// The writes among `changes` that are not in the running here yet: of the others it was noted before that they are
    /// hidden, and a peer may send a write back to its author.
    fn news<A: AsRef<[u8]>>(
        &mut self,
        at: At,
        changes: &[(A, Change<'_>)],
    ) -> Result<Vec<Write>, CommitError> {
        let mut news = Vec::new();
        for (address, change) in changes {
            let address = address.as_ref();
            let Some(came) = change.register().filter(|_| is_users(address)) else { continue };
            let held = self.row(at, address)?.find(address);
            let held = held.and_then(|entry| entry.map(|entry| entry.shown()).transpose());
            let read = held.map(|held| {
                let is_held = |write: &&Candidate<'_>| {
                    held.as_ref().is_some_and(|held| held.alive.iter().any(|c| c.stamp == write.stamp))
                };
                let new = came.alive.iter().filter(|write| !is_held(write));
                news.extend(new.map(|write| Write::of(address, write)));
            });
            read.map_err(|corrupt| self.damage(at, corrupt))?;
        }
        Ok(news)
    }

    /// Notes that a deletion hides these writes, as far as they are in the running.
    fn hide(&mut self, at: At, deletion: Stamp, writes: Vec<Write>) -> Result<(), CommitError> {
        let mut losses = Vec::new();
        for Write { address, stamp, value } in writes {
            let is_alive = self.row(at, &address)?.find(&address).and_then(|entry| {
                let shown = entry.map(|entry| entry.shown()).transpose()?;
                Ok(shown.is_some_and(|register| register.alive.iter().any(|c| c.stamp == stamp)))
            });
            if is_alive.map_err(|corrupt| self.damage(at, corrupt))? {
                let (loser, winner) = ((stamp, value), (deletion, FALSE.to_vec()));
                losses.push(Loss { address, loser, winner, to: LostTo::Delete });
            }
        }
        self.note_losses(at, losses);
        Ok(())
    }

    pub(crate) fn note_losses(&mut self, at: At, losses: Vec<Loss>) {
        let staged = self.staged(at);
        let named: Vec<Conflict> =
            losses.into_iter().map(|loss| loss.of(staged.kind(), staged.id())).collect();
        self.losses.extend(named);
    }

    fn damage(&self, at: At, corrupt: Corrupt) -> CommitError {
        let staged = self.staged(at);
        damaged(staged.kind(), staged.id(), corrupt).into()
    }
}

/// Whether a held write is about to be hidden by somebody who had not seen it.
fn is_lost(witness: &Witness, came: &Register<'_>, write: &Candidate<'_>, held: Held<'_>) -> bool {
    let mut deletions = came.alive.iter().filter(|c| c.value == FALSE);
    // Who had seen a later change of the life register by the same replica had everything of it until then. Where a
    // revival is there beside the deletion, it may be the one that saw it.
    let replica = write.stamp.replica;
    let knew = came.alive.iter().all(|c| c.value == FALSE)
        && came.seen.iter().any(|s| s.replica == replica && s.instant >= write.stamp.instant());
    let is_seen = knew || deletions.any(|deletion| witness.saw(deletion, write.stamp, held));
    witness.minds(replica) && !is_seen
}

/// Takes out the losses that their own author has written over since: the later write answers for them.
fn keep_last(losses: &mut Vec<Conflict>) {
    let place = |c: &Conflict| (c.kind.clone(), c.id.clone(), c.address.clone(), c.to, c.loser.replica);
    let mut last: BTreeMap<_, Stamp> = BTreeMap::new();
    for conflict in losses.iter() {
        let known = last.entry(place(conflict)).or_insert(conflict.loser);
        *known = conflict.loser.max(*known);
    }
    losses.retain(|conflict| last.get(&place(conflict)) == Some(&conflict.loser));
}

impl<S: Store> Work<'_, S> {
    /// Takes out what is no loss once everything is joined.
    pub(crate) fn settle_losses(&mut self) -> Result<(), CommitError> {
        let mut losses = std::mem::take(&mut self.losses);
        if losses.len() > 1 {
            keep_last(&mut losses);
        }
        for conflict in losses {
            let Conflict { kind, id, address, loser, .. } = &conflict;
            let at = self.entity(kind, id);
            let shown = self.row(at, address)?.find(address);
            let shown = shown.and_then(|entry| entry.map(|entry| entry.shown()).transpose());
            let is_over = |register: &Register<'_>| {
                register.alive.iter().any(|c| c.stamp.replica == loser.replica && c.stamp > *loser)
            };
            let is_replaced = shown.map(|register| register.as_ref().is_some_and(is_over));
            if !is_replaced.map_err(|corrupt| self.damage(at, corrupt))? {
                self.losses.push(conflict);
            }
        }
        Ok(())
    }
}
