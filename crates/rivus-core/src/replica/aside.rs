//! The quarantine: registers from the future, kept aside until their time has come.
//!
//! What is in it came from others and may be due in a thousand years, so it has bounds. Whoever is in time is not concerned by
//! them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::join::newest_time;
use super::{Incoming, Part, Replica, Trust, commit_records, count};
use crate::bytes::{Cut, Put, Reader};
use crate::canary::{Canary, is_on};
use crate::clock::Millis;
use crate::id::ReplicaId;
use crate::row::{Change, decode_register, encode_register};
use crate::store::{CommitError, RecordKey, RecordWrite, Store, StoreError, Table};

/// The most registers that a store sets aside, whoever sent them.
pub const ASIDE_REGISTERS_MAX: usize = 131_072;
/// The most bytes that they take, with their keys.
pub const ASIDE_BYTES_MAX: usize = 64 << 20;

impl<S: Store> Replica<S> {
    /// Joins the registers that were set aside and whose time has come, and says how many.
    ///
    /// # Errors
    /// [`CommitError`]; those not joined stay aside.
    pub fn release(&mut self, now: Millis) -> Result<usize, CommitError> {
        let limit = self.admission.latest(self.clock.corrected(now)).unwrap_or(u64::MAX);
        let mut due: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        self.store.records(Table::Quarantine, &[], &mut |key, value| {
            let time = Reader::new(key).u64().unwrap_or(u64::MAX);
            if time > limit {
                return ControlFlow::Break(());
            }
            due.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        for (key, value) in &due {
            let incoming = set_aside(value)?;
            if !is_on(Canary::ReleaseForgets) {
                self.join(now, &[incoming], None, Trust::Peer, None)?;
            }
            commit_records(&mut self.store, vec![RecordWrite::remove(Table::Quarantine, key.clone())])?;
        }
        Ok(due.len())
    }

    /// Whether a register is set aside that any of these replicas has written.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn has_aside_of(&self, replicas: &[ReplicaId]) -> Result<bool, StoreError> {
        let (mut found, mut failed) = (false, None);
        self.store.records(Table::Quarantine, &[], &mut |_, value| {
            match set_aside(value) {
                Ok(incoming) => {
                    let registers = incoming.changes.iter().filter_map(|(_, change)| change.register());
                    let mut writers = registers.flat_map(|r| r.alive.iter().map(|c| c.stamp.replica));
                    found = writers.any(|writer| replicas.contains(&writer));
                }
                Err(error) => failed = Some(error),
            }
            if found || failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        failed.map_or(Ok(found), Err)
    }

    /// How many registers are set aside.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn quarantined(&self) -> Result<usize, StoreError> {
        count(&self.store, Table::Quarantine)
    }

    /// Whether what is to be set aside, beside what is already, stays within bounds. What is there already needs no more
    /// room.
    ///
    /// # Errors
    /// [`StoreError::Aside`] if it does not.
    pub(super) fn check_room_aside(&self, records: &[RecordWrite]) -> Result<(), CommitError> {
        let puts = records.iter().filter(|record| record.table == Table::Quarantine);
        let size = |key: &[u8], value: &[u8]| key.len() + value.len();
        let mut new: BTreeMap<&[u8], usize> = puts
            .filter_map(|put| match (&put.key, &put.value) {
                (RecordKey::Bytes(key), Some(value)) => Some((key.as_slice(), size(key, value))),
                _ => None,
            })
            .collect();
        let (mut registers, mut bytes) = (0, 0);
        self.store.records(Table::Quarantine, &[], &mut |key, value| {
            new.remove(key);
            registers += 1;
            bytes += size(key, value);
            ControlFlow::Continue(())
        })?;
        let fits = registers + new.len() <= ASIDE_REGISTERS_MAX
            && bytes + new.values().sum::<usize>() <= ASIDE_BYTES_MAX;
        if new.is_empty() || fits { Ok(()) } else { Err(StoreError::Aside.into()) }
    }
}

/// A register as the quarantine keeps it.
fn set_aside(record: &[u8]) -> Result<Incoming<'_>, StoreError> {
    let mut reader = Reader::new(record);
    let mut read = || -> Result<Incoming<'_>, Cut> {
        let (kind, id, address) = (reader.str()?, reader.str()?, reader.slice()?);
        let register = decode_register(reader.rest())?;
        let change = Change::Join { register, source: None };
        Ok(Incoming { kind: Arc::from(kind), id: Arc::from(id), changes: vec![(Arc::from(address), change)] })
    };
    read().map_err(|_| StoreError::Damaged("a record of the quarantine".to_owned()))
}

/// What keeps a register aside.
pub(super) fn quarantine<A>(part: &Part<'_, A>, address: &[u8], change: &Change<'_>) -> Option<RecordWrite> {
    let register = change.register()?;
    let mut value = Vec::new();
    value.slice(part.kind.as_bytes());
    value.slice(part.id.as_bytes());
    value.slice(address);
    encode_register(register, &mut value);
    let mut key = newest_time(change).to_be_bytes().to_vec();
    key.extend_from_slice(&xxh3_128(&value).to_be_bytes());
    Some(RecordWrite::put(Table::Quarantine, key, value))
}
