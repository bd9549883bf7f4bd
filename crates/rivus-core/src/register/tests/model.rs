//! The register against a model that keeps every write, over all histories of a few writes.
//!
//! A history is a sequence of writes in the order of their stamps. Every history has one such order, for a
//! write is stamped above what its author saw; that includes skewed clocks, as a writer need not have seen the
//! writes before it. Each write chooses its author, its distance in time from the one before, its margin, and
//! which of the earlier deltas have reached its author (any set with the author's own writes in it: delivery
//! is lossy and not causal). A reader then has any set of deltas. Its state is compared with the model, and
//! must be the join of the states of any two readers who have it between them: so every order of delivery, and
//! of states instead of deltas, is covered by induction.

use super::*;

const REPLICAS: u128 = 3;

/// The distance of a write from the one before.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Later by so much.
    Ticks(u64),
    /// In the next generation, at an earlier time.
    Generation,
}

/// With these, the times of two writes differ by each margin, by one less and by one more.
const STEPS: [Step; 4] = [Step::Ticks(0), Step::Ticks(1), Step::Ticks(4), Step::Generation];

const REACHES: [Reach; 4] = [Reach::None, Reach::Ticks(2), Reach::Ticks(5), Reach::Infinite];

/// The first write has nothing below it: a finite margin of its own makes no difference.
const FIRST_REACHES: [Reach; 2] = [Reach::None, Reach::Infinite];

/// A set of writes by their number, one bit each.
type Set = usize;

/// The longest histories that can be asked for.
const WRITES_MAX: usize = 5;

/// One write as the model keeps it.
#[derive(Debug)]
struct Write {
    stamp: Stamp,
    /// What its author had seen, transitively.
    past: Set,
    /// The floor that it stamped, which includes the floors that its author had.
    floor: Stamp,
}

struct Model {
    steps: &'static [Step],
    reaches: &'static [Reach],
    writes_max: usize,
    writes: Vec<Write>,
    /// The register of a reader who has just these deltas, by set; the empty set has none.
    states: Vec<Option<Register<'static>>>,
    histories: u64,
    readers: u64,
}

fn members(set: Set) -> impl Iterator<Item = usize> {
    (0..WRITES_MAX).filter(move |n| set & (1 << n) != 0)
}

impl Model {
    /// Runs all histories, and says how many they are.
    fn run(steps: &'static [Step], reaches: &'static [Reach], writes_max: usize) -> u64 {
        assert!(writes_max <= WRITES_MAX, "{writes_max} writes are too many: ask for {WRITES_MAX} at most");
        let (writes, states) = (Vec::new(), vec![None]);
        let mut model = Self { steps, reaches, writes_max, writes, states, histories: 0, readers: 0 };
        model.explore();
        println!("{} histories, {} readers", model.histories, model.readers);
        model.histories
    }

    /// Runs every history that goes on from this one.
    fn explore(&mut self) {
        let number = self.writes.len();
        if number == self.writes_max {
            return;
        }
        for replica in (1..=REPLICAS).map(ReplicaId::from_u128) {
            if number + 1 == self.writes_max && !self.ids_are_the_lowest(replica) {
                continue;
            }
            for &step in if number == 0 { &STEPS[..1] } else { self.steps } {
                let Some(stamp) = self.next_stamp(replica, step) else { continue };
                for known in 0..1 << number {
                    if !self.may_know(stamp, known) {
                        continue;
                    }
                    for &reach in if number == 0 { &FIRST_REACHES[..] } else { self.reaches } {
                        self.write(stamp, known, reach);
                        self.check_readers();
                        self.explore();
                        self.writes.truncate(number);
                        self.states.truncate(1 << number);
                    }
                }
            }
        }
    }

    /// Whether the authors are the first few replicas: others make the same histories by other names.
    fn ids_are_the_lowest(&self, last: ReplicaId) -> bool {
        let mut ids: Vec<_> = self.writes.iter().map(|w| w.stamp.replica).chain([last]).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().zip(1..).all(|(id, number)| id.as_u128() == number)
    }

    /// The stamp at this distance, if it is above the one before.
    fn next_stamp(&self, replica: ReplicaId, step: Step) -> Option<Stamp> {
        let last = self.writes.last().map_or(Stamp::LOWEST, |w| w.stamp);
        let next = match step {
            Step::Ticks(ticks) => Stamp { time: last.time + ticks, replica, ..last },
            Step::Generation => Stamp { generation: last.generation + 1, time: 1, replica },
        };
        (next > last).then_some(next)
    }

    /// Whether the author of `stamp` may have exactly the deltas `known` (and what these replace).
    ///
    /// It has its own writes, and no write of its own instant or later: the clock sees to that. Sets that lack
    /// a write which one of their members saw are passed over: they make the same state
    /// ([`Self::check_readers`]), thus the same write.
    fn may_know(&self, stamp: Stamp, known: Set) -> bool {
        let own = |n: &usize| self.writes[*n].stamp.replica == stamp.replica;
        (0..self.writes.len()).filter(own).all(|n| known & (1 << n) != 0)
            && members(known).all(|n| self.writes[n].stamp.instant() < stamp.instant())
            && self.past(known) & !known == 0
    }

    /// Everything that the members saw.
    fn past(&self, set: Set) -> Set {
        members(set).fold(0, |past, n| past | self.writes[n].past)
    }

    fn floor(&self, set: Set) -> Stamp {
        members(set).map(|n| self.writes[n].floor).max().unwrap_or(Stamp::LOWEST)
    }

    /// The members that no member saw, and that are below no member's floor.
    fn alive(&self, set: Set) -> impl Iterator<Item = Stamp> {
        let (past, floor) = (self.past(set), self.floor(set));
        let maximal = move |&n: &usize| past & (1 << n) == 0 && self.writes[n].stamp >= floor;
        members(set).filter(maximal).map(|n| self.writes[n].stamp)
    }

    /// Adds a write, to the model and to the registers of readers.
    fn write(&mut self, stamp: Stamp, known: Set, reach: Reach) {
        let delta = Register::write(self.states[known].as_ref(), candidate(stamp), reach);
        for set in 0..self.states.len() {
            let joined = self.states[set].as_ref().map_or_else(|| delta.clone(), |state| state.join(&delta));
            self.states.push(Some(joined));
        }
        let own_floor = match reach {
            Reach::None => stamp,
            Reach::Ticks(m) => Stamp {
                generation: stamp.generation,
                time: (stamp.time + 1).saturating_sub(m),
                ..Stamp::LOWEST
            },
            Reach::Infinite => Stamp::LOWEST,
        };
        let floor = own_floor.max(self.floor(known));
        self.writes.push(Write { stamp, past: known | self.past(known), floor });
        self.histories += 1;
    }

    /// Checks every reader who has the last write.
    fn check_readers(&mut self) {
        let last: Set = 1 << (self.writes.len() - 1);
        for set in last..last << 1 {
            let writes = &self.writes;
            let state = self.states[set].as_ref().unwrap();
            assert!(
                state.alive.iter().map(|c| c.stamp).eq(self.alive(set)),
                "{set:#b} of {writes:#?}: {state:#?}"
            );
            assert_eq!(state.floor, self.floor(set), "{set:#b} of {writes:#?}");
            assert_eq!(state.check(), Ok(()), "{set:#b} of {writes:#?}");
            let with_past = set | self.past(set);
            assert!(
                self.states[with_past].as_ref() == Some(state),
                "{set:#b}, its past or not, of {writes:#?}"
            );
            let rest = set ^ last;
            let mut part = rest;
            while part != 0 {
                let (one, other) =
                    (self.states[part].as_ref().unwrap(), self.states[set ^ part].as_ref().unwrap());
                assert!(
                    one.join(other) == *state,
                    "{part:#b} joined with the rest of {set:#b} of {writes:#?}"
                );
                part = (part - 1) & rest;
            }
            self.readers += 1;
        }
    }
}

#[test]
fn the_candidates_are_the_maximal_delivered_writes_in_every_history_of_four() {
    let histories = Model::run(&STEPS[..3], &REACHES, 4);
    assert!(histories > 1_000_000, "{histories}");
}

#[test]
fn the_candidates_are_the_maximal_delivered_writes_across_generations() {
    let histories = Model::run(&STEPS, &REACHES, 3);
    assert!(histories > 10_000, "{histories}");
}

/// Five writes are too many for every distance and margin at once: here writes come close after one another with any
/// margin, or at one time or just within a margin of the next.
#[test]
fn the_candidates_are_the_maximal_delivered_writes_in_many_histories_of_as_many_as_asked() {
    let writes_max = asked("RIVUS_REGISTER_WRITES", 4);
    let close = Model::run(&STEPS[1..2], &REACHES, writes_max);
    let apart = Model::run(
        &[Step::Ticks(0), Step::Ticks(4)],
        &[Reach::None, Reach::Ticks(5), Reach::Infinite],
        writes_max,
    );
    assert!(close + apart > if writes_max < WRITES_MAX { 150_000 } else { 8_000_000 }, "{close} {apart}");
}
