//! Plans from seeds.

use std::sync::OnceLock;

use rivus_core::edit::{Action as EditAction, Op};
use rivus_core::value::Value;
use xxhash_rust::xxh3::xxh3_128;

use super::plan::{Action, Extent, Plan, Shape, Site, Step};
use super::schema::variants;
use super::site::BEGIN_MS;
use crate::random::{Random, mixed};

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = Random::new(mixed(seed, 4));
        let shape = if rng.chance(1, 5) { Shape::Hub } else { Shape::Peers };
        let variant = *rng.pick(variants());
        let agree = rng.chance(1, 3);
        let sites = (0..3 + rng.below(3)).map(|_| {
            let skews = [0, 0, 0, 1, -1, 40, -1000, 5000, -90_000, 3_600_000];
            Site { skew_ms: if agree { 0 } else { *rng.pick(&skews) } }
        });
        let sites = sites.collect();
        let plan = Self { seed, shape, variant, sites, steps: Vec::new() };
        let odd = rng.chance(1, 4);
        let mut generator = Generator { rng, plan, passed_ms: 0, odd };
        let steps = 6 + generator.rng.below(19);
        while generator.plan.steps.len() < steps {
            generator.step();
        }
        generator.plan
    }
}

struct Generator {
    rng: Random,
    plan: Plan,
    passed_ms: i64,
    /// Whether what programs without these rules do may happen.
    odd: bool,
}

impl Generator {
    fn push(&mut self, action: Action) {
        let wait_ms = *self.rng.pick(&[0, 0, 1, 7, 300, 2000]);
        self.passed_ms += i64::from(wait_ms);
        self.plan.steps.push(Some(Step { wait_ms, action }));
    }

    fn site(&mut self) -> usize {
        self.rng.below(self.plan.sites.len())
    }

    fn pair(&mut self) -> (usize, usize) {
        let from = self.site();
        if self.plan.shape == Shape::Hub {
            return (from.max(1), 0);
        }
        let others = self.plan.sites.len() - 1;
        (from, (from + 1 + self.rng.below(others)) % self.plan.sites.len())
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..58 => self.edit(),
            58..90 => self.share(),
            90..92 => {
                let (on, id) = (self.site(), self.entry());
                self.push(Action::Confirm { on, id });
            }
            92..94 => {
                let on = self.site();
                self.push(Action::Restart { on });
            }
            94 => {
                let (on, by_ms) = (self.site(), *self.rng.pick(&[-5000, -300, 300, 60_000, -3_600_000]));
                self.push(Action::SetClock { on, by_ms });
            }
            95..98 if self.plan.shape == Shape::Hub => self.refusal(),
            _ if self.odd => self.oddity(),
            _ if self.rng.chance(1, 4) => self.nest(),
            _ if self.rng.chance(1, 4) => self.clash(),
            _ => self.rivals(),
        }
    }

    /// What a program without these rules, or a copied store, does.
    fn oddity(&mut self) {
        let on = self.site();
        match self.rng.below(8) {
            0..3 => {
                let ops = vec![self.op()];
                self.push(Action::Foreign { on, ops });
            }
            3 | 4 => self.push(Action::Hear { on }),
            5 | 6 => self.push(Action::Upgrade { on }),
            _ if self.plan.shape == Shape::Peers => self.push(Action::StartOver { on }),
            _ => self.push(Action::Restart { on }),
        }
    }

    /// A timer is stopped by one that the authority refuses.
    fn refusal(&mut self) {
        let (on, hub) = self.pair();
        let frames = u16::MAX;
        let (user, ids) = (self.user(), [self.entry(), self.entry()]);
        for (id, rank) in ids.into_iter().zip([3, 0]) {
            self.push(Action::Grant { to: on, rank: 3 });
            self.push(Action::Sync { from: on, to: hub, frames });
            let start = self.start(user.clone());
            self.push(Action::Edit { on, ops: vec![Op::new("entry", id, start)] });
            self.push(Action::Grant { to: on, rank });
            self.push(Action::Sync { from: on, to: hub, frames });
        }
    }

    /// Projects of one name, and one that is named as another would show.
    fn clash(&mut self) {
        let on = self.site();
        let (ids, odd) = projects();
        for (n, id) in ids.iter().enumerate() {
            let name = if n == 3 { odd[0].as_str() } else { "Home" };
            let named = put([("workspace", "w1".into()), ("name", name.into())]);
            self.push(Action::Edit { on, ops: vec![Op::new("project", id.as_str(), named)] });
        }
    }

    /// One project in another in another, of which two are deleted.
    fn nest(&mut self) {
        let on = self.site();
        let (ids, _) = projects();
        let first = self.rng.below(ids.len());
        let id = |n: usize| ids[(first + n) % ids.len()].clone();
        for n in 0..2 {
            let parent = put([("parent", id(n + 1).into())]);
            self.push(Action::Edit { on, ops: vec![Op::new("project", id(n), parent)] });
        }
        let named = put([("name", "Home".into())]);
        self.push(Action::Edit { on, ops: vec![Op::new("project", id(2), named)] });
        for n in [2, 1] {
            self.push(Action::Edit { on, ops: vec![Op::new("project", id(n), EditAction::Delete)] });
        }
    }

    /// One after the other starts, each without knowing of the others; then they meet.
    fn rivals(&mut self) {
        let user = self.user();
        for on in 0..self.plan.sites.len() {
            let id = format!("e{}", on % ENTRIES);
            let put = self.start(user.clone());
            self.push(Action::Edit { on, ops: vec![Op::new("entry", id, put)] });
        }
        self.share();
        self.share();
    }

    fn share(&mut self) {
        let (from, to) = self.pair();
        if self.plan.shape == Shape::Hub || self.rng.chance(1, 8) {
            let frames = if self.rng.chance(1, 4) { 2 + self.rng.below(8) } else { usize::from(u16::MAX) };
            let frames = u16::try_from(frames).unwrap_or(u16::MAX);
            return self.push(Action::Sync { from, to, frames });
        }
        let extent = match self.rng.below(10) {
            0..6 => Extent::All,
            6 if self.odd => Extent::Registers(self.rng.next_u64() >> 32),
            _ => Extent::Entities(self.rng.next_u64() >> 32),
        };
        self.push(Action::Give { from, to, extent });
        if self.rng.chance(1, 3) {
            self.push(Action::Give { from: to, to: from, extent: Extent::All });
        }
    }

    fn edit(&mut self) {
        let on = self.site();
        let mut ops = vec![self.op()];
        if self.rng.chance(1, 6) {
            let other = self.op();
            if (&other.kind, &other.id) != (&ops[0].kind, &ops[0].id) {
                ops.push(other);
            }
        }
        self.push(Action::Edit { on, ops });
    }

    fn op(&mut self) -> Op {
        if self.rng.chance(1, 4) { self.project_op() } else { self.entry_op() }
    }

    fn entry(&mut self) -> String {
        format!("e{}", self.rng.below(ENTRIES))
    }

    fn user(&mut self) -> Value {
        (*self.rng.pick(&["u1", "u1", "u1", "u2"])).into()
    }

    fn project(&mut self) -> String {
        let (ids, _) = projects();
        self.rng.pick(ids).clone()
    }

    /// A time in ms, around now.
    fn time(&mut self) -> Value {
        let by = *self.rng.pick(&[0, 0, 0, -7, -300, -1000, -2500, 10, 4000]);
        let ms = BEGIN_MS + self.passed_ms + by;
        match self.rng.below(30) {
            0 => Value::Null,
            #[expect(clippy::cast_precision_loss, reason = "times are below 2^53")]
            1 => Value::Float(ms as f64),
            _ => Value::Int(ms),
        }
    }

    fn start(&mut self, user: Value) -> EditAction {
        let mut fields = vec![("user", user), ("start", self.time()), ("stop", Value::Null)];
        if self.plan.variant.by_project() || self.rng.chance(1, 3) {
            fields.push(("project", self.project().into()));
        }
        put(fields)
    }

    fn entry_op(&mut self) -> Op {
        let id = self.entry();
        let action = match self.rng.below(32) {
            0..9 => {
                let user = self.user();
                self.start(user)
            }
            9..13 => put([("stop", self.time())]),
            13..15 => {
                let user = self.user();
                let (start, stop) = (self.time(), self.time());
                put([("user", user), ("start", start), ("stop", stop)])
            }
            15..18 => put([("text", (*self.rng.pick(&["write", "read", "rest"])).into())]),
            18 => put([("stop", Value::Null)]),
            19 | 20 => {
                let user = if self.rng.chance(1, 6) { Value::Null } else { self.user() };
                put([("user", user)])
            }
            21 | 22 => {
                let project = if self.rng.chance(1, 6) { Value::Null } else { self.project().into() };
                put([("project", project)])
            }
            23 => put([("start", self.time())]),
            24 => put([("star", self.rng.chance(3, 4).into())]),
            25 => put([("bill", (*self.rng.pick(&[-5, 0, 50, 100, 101, 900])).into())]),
            26 => EditAction::Inc { field: "edits".to_owned(), by: 1 },
            27 => EditAction::Add { field: "tags".to_owned(), key: "t".to_owned() },
            28 => EditAction::Remove { field: "tags".to_owned(), key: "t".to_owned() },
            29 | 30 => EditAction::Delete,
            _ => EditAction::Revive,
        };
        Op::new("entry", id, action)
    }

    fn project_op(&mut self) -> Op {
        let id = self.project();
        let action = match self.rng.below(16) {
            0..6 => {
                let workspace = *self.rng.pick(&["w1", "w1", "w1", "w2"]);
                put([("workspace", workspace.into()), ("name", self.name())])
            }
            6..8 => put([("name", self.name())]),
            8 => {
                let workspace = if self.rng.chance(1, 4) { Value::Null } else { "w1".into() };
                put([("workspace", workspace)])
            }
            9..12 => {
                let parent = if self.rng.chance(1, 6) { Value::Null } else { self.project().into() };
                put([("parent", parent)])
            }
            12..15 => EditAction::Delete,
            _ => EditAction::Revive,
        };
        Op::new("project", id, action)
    }

    fn name(&mut self) -> Value {
        let (_, odd) = projects();
        match self.rng.below(12) {
            0 => Value::Null,
            1 => Value::Int(1),
            2 => "1".into(),
            3..6 => self.rng.pick(odd).clone().into(),
            _ => "Home".into(),
        }
    }
}

fn put(fields: impl IntoIterator<Item = (&'static str, Value)>) -> EditAction {
    EditAction::Put(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// How many entries there may be.
const ENTRIES: usize = 5;

/// Ids of projects, of which the hashes of some begin alike, and names as they would be shown of some.
fn projects() -> &'static (Vec<String>, Vec<String>) {
    static PROJECTS: OnceLock<(Vec<String>, Vec<String>)> = OnceLock::new();
    PROJECTS.get_or_init(|| {
        let digits = |id: &str| format!("{:032x}", xxh3_128(id.as_bytes()));
        let id = |n: u32| format!("p{n}");
        let mut seen = std::collections::BTreeMap::new();
        let mut alike = (0..).find_map(|n| {
            let begin = digits(&id(n)).chars().take(4).collect::<String>();
            seen.insert(begin, n).map(|before| vec![id(before), id(n)])
        });
        let mut ids = alike.take().unwrap_or_default();
        let names = ids.iter().map(|id| format!("Home #{}", digits(id).chars().take(4).collect::<String>()));
        let names = names.take(1).chain(["Work".to_owned()]).collect();
        ids.extend(["pa".to_owned(), "pb".to_owned()]);
        (ids, names)
    })
}
