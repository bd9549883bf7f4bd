//! Clients that mean harm, over real sockets: the hub stays up, and nobody reads or writes where they may not.

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use rivus::{Db, Hub, HubOptions, Limits, Remote, Shown};
use rivus_core::code::Code;
use rivus_core::wire::page::RowEncoder;
use rivus_core::wire::{Frame, PAGE_BYTES_AIM, WINDOW_BYTES, tag};
use rivus_testkit::random::Random;
use rivus_tests::hostile::{Lie, Socket, greet, push, push_lie, schema, subscribe};
use rivus_tests::random::seed;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

fn open() -> Db {
    Db::memory(schema().unwrap()).unwrap()
}

fn limits() -> Limits {
    Limits { registers_per_second: Some(200), ..Limits::default() }
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
        if let Ok(mut socket) = greet(&served.url(), None, 1000 + n).await {
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

/// Each lie gets the verdict that is its own, and nothing of it is written.
#[tokio::test(flavor = "multi_thread")]
async fn lies_about_replica_time_context_and_rank_are_refused() {
    let hub = open();
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await.unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let now = u64::try_from(now).unwrap();
    for (n, lie, code) in [
        (100, Lie::Replica, Code::FOREIGN_STAMP),
        (200, Lie::Time, Code::CLOCK_SKEW),
        (300, Lie::Context, Code::SEEN),
        (400, Lie::Rank, Code::RANK),
    ] {
        let mut socket = greet(&served.url(), None, n).await.unwrap();
        socket.send(Message::Binary(push_lie(lie, n, now).into())).await.unwrap();
        let ack = loop {
            let Some(Ok(message)) = socket.next().await else { panic!("{lie:?}: no answer") };
            if let Message::Binary(bytes) = message
                && let Ok(Frame::Ack(ack)) = Frame::decode(&bytes)
            {
                break ack;
            }
        };
        let codes: Vec<_> = ack.exceptions.iter().map(|exception| exception.code).collect();
        assert_eq!(codes, [Some(code)], "{lie:?}");
    }
    assert!(hub.view("task", "t").unwrap().is_none());
    served.shutdown().await;
}

/// Who may do nothing is told of nothing, and changes nothing, however it asks.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_right_neither_reads_nor_writes() {
    let hub = open();
    hub.put("task", "t", [("title", "secret".into())]).unwrap();
    let options = HubOptions::closed().grant_as("ann", "a", 0);
    let options = options.authorizer(|_, _, _| false);
    let served = hub.serve("127.0.0.1:0", options).await.unwrap();
    let mut socket = greet(&served.url(), Some("a"), 500).await.unwrap();
    // In order but for the rights.
    let push = push(&mut RowEncoder::default(), 500, 0, 1);
    socket.send(Message::Binary(push.into())).await.unwrap();
    socket.send(Message::Binary(subscribe().into())).await.unwrap();
    let mut told = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(bytes) = message {
            assert!(!bytes.windows(6).any(|part| part == b"secret"));
            told.push(bytes[0]);
        }
    }
    assert!(!told.contains(&tag::DELTA), "{told:?}");
    assert!(hub.view("task", "500-0").unwrap().is_none());
    served.shutdown().await;
}

/// How many bytes a hub has sent.
fn sent(served: &Hub) -> u64 {
    let metrics = served.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix("rivus_bytes_out_total "));
    line.unwrap().parse().unwrap()
}

/// What somebody asks for and does not read waits where it is, whatever else the hub is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_is_sent_a_window_and_others_are_served_meanwhile() {
    let hub = open();
    for n in 0..60 {
        hub.put("task", &format!("t{n}"), [("title", "x".repeat(200_000).into())]).unwrap();
    }
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await.unwrap();
    let (a, b) = (open(), open());
    let connections = [&a, &b].map(|device| device.connect(Remote::new(served.url())));
    for connection in &connections {
        connection.synced().await.unwrap();
    }
    let (before, mut changes) = (sent(&served), b.subscribe());
    let mut mute = greet(&served.url(), None, 66).await.unwrap();
    mute.send(Message::Binary(subscribe().into())).await.unwrap();
    let mut begun = 0;
    for n in 0..10_000_i64 {
        a.put("task", "live", [("title", n.into())]).unwrap();
        let is_here = |db: &Db| {
            let shown = db.view("task", "live").unwrap().and_then(|view| view.fields.get("title").cloned());
            shown == Some(Shown::Value(n.into()))
        };
        while !is_here(&b) {
            changes.next().await.unwrap().unwrap();
        }
        // It goes on for a while after the first page has gone out.
        begun += u64::from(sent(&served) - before > PAGE_BYTES_AIM as u64);
        if begun == 100 {
            break;
        }
    }
    assert_eq!(begun, 100, "the hub has begun to tell it");
    let sent = sent(&served) - before;
    assert!(sent < 2 * WINDOW_BYTES, "{sent} bytes, of 12 MB");
    assert!(served.metrics().contains("\nrivus_connections 3\n"));
    // It has lost nothing but time.
    let told = mute.next().await.unwrap().unwrap();
    assert_eq!(told.into_data()[0], tag::WELCOME);
    drop(mute);
    for connection in connections {
        connection.close().await;
    }
    served.shutdown().await;
}
