//! What edits mean, checked on replicas over stores in memory.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use super::*;
use crate::address;
use crate::clock::Stamp;
use crate::clock::{TIME_END, ticks};
use crate::edit::Action;
use crate::id::StoreId;
use crate::pending::Pending;
use crate::register::Register;
use crate::row::{Change, Row, decode_register, encode_register};
use crate::schema::{Life, Margin, Resolver};
use crate::store::MemoryStore;
use crate::value::Value;
use crate::view::Shown;

mod alias;
mod aside;
mod golden;
mod marks;
mod sync;
mod verdicts;
mod verify;
mod writers;

type Device = Replica<MemoryStore>;

const YEAR: i64 = 31_536_000_000;

fn seeds(n: u64) -> Seeds {
    let replica = ReplicaId::from_u128(u128::from(n));
    Seeds { store: StoreId(n), replica, incarnation: Incarnation(n * 1000) }
}

fn schema() -> Arc<Schema> {
    let task = |k: crate::schema::KindBuilder| {
        k.value("title")
            .value_with("first", Margin::Infinite, Resolver::Oldest)
            .value_with("owner", Margin::Ms(5000), Resolver::Rank)
            .multi("notes")
            .set("tags")
            .map("labels")
            .counter("views")
            .max("best")
            .value("start")
            .value("stop")
            .group("span", ["start", "stop"])
    };
    let builder = Schema::builder()
        .kind("task", task)
        .kind("draft", |k| k.life(Life::EditRevives).value("title").value("text"))
        .kind("latest", |k| k.life(Life::Newest).value("title"))
        .kind("any", |k| k.open());
    Arc::new(builder.build().unwrap())
}

fn open_with(store: MemoryStore, n: u64, schema: Arc<Schema>) -> Device {
    let admission = Admission::Quarantine { drift_ms_max: 60_000 };
    Replica::open(store, schema, OpenOptions { seeds: seeds(n), slot: 0, admission, rank: 0 }).unwrap()
}

fn device(n: u64) -> Device {
    open_with(MemoryStore::new(), n, schema())
}

fn field(name: &str, value: impl Into<Value>) -> Action {
    Action::Put(vec![(name.to_owned(), value.into())])
}

fn add(field: &str, key: &str) -> Action {
    Action::Add { field: field.to_owned(), key: key.to_owned() }
}

fn remove(field: &str, key: &str) -> Action {
    Action::Remove { field: field.to_owned(), key: key.to_owned() }
}

fn set_key(field: &str, key: &str, value: impl Into<Value>) -> Action {
    Action::SetKey { field: field.to_owned(), key: key.to_owned(), value: value.into() }
}

fn inc(field: &str, by: i64) -> Action {
    Action::Inc { field: field.to_owned(), by }
}

fn on<S: Store>(replica: &mut Replica<S>, now: i64, kind: &str, id: &str, action: Action) -> Edited {
    replica.edit(Millis(now), &[Op::new(kind, id, action)]).unwrap()
}

fn act<S: Store>(replica: &mut Replica<S>, now: i64, action: Action) -> Edited {
    on(replica, now, "task", "t", action)
}

fn refused<S: Store>(replica: &mut Replica<S>, kind: &str, action: Action) -> EditError {
    replica.edit(Millis(9000), &[Op::new(kind, "t", action)]).unwrap_err()
}

fn wrote(edited: Edited) -> usize {
    match edited {
        Edited::Nothing => 0,
        Edited::Committed { registers, .. } => registers,
    }
}

fn stamp_of(edited: Edited) -> Stamp {
    let Edited::Committed { stamp, .. } = edited else { panic!("{edited:?}") };
    stamp
}

fn shows<S: Store>(replica: &Replica<S>, name: &str) -> Option<Shown> {
    replica.view("task", "t").unwrap().and_then(|mut view| view.fields.remove(name))
}

fn value(value: impl Into<Value>) -> Option<Shown> {
    Some(Shown::Value(value.into()))
}

fn is_deleted<S: Store>(replica: &Replica<S>, kind: &str) -> bool {
    replica.view(kind, "t").unwrap().unwrap().deleted
}

/// Joins everything that one holds into the other.
fn give<A: Store, B: Store>(from: &Replica<A>, to: &mut Replica<B>) {
    let mut rows = Vec::new();
    let visit = &mut |row: crate::store::Changed<'_>| {
        rows.push((row.kind.to_owned(), row.id.to_owned(), row.bytes.to_vec(), row.seq));
        ControlFlow::Continue(())
    };
    from.store().changes(0, visit).unwrap();
    let source = Some(from.identity().store);
    for (kind, id, bytes, seq) in &rows {
        let changes = Row::new(bytes, *seq).unwrap().entries().map(|entry| {
            let entry = entry.unwrap();
            (Arc::from(entry.address), Change::Join { register: entry.shown().unwrap(), source })
        });
        let changes = changes.collect();
        let incoming = Incoming { kind: Arc::from(kind.as_str()), id: Arc::from(id.as_str()), changes };
        to.join(Millis(1_000_000), &[incoming], source, Trust::Peer, None).unwrap();
    }
}

fn exchange<A: Store, B: Store>(one: &mut Replica<A>, two: &mut Replica<B>) {
    give(one, two);
    give(two, one);
    let digests = [one.head().unwrap().digest, two.head().unwrap().digest];
    assert_eq!(digests[0].shown, digests[1].shown);
    assert_eq!(digests, [one.recompute_digest().unwrap(), two.recompute_digest().unwrap()]);
}

#[test]
fn a_field_set_to_what_the_view_shows_is_not_written() {
    let mut a = device(1);
    assert_eq!(wrote(act(&mut a, 1000, field("title", "x"))), 2, "life and title");
    let before = a.head().unwrap();
    assert_eq!(act(&mut a, 2000, field("title", "x")), Edited::Nothing);
    assert_eq!(
        (a.head().unwrap(), a.clock().high_water()),
        (before.clone(), before.high_water),
        "no stamp was used"
    );
    let both = Action::Put(vec![("title".into(), "x".into()), ("best".into(), 5.into())]);
    assert_eq!(wrote(act(&mut a, 3000, both)), 1);
}

#[test]
fn a_field_set_to_a_held_value_that_the_view_does_not_show_is_written() {
    let (mut a, mut b) = (device(1), device(2));
    act(&mut a, 1000, field("first", "older"));
    act(&mut b, 2000, field("first", "newer"));
    exchange(&mut a, &mut b);
    assert_eq!(shows(&b, "first"), value("older"));
    assert_eq!(act(&mut b, 3000, field("first", "older")), Edited::Nothing);
    assert_eq!(wrote(act(&mut b, 3000, field("first", "newer"))), 1);
    exchange(&mut a, &mut b);
    assert_eq!(shows(&a, "first"), value("newer"));
}

#[test]
fn refused_edits_change_nothing_and_use_no_stamp() {
    let mut a = device(1);
    act(&mut a, 1000, field("title", "x"));
    act(&mut a, 1000, inc("views", i64::MAX));
    let before = a.head().unwrap();
    let long = "k".repeat(address::KEY_BYTES_MAX + 1);
    let deep = (0..40).fold(Value::Null, |value, _| Value::List(vec![value]));
    let large = Value::Bytes(vec![0; crate::edit::EDIT_BYTES_MAX]);
    assert!(matches!(refused(&mut a, "no", field("title", "y")), EditError::UndeclaredKind { .. }));
    assert!(matches!(refused(&mut a, "task", field("no", "y")), EditError::UndeclaredField { .. }));
    assert!(matches!(refused(&mut a, "task", field("tags", "y")), EditError::WrongType { .. }));
    assert!(matches!(refused(&mut a, "task", add("title", "y")), EditError::WrongType { .. }));
    assert!(matches!(refused(&mut a, "task", set_key("tags", "y", 1)), EditError::WrongType { .. }));
    assert!(matches!(refused(&mut a, "task", inc("title", 1)), EditError::WrongType { .. }));
    assert!(matches!(refused(&mut a, "task", Action::Revive), EditError::NotDeleted { .. }));
    assert!(matches!(refused(&mut a, "draft", Action::Delete), EditError::NotThere { .. }));
    assert!(matches!(refused(&mut a, "task", inc("views", 1)), EditError::Overflow { .. }));
    assert!(matches!(refused(&mut a, "task", add("tags", &long)), EditError::TooLong { .. }));
    assert!(matches!(refused(&mut a, "task", field("title", deep)), EditError::TooDeep { .. }));
    assert!(matches!(refused(&mut a, "task", field("title", large)), EditError::TooLarge { .. }));
    let good = Op::new("task", "t", field("title", "good"));
    let bad = Op::new("task", "u", Action::Delete);
    a.edit(Millis(9000), &[good, bad]).unwrap_err();
    assert_eq!((a.head().unwrap(), a.clock().high_water()), (before.clone(), before.high_water));
    assert_eq!(shows(&a, "title"), value("x"));
}

#[test]
fn an_edit_beyond_its_registers_is_refused() {
    let mut a = device(1);
    let adds = |count: usize| -> Vec<Op> {
        (0..count).map(|n| Op::new("task", "t", add("tags", &n.to_string()))).collect()
    };
    let most = crate::edit::EDIT_REGISTERS_MAX - 1;
    assert_eq!(wrote(a.edit(Millis(1000), &adds(most)).unwrap()), most + 1);
    let before = a.head().unwrap();
    let refused = a.edit(Millis(1000), &adds(most + 2)).unwrap_err();
    assert!(matches!(refused, EditError::TooLarge { .. }), "{refused}");
    assert_eq!(a.head().unwrap(), before);
}

#[test]
fn the_edit_that_creates_an_entity_writes_its_life_under_every_policy() {
    let mut a = device(1);
    for (kind, later) in [("task", 1), ("draft", 2), ("latest", 1)] {
        assert_eq!(wrote(on(&mut a, 1000, kind, "t", field("title", "x"))), 2, "{kind}");
        assert_eq!(wrote(on(&mut a, 2000, kind, "t", field("title", "y"))), later, "{kind}");
        assert!(!is_deleted(&a, kind));
    }
    assert_eq!(wrote(on(&mut a, 1000, "task", "u", Action::Put(Vec::new()))), 1, "an entity without fields");
}

/// The entity deleted by one and edited by the other, neither knowing of it; then both know both.
fn delete_against_edit(kind: &str, delete_ms: i64, edit_ms: i64) -> bool {
    let (mut a, mut b) = (device(1), device(2));
    on(&mut a, 1000, kind, "t", field("title", "x"));
    exchange(&mut a, &mut b);
    on(&mut a, delete_ms, kind, "t", Action::Delete);
    on(&mut b, edit_ms, kind, "t", field("title", "edited"));
    exchange(&mut a, &mut b);
    assert_eq!(a.view(kind, "t").unwrap(), b.view(kind, "t").unwrap());
    let view = a.view(kind, "t").unwrap().unwrap();
    assert_eq!(view.fields["title"], Shown::Value("edited".into()), "no field is dropped");
    view.deleted
}

#[test]
fn a_delete_against_an_edit_goes_as_the_kind_says_whatever_the_clocks() {
    for (delete_ms, edit_ms) in [(2000, 3000), (3000, 2000)] {
        assert!(delete_against_edit("task", delete_ms, edit_ms));
        assert!(!delete_against_edit("draft", delete_ms, edit_ms));
        assert!(delete_against_edit("latest", delete_ms, edit_ms), "an edit writes no life");
    }
}

#[test]
fn a_revival_against_a_second_delete_goes_as_the_kind_says() {
    for (kind, revive_ms, delete_ms, deleted) in [
        ("task", 4000, 3000, true),
        ("draft", 3000, 4000, false),
        ("latest", 4000, 3000, false),
        ("latest", 3000, 4000, true),
    ] {
        let (mut a, mut b) = (device(1), device(2));
        on(&mut a, 1000, kind, "t", field("title", "x"));
        exchange(&mut a, &mut b);
        on(&mut a, 2000, kind, "t", Action::Delete);
        on(&mut a, revive_ms, kind, "t", Action::Revive);
        on(&mut b, delete_ms, kind, "t", Action::Delete);
        exchange(&mut a, &mut b);
        assert_eq!((is_deleted(&a, kind), is_deleted(&b, kind)), (deleted, deleted), "{kind}");
    }
}

#[test]
fn a_deleted_entity_takes_no_edit_except_where_edits_revive() {
    let mut a = device(1);
    for kind in ["task", "latest", "draft"] {
        on(&mut a, 1000, kind, "t", field("title", "x"));
        on(&mut a, 2000, kind, "t", Action::Delete);
        assert!(is_deleted(&a, kind));
        assert!(matches!(refused(&mut a, kind, Action::Delete), EditError::NotThere { .. }));
    }
    assert!(matches!(refused(&mut a, "task", field("title", "y")), EditError::Deleted { .. }));
    assert!(matches!(refused(&mut a, "latest", field("title", "x")), EditError::Deleted { .. }));
    assert_eq!(
        wrote(on(&mut a, 3000, "draft", "t", field("title", "x"))),
        1,
        "its life, not the hidden title"
    );
    assert!(!is_deleted(&a, "draft"));
    assert_eq!(wrote(on(&mut a, 3000, "task", "t", Action::Revive)), 1);
    assert_eq!(shows(&a, "title"), value("x"), "all of its fields or none");
}

#[test]
fn groups_are_written_whole_and_never_interleaved() {
    let (mut a, mut b) = (device(1), device(2));
    assert_eq!(wrote(act(&mut a, 1000, field("start", 1))), 2);
    assert_eq!(shows(&a, "stop"), value(()), "a member that was never set is null");
    exchange(&mut a, &mut b);
    act(&mut a, 2000, field("start", 20));
    act(&mut b, 3000, field("stop", 30));
    exchange(&mut a, &mut b);
    for replica in [&a, &b] {
        assert_eq!((shows(replica, "start"), shows(replica, "stop")), (value(1), value(30)));
    }
    assert_eq!(act(&mut a, 4000, field("stop", 30)), Edited::Nothing);
    let whole = Action::Put(vec![("stop".into(), 5.into()), ("start".into(), 4.into())]);
    assert_eq!(wrote(act(&mut a, 4000, whole)), 1);
}

#[test]
fn a_writer_carries_group_members_over_that_it_does_not_know() {
    let newer = |k: crate::schema::KindBuilder| {
        k.value("start").value("stop").value("zone").group("span", ["start", "stop", "zone"])
    };
    let newer = Arc::new(Schema::builder().kind("task", newer).build().unwrap());
    let (mut a, mut b) = (open_with(MemoryStore::new(), 1, newer), device(2));
    act(&mut a, 1000, field("zone", "utc"));
    exchange(&mut a, &mut b);
    assert_eq!(shows(&b, "zone"), None);
    act(&mut b, 2000, field("start", 7));
    exchange(&mut a, &mut b);
    assert_eq!((shows(&a, "zone"), shows(&a, "start")), (value("utc"), value(7)));
}

#[test]
fn counters_sum_what_each_replica_counted_and_overflow_when_edited_only() {
    let (mut a, mut b) = (device(1), device(2));
    for replica in [&mut a, &mut b] {
        act(replica, 1000, inc("views", i64::MAX));
    }
    exchange(&mut a, &mut b);
    assert_eq!(shows(&a, "views"), Some(Shown::Counter(2 * i128::from(i64::MAX))));
    let over = refused(&mut a, "task", inc("views", 1));
    assert_eq!(over, EditError::Overflow { field: "views".into(), total: i64::MAX, by: 1 });
    act(&mut a, 2000, inc("views", -3));
    act(&mut a, 2000, inc("views", -i64::MAX));
    exchange(&mut a, &mut b);
    assert_eq!(shows(&b, "views"), Some(Shown::Counter(i128::from(i64::MAX) - 3)));
    let twice = [5, 6].map(|by| Op::new("task", "t", inc("views", by)));
    assert_eq!(wrote(a.edit(Millis(3000), &twice).unwrap()), 1, "one register in one edit");
    exchange(&mut a, &mut b);
    assert_eq!(shows(&b, "views"), Some(Shown::Counter(i128::from(i64::MAX) - 3 + 11)));
}

#[test]
fn sets_maps_and_counters_always_write() {
    let mut a = device(1);
    act(&mut a, 1000, field("title", "x"));
    for action in [add("tags", "red"), set_key("labels", "k", 1), inc("views", 0), remove("tags", "no")] {
        for now in [2000, 3000] {
            assert_eq!(wrote(act(&mut a, now, action.clone())), 1, "{action:?}");
        }
    }
    assert_eq!(shows(&a, "tags"), Some(Shown::Set(BTreeSet::from(["red".to_owned()]))));
    act(&mut a, 4000, set_key("labels", "n", ()));
    act(&mut a, 4000, remove("labels", "k"));
    assert_eq!(
        shows(&a, "labels"),
        Some(Shown::Map([("n".to_owned(), Value::Null)].into())),
        "null is there"
    );
}

#[test]
fn an_add_wins_over_a_concurrent_remove_and_a_remove_over_the_adds_it_saw() {
    let (mut a, mut b) = (device(1), device(2));
    act(&mut a, 1000, add("tags", "red"));
    exchange(&mut a, &mut b);
    act(&mut a, 5000, remove("tags", "red"));
    act(&mut b, 2000, add("tags", "red"));
    exchange(&mut a, &mut b);
    assert!(shows(&a, "tags").is_some() && shows(&b, "tags").is_some());
    act(&mut b, 3000, remove("tags", "red"));
    exchange(&mut a, &mut b);
    assert_eq!((shows(&a, "tags"), shows(&b, "tags")), (None, None));
}

#[test]
fn what_an_edit_wrote_shows_in_the_same_edit() {
    let mut a = device(1);
    let (seen, edited) = a
        .transact(Millis(1000), Force::No, |tx| {
            tx.apply(&Op::new("task", "t", field("title", "x")))?;
            tx.apply(&Op::new("task", "t", field("notes", "n")))?;
            tx.apply(&Op::new("task", "t", inc("views", 2)))?;
            tx.apply(&Op::new("task", "t", field("title", "x")))?;
            tx.view("task", "t")
        })
        .unwrap();
    assert_eq!((seen, wrote(edited)), (a.view("task", "t").unwrap(), 4));
    let (deleted, _) = a
        .transact(Millis(2000), Force::No, |tx| {
            tx.apply(&Op::new("task", "t", Action::Delete))?;
            assert!(tx.apply(&Op::new("task", "t", field("title", "y"))).is_err());
            Ok(tx.presence("task", "t")? == crate::edit::Presence::Deleted)
        })
        .unwrap();
    assert!(deleted && is_deleted(&a, "task"));
}

#[test]
fn a_write_replaces_what_its_author_saw_and_forced_writes_replace_the_year_2105() {
    let (mut a, mut b, mut c) = (device(1), device(2), device(3));
    let late = Stamp { generation: 0, time: TIME_END - 1, replica: ReplicaId::from_u128(99) };
    let poison =
        Register::plain(crate::register::Candidate { stamp: late, rank: 0, saw: None, value: b"\x01" });
    for replica in [&mut a, &mut b, &mut c] {
        act(replica, 500, field("title", "first"));
        let change =
            (Arc::from(address::field("title")), Change::Join { register: poison.clone(), source: None });
        let incoming = Incoming { kind: Arc::from("task"), id: Arc::from("t"), changes: vec![change] };
        replica.join(Millis(1000), &[incoming], None, Trust::Authority, None).unwrap();
        assert_eq!(shows(replica, "title"), value(1));
    }
    let before = a.clock().high_water();
    let seen = stamp_of(act(&mut a, 1000, field("title", "seen is replaced")));
    assert_eq!((seen.generation, seen.time), (1, ticks(1000)), "the clock has not moved");
    assert!(before < ticks(2000));
    // c forces without having seen a's, and passes it over by its generation.
    act(&mut c, 900, field("title", "concurrent"));
    let force = |tx: &mut Tx<'_, MemoryStore>| tx.apply(&Op::new("task", "t", field("title", "forced")));
    let ((), forced) = c.transact(Millis(950), Force::Yes, force).unwrap();
    assert_eq!(stamp_of(forced).generation, 2);
    give(&a, &mut b);
    exchange(&mut b, &mut c);
    exchange(&mut a, &mut b);
    for replica in [&a, &b, &c] {
        assert_eq!(shows(replica, "title"), value("forced"));
        assert!(replica.clock().high_water() < ticks(2000));
    }
}

#[test]
fn clocks_that_jump_by_years_never_block_an_edit_and_stamps_rise() {
    let mut a = device(1);
    let mut last = Stamp::LOWEST;
    for (step, now) in [(0, 5 * YEAR), (1, 4 * YEAR), (2, 6 * YEAR), (3, 5 * YEAR), (4, -YEAR)] {
        for n in 0..3 {
            let stamp = stamp_of(act(&mut a, now, field("title", format!("{step} {n}"))));
            assert!(stamp > last);
            last = stamp;
            assert_eq!(shows(&a, "title"), value(format!("{step} {n}")));
        }
        a = open_with(a.into_store(), 50 + step, schema());
        assert_eq!(a.id(), ReplicaId::from_u128(1));
    }
    assert_eq!(last.time, ticks(6 * YEAR as u64) + 2 + 3 + 3);
}
