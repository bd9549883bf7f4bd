use std::collections::BTreeSet;

use rivus_core::canary::{Canary, switch};

use super::coverage::Coverage;
use super::*;

mod found;

/// How often each rare situation must come up in the runs below.
const EACH_LEAST: u64 = 100;

fn check(flavour: Flavour, seed: u64) -> Coverage {
    let plan = Plan::new(flavour, seed);
    let outcome = run(&plan);
    if let Some(failure) = outcome.failure {
        panic!("seed {seed}:\n{}", Account::of(&plan, &failure));
    }
    outcome.coverage
}

#[test]
fn core_runs_find_nothing_and_get_into_every_rare_situation() {
    let mut coverage = Coverage::default();
    for seed in 0..10_000 {
        coverage.add(&check(Flavour::Core, seed));
    }
    println!("{coverage}");
    let rare = coverage.below(EACH_LEAST);
    assert!(rare.is_empty(), "too seldom: {rare:?}");
}

#[test]
fn full_runs_find_nothing() {
    for seed in 0..60 {
        check(Flavour::Full, seed);
    }
}

/// Tokens of runs that failed once, each with what was wrong.
const FOUND: &[(&str, &str)] = &[
    (
        "r1-00000000002ecsr00zzrzzzz0fa0y0010g",
        "Overwrite took a stamp that a restored hub used again for one write",
    ),
    (
        "r1-00000000000s0m000vzzzvzfmwzg000",
        "Acknowledged expected one sum where a copy had an increment refused, and its original had not",
    ),
    (
        "r1-00000000004688800vzzzzzz1w3g00r04020",
        "Digest took what told a copy of its original's edit for a fault",
    ),
    ("r1-000000000054n6800kzz7zr3000rg", "Liveness waited 25 years for clocks that were 28 apart"),
    (
        "r1-0000000000767f800c010g8000",
        "Acknowledged took an increment for refused whose number a restored device had used again",
    ),
    (
        "r1-00000000003msjg00q00000004000",
        "Clock did not know that another process had set the clock back before it died",
    ),
    (
        "r1-00000000006vrq000c0000r000",
        "Acknowledged knew of a stamp only the value of a copy that had given it up again",
    ),
];

#[test]
fn what_was_found_once_is_found_no_more() {
    for (token, was) in FOUND {
        let plan = token.parse::<Token>().unwrap().plan();
        assert_eq!(run(&plan).failure, None, "{token}: {was}");
    }
}

#[test]
fn the_same_seed_does_the_same_byte_for_byte() {
    for (flavour, seeds) in [(Flavour::Core, 200), (Flavour::Full, 4)] {
        let hashes = || (0..seeds).map(|seed| run(&Plan::new(flavour, seed)).trace_hash).collect::<Vec<_>>();
        let first = hashes();
        assert_eq!(first, hashes());
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), first.len(), "different seeds differ");
    }
}

#[test]
fn every_canary_is_found() {
    let mut missed = Vec::new();
    for canary in Canary::ALL {
        switch(Some(canary));
        let find = |seed| run(&Plan::new(Flavour::Core, seed)).failure.map(|failure| (seed, failure));
        let found = (0..4000).find_map(find);
        switch(None);
        if let Some((seed, _)) = &found {
            check(Flavour::Core, *seed);
        }
        match found {
            Some((seed, failure)) => println!("{canary:?}: after {} runs: {failure}", seed + 1),
            None => missed.push(canary),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn a_failure_shrinks_to_the_same_few_steps_and_its_token_runs_them_again() {
    switch(Some(Canary::StaleIsDone));
    let failing = |seed| run(&Plan::new(Flavour::Core, seed)).failure.map(|failure| (seed, failure));
    let (seed, failure) = (0..100).find_map(failing).unwrap();
    let plan = Plan::new(Flavour::Core, seed);
    let shrunk = shrink(&plan, &failure, 500);
    let again = shrink(&plan, &failure, 500);
    let token: Token = shrunk.token.to_string().parse().unwrap();
    let rerun = run(&token.plan()).failure;
    switch(None);
    assert_eq!((&shrunk.plan, &shrunk.token), (&again.plan, &again.token));
    assert_eq!(token.plan(), shrunk.plan);
    assert_eq!(rerun, Some(shrunk.failure));
    assert!(shrunk.plan.steps.iter().flatten().count() <= 3, "{}", shrunk.plan);
    assert_eq!(run(&shrunk.plan).failure, None, "the mistake is switched off");
}

#[test]
fn tokens_are_refused_by_name() {
    let token = Token::of(&Plan::new(Flavour::Full, u64::MAX));
    assert_eq!(token.to_string().parse(), Ok(token.clone()));
    for bad in ["", "r1-", "r2-000", "r1-!", &token.to_string()[..9]] {
        assert_eq!(bad.parse::<Token>(), Err(BadToken(bad.to_owned())));
    }
}

#[test]
fn an_application_may_demand_more() {
    struct NoTasks;
    impl Invariant for NoTasks {
        fn check(&self, replica: &Replica<SimStore>) -> Result<(), String> {
            let kinds =
                rivus_core::store::Store::kinds(replica.store()).map_err(|error| error.to_string())?;
            if kinds.iter().any(|kind| kind == "task") { Err("there is a task".to_owned()) } else { Ok(()) }
        }
    }
    let plan = Plan::new(Flavour::Core, 0);
    let failure = run_with(&plan, &[&NoTasks]).failure.unwrap();
    assert_eq!((failure.oracle, failure.step), (Oracle::Invariant, None));
}
