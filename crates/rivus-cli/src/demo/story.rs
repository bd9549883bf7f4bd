//! What happens in the demo, on real databases over real sockets; only the clock is told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rivus::rivus_core::clock::Stamp;
use rivus::{Action, Db, Hub, HubOptions, Millis, Op, Remote, Schema, Value, View};

/// What the phone shows the hub, which grants it [`RANK`].
pub(super) const TOKEN: &str = "phone-secret";
const RANK: u8 = 5;

/// The kind and the ids that the story is about.
pub(super) const KIND: &str = "task";
pub(super) const IDS: [&str; 2] = ["offer", "visit"];

/// What is left when the story is over.
pub(super) struct Told {
    /// The hub, the phone and the laptop.
    pub(super) cast: [Db; 3],
    /// The ranks of the two devices.
    pub(super) ranks: [u8; 2],
    /// What the devices held when the hub stopped.
    pub(super) before: [Snapshot; 2],
    /// What they held before it came back.
    pub(super) edited: [Snapshot; 2],
    /// What the hub holds in the end.
    pub(super) merged: Snapshot,
    /// What a sync says while the hub is stopped.
    pub(super) offline: String,
    /// When the hub stopped, in ms since 1970.
    pub(super) stopped_ms: i64,
}

/// The writes still in the running, by where they are.
pub(super) type Snapshot = BTreeMap<Place, Vec<Write>>;

/// A register.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub(super) id: &'static str,
    pub(super) class: u8,
    pub(super) name: String,
    pub(super) key: Vec<u8>,
}

/// A write.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Write {
    pub(super) stamp: Stamp,
    pub(super) rank: u8,
    pub(super) value: Value,
}

/// Plays the story in `folder`.
pub(super) async fn act(folder: &Path, schema: &Schema) -> Result<Told> {
    let clock = Clock::new();
    let open = |name: &str| {
        let clock = clock.clone();
        let builder = Db::builder().schema(schema.clone()).clock(move || clock.now());
        builder.open(folder.join(name)).with_context(|| format!("{name} in {}", folder.display()))
    };
    let [hub, phone, laptop] = [open("hub.db")?, open("phone.db")?, open("laptop.db")?];

    // They meet, and share two tasks.
    let served = serve(&hub).await?;
    let (by_phone, by_laptop) = remotes(&served);
    phone.sync(&by_phone).await?;
    begin(&phone)?;
    phone.sync(&by_phone).await?;
    laptop.sync(&by_laptop).await?;
    let ranks = [rank(&phone)?, rank(&laptop)?];
    served.shutdown().await;

    let stopped_ms = clock.now().0 + 60_000;
    clock.set(stopped_ms);
    let Err(offline) = phone.sync(&by_phone).await else { bail!("the hub answers though it was stopped") };
    let before = [snapshot(&phone)?, snapshot(&laptop)?];
    for (seconds, device, id, action) in edits() {
        clock.set(stopped_ms + seconds * 1000);
        let db = match device {
            Device::Phone => &phone,
            Device::Laptop => &laptop,
        };
        db.apply(&[Op::new(KIND, id, action)])?;
    }
    for (seconds, device, op) in super::rivals::edits() {
        clock.set(stopped_ms + seconds * 1000);
        if device == 0 { &phone } else { &laptop }.apply(&[op])?;
    }
    let edited = [snapshot(&phone)?, snapshot(&laptop)?];

    // The hub is back: each brings what it has, and the phone, which came first, fetches what came after it.
    clock.set(stopped_ms + 90_000);
    let served = serve(&hub).await?;
    let (by_phone, by_laptop) = remotes(&served);
    phone.sync(&by_phone).await?;
    laptop.sync(&by_laptop).await?;
    phone.sync(&by_phone).await?;
    served.shutdown().await;
    let merged = snapshot(&hub)?;
    let offline = offline.to_string();
    Ok(Told { cast: [hub, phone, laptop], ranks, before, edited, merged, offline, stopped_ms })
}

/// What an entity shows at each of the cast.
pub(super) fn views(told: &Told, id: &str) -> Result<[View; 3]> {
    let view = |db: &Db| Ok::<_, rivus::Error>(db.view(KIND, id)?.unwrap_or_default());
    let [hub, phone, laptop] = &told.cast;
    Ok([view(hub)?, view(phone)?, view(laptop)?])
}

async fn serve(hub: &Db) -> Result<Hub> {
    Ok(hub.serve("127.0.0.1:0", HubOptions::open().grant(TOKEN, RANK)).await?)
}

fn remotes(served: &Hub) -> (Remote, Remote) {
    (Remote::new(served.url()).token(TOKEN), Remote::new(served.url()))
}

fn rank(device: &Db) -> Result<u8> {
    Ok(device.status()?.authority.context("the device has not met the hub")?.rank)
}

/// Creates the tasks.
fn begin(phone: &Db) -> Result<()> {
    phone.transaction(|tx| {
        tx.put(KIND, "offer", [("title", "offer".into()), ("status", "draft".into())])?;
        tx.apply(&Op::new(KIND, "offer", add("tags", "draft")))?;
        tx.apply(&Op::new(KIND, "offer", inc(1)))?;
        tx.put(KIND, "visit", [("title", "visit Ann".into())])
    })?;
    Ok(())
}

#[derive(Clone, Copy)]
enum Device {
    Phone,
    Laptop,
}

/// Who does what while the hub is stopped, and how many seconds into it.
fn edits() -> Vec<(i64, Device, &'static str, Action)> {
    use Device::{Laptop, Phone};
    vec![
        // Different fields of one entity.
        (1, Phone, "offer", put("title", "offer for Ann")),
        (2, Laptop, "offer", put("due", "Friday")),
        // The same field, seconds apart.
        (10, Laptop, "offer", put("status", "in review")),
        (12, Phone, "offer", put("status", "sent")),
        // The same field within its margin, with different authority; and beyond it.
        (20, Phone, "offer", put("owner", "Ann")),
        (23, Laptop, "offer", put("owner", "Bo")),
        (30, Phone, "offer", put("reviewer", "Cy")),
        (38, Laptop, "offer", put("reviewer", "Di")),
        // A set: two adds, and a remove against an add.
        (40, Phone, "offer", add("tags", "urgent")),
        (41, Laptop, "offer", add("tags", "client")),
        (42, Laptop, "offer", add("tags", "draft")),
        (43, Phone, "offer", remove("tags", "draft")),
        // A counter.
        (50, Phone, "offer", inc(2)),
        (51, Laptop, "offer", inc(3)),
        // A delete against an edit.
        (60, Laptop, "visit", Action::Delete),
        (61, Phone, "visit", put("title", "visit Ann and Bo")),
    ]
}

fn put(field: &str, value: &str) -> Action {
    Action::Put(vec![(field.into(), value.into())])
}

fn add(field: &str, key: &str) -> Action {
    Action::Add { field: field.into(), key: key.into() }
}

fn remove(field: &str, key: &str) -> Action {
    Action::Remove { field: field.into(), key: key.into() }
}

fn inc(by: i64) -> Action {
    Action::Inc { field: "hours".into(), by }
}

fn snapshot(db: &Db) -> Result<Snapshot> {
    let mut snapshot = Snapshot::new();
    for id in IDS {
        db.registers(KIND, id, |parts, state| {
            let place = Place { id, class: parts.class, name: parts.name.into(), key: parts.key.into() };
            let writes = state.shown.alive.iter().map(|candidate| Write {
                stamp: candidate.stamp,
                rank: candidate.rank,
                value: Value::decode(candidate.value).unwrap_or(Value::Null),
            });
            snapshot.insert(place, writes.collect());
        })?;
    }
    Ok(snapshot)
}

/// One clock for all, which stands still until it is wound: seconds apart takes no seconds.
#[derive(Clone)]
struct Clock(Arc<AtomicI64>);

impl Clock {
    /// It begins so long ago that the story is over by now: edits made later with the real clock are newer.
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let start = i64::try_from(now).unwrap_or_default() - 300;
        Self(Arc::new(AtomicI64::new(start * 1000)))
    }

    fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }

    fn set(&self, ms: i64) {
        self.0.store(ms, Ordering::SeqCst);
    }
}
