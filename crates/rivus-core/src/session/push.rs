//! Pending edits on their way to the authority, and its answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::ops::ControlFlow;

use super::{Ack, Session, SessionError, SessionEvent, Want, unexpected};
use crate::canary::{Canary, is_on};
use crate::clock::{Millis, Stamp};
use crate::code::Code;
use crate::replica::{Answer, Delta, Hold, Holding, Principal, Pushed, Replica, Taint, Verdict, Verdicts};
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
    /// Edits after this one are for the next round.
    last: u64,
    /// The authority's head as it was told last.
    head: u64,
    /// The look through the outbox that is under way.
    holding: Option<Holding>,
    /// An edit was accepted since it began: what waited may go.
    progressed: bool,
    /// Nothing but edits that wait for each other is left: they go.
    forced: bool,
    /// Edits under way of which the authority has told that a write of theirs lost.
    lost: BTreeSet<Stamp>,
}

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

impl Pushing {
    /// `last` is the last edit that may be sent, `head` the authority's.
    fn new(last: u64, head: u64, drained: bool) -> Self {
        let (in_flight, lost) = (VecDeque::new(), BTreeSet::new());
        Self {
            in_flight,
            sent: 0,
            heard: 0,
            again: false,
            drained,
            last,
            head,
            holding: None,
            progressed: false,
            forced: false,
            lost,
        }
    }

    /// The next look through the outbox begins at its start.
    fn start_over(&mut self) {
        (self.again, self.sent, self.holding, self.progressed) = (false, 0, None, false);
    }

    /// Whether there is reason to look through the outbox once more, with nothing found in it or under way.
    fn looks_again<S: Store>(&mut self, replica: &Replica<S>) -> bool {
        let Some(holding) = self.holding.as_ref().filter(|holding| holding.holds) else { return false };
        let (outdated, waits) = (replica.is_outdated(holding), holding.waits);
        if outdated || self.progressed {
            self.start_over();
            return true;
        }
        // The creation is for the next round, or edits name each other's entities.
        if waits && !std::mem::replace(&mut self.forced, true) {
            self.start_over();
            return true;
        }
        false
    }

    /// Notes that the authority told of losses of these writes.
    pub(super) fn note_lost(&mut self, losers: impl Iterator<Item = Stamp>) {
        let under_way = |stamp: &Stamp| self.in_flight.iter().flatten().any(|(_, sent)| sent == stamp);
        let lost: Vec<_> = losers.filter(under_way).collect();
        self.lost.extend(lost);
    }

    /// Whether answers are to come.
    pub(super) fn is_awaited(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Puts the edits of an answered push into classes.
    fn classes(&mut self, edits: &[(u64, Stamp)], exceptions: &[Exception], head: u64) -> Answered {
        let mut answered = Answered::default();
        for exception in exceptions {
            match exception.code {
                // The device sets its clock by the answer and stamps the edit anew.
                None | Some(Code::CLOCK_SKEW) => answered.again += 1,
                Some(code) => *answered.refused.entry(code).or_default() += 1,
            }
        }
        let excepted: BTreeSet<usize> =
            exceptions.iter().filter_map(|one| usize::try_from(one.index).ok()).collect();
        let accepted = (0..).zip(edits).filter(|(at, _)| !excepted.contains(at));
        let (mut kept, mut superseded) = (0, 0);
        for (_, (_, stamp)) in accepted {
            if self.lost.remove(stamp) { superseded += 1 } else { kept += 1 }
        }
        // Where nothing was written, everything was there.
        let is_news = head != std::mem::replace(&mut self.head, head);
        answered.superseded = superseded;
        self.progressed |= kept + superseded > 0;
        *(if is_news { &mut answered.accepted } else { &mut answered.duplicate }) = kept;
        answered
    }

    /// Whether every edit that was pending has its verdict. Later edits may have come since.
    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    /// Whether no edit that was sent lacks a verdict, and none is left to send unless they are `held`.
    pub(super) fn is_quiet(&self, held: bool) -> bool {
        (self.drained || held) && self.in_flight.is_empty()
    }
}

/// Edits that a connection was to send and that are pending still.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeftOver {
    /// They refer to what is refused, and wait for that.
    pub blocked: usize,
    /// They are sent next time.
    pub deferred: usize,
}

/// What goes into a push, and what does not.
#[derive(Default)]
struct Filled {
    keys: Vec<(u64, Stamp)>,
    /// Held back.
    passed: Vec<u64>,
    /// It must be made anew before it is sent, with all behind it.
    anew: Option<u64>,
}

/// The authority's side.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Judging {
    taint: Taint,
    answers: u64,
}

impl Session {
    /// Starts to push what is pending now, and what comes if the session is live.
    pub(super) fn begin_pushing<S: Store>(&mut self, replica: &Replica<S>) -> Result<(), SessionError> {
        // A round ends even where edits never end.
        let is_live = self.options.want == Want::Live;
        let last = if is_live { u64::MAX } else { replica.head()?.seq };
        let edits = count_until(replica, last)?;
        self.pushing = Some(Pushing::new(last, self.peer()?.head, edits == 0));
        self.events.push_back(SessionEvent::Offering { edits });
        Ok(())
    }

    /// What is left of the edits that this session was to send. All that is pending if it did not get that far.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot be read.
    pub fn left_over<S: Store>(&self, replica: &Replica<S>) -> Result<LeftOver, SessionError> {
        let last = self.pushing.as_ref().map_or(u64::MAX, |pushing| pushing.last);
        let left = count_until(replica, last)?;
        let blocked = replica.blocked()?.iter().filter(|blocked| blocked.key <= last).count();
        Ok(LeftOver { blocked, deferred: left.saturating_sub(blocked) })
    }

    /// Whether edits are kept back for now. What is under way is answered still, and reading goes on.
    pub fn hold_pushes(&mut self, hold: bool) {
        self.holds_pushes = hold;
    }

    /// How many edits one PUSH has at most, at least 1: smaller ones cost more, and less is sent again when a
    /// connection breaks.
    pub fn set_push_edits_max(&mut self, edits: usize) {
        self.push_edits_max = edits.max(1);
    }

    /// Whether nothing is left to send before reading.
    pub(super) fn is_drained(&self) -> bool {
        self.holds_pushes || self.pushing.as_ref().is_none_or(Pushing::is_drained)
    }

    /// The next push, if edits are pending and the authority keeps up.
    pub(super) fn next_push<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        now: Millis,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        loop {
            let Some(pushing) = &mut self.pushing else { return Ok(None) };
            let waits = pushing.again && !pushing.in_flight.is_empty();
            if self.holds_pushes || pushing.in_flight.len() >= IN_FLIGHT_MAX || waits {
                return Ok(None);
            }
            if pushing.again {
                pushing.start_over();
            }
            let Filled { keys, passed, anew } = self.fill(replica)?;
            let Some(pushing) = &mut self.pushing else { return Ok(None) };
            if let Some(last) = keys.last().map(|(key, _)| *key) {
                let passed: Vec<u64> = passed.into_iter().filter(|key| *key < last).collect();
                replica.pass_over(&passed)?;
                return self.finish_push(replica, keys, last).map(Some);
            }
            let is_quiet = pushing.in_flight.is_empty();
            if let Some(first) = anew {
                if !is_quiet {
                    return Ok(None);
                }
                replica.make_anew(now, first)?;
                pushing.start_over();
                continue;
            }
            if !(is_quiet && pushing.looks_again(replica)) {
                pushing.drained |= is_quiet;
                return Ok(None);
            }
        }
    }

    /// Encodes the edits of the next push.
    fn fill<S: Store>(&mut self, replica: &Replica<S>) -> Result<Filled, SessionError> {
        let (encoder, told, most) = (&mut self.encoder, &self.told_replicas, self.push_edits_max);
        let Some(pushing) = &mut self.pushing else { return Ok(Filled::default()) };
        let (until, forced) = (pushing.last, pushing.forced);
        let mut holding = match pushing.holding.take() {
            Some(holding) => holding,
            None => replica.holding()?,
        };
        let (mut filled, mut stranger, mut last, mut failed) = (Filled::default(), false, 0, None);
        replica.pending(pushing.sent + 1, &mut |key, edit| {
            stranger = !told.contains(&edit.author());
            if encoder.is_full() || stranger || key > until || filled.keys.len() >= most {
                return ControlFlow::Break(());
            }
            match replica.hold(&mut holding, &edit) {
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
                Ok(Some(hold)) if !forced || hold != Hold::Waits => {
                    filled.passed.push(key);
                    return ControlFlow::Continue(());
                }
                Ok(_) => {}
            }
            if edit.passed {
                filled.anew = Some(key);
                return ControlFlow::Break(());
            }
            encoder.start_edit(key - last, edit.entities.len());
            last = key;
            for entity in &edit.entities {
                encoder.entity(entity.kind, entity.id, entity.registers.iter().map(|(a, r)| (*a, r)));
            }
            filled.keys.push((key, edit.header.stamp));
            ControlFlow::Continue(())
        })?;
        pushing.holding = Some(holding);
        match failed {
            Some(error) => Err(error.into()),
            None if stranger && filled.keys.is_empty() => Err(SessionError::NewWriter),
            None => Ok(filled),
        }
    }

    fn finish_push<S: Store>(
        &mut self,
        replica: &Replica<S>,
        keys: Vec<(u64, Stamp)>,
        last: u64,
    ) -> Result<Vec<u8>, SessionError> {
        let pushing = self.pushing.as_mut().ok_or_else(|| unexpected("a push before the greeting"))?;
        pushing.sent = last;
        pushing.drained = false;
        let edits = keys.iter().map(|(key, _)| *key).collect();
        self.events.push_back(SessionEvent::Pushed { edits });
        pushing.in_flight.push_back(keys);
        let heard = pushing.heard;
        let head = replica.head()?;
        let incarnation = self.tell_incarnation(&head);
        Ok(self.encoder.finish_push(heard, head.seq, incarnation))
    }

    pub(super) fn handle_push<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        bytes: &[u8],
        now: Millis,
    ) -> Result<(), SessionError> {
        let (store, rank_max) = self.peer().map(|peer| (peer.store, peer.rank))?;
        if !self.is_server() || !replica.identity().is_authority {
            return Err(unexpected("a push to a side that judges nothing"));
        }
        // After an error it is of no use any more.
        let mut decoder = std::mem::take(&mut self.decoder);
        let push = decoder.push(bytes, store)?;
        let peer = self.peer.as_mut().ok_or_else(|| unexpected("a push before the greeting"))?;
        peer.advance(push.incarnation, push.head);
        let remembered = peer.remembered(replica.peer(store)?);
        let principal = Principal { store, replicas: peer.about.replicas(), rank_max };
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
        let registers = push.edits.clone().map(|edit| registers(&edit.delta)).sum();
        self.decoder = decoder;
        self.events.push_back(SessionEvent::Judged { accepted: all - excepted, excepted });
        let refused = exceptions.iter().filter_map(|exception| exception.code).collect();
        self.events.push_back(SessionEvent::Taken { registers, refused });
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
        let mut answered = pushing.classes(&edits, &ack.exceptions, ack.seq);
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
        let withdrawn = replica.verdicts(now, &answer)?;
        let fallen = withdrawn.iter().filter(|key| **key <= pushing.last).count();
        if fallen > 0 {
            *answered.refused.entry(Code::BASE).or_default() += fallen;
        }
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
        self.events.push_back(SessionEvent::Answered(answered));
        self.events.push_back(SessionEvent::Judged { accepted, excepted });
        Ok(())
    }
}

fn registers(delta: &impl Delta) -> usize {
    let mut registers = 0;
    let _ = delta.each(|part| {
        registers += part.changes.len();
        Ok::<(), Infallible>(())
    });
    registers
}

/// How many edits are pending up to this key.
fn count_until<S: Store>(replica: &Replica<S>, last: u64) -> Result<usize, SessionError> {
    if last == u64::MAX {
        return Ok(replica.pending_count()?);
    }
    let mut count = 0;
    replica.pending(0, &mut |key, _| {
        if key > last {
            return ControlFlow::Break(());
        }
        count += 1;
        ControlFlow::Continue(())
    })?;
    Ok(count)
}

/// A verdict as it is told; a push has fewer edits than 32 bits count.
fn exception((index, verdict): (u64, Verdict)) -> Exception {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    match verdict {
        Verdict::Again => Exception { index, code: None, message: Box::default() },
        Verdict::Refused { code, message } => Exception { index, code: Some(code), message: message.into() },
    }
}
