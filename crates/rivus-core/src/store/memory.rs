//! A store in memory: for tests, the simulator, and replicas that need no disk.

mod records;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use records::{Key, Records};

use super::{
    Batch, Changed, Chunk, CommitError, Head, HighWater, RecordKey, RecordRead, RowRead, Store, StoreError,
    Table,
};

#[expect(clippy::disallowed_types, reason = "looked up by id only, never iterated; its hasher is fixed")]
type Ids = std::collections::HashMap<Id, Chunks, BuildHasherDefault<FixedHasher>>;

/// An entity's id, without a detour if it is not longer than a UUID as text.
type Id = SmallVec<[u8; 36]>;

/// The chunks of an entity by start, as indexes into the rows.
type Chunks = SmallVec<[u32; 2]>;

/// Keeps everything in memory; gone when dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    head: Head,
    kinds: BTreeMap<Arc<str>, Ids>,
    rows: Vec<Slot>,
    /// (seq, row) of every write, ascending; one whose row has moved on since is stale and skipped.
    log: Vec<(u64, u32)>,
    /// By table.
    records: [Records; Table::ALL.len()],
}

#[derive(Debug)]
struct Slot {
    seq: u64,
    bytes: Vec<u8>,
    start: Box<[u8]>,
    id: Box<str>,
    kind: Arc<str>,
}

impl Slot {
    /// Takes new bytes, in the memory that the old ones have if that is enough and not far too much: it is at hand,
    /// and the store does not scatter.
    fn put(&mut self, bytes: Vec<u8>) {
        let room = self.bytes.capacity();
        if (bytes.len()..=2 * bytes.len()).contains(&room) {
            self.bytes.clear();
        } else {
            self.bytes = Vec::with_capacity(bytes.len() + bytes.len() / 16);
        }
        self.bytes.extend_from_slice(&bytes);
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of the whole store, as copying a database file would make.
    #[must_use]
    pub fn copy(&self) -> Self {
        let rows = self.rows.iter().map(|slot| Slot {
            seq: slot.seq,
            bytes: slot.bytes.clone(),
            start: slot.start.clone(),
            id: slot.id.clone(),
            kind: Arc::clone(&slot.kind),
        });
        Self {
            head: self.head.clone(),
            kinds: self.kinds.clone(),
            rows: rows.collect(),
            log: self.log.clone(),
            records: self.records.clone(),
        }
    }

    fn slot(&self, row: u32) -> &Slot {
        #[expect(clippy::expect_used, reason = "indexes are made by this store and rows are never removed")]
        self.rows.get(row as usize).expect("a row index is valid")
    }

    fn table(&self, table: Table) -> &Records {
        #[expect(clippy::expect_used, reason = "tables are numbered from 0 up")]
        self.records.get(table as usize).expect("every table has its records")
    }

    fn chunks(&self, kind: &str, id: &str) -> Option<&Chunks> {
        self.kinds.get(kind)?.get(id.as_bytes())
    }

    /// Where the chunk with this very start is, if there is one.
    fn find(&self, row: &RowRead<'_>) -> Option<u32> {
        let chunks = self.chunks(row.kind, row.id)?;
        let place = chunks.binary_search_by(|at| (*self.slot(*at).start).cmp(&row.start)).ok()?;
        chunks.get(place).copied()
    }

    /// Where the row is, if it is; or that it has moved.
    fn unmoved(&self, row: &RowRead<'_>) -> Result<Option<u32>, CommitError> {
        let found = self.find(row);
        let seq = found.map_or(0, |at| self.slot(at).seq);
        if seq == row.seq { Ok(found) } else { Err(CommitError::Stale) }
    }

    #[expect(clippy::cast_possible_truncation, reason = "memory ends long before 2^32 rows")]
    fn insert(&mut self, row: RowRead<'_>, seq: u64, bytes: Vec<u8>) -> u32 {
        let at = self.rows.len() as u32;
        let kind: Arc<str> =
            self.kinds.get_key_value(row.kind).map_or(row.kind.into(), |(kind, _)| Arc::clone(kind));
        let ids = self.kinds.entry(Arc::clone(&kind)).or_default();
        let chunks = ids.entry(Id::from_slice(row.id.as_bytes())).or_default();
        let rows = &self.rows;
        let before = |at: &u32| rows.get(*at as usize).is_some_and(|slot| *slot.start < *row.start);
        chunks.insert(chunks.partition_point(before), at);
        self.rows.push(Slot { seq, bytes, start: row.start.into(), id: row.id.into(), kind });
        at
    }

    fn compact_log(&mut self) {
        if self.log.len() > 2 * self.rows.len() + 64 {
            let rows = &self.rows;
            self.log.retain(|(seq, row)| rows.get(*row as usize).is_some_and(|slot| slot.seq == *seq));
        }
    }
}

impl Store for MemoryStore {
    fn head(&self) -> Result<Head, StoreError> {
        Ok(self.head.clone())
    }

    fn load(&self, kind: &str, id: &str, address: &[u8]) -> Result<Option<Chunk<'_>>, StoreError> {
        let Some(chunks) = self.chunks(kind, id) else { return Ok(None) };
        let after = chunks.partition_point(|at| *self.slot(*at).start <= *address);
        let found = after.checked_sub(1).and_then(|at| chunks.get(at));
        Ok(found.map(|at| {
            let slot = self.slot(*at);
            Chunk { start: Cow::Borrowed(&slot.start), seq: slot.seq, bytes: Cow::Borrowed(&slot.bytes) }
        }))
    }

    fn changes(
        &self,
        after: u64,
        visit: &mut dyn FnMut(Changed<'_>) -> ControlFlow<()>,
    ) -> Result<Head, StoreError> {
        let first = self.log.partition_point(|(seq, _)| *seq <= after);
        for (seq, row) in self.log.iter().skip(first) {
            let slot = self.slot(*row);
            if slot.seq != *seq {
                continue;
            }
            let changed = Changed { kind: &slot.kind, id: &slot.id, seq: *seq, bytes: &slot.bytes };
            if visit(changed).is_break() {
                break;
            }
        }
        Ok(self.head.clone())
    }

    fn kinds(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.kinds.keys().map(ToString::to_string).collect())
    }

    fn ids(&self, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        let Some(ids) = self.kinds.get(kind) else { return Ok(Vec::new()) };
        let mut ids: Vec<&str> = ids
            .values()
            .filter_map(|chunks| chunks.first())
            .map(|at| &*self.slot(*at).id)
            .filter(|id| after.is_none_or(|after| *id > after))
            .collect();
        ids.sort_unstable();
        Ok(ids.into_iter().take(limit).map(str::to_owned).collect())
    }

    fn records(
        &self,
        table: Table,
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.table(table).visit(from, visit);
        Ok(())
    }

    fn commit(&mut self, batch: Batch<'_>) -> Result<u64, CommitError> {
        let changed = |read: &RecordRead| self.table(read.table).get(&read.key) != read.value.as_deref();
        if batch.unchanged.iter().any(changed) {
            return Err(CommitError::Stale);
        }
        batch.reads.iter().try_for_each(|read| self.unmoved(read).map(drop))?;
        let mut places: SmallVec<[_; 4]> = SmallVec::new();
        for write in &batch.rows {
            places.push(self.unmoved(&write.row)?);
        }
        if let Some(incarnation) = batch.incarnation
            && !batch.rows.is_empty()
        {
            self.head.incarnations.push((incarnation, self.head.seq + 1));
        }
        for (write, place) in batch.rows.into_iter().zip(places) {
            self.head.seq += 1;
            let seq = self.head.seq;
            let at = match place {
                None => self.insert(write.row, seq, write.bytes),
                Some(at) => {
                    if let Some(slot) = self.rows.get_mut(at as usize) {
                        slot.seq = seq;
                        slot.put(write.bytes);
                    }
                    at
                }
            };
            self.log.push((seq, at));
        }
        self.compact_log();
        for record in batch.records {
            let key = match record.key {
                RecordKey::Bytes(bytes) => Key::new(&bytes),
                RecordKey::CommitSeq => Key::new(&self.head.seq.to_be_bytes()),
            };
            let Some(records) = self.records.get_mut(record.table as usize) else { continue };
            match record.value {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
        }
        self.head.high_water = match batch.high_water {
            HighWater::AtLeast(time) => self.head.high_water.max(time),
            HighWater::Set(time) => time,
        };
        self.head.digest = self.head.digest.plus(batch.sums);
        Ok(self.head.seq)
    }
}

/// Hashes ids the same way in every run.
#[derive(Debug, Default)]
struct FixedHasher(u64);

impl Hasher for FixedHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = self.0.rotate_left(31) ^ xxh3_64(bytes);
    }

    fn write_usize(&mut self, _length: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn memory_store_conforms() {
        conformance::run(MemoryStore::new);
    }

    #[test]
    fn a_copy_goes_its_own_way() {
        let write = |seq, bytes: &[u8]| {
            let row = RowRead { kind: "task", id: "a", start: Vec::new(), seq };
            Batch { rows: vec![crate::store::RowWrite { row, bytes: bytes.to_vec() }], ..Batch::default() }
        };
        let mut store = MemoryStore::new();
        store.commit(write(0, b"1")).unwrap();
        let mut copy = store.copy();
        assert_eq!(copy.commit(write(1, b"2")), Ok(2));
        assert_eq!(&*store.load("task", "a", b"").unwrap().unwrap().bytes, b"1");
        assert_eq!(&*copy.load("task", "a", b"").unwrap().unwrap().bytes, b"2");
        assert_eq!(store.head().unwrap().seq, 1);
    }
}
