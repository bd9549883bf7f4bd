//! Entities that leave the store without a trace in what is merged, and come back.

use std::borrow::Cow;

use super::{At, StagedChunk, Work, damaged};
use crate::address::LIFE;
use crate::row::{self, Corrupt, Digested, Row};
use crate::rules::{Dirt, Watch};
use crate::store::{CommitError, Store};

/// What left with an entity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Left {
    /// How many registers.
    pub(crate) registers: u64,
    /// The newest time of any candidate in them.
    pub(crate) newest: u64,
    /// How many bytes the entity's rows had.
    pub(crate) bytes: usize,
    /// How many candidates its registers had, those that stay among them.
    pub(crate) candidates: usize,
}

impl<S: Store> Work<'_, S> {
    /// Whether the entity is evicted.
    pub(crate) fn is_evicted(&mut self, at: At) -> Result<bool, CommitError> {
        Ok(self.row(at, LIFE)?.is_evicted())
    }

    /// Whether any register of the entity is held, or known of.
    pub(crate) fn is_held(&mut self, at: At) -> Result<bool, CommitError> {
        let row = self.row(at, LIFE)?;
        if !row.is_empty() || row.end.is_empty() {
            return Ok(!row.is_empty());
        }
        // Its first row was emptied, as those of an entity are that was evicted and forgotten.
        Ok(self.rows(at)?.iter().any(|row| !row.is_empty()))
    }

    /// Evicts an entity: what rules read of it stays, so that nothing shows otherwise but it. `None` if an edit that is
    /// not confirmed touches it. `watch` is of its kind, also while rules are not evaluated.
    pub(crate) fn evict(&mut self, at: At, watch: Option<&Watch>) -> Result<Option<Left>, CommitError> {
        let mut left = Left::default();
        let kept = self.rewrite(at, watch, |row, digested| {
            let Some(to) = row::evict(row, digested)? else { return Ok(None) };
            left.registers += to.shares;
            left.newest = left.newest.max(to.newest);
            left.candidates += to.candidates;
            Ok(Some(to.bytes))
        })?;
        let Some(bytes) = kept else { return Ok(None) };
        left.bytes = bytes;
        self.staged_mut(at).shown_changed = true;
        self.moved.insert(at.0, Moved::Left);
        Ok(Some(left))
    }

    /// Makes an evicted entity one that holds what has stayed of it: the rest is joined next.
    pub(crate) fn restore(&mut self, at: At) -> Result<(), CommitError> {
        self.rewrite(at, None, |row, digested| row::restore(row, digested).map(Some))?;
        let staged = self.staged_mut(at);
        staged.shown_changed = true;
        staged.dirt = Dirt { any: true, keys: true, life: true };
        self.moved.insert(at.0, Moved::Back);
        Ok(())
    }

    /// Forgets an evicted entity, as if it had never been here.
    pub(crate) fn forget(&mut self, at: At) -> Result<(), CommitError> {
        self.note_repointed(at)?;
        self.rewrite(at, None, |row, digested| row::forget(row, digested).map(Some))?;
        self.staged_mut(at).dirt = Dirt { any: true, keys: true, life: true };
        Ok(())
    }

    /// Leaves alone those of the swayed that are not at hand: they show neither so nor so.
    pub(super) fn sway_those_at_hand(&mut self) -> Result<(), CommitError> {
        for at in std::mem::take(&mut self.swayed) {
            if self.is_at_hand(At(at))? {
                self.swayed.insert(at);
            }
        }
        Ok(())
    }

    /// Whether the entity is not evicted. The commit does not depend on it.
    fn is_at_hand(&self, at: At) -> Result<bool, CommitError> {
        let staged = self.staged(at);
        let corrupt = |corrupt| damaged(staged.kind(), staged.id(), corrupt);
        let row = match staged.chunks.first() {
            Some(chunk) => Some(chunk.row().map_err(corrupt)?.is_evicted()),
            None => match self.store.load(staged.kind(), staged.id(), LIFE)? {
                Some(chunk) => Some(Row::new(&chunk.bytes, chunk.seq).map_err(corrupt)?.is_evicted()),
                None => None,
            },
        };
        Ok(!row.unwrap_or(false))
    }

    /// Puts other bytes in place of every row of the entity; gives how many bytes the rows had. `None`, with nothing
    /// changed, if one has none to put there.
    pub(super) fn rewrite(
        &mut self,
        at: At,
        watch: Option<&Watch>,
        mut make: impl FnMut(Row<'_>, &mut Digested<'_>) -> Result<Option<Vec<u8>>, Corrupt>,
    ) -> Result<Option<usize>, CommitError> {
        self.note_scope(at)?;
        self.rows(at)?;
        let scopes = self.rules.scopes;
        let mut scratch = std::mem::take(&mut self.scratch);
        let staged = self.staged_mut(at);
        let mut digested = Digested::new(&mut scratch.hashing, staged.kind(), staged.id());
        digested.watch = watch;
        digested.scope = scopes.and_then(|scopes| scopes.address(staged.kind()));
        let rows = staged.chunks.iter().map(StagedChunk::row);
        let made: Result<Option<Vec<_>>, Corrupt> = rows.map(|row| make(row?, &mut digested)).collect();
        let sums = digested.sums;
        let made = made.map_err(|corrupt| damaged(staged.kind(), staged.id(), corrupt))?;
        let bytes = staged.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        let done = made.map(|made| {
            for (chunk, bytes) in staged.chunks.iter_mut().zip(made) {
                chunk.bytes = Cow::Owned(bytes);
                chunk.written = true;
            }
            bytes
        });
        self.scratch = scratch;
        if done.is_some() {
            self.sums.add(sums);
            if let Some(scope) = &mut self.staged_mut(at).scope {
                scope.sums.add(sums);
            }
        }
        Ok(done)
    }
}

/// Which way an entity went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moved {
    /// It was evicted.
    Left,
    /// It was fetched.
    Back,
}
