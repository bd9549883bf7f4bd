//! A store in memory: for tests, the simulator, and replicas that need no disk.

mod records;
mod scopes;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use records::Records;
use scopes::Scopes;

use super::{
    Batch, Changed, Chunk, CommitError, Digest, Head, HighWater, Place, Record, RecordKey, RecordRead,
    RowRead, ScopeChange, Store, StoreError, Table,
};

#[expect(clippy::disallowed_types, reason = "looked up by key only, never iterated; its keys are hashes")]
type Index = std::collections::HashMap<u64, Chunks, BuildHasherDefault<KeyIsHash>>;

/// Rows of one hash in order of kind, id and start: nearly always the chunks of one entity, of which nearly
/// always there is one.
type Chunks = SmallVec<[u32; 4]>;

/// Keeps everything in memory; gone when dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    head: Head,
    /// Each with its number.
    kinds: BTreeMap<Arc<str>, u32>,
    /// By hash of kind and id, as indexes into the rows.
    index: Index,
    rows: Vec<Slot>,
    /// Places of rows that were removed.
    free: Vec<u32>,
    /// (seq, row) of every write, ascending; one whose row has moved on since is stale and skipped.
    log: Vec<(u64, u32)>,
    scopes: Scopes,
    /// By table.
    records: [Records; Table::ALL.len()],
}

/// A row.
#[derive(Clone, Debug)]
struct Slot {
    /// 0 if it was removed.
    seq: u64,
    kind: u32,
    scope: u32,
    id_len: u32,
    start_len: u32,
    /// Id, start and packed row in one piece: who compares the id needs the row next.
    bytes: Vec<u8>,
}

impl Slot {
    fn new(seq: u64, kind: u32, scope: u32, row: &RowRead<'_>, packed: &[u8]) -> Self {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let (id_len, start_len) = (len(row.id.as_bytes()), len(&row.start));
        let bytes = [row.id.as_bytes(), &row.start, packed].concat();
        Self { seq, kind, scope, id_len, start_len, bytes }
    }

    fn id(&self) -> &[u8] {
        self.bytes.get(..self.id_len as usize).unwrap_or_default()
    }

    fn start(&self) -> &[u8] {
        self.bytes.get(self.id_len as usize..self.packed_at()).unwrap_or_default()
    }

    fn packed(&self) -> &[u8] {
        self.bytes.get(self.packed_at()..).unwrap_or_default()
    }

    fn packed_at(&self) -> usize {
        self.id_len as usize + self.start_len as usize
    }

    /// What rows of one hash are ordered by.
    fn key(&self) -> (u32, &[u8], &[u8]) {
        (self.kind, self.id(), self.start())
    }

    fn is_of(&self, kind: u32, id: &str) -> bool {
        self.kind == kind && self.id() == id.as_bytes()
    }

    /// Takes a new packed row, in the memory that the old one has if that is enough and not far too much: it is at
    /// hand, and the store does not scatter.
    fn put(&mut self, packed: &[u8]) {
        let head = self.packed_at();
        let (room, len) = (self.bytes.capacity(), head + packed.len());
        self.bytes.truncate(head);
        if room < len {
            self.bytes.reserve_exact(packed.len() + packed.len() / 4);
        }
        self.bytes.extend_from_slice(packed);
        if room > 2 * len {
            self.bytes.shrink_to_fit();
        }
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
        Self {
            head: self.head.clone(),
            kinds: self.kinds.clone(),
            index: self.index.clone(),
            rows: self.rows.clone(),
            free: self.free.clone(),
            log: self.log.clone(),
            scopes: self.scopes.clone(),
            records: self.records.clone(),
        }
    }

    fn slot(&self, row: u32) -> &Slot {
        #[expect(clippy::expect_used, reason = "indexes are made by this store, and places stay")]
        self.rows.get(row as usize).expect("a row index is valid")
    }

    fn table(&self, table: Table) -> &Records {
        #[expect(clippy::expect_used, reason = "tables are numbered from 0 up")]
        self.records.get(table as usize).expect("every table has its records")
    }

    /// The row of this entity with the greatest start at or below `address`.
    fn find(&self, kind: &str, id: &str, address: &[u8]) -> Option<u32> {
        let kind = *self.kinds.get(kind)?;
        let chunks = self.index.get(&hash(kind, id))?;
        let found = match chunks.as_slice() {
            [only] => Some(only),
            several => {
                let is_after = |slot: &Slot| slot.key() > (kind, id.as_bytes(), address);
                let after = several.partition_point(|at| !is_after(self.slot(*at)));
                after.checked_sub(1).and_then(|before| several.get(before))
            }
        };
        found.copied().filter(|at| self.slot(*at).is_of(kind, id))
    }

    /// Where the row is, if it is; or that it has moved.
    fn unmoved(&self, row: &RowRead<'_>) -> Result<Option<u32>, CommitError> {
        let hinted = row.place.0.checked_sub(1).and_then(|at| u32::try_from(at).ok());
        let is_there =
            |at: &u32| row.seq > 0 && self.rows.get(*at as usize).is_some_and(|s| s.seq == row.seq);
        if let Some(at) = hinted.filter(is_there) {
            return Ok(Some(at));
        }
        let has_start = |at: &u32| self.slot(*at).start() == &*row.start;
        let found = self.find(row.kind, row.id, &row.start).filter(has_start);
        let seq = found.map_or(0, |at| self.slot(at).seq);
        if seq == row.seq { Ok(found) } else { Err(CommitError::Stale) }
    }

    #[expect(clippy::cast_possible_truncation, reason = "memory ends long before 2^32 rows or kinds")]
    fn insert(&mut self, row: &RowRead<'_>, seq: u64, scope: u32, packed: &[u8]) -> u32 {
        let free = self.free.pop();
        let at = free.unwrap_or(self.rows.len() as u32);
        let next = self.kinds.len() as u32;
        let kind = match self.kinds.get(row.kind) {
            Some(kind) => *kind,
            None => *self.kinds.entry(row.kind.into()).or_insert(next),
        };
        let slot = Slot::new(seq, kind, scope, row, packed);
        let (rows, chunks) = (&self.rows, self.index.entry(hash(kind, row.id)).or_default());
        let is_before = |at: &u32| rows.get(*at as usize).is_some_and(|other| other.key() < slot.key());
        let place = chunks.partition_point(is_before);
        chunks.insert(place, at);
        match self.rows.get_mut(at as usize) {
            Some(place) => *place = slot,
            None => self.rows.push(slot),
        }
        at
    }

    /// Removes a row. What the log says of its place is of a seq that it no longer has.
    fn remove(&mut self, row: &RowRead<'_>, at: u32) {
        let Some(kind) = self.kinds.get(row.kind).copied() else { return };
        let key = hash(kind, row.id);
        if let Some(chunks) = self.index.get_mut(&key) {
            chunks.retain(|one| *one != at);
            if chunks.is_empty() {
                self.index.remove(&key);
            }
        }
        if let Some(slot) = self.rows.get_mut(at as usize) {
            *slot = Slot { seq: 0, kind: slot.kind, scope: 0, id_len: 0, start_len: 0, bytes: Vec::new() };
            self.free.push(at);
        }
    }

    /// The names of the kinds, by number.
    fn kind_names(&self) -> Vec<&str> {
        let mut kinds = vec![""; self.kinds.len()];
        for (name, kind) in &self.kinds {
            if let Some(place) = kinds.get_mut(*kind as usize) {
                *place = name;
            }
        }
        kinds
    }

    /// The rows above a seq, ascending, each with the number of its scope.
    fn rows_after<'s>(
        &'s self,
        after: u64,
        kinds: &'s [&'s str],
    ) -> impl Iterator<Item = (u32, Changed<'s>)> + 's {
        let first = self.log.partition_point(|(seq, _)| *seq <= after);
        self.log.iter().skip(first).filter_map(|(seq, row)| {
            let slot = self.slot(*row);
            if slot.seq != *seq {
                return None;
            }
            let kind = kinds.get(slot.kind as usize).copied().unwrap_or_default();
            let id = std::str::from_utf8(slot.id()).unwrap_or_default();
            Some((slot.scope, Changed { kind, id, seq: *seq, bytes: slot.packed() }))
        })
    }

    fn compact_log(&mut self) {
        if self.log.len() > 2 * self.rows.len() + 64 {
            let rows = &self.rows;
            self.log.retain(|(seq, row)| rows.get(*row as usize).is_some_and(|slot| slot.seq == *seq));
        }
    }

    fn write_records(&mut self, batch: &Batch<'_>) {
        for record in batch.records.iter() {
            let seq = self.head.seq.to_be_bytes();
            let key = match &record.key {
                RecordKey::Bytes(bytes) => bytes.as_slice(),
                RecordKey::CommitSeq => &seq,
            };
            let Some(records) = self.records.get_mut(record.table as usize) else { continue };
            match &record.value {
                Some(value) => records.insert(key, value),
                None => records.remove(key),
            }
        }
    }
}

impl Store for MemoryStore {
    fn head(&self) -> Result<Head, StoreError> {
        Ok(self.head.clone())
    }

    fn load(&self, kind: &str, id: &str, address: &[u8]) -> Result<Option<Chunk<'_>>, StoreError> {
        Ok(self.find(kind, id, address).map(|at| {
            let slot = self.slot(at);
            fetch(&slot.bytes);
            let (start, bytes) = (Cow::Borrowed(slot.start()), Cow::Borrowed(slot.packed()));
            Chunk { start, seq: slot.seq, place: Place(u64::from(at) + 1), bytes }
        }))
    }

    fn changes(
        &self,
        after: u64,
        visit: &mut dyn FnMut(Changed<'_>) -> ControlFlow<()>,
    ) -> Result<Head, StoreError> {
        let kinds = self.kind_names();
        for (_, changed) in self.rows_after(after, &kinds) {
            if visit(changed).is_break() {
                break;
            }
        }
        Ok(self.head.clone())
    }

    fn changes_in(
        &self,
        scope: &str,
        after: u64,
        visit: &mut dyn FnMut(ScopeChange<'_>) -> ControlFlow<()>,
    ) -> Result<Head, StoreError> {
        let head = Head { digest: self.scopes.digest(scope, self.head.digest), ..self.head.clone() };
        let Some(number) = self.scopes.number(scope) else { return Ok(head) };
        let kinds = self.kind_names();
        let rows = self.rows_after(after, &kinds).filter(|(scope, _)| *scope == number);
        let mut rows = rows.map(|(_, changed)| ScopeChange::Row(changed)).peekable();
        let mut gone = self.scopes.left_after(number, after).peekable();
        loop {
            let next = match (rows.peek(), gone.peek()) {
                (Some(row), Some(left)) if left.seq() < row.seq() => gone.next(),
                (Some(_), _) => rows.next(),
                (None, _) => gone.next(),
            };
            let Some(next) = next else { return Ok(head) };
            if visit(next).is_break() {
                return Ok(head);
            }
        }
    }

    fn scopes(&self) -> Result<Vec<(String, Digest)>, StoreError> {
        Ok(self.scopes.named())
    }

    fn has_left(&self, scope: &str, after: u64) -> Result<bool, StoreError> {
        let number = self.scopes.number(scope);
        Ok(number.is_some_and(|number| self.scopes.left_after(number, after).next().is_some()))
    }

    fn left_by(&self, kind: &str, id: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.scopes.left_by(kind, id))
    }

    fn kinds(&self) -> Result<Vec<String>, StoreError> {
        let has_rows = |kind: u32| self.rows.iter().any(|slot| slot.seq > 0 && slot.kind == kind);
        let kinds = self.kinds.iter().filter(|(_, kind)| has_rows(**kind));
        Ok(kinds.map(|(name, _)| name.to_string()).collect())
    }

    fn ids(&self, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        let Some(kind) = self.kinds.get(kind) else { return Ok(Vec::new()) };
        let first = self.rows.iter().filter(|slot| slot.seq > 0 && slot.kind == *kind && slot.start_len == 0);
        let ids = first.filter_map(|slot| std::str::from_utf8(slot.id()).ok());
        let mut ids: Vec<&str> = ids.filter(|id| after.is_none_or(|after| *id > after)).collect();
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

    fn last_record(&self, table: Table, below: &[u8]) -> Result<Option<Record>, StoreError> {
        Ok(self.table(table).last_below(below))
    }

    fn record(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.table(table).get(key).map(<[u8]>::to_vec))
    }

    fn commit(&mut self, batch: Batch<'_>) -> Result<u64, CommitError> {
        let changed = |read: &RecordRead| self.table(read.table).get(&read.key) != read.value.as_deref();
        let moved = batch.head.is_some_and(|seq| seq != self.head.seq);
        if moved || batch.unchanged.iter().any(changed) {
            return Err(CommitError::Stale);
        }
        batch.reads.iter().try_for_each(|read| self.unmoved(read).map(drop))?;
        let mut places: SmallVec<[_; 4]> = SmallVec::new();
        for write in batch.rows.iter() {
            places.push(self.unmoved(&write.row)?);
        }
        if let Some(incarnation) = batch.incarnation
            && !batch.rows.is_empty()
        {
            self.head.incarnations.push((incarnation, self.head.seq + 1));
        }
        for (write, place) in batch.rows.iter().zip(places) {
            self.head.seq += 1;
            let seq = self.head.seq;
            if write.bytes.is_empty() {
                place.into_iter().for_each(|at| self.remove(&write.row, at));
                continue;
            }
            let scope = self.scopes.enter(write.scope);
            let at = match place {
                None => self.insert(&write.row, seq, scope, &write.bytes),
                Some(at) => {
                    if let Some(slot) = self.rows.get_mut(at as usize) {
                        slot.seq = seq;
                        slot.scope = scope;
                        slot.put(&write.bytes);
                    }
                    at
                }
            };
            self.log.push((seq, at));
        }
        self.scopes.commit(&batch, self.head.seq);
        self.compact_log();
        self.write_records(&batch);
        self.head.high_water = match batch.high_water {
            HighWater::AtLeast(time) => self.head.high_water.max(time),
            HighWater::Set(time) => time,
        };
        self.head.digest = self.head.digest.plus(batch.sums);
        Ok(self.head.seq)
    }
}

/// Asks the memory for all of a row at once: who reads it waits for one piece after the other, each of which says
/// where the next begins.
fn fetch(row: &[u8]) {
    const CACHE_LINE_BYTES: usize = 64;
    std::hint::black_box(row.iter().step_by(CACHE_LINE_BYTES).fold(0, |all, byte| all ^ byte));
}

fn hash(kind: u32, id: &str) -> u64 {
    #[cfg(test)]
    if tests::ALL_ALIKE.get() {
        return 1;
    }
    xxh3_64_with_seed(id.as_bytes(), u64::from(kind))
}

/// Takes a key for its hash: it is one.
#[derive(Debug, Default)]
struct KeyIsHash(u64);

impl Hasher for KeyIsHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {}

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn memory_store_conforms() {
        conformance::run(MemoryStore::new);
    }

    thread_local! {
        /// Whether all entities have one hash.
        pub(super) static ALL_ALIKE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }

    #[test]
    fn entities_of_one_hash_are_kept_apart() {
        ALL_ALIKE.set(true);
        conformance::run(MemoryStore::new);
        ALL_ALIKE.set(false);
    }

    #[test]
    fn a_copy_goes_its_own_way() {
        let write = |seq, bytes: &[u8]| {
            let row =
                RowRead { kind: "task", id: "a", start: Cow::Borrowed(&[]), seq, place: Place::default() };
            let row = crate::store::RowWrite { row, bytes: bytes.to_vec().into(), scope: "" };
            Batch { rows: vec![row].into(), ..Batch::default() }
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
