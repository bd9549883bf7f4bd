//! Moving the frames of one session over one socket.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::evict::Fetched;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rivus_core::clock::Millis;
use rivus_core::code::Code;
use rivus_core::replica::Replica;
use rivus_core::session::{Answered, Doing, LeftOver, PageAim, Session, SessionError, SessionEvent, Stand};
use rivus_core::store::Store;
use rivus_core::wire::{FRAME_BYTES_MAX, PAGE_BYTES_AIM, capability, tag};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::client::pending;
use super::fetch::{Ask, Asks};
use super::levers::Gate;
use super::renewal::Renewal;
use super::scopes::{Change, To};
use super::turns::{Size, Turn};
use super::{HANDSHAKE_MAX, PING, QUIET, SILENCE_MAX, STALL_MAX, SyncError, SyncReport, packing};

/// Who has the replica that a session works on.
pub(crate) trait Host: Send + Sync + 'static {
    /// Its store.
    type Store: Store;

    /// Does something with the replica while nobody else does. `Err` if this thread has it already.
    fn with<R>(&self, act: impl FnOnce(&mut Replica<Self::Store>, Millis) -> R) -> Result<R, SyncError>;

    /// Whether nobody has it just now: then it may be used for a moment without another thread.
    fn is_free(&self) -> bool;

    /// Whether commits wait for a disk.
    fn is_slow(&self) -> bool;

    /// Hears which pending edits were sent.
    fn note_sent(&self, _edits: &[u64]) {}

    /// Hears which of those were answered.
    fn note_answered(&self, _edits: &[u64]) {}
}

/// What ends a session before everything is exchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Bounds {
    /// After the page with which so many registers have come.
    pub(crate) registers: Option<usize>,
    /// After the page that reaches this position.
    pub(crate) until: Option<u64>,
}

/// How a session has ended that broke on neither side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// Everything that it was for is done.
    Done,
    /// It has gone as far as its bounds allow.
    Bounded,
    /// A guard was taken, or it is no longer to be live.
    Shut,
    /// The budget of the period is used up.
    Spent,
    /// Nobody wants it any more.
    Stopped,
}

/// The bounds that the socket keeps before a frame gets here.
pub(crate) fn socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(FRAME_BYTES_MAX + 16))
        .max_frame_size(Some(FRAME_BYTES_MAX + 16))
        // The buffer is there for as long as the connection; a long frame comes in several reads.
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
}

/// One session and what it has done.
pub(crate) struct Pump<H: Host> {
    host: Arc<H>,
    session: Option<Box<Session>>,
    report: SyncReport,
    zstd: bool,
    synced: Synced,
    /// How long the next frame may take to make, going by the last one.
    length: Length,
    /// What the session is fetching.
    asked: Option<Ask>,
    /// Called whenever that changes.
    listen: Box<dyn FnMut(Synced) + Send>,
    /// Whether anybody hears that.
    tells: bool,
    bounds: Bounds,
    gate: Option<Gate>,
    /// Where fresh tokens come from.
    renewal: Option<Renewal>,
    /// Why this side ends it.
    ended: Ended,
    /// The edits of each push without answer.
    under_way: VecDeque<Vec<u64>>,
    /// A hub's connection waits for its turn at the replica.
    turn: Option<Turn>,
    /// How long it has waited since that was last asked.
    waited: Duration,
    /// For how long it has kept its thread since it last gave it to others.
    kept: Duration,
    /// Called for whatever is to be counted.
    watch: Option<Box<dyn FnMut(Sight<'_>) + Send>>,
}

/// What can be seen of a session from outside.
#[derive(Debug)]
pub(crate) enum Sight<'e> {
    /// Something happened.
    Event(&'e SessionEvent),
    /// So many changes is the other side behind.
    Lag(u64),
}

/// For how long the replica is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Length {
    /// So short that changing threads would take longer.
    Moment,
    /// Perhaps long enough to hold up other tasks.
    Unknown,
}

/// What is done at the replica in one turn.
#[derive(Clone, Copy, Debug)]
struct Work {
    length: Length,
    size: Size,
    /// The connection does not pay for it.
    is_free: bool,
}

impl Work {
    const UNKNOWN: Self = Self { length: Length::Unknown, size: Size::Full, is_free: false };
}

/// How much a page tells.
fn aim(size: Size) -> PageAim {
    match size {
        Size::Short => PageAim { bytes: SHORT_BYTES_MAX, rows: SHORT_ROWS_MAX },
        Size::Full => PageAim { bytes: PAGE_BYTES_AIM, rows: PAGE_BYTES_AIM / ROW_BYTES },
    }
}

/// Frames up to this length, in bytes, take a short turn.
const SHORT_BYTES_MAX: usize = 16 << 10;

/// Rows of which nothing is told take as long as so many bytes that are.
const ROW_BYTES: usize = 16;
const SHORT_ROWS_MAX: usize = SHORT_BYTES_MAX / ROW_BYTES;

/// How long a connection keeps its thread, frame after frame, before others have it.
const KEPT_MAX: Duration = Duration::from_millis(1);

/// Frames up to this length are made and taken in a moment.
const MOMENT_BYTES_MAX: usize = 4096;

/// What one read from a socket takes.
const READ_BUFFER_BYTES: usize = 4096;

/// How far a session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Synced {
    /// The handshake is done.
    pub(crate) opened: bool,
    /// The own store's head up to which each side has everything of the other.
    pub(crate) up_to: Option<u64>,
    /// What it does and how far it is.
    pub(crate) stand: Option<Stand>,
    /// How many edits are pending.
    pub(crate) pending: usize,
    /// When the oldest of them was made.
    pub(crate) pending_since: Option<Millis>,
    /// Up to which of the authority's changes everybody with a lease has everything.
    pub(crate) seen: u64,
}

/// What wakes a pump besides frames.
pub(crate) struct Wakes {
    /// The store has changed.
    pub(crate) changes: watch::Receiver<u64>,
    /// The session is to end.
    pub(crate) stop: watch::Receiver<bool>,
    /// Entities are wanted.
    pub(crate) asks: Arc<Asks>,
}

impl<H: Host> Pump<H> {
    pub(crate) fn new(host: Arc<H>, session: Session, listen: impl FnMut(Synced) + Send + 'static) -> Self {
        Self {
            host,
            session: Some(Box::new(session)),
            report: SyncReport::default(),
            zstd: false,
            length: Length::Moment,
            synced: Synced::default(),
            asked: None,
            listen: Box::new(listen),
            tells: true,
            watch: None,
            bounds: Bounds::default(),
            gate: None,
            renewal: None,
            ended: Ended::Done,
            under_way: VecDeque::new(),
            turn: None,
            waited: Duration::ZERO,
            kept: Duration::ZERO,
        }
    }

    /// Waits for its turns among those of a hub's connections.
    pub(crate) fn taking_turns(self, turn: Turn) -> Self {
        Self { turn: Some(turn), ..self }
    }

    /// Shows what happens to somebody who counts.
    pub(crate) fn watch(mut self, watch: impl FnMut(Sight<'_>) + Send + 'static) -> Self {
        self.watch = Some(Box::new(watch));
        self
    }

    /// Nobody listens: how far the session is need not be found out for each frame.
    pub(crate) fn unheard(mut self) -> Self {
        self.tells = false;
        self
    }

    /// Keeps the session within bounds, and to what an application has set.
    pub(crate) fn within(mut self, bounds: Bounds, gate: Gate) -> Self {
        (self.bounds, self.gate) = (bounds, Some(gate));
        self
    }

    /// Shows fresh tokens while the session lasts.
    pub(super) fn renewing(mut self, renewal: Option<Renewal>) -> Self {
        self.renewal = renewal;
        self
    }

    /// Runs the session until it ends in order or breaks, and says what it did either way.
    pub(crate) async fn run<T>(
        mut self,
        socket: WebSocketStream<T>,
        mut wakes: Wakes,
    ) -> (SyncReport, Result<Ended, SyncError>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let result = self.pump(socket, &mut wakes).await;
        if let Some(ask) = self.asked.take() {
            wakes.asks.put_back(ask);
        }
        if self.gate.is_some()
            && let Ok(Ok(LeftOver { blocked, deferred })) = self
                .blocking(Work::UNKNOWN, (|| Ok(()), |left| left), |session, replica, _, ()| {
                    session.left_over(replica)
                })
                .await
        {
            self.report.pushed.close(blocked, deferred);
        }
        (self.report, result)
    }

    async fn pump<T>(&mut self, socket: WebSocketStream<T>, wakes: &mut Wakes) -> Result<Ended, SyncError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (mut sink, mut stream) = socket.split();
        let started = Instant::now();
        let mut since = Since { heard: started, frame: started, quiet: started, ping: started };
        let mut failed: Option<SyncError> = None;
        loop {
            self.ask(&wakes.asks);
            self.follow(&wakes.asks).await?;
            // Out with everything that the session has. What comes in meanwhile is taken, or both ends could wait
            // for each other with full buffers.
            while let Some(frame) = self.next(&mut failed).await? {
                self.report.bytes_sent += frame.len() as u64;
                self.spend(frame.len());
                since.frame = Instant::now();
                since.quiet = since.frame;
                let takes = failed.is_none() && !self.is_choked();
                let sending = send(&mut sink, &mut stream, frame, &mut since, takes);
                let received = tokio::select! {
                    received = sending => received?,
                    // The other side takes nothing, perhaps for long: it is left without a word.
                    ended = given_up(self.gate.as_ref(), &wakes.stop) => return Ok(ended),
                };
                for message in received {
                    if let Some(frame) = data(message)? {
                        self.take(frame, &mut failed).await?;
                    }
                }
            }
            if let Some(error) = failed {
                let _ = timeout(QUIET, leave(&mut sink, &mut stream)).await;
                return self.end_of(error);
            }
            if self.session.as_ref().is_none_or(|session| session.is_closed()) {
                let _ = timeout(QUIET, sink.close()).await;
                return Ok(self.ended);
            }
            // The other side may have spoken long ago: this one did not listen.
            since.postpone(std::mem::take(&mut self.waited));
            let quiet_at = since.quiet + QUIET;
            let silent_at =
                if self.synced.opened { since.heard + SILENCE_MAX } else { started + HANDSHAKE_MAX };
            let awaits = self.synced.stand.is_some_and(|stand| stand.awaits);
            let stalled_at = if awaits { since.frame + STALL_MAX } else { quiet_at };
            let due = self.gate.as_ref().and_then(Gate::due).unwrap_or(quiet_at);
            if let (Some(renewal), Some(session)) = (&mut self.renewal, &self.session) {
                renewal.plan(session.grant_ends());
            }
            let paused = self.session.as_ref().and_then(|session| session.paused_ms());
            let due = paused.map_or(due, |ms| due.min(Instant::now() + Duration::from_millis(ms)));
            tokio::select! {
                message = stream.next() => {
                    since.heard = Instant::now();
                    since.quiet = since.heard;
                    if let Some(frame) = data(message)? {
                        since.frame = since.heard;
                        self.take(frame, &mut failed).await?;
                    }
                }
                changed = wakes.changes.changed() => {
                    if changed.is_err() {
                        self.stop(Ended::Stopped);
                    }
                }
                () = wakes.asks.notify.notified() => {}
                () = changed(&mut self.gate) => {}
                token = fresh(&mut self.renewal) => {
                    if let Some(session) = &mut self.session {
                        session.refresh_token(token);
                    }
                }
                () = told_to(&mut wakes.stop) => self.stop(Ended::Stopped),
                () = sleep_until(quiet_at.min(silent_at).min(stalled_at).min(due)) => {
                    let now = Instant::now();
                    if now >= silent_at {
                        return Err(SyncError::Silent);
                    }
                    if awaits && now >= stalled_at {
                        self.end(Code::STALLED, "nothing went forward for too long");
                        failed = Some(SyncError::Stalled);
                        continue;
                    }
                    if now < quiet_at {
                        continue;
                    }
                    since.quiet = now;
                    self.quiet();
                    if since.ping.elapsed() >= PING {
                        since.ping = now;
                        sink.send(Message::Ping(Vec::new().into())).await.map_err(|error| broken(&error))?;
                    }
                    self.release().await?;
                }
            }
        }
    }

    /// The next frame, by what the application has set at this moment.
    async fn next(&mut self, failed: &mut Option<SyncError>) -> Result<Option<Vec<u8>>, SyncError> {
        self.obey();
        self.transmit(failed).await
    }

    /// Does what the application has set, and ends the session where it has gone as far as it may.
    fn obey(&mut self) {
        let Some(gate) = &mut self.gate else { return };
        let (holds, batch, shut, spent) = (gate.holds(), gate.batch_edits(), gate.is_shut(), gate.is_spent());
        if let Some(session) = &mut self.session {
            session.hold_pushes(holds);
            session.set_push_edits_max(batch);
        }
        let pulled = &self.report.pulled;
        let reached = |most: Option<u64>, now: u64| most.is_some_and(|most| now >= most);
        let full = self.bounds.registers.is_some_and(|most| pulled.received >= most)
            || reached(self.bounds.until, pulled.position);
        if shut {
            self.stop(Ended::Shut);
        } else if pulled.more && full {
            self.stop(Ended::Bounded);
        } else if spent {
            self.stop(Ended::Spent);
        }
    }

    fn spend(&self, bytes: usize) {
        if let Some(gate) = &self.gate {
            gate.spend(bytes as u64);
        }
    }

    /// Lets the session fetch what is asked for next, if nothing is under way.
    fn ask(&mut self, asks: &Asks) {
        if self.asked.is_none()
            && let Some(session) = &mut self.session
            && let Some(ask) = asks.next()
        {
            session.fetch(ask.entities.iter().cloned());
            self.asked = Some(ask);
        }
    }

    /// Has the session follow what is wanted since it began.
    async fn follow(&mut self, asks: &Asks) -> Result<(), SyncError> {
        while let Some(Change { scope, to }) = asks.next_change() {
            let change = move |session: &mut Session, replica: &mut Replica<H::Store>, _, ()| match to {
                To::Follow => session.subscribe(&scope).map_err(SyncError::from),
                To::Unfollow(kept) => session
                    .unsubscribe(replica, &scope, kept)
                    .map_err(|error| SessionError::from(error).into()),
                To::Priority(priority) => {
                    session.set_priority(&scope, priority);
                    Ok(())
                }
            };
            self.blocking(Work::UNKNOWN, (|| Ok(()), |done| done), change).await??;
        }
        Ok(())
    }

    /// Tells who asked what came of it.
    fn answer(&mut self, event: &SessionEvent) {
        let answer = match event {
            SessionEvent::Fetched { entities, registers, missing } => {
                Ok(Fetched { entities: *entities, registers: *registers, missing: missing.clone() })
            }
            SessionEvent::CannotFetch => Err(SyncError::CannotFetch),
            _ => return,
        };
        if let Some(ask) = self.asked.take() {
            // Whoever asked may have gone meanwhile.
            let _ = ask.answer.send(answer);
        }
    }

    /// Whether the other side has to read before it is listened to.
    fn is_choked(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_choked())
    }

    /// Ends the session in order, unless it is over.
    fn stop(&mut self, ended: Ended) {
        if self.session.as_ref().is_some_and(|session| session.stand().doing != Doing::Closed) {
            self.ended = ended;
            self.end(Code::CLOSED, "this side stops");
        }
    }

    /// What it means that the other side has ended the session in order: all that a hub may expect of a device, and for
    /// a device that it has not got to its end.
    fn end_of(&self, error: SyncError) -> Result<Ended, SyncError> {
        match error {
            SyncError::Session(SessionError::Goaway { code: Code::CLOSED, .. }) if self.gate.is_none() => {
                Ok(Ended::Done)
            }
            other => Err(other),
        }
    }

    fn end(&mut self, code: Code, message: &str) {
        if let Some(session) = &mut self.session {
            session.end(code, message);
        }
    }

    fn quiet(&mut self) {
        if let Some(session) = &mut self.session {
            session.handle_quiet();
        }
    }

    /// Joins registers that were set aside and are due.
    async fn release(&mut self) -> Result<(), SyncError> {
        let released = self
            .blocking(Work::UNKNOWN, (|| Ok(()), |done| done), |_, replica, now, ()| replica.release(now))
            .await?;
        released.map(|_| ()).map_err(|error| SessionError::from(error).into())
    }

    /// The next frame. An error ends the session, but what it has left to say is still sent.
    async fn transmit(&mut self, failed: &mut Option<SyncError>) -> Result<Option<Vec<u8>>, SyncError> {
        let waits = self.gate.as_ref().and_then(Gate::unseen);
        let poll = move |session: &mut Session, replica: &mut Replica<H::Store>, now, ()| {
            // An edit that was committed since the last look is told of before the replica is free.
            if waits.is_some_and(|edits| edits.has_changed().unwrap_or(false)) {
                session.hold_pushes(true);
            }
            session.poll_transmit(replica, now)
        };
        let commits =
            self.host.is_slow() && self.session.as_ref().is_some_and(|session| session.may_commit());
        let length = if commits { Length::Unknown } else { self.length };
        let owes_much = self.session.as_ref().is_some_and(|session| session.owes_much());
        let size = if owes_much { Size::Full } else { Size::Short };
        // What others have written is not the reader's to pay for.
        let is_free = !owes_much && self.session.as_ref().is_some_and(|session| session.is_followed());
        let zstd = self.zstd;
        let pack = move |frame: Result<Option<Vec<u8>>, SessionError>| {
            let packed = frame?.map(|frame| (frame.len() > MOMENT_BYTES_MAX, packing::pack(frame, zstd)));
            Ok::<_, SessionError>(packed)
        };
        let sent = match self.blocking(Work { length, size, is_free }, (|| Ok(()), pack), poll).await? {
            Err(error) => {
                failed.get_or_insert(error.into());
                let last = |session: &mut Session, replica: &mut Replica<H::Store>, now, ()| {
                    session.poll_transmit(replica, now)
                };
                let work = Work { length: self.length, size: Size::Short, is_free: false };
                self.blocking(work, (|| Ok(()), pack), last).await?
            }
            sent => sent,
        };
        let frame = sent.map_err(SyncError::from)?;
        let long = frame.as_ref().is_some_and(|(long, _)| *long);
        self.length = if long { Length::Unknown } else { Length::Moment };
        Ok(frame.map(|(_, frame)| frame))
    }

    async fn take(&mut self, bytes: Vec<u8>, failed: &mut Option<SyncError>) -> Result<(), SyncError> {
        self.report.bytes_received += bytes.len() as u64;
        self.spend(bytes.len());
        // What it says it unpacks to counts, before anything is unpacked.
        let len = packing::unpacked_len(&bytes);
        // What is committed to a file waits for the disk.
        let is_long = len > MOMENT_BYTES_MAX || self.host.is_slow();
        let length = if is_long { Length::Unknown } else { Length::Moment };
        let size = if len > SHORT_BYTES_MAX { Size::Full } else { Size::Short };
        // Before the greeting nobody has said yet that they may.
        let greeted = self.session.as_ref().is_some_and(|session| session.has_greeted());
        let unpack = move || {
            if bytes.first() == Some(&tag::COMPRESSED) && !greeted {
                Err(SyncError::Packing)
            } else {
                packing::unpack(bytes)
            }
        };
        let taken = self
            .blocking(
                Work { length, size, is_free: false },
                (unpack, |done| done),
                move |session, replica, now, frame| {
                    session.handle(replica, &frame, now).map_err(SyncError::from)
                },
            )
            .await;
        match taken {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error @ SyncError::Packing) => {
                failed.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes note of what has happened.
    fn hear(&mut self, session: &mut Session) -> Synced {
        let mut synced = self.synced;
        for event in session.poll_events() {
            synced.opened |= matches!(event, SessionEvent::Opened { .. });
            if let Some(watch) = &mut self.watch {
                watch(Sight::Event(&event));
            }
            self.answer(&event);
            if let (Some(turn), SessionEvent::Admitted { subject }) = (&mut self.turn, &event)
                && !subject.is_empty()
            {
                turn.name(subject);
            }
            match &event {
                SessionEvent::Pushed { edits } => {
                    self.host.note_sent(edits);
                    self.under_way.push_back(edits.clone());
                }
                SessionEvent::Cut { seq } => synced.seen = synced.seen.max(*seq),
                SessionEvent::Answered(_) => {
                    self.host.note_answered(&self.under_way.pop_front().unwrap_or_default());
                }
                _ => {}
            }
            note(&mut self.report, &mut self.zstd, &event);
        }
        synced
    }

    /// Lends session and replica to a blocking thread, when it is this connection's turn. What comes `before` and `after`
    /// needs neither: others have the replica meanwhile.
    async fn blocking<B, D, R: Send + 'static>(
        &mut self,
        Work { length, size, is_free }: Work,
        (before, after): (
            impl FnOnce() -> Result<B, SyncError> + Send + 'static,
            impl FnOnce(D) -> R + Send + 'static,
        ),
        act: impl FnOnce(&mut Session, &mut Replica<H::Store>, Millis, B) -> D + Send + 'static,
    ) -> Result<R, SyncError> {
        let pass = match &self.turn {
            Some(turn) => {
                let since = Instant::now();
                let pass = turn.come(size).await;
                self.waited += since.elapsed();
                Some(pass)
            }
            None => None,
        };
        let Some(mut session) = self.session.take() else {
            return Err(SyncError::Broken("the session was lost in a panic".to_owned()));
        };
        if let Some(pass) = &pass {
            session.set_page_aim(aim(pass.size));
        }
        let (host, tells) = (Arc::clone(&self.host), self.tells);
        // Reading the head takes as long as a short frame.
        let lags = self.watch.is_some() && length == Length::Unknown;
        let span = tracing::Span::current();
        let work = move || {
            let _entered = span.enter();
            let begun = std::time::Instant::now();
            let before = match before() {
                Ok(before) => before,
                Err(error) => return (Err(error), session, begun.elapsed()),
            };
            let mut used = begun.elapsed();
            let done = host.with(|replica, now| {
                // Waiting for others is free.
                let begun = std::time::Instant::now();
                let done = act(&mut session, replica, now, before);
                let head = (tells || lags).then(|| replica.head().ok().map(|head| head.seq)).flatten();
                let lag = head.filter(|_| lags).and_then(|head| session.lag(head));
                used += begun.elapsed();
                if !tells {
                    return (done, None, (0, None), lag);
                }
                // An edit that came in since the last frame is pending, though the session has not met it yet.
                let pending = pending(replica).unwrap_or((usize::MAX, None));
                // What waits for somebody to decide about a refused edit does not hold up whoever waits for a sync.
                let is_left = || session.left_over(replica).map_or(true, |left| left.deferred > 0);
                let is_synced = |seq: &u64| {
                    let is_done = session.reads() && session.is_synced(*seq) && !session.withholds(*seq);
                    is_done && (pending.0 == 0 || !is_left())
                };
                (done, head.filter(is_synced), pending, lag)
            });
            let begun = std::time::Instant::now();
            let done = done.map(|(done, up_to, pending, lag)| (after(done), up_to, pending, lag));
            (done, session, used + begun.elapsed())
        };
        let is_inline = length == Length::Moment && self.host.is_free();
        let (done, mut session, used) = if is_inline {
            work()
        } else {
            tokio::task::spawn_blocking(work).await.map_err(|error| SyncError::Broken(error.to_string()))?
        };
        if let (Some(turn), Some(pass)) = (&self.turn, pass) {
            turn.pay(pass, if is_free { Duration::ZERO } else { used });
        }
        let mut synced = self.hear(&mut session);
        let stand = session.stand();
        synced.stand = Some(stand);
        self.report.pulled.position = self.report.pulled.position.max(stand.read.done);
        self.session = Some(session);
        let (done, up_to, pending, lag) = done?;
        if let (Some(watch), Some(lag)) = (&mut self.watch, lag) {
            watch(Sight::Lag(lag));
        }
        synced.up_to = up_to;
        (synced.pending, synced.pending_since) = pending;
        if synced != self.synced {
            self.synced = synced;
            (self.listen)(synced);
        }
        // A flood must not keep a thread to itself, whatever its frames are.
        self.kept = if is_inline { self.kept + used } else { Duration::ZERO };
        if self.turn.is_some() && self.kept >= KEPT_MAX {
            self.kept = Duration::ZERO;
            tokio::task::yield_now().await;
        }
        Ok(done)
    }
}

fn note(report: &mut SyncReport, zstd: &mut bool, event: &SessionEvent) {
    match event {
        SessionEvent::Opened { peer, is_authority, capabilities, .. } => {
            *zstd = capabilities & capability::ZSTD != 0;
            report.peer = peer.to_string();
            report.is_authority = *is_authority;
        }
        SessionEvent::Joined { registers, quarantined, own, changed } => {
            let pulled = &mut report.pulled;
            pulled.received += registers;
            pulled.set_aside += quarantined;
            pulled.own += own;
            pulled.applied += registers.saturating_sub(quarantined + own);
            pulled.changed += changed;
        }
        SessionEvent::More { at } => (report.pulled.more, report.pulled.position) = (true, *at),
        SessionEvent::CaughtUp => report.pulled.more = false,
        SessionEvent::Offering { edits } => report.pushed.offered = *edits,
        SessionEvent::Answered(answered) => count(report, answered),
        SessionEvent::Denied { scope } => report.denied.push(scope.clone()),
        SessionEvent::Diverged { .. } => report.diverged = true,
        SessionEvent::Repaired { registers, .. } => report.repaired += registers,
        SessionEvent::Verified { .. } => report.verified = true,
        _ => {}
    }
}

fn count(report: &mut SyncReport, answered: &Answered) {
    let pushed = &mut report.pushed;
    pushed.accepted += answered.accepted;
    pushed.superseded += answered.superseded;
    pushed.duplicate += answered.duplicate;
    for (code, edits) in &answered.refused {
        let reason = code.name().map_or_else(|| code.0.to_string(), str::to_owned);
        *pushed.rejected.entry(reason).or_default() += edits;
    }
}

/// When something last happened.
struct Since {
    /// Anything came.
    heard: Instant,
    /// A frame came or went.
    frame: Instant,
    quiet: Instant,
    ping: Instant,
}

impl Since {
    fn postpone(&mut self, by: Duration) {
        self.heard += by;
        self.frame += by;
    }
}

/// How many messages are taken while one is sent, and until how many bytes.
const RECEIVED_MAX: usize = 16;
const RECEIVED_BYTES_MAX: usize = 1 << 20;

/// Sends a frame, and returns what came meanwhile.
async fn send<T>(
    sink: &mut SplitSink<WebSocketStream<T>, Message>,
    stream: &mut SplitStream<WebSocketStream<T>>,
    frame: Vec<u8>,
    since: &mut Since,
    takes: bool,
) -> Result<VecDeque<Option<Result<Message, SocketError>>>, SyncError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut received, mut bytes) = (VecDeque::new(), 0);
    let stalled_at = Instant::now() + STALL_MAX;
    let mut sending = std::pin::pin!(sink.send(Message::Binary(frame.into())));
    loop {
        tokio::select! {
            sent = &mut sending => {
                sent.map_err(|error| broken(&error))?;
                return Ok(received);
            }
            message = stream.next(), if takes && received.len() < RECEIVED_MAX && bytes < RECEIVED_BYTES_MAX => {
                since.heard = Instant::now();
                bytes += message.as_ref().and_then(|message| message.as_ref().ok()).map_or(0, Message::len);
                received.push_back(message);
            }
            () = sleep_until(since.heard + SILENCE_MAX) => return Err(SyncError::Silent),
            // Whoever sends and never reads is no better.
            () = sleep_until(stalled_at) => return Err(SyncError::Stalled),
        }
    }
}

/// Closes, and reads on until the other side has closed, too: a socket that is dropped with something unread takes back
/// what was said last.
async fn leave<T>(
    sink: &mut SplitSink<WebSocketStream<T>, Message>,
    stream: &mut SplitStream<WebSocketStream<T>>,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    if sink.close().await.is_ok() {
        while let Some(Ok(_)) = stream.next().await {}
    }
}

async fn changed(gate: &mut Option<Gate>) {
    match gate {
        Some(gate) => gate.changed().await,
        None => std::future::pending().await,
    }
}

async fn fresh(renewal: &mut Option<Renewal>) -> String {
    match renewal {
        Some(renewal) => renewal.fresh().await,
        None => std::future::pending().await,
    }
}

/// Waits until the flag is raised; for ever if nobody can raise it any more.
pub(super) async fn told_to(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|raised| *raised).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The frame in a message; `None` for messages of the socket itself.
fn data(message: Option<Result<Message, SocketError>>) -> Result<Option<Vec<u8>>, SyncError> {
    match message {
        Some(Ok(Message::Binary(bytes))) => Ok(Some(bytes.into())),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Ok(Message::Text(_))) => Err(SyncError::Broken("it sent text, a frame is binary".to_owned())),
        Some(Ok(Message::Close(_))) | None => Err(SyncError::Broken("it was closed".to_owned())),
        Some(Err(error)) => Err(broken(&error)),
    }
}

fn broken(error: &SocketError) -> SyncError {
    SyncError::Broken(error.to_string())
}

/// Waits until a frame that is being sent has to be given up: a while after somebody wants the session no more.
async fn given_up(gate: Option<&Gate>, stop: &watch::Receiver<bool>) -> Ended {
    let mut stop = stop.clone();
    let shut = async {
        match gate {
            Some(gate) => gate.shut().await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        () = shut => Ended::Shut,
        () = told_to(&mut stop) => Ended::Stopped,
    };
    sleep(QUIET).await;
    ended
}

#[cfg(test)]
mod tests;
