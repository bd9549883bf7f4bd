//! Moving the frames of one session over one socket.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::evict::Fetched;
use futures_util::{SinkExt, StreamExt};
use rivus_core::clock::Millis;
use rivus_core::code::Code;
use rivus_core::replica::Replica;
use rivus_core::session::{Session, SessionError, SessionEvent};
use rivus_core::store::Store;
use rivus_core::wire::{FRAME_BYTES_MAX, capability};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::fetch::{Ask, Asks};
use super::scopes::Change;
use super::{HANDSHAKE_MAX, PING, QUIET, SILENCE_MAX, SyncError, SyncReport, packing};

/// Who has the replica that a session works on.
pub(crate) trait Host: Send + Sync + 'static {
    /// Its store.
    type Store: Store;

    /// Does something with the replica while nobody else does. `Err` if this thread has it already.
    fn with<R>(&self, act: impl FnOnce(&mut Replica<Self::Store>, Millis) -> R) -> Result<R, SyncError>;
}

/// The bounds that the socket keeps before a frame gets here.
pub(crate) fn socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(FRAME_BYTES_MAX + 16))
        .max_frame_size(Some(FRAME_BYTES_MAX + 16))
}

/// One session and what it has done.
pub(crate) struct Pump<H: Host> {
    host: Arc<H>,
    session: Option<Box<Session>>,
    report: SyncReport,
    zstd: bool,
    synced: Synced,
    /// What the session is fetching.
    asked: Option<Ask>,
    /// Called whenever that changes.
    listen: Box<dyn FnMut(Synced) + Send>,
}

/// How far a session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Synced {
    /// The handshake is done.
    pub(crate) opened: bool,
    /// The own store's head up to which each side has everything of the other.
    pub(crate) up_to: Option<u64>,
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
            synced: Synced::default(),
            asked: None,
            listen: Box::new(listen),
        }
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
        (self.report, result)
    }

    async fn pump<T>(&mut self, socket: WebSocketStream<T>, wakes: &mut Wakes) -> Result<(), SyncError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (mut sink, mut stream) = socket.split();
        let started = Instant::now();
        let (mut heard, mut pinged, mut quiet_since) = (started, started, started);
        let mut failed: Option<SyncError> = None;
        loop {
            self.ask(&wakes.asks);
            self.follow(&wakes.asks).await?;
            // Out with everything that the session has. What comes in meanwhile is taken, or both ends could wait
            // for each other with full buffers.
            while let Some(frame) = self.transmit(&mut failed).await? {
                let frame = packing::pack(frame, self.zstd);
                self.report.bytes_sent += frame.len() as u64;
                let mut received = VecDeque::new();
                quiet_since = Instant::now();
                {
                    let mut sending = std::pin::pin!(sink.send(Message::Binary(frame.into())));
                    loop {
                        tokio::select! {
                            sent = &mut sending => {
                                sent.map_err(|error| broken(&error))?;
                                break;
                            }
                            message = stream.next(), if received.len() < 16 && failed.is_none() => {
                                heard = Instant::now();
                                received.push_back(message);
                            }
                            () = sleep_until(heard + SILENCE_MAX) => return Err(SyncError::Silent),
                        }
                    }
                }
                for message in received {
                    if let Some(frame) = data(message)? {
                        self.take(frame, &mut failed).await?;
                    }
                }
            }
            if let Some(error) = failed {
                let _ = timeout(QUIET, sink.close()).await;
                return end(error);
            }
            if self.session.as_ref().is_none_or(|session| session.is_closed()) {
                let _ = timeout(QUIET, sink.close()).await;
                return Ok(());
            }
            let quiet_at = quiet_since + QUIET;
            let silent_at = if self.synced.opened { heard + SILENCE_MAX } else { started + HANDSHAKE_MAX };
            tokio::select! {
                message = stream.next() => {
                    heard = Instant::now();
                    quiet_since = heard;
                    if let Some(frame) = data(message)? {
                        self.take(frame, &mut failed).await?;
                    }
                }
                changed = wakes.changes.changed() => {
                    if changed.is_err() {
                        self.stop();
                    }
                }
                () = wakes.asks.notify.notified() => {}
                () = told_to(&mut wakes.stop) => self.stop(),
                () = sleep_until(quiet_at.min(silent_at)) => {
                    if Instant::now() >= silent_at {
                        return Err(SyncError::Silent);
                    }
                    quiet_since = Instant::now();
                    self.quiet();
                    if pinged.elapsed() >= PING {
                        pinged = Instant::now();
                        sink.send(Message::Ping(Vec::new().into())).await.map_err(|error| broken(&error))?;
                    }
                    self.release().await?;
                }
            }
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
            let done = self.blocking(move |session, replica, _| match kept {
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
        if let Some(session) = &mut self.session {
            session.end(Code::CLOSED, "this side stops");
        }
    }

    fn quiet(&mut self) {
        if let Some(session) = &mut self.session {
            session.handle_quiet();
        }
    }

    /// Joins registers that were set aside and are due.
    async fn release(&mut self) -> Result<(), SyncError> {
        let released = self.blocking(|_, replica, now| replica.release(now)).await?;
        released.map(|_| ()).map_err(|error| SessionError::from(error).into())
    }

    /// The next frame. An error ends the session, but what it has left to say is still sent.
    async fn transmit(&mut self, failed: &mut Option<SyncError>) -> Result<Option<Vec<u8>>, SyncError> {
        match self.blocking(|session, replica, now| session.poll_transmit(replica, now)).await? {
            Ok(frame) => Ok(frame),
            Err(error) => {
                failed.get_or_insert(error.into());
                Ok(None)
            }
        }
    }

    async fn take(&mut self, bytes: Vec<u8>, failed: &mut Option<SyncError>) -> Result<(), SyncError> {
        self.report.bytes_received += bytes.len() as u64;
        let taken = self
            .blocking(move |session, replica, now| {
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
        act: impl FnOnce(&mut Session, &mut Replica<H::Store>, Millis) -> R + Send + 'static,
    ) -> Result<R, SyncError> {
        let Some(mut session) = self.session.take() else {
            return Err(SyncError::Broken("the session was lost in a panic".to_owned()));
        };
        let host = Arc::clone(&self.host);
        let lent = tokio::task::spawn_blocking(move || {
            let done = host.with(|replica, now| {
                let done = act(&mut session, replica, now);
                // An edit that came in since the last frame is pending, though the session has not met it yet.
                let is_synced = |seq: &u64| session.is_synced(*seq) && replica.pending_count() == Ok(0);
                let up_to = replica.head().ok().map(|head| head.seq).filter(is_synced);
                (done, up_to)
            });
            (done, session)
        });
        let (done, mut session) = lent.await.map_err(|error| SyncError::Broken(error.to_string()))?;
        let mut synced = self.synced;
        for event in session.poll_events() {
            synced.opened |= matches!(event, SessionEvent::Opened { .. });
            self.answer(&event);
            note(&mut self.report, &mut self.zstd, &event);
        }
        self.session = Some(session);
        let (done, up_to) = done?;
        synced.up_to = up_to;
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
        SessionEvent::Joined { registers, quarantined } => {
            report.received += registers;
            report.quarantined += quarantined;
        }
        SessionEvent::Judged { accepted, excepted } => {
            report.accepted += accepted;
            report.excepted += excepted;
        }
        SessionEvent::Denied { scope } => report.denied.push(scope.clone()),
        SessionEvent::Diverged { .. } => report.diverged = true,
        SessionEvent::Verified { .. } => report.verified = true,
        _ => {}
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
