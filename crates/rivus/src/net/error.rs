//! Why a sync ended.

use std::time::Duration;

use rivus_core::code::Code;
use rivus_core::session::{SessionError, TooManyScopes};

use super::reaction::Reaction;

/// Why a connection could not be made or ended. Everything up to the last whole frame is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The address is none that can be connected to.
    #[error("`{url}` is no address of a hub: give {ADDRESS}")]
    BadAddress {
        /// What was given.
        url: String,
    },
    /// Nobody answers there.
    #[error("{url} cannot be reached ({reason}): is the hub running, and is there a network?")]
    Unreachable {
        /// The address.
        url: String,
        /// What the system said.
        reason: String,
    },
    /// The certificate of the other side is not trusted, or the two do not both speak TLS.
    #[error("{url}: {reason}")]
    Tls {
        /// The address.
        url: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Something answers there, but not as a hub.
    #[error("{url} is no hub, it answers {reason}")]
    NoHub {
        /// The address.
        url: String,
        /// What it says.
        reason: String,
    },
    /// The hub turned the connection away before the first frame.
    #[error("{url} turned the connection away: {code}: {message}")]
    TurnedAway {
        /// The address.
        url: String,
        /// Why.
        code: Code,
        /// Why, in words.
        message: String,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// A certificate or a private key that cannot be used.
    #[error("TLS cannot be used: {reason}")]
    BadCertificate {
        /// What is wrong.
        reason: String,
    },
    /// The keys by which signed tokens are checked cannot be used.
    #[error("tokens cannot be checked: {reason}")]
    BadKeys {
        /// What is wrong.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection broke ({0}): what was not acknowledged is sent again next time")]
    Broken(String),
    /// The other side was silent for too long.
    #[error("the other side was silent for too long: what was not acknowledged is sent again next time")]
    Silent,
    /// Nothing went forward for too long though something was due: only probes came.
    #[error(
        "the other side answers probes and nothing else: what was not acknowledged is sent again next time"
    )]
    Stalled,
    /// The source of tokens failed.
    #[error("no token could be had ({reason}): is the login service there?")]
    Token {
        /// What it said.
        reason: String,
    },
    /// The application has paused what was asked for.
    #[error("sync is paused: drop the guard that pauses it")]
    Paused,
    /// A message that is longer than it may be here.
    #[error("the other side sent a message beyond {bytes_max} bytes, the most that it may send there")]
    TooLarge {
        /// How long it may be.
        bytes_max: usize,
    },
    /// A message that is text: frames are binary.
    #[error("the other side sent text, but frames are binary: it is no Rivus, or there is a gateway between")]
    Text,
    /// The other side breaks the rules of WebSockets.
    #[error("the other side breaks the rules of WebSockets ({0}): is there a gateway between?")]
    WebSocket(String),
    /// A frame that could not be decompressed.
    #[error("the other side sent a compressed frame that is damaged or too large")]
    Packing,
    /// The session ended with an error.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The other side does not hand out entities.
    #[error(
        "the other side hands out no entities: it is no hub that judges edits, or an older one: update it"
    )]
    CannotFetch,
    /// More scopes were asked for by name than one connection follows, or a name that is too long.
    #[error(transparent)]
    TooManyScopes(#[from] TooManyScopes),
    /// The connection follows everything, not scopes by name.
    #[error("this connection follows everything: say with `Remote::scopes` that it follows scopes by name")]
    FollowsEverything,
    /// The database was called from inside one of its own edits.
    #[error("the database was called from inside one of its own edits")]
    Reentrant,
}

impl SyncError {
    /// Whether trying again later may help without anybody changing anything, but for a fresh token where there is a
    /// source of them.
    ///
    /// ```
    /// assert!(rivus::SyncError::Silent.is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self.reaction(true), Reaction::Stop | Reaction::SetAside)
    }

    /// The code that the other side is told, or has told.
    pub(super) fn code(&self) -> Option<Code> {
        match self {
            Self::Session(error) => error.code(),
            Self::Silent => Some(Code::TIMEOUT),
            Self::Stalled => Some(Code::STALLED),
            Self::TooLarge { .. } => Some(Code::TOO_LARGE),
            Self::Packing | Self::Text | Self::WebSocket(_) => Some(Code::BAD_FRAME),
            _ => None,
        }
    }
}

/// What an address looks like.
const ADDRESS: &str = if cfg!(feature = "tls") {
    "wss://HOST:PORT, or ws://HOST:PORT without encryption"
} else {
    "ws://HOST:PORT"
};
