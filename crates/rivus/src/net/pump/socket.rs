//! The socket below a session: its bounds, its messages, its end.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rivus_core::wire::FRAME_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use crate::net::{SILENCE_MAX, STALL_MAX, SyncError, closing};

/// The bounds that the socket keeps before a frame gets here.
pub(crate) fn socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        // The buffer is there for as long as the connection; a long frame comes in several reads.
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
}

/// The longest message: a frame that was compressed to no less than it is.
const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX + 16;

/// What one read from a socket takes.
const READ_BUFFER_BYTES: usize = 4096;

/// When something last happened.
pub(super) struct Since {
    /// Anything came.
    pub(super) heard: Instant,
    /// A frame came or went.
    pub(super) frame: Instant,
    pub(super) quiet: Instant,
    pub(super) ping: Instant,
}

impl Since {
    pub(super) fn postpone(&mut self, by: Duration) {
        self.heard += by;
        self.frame += by;
    }
}

/// How many messages are taken while one is sent, and until how many bytes.
const RECEIVED_MAX: usize = 16;
const RECEIVED_BYTES_MAX: usize = 1 << 20;

/// Sends a frame, and returns what came meanwhile.
pub(super) async fn send<T>(
    sink: &mut SplitSink<WebSocketStream<T>, Message>,
    stream: &mut SplitStream<WebSocketStream<T>>,
    frame: Vec<u8>,
    since: &mut Since,
    takes: bool,
) -> Result<VecDeque<Option<Result<Message, SocketError>>>, SyncError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut received, mut bytes) = (VecDeque::new(), 0);
    let stalled_at = Instant::now() + STALL_MAX;
    let mut sending = std::pin::pin!(sink.send(Message::Binary(frame.into())));
    loop {
        tokio::select! {
            sent = &mut sending => {
                sent.map_err(|error| broken(&error))?;
                return Ok(received);
            }
            message = stream.next(), if takes && received.len() < RECEIVED_MAX && bytes < RECEIVED_BYTES_MAX => {
                since.heard = Instant::now();
                bytes += message.as_ref().and_then(|message| message.as_ref().ok()).map_or(0, Message::len);
                received.push_back(message);
            }
            () = sleep_until(since.heard + SILENCE_MAX) => return Err(SyncError::Silent),
            // Whoever sends and never reads is no better.
            () = sleep_until(stalled_at) => return Err(SyncError::Stalled),
        }
    }
}

/// Closes with the last word, and reads on until the other side has closed, too: a socket that is dropped with something
/// unread takes back what was said last.
pub(super) async fn leave<T>(
    mut sink: SplitSink<WebSocketStream<T>, Message>,
    mut stream: SplitStream<WebSocketStream<T>>,
    last: CloseFrame,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    // Where the other side was first, the answer to its own last word waits to go out.
    if sink.send(Message::Close(Some(last))).await.is_err() && sink.flush().await.is_err() {
        return;
    }
    while let Some(Ok(_)) = stream.next().await {}
    // What could not be read as messages is still on its way.
    let Ok(mut socket) = sink.reunite(stream) else { return };
    let socket = socket.get_mut();
    if socket.shutdown().await.is_err() {
        return;
    }
    let (mut passed, mut bytes) = (0, [0; READ_BUFFER_BYTES]);
    while passed < PASSED_BYTES_MAX {
        match socket.read(&mut bytes).await {
            Ok(read @ 1..) => passed += read,
            _ => return,
        }
    }
}

/// So much of what cannot be read is let pass, so that whoever sends it hears why.
const PASSED_BYTES_MAX: usize = FRAME_BYTES_MAX + (1 << 20);

/// The frame in a message; `None` for messages of the socket itself.
pub(super) fn data(message: Option<Result<Message, SocketError>>) -> Result<Option<Vec<u8>>, SyncError> {
    match message {
        Some(Ok(Message::Binary(bytes))) => Ok(Some(bytes.into())),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Ok(Message::Text(_))) => Err(SyncError::Text),
        Some(Ok(Message::Close(last))) => Err(closing::told(last)),
        None => Err(closing::told(None)),
        Some(Err(error)) => Err(broken(&error)),
    }
}

/// Why a socket is of no more use.
pub(super) fn broken(error: &SocketError) -> SyncError {
    let message = error.to_string();
    match error {
        SocketError::Capacity(_) => SyncError::TooLarge { bytes_max: MESSAGE_BYTES_MAX },
        SocketError::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<TooEarly>()) {
            Some(TooEarly { bytes_max }) => SyncError::TooLarge { bytes_max: *bytes_max },
            None => SyncError::Broken(message),
        },
        // It went away in the middle, which is nobody's fault.
        SocketError::Protocol(
            ProtocolError::ResetWithoutClosingHandshake
            | ProtocolError::SendAfterClosing
            | ProtocolError::ReceivedAfterClosing,
        ) => SyncError::Broken(message),
        SocketError::Protocol(_) | SocketError::Utf8(_) => SyncError::WebSocket(message),
        _ => SyncError::Broken(message),
    }
}

/// More came than may come before anybody has said who they are. Found below the socket, which would make room for it.
#[derive(Debug, thiserror::Error)]
#[error("more than {bytes_max} bytes before the greeting")]
pub(crate) struct TooEarly {
    pub(crate) bytes_max: usize,
}
