use std::collections::BTreeSet;

use proptest::strategy::ValueTree;
use rivus::replay::{Direct, Script, StoreChoice, run};
use rivus_core::edit::Action;

use super::*;
use crate::law::Effort;

/// What a seed draws.
fn draw<S: Strategy>(strategy: &S, cases: u32) -> Vec<S::Value> {
    let mut runner = Effort { cases, seed: 7 }.runner();
    (0..cases).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

#[test]
fn hostile_values_are_all_there_and_none_is_refused() {
    let values = draw(&values(), 4000);
    let seen = |what: &str, is: &dyn Fn(&Value) -> bool| assert!(values.iter().any(is), "no {what}");
    seen("NaN", &|v| matches!(v, Value::Float(f) if f.is_nan()));
    seen("-0.0", &|v| matches!(v, Value::Float(f) if *f == 0.0 && f.is_sign_negative()));
    seen("greatest integer", &|v| *v == Value::Int(i64::MAX));
    seen("least integer", &|v| *v == Value::Int(i64::MIN));
    seen("2^53 + 1", &|v| *v == Value::Int((1 << 53) + 1));
    seen("2^64", &|v| *v == Value::Float(18_446_744_073_709_551_616.0));
    seen("long text", &|v| matches!(v, Value::Text(t) if t.len() > 1000));
    seen("decomposed text", &|v| *v == Value::from("e\u{301}"));
    seen("empty list", &|v| *v == Value::List(Vec::new()));
    let around = |v: &Value| Value::List(vec![v.clone()]);
    seen("value nested to the limit", &|v| v.depth_ok() && !around(v).depth_ok());
    for value in &values {
        assert_eq!(Value::decode(&value.to_bytes()).as_ref(), Ok(value));
    }
}

#[test]
fn candidates_tie_in_time_and_lie_a_margin_apart() {
    let drawn = draw(&candidates(), 500);
    let apart = |a: &Write, b: &Write| a.stamp.time.abs_diff(b.stamp.time);
    let some =
        |gap: u64| drawn.iter().any(|w| w.iter().any(|a| w.iter().any(|b| a != b && apart(a, b) == gap)));
    let margin = ticks(1005) - ticks(1000);
    for gap in [0, margin - 1, margin, margin + 1] {
        assert!(some(gap), "no two are {gap} apart");
    }
    for writes in drawn {
        let replicas: BTreeSet<_> = writes.iter().map(|w| w.stamp.replica).collect();
        assert!(!writes.is_empty() && replicas.len() == writes.len(), "one of each replica");
    }
}

#[test]
fn entities_claim_their_group_and_have_ids_of_their_own() {
    for entities in draw(&entities(), 500) {
        let ids: BTreeSet<_> = entities.iter().map(|e| &e.id).collect();
        assert_eq!(ids.len(), entities.len());
        for entity in entities {
            let user = entity.value("user");
            assert!(*user == Value::Null || entity.claims.contains_key(user));
        }
    }
}

#[test]
fn a_token_is_one_line_and_all_of_the_history() {
    for history in draw(&histories(), 500) {
        let token = history.token();
        assert!(token.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)));
        assert_eq!(History::from_token(&token), Ok(history));
    }
    for bad in ["", "h1", "h2.gA", "h1.gA", "h1.!", "h1.gYE", "h1.goGAgYIBAg"] {
        assert!(History::from_token(bad).is_err(), "{bad}");
    }
}

#[test]
fn replay_runs_every_script_to_the_end_and_all_replicas_show_the_same() {
    for history in draw(&histories(), 200) {
        let text = history.to_replay();
        let script = Script::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let (mut out, mut refused) = (Vec::new(), Vec::new());
        run(&script, StoreChoice::Memory, &mut Direct, &mut out, &mut refused, &mut |_, _| {}).unwrap();
        // Conflicts are those of each replica's own writes.
        let shown: BTreeSet<_> = str::from_utf8(&out)
            .unwrap()
            .lines()
            .map(|line| {
                let (_, rest) = line.split_once("\"digest\"").unwrap();
                rest.split_once("\"conflicts\"").unwrap().0
            })
            .collect();
        assert_eq!(shown.len(), 1, "{text}");
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), history.ranks.len());
    }
}

/// Shrinks a history as proptest does, while `fails`.
fn shrunk(history: History, fails: impl Fn(&History) -> bool) -> History {
    assert!(fails(&history));
    let mut tree = super::shrink::HistoryTree::new(history);
    while tree.simplify() {
        while !fails(&tree.current()) && tree.complicate() {}
    }
    tree.current()
}

#[test]
fn shrinking_leaves_only_what_the_failure_needs() {
    let puts = |h: &History| {
        h.steps
            .iter()
            .filter(|s| matches!(s, Step::Edit { op, .. } if matches!(op.action, Action::Put(_))))
            .count()
    };
    let syncs = |h: &History| h.steps.iter().filter(|s| matches!(s, Step::Sync { .. })).count();
    let fails = |h: &History| puts(h) >= 2 && syncs(h) >= 1;
    let drawn: Vec<_> = draw(&histories(), 300).into_iter().filter(|h| fails(h)).collect();
    assert!(drawn.len() > 50);
    for history in drawn {
        let least = shrunk(history, fails);
        assert_eq!(
            (least.ranks.len(), puts(&least), syncs(&least), least.steps.len()),
            (2, 2, 1, 3),
            "{least:?}"
        );
    }
}

#[test]
fn a_value_nested_to_the_limit_can_be_shown_in_every_field() {
    let deep = (0..DEPTH_MAX).fold(Value::Null, |inner, _| Value::List(vec![inner]));
    for field in ["title", "owner", "note"] {
        let op = rivus_core::edit::Op::new("task", "e1", Action::Put(vec![(field.to_owned(), deep.clone())]));
        let history = History { ranks: vec![0, 0], steps: vec![Step::Edit { on: 0, at: 1, op }] };
        let script = Script::parse(history.to_replay().as_bytes()).unwrap();
        let (mut out, mut refused) = (Vec::new(), Vec::new());
        let ran = run(&script, StoreChoice::Memory, &mut Direct, &mut out, &mut refused, &mut |_, _| {});
        assert!(ran.is_ok(), "{field}: {ran:?}");
    }
}
