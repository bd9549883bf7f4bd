//! What a run is to do, as plain data: the sites, and the steps in order.
//!
//! Invariant: a plan is a function of its seed, and any step of it may be left out.

use std::fmt;

use rivus_core::edit::Op;

pub use super::schema::Variant;
use crate::sim::plan::{Said, name};

/// Who syncs with whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Everybody with everybody.
    Peers,
    /// Everybody with site 0, which is the authority.
    Hub,
}

/// One machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Site {
    /// How far its clock is off, in ms.
    pub skew_ms: i64,
}

/// Which of the registers that one holds another is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// All.
    All,
    /// Some entities, by this seed.
    Entities(u64),
    /// Some registers, by this seed: edits are torn apart.
    Registers(u64),
}

/// What happens in a step.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// A user edits, in one transaction.
    Edit {
        /// Where.
        on: usize,
        /// What.
        ops: Vec<Op>,
    },
    /// A user sets as the end of an entry what is shown as its end.
    Confirm {
        /// Where.
        on: usize,
        /// Which entry.
        id: String,
    },
    /// One gives another of what it holds, as a delta.
    Give {
        /// Who.
        from: usize,
        /// To whom.
        to: usize,
        /// How much.
        extent: Extent,
    },
    /// Two connect and exchange so many frames.
    Sync {
        /// Who connects.
        from: usize,
        /// To whom.
        to: usize,
        /// After so many the connection breaks; `u16::MAX` for never.
        frames: u16,
    },
    /// The process ends and starts again.
    Restart {
        /// Where.
        on: usize,
    },
    /// The clock is set.
    SetClock {
        /// Where.
        on: usize,
        /// By how much, in ms.
        by_ms: i64,
    },
    /// Somebody tells of a later version of the rules.
    Hear {
        /// Where.
        on: usize,
    },
    /// The program is replaced by one that knows the later version.
    Upgrade {
        /// Where.
        on: usize,
    },
    /// A program that knows no rules edits.
    Foreign {
        /// Where.
        on: usize,
        /// What.
        ops: Vec<Op>,
    },
    /// The store is found to be a copy.
    StartOver {
        /// Where.
        on: usize,
    },
    /// The authority grants another rank.
    Grant {
        /// To whom.
        to: usize,
        /// Which.
        rank: u8,
    },
}

impl Action {
    /// Whether a site takes part.
    #[must_use]
    pub fn touches(&self, site: usize) -> bool {
        match self {
            Self::Give { from, to, .. } | Self::Sync { from, to, .. } => *from == site || *to == site,
            Self::Edit { on, .. }
            | Self::Confirm { on, .. }
            | Self::Restart { on }
            | Self::SetClock { on, .. }
            | Self::Hear { on }
            | Self::Upgrade { on }
            | Self::Foreign { on, .. }
            | Self::StartOver { on }
            | Self::Grant { to: on, .. } => *on == site,
        }
    }
}

/// One step.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// How much time passes before it, in ms.
    pub wait_ms: u32,
    /// What happens.
    pub action: Action,
}

/// All of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// From what everything was made.
    pub seed: u64,
    /// Who syncs with whom.
    pub shape: Shape,
    /// The schema.
    pub variant: Variant,
    /// The sites.
    pub sites: Vec<Site>,
    /// What happens, in order; `None` where a step was left out.
    pub steps: Vec<Option<Step>>,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edit { on, ops } => {
                write!(f, "{} edits:", name(*on))?;
                ops.iter().try_for_each(|op| write!(f, " {}", Said(op)))
            }
            Self::Confirm { on, id } => write!(f, "{} confirms the end of {id}", name(*on)),
            Self::Give { from, to, extent } => {
                write!(f, "{} gives {} ", name(*from), name(*to))?;
                match extent {
                    Extent::All => write!(f, "all it has"),
                    Extent::Entities(seed) => write!(f, "some entities ({seed:x})"),
                    Extent::Registers(seed) => write!(f, "some registers ({seed:x})"),
                }
            }
            Self::Sync { from, to, frames: u16::MAX } => {
                write!(f, "{} syncs with {}", name(*from), name(*to))
            }
            Self::Sync { from, to, frames } => {
                write!(f, "{} syncs with {}, cut after {frames} frames", name(*from), name(*to))
            }
            Self::Restart { on } => write!(f, "{} restarts", name(*on)),
            Self::SetClock { on, by_ms } => write!(f, "{}'s clock is set by {by_ms} ms", name(*on)),
            Self::Hear { on } => write!(f, "{} hears of later rules", name(*on)),
            Self::Upgrade { on } => write!(f, "{} gets the later rules", name(*on)),
            Self::Foreign { on, ops } => {
                write!(f, "{} edits by a program without rules:", name(*on))?;
                ops.iter().try_for_each(|op| write!(f, " {}", Said(op)))
            }
            Self::StartOver { on } => write!(f, "{} is found to be a copy", name(*on)),
            Self::Grant { to, rank } => write!(f, "{} is granted rank {rank}", name(*to)),
        }
    }
}

/// The story: sites and steps.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}, {} sites, seed {}", self.shape, self.sites.len(), self.seed)?;
        writeln!(f, "  {:?}", self.variant)?;
        for (number, site) in self.sites.iter().enumerate().filter(|(_, site)| site.skew_ms != 0) {
            writeln!(f, "  {}: clock off by {} ms", name(number), site.skew_ms)?;
        }
        for (number, step) in self.steps.iter().enumerate() {
            if let Some(step) = step {
                writeln!(f, "  {number:>3} +{} ms  {}", step.wait_ms, step.action)?;
            }
        }
        Ok(())
    }
}
