//! Clients that mean harm, and how little others notice of them. Apart from the other tests: what runs beside it is measured
//! too.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rivus::{Db, Event, HubOptions, Remote};
use rivus_tests::hostile::{Attack, schema};
use tokio::sync::mpsc;

fn open() -> Db {
    Db::memory(schema().unwrap()).unwrap()
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

/// Where the first rounds do not settle it, more do.
const ROUNDS_MAX: usize = 24;

/// Rounds of edits alone and beside an attacker, in turns, so that what else the machine does weighs on both.
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
    for round in 0..ROUNDS_MAX {
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
        if round % 6 == 5 && median(&mut attacked) <= 3 * median(&mut alone) {
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
