//! Entities that a device evicts and fetches: what it holds shows as on the hub all the while, and the digests agree.

use std::collections::BTreeSet;

use super::*;
use crate::edit::{EditError, Presence};
use crate::id::Incarnation;
use crate::replica::{Event, EvictError, Evicted, Origin};
use crate::row::Sums;
use crate::schema::OnGone;
use crate::store::Batch;
use crate::wire::Welcome;

const KINDS: [&str; 2] = ["entry", "project"];
const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Timers with projects: rules of every sort that reads others.
fn timers() -> Arc<Schema> {
    let entry = |k: crate::schema::KindBuilder| {
        ["user", "text", "start", "stop", "notes", "project"]
            .into_iter()
            .fold(k, crate::schema::KindBuilder::value)
            .set("tags")
            .counter("views")
            .at_most_one("one running", ["user"], "stop", "start")
            .reference("of a project", "project", "project", OnGone::Nullify)
    };
    let project = |k: crate::schema::KindBuilder| {
        k.aliases()
            .value("name")
            .value("notes")
            .value("parent")
            .unique("one name", [] as [&str; 0], "name")
            .reference("in a project", "parent", "project", OnGone::Cascade)
    };
    Arc::new(Schema::builder().kind("entry", entry).kind("project", project).build().unwrap())
}

fn open_timers(n: u64) -> Device {
    open_with(timers(), n, MemoryStore::new())
}

fn open_with(schema: Arc<Schema>, n: u64, store: MemoryStore) -> Device {
    let options = OpenOptions { seeds: seeds(n), slot: 0, admission: Admission::Off, rank: 0 };
    Replica::open(store, schema, options).unwrap()
}

fn names(kind: &str, ids: &[&str]) -> Vec<(String, String)> {
    ids.iter().map(|id| (kind.to_owned(), (*id).to_owned())).collect()
}

fn fetch_at(
    one: &mut Device,
    hub: &mut Device,
    now: i64,
    wanted: Vec<(String, String)>,
) -> Result<Vec<SessionEvent>, SessionError> {
    let (mut a, mut b) = (client(Want::Once), server());
    a.fetch(wanted);
    let now = Millis(now);
    run(
        &mut End { replica: one, session: &mut a, now },
        &mut End { replica: hub, session: &mut b, now },
        usize::MAX,
    )?;
    assert!(a.is_closed(), "{a:?}");
    Ok(a.poll_events().collect())
}

fn fetched(events: &[SessionEvent]) -> (usize, Vec<(String, String)>) {
    let fetched = events.iter().find_map(|event| match event {
        SessionEvent::Fetched { entities, missing, .. } => Some((*entities, missing.clone())),
        _ => None,
    });
    fetched.unwrap_or_else(|| panic!("nothing was fetched: {events:?}"))
}

fn diverged(events: &[SessionEvent]) -> bool {
    events.iter().any(|event| matches!(event, SessionEvent::Diverged { .. }))
}

fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    KINDS.into_iter().flat_map(|kind| IDS.into_iter().map(move |id| (kind, id)))
}

fn set(on: &mut Device, now: i64, kind: &str, id: &str, fields: &[(&str, Value)]) -> Result<(), EditError> {
    let fields = fields.iter().map(|(field, value)| ((*field).to_owned(), value.clone())).collect();
    on.edit(Millis(now), &[Op::new(kind, id, Action::Put(fields))]).map(drop)
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

struct World {
    random: Random,
    /// The devices, and the hub last. The first evicts.
    replicas: [Device; 3],
    now: i64,
    counts: Counts,
}

#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    evicted: usize,
    refused: usize,
    fetched: usize,
    edits_refused: usize,
    overlaid: usize,
    verified: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut replicas = [open_timers(1), open_timers(2), open_timers(9)];
        replicas[2].become_authority().unwrap();
        let mut world = Self { random: Random(seed), replicas, now: 100_000, counts: Counts::default() };
        (0..2).for_each(|at| drop(world.sync(at, Vec::new())));
        world
    }

    fn action(&mut self, kind: &str) -> Action {
        let now = self.now;
        let put = |field: &str, value: Value| Action::Put(vec![(field.to_owned(), value)]);
        match (kind, self.random.below(12)) {
            (_, 0) => Action::Delete,
            (_, 1) => Action::Revive,
            ("entry", 2..5) => Action::Put(vec![
                ("user".to_owned(), Value::Int(self.random.below(2) as i64)),
                ("start".to_owned(), Value::Int(now)),
                ("stop".to_owned(), Value::Null),
            ]),
            ("entry", 5) => put("stop", Value::Int(now)),
            ("entry", 6..8) => put("project", IDS[self.random.below(IDS.len())].into()),
            ("entry", 8) => Action::Add { field: "tags".to_owned(), key: now.to_string() },
            ("entry", 9) => Action::Inc { field: "views".to_owned(), by: 1 },
            ("project", 2..5) => put("name", ["x", "y"][self.random.below(2)].into()),
            ("project", 5..7) => put("parent", IDS[self.random.below(IDS.len())].into()),
            ("project", 7) => Action::Alias { to: IDS[self.random.below(IDS.len())].to_owned() },
            _ => {
                // Some are so long that an entity has several rows.
                let len = [3, 3000][self.random.below(2)];
                put("notes", format!("{now}{}", "x".repeat(len)).into())
            }
        }
    }

    fn edit(&mut self) {
        let (at, kind, id) =
            (self.random.below(3), KINDS[self.random.below(2)], IDS[self.random.below(IDS.len())]);
        self.now += 1 + self.random.below(5000) as i64;
        let action = self.action(kind);
        let on = &mut self.replicas[at];
        let presence = on.presence(kind, id).unwrap();
        let done = on.edit(Millis(self.now), &[Op::new(kind, id, action)]);
        if presence == Presence::Evicted && on.root(kind, id).unwrap().is_none() {
            assert!(matches!(done, Err(EditError::Evicted { .. })), "{done:?}");
            self.counts.edits_refused += 1;
        }
    }

    fn sync(&mut self, at: usize, wanted: Vec<(String, String)>) -> Vec<SessionEvent> {
        let [one, two, hub] = &mut self.replicas;
        let device = if at == 0 { one } else { two };
        let events = fetch_at(device, hub, self.now, wanted).unwrap();
        assert!(!diverged(&events), "{events:?}");
        let is_verified = |event: &SessionEvent| matches!(event, SessionEvent::Verified { .. });
        self.counts.verified += usize::from(events.iter().any(is_verified));
        assert_same(&[device, hub]);
        self.compare(at);
        events
    }

    /// After a sync the device shows what the hub shows, or nothing of what is evicted.
    fn compare(&mut self, at: usize) {
        let (device, hub) = (&self.replicas[at], &self.replicas[2]);
        for (kind, id) in all() {
            let (theirs, overlays) = (hub.view(kind, id).unwrap(), hub.overlays(kind, id).unwrap());
            let presence = device.presence(kind, id).unwrap();
            assert_eq!(device.root(kind, id).unwrap(), hub.root(kind, id).unwrap(), "{kind} {id}");
            if presence == Presence::Evicted {
                assert_eq!(
                    (device.view(kind, id).unwrap(), device.overlays(kind, id).unwrap()),
                    (None, Vec::new())
                );
                device.registers(kind, id, &mut |parts, _| panic!("{parts:?} of what is evicted")).unwrap();
                continue;
            }
            assert_eq!(device.view(kind, id).unwrap(), theirs, "{kind} {id}");
            assert_eq!(device.overlays(kind, id).unwrap(), overlays, "{kind} {id}");
            self.counts.overlaid += usize::from(!overlays.is_empty());
        }
    }

    fn evict(&mut self) {
        let some = 1 + self.random.below(2);
        let chosen: Vec<_> = (0..some)
            .map(|_| (KINDS[self.random.below(2)].to_owned(), IDS[self.random.below(IDS.len())].to_owned()))
            .collect();
        let device = &mut self.replicas[0];
        let look = |device: &Device| -> Vec<_> {
            let look = |(kind, id)| (device.view(kind, id).unwrap(), device.overlays(kind, id).unwrap());
            all().map(look).collect()
        };
        let (before, head) = (look(device), device.head().unwrap());
        let done = device.evict(Millis(self.now), &chosen);
        let after = look(device);
        assert_eq!(device.head().unwrap().digest, head.digest, "an eviction changes no digest");
        assert_eq!(device.recompute_digest().unwrap(), head.digest);
        let gone: BTreeSet<_> = chosen.iter().map(|(kind, id)| (kind.as_str(), id.as_str())).collect();
        for ((name, before), after) in all().zip(before).zip(after) {
            if done.is_err() || !gone.contains(&name) {
                assert_eq!(before, after, "{name:?} does not show otherwise on account of {gone:?}");
            } else {
                assert_eq!(after, (None, Vec::new()));
            }
        }
        match done {
            Ok(evicted) => self.counts.evicted += evicted.entities,
            Err(EvictError::Pending { .. } | EvictError::Unknown { .. }) => self.counts.refused += 1,
            Err(other) => panic!("{other}"),
        }
    }

    fn fetch(&mut self) {
        let wanted: BTreeSet<_> = (0..2)
            .map(|_| (KINDS[self.random.below(2)].to_owned(), IDS[self.random.below(IDS.len())].to_owned()))
            .collect();
        let was = |device: &Device| {
            wanted.iter().filter(|(kind, id)| device.presence(kind, id).unwrap() == Presence::Evicted).count()
        };
        let before = was(&self.replicas[0]);
        let events = self.sync(0, wanted.iter().cloned().collect());
        let (entities, missing) = fetched(&events);
        assert_eq!(entities + missing.len(), wanted.len());
        assert_eq!(was(&self.replicas[0]), 0, "what was fetched is at hand");
        self.counts.fetched += before;
    }
}

fn run_history(seed: u64) -> Counts {
    let mut world = World::new(seed);
    for _ in 0..40 {
        match world.random.below(10) {
            0..5 => world.edit(),
            5 | 6 => drop(world.sync(0, Vec::new())),
            7 => drop(world.sync(1, Vec::new())),
            8 => world.evict(),
            _ => world.fetch(),
        }
    }
    drop(world.sync(1, Vec::new()));
    drop(world.sync(0, all().map(|(kind, id)| (kind.to_owned(), id.to_owned())).collect()));
    assert_eq!(world.replicas[0].evicted().unwrap(), Evicted::default());
    assert_eq!(world.replicas[0].head().unwrap().digest, world.replicas[2].head().unwrap().digest);
    world.counts
}

#[test]
fn whatever_is_evicted_and_fetched_what_is_held_shows_as_on_the_hub() {
    let mut sum = Counts::default();
    for seed in 0..400 {
        let run = std::panic::catch_unwind(|| run_history(seed));
        let counts = run.unwrap_or_else(|_| panic!("seed {seed}"));
        sum.evicted += counts.evicted;
        sum.refused += counts.refused;
        sum.fetched += counts.fetched;
        sum.edits_refused += counts.edits_refused;
        sum.overlaid += counts.overlaid;
        sum.verified += counts.verified;
    }
    let counts = [sum.evicted, sum.refused, sum.fetched, sum.edits_refused, sum.overlaid, sum.verified];
    assert!(counts.iter().all(|count| *count > 50), "every situation occurs: {sum:?}");
}

/// A device and a hub that both have two running timers of one user, of which the first is stopped by the second.
fn rivals() -> (Device, Device) {
    let (mut device, mut hub) = (open_timers(1), open_timers(9));
    hub.become_authority().unwrap();
    for (now, id) in [(1000, "a"), (2000, "b")] {
        let fields = [("user", 1.into()), ("start", now.into()), ("text", "x".into()), ("notes", "n".into())];
        // Each on its own, as if neither had known of the other.
        let mut alone = open_timers(u64::try_from(now).unwrap());
        set(&mut alone, now, "entry", id, &fields).unwrap();
        sync(&mut alone, &mut hub);
    }
    sync(&mut device, &mut hub);
    (device, hub)
}

#[test]
fn a_timer_that_stops_another_stops_it_also_when_it_is_evicted() {
    let (mut device, mut hub) = rivals();
    let stopped = shows_entry(&device, "a", "stop");
    assert_eq!(stopped, Some(Shown::Value(2000.into())));
    let evicted = device.evict(Millis(0), &names("entry", &["b"])).unwrap();
    assert_eq!(evicted, Evicted { entities: 1, registers: 2 }, "text and notes");
    assert_eq!(shows_entry(&device, "a", "stop"), stopped);
    // One that somebody else began in between, and that comes later, is stopped as well.
    let mut other = open_timers(3);
    set(&mut other, 1500, "entry", "c", &[("user", 1.into()), ("start", 1500.into())]).unwrap();
    sync(&mut other, &mut hub);
    sync(&mut device, &mut hub);
    assert_eq!(shows_entry(&device, "c", "stop"), Some(Shown::Value(2000.into())));
    assert_eq!(shows_entry(&device, "a", "stop"), Some(Shown::Value(1500.into())), "the next one begins");
    // Also for a program that makes the index of the rules anew.
    let store = device.into_store();
    let mut bare = open_with(Arc::new(Schema::builder().open().build().unwrap()), 1, store);
    bare.edit(Millis(3000), &[Op::new("other", "x", Action::Put(vec![("y".to_owned(), 1.into())]))]).unwrap();
    let device = open_with(timers(), 1, bare.into_store());
    assert_eq!(shows_entry(&device, "c", "stop"), Some(Shown::Value(2000.into())));
    assert_eq!(device.presence("entry", "b"), Ok(Presence::Evicted));
}

fn shows_entry(on: &Device, id: &str, field: &str) -> Option<Shown> {
    on.view("entry", id).unwrap().and_then(|mut view| view.fields.remove(field))
}

#[test]
fn rules_that_came_later_go_without_what_they_cannot_read() {
    let (mut device, _) = rivals();
    device.evict(Millis(0), &names("entry", &["b"])).unwrap();
    // Now they read what has left.
    let entry = |k: crate::schema::KindBuilder| {
        let k =
            ["user", "text", "start", "stop", "notes"].into_iter().fold(k, crate::schema::KindBuilder::value);
        k.at_most_one("one running", ["text"], "stop", "start")
    };
    let later = Arc::new(Schema::builder().kind("entry", entry).build().unwrap());
    let device = open_with(later, 1, device.into_store());
    assert_eq!(shows_entry(&device, "a", "stop"), None, "as if the other were not here");
}

#[test]
fn what_has_left_is_no_view_no_edit_and_no_deletion() {
    let (mut device, mut hub) = rivals();
    device.watch(Watching::Yes);
    device.evict(Millis(0), &names("entry", &["a"])).unwrap();
    let event = Event::Changed { kind: "entry".into(), id: "a".into(), origin: Origin::Evicted };
    assert_eq!(device.poll_events(), [event]);
    for action in [Action::Delete, Action::Revive, Action::Put(vec![("text".to_owned(), "y".into())])] {
        let refused = device.edit(Millis(5000), &[Op::new("entry", "a", action)]);
        assert_eq!(refused, Err(EditError::Evicted { kind: "entry".into(), id: "a".into() }));
    }
    assert_eq!(
        device.evict(Millis(0), &names("entry", &["a"])),
        Ok(Evicted::default()),
        "it has left already"
    );
    // What comes of it meanwhile is not told.
    set(&mut hub, 6000, "entry", "a", &[("text", "long ".repeat(2000).into()), ("tags2", 1.into())])
        .unwrap_err();
    set(&mut hub, 6000, "entry", "a", &[("text", "long ".repeat(2000).into())]).unwrap();
    let events = fetch_at(&mut device, &mut hub, 100_000, Vec::new()).unwrap();
    assert!(!diverged(&events));
    assert_eq!(device.poll_events(), []);
    assert!(device.store().load("entry", "a", &[]).unwrap().unwrap().bytes.len() < 500, "nothing is stored");
    let events = fetch_at(&mut device, &mut hub, 100_000, names("entry", &["a", "nowhere"])).unwrap();
    assert_eq!(fetched(&events), (1, names("entry", &["nowhere"])));
    assert_eq!(device.view("entry", "a"), hub.view("entry", "a"));
    assert!(matches!(&device.poll_events()[..], [Event::Changed { origin: Origin::Remote(StoreId(9)), .. }]));
    assert_eq!(device.evicted(), Ok(Evicted::default()));
}

#[test]
fn only_what_the_authority_has_leaves_and_all_of_a_list_or_nothing() {
    let mut alone = open_timers(5);
    set(&mut alone, 1, "entry", "a", &[("text", "x".into())]).unwrap();
    assert_eq!(alone.evict(Millis(0), &names("entry", &["a"])), Err(EvictError::NoAuthority));
    let (mut device, mut hub) = rivals();
    assert_eq!(hub.evict(Millis(0), &names("entry", &["a"])), Err(EvictError::NoAuthority));
    let digest = device.head().unwrap();
    let unknown = EvictError::Unknown { kind: "entry".into(), id: "z".into() };
    assert_eq!(device.evict(Millis(0), &names("entry", &["a", "z"])), Err(unknown));
    set(&mut device, 7000, "entry", "b", &[("text", "y".into())]).unwrap();
    let pending = EvictError::Pending { kind: "entry".into(), id: "b".into() };
    assert_eq!(device.evict(Millis(0), &names("entry", &["a", "b"])), Err(pending));
    assert_eq!(device.evicted(), Ok(Evicted::default()));
    assert_eq!(device.head().unwrap().seq, digest.seq + 1, "the edit alone");
    sync(&mut device, &mut hub);
    assert_eq!(device.evict(Millis(0), &names("entry", &["a", "b"])).unwrap().entities, 2);
}

#[test]
fn what_is_set_aside_of_an_entity_keeps_it_here() {
    let (mut one, mut other, mut hub) = (device(1), device(2), hub(9));
    put(&mut one, 90_000, "t", "title", "now");
    put(&mut other, 300_000, "t", "owner", "from the future");
    sync(&mut one, &mut other);
    assert!(one.quarantined().unwrap() > 0);
    sync(&mut one, &mut hub);
    let pending = EvictError::Pending { kind: "task".into(), id: "t".into() };
    assert_eq!(one.evict(Millis(0), &names("task", &["t"])), Err(pending));
}

#[test]
fn a_deletion_that_comes_for_what_has_left_is_there_when_it_is_fetched() {
    let (mut device, mut hub) = rivals();
    device.evict(Millis(0), &names("entry", &["b"])).unwrap();
    hub.edit(Millis(9000), &[Op::new("entry", "b", Action::Delete)]).unwrap();
    sync(&mut device, &mut hub);
    assert_eq!(device.presence("entry", "b"), Ok(Presence::Evicted));
    fetch_at(&mut device, &mut hub, 100_000, names("entry", &["b"])).unwrap();
    assert_eq!(device.presence("entry", "b"), Ok(Presence::Deleted));
    assert_eq!(device.view("entry", "b"), hub.view("entry", "b"));
    assert_same(&[&device, &hub]);
}

#[test]
fn a_hub_that_was_set_back_gets_no_halves_and_the_device_reads_everything_again() {
    let (mut device, mut hub) = rivals();
    let backup = hub.store().copy();
    set(&mut hub, 5000, "entry", "c", &[("user", 2.into()), ("text", "lost".into())]).unwrap();
    set(&mut device, 5000, "entry", "d", &[("user", 2.into()), ("text", "kept".into())]).unwrap();
    sync(&mut device, &mut hub);
    device.evict(Millis(0), &names("entry", &["a", "c"])).unwrap();
    let mut hub = open_with(timers(), 9, backup);
    let events = fetch_at(&mut device, &mut hub, 200_000, Vec::new()).unwrap();
    assert!(!diverged(&events), "{events:?}");
    assert_same(&[&device, &hub]);
    assert_eq!(device.presence("entry", "a"), Ok(Presence::Alive), "it came again");
    assert_eq!(device.presence("entry", "c"), Ok(Presence::Absent), "nobody has it any more");
    assert_eq!(hub.view("entry", "c"), Ok(None));
    assert!(hub.view("entry", "d").unwrap().is_some(), "what was held was brought");
    assert_eq!(device.evicted(), Ok(Evicted::default()));
}

#[test]
fn what_this_device_wrote_itself_comes_again_also_after_an_interruption() {
    let (mut device, mut hub) = rivals();
    for n in 0..300 {
        let id = format!("own{n}");
        set(&mut device, 5000 + n, "project", &id, &[("notes", "y".repeat(3000).into())]).unwrap();
    }
    sync(&mut device, &mut hub);
    let all: Vec<String> = (0..300).map(|n| format!("own{n}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    device.evict(Millis(0), &names("project", &all)).unwrap();
    // As if it had never met the hub: everything is forgotten and read again.
    device.update_authority(|authority| authority.met = false).unwrap();
    let held = |device: &Device| {
        all.iter().filter(|id| device.presence("project", id).unwrap() == Presence::Alive).count()
    };
    let mut frames = 1;
    while held(&device) < all.len() {
        let (mut a, mut b) = (client(Want::Once), server());
        let now = Millis(300_000);
        run(
            &mut End { replica: &mut device, session: &mut a, now },
            &mut End { replica: &mut hub, session: &mut b, now },
            frames,
        )
        .unwrap();
        let events: Vec<_> = a.poll_events().collect();
        assert!(!diverged(&events), "nothing has to be found out by the digests: {events:?}");
        frames += 1;
        assert!(frames < 60, "{} of {} are back", held(&device), all.len());
    }
    sync(&mut device, &mut hub);
    assert_same(&[&device, &hub]);
    assert!(!device.wants_all().unwrap());
}

#[test]
fn after_a_difference_everything_comes_again() {
    let (mut device, mut hub) = rivals();
    device.evict(Millis(0), &names("entry", &["a", "b"])).unwrap();
    set(&mut hub, 8000, "entry", "c", &[("text", "z".into())]).unwrap();
    // A fault: the device has lost something of which its digest knows.
    let sums = Sums { shown: 5, confirmed: 5, count: 0 };
    device.store_mut().commit(Batch { sums, ..Batch::default() }).unwrap();
    let events = fetch_at(&mut device, &mut hub, 200_000, Vec::new()).unwrap();
    assert!(diverged(&events));
    assert_eq!(device.evicted(), Ok(Evicted::default()));
    for id in ["a", "b", "c"] {
        assert_eq!(device.view("entry", id), hub.view("entry", id), "{id}");
    }
}

#[test]
fn a_copy_of_a_device_reads_everything_again() {
    let (mut device, mut hub) = rivals();
    set(&mut device, 5000, "entry", "own", &[("text", "mine".into())]).unwrap();
    sync(&mut device, &mut hub);
    device.evict(Millis(0), &names("entry", &["a", "own"])).unwrap();
    sync(&mut device, &mut hub);
    let mut copy = open_with(timers(), 4, device.store().copy());
    set(&mut device, 6000, "entry", "e", &[("text", "one".into())]).unwrap();
    sync(&mut device, &mut hub);
    set(&mut copy, 6000, "entry", "f", &[("text", "two".into())]).unwrap();
    let _ = sync_at(&mut copy, &mut hub, 200_000);
    let events = sync_at(&mut copy, &mut hub, 200_000).unwrap();
    assert!(!diverged(&events), "{events:?}");
    assert_ne!(copy.identity().store, device.identity().store);
    for id in ["a", "b", "e", "f", "own"] {
        assert_eq!(copy.view("entry", id), hub.view("entry", id), "{id}");
    }
    assert_same(&[&copy, &hub]);
    assert_eq!(device.presence("entry", "own"), Ok(Presence::Evicted), "the original is as it was");
}

#[test]
fn the_journal_tells_that_it_left_and_came_back() {
    let (mut device, mut hub) = rivals();
    device.keep_journal(Some(crate::journal::Keep::default())).unwrap();
    device.evict(Millis(10), &names("entry", &["a"])).unwrap();
    set(&mut hub, 6000, "entry", "a", &[("stop", 1500.into())]).unwrap();
    sync(&mut device, &mut hub);
    fetch_at(&mut device, &mut hub, 100_000, names("entry", &["a"])).unwrap();
    let mut told = Vec::new();
    device
        .journal(0, &mut |entry| {
            let changes = entry.changes.into_iter().map(|c| (c.id, c.what, c.before, c.after));
            told.push((entry.origin, changes.collect::<Vec<_>>()));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let at_hand = |before: bool, after: bool| {
        vec![("a".to_owned(), crate::journal::What::AtHand, Some(before.into()), Some(after.into()))]
    };
    let hub = Origin::Remote(StoreId(9));
    assert_eq!(told, [(Origin::Evicted, at_hand(true, false)), (hub, at_hand(false, true))]);
}

/// A hub's end that has shaken hands with the device's, which is caught up.
fn connected(device: &mut Device, hub: &mut Device) -> (Session, Session) {
    let (mut a, mut b) = (client(Want::Live), server());
    let now = Millis(100_000);
    run(
        &mut End { replica: device, session: &mut a, now },
        &mut End { replica: hub, session: &mut b, now },
        usize::MAX,
    )
    .unwrap();
    (a, b)
}

#[test]
fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let now = Millis(100_000);
    let refused = |ask: &[&str], answer: &dyn Fn(&mut RowEncoder) -> Vec<Vec<u8>>| {
        let (mut device, mut hub) = rivals();
        let (mut a, _) = connected(&mut device, &mut hub);
        a.fetch(names("entry", ask));
        let asked = a.poll_transmit(&mut device, now).unwrap();
        assert_eq!(asked.is_some(), !ask.is_empty());
        let before = device.head().unwrap();
        let mut encoder = RowEncoder::default();
        let frames = answer(&mut encoder);
        let done = frames.iter().try_for_each(|frame| a.handle(&mut device, frame, now));
        assert!(matches!(done, Err(SessionError::Refused { .. } | SessionError::Wire(_))), "{done:?}");
        assert_eq!(device.head().unwrap(), before, "nothing of it was kept");
    };
    let one = |encoder: &mut RowEncoder, id: &str, more: bool| {
        let own = crate::clock::Stamp { generation: 0, time: 9, replica: ReplicaId::from_u128(1) };
        let value = crate::value::Value::Null.to_bytes();
        let own = crate::register::Candidate { stamp: own, rank: 0, saw: None, value: &value };
        let register = crate::register::Register::plain(own);
        encoder.entity("entry", id, [(crate::address::LIFE, &register)].into_iter());
        encoder.finish_fetched(more)
    };
    refused(&[], &|encoder| vec![one(encoder, "a", false)]);
    refused(&["a"], &|encoder| vec![one(encoder, "b", false)]);
    refused(&["a"], &|encoder| vec![encoder.finish_fetched(true)]);
    refused(&["a"], &|_| vec![vec![crate::wire::tag::FETCHED, 2, 0, 0]]);
    refused(&["a"], &|encoder| vec![encoder.finish_fetched(false), encoder.finish_fetched(false)]);
}

#[test]
fn a_fetch_is_for_an_authority_and_after_the_greeting() {
    let now = Millis(100_000);
    let ask = Frame::Fetch(names("entry", &["a"])).encode();
    let (mut device, mut hub) = rivals();
    let mut early = server();
    assert!(matches!(early.handle(&mut hub, &ask, now), Err(SessionError::Refused { .. })));
    let (mut peer, mut other) = (open_timers(7), open_timers(8));
    let (_, mut b) = connected(&mut peer, &mut other);
    assert!(matches!(b.handle(&mut other, &ask, now), Err(SessionError::Refused { .. })), "no authority");
    let (mut a, mut b) = connected(&mut device, &mut hub);
    assert!(matches!(a.handle(&mut device, &ask, now), Err(SessionError::Refused { .. })), "a client");
    for _ in 0..4 {
        b.handle(&mut hub, &ask, now).unwrap();
    }
    assert!(matches!(b.handle(&mut hub, &ask, now), Err(SessionError::Refused { .. })), "too many at once");
}

#[test]
fn a_hub_that_knows_of_no_eviction_is_not_asked() {
    let (mut device, mut hub) = rivals();
    let (mut a, mut b) = (client(Want::Once), server());
    a.fetch(names("entry", &["a"]));
    let now = Millis(100_000);
    let hello = a.poll_transmit(&mut device, now).unwrap().unwrap();
    b.handle(&mut hub, &hello, now).unwrap();
    let welcome = b.poll_transmit(&mut hub, now).unwrap().unwrap();
    let Frame::Welcome(welcome) = Frame::decode(&welcome).unwrap() else { panic!() };
    let old = Welcome { capabilities: 0, ..welcome };
    a.handle(&mut device, &Frame::Welcome(old).encode(), now).unwrap();
    run(
        &mut End { replica: &mut device, session: &mut a, now },
        &mut End { replica: &mut hub, session: &mut b, now },
        usize::MAX,
    )
    .unwrap();
    assert!(a.is_closed());
    assert!(a.poll_events().any(|event| event == SessionEvent::CannotFetch));
}

#[test]
fn a_long_answer_comes_in_several_frames() {
    let (mut device, mut hub) = rivals();
    let ids: Vec<String> = (0..1500).map(|n| format!("p{n}")).collect();
    for id in &ids {
        set(&mut hub, 5000, "project", id, &[("notes", "y".repeat(400).into())]).unwrap();
    }
    sync(&mut device, &mut hub);
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let names = names("project", &ids);
    assert_eq!(device.evict(Millis(0), &names).unwrap().entities, 1500);
    let events = fetch_at(&mut device, &mut hub, 100_000, names).unwrap();
    assert_eq!(fetched(&events), (1500, Vec::new()));
    assert_same(&[&device, &hub]);
    assert_eq!(device.evicted(), Ok(Evicted::default()));
    assert_ne!(Incarnation::default(), device.head().unwrap().incarnations[0].0);
}
