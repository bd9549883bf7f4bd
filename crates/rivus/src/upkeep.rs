//! Looking after a database: checking, mending and copying it.

use std::path::{Path, PathBuf};

use rivus_core::replica::Verification;
use rivus_core::store::StoreError;

use crate::any_store::AnyStore;
use crate::{Db, Error};

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
