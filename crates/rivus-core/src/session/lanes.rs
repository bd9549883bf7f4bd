//! Subscriptions to scopes by name, several on one connection, beside the one to everything.
//!
//! Each has a slot: a number that the client gives, and that the frames of the subscription bear in their envelope. What
//! is done with a subscription is done while it is *in hand*: then the session's own reading and writing are its. So
//! there is one course of a subscription, whatever it is of. Pages of several go out in turn.

use std::collections::{BTreeMap, BTreeSet};

use super::fetch::Name;
use super::push::Pushing;
use super::read::Reading;
use super::repair::{Helping, Repairing};
use super::write::Writing;
use super::{Access, Session, SessionError, SessionEvent, Want, unexpected};
use crate::clock::Millis;
use crate::code::Code;
use crate::replica::{Event, Kept, Replica, Why};
use crate::scope::SCOPE_BYTES_MAX;
use crate::store::{Store, StoreError};
use crate::wire::{FRAME_BYTES_MAX, Frame, IGNORED_BYTES_MAX, PAGE_BYTES_AIM, SCOPES_MAX, Scoped, tag};

/// More scopes than a connection can follow, or a name that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "one connection follows at most {most} scopes by name, of at most {SCOPE_BYTES_MAX} bytes each: \
     follow everything, or fewer"
)]
pub struct TooManyScopes {
    /// The most scopes of this connection.
    pub most: usize,
}

/// Slots from here on have not been asked for: they have their numbers in the order in which they are.
const UNASKED: u32 = 1 << 31;

/// Entities that have moved into another scope that is followed go into a page whole up to so many registers.
const WHOLE_REGISTERS_MAX: usize = 4096;

/// The most that an envelope adds to a frame that bears no name, in bytes.
const ENVELOPE_BYTES_MAX: usize = 8;

/// The subscriptions that are not in hand.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<u32, Lane>,
    /// The greatest slot that was ever asked for on this connection.
    last: u32,
    /// How many were added here.
    unasked: u32,
    /// Whether scopes are followed by name, and so not everything.
    named: bool,
    /// Whose page went out last.
    turn: u32,
    /// Scopes that were denied on this connection.
    denied: BTreeSet<String>,
    /// Which subscription has a sketch at hand: one at a time.
    pub(super) compares: Option<u32>,
    /// How many sketches the other side has had made.
    pub(super) sketches: usize,
}

impl Lanes {
    pub(super) fn are_named(&self) -> bool {
        self.named
    }

    pub(super) fn are_caught_up(&self) -> bool {
        self.lanes.values().all(|lane| lane.reading.is_caught_up())
    }

    pub(super) fn are_verified(&self) -> bool {
        self.lanes.values().all(|lane| lane.reading.is_verified())
    }

    pub(super) fn are_repairing(&self) -> bool {
        self.lanes.values().any(|lane| lane.repairing.is_under_way())
    }

    /// Whether any of the other side's may be sent no more pages now.
    pub(super) fn are_window_full(&self) -> bool {
        self.lanes.values().any(|lane| lane.writing.is_some_and(|writing| !writing.window.is_open(true)))
    }

    /// Whether the other side has everything of each, and is told of changes as they come.
    pub(super) fn are_followed(&self) -> bool {
        let mut writings = self.lanes.values().filter_map(|lane| lane.writing.as_ref()).peekable();
        writings.peek().is_some() && writings.all(Writing::is_live)
    }

    /// Whether the store is to be gone through for any.
    pub(super) fn are_helping(&self) -> bool {
        self.lanes.values().any(|lane| lane.helping.is_work())
    }

    /// Whether the other side reads this scope, as far as it knows.
    pub(super) fn tell(&self, scope: &str) -> bool {
        self.lanes.values().any(|lane| lane.writing.is_some() && lane.scope.as_deref() == Some(scope))
    }

    /// Whether the other side reads any.
    pub(super) fn are_read(&self) -> bool {
        self.lanes.values().any(|lane| lane.writing.is_some())
    }

    /// Up to where the other side has everything of each.
    pub(super) fn synced(&self) -> Option<u64> {
        self.lanes.values().map(|lane| lane.peer_synced.unwrap_or(0)).min()
    }

    fn slots(&self) -> Vec<u32> {
        self.lanes.keys().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// How far each is read.
    pub(super) fn readings(&self) -> impl Iterator<Item = &Reading> {
        self.lanes.values().map(|lane| &lane.reading)
    }

    /// How far the other side has read each, and up to where it has said that it has everything.
    pub(super) fn writings(&self) -> impl Iterator<Item = (&Writing, Option<u64>)> {
        self.lanes.values().filter_map(|lane| Some((lane.writing.as_ref()?, lane.peer_synced)))
    }

    fn remove(&mut self, slot: u32) -> Option<Lane> {
        if self.compares == Some(slot) {
            self.compares = None;
        }
        self.lanes.remove(&slot)
    }
}

/// One subscription.
#[derive(Debug, Default)]
struct Lane {
    slot: u32,
    scope: Option<String>,
    reading: Reading,
    writing: Option<Writing>,
    peer_synced: Option<u64>,
    repairing: Repairing,
    helping: Helping,
    /// Those of more are read to the end first.
    priority: i8,
    /// It is over: nothing more is sent, and what is on its way is passed over.
    over: bool,
}

impl Session {
    /// Follows these scopes, and not everything. Before the session has begun.
    ///
    /// # Errors
    /// [`TooManyScopes`]; the session is as it was.
    pub fn follow_scopes(&mut self, scopes: impl IntoIterator<Item = String>) -> Result<(), TooManyScopes> {
        self.lanes.named = true;
        scopes.into_iter().try_for_each(|scope| self.subscribe(&scope))
    }

    /// Follows one scope more, in a session that follows scopes.
    ///
    /// # Errors
    /// [`TooManyScopes`]; the session is as it was.
    pub fn subscribe(&mut self, scope: &str) -> Result<(), TooManyScopes> {
        if self.slot_of(scope).is_some() {
            return Ok(());
        }
        let most = self.limits().scopes_max.min(SCOPES_MAX);
        if self.lanes.len() >= most || scope.len() > SCOPE_BYTES_MAX {
            return Err(TooManyScopes { most });
        }
        let slot = UNASKED + self.lanes.unasked;
        self.lanes.unasked = self.lanes.unasked.wrapping_add(1) % UNASKED;
        let mut lane = Lane { slot, scope: Some(scope.to_owned()), ..Lane::default() };
        if self.pushing.is_some() || self.leasing.rejoins() {
            lane.reading.plan(self.options.want);
        }
        self.lanes.lanes.insert(slot, lane);
        Ok(())
    }

    /// Says which scopes are read first, in a session that follows scopes: one is asked for once all of higher priority are
    /// read to the end. It is 0 else. Live changes of all go out as they come.
    pub fn set_priority(&mut self, scope: &str, priority: i8) {
        if let Some(lane) = self.slot_of(scope).and_then(|slot| self.lanes.lanes.get_mut(&slot)) {
            lane.priority = priority;
        }
    }

    /// Follows a scope no more. Followed again, it is read from the start.
    ///
    /// # Errors
    /// [`StoreError`]: it is followed no more on this connection, but on the next.
    pub fn unsubscribe<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        scope: &str,
        kept: Kept,
    ) -> Result<(), StoreError> {
        if let Some(slot) = self.slot_of(scope) {
            let lane = self.lanes.remove(slot);
            if lane.is_some_and(|lane| lane.reading.is_subscribed()) {
                self.control.push_back(Frame::Denied { slot }.encode());
            }
        }
        replica.unfollow(scope, kept)
    }

    /// The scopes that are followed by name, sorted; none if everything is.
    #[must_use]
    pub fn scopes(&self) -> Option<Vec<&str>> {
        let scopes = self.lanes.lanes.values().filter_map(|lane| lane.scope.as_deref());
        let mut scopes: Vec<_> = scopes.collect();
        scopes.sort_unstable();
        self.lanes.named.then_some(scopes)
    }

    fn slot_of(&self, scope: &str) -> Option<u32> {
        let found = self.lanes.lanes.iter().find(|(_, lane)| lane.scope.as_deref() == Some(scope));
        found.map(|(slot, _)| *slot)
    }

    /// Subscribes as soon as nothing is left to push: to everything, or to each scope that is wanted.
    pub(super) fn plan_reading(&mut self, want: Want) {
        if !self.lanes.named {
            self.reading.plan(want);
        }
        self.lanes.lanes.values_mut().for_each(|lane| lane.reading.plan(want));
    }

    /// Whether everything that is wanted is here.
    pub(super) fn is_caught_up(&self) -> bool {
        if self.lanes.named { self.lanes.are_caught_up() } else { self.reading.is_caught_up() }
    }

    /// Gives the subscription in hand its number, if it is of a scope and has none.
    pub(super) fn number(&mut self) {
        if self.slot >= UNASKED {
            self.lanes.last += 1;
            self.slot = self.lanes.last;
        }
    }

    /// Whether the subscription in hand waits for one of higher priority to be read to the end.
    pub(super) fn waits_for_others(&self) -> bool {
        let others = self.lanes.lanes.values().filter(|lane| lane.priority > self.priority);
        others.into_iter().any(|lane| lane.reading.is_planned() || lane.reading.is_awaited())
    }

    /// Does something with one subscription in hand.
    fn with_slot<T>(&mut self, slot: u32, act: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let mut lane = self.lanes.lanes.remove(&slot)?;
        self.exchange(&mut lane);
        let done = act(self);
        self.exchange(&mut lane);
        lane.over |= std::mem::take(&mut self.over);
        if !lane.over {
            self.lanes.lanes.insert(lane.slot, lane);
        } else if self.lanes.compares == Some(slot) {
            self.lanes.compares = None;
        }
        Some(done)
    }

    /// Does something with each subscription in hand, that to everything first.
    pub(super) fn each_slot(
        &mut self,
        mut act: impl FnMut(&mut Self) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        act(self)?;
        self.each_other_slot(act)
    }

    /// Does something with each subscription that is not in hand.
    pub(super) fn each_other_slot(
        &mut self,
        mut act: impl FnMut(&mut Self) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        self.lanes.slots().into_iter().try_for_each(|slot| self.with_slot(slot, &mut act).unwrap_or(Ok(())))
    }

    /// The first frame that any of these subscriptions has, and which it is.
    fn first_of(
        &mut self,
        slots: Vec<u32>,
        mut next: impl FnMut(&mut Self) -> Result<Option<Vec<u8>>, SessionError>,
    ) -> Result<Option<(u32, Vec<u8>)>, SessionError> {
        for slot in slots {
            if let Some(frame) = self.with_slot(slot, &mut next).transpose()?.flatten() {
                return Ok(Some((slot, frame)));
            }
        }
        Ok(None)
    }

    fn exchange(&mut self, lane: &mut Lane) {
        std::mem::swap(&mut self.slot, &mut lane.slot);
        std::mem::swap(&mut self.scope, &mut lane.scope);
        std::mem::swap(&mut self.reading, &mut lane.reading);
        std::mem::swap(&mut self.writing, &mut lane.writing);
        std::mem::swap(&mut self.peer_synced, &mut lane.peer_synced);
        std::mem::swap(&mut self.repairing, &mut lane.repairing);
        std::mem::swap(&mut self.helping, &mut lane.helping);
        std::mem::swap(&mut self.priority, &mut lane.priority);
    }

    /// A frame as it goes out: in an envelope if the subscription in hand is of a scope.
    pub(super) fn in_envelope(&self, frame: Vec<u8>, scope: &str) -> Vec<u8> {
        if self.slot == 0 { frame } else { Scoped { slot: self.slot, scope, frame: &frame }.encode() }
    }

    /// Takes a frame of the subscription of one scope.
    pub(super) fn handle_scoped<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        bytes: &[u8],
        now: Millis,
    ) -> Result<(), SessionError> {
        let Scoped { slot, scope, frame } = Scoped::decode(bytes)?;
        let kind = frame.first().copied();
        // In one that is over it has crossed what told so.
        if self.is_server() && kind == Some(tag::SUBSCRIBE) && slot > self.lanes.last {
            self.open_slot(replica, slot, scope)?;
        }
        if slot > self.lanes.last {
            return Err(unexpected("a frame of a subscription that there is not"));
        }
        let from_server =
            matches!(kind, Some(tag::DELTA | tag::EQUAL | tag::CHECKPOINT | tag::LEFT | tag::REPAIR));
        // SKETCH goes both ways, and says which in itself.
        if from_server == self.is_server() && kind != Some(tag::SKETCH) {
            return Err(unexpected("a frame of a subscription, the wrong way round"));
        }
        let handled = self.with_slot(slot, |session| match kind {
            Some(tag::DELTA) => session.handle_page(replica, frame, now),
            Some(tag::REPAIR) => session.handle_repair(replica, frame, now),
            Some(tag::SUBSCRIBE) if session.scope.as_deref() != Some(scope) => {
                Err(unexpected("SUBSCRIBE to another scope in the same slot"))
            }
            _ => session.handle_open(replica, Frame::decode(frame)?, frame.len(), now),
        });
        match handled {
            Some(handled) => handled,
            // The subscription is over, but the dictionaries go on, and the other's incarnation is told once.
            None => self.pass_over(frame),
        }
    }

    /// Reads a frame whose content is of no use any more.
    fn pass_over(&mut self, frame: &[u8]) -> Result<(), SessionError> {
        let store = self.peer()?.store;
        match frame.first() {
            Some(&tag::DELTA) => {
                let header = self.decoder.page(frame, store)?.header;
                self.heard_of(header.incarnation, header.at)?;
            }
            Some(&tag::REPAIR) => {
                self.decoder.repair(frame, store)?;
            }
            Some(&tag::EQUAL) => {
                if let Frame::Equal { seq, incarnation } = Frame::decode(frame)? {
                    self.heard_of(incarnation, seq)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The authority's side begins a subscription.
    fn open_slot<S: Store>(
        &mut self,
        replica: &Replica<S>,
        slot: u32,
        scope: &str,
    ) -> Result<(), SessionError> {
        if !replica.identity().is_authority {
            return Err(unexpected("SUBSCRIBE to a scope of a side that is no authority"));
        }
        let most = self.gate().map_or(SCOPES_MAX, |gate| gate.bounds().scopes_max);
        if self.lanes.len() >= most {
            return Err(too_many(most));
        }
        self.lanes.last = slot;
        self.lanes.lanes.insert(slot, Lane { slot, scope: Some(scope.to_owned()), ..Lane::default() });
        Ok(())
    }

    /// Refuses to follow more scopes than the other side takes, as it has told by now.
    pub(super) fn check_scopes(&self) -> Result<(), SessionError> {
        let most = self.limits().scopes_max;
        if self.lanes.len() > most { Err(too_many(most)) } else { Ok(()) }
    }

    /// How long a page may be, without its envelope.
    pub(super) fn page_bytes_max(&self) -> usize {
        let envelope = if self.scope.is_some() { ENVELOPE_BYTES_MAX } else { 0 };
        self.limits().frame_bytes_max.min(FRAME_BYTES_MAX) - envelope
    }

    /// Ends the subscription in hand: it may not be read.
    pub(super) fn deny<S: Store>(&mut self, replica: &Replica<S>) -> Result<(), SessionError> {
        if self.scope.is_none() {
            self.tell_readable(replica)?;
            let message =
                "not everything here may be read: follow by name the scopes that are granted, if any are";
            return Err(SessionError::Refused { code: Code::SCOPE, message: message.to_owned() });
        }
        self.over = true;
        self.writing = None;
        self.control.push_back(Frame::Denied { slot: self.slot }.encode());
        Ok(())
    }

    /// Tells what may be read of what there is, so that the other side knows what may not: that has no name there. If that is
    /// more than a frame which may be ignored, nothing is told, and nothing leaves the other side.
    fn tell_readable<S: Store>(&mut self, replica: &Replica<S>) -> Result<(), SessionError> {
        if self.is_server() && replica.identity().is_authority {
            let named = replica.store().scopes()?.into_iter().map(|(scope, _)| scope);
            let may_read = |scope: &String| self.allows(Access::Read, scope);
            let readable: Vec<String> = [String::new()].into_iter().chain(named).filter(may_read).collect();
            if readable.iter().map(|scope| scope.len() + 3).sum::<usize>() < IGNORED_BYTES_MAX - 8 {
                self.parting = Some(Frame::Readable(readable).encode());
            }
        }
        Ok(())
    }

    /// A subscription is over, by the other side's will.
    pub(super) fn handle_denied<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        slot: u32,
    ) -> Result<(), SessionError> {
        if slot > self.lanes.last {
            return Err(unexpected("DENIED of a subscription that there is not"));
        }
        let Some(Lane { scope: Some(scope), .. }) = self.lanes.remove(slot) else { return Ok(()) };
        if !self.is_server() {
            let store = self.peer()?.store;
            replica.note_leaving(store, &scope, Why::Revoked)?;
            if self.lanes.denied.insert(scope.clone()) {
                replica.tell_of(Event::Denied { scope: scope.clone() });
            }
            self.events.push_back(SessionEvent::Denied { scope });
        }
        Ok(())
    }

    /// The authority does not let this store read everything any more: what it has read of scopes that it may not read leaves.
    /// What a pending edit touches stays until that has its verdict.
    pub(super) fn lose_everything<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        now: Millis,
    ) -> Result<(), SessionError> {
        let Some(peer) = &self.peer else { return Ok(()) };
        if self.is_server() || !peer.is_authority || self.lanes.are_named() {
            return Ok(());
        }
        let store = peer.store;
        // A store that has never read this one holds its own alone, and an older authority does not say what it means.
        let has_read = replica.cursor_of(store, None)?.is_some() || replica.read_before()?.is_some();
        if let Some(readable) = self.readable.take().filter(|_| has_read) {
            replica.note_lost(store, &|scope| readable.contains(scope))?;
        }
        Ok(replica.leave(now)?)
    }

    pub(super) fn handle_left<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        entities: &[Name],
    ) -> Result<(), SessionError> {
        let store = self.peer()?.store;
        let Some(scope) = self.scope.clone().filter(|_| self.reading.is_subscribed()) else {
            return Err(unexpected("LEFT of a scope that nobody follows"));
        };
        Ok(replica.note_left(store, &scope, entities)?)
    }

    /// Takes out of the store what is to leave, once no pending edit touches it. Not before everything is here up to the
    /// last accepted edit: an entity may be in another scope by now, whose pages leave out what came from here.
    pub(super) fn let_leave<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        now: Millis,
    ) -> Result<(), SessionError> {
        if self.is_server() || !replica.is_to_leave() {
            return Ok(());
        }
        let acked = replica.identity().authority.map_or(0, |authority| authority.acked);
        let is_past = if self.lanes.named {
            self.lanes.lanes.values().all(|lane| lane.reading.is_past(acked))
        } else {
            self.reading.is_past(acked)
        };
        if is_past && self.pushing.as_ref().is_some_and(Pushing::is_drained) {
            replica.leave(now)?;
            // Until then no digests were compared.
            if !replica.is_to_leave() && self.has_unheard(replica)? {
                let want = self.options.want;
                self.each_slot(|session| {
                    if session.reading.is_caught_up() {
                        session.reading.plan(want);
                    }
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// Whether a difference is being located or mended in any subscription.
    pub(super) fn is_repairing(&self) -> bool {
        self.repairing.is_under_way() || self.lanes.are_repairing()
    }

    /// The next frame of a repair in any subscription.
    pub(super) fn next_repair_of_any<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        if let Some(frame) = self.next_repair(replica)? {
            return Ok(Some(frame));
        }
        let slots = self.lanes.slots();
        Ok(self.first_of(slots, |session| session.next_repair(replica))?.map(|(_, frame)| frame))
    }

    /// The next page of any subscription: each has its turn.
    pub(super) fn next_page_of_any<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        if self.holds_pages() {
            return Ok(None);
        }
        if let Some(frame) = self.next_page(replica)? {
            return Ok(Some(frame));
        }
        let turn = self.lanes.turn;
        let later = self.lanes.lanes.range(turn.saturating_add(1)..).map(|(slot, _)| *slot);
        let slots: Vec<u32> = later.chain(self.lanes.lanes.range(..=turn).map(|(slot, _)| *slot)).collect();
        let found = self.first_of(slots, |session| session.next_page(replica))?;
        Ok(found.map(|(slot, frame)| {
            self.lanes.turn = slot;
            frame
        }))
    }

    /// Of what has left the scope in hand, that of which the other side is to know so. What is in another scope that it
    /// follows goes into the page whole instead: there it never vanishes.
    pub(super) fn leave_out<S: Store>(
        &mut self,
        replica: &Replica<S>,
        entities: Vec<Name>,
        bytes_max: usize,
    ) -> Result<Vec<Name>, SessionError> {
        let mut left = Vec::new();
        for (kind, id) in entities {
            let scope = replica.scope_of(&kind, &id)?;
            let slot = self.slot_of(&scope).and_then(|slot| self.lanes.lanes.get(&slot));
            let follows = slot.is_some_and(|lane| lane.writing.is_some());
            let mut sent = false;
            if follows && self.allows(Access::Read, &scope) {
                let encoder = &mut self.encoder;
                replica.hand_out(&kind, &id, &mut |registers| {
                    let bytes: usize = registers.iter().map(|(a, register)| a.len() + register.bytes()).sum();
                    // What is more than a page comes with the other scope's.
                    let fits =
                        registers.len() <= WHOLE_REGISTERS_MAX && bytes <= bytes_max.min(PAGE_BYTES_AIM);
                    if !registers.is_empty() && !encoder.is_full() && fits {
                        sent = true;
                        encoder.entity(
                            &kind,
                            &id,
                            registers.iter().map(|(address, register)| (*address, register)),
                        );
                    }
                })?;
            }
            if !sent {
                left.push((kind, id));
            }
        }
        Ok(left)
    }
}

fn too_many(most: usize) -> SessionError {
    let message = format!("at most {most} scopes may be followed by name on one connection: follow fewer");
    SessionError::Refused { code: Code::TOO_LARGE, message }
}
