//! Accepting connections, each in a task of its own, until the hub stops.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rivus_core::session::{Gate, Role, Session, SessionError, SessionEvent, SessionOptions, Want};
use rivus_core::wire::capability;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::Instrument;
use tracing::field::Empty;

use super::door::{Door, Refusal};
use super::guests::{Guests, Place, network};
use super::metrics::{Metrics, OTHER, Watcher};
use super::options::HubOptions;
use crate::Db;
use crate::machine::seeds;
use crate::net::files::Reread;
use crate::net::pump::{Pump, Sight, Wakes, told_to};
use crate::net::turns::{Turn, Turns};
use crate::net::{QUIET, SyncError};

/// What may change beside the hub while it runs.
#[derive(Debug)]
pub(super) struct Sources {
    #[cfg(feature = "tls")]
    certificate: Option<Arc<crate::net::tls::Certificate>>,
    #[cfg(feature = "jwt")]
    jwt: Option<Arc<crate::net::Jwt>>,
    #[cfg(any(feature = "jwt", feature = "tls"))]
    metrics: Arc<Metrics>,
}

impl Sources {
    pub(super) fn new(options: &HubOptions, metrics: &Arc<Metrics>) -> Self {
        #[cfg(not(any(feature = "jwt", feature = "tls")))]
        let _ = (options, metrics);
        Self {
            #[cfg(feature = "tls")]
            certificate: options.certificate.clone(),
            #[cfg(feature = "jwt")]
            jwt: options.jwt.clone(),
            #[cfg(any(feature = "jwt", feature = "tls"))]
            metrics: Arc::clone(metrics),
        }
    }

    /// Reads again what is to be. What cannot be read of one keeps nothing of another from being read.
    ///
    /// # Errors
    /// The first failure; the others are logged.
    pub(super) fn reload(&self, reread: Reread) -> Result<(), SyncError> {
        #[cfg(not(any(feature = "jwt", feature = "tls")))]
        let _ = reread;
        let reloaded: [Result<(), SyncError>; 2] = [
            #[cfg(feature = "tls")]
            self.certificate.as_ref().map_or(Ok(()), |certificate| {
                self.note(certificate.reload(reread), "the certificate was read again")
            }),
            #[cfg(not(feature = "tls"))]
            Ok(()),
            #[cfg(feature = "jwt")]
            self.jwt
                .as_ref()
                .map_or(Ok(()), |jwt| self.note(jwt.reload(reread), "the keys of tokens were read again")),
            #[cfg(not(feature = "jwt"))]
            Ok(()),
        ];
        reloaded.into_iter().collect()
    }

    #[cfg(any(feature = "jwt", feature = "tls"))]
    fn note(&self, reloaded: Result<bool, SyncError>, done: &str) -> Result<(), SyncError> {
        match reloaded {
            Ok(true) => tracing::info!("{done}"),
            Ok(false) => {}
            Err(error) => {
                self.metrics.reloads_failed.add(1);
                tracing::error!(%error, "not read again, the former one is used");
                return Err(error);
            }
        }
        Ok(())
    }
}

/// A hub that listens.
pub(super) struct Listen {
    db: Db,
    gate: Arc<Gate>,
    drain_max: Duration,
    door: Arc<Door>,
    metrics: Arc<Metrics>,
    sources: Arc<Sources>,
    guests: Arc<Guests>,
    turns: Arc<Turns>,
    free: Arc<Semaphore>,
    /// Those who tell others why they are turned away. Beyond them nobody is told.
    doormen: Arc<Semaphore>,
    connections: JoinSet<()>,
}

impl Listen {
    pub(super) fn new(
        db: Db,
        options: &HubOptions,
        metrics: Arc<Metrics>,
        sources: Arc<Sources>,
    ) -> Result<Self, SyncError> {
        #[cfg(feature = "tls")]
        let tls = options.certificate.as_ref().map(|certificate| certificate.acceptor()).transpose()?;
        let door = Door {
            #[cfg(feature = "tls")]
            tls,
            metrics: Arc::clone(&metrics),
            origins: options.origins.clone().into(),
            handshake_max: options.handshake_max,
        };
        Ok(Self {
            door: Arc::new(door),
            guests: Guests::new(options.bounds),
            turns: Turns::new(),
            free: Arc::new(Semaphore::new(options.connections_max)),
            doormen: Arc::new(Semaphore::new(DOORMEN)),
            connections: JoinSet::new(),
            gate: Arc::new(options.gate()),
            drain_max: options.drain_max,
            db,
            metrics,
            sources,
        })
    }

    /// Serves until told to stop, and then until all have gone or the time for it is over.
    pub(super) async fn run(mut self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let _listening = self.db.shared.listen();
        let mut reload = tokio::time::interval(RELOAD);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((socket, from)) => self.receive(socket, from, &stop),
                    Err(error) => {
                        // Out of file descriptors, mostly: others go on, and a pause lets some end.
                        tracing::warn!(%error, "cannot accept");
                        let _ = timeout(QUIET, told_to(&mut stop)).await;
                    }
                },
                Some(_) = self.connections.join_next(), if !self.connections.is_empty() => {}
                _ = reload.tick() => {
                    let sources = Arc::clone(&self.sources);
                    tokio::task::spawn_blocking(move || sources.reload(Reread::Changed));
                }
                () = told_to(&mut stop) => break,
            }
        }
        drop(listener);
        let all_gone = async { while self.connections.join_next().await.is_some() {} };
        if timeout(self.drain_max, all_gone).await.is_err() {
            tracing::warn!(
                left = self.connections.len(),
                "connections are cut off: they did not end in time"
            );
            self.connections.shutdown().await;
        }
    }

    /// Takes a new connection in, or turns it away.
    fn receive(&mut self, socket: TcpStream, from: SocketAddr, stop: &watch::Receiver<bool>) {
        match self.place(from) {
            Ok(place) => {
                let span = tracing::info_span!("connection", %from, subject = Empty, store = Empty);
                let one = One {
                    db: self.db.clone(),
                    door: Arc::clone(&self.door),
                    gate: Arc::clone(&self.gate),
                    metrics: Arc::clone(&self.metrics),
                    turn: self.turns.join(),
                    network: network(from.ip()),
                    place,
                };
                self.connections.spawn(one.run(socket, stop.clone()).instrument(span));
            }
            Err(refusal) => {
                tracing::warn!(%from, ?refusal, "turned away");
                if let Some(code) = refusal.code() {
                    self.metrics.turned_away.one(code);
                }
                if let Ok(doorman) = Arc::clone(&self.doormen).try_acquire_owned() {
                    let door = Arc::clone(&self.door);
                    tokio::spawn(async move {
                        door.refuse(socket, refusal).await;
                        drop(doorman);
                    });
                }
            }
        }
    }

    fn place(&self, from: SocketAddr) -> Result<(Place, OwnedSemaphorePermit), Refusal> {
        let place = self.guests.admit(from.ip(), Instant::now())?;
        match Arc::clone(&self.free).try_acquire_owned() {
            Ok(free) => Ok((place, free)),
            Err(_) => Err(Refusal::Busy),
        }
    }
}

/// One connection.
struct One {
    db: Db,
    door: Arc<Door>,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    turn: Turn,
    /// Where it comes from.
    network: IpAddr,
    /// Given back when the connection has ended.
    place: (Place, OwnedSemaphorePermit),
}

impl One {
    async fn run(self, socket: TcpStream, stop: watch::Receiver<bool>) {
        let socket = match self.door.enter(socket).await {
            Ok(socket) => socket,
            Err(failed) => {
                tracing::info!(%failed, "no connection");
                if let Some(reason) = failed.reason() {
                    self.metrics.handshakes_failed.one(reason);
                }
                return;
            }
        };
        self.metrics.connections.add(1);
        let narrows = socket.get_ref().narrows();
        let mut session = Session::new(SessionOptions {
            role: Role::Server { gate: self.gate },
            want: Want::Live,
            offers: true,
            seeds: seeds(),
            capabilities: capability::ZSTD,
        });
        session.comes_from(&self.network.to_string());
        let wakes = Wakes { changes: self.db.shared.changes.subscribe(), stop, asks: Arc::default() };
        let watcher = Watcher::new(&self.metrics);
        let pump = Pump::new(Arc::clone(&self.db.shared), session, |_| {}).unheard();
        let span = tracing::Span::current();
        let watch = move |sight: Sight<'_>| {
            match &sight {
                Sight::Event(SessionEvent::Admitted { subject }) => {
                    span.record("subject", tracing::field::display(subject));
                }
                Sight::Event(SessionEvent::Opened { peer, .. }) => {
                    span.record("store", tracing::field::display(peer));
                }
                _ => {}
            }
            watcher.watch(sight);
        };
        let (report, result) = pump
            .taking_turns(self.turn)
            .greeted_within(self.door.handshake_max)
            .narrowed(narrows)
            .watch(watch)
            .run(socket, wakes)
            .await;
        match result {
            Ok(_) => {
                tracing::info!(
                    received = report.pulled.received,
                    sent = report.bytes_sent,
                    "connection ended"
                )
            }
            Err(error) => {
                self.metrics.end(&error);
                tracing::info!(%error, "connection ended");
            }
        }
        drop(self.place);
    }
}

impl Metrics {
    /// Counts a session that ended with an error.
    fn end(&self, error: &SyncError) {
        let code = match error {
            // What others tell may be any number, and the labels are few.
            SyncError::Session(SessionError::Goaway { code, .. }) if code.name().is_none() => Some(OTHER),
            // One that goes out of reach has none, and is nothing that has to be looked into.
            error => error.code(),
        };
        if let Some(code) = code {
            self.ended.one(code);
        }
    }
}

/// How many may be told at a time why they are turned away.
const DOORMEN: usize = 64;
/// How often is looked whether certificates and keys have changed.
const RELOAD: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::super::metrics::Readings;
    use rivus_core::code::Code;

    use super::*;

    #[test]
    fn codes_that_others_make_up_share_one_label() {
        let metrics = Metrics::default();
        let told = |code| SessionError::Goaway { code, message: String::new(), retry_after_ms: None };
        (10_000..10_100).for_each(|code| metrics.end(&told(Code(code)).into()));
        metrics.end(&told(Code::STALLED).into());
        // The application's own are told apart.
        let own = SessionError::Refused { code: Code(20_000), message: String::new() };
        metrics.end(&own.into());
        let text = metrics.text(Readings::default());
        let lines: Vec<_> =
            text.lines().filter_map(|line| line.strip_prefix("rivus_sessions_ended_total{")).collect();
        assert_eq!(
            lines,
            [
                "code=\"504\",name=\"STALLED\"} 1",
                "code=\"20000\",name=\"\"} 1",
                "code=\"other\",name=\"\"} 100",
            ]
        );
    }
}
