use std::collections::BTreeSet;

use rivus::replay::{Direct, Script, StoreChoice, Transport, WebSocket};
use rivus_core::canary::{Canary, switch};

use super::*;

/// How often each rare situation must come up in the runs below.
const EACH_LEAST: u64 = 10;

fn check(seed: u64) -> Coverage {
    let plan = Plan::new(seed);
    let outcome = run(&plan);
    if let Some(failure) = outcome.failure {
        panic!("seed {seed}:\n{}", Account::of(&plan, &failure));
    }
    outcome.coverage
}

#[test]
fn histories_find_nothing_and_get_into_every_rare_situation() {
    let mut coverage = Coverage::default();
    for seed in 0..3000 {
        coverage.add(&check(seed));
    }
    println!("{coverage}");
    let rare = coverage.below(EACH_LEAST);
    assert!(rare.is_empty(), "too seldom: {rare:?}");
}

#[test]
fn what_was_found_once_is_found_no_more() {
    let tokens = [
        // One member of a group is written, the other is named as a rule shows it.
        "q1-1e9fd-0.1.2.3.4.5.6.9.10.11.12.13.14.15.16.17.18.19.20.21.22",
        "q1-3352f-0.1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16.19.20.21.22",
        // An edit that was accepted unheard is made anew where rules are not evaluated: without its claim.
        "q1-347d9a-3.6.7.8.9.10.11.12",
        "q1-347d9a-",
    ];
    for token in tokens {
        let plan = token.parse::<Token>().unwrap().plan();
        assert_eq!(run(&plan).failure, None, "{token}");
    }
}

#[test]
fn the_same_seed_shows_the_same() {
    let hashes = || (0..200).map(|seed| run(&Plan::new(seed)).trace_hash).collect::<Vec<_>>();
    let first = hashes();
    assert_eq!(first, hashes());
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), first.len(), "different seeds differ");
}

/// What `rivus replay` prints, and says on the side.
fn replayed(text: &str, store: StoreChoice, transport: &mut dyn Transport) -> (String, String) {
    let script = Script::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let (mut out, mut refused) = (Vec::new(), Vec::new());
    rivus::replay::run(&script, store, transport, &mut out, &mut refused, &mut |_, _| {}).unwrap();
    (String::from_utf8(out).unwrap(), String::from_utf8(refused).unwrap())
}

#[test]
fn scripts_with_rules_print_the_same_on_every_store_and_transport() {
    let count: u64 = crate::env::number("RIVUS_REPLAY_SCRIPTS", 40);
    let first: u64 = crate::env::number("RIVUS_SEED", 1);
    let mut websocket = WebSocket::new().unwrap();
    let (mut bytes, mut overlays) = (0, 0);
    for seed in first..first + count {
        let text = replay_script(&Plan::new(seed)).unwrap();
        let usual = replayed(&text, StoreChoice::Memory, &mut Direct);
        let others = [
            ("memory, websocket", replayed(&text, StoreChoice::Memory, &mut websocket)),
            ("sqlite, direct", replayed(&text, StoreChoice::Sqlite, &mut Direct)),
            ("sqlite, websocket", replayed(&text, StoreChoice::Sqlite, &mut websocket)),
        ];
        for (how, other) in others {
            assert_eq!(other, usual, "seed {seed}, {how}:\n{text}");
        }
        bytes += usual.0.len();
        overlays += usual.0.matches("\"rule\":").count();
    }
    println!("{count} scripts from seed {first}: {bytes} bytes each way, {overlays} overlays");
    assert!(overlays as u64 > count, "rules show something: {overlays}");
}

#[test]
fn tokens_are_refused_by_name() {
    let token = Token::of(&Plan::new(u64::MAX));
    assert_eq!(token.to_string().parse(), Ok(token));
    for bad in ["", "q1-", "q2-0-", "q1-x-", "q1-0-70000", "q1-0-a"] {
        assert_eq!(bad.parse::<Token>(), Err(BadToken(bad.to_owned())));
    }
}

#[test]
fn every_canary_is_found() {
    let mut missed = Vec::new();
    for canary in Canary::RULES {
        switch(Some(canary));
        let find = |seed| run(&Plan::new(seed)).failure.map(|failure| (seed, failure));
        let found = (0..2000).find_map(find);
        switch(None);
        if let Some((seed, _)) = &found {
            check(*seed);
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
    switch(Some(Canary::DeletedLeave));
    let failing = |seed| run(&Plan::new(seed)).failure.map(|failure| (seed, failure));
    let (seed, failure) = (0..200).find_map(failing).unwrap();
    let plan = Plan::new(seed);
    let shrunk = shrink(&plan, &failure, 500);
    let again = shrink(&plan, &failure, 500);
    let token: Token = shrunk.token.to_string().parse().unwrap();
    let rerun = run(&token.plan()).failure;
    switch(None);
    assert_eq!((&shrunk.plan, &shrunk.token), (&again.plan, &again.token));
    assert_eq!(token.plan(), shrunk.plan);
    assert_eq!(rerun, Some(shrunk.failure));
    assert!(shrunk.plan.steps.iter().flatten().count() <= 4, "{}", shrunk.plan);
    assert!(replay_script(&shrunk.plan).unwrap().lines().count() <= 16);
    assert_eq!(run(&shrunk.plan).failure, None, "the mistake is switched off");
}
