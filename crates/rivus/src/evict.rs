//! Entities that are not wanted at hand: evicted, and fetched again when they are.

use rivus_core::edit::Presence;
use rivus_core::replica::Evicted;

use crate::{Db, Error};

/// What came of a fetch; see [`Db::fetch`].
///
/// ```
/// assert!(rivus::Fetched::default().missing.is_empty());
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Fetched {
    /// How many entities came.
    pub entities: usize,
    /// How many registers they have.
    pub registers: usize,
    /// Those that the hub does not have, by kind and id.
    pub missing: Vec<(String, String)>,
}

impl Db {
    /// Evicts entities, by kind and id: frees their room on this device without deleting anything. All of them, or
    /// none. [`Db::fetch`] has them back.
    ///
    /// Views and lists do not have them, and edits of them are refused with [`EditError::Evicted`]. Everything else
    /// shows as before: what rules read of them stays. Only a database that has synced with a hub evicts, and only what
    /// the hub has confirmed.
    ///
    /// [`EditError::Evicted`]: crate::EditError::Evicted
    ///
    /// # Errors
    /// [`Error::Evict`]; nothing has changed.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Presence, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
    /// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// # let remote = served.url().into();
    /// phone.put("task", "t1", [("title", "long done".into())])?;
    /// phone.sync(&remote).await?;
    /// phone.evict(&[("task", "t1")])?;
    /// assert_eq!(phone.view("task", "t1")?, None);
    /// assert_eq!(phone.presence("task", "t1")?, Presence::Evicted);
    ///
    /// phone.fetch(&remote, &[("task", "t1")]).await?;
    /// assert!(phone.view("task", "t1")?.is_some());
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn evict(&self, entities: &[(&str, &str)]) -> Result<Evicted, Error> {
        let now = self.shared.clock.now();
        Ok(self.lock()?.evict(now, &named(entities))?)
    }

    /// Whether an entity shows, is deleted, is evicted, or is not known here.
    ///
    /// # Errors
    /// [`EditError::UndeclaredKind`](crate::EditError::UndeclaredKind); [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Presence, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// assert_eq!(db.presence("task", "t1")?, Presence::Alive);
    /// assert_eq!(db.presence("task", "t2")?, Presence::Absent);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn presence(&self, kind: &str, id: &str) -> Result<Presence, Error> {
        self.check_kind(kind)?;
        Ok(self.lock()?.presence(kind, id)?)
    }
}

pub(crate) fn named(entities: &[(&str, &str)]) -> Vec<(String, String)> {
    entities.iter().map(|(kind, id)| ((*kind).to_owned(), (*id).to_owned())).collect()
}
