//! The scopes of staged entities: digests of scopes, moves from one to another, entities that leave the store.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::evict::Moved;
use super::{At, StagedChunk, Work, damaged};
use crate::row::{self, Change, Digested, Sums};
use crate::rules::Dirt;
use crate::scope;
use crate::store::{CommitError, Store};

/// Where an entity is, of a kind whose entities have a scope.
#[derive(Clone, Debug, Default)]
pub(super) struct Scoped {
    /// Where it was when it was read.
    before: String,
    /// What has been added to the digests since.
    pub(super) sums: Sums,
    /// Where it is.
    pub(super) after: String,
    /// Where some write has put it that was joined: its author may believe so, even if another write has won.
    named: BTreeSet<String>,
    /// It was collected: a mark tells of that.
    gone: bool,
}

/// An entity that has moved.
#[derive(Clone, Debug)]
pub(super) struct HasMoved {
    pub(super) at: usize,
    /// A scope in which somebody may believe it to be.
    pub(super) from: Option<String>,
}

/// What the staged rows mean for scopes.
#[derive(Debug, Default)]
pub(super) struct Divided {
    pub(super) moves: Vec<HasMoved>,
    /// By scope with a name.
    pub(super) sums: BTreeMap<String, Sums>,
}

impl<'s, S: Store> Work<'s, S> {
    /// The address that names the entity's scope, if its kind has one.
    pub(crate) fn scope_address(&self, at: At) -> Option<&'s [u8]> {
        self.rules.scopes.and_then(|scopes| scopes.address(self.staged(at).kind()))
    }

    /// Whether what is not held may be in a scope that is not followed here.
    pub(crate) fn is_partial(&self) -> bool {
        self.rules.is_partial
    }

    /// The scope that the staged entity is in.
    pub(crate) fn scope(&mut self, at: At) -> Result<String, CommitError> {
        match self.scope_address(at) {
            Some(address) => self.scope_by(at, address),
            None => Ok(String::new()),
        }
    }

    /// The scope that the staged entity says itself that it is in.
    pub(crate) fn named_scope(&mut self, at: At) -> Result<Option<String>, CommitError> {
        self.scope_address(at).map_or(Ok(None), |address| self.named_by(at, address))
    }

    fn named_by(&mut self, at: At, address: &[u8]) -> Result<Option<String>, CommitError> {
        let found = scope::says(self.row(at, address)?, address);
        let staged = self.staged(at);
        found.map_err(|corrupt| damaged(staged.kind(), staged.id(), corrupt).into())
    }

    fn scope_by(&mut self, at: At, address: &[u8]) -> Result<String, CommitError> {
        Ok(self.named_by(at, address)?.unwrap_or_default())
    }

    /// Notes where the entity is before it is changed.
    #[inline]
    pub(super) fn note_scope(&mut self, at: At) -> Result<(), CommitError> {
        if self.rules.scopes.is_none() {
            return Ok(());
        }
        match self.scope_address(at) {
            Some(address) if self.staged(at).scope.is_none() => self.note_scope_by(at, address),
            _ => Ok(()),
        }
    }

    fn note_scope_by(&mut self, at: At, address: &[u8]) -> Result<(), CommitError> {
        let before = self.scope_by(at, address)?;
        self.staged_mut(at).scope = Some(Box::new(Scoped { before, ..Scoped::default() }));
        Ok(())
    }

    /// Notes where joined writes put the entity.
    #[inline]
    pub(super) fn note_named<A: AsRef<[u8]>>(&mut self, at: At, changes: &[(A, Change<'_>)]) {
        if !self.rules.tells_left {
            return;
        }
        let Some(address) = self.scope_address(at) else { return };
        let named = changes.iter().filter(|(of, _)| of.as_ref() == address);
        let named: Vec<String> =
            named.filter_map(|(_, change)| change.register()).map(scope::named).collect();
        if let Some(scoped) = &mut self.staged_mut(at).scope {
            scoped.named.extend(named);
        }
    }

    /// Notes that the author of a joined write may believe that the entity is in the scope without a name.
    pub(crate) fn note_unnamed(&mut self, at: At) {
        if let Some(scoped) = &mut self.staged_mut(at).scope {
            scoped.named.insert(String::new());
        }
    }

    /// Notes that an entity is collected: it does not go to another scope.
    pub(crate) fn note_gone(&mut self, at: At) {
        if let Some(scoped) = &mut self.staged_mut(at).scope {
            scoped.gone = true;
        }
    }

    /// Files an entity anew whose kind has another scope field now; it was filed by `before`.
    pub(crate) fn file_anew(&mut self, at: At, before: Option<&[u8]>) -> Result<(), CommitError> {
        match before {
            Some(address) => self.note_scope_by(at, address),
            None => {
                self.staged_mut(at).scope = Some(Box::default());
                Ok(())
            }
        }
    }

    /// Takes an entity out of the store: nothing of it stays, and it is not deleted anywhere else.
    pub(crate) fn leave(&mut self, at: At) -> Result<(), CommitError> {
        self.note_repointed(at)?;
        self.rewrite(at, None, |row, digested| row::leave(row, digested).map(Some))?;
        let staged = self.staged_mut(at);
        staged.leaves = true;
        staged.shown_changed = true;
        staged.dirt = Dirt { any: true, keys: true, life: true };
        self.moved.insert(at.index(), Moved::Left);
        Ok(())
    }

    /// What the staged rows mean for scopes. All rows of an entity that has moved are written.
    pub(super) fn settle_scopes(&mut self) -> Result<Divided, CommitError> {
        let mut divided = Divided::default();
        if self.rules.scopes.is_none() {
            return Ok(divided);
        }
        for index in 0..self.entities.len() {
            let at = At::new(index);
            let scoped = self.staged(at).scope.as_deref().cloned();
            let Some(Scoped { before, sums, mut named, gone, .. }) = scoped else { continue };
            let leaves = self.staged(at).leaves;
            let after = if leaves { before.clone() } else { self.scope(at)? };
            named.remove(&after);
            if gone {
                named.clear();
            }
            if before != after {
                let whole = self.touch(at)?;
                let was = whole.minus(sums);
                add(&mut divided.sums, &before, Sums::default().minus(was));
                add(&mut divided.sums, &after, whole);
                divided.moves.push(HasMoved { at: index, from: None });
                if was.count != 0 && self.rules.tells_left && !gone {
                    named.insert(before);
                }
            } else {
                add(&mut divided.sums, &after, sums);
                if !named.is_empty() {
                    // So that there is a place in the order at which it has left.
                    self.touch(at)?;
                }
            }
            divided.moves.extend(named.into_iter().map(|from| HasMoved { at: index, from: Some(from) }));
            if let Some(scoped) = &mut self.staged_mut(at).scope {
                scoped.after = after;
            }
        }
        divided.sums.retain(|_, sums| *sums != Sums::default());
        Ok(divided)
    }

    /// What an entity is in the digests.
    pub(crate) fn whole(&mut self, at: At) -> Result<Sums, CommitError> {
        let (kind, id) = (self.staged(at).kind().to_owned(), self.staged(at).id().to_owned());
        let mut buffer = Vec::new();
        let mut digested = Digested::new(&mut buffer, &kind, &id);
        let mut whole = Sums::default();
        for row in self.rows(at)? {
            whole.add(row::sums(row, &mut digested).map_err(|corrupt| damaged(&kind, &id, corrupt))?);
        }
        Ok(whole)
    }

    /// Writes all rows of an entity as changed, and says what they are in the digests.
    fn touch(&mut self, at: At) -> Result<Sums, CommitError> {
        self.rows(at)?;
        let mut scratch = std::mem::take(&mut self.scratch);
        let staged = self.staged_mut(at);
        let mut digested = Digested::new(&mut scratch.hashing, staged.kind(), staged.id());
        let mut whole = Sums::default();
        let rows = staged.chunks.iter().filter(|chunk| !chunk.bytes.is_empty()).map(StagedChunk::row);
        let made: Result<Vec<_>, _> = rows
            .map(|row| {
                let row = row?;
                whole.add(row::sums(row, &mut digested)?);
                row::touch(row)
            })
            .collect();
        let made = made.map_err(|corrupt| damaged(staged.kind(), staged.id(), corrupt))?;
        let chunks = staged.chunks.iter_mut().filter(|chunk| !chunk.bytes.is_empty());
        for (chunk, bytes) in chunks.zip(made) {
            chunk.bytes = Cow::Owned(bytes);
            chunk.written = true;
        }
        self.scratch = scratch;
        Ok(whole)
    }
}

fn add(all: &mut BTreeMap<String, Sums>, scope: &str, sums: Sums) {
    if !scope.is_empty() {
        all.entry(scope.to_owned()).or_default().add(sums);
    }
}
