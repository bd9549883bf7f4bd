//! Entities of which nothing is to stay: their rows are emptied, and removed later.

use std::borrow::Cow;

use super::{At, Work};
use crate::row::{self, Row};
use crate::rules::Dirt;
use crate::store::{CommitError, Store};

/// What of an entity may be dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Drop {
    /// What is confirmed, if nothing else is held.
    Confirmed,
    /// Pending edits as well: they are kept elsewhere.
    All,
}

impl<S: Store> Work<'_, S> {
    /// Empties the rows of an entity, as if it had never been here. Says whether it did: not if pending edits touch it
    /// that may not be dropped.
    pub(crate) fn wipe(&mut self, at: At, drop: Drop) -> Result<bool, CommitError> {
        self.note_repointed(at)?;
        let done = self.rewrite(at, None, |row, digested| {
            let (bytes, is_pending) = row::wipe(row, digested)?;
            Ok((drop == Drop::All || !is_pending).then_some(bytes))
        })?;
        if done.is_some() {
            let staged = self.staged_mut(at);
            staged.shown_changed = true;
            staged.dirt = Dirt { any: true, keys: true, life: true };
        }
        Ok(done.is_some())
    }

    /// The seq of the newest of the entity's rows.
    pub(crate) fn newest_seq(&mut self, at: At) -> Result<u64, CommitError> {
        self.rows(at)?;
        Ok(self.staged(at).chunks.iter().map(|chunk| chunk.read_seq).max().unwrap_or(0))
    }

    /// Removes the rows of an entity if they are empty and none is newer than `until`.
    pub(crate) fn remove(&mut self, at: At, until: u64) -> Result<(), CommitError> {
        let is_empty = self.rows(at)?.iter().all(Row::is_empty);
        if !is_empty || self.newest_seq(at)? > until {
            return Ok(());
        }
        for chunk in &mut self.staged_mut(at).chunks {
            // One that is not there needs no removing.
            if chunk.read_seq > 0 {
                chunk.bytes = Cow::Borrowed(&[]);
                chunk.written = true;
            }
        }
        Ok(())
    }
}
