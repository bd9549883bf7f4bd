//! Scopes: which there are, what each holds, and following a schema that names another field.

use std::collections::BTreeMap;

use super::{Meanwhile, Origin, Part, Replica, STALE_RETRIES_MAX, commit_records, unreadable};
use crate::id::StoreId;
use crate::register::Register;
use crate::row::{Corrupt, Row};
use crate::rules::Cover;
use crate::scope::{self, Scopes};
use crate::store::{CommitError, Digest, RecordWrite, Store, StoreError, Table};
use crate::work::{Finished, Ruled, Scratch, Work, damaged};

/// The key of the fields that name scopes, by kind.
const SCOPES_KEY: &[u8] = b"scopes";

/// The key of the mark that what is not held may be elsewhere.
pub(super) const PARTIAL_KEY: &[u8] = b"partial";

/// How many ids of a kind are asked for at a time.
const IDS_AT_ONCE: usize = 10_000;

impl<S: Store> Replica<S> {
    /// The scopes with a name that have registers here, sorted, each with its digest.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn scopes(&self) -> Result<Vec<(String, Digest)>, StoreError> {
        self.store.scopes()
    }

    /// The scope that an entity is in, by what is confirmed of it; empty for the one without a name.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn scope_of(&self, kind: &str, id: &str) -> Result<String, StoreError> {
        if self.scopes.address(kind).is_none() {
            return Ok(String::new());
        }
        let mut work = self.placing();
        let at = work.entity(kind, id);
        work.scope(at).map_err(|error| super::read::unsettled(kind, id, error))
    }

    /// As [`Replica::scope_of`]; `None` if nothing of the entity is held.
    pub(crate) fn place_of(&self, kind: &str, id: &str) -> Result<Option<String>, StoreError> {
        let mut work = self.placing();
        let at = work.entity(kind, id);
        let mut place = || if work.is_held(at)? { work.scope(at).map(Some) } else { Ok(None) };
        place().map_err(|error| super::read::unsettled(kind, id, error))
    }

    /// Rows to look at, of entities whose scopes are asked for.
    pub(super) fn placing(&self) -> Work<'_, S> {
        let ruled = Ruled { scopes: Some(&self.scopes), ..Ruled::default() };
        Work::with(&self.store, ruled, Scratch::default())
    }

    /// Whether this store follows scopes by name: what it does not hold may be in another one.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Notes, beside what else is committed, that scopes are followed by name.
    pub(super) fn note_partial(&self, records: &mut Vec<RecordWrite>) {
        if !self.is_partial {
            records.push(RecordWrite::put(Table::Identity, PARTIAL_KEY, vec![1]));
        }
    }

    /// From now on what is not held is, or is not, known not to be.
    pub(super) fn set_partial(&mut self, is_partial: bool) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.is_partial, is_partial) != is_partial {
            self.catch_up()?;
            self.catch_up_views()?;
        }
        Ok(())
    }

    /// Everything of the authority was read: no scope is followed by name any more, and what is not held is not there.
    pub(crate) fn note_whole(&mut self, of: StoreId) -> Result<(), StoreError> {
        if !self.is_partial {
            return Ok(());
        }
        let mut records = vec![RecordWrite::remove(Table::Identity, PARTIAL_KEY)];
        records.extend(self.without_cursors_in(of)?);
        commit_records(&mut self.store, records)?;
        self.saws.clear();
        self.set_partial(false)
    }

    /// The scope that a part of a page puts its entity into, if it says so.
    pub(crate) fn scope_named<A: AsRef<[u8]>>(&self, part: &Part<'_, A>) -> Option<String> {
        let address = self.scopes.address(part.kind)?;
        let (_, named) = part.changes.iter().find(|(of, _)| of.as_ref() == address)?;
        named.register().map(scope::named)
    }

    /// The scope that a part of a page puts its entity into, where what is confirmed here has put it elsewhere since.
    pub(crate) fn scope_left<A: AsRef<[u8]>>(
        &self,
        part: &Part<'_, A>,
    ) -> Result<Option<String>, StoreError> {
        let Some(address) = self.scopes.address(part.kind) else { return Ok(None) };
        let named = part.changes.iter().find(|(of, _)| of.as_ref() == address);
        let (Some(named), Some(chunk)) =
            (named.and_then(|(_, change)| change.register()), self.store.load(part.kind, part.id, address)?)
        else {
            return Ok(None);
        };
        let left = || -> Result<bool, Corrupt> {
            let Some(entry) = Row::new(&chunk.bytes, chunk.seq)?.find(address)? else { return Ok(false) };
            let state = entry.state()?;
            let knows =
                |held: &Register<'_>| held.join(named) == *held && scope::named(held) != scope::named(named);
            Ok(state.confirmed().is_some_and(knows))
        };
        let left = left().map_err(|corrupt| damaged(part.kind, part.id, corrupt))?;
        Ok(left.then(|| scope::named(named)))
    }

    /// The digest of a scope.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn digest_of(&self, scope: &str) -> Result<Digest, StoreError> {
        let stop = &mut |_: crate::store::ScopeChange<'_>| std::ops::ControlFlow::Break(());
        Ok(self.store.changes_in(scope, u64::MAX, stop)?.digest)
    }

    /// The digests of the scopes with a name, as the rows have them.
    pub(super) fn recompute_scopes(&self) -> Result<BTreeMap<String, Digest>, StoreError> {
        let mut digests: BTreeMap<String, Digest> = BTreeMap::new();
        for kind in self.store.kinds()?.iter().filter(|kind| self.scopes.address(kind).is_some()) {
            self.each_id(kind, &mut |id| {
                let mut work = self.placing();
                let at = work.entity(kind, id);
                let scope = work.scope(at)?;
                if !scope.is_empty() {
                    let digest = digests.entry(scope).or_default();
                    *digest = digest.plus(work.whole(at)?);
                }
                Ok(())
            })
            .map_err(|error| super::read::unsettled(kind, "", error))?;
        }
        digests.retain(|_, digest| *digest != Digest::default());
        Ok(digests)
    }

    fn each_id(
        &self,
        kind: &str,
        visit: &mut dyn FnMut(&str) -> Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        let mut after: Option<String> = None;
        loop {
            let ids = self.store.ids(kind, after.as_deref(), IDS_AT_ONCE)?;
            ids.iter().try_for_each(|id| visit(id))?;
            match ids.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    /// Takes over which fields name scopes, and files anew what another schema has filed otherwise.
    pub(super) fn catch_up_scopes(&mut self) -> Result<(), StoreError> {
        for _ in 0..STALE_RETRIES_MAX {
            let found = self.store.record(Table::Identity, SCOPES_KEY)?;
            let known = found.as_deref().map_or(Ok(Scopes::default()), Scopes::decode);
            let known = known.map_err(|_| unreadable("the record of scopes"))?;
            let declared = known.declared(&self.schema);
            if declared == known {
                self.scopes = declared;
                return Ok(());
            }
            match self.file_anew(&known, &declared) {
                Ok(()) => {
                    self.scopes = declared;
                    return Ok(());
                }
                Err(CommitError::Stale) => {}
                Err(CommitError::Store(error @ StoreError::Busy(_))) => return Err(error),
                Err(CommitError::Store(error)) => {
                    // It can be read all the same, and is filed as before.
                    tracing::warn!(%error, "entities are not filed by the scopes of this schema");
                    self.scopes = known;
                    return Ok(());
                }
            }
        }
        Err(StoreError::Busy("others keep changing the store".to_owned()))
    }

    fn file_anew(&mut self, known: &Scopes, declared: &Scopes) -> Result<(), CommitError> {
        let since = self.store.head()?.seq;
        let ruled = Ruled { scopes: Some(declared), ..self.ruled()? };
        let mut work = Work::with(&self.store, ruled, Scratch::default());
        for kind in known.differing(declared) {
            self.each_id(kind, &mut |id| {
                let at = work.entity(kind, id);
                work.file_anew(at, known.address(kind))
            })?;
        }
        let finished = work.finish()?;
        let record = RecordWrite::put(Table::Identity, SCOPES_KEY, declared.encode());
        let nothing = Meanwhile::Nothing { since, high_water: None };
        self.commit(finished, vec![record], nothing, Origin::Local).map(drop)
    }

    /// Has the index of the rules made anew by the next program that reads it, where rows go that this one does not
    /// follow.
    pub(super) fn forget_index(&mut self, finished: &Finished, records: &mut Vec<RecordWrite>) {
        if finished.removes() && self.rules().is_none() && self.cover.fingerprint != 0 {
            self.cover = Cover { fingerprint: 0, seq: 0, ..self.cover };
            records.push(self.cover_record(self.cover));
        }
    }
}
