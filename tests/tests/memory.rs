//! What a connection costs a hub, in memory: by the pages that its process holds.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use futures_util::{SinkExt, StreamExt};
use rivus::{Db, Remote};
use rivus_core::wire::{Frame, tag};
use rivus_tests::hostile::{Socket, greet, schema, subscribe};
use tokio_tungstenite::tungstenite::Message;

/// A process of `src/bin/hub.rs`.
struct HubProcess {
    child: Child,
    url: String,
}

impl HubProcess {
    fn start(file: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rivus-test-hub"));
        let mut child = command.arg(file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned() }
    }

    /// How much of its memory is its own and there, in bytes.
    fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    }
}

impl Drop for HubProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Greets and subscribes, and leaves what comes unread.
async fn subscribed(hub: &HubProcess, n: u64) -> Socket {
    let mut socket = greet(&hub.url, None, n).await.unwrap();
    socket.send(Message::Binary(subscribe().into())).await.unwrap();
    socket
}

/// Reads until everything is there, and goes on listening to nothing.
async fn idle(hub: &HubProcess, n: u64) -> Socket {
    let mut socket = subscribed(hub, n).await;
    loop {
        let Message::Binary(bytes) = socket.next().await.unwrap().unwrap() else { continue };
        if matches!(bytes.first(), Some(&(tag::CHECKPOINT | tag::EQUAL))) {
            return socket;
        }
        assert!(!matches!(Frame::decode(&bytes), Ok(Frame::Goaway { .. })), "{n} is turned away");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_costs_the_hub_at_most_64_kib() {
    const CONNECTIONS: usize = 300;
    let folder = tempfile::tempdir().unwrap();
    let hub = HubProcess::start(&folder.path().join("hub.db"));
    let device = Db::memory(schema().unwrap()).unwrap();
    device.put("task", "t", [("title", "x".into())]).unwrap();
    device.sync(&Remote::new(&hub.url)).await.unwrap();
    let mut held = Vec::new();
    // What a process takes for its first connections it takes once.
    for n in 0..20 {
        held.push(idle(&hub, 1000 + n).await);
    }
    let before = hub.resident();
    for n in 0..CONNECTIONS as u64 {
        held.push(idle(&hub, 2000 + n).await);
    }
    let each = hub.resident().saturating_sub(before) / CONNECTIONS;
    println!("{} KiB for each of {CONNECTIONS} idle connections", each >> 10);
    assert!(each <= 64 << 10, "{each} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_reads_nothing_costs_the_hub_at_most_4_mib() {
    const READERS: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.db");
    // More than the sockets take: 24 MB that do not compress well.
    let db = Db::open(&file, schema().unwrap()).unwrap();
    for n in 0..200 {
        let text: String = (0..4500).map(|_| rivus::new_id()).collect();
        db.put("task", &format!("t{n}"), [("title", text.into())]).unwrap();
    }
    drop(db);
    let hub = HubProcess::start(&file);
    let device = Db::memory(schema().unwrap()).unwrap();
    device.sync(&Remote::new(&hub.url)).await.unwrap();
    let before = hub.resident();
    let mut held = Vec::new();
    let mut most = before;
    for n in 0..READERS as u64 {
        held.push(subscribed(&hub, 1000 + n).await);
        // Others are served meanwhile, so the hub has had its time for this one.
        for m in 0..10 {
            device.put("task", "own", [("title", format!("{n} {m}").into())]).unwrap();
            device.push_once(&Remote::new(&hub.url)).await.ok().unwrap();
            most = most.max(hub.resident());
        }
    }
    let each = most.saturating_sub(before) / READERS;
    println!("{} KiB for each of {READERS} connections that read nothing", each >> 10);
    assert!(each <= 4 << 20, "{each} bytes");
}
