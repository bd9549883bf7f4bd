//! Processes that stay connected from one file: one of them at a time, and the others hear of what it brings.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rivus::{Action, Db, HubOptions, Op, Remote, Shown, SyncState};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// After so long a test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process of `src/bin/live.rs`.
struct Live {
    child: Child,
    orders: ChildStdin,
    said: Receiver<String>,
}

impl Live {
    fn start(file: &Path, url: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rivus-test-live"));
        command.arg(file).arg(url).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (say, said) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            let _ = lines.map_while(Result::ok).try_for_each(|line| say.send(line));
        });
        Self { orders: child.stdin.take().unwrap(), child, said }
    }

    /// Waits for a line.
    fn says(&self, wanted: &str) {
        let until = Instant::now() + PATIENCE;
        let mut all = Vec::new();
        loop {
            match self.said.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if line == wanted => return,
                Ok(line) => all.push(line),
                Err(_) => panic!("it does not say `{wanted}` but {all:?}"),
            }
        }
    }

    fn put(&mut self, id: &str) {
        writeln!(self.orders, "{id} 1").unwrap();
    }

    /// Ends it at once, and gives what it said that nobody has read.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.said.iter().collect()
    }
}

/// Passes connections on to a hub, and tells how many there are.
async fn counted(hub: std::net::SocketAddr) -> (String, watch::Receiver<usize>) {
    let (count, counted) = watch::channel(0);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let count = count.clone();
            count.send_modify(|open| *open += 1);
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(hub).await {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
                count.send_modify(|open| *open -= 1);
            });
        }
    });
    (url, counted)
}

/// Waits until there is one connection: a leader that meets a new writer makes its own anew.
async fn is_one(open: &mut watch::Receiver<usize>) {
    let one = tokio::time::timeout(PATIENCE, open.wait_for(|open| *open == 1)).await;
    assert!(one.is_ok_and(|open| open.is_ok()), "not one connection for both");
}

/// Waits until a database holds what is looked for; it looks again at each change.
async fn holds(db: &Db, what: impl Fn(&Db) -> bool) {
    let mut events = db.subscribe();
    let found = async {
        while !what(db) {
            let next = std::future::poll_fn(|cx| {
                futures_core::Stream::poll_next(std::pin::Pin::new(&mut events), cx)
            });
            next.await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, found).await.is_ok(), "it does not come in time");
}

fn has(db: &Db, id: &str) -> bool {
    db.view("task", id).unwrap().is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_one_connects_for_both_and_the_other_takes_over_when_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let hub = Db::memory(rivus_tests::schema()).unwrap();
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await.unwrap();
    let (url, mut open) = counted(served.address()).await;

    let mut leader = Live::start(&file, &url);
    leader.says("state synced");
    let mut took = Vec::new();
    // A noisy machine may hold up one of them.
    for round in 1..=3 {
        let mut follower = Live::start(&file, &url);
        follower.says("state following");
        is_one(&mut open).await;

        let id = |who: &str| format!("{who}{round}");
        follower.put(&id("f"));
        leader.says(&format!("changed {} other", id("f")));
        holds(&hub, |hub| has(hub, &id("f"))).await;
        leader.put(&id("l"));
        follower.says(&format!("changed {} other", id("l")));
        hub.put("task", &id("h"), [("n", 1.into())]).unwrap();
        leader.says(&format!("changed {} remote", id("h")));
        follower.says(&format!("changed {} other", id("h")));
        is_one(&mut open).await;

        let killed = Instant::now();
        leader.kill();
        follower.says("state synced");
        took.push(killed.elapsed());
        follower.put(&id("t"));
        holds(&hub, |hub| has(hub, &id("t"))).await;
        leader = follower;
    }
    leader.kill();
    println!("taken over after {took:?}");
    assert!(took.iter().any(|took| *took < Duration::from_secs(1)), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_two_processes_survive_the_end_of_the_one_that_connects() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let hub = Db::memory(rivus_tests::schema()).unwrap();
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await.unwrap();
    let url = served.url();
    let mut leader = Live::start(&file, &url);
    leader.says("state synced");
    let mut follower = Live::start(&file, &url);
    follower.says("state following");
    for n in 0..60 {
        leader.put(&format!("l{n}"));
        follower.put(&format!("f{n}"));
    }
    // In the middle of it.
    leader.says("acked l20 1");
    let rest = leader.kill();
    let acked =
        rest.iter().filter_map(|line| line.strip_prefix("acked ")?.strip_suffix(" 1").map(str::to_owned));
    let mut all: BTreeSet<String> = acked.collect();
    all.extend((0..=20).map(|n| format!("l{n}")));
    all.extend((0..60).map(|n| format!("f{n}")));
    // Both go on in any order: the last edit, and the lead.
    let id = "last";
    follower.put(id);
    follower.says("acked last 1");
    holds(&hub, |hub| has(hub, id) && all.iter().all(|id| has(hub, id))).await;
    follower.kill();
    let db = Db::open(&file, rivus_tests::schema()).unwrap();
    db.sync(&Remote::new(&url)).await.unwrap();
    let (here, there) = (db.status().unwrap(), hub.status().unwrap());
    assert_eq!((here.pending, here.rejected, here.digest), (0, 0, there.digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_lead_at_once_because_somebody_removed_the_lock_file_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let hub = Db::memory(rivus_tests::schema()).unwrap();
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await.unwrap();
    let url = served.url();
    let dbs = [0, 1].map(|_| Db::open(&file, rivus_tests::schema()).unwrap());
    let is_live = |state: &SyncState| state.connected;
    let first = dbs[0].connect(url.as_str().into());
    first.states().wait_for(is_live).await.unwrap();
    let locks = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let lock: Vec<_> = locks.filter(|path| path.to_str().unwrap().contains("app.db-sync-")).collect();
    assert_eq!(lock.len(), 1, "{lock:?}");
    std::fs::remove_file(&lock[0]).unwrap();
    let second = dbs[1].connect(url.as_str().into());
    second.states().wait_for(is_live).await.unwrap();
    for n in 0..40 {
        for (db, name) in dbs.iter().zip(["a", "b"]) {
            db.put("task", &format!("{name}{n}"), [("n", n.into())]).unwrap();
            db.apply(&[Op::new("task", "sum", Action::Inc { field: "views".into(), by: 1 })]).unwrap();
            if n % 10 == 0 {
                hub.put("task", &format!("h{n}{name}"), [("n", n.into())]).unwrap();
            }
        }
    }
    for connection in [&first, &second] {
        connection.synced().await.unwrap();
        assert!(is_live(&connection.state()));
    }
    let sum = hub.view("task", "sum").unwrap().and_then(|view| view.fields.get("views").cloned());
    assert_eq!((sum, hub.views("task").unwrap().len()), (Some(Shown::Counter(80)), 89));
    let digests = [&dbs[0], &dbs[1], &hub].map(|db| db.status().unwrap().digest);
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}
