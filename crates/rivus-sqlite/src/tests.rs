use std::fs;
use std::ops::ControlFlow;

use rivus_core::id::Incarnation;
use rivus_core::row::Sums;
use rivus_core::store::{
    Batch, CommitError, Head, HighWater, Place, RecordWrite, RowRead, RowWrite, Store, Table, conformance,
};
use tempfile::TempDir;

use super::*;

mod golden;
mod projection;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Quick where a loss of power is not the question.
const QUICK: Options = Options {
    synchronous: Synchronous::Off,
    busy_timeout: Duration::from_secs(60),
    page_count_max: None,
    log_pages: 4_000,
};

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, QUICK).unwrap()
}

fn row<'b>(id: &'b str, seq: u64, bytes: &[u8]) -> Batch<'b> {
    let row = RowRead { kind: "task", id, start: Vec::new().into(), seq, place: Place::default() };
    Batch { rows: vec![RowWrite { row, bytes: bytes.to_vec().into(), scope: "" }].into(), ..Batch::default() }
}

/// A store with one of everything.
fn furnish(store: &mut SqliteStore) {
    let batch = Batch {
        records: vec![RecordWrite::put(Table::Outbox, *b"key", b"value".to_vec())].into(),
        high_water: HighWater::AtLeast(u64::MAX - 5),
        sums: Sums { shown: u128::MAX, confirmed: 1 << 100, count: 1 },
        incarnation: Some(Incarnation(u64::MAX)),
        ..row("a", 0, b"first")
    };
    store.commit(batch).unwrap();
    store.commit(row("b", 0, &[7; 50_000])).unwrap();
}

type Content = (Head, Vec<(u64, String, Vec<u8>)>, Option<Vec<u8>>);

fn content(store: &SqliteStore) -> Content {
    let mut rows = Vec::new();
    let head = store.changes(0, &mut |row| {
        rows.push((row.seq, row.id.to_owned(), row.bytes.to_vec()));
        ControlFlow::Continue(())
    });
    (head.unwrap(), rows, store.record(Table::Outbox, b"key").unwrap())
}

/// What is said of a file that must be left alone, byte for byte.
fn refused(path: &Path) -> StoreError {
    let before = fs::read(path).unwrap();
    let error = SqliteStore::open(path, Options::default()).expect_err(&format!("{} bytes", before.len()));
    assert!(fs::read(path).unwrap() == before, "the refused file was written");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error} names the path");
    error
}

fn assert_damaged(error: &StoreError) {
    assert!(matches!(error, StoreError::Damaged(_)), "{error}");
}

#[test]
fn sqlite_store_conforms() {
    let folder = folder();
    let mut files = 0;
    conformance::run(|| {
        files += 1;
        open(&folder.path().join(format!("{files}.db")))
    });
    conformance::run(|| SqliteStore::open_in_memory().unwrap());
}

#[test]
fn two_sqlite_stores_on_one_file_conform() {
    let folder = folder();
    let mut files = 0;
    conformance::run_shared(|| {
        files += 1;
        let path = folder.path().join(format!("{files}.db"));
        (open(&path), open(&path))
    });
}

#[test]
fn a_store_can_go_to_another_thread() {
    fn sendable<T: Send>() {}
    sendable::<SqliteStore>();
}

#[test]
fn reopening_keeps_everything() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let mut store = SqliteStore::open(&path, Options::default()).unwrap();
    furnish(&mut store);
    let before = content(&store);
    drop(store);
    let mut store = SqliteStore::open(&path, Options::default()).unwrap();
    assert_eq!(content(&store), before);
    store.integrity_check().unwrap();
    assert_eq!(store.commit(row("a", 1, b"second")), Ok(3));
}

#[test]
fn commits_that_are_only_in_the_log_survive() {
    let folder = folder();
    let (path, left) = (folder.path().join("a.db"), folder.path().join("left.db"));
    let mut store = SqliteStore::open(&path, Options::default()).unwrap();
    furnish(&mut store);
    // What a killed process leaves: the log was not folded in, and no lock is held.
    assert!(beside(&path, "-wal").metadata().unwrap().len() > 50_000);
    fs::copy(&path, &left).unwrap();
    fs::copy(beside(&path, "-wal"), beside(&left, "-wal")).unwrap();
    let copy = open(&left);
    assert_eq!(content(&copy), content(&store));
    copy.integrity_check().unwrap();
}

#[test]
fn durability_is_as_asked() {
    let folder = folder();
    let path = folder.path().join("a.db");
    for (synchronous, level) in [(Synchronous::Full, 2), (Synchronous::Normal, 1), (Synchronous::Off, 0)] {
        let store = SqliteStore::open(&path, Options { synchronous, ..Options::default() }).unwrap();
        let pragma = |name| store.conn.query_row(name, [], |row| row.get::<_, String>(0)).unwrap();
        let number: i64 = store.conn.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
        assert_eq!((number, pragma("PRAGMA journal_mode")), (level, "wal".to_owned()));
    }
    assert_eq!(Options::default().synchronous, Synchronous::Full);
}

#[test]
fn each_opening_has_a_slot_of_its_own() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let first = open(&path);
    let second = open(&folder.path().join(".").join("a.db"));
    let third = open(&path);
    assert_eq!([first.slot(), second.slot(), third.slot()], [0, 1, 2]);
    assert_eq!(open(&folder.path().join("b.db")).slot(), 0, "another file, other slots");
    drop(second);
    let fourth = open(&path);
    assert_eq!(fourth.slot(), 1, "the lowest free one");
    assert_eq!(SqliteStore::open_in_memory().unwrap().slot(), 0);
}

#[cfg(unix)]
#[test]
fn a_link_leads_to_the_same_slots() {
    let folder = folder();
    let (path, link) = (folder.path().join("a.db"), folder.path().join("link.db"));
    let mut store = open(&path);
    furnish(&mut store);
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let other = open(&link);
    assert_eq!(other.slot(), 1);
    assert_eq!(content(&other), content(&store));
}

#[test]
fn the_slots_run_out_with_a_clear_error() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let taken: Vec<_> = (0..slot::SLOTS_MAX).map(|_| Slot::take(&path).unwrap()).collect();
    let error = SqliteStore::open(&path, QUICK).unwrap_err();
    assert!(matches!(&error, StoreError::Busy(text) if text.contains("64 slots")), "{error}");
    drop(taken);
    assert_eq!(open(&path).slot(), 0);
}

#[test]
fn many_may_open_a_new_file_at_once() {
    let folder = folder();
    for round in 0..20 {
        let path = folder.path().join(format!("{round}.db"));
        let gate = std::sync::Barrier::new(6);
        let opening = || {
            gate.wait();
            SqliteStore::open(&path, Options::default()).unwrap()
        };
        let stores: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(opening)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut slots: Vec<_> = stores.iter().map(SqliteStore::slot).collect();
        slots.sort_unstable();
        assert_eq!(slots, [0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn two_writers_and_a_reader_lose_nothing() {
    let folder = folder();
    let path = folder.path().join("a.db");
    drop(open(&path));
    let count = || {
        let mut store = open(&path);
        for _ in 0..300 {
            loop {
                let found = store.load("task", "counter", b"").unwrap();
                let (seq, value) = found.map_or((0, 0), |chunk| {
                    (chunk.seq, u64::from_be_bytes((*chunk.bytes).try_into().unwrap()))
                });
                match store.commit(row("counter", seq, &(value + 1).to_be_bytes())) {
                    Ok(_) => break,
                    Err(CommitError::Stale) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    let read = || {
        let store = open(&path);
        for _ in 0..1000 {
            let (head, rows, _) = content(&store);
            assert_eq!(head.seq, rows.first().map_or(0, |row| row.0), "rows and head are of one moment");
        }
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(count), scope.spawn(count)];
        let reader = scope.spawn(read);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        reader.join().unwrap();
    });
    let store = open(&path);
    let counter = store.load("task", "counter", b"").unwrap().unwrap();
    assert_eq!((&*counter.bytes, counter.seq), (&600_u64.to_be_bytes()[..], 600));
}

#[test]
fn the_data_version_moves_with_the_commits_of_others() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let (mut one, mut other) = (open(&path), open(&path));
    let before = one.data_version().unwrap();
    one.commit(row("a", 0, b"own")).unwrap();
    assert_eq!(one.data_version(), Ok(before));
    other.commit(row("b", 0, b"other")).unwrap();
    assert_ne!(one.data_version(), Ok(before));
}

#[test]
fn a_busy_store_says_so_and_works_afterwards() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let mut store = SqliteStore::open(&path, Options { busy_timeout: Duration::ZERO, ..QUICK }).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.commit(row("a", 0, b"x")).unwrap_err();
    assert!(matches!(error, CommitError::Store(StoreError::Busy(_))), "{error}");
    assert_eq!(store.head(), Ok(Head::default()), "reading goes on");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.commit(row("a", 0, b"x")), Ok(1));
}

#[test]
fn a_full_disk_loses_nothing() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let mut store = SqliteStore::open(&path, Options { page_count_max: Some(40), ..QUICK }).unwrap();
    furnish(&mut store);
    let before = content(&store);
    let too_large = || {
        let records = vec![RecordWrite::put(Table::Outbox, *b"key", vec![1; 300_000])].into();
        Batch { records, incarnation: Some(Incarnation(4)), ..row("a", 1, b"small") }
    };
    for _ in 0..2 {
        let error = store.commit(too_large()).unwrap_err();
        assert!(matches!(&error, CommitError::Store(StoreError::Full(_))), "{error}");
        assert_eq!(content(&store), before, "nothing of it is there");
    }
    assert_eq!(store.commit(row("a", 1, b"small")), Ok(3), "what fits goes in");
    let error = store.commit(row("c", 0, &[9; 300_000])).unwrap_err();
    assert!(matches!(error, CommitError::Store(StoreError::Full(_))), "{error}");
    drop(store);
    let mut store = open(&path);
    assert_eq!(content(&store).1[1], (3, "a".to_owned(), b"small".to_vec()));
    assert_eq!(
        store.commit(Batch { rows: row("a", 3, b"x").rows, ..too_large() }),
        Ok(4),
        "there is room now"
    );
    store.integrity_check().unwrap();
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let folder = folder();
    let path = folder.path().join("junk");
    let junk: Vec<u8> = (0..20_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for content in [&junk[..], &junk[..10], b"x", b"SQLite format 3\0", b"{\"some\": \"json\"}", &[0; 4096]] {
        fs::write(&path, content).unwrap();
        assert_damaged(&refused(&path));
    }
}

#[test]
fn a_cut_off_file_is_damaged() {
    let folder = folder();
    let (path, cut) = (folder.path().join("a.db"), folder.path().join("cut.db"));
    let mut store = open(&path);
    furnish(&mut store);
    drop(store);
    let whole = fs::read(&path).unwrap();
    for length in [10, 100, 4096, 8192, whole.len() / 2, whole.len() - 4096] {
        fs::write(&cut, &whole[..length]).unwrap();
        assert_damaged(&refused(&cut));
    }
}

#[test]
fn overwritten_pages_are_found() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let mut store = open(&path);
    furnish(&mut store);
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    for page in bytes.chunks_mut(4096).skip(1) {
        page[..64].fill(0xee);
    }
    fs::write(&path, bytes).unwrap();
    let mut store = open(&path);
    assert_damaged(&store.integrity_check().unwrap_err());
    assert_damaged(&store.head().unwrap_err());
    assert_damaged(&store.load("task", "a", b"").unwrap_err());
    let error = store.commit(row("c", 0, b"x")).unwrap_err();
    assert!(matches!(error, CommitError::Store(StoreError::Damaged(_))), "{error}");
}

#[test]
fn foreign_content_in_our_tables_is_damage() {
    for junk in [
        "DELETE FROM head",
        "DROP TABLE head",
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, ' STRICT', '')",
    ] {
        let folder = folder();
        let path = folder.path().join("a.db");
        furnish(&mut open(&path));
        let other = Connection::open(&path).unwrap();
        other.execute_batch(junk).unwrap();
        drop(other);
        if junk.contains("writable_schema") {
            let other = Connection::open(&path).unwrap();
            other
                .execute_batch("PRAGMA ignore_check_constraints = ON; UPDATE head SET shown = 'text'")
                .unwrap();
        }
        let mut store = open(&path);
        assert_damaged(&store.head().unwrap_err());
        let error = store.commit(row("c", 0, b"x")).unwrap_err();
        assert!(matches!(error, CommitError::Store(StoreError::Damaged(_))), "{error}");
        assert!(store.load("task", "a", b"").unwrap().is_some(), "what can be read is");
    }
}

#[test]
fn a_seq_above_the_head_is_found() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let mut store = open(&path);
    furnish(&mut store);
    store.integrity_check().unwrap();
    store.conn.execute_batch("UPDATE head SET seq = 1").unwrap();
    let error = store.integrity_check().unwrap_err();
    assert!(error.to_string().contains("1 rows have a seq above the head"), "{error}");
}

#[test]
fn the_database_of_another_program_is_left_alone() {
    let folder = folder();
    let foreign = |name: &str, sql: &str| {
        let path = folder.path().join(name);
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(sql).unwrap();
        (path, conn)
    };
    for (name, sql) in [
        ("tables", "CREATE TABLE entity (x)"),
        ("view", "CREATE VIEW v AS SELECT 1"),
        ("owner", "PRAGMA application_id = 7"),
        ("version", "PRAGMA user_version = 1"),
        ("ours_without_version", "PRAGMA application_id = 1382643317; CREATE TABLE t (x)"),
    ] {
        let (path, conn) = foreign(name, sql);
        drop(conn);
        assert_damaged(&refused(&path));
        assert!(!beside(&path, "-slot0").exists(), "nor is anything put beside it");
    }
    // One whose changes are still in its log, as its killed program left it.
    let (path, conn) =
        foreign("log", "PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (1)");
    let left = folder.path().join("left");
    fs::copy(&path, &left).unwrap();
    fs::copy(beside(&path, "-wal"), beside(&left, "-wal")).unwrap();
    drop(conn);
    let log = fs::read(beside(&left, "-wal")).unwrap();
    assert_damaged(&refused(&left));
    assert!(!log.is_empty() && fs::read(beside(&left, "-wal")).unwrap() == log, "its log is still there");
}

#[test]
fn a_newer_format_is_left_alone() {
    let folder = folder();
    let path = folder.path().join("a.db");
    furnish(&mut open(&path));
    let newer = file::newest() + 1;
    let conn = Connection::open(&path).unwrap();
    conn.pragma_update(None, "user_version", newer).unwrap();
    drop(conn);
    let before = fs::read(&path).unwrap();
    let error = SqliteStore::open(&path, QUICK).unwrap_err();
    assert_eq!(error, StoreError::TooNew { found: newer, known: newer - 1 });
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn an_empty_file_becomes_a_store_unless_a_log_is_beside_it() {
    let folder = folder();
    let path = folder.path().join("a.db");
    fs::write(&path, b"").unwrap();
    furnish(&mut open(&path));
    open(&path).integrity_check().unwrap();
    let lost = folder.path().join("lost.db");
    fs::write(&lost, b"").unwrap();
    fs::write(beside(&lost, "-wal"), b"the only copy").unwrap();
    assert_damaged(&refused(&lost));
    assert_eq!(fs::read(beside(&lost, "-wal")).unwrap(), b"the only copy");
}

#[test]
fn a_path_where_no_file_can_be_is_told_as_such() {
    let folder = folder();
    let places = [
        (folder.path().join("no/such/folder.db"), "there is no folder"),
        (folder.path().to_owned(), "is a folder: name a file in it"),
    ];
    for (path, why) in places {
        let error = SqliteStore::open(&path, QUICK).unwrap_err();
        assert!(matches!(&error, StoreError::Place(text) if text.contains(why)), "{error}");
    }
    let error = SqliteStore::open(PathBuf::new(), QUICK).unwrap_err();
    assert!(matches!(error, StoreError::Io(_)), "{error}");
}

#[test]
fn special_names_of_sqlite_are_plain_files() {
    let folder = folder();
    for name in [":memory:", "file:a?mode=memory", "with space ' and \" quotes %.db"] {
        let path = folder.path().join(name);
        furnish(&mut open(&path));
        assert!(path.metadata().unwrap().len() > 0);
        assert_eq!(content(&open(&path)).0.seq, 2);
    }
}

#[test]
fn a_backup_is_a_store_and_never_replaces_a_file() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let target = folder.path().join("backup 'quoted'.db");
    let mut store = open(&path);
    furnish(&mut store);
    store.backup_to(&target).unwrap();
    let before = content(&store);
    store.commit(row("a", 1, b"later")).unwrap();
    let backup = open(&target);
    assert_eq!(content(&backup), before, "the backup is of its moment");
    backup.integrity_check().unwrap();
    drop(backup);
    let bytes = fs::read(&target).unwrap();
    let error = store.backup_to(&target).unwrap_err();
    assert!(matches!(&error, StoreError::Place(text) if text.contains("is there already")), "{error}");
    assert!(fs::read(&target).unwrap() == bytes);
    SqliteStore::open_in_memory().unwrap().backup_to(folder.path().join("memory.db")).unwrap();
    assert_eq!(open(&folder.path().join("memory.db")).head(), Ok(Head::default()));
}

#[test]
fn a_backup_that_fails_leaves_nothing() {
    let folder = folder();
    let path = folder.path().join("a.db");
    let mut store = open(&path);
    furnish(&mut store);
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len() - 4096;
    bytes[4096..end].fill(0xee);
    fs::write(&path, bytes).unwrap();
    let target = folder.path().join("backup.db");
    assert_damaged(&open(&path).backup_to(&target).unwrap_err());
    assert!(!target.exists() && !beside(&target, "-journal").exists());
}
