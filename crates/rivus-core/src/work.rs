//! The rows that one commit reads and writes, staged in memory until it succeeds.
//!
//! Owns the way from packed rows through changes to a batch. A row is loaded at most once and remembered with
//! the seq at which it was read, so that the commit fails as `Stale` if anybody moved it meanwhile.

mod collect;
mod derive;
mod evict;
mod finished;
mod scope;

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::address::ALIAS;
use crate::clock::Stamp;
use crate::conflict::{Conflict, Witness};
use crate::register::{REGISTER_BYTES_MAX, Register};
use crate::row::{self, Change, Corrupt, Digested, Row, Sums};
use crate::rules::{Changes, Dirt, Rules, Watch};
use crate::scope::Scopes;
use crate::store::{CommitError, Place, RecordKey, RecordWrite, Store, StoreError, Table};

pub(crate) use collect::Drop;
pub(crate) use derive::{Derivation, Derived, ViewRow};
pub(crate) use evict::Left;
pub(crate) use finished::Finished;
use finished::{FinishedEntity, FinishedRow};
use scope::{HasMoved, Scoped};

/// One transaction's staged rows.
#[derive(Debug)]
pub(crate) struct Work<'s, S> {
    store: &'s S,
    entities: SmallVec<[Staged<'s>; 1]>,
    /// By hash of (kind, id), once there are too many to look through.
    index: BTreeMap<u64, usize>,
    /// Those whose hash another has: whoever means harm sends thousands of them.
    twins: BTreeMap<(String, String), usize>,
    scratch: Scratch,
    pub(crate) sums: Sums,
    pub(crate) clashes: Vec<Stamp>,
    /// Looks out for writes that get lost; none if nobody does.
    witness: Option<Box<Witness>>,
    pub(crate) losses: Vec<Conflict>,
    rules: Ruled<'s>,
    /// Changes of the rules' index.
    pub(crate) entered: Changes,
    /// Entities, by kind and id, from which the way to a root may be another now.
    pub(crate) repointed: Vec<(String, String)>,
    /// Entities that rules may show otherwise now.
    pub(crate) swayed: BTreeSet<usize>,
    /// For the journal.
    noted: derive::Noted,
    /// Entities that are evicted or fetched here.
    moved: BTreeMap<usize, evict::Moved>,
}

/// The rules that staged rows sway.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ruled<'s> {
    /// The head's seq before anything was read.
    pub(crate) since: u64,
    pub(crate) rules: Option<&'s Rules>,
    /// Whether it matters whose view changes.
    pub(crate) tells: bool,
    /// What is kept beside the rows, if anything is.
    pub(crate) derived: Option<&'s Derived>,
    /// Where scopes stand, if any kind has one.
    pub(crate) scopes: Option<&'s Scopes>,
    /// Whether others have to be told what has left a scope.
    pub(crate) tells_left: bool,
    /// Whether what is not held may be in a scope that is not followed here.
    pub(crate) is_partial: bool,
}

/// Memory that one transaction after the other uses.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) address: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) hashing: Vec<u8>,
    pub(crate) packing: Vec<u8>,
    pub(crate) record: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) struct Staged<'s> {
    names: Names,
    chunks: SmallVec<[StagedChunk<'s>; 1]>,
    shown_changed: bool,
    watch: Option<&'s Watch>,
    /// What has changed since the rules were asked.
    dirt: Dirt,
    /// Where it is, once it is changed, if its kind has scopes.
    scope: Option<Box<Scoped>>,
    /// It is taken out of the store.
    leaves: bool,
}

impl Staged<'_> {
    pub(crate) fn kind(&self) -> &str {
        self.names.kind()
    }

    pub(crate) fn id(&self) -> &str {
        self.names.id()
    }
}

impl<'s> Staged<'s> {
    /// What rules watch of it.
    pub(crate) fn watch(&self) -> Option<&'s Watch> {
        self.watch
    }
}

/// An entity's kind and id, in one piece.
#[derive(Clone, Debug)]
struct Names {
    both: String,
    kind_len: usize,
}

impl Names {
    fn new(kind: &str, id: &str) -> Self {
        let mut both = String::with_capacity(kind.len() + id.len());
        both.push_str(kind);
        both.push_str(id);
        Self { both, kind_len: kind.len() }
    }

    fn kind(&self) -> &str {
        self.both.get(..self.kind_len).unwrap_or_default()
    }

    fn id(&self) -> &str {
        self.both.get(self.kind_len..).unwrap_or_default()
    }
}

#[derive(Clone, Debug)]
struct StagedChunk<'s> {
    start: Cow<'s, [u8]>,
    read_seq: u64,
    place: Place,
    /// Empty while the row does not exist.
    bytes: Cow<'s, [u8]>,
    written: bool,
}

impl StagedChunk<'_> {
    fn row(&self) -> Result<Row<'_>, Corrupt> {
        if self.bytes.is_empty() {
            return Ok(Row::empty());
        }
        Row::new(&self.bytes, if self.written { 0 } else { self.read_seq })
    }
}

/// Which entity of a [`Work`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct At(usize);

impl At {
    pub(crate) fn new(index: usize) -> Self {
        Self(index)
    }

    pub(crate) fn index(self) -> usize {
        self.0
    }
}

const LOOK_THROUGH_MAX: usize = 8;

/// How many times as long as in a row a register counts in a frame, at the most.
const STORED_TIMES: usize = 8;

impl<'s, S: Store> Work<'s, S> {
    /// Rows to look at.
    pub(crate) fn new(store: &'s S) -> Self {
        Self::with(store, Ruled::default(), Scratch::default())
    }

    /// Rows to change, under these rules.
    pub(crate) fn with(store: &'s S, rules: Ruled<'s>, scratch: Scratch) -> Self {
        Self {
            store,
            entities: SmallVec::new(),
            index: BTreeMap::new(),
            twins: BTreeMap::new(),
            scratch,
            sums: Sums::default(),
            clashes: Vec::new(),
            witness: None,
            losses: Vec::new(),
            rules,
            entered: Changes::new(),
            repointed: Vec::new(),
            swayed: BTreeSet::new(),
            noted: derive::Noted::new(),
            moved: BTreeMap::new(),
        }
    }

    /// Looks out for writes that get lost from here on.
    pub(crate) fn look_out(&mut self, witness: Witness) {
        self.witness = witness.looks().then(|| Box::new(witness));
    }

    /// Who looks out for writes that get lost.
    pub(crate) fn witness(&self) -> Option<&Witness> {
        self.witness.as_deref()
    }

    pub(crate) fn store(&self) -> &'s S {
        self.store
    }

    pub(crate) fn rules(&self) -> Option<&'s Rules> {
        self.rules.rules
    }

    /// Whether it matters whose view changes.
    pub(crate) fn tells(&self) -> bool {
        self.rules.tells
    }

    /// Asks the rules about an entity whatever has changed of it.
    pub(crate) fn mark(&mut self, kind: &str, id: &str) {
        let at = self.entity(kind, id);
        self.staged_mut(at).dirt = Dirt { any: true, keys: true, life: true };
    }

    /// What has changed since the rules were asked, by entity.
    pub(crate) fn take_dirt(&mut self) -> BTreeMap<usize, Dirt> {
        let staged = self.entities.iter_mut().enumerate();
        let dirty = staged.map(|(at, staged)| (at, std::mem::take(&mut staged.dirt)));
        dirty.filter(|(_, dirt)| dirt.any).collect()
    }

    pub(crate) fn entity(&mut self, kind: &str, id: &str) -> At {
        let same = |staged: &Staged<'_>| staged.id() == id && staged.kind() == kind;
        if self.entities.len() <= LOOK_THROUGH_MAX {
            if let Some(at) = self.entities.iter().position(same) {
                return At(at);
            }
        } else {
            if self.index.is_empty() {
                for at in 0..self.entities.len() {
                    self.note(At(at));
                }
            }
            match self.index.get(&hash(kind, id)) {
                Some(at) if self.entities.get(*at).is_some_and(same) => return At(*at),
                Some(_) => {
                    if let Some(at) = self.twins.get(&(kind.to_owned(), id.to_owned())) {
                        return At(*at);
                    }
                }
                None => {}
            }
        }
        self.entities.push(Staged {
            names: Names::new(kind, id),
            chunks: SmallVec::new(),
            shown_changed: false,
            watch: self.rules.rules.and_then(|rules| rules.watch(kind)),
            dirt: Dirt::default(),
            scope: None,
            leaves: false,
        });
        let at = At(self.entities.len() - 1);
        if !self.index.is_empty() {
            self.note(at);
        }
        at
    }

    /// Makes an entity known to the index.
    fn note(&mut self, at: At) {
        let Some(staged) = self.entities.get(at.0) else { return };
        let (kind, id) = (staged.kind(), staged.id());
        match self.index.entry(hash(kind, id)) {
            Entry::Vacant(place) => drop(place.insert(at.0)),
            Entry::Occupied(_) => drop(self.twins.insert((kind.to_owned(), id.to_owned()), at.0)),
        }
    }

    pub(crate) fn staged(&self, at: At) -> &Staged<'s> {
        #[expect(clippy::expect_used, reason = "an `At` is made by `entity` and entities are never removed")]
        self.entities.get(at.0).expect("the entity is staged")
    }

    fn staged_mut(&mut self, at: At) -> &mut Staged<'s> {
        #[expect(clippy::expect_used, reason = "an `At` is made by `entity` and entities are never removed")]
        self.entities.get_mut(at.0).expect("the entity is staged")
    }

    /// The index of the staged chunk that the address belongs to, loaded if need be.
    fn chunk(&mut self, at: At, address: &[u8]) -> Result<usize, CommitError> {
        let store = self.store;
        let staged = self.staged_mut(at);
        for (index, chunk) in staged.chunks.iter().enumerate() {
            if *chunk.start <= *address
                && chunk.row().map_err(|c| damaged(staged.kind(), staged.id(), c))?.holds(address)
            {
                return Ok(index);
            }
        }
        let chunk = match store.load(staged.kind(), staged.id(), address)? {
            Some(chunk) => StagedChunk {
                start: chunk.start,
                read_seq: chunk.seq,
                place: chunk.place,
                bytes: chunk.bytes,
                written: false,
            },
            None => StagedChunk {
                start: Cow::Borrowed(&[]),
                read_seq: 0,
                place: Place::default(),
                bytes: Cow::Borrowed(&[]),
                written: false,
            },
        };
        let index = staged.chunks.partition_point(|c| c.start < chunk.start);
        if staged.chunks.get(index).is_some_and(|c| c.start == chunk.start) {
            // Another writer split the row between two loads: what was read is stale.
            return Err(CommitError::Stale);
        }
        staged.chunks.insert(index, chunk);
        Ok(index)
    }

    /// The chunk's row that the address belongs to.
    pub(crate) fn row(&mut self, at: At, address: &[u8]) -> Result<Row<'_>, CommitError> {
        let index = self.chunk(at, address)?;
        let staged = self.staged(at);
        let row = staged.chunks.get(index).map_or(Ok(Row::empty()), StagedChunk::row);
        row.map_err(|c| damaged(staged.kind(), staged.id(), c).into())
    }

    /// The row that the address belongs to, if it is loaded already; else an empty one.
    pub(crate) fn loaded_row(&self, at: At, address: &[u8]) -> Result<Row<'_>, Corrupt> {
        for chunk in &self.staged(at).chunks {
            let row = chunk.row()?;
            if *chunk.start <= *address && row.holds(address) {
                return Ok(row);
            }
        }
        Ok(Row::empty())
    }

    /// A copy of the staging with only this entity in it, as entity 0.
    pub(crate) fn fork(&self, at: At) -> Self {
        let mut copy = Self::with(self.store, self.rules, Scratch::default());
        copy.entered.clone_from(&self.entered);
        copy.entities.push(self.staged(at).clone());
        copy
    }

    /// A copy of the staging, which nobody is told of.
    pub(crate) fn copy(&self) -> Self {
        let rules = Ruled { tells: false, derived: None, ..self.rules };
        let mut copy = Self::with(self.store, rules, Scratch::default());
        copy.entered.clone_from(&self.entered);
        copy.entities.clone_from(&self.entities);
        copy
    }

    /// Makes the rows of an entity those that another staging has of it.
    pub(crate) fn restage(&mut self, other: &Self, at: At) -> At {
        let staged = other.staged(at);
        let here = self.entity(staged.kind(), staged.id());
        let mine = self.staged_mut(here);
        mine.chunks.clone_from(&staged.chunks);
        if mine.watch.is_some() {
            mine.dirt = Dirt { any: true, keys: true, life: true };
        }
        here
    }

    /// All rows of the entity, in order.
    pub(crate) fn rows(&mut self, at: At) -> Result<Vec<Row<'_>>, CommitError> {
        let mut address = Vec::new();
        loop {
            let end = self.row(at, &address)?.end;
            if end.is_empty() {
                break;
            }
            address = end.to_vec();
        }
        let staged = self.staged(at);
        let rows = staged.chunks.iter().map(StagedChunk::row);
        rows.collect::<Result<_, _>>().map_err(|c| damaged(staged.kind(), staged.id(), c).into())
    }

    /// Notes, before its alias may change, that the way to a root may be another from the entity, and from where it leads.
    fn note_repointed(&mut self, at: At) -> Result<(), CommitError> {
        if self.staged(at).watch.is_some_and(Watch::aliases) {
            let (kind, id) = (self.staged(at).kind().to_owned(), self.staged(at).id().to_owned());
            let before = self.alias(&kind, &id)?;
            self.repointed.extend(before.into_iter().chain([id]).map(|id| (kind.clone(), id)));
        }
        Ok(())
    }

    /// Applies changes, ascending by address. Several of one address must lie together.
    pub(crate) fn apply<A: AsRef<[u8]>>(
        &mut self,
        at: At,
        changes: &[(A, Change<'_>)],
    ) -> Result<(), CommitError> {
        if self.staged(at).watch.is_some_and(Watch::aliases)
            && changes.iter().any(|(a, _)| a.as_ref() == ALIAS)
        {
            self.note_repointed(at)?;
        }
        self.note_scope(at)?;
        self.note_named(at, changes);
        self.note_before(at, changes)?;
        let mut rest = changes;
        while let Some((first, _)) = rest.first() {
            let index = self.chunk(at, first.as_ref())?;
            let mut scratch = std::mem::take(&mut self.scratch);
            let witness = self.witness.take();
            let scopes = self.rules.scopes;
            let staged = self.staged_mut(at);
            let Some(chunk) = staged.chunks.get(index) else { break };
            let mut digested = Digested::new(&mut scratch.hashing, staged.kind(), staged.id());
            digested.witness = witness.as_deref();
            digested.watch = staged.watch;
            digested.scope = scopes.and_then(|scopes| scopes.address(staged.kind()));
            let outcome = chunk.row().and_then(|row| {
                let here = rest.iter().take_while(|(address, _)| row.holds(address.as_ref())).count();
                let now = rest.get(..here).unwrap_or_default();
                Ok((row::apply(row, now, &mut scratch.packing, &mut digested)?, here))
            });
            let (sums, clashes) = (digested.sums, std::mem::take(&mut digested.clashes));
            let losses = std::mem::take(&mut digested.losses);
            let (applied, here) = outcome.map_err(|c| damaged(staged.kind(), staged.id(), c))?;
            let now = rest.get(..here).unwrap_or_default();
            // What is merely confirmed shows as it did.
            let shows = applied.shown_changed || !now.iter().all(|(_, c)| matches!(c, Change::Accept(_)));
            if let Some(watch) = staged.watch.filter(|_| shows) {
                if chunk.bytes.is_empty() && chunk.start.is_empty() {
                    staged.dirt = Dirt { any: true, keys: true, life: true };
                }
                let before = chunk.row().unwrap_or(Row::empty());
                let after = match applied.rows.as_slice() {
                    [(_, bytes)] => Row::new(bytes, 0).unwrap_or(Row::empty()),
                    _ => Row::empty(),
                };
                for (address, _) in now {
                    let dirt = watch.dirt(address.as_ref(), before, after);
                    staged.dirt.any |= dirt.any;
                    staged.dirt.keys |= dirt.keys;
                    staged.dirt.life |= dirt.life;
                }
            }
            rest = rest.get(here..).unwrap_or_default();
            staged.shown_changed |= applied.shown_changed;
            if let Some(scope) = &mut staged.scope {
                scope.sums.add(sums);
            }
            for (piece, (start, bytes)) in applied.rows.into_iter().enumerate() {
                if piece == 0 {
                    if let Some(chunk) = staged.chunks.get_mut(index) {
                        chunk.bytes = Cow::Owned(bytes);
                        chunk.written = true;
                    }
                } else {
                    let chunk = StagedChunk {
                        start: Cow::Owned(start),
                        read_seq: 0,
                        place: Place::default(),
                        bytes: Cow::Owned(bytes),
                        written: true,
                    };
                    staged.chunks.insert(index + piece, chunk);
                }
            }
            self.scratch = scratch;
            self.witness = witness;
            self.sums.add(sums);
            self.clashes.extend(clashes);
            if !losses.is_empty() {
                self.note_losses(at, losses);
            }
        }
        Ok(())
    }

    /// How long a register would be in a frame with this change, if that is more than it may be and more than now.
    pub(crate) fn overgrown(
        &mut self,
        at: At,
        address: &[u8],
        register: &Register<'_>,
    ) -> Result<Option<usize>, CommitError> {
        let row = self.row(at, address)?;
        // Hardly ever is there anything to be read.
        if row.len() + register.bytes() <= REGISTER_BYTES_MAX / STORED_TIMES {
            return Ok(None);
        }
        let read = row.find(address).and_then(|entry| entry.as_ref().map(row::Entry::shown).transpose());
        let read = read.map(|held| {
            held.map_or((0, register.bytes()), |held| (held.bytes(), held.join(register).bytes()))
        });
        let staged = self.staged(at);
        let (before, after) = read.map_err(|corrupt| damaged(staged.kind(), staged.id(), corrupt))?;
        Ok((after > REGISTER_BYTES_MAX && after > before).then_some(after))
    }

    /// Ends the staging: what was read and written, and the entities whose view changed.
    ///
    /// # Errors
    /// [`CommitError`] if what rules ask for cannot be read.
    pub(crate) fn finish(mut self) -> Result<Finished, CommitError> {
        self.settle()?;
        self.settle_losses()?;
        self.sway_those_at_hand()?;
        let derivation = self.derive()?;
        let divided = self.settle_scopes()?;
        let index = std::mem::take(&mut self.entered).into_iter();
        let mut finished = Finished {
            index: index
                .map(|(key, value)| RecordWrite { table: Table::Rule, key: RecordKey::Bytes(key), value })
                .collect(),
            swayed: self.swayed,
            derivation,
            since: self.rules.rules.map(|_| self.rules.since),
            rows: SmallVec::new(),
            entities: SmallVec::new(),
            clashes: self.clashes,
            losses: self.losses,
            sums: self.sums,
            moves: divided.moves,
            scopes: divided.sums,
            scratch: self.scratch,
        };
        for staged in self.entities {
            for chunk in staged.chunks {
                finished.rows.push(FinishedRow {
                    entity: finished.entities.len(),
                    start: chunk.start.into_owned(),
                    seq: chunk.read_seq,
                    place: chunk.place,
                    bytes: if chunk.written { Some(chunk.bytes.into_owned()) } else { None },
                });
            }
            finished.entities.push(FinishedEntity {
                names: staged.names,
                shown_changed: staged.shown_changed,
                scope: staged.scope.map(|scope| scope.after),
                leaves: staged.leaves,
            });
        }
        Ok(finished)
    }
}

fn hash(kind: &str, id: &str) -> u64 {
    xxh3_64(id.as_bytes()) ^ xxh3_64(kind.as_bytes()).rotate_left(17)
}

pub(crate) fn damaged(kind: &str, id: &str, corrupt: Corrupt) -> StoreError {
    StoreError::Damaged(format!("{kind} `{id}`: {corrupt}"))
}
