//! What is done about an error: one table.
//!
//! Pure: an error has a class, a class has a reaction, and both are here. Whoever runs a session asks; nobody else
//! looks at codes. The table is in `docs/sync.md` too.

use std::time::Duration;

use rivus_core::code::Code;
use rivus_core::session::SessionError;
use rivus_core::store::{CommitError, StoreError};
use rivus_core::wire::WireError;

use super::SyncError;
use super::backoff::PAUSE_MAX;

/// What kind of error it is that ended a sync: what can be done about it depends on that alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorClass {
    /// There is no way to the other side, or it went away.
    Offline,
    /// The other side cannot serve now.
    Server,
    /// The other side wants this one to come later.
    RateLimited,
    /// The other side lets nobody in with this token.
    Unauthorised,
    /// The token has run out.
    Expired,
    /// The two do not fit: one of them must be upgraded, as the message says.
    Incompatible,
    /// This account may not do that here now, and may later. It is no verdict on a write.
    Forbidden,
    /// A write was refused. It alone is set aside; it never ends a connection.
    Rejected,
    /// The other side breaks the protocol, or this one does.
    Protocol,
    /// The own store cannot be used now.
    Storage,
    /// The own store is damaged, or of a newer version.
    Damaged,
    /// The own store got new ids, or another writer: a new connection is right again.
    Renewed,
    /// The application stopped it.
    Paused,
    /// The call cannot work: a wrong address, two stores that do not belong together.
    Misuse,
}

/// What follows from an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reaction {
    /// Once more at once.
    Again,
    /// Once more after a pause that grows each time, without end; not before this has passed.
    Wait {
        /// The least pause.
        at_least: Duration,
    },
    /// A fresh token, and once more; if that fails the same way, stop.
    FreshToken,
    /// Nothing more until somebody changes something.
    Stop,
    /// The write is set aside, everything else goes on.
    SetAside,
}

/// How long to wait for a hub that wants less traffic and does not say for how long.
pub(super) const RATE_PAUSE: Duration = Duration::from_secs(5);

/// The table. `retry_after` is what the other side asked for, `can_refresh` whether there is a source of tokens that
/// was not asked since the last time that one was taken.
#[must_use]
pub(super) fn reaction(class: ErrorClass, retry_after: Option<Duration>, can_refresh: bool) -> Reaction {
    match class {
        ErrorClass::Offline | ErrorClass::Server | ErrorClass::Storage => {
            Reaction::Wait { at_least: retry_after.unwrap_or_default() }
        }
        ErrorClass::Forbidden => Reaction::Wait { at_least: retry_after.unwrap_or(PAUSE_MAX) },
        ErrorClass::RateLimited => Reaction::Wait { at_least: retry_after.unwrap_or(RATE_PAUSE) },
        ErrorClass::Unauthorised | ErrorClass::Expired if can_refresh => Reaction::FreshToken,
        ErrorClass::Unauthorised
        | ErrorClass::Expired
        | ErrorClass::Incompatible
        | ErrorClass::Protocol
        | ErrorClass::Damaged
        | ErrorClass::Paused
        | ErrorClass::Misuse => Reaction::Stop,
        ErrorClass::Renewed => Reaction::Again,
        ErrorClass::Rejected => Reaction::SetAside,
    }
}

impl SyncError {
    /// What kind of error it is.
    ///
    /// ```
    /// use rivus::{ErrorClass, SyncError};
    /// assert_eq!(SyncError::Silent.class(), ErrorClass::Offline);
    /// ```
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unreachable { .. } | Self::Broken(_) | Self::Silent | Self::Token { .. } => {
                ErrorClass::Offline
            }
            // A certificate is renewed at the hub, and in a hotel a stranger answers until one has paid: a device that
            // gave up would stay away for ever.
            Self::Tls { .. } | Self::NoHub { .. } | Self::WebSocket(_) => ErrorClass::Offline,
            Self::TurnedAway { code, .. } => of_code(*code),
            Self::BadCertificate { .. } | Self::BadKeys { .. } => ErrorClass::Misuse,
            Self::Stalled => ErrorClass::Server,
            Self::BadAddress { .. }
            | Self::Listen { .. }
            | Self::TooManyScopes(_)
            | Self::FollowsEverything
            | Self::Reentrant => ErrorClass::Misuse,
            Self::Packing | Self::Text | Self::TooLarge { .. } => ErrorClass::Protocol,
            Self::CannotFetch => ErrorClass::Incompatible,
            Self::Paused => ErrorClass::Paused,
            Self::Session(error) => of_session(error),
        }
    }

    /// How long the other side asked to wait before connecting again.
    ///
    /// ```
    /// assert_eq!(rivus::SyncError::Silent.retry_after(), None);
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Session(SessionError::Goaway { retry_after_ms, .. }) => {
                // No hub sends a client away for good by a slip of a unit.
                retry_after_ms.map(|ms| Duration::from_millis(ms).min(RETRY_AFTER_MAX))
            }
            Self::TurnedAway { retry_after, .. } => retry_after.map(|wait| wait.min(RETRY_AFTER_MAX)),
            _ => None,
        }
    }

    pub(super) fn reaction(&self, can_refresh: bool) -> Reaction {
        reaction(self.class(), self.retry_after(), can_refresh)
    }
}

/// A longer pause is not taken from the other side.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

fn of_session(error: &SessionError) -> ErrorClass {
    match error {
        // A newer protocol, most likely.
        SessionError::Wire(WireError::UnknownFrame { .. }) => ErrorClass::Incompatible,
        SessionError::Wire(_) => ErrorClass::Protocol,
        // On a whole connection: rights may be given back at any time.
        SessionError::Goaway { code: Code(400..=499), .. } => ErrorClass::Forbidden,
        // Said on this side: scopes that cannot be followed so.
        SessionError::Refused { code: Code::SCOPE | Code::TOO_LARGE, .. } => ErrorClass::Misuse,
        SessionError::Refused { code, .. } | SessionError::Goaway { code, .. } => of_code(*code),
        SessionError::Copied | SessionError::Fenced | SessionError::NewWriter => ErrorClass::Renewed,
        SessionError::Commit(CommitError::Store(StoreError::Damaged(_) | StoreError::TooNew { .. })) => {
            ErrorClass::Damaged
        }
        // Time helps.
        SessionError::Commit(CommitError::Store(StoreError::Aside)) => ErrorClass::Forbidden,
        SessionError::Commit(_) => ErrorClass::Storage,
        _ => ErrorClass::Misuse,
    }
}

/// Codes that this version does not know count as their family.
fn of_code(code: Code) -> ErrorClass {
    match code {
        Code::CLOSED | Code::TIMEOUT => ErrorClass::Offline,
        Code::VERSION => ErrorClass::Incompatible,
        Code::UNAUTHORISED => ErrorClass::Unauthorised,
        Code::COPIED | Code::FENCED => ErrorClass::Renewed,
        Code::EXPIRED => ErrorClass::Expired,
        Code::RATE => ErrorClass::RateLimited,
        Code(200..=299) => ErrorClass::Misuse,
        Code(300..=399) => ErrorClass::Incompatible,
        Code(400..=499) => ErrorClass::Rejected,
        Code(500..=599) => ErrorClass::Server,
        Code(_) => ErrorClass::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goaway(code: Code, retry_after_ms: Option<u64>) -> SyncError {
        SessionError::Goaway { code, message: String::new(), retry_after_ms }.into()
    }

    fn refused(code: Code) -> SyncError {
        SessionError::Refused { code, message: String::new() }.into()
    }

    /// The table of `docs/sync.md`, row by row: an error of the class, the class, and what follows without and with a
    /// source of tokens.
    #[test]
    fn each_class_has_its_reaction() {
        let wait = |ms| Reaction::Wait { at_least: Duration::from_millis(ms) };
        let store = |error: StoreError| SessionError::from(error).into();
        let rows = [
            (SyncError::Broken("x".into()), ErrorClass::Offline, wait(0), wait(0)),
            (SyncError::Token { reason: "x".into() }, ErrorClass::Offline, wait(0), wait(0)),
            (goaway(Code::CLOSED, Some(2000)), ErrorClass::Offline, wait(2000), wait(2000)),
            (goaway(Code::STORE, None), ErrorClass::Server, wait(0), wait(0)),
            (goaway(Code::STALLED, None), ErrorClass::Server, wait(0), wait(0)),
            (SyncError::Stalled, ErrorClass::Server, wait(0), wait(0)),
            (goaway(Code(599), None), ErrorClass::Server, wait(0), wait(0)),
            (goaway(Code::RATE, None), ErrorClass::RateLimited, wait(5000), wait(5000)),
            (goaway(Code::RATE, Some(90_000)), ErrorClass::RateLimited, wait(90_000), wait(90_000)),
            (
                goaway(Code::UNAUTHORISED, None),
                ErrorClass::Unauthorised,
                Reaction::Stop,
                Reaction::FreshToken,
            ),
            (goaway(Code::EXPIRED, None), ErrorClass::Expired, Reaction::Stop, Reaction::FreshToken),
            (goaway(Code::VERSION, None), ErrorClass::Incompatible, Reaction::Stop, Reaction::Stop),
            (goaway(Code::SCHEMA, None), ErrorClass::Incompatible, Reaction::Stop, Reaction::Stop),
            (SyncError::CannotFetch, ErrorClass::Incompatible, Reaction::Stop, Reaction::Stop),
            (goaway(Code::SCOPE, None), ErrorClass::Forbidden, wait(60_000), wait(60_000)),
            (refused(Code::RANK), ErrorClass::Rejected, Reaction::SetAside, Reaction::SetAside),
            (goaway(Code::BAD_FRAME, None), ErrorClass::Protocol, Reaction::Stop, Reaction::Stop),
            (SyncError::Packing, ErrorClass::Protocol, Reaction::Stop, Reaction::Stop),
            (SyncError::Text, ErrorClass::Protocol, Reaction::Stop, Reaction::Stop),
            (SyncError::TooLarge { bytes_max: 1 }, ErrorClass::Protocol, Reaction::Stop, Reaction::Stop),
            (SyncError::WebSocket("x".into()), ErrorClass::Offline, wait(0), wait(0)),
            (store(StoreError::Full("x".into())), ErrorClass::Storage, wait(0), wait(0)),
            (store(StoreError::Busy("x".into())), ErrorClass::Storage, wait(0), wait(0)),
            (store(StoreError::Aside), ErrorClass::Forbidden, wait(60_000), wait(60_000)),
            (store(StoreError::Damaged("x".into())), ErrorClass::Damaged, Reaction::Stop, Reaction::Stop),
            (SessionError::Copied.into(), ErrorClass::Renewed, Reaction::Again, Reaction::Again),
            (goaway(Code::COPIED, None), ErrorClass::Renewed, Reaction::Again, Reaction::Again),
            (SessionError::Fenced.into(), ErrorClass::Renewed, Reaction::Again, Reaction::Again),
            (goaway(Code::FENCED, None), ErrorClass::Renewed, Reaction::Again, Reaction::Again),
            (SyncError::Paused, ErrorClass::Paused, Reaction::Stop, Reaction::Stop),
            (refused(Code::SCOPE), ErrorClass::Misuse, Reaction::Stop, Reaction::Stop),
            (goaway(Code::SAME_STORE, None), ErrorClass::Misuse, Reaction::Stop, Reaction::Stop),
            (SyncError::BadAddress { url: "x".into() }, ErrorClass::Misuse, Reaction::Stop, Reaction::Stop),
        ];
        for (error, class, without, with) in rows {
            assert_eq!(error.class(), class, "{error}");
            assert_eq!(error.reaction(false), without, "{error}");
            assert_eq!(error.reaction(true), with, "{error}");
        }
    }

    #[test]
    fn a_pause_that_the_other_side_asks_for_is_a_day_at_most() {
        let asked = goaway(Code::RATE, Some(u64::MAX)).retry_after();
        assert_eq!(asked, Some(Duration::from_secs(86_400)));
    }
}
