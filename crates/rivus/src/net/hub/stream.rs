//! The bytes of one connection: plain or TLS, counted, and bounded until it is known who speaks.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::metrics::Metrics;
use crate::net::narrow::{Narrow, Narrows};

/// A socket that was connected to.
#[derive(Debug)]
pub(super) struct Stream {
    inner: Inner,
    metrics: Arc<Metrics>,
    /// How many bytes may still be read.
    budget: usize,
    /// What bounds the frames of a WebSocket until its client has said who it is.
    narrow: Narrow,
}

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// Calls the method of whichever socket it is.
macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match &mut $stream.inner {
            Inner::Plain($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            #[cfg(feature = "tls")]
            Inner::Tls($inner) => {
                let $inner = Pin::new(&mut **$inner);
                $call
            }
        }
    };
}

impl Stream {
    pub(super) fn plain(socket: TcpStream, metrics: &Arc<Metrics>) -> Self {
        Self {
            inner: Inner::Plain(socket),
            metrics: Arc::clone(metrics),
            budget: REQUEST_BYTES_MAX,
            narrow: Narrow::default(),
        }
    }

    #[cfg(feature = "tls")]
    pub(super) fn tls(socket: tokio_rustls::server::TlsStream<TcpStream>, metrics: &Arc<Metrics>) -> Self {
        Self {
            inner: Inner::Tls(Box::new(socket)),
            metrics: Arc::clone(metrics),
            budget: REQUEST_BYTES_MAX,
            narrow: Narrow::default(),
        }
    }

    /// It is a WebSocket now, which has bounds of its own.
    pub(super) fn lift_bound(&mut self) {
        self.budget = usize::MAX;
    }

    /// With what the bound before the greeting is lifted.
    pub(super) fn narrows(&self) -> Narrows {
        self.narrow.narrows()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = each!(self, inner => inner.poll_read(context, buffer));
        let read = buffer.filled().len() - before;
        self.metrics.bytes_in.add(read);
        if self.budget != usize::MAX {
            let Some(left) = self.budget.checked_sub(read) else {
                let text = format!("a request is longer than {REQUEST_BYTES_MAX} bytes");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
            };
            self.budget = left;
        } else if let Some(bytes) = buffer.filled().get(before..)
            && let Err(error) = self.narrow.take(bytes)
        {
            buffer.set_filled(before);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = each!(self, inner => inner.poll_write(context, bytes));
        if let Poll::Ready(Ok(written)) = &polled {
            self.metrics.bytes_out.add(*written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => inner.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => inner.poll_shutdown(context))
    }
}

/// How long the request may be that becomes a WebSocket. Proxies add headers; tokens are not in it.
const REQUEST_BYTES_MAX: usize = 16 << 10;
