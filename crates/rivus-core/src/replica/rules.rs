//! The rules of a replica: the index that they read, whether they can be evaluated, and what they show.

use std::ops::ControlFlow;

use super::projection::marked_anew;
use super::read::unsettled;
use super::{Event, Replica, STALE_RETRIES_MAX};
use crate::rules::{COVER_KEY, Cover, Overlay, Rules};
use crate::schema::Schema;
use crate::scope::Scopes;
use crate::store::{Batch, CommitError, RecordRead, RecordWrite, Store, StoreError, Table};
use crate::work::{Derived, Finished, Ruled, Scratch, Work};

/// Why rules are not evaluated: views show what registers hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unresolved {
    /// Somebody has a later version of the rules.
    Epoch {
        /// This schema's.
        ours: u32,
        /// The latest that was told of.
        known: u32,
    },
    /// The index that the rules read cannot be brought up to date.
    Index,
}

impl std::fmt::Display for Unresolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Epoch { ours, known } => {
                write!(f, "the rules are at version {known} and this program knows {ours}: update it")
            }
            Self::Index => f.write_str("the store cannot be written, and others have changed it"),
        }
    }
}

/// How far above its own version of the rules a store believes a peer's. Whoever comes to know of a later version
/// evaluates no rules until it is updated, so nobody may name one that no update reaches. Dates written as numbers lie
/// within.
pub const EPOCH_AHEAD_MAX: u32 = 100_000_000;

/// How far above its own version a store tells others of one: less than they believe, even if their own is older.
const EPOCH_TOLD_MAX: u32 = EPOCH_AHEAD_MAX / 2;

/// How many rows are looked at for one commit of the index.
const ROWS_AT_ONCE: usize = 10_000;

impl<S: Store> Replica<S> {
    /// Why views show registers without rules; `None` if rules are evaluated, or the schema has none.
    #[must_use]
    pub fn unresolved(&self) -> Option<Unresolved> {
        self.unresolved
    }

    /// The rules, if they are evaluated.
    pub(super) fn rules(&self) -> Option<&Rules> {
        evaluated(&self.schema, self.unresolved)
    }

    /// The rules for a commit that is being made, what is kept beside the rows, and where scopes stand.
    pub(super) fn ruled(&self) -> Result<Ruled<'_>, StoreError> {
        ruled(&self.store, self.rules(), self.watching, &self.derived, self.placed())
    }

    pub(super) fn placed(&self) -> Placed<'_> {
        let (tells_left, is_partial) = (self.identity.is_authority, self.is_partial);
        Placed { scopes: &self.scopes, tells_left, is_partial }
    }

    /// The rules for reading.
    pub(super) fn reading(&self) -> Work<'_, S> {
        let ruled = Ruled { rules: self.rules(), is_partial: self.is_partial, ..Ruled::default() };
        Work::with(&self.store, ruled, Scratch::default())
    }

    /// The version of the rules that this store has heard of.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.cover.epoch.max(self.schema.epoch())
    }

    /// The version of the rules that this store tells others.
    pub(crate) fn epoch_told(&self) -> u32 {
        self.epoch().min(self.schema.epoch().saturating_add(EPOCH_TOLD_MAX))
    }

    /// Whether a peer may name this version of the rules.
    pub(crate) fn believes_epoch(&self, epoch: u32) -> bool {
        epoch <= self.schema.epoch().saturating_add(EPOCH_AHEAD_MAX)
    }

    /// Notes a version of the rules that somebody told of, whatever it is: one that is believed.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub fn hear_epoch(&mut self, epoch: u32) -> Result<(), StoreError> {
        if epoch <= self.epoch() {
            return Ok(());
        }
        self.cover.epoch = epoch;
        let record = self.cover_record(self.cover);
        super::commit_records(&mut self.store, vec![record])?;
        self.check_epoch();
        // What shows has changed.
        self.catch_up_views()
    }

    fn set_unresolved(&mut self, unresolved: Option<Unresolved>) {
        if self.unresolved != unresolved {
            self.unresolved = unresolved;
            if self.watching {
                self.events.push(Event::Rules { unresolved });
            }
        }
    }

    fn check_epoch(&mut self) {
        let (ours, known) = (self.schema.epoch(), self.cover.epoch);
        let is_old = known > ours && !self.schema.rules().is_empty();
        self.set_unresolved(is_old.then_some(Unresolved::Epoch { ours, known }));
    }

    pub(super) fn cover_record(&self, cover: Cover) -> RecordWrite {
        RecordWrite::put(Table::Rule, COVER_KEY, cover.encode())
    }

    /// Follows what other programs have written, and what was written before there were these rules.
    pub(super) fn catch_up(&mut self) -> Result<(), StoreError> {
        let known = self.cover;
        let found = self.store.record(Table::Rule, COVER_KEY)?;
        self.cover = match &found {
            Some(bytes) => {
                Cover::decode(bytes).map_err(|_| super::unreadable("the state of the rules' index"))?
            }
            None => Cover::default(),
        };
        let schema = self.schema.clone();
        let rules = schema.rules();
        if self.cover.fingerprint == known.fingerprint && known.fingerprint != 0 {
            self.cover.seq = self.cover.seq.max(known.seq);
        }
        self.check_epoch();
        if rules.is_empty() || self.unresolved.is_some() {
            return Ok(());
        }
        match self.catch_up_now(found) {
            Ok(()) => Ok(()),
            Err(CommitError::Stale) => Err(StoreError::Busy("others keep changing the store".to_owned())),
            // It passes, and an edit that is made without rules stays.
            Err(CommitError::Store(error @ StoreError::Busy(_))) => Err(error),
            // It can be read all the same.
            Err(CommitError::Store(_)) => {
                self.set_unresolved(Some(Unresolved::Index));
                Ok(())
            }
        }
    }

    fn catch_up_now(&mut self, mut found: Option<Vec<u8>>) -> Result<(), CommitError> {
        // What shows of references depends on whether what is not held may be elsewhere, and with it other rules' index.
        let fingerprint = self.schema.rules().fingerprint() ^ u128::from(self.is_partial);
        for _ in 0..STALE_RETRIES_MAX {
            let head = self.store.head()?.seq;
            let is_new = self.cover.fingerprint != fingerprint;
            if is_new {
                self.cover.seq = 0;
            } else if self.cover.seq >= head {
                return Ok(());
            }
            // If the index is made anew the tables of views are, too.
            let tells = !is_new && self.is_projected()?;
            let (finished, seq) = self.index_rows(head, is_new, tells)?;
            let cover = Cover { fingerprint, seq, epoch: self.cover.epoch.max(self.schema.epoch()) };
            let marks =
                tells.then(|| finished.swayed().map(marked_anew)).into_iter().flatten().collect::<Vec<_>>();
            let mut records = finished.index;
            records.extend(marks);
            records.push(self.cover_record(cover));
            let unchanged =
                vec![RecordRead { table: Table::Rule, key: COVER_KEY.to_vec(), value: found.clone() }];
            let batch = Batch {
                head: Some(head),
                unchanged: unchanged.into(),
                records: records.into(),
                ..Batch::default()
            };
            match self.store.commit(batch) {
                Ok(_) => {
                    self.cover = cover;
                    found = Some(cover.encode());
                }
                Err(CommitError::Stale) => {
                    found = self.store.record(Table::Rule, COVER_KEY)?;
                    let stored = found.as_deref().map(Cover::decode);
                    self.cover = stored.and_then(Result::ok).unwrap_or_default();
                }
                Err(error) => return Err(error),
            }
        }
        Err(CommitError::Stale)
    }

    /// What the next rows behind the index's cover change in it, and up to which row that is.
    fn index_rows(&self, head: u64, is_new: bool, tells: bool) -> Result<(Finished, u64), CommitError> {
        let rules = self.schema.rules();
        let is_partial = self.is_partial;
        let ruled = Ruled { rules: Some(rules), tells, since: head, is_partial, ..Ruled::default() };
        let mut work = Work::with(&self.store, ruled, Scratch::default());
        if is_new {
            // What is removed first is not there for those that are entered anew.
            self.store.records(Table::Rule, &[], &mut |key, _| {
                work.entered.insert(key.to_vec(), None);
                ControlFlow::Continue(())
            })?;
        }
        let (mut left, mut seq) = (ROWS_AT_ONCE, self.cover.seq);
        let mut rows = Vec::new();
        self.store.changes(self.cover.seq, &mut |changed| {
            if rules.watch(changed.kind).is_some() {
                if left == 0 {
                    return ControlFlow::Break(());
                }
                left -= 1;
                rows.push((changed.kind.to_owned(), changed.id.to_owned()));
            }
            seq = changed.seq;
            ControlFlow::Continue(())
        })?;
        rows.iter().for_each(|(kind, id)| work.mark(kind, id));
        Ok((work.finish()?, if left > 0 { head } else { seq }))
    }

    /// Writes what rules show: what they are there to do without.
    #[cfg(feature = "canary")]
    pub(super) fn emit_repairs(&mut self, now: crate::clock::Millis) {
        let mut repairs = Vec::new();
        let _ = self.each_overlay(&mut |overlay| {
            let Overlay { kind, id, field, shown, .. } = overlay;
            let put = field.map(|field| crate::edit::Action::Put(vec![(field, shown)]));
            repairs.extend(put.map(|put| crate::edit::Op::new(kind, id, put)));
            ControlFlow::Continue(())
        });
        for repair in repairs {
            let _ = self.edit(now, &[repair]);
        }
    }

    /// What rules show of an entity in place of what its registers hold.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn overlays(&self, kind: &str, id: &str) -> Result<Vec<Overlay>, StoreError> {
        let Some(rules) = self.rules() else { return Ok(Vec::new()) };
        if self.is_evicted(kind, id)? {
            return Ok(Vec::new());
        }
        let shown = self.store.together(|| self.reading().shown(rules, kind, id, usize::MAX))?;
        let (facts, laid) = shown.map_err(|error| unsettled(kind, id, error))?;
        // What does not show shows no field otherwise.
        let told = laid.iter().filter(|laid| laid.field.is_none() || !facts.deleted);
        let mut told: Vec<_> = told.map(|laid| laid.told(rules, kind, id)).collect();
        told.sort_by(|a, b| a.field.cmp(&b.field));
        Ok(told)
    }

    /// Visits every overlay of every entity, by kind, id and field, until the visitor breaks off.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn each_overlay(&self, visit: &mut dyn FnMut(Overlay) -> ControlFlow<()>) -> Result<(), StoreError> {
        let Some(rules) = self.rules() else { return Ok(()) };
        for kind in self.store.kinds()? {
            if !rules.watch(&kind).is_some_and(crate::rules::Watch::lays) {
                continue;
            }
            let candidates = self.reading().candidates(rules, &kind)?;
            let mut after: Option<String> = None;
            loop {
                let ids = match &candidates {
                    Some(ids) => ids.iter().cloned().collect(),
                    None => self.store.ids(&kind, after.as_deref(), ROWS_AT_ONCE)?,
                };
                for id in &ids {
                    if self.overlays(&kind, id)?.into_iter().try_for_each(&mut *visit).is_break() {
                        return Ok(());
                    }
                }
                match ids.into_iter().next_back() {
                    Some(last) if candidates.is_none() => after = Some(last),
                    _ => break,
                }
            }
        }
        Ok(())
    }
}

/// The rules for a commit that is being made, what is kept beside the rows, and where scopes stand.
pub(super) fn ruled<'s, S: Store>(
    store: &S,
    rules: Option<&'s Rules>,
    tells: bool,
    derived: &'s Derived,
    Placed { scopes, tells_left, is_partial }: Placed<'s>,
) -> Result<Ruled<'s>, StoreError> {
    let derived = Some(derived).filter(|derived| !derived.is_empty());
    let scopes = Some(scopes).filter(|scopes| !scopes.is_empty());
    let tells_left = tells_left && scopes.is_some();
    if rules.is_none() && derived.is_none() {
        return Ok(Ruled { scopes, tells_left, is_partial, ..Ruled::default() });
    }
    let tells = tells || derived.is_some_and(Derived::projects);
    Ok(Ruled { rules, tells, since: store.head()?.seq, derived, scopes, tells_left, is_partial })
}

/// Where entities are, and what is known of those that are not held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed<'s> {
    pub(super) scopes: &'s Scopes,
    pub(super) tells_left: bool,
    pub(super) is_partial: bool,
}

/// The rules of a schema, if they are evaluated.
pub(super) fn evaluated(schema: &Schema, unresolved: Option<Unresolved>) -> Option<&Rules> {
    Some(schema.rules()).filter(|rules| !rules.is_empty() && unresolved.is_none())
}
