//! Finding and mending what is kept beside the rows.

use super::verdicts::{assert_equal, hub};
use super::*;
use crate::row::Sums;
use crate::schema::KindBuilder;
use crate::session::pair::{End, run};
use crate::session::{Grants, Role, Session, SessionEvent, SessionOptions, Want};
use crate::store::{RowRead, RowWrite};

fn ruled() -> Arc<Schema> {
    let fields = |k: KindBuilder| k.value("user").value("start").value("stop");
    let kind = |k| fields(k).at_most_one("one running", ["user"], "stop", "start");
    Arc::new(Schema::builder().kind("task", kind).build().unwrap())
}

fn open(n: u64) -> Device {
    let options = OpenOptions { seeds: seeds(n), slot: 0, admission: Admission::Off, rank: 0 };
    Replica::open(MemoryStore::new(), ruled(), options).unwrap()
}

fn entry(device: &mut Device, now: i64, id: &str) {
    let fields = vec![("user".to_owned(), "u".into()), ("start".to_owned(), now.into())];
    device.edit(Millis(now), &[Op::new("task", id, Action::Put(fields))]).unwrap();
}

fn records(device: &Device, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        all.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    device.store().records(table, &[], visit).unwrap();
    all
}

fn sync(device: &mut Device, hub: &mut Device) -> Vec<SessionEvent> {
    let seeds = seeds(777);
    let session =
        |role, want| Session::new(SessionOptions { role, want, offers: true, seeds, capabilities: 0 });
    let mut client = session(Role::Client { token: None }, Want::Once);
    let mut server = session(Role::server(Grants::everybody()), Want::Live);
    let now = Millis(100_000);
    let mut one = End { replica: device, session: &mut client, now };
    run(&mut one, &mut End { replica: hub, session: &mut server, now }, usize::MAX).unwrap();
    assert!(client.is_closed());
    client.poll_events().collect()
}

#[test]
fn a_sound_store_is_found_sound_and_repairing_it_changes_nothing() {
    let mut device = open(1);
    for n in 0..50 {
        entry(&mut device, 1000 + n, &format!("t{n}"));
    }
    let before = device.head().unwrap();
    let found = device.verify().unwrap();
    assert!(found.is_sound() && found.kept.count > 100, "{found:?}");
    assert!(device.repair().unwrap().is_sound());
    assert_eq!(device.head().unwrap(), before);
    assert!(device.verify().unwrap().is_sound());
}

#[test]
fn a_wrong_digest_and_a_wrong_index_are_found_and_made_anew() {
    let mut device = open(1);
    for n in 0..50 {
        entry(&mut device, 1000 + n, &format!("t{n}"));
    }
    let (digest, index) = (device.head().unwrap().digest, records(&device, Table::Rule));
    let (key, _) = index[index.len() / 2].clone();
    let damage = [
        RecordWrite::remove(Table::Rule, key),
        RecordWrite::put(Table::Rule, b"\0\0c of nobody", Vec::new()),
    ];
    let sums = Sums { shown: 5, confirmed: 7, count: -3 };
    let batch = Batch { sums, records: damage.to_vec().into(), ..Batch::default() };
    device.store_mut().commit(batch).unwrap();
    let found = device.verify().unwrap();
    assert_eq!((found.kept.count + 3, found.made, found.index), (digest.count, digest, 2));
    assert!(!found.is_sound());
    assert_eq!(device.repair().unwrap(), found, "it tells what there was to mend");
    assert!(device.verify().unwrap().is_sound());
    assert_eq!((device.head().unwrap().digest, records(&device, Table::Rule)), (digest, index));
}

#[test]
fn after_a_repair_the_next_sync_brings_back_what_the_disk_has_lost() {
    let (mut device, mut hub) = (device(1), hub());
    act(&mut device, 1000, field("title", "first"));
    sync(&mut device, &mut hub);
    let mut old = Vec::new();
    let visit = &mut |row: crate::store::Changed<'_>| {
        old = row.bytes.to_vec();
        ControlFlow::Continue(())
    };
    device.store().changes(0, visit).unwrap();
    act(&mut device, 2000, field("title", "second"));
    sync(&mut device, &mut hub);
    act(&mut device, 3000, inc("views", 5));
    // The disk gives back an older row.
    let chunk = device.store().load("task", "t", &[]).unwrap().unwrap();
    let row = RowRead { kind: "task", id: "t", start: b"".into(), seq: chunk.seq, place: chunk.place };
    drop(chunk.bytes);
    let rows = vec![RowWrite { row, bytes: old.into(), scope: "" }];
    device.store_mut().commit(Batch { rows: rows.into(), ..Batch::default() }).unwrap();
    assert!(!device.verify().unwrap().is_sound());
    device.repair().unwrap();
    assert!(device.verify().unwrap().is_sound());
    let events = sync(&mut device, &mut hub);
    assert!(!events.iter().any(|event| matches!(event, SessionEvent::Diverged { .. })), "{events:?}");
    assert_equal(&device, &hub);
    assert_eq!(shows(&hub, "title"), value("second"));
    assert_eq!(shows(&hub, "views"), Some(Shown::Counter(5)), "what was pending arrived");
}
