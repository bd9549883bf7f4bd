//! From an accepted socket to a WebSocket, or to a refusal that says why.

use std::sync::Arc;
use std::time::Duration;

use rivus_core::code::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use super::metrics::Metrics;
use super::stream::Stream;
use crate::net::CODE_HEADER;
use crate::net::pump::socket_config;

/// How those who come are let in.
pub(super) struct Door {
    #[cfg(feature = "tls")]
    pub(super) tls: Option<tokio_rustls::TlsAcceptor>,
    pub(super) metrics: Arc<Metrics>,
    /// The pages of browsers that may come.
    pub(super) origins: Arc<[String]>,
    /// How long one of them may take to become a WebSocket.
    pub(super) handshake_max: Duration,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// The hub has all the connections that it may have.
    Busy,
    /// The address has all that one may have.
    BusyAddress,
    /// The address connects too often.
    Rate {
        /// After how many seconds it may come again.
        seconds: u64,
    },
    /// A page in a browser asks, and its origin is not among those that may.
    Origin,
    /// A port that speaks TLS was spoken to without.
    #[cfg(feature = "tls")]
    NeedsTls,
}

impl Refusal {
    /// The code that the other side is told.
    pub(super) fn code(self) -> Option<Code> {
        match self {
            Self::Busy | Self::BusyAddress => Some(Code::BUSY),
            Self::Rate { .. } => Some(Code::RATE),
            Self::Origin => Some(Code::UNAUTHORISED),
            #[cfg(feature = "tls")]
            Self::NeedsTls => None,
        }
    }

    fn answer(self) -> ErrorResponse {
        let (status, text) = match self {
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "the hub has as many connections as it may have"),
            Self::BusyAddress => {
                (StatusCode::SERVICE_UNAVAILABLE, "this address has as many connections as one may have")
            }
            Self::Rate { .. } => (StatusCode::TOO_MANY_REQUESTS, "this address connects too often"),
            Self::Origin => {
                (StatusCode::FORBIDDEN, "pages of this origin may not connect: the hub has to allow it")
            }
            #[cfg(feature = "tls")]
            Self::NeedsTls => (StatusCode::BAD_REQUEST, "this port speaks TLS: connect with wss://"),
        };
        let mut response = ErrorResponse::new(Some(format!("{text}\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len() + 1));
        if let Some(code) = self.code() {
            headers.insert(CODE_HEADER, HeaderValue::from(code.0));
        }
        if let Self::Rate { seconds } = self {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Why somebody did not get in who was to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// It left without a word, as probes do.
    #[error("it left before it said anything")]
    Left,
    /// It was too slow.
    #[error("it took too long to become a WebSocket")]
    Slow,
    /// It spoke TLS where none is spoken, or the other way round.
    #[error("{0}")]
    Misled(&'static str),
    /// TLS failed.
    #[cfg(feature = "tls")]
    #[error("TLS failed: {0}")]
    Tls(std::io::Error),
    /// It asked for something else than a WebSocket, or broke off.
    #[error("it did not become a WebSocket: {0}")]
    Socket(SocketError),
}

impl Failed {
    /// How it is counted; `None` if it is no failure.
    pub(super) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Left => None,
            Self::Slow => Some("slow"),
            Self::Misled(_) => Some("tls"),
            #[cfg(feature = "tls")]
            Self::Tls(_) => Some("tls"),
            Self::Socket(SocketError::Http(answer)) if answer.status() == StatusCode::FORBIDDEN => {
                Some("origin")
            }
            Self::Socket(_) => Some("websocket"),
        }
    }
}

/// Answers a request for a WebSocket with a refusal, if there is one.
struct Answer<'o> {
    refusal: Option<Refusal>,
    origins: &'o [String],
}

impl Answer<'_> {
    /// Browsers say which page asks, and let any page ask any address, also one of their own machine.
    fn allows(&self, request: &Request) -> bool {
        let named = |origin: &HeaderValue| {
            let is_it = |allowed: &String| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes());
            self.origins.iter().any(is_it)
        };
        request.headers().get_all(header::ORIGIN).iter().all(named)
    }
}

impl Callback for Answer<'_> {
    fn on_request(self, request: &Request, response: Response) -> Result<Response, ErrorResponse> {
        match self.refusal {
            Some(refusal) => Err(refusal.answer()),
            None if self.allows(request) => Ok(response),
            None => Err(Refusal::Origin.answer()),
        }
    }
}

impl Door {
    /// Makes a WebSocket of the socket.
    pub(super) async fn enter(&self, socket: TcpStream) -> Result<WebSocketStream<Stream>, Failed> {
        timeout(self.handshake_max, self.greet(socket, None)).await.unwrap_or(Err(Failed::Slow))
    }

    /// Tells the other side why it is turned away.
    pub(super) async fn refuse(&self, socket: TcpStream, refusal: Refusal) {
        let told = timeout(REFUSAL_MAX, self.greet(socket, Some(refusal))).await;
        tracing::debug!(?refusal, told = told.is_ok(), "refused");
    }

    async fn greet(
        &self,
        socket: TcpStream,
        refusal: Option<Refusal>,
    ) -> Result<WebSocketStream<Stream>, Failed> {
        let _ = socket.set_nodelay(true);
        let mut first = [0];
        match socket.peek(&mut first).await {
            Ok(1..) => {}
            _ => return Err(Failed::Left),
        }
        let is_tls = first == [TLS_HANDSHAKE];
        #[cfg(feature = "tls")]
        if let Some(acceptor) = &self.tls {
            if !is_tls {
                let stream = Stream::plain(socket, &self.metrics);
                let _ = self.upgrade(stream, Some(Refusal::NeedsTls)).await;
                return Err(Failed::Misled("it spoke no TLS to a port that does"));
            }
            let stream = acceptor.accept(socket).await.map_err(Failed::Tls)?;
            return self.upgrade(Stream::tls(stream, &self.metrics), refusal).await;
        }
        if is_tls {
            turn_from_tls(socket).await;
            return Err(Failed::Misled("it spoke TLS to a port that does not"));
        }
        self.upgrade(Stream::plain(socket, &self.metrics), refusal).await
    }

    async fn upgrade(
        &self,
        stream: Stream,
        refusal: Option<Refusal>,
    ) -> Result<WebSocketStream<Stream>, Failed> {
        let answer = Answer { refusal, origins: &self.origins };
        let upgraded = accept_hdr_async_with_config(stream, answer, Some(socket_config())).await;
        let mut socket = upgraded.map_err(Failed::Socket)?;
        socket.get_mut().lift_bound();
        Ok(socket)
    }
}

/// Whoever speaks TLS makes nothing of an answer in plain text, but sees that it is one.
async fn turn_from_tls(mut socket: TcpStream) {
    let mut hello = [0; 4096];
    let _ = socket.read(&mut hello).await;
    let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nno TLS here\n").await;
    let _ = socket.shutdown().await;
}

/// The first byte of whoever begins to speak TLS.
const TLS_HANDSHAKE: u8 = 0x16;
/// So long a refusal may take.
const REFUSAL_MAX: Duration = Duration::from_secs(2);
