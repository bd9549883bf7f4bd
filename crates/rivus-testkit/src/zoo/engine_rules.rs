//! The engine's own rules under the same laws: registers are joined into a replica, which then says what shows.

use std::sync::Arc;

use rivus_core::address;
use rivus_core::clock::{Admission, Millis, Stamp};
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::Seeds;
use rivus_core::register::{Candidate, Register};
use rivus_core::replica::{Incoming, OpenOptions, Replica, Trust};
use rivus_core::row::Change;
use rivus_core::schema::{KindBuilder, OnGone, Schema, Side};
use rivus_core::store::MemoryStore;

use super::*;
use crate::law::rule::{Entity, LIFE, Overlays, Rule};
use crate::strategy::entities;

/// A sound rule of the zoo, evaluated by the engine's of the same meaning.
struct ByEngine<R> {
    sound: R,
    schema: Arc<Schema>,
}

const KIND: &str = "thing";
const RULE: &str = "the rule";

impl<R> ByEngine<R> {
    fn new(sound: R, rule: impl FnOnce(KindBuilder) -> KindBuilder) -> Self {
        let fields = ["user", "start", "stop", "name", "parent", "amount", "note"];
        let declare = |kind| rule(fields.into_iter().fold(kind, KindBuilder::value));
        Self { sound, schema: Arc::new(Schema::builder().kind(KIND, declare).build().unwrap()) }
    }

    fn replica(&self) -> Replica<MemoryStore> {
        let seeds =
            Seeds { store: StoreId(1), replica: ReplicaId::from_u128(1), incarnation: Incarnation(1) };
        let options = OpenOptions { seeds, slot: 0, admission: Admission::Off, rank: 0 };
        Replica::open(MemoryStore::new(), self.schema.clone(), options).unwrap()
    }
}

fn join(replica: &mut Replica<MemoryStore>, entity: &Entity) {
    let mut registers = vec![(address::LIFE.to_vec(), Value::Bool(!entity.deleted), Stamp::LOWEST)];
    for (name, field) in &entity.fields {
        registers.push((address::field(name), field.value.clone(), field.stamp));
    }
    for (group, stamp) in &entity.claims {
        let group = Value::List(vec![group.clone()]).to_bytes();
        registers.push((address::claim(RULE, &group), Value::Bool(true), *stamp));
    }
    registers.sort();
    let bytes: Vec<_> = registers.iter().map(|(_, value, _)| value.to_bytes()).collect();
    let changes = registers.iter().zip(&bytes).map(|((address, _, stamp), value)| {
        let register = Register::plain(Candidate { stamp: *stamp, rank: 0, saw: None, value });
        (Arc::from(address.as_slice()), Change::Join { register, source: None })
    });
    let incoming = Incoming { kind: KIND.into(), id: entity.id.as_str().into(), changes: changes.collect() };
    replica.join(Millis(0), &[incoming], None, Trust::Peer, None).unwrap();
}

fn overlays(replica: &Replica<MemoryStore>, entities: &[Entity]) -> Overlays {
    let mut all = Overlays::default();
    for entity in entities {
        for overlay in replica.overlays(KIND, &entity.id).unwrap() {
            all.show(&overlay.id, overlay.field.as_deref().unwrap_or(LIFE), overlay.shown);
        }
    }
    all
}

impl<R: Rule> Rule for ByEngine<R> {
    fn owns(&self) -> Vec<&str> {
        self.sound.owns()
    }

    fn reads(&self) -> Vec<&str> {
        self.sound.reads()
    }

    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        let mut replica = self.replica();
        entities.iter().for_each(|entity| join(&mut replica, entity));
        overlays(&replica, entities)
    }

    /// The others are there first, and have been looked at.
    fn update(&self, _: &Overlays, entities: &[Entity], changed: &str) -> Overlays {
        let mut replica = self.replica();
        let (last, others): (Vec<_>, Vec<_>) = entities.iter().partition(|entity| entity.id == changed);
        others.into_iter().for_each(|entity| join(&mut replica, entity));
        let _ = overlays(&replica, entities);
        last.into_iter().for_each(|entity| join(&mut replica, entity));
        overlays(&replica, entities)
    }

    /// What does not show shows no field otherwise.
    fn satisfied(&self, registers: &[Entity], shown: &[Entity]) -> Result<(), String> {
        let there: Vec<_> = shown.iter().filter(|entity| !entity.deleted).cloned().collect();
        self.sound.satisfied(registers, &there)
    }

    fn groups(&self, entity: &Entity) -> Option<BTreeSet<Value>> {
        self.sound.groups(entity)
    }

    fn active(&self, shown: &Entity) -> bool {
        self.sound.active(shown)
    }

    fn released(&self, entity: &Entity) -> Option<Entity> {
        self.sound.released(entity)
    }
}

fn timer() -> ByEngine<AtMostOne> {
    ByEngine::new(AtMostOne::RUNNING, |kind| kind.at_most_one(RULE, ["user"], "stop", "start"))
}

fn names() -> ByEngine<Unique> {
    ByEngine::new(Unique { group: "user", field: "name" }, |kind| kind.unique(RULE, ["user"], "name"))
}

fn bound() -> ByEngine<Bound> {
    let sound = Bound { field: "amount", least: 0, greatest: 100 };
    ByEngine::new(sound, |kind| kind.bound(RULE, "amount", Value::Int(0), Value::Int(100)))
}

fn nullify() -> ByEngine<Nullify> {
    let sound = Nullify { field: "parent" };
    ByEngine::new(sound, |kind| kind.reference(RULE, "parent", KIND, OnGone::Nullify))
}

fn cascade() -> ByEngine<Cascade> {
    let sound = Cascade { field: "parent" };
    ByEngine::new(sound, |kind| kind.reference(RULE, "parent", KIND, OnGone::Cascade))
}

fn forward() -> ByEngine<StopAfterStart> {
    ByEngine::new(StopAfterStart, |kind| kind.expr(RULE, "stop", Side::AtLeast, "start"))
}

crate::rule_laws!(the_engines_timer, timer(), entities());
crate::rule_laws!(the_engines_names, names(), entities());
crate::rule_laws!(the_engines_bound, bound(), entities());
crate::rule_laws!(the_engines_nullify, nullify(), entities());
crate::rule_laws!(the_engines_cascade, cascade(), entities());
crate::rule_laws!(the_engines_forward, forward(), entities());
crate::custom_rule_laws!(one_star, OneStar, OneStar::promise, losers: StayOut);
