//! What is told of a failure.

use std::fmt;

use super::plan::Plan;
use super::{Failure, Shrunk, replay_script, shrink};

/// How many runs a failure is made small with.
const SHRINK_RUNS_MAX: usize = 600;

/// How long a replay script may be to be told, in bytes.
const SCRIPT_BYTES_MAX: usize = 16 << 10;

/// A failure as it is told: the finding, a token, the story, and a replay script where one can tell it.
#[derive(Clone, Debug)]
pub struct Account {
    /// The failure, made small.
    pub shrunk: Shrunk,
}

impl Account {
    /// Makes the failing plan small and tells of it.
    #[must_use]
    pub fn of(plan: &Plan, failure: &Failure) -> Self {
        Self { shrunk: shrink(plan, failure, SHRINK_RUNS_MAX) }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shrunk { plan, failure, token, .. } = &self.shrunk;
        writeln!(f, "{failure}")?;
        writeln!(f, "again: rivus simulate --token {token}")?;
        write!(f, "{plan}")?;
        match replay_script(plan) {
            Some(script) if script.len() > SCRIPT_BYTES_MAX => {
                writeln!(f, "the nearest replay script has {} bytes: too long to tell", script.len())
            }
            Some(script) => writeln!(f, "the nearest replay script:\n{script}"),
            None => writeln!(f, "no replay script: the sites have different schemas"),
        }
    }
}
