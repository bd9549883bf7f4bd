//! Where another store is, and what grants access to it.

use std::fmt;

use rivus_core::session::{Role, Session, SessionOptions, Want};
use rivus_core::wire::capability;

use crate::machine::seeds;

/// Where another store is, and what grants access to it.
///
/// ```
/// use rivus::Remote;
/// let remote = Remote::new("ws://127.0.0.1:7171").token("secret");
/// assert_eq!(remote.url(), "ws://127.0.0.1:7171");
/// ```
#[derive(Clone)]
pub struct Remote {
    url: String,
    token: Option<String>,
}

impl Remote {
    /// The store at `url`, for example `ws://example.org:7171`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), token: None }
    }

    /// Shows this token to the other side. It goes in the first frame, never in the address.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn session(&self, want: Want) -> Session {
        Session::new(SessionOptions {
            role: Role::Client { token: self.token.clone() },
            want,
            offers: true,
            seeds: seeds(),
            capabilities: capability::ZSTD,
        })
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret.
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}

impl From<String> for Remote {
    fn from(url: String) -> Self {
        Self::new(url)
    }
}

impl From<&str> for Remote {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}
