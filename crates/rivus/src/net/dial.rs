//! From an address to a socket.

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::pump::socket_config;
use super::{HANDSHAKE_MAX, SyncError};

/// Opens a WebSocket to `url`.
pub(super) async fn dial(url: &str) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, SyncError> {
    let unreachable = |reason: String| SyncError::Unreachable { url: url.to_owned(), reason };
    if !url.starts_with("ws://") {
        return Err(SyncError::BadAddress { url: url.to_owned() });
    }
    let dialled = timeout(HANDSHAKE_MAX, connect_async_with_config(url, Some(socket_config()), true));
    match dialled.await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(SocketError::Url(_))) => Err(SyncError::BadAddress { url: url.to_owned() }),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable("no answer".to_owned())),
    }
}
