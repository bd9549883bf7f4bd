//! Frames that no honest side sends, each with the error that it must bring.
//!
//! Whoever changes the decoder or the session feeds them all to a real session and finds out which refusal has
//! changed. A second implementation of the protocol does the same with the bytes. Each frame is sound but for the
//! one fault that its name tells: [`good`] has the sound ones.

mod control;
mod order;
mod parts;
mod rows;
mod state;
mod values;

use rivus_core::code::Code;
use rivus_core::session::SessionError;
use rivus_core::wire::WireError;

pub use state::{NOW, State};

/// A frame that must be refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadFrame {
    /// What is wrong with it; no two have the same.
    pub name: String,
    /// Who hears it, and when.
    pub state: State,
    /// The frame.
    pub bytes: Vec<u8>,
    /// What [`Session::handle`](rivus_core::session::Session::handle) says.
    pub expect: Expect,
}

/// The error that a bad frame brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Exactly this one.
    Wire(WireError),
    /// CBOR that is none or of another type, in the frame of this name; the words are the CBOR library's.
    Cbor(&'static str),
    /// A refusal with this code, whose message holds these words.
    Refused(Code, &'static str),
}

impl Expect {
    /// Whether this is the error.
    #[must_use]
    pub fn is(&self, error: &SessionError) -> bool {
        match (self, error) {
            (Self::Wire(expected), SessionError::Wire(error)) => expected == error,
            (Self::Cbor(expected), SessionError::Wire(WireError::Cbor { frame, .. })) => expected == frame,
            (Self::Refused(expected, words), SessionError::Refused { code, message }) => {
                expected == code && message.contains(words)
            }
            _ => false,
        }
    }

    /// The code that the other side is told.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Wire(WireError::TooLarge { .. }) => Code::TOO_LARGE,
            Self::Wire(_) | Self::Cbor(_) => Code::BAD_FRAME,
            Self::Refused(code, _) => *code,
        }
    }
}

/// All bad frames: more than 300.
#[must_use]
pub fn all() -> Vec<BadFrame> {
    let mut all = Vec::new();
    control::add(&mut all);
    rows::add(&mut all);
    values::add(&mut all);
    order::add(&mut all);
    all
}

/// The sound frames from which the bad ones are made: name, who hears it, bytes. Each is taken.
#[must_use]
pub fn good() -> Vec<(&'static str, State, Vec<u8>)> {
    [control::good(), rows::good()].concat()
}

fn malformed(frame: &'static str) -> Expect {
    Expect::Wire(WireError::Malformed { frame })
}

fn bound(what: &'static str, max: usize) -> Expect {
    Expect::Wire(WireError::Bound { what, max })
}

#[cfg(test)]
mod tests;
