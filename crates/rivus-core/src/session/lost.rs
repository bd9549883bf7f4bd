//! Telling devices which of their writes were lost, and hearing of it.

use std::collections::BTreeMap;

use super::{Access, Session, SessionError, unexpected};
use crate::id::ReplicaId;
use crate::replica::{Losses, Replica};
use crate::store::Store;
use crate::wire::{Frame, PAGE_BYTES_AIM};

/// What the authority's side has told on this connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Telling {
    /// What was there to tell when it was last looked at.
    looked: Option<(Option<i64>, u64)>,
    /// By replica, the number of the last loss told.
    told: BTreeMap<ReplicaId, u64>,
}

impl Session {
    /// Tells of losses that are not told yet. They go before the answers and pages that show what they lost to.
    pub(super) fn tell_losses<S: Store>(&mut self, replica: &Replica<S>) -> Result<(), SessionError> {
        if !self.is_server() || !replica.identity().is_authority {
            return Ok(());
        }
        let marker = replica.losses_marker();
        // They tell what the winners wrote.
        if self.telling.looked == Some(marker) || !self.reads_anything(replica)? {
            return Ok(());
        }
        for author in self.peer()?.about.replicas() {
            let mut after = self.telling.told.get(&author).copied().unwrap_or(0);
            while let Some(mut losses) = replica.losses_of(author, after, PAGE_BYTES_AIM)? {
                after = losses.last;
                self.keep_readable(replica, &mut losses)?;
                self.send(&Frame::Lost(losses));
            }
            self.telling.told.insert(author, after);
        }
        self.telling.looked = Some(marker);
        Ok(())
    }

    /// Leaves out what was lost in scopes that the author may not read any more: it would be told the winner.
    fn keep_readable<S: Store>(&self, replica: &Replica<S>, losses: &mut Losses) -> Result<(), SessionError> {
        if !self.is_asking() {
            return Ok(());
        }
        let mut kept = Vec::new();
        for conflict in losses.conflicts.drain(..) {
            if self.allows(Access::Read, &replica.scope_of(&conflict.kind, &conflict.id)?) {
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
