//! Being connected to.
//!
//! Owns what a hub is: its options, its addresses, its beginning and its end. Who may have a connection is decided in
//! `guests`, how a socket becomes a WebSocket in `door`, what goes over it in the session.

mod admin;
mod collect;
mod door;
mod guests;
mod health;
mod listen;
mod metrics;
mod options;
mod stream;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use rivus_core::id::StoreId;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::health::Health;
use self::listen::{Listen, Sources};
use self::metrics::Metrics;
pub use self::options::HubOptions;
use super::SyncError;
use super::files::Reread;
use crate::{Db, Error};

/// A store that is being served. Dropping it stops serving.
#[derive(Debug)]
#[must_use = "serving stops when this is dropped"]
pub struct Hub {
    address: SocketAddr,
    admin: Option<SocketAddr>,
    scheme: &'static str,
    sources: Arc<Sources>,
    health: Arc<Health>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Hub {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients connect to. With TLS they need the name in the certificate instead of the address, mostly.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Where it tells of its health, if it was asked to; see [`HubOptions::admin`].
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// What `/metrics` shows, as text for Prometheus. Touches the disk.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// let served = Db::memory(Schema::open())?.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// assert!(served.metrics().contains("rivus_ready 1"));
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn metrics(&self) -> String {
        self.health.metrics()
    }

    /// Why the hub is not ready, if it is not: it cannot write its store, or the disk is full, or it is shutting down.
    /// Touches the disk.
    ///
    /// # Errors
    /// The reason, in words.
    pub fn ready(&self) -> Result<(), String> {
        self.health.ready()
    }

    /// From now on it says that it is not ready, and goes on as before: so that whoever spreads connections over hubs
    /// sends no more before [`Hub::shutdown`].
    pub fn announce_shutdown(&self) {
        self.health.stop();
    }

    /// Reads certificates and keys again, whether they look changed or not. A hub does so by itself every few seconds with
    /// those that do.
    ///
    /// # Errors
    /// [`SyncError::BadCertificate`], [`SyncError::BadKeys`]: the former one goes on to be used. The other, if there are
    /// both, was read again.
    pub fn reload(&self) -> Result<(), SyncError> {
        self.sources.reload(Reread::All)
    }

    /// Says that it is not ready, stops listening, tells every client goodbye and waits until all have gone, or until
    /// the time for it is over; see [`HubOptions::drain_max`].
    pub async fn shutdown(mut self) {
        self.health.stop();
        self.stop.send_replace(true);
        let _ = (&mut self.task).await;
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.health.stop();
        self.stop.send_replace(true);
    }
}

/// Somebody who has connected to a hub under a name, and the databases that are theirs since; see [`Db::accounts`].
///
/// ```
/// # use rivus::{Db, Schema};
/// let hub = Db::memory(Schema::open())?;
/// for account in hub.accounts()? {
///     println!("{}: {}", account.subject, account.stores.join(", "));
/// }
/// # Ok::<(), rivus::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Account {
    /// The name: the subject of a grant or of a signed token, or what is made of a token that was granted without one.
    pub subject: String,
    /// The store ids of the databases, in hexadecimal.
    pub stores: Vec<String>,
}

impl Db {
    /// Who has databases at this hub, by name: nobody else may connect with one of them before it is
    /// [disowned](Db::disown). Databases that connected without a token are nobody's.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Remote, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
    /// # let options = HubOptions::open().grant_as("ann", "secret", 0);
    /// # let served = hub.serve("127.0.0.1:0", options).await?;
    /// phone.sync(&Remote::new(served.url()).token("secret")).await?;
    /// let accounts = hub.accounts()?;
    /// assert_eq!((accounts[0].subject.as_str(), &accounts[0].stores), ("ann", &vec![phone.status()?.store]));
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn accounts(&self) -> Result<Vec<Account>, Error> {
        let accounts = self.lock()?.accounts()?.into_iter();
        let told = |(subject, stores): (String, Vec<StoreId>)| Account {
            subject,
            stores: stores.iter().map(ToString::to_string).collect(),
        };
        Ok(accounts.map(told).collect())
    }

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
    /// [`Error::Sync`] if an address cannot be listened on, [`Error::Role`] if the store has an authority itself.
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
        let (listener, bound) = bind(address).await?;
        let admin = match &options.admin {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        if !options.peer {
            let db = self.clone();
            let lease_ms = crate::collect::millis(options.collecting.lease);
            let become_authority = move || {
                let mut replica = db.lock()?;
                replica.lease_for(lease_ms);
                Ok(replica.serve_as_authority()?)
            };
            let done = tokio::task::spawn_blocking(become_authority).await;
            done.map_err(|error| SyncError::Broken(error.to_string()))?.map_err(|error: Error| error)?;
        }
        let metrics = Arc::<Metrics>::default();
        let health = Arc::new(Health::new(self.clone(), Arc::clone(&metrics), options.disk_free_min));
        let sources = Arc::new(Sources::new(&options, &metrics));
        let (stop, stopped) = watch::channel(false);
        let scheme = options.scheme();
        let collecting = (!options.peer).then(|| {
            let metrics = Arc::clone(&metrics);
            tokio::spawn(collect::run(self.clone(), options.collecting, metrics, stopped.clone()))
        });
        let listen = Listen::new(self.clone(), &options, metrics, Arc::clone(&sources))?;
        let admin_address = admin.as_ref().map(|(_, address)| *address);
        let telling = admin.map(|(listener, _)| tokio::spawn(admin::serve(listener, Arc::clone(&health))));
        let task = tokio::spawn(async move {
            listen.run(listener, stopped).await;
            if let Some(collecting) = collecting {
                // It may hold the database for a moment still.
                let _ = collecting.await;
            }
            // Until the last connection has gone somebody may want to know how far it is.
            if let Some(telling) = telling {
                telling.abort();
            }
        });
        Ok(Hub { address: bound, admin: admin_address, scheme, sources, health, stop, task })
    }
}

async fn bind(address: &str) -> Result<(TcpListener, SocketAddr), SyncError> {
    let failed = |error: std::io::Error| {
        let what = match error.kind() {
            ErrorKind::InvalidInput => "an address is a host and a port, such as 127.0.0.1:7171",
            ErrorKind::AddrInUse => "choose another port, or stop what uses it",
            ErrorKind::AddrNotAvailable => {
                "choose an address of this machine; 0.0.0.0 stands for all of them"
            }
            ErrorKind::PermissionDenied => "choose a port from 1024 on, or run it with the right to this one",
            _ => "choose another address",
        };
        SyncError::Listen { address: address.to_owned(), reason: format!("{error}: {what}") }
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
