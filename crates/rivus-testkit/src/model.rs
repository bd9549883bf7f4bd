//! A reference model that keeps every write and computes views from the definitions.
//!
//! Owns a second, independent reading of `docs/semantics.md`. A replica of the model knows a *set of writes* at each
//! address and nothing else: there is no join, no `seen`, no packed row. What is in the running, what shows, which
//! edit is refused and which stamp it takes are computed anew from these sets each time. It deliberately knows
//! nothing of stores, frames and sessions; how knowledge travels is up to the caller ([`Model::snapshot`],
//! [`Model::deliver`]).
//!
//! Invariant: a write names every write that its author had observed, those included that the author never held
//! itself but that others it held had observed. So "happened before" needs no search for paths, and an edit may
//! travel alone ([`Model::delta`]).
//!
//! What it leaves out: authorities, admission, and the limits on the size of names and edits. Rules have a model of
//! their own, [`rules`].

mod draft;
mod engine;
pub mod rules;
mod show;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rivus_core::clock::{MILLIS_MAX, Millis, Stamp, TIME_END};
use rivus_core::edit::Op;
use rivus_core::id::ReplicaId;
use rivus_core::schema::{FieldType, Kind, Life, Margin, Schema, Slot};
use rivus_core::value::Value;

use draft::Draft;
pub use engine::views;

/// What a replica shows: kind, id and field to what the field shows.
///
/// Deleted entities, kinds with none shown, empty sets and maps, and absent fields are left out.
pub type Views = BTreeMap<String, BTreeMap<String, BTreeMap<String, Shown>>>;

/// What one field shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shown {
    /// One value.
    Value(Value),
    /// All concurrent values of a multi field, oldest first.
    Many(Vec<Value>),
    /// The keys of a set.
    Set(BTreeSet<String>),
    /// The entries of a map.
    Map(BTreeMap<String, Value>),
    /// The sum of a counter.
    Count(i128),
}

/// What became of an edit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It does not fit; nothing has changed and no stamp was used. In words, why.
    Refused(String),
    /// Everything showed that already: nothing written, no stamp used.
    Nothing,
    /// It is written.
    Committed {
        /// The edit's stamp.
        stamp: Stamp,
    },
}

/// What a replica knew at some moment; see [`Model::snapshot`].
///
/// It belongs to the model that made it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Known {
    entities: BTreeMap<Entity, Arc<Writes>>,
}

/// Replicas, and every write that any of them ever made.
///
/// ```
/// # use std::sync::Arc;
/// # use rivus_core::{clock::Millis, edit::{Action, Op}, id::ReplicaId, schema::Schema};
/// # use rivus_testkit::model::{Model, Shown};
/// let mut model = Model::new(Arc::new(Schema::open()));
/// let one = model.add(ReplicaId::from_u128(1), 0);
/// let two = model.add(ReplicaId::from_u128(2), 0);
/// model.edit(one, Millis(1000), &[Op::new("task", "t", Action::Put(vec![("title".into(), "x".into())]))]);
/// let known = model.snapshot(one);
/// model.deliver(two, &known);
/// assert_eq!(model.view(two)["task"]["t"]["title"], Shown::Value("x".into()));
/// ```
#[derive(Clone, Debug)]
pub struct Model {
    schema: Arc<Schema>,
    writes: Vec<Write>,
    members: Vec<Member>,
}

impl Model {
    /// A model without replicas; those added later read and write by `schema`.
    #[must_use]
    pub fn new(schema: Arc<Schema>) -> Self {
        Self { schema, writes: Vec::new(), members: Vec::new() }
    }

    /// Adds a replica that knows nothing; `rank` is that of its edits. Returns its number, from 0.
    pub fn add(&mut self, id: ReplicaId, rank: u8) -> usize {
        let schema = Arc::clone(&self.schema);
        self.add_with_schema(id, rank, schema)
    }

    /// Adds a replica that reads and writes by a schema of its own: an older or newer version.
    pub fn add_with_schema(&mut self, id: ReplicaId, rank: u8, schema: Arc<Schema>) -> usize {
        self.members.push(Member { id, rank, schema, high_water: 0, known: Known::default() });
        self.members.len() - 1
    }

    /// One edit of a replica: all of the operations under one stamp, or none. `now` is the reading of its clock.
    ///
    /// # Panics
    /// If no replica has this number.
    pub fn edit(&mut self, replica: usize, now: Millis, ops: &[Op]) -> Outcome {
        let written = Draft::judge(self, self.member(replica), ops)
            .and_then(|draft| if draft.is_empty() { Ok(None) } else { self.commit(replica, now, draft) });
        match written {
            Ok(None) => Outcome::Nothing,
            Ok(Some(stamp)) => Outcome::Committed { stamp },
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    /// All that a replica knows, as it is now.
    ///
    /// # Panics
    /// If no replica has this number.
    #[must_use]
    pub fn snapshot(&self, replica: usize) -> Known {
        self.member(replica).known.clone()
    }

    /// What one edit wrote, without anything that its author knew: the edit as it travels alone.
    #[must_use]
    pub fn delta(&self, stamp: Stamp) -> Known {
        let mut known = Known::default();
        for (number, write) in self.writes.iter().enumerate().filter(|(_, write)| write.stamp == stamp) {
            known.insert(write.entity.clone(), write.address.clone(), number);
        }
        known
    }

    /// Lets a replica know what another knew.
    ///
    /// # Panics
    /// If no replica has this number.
    pub fn deliver(&mut self, to: usize, known: &Known) {
        self.deliver_where(to, known, |_| true);
    }

    /// As [`Model::deliver`], of these entities (kind and id) alone.
    ///
    /// # Panics
    /// If no replica has this number.
    pub fn deliver_entities(&mut self, to: usize, known: &Known, entities: &BTreeSet<Entity>) {
        self.deliver_where(to, known, |entity| entities.contains(entity));
    }

    /// What a replica shows.
    ///
    /// # Panics
    /// If no replica has this number.
    #[must_use]
    pub fn view(&self, replica: usize) -> Views {
        show::views(self, self.member(replica))
    }

    fn deliver_where(&mut self, to: usize, known: &Known, wanted: impl Fn(&Entity) -> bool) {
        let delivered = || known.entities.iter().filter(|(entity, _)| wanted(entity));
        // The clock follows the stamps that come along: those still in the running at the sender. The others
        // are not sent.
        let sent = delivered().flat_map(|(_, writes)| writes.values()).flat_map(|at| self.alive(at));
        let newest = sent.map(|write| write.stamp.time).max().unwrap_or(0);
        let member = self.member_mut(to);
        member.high_water = member.high_water.max(newest);
        for (entity, writes) in delivered() {
            let mine = Arc::make_mut(member.known.entities.entry(entity.clone()).or_default());
            for (address, writes) in &**writes {
                mine.entry(address.clone()).or_default().extend(writes);
            }
        }
    }

    /// Stamps and writes a judged edit.
    fn commit(&mut self, replica: usize, now: Millis, draft: Draft) -> Result<Option<Stamp>, String> {
        let Member { id, rank, high_water, ref schema, ref known } = *self.member(replica);
        let schema = Arc::clone(schema);
        let time = ticks(now.0.clamp(0, MILLIS_MAX)).max(high_water + 1);
        if time >= TIME_END {
            return Err("the clock has used up all times".to_owned());
        }
        let touched = draft.iter().flat_map(|(entity, address, _)| known.at(entity, address));
        let newest =
            touched.filter_map(|n| self.writes.get(n)).map(|w| (w.stamp.generation, w.stamp.time)).max();
        let (generation, held) = newest.unwrap_or((0, 0));
        let generation = if held >= time { generation.checked_add(1) } else { Some(generation) };
        let generation = generation.ok_or("the register has used up all generations")?;
        let stamp = Stamp { generation, time, replica: id };
        for (entity, address, content) in draft.into_writes() {
            let known: BTreeSet<usize> = self.member(replica).known.at(&entity, &address).collect();
            let margin = schema.kind(&entity.0).map_or(Margin::ZERO, |kind| margin(kind, &address));
            let floor = own_floor(stamp, margin).max(self.floor(&known));
            let observed = &known | &self.observed(&known);
            let number = self.writes.len();
            self.member_mut(replica).known.insert(entity.clone(), address.clone(), number);
            self.writes.push(Write { entity, address, stamp, rank, content, floor, observed });
        }
        self.member_mut(replica).high_water = time;
        Ok(Some(stamp))
    }

    /// The writes among `known`, all of one address, that are in the running, ascending by stamp: those that no
    /// author of another had observed and that no author's floor is above.
    fn alive(&self, known: &BTreeSet<usize>) -> Vec<&Write> {
        let floor = self.floor(known);
        let alive = known - &self.observed(known);
        let mut alive: Vec<_> = self.each(&alive).filter(|write| write.stamp >= floor).collect();
        alive.sort_by_key(|write| write.stamp);
        alive
    }

    /// The greatest floor that the author of one of these writes stamped.
    fn floor(&self, known: &BTreeSet<usize>) -> Stamp {
        self.each(known).map(|write| write.floor).max().unwrap_or(Stamp::LOWEST)
    }

    /// What the authors of these writes had observed.
    fn observed(&self, known: &BTreeSet<usize>) -> BTreeSet<usize> {
        self.each(known).flat_map(|write| &write.observed).copied().collect()
    }

    fn each<'m>(&'m self, numbers: &BTreeSet<usize>) -> impl Iterator<Item = &'m Write> {
        numbers.iter().filter_map(|n| self.writes.get(*n))
    }

    #[expect(clippy::expect_used, reason = "a number that `add` did not return is a bug of the caller")]
    fn member(&self, replica: usize) -> &Member {
        self.members.get(replica).expect("the replica is one of this model")
    }

    #[expect(clippy::expect_used, reason = "a number that `add` did not return is a bug of the caller")]
    fn member_mut(&mut self, replica: usize) -> &mut Member {
        self.members.get_mut(replica).expect("the replica is one of this model")
    }
}

impl Known {
    fn insert(&mut self, entity: Entity, address: Address, number: usize) {
        let writes = Arc::make_mut(self.entities.entry(entity).or_default());
        writes.entry(address).or_default().insert(number);
    }

    /// The numbers of the writes known at an address.
    fn at<'k>(&'k self, entity: &Entity, address: &Address) -> impl Iterator<Item = usize> + use<'k> {
        self.entities.get(entity).and_then(|writes| writes.get(address)).into_iter().flatten().copied()
    }
}

/// Kind and id.
type Entity = (String, String);

/// By address, the numbers of the writes known there.
type Writes = BTreeMap<Address, BTreeSet<usize>>;

/// Where in an entity a write is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Address {
    Life,
    Field(String),
    Group(String),
    Key(String, String),
    Count(String, ReplicaId),
}

#[derive(Clone, Debug)]
struct Member {
    id: ReplicaId,
    rank: u8,
    schema: Arc<Schema>,
    /// The greatest time that its stamps used or that it was sent.
    high_water: u64,
    known: Known,
}

/// One write at one address, for ever.
#[derive(Clone, Debug)]
struct Write {
    entity: Entity,
    address: Address,
    stamp: Stamp,
    rank: u8,
    content: Content,
    /// What its author declared out of the running.
    floor: Stamp,
    /// All writes that its author, or the author of one that it knew, knew at the address.
    observed: BTreeSet<usize>,
}

/// What is written. Life is true or false.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Content {
    Value(Value),
    /// The key is taken out of its map.
    Absent,
}

/// `floor(ms * 2^32 / 1000)`.
fn ticks(ms: i64) -> u64 {
    u64::try_from((i128::from(ms) << 32) / 1000).unwrap_or(0)
}

/// The floor of a write, as far as it depends on the margin.
fn own_floor(stamp: Stamp, margin: Margin) -> Stamp {
    match margin {
        Margin::Ms(0) => stamp,
        Margin::Ms(ms) => {
            let oldest = i128::from(stamp.time) - (i128::from(ms) << 32) / 1000 + 1;
            let time = u64::try_from(oldest.max(0)).unwrap_or(0);
            Stamp { generation: stamp.generation, time, replica: ReplicaId::default() }
        }
        Margin::Infinite => Stamp::LOWEST,
    }
}

/// How far back a write at the address keeps concurrent ones in the running.
fn margin(kind: &Kind, address: &Address) -> Margin {
    match address {
        Address::Life if kind.life == Life::Newest => Margin::ZERO,
        Address::Life => Margin::Infinite,
        Address::Group(_) | Address::Count(..) => Margin::ZERO,
        Address::Field(name) | Address::Key(name, _) => match kind.slot(name) {
            Slot::Field(field) => match &field.ty {
                FieldType::Value { margin, .. } => *margin,
                FieldType::Map | FieldType::Counter => Margin::ZERO,
                _ => Margin::Infinite,
            },
            _ => Margin::ZERO,
        },
    }
}
