//! What a second hostile reading found.

use super::*;
use crate::address;
use crate::clock::{Instant, Stamp, ticks};
use crate::register::{Alive, Candidate, Register, Seen};
use crate::replica::{Incoming, Trust};
use crate::row::Change;
use crate::wire::page::{PageHeader, RowDecoder};
use crate::wire::{About, Hello};

use xxhash_rust::xxh3::xxh3_64;

const NOW: Millis = Millis(100_000);

fn replica(n: u128) -> ReplicaId {
    ReplicaId::from_u128(n)
}

fn stamp(generation: u16, ms: i64, of: u128) -> Stamp {
    Stamp { generation, time: ticks(ms.unsigned_abs()), replica: replica(of) }
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
    fn to(hub: &mut Device) -> Self {
        let about = About::new(
            StoreId(66),
            [replica(66)].into_iter(),
            &[(Incarnation(7), 1)],
            1,
            schema().fingerprint(),
            NOW.0,
        );
        let (version_min, version_max) = (1, 1);
        let hello = Hello { version_min, version_max, capabilities: 0, about, token: None, offers: true };
        let mut session = server();
        session.handle(hub, &Frame::Hello(hello).encode(), NOW).unwrap();
        assert!(session.poll_transmit(hub, NOW).unwrap().is_some(), "WELCOME");
        Self { session, encoder: RowEncoder::default(), edits: 0, answers: 0 }
    }

    /// Pushes an edit of one register of task t and returns the answer.
    fn push(&mut self, hub: &mut Device, address: &[u8], register: &Register<'_>) -> Ack {
        self.edits += 1;
        self.encoder.start_edit(self.edits, 1);
        self.encoder.entity("task", "t", [(address, register)].into_iter());
        let frame = self.encoder.finish_push(self.answers, 1, None);
        self.session.handle(hub, &frame, NOW).unwrap();
        self.answers += 1;
        let answer = self.session.poll_transmit(hub, NOW).unwrap().unwrap();
        let Frame::Ack(ack) = Frame::decode(&answer).unwrap() else { panic!("{answer:?}") };
        ack
    }
}

/// A page may be on its way while the digests are found to differ: it belongs to the subscription before.
#[test]
fn a_page_that_crosses_the_repair_of_a_divergence_ends_nothing() {
    let (mut a, mut h) = (device(1), hub(9));
    put(&mut a, 1000, "t", "title", "one");
    sync(&mut a, &mut h);
    // The hub has lost this one.
    let lost = (Arc::from(address::field("note")), plain(stamp(0, 900, 5), &[0xf6]));
    let lost = Incoming {
        kind: "task".into(),
        id: "t".into(),
        changes: vec![(lost.0, Change::Join { register: lost.1, source: None })],
    };
    a.join(NOW, &[lost], None, Trust::Authority, None).unwrap();
    let (mut s, mut t) = (client(Want::Live), server());
    let mut diverged = false;
    while !diverged {
        let mut one = End { replica: &mut a, session: &mut s, now: NOW };
        let passed = run(&mut one, &mut End { replica: &mut h, session: &mut t, now: NOW }, 1).unwrap();
        assert_eq!(passed, 1);
        diverged = s.poll_events().any(|event| matches!(event, SessionEvent::Diverged { .. }));
    }
    put(&mut h, 2000, "u", "title", "live");
    let page = t.poll_transmit(&mut h, NOW).unwrap().unwrap();
    assert_eq!(page[0], tag::DELTA);
    s.handle(&mut a, &page, NOW).unwrap();
    let mut one = End { replica: &mut a, session: &mut s, now: NOW };
    run(&mut one, &mut End { replica: &mut h, session: &mut t, now: NOW }, usize::MAX).unwrap();
    assert_eq!(shows(&a, "u", "title"), text("live"));
    assert!(s.is_synced(a.head().unwrap().seq));
    // The next connection gives the hub what it lacks.
    sync(&mut a, &mut h);
    assert_eq!(shows(&h, "t", "note"), Some(Shown::Value(Value::Null)));
    assert_same(&[&a, &h]);
}

/// What changes nothing is accepted whatever is wrong with it, so nothing of it may be taken for known.
#[test]
fn an_edit_that_changes_nothing_does_not_move_the_hubs_clock() {
    let mut h = hub(9);
    let mut line = Line::to(&mut h);
    let title = address::field("title");
    line.push(&mut h, &title, &plain(stamp(5, 50_000, 66), &[0x61, b'x']));
    line.push(&mut h, &title, &plain(stamp(0, 4_100_000_000_000, 66), &[0x61, b'y']));
    assert_eq!(shows(&h, "t", "title"), text("x"));
    assert!(h.clock().high_water() <= ticks(160_000), "the hub's clock is in the year 2099");
}

/// Edits under somebody else's stamp that change nothing tell the hub nothing of that replica.
#[test]
fn nobody_has_seen_what_was_never_pushed() {
    let (mut a, mut h) = (device(1), hub(9));
    sync(&mut a, &mut h);
    act(&mut a, 40_000, "t", Action::Add { field: "tags".to_owned(), key: "red".to_owned() });
    let mut line = Line::to(&mut h);
    let (title, tag) = (address::field("title"), address::key("tags", "red"));
    line.push(&mut h, &title, &plain(stamp(0, 50_000, 66), &[0x61, b'x']));
    line.push(&mut h, &title, &plain(stamp(0, 45_000, 1), &[0x61, b'y']));
    let only = Candidate { stamp: stamp(0, 50_001, 66), rank: 0, saw: None, value: &[0xf4] };
    let instant = Instant { generation: 0, time: ticks(42_000) };
    let seen = vec![Seen { replica: replica(1), instant }];
    let removed = Register { floor: Stamp::LOWEST, alive: Alive::from(vec![only]), seen };
    let ack = line.push(&mut h, &tag, &removed);
    let codes: Vec<_> = ack.exceptions.iter().map(|exception| exception.code).collect();
    assert_eq!(codes, [Some(Code::SEEN)]);
    sync(&mut a, &mut h);
    assert_eq!(shows(&h, "t", "tags"), Some(Shown::Set(["red".to_owned()].into())));
}
