use std::sync::Arc;

use super::pair::{End, run};
use super::*;
use crate::clock::Admission;
use crate::edit::{Action, Op};
use crate::id::ReplicaId;
use crate::replica::{OpenOptions, Watching};
use crate::schema::{Life, Margin, Resolver, Schema};
use crate::store::MemoryStore;
use crate::value::Value;
use crate::view::Shown;

mod hostile;

type Device = Replica<MemoryStore>;

fn seeds(n: u64) -> Seeds {
    Seeds {
        store: StoreId(n),
        replica: ReplicaId::from_u128(u128::from(n)),
        incarnation: Incarnation(n * 1000),
    }
}

fn schema() -> Arc<Schema> {
    let task = |k: crate::schema::KindBuilder| {
        k.life(Life::DeleteWins)
            .open()
            .value("title")
            .value_with("owner", Margin::Ms(5000), Resolver::Rank)
            .set("tags")
            .map("labels")
            .counter("views")
    };
    Arc::new(Schema::builder().kind("task", task).build().unwrap())
}

fn open(store: MemoryStore, n: u64, admission: Admission) -> Device {
    let options = OpenOptions { seeds: seeds(n), slot: 0, admission, rank: 0 };
    Replica::open(store, schema(), options).unwrap()
}

fn device(n: u64) -> Device {
    open(MemoryStore::new(), n, Admission::Quarantine { drift_ms_max: 60_000 })
}

fn hub(n: u64) -> Device {
    let mut hub = open(MemoryStore::new(), n, Admission::Refuse { drift_ms_max: 60_000 });
    hub.become_authority().unwrap();
    hub
}

fn client(want: Want) -> Session {
    options(Role::Client { token: None }, want)
}

fn server() -> Session {
    let grants = Grants { tokens: [("boss".to_owned(), 9)].into(), anonymous: Some(0) };
    options(Role::Server { grants }, Want::Live)
}

fn options(role: Role, want: Want) -> Session {
    Session::new(SessionOptions { role, want, offers: true, seeds: seeds(777), capabilities: 0 })
}

fn sync_at(one: &mut Device, two: &mut Device, now: i64) -> Result<Vec<SessionEvent>, SessionError> {
    let (mut a, mut b) = (client(Want::Once), server());
    let now = Millis(now);
    let ends =
        (&mut End { replica: one, session: &mut a, now }, &mut End { replica: two, session: &mut b, now });
    run(ends.0, ends.1, usize::MAX)?;
    assert!(a.is_closed(), "a session that syncs once ends by itself: {a:?}");
    Ok(a.poll_events().collect())
}

fn sync(one: &mut Device, two: &mut Device) {
    sync_at(one, two, 100_000).unwrap();
}

fn put(on: &mut Device, now: i64, id: &str, field: &str, value: impl Into<Value>) {
    let action = Action::Put(vec![(field.to_owned(), value.into())]);
    on.edit(Millis(now), &[Op::new("task", id, action)]).unwrap();
}

fn act(on: &mut Device, now: i64, id: &str, action: Action) {
    on.edit(Millis(now), &[Op::new("task", id, action)]).unwrap();
}

fn inc(on: &mut Device, now: i64, id: &str, by: i64) {
    act(on, now, id, Action::Inc { field: "views".to_owned(), by });
}

fn shows(on: &Device, id: &str, field: &str) -> Option<Shown> {
    on.view("task", id).unwrap().and_then(|mut view| view.fields.remove(field))
}

fn text(value: &str) -> Option<Shown> {
    Some(Shown::Value(Value::from(value)))
}

fn assert_same(devices: &[&Device]) {
    let digests: Vec<_> = devices.iter().map(|d| d.head().unwrap().digest.shown).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:x?}");
    for device in devices {
        let digest = device.head().unwrap().digest;
        assert_eq!(digest, device.recompute_digest().unwrap(), "the kept digest is that of the rows");
    }
}

#[test]
fn peers_show_the_same_after_one_sync() {
    let (mut a, mut b) = (device(1), device(2));
    put(&mut a, 1000, "t", "title", "from a");
    put(&mut b, 2000, "t", "title", "from b");
    put(&mut b, 2001, "u", "title", "only b");
    inc(&mut a, 1001, "t", 2);
    inc(&mut b, 2002, "t", 3);
    sync(&mut a, &mut b);
    assert_eq!(shows(&a, "t", "title"), text("from b"));
    assert_eq!(shows(&a, "t", "views"), Some(Shown::Counter(5)));
    assert_same(&[&a, &b]);
    assert_eq!(a.pending_count().unwrap(), 0);
}

#[test]
fn devices_and_hub_converge_and_nothing_stays_pending() {
    let (mut a, mut b, mut h) = (device(1), device(2), hub(9));
    put(&mut a, 1000, "t", "title", "before they met");
    sync(&mut a, &mut h);
    sync(&mut b, &mut h);
    assert_eq!(shows(&b, "t", "title"), text("before they met"));
    for n in 0..50 {
        put(&mut a, 2000 + n, &format!("a{n}"), "title", "x");
        put(&mut b, 2000 + n, &format!("b{n}"), "title", "y");
        inc(&mut a, 2000 + n, "t", 1);
        inc(&mut b, 2000 + n, "t", 1);
    }
    assert_eq!(a.pending_count().unwrap(), 100);
    sync(&mut a, &mut h);
    sync(&mut b, &mut h);
    sync(&mut a, &mut h);
    assert_eq!((a.pending_count().unwrap(), b.pending_count().unwrap()), (0, 0));
    assert_eq!(shows(&a, "t", "views"), Some(Shown::Counter(100)));
    assert_same(&[&a, &b, &h]);
    let head = a.head().unwrap().digest;
    assert_eq!(head.shown, head.confirmed);
}

#[test]
fn nothing_to_sync_costs_less_than_64_bytes_after_the_handshake() {
    let (mut a, mut b, mut h) = (device(1), device(2), hub(9));
    for n in 0..2000 {
        put(&mut a, 1000 + n, &format!("t{n}"), "title", "x");
    }
    sync(&mut a, &mut h);
    sync(&mut a, &mut h);
    sync(&mut a.copy_as_peer(5), &mut b);
    let mut peer = a.copy_as_peer(6);
    sync(&mut peer, &mut b);
    for (one, two) in [(&mut a, &mut h), (&mut peer, &mut b)] {
        let (mut s, mut t) = (client(Want::Once), server());
        let now = Millis(100_000);
        let mut one = End { replica: one, session: &mut s, now };
        let mut two = End { replica: two, session: &mut t, now };
        run(&mut one, &mut two, 2).unwrap();
        let mut bytes = 0;
        for _ in 0..10 {
            while let Some(frame) = one.session.poll_transmit(one.replica, now).unwrap() {
                bytes += frame.len();
                let _ = two.session.handle(two.replica, &frame, now);
            }
            while let Some(frame) = two.session.poll_transmit(two.replica, now).unwrap() {
                bytes += frame.len();
                one.session.handle(one.replica, &frame, now).unwrap();
            }
        }
        assert!(one.session.is_closed() && bytes < 64, "{bytes} bytes");
    }
}

#[test]
fn a_session_cut_at_any_frame_resumes_and_loses_nothing() {
    for cut in 0..40 {
        let (mut a, mut b, mut h) = (device(1), device(2), hub(9));
        for n in 0..30 {
            put(&mut a, 1000 + n, &format!("t{n}"), "title", format!("a{n}"));
            put(&mut b, 1500 + n, &format!("t{n}"), "note", format!("b{n}"));
        }
        for device in [&mut a, &mut b] {
            let (mut s, mut t) = (client(Want::Once), server());
            let now = Millis(100_000);
            let mut one = End { replica: device, session: &mut s, now };
            run(&mut one, &mut End { replica: &mut h, session: &mut t, now }, cut).unwrap();
        }
        for _ in 0..2 {
            sync(&mut a, &mut h);
            sync(&mut b, &mut h);
        }
        assert_same(&[&a, &b, &h]);
        assert_eq!(shows(&a, "t7", "note"), text("b7"), "cut after {cut}");
        assert_eq!(shows(&b, "t29", "title"), text("a29"), "cut after {cut}");
        assert_eq!((a.pending_count().unwrap(), b.pending_count().unwrap()), (0, 0));
    }
}

#[test]
fn live_edits_flow_both_ways_and_the_checkpoint_verifies() {
    let (mut a, mut b, mut h) = (device(1), device(2), hub(9));
    put(&mut a, 1000, "t", "title", "one");
    let now = Millis(5000);
    let (mut s, mut t) = (client(Want::Live), server());
    let (mut u, mut v) = (client(Want::Live), server());
    let mut pump = |a: &mut Device, b: &mut Device, h: &mut Device| {
        for _ in 0..4 {
            let mut hub = End { replica: h, session: &mut t, now };
            run(&mut End { replica: a, session: &mut s, now }, &mut hub, usize::MAX).unwrap();
            let mut hub = End { replica: h, session: &mut v, now };
            run(&mut End { replica: b, session: &mut u, now }, &mut hub, usize::MAX).unwrap();
        }
        t.handle_quiet();
        v.handle_quiet();
        (
            s.is_synced(a.head().unwrap().seq) && u.is_synced(b.head().unwrap().seq),
            u.poll_events().collect::<Vec<_>>(),
        )
    };
    pump(&mut a, &mut b, &mut h);
    put(&mut a, 2000, "t", "title", "two");
    put(&mut b, 2500, "u", "title", "mine");
    pump(&mut a, &mut b, &mut h);
    let (synced, events) = pump(&mut a, &mut b, &mut h);
    assert_eq!(shows(&b, "t", "title"), text("two"));
    assert_eq!(shows(&a, "u", "title"), text("mine"));
    assert!(synced && events.iter().any(|e| matches!(e, SessionEvent::Verified { .. })), "{events:?}");
    assert_same(&[&a, &b, &h]);
}

#[test]
fn a_hub_restored_from_an_old_backup_regains_everything() {
    let (mut a, mut b, mut h) = (device(1), device(2), hub(9));
    put(&mut a, 1000, "old", "title", "x");
    sync(&mut a, &mut h);
    sync(&mut b, &mut h);
    let backup = h.store().copy();
    for n in 0..20 {
        put(&mut a, 2000 + n, &format!("a{n}"), "title", "acknowledged");
        inc(&mut b, 2000 + n, "old", 1);
    }
    sync(&mut a, &mut h);
    sync(&mut b, &mut h);
    put(&mut a, 3000, "unsent", "title", "of a");
    put(&mut b, 3000, "unsent", "note", "of b");
    drop(h);
    let mut h = open(backup, 99, Admission::Refuse { drift_ms_max: 60_000 });
    assert_eq!(h.identity().store, StoreId(9), "an authority keeps its store id");
    for n in 0..100 {
        put(&mut h, 4000 + n, &format!("h{n}"), "title", "past the old cursors");
    }
    for _ in 0..2 {
        sync(&mut a, &mut h);
        sync(&mut b, &mut h);
    }
    assert_same(&[&a, &b, &h]);
    for device in [&a, &b, &h] {
        assert_eq!(shows(device, "a19", "title"), text("acknowledged"));
        assert_eq!(shows(device, "unsent", "title"), text("of a"));
        assert_eq!(shows(device, "unsent", "note"), text("of b"));
        assert_eq!(shows(device, "h99", "title"), text("past the old cursors"));
        assert_eq!(shows(device, "old", "views"), Some(Shown::Counter(20)));
    }
    assert_eq!((a.pending_count().unwrap(), b.pending_count().unwrap()), (0, 0));
}

#[test]
fn a_hub_restored_after_a_sync_that_was_cut_anywhere_regains_everything() {
    for case in 0..160 {
        let (met_before, goes_on, cut) = (case % 2 == 1, case % 4 > 1, case / 4);
        let (mut a, mut h) = (device(1), hub(9));
        put(&mut h, 900, "h", "title", "of the hub");
        put(&mut a, 1000, "t", "title", "before they met");
        if met_before {
            sync(&mut a, &mut h);
        }
        let backup = h.store().copy();
        put(&mut a, 2000, "u", "title", "later");
        let (mut client, mut served) = (client(Want::Once), server());
        let now = Millis(100_000);
        let ends = (
            &mut End { replica: &mut a, session: &mut client, now },
            &mut End { replica: &mut h, session: &mut served, now },
        );
        run(ends.0, ends.1, cut).unwrap();
        let mut h = open(backup, 99, Admission::Refuse { drift_ms_max: 60_000 });
        for n in 0..if goes_on { 20 } else { 0 } {
            put(&mut h, 3000 + n, &format!("h{n}"), "title", "past what it had accepted");
        }
        for _ in 0..3 {
            sync(&mut a, &mut h);
        }
        assert_eq!(shows(&h, "t", "title"), text("before they met"), "case {case}");
        assert_eq!(shows(&h, "u", "title"), text("later"), "case {case}");
        assert_same(&[&a, &h]);
    }
}

#[test]
fn a_copied_store_takes_a_new_id_and_no_edit_of_either_is_lost() {
    let (mut a, mut h) = (device(1), hub(9));
    put(&mut a, 1000, "t", "title", "shared");
    sync(&mut a, &mut h);
    inc(&mut a, 1500, "t", 5);
    let mut copy = open(a.store().copy(), 55, Admission::Off);
    let mut a = open(a.into_store(), 66, Admission::Off);
    assert_eq!(copy.id(), a.id());
    put(&mut a, 2000, "t", "title", "original");
    put(&mut copy, 1900, "t", "note", "copy, stamped earlier");
    inc(&mut a, 2001, "t", 10);
    inc(&mut copy, 2001, "t", 100);
    sync(&mut a, &mut h);
    let refused = sync_at(&mut copy, &mut h, 100_000);
    assert_eq!(refused, Err(SessionError::Copied));
    assert_ne!(copy.id(), a.id());
    assert!(copy.poll_events().iter().any(|e| matches!(e, crate::replica::Event::Copied { .. })));
    sync(&mut copy, &mut h);
    sync(&mut a, &mut h);
    assert_same(&[&a, &copy, &h]);
    assert_eq!(shows(&h, "t", "title"), text("original"));
    assert_eq!(shows(&h, "t", "note"), text("copy, stamped earlier"));
    assert_eq!(shows(&h, "t", "views"), Some(Shown::Counter(115)));
}

#[test]
fn a_copied_store_between_peers_takes_a_new_id_and_its_values_count() {
    let (mut a, mut b) = (device(1), device(2));
    put(&mut a, 1000, "t", "title", "shared");
    sync(&mut a, &mut b);
    let mut copy = open(a.store().copy(), 55, Admission::Off);
    let mut a = open(a.into_store(), 66, Admission::Off);
    put(&mut copy, 1900, "u", "title", "by the copy");
    put(&mut a, 2000, "v", "title", "by the original");
    put(&mut a, 2001, "u", "note", "by the original");
    sync(&mut a, &mut b);
    assert_eq!(sync_at(&mut copy, &mut b, 100_000), Err(SessionError::Copied));
    sync(&mut copy, &mut b);
    sync(&mut a, &mut b);
    assert_same(&[&a, &b, &copy]);
    for device in [&a, &b, &copy] {
        assert_eq!(shows(device, "u", "title"), text("by the copy"));
        assert_eq!(shows(device, "u", "note"), text("by the original"));
        assert_eq!(shows(device, "v", "title"), text("by the original"));
    }
}

#[test]
fn a_restored_peer_is_found_out_by_a_store_that_has_started_over_since() {
    let (mut a, mut b, mut d, mut e) = (device(1), device(2), device(3), device(4));
    put(&mut d, 900, "shared", "title", "before the copy");
    let mut copy = open(d.store().copy(), 55, Admission::Off);
    put(&mut copy, 950, "c", "title", "of the copy");
    sync(&mut copy, &mut e);
    put(&mut a, 1000, "old", "title", "in the backup");
    put(&mut b, 1100, "new", "title", "of b");
    let backup = a.store().copy();
    sync(&mut a, &mut b);
    sync(&mut a, &mut d);
    drop(a);
    let mut a = open(backup, 66, Admission::Off);
    // What d has of a is marked as coming from a, and its cursor into a is gone.
    assert_eq!(sync_at(&mut d, &mut e, 100_000), Err(SessionError::Copied));
    assert_eq!(shows(&d, "new", "title"), text("of b"));
    let (mut s, mut t) = (client(Want::Once), server());
    // The two must not take the same new ids.
    t.options.seeds = seeds(888);
    let now = Millis(100_000);
    let mut one = End { replica: &mut d, session: &mut s, now };
    let found = run(&mut one, &mut End { replica: &mut a, session: &mut t, now }, usize::MAX);
    assert_eq!(found, Err(SessionError::Copied));
    assert_eq!(a.id(), ReplicaId::from_u128(888));
    sync(&mut d, &mut a);
    assert_eq!(shows(&a, "new", "title"), text("of b"));
    assert_same(&[&a, &d]);
}

#[test]
fn a_restored_peer_is_found_out_though_the_first_connection_broke() {
    for frames in 0..6 {
        let (mut a, mut d) = (device(1), device(3));
        put(&mut a, 1000, "old", "title", "in the backup");
        let backup = a.store().copy();
        put(&mut a, 1100, "new", "title", "lost by a");
        sync(&mut a, &mut d);
        d.forget_cursor(a.identity().store).unwrap();
        let mut a = open(backup, 66, Admission::Off);
        let (mut s, mut t) = (client(Want::Once), server());
        let now = Millis(100_000);
        let mut one = End { replica: &mut d, session: &mut s, now };
        let _ = run(&mut one, &mut End { replica: &mut a, session: &mut t, now }, frames);
        for _ in 0..2 {
            let _ = sync_at(&mut d, &mut a, 100_000);
        }
        assert_eq!(shows(&a, "new", "title"), text("lost by a"), "cut after {frames}");
        assert_same(&[&a, &d]);
    }
}

#[test]
fn a_peer_that_was_opened_more_often_than_a_greeting_tells_is_no_stranger() {
    let (mut a, mut d) = (device(1), device(3));
    put(&mut a, 1000, "t", "title", "first");
    sync(&mut d, &mut a);
    let id = a.identity().store;
    for n in 0..40 {
        a = open(a.into_store(), 100 + n, Admission::Off);
        put(&mut a, 2000 + i64::try_from(n).unwrap(), "t", "title", format!("opening {n}"));
    }
    sync(&mut d, &mut a);
    assert_eq!(a.identity().store, id);
    assert_eq!(shows(&d, "t", "title"), text("opening 39"));
    assert_same(&[&a, &d]);
}

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
fn a_restored_backup_is_found_by_a_peer_that_was_restored_itself() {
    let (mut a, mut b, mut c) = (device(1), device(2), device(3));
    let b_backup = b.store().copy();
    put(&mut b, 1000, "t", "title", "from b");
    sync(&mut b, &mut a);
    let a_backup = a.store().copy();
    put(&mut a, 2000, "u", "title", "from a");
    sync(&mut c, &mut a);
    let admission = Admission::Quarantine { drift_ms_max: 60_000 };
    (a, b) = (open(a_backup, 11, admission), open(b_backup, 2, admission));
    assert_eq!(sync_at(&mut c, &mut a, 3000).unwrap_err(), SessionError::Copied);
    sync(&mut c, &mut a);
    // What a was told by b it still knows under its new id.
    let mut ends = (client(Want::Once), server());
    ends.0.options.seeds = seeds(778);
    let now = Millis(4000);
    let mut one = End { replica: &mut b, session: &mut ends.0, now };
    let copied = run(&mut one, &mut End { replica: &mut a, session: &mut ends.1, now }, usize::MAX);
    assert_eq!(copied, Err(SessionError::Copied));
    let events = sync_at(&mut b, &mut a, 5000).unwrap();
    assert!(!events.iter().any(|event| matches!(event, SessionEvent::Diverged { .. })), "{events:?}");
    assert_eq!(shows(&b, "t", "title"), text("from b"));
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

impl Device {
    /// The same content in a store of its own that has met no authority.
    fn copy_as_peer(&self, n: u64) -> Self {
        let mut fresh = device(n);
        let mut rows = Vec::new();
        self.store()
            .changes(0, &mut |row| {
                rows.push((row.kind.to_owned(), row.id.to_owned(), row.bytes.to_vec(), row.seq));
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        for (kind, id, bytes, seq) in &rows {
            let entries = crate::row::Row::new(bytes, *seq).unwrap().entries();
            let changes = entries.map(|entry| {
                let entry = entry.unwrap();
                let register = entry.shown().unwrap();
                (Arc::from(entry.address), crate::row::Change::Join { register, source: None })
            });
            let incoming = crate::replica::Incoming {
                kind: Arc::from(kind.as_str()),
                id: Arc::from(id.as_str()),
                changes: changes.collect(),
            };
            fresh.join(Millis(0), &[incoming], None, crate::replica::Trust::Authority, None).unwrap();
        }
        fresh
    }
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

/// What a hostile reading of the protocol found.
mod findings {
    use super::*;
    use crate::address;
    use crate::edit::EditError;
    use crate::register::{Alive, Candidate, Register};
    use crate::wire::{About, Hello};

    const YEAR: i64 = 31_536_000_000;

    fn multi_schema() -> Arc<Schema> {
        Arc::new(Schema::builder().kind("task", |k| k.open().multi("m").counter("views")).build().unwrap())
    }

    fn open_multi(store: MemoryStore, n: u64) -> Device {
        let options = OpenOptions { seeds: seeds(n), slot: 0, admission: Admission::Off, rank: 0 };
        Replica::open(store, multi_schema(), options).unwrap()
    }

    /// F1. Two live edits in two pushes, both wanted again: the second rebuild forgets the first edit.
    #[test]
    fn f1_increments_survive_again_in_separate_pushes() {
        let (mut a, mut h) = (device(1), hub(9));
        put(&mut a, 1000, "t", "title", "on time");
        sync(&mut a, &mut h);
        let (mut s, mut t) = (client(Want::Live), server());
        let now = Millis(100_000);
        run(
            &mut End { replica: &mut a, session: &mut s, now },
            &mut End { replica: &mut h, session: &mut t, now },
            usize::MAX,
        )
        .unwrap();
        let fast = Millis(YEAR);
        inc(&mut a, YEAR, "t", 5);
        let first = s.poll_transmit(&mut a, fast).unwrap().unwrap();
        inc(&mut a, YEAR + 1, "t", 10);
        let second = s.poll_transmit(&mut a, fast).unwrap().unwrap();
        t.handle(&mut h, &first, now).unwrap();
        t.handle(&mut h, &second, now).unwrap();
        run(
            &mut End { replica: &mut a, session: &mut s, now: fast },
            &mut End { replica: &mut h, session: &mut t, now },
            1000,
        )
        .unwrap();
        assert_eq!(a.pending_count().unwrap(), 0);
        assert_eq!(shows(&h, "t", "views"), Some(Shown::Counter(15)));
        assert_eq!(shows(&a, "t", "views"), Some(Shown::Counter(15)));
    }

    /// F2. A device whose clock was a year ahead before it met its hub pushes and is refused for ever.
    #[test]
    fn f2_a_device_that_was_fast_before_it_met_its_hub_comes_to_rest() {
        let (mut a, mut h) = (device(1), hub(9));
        put(&mut a, YEAR, "t", "title", "before");
        sync_at(&mut a, &mut h, 100_000).unwrap();
        put(&mut a, YEAR + 5000, "u", "title", "after");
        let (mut s, mut t) = (client(Want::Once), server());
        let mut one = End { replica: &mut a, session: &mut s, now: Millis(YEAR + 6000) };
        let mut two = End { replica: &mut h, session: &mut t, now: Millis(100_000) };
        let frames = run(&mut one, &mut two, 2000).unwrap();
        assert!(frames < 2000, "still going after {frames} frames");
        assert_eq!(a.pending_count().unwrap(), 0);
    }

    /// F3. The same livelock because the hub once wrote with a clock far ahead.
    #[test]
    fn f3_a_fast_device_comes_to_rest_though_the_hub_holds_a_value_of_2100() {
        let (mut a, mut h) = (device(1), hub(9));
        put(&mut h, 4_100_000_000_000, "old", "title", "the hub's clock was wrong");
        put(&mut a, 1000, "t", "title", "on time");
        sync_at(&mut a, &mut h, 100_000).unwrap();
        put(&mut a, YEAR, "u", "title", "fast");
        let (mut s, mut t) = (client(Want::Once), server());
        let mut one = End { replica: &mut a, session: &mut s, now: Millis(YEAR + 6000) };
        let mut two = End { replica: &mut h, session: &mut t, now: Millis(100_000) };
        let frames = run(&mut one, &mut two, 2000).unwrap();
        assert!(frames < 2000, "still going after {frames} frames");
        assert_eq!(a.pending_count().unwrap(), 0);
    }

    /// F4. An edit whose ids alone are longer than a frame blocks the outbox for ever.
    #[test]
    fn f4_any_edit_that_is_taken_fits_a_frame() {
        let (mut a, mut h) = (device(1), hub(9));
        sync(&mut a, &mut h);
        let ops: Vec<Op> = (0..32_768)
            .map(|n| Op::new("task", format!("{n:01024}"), Action::Put(vec![("x".into(), Value::from(1))])))
            .collect();
        match a.edit(Millis(2000), &ops) {
            Err(EditError::TooLarge { .. }) => {}
            other => {
                other.unwrap();
                sync(&mut a, &mut h);
            }
        }
    }

    /// F5. Several large candidates of one register fit no frame: that is said, with the way out.
    #[test]
    fn f5_a_register_that_fits_no_frame_is_named_and_one_more_write_settles_it() {
        let mut b = open_multi(MemoryStore::new(), 50);
        let write = |on: &mut Device, len: usize| {
            let action = Action::Put(vec![("m".into(), Value::Bytes(vec![1; len]))]);
            on.edit(Millis(1000), &[Op::new("task", "t", action)]).unwrap();
        };
        for n in 1..=9 {
            let mut a = open_multi(MemoryStore::new(), n);
            write(&mut a, (4 << 20) - 100);
            sync_at(&mut a, &mut b, 2000).unwrap_or_default();
        }
        let mut c = open_multi(MemoryStore::new(), 60);
        let refused = sync_at(&mut c, &mut b, 2000).unwrap_err();
        assert!(refused.to_string().contains("write the field once more"), "{refused}");
        write(&mut b, 10);
        sync_at(&mut c, &mut b, 2000).unwrap();
        assert_same(&[&b, &c]);
    }

    /// F6. Section 3: high-water covers joined stamps up to the *authority's* clock; else a slow clock raises the
    /// generation with each edit and then beats everybody.
    #[test]
    fn f6_a_slow_clock_follows_its_authority_and_raises_no_generation() {
        let (mut a, mut h) = (device(1), hub(9));
        put(&mut h, YEAR, "t", "title", "hub");
        let (mut s, mut t) = (client(Want::Once), server());
        let mut one = End { replica: &mut a, session: &mut s, now: Millis(1000) };
        let mut two = End { replica: &mut h, session: &mut t, now: Millis(YEAR) };
        run(&mut one, &mut two, 1000).unwrap();
        let action = Action::Put(vec![("title".to_owned(), Value::from("slow"))]);
        let edited = a.edit(Millis(2000), &[Op::new("task", "t", action)]).unwrap();
        let crate::replica::Edited::Committed { stamp, .. } = edited else { panic!("{edited:?}") };
        assert_eq!(stamp.generation, 0);
    }

    fn hello(store: u64, replica: u128, head: u64) -> Vec<u8> {
        let about = About::new(
            StoreId(store),
            [ReplicaId::from_u128(replica)].into_iter(),
            &[(Incarnation(7), 1)],
            head,
            schema().fingerprint(),
            1000,
        );
        let (version_min, version_max) = (1, 1);
        Frame::Hello(Hello { version_min, version_max, capabilities: 0, about, token: None, offers: true })
            .encode()
    }

    fn candidate(replica: u128, rank: u8, value: &[u8]) -> Candidate<'_> {
        let replica = ReplicaId::from_u128(replica);
        let stamp = crate::clock::Stamp { generation: 0, time: crate::clock::ticks(50_000), replica };
        Candidate { stamp, rank, saw: None, value }
    }

    /// F8. A pushed edit may overwrite another replica's share of a counter.
    #[test]
    fn f8_nobody_writes_anothers_share_of_a_counter() {
        let (mut a, mut h) = (device(1), hub(9));
        inc(&mut a, 1000, "t", 5);
        sync(&mut a, &mut h);
        let now = Millis(100_000);
        let mut t = server();
        t.handle(&mut h, &hello(66, 66, 1), now).unwrap();
        let victim = address::count("views", ReplicaId::from_u128(1));
        let register = Register::plain(candidate(66, 0, &[0x00]));
        let mut encoder = RowEncoder::default();
        encoder.start_edit(1, 1);
        encoder.entity("task", "t", [(victim.as_slice(), &register)].into_iter());
        t.handle(&mut h, &encoder.finish_push(0, 1, None), now).unwrap();
        assert_eq!(shows(&h, "t", "views"), Some(Shown::Counter(5)));
    }

    /// F9. A head of u64::MAX in HELLO, then a new incarnation: arithmetic overflow (panics in debug builds).
    #[test]
    fn f9_a_head_at_the_end_of_numbers_does_not_panic() {
        let mut h = hub(9);
        let now = Millis(100_000);
        let mut t = server();
        assert!(t.handle(&mut h, &hello(66, 66, u64::MAX), now).is_err());
        let mut t = server();
        t.handle(&mut h, &hello(66, 66, i64::MAX as u64), now).unwrap();
        let mut encoder = RowEncoder::default();
        let _ = t.handle(&mut h, &encoder.finish_push(0, u64::MAX, Some(Incarnation(8))), now);
    }

    /// F10. A device that never says what it heard makes the authority remember every refused entity.
    #[test]
    fn f10_unheard_answers_are_bounded() {
        let mut h = hub(9);
        let now = Millis(100_000);
        let mut t = server();
        t.handle(&mut h, &hello(66, 66, 1), now).unwrap();
        let mut encoder = RowEncoder::default();
        let refused = (0..100).any(|n| {
            let register = Register::plain(candidate(77, 0, &[0x00]));
            encoder.start_edit(n + 1, 1);
            encoder.entity("task", &format!("e{n}"), [(&*address::field("x"), &register)].into_iter());
            t.handle(&mut h, &encoder.finish_push(0, 1, None), now).is_err()
        });
        assert!(refused, "100 pushes, none of whose answers was heard");
    }

    /// F11. Checking a register of many candidates takes quadratic time.
    #[test]
    fn f11_a_register_of_many_candidates_is_checked_in_time() {
        let alive = |n: u64| -> Register<'static> {
            let stamp = |time| crate::clock::Stamp {
                generation: 0,
                time,
                replica: ReplicaId::from_u128(u128::from(time)),
            };
            let alive: Vec<_> = (1..=n)
                .map(|at| Candidate { stamp: stamp(at), rank: 0, saw: None, value: &[0][..] })
                .collect();
            Register { floor: crate::clock::Stamp::LOWEST, alive: Alive::from(alive), seen: Vec::new() }
        };
        // Quadratic, this would take minutes.
        let register = alive(200_000);
        register.check().unwrap();
        assert_eq!(register.join(&register).alive.len(), 200_000);
    }
}
