//! Slots: which of the openings of one file this is.

use std::fs::{File, TryLockError};
use std::path::Path;

use rivus_core::store::StoreError;

use crate::beside;

/// A number that no other opening of the file has while this lives.
///
/// The lock is the operating system's and goes with the process. The lock files stay: removing one that another
/// process is about to lock would give two the same slot.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u32,
    _lock: Option<File>,
}

impl Slot {
    /// The lowest free slot of the database at `path`, which must be canonical.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if all are taken, `Io` if a lock file cannot be made.
    pub(crate) fn take(path: &Path) -> Result<Self, StoreError> {
        for number in 0..SLOTS_MAX {
            let at = beside(path, &format!("-slot{number}"));
            let io = |error| StoreError::Io(format!("{}: {error}", at.display()));
            let lock = File::options().create(true).truncate(false).write(true).open(&at).map_err(io)?;
            match lock.try_lock() {
                Ok(()) => return Ok(Self { number, _lock: Some(lock) }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(io(error)),
            }
        }
        Err(StoreError::Busy(format!("{}: all {SLOTS_MAX} slots are taken", path.display())))
    }

    /// The slot of a store that nobody else can open.
    pub(crate) fn alone() -> Self {
        Self { number: 0, _lock: None }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

/// How many openings of one file there may be at once: more are a leak, not a use.
pub(crate) const SLOTS_MAX: u32 = 64;
