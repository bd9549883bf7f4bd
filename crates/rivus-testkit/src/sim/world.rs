//! The simulated world: sites, links, time, and what each step does to them.
//!
//! Owns the order of events and the trace hash. Every site that a step touched is looked at afterwards, by the
//! [`Witness`](super::witness::Witness).

use rivus_core::clock::Stamp;
use rivus_core::edit::{Action as EditAction, EditError, Op};
use rivus_core::replica::{Edited, Event};
use rivus_core::session::{Grants, Role, SessionError, SessionEvent, SessionOptions, Want};
use rivus_core::store::{CommitError, Store, StoreError};
use rivus_core::wire::{Frame, tag};
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::coverage::{Coverage, Sometimes};
use super::link::{End, Link, Moved};
use super::plan::{Action, Death, Fault, Flavour, Plan, Shape, Version};
use super::reference::{Reference, covers};
use super::rng::mixed;
use super::site::{Backup, Place, seeds};
use super::store::SimStore;
use super::witness::{Edit, Finding, Look, Witness};
use super::{Oracle, name};
use crate::model::Known;

/// More frames than any honest exchange takes: beyond, the two go in circles.
const FRAMES_MAX: usize = 20_000;

/// How long nothing comes before a session is told, in ms.
const QUIET_MS: i64 = 1000;

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
                let store = world.fresh_store()?;
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

    fn fresh_store(&mut self) -> Result<SimStore, Finding> {
        if self.dir.is_none() {
            return Ok(SimStore::in_memory());
        }
        let path = self.path();
        SimStore::in_file(&path).map_err(|error| broken(&error))
    }

    fn path(&mut self) -> std::path::PathBuf {
        self.files += 1;
        let file = format!("{}.db", self.files);
        self.dir.as_ref().map_or_else(|| file.clone().into(), |dir| dir.path().join(&file))
    }

    fn start(&mut self, number: usize, store: SimStore) -> Result<(), Finding> {
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
            Action::SetClock { on, by_ms } => self.places[*on].set_ms += by_ms,
            Action::Grant { to, rank } => self.places[*to].grant = *rank,
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
                    counts_twice: false,
                };
                self.witness.acknowledge(edit, registers, &changed)?;
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

    pub(super) fn connect(&mut self, from: usize, to: usize, fault: Fault, want: Want) {
        let running = |place: &Place| place.replica.is_some();
        if from == to || !running(&self.places[from]) || !running(&self.places[to]) {
            return;
        }
        self.connections += 1;
        let rank = self.places[from].grant;
        let grants = Grants { tokens: std::collections::BTreeMap::new(), anonymous: Some(rank) };
        let options = |role: Role, site: usize| SessionOptions {
            role,
            want,
            offers: true,
            seeds: seeds(mixed(self.plan.seed, 1000 + site as u64), self.step as u64 * 64 + self.connections),
            capabilities: 0,
        };
        let options = [options(Role::Client { token: None }, from), options(Role::Server { grants }, to)];
        let seed = mixed(mixed(self.plan.seed, 77), (self.step as u64) << 8 | from as u64);
        self.see_resumed(from, to);
        self.links.push(Link::new([from, to], options, fault, seed));
    }

    fn see_resumed(&mut self, from: usize, to: usize) {
        let (Some(one), Some(two)) = (&self.places[from].replica, &self.places[to].replica) else { return };
        if let Ok(Some(cursor)) = one.cursor(two.identity().store)
            && cursor.at > cursor.done
            && cursor.done > 0
        {
            self.coverage.hit(Sometimes::PageResumed);
        } else if let Ok(Some(cursor)) = one.cursor(two.identity().store)
            && cursor.at > cursor.done
        {
            self.coverage.hit(Sometimes::PageResumed);
        }
    }

    /// Ends the link of a client, with whatever is under way.
    pub(super) fn cut(&mut self, from: usize) {
        while let Some(at) = self.links.iter().position(|link| link.site(End::Client) == from) {
            self.drop_link(at);
        }
    }

    fn drop_link(&mut self, at: usize) {
        let link = self.links.remove(at);
        if link.has_frames() {
            self.coverage.hit(Sometimes::FramesLost);
        }
    }

    fn quiet(&mut self, from: usize) {
        self.passed_ms += QUIET_MS;
        for link in self.links.iter_mut().filter(|link| link.site(End::Client) == from) {
            for end in End::BOTH {
                link.session(end).handle_quiet();
            }
        }
    }

    /// Moves up to so many frames over the link of a client.
    pub(super) fn carry(&mut self, from: usize, frames: usize) -> Result<(), Finding> {
        let mut quiet = 0;
        for _ in 0..frames {
            let Some(at) = self.links.iter().position(|link| link.site(End::Client) == from) else {
                return Ok(());
            };
            let mut link = self.links.swap_remove(at);
            let moved = self.move_one(&mut link)?;
            match moved {
                Carried::On => self.links.push(link),
                Carried::Idle if frames == FRAMES_MAX && quiet < 2 => {
                    quiet += 1;
                    self.links.push(link);
                    self.quiet(from);
                }
                Carried::Idle => {
                    self.links.push(link);
                    return Ok(());
                }
                Carried::Over => return Ok(()),
            }
        }
        if frames == FRAMES_MAX {
            return Err((
                Oracle::Liveness,
                format!("{} and its peer exchange frames without end", name(from)),
            ));
        }
        Ok(())
    }

    fn move_one(&mut self, link: &mut Link) -> Result<Carried, Finding> {
        let mut sent = false;
        for end in End::BOTH {
            if !link.failed[end as usize] && link.has_room(end.other()) {
                sent |= self.poll(link, end)?;
            }
        }
        let moved = link.next();
        match moved {
            Moved::Arrives(end, frame, known) => {
                self.arrive(link, end, &frame, known.as_ref())?;
                let over = link.failed.iter().any(|failed| *failed) || link.is_closed();
                if over {
                    self.last_words(link)?;
                    return Ok(Carried::Over);
                }
                Ok(Carried::On)
            }
            Moved::Away => {
                self.coverage.hit(Sometimes::OneWay);
                Ok(Carried::On)
            }
            Moved::Spoiled => {
                self.coverage.hit(Sometimes::BadOrder);
                Ok(Carried::Over)
            }
            Moved::Broken => {
                self.coverage.hit(Sometimes::FramesLost);
                Ok(Carried::Over)
            }
            Moved::Nothing if link.failed.iter().any(|failed| *failed) || link.is_closed() => {
                self.last_words(link)?;
                Ok(Carried::Over)
            }
            Moved::Nothing if sent => Ok(Carried::On),
            Moved::Nothing => Ok(Carried::Idle),
        }
    }

    fn poll(&mut self, link: &mut Link, end: End) -> Result<bool, Finding> {
        let site = link.site(end);
        let place = &mut self.places[site];
        let now = place.now(self.passed_ms);
        let Some(replica) = &mut place.replica else { return Ok(false) };
        let sent = link.session(end).poll_transmit(replica, now);
        match sent {
            Ok(Some(frame)) => {
                self.frames += 1;
                self.note(&frame);
                match frame.first() {
                    Some(&tag::PUSH) => link.pushes += 1,
                    Some(&tag::ACK) => self.see_answer(&frame),
                    _ => {}
                }
                let known = match (&self.reference, frame.first()) {
                    (Some(reference), Some(&tag::DELTA)) => Some(reference.known(site)),
                    _ => None,
                };
                link.send(end.other(), frame, known);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => {
                self.failed(link, end, &error)?;
                Ok(false)
            }
        }
    }

    fn see_answer(&mut self, frame: &[u8]) {
        if let Ok(Frame::Ack(ack)) = Frame::decode(frame)
            && ack.exceptions.iter().any(|exception| exception.code.is_none())
        {
            self.coverage.hit(Sometimes::Again);
        }
    }

    fn arrive(
        &mut self,
        link: &mut Link,
        end: End,
        frame: &[u8],
        known: Option<&Known>,
    ) -> Result<(), Finding> {
        let site = link.site(end);
        self.touch(site, Look::Onward);
        let place = &mut self.places[site];
        let now = place.now(self.passed_ms);
        if place.replica.is_none() {
            link.failed[end as usize] = true;
            return Ok(());
        }
        if frame.first() == Some(&tag::ACK) {
            link.pushes = link.pushes.saturating_sub(1);
        }
        if frame.first() == Some(&tag::RESET) {
            self.see_reset(link, end.other())?;
        }
        let Some(replica) = &mut self.places[site].replica else { return Ok(()) };
        if let Err(error) = link.session(end).handle(replica, frame, now) {
            self.failed(link, end, &error)?;
        }
        if let Some(known) = known {
            let changed = self.look_at(site, Look::Onward)?;
            let entities = changed.iter().map(|at| self.witness.entity(*at)).collect();
            if let Some(reference) = &mut self.reference {
                reference.deliver(site, known, &entities);
            }
        }
        self.events(link, end)
    }

    fn see_reset(&mut self, link: &Link, sender: End) -> Result<(), Finding> {
        let Some(replica) = &self.places[link.site(sender)].replica else { return Ok(()) };
        let pending = replica.pending_count().map_err(|error| broken(&error))?;
        if pending > 0 {
            self.coverage.hit(Sometimes::ResetUnsent);
        }
        Ok(())
    }

    fn events(&mut self, link: &mut Link, end: End) -> Result<(), Finding> {
        let (site, other) = (link.site(end), link.site(end.other()));
        let events: Vec<_> = link.session(end).poll_events().collect();
        for event in events {
            match event {
                SessionEvent::Opened { is_authority, rank, .. } => {
                    self.note_number(u64::from(rank) << 1 | u64::from(is_authority));
                }
                SessionEvent::Joined { registers, quarantined } => {
                    self.note_number((registers as u64) << 32 | quarantined as u64);
                }
                SessionEvent::Judged { accepted, excepted } => {
                    self.note_number((accepted as u64) << 32 | excepted as u64);
                    if excepted > 0 && end == End::Client {
                        self.made_anew(site)?;
                    }
                }
                SessionEvent::Diverged { ours, theirs } => {
                    let text = format!(
                        "at one position {} has digest {ours:032x} and {} {theirs:032x}",
                        name(site),
                        name(other)
                    );
                    return Err((Oracle::Digest, text));
                }
                SessionEvent::CaughtUp => {
                    self.look_at(site, Look::Onward)?;
                    self.look_at(other, Look::Onward)?;
                    self.caught_up(site, other)?;
                }
                SessionEvent::Verified { digest, .. } => self.note(&digest.to_le_bytes()),
                SessionEvent::Copied => self.made_anew(site)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn caught_up(&mut self, site: usize, other: usize) -> Result<(), Finding> {
        let (Some(reader), Some(writer)) = (&self.places[site].replica, &self.places[other].replica) else {
            return Ok(());
        };
        let cursor = reader.cursor(writer.identity().store).map_err(|error| broken(&error))?;
        let aside = reader.quarantined().map_err(|error| broken(&error))?;
        if aside == 0 && !self.is_judged() {
            let done = cursor.unwrap_or_default().done;
            self.witness.whole(site, other, done, &mut self.coverage)?;
        }
        Ok(())
    }

    /// Whether the writer may hold pending edits, which a reader does not get.
    fn is_judged(&self) -> bool {
        self.plan.shape == Shape::Hub
    }

    /// Pending edits of a site got other stamps, or were taken back.
    fn made_anew(&mut self, site: usize) -> Result<(), Finding> {
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

    fn failed(&mut self, link: &mut Link, end: End, error: &SessionError) -> Result<(), Finding> {
        link.failed[end as usize] = true;
        let (site, other) = (link.site(end), link.site(end.other()));
        self.note(error.to_string().as_bytes());
        let died = self.places[site].replica.as_ref().is_some_and(|r| r.store().died().is_some());
        match error {
            _ if died => return Ok(()),
            SessionError::Goaway { .. } => return Ok(()),
            SessionError::Copied => {
                let place = &mut self.places[site];
                if !place.may_fork {
                    let text = format!("{} takes itself for a copy, and is none", name(site));
                    return Err((Oracle::Session, text));
                }
                place.is_double = false;
                let event = if place.was_restored { Sometimes::BackupFound } else { Sometimes::CloneFound };
                self.coverage.hit(event);
                let pending = place.replica.as_ref().map_or(Ok(0), |r| r.pending_count());
                if pending.is_ok_and(|pending| pending > 0) {
                    self.coverage.hit(Sometimes::ResetUnsent);
                }
                return self.made_anew(site);
            }
            SessionError::Refused { code, .. }
                if *code == rivus_core::code::Code::SAME_STORE
                    && (self.places[site].is_double || self.places[other].is_double) =>
            {
                return Ok(());
            }
            _ => {}
        }
        let text = format!("{} ends an honest connection with {}: {error}", name(site), name(other));
        Err((Oracle::Session, text))
    }

    /// An end that goes says why, if the other can still hear it.
    fn last_words(&mut self, link: &mut Link) -> Result<(), Finding> {
        for end in End::BOTH {
            let site = link.site(end);
            let now = self.places[site].now(self.passed_ms);
            let Some(replica) = &mut self.places[site].replica else { continue };
            let Ok(Some(frame)) = link.session(end).poll_transmit(replica, now) else { continue };
            self.note(&frame);
            if !link.failed[end.other() as usize] {
                self.arrive(link, end.other(), &frame, None)?;
            }
        }
        Ok(())
    }

    fn restart(&mut self, on: usize) -> Result<(), Finding> {
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
    fn stop(&mut self, on: usize) -> Result<(), Finding> {
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

    fn backup(&mut self, on: usize) -> Result<(), Finding> {
        let path = self.path();
        let place = &mut self.places[on];
        let Some(replica) = &place.replica else { return Ok(()) };
        let head = replica.head().map_err(|error| broken(&error))?;
        let copy = replica.store().copy(&path).map_err(|error| broken(&error))?;
        place.backup = Some(Backup { copy, seq: head.seq });
        Ok(())
    }

    fn restore(&mut self, on: usize) -> Result<(), Finding> {
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

    fn copy(&mut self, from: usize, to: usize) -> Result<(), Finding> {
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

    /// Looks at every site that the step has touched.
    pub(super) fn look(&mut self) -> Result<(), Finding> {
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
        for event in replica.poll_events() {
            match event {
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

    /// Brings up every site that was ever there.
    pub(super) fn heal(&mut self) -> Result<(), Finding> {
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

enum Carried {
    On,
    Idle,
    Over,
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
