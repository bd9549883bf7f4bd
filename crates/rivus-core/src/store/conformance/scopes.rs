//! Scopes: one order of changes and a digest for each, and who has left it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{KIND, Random, Whole, assert_stale, load, page, row, rows, write};
use crate::row::Sums;
use crate::store::{Batch, Digest, Head, Move, RowWrite, ScopeChange, Store};

/// Seq, id, and the content of a row; none of an entity that has left.
type Met = (u64, String, Option<Vec<u8>>);

fn changes_in(store: &impl Store, scope: &str, after: u64, limit: usize) -> (Vec<Met>, Head) {
    let mut met = Vec::new();
    let head = store.changes_in(scope, after, &mut |change| {
        assert!(met.len() < limit, "a visitor that broke off is not called again");
        assert!(change.seq() > after, "only what is above the position is a change");
        met.push(match change {
            ScopeChange::Row(row) => (row.seq, row.id.to_owned(), Some(row.bytes.to_vec())),
            ScopeChange::Left { id, seq, .. } => (seq, id.to_owned(), None),
        });
        if met.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    (met, head.unwrap())
}

fn sums(n: u64) -> Sums {
    Sums { shown: n.into(), confirmed: (10 * n).into(), count: n.cast_signed() }
}

fn digest(n: u64) -> Digest {
    Digest::default().plus(sums(n))
}

/// A row of the kind in a scope.
fn row_in<'b>(scope: &'b str, id: &'b str, seq: u64, bytes: &[u8]) -> RowWrite<'b> {
    RowWrite { scope, ..row(id, seq, bytes) }
}

fn moved<'b>(id: &'b str, from: Option<&'b str>, to: &'b str) -> Move<'b> {
    Move { kind: KIND, id, from, to }
}

pub(super) fn each_scope_has_its_changes_and_digest<S: Store>(store: &mut S) {
    let batch = Batch {
        sums: sums(7),
        scopes: vec![("a", sums(1)), ("b", sums(2))].into(),
        ..rows(vec![row_in("a", "x", 0, b"1"), row_in("b", "y", 0, b"2"), row_in("", "z", 0, b"3")])
    };
    assert_eq!(store.commit(batch), Ok(3));
    let in_scope = |store: &S, scope| changes_in(store, scope, 0, usize::MAX);
    let (met, head) = in_scope(store, "a");
    assert_eq!(met, [(1, "x".to_owned(), Some(b"1".to_vec()))]);
    assert_eq!((head.seq, head.digest), (3, digest(1)), "the head is the store's, the digest the scope's");
    assert_eq!(in_scope(store, "").1.digest, digest(4), "what is in no scope with a name");
    assert_eq!(in_scope(store, "").0.len(), 1);
    assert_eq!(in_scope(store, "unknown"), (Vec::new(), Head { digest: digest(0), ..head }));
    assert_eq!(store.scopes().unwrap(), [("a".to_owned(), digest(1)), ("b".to_owned(), digest(2))]);
    assert_eq!(page(store, 0, 9).0.len(), 3, "all scopes have one order");
    store.commit(rows(vec![row_in("a", "x", 1, b"4")])).unwrap();
    assert_eq!(in_scope(store, "a").0, [(4, "x".to_owned(), Some(b"4".to_vec()))]);
    let gone = Batch {
        sums: Sums::default().minus(sums(1)),
        scopes: vec![("a", Sums::default().minus(sums(1)))].into(),
        ..Batch::default()
    };
    store.commit(gone).unwrap();
    assert_eq!(store.scopes().unwrap(), [("b".to_owned(), digest(2))], "a scope without registers is none");
}

pub(super) fn what_moves_has_left<S: Store>(store: &mut S) {
    store.commit(rows(vec![row_in("a", "x", 0, b"1"), row_in("a", "y", 0, b"2")])).unwrap();
    let move_x = |seq, from, to| Batch {
        moves: vec![moved("x", from, to)].into(),
        ..rows(vec![row_in(to, "x", seq, b"3")])
    };
    assert_eq!(store.commit(move_x(1, Some("a"), "b")), Ok(3));
    let (x, y) = ("x".to_owned(), "y".to_owned());
    let in_scope = |store: &S, scope, after| changes_in(store, scope, after, usize::MAX).0;
    assert_eq!(in_scope(store, "a", 0), [(2, y.clone(), Some(b"2".to_vec())), (3, x.clone(), None)]);
    assert_eq!(in_scope(store, "a", 3), []);
    assert_eq!(in_scope(store, "b", 0), [(3, x.clone(), Some(b"3".to_vec()))]);
    store.commit(rows(vec![row_in("a", "y", 2, b"5")])).unwrap();
    assert_eq!(in_scope(store, "a", 0), [(3, x.clone(), None), (4, y.clone(), Some(b"5".to_vec()))]);
    assert_eq!(store.commit(move_x(3, Some("b"), "a")), Ok(5));
    assert_eq!(in_scope(store, "a", 4), [(5, x.clone(), Some(b"3".to_vec()))], "what is back has not left");
    assert_eq!(in_scope(store, "b", 0), [(5, x.clone(), None)]);
    assert_eq!(store.commit(move_x(5, None, "")), Ok(6));
    assert_eq!(in_scope(store, "a", 5), [], "nobody is told of what nobody knew");
    assert_eq!(in_scope(store, "", 0).len(), 1);
    // Of one commit: the rows come first.
    let two = Batch {
        moves: vec![moved("y", Some("a"), "b"), moved("x", Some(""), "a")].into(),
        ..rows(vec![row_in("b", "y", 4, b"6"), row_in("a", "x", 6, b"7")])
    };
    assert_eq!(store.commit(two), Ok(8));
    assert_eq!(in_scope(store, "a", 6), [(8, x, Some(b"7".to_vec())), (8, y, None)]);
}

pub(super) fn a_removed_row_is_gone<S: Store>(store: &mut S) {
    store
        .commit(rows(vec![row_in("a", "x", 0, b"1"), write(KIND, "x", b"m", 0, b"2"), row("y", 0, b"3")]))
        .unwrap();
    let remove = |start: &[u8], seq| write(KIND, "x", start, seq, b"");
    assert_stale(store, rows(vec![remove(b"", 1), remove(b"m", 1)]));
    assert_eq!(store.commit(rows(vec![remove(b"", 1), remove(b"m", 2)])), Ok(5), "each takes a seq");
    assert_eq!(load(store, KIND, "x", b"z"), None);
    assert_eq!(store.ids(KIND, None, 9).unwrap(), ["y"]);
    assert_eq!(page(store, 0, 9).0.len(), 1);
    assert_eq!(changes_in(store, "a", 0, 9).0, []);
    store.commit(rows(vec![row("y", 3, b"")])).unwrap();
    assert_eq!(store.kinds().unwrap(), Vec::<String>::new());
    assert_eq!(
        store.commit(rows(vec![row("y", 0, b"5"), row_in("a", "x", 0, b"6")])),
        Ok(8),
        "it can come back"
    );
    assert_eq!(load(store, KIND, "y", b""), Some((Vec::new(), 7, b"5".to_vec())));
    assert_eq!(page(store, 0, 9).0.len(), 2);
    assert_eq!(Whole::of(store).kinds, [KIND]);
}

/// Entities that come, go, and move between scopes, and a reader of each scope that pages.
pub(super) fn readers_of_scopes_follow<S: Store>(store: &mut S, seed: u64) {
    const SCOPES: [&str; 3] = ["", "a", "b"];
    const IDS: [&str; 5] = ["p", "q", "r", "s", "t"];
    let mut random = Random(seed);
    let mut held: BTreeMap<&str, (&str, u64, Vec<u8>)> = BTreeMap::new();
    let mut readers: Vec<(u64, BTreeMap<String, Vec<u8>>)> = vec![(0, BTreeMap::new()); SCOPES.len()];
    for step in 0..200_u64 {
        let id = *random.pick(&IDS);
        let bytes = step.to_be_bytes().to_vec();
        let scope = *random.pick(&SCOPES);
        let before = held.get(id).cloned();
        let from = before.as_ref().map(|(scope, ..)| *scope);
        let moves = if from == Some(scope) { Vec::new() } else { vec![moved(id, from, scope)] };
        let seq = before.map_or(0, |(_, seq, _)| seq);
        let batch = Batch { moves: moves.into(), ..rows(vec![row_in(scope, id, seq, &bytes)]) };
        let seq = store.commit(batch).unwrap();
        held.insert(id, (scope, seq, bytes));
        let reader = usize::try_from(random.below(3)).unwrap();
        let done = random.below(3) == 0;
        for (scope, (at, known)) in SCOPES.iter().zip(&mut readers).skip(reader).take(1) {
            let limit = if done { usize::MAX } else { 1 + usize::try_from(random.below(3)).unwrap() };
            let (met, head) = changes_in(store, scope, *at, limit);
            *at = if met.len() < limit { head.seq } else { met.last().map_or(*at, |(seq, ..)| *seq) };
            for (_, id, bytes) in met {
                match bytes {
                    Some(bytes) => drop(known.insert(id, bytes)),
                    None => drop(known.remove(&id)),
                }
            }
        }
    }
    for (scope, (at, mut known)) in SCOPES.into_iter().zip(readers) {
        for (_, id, bytes) in changes_in(store, scope, at, usize::MAX).0 {
            match bytes {
                Some(bytes) => drop(known.insert(id, bytes)),
                None => drop(known.remove(&id)),
            }
        }
        let there = held.iter().filter(|(_, (of, ..))| *of == scope);
        let there: BTreeMap<_, _> = there.map(|(id, (.., bytes))| (id.to_string(), bytes.clone())).collect();
        assert_eq!(known, there, "the reader of `{scope}`, seed {seed}");
    }
}
