//! Why an edit is refused.

use super::{EDIT_BYTES_MAX, EDIT_REGISTERS_MAX};
use crate::clock::ClockError;
use crate::store::{CommitError, StoreError};
use crate::value;

/// Why an edit is refused. Nothing was changed and no stamp used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The entities of one edit are in two scopes.
    #[error(
        "the edit would reach into the scope `{one}` ({one_entity}) and into `{two}` ({two_entity}): make an edit of \
         each"
    )]
    Scopes {
        /// A scope.
        one: String,
        /// An entity that is, or would be, in it.
        one_entity: String,
        /// Another scope.
        two: String,
        /// An entity that is, or would be, in that.
        two_entity: String,
    },
    /// The schema does not declare the kind.
    #[error("kind `{kind}` is not declared: add it to the schema")]
    UndeclaredKind {
        /// The kind.
        kind: String,
    },
    /// The kind does not declare the field and is not open.
    #[error("kind `{kind}` has no field `{field}`: declare it, or make the kind open")]
    UndeclaredField {
        /// The kind.
        kind: String,
        /// The field.
        field: String,
    },
    /// The field is for the authority and replicas with a rank above 0.
    #[error(
        "field `{field}` of kind `{kind}` is written by the authority and replicas with a rank: ask it for one"
    )]
    Ranked {
        /// The kind.
        kind: String,
        /// The field.
        field: String,
    },
    /// Entities of the kind do not stand for each other.
    #[error("entities of kind `{kind}` do not stand for each other: declare that it has aliases")]
    NoAliases {
        /// The kind.
        kind: String,
    },
    /// The operation does not fit the field's type.
    #[error("`{tried}` does not fit field `{field}` of kind `{kind}`, which is: {ty}{}", instead(ty))]
    WrongType {
        /// The kind.
        kind: String,
        /// The field.
        field: String,
        /// What the field is.
        ty: String,
        /// The operation.
        tried: &'static str,
    },
    /// An edit, or an insert, of an entity that shows as deleted.
    #[error("{kind} `{id}` is deleted: revive it first")]
    Deleted {
        /// The kind.
        kind: String,
        /// The entity.
        id: String,
    },
    /// An edit of an entity that was evicted.
    #[error("{kind} `{id}` was evicted and is at the authority alone: fetch it first")]
    Evicted {
        /// The kind.
        kind: String,
        /// The entity.
        id: String,
    },
    /// A delete of an entity that is not held or shows as deleted.
    #[error("{kind} `{id}` does not exist or is deleted")]
    NotThere {
        /// The kind.
        kind: String,
        /// The entity.
        id: String,
    },
    /// An insert of an entity that is held already.
    #[error("{kind} `{id}` exists already: edit it instead, or take another id")]
    Exists {
        /// The kind.
        kind: String,
        /// The entity.
        id: String,
    },
    /// A revival of an entity that is not deleted.
    #[error("{kind} `{id}` is not deleted")]
    NotDeleted {
        /// The kind.
        kind: String,
        /// The entity.
        id: String,
    },
    /// A counter would leave the 64 bits of this replica's share.
    #[error("counter `{field}` stands at {total} here and cannot take {by} more")]
    Overflow {
        /// The counter.
        field: String,
        /// This replica's running total.
        total: i64,
        /// What was to be added.
        by: i64,
    },
    /// A name, id or key is too long.
    #[error("{what} of {bytes} bytes is too long: at most {max}")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A value is nested too deeply.
    #[error("the value of `{field}` is nested more than {} deep", value::DEPTH_MAX)]
    TooDeep {
        /// The field.
        field: String,
    },
    /// The edit is too large.
    #[error(
        "an edit of {registers} registers and {bytes} bytes is too large: at most {EDIT_REGISTERS_MAX} and \
         {EDIT_BYTES_MAX}; make several edits of it"
    )]
    TooLarge {
        /// How many registers it would write.
        registers: usize,
        /// How many bytes.
        bytes: usize,
    },
    /// The clock cannot make a stamp.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The store failed, or others kept changing what the edit reads.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The application's own closure refused.
    #[error("{0}")]
    App(String),
}

impl From<StoreError> for EditError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

/// What fits a field of the type that is described so.
fn instead(ty: &str) -> &'static str {
    match ty.split([',', ' ']).next() {
        Some("set") => " (`add` and `remove` change it)",
        Some("map") => " (`set_key` and `remove` change it)",
        Some("counter") => " (`inc` changes it)",
        _ => " (`put` sets it)",
    }
}
