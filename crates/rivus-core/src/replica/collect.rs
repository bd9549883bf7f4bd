//! Collection: an authority forgets what is dead for everybody, and devices follow.
//!
//! A collection is a commit like any other: it empties rows, takes them out of the digest, and leaves a mark with the
//! names under its seq. Who reads the authority's changes is told each mark before the page that goes past it. Owns what may
//! be collected, in which steps, and what a device does about it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::evict;
use super::marks::{Marked, Name, gone, mark, marks_of};
use super::trim::{Quiet, Trimmed};
use super::{Answer, Cut, Meanwhile, Origin, Replica, STALE_RETRIES_MAX, Verdict, Verdicts};
use crate::address::{ALIAS, LIFE, Parts, class};
use crate::clock::{Millis, ticks};
use crate::id::StoreId;
use crate::pending::PendingEntity;
use crate::row::{Corrupt, Row};
use crate::store::{CommitError, RecordWrite, Store, StoreError, Table};
use crate::value::Value;
use crate::view::FALSE;
use crate::work::{Drop, Ruled, Scratch, Work, damaged};

/// How long a deletion is kept, unless the hub is told otherwise, in ms: 30 days. A backup that is younger brings nothing
/// back.
pub const GRACE_DEFAULT_MS: u64 = 30 * 24 * 3_600_000;

/// How many entities are collected in one commit.
const AT_ONCE: usize = 256;

/// How many rows are looked at in one step.
const ROWS_AT_ONCE: usize = 4096;

/// What a collection did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Collection {
    /// How many entities went.
    pub entities: usize,
    /// How many registers they had.
    pub registers: u64,
    /// How many keys that were taken out of sets and maps of entities that live went.
    pub keys: usize,
    /// Of how many other registers what was replaced went, and candidates that showed nothing.
    pub trimmed: usize,
    /// Of how many entities that went earlier the last trace was removed.
    pub forgotten: usize,
    /// How far all stores with a lease are.
    pub cut: Cut,
}

impl<S: Store> Replica<S> {
    /// What a collection at `now` would collect. Nothing changes.
    ///
    /// # Errors
    /// [`CollectError`].
    pub fn collectable(&self, now: Millis, grace_ms: u64) -> Result<Collectable, CollectError> {
        self.check_collects()?;
        let mut sweep = Sweep::new(now, grace_ms);
        let quiet = sweep.quiet(self.stable_cut(now)?.seq);
        while self.look_for_dead(&mut sweep, quiet)? {}
        let mut all = Collectable::default();
        for name in sweep.dead_and_unnamed() {
            if self.store.together(|| self.is_free(&name, quiet.cut))?? {
                all.entities.push(name);
            }
        }
        for (kind, id) in &sweep.worn {
            let Trimmed { keys, registers, .. } = self.trimmable(kind, id, quiet)?;
            (all.keys, all.trimmed) = (all.keys + keys, all.trimmed + registers);
        }
        Ok(all)
    }

    /// Forgets what is dead for everybody: entities whose deletion every store with a running lease has read and that is
    /// older than `grace_ms`, in ms, and, of what lives, keys that were taken out and writes that were replaced so long ago.
    /// `now` is this machine's clock.
    ///
    /// # Errors
    /// [`CollectError`]; what is not collected is by the next call.
    pub fn collect(&mut self, now: Millis, grace_ms: u64) -> Result<Collection, CollectError> {
        let mut sweep = Sweep::new(now, grace_ms);
        loop {
            if let Some(collection) = self.sweep(&mut sweep)? {
                return Ok(collection);
            }
        }
    }

    /// Goes on with a collection for a moment, and says what it did once it is over: others can use the store in between.
    ///
    /// # Errors
    /// [`CollectError`]; what is not collected is by the next collection.
    pub fn sweep(&mut self, sweep: &mut Sweep) -> Result<Option<Collection>, CollectError> {
        self.now = sweep.now;
        self.refresh()?;
        self.check_collects()?;
        let Some(cut) = sweep.cut else {
            self.lease_all(sweep.now)?;
            let cut = self.stable_cut(sweep.now)?;
            sweep.cut = Some(cut);
            return Ok(None);
        };
        if !sweep.told {
            // A store may have come since whose lease had run out.
            let until = cut.seq.min(self.stable_cut(sweep.now)?.seq);
            match self.forget_mark(until)? {
                Some(entities) => sweep.forgotten += entities,
                None => sweep.told = true,
            }
            return Ok(None);
        }
        let quiet = sweep.quiet(cut.seq);
        if sweep.queue.is_none() {
            if !self.look_for_dead(sweep, quiet)? {
                sweep.queue = Some(sweep.dead_and_unnamed());
            }
            return Ok(None);
        }
        let rest = sweep.queue.as_mut().map(|queue| queue.split_off(queue.len().saturating_sub(AT_ONCE)));
        let rest = rest.unwrap_or_default();
        if rest.is_empty() {
            return self.trim(sweep, quiet, cut);
        }
        for _ in 0..STALE_RETRIES_MAX {
            self.refresh()?;
            let chosen = self.store.together(|| {
                let free = rest.iter().map(|name| Ok(self.is_free(name, cut.seq)?.then_some(name)));
                free.filter_map(Result::transpose).collect::<Result<Vec<_>, CommitError>>()
            })?;
            let done = chosen.and_then(|chosen| match chosen.is_empty() {
                true => Ok((0, 0)),
                false => self.collect_these(&chosen, cut.seq),
            });
            match done {
                Ok((entities, registers)) => {
                    sweep.entities += entities;
                    sweep.registers += registers;
                    return Ok(None);
                }
                Err(CommitError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Stale.into())
    }

    /// Goes on with the second half: what is dead in what lives.
    fn trim(
        &mut self,
        sweep: &mut Sweep,
        quiet: Quiet,
        cut: Cut,
    ) -> Result<Option<Collection>, CollectError> {
        let names = sweep.worn_next();
        if names.is_empty() {
            let Sweep { entities, registers, keys, trimmed, forgotten, .. } = *sweep;
            return Ok(Some(Collection { entities, registers, keys, trimmed, forgotten, cut }));
        }
        for _ in 0..STALE_RETRIES_MAX {
            self.refresh()?;
            match self.trim_these(&names, quiet) {
                Ok(done) => {
                    sweep.keys += done.keys;
                    sweep.trimmed += done.registers;
                    for name in names.iter().take(done.entities) {
                        sweep.worn.remove(name);
                    }
                    return Ok(None);
                }
                Err(CommitError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Stale.into())
    }

    fn check_collects(&self) -> Result<(), CollectError> {
        if !self.identity.is_authority {
            return Err(CollectError::NoAuthority);
        }
        self.unresolved.map_or(Ok(()), |unresolved| Err(CollectError::Rules(unresolved.to_string())))
    }

    /// Looks at the next rows for entities that are dead for long enough, those that aliases are about, and those of whose
    /// registers something is. Says whether there are more rows.
    fn look_for_dead(&self, sweep: &mut Sweep, quiet: Quiet) -> Result<bool, StoreError> {
        let Quiet { cut, latest } = quiet;
        let (mut left, mut more, mut failed) = (ROWS_AT_ONCE, false, None);
        self.store.changes(sweep.after, &mut |changed| {
            if left == 0 {
                more = true;
                return ControlFlow::Break(());
            }
            left -= 1;
            sweep.after = changed.seq;
            let mut look = || -> Result<(), Corrupt> {
                let row = Row::new(changed.bytes, changed.seq)?;
                if let Some(alias) = row.find(ALIAS)?
                    && let Ok(Value::Text(to)) = Value::decode(alias.shown()?.newest().value)
                {
                    sweep.named.insert((changed.kind.to_owned(), to));
                    sweep.named.insert((changed.kind.to_owned(), changed.id.to_owned()));
                }
                if let Some(declared) = self.schema.kind(changed.kind)
                    && quiet.wears(declared, row)?
                {
                    sweep.worn.insert((changed.kind.to_owned(), changed.id.to_owned()));
                }
                let Some(life) = row.find(LIFE)?.filter(|_| changed.seq <= cut) else { return Ok(()) };
                let life = life.shown()?;
                if life.alive.iter().all(|c| c.value == FALSE && c.stamp.time <= latest) {
                    sweep.dead.insert((changed.kind.to_owned(), changed.id.to_owned()));
                }
                Ok(())
            };
            match look() {
                Ok(()) => ControlFlow::Continue(()),
                Err(corrupt) => {
                    failed = Some(damaged(changed.kind, changed.id, corrupt));
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(more), Err)
    }

    /// Whether nothing rests on an entity that is dead: neither does it show on account of another, nor would anything else
    /// have to be looked at without it.
    fn is_free(&self, (kind, id): &Name, cut: u64) -> Result<bool, CommitError> {
        let ruled = Ruled { tells: true, derived: None, ..self.ruled()? };
        let mut work = Work::with(&self.store, ruled, Scratch::default());
        let at = work.entity(kind, id);
        if work.newest_seq(at)? > cut || self.claims_unknown(&work.rows(at)?, kind, id)? {
            return Ok(false);
        }
        if let Some(declared) = self.schema.kind(kind)
            && work.view(declared, kind, id)?.is_none_or(|view| !view.deleted)
        {
            return Ok(false);
        }
        if !work.wipe(at, Drop::Confirmed)? {
            return Ok(false);
        }
        work.settle()?;
        Ok(work.swayed.iter().all(|swayed| *swayed == at.index()))
    }

    /// Whether it has a claim of a rule that the schema does not know: what rests on that is not known either.
    fn claims_unknown(&self, rows: &[Row<'_>], kind: &str, id: &str) -> Result<bool, StoreError> {
        for entry in rows.iter().flat_map(Row::entries) {
            let entry = entry.map_err(|corrupt| damaged(kind, id, corrupt))?;
            let claim = Parts::parse(entry.address).filter(|parts| parts.class == class::CLAIM);
            if claim.is_some_and(|claim| !self.schema.rules().has(kind, claim.name)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Empties these and leaves a mark, in one commit, and says how many registers went.
    fn collect_these(&mut self, names: &[&Name], cut: u64) -> Result<(usize, u64), CommitError> {
        let head = self.store.head()?;
        let (since, before) = (head.seq, head.digest.count);
        let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
        let mut marked = Vec::new();
        for (kind, id) in names {
            let at = work.entity(kind, id);
            let mut scopes = self.store.left_by(kind, id)?;
            scopes.push(work.scope(at)?);
            if work.newest_seq(at)? > cut || !work.wipe(at, Drop::Confirmed)? {
                return Err(CommitError::Stale);
            }
            work.note_gone(at);
            marked.push(Marked { scopes, ..Marked::of(kind, id) });
        }
        let finished = work.finish()?;
        let seq = since + finished.written();
        let records = marks_of(seq, &marked, self.marks()?);
        let meanwhile = Meanwhile::Nothing { since, high_water: None };
        self.commit(finished, records, meanwhile, Origin::Local)?;
        let registers = before.saturating_sub(self.store.head()?.digest.count);
        tracing::info!(entities = names.len(), registers, seq, "collected what is dead for everybody");
        Ok((names.len(), registers))
    }

    /// Drops what the authority has collected. Pending edits of it are refused, and listed. Says how many edits were.
    ///
    /// # Errors
    /// [`CommitError`]; the next call with the same names does what is left.
    pub(crate) fn follow_collection(
        &mut self,
        now: Millis,
        authority: StoreId,
        names: &[Name],
    ) -> Result<usize, CommitError> {
        self.now = now;
        let late: BTreeSet<(&str, &str)> =
            names.iter().map(|(kind, id)| (kind.as_str(), id.as_str())).collect();
        let mut refused = 0;
        for _ in 0..STALE_RETRIES_MAX {
            // Whoever follows the rows has seen those of the last time empty by now.
            self.forget_marks(u64::MAX)?;
            refused += self.refuse_late(now, &mut |one| {
                late.contains(&(one.kind, one.id)).then(|| gone(one.kind.to_owned(), one.id.to_owned()))
            })?;
            let since = self.store.head()?.seq;
            let staged = self.store.together(|| {
                let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
                let (mut records, mut held) = (Vec::new(), Vec::new());
                for (kind, id) in names {
                    let at = work.entity(kind, id);
                    if !work.is_held(at)? {
                        continue;
                    }
                    if work.is_evicted(at)? {
                        records.push(RecordWrite::remove(Table::Evicted, evict::key(kind, id)));
                    }
                    if !work.wipe(at, Drop::Confirmed)? {
                        // Somebody has just edited it.
                        return Err(CommitError::Stale);
                    }
                    held.push(Marked::of(kind, id));
                }
                let finished = work.finish()?;
                if !held.is_empty() {
                    records.push(mark(since + finished.written(), &held));
                }
                Ok((finished, records))
            })?;
            let done = staged.and_then(|(finished, records)| {
                let meanwhile = Meanwhile::Nothing { since, high_water: None };
                self.commit(finished, records, meanwhile, Origin::Remote(authority))
            });
            match done {
                Ok(_) => return Ok(refused),
                Err(CommitError::Stale) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CommitError::Stale)
    }

    /// Refuses the pending edits of which an entity is late, as the authority would. Says how many.
    pub(super) fn refuse_late(
        &mut self,
        now: Millis,
        late: &mut dyn FnMut(&PendingEntity<'_>) -> Option<Verdict>,
    ) -> Result<usize, CommitError> {
        let (mut edits, mut exceptions) = (Vec::new(), Vec::new());
        self.pending(0, &mut |key, edit| {
            if let Some(verdict) = edit.entities.iter().find_map(&mut *late) {
                edits.push((key, edit.header.stamp));
                exceptions.push((key, verdict));
            }
            ControlFlow::Continue(())
        })?;
        let refused = edits.len();
        if refused > 0 {
            let verdicts = Verdicts { seq: 0, exceptions };
            self.verdicts(now, &Answer { edits, verdicts, clock: now })?;
        }
        Ok(refused)
    }
}

/// What a collection would do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Collectable {
    /// The entities that would go, by kind and id.
    pub entities: Vec<Name>,
    /// How many keys that were taken out of sets and maps of entities that live would go.
    pub keys: usize,
    /// Of how many other registers something would go.
    pub trimmed: usize,
}

/// A collection under way, see [`Replica::sweep`].
#[derive(Clone, Debug)]
pub struct Sweep {
    now: Millis,
    grace_ms: u64,
    cut: Option<Cut>,
    /// The marks of which everybody was told are removed.
    told: bool,
    /// Up to which row everything was looked at.
    after: u64,
    dead: BTreeSet<Name>,
    /// What aliases are about.
    named: BTreeSet<Name>,
    /// Those of whose registers something is dead.
    worn: BTreeSet<Name>,
    /// What is to be collected, the next last.
    queue: Option<Vec<Name>>,
    entities: usize,
    registers: u64,
    keys: usize,
    trimmed: usize,
    forgotten: usize,
}

impl Sweep {
    /// A collection at `now`, the machine's clock, of what was deleted more than `grace_ms` before.
    #[must_use]
    pub fn new(now: Millis, grace_ms: u64) -> Self {
        Self {
            now,
            grace_ms,
            cut: None,
            told: false,
            after: 0,
            dead: BTreeSet::new(),
            named: BTreeSet::new(),
            worn: BTreeSet::new(),
            queue: None,
            entities: 0,
            registers: 0,
            keys: 0,
            trimmed: 0,
            forgotten: 0,
        }
    }

    /// Up to when nothing may have happened to what goes.
    fn quiet(&self, cut: u64) -> Quiet {
        let latest = self.now.0.saturating_sub_unsigned(self.grace_ms);
        Quiet { cut, latest: ticks(u64::try_from(latest).unwrap_or(0)) }
    }

    /// The next whose registers are looked at.
    fn worn_next(&self) -> Vec<Name> {
        self.worn.iter().take(AT_ONCE).cloned().collect()
    }

    fn dead_and_unnamed(&mut self) -> Vec<Name> {
        let (dead, named) = (std::mem::take(&mut self.dead), std::mem::take(&mut self.named));
        dead.difference(&named).cloned().collect()
    }
}

/// Why nothing was collected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// Who has not everybody's word cannot know that nobody needs it any more.
    #[error(
        "only an authority collects: run it on the database that is served; among peers nothing is ever collected"
    )]
    NoAuthority,
    /// Rules are not evaluated, so what they read is not known.
    #[error("what rules need of the deleted is not known: {0}")]
    Rules(String),
    /// The store failed, or others kept changing it.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<StoreError> for CollectError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}
