//! Through sessions: cursors, and what an older replica passes on.

use super::*;
use crate::session::pair::{End, run};
use crate::session::{Grants, Role, Session, SessionEvent, SessionOptions, Want};

fn session(role: Role) -> Session {
    let want = Want::Once;
    Session::new(SessionOptions { role, want, offers: true, seeds: seeds(777), capabilities: 0 })
}

pub(super) fn ends() -> (Session, Session) {
    (session(Role::Client { token: None }), session(Role::server(Grants::everybody())))
}

pub(super) fn sync(one: &mut Device, two: &mut Device) {
    let ((mut s, mut t), now) = (ends(), Millis(1_000_000));
    let mut one = End { replica: one, session: &mut s, now };
    run(&mut one, &mut End { replica: two, session: &mut t, now }, usize::MAX).unwrap();
    assert!(s.is_closed());
}

fn joined(events: impl Iterator<Item = SessionEvent>) -> usize {
    let registers = events.map(|event| match event {
        SessionEvent::Joined { registers, .. } => registers,
        _ => 0,
    });
    registers.sum()
}

/// So long a text that few rows go into a page.
fn long(n: usize) -> String {
    format!("{n:03000}")
}

const CHANGES: usize = 10_000;

fn full() -> Device {
    let mut a = device(1);
    for n in 0..CHANGES {
        on(&mut a, 1000, "task", &n.to_string(), field("title", long(n)));
    }
    a
}

#[test]
fn ten_thousand_changes_of_one_millisecond_come_once_each_in_a_quiet_store() {
    let (mut a, mut b) = (full(), device(2));
    let ((mut s, mut t), now) = (ends(), Millis(1_000_000));
    let mut one = End { replica: &mut b, session: &mut s, now };
    let frames = run(&mut one, &mut End { replica: &mut a, session: &mut t, now }, usize::MAX).unwrap();
    assert!(frames > 100, "{frames} frames");
    assert_eq!(joined(s.poll_events()), 2 * CHANGES, "life and title of each");
    assert_eq!(a.head().unwrap().digest, b.head().unwrap().digest);
    let ((mut s, mut t), now) = (ends(), Millis(1_000_000));
    let mut one = End { replica: &mut b, session: &mut s, now };
    run(&mut one, &mut End { replica: &mut a, session: &mut t, now }, usize::MAX).unwrap();
    assert_eq!(joined(s.poll_events()), 0, "and never again");
    on(&mut a, 2000, "task", "7", field("title", "once more"));
    let ((mut s, mut t), now) = (ends(), Millis(1_000_000));
    let mut one = End { replica: &mut b, session: &mut s, now };
    run(&mut one, &mut End { replica: &mut a, session: &mut t, now }, usize::MAX).unwrap();
    assert_eq!(joined(s.poll_events()), 1, "of a row that moves, the register that changed");
}

#[test]
fn no_change_is_missed_in_a_busy_store_by_a_reader_that_is_cut_off_again_and_again() {
    let (mut a, mut b) = (full(), device(2));
    let now = Millis(1_000_000);
    let mut edits = 0;
    for round in 0..60 {
        let (mut s, mut t) = ends();
        for step in 0..6 {
            let mut one = End { replica: &mut b, session: &mut s, now };
            run(&mut one, &mut End { replica: &mut a, session: &mut t, now }, 2 + round % 3).unwrap();
            // Rows that were delivered, rows that were not, and new ones.
            for id in [round, CHANGES - 1 - round, CHANGES + edits, (round * 7919 + step * 101) % CHANGES] {
                edits += 1;
                on(&mut a, 1000, "task", &id.to_string(), field("title", long(edits)));
                on(&mut a, 1000, "task", &id.to_string(), add("tags", "moved"));
            }
        }
    }
    assert_ne!(a.head().unwrap().digest, b.head().unwrap().digest, "the reader was not through yet");
    sync(&mut b, &mut a);
    assert_eq!(a.head().unwrap().digest, b.head().unwrap().digest);
    assert_eq!(b.head().unwrap().digest, b.recompute_digest().unwrap());
}

/// Every register of a store in its bytes, by entity and address.
fn bytes(of: &Device) -> Vec<(String, String, Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for kind in of.store().kinds().unwrap() {
        for id in of.store().ids(&kind, None, usize::MAX).unwrap() {
            of.registers(&kind, &id, &mut |parts, state| {
                let (mut at, mut register) = (Vec::new(), Vec::new());
                address::encode(&mut at, parts.class, parts.name, parts.key);
                encode_register(&state.shown, &mut register);
                all.push((kind.clone(), id.clone(), at, register));
            })
            .unwrap();
        }
    }
    all
}

#[test]
fn what_an_older_hub_does_not_know_passes_through_bit_for_bit() {
    let older = Schema::builder().kind("task", |k| k.value("title")).build().unwrap();
    for is_authority in [false, true] {
        let mut hub = open_with(MemoryStore::new(), 9, Arc::new(older.clone()));
        if is_authority {
            hub.become_authority().unwrap();
        }
        let (mut a, mut b) = (device(1), device(2));
        act(&mut a, 1000, field("title", "known"));
        act(&mut a, 1000, add("tags", "unknown field"));
        act(&mut a, 1000, inc("views", 3));
        act(&mut a, 1000, field("stop", 4));
        act(&mut a, 1000, field("title", Value::Unknown { tag: 60_000, bytes: vec![1, 2, 3] }));
        on(&mut a, 1000, "draft", "t", field("title", "unknown kind"));
        on(&mut a, 2000, "draft", "t", Action::Delete);
        let own = crate::register::Candidate {
            stamp: Stamp { generation: 0, time: ticks(900), replica: a.id() },
            rank: 0,
            saw: None,
            value: b"\xd9\xea\x61\x42\x00\xff",
        };
        let change = Change::Join { register: Register::plain(own), source: None };
        let changes = vec![(Arc::from([200, 0, 1, b'f', 7, 7]), change)];
        let future = Incoming { kind: Arc::from("from the future"), id: Arc::from(""), changes };
        a.join(Millis(1000), &[future], None, Trust::Peer, None).unwrap();
        sync(&mut a, &mut hub);
        assert_eq!(hub.view("draft", "t").unwrap(), None);
        sync(&mut b, &mut hub);
        assert_eq!((bytes(&hub), bytes(&b)), (bytes(&a), bytes(&a)));
        assert_eq!(bytes(&a).len(), 5 + 2 + 1, "three entities");
        assert_eq!(a.view("task", "t").unwrap(), b.view("task", "t").unwrap());
        act(&mut b, 3000, add("tags", "another"));
        sync(&mut b, &mut hub);
        sync(&mut a, &mut hub);
        assert_eq!(bytes(&a), bytes(&b));
        assert_eq!(a.head().unwrap().digest.shown, hub.head().unwrap().digest.shown);
    }
}
