//! The laws of a whole data type: how an edit becomes a delta, how deltas join, what shows.
//!
//! Owns [`Merge`] and its checks, which run a [`History`] on several replicas and compare with what "happened before"
//! alone says: a write may show only if no delivered write saw it, and must show if nothing was made beside it. Which
//! of two concurrent writes wins is the merge's own affair, so last-writer-wins and a multi-value register both pass.
//! A join that obeys the algebra can break these: a row with one timestamp converges, and loses edits.

use std::collections::BTreeMap;
use std::fmt::Debug;

use rivus_core::clock::{Clock, Force, Stamp};
use rivus_core::edit::{Action, Op};
use rivus_core::id::ReplicaId;
use rivus_core::value::Value;

use super::{Broken, Law, Surroundings, caught};
use crate::strategy::{History, Step};

mod expect;

/// What shows: by entity id, by slot (a field, or `field/key` for an element of a set or map), the values. Several
/// only where the field shows concurrent writes side by side; a set's element is `true`. Deleted entities are left out.
pub type View = BTreeMap<String, BTreeMap<String, Vec<Value>>>;

/// A data type that merges: the kind `task` of [`History::schema`], or as much of it as the type can do.
pub trait Merge {
    /// What a replica holds, and what it sends: a delta is a small state.
    type State: Clone + Debug;

    /// What a new replica holds.
    fn empty(&self) -> Self::State;

    /// The delta of an edit by someone who looks at `state`, or `None` if it is refused, not understood, or changes
    /// nothing. The stamp is above all that the author has received, `rank` is the author's authority.
    fn edit(&self, state: &Self::State, stamp: Stamp, rank: u8, op: &Op) -> Option<Self::State>;

    /// A state and a delta, or two states, joined.
    fn join(&self, state: &Self::State, delta: &Self::State) -> Self::State;

    /// What shows.
    fn read(&self, state: &Self::State) -> View;
}

/// The laws, in the order in which [`check`] looks.
pub const LAWS: [Law; 4] = [Law::Total, Law::SeenIsReplaced, Law::NothingLost, Law::Converges];

/// Checks every law on one history.
///
/// # Errors
/// The first law that does not hold.
pub fn check<M: Merge>(merge: &M, history: &History) -> Result<(), Broken> {
    told(None, merge, history)
}

/// Checks one law of [`LAWS`] on one history; the others hold of anything.
///
/// # Errors
/// That it does not hold, or that the merge panics.
pub fn holds<M: Merge>(law: Law, merge: &M, history: &History) -> Result<(), Broken> {
    told(Some(law), merge, history)
}

fn told<M: Merge>(law: Option<Law>, merge: &M, history: &History) -> Result<(), Broken> {
    let found = match caught(|| Run::new(law, merge, history).run()) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(found)) => found,
        Err(text) => Found { law: Law::Total, told: vec![("the merge".to_owned(), text)] },
    };
    let history = Some(Box::new(history.clone()));
    Err(Broken { law: found.law, inputs: Vec::new(), outcomes: found.told, history })
}

/// What is broken, before the history is told.
struct Found {
    law: Law,
    told: Vec<(String, String)>,
}

/// One edit that was made.
struct Made<S> {
    delta: S,
    /// Which edits its author had received, and theirs in turn.
    saw: u64,
    id: String,
    life: Option<bool>,
    writes: Vec<Written>,
}

/// What an edit wrote to one slot.
struct Written {
    slot: String,
    what: What,
    /// The slot showed that already: a merge may or may not count it as a write.
    needless: bool,
}

enum What {
    Value(Option<Value>),
    Count(i64),
}

struct Place<S> {
    state: S,
    known: u64,
    clock: Clock,
}

struct Run<'r, M: Merge> {
    /// The law to check, or all.
    law: Option<Law>,
    merge: &'r M,
    history: &'r History,
    places: Vec<Place<M::State>>,
    made: Vec<Made<M::State>>,
}

impl<'r, M: Merge> Run<'r, M> {
    fn new(law: Option<Law>, merge: &'r M, history: &'r History) -> Self {
        let place = |number: u128| Place {
            state: merge.empty(),
            known: 0,
            clock: Clock::new(ReplicaId::from_u128(number), 0),
        };
        let places = (1..).take(history.ranks.len()).map(place).collect();
        Self { law, merge, history, places, made: Vec::new() }
    }

    fn run(mut self) -> Result<(), Found> {
        for step in &self.history.steps {
            match step {
                Step::Edit { on, at, op } if self.made.len() < EDITS_MAX => self.edit(*on, *at, op)?,
                Step::Edit { .. } => {}
                Step::Sync { from, to } => self.sync(*from, *to)?,
            }
        }
        let all = mask(self.made.len());
        let whole = self.deliver("everything", all)?;
        for lost in 0..self.made.len() {
            let what = format!("everything but edit {}", lost + 1);
            let without = self.deliver(&what, all & !(1 << lost))?;
            if expect::dispensable(&self.made, lost) && without != whole {
                let told = [
                    (what.as_str(), format!("{without:?}")),
                    ("everything, though later edits replaced that one", format!("{whole:?}")),
                ];
                return self
                    .broken(Law::SeenIsReplaced, &told.each_ref().map(|(how, out)| (*how, out.as_str())));
            }
        }
        Ok(())
    }

    fn edit(&mut self, on: usize, at: i64, op: &Op) -> Result<(), Found> {
        let around = self.surroundings(on, at);
        let rank = self.history.ranks.get(on).copied().unwrap_or_default();
        let merge = self.merge;
        let Some(place) = self.places.get_mut(on) else { return Ok(()) };
        let Ok(stamp) = place.clock.tick(around.now, None, Force::No) else { return Ok(()) };
        let before = around.around(|| merge.read(&place.state));
        let Some(delta) = around.around(|| merge.edit(&place.state, stamp, rank, op)) else { return Ok(()) };
        place.state = around.around(|| merge.join(&place.state, &delta));
        let after = around.around(|| merge.read(&place.state));
        // What was received may have lost edits on the way; what those saw is seen all the same.
        let known = place.known;
        let saw = self
            .made
            .iter()
            .enumerate()
            .filter(|(n, _)| known >> n & 1 == 1)
            .fold(known, |s, (_, m)| s | m.saw);
        place.known |= 1 << self.made.len();
        let (life, writes) = expect::written(op, &before);
        let made = Made { delta, saw, id: op.id.clone(), life, writes };
        let shown = expect::own_edit(&made, op, &before, &after);
        self.made.push(made);
        shown.map_or(Ok(()), |(how, showed)| {
            self.broken(Law::SeenIsReplaced, &[(&how, &showed), ("before it", &format!("{before:?}"))])
        })
    }

    fn sync(&mut self, from: usize, to: usize) -> Result<(), Found> {
        let merge = self.merge;
        let Some((state, known, time)) =
            self.places.get(from).map(|p| (p.state.clone(), p.known, p.clock.high_water()))
        else {
            return Ok(());
        };
        let around = self.surroundings(to, 0);
        let Some(place) = self.places.get_mut(to) else { return Ok(()) };
        place.state = around.around(|| merge.join(&place.state, &state));
        place.known |= known;
        place.clock.observe(time);
        let (known, shown) = (place.known, around.around(|| merge.read(&place.state)));
        self.plausible(&format!("replica {} after a sync", to + 1), &shown, known, true)?;
        for (other, place) in self.places.iter().enumerate().filter(|(n, p)| *n != to && p.known == known) {
            let theirs = self.surroundings(other, 0).around(|| merge.read(&place.state));
            let names =
                [format!("replica {}", to + 1), format!("replica {}, with the same edits", other + 1)];
            self.same([(&names[0], &shown), (&names[1], &theirs)])?;
        }
        Ok(())
    }

    /// Delivers the deltas of a set to new replicas: in order, in reverse, from the middle, and each of them twice.
    fn deliver(&self, what: &str, set: u64) -> Result<View, Found> {
        let deltas: Vec<_> =
            self.made.iter().enumerate().filter(|(n, _)| set >> n & 1 == 1).map(|(_, m)| &m.delta).collect();
        let (head, tail) = deltas.split_at(deltas.len() / 2);
        let backwards: Vec<_> = deltas.iter().rev().copied().collect();
        let orders = [
            ("in order", deltas.clone()),
            ("in reverse", backwards),
            ("the later half first", [tail, head].concat()),
            ("each twice", deltas.iter().flat_map(|d| [*d, *d]).collect()),
        ];
        let mut first: Option<(String, View)> = None;
        for (reader, (order, deltas)) in orders.into_iter().enumerate() {
            let join = |state, delta: &&M::State| self.merge.join(&state, delta);
            let shown = self
                .surroundings(reader, 0)
                .around(|| self.merge.read(&deltas.iter().fold(self.merge.empty(), join)));
            let name = format!("{what} delivered {order}");
            match &first {
                None => {
                    let whole = set == mask(self.made.len());
                    self.plausible(&name, &shown, set, whole)?;
                    first = Some((name, shown));
                }
                Some((before, view)) => self.same([(before, view), (&name, &shown)])?,
            }
        }
        Ok(first.map(|(_, view)| view).unwrap_or_default())
    }

    fn plausible(&self, who: &str, view: &View, set: u64, whole: bool) -> Result<(), Found> {
        match expect::implausible(&self.made, view, set, whole) {
            Some((law, why)) => self.broken(law, &[(who, &format!("{view:?}")), ("what is wrong", &why)]),
            None => Ok(()),
        }
    }

    fn same(&self, views: [(&str, &View); 2]) -> Result<(), Found> {
        let [(one, a), (two, b)] = views;
        if a == b {
            return Ok(());
        }
        self.broken(Law::Converges, &[(one, &format!("{a:?}")), (two, &format!("{b:?}"))])
    }

    /// Fails if this law is being checked.
    fn broken(&self, law: Law, told: &[(&str, &str)]) -> Result<(), Found> {
        if self.law.is_some_and(|only| only != law) {
            return Ok(());
        }
        let told = told.iter().map(|(how, out)| ((*how).to_owned(), (*out).to_owned())).collect();
        Err(Found { law, told })
    }

    /// Each replica is on a machine of its own.
    fn surroundings(&self, replica: usize, at: i64) -> Surroundings {
        let number = replica as u64 + 1;
        Surroundings {
            now: rivus_core::clock::Millis(at),
            replica: ReplicaId::from_u128(number.into()),
            salt: number,
        }
    }
}

fn mask(edits: usize) -> u64 {
    (1 << edits) - 1
}

/// The edits of a history that are made: each has a bit.
const EDITS_MAX: usize = 40;

/// Whether an action deletes or revives.
fn life(action: &Action) -> Option<bool> {
    match action {
        Action::Delete => Some(false),
        Action::Revive => Some(true),
        _ => None,
    }
}
