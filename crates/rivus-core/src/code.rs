//! Numbered reasons: why a connection ended or an edit was refused.
//!
//! Numbers are for ever. Families: 1xx frames, 2xx who may connect, 3xx schema, 4xx single edits, 5xx the server.

use std::fmt;

/// A numbered reason, as it goes over the wire. Numbers that this version does not know are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Code(pub u16);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $retry:literal, $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// Whether the same may succeed later without anybody changing anything.
            #[must_use]
            pub fn is_retryable(self) -> bool {
                match self { $(Self::$name => $retry,)* _ => false }
            }

            /// The name, if the number is known.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self { $(Self::$name => Some($text),)* _ => None }
            }
        }
    };
}

codes! {
    /// The other side ends the connection in order.
    CLOSED = 0, true, "CLOSED";
    /// Bytes that are no frame, or a frame that breaks its own rules.
    BAD_FRAME = 100, false, "BAD_FRAME";
    /// A frame above the announced limits.
    TOO_LARGE = 101, false, "TOO_LARGE";
    /// No protocol version that both speak.
    VERSION = 102, false, "VERSION";
    /// A frame that does not belong at this point.
    UNEXPECTED = 103, false, "UNEXPECTED";
    /// No token, or one that grants nothing.
    UNAUTHORISED = 200, false, "UNAUTHORISED";
    /// The scope is synced with another authority.
    NOT_AUTHORITY = 201, false, "NOT_AUTHORITY";
    /// Both ends are the same store.
    SAME_STORE = 202, false, "SAME_STORE";
    /// The store was a copy and has taken a new id: connect again.
    COPIED = 203, true, "COPIED";
    /// A store or replica that belongs to somebody else.
    OWNER = 204, false, "OWNER";
    /// The token was granted something once and is no more: show a fresh one.
    EXPIRED = 206, false, "EXPIRED";
    /// The store was away for longer than its lease, and what was collected meanwhile cannot be told any more: it reads
    /// everything again.
    FENCED = 207, true, "FENCED";
    /// Both declare a field, differently; or a peer names a version of the rules beyond what is believed.
    SCHEMA = 300, false, "SCHEMA";
    /// A stamp beyond the authority's clock and drift.
    CLOCK_SKEW = 400, true, "CLOCK_SKEW";
    /// A stamp of a replica that is not the sender's.
    FOREIGN_STAMP = 401, false, "FOREIGN_STAMP";
    /// A rank above the granted one, or none where one is needed.
    RANK = 402, false, "RANK";
    /// An edit that claims to have seen what nobody has written.
    SEEN = 403, false, "SEEN";
    /// A scope that is not granted.
    SCOPE = 404, false, "SCOPE";
    /// Registers that do not make up one edit.
    MALFORMED = 405, false, "MALFORMED";
    /// It rested on a refused edit, and what it was to do fits no more without that. Said by the device itself.
    BASE = 406, false, "BASE";
    /// An edit that the application's own check does not take.
    INVALID = 407, false, "INVALID";
    /// The entity was deleted and collected before its author knew: nothing is left to edit.
    GONE = 408, false, "GONE";
    /// The server cannot read or write its store.
    STORE = 500, true, "STORE";
    /// The server has too many connections.
    BUSY = 501, true, "BUSY";
    /// Nothing was heard for too long.
    TIMEOUT = 502, true, "TIMEOUT";
    /// Too much in too short a time: come back later, as GOAWAY says.
    RATE = 503, true, "RATE";
    /// Nothing went forward for too long though something was due.
    STALLED = 504, true, "STALLED";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "code {}", self.0),
        }
    }
}
