//! Plans from seeds.
//!
//! Chance alone seldom gets into the situations that break merges, so part of a plan are short scenes: several
//! steps that lead up to one, on sites and entities drawn by lot, with whatever happens around them.

use rivus_core::edit::Op;

use super::edits;
use super::plan::{Action, Death, Fault, Flavour, Plan, Shape, Site, Step, Version};
use crate::random::{Random, mixed};

const DAY_MS: i64 = 86_400_000;
const YEAR_MS: i64 = 365 * DAY_MS;

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(flavour: Flavour, seed: u64) -> Self {
        let mut rng = Random::new(mixed(seed, flavour as u64));
        let shape = *rng.pick(&[Shape::Peers, Shape::Peers, Shape::Hub, Shape::Hub, Shape::Relay]);
        let calm = rng.chance(1, 4);
        let mixed = shape != Shape::Peers && rng.chance(1, 3);
        let mut count = 2 + rng.below(if flavour == Flavour::Core { 3 } else { 4 });
        let copies = if !calm && rng.chance(1, 4) { 1 } else { 0 };
        if mixed || copies > 0 {
            count = count.max(3);
        }
        let drift = if rng.chance(1, if calm { 4 } else { 2 }) { Some(60_000) } else { None };
        let mut sites: Vec<_> = (0..count).map(|n| site(&mut rng, n, calm, mixed, drift)).collect();
        for _ in 0..copies {
            let copy = Site { is_copy: true, ..site(&mut rng, count, calm, false, drift) };
            sites.push(copy);
        }
        if !calm && rng.chance(1, 4) {
            let of = if shape == Shape::Peers { rng.below(count) } else { 1 + rng.below(count - 1) };
            sites.push(Site { twin: Some(of), ..sites[of].clone() });
        }
        let length = match flavour {
            Flavour::Core => 20 + rng.below(31),
            Flavour::Full => 200 + rng.below(60),
        };
        if shape == Shape::Hub {
            // What a device wrote before it met its hub must not claim more than the hub will grant.
            sites.iter_mut().for_each(|site| site.rank = 0);
        }
        let mut maker = Maker { rng, shape, flavour, calm, count, sites, steps: Vec::new() };
        while maker.steps.len() < length {
            maker.scene();
        }
        let Maker { sites, steps, .. } = maker;
        Self { seed, flavour, shape, sites, steps: steps.into_iter().map(Some).collect() }
    }
}

fn site(rng: &mut Random, number: usize, calm: bool, mixed: bool, drift: Option<u64>) -> Site {
    let version = match (mixed, number) {
        (false, _) => Version::New,
        (true, 0) => Version::Open,
        (true, 1) => Version::Old,
        (true, _) => *rng.pick(&[Version::New, Version::New, Version::Old]),
    };
    let skew_ms = match rng.below(100) {
        _ if calm => rng.between(-500, 500),
        0 => {
            if rng.chance(1, 2) {
                10 * YEAR_MS
            } else {
                -10 * YEAR_MS
            }
        }
        1..5 => rng.between(-3 * DAY_MS, 3 * DAY_MS),
        5..25 => rng.between(-300_000, 300_000),
        _ => rng.between(-3000, 3000),
    };
    let drift_ppm = if calm { 0 } else { rng.between(-2000, 2000) };
    let rank = u8::try_from(rng.below(4)).unwrap_or(0);
    Site { version, skew_ms, drift_ppm, drift_ms_max: drift, rank, is_copy: false, twin: None }
}

struct Maker {
    rng: Random,
    shape: Shape,
    flavour: Flavour,
    calm: bool,
    /// Sites that are there from the start.
    count: usize,
    sites: Vec<Site>,
    steps: Vec<Step>,
}

impl Maker {
    fn push(&mut self, action: Action) {
        let wait_ms = match self.rng.below(20) {
            0..13 => self.rng.below(400),
            13..18 => self.rng.below(8000),
            18 => self.rng.below(120_000),
            _ => self.rng.below(900_000),
        };
        self.push_after(wait_ms, action);
    }

    fn push_after(&mut self, wait_ms: usize, action: Action) {
        self.steps.push(Step { wait_ms: u32::try_from(wait_ms).unwrap_or(0), action });
    }

    fn any(&mut self) -> usize {
        self.rng.below(self.sites.len())
    }

    /// Who may connect to whom.
    fn pair(&mut self) -> (usize, usize) {
        let len = self.sites.len();
        if self.shape == Shape::Peers {
            let from = self.rng.below(len);
            let to = (from + 1 + self.rng.below(len - 1)) % len;
            return (from, to);
        }
        (1 + self.rng.below(len - 1), 0)
    }

    fn edit(&mut self, on: usize) {
        let ops = edits::ops(&mut self.rng);
        self.push(Action::Edit { on, ops });
    }

    fn op(&mut self, on: usize, make: impl FnOnce(&mut Random) -> Op) {
        let ops = vec![make(&mut self.rng)];
        self.push(Action::Edit { on, ops });
    }

    fn edit_field(&mut self, on: usize, wait_ms: usize, kind: &str, id: &str, field: &str) {
        let op: Op = edits::put(&mut self.rng, kind, id, field);
        self.push_after(wait_ms, Action::Edit { on, ops: vec![op] });
    }

    fn sync(&mut self) {
        let (from, to) = self.pair();
        let fault = self.fault();
        self.push(Action::Sync { from, to, fault });
    }

    fn fault(&mut self) -> Fault {
        if self.calm || self.rng.chance(2, 3) {
            return Fault::None;
        }
        let rng = &mut self.rng;
        let frames = u16::try_from(1 + rng.below(10)).unwrap_or(1);
        let percent = |rng: &mut Random, of: usize| u8::try_from(rng.below(of)).unwrap_or(0);
        match rng.below(6) {
            0..3 => Fault::Cut(frames),
            3 => Fault::Forward(frames),
            4 => Fault::Backward(frames),
            _ => {
                Fault::Noise { lost: percent(rng, 31), doubled: percent(rng, 51), swapped: percent(rng, 31) }
            }
        }
    }

    fn scene(&mut self) {
        let full = self.flavour == Flavour::Full;
        match self.rng.below(if self.calm { 70 } else { 100 }) {
            0..38 => {
                let on = self.any();
                self.edit(on);
            }
            38..62 => self.sync(),
            62..67 => self.live(),
            67 => self.tie(),
            68..70 => self.transaction(),
            70..75 => self.death(),
            75..79 => {
                let on = self.any();
                self.push(Action::Restart { on });
            }
            79..81 => {
                let on = self.any();
                let by_ms = self.rng.between(-DAY_MS, DAY_MS);
                self.push(Action::SetClock { on, by_ms });
            }
            81 => self.poison(),
            82..84 => self.backup(),
            84..87 => self.copy(),
            87..92 if self.shape == Shape::Hub => match self.twins() {
                Some((one, other)) if self.rng.chance(1, 2) => self.refused_for_both(one, other),
                _ => self.regrade(),
            },
            92..94 => {
                let on = self.any();
                self.push(Action::Overtake { on });
                self.edit(on);
            }
            94 => self.large(),
            95 if full || self.rng.chance(1, 3) => self.wide(),
            96 => self.lifes(),
            97 | 98 => self.poison(),
            _ => self.sync(),
        }
    }

    /// A link that stays up while both ends are edited.
    fn live(&mut self) {
        let (from, to) = self.pair();
        self.push(Action::Connect { from, to });
        for _ in 0..2 + self.rng.below(4) {
            let frames = u16::try_from(1 + self.rng.below(8)).unwrap_or(1);
            self.push_after(50, Action::Carry { from, frames });
            match self.rng.below(4) {
                0 | 1 => self.edit(from),
                2 => self.edit(to),
                _ => self.push_after(1000, Action::Quiet { from }),
            }
        }
        if self.rng.chance(1, 2) {
            self.push_after(50, Action::Carry { from, frames: u16::MAX });
            self.push_after(1000, Action::Quiet { from });
            self.push_after(50, Action::Carry { from, frames: u16::MAX });
        }
        if self.rng.chance(2, 3) {
            self.push(Action::Cut { from });
        }
    }

    /// Everybody writes one field within its margin, then some meet.
    fn tie(&mut self) {
        let id = edits::task(&mut self.rng);
        if let Some(old) = self.sites.iter().position(|site| site.version == Version::Old) {
            // The older schema knows no margin here, and a newer writer sees what it wrote.
            let new = 1 + self.rng.below(self.count - 1);
            self.edit_field(old, 20, "task", &id, "due");
            for from in [old, new] {
                self.push_after(50, Action::Sync { from, to: 0, fault: Fault::None });
            }
            self.edit_field(new, 20, "task", &id, "due");
        }
        let field = *self.rng.pick(&["due", "due", "owner"]);
        for on in 0..self.sites.len() {
            self.edit_field(on, 20, "task", &id, field);
        }
        for _ in 0..self.sites.len() {
            self.sync();
        }
    }

    fn transaction(&mut self) {
        let on = self.any();
        let ops = (0..2 + self.rng.below(2)).flat_map(|_| edits::ops(&mut self.rng)).collect();
        self.push(Action::Edit { on, ops });
    }

    fn death(&mut self) {
        let on = self.any();
        let commits = u8::try_from(self.rng.below(3)).unwrap_or(0);
        let death = *self.rng.pick(&[Death::Before, Death::After]);
        self.push(Action::Die { on, commits, death });
        match self.rng.below(3) {
            0 => self.sync(),
            _ => self.edit(on),
        }
        if self.rng.chance(1, 2) {
            self.push(Action::Restart { on });
        }
    }

    /// A value from the far future, and somebody who has seen it and writes over it.
    fn poison(&mut self) {
        let (from, to) = self.pair();
        let id = edits::task(&mut self.rng);
        let years = self.rng.between(1, 10) * YEAR_MS;
        // An authority refuses such a value, and takes its own.
        let (writer, reader) = if self.shape == Shape::Hub { (to, from) } else { (from, to) };
        self.push(Action::SetClock { on: writer, by_ms: years });
        self.edit_field(writer, 10, "task", &id, "title");
        self.push(Action::SetClock { on: writer, by_ms: -years });
        self.push(Action::Sync { from, to, fault: Fault::None });
        self.edit_field(reader, 10, "task", &id, "title");
        self.edit_field(writer, 10, "task", &id, "title");
    }

    fn backup(&mut self) {
        // A hub is restored less often: everybody's history changes with it.
        let on = if self.rng.chance(1, 2) { self.any() } else { self.pair().0 };
        self.push(Action::Backup { on });
        for _ in 0..1 + self.rng.below(3) {
            self.edit(on);
            let (from, to) = self.pair();
            let (from, to) =
                if self.shape == Shape::Peers { (on, if to == on { from } else { to }) } else { (from, to) };
            if self.rng.chance(2, 3) && from != to {
                self.push(Action::Sync { from, to, fault: Fault::None });
            }
        }
        self.push(Action::Restore { on });
        if self.rng.chance(2, 3) {
            self.edit(on);
        }
    }

    fn copy(&mut self) {
        let Some(to) = self.sites.iter().position(|site| site.is_copy) else { return self.sync() };
        let from = if self.shape == Shape::Peers { self.rng.below(self.count) } else { self.pair().0 };
        if from == to {
            return;
        }
        let id = edits::task(&mut self.rng);
        self.op(from, |rng| edits::inc(rng, &id));
        self.push(Action::Copy { from, to });
        if self.rng.chance(1, 2) {
            self.clash(from, to);
        }
        for on in [from, to, from, to] {
            match self.rng.below(4) {
                0 => self.push(Action::Edit { on, ops: vec![edits::inc(&mut Random::new(7), &id)] }),
                1 | 2 => self.edit(on),
                _ if self.shape == Shape::Peers => self.sync(),
                _ => self.push(Action::Sync { from: on, to: 0, fault: Fault::None }),
            }
        }
        if self.rng.chance(1, 2) && self.shape != Shape::Peers {
            for on in [from, to, to] {
                self.push(Action::Sync { from: on, to: 0, fault: Fault::None });
            }
            self.op(to, |rng| edits::inc(rng, &id));
        }
    }

    /// Both clocks are behind what the store has met, so that both copies go on with the same stamps; then two others
    /// meet who have heard of one copy each.
    fn clash(&mut self, from: usize, to: usize) {
        let id = edits::task(&mut self.rng);
        for on in [from, to] {
            self.push(Action::SetClock { on, by_ms: -YEAR_MS });
            self.edit_field(on, 10, "task", &id, "title");
        }
        let others: Vec<usize> = (0..self.count).filter(|site| *site != from).collect();
        if let ([one, two, ..], Shape::Peers) = (others.as_slice(), self.shape) {
            self.push(Action::Sync { from, to: *one, fault: Fault::None });
            self.push(Action::Sync { from: to, to: *two, fault: Fault::None });
            self.push(Action::Sync { from: *one, to: *two, fault: Fault::None });
        }
    }

    /// The authority grants less than the pending edits claim.
    fn regrade(&mut self) {
        let (from, to) = self.pair();
        let id = edits::task(&mut self.rng);
        self.push(Action::Grant { to: from, rank: 3 });
        self.push(Action::Sync { from, to, fault: Fault::None });
        for _ in 0..1 + self.rng.below(2) {
            self.edit_field(from, 10, "task", &id, "title");
            self.edit(from);
        }
        self.push(Action::Grant { to: from, rank: 1 });
        if self.rng.chance(1, 2) {
            self.push(Action::Connect { from, to });
            self.push_after(10, Action::Carry { from, frames: 4 });
            self.edit_field(from, 10, "task", &id, "owner");
            self.push_after(10, Action::Carry { from, frames: u16::MAX });
        } else {
            self.push(Action::Sync { from, to, fault: Fault::None });
        }
    }

    /// Two processes on one store.
    fn twins(&self) -> Option<(usize, usize)> {
        self.sites.iter().enumerate().find_map(|(site, plan)| Some((plan.twin?, site)))
    }

    /// Both processes of a store push the same edits, of which one is refused, and hear of it one after the other.
    fn refused_for_both(&mut self, one: usize, other: usize) {
        let id = edits::task(&mut self.rng);
        self.push(Action::Grant { to: one, rank: 3 });
        self.push(Action::Sync { from: one, to: 0, fault: Fault::None });
        self.edit_field(one, 10, "task", &id, "title");
        self.op(other, |rng| edits::inc(rng, &id));
        self.edit(other);
        self.push(Action::Grant { to: one, rank: 1 });
        for from in [one, other] {
            self.push_after(10, Action::Connect { from, to: 0 });
        }
        for _ in 0..4 + self.rng.below(8) {
            let from = if self.rng.chance(1, 2) { one } else { other };
            let frames = u16::try_from(1 + self.rng.below(3)).unwrap_or(1);
            self.push_after(10, Action::Carry { from, frames });
            if self.rng.chance(1, 4) {
                self.op(other, |rng| edits::inc(rng, &id));
            }
        }
        for from in [one, other] {
            self.push_after(10, Action::Carry { from, frames: u16::MAX });
        }
    }

    /// Entities so large that a pass takes several pages, and a reader that is slow.
    fn large(&mut self) {
        let (from, to) = self.pair();
        let ids = ["b0", "b1", "b2", "b3"];
        let (reader, writer) = if self.shape == Shape::Hub { (from, 0) } else { (from, to) };
        for id in ids {
            self.op(writer, |rng| edits::body(rng, id));
        }
        if self.rng.chance(1, 2) {
            // The row moves behind the others, and the long value in it is older than they are.
            self.op(writer, |rng| edits::note_of(rng, "b0"));
        }
        self.push(Action::Connect { from: reader, to: writer });
        let frames = u16::try_from(4 + self.rng.below(4)).unwrap_or(4);
        self.push_after(10, Action::Carry { from: reader, frames });
        if self.rng.chance(2, 3) {
            self.op(writer, |rng| edits::note_of(rng, "b0"));
        }
        if self.rng.chance(1, 2) {
            self.push(Action::Cut { from: reader });
            self.op(writer, |rng| edits::note_of(rng, "b1"));
            self.push(Action::Sync { from: reader, to: writer, fault: Fault::None });
        } else {
            self.push_after(10, Action::Carry { from: reader, frames: u16::MAX });
        }
    }

    /// An entity of more than one row.
    fn wide(&mut self) {
        let (from, to) = self.pair();
        let id = edits::task(&mut self.rng);
        let ops = edits::labels(&mut self.rng, &id);
        self.push(Action::Edit { on: from, ops });
        self.sync();
        self.op(to, |rng| edits::label(rng, &id));
    }

    fn lifes(&mut self) {
        let (from, to) = self.pair();
        let (kind, id) = edits::entity(&mut self.rng);
        for action in [rivus_core::edit::Action::Delete, rivus_core::edit::Action::Revive] {
            let on = if self.rng.chance(1, 2) { from } else { to };
            self.push(Action::Edit { on, ops: vec![Op::new(kind, &*id, action)] });
            if self.rng.chance(1, 2) {
                self.sync();
            }
        }
    }
}
