//! What a review of the hub's side found.

use std::sync::atomic::{AtomicBool, Ordering};

use super::grants::{code, serve, switched, with};
use super::*;
use crate::address;
use crate::clock::{Force, Instant, Stamp, ticks};
use crate::register::{Alive, Candidate, Register, Seen};
use crate::replica::{Incoming, Proposed, Refusal, Trust};
use crate::row::Change;
use crate::wire::{About, Hello};

const NOW: Millis = Millis(100_000);

fn replica(n: u128) -> ReplicaId {
    ReplicaId::from_u128(n)
}

fn stamp(generation: u16, ms: u64, of: u128) -> Stamp {
    Stamp { generation, time: ticks(ms), replica: replica(of) }
}

/// What an edit writes of one entity, values in their canonical bytes.
type Writes<'w> = (&'w str, &'w str, &'w [(Vec<u8>, Vec<u8>)]);

fn bytes(value: impl Into<Value>) -> Vec<u8> {
    value.into().to_bytes()
}

fn plain(stamp: Stamp, value: &[u8]) -> Register<'_> {
    Register::plain(Candidate { stamp, rank: 0, saw: None, value })
}

/// The hub's end of a connection with store and replica 66, which may be up to anything.
struct Line {
    session: Session,
    encoder: RowEncoder,
    edits: u64,
    answers: u64,
}

impl Line {
    fn to(hub: &mut Device, gate: &Arc<Gate>) -> Self {
        let fingerprint = hub.schema().fingerprint();
        let about =
            About::new(StoreId(66), [replica(66)].into_iter(), &[(Incarnation(7), 1)], 1, fingerprint, NOW.0);
        let (version_min, version_max) = (1, 1);
        let hello = Hello { version_min, version_max, capabilities: 0, about, token: None, offers: true };
        let mut session = serve(gate);
        session.handle(hub, &Frame::Hello(hello).encode(), NOW).unwrap();
        assert!(session.poll_transmit(hub, NOW).unwrap().is_some(), "WELCOME");
        Self { session, encoder: RowEncoder::default(), edits: 0, answers: 0 }
    }

    fn push_with<'r, 'v: 'r>(
        &mut self,
        hub: &mut Device,
        entities: &'r [(&'r str, &'r str, Vec<(&'r [u8], Register<'v>)>)],
    ) -> Option<Code> {
        self.edits += 1;
        self.encoder.start_edit(self.edits, entities.len());
        for (kind, id, registers) in entities {
            self.encoder.entity(kind, id, registers.iter().map(|(address, register)| (*address, register)));
        }
        let frame = self.encoder.finish_push(self.answers, 1, None);
        self.session.handle(hub, &frame, NOW).unwrap();
        self.answers += 1;
        loop {
            let answer = self.session.poll_transmit(hub, NOW).unwrap().unwrap();
            if let Frame::Ack(ack) = Frame::decode(&answer).unwrap() {
                return ack.exceptions.first().map(|exception| exception.code.expect("not again"));
            }
        }
    }

    /// Pushes one edit and says why it was refused, if it was.
    fn push(&mut self, hub: &mut Device, stamp: Stamp, entities: &[Writes<'_>]) -> Option<Code> {
        let entities: Vec<_> = entities
            .iter()
            .map(|(kind, id, writes)| {
                let registers = writes.iter().map(|(a, value)| (a.as_slice(), plain(stamp, value)));
                (*kind, *id, registers.collect::<Vec<_>>())
            })
            .collect();
        self.push_with(hub, &entities)
    }
}

fn open_gate() -> Arc<Gate> {
    Arc::new(Gate::new(Grants::everybody()))
}

/// Takes nothing whose title or start is bad.
fn validate(_: &str, edit: &Proposed<'_>) -> Result<(), Refusal> {
    let bad = Value::from("bad");
    for task in edit.entities() {
        for field in ["title", "start"] {
            if task.field(field) == Some(&bad) {
                return Err(Refusal::of_field(task, field, "not that"));
            }
        }
    }
    Ok(())
}

fn validating_hub() -> (Device, Arc<Gate>) {
    let task = |k: crate::schema::KindBuilder| {
        k.open()
            .value("title")
            .renamed("title", "name")
            .value("start")
            .value("stop")
            .group("interval", ["start", "stop"])
    };
    let schema = Arc::new(Schema::builder().kind("task", task).build().unwrap());
    let admission = Admission::Refuse { drift_ms_max: 60_000 };
    let options = OpenOptions { seeds: seeds(9), slot: 0, admission, rank: 0 };
    let mut hub = Replica::open(MemoryStore::new(), schema, options).unwrap();
    hub.become_authority().unwrap();
    (hub, Arc::new(Gate::new(Grants::everybody()).validator(Arc::new(crate::session::By(validate)))))
}

fn map<const N: usize>(members: [(&str, &str); N]) -> Vec<u8> {
    bytes(Value::Map(
        members.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect(),
    ))
}

#[test]
fn a_validator_sees_what_will_show_whatever_lies_beside_it() {
    let (mut h, gate) = validating_hub();
    let mut line = Line::to(&mut h, &gate);
    let (good, bad) = (bytes("good"), bytes("bad"));
    let interval = |start| (address::group("interval"), map([("start", start), ("stop", "later")]));
    let mut ms = 50_000;
    let mut push = |writes: &[(Vec<u8>, Vec<u8>)]| {
        ms += 1;
        line.push(&mut h, stamp(0, ms, 66), &[("task", "t", writes)])
    };
    let cases = [
        ("the group's register", vec![(address::field("start"), good.clone()), interval("bad")]),
        ("the former name", vec![(address::field("name"), bad.clone())]),
        (
            "a field beside a map that names it",
            vec![(address::field("map"), map([("title", "good")])), (address::field("title"), bad.clone())],
        ),
        (
            "a field beside a group that has it not",
            vec![
                (address::field("title"), bad.clone()),
                (address::group("interval"), map([("title", "good")])),
            ],
        ),
    ];
    for (what, writes) in cases {
        assert_eq!(push(&writes), Some(Code::INVALID), "{what}");
    }
    // Without a value of its own what was written under the former name would show.
    assert_eq!(push(&[(address::field("title"), vec![0xf7])]), Some(Code::MALFORMED));
    // What shows nowhere is nobody's value.
    assert_eq!(push(&[(address::field("start"), bad.clone()), interval("good")]), None);
    assert_eq!(push(&[(address::field("name"), bad), (address::field("title"), good)]), None);
    assert_eq!((shows(&h, "t", "start"), shows(&h, "t", "title")), (text("good"), text("good")));
}

#[test]
fn an_edit_names_each_address_once() {
    let (mut h, gate) = validating_hub();
    let mut line = Line::to(&mut h, &gate);
    let title = |value: &str| [(address::field("title"), bytes(value))];
    let (good, bad, note) = (title("good"), title("bad"), [(address::field("zz"), bytes("note"))]);
    let twice: [&[Writes<'_>]; 3] = [
        &[("task", "t", &good), ("task", "t", &bad)],
        &[("task", "t", &good), ("task", "u", &good), ("task", "t", &bad)],
        &[("task", "t", &good), ("task", "u", &good), ("task", "t", &note)],
    ];
    for (ms, entities) in (50_000..).zip(twice) {
        assert_eq!(line.push(&mut h, stamp(0, ms, 66), entities), Some(Code::MALFORMED), "{entities:?}");
    }
    assert_eq!(shows(&h, "t", "title"), None);
    assert_eq!(line.push(&mut h, stamp(0, 60_000, 66), &[("task", "t", &good), ("task", "u", &good)]), None);
    assert_eq!(shows(&h, "u", "title"), text("good"));
}
