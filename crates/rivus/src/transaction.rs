//! Several operations in one edit.

use rivus_core::edit::{Action, EditError, Op, Presence, Tx};
use rivus_core::schema::{Life, Schema};
use rivus_core::value::Value;
use rivus_core::view::View;

use crate::any_store::AnyStore;
use crate::{Changed, Entity, Error, Fields};

/// An edit being made; see [`Db::transaction`](crate::Db::transaction). It reads what it has done so far.
///
/// An operation that fails while it writes fails the whole transaction, even if the closure goes on.
///
/// ```
/// use rivus::{Db, Schema};
/// let db = Db::memory(Schema::open())?;
/// let title = db.transaction(|tx| {
///     tx.put("task", "t1", [("title", "write".into())])?;
///     Ok(tx.view("task", "t1")?.and_then(|view| view.fields.get("title").cloned()))
/// })?;
/// assert_eq!(title, Some(rivus::Shown::Value("write".into())));
/// # Ok::<(), rivus::Error>(())
/// ```
#[derive(Debug)]
pub struct Transaction<'t, 's> {
    tx: &'t mut Tx<'s, AnyStore>,
    schema: &'t Schema,
    /// The first failure of what may have been done in part.
    failed: Option<EditError>,
}

impl<'t, 's> Transaction<'t, 's> {
    pub(crate) fn new(tx: &'t mut Tx<'s, AnyStore>, schema: &'t Schema) -> Self {
        Self { tx, schema, failed: None }
    }

    /// Ends it: a failure that the closure passed over counts all the same.
    pub(crate) fn end<T>(self, done: Result<T, Error>) -> Result<T, Error> {
        match self.failed {
            Some(error) if done.is_ok() => Err(error.into()),
            _ => done,
        }
    }

    /// As [`Db::insert`](crate::Db::insert).
    ///
    /// # Errors
    /// As there.
    pub fn insert<T: Entity>(&mut self, entity: &T) -> Result<(), Error> {
        let id = entity.id();
        if id.is_empty() {
            return Err(Error::app(format!(
                "a new {} has no id: give it one, such as `rivus::new_id()`",
                T::KIND
            )));
        }
        let presence = self.presence(T::KIND, id)?;
        if presence == Presence::Evicted {
            return Err(evicted::<T>(id));
        }
        if presence == Presence::Deleted {
            return Err(EditError::Deleted { kind: T::KIND.to_owned(), id: id.to_owned() }.into());
        }
        if presence != Presence::Absent {
            return Err(EditError::Exists { kind: T::KIND.to_owned(), id: id.to_owned() }.into());
        }
        self.act(T::KIND, id, Fields::of(entity)?.creation()?)
    }

    /// As [`Db::edit`](crate::Db::edit).
    ///
    /// # Errors
    /// As there.
    pub fn edit<T: Entity>(&mut self, id: &str, edit: impl FnOnce(&mut T)) -> Result<(), Error> {
        let root = self.root(T::KIND, id)?;
        let id = root.as_deref().unwrap_or(id);
        let mut entity: T = self.editable(id)?;
        let before = Fields::of(&entity)?;
        edit(&mut entity);
        if entity.id() != id {
            let (kind, now) = (T::KIND.to_owned(), entity.id().to_owned());
            return Err(Error::IdChanged { kind, id: id.to_owned(), now });
        }
        self.act(T::KIND, id, Fields::of(&entity)?.changes_since(&before)?)
    }

    /// As [`Db::save`](crate::Db::save). Returns what changed underneath.
    ///
    /// # Errors
    /// As there.
    pub fn save<T: Entity>(&mut self, loaded: &T, edited: &T) -> Result<Vec<Changed>, Error> {
        let id = loaded.id();
        if edited.id() != id {
            let (kind, now) = (T::KIND.to_owned(), edited.id().to_owned());
            return Err(Error::IdChanged { kind, id: id.to_owned(), now });
        }
        let now = Fields::of(&self.editable::<T>(id)?)?;
        let loaded = Fields::of(loaded)?;
        let actions = Fields::of(edited)?.changes_since(&loaded)?;
        self.act(T::KIND, id, actions)?;
        Ok(now.changed_since(&loaded))
    }

    /// The entity as an edit finds it.
    fn editable<T: Entity>(&mut self, id: &str) -> Result<T, Error> {
        let absent = || EditError::NotThere { kind: T::KIND.to_owned(), id: id.to_owned() };
        let Some(view) = self.view(T::KIND, id)? else {
            let is_evicted = self.presence(T::KIND, id)? == Presence::Evicted;
            return Err(if is_evicted { evicted::<T>(id) } else { absent().into() });
        };
        let revives = self.schema.kind(T::KIND).is_some_and(|kind| kind.life == Life::EditRevives);
        if view.deleted && !revives {
            return Err(EditError::Deleted { kind: T::KIND.to_owned(), id: id.to_owned() }.into());
        }
        Fields::read(id, view)
    }

    /// As [`Db::get`](crate::Db::get), with what the transaction has done so far.
    ///
    /// # Errors
    /// As there.
    pub fn get<T: Entity>(&mut self, id: &str) -> Result<Option<T>, Error> {
        let root = self.root(T::KIND, id)?;
        let id = root.as_deref().unwrap_or(id);
        let view = self.view(T::KIND, id)?.filter(|view| !view.deleted);
        view.map(|view| Fields::read(id, view)).transpose()
    }

    /// As [`Db::delete`](crate::Db::delete).
    ///
    /// # Errors
    /// As there.
    pub fn delete<T: Entity>(&mut self, id: &str) -> Result<(), Error> {
        self.act(T::KIND, id, vec![Action::Delete])
    }

    /// As [`Db::revive`](crate::Db::revive).
    ///
    /// # Errors
    /// As there.
    pub fn revive<T: Entity>(&mut self, id: &str) -> Result<(), Error> {
        self.act(T::KIND, id, vec![Action::Revive])
    }

    /// As [`Db::alias`](crate::Db::alias).
    ///
    /// # Errors
    /// As there.
    pub fn alias<T: Entity>(&mut self, loser: &str, winner: &str) -> Result<(), Error> {
        self.act(T::KIND, loser, vec![Action::Alias { to: winner.to_owned() }])
    }

    /// As [`Db::put`](crate::Db::put).
    ///
    /// # Errors
    /// As there.
    pub fn put<F: Into<String>>(
        &mut self,
        kind: &str,
        id: &str,
        fields: impl IntoIterator<Item = (F, Value)>,
    ) -> Result<(), Error> {
        let fields = fields.into_iter().map(|(field, value)| (field.into(), value)).collect();
        self.act(kind, id, vec![Action::Put(fields)])
    }

    /// Adds an operation by kind, id and field.
    ///
    /// # Errors
    /// [`Error::Edit`]; the transaction has failed then.
    pub fn apply(&mut self, op: &Op) -> Result<(), Error> {
        let done = self.tx.apply(op);
        self.note(done)
    }

    /// As [`Db::view`](crate::Db::view), with what the transaction has done so far.
    ///
    /// # Errors
    /// As there.
    pub fn view(&mut self, kind: &str, id: &str) -> Result<Option<View>, Error> {
        let view = self.tx.view(kind, id);
        self.note(view)
    }

    /// Deletes an entity if it shows, and says whether it did.
    pub(crate) fn delete_if_there(&mut self, kind: &str, id: &str) -> Result<bool, Error> {
        let is_there = self.presence(kind, id)? == Presence::Alive;
        if is_there {
            self.act(kind, id, vec![Action::Delete])?;
        }
        Ok(is_there)
    }

    fn root(&mut self, kind: &str, id: &str) -> Result<Option<String>, Error> {
        let root = self.tx.root(kind, id);
        self.note(root)
    }

    fn presence(&mut self, kind: &str, id: &str) -> Result<Presence, Error> {
        let presence = self.tx.presence(kind, id);
        self.note(presence)
    }

    fn act(&mut self, kind: &str, id: &str, actions: Vec<Action>) -> Result<(), Error> {
        actions.into_iter().try_for_each(|action| self.apply(&Op::new(kind, id, action)))
    }

    fn note<T>(&mut self, done: Result<T, EditError>) -> Result<T, Error> {
        if let Err(error) = &done {
            self.failed.get_or_insert_with(|| error.clone());
        }
        Ok(done?)
    }
}

fn evicted<T: Entity>(id: &str) -> Error {
    EditError::Evicted { kind: T::KIND.to_owned(), id: id.to_owned() }.into()
}
