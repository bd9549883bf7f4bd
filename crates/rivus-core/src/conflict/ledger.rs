//! Lists of conflicts in a store: this store's own, and on an authority what each other replica has yet to hear.
//!
//! A list is bounded in records and bytes; what it had to drop, oldest first, is counted and never forgotten. Every
//! change of a list names the list's head as read, so that two processes do not both append.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{ControlFlow, RangeInclusive};

use xxhash_rust::xxh3::xxh3_128;

use super::{CONFLICT_BYTES_MAX, CONFLICTS_MAX, Conflict};
use crate::bytes::{Cut, Put, Reader};
use crate::id::ReplicaId;
use crate::store::{RecordRead, RecordWrite, Store, StoreError, Table};

/// Whose list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum List {
    /// What this store has lost.
    Own,
    /// What this replica of another store has to be told.
    Of(ReplicaId),
}

/// How a list stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ListHead {
    /// The number of the next record.
    pub(crate) next: u64,
    held: u64,
    bytes: u64,
    /// How many were dropped because the list was full.
    pub(crate) dropped: u64,
}

impl ListHead {
    const NEW: Self = Self { next: 1, held: 0, bytes: 0, dropped: 0 };

    fn encode(self) -> Vec<u8> {
        let mut out = Vec::new();
        [self.next, self.held, self.bytes, self.dropped].into_iter().for_each(|part| out.varint(part));
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Cut> {
        let mut reader = Reader::new(bytes);
        let mut next = || reader.varint();
        Ok(Self { next: next()?, held: next()?, bytes: next()?, dropped: next()? })
    }
}

const HEAD: u8 = 0;
const RECORD: u8 = 1;

impl List {
    fn key(self, what: u8) -> Vec<u8> {
        let mut key = vec![what];
        match self {
            Self::Own => key.push(0),
            Self::Of(replica) => {
                key.push(1);
                key.extend_from_slice(&replica.0);
            }
        }
        key
    }

    fn record_key(self, number: u64) -> Vec<u8> {
        let mut key = self.key(RECORD);
        key.extend_from_slice(&number.to_be_bytes());
        key
    }

    /// How the list stands, and its record as found.
    pub(crate) fn head<S: Store>(self, store: &S) -> Result<(ListHead, Option<Vec<u8>>), StoreError> {
        let found = store.record(Table::Conflict, &self.key(HEAD))?;
        let head = match &found {
            None => ListHead::NEW,
            Some(bytes) => ListHead::decode(bytes).map_err(|Cut| unreadable())?,
        };
        Ok((head, found))
    }

    /// Visits the records from number `from` on.
    pub(crate) fn visit<S: Store>(
        self,
        store: &S,
        from: u64,
        visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let prefix = self.key(RECORD);
        store.records(Table::Conflict, &self.record_key(from), &mut |key, value| {
            let number = key.strip_prefix(prefix.as_slice()).and_then(|rest| Reader::new(rest).u64().ok());
            number.map_or(ControlFlow::Break(()), |number| visit(number, value))
        })
    }

    /// The conflicts with their numbers, oldest first.
    pub(crate) fn read<S: Store>(self, store: &S) -> Result<Vec<(u64, Conflict)>, StoreError> {
        let mut all = Vec::new();
        let mut failed = false;
        self.visit(store, 0, &mut |number, bytes| {
            match Conflict::decode(bytes) {
                Ok(conflict) => all.push((number, conflict)),
                Err(Cut) => failed = true,
            }
            ControlFlow::Continue(())
        })?;
        if failed { Err(unreadable()) } else { Ok(all) }
    }
}

/// Changes of lists, made in one commit.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    heads: BTreeMap<List, Open>,
    pub(crate) records: Vec<RecordWrite>,
}

#[derive(Debug)]
struct Open {
    head: ListHead,
    found: Option<Vec<u8>>,
    /// Hashes of the records, if somebody has asked whether one is there.
    known: Option<BTreeSet<u128>>,
    /// Numbers and lengths of the oldest records, as far as they were read, oldest first.
    oldest: VecDeque<(u64, u64)>,
    /// Where to read on for more of them.
    unread: u64,
    /// Numbers and lengths of those appended.
    fresh: VecDeque<(u64, u64)>,
}

/// How many records are read at once to find out which must go.
const OLDEST_AT_ONCE: usize = 256;

impl Open {
    fn new<S: Store>(list: List, store: &S) -> Result<Self, StoreError> {
        let (head, found) = list.head(store)?;
        let (oldest, fresh) = Default::default();
        Ok(Self { head, found, known: None, oldest, unread: 0, fresh })
    }

    fn forget(&mut self, len: u64) {
        self.head.held = self.head.held.saturating_sub(1);
        self.head.bytes = self.head.bytes.saturating_sub(len);
    }

    /// Number and length of the oldest record, which the caller takes out.
    fn pop_oldest<S: Store>(&mut self, store: &S, list: List) -> Result<Option<(u64, u64)>, StoreError> {
        if self.oldest.is_empty() {
            let (mut left, Self { oldest, unread, .. }) = (OLDEST_AT_ONCE, &mut *self);
            list.visit(store, *unread, &mut |number, bytes| {
                oldest.push_back((number, bytes.len() as u64));
                *unread = number.saturating_add(1);
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        Ok(self.oldest.pop_front().or_else(|| self.fresh.pop_front()))
    }
}

impl Lists {
    fn open<S: Store>(&mut self, list: List, store: &S) -> Result<&mut Open, StoreError> {
        Ok(match self.heads.entry(list) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => place.insert(Open::new(list, store)?),
        })
    }

    /// Whether the list has the very same conflict already: it was told twice.
    pub(crate) fn has<S: Store>(
        &mut self,
        store: &S,
        list: List,
        conflict: &Conflict,
    ) -> Result<bool, StoreError> {
        let open = self.open(list, store)?;
        let known = match &mut open.known {
            Some(known) => known,
            None => {
                let mut all = BTreeSet::new();
                list.visit(store, 0, &mut |_, bytes| {
                    all.insert(xxh3_128(bytes));
                    ControlFlow::Continue(())
                })?;
                open.known.insert(all)
            }
        };
        let mut bytes = Vec::new();
        conflict.encode(&mut bytes);
        Ok(!known.insert(xxh3_128(&bytes)))
    }

    /// Appends a conflict and gives its number.
    pub(crate) fn append<S: Store>(
        &mut self,
        store: &S,
        list: List,
        conflict: &Conflict,
    ) -> Result<u64, StoreError> {
        let mut bytes = Vec::new();
        conflict.encode(&mut bytes);
        let open = self.open(list, store)?;
        let (number, len) = (open.head.next, bytes.len() as u64);
        open.head.next += 1;
        open.head.held += 1;
        open.head.bytes += len;
        open.fresh.push_back((number, len));
        let mut records = vec![RecordWrite::put(Table::Conflict, list.record_key(number), bytes)];
        while open.head.held > CONFLICTS_MAX || open.head.bytes > CONFLICT_BYTES_MAX {
            let Some((oldest, len)) = open.pop_oldest(store, list)? else { break };
            open.forget(len);
            open.head.dropped += 1;
            records.push(RecordWrite::remove(Table::Conflict, list.record_key(oldest)));
        }
        self.records.append(&mut records);
        Ok(number)
    }

    /// Takes the records with these numbers out and says how many there were. Not to be mixed with appending.
    pub(crate) fn remove<S: Store>(
        &mut self,
        store: &S,
        list: List,
        numbers: RangeInclusive<u64>,
    ) -> Result<usize, StoreError> {
        let open = self.open(list, store)?;
        let mut records = Vec::new();
        list.visit(store, *numbers.start(), &mut |number, bytes| {
            if !numbers.contains(&number) {
                return ControlFlow::Break(());
            }
            open.forget(bytes.len() as u64);
            records.push(RecordWrite::remove(Table::Conflict, list.record_key(number)));
            ControlFlow::Continue(())
        })?;
        let count = records.len();
        self.records.append(&mut records);
        Ok(count)
    }

    /// Counts as dropped what was dropped elsewhere, or no longer counts it.
    pub(crate) fn count_dropped<S: Store>(
        &mut self,
        store: &S,
        list: List,
        count: impl FnOnce(u64) -> u64,
    ) -> Result<(), StoreError> {
        let open = self.open(list, store)?;
        open.head.dropped = count(open.head.dropped);
        Ok(())
    }

    /// What to write, and what must be as it was read.
    pub(crate) fn into_parts(self) -> (Vec<RecordWrite>, Vec<RecordRead>) {
        let Self { heads, mut records } = self;
        let mut reads = Vec::new();
        for (list, open) in heads {
            let key = list.key(HEAD);
            let before = open.found.clone().unwrap_or_else(|| ListHead::NEW.encode());
            let after = open.head.encode();
            if before != after {
                records.push(RecordWrite::put(Table::Conflict, key.clone(), after));
            }
            reads.push(RecordRead { table: Table::Conflict, key, value: open.found });
        }
        (records, reads)
    }
}

fn unreadable() -> StoreError {
    StoreError::Damaged("a list of conflicts is unreadable".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;
    use crate::conflict::LostTo;
    use crate::store::{Batch, MemoryStore};

    fn conflict(n: u64, value_len: usize) -> Conflict {
        let stamp = |time| Stamp { time, ..Stamp::LOWEST };
        Conflict {
            kind: "task".to_owned(),
            id: "t".to_owned(),
            address: crate::address::field("title"),
            loser: stamp(n),
            value: vec![0; value_len],
            winner: stamp(n + 1),
            winner_value: Vec::new(),
            to: LostTo::Write,
        }
    }

    fn change(store: &mut MemoryStore, change: impl FnOnce(&mut Lists, &MemoryStore)) {
        let mut lists = Lists::default();
        change(&mut lists, store);
        let (records, unchanged) = lists.into_parts();
        let (records, unchanged) = (records.into(), unchanged.into());
        store.commit(Batch { records, unchanged, ..Batch::default() }).unwrap();
    }

    fn append(store: &mut MemoryStore, list: List, numbers: std::ops::Range<u64>, value_len: usize) {
        change(store, |lists, store| {
            for n in numbers {
                lists.append(store, list, &conflict(n, value_len)).unwrap();
            }
        });
    }

    /// The first number, how many there are, how many were dropped; the head agrees with the records.
    fn standing(store: &MemoryStore, list: List) -> (Option<u64>, u64, u64) {
        let (mut first, mut held, mut bytes_len) = (None, 0, 0);
        list.visit(store, 0, &mut |number, bytes| {
            first = first.or(Some(number));
            held += 1;
            bytes_len += bytes.len() as u64;
            ControlFlow::Continue(())
        })
        .unwrap();
        let (head, _) = list.head(store).unwrap();
        assert_eq!((head.held, head.bytes), (held, bytes_len));
        (first, held, head.dropped)
    }

    #[test]
    fn a_full_list_drops_the_oldest_and_counts_them() {
        let mut store = MemoryStore::new();
        let other = List::Of(ReplicaId::from_u128(7));
        append(&mut store, other, 0..3, 1);
        for (range, expected) in [
            (0..CONFLICTS_MAX - 2, (Some(1), CONFLICTS_MAX - 2, 0)),
            (0..600, (Some(599), CONFLICTS_MAX, 598)),
            // All of the list is of one commit.
            (0..CONFLICTS_MAX + 9, (Some(CONFLICTS_MAX + 598 + 10), CONFLICTS_MAX, CONFLICTS_MAX + 598 + 9)),
        ] {
            append(&mut store, List::Own, range, 1);
            assert_eq!(standing(&store, List::Own), expected);
        }
        assert_eq!(standing(&store, other), (Some(1), 3, 0));
        change(&mut store, |lists, store| assert_eq!(lists.remove(store, other, 0..=2), Ok(2)));
        assert_eq!(standing(&store, other), (Some(3), 1, 0));
    }

    #[test]
    fn long_values_are_dropped_before_they_fill_the_store() {
        let mut store = MemoryStore::new();
        append(&mut store, List::Own, 0..40, 4 << 20);
        let (first, held, dropped) = standing(&store, List::Own);
        assert_eq!((first, held, dropped), (Some(26), 15, 25));
    }

    #[test]
    fn the_same_conflict_is_found_again() {
        let mut store = MemoryStore::new();
        append(&mut store, List::Own, 5..6, 1);
        change(&mut store, |lists, store| {
            let has = [5, 6, 6].map(|n| lists.has(store, List::Own, &conflict(n, 1)).unwrap());
            assert_eq!(has, [true, false, true]);
        });
        assert_eq!(Conflict::decode(&[7]), Err(Cut));
    }
}
