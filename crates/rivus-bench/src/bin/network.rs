//! Prints what syncing over sockets costs, with the hub as a process of its own.
//!
//! `network [PART]` prints only `idle`, `fleet`, `memory`, `bootstrap`, `slow` or `scopes`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a measurement that fails has nothing to say"
)]

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rivus::{
    Action, Connection, Db, Event, HubOptions, KindBuilder, Millis, Op, Origin, Remote, Schema,
    SqliteOptions, Synchronous, Value,
};
use rivus_bench::workload::Random;
use rivus_core::clock::Admission;
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::Seeds;
use rivus_core::replica::{OpenOptions, Replica};
use rivus_core::session::{Role, Session, SessionOptions, Want};
use rivus_core::store::MemoryStore;
use rivus_core::wire::tag;
use tokio_tungstenite::tungstenite::Message;

/// Registers of the large store: the fields of its entities, and one for the life of each.
const REGISTERS: usize = 1_000_000;
const REGISTERS_EACH: usize = 10;
const IDLE: usize = 200;
const ACTIVE: usize = 50;
/// Edits that are timed.
const EDITS: usize = 400;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let part = arguments.next();
    if part.as_deref() == Some("hub") {
        return serve(&PathBuf::from(arguments.next().expect("the hub's file"))).await;
    }
    let wants = |name: &str| part.as_deref().is_none_or(|part| part == name);
    if wants("idle") {
        nothing_to_sync().await;
    }
    if wants("fleet") {
        fleet().await;
    }
    if wants("memory") {
        memory().await;
    }
    if wants("bootstrap") {
        bootstrap().await;
    }
    if wants("slow") {
        slow().await;
    }
    if wants("scopes") {
        scopes().await;
    }
}

/// The hub's process: tells its address, and ends with its standard input.
async fn serve(file: &Path) {
    let db = Db::open(file, schema()).unwrap();
    let hub = db.serve("127.0.0.1:0", HubOptions::open().connections_max(4096)).await.unwrap();
    println!("{}", hub.url());
    std::io::stdout().flush().unwrap();
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()))
        .await
        .unwrap()
        .unwrap();
    hub.shutdown().await;
}

struct Hub {
    process: Child,
    _input: ChildStdin,
    url: String,
}

impl Hub {
    fn start(file: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg("hub")
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let input = process.stdin.take().unwrap();
        Self { process, _input: input, url: url.trim().to_owned() }
    }

    /// The process's resident memory, in bytes.
    fn resident(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.process.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }
}

/// What a process has used of the processors.
fn used(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name may hold anything but is the last thing in parentheses; ticks are hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    Duration::from_millis(fields.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn memory_db() -> Db {
    Db::memory(schema()).unwrap()
}

/// Tasks, and notes in lists, which are scopes.
fn schema() -> Schema {
    let fields = |k: KindBuilder| (0..REGISTERS_EACH).fold(k, |k, field| k.value(format!("field {field}")));
    let builder = Schema::builder().kind("task", |k| fields(k).value("title"));
    builder.kind("note", |k| fields(k).value("text").value("list").scope("list")).build().unwrap()
}

async fn connected(hub: &Hub) -> (Db, Connection) {
    let db = memory_db();
    let connection = db.connect(hub.url.as_str().into());
    connection.synced().await.unwrap();
    (db, connection)
}

async fn nothing_to_sync() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(&folder.path().join("hub.db"));
    let device = memory_db();
    for id in 0..100 {
        device.put("task", &format!("t{id}"), [("title", Value::from("write"))]).unwrap();
    }
    device.sync(&hub.url.as_str().into()).await.unwrap();
    device.sync(&hub.url.as_str().into()).await.unwrap();
    let report = device.sync(&hub.url.as_str().into()).await.unwrap();
    println!("nothing to sync: {} bytes sent, {} received", report.bytes_sent, report.bytes_received);
}

/// Many devices, some of which edit: how long until another one shows it.
async fn fleet() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(&folder.path().join("hub.db"));
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(connected(&hub).await);
    }
    let mut active = Vec::new();
    for _ in 0..ACTIVE {
        active.push(connected(&hub).await);
    }
    for (label, pause) in [("one at a time, 20 a second", 50), ("one at a time, 100 a second", 10)] {
        let mut times = Vec::new();
        let mut durable = Vec::new();
        let processes = [hub.process.id(), std::process::id()];
        let before = processes.map(used);
        for edit in 0..EDITS {
            let (author, connection) = &active[edit % ACTIVE];
            let (reader, _) = &active[(edit + 17) % ACTIVE];
            let mut events = reader.subscribe();
            let id = format!("t{edit}");
            let started = Instant::now();
            author
                .put(
                    "task",
                    &id,
                    [(
                        "title",
                        Value::Int(i64::try_from(edit + EDITS * usize::try_from(pause).unwrap()).unwrap()),
                    )],
                )
                .unwrap();
            loop {
                match events.next().await.unwrap() {
                    Ok(Event::Changed { id: changed, origin: Origin::Remote(_), .. }) if changed == id => {
                        break;
                    }
                    _ => {}
                }
            }
            times.push(started.elapsed());
            connection.synced().await.unwrap();
            durable.push(started.elapsed());
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        println!(
            "{} idle, {} active, {label}: another device shows it after {:?} (median), {:?} (19 of 20); \
             acknowledged as durable after {:?} (median)",
            IDLE,
            ACTIVE,
            quantile(&mut times, 0.5),
            quantile(&mut times, 0.95),
            quantile(&mut durable, 0.5),
        );
        let [hub_used, devices_used] = [0, 1]
            .map(|at| (used(processes[at]) - before[at]) / u32::try_from(EDITS * (IDLE + ACTIVE)).unwrap());
        println!(
            "  of the processors, for each edit and device: {hub_used:?} at the hub, {devices_used:?} at the device"
        );
    }
}

fn quantile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a short list")]
    let at = (times.len() as f64 * part) as usize;
    times[at.min(times.len() - 1)]
}

/// What a connection costs the hub.
async fn memory() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::start(&folder.path().join("hub.db"));
    let mut held = vec![connected(&hub).await];
    let before = hub.resident();
    for _ in 0..500 {
        held.push(connected(&hub).await);
    }
    let each = hub.resident().saturating_sub(before) / 500;
    println!("memory of the hub: {} KiB for each of 500 idle connections", each / 1024);
}

/// A new device reads a store of a million registers.
async fn bootstrap() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.db");
    fill(&file);
    let hub = Hub::start(&file);
    for (name, device) in [
        ("into memory", memory_db()),
        ("into a file", Db::open(folder.path().join("device.db"), schema()).unwrap()),
    ] {
        let started = Instant::now();
        let report = device.sync(&hub.url.as_str().into()).await.unwrap();
        let taken = started.elapsed();
        println!(
            "bootstrap of {} registers {name}: {taken:.2?}, {:.1} bytes a register, digests {}",
            report.pulled.received,
            report.bytes_received as f64 / report.pulled.received as f64,
            if report.verified { "equal" } else { "NOT COMPARED" },
        );
    }
    let mut held = vec![connected(&hub).await];
    let before = hub.resident();
    for _ in 0..8 {
        held.push(connected(&hub).await);
    }
    let each = hub.resident().saturating_sub(before) / 8;
    println!(
        "memory of the hub: {} KiB for each of 8 connections that have just read all of it",
        each / 1024
    );
    tokio::time::sleep(Duration::from_secs(12)).await;
    let before = hub.resident();
    for _ in 0..8 {
        held.push(connected(&hub).await);
    }
    let each = hub.resident().saturating_sub(before) / 8;
    println!("  and {} KiB for each of 8 more, after ten quiet seconds of the first", each / 1024);
}

/// Makes a store of a million registers.
fn fill(file: &Path) {
    // Edits some seconds apart, with the clock set for each.
    let clock = Arc::new(AtomicI64::new(1_700_000_000_000));
    let reading = Arc::clone(&clock);
    let options = SqliteOptions { synchronous: Synchronous::Off, ..SqliteOptions::default() };
    let builder = Db::builder().schema(schema()).sqlite(options);
    let db = builder.clock(move || Millis(reading.load(Ordering::Relaxed))).open(file).unwrap();
    let mut random = Random(7);
    let ids: Vec<String> = (0..REGISTERS / REGISTERS_EACH).map(|_| id(&mut random)).collect();
    for id in &ids {
        let wait = i64::try_from(random.below(5000)).unwrap();
        clock.fetch_add(1 + wait, Ordering::Relaxed);
        db.apply(&[entity(id, &mut random)]).unwrap();
    }
    // A third of the fields was written again later, each by itself.
    for _ in 0..REGISTERS / 3 {
        let wait = i64::try_from(random.below(5000)).unwrap();
        clock.fetch_add(1 + wait, Ordering::Relaxed);
        let field = random.below(REGISTERS_EACH - 1);
        let op = Action::Put(vec![value(field, &mut random)]);
        db.apply(&[Op::new("task", &ids[random.below(ids.len())], op)]).unwrap();
    }
}

/// Devices that ask for all of it and read nothing: what one costs the hub.
async fn slow() {
    const READERS: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.db");
    fill(&file);
    let hub = Hub::start(&file);
    let _first = connected(&hub).await;
    let before = hub.resident();
    let (mut held, mut random) = (Vec::new(), Random(11));
    for _ in 0..READERS {
        held.push(stalled(&hub.url, &mut random).await);
    }
    // Until it stands still: each has got as much as the sockets take.
    let mut resident = hub.resident();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = hub.resident();
        if now <= resident + (64 << 10) {
            break;
        }
        resident = now;
    }
    let each = hub.resident().saturating_sub(before) / READERS;
    println!("memory of the hub: {} KiB for each of {READERS} connections that read nothing", each / 1024);
}

/// Connects, subscribes, and leaves everything that comes unread.
async fn stalled(url: &str, random: &mut Random) -> impl Sized + use<> {
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let db = MemoryStore::new();
    let seeds = Seeds {
        store: StoreId(random.number()),
        replica: ReplicaId::from_u128(u128::from(random.number()) << 64 | u128::from(random.number())),
        incarnation: Incarnation(random.number()),
    };
    let options =
        OpenOptions { seeds, slot: 0, admission: Admission::Quarantine { drift_ms_max: 60_000 }, rank: 0 };
    let mut replica = Replica::open(db, Arc::new(schema()), options).unwrap();
    let mut session = Session::new(SessionOptions {
        role: Role::Client { token: None },
        want: Want::Live,
        offers: true,
        seeds,
        capabilities: 0,
    });
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let now = Millis(i64::try_from(now).unwrap());
    // HELLO, WELCOME, RESET; then the hub has read everything here, and is subscribed to.
    let mut subscribed = false;
    while !subscribed {
        while let Some(frame) = session.poll_transmit(&mut replica, now).unwrap() {
            subscribed |= frame.first() == Some(&tag::SUBSCRIBE);
            socket.send(Message::Binary(frame.into())).await.unwrap();
        }
        if subscribed {
            break;
        }
        if let Message::Binary(frame) = socket.next().await.unwrap().unwrap() {
            session.handle(&mut replica, &frame, now).unwrap();
        }
    }
    socket
}

/// A device reads a scope of a million registers: how long do changes in another scope take to it meanwhile?
async fn scopes() {
    const CHANGES: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hub.db");
    {
        let options = SqliteOptions { synchronous: Synchronous::Off, ..SqliteOptions::default() };
        let db = Db::builder().schema(schema()).sqlite(options).open(&file).unwrap();
        let mut random = Random(7);
        for _ in 0..REGISTERS / REGISTERS_EACH {
            let list = ("list".to_owned(), Value::from("large"));
            let fields = (0..REGISTERS_EACH - 2).map(|field| value(field, &mut random));
            let fields = std::iter::once(list).chain(fields).collect();
            db.apply(&[Op::new("note", id(&mut random), Action::Put(fields))]).unwrap();
        }
    }
    let hub = Hub::start(&file);
    let author = memory_db();
    let _writes = author.connect(Remote::new(hub.url.as_str()).scopes(["live"]));
    let reader = memory_db();
    let mut events = reader.subscribe();
    let started = Instant::now();
    let connection = reader.connect(Remote::new(hub.url.as_str()).scopes(["large", "live"]));
    let (mut during, mut after, mut taken) = (Vec::new(), Vec::new(), None);
    while after.len() < CHANGES {
        if taken.is_none() && connection.state().synced {
            taken = Some(started.elapsed());
        }
        let name = format!("n{}", during.len() + after.len());
        let made = Instant::now();
        author.put("note", &name, [("list", Value::from("live")), ("text", name.as_str().into())]).unwrap();
        loop {
            match events.next().await.unwrap() {
                Ok(Event::Changed { id: changed, origin: Origin::Remote(_), .. }) if changed == name => break,
                // It was too much to be listed: the view says.
                Err(_) if reader.view("note", &name).unwrap().is_some() => break,
                _ => {}
            }
        }
        if taken.is_some() {
            after.push(made.elapsed())
        } else {
            during.push(made.elapsed())
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "a scope of {REGISTERS} registers is read in {:.2?}; {} changes in another scope meanwhile show after {:.1?} \
         (median), {:.1?} (slowest), and later after {:.1?} and {:.1?}",
        taken.unwrap(),
        during.len(),
        quantile(&mut during, 0.5),
        quantile(&mut during, 1.0),
        quantile(&mut after, 0.5),
        quantile(&mut after, 1.0),
    );
}

/// A random id of 32 hexadecimal digits.
fn id(random: &mut Random) -> String {
    format!("{:016x}{:016x}", random.number(), random.number())
}

fn entity(id: &str, random: &mut Random) -> Op {
    let fields = (0..REGISTERS_EACH - 1).map(|field| value(field, random)).collect();
    Op::new("task", id, Action::Put(fields))
}

/// A field's name and what is written into it: phrases, a flag, numbers.
fn value(field: usize, random: &mut Random) -> (String, Value) {
    const WORDS: [&str; 7] =
        ["write", "read", "call back", "invoice", "meeting with the team", "travel", "review"];
    let value = match field {
        0 | 1 => format!("{} {}", WORDS[random.below(WORDS.len())], random.below(1000)).as_str().into(),
        2 => Value::Bool(random.below(2) == 1),
        _ => Value::Int(i64::try_from(random.below(10_000)).unwrap()),
    };
    (format!("field {field}"), value)
}
