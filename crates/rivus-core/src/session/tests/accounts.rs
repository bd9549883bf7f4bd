//! Every write is accounted for: it shows, or was replaced by one whose author had seen it, or is a conflict of its
//! author, or was rejected, or left by eviction and is counted. Histories are random, values are unique, and the test keeps its own books of who saw what.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::conflict::LostTo;
use crate::edit::Presence;
use crate::register::Register;
use crate::replica::EvictError;

const HUB: u64 = 9;
const FIELDS: [&str; 3] = ["title", "owner", "notes"];
const IDS: [&str; 3] = ["t", "u", "v"];

fn books_schema() -> Arc<Schema> {
    let task = |k: crate::schema::KindBuilder| {
        k.value("title").value_with("owner", Margin::Ms(5000), Resolver::Newest).value_with(
            "notes",
            Margin::Infinite,
            Resolver::Newest,
        )
    };
    Arc::new(Schema::builder().kind("task", task).build().unwrap())
}

fn open_books(n: u64) -> Device {
    let options = OpenOptions { seeds: seeds(n), slot: 0, admission: Admission::Off, rank: 0 };
    Replica::open(MemoryStore::new(), books_schema(), options).unwrap()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// What an author did, and what it saw in the same place.
struct Write {
    author: usize,
    id: &'static str,
    field: &'static str,
    value: i64,
    saw: Vec<i64>,
    is_bad: bool,
}

/// What an entity held when somebody deleted it.
struct Deletion {
    author: usize,
    id: &'static str,
    saw: BTreeSet<i64>,
}

fn values(register: &Register<'_>) -> Vec<i64> {
    let value = |bytes| match Value::decode(bytes) {
        Ok(Value::Int(value)) => value,
        other => panic!("{other:?}"),
    };
    register.alive.iter().map(|c| value(c.value)).collect()
}

/// The candidates of an entity's fields.
fn held(on: &Device, id: &str) -> BTreeMap<String, Vec<i64>> {
    let mut held = BTreeMap::new();
    on.registers("task", id, &mut |parts, state| {
        if parts.class == crate::address::class::FIELD {
            held.insert(parts.name.to_owned(), values(&state.shown));
        }
    })
    .unwrap();
    held
}

struct Books {
    random: Random,
    devices: Vec<Device>,
    hub: Option<Device>,
    writes: Vec<Write>,
    deletions: Vec<Deletion>,
    now: i64,
}

/// How it ended.
#[derive(Default, Debug)]
struct Totals {
    current: usize,
    replaced: usize,
    conflicts: usize,
    hidden: usize,
    rejected: usize,
    /// At the hub alone, and counted there by the device that evicted it.
    evicted: usize,
}

impl Books {
    fn new(seed: u64, has_hub: bool) -> Self {
        let mut random = Random(seed);
        let devices = (1..=3 + random.below(3)).map(open_books).collect();
        let hub = has_hub.then(|| {
            let mut hub = open_books(HUB);
            hub.become_authority().unwrap();
            hub
        });
        let mut books =
            Self { random, devices, hub, writes: Vec::new(), deletions: Vec::new(), now: 100_000 };
        if has_hub {
            (0..books.devices.len()).for_each(|at| books.sync(at, at, usize::MAX));
        }
        books
    }

    fn replica(&mut self, at: usize) -> &mut Device {
        match self.devices.get_mut(at) {
            Some(device) => device,
            None => self.hub.as_mut().unwrap(),
        }
    }

    fn edit(&mut self) {
        let who = self.devices.len() + usize::from(self.hub.is_some());
        let author = usize::try_from(self.random.below(who as u64)).unwrap();
        let id = self.random.pick(&IDS);
        self.now += i64::try_from(self.random.below(4000)).unwrap();
        // Clocks differ by up to two seconds.
        let now = Millis(self.now + i64::try_from(author * 700 % 2000).unwrap());
        if self.replica(author).presence("task", id).unwrap() == Presence::Evicted {
            self.fetch(author, id);
        }
        let saw = held(self.replica(author), id);
        let is_deleted = self.replica(author).view("task", id).unwrap().is_some_and(|view| view.deleted);
        let action = match self.random.below(12) {
            0 if !saw.is_empty() && !is_deleted => {
                let saw = saw.values().flatten().copied().collect();
                self.deletions.push(Deletion { author, id, saw });
                Action::Delete
            }
            _ if is_deleted => Action::Revive,
            _ => {
                let field = self.random.pick(&FIELDS);
                let value = i64::try_from(self.writes.len()).unwrap();
                let saw = saw.get(field).cloned().unwrap_or_default();
                self.writes.push(Write { author, id, field, value, saw, is_bad: false });
                Action::Put(vec![(field.to_owned(), Value::Int(value))])
            }
        };
        self.replica(author).edit(now, &[Op::new("task", id, action)]).unwrap();
    }

    /// An edit with a rank that the hub does not grant, of an entity of its own.
    fn bad_edit(&mut self) {
        let author = usize::try_from(self.random.below(self.devices.len() as u64)).unwrap();
        let (value, now) = (i64::try_from(self.writes.len()).unwrap(), Millis(self.now));
        let (field, id) = ("title", "bad");
        let device = self.replica(author);
        device.meet_authority(StoreId(HUB), 7).unwrap();
        let name = format!("{id}{value}");
        let put = Action::Put(vec![(field.to_owned(), Value::Int(value))]);
        device.edit(now, &[Op::new("task", name, put)]).unwrap();
        device.meet_authority(StoreId(HUB), 0).unwrap();
        self.writes.push(Write { author, id, field, value, saw: Vec::new(), is_bad: true });
    }

    fn sync(&mut self, one: usize, two: usize, frames: usize) {
        let now = Millis(self.now);
        let (mut client, mut server) = (client(Want::Once), server());
        let (one, two) = match &mut self.hub {
            Some(hub) => (&mut self.devices[one], hub),
            None => {
                let [one, two] = self.devices.get_disjoint_mut([one, two]).unwrap();
                (one, two)
            }
        };
        let ends = (
            &mut End { replica: one, session: &mut client, now },
            &mut End { replica: two, session: &mut server, now },
        );
        run(ends.0, ends.1, frames).unwrap();
    }

    /// Evicts an entity, if the hub has confirmed what the device holds of it.
    fn evict(&mut self) {
        let at = usize::try_from(self.random.below(self.devices.len() as u64)).unwrap();
        let (id, now) = (self.random.pick(&IDS), Millis(self.now));
        match self.devices[at].evict(now, &[("task".to_owned(), id.to_owned())]) {
            Ok(_) | Err(EvictError::Pending { .. } | EvictError::Unknown { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn fetch(&mut self, at: usize, id: &str) {
        let now = Millis(self.now);
        let (mut client, mut server) = (client(Want::Once), server());
        client.fetch([("task".to_owned(), id.to_owned())]);
        let hub = self.hub.as_mut().unwrap();
        let mut one = End { replica: &mut self.devices[at], session: &mut client, now };
        run(&mut one, &mut End { replica: hub, session: &mut server, now }, usize::MAX).unwrap();
        assert_ne!(self.devices[at].presence("task", id).unwrap(), Presence::Evicted);
    }

    fn sync_some(&mut self) {
        let count = self.devices.len() as u64;
        let one = self.random.below(count);
        let two = (one + 1 + self.random.below(count - 1)) % count;
        let frames = if self.random.below(3) == 0 { 1 + self.random.below(14) } else { u64::MAX };
        let at = |n: u64| usize::try_from(n).unwrap();
        self.sync(at(one), at(two), usize::try_from(frames).unwrap());
    }

    fn sync_all(&mut self) {
        for _ in 0..3 {
            for one in 0..self.devices.len() {
                match self.hub {
                    Some(_) => self.sync(one, one, usize::MAX),
                    None => (one + 1..self.devices.len()).for_each(|two| self.sync(one, two, usize::MAX)),
                }
            }
        }
    }

    /// The writes that were replaced by one whose author had seen them, or one that was, and so on.
    fn replaced(&self) -> BTreeSet<i64> {
        self.writes.iter().flat_map(|write| write.saw.iter().copied()).collect()
    }

    /// Whether the author of one write had seen another, or one that had, and so on.
    fn had_seen(&self, write: i64, other: i64) -> bool {
        let saw = &self.writes[usize::try_from(write).unwrap()].saw;
        saw.iter().any(|saw| *saw == other || self.had_seen(*saw, other))
    }

    fn check(mut self) -> Totals {
        self.sync_all();
        let replaced = self.replaced();
        let mut totals = Totals::default();
        // What the first device has evicted the hub has.
        let is_evicted = |id: &str| self.devices[0].presence("task", id).unwrap() == Presence::Evicted;
        let gone: BTreeSet<&str> = IDS.into_iter().filter(|id| is_evicted(id)).collect();
        let holder = |id: &str| match &self.hub {
            Some(hub) if gone.contains(id) => hub,
            _ => &self.devices[0],
        };
        let end: BTreeMap<_, _> = IDS.iter().map(|id| (*id, held(holder(id), id))).collect();
        let views: BTreeMap<_, _> =
            IDS.iter().map(|id| (*id, holder(id).view("task", id).unwrap())).collect();
        let away: usize = gone.iter().map(|id| end[id].len()).sum();
        let evicted = self.devices[0].evicted().unwrap();
        assert_eq!((evicted.entities, evicted.registers), (gone.len(), away as u64), "what left is counted");
        let mut listed: BTreeMap<i64, Vec<LostTo>> = BTreeMap::new();
        let mut rejected = BTreeSet::new();
        for at in 0..self.devices.len() + usize::from(self.hub.is_some()) {
            let conflicts = self.replica(at).conflicts().unwrap();
            for (_, conflict) in conflicts {
                let Ok(Value::Int(value)) = Value::decode(&conflict.value) else { continue };
                let write = &self.writes[usize::try_from(value).unwrap()];
                assert_eq!((write.author, write.id), (at, conflict.id.as_str()), "of its own author");
                listed.entry(value).or_default().push(conflict.to);
                // Without an authority, and behind a margin, too much may be listed; else exactly what was lost.
                let is_exact = write.field == "notes" || write.field == "title" && self.hub.is_some();
                if is_exact && let Ok(Value::Int(winner)) = Value::decode(&conflict.winner_value) {
                    assert!(
                        !self.had_seen(winner, value),
                        "write {value} was seen by {winner} and is listed"
                    );
                }
            }
            for edit in self.replica(at).rejected().unwrap() {
                let Action::Put(fields) = &edit.ops[0].action else { panic!("{edit:?}") };
                let Value::Int(value) = fields[0].1 else { panic!("{edit:?}") };
                rejected.insert(value);
            }
        }
        for write in &self.writes {
            let lost = listed.get(&write.value).map_or(&[][..], Vec::as_slice);
            let has_lost = lost.contains(&LostTo::Write);
            let is_held =
                end.get(write.id).and_then(|e| e.get(write.field)).is_some_and(|v| v.contains(&write.value));
            if write.is_bad {
                assert!(rejected.contains(&write.value) && lost.is_empty(), "{}", write.value);
                totals.rejected += 1;
                continue;
            }
            assert!(!rejected.contains(&write.value), "{}", write.value);
            let is_replaced = replaced.contains(&write.value);
            assert!(
                is_held || is_replaced || has_lost,
                "write {} of {} {} by {} is lost in silence",
                write.value,
                write.id,
                write.field,
                write.author
            );
            assert!(!(is_held && (is_replaced || has_lost)), "write {} is there twice", write.value);
            let is_deleted = views.get(write.id).and_then(Option::as_ref).is_some_and(|view| view.deleted);
            if is_held && is_deleted {
                let all = self.deletions.iter().filter(|deletion| deletion.id == write.id);
                let saw = |deletion: &&Deletion| {
                    deletion.author == write.author || deletion.saw.contains(&write.value)
                };
                assert!(
                    lost.contains(&LostTo::Delete) || all.clone().any(|deletion| saw(&deletion)),
                    "write {} is hidden in silence",
                    write.value
                );
                if self.hub.is_some() && write.field == "title" && all.clone().all(|deletion| saw(&deletion))
                {
                    assert!(lost.is_empty(), "write {} was seen by who deleted it", write.value);
                }
                totals.hidden += usize::from(lost.contains(&LostTo::Delete));
            }
            let is_away = is_held && gone.contains(write.id);
            totals.current += usize::from(is_held && !is_away);
            totals.evicted += usize::from(is_away);
            totals.replaced += usize::from(!is_held && is_replaced && !has_lost);
            totals.conflicts += usize::from(!is_held && has_lost);
        }
        let sum = totals.current + totals.replaced + totals.conflicts + totals.rejected + totals.evicted;
        assert_eq!(sum, self.writes.len(), "{totals:?}");
        totals
    }
}

fn run_books(seed: u64, has_hub: bool) -> Totals {
    let mut books = Books::new(seed, has_hub);
    for _ in 0..20 + books.random.below(40) {
        match books.random.below(9) {
            0..4 => books.edit(),
            4 if has_hub => books.bad_edit(),
            5 if has_hub => books.evict(),
            _ => books.sync_some(),
        }
    }
    books.check()
}

fn run_many(has_hub: bool) {
    let mut all = Totals::default();
    for seed in 0..300 {
        let run = std::panic::catch_unwind(|| run_books(seed, has_hub));
        let totals = run.unwrap_or_else(|_| panic!("seed {seed}"));
        all.current += totals.current;
        all.replaced += totals.replaced;
        all.conflicts += totals.conflicts;
        all.hidden += totals.hidden;
        all.rejected += totals.rejected;
        all.evicted += totals.evicted;
    }
    let counts = [all.current, all.replaced, all.conflicts, all.hidden];
    assert!(counts.iter().all(|count| *count > 100), "every end occurs: {all:?}");
    assert_eq!(all.rejected > 0, has_hub);
    assert_eq!(all.evicted > 100, has_hub, "{all:?}");
}

#[test]
fn with_an_authority_every_write_is_accounted_for() {
    run_many(true);
}

#[test]
fn without_one_every_write_is_accounted_for() {
    run_many(false);
}
