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

#[test]
fn a_loss_is_reported_though_the_same_replica_has_written_with_a_higher_generation() {
    let (mut a, mut b, mut h) = (device(1), device(2), hub(9));
    sync(&mut a, &mut h);
    sync(&mut b, &mut h);
    let op = Op::new("task", "u", Action::Put(vec![("title".to_owned(), Value::from("forced"))]));
    a.transact(Millis(101_000), Force::Yes, |tx| tx.apply(&op)).unwrap();
    put(&mut a, 102_000, "t", "title", "lost");
    put(&mut b, 103_000, "t", "title", "won");
    sync_at(&mut b, &mut h, 110_000).unwrap();
    sync_at(&mut a, &mut h, 110_000).unwrap();
    assert_eq!(shows(&a, "t", "title"), text("won"));
    let lost = a.conflicts().unwrap();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(lost[0].1.value, bytes("lost"));
}

#[test]
fn a_generation_rises_by_one_from_what_is_held() {
    let mut h = hub(9);
    let mut line = Line::to(&mut h, &open_gate());
    let title = [(address::field("title"), bytes("x"))];
    let mut push = |generation, ms, id| line.push(&mut h, stamp(generation, ms, 66), &[("task", id, &title)]);
    assert_eq!(push(u16::MAX, 50_000, "t"), Some(Code::SEEN));
    assert_eq!(push(2, 50_001, "t"), Some(Code::SEEN));
    assert_eq!(push(1, 50_002, "t"), None);
    assert_eq!(push(2, 50_003, "t"), None);
    assert_eq!(push(2, 50_004, "u"), Some(Code::SEEN), "of another entity nothing is held");
    assert_eq!(push(0, 50_005, "u"), None);
}

/// The register that takes a key out of a set, having seen a write of replica 1.
fn removal(stamp: Stamp, seen: Instant) -> Register<'static> {
    let only = Candidate { stamp, rank: 0, saw: None, value: &[0xf4] };
    let seen = vec![Seen { replica: replica(1), instant: seen }];
    Register { floor: Stamp::LOWEST, alive: Alive::from(vec![only]), seen }
}

#[test]
fn nobody_has_seen_what_is_later_or_of_a_higher_generation_than_what_was_written() {
    let (mut a, mut h) = (device(1), hub(9));
    sync(&mut a, &mut h);
    let op = Op::new("task", "u", Action::Put(vec![("title".to_owned(), Value::from("forced"))]));
    a.transact(Millis(140_000), Force::Yes, |tx| tx.apply(&op)).unwrap();
    sync_at(&mut a, &mut h, 141_000).unwrap();
    let mut line = Line::to(&mut h, &open_gate());
    let tag = address::key("tags", "red");
    let seen = |generation, ms| Instant { generation, time: ticks(ms) };
    for (own, claimed) in [
        (stamp(0, 149_000, 66), seen(0, 145_000)),
        (stamp(1, 149_001, 66), seen(1, 140_000)),
        (stamp(1, 149_002, 66), seen(0, 145_000)),
    ] {
        let entities = [("task", "t", vec![(tag.as_slice(), removal(own, claimed))])];
        assert_eq!(line.push_with(&mut h, &entities), Some(Code::SEEN), "{claimed:?}");
    }
    act(&mut a, 143_000, "t", Action::Add { field: "tags".to_owned(), key: "red".to_owned() });
    sync_at(&mut a, &mut h, 150_000).unwrap();
    assert_eq!(shows(&h, "t", "tags"), Some(Shown::Set(["red".to_owned()].into())));
}

/// Far beyond any drift.
const FAR_MS: u64 = 4_100_000_000_000;

/// Joins at the hub what an upload brings of the far future.
fn upload_from_afar(hub: &mut Device, of: u128) {
    let value = bytes("from afar");
    let only = Candidate { stamp: stamp(0, FAR_MS, of), rank: 0, saw: None, value: &value };
    let change = Change::Join { register: Register::plain(only), source: None };
    let changes = vec![(Arc::from(address::field("title")), change)];
    let incoming = Incoming { kind: "task".into(), id: "far".into(), changes };
    hub.join(NOW, &[incoming], Some(StoreId(66)), Trust::Peer, None).unwrap();
    assert_eq!(hub.quarantined().unwrap(), 1);
}

#[test]
fn what_was_set_aside_tells_nothing_of_its_author() {
    let mut h = hub(9);
    upload_from_afar(&mut h, 66);
    let mut line = Line::to(&mut h, &open_gate());
    let title = [(address::field("title"), bytes("x"))];
    assert_eq!(line.push(&mut h, stamp(0, 50_000, 66), &[("task", "t", &title)]), None);
    assert!(h.clock().high_water() <= ticks(160_000), "the hub's clock is in the year 2099");
    // Nor is a later write taken for one that came again.
    let mut b = device(2);
    put(&mut b, 90_000, "u", "title", "won");
    sync(&mut b, &mut h);
    assert_eq!(line.push(&mut h, stamp(0, 60_000, 66), &[("task", "u", &title)]), None);
    let told = h.losses_of(replica(66), 0, 1 << 20).unwrap().expect("the loss is told");
    assert_eq!(told.conflicts.len(), 1);
}

fn verified(events: &[SessionEvent]) -> bool {
    events.iter().any(|event| matches!(event, SessionEvent::Verified { .. }))
        && !events.iter().any(|event| matches!(event, SessionEvent::Diverged { .. }))
}

#[test]
fn what_one_device_brings_from_the_future_ends_nobody_elses_checkpoints() {
    let (mut a, mut h) = (device(1), hub(9));
    upload_from_afar(&mut h, 66);
    for ms in [90_000_i64, 100_000] {
        put(&mut a, ms, "t", "title", ms);
        let events = sync_at(&mut a, &mut h, 110_000).unwrap();
        assert!(verified(&events), "{events:?}");
    }
    // Its author has it, and the hub does not: their digests differ until it is due.
    let mut author = device(66);
    upload_from_afar(&mut h, 66);
    put(&mut author, 90_000, "u", "title", "own");
    let events = sync_at(&mut author, &mut h, 110_000).unwrap();
    assert!(!events.iter().any(|event| matches!(event, SessionEvent::Diverged { .. })), "{events:?}");
}

#[test]
fn a_right_to_read_that_is_taken_away_ends_repairs() {
    let may = Arc::new(AtomicBool::new(true));
    let gate = switched(&may, Access::Read);
    let ask = Frame::AskSketch { count: 64 }.encode();
    let lacks = Frame::Lacks(vec![crate::sketch::Key(1)]).encode();
    let goaway = |t: &mut Session, h: &mut Device| {
        let mut told = || Frame::decode(&t.poll_transmit(h, NOW).unwrap().unwrap());
        let nothing = told() == Ok(Frame::Readable(Vec::new()));
        nothing && matches!(told(), Ok(Frame::Goaway { code: Code::SCOPE, .. }))
    };
    for asked_before in 0..4 {
        may.store(true, Ordering::Relaxed);
        let (mut a, mut h) = (device(1), hub(9));
        put(&mut h, 1000, "t", "title", "secret");
        let (mut s, mut t) = (with("a1", Want::Live), serve(&gate));
        let mut two = End { replica: &mut h, session: &mut t, now: NOW };
        run(&mut End { replica: &mut a, session: &mut s, now: NOW }, &mut two, usize::MAX).unwrap();
        let drain = |t: &mut Session, h: &mut Device| while t.poll_transmit(h, NOW).unwrap().is_some() {};
        if asked_before > 0 {
            t.handle(&mut h, &ask, NOW).unwrap();
        }
        if asked_before > 1 {
            drain(&mut t, &mut h);
        }
        if asked_before > 2 {
            t.handle(&mut h, &lacks, NOW).unwrap();
        }
        may.store(false, Ordering::Relaxed);
        match asked_before {
            0 => assert_eq!(code(t.handle(&mut h, &ask, NOW)), Code::SCOPE),
            2 => assert_eq!(code(t.handle(&mut h, &lacks, NOW)), Code::SCOPE),
            _ => {}
        }
        assert!(goaway(&mut t, &mut h), "after {asked_before} steps");
    }
}

#[test]
fn losses_are_told_one_frame_at_a_time_and_before_the_answer() {
    let (mut b, mut h) = (device(2), hub(9));
    let mut line = Line::to(&mut h, &open_gate());
    let long = |n: u64| bytes(Value::Bytes(vec![u8::try_from(n).unwrap(); 200_000]));
    for n in 0..8 {
        put(&mut b, 90_000 + n, &format!("t{n}"), "title", "won");
    }
    sync(&mut b, &mut h);
    let entities = |n| (format!("t{n}"), [(address::field("title"), long(n))]);
    for n in 0..8 {
        line.edits += 1;
        line.encoder.start_edit(line.edits, 1);
        let ((id, writes), stamp) = (entities(n), stamp(0, 50_000 + n, 66));
        let register = plain(stamp, &writes[0].1);
        line.encoder.entity("task", &id, [(&*writes[0].0, &register)].into_iter());
    }
    let frame = line.encoder.finish_push(0, 1, None);
    line.session.handle(&mut h, &frame, NOW).unwrap();
    let mut told = Vec::new();
    while told.last() != Some(&tag::ACK) {
        assert!(line.session.control.is_empty(), "nothing encoded waits");
        told.push(line.session.poll_transmit(&mut h, NOW).unwrap().expect("the answer is to come")[0]);
    }
    assert!(told.len() > 4 && told.iter().rev().skip(1).all(|tag| *tag == tag::LOST), "{told:?}");
}

#[test]
fn so_many_refused_entities_are_told_apart_and_beyond_them_every_edit_waits() {
    let mut h = hub(9);
    for (refused, waits) in [(4096, false), (4097, true)] {
        let mut line = Line::to(&mut h, &open_gate());
        let null = plain(stamp(0, 50_000, 77), &[0xf6]);
        line.encoder.start_edit(1, refused);
        for n in 0..refused {
            line.encoder.entity("task", &format!("e{n}"), [(&*address::field("x"), &null)].into_iter());
        }
        let own = plain(stamp(0, 60_000, 66), &[0xf5]);
        line.encoder.start_edit(1, 1);
        line.encoder.entity("task", &format!("other {waits}"), [(&*address::field("x"), &own)].into_iter());
        let frame = line.encoder.finish_push(0, 1, None);
        line.session.handle(&mut h, &frame, NOW).unwrap();
        let answer = line.session.poll_transmit(&mut h, NOW).unwrap().unwrap();
        let Frame::Ack(ack) = Frame::decode(&answer).unwrap() else { panic!("{answer:?}") };
        let codes: Vec<_> = ack.exceptions.iter().map(|exception| exception.code).collect();
        let expected = [Some(Code::FOREIGN_STAMP), None];
        assert_eq!(codes, if waits { &expected[..] } else { &expected[..1] });
    }
}

#[test]
fn an_authority_tells_that_it_was_asked_where_the_digests_differ() {
    let (mut a, mut h) = (device(1), hub(9));
    put(&mut h, 1000, "t", "title", "one");
    sync(&mut a, &mut h);
    // The hub does not have this one.
    let value = bytes("only here");
    let change = Change::Join { register: plain(stamp(0, 900, 5), &value), source: None };
    let changes = vec![(Arc::from(address::field("note")), change)];
    let bogus = Incoming { kind: "task".into(), id: "t".into(), changes };
    a.join(NOW, &[bogus], None, Trust::Authority, None).unwrap();
    let (mut s, mut t) = (client(Want::Once), server());
    let mut two = End { replica: &mut h, session: &mut t, now: NOW };
    run(&mut End { replica: &mut a, session: &mut s, now: NOW }, &mut two, usize::MAX).unwrap();
    let asked = |session: &mut Session| {
        session.poll_events().filter(|event| *event == SessionEvent::AskedToCompare).count()
    };
    assert_eq!((asked(&mut t), asked(&mut s)), (1, 0));
}

#[test]
fn who_may_restore_is_said_apart_from_limits_and_validators() {
    let restores = |gate: Gate| {
        let (mut a, mut b, mut h) = (device(1), device(2), hub(9));
        put(&mut b, 1000, "u", "title", "as somebody else");
        sync(&mut a, &mut b);
        let gate = Arc::new(gate);
        let (mut s, mut t) = (with("a1", Want::Once), serve(&gate));
        let mut two = End { replica: &mut h, session: &mut t, now: NOW };
        run(&mut End { replica: &mut a, session: &mut s, now: NOW }, &mut two, usize::MAX).unwrap();
        shows(&h, "u", "title").is_some()
    };
    let gate = || Gate::new(Grants::nobody().grant_as("ann", "a1", 0));
    let limits = Limits { value_bytes_max: 100, ..Limits::default() };
    let validator = || Arc::new(crate::session::By(|_: &str, _: &Proposed<'_>| Ok(())));
    let all = |of: Access| Arc::new(crate::session::By(move |_: &str, access: Access, _: &str| access != of));
    assert!(restores(gate()));
    assert!(restores(gate().limits(limits)), "a limit is no wish to judge");
    assert!(!restores(gate().validator(validator())));
    assert!(restores(gate().validator(validator()).restore(Restore::Everybody)));
    assert!(restores(gate().validator(validator()).restore(Restore::subjects(["bob", "ann"]))));
    assert!(!restores(gate().restore(Restore::subjects(["bob"]))));
    assert!(!restores(gate().restore(Restore::Nobody)));
    assert!(!restores(gate().restore(Restore::Everybody).authorizer(all(Access::Restore))), "both are asked");
    // Those without a token have no name.
    assert!(!Gate::new(Grants::everybody()).restore(Restore::subjects([""])).allows("", Access::Restore, ""));
}

#[test]
fn an_edit_has_no_more_than_an_edit_may_have() {
    let mut h = hub(9);
    let mut line = Line::to(&mut h, &open_gate());
    let long = bytes(Value::Bytes(vec![1; (2 << 20) - 100]));
    let writes =
        |fields: &[&str]| fields.iter().map(|f| (address::field(f), long.clone())).collect::<Vec<_>>();
    let fits = writes(&["a", "b"]);
    assert_eq!(line.push(&mut h, stamp(0, 50_000, 66), &[("task", "t", &fits)]), None);
    let over = writes(&["a", "b", "c"]);
    assert_eq!(line.push(&mut h, stamp(0, 50_001, 66), &[("task", "t", &over)]), Some(Code::TOO_LARGE));
    let many: Vec<_> = (0..=65_536).map(|n| (address::field(&format!("{n:05}")), vec![0xf6])).collect();
    let (_, most) = many.split_first().unwrap();
    assert_eq!(line.push(&mut h, stamp(0, 50_002, 66), &[("task", "u", most)]), None);
    assert_eq!(line.push(&mut h, stamp(0, 50_003, 66), &[("task", "u", &many)]), Some(Code::TOO_LARGE));
}

#[test]
fn a_peer_that_may_not_write_brings_nothing_and_may_read() {
    let may = Arc::new(AtomicBool::new(false));
    let gate = switched(&may, Access::Write);
    let (mut a, mut b) = (device(1), device(2));
    put(&mut b, 1000, "u", "title", "to be read");
    let meet = |a: &mut Device, b: &mut Device| {
        let (mut s, mut t) = (with("a1", Want::Once), serve(&gate));
        let mut two = End { replica: b, session: &mut t, now: NOW };
        run(&mut End { replica: a, session: &mut s, now: NOW }, &mut two, usize::MAX).map(drop)
    };
    meet(&mut a, &mut b).unwrap();
    assert_eq!(shows(&a, "u", "title"), text("to be read"));
    put(&mut a, 2000, "t", "title", "not to be written");
    assert_eq!(code(meet(&mut a, &mut b)), Code::SCOPE);
    assert_eq!(shows(&b, "t", "title"), None);
    may.store(true, Ordering::Relaxed);
    meet(&mut a, &mut b).unwrap();
    assert_eq!(shows(&b, "t", "title"), text("not to be written"));
}

#[test]
fn those_without_a_name_pay_together_for_what_comes_from_one_network() {
    let mut h = hub(9);
    let limits = Limits { registers_per_second: Some(1), ..Limits::default() };
    let gate = Arc::new(Gate::new(Grants::everybody()).limits(limits));
    let mut hello = |store: u64, network: &str| {
        let fingerprint = h.schema().fingerprint();
        let ids = [replica(store.into())].into_iter();
        let about = About::new(StoreId(store), ids, &[(Incarnation(7), 1)], 1, fingerprint, NOW.0);
        let (version_min, version_max) = (1, 1);
        let hello = Hello { version_min, version_max, capabilities: 0, about, token: None, offers: true };
        let mut session = serve(&gate);
        session.comes_from(network);
        session.handle(&mut h, &Frame::Hello(hello).encode(), NOW)
    };
    let taken = (100..200).take_while(|store| hello(*store, "192.0.2.1").is_ok()).count();
    assert!(taken < 10, "{taken} stores of one network");
    assert_eq!(code(hello(300, "192.0.2.1")), Code::RATE);
    assert_eq!(hello(301, "192.0.2.2"), Ok(()), "and nobody else pays for it");
}

#[test]
fn what_the_other_side_says_is_bounded_and_moves_no_terminal() {
    let goaway =
        |message: String| Frame::Goaway { code: Code::CLOSED, message, retry_after_ms: None }.encode();
    let bound = WireError::Bound { what: "bytes in a frame of this type", max: 64 << 10 };
    assert_eq!(Frame::decode(&goaway("x".repeat(64 << 10))), Err(bound));
    assert!(Frame::decode(&goaway("x".repeat(60 << 10))).is_ok());
    let message = format!("\u{1b}[2J\n\0{}", "é".repeat(1000));
    let error = SessionError::Goaway { code: Code(9999), message, retry_after_ms: None };
    let shown = error.to_string();
    assert!(shown.contains("\\u{1b}[2J\\n\\u{0}é") && shown.ends_with("é…"), "{shown}");
    assert!(shown.chars().count() < 260 && !shown.chars().any(char::is_control), "{shown}");
    // What this side says fits, however much it has to say.
    let (mut h, mut session) = (hub(9), server());
    session.end(Code::SCHEMA, &"é".repeat(100_000));
    let told = session.poll_transmit(&mut h, NOW).unwrap().unwrap();
    assert!(matches!(Frame::decode(&told), Ok(Frame::Goaway { code: Code::SCHEMA, .. })));
}
