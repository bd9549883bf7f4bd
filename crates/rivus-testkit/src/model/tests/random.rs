//! Random histories, near and equal times above all, on the model and on the engine: equal views, clocks and stamps
//! after every step, and equal views of all at the end.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use rivus_core::edit::{Action, Op};
use rivus_core::schema::{Candidate, KindBuilder, Life, Margin, Resolver, Schema, SetWins};
use rivus_core::value::Value;

use super::world::{Parcel, World};

const SEED: u64 = 0x5175_0001;
const CASES: u32 = 3_000;
const REPLICAS: usize = 4;
const KINDS: [&str; 3] = ["del", "revs", "newer"];
/// The last is not declared.
const FIELDS: [&str; 20] = [
    "plain", "near", "oldest", "rank", "least", "most", "ever", "fold", "pick", "multi", "tags", "cold",
    "labels", "views", "top", "low", "flag", "start", "stop", "extra",
];

#[test]
fn random_histories_show_the_same_in_the_model_and_in_the_engine() {
    let config = Config {
        cases: CASES,
        rng_seed: RngSeed::Fixed(SEED),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let schemas = [new_schema(), old_schema()];
    let ran = TestRunner::new(config).run(&history(), |history| {
        play(&history, &schemas);
        Ok(())
    });
    if let Err(failure) = ran {
        panic!("seed {SEED:#x}: {failure}");
    }
}

/// A step in small numbers, so that it shrinks to what matters.
#[derive(Clone, Debug)]
enum Step {
    /// `apart`: what it wrote travels alone too.
    Edit {
        replica: usize,
        at: At,
        ops: Vec<Doing>,
        apart: bool,
    },
    Sync {
        from: usize,
        to: usize,
    },
    Pack {
        from: usize,
    },
    Unpack {
        to: usize,
        parcel: prop::sample::Index,
        entities: u8,
    },
    Restart {
        replica: usize,
    },
}

/// A reading of a clock.
#[derive(Clone, Copy, Debug)]
enum At {
    Near(i64),
    Odd(i64),
}

#[derive(Clone, Debug)]
struct Doing {
    /// Into the history's own few kinds.
    kind: prop::sample::Index,
    id: usize,
    verb: u8,
    /// Into the history's own few fields.
    field: prop::sample::Index,
    second: prop::sample::Index,
    key: bool,
    value: usize,
}

#[derive(Clone, Debug)]
struct History {
    kinds: Vec<&'static str>,
    fields: Vec<&'static str>,
    /// Whether the last replica reads and writes by the older schema.
    mixed: bool,
    steps: Vec<Step>,
}

fn history() -> impl Strategy<Value = History> {
    let kinds = prop::sample::subsequence(KINDS.to_vec(), 1..=2);
    let fields = prop::sample::subsequence(FIELDS.to_vec(), 1..=3);
    let steps = prop::collection::vec(step(), 1..40);
    (kinds, fields, prop::bool::weighted(0.3), steps).prop_map(|(kinds, fields, mixed, steps)| History {
        kinds,
        fields,
        mixed,
        steps,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let replica = 0..REPLICAS;
    prop_oneof![
        8 => (replica.clone(), at(), prop::collection::vec(doing(), 1..4), prop::bool::weighted(0.5))
            .prop_map(|(replica, at, ops, apart)| Step::Edit { replica, at, ops, apart }),
        3 => (replica.clone(), replica.clone()).prop_map(|(from, to)| Step::Sync { from, to }),
        1 => replica.clone().prop_map(|from| Step::Pack { from }),
        5 => (replica.clone(), any::<prop::sample::Index>(), any::<u8>())
            .prop_map(|(to, parcel, entities)| Step::Unpack { to, parcel, entities }),
        1 => replica.prop_map(|replica| Step::Restart { replica }),
    ]
}

fn at() -> impl Strategy<Value = At> {
    let odd = prop::sample::select(vec![i64::MIN, -1, 0, 1, 4, 5, 6, 1_000_000, 1_790_000_000_000, i64::MAX]);
    prop_oneof![19 => (0_i64..14).prop_map(At::Near), 1 => odd.prop_map(At::Odd)]
}

fn doing() -> impl Strategy<Value = Doing> {
    let index = any::<prop::sample::Index>;
    (index(), 0..2_usize, 0..VERBS, index(), index(), any::<bool>(), 0..VALUES).prop_map(
        |(kind, id, verb, field, second, key, value)| Doing { kind, id, verb, field, second, key, value },
    )
}

fn play(history: &History, schemas: &[Arc<Schema>; 2]) {
    let [new, old] = schemas;
    let mut world = World::new(Arc::clone(new));
    for (replica, rank) in [0, 3, 3, 9].into_iter().enumerate() {
        let is_old = history.mixed && replica == REPLICAS - 1;
        world.add(rank, Arc::clone(if is_old { old } else { new }));
    }
    let mut parcels: Vec<Parcel> = Vec::new();
    for step in &history.steps {
        match step {
            Step::Edit { replica, at, ops, apart } => {
                let now = match at {
                    At::Near(ms) => 1_000 + ms,
                    At::Odd(ms) => *ms,
                };
                let ops: Vec<Op> = ops.iter().map(|doing| doing.op(history)).collect();
                if *apart {
                    parcels.extend(world.edit_apart(*replica, now, &ops));
                } else {
                    world.edit(*replica, now, &ops);
                }
            }
            Step::Sync { from, to } => world.sync(*from, *to),
            Step::Pack { from } => parcels.push(world.pack(*from)),
            Step::Unpack { to, parcel, entities } if !parcels.is_empty() => {
                let bit = |(kind, id): &(String, String)| kind.len() % 4 * 2 + usize::from(id == "a");
                world.unpack(*to, parcel.get(&parcels), |entity| entities >> bit(entity) & 1 == 1);
            }
            Step::Unpack { .. } => {}
            Step::Restart { replica } => world.restart(*replica),
        }
    }
    converge(&mut world, if history.mixed { REPLICAS - 1 } else { REPLICAS });
}

/// Everybody gets everything; the first `alike` replicas, which read by one schema, then show the same.
fn converge(world: &mut World, alike: usize) {
    for from in 0..REPLICAS {
        world.sync(from, 0);
    }
    for to in 0..REPLICAS {
        world.sync(0, to);
        assert_eq!(world.real[0].head().unwrap().digest, world.real[to].head().unwrap().digest);
    }
    for replica in 1..alike {
        assert_eq!(world.view(0), world.view(replica), "replicas 0 and {replica} at the end");
    }
}

impl Doing {
    fn op(&self, history: &History) -> Op {
        let field = (*self.field.get(&history.fields)).to_owned();
        let second = (*self.second.get(&history.fields)).to_owned();
        let key = if self.key { "k" } else { "l" }.to_owned();
        let value = value(self.value);
        let action = match self.verb {
            0 => Action::Delete,
            1 => Action::Revive,
            2 => Action::Put(vec![(field, value.clone()), (second, value)]),
            3 => Action::Put(vec![]),
            // Verbs that do not fit the field are refused: most fit.
            4 => Action::Add { field, key },
            5 => Action::Inc { field, by: 1 },
            _ => match field.as_str() {
                "tags" | "cold" if self.verb < 24 => Action::Add { field, key },
                "labels" if self.verb < 30 => Action::SetKey { field, key, value },
                "tags" | "cold" | "labels" => Action::Remove { field, key },
                "views" => {
                    Action::Inc { field, by: [1, -2, 0, i64::MAX, i64::MIN, 7][usize::from(self.verb) % 6] }
                }
                _ => Action::Put(vec![(field, value)]),
            },
        };
        let kind = if self.verb == VERBS - 1 { "unknown" } else { self.kind.get(&history.kinds) };
        Op::new(kind, ["a", "b"][self.id], action)
    }
}

const VERBS: u8 = 40;
const VALUES: usize = 12;

fn value(number: usize) -> Value {
    match number {
        0 => Value::Null,
        1 => Value::Bool(false),
        2 | 3 => Value::Bool(true),
        4 => Value::Int(1),
        5 => Value::Float(1.0),
        6 => Value::Int(2),
        7 => Value::Float(f64::NAN),
        8 => Value::Float(-0.0),
        9 => Value::Float(0.0),
        10 => Value::from("e\u{301}"),
        _ => Value::List(vec![Value::Int(1)]),
    }
}

fn new_schema() -> Arc<Schema> {
    let schema = Schema::builder()
        .kind("del", |k| fields(k.open(), &["start", "stop"]))
        .kind("revs", |k| fields(k.life(Life::EditRevives), &["start", "stop", "note"]))
        .kind("newer", |k| fields(k.life(Life::Newest).open(), &["start", "stop"]));
    Arc::new(schema.build().unwrap())
}

/// Lacks a kind, fields, and a member of a group.
fn old_schema() -> Arc<Schema> {
    let schema = Schema::builder()
        .kind("del", |k| k.open().value("start").group("interval", ["start"]).multi("multi").counter("views"))
        .kind("revs", |k| {
            let k = k.life(Life::EditRevives).value("start").value("stop").set("tags");
            k.group("interval", ["start", "stop"]).value_with("near", Margin::Ms(5), Resolver::Newest)
        });
    Arc::new(schema.build().unwrap())
}

fn fields(kind: KindBuilder, members: &[&str]) -> KindBuilder {
    let five = Margin::Ms(5);
    let kind = members.iter().fold(kind, |kind, member| kind.value(*member));
    kind.group("interval", members.iter().copied())
        .value("plain")
        .value_with("near", five, Resolver::Newest)
        .value_with("oldest", five, Resolver::Oldest)
        .value_with("rank", five, Resolver::Rank)
        .value_with("least", five, Resolver::Min)
        .value_with("most", Margin::Infinite, Resolver::Max)
        .value_with("ever", Margin::Infinite, Resolver::Rank)
        .resolver("pick", five, "all", all)
        .custom("fold", "all", all)
        .multi("multi")
        .set("tags")
        .set_with("cold", SetWins::Remove)
        .map("labels")
        .counter("views")
        .max("top")
        .min("low")
        .flag("flag")
}

/// Every candidate with its rank, in the order given: shows any difference.
fn all(candidates: &[Candidate<'_>]) -> Value {
    Value::List(
        candidates.iter().map(|c| Value::List(vec![Value::Int(c.rank.into()), c.value.clone()])).collect(),
    )
}
