//! Telling devices which of their writes were lost, and hearing of it.

use std::collections::{BTreeMap, VecDeque};

use super::{Access, Ack, Session, SessionError, unexpected};
use crate::id::ReplicaId;
use crate::replica::{Losses, Replica};
use crate::store::Store;
use crate::wire::{Frame, PAGE_BYTES_AIM};

/// What the authority's side has told on this connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Telling {
    /// What was there to tell when all of it was told.
    looked: Option<(Option<i64>, u64)>,
    /// By replica, the number of the last loss told.
    told: BTreeMap<ReplicaId, u64>,
    /// Answers that wait until the losses before them are told.
    answers: VecDeque<Vec<u8>>,
}

impl Telling {
    /// Holds an answer back until every loss is told.
    pub(super) fn answer(&mut self, ack: Ack) {
        self.answers.push_back(Frame::Ack(ack).encode());
    }

    /// Whether no answer waits.
    pub(super) fn is_idle(&self) -> bool {
        self.answers.is_empty()
    }
}

impl Session {
    /// The next frame that tells of losses, or else the next answer. Losses go before the answers and pages that show what
    /// they lost to, one frame at a time: a list may be long.
    pub(super) fn next_answer<S: Store>(
        &mut self,
        replica: &Replica<S>,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        match self.next_losses(replica)? {
            None => Ok(self.telling.answers.pop_front()),
            losses => Ok(losses),
        }
    }

    fn next_losses<S: Store>(&mut self, replica: &Replica<S>) -> Result<Option<Vec<u8>>, SessionError> {
        if !self.is_server() || !replica.identity().is_authority {
            return Ok(None);
        }
        let marker = replica.losses_marker();
        // They tell what the winners wrote.
        if self.telling.looked == Some(marker) || !self.reads_anything(replica)? {
            return Ok(None);
        }
        for author in self.peer()?.about.replicas() {
            let told = self.telling.told.get(&author).copied().unwrap_or(0);
            if let Some(mut losses) = replica.losses_of(author, told, PAGE_BYTES_AIM)? {
                self.telling.told.insert(author, losses.last);
                self.keep_readable(replica, &mut losses)?;
                return Ok(Some(Frame::Lost(losses).encode()));
            }
        }
        self.telling.looked = Some(marker);
        Ok(None)
    }

    /// Leaves out what was lost in scopes that the author may not read any more: it would be told the winner.
    fn keep_readable<S: Store>(&self, replica: &Replica<S>, losses: &mut Losses) -> Result<(), SessionError> {
        if !self.is_asking() {
            return Ok(());
        }
        let mut kept = Vec::new();
        for conflict in losses.conflicts.drain(..) {
            // Of what was collected nobody knows any more where it was.
            let may_read = match replica.place_of(&conflict.kind, &conflict.id)? {
                Some(scope) => self.allows(Access::Read, &scope),
                None => self.reads_all(replica)?,
            };
            if may_read {
                kept.push(conflict);
            }
        }
        losses.conflicts = kept;
        Ok(())
    }

    pub(super) fn handle_lost<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        losses: &Losses,
    ) -> Result<(), SessionError> {
        if !self.peer()?.is_authority || !self.told_replicas.contains(&losses.replica) {
            return Err(unexpected("LOST of somebody else's writes"));
        }
        let own = |conflict: &crate::conflict::Conflict| conflict.loser.replica == losses.replica;
        if !losses.conflicts.iter().all(own) {
            return Err(unexpected("LOST of another replica's writes"));
        }
        replica.hear_losses(losses)?;
        if let Some(pushing) = &mut self.pushing {
            pushing.note_lost(losses.conflicts.iter().map(|conflict| conflict.loser));
        }
        self.send(&Frame::Heard { replica: losses.replica, last: losses.last });
        Ok(())
    }

    pub(super) fn handle_heard<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        author: ReplicaId,
        last: u64,
    ) -> Result<(), SessionError> {
        if self.telling.told.get(&author).is_none_or(|told| last > *told) {
            return Err(unexpected("HEARD of what was not told"));
        }
        Ok(replica.losses_heard(author, last)?)
    }
}
