//! Frames against their bytes: round trips, truncations, junk, bounds, and the bytes that stay for ever.

use std::convert::Infallible;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::page::{Page, PageHeader, REGISTERS_MAX, RowDecoder, RowEncoder, Rows, SEEN_MAX};
use super::*;
use crate::address;
use crate::clock::{Instant, Stamp, TIME_END};
use crate::id::{ReplicaId, StoreId};
use crate::identity::Position;
use crate::register::{Candidate, Register, Saw, Seen};
use crate::replica::{Delta, Spot};
use crate::row::Change;
use crate::sketch::{Key, Symbol};

mod bounds;
mod golden;

const SENDER: StoreId = StoreId(5);

/// Canonical bytes of values: null, true, small numbers, text, a float, a list, a map, an unknown type, absent.
const VALUES: [&[u8]; 9] = [
    b"\xf6",
    b"\xf5",
    b"\x18\x64",
    b"\x63abc",
    b"\xf9\x3e\x00",
    b"\x82\x01\x02",
    b"\xa1\x61a\x01",
    b"\xd9\xff\x00\x43abc",
    b"\xf7",
];

/// Registers of one entity, ascending by address.
type Registers = Vec<(Vec<u8>, Register<'static>)>;
/// Kind, id and registers.
type Entity = (String, String, Registers);

fn stamp(generation: u16, time: u64, replica: u128) -> Stamp {
    Stamp { generation, time, replica: ReplicaId::from_u128(replica) }
}

fn plain(stamp: Stamp) -> Register<'static> {
    Register::plain(Candidate { stamp, rank: 0, saw: None, value: VALUES[0] })
}

fn any_time() -> impl Strategy<Value = u64> {
    let year = crate::clock::ticks(1_700_000_000_000);
    prop_oneof![
        8 => (0..5000_u64).prop_map(move |ms| year + crate::clock::ticks(ms)),
        4 => (0..40_u64).prop_map(move |tick| year + tick),
        1 => Just(0),
        1 => Just(TIME_END - 1),
        1 => 0..TIME_END,
    ]
}

fn any_instant() -> impl Strategy<Value = Instant> {
    (prop_oneof![9 => Just(0), 1 => any::<u16>()], any_time())
        .prop_map(|(generation, time)| Instant { generation, time })
}

fn any_replica() -> impl Strategy<Value = ReplicaId> {
    let far = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;
    select(vec![0, 1, 2, 3, u128::MAX, far]).prop_map(ReplicaId::from_u128)
}

fn any_candidate() -> impl Strategy<Value = Candidate<'static>> {
    let saw = (0..4_u64, prop_oneof![0..300_u64, any::<u64>()])
        .prop_map(|(n, done)| Saw { incarnation: Incarnation(n << 60), done });
    let rank = prop_oneof![5 => Just(0), 1 => any::<u8>()];
    (any_instant(), any_replica(), rank, proptest::option::weighted(0.3, saw), select(VALUES.to_vec()))
        .prop_map(|(instant, replica, rank, saw, value)| Candidate {
            stamp: instant.by(replica),
            rank,
            saw,
            value,
        })
}

/// Any well-formed register: plain, open, with a margin's floor, or with anything alive and seen.
fn any_register() -> impl Strategy<Value = Register<'static>> {
    let many = (vec(any_candidate(), 1..5), vec((any_replica(), any_instant()), 0..4), any_candidate());
    prop_oneof![
        4 => any_candidate().prop_map(Register::plain),
        2 => any_candidate().prop_map(|only| Register { floor: Stamp::LOWEST, ..Register::plain(only) }),
        2 => (any_candidate(), any::<u32>()).prop_map(|(only, reach)| {
            let time = only.stamp.time.saturating_sub(u64::from(reach));
            let floor = Stamp { time, replica: ReplicaId::default(), ..only.stamp };
            Register { floor, ..Register::plain(only) }
        }),
        3 => many.prop_map(|(mut alive, seen, floor)| {
            alive.sort_by_key(|c| (c.stamp.replica, c.stamp));
            alive.dedup_by_key(|c| c.stamp.replica);
            alive.sort_by_key(|c| c.stamp);
            let newest = alive.last().unwrap().stamp;
            let floor = floor.stamp.min(newest);
            alive.retain(|c| c.stamp >= floor);
            let mut seen: Vec<_> =
                seen.into_iter().map(|(replica, instant)| Seen { replica, instant }).collect();
            seen.sort_by_key(|s| s.replica);
            seen.dedup_by_key(|s| s.replica);
            seen.retain(|s| {
                s.instant.by(s.replica) >= floor
                    && s.instant < newest.instant()
                    && alive.iter().all(|c| c.stamp.replica != s.replica)
            });
            let register = Register { floor, alive: alive.into(), seen };
            assert_eq!(register.check(), Ok(()));
            register
        }),
    ]
}

fn any_address() -> impl Strategy<Value = Vec<u8>> {
    let name = || select(vec!["", "title", "owner", "é", "f0", "f1", "f2"]);
    let many = (0..80_u8).prop_map(|n| format!("field {n}"));
    prop_oneof![
        2 => Just(address::LIFE.to_vec()),
        4 => name().prop_map(address::field),
        2 => many.prop_map(|name| address::field(&name)),
        1 => name().prop_map(address::group),
        2 => (name(), "[a-c]{0,3}").prop_map(|(name, key)| address::key(name, &key)),
        2 => (name(), any_replica()).prop_map(|(name, replica)| address::count(name, replica)),
        1 => (6..=255_u8, name(), vec(any::<u8>(), 0..5)).prop_map(|(class, name, key)| {
            let mut out = Vec::new();
            address::encode(&mut out, class, name, &key);
            out
        }),
    ]
}

fn any_entity() -> impl Strategy<Value = Entity> {
    let kind = select(vec!["task", "unknown kind", "é", "k"]).prop_map(str::to_owned);
    let id = prop_oneof![
        9 => "[a-d]{0,2}",
        1 => Just("long".repeat(256)),
    ];
    let registers = proptest::collection::btree_map(any_address(), any_register(), 1..6);
    (kind, id, registers.prop_map(|registers| registers.into_iter().collect()))
}

/// A push's edit: every register bears one stamp, rank and `saw`.
fn any_edit() -> impl Strategy<Value = (u64, Candidate<'static>, Vec<Entity>)> {
    (1..1000_u64, any_candidate(), vec(any_entity(), 1..4)).prop_map(|(step, own, mut entities)| {
        let own = Candidate { value: VALUES[2], ..own };
        for (_, register) in entities.iter_mut().flat_map(|(_, _, registers)| registers) {
            let floor = register.floor.min(own.stamp);
            let seen = register.seen.iter().copied();
            let seen = seen.filter(|s| {
                s.instant < own.stamp.instant()
                    && s.replica != own.stamp.replica
                    && s.instant.by(s.replica) >= floor
            });
            *register = Register { floor, seen: seen.collect(), ..Register::plain(own) };
            assert_eq!(register.check(), Ok(()));
        }
        (step, own, entities)
    })
}

fn any_header() -> impl Strategy<Value = PageHeader> {
    (any::<u64>(), any::<[bool; 3]>(), proptest::option::of(any::<u64>())).prop_map(
        |(at, [more, start, checkpoint], i)| {
            let incarnation = i.map(Incarnation);
            PageHeader { at, more, incarnation, start, checkpoint }
        },
    )
}

fn write_entity(encoder: &mut RowEncoder, (kind, id, registers): &Entity) {
    encoder.entity(kind, id, registers.iter().map(|(address, register)| (address.as_slice(), register)));
}

fn page_of(encoder: &mut RowEncoder, entities: &[Entity], header: PageHeader) -> Vec<u8> {
    entities.iter().for_each(|entity| write_entity(encoder, entity));
    encoder.finish_page(header)
}

fn push_of(encoder: &mut RowEncoder, edits: &[(u64, Candidate<'static>, Vec<Entity>)]) -> Vec<u8> {
    for (step, _, entities) in edits {
        encoder.start_edit(*step, entities.len());
        entities.iter().for_each(|entity| write_entity(encoder, entity));
    }
    encoder.finish_push(7, 300, Some(Incarnation(9)))
}

fn assert_rows(rows: &Rows<'_, '_>, entities: &[Entity]) {
    let mut expected = entities.iter().flat_map(|(kind, id, registers)| {
        registers.iter().map(move |(address, register)| (kind.as_str(), id.as_str(), address, register))
    });
    let mut latest = None;
    let read = rows.each::<Infallible>(|part| {
        for (address, change) in part.changes {
            let (kind, id, wanted, register) = expected.next().expect("no more than was sent");
            assert_eq!((part.kind, part.id, &**address), (kind, id, wanted.as_slice()));
            assert_eq!(*change, Change::Join { register: register.clone(), source: Some(SENDER) });
            latest = latest.max(Some(register.newest().stamp.time));
        }
        Ok(())
    });
    read.unwrap();
    assert_eq!(expected.next(), None, "all that was sent");
    // Older candidates of a greater generation may have later times.
    assert!(rows.latest() >= latest && rows.latest().is_some() == latest.is_some());
}

/// Refused, or how many registers there are.
fn registers_of(page: Result<Page<'_, '_>, WireError>) -> Result<usize, WireError> {
    let mut count = 0;
    page?
        .rows
        .each(|part| {
            count += part.changes.len();
            Ok(())
        })
        .map(|()| count)
}

fn some_stamp() -> impl Strategy<Value = Stamp> {
    (0..4_u16, 0..1_u64 << 40, any::<u128>())
        .prop_map(|(generation, time, replica)| stamp(generation, time, replica))
}

fn exception() -> impl Strategy<Value = Exception> {
    let text = "\\PC{0,9}";
    (
        any::<u32>(),
        proptest::option::of(1..=u16::MAX),
        text,
        proptest::option::of((text, text, proptest::option::of(text))),
    )
        .prop_map(|(index, code, message, spot)| {
            let spot = spot.map(|(kind, id, field)| Box::new(Spot { kind, id, field }));
            Exception { index, code: code.map(Code), message: message.into(), spot }
        })
}

fn brought_in_vain() -> impl Strategy<Value = Frame> {
    (any::<i64>(), vec((some_stamp(), exception(), vec(("k", "\\PC{1,9}"), 1..3)), 0..4)).prop_map(
        |(clock_ms, parts)| {
            let part = |(stamp, why, names): (Stamp, Exception, Vec<(String, String)>)| Refused {
                stamp,
                code: why.code.unwrap_or(Code::INVALID),
                message: why.message,
                spot: why.spot,
                entities: names,
            };
            Frame::Refused { clock_ms, parts: parts.into_iter().map(part).collect() }
        },
    )
}

fn control() -> impl Strategy<Value = Frame> {
    let text = "\\PC{0,9}";
    let option = proptest::option::of::<BoxedStrategy<u64>>;
    let number = || prop_oneof![0..300_u64, any::<u64>()].boxed();
    let history = || {
        vec((any::<u64>(), 1..1000_u64), 0..4).prop_map(|steps| {
            let mut first = 0;
            let rise = |(incarnation, step)| {
                first += step;
                (Incarnation(incarnation), first)
            };
            steps.into_iter().map(rise).collect::<Vec<_>>()
        })
    };
    let about = || {
        (any::<u64>(), vec(any_replica(), 1..4), history(), 0..1_u64 << 63, any::<u128>(), any::<i64>())
            .prop_map(|(store, replicas, history, head, fingerprint, clock_ms)| {
                About::new(StoreId(store), replicas.into_iter(), &history, head, fingerprint, clock_ms)
            })
    };
    let reset = || {
        (any::<u64>(), number(), history()).prop_map(|(incarnation, seq, history)| {
            Reset::new(Position { incarnation: Incarnation(incarnation), seq }, &history)
        })
    };
    let cursor = || {
        (any::<u64>(), 0..1000_u64, 0..1000_u64).prop_map(|(incarnation, done, more)| Cursor {
            incarnation: Incarnation(incarnation),
            done,
            at: done + more,
        })
    };
    let hello = (any::<[u16; 2]>(), any::<u64>(), about(), proptest::option::of(text), any::<bool>());
    let welcome =
        (any::<u16>(), number(), about(), any::<bool>(), any::<u8>(), proptest::option::of(reset()));
    let limits = (
        proptest::option::of((option(number()), option(number()), proptest::option::of(any::<u32>()))),
        option(number()),
    );
    let policy = (text, proptest::option::of(text), text);
    prop_oneof![
        hello.prop_map(|([version_min, version_max], capabilities, about, token, offers)| {
            Frame::Hello(Hello { version_min, version_max, capabilities, about, token, offers })
        }),
        (welcome, limits).prop_map(
            |((version, capabilities, about, is_authority, rank, known), (bounds, expires_in_ms))| {
                let bounds = bounds.map(|(frame_bytes_max, registers_max, registers_per_second)| Bounds {
                    frame_bytes_max,
                    registers_max,
                    registers_per_second,
                    ..Bounds::default()
                });
                Frame::Welcome(Welcome {
                    version,
                    capabilities,
                    about,
                    is_authority,
                    rank,
                    known,
                    bounds,
                    expires_in_ms,
                    leases: None,
                })
            }
        ),
        (proptest::option::of(text), proptest::option::of(any::<u8>()), option(number()))
            .prop_map(|(token, rank, expires_in_ms)| Frame::Auth(Auth { token, rank, expires_in_ms })),
        (any::<u16>(), text, option(number())).prop_map(|(code, message, retry_after_ms)| Frame::Goaway {
            code: Code(code),
            message,
            retry_after_ms
        }),
        vec(policy, 0..4).prop_map(|policies| Frame::Schema(Policies::new(&policies))),
        (cursor(), proptest::option::of(0..40_u64), any::<[bool; 2]>(), option(number())).prop_map(
            |(cursor, incarnation, [live, everything], digest)| {
                // The incarnation itself is not sent: its place among those told is.
                let cursor = Cursor { incarnation: Incarnation::default(), ..cursor };
                Frame::Subscribe(Subscribe { cursor, incarnation, live, everything, digest })
            }
        ),
        (number(), option(number()))
            .prop_map(|(seq, i)| Frame::Equal { seq, incarnation: i.map(Incarnation) }),
        (number(), any::<u128>(), number(), proptest::option::of(cursor())).prop_map(
            |(seq, digest, count, read)| Frame::Checkpoint(Checkpoint { seq, digest, count, read })
        ),
        (number(), any::<i64>(), vec(exception(), 0..4)).prop_map(|(seq, clock_ms, exceptions)| {
            let clock_ms = if exceptions.is_empty() { 0 } else { clock_ms };
            Frame::Ack(Ack { seq, clock_ms, exceptions })
        }),
        brought_in_vain(),
        vec("\\PC{0,9}", 0..4).prop_map(Frame::Readable),
        number().prop_map(|seq| Frame::Synced { seq }),
        number().prop_map(|taken| Frame::Window { taken }),
        reset().prop_map(Frame::Reset),
    ]
}

/// Whatever a connection may bring, read by a decoder that has read `before`.
fn read_all(before: &[Vec<u8>], bytes: &[u8]) -> [bool; 3] {
    let mut decoder = RowDecoder::default();
    for frame in before {
        decoder.page(frame, SENDER).unwrap();
    }
    let page = decoder.page(bytes, SENDER).is_ok();
    let mut decoder = RowDecoder::default();
    [page, decoder.push(bytes, SENDER).is_ok(), Frame::decode(bytes).is_ok()]
}

proptest! {
    #[test]
    fn a_page_is_taken_exactly_if_its_register_is_well_formed(
        alive in vec(any_candidate(), 0..4),
        seen in vec((any_replica(), any_instant()), 0..3),
        floor in any_candidate(),
        sorted in any::<[bool; 2]>(),
    ) {
        let mut alive = alive;
        let mut seen: Vec<_> =
            seen.into_iter().map(|(replica, instant)| Seen { replica, instant }).collect();
        if sorted[0] {
            alive.sort_by_key(|c| c.stamp);
            seen.sort_by_key(|s| s.replica);
        }
        let floor = if sorted[1] { Stamp::LOWEST } else { floor.stamp };
        let register = Register { floor, alive: alive.into(), seen };
        let header = PageHeader { at: 1, more: false, incarnation: None, start: true, checkpoint: false };
        let entity = ("task".to_owned(), "t".to_owned(), vec![(address::field("f"), register.clone())]);
        let bytes = page_of(&mut RowEncoder::default(), &[entity], header);
        let read = registers_of(RowDecoder::default().page(&bytes, SENDER));
        assert_eq!(read.is_ok(), register.check().is_ok(), "{read:?} {:?}", register.check());
        assert!(matches!(read, Ok(1) | Err(WireError::Register(_))), "{read:?}");
    }

    #[test]
    fn pages_of_one_connection_come_back_as_they_were(
        frames in vec((vec(any_entity(), 0..5), any_header(), 0..12), 1..5),
    ) {
        let (mut encoder, mut decoder) = (RowEncoder::default(), RowDecoder::default());
        for (entities, header, quiet) in &frames {
            (0..*quiet).for_each(|_| encoder.handle_quiet());
            let bytes = page_of(&mut encoder, entities, *header);
            let Page { header: found, rows } = decoder.page(&bytes, SENDER).unwrap();
            assert_eq!(found, *header);
            assert_rows(&rows, entities);
            assert_eq!((encoder.len(), encoder.is_full()), (0, false));
        }
    }

    #[test]
    fn pushes_of_one_connection_come_back_as_they_were(
        frames in vec((vec(any_edit(), 1..4), 0..12), 1..4),
    ) {
        let (mut encoder, mut decoder) = (RowEncoder::default(), RowDecoder::default());
        for (edits, quiet) in &frames {
            (0..*quiet).for_each(|_| encoder.handle_quiet());
            let bytes = push_of(&mut encoder, edits);
            let push = decoder.push(&bytes, SENDER).unwrap();
            assert_eq!((push.heard, push.head, push.incarnation), (7, 300, Some(Incarnation(9))));
            assert_eq!(push.edits.len(), edits.len());
            let mut number = 0;
            for (found, (step, own, entities)) in push.edits.zip(edits) {
                number += step;
                assert_eq!((found.number, found.stamp), (number, own.stamp));
                assert_eq!((found.rank, found.saw), (own.rank, own.saw));
                assert_rows(&found.delta, entities);
            }
        }
    }

    #[test]
    fn control_frames_come_back_as_they_were(frame in control()) {
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }

    #[test]
    fn a_control_frame_cut_short_or_too_long_is_refused(frame in control(), more in any::<u8>()) {
        let mut bytes = frame.encode();
        for cut in 0..bytes.len() {
            assert!(Frame::decode(&bytes[..cut]).is_err(), "cut at {cut} of {}", bytes.len());
        }
        bytes.push(more);
        assert!(Frame::decode(&bytes).is_err());
    }

    #[test]
    fn rows_cut_short_or_too_long_are_refused(
        before in vec(any_entity(), 1..3),
        entities in vec(any_entity(), 1..4),
        edits in vec(any_edit(), 1..3),
        header in any_header(),
    ) {
        let mut encoder = RowEncoder::default();
        let before = [page_of(&mut encoder, &before, header)];
        let mut page = page_of(&mut encoder, &entities, header);
        let mut push = push_of(&mut RowEncoder::default(), &edits);
        assert_eq!(read_all(&before, &page), [true, false, false]);
        assert_eq!(read_all(&[], &push), [false, true, false]);
        for cut in 0..page.len() {
            assert_eq!(read_all(&before, &page[..cut]), [false; 3], "cut at {cut} of {}", page.len());
        }
        for cut in 0..push.len() {
            assert_eq!(read_all(&[], &push[..cut]), [false; 3], "cut at {cut} of {}", push.len());
        }
        page.push(0xf6);
        push.push(0xf6);
        assert_eq!(read_all(&before, &page), [false; 3]);
        assert_eq!(read_all(&[], &push), [false; 3]);
    }

    #[test]
    fn junk_is_read_without_panic(tag in 0..14_u8, junk in vec(any::<u8>(), 0..200)) {
        read_all(&[], &junk);
        read_all(&[], &[&[tag], junk.as_slice()].concat());
    }

    #[test]
    fn damaged_frames_are_read_without_panic_and_give_only_well_formed_registers(
        before in vec(any_entity(), 1..3),
        entities in vec(any_entity(), 1..4),
        edits in vec(any_edit(), 1..3),
        frame in control(),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut encoder = RowEncoder::default();
        let header = PageHeader { at: 9, more: false, incarnation: None, start: true, checkpoint: false };
        let before = page_of(&mut encoder, &before, header);
        let page = page_of(&mut encoder, &entities, header);
        let push = push_of(&mut RowEncoder::default(), &edits);
        let damaged = [page, push, frame.encode()].map(|mut bytes| {
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes
        });
        for bytes in &damaged {
            let _ = Frame::decode(bytes);
            let mut decoder = RowDecoder::default();
            decoder.page(&before, SENDER).unwrap();
            if let Ok(page) = decoder.page(bytes, SENDER) {
                assert_well_formed(&page.rows);
            }
            if let Ok(push) = RowDecoder::default().push(bytes, SENDER) {
                push.edits.for_each(|edit| assert_well_formed(&edit.delta));
            }
        }
    }
}

fn assert_well_formed(rows: &Rows<'_, '_>) {
    let read = rows.each::<Infallible>(|part| {
        assert!(!part.changes.is_empty() && part.changes.is_sorted_by(|a, b| a.0 < b.0));
        for (address, change) in part.changes {
            let Change::Join { register, .. } = change else { panic!("{change:?}") };
            assert!(address::is_well_formed(address));
            assert_eq!(register.check(), Ok(()));
            for candidate in register.alive.iter() {
                crate::value::check(candidate.value).unwrap();
                assert!(candidate.stamp.time < TIME_END);
            }
        }
        Ok(())
    });
    read.unwrap();
}
