//! How a failure is told: a token of one line, the story, a replay script.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde_json::{Value as JsonValue, json};

use super::plan::{Action, Plan};
use super::shrink::{Shrunk, shrink};
use super::{Failure, site};
use crate::sim::plan::name;
use crate::sim::replay::{edit, line};

/// Names a plan by its seed, and the steps that were left out of it. Plans that change with the program change `q1`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    seed: u64,
    without: BTreeSet<u16>,
}

impl Token {
    /// The token of a whole plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self::whole(plan.seed)
    }

    /// The token of the whole plan of a seed.
    #[must_use]
    pub fn whole(seed: u64) -> Self {
        Self { seed, without: BTreeSet::new() }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let mut plan = Plan::new(self.seed);
        for (number, step) in plan.steps.iter_mut().enumerate() {
            if self.without.contains(&u16::try_from(number).unwrap_or(u16::MAX)) {
                *step = None;
            }
        }
        plan
    }

    /// Leaves out more; false if all of that was left out before.
    pub(super) fn leave_out(&mut self, steps: &[usize]) -> bool {
        let mut fresh = false;
        for number in steps {
            fresh |= self.without.insert(u16::try_from(*number).unwrap_or(u16::MAX));
        }
        fresh
    }
}

/// Like `q1-4f-1.2.7`: version, seed in hexadecimal, and the steps that are left out.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let without: Vec<_> = self.without.iter().map(ToString::to_string).collect();
        write!(f, "q1-{:x}-{}", self.seed, without.join("."))
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let read = || {
            let (seed, without) = text.trim().strip_prefix("q1-")?.split_once('-')?;
            let without = without.split('.').filter(|number| !number.is_empty()).map(str::parse);
            let without = without.collect::<Result<_, _>>().ok()?;
            Some(Self { seed: u64::from_str_radix(seed, 16).ok()?, without })
        };
        read().ok_or_else(|| BadToken(text.to_owned()))
    }
}

/// A text that is no token of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no token: give one that `rivus simulate --rules` of the same version printed")]
pub struct BadToken(pub String);

/// The nearest replay script of a plan: its edits and restarts, and whole syncs for partial ones; without the rule of
/// the application's own. Whether it still shows the failure has to be tried.
#[must_use]
pub fn replay_script(plan: &Plan) -> Option<String> {
    let schema: JsonValue = serde_json::from_str(&plan.variant.told()?.to_json()).ok()?;
    let mut script = format!("{}\n", json!({"rivus": "replay/1", "schema": schema}));
    for number in 0..plan.sites.len() {
        line(&mut script, &json!({"do": "replica", "name": name(number)}));
    }
    let (mut passed, mut set) = (0_i64, vec![0_i64; plan.sites.len()]);
    for step in plan.steps.iter().flatten() {
        passed += i64::from(step.wait_ms);
        match &step.action {
            Action::Edit { on, ops } => {
                let at = site::BEGIN_MS + passed + plan.sites[*on].skew_ms + set[*on];
                ops.iter().for_each(|op| line(&mut script, &edit(op, &name(*on), at)));
            }
            Action::Give { from, to, .. } | Action::Sync { from, to, .. } => {
                line(&mut script, &json!({"do": "sync", "between": [name(*from), name(*to)]}));
            }
            Action::Restart { on } => line(&mut script, &json!({"do": "restart", "on": name(*on)})),
            Action::SetClock { on, by_ms } => set[*on] += by_ms,
            _ => {}
        }
    }
    for number in 0..plan.sites.len() {
        line(&mut script, &json!({"do": "show", "on": name(number)}));
    }
    Some(script)
}

/// How many runs a failure is made small with.
const SHRINK_RUNS_MAX: usize = 600;

/// A failure as it is told: the finding, a token, the story, and a replay script.
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
        let Shrunk { plan, failure, token } = &self.shrunk;
        writeln!(f, "{failure}")?;
        writeln!(f, "again: rivus simulate --token {token}")?;
        write!(f, "{plan}")?;
        match replay_script(plan) {
            Some(script) => writeln!(f, "the nearest replay script:\n{script}"),
            None => Ok(()),
        }
    }
}
