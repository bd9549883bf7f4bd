//! A random workload against a `BTreeMap`, with a reader that pages while rows move.

use std::collections::BTreeMap;

use super::{Random, assert_stale, load, loaded, page, records_from, rows, write};
use crate::store::{Batch, RecordKey, RecordWrite, RowWrite, Store, Table};

const KINDS: [&str; 3] = ["", "task", "task\0"];
const IDS: [&str; 6] = ["", "a", "a'b", "ab", "é", "z"];
const STARTS: [&[u8]; 4] = [b"", b"\0", b"field", b"\xff"];
const KEYS: [&[u8]; 4] = [b"", b"a", b"ab", b"b"];
const STEPS: u64 = 300;

/// The first address and content of a chunk, in one: `changes` does not tell the start.
fn content(start: &[u8], step: u64) -> Vec<u8> {
    [start, b"|", &step.to_be_bytes()].concat()
}

/// (kind, id, start).
type Place<T, B> = (T, T, B);
/// (seq, bytes).
type Row = (u64, Vec<u8>);

/// What the store should hold.
#[derive(Default)]
pub(super) struct Model {
    pub(super) rows: BTreeMap<Place<&'static str, &'static [u8]>, Row>,
    records: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    pub(super) seq: u64,
}

impl Model {
    /// Some rows, each once, at the seqs at which they stand.
    pub(super) fn pick_rows(&self, random: &mut Random, step: u64) -> Vec<RowWrite<'static>> {
        let mut picked: Vec<RowWrite<'static>> = Vec::new();
        for _ in 0..=random.below(4) {
            let (kind, id) = (*random.pick(&KINDS), *random.pick(&IDS));
            // An entity has a first chunk before it has others.
            let known = self.rows.contains_key(&(kind, id, STARTS[0]));
            let start = if known { *random.pick(&STARTS) } else { STARTS[0] };
            let seq = self.rows.get(&(kind, id, start)).map_or(0, |(seq, _)| *seq);
            let is_only = !self.rows.keys().any(|key| (key.0, key.1) == (kind, id) && key.2 != start);
            let goes = seq > 0 && is_only && random.below(5) == 0;
            let bytes = if goes { Vec::new() } else { content(start, step) };
            let write = write(kind, id, start, seq, &bytes);
            // No row twice, and no chunk of an entity that goes.
            let is_same = |other: &RowWrite<'_>| {
                (other.row.kind, other.row.id) == (kind, id)
                    && (other.row == write.row || goes || other.bytes.is_empty())
            };
            if !picked.iter().any(is_same) {
                picked.push(write);
            }
        }
        picked
    }

    /// Notes rows as committed.
    pub(super) fn note(&mut self, rows: Vec<RowWrite<'static>>) {
        for write in rows {
            self.seq += 1;
            let start = STARTS.into_iter().find(|start| *start == &*write.row.start).unwrap();
            let place = (write.row.kind, write.row.id, start);
            if write.bytes.is_empty() {
                self.rows.remove(&place);
            } else {
                self.rows.insert(place, (self.seq, write.bytes.into_owned()));
            }
        }
    }

    fn pick_records(&mut self, random: &mut Random, seq: u64) -> Vec<RecordWrite> {
        let mut writes = Vec::new();
        for _ in 0..random.below(3) {
            let table = *random.pick(&Table::ALL);
            let key = match random.below(4) {
                0 => RecordKey::CommitSeq,
                _ => RecordKey::Bytes(random.pick(&KEYS).to_vec()),
            };
            let value = (random.below(3) > 0).then(|| random.next().to_be_bytes().to_vec());
            let bytes = match &key {
                RecordKey::CommitSeq => seq.to_be_bytes().to_vec(),
                RecordKey::Bytes(bytes) => bytes.clone(),
            };
            match &value {
                Some(value) => self.records.insert((table as u8, bytes), value.clone()),
                None => self.records.remove(&(table as u8, bytes)),
            };
            writes.push(RecordWrite { table, key, value });
        }
        writes
    }

    /// Compares all that can be read.
    pub(super) fn check(&self, store: &impl Store, seed: u64) {
        assert_eq!(store.head().unwrap().seq, self.seq, "seed {seed}");
        let mut kinds: Vec<_> = self.rows.keys().map(|(kind, ..)| *kind).collect();
        kinds.dedup();
        assert_eq!(store.kinds().unwrap(), kinds, "seed {seed}");
        for kind in KINDS {
            let mut ids: Vec<_> =
                self.rows.keys().filter(|key| key.0 == kind).map(|(_, id, _)| *id).collect();
            ids.dedup();
            assert_eq!(store.ids(kind, None, usize::MAX).unwrap(), ids, "seed {seed}");
            for (id, address) in
                IDS.iter().flat_map(|id| [b"", &b"e"[..], b"field", b"zz"].map(|at| (*id, at)))
            {
                let floor = self.rows.range((kind, id, &b""[..])..=(kind, id, address)).next_back();
                let expected = floor.map(|((.., start), (seq, bytes))| (start.to_vec(), *seq, bytes.clone()));
                assert_eq!(load(store, kind, id, address), expected, "seed {seed}");
            }
        }
        for table in Table::ALL {
            let expected = self.records.iter().filter(|((t, _), _)| *t == table as u8);
            let expected: Vec<_> = expected.map(|((_, key), value)| (key.clone(), value.clone())).collect();
            assert_eq!(records_from(store, table, b""), expected, "seed {seed}");
        }
    }
}

/// A reader that goes through changes page by page.
#[derive(Default)]
pub(super) struct Follower {
    at: u64,
    /// The newest of each row delivered.
    rows: BTreeMap<Place<String, Vec<u8>>, Row>,
}

impl Follower {
    /// Takes one page and says whether it was empty.
    pub(super) fn step(&mut self, store: &impl Store, limit: usize) -> bool {
        let (rows, _) = page(store, self.at, limit);
        for (seq, kind, id, bytes) in &rows {
            let start = bytes[..bytes.len() - 9].to_vec();
            self.at = *seq;
            self.rows.insert((kind.clone(), id.clone(), start), (*seq, bytes.clone()));
        }
        rows.is_empty()
    }

    /// Forgets rows that were removed: nobody tells of them.
    fn forget(&mut self, rows: &[RowWrite<'_>]) {
        for RowWrite { row, .. } in rows.iter().filter(|write| write.bytes.is_empty()) {
            self.rows.remove(&(row.kind.to_owned(), row.id.to_owned(), row.start.to_vec()));
        }
    }

    /// Reads to the end and compares.
    pub(super) fn finish(mut self, store: &impl Store, model: &Model, seed: u64) {
        while !self.step(store, 7) {}
        let held = model.rows.iter().map(|((kind, id, start), row)| {
            ((kind.to_string(), id.to_string(), start.to_vec()), row.clone())
        });
        assert!(self.rows.into_iter().eq(held), "a reader missed a row that moved: seed {seed}");
    }
}

pub(super) fn a_random_workload_matches_a_map<S: Store>(store: &mut S, seed: u64) {
    let mut random = Random(seed);
    let (mut model, mut follower) = (Model::default(), Follower::default());
    for step in 0..STEPS {
        let mut picked = model.pick_rows(&mut random, step);
        let last = picked.len() - 1;
        if random.below(5) == 0 {
            picked[last].row.seq ^= 1 + random.below(2);
            assert_stale(store, loaded(picked));
            continue;
        }
        let reads: Vec<_> = model.pick_rows(&mut random, step).into_iter().map(|write| write.row).collect();
        let records = model.pick_records(&mut random, model.seq + picked.len() as u64);
        let committed =
            store.commit(Batch { reads: reads.into(), records: records.into(), ..rows(picked.clone()) });
        follower.forget(&picked);
        model.note(picked);
        assert_eq!(committed, Ok(model.seq), "seed {seed}, step {step}");
        if random.below(2) == 0 {
            let limit = 1 + random.below(6);
            follower.step(store, usize::try_from(limit).unwrap());
        }
        if step % 50 == 49 {
            model.check(store, seed);
        }
    }
    model.check(store, seed);
    follower.finish(store, &model, seed);
}
