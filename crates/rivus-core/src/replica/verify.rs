//! Whether what is kept beside the rows is what the rows say, and making it so again.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{Replica, STALE_RETRIES_MAX};
use crate::projection::{COVERS_KEY, MARKS};
use crate::row::Sums;
use crate::rules::{COVER_KEY, Changes, Cover};
use crate::store::{Batch, CommitError, Digest, RecordWrite, Store, StoreError, Table};
use crate::work::{Ruled, Scratch, Work};

/// What was found by reading every row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verification {
    /// The digest that is kept: what is compared with other stores.
    pub kept: Digest,
    /// The digest of the rows as they are.
    pub made: Digest,
    /// The scopes whose digest is another than that of their rows, sorted.
    pub scopes: Vec<String>,
    /// How many entries of the rules' index are missing, wrong or too many. 0 without rules.
    pub index: usize,
}

impl Verification {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.kept == self.made && self.scopes.is_empty() && self.index == 0
    }
}

/// How many entities are looked at before their memory is used again.
const ENTITIES_AT_ONCE: usize = 10_000;

impl<S: Store> Replica<S> {
    /// Reads every row, and compares the digest and the index of the rules with what these rows make.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read; `Damaged` names the row that is unreadable.
    pub fn verify(&self) -> Result<Verification, StoreError> {
        Ok(self.examine()?.0)
    }

    /// What is wrong, and what is to be added to the digests of scopes so that they are those of their rows.
    fn examine(&self) -> Result<(Verification, BTreeMap<String, Sums>), StoreError> {
        self.store.together(|| {
            let (kept, wrong) = (self.store.head()?.digest, self.wrong_scopes()?);
            let scopes = wrong.keys().cloned().collect();
            let (made, index) = (self.recompute_digest()?, self.wrong_entries()?);
            Ok((Verification { kept, made, scopes, index }, wrong))
        })?
    }

    /// Makes the digest and the index of the rules anew from the rows, and forgets what was read of others: the next
    /// sync with each compares everything, and fetches what is missing here. No edit is touched.
    ///
    /// # Errors
    /// [`StoreError`]. What was not made anew is by the next call.
    pub fn repair(&mut self) -> Result<Verification, StoreError> {
        for _ in 0..STALE_RETRIES_MAX {
            self.refresh()?;
            let (found, wrong) = self.examine()?;
            let head = self.store.head()?.seq;
            let sums = found.made.from(found.kept);
            let scopes: Vec<_> = wrong.iter().map(|(scope, sums)| (scope.as_str(), *sums)).collect();
            let mut records = Vec::new();
            self.store.records(Table::Cursor, &[], &mut |key, _| {
                records.push(RecordWrite::remove(Table::Cursor, key));
                ControlFlow::Continue(())
            })?;
            records.extend(self.note_read()?);
            if found.index > 0 {
                // Made anew by the opening that finds none.
                records.push(RecordWrite::put(Table::Rule, COVER_KEY, Cover::default().encode()));
            }
            let (records, scopes) = (records.into(), scopes.into());
            let batch = Batch { head: Some(head), sums, scopes, records, ..Batch::default() };
            match self.store.commit(batch) {
                Ok(_) => {}
                Err(CommitError::Stale) => continue,
                Err(CommitError::Store(error)) => return Err(error),
            }
            if self.identity.authority.is_some() {
                // It takes what was confirmed here before everything of it is read.
                self.update_authority(|authority| authority.met = false)?;
            }
            self.saw = None;
            self.saws.clear();
            if found.index > 0 {
                self.cover = Cover::default();
                self.catch_up()?;
            }
            return Ok(found);
        }
        Err(StoreError::Busy("others keep changing the store: stop them, and repair again".to_owned()))
    }

    /// What is to be added to the digests of scopes so that they are those of their rows.
    fn wrong_scopes(&self) -> Result<BTreeMap<String, Sums>, StoreError> {
        let kept: BTreeMap<_, _> = self.store.scopes()?.into_iter().collect();
        let made = self.recompute_scopes()?;
        let names = kept.keys().chain(made.keys());
        let digest = |of: &BTreeMap<String, Digest>, name| of.get(name).copied().unwrap_or_default();
        let sums = names.map(|name| (name.clone(), digest(&made, name).from(digest(&kept, name))));
        Ok(sums.filter(|(_, sums)| *sums != Sums::default()).collect())
    }

    /// How many records of the index differ from those of an index made anew.
    fn wrong_entries(&self) -> Result<usize, StoreError> {
        let Some(rules) = self.rules() else { return Ok(0) };
        if self.cover.seq < self.store.head()?.seq {
            // Others have written; what follows them has not run yet.
            return Ok(0);
        }
        let mut made = Changes::new();
        self.store.records(Table::Rule, &[], &mut |key, _| {
            made.insert(key.to_vec(), None);
            ControlFlow::Continue(())
        })?;
        made.retain(|key, _| key != COVER_KEY && key != COVERS_KEY && !key.starts_with(MARKS));
        let (mut at, mut more) = (0, true);
        while more {
            more = false;
            let ruled = Ruled {
                rules: Some(rules),
                since: self.store.head()?.seq,
                is_partial: self.is_partial,
                ..Ruled::default()
            };
            let mut work = Work::with(&self.store, ruled, Scratch::default());
            let (mut left, mut rows) = (ENTITIES_AT_ONCE, Vec::new());
            self.store.changes(at, &mut |changed| {
                if left == 0 {
                    more = true;
                    return ControlFlow::Break(());
                }
                left -= 1;
                at = changed.seq;
                if rules.watch(changed.kind).is_some() {
                    rows.push((changed.kind.to_owned(), changed.id.to_owned()));
                }
                ControlFlow::Continue(())
            })?;
            work.entered = made;
            rows.iter().for_each(|(kind, id)| work.mark(kind, id));
            work.settle().map_err(|error| super::read::unsettled("the index of", "rules", error))?;
            made = std::mem::take(&mut work.entered);
        }
        let mut wrong = 0;
        for (key, value) in &made {
            wrong += usize::from(self.store.record(Table::Rule, key)? != *value);
        }
        Ok(wrong)
    }
}
