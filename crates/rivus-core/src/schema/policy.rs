//! Policies: how a field, and the existence of an entity, merges.
//!
//! Owns their names, which are the words of the text forms and of mismatches. Applies none of them.

use std::fmt;
use std::sync::Arc;

use crate::clock::Stamp;
use crate::value::Value;

/// How a field is stored and merged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FieldType {
    /// One value.
    Value {
        /// How far back a write keeps concurrent ones in the running.
        margin: Margin,
        /// Which of those in the running is shown.
        resolver: Resolver,
    },
    /// All concurrent values are shown.
    Multi,
    /// A set of keys.
    Set {
        /// Which of a concurrent add and remove wins.
        wins: SetWins,
    },
    /// A map from key to value; for each key the newest write wins.
    Map,
    /// The sum of every replica's increments.
    Counter,
    /// The greatest concurrent value.
    Max,
    /// The least concurrent value.
    Min,
    /// True if any concurrent value is.
    Flag,
    /// The user's fold of all concurrent values.
    Custom {
        /// The fold.
        resolver: Resolver,
    },
}

impl FieldType {
    /// The plain value: margin 0, the newest wins.
    pub const PLAIN: Self = Self::Value { margin: Margin::ZERO, resolver: Resolver::Newest };

    /// How far back a write of such a field keeps concurrent ones in the running.
    #[must_use]
    pub fn margin(&self) -> Margin {
        match self {
            Self::Value { margin, .. } => *margin,
            Self::Map | Self::Counter => Margin::ZERO,
            Self::Multi | Self::Set { .. } | Self::Max | Self::Min | Self::Flag | Self::Custom { .. } => {
                Margin::Infinite
            }
        }
    }

    /// The word for it in the text forms.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Value { .. } => "value",
            Self::Multi => "multi",
            Self::Set { .. } => "set",
            Self::Map => "map",
            Self::Counter => "counter",
            Self::Max => "max",
            Self::Min => "min",
            Self::Flag => "flag",
            Self::Custom { .. } => "custom",
        }
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Value { margin, resolver } => write!(f, ", margin {margin}, {resolver}"),
            Self::Set { wins } => write!(f, ", {wins} wins"),
            Self::Custom { resolver } => write!(f, ", {resolver}"),
            _ => Ok(()),
        }
    }
}

/// How much older than the newest write a concurrent one may be and still be in the running.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Margin {
    /// This many milliseconds, at most [`MARGIN_MS_MAX`](super::MARGIN_MS_MAX).
    Ms(u64),
    /// Any age.
    Infinite,
}

impl Margin {
    /// None at all: plain last-writer-wins.
    pub const ZERO: Self = Self::Ms(0);
}

impl Default for Margin {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Display for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ms(ms) => write!(f, "{ms} ms"),
            Self::Infinite => f.write_str("inf"),
        }
    }
}

/// Which of the candidates in the running is shown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Resolver {
    /// The newest.
    #[default]
    Newest,
    /// The oldest.
    Oldest,
    /// The one of greatest rank, then the newest.
    Rank,
    /// The least value, then the newest.
    Min,
    /// The greatest value, then the newest.
    Max,
    /// What the user's function makes of them.
    Custom(CustomResolver),
}

impl Resolver {
    /// Those that need no function.
    pub(super) const BUILT_IN: [Self; 5] = [Self::Newest, Self::Oldest, Self::Rank, Self::Min, Self::Max];
}

impl fmt::Display for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
            Self::Rank => "rank",
            Self::Min => "min",
            Self::Max => "max",
            Self::Custom(CustomResolver { name, .. }) => return write!(f, "{CUSTOM_PREFIX}{name}"),
        })
    }
}

/// A user's function over the candidates, known to peers by its name.
///
/// It must be pure: every replica has to make the same value of the same candidates.
#[derive(Clone)]
pub struct CustomResolver {
    /// What peers compare; give a changed function another name. 1 to 255 bytes.
    pub name: String,
    /// Takes the candidates ascending by stamp, at least one.
    pub f: Arc<dyn Fn(&[Candidate<'_>]) -> Value + Send + Sync>,
}

impl CustomResolver {
    /// The function `f` under the name `name`.
    pub fn new(
        name: impl Into<String>,
        f: impl Fn(&[Candidate<'_>]) -> Value + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), f: Arc::new(f) }
    }
}

impl PartialEq for CustomResolver {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for CustomResolver {}

impl fmt::Debug for CustomResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CustomResolver").field(&self.name).finish()
    }
}

/// What a custom resolver sees of one write in the running.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Candidate<'a> {
    /// When and by whom.
    pub stamp: Stamp,
    /// The writer's authority, 0 without one.
    pub rank: u8,
    /// What was written.
    pub value: &'a Value,
}

/// How deletes and concurrent edits of an entity merge.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Life {
    /// Deleted if any concurrent candidate says so.
    #[default]
    DeleteWins,
    /// Deleted only if all concurrent candidates say so; every edit says alive.
    EditRevives,
    /// The newest delete or revival decides.
    Newest,
}

impl Life {
    pub(super) const ALL: [Self; 3] = [Self::DeleteWins, Self::EditRevives, Self::Newest];

    /// How far back a write of life keeps concurrent ones in the running.
    #[must_use]
    pub fn margin(self) -> Margin {
        match self {
            Self::DeleteWins | Self::EditRevives => Margin::Infinite,
            Self::Newest => Margin::ZERO,
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeleteWins => "delete-wins",
            Self::EditRevives => "edit-revives",
            Self::Newest => "newest",
        })
    }
}

/// Which of a concurrent add and remove of one key wins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SetWins {
    /// The key is in if any candidate says so.
    #[default]
    Add,
    /// The key is in only if all candidates say so.
    Remove,
}

impl SetWins {
    pub(super) const ALL: [Self; 2] = [Self::Add, Self::Remove];
}

impl fmt::Display for SetWins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::Remove => "remove",
        })
    }
}

/// What the name of a user's function follows in text, so that it cannot pass for a built-in one.
pub(super) const CUSTOM_PREFIX: &str = "custom:";
