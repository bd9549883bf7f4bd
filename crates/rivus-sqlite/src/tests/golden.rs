//! What a file holds, as SQL: tables, indexes and one row or more of each. `tests/golden/store.sql` is of format 1 and
//! `tests/golden/store-2.sql` of format 2. They are for ever: such files are in use.

use std::fmt::Write;
use std::sync::Arc;

use rivus_core::address::field;
use rivus_core::clock::{Admission, Millis, Stamp, ticks};
use rivus_core::edit::{Action, Op};
use rivus_core::id::{ReplicaId, StoreId};
use rivus_core::identity::{Cursor, Peer, Position, Seeds};
use rivus_core::register::{Candidate, Register};
use rivus_core::replica::{Incoming, OpenOptions, Replica, Trust};
use rivus_core::row::Change;
use rivus_core::schema::Schema;
use rivus_core::value::Value;

use super::*;

const HUB: StoreId = StoreId(9);
const CURSOR: Cursor = Cursor { incarnation: Incarnation(7), done: 299, at: 300 };

fn golden(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/golden", name].iter().collect();
    fs::read_to_string(path).unwrap()
}

/// What a file holds, as the statements that make another one that holds it. Lines that begin with `--` are left out.
fn dump(conn: &Connection) -> String {
    let mut out = String::new();
    for pragma in ["application_id", "user_version"] {
        let number: i64 = conn.pragma_query_value(None, pragma, |row| row.get(0)).unwrap();
        writeln!(out, "PRAGMA {pragma} = {number};").unwrap();
    }
    let lines = |sql: &str| -> Vec<String> {
        let mut statement = conn.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    for sql in lines("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type DESC, name") {
        writeln!(out, "{};", sql.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap();
    }
    for table in lines("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name") {
        let columns = lines(&format!("SELECT 'quote(' || name || ')' FROM pragma_table_info('{table}')"));
        let all = columns.join(" || ', ' || ");
        for row in lines(&format!("SELECT {all} FROM {table} ORDER BY 1")) {
            writeln!(out, "INSERT INTO {table} VALUES ({row});").unwrap();
        }
    }
    out
}

fn open_replica(store: SqliteStore) -> Replica<SqliteStore> {
    let schema = Schema::builder()
        .kind("task", |k| k.value("title").multi("notes").set("tags").counter("views"))
        .build()
        .unwrap();
    let seeds =
        Seeds { store: StoreId(1), replica: ReplicaId::from_u128(1), incarnation: Incarnation(u64::MAX) };
    let admission = Admission::Quarantine { drift_ms_max: 60_000 };
    Replica::open(store, Arc::new(schema), OpenOptions { seeds, slot: 0, admission, rank: 0 }).unwrap()
}

fn put(title: impl Into<Value>) -> Op {
    Op::new("task", "t", Action::Put(vec![("title".to_owned(), title.into())]))
}

/// Something of each table, and of each kind of record: confirmed and pending edits, an entity of several rows,
/// another store's register and one from the future, and what is remembered of others.
fn lived_in(store: SqliteStore) -> Replica<SqliteStore> {
    let mut replica = open_replica(store);
    let mut edit = |ops: &[Op]| replica.edit(Millis(1000), ops).map(drop).unwrap();
    edit(&[put("old")]);
    let add = |n| Action::Add { field: "tags".to_owned(), key: format!("tag {n}") };
    edit(&(0..70).map(|n| Op::new("task", "large", add(n))).collect::<Vec<_>>());
    for time in [2000, 5_000_000] {
        let stamp = Stamp { generation: 0, time: ticks(time), replica: ReplicaId::from_u128(2) };
        let register = Register::plain(Candidate { stamp, rank: 0, saw: None, value: b"\x66theirs" });
        let change = Change::Join { register, source: Some(StoreId(2)) };
        let changes = vec![(Arc::from(field("title")), change)];
        let incoming = Incoming { kind: Arc::from("task"), id: Arc::from("u"), changes };
        replica.join(Millis(1000), &[incoming], Some(StoreId(2)), Trust::Peer, Some(CURSOR)).unwrap();
    }
    let position = Position { incarnation: Incarnation(7), seq: 300 };
    let peer = Peer { position, history: vec![(Incarnation(7), 1)], read: CURSOR };
    replica.remember(StoreId(2), &peer).unwrap();
    replica.meet_authority(HUB, 3).unwrap();
    replica.edit(Millis(3000), &[put("new")]).unwrap();
    replica
        .edit(Millis(3000), &[Op::new("task", "t", Action::Inc { field: "views".to_owned(), by: 2 })])
        .unwrap();
    replica
}

#[test]
fn a_file_has_the_content_of_format_2() {
    let folder = folder();
    let path = folder.path().join("new.rivus");
    drop(lived_in(open(&path)));
    let found = dump(&Connection::open(&path).unwrap());
    let kept = golden("store-2.sql");
    let kept: Vec<_> = kept.lines().filter(|line| !line.starts_with("--")).collect();
    assert!(found.lines().eq(kept), "the file holds something else:\n{found}");
}

#[test]
fn a_file_of_each_format_is_read_and_written() {
    for name in ["store.sql", "store-2.sql"] {
        is_read_and_written(&golden(name));
    }
}

fn is_read_and_written(kept: &str) {
    let folder = folder();
    let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
    let conn = Connection::open(&old).unwrap();
    conn.execute_batch(kept).unwrap();
    drop(conn);
    let (mut old, new) = (open_replica(open(&old)), lived_in(open(&new)));
    assert_eq!((old.identity(), old.head()), (new.identity(), new.head()));
    assert_eq!(old.recompute_digest().unwrap(), old.head().unwrap().digest);
    for id in ["t", "u", "large"] {
        let view = old.view("task", id).unwrap();
        assert!(view.is_some() && view == new.view("task", id).unwrap(), "{id}: {view:?}");
    }
    assert_eq!((old.pending_count(), old.quarantined()), (Ok(2), Ok(1)));
    assert_eq!((old.cursor(StoreId(2)), old.peers()), (Ok(Some(CURSOR)), new.peers()));
    old.edit(Millis(4000), &[put("newest")]).unwrap();
    assert_eq!(old.release(Millis(5_000_000)).unwrap(), 1);
    assert_eq!(old.pending_count(), Ok(3));
}
