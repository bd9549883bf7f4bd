//! Why a sync ended.

use rivus_core::session::{SessionError, TooManyScopes};

/// Why a connection could not be made or ended. Everything up to the last whole frame is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The address is none that can be connected to.
    #[error("`{url}` is no address of a hub: give ws://HOST:PORT")]
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
    /// The address cannot be listened on.
    #[error("cannot listen on {address} ({reason}): choose another port, or stop what uses it")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection broke ({0}): what was not acknowledged is sent again next time")]
    Broken(String),
    /// The other side was silent for too long.
    #[error("the other side was silent for too long: what was not acknowledged is sent again next time")]
    Silent,
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
    /// Whether trying again later may help without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::BadAddress { .. }
            | Self::Listen { .. }
            | Self::Packing
            | Self::CannotFetch
            | Self::TooManyScopes(_)
            | Self::FollowsEverything
            | Self::Reentrant => false,
            Self::Unreachable { .. } | Self::Broken(_) | Self::Silent => true,
            Self::Session(error) => error.is_retryable(),
        }
    }
}
