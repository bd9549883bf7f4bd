//! Prints what rules cost, each figure as a ratio of two measurements of the same run.

#![expect(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rivus_bench::workload::{Random, START_MS, pages, seeds};
use rivus_core::clock::{Admission, Millis, Stamp};
use rivus_core::edit::{Action, Op};
use rivus_core::id::StoreId;
use rivus_core::replica::{OpenOptions, Replica, Trust};
use rivus_core::rules::{Rival, settle};
use rivus_core::schema::{KindBuilder, OrderTime, Schema};
use rivus_core::store::{MemoryStore, Store};
use rivus_core::value::Value;
use rivus_core::wire::page::{RowDecoder, RowEncoder};
use rivus_sqlite::{Options, SqliteStore, Synchronous};

const OTHERS: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];

fn main() {
    for field in ["start", "stop"] {
        joins(field, 5);
    }
    starts(MemoryStore::new, "memory", 2000);
    let folder = tempfile::tempdir().unwrap();
    let mut files = 0;
    starts(
        || {
            files += 1;
            let options = Options { synchronous: Synchronous::Off, ..Options::default() };
            SqliteStore::open(folder.path().join(format!("{files}.db")), options).unwrap()
        },
        "sqlite, synchronous off",
        500,
    );
    rivals();
    sizes();
}

fn schema(is_ruled: bool) -> Arc<Schema> {
    let kind = |k: KindBuilder| {
        let k = OTHERS.into_iter().chain(["user", "start", "stop"]).fold(k, KindBuilder::value);
        if is_ruled { k.at_most_one("one running", ["user"], "stop", "start") } else { k }
    };
    Arc::new(Schema::builder().kind("entry", kind).build().unwrap())
}

fn open<S: Store>(store: S, n: u64, is_ruled: bool) -> Replica<S> {
    let options = OpenOptions { seeds: seeds(n), slot: 0, admission: Admission::Off, rank: 0 };
    Replica::open(store, schema(is_ruled), options).unwrap()
}

fn put<S: Store>(replica: &mut Replica<S>, at: i64, id: &str, fields: &[(&str, Value)]) {
    let fields = fields.iter().map(|(field, value)| ((*field).to_owned(), value.clone())).collect();
    replica.edit(Millis(START_MS + at), &[Op::new("entry", id, Action::Put(fields))]).unwrap();
}

/// An entry that was started and stopped.
fn past<S: Store>(replica: &mut Replica<S>, user: usize, n: usize) {
    let (at, id) = (i64::try_from(n * 10).unwrap(), format!("{user}-{n}"));
    let user = Value::from(format!("user {user}"));
    let others = OTHERS.iter().map(|field| (*field, Value::from("what was done")));
    let fields: Vec<_> =
        others.chain([("user", user), ("start", at.into()), ("stop", Value::Null)]).collect();
    put(replica, at, &id, &fields);
    put(replica, at + 5, &id, &[("stop", (at + 5).into())]);
}

/// 100,000 writes of others, of which one in ten is of a field that the rule reads.
fn joins(field: &str, rounds: usize) {
    let mut hub = open(MemoryStore::new(), 1, true);
    for n in 0..100 {
        for user in 0..100 {
            past(&mut hub, user, n);
        }
    }
    let before = hub.head().unwrap().seq;
    let device = hub.store().copy();
    for n in 0..100 {
        for user in 0..100 {
            let others = OTHERS.iter().map(|field| (*field, Value::from("what else was done")));
            let at = i64::from(n * 10);
            let read = [(field, Value::from(at + 1))];
            put(&mut hub, 10_000 + at, &format!("{user}-{n}"), &others.chain(read).collect::<Vec<_>>());
        }
    }
    let frames = pages(&hub, &mut RowEncoder::default(), before);
    let mut best = [Duration::MAX; 2];
    for _ in 0..rounds {
        for (is_ruled, best) in [false, true].into_iter().zip(&mut best) {
            let mut replica = open(device.copy(), 2, is_ruled);
            let mut decoder = RowDecoder::default();
            let start = Instant::now();
            for (frame, cursor) in &frames {
                let page = decoder.page(frame, StoreId(1)).unwrap();
                replica
                    .join(Millis(START_MS), &page.rows, Some(StoreId(1)), Trust::Peer, Some(*cursor))
                    .unwrap();
            }
            *best = (*best).min(start.elapsed());
        }
    }
    let [without, with] = best;
    println!(
        "memory: joining 100,000 writes, of which 10,000 are of `{field}`: {:.2} times the same without the rule",
        ratio(with, without)
    );
}

/// A user starts a new entry beside 100 past ones, and beside 100,000.
fn starts<S: Store>(mut store: impl FnMut() -> S, name: &str, edits: usize) {
    let mut best = [Duration::MAX; 2];
    let mut replicas = [100, 100_000].map(|past_entries| {
        let mut replica = open(store(), 1, true);
        for n in 0..past_entries {
            past(&mut replica, 1, n);
        }
        replica
    });
    let mut n = 1_000_000;
    for _ in 0..7 {
        for (replica, best) in replicas.iter_mut().zip(&mut best) {
            let start = Instant::now();
            for _ in 0..edits / 7 {
                n += 1;
                past(replica, 1, n);
            }
            *best = (*best).min(start.elapsed());
        }
    }
    let [few, many] = best;
    println!(
        "{name}: starting and stopping an entry beside 100,000 past ones: {:.2} times the same beside 100",
        ratio(many, few)
    );
}

/// 10,000 open rivals, against sorting their claims.
fn rivals() {
    let mut hub = open(MemoryStore::new(), 1, false);
    let mut random = Random(7);
    for n in 0..10_000 {
        let fields = [
            ("user", "u".into()),
            ("start", i64::try_from(random.below(1 << 40)).unwrap().into()),
            ("stop", Value::Null),
        ];
        put(&mut hub, n, &format!("{n}-{}", random.number()), &fields);
    }
    let store = hub.into_store();
    let open_at = |is_ruled| {
        let copy = store.copy();
        let start = Instant::now();
        let replica = open(copy, 2, is_ruled);
        (replica, start.elapsed())
    };
    let (_, without) = open_at(false);
    let (replica, with) = open_at(true);
    let start = Instant::now();
    let mut overlays = 0;
    replica
        .each_overlay(&mut |_| {
            overlays += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let read = start.elapsed();
    let claims = || -> Vec<(Stamp, String)> {
        let mut random = Random(9);
        let stamp = |n: u64| Stamp { time: n >> 20, ..Stamp::LOWEST };
        (0..10_000).map(|_| (stamp(random.number()), random.number().to_string())).collect()
    };
    let orders: Vec<_> = (0..10_000_i64).map(|n| Value::Int(n * 7919 % 10_007)).collect();
    let mut best = [Duration::MAX; 2];
    for _ in 0..9 {
        let mut sorted = claims();
        let start = Instant::now();
        sorted.sort();
        best[0] = best[0].min(start.elapsed());
        let claims = claims();
        let pairs = claims.iter().zip(&orders);
        let rivals = pairs.map(|((claim, id), order)| Rival {
            claim: *claim,
            id,
            order,
            end: &Value::Null,
            is_here: true,
        });
        let mut rivals: Vec<_> = rivals.collect();
        let start = Instant::now();
        let settled = settle(&mut rivals, OrderTime::Any);
        best[1] = best[1].min(start.elapsed());
        assert_eq!(settled.iter().flatten().count(), 9_999);
    }
    let [sorting, settling] = best;
    println!(
        "memory: 10,000 open rivals settle in {:.2} times what sorting their claims takes ({settling:?})",
        ratio(settling, sorting)
    );
    println!(
        "memory: their index is made in {:?}, and {overlays} overlays read one by one in {read:?}",
        with.saturating_sub(without)
    );
}

/// An edit in a store of 10,000 entities, and of 1,000,000.
fn sizes() {
    let mut best = [Duration::MAX; 2];
    let mut replicas = [10_000, 1_000_000].map(|entities| {
        let mut replica = open(MemoryStore::new(), 1, true);
        for n in 0..entities {
            let user = Value::from(format!("user {}", n / 100));
            put(
                &mut replica,
                0,
                &format!("e{n}"),
                &[("user", user), ("start", 1.into()), ("stop", 2.into())],
            );
        }
        (entities, replica)
    });
    let mut random = Random(8);
    for round in 0..9_i64 {
        for ((entities, replica), best) in replicas.iter_mut().zip(&mut best) {
            let ids: Vec<_> =
                (0..2000).map(|_| format!("e{}", random.below((*entities).min(10_000)))).collect();
            let start = Instant::now();
            for id in &ids {
                put(replica, 1, id, &[("stop", round.into())]);
            }
            *best = (*best).min(start.elapsed());
        }
    }
    let [small, large] = best;
    println!("memory: an edit among 1,000,000 entities: {:.2} times one among 10,000", ratio(large, small));
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}
