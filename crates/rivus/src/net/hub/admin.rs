//! `/health/live`, `/health/ready` and `/metrics`, on an address of their own.
//!
//! A few requests of HTTP/1.1, one a connection, each within bounds. It is for those who run the hub: it asks for no
//! token, so it listens where strangers do not come.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::health::Health;

/// Answers requests for as long as it is polled.
pub(super) async fn serve(listener: TcpListener, health: Arc<Health>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&free).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((mut socket, from)) => {
                let health = Arc::clone(&health);
                tokio::spawn(async move {
                    let answered = timeout(REQUEST_MAX, answer(&mut socket, &health)).await;
                    tracing::debug!(%from, ?answered, "asked for its health");
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept at the admin address");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    health: &Arc<Health>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    let asked = loop {
        let mut part = [0; 1024];
        let read = socket.read(&mut part).await?;
        head.extend_from_slice(part.get(..read).unwrap_or_default());
        match parse(&head) {
            Asked::Unfinished if read > 0 && head.len() <= HEAD_BYTES_MAX => {}
            asked => break asked,
        }
    };
    let (status, text) = match asked {
        Asked::Unfinished if head.len() > HEAD_BYTES_MAX => {
            ("431 Request Header Fields Too Large", String::new())
        }
        Asked::Unfinished | Asked::Malformed => {
            ("400 Bad Request", "this is no request of HTTP/1.1\n".to_owned())
        }
        Asked::OtherMethod => ("405 Method Not Allowed", "ask with GET\n".to_owned()),
        Asked::For { path, .. } => look(path, health).await,
    };
    let body = if matches!(asked, Asked::For { is_head: true, .. }) { "" } else { &text };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        text.len()
    );
    socket.write_all(answer.as_bytes()).await?;
    socket.shutdown().await
}

/// What there is at a path. The disk is touched on a blocking thread.
async fn look(path: &str, health: &Arc<Health>) -> (&'static str, String) {
    let health = Arc::clone(health);
    let looked = match path {
        // It has answered.
        "/health/live" => return ("200 OK", "live\n".to_owned()),
        "/health/ready" => tokio::task::spawn_blocking(move || match health.ready() {
            Ok(()) => ("200 OK", "ready\n".to_owned()),
            Err(reason) => ("503 Service Unavailable", format!("{reason}\n")),
        }),
        "/metrics" => tokio::task::spawn_blocking(move || ("200 OK", health.metrics())),
        _ => return ("404 Not Found", "there are /health/live, /health/ready and /metrics\n".to_owned()),
    };
    looked.await.unwrap_or_else(|error| ("500 Internal Server Error", format!("{error}\n")))
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked<'h> {
    Unfinished,
    Malformed,
    OtherMethod,
    For { path: &'h str, is_head: bool },
}

fn parse(head: &[u8]) -> Asked<'_> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => Asked::Unfinished,
        Err(_) => Asked::Malformed,
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.unwrap_or_default();
            let path = path.split_once('?').map_or(path, |(path, _)| path);
            match request.method {
                Some("GET") => Asked::For { path, is_head: false },
                Some("HEAD") => Asked::For { path, is_head: true },
                _ => Asked::OtherMethod,
            }
        }
    }
}

/// How many requests are answered at once; more wait.
const CONNECTIONS_MAX: usize = 16;
/// How long a request may be. A body is not read.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// How many headers it may have.
const HEADERS_MAX: usize = 64;
/// How long a request and its answer may take together.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// How long to wait when no socket can be had.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_when_it_is_whole_and_only_get_and_head_are_answered() {
        assert_eq!(parse(b"GET /metrics HTTP/1.1\r\nHost: a"), Asked::Unfinished);
        let whole = parse(b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(whole, Asked::For { path: "/metrics", is_head: false });
        let head = parse(b"HEAD /health/live HTTP/1.0\r\n\r\n");
        assert_eq!(head, Asked::For { path: "/health/live", is_head: true });
        assert_eq!(parse(b"POST /metrics HTTP/1.1\r\n\r\n"), Asked::OtherMethod);
        assert_eq!(parse(b"\x16\x03\x01"), Asked::Malformed);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(parse(many.as_bytes()), Asked::Malformed);
    }
}
