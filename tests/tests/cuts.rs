//! Connections that end at any frame, and with them the processes at both ends: what goes on is read from the two files as
//! they were left.

use std::path::Path;
use std::sync::Arc;

use rivus::SqliteOptions;
use rivus_core::clock::{Admission, Millis};
use rivus_core::edit::{Action, Op};
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::Seeds;
use rivus_core::replica::{OpenOptions, Replica};
use rivus_core::session::pair::{End, run};
use rivus_core::session::{Answered, Grants, Role, Session, SessionEvent, SessionOptions, Want};
use rivus_core::view::Shown;
use rivus_sqlite::SqliteStore;
use tempfile::TempDir;

type Device = Replica<SqliteStore>;

const NAMES: [&str; 2] = ["one", "two"];

fn seeds(n: u64) -> Seeds {
    Seeds { store: StoreId(n), replica: ReplicaId::from_u128(u128::from(n)), incarnation: Incarnation(n) }
}

fn open(folder: &Path, name: &str, n: u64) -> Device {
    let store = SqliteStore::open(folder.join(name), SqliteOptions::default()).unwrap();
    store.integrity_check().unwrap();
    let options = OpenOptions { seeds: seeds(n), slot: 0, admission: Admission::Off, rank: 0 };
    Replica::open(store, Arc::new(rivus_tests::schema()), options).unwrap()
}

/// Two files and what has them open.
struct Pair {
    folder: TempDir,
    devices: [Device; 2],
    openings: u64,
}

impl Pair {
    /// `becomes` makes the second what it is.
    fn new(becomes: fn(&mut Device)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let devices = [(NAMES[0], 1), (NAMES[1], 2)].map(|(name, n)| open(folder.path(), name, n));
        let mut pair = Self { folder, devices, openings: 2 };
        let [one, two] = &mut pair.devices;
        becomes(two);
        edit(one, 500, "t", Action::Inc { field: "views".to_owned(), by: 1 });
        pair.connect(usize::MAX);
        for (device, name) in pair.devices.iter_mut().zip(NAMES) {
            for n in 0..8 {
                edit(device, 1000 + n, "t", Action::Inc { field: "views".to_owned(), by: 1 });
                let text = name.repeat(20_000).into();
                edit(device, 1000 + n, &format!("{name}{n}"), Action::Put(vec![("n".to_owned(), text)]));
            }
        }
        pair
    }

    /// Both files as they are now, with what is not in the database proper yet, opened by others.
    fn left(&self, openings: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in NAMES.into_iter().flat_map(|name| [name.to_owned(), format!("{name}-wal")]) {
            std::fs::copy(self.folder.path().join(&file), folder.path().join(&file)).unwrap();
        }
        let mut openings = openings;
        let devices = NAMES.map(|name| {
            openings += 1;
            open(folder.path(), name, openings)
        });
        Self { folder, devices, openings }
    }

    /// Connects them until so many frames have passed or nothing is left to say; what both have told.
    fn connect(&mut self, frames: usize) -> (usize, [Vec<SessionEvent>; 2]) {
        let options =
            |role, want| SessionOptions { role, want, offers: true, seeds: seeds(777), capabilities: 0 };
        let mut client = Session::new(options(Role::Client { token: None }, Want::Once));
        client.set_push_edits_max(3);
        let mut server = Session::new(options(Role::server(Grants::everybody()), Want::Live));
        let [one, two] = &mut self.devices;
        let now = Millis(100_000);
        let passed = run(
            &mut End { replica: one, session: &mut client, now },
            &mut End { replica: two, session: &mut server, now },
            frames,
        );
        (passed.unwrap(), [client.poll_events().collect(), server.poll_events().collect()])
    }
}

fn edit(on: &mut Device, now: i64, id: &str, action: Action) {
    on.edit(Millis(now), &[Op::new("task", id, action)]).unwrap();
}

/// Sums of what connections have told.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Told {
    accepted: usize,
    joined: [usize; 2],
}

impl Told {
    fn add(&mut self, events: [Vec<SessionEvent>; 2]) {
        for (joined, events) in self.joined.iter_mut().zip(events) {
            for event in events {
                match event {
                    SessionEvent::Answered(Answered { accepted, duplicate, .. }) => {
                        self.accepted += accepted + duplicate;
                    }
                    SessionEvent::Joined { registers, .. } => *joined += registers,
                    SessionEvent::Diverged { .. } | SessionEvent::Copied => panic!("{event:?}"),
                    _ => {}
                }
            }
        }
    }
}

fn is_whole_after_every_cut(becomes: fn(&mut Device), expected: Told) {
    let first = Pair::new(becomes);
    let (all, told) = first.left(10).connect(usize::MAX);
    let mut whole = Told::default();
    whole.add(told);
    assert_eq!(whole, expected);
    for cut in 0..=all {
        let (mut pair, mut told) = (first.left(10), Told::default());
        for frames in [cut, cut + 1, usize::MAX] {
            told.add(pair.connect(frames).1);
            pair = pair.left(pair.openings);
        }
        assert_eq!(told, whole, "cut after {cut} of {all}");
        let digests = pair.devices.each_ref().map(|device| {
            assert!(device.verify().unwrap().is_sound(), "cut after {cut} of {all}");
            device.recompute_digest().unwrap()
        });
        assert_eq!(digests[0], digests[1], "cut after {cut} of {all}");
        for device in &pair.devices {
            assert_eq!(device.pending_count().unwrap(), 0);
            let shows =
                |id: &str, field: &str| device.view("task", id).unwrap().unwrap().fields.get(field).cloned();
            assert_eq!(shows("t", "views"), Some(Shown::Counter(17)), "cut after {cut} of {all}");
            for name in NAMES {
                let text = Shown::Value(name.repeat(20_000).into());
                assert_eq!(shows(&format!("{name}7"), "n"), Some(text), "cut after {cut} of {all}");
            }
        }
    }
}

#[test]
fn a_device_and_its_hub_go_on_from_their_files_wherever_both_are_killed() {
    is_whole_after_every_cut(|hub| hub.become_authority().unwrap(), Told { accepted: 16, joined: [17, 0] });
}

#[test]
fn two_peers_go_on_from_their_files_wherever_both_are_killed() {
    is_whole_after_every_cut(|_| {}, Told { accepted: 0, joined: [17, 17] });
}
