//! Finding out where two stores differ whose digests differ at one position, and mending it.
//!
//! The client asks for symbols of the server's sketch until it can take the two apart (see [`crate::sketch`]). It gives
//! a peer the registers that the peer lacks, asks for those that it lacks itself, and joins them. Then a page and a
//! CHECKPOINT follow, by which the digests are compared again. All of it once a connection. Where it does not help,
//! everything is read again from the start; an authority takes what it lacks by the upload of the next connection
//! alone, since that is what it grants trust for.
//!
//! Each subscription is compared by itself: a sketch of a scope is of that scope's rows alone, and so are the registers
//! that its keys find. Who may not read a scope learns nothing of it.
//!
//! A sketch is that of one moment, and pages that are due go before it. What changes meanwhile is at worst found to
//! differ, and joined once more.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::{Session, SessionError, SessionEvent, unexpected, write};
use crate::clock::Millis;
use crate::replica::{Delta, Event, Joined, Replica, Trust};
use crate::sketch::{Key, SYMBOLS_MAX, Sketch, Symbol, difference};
use crate::store::Store;
use crate::wire::page::RowEncoder;
use crate::wire::{FRAME_BYTES_MAX, Frame, SCOPES_MAX, capability, tag};

/// How many symbols are asked for first: nearly always enough for 20 registers, in about 900 bytes.
const SYMBOLS_FIRST: usize = 64;

/// The client's side.
#[derive(Debug, Default)]
pub(super) enum Repairing {
    /// Nothing was found to differ.
    #[default]
    NotYet,
    /// Another subscription of this connection is at it.
    Waiting,
    /// The difference is being looked for.
    Locating(Locating),
    /// It is known, and being mended.
    Mending(Mending),
    /// It was mended. Of what the other lacked, this many registers.
    Mended { ours: usize },
    /// It was not found, or mending did not help: everything is read again.
    ReadingAll,
}

/// What has been told of the other's registers.
#[derive(Debug)]
pub(super) struct Locating {
    /// This side's, once the other's first symbols are here.
    ours: Option<Sketch>,
    theirs: Vec<Symbol>,
    asked: usize,
    cost: Cost,
}

/// What is left to be sent and to come.
#[derive(Debug)]
pub(super) struct Mending {
    ours: usize,
    /// What of this side's is not sent yet, in rows above this seq.
    giving: BTreeSet<Key>,
    after: u64,
    theirs: Vec<Key>,
    /// Whether they were asked for.
    asked: bool,
    cost: Cost,
}

/// What finding the difference took.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    bytes: usize,
    rounds: usize,
}

impl Repairing {
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self, Self::NotYet)
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(self, Self::Waiting | Self::Locating(_) | Self::Mending(_))
    }
}

/// The server's side.
#[derive(Debug, Default)]
pub(super) enum Helping {
    /// Nobody has asked.
    #[default]
    NotYet,
    /// The digests differ, and the client has yet to be told.
    Asking,
    /// The client has been told, and nobody has asked.
    Asked,
    /// Symbols were asked for: so many were sent, so many are to be.
    Telling { sketch: Option<Sketch>, sent: usize, due: usize },
    /// Registers were asked for: what is not found yet, in rows above this seq.
    Giving { keys: BTreeSet<Key>, after: u64 },
    /// They were given.
    Done,
}

impl Helping {
    /// Whether nothing is to be told before the other side asks.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::NotYet | Self::Asked | Self::Done)
    }

    /// Whether the store is to be gone through.
    pub(super) fn is_work(&self) -> bool {
        matches!(self, Self::Giving { .. } | Self::Telling { sketch: None, due: 1.., .. })
    }
}

impl Session {
    /// The digests differ, at one position.
    pub(super) fn handle_difference<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
    ) -> Result<(), SessionError> {
        if self.is_server() {
            self.ask_to_compare();
            return Ok(());
        }
        let peer = self.peer()?;
        let (is_authority, tells) = (peer.is_authority, peer.capabilities & capability::SKETCH != 0);
        match &self.repairing {
            Repairing::NotYet if tells => {
                self.reading.await_repair();
                self.repairing = Repairing::Waiting;
                Ok(())
            }
            Repairing::Mended { ours } if is_authority && *ours > 0 => self.owe_upload(replica),
            Repairing::ReadingAll => self.owe_upload(replica),
            _ => self.read_all(replica),
        }
    }

    /// A server has found the difference, and the client mends it: it is told where this side stands, before it hears
    /// that all is received, and may leave.
    fn ask_to_compare(&mut self) {
        let is_open = matches!(&self.helping, Helping::NotYet | Helping::Asking | Helping::Asked);
        if let Some(writing) = self.writing.as_mut().filter(|_| is_open) {
            writing.catch_up_again();
            self.helping = Helping::Asking;
            let is_synced = |frame: &Vec<u8>| frame.first() == Some(&tag::SYNCED);
            if self.control.back().is_some_and(is_synced) {
                self.control.pop_back();
                self.reading.forget_told();
            }
        }
    }

    /// The authority lacks something, or has been restored and gone on since: next time it first takes what is here.
    fn owe_upload<S: Store>(&self, replica: &mut Replica<S>) -> Result<(), SessionError> {
        if self.peer()?.is_authority {
            replica.update_authority(|authority| authority.met = false)?;
        }
        Ok(())
    }

    /// Reads everything again; once a connection, or a fault would go in circles.
    fn read_all<S: Store>(&mut self, replica: &mut Replica<S>) -> Result<(), SessionError> {
        self.owe_upload(replica)?;
        self.repairing = Repairing::ReadingAll;
        replica.forget_evicted()?;
        let want = self.options.want;
        self.reading.plan_repair(want);
        if replica.wants_all()? {
            // What was evicted was of all of them.
            self.each_other_slot(|session| {
                // One whose first page is still on its way would take that for its own.
                match session.reading.has_begun() {
                    true => session.reading.plan_repair(want),
                    false => session.reading.want_everything(),
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Begins to look for the difference, unless another subscription is at it.
    fn begin_locating(&mut self) {
        if matches!(self.repairing, Repairing::Waiting) && self.lanes.compares.is_none() {
            self.lanes.compares = Some(self.slot);
            let (theirs, cost) = (Vec::new(), Cost::default());
            self.ask_sketch(Locating { ours: None, theirs, asked: SYMBOLS_FIRST, cost });
        }
    }

    fn ask_sketch(&mut self, mut locating: Locating) {
        let frame = self.in_envelope(Frame::AskSketch { count: locating.asked }.encode(), "");
        locating.cost.bytes += frame.len();
        locating.cost.rounds += 1;
        self.control.push_back(frame);
        self.repairing = Repairing::Locating(locating);
    }

    /// Takes symbols of the server's sketch. `bytes` is how long the frame was.
    pub(super) fn handle_sketch<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        symbols: &[Symbol],
        bytes: usize,
    ) -> Result<(), SessionError> {
        let mut locating = match std::mem::take(&mut self.repairing) {
            Repairing::Locating(locating) if locating.asked == symbols.len() => locating,
            _ => return Err(unexpected("symbols that nobody asked for")),
        };
        locating.cost.bytes += bytes;
        locating.theirs.extend_from_slice(symbols);
        let ours = match locating.ours.take() {
            Some(ours) => ours,
            None => replica.sketch_of(self.scope.as_deref())?,
        };
        if let Some(found) = difference(ours.symbols(), &locating.theirs) {
            tracing::warn!(ours = found.ours.len(), theirs = found.theirs.len(), "registers differ");
            self.lanes.compares = None;
            let gives = self.writing.is_some() && !self.peer()?.is_authority;
            self.repairing = Repairing::Mending(Mending {
                ours: found.ours.len(),
                giving: if gives { found.ours } else { BTreeSet::new() },
                after: 0,
                theirs: found.theirs.into_iter().collect(),
                asked: false,
                cost: locating.cost,
            });
            return Ok(());
        }
        let have = locating.theirs.len();
        if have >= SYMBOLS_MAX {
            tracing::warn!(symbols = have, "too many registers differ to tell them apart");
            self.lanes.compares = None;
            return self.read_all(replica);
        }
        // Half as many at first: a few more often do.
        let more = if have == SYMBOLS_FIRST { have / 2 } else { have };
        locating.asked = more.min(SYMBOLS_MAX - have);
        locating.ours = Some(ours);
        self.ask_sketch(locating);
        Ok(())
    }

    pub(super) fn handle_ask_sketch<S: Store>(
        &mut self,
        replica: &Replica<S>,
        count: usize,
    ) -> Result<(), SessionError> {
        if !self.is_server() || self.writing.is_none() {
            return Err(unexpected("SKETCH to a side that is not read"));
        }
        if !self.may_read(replica)? {
            return self.deny(replica);
        }
        // What this side has found itself was told then.
        if matches!(self.helping, Helping::NotYet) {
            self.events.push_back(SessionEvent::AskedToCompare);
        }
        match &mut self.helping {
            Helping::NotYet | Helping::Asking | Helping::Asked => {
                // Each is a pass over the rows, and is kept: one at a time, and no more than there are subscriptions.
                if self.lanes.compares.is_some() || self.lanes.sketches > SCOPES_MAX {
                    return Err(unexpected("SKETCH of several scopes at a time, or of too many"));
                }
                self.lanes.compares = Some(self.slot);
                self.lanes.sketches += 1;
                self.helping = Helping::Telling { sketch: None, sent: 0, due: count };
            }
            Helping::Telling { sent, due, .. } if *due == 0 && *sent + count <= SYMBOLS_MAX => *due = count,
            _ => return Err(unexpected("SKETCH once more, or for more symbols than there are")),
        }
        self.tell_synced();
        Ok(())
    }

    pub(super) fn handle_lacks<S: Store>(
        &mut self,
        replica: &Replica<S>,
        keys: Vec<Key>,
    ) -> Result<(), SessionError> {
        if !self.may_read(replica)? {
            return self.deny(replica);
        }
        match &self.helping {
            Helping::Telling { sent, due: 0, .. } if *sent > 0 => {
                self.lanes.compares = None;
                self.helping = Helping::Giving { keys: keys.into_iter().collect(), after: 0 };
                Ok(())
            }
            _ => Err(unexpected("SKETCH that lacks what was not told of")),
        }
    }

    /// The next frame of a repair of the subscription in hand, if it is this side's turn.
    pub(super) fn next_repair<S: Store>(
        &mut self,
        replica: &Replica<S>,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        // It would overtake pages.
        if self.is_window_full() {
            return Ok(None);
        }
        let tells = matches!(&self.helping, Helping::Telling { due, .. } if *due > 0);
        if (tells || matches!(self.helping, Helping::Giving { .. })) && !self.may_read(replica)? {
            self.deny(replica)?;
            return Ok(self.control.pop_front());
        }
        if matches!(self.helping, Helping::Asking) {
            // The page and the CHECKPOINT are out.
            self.helping = Helping::Asked;
            self.tell_synced();
        }
        self.begin_locating();
        if let Some(frame) = self.control.pop_front() {
            return Ok(Some(frame));
        }
        let frame = self.fill_repair(replica)?;
        Ok(frame.map(|frame| self.in_envelope(frame, "")))
    }

    fn fill_repair<S: Store>(&mut self, replica: &Replica<S>) -> Result<Option<Vec<u8>>, SessionError> {
        let scope = self.scope.as_deref();
        if let Repairing::Mending(mending) = &mut self.repairing
            && !mending.asked
        {
            if !mending.giving.is_empty() {
                let next = fill(&mut self.encoder, replica, scope, &mut mending.giving, mending.after)?;
                match next {
                    Some(at) => mending.after = at,
                    // What is not found has changed meanwhile, and goes out as a change.
                    None => mending.giving.clear(),
                }
                if !self.encoder.is_empty() {
                    return Ok(Some(self.encoder.finish_repair(next.is_some())));
                }
            }
            mending.asked = true;
            let frame = Frame::Lacks(mending.theirs.clone()).encode();
            mending.cost.bytes += frame.len();
            mending.cost.rounds += 1;
            return Ok(Some(frame));
        }
        match &mut self.helping {
            Helping::Telling { sketch, sent, due } if *due > 0 => {
                let told = match sketch.take() {
                    Some(told) => told,
                    None => replica.sketch_of(scope)?,
                };
                let symbols = told.symbols().iter().skip(*sent).take(*due).copied().collect();
                *sketch = Some(told);
                *sent += *due;
                *due = 0;
                Ok(Some(Frame::Sketch(symbols).encode()))
            }
            Helping::Giving { keys, after } => {
                let next = fill(&mut self.encoder, replica, scope, keys, *after)?;
                match next {
                    Some(at) => *after = at,
                    None => {
                        self.helping = Helping::Done;
                        // A page and a CHECKPOINT follow, also to a reader that wanted everything once.
                        if let Some(writing) = &mut self.writing {
                            writing.catch_up_again();
                        }
                    }
                }
                Ok(Some(self.encoder.finish_repair(next.is_some())))
            }
            _ => Ok(None),
        }
    }

    /// Joins registers that were found to be lacking here.
    pub(super) fn handle_repair<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        bytes: &[u8],
        now: Millis,
    ) -> Result<(), SessionError> {
        let (store, is_authority) = self.peer().map(|peer| (peer.store, peer.is_authority))?;
        let asked = matches!(&self.repairing, Repairing::Mending(mending) if mending.asked);
        let told = matches!(&self.helping, Helping::Telling { sent, due: 0, .. } if *sent > 0)
            && self.reading.is_subscribed()
            && !replica.identity().is_authority;
        if !asked && !told {
            return Err(unexpected("REPAIR of what was not found to differ"));
        }
        // After an error it is of no use any more.
        let mut decoder = std::mem::take(&mut self.decoder);
        let repair = decoder.repair(bytes, store)?;
        self.check_brings(replica, &repair.rows)?;
        if repair.more && repair.rows.latest().is_none() {
            return Err(unexpected("a REPAIR that says nothing and is not the last"));
        }
        let trust = if is_authority { Trust::Authority } else { Trust::Peer };
        let joined = replica.join(now, &repair.rows, Some(store), trust, None)?;
        if joined.registers > 0 {
            let Joined { registers, quarantined, changed } = joined;
            let own = self.written_here(&repair.rows);
            self.events.push_back(SessionEvent::Joined { registers, quarantined, own, changed });
        }
        let more = repair.more;
        decoder.trim();
        self.decoder = decoder;
        if asked && !more {
            self.mended(replica)?;
        }
        Ok(())
    }

    fn mended<S: Store>(&mut self, replica: &mut Replica<S>) -> Result<(), SessionError> {
        if let Repairing::Mending(Mending { ours, theirs, cost, .. }) = &self.repairing {
            let gives = self.writing.is_some() && self.peer.as_ref().is_some_and(|peer| !peer.is_authority);
            let registers = theirs.len() + if gives { *ours } else { 0 };
            let event = SessionEvent::Repaired { registers, bytes: cost.bytes, rounds: cost.rounds };
            self.repairing = Repairing::Mended { ours: *ours };
            self.events.push_back(event);
            replica.tell_of(Event::Repaired { with: self.peer()?.store, registers });
        }
        Ok(())
    }
}

/// Fills a frame with the registers of these keys in rows of a scope above a seq; says where to go on, if there may be
/// more.
fn fill<S: Store>(
    encoder: &mut RowEncoder,
    replica: &Replica<S>,
    scope: Option<&str>,
    keys: &mut BTreeSet<Key>,
    after: u64,
) -> Result<Option<u64>, SessionError> {
    let mut too_long = None;
    let next = replica.find(scope, keys, after, &mut |kind, id, registers| {
        let registers = || registers.iter().map(|(address, register)| (*address, register));
        encoder.entity(kind, id, registers());
        if encoder.len() > FRAME_BYTES_MAX {
            too_long = Some(write::too_long(kind, id, registers()));
        }
        if encoder.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    too_long.map_or(Ok(next), Err)
}
