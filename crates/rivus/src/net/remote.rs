//! Where another store is, and what grants access to it.

use std::fmt;
use std::sync::Arc;

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
    ca: Option<Arc<[u8]>>,
}

impl Remote {
    /// The store at `url`, for example `wss://example.org:7171`, or `ws://127.0.0.1:7171` without encryption.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), token: None, ca: None }
    }

    /// Shows this token to the other side. It goes in the first frame, never in the address.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Trusts, for `wss://`, hubs whose certificate was signed by one of these authorities, in PEM, and no others.
    /// Without it the public ones are trusted, as in browsers.
    ///
    /// ```no_run
    /// use rivus::Remote;
    /// let remote = Remote::new("wss://hub.internal:7171").ca(std::fs::read("ca.pem")?);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(pem.into().into());
        self
    }

    #[cfg(feature = "tls")]
    pub(super) fn trusted(&self) -> Option<&[u8]> {
        self.ca.as_deref()
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
