//! Noticing that a file has changed.

#[cfg(any(feature = "jwt", feature = "tls"))]
pub(super) use self::watched::Watched;

/// Whether files are read again that look as they did when they were read last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reread {
    /// Only those whose time or length is another.
    Changed,
    /// All: somebody has said that they are others, and may have changed what does not show, such as who may read them.
    All,
}

#[cfg(any(feature = "jwt", feature = "tls"))]
mod watched {
    use std::path::{Path, PathBuf};
    use std::time::SystemTime;

    /// A file that is read again when it has changed.
    #[derive(Debug)]
    pub(in crate::net) struct Watched {
        path: PathBuf,
        seen: Option<Look>,
    }

    /// Time and length of a file.
    pub(in crate::net) type Look = (SystemTime, u64);

    impl Watched {
        /// The file as it is now.
        pub(in crate::net) fn new(path: &Path) -> Self {
            Self { path: path.to_owned(), seen: look(path) }
        }

        /// How the file looks now. To be asked before it is read: what changes meanwhile is then read again.
        pub(in crate::net) fn look(&self) -> Option<Look> {
            look(&self.path)
        }

        /// Whether it looked otherwise when it was last read. A file that is gone, as in the middle of being replaced, has
        /// not changed yet.
        pub(in crate::net) fn has_changed(&self, now: Option<Look>) -> bool {
            now.is_some() && now != self.seen
        }

        /// What looked like this was read, and is in use. Until then it is tried again.
        pub(in crate::net) fn note_read(&mut self, as_seen: Option<Look>) {
            self.seen = as_seen;
        }
    }

    fn look(path: &Path) -> Option<Look> {
        let found = std::fs::metadata(path).ok()?;
        Some((found.modified().ok()?, found.len()))
    }
}
