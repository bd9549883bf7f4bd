//! Collection: an authority forgets what is dead for everybody, and devices follow.
//!
//! A collection is a commit like any other: it empties rows, takes them out of the digest, and leaves a mark with the
//! names under its seq. Who reads the authority's changes is told each mark before the page that goes past it. Owns the marks,
//! what may be collected, and which late edits come to nothing.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::{
    Answer, Cut, Delta, Meanwhile, Origin, Pushed, Replica, STALE_RETRIES_MAX, Spot, Verdict, Verdicts,
};
use super::{evict, unreadable};
use crate::address::{ALIAS, LIFE, Parts, class};
use crate::bytes::{Put, Reader};
use crate::clock::{Millis, ticks};
use crate::code::Code;
use crate::id::StoreId;
use crate::identity::{Position, knows};
use crate::row::{Corrupt, Row};
use crate::rules::{COVER_KEY, Cover};
use crate::store::{CommitError, Head, RecordWrite, Store, StoreError, Table};
use crate::value::Value;
use crate::view::{FALSE, TRUE};
use crate::work::{Drop, Ruled, Scratch, Work, damaged};

/// How long a deletion is kept, unless the hub is told otherwise, in ms: 30 days. A backup that is younger brings nothing
/// back.
pub const GRACE_DEFAULT_MS: u64 = 30 * 24 * 3_600_000;

/// How many entities are collected in one commit.
const AT_ONCE: usize = 256;

/// How many rows are looked at in one step.
const ROWS_AT_ONCE: usize = 4096;

/// The key of the record that says how far marks go.
const MARKS_KEY: &[u8] = &[0xff];

/// What begins the key of an entity's mark. Seqs begin with less.
const BY_NAME: u8 = 0xfe;

/// An entity's kind and id.
type Name = (String, String);

/// What a collection did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Collection {
    /// How many entities went.
    pub entities: usize,
    /// How many registers they had.
    pub registers: u64,
    /// Of how many entities that went earlier the last trace was removed.
    pub forgotten: usize,
    /// How far all stores with a lease are.
    pub cut: Cut,
}

/// How far the marks of collections go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// The seq of the newest there ever was; 0 if there was none.
    pub newest: u64,
    /// The seq of the newest that was removed: who has read less has missed something.
    pub floor: u64,
}

impl<S: Store> Replica<S> {
    /// How far the marks of collections go.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn marks(&self) -> Result<Marks, StoreError> {
        let Some(bytes) = self.store.record(Table::Collected, MARKS_KEY)? else {
            return Ok(Marks::default());
        };
        let mut reader = Reader::new(&bytes);
        let mut read = || -> Result<_, crate::bytes::Cut> {
            Ok(Marks { newest: reader.varint()?, floor: reader.varint()? })
        };
        read().map_err(|_| unreadable("how far collections go"))
    }

    /// What a collection at `now` would collect, by kind and id. Nothing changes.
    ///
    /// # Errors
    /// [`CollectError`].
    pub fn collectable(&self, now: Millis, grace_ms: u64) -> Result<Vec<Name>, CollectError> {
        self.check_collects()?;
        let mut sweep = Sweep::new(now, grace_ms);
        let cut = self.stable_cut(now)?.seq;
        while self.look_for_dead(&mut sweep, cut)? {}
        let mut all = Vec::new();
        for name in sweep.dead_and_unnamed() {
            if self.store.together(|| self.is_free(&name, cut))?? {
                all.push(name);
            }
        }
        Ok(all)
    }

    /// Forgets the entities that are dead for everybody: whose deletion every store with a running lease has read, and that
    /// is older than `grace_ms`, in ms. `now` is this machine's clock.
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
            sweep.forgotten = self.forget_marks(cut.seq)?;
            sweep.cut = Some(cut);
            return Ok(None);
        };
        if sweep.queue.is_none() {
            if !self.look_for_dead(sweep, cut.seq)? {
                sweep.queue = Some(sweep.dead_and_unnamed());
            }
            return Ok(None);
        }
        let rest = sweep.queue.as_mut().map(|queue| queue.split_off(queue.len().saturating_sub(AT_ONCE)));
        let rest = rest.unwrap_or_default();
        let Sweep { entities, registers, forgotten, .. } = *sweep;
        if rest.is_empty() {
            return Ok(Some(Collection { entities, registers, forgotten, cut }));
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

    fn check_collects(&self) -> Result<(), CollectError> {
        if !self.identity.is_authority {
            return Err(CollectError::NoAuthority);
        }
        self.unresolved.map_or(Ok(()), |unresolved| Err(CollectError::Rules(unresolved.to_string())))
    }

    /// Looks at the next rows for entities that are dead for long enough, and for those that aliases are about. Says
    /// whether there are more rows.
    fn look_for_dead(&self, sweep: &mut Sweep, cut: u64) -> Result<bool, StoreError> {
        let latest = sweep.now.0.saturating_sub_unsigned(sweep.grace_ms);
        let latest = ticks(u64::try_from(latest).unwrap_or(0));
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
            marked.push(Marked { name: (kind.clone(), id.clone()), scopes });
        }
        let finished = work.finish()?;
        let seq = since + finished.written();
        let mut records = vec![mark(seq, &marked)];
        for (kind, id) in names {
            records.push(RecordWrite::put(Table::Collected, by_name(kind, id), seq.to_be_bytes().to_vec()));
        }
        records.push(Marks { newest: seq, ..self.marks()? }.record());
        let meanwhile = Meanwhile::Nothing { since, high_water: None };
        self.commit(finished, records, meanwhile, Origin::Local)?;
        let registers = before.saturating_sub(self.store.head()?.digest.count);
        tracing::info!(entities = names.len(), registers, seq, "collected what is dead for everybody");
        Ok((names.len(), registers))
    }

    /// Removes the marks up to `cut` and the rows that they have emptied: everybody has been told. Says of how many entities.
    fn forget_marks(&mut self, cut: u64) -> Result<usize, CommitError> {
        let mut forgotten = 0;
        for _ in 0..STALE_RETRIES_MAX {
            self.refresh()?;
            let since = self.store.head()?.seq;
            // Whoever follows the rows has to see them empty first.
            let until = cut.min(self.indexed_until()?);
            let Some((seq, marked)) = self.marks_after(0, until, 1)?.pop() else { return Ok(forgotten) };
            let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
            let mut records = vec![RecordWrite::remove(Table::Collected, seq.to_be_bytes())];
            for Marked { name: (kind, id), .. } in &marked {
                let key = by_name(kind, id);
                // A later collection has a mark of its own.
                if self.store.record(Table::Collected, &key)?.is_some_and(|at| *at == seq.to_be_bytes()) {
                    records.push(RecordWrite::remove(Table::Collected, key));
                }
                let at = work.entity(kind, id);
                work.remove(at, seq)?;
            }
            records.push(Marks { floor: seq, ..self.marks()? }.record());
            let meanwhile = Meanwhile::Nothing { since, high_water: None };
            match self.commit(work.finish()?, records, meanwhile, Origin::Local) {
                Ok(_) => forgotten += marked.len(),
                Err(CommitError::Stale) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(forgotten)
    }

    /// Up to which row the index of the rules follows, if anybody keeps one.
    fn indexed_until(&self) -> Result<u64, StoreError> {
        if self.rules().is_some() {
            return Ok(self.cover.seq);
        }
        let cover = self.store.record(Table::Rule, COVER_KEY)?;
        let cover = cover.map(|bytes| Cover::decode(&bytes)).transpose();
        Ok(cover.map_err(|_| unreadable("how far the index of the rules goes"))?.map_or(u64::MAX, |c| c.seq))
    }

    /// At most `limit` marks after `after` up to `until`, oldest first, with what each is of.
    pub(crate) fn marks_after(
        &self,
        after: u64,
        until: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<Marked>)>, StoreError> {
        let (mut marks, mut failed) = (Vec::new(), false);
        self.store.records(Table::Collected, &after.saturating_add(1).to_be_bytes(), &mut |key, value| {
            let Ok(seq) = <[u8; 8]>::try_from(key).map(u64::from_be_bytes) else {
                return ControlFlow::Break(());
            };
            if seq > until || marks.len() == limit || key.first() == Some(&BY_NAME) {
                return ControlFlow::Break(());
            }
            match Marked::read_all(value) {
                Ok(marked) => marks.push((seq, marked)),
                Err(_) => failed = true,
            }
            ControlFlow::Continue(())
        })?;
        if failed { Err(unreadable("the mark of a collection")) } else { Ok(marks) }
    }

    /// Why an edit comes too late, if it does: it is of an entity that was collected before its author knew.
    pub(super) fn gone<D: Delta>(
        &self,
        marks: Marks,
        head: &Head,
        edit: &Pushed<D>,
        work: &mut Work<'_, S>,
    ) -> Result<Option<Verdict>, CommitError> {
        let had_read = edit.saw.filter(|saw| {
            knows(&head.incarnations, head.seq, Position { incarnation: saw.incarnation, seq: saw.done })
        });
        let had_read = had_read.map_or(0, |saw| saw.done);
        if had_read >= marks.newest {
            return Ok(None);
        }
        let looked = edit.delta.each(|part| {
            let mark =
                self.store.record(Table::Collected, &by_name(part.kind, part.id)).map_err(Late::failed)?;
            let mark = mark.and_then(|seq| Reader::new(&seq).u64().ok()).unwrap_or(0);
            let creates = |(address, change): &(D::Address, crate::row::Change<'_>)| {
                address.as_ref() == LIFE && change.register().is_some_and(|life| life.newest().value == TRUE)
            };
            let is_late = had_read < mark
                || had_read < marks.floor && !part.changes.iter().any(creates) && {
                    let at = work.entity(part.kind, part.id);
                    !work.is_held(at).map_err(Late::Failed)?
                };
            if is_late { Err(Late::Gone(part.kind.to_owned(), part.id.to_owned())) } else { Ok(()) }
        });
        match looked {
            Ok(()) => Ok(None),
            Err(Late::Gone(kind, id)) => Ok(Some(gone(kind, id))),
            Err(Late::Failed(error)) => Err(error),
        }
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
        let mut refused = 0;
        for _ in 0..STALE_RETRIES_MAX {
            // Whoever follows the rows has seen those of the last time empty by now.
            self.forget_marks(u64::MAX)?;
            refused += self.refuse_late(now, names)?;
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

    /// Refuses the pending edits of these entities as the authority would.
    fn refuse_late(&mut self, now: Millis, names: &[Name]) -> Result<usize, CommitError> {
        let names: BTreeSet<(&str, &str)> =
            names.iter().map(|(kind, id)| (kind.as_str(), id.as_str())).collect();
        let (mut edits, mut exceptions) = (Vec::new(), Vec::new());
        self.pending(0, &mut |key, edit| {
            if let Some(late) = edit.entities.iter().find(|one| names.contains(&(one.kind, one.id))) {
                edits.push((key, edit.header.stamp));
                exceptions.push((key, gone(late.kind.to_owned(), late.id.to_owned())));
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

/// An entity under a mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Marked {
    pub(crate) name: Name,
    /// At an authority: the scopes in which somebody may know it.
    pub(crate) scopes: Vec<String>,
}

impl Marked {
    /// Of a store that nobody is told by.
    pub(super) fn of(kind: &str, id: &str) -> Self {
        Self { name: (kind.to_owned(), id.to_owned()), scopes: Vec::new() }
    }

    fn read_all(mark: &[u8]) -> Result<Vec<Self>, crate::bytes::Cut> {
        let (mut reader, mut all) = (Reader::new(mark), Vec::new());
        while !reader.is_empty() {
            let name = (reader.str()?.to_owned(), reader.str()?.to_owned());
            let count = reader.count(1)?;
            let scopes = (0..count).map(|_| Ok(reader.str()?.to_owned())).collect::<Result<_, _>>()?;
            all.push(Self { name, scopes });
        }
        Ok(all)
    }
}

/// The mark of a collection that ended with this seq.
pub(super) fn mark(seq: u64, marked: &[Marked]) -> RecordWrite {
    let mut value = Vec::new();
    for Marked { name: (kind, id), scopes } in marked {
        value.slice(kind.as_bytes());
        value.slice(id.as_bytes());
        value.varint(scopes.len() as u64);
        scopes.iter().for_each(|scope| value.slice(scope.as_bytes()));
    }
    RecordWrite::put(Table::Collected, seq.to_be_bytes(), value)
}

impl Marks {
    fn record(self) -> RecordWrite {
        let mut value = Vec::new();
        value.varint(self.newest);
        value.varint(self.floor);
        RecordWrite::put(Table::Collected, MARKS_KEY, value)
    }
}

/// A collection under way, see [`Replica::sweep`].
#[derive(Clone, Debug)]
pub struct Sweep {
    now: Millis,
    grace_ms: u64,
    cut: Option<Cut>,
    /// Up to which row everything was looked at.
    after: u64,
    dead: BTreeSet<Name>,
    /// What aliases are about.
    named: BTreeSet<Name>,
    /// What is to be collected, the next last.
    queue: Option<Vec<Name>>,
    entities: usize,
    registers: u64,
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
            after: 0,
            dead: BTreeSet::new(),
            named: BTreeSet::new(),
            queue: None,
            entities: 0,
            registers: 0,
            forgotten: 0,
        }
    }

    fn dead_and_unnamed(&mut self) -> Vec<Name> {
        let (dead, named) = (std::mem::take(&mut self.dead), std::mem::take(&mut self.named));
        dead.difference(&named).cloned().collect()
    }
}

/// Why the look at an edit ended early.
enum Late {
    Gone(String, String),
    Failed(CommitError),
}

impl Late {
    fn failed(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// The verdict on an edit of what was collected.
pub(super) fn gone(kind: String, id: String) -> Verdict {
    let message = format!(
        "{kind} `{id}` was deleted, and forgotten by the hub before it heard of this edit: make a new one of what it was \
         to hold"
    );
    Verdict::Refused { code: Code::GONE, message, spot: Some(Spot { kind, id, field: None }) }
}

/// Under which key the seq of an entity's mark is.
fn by_name(kind: &str, id: &str) -> Vec<u8> {
    let mut key = vec![BY_NAME];
    key.extend(evict::key(kind, id));
    key
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
