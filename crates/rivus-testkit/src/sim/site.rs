//! One site as it runs: a process with a replica, or what is left of it, and its clock.

use std::collections::{BTreeMap, BTreeSet};

use rivus_core::clock::{Admission, Millis, Stamp};
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::Seeds;
use rivus_core::replica::{OpenOptions, Replica};
use rivus_core::store::StoreError;

use super::plan::Site;
use super::store::{Copy, SimStore};
use crate::random::mixed;

/// When the simulated world begins, in ms since 1970.
pub(super) const BEGIN_MS: i64 = 1_700_000_000_000;

#[derive(Debug)]
pub(super) struct Backup {
    pub(super) copy: Copy,
    pub(super) seq: u64,
}

#[derive(Debug)]
pub(super) struct Place {
    pub(super) plan: Site,
    pub(super) replica: Option<Replica<SimStore>>,
    /// The store while no process runs.
    pub(super) down: Option<SimStore>,
    pub(super) backup: Option<Backup>,
    /// How often a process was started here.
    openings: u64,
    /// By how much the clock was set, in ms.
    pub(super) set_ms: i64,
    /// The rank that the authority grants.
    pub(super) grant: u8,
    pub(super) is_hub: bool,
    /// Up to where the store was looked at.
    pub(super) looked_to: u64,
    /// The greatest time of each replica id's stamps.
    pub(super) last: BTreeMap<ReplicaId, u64>,
    /// It holds a copy, or a backup, or has been copied: stamps may meet that differ.
    pub(super) is_double: bool,
    pub(super) was_restored: bool,
    /// Somebody may hold another continuation of its history.
    pub(super) may_fork: bool,
    /// It died in a commit that may have been of verdicts.
    pub(super) died_after: bool,
    /// Which edits were said to be refused, by their keys.
    pub(super) refused: BTreeSet<u64>,
    /// Those of them that somebody has written anew since.
    pub(super) settled: BTreeSet<u64>,
    pub(super) quarantined: usize,
    /// What was pending when an answer came, where histories may have parted.
    pub(super) outbox: BTreeMap<u64, Stamp>,
    /// Of which site this is a copy, and the head when it was made.
    pub(super) copied_from: Option<(usize, u64)>,
    /// The greatest high-water that its store has kept.
    pub(super) high_water: u64,
}

impl Place {
    pub(super) fn new(plan: Site, is_hub: bool) -> Self {
        Self {
            grant: plan.rank,
            plan,
            replica: None,
            down: None,
            backup: None,
            openings: 0,
            set_ms: 0,
            is_hub,
            looked_to: 0,
            last: BTreeMap::new(),
            is_double: false,
            was_restored: false,
            may_fork: false,
            died_after: false,
            refused: BTreeSet::new(),
            settled: BTreeSet::new(),
            quarantined: 0,
            outbox: BTreeMap::new(),
            copied_from: None,
            high_water: 0,
        }
    }

    /// What the clock here reads when `passed_ms` have passed since the beginning.
    pub(super) fn now(&self, passed_ms: i64) -> Millis {
        let drift = passed_ms / 1_000_000 * self.plan.drift_ppm
            + passed_ms % 1_000_000 * self.plan.drift_ppm / 1_000_000;
        Millis(BEGIN_MS + passed_ms + drift + self.plan.skew_ms + self.set_ms)
    }

    /// Starts a process on the store.
    pub(super) fn open(&mut self, store: SimStore, seed: u64, number: usize) -> Result<(), StoreError> {
        self.openings += 1;
        let admission = match self.plan.drift_ms_max {
            Some(drift_ms_max) => Admission::Quarantine { drift_ms_max },
            None => Admission::Off,
        };
        let rank = self.plan.rank;
        let seeds = seeds(mixed(seed, number as u64), self.openings);
        let options = OpenOptions { seeds, slot: u32::from(self.plan.twin.is_some()), admission, rank };
        let mut replica = Replica::open(store, self.plan.version.schema().clone(), options)?;
        if self.is_hub {
            let served = replica.serve_as_authority();
            served.map_err(|error| StoreError::Io(error.to_string()))?;
        }
        self.replica = Some(replica);
        Ok(())
    }
}

/// Ids that depend on nothing but who asks for the how-manieth time.
pub(super) fn seeds(seed: u64, time: u64) -> Seeds {
    let part = |n: u64| mixed(seed, time * 8 + n);
    let replica = u128::from(part(1)) << 64 | u128::from(part(2));
    Seeds {
        store: StoreId(part(0)),
        replica: ReplicaId::from_u128(replica),
        incarnation: Incarnation(part(3)),
    }
}
