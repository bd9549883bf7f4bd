//! What a hostile reading of the protocol found.

use super::*;
use crate::address;
use crate::edit::EditError;
use crate::register::{Alive, Candidate, Register};
use crate::wire::{About, Hello};

const YEAR: i64 = 31_536_000_000;

fn multi_schema() -> Arc<Schema> {
    Arc::new(Schema::builder().kind("task", |k| k.open().multi("m").counter("views")).build().unwrap())
}

fn open_multi(store: MemoryStore, n: u64) -> Device {
    let options = OpenOptions { seeds: seeds(n), slot: 0, admission: Admission::Off, rank: 0 };
    Replica::open(store, multi_schema(), options).unwrap()
}

/// F1. Two live edits in two pushes, both wanted again: the second rebuild forgets the first edit.
#[test]
fn f1_increments_survive_again_in_separate_pushes() {
    let (mut a, mut h) = (device(1), hub(9));
    put(&mut a, 1000, "t", "title", "on time");
    sync(&mut a, &mut h);
    let (mut s, mut t) = (client(Want::Live), server());
    let now = Millis(100_000);
    run(
        &mut End { replica: &mut a, session: &mut s, now },
        &mut End { replica: &mut h, session: &mut t, now },
        usize::MAX,
    )
    .unwrap();
    let fast = Millis(YEAR);
    inc(&mut a, YEAR, "t", 5);
    let first = s.poll_transmit(&mut a, fast).unwrap().unwrap();
    inc(&mut a, YEAR + 1, "t", 10);
    let second = s.poll_transmit(&mut a, fast).unwrap().unwrap();
    t.handle(&mut h, &first, now).unwrap();
    t.handle(&mut h, &second, now).unwrap();
    run(
        &mut End { replica: &mut a, session: &mut s, now: fast },
        &mut End { replica: &mut h, session: &mut t, now },
        1000,
    )
    .unwrap();
    assert_eq!(a.pending_count().unwrap(), 0);
    assert_eq!(shows(&h, "t", "views"), Some(Shown::Counter(15)));
    assert_eq!(shows(&a, "t", "views"), Some(Shown::Counter(15)));
}

/// A device whose clock is a year ahead gets answers to all of its edits.
fn assert_comes_to_rest(fast: &mut Device, hub: &mut Device) {
    let (mut s, mut t) = (client(Want::Once), server());
    let mut one = End { replica: fast, session: &mut s, now: Millis(YEAR + 6000) };
    let mut two = End { replica: hub, session: &mut t, now: Millis(100_000) };
    let frames = run(&mut one, &mut two, 2000).unwrap();
    assert!(frames < 2000, "still going after {frames} frames");
    assert_eq!(fast.pending_count().unwrap(), 0);
}

/// F2. A device whose clock was a year ahead before it met its hub pushes and is refused for ever.
#[test]
fn f2_a_device_that_was_fast_before_it_met_its_hub_comes_to_rest() {
    let (mut a, mut h) = (device(1), hub(9));
    put(&mut a, YEAR, "t", "title", "before");
    sync_at(&mut a, &mut h, 100_000).unwrap();
    put(&mut a, YEAR + 5000, "u", "title", "after");
    assert_comes_to_rest(&mut a, &mut h);
}

/// F3. The same livelock because the hub once wrote with a clock far ahead.
#[test]
fn f3_a_fast_device_comes_to_rest_though_the_hub_holds_a_value_of_2100() {
    let (mut a, mut h) = (device(1), hub(9));
    put(&mut h, 4_100_000_000_000, "old", "title", "the hub's clock was wrong");
    put(&mut a, 1000, "t", "title", "on time");
    sync_at(&mut a, &mut h, 100_000).unwrap();
    put(&mut a, YEAR, "u", "title", "fast");
    assert_comes_to_rest(&mut a, &mut h);
}

/// F4. An edit whose ids alone are longer than a frame blocks the outbox for ever.
#[test]
fn f4_any_edit_that_is_taken_fits_a_frame() {
    let (mut a, mut h) = (device(1), hub(9));
    sync(&mut a, &mut h);
    let ops: Vec<Op> = (0..32_768)
        .map(|n| Op::new("task", format!("{n:01024}"), Action::Put(vec![("x".into(), Value::from(1))])))
        .collect();
    match a.edit(Millis(2000), &ops) {
        Err(EditError::TooLarge { .. }) => {}
        other => {
            other.unwrap();
            sync(&mut a, &mut h);
        }
    }
}

/// Syncs as peers, with a quiet second: what is joined in parts is told back, and received then.
fn sync_slowly(one: &mut Device, two: &mut Device) {
    let (mut s, mut t) = (client(Want::Once), server());
    let now = Millis(2000);
    for _ in 0..3 {
        let mut one = End { replica: &mut *one, session: &mut s, now };
        run(&mut one, &mut End { replica: &mut *two, session: &mut t, now }, usize::MAX).unwrap();
        s.handle_quiet();
        t.handle_quiet();
    }
    assert!(s.is_closed());
}

/// F5. Several large candidates of one register fit no frame: they go in several, and sync goes on.
#[test]
fn f5_a_register_that_fits_no_frame_goes_in_parts() {
    let mut b = open_multi(MemoryStore::new(), 50);
    let write = |on: &mut Device, len: usize| {
        let action = Action::Put(vec![("m".into(), Value::Bytes(vec![1; len]))]);
        on.edit(Millis(1000), &[Op::new("task", "t", action)]).unwrap();
    };
    for n in 1..=9 {
        let mut a = open_multi(MemoryStore::new(), n);
        write(&mut a, (4 << 20) - 100);
        sync_slowly(&mut a, &mut b);
    }
    put(&mut b, 1500, "u", "title", "behind it");
    let mut c = open_multi(MemoryStore::new(), 60);
    sync_slowly(&mut c, &mut b);
    assert_same(&[&b, &c]);
    assert_eq!(shows(&c, "u", "title"), text("behind it"));
    // Cut off between two parts, it starts with the first one again.
    let mut d = open_multi(MemoryStore::new(), 61);
    let (mut s, mut t) = (client(Want::Once), server());
    let now = Millis(2000);
    let mut one = End { replica: &mut d, session: &mut s, now };
    run(&mut one, &mut End { replica: &mut b, session: &mut t, now }, 4).unwrap();
    assert_ne!(d.head().unwrap().digest.confirmed, b.head().unwrap().digest.confirmed);
    sync_slowly(&mut d, &mut b);
    assert_same(&[&b, &d]);
    write(&mut b, 10);
    sync_slowly(&mut c, &mut b);
    assert_same(&[&b, &c]);
}

/// An authority takes no edit that would make a register longer than can be told to the others, and they go on.
#[test]
fn an_edit_that_makes_a_register_too_long_is_refused_alone_and_the_others_go_on() {
    let mut h = open_multi(MemoryStore::new(), 50);
    h.serve_as_authority().unwrap();
    let write = |on: &mut Device, ms: i64, len: usize| {
        let action = Action::Put(vec![("m".into(), Value::Bytes(vec![1; len]))]);
        on.edit(Millis(ms), &[Op::new("task", "t", action)]).unwrap();
    };
    let mut refused = 0;
    for n in 1..=9 {
        // Offline, each by itself: nobody has seen the others' values.
        let mut a = open_multi(MemoryStore::new(), n);
        a.meet_authority(h.identity().store, 0).unwrap();
        write(&mut a, 1000, (4 << 20) - 100);
        put(&mut a, 1100, &format!("own {n}"), "title", "goes on");
        sync_at(&mut a, &mut h, 2000).unwrap();
        for edit in a.rejected().unwrap() {
            assert_eq!(edit.code, Code::TOO_LARGE, "{edit:?}");
            refused += 1;
        }
        assert_eq!(shows(&h, &format!("own {n}"), "title"), text("goes on"), "the edit beside it is taken");
        assert_eq!(a.pending_count().unwrap(), 0);
        assert_same(&[&a, &h]);
    }
    assert_eq!(refused, 6);
    let mut c = open_multi(MemoryStore::new(), 60);
    sync_at(&mut c, &mut h, 2000).unwrap();
    // Who has seen them all may put one in their place.
    write(&mut c, 3000, 4 << 19);
    sync_at(&mut c, &mut h, 4000).unwrap();
    assert!(c.rejected().unwrap().is_empty());
    assert_same(&[&c, &h]);
}

/// F6. Section 3: high-water covers joined stamps up to the *authority's* clock; else a slow clock raises the
/// generation with each edit and then beats everybody.
#[test]
fn f6_a_slow_clock_follows_its_authority_and_raises_no_generation() {
    let (mut a, mut h) = (device(1), hub(9));
    put(&mut h, YEAR, "t", "title", "hub");
    let (mut s, mut t) = (client(Want::Once), server());
    let mut one = End { replica: &mut a, session: &mut s, now: Millis(1000) };
    let mut two = End { replica: &mut h, session: &mut t, now: Millis(YEAR) };
    run(&mut one, &mut two, 1000).unwrap();
    let action = Action::Put(vec![("title".to_owned(), Value::from("slow"))]);
    let edited = a.edit(Millis(2000), &[Op::new("task", "t", action)]).unwrap();
    let crate::replica::Edited::Committed { stamp, .. } = edited else { panic!("{edited:?}") };
    assert_eq!(stamp.generation, 0);
}

fn hello(store: u64, replica: u128, head: u64) -> Vec<u8> {
    let about = About::new(
        StoreId(store),
        [ReplicaId::from_u128(replica)].into_iter(),
        &[(Incarnation(7), 1)],
        head,
        schema().fingerprint(),
        1000,
    );
    let (version_min, version_max) = (1, 1);
    Frame::Hello(Hello { version_min, version_max, capabilities: 0, about, token: None, offers: true })
        .encode()
}

fn candidate(replica: u128, rank: u8, value: &[u8]) -> Candidate<'_> {
    let replica = ReplicaId::from_u128(replica);
    let stamp = crate::clock::Stamp { generation: 0, time: crate::clock::ticks(50_000), replica };
    Candidate { stamp, rank, saw: None, value }
}

/// F8. A pushed edit may overwrite another replica's share of a counter.
#[test]
fn f8_nobody_writes_anothers_share_of_a_counter() {
    let (mut a, mut h) = (device(1), hub(9));
    inc(&mut a, 1000, "t", 5);
    sync(&mut a, &mut h);
    let now = Millis(100_000);
    let mut t = server();
    t.handle(&mut h, &hello(66, 66, 1), now).unwrap();
    let victim = address::count("views", ReplicaId::from_u128(1));
    let register = Register::plain(candidate(66, 0, &[0x00]));
    let mut encoder = RowEncoder::default();
    encoder.start_edit(1, 1);
    encoder.entity("task", "t", [(victim.as_slice(), &register)].into_iter());
    t.handle(&mut h, &encoder.finish_push(0, 1, None), now).unwrap();
    assert_eq!(shows(&h, "t", "views"), Some(Shown::Counter(5)));
}

/// F9. A head of u64::MAX in HELLO, then a new incarnation: arithmetic overflow (panics in debug builds).
#[test]
fn f9_a_head_at_the_end_of_numbers_does_not_panic() {
    let mut h = hub(9);
    let now = Millis(100_000);
    let mut t = server();
    assert!(t.handle(&mut h, &hello(66, 66, u64::MAX), now).is_err());
    let mut t = server();
    t.handle(&mut h, &hello(66, 66, i64::MAX as u64), now).unwrap();
    let mut encoder = RowEncoder::default();
    let _ = t.handle(&mut h, &encoder.finish_push(0, u64::MAX, Some(Incarnation(8))), now);
}

/// F10. A device that never says what it heard makes the authority remember every refused entity.
#[test]
fn f10_unheard_answers_are_bounded() {
    let mut h = hub(9);
    let now = Millis(100_000);
    let mut t = server();
    t.handle(&mut h, &hello(66, 66, 1), now).unwrap();
    let mut encoder = RowEncoder::default();
    let refused = (0..100).any(|n| {
        let register = Register::plain(candidate(77, 0, &[0x00]));
        encoder.start_edit(n + 1, 1);
        encoder.entity("task", &format!("e{n}"), [(&*address::field("x"), &register)].into_iter());
        t.handle(&mut h, &encoder.finish_push(0, 1, None), now).is_err()
    });
    assert!(refused, "100 pushes, none of whose answers was heard");
}

/// F11. Checking a register of many candidates takes quadratic time.
#[test]
fn f11_a_register_of_many_candidates_is_checked_in_time() {
    let alive = |n: u64| -> Register<'static> {
        let stamp = |time| crate::clock::Stamp {
            generation: 0,
            time,
            replica: ReplicaId::from_u128(u128::from(time)),
        };
        let alive: Vec<_> =
            (1..=n).map(|at| Candidate { stamp: stamp(at), rank: 0, saw: None, value: &[0][..] }).collect();
        Register { floor: crate::clock::Stamp::LOWEST, alive: Alive::from(alive), seen: Vec::new() }
    };
    // Quadratic, this would take minutes.
    let register = alive(200_000);
    register.check().unwrap();
    assert_eq!(register.join(&register).alive.len(), 200_000);
}
