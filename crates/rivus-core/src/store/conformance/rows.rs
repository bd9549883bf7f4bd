//! Rows: seqs, staleness, chunks, pages, ids.

use super::{KIND, Whole, assert_stale, load, loaded, page, read, row, rows, write};
use crate::store::{Batch, Head, Store};

pub(super) fn an_empty_store_has_nothing<S: Store>(store: &mut S) {
    assert_eq!(store.head().unwrap(), Head::default());
    assert_eq!(load(store, KIND, "a", b"x"), None);
    let whole = Whole::of(store);
    assert!(whole.rows.is_empty() && whole.kinds.is_empty());
    assert!(whole.records.iter().all(Vec::is_empty));
    assert!(store.ids(KIND, None, 10).unwrap().is_empty());
    assert_eq!(store.commit(Batch::default()), Ok(0), "an empty commit takes no seq");
    assert_eq!(store.head().unwrap(), Head::default());
}

pub(super) fn each_row_takes_the_next_seq<S: Store>(store: &mut S) {
    let batch = rows(vec![row("c", 0, b"c1"), row("a", 0, b"a1"), row("b", 0, b"b1")]);
    assert_eq!(store.commit(batch), Ok(3), "a commit returns the seq of its last row");
    assert_eq!(store.commit(rows(vec![row("a", 2, b"a2"), row("d", 0, b"d1")])), Ok(5));
    assert_eq!(store.commit(Batch::default()), Ok(5), "a commit without rows takes no seq");
    let expected = [(1, "c", "c1"), (3, "b", "b1"), (4, "a", "a2"), (5, "d", "d1")];
    let expected = expected.map(|(seq, id, bytes)| (seq, KIND.to_owned(), id.to_owned(), bytes.into()));
    assert_eq!(page(store, 0, usize::MAX).0, expected, "rows take seqs in the order of the batch");
    assert_eq!(load(store, KIND, "a", b""), Some((vec![], 4, b"a2".to_vec())));
    assert_eq!(store.head().unwrap().seq, 5);
}

pub(super) fn a_row_without_bytes_goes_and_takes_a_seq<S: Store>(store: &mut S) {
    store.commit(rows(vec![row("a", 0, b"a1"), row("b", 0, b"b1")])).unwrap();
    let place = store.load(KIND, "a", b"").unwrap().unwrap().place;
    assert_stale(store, loaded(vec![row("a", 2, b"")]));
    let mut gone = row("a", 1, b"");
    gone.row.place = place;
    assert_eq!(store.commit(rows(vec![gone, row("c", 0, b"c1")])), Ok(4), "a row that goes takes a seq");
    assert_eq!(load(store, KIND, "a", b""), None);
    assert_eq!(store.ids(KIND, None, 9).unwrap(), ["b", "c"]);
    let ids: Vec<_> = page(store, 0, 9).0.into_iter().map(|(seq, _, id, _)| (seq, id)).collect();
    assert_eq!(ids, [(2, "b".to_owned()), (4, "c".to_owned())]);
    assert_stale(store, loaded(vec![row("a", 1, b"late")]));
    assert_eq!(store.commit(rows(vec![row("a", 0, b"a2")])), Ok(5), "it may come back");
    assert_eq!(load(store, KIND, "a", b"").unwrap().2, b"a2");
    store.commit(rows(vec![row("a", 5, b""), row("b", 2, b""), row("c", 4, b"")])).unwrap();
    assert!(store.kinds().unwrap().is_empty(), "nothing is left of the kind");
}

pub(super) fn a_stale_commit_changes_nothing<S: Store>(store: &mut S) {
    let chunk = write(KIND, "a", b"m", 0, b"second chunk");
    store.commit(rows(vec![row("a", 0, b"a1"), chunk, row("b", 0, b"b1")])).unwrap();
    store.commit(rows(vec![row("b", 3, b"b2")])).unwrap();
    let new = || row("new", 0, b"n");
    // Written rows: moved on, not so far yet, appeared, never there, and the same for a later chunk.
    assert_stale(store, loaded(vec![new(), row("b", 3, b"late")]));
    assert_stale(store, loaded(vec![row("b", 5, b"early"), new()]));
    assert_stale(store, loaded(vec![row("b", u64::MAX, b"early"), new()]));
    assert_stale(store, loaded(vec![new(), row("b", 0, b"appeared")]));
    assert_stale(store, loaded(vec![new(), row("c", 2, b"gone")]));
    assert_stale(store, loaded(vec![row("a", 1, b"a2"), write(KIND, "a", b"m", 0, b"appeared")]));
    assert_stale(store, loaded(vec![row("a", 1, b"a2"), write(KIND, "a", b"n", 2, b"elsewhere")]));
    assert_stale(store, loaded(vec![write("other", "b", b"", 4, b"another kind"), new()]));
    // Rows that were only read.
    let reading = |reads: Vec<super::RowRead<'static>>| Batch {
        reads: reads.into(),
        ..loaded(vec![new(), row("b", 4, b"b3")])
    };
    assert_stale(store, reading(vec![read(KIND, "a", b"", 1), read(KIND, "a", b"m", 1)]));
    assert_stale(store, reading(vec![read(KIND, "a", b"", 0)]));
    assert_stale(store, reading(vec![read(KIND, "a", b"q", 2)]));
    assert_stale(store, reading(vec![read(KIND, "c", b"", 3)]));
    assert_stale(store, Batch { head: Some(2), ..reading(Vec::new()) });
    assert_stale(store, Batch { rows: Vec::new().into(), ..reading(vec![read(KIND, "b", b"", 3)]) });
    let reads = vec![
        read(KIND, "a", b"", 1),
        read(KIND, "a", b"m", 2),
        read(KIND, "a", b"q", 0),
        read(KIND, "b", b"", 4),
        read(KIND, "new", b"", 0),
    ];
    assert_eq!(store.commit(reading(reads)), Ok(6), "a batch that nothing moved under goes in");
    assert_eq!(load(store, KIND, "b", b"").unwrap().2, b"b3");
}

pub(super) fn a_place_is_worth_only_what_its_seq_is<S: Store>(store: &mut S) {
    let chunk = write(KIND, "a", b"m", 0, b"second chunk");
    store.commit(rows(vec![row("a", 0, b"a1"), chunk, row("b", 0, b"b1")])).unwrap();
    let place = |store: &S, id, address: &[u8]| store.load(KIND, id, address).unwrap().unwrap().place;
    let at = |place, mut write: super::RowWrite<'static>| {
        write.row.place = place;
        write
    };
    for (id, start, seq) in [("a", &b""[..], 1), ("a", b"m", 2), ("b", b"", 3)] {
        let place = place(store, id, start);
        assert_stale(store, loaded(vec![at(place, write(KIND, id, start, seq + 50, b"early"))]));
        let now = store.commit(rows(vec![at(place, write(KIND, id, start, seq, b"new"))])).unwrap();
        assert_stale(store, loaded(vec![at(place, write(KIND, id, start, seq, b"late"))]));
        assert_eq!(load(store, KIND, id, start), Some((start.to_vec(), now, b"new".to_vec())));
    }
    assert_eq!(page(store, 0, 9).0.len(), 3, "the same rows as before");
}

pub(super) fn chunks_are_found_by_the_floor_of_their_start<S: Store>(store: &mut S) {
    let content = |start: &[u8]| [b"=", start].concat();
    let chunk = |start: &[u8]| write(KIND, "b", start, 0, &content(start));
    let last = [0xff, 0x00];
    let batch = rows(vec![chunk(b"m"), chunk(b""), chunk(&last), chunk(b"d")]);
    store.commit(batch).unwrap();
    // Neighbours in any order of concatenated keys.
    let near = [("tas", "kb"), ("task", ""), ("task", "a"), ("task", "b\0"), ("task", "bd"), ("taskb", "")];
    store
        .commit(rows(near.iter().map(|(kind, id)| write(kind, id, b"", 0, b"neighbour")).collect()))
        .unwrap();
    let cases: [(&[u8], &[u8]); 11] = [
        (b"", b""),
        (b"\0", b""),
        (b"c\xff\xff", b""),
        (b"d", b"d"),
        (b"d\0", b"d"),
        (b"lz", b"d"),
        (b"m", b"m"),
        (b"z", b"m"),
        (b"\xff", b"m"),
        (&last, &last),
        (b"\xff\xff", &last),
    ];
    for (address, start) in cases {
        let (found, _, bytes) = load(store, KIND, "b", address).unwrap();
        assert_eq!((&*found, bytes), (start, content(start)), "the chunk of address {address:?}");
    }
    assert_eq!(load(store, KIND, "c", b"d"), None);
    assert_eq!(load(store, "nothing", "b", b"d"), None);
    assert_eq!(load(store, KIND, "a", b"zzz").unwrap().2, b"neighbour");
    store.commit(rows(vec![write(KIND, "b", b"d", 4, b"new")])).unwrap();
    assert_eq!(load(store, KIND, "b", b"e"), Some((b"d".to_vec(), 11, b"new".to_vec())));
    assert_eq!(load(store, KIND, "b", b"a").unwrap().1, 2, "other chunks did not move");
}

pub(super) fn pages_deliver_each_row_once<S: Store>(store: &mut S) {
    let ids: Vec<String> = (0..23).map(|n| format!("id{n}")).collect();
    store.commit(rows(ids.iter().map(|id| row(id, 0, b"old")).collect())).unwrap();
    let rewritten = ids.iter().enumerate().step_by(3).map(|(n, id)| row(id, n as u64 + 1, b"new"));
    store.commit(rows(rewritten.collect())).unwrap();
    let (all, head) = page(store, 0, usize::MAX);
    assert_eq!((all.len(), head.seq), (23, 31));
    assert_eq!(all.iter().filter(|row| row.3 == b"new").count(), 8);
    for limit in 1..=24 {
        let (mut after, mut delivered) = (0, Vec::new());
        loop {
            let (rows, at) = page(store, after, limit);
            assert_eq!(at, head);
            let Some(last) = rows.last() else { break };
            after = last.0;
            delivered.extend(rows);
        }
        assert_eq!(delivered, all, "pages of {limit} deliver every row once");
    }
    for beyond in [31, 32, u64::MAX] {
        assert_eq!(page(store, beyond, 5), (Vec::new(), head.clone()), "nothing is above {beyond}");
    }
}

pub(super) fn kinds_and_ids_are_sorted_and_paged<S: Store>(store: &mut S) {
    let ids = ["b", "", "a", "a\0", "é", "z", "Z", "aa", "\u{10ffff}"];
    store.commit(rows(ids.iter().map(|id| row(id, 0, b"x")).collect())).unwrap();
    let others = [("z", "1"), ("tas", "2"), ("", "3"), ("tasks", "4")];
    store.commit(rows(others.iter().map(|(kind, id)| write(kind, id, b"", 0, b"x")).collect())).unwrap();
    let chunks = vec![write(KIND, "a", b"m", 0, b"x"), write(KIND, "a", b"t", 0, b"x")];
    store.commit(rows(chunks)).unwrap();
    assert_eq!(store.kinds().unwrap(), ["", "tas", "task", "tasks", "z"]);
    let mut sorted = ids;
    sorted.sort_unstable();
    assert_eq!(store.ids(KIND, None, usize::MAX).unwrap(), sorted, "each id once, in byte order");
    for limit in 1..=10 {
        let mut paged = store.ids(KIND, None, limit).unwrap();
        assert_eq!(paged.len(), limit.min(sorted.len()));
        while let Some(last) = paged.last() {
            let more = store.ids(KIND, Some(last), limit).unwrap();
            if more.is_empty() {
                break;
            }
            assert!(more.iter().all(|id| id > last), "ids go on above the last one");
            paged.extend(more);
        }
        assert_eq!(paged, sorted, "pages of {limit} ids");
    }
    assert!(store.ids(KIND, None, 0).unwrap().is_empty());
    assert_eq!(
        store.ids(KIND, Some("ab"), 1).unwrap(),
        ["b"],
        "paging may go on from an id that is not there"
    );
    assert_eq!(store.ids("z", None, 5).unwrap(), ["1"]);
    assert!(store.ids("unknown", None, 5).unwrap().is_empty());
}

pub(super) fn any_bytes_and_ids_survive<S: Store>(store: &mut S) {
    let long = "long ".repeat(20_000);
    let odd = ["", "nul\0inside", "\0", "'; DROP TABLE entity; --", "\"quoted\"", "%_*?", "日本語🦀", &long];
    for name in odd {
        let bytes = format!("={name}").into_bytes();
        store.commit(rows(vec![write(name, name, b"", 0, &bytes)])).unwrap();
        assert_eq!(load(store, name, name, b"any").unwrap().2, bytes);
        assert_eq!(store.ids(name, None, 9).unwrap(), [name]);
    }
    let mut sorted = odd;
    sorted.sort_unstable();
    assert_eq!(store.kinds().unwrap(), sorted);
    let every: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = (0..1 << 20).map(|n: u32| n.to_le_bytes()[0] ^ n.to_le_bytes()[2]).collect();
    for (id, bytes) in [("least", &[0][..]), ("every", &every), ("large", &large)] {
        store.commit(rows(vec![row(id, 0, bytes)])).unwrap();
        let (start, seq, found) = load(store, KIND, id, b"").unwrap();
        assert!(found == bytes && start.is_empty(), "the bytes of `{id}` come back as they went in");
        store.commit(rows(vec![row(id, seq, &every), write(KIND, id, &every, 0, bytes)])).unwrap();
        let (start, _, found) = load(store, KIND, id, &[0]).unwrap();
        assert!(start.is_empty() && found == every, "the first chunk ends where the second starts");
        let (start, _, found) = load(store, KIND, id, &every).unwrap();
        assert!(start == every && found == bytes, "a chunk may start at any bytes");
    }
}
