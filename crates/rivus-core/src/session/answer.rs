//! What a push comes to: what is asked about it, and what is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::grant::cut;
use super::{Access, Gate, Limits, Rights};
use crate::code::Code;
use crate::pending::Pending;
use crate::register::Register;
use crate::replica::{Proposed, Refusal, Review, Spot, Verdict};
use crate::wire::{Exception, FRAME_BYTES_MAX, Words};

/// What a replica takes that a register has seen, in bytes, at the most.
const SEEN_BYTES: usize = 48;

/// What a register takes beyond address and value: edit, stamps and lengths, in bytes, at the most.
const REGISTER_BYTES: usize = 128;

/// What an entity takes in a push beyond its kind and id, in bytes, at the most.
const ENTITY_BYTES: usize = 32;

/// How much of a refusal's words its author is told, in bytes.
pub(super) const REASON_BYTES_MAX: usize = 4096;

/// What an authority answered to one push. Each edit of it is in one class.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answered {
    /// Accepted.
    pub accepted: usize,
    /// Accepted, and a write of theirs lost at once to one that had not seen it: it is among the conflicts.
    pub superseded: usize,
    /// Accepted before, as far as the answer shows that: it was not heard then.
    pub duplicate: usize,
    /// To be made anew and sent again.
    pub again: usize,
    /// Refused, by reason.
    pub refused: BTreeMap<Code, usize>,
}

/// Edits that a connection was to send and that are pending still.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeftOver {
    /// They refer to what is refused, and wait for that.
    pub blocked: usize,
    /// They are sent next time.
    pub deferred: usize,
}

/// What the gate says of a subject's edits.
pub(super) struct Asked {
    pub(super) gate: Arc<Gate>,
    pub(super) subject: String,
    pub(super) rights: Arc<Rights>,
}

impl Asked {
    pub(super) fn may_write(&self) -> impl Fn(&str) -> bool {
        let Self { gate, subject, rights } = self;
        move |scope| rights.allows(Access::Write, scope) && gate.allows(subject, Access::Write, scope)
    }

    pub(super) fn validate(&self) -> impl Fn(&Proposed<'_>) -> Result<(), Refusal> {
        move |edit| self.gate.validate(&self.subject, edit)
    }

    pub(super) fn review<'r>(
        &self,
        may_write: &'r dyn Fn(&str) -> bool,
        validate: &'r dyn Fn(&Proposed<'_>) -> Result<(), Refusal>,
    ) -> Review<'r> {
        let Limits { registers_max, value_bytes_max, .. } = self.gate.bounds();
        let asks = self.gate.is_asking() || !self.rights.is_everything();
        let may_write = asks.then_some(may_write);
        let validate = self.gate.is_validating().then_some(validate);
        Review { may_write, validate, registers_max, value_bytes_max }
    }
}

/// A verdict as it is told; a push has fewer edits than 32 bits count. Beyond `room` bytes the words are left out.
pub(super) fn exception((index, verdict): (u64, Verdict), room: &mut usize) -> Exception {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    let Verdict::Refused { code, mut message, spot } = verdict else {
        return Exception { index, code: None, message: Words::default(), spot: None };
    };
    cut(&mut message, REASON_BYTES_MAX);
    let field = |spot: &Spot| spot.field.as_ref().map_or(0, String::len);
    let named = spot.as_ref().map_or(0, |spot| spot.kind.len() + spot.id.len() + field(spot));
    let Some(left) = room.checked_sub(message.len() + named) else {
        return Exception { index, code: Some(code), message: Words::default(), spot: None };
    };
    *room = left;
    Exception { index, code: Some(code), message: message.into(), spot: spot.map(Box::new) }
}

/// What an edit takes of a push, at the most.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) registers: usize,
    pub(super) bytes: usize,
    pub(super) value_bytes: usize,
}

impl Size {
    pub(super) fn of(edit: &Pending<'_>) -> Self {
        let registers = || edit.entities.iter().flat_map(|entity| &entity.registers);
        let value = |register: &Register<'_>| register.alive.iter().map(|c| c.value.len()).max().unwrap_or(0);
        let names: usize = edit.entities.iter().map(|e| e.kind.len() + e.id.len() + ENTITY_BYTES).sum();
        // An own edit's register has one candidate; each that it has seen is told as well.
        let told = |(address, register): &(&[u8], Register<'_>)| {
            address.len() + value(register) + REGISTER_BYTES + SEEN_BYTES * register.seen.len()
        };
        Self {
            registers: registers().count(),
            bytes: names + registers().map(told).sum::<usize>(),
            value_bytes: registers().map(|(_, register)| value(register)).max().unwrap_or(0),
        }
    }

    /// Why an authority with these limits would refuse it.
    pub(super) fn refusal(self, limits: Limits) -> Option<Verdict> {
        let Self { registers, bytes, value_bytes } = self;
        let message = if registers > limits.registers_max {
            let most = limits.registers_max;
            format!("{registers} registers: the hub takes at most {most}; make several edits of it")
        } else if value_bytes > limits.value_bytes_max {
            format!("a value of {value_bytes} bytes: the hub takes at most {}", limits.value_bytes_max)
        } else if bytes > limits.frame_bytes_max && limits.frame_bytes_max < FRAME_BYTES_MAX {
            // Any edit fits into a usual frame.
            let most = limits.frame_bytes_max;
            format!("{bytes} bytes: the hub takes at most {most}; make several edits of it")
        } else {
            return None;
        };
        Some(Verdict::Refused { code: Code::TOO_LARGE, message, spot: None })
    }

    /// Whether a push of so many bytes and registers has room for it.
    pub(super) fn fits(self, limits: Limits, bytes: usize, registers: usize) -> bool {
        bytes + self.bytes <= limits.frame_bytes_max && registers + self.registers <= limits.registers_max
    }
}
