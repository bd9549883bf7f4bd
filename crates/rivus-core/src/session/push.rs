//! Pending edits on their way to the authority, and its answers.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::grant::cut;
use super::read::registers;
use super::{Access, Ack, Gate, Limits, Session, SessionError, SessionEvent, unexpected};
use crate::canary::{Canary, is_on};
use crate::clock::{Millis, Stamp};
use crate::code::Code;
use crate::pending::Pending;
use crate::register::Register;
use crate::replica::{
    Answer, Principal, Proposed, Pushed, Refusal, Replica, Review, Spot, Taint, Verdict, Verdicts,
};
use crate::store::Store;
use crate::wire::{Exception, FRAME_BYTES_MAX, Frame};

/// How many pushes may be unanswered at a time.
const IN_FLIGHT_MAX: usize = 4;

/// How many answers a pusher may not have heard: more than ever are in flight. What a refused edit touched is
/// remembered until its answer was heard.
const UNHEARD_MAX: u64 = 16;

/// How much of a refusal's words its author is told, in bytes.
const REASON_BYTES_MAX: usize = 4096;

/// How much room the words of one answer have, in bytes; who has more edits refused at once is told the codes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What an entity takes in a push beyond its kind and id, in bytes, at the most.
const ENTITY_BYTES: usize = 32;

/// What a register takes beyond address and value: edit, stamps and lengths, in bytes, at the most.
const REGISTER_BYTES: usize = 128;

/// What a replica takes that a register has seen, in bytes, at the most.
const SEEN_BYTES: usize = 48;

/// The device's side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pushing {
    /// The keys and stamps of the edits in each unanswered push.
    in_flight: VecDeque<Vec<(u64, Stamp)>>,
    /// The key of the last edit sent.
    sent: u64,
    /// How many answers were heard.
    heard: u64,
    /// After an exception: sending starts over once everything is answered.
    again: bool,
    drained: bool,
}

impl Pushing {
    pub(super) fn new<S: Store>(replica: &Replica<S>) -> Result<Self, SessionError> {
        let drained = replica.pending_count()? == 0;
        Ok(Self { in_flight: VecDeque::new(), sent: 0, heard: 0, again: false, drained })
    }

    /// Whether every edit that was pending has its verdict. Later edits may have come since.
    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    /// Whether no edit that was sent lacks a verdict.
    pub(super) fn is_quiet(&self) -> bool {
        self.drained && self.in_flight.is_empty()
    }
}

/// The authority's side.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Judging {
    taint: Taint,
    answers: u64,
}

impl Session {
    /// The next push, if edits are pending and the authority keeps up.
    pub(super) fn next_push<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        now: Millis,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        loop {
            let mut refused = None;
            let frame = self.fill_push(replica, &mut refused)?;
            match refused {
                Some(refused) if frame.is_none() => self.set_aside(replica, refused, now)?,
                _ => return Ok(frame),
            }
        }
    }

    /// Sets aside an edit that the authority would refuse, as if it had.
    fn set_aside<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        (edit, verdict): ((u64, Stamp), Verdict),
        now: Millis,
    ) -> Result<(), SessionError> {
        let verdicts = Verdicts { seq: 0, exceptions: vec![(edit.0, verdict)] };
        replica.verdicts(now, &Answer { edits: vec![edit], verdicts, clock: now })?;
        if let Some(pushing) = &mut self.pushing {
            // Edits that rested on it may have been stamped anew.
            pushing.again = true;
        }
        self.events.push_back(SessionEvent::Judged { accepted: 0, excepted: 1 });
        Ok(())
    }

    /// A push of what comes next, up to an edit that is more than the authority takes.
    fn fill_push<S: Store>(
        &mut self,
        replica: &Replica<S>,
        refused: &mut Option<((u64, Stamp), Verdict)>,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        let limits = self.limits();
        let Some(pushing) = &mut self.pushing else { return Ok(None) };
        if pushing.in_flight.len() >= IN_FLIGHT_MAX || pushing.again && !pushing.in_flight.is_empty() {
            return Ok(None);
        }
        if pushing.again {
            pushing.again = false;
            pushing.sent = 0;
        }
        let mut keys: Vec<(u64, Stamp)> = Vec::new();
        let encoder = &mut self.encoder;
        let told = &self.told_replicas;
        let mut stranger = false;
        let mut last = 0;
        replica.pending(pushing.sent + 1, &mut |key, edit| {
            stranger = !told.contains(&edit.author());
            if encoder.is_full() || stranger {
                return ControlFlow::Break(());
            }
            let size = Size::of(&edit);
            if let Some(verdict) = size.refusal(limits) {
                *refused = Some(((key, edit.header.stamp), verdict));
                return ControlFlow::Break(());
            }
            if !keys.is_empty() && !size.fits(limits, encoder.len(), encoder.registers()) {
                return ControlFlow::Break(());
            }
            encoder.start_edit(key - last, edit.entities.len());
            last = key;
            for entity in &edit.entities {
                encoder.entity(entity.kind, entity.id, entity.registers.iter().map(|(a, r)| (*a, r)));
            }
            keys.push((key, edit.header.stamp));
            ControlFlow::Continue(())
        })?;
        if stranger && keys.is_empty() {
            return Err(SessionError::NewWriter);
        }
        if keys.is_empty() {
            pushing.drained |= pushing.in_flight.is_empty() && refused.is_none();
            return Ok(None);
        }
        pushing.sent = last;
        pushing.drained = false;
        pushing.in_flight.push_back(keys);
        let heard = pushing.heard;
        let head = replica.head()?;
        let incarnation = self.tell_incarnation(&head);
        Ok(Some(self.encoder.finish_push(heard, head.seq, incarnation)))
    }

    pub(super) fn handle_push<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        bytes: &[u8],
        now: Millis,
    ) -> Result<(), SessionError> {
        let (store, rank_max) = self.peer().map(|peer| (peer.store, peer.rank))?;
        let gate = self.gate().cloned().ok_or_else(|| unexpected("a push to a side that judges nothing"))?;
        let subject = self.subject().to_owned();
        if !self.is_server() || !replica.identity().is_authority {
            return Err(unexpected("a push to a side that judges nothing"));
        }
        // After an error it is of no use any more.
        let mut decoder = std::mem::take(&mut self.decoder);
        let push = decoder.push(bytes, store)?;
        self.take_push(&gate, push.edits.clone().map(|edit| registers(&edit.delta)), now)?;
        let peer = self.peer.as_mut().ok_or_else(|| unexpected("a push before the greeting"))?;
        peer.advance(push.incarnation, push.head);
        let remembered = peer.remembered(replica.peer(store)?);
        let asked = Asked { gate: &gate, subject: &subject };
        let (may_write, validate) = (asked.may_write(), asked.validate());
        let review = asked.review(&may_write, &validate);
        let principal = Principal { store, replicas: peer.about.replicas(), rank_max, review };
        let unheard = self.judging.answers.checked_sub(push.heard);
        if unheard.is_none_or(|unheard| unheard > UNHEARD_MAX) {
            return Err(unexpected("a push that has heard more answers than were given, or far too few"));
        }
        self.judging.answers += 1;
        let Judging { taint, answers } = &mut self.judging;
        // An answer names edits by their place in the push.
        let edits = (0..).zip(push.edits.clone()).map(|(number, edit)| Pushed { number, ..edit });
        let verdicts = replica.judge(now, edits, &principal, &remembered, taint, push.heard, *answers)?;
        let mut room = ANSWER_BYTES_MAX;
        let told = verdicts.exceptions.into_iter().map(|excepted| exception(excepted, &mut room));
        let exceptions: Vec<_> = told.collect();
        let (all, excepted) = (push.edits.len(), exceptions.len());
        self.decoder = decoder;
        self.events.push_back(SessionEvent::Judged { accepted: all - excepted, excepted });
        self.tell_losses(replica)?;
        self.send(&Frame::Ack(Ack { seq: verdicts.seq, clock_ms: now.0, exceptions }));
        Ok(())
    }

    /// Whether a push of edits with so many registers each is not too much.
    fn take_push(
        &self,
        gate: &Gate,
        edits: impl Iterator<Item = usize>,
        now: Millis,
    ) -> Result<(), SessionError> {
        let (mut count, mut registers) = (0, 0);
        edits.for_each(|edit| {
            count += 1;
            registers += edit;
        });
        let most = gate.bounds().registers_max;
        // A single edit gets a verdict of its own.
        if count > 1 && registers > most {
            let message = format!("a push of {registers} registers: at most {most} are taken");
            return Err(SessionError::Refused { code: Code::TOO_LARGE, message });
        }
        self.charge(registers, now)
    }

    pub(super) fn handle_ack<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        ack: Ack,
        now: Millis,
    ) -> Result<(), SessionError> {
        let pushing = self.pushing.as_mut().ok_or_else(|| unexpected("ACK of nothing"))?;
        let mut edits = pushing.in_flight.pop_front().ok_or_else(|| unexpected("ACK of nothing"))?;
        pushing.heard += 1;
        let mut exceptions = Vec::with_capacity(ack.exceptions.len());
        for Exception { index, code, message, spot } in ack.exceptions {
            let key = usize::try_from(index).ok().and_then(|index| edits.get(index));
            let (key, _) = *key.ok_or_else(|| unexpected("ACK names an edit that was not pushed"))?;
            let verdict = match code {
                None => Verdict::Again,
                Some(code) => {
                    Verdict::Refused { code, message: message.into(), spot: spot.map(|spot| *spot) }
                }
            };
            exceptions.push((key, verdict));
        }
        let (accepted, excepted) = (edits.len() - exceptions.len().min(edits.len()), exceptions.len());
        if is_on(Canary::AckDropsInFlight) {
            replica.pending(0, &mut |key, edit| {
                edits.push((key, edit.header.stamp));
                ControlFlow::Continue(())
            })?;
        }
        pushing.again |= excepted > 0;
        pushing.drained &= excepted == 0;
        let answer =
            Answer { edits, verdicts: Verdicts { seq: ack.seq, exceptions }, clock: Millis(ack.clock_ms) };
        replica.verdicts(now, &answer)?;
        // What another process of this store stamped anew meanwhile goes out again.
        if let Some(pushing) = self.pushing.as_mut().filter(|pushing| pushing.in_flight.is_empty()) {
            let mut first = u64::MAX;
            replica.pending(0, &mut |key, _| {
                first = key;
                ControlFlow::Break(())
            })?;
            pushing.again |= first <= pushing.sent;
            pushing.drained &= first > pushing.sent;
        }
        self.events.push_back(SessionEvent::Judged { accepted, excepted });
        Ok(())
    }
}

/// What the gate says of a subject's edits.
#[derive(Clone, Copy)]
pub(super) struct Asked<'g> {
    pub(super) gate: &'g Gate,
    pub(super) subject: &'g str,
}

impl<'g> Asked<'g> {
    pub(super) fn may_write(self) -> impl Fn(&str) -> bool + 'g {
        move |scope| self.gate.allows(self.subject, Access::Write, scope)
    }

    pub(super) fn validate(self) -> impl Fn(&Proposed<'_>) -> Result<(), Refusal> + 'g {
        move |edit| self.gate.validate(self.subject, edit)
    }

    pub(super) fn review<'r>(
        self,
        may_write: &'r dyn Fn(&str) -> bool,
        validate: &'r dyn Fn(&Proposed<'_>) -> Result<(), Refusal>,
    ) -> Review<'r> {
        let Limits { registers_max, value_bytes_max, .. } = self.gate.bounds();
        let validate = self.gate.is_validating().then_some(validate);
        Review { may_write: Some(may_write), validate, registers_max, value_bytes_max }
    }
}

/// A verdict as it is told; a push has fewer edits than 32 bits count. Beyond `room` bytes the words are left out.
fn exception((index, verdict): (u64, Verdict), room: &mut usize) -> Exception {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    let Verdict::Refused { code, mut message, spot } = verdict else {
        return Exception { index, code: None, message: Box::default(), spot: None };
    };
    cut(&mut message, REASON_BYTES_MAX);
    let field = |spot: &Spot| spot.field.as_ref().map_or(0, String::len);
    let named = spot.as_ref().map_or(0, |spot| spot.kind.len() + spot.id.len() + field(spot));
    let Some(left) = room.checked_sub(message.len() + named) else {
        return Exception { index, code: Some(code), message: Box::default(), spot: None };
    };
    *room = left;
    Exception { index, code: Some(code), message: message.into(), spot: spot.map(Box::new) }
}

/// What an edit takes of a push, at the most.
#[derive(Clone, Copy)]
struct Size {
    registers: usize,
    bytes: usize,
    value_bytes: usize,
}

impl Size {
    fn of(edit: &Pending<'_>) -> Self {
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
    fn refusal(self, limits: Limits) -> Option<Verdict> {
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
    fn fits(self, limits: Limits, bytes: usize, registers: usize) -> bool {
        bytes + self.bytes <= limits.frame_bytes_max && registers + self.registers <= limits.registers_max
    }
}
