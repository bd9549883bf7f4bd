//! A seeded simulator of histories with rules: what every view satisfies, at every moment, on every replica.
//!
//! Three to five replicas of the real engine, on stores in memory, whose clocks disagree and step, edit time entries
//! and projects and pass on parts of what they hold, in any direction. After every step each replica that it touched
//! is looked at from all sides; [`Oracle`] says what is checked. The same seed does the same.
//!
//! In reading order: [`plan`] and its generator, the world that takes the steps, what is looked at, and
//! [`shrink`](shrink()) for what was found.

#![allow(
    clippy::indexing_slicing,
    reason = "plans name their own sites and coverage its own events: a simulator that loses count must stop there"
)]

pub mod coverage;
mod generate;
mod look;
pub mod plan;
mod schema;
mod shrink;
mod site;
mod told;
mod world;

use std::fmt;
use std::panic::AssertUnwindSafe;

use coverage::Coverage;
pub use plan::Plan;
pub use shrink::{Shrunk, shrink};
pub use told::{Account, BadToken, Token, replay_script};
use world::World;

/// What must hold after every step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Oracle {
    /// Every rule holds in the view: one open timer at most, no two names alike, nothing refers to what is gone, no
    /// end before its beginning.
    Rule,
    /// What rules show is what the reference computes from the registers alone.
    Model,
    /// What is kept as the index is what making it anew makes of the registers.
    Index,
    /// A view is its registers under its overlays.
    View,
    /// Nobody who stopped or lost is open again unless somebody edits that entity.
    Zombie,
    /// An edit writes what the user set, what the user accepts, and the claims of places taken: no more, no less.
    Edit,
    /// Joining leaves the join of the registers: rules write nothing.
    Join,
    /// Whose view changed is told of.
    Told,
    /// The digest that is kept is that of the rows.
    Digest,
    /// In the end all show the same.
    Convergence,
    /// Honest ends do not refuse one another.
    Session,
    /// The engine does what the step asks.
    Store,
    /// The same plan does the same.
    Determinism,
    /// Nothing panics.
    Panic,
}

/// What does not hold, and in words how.
pub(crate) type Finding = (Oracle, String);

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
    /// A hash over everything that was shown.
    pub trace_hash: u64,
    /// Which rare situations it got into.
    pub coverage: Coverage,
    /// What did not hold.
    pub failure: Option<Failure>,
}

/// Runs a plan.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    let mut world = World::new(plan);
    let mut at = None;
    let done = std::panic::catch_unwind(AssertUnwindSafe(|| {
        world.begin()?;
        for (number, step) in plan.steps.iter().enumerate() {
            let Some(step) = step else { continue };
            at = Some(number);
            world.passed_ms += i64::from(step.wait_ms);
            world.act(number, &step.action)?;
        }
        at = None;
        world.settle(plan.steps.len())
    }));
    let found = done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err((Oracle::Panic, text.unwrap_or_else(|| "a panic without words".to_owned())))
    });
    let failure = found.err().map(|(oracle, finding)| Failure { oracle, step: at, finding });
    Outcome { trace_hash: world.trace, coverage: std::mem::take(&mut world.coverage), failure }
}

#[cfg(test)]
mod tests;
