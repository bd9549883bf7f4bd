//! Serving this side's changes: pages from a cursor, and checkpoints.

use std::ops::ControlFlow;

use super::echo::Echoes;
use super::fetch::Name;
use super::read::low;
use super::{Session, SessionError, SessionEvent, not_authority, unexpected};
use crate::canary::{Canary, is_on};
use crate::code::Code;
use crate::id::{Incarnation, StoreId};
use crate::identity::{Cursor, Position, knows};
use crate::register::Register;
use crate::replica::{Replica, position_of};
use crate::row::{Corrupt, Digested, Row};
use crate::sketch::Key;
use crate::store::{Changed, Head, ScopeChange, Store};
use crate::wire::page::{PageHeader, RowEncoder};
use crate::wire::{Checkpoint, FETCH_ENTITIES_MAX, FRAME_BYTES_MAX, Frame, Subscribe};
use crate::work::damaged;

/// The other side's subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Writing {
    /// What the other side had when it subscribed.
    from: u64,
    done: u64,
    at: u64,
    live: bool,
    everything: bool,
    caught_up: bool,
    /// No page was sent yet.
    start: bool,
    /// Where the last page with anything in it ended.
    content_at: u64,
    /// Where the store stood when a subscription from the start began: what had left before was never there.
    born: u64,
    /// Something was passed over or sent since the last checkpoint.
    checkpoint_due: bool,
    /// A quiet second has passed: send what is due even if it is empty.
    quiet: bool,
}

impl Writing {
    pub(super) fn handle_quiet(&mut self) {
        self.quiet = self.checkpoint_due;
    }

    /// Up to which row seq everything was sent, or passed over.
    pub(super) fn sent(&self) -> u64 {
        self.at
    }

    /// A page and a CHECKPOINT follow, whether anything has changed or not.
    pub(super) fn catch_up_again(&mut self) {
        self.caught_up = false;
    }

    /// What the other side had when it subscribed.
    pub(super) fn from(&self) -> u64 {
        self.from
    }

    /// Whether the other side has everything up to `head`, having said that it has everything up to `synced`.
    pub(super) fn is_received(&self, head: u64, synced: Option<u64>) -> bool {
        self.caught_up && self.at >= head && synced.is_some_and(|synced| synced >= self.content_at)
    }
}

impl Session {
    pub(super) fn handle_subscribe<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        subscribe: &Subscribe,
    ) -> Result<(), SessionError> {
        let peer = self.peer()?;
        if !self.options.offers && !self.is_server() {
            return Err(unexpected("SUBSCRIBE to a side that offers nothing"));
        }
        if let Some(authority) = replica.identity().authority
            && authority.store != peer.store
        {
            return Err(not_authority(authority.store));
        }
        if !self.may_read(replica)? {
            return self.deny();
        }
        let head = replica.head()?;
        let cursor = match subscribe.incarnation {
            None => Cursor::default(),
            Some(index) => {
                let named = usize::try_from(index).ok().and_then(|index| self.told.iter().rev().nth(index));
                let named =
                    named.ok_or_else(|| unexpected("SUBSCRIBE names an incarnation that was not told"))?;
                Cursor { incarnation: named.0, ..subscribe.cursor }
            }
        };
        let end = Position { seq: cursor.at.max(cursor.done), ..cursor.position() };
        if !knows(&head.incarnations, head.seq, end) {
            return Err(unexpected("SUBSCRIBE from a position that was never told"));
        }
        let own = self.digest(replica)?;
        let equal = subscribe.digest.is_some_and(|digest| digest == low(own.confirmed))
            && !self.has_left_since(replica, cursor.at)?;
        let at = if equal { head.seq } else { cursor.at };
        self.writing = Some(Writing {
            from: cursor.done,
            done: if equal { head.seq } else { cursor.done },
            at,
            live: subscribe.live,
            everything: subscribe.everything,
            caught_up: equal,
            start: !equal,
            content_at: 0,
            born: if subscribe.everything && at == 0 { self.upload_from.unwrap_or(head.seq) } else { 0 },
            checkpoint_due: false,
            quiet: false,
        });
        if equal {
            let incarnation = self.tell_incarnation(&head);
            self.send(&Frame::Equal { seq: head.seq, incarnation });
        }
        Ok(())
    }

    /// Whether anything has left the scope in hand since. It came and went: nothing is to be told of it but where it is
    /// now, which another subscription may have been told too early to know.
    fn has_left_since<S: Store>(&self, replica: &Replica<S>, after: u64) -> Result<bool, SessionError> {
        let (Some(scope), mut left) = (&self.scope, false) else { return Ok(false) };
        replica.store().changes_in(scope, after, &mut |change| {
            left = matches!(change, ScopeChange::Left { .. });
            if left { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(left)
    }

    /// The newest incarnation if the other does not know it yet.
    pub(super) fn tell_incarnation(&mut self, head: &Head) -> Option<Incarnation> {
        let newest = head.incarnations.last().copied()?;
        if self.told.last() == Some(&newest) {
            return None;
        }
        self.told.push(newest);
        Some(newest.0)
    }

    /// The next page, if there is something to send.
    pub(super) fn next_page<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        let Some(mut writing) = self.writing else { return Ok(None) };
        let store = self.peer()?.store;
        if writing.caught_up && !writing.live {
            return Ok(None);
        }
        // Who follows a scope hears at once that it may not be read any more, and of everything with the next page.
        if self.scope.is_some() && !self.may_read(replica)? {
            self.deny()?;
            return Ok(self.control.pop_front());
        }
        if writing.caught_up && !writing.quiet && replica.head()?.seq == writing.at {
            return Ok(None);
        }
        if self.scope.is_none() && !self.may_read(replica)? {
            self.deny()?;
        }
        let bytes_max = self.page_bytes_max();
        let scope = self.scope.as_deref();
        let mut filled = fill(&mut self.encoder, replica, writing, store, scope, &self.echoes, bytes_max)?;
        if !filled.more {
            self.echoes.clear();
        }
        let mut left = std::mem::take(&mut filled.left);
        if writing.start {
            left.extend(self.take_elsewhere());
        }
        let left = self.leave_out(replica, left, bytes_max)?;
        let own = position_of(&filled.head);
        if writing.caught_up && !writing.quiet && !filled.more && self.encoder.is_empty() && left.is_empty() {
            // Only changes that came from the other side: told with the next page, or when it is quiet.
            writing.checkpoint_due |= filled.at > writing.at;
            writing.at = filled.at;
            self.writing = Some(writing);
            return Ok(None);
        }
        writing.at = filled.at;
        if !self.encoder.is_empty() || !left.is_empty() {
            writing.content_at = filled.at;
        }
        writing.checkpoint_due = true;
        let start = std::mem::take(&mut writing.start);
        let mut closing = None;
        if !filled.more {
            writing.done = filled.at;
            if !writing.caught_up || writing.quiet {
                // With registers set aside the digests must differ, and the other side cannot know why.
                if replica.quarantined()? == 0 {
                    let read = if replica.identity().is_authority { None } else { replica.cursor(store)? };
                    let digest = filled.head.digest;
                    closing = Some(Frame::Checkpoint(Checkpoint {
                        seq: own.seq,
                        digest: digest.confirmed,
                        count: digest.count,
                        read,
                    }));
                }
                writing.checkpoint_due = false;
            }
            writing.caught_up = true;
            writing.quiet = false;
            writing.everything = false;
        }
        self.writing = Some(writing);
        let incarnation = self.tell_incarnation(&filled.head);
        let checkpoint = closing.is_some();
        let header = PageHeader { at: filled.at, more: filled.more, incarnation, start, checkpoint };
        self.events.push_back(SessionEvent::Sent { registers: filled.registers });
        let page = self.encoder.finish_page(header);
        // Before the page: its position says that this is done, too.
        for entities in left.chunks(FETCH_ENTITIES_MAX) {
            self.send(&Frame::Left(entities.to_vec()));
        }
        let page = self.in_envelope(page, "");
        self.control.push_back(page);
        if let Some(checkpoint) = closing {
            self.send(&checkpoint);
        }
        Ok(self.control.pop_front())
    }

    pub(super) fn handle_synced<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        seq: u64,
    ) -> Result<(), SessionError> {
        let head = replica.head()?;
        let peer = self.peer()?;
        let store = peer.store;
        // Whether the store has met its authority says nothing here: another process may have done so meanwhile.
        let uploads = !self.is_server() && peer.is_authority && self.pushing.is_none();
        if self.writing.is_none() && !uploads || seq > head.seq {
            return Err(unexpected("SYNCED beyond what was sent"));
        }
        if self.scope.is_some() {
            // What is remembered is how far it has read everything.
            self.peer_synced = self.peer_synced.max(Some(seq));
            return Ok(());
        }
        let incarnation = position_of(&head).incarnation;
        let mut remembered = peer.remembered(replica.peer(store)?);
        remembered.read = Cursor { incarnation, done: seq, at: seq };
        replica.remember(store, &remembered)?;
        self.peer_synced = self.peer_synced.max(Some(seq));
        if uploads {
            // The authority has what was confirmed here. Now the pending edits, then everything of the authority.
            self.writing = None;
            replica.forget_cursor(store)?;
            self.reading.want_everything();
            self.start_pushing(replica)?;
        }
        Ok(())
    }
}

struct Filled {
    at: u64,
    more: bool,
    head: Head,
    registers: usize,
    /// What has left the scope.
    left: Vec<Name>,
}

/// How many entities that have left are told of at a time.
const LEFT_AT_ONCE: usize = 10_000;

/// Fills a page with the rows after the subscription's position.
fn fill<S: Store>(
    encoder: &mut RowEncoder,
    replica: &Replica<S>,
    writing: Writing,
    receiver: StoreId,
    scope: Option<&str>,
    echoes: &Echoes,
    bytes_max: usize,
) -> Result<Filled, SessionError> {
    let (mut at, mut more, mut failed, mut left) = (writing.at, false, None, Vec::new());
    let mut registers = 0;
    let mut visit = |change: ScopeChange<'_>| {
        // What one commit has moved shares a seq, which is not passed before all of it is told.
        if (encoder.is_full() || left.len() >= LEFT_AT_ONCE) && change.seq() > at {
            more = true;
            return ControlFlow::Break(());
        }
        at = change.seq();
        match change {
            ScopeChange::Row(changed) => match add(encoder, writing, receiver, echoes, changed) {
                Ok(added) => registers += added,
                Err(corrupt) => {
                    failed = Some(damaged(changed.kind, changed.id, corrupt));
                    return ControlFlow::Break(());
                }
            },
            ScopeChange::Left { kind, id, seq } if seq > writing.born => {
                left.push((kind.to_owned(), id.to_owned()));
            }
            ScopeChange::Left { .. } => {}
        }
        ControlFlow::Continue(())
    };
    let head = match scope {
        None => replica.store().changes(writing.at, &mut |changed| visit(ScopeChange::Row(changed)))?,
        Some(scope) => replica.store().changes_in(scope, writing.at, &mut visit)?,
    };
    match failed {
        Some(error) => Err(error.into()),
        None if encoder.len() > bytes_max.min(FRAME_BYTES_MAX) => {
            let message =
                "a register's concurrent values are together longer than a frame: write the field once \
                           more, and that value alone remains"
                    .to_owned();
            Err(SessionError::Refused { code: Code::TOO_LARGE, message })
        }
        None => Ok(Filled { at: if more { at } else { head.seq }, more, head, registers, left }),
    }
}

fn add(
    encoder: &mut RowEncoder,
    writing: Writing,
    receiver: StoreId,
    echoes: &Echoes,
    changed: Changed<'_>,
) -> Result<usize, Corrupt> {
    let mut buffer = Vec::new();
    let looks = !echoes.is_empty() && !writing.everything;
    let mut digested = looks.then(|| Digested::new(&mut buffer, changed.kind, changed.id));
    let mut goes_back = |address: &[u8], register: &Register<'_>| {
        digested.as_mut().is_some_and(|digested| echoes.has(Key::of(digested.hash(address, register))))
    };
    let mut registers: Vec<(&[u8], Register<'_>)> = Vec::new();
    for entry in Row::new(changed.bytes, changed.seq)?.entries() {
        let entry = entry?;
        let state = entry.state()?;
        if is_on(Canary::SourceIsAnybody) && state.source.is_some() {
            continue;
        }
        if state.seq <= writing.done || !writing.everything && state.source == Some(receiver) {
            continue;
        }
        if let Some(confirmed) = state.into_confirmed()
            && !goes_back(entry.address, &confirmed)
        {
            registers.push((entry.address, confirmed));
        }
    }
    if !registers.is_empty() {
        encoder.entity(
            changed.kind,
            changed.id,
            registers.iter().map(|(address, register)| (*address, register)),
        );
    }
    Ok(registers.len())
}
