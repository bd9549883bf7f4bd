//! The cases that broke other designs, by name. [`laws`] and [`model`] check the rest.

use super::*;

mod laws;
mod model;

fn stamp(time: u64, replica: u128) -> Stamp {
    Stamp { generation: 0, time, replica: ReplicaId::from_u128(replica) }
}

fn candidate(stamp: Stamp) -> Candidate<'static> {
    Candidate { stamp, rank: 0, saw: None, value: b"v" }
}

/// How much is tried: what the environment asks for, or the usual.
fn asked(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |number| number.parse().expect("a number"))
}

/// The delta of a write at `time` by `replica`, who looks at `state`.
fn write(state: Option<&Register<'_>>, time: u64, replica: u128, reach: Reach) -> Register<'static> {
    Register::write(state, candidate(stamp(time, replica)), reach)
}

fn seen(replica: u128, time: u64) -> Seen {
    let Stamp { replica, .. } = stamp(time, replica);
    Seen { replica, instant: Instant { generation: 0, time } }
}

/// Times and replicas of the candidates.
fn alive(register: &Register<'_>) -> Vec<(u64, u128)> {
    register.alive.iter().map(|c| (c.stamp.time, c.stamp.replica.as_u128())).collect()
}

/// The join of three, which must be the same in each order and grouping.
fn join_all(deltas: [&Register<'static>; 3]) -> Register<'static> {
    let [a, b, c] = deltas;
    let joined = a.join(b).join(c);
    for [x, y, z] in [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
        assert_eq!(x.join(y).join(z), joined);
        assert_eq!(x.join(&y.join(z)), joined);
    }
    joined
}

#[test]
fn a_chain_of_writes_each_within_the_margin_of_the_next_has_one_outcome() {
    let margin = Reach::Ticks(5);
    let (a, b, c) = (write(None, 0, 3, margin), write(None, 4, 2, margin), write(None, 8, 1, margin));
    assert_eq!(alive(&join_all([&a, &b, &c])), [(4, 2), (8, 1)]);
    assert_eq!(alive(&a.join(&b)), [(0, 3), (4, 2)]);
    assert_eq!(alive(&a.join(&c)), [(8, 1)]);
}

#[test]
fn a_write_replaces_what_the_writes_that_it_saw_had_seen() {
    for reach in [Reach::Ticks(9), Reach::Infinite] {
        let a = write(None, 1, 1, reach);
        let b = write(Some(&a), 2, 2, reach);
        let c = write(Some(&b), 3, 3, reach);
        assert_eq!(alive(&a.join(&c)), [(3, 3)], "b never came here");
        assert_eq!(join_all([&a, &b, &c]), c);
    }
}

#[test]
fn a_write_leaves_what_its_author_had_not_seen() {
    let a = write(None, 1, 1, Reach::Infinite);
    let b = write(Some(&a), 2, 2, Reach::Infinite);
    let later = write(Some(&a), 9, 1, Reach::Infinite);
    assert_eq!(alive(&join_all([&a, &b, &later])), [(2, 2), (9, 1)]);
}

#[test]
fn of_two_margins_each_binds_where_its_write_is_delivered() {
    let a = write(None, 0, 1, Reach::Infinite);
    let narrow = write(None, 4, 2, Reach::Ticks(2));
    let wide = write(None, 5, 3, Reach::Ticks(10));
    assert_eq!(alive(&join_all([&a, &narrow, &wide])), [(4, 2), (5, 3)]);
    assert_eq!(alive(&a.join(&wide)), [(0, 1), (5, 3)]);
    assert_eq!(alive(&a.join(&narrow)), [(4, 2)]);
}

#[test]
fn a_write_carries_the_floor_that_its_author_had() {
    let a = write(None, 0, 1, Reach::Infinite);
    let b = write(None, 10, 2, Reach::None);
    let c = write(Some(&b), 11, 3, Reach::Ticks(20));
    assert_eq!(c.floor, stamp(10, 2));
    assert_eq!(alive(&a.join(&c)), [(11, 3)], "b, which c replaced, had put a out of the running");
    assert_eq!(join_all([&a, &b, &c]), c);
}

#[test]
fn a_write_exactly_the_margin_older_is_out_and_one_tick_inside_is_in() {
    for (older, newer) in [(1, 2), (2, 1)] {
        let new = write(None, 20, newer, Reach::Ticks(5));
        let out = write(None, 15, older, Reach::Ticks(5));
        assert_eq!(alive(&new.join(&out)), [(20, newer)]);
        let inside = write(None, 16, older, Reach::Ticks(5));
        assert_eq!(alive(&new.join(&inside)), [(16, older), (20, newer)]);
    }
}

#[test]
fn a_margin_of_one_tick_keeps_equal_times_only() {
    let new = write(None, 20, 2, Reach::Ticks(1));
    assert_eq!(alive(&new.join(&write(None, 20, 1, Reach::Ticks(1)))), [(20, 1), (20, 2)]);
    assert_eq!(alive(&new.join(&write(None, 19, 3, Reach::Ticks(1)))), [(20, 2)]);
}

#[test]
fn a_finite_margin_does_not_reach_into_the_generation_before() {
    let old = write(None, 7, 1, Reach::Ticks(5));
    let raised = Stamp { generation: 1, ..stamp(2, 2) };
    let finite = Register::write(None, candidate(raised), Reach::Ticks(5));
    assert_eq!(finite.floor, Stamp { generation: 1, ..Stamp::LOWEST });
    assert_eq!(alive(&old.join(&finite)), [(2, 2)]);
    let infinite = Register::write(None, candidate(raised), Reach::Infinite);
    assert_eq!(alive(&old.join(&infinite)), [(7, 1), (2, 2)]);
}

#[test]
fn no_margin_leaves_one_stamp_whatever_was_seen() {
    let several = write(None, 1, 1, Reach::Infinite).join(&write(None, 2, 2, Reach::Infinite));
    let delta = write(Some(&several), 3, 3, Reach::None);
    assert_eq!(delta, Register::plain(candidate(stamp(3, 3))));
    assert_eq!(several.join(&delta), delta);
    assert_eq!(delta.as_plain(), Some(&candidate(stamp(3, 3))));
}

#[test]
fn seen_is_cut_off_at_the_floor() {
    let several = write(None, 1, 1, Reach::Infinite).join(&write(None, 8, 2, Reach::Infinite));
    let delta = write(Some(&several), 9, 3, Reach::Ticks(5));
    assert_eq!(delta.seen, [seen(2, 8)]);
    assert!(delta.covers(stamp(8, 2)) && delta.covers(stamp(9, 3)) && !delta.covers(stamp(9, 2)));
    assert!(!several.join(&delta).covers(stamp(1, 1)));
}

#[test]
fn equal_stamps_keep_the_greater_rank_then_value_and_the_greater_saw() {
    let saw = |done| Some(Saw { incarnation: Incarnation(7), done });
    let with = |rank, value, saw| Candidate { rank, value, saw, ..candidate(stamp(5, 1)) };
    let cases = [
        (with(2, b"a", None), with(1, b"b", saw(3)), with(2, b"a", saw(3))),
        (with(1, b"a", saw(4)), with(1, b"b", saw(3)), with(1, b"b", saw(4))),
        (with(1, b"a", saw(4)), with(1, b"a", None), with(1, b"a", saw(4))),
    ];
    for (one, two, kept) in cases {
        for reach in [Reach::None, Reach::Infinite] {
            let (a, b) = (Register::write(None, one, reach), Register::write(None, two, reach));
            assert_eq!(a.join(&b), Register::write(None, kept, reach));
            assert_eq!(b.join(&a), Register::write(None, kept, reach));
        }
    }
}

#[test]
#[should_panic(expected = "stamped above what its author saw")]
fn a_write_at_the_stamp_that_its_author_saw_is_a_bug_of_the_caller() {
    let state = write(None, 5, 1, Reach::Infinite);
    let _ = write(Some(&state), 5, 1, Reach::Infinite);
}

#[test]
fn each_way_to_be_malformed_is_named() {
    let register = |floor, alive: &[Stamp], seen: &[Seen]| Register {
        floor,
        alive: alive.iter().copied().map(candidate).collect::<Vec<_>>().into(),
        seen: seen.to_vec(),
    };
    let (low, two) = (stamp(2, 0), [stamp(4, 1), stamp(6, 2)]);
    let good = [
        register(low, &two, &[seen(3, 5)]),
        register(low, &[stamp(4, 1), stamp(5, 3), stamp(6, 2)], &[seen(4, 3), seen(5, 5)]),
        register(two[1], &two[1..], &[]),
        register(two[0], &two, &[]),
        register(stamp(5, 3), &two[1..], &[seen(3, 5)]),
    ];
    for register in good {
        assert_eq!(register.check(), Ok(()), "{register:?}");
    }
    let bad = [
        (register(low, &[], &[]), Malformed::NoCandidate),
        (register(stamp(6, 3), &two, &[]), Malformed::FloorAboveNewest),
        (register(stamp(5, 0), &two, &[]), Malformed::BelowFloor),
        (register(low, &two, &[seen(3, 1)]), Malformed::BelowFloor),
        (register(low, &[stamp(6, 2), stamp(4, 1)], &[]), Malformed::Unsorted),
        (register(low, &[stamp(4, 1), stamp(4, 1)], &[]), Malformed::Unsorted),
        (register(low, &two, &[seen(4, 3), seen(3, 3)]), Malformed::Unsorted),
        (register(low, &two, &[seen(3, 3), seen(3, 4)]), Malformed::Unsorted),
        (register(low, &[stamp(4, 1), stamp(6, 1)], &[]), Malformed::TwoOfOneReplica),
        (register(low, &two, &[seen(1, 3)]), Malformed::SeenOfCandidate),
        (register(low, &two[1..], &[seen(2, 3)]), Malformed::SeenOfCandidate),
        (register(low, &two, &[seen(3, 6)]), Malformed::SeenAboveNewest),
    ];
    for (register, why) in bad {
        assert_eq!(register.check(), Err(why), "{register:?}");
    }
}

#[test]
fn the_canonical_form_is_everything_but_saw_at_full_width() {
    let head = |generation: u16, time: u64, replica: u128| {
        [&generation.to_be_bytes()[..], &time.to_be_bytes(), &replica.to_be_bytes()].concat()
    };
    let own = |time, replica, rank, saw| Candidate { rank, saw, ..candidate(stamp(time, replica)) };
    let canonical = |register: &Register<'_>| {
        let mut out = vec![0xee];
        register.encode_canonical(&mut out);
        out
    };
    let one = |floor: Vec<u8>, rank| {
        let count = 1_u64.to_be_bytes();
        [&[0xee], &floor[..], &count, &head(0, 4, 1), &[rank], &count, b"v"].concat()
    };
    let saw = Some(Saw { incarnation: Incarnation(7), done: 3 });
    let plain = Register::plain(own(4, 1, 9, saw));
    assert_eq!(canonical(&plain), one(head(0, 4, 1), 9));
    assert_eq!(canonical(&Register { floor: Stamp::LOWEST, ..plain }), one(head(0, 0, 0), 9));
    let alive = vec![own(4, 1, 0, saw), own(6, 2, 8, None)].into();
    let several = Register { floor: stamp(2, 0), alive, seen: vec![seen(3, 5)] };
    let expected = [
        &[0xee],
        &head(0, 2, 0)[..],
        &2_u64.to_be_bytes(),
        &[&head(0, 4, 1)[..], &[0], &1_u64.to_be_bytes(), b"v"].concat(),
        &[&head(0, 6, 2)[..], &[8], &1_u64.to_be_bytes(), b"v"].concat(),
        &head(0, 5, 3),
    ];
    assert_eq!(canonical(&several), expected.concat());
}

#[test]
fn candidates_are_equal_by_what_they_are_and_not_by_how_they_are_kept() {
    let one = candidate(stamp(4, 1));
    assert_eq!(Alive::One([one]), Alive::Many(vec![one]));
    assert!(matches!(Alive::from(vec![one]), Alive::One(_)));
    for other in [candidate(stamp(5, 1)), Candidate { rank: 1, ..one }, Candidate { value: b"w", ..one }] {
        assert_ne!(Alive::One([one]), Alive::One([other]));
        assert_ne!(Register { floor: one.stamp, ..Register::plain(other) }, Register::plain(one));
    }
    assert_ne!(Alive::from(vec![one]), Alive::from(vec![one, candidate(stamp(5, 2))]));
}
