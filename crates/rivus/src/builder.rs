//! How a database is opened.

use std::path::Path;
use std::sync::Arc;

use rivus_core::clock::{Admission, DRIFT_DEFAULT_MS, Millis};
use rivus_core::journal::Keep;
use rivus_core::projection::Projection;
use rivus_core::replica::{OpenOptions, Replica};
use rivus_core::schema::{Schema, SchemaBuilder};
use rivus_sqlite::{Options, SqliteStore};

use crate::any_store::AnyStore;
use crate::machine::{TimeSource, seeds};
use crate::shared::Shared;
use crate::{Db, Entity, Error};

/// A database about to be opened; see [`Db::builder`].
///
/// ```
/// use rivus::{Db, Entity, Millis};
///
/// #[derive(Entity)]
/// struct Note {
///     #[rivus(id)]
///     id: String,
///     text: String,
/// }
///
/// let db = Db::builder().entity::<Note>().clock(|| Millis(1_700_000_000_000)).memory()?;
/// db.insert(&Note { id: "n1".into(), text: "hello".into() })?;
/// # Ok::<(), rivus::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is opened before `open` or `memory`"]
pub struct Builder {
    declared: SchemaBuilder,
    schema: Option<Schema>,
    clock: TimeSource,
    admission: Admission,
    sqlite: Options,
    projections: Vec<Projection>,
    /// What becomes of the journal, if anything does.
    journal: Option<Option<Keep>>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            declared: Schema::builder(),
            schema: None,
            clock: TimeSource::default(),
            admission: Admission::Quarantine { drift_ms_max: DRIFT_DEFAULT_MS },
            sqlite: Options::default(),
            projections: Vec::new(),
            journal: None,
        }
    }

    /// Declares the kind of `T`.
    ///
    /// ```
    /// # use rivus::{Db, Entity};
    /// # #[derive(Entity)] struct Note { #[rivus(id)] id: String, text: String }
    /// let db = Db::builder().entity::<Note>().memory()?;
    /// assert_eq!(db.list::<Note>()?.len(), 0);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn entity<T: Entity>(mut self) -> Self {
        self.declared = self.declared.kind(T::KIND, T::declare);
        self
    }

    /// Says which version of the rules this program has: count it up with every change of a rule. A program that has
    /// met a higher one shows what was written, without rules, and says so ([`Db::unresolved`]), until it is updated.
    ///
    /// A schema that is given whole has an epoch of its own, and keeps it.
    ///
    /// ```
    /// # use rivus::{Db, Entity};
    /// # #[derive(Entity)] struct Note { #[rivus(id)] id: String, #[rivus(unique())] name: String }
    /// let db = Db::builder().entity::<Note>().epoch(2).memory()?;
    /// assert_eq!(db.schema().epoch(), 2);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn epoch(mut self, epoch: u32) -> Self {
        self.declared = self.declared.epoch(epoch);
        self
    }

    /// Takes a whole schema, for example one that was loaded from a file. It alone decides how the data merges;
    /// entities that are declared besides are checked against it.
    ///
    /// ```
    /// # use rivus::{Db, Entity, Error, Schema};
    /// # #[derive(Entity)] struct Note { #[rivus(id)] id: String, text: String }
    /// let shared = Schema::builder().kind("note", |kind| kind.counter("text")).build()?;
    /// let opened = Db::builder().schema(shared).entity::<Note>().memory();
    /// assert!(matches!(opened, Err(Error::Mismatch(_))));
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = Some(schema);
        self
    }

    /// Reads the time from `clock` instead of the system: for tests and simulations. It may step back.
    ///
    /// ```
    /// # use rivus::{Db, Millis, Schema};
    /// let db = Db::builder().schema(Schema::open()).clock(|| Millis(5)).memory()?;
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn clock(mut self, clock: impl Fn() -> Millis + Send + Sync + 'static) -> Self {
        self.clock = TimeSource::new(clock);
        self
    }

    /// Says what is done with writes of others that are stamped in the future. Without this, those more than a
    /// minute ahead are set aside until they are due.
    ///
    /// ```
    /// # use rivus::{Admission, Db, Schema};
    /// let admission = Admission::Quarantine { drift_ms_max: 5_000 };
    /// let db = Db::builder().schema(Schema::open()).admission(admission).memory()?;
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn admission(mut self, admission: Admission) -> Self {
        self.admission = admission;
        self
    }

    /// Sets how the file is kept: above all, whether each commit survives a loss of power (it does, by default).
    ///
    /// ```
    /// # use rivus::{Db, Schema, SqliteOptions, Synchronous};
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("app.db");
    /// let options = SqliteOptions { synchronous: Synchronous::Normal, ..SqliteOptions::default() };
    /// let db = Db::builder().schema(Schema::open()).sqlite(options).open(&path)?;
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn sqlite(mut self, options: Options) -> Self {
        self.sqlite = options;
        self
    }

    /// Keeps an SQL table of the views of a kind in the file, in the transaction of each change: for the application's
    /// own queries ([`Db::read_connection`](crate::Db::read_connection)) and for other tools. Made anew when the kind's
    /// declaration or the rules have changed, which takes time in a large database.
    ///
    /// Opening fails with [`Error::Projection`] if the kind is not declared, or the database is in memory.
    ///
    /// ```
    /// # use rivus::{Db, Entity, Projection};
    /// # #[derive(Entity)] struct Entry { #[rivus(id)] id: String, user: String, start: i64 }
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("app.db");
    /// let by_user = Projection::new(Entry::KIND).index(["user", "start"]);
    /// let db = Db::builder().entity::<Entry>().project(by_user).open(&path)?;
    /// db.insert(&Entry { id: "e1".into(), user: "ann".into(), start: 5 })?;
    /// let newest = "SELECT id FROM view_entry WHERE user = 'ann' ORDER BY start DESC LIMIT 1";
    /// let newest: String = db.read_connection()?.query_row(newest, [], |row| row.get(0)).unwrap();
    /// assert_eq!(newest, "e1");
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn project(mut self, projection: impl Into<Projection>) -> Self {
        self.projections.push(projection.into());
        self
    }

    /// Begins a journal of all changes in the store, or changes how much of it is kept; with `None` ends it and drops
    /// what it has. That is the store's: it stays so for all that open it, until somebody says otherwise.
    ///
    /// ```
    /// # use rivus::{Db, JournalKeep, LogFilter, Schema};
    /// let keep = JournalKeep { days: Some(30), bytes: Some(1 << 20), entries: None };
    /// let db = Db::builder().schema(Schema::open()).journal(keep).memory()?;
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// assert_eq!(db.log(&LogFilter::default())?.len(), 1);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn journal(mut self, keep: impl Into<Option<Keep>>) -> Self {
        self.journal = Some(keep.into());
        self
    }

    /// Opens the database in the file at `path`, which is made if there is none. Several processes may have it
    /// open at once.
    ///
    /// # Errors
    /// [`Error::Schema`] or [`Error::Mismatch`] for declarations that do not hold; [`Error::Store`] if the file is
    /// not a database of this or an earlier version, or cannot be used: it is then as it was.
    ///
    /// ```
    /// # use rivus::{Db, Entity};
    /// # #[derive(Entity)] struct Note { #[rivus(id)] id: String, text: String }
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("app.db");
    /// let db = Db::builder().entity::<Note>().open(&path)?;
    /// db.insert(&Note { id: "n1".into(), text: "hello".into() })?;
    /// drop(db);
    /// let again = Db::builder().entity::<Note>().open(&path)?;
    /// assert!(again.get::<Note>("n1")?.is_some());
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db, Error> {
        let schema = self.whole_schema()?;
        let store = SqliteStore::open(path, self.sqlite)?;
        let slot = store.slot();
        self.start(store.into(), slot, schema)
    }

    /// Opens a database in memory: it is gone with its last handle.
    ///
    /// # Errors
    /// [`Error::Schema`] or [`Error::Mismatch`] for declarations that do not hold.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// let db = Db::builder().schema(Schema::open()).memory()?;
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn memory(self) -> Result<Db, Error> {
        let schema = self.whole_schema()?;
        self.start(AnyStore::Memory(Box::default()), 0, schema)
    }

    fn whole_schema(&self) -> Result<Schema, Error> {
        let declared = self.declared.clone().build()?;
        let Some(schema) = self.schema.clone() else { return Ok(declared) };
        match schema.compare(&declared).into_iter().next() {
            // Seen from the struct, which is what the programmer has at hand.
            Some(found) => Err(Error::Mismatch(rivus_core::schema::Mismatch {
                ours: found.theirs,
                theirs: found.ours,
                ..found
            })),
            None => Ok(schema),
        }
    }

    fn start(self, store: AnyStore, slot: u32, schema: Schema) -> Result<Db, Error> {
        let options = OpenOptions { seeds: seeds(), slot, admission: self.admission, rank: 0 };
        let mut replica = Replica::open(store, Arc::new(schema), options)?;
        let migrated = replica.migrate()?;
        if !migrated.is_empty() {
            tracing::info!(?migrated, "policies have changed");
        }
        if let Some(keep) = self.journal {
            replica.keep_journal(keep)?;
        }
        replica.project(&self.projections)?;
        Ok(Db { shared: Arc::new(Shared::new(replica, self.clock)) })
    }
}
