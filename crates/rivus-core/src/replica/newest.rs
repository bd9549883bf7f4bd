//! The newest instant known of each replica.

use std::collections::BTreeMap;

use super::read::each_entry;
use super::unreadable;
use crate::bytes::{Put, Reader};
use crate::clock::Instant;
use crate::id::ReplicaId;
use crate::register::Register;
use crate::row::Change;
use crate::store::{RecordWrite, Store, StoreError, Table};

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
