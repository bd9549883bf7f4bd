//! Prints every figure that the project states of itself.
//!
//! `measure [PART]` prints only `races`, `large`, `bytes`, `memory` or `sqlite`.

#![expect(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]

use std::time::{Duration, Instant};

use rivus_bench::race::{Files, Start, Transactions};
use rivus_bench::workload::{
    ENTITIES, FIELDS, HUB, Random, device, edit, hub, ids, open, pages, put, put_all, sync, updates,
};
use rivus_core::edit::{Action, Op};
use rivus_core::replica::Replica;
use rivus_core::store::{MemoryStore, Store};
use rivus_core::value::Value;
use rivus_core::wire::page::RowEncoder;
use rivus_sqlite::{Options, SqliteStore, Synchronous};

fn main() {
    let part = std::env::args().nth(1);
    let wants = |name: &str| part.as_deref().is_none_or(|part| part == name);
    // Memory first: what others have freed would count for nothing.
    if wants("memory") {
        memory();
    }
    if wants("bytes") {
        bytes();
    }
    if wants("large") {
        large();
    }
    if wants("races") {
        for (each, name) in [
            (Transactions::OfOneField, "transactions of one field"),
            (Transactions::OfOneEntity, "transactions of one entity's ten fields"),
        ] {
            println!("concurrent writes in {name}:");
            for mut race in Start::new(each).races() {
                let best = race.best_of(9);
                println!("  {}", race.line(best));
            }
        }
    }
    if wants("sqlite") {
        let files = Files::new();
        for (name, count, each) in [
            ("sqlite edits, 1 a transaction", 500, 1),
            ("sqlite edits, 10,000 a transaction", 10_000, 10_000),
        ] {
            let mut race = files.edits(name, count, each);
            let best = race.best_of(5);
            println!("{}", race.line(best));
        }
    }
}

/// Bytes on the wire.
fn bytes() {
    let zstd = |frames: &[Vec<u8>]| {
        let packed = frames.iter().map(|frame| zstd::bulk::compress(frame, 3).unwrap().len());
        packed.zip(frames).map(|(packed, frame)| packed.min(frame.len())).sum::<usize>()
    };
    let frames_after = |hub: &Replica<MemoryStore>, encoder: &mut RowEncoder, after| -> Vec<Vec<u8>> {
        pages(hub, encoder, after).into_iter().map(|(frame, _)| frame).collect()
    };
    let mut hub = hub();
    let mut known = RowEncoder::default();
    let everything = frames_after(&hub, &mut known, 0);
    let raw: usize = everything.iter().map(Vec::len).sum();
    let fields = (ENTITIES * FIELDS.len()) as f64;
    println!(
        "everything: {:.1} bytes a field, {:.1} compressed",
        raw as f64 / fields,
        zstd(&everything) as f64 / fields
    );
    let before = hub.head().unwrap().seq;
    let mut author = device(MemoryStore::new(), 2, &mut hub);
    let mut now = 1_000_000;
    let mut random = Random(41);
    for op in updates(1000, &mut random) {
        now += 1 + i64::try_from(random.below(5000)).unwrap();
        edit(&mut author, now, &[op]);
    }
    sync(&mut author, &mut hub);
    for (name, encoder) in [("known", &mut known), ("not known", &mut RowEncoder::default())] {
        let frames = frames_after(&hub, encoder, before);
        let raw: usize = frames.iter().map(Vec::len).sum();
        let (raw, packed) = (raw as f64 / 1000.0, zstd(&frames) as f64 / 1000.0);
        println!("1,000 random updates, ids {name}: {raw:.2} bytes a field, {packed:.2} compressed");
    }
    let mut worst = 0;
    for op in updates(200, &mut random) {
        let before = hub.head().unwrap().seq;
        now += 1 + i64::try_from(random.below(60_000)).unwrap();
        edit(&mut author, now, &[op]);
        sync(&mut author, &mut hub);
        if hub.head().unwrap().seq > before {
            worst = worst.max(frames_after(&hub, &mut known, before).iter().map(Vec::len).sum());
        }
    }
    println!("a single update: at most {worst} bytes in 200");
}

/// What the same edit costs on an entity of 10 and on one of 10,000.
fn large() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { synchronous: Synchronous::Off, ..Options::default() };
    let file = SqliteStore::open(folder.path().join("large.db"), options).unwrap();
    costs("memory", open(MemoryStore::new(), 2), 20_000);
    costs("sqlite, synchronous off", open(file, 2), 2000);
}

fn costs<S: Store>(name: &str, mut replica: Replica<S>, edits: usize) {
    const SIZES: [(&str, usize); 2] = [("small", 10), ("large", 10_000)];
    replica.meet_authority(rivus_core::id::StoreId(HUB), 0).unwrap();
    for (id, size) in SIZES {
        let fields = (0..size).map(|n| (format!("field {n}"), Value::from("a value"))).collect();
        edit(&mut replica, 0, &[Op::new("wide", id, Action::Put(fields))]);
        let keys = (0..size).map(|n| add(&format!("{id} set"), n));
        edit(&mut replica, 0, &keys.collect::<Vec<_>>());
    }
    let mut random = Random(51);
    let mut best = [[Duration::MAX; 2]; 2];
    for _ in 0..7 {
        for ((id, size), best) in SIZES.iter().zip(&mut best) {
            let puts: Vec<Op> = (0..edits / 7)
                .map(|n| {
                    let field =
                        (format!("field {}", random.below(*size)), Value::Int(i64::try_from(n).unwrap()));
                    Op::new("wide", *id, Action::Put(vec![field]))
                })
                .collect();
            let adds: Vec<Op> =
                (0..edits / 7).map(|_| add(&format!("{id} set"), random.below(*size))).collect();
            for (ops, best) in [puts, adds].iter().zip(best) {
                let start = Instant::now();
                for op in ops {
                    edit(&mut replica, 1000, std::slice::from_ref(op));
                }
                *best = (*best).min(start.elapsed() / u32::try_from(ops.len()).unwrap());
            }
        }
    }
    let [[put_small, add_small], [put_large, add_large]] = best;
    for (what, small, large) in [("a put", put_small, put_large), ("an add", add_small, add_large)] {
        let ratio = large.as_secs_f64() / small.as_secs_f64();
        println!(
            "{name}: {what} takes {small:?} on an entity of 10, {large:?} on one of 10,000: {ratio:.2} times"
        );
    }
}

fn add(id: &str, key: usize) -> Op {
    Op::new("wide", id, Action::Add { field: "tags".to_owned(), key: format!("key {key}") })
}

/// What a device's store takes in memory, and whether it grows.
fn memory() {
    let before = resident();
    let mut hub = hub();
    let fields = ENTITIES * FIELDS.len();
    let registers = hub.head().unwrap().digest.count;
    let taken = resident().saturating_sub(before);
    println!(
        "memory: {:.0} bytes a field, {:.0} a register ({registers} of them; rows alone {:.0})",
        taken as f64 / fields as f64,
        taken as f64 / registers as f64,
        rows(&hub) as f64 / registers as f64
    );
    let mut device = device(MemoryStore::new(), 2, &mut hub);
    let mut random = Random(61);
    for round in 0..10_i64 {
        for id in ids() {
            edit(&mut device, 2_000_000 + round, &[put_all(&id, &mut random)]);
            edit(&mut device, 2_000_000 + round, &[put(&id, 4, Value::Int(round))]);
        }
        sync(&mut device, &mut hub);
        if round == 0 || round == 9 {
            let (rows, resident) = (rows(&device) / 1024, resident() / 1024);
            println!(
                "  everything overwritten {} times and acknowledged: rows {rows} KiB, resident {resident} KiB",
                round + 1
            );
        }
    }
}

fn rows(replica: &Replica<MemoryStore>) -> usize {
    let mut bytes = 0;
    let add = &mut |changed: rivus_core::store::Changed<'_>| {
        bytes += changed.bytes.len();
        std::ops::ControlFlow::Continue(())
    };
    replica.store().changes(0, add).unwrap();
    bytes
}

/// The process's resident memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
