//! Stores against a model.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rivus_core::store::{
    Batch, CommitError, HighWater, MemoryStore, Place, RecordKey, RecordWrite, RowRead, RowWrite, Store,
    Table,
};
use rivus_sqlite::{Options, SqliteStore, Synchronous};

const KINDS: [&str; 3] = ["", "task", "task\0"];
const IDS: [&str; 4] = ["", "a", "a'b", "é"];
const STARTS: [&[u8]; 4] = [b"", b"\0", b"field", b"\xff"];
const KEYS: [&[u8]; 4] = [b"", b"a", b"ab", b"b"];

/// Operations on a store in memory.
pub fn store_memory(data: &[u8]) {
    against_model(&mut MemoryStore::new(), data);
}

/// Operations on a store in a file.
pub fn store_sqlite(data: &[u8]) {
    let folder = tempfile::tempdir().expect("there is room for a file");
    let options = Options { synchronous: Synchronous::Off, ..Options::default() };
    let mut store = SqliteStore::open(folder.path().join("fuzz.db"), options).expect("a new file opens");
    against_model(&mut store, data);
}

#[derive(Default)]
struct Model {
    /// By kind, id and start: seq and bytes.
    rows: BTreeMap<(&'static str, &'static str, &'static [u8]), (u64, Vec<u8>)>,
    records: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    seq: u64,
    high_water: u64,
}

struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn below(&mut self, end: usize) -> usize {
        self.0.next().map_or(0, |byte| usize::from(*byte) % end)
    }

    fn is_over(&self) -> bool {
        self.0.as_slice().is_empty()
    }
}

fn against_model(store: &mut impl Store, data: &[u8]) {
    let (mut model, mut bytes) = (Model::default(), Bytes(data.iter()));
    for step in 0..200 {
        if bytes.is_over() {
            break;
        }
        match bytes.below(4) {
            0 | 1 => commit(store, &mut model, &mut bytes, step),
            2 => load(store, &model, &mut bytes),
            _ => page(store, &model, &mut bytes),
        }
    }
    page(store, &model, &mut Bytes([].iter()));
    for (number, table) in (0_u8..).zip(Table::ALL) {
        let mut found = Vec::new();
        let read = store.records(table, &[], &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        });
        read.expect("the store can be read");
        let of_table = model.records.range((number, vec![])..(number + 1, vec![]));
        let expected: Vec<_> = of_table.map(|((_, key), value)| (key.clone(), value.clone())).collect();
        assert_eq!(found, expected, "{table:?}");
    }
    let head = store.head().expect("the store can be read");
    assert_eq!((head.seq, head.high_water), (model.seq, model.high_water));
}

/// Some rows and records; one row may have been read at a wrong seq.
fn commit(store: &mut impl Store, model: &mut Model, bytes: &mut Bytes<'_>, step: u64) {
    let (mut rows, mut places, mut stale) = (Vec::new(), Vec::new(), false);
    for number in 0..bytes.below(4) {
        let (kind, id) = (KINDS[bytes.below(KINDS.len())], IDS[bytes.below(IDS.len())]);
        // An entity has a first chunk before it has others.
        let has_first = model.rows.contains_key(&(kind, id, STARTS[0]));
        let start = STARTS[if has_first { bytes.below(STARTS.len()) } else { 0 }];
        if places.contains(&(kind, id, start)) {
            continue;
        }
        let mut seq = model.rows.get(&(kind, id, start)).map_or(0, |(seq, _)| *seq);
        if bytes.below(8) == 7 {
            seq += 1;
            stale = true;
        }
        places.push((kind, id, start));
        let place = if bytes.below(2) == 0 { Place::default() } else { place(store, kind, id, start) };
        let row = RowRead { kind, id, start: start.into(), seq, place };
        let content = [&step.to_be_bytes()[..], &[u8::try_from(number).unwrap_or(9)]].concat();
        rows.push(RowWrite { row, bytes: content.into(), scope: "" });
    }
    let mut records = Vec::new();
    for _ in 0..bytes.below(3) {
        let (table, key) = (Table::ALL[bytes.below(Table::ALL.len())], KEYS[bytes.below(KEYS.len())]);
        records.push(match bytes.below(4) {
            0 => RecordWrite::remove(table, key),
            1 => RecordWrite { table, key: RecordKey::CommitSeq, value: Some(vec![1]) },
            _ => RecordWrite::put(table, key, step.to_be_bytes().to_vec()),
        });
    }
    let high_water = u64::try_from(bytes.below(256)).expect("a byte");
    let batch = Batch {
        rows: rows.as_slice().into(),
        records: records.as_slice().into(),
        high_water: HighWater::AtLeast(high_water),
        ..Batch::default()
    };
    let done = store.commit(batch);
    if stale {
        assert_eq!(done, Err(CommitError::Stale));
        return;
    }
    for (place, write) in places.into_iter().zip(rows) {
        model.seq += 1;
        model.rows.insert(place, (model.seq, write.bytes.into_owned()));
    }
    for record in records {
        let key = match record.key {
            RecordKey::CommitSeq => model.seq.to_be_bytes().to_vec(),
            RecordKey::Bytes(key) => key,
        };
        let number = Table::ALL.iter().position(|table| *table == record.table).expect("all are there");
        let key = (u8::try_from(number).expect("few tables"), key);
        match record.value {
            Some(value) => drop(model.records.insert(key, value)),
            None => drop(model.records.remove(&key)),
        }
    }
    model.high_water = model.high_water.max(high_water);
    assert_eq!(done, Ok(model.seq));
}

/// Where the store says that this very chunk is.
fn place(store: &impl Store, kind: &str, id: &str, start: &[u8]) -> Place {
    let found = store.load(kind, id, start).expect("the store can be read");
    found.filter(|chunk| *chunk.start == *start).map(|chunk| chunk.place).unwrap_or_default()
}

fn load(store: &impl Store, model: &Model, bytes: &mut Bytes<'_>) {
    let (kind, id) = (KINDS[bytes.below(KINDS.len())], IDS[bytes.below(IDS.len())]);
    let address = STARTS[bytes.below(STARTS.len())];
    let found = store.load(kind, id, address).expect("the store can be read");
    let expected = model.rows.range((kind, id, &[][..])..=(kind, id, address)).next_back();
    let found = found.map(|chunk| (chunk.start.into_owned(), chunk.seq, chunk.bytes.into_owned()));
    assert_eq!(found, expected.map(|((_, _, start), (seq, bytes))| (start.to_vec(), *seq, bytes.clone())));
}

fn page(store: &impl Store, model: &Model, bytes: &mut Bytes<'_>) {
    let after = u64::try_from(bytes.below(32)).expect("a byte");
    let limit = if bytes.is_over() { usize::MAX } else { 1 + bytes.below(5) };
    let mut expected: Vec<_> = model.rows.iter().filter(|(_, (seq, _))| *seq > after).collect();
    expected.sort_by_key(|(_, (seq, _))| *seq);
    expected.truncate(limit);
    let expected: Vec<_> = expected
        .into_iter()
        .map(|((kind, id, _), (seq, bytes))| ((*kind).to_owned(), (*id).to_owned(), *seq, bytes.clone()))
        .collect();
    let mut found = Vec::new();
    let head = store.changes(after, &mut |row| {
        found.push((row.kind.to_owned(), row.id.to_owned(), row.seq, row.bytes.to_vec()));
        if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert_eq!(found, expected);
    assert_eq!(head.expect("the store can be read").seq, model.seq);
}
