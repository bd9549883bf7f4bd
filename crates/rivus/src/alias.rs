//! Entities that stand for others.

use rivus_core::clock::Force;
use rivus_core::replica::Edited;

use crate::{Db, Entity, Error};

impl Db {
    /// Lets one entity stand for another, for example when two that were created on two devices turn out to be one:
    /// the loser shows no more, reads by its id give the winner, and edits by its id go to the winner. Its fields are
    /// not carried over.
    ///
    /// Where two devices alias in opposite directions, the entity with the least id stands for both.
    ///
    /// # Errors
    /// [`EditError::NoAliases`](crate::EditError::NoAliases) if the kind is not declared with `aliases`;
    /// [`EditError::NotThere`](crate::EditError::NotThere) if one of the two is not held; others as [`Db::apply`].
    ///
    /// ```
    /// # use rivus::{Db, Entity};
    /// #[derive(Entity)]
    /// #[rivus(aliases)]
    /// struct Project {
    ///     #[rivus(id)]
    ///     id: String,
    ///     name: String,
    /// }
    /// let db = Db::builder().entity::<Project>().memory()?;
    /// for (id, name) in [("p1", "Garden"), ("p2", "garden")] {
    ///     db.insert(&Project { id: id.into(), name: name.into() })?;
    /// }
    /// db.alias::<Project>("p2", "p1")?;
    /// db.edit::<Project>("p2", |project| project.name = "the garden".into())?;
    /// assert_eq!(db.get::<Project>("p1")?.map(|project| project.name), Some("the garden".into()));
    /// assert_eq!(db.list::<Project>()?.len(), 1);
    /// assert_eq!(db.root::<Project>("p2")?, Some("p1".into()));
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn alias<T: Entity>(&self, loser: &str, winner: &str) -> Result<Edited, Error> {
        self.commit(Force::No, |tx| tx.alias::<T>(loser, winner)).map(|((), edited)| edited)
    }

    /// The id of the entity that stands for this one, if it is another: by an alias, or by a `unique` rule with
    /// `on_clash = alias`.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Entity};
    /// # #[derive(Entity)] #[rivus(aliases)] struct Project { #[rivus(id)] id: String, name: String }
    /// # let db = Db::builder().entity::<Project>().memory()?;
    /// db.insert(&Project { id: "p1".into(), name: "garden".into() })?;
    /// assert_eq!(db.root::<Project>("p1")?, None);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn root<T: Entity>(&self, id: &str) -> Result<Option<String>, Error> {
        Ok(self.lock()?.root(T::KIND, id)?)
    }
}
