//! Looking after a database: checking, mending and copying it.

use std::path::{Path, PathBuf};

use rivus_core::replica::Verification;
use rivus_core::store::{Store as _, StoreError};
use rivus_core::view::View;
use serde::Serialize;

use crate::any_store::AnyStore;
use crate::status::each_id;
use crate::{Db, Error};

/// An entity that cannot be read; see [`Db::damaged`].
///
/// ```
/// # use rivus::{Db, Schema};
/// let db = Db::memory(Schema::open())?;
/// for damaged in db.damaged(100)? {
///     println!("{} {}: {}", damaged.kind, damaged.id, damaged.reason);
/// }
/// # Ok::<(), rivus::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Damaged {
    /// Its kind.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Db {
    /// Reads the whole database: the file, every row, and whether the digest and the index of the rules are those of
    /// the rows. Nothing is changed. Takes its turn like any other call, so others wait meanwhile.
    ///
    /// # Errors
    /// [`Error::Store`]: `Damaged` says what is unreadable. What can be read and is wrong is in the [`Verification`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// let db = Db::memory(Schema::open())?;
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// assert!(db.verify()?.is_sound());
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn verify(&self) -> Result<Verification, Error> {
        let replica = self.lock()?;
        if let AnyStore::Sqlite(store, _) = replica.store() {
            store.integrity_check()?;
        }
        Ok(replica.verify()?)
    }

    /// Makes the digest and the index of the rules anew from the rows, and has the next sync with each other store
    /// compare everything, so that what is missing here comes back. Says what was wrong before. No edit is touched,
    /// and a sound database stays as it is.
    ///
    /// # Errors
    /// [`Error::Store`]. `Damaged` if a row is unreadable: then restore a backup, or start with a new file and sync.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// let db = Db::memory(Schema::open())?;
    /// assert!(db.repair()?.is_sound());
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn repair(&self) -> Result<Verification, Error> {
        Ok(self.lock()?.repair()?)
    }

    /// The entities that cannot be read, by kind and id, the first `max` of them: all of which [`Db::verify`] names one.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be found out which entities there are.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// let db = Db::memory(Schema::open())?;
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// assert!(db.damaged(100)?.is_empty());
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn damaged(&self, max: usize) -> Result<Vec<Damaged>, Error> {
        let (replica, mut damaged) = (self.lock()?, Vec::new());
        for kind in replica.store().kinds()? {
            each_id(replica.store(), &kind, |id| {
                if damaged.len() < max {
                    unless_damaged(&kind, &id, replica.registers(&kind, &id, &mut |_, _| {}), &mut damaged)?;
                }
                Ok(())
            })?;
        }
        Ok(damaged)
    }

    /// What [`Db::views`] gives, without the entities that cannot be read, and which these are.
    ///
    /// # Errors
    /// [`EditError::UndeclaredKind`](crate::EditError::UndeclaredKind); [`Error::Store`] if it cannot be found out which
    /// entities there are.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// let db = Db::memory(Schema::open())?;
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// let (views, damaged) = db.views_undamaged("task")?;
    /// assert_eq!((views, damaged.len()), (db.views("task")?, 0));
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn views_undamaged(&self, kind: &str) -> Result<(Vec<(String, View)>, Vec<Damaged>), Error> {
        self.check_kind(kind)?;
        let (replica, mut views, mut damaged) = (self.lock()?, Vec::new(), Vec::new());
        each_id(replica.store(), kind, |id| {
            let view = unless_damaged(kind, &id, replica.view(kind, &id), &mut damaged)?.flatten();
            views.extend(view.filter(|view| !view.deleted).map(|view| (id, view)));
            Ok(())
        })?;
        Ok((views, damaged))
    }

    /// Where the file is, unless the database is in memory.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self.lock().ok()?.store() {
            AnyStore::Sqlite(store, _) => store.path().map(Path::to_owned),
            AnyStore::Memory(_) => None,
        }
    }

    /// Writes a compact copy of the database, as of now, to a new file, while others read and write.
    ///
    /// A copy that is opened and written counts as a backup that was restored: whoever syncs with it finds out, and
    /// nothing is lost or passed over.
    ///
    /// # Errors
    /// [`Error::Store`] if there is something at `path`, or no room, or the database is in memory. Nothing new is left
    /// there then.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let folder = tempfile::tempdir().unwrap();
    /// let db = Db::open(folder.path().join("tasks.db"), Schema::open())?;
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// db.backup_to(folder.path().join("tasks-backup.db"))?;
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn backup_to(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        match self.lock()?.store() {
            AnyStore::Sqlite(store, _) => Ok(store.backup_to(path)?),
            AnyStore::Memory(_) => {
                let reason = "a database in memory has no file to copy: open one at a path";
                Err(StoreError::Io(reason.to_owned()).into())
            }
        }
    }
}

/// What was read of an entity, unless that is damaged: then it is noted.
fn unless_damaged<T>(
    kind: &str,
    id: &str,
    read: Result<T, StoreError>,
    damaged: &mut Vec<Damaged>,
) -> Result<Option<T>, StoreError> {
    match read {
        Err(StoreError::Damaged(reason)) => {
            damaged.push(Damaged { kind: kind.to_owned(), id: id.to_owned(), reason });
            Ok(None)
        }
        read => read.map(Some),
    }
}
