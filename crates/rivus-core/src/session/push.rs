//! Pending edits on their way to the authority, and its answers.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::{Ack, Session, SessionError, SessionEvent, unexpected};
use crate::canary::{Canary, is_on};
use crate::clock::{Millis, Stamp};
use crate::replica::{Answer, Principal, Pushed, Replica, Taint, Verdict, Verdicts};
use crate::store::Store;
use crate::wire::{Exception, Frame};

/// How many pushes may be unanswered at a time.
const IN_FLIGHT_MAX: usize = 4;

/// How many answers a pusher may not have heard: more than ever are in flight. What a refused edit touched is
/// remembered until its answer was heard.
const UNHEARD_MAX: u64 = 16;

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
        replica: &Replica<S>,
    ) -> Result<Option<Vec<u8>>, SessionError> {
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
            pushing.drained |= pushing.in_flight.is_empty();
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
        let scopes = self.gate.write_scopes();
        if !self.is_server() || !replica.identity().is_authority {
            return Err(unexpected("a push to a side that judges nothing"));
        }
        // After an error it is of no use any more.
        let mut decoder = std::mem::take(&mut self.decoder);
        let push = decoder.push(bytes, store)?;
        let peer = self.peer.as_mut().ok_or_else(|| unexpected("a push before the greeting"))?;
        peer.advance(push.incarnation, push.head);
        let remembered = peer.remembered(replica.peer(store)?);
        let principal = Principal { store, replicas: peer.about.replicas(), rank_max, scopes };
        let unheard = self.judging.answers.checked_sub(push.heard);
        if unheard.is_none_or(|unheard| unheard > UNHEARD_MAX) {
            return Err(unexpected("a push that has heard more answers than were given, or far too few"));
        }
        self.judging.answers += 1;
        let Judging { taint, answers } = &mut self.judging;
        // An answer names edits by their place in the push.
        let edits = (0..).zip(push.edits.clone()).map(|(number, edit)| Pushed { number, ..edit });
        let verdicts = replica.judge(now, edits, &principal, &remembered, taint, push.heard, *answers)?;
        let exceptions: Vec<_> = verdicts.exceptions.into_iter().map(exception).collect();
        let (all, excepted) = (push.edits.len(), exceptions.len());
        self.decoder = decoder;
        self.events.push_back(SessionEvent::Judged { accepted: all - excepted, excepted });
        self.tell_losses(replica)?;
        self.send(&Frame::Ack(Ack { seq: verdicts.seq, clock_ms: now.0, exceptions }));
        Ok(())
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
        for Exception { index, code, message } in ack.exceptions {
            let key = usize::try_from(index).ok().and_then(|index| edits.get(index));
            let (key, _) = *key.ok_or_else(|| unexpected("ACK names an edit that was not pushed"))?;
            let verdict = match code {
                None => Verdict::Again,
                Some(code) => Verdict::Refused { code, message: message.into() },
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

/// A verdict as it is told; a push has fewer edits than 32 bits count.
fn exception((index, verdict): (u64, Verdict)) -> Exception {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    match verdict {
        Verdict::Again => Exception { index, code: None, message: Box::default() },
        Verdict::Refused { code, message } => Exception { index, code: Some(code), message: message.into() },
    }
}
