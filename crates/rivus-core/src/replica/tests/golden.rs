//! One record of each kind in its bytes, in `tests/golden/records.hex`. They are for ever: stores in use hold such
//! records.

use super::*;
use crate::bytes::Reader;
use crate::clock::Force;
use crate::code::Code;
use crate::golden::{assert_same, pieces};
use crate::identity::{Authority, Cursor, Identity, Peer, Position};
use crate::pending::{Header, Ops, Pending, PendingEntity};
use crate::register::Candidate;

const FILE: &str = "records.hex";

fn identity(authority: Option<Authority>) -> Identity {
    let [one, two, old] = [1, 2, 3].map(ReplicaId::from_u128);
    Identity {
        store: StoreId(0x0102_0304),
        replicas: vec![one, two],
        former: vec![old],
        is_authority: authority.is_none(),
        authority,
    }
}

const AUTHORITY: Authority = Authority {
    store: StoreId(9),
    met: true,
    rank: 3,
    acked: 300,
    correction_ms: -5,
    restamped: 0,
    unheard: false,
};
const STAMPED_ANEW: Authority = Authority { restamped: 300, ..AUTHORITY };
const UNHEARD: Authority = Authority { unheard: true, ..AUTHORITY };
const CURSOR: Cursor = Cursor { incarnation: Incarnation(7), done: 299, at: 300 };

fn peer() -> Peer {
    Peer {
        position: Position { incarnation: Incarnation(8), seq: 300 },
        history: vec![(Incarnation(7), 1), (Incarnation(8), 200)],
        read: CURSOR,
    }
}

/// What an edit shares, and a write of it.
fn written_by_one() -> (Header, Register<'static>) {
    let stamp = Stamp { generation: 1, time: ticks(1_700_000_000_123), replica: ReplicaId::from_u128(1) };
    let saw = Some(Saw { incarnation: Incarnation(8), done: 300 });
    let own = Candidate { stamp, rank: 9, saw, value: crate::view::TRUE };
    (Header { stamp, rank: 9, saw, force: Force::Yes }, Register::plain(own))
}

/// Every operation that there is.
fn ops() -> Vec<Op> {
    let put = Action::Put(vec![("title".into(), "x".into()), ("best".into(), Value::Null)]);
    let task =
        [put, add("tags", "red"), remove("tags", "blue"), set_key("labels", "a", 1.5), inc("views", -3)];
    let draft = [Action::Delete, Action::Revive].map(|action| Op::new("draft", "d", action));
    task.into_iter().map(|action| Op::new("task", "t", action)).chain(draft).collect()
}

/// The delta, though not of these operations: registers of each form.
fn entities(title: &[u8]) -> Vec<PendingEntity<'_>> {
    let (_, plain) = written_by_one();
    let open = Register { floor: Stamp::LOWEST, ..plain.clone() };
    vec![
        PendingEntity { kind: "draft", id: "d", registers: vec![(address::LIFE, open)] },
        PendingEntity { kind: "task", id: "t", registers: vec![(title, plain)] },
    ]
}

fn edit_of_everything() -> Vec<u8> {
    let mut kept = Ops::default();
    ops().iter().for_each(|op| kept.push(op));
    let title = address::field("title");
    let entities = entities(&title);
    let changes: Vec<Vec<(&[u8], Change<'_>)>> = entities
        .iter()
        .map(|entity| {
            entity.registers.iter().map(|(at, register)| (*at, Change::Pend(register.clone()))).collect()
        })
        .collect();
    let delta: Vec<_> =
        entities.iter().zip(&changes).map(|(e, changes)| (e.kind, e.id, &changes[..])).collect();
    kept.record(written_by_one().0, &delta)
}

/// The only record of a table: its key and its content.
fn record_of(replica: &Device, table: Table) -> (Vec<u8>, Vec<u8>) {
    let mut found = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        found.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    replica.store().records(table, &[], visit).unwrap();
    assert_eq!(found.len(), 1, "{table:?}");
    found.remove(0)
}

fn early() -> Register<'static> {
    let stamp = Stamp { generation: 0, time: ticks(5_000_000), replica: ReplicaId::from_u128(2) };
    Register::plain(Candidate { stamp, rank: 0, saw: None, value: b"\x65early" })
}

/// A replica that has joined a register of its future.
fn told_early(mut replica: Device) -> Device {
    let changes =
        vec![(Arc::from(address::field("title")), Change::Join { register: early(), source: None })];
    let incoming = Incoming { kind: Arc::from("task"), id: Arc::from("t"), changes };
    replica.join(Millis(1000), &[incoming], None, Trust::Peer, None).unwrap();
    replica
}

/// A device with an edit that its authority has yet to judge.
fn waiting() -> Device {
    let mut device = device(1);
    device.meet_authority(verdicts::HUB, 0).unwrap();
    let put = |kind: &str, id: &str| Op::new(kind, id, field("title", "x"));
    device.edit(Millis(1000), &[put("task", "t"), put("latest", "n")]).unwrap();
    device
}

/// A device with the only edit of one put: of an entity that it holds.
fn waiting_for_one_put() -> Device {
    let mut device = device(1);
    act(&mut device, 1000, field("title", "old"));
    device.meet_authority(verdicts::HUB, 0).unwrap();
    act(&mut device, 2000, field("title", "new"));
    device
}

fn rejecting() -> Device {
    let mut device = waiting_for_one_put();
    let mut edits = Vec::new();
    let visit = &mut |key: u64, edit: Pending<'_>| {
        edits.push((key, edit.header.stamp));
        ControlFlow::Continue(())
    };
    device.pending(0, visit).unwrap();
    let refused = Verdict::Refused { code: Code::RANK, message: "no".to_owned(), spot: None };
    let verdicts = Verdicts { seq: 1, exceptions: vec![(edits[0].0, refused)] };
    device.verdicts(Millis(3000), &Answer { edits, verdicts, clock: Millis(3000) }).unwrap();
    device
}

/// A device that has evicted what the hub has confirmed.
fn evicting() -> Device {
    let (mut device, mut hub) = (device(1), verdicts::hub());
    act(&mut device, 1000, field("title", "far away"));
    sync::sync(&mut device, &mut hub);
    assert_eq!(device.evict(Millis(2000), &[("task".to_owned(), "t".to_owned())]).unwrap().entities, 1);
    device
}

/// A device one of whose writes lost to one that had not seen it.
fn losing() -> Device {
    let (mut a, mut b) = (device(1), device(2));
    act(&mut a, 1000, field("title", "lost"));
    act(&mut b, 2000, field("title", "won"));
    exchange(&mut a, &mut b);
    assert_eq!(a.conflicts().unwrap().len(), 1);
    a
}

/// A device that has noted a change, with what was before.
fn noting() -> Device {
    let mut device = device(1);
    act(&mut device, 1000, field("title", "before"));
    device.keep_journal(Some(crate::journal::Keep::default())).unwrap();
    act(&mut device, 2000, field("title", "after"));
    device
}

/// Every record of a table, keys and values.
fn records_of(device: &Device, table: Table, name: &str) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        let number = all.len() / 2;
        all.push((format!("{name}_{number}_key"), key.to_vec()));
        all.push((format!("{name}_{number}"), value.to_vec()));
        ControlFlow::Continue(())
    };
    device.store().records(table, &[], visit).unwrap();
    all
}

fn written() -> Vec<(String, Vec<u8>)> {
    let identity_of = |replica: &Device| record_of(replica, Table::Identity).1;
    let aside = record_of(&told_early(device(1)), Table::Quarantine);
    let all = [
        ("identity", identity_of(&device(1))),
        ("identity_of_an_authority", identity(None).encode()),
        ("identity_under_an_authority", identity(Some(AUTHORITY)).encode()),
        ("identity_stamped_anew", identity(Some(STAMPED_ANEW)).encode()),
        ("identity_unheard", identity(Some(UNHEARD)).encode()),
        ("cursor", CURSOR.encode()),
        ("peer", peer().encode()),
        ("edit", record_of(&waiting(), Table::Outbox).1),
        ("edit_of_one_put", record_of(&waiting_for_one_put(), Table::Outbox).1),
        ("edit_of_everything", edit_of_everything()),
        ("rejected_key", record_of(&rejecting(), Table::Rejected).0),
        ("rejected", record_of(&rejecting(), Table::Rejected).1),
        ("quarantine_key", aside.0),
        ("quarantine", aside.1),
        ("newest", record_of(&told_early(trusting_hub()), Table::Newest).1),
    ];
    let later = [
        records_of(&evicting(), Table::Evicted, "evicted"),
        records_of(&losing(), Table::Conflict, "conflict"),
        records_of(&noting(), Table::Journal, "journal"),
    ];
    all.map(|(name, bytes)| (name.to_owned(), bytes)).into_iter().chain(later.concat()).collect()
}

/// A hub that takes what is of the future.
fn trusting_hub() -> Device {
    let options = OpenOptions { seeds: seeds(9), slot: 0, admission: Admission::Off, rank: 0 };
    let mut hub = Replica::open(MemoryStore::new(), schema(), options).unwrap();
    hub.become_authority().unwrap();
    hub
}

#[test]
fn records_have_the_bytes_of_version_1() {
    assert_same(FILE, &written());
}

#[test]
fn who_a_store_was_to_version_1_it_is_today() {
    let kept = pieces(FILE);
    let read = |name: &str| Identity::decode(&kept[name]).unwrap();
    assert_eq!(&read("identity"), device(1).identity());
    assert_eq!(read("identity_of_an_authority"), identity(None));
    assert_eq!(read("identity_under_an_authority"), identity(Some(AUTHORITY)));
    assert_eq!(read("identity_stamped_anew"), identity(Some(STAMPED_ANEW)));
    assert_eq!(read("identity_unheard"), identity(Some(UNHEARD)));
    assert_eq!(Cursor::decode(&kept["cursor"]), Ok(CURSOR));
    assert_eq!(Peer::decode(&kept["peer"]), Ok(peer()));
    assert_eq!(Reader::new(&kept["newest"]).instant(), Ok(early().newest().stamp.instant()));
}

#[test]
fn edits_that_version_1_left_pending_are_read() {
    let (kept, title) = (pieces(FILE), address::field("title"));
    let everything = Pending::decode(&kept["edit_of_everything"]).unwrap();
    assert_eq!((everything.header, everything.ops()), (written_by_one().0, Ok(ops())));
    assert_eq!(everything.entities, entities(&title));
    let edit = Pending::decode(&kept["edit"]).unwrap();
    let both = [("task", "t"), ("latest", "n")].map(|(kind, id)| Op::new(kind, id, field("title", "x")));
    assert_eq!(edit.ops().unwrap(), both);
    let one = Pending::decode(&kept["edit_of_one_put"]).unwrap();
    assert_eq!(one.ops().unwrap(), [Op::new("task", "t", field("title", "new"))]);
    assert_eq!(one.header.stamp.time, ticks(2000));
    let [PendingEntity { kind: "task", id: "t", registers }] = &one.entities[..] else { panic!("{one:?}") };
    let own = Candidate { stamp: one.header.stamp, rank: 0, saw: None, value: b"\x63new" };
    assert_eq!(*registers, [(&title[..], Register::plain(own))]);
}

/// A store with this record only.
fn store_with(table: Table, key: &[u8], value: &[u8]) -> Device {
    let mut store = MemoryStore::new();
    commit_records(&mut store, vec![RecordWrite::put(table, key, value.to_vec())]).unwrap();
    open_with(store, 1, schema())
}

#[test]
fn what_version_1_kept_of_a_refused_edit_is_listed() {
    let kept = pieces(FILE);
    let device = store_with(Table::Rejected, &kept["rejected_key"], &kept["rejected"]);
    assert_eq!(device.rejected(), rejecting().rejected());
    assert_eq!(device.rejected().unwrap()[0].ops, [Op::new("task", "t", field("title", "new"))]);
}

#[test]
fn what_version_1_set_aside_is_joined_when_it_is_due() {
    let kept = pieces(FILE);
    let mut device = store_with(Table::Quarantine, &kept["quarantine_key"], &kept["quarantine"]);
    assert_eq!(device.release(Millis(1_000_000)).unwrap(), 0);
    assert_eq!(device.release(Millis(5_000_000)).unwrap(), 1);
    assert_eq!(shows(&device, "title"), value("early"));
}

/// A device with the records of a table that were kept under this name.
fn opened_with(table: Table, name: &str) -> Device {
    let (kept, mut store) = (pieces(FILE), MemoryStore::new());
    let records = (0..2).map(|number| {
        let key = kept[&format!("{name}_{number}_key")].clone();
        RecordWrite::put(table, key, kept[&format!("{name}_{number}")].clone())
    });
    let records: Vec<_> = records.collect();
    store.commit(Batch { records: records.into(), ..Batch::default() }).unwrap();
    open_with(store, 1, schema())
}

#[test]
fn writes_that_version_1_listed_as_lost_are_listed() {
    let lost = opened_with(Table::Conflict, "conflict").conflicts().unwrap();
    assert_eq!(lost, losing().conflicts().unwrap());
}

#[test]
fn what_version_1_noted_is_told() {
    let entries = |device: &Device| {
        let mut entries = Vec::new();
        let visit = &mut |entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        };
        device.journal(0, visit).unwrap();
        entries
    };
    let told = entries(&opened_with(Table::Journal, "journal"));
    assert_eq!((told.len(), &told), (1, &entries(&noting())));
}
