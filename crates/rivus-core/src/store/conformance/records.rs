//! Records, the clock, the digest, incarnations.

use std::ops::ControlFlow;

use super::{Whole, records, records_from, row, rows};
use crate::id::Incarnation;
use crate::row::Sums;
use crate::store::{Batch, CommitError, Digest, HighWater, RecordKey, RecordRead, RecordWrite, Store, Table};

fn put(table: Table, key: &[u8], value: &[u8]) -> RecordWrite {
    RecordWrite::put(table, key, value.to_vec())
}

pub(super) fn records_are_ordered_by_key<S: Store>(store: &mut S) {
    let keys: [&[u8]; 8] = [b"b", b"", b"a", b"\xff\xff", b"a\0", b"\0", b"\xff", b"ab"];
    store.commit(records(keys.iter().map(|key| put(Table::Peer, key, key)).collect())).unwrap();
    store
        .commit(records(vec![put(Table::Cursor, b"z", b"before"), put(Table::Outbox, b"", b"after")]))
        .unwrap();
    let mut sorted = keys;
    sorted.sort_unstable();
    let found = records_from(store, Table::Peer, b"");
    assert!(found.iter().map(|(key, _)| &**key).eq(sorted), "keys ascend, and a table is alone");
    assert!(found.iter().all(|(key, value)| key == value));
    for from in sorted.into_iter().chain([&b"aa"[..], b"c", b"\xff\xff\xff"]) {
        let above: Vec<_> = found.iter().filter(|(key, _)| **key >= *from).cloned().collect();
        assert_eq!(records_from(store, Table::Peer, from), above, "records from {from:?}");
    }
    let mut visited = 0;
    let stop = &mut |_: &[u8], _: &[u8]| {
        visited += 1;
        if visited == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.records(Table::Peer, b"", stop).unwrap();
    assert_eq!(visited, 3, "a visitor that broke off is not called again");
    assert_eq!(store.record(Table::Peer, b"ab").unwrap(), Some(b"ab".to_vec()));
    assert_eq!(store.record(Table::Peer, b"aa").unwrap(), None);
    assert_eq!(store.record(Table::Cursor, b"").unwrap(), None);
    assert_eq!(store.record(Table::Newest, b"z").unwrap(), None);
}

pub(super) fn records_are_overwritten_and_removed_in_order<S: Store>(store: &mut S) {
    for table in Table::ALL {
        let large = vec![7; 1 << 20];
        let batch = vec![put(table, b"k", b"one"), put(table, b"empty", b""), put(table, b"large", &large)];
        store.commit(records(batch)).unwrap();
        assert_eq!(store.record(table, b"empty").unwrap(), Some(Vec::new()), "an empty value is a value");
        assert!(store.record(table, b"large").unwrap() == Some(large));
        store.commit(records(vec![put(table, b"k", b"two")])).unwrap();
        assert_eq!(store.record(table, b"k").unwrap(), Some(b"two".to_vec()));
        let gone = RecordWrite::remove(table, *b"k");
        let batch = vec![put(table, b"k", b"three"), gone.clone(), RecordWrite::remove(table, *b"never")];
        store.commit(records(batch)).unwrap();
        assert_eq!(store.record(table, b"k").unwrap(), None, "the last write of a key counts");
        store.commit(records(vec![gone, put(table, b"k", b"four")])).unwrap();
        assert_eq!(store.record(table, b"k").unwrap(), Some(b"four".to_vec()));
        assert_eq!(records_from(store, table, b"").len(), 3);
    }
    assert_eq!(store.head().unwrap().seq, 0, "records take no seq");
}

pub(super) fn a_commit_seq_key_names_the_last_row<S: Store>(store: &mut S) {
    let commit_seq = |value: Option<&[u8]>| RecordWrite {
        table: Table::Outbox,
        key: RecordKey::CommitSeq,
        value: value.map(<[u8]>::to_vec),
    };
    let three = rows(vec![row("a", 0, b"x"), row("b", 0, b"x"), row("c", 0, b"x")]);
    store.commit(Batch { records: vec![commit_seq(Some(b"first"))].into(), ..three }).unwrap();
    store
        .commit(Batch { records: vec![commit_seq(Some(b"second"))].into(), ..rows(vec![row("b", 2, b"y")]) })
        .unwrap();
    let outbox = |store: &S| {
        let found = records_from(store, Table::Outbox, b"").into_iter();
        found.map(|(key, value)| (u64::from_be_bytes(key.try_into().unwrap()), value)).collect::<Vec<_>>()
    };
    assert_eq!(outbox(store), [(3, b"first".to_vec()), (4, b"second".to_vec())]);
    store.commit(records(vec![commit_seq(Some(b"again"))])).unwrap();
    assert_eq!(outbox(store)[1], (4, b"again".to_vec()), "without rows it is the head");
    store.commit(records(vec![commit_seq(None)])).unwrap();
    assert_eq!(outbox(store), [(3, b"first".to_vec())]);
}

pub(super) fn the_clock_follows_the_batch<S: Store>(store: &mut S) {
    use HighWater::{AtLeast, Set};
    let past_i64 = 1 << 63;
    let steps = [
        (AtLeast(100), 100),
        (AtLeast(50), 100),
        (AtLeast(101), 101),
        (Set(7), 7),
        (AtLeast(past_i64), past_i64),
        (AtLeast(5), past_i64),
        (AtLeast(u64::MAX), u64::MAX),
        (AtLeast(past_i64), u64::MAX),
        (Set(0), 0),
    ];
    for (high_water, after) in steps {
        store.commit(Batch { high_water, ..Batch::default() }).unwrap();
        assert_eq!(store.head().unwrap().high_water, after, "after {high_water:?}");
    }
}

pub(super) fn digest_sums_wrap<S: Store>(store: &mut S) {
    let mut expected = Digest::default();
    let steps = [
        Sums { shown: 5, confirmed: u128::MAX, count: 2 },
        Sums { shown: u128::MAX, confirmed: 3, count: -1 },
        Sums { shown: 1 << 127, confirmed: 1 << 64, count: i64::MAX },
        Sums { shown: 1 << 127, confirmed: u128::MAX << 64, count: i64::MAX },
        Sums { shown: u128::MAX - 3, confirmed: 0, count: i64::MIN },
    ];
    for sums in steps {
        store.commit(Batch { sums, ..Batch::default() }).unwrap();
        expected = expected.plus(sums);
        assert_eq!(store.head().unwrap().digest, expected, "after {sums:?}");
    }
    assert_eq!(expected.shown, 0, "the steps wrap");
}

pub(super) fn an_incarnation_comes_with_rows<S: Store>(store: &mut S) {
    let opening = |id| Batch { incarnation: Some(Incarnation(id)), ..Batch::default() };
    let (first, second) = (Incarnation(u64::MAX), Incarnation(3));
    store.commit(Batch { records: vec![put(Table::Peer, b"k", b"v")].into(), ..opening(u64::MAX) }).unwrap();
    assert!(store.head().unwrap().incarnations.is_empty(), "a commit without rows opens nothing");
    store
        .commit(Batch { rows: vec![row("a", 0, b"x"), row("b", 0, b"x")].into(), ..opening(u64::MAX) })
        .unwrap();
    assert_eq!(store.head().unwrap().incarnations, [(first, 1)]);
    store.commit(rows(vec![row("a", 1, b"y")])).unwrap();
    store.commit(opening(3)).unwrap();
    assert_eq!(store.head().unwrap().incarnations, [(first, 1)]);
    store.commit(Batch { rows: vec![row("c", 0, b"x"), row("b", 2, b"x")].into(), ..opening(3) }).unwrap();
    let third = Incarnation(1 << 63);
    store.commit(Batch { rows: vec![row("d", 0, b"x")].into(), ..opening(third.0) }).unwrap();
    let all = [(first, 1), (second, 4), (third, 6)];
    assert_eq!(Whole::of(store).head.incarnations, all, "oldest first, each at its first seq");
}

/// A commit that depends on a record fails as stale, and changes nothing, once the record is another.
pub(super) fn unchanged_records<S: Store>(store: &mut S) {
    let read = |value: Option<&[u8]>| RecordRead {
        table: Table::Identity,
        key: b"who".to_vec(),
        value: value.map(<[u8]>::to_vec),
    };
    let put = |value: &[u8], unchanged| Batch {
        unchanged: vec![unchanged].into(),
        records: vec![RecordWrite::put(Table::Identity, b"who".to_vec(), value.to_vec())].into(),
        ..Batch::default()
    };
    let stale = Err(CommitError::Stale);
    assert_eq!(store.commit(put(b"x", read(Some(b"")))), stale, "it is not there");
    assert!(store.commit(put(b"one", read(None))).is_ok());
    assert_eq!(store.commit(put(b"two", read(None))), stale, "it is there by now");
    assert_eq!(store.commit(put(b"two", read(Some(b"other")))), stale);
    assert_eq!(store.record(Table::Identity, b"who"), Ok(Some(b"one".to_vec())));
    assert!(store.commit(put(b"two", read(Some(b"one")))).is_ok());
    assert_eq!(store.record(Table::Identity, b"who"), Ok(Some(b"two".to_vec())));
}
