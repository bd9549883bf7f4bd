//! Clients that mean harm, over real sockets: the hub stays up, and the others hardly notice.

use futures_util::{SinkExt, StreamExt};
use rivus::{Db, HubOptions, Limits, Remote, Schema};
use rivus_core::code::Code;
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::Cursor;
use rivus_core::wire::{About, Frame, Hello, Subscribe};
use rivus_testkit::random::Random;
use rivus_tests::random::seed;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn schema() -> Schema {
    Schema::builder().kind("task", |kind| kind.open().value("title")).build().unwrap()
}

fn open() -> Db {
    Db::memory(schema()).unwrap()
}

fn limits() -> Limits {
    Limits { registers_per_second: Some(200), ..Limits::default() }
}

fn subscribe() -> Vec<u8> {
    let cursor = Cursor::default();
    let (live, everything) = (true, true);
    Frame::Subscribe(Subscribe { cursor, incarnation: None, live, everything, digest: None }).encode()
}

/// A socket after HELLO under these ids, whoever they belong to.
async fn greet(url: &str, token: Option<&str>, n: u64) -> Option<Socket> {
    let (mut socket, _) = connect_async(url).await.ok()?;
    let replica = ReplicaId::from_u128(u128::from(n));
    let history = [(Incarnation(n), 1)];
    let about =
        About::new(StoreId(n), [replica].into_iter(), &history, 1, schema().fingerprint(), 1_700_000_000_000);
    let token = token.map(str::to_owned);
    let hello = Hello { version_min: 1, version_max: 1, capabilities: 0, about, token, offers: true };
    socket.send(Message::Binary(Frame::Hello(hello).encode().into())).await.ok()?;
    Some(socket)
}

/// Why the hub ended it.
async fn farewell(socket: &mut Socket) -> Option<Frame> {
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(bytes) = message
            && let Ok(frame @ Frame::Goaway { .. }) = Frame::decode(&bytes)
        {
            return Some(frame);
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_of_every_kind_ends_its_own_connection_alone() {
    let first = seed(0x5eed_0009);
    println!("RIVUS_TEST_SEED={first}");
    let mut random = Random::new(first);
    let hub = open();
    let served = hub.serve("127.0.0.1:0", HubOptions::open().connections_max(8)).await.unwrap();
    let a = open();
    let connection = a.connect(Remote::new(served.url()));
    for n in 0..60 {
        let junk: Vec<u8> =
            (0..random.below(300)).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
        // Below WebSocket, in place of HELLO, and after it.
        let mut raw = TcpStream::connect(served.address()).await.unwrap();
        let _ = raw.write_all(&junk).await;
        drop(raw);
        let (mut socket, _) = connect_async(served.url()).await.unwrap();
        let _ = socket.send(Message::Binary(junk.clone().into())).await;
        drop(socket);
        if let Some(mut socket) = greet(&served.url(), None, 1000 + n).await {
            let _ = socket.send(Message::Binary(junk.into())).await;
        }
    }
    a.put("task", "t", [("title", "still here".into())]).unwrap();
    connection.synced().await.unwrap();
    assert!(hub.view("task", "t").unwrap().is_some());
    connection.close().await;
    served.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_asked_to_come_back_later() {
    let hub = open();
    hub.put("task", "t", [("title", "x".into())]).unwrap();
    let served = hub.serve("127.0.0.1:0", HubOptions::open().limits(limits())).await.unwrap();
    let mut socket = greet(&served.url(), None, 66).await.unwrap();
    for _ in 0..2000 {
        if socket.feed(Message::Binary(subscribe().into())).await.is_err() {
            break;
        }
    }
    let _ = socket.flush().await;
    let told = farewell(&mut socket).await;
    let Some(Frame::Goaway { code: Code::RATE, retry_after_ms: Some(1..), .. }) = told else {
        panic!("{told:?}")
    };
    served.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_another_account_are_refused_over_the_socket() {
    let hub = open();
    let options = HubOptions::closed().grant_as("ann", "a", 0).grant_as("bob", "b", 0);
    let served = hub.serve("127.0.0.1:0", options).await.unwrap();
    drop(greet(&served.url(), Some("a"), 66).await.unwrap().next().await);
    let mut socket = greet(&served.url(), Some("b"), 66).await.unwrap();
    let told = farewell(&mut socket).await;
    assert!(matches!(told, Some(Frame::Goaway { code: Code::OWNER, .. })), "{told:?}");
    served.shutdown().await;
}
