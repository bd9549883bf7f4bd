use std::collections::BTreeMap;

use rivus_core::edit::{Action, Op};

use super::*;
use crate::law::Law;
use crate::strategy::{History, Step};

const SEEDS: [u64; 3] = [1, 2, 3];

fn effort(seed: u64) -> Effort {
    Effort { cases: CASES_MAX, seed }
}

#[test]
fn every_mistake_is_caught_within_a_thousand_inputs_whatever_the_seed() {
    let mut missed = Vec::new();
    println!("{:<32} {:>5} {:>5} {:>5}  law", "mistake", "1", "2", "3");
    for exhibit in broken() {
        let caught = SEEDS.map(|seed| exhibit.hunt(effort(seed)));
        let case = |n: usize| caught[n].as_ref().map_or("-".to_owned(), |c| c.case.to_string());
        let law = caught[0].as_ref().map_or(String::new(), |c| c.broken.law.to_string());
        println!("{:<32} {:>5} {:>5} {:>5}  {law}", exhibit.name, case(0), case(1), case(2));
        if caught.iter().any(Option::is_none) {
            missed.push(exhibit.name);
        }
    }
    assert!(missed.is_empty(), "not caught within {CASES_MAX} inputs of seeds {SEEDS:?}: {missed:?}");
}

#[test]
fn nothing_sound_is_complained_about() {
    for exhibit in sound() {
        if let Some(Caught { case, broken }) = exhibit.hunt(effort(4)) {
            panic!("{}, input {case} of seed 4: {broken}", exhibit.name);
        }
    }
}

#[test]
fn the_zoo_is_large_enough_and_its_names_are_its_own() {
    assert!(broken().len() >= 26, "{}", broken().len());
    assert!(sound().len() >= 14, "{}", sound().len());
    assert_eq!(names().len(), broken().len() + sound().len());
    println!("{} broken, {} sound", broken().len(), sound().len());
}

/// A law that nothing breaks may be a check that cannot fail.
#[test]
fn every_law_of_every_family_is_seen_to_be_broken() {
    use crate::law::{custom, join, merge, resolver, rule};
    let families = [
        (joins::exhibits(), &join::LAWS[..]),
        (resolvers::exhibits(), &resolver::LAWS[..]),
        (rules::exhibits(), &rule::LAWS[..]),
        (merges::exhibits(), &merge::LAWS[..]),
        (custom_rules::exhibits(), &custom::LAWS[..]),
    ];
    for (exhibits, laws) in families {
        let mut breakers: BTreeMap<Law, Vec<&str>> = BTreeMap::new();
        for exhibit in exhibits {
            let caught = exhibit.hunt(effort(1)).unwrap();
            breakers.entry(caught.broken.law).or_default().push(exhibit.name);
        }
        assert!(
            breakers.keys().eq(&laws.iter().copied().collect::<BTreeSet<_>>()),
            "{breakers:?}, not {laws:?}"
        );
    }
}

#[test]
fn a_hunt_is_repeated_to_the_letter_by_its_seed() {
    // What these read is no part of the input.
    let outside = ["wall clock in a rule", "order of a hash map", "counted in the thread"];
    let repeated: Vec<_> = broken().into_iter().filter(|exhibit| !outside.contains(&exhibit.name)).collect();
    for exhibit in repeated.iter().step_by(7) {
        let [one, two] = [(); 2].map(|()| exhibit.hunt(effort(9)));
        assert!(one.is_some());
        assert_eq!(one, two, "{}", exhibit.name);
    }
}

#[test]
fn a_history_that_breaks_a_merge_shrinks_to_a_story_that_can_be_read() {
    let direct_parents = merges::flawed(registers::Flaw::DirectParents);
    let broken = effort(1)
        .search(&crate::strategy::histories(), |history| crate::law::merge::check(&direct_parents, history))
        .unwrap_err();
    let history = broken.history.clone().unwrap();
    println!("{broken}");
    let edits = history.steps.iter().filter(|step| matches!(step, Step::Edit { .. })).count();
    assert!(edits <= 3 && history.steps.len() <= 5, "{broken}");
    let told = broken.to_string();
    assert!(told.contains(&history.token()) && told.contains(&history.to_replay()), "{told}");
    let again = History::from_token(&history.token()).unwrap();
    assert_eq!(crate::law::merge::check(&direct_parents, &again), Err(broken));
}

#[test]
fn a_floor_that_is_forgotten_shows_what_the_write_between_had_put_out() {
    let put = |on, at, value: i64| Step::Edit {
        on,
        at,
        op: Op::new("task", "e1", Action::Put(vec![("owner".to_owned(), value.into())])),
    };
    let steps = vec![put(2, 1000, 1), put(0, 1007, 2), Step::Sync { from: 0, to: 1 }, put(1, 1008, 3)];
    let history = History { ranks: vec![0, 0, 2], steps };
    let forgotten = merges::flawed(registers::Flaw::FloorForgotten);
    let broken = crate::law::merge::check(&forgotten, &history).unwrap_err();
    assert_eq!(broken.law, Law::SeenIsReplaced, "{broken}");
    assert_eq!(crate::law::merge::check(&Entities::<Floor>::default(), &history), Ok(()));
}

#[test]
fn the_manual_lists_the_zoo() {
    let custom = custom_rules::exhibits();
    let lists = [joins::exhibits(), resolvers::exhibits(), merges::exhibits(), rules::exhibits(), custom];
    let titles = ["Joins", "Resolvers", "Data types", "Rules", "Rules by the engine's trait"];
    let mut expected = String::new();
    for (title, exhibits) in titles.into_iter().zip(lists) {
        expected += &format!("### {title}\n\n| mistake | what is wrong | met in |\n|---|---|---|\n");
        for Exhibit { name, what, seen, .. } in exhibits {
            expected += &format!("| {name} | {what} | {seen} |\n");
        }
        expected.push('\n');
    }
    let names: Vec<_> = sound().iter().map(|exhibit| exhibit.name).collect();
    expected += &format!("Right are: {}.\n", names.join("; "));
    let manual = include_str!("../../../../docs/testing.md");
    assert!(manual.contains(&expected), "docs/testing.md has another zoo than this:\n{expected}");
}
