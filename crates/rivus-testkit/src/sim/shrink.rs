//! Making a failing plan small: without some sites, edits, syncs, faults, as long as the same oracle still finds it.

use super::plan::{Action, Fault, Plan, Step};
use super::token::Token;
use super::{Failure, Oracle, run};

/// A failing plan, as small as it got.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What is left.
    pub plan: Plan,
    /// What it finds.
    pub failure: Failure,
    /// How to run it again.
    pub token: Token,
    /// How many runs it took.
    pub runs: usize,
}

/// Leaves out what the failure does not need: sites, then edits, then syncs, then faults, each in halves that grow
/// smaller. The same plan always shrinks to the same.
#[must_use]
pub fn shrink(plan: &Plan, failure: &Failure, runs_max: usize) -> Shrunk {
    let mut search = Search { best: Token::of(plan), failure: failure.clone(), runs: 0, runs_max };
    for site in (1..plan.sites.len()).rev() {
        let steps = matching(plan, |action| action.touches(site));
        search.attempt(&steps, &[]);
    }
    for _ in 0..3 {
        let before = search.best.clone();
        search.halves(&matching(plan, |action| matches!(action, Action::Edit { .. })), Part::Steps);
        search.halves(&matching(plan, is_sync), Part::Steps);
        search.halves(
            &matching(plan, |action| !is_sync(action) && !matches!(action, Action::Edit { .. })),
            Part::Steps,
        );
        search.halves(&matching(plan, has_fault), Part::Faults);
        if search.best == before {
            break;
        }
    }
    let Search { best, failure, runs, .. } = search;
    Shrunk { plan: best.plan(), failure, token: best, runs }
}

fn is_sync(action: &Action) -> bool {
    matches!(
        action,
        Action::Sync { .. }
            | Action::Connect { .. }
            | Action::Carry { .. }
            | Action::Quiet { .. }
            | Action::Cut { .. }
    )
}

/// Whether the network has a fault in this step.
pub(super) fn has_fault(action: &Action) -> bool {
    matches!(action, Action::Sync { fault, .. } if *fault != Fault::None)
}

fn matching(plan: &Plan, which: impl Fn(&Action) -> bool) -> Vec<usize> {
    let of = |step: &Option<Step>| step.as_ref().is_some_and(|step| which(&step.action));
    plan.steps.iter().enumerate().filter(|(_, step)| of(step)).map(|(number, _)| number).collect()
}

#[derive(Clone, Copy)]
enum Part {
    Steps,
    Faults,
}

struct Search {
    best: Token,
    failure: Failure,
    runs: usize,
    runs_max: usize,
}

impl Search {
    fn oracle(&self) -> Oracle {
        self.failure.oracle
    }

    /// Leaves these out if what is left still fails in the same way.
    fn attempt(&mut self, steps: &[usize], faults: &[usize]) {
        let mut token = self.best.clone();
        let fresh = token.leave_out(steps, faults);
        if !fresh || self.runs >= self.runs_max {
            return;
        }
        self.runs += 1;
        if let Some(failure) = run(&token.plan()).failure.filter(|failure| failure.oracle == self.oracle()) {
            self.best = token;
            self.failure = failure;
        }
    }

    fn halves(&mut self, numbers: &[usize], part: Part) {
        let mut size = numbers.len().div_ceil(2);
        while size > 0 {
            for chunk in numbers.chunks(size) {
                match part {
                    Part::Steps => self.attempt(chunk, &[]),
                    Part::Faults => self.attempt(&[], chunk),
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }
}
