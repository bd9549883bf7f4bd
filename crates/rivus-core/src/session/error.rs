//! Why a connection is over.

use super::shown;
use crate::code::Code;
use crate::replica::RoleError;
use crate::store::{CommitError, StoreError};
use crate::wire::WireError;

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The other side sent bytes that are no frame.
    #[error("the other side sent {0}: it is no Rivus, or another version")]
    Wire(#[from] WireError),
    /// This side ended it.
    #[error("{code}: {message}")]
    Refused {
        /// Why.
        code: Code,
        /// Why, in words.
        message: String,
    },
    /// The other side ended it.
    #[error("the other side closed: {code}: {}", shown(.message))]
    Goaway {
        /// Why.
        code: Code,
        /// Why, in words.
        message: String,
        /// How long it asks to wait before connecting again, in ms.
        retry_after_ms: Option<u64>,
    },
    /// The other side sends more than it may in so short a time.
    #[error("too many registers in too short a time: to go on in {retry_after_ms} ms")]
    Rate {
        /// When it may go on, in ms from now.
        retry_after_ms: u64,
    },
    /// This store was a copy; it has taken a new id. Connect again.
    #[error(
        "this store is a copy or a restored backup of one that has gone on; it took a new id, connect again"
    )]
    Copied,
    /// This store was away for longer than its lease and has missed what was collected; it has taken a new id. Connect again.
    #[error(
        "this store was away for longer than its lease: it took a new id and reads everything again, connect again"
    )]
    Fenced,
    /// Another process has begun to write into this store since the greeting, which named the writers, or has found
    /// it to be a copy and given it new ids.
    #[error("another process writes into this store since the connection was made: connect again")]
    NewWriter,
    /// The store failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The two stores do not belong together.
    #[error(transparent)]
    Role(#[from] RoleError),
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

impl SessionError {
    /// Whether connecting again later may help without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Wire(_) | Self::Role(_) => false,
            Self::Refused { code, .. } | Self::Goaway { code, .. } => code.is_retryable(),
            Self::Copied | Self::Fenced | Self::NewWriter | Self::Commit(_) | Self::Rate { .. } => true,
        }
    }

    /// How long to wait before connecting again, in ms, if either side asks for that.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Goaway { retry_after_ms, .. } => *retry_after_ms,
            Self::Rate { retry_after_ms } => Some(*retry_after_ms),
            _ => None,
        }
    }

    /// The code that the other side is told, or has told.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Goaway { code, .. } => Some(*code),
            other => other.to_tell().map(|(code, _)| code),
        }
    }

    /// What to tell the other side.
    pub(super) fn to_tell(&self) -> Option<(Code, String)> {
        match self {
            Self::Wire(error @ WireError::TooLarge { .. }) => Some((Code::TOO_LARGE, error.to_string())),
            Self::Wire(error) => Some((Code::BAD_FRAME, error.to_string())),
            Self::Refused { code, message } => Some((*code, message.clone())),
            Self::Goaway { .. } => None,
            Self::Rate { .. } => Some((Code::RATE, self.to_string())),
            Self::NewWriter => Some((Code::CLOSED, "back in a moment".to_owned())),
            Self::Copied => Some((Code::COPIED, "the store took a new id".to_owned())),
            Self::Fenced => Some((Code::FENCED, "the store took a new id".to_owned())),
            Self::Commit(error @ CommitError::Store(StoreError::Aside)) => {
                Some((Code::CLOCK_SKEW, error.to_string()))
            }
            // What is wrong with the store is nobody else's business.
            Self::Commit(_) => Some((Code::STORE, "the store cannot be used now".to_owned())),
            Self::Role(error @ (RoleError::OtherAuthority { .. } | RoleError::IsAuthority)) => {
                Some((Code::NOT_AUTHORITY, error.to_string()))
            }
            Self::Role(error) => Some((Code::STORE, error.to_string())),
        }
    }
}
