//! Leases and collection: what is dead for everybody is forgotten by everybody at the same place, nothing of it comes back, and
//! no edit is lost unsaid.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use super::*;
use crate::address::class;
use crate::edit::{EditError, Presence};
use crate::replica::Proposed;
use crate::schema::{OnGone, SetWins};

const KINDS: [&str; 4] = ["entry", "note", "plan", "project"];
const IDS: [&str; 3] = ["a", "b", "c"];
const KEYS: [&str; 2] = ["x", "y"];
const KEYED: [&str; 3] = ["bars", "notes", "tags"];
const DEVICES: usize = 4;
const LEASE_MS: u64 = 20_000;

/// Every policy of life, and rules that read what is dead.
pub(super) fn timers() -> Arc<Schema> {
    let fields = |k: crate::schema::KindBuilder, names: &[&str]| {
        let k = names.iter().fold(k, |k, name| k.value(*name)).set("tags").counter("views");
        k.set_with("bars", SetWins::Remove).map("notes").multi("all").max("top")
    };
    let entry = |k| {
        fields(k, &["v", "user", "start", "stop", "project"])
            .at_most_one("one running", ["user"], "stop", "start")
            .reference("of a project", "project", "project", OnGone::Nullify)
    };
    let note = |k| fields(k, &["v", "text"]).life(Life::EditRevives);
    let plan = |k| {
        fields(k, &["v", "text", "parent"]).life(Life::Newest).reference(
            "in a plan",
            "parent",
            "plan",
            OnGone::Cascade,
        )
    };
    let project = |k| fields(k, &["v", "name"]).aliases().unique("one name", [] as [&str; 0], "name");
    let schema = Schema::builder().kind("entry", entry).kind("note", note).kind("plan", plan);
    Arc::new(schema.kind("project", project).build().unwrap())
}

pub(super) fn open_timers(n: u64) -> Device {
    let options = OpenOptions { seeds: seeds(n), slot: 0, admission: Admission::Off, rank: 0 };
    Replica::open(MemoryStore::new(), timers(), options).unwrap()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap()
    }
}

type Name = (&'static str, &'static str);

/// An edit that was made: each writes a number of its own.
#[derive(Clone, Copy, Debug)]
struct Made {
    step: usize,
    /// The device; the hub is the last.
    at: usize,
    name: Name,
    /// Whether its author held the entity as others knew it.
    held: bool,
    /// Another entity that it writes as well.
    beside: Option<Name>,
    /// The field and key that it puts in as well.
    puts_in: Option<(&'static str, &'static str)>,
}

/// A key that is gone: of which entity, and of which field.
type Keyed = (Name, &'static str, &'static str);

#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    collected: usize,
    forgotten: usize,
    fenced: usize,
    gone: usize,
    made_again: usize,
    cut_off: usize,
    verified: usize,
    kept_for_rules: usize,
    told_in_pages: usize,
    keys: usize,
    trimmed: usize,
    keys_told: usize,
    put_in_again: usize,
    keys_gone: usize,
}

struct World {
    random: Random,
    devices: Vec<Device>,
    hub: Device,
    gate: Arc<Gate>,
    /// What the hub was shown and took, in steps.
    taken: Arc<Mutex<BTreeMap<i64, usize>>>,
    clock: Arc<Mutex<usize>>,
    now: i64,
    step: usize,
    next: i64,
    ids: u64,
    made: BTreeMap<i64, Made>,
    collected: Vec<(usize, Name)>,
    keys_collected: Vec<(usize, Keyed)>,
    refused: BTreeSet<i64>,
    /// What had been accepted, unheard, when its author was fenced: it is made anew then, as if it had not.
    unheard: BTreeSet<i64>,
    counts: Counts,
}

fn names() -> impl Iterator<Item = Name> {
    KINDS.into_iter().flat_map(|kind| IDS.into_iter().map(move |id| (kind, id)))
}

/// What these write as their numbers.
fn numbers(ops: &[Op]) -> impl Iterator<Item = i64> + '_ {
    ops.iter().filter_map(|op| match &op.action {
        Action::Put(fields) => fields.iter().find_map(|(field, value)| match value {
            Value::Int(number) if field == "v" => Some(*number),
            _ => None,
        }),
        _ => None,
    })
}

impl World {
    fn new(seed: u64) -> Self {
        let mut hub = open_timers(99);
        hub.serve_as_authority().unwrap();
        hub.lease_for(LEASE_MS);
        let (taken, clock) = (Arc::<Mutex<BTreeMap<i64, usize>>>::default(), Arc::<Mutex<usize>>::default());
        let (log, at) = (Arc::clone(&taken), Arc::clone(&clock));
        let look = move |_: &str, edit: &Proposed<'_>| {
            for entity in edit.entities() {
                if let Some(Value::Int(number)) = entity.field("v") {
                    log.lock().unwrap().entry(*number).or_insert(*at.lock().unwrap());
                }
            }
            Ok(())
        };
        let gate = Gate::new(Grants::everybody())
            .validator(Arc::new(By(look)))
            .authorizer(Arc::new(By(|_: &str, _: Access, _: &str| true)));
        let devices = (1..=DEVICES as u64).map(open_timers).collect();
        let (made, collected) = (BTreeMap::new(), Vec::new());
        let mut world = Self {
            random: Random(seed),
            devices,
            hub,
            gate: Arc::new(gate),
            taken,
            clock,
            now: 1_000_000,
            step: 0,
            next: 0,
            ids: 1000,
            made,
            collected,
            keys_collected: Vec::new(),
            refused: BTreeSet::new(),
            unheard: BTreeSet::new(),
            counts: Counts::default(),
        };
        (0..DEVICES).for_each(|at| world.sync(at));
        world
    }

    fn pass(&mut self, ms: usize) {
        self.now += 1 + self.random.below(ms) as i64;
        self.step += 1;
        *self.clock.lock().unwrap() = self.step;
    }

    fn edit(&mut self) {
        let at = self.random.below(DEVICES + 1);
        let name = (KINDS[self.random.below(KINDS.len())], IDS[self.random.below(IDS.len())]);
        let number = self.next;
        let (kind, _) = name;
        let mut fields = vec![("v".to_owned(), Value::Int(number))];
        let extra = match (kind, self.random.below(4)) {
            ("entry", 0 | 1) => vec![
                ("user", Value::Int(self.random.below(2) as i64)),
                ("start", Value::Int(self.now)),
                ("stop", Value::Null),
            ],
            ("entry", 2) => vec![("stop", Value::Int(self.now))],
            ("entry", _) => vec![("project", IDS[self.random.below(IDS.len())].into())],
            ("project", 0) => vec![("name", ["x", "y"][self.random.below(2)].into())],
            ("plan", 1) => vec![("parent", IDS[self.random.below(IDS.len())].into())],
            (_, 0) if kind != "project" => vec![("text", "t".into())],
            _ => Vec::new(),
        };
        fields.extend(extra.into_iter().map(|(field, value)| (field.to_owned(), value)));
        let (field, key) = (KEYED[self.random.below(KEYED.len())], KEYS[self.random.below(KEYS.len())]);
        let named = || (field.to_owned(), key.to_owned());
        let (keyed, puts_in) = match self.random.below(6) {
            0 | 1 => {
                let (field, key) = named();
                (Some(Action::Remove { field, key }), None)
            }
            2 | 3 => {
                let (of, key_of) = named();
                let value = Value::Int(number);
                let put = match field {
                    "notes" => Action::SetKey { field: of, key: key_of, value },
                    _ => Action::Add { field: of, key: key_of },
                };
                (Some(put), Some((field, key)))
            }
            4 => {
                let field = ["all", "top"][self.random.below(2)].to_owned();
                (Some(Action::Put(vec![(field, Value::Int(self.random.below(5) as i64))])), None)
            }
            _ => (None, None),
        };
        let ops = match self.random.below(12) {
            0..4 => vec![Op::new(kind, name.1, Action::Delete)],
            4 => vec![Op::new(kind, name.1, Action::Revive), Op::new(kind, name.1, Action::Put(fields))],
            5 if kind == "project" && self.random.below(4) == 0 => {
                vec![Op::new(
                    kind,
                    name.1,
                    Action::Alias { to: IDS[self.random.below(IDS.len())].to_owned() },
                )]
            }
            _ => {
                let keyed = keyed.map(|action| Op::new(kind, name.1, action));
                let other = IDS[self.random.below(IDS.len())];
                let beside = vec![("top".to_owned(), Value::Int(number))];
                let beside = (self.random.below(4) == 0).then(|| Op::new(kind, other, Action::Put(beside)));
                let put = Op::new(kind, name.1, Action::Put(fields));
                keyed.into_iter().chain(beside).chain([put]).collect()
            }
        };
        let has_keyed = matches!(ops[0].action, Action::Add { .. } | Action::SetKey { .. });
        let puts_in = puts_in.filter(|_| has_keyed);
        let beside =
            |op: &&Op| matches!(&op.action, Action::Put(fields) if fields.len() == 1 && fields[0].0 == "top");
        let beside = ops.iter().rev().skip(1).find(beside).and_then(|op| IDS.iter().find(|id| **id == op.id));
        let beside = beside.map(|id| (kind, *id));
        let writes = matches!(ops.last(), Some(Op { action: Action::Put(_), .. }));
        let now = Millis(self.now);
        let on = self.devices.get_mut(at).unwrap_or(&mut self.hub);
        // An edit of an alias goes to what stands for it.
        let root = on.root(kind, name.1).unwrap();
        let held = on.is_confirmed(kind, root.as_deref().unwrap_or(name.1)).unwrap();
        match on.edit(now, &ops) {
            Ok(_) if writes => {
                let name =
                    (kind, root.map_or(name.1, |root| IDS[IDS.iter().position(|id| **id == root).unwrap()]));
                self.made.insert(number, Made { step: self.step, at, name, held, beside, puts_in });
                self.next += 1;
                let again =
                    |(field, key)| self.keys_collected.iter().any(|(_, one)| *one == (name, field, key));
                self.counts.put_in_again += usize::from(puts_in.is_some_and(again));
                if at == DEVICES {
                    self.taken.lock().unwrap().insert(number, self.step);
                }
                self.counts.made_again +=
                    usize::from(!held && self.collected.iter().any(|(_, one)| *one == name));
            }
            Err(EditError::Commit(error)) => panic!("{error}"),
            // Of what is deleted, say.
            Ok(_) | Err(_) => {}
        }
    }

    fn sync(&mut self, at: usize) {
        let ended = (0..3).any(|_| self.session(at, Want::Once, false, usize::MAX));
        assert!(ended, "a sync comes to its end");
    }

    /// Moves at most so many frames; whether it came to its end.
    fn session(&mut self, at: usize, want: Want, holds: bool, frames: usize) -> bool {
        self.ids += 1;
        let options = |role, want, ids| {
            Session::new(SessionOptions { role, want, offers: true, seeds: seeds(ids), capabilities: 0 })
        };
        let mut a = options(Role::Client { token: None }, want, self.ids);
        let mut b = options(Role::Server { gate: Arc::clone(&self.gate) }, Want::Live, 1);
        a.hold_pushes(holds);
        let now = Millis(self.now);
        let device = &mut self.devices[at];
        let mut pending = Vec::new();
        let looked = device.pending(0, &mut |_, edit| {
            pending.extend(numbers(&edit.ops().unwrap()));
            std::ops::ControlFlow::Continue(())
        });
        looked.unwrap();
        let done = run(
            &mut End { replica: device, session: &mut a, now },
            &mut End { replica: &mut self.hub, session: &mut b, now },
            frames,
        );
        for event in a.poll_events() {
            match event {
                SessionEvent::Diverged { .. } => panic!("digests differ at one position"),
                SessionEvent::Verified { .. } => self.counts.verified += 1,
                SessionEvent::Collected { entities, keys, .. } => {
                    self.counts.told_in_pages += entities;
                    self.counts.keys_told += keys;
                }
                _ => {}
            }
        }
        let ended = match done {
            Ok(_) => a.is_closed(),
            Err(SessionError::Fenced) => {
                self.counts.fenced += 1;
                let taken = self.taken.lock().unwrap();
                self.unheard.extend(pending.into_iter().filter(|number| taken.contains_key(number)));
                return false;
            }
            Err(other) => panic!("{other}"),
        };
        self.counts.cut_off += usize::from(!ended);
        if ended && want == Want::Once && !holds {
            self.compare(at);
        }
        ended
    }

    /// After a sync the device shows what the hub shows.
    fn compare(&self, at: usize) {
        let device = &self.devices[at];
        let blocked = device.blocked().unwrap().len();
        assert_eq!(device.pending_count(), Ok(blocked));
        if blocked > 0 {
            return;
        }
        assert_same(&[device, &self.hub]);
        for (kind, id) in names() {
            assert_eq!(device.view(kind, id), self.hub.view(kind, id), "{kind} {id}");
            assert_eq!(device.overlays(kind, id), self.hub.overlays(kind, id), "{kind} {id}");
            assert_eq!(device.root(kind, id), self.hub.root(kind, id), "{kind} {id}");
        }
    }

    fn looks(&self) -> BTreeMap<Name, (Option<crate::view::View>, Presence)> {
        let look = |(kind, id)| (self.hub.view(kind, id).unwrap(), self.hub.presence(kind, id).unwrap());
        names().map(|name| (name, look(name))).collect()
    }

    /// The keys of which the hub has a register.
    fn keys(&self) -> BTreeSet<Keyed> {
        let mut all = BTreeSet::new();
        for name in names() {
            let note = &mut |parts: crate::address::Parts<'_>, _: &crate::row::State<'_>| {
                let field = KEYED.iter().find(|field| parts.class == class::KEY && **field == parts.name);
                let key = KEYS.iter().find(|key| parts.text_key() == Some(key));
                all.extend(field.zip(key).map(|(field, key)| (name, *field, *key)));
            };
            self.hub.registers(name.0, name.1, note).unwrap();
        }
        all
    }

    fn collect(&mut self) {
        let (before, keys_before) = (self.looks(), self.keys());
        let now = Millis(self.now);
        let foretold = self.hub.collectable(now, 0).unwrap();
        let may: BTreeSet<_> = foretold.entities.into_iter().collect();
        let done = self.hub.collect(now, 0).unwrap();
        let (after, keys_after) = (self.looks(), self.keys());
        let lives = |keyed: &&Keyed| after[&keyed.0].1 != Presence::Absent;
        let keys: Vec<_> = keys_before.difference(&keys_after).filter(lives).collect();
        assert_eq!((done.keys, done.trimmed), (foretold.keys, foretold.trimmed));
        assert_eq!(done.keys, keys.len());
        self.keys_collected.extend(keys.into_iter().map(|keyed| (self.step, *keyed)));
        self.counts.keys += done.keys;
        self.counts.trimmed += done.trimmed;
        assert_eq!(self.hub.collectable(now, 0).unwrap().trimmed, 0, "once is enough");
        let mut went = 0;
        for (name, (view, presence)) in before {
            let (kind, id) = name;
            let now = &after[&name];
            if presence == Presence::Deleted && now.1 == Presence::Absent {
                went += 1;
                self.collected.push((self.step, name));
                assert!(may.contains(&(kind.to_owned(), id.to_owned())), "{name:?} was foretold");
                let mut left = 0;
                self.hub.registers(kind, id, &mut |_, _| left += 1).unwrap();
                assert_eq!(left, 0);
            } else {
                assert_eq!((&view, presence), (&now.0, now.1), "{name:?} shows otherwise after a collection");
                self.counts.kept_for_rules += usize::from(presence == Presence::Deleted);
            }
        }
        assert_eq!((done.entities, may.len()), (went, went));
        self.counts.collected += went;
        self.counts.forgotten += done.forgotten;
        let digest = self.hub.head().unwrap().digest;
        assert_eq!(digest, self.hub.recompute_digest().unwrap());
    }

    /// Notes what a device is told to be refused: it may be written anew later.
    fn hear(&mut self, at: usize) {
        for event in self.devices[at].poll_events() {
            if let crate::replica::Event::Rejected(rejected) = event {
                self.refused.extend(numbers(&rejected.ops));
                let is_of_key = rejected.message.contains("taken out");
                self.counts.gone += usize::from(rejected.code == Code::GONE && !is_of_key);
                self.counts.keys_gone += usize::from(rejected.code == Code::GONE && is_of_key);
            }
        }
    }

    /// A key that was collected is there again only where somebody has put it in since.
    fn check_keys(&self, taken: &BTreeMap<i64, usize>) {
        for (step, (name, field, key)) in &self.keys_collected {
            let shows = match self
                .hub
                .view(name.0, name.1)
                .unwrap()
                .and_then(|mut view| view.fields.remove(*field))
            {
                Some(Shown::Set(keys)) => keys.contains(*key),
                Some(Shown::Map(entries)) => entries.contains_key(*key),
                _ => false,
            };
            let since = |(number, made): (&i64, &Made)| {
                let is_of_key = made.name == *name && made.puts_in == Some((*field, *key));
                is_of_key
                    && (self.unheard.contains(number) || taken.get(number).is_some_and(|taken| taken > step))
            };
            assert!(
                !shows || self.made.iter().any(since),
                "{key} of {field} of {name:?} is back since {step}"
            );
        }
    }

    fn check(&mut self) {
        let taken = self.taken.lock().unwrap().clone();
        for at in 0..DEVICES {
            assert!(self.devices[at].verify().unwrap().is_sound());
            self.hear(at);
            let blocked = self.devices[at].blocked().unwrap();
            let blocked: BTreeSet<i64> = blocked.iter().flat_map(|one| numbers(&one.ops)).collect();
            for (number, made) in self.made.iter().filter(|(_, made)| made.at == at) {
                assert!(
                    taken.contains_key(number) || self.refused.contains(number) || blocked.contains(number),
                    "an edit was lost unsaid: {number} {made:?}"
                );
            }
        }
        assert!(self.hub.verify().unwrap().is_sound());
        self.check_keys(&taken);
        for (kind, id) in names() {
            let Some(view) = self.hub.view(kind, id).unwrap() else { continue };
            let Some(Shown::Value(Value::Int(number))) = view.fields.get("v") else { continue };
            if self.unheard.contains(number) {
                continue;
            }
            let (made, taken_all) = (self.made[number], &taken);
            let taken = taken_all[number];
            for (step, _) in
                self.collected.iter().filter(|(step, name)| *name == made.name && made.step < *step)
            {
                assert!(
                    taken > *step,
                    "what was collected came back: {made:?}, taken {taken}, collected {step}"
                );
                let again = |(other, one): (&i64, &Made)| {
                    let at = taken_all.get(other).copied().unwrap_or(0);
                    other != number
                        && (one.name == made.name || one.beside == Some(made.name))
                        && (step + 1..=taken).contains(&at)
                };
                assert!(
                    !made.held || self.made.iter().any(again),
                    "an edit of what was collected came in: {made:?}, collected {step}"
                );
            }
        }
    }
}

fn run_history(seed: u64) -> Counts {
    let mut world = World::new(seed);
    for _ in 0..90 {
        world.pass(800);
        let at = world.random.below(DEVICES);
        match world.random.below(20) {
            0..9 => world.edit(),
            9..12 => world.sync(at),
            12 => {
                world.session(at, Want::Live, true, usize::MAX);
            }
            13 => {
                let frames = 1 + world.random.below(12);
                world.session(at, Want::Once, false, frames);
            }
            14 => {
                let frames = 1 + world.random.below(20);
                world.session(at, Want::Live, false, frames);
            }
            15..19 => world.collect(),
            _ if world.random.below(2) == 0 => {
                // Some leases run out.
                world.pass(usize::try_from(2 * LEASE_MS).unwrap());
                world.sync(at);
            }
            _ => {}
        }
    }
    for _ in 0..2 {
        (0..DEVICES).for_each(|at| world.sync(at));
        world.pass(10);
    }
    (0..DEVICES).for_each(|at| world.sync(at));
    world.collect();
    (0..DEVICES).for_each(|at| world.sync(at));
    world.check();
    world.counts
}

#[test]
fn what_is_dead_is_forgotten_by_all_and_no_edit_is_lost_unsaid() {
    let seeds = std::env::var("RIVUS_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(300);
    let mut sum = Counts::default();
    let only: Option<u64> = std::env::var("RIVUS_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..seeds, |only| only..only + 1) {
        let run = std::panic::catch_unwind(|| run_history(seed));
        let counts = run.unwrap_or_else(|_| panic!("seed {seed}"));
        sum.collected += counts.collected;
        sum.forgotten += counts.forgotten;
        sum.fenced += counts.fenced;
        sum.gone += counts.gone;
        sum.made_again += counts.made_again;
        sum.cut_off += counts.cut_off;
        sum.verified += counts.verified;
        sum.kept_for_rules += counts.kept_for_rules;
        sum.told_in_pages += counts.told_in_pages;
        sum.keys += counts.keys;
        sum.trimmed += counts.trimmed;
        sum.keys_told += counts.keys_told;
        sum.put_in_again += counts.put_in_again;
        sum.keys_gone += counts.keys_gone;
    }
    println!("{sum:?}");
    let counts = [sum.collected, sum.forgotten, sum.fenced, sum.gone, sum.made_again];
    let others = [sum.cut_off, sum.verified, sum.kept_for_rules, sum.told_in_pages];
    let of_keys = [sum.keys, sum.trimmed, sum.keys_told, sum.put_in_again, sum.keys_gone];
    assert!(
        counts.iter().chain(&others).chain(&of_keys).all(|count| *count > 20),
        "every situation occurs: {sum:?}"
    );
}
