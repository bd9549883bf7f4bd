//! What a merge function, a resolver, a rule and a whole data type must obey, as checks.
//!
//! Owns the laws: [`join`] for types that merge by themselves, [`resolver`] for functions over the candidates of one
//! register, [`custom`] for rules written against the engine's trait, [`rule`] for other functions over several entities,
//! [`merge`] for whole data types with edits and deltas. Each
//! has a trait (or a function type), a function `check` that returns the first law that does not hold as [`Broken`],
//! and a macro that expands to a module of tests. Knows nothing of stores and sessions. Invariant: a check is a pure
//! function of its input, so a seed or a token is all that it takes to see a failure again.
//!
//! The rest of this page is the manual `docs/testing.md`.
//!
#![doc = include_str!("../../../docs/testing.md")]

pub mod custom;
pub mod join;
mod macros;
pub mod merge;
pub mod resolver;
pub mod rule;
mod surroundings;

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

pub use surroundings::Surroundings;

use crate::env::number;
use crate::strategy::History;

/// One law. Its [`Display`](fmt::Display) says what it demands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Law {
    /// Every input has an outcome: no panic, nothing that cannot be stored.
    Total,
    /// Equal inputs have equal outcomes, on every machine.
    Deterministic,
    /// The outcome does not depend on when it is computed.
    ClockFree,
    /// A state equals itself.
    Reflexive,
    /// `a ∨ b = b ∨ a`.
    Commutative,
    /// `(a ∨ b) ∨ c = a ∨ (b ∨ c)`.
    Associative,
    /// `a ∨ a = a`, and joining the same thing again changes nothing.
    Idempotent,
    /// A join holds what both sides hold.
    UpperBound,
    /// Bytes and back is the same state.
    RoundTrip,
    /// The order of the input does not matter.
    OrderFree,
    /// What shows satisfies the rule.
    Establishes,
    /// Following changes one by one ends where starting over ends.
    Incremental,
    /// A rule shows other values in its own fields only.
    OwnsItsWrites,
    /// Fields that a rule does not name do not sway it.
    ReadsWhatItNames,
    /// Entities of other groups do not sway a rule.
    GroupOnly,
    /// Who lost stays out when the winner goes, and what is deleted stays deleted.
    NoRevival,
    /// Replicas that received the same deltas show the same, in whatever order and however often they came.
    Converges,
    /// What its author saw, a write replaces everywhere.
    SeenIsReplaced,
    /// What nobody replaced shows.
    NothingLost,
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Total => "total (every input has an outcome that can be stored; no panic)",
            Self::Deterministic => "deterministic (equal inputs, equal outcomes, on every machine)",
            Self::ClockFree => "clock-free (the outcome does not depend on when it is computed)",
            Self::Reflexive => "reflexive (a state equals itself)",
            Self::Commutative => "commutative (a ∨ b = b ∨ a)",
            Self::Associative => "associative ((a ∨ b) ∨ c = a ∨ (b ∨ c))",
            Self::Idempotent => "idempotent (doing it again changes nothing)",
            Self::UpperBound => "upper bound (the outcome holds what both sides hold)",
            Self::RoundTrip => "round trip (bytes and back is the same state)",
            Self::OrderFree => "order-free (the order of the input does not matter)",
            Self::Establishes => "establishes (what shows satisfies the rule)",
            Self::Incremental => "incremental (following changes ends where starting over ends)",
            Self::OwnsItsWrites => "owns its writes (it shows other values in its own fields only)",
            Self::ReadsWhatItNames => "reads what it names (other fields do not sway it)",
            Self::GroupOnly => "group only (entities of other groups do not sway it)",
            Self::NoRevival => "no revival (who lost stays out, what is deleted stays deleted)",
            Self::Converges => "converges (the same deltas show the same, in any order, any number of times)",
            Self::SeenIsReplaced => "seen is replaced (a write replaces what its author saw, everywhere)",
            Self::NothingLost => "nothing lost (what nobody replaced shows)",
        })
    }
}

/// A law that does not hold, with an input that shows it.
///
/// Its [`Display`](fmt::Display) is an account of several lines: the law, the inputs, and each outcome with how it
/// came about; where the input is a [`History`], also its token and its replay script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which law.
    pub law: Law,
    /// The inputs: what each is called, and what it is.
    pub inputs: Vec<(String, String)>,
    /// What was computed from them, and what came out. With two of them, they ought to be equal.
    pub outcomes: Vec<(String, String)>,
    /// The history that ends in it, if it takes one.
    pub history: Option<Box<History>>,
}

impl Broken {
    fn new<I: fmt::Debug>(law: Law, inputs: &[(&str, &I)], outcomes: &[(&str, &dyn fmt::Debug)]) -> Self {
        let inputs = inputs.iter().map(|(name, input)| ((*name).to_owned(), format!("{input:?}"))).collect();
        let outcomes = outcomes.iter().map(|(how, out)| ((*how).to_owned(), format!("{out:?}"))).collect();
        Self { law, inputs, outcomes, history: None }
    }
}

impl std::error::Error for Broken {}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not {}", self.law)?;
        for (name, input) in &self.inputs {
            write!(f, "\n  {name} = {input}")?;
        }
        for (how, outcome) in &self.outcomes {
            write!(f, "\n  {how}\n    gives {outcome}")?;
        }
        if let Some(history) = &self.history {
            write!(f, "\n  token: {}\n  replay script:\n{}", history.token(), history.to_replay())?;
        }
        Ok(())
    }
}

/// The law tests of one run: how many inputs each, and the seed that they all come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// How many inputs.
    pub cases: u32,
    /// Where they come from.
    pub seed: u64,
}

impl Effort {
    /// 256 inputs from seed 1, unless the environment says otherwise: `RIVUS_LAW_CASES`, `RIVUS_LAW_SEED`.
    ///
    /// # Panics
    /// If one of them is no number.
    #[must_use]
    pub fn from_env() -> Self {
        Self { cases: number("RIVUS_LAW_CASES", 256), seed: number("RIVUS_LAW_SEED", 1) }
    }

    /// A runner that draws its inputs from the seed and writes no file.
    #[must_use]
    pub fn runner(self) -> TestRunner {
        let mut seed = [0; 32];
        for (to, from) in seed.iter_mut().zip(self.seed.to_le_bytes()) {
            *to = from;
        }
        let config = Config {
            cases: self.cases,
            failure_persistence: None,
            max_shrink_iters: SHRINKS_MAX,
            ..Config::default()
        };
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
    }

    /// Checks `check` on inputs of `strategy` and shrinks the first on which it fails.
    ///
    /// # Errors
    /// What is broken, on the smallest input found.
    pub fn search<S: Strategy>(
        self,
        strategy: &S,
        check: impl Fn(&S::Value) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let run = self.runner().run(strategy, |input| {
            check(&input).map_err(|broken| TestCaseError::fail(broken.law.to_string()))
        });
        match run {
            Ok(()) => Ok(()),
            Err(TestError::Fail(_, input)) => check(&input),
            Err(TestError::Abort(reason)) => Err(Broken {
                law: Law::Total,
                inputs: Vec::new(),
                outcomes: vec![("drawing inputs".to_owned(), reason.to_string())],
                history: None,
            }),
        }
    }
}

/// Searches as [`Effort::from_env`] says, for the tests that the macros make.
///
/// # Panics
/// If a law is broken, with the account, the seed and how to run it again.
pub fn prove<S: Strategy>(name: &str, strategy: &S, check: impl Fn(&S::Value) -> Result<(), Broken>) {
    let effort = Effort::from_env();
    if let Err(broken) = effort.search(strategy, check) {
        let Effort { cases, seed } = effort;
        panic!("{name} is {broken}\n  again with: RIVUS_LAW_SEED={seed} RIVUS_LAW_CASES={cases}");
    }
}

/// Runs a function of the user's that may panic; a panic says nothing on standard error and comes back as its text.
fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let done = catch_unwind(AssertUnwindSafe(f));
    QUIET.set(before);
    done.map_err(|payload| match payload.downcast::<String>() {
        Ok(text) => format!("panic: {text}"),
        Err(other) => match other.downcast::<&str>() {
            Ok(text) => format!("panic: {text}"),
            Err(_) => "panic".to_owned(),
        },
    })
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// How many smaller inputs are tried after a failure.
const SHRINKS_MAX: u32 = 20_000;
