//! The engine against its floors: each race is run alternately, on fresh copies of the same state.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rivus_core::clock::Millis;
use rivus_core::edit::Op;
use rivus_core::id::StoreId;
use rivus_core::identity::Cursor;
use rivus_core::replica::{Delta, Replica, Trust};
use rivus_core::store::{MemoryStore, Store};
use rivus_core::wire::page::{RowDecoder, RowEncoder};
use rivus_sqlite::{Options, SqliteStore};
use tempfile::TempDir;

use crate::floor::{self, NewestWins, PackedRow, Write};
use crate::workload::{
    ENTITIES, FIELDS, HUB, Random, START_MS, again, device, edit, hub, ids, open, pages, put, put_all, sync,
    updates,
};

/// One run, set up untimed; the time is that of the work alone.
pub type Run<'a> = Box<dyn FnMut() -> Duration + 'a>;

/// The engine and its floor doing the same.
pub struct Race<'a> {
    /// What they do.
    pub name: &'static str,
    /// How many fields a run writes.
    pub fields: usize,
    /// What the floor is.
    pub floor_name: &'static str,
    /// The engine.
    pub engine: Run<'a>,
    /// The floor.
    pub floor: Run<'a>,
}

impl std::fmt::Debug for Race<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Race").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The best times of a race.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Best {
    /// Of the engine.
    pub engine: Duration,
    /// Of the floor.
    pub floor: Duration,
}

impl Race<'_> {
    /// Runs both alternately and keeps the best time of each.
    pub fn best_of(&mut self, rounds: usize) -> Best {
        let mut best = Best { engine: Duration::MAX, floor: Duration::MAX };
        for _ in 0..rounds {
            best.engine = best.engine.min((self.engine)());
            best.floor = best.floor.min((self.floor)());
        }
        best
    }

    /// Fields per second in this time.
    #[must_use]
    pub fn rate(&self, time: Duration) -> f64 {
        rate(self.fields, time)
    }

    /// One line: both rates and the engine's time as a multiple of the floor's.
    #[must_use]
    pub fn line(&self, best: Best) -> String {
        let ratio = best.engine.as_secs_f64() / best.floor.as_secs_f64();
        format!(
            "{:<42} {:>12.0} fields/s, {:>12.0} {}: {ratio:.2} times its floor",
            self.name,
            self.rate(best.engine),
            self.rate(best.floor),
            self.floor_name
        )
    }
}

/// `fields` in `time`, per second.
#[must_use]
pub fn rate(fields: usize, time: Duration) -> f64 {
    fields as f64 / time.as_secs_f64()
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// Does something with everything, each piece made just before: an application does not make its edits by the
/// hundred thousand beforehand.
fn warm<T: Clone, R>(all: &[T], mut work: impl FnMut(&T) -> R) -> Duration {
    let mut time = Duration::ZERO;
    for some in all.chunks(WARM) {
        let some = some.to_vec();
        time += timed(|| {
            for each in &some {
                std::hint::black_box(work(each));
            }
        });
    }
    time
}

/// How many edits are made at a time, untimed.
const WARM: usize = 500;

/// What the races start from.
#[derive(Debug)]
pub struct Start {
    device: Replica<MemoryStore>,
    /// A device in whose outbox a write of every field waits, one transaction each.
    edited: Replica<MemoryStore>,
    /// The same without an authority: nothing is pending.
    alone: Replica<MemoryStore>,
    /// A hub that holds a concurrent write of every field.
    ahead: Replica<MemoryStore>,
    /// The hub's seq before that.
    before: u64,
    /// The concurrent writes.
    theirs: Vec<Write>,
    ours: Vec<Op>,
}

const DEVICE: u64 = 2;
const OTHER: u64 = 3;

impl Start {
    /// Prepares hub, devices and concurrent writes, in transactions of `each` fields of one entity (1 or all).
    #[must_use]
    pub fn new(each: Transactions) -> Self {
        let mut ahead = hub();
        let before = ahead.head().unwrap().seq;
        let device = device(MemoryStore::new(), DEVICE, &mut ahead);
        let mut other = crate::workload::device(MemoryStore::new(), OTHER, &mut ahead);
        let (ours, theirs) = (every_field(each, 11), every_field(each, 12));
        let mut edited = again(&device, DEVICE);
        let mut alone = peer(&ahead);
        for (at, op) in (0..).zip(&ours) {
            edit(&mut edited, 20_000 + at, std::slice::from_ref(op));
            edit(&mut alone, 20_000 + at, std::slice::from_ref(op));
        }
        for (at, op) in (0..).zip(&theirs) {
            edit(&mut other, 20_001 + at, std::slice::from_ref(op));
        }
        sync(&mut other, &mut ahead);
        let theirs = floor::writes(&theirs, OTHER);
        Self { device, edited, alone, ahead, before, theirs, ours }
    }

    /// Every race in memory.
    pub fn races(&self) -> Vec<Race<'_>> {
        let turn = every_field(Transactions::OfOneField, 21);
        vec![
            self.edit("edit, own transaction, entities in turn", turn),
            self.edit("edit, own transaction, at random", updates(100_000, &mut Random(21))),
            self.join("join, own edits pending", &self.edited, Trust::Authority),
            self.join("join, no authority", &self.alone, Trust::Peer),
            self.encode(),
            self.decode(),
        ]
    }

    /// Local edits of one field, each in a transaction of its own, for the outbox of a device that has an authority.
    pub fn edit(&self, name: &'static str, ops: Vec<Op>) -> Race<'_> {
        let writes = floor::writes(&ops, DEVICE);
        let engine = move || {
            let mut replica = again(&self.device, DEVICE);
            warm(&ops, |op| replica.edit(Millis(START_MS), std::slice::from_ref(op)).unwrap())
        };
        self.race(name, writes.len(), engine, move || {
            let mut floor = NewestWins::full();
            warm(&writes, |write| floor.edit(write.place, &write.value))
        })
    }

    /// A join of a concurrent write of every field, from encoded pages to the commits.
    pub fn join<'a>(
        &'a self,
        name: &'static str,
        replica: &'a Replica<MemoryStore>,
        trust: Trust,
    ) -> Race<'a> {
        let frames = pages(&self.ahead, &mut RowEncoder::default(), self.before);
        let engine = move || {
            let mut replica = again(replica, DEVICE);
            let time = timed(|| join(&mut replica, &frames, trust));
            let kept = replica.head().unwrap().digest;
            assert_eq!(kept, replica.recompute_digest().unwrap(), "the kept digest is that of the rows");
            time
        };
        self.race(name, self.theirs.len(), engine, || self.merge())
    }

    /// Encoding of those writes, from the rows.
    pub fn encode(&self) -> Race<'_> {
        let engine = || {
            let mut encoder = RowEncoder::default();
            timed(|| {
                std::hint::black_box(pages(&self.ahead, &mut encoder, self.before));
            })
        };
        self.race("encode", self.theirs.len(), engine, || self.merge())
    }

    /// Decoding of the same.
    pub fn decode(&self) -> Race<'_> {
        let frames = pages(&self.ahead, &mut RowEncoder::default(), self.before);
        let engine = move || {
            let mut decoder = RowDecoder::default();
            timed(|| {
                for (frame, _) in &frames {
                    let page = decoder.page(frame, StoreId(HUB)).unwrap();
                    let registers = page.rows.each::<std::convert::Infallible>(|part| {
                        std::hint::black_box(part);
                        Ok(())
                    });
                    registers.unwrap();
                }
            })
        };
        self.race("decode", self.theirs.len(), engine, || self.merge())
    }

    fn race<'a>(
        &self,
        name: &'static str,
        fields: usize,
        engine: impl FnMut() -> Duration + 'a,
        floor: impl FnMut() -> Duration + 'a,
    ) -> Race<'a> {
        let floor_name = "in a hash map where the newest wins";
        Race { name, fields, floor_name, engine: Box::new(engine), floor: Box::new(floor) }
    }

    fn merge(&self) -> Duration {
        let mut floor = NewestWins::full();
        floor.join(&floor::writes(&self.ours, DEVICE));
        let time = timed(|| floor.join(&self.theirs));
        assert_eq!(floor.count(), ENTITIES * FIELDS.len());
        time
    }
}

/// How many fields a transaction writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transactions {
    /// One field.
    OfOneField,
    /// All fields of one entity.
    OfOneEntity,
}

/// A device without an authority that holds what the hub holds.
fn peer(hub: &Replica<MemoryStore>) -> Replica<MemoryStore> {
    let mut peer = open(MemoryStore::new(), DEVICE);
    join(&mut peer, &pages(hub, &mut RowEncoder::default(), 0), Trust::Peer);
    peer
}

fn join(replica: &mut Replica<MemoryStore>, frames: &[(Vec<u8>, Cursor)], trust: Trust) {
    let mut decoder = RowDecoder::default();
    for (frame, cursor) in frames {
        let page = decoder.page(frame, StoreId(HUB)).unwrap();
        let now = Millis(START_MS + 20_000_000);
        replica.join(now, &page.rows, Some(StoreId(HUB)), trust, Some(*cursor)).unwrap();
    }
}

fn every_field(each: Transactions, seed: u64) -> Vec<Op> {
    let (ids, mut random) = (ids(), Random(seed));
    if each == Transactions::OfOneEntity {
        return ids.iter().map(|id| put_all(id, &mut random)).collect();
    }
    let mut ops = Vec::new();
    for field in 0..FIELDS.len() {
        // A boolean that shows the new value already would not be written.
        ops.extend(ids.iter().map(|id| put(id, field, random.value(if field == 7 { 4 } else { field }))));
    }
    ops
}

/// SQLite files to race on.
#[derive(Debug)]
pub struct Files {
    folder: TempDir,
    made: std::cell::Cell<u32>,
}

impl Files {
    /// A device's file in a new folder, with every entity in it.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("start.db"), Options::default()).unwrap();
        drop(device(store, DEVICE, &mut hub()));
        Self { folder, made: std::cell::Cell::new(0) }
    }

    fn copy(&self) -> PathBuf {
        self.made.set(self.made.get() + 1);
        let path = self.folder.path().join(format!("copy{}.db", self.made.get()));
        let start = SqliteStore::open(self.folder.path().join("start.db"), Options::default()).unwrap();
        start.backup_to(&path).unwrap();
        path
    }

    /// Durable edits (`synchronous = FULL`) of one field each, `each` per transaction, every one of another entity.
    pub fn edits<'a>(&'a self, name: &'static str, count: usize, each: usize) -> Race<'a> {
        let mut random = Random(31);
        let ops: Vec<Op> = ids()
            .iter()
            .take(count)
            .map(|id| {
                let field = random.below(7);
                put(id, field, random.value(field))
            })
            .collect();
        let rows = {
            let path = self.copy();
            edit_file(&path, &ops, each);
            packed(&path, &ops)
        };
        let engine = move || edit_file(&self.copy(), &ops, each);
        let floor = move || {
            let conn = floor::connect(&self.copy());
            timed(|| floor::upsert(&conn, &rows, each))
        };
        let floor_name = "in a bare upsert of the same rows";
        Race { name, fields: count, floor_name, engine: Box::new(engine), floor: Box::new(floor) }
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

fn edit_file(path: &Path, ops: &[Op], each: usize) -> Duration {
    let mut replica = open(SqliteStore::open(path, Options::default()).unwrap(), DEVICE);
    timed(|| {
        for ops in ops.chunks(each) {
            edit(&mut replica, 0, ops);
        }
    })
}

fn packed(path: &Path, ops: &[Op]) -> Vec<PackedRow> {
    let store = SqliteStore::open(path, Options::default()).unwrap();
    let load = |op: &Op| {
        let bytes = store.load(&op.kind, &op.id, &[]).unwrap().unwrap().bytes.into_owned();
        PackedRow { kind: op.kind.clone(), id: op.id.clone(), bytes }
    };
    ops.iter().map(load).collect()
}
