//! The simulated world: sites, links, time, and what each step does to them.
//!
//! Owns the order of events and the trace hash. Every site that a step touched is looked at afterwards, by the
//! [`Witness`](super::witness::Witness).

mod lives;
mod traffic;

use rivus_core::clock::Stamp;
use rivus_core::edit::{Action as EditAction, EditError, Op};
use rivus_core::replica::{Edited, Event};
use rivus_core::session::Want;
use rivus_core::store::{CommitError, Store, StoreError};
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::coverage::{Coverage, Sometimes};
use super::link::{End, Link};
use super::plan::{Action, Fault, Flavour, Plan, Shape, Version};
use super::reference::{Reference, covers};
use super::site::Place;
use super::witness::{Edit, Finding, Look, Witness};
use super::{Oracle, name};

/// More frames than any honest exchange takes: beyond, the two go in circles.
const FRAMES_MAX: usize = 20_000;

pub(super) struct World<'p> {
    pub(super) plan: &'p Plan,
    pub(super) places: Vec<Place>,
    pub(super) links: Vec<Link>,
    pub(super) witness: Witness,
    pub(super) coverage: Coverage,
    pub(super) passed_ms: i64,
    pub(super) step: usize,
    trace: u64,
    dir: Option<TempDir>,
    files: u32,
    /// Numbers connections, for the ids that a copy would take.
    connections: u64,
    pub(super) frames: u64,
    /// The network is whole from now on.
    pub(super) healing: bool,
    touched: Vec<(usize, Look)>,
    reference: Option<Reference>,
}

impl<'p> World<'p> {
    pub(super) fn new(plan: &'p Plan) -> Result<Self, Finding> {
        let dir = match plan.flavour {
            Flavour::Core => None,
            Flavour::Full => {
                let made = tempfile::tempdir();
                Some(made.map_err(|error| (Oracle::Store, format!("no temporary directory: {error}")))?)
            }
        };
        let is_hub = |number: usize| plan.shape == Shape::Hub && number == 0;
        let places = plan.sites.iter().enumerate().map(|(n, site)| Place::new(site.clone(), is_hub(n)));
        let mut world = Self {
            plan,
            places: places.collect(),
            links: Vec::new(),
            witness: Witness::default(),
            coverage: Coverage::default(),
            passed_ms: 0,
            step: 0,
            trace: plan.seed,
            dir,
            files: 0,
            connections: 0,
            frames: 0,
            healing: false,
            touched: Vec::new(),
            reference: covers(plan).then(|| Reference::new(plan)),
        };
        for number in 0..world.places.len() {
            world.witness.forget(number);
            if !world.places[number].plan.is_copy {
                let store = world.first_store(number)?;
                world.start(number, store)?;
            }
            let place = &world.places[number];
            if let (Some(reference), Some(replica)) = (&mut world.reference, &place.replica) {
                reference.add(replica, place.plan.rank);
            }
        }
        if world.reference.is_some() {
            world.coverage.hit(Sometimes::Modelled);
        }
        Ok(world)
    }

    /// A hash over everything that was to be seen so far.
    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    pub(super) fn note(&mut self, bytes: &[u8]) {
        self.trace = xxh3_64_with_seed(bytes, self.trace);
    }

    fn note_number(&mut self, number: u64) {
        self.note(&number.to_le_bytes());
    }

    pub(super) fn touch(&mut self, site: usize, look: Look) {
        match self.touched.iter_mut().find(|(touched, _)| *touched == site) {
            Some((_, before)) => {
                if look == Look::Back {
                    *before = look;
                }
            }
            None => self.touched.push((site, look)),
        }
    }

    /// Takes a step, and looks at what it did.
    pub(super) fn act(&mut self, action: &Action) -> Result<(), Finding> {
        match action {
            Action::Edit { on, ops } => self.edit(*on, ops)?,
            Action::Sync { from, to, fault } => {
                self.cut(*from);
                self.connect(*from, *to, *fault, Want::Once);
                self.carry(*from, FRAMES_MAX)?;
                self.cut(*from);
            }
            Action::Connect { from, to } => {
                self.cut(*from);
                self.connect(*from, *to, Fault::None, Want::Live);
            }
            Action::Carry { from, frames } => {
                let frames = if *frames == u16::MAX { FRAMES_MAX } else { usize::from(*frames) };
                self.carry(*from, frames)?;
            }
            Action::Quiet { from } => self.quiet(*from),
            Action::Cut { from } => self.cut(*from),
            Action::Die { on, commits, death } => {
                if let Some(replica) = &mut self.places[*on].replica {
                    replica.store_mut().arm(*commits, *death);
                }
            }
            Action::Restart { on } => self.restart(*on)?,
            Action::Backup { on } => self.backup(*on)?,
            Action::Restore { on } => self.restore(*on)?,
            Action::Copy { from, to } => self.copy(*from, *to)?,
            Action::SetClock { on, by_ms } => {
                self.processes(*on).for_each(|site| self.places[site].set_ms += by_ms);
            }
            Action::Grant { to, rank } => {
                self.processes(*to).for_each(|site| self.places[site].grant = *rank);
            }
            Action::Overtake { on } => {
                if let Some(replica) = &mut self.places[*on].replica {
                    replica.store_mut().overtake();
                }
            }
        }
        self.look()
    }

    fn edit(&mut self, on: usize, ops: &[Op]) -> Result<(), Finding> {
        self.see_in_flight(on, ops);
        if self.processes(on).count() > 1 {
            // What the other process has written is seen here too.
            self.look_at(on, Look::Onward)?;
        }
        let place = &mut self.places[on];
        let now = place.now(self.passed_ms);
        let Some(replica) = &mut place.replica else { return Ok(()) };
        let edited = replica.edit(now, ops);
        if let Some(reference) = &mut self.reference {
            reference.edit(on, now, ops, edited.as_ref().ok())?;
        }
        let retried = edited.is_ok() && replica.store_mut().take_retried();
        let after_copy = !replica.identity().former.is_empty();
        if retried {
            self.coverage.hit(Sometimes::StaleRetried);
        }
        match edited {
            Ok(Edited::Nothing) => self.note(b"nothing"),
            Ok(Edited::Committed { stamp, registers, seq }) => {
                self.note_number(stamp.time);
                self.edited(on, ops, after_copy, stamp);
                let changed = self.look_at(on, Look::Edit)?;
                let excused = self.places[on].is_double;
                let edit = Edit {
                    site: on,
                    seq,
                    stamp,
                    step: self.step,
                    addresses: Vec::new(),
                    incs: counted(ops),
                    excused,
                    rebuilt: false,
                    counts_apart: false,
                };
                let may_fork = self.places.iter().any(|place| place.may_fork);
                self.witness.acknowledge(edit, registers, &changed, may_fork)?;
                let schema = self.places[on].plan.version.schema();
                if changed.iter().any(|at| self.witness.carries(on, *at, stamp, schema)) {
                    self.coverage.hit(Sometimes::FloorRaised);
                }
                self.rises(on, stamp)?;
            }
            Err(EditError::Commit(CommitError::Store(StoreError::Io(_)))) => {
                self.witness.unsure(on, counted(ops));
                self.touch(on, Look::Onward);
            }
            Err(EditError::Commit(error)) => {
                return Err((Oracle::Store, format!("an edit at {} failed: {error}", name(on))));
            }
            Err(_) => self.note(b"refused"),
        }
        Ok(())
    }

    fn edited(&mut self, on: usize, ops: &[Op], after_copy: bool, stamp: Stamp) {
        if stamp.generation > 0 {
            self.coverage.hit(Sometimes::PoisonOverride);
        }
        for op in ops {
            match op.action {
                EditAction::Revive => self.coverage.hit(Sometimes::Revival),
                EditAction::Inc { .. } if after_copy => self.coverage.hit(Sometimes::CounterContinued),
                _ => {}
            }
        }
        if self.links.iter().any(|link| link.pushes > 0 && link.site(End::Client) == on) {
            self.coverage.hit(Sometimes::EditInFlight);
        }
    }

    /// Whether a reader is past one of these entities, in a pass that goes on.
    fn see_in_flight(&mut self, on: usize, ops: &[Op]) {
        let Some(replica) = &self.places[on].replica else { return };
        let store = replica.identity().store;
        for link in &self.links {
            let Some(end) = End::BOTH.into_iter().find(|end| link.site(end.other()) == on) else { continue };
            let Some(reader) = &self.places[link.site(end)].replica else { continue };
            let Ok(Some(cursor)) = reader.cursor(store) else { continue };
            if cursor.at <= cursor.done {
                continue;
            }
            for op in ops {
                let row = replica.store().load(&op.kind, &op.id, rivus_core::address::LIFE);
                if let Ok(Some(row)) = row
                    && row.seq <= cursor.at
                {
                    self.coverage.hit(Sometimes::ChangedBehind);
                }
            }
        }
    }

    /// Stamps of one replica rise, unless the clock was set back to what an authority believes.
    fn rises(&mut self, on: usize, stamp: Stamp) -> Result<(), Finding> {
        let place = &mut self.places[on];
        let corrects = place.replica.as_ref().is_some_and(|r| r.clock().correction_ms() != 0);
        let last = place.last.entry(stamp.replica).or_insert(0);
        if stamp.time <= *last && !corrects && !place.was_restored {
            let text = format!("{} stamped {} after it had used {last}", name(on), stamp.time);
            return Err((Oracle::Clock, text));
        }
        *last = stamp.time;
        let head = place.replica.as_ref().map(|replica| replica.head());
        let kept = head.and_then(Result::ok).map_or(u64::MAX, |head| head.high_water);
        if kept < stamp.time {
            let text = format!("{} stamped {stamp} and keeps its clock at {kept}", name(on));
            return Err((Oracle::Clock, text));
        }
        Ok(())
    }

    /// Looks at every site that the step has touched.
    pub(super) fn look(&mut self) -> Result<(), Finding> {
        for site in 0..self.places.len() {
            // Who has died in a commit of verdicts has left others of the same store something to look at anew.
            if self.places[site].replica.as_ref().is_some_and(|replica| replica.store().died().is_some()) {
                self.stop(site)?;
            }
        }
        for (site, look) in std::mem::take(&mut self.touched) {
            self.look_at(site, look)?;
            self.inspect(site)?;
        }
        Ok(())
    }

    /// What has changed in a site's store since the last look.
    pub(super) fn look_at(&mut self, site: usize, look: Look) -> Result<Vec<usize>, Finding> {
        let place = &mut self.places[site];
        let Some(replica) = &mut place.replica else { return Ok(Vec::new()) };
        if replica.store().died().is_some() {
            return Ok(Vec::new());
        }
        let mut settled = Vec::new();
        for event in replica.poll_events() {
            match event {
                Event::Settled { key } => settled.push(key),
                Event::Clash { .. } => self.coverage.hit(Sometimes::Clash),
                Event::Rejected(rejected) => {
                    place.refused.insert(rejected.key);
                    if replica.pending_count().is_ok_and(|pending| pending > 0) {
                        self.coverage.hit(Sometimes::RefusedRebuilt);
                    }
                }
                _ => {}
            }
        }
        let (to, changed) =
            self.witness.look(site, replica.store(), place.looked_to, look, &mut self.coverage)?;
        place.looked_to = to;
        for process in self.processes(site) {
            self.places[process].settled.extend(&settled);
        }
        Ok(changed)
    }

    /// The checks of a store that need no memory.
    fn inspect(&mut self, site: usize) -> Result<(), Finding> {
        let place = &mut self.places[site];
        let Some(replica) = &place.replica else { return Ok(()) };
        if replica.store().died().is_some() {
            return self.stop(site);
        }
        let head = replica.head().map_err(|error| broken(&error))?;
        if head.high_water < place.high_water && replica.clock().correction_ms() == 0 {
            let text = format!(
                "the clock that {} keeps went back from {} to {}",
                name(site),
                place.high_water,
                head.high_water
            );
            return Err((Oracle::Clock, text));
        }
        place.high_water = head.high_water;
        let aside = replica.quarantined().map_err(|error| broken(&error))?;
        if aside < place.quarantined {
            self.coverage.hit(Sometimes::QuarantineReleased);
        }
        place.quarantined = aside;
        // Where nothing is declared, what the others' schemas make of a field is not modelled.
        if let Some(reference) = &self.reference
            && place.plan.version != Version::Open
        {
            reference.compare(site, replica)?;
        }
        if self.step.is_multiple_of(4) || self.plan.flavour == Flavour::Full {
            let computed = replica.recompute_digest().map_err(|error| broken(&error))?;
            if computed != head.digest {
                let text = format!("{} keeps {:?}, its rows make {computed:?}", name(site), head.digest);
                return Err((Oracle::Digest, text));
            }
        }
        let digest = head.digest.shown;
        self.note(&digest.to_le_bytes());
        Ok(())
    }
}

fn broken(error: &StoreError) -> Finding {
    (Oracle::Store, format!("a store that runs cannot be used: {error}"))
}

/// What an edit adds to which counters.
fn counted(ops: &[Op]) -> Vec<(String, String, String, i64)> {
    let inc = |op: &Op| match &op.action {
        EditAction::Inc { field, by } => Some((op.kind.clone(), op.id.clone(), field.clone(), *by)),
        _ => None,
    };
    ops.iter().filter_map(inc).collect()
}
