//! Making a failing plan small: without some sites, syncs and edits, as long as the same oracle still finds it.

use super::plan::{Action, Plan};
use super::told::Token;
use super::{Failure, run};

/// A failing plan, as small as it got.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What is left.
    pub plan: Plan,
    /// What it finds.
    pub failure: Failure,
    /// How to run it again.
    pub token: Token,
}

/// Leaves out what the failure does not need: first all that a site does, then steps, in halves that grow smaller.
/// The same plan always shrinks to the same.
#[must_use]
pub fn shrink(plan: &Plan, failure: &Failure, runs_max: usize) -> Shrunk {
    let mut search = Search { best: Token::of(plan), failure: failure.clone(), runs_left: runs_max };
    let matching = |which: &dyn Fn(&Action) -> bool| -> Vec<usize> {
        let steps = plan.steps.iter().enumerate();
        steps.filter(|(_, s)| s.as_ref().is_some_and(|s| which(&s.action))).map(|(n, _)| n).collect()
    };
    for site in (0..plan.sites.len()).rev() {
        search.attempt(&matching(&|action| action.touches(site)));
    }
    let all = matching(&|_| true);
    loop {
        let before = search.best.clone();
        let mut size = all.len().div_ceil(2);
        while size > 0 {
            all.chunks(size).for_each(|steps| search.attempt(steps));
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
        if search.best == before {
            break;
        }
    }
    Shrunk { plan: search.best.plan(), failure: search.failure, token: search.best }
}

struct Search {
    best: Token,
    failure: Failure,
    runs_left: usize,
}

impl Search {
    fn attempt(&mut self, steps: &[usize]) {
        let mut token = self.best.clone();
        if !token.leave_out(steps) || self.runs_left == 0 {
            return;
        }
        self.runs_left -= 1;
        let oracle = self.failure.oracle;
        if let Some(failure) = run(&token.plan()).failure.filter(|failure| failure.oracle == oracle) {
            self.best = token;
            self.failure = failure;
        }
    }
}
