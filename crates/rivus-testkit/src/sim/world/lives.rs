//! How stores come and go: started, stopped, backed up, restored, copied, made anew.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rivus_core::clock::Stamp;
use rivus_core::replica::Replica;

use super::{World, broken};
use crate::sim::coverage::Sometimes;
use crate::sim::plan::Death;
use crate::sim::site::Backup;
use crate::sim::store::SimStore;
use crate::sim::witness::{Finding, Look};
use crate::sim::{Oracle, name};

impl World<'_> {
    pub(super) fn fresh_store(&mut self) -> Result<SimStore, Finding> {
        if self.dir.is_none() {
            return Ok(SimStore::in_memory());
        }
        let path = self.path();
        SimStore::in_file(&path).map_err(|error| broken(&error))
    }

    pub(super) fn path(&mut self) -> std::path::PathBuf {
        self.files += 1;
        let file = format!("{}.db", self.files);
        self.dir.as_ref().map_or_else(|| file.clone().into(), |dir| dir.path().join(&file))
    }

    pub(super) fn start(&mut self, number: usize, store: SimStore) -> Result<(), Finding> {
        let died_after = self.processes(number).any(|process| self.places[process].died_after);
        let place = &mut self.places[number];
        place.open(store, self.plan.seed, number).map_err(|error| broken(&error))?;
        let replica = place.replica.as_ref();
        // A commit that was its last may have settled a refused edit, and nobody was told.
        let listed = replica.and_then(|replica| replica.rejected().ok()).unwrap_or_default();
        let is_listed = |key: &&u64| listed.iter().any(|rejected| rejected.key == **key);
        let untold: Vec<u64> =
            place.refused.iter().filter(|key| died_after && !is_listed(key)).copied().collect();
        place.settled.extend(untold);
        let kept = replica.map_or(0, |replica| replica.clock().high_water());
        // The last commit of a process of this store may have set the clock back to what the authority believes.
        let corrected = died_after && replica.is_some_and(|r| r.clock().correction_ms() != 0);
        if kept < place.high_water && !corrected {
            let text = format!(
                "{} starts with its clock at {kept}, and had used or met {} before",
                name(number),
                place.high_water
            );
            return Err((Oracle::Clock, text));
        }
        Ok(())
    }

    /// The sites whose processes have the store of this one open, itself among them.
    pub(super) fn processes(&self, site: usize) -> impl Iterator<Item = usize> + use<> {
        let of = |site: usize| self.places[site].plan.twin.unwrap_or(site);
        let all = (0..self.places.len()).filter(|other| of(*other) == of(site));
        all.collect::<Vec<_>>().into_iter()
    }

    /// The store that a site begins with.
    pub(super) fn first_store(&mut self, number: usize) -> Result<SimStore, Finding> {
        if let Some(twin) = self.places[number].plan.twin
            && let Some(replica) = &self.places[twin].replica
        {
            return replica.store().handle().map_err(|error| broken(&error));
        }
        let store = self.fresh_store()?;
        Ok(if self.processes(number).count() > 1 { store.shared() } else { store })
    }

    /// Pending edits of a site's store got other stamps, or were taken back.
    pub(super) fn made_anew(&mut self, site: usize, why: Anew) -> Result<(), Finding> {
        // Registers that are taken back to nothing are gone without a trace: everything is looked at anew.
        for process in self.processes(site) {
            self.witness.forget(process);
            self.places[process].looked_to = 0;
            self.look_at(process, Look::Back)?;
        }
        let place = &self.places[site];
        let Some(replica) = &place.replica else { return Ok(()) };
        let now = pending(replica)?;
        let corrected = replica.clock().correction_ms() != 0;
        let own = replica.id();
        let original = |seq: u64| place.copied_from.filter(|(_, head)| seq <= *head).map(|(from, _)| from);
        for (seq, stamp) in &now {
            let Some(before) = place.outbox.get(seq).filter(|_| why == Anew::Verdict) else { continue };
            if before.replica != stamp.replica {
                // Its author was the store that this one is a copy or a backup of: the two counts are two.
                self.witness.counts_apart(site, *seq);
            }
            if before != stamp
                && let Some(from) = original(*seq)
            {
                // The original has it pending still, as it was, and may have it accepted so: one author, two totals.
                self.processes(from).for_each(|process| self.witness.counts_apart(process, *seq));
            }
        }
        let may_fork = place.may_fork;
        for process in self.processes(site) {
            if corrected {
                self.coverage.hit(Sometimes::SkewCorrected);
                // The clock goes back to what the authority believes, which is safe: nobody else holds those stamps.
                self.places[process].last.clear();
                self.places[process].high_water = 0;
            }
            for (seq, stamp) in &now {
                let anew = self.witness.restamped(process, *seq, *stamp, may_fork)?;
                if anew && may_fork && why == Anew::Verdict {
                    // Its copy has it pending still, under the stamp that it had.
                    self.witness.counts_apart(process, *seq);
                }
                if anew && process != site && stamp.replica != own {
                    self.coverage.hit(Sometimes::TwinRebuilt);
                    let last = self.places[process].last.entry(stamp.replica).or_insert(0);
                    *last = stamp.time.max(*last);
                }
            }
            self.witness.mark_rebuilt(process, |key| now.iter().any(|(seq, _)| *seq == key));
        }
        Ok(())
    }

    pub(super) fn restart(&mut self, on: usize) -> Result<(), Finding> {
        self.stop(on)?;
        let Some(store) = self.places[on].down.take() else { return Ok(()) };
        self.start(on, store)?;
        if std::mem::take(&mut self.places[on].died_after) {
            return self.made_anew(on, Anew::Verdict);
        }
        self.touch(on, Look::Onward);
        Ok(())
    }

    /// Ends the process, and every link with it.
    pub(super) fn stop(&mut self, on: usize) -> Result<(), Finding> {
        let Some(replica) = self.places[on].replica.take() else { return Ok(()) };
        let store = replica.into_store();
        match store.died() {
            Some(Death::Before) => self.coverage.hit(Sometimes::DiedBefore),
            Some(Death::After) => {
                self.coverage.hit(Sometimes::DiedAfter);
                self.places[on].died_after = true;
            }
            None => {}
        }
        let died_after = self.places[on].died_after;
        self.note_number(store.trace());
        self.places[on].down = Some(store.reopened().map_err(|error| broken(&error))?);
        while let Some(at) = self.links.iter().position(|link| link.sites.contains(&on)) {
            self.drop_link(at);
        }
        let others = self.processes(on).find(|other| self.places[*other].replica.is_some());
        if let Some(other) = others.filter(|_| died_after) {
            return self.made_anew(other, Anew::Verdict);
        }
        Ok(())
    }

    pub(super) fn backup(&mut self, on: usize) -> Result<(), Finding> {
        let path = self.path();
        let place = &mut self.places[on];
        let Some(replica) = &place.replica else { return Ok(()) };
        let head = replica.head().map_err(|error| broken(&error))?;
        let copy = replica.store().copy(&path).map_err(|error| broken(&error))?;
        place.backup = Some(Backup { copy, seq: head.seq });
        Ok(())
    }

    pub(super) fn restore(&mut self, on: usize) -> Result<(), Finding> {
        if self.places[on].backup.is_none() {
            return Ok(());
        }
        for process in self.processes(on) {
            self.stop(process)?;
        }
        let Some(Backup { copy, seq }) = self.places[on].backup.take() else { return Ok(()) };
        let mut store = SimStore::from_copy(copy).map_err(|error| broken(&error))?;
        if self.processes(on).count() > 1 {
            store = store.shared();
        }
        let handles = self.processes(on).skip(1).map(|_| store.handle()).collect::<Result<Vec<_>, _>>();
        let handles = handles.map_err(|error| broken(&error))?;
        for (process, handle) in self.processes(on).zip([store].into_iter().chain(handles)) {
            self.restored(process, seq, handle)?;
        }
        Ok(())
    }

    fn restored(&mut self, on: usize, seq: u64, store: SimStore) -> Result<(), Finding> {
        let place = &mut self.places[on];
        place.down = None;
        place.looked_to = 0;
        place.high_water = 0;
        place.was_restored = true;
        place.is_double = true;
        place.may_fork = true;
        place.refused.clear();
        place.settled.clear();
        if place.is_hub {
            self.coverage.hit(Sometimes::HubRestored);
        }
        self.witness.excuse(on, seq);
        self.witness.forget(on);
        self.start(on, store)?;
        if let Some(replica) = &self.places[on].replica {
            for (seq, stamp) in pending(replica)? {
                self.witness.comes_back(on, seq, stamp);
            }
        }
        self.touch(on, Look::Back);
        Ok(())
    }

    pub(super) fn copy(&mut self, from: usize, to: usize) -> Result<(), Finding> {
        let is_there = self.places[to].replica.is_some() || self.places[to].down.is_some();
        if is_there
            || !self.places[to].plan.is_copy
            || self.places[to].plan.version != self.places[from].plan.version
        {
            return Ok(());
        }
        let path = self.path();
        let Some(replica) = &self.places[from].replica else { return Ok(()) };
        let copy = replica.store().copy(&path).map_err(|error| broken(&error))?;
        let head = replica.head().map_err(|error| broken(&error))?.seq;
        let store = SimStore::from_copy(copy).map_err(|error| broken(&error))?;
        let rank = self.places[from].plan.rank;
        self.places[to].plan.rank = rank;
        self.start(to, store)?;
        self.places[to].is_double = true;
        self.places[to].copied_from = Some((from, head));
        for site in self.processes(from).chain([to]) {
            self.places[site].may_fork = true;
        }
        self.touch(to, Look::Onward);
        Ok(())
    }

    /// Brings up every site that was ever there.
    pub(in crate::sim) fn heal(&mut self) -> Result<(), Finding> {
        self.healing = true;
        self.links.clear();
        for site in 0..self.places.len() {
            if self.places[site].replica.is_some() || self.places[site].down.is_some() {
                self.restart(site)?;
            }
        }
        self.look()
    }
}

/// Why pending edits are others than before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Anew {
    /// An authority wanted them so.
    Verdict,
    /// Their store was found to be a copy.
    Copied,
}

/// The pending edits, by their keys.
pub(super) fn pending(replica: &Replica<SimStore>) -> Result<BTreeMap<u64, Stamp>, Finding> {
    let mut all = BTreeMap::new();
    let read = replica.pending(0, &mut |key, edit| {
        all.insert(key, edit.header.stamp);
        ControlFlow::Continue(())
    });
    read.map_err(|error| broken(&error))?;
    Ok(all)
}
