//! With which code a WebSocket is closed (RFC 6455, section 7.4), and what such a code tells: one table.
//!
//! GOAWAY says more. The code is for those that it does not reach, or that do not read it: proxies, and pages in browsers.

use rivus_core::code::Code;
use rivus_core::session::SessionError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::SyncError;
use super::pump::Ended;

/// Whose socket it is that is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// A hub's: where it stops, everybody has to go.
    Hub,
    /// A device's, or that of a peer.
    Device,
}

/// The last word on a socket whose session has ended so. The table is in `docs/protocol.md` too.
pub(super) fn last_word(ended: Result<Ended, &SyncError>, side: Side) -> CloseFrame {
    let plain = |code: CloseCode, reason: &'static str| CloseFrame { code, reason: reason.into() };
    let error = match ended {
        Ok(Ended::Stopped) if side == Side::Hub => return plain(CloseCode::Away, "the hub stops"),
        // The other side knows best why it goes.
        Ok(_) | Err(SyncError::Session(SessionError::Goaway { .. })) => return plain(CloseCode::Normal, ""),
        Err(SyncError::WebSocket(_)) => return plain(CloseCode::Protocol, "no WebSocket"),
        Err(error) => error,
    };
    match error.code() {
        Some(Code::CLOSED) => plain(CloseCode::Normal, ""),
        Some(code) if code.0 < FAMILY => {
            CloseFrame { code: CloseCode::from(BASE + code.0), reason: code.to_string().into() }
        }
        // An application's own do not fit in.
        Some(code) => CloseFrame { code: CloseCode::Policy, reason: code.to_string().into() },
        None => plain(CloseCode::Error, ""),
    }
}

/// What it means that the other side has closed the socket and said no more than this.
pub(super) fn told(last: Option<CloseFrame>) -> SyncError {
    let Some(CloseFrame { code, reason }) = last else {
        return SyncError::Broken("it was closed".to_owned());
    };
    let number = u16::from(code);
    match number.checked_sub(BASE).filter(|code| (1..FAMILY).contains(code)).map(Code) {
        Some(code) => {
            let message = format!("it closed the connection with {number} and said no more");
            SessionError::Goaway { code, message, retry_after_ms: None }.into()
        }
        None if reason.is_empty() => SyncError::Broken(format!("it was closed with {number}")),
        None => SyncError::Broken(format!("it was closed with {number}: {}", reason.as_str())),
    }
}

/// Codes of this protocol are from here on: the range is for private use.
const BASE: u16 = 4000;
/// So many.
const FAMILY: u16 = 1000;

#[cfg(test)]
mod tests;
