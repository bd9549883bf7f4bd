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
        (s.is_synced(a.head().unwrap().seq) && u.is_synced(b.head().unwrap().seq), u.poll_events().collect::<Vec<_>>())
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
