//! The model and the real engine, doing the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use rivus_core::address::{Parts, class, encode};
use rivus_core::clock::{Admission, Millis};
use rivus_core::edit::{Action, Op};
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::Seeds;
use rivus_core::register::Register;
use rivus_core::replica::{Edited, Incoming, OpenOptions, Replica, Trust};
use rivus_core::row::{Change, decode_register, encode_register};
use rivus_core::schema::Schema;
use rivus_core::session::pair::{End, run};
use rivus_core::session::{Grants, Role, Session, SessionOptions, Want};
use rivus_core::store::{MemoryStore, Store};
use rivus_core::value::Value;
use rivus_core::view::reach;

use super::super::{Address, Entity, Known, Model, Outcome, Shown, Views, margin, views};

/// Replicas of the model and of the engine, with equal numbers.
pub(super) struct World {
    pub(super) model: Model,
    pub(super) real: Vec<Replica<MemoryStore>>,
    ranks: Vec<u8>,
    openings: u64,
}

/// What a replica knew: the model's form, and the engine's registers as bytes.
pub(super) struct Parcel {
    known: Known,
    registers: Vec<(Entity, Vec<u8>, Vec<u8>)>,
}

impl World {
    pub(super) fn new(schema: Arc<Schema>) -> Self {
        Self { model: Model::new(schema), real: Vec::new(), ranks: Vec::new(), openings: 0 }
    }

    /// Ids are 1, 2, 3 … in order.
    pub(super) fn add(&mut self, rank: u8, schema: Arc<Schema>) -> usize {
        let number = self.real.len() as u64 + 1;
        self.real.push(open(MemoryStore::new(), Arc::clone(&schema), number, 0, rank));
        self.ranks.push(rank);
        self.model.add_with_schema(ReplicaId::from_u128(number.into()), rank, schema)
    }

    /// Edits both; says what became of it, after checking that both agree.
    pub(super) fn edit(&mut self, replica: usize, now: i64, ops: &[Op]) -> Outcome {
        let outcome = self.model.edit(replica, Millis(now), ops);
        let real = self.real[replica].edit(Millis(now), ops);
        match (&outcome, &real) {
            (Outcome::Refused(_), Err(_)) | (Outcome::Nothing, Ok(Edited::Nothing)) => {}
            (Outcome::Committed { stamp }, Ok(Edited::Committed { stamp: real, .. })) => {
                assert_eq!(stamp, real)
            }
            _ => panic!("the model says {outcome:?}, the engine {real:?}, of {ops:?}"),
        }
        self.check(replica);
        outcome
    }

    /// Edits both and packs what the edit wrote, alone.
    pub(super) fn edit_apart(&mut self, replica: usize, now: i64, ops: &[Op]) -> Option<Parcel> {
        let before = self.pack(replica).registers;
        let Outcome::Committed { stamp } = self.edit(replica, now, ops) else { return None };
        let mut registers = Vec::new();
        for (entity, address, bytes) in self.pack(replica).registers {
            let after = decode_register(&bytes).unwrap();
            let Some(own) = after.alive.iter().find(|own| own.stamp == stamp) else { continue };
            let state = before.iter().find(|(e, a, _)| (e, a) == (&entity, &address));
            let state = state.map(|(_, _, bytes)| decode_register(bytes).unwrap());
            let reach = reach(margin(self.real[replica].schema().kind(&entity.0).unwrap(), &parse(&address)));
            let mut alone = Vec::new();
            encode_register(&Register::write(state.as_ref(), *own, reach), &mut alone);
            registers.push((entity, address, alone));
        }
        Some(Parcel { known: self.model.delta(stamp), registers })
    }

    /// One session in which the one gives the other all it lacks.
    pub(super) fn sync(&mut self, from: usize, to: usize) {
        if from == to {
            return;
        }
        let known = self.model.snapshot(from);
        self.model.deliver(to, &known);
        let seeds = seeds(0, 0);
        let session =
            |role, want| Session::new(SessionOptions { role, want, offers: true, seeds, capabilities: 0 });
        let mut client = session(Role::Client { token: None }, Want::Nothing);
        let mut server = session(Role::server(Grants::everybody()), Want::Live);
        let [one, two] = self.real.get_disjoint_mut([from, to]).unwrap();
        let now = Millis(0);
        let mut one = End { replica: one, session: &mut client, now };
        let mut two = End { replica: two, session: &mut server, now };
        run(&mut one, &mut two, usize::MAX).unwrap();
        self.check(to);
        self.check(from);
    }

    /// Packs what a replica knows, to be delivered whenever.
    pub(super) fn pack(&self, from: usize) -> Parcel {
        let (real, mut registers) = (&self.real[from], Vec::new());
        for kind in real.store().kinds().unwrap() {
            for id in real.store().ids(&kind, None, usize::MAX).unwrap() {
                let mut pack = |parts: Parts<'_>, state: &rivus_core::row::State<'_>| {
                    let (mut address, mut bytes) = (Vec::new(), Vec::new());
                    encode(&mut address, parts.class, parts.name, parts.key);
                    encode_register(&state.shown, &mut bytes);
                    registers.push(((kind.clone(), id.clone()), address, bytes));
                };
                real.registers(&kind, &id, &mut pack).unwrap();
            }
        }
        Parcel { known: self.model.snapshot(from), registers }
    }

    /// Delivers those entities of a parcel that `wanted` picks.
    pub(super) fn unpack(&mut self, to: usize, parcel: &Parcel, wanted: impl Fn(&Entity) -> bool) {
        let entities: BTreeSet<Entity> = parcel
            .registers
            .iter()
            .map(|(entity, ..)| entity.clone())
            .filter(|entity| wanted(entity))
            .collect();
        self.model.deliver_entities(to, &parcel.known, &entities);
        let mut page: Vec<Incoming<'_>> = Vec::new();
        for (entity, address, bytes) in parcel.registers.iter().filter(|(e, ..)| entities.contains(e)) {
            let change = Change::Join { register: decode_register(bytes).unwrap(), source: None };
            let change = (Arc::from(address.as_slice()), change);
            match page.last_mut().filter(|last| (&*last.kind, &*last.id) == (&*entity.0, &*entity.1)) {
                Some(last) => last.changes.push(change),
                None => page.push(Incoming {
                    kind: Arc::from(&*entity.0),
                    id: Arc::from(&*entity.1),
                    changes: vec![change],
                }),
            }
        }
        self.real[to].join(Millis(0), page.as_slice(), None, Trust::Peer, None).unwrap();
        self.check(to);
    }

    /// Opens the engine's replica again on its store. The model keeps what it has.
    pub(super) fn restart(&mut self, replica: usize) {
        self.openings += 1;
        let schema = Arc::clone(self.real[replica].schema());
        let old = self.real.remove(replica);
        let number = replica as u64 + 1;
        let new = open(old.into_store(), schema, number, self.openings, self.ranks[replica]);
        self.real.insert(replica, new);
        self.check(replica);
    }

    /// Views and clocks agree.
    pub(super) fn check(&self, replica: usize) {
        assert_eq!(self.model.view(replica), views(&self.real[replica]).unwrap(), "model and engine, views");
        let clocks = (self.model.members[replica].high_water, self.real[replica].clock().high_water());
        assert_eq!(clocks.0, clocks.1, "model and engine, high-water");
    }

    pub(super) fn view(&self, replica: usize) -> Views {
        self.check(replica);
        self.model.view(replica)
    }

    /// What one field shows.
    pub(super) fn field(&self, replica: usize, kind: &str, id: &str, field: &str) -> Option<Shown> {
        self.view(replica).get(kind)?.get(id)?.get(field).cloned()
    }
}

/// The model's form of an address of the engine.
fn parse(address: &[u8]) -> Address {
    let parts = Parts::parse(address).unwrap();
    let name = parts.name.to_owned();
    match parts.class {
        class::LIFE => Address::Life,
        class::FIELD => Address::Field(name),
        class::GROUP => Address::Group(name),
        class::KEY => Address::Key(name, parts.text_key().unwrap().to_owned()),
        _ => Address::Count(name, ReplicaId(parts.key.try_into().unwrap())),
    }
}

/// A put of one field.
pub(super) fn put(kind: &str, id: &str, field: &str, value: impl Into<Value>) -> Op {
    Op::new(kind, id, Action::Put(vec![(field.to_owned(), value.into())]))
}

fn open(
    store: MemoryStore,
    schema: Arc<Schema>,
    number: u64,
    opening: u64,
    rank: u8,
) -> Replica<MemoryStore> {
    let options = OpenOptions { seeds: seeds(number, opening), slot: 0, admission: Admission::Off, rank };
    Replica::open(store, schema, options).unwrap()
}

fn seeds(number: u64, opening: u64) -> Seeds {
    Seeds {
        store: StoreId(number),
        replica: ReplicaId::from_u128(number.into()),
        incarnation: Incarnation(number << 32 | opening),
    }
}
