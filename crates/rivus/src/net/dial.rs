//! From an address to a socket.

use std::time::Duration;

use rivus_core::code::Code;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::pump::socket_config;
use super::{CODE_HEADER, HANDSHAKE_MAX, Remote, SyncError};

/// Opens a WebSocket to another store.
pub(super) async fn dial(remote: &Remote) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, SyncError> {
    let url = remote.url();
    let unreachable = |reason: String| SyncError::Unreachable { url: url.to_owned(), reason };
    match timeout(HANDSHAKE_MAX, connect(remote)).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(Failed::Settings(error))) => Err(error),
        Ok(Err(Failed::Socket(SocketError::Url(_)))) => Err(SyncError::BadAddress { url: url.to_owned() }),
        Ok(Err(Failed::Socket(SocketError::Http(response)))) => Err(answered(url, &response)),
        Ok(Err(Failed::Socket(error))) => {
            let tls = match &error {
                #[cfg(feature = "tls")]
                SocketError::Io(error) => super::tls::reason(error),
                _ => None,
            };
            Err(match tls {
                Some(reason) => SyncError::Tls { url: url.to_owned(), reason },
                None => unreachable(error.to_string()),
            })
        }
        Err(_) => Err(unreachable("no answer".to_owned())),
    }
}

enum Failed {
    Settings(SyncError),
    Socket(SocketError),
}

#[cfg(feature = "tls")]
async fn connect(remote: &Remote) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, Failed> {
    use tokio_tungstenite::{Connector, connect_async_tls_with_config};
    let url = remote.url();
    let connector = if url.starts_with("wss://") {
        super::tls::connector(remote.trusted()).map_err(Failed::Settings)?
    } else if url.starts_with("ws://") {
        Connector::Plain
    } else {
        return Err(Failed::Settings(SyncError::BadAddress { url: url.to_owned() }));
    };
    let dialled = connect_async_tls_with_config(url, Some(socket_config()), true, Some(connector));
    dialled.await.map(|(socket, _)| socket).map_err(Failed::Socket)
}

#[cfg(not(feature = "tls"))]
async fn connect(remote: &Remote) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, Failed> {
    let url = remote.url();
    if !url.starts_with("ws://") {
        return Err(Failed::Settings(SyncError::BadAddress { url: url.to_owned() }));
    }
    let dialled = tokio_tungstenite::connect_async_with_config(url, Some(socket_config()), true);
    dialled.await.map(|(socket, _)| socket).map_err(Failed::Socket)
}

/// Something answered that did not become a WebSocket.
fn answered(url: &str, response: &Response) -> SyncError {
    let header = |name: &str| response.headers().get(name)?.to_str().ok();
    let body = response.body().as_deref().unwrap_or_default();
    let text = String::from_utf8_lossy(body);
    let line: String = text.lines().next().unwrap_or_default().chars().take(ANSWER_CHARS_MAX).collect();
    let url = url.to_owned();
    match header(CODE_HEADER).and_then(|code| code.parse().ok()).map(Code) {
        Some(code) => {
            let seconds = header("retry-after").and_then(|seconds| seconds.parse().ok());
            SyncError::TurnedAway { url, code, message: line, retry_after: seconds.map(Duration::from_secs) }
        }
        None => SyncError::NoHub { url, reason: format!("{}: {line}", response.status()) },
    }
}

/// How much of an answer is told.
const ANSWER_CHARS_MAX: usize = 200;
