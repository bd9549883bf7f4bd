//! Being connected to.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use rivus_core::session::{Grants, Role, Session, SessionOptions, Want};
use rivus_core::wire::capability;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_tungstenite::accept_async_with_config;

use super::pump::{Pump, Wakes, socket_config, told_to};
use super::{HANDSHAKE_MAX, SyncError};
use crate::machine::seeds;
use crate::{Db, Error};

/// How many connections a hub holds at once, unless told otherwise.
const CONNECTIONS_MAX: usize = 1024;

/// How a store is served.
///
/// ```
/// use rivus::HubOptions;
/// let options = HubOptions::open().grant("secret", 5);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct HubOptions {
    grants: Grants,
    peer: bool,
    connections_max: usize,
}

impl HubOptions {
    /// Lets everybody in, with rank 0.
    #[must_use]
    pub fn open() -> Self {
        Self { grants: Grants::everybody(), peer: false, connections_max: CONNECTIONS_MAX }
    }

    /// Lets in only those who show a token that is granted.
    #[must_use]
    pub fn closed() -> Self {
        Self { grants: Grants::default(), peer: false, connections_max: CONNECTIONS_MAX }
    }

    /// Lets in those who show `token`, and lets their edits bear `rank`, from 0 to 255.
    #[must_use]
    pub fn grant(mut self, token: impl Into<String>, rank: u8) -> Self {
        self.grants.tokens.insert(token.into(), rank);
        self
    }

    /// Serves as one among equals instead of as the authority: edits are not judged, each side keeps its own.
    #[must_use]
    pub fn as_peer(mut self) -> Self {
        self.peer = true;
        self
    }

    /// Holds at most so many connections; more are turned away.
    #[must_use]
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.connections_max = connections;
        self
    }
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens are secrets.
        f.debug_struct("HubOptions").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A store that is being served. Dropping it stops serving.
#[derive(Debug)]
#[must_use = "serving stops when this is dropped"]
pub struct Hub {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Hub {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients connect to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Tells every client goodbye, stops listening and waits until all have gone.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        let _ = (&mut self.task).await;
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Db {
    /// Serves this store at `address`, such as `127.0.0.1:7171`; port 0 takes a free one.
    ///
    /// Unless the options say otherwise the store becomes the authority of all that connect, for good.
    ///
    /// # Errors
    /// [`Error::Sync`] if the address cannot be listened on, [`Error::Role`] if the store has an authority itself.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// let hub = Db::memory(Schema::open())?;
    /// let served = hub.serve("127.0.0.1:0", HubOptions::closed().grant("secret", 0)).await?;
    /// println!("listening on {}", served.url());
    /// served.shutdown().await;
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn serve(&self, address: &str, options: HubOptions) -> Result<Hub, Error> {
        let listen = |error: std::io::Error| SyncError::Listen {
            address: address.to_owned(),
            reason: error.to_string(),
        };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let bound = listener.local_addr().map_err(listen)?;
        if !options.peer {
            let db = self.clone();
            let become_authority = move || Ok(db.lock()?.serve_as_authority()?);
            let done = tokio::task::spawn_blocking(become_authority).await;
            done.map_err(|error| SyncError::Broken(error.to_string()))?.map_err(|error: Error| error)?;
        }
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept(self.clone(), listener, options, stopped));
        Ok(Hub { address: bound, stop, task })
    }
}

async fn accept(db: Db, listener: TcpListener, options: HubOptions, mut stop: watch::Receiver<bool>) {
    let free = Arc::new(Semaphore::new(options.connections_max));
    let mut connections = JoinSet::new();
    let _listening = db.shared.listen();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, from)) => {
                    let Ok(place) = Arc::clone(&free).try_acquire_owned() else {
                        tracing::warn!(%from, "turned away: too many connections");
                        continue;
                    };
                    let (db, grants, stop) = (db.clone(), options.grants.clone(), stop.clone());
                    connections.spawn(async move {
                        let result = serve_one(db, socket, grants, stop).await;
                        if let Err(error) = result {
                            tracing::info!(%from, %error, "connection ended");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, mostly: others go on, and a pause lets some end.
                    tracing::warn!(%error, "cannot accept");
                    let _ = timeout(super::QUIET, told_to(&mut stop)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = told_to(&mut stop) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_one(
    db: Db,
    socket: TcpStream,
    grants: Grants,
    stop: watch::Receiver<bool>,
) -> Result<(), SyncError> {
    let _ = socket.set_nodelay(true);
    let greeting = timeout(HANDSHAKE_MAX, accept_async_with_config(socket, Some(socket_config())));
    let socket = match greeting.await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return Err(SyncError::Broken(error.to_string())),
        Err(_) => return Err(SyncError::Silent),
    };
    let session = Session::new(SessionOptions {
        role: Role::Server { grants },
        want: Want::Live,
        offers: true,
        seeds: seeds(),
        capabilities: capability::ZSTD,
    });
    let wakes = Wakes { changes: db.shared.changes.subscribe(), stop, asks: Arc::default() };
    Pump::new(Arc::clone(&db.shared), session, |_| {}).run(socket, wakes).await.1
}
