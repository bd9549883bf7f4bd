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
    line.push(&mut h, &title, &plain(stamp(1, 50_000, 66), &[0x61, b'x']));
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

const ONE_PAGE: PageHeader =
    PageHeader { at: 1, more: false, incarnation: None, start: true, checkpoint: false };

fn join(hub: &mut Device, frame: &[u8]) -> crate::replica::Joined {
    let mut decoder = RowDecoder::default();
    let page = decoder.page(frame, StoreId(66)).unwrap();
    hub.join(NOW, &page.rows, Some(StoreId(66)), Trust::Peer, None).unwrap()
}

/// The 8 bytes of which XXH3 makes this.
fn preimage(target: u64) -> [u8; 8] {
    const FACTOR: u64 = 0x9fb2_1c65_1e98_df25;
    const FLIP: u64 = 0xc73a_b174_c5ec_d5a2;
    let inverse = (0..6)
        .fold(1_u64, |inverse, _| inverse.wrapping_mul(2_u64.wrapping_sub(FACTOR.wrapping_mul(inverse))));
    let mut hash = (target ^ target >> 28 ^ target >> 56).wrapping_mul(inverse);
    hash = (hash ^ (hash >> 35).wrapping_add(8)).wrapping_mul(inverse);
    hash = (0..63).fold(hash, |hash, _| hash ^ hash.rotate_left(49) ^ hash.rotate_left(24));
    (hash ^ FLIP).rotate_left(32).to_le_bytes()
}

/// Whoever chooses kinds and ids makes as many of one hash as wanted; going through all of them for each would hold up
/// a hub for a minute with a page of 3 MB.
#[test]
fn entities_that_are_made_to_have_one_hash_are_told_apart() {
    let value = plain(stamp(0, 1000, 66), &[0xf6]);
    let alike = (0_u64..).filter_map(|kind| {
        let kind = format!("{kind:x}");
        let id = preimage(xxh3_64(kind.as_bytes()).rotate_left(17) ^ 0x1234_5678_9abc_def0);
        String::from_utf8(id.to_vec()).ok().map(|id| (kind, id))
    });
    let alike: Vec<_> = alike.take(1000).collect();
    assert!(alike.iter().all(|(kind, id)| {
        xxh3_64(id.as_bytes()) ^ xxh3_64(kind.as_bytes()).rotate_left(17) == 0x1234_5678_9abc_def0
    }));
    let mut encoder = RowEncoder::default();
    for field in ["one", "two"] {
        for (kind, id) in &alike {
            encoder.entity(kind, id, [(&*address::field(field), &value)].into_iter());
        }
    }
    let mut h = hub(9);
    join(&mut h, &encoder.finish_page(ONE_PAGE));
    assert_eq!(h.head().unwrap().seq, 1000, "a row for each");
    for (kind, id) in &alike {
        let mut count = 0;
        h.registers(kind, id, &mut |_, _| count += 1).unwrap();
        assert_eq!(count, 2);
    }
}

/// Looking for stamps met with two contents takes no more than a look at each.
#[test]
fn a_register_of_many_candidates_is_joined_twice_in_time() {
    let candidate = |n: i64| {
        let stamp = stamp(0, n, n.unsigned_abs().into());
        Candidate { stamp, rank: 0, saw: None, value: &[0xf6][..] }
    };
    let alive: Vec<_> = (1..=80_000).map(candidate).collect();
    let many = |alive| Register { floor: Stamp::LOWEST, alive: Alive::from(alive), seen: Vec::new() };
    let page = |alive| {
        let mut encoder = RowEncoder::default();
        encoder.entity("task", "t", [(&*address::field("title"), &many(alive))].into_iter());
        encoder.finish_page(ONE_PAGE)
    };
    let mut h = hub(9);
    // Quadratic, this would take a minute.
    for _ in 0..2 {
        join(&mut h, &page(alive.clone()));
    }
    assert_eq!(h.poll_events(), []);
    // Told also where the greater value is held already, so that nothing changes.
    let mut other = alive;
    other[70_000].value = &[0xf5];
    join(&mut h, &page(other));
    assert_eq!(h.poll_events(), [crate::replica::Event::Clash { stamp: candidate(70_001).stamp }]);
}

/// An exception of a letter takes a device many times the bytes that it has on the wire: it is not read where nothing
/// was pushed that it could be about.
#[test]
fn a_hub_cannot_answer_more_than_was_pushed() {
    let (mut a, mut h) = (device(1), hub(9));
    sync(&mut a, &mut h);
    put(&mut a, 1000, "t", "title", "one");
    let (mut s, mut t) = (client(Want::Live), server());
    let mut one = End { replica: &mut a, session: &mut s, now: NOW };
    run(&mut one, &mut End { replica: &mut h, session: &mut t, now: NOW }, 2).unwrap();
    let pushed = s.poll_transmit(&mut a, NOW).unwrap().unwrap();
    assert_eq!(pushed[0], tag::PUSH);
    let exception = |index| crate::wire::Exception {
        index,
        code: Some(Code::INVALID),
        message: "x".to_owned().into(),
        spot: None,
    };
    let exceptions = (0..100_000).map(exception).collect();
    let ack = Frame::Ack(Ack { seq: 1, clock_ms: 0, exceptions }).encode();
    let ended = s.handle(&mut a, &ack, NOW);
    assert!(
        matches!(&ended, Err(SessionError::Refused { code: Code::UNEXPECTED, message }) if message.contains("more than was pushed")),
        "{ended:?}"
    );
    assert_eq!(a.pending_count().unwrap(), 1, "nothing was decided");
}
