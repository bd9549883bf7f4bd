//! Leases and collection, for whoever runs a hub.

use std::time::Duration;

use rivus_core::replica::{Collection, Sweep};
use serde::Serialize;

use crate::{Db, Error};

/// What a collection did; see [`Db::collect`].
///
/// ```
/// assert_eq!(rivus::Collected::default().entities, 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Collected {
    /// How many entities went.
    pub entities: usize,
    /// How many registers they had.
    pub registers: u64,
    /// How many keys that had been taken out of sets and maps of other entities went.
    pub keys: usize,
    /// Of how many other registers went what had been replaced, and concurrent values that showed nothing.
    pub trimmed: usize,
    /// Of how many entities that went earlier the last trace was removed.
    pub forgotten: usize,
    /// Up to which change every database with a running lease has everything.
    pub cut: u64,
}

impl From<Collection> for Collected {
    fn from(done: Collection) -> Self {
        let Collection { entities, registers, keys, trimmed, forgotten, cut } = done;
        Self { entities, registers, keys, trimmed, forgotten, cut: cut.seq }
    }
}

/// What a collection would do; see [`Db::collectable`].
///
/// ```
/// assert!(rivus::Collectable::default().entities.is_empty());
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Collectable {
    /// The entities that would go, by kind and id.
    pub entities: Vec<(String, String)>,
    /// How many keys that were taken out of sets and maps of other entities would go.
    pub keys: usize,
    /// Of how many other registers something would go.
    pub trimmed: usize,
}

/// A database that this hub waits for before it forgets what is deleted; see [`Db::leases`].
///
/// ```
/// # use rivus::{Db, HubOptions, Schema};
/// # let runtime = tokio::runtime::Runtime::new().unwrap();
/// # runtime.block_on(async {
/// # let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
/// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
/// phone.sync(&served.url().into()).await?;
/// let leases = hub.leases()?;
/// assert!(leases.len() == 1 && leases[0].running);
/// # Ok::<(), rivus::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Lease {
    /// The database's store id, in hexadecimal.
    pub store: String,
    /// When the lease ends, or did, in ms since 1970.
    pub until_ms: i64,
    /// Whether it runs.
    pub running: bool,
    /// Up to which change of the hub the database has everything.
    pub read: u64,
    /// How many changes of the hub it does not have, or has not said so.
    pub behind: u64,
}

impl Db {
    /// Forgets what is dead for everybody: entities whose deletion every database with a running lease has, and that were
    /// deleted longer than `grace` ago; of entities that live, keys that were taken out of sets and maps, and what concurrent
    /// writes have left, so long ago. What rules or aliases need stays. Devices follow with their next sync.
    ///
    /// Only an authority collects. A hub does so by itself; see [`HubOptions::collect_every`](crate::HubOptions::collect_every).
    /// Others can use the database in between.
    ///
    /// # Errors
    /// [`Error::Collect`]; what is not collected is by the next call.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use rivus::{Action, Db, HubOptions, Op, Presence, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
    /// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// # let remote = served.url().into();
    /// phone.put("task", "t1", [("title", "done with".into())])?;
    /// phone.apply(&[Op::new("task", "t1", Action::Delete)])?;
    /// phone.sync(&remote).await?;
    ///
    /// assert_eq!(hub.collect(Duration::ZERO)?.entities, 1);
    /// phone.sync(&remote).await?;
    /// assert_eq!(phone.presence("task", "t1")?, Presence::Absent);
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn collect(&self, grace: Duration) -> Result<Collected, Error> {
        let mut sweep = Sweep::new(self.shared.clock.now(), millis(grace));
        loop {
            if let Some(done) = self.lock()?.sweep(&mut sweep)? {
                return Ok(done.into());
            }
        }
    }

    /// What [`Db::collect`] would forget. Nothing changes; others wait meanwhile.
    ///
    /// # Errors
    /// [`Error::Collect`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use rivus::{Db, Error, Schema};
    /// let alone = Db::memory(Schema::open())?;
    /// assert!(matches!(alone.collectable(Duration::ZERO), Err(Error::Collect(_))));
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn collectable(&self, grace: Duration) -> Result<Collectable, Error> {
        let found = self.lock()?.collectable(self.shared.clock.now(), millis(grace))?;
        let rivus_core::replica::Collectable { entities, keys, trimmed } = found;
        Ok(Collectable { entities, keys, trimmed })
    }

    /// The databases that this hub waits for, and those whose lease has run out.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// let db = Db::memory(Schema::open())?;
    /// assert!(db.leases()?.is_empty());
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn leases(&self) -> Result<Vec<Lease>, Error> {
        let now = self.shared.clock.now();
        let replica = self.lock()?;
        let head = replica.head()?.seq;
        let lease = |lease: rivus_core::replica::Lease| Lease {
            store: lease.store.to_string(),
            until_ms: lease.until.0,
            running: lease.is_running(now),
            read: lease.read,
            behind: head.saturating_sub(lease.read),
        };
        Ok(replica.leases()?.into_iter().map(lease).collect())
    }

    /// Ends the lease of a database, by its store id: nothing waits for it any more. If it comes back after something was
    /// forgotten it reads everything again. `false` if there is no such lease.
    ///
    /// # Errors
    /// [`Error::Store`]; nothing has changed.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// let db = Db::memory(Schema::open())?;
    /// assert!(!db.end_lease("00000000000000ff")?);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn end_lease(&self, store: &str) -> Result<bool, Error> {
        let mut replica = self.lock()?;
        let leases = replica.leases()?;
        let Some(lease) = leases.into_iter().find(|lease| lease.store.to_string() == store) else {
            return Ok(false);
        };
        Ok(replica.end_lease(lease.store)?)
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
