//! The model alone, where a sentence of `docs/semantics.md` says what is to come out.

use std::collections::BTreeSet;
use std::sync::Arc;

use rivus_core::clock::{Millis, ticks};
use rivus_core::edit::{Action, Op};
use rivus_core::id::ReplicaId;
use rivus_core::schema::{Life, Schema};
use rivus_core::value::Value;

use super::super::{Model, Outcome, Shown, Views};
use super::world::put;

/// Two replicas that read by one schema.
fn two() -> Model {
    let all = |k: rivus_core::schema::KindBuilder| k.open().set("tags").counter("views").max("top");
    let schema = Schema::builder()
        .kind("task", all)
        .kind("note", |k| all(k).life(Life::EditRevives))
        .kind("news", |k| all(k).life(Life::Newest));
    let mut model = Model::new(Arc::new(schema.build().unwrap()));
    for number in [1, 2] {
        model.add(ReplicaId::from_u128(number), 0);
    }
    model
}

fn give(model: &mut Model, from: usize, to: usize) {
    let known = model.snapshot(from);
    model.deliver(to, &known);
}

fn both(model: &mut Model) -> Views {
    give(model, 0, 1);
    give(model, 1, 0);
    assert_eq!(model.view(0), model.view(1));
    model.view(0)
}

#[test]
fn stamps_go_by_the_reading_or_one_above_high_water_and_refusals_use_none() {
    let mut model = two();
    let stamp = |outcome: Outcome| match outcome {
        Outcome::Committed { stamp } => (stamp.generation, stamp.time),
        other => panic!("{other:?}"),
    };
    assert_eq!(stamp(model.edit(0, Millis(2_000), &[put("task", "t", "a", 1)])), (0, ticks(2_000)));
    assert_eq!(stamp(model.edit(0, Millis(1_000), &[put("task", "t", "a", 2)])), (0, ticks(2_000) + 1));
    assert_eq!(model.edit(0, Millis(1_000), &[put("task", "t", "a", 2)]), Outcome::Nothing);
    assert!(matches!(model.edit(0, Millis(1_000), &[put("none", "t", "a", 2)]), Outcome::Refused(_)));
    assert_eq!(stamp(model.edit(0, Millis(1_000), &[put("task", "t", "a", 3)])), (0, ticks(2_000) + 2));
    give(&mut model, 0, 1);
    assert_eq!(stamp(model.edit(1, Millis(0), &[put("task", "u", "a", 3)])), (0, ticks(2_000) + 3));
    // A value whose time a clock has not reached, as after a correction: passed by the generation.
    give(&mut model, 1, 0);
    model.members[0].high_water = 0;
    assert_eq!(stamp(model.edit(0, Millis(1), &[put("task", "u", "a", 4)])), (1, ticks(1)));
}

#[test]
fn a_delete_against_an_edit_and_a_revival_goes_by_the_kinds_policy() {
    for (kind, edited, revived) in [("task", false, false), ("note", true, true), ("news", false, true)] {
        let mut model = two();
        model.edit(0, Millis(1_000), &[put(kind, "t", "a", 1)]);
        both(&mut model);
        let mut other = model.clone();
        let delete = |at| (Millis(at), [Op::new(kind, "t", Action::Delete)]);
        let (at, op) = delete(1_002);
        model.edit(0, at, &op);
        model.edit(1, Millis(1_001), &[put(kind, "t", "a", 2)]);
        assert_eq!(both(&mut model).contains_key(kind), edited, "{kind}, edited");
        // Both delete; one takes its own back, later.
        let (at, op) = delete(1_002);
        other.edit(0, at, &op);
        other.edit(1, at, &op);
        other.edit(1, Millis(1_003), &[Op::new(kind, "t", Action::Revive)]);
        assert_eq!(both(&mut other).contains_key(kind), revived, "{kind}, revived");
    }
}

#[test]
fn a_counter_overflows_at_the_edit_and_never_in_a_merge() {
    let mut model = two();
    let inc = |by| [Op::new("task", "t", Action::Inc { field: "views".into(), by })];
    for replica in [0, 1] {
        model.edit(replica, Millis(1_000), &inc(i64::MAX));
        assert!(matches!(model.edit(replica, Millis(1_000), &inc(1)), Outcome::Refused(_)));
    }
    let sum = 2 * i128::from(i64::MAX);
    assert_eq!(both(&mut model)["task"]["t"]["views"], Shown::Count(sum));
}

#[test]
fn a_write_that_saw_the_maximum_may_lower_it() {
    let mut model = two();
    model.edit(0, Millis(1_000), &[put("task", "t", "top", 9)]);
    model.edit(1, Millis(1_001), &[put("task", "t", "top", 5)]);
    assert_eq!(both(&mut model)["task"]["t"]["top"], Shown::Value(Value::Int(9)));
    model.edit(1, Millis(0), &[put("task", "t", "top", 1)]);
    assert_eq!(both(&mut model)["task"]["t"]["top"], Shown::Value(Value::Int(1)));
}

#[test]
fn entities_travel_alone_and_a_snapshot_stays_as_it_was() {
    let mut model = two();
    model.edit(0, Millis(1_000), &[put("task", "t", "a", 1), put("task", "u", "a", 1)]);
    let known = model.snapshot(0);
    model.edit(0, Millis(1_001), &[put("task", "t", "a", 2)]);
    model.deliver_entities(1, &known, &BTreeSet::from([("task".to_owned(), "t".to_owned())]));
    let view = model.view(1);
    assert_eq!(view["task"].keys().collect::<Vec<_>>(), ["t"]);
    assert_eq!(view["task"]["t"]["a"], Shown::Value(Value::Int(1)));
}
