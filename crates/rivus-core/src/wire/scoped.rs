//! The byte form of SCOPED: a frame of the subscription of one scope.

use super::{WireError, tag};
use crate::bytes::{Cut, Put, Reader};
use crate::scope::SCOPE_BYTES_MAX;

/// The most scopes that one connection may be subscribed to by name.
pub const SCOPES_MAX: usize = 64;

/// A frame of the subscription of one scope, in its envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scoped<'a> {
    /// The number of the subscription, from 1. The client gives them, rising.
    pub slot: u32,
    /// The scope's name, where the frame is SUBSCRIBE; else empty.
    pub scope: &'a str,
    /// SUBSCRIBE, EQUAL, DELTA, CHECKPOINT, SYNCED, LEFT, WINDOW, SKETCH or REPAIR.
    pub frame: &'a [u8],
}

impl<'a> Scoped<'a> {
    /// The bytes with the envelope.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.frame.len() + self.scope.len() + 8);
        out.push(tag::SCOPED);
        out.varint(u64::from(self.slot));
        out.slice(self.scope.as_bytes());
        out.extend_from_slice(self.frame);
        out
    }

    /// Takes the envelope off.
    ///
    /// # Errors
    /// [`WireError`] if there is none, or something in it that does not belong there.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let mut read = || {
            if reader.u8()? != tag::SCOPED {
                return Err(Cut);
            }
            let (slot, scope) = (read_slot(&mut reader)?, reader.str()?);
            let frame = reader.rest();
            let inner = frame.first().copied().ok_or(Cut)?;
            let of_subscriptions = [
                tag::SUBSCRIBE,
                tag::EQUAL,
                tag::DELTA,
                tag::CHECKPOINT,
                tag::SYNCED,
                tag::LEFT,
                tag::WINDOW,
                tag::SKETCH,
                tag::REPAIR,
            ];
            let is_named = inner == tag::SUBSCRIBE || scope.is_empty();
            if !of_subscriptions.contains(&inner) || scope.len() > SCOPE_BYTES_MAX || !is_named {
                return Err(Cut);
            }
            Ok(Self { slot, scope, frame })
        };
        read().map_err(|Cut| WireError::Malformed { frame: "SCOPED" })
    }
}

/// The number of a subscription that has a name.
pub(super) fn read_slot(reader: &mut Reader<'_>) -> Result<u32, Cut> {
    u32::try_from(reader.varint()?).ok().filter(|slot| *slot > 0).ok_or(Cut)
}

pub(super) fn put_readable(scopes: &[String], out: &mut Vec<u8>) {
    out.push(tag::READABLE);
    out.varint(scopes.len() as u64);
    scopes.iter().for_each(|scope| out.slice(scope.as_bytes()));
}

pub(super) fn read_readable(reader: &mut Reader<'_>) -> Result<Vec<String>, Cut> {
    let count = reader.count(1)?;
    let mut scopes = Vec::with_capacity(count);
    for _ in 0..count {
        let scope = reader.str()?;
        if scope.len() > SCOPE_BYTES_MAX {
            return Err(Cut);
        }
        scopes.push(scope.to_owned());
    }
    Ok(scopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_holds_what_it_says_and_nothing_else() {
        let of = |slot, scope, frame| Scoped { slot, scope, frame }.encode();
        let refused = Err(WireError::Malformed { frame: "SCOPED" });
        let long = "x".repeat(SCOPE_BYTES_MAX + 1);
        for bad in [
            of(0, "a", &[tag::SUBSCRIBE, 0]),
            of(1, "a", &[tag::EQUAL, 5, 0]),
            of(1, &long, &[tag::SUBSCRIBE, 0]),
            of(1, "", &[tag::ACK, 5, 0]),
            of(1, "", &[tag::SCOPED, 1, 0, tag::EQUAL, 5, 0]),
            of(1, "", &[]),
            vec![tag::SCOPED, 0x81, 0x80, 0x80, 0x80, 0x10, 0, tag::EQUAL, 5, 0],
        ] {
            assert_eq!(Scoped::decode(&bad), refused, "{bad:?}");
        }
        let good = of(1, long.split_at(1).1, &[tag::SUBSCRIBE, 0]);
        assert_eq!(Scoped::decode(&good).map(|scoped| scoped.scope.len()), Ok(SCOPE_BYTES_MAX));
    }
}
