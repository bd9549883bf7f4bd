//! Connections between sites, and what their ends say of one another.

use rivus_core::session::{Grants, Role, SessionError, SessionEvent, SessionOptions, Want};
use rivus_core::store::CommitError;
use rivus_core::wire::{Frame, tag};

use super::lives::{Anew, pending};
use super::{FRAMES_MAX, World, broken};
use crate::model::Known;
use crate::random::mixed;
use crate::sim::coverage::Sometimes;
use crate::sim::link::{End, Link, Moved};
use crate::sim::plan::{Fault, Shape};
use crate::sim::site::{Place, seeds};
use crate::sim::witness::{Finding, Look};
use crate::sim::{Oracle, name};

/// How long nothing comes before a session is told, in ms.
const QUIET_MS: i64 = 1000;

impl World<'_> {
    pub(in crate::sim) fn connect(&mut self, from: usize, to: usize, fault: Fault, want: Want) {
        let running = |place: &Place| place.replica.is_some();
        let is_one_store = self.processes(from).any(|process| process == to);
        if is_one_store || !running(&self.places[from]) || !running(&self.places[to]) {
            return;
        }
        self.connections += 1;
        let rank = self.places[from].grant;
        let grants = Grants::nobody().anonymous(rank);
        let options = |role: Role, site: usize| SessionOptions {
            role,
            want,
            offers: true,
            seeds: seeds(mixed(self.plan.seed, 1000 + site as u64), self.step as u64 * 64 + self.connections),
            capabilities: 0,
        };
        let options = [options(Role::Client { token: None }, from), options(Role::server(grants), to)];
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
    pub(in crate::sim) fn cut(&mut self, from: usize) {
        while let Some(at) = self.links.iter().position(|link| link.site(End::Client) == from) {
            self.drop_link(at);
        }
    }

    pub(super) fn drop_link(&mut self, at: usize) {
        let link = self.links.remove(at);
        if link.has_frames() {
            self.coverage.hit(Sometimes::FramesLost);
        }
    }

    pub(super) fn quiet(&mut self, from: usize) {
        self.passed_ms += QUIET_MS;
        for link in self.links.iter_mut().filter(|link| link.site(End::Client) == from) {
            for end in End::BOTH {
                link.session(end).handle_quiet();
            }
        }
    }

    /// Moves up to so many frames over the link of a client.
    pub(in crate::sim) fn carry(&mut self, from: usize, frames: usize) -> Result<(), Finding> {
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
            if let Some(replica) = self.places[site].replica.as_ref().filter(|_| self.places[site].may_fork) {
                self.places[site].outbox = pending(replica)?;
            }
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
                SessionEvent::Joined { registers, quarantined, .. } => {
                    self.note_number((registers as u64) << 32 | quarantined as u64);
                }
                SessionEvent::Judged { accepted, excepted } => {
                    self.note_number((accepted as u64) << 32 | excepted as u64);
                    if excepted > 0 && end == End::Client {
                        self.made_anew(site, Anew::Verdict)?;
                    }
                }
                // What a restored authority had set aside, no position tells of: the digest does, and next time
                // it is given everything again.
                SessionEvent::Diverged { .. }
                    if self.places[other].is_hub && self.places[other].was_restored =>
                {
                    self.note(b"diverged");
                }
                // What a copy was refused, its original may have had accepted, under the id of both: no page brings
                // it to the copy. The digest does.
                SessionEvent::Diverged { .. }
                    if self.places[other].is_hub
                        && self.places[site].may_fork
                        && !self.places[site].refused.is_empty() =>
                {
                    self.note(b"diverged");
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
                SessionEvent::Copied => self.made_anew(site, Anew::Copied)?,
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

    fn failed(&mut self, link: &mut Link, end: End, error: &SessionError) -> Result<(), Finding> {
        link.failed[end as usize] = true;
        let (site, other) = (link.site(end), link.site(end.other()));
        self.note(error.to_string().as_bytes());
        let died = self.places[site].replica.as_ref().is_some_and(|r| r.store().died().is_some());
        match error {
            _ if died => return Ok(()),
            SessionError::Goaway { .. } => return Ok(()),
            // Another process of the store was faster.
            SessionError::NewWriter | SessionError::Commit(CommitError::Stale)
                if self.processes(site).count() > 1 =>
            {
                return Ok(());
            }
            SessionError::Copied => {
                let place = &self.places[site];
                if !place.may_fork {
                    let text = format!("{} takes itself for a copy, and is none", name(site));
                    return Err((Oracle::Session, text));
                }
                for process in self.processes(site) {
                    self.places[process].is_double = false;
                }
                let place = &self.places[site];
                let event = if place.was_restored { Sometimes::BackupFound } else { Sometimes::CloneFound };
                self.coverage.hit(event);
                let pending = place.replica.as_ref().map_or(Ok(0), |r| r.pending_count());
                if pending.is_ok_and(|pending| pending > 0) {
                    self.coverage.hit(Sometimes::ResetUnsent);
                }
                return self.made_anew(site, Anew::Copied);
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
}

enum Carried {
    On,
    Idle,
    Over,
}
