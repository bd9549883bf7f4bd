//! Strategies for what merges meet: hostile values, stamps that nearly tie, candidates, entities, histories.
//!
//! Owns the inputs of the laws; checks nothing. All of them are proptest strategies, so they combine with each other
//! and with a user's own. Invariant: what they make, the engine accepts.

mod history;
mod shrink;

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rivus_core::clock::{Stamp, ticks};
use rivus_core::id::ReplicaId;
use rivus_core::rules::CustomRule;
use rivus_core::value::{DEPTH_MAX, Value};

pub use history::{BadToken, History, Step, histories};

use crate::law::resolver::Write;
use crate::law::rule::{Entity, Field};

/// Values that break careless code: NaN, both zeros, whole floats and integers around 2^53 and 2^63, text that is
/// long, empty, not normalised or out of the basic plane, lists nested to the limit, and plain ones between.
pub fn values() -> impl Strategy<Value = Value> + Clone {
    prop_oneof![4 => small_values(), 2 => hostile_values(), 1 => nested()]
}

/// A few plain values, so that equal ones meet often.
pub fn small_values() -> impl Strategy<Value = Value> + Clone {
    prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::Bool),
        4 => (-2..12_i64).prop_map(Value::Int),
        2 => (-4..8_i8).prop_map(|quarters| Value::Float(f64::from(quarters) / 4.0)),
        4 => select(vec!["", "a", "b", "ab", "10", "9", "Ä", "z"]).prop_map(Value::from),
    ]
}

/// Only the values that careless code gets wrong.
pub fn hostile_values() -> impl Strategy<Value = Value> + Clone {
    prop_oneof![
        4 => floats().prop_map(Value::Float),
        2 => integers().prop_map(Value::Int),
        3 => texts().prop_map(Value::Text),
        1 => vec(any::<u8>(), 0..6).prop_map(Value::Bytes),
        1 => (any::<u64>(), vec(any::<u8>(), 0..4)).prop_map(|(tag, bytes)| Value::Unknown { tag, bytes }),
    ]
}

/// Integers around the limits of floats, of 32 bits and of 64.
pub fn integers() -> impl Strategy<Value = i64> + Clone {
    let near = vec![0, 1 << 31, 1 << 32, 1 << 53, -(1 << 53), i64::MAX, i64::MIN];
    (select(near), -2..3_i64).prop_map(|(near, by)| near.saturating_add(by))
}

/// NaN, infinities, both zeros, the least and greatest, halves and sums that are not exact, whole floats around 2^53
/// and 2^63.
pub fn floats() -> impl Strategy<Value = f64> + Clone {
    let special = vec![
        f64::NAN,
        -f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.0,
        -0.0,
        5e-324,
        f64::MAX,
        f64::MIN,
        0.1,
        0.2,
        0.3,
        1e16,
        9_007_199_254_740_992.0,
        9_007_199_254_740_994.0,
        9_223_372_036_854_775_808.0,
        18_446_744_073_709_551_616.0,
    ];
    prop_oneof![3 => select(special), 1 => (-100..100_i8).prop_map(|n| f64::from(n) / 10.0)]
}

/// Text that two programs compare, cut or store differently: empty, long, composed and decomposed, right to left,
/// with a null character, from beyond the basic plane, of equal look, with line breaks and quotes.
pub fn texts() -> impl Strategy<Value = String> + Clone {
    let special = vec![
        "",
        " ",
        "é",
        "e\u{301}",
        "Å",
        "A\u{30a}",
        "Å",
        "ß",
        "SS",
        "ﬁ",
        "İ",
        "i\u{307}",
        "ı",
        "\u{0}",
        "a\u{0}b",
        "שלום",
        "\u{202e}abc",
        "\u{feff}a",
        "😀",
        "👩\u{200d}👩\u{200d}👧",
        "\u{ffff}",
        "\u{10ffff}",
        "a\nb",
        "\"\\",
        "$f64",
        "null",
        "NaN",
        "10",
        "9",
        "9a",
        "1.0",
    ];
    prop_oneof![
        6 => select(special).prop_map(str::to_owned),
        1 => (select(vec!["a", "é", "😀"]), 200..2000_usize).prop_map(|(of, times)| of.repeat(times)),
        1 => "\\PC{0,8}",
    ]
}

/// Lists and maps, empty ones too, some of them nested to [`DEPTH_MAX`].
fn nested() -> impl Strategy<Value = Value> + Clone {
    let inner = || prop_oneof![small_values(), hostile_values()];
    let deep = (select(vec![2, DEPTH_MAX - 1, DEPTH_MAX]), small_values())
        .prop_map(|(levels, leaf)| (0..levels).fold(leaf, |inner, _| Value::List(vec![inner])));
    prop_oneof![
        2 => vec(inner(), 0..4).prop_map(Value::List),
        2 => btree_map(texts(), inner(), 0..3).prop_map(Value::Map),
        1 => deep,
    ]
}

/// Ids of entities: mostly `e1`, so that edits meet.
pub fn ids() -> impl Strategy<Value = String> + Clone {
    select(vec!["e1", "e1", "e1", "e2"]).prop_map(str::to_owned)
}

/// Names that users give: often the same, sometimes hostile.
pub fn names() -> impl Strategy<Value = String> + Clone {
    prop_oneof![4 => select(vec!["inbox", "Inbox", "home"]).prop_map(str::to_owned), 1 => texts()]
}

/// Times in ms of which many are equal, and many exactly `margin_ms` apart or one less or more.
pub fn near_times(margin_ms: u64) -> impl Strategy<Value = u64> + Clone {
    (0..4_u64, 0..3_u64).prop_map(move |(steps, off)| (1000 + steps * margin_ms + off).saturating_sub(1))
}

/// Stamps of three replicas at [`near_times`] of a margin, some of a later generation, some a tick beside.
pub fn stamps(margin_ms: u64) -> impl Strategy<Value = Stamp> + Clone {
    let generation = prop_oneof![9 => Just(0_u16), 1 => Just(1)];
    (near_times(margin_ms), 0..3_u64, 1..4_u128, generation).prop_map(|(ms, off, replica, generation)| {
        Stamp { generation, time: ticks(ms) + off, replica: ReplicaId::from_u128(replica) }
    })
}

/// The candidates of one register: one to five concurrent writes, each of another replica, with stamps that are equal
/// in time or a margin of 5 ms apart, and any value. In no order.
pub fn candidates() -> impl Strategy<Value = Vec<Write>> + Clone {
    let write = (stamps(5), 0..3_u8, values());
    vec(write, 1..6).prop_map(|writes| {
        let number = |(n, (stamp, rank, value)): (u128, (Stamp, u8, Value))| Write {
            stamp: Stamp { replica: ReplicaId::from_u128(n), ..stamp },
            rank,
            value,
        };
        (1..).zip(writes).map(number).collect()
    })
}

/// Entities for rules, up to six: time entries with `user`, `start` and `stop` that were running when they claimed
/// their user; with `name` in the same group, `parent` (an id, also one that is not there), `amount` and `note`. Some
/// are deleted, some have been another user's before. Claims and starts often tie.
pub fn entities() -> impl Strategy<Value = Vec<Entity>> + Clone {
    let user = || select(vec![Value::from("u1"), Value::from("u1"), Value::from("u2"), Value::Null]);
    let stop = prop_oneof![3 => Just(None), 1 => Just(Some(Value::Null)), 2 => (0..20_i64).prop_map(|n| Some(n.into()))];
    let parent =
        prop_oneof![2 => Just(None), 3 => (0..7_u8).prop_map(|n| Some(Value::from(format!("e{n}"))))];
    let name = prop_oneof![6 => names().prop_map(Value::from), 1 => hostile_values()];
    let values = (user(), (0..20_i64).prop_map(Value::from), stop, name, parent, values());
    let claim = || {
        (0..3_u64, 1..3_u128).prop_map(|(ms, replica)| {
            let replica = ReplicaId::from_u128(replica);
            Stamp { generation: 0, time: ticks(1000 + ms), replica }
        })
    };
    let claims = (claim(), claim(), user());
    let entity = (values, claims, vec(stamps(5), 6), prop::bool::weighted(0.2), any::<Index>());
    vec(entity, 0..7).prop_map(|entities| {
        let mut made: Vec<Entity> = Vec::new();
        for (n, ((user, start, stop, name, parent, amount), claims, stamps, deleted, at)) in
            entities.into_iter().enumerate()
        {
            let fields = [
                ("user", Some(user.clone())),
                ("start", Some(start)),
                ("stop", stop),
                ("name", Some(name)),
                ("parent", parent),
                ("amount", Some(amount)),
            ];
            let held = fields.into_iter().zip(stamps).filter_map(|((field, value), stamp)| {
                Some((field.to_owned(), Field { stamp, value: value? }))
            });
            let (claim, former_claim, former) = claims;
            let mut claims = BTreeMap::from([(former, former_claim)]);
            claims.insert(user, claim);
            claims.remove(&Value::Null);
            let entity = Entity { id: format!("e{n}"), deleted, fields: held.collect(), claims };
            made.insert(at.index(made.len() + 1), entity);
        }
        made
    })
}

/// Entities for a rule of your own, made of the fields that it names, with values of all kinds.
pub fn entities_for(rule: &dyn CustomRule) -> impl Strategy<Value = Vec<Entity>> + Clone + use<> {
    let group = rule.group();
    let mut names: Vec<&str> = rule.reads().into_iter().chain(rule.owns()).collect();
    names.sort_unstable();
    names.dedup();
    let value = prop_oneof![3 => any::<bool>().prop_map(Value::Bool), 3 => small_values(), 1 => values()];
    let others = names.iter().filter(|name| !group.contains(*name));
    entities_of(&group, others.map(|name| (*name, value.clone().boxed())).collect())
}

/// Entities with these fields, up to six, in groups of few values that some are in none of. Some are deleted, some have
/// been in another group before, some never claimed theirs; claims often tie.
pub fn entities_of(
    group: &[&str],
    fields: Vec<(&str, BoxedStrategy<Value>)>,
) -> impl Strategy<Value = Vec<Entity>> + Clone + use<> {
    let shared = || {
        let some =
            vec![Value::from("g1"), Value::from("g1"), Value::from("g1"), Value::from("g2"), Value::Null];
        select(some).boxed()
    };
    let group: Vec<String> = group.iter().map(|name| (*name).to_owned()).collect();
    let names: Vec<String> =
        group.iter().cloned().chain(fields.iter().map(|(name, _)| (*name).to_owned())).collect();
    let values: Vec<_> = group.iter().map(|_| shared()).chain(fields.into_iter().map(|(_, v)| v)).collect();
    let values: Vec<_> = values.into_iter().map(|value| prop::option::weighted(0.95, value)).collect();
    let claim = prop::option::weighted(
        0.8,
        (0..3_u64, 1..3_u128).prop_map(|(ms, replica)| {
            let replica = ReplicaId::from_u128(replica);
            Stamp { generation: 0, time: ticks(1000 + ms), replica }
        }),
    );
    let stamps = vec(stamps(5), names.len());
    let entity = (values, stamps, claim.clone(), claim, prop::bool::weighted(0.2), any::<Index>());
    vec(entity, 0..7).prop_map(move |entities| {
        let mut made: Vec<Entity> = Vec::new();
        for (n, (values, stamps, claim, former_claim, deleted, at)) in entities.into_iter().enumerate() {
            let held = names.iter().zip(values).zip(stamps);
            let held = held
                .filter_map(|((name, value), stamp)| Some((name.clone(), Field { stamp, value: value? })));
            let mut entity =
                Entity { id: format!("e{n}"), deleted, fields: held.collect(), ..Entity::default() };
            let own: Vec<_> = group.iter().map(|name| entity.value(name).clone()).collect();
            let own = <[Value; 1]>::try_from(own).map_or_else(Value::List, |[one]| one);
            entity.claims.extend(former_claim.map(|claim| ("g2".into(), claim)));
            entity.claims.extend(claim.map(|claim| (own, claim)));
            entity.claims.remove(&Value::Null);
            made.insert(at.index(made.len() + 1), entity);
        }
        made
    })
}

#[cfg(test)]
mod tests;
