//! The conformance suite: what every [`Store`] must do, whoever wrote it.
//!
//! [`run`] takes a function that opens a fresh, empty store and checks each clause of the contract on stores of
//! its own. [`run_shared`] does the same for stores that several writers open at once. Both panic with the clause
//! that is broken, so a test that calls them is the whole test of an implementation's contract; durability, bad
//! files and full disks are the implementation's own to test. Rows and records are plain bytes here.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "asserting is its purpose")]

mod model;
mod records;
mod rows;
mod scopes;
mod shared;

use std::ops::ControlFlow;

use super::{Batch, CommitError, Head, HighWater, Place, RecordWrite, RowRead, RowWrite, Store, Table};
use crate::id::Incarnation;
use crate::row::Sums;

/// Checks a store that one writer opens. `open` gives a fresh, empty store each time.
///
/// # Panics
/// If the store breaks the contract of [`Store`].
pub fn run<S: Store>(mut open: impl FnMut() -> S) {
    for check in [
        rows::an_empty_store_has_nothing::<S>,
        rows::each_row_takes_the_next_seq,
        rows::a_row_without_bytes_goes_and_takes_a_seq,
        rows::a_stale_commit_changes_nothing,
        rows::a_place_is_worth_only_what_its_seq_is,
        rows::chunks_are_found_by_the_floor_of_their_start,
        rows::pages_deliver_each_row_once,
        rows::kinds_and_ids_are_sorted_and_paged,
        rows::any_bytes_and_ids_survive,
        records::records_are_ordered_by_key,
        records::records_are_overwritten_and_removed_in_order,
        records::unchanged_records,
        records::a_commit_seq_key_names_the_last_row,
        records::the_clock_follows_the_batch,
        records::digest_sums_wrap,
        records::an_incarnation_comes_with_rows,
        scopes::each_scope_has_its_changes_and_digest,
        scopes::what_moves_has_left,
        scopes::a_removed_row_is_gone,
    ] {
        check(&mut open());
    }
    for seed in 1..=SEEDS {
        model::a_random_workload_matches_a_map(&mut open(), seed);
        scopes::readers_of_scopes_follow(&mut open(), seed);
    }
}

/// Checks two stores over the same data, each with a writer of its own, that let readers and a writer work at the
/// same time. `open_two` gives two stores on one fresh, empty database each time.
///
/// # Panics
/// If the stores break the contract of [`Store`], or lose one another's commits.
pub fn run_shared<S: Store>(mut open_two: impl FnMut() -> (S, S)) {
    for check in [
        shared::each_sees_the_commits_of_the_other::<S>,
        shared::the_slower_of_two_is_stale,
        shared::changes_read_one_snapshot,
    ] {
        let (mut a, mut b) = open_two();
        check(&mut a, &mut b);
    }
    for seed in 1..=SEEDS {
        let (mut a, mut b) = open_two();
        shared::interleaved_commits_lose_nothing(&mut a, &mut b, seed);
    }
}

/// How many random workloads a run tries.
const SEEDS: u64 = 4;

/// The kind of most rows here.
const KIND: &str = "task";

fn read<'b>(kind: &'b str, id: &'b str, start: &[u8], seq: u64) -> RowRead<'b> {
    RowRead { kind, id, start: start.to_vec().into(), seq, place: Place::default() }
}

fn write<'b>(kind: &'b str, id: &'b str, start: &[u8], seq: u64, bytes: &[u8]) -> RowWrite<'b> {
    RowWrite { row: read(kind, id, start, seq), bytes: bytes.to_vec().into(), scope: "" }
}

/// A row of [`KIND`] that is one chunk.
fn row<'b>(id: &'b str, seq: u64, bytes: &[u8]) -> RowWrite<'b> {
    write(KIND, id, b"", seq, bytes)
}

fn rows(rows: Vec<RowWrite<'_>>) -> Batch<'_> {
    Batch { rows: rows.into(), ..Batch::default() }
}

fn records(records: Vec<RecordWrite>) -> Batch<'static> {
    Batch { records: records.into(), ..Batch::default() }
}

/// The chunk that holds an address, as (start, seq, bytes).
fn load(store: &impl Store, kind: &str, id: &str, address: &[u8]) -> Option<(Vec<u8>, u64, Vec<u8>)> {
    let chunk = store.load(kind, id, address).unwrap()?;
    Some((chunk.start.into_owned(), chunk.seq, chunk.bytes.into_owned()))
}

/// A row as `changes` shows it: (seq, kind, id, bytes).
type Seen = (u64, String, String, Vec<u8>);

/// At most `limit` changed rows, and the head that came with them.
fn page(store: &impl Store, after: u64, limit: usize) -> (Vec<Seen>, Head) {
    let mut seen = Vec::new();
    let head = store
        .changes(after, &mut |row| {
            assert!(seen.len() < limit, "a visitor that broke off is not called again");
            seen.push((row.seq, row.kind.to_owned(), row.id.to_owned(), row.bytes.to_vec()));
            if seen.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert!(seen.iter().all(|row| row.0 > after), "only rows above the position are changes");
    assert!(seen.windows(2).all(|two| two[0].0 < two[1].0), "changes ascend by seq");
    assert!(seen.iter().all(|row| row.0 <= head.seq), "no row is above the head of its snapshot");
    (seen, head)
}

/// A table's records from a key on.
fn records_from(store: &impl Store, table: Table, from: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    store
        .records(table, from, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

/// Everything that can be seen of a store.
#[derive(PartialEq, Debug)]
struct Whole {
    head: Head,
    rows: Vec<Seen>,
    kinds: Vec<String>,
    records: Vec<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl Whole {
    fn of(store: &impl Store) -> Self {
        let (rows, head) = page(store, 0, usize::MAX);
        assert_eq!(store.head().unwrap(), head, "changes give the head of their snapshot");
        let records = Table::ALL.iter().map(|table| records_from(store, *table, b"")).collect();
        Self { head, rows, kinds: store.kinds().unwrap(), records }
    }
}

/// Commits a batch that must fail as stale, and checks that nothing of it is in the store.
fn assert_stale(store: &mut impl Store, batch: Batch<'_>) {
    let before = Whole::of(store);
    assert_eq!(store.commit(batch), Err(CommitError::Stale));
    assert_eq!(Whole::of(store), before, "a stale commit leaves everything as it was");
}

/// A batch that touches whatever a batch can touch.
fn loaded(rows: Vec<RowWrite<'_>>) -> Batch<'_> {
    Batch {
        rows: rows.into(),
        records: vec![RecordWrite::put(Table::Outbox, *b"loaded", b"x".to_vec())].into(),
        high_water: HighWater::AtLeast(u64::MAX),
        sums: Sums { shown: 1, confirmed: 2, count: 3 },
        incarnation: Some(Incarnation(77)),
        ..Batch::default()
    }
}

/// A seeded generator (splitmix64): the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// One of some choices.
    fn pick<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        let at = self.below(choices.len() as u64);
        &choices[usize::try_from(at).unwrap()]
    }
}
