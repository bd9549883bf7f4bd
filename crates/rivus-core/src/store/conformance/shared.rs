//! Two stores over the same data.

use std::ops::ControlFlow;

use super::model::{Follower, Model};
use super::{KIND, Random, Whole, assert_stale, load, loaded, read, row, rows};
use crate::id::Incarnation;
use crate::row::Sums;
use crate::store::{Batch, HighWater, RecordWrite, Store, Table};

pub(super) fn each_sees_the_commits_of_the_other<S: Store>(a: &mut S, b: &mut S) {
    let opening = |id, rows| Batch { incarnation: Some(Incarnation(id)), ..loaded(rows) };
    assert_eq!(a.commit(opening(1, vec![row("a", 0, b"by a")])), Ok(1));
    assert_eq!(load(b, KIND, "a", b"").unwrap().2, b"by a");
    assert_eq!(b.commit(opening(2, vec![row("b", 0, b"by b"), row("a", 1, b"by b too")])), Ok(3));
    assert_eq!(a.commit(rows(vec![row("a", 3, b"by a again")])), Ok(4));
    let record = RecordWrite::put(Table::Identity, *b"k", b"v".to_vec());
    let sums = Sums { shown: u128::MAX, confirmed: 0, count: -1 };
    b.commit(Batch { records: vec![record].into(), high_water: HighWater::Set(9), sums, ..Batch::default() })
        .unwrap();
    let whole = Whole::of(a);
    assert_eq!(whole, Whole::of(b), "both see the same");
    assert_eq!(whole.head.incarnations, [(Incarnation(1), 1), (Incarnation(2), 2)]);
    assert_eq!((whole.head.high_water, whole.head.digest.shown, whole.head.digest.count), (9, 1, 5));
    assert_eq!(whole.rows.iter().map(|row| row.0).collect::<Vec<_>>(), [2, 4]);
}

pub(super) fn the_slower_of_two_is_stale<S: Store>(a: &mut S, b: &mut S) {
    a.commit(rows(vec![row("a", 0, b"1")])).unwrap();
    let seen_by_both = load(b, KIND, "a", b"").unwrap().1;
    a.commit(rows(vec![row("a", seen_by_both, b"2"), row("new", 0, b"by a")])).unwrap();
    assert_stale(b, loaded(vec![row("other", 0, b"x"), row("a", seen_by_both, b"lost")]));
    assert_stale(b, loaded(vec![row("other", 0, b"x"), row("new", 0, b"lost")]));
    let reads = vec![read(KIND, "a", b"", seen_by_both)].into();
    assert_stale(b, Batch { reads, ..loaded(vec![row("other", 0, b"x")]) });
    let now = load(b, KIND, "a", b"").unwrap().1;
    assert_eq!(b.commit(rows(vec![row("a", now, b"3")])), Ok(4), "loading again is enough");
    assert_eq!(load(a, KIND, "a", b"").unwrap().2, b"3");
}

pub(super) fn changes_read_one_snapshot<S: Store>(a: &mut S, b: &mut S) {
    a.commit(rows(vec![row("a", 0, b"1"), row("b", 0, b"1")])).unwrap();
    let mut seen = Vec::new();
    let head = b.changes(0, &mut |changed| {
        if seen.is_empty() {
            a.commit(loaded(vec![row("b", 2, b"2"), row("c", 0, b"1")])).unwrap();
        }
        seen.push((changed.seq, changed.id.to_owned(), changed.bytes.to_vec()));
        ControlFlow::Continue(())
    });
    let head = head.unwrap();
    let one = b"1".to_vec();
    assert_eq!(
        seen,
        [(1, "a".to_owned(), one.clone()), (2, "b".to_owned(), one)],
        "a later commit is not seen"
    );
    assert_eq!((head.seq, head.high_water, head.incarnations.len()), (2, 0, 0), "nor is its head");
    assert_eq!(b.head().unwrap().seq, 4, "but it is afterwards");
}

pub(super) fn interleaved_commits_lose_nothing<S: Store>(a: &mut S, b: &mut S, seed: u64) {
    let mut random = Random(seed);
    let (mut model, mut follower) = (Model::default(), Follower::default());
    for step in 0..200 {
        // Both prepare from the same state; the first to commit wins, and the other knows it.
        let (first, second) = (model.pick_rows(&mut random, step), model.pick_rows(&mut random, step + 1000));
        let (one, two) = if random.below(2) == 0 { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
        assert_eq!(one.commit(rows(first.clone())), Ok(model.seq + first.len() as u64), "seed {seed}");
        let clash = second.iter().any(|write| first.iter().any(|other| other.row == write.row));
        model.note(first);
        if clash {
            assert_stale(two, loaded(second));
        } else {
            assert_eq!(two.commit(rows(second.clone())), Ok(model.seq + second.len() as u64), "seed {seed}");
            model.note(second);
        }
        follower.step(one, 3);
    }
    model.check(a, seed);
    model.check(b, seed);
    follower.finish(b, &model, seed);
}
