//! How stores come and go: started, stopped, backed up, restored, copied, made anew.

use super::{World, broken};
use crate::sim::coverage::Sometimes;
use crate::sim::plan::Death;
use crate::sim::site::Backup;
use crate::sim::store::SimStore;
use crate::sim::witness::{Finding, Look};
use crate::sim::{Oracle, name};

impl World<'_> {
    pub(in crate::sim) fn fresh_store(&mut self) -> Result<SimStore, Finding> {
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

    pub(in crate::sim) fn start(&mut self, number: usize, store: SimStore) -> Result<(), Finding> {
        let place = &mut self.places[number];
        place.open(store, self.plan.seed, number).map_err(|error| broken(&error))?;
        let replica = place.replica.as_ref();
        let kept = replica.map_or(0, |replica| replica.clock().high_water());
        // Its last commit may have set the clock back to what the authority believes.
        let corrected = place.died_after && replica.is_some_and(|r| r.clock().correction_ms() != 0);
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

    /// Pending edits of a site got other stamps, or were taken back.
    pub(in crate::sim) fn made_anew(&mut self, site: usize) -> Result<(), Finding> {
        // Registers that are taken back to nothing are gone without a trace: everything is looked at anew.
        self.witness.forget(site);
        self.places[site].looked_to = 0;
        self.look_at(site, Look::Back)?;
        let Some(replica) = &self.places[site].replica else { return Ok(()) };
        let mut now = Vec::new();
        let read = replica.pending(0, &mut |seq, pending| {
            now.push((seq, pending.header.stamp));
            std::ops::ControlFlow::Continue(())
        });
        read.map_err(|error| broken(&error))?;
        if replica.clock().correction_ms() != 0 {
            self.coverage.hit(Sometimes::SkewCorrected);
            // The clock goes back to what the authority believes, which is safe: nobody else holds those stamps.
            self.places[site].last.clear();
            self.places[site].high_water = 0;
            if self.places[site].may_fork {
                // An edit that was made anew for the clock, and comes back pending with a backup, cannot be known for
                // the same one: its counters count twice.
                self.witness.excuse_counters(site);
            }
        }
        for (seq, stamp) in &now {
            self.witness.restamped(site, *seq, *stamp);
        }
        self.witness.mark_rebuilt(site, |key| now.iter().any(|(seq, _)| *seq == key));
        Ok(())
    }

    pub(in crate::sim) fn restart(&mut self, on: usize) -> Result<(), Finding> {
        self.stop(on)?;
        let Some(store) = self.places[on].down.take() else { return Ok(()) };
        self.start(on, store)?;
        if std::mem::take(&mut self.places[on].died_after) {
            return self.made_anew(on);
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
        self.note_number(store.trace());
        self.places[on].down = Some(store.reopened().map_err(|error| broken(&error))?);
        while let Some(at) = self.links.iter().position(|link| link.sites.contains(&on)) {
            self.drop_link(at);
        }
        Ok(())
    }

    pub(in crate::sim) fn backup(&mut self, on: usize) -> Result<(), Finding> {
        let path = self.path();
        let place = &mut self.places[on];
        let Some(replica) = &place.replica else { return Ok(()) };
        let head = replica.head().map_err(|error| broken(&error))?;
        let copy = replica.store().copy(&path).map_err(|error| broken(&error))?;
        place.backup = Some(Backup { copy, seq: head.seq });
        Ok(())
    }

    pub(in crate::sim) fn restore(&mut self, on: usize) -> Result<(), Finding> {
        if self.places[on].backup.is_none() {
            return Ok(());
        }
        self.stop(on)?;
        let place = &mut self.places[on];
        let Some(Backup { copy, seq }) = place.backup.take() else { return Ok(()) };
        place.down = None;
        let store = SimStore::from_copy(copy).map_err(|error| broken(&error))?;
        place.looked_to = 0;
        place.high_water = 0;
        place.was_restored = true;
        place.is_double = true;
        place.may_fork = true;
        place.refused.clear();
        if place.is_hub {
            self.coverage.hit(Sometimes::HubRestored);
        }
        self.witness.excuse(on, seq);
        self.witness.forget(on);
        self.start(on, store)?;
        self.touch(on, Look::Back);
        Ok(())
    }

    pub(in crate::sim) fn copy(&mut self, from: usize, to: usize) -> Result<(), Finding> {
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
        let store = SimStore::from_copy(copy).map_err(|error| broken(&error))?;
        let rank = self.places[from].plan.rank;
        self.places[to].plan.rank = rank;
        self.start(to, store)?;
        self.places[to].is_double = true;
        for site in [from, to] {
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
