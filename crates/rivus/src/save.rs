//! Edits of more than one sitting, or of more than one entity: forms that are saved, kinds that are cleared.

use rivus_core::clock::Force;
use rivus_core::edit::{EDIT_BYTES_MAX, EDIT_REGISTERS_MAX};
use rivus_core::replica::Edited;
use rivus_core::store::Store;
use rivus_core::view::Shown;

use crate::{Db, Entity, Error};

/// What saving a form did; see [`Db::save`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Saved {
    /// The edit; [`Edited::Nothing`] if the form changed nothing.
    pub edited: Edited,
    /// The fields that changed while the form was open, by name.
    pub underneath: Vec<Changed>,
}

/// A field that changed while a form was open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changed {
    /// The field.
    pub field: String,
    /// What the form was loaded with.
    pub loaded: Shown,
    /// What it held right before the form was saved.
    pub now: Shown,
}

impl Db {
    /// Saves a form: writes the fields in which `edited` differs from `loaded`, which is what the user changed, and
    /// leaves alone what others changed meanwhile. Of sets and maps that is each key, of a counter the difference.
    ///
    /// What changed underneath is told. A field that changed on both sides now holds what the form says.
    ///
    /// # Errors
    /// As [`Db::edit`].
    ///
    /// ```
    /// # use rivus::{Db, Entity};
    /// #[derive(Entity, Clone, Debug, PartialEq)]
    /// struct Task {
    ///     #[rivus(id)]
    ///     id: String,
    ///     title: String,
    ///     done: bool,
    /// }
    /// let db = Db::builder().entity::<Task>().memory()?;
    /// db.insert(&Task { id: "t1".into(), title: "write".into(), done: false })?;
    /// let loaded = db.get::<Task>("t1")?.ok_or_else(|| rivus::Error::app("gone"))?;
    ///
    /// db.edit::<Task>("t1", |task| task.done = true)?; // by a sync, while the form is open
    /// let edited = Task { title: "write it down".into(), ..loaded.clone() };
    /// let saved = db.save(&loaded, &edited)?;
    ///
    /// assert_eq!(db.get::<Task>("t1")?, Some(Task { done: true, ..edited }));
    /// assert_eq!(saved.underneath[0].field, "done");
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn save<T: Entity>(&self, loaded: &T, edited: &T) -> Result<Saved, Error> {
        let (underneath, edited) = self.commit(Force::No, |tx| tx.save(loaded, edited))?;
        Ok(Saved { edited, underneath })
    }

    /// Deletes all entities of a kind, and says how many. It is one edit if they fit in one (65,536 entities, 4 MiB of
    /// names), else several, one after another.
    ///
    /// # Errors
    /// As [`Db::apply`]; entities of earlier edits are deleted then.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// for id in ["a", "b"] {
    ///     db.put("task", id, [("title", "write".into())])?;
    /// }
    /// assert_eq!(db.delete_all("task")?, 2);
    /// assert!(db.views("task")?.is_empty());
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn delete_all(&self, kind: &str) -> Result<usize, Error> {
        self.check_kind(kind)?;
        let (mut deleted, mut after) = (0, None);
        loop {
            let ids = self.ids_of_one_edit(kind, after.as_deref())?;
            let (count, _) = self.commit(Force::No, |tx| {
                ids.iter().try_fold(0, |count, id| Ok(count + usize::from(tx.delete_if_there(kind, id)?)))
            })?;
            deleted += count;
            match ids.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => return Ok(deleted),
            }
        }
    }

    /// The ids after `after` as far as one edit can delete them.
    fn ids_of_one_edit(&self, kind: &str, after: Option<&str>) -> Result<Vec<String>, Error> {
        let mut ids = self.lock()?.store().ids(kind, after, EDIT_REGISTERS_MAX)?;
        let mut left = EDIT_BYTES_MAX;
        let fit = ids.iter().take_while(|id| {
            let cost = kind.len() + id.len() + LIFE_BYTES;
            left.checked_sub(cost).inspect(|rest| left = *rest).is_some()
        });
        let fit = fit.count();
        ids.truncate(fit);
        Ok(ids)
    }
}

/// What an edit counts for a register of life besides the entity's name: its address and its value.
const LIFE_BYTES: usize = 4;
