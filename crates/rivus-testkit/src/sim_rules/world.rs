//! What each step does to the sites.

use std::collections::BTreeMap;
use std::sync::Arc;

use rivus_core::code::Code;
use rivus_core::edit::{Action as EditAction, EditError, Op};
use rivus_core::replica::{Edited, Incoming, Trust};
use rivus_core::row::{Change, decode_register, encode_register};
use rivus_core::schema::Schema;
use rivus_core::session::pair::{End, run};
use rivus_core::session::{Grants, Role, Session, SessionError, SessionEvent, SessionOptions, Want};
use rivus_core::store::MemoryStore;
use rivus_core::value::Value;
use rivus_core::view::Shown;

use super::coverage::{Coverage, Sometimes};
use super::look::Expected;
use super::plan::{Action, Extent, Plan, Shape};
use super::site::{Held, Key, Site, schema, seeds};
use super::{Finding, Oracle};
use crate::model::rules::{Author, root, writes};
use crate::random::mixed;
use crate::sim::plan::name;

pub(super) struct World<'p> {
    pub(super) plan: &'p Plan,
    pub(super) sites: Vec<Site>,
    pub(super) coverage: Coverage,
    pub(super) passed_ms: i64,
    pub(super) trace: u64,
    /// By version, from 1.
    schemata: [Arc<Schema>; 2],
    /// Numbers everything that needs ids of its own.
    count: u64,
}

/// The greatest version of the rules.
const EPOCH_MAX: u32 = 2;

impl<'p> World<'p> {
    pub(super) fn new(plan: &'p Plan) -> Self {
        let schemata = [1, EPOCH_MAX].map(|epoch| schema(plan.variant, epoch, true));
        let coverage = Coverage::default();
        Self { plan, sites: Vec::new(), coverage, passed_ms: 0, trace: plan.seed, schemata, count: 0 }
    }

    pub(super) fn begin(&mut self) -> Result<(), Finding> {
        for (number, site) in self.plan.sites.iter().enumerate() {
            let [schema, _] = &self.schemata;
            let opened = Site::open(MemoryStore::new(), schema.clone(), self.plan.seed, number, site.skew_ms);
            let mut site = opened.map_err(|error| broken(&error))?;
            if number == 0 && self.plan.shape == Shape::Hub {
                site.replica.serve_as_authority().map_err(|error| broken(&error))?;
            }
            self.sites.push(site);
        }
        Ok(())
    }

    pub(super) fn schema(&self, epoch: u32) -> Arc<Schema> {
        self.schemata[usize::try_from(epoch - 1).unwrap_or(0)].clone()
    }

    /// Takes a step, and looks at what it did.
    pub(super) fn act(&mut self, number: usize, action: &Action) -> Result<(), Finding> {
        match action {
            Action::Edit { on, ops } => self.edit(*on, ops),
            Action::Confirm { on, id } => self.confirm(*on, id),
            Action::Give { from, to, extent } => self.give(*from, *to, *extent),
            Action::Sync { from, to, frames } => self.sync(*from, *to, *frames, number),
            Action::Restart { on } => {
                self.coverage.hit(Sometimes::Restarted);
                self.reopen(*on, None)
            }
            Action::SetClock { on, by_ms } => {
                if *by_ms < 0 {
                    self.coverage.hit(Sometimes::SteppedBack);
                }
                self.sites[*on].set_ms += by_ms;
                Ok(())
            }
            Action::Hear { on } => {
                let heard = self.sites[*on].replica.hear_epoch(EPOCH_MAX);
                heard.map_err(|error| broken(&error))?;
                if self.sites[*on].replica.unresolved().is_some() {
                    self.coverage.hit(Sometimes::Unresolved);
                }
                self.look(*on, &Expected::Same)
            }
            Action::Upgrade { on } => {
                self.coverage.hit(Sometimes::Upgraded);
                self.sites[*on].epoch = EPOCH_MAX;
                self.reopen(*on, None)
            }
            Action::Foreign { on, ops } => {
                self.coverage.hit(Sometimes::Foreign);
                self.reopen(*on, Some(ops))
            }
            Action::StartOver { on } => self.start_over(*on),
            Action::Grant { to, rank } => {
                self.sites[*to].grant = *rank;
                Ok(())
            }
        }
    }

    fn edit(&mut self, on: usize, ops: &[Op]) -> Result<(), Finding> {
        let site = &mut self.sites[on];
        let is_one = |one: &Op, two: &Op| {
            let kind = site.replica.schema().kind(&one.kind).filter(|_| one.kind == two.kind);
            let overlays = &site.seen.evaluated.overlays;
            kind.is_some_and(|kind| root(overlays, kind, &one.id) == root(overlays, kind, &two.id))
        };
        let ops = match ops {
            // Both would be edits of the entity that stands for the two.
            [one, two] if is_one(one, two) => std::slice::from_ref(one),
            ops => ops,
        };
        let author = Author {
            schema: site.replica.schema(),
            entities: &site.seen.entities,
            overlays: &site.seen.evaluated.overlays,
            replica: site.replica.id(),
            is_ruled: site.replica.unresolved().is_none(),
        };
        let expected = writes(author, ops);
        if site.replica.pending_count().is_ok_and(|pending| pending > 0) {
            self.coverage.hit(Sometimes::Pending);
        }
        let now = site.now(self.passed_ms);
        match (site.replica.edit(now, ops), expected) {
            (Ok(Edited::Nothing), Some(writes)) if writes.is_empty() => self.look(on, &Expected::Same),
            (Ok(Edited::Committed { stamp, .. }), Some(writes)) => {
                self.look(on, &Expected::Edit { stamp, writes, ops })
            }
            (
                Err(EditError::Deleted { .. } | EditError::NotThere { .. } | EditError::NotDeleted { .. }),
                None,
            ) => self.look(on, &Expected::Same),
            (done, expected) => {
                let site = name(on);
                Err((
                    Oracle::Edit,
                    format!("{site}: the edit gives {done:?}, and ought to write {expected:?}"),
                ))
            }
        }
    }

    fn confirm(&mut self, on: usize, id: &str) -> Result<(), Finding> {
        let key = ("entry".to_owned(), id.to_owned());
        let Some(view) = self.sites[on].seen.views.get(&key).filter(|view| !view.deleted) else {
            return Ok(());
        };
        let Some(Shown::Value(stop)) = view.fields.get("stop").filter(|s| **s != Shown::Value(Value::Null))
        else {
            return Ok(());
        };
        self.coverage.hit(Sometimes::Confirmed);
        let put = EditAction::Put(vec![("stop".to_owned(), stop.clone())]);
        self.edit(on, &[Op::new("entry", id, put)])
    }

    /// Joins registers of one into another, and expects their join and nothing else.
    fn give(&mut self, from: usize, to: usize, extent: Extent) -> Result<(), Finding> {
        match extent {
            Extent::All => {}
            Extent::Entities(_) => self.coverage.hit(Sometimes::Part),
            Extent::Registers(_) => self.coverage.hit(Sometimes::Torn),
        }
        let held = std::mem::take(&mut self.sites[from].seen.held);
        let done = self.join(from, to, &held, extent);
        self.sites[from].seen.held = held;
        let expected = done?;
        self.look(to, &Expected::Join(expected))
    }

    fn join(
        &mut self,
        from: usize,
        to: usize,
        held: &BTreeMap<Key, Arc<Held>>,
        extent: Extent,
    ) -> Result<BTreeMap<Key, Held>, Finding> {
        let chance = |seed: u64, part: usize| mixed(seed, part as u64) & 1 == 0;
        let mut delta: Vec<Incoming<'_>> = Vec::new();
        let mut expected = BTreeMap::new();
        for (number, (key, registers)) in held.iter().enumerate() {
            if let Extent::Entities(seed) = extent
                && chance(seed, number)
            {
                continue;
            }
            let mut after = self.sites[to].seen.held.get(key).map_or_else(Held::new, |held| (**held).clone());
            let mut changes: Vec<(Arc<[u8]>, Change<'_>)> = Vec::new();
            for (at, (address, bytes)) in registers.iter().enumerate() {
                if let Extent::Registers(seed) = extent
                    && chance(seed, number * 64 + at)
                {
                    continue;
                }
                let register = decode_register(bytes).map_err(|_| unreadable())?;
                let joined = match after.get(address) {
                    None => bytes.clone(),
                    Some(before) => {
                        let before = decode_register(before).map_err(|_| unreadable())?;
                        let mut joined = Vec::new();
                        encode_register(&before.join(&register), &mut joined);
                        joined
                    }
                };
                after.insert(address.clone(), joined);
                let source = Some(self.sites[from].replica.identity().store);
                changes.push((Arc::from(address.as_slice()), Change::Join { register, source }));
            }
            if !changes.is_empty() {
                expected.insert(key.clone(), after);
                let (kind, id) = (Arc::from(key.0.as_str()), Arc::from(key.1.as_str()));
                delta.push(Incoming { kind, id, changes });
            }
        }
        let sender = self.sites[from].replica.identity().store;
        let site = &mut self.sites[to];
        let now = site.now(self.passed_ms);
        let joined = site.replica.join(now, delta.as_slice(), Some(sender), Trust::Peer, None);
        joined.map_err(|error| broken(&error))?;
        site.has_received = !delta.is_empty();
        Ok(expected)
    }

    pub(super) fn sync(&mut self, from: usize, to: usize, frames: u16, number: usize) -> Result<(), Finding> {
        if from == to {
            return Ok(());
        }
        self.count += 1;
        let grant = self.sites[from].grant;
        let options = |role, site: usize| {
            let time = 1000 + (number as u64) * 8 + self.count;
            let seeds = seeds(self.plan.seed, 100 + site, time);
            SessionOptions { role, want: Want::Once, offers: true, seeds, capabilities: 0 }
        };
        let grants = Grants::nobody().anonymous(grant);
        let mut client = Session::new(options(Role::Client { token: None }, from));
        let mut server = Session::new(options(Role::server(grants), to));
        let held = [from, to].map(|site| self.sites[site].seen.held.clone());
        let passed_ms = self.passed_ms;
        let (one, two) = two_of(&mut self.sites, from, to);
        let mut one = End { now: one.now(passed_ms), replica: &mut one.replica, session: &mut client };
        let mut two = End { now: two.now(passed_ms), replica: &mut two.replica, session: &mut server };
        match run(&mut one, &mut two, usize::from(frames)) {
            Ok(_) if !client.is_closed() => self.coverage.hit(Sometimes::CutOff),
            // Whoever has just taken another id connects again.
            Ok(_) | Err(SessionError::Copied | SessionError::NewWriter) => {}
            Err(SessionError::Goaway { code: Code::CLOSED, .. }) => {}
            Err(error) => {
                let text = format!("{} ends its connection with {}: {error}", name(from), name(to));
                return Err((Oracle::Session, text));
            }
        }
        for (site, session) in [(from, &mut client), (to, &mut server)] {
            for event in session.poll_events() {
                if let SessionEvent::Diverged { ours, theirs } = event {
                    let names = (name(from), name(to));
                    let text = format!("{} and {}: digests {ours:032x} and {theirs:032x}", names.0, names.1);
                    return Err((Oracle::Digest, text));
                }
                self.sites[site].has_received |= matches!(event, SessionEvent::Joined { .. });
            }
        }
        let [mine, theirs] = held;
        let is_judged = self.plan.shape == Shape::Hub;
        let expected = |other| if is_judged { Expected::Any } else { Expected::Between { other } };
        self.look(from, &expected(theirs))?;
        self.look(to, &expected(mine))
    }

    /// Ends the process on a site and starts it again; in between another program may edit.
    fn reopen(&mut self, on: usize, foreign: Option<&Vec<Op>>) -> Result<(), Finding> {
        self.count += 1;
        let (schema, seeds) = (self.schema(self.sites[on].epoch), seeds(self.plan.seed, on, self.count));
        let site = self.sites.remove(on);
        let now = site.now(self.passed_ms);
        let other = foreign.map(|_| self.plan.variant.schema(1, false));
        let edit = |replica: &mut rivus_core::replica::Replica<MemoryStore>| {
            // Without rules more may be refused, or less.
            let _ = replica.edit(now, foreign.map_or(&[][..], Vec::as_slice));
        };
        let site = site.reopen(schema, edit, other, seeds).map_err(|error| broken(&error))?;
        self.sites.insert(on, site);
        self.look(on, if foreign.is_some() { &Expected::Anew } else { &Expected::Same })
    }

    fn start_over(&mut self, on: usize) -> Result<(), Finding> {
        self.count += 1;
        self.coverage.hit(Sometimes::StartedOver);
        let seeds = seeds(self.plan.seed, on, 500 + self.count);
        let site = &mut self.sites[on];
        let (now, store) = (site.now(self.passed_ms), site.replica.identity().store);
        let fork = site.seen.seq / 2 + 1;
        site.replica.start_over(now, seeds, store, fork).map_err(|error| broken(&error))?;
        self.look(on, &Expected::Any)
    }

    /// Everybody passes on everything, and then all show the same.
    pub(super) fn settle(&mut self, number: usize) -> Result<(), Finding> {
        if self.sites.iter().any(|site| site.replica.epoch() == EPOCH_MAX) {
            for on in (0..self.sites.len()).filter(|on| self.sites[*on].epoch < EPOCH_MAX).collect::<Vec<_>>()
            {
                self.act(number, &Action::Upgrade { on })?;
            }
        }
        for round in 0..3 {
            for from in 1..self.sites.len() {
                self.passed_ms += 10;
                if self.plan.shape == Shape::Peers && round < 2 {
                    self.give(from, 0, Extent::All)?;
                    self.give(0, from, Extent::All)?;
                } else {
                    self.sync(from, 0, u16::MAX, number + round)?;
                }
            }
        }
        for (number, site) in self.sites.iter().enumerate().skip(1) {
            let (first, own) = (&self.sites[0].seen, &site.seen);
            if let Some((key, _)) = own.held.iter().find(|(key, held)| first.held.get(*key) != Some(held)) {
                let text = format!("{} holds {} `{}` otherwise than a", name(number), key.0, key.1);
                return Err((Oracle::Convergence, text));
            }
            let digests =
                [&self.sites[0], site].map(|site| site.replica.head().map(|head| head.digest.shown));
            if first.views != own.views || digests[0] != digests[1] {
                let mut keys = own.views.iter().filter(|(key, view)| first.views.get(*key) != Some(*view));
                let key = keys.next().map(|(key, _)| key);
                let text = format!("{} shows {key:?} otherwise than a, or has another digest", name(number));
                return Err((Oracle::Convergence, text));
            }
        }
        Ok(())
    }
}

fn two_of(sites: &mut [Site], one: usize, two: usize) -> (&mut Site, &mut Site) {
    let (low, high) = sites.split_at_mut(one.max(two));
    if one < two { (&mut low[one], &mut high[0]) } else { (&mut high[0], &mut low[two]) }
}

pub(super) fn broken(error: &dyn std::fmt::Display) -> Finding {
    (Oracle::Store, error.to_string())
}

fn unreadable() -> Finding {
    (Oracle::Store, "a register that was read before cannot be read".to_owned())
}
