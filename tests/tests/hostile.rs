//! Clients that mean harm, over real sockets: the hub stays up, and the others hardly notice.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use rivus::{Db, Event, HubOptions, Limits, Remote};
use rivus_core::code::Code;
use rivus_core::wire::page::RowEncoder;
use rivus_core::wire::{Frame, tag};
use rivus_testkit::random::Random;
use rivus_tests::hostile::{Attack, Lie, Socket, greet, push, push_lie, schema, subscribe};
use rivus_tests::random::seed;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
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

/// A process that attacks. Dropping it ends it.
struct Attacker {
    process: Child,
    sent: Arc<AtomicUsize>,
}

impl Attacker {
    /// Starts one, and waits until it has begun.
    async fn start(url: &str, attack: Attack) -> Self {
        let name = format!("{attack:?}").to_lowercase();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rivus-test-attacker"));
        let mut process = command.args([url, &name]).stdout(Stdio::piped()).spawn().unwrap();
        let sent = Arc::new(AtomicUsize::new(0));
        let (begin, mut begun) = mpsc::channel(1);
        let (lines, count) = (BufReader::new(process.stdout.take().unwrap()).lines(), Arc::clone(&sent));
        std::thread::spawn(move || {
            for _ in lines.map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = begin.try_send(());
            }
        });
        begun.recv().await.unwrap();
        Self { process, sent }
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How long edits take from one device to another's subscriber.
async fn latencies(from: &Db, to: &Db, edits: usize, mark: &str) -> Vec<Duration> {
    let mut events = to.subscribe();
    let mut all = Vec::new();
    // At a person's pace: whoever writes without a pause keeps a hub as busy as an attacker.
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for n in 0..edits {
        pace.tick().await;
        let begun = Instant::now();
        let title = format!("{mark}{n}");
        from.put("task", "live", [("title", title.as_str().into())]).unwrap();
        while let Some(Ok(event)) = events.next().await {
            if matches!(&event, Event::Changed { id, .. } if id == "live") {
                break;
            }
        }
        all.push(begun.elapsed());
    }
    all
}

fn median(all: &mut [Duration]) -> Duration {
    all.sort();
    all.get(all.len() / 2).copied().unwrap()
}

/// Those who measure do it one after the other.
static MEASURES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Rounds of edits alone and beside an attacker, in turns, so that what else the machine does weighs on both. Where they
/// do not settle it, twice as many do.
async fn beside(attack: Attack) {
    let _alone = MEASURES.lock().await;
    let hub = open();
    for n in 0..2000 {
        hub.put("task", &format!("t{n}"), [("title", "much to be asked for".into())]).unwrap();
    }
    let options = HubOptions::closed().grant_as("ann", "a", 0).grant_as("bob", "b", 0).anonymous(0);
    let served = hub.serve("127.0.0.1:0", options).await.unwrap();
    let (a, b) = (open(), open());
    let to_a = a.connect(Remote::new(served.url()).token("a"));
    let to_b = b.connect(Remote::new(served.url()).token("b"));
    to_a.synced().await.unwrap();
    to_b.synced().await.unwrap();
    let (mut alone, mut attacked, mut sent) = (Vec::new(), Vec::new(), 0);
    for round in 0..12 {
        alone.extend(latencies(&a, &b, 15, &format!("alone{round}-")).await);
        let attacker = Attacker::start(&served.url(), attack).await;
        attacked.extend(latencies(&a, &b, 15, &format!("beside{round}-")).await);
        sent += attacker.sent.load(Ordering::Relaxed);
        drop(attacker);
        // What it has left behind is no part of the calm.
        for n in 0..100 {
            if served.metrics().contains("\nrivus_connections 2\n") {
                break;
            }
            latencies(&a, &b, 1, &format!("after{round}-{n}-")).await;
        }
        if round == 5 && median(&mut attacked) <= 3 * median(&mut alone) {
            break;
        }
    }
    let worst = attacked.iter().max().copied().unwrap();
    let (alone, attacked) = (median(&mut alone), median(&mut attacked));
    println!("{attack:?}: {alone:?} alone, {attacked:?} (at most {worst:?}) beside {sent} frames");
    assert!(attacked <= 3 * alone, "{attack:?}: {alone:?} alone, {attacked:?} beside an attacker");
    to_a.close().await;
    to_b.close().await;
    served.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_beside_junk_take_at_most_three_times_as_long() {
    beside(Attack::Junk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_beside_one_who_asks_for_everything_take_at_most_three_times_as_long() {
    beside(Attack::Pages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_beside_those_who_never_read_take_at_most_three_times_as_long() {
    beside(Attack::Stalls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_beside_frames_that_unpack_to_much_take_at_most_three_times_as_long() {
    beside(Attack::Bombs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_beside_probes_take_at_most_three_times_as_long() {
    beside(Attack::Pings).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_beside_pushes_of_much_take_at_most_three_times_as_long() {
    beside(Attack::Pushes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_beside_frames_that_say_nothing_take_at_most_three_times_as_long() {
    beside(Attack::Nothing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_beside_one_who_asks_for_sketches_take_at_most_three_times_as_long() {
    beside(Attack::Sketches).await;
}
