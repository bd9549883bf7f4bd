//! Pending edits on their way to the authority, and its answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;

use super::answer::{Answered, LeftOver, Size, exception};
use super::read::registers;
use super::{Ack, Gate, Limits, Session, SessionError, SessionEvent, Want, unexpected};
use crate::canary::{Canary, is_on};
use crate::clock::{Millis, Stamp};
use crate::code::Code;
use crate::replica::{Answer, Hold, Holding, Principal, Pushed, Replica, Taint, Verdict, Verdicts};
use crate::store::{Store, StoreError};
use crate::wire::Exception;

/// How many pushes may be unanswered at a time.
const IN_FLIGHT_MAX: usize = 4;

/// How many answers a pusher may not have heard: more than ever are in flight. What a refused edit touched is
/// remembered until its answer was heard.
const UNHEARD_MAX: u64 = 16;

/// How much room the words of one answer have, in bytes; who has more edits refused at once is told the codes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

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

    /// Edits were refused here, or made anew: what is left is looked at once more.
    pub(super) fn look_again(&mut self) {
        self.drained = false;
        if self.in_flight.is_empty() {
            self.start_over();
        } else {
            self.again = true;
        }
    }

    /// The next look through the outbox begins at its start.
    fn start_over(&mut self) {
        (self.again, self.sent, self.holding, self.progressed) = (false, 0, None, false);
    }

    /// Whether there is reason to look through the outbox once more, with nothing found in it or under way.
    fn looks_again<S: Store>(&mut self, replica: &Replica<S>) -> Result<bool, StoreError> {
        let Some(holding) = self.holding.as_ref().filter(|holding| holding.holds) else { return Ok(false) };
        let (outdated, waits) = (replica.is_outdated(holding)?, holding.waits);
        if outdated || self.progressed {
            self.start_over();
            return Ok(true);
        }
        // The creation is for the next round, or edits name each other's entities.
        if waits && !std::mem::replace(&mut self.forced, true) {
            self.start_over();
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether any edit is held back until another is there.
    pub(super) fn holds(&self) -> bool {
        self.holding.as_ref().is_some_and(|holding| holding.holds)
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

/// What goes into a push, and what does not.
#[derive(Default)]
struct Filled {
    keys: Vec<(u64, Stamp)>,
    /// Held back.
    passed: Vec<u64>,
    /// It must be made anew before it is sent, with all behind it.
    anew: Option<u64>,
    /// It is more than the authority takes.
    refused: Option<((u64, Stamp), Verdict)>,
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
            let is_waiting =
                pushing.in_flight.iter().map(Vec::len).sum::<usize>() < replica.pending_count()?;
            if let Some(wait_ms) = self.granted.pace.push_wait_ms(now).filter(|_| is_waiting) {
                self.granted.paused_ms = Some(wait_ms);
                return Ok(None);
            }
            let Filled { keys, passed, anew, refused } = self.fill(replica, now)?;
            let Some(pushing) = &mut self.pushing else { return Ok(None) };
            if let Some(last) = keys.last().map(|(key, _)| *key) {
                let passed: Vec<u64> = passed.into_iter().filter(|key| *key < last).collect();
                replica.pass_over(&passed)?;
                return self.finish_push(replica, keys, last, now).map(Some);
            }
            let is_quiet = pushing.in_flight.is_empty();
            if let Some(refused) = refused {
                if !is_quiet {
                    return Ok(None);
                }
                self.set_aside(replica, refused, now)?;
                continue;
            }
            if let Some(first) = anew {
                if !is_quiet {
                    return Ok(None);
                }
                replica.make_anew(now, first)?;
                pushing.start_over();
                continue;
            }
            if !(is_quiet && pushing.looks_again(replica)?) {
                pushing.drained |= is_quiet;
                return Ok(None);
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
            pushing.start_over();
        }
        let refused = BTreeMap::from([(Code::TOO_LARGE, 1)]);
        self.events.push_back(SessionEvent::Answered(Answered { refused, ..Answered::default() }));
        self.events.push_back(SessionEvent::Judged { accepted: 0, excepted: 1 });
        Ok(())
    }

    /// Encodes the edits of the next push, up to one that is more than the authority takes.
    fn fill<S: Store>(&mut self, replica: &Replica<S>, now: Millis) -> Result<Filled, SessionError> {
        let limits = self.limits();
        let registers_max = limits.registers_max.min(self.granted.pace.registers_max(now));
        let at_once = Limits { registers_max, ..limits };
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
            let size = Size::of(&edit);
            if let Some(verdict) = size.refusal(limits) {
                filled.refused = Some(((key, edit.header.stamp), verdict));
                return ControlFlow::Break(());
            }
            if !filled.keys.is_empty() && !size.fits(at_once, encoder.len(), encoder.registers()) {
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
        now: Millis,
    ) -> Result<Vec<u8>, SessionError> {
        self.granted.pace.spend(self.encoder.registers(), now);
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
        let gate = self.gate().cloned().ok_or_else(|| unexpected("a push to a side that judges nothing"))?;
        let asked = self.asked(gate);
        if !self.is_server() || !replica.identity().is_authority {
            return Err(unexpected("a push to a side that judges nothing"));
        }
        // After an error it is of no use any more.
        let mut decoder = std::mem::take(&mut self.decoder);
        let push = decoder.push(bytes, store)?;
        self.take_push(&asked.gate, push.edits.clone().map(|edit| registers(&edit.delta)), now)?;
        let peer = self.peer.as_mut().ok_or_else(|| unexpected("a push before the greeting"))?;
        peer.advance(push.incarnation, push.head);
        let remembered = peer.remembered(replica.peer(store)?);
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
        let registers = push.edits.clone().map(|edit| registers(&edit.delta)).sum();
        decoder.trim();
        self.decoder = decoder;
        self.events.push_back(SessionEvent::Judged { accepted: all - excepted, excepted });
        let refused = exceptions.iter().filter_map(|exception| exception.code).collect();
        self.events.push_back(SessionEvent::Taken { registers, refused });
        if all > excepted {
            self.leasing.note_accepted(verdicts.seq);
        }
        self.telling.answer(Ack { seq: verdicts.seq, clock_ms: now.0, exceptions });
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

    /// Refuses an answer of more exceptions than the push had edits before any is read: in memory they are many times as
    /// long as on the wire.
    pub(super) fn check_answer(&self, bytes: &[u8]) -> Result<(), SessionError> {
        let pushed = self.pushing.as_ref().and_then(|pushing| pushing.in_flight.front()).map_or(0, Vec::len);
        if Ack::announced(bytes) > pushed as u64 {
            return Err(unexpected("ACK of more than was pushed"));
        }
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
        for Exception { index, code, message, spot } in ack.exceptions {
            let key = usize::try_from(index).ok().and_then(|index| edits.get(index));
            let (key, _) = *key.ok_or_else(|| unexpected("ACK names an edit that was not pushed"))?;
            let verdict = match code {
                None => Verdict::Again,
                Some(code) => {
                    Verdict::Refused { code, message: message.to_string(), spot: spot.map(|spot| *spot) }
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
        let seq = ack.seq;
        let taken: Vec<u64> = edits.iter().map(|(key, _)| *key).collect();
        let answer =
            Answer { edits, verdicts: Verdicts { seq: ack.seq, exceptions }, clock: Millis(ack.clock_ms) };
        let withdrawn = replica.verdicts(now, &answer)?;
        replica.note_accepted(&taken, seq);
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
