//! What the simulated users do.

use rivus_core::edit::{Action, Op};
use rivus_core::value::Value;

use crate::random::Random;

/// A kind and an id in use.
pub(super) fn entity(rng: &mut Random) -> (&'static str, String) {
    match rng.below(20) {
        0..11 => ("task", task(rng)),
        11..15 => ("note", format!("n{}", rng.below(2))),
        15..19 => ("item", format!("i{}", rng.below(2))),
        _ => ("blob", format!("b{}", rng.below(4))),
    }
}

/// The id of a task.
pub(super) fn task(rng: &mut Random) -> String {
    format!("t{}", rng.below(4))
}

/// One edit: usually one operation.
pub(super) fn ops(rng: &mut Random) -> Vec<Op> {
    let count = if rng.chance(1, 6) { 2 + rng.below(2) } else { 1 };
    (0..count).map(|_| op(rng)).collect()
}

fn op(rng: &mut Random) -> Op {
    let (kind, id) = entity(rng);
    let action = match rng.below(16) {
        0 => Action::Delete,
        1 => Action::Revive,
        _ => match kind {
            "task" => of_task(rng),
            "note" => of_note(rng),
            "item" => of_item(rng),
            _ => Action::Put(vec![("body".to_owned(), value(rng))]),
        },
    };
    Op::new(kind, id, action)
}

fn of_task(rng: &mut Random) -> Action {
    match rng.below(14) {
        0..4 => one(rng, &["title", "owner", "due", "score", "notes"]),
        4..7 => Action::Put(vec![("title".to_owned(), value(rng)), ("due".to_owned(), value(rng))]),
        7 => Action::Put(vec![("done".to_owned(), Value::Bool(rng.chance(1, 2)))]),
        8 | 9 => Action::Add { field: "tags".to_owned(), key: key(rng) },
        10 => Action::Remove { field: "tags".to_owned(), key: key(rng) },
        11 => Action::SetKey { field: "labels".to_owned(), key: key(rng), value: value(rng) },
        12 => Action::Remove { field: "labels".to_owned(), key: key(rng) },
        _ => Action::Inc { field: "views".to_owned(), by: rng.between(-3, 9) },
    }
}

fn of_note(rng: &mut Random) -> Action {
    match rng.below(6) {
        0 => Action::Add { field: "readers".to_owned(), key: key(rng) },
        1 => Action::Remove { field: "readers".to_owned(), key: key(rng) },
        2 => Action::Put(vec![("start".to_owned(), value(rng)), ("stop".to_owned(), value(rng))]),
        _ => one(rng, &["text", "start", "stop"]),
    }
}

fn of_item(rng: &mut Random) -> Action {
    if rng.chance(1, 3) {
        return Action::Inc { field: "stock".to_owned(), by: rng.between(-3, 9) };
    }
    one(rng, &["name", "extra", "more"])
}

fn one(rng: &mut Random, fields: &[&str]) -> Action {
    Action::Put(vec![((*rng.pick(fields)).to_owned(), value(rng))])
}

fn key(rng: &mut Random) -> String {
    format!("k{}", rng.below(3))
}

fn value(rng: &mut Random) -> Value {
    match rng.below(24) {
        0 => Value::Null,
        1 => Value::Bool(rng.chance(1, 2)),
        2 => Value::Float(*rng.pick(&[f64::NAN, -0.0, 1.0, 1e300, f64::NEG_INFINITY])),
        3 => Value::Int(*rng.pick(&[i64::MIN, i64::MAX, 0, -1])),
        4 => Value::Text((*rng.pick(&["", "e\u{301}", "\u{e9}", "0", "\u{0}"])).to_owned()),
        5 => Value::List(vec![Value::Int(1), Value::Null]),
        6..14 => Value::Int(rng.between(0, 99)),
        _ => Value::Text(format!("v{}", rng.below(200))),
    }
}

/// Sets one field.
pub(super) fn put(rng: &mut Random, kind: &str, id: &str, field: &str) -> Op {
    Op::new(kind, id, Action::Put(vec![(field.to_owned(), value(rng))]))
}

/// Adds to the counter of a task.
pub(super) fn inc(rng: &mut Random, id: &str) -> Op {
    Op::new("task", id, Action::Inc { field: "views".to_owned(), by: rng.between(1, 5) })
}

/// A value so long that few fit a page.
pub(super) fn body(rng: &mut Random, id: &str) -> Op {
    let body = Value::Text("x".repeat(90_000 + rng.below(60_000)));
    Op::new("blob", id, Action::Put(vec![("body".to_owned(), body)]))
}

/// A small change of the same.
pub(super) fn note_of(rng: &mut Random, id: &str) -> Op {
    Op::new("blob", id, Action::SetKey { field: "parts".to_owned(), key: key(rng), value: value(rng) })
}

/// So many keys that a task has more than one row.
pub(super) fn labels(rng: &mut Random, id: &str) -> Vec<Op> {
    let set = |n: usize| {
        let (key, value) = (format!("label-{n:03}"), Value::Text("y".repeat(30)));
        Op::new("task", id, Action::SetKey { field: "labels".to_owned(), key, value })
    };
    (0..100 + rng.below(60)).map(set).collect()
}

/// One of those keys.
pub(super) fn label(rng: &mut Random, id: &str) -> Op {
    let key = format!("label-{:03}", rng.below(100));
    Op::new("task", id, Action::SetKey { field: "labels".to_owned(), key, value: value(rng) })
}
