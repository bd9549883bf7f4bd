use std::sync::Arc;

use super::pair::{End, run};
use super::*;
use crate::clock::Admission;
use crate::edit::{Action, Op};
use crate::id::ReplicaId;
use crate::identity::Seeds;
use crate::replica::{OpenOptions, Proposed, Refusal, Watching};
use crate::schema::{Life, Margin, Resolver, Schema};
use crate::store::MemoryStore;
use crate::value::Value;
use crate::view::Shown;

mod accounts;
mod collection;
mod conflicts;
mod copies;
mod cuts;
mod during;
mod engine;
mod evict;
mod findings;
mod grants;
mod hostile;
mod leases;
mod refusals;
mod repair;
mod returned;
mod review;
mod rings;
mod scopes;
mod trimming;
mod window;

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
    // Of the same name as those without a token.
    let grants = Grants::everybody().grant_as("", "boss", 9);
    options(Role::server(grants), Want::Live)
}

fn options(role: Role, want: Want) -> Session {
    Session::new(SessionOptions { role, want, offers: true, seeds: seeds(777), capabilities: 0 })
}

/// A gate of a hub whose application does not take these edits.
fn refusing(refuses: impl Fn(&Proposed<'_>) -> bool + Send + Sync + 'static) -> Arc<Gate> {
    let validate = move |_: &str, edit: &Proposed<'_>| match refuses(edit) {
        true => Err(Refusal::new("not that one")),
        false => Ok(()),
    };
    Arc::new(Gate::new(Grants::everybody()).validator(Arc::new(By(validate))))
}

/// A sync through a gate that is cut off after so many frames, if it is not over by then. Gives the client's session.
fn through(gate: &Arc<Gate>, one: &mut Device, hub: &mut Device, now: i64, frames: usize) -> Session {
    let server = Role::Server { gate: Arc::clone(gate) };
    let (mut s, mut t) = (client(Want::Once), options(server, Want::Live));
    let now = Millis(now);
    let mut end = End { replica: hub, session: &mut t, now };
    run(&mut End { replica: one, session: &mut s, now }, &mut end, frames).unwrap();
    s
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
