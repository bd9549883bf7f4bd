//! What is refused, set aside or made anew, and that it holds up nothing else.

use super::*;
use crate::replica::RoleError;

#[test]
fn a_device_with_a_fast_clock_is_corrected_and_loses_nothing() {
    let year = 31_536_000_000;
    let (mut a, mut b, mut h) = (device(1), device(2), hub(9));
    put(&mut a, 1000, "t", "title", "on time");
    sync(&mut a, &mut h);
    for n in 0..10 {
        put(&mut a, year + n, "t", "title", format!("from the future {n}"));
        inc(&mut a, year + n, "t", 1);
    }
    let (mut s, mut t) = (client(Want::Once), server());
    let (fast, right) = (Millis(year + 100), Millis(100_000));
    let mut hub_end = End { replica: &mut h, session: &mut t, now: right };
    run(&mut End { replica: &mut a, session: &mut s, now: fast }, &mut hub_end, usize::MAX).unwrap();
    assert!(s.is_closed());
    assert_eq!(a.pending_count().unwrap(), 0);
    assert!(a.rejected().unwrap().is_empty());
    assert_eq!(a.clock().correction_ms(), 100_000 - (year + 100));
    assert!(a.clock().high_water() < crate::clock::ticks(200_000), "the clock went back to what others know");
    put(&mut b, 120_000, "t", "owner", "b");
    sync_at(&mut b, &mut h, 120_000).unwrap();
    assert_eq!(shows(&b, "t", "title"), text("from the future 9"));
    assert_eq!(shows(&b, "t", "views"), Some(Shown::Counter(10)));
    // The clock is set right: the correction goes.
    sync_at(&mut a, &mut h, 130_000).unwrap();
    assert_eq!(a.clock().correction_ms(), 0);
    assert_same(&[&a, &b, &h]);
}

#[test]
fn a_rank_that_is_not_granted_is_refused_alone_and_what_rests_on_it_is_built_anew() {
    let (mut a, mut h) = (device(1), hub(9));
    put(&mut a, 1000, "t", "title", "first");
    let mut s = options(Role::Client { token: Some("boss".to_owned()) }, Want::Once);
    let now = Millis(50_000);
    let mut t = server();
    let mut hub_end = End { replica: &mut h, session: &mut t, now };
    run(&mut End { replica: &mut a, session: &mut s, now }, &mut hub_end, usize::MAX).unwrap();
    assert_eq!(a.identity().authority.unwrap().rank, 9);
    put(&mut a, 2000, "t", "title", "with rank 9");
    put(&mut a, 2001, "u", "title", "with rank 9, too");
    inc(&mut a, 2002, "t", 7);
    a.watch(Watching::Yes);
    // Without the token the rank is 0: every pending edit claims too much.
    sync_at(&mut a, &mut h, 60_000).unwrap();
    assert_eq!(a.pending_count().unwrap(), 0);
    let rejected = a.rejected().unwrap();
    assert!(!rejected.is_empty() && rejected.iter().all(|r| r.code == Code::RANK), "{rejected:?}");
    assert_eq!(shows(&a, "t", "title"), text("first"), "a refused edit is taken back exactly");
    assert_same(&[&a, &h]);
    let head = a.head().unwrap().digest;
    assert_eq!(head.shown, head.confirmed);
}

#[test]
fn an_edit_whose_acceptance_was_not_heard_is_accepted_again_under_a_lower_rank() {
    let (mut a, mut h) = (device(1), hub(9));
    let boss = || options(Role::Client { token: Some("boss".to_owned()) }, Want::Once);
    let connect = |a: &mut Device, h: &mut Device, client: Session, frames: usize| {
        let (mut client, mut server) = (client, server());
        let now = Millis(100_000);
        let mut one = End { replica: a, session: &mut client, now };
        run(&mut one, &mut End { replica: h, session: &mut server, now }, frames).unwrap();
    };
    connect(&mut a, &mut h, boss(), usize::MAX);
    put(&mut a, 1000, "t", "title", "as the boss");
    // HELLO, WELCOME, PUSH: the answer is lost.
    connect(&mut a, &mut h, boss(), 3);
    assert_eq!(shows(&h, "t", "title"), text("as the boss"));
    assert_eq!(a.pending_count().unwrap(), 1);
    connect(&mut a, &mut h, client(Want::Once), usize::MAX);
    assert_eq!(shows(&a, "t", "title"), text("as the boss"));
    assert_eq!((a.pending_count().unwrap(), a.rejected().unwrap()), (0, vec![]));
    assert_same(&[&a, &h]);
}

#[test]
fn one_write_from_the_future_among_100_is_set_aside_and_the_99_apply() {
    let (mut a, mut b) = (open(MemoryStore::new(), 1, Admission::Off), device(2));
    for n in 0..99 {
        put(&mut a, 1000 + n, &format!("t{n}"), "title", "now");
    }
    put(&mut a, 4_000_000_000_000, "late", "title", "from 2096");
    put(&mut b, 1000, "x", "title", "b");
    sync_at(&mut a, &mut b, 5000).unwrap();
    assert_eq!(b.quarantined().unwrap(), 2, "life and title");
    assert_eq!(shows(&b, "t98", "title"), text("now"));
    assert_eq!(shows(&b, "late", "title"), None);
    assert!(b.clock().high_water() < crate::clock::ticks(70_000));
    assert_eq!(b.release(Millis(3_999_999_000_000)), Ok(0));
    assert_eq!(b.release(Millis(4_000_000_000_000)), Ok(2));
    assert_eq!(shows(&b, "late", "title"), text("from 2096"));
    sync_at(&mut a, &mut b, 4_000_000_000_000).unwrap();
    assert_same(&[&a, &b]);
}

#[test]
fn strangers_and_other_authorities_are_turned_away() {
    let (mut a, mut h, mut other) = (device(1), hub(9), hub(10));
    sync(&mut a, &mut h);
    let refused = sync_at(&mut a, &mut other, 1000).unwrap_err();
    assert!(matches!(refused, SessionError::Role(RoleError::OtherAuthority { .. })), "{refused}");
    let mut s = options(Role::Client { token: Some("wrong".to_owned()) }, Want::Once);
    let mut t = server();
    let now = Millis(1);
    let mut hub_end = End { replica: &mut h, session: &mut t, now };
    let refused = run(&mut End { replica: &mut a, session: &mut s, now }, &mut hub_end, usize::MAX);
    assert!(matches!(refused, Err(SessionError::Refused { code: Code::UNAUTHORISED, .. })), "{refused:?}");
    let frame = t.poll_transmit(&mut h, now).unwrap().unwrap();
    let told = s.handle(&mut a, &frame, now).unwrap_err();
    assert!(matches!(told, SessionError::Goaway { code: Code::UNAUTHORISED, .. }), "{told}");
}

#[test]
fn schemas_that_merge_one_field_differently_do_not_sync() {
    let other = Schema::builder().kind("task", |k| k.open().set("title")).build().unwrap();
    let options = OpenOptions { seeds: seeds(3), slot: 0, admission: Admission::Off, rank: 0 };
    let mut a = Replica::open(MemoryStore::new(), Arc::new(other), options).unwrap();
    let refused = sync_at(&mut a, &mut device(2), 1000).unwrap_err();
    assert!(refused.to_string().contains("field `title` of kind `task`"), "{refused}");
}

#[test]
fn registers_set_aside_are_no_divergence() {
    let (mut a, mut b) = (open(MemoryStore::new(), 1, Admission::Off), device(2));
    put(&mut a, 1_000_000, "late", "title", "ahead");
    put(&mut b, 1000, "x", "title", "b");
    for _ in 0..3 {
        let events = sync_at(&mut a, &mut b, 5000).unwrap();
        assert!(!events.iter().any(|e| matches!(e, SessionEvent::Diverged { .. })), "{events:?}");
    }
    assert_eq!(b.quarantined().unwrap(), 2);
}

#[test]
fn who_merges_a_field_otherwise_is_refused_with_both_policies() {
    let owner = |k: crate::schema::KindBuilder| k.value("title").multi("owner");
    let other = Arc::new(Schema::builder().kind("task", owner).build().unwrap());
    let options = OpenOptions { seeds: seeds(2), slot: 0, admission: Admission::Off, rank: 0 };
    let (mut a, mut b) = (device(1), Replica::open(MemoryStore::new(), other, options).unwrap());
    put(&mut b, 1000, "t", "title", "x");
    let (SessionError::Refused { code, message } | SessionError::Goaway { code, message, .. }) =
        sync_at(&mut a, &mut b, 2000).unwrap_err()
    else {
        panic!("another error");
    };
    assert_eq!((code, code.is_retryable()), (Code::SCHEMA, false));
    for part in ["field `owner`", "kind `task`", "\"value, margin 5000 ms, rank\"", "\"multi\""] {
        assert!(message.contains(part), "{message}");
    }
    assert!(a.view("task", "t").unwrap().is_none(), "nothing was exchanged");
}

#[test]
fn what_rests_on_a_refused_edit_and_is_older_than_what_is_there_is_not_lost_unsaid() {
    let (mut a, mut b, mut h) = (device(1), device(2), hub(9));
    let gate = refusing(|edit| edit.time() == Millis(2000));
    let connect = |one: &mut Device, h: &mut Device, now: i64| drop(through(&gate, one, h, now, usize::MAX));
    put(&mut a, 1000, "t", "title", "first");
    connect(&mut a, &mut h, 1100);
    connect(&mut b, &mut h, 1100);
    // Of the device's three edits the first is refused. The second rests on it; both are older than another's.
    act(&mut a, 2000, "t", Action::Add { field: "tags".to_owned(), key: "x".to_owned() });
    put(&mut a, 2001, "t", "title", "mine");
    put(&mut b, 3000, "t", "title", "theirs");
    connect(&mut b, &mut h, 3000);
    connect(&mut a, &mut h, 4000);
    connect(&mut a, &mut h, 5000);
    connect(&mut b, &mut h, 5000);
    assert_eq!(a.rejected().unwrap().len(), 1);
    let lost = |on: &Device| -> Vec<Vec<u8>> {
        on.conflicts().unwrap().iter().map(|(_, lost)| lost.value.clone()).collect()
    };
    // Made anew it is the newer one, whose author had not seen the other.
    assert_eq!(shows(&h, "t", "title"), text("mine"));
    assert_eq!((lost(&a), lost(&b)), (vec![], vec![Value::from("theirs").to_bytes()]));
    assert_same(&[&a, &b, &h]);
}

/// A device whose first edit is refused, with the answer lost, and what of the two edits of its title is listed in the
/// end: the answer is lost, and the second of them `rests` on the refused one. By the time that they are pushed again the
/// hub may have thought better of it.
fn answer_lost(is_strict_later: bool, rests: bool) -> (Device, Device, usize) {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (mut a, mut b, mut h) = (device(1), device(2), hub(9));
    let is_strict = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&is_strict);
    let gate = refusing(move |edit| edit.time() == Millis(2000) && asked.load(Ordering::Relaxed));
    let connect =
        |one: &mut Device, h: &mut Device, now: i64, frames: usize| drop(through(&gate, one, h, now, frames));
    put(&mut a, 1000, "t", "title", "first");
    connect(&mut a, &mut h, 1100, usize::MAX);
    connect(&mut b, &mut h, 1100, usize::MAX);
    if rests {
        act(&mut a, 2000, "t", Action::Add { field: "tags".to_owned(), key: "x".to_owned() });
    }
    put(&mut a, if rests { 2001 } else { 2000 }, "t", "title", "mine");
    put(&mut a, 2002, "u", "title", "other");
    put(&mut b, 3000, "t", "title", "theirs");
    connect(&mut b, &mut h, 3000, usize::MAX);
    // HELLO, WELCOME, PUSH: the last of the three edits is accepted.
    connect(&mut a, &mut h, 4000, 3);
    assert_eq!((a.pending_count(), shows(&h, "u", "title")), (Ok(2 + usize::from(rests)), text("other")));
    is_strict.store(is_strict_later, Ordering::Relaxed);
    connect(&mut a, &mut h, 5000, usize::MAX);
    connect(&mut a, &mut h, 6000, usize::MAX);
    assert_eq!(a.pending_count(), Ok(0));
    assert_same(&[&a, &h]);
    let listed = a.rejected().unwrap().len() + a.conflicts().unwrap().len();
    (a, h, listed)
}

#[test]
fn what_was_refused_unheard_is_not_taken_for_accepted_when_it_is_pushed_again() {
    let (_, h, listed) = answer_lost(true, false);
    assert_eq!((shows(&h, "t", "title"), listed), (text("theirs"), 1), "it is refused again");
    let (_, h, listed) = answer_lost(false, false);
    assert_eq!((shows(&h, "t", "title"), listed), (text("theirs"), 1), "it has lost, and that is a conflict");
    // What rests on it is made anew, and is the newer one then.
    let (_, h, listed) = answer_lost(true, true);
    assert_eq!((shows(&h, "t", "title"), listed), (text("mine"), 1));
    let (_, h, listed) = answer_lost(false, true);
    assert_eq!((shows(&h, "t", "title"), listed), (text("theirs"), 1), "both are accepted, and one has lost");
}

#[test]
fn of_many_refused_edits_of_a_replica_the_oldest_are_not_taken_for_accepted_either() {
    let (mut a, mut h) = (device(1), hub(9));
    let gate = refusing(|edit| edit.entities().iter().any(|one| one.id == "t"));
    sync_at(&mut a, &mut h, 500).unwrap();
    put(&mut h, 9000, "t", "title", "newer");
    for n in 0..300 {
        put(&mut a, 1000 + n, "t", "title", format!("{n}"));
    }
    put(&mut a, 2000, "u", "title", "fine");
    for frames in [3, usize::MAX, usize::MAX] {
        through(&gate, &mut a, &mut h, 10_000, frames);
    }
    assert_eq!((a.pending_count(), a.rejected().unwrap().len()), (Ok(0), 300));
    assert_eq!(shows(&a, "t", "title"), text("newer"));
}

#[test]
fn what_was_refused_and_then_accepted_both_unheard_is_accepted_again() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (mut a, mut b, mut h) = (device(1), device(2), hub(9));
    let is_strict = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&is_strict);
    let gate = refusing(move |edit| edit.time() == Millis(2000) && asked.load(Ordering::Relaxed));
    let connect =
        |one: &mut Device, h: &mut Device, now: i64, frames: usize| drop(through(&gate, one, h, now, frames));
    put(&mut a, 1000, "t", "title", "first");
    connect(&mut a, &mut h, 1100, usize::MAX);
    put(&mut a, 2000, "t", "title", "mine");
    // Refused, and accepted, and each time the answer is lost.
    connect(&mut a, &mut h, 2100, 3);
    assert_eq!(shows(&h, "t", "title"), text("first"));
    is_strict.store(false, Ordering::Relaxed);
    connect(&mut a, &mut h, 2200, 3);
    assert_eq!((a.pending_count(), shows(&h, "t", "title")), (Ok(1), text("mine")));
    // Somebody has seen it and writes over it, and the hub is strict again.
    connect(&mut b, &mut h, 2300, usize::MAX);
    put(&mut b, 2400, "t", "title", "theirs");
    connect(&mut b, &mut h, 2500, usize::MAX);
    is_strict.store(true, Ordering::Relaxed);
    connect(&mut a, &mut h, 2600, usize::MAX);
    assert_eq!((a.pending_count(), shows(&a, "t", "title")), (Ok(0), text("theirs")));
    assert_eq!(
        (a.rejected().unwrap(), a.conflicts().unwrap().len()),
        (vec![], 0),
        "it was replaced by who saw it"
    );
}
