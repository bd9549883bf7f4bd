//! One frame of each type in its bytes. They are for ever: a change here breaks every program in use.

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn about() -> About {
    let replicas = [ReplicaId::from_u128(1), ReplicaId::from_u128(2)].into_iter();
    let history = [(Incarnation(7), 1), (Incarnation(8), 300)];
    About::new(StoreId(0x0102_0304), replicas, &history, 1000, 0xfeed, 1_700_000_000_000)
}

fn reset() -> Reset {
    Reset::new(Position { incarnation: Incarnation(8), seq: 999 }, &[(Incarnation(7), 1)])
}

fn control() -> Vec<(Frame, &'static str)> {
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
    };
    let policy =
        |field: Option<&str>| ("task".to_owned(), field.map(str::to_owned), "set, add wins".to_owned());
    let cursor = Cursor { incarnation: Incarnation::default(), done: 300, at: 305 };
    let subscribe =
        Subscribe { cursor, incarnation: Some(1), live: true, everything: false, digest: Some(0xabcd) };
    let read = Some(Cursor { incarnation: Incarnation(8), done: 5, at: 6 });
    let refused = vec![
        Exception { index: 0, code: None, message: "".into() },
        Exception { index: 3, code: Some(Code::RANK), message: "no".into() },
    ];
    vec![
        (
            Frame::Hello(hello),
            "01a600010102020103a6001a0102030401582000000000000000000000000000000001000000000000000000000000000000\
     020282820701820819012c031903e804500000000000000000000000000000feed051b0000018bcfe568000464626f737305\
     f5",
        ),
        (
            Frame::Welcome(welcome),
            "02a60001010102a6001a01020304015820000000000000000000000000000000010000000000000000000000000000000202\
     82820701820819012c031903e804500000000000000000000000000000feed051b0000018bcfe5680003f5040905a3000801\
     1903e70281820701",
        ),
        (Frame::Goaway { code: Code::SCHEMA, message: "bye".to_owned() }, "03a20019012c0163627965"),
        (
            Frame::Schema(Policies::new(&[policy(None), policy(Some("tags"))])),
            "04a1008283647461736bf66d7365742c206164642077696e7383647461736b64746167736d7365742c206164642077696e73",
        ),
        (Frame::Subscribe(subscribe), "050502ac0205000000000000abcd"),
        (Frame::Equal { seq: 300, incarnation: None }, "06ac0200"),
        (Frame::Equal { seq: 300, incarnation: Some(Incarnation(8)) }, "06ac02010000000000000008"),
        (
            Frame::Checkpoint(Checkpoint { seq: 300, digest: 0xbeef, count: 4, read: None }),
            "08ac020000000000000000000000000000beef0400",
        ),
        (
            Frame::Checkpoint(Checkpoint { seq: 300, digest: 0xbeef, count: 4, read }),
            "08ac020000000000000000000000000000beef040100000000000000080501",
        ),
        (Frame::Ack(Ack { seq: 300, clock_ms: 0, exceptions: Vec::new() }), "0aac0200"),
        (
            Frame::Ack(Ack { seq: 300, clock_ms: 1_700_000_000_000, exceptions: refused }),
            "0aac02020000018bcfe56800000000039203026e6f",
        ),
        (Frame::Synced { seq: 300 }, "0bac02"),
        (Frame::Reset(reset()), "0ca30008011903e70281820701"),
        (Frame::Ignored, "80"),
    ]
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

const PAGE: &str = "070fe8070000000000000008700000047461736b02743107040300000006080100056f776e657201e8070008010005746974\
     6c6501070200047370616e07070300047461677303726564020101006553f1001f7ce9ae0000000000000000000000000000\
     000001020208040005766965777303010204c80001780109015003000000000000000000000000000000010009f6a1abfef9\
     6205000000000000000008d604000000000000000000000000000000000201ef918602000000000000000000000000000000\
     00030000b30e636162636361626363616263d9ff0043616263d9ff00436162636361626363616263d9ff0043616263";
const PUSH: &str = "090207ac0200000000000000092aac02010000047461736b02743103040300000006080100056f776e657201e80700080100\
     057469746c652503000000000000000000000000000000010009f6a1abfef96205000000000000000008d604636162636361\
     626363616263";

#[test]
fn control_frames_have_the_bytes_of_version_1() {
    let (frames, golden): (Vec<_>, Vec<_>) = control().into_iter().unzip();
    assert_eq!(frames.iter().map(|frame| hex(&frame.encode())).collect::<Vec<_>>(), golden);
    for (frame, golden) in frames.into_iter().zip(golden) {
        assert_eq!(Frame::decode(&bytes(golden)), Ok(frame));
    }
}

#[test]
fn a_page_has_the_bytes_of_version_1() {
    let incarnation = Some(Incarnation(8));
    let header = PageHeader { at: 1000, more: true, incarnation, start: true, checkpoint: true };
    assert_eq!(hex(&page_of(&mut RowEncoder::default(), &[entity()], header)), PAGE);
    let golden = bytes(PAGE);
    let mut decoder = RowDecoder::default();
    let Page { header: found, rows } = decoder.page(&golden, SENDER).unwrap();
    assert_eq!(found, header);
    assert_rows(&rows, &[entity()]);
}

#[test]
fn a_push_has_the_bytes_of_version_1() {
    let (kind, id, mut registers) = entity();
    let own = *registers[2].1.newest();
    registers.truncate(3);
    let edits = [(300, own, vec![(kind, id, registers)])];
    assert_eq!(hex(&push_of(&mut RowEncoder::default(), &edits)), PUSH);
    let golden = bytes(PUSH);
    let mut decoder = RowDecoder::default();
    let mut push = decoder.push(&golden, SENDER).unwrap();
    let edit = push.edits.next().unwrap();
    assert_eq!((edit.number, edit.stamp), (300, own.stamp));
    assert_rows(&edit.delta, &edits[0].2);
}
