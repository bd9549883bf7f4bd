//! Serving this side's changes: pages from a cursor, and checkpoints.

use std::ops::ControlFlow;

use super::echo::Echoes;
use super::fetch::Name;
use super::read::low;
use super::window::Outgoing;
use super::{Session, SessionError, SessionEvent, not_authority, unexpected};
use crate::address::Parts;
use crate::canary::{Canary, is_on};
use crate::clock::Millis;
use crate::code::Code;
use crate::id::{Incarnation, StoreId};
use crate::identity::{Cursor, Position, knows};
use crate::register::Register;
use crate::replica::{Replica, position_of};
use crate::row::{Corrupt, Digested, Row};
use crate::sketch::Key;
use crate::store::{Changed, Head, ScopeChange, Store};
use crate::wire::page::{PageHeader, RowEncoder};
use crate::wire::{Checkpoint, FETCH_ENTITIES_MAX, FRAME_BYTES_MAX, Frame, PAGE_BYTES_AIM, Subscribe};
use crate::work::damaged;

/// How many marks of collections are told before others have their turn.
const MARKS_AT_ONCE: usize = 4;

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
    /// The row of which a part was sent, by seq, and how many parts were.
    part: (u64, usize),
    /// Where the last page with anything in it ended.
    content_at: u64,
    /// Where the store stood when a subscription from the start began: what had left before was never there.
    born: u64,
    /// Something was passed over or sent since the last checkpoint.
    checkpoint_due: bool,
    /// A quiet second has passed: send what is due even if it is empty.
    quiet: bool,
    /// The last page was not the last one.
    pub(super) has_more: bool,
    /// Marks were told, and no page since that goes past them.
    pub(super) has_marked: bool,
    pub(super) window: Outgoing,
}

impl Writing {
    pub(super) fn handle_quiet(&mut self) {
        self.quiet = self.checkpoint_due;
    }

    /// Whether the other side had everything, and is told of what comes.
    pub(super) fn is_live(&self) -> bool {
        self.live && self.caught_up
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
            return self.deny(replica);
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
        self.lease_subscribed(replica, cursor)?;
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
            part: (0, 0),
            content_at: 0,
            born: if subscribe.everything && at == 0 { self.upload_from.unwrap_or(head.seq) } else { 0 },
            checkpoint_due: false,
            quiet: false,
            has_more: false,
            has_marked: false,
            window: Outgoing::default(),
        });
        if equal {
            let collected = self.collected_until(replica, head.seq)?;
            let cut = self.first_cut(replica)?;
            self.control.extend(collected.into_iter().chain(cut));
            let incarnation = self.tell_incarnation(&head);
            self.send(&Frame::Equal { seq: head.seq, incarnation });
        }
        Ok(())
    }

    /// Whether anything has left the scope in hand since. It came and went: nothing is to be told of it but where it is
    /// now, which another subscription may have been told too early to know.
    fn has_left_since<S: Store>(&self, replica: &Replica<S>, after: u64) -> Result<bool, SessionError> {
        let Some(scope) = &self.scope else { return Ok(false) };
        Ok(replica.store().has_left(scope, after)?)
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
            self.deny(replica)?;
            return Ok(self.control.pop_front());
        }
        if !writing.window.is_open(self.scope.is_some()) {
            return Ok(None);
        }
        if writing.caught_up && !writing.quiet && replica.head()?.seq == writing.at {
            return Ok(None);
        }
        if self.scope.is_none() && !self.may_read(replica)? {
            self.deny(replica)?;
        }
        let head = replica.head()?.seq;
        let (mut before, mut more) = self.some_collected(replica, head, MARKS_AT_ONCE)?;
        while more && before.is_empty() {
            // None of them is the reader's business.
            (before, more) = self.some_collected(replica, head, MARKS_AT_ONCE)?;
        }
        if more {
            self.control.extend(before);
            writing.has_marked = true;
            self.writing = Some(writing);
            return Ok(self.control.pop_front());
        }
        let bytes_max = self.page_bytes_max();
        let bounds = (bytes_max, self.page_aim);
        let scope = self.scope.as_deref();
        let mut filled = fill(&mut self.encoder, replica, writing, store, scope, &self.echoes, bounds)?;
        if !filled.more {
            self.echoes.clear();
        }
        let mut left = std::mem::take(&mut filled.left);
        if writing.start {
            left.extend(self.take_elsewhere());
        }
        let left = self.leave_out(replica, left, bytes_max)?;
        let own = position_of(&filled.head);
        // Read after the page: what is collected later is not in it.
        before.extend(self.collected_until(replica, filled.head.seq)?);
        let has_marked = std::mem::take(&mut writing.has_marked);
        let is_empty = self.encoder.is_empty() && before.is_empty() && left.is_empty() && !has_marked;
        if writing.caught_up && !writing.quiet && !filled.more && is_empty {
            // Only changes that came from the other side: told with the next page, or when it is quiet.
            writing.checkpoint_due |= filled.at > writing.at;
            writing.at = filled.at;
            self.writing = Some(writing);
            return Ok(None);
        }
        (writing.at, writing.part, writing.has_more) = (filled.at, filled.part, filled.more);
        if !is_empty {
            writing.content_at = filled.at;
        }
        writing.checkpoint_due = true;
        if !filled.more {
            before.extend(self.first_cut(replica)?);
        }
        let start = std::mem::take(&mut writing.start);
        let mut closing = None;
        if !filled.more {
            writing.done = filled.at;
            if !writing.caught_up || writing.quiet {
                // With registers set aside the digests must differ, and the other side cannot know why. At an authority that
                // is so for who has written them: the others do not have them either.
                let differs = if replica.identity().is_authority {
                    replica.has_aside_of(&self.peer()?.about.replicas())?
                } else {
                    replica.quarantined()? > 0
                };
                if !differs {
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
        let incarnation = self.tell_incarnation(&filled.head);
        let checkpoint = closing.is_some();
        let header = PageHeader { at: filled.at, more: filled.more, incarnation, start, checkpoint };
        self.events.push_back(SessionEvent::Sent { registers: filled.registers });
        let page = self.encoder.finish_page(header);
        writing.window.send(page.len());
        self.writing = Some(writing);
        // Before the page: its position says that this is done, too.
        self.control.extend(before);
        left.chunks(FETCH_ENTITIES_MAX).for_each(|entities| self.send(&Frame::Left(entities.to_vec())));
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
        now: Millis,
    ) -> Result<(), SessionError> {
        self.take_returned(replica, now)?;
        let head = replica.head()?;
        let peer = self.peer()?;
        let store = peer.store;
        // Whether the store has met its authority says nothing here: another process may have done so meanwhile.
        let uploads = !self.is_server() && peer.is_authority && self.pushing.is_none();
        if self.writing.is_none() && !uploads || seq > head.seq {
            return Err(unexpected("SYNCED beyond what was sent"));
        }
        if self.scope.is_some() {
            self.peer_synced = self.peer_synced.max(Some(seq));
            return self.lease_followed(replica);
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

/// How much goes into one page. A frame of rows also ends where it is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageAim {
    /// About so many bytes.
    pub bytes: usize,
    /// What so many rows have to tell, those with nothing for the reader counted: reading them takes time, too. A page
    /// may be empty for that.
    pub rows: usize,
}

impl Default for PageAim {
    fn default() -> Self {
        Self { bytes: PAGE_BYTES_AIM, rows: usize::MAX }
    }
}

struct Filled {
    at: u64,
    more: bool,
    head: Head,
    registers: usize,
    /// What comes next, if the last row was sent in part.
    part: (u64, usize),
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
    (bytes_max, aim): (usize, PageAim),
) -> Result<Filled, SessionError> {
    let (mut at, mut more, mut failed): (_, _, Option<SessionError>) = (writing.at, false, None);
    let (mut registers, mut rows, mut part, mut left) = (0, 0, (0, 0), Vec::new());
    let most = bytes_max.min(FRAME_BYTES_MAX);
    let mut visit = |change: ScopeChange<'_>| {
        let is_enough =
            encoder.is_full() || encoder.len() >= aim.bytes || rows >= aim.rows || left.len() >= LEFT_AT_ONCE;
        // What one commit has moved shares a seq, which is not passed before all of it is told.
        if is_enough && change.seq() > at {
            more = true;
            return ControlFlow::Break(());
        }
        match change {
            ScopeChange::Row(changed) => {
                match add(encoder, writing, receiver, echoes, changed) {
                    Ok(Added { registers: added, next: None }) => registers += added,
                    Ok(Added { registers: added, next: Some(next) }) => {
                        (registers, part, more) = (registers + added, (changed.seq, next), true);
                        return ControlFlow::Break(());
                    }
                    Err(corrupt) => {
                        failed = Some(damaged(changed.kind, changed.id, corrupt).into());
                        return ControlFlow::Break(());
                    }
                }
                if encoder.len() > most {
                    failed = Some(longer_than_a_frame(changed));
                    return ControlFlow::Break(());
                }
            }
            ScopeChange::Left { kind, id, seq } if seq > writing.born => {
                left.push((kind.to_owned(), id.to_owned()));
            }
            ScopeChange::Left { .. } => {}
        }
        at = change.seq();
        rows += 1;
        ControlFlow::Continue(())
    };
    let head = match scope {
        None => replica.store().changes(writing.at, &mut |changed| visit(ScopeChange::Row(changed)))?,
        Some(scope) => replica.store().changes_in(scope, writing.at, &mut visit)?,
    };
    match failed {
        Some(error) => Err(error),
        None => Ok(Filled { at: if more { at } else { head.seq }, more, head, registers, part, left }),
    }
}

/// A row that no frame carries is one register whose candidates are long.
fn longer_than_a_frame(changed: Changed<'_>) -> SessionError {
    let entries = Row::new(changed.bytes, changed.seq).map(|row| row.entries());
    let entries = entries.into_iter().flatten().filter_map(Result::ok);
    let registers = entries.filter_map(|entry| Some((entry.address, entry.shown().ok()?)));
    let registers: Vec<_> = registers.collect();
    too_long(changed.kind, changed.id, registers.iter().map(|(address, register)| (*address, register)))
}

/// What is to be done about a register that no frame carries: the longest of these.
pub(super) fn too_long<'r, 'v: 'r>(
    kind: &str,
    id: &str,
    registers: impl Iterator<Item = (&'r [u8], &'r Register<'v>)>,
) -> SessionError {
    let len = |register: &Register<'_>| register.alive.iter().map(|c| c.value.len()).sum::<usize>();
    let longest = registers.max_by_key(|(_, register)| len(register));
    let parts = longest.and_then(|(address, _)| Parts::parse(address));
    let field = parts.map_or(String::new(), |parts| format!(" in field `{}`", parts.name));
    let message = format!(
        "{kind} `{id}`{field}: a register's concurrent values are together longer than a frame: write the field once \
         more, and that value alone remains"
    );
    SessionError::Refused { code: Code::TOO_LARGE, message }
}

fn add(
    encoder: &mut RowEncoder,
    writing: Writing,
    receiver: StoreId,
    echoes: &Echoes,
    changed: Changed<'_>,
) -> Result<Added, Corrupt> {
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
    let mut next = None;
    if registers.iter().map(|(address, register)| address.len() + register.bytes()).sum::<usize>()
        > PIECE_BYTES
    {
        let from = if writing.part.0 == changed.seq { writing.part.1 } else { 0 };
        let mut pieces = pieces(&registers);
        next = Some(from + 1).filter(|next| *next < pieces.len());
        registers = if from < pieces.len() { pieces.swap_remove(from) } else { Vec::new() };
    }
    if !registers.is_empty() {
        encoder.entity(
            changed.kind,
            changed.id,
            registers.iter().map(|(address, register)| (*address, register)),
        );
    }
    Ok(Added { registers: registers.len(), next })
}

/// What went into a page of a row.
struct Added {
    registers: usize,
    /// Which part comes next, if not all of it did.
    next: Option<usize>,
}

/// A row that is longer in a page is told in parts.
const PIECE_BYTES: usize = FRAME_BYTES_MAX / 2;

/// The parts of a row: each is joined for itself, and together they are the whole.
fn pieces<'r, 'v>(registers: &[(&'r [u8], Register<'v>)]) -> Vec<Vec<(&'r [u8], Register<'v>)>> {
    let (mut pieces, mut len) = (vec![Vec::new()], 0);
    for (address, register) in registers {
        for piece in register.pieces(PIECE_BYTES) {
            let more = address.len() + piece.bytes();
            if len + more > PIECE_BYTES && len > 0 {
                pieces.push(Vec::new());
                len = 0;
            }
            len += more;
            if let Some(last) = pieces.last_mut() {
                last.push((*address, piece));
            }
        }
    }
    pieces
}
