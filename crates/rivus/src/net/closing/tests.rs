use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rivus_core::session::{Limits, Role, Session, SessionOptions, Want};
use rivus_core::wire::FRAME_BYTES_MAX;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_async, connect_async};

use super::*;
use crate::machine::seeds;
use crate::{Access, Db, Error, ErrorClass, Hub, HubOptions, Remote, Schema};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn open() -> Db {
    Db::memory(Schema::open()).unwrap()
}

async fn serve(options: HubOptions) -> Hub {
    open().serve("127.0.0.1:0", options).await.unwrap()
}

/// A client that knows the protocol, on a socket that knows nothing of it.
struct Plain {
    db: Db,
    session: Session,
    socket: Socket,
    /// The code of a GOAWAY that came.
    goaway: Option<Code>,
}

impl Plain {
    async fn connect(hub: &Hub, token: Option<&str>) -> Self {
        let role = Role::Client { token: token.map(str::to_owned) };
        let options =
            SessionOptions { role, want: Want::Live, offers: true, seeds: seeds(), capabilities: 0 };
        let (socket, _) = connect_async(hub.url()).await.unwrap();
        Self { db: open(), session: Session::new(options), socket, goaway: None }
    }

    async fn send(&mut self, frame: Vec<u8>) {
        self.socket.send(Message::Binary(frame.into())).await.unwrap();
    }

    /// Sends what the session has, and takes what comes, until so many frames have come.
    async fn go(&mut self, frames: usize) {
        let mut left = frames;
        loop {
            loop {
                let now = rivus_core::clock::Millis(1);
                let frame = self.session.poll_transmit(&mut self.db.lock().unwrap(), now).unwrap();
                let Some(frame) = frame else { break };
                self.send(frame).await;
            }
            if left == 0 {
                return;
            }
            match self.socket.next().await {
                Some(Ok(Message::Binary(frame))) => {
                    left -= 1;
                    let now = rivus_core::clock::Millis(1);
                    self.session.handle(&mut self.db.lock().unwrap(), &frame, now).unwrap();
                }
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// With which code of GOAWAY, and which of the WebSocket, it ends.
    async fn end(mut self) -> (Option<Code>, u16) {
        let ends = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Binary(frame))) => {
                        if let Ok(rivus_core::wire::Frame::Goaway { code, .. }) =
                            rivus_core::wire::Frame::decode(&frame)
                        {
                            self.goaway = Some(code);
                        }
                    }
                    Some(Ok(Message::Close(Some(last)))) => return (self.goaway, u16::from(last.code)),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        timeout(Duration::from_secs(60), ends).await.unwrap()
    }
}

#[test]
fn every_code_of_this_protocol_is_told_by_the_close_frame_and_read_again() {
    for code in 1..FAMILY {
        let refused = SyncError::from(SessionError::Refused { code: Code(code), message: "why".to_owned() });
        let last = last_word(Err(&refused), Side::Hub);
        assert_eq!(u16::from(last.code), 4000 + code);
        assert!(last.reason.len() <= 123 && last.code.is_allowed());
        let told = told(Some(last));
        assert!(matches!(&told, SyncError::Session(SessionError::Goaway { .. })), "{told:?}");
        assert_eq!(told.code(), Some(Code(code)));
    }
}

#[test]
fn each_way_to_end_has_its_close_code() {
    let refused = |code| SyncError::from(SessionError::Refused { code, message: String::new() });
    let goaway = SessionError::Goaway { code: Code::RATE, message: String::new(), retry_after_ms: None };
    // The table of `docs/protocol.md`.
    let rows = [
        (Ok(Ended::Done), Side::Hub, 1000),
        (Ok(Ended::Stopped), Side::Hub, 1001),
        (Ok(Ended::Stopped), Side::Device, 1000),
        (Err(SyncError::from(goaway)), Side::Hub, 1000),
        (Err(refused(Code::CLOSED)), Side::Device, 1000),
        (Err(SyncError::WebSocket(String::new())), Side::Hub, 1002),
        (Err(refused(Code(20_000))), Side::Hub, 1008),
        (Err(SyncError::Broken(String::new())), Side::Hub, 1011),
        (Err(SyncError::Text), Side::Hub, 4100),
        (Err(SyncError::Packing), Side::Hub, 4100),
        (Err(SyncError::TooLarge { bytes_max: 1 }), Side::Hub, 4101),
        (Err(SyncError::Silent), Side::Hub, 4502),
        (Err(SyncError::Stalled), Side::Hub, 4504),
    ];
    for (ended, side, code) in rows {
        let last = last_word(ended.as_ref().copied(), side);
        assert_eq!(u16::from(last.code), code, "{ended:?} {side:?}");
        if code < 4000 {
            assert!(matches!(told(Some(last)), SyncError::Broken(_)), "{code}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_good_token_is_told_in_goaway_and_in_the_close_code() {
    let hub = serve(HubOptions::closed().grant("good", 0)).await;
    let mut client = Plain::connect(&hub, Some("bad")).await;
    client.go(0).await;
    assert_eq!(client.end().await, (Some(Code::UNAUTHORISED), 4200));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_read_is_told_in_goaway_and_in_the_close_code() {
    let options = HubOptions::open().authorizer(|_, access, _| access != Access::Read);
    let hub = serve(options).await;
    let mut client = Plain::connect(&hub, None).await;
    // WELCOME, and then it subscribes.
    client.go(1).await;
    assert_eq!(client.end().await, (Some(Code::SCOPE), 4404));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sends_too_much_in_a_second_is_told_in_goaway_and_in_the_close_code() {
    let limits = Limits { registers_per_second: Some(10), ..Limits::default() };
    let hub = serve(HubOptions::open().limits(limits)).await;
    let mut client = Plain::connect(&hub, None).await;
    client.go(1).await;
    for _ in 0..100 {
        // Of a type that nobody knows and everybody may ignore.
        client.send(vec![200]).await;
    }
    assert_eq!(client.end().await, (Some(Code::RATE), 4503));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_hub_stops_everybody_is_told_that_it_goes_away() {
    let hub = serve(HubOptions::open()).await;
    let mut client = Plain::connect(&hub, None).await;
    client.go(1).await;
    let stops = tokio::spawn(hub.shutdown());
    assert_eq!(client.end().await, (Some(Code::CLOSED), 1001));
    timeout(Duration::from_secs(60), stops).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_is_told_in_the_close_code() {
    let hub = serve(HubOptions::open()).await;
    let mut client = Plain::connect(&hub, None).await;
    client.send(vec![7, 0, 1]).await;
    assert_eq!(client.end().await, (Some(Code::UNEXPECTED), 4103));
    let mut client = Plain::connect(&hub, None).await;
    client.go(1).await;
    client.send(vec![99]).await;
    assert_eq!(client.end().await, (Some(Code::BAD_FRAME), 4100));
    // What is no frame of this protocol is answered with none.
    let mut client = Plain::connect(&hub, None).await;
    client.socket.send(Message::Text("hello".into())).await.unwrap();
    assert_eq!(client.end().await, (None, 4100));
    let mut client = Plain::connect(&hub, None).await;
    // A frame of a client that is not masked.
    let MaybeTlsStream::Plain(raw) = client.socket.get_mut() else { panic!("it is plain") };
    raw.write_all(&[0x82, 1, 0]).await.unwrap();
    assert_eq!(client.end().await, (None, 1002));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_is_told_in_the_close_code_once_it_is_sent() {
    let hub = serve(HubOptions::open()).await;
    let mut client = Plain::connect(&hub, None).await;
    client.go(1).await;
    client.send(vec![7; FRAME_BYTES_MAX + 17]).await;
    assert_eq!(client.end().await, (None, 4101));
    // It is counted once the connection has ended.
    let counted = async {
        while !hub.metrics().contains("rivus_sessions_ended_total{code=\"101\",name=\"TOO_LARGE\"} 1") {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), counted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_greeting_a_long_message_is_refused_at_its_first_bytes() {
    let hub = serve(HubOptions::open()).await;
    let mut client = Plain::connect(&hub, None).await;
    let MaybeTlsStream::Plain(raw) = client.socket.get_mut() else { panic!("it is plain") };
    // A message of 32 MiB is announced, and never comes.
    raw.write_all(&[0x82, 0x80 | 127, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
    assert_eq!(client.end().await, (None, 4101));
    // One that comes is told as well.
    let mut client = Plain::connect(&hub, None).await;
    client.send(vec![1; 80 << 10]).await;
    assert_eq!(client.end().await, (None, 4101));
    // In parts, too.
    let mut client = Plain::connect(&hub, None).await;
    for _ in 0..9 {
        client.socket.send(Message::Ping(vec![0; 125].into())).await.unwrap();
    }
    client.send(vec![200; 65_535]).await;
    assert_eq!(client.end().await, (None, 4101));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greeting_as_long_as_it_may_be_is_taken_and_what_comes_after_it_may_be_longer() {
    let hub = serve(HubOptions::open()).await;
    let mut client = Plain::connect(&hub, None).await;
    let now = rivus_core::clock::Millis(1);
    let mut hello = client.session.poll_transmit(&mut client.db.lock().unwrap(), now).unwrap().unwrap();
    // One more entry of the map, which nobody knows: 24 => bytes.
    assert_eq!(hello[1] & 0xe0, 0xa0, "a short map");
    hello[1] += 1;
    let pad = rivus_core::wire::GREETING_BYTES_MAX - hello.len() - 5;
    hello.extend_from_slice(&[0x18, 24, 0x59]);
    hello.extend_from_slice(&u16::try_from(pad).unwrap().to_be_bytes());
    hello.extend(std::iter::repeat_n(0, pad));
    client.send(hello).await;
    client.go(1).await;
    // Far more than may come before, of a type that does not belong there: it is heard whole.
    client.send([vec![14], vec![0; 1 << 20]].concat()).await;
    let (goaway, _) = client.end().await;
    assert!(goaway.is_some_and(|code| code != Code::TOO_LARGE), "{goaway:?}");
}

/// A hub that closes the socket with this and says nothing of its own.
async fn closes_with(code: u16) -> SyncError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let hub = tokio::spawn(async move {
        let mut socket = accept_async(listener.accept().await.unwrap().0).await.unwrap();
        socket.next().await.unwrap().unwrap();
        socket.close(Some(CloseFrame { code: CloseCode::from(code), reason: "why".into() })).await.unwrap();
        // The device answers the last word, so that the two part in order.
        matches!(socket.next().await, Some(Ok(Message::Close(_))))
    });
    let Err(Error::Sync(error)) = open().sync(&Remote::new(url)).await else { panic!("it is no hub") };
    assert!(hub.await.unwrap(), "{code}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_reads_the_close_code_where_no_goaway_came() {
    for (code, class) in [
        (4200, ErrorClass::Unauthorised),
        (4503, ErrorClass::RateLimited),
        (4404, ErrorClass::Forbidden),
        (4101, ErrorClass::Protocol),
        (1001, ErrorClass::Offline),
        (1011, ErrorClass::Offline),
        (4000, ErrorClass::Offline),
    ] {
        let error = closes_with(code).await;
        assert_eq!(error.class(), class, "{code}: {error}");
        assert!(error.to_string().contains(&code.to_string()), "{error}");
    }
}
