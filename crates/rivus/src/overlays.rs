//! What rules show in place of what registers hold.

use std::ops::ControlFlow;

use rivus_core::replica::Unresolved;
use rivus_core::rules::Overlay;

use crate::{Db, Entity, Error};

impl Db {
    /// Everything that rules show in place of what was written, by kind, id and field: which rule does, on account of
    /// which other entity, and what it hides. It reads every entity of kinds with rules.
    ///
    /// Two timers that were started on two phones offline, and what both phones show of it:
    ///
    /// ```
    /// use rivus::{Db, Entity};
    ///
    /// #[derive(Entity, Default)]
    /// #[rivus(at_most_one(group = user, while_none = stop, order = start))]
    /// struct Timer {
    ///     #[rivus(id)]
    ///     id: String,
    ///     user: String,
    ///     start: u64,
    ///     stop: Option<u64>,
    /// }
    ///
    /// let db = Db::builder().entity::<Timer>().memory()?;
    /// db.insert(&Timer { id: "phone".into(), user: "ann".into(), start: 100, stop: None })?;
    /// db.insert(&Timer { id: "tablet".into(), user: "ann".into(), start: 160, stop: None })?;
    ///
    /// let shown: Vec<_> = db.list::<Timer>()?.into_iter().map(|timer| (timer.id, timer.stop)).collect();
    /// assert_eq!(shown, [("phone".into(), Some(160)), ("tablet".into(), None)]);
    /// let overlays = db.overlays()?;
    /// assert_eq!(overlays[0].rival.as_deref(), Some("tablet"));
    /// # Ok::<(), rivus::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn overlays(&self) -> Result<Vec<Overlay>, Error> {
        let mut all = Vec::new();
        self.lock()?.each_overlay(&mut |overlay| {
            all.push(overlay);
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    /// What rules show of one entity in place of what was written, by field.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Entity, Value};
    /// #[derive(Entity)]
    /// struct Task {
    ///     #[rivus(id)]
    ///     id: String,
    ///     #[rivus(bound(min = 0, max = 100))]
    ///     percent: i64,
    /// }
    /// let db = Db::builder().entity::<Task>().memory()?;
    /// db.insert(&Task { id: "t1".into(), percent: 120 })?;
    /// assert_eq!(db.get::<Task>("t1")?.map(|task| task.percent), Some(100));
    /// let overlays = db.overlays_of::<Task>("t1")?;
    /// assert_eq!((&overlays[0].rule[..], &overlays[0].hidden), ("bound_percent", &Value::Int(120)));
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn overlays_of<T: Entity>(&self, id: &str) -> Result<Vec<Overlay>, Error> {
        Ok(self.lock()?.overlays(T::KIND, id)?)
    }

    /// Why views show what was written, without rules; `None` if rules are evaluated, or the schema has none.
    ///
    /// A program whose schema has an older [`epoch`](crate::Builder::epoch) than one that it has met goes on syncing
    /// and does not guess.
    ///
    /// # Errors
    /// [`Error::Reentrant`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// if let Some(why) = db.unresolved()? {
    ///     println!("rules are not evaluated: {why}");
    /// }
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn unresolved(&self) -> Result<Option<Unresolved>, Error> {
        Ok(self.lock()?.unresolved())
    }
}
