//! The database that an application holds.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rivus_core::address::Parts;
use rivus_core::clock::Force;
use rivus_core::edit::{Action, EditError, Op};
use rivus_core::replica::{Edited, Rejected};
use rivus_core::row::State;
use rivus_core::schema::Schema;
use rivus_core::store::Store;
use rivus_core::value::Value;
use rivus_core::view::View;

use crate::shared::{Locked, Shared};
use crate::status::each_id;
use crate::{Builder, Entity, Error, Fields, ScopeStatus, Status, Subscription, Transaction};

/// A handle of a local database. Clone it freely: all clones are one database, for any number of threads.
///
/// Each call is one transaction; what returned is durable. Calls take turns, so keep closures short. A closure or
/// a custom resolver that runs inside a call and calls the same database gets [`Error::Reentrant`]; one that waits
/// for another thread which does so waits for ever. If a closure panics, nothing has changed and the database goes
/// on.
///
/// Several processes, and several openings in one process, may share a file. They see each other's commits, and a
/// [`Subscription`] tells of those too, within a quarter of a second, as of [`Origin::OtherProcess`](crate::Origin).
///
/// ```
/// use rivus::{Db, Entity};
///
/// #[derive(Entity, Debug, PartialEq)]
/// struct Note {
///     #[rivus(id)]
///     id: String,
///     text: String,
/// }
///
/// let db = Db::builder().entity::<Note>().memory()?;
/// let writer = db.clone();
/// std::thread::spawn(move || writer.insert(&Note { id: "n1".into(), text: "hello".into() })).join().unwrap()?;
/// assert_eq!(db.get::<Note>("n1")?.map(|note| note.text), Some("hello".into()));
/// # Ok::<(), rivus::Error>(())
/// ```
#[derive(Clone)]
pub struct Db {
    pub(crate) shared: Arc<Shared>,
}

impl Db {
    /// Starts to open a database: its kinds, its clock, its file.
    ///
    /// ```
    /// # use rivus::{Db, Entity};
    /// # #[derive(Entity)] struct Note { #[rivus(id)] id: String, text: String }
    /// let db = Db::builder().entity::<Note>().memory()?;
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Opens the database in the file at `path`, with this schema; see [`Builder::open`].
    ///
    /// # Errors
    /// [`Error::Store`] if the file is not a database of this or an earlier version, or cannot be used: it is then
    /// as it was.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("app.db");
    /// let db = Db::open(&path, Schema::builder().kind("task", |kind| kind.value("title")).build()?)?;
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>, schema: Schema) -> Result<Self, Error> {
        Self::builder().schema(schema).open(path)
    }

    /// Opens a database in memory, with this schema: it is gone with its last handle.
    ///
    /// # Errors
    /// None that a sound machine gives.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// let db = Db::memory(Schema::open())?;
    /// assert!(db.kinds()?.is_empty());
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn memory(schema: Schema) -> Result<Self, Error> {
        Self::builder().schema(schema).memory()
    }

    /// The schema by which this database merges.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// let db = Db::memory(Schema::builder().kind("task", |kind| kind.value("title")).build()?)?;
    /// assert!(db.schema().kind("task").is_some());
    /// # Ok::<(), rivus::Error>(())
    /// ```
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.shared.schema
    }

    /// Creates an entity with all its fields.
    ///
    /// # Errors
    /// [`EditError::Exists`] if one of this id is held, [`EditError::Deleted`] if it shows as deleted: revive it, or take
    /// another id; [`Error::Field`] if a field cannot be stored; others as [`Db::apply`].
    ///
    /// ```
    /// # use rivus::{Db, EditError, Entity, Error};
    /// # #[derive(Entity)] struct Note { #[rivus(id)] id: String, text: String }
    /// # let db = Db::builder().entity::<Note>().memory()?;
    /// let note = Note { id: rivus::new_id(), text: "hello".into() };
    /// db.insert(&note)?;
    /// assert!(matches!(db.insert(&note), Err(Error::Edit(EditError::Exists { .. }))));
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn insert<T: Entity>(&self, entity: &T) -> Result<Edited, Error> {
        self.commit(Force::No, |tx| tx.insert(entity)).map(|((), edited)| edited)
    }

    /// Edits an entity: writes what `edit` changed of the struct, and nothing else. Of sets and maps that is each
    /// key, of a counter the difference; a multi field must be left with one value. Where nothing changed nothing
    /// is written.
    ///
    /// `edit` runs again, on the new state, if another writer of the file was faster.
    ///
    /// # Errors
    /// [`EditError::NotThere`] if the entity is not held; [`EditError::Deleted`] if it shows as deleted, unless
    /// edits revive its kind: then they start from what it held. [`Error::IdChanged`]; [`Error::Field`] if a field
    /// does not fit; others as [`Db::apply`].
    ///
    /// ```
    /// # use rivus::{Db, Edited, Entity};
    /// # #[derive(Entity)] struct Note { #[rivus(id)] id: String, text: String, #[rivus(counter)] views: u32 }
    /// # let db = Db::builder().entity::<Note>().memory()?;
    /// db.insert(&Note { id: "n1".into(), text: "hello".into(), views: 0 })?;
    /// let edited = db.edit::<Note>("n1", |note| note.views += 1)?;
    /// assert!(matches!(edited, Edited::Committed { registers: 1, .. }));
    /// assert_eq!(db.edit::<Note>("n1", |note| note.text = "hello".into())?, Edited::Nothing);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn edit<T: Entity>(&self, id: &str, mut edit: impl FnMut(&mut T)) -> Result<Edited, Error> {
        self.commit(Force::No, |tx| tx.edit(id, &mut edit)).map(|((), edited)| edited)
    }

    /// The entity, or `None` if it is not held or shows as deleted. A field that it does not hold is its type's
    /// default.
    ///
    /// # Errors
    /// [`Error::Field`] if a field does not fit its type: somebody with another schema wrote it;
    /// [`EditError::UndeclaredKind`]; [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Entity};
    /// # #[derive(Entity)] struct Note { #[rivus(id)] id: String, text: String }
    /// # let db = Db::builder().entity::<Note>().memory()?;
    /// assert!(db.get::<Note>("n1")?.is_none());
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn get<T: Entity>(&self, id: &str) -> Result<Option<T>, Error> {
        self.check_kind(T::KIND)?;
        let replica = self.lock()?;
        let root = replica.root(T::KIND, id)?;
        let id = root.as_deref().unwrap_or(id);
        let view = replica.view(T::KIND, id)?.filter(|view| !view.deleted);
        view.map(|view| Fields::read(id, view)).transpose()
    }

    /// All entities of a kind that are not deleted, by id in byte order.
    ///
    /// # Errors
    /// As [`Db::get`].
    ///
    /// ```
    /// # use rivus::{Db, Entity};
    /// # #[derive(Entity)] struct Note { #[rivus(id)] id: String, text: String }
    /// # let db = Db::builder().entity::<Note>().memory()?;
    /// for id in ["b", "a"] {
    ///     db.insert(&Note { id: id.into(), text: String::new() })?;
    /// }
    /// let ids: Vec<_> = db.list::<Note>()?.into_iter().map(|note| note.id).collect();
    /// assert_eq!(ids, ["a", "b"]);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn list<T: Entity>(&self) -> Result<Vec<T>, Error> {
        self.views(T::KIND)?.into_iter().map(|(id, view)| Fields::read(&id, view)).collect()
    }

    /// Deletes an entity. Its fields are kept, for a revival.
    ///
    /// # Errors
    /// [`EditError::NotThere`] if it is not held or deleted already; others as [`Db::apply`].
    ///
    /// ```
    /// # use rivus::{Db, Entity};
    /// # #[derive(Entity)] struct Note { #[rivus(id)] id: String, text: String }
    /// # let db = Db::builder().entity::<Note>().memory()?;
    /// db.insert(&Note { id: "n1".into(), text: "hello".into() })?;
    /// db.delete::<Note>("n1")?;
    /// assert!(db.get::<Note>("n1")?.is_none());
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn delete<T: Entity>(&self, id: &str) -> Result<Edited, Error> {
        self.commit(Force::No, |tx| tx.delete::<T>(id)).map(|((), edited)| edited)
    }

    /// Takes a deletion back.
    ///
    /// # Errors
    /// [`EditError::NotDeleted`]; others as [`Db::apply`].
    ///
    /// ```
    /// # use rivus::{Db, Entity};
    /// # #[derive(Entity)] struct Note { #[rivus(id)] id: String, text: String }
    /// # let db = Db::builder().entity::<Note>().memory()?;
    /// db.insert(&Note { id: "n1".into(), text: "hello".into() })?;
    /// db.delete::<Note>("n1")?;
    /// db.revive::<Note>("n1")?;
    /// assert_eq!(db.get::<Note>("n1")?.map(|note| note.text), Some("hello".into()));
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn revive<T: Entity>(&self, id: &str) -> Result<Edited, Error> {
        self.commit(Force::No, |tx| tx.revive::<T>(id)).map(|((), edited)| edited)
    }

    /// Makes one edit of several operations, on any entities: all of them happen, under one stamp, or none.
    ///
    /// `act` runs again if another writer of the file was faster.
    ///
    /// # Errors
    /// What `act` returns (see [`Error::app`] for reasons of your own), the first operation that failed, and as
    /// [`Db::apply`].
    ///
    /// ```
    /// # use rivus::{Db, Entity};
    /// # #[derive(Entity)] struct Note { #[rivus(id)] id: String, text: String }
    /// # let db = Db::builder().entity::<Note>().memory()?;
    /// # db.insert(&Note { id: "old".into(), text: "hello".into() })?;
    /// db.transaction(|tx| {
    ///     let old = tx.get::<Note>("old")?.ok_or_else(|| rivus::Error::app("nothing to copy"))?;
    ///     tx.insert(&Note { id: "new".into(), ..old })?;
    ///     tx.delete::<Note>("old")
    /// })?;
    /// assert_eq!(db.list::<Note>()?.len(), 1);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn transaction<T>(
        &self,
        act: impl FnMut(&mut Transaction<'_, '_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.commit(Force::No, act).map(|(value, _)| value)
    }

    /// Sets fields of an entity by name, which creates it if it is not held. Fields not named stay; one that shows
    /// the value already is not written.
    ///
    /// # Errors
    /// As [`Db::apply`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// db.put("task", "t1", [("title", "write".into()), ("priority", 3.into())])?;
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn put<F: Into<String>>(
        &self,
        kind: &str,
        id: &str,
        fields: impl IntoIterator<Item = (F, Value)>,
    ) -> Result<Edited, Error> {
        self.put_with(Force::No, kind, id, fields)
    }

    /// Sets fields as [`Db::put`] does, over everything: also over concurrent writes of others that are stamped in
    /// the far future. For repairs.
    ///
    /// # Errors
    /// As [`Db::apply`].
    ///
    /// ```
    /// # use rivus::{Db, Edited, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// let edited = db.force_set("task", "t1", [("title", "write".into())])?;
    /// assert!(matches!(edited, Edited::Committed { stamp, .. } if stamp.generation == 1));
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn force_set<F: Into<String>>(
        &self,
        kind: &str,
        id: &str,
        fields: impl IntoIterator<Item = (F, Value)>,
    ) -> Result<Edited, Error> {
        self.put_with(Force::Yes, kind, id, fields)
    }

    fn put_with<F: Into<String>>(
        &self,
        force: Force,
        kind: &str,
        id: &str,
        fields: impl IntoIterator<Item = (F, Value)>,
    ) -> Result<Edited, Error> {
        let fields = fields.into_iter().map(|(field, value)| (field.into(), value)).collect();
        let op = Op::new(kind, id, Action::Put(fields));
        self.commit(force, |tx| tx.apply(&op)).map(|((), edited)| edited)
    }

    /// Makes one edit of these operations: all of them happen or none. The way to change one field or key of an
    /// entity of thousands, which an edit by closure would read whole.
    ///
    /// # Errors
    /// [`Error::Edit`] with what was refused, or with what went wrong in the store.
    ///
    /// ```
    /// # use rivus::{Action, Db, Op, Schema};
    /// # let schema = Schema::builder().kind("task", |kind| kind.set("tags").counter("views")).build()?;
    /// # let db = Db::memory(schema)?;
    /// let (tags, red) = ("tags".into(), "red".into());
    /// db.apply(&[
    ///     Op::new("task", "t1", Action::Add { field: tags, key: red }),
    ///     Op::new("task", "t2", Action::Inc { field: "views".into(), by: 2 }),
    /// ])?;
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn apply(&self, ops: &[Op]) -> Result<Edited, Error> {
        let now = self.shared.clock.now();
        Ok(self.lock()?.edit(now, ops)?)
    }

    /// The entity by field, also if it is deleted ([`View::deleted`]); `None` if it is not held.
    ///
    /// # Errors
    /// [`EditError::UndeclaredKind`]; [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Schema, Shown};
    /// # let db = Db::memory(Schema::open())?;
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// let view = db.view("task", "t1")?.unwrap_or_default();
    /// assert_eq!(view.fields["title"], Shown::Value("write".into()));
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn view(&self, kind: &str, id: &str) -> Result<Option<View>, Error> {
        self.check_kind(kind)?;
        let replica = self.lock()?;
        let root = replica.root(kind, id)?;
        Ok(replica.view(kind, root.as_deref().unwrap_or(id))?)
    }

    /// All entities of a kind that are not deleted, with their ids, in byte order of these.
    ///
    /// # Errors
    /// [`EditError::UndeclaredKind`]; [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// for (id, view) in db.views("task")? {
    ///     println!("{id}: {:?}", view.fields);
    /// }
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn views(&self, kind: &str) -> Result<Vec<(String, View)>, Error> {
        self.check_kind(kind)?;
        let (replica, mut views) = (self.lock()?, Vec::new());
        each_id(replica.store(), kind, |id| {
            if let Some(view) = replica.view(kind, &id)?.filter(|view| !view.deleted) {
                views.push((id, view));
            }
            Ok(())
        })?;
        Ok(views)
    }

    /// The kinds of which entities are held, deleted ones among them, in byte order.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// assert_eq!(db.kinds()?, ["task"]);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn kinds(&self) -> Result<Vec<String>, Error> {
        Ok(self.lock()?.store().kinds()?)
    }

    /// Visits the registers of an entity: all that is known of each field, the writes still in the running with
    /// their stamps and ranks among it. For looking into why a view is what it is.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// db.registers("task", "t1", |address, state| {
    ///     println!("{}: written at {}", address.name, state.shown.newest().stamp);
    /// })?;
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn registers(
        &self,
        kind: &str,
        id: &str,
        mut visit: impl FnMut(Parts<'_>, &State<'_>),
    ) -> Result<(), Error> {
        Ok(self.lock()?.registers(kind, id, &mut visit)?)
    }

    /// Hears of every change from now on.
    ///
    /// ```
    /// # use futures_util::{FutureExt, StreamExt};
    /// # use rivus::{Db, Event, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// let mut events = db.subscribe();
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// let event = events.next().now_or_never().flatten();
    /// assert!(matches!(event, Some(Ok(Event::Changed { id, .. })) if id == "t1"));
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn subscribe(&self) -> Subscription {
        let events = self.shared.events.subscribe();
        self.shared.look();
        Subscription::new(events)
    }

    /// The edits that the authority refused and that were taken back, with the reasons, oldest first.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// for rejected in db.rejected()? {
    ///     println!("{}: {:?}", rejected.message, rejected.ops);
    /// }
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn rejected(&self) -> Result<Vec<Rejected>, Error> {
        Ok(self.lock()?.rejected()?)
    }

    /// Where the database stands. It counts the entities, so it takes longer the more there are.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let (one, other) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
    /// assert_eq!(one.status()?.digest, other.status()?.digest);
    /// assert_ne!(one.status()?.store, other.status()?.store);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn status(&self) -> Result<Status, Error> {
        Ok(Status::of(&*self.lock()?, self.shared.clock.now())?)
    }

    /// The scopes with a name that are held here, and all that are followed by name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn scopes(&self) -> Result<Vec<ScopeStatus>, Error> {
        Ok(crate::status::scopes_of(&*self.lock()?)?)
    }

    /// How many fields, and lives of kinds, other programs have declared for this database and this one has not: it may
    /// show them, and write into them, otherwise.
    ///
    /// # Errors
    /// [`Error::Store`] if the database cannot be read.
    ///
    /// ```
    /// # use rivus::{Action, Db, Op, Schema};
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("app.db");
    /// let db = Db::open(&path, Schema::builder().kind("task", |k| k.set("tags")).build()?)?;
    /// db.apply(&[Op::new("task", "t1", Action::Add { field: "tags".into(), key: "red".into() })])?;
    /// assert!(Db::open(&path, Schema::open())?.undeclared()? > 0);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn undeclared(&self) -> Result<usize, Error> {
        Ok(self.lock()?.undeclared()?)
    }

    pub(crate) fn lock(&self) -> Result<Locked<'_>, Error> {
        self.shared.lock()
    }

    pub(crate) fn check_kind(&self, kind: &str) -> Result<(), Error> {
        match self.shared.schema.kind(kind) {
            Some(_) => Ok(()),
            None => Err(EditError::UndeclaredKind { kind: kind.to_owned() }.into()),
        }
    }

    pub(crate) fn commit<T>(
        &self,
        force: Force,
        mut act: impl FnMut(&mut Transaction<'_, '_>) -> Result<T, Error>,
    ) -> Result<(T, Edited), Error> {
        let now = self.shared.clock.now();
        // Core takes its own errors only: the others wait here.
        let mut aside = None;
        let done = self.lock()?.transact(now, force, |tx| {
            let mut transaction = Transaction::new(tx, &self.shared.schema);
            let done = act(&mut transaction);
            transaction.end(done).map_err(|error| match error {
                Error::Edit(error) => error,
                other => EditError::App(aside.insert(other).to_string()),
            })
        });
        done.map_err(|error| aside.unwrap_or_else(|| error.into()))
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
