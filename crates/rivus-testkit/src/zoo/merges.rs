//! Data types that lose edits, bring them back, or differ.

use std::collections::BTreeMap;

use rivus_core::clock::Stamp;
use rivus_core::edit::{Action, Op};
use rivus_core::register::Reach;
use rivus_core::value::Value;

use super::registers::{Flaw, Own, Production, Register, Twist, exhibit};
use super::{Entities, Exhibit, Floor, first};
use crate::law::Surroundings;
use crate::law::merge::{Merge, View, check};
use crate::strategy::histories;

pub(super) const fn flawed(flaw: Flaw) -> Entities<Floor> {
    Entities { register: Floor { flaw }, twist: Twist::None }
}

const fn twisted(twist: Twist) -> Entities<Production> {
    Entities { register: Production, twist }
}

/// One timestamp for all of an entity.
struct RowTimestamps;

impl Merge for RowTimestamps {
    type State = BTreeMap<String, (Stamp, BTreeMap<String, Value>)>;

    fn empty(&self) -> Self::State {
        BTreeMap::new()
    }
    fn edit(&self, state: &Self::State, stamp: Stamp, _: u8, op: &Op) -> Option<Self::State> {
        let Action::Put(fields) = &op.action else { return None };
        let mut row = state.get(&op.id).map(|(_, row)| row.clone()).unwrap_or_default();
        row.extend(fields.iter().cloned());
        Some(BTreeMap::from([(op.id.clone(), (stamp, row))]))
    }
    fn join(&self, state: &Self::State, delta: &Self::State) -> Self::State {
        let mut joined = state.clone();
        for (id, row) in delta {
            let slot = joined.entry(id.clone()).or_insert_with(|| row.clone());
            if row.0 > slot.0 {
                *slot = row.clone();
            }
        }
        joined
    }
    fn read(&self, state: &Self::State) -> View {
        let slots =
            |row: &BTreeMap<String, Value>| row.iter().map(|(f, v)| (f.clone(), vec![v.clone()])).collect();
        state.iter().map(|(id, (_, row))| (id.clone(), slots(row))).collect()
    }
}

/// The newest by the wall clock of its author.
struct WallClock;

impl Register for WallClock {
    type State = (i64, Own);

    fn write(&self, _: Option<&Self::State>, own: Own, _: Reach) -> Self::State {
        (Surroundings::current().now.0, own)
    }
    fn join(&self, one: &Self::State, two: &Self::State) -> Self::State {
        one.max(two).clone()
    }
    fn candidates(&self, state: &Self::State) -> Vec<Own> {
        vec![state.1.clone()]
    }
}

/// By element, when it was last added and removed, by the wall clock.
struct RemovedByTime;

impl Merge for RemovedByTime {
    type State = BTreeMap<(String, String), [i64; 2]>;

    fn empty(&self) -> Self::State {
        BTreeMap::new()
    }
    fn edit(&self, _: &Self::State, _: Stamp, _: u8, op: &Op) -> Option<Self::State> {
        let now = Surroundings::current().now.0;
        let (field, key, times) = match &op.action {
            Action::Add { field, key } => (field, key, [now, 0]),
            Action::Remove { field, key } if field == "tags" => (field, key, [0, now]),
            _ => return None,
        };
        Some(BTreeMap::from([((op.id.clone(), format!("{field}/{key}")), times)]))
    }
    fn join(&self, state: &Self::State, delta: &Self::State) -> Self::State {
        let mut joined = state.clone();
        for (element, [added, removed]) in delta {
            let slot = joined.entry(element.clone()).or_default();
            *slot = [slot[0].max(*added), slot[1].max(*removed)];
        }
        joined
    }
    fn read(&self, state: &Self::State) -> View {
        let mut view = View::new();
        for ((id, slot), [added, removed]) in state {
            let entity = view.entry(id.clone()).or_default();
            if added > removed {
                entity.insert(slot.clone(), vec![Value::Bool(true)]);
            }
        }
        view
    }
}

/// All operations, applied as they arrived.
struct AsTheyArrive;

impl Merge for AsTheyArrive {
    type State = Vec<(Stamp, Op)>;

    fn empty(&self) -> Self::State {
        Vec::new()
    }
    fn edit(&self, _: &Self::State, stamp: Stamp, _: u8, op: &Op) -> Option<Self::State> {
        matches!(op.action, Action::Put(_)).then(|| vec![(stamp, op.clone())])
    }
    fn join(&self, state: &Self::State, delta: &Self::State) -> Self::State {
        let new = delta.iter().filter(|(stamp, _)| !state.iter().any(|(held, _)| held == stamp));
        state.iter().chain(new).cloned().collect()
    }
    fn read(&self, state: &Self::State) -> View {
        let mut view = View::new();
        for (_, op) in state {
            if let Action::Put(fields) = &op.action {
                let slots = fields.iter().map(|(field, value)| (field.clone(), vec![value.clone()]));
                view.entry(op.id.clone()).or_default().extend(slots);
            }
        }
        view
    }
}

/// A counter to which every message adds.
struct CountedTwice;

impl Merge for CountedTwice {
    type State = BTreeMap<(String, String), i64>;

    fn empty(&self) -> Self::State {
        BTreeMap::new()
    }
    fn edit(&self, _: &Self::State, _: Stamp, _: u8, op: &Op) -> Option<Self::State> {
        let Action::Inc { field, by } = &op.action else { return None };
        Some(BTreeMap::from([((op.id.clone(), field.clone()), *by)]))
    }
    fn join(&self, state: &Self::State, delta: &Self::State) -> Self::State {
        let mut joined = state.clone();
        for (counter, by) in delta {
            let sum = joined.entry(counter.clone()).or_default();
            *sum = sum.saturating_add(*by);
        }
        joined
    }
    fn read(&self, state: &Self::State) -> View {
        let mut view = View::new();
        for ((id, slot), sum) in state {
            view.entry(id.clone()).or_default().insert(slot.clone(), vec![Value::Int(*sum)]);
        }
        view
    }
}

/// Inserts and updates; an update wants its row.
struct RowExpected;

impl Merge for RowExpected {
    type State = BTreeMap<String, (Stamp, bool)>;

    fn empty(&self) -> Self::State {
        BTreeMap::new()
    }
    fn edit(&self, state: &Self::State, stamp: Stamp, _: u8, op: &Op) -> Option<Self::State> {
        let first = !state.contains_key(&op.id);
        matches!(op.action, Action::Delete).then(|| BTreeMap::from([(op.id.clone(), (stamp, first))]))
    }
    #[expect(clippy::expect_used, reason = "that it panics is the mistake")]
    fn join(&self, state: &Self::State, delta: &Self::State) -> Self::State {
        let mut joined = state.clone();
        for (id, (stamp, first)) in delta {
            if *first {
                joined.entry(id.clone()).or_insert((*stamp, true));
            } else {
                let row = joined.get_mut(id).expect("one row updated");
                row.0 = row.0.max(*stamp);
            }
        }
        joined
    }
    fn read(&self, _: &Self::State) -> View {
        View::new()
    }
}

pub(super) fn exhibits() -> Vec<Exhibit> {
    vec![
        exhibit!(
            "row timestamps",
            RowTimestamps,
            "the newer row wins whole, and takes an edit of another field with it",
            "`updated_at` per record, in most sync libraries"
        ),
        exhibit!(
            "direct parents",
            flawed(Flaw::DirectParents),
            "a write names what it replaced, not what that had replaced: if the one between is late, the oldest is back",
            "conflict detection by `base_version`"
        ),
        exhibit!(
            "forgotten floor",
            flawed(Flaw::FloorForgotten),
            "a write with a wide margin forgets what a narrow one had put out of the running",
            "margins that change between versions"
        ),
        exhibit!(
            "margin of the reader",
            flawed(Flaw::ReadersMargin),
            "each reader drops what is older than its own margin",
            "a margin of error in a configuration file"
        ),
        exhibit!(
            "no context",
            flawed(Flaw::NoContext),
            "concurrent values are kept, and so are all that were replaced",
            "multi-value fields as plain sets"
        ),
        exhibit!(
            "wall clock",
            Entities { register: WallClock, twist: Twist::None },
            "an edit by a device whose clock is behind is undone by what it replaced",
            "`Date.now()`"
        ),
        exhibit!(
            "deleting drops the fields",
            twisted(Twist::DeletingDropsFields),
            "an edit that crosses the deletion, or a revival, leaves half a row",
            "TinyBase, rows of cells"
        ),
        exhibit!(
            "one total",
            twisted(Twist::OneTotal),
            "a counter is one number, and of two increments one is lost",
            "`n = n + 1` on two devices"
        ),
        exhibit!(
            "counted at every delivery",
            CountedTwice,
            "an increment that is delivered again counts again",
            "at-least-once queues"
        ),
        exhibit!(
            "removed by time",
            RemovedByTime,
            "an element is in if it was added later than removed, by the clocks of those who did",
            "LWW element sets"
        ),
        exhibit!(
            "row expected",
            RowExpected,
            "an update that overtakes its insert panics, and again at every retry",
            "`assert_eq!(rows_updated, 1)`"
        ),
        exhibit!(
            "as they arrive",
            AsTheyArrive,
            "operations are applied in the order in which they come",
            "event queues without a sequence"
        ),
    ]
}
