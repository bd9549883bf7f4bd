//! One frame of each type in its bytes, in `tests/golden/frames`. They are for ever: a change there breaks every
//! program in use.

use super::*;
use crate::conflict::{Conflict, LostTo};
use crate::golden::{bytes, hex, path};

fn about() -> About {
    let replicas = [ReplicaId::from_u128(1), ReplicaId::from_u128(2)].into_iter();
    let history = [(Incarnation(7), 1), (Incarnation(8), 300)];
    About::new(StoreId(0x0102_0304), replicas, &history, 1000, 0xfeed, 1_700_000_000_000)
}

fn reset() -> Reset {
    Reset::new(Position { incarnation: Incarnation(8), seq: 999 }, &[(Incarnation(7), 1)])
}

fn losses() -> Losses {
    let at = |generation, seconds: u64, n| Stamp {
        generation,
        time: seconds << 32,
        replica: ReplicaId::from_u128(n),
    };
    let conflict = |to, winner_value: &[u8]| Conflict {
        kind: "task".to_owned(),
        id: "t1".to_owned(),
        address: address::field("title"),
        loser: at(0, 1, 1),
        value: vec![0x61, b'a'],
        winner: at(300, 2, 2),
        winner_value: winner_value.to_vec(),
        to,
    };
    let conflicts = vec![conflict(LostTo::Write, &[0x61, b'b']), conflict(LostTo::Delete, &[0xf4])];
    Losses { replica: ReplicaId::from_u128(1), last: 300, dropped: 2, conflicts }
}

fn control() -> Vec<(&'static str, Frame)> {
    let hello = Hello {
        version_min: 1,
        version_max: 2,
        capabilities: 1,
        about: about(),
        token: Some("boss".to_owned()),
        offers: true,
    };
    let welcome = Welcome {
        version: 1,
        capabilities: 1,
        about: about(),
        is_authority: true,
        rank: 9,
        known: Some(reset()),
        bounds: None,
        expires_in_ms: None,
        leases: None,
    };
    let leases = Leases { lasts_ms: 7_776_000_000, newest: Some(300), floor: Some(200) };
    let leased = Welcome { known: None, leases: Some(leases), ..welcome.clone() };
    let bounds = Bounds {
        frame_bytes_max: Some(1 << 20),
        value_bytes_max: Some(65_536),
        registers_max: Some(1000),
        scopes_max: Some(16),
        registers_per_second: Some(500),
    };
    let bounded =
        Welcome { known: None, bounds: Some(bounds), expires_in_ms: Some(60_000), ..welcome.clone() };
    let spot = Spot { kind: "task".to_owned(), id: "t1".to_owned(), field: Some("title".to_owned()) };
    let spot = |field| Some(Box::new(Spot { field, ..spot.clone() }));
    let placed = vec![
        Exception {
            index: 0,
            code: Some(Code::INVALID),
            message: "no".into(),
            spot: spot(Some("title".to_owned())),
        },
        Exception { index: 1, code: Some(Code::INVALID), message: "no".into(), spot: spot(None) },
    ];
    let shown = Auth { token: Some("boss".to_owned()), ..Auth::default() };
    let granted = Auth { token: None, rank: Some(9), expires_in_ms: Some(60_000) };
    let policy =
        |field: Option<&str>| ("task".to_owned(), field.map(str::to_owned), "set, add wins".to_owned());
    let cursor = Cursor { incarnation: Incarnation::default(), done: 300, at: 305 };
    let subscribe =
        Subscribe { cursor, incarnation: Some(1), live: true, everything: false, digest: Some(0xabcd) };
    let read = Some(Cursor { incarnation: Incarnation(8), done: 5, at: 6 });
    let refused = vec![
        Exception { index: 0, code: None, message: "".into(), spot: None },
        Exception { index: 3, code: Some(Code::RANK), message: "no".into(), spot: None },
    ];
    let symbols = vec![
        Symbol { keys: 0x0102_0304_0506_0708, checks: 0x0a0b_0c0d, count: 300 },
        Symbol { keys: u64::MAX, checks: 0, count: 0 },
    ];
    vec![
        ("hello", Frame::Hello(hello)),
        ("welcome", Frame::Welcome(welcome)),
        ("welcome_bounds", Frame::Welcome(bounded)),
        ("welcome_leases", Frame::Welcome(leased)),
        ("goaway", goaway(Code::SCHEMA, None)),
        ("goaway_retry", goaway(Code::RATE, Some(1500))),
        ("schema", Frame::Schema(Policies::new(&[policy(None), policy(Some("tags"))]))),
        ("subscribe", Frame::Subscribe(subscribe)),
        ("equal", Frame::Equal { seq: 300, incarnation: None }),
        ("equal_incarnation", Frame::Equal { seq: 300, incarnation: Some(Incarnation(8)) }),
        ("checkpoint", Frame::Checkpoint(Checkpoint { seq: 300, digest: 0xbeef, count: 4, read: None })),
        ("checkpoint_read", Frame::Checkpoint(Checkpoint { seq: 300, digest: 0xbeef, count: 4, read })),
        ("ack", Frame::Ack(Ack { seq: 300, clock_ms: 0, exceptions: Vec::new() })),
        ("ack_exceptions", Frame::Ack(Ack { seq: 300, clock_ms: 1_700_000_000_000, exceptions: refused })),
        ("ack_spot", Frame::Ack(Ack { seq: 300, clock_ms: 1_700_000_000_000, exceptions: placed })),
        ("auth", Frame::Auth(shown)),
        ("auth_granted", Frame::Auth(granted)),
        ("synced", Frame::Synced { seq: 300 }),
        ("window", Frame::Window { taken: 300_000 }),
        ("reset", Frame::Reset(reset())),
        ("fetch", Frame::Fetch(vec![("task".to_owned(), "t1".to_owned()), ("".to_owned(), "ü".to_owned())])),
        ("ask_sketch", Frame::AskSketch { count: 64 }),
        ("sketch", Frame::Sketch(symbols)),
        ("lacks", Frame::Lacks(vec![Key(1), Key(0x0102_0304_0506_0708)])),
        ("lease_cut", Frame::Cut { seq: 300 }),
        (
            "lease_collected",
            Frame::Collected {
                seq: 300,
                entities: vec![("task".to_owned(), "t1".to_owned()), ("note".to_owned(), "ü".to_owned())],
            },
        ),
        ("lease_keys", collected_keys()),
        ("left", Frame::Left(vec![("task".to_owned(), "t1".to_owned()), ("".to_owned(), "ü".to_owned())])),
        ("denied", Frame::Denied { slot: 300 }),
        ("lost", Frame::Lost(losses())),
        ("heard", Frame::Heard { replica: ReplicaId::from_u128(1), last: 300 }),
        ("refused", brought_in_vain()),
        ("readable", Frame::Readable(vec![String::new(), "ü".to_owned()])),
        ("ignored", Frame::Ignored),
    ]
}

fn collected_keys() -> Frame {
    let keys = |id: &str, keys: &[&str]| {
        let addresses = keys.iter().map(|key| address::key("tags", key)).collect();
        ("task".to_owned(), id.to_owned(), addresses)
    };
    Frame::CollectedKeys { seq: 300, keys: vec![keys("t1", &["a", "b"]), keys("t2", &["ü"])] }
}

fn brought_in_vain() -> Frame {
    let part = |time, spot| Refused {
        stamp: stamp(1, time, 3),
        code: Code::INVALID,
        message: "no".into(),
        spot,
        entities: vec![("task".to_owned(), "t1".to_owned()), (String::new(), "ü".to_owned())],
    };
    let spot = Spot { kind: "task".to_owned(), id: "t1".to_owned(), field: None };
    Frame::Refused {
        clock_ms: 1_700_000_000_000,
        parts: vec![part(300, None), part(301, Some(Box::new(spot)))],
    }
}

fn goaway(code: Code, retry_after_ms: Option<u64>) -> Frame {
    Frame::Goaway { code, message: "bye".to_owned(), retry_after_ms }
}

/// One register of each form: plain, open, margin, full.
fn entity() -> Entity {
    let time = crate::clock::ticks(1_700_000_000_123) + 5;
    let saw = Some(Saw { incarnation: Incarnation(8), done: 299 });
    let own = Candidate { stamp: stamp(0, time, 1), rank: 9, saw, value: VALUES[3] };
    let other = Candidate { stamp: stamp(0, time - 77, 2), rank: 0, saw: None, value: VALUES[7] };
    let floor = Stamp { time: time - 1000, replica: ReplicaId::default(), ..own.stamp };
    let seen =
        vec![Seen { replica: ReplicaId::from_u128(3), instant: Instant { generation: 0, time: time - 999 } }];
    let registers = vec![
        (address::LIFE.to_vec(), Register { floor: Stamp::LOWEST, ..Register::plain(own) }),
        (address::field("owner"), Register { floor, ..Register::plain(own) }),
        (address::field("title"), Register::plain(own)),
        (address::group("span"), Register::plain(other)),
        (address::key("tags", "red"), Register { floor, alive: vec![other, own].into(), seen }),
        (address::count("views", ReplicaId::from_u128(1)), Register::plain(own)),
        (vec![200, 0, 1, b'x', 9], Register::plain(other)),
    ];
    ("task".to_owned(), "t1".to_owned(), registers)
}

const PAGES: [&str; 2] = ["page", "page_after_a_page"];
const PUSH: &str = "push";
const FETCHED: &str = "fetched";
const REPAIR: &str = "repair";
const SCOPED: &str = "scoped";

/// The bytes that the file of this name holds.
fn golden(name: &str) -> Vec<u8> {
    bytes(&std::fs::read_to_string(path("frames").join(format!("{name}.hex"))).unwrap())
}

#[test]
fn control_frames_have_the_bytes_of_version_1() {
    for (name, frame) in control() {
        assert_eq!(hex(&frame.encode()), hex(&golden(name)), "{name}");
        assert_eq!(Frame::decode(&golden(name)), Ok(frame), "{name}");
    }
}

/// The first page of a connection tells every word, the second names them; it goes back to an edit.
#[test]
fn pages_have_the_bytes_of_version_1() {
    let first =
        PageHeader { at: 1000, more: true, incarnation: Some(Incarnation(8)), start: true, checkpoint: true };
    let second = PageHeader { at: 1001, more: false, incarnation: None, start: false, checkpoint: false };
    let (mut encoder, mut decoder) = (RowEncoder::default(), RowDecoder::default());
    for (name, header) in PAGES.into_iter().zip([first, second]) {
        let (kind, id, mut registers) = entity();
        if header == second {
            let back = registers[2].1.clone();
            registers.push((vec![201, 0, 0], back));
        }
        let entities = [(kind, id, registers)];
        let golden = golden(name);
        assert_eq!(hex(&page_of(&mut encoder, &entities, header)), hex(&golden), "{name}");
        let Page { header: found, rows } = decoder.page(&golden, SENDER).unwrap();
        assert_eq!(found, header);
        assert_rows(&rows, &entities);
    }
}

#[test]
fn a_push_has_the_bytes_of_version_1() {
    let (kind, id, mut registers) = entity();
    let own = *registers[2].1.newest();
    registers.truncate(3);
    let edits = [(300, own, vec![(kind, id, registers)])];
    let golden = golden(PUSH);
    assert_eq!(hex(&push_of(&mut RowEncoder::default(), &edits)), hex(&golden));
    let mut decoder = RowDecoder::default();
    let mut push = decoder.push(&golden, SENDER).unwrap();
    assert_eq!((push.heard, push.head, push.incarnation), (7, 300, Some(Incarnation(9))));
    let edit = push.edits.next().unwrap();
    assert_eq!((edit.number, edit.stamp), (300, own.stamp));
    assert_rows(&edit.delta, &edits[0].2);
    assert!(push.edits.next().is_none());
}

#[test]
fn an_answer_to_fetch_has_the_bytes_of_version_1() {
    let (kind, id, registers) = entity();
    let mut encoder = RowEncoder::default();
    encoder.entity(&kind, &id, registers.iter().map(|(address, register)| (address.as_slice(), register)));
    let golden = golden(FETCHED);
    assert_eq!(hex(&encoder.finish_fetched(true)), hex(&golden));
    let mut decoder = RowDecoder::default();
    let fetched = decoder.fetched(&golden, SENDER).unwrap();
    assert!(fetched.more);
    assert_rows(&fetched.rows, &[(kind, id, registers)]);
}

#[test]
fn registers_that_mend_have_the_bytes_of_version_1() {
    let (kind, id, registers) = entity();
    let mut encoder = RowEncoder::default();
    encoder.entity(&kind, &id, registers.iter().map(|(address, register)| (address.as_slice(), register)));
    let golden = golden(REPAIR);
    assert_eq!(hex(&encoder.finish_repair(true)), hex(&golden));
    let mut decoder = RowDecoder::default();
    let repair = decoder.repair(&golden, SENDER).unwrap();
    assert!(repair.more);
    assert_rows(&repair.rows, &[(kind, id, registers)]);
}

#[test]
fn an_envelope_has_the_bytes_of_version_1() {
    let (subscribe, golden) = (golden("subscribe"), golden(SCOPED));
    let scoped = Scoped { slot: 300, scope: "home", frame: &subscribe };
    assert_eq!(hex(&scoped.encode()), hex(&golden));
    assert_eq!(Scoped::decode(&golden), Ok(scoped));
}

/// No file is left that nothing reads.
#[test]
fn each_golden_file_is_compared() {
    let files = std::fs::read_dir(path("frames")).unwrap();
    let found = files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    let control = control().into_iter().map(|(name, _)| name);
    let compared = control.chain(PAGES).chain([PUSH, FETCHED, REPAIR, SCOPED]).map(str::to_owned);
    let sorted = |names: Vec<String>| names.into_iter().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(sorted(found.collect()), sorted(compared.collect()));
}
