//! One machine: its replica, its clock, and what was found in its store when it was last looked at.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use rivus_core::address::Parts;
use rivus_core::clock::{Admission, Millis, Stamp};
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::Seeds;
use rivus_core::replica::{OpenOptions, Replica, Watching};
use rivus_core::row::{Row, encode_register};
use rivus_core::schema::Schema;
use rivus_core::store::{MemoryStore, Store, StoreError};
use rivus_core::view::View;

use super::plan::Variant;
use crate::model::rules::{Entities, Evaluated, Registers};
use crate::random::mixed;

/// When the simulated world begins, in ms since 1970.
pub(super) const BEGIN_MS: i64 = 1_700_000_000_000;

/// Registers in their stored form, by address.
pub(super) type Held = BTreeMap<Vec<u8>, Vec<u8>>;

/// A kind and an id.
pub(super) type Key = (String, String);

#[derive(Debug)]
pub(super) struct Site {
    pub(super) replica: Replica<MemoryStore>,
    options: OpenOptions,
    pub(super) skew_ms: i64,
    /// By how much the clock was set.
    pub(super) set_ms: i64,
    pub(super) grant: u8,
    /// The version of the rules that the program here knows.
    pub(super) epoch: u32,
    /// Whether registers have arrived since the last look, be they known or not.
    pub(super) has_received: bool,
    pub(super) seen: Seen,
}

/// What was found when a site was last looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Up to where.
    pub(super) seq: u64,
    pub(super) held: BTreeMap<Key, Arc<Held>>,
    pub(super) entities: Entities,
    pub(super) evaluated: Arc<Evaluated>,
    /// The records of an index made anew of these rows.
    pub(super) made: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) views: BTreeMap<Key, View>,
    /// By entry, of those that show: whether it was closed, and on whose account.
    pub(super) timers: BTreeMap<String, Timer>,
    pub(super) rejected: usize,
    /// Whether rules were evaluated.
    pub(super) is_ruled: bool,
}

/// How an entry was last shown.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Timer {
    pub(super) is_closed: bool,
    pub(super) group: String,
    pub(super) rival: Option<String>,
    /// Whether the rival had claimed the group.
    pub(super) has_claim: bool,
    pub(super) held: Arc<Held>,
}

impl Site {
    pub(super) fn open(
        store: MemoryStore,
        schema: Arc<Schema>,
        seed: u64,
        number: usize,
        skew_ms: i64,
    ) -> Result<Self, StoreError> {
        let options =
            OpenOptions { seeds: seeds(seed, number, 0), slot: 0, admission: Admission::Off, rank: 0 };
        let mut replica = Replica::open(store, schema, options)?;
        replica.watch(Watching::Yes);
        let (has_received, seen) = (false, Seen::default());
        Ok(Self { replica, options, skew_ms, set_ms: 0, grant: 0, epoch: 1, has_received, seen })
    }

    /// Opens the store anew by this schema, or does so while another program has it in between.
    pub(super) fn reopen(
        self,
        schema: Arc<Schema>,
        meanwhile: impl FnOnce(&mut Replica<MemoryStore>),
        foreign: Option<Arc<Schema>>,
        seeds: Seeds,
    ) -> Result<Self, StoreError> {
        let options = OpenOptions { seeds, ..self.options };
        let mut store = self.replica.into_store();
        if let Some(foreign) = foreign {
            let mut replica = Replica::open(store, foreign, options)?;
            meanwhile(&mut replica);
            store = replica.into_store();
        }
        let incarnation = Incarnation(seeds.incarnation.0 ^ 1);
        let options = OpenOptions { seeds: Seeds { incarnation, ..seeds }, ..options };
        let mut replica = Replica::open(store, schema, options)?;
        replica.watch(Watching::Yes);
        Ok(Self { replica, ..self })
    }

    /// A replica on a copy of the store without its index of rules.
    pub(super) fn anew(&self) -> Result<Replica<MemoryStore>, StoreError> {
        use rivus_core::store::{Batch, RecordWrite, Table};
        let mut copy = self.replica.store().copy();
        let mut records = Vec::new();
        copy.records(Table::Rule, &[], &mut |key, _| {
            records.push(RecordWrite::remove(Table::Rule, key));
            ControlFlow::Continue(())
        })?;
        let batch = Batch { records: records.into(), ..Batch::default() };
        copy.commit(batch).map_err(|error| StoreError::Io(error.to_string()))?;
        Replica::open(copy, self.replica.schema().clone(), self.options)
    }

    pub(super) fn now(&self, passed_ms: i64) -> Millis {
        Millis(BEGIN_MS + passed_ms + self.skew_ms + self.set_ms)
    }
}

impl Seen {
    /// Reads the rows that moved since the last look, and gives what these entities held before.
    pub(super) fn read(
        &mut self,
        replica: &Replica<MemoryStore>,
    ) -> Result<BTreeMap<Key, Arc<Held>>, StoreError> {
        let mut changed = BTreeMap::new();
        let mut failed = false;
        let head = replica.store().changes(self.seq, &mut |row| {
            let key = (row.kind.to_owned(), row.id.to_owned());
            let mut held = Held::new();
            let mut registers = Registers::default();
            let kind = replica.schema().kind(row.kind);
            let read = Row::new(row.bytes, row.seq).and_then(|read| {
                for entry in read.entries() {
                    let entry = entry?;
                    let shown = entry.shown()?;
                    let mut bytes = Vec::new();
                    encode_register(&shown, &mut bytes);
                    held.insert(entry.address.to_vec(), bytes);
                    if let (Some(kind), Some(at)) = (kind, Parts::parse(entry.address)) {
                        registers.take(kind, at, &shown);
                    }
                }
                Ok(())
            });
            failed |= read.is_err();
            let before = if held.is_empty() {
                // All of it was taken back.
                self.entities.get_mut(&key.0).map(|ids| ids.remove(&key.1));
                self.held.remove(&key)
            } else {
                self.entities.entry(key.0.clone()).or_default().insert(key.1.clone(), registers);
                self.held.insert(key.clone(), Arc::new(held))
            };
            changed.insert(key, before.unwrap_or_default());
            ControlFlow::Continue(())
        })?;
        self.seq = head.seq;
        if failed { Err(StoreError::Damaged("a row of the simulator".to_owned())) } else { Ok(changed) }
    }
}

/// Ids that depend on nothing but who asks for the how-manieth time.
pub(super) fn seeds(seed: u64, number: usize, time: u64) -> Seeds {
    let part = |n: u64| mixed(mixed(seed, number as u64), time * 8 + n);
    let replica = u128::from(part(1)) << 64 | u128::from(part(2));
    Seeds {
        store: StoreId(part(0)),
        replica: ReplicaId::from_u128(replica),
        incarnation: Incarnation(part(3)),
    }
}

/// The greatest stamp among candidates in their stored form.
pub(super) fn newest(bytes: &[u8]) -> Option<Stamp> {
    rivus_core::row::decode_register(bytes).ok().map(|register| register.newest().stamp)
}

/// The schema of a site.
pub(super) fn schema(variant: Variant, epoch: u32, has_rules: bool) -> Arc<Schema> {
    variant.schema(epoch, has_rules)
}
