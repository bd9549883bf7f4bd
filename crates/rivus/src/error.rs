//! The one error of the facade.

use rivus_core::edit::EditError;
use rivus_core::schema::{Mismatch, SchemaError};
use rivus_core::store::{CommitError, StoreError};
use rivus_core::value::ValueError;

/// Why something did not happen. Unless a method says otherwise nothing has changed then.
///
/// ```
/// use rivus::{Action, Db, EditError, Error, Op, Schema};
/// let db = Db::memory(Schema::open())?;
/// let refused = db.apply(&[Op::new("task", "t1", Action::Delete)]);
/// assert!(matches!(refused, Err(Error::Edit(EditError::NotThere { .. }))));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An edit was refused.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The declarations make no schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A struct and the schema that was given merge the same data differently.
    #[error("the struct and the schema disagree, the struct being \"here\": {0}")]
    Mismatch(Mismatch),
    /// The schema merges otherwise than the one under which the store was last opened.
    #[error(transparent)]
    Migrate(#[from] rivus_core::replica::MigrateError),
    /// A field does not fit between the struct and what is stored.
    #[error(
        "field `{field}` of {kind} `{id}` does not fit its type in the struct: {source}; write a value of that type with \
         `Db::put`, or let the struct take any (`rivus::Value`)"
    )]
    Field {
        /// The entity's kind.
        kind: String,
        /// The entity's id.
        id: String,
        /// The field.
        field: String,
        /// What is wrong with it.
        source: Box<ValueError>,
    },
    /// An edit changed the id of an entity.
    #[error("an edit of {kind} `{id}` made its id `{now}`: insert a new entity and delete this one")]
    IdChanged {
        /// The entity's kind.
        kind: String,
        /// Its id.
        id: String,
        /// What the edit made of it.
        now: String,
    },
    /// Entities were not evicted; none was.
    #[error(transparent)]
    Evict(#[from] rivus_core::replica::EvictError),
    /// Nothing was collected.
    #[error(transparent)]
    Collect(#[from] rivus_core::replica::CollectError),
    /// A sync failed. What was exchanged before is kept.
    #[error(transparent)]
    Sync(#[from] crate::SyncError),
    /// The store cannot take the role that was asked of it.
    #[error(transparent)]
    Role(#[from] rivus_core::replica::RoleError),
    /// A table of views cannot be kept.
    #[error(transparent)]
    Projection(#[from] rivus_core::projection::ProjectionError),
    /// A query over the tables failed.
    #[error("the query failed: {0}")]
    Query(String),
    /// An edit is not taken back.
    #[error(transparent)]
    Undo(#[from] crate::UndoError),
    /// A closure that runs inside a database called the same database.
    #[error(
        "the database was called from inside one of its own edits: use the transaction that the closure gets"
    )]
    Reentrant,
}

impl Error {
    /// An application's own reason to give up a transaction.
    ///
    /// ```
    /// use rivus::{Db, Error, Schema};
    /// let db = Db::memory(Schema::open())?;
    /// let refused = db.transaction(|tx| {
    ///     tx.put("account", "a", [("balance", (-5).into())])?;
    ///     Err::<(), _>(Error::app("the balance would be below 0"))
    /// });
    /// assert_eq!(refused.unwrap_err().to_string(), "the balance would be below 0");
    /// assert_eq!(db.view("account", "a")?, None);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn app(reason: impl std::fmt::Display) -> Self {
        EditError::App(reason.to_string()).into()
    }
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Store(error) => error.into(),
            CommitError::Stale => EditError::from(error).into(),
        }
    }
}
