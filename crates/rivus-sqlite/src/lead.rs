//! The lead: which of the openings of one file syncs it with another store.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use rivus_core::store::StoreError;

use crate::{SqliteStore, beside};

/// A place in the queue for one task that one opening of a file at a time is to do: among all processes, and all
/// openings in one.
///
/// The lock is the operating system's and goes with the process, however it ends: whoever waits has it at the next
/// try. It spares work and guards nothing. Lock files stay, as those of the slots do; should one be removed while
/// it is held, a second opening may take the lead beside the first.
#[derive(Debug)]
pub struct Lead {
    lock: File,
    path: PathBuf,
}

impl Lead {
    fn new(path: &Path, task: &str) -> Result<Self, StoreError> {
        let path = beside(path, &format!("-{task}"));
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|error| StoreError::Io(format!("{}: {error}", path.display())))?;
        Ok(Self { lock, path })
    }

    /// Takes the lead if it is free, and says whether this has it. Never waits.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the system does not lock the file.
    pub fn try_take(&mut self) -> Result<bool, StoreError> {
        match self.lock.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => {
                Err(StoreError::Io(format!("{}: {error}", self.path.display())))
            }
        }
    }
}

impl SqliteStore {
    /// A place in the queue for the task of this name, which goes into the name of a file beside the database.
    /// `None` for a store in memory, which nobody else can open.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file cannot be made.
    pub fn lead(&self, task: &str) -> Result<Option<Lead>, StoreError> {
        self.path.as_deref().map(|path| Lead::new(path, task)).transpose()
    }
}
