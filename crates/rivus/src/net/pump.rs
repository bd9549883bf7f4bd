//! Moving the frames of one session over one socket.

mod count;
mod lend;
mod socket;
mod wishes;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rivus_core::clock::Millis;
use rivus_core::code::Code;
use rivus_core::replica::Replica;
use rivus_core::session::{Doing, LeftOver, Session, SessionError, SessionEvent, Stand};
use rivus_core::store::Store;
use rivus_core::wire::tag;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use self::count::note;
use self::lend::{Length, MOMENT_BYTES_MAX, SHORT_BYTES_MAX, Work};
use self::socket::{Since, broken, data, leave, send};
pub(crate) use self::socket::{TooEarly, socket_config};
pub(crate) use self::wishes::told_to;
use self::wishes::{changed, fresh, given_up};
use super::closing::{Side, last_word};
use super::fetch::{Ask, Asks};
use super::levers::Gate;
use super::narrow::Narrows;
use super::renewal::Renewal;
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

/// How the exchange of frames has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Over {
    /// The other side knows.
    Told(Ended),
    /// The other side takes nothing, and is left without a word.
    Mute(Ended),
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
    /// Scopes that were denied, and when they are asked for again.
    denied: VecDeque<(Instant, String)>,
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
    /// How long the greeting may take.
    handshake_max: Duration,
    /// What bounds the socket until the other side has said who it is.
    narrows: Option<Narrows>,
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
            denied: VecDeque::new(),
            asked: None,
            listen: Box::new(listen),
            tells: true,
            watch: None,
            bounds: Bounds::default(),
            gate: None,
            renewal: None,
            ended: Ended::Done,
            under_way: VecDeque::new(),
            handshake_max: HANDSHAKE_MAX,
            narrows: None,
            turn: None,
            waited: Duration::ZERO,
            kept: Duration::ZERO,
        }
    }

    /// Waits for its turns among those of a hub's connections.
    pub(crate) fn taking_turns(self, turn: Turn) -> Self {
        Self { turn: Some(turn), ..self }
    }

    /// Waits so long for the greeting of the other side.
    pub(super) fn greeted_within(self, handshake_max: Duration) -> Self {
        Self { handshake_max, ..self }
    }

    /// Lifts the bound of the socket once the other side has said who it is.
    pub(super) fn narrowed(self, narrows: Narrows) -> Self {
        Self { narrows: Some(narrows), ..self }
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
        let ended = match self.exchange(&mut sink, &mut stream, wakes).await {
            Ok(Over::Mute(ended)) => return Ok(ended),
            Ok(Over::Told(ended)) => Ok(ended),
            Err(error) => Err(error),
        };
        if let Some(narrows) = &self.narrows {
            // What is let pass now is kept nowhere.
            narrows.lift();
        }
        let side = if self.turn.is_some() { Side::Hub } else { Side::Device };
        let last = last_word(ended.as_ref().copied(), side);
        if ended.is_ok() && self.gate.is_some() {
            // Whoever waits for this side has what it came for.
            let _ = timeout(QUIET, sink.send(Message::Close(Some(last)))).await;
        } else {
            let _ = timeout(QUIET, leave(sink, stream, last)).await;
        }
        ended.or_else(|error| self.end_of(error))
    }

    async fn exchange<T>(
        &mut self,
        sink: &mut SplitSink<WebSocketStream<T>, Message>,
        stream: &mut SplitStream<WebSocketStream<T>>,
        wakes: &mut Wakes,
    ) -> Result<Over, SyncError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let started = Instant::now();
        let mut since = Since { heard: started, frame: started, quiet: started, ping: started };
        let mut failed: Option<SyncError> = None;
        loop {
            self.ask_again(&wakes.asks);
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
                let is_last = self.session.as_ref().is_some_and(|session| session.has_told_all());
                let sending = send(sink, stream, frame, &mut since, takes);
                let received = tokio::select! {
                    received = sending => received?,
                    // The other side takes nothing, perhaps for long: it is left without a word.
                    ended = given_up(self.gate.as_ref(), &wakes.stop) => return Ok(Over::Mute(ended)),
                };
                let is_last = is_last && received.is_empty();
                for message in received {
                    // After a goodbye comes nothing but the end.
                    if failed.is_some() {
                        break;
                    }
                    if let Some(frame) = data(message)? {
                        self.take(frame, &mut failed).await?;
                    }
                }
                // Whatever was committed since then wakes this side once more.
                if is_last {
                    break;
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
            if self.session.as_ref().is_none_or(|session| session.is_closed()) {
                return Ok(Over::Told(self.ended));
            }
            // The other side may have spoken long ago: this one did not listen.
            since.postpone(std::mem::take(&mut self.waited));
            let quiet_at = since.quiet + QUIET;
            let silent_at =
                if self.synced.opened { since.heard + SILENCE_MAX } else { started + self.handshake_max };
            let awaits = self.synced.stand.is_some_and(|stand| stand.awaits);
            let stalled_at = if awaits { since.frame + STALL_MAX } else { quiet_at };
            let due = self.gate.as_ref().and_then(Gate::due).unwrap_or(quiet_at);
            if let (Some(renewal), Some(session)) = (&mut self.renewal, &self.session) {
                renewal.plan(session.grant_ends());
            }
            let due = self.denied.front().map_or(due, |(at, _)| due.min(*at));
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
        if let (Some(narrows), Some(session)) = (&self.narrows, &self.session)
            && session.has_greeted()
        {
            narrows.lift();
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
            if let SessionEvent::Denied { scope } = &event {
                self.denied.push_back((Instant::now() + DENIED_PAUSE, scope.clone()));
            }
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
}

/// Rights may be given back at any time: a scope that was denied is asked for again after so long.
const DENIED_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
