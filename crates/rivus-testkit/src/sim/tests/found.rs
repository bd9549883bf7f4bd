//! What campaigns found, made small and written by hand: a seed names another plan when plans change.

use rivus_core::edit::{Action as EditAction, Op};

use super::super::plan::{Action, Fault, Shape, Site, Step, Version};
use super::*;

const YEAR_MS: i64 = 365 * 86_400_000;

fn site() -> Site {
    Site {
        version: Version::New,
        skew_ms: 0,
        drift_ppm: 0,
        drift_ms_max: None,
        rank: 0,
        is_copy: false,
        twin: None,
    }
}

fn copy() -> Site {
    Site { is_copy: true, ..site() }
}

fn finds_nothing(shape: Shape, sites: &[Site], actions: &[Action]) {
    let step = |action: &Action| Some(Step { wait_ms: 10, action: action.clone() });
    for flavour in [Flavour::Core, Flavour::Full] {
        let plan = Plan {
            seed: 1,
            flavour,
            shape,
            sites: sites.to_vec(),
            steps: actions.iter().map(step).collect(),
        };
        assert_eq!(run(&plan).failure, None, "{plan}");
    }
}

fn sync(from: usize, to: usize) -> Action {
    Action::Sync { from, to, fault: Fault::None }
}

fn clock(on: usize, by_ms: i64) -> Action {
    Action::SetClock { on, by_ms }
}

fn edit(on: usize, kind: &str, id: &str, action: EditAction) -> Action {
    Action::Edit { on, ops: vec![Op::new(kind, id, action)] }
}

fn put(on: usize, kind: &str, field: &str) -> Action {
    edit(on, kind, "x", EditAction::Put(vec![(field.to_owned(), format!("by {on}").into())]))
}

fn inc(on: usize, by: i64) -> Action {
    edit(on, "task", "x", EditAction::Inc { field: "views".to_owned(), by })
}

/// Both clocks are behind what the store has met: the first edit that each makes has the same stamp, and only one of
/// the two authors has seen what a third wrote. The simulator took the two edits for one.
#[test]
fn two_copies_use_one_stamp() {
    let actions = [
        put(0, "task", "title"),
        Action::Copy { from: 0, to: 2 },
        clock(0, -YEAR_MS),
        clock(2, -YEAR_MS),
        clock(1, -2 * YEAR_MS),
        put(1, "note", "text"),
        sync(1, 0),
        put(0, "note", "text"),
        put(2, "note", "text"),
        sync(2, 1),
    ];
    finds_nothing(Shape::Peers, &[site(), site(), copy()], &actions);
}

/// The same, of a hub and of what it was before it was set back.
#[test]
fn a_restored_hub_uses_a_stamp_again() {
    let actions = [
        clock(0, YEAR_MS),
        put(0, "task", "title"),
        clock(0, -YEAR_MS),
        put(1, "note", "text"),
        Action::Backup { on: 0 },
        sync(1, 0),
        put(0, "note", "text"),
        Action::Restore { on: 0 },
        put(0, "note", "text"),
    ];
    finds_nothing(Shape::Hub, &[site(), site()], &actions);
}

/// The copy's second edit is made anew by another author when the copy is found out; then its original comes to the
/// stamp that the edit bore, and both show. The simulator knew only the value that had been written first.
#[test]
fn a_copy_gives_up_a_stamp_that_its_original_then_uses() {
    let actions = [
        sync(1, 0),
        put(1, "item", "name"),
        Action::Copy { from: 1, to: 2 },
        clock(1, -YEAR_MS),
        clock(2, -YEAR_MS),
        put(1, "note", "text"),
        put(2, "item", "name"),
        put(2, "task", "due"),
        sync(1, 0),
        sync(2, 0),
        put(1, "task", "due"),
    ];
    finds_nothing(Shape::Hub, &[site(), site(), copy()], &actions);
}

/// The first increment bears a rank that the copy is not granted: there the second one is made anew without it, under
/// the same author, and then the original's are accepted. No sum is right for both, as docs/semantics.md says.
#[test]
fn a_copy_hears_a_refusal_that_its_original_does_not() {
    let actions = [
        Action::Grant { to: 1, rank: 1 },
        sync(1, 0),
        inc(1, -1),
        inc(1, 3),
        Action::Copy { from: 1, to: 2 },
        sync(2, 0),
    ];
    finds_nothing(Shape::Hub, &[site(), site(), copy()], &actions);
}

/// The copy is refused what its original then gets accepted, under the id that is still that of both: no page brings it
/// to the copy. The digest does, and the next greeting.
#[test]
fn a_copy_learns_from_the_digest_what_its_original_got_accepted() {
    let actions = [
        Action::Grant { to: 1, rank: 1 },
        sync(1, 0),
        inc(1, 1),
        Action::Copy { from: 1, to: 2 },
        sync(2, 0),
        sync(1, 0),
        sync(2, 0),
    ];
    finds_nothing(Shape::Hub, &[site(), site(), copy()], &actions);
}

/// Two clocks that are off by ten years each, and one of them set: what was set aside comes due in the end.
#[test]
fn clocks_are_decades_apart() {
    let skewed = |skew_ms| Site { skew_ms, drift_ms_max: Some(60_000), ..site() };
    let sites = [skewed(-10 * YEAR_MS), skewed(10 * YEAR_MS)];
    finds_nothing(Shape::Peers, &sites, &[clock(1, 10 * YEAR_MS), put(1, "task", "title")]);
}
