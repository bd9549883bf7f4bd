//! How a failing history gets smaller: replicas go, then edits, then syncs, then values.
//!
//! Each reduction is one try; proptest keeps it if the check still fails, else it is taken back. What is left at the
//! end needs every replica and every step that it has.

use proptest::strategy::ValueTree;
use rivus_core::edit::Action;
use rivus_core::value::Value;

use super::{History, Step};

/// A history that is being made smaller.
#[derive(Clone, Debug)]
pub struct HistoryTree {
    history: History,
    /// What the last try changed.
    before: Option<History>,
    stage: Stage,
    /// Which replica or step the next try of this stage is about.
    at: usize,
    /// How many steps a try of [`Stage::Edits`] and [`Stage::Syncs`] takes out.
    run: usize,
    /// Whether this pass has taken anything out.
    gained: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Replicas,
    Edits,
    Syncs,
    Values,
    Done,
}

impl HistoryTree {
    pub(super) fn new(history: History) -> Self {
        let run = history.steps.len();
        Self { history, before: None, stage: Stage::Replicas, at: 0, run, gained: false }
    }

    /// The next smaller history, or `None` where this stage has no more.
    fn smaller(&self) -> Option<History> {
        match self.stage {
            Stage::Replicas => self.without_replica(),
            Stage::Edits => self.without_steps(|step| matches!(step, Step::Edit { .. })),
            Stage::Syncs => self.without_steps(|step| matches!(step, Step::Sync { .. })),
            Stage::Values => self.with_plain_values(),
            Stage::Done => None,
        }
    }

    /// Without the replica numbered `at` and what it does; past the last of them, with one replica in the place of
    /// another.
    fn without_replica(&self) -> Option<History> {
        let count = self.history.ranks.len();
        if count == 1 || self.at >= count + count * count {
            return None;
        }
        let (gone, instead) = match self.at.checked_sub(count) {
            None => (self.at, None),
            Some(pair) => (pair % count, Some(pair / count)),
        };
        let place = |replica: usize| {
            let replica = if replica == gone { instead.filter(|other| *other != gone)? } else { replica };
            Some(if replica > gone { replica - 1 } else { replica })
        };
        let step = |step: &Step| match step {
            Step::Edit { on, at, op } => Some(Step::Edit { on: place(*on)?, at: *at, op: op.clone() }),
            Step::Sync { from, to } => {
                let (from, to) = (place(*from)?, place(*to)?);
                (from != to).then_some(Step::Sync { from, to })
            }
        };
        let mut ranks = self.history.ranks.clone();
        ranks.remove(gone);
        Some(History { ranks, steps: self.history.steps.iter().filter_map(step).collect() })
    }

    /// Without `run` of the steps of a sort, from the one numbered `at`.
    fn without_steps(&self, sort: impl Fn(&Step) -> bool) -> Option<History> {
        let gone = self.at..self.at + self.run;
        let mut number = 0;
        let mut smaller = self.history.clone();
        smaller.steps.retain(|step| {
            let of_sort = sort(step);
            number += usize::from(of_sort);
            !(of_sort && gone.contains(&(number - 1)))
        });
        (smaller.steps.len() < self.history.steps.len()).then_some(smaller)
    }

    /// With what the step numbered `at` writes made plain.
    fn with_plain_values(&self) -> Option<History> {
        let mut plain = self.history.clone();
        let number = i64::try_from(self.at).unwrap_or_default();
        if let Step::Edit { op, .. } = plain.steps.get_mut(self.at)? {
            match &mut op.action {
                Action::Put(fields) => fields.iter_mut().for_each(|(_, value)| *value = Value::Int(number)),
                Action::SetKey { value, .. } => *value = Value::Int(number),
                Action::Inc { by, .. } => *by = 1,
                _ => {}
            }
        }
        Some(plain)
    }

    /// To shorter runs, the next stage, or another pass if this one gained anything.
    fn next_stage(&mut self) {
        self.at = 0;
        let runs = matches!(self.stage, Stage::Edits | Stage::Syncs);
        if runs && self.run > 1 {
            self.run /= 2;
            return;
        }
        self.run = self.history.steps.len().max(1);
        self.stage = match self.stage {
            Stage::Replicas => Stage::Edits,
            Stage::Edits => Stage::Syncs,
            Stage::Syncs if std::mem::take(&mut self.gained) => Stage::Replicas,
            Stage::Syncs => Stage::Values,
            Stage::Values | Stage::Done => Stage::Done,
        };
    }
}

impl ValueTree for HistoryTree {
    type Value = History;

    fn current(&self) -> History {
        self.history.clone()
    }

    fn simplify(&mut self) -> bool {
        // The last try still failed: what it took out stays out, and another has moved into its place.
        if self.before.take().is_some() {
            if self.stage == Stage::Values {
                self.at += 1;
            } else {
                self.gained = true;
            }
        }
        while self.stage != Stage::Done {
            match self.smaller() {
                Some(smaller) if smaller != self.history => {
                    self.before = Some(std::mem::replace(&mut self.history, smaller));
                    return true;
                }
                Some(_) => self.at += 1,
                None => self.next_stage(),
            }
        }
        false
    }

    fn complicate(&mut self) -> bool {
        let Some(before) = self.before.take() else { return false };
        self.history = before;
        self.at += if matches!(self.stage, Stage::Edits | Stage::Syncs) { self.run } else { 1 };
        true
    }
}
