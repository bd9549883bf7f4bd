//! What a run is to do, as plain data: the sites, and the steps in order.
//!
//! Invariant: a plan is a function of flavour and seed, and any part of it may be left out: a step that no longer
//! fits (its site is not there, its link is not up) does nothing.

use std::fmt;

use rivus_core::edit::{Action as EditAction, Op};
use rivus_core::value::Json;

pub use super::schema::Version;
pub use super::store::Death;

/// How large a run is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Flavour {
    /// 20 to 60 steps on stores in memory.
    Core,
    /// 200 steps and more on SQLite files, with every fault.
    Full,
}

/// Who syncs with whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Everybody with everybody.
    Peers,
    /// Everybody with site 0 alone, which judges nothing.
    Relay,
    /// Everybody with site 0, which is the authority.
    Hub,
}

/// One machine with a store and a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    /// By which schema it reads and writes.
    pub version: Version,
    /// How far its clock is off, in ms.
    pub skew_ms: i64,
    /// How much faster than time its clock runs, in parts per million.
    pub drift_ppm: i64,
    /// How far ahead others' stamps may be, in ms; `None` takes every stamp.
    pub drift_ms_max: Option<u64>,
    /// The rank of its edits, or the rank that the authority grants it.
    pub rank: u8,
    /// Comes into being as a copy of another site's store.
    pub is_copy: bool,
    /// Is a second process on the store, and by the clock, of this site.
    pub twin: Option<usize>,
}

/// What the network does to one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// It breaks after so many frames.
    Cut(u16),
    /// After so many frames, only those from the connecting side still arrive.
    Forward(u16),
    /// After so many frames, only those to the connecting side still arrive.
    Backward(u16),
    /// Each frame is lost, doubled or swapped with the next with these chances in percent.
    Noise {
        /// Lost.
        lost: u8,
        /// Doubled.
        doubled: u8,
        /// Swapped.
        swapped: u8,
    },
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
    /// The two connect, exchange what there is, and part.
    Sync {
        /// Who connects.
        from: usize,
        /// To whom.
        to: usize,
        /// What the network does.
        fault: Fault,
    },
    /// The two connect and stay so.
    Connect {
        /// Who connects.
        from: usize,
        /// To whom.
        to: usize,
    },
    /// The link carries so many frames.
    Carry {
        /// Who has connected.
        from: usize,
        /// How many.
        frames: u16,
    },
    /// Nothing has come for a second.
    Quiet {
        /// Who has connected.
        from: usize,
    },
    /// The link breaks, with what is under way.
    Cut {
        /// Who has connected.
        from: usize,
    },
    /// The process will die at a commit.
    Die {
        /// Where.
        on: usize,
        /// How many commits go well before.
        commits: u8,
        /// At which point.
        death: Death,
    },
    /// The process ends, if it runs, and starts again.
    Restart {
        /// Where.
        on: usize,
    },
    /// A backup of the store is made.
    Backup {
        /// Where.
        on: usize,
    },
    /// The backup takes the store's place.
    Restore {
        /// Where.
        on: usize,
    },
    /// The store is copied to a site that is not there yet, and both go on.
    Copy {
        /// From where.
        from: usize,
        /// To where.
        to: usize,
    },
    /// The clock is set.
    SetClock {
        /// Where.
        on: usize,
        /// By how much, in ms.
        by_ms: i64,
    },
    /// The authority grants another rank.
    Grant {
        /// To whom.
        to: usize,
        /// Which.
        rank: u8,
    },
    /// The next commit meets another writer.
    Overtake {
        /// Where.
        on: usize,
    },
}

impl Action {
    /// Whether a site takes part.
    #[must_use]
    pub fn touches(&self, site: usize) -> bool {
        match self {
            Self::Edit { on, .. }
            | Self::Die { on, .. }
            | Self::Restart { on }
            | Self::Backup { on }
            | Self::Restore { on }
            | Self::SetClock { on, .. }
            | Self::Overtake { on } => *on == site,
            Self::Sync { from, to, .. } | Self::Connect { from, to } | Self::Copy { from, to } => {
                *from == site || *to == site
            }
            Self::Carry { from, .. } | Self::Quiet { from } | Self::Cut { from } => *from == site,
            Self::Grant { to, .. } => *to == site,
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
    /// How large it is.
    pub flavour: Flavour,
    /// Who syncs with whom.
    pub shape: Shape,
    /// The sites.
    pub sites: Vec<Site>,
    /// What happens, in order; `None` where a step was left out.
    pub steps: Vec<Option<Step>>,
}

/// A site's name in accounts: a, b, c …; the hub is a.
#[must_use]
pub fn name(site: usize) -> String {
    let letter = u8::try_from(site % 26).unwrap_or(0);
    char::from(b'a' + letter).to_string()
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edit { on, ops } => {
                write!(f, "{} edits:", name(*on))?;
                ops.iter().try_for_each(|op| write!(f, " {}", Said(op)))
            }
            Self::Sync { from, to, fault } => {
                write!(f, "{} syncs with {}", name(*from), name(*to))?;
                match fault {
                    Fault::None => Ok(()),
                    Fault::Cut(frames) => write!(f, ", cut after {frames} frames"),
                    Fault::Forward(frames) => write!(f, ", after {frames} frames nothing comes back"),
                    Fault::Backward(frames) => write!(f, ", after {frames} frames nothing goes out"),
                    Fault::Noise { lost, doubled, swapped } => {
                        write!(f, ", {lost} % lost, {doubled} % doubled, {swapped} % swapped")
                    }
                }
            }
            Self::Connect { from, to } => write!(f, "{} connects to {} and stays", name(*from), name(*to)),
            Self::Carry { from, frames } => write!(f, "the link of {} carries {frames} frames", name(*from)),
            Self::Quiet { from } => write!(f, "the link of {} is quiet for a second", name(*from)),
            Self::Cut { from } => write!(f, "the link of {} breaks", name(*from)),
            Self::Die { on, commits, death } => {
                let when = if *death == Death::Before { "before" } else { "after" };
                write!(f, "{} will die {when} its commit number {}", name(*on), u16::from(*commits) + 1)
            }
            Self::Restart { on } => write!(f, "{} restarts", name(*on)),
            Self::Backup { on } => write!(f, "{} is backed up", name(*on)),
            Self::Restore { on } => write!(f, "{} is restored from its backup", name(*on)),
            Self::Copy { from, to } => write!(f, "{}'s store is copied to {}", name(*from), name(*to)),
            Self::SetClock { on, by_ms } => write!(f, "{}'s clock is set by {by_ms} ms", name(*on)),
            Self::Grant { to, rank } => write!(f, "{} is granted rank {rank}", name(*to)),
            Self::Overtake { on } => write!(f, "another writer overtakes {}'s next commit", name(*on)),
        }
    }
}

pub(crate) struct Said<'o>(pub(crate) &'o Op);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Op { kind, id, action } = self.0;
        write!(f, "[{kind} {id} ")?;
        let value = |value: &rivus_core::value::Value| {
            let text = serde_json::to_string(&Json(value)).unwrap_or_default();
            if text.len() <= 40 { text } else { format!("{} bytes", text.len()) }
        };
        match action {
            EditAction::Put(fields) => {
                let fields: Vec<_> = fields.iter().map(|(name, v)| format!("{name}={}", value(v))).collect();
                write!(f, "{}", fields.join(" "))?;
            }
            EditAction::Add { field, key } => write!(f, "{field} add {key}")?,
            EditAction::Remove { field, key } => write!(f, "{field} remove {key}")?,
            EditAction::SetKey { field, key, value: v } => write!(f, "{field}.{key}={}", value(v))?,
            EditAction::Inc { field, by } => write!(f, "{field} {by:+}")?,
            EditAction::Delete => f.write_str("delete")?,
            EditAction::Revive => f.write_str("revive")?,
            EditAction::Alias { to } => write!(f, "alias {to}")?,
        }
        f.write_str("]")
    }
}

/// The story: sites and steps.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}, {} sites, seed {}", self.shape, self.sites.len(), self.seed)?;
        for (number, site) in self.sites.iter().enumerate() {
            let Site { version, skew_ms, drift_ppm, drift_ms_max, rank, is_copy, twin } = site;
            write!(f, "  {}: {version:?} schema, clock off by {skew_ms} ms", name(number))?;
            write!(f, " and {drift_ppm} ppm, rank {rank}")?;
            match drift_ms_max {
                Some(ms) => write!(f, ", takes stamps up to {ms} ms ahead")?,
                None => write!(f, ", takes every stamp")?,
            }
            if let Some(twin) = twin {
                write!(f, ", a second process on the store of {}", name(*twin))?;
            }
            writeln!(f, "{}", if *is_copy { ", a copy to be" } else { "" })?;
        }
        for (number, step) in self.steps.iter().enumerate() {
            if let Some(step) = step {
                writeln!(f, "  {number:>3} +{} ms  {}", step.wait_ms, step.action)?;
            }
        }
        Ok(())
    }
}
