//! What is measured: 10,000 entities of 10 fields, on devices of one hub.

use std::ops::ControlFlow;
use std::sync::Arc;

use rivus_core::clock::{Admission, Millis};
use rivus_core::edit::{Action, Op};
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::{Cursor, Seeds};
use rivus_core::register::Register;
use rivus_core::replica::{OpenOptions, Replica};
use rivus_core::row::Row;
use rivus_core::schema::Schema;
use rivus_core::session::pair::{End, run};
use rivus_core::session::{Grants, Role, Session, SessionOptions, Want};
use rivus_core::store::{MemoryStore, Store};
use rivus_core::value::Value;
use rivus_core::wire::page::{PageHeader, RowEncoder};

/// How many entities there are.
pub const ENTITIES: usize = 10_000;
/// The kind of all of them.
pub const KIND: &str = "item";
/// Their fields: 4 texts of 12 to 20 characters, 3 integers to 48 bits, a boolean, 2 doubles.
pub const FIELDS: [&str; 10] =
    ["title", "place", "owner", "remark", "amount", "stock", "serial", "done", "price", "weight"];
/// The reading of every clock when a measurement starts, in ms since 1970.
pub const START_MS: i64 = 1_790_000_000_000;

/// The hub's store id.
pub const HUB: u64 = 1;

/// The schema of the workload, and a kind for large entities.
#[must_use]
pub fn schema() -> Arc<Schema> {
    let item = |kind| FIELDS.into_iter().fold(kind, rivus_core::schema::KindBuilder::value);
    let schema = Schema::builder().kind(KIND, item).kind("wide", |k| k.open().set("tags"));
    Arc::new(schema.build().unwrap())
}

/// Repeatable numbers that look random (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % end as u64).unwrap()
    }

    fn text(&mut self, len: usize) -> String {
        const LETTERS: [char; 32] = [
            'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's',
            't', 'u', 'v', 'w', 'x', 'y', 'z', '2', '3', '4', '5', '6', '7',
        ];
        (0..len).filter_map(|_| LETTERS.get(self.below(32))).collect()
    }

    fn words(&mut self, len: usize) -> String {
        const WORDS: [&str; 24] = [
            "red", "blue", "north", "south", "river", "table", "paper", "light", "small", "large", "house",
            "garden", "order", "sheet", "water", "stone", "glass", "front", "first", "last", "open", "night",
            "green", "round",
        ];
        let mut text = String::new();
        while text.len() < len {
            text.push_str(WORDS.get(self.below(WORDS.len())).unwrap());
            text.push(' ');
        }
        text.truncate(len);
        text
    }

    /// A value that fits the field at this index.
    pub fn value(&mut self, field: usize) -> Value {
        match field {
            0..=3 => {
                let len = 12 + self.below(9);
                Value::from(self.words(len))
            }
            4..=6 => Value::Int(i64::try_from(self.number() >> (16 + self.below(32))).unwrap()),
            7 => Value::Bool(self.below(2) == 1),
            _ => Value::Float(f64::from(u32::try_from(self.below(1_000_000)).unwrap()) / 100.0),
        }
    }
}

/// The ids of the entities, 8 bytes each.
#[must_use]
pub fn ids() -> Vec<String> {
    let mut random = Random(7);
    (0..ENTITIES).map(|_| random.text(8)).collect()
}

/// A put of one field.
#[must_use]
pub fn put(id: &str, field: usize, value: Value) -> Op {
    let name = (*FIELDS.get(field).unwrap()).to_owned();
    Op::new(KIND, id, Action::Put(vec![(name, value)]))
}

/// A put of every field of one entity.
#[must_use]
pub fn put_all(id: &str, random: &mut Random) -> Op {
    let fields = FIELDS.iter().enumerate();
    let fields = fields.map(|(field, name)| ((*name).to_owned(), random.value(field))).collect();
    Op::new(KIND, id, Action::Put(fields))
}

/// `count` updates of one field each, at random.
#[must_use]
pub fn updates(count: usize, random: &mut Random) -> Vec<Op> {
    let ids = ids();
    let one = |_| {
        let (entity, field) = (random.below(ENTITIES), random.below(FIELDS.len()));
        put(ids.get(entity).unwrap(), field, random.value(field))
    };
    (0..count).map(one).collect()
}

/// The ids that a measurement draws for opening number `n`.
#[must_use]
pub fn seeds(n: u64) -> Seeds {
    let mut random = Random(n);
    let replica = u128::from(random.number()) << 64 | u128::from(random.number());
    Seeds {
        store: StoreId(n),
        replica: ReplicaId::from_u128(replica),
        incarnation: Incarnation(random.number()),
    }
}

/// Opens a replica on a store.
#[must_use]
pub fn open<S: Store>(store: S, n: u64) -> Replica<S> {
    let options = OpenOptions { seeds: seeds(n), slot: 0, admission: Admission::Off, rank: 0 };
    Replica::open(store, schema(), options).unwrap()
}

/// Makes one edit at the workload's time.
pub fn edit<S: Store>(replica: &mut Replica<S>, at_ms: i64, ops: &[Op]) {
    replica.edit(Millis(START_MS + at_ms), ops).unwrap();
}

/// A hub that holds every entity, inserted one by one.
#[must_use]
pub fn hub() -> Replica<MemoryStore> {
    let mut hub = open(MemoryStore::new(), HUB);
    hub.become_authority().unwrap();
    let mut random = Random(HUB);
    for (at, id) in (0..).zip(ids()) {
        edit(&mut hub, at, &[put_all(&id, &mut random)]);
    }
    hub
}

/// A device on a store of its own that has met the hub and holds what it holds.
#[must_use]
pub fn device<S: Store>(store: S, n: u64, hub: &mut Replica<MemoryStore>) -> Replica<S> {
    let mut device = open(store, n);
    sync(&mut device, hub);
    device
}

/// The same device again, on a copy of its store.
#[must_use]
pub fn again(device: &Replica<MemoryStore>, n: u64) -> Replica<MemoryStore> {
    open(device.store().copy(), n)
}

/// Syncs a device with its hub until both hold the same.
pub fn sync<S: Store>(device: &mut Replica<S>, hub: &mut Replica<MemoryStore>) {
    let session = |role, want| {
        Session::new(SessionOptions { role, want, offers: true, seeds: seeds(99), capabilities: 0 })
    };
    let mut client = session(Role::Client { token: None }, Want::Once);
    let mut server = session(Role::server(Grants::everybody()), Want::Live);
    let now = Millis(START_MS + 10_000_000);
    let mut ends =
        (End { replica: device, session: &mut client, now }, End { replica: hub, session: &mut server, now });
    run(&mut ends.0, &mut ends.1, usize::MAX).unwrap();
    assert_eq!(device.head().unwrap().digest.shown, hub.head().unwrap().digest.shown, "both hold the same");
}

/// The pages, with their cursors, that bring a reader who has everything up to `after` to the head.
#[must_use]
pub fn pages<S: Store>(replica: &Replica<S>, encoder: &mut RowEncoder, after: u64) -> Vec<(Vec<u8>, Cursor)> {
    let mut frames = Vec::new();
    let mut finish = |encoder: &mut RowEncoder, at, more| {
        let frame =
            encoder.finish_page(PageHeader { at, more, incarnation: None, start: false, checkpoint: false });
        let done = if more { after } else { at };
        frames.push((frame, Cursor { incarnation: seeds(HUB).incarnation, done, at }));
    };
    let mut last = after;
    let head = replica.store().changes(after, &mut |changed| {
        let mut registers: Vec<(&[u8], Register<'_>)> = Vec::new();
        for entry in Row::new(changed.bytes, changed.seq).unwrap().entries() {
            let entry = entry.unwrap();
            let state = entry.state().unwrap();
            if state.seq > after {
                registers.extend(state.into_confirmed().map(|register| (entry.address, register)));
            }
        }
        encoder.entity(changed.kind, changed.id, registers.iter().map(|(a, r)| (*a, r)));
        last = changed.seq;
        if encoder.is_full() {
            finish(encoder, last, true);
        }
        ControlFlow::Continue(())
    });
    finish(encoder, head.unwrap().seq, false);
    frames
}
