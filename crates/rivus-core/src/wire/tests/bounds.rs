//! Limits: dictionaries that overflow, counts that promise too much, frames that nobody may send.

use super::*;
use crate::bytes::Put;
use crate::register::{Alive, Malformed};

const LAST: PageHeader =
    PageHeader { at: 1, more: false, incarnation: None, start: false, checkpoint: false };

fn round_trip(frames: impl Iterator<Item = Vec<Entity>>) {
    let (mut encoder, mut decoder) = (RowEncoder::default(), RowDecoder::default());
    for entities in frames {
        let bytes = page_of(&mut encoder, &entities, LAST);
        assert_rows(&decoder.page(&bytes, SENDER).unwrap().rows, &entities);
    }
}

fn titled(kind: &str, id: String, register: Register<'static>) -> Entity {
    (kind.to_owned(), id, vec![(address::field("title"), register)])
}

/// One after another, and then back: the oldest that is still known is named, too.
fn there_and_back(count: u64) -> impl Iterator<Item = u64> {
    (0..count).chain((0..count).rev())
}

/// One frame for each thousand.
fn in_frames(entities: impl Iterator<Item = Entity>) -> impl Iterator<Item = Vec<Entity>> {
    let mut entities = entities.peekable();
    std::iter::from_fn(move || {
        entities.peek()?;
        Some(entities.by_ref().take(1000).collect())
    })
}

#[test]
fn entities_beyond_the_dictionary_are_told_again() {
    let long = there_and_back(9000).map(|n| titled("task", format!("{n:01000}"), plain(stamp(0, 1, 1))));
    round_trip(in_frames(long));
    let many = there_and_back(66_000).map(|n| titled("task", n.to_string(), plain(stamp(0, 1, 1))));
    round_trip(in_frames(many));
}

#[test]
fn kinds_and_fields_beyond_their_dictionaries_are_told_again() {
    let kinds =
        there_and_back(5000).map(|n| titled(&format!("kind {n}"), n.to_string(), plain(stamp(0, 1, 1))));
    round_trip(in_frames(kinds));
    let fields = there_and_back(90).map(|n| {
        let address = address::field(&format!("{n:060000}"));
        ("task".to_owned(), "t".to_owned(), vec![(address, plain(stamp(0, 1, 1)))])
    });
    round_trip(in_frames(fields));
}

#[test]
fn replicas_and_incarnations_beyond_their_dictionaries_are_told_again() {
    let replicas =
        there_and_back(66_000).map(|n| titled("task", "t".to_owned(), plain(stamp(0, n, u128::from(n)))));
    round_trip(in_frames(replicas));
    let saw = there_and_back(5000).map(|n| {
        let saw = Some(Saw { incarnation: Incarnation(n), done: n });
        let only = Candidate { stamp: stamp(0, n, 1), rank: 0, saw, value: VALUES[0] };
        titled("task", "t".to_owned(), Register::plain(only))
    });
    round_trip(in_frames(saw));
}

#[test]
fn the_largest_edit_and_a_full_page_fit_one_frame() {
    let entities: Vec<Entity> = (0..2)
        .map(|half| {
            let all = (0..65_536 / 2 - half).map(|n| address::key("set", &format!("{n:05}")));
            let registers = all.map(|address| (address, plain(stamp(0, 1, 1)))).collect();
            ("task".to_owned(), half.to_string(), registers)
        })
        .collect();
    let mut encoder = RowEncoder::default();
    let half = REGISTERS_MAX / 2 - 1;
    let before: Registers =
        (0..half).map(|n| (address::key("a", &format!("{n:05}")), plain(stamp(0, 1, 1)))).collect();
    let before = ("task".to_owned(), "before".to_owned(), before);
    write_entity(&mut encoder, &before);
    assert!(encoder.is_full(), "by bytes, if not by registers");
    let bytes = page_of(&mut encoder, &entities, LAST);
    assert_eq!(registers_of(RowDecoder::default().page(&bytes, SENDER)), Ok(65_535 + half));
}

/// A frame of `shape`, `stamps` and `values`.
fn frame(shape: &[u8], stamps: &[u8], values: &[u8]) -> Vec<u8> {
    let mut out = vec![tag::DELTA, 0, 1];
    out.slice(shape);
    out.slice(stamps);
    out.extend_from_slice(values);
    out
}

/// The shape of a page of one new entity up to its `count` registers.
fn shape(count: u64) -> Vec<u8> {
    let mut out = vec![0, 0];
    out.slice(b"k");
    out.slice(b"t");
    out.varint(count);
    out
}

fn too_many(bytes: &[u8], what: &'static str, max: usize) {
    let refused = registers_of(RowDecoder::default().page(bytes, SENDER));
    assert_eq!(refused, Err(WireError::Bound { what, max }));
}

#[test]
fn more_registers_than_a_frame_may_hold_are_refused_before_they_are_read() {
    let mut one = shape(REGISTERS_MAX as u64 + 1);
    one.resize(one.len() + REGISTERS_MAX + 1, 0);
    too_many(&frame(&one, &[], &[]), "registers in a frame", REGISTERS_MAX);
    let mut one = shape(REGISTERS_MAX as u64);
    one.resize(one.len() + REGISTERS_MAX, 0);
    cut(&frame(&one, &[], &[]));
}

#[test]
fn more_candidates_than_a_frame_may_hold_are_refused_before_they_are_read() {
    let mut one = shape(1);
    one.push(7);
    one.slice(&address::field("f"));
    one.varint(REGISTERS_MAX as u64 + 1);
    one.extend_from_slice(&[0, 0]);
    // Every candidate is the edit before: two bytes each, and a hundred in memory.
    one.resize(one.len() + REGISTERS_MAX + 1, 1);
    let values = vec![0xf6; REGISTERS_MAX + 1];
    too_many(&frame(&one, &[0; 40], &values), "registers in a frame", REGISTERS_MAX);
}

#[test]
fn more_seen_entries_than_a_frame_may_hold_are_refused_before_they_are_read() {
    let of = |count: usize| {
        let mut one = shape(1);
        one.push(7);
        one.slice(&address::field("f"));
        one.push(1);
        one.varint(count as u64);
        one.push(0);
        one.push(0);
        frame(&one, &vec![0; 4 * SEEN_MAX + 8], &[0xf6])
    };
    too_many(&of(SEEN_MAX + 1), "seen entries in a frame", SEEN_MAX);
    let read = registers_of(RowDecoder::default().page(&of(SEEN_MAX), SENDER));
    assert!(matches!(read, Err(WireError::Register(_))), "{read:?}");
}

fn cut(bytes: &[u8]) {
    let refused = registers_of(RowDecoder::default().page(bytes, SENDER));
    assert_eq!(refused, Err(WireError::Malformed { frame: "DELTA" }));
}

#[test]
fn counts_beyond_the_bytes_that_follow_are_refused() {
    for count in [0, 2, 1 << 20, u64::MAX] {
        let mut one = shape(count);
        one.push(0);
        cut(&frame(&one, &[], &[]));
    }
    for (alive, seen) in [(1 << 40, 0), (1, u64::MAX), (1, 1 << 40)] {
        let mut one = shape(1);
        one.push(7);
        one.slice(&address::field("f"));
        one.varint(alive);
        one.varint(seen);
        one.extend_from_slice(&[0, 0]);
        cut(&frame(&one, &[0; 20], &[0xf6]));
    }
    // A dictionary entry that was never told, of each dictionary that the shape names.
    cut(&frame(&[1, 1, 0], &[], &[]));
    cut(&frame(&[0, 1, 1, b't', 1, 0], &[], &[]));
    cut(&frame(&[&shape(1)[..], &[1 | 1 << 3]].concat(), &[0; 20], &[0xf6]));
    cut(&frame(&[&shape(1)[..], &[1 | 31 << 3, 40]].concat(), &[0; 20], &[0xf6]));
}

#[test]
fn a_register_that_no_replica_can_hold_is_refused() {
    let mut encoder = RowEncoder::default();
    let twice = [stamp(0, 5, 1), stamp(0, 6, 1)].map(|stamp| *plain(stamp).newest());
    let register = Register { floor: Stamp::LOWEST, alive: Alive::from(twice.to_vec()), seen: Vec::new() };
    let bytes = page_of(&mut encoder, &[titled("task", "t".to_owned(), register)], LAST);
    let refused = registers_of(RowDecoder::default().page(&bytes, SENDER));
    assert_eq!(refused, Err(WireError::Register(Malformed::TwoOfOneReplica)));
    let high = Register { floor: stamp(0, 7, 2), ..plain(stamp(0, 6, 1)) };
    let bytes = page_of(&mut RowEncoder::default(), &[titled("task", "t".to_owned(), high)], LAST);
    let refused = registers_of(RowDecoder::default().page(&bytes, SENDER));
    assert_eq!(refused, Err(WireError::Register(Malformed::FloorAboveNewest)));
}

#[test]
fn registers_that_do_not_rise_are_refused_also_if_a_name_was_told_twice() {
    let of = |second: &[u8]| {
        let mut one = shape(2);
        one.push(1);
        one.slice(&address::field("f"));
        one.push(0);
        one.slice(second);
        frame(&one, &[0; 19], &[0xf6; 2])
    };
    assert_eq!(registers_of(RowDecoder::default().page(&of(&address::field("g")), SENDER)), Ok(2));
    for second in [address::LIFE, &address::field("e"), &address::field("f")] {
        cut(&of(second));
    }
}

/// Each counts 1024 bytes: its id, its kind and two for the length of that.
#[test]
fn an_entity_that_was_forgotten_cannot_be_named() {
    let (mut encoder, mut decoder) = (RowEncoder::default(), RowDecoder::default());
    let kind = "k".repeat(128);
    for entities in in_frames((0..1200).map(|n| titled(&kind, format!("{n:0894}"), plain(stamp(0, 1, 1))))) {
        let bytes = page_of(&mut encoder, &entities, LAST);
        decoder.page(&bytes, SENDER).unwrap();
    }
    let mut named = |distance: u64| {
        let mut one = Vec::new();
        one.varint(distance);
        one.extend_from_slice(&[1, 1]);
        one.slice(&address::field("f"));
        registers_of(decoder.page(&frame(&one, &[0; 19], &[0xf6]), SENDER))
    };
    let gone = Err(WireError::Malformed { frame: "DELTA" });
    assert_eq!((named((1 << 20) / 1024), named((1 << 20) / 1024 + 1)), (Ok(1), gone));
}

#[test]
fn after_ten_quiet_seconds_the_words_are_told_anew() {
    let (mut encoder, mut decoder) = (RowEncoder::default(), RowDecoder::default());
    let entities = [titled("task", "t1".to_owned(), plain(stamp(0, 5, 1)))];
    let first = page_of(&mut encoder, &entities, LAST);
    (0..9).for_each(|_| encoder.handle_quiet());
    let second = page_of(&mut encoder, &entities, LAST);
    assert!(second.len() < first.len(), "what is known is named by its distance");
    (0..10).for_each(|_| encoder.handle_quiet());
    let third = page_of(&mut encoder, &entities, LAST);
    let mut expected = first.clone();
    expected[1] |= 32;
    assert_eq!(third, expected);
    for frame in [first, second.clone(), third, second] {
        assert_eq!(registers_of(decoder.page(&frame, SENDER)), Ok(1));
    }
}

#[test]
fn kinds_ids_and_keys_have_a_longest_length() {
    let refused = |kind: &str, id: String, address: Vec<u8>| {
        let entity = (kind.to_owned(), id, vec![(address, plain(stamp(0, 1, 1)))]);
        let bytes = page_of(&mut RowEncoder::default(), &[entity], LAST);
        RowDecoder::default().page(&bytes, SENDER).is_err()
    };
    let long = |bytes: usize| "x".repeat(bytes);
    let title = || address::field("title");
    assert!(!refused(&long(address::KIND_BYTES_MAX), long(address::ID_BYTES_MAX), title()));
    assert!(refused(&long(address::KIND_BYTES_MAX + 1), long(1), title()));
    assert!(refused("", long(1), title()));
    assert!(refused("task", long(address::ID_BYTES_MAX + 1), title()));
    assert!(!refused("task", long(0), address::key("set", &long(address::KEY_BYTES_MAX))));
    assert!(refused("task", long(0), address::key("set", &long(address::KEY_BYTES_MAX + 1))));
    assert!(refused("task", long(0), vec![address::class::COUNT, 0, 1, b'n', 1]));
}

#[test]
fn frames_of_strangers_and_of_later_versions_are_bounded() {
    let greeting = |len: usize| {
        let mut bytes = Frame::Reset(Reset::default()).encode();
        bytes.resize(len, 0);
        Frame::decode(&bytes)
    };
    let bound = WireError::Bound { what: "bytes in a frame of this type", max: GREETING_BYTES_MAX };
    assert_eq!(greeting(GREETING_BYTES_MAX + 2), Err(bound));
    assert_eq!(greeting(GREETING_BYTES_MAX + 1), Err(WireError::Malformed { frame: "RESET" }));
    let about = |replicas: usize, incarnations: u64| {
        let history: Vec<_> = (1..=incarnations).map(|n| (Incarnation(n), n)).collect();
        let replicas = (0..replicas).map(|n| ReplicaId::from_u128(n as u128));
        About::new(StoreId(1), replicas, &history, 99, 0, 0)
    };
    let welcome = |about: About, known: Option<Reset>| {
        let (bounds, expires_in_ms) = (None, None);
        let frame = Welcome {
            version: 1,
            capabilities: 0,
            about,
            is_authority: true,
            rank: 0,
            known,
            bounds,
            expires_in_ms,
            leases: None,
        };
        Frame::decode(&Frame::Welcome(frame).encode()).is_ok()
    };
    assert!(welcome(about(REPLICAS_MAX, 32), None));
    assert!(!welcome(about(REPLICAS_MAX + 1, 32), None) && !welcome(about(1, 33), None));
    assert!(!welcome(about(0, 1), None));
    let history: Vec<_> = (1..=33).map(|n| (Incarnation(n), n)).collect();
    assert!(!welcome(about(1, 1), Some(Reset::new(Position::default(), &history))));
    let falls =
        About::new(StoreId(1), [ReplicaId::default()].into_iter(), &[history[3], history[2]], 9, 0, 0);
    assert!(!welcome(falls, None));
    let zero = [(Incarnation(1), 0)];
    assert!(!welcome(About::new(StoreId(1), [ReplicaId::default()].into_iter(), &zero, 9, 0, 0), None));
    assert_eq!(about(1, 1).with_epoch(0), about(1, 1), "who knows no rules says nothing of them");
    let long = [&[tag::SCHEMA][..], &vec![0; SCHEMA_BYTES_MAX + 1]].concat();
    let bound = WireError::Bound { what: "bytes in a frame of this type", max: SCHEMA_BYTES_MAX };
    assert_eq!(Frame::decode(&long), Err(bound));
    assert_eq!(Frame::decode(&[]), Err(WireError::Empty));
}

#[test]
fn an_ack_names_as_many_edits_as_a_frame_may_hold_registers() {
    let ack = |count: usize| {
        let exception = Exception { index: 0, code: None, message: "".into(), spot: None };
        let frame = Frame::Ack(Ack { seq: 1, clock_ms: 0, exceptions: vec![exception; count] });
        Frame::decode(&frame.encode()).map(|read| read == frame)
    };
    assert_eq!(ack(REGISTERS_MAX), Ok(true));
    assert_eq!(ack(REGISTERS_MAX + 1), Err(WireError::Malformed { frame: "ACK" }));
}

#[test]
fn types_that_may_be_ignored_are_and_others_are_refused() {
    for first in 0..=255_u8 {
        let read = Frame::decode(&[first, 1, 2, 3]);
        match first {
            tag::LEFT
            | tag::DENIED
            | tag::LOST
            | tag::HEARD
            | tag::REFUSED
            | tag::READABLE
            | tag::WINDOW
            | tag::SKETCH
            | tag::LEASE => {
                assert!(read.is_err(), "{first}")
            }
            tag::OPTIONAL.. => assert_eq!(read, Ok(Frame::Ignored)),
            tag::COMPRESSED | tag::DELTA | tag::PUSH | tag::FETCHED | 17.. => {
                assert_eq!(read, Err(WireError::UnknownFrame { tag: first }));
            }
            _ => assert!(read.is_err(), "{first}"),
        }
    }
}

#[test]
fn unknown_keys_of_a_hello_are_skipped() {
    let about = About::new(StoreId(1), [ReplicaId::default()].into_iter(), &[], 0, 0, 0);
    let (token, offers) = (Some("t".to_owned()), true);
    let hello = Hello { version_min: 1, version_max: 3, capabilities: 0, about, token, offers };
    let frame = Frame::Hello(hello);
    let mut bytes = frame.encode();
    assert_eq!(bytes[1], 0xa6, "a map of six");
    bytes[1] = 0xa8;
    // Key 9: [1, {"a": h'00'}]; key 200: an unknown tag over text.
    bytes.extend_from_slice(b"\x09\x82\x01\xa1\x61a\x41\x00\x18\xc8\xd9\xff\x00\x61x");
    assert_eq!(Frame::decode(&bytes), Ok(frame));
}

#[test]
fn a_kind_that_is_not_a_text_is_refused() {
    let bytes = frame(&[0, 0, 1, 0xff, 0, 1, 1, 4, 1, 0, 1, b'f'], &[0; 20], &[0xf6]);
    assert!(RowDecoder::default().page(&bytes, SENDER).is_err());
}

#[test]
fn a_kind_is_kept_as_long_as_an_entity_names_it() {
    let (mut encoder, mut decoder) = (RowEncoder::default(), RowDecoder::default());
    let first = || titled("first kind", "t".to_owned(), plain(stamp(0, 1, 1)));
    let other = |n: u32| titled(&format!("kind {n}"), String::new(), plain(stamp(0, 1, 1)));
    for entities in
        [vec![first()], (0..9000).map(other).collect(), (9000..18_000).map(other).collect(), vec![first()]]
    {
        let bytes = page_of(&mut encoder, &entities, LAST);
        assert_rows(&decoder.page(&bytes, SENDER).unwrap().rows, &entities);
    }
}

#[test]
fn an_edit_further_back_than_is_kept_is_refused() {
    let edits = |back: u8| {
        let mut one = shape(18);
        for n in 0..17 {
            one.push(1);
            one.slice(&address::field(&format!("{n:02}")));
        }
        one.push(2);
        one.slice(&address::field("last"));
        one.push(back);
        let stamps: Vec<u8> =
            std::iter::once(0).chain([7; 16]).chain([2, 0]).chain((1..17).flat_map(|_| [4, 2, 0])).collect();
        registers_of(RowDecoder::default().page(&frame(&one, &stamps, &[0xf6; 18]), SENDER))
    };
    assert_eq!((edits(15), edits(16)), (Ok(18), Err(WireError::Malformed { frame: "DELTA" })));
}

#[test]
fn what_unknown_keys_hold_is_bounded_in_depth() {
    let goaway = |levels: usize| {
        let mut bytes = b"\x03\xa3\x00\x00\x01\x60\x09".to_vec();
        bytes.extend(std::iter::repeat_n(0x81, levels));
        bytes.push(0);
        Frame::decode(&bytes)
    };
    assert!(goaway(15).is_ok());
    assert_eq!(goaway(16), Err(WireError::Bound { what: "levels of nesting", max: 16 }));
}

#[test]
fn a_prefix_has_no_key_and_life_no_name() {
    let of = |prefix: &[u8]| {
        let mut one = shape(1);
        one.push(1);
        one.slice(prefix);
        frame(&one, &[0; 19], &[0xf6])
    };
    for good in [address::LIFE, &address::field("f"), &address::group("f")] {
        assert_eq!(registers_of(RowDecoder::default().page(&of(good), SENDER)), Ok(1));
        cut(&of(&[good, b"k"].concat()));
    }
    cut(&of(&[address::class::LIFE, 0, 1, b'f']));
}

#[test]
fn two_edits_of_one_number_are_refused() {
    let own = *plain(stamp(0, 1, 1)).newest();
    let edit = |step| (step, own, vec![titled("task", "t".to_owned(), Register::plain(own))]);
    let read = |edits: &[_]| {
        let bytes = push_of(&mut RowEncoder::default(), edits);
        RowDecoder::default().push(&bytes, SENDER).map(|push| push.edits.len())
    };
    assert_eq!(read(&[edit(3), edit(1)]), Ok(2));
    assert_eq!(read(&[edit(3), edit(0)]), Err(WireError::Malformed { frame: "PUSH" }));
}

#[test]
fn a_malformed_frame_is_called_by_its_name() {
    let names = [
        (tag::SUBSCRIBE, "SUBSCRIBE"),
        (tag::EQUAL, "EQUAL"),
        (tag::CHECKPOINT, "CHECKPOINT"),
        (tag::ACK, "ACK"),
        (tag::SYNCED, "SYNCED"),
        (tag::WINDOW, "WINDOW"),
        (tag::SKETCH, "SKETCH"),
        (tag::LEASE, "LEASE"),
        (tag::LOST, "LOST"),
        (tag::HEARD, "HEARD"),
        (tag::REFUSED, "REFUSED"),
        (tag::READABLE, "READABLE"),
    ];
    for (tag, frame) in names {
        assert_eq!(Frame::decode(&[tag]), Err(WireError::Malformed { frame }));
    }
}

#[test]
fn a_schema_may_come_without_its_length() {
    let policies = Policies::new(&[("task".to_owned(), None, "delete wins".to_owned())]);
    let frame = Frame::Schema(policies);
    let mut bytes = frame.encode();
    assert_eq!(bytes[1], 0xa1, "a map of one");
    bytes[1] = 0xbf;
    bytes.push(0xff);
    assert_eq!(Frame::decode(&bytes), Ok(frame));
}
