//! Being connected to.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use rivus_core::replica::{Proposed, Refusal};
use rivus_core::session::{
    Access, Authenticator, Authorizer, By, Gate, Grants, Limits, Role, Session, SessionOptions, Validator,
    Want,
};
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
#[derive(Clone)]
pub struct HubOptions {
    grants: Grants,
    authenticator: Option<Arc<dyn Authenticator>>,
    authorizer: Option<Arc<dyn Authorizer>>,
    validator: Option<Arc<dyn Validator>>,
    limits: Limits,
    peer: bool,
    connections_max: usize,
}

impl HubOptions {
    /// Lets everybody in, with rank 0.
    #[must_use]
    pub fn open() -> Self {
        Self::granting(Grants::everybody())
    }

    /// Lets in only those who show a token that is granted.
    #[must_use]
    pub fn closed() -> Self {
        Self::granting(Grants::nobody())
    }

    fn granting(grants: Grants) -> Self {
        Self {
            grants,
            authenticator: None,
            authorizer: None,
            validator: None,
            limits: Limits::default(),
            peer: false,
            connections_max: CONNECTIONS_MAX,
        }
    }

    /// Lets in those who show `token`, and lets their edits bear `rank`, from 0 to 255.
    #[must_use]
    pub fn grant(mut self, token: impl Into<String>, rank: u8) -> Self {
        self.grants = self.grants.grant(token, rank);
        self
    }

    /// Lets in those without a token as well, with this rank. What they bring is nobody's until somebody with a name shows
    /// it.
    ///
    /// ```
    /// use rivus::HubOptions;
    /// let options = HubOptions::closed().grant_as("ann", "secret", 5).anonymous(0);
    /// ```
    #[must_use]
    pub fn anonymous(mut self, rank: u8) -> Self {
        self.grants = self.grants.anonymous(rank);
        self
    }

    /// Lets in those who show `token` as `subject`, a name of 1 to 255 bytes. Unlike with [`HubOptions::grant`], the token
    /// may later be replaced by another one of the same subject: a database belongs to the subject that it first
    /// connected as.
    ///
    /// ```
    /// use rivus::HubOptions;
    /// let options = HubOptions::closed().grant_as("ann", "secret", 5).grant_as("ann", "next secret", 5);
    /// ```
    #[must_use]
    pub fn grant_as(mut self, subject: impl Into<String>, token: impl Into<String>, rank: u8) -> Self {
        self.grants = self.grants.grant_as(subject, token, rank);
        self
    }

    /// Asks this who somebody is, instead of comparing tokens with those that were granted.
    ///
    /// ```
    /// use rivus::{By, Denial, Grant, HubOptions};
    /// let options = HubOptions::closed().authenticator(By(|token: Option<&str>, _now| match token {
    ///     Some("open sesame") => Ok(Grant { subject: "ali".to_owned(), rank: 0, expires: None }),
    ///     _ => Err(Denial::unauthorised("say the words")),
    /// }));
    /// ```
    #[must_use]
    pub fn authenticator(mut self, authenticator: impl Authenticator + 'static) -> Self {
        self.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// Asks this what a subject may do with a scope (the default scope is empty), anew for every page and every edit.
    ///
    /// ```
    /// use rivus::{Access, HubOptions};
    /// let options = HubOptions::open().authorizer(|subject, access, _scope| match access {
    ///     Access::Read => true,
    ///     Access::Write => subject != "guest",
    ///     // Bringing back what the hub has lost, unjudged.
    ///     _ => subject == "operator",
    /// });
    /// ```
    #[must_use]
    pub fn authorizer(mut self, allows: impl Fn(&str, Access, &str) -> bool + Send + Sync + 'static) -> Self {
        self.authorizer = Some(Arc::new(By(allows)));
        self
    }

    /// Asks this about every edit before it is accepted. Its author gets a refused edit back with the reason, and shows
    /// what the hub has.
    ///
    /// ```
    /// use rivus::{HubOptions, Refusal, Value};
    /// let options = HubOptions::open().validator(|_subject, edit| {
    ///     for task in edit.entities().iter().filter(|entity| entity.kind == "task") {
    ///         if task.field("title") == Some(&Value::from("")) {
    ///             return Err(Refusal::of_field(task, "title", "a task needs a title"));
    ///         }
    ///     }
    ///     Ok(())
    /// });
    /// ```
    #[must_use]
    pub fn validator(
        mut self,
        validate: impl Fn(&str, &Proposed<'_>) -> Result<(), Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.validator = Some(Arc::new(By(validate)));
        self
    }

    /// Takes no more than this of anybody. Devices are told, and set aside themselves what would be refused.
    ///
    /// ```
    /// use rivus::{HubOptions, Limits};
    /// let limits = Limits { value_bytes_max: 64 << 10, registers_per_second: Some(1000), ..Limits::default() };
    /// let options = HubOptions::open().limits(limits);
    /// ```
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What is asked of those who connect.
    pub(crate) fn gate(&self) -> Gate {
        let mut gate = Gate::new(self.grants.clone()).limits(self.limits);
        if let Some(authenticator) = &self.authenticator {
            gate = gate.authenticator(Arc::clone(authenticator));
        }
        if let Some(authorizer) = &self.authorizer {
            gate = gate.authorizer(Arc::clone(authorizer));
        }
        if let Some(validator) = &self.validator {
            gate = gate.validator(Arc::clone(validator));
        }
        gate
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
    /// Forgets which databases belong to `subject`: whoever connects with one next has it. For accounts that are renamed
    /// or closed, and for databases that are handed on. Returns how many store and replica ids that were.
    ///
    /// # Errors
    /// [`Error::Store`]; nothing has changed.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// let hub = Db::memory(Schema::open())?;
    /// assert_eq!(hub.disown("ann")?, 0);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn disown(&self, subject: &str) -> Result<usize, Error> {
        Ok(self.lock()?.disown(subject)?)
    }

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
    let gate = Arc::new(options.gate());
    let free = Arc::new(Semaphore::new(options.connections_max));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, from)) => {
                    let Ok(place) = Arc::clone(&free).try_acquire_owned() else {
                        tracing::warn!(%from, "turned away: too many connections");
                        continue;
                    };
                    let (db, gate, stop) = (db.clone(), Arc::clone(&gate), stop.clone());
                    connections.spawn(async move {
                        let result = serve_one(db, socket, gate, stop).await;
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
    gate: Arc<Gate>,
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
        role: Role::Server { gate },
        want: Want::Live,
        offers: true,
        seeds: seeds(),
        capabilities: capability::ZSTD,
    });
    let wakes = Wakes { changes: db.shared.changes.subscribe(), stop, asks: Arc::default() };
    Pump::new(Arc::clone(&db.shared), session, |_| {}).run(socket, wakes).await.1
}
