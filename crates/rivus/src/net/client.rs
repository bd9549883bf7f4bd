//! Connecting to another store: once, or for as long as the application likes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use rivus_core::session::{Role, Session, SessionError, SessionOptions, Want};
use rivus_core::wire::capability;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::fetch::Asks;
use super::pump::{Pump, Synced, Wakes, socket_config, told_to};
use super::{HANDSHAKE_MAX, SyncError, SyncReport};
use crate::machine::seeds;
use crate::shared::Shared;
use crate::{Db, Error};

/// How often a sync starts over because the store was found to be a copy, or has a new writer.
const STARTS_MAX: usize = 8;

/// Where another store is, and what grants access to it.
///
/// ```
/// use rivus::Remote;
/// let remote = Remote::new("ws://127.0.0.1:7171").token("secret");
/// assert_eq!(remote.url(), "ws://127.0.0.1:7171");
/// ```
#[derive(Clone)]
pub struct Remote {
    url: String,
    token: Option<String>,
    scopes: Option<BTreeSet<String>>,
}

impl Remote {
    /// The store at `url`, for example `ws://example.org:7171`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), token: None, scopes: None }
    }

    /// Shows this token to the other side. It goes in the first frame, never in the address.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Follows these scopes, at most 64, and not everything; the scope without a name is empty. Only a hub that judges
    /// edits has scopes.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// let schema = || Schema::builder().kind("note", |k| k.value("list").scope("list").value("text")).build();
    /// let (phone, hub) = (Db::memory(schema()?)?, Db::memory(schema()?)?);
    /// let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// hub.put("note", "n1", [("list", "home".into()), ("text", "milk".into())])?;
    /// hub.put("note", "n2", [("list", "work".into()), ("text", "stamps".into())])?;
    /// phone.sync(&rivus::Remote::new(served.url()).scopes(["home"])).await?;
    /// assert!(phone.view("note", "n1")?.is_some());
    /// assert!(phone.view("note", "n2")?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn scopes<T: Into<String>>(mut self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.scopes = Some(scopes.into_iter().map(Into::into).collect());
        self
    }

    /// The address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn scopes_wanted(&self) -> Option<BTreeSet<String>> {
        self.scopes.clone()
    }

    fn session(&self, want: Want, scopes: Option<BTreeSet<String>>) -> Result<Session, SyncError> {
        let mut session = Session::new(SessionOptions {
            role: Role::Client { token: self.token.clone() },
            want,
            offers: true,
            seeds: seeds(),
            capabilities: capability::ZSTD,
        });
        if let Some(scopes) = scopes {
            session.follow_scopes(scopes)?;
        }
        Ok(session)
    }

    async fn dial(&self) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, SyncError> {
        let unreachable = |reason: String| SyncError::Unreachable { url: self.url.clone(), reason };
        if !self.url.starts_with("ws://") {
            return Err(SyncError::BadAddress { url: self.url.clone() });
        }
        let dialled =
            timeout(HANDSHAKE_MAX, connect_async_with_config(&self.url, Some(socket_config()), true));
        match dialled.await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(SocketError::Url(_))) => Err(SyncError::BadAddress { url: self.url.clone() }),
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable("no answer".to_owned())),
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret.
        f.debug_struct("Remote").field("url", &self.url).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

impl From<String> for Remote {
    fn from(url: String) -> Self {
        Self::new(url)
    }
}

impl From<&str> for Remote {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}

/// How a live connection is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Dialling, or shaking hands.
    Connecting,
    /// Connected.
    Live {
        /// The head of this store up to which each side has everything of the other; `None` while they exchange.
        synced: Option<u64>,
    },
    /// The last try failed; the next one is under way soon.
    Waiting {
        /// Why it failed.
        error: SyncError,
    },
    /// Given up: trying again would not help before somebody changes something. Or dropped by the application.
    Stopped {
        /// Why, unless the application dropped it.
        error: Option<SyncError>,
    },
}

/// A live connection: syncs as changes come, and redials by itself. Dropping it ends it.
#[derive(Debug)]
#[must_use = "the connection ends when this is dropped"]
pub struct Connection {
    db: Db,
    state: watch::Receiver<ConnectionState>,
    stop: watch::Sender<bool>,
    asks: Arc<Asks>,
    task: JoinHandle<()>,
}

impl Connection {
    /// The state now.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        self.state.borrow().clone()
    }

    /// Hears of every change of the state.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<ConnectionState> {
        self.state.clone()
    }

    /// Waits until each side has everything that the other had when this was called.
    ///
    /// # Errors
    /// [`Error::Sync`] if the connection was given up, [`Error::Store`] if the store cannot be read.
    pub async fn synced(&self) -> Result<(), Error> {
        let head = self.db.head_seq().await?;
        let mut states = self.state.clone();
        let reached = states.wait_for(|state| match state {
            ConnectionState::Live { synced } => synced.is_some_and(|up_to| up_to >= head),
            ConnectionState::Stopped { .. } => true,
            _ => false,
        });
        match reached.await.map(|state| state.clone()) {
            Ok(ConnectionState::Live { .. }) => Ok(()),
            Ok(ConnectionState::Stopped { error: Some(error) }) => Err(error.into()),
            _ => Err(SyncError::Broken("the connection was closed".to_owned()).into()),
        }
    }

    pub(super) fn asks(&self) -> &Asks {
        &self.asks
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    /// Ends the connection in order and waits until it has ended.
    pub async fn close(mut self) {
        self.stop.send_replace(true);
        let _ = (&mut self.task).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Db {
    /// Syncs with another store once: sends what it lacks, fetches what is lacking here.
    ///
    /// Safe to call at any time and from anywhere, also at once: what was interrupted is taken up again.
    ///
    /// # Errors
    /// [`Error::Sync`]. What was exchanged before is kept.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
    /// let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// phone.put("task", "t1", [("title", "write".into())])?;
    /// let report = phone.sync(&served.url().into()).await?;
    /// assert!(report.is_authority);
    /// assert!(hub.view("task", "t1")?.is_some());
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn sync(&self, remote: &Remote) -> Result<SyncReport, Error> {
        let (_running, stop) = stop_never();
        self.sync_with(remote, &Arc::new(Asks::following(remote.scopes.clone())), stop).await
    }

    pub(super) async fn sync_with(
        &self,
        remote: &Remote,
        asks: &Arc<Asks>,
        stop: watch::Receiver<bool>,
    ) -> Result<SyncReport, Error> {
        for _ in 0..STARTS_MAX {
            let session = self.session_with(remote, Want::Once, |_| {}, asks, stop.clone());
            let (report, result) = session.await;
            match result {
                Err(SyncError::Session(SessionError::Copied | SessionError::NewWriter)) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(report),
            }
        }
        Err(SyncError::Session(SessionError::Copied).into())
    }

    /// Connects to another store and stays connected: changes go both ways as they come. Redials by itself, after
    /// growing, jittered pauses.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let hub = Db::memory(Schema::open())?;
    /// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// let phone = Db::memory(Schema::open())?;
    /// let connection = phone.connect(served.url().into());
    /// phone.put("task", "t1", [("title", "write".into())])?;
    /// connection.synced().await?;
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn connect(&self, remote: Remote) -> Connection {
        let (state, states) = watch::channel(ConnectionState::Connecting);
        let (stop, stopped) = stop_never();
        let db = self.clone();
        let asks = Arc::new(Asks::following(remote.scopes.clone()));
        let asked = Arc::clone(&asks);
        let task = tokio::spawn(async move {
            db.stay_connected(remote, state, &asked, stopped).await;
            asked.close();
        });
        Connection { db: self.clone(), state: states, stop, asks, task }
    }

    async fn head_seq(&self) -> Result<u64, Error> {
        let db = self.clone();
        let read = tokio::task::spawn_blocking(move || Ok(db.lock()?.head()?.seq)).await;
        read.map_err(|error| SyncError::Broken(error.to_string()))?
    }

    async fn stay_connected(
        self,
        remote: Remote,
        state: watch::Sender<ConnectionState>,
        asks: &Arc<Asks>,
        mut stop: watch::Receiver<bool>,
    ) {
        let state = Arc::new(state);
        let mut pauses = pauses();
        loop {
            state.send_replace(ConnectionState::Connecting);
            let telling = Arc::clone(&state);
            let listen = move |synced: Synced| {
                if synced.opened {
                    telling.send_replace(ConnectionState::Live { synced: synced.up_to });
                }
            };
            let (report, result) = self.session_with(&remote, Want::Live, listen, asks, stop.clone()).await;
            if !report.peer.is_empty() {
                pauses = self::pauses();
            }
            if *stop.borrow() {
                state.send_replace(ConnectionState::Stopped { error: None });
                return;
            }
            match result {
                Err(error) if !error.is_retryable() => {
                    tracing::warn!(url = remote.url(), %error, "sync stopped");
                    state.send_replace(ConnectionState::Stopped { error: Some(error) });
                    return;
                }
                Err(SyncError::Session(SessionError::Copied | SessionError::NewWriter)) => continue,
                Err(error) => {
                    tracing::info!(url = remote.url(), %error, "connection lost");
                    state.send_replace(ConnectionState::Waiting { error });
                }
                Ok(()) => {
                    let error = SyncError::Broken("the other side closed".to_owned());
                    state.send_replace(ConnectionState::Waiting { error });
                }
            }
            let pause = pauses.next().unwrap_or(PAUSE_MAX);
            let _ = timeout(pause, told_to(&mut stop)).await;
        }
    }

    async fn session_with(
        &self,
        remote: &Remote,
        want: Want,
        listen: impl FnMut(Synced) + Send + 'static,
        asks: &Arc<Asks>,
        mut stop: watch::Receiver<bool>,
    ) -> (SyncReport, Result<(), SyncError>) {
        let socket = tokio::select! {
            dialled = remote.dial() => dialled,
            () = told_to(&mut stop) => return (SyncReport::default(), Ok(())),
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => return (SyncReport::default(), Err(error)),
        };
        let wakes = Wakes { changes: self.shared.changes.subscribe(), stop, asks: Arc::clone(asks) };
        let host: Arc<Shared> = Arc::clone(&self.shared);
        let session = match remote.session(want, asks.follow()) {
            Ok(session) => session,
            Err(error) => return (SyncReport::default(), Err(error)),
        };
        Pump::new(host, session, listen).run(socket, wakes).await
    }
}

const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Growing pauses between tries, with jitter, so that the clients of a hub that was down do not all come at once.
fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(PAUSE_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}

pub(super) fn stop_never() -> (watch::Sender<bool>, watch::Receiver<bool>) {
    watch::channel(false)
}
