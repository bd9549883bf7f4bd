//! Serving this side's changes: pages from a cursor, and checkpoints.

use std::ops::ControlFlow;

use super::echo::Echoes;
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
use crate::store::{Changed, Head, Store};
use crate::wire::page::{PageHeader, RowEncoder};
use crate::wire::{Checkpoint, FRAME_BYTES_MAX, Frame, Subscribe};
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
        self.check_reads()?;
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
        self.lease_subscribed(replica, cursor)?;
        let equal = subscribe.digest.is_some_and(|digest| digest == low(head.digest.confirmed));
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
            checkpoint_due: false,
            quiet: false,
        });
        if equal {
            let cut = self.first_cut(replica)?;
            self.control.extend(cut);
            let incarnation = self.tell_incarnation(&head);
            self.send(&Frame::Equal { seq: head.seq, incarnation });
        }
        Ok(())
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
        if writing.caught_up && !writing.quiet && replica.head()?.seq == writing.at {
            return Ok(None);
        }
        self.check_reads()?;
        let bytes_max = self.limits().frame_bytes_max;
        let filled = fill(&mut self.encoder, replica, writing, store, &self.echoes, bytes_max)?;
        if !filled.more {
            self.echoes.clear();
        }
        let own = position_of(&filled.head);
        // Read after the page: what is collected later is not in it.
        let mut collected = self.collected_until(replica, filled.head.seq)?;
        let is_empty = self.encoder.is_empty() && collected.is_empty();
        if writing.caught_up && !writing.quiet && !filled.more && is_empty {
            // Only changes that came from the other side: told with the next page, or when it is quiet.
            writing.checkpoint_due |= filled.at > writing.at;
            writing.at = filled.at;
            self.writing = Some(writing);
            return Ok(None);
        }
        writing.at = filled.at;
        if !is_empty {
            writing.content_at = filled.at;
        }
        writing.checkpoint_due = true;
        if !filled.more {
            collected.extend(self.first_cut(replica)?);
        }
        let start = std::mem::take(&mut writing.start);
        let mut checkpoint = false;
        if !filled.more {
            writing.done = filled.at;
            if !writing.caught_up || writing.quiet {
                // With registers set aside the digests must differ, and the other side cannot know why.
                if replica.quarantined()? == 0 {
                    let read = if replica.identity().is_authority { None } else { replica.cursor(store)? };
                    checkpoint = true;
                    let digest = filled.head.digest;
                    self.send(&Frame::Checkpoint(Checkpoint {
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
        let header = PageHeader { at: filled.at, more: filled.more, incarnation, start, checkpoint };
        self.events.push_back(SessionEvent::Sent { registers: filled.registers });
        let page = self.encoder.finish_page(header);
        Ok(Some(self.leasing.before(collected, page)))
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
        let incarnation = position_of(&head).incarnation;
        let mut remembered = peer.remembered(replica.peer(store)?);
        remembered.read = Cursor { incarnation, done: seq, at: seq };
        replica.remember(store, &remembered)?;
        self.lease_synced(replica)?;
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
}

/// Fills a page with the rows after the subscription's position.
fn fill<S: Store>(
    encoder: &mut RowEncoder,
    replica: &Replica<S>,
    writing: Writing,
    receiver: StoreId,
    echoes: &Echoes,
    bytes_max: usize,
) -> Result<Filled, SessionError> {
    let (mut at, mut more, mut failed) = (writing.at, false, None);
    let mut registers = 0;
    let head = replica.store().changes(writing.at, &mut |changed| {
        if encoder.is_full() {
            more = true;
            return ControlFlow::Break(());
        }
        match add(encoder, writing, receiver, echoes, changed) {
            Ok(added) => registers += added,
            Err(corrupt) => {
                failed = Some(damaged(changed.kind, changed.id, corrupt));
                return ControlFlow::Break(());
            }
        }
        at = changed.seq;
        ControlFlow::Continue(())
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None if encoder.len() > bytes_max.min(FRAME_BYTES_MAX) => {
            let message =
                "a register's concurrent values are together longer than a frame: write the field once \
                           more, and that value alone remains"
                    .to_owned();
            Err(SessionError::Refused { code: Code::TOO_LARGE, message })
        }
        None => Ok(Filled { at: if more { at } else { head.seq }, more, head, registers }),
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
