//! A data type over registers, as the engine has it, with the register as a part that can be exchanged.
//!
//! Owns which operation writes which register; the mistakes in [`merges`](super::merges) exchange the register or
//! leave something out. [`Engine`] is the production register, [`Floor`] the same written once more in the plainest
//! way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use rivus_core::clock::{Instant, Stamp, ticks};
use rivus_core::edit::{Action, Op};
use rivus_core::id::ReplicaId;
use rivus_core::register::{Candidate, Reach, Register as Core};
use rivus_core::row::{decode_register, encode_register};
use rivus_core::value::{ABSENT, Value};

use super::{Exhibit, first};
use crate::law::merge::{Merge, View, check};
use crate::strategy::histories;

/// One write as its author makes it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Own {
    /// When and by whom.
    pub stamp: Stamp,
    /// The author's authority.
    pub rank: u8,
    /// Canonical bytes, or [`ABSENT`].
    pub value: Vec<u8>,
}

/// A sort of register.
pub trait Register {
    /// What it holds.
    type State: Clone + Debug;
    /// The delta of a write by someone who looks at `state`.
    fn write(&self, state: Option<&Self::State>, own: Own, reach: Reach) -> Self::State;
    /// Both.
    fn join(&self, one: &Self::State, two: &Self::State) -> Self::State;
    /// The writes in the running, oldest first, at least one.
    fn candidates(&self, state: &Self::State) -> Vec<Own>;
}

/// Entities whose fields are registers: titles of margin 0, owners of margin 5 or 12 ms, notes that keep concurrent values,
/// sets where adding wins, maps, counters with a part for each replica; deleting wins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entities<R> {
    /// What the fields are made of.
    pub register: R,
    pub(super) twist: Twist,
}

/// A mistake in what is written where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Twist {
    /// None.
    #[default]
    None,
    /// Whoever learns of a deletion drops the fields.
    DeletingDropsFields,
    /// One running total for all replicas.
    OneTotal,
}

/// By entity and slot.
type State<R> = BTreeMap<(String, String), R>;

impl<R: Register> Entities<R> {
    fn slot(&self, action_field: &str, key: Option<&str>, replica: ReplicaId) -> String {
        match (action_field, key) {
            (COUNTER, _) if self.twist == Twist::OneTotal => format!("{COUNTER}#"),
            (COUNTER, _) => format!("{COUNTER}#{replica}"),
            (field, Some(key)) => format!("{field}/{key}"),
            (field, None) => field.to_owned(),
        }
    }

    /// What an operation writes, life aside; `None` where it is refused.
    fn writes(
        &self,
        op: &Op,
        shown: Option<&BTreeMap<String, Vec<Value>>>,
        held: &State<R::State>,
        replica: ReplicaId,
    ) -> Vec<(String, Vec<u8>)> {
        let yes = || Value::Bool(true).to_bytes();
        match &op.action {
            Action::Put(fields) => {
                let shows = |field: &str| shown.and_then(|slots| slots.get(field)).map(Vec::as_slice);
                let new = fields.iter().filter(|(f, v)| shows(f) != Some(std::slice::from_ref(v)));
                new.map(|(field, value)| (self.slot(field, None, replica), value.to_bytes())).collect()
            }
            Action::Add { field, key } => vec![(self.slot(field, Some(key), replica), yes())],
            Action::Remove { field, key } => {
                let gone = if field == SET { Value::Bool(false).to_bytes() } else { ABSENT.to_vec() };
                vec![(self.slot(field, Some(key), replica), gone)]
            }
            Action::SetKey { field, key, value } => {
                vec![(self.slot(field, Some(key), replica), value.to_bytes())]
            }
            Action::Inc { field, by } => {
                let slot = self.slot(field, None, replica);
                let before = held.get(&(op.id.clone(), slot.clone())).map_or(0, |state| self.total(state));
                vec![(slot, Value::Int(before + by).to_bytes())]
            }
            Action::Delete | Action::Revive | Action::Alias { .. } => Vec::new(),
        }
    }

    fn total(&self, state: &R::State) -> i64 {
        let total = self.register.candidates(state).last().map(|own| Value::decode(&own.value));
        if let Some(Ok(Value::Int(total))) = total { total } else { 0 }
    }

    fn is_dead(&self, state: &State<R::State>, id: &str) -> bool {
        let life = state.get(&(id.to_owned(), LIFE.to_owned()));
        let dead = Value::Bool(false).to_bytes();
        life.is_some_and(|life| self.register.candidates(life).iter().any(|own| own.value == dead))
    }

    fn show(&self, view: &mut BTreeMap<String, Vec<Value>>, slot: &str, state: &R::State) {
        let candidates = self.register.candidates(state);
        let field = slot.split_once('/').map_or(slot, |(field, _)| field);
        let value = |own: &Own| Value::decode(&own.value).ok();
        if let Some((field, _)) = slot.split_once('#') {
            let sum = view.entry(field.to_owned()).or_insert_with(|| vec![Value::Int(0)]);
            if let [Value::Int(sum)] = sum.as_mut_slice() {
                *sum += self.total(state);
            }
            return;
        }
        let shown: Vec<Value> = match field {
            SET => {
                let added = candidates.iter().any(|own| value(own) == Some(Value::Bool(true)));
                added.then_some(Value::Bool(true)).into_iter().collect()
            }
            MULTI => candidates.iter().filter_map(value).collect(),
            RANKED => candidates
                .iter()
                .max_by_key(|own| (own.rank, own.stamp))
                .and_then(value)
                .into_iter()
                .collect(),
            _ => candidates.last().and_then(value).into_iter().collect(),
        };
        if !shown.is_empty() {
            view.insert(slot.to_owned(), shown);
        }
    }
}

impl<R: Register> Merge for Entities<R> {
    type State = State<R::State>;

    fn empty(&self) -> Self::State {
        BTreeMap::new()
    }

    fn edit(&self, state: &Self::State, stamp: Stamp, rank: u8, op: &Op) -> Option<Self::State> {
        let dead = self.is_dead(state, &op.id);
        let held = state.keys().any(|(id, _)| *id == op.id);
        let (mut writes, life) = match op.action {
            Action::Delete if !held || dead => return None,
            Action::Revive if !dead => return None,
            Action::Delete => (Vec::new(), Some(false)),
            Action::Revive => (Vec::new(), Some(true)),
            _ if dead => return None,
            _ => {
                let view = self.read(state);
                (self.writes(op, view.get(&op.id), state, stamp.replica), (!held).then_some(true))
            }
        };
        if writes.is_empty() && !matches!(op.action, Action::Delete | Action::Revive) {
            return None;
        }
        writes.extend(life.map(|alive| (LIFE.to_owned(), Value::Bool(alive).to_bytes())));
        let delta = |(slot, value): (String, Vec<u8>)| {
            let address = (op.id.clone(), slot);
            let reach = reach(&address.1, stamp.replica);
            let written = self.register.write(state.get(&address), Own { stamp, rank, value }, reach);
            (address, written)
        };
        Some(writes.into_iter().map(delta).collect())
    }

    fn join(&self, state: &Self::State, delta: &Self::State) -> Self::State {
        let mut joined = state.clone();
        for (address, theirs) in delta {
            let both = joined.get(address).map(|ours| self.register.join(ours, theirs));
            joined.insert(address.clone(), both.unwrap_or_else(|| theirs.clone()));
        }
        if self.twist == Twist::DeletingDropsFields {
            let dead: BTreeSet<_> =
                joined.keys().map(|(id, _)| id.clone()).filter(|id| self.is_dead(&joined, id)).collect();
            joined.retain(|(id, slot), _| slot == LIFE || !dead.contains(id));
        }
        joined
    }

    fn read(&self, state: &Self::State) -> View {
        let mut view = View::new();
        for ((id, slot), register) in state {
            if !self.is_dead(state, id) {
                let entity = view.entry(id.clone()).or_default();
                if slot != LIFE {
                    self.show(entity, slot, register);
                }
            }
        }
        view
    }
}

/// How far back a write of a slot reaches. Not all replicas have the same schema: on even ones the margin of owners is
/// wider, and to the third a note is a plain value yet.
fn reach(slot: &str, replica: ReplicaId) -> Reach {
    match slot.split_once('/').map_or(slot, |(field, _)| field) {
        RANKED => Reach::Ticks(ticks(if replica.as_u128().is_multiple_of(2) { 12 } else { 5 })),
        MULTI if replica.as_u128() == 3 => Reach::None,
        SET | MULTI | LIFE => Reach::Infinite,
        _ => Reach::None,
    }
}

const LIFE: &str = "$life";
const SET: &str = "tags";
const MULTI: &str = "note";
const RANKED: &str = "owner";
const COUNTER: &str = "views";

/// The production register, from bytes to bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Production;

/// Entities on the production register.
pub type Engine = Entities<Production>;

impl Register for Production {
    type State = Vec<u8>;

    fn write(&self, state: Option<&Vec<u8>>, own: Own, reach: Reach) -> Vec<u8> {
        let Own { stamp, rank, value } = &own;
        let state = state.map(|bytes| read(bytes));
        let own = Candidate { stamp: *stamp, rank: *rank, saw: None, value };
        bytes(&Core::write(state.as_ref(), own, reach))
    }

    fn join(&self, one: &Vec<u8>, two: &Vec<u8>) -> Vec<u8> {
        bytes(&read(one).join(&read(two)))
    }

    fn candidates(&self, state: &Vec<u8>) -> Vec<Own> {
        let own = |c: &Candidate<'_>| Own { stamp: c.stamp, rank: c.rank, value: c.value.to_vec() };
        read(state).alive.iter().map(own).collect()
    }
}

#[expect(clippy::expect_used, reason = "only what `bytes` wrote is read")]
fn read(bytes: &[u8]) -> Core<'_> {
    decode_register(bytes).expect("the bytes of a register")
}

fn bytes(register: &Core<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_register(register, &mut bytes);
    bytes
}

/// The floor register of `docs/semantics.md`, word for word.
#[derive(Clone, Copy, Debug, Default)]
pub struct Floor {
    pub(super) flaw: Flaw,
}

/// A mistake in the register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Flaw {
    /// None.
    #[default]
    None,
    /// A write says that it saw its direct parents, and not what those saw.
    DirectParents,
    /// A write stamps its own floor, and forgets the one that its author had.
    FloorForgotten,
    /// The reader applies the margin of its own schema: 5 ms on some machines, 8 ms on others.
    ReadersMargin,
    /// Nobody remembers what was seen.
    NoContext,
}

/// What a [`Floor`] register holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    floor: Stamp,
    seen: BTreeMap<ReplicaId, Instant>,
    alive: BTreeSet<Own>,
}

impl Held {
    fn covers(&self, own: &Own) -> bool {
        self.seen.get(&own.stamp.replica).is_some_and(|seen| *seen >= own.stamp.instant())
    }

    fn trimmed(mut self) -> Self {
        let floor = self.floor;
        self.alive.retain(|own| own.stamp >= floor);
        self.seen.retain(|replica, instant| instant.by(*replica) >= floor);
        self
    }
}

impl Register for Floor {
    type State = Held;

    fn write(&self, state: Option<&Held>, own: Own, reach: Reach) -> Held {
        let reach =
            if self.flaw == Flaw::ReadersMargin && reach != Reach::None { Reach::Infinite } else { reach };
        let mut floor = match reach {
            Reach::None => own.stamp,
            Reach::Ticks(ticks) => {
                let time = own.stamp.time.saturating_add(1).saturating_sub(ticks);
                Stamp { time, replica: ReplicaId::default(), ..own.stamp }
            }
            Reach::Infinite => Stamp::LOWEST,
        };
        let mut seen = BTreeMap::new();
        if let Some(state) = state {
            if self.flaw != Flaw::FloorForgotten {
                floor = floor.max(state.floor);
            }
            seen = match self.flaw {
                Flaw::DirectParents => {
                    state.alive.iter().map(|own| (own.stamp.replica, own.stamp.instant())).collect()
                }
                Flaw::NoContext => BTreeMap::new(),
                _ => state.seen.clone(),
            };
        }
        seen.insert(own.stamp.replica, own.stamp.instant());
        Held { floor, seen, alive: BTreeSet::from([own]) }.trimmed()
    }

    fn join(&self, one: &Held, two: &Held) -> Held {
        let stays = |own: &&Own, other: &Held| other.alive.contains(own) || !other.covers(own);
        let alive = one
            .alive
            .iter()
            .filter(|own| stays(own, two))
            .chain(two.alive.iter().filter(|own| stays(own, one)));
        let mut seen = one.seen.clone();
        for (replica, instant) in &two.seen {
            let slot = seen.entry(*replica).or_insert(*instant);
            *slot = (*slot).max(*instant);
        }
        Held { floor: one.floor.max(two.floor), seen, alive: alive.cloned().collect() }.trimmed()
    }

    fn candidates(&self, state: &Held) -> Vec<Own> {
        let mut alive: Vec<_> = state.alive.iter().cloned().collect();
        if self.flaw == Flaw::ReadersMargin {
            let old_schema = crate::law::Surroundings::current().salt.is_multiple_of(2);
            let margin = ticks(if old_schema { 8 } else { 5 });
            let newest = alive.last().map(|own| own.stamp.time).unwrap_or_default();
            alive.retain(|own| newest - own.stamp.time < margin);
        }
        alive
    }
}

macro_rules! exhibit {
    ($name:literal, $merge:expr, $what:literal, $seen:literal) => {
        Exhibit {
            name: $name,
            what: $what,
            seen: $seen,
            hunt: |effort| first(effort, &histories(), |history| check(&$merge, history)),
        }
    };
}
pub(super) use exhibit;

pub(super) fn exhibits() -> Vec<Exhibit> {
    vec![
        exhibit!("the engine's register", Engine::default(), "the production code", "Rivus"),
        exhibit!("the floor register", Entities::<Floor>::default(), "word for word", "docs/semantics.md"),
    ]
}
