//! The newest instant known of each replica, and which of its edits were refused.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::read::each_entry;
use super::unreadable;
use crate::bytes::{Cut, Put, Reader};
use crate::clock::Instant;
use crate::id::ReplicaId;
use crate::register::Register;
use crate::row::Change;
use crate::store::{RecordRead, RecordWrite, Store, StoreError, Table};

/// The greatest generation and the greatest time, each by itself.
pub(super) fn greater(a: Instant, b: Instant) -> Instant {
    Instant { generation: a.generation.max(b.generation), time: a.time.max(b.time) }
}

/// The greatest generation and time known of a replica.
pub(super) fn newest_of<S: Store>(store: &S, replica: ReplicaId) -> Result<Instant, StoreError> {
    let Some(bytes) = store.record(Table::Newest, &replica.0)? else { return Ok(Instant::default()) };
    Reader::new(&bytes).instant().map_err(|_| unreadable("a replica's newest stamp"))
}

pub(super) fn record_newest<S: Store>(
    store: &S,
    replica: ReplicaId,
    instant: Instant,
    records: &mut Vec<RecordWrite>,
) -> Result<(), StoreError> {
    let known = newest_of(store, replica)?;
    let now = greater(instant, known);
    if now != known {
        let mut value = Vec::new();
        value.instant(now);
        records.push(RecordWrite::put(Table::Newest, replica.0, value));
    }
    Ok(())
}

fn note(newest: &mut Newest, register: &Register<'_>) {
    let alive = register.alive.iter().map(|c| (c.stamp.replica, c.stamp.instant()));
    for (replica, instant) in alive.chain(register.seen.iter().map(|s| (s.replica, s.instant))) {
        let known = newest.entry(replica).or_default();
        *known = greater(instant, *known);
    }
}

/// By replica, what is found of its newest stamps.
pub(super) type Newest = BTreeMap<ReplicaId, Instant>;

/// Takes over what registers that are joined tell of replicas' newest stamps.
pub(super) fn note_all<A>(newest: &mut Newest, joined: &[(A, Change<'_>)]) {
    let registers = joined.iter().filter_map(|(_, change)| change.register());
    registers.for_each(|register| note(newest, register));
}

/// Records what was found of replicas' newest stamps.
pub(super) fn record_all<S: Store>(
    store: &S,
    newest: Newest,
    records: &mut Vec<RecordWrite>,
) -> Result<(), StoreError> {
    newest.into_iter().try_for_each(|(replica, instant)| record_newest(store, replica, instant, records))
}

/// The newest stamps of all replicas, from the registers.
pub(super) fn newest_of_all<S: Store>(store: &S) -> Result<Vec<RecordWrite>, StoreError> {
    let mut newest = Newest::new();
    each_entry(store, &mut |_, _, entry| {
        note(&mut newest, &entry.shown()?);
        Ok(())
    })?;
    let mut records = Vec::new();
    record_all(store, newest, &mut records)?;
    Ok(records)
}

/// How many times of refused edits are remembered of a replica. Of what is older it is not known.
const TURNED_MAX: usize = 256;

/// What comes behind the replica in the key of the times at which its refused edits were made.
const TURNED: u8 = 1;

/// By replica, which of its edits were refused. Its author may not have heard, and push them again: then they are no
/// edits that were accepted unheard.
pub(super) type TurnedAway = BTreeMap<ReplicaId, Turned>;

/// The times of a replica's refused edits.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Turned {
    /// Up to here any may have been.
    floor: u64,
    times: BTreeSet<u64>,
    changed: bool,
    /// The record as it was read.
    read: Option<Vec<u8>>,
}

impl Turned {
    /// Whether the edit of this time was refused, or may have been.
    pub(super) fn has(&self, time: u64) -> bool {
        time <= self.floor || self.times.contains(&time)
    }

    pub(super) fn note(&mut self, time: u64) {
        self.changed |= !self.has(time) && self.times.insert(time);
        while self.times.len() > TURNED_MAX {
            self.floor = self.times.pop_first().unwrap_or(self.floor);
        }
    }

    /// It was accepted after all.
    pub(super) fn forget(&mut self, time: u64) {
        self.changed |= self.times.remove(&time);
    }

    /// What is to be recorded, if that is another than before, and that it was read as it was.
    pub(super) fn record(self, replica: ReplicaId) -> Option<(RecordRead, RecordWrite)> {
        if !self.changed {
            return None;
        }
        let mut value = Vec::with_capacity(8 * (self.times.len() + 1));
        value.extend_from_slice(&self.floor.to_be_bytes());
        self.times.iter().for_each(|time| value.extend_from_slice(&time.to_be_bytes()));
        let read = RecordRead { table: Table::Newest, key: turned_key(replica), value: self.read };
        Some((read, RecordWrite::put(Table::Newest, turned_key(replica), value)))
    }
}

fn turned_key(replica: ReplicaId) -> Vec<u8> {
    let mut key = replica.0.to_vec();
    key.push(TURNED);
    key
}

/// Which edits of a replica were refused, read once.
pub(super) fn turned_of<'t, S: Store>(
    store: &S,
    all: &'t mut TurnedAway,
    replica: ReplicaId,
) -> Result<&'t mut Turned, StoreError> {
    match all.entry(replica) {
        Entry::Occupied(known) => Ok(known.into_mut()),
        Entry::Vacant(place) => {
            let mut turned = Turned::default();
            if let Some(bytes) = store.record(Table::Newest, &turned_key(replica))? {
                let mut reader = Reader::new(&bytes);
                let mut read = || -> Result<(), Cut> {
                    turned.floor = reader.u64()?;
                    while !reader.is_empty() {
                        turned.times.insert(reader.u64()?);
                    }
                    Ok(())
                };
                read().map_err(|Cut| unreadable("which edits of a replica were refused"))?;
                turned.read = Some(bytes.to_vec());
            }
            Ok(place.insert(turned))
        }
    }
}
