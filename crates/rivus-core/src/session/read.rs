//! Reading the other side's changes: subscribe, join pages, compare digests.

use std::convert::Infallible;

use super::window;
use super::{Access, Session, SessionError, SessionEvent, Want, unexpected};
use crate::canary::{Canary, is_on};
use crate::clock::Millis;
use crate::code::Code;
use crate::id::Incarnation;
use crate::identity::Cursor;
use crate::replica::{Delta, Event, Follows, Incoming, Joined, Replica, Trust};
use crate::store::{Digest, Store};
use crate::wire::page::Page;
use crate::wire::{Checkpoint, Frame, Subscribe};

/// How far the reading side is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Reading {
    state: State,
    /// Whether SUBSCRIBE asks for everything, from the start.
    everything: bool,
    cursor: Cursor,
    /// The seq that the other was last told.
    told: Option<u64>,
    /// The pages of an earlier subscription may still be on their way.
    awaits_start: bool,
    /// The last page is here, its checkpoint is not.
    awaits_checkpoint: bool,
    /// Whether the pages are what the other has confirmed and this store has lost, or never had.
    is_upload: bool,
    /// Whether the digests were equal once.
    verified: bool,
    pub(super) window: window::Incoming,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Idle,
    Planned(Want),
    Subscribed(Want),
    CaughtUp(Want),
}

impl Reading {
    /// Subscribes as soon as nothing is left to push.
    pub(super) fn plan(&mut self, want: Want) {
        if want != Want::Nothing {
            self.state = State::Planned(want);
        }
    }

    /// Takes everything from the start, once, also what came from here: an authority regains what was confirmed.
    ///
    /// Nobody's rank is checked: the store that uploads brings back what others wrote as well, and one that stayed
    /// away for it could never meet an authority again.
    pub(super) fn upload(&mut self) {
        self.everything = true;
        self.is_upload = true;
        self.state = State::Planned(Want::Once);
    }

    /// Subscribes once more, to everything: until then, and until its first page, those of the subscription before
    /// still come.
    pub(super) fn plan_repair(&mut self, want: Want) {
        self.everything = true;
        self.awaits_start = true;
        self.state = State::Planned(want);
    }

    /// Waits for the page and the CHECKPOINT that end a repair.
    pub(super) fn await_repair(&mut self) {
        if let State::CaughtUp(want) = self.state {
            self.state = State::Subscribed(want);
        }
    }

    /// What the other was told of this side's position last is not sent.
    pub(super) fn forget_told(&mut self) {
        self.told = None;
    }

    /// The next subscription starts over and includes what came from here.
    pub(super) fn want_everything(&mut self) {
        self.everything = true;
    }

    pub(super) fn is_verified(&self) -> bool {
        self.verified
    }

    pub(super) fn is_upload(&self) -> bool {
        self.is_upload
    }

    pub(super) fn is_caught_up(&self) -> bool {
        matches!(self.state, State::CaughtUp(_))
    }

    /// Whether pages, or the answer that there are none, are still to come.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self.state, State::Subscribed(_))
    }

    /// Whether everything is to come from the start.
    pub(super) fn is_planned(&self) -> bool {
        matches!(self.state, State::Planned(_))
    }

    pub(super) fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Whether everything up to this seq is here.
    pub(super) fn is_past(&self, seq: u64) -> bool {
        self.is_caught_up() && self.cursor.done >= seq
    }

    /// Whether a page of the last subscription was taken.
    pub(super) fn has_begun(&self) -> bool {
        self.is_subscribed() && !self.awaits_start
    }

    pub(super) fn is_subscribed(&self) -> bool {
        match self.state {
            State::Idle => false,
            State::Planned(_) => self.awaits_start,
            State::Subscribed(_) | State::CaughtUp(_) => true,
        }
    }
}

impl Session {
    /// Sends SUBSCRIBE if it is time.
    pub(super) fn start_reading<S: Store>(&mut self, replica: &mut Replica<S>) -> Result<(), SessionError> {
        let State::Planned(want) = self.reading.state else { return Ok(()) };
        if !self.is_drained() || self.waits_for_others() {
            return Ok(());
        }
        let peer = self.peer()?;
        let cursor = replica.cursor_of(peer.store, self.scope.as_deref())?;
        // After it had lost the right to: what came from here has left, too.
        let is_back = self.scope.is_none() && cursor.is_none() && replica.read_before()?.is_some();
        let mut everything = self.reading.everything || is_back;
        let cursor = cursor.filter(|_| !everything);
        // What was collected below the floor may not have been told of this scope.
        let is_of_use = |c: &Cursor| self.scope.is_none() || c.at.max(c.done) >= self.leasing.floor_told();
        let cursor = cursor.filter(is_of_use);
        if let Some(scope) = &self.scope
            && cursor.is_none_or(|cursor| cursor.at == 0)
            && !everything
            && !self.uploaded
        {
            replica.note_members(scope)?;
        }
        // What came from here may not be here any more: not before a first pass has ended.
        everything |= self.scope.is_some() && cursor.is_none_or(|cursor| cursor.done == 0);
        let named = cursor.and_then(|cursor| {
            let at =
                peer.history.iter().rev().position(|(incarnation, _)| *incarnation == cursor.incarnation)?;
            Some((cursor, at as u64))
        });
        let (cursor, incarnation) = match named {
            Some((cursor, at)) => (cursor, Some(at)),
            None => (Cursor::default(), None),
        };
        let digest = self.digest(replica)?;
        let digest = if peer.is_authority { digest.confirmed } else { digest.shown };
        // An upload is asked for because something may be missing on the asking side: never cut it short.
        let digest = if everything { None } else { Some(low(digest)) };
        let subscribe = Subscribe { cursor, incarnation, live: want == Want::Live, everything, digest };
        self.reading = Reading {
            state: State::Subscribed(want),
            cursor,
            told: None,
            awaits_start: true,
            window: window::Incoming::default(),
            everything,
            ..self.reading
        };
        self.number();
        let frame = Frame::Subscribe(subscribe).encode();
        let scope = self.scope.clone().unwrap_or_default();
        self.control.push_back(self.in_envelope(frame, &scope));
        Ok(())
    }

    /// The digest of what the subscription in hand is of.
    pub(super) fn digest<S: Store>(&self, replica: &Replica<S>) -> Result<Digest, SessionError> {
        Ok(match &self.scope {
            None => replica.head()?.digest,
            Some(scope) => replica.digest_of(scope)?,
        })
    }

    pub(super) fn handle_page<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        bytes: &[u8],
        now: Millis,
    ) -> Result<(), SessionError> {
        let uploads_over = self.reading.is_upload && self.reading.is_caught_up();
        if !self.reading.is_subscribed() || uploads_over {
            return Err(unexpected("a page that nobody asked for"));
        }
        // After an error it is of no use any more.
        let mut decoder = std::mem::take(&mut self.decoder);
        let page = decoder.page(bytes, self.peer()?.store)?;
        if self.is_server() {
            self.debit(registers(&page.rows), now);
        }
        self.check_brings(replica, &page.rows)?;
        if !self.reading.awaits_start || page.header.start {
            self.take_page(bytes.len());
        }
        self.join_page(replica, &page, now)?;
        decoder.trim();
        self.decoder = decoder;
        Ok(())
    }

    /// Refuses registers of a peer that may not write. What is brought to an authority is judged, or a right of its own.
    pub(super) fn check_brings<S: Store>(
        &self,
        replica: &Replica<S>,
        rows: &impl Delta,
    ) -> Result<(), SessionError> {
        if self.reading.is_upload || rows.latest().is_none() {
            return Ok(());
        }
        let may = |scope: &str| self.allows(Access::Write, scope);
        let may_all = if self.is_asking() { replica.misplaced_in(rows, &may)?.is_empty() } else { may("") };
        if may_all {
            return Ok(());
        }
        let message = "writing is not granted to this account".to_owned();
        Err(SessionError::Refused { code: Code::SCOPE, message })
    }

    fn join_page<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        page: &Page<'_, '_>,
        now: Millis,
    ) -> Result<(), SessionError> {
        let (store, is_authority) = self.peer().map(|peer| (peer.store, peer.is_authority))?;
        let header = page.header;
        let trust = if is_authority { Trust::Authority } else { Trust::Peer };
        if self.reading.awaits_start && !header.start {
            // It belongs to an earlier subscription: worth joining, but no position.
            if self.reading.is_upload {
                self.join_upload(replica, &page.rows, None, now)?;
            } else {
                replica.follow_page(now, &page.rows, store, trust, None)?;
            }
            self.heard_of(header.incarnation, header.at)?;
            return Ok(());
        }
        self.reading.awaits_start = false;
        if header.at < self.reading.cursor.at {
            return Err(unexpected("a page that goes back"));
        }
        let incarnation = self.heard_of(header.incarnation, header.at)?;
        let done = if header.more && !is_on(Canary::CursorOfOneNumber) {
            self.reading.cursor.done
        } else {
            header.at
        };
        let cursor = Cursor { incarnation, done, at: header.at };
        // The scope stays in hand while it is lent.
        let scope = self.scope.clone();
        let follows = Some(Follows {
            scope: scope.as_deref(),
            cursor,
            everything: self.reading.everything,
            collects: self.leasing.collects(),
        });
        let joined = if self.reading.is_upload {
            self.join_upload(replica, &page.rows, follows, now)?
        } else {
            replica.follow_page(now, &page.rows, store, trust, follows)?
        };
        self.note_echoes(replica, &page.rows, joined.registers)?;
        self.reading.cursor = cursor;
        if joined.registers > 0 {
            let Joined { registers, quarantined, changed } = joined;
            let own = self.written_here(&page.rows);
            self.events.push_back(SessionEvent::Joined { registers, quarantined, own, changed });
        }
        if header.more {
            self.events.push_back(SessionEvent::More { at: header.at });
        }
        if !header.more && header.checkpoint {
            self.reading.awaits_checkpoint = true;
        } else if !header.more {
            self.has_everything(replica)?;
            self.caught_up();
            if !is_authority {
                // A peer may be waiting for this to end.
                self.tell_synced();
            }
        }
        Ok(())
    }

    /// How many registers of a page show what this store wrote.
    pub(super) fn written_here<D: Delta>(&self, page: &D) -> usize {
        let mut own = 0;
        let counted = page.each::<Infallible>(|part| {
            let registers = part.changes.iter().filter_map(|(_, change)| change.register());
            own += registers.filter(|r| self.told_replicas.contains(&r.newest().stamp.replica)).count();
            Ok(())
        });
        counted.unwrap_or_else(|never| match never {});
        own
    }

    pub(super) fn handle_equal<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        seq: u64,
        incarnation: Option<Incarnation>,
        now: Millis,
    ) -> Result<(), SessionError> {
        let store = self.peer()?.store;
        if !self.reading.is_subscribed() || self.reading.everything {
            return Err(unexpected("EQUAL that nobody asked for"));
        }
        let incarnation = self.heard_of(incarnation, seq)?;
        let cursor = Cursor { incarnation, done: seq, at: seq };
        if replica.cursor_of(store, self.scope.as_deref())? != Some(cursor) {
            let follows =
                Some(Follows { scope: self.scope.as_deref(), cursor, everything: false, collects: false });
            replica.follow_page::<[Incoming<'_>]>(now, &[], store, Trust::Peer, follows)?;
        }
        self.reading.cursor = cursor;
        self.reading.awaits_start = false;
        self.has_everything(replica)?;
        let digest = self.digest(replica)?;
        self.verified(replica, seq, digest.confirmed)?;
        self.caught_up();
        Ok(())
    }

    /// The digests are equal: whatever the authority has accepted is here.
    fn verified<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        seq: u64,
        digest: u128,
    ) -> Result<(), SessionError> {
        self.reading.verified = true;
        if self.lanes.are_verified() && self.has_unheard(replica)? {
            replica.update_authority(|authority| authority.unheard = false)?;
        }
        self.events.push_back(SessionEvent::Verified { seq, digest });
        Ok(())
    }

    /// Whether the other is this store's authority, and may have accepted what it sends in no page.
    pub(super) fn has_unheard<S: Store>(&self, replica: &Replica<S>) -> Result<bool, SessionError> {
        let unheard = replica.identity().authority.is_some_and(|authority| authority.unheard);
        Ok(unheard && self.peer()?.is_authority)
    }

    /// Notes the end of a pass that has brought everything, whoever sent it.
    fn has_everything<S: Store>(&self, replica: &mut Replica<S>) -> Result<(), SessionError> {
        if self.scope.is_none() && !self.is_server() {
            replica.note_whole(self.peer()?.store)?;
        }
        // The last of several subscriptions brings the last of it.
        let others_have = self.lanes.are_caught_up();
        if self.reading.everything && !self.reading.is_upload && others_have {
            replica.has_all()?;
        }
        Ok(())
    }

    /// Takes over the other's newest incarnation and head from a frame, and says which incarnation is newest.
    pub(super) fn heard_of(
        &mut self,
        incarnation: Option<Incarnation>,
        seq: u64,
    ) -> Result<Incarnation, SessionError> {
        let peer = self.peer.as_mut().ok_or_else(|| unexpected("a page before the greeting"))?;
        peer.advance(incarnation, seq);
        Ok(peer.incarnation())
    }

    fn caught_up(&mut self) {
        if let State::Subscribed(want) = self.reading.state {
            self.reading.state = State::CaughtUp(want);
            self.reading.everything = false;
            self.tell_synced();
            if self.lanes.are_caught_up() {
                self.events.push_back(SessionEvent::CaughtUp);
            }
        }
    }

    /// Tells the other side up to where everything is here, if it does not know.
    pub(super) fn tell_synced(&mut self) {
        let done = self.reading.cursor.done;
        if self.reading.is_caught_up() && self.reading.told < Some(done) {
            self.reading.told = Some(done);
            self.send(&Frame::Synced { seq: done });
        }
    }

    pub(super) fn handle_checkpoint<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        checkpoint: &Checkpoint,
        _now: Millis,
    ) -> Result<(), SessionError> {
        if self.reading.state == State::Idle {
            return Err(unexpected("a CHECKPOINT that nobody asked for"));
        }
        if std::mem::take(&mut self.reading.awaits_checkpoint) {
            self.has_everything(replica)?;
            self.caught_up();
            self.tell_synced();
        }
        let cursor = self.reading.cursor;
        // While a difference is mended the digests are bound to differ.
        let mends = self.repairing.is_under_way();
        if mends || !self.reading.is_caught_up() || cursor.done != checkpoint.seq {
            return Ok(());
        }
        // In this order: another process may be pushing, and hear verdicts, on a connection of its own.
        let pending = replica.pending_count()?;
        let (head, digest) = (replica.head()?, self.digest(replica)?);
        replica.refresh()?;
        let is_authority = self.peer()?.is_authority;
        let comparable = match (is_authority, checkpoint.read) {
            // What has left is to be taken out first.
            (true, _) if replica.is_to_leave() => false,
            (true, _) => {
                let acked = replica.identity().authority.map_or(0, |authority| authority.acked);
                let quiet = self.pushing.as_ref().is_none_or(|pushing| pushing.is_quiet(false));
                checkpoint.seq >= acked && quiet && pending == 0
            }
            (false, Some(read)) => {
                let own = crate::replica::position_of(&head);
                read.done == own.seq && read.incarnation == own.incarnation && replica.quarantined()? == 0
            }
            (false, None) => false,
        };
        // What another process of this store has had accepted, or has read, since this connection began is in no
        // position that this one knows. Asked after the digest was read.
        replica.refresh()?;
        if !comparable || replica.others() != self.others {
            return Ok(());
        }
        let ours = if is_authority { digest.confirmed } else { digest.shown };
        if ours == checkpoint.digest {
            return self.verified(replica, checkpoint.seq, ours);
        }
        // Then a difference is no fault. One that is left once it is mended is.
        if self.repairing.is_at_rest() && self.has_unheard(replica)? {
            tracing::info!(seq = checkpoint.seq, "the authority accepted what was made anew unheard");
            return self.handle_difference(replica);
        }
        tracing::error!(
            ours,
            theirs = checkpoint.digest,
            seq = checkpoint.seq,
            "digests differ at one position"
        );
        self.events.push_back(SessionEvent::Diverged { ours, theirs: checkpoint.digest });
        replica.tell_of(Event::Diverged { with: self.peer()?.store, scope: self.scope.clone() });
        self.handle_difference(replica)
    }
}

/// How many registers there are.
pub(super) fn registers(delta: &impl Delta) -> usize {
    let mut registers = 0;
    let counted = delta.each::<Infallible>(|part| {
        registers += part.changes.len();
        Ok(())
    });
    counted.unwrap_or_else(|never| match never {});
    registers
}

/// The part of a digest that SUBSCRIBE carries.
pub(super) fn low(digest: u128) -> u64 {
    u64::try_from(digest & u128::from(u64::MAX)).unwrap_or(u64::MAX)
}
