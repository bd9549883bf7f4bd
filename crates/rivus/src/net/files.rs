//! Noticing that a file has changed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file that is read again when it has changed.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    seen: Option<(SystemTime, u64)>,
}

impl Watched {
    /// The file as it is now.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: look(path) }
    }

    /// Whether time or length are others than when this was last asked. A file that is gone, as in the middle of being
    /// replaced, has not changed yet.
    pub(super) fn has_changed(&mut self) -> bool {
        let now = look(&self.path);
        let changed = now.is_some() && now != self.seen;
        if changed {
            self.seen = now;
        }
        changed
    }
}

fn look(path: &Path) -> Option<(SystemTime, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}
