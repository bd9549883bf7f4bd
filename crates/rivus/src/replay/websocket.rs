//! Replays over real sockets: the same sessions as ever, through the same shell as an application's sync.

use std::sync::Arc;

use rivus_core::clock::Millis;
use rivus_core::replica::Replica;
use rivus_core::session::Session;
use rivus_core::wire::capability;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_tungstenite::{accept_async_with_config, client_async_with_config};

use super::transport::{End, Moved, Transport, TransportError, Way};
use crate::any_store::AnyStore;
use crate::net::pump::{Host, Pump, Wakes, socket_config};
use crate::{SyncError, SyncReport};

/// Over WebSocket on loopback, a connection a sync.
#[derive(Debug)]
pub struct WebSocket {
    runtime: Runtime,
    listener: TcpListener,
}

impl WebSocket {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    /// [`TransportError::Connection`] if the system has no threads or ports left.
    pub fn new() -> Result<Self, TransportError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| TransportError::Connection(error.to_string()))?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.map_err(|error| TransportError::Connection(error.to_string()))?;
        Ok(Self { runtime, listener })
    }

    async fn sync(&self, from: &End, to: &End, way: Way) -> Result<Moved, SyncError> {
        let broken = |error: std::io::Error| SyncError::Broken(error.to_string());
        let (mut client, mut server) = (way.client(), way.server());
        client.capabilities = capability::ZSTD;
        server.capabilities = capability::ZSTD;
        let address = self.listener.local_addr().map_err(broken)?;
        let dial = async {
            let socket = TcpStream::connect(address).await.map_err(broken)?;
            socket.set_nodelay(true).map_err(broken)?;
            let url = format!("ws://{address}");
            let opened = client_async_with_config(url, socket, Some(socket_config())).await;
            let (socket, _) = opened.map_err(|error| SyncError::Broken(error.to_string()))?;
            pump(from, Session::new(client), socket).await
        };
        let listen = async {
            let (socket, _) = self.listener.accept().await.map_err(broken)?;
            socket.set_nodelay(true).map_err(broken)?;
            let accepted = accept_async_with_config(socket, Some(socket_config())).await;
            let socket = accepted.map_err(|error| SyncError::Broken(error.to_string()))?;
            pump(to, Session::new(server), socket).await
        };
        let (one, two) = tokio::join!(dial, listen);
        Ok(Moved { registers: one?.pulled.received + two?.pulled.received })
    }
}

async fn pump<T>(
    end: &End,
    session: Session,
    socket: tokio_tungstenite::WebSocketStream<T>,
) -> Result<SyncReport, SyncError>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
{
    let ((_change, changes), (_stop, stop)) = (watch::channel(0), watch::channel(false));
    let wakes = Wakes { changes, stop, asks: Arc::default() };
    let (report, ended) = Pump::new(Arc::new(end.clone()), session, |_| {}).run(socket, wakes).await;
    ended.map(|_| report)
}

impl Host for End {
    type Store = AnyStore;

    fn with<R>(&self, act: impl FnOnce(&mut Replica<AnyStore>, Millis) -> R) -> Result<R, SyncError> {
        Ok(act(&mut self.lock(), self.now))
    }

    fn is_free(&self) -> bool {
        true
    }

    fn is_slow(&self) -> bool {
        true
    }
}

impl Transport for WebSocket {
    fn sync(&mut self, from: &End, to: &End, way: Way) -> Result<Moved, TransportError> {
        let this = &*self;
        this.runtime.block_on(this.sync(from, to, way)).map_err(|error| match error {
            SyncError::Session(error) => TransportError::Session(error),
            other => TransportError::Connection(other.to_string()),
        })
    }
}
