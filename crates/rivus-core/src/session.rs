//! Anti-entropy with one other store, without any I/O.
//!
//! Owns the protocol's order: handshake, subscriptions, pages, pushes, verdicts, checkpoints, resets. Both ends run
//! the same type. The shell moves frames: it gives every received one to [`Session::handle`], sends what
//! [`Session::poll_transmit`] makes (which reads and encodes a page only when the socket can take it, so nothing
//! encoded is queued and the dictionaries stay in step), and calls [`Session::handle_quiet`] after a second
//! without frames. After an error the connection is over; the stores are as after the last good frame.

mod answer;
mod asked;
mod auth;
mod echo;
mod error;
mod event;
mod fetch;
mod grant;
mod lanes;
mod lease;
mod lost;
mod open;
pub mod pair;
mod push;
mod rate;
mod read;
mod repair;
mod rights;
mod stand;
mod upload;
mod window;
mod write;

use std::collections::{BTreeSet, VecDeque};

use crate::clock::Millis;
use crate::code::Code;
use crate::id::{Incarnation, ReplicaId, StoreId};
use crate::identity::Peer;
use crate::replica::Replica;
use crate::store::Store;
use crate::wire::page::{RowDecoder, RowEncoder};
use crate::wire::{About, Ack, FRAME_BYTES_MAX, Frame, GOAWAY_BYTES_MAX, Refused, WireError, tag};

pub use answer::{Answered, LeftOver};
pub use error::SessionError;
pub use event::{Role, SessionEvent, SessionOptions, Want};
pub use grant::{
    Access, Authenticator, Authorizer, By, Denial, FRAME_BYTES_LEAST, Gate, Grant, Grants, Limits, Restore,
    SUBJECT_BYTES_MAX, Validator,
};
pub use lanes::TooManyScopes;
pub use rights::{Rights, Scopes, ScopesError};

use auth::Granted;
use echo::Echoes;
use fetch::{Fetching, Giving};
use lanes::Lanes;
use lease::Leasing;
use lost::Telling;
use push::{Judging, Pushing};
use read::Reading;
use repair::{Helping, Repairing};
use write::Writing;

pub use stand::{Doing, Progress, Stand};
pub use write::PageAim;

/// One connection's protocol.
#[derive(Debug)]
pub struct Session {
    options: SessionOptions,
    phase: Phase,
    peer: Option<Known>,
    granted: Granted,
    /// This side's incarnations as told in HELLO or WELCOME, and since then.
    told: Vec<(Incarnation, u64)>,
    /// The replica ids told in HELLO or WELCOME.
    told_replicas: BTreeSet<ReplicaId>,
    /// The own store's id that was told.
    told_store: StoreId,
    /// The count of other processes' commits when the other side was told.
    others: Option<i64>,
    /// Whether the other's policies must come before anything else.
    schema_due: bool,
    control: VecDeque<Vec<u8>>,
    encoder: RowEncoder,
    decoder: RowDecoder,
    /// The subscriptions to scopes by name. What follows is of the one that is in hand: of that to everything, unless
    /// something is done with another one.
    lanes: Lanes,
    /// Until when idle subscriptions need not tell how far they are.
    idle_until: Millis,
    slot: u32,
    priority: i8,
    scope: Option<String>,
    /// The subscription in hand is to end.
    over: bool,
    reading: Reading,
    writing: Option<Writing>,
    pushing: Option<Pushing>,
    judging: Judging,
    telling: Telling,
    leasing: Leasing,
    fetching: Fetching,
    giving: Giving,
    /// Up to where the other side said that it has everything.
    peer_synced: Option<u64>,
    repairing: Repairing,
    helping: Helping,
    echoes: Echoes,
    /// Whether edits wait here though the authority would take them.
    holds_pushes: bool,
    /// The most edits in one PUSH.
    push_edits_max: usize,
    /// How much goes into one page.
    page_aim: PageAim,
    /// The other side has asked for an upload on this connection.
    uploaded: bool,
    /// It has ended by itself, with everything done.
    finished: bool,
    /// The scopes that may be read, as the other side has told.
    readable: Option<BTreeSet<String>>,
    /// What goes before the goodbye.
    parting: Option<Vec<u8>>,
    /// What was refused of an upload, until that is over.
    returned: Vec<Refused>,
    /// What the other side's clock read then.
    hub_clock: Millis,
    /// See [`Session::has_told_all`].
    has_told_all: bool,
    /// Where the own store stood before an upload: what came in and is in another scope by now has left since.
    upload_from: Option<u64>,
    /// What an upload has named in a scope that it is not in, by that scope.
    elsewhere: BTreeSet<(String, fetch::Name)>,
    events: VecDeque<SessionEvent>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// A client that has not sent HELLO.
    Start,
    /// Waiting for HELLO or WELCOME.
    Greeting,
    Open,
    /// Nothing more will be sent once the control frames are out.
    Closed,
}

/// What the other side told of itself.
#[derive(Clone, Debug)]
struct Known {
    about: About,
    store: StoreId,
    history: Vec<(Incarnation, u64)>,
    head: u64,
    is_authority: bool,
    /// The rank that it grants to us, or that we grant to it.
    rank: u8,
    capabilities: u64,
}

impl Known {
    fn incarnation(&self) -> Incarnation {
        self.history.last().map(|(incarnation, _)| *incarnation).unwrap_or_default()
    }

    /// Takes over what a later frame says of its head.
    fn advance(&mut self, incarnation: Option<Incarnation>, head: u64) {
        if let Some(incarnation) = incarnation
            && incarnation != self.incarnation()
        {
            self.history.push((incarnation, self.head.saturating_add(1)));
        }
        self.head = self.head.max(head);
    }

    fn remembered(&self, before: Option<Peer>) -> Peer {
        let skip = self.history.len().saturating_sub(crate::identity::INCARNATIONS_TOLD);
        Peer {
            position: crate::identity::Position { incarnation: self.incarnation(), seq: self.head },
            history: self.history.iter().skip(skip).copied().collect(),
            read: before.unwrap_or_default().read,
        }
    }
}

impl Session {
    /// A session at its start.
    #[must_use]
    pub fn new(options: SessionOptions) -> Self {
        let phase = match options.role {
            Role::Client { .. } => Phase::Start,
            Role::Server { .. } => Phase::Greeting,
        };
        Self {
            options,
            phase,
            peer: None,
            granted: Granted::default(),
            told: Vec::new(),
            told_replicas: BTreeSet::new(),
            told_store: StoreId::default(),
            others: None,
            schema_due: false,
            control: VecDeque::new(),
            encoder: RowEncoder::default(),
            decoder: RowDecoder::default(),
            lanes: Lanes::default(),
            idle_until: Millis::default(),
            slot: 0,
            priority: 0,
            scope: None,
            over: false,
            reading: Reading::default(),
            writing: None,
            pushing: None,
            judging: Judging::default(),
            telling: Telling::default(),
            leasing: Leasing::default(),
            fetching: Fetching::default(),
            giving: Giving::default(),
            peer_synced: None,
            repairing: Repairing::default(),
            helping: Helping::default(),
            echoes: Echoes::default(),
            holds_pushes: false,
            push_edits_max: usize::MAX,
            page_aim: PageAim::default(),
            uploaded: false,
            finished: false,
            readable: None,
            parting: None,
            returned: Vec::new(),
            hub_clock: Millis(0),
            has_told_all: false,
            upload_from: None,
            elsewhere: BTreeSet::new(),
            events: VecDeque::new(),
        }
    }

    /// Whether the other side has said hello, or need not: before that nothing that it may have compressed is taken.
    #[must_use]
    pub fn has_greeted(&self) -> bool {
        !self.is_server() || self.phase != Phase::Greeting
    }

    /// Says from which network the other side connects. Those without a name who come from one pay together for what they
    /// send; without this all of them do.
    pub fn comes_from(&mut self, network: &str) {
        self.granted.network = network.to_owned();
    }

    /// Takes a received frame. `now` is the machine's clock.
    ///
    /// # Errors
    /// [`SessionError`]: the connection is over. A last frame that tells the other side why may be waiting in
    /// [`Session::poll_transmit`].
    pub fn handle<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        frame: &[u8],
        now: Millis,
    ) -> Result<(), SessionError> {
        if self.phase == Phase::Closed {
            return Ok(());
        }
        let result = self.dispatch(replica, frame, now);
        if let Err(error) = &result {
            self.close(error);
        }
        result
    }

    fn dispatch<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        bytes: &[u8],
        now: Millis,
    ) -> Result<(), SessionError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(WireError::TooLarge { bytes: bytes.len() }.into());
        }
        self.check_frame(bytes, now)?;
        self.leasing.at(now);
        let first = bytes.first().copied();
        if self.phase == Phase::Open {
            // Positions and replicas were told of the store as it was then.
            replica.refresh()?;
            if replica.identity().store != self.told_store {
                return Err(SessionError::NewWriter);
            }
        }
        if self.phase == Phase::Open && !self.schema_due {
            match first {
                Some(tag::DELTA) => return self.handle_page(replica, bytes, now),
                Some(tag::PUSH) => return self.handle_push(replica, bytes, now),
                Some(tag::FETCHED) => return self.handle_fetched(replica, bytes, now),
                Some(tag::REPAIR) => return self.handle_repair(replica, bytes, now),
                Some(tag::SCOPED) => return self.handle_scoped(replica, bytes, now),
                _ => {}
            }
        }
        if matches!(first, Some(tag::DELTA | tag::PUSH | tag::FETCHED | tag::REPAIR | tag::SCOPED)) {
            return Err(unexpected("a page, push or answer before the handshake is done"));
        }
        self.check_answer(bytes)?;
        let frame = Frame::decode(bytes)?;
        match (self.phase, frame) {
            (_, Frame::Ignored) => Ok(()),
            (_, Frame::Goaway { code, message, retry_after_ms }) => {
                if code == Code::SCOPE {
                    self.lose_everything(replica, now)?;
                }
                self.phase = Phase::Closed;
                self.control.clear();
                Err(SessionError::Goaway { code, message, retry_after_ms })
            }
            (Phase::Greeting, Frame::Hello(hello)) if self.is_server() => {
                self.handle_hello(replica, hello, now)
            }
            (Phase::Greeting, Frame::Welcome(welcome)) if !self.is_server() => {
                self.handle_welcome(replica, welcome, now)
            }
            (Phase::Open, Frame::Schema(policies)) if self.schema_due => {
                self.schema_due = false;
                compare_policies(replica, &policies)?;
                self.settle(replica, now)
            }
            (Phase::Open, frame) if !self.schema_due => self.handle_open(replica, frame, bytes.len(), now),
            _ => Err(unexpected("a frame out of order")),
        }
    }

    /// Takes a frame of an open session, in the subscription that is in hand. `bytes` is how long it was.
    fn handle_open<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        frame: Frame,
        bytes: usize,
        now: Millis,
    ) -> Result<(), SessionError> {
        match frame {
            Frame::Subscribe(subscribe) => self.handle_subscribe(replica, &subscribe),
            Frame::Equal { seq, incarnation } => self.handle_equal(replica, seq, incarnation, now),
            Frame::Checkpoint(checkpoint) => self.handle_checkpoint(replica, &checkpoint, now),
            Frame::Ack(ack) => self.handle_ack(replica, ack, now),
            Frame::Synced { seq } => self.handle_synced(replica, seq, now),
            Frame::Auth(auth) => self.handle_auth(replica, auth, now),
            Frame::Fetch(entities) => self.handle_fetch(replica, entities),
            Frame::AskSketch { count } => self.handle_ask_sketch(replica, count),
            Frame::Sketch(symbols) => self.handle_sketch(replica, &symbols, bytes),
            Frame::Lacks(keys) => self.handle_lacks(replica, keys),
            Frame::Window { taken } => self.handle_window(taken),
            Frame::Reset(reset) => self.handle_reset(replica, &reset, now),
            Frame::Cut { seq } => self.handle_cut(replica, seq),
            Frame::Collected { seq, entities } => self.handle_collected(replica, seq, &entities, now),
            Frame::CollectedKeys { seq, keys } => self.handle_collected_keys(replica, seq, &keys, now),
            Frame::Lost(losses) => self.handle_lost(replica, &losses),
            Frame::Heard { replica: author, last } => self.handle_heard(replica, author, last),
            Frame::Refused { clock_ms, parts } => self.handle_refused(replica, clock_ms, parts, now),
            Frame::Readable(scopes) if !self.is_server() => {
                self.readable = Some(scopes.into_iter().collect());
                Ok(())
            }
            Frame::Left(entities) => self.handle_left(replica, &entities),
            Frame::Denied { slot } => self.handle_denied(replica, slot),
            _ => Err(unexpected("a second greeting")),
        }
    }

    /// The next frame to send, if there is one now. Call again after every received frame, after every commit to
    /// the store, and whenever the socket can take more.
    ///
    /// # Errors
    /// [`SessionError`]: the connection is over. A last frame that tells the other side why is returned by the next call.
    pub fn poll_transmit<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        now: Millis,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        let transmitted = self.transmit(replica, now);
        if let Ok(Some(frame)) = &transmitted {
            self.granted.pace.spend(rate::cost(frame.len()), now);
        }
        match transmitted {
            // Nothing is wrong on this side: the other is told, and that was it.
            Err(error @ SessionError::Refused { code: Code::EXPIRED | Code::SCOPE, .. }) => {
                tracing::info!(%error, "a connection may not go on");
                self.close(&error);
                Ok(self.control.pop_front())
            }
            Err(error) => {
                self.close(&error);
                Err(error)
            }
            sent => sent,
        }
    }

    fn transmit<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        now: Millis,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        self.has_told_all = false;
        if self.phase == Phase::Start {
            self.phase = Phase::Greeting;
            return Ok(Some(self.hello(replica, now)?));
        }
        self.leasing.at(now);
        if let Some(frame) = self.control.pop_front() {
            return Ok(Some(frame));
        }
        if self.phase != Phase::Open || self.schema_due {
            return Ok(None);
        }
        self.tell_idle(now);
        self.check_grant(now)?;
        if let Some(frame) = self.next_auth() {
            return Ok(Some(frame));
        }
        if self.is_paused(now) {
            return Ok(None);
        }
        if let Some(frame) = self.next_answer(replica)? {
            return Ok(Some(frame));
        }
        self.end_rejoining(replica, now)?;
        if let Some(frame) = self.next_push(replica, now)? {
            return Ok(Some(frame));
        }
        self.let_leave(replica, now)?;
        self.each_slot(|session| session.start_reading(replica))?;
        if let Some(frame) = self.control.pop_front() {
            return Ok(Some(frame));
        }
        if let Some(frame) = self.next_page_of_any(replica)? {
            self.has_told_all = self.is_live_alone();
            return Ok(Some(frame));
        }
        // What follows would overtake pages.
        if self.is_window_full() || self.lanes.are_window_full() {
            return Ok(None);
        }
        self.tell_cut(replica)?;
        if let Some(frame) = self.next_repair_of_any(replica)? {
            return Ok(Some(frame));
        }
        if let Some(frame) = self.next_fetched(replica)? {
            return Ok(Some(frame));
        }
        if let Some(frame) = self.next_fetch()? {
            return Ok(Some(frame));
        }
        let ends_by_itself = !self.is_server() && self.options.want != Want::Live;
        if ends_by_itself && self.is_synced(replica.head()?.seq) {
            (self.phase, self.finished) = (Phase::Closed, true);
            let (code, message) = (Code::CLOSED, String::new());
            return Ok(Some(Frame::Goaway { code, message, retry_after_ms: None }.encode()));
        }
        Ok(self.control.pop_front())
    }

    /// Where several are followed, one is idle for long while the connection is not: it tells how far it is all the same.
    fn tell_idle(&mut self, now: Millis) {
        if self.lanes.len() == 0 || now < self.idle_until {
            return;
        }
        if self.idle_until > Millis::default() {
            self.handle_quiet();
        }
        self.idle_until = Millis(now.0.saturating_add(IDLE_MS));
    }

    /// Tells the session that nothing came or went for a second.
    pub fn handle_quiet(&mut self) {
        let is_open = self.phase == Phase::Open;
        let told = self.each_slot(|session| {
            if let Some(writing) = &mut session.writing {
                writing.handle_quiet();
            }
            if is_open {
                session.tell_synced();
            }
            Ok(())
        });
        debug_assert!(told.is_ok(), "telling cannot fail");
        self.encoder.handle_quiet();
        self.leasing.handle_quiet();
    }

    /// What happened since the last call, oldest first.
    pub fn poll_events(&mut self) -> impl Iterator<Item = SessionEvent> + '_ {
        self.events.drain(..)
    }

    /// Whether the session is over: nothing more will be sent or taken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed && self.control.is_empty()
    }

    /// Ends the session in order: the other side is told once the frames under way are out.
    pub fn end(&mut self, code: Code, message: &str) {
        self.end_until(code, message, None);
    }

    /// Ends the session as [`Session::end`] does, and asks the other side not to connect again for so many ms.
    pub fn end_until(&mut self, code: Code, message: &str, retry_after_ms: Option<u64>) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            self.control.clear();
            self.control.extend(self.parting.take());
            let mut message = message.to_owned();
            grant::cut(&mut message, GOODBYE_BYTES_MAX);
            self.control.push_back(Frame::Goaway { code, message, retry_after_ms }.encode());
        }
    }

    /// How much the pages from now on tell. Small ones cost more, and let others of this store go between them.
    pub fn set_page_aim(&mut self, aim: PageAim) {
        self.page_aim = aim;
    }

    /// Where nobody judges, what is written here goes in pages: they are held as pushes are elsewhere.
    fn holds_pages(&self) -> bool {
        self.holds_pushes && !self.is_server() && self.peer.as_ref().is_some_and(|peer| !peer.is_authority)
    }

    fn is_server(&self) -> bool {
        matches!(self.options.role, Role::Server { .. })
    }

    fn peer(&self) -> Result<&Known, SessionError> {
        self.peer.as_ref().ok_or_else(|| unexpected("a frame before the greeting"))
    }

    fn send(&mut self, frame: &Frame) {
        let frame = frame.encode();
        self.control.push_back(self.in_envelope(frame, ""));
    }

    fn close(&mut self, error: &SessionError) {
        if let Some((code, message)) = error.to_tell() {
            self.end_until(code, &message, error.retry_after_ms());
        }
        self.phase = Phase::Closed;
    }
}

/// After how many ms an idle subscription tells how far it is though the connection is never quiet.
const IDLE_MS: i64 = 5_000;

/// How many answers may wait to be sent, and how long they are together, in bytes, before nothing more is taken.
const ANSWERS_MAX: usize = 64;
const ANSWERS_BYTES_MAX: usize = 1 << 20;
/// How much of the words of a goodbye is told, in bytes: it has to fit a frame of its type.
const GOODBYE_BYTES_MAX: usize = GOAWAY_BYTES_MAX / 2;

/// How many characters of what the other side says are shown or logged.
const SHOWN_CHARS_MAX: usize = 200;

/// Words of the other side as they can be shown: cut, and without characters that move a terminal.
fn shown(words: &str) -> String {
    let mut shown = String::new();
    for (count, char) in words.chars().enumerate() {
        if count == SHOWN_CHARS_MAX {
            shown.push('…');
            break;
        }
        if char.is_control() { shown.extend(char.escape_default()) } else { shown.push(char) }
    }
    shown
}

fn compare_policies<S: Store>(
    replica: &Replica<S>,
    policies: &crate::wire::Policies,
) -> Result<(), SessionError> {
    let mismatches = replica.schema().compare_policies(policies.iter());
    if mismatches.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
    Err(SessionError::Refused { code: Code::SCHEMA, message: all.join("; ") })
}

/// A store with an authority syncs with that one alone.
fn not_authority(authority: StoreId) -> SessionError {
    let message = format!("this store syncs with its authority {authority} alone");
    SessionError::Refused { code: Code::NOT_AUTHORITY, message }
}

fn unexpected(what: &str) -> SessionError {
    SessionError::Refused { code: Code::UNEXPECTED, message: what.to_owned() }
}

#[cfg(test)]
mod tests;
