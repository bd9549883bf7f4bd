//! A seeded simulator of replicas, networks, clocks and crashes in virtual time.
//!
//! One thread, no clock, no randomness but the seed: the same seed does the same, byte for byte, and says so by an
//! equal trace hash. The real core, codec and sessions run, on stores in memory or in SQLite files. A run makes a
//! [`Plan`] from its seed, takes its steps under faults (the safety phase), then ends all faults but the odd clocks
//! and waits until everybody shows the same (the liveness phase). [`Oracle`] says what is checked.
//!
//! In reading order: [`plan`] and its generator, the world that takes the steps, the witness that remembers what
//! was seen, the liveness phase, [`shrink`](shrink()) and [`Token`] for what was found, [`coverage`].

#![allow(
    clippy::indexing_slicing,
    reason = "plans name their own sites and coverage its own events: a simulator that loses count must stop there"
)]

mod account;
pub mod coverage;
mod edits;
mod generate;
mod heal;
mod link;
pub mod plan;
mod reference;
pub(crate) mod replay;
mod schema;
mod shrink;
mod site;
mod store;
mod token;
mod views;
mod witness;
mod world;

use std::fmt;
use std::panic::AssertUnwindSafe;

use rivus_core::replica::Replica;

pub use account::Account;
use coverage::Coverage;
use plan::name;
pub use plan::{Flavour, Plan};
pub use replay::replay_script;
pub use shrink::{Shrunk, shrink};
pub use store::SimStore;
pub use token::{BadToken, Token};
use world::World;

/// What must hold, and is checked after every step or at the end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Oracle {
    /// In the end everybody shows the same.
    Convergence,
    /// That end comes within a bounded number of rounds, with nothing pending and nothing set aside.
    Liveness,
    /// What a replica shows is what the reference model shows.
    Model,
    /// A write replaces, for good, what its author saw.
    Overwrite,
    /// What was acknowledged is shown, or replaced, or rejected.
    Acknowledged,
    /// Whoever writes sees the own write at once.
    OwnWrites,
    /// What a replica has seen it does not lose sight of.
    Monotonic,
    /// Who has caught up has whole transactions.
    Transaction,
    /// The digest that is kept is that of the rows; equal positions have equal digests.
    Digest,
    /// Who made an edit stays its author when it is made anew.
    Author,
    /// Stamps rise, and clocks stay above what they have used, across crashes.
    Clock,
    /// Every register is well-formed.
    Register,
    /// Honest ends do not refuse one another.
    Session,
    /// A store that runs can be read and written.
    Store,
    /// What the application demands of every view.
    Invariant,
    /// Nothing panics.
    Panic,
    /// The same plan does the same again, byte for byte.
    Determinism,
}

/// What an application demands of every replica once a run is at rest: the place where a schema's rules will be
/// checked.
pub trait Invariant {
    /// Whether it holds.
    ///
    /// # Errors
    /// What does not hold, in words.
    fn check(&self, replica: &Replica<SimStore>) -> Result<(), String>;
}

/// What a run found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What did not hold.
    pub oracle: Oracle,
    /// In which step; `None` once all were taken.
    pub step: Option<usize>,
    /// Who, where, what was expected and what was shown.
    pub finding: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Some(step) => write!(f, "{:?}, in step {step}: {}", self.oracle, self.finding),
            None => write!(f, "{:?}, in the end: {}", self.oracle, self.finding),
        }
    }
}

/// What a run did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// A hash over everything that was to be seen.
    pub trace_hash: u64,
    /// How many frames were sent.
    pub frames: u64,
    /// Which rare situations it got into.
    pub coverage: Coverage,
    /// What did not hold.
    pub failure: Option<Failure>,
}

/// Runs a plan.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    run_with(plan, &[])
}

/// Runs a plan twice: a second trace that is not the first is a finding.
#[must_use]
pub fn run_twice(plan: &Plan) -> Outcome {
    let mut first = run(plan);
    let (hash, again) = (first.trace_hash, run(plan).trace_hash);
    if hash != again && first.failure.is_none() {
        let finding = format!("the first run's trace is {hash:016x}, the second's {again:016x}");
        first.failure = Some(Failure { oracle: Oracle::Determinism, step: None, finding });
    }
    first
}

/// Runs a plan and checks also what an application demands.
#[must_use]
pub fn run_with(plan: &Plan, invariants: &[&dyn Invariant]) -> Outcome {
    let mut world = match World::new(plan) {
        Ok(world) => world,
        Err((oracle, finding)) => {
            let failure = Some(Failure { oracle, step: None, finding });
            return Outcome { trace_hash: 0, frames: 0, coverage: Coverage::default(), failure };
        }
    };
    let mut at = None;
    let done = std::panic::catch_unwind(AssertUnwindSafe(|| {
        for (number, step) in plan.steps.iter().enumerate() {
            let Some(step) = step else { continue };
            at = Some(number);
            world.step = number;
            world.passed_ms += i64::from(step.wait_ms);
            world.act(&step.action)?;
        }
        at = None;
        world.step = plan.steps.len();
        heal::settle(&mut world, invariants)
    }));
    let found = done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err((Oracle::Panic, text.unwrap_or_else(|| "a panic without words".to_owned())))
    });
    let failure = found.err().map(|(oracle, finding)| Failure { oracle, step: at, finding });
    let (coverage, frames) = (std::mem::take(&mut world.coverage), world.frames);
    Outcome { trace_hash: world.trace(), frames, coverage, failure }
}

#[cfg(test)]
mod tests;
