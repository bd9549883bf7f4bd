//! Moving the frames of one session over one socket.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::evict::Fetched;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rivus_core::clock::Millis;
use rivus_core::code::Code;
use rivus_core::replica::Replica;
use rivus_core::session::{Answered, LeftOver, Session, SessionError, SessionEvent, Stand};
use rivus_core::store::Store;
use rivus_core::wire::{FRAME_BYTES_MAX, capability};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::client::pending;
use super::fetch::{Ask, Asks};
use super::levers::Gate;
use super::scopes::Change;
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
    /// Once so many bytes have gone both ways.
    pub(crate) bytes: Option<u64>,
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
    /// The edits of each push without answer.
    under_way: VecDeque<Vec<u64>>,
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
            under_way: VecDeque::new(),
        }
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

    /// Runs the session until it ends in order or breaks, and says what it did either way.
    pub(crate) async fn run<T>(
        mut self,
        socket: WebSocketStream<T>,
        mut wakes: Wakes,
    ) -> (SyncReport, Result<(), SyncError>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let result = self.pump(socket, &mut wakes).await;
        if let Some(ask) = self.asked.take() {
            wakes.asks.put_back(ask);
        }
        if self.gate.is_some()
            && let Ok(Ok(LeftOver { blocked, deferred })) =
                self.blocking(Length::Unknown, |session, replica, _| session.left_over(replica)).await
        {
            self.report.pushed.close(blocked, deferred);
        }
        (self.report, result)
    }

    async fn pump<T>(&mut self, socket: WebSocketStream<T>, wakes: &mut Wakes) -> Result<(), SyncError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (mut sink, mut stream) = socket.split();
        let started = Instant::now();
        let mut since = Since { heard: started, frame: started, quiet: started, ping: started };
        let mut failed: Option<SyncError> = None;
        loop {
            self.ask(&wakes.asks);
            self.obey();
            self.follow(&wakes.asks).await?;
            // Out with everything that the session has. What comes in meanwhile is taken, or both ends could wait
            // for each other with full buffers.
            while let Some(frame) = self.transmit(&mut failed).await? {
                let frame = packing::pack(frame, self.zstd);
                self.report.bytes_sent += frame.len() as u64;
                since.frame = Instant::now();
                since.quiet = since.frame;
                let received = send(&mut sink, &mut stream, frame, &mut since, failed.is_none()).await?;
                for message in received {
                    if let Some(frame) = data(message)? {
                        self.take(frame, &mut failed).await?;
                    }
                }
            }
            if let Some(error) = failed {
                let _ = timeout(QUIET, leave(&mut sink, &mut stream)).await;
                return end(error);
            }
            if self.session.as_ref().is_none_or(|session| session.is_closed()) {
                let _ = timeout(QUIET, sink.close()).await;
                return Ok(());
            }
            let quiet_at = since.quiet + QUIET;
            let silent_at =
                if self.synced.opened { since.heard + SILENCE_MAX } else { started + HANDSHAKE_MAX };
            let awaits = self.synced.stand.is_some_and(|stand| stand.awaits);
            let stalled_at = if awaits { since.frame + STALL_MAX } else { quiet_at };
            let due = self.gate.as_ref().and_then(Gate::due).unwrap_or(quiet_at);
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
                        self.stop();
                    }
                }
                () = wakes.asks.notify.notified() => {}
                () = changed(&mut self.gate) => {}
                () = told_to(&mut wakes.stop) => self.stop(),
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

    /// Does what the application has set, and ends the session where it has gone as far as it may.
    fn obey(&mut self) {
        let Some(gate) = &mut self.gate else { return };
        let (holds, batch, shut) = (gate.holds(), gate.batch_edits(), gate.is_shut());
        if let Some(session) = &mut self.session {
            session.hold_pushes(holds);
            session.set_push_edits_max(batch);
        }
        let bytes = self.report.bytes_sent + self.report.bytes_received;
        let pulled = &self.report.pulled;
        let reached = |most: Option<u64>, now: u64| most.is_some_and(|most| now >= most);
        let full = self.bounds.registers.is_some_and(|most| pulled.received >= most)
            || reached(self.bounds.until, pulled.position);
        if shut || pulled.more && full || reached(self.bounds.bytes, bytes) {
            self.stop();
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
        while let Some(Change { scope, kept }) = asks.next_change() {
            let done = self.blocking(Length::Unknown, move |session, replica, _| match kept {
                None => session.subscribe(&scope).map_err(SyncError::from),
                Some(kept) => session
                    .unsubscribe(replica, &scope, kept)
                    .map_err(|error| SessionError::from(error).into()),
            });
            done.await??;
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

    fn stop(&mut self) {
        self.end(Code::CLOSED, "this side stops");
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
        let released = self.blocking(Length::Unknown, |_, replica, now| replica.release(now)).await?;
        released.map(|_| ()).map_err(|error| SessionError::from(error).into())
    }

    /// The next frame. An error ends the session, but what it has left to say is still sent.
    async fn transmit(&mut self, failed: &mut Option<SyncError>) -> Result<Option<Vec<u8>>, SyncError> {
        let waits = self.gate.as_ref().and_then(Gate::unseen);
        let poll = move |session: &mut Session, replica: &mut Replica<H::Store>, now| {
            // An edit that was committed since the last look is told of before the replica is free.
            if waits.is_some_and(|edits| edits.has_changed().unwrap_or(false)) {
                session.hold_pushes(true);
            }
            session.poll_transmit(replica, now)
        };
        match self.blocking(self.length, poll).await? {
            Ok(frame) => {
                let long = frame.as_ref().is_some_and(|frame| frame.len() > MOMENT_BYTES_MAX);
                self.length = if long { Length::Unknown } else { Length::Moment };
                Ok(frame)
            }
            Err(error) => {
                failed.get_or_insert(error.into());
                Ok(None)
            }
        }
    }

    async fn take(&mut self, bytes: Vec<u8>, failed: &mut Option<SyncError>) -> Result<(), SyncError> {
        self.report.bytes_received += bytes.len() as u64;
        // What is committed to a file waits for the disk.
        let length = if bytes.len() > MOMENT_BYTES_MAX || self.host.is_slow() {
            Length::Unknown
        } else {
            Length::Moment
        };
        let taken = self
            .blocking(length, move |session, replica, now| {
                let frame = packing::unpack(bytes)?;
                session.handle(replica, &frame, now).map_err(SyncError::from)
            })
            .await?;
        if let Err(error) = taken {
            failed.get_or_insert(error);
        }
        Ok(())
    }

    /// Lends session and replica to a blocking thread.
    async fn blocking<R: Send + 'static>(
        &mut self,
        length: Length,
        act: impl FnOnce(&mut Session, &mut Replica<H::Store>, Millis) -> R + Send + 'static,
    ) -> Result<R, SyncError> {
        let Some(mut session) = self.session.take() else {
            return Err(SyncError::Broken("the session was lost in a panic".to_owned()));
        };
        let (host, tells) = (Arc::clone(&self.host), self.tells);
        // Reading the head takes as long as a short frame.
        let lags = self.watch.is_some() && length == Length::Unknown;
        let span = tracing::Span::current();
        let work = move || {
            let _entered = span.enter();
            let done = host.with(|replica, now| {
                let done = act(&mut session, replica, now);
                let head = (tells || lags).then(|| replica.head().ok().map(|head| head.seq)).flatten();
                let lag = head.filter(|_| lags).and_then(|head| session.lag(head));
                if !tells {
                    return (done, None, (0, None), lag);
                }
                // An edit that came in since the last frame is pending, though the session has not met it yet.
                let pending = pending(replica).unwrap_or((usize::MAX, None));
                // What waits for somebody to decide about a refused edit does not hold up whoever waits for a sync.
                let is_left = || session.left_over(replica).map_or(true, |left| left.deferred > 0);
                let is_synced = |seq: &u64| session.is_synced(*seq) && (pending.0 == 0 || !is_left());
                (done, head.filter(is_synced), pending, lag)
            });
            (done, session)
        };
        let (done, mut session) = if length == Length::Moment && self.host.is_free() {
            work()
        } else {
            tokio::task::spawn_blocking(work).await.map_err(|error| SyncError::Broken(error.to_string()))?
        };
        let mut synced = self.synced;
        for event in session.poll_events() {
            synced.opened |= matches!(event, SessionEvent::Opened { .. });
            if let Some(watch) = &mut self.watch {
                watch(Sight::Event(&event));
            }
            self.answer(&event);
            match &event {
                SessionEvent::Pushed { edits } => {
                    self.host.note_sent(edits);
                    self.under_way.push_back(edits.clone());
                }
                SessionEvent::Answered(_) => {
                    self.host.note_answered(&self.under_way.pop_front().unwrap_or_default());
                }
                _ => {}
            }
            note(&mut self.report, &mut self.zstd, &event);
        }
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
    let mut received = VecDeque::new();
    let stalled_at = Instant::now() + STALL_MAX;
    let mut sending = std::pin::pin!(sink.send(Message::Binary(frame.into())));
    loop {
        tokio::select! {
            sent = &mut sending => {
                sent.map_err(|error| broken(&error))?;
                return Ok(received);
            }
            message = stream.next(), if received.len() < 16 && takes => {
                since.heard = Instant::now();
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

/// An orderly end of the other side is no error.
fn end(error: SyncError) -> Result<(), SyncError> {
    match error {
        SyncError::Session(SessionError::Goaway { code: Code::CLOSED, .. }) => Ok(()),
        other => Err(other),
    }
}

#[cfg(test)]
mod tests;
