use super::coverage::Coverage;
use super::*;

#[test]
fn dev() {
    let var = |name: &str, or: u64| std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(or);
    let mut coverage = Coverage::default();
    let flavour = if var("FULL", 0) == 1 { Flavour::Full } else { Flavour::Core };
    let mut found: std::collections::BTreeMap<String, (usize, String)> = Default::default();
    let begin = std::time::Instant::now();
    let mut frames = 0;
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
    for seed in var("SEED", 0)..var("SEED", 0) + var("RUNS", 2000) {
        let plan = Plan::new(flavour, seed);
        let outcome = run(&plan);
        coverage.add(&outcome.coverage);
        frames += outcome.frames;
        if let Some(failure) = outcome.failure {
            let key = format!(
                "{:?} {}",
                failure.oracle,
                failure.finding.chars().filter(|c| c.is_alphabetic()).take(40).collect::<String>()
            );
            let n = found.len();
            let entry = found.entry(key).or_default();
            entry.0 += 1;
            if entry.1.is_empty() && n < 6 {
                let shrunk = shrink(&plan, &failure, var("SHRINK", 600) as usize);
                entry.1 = format!("seed {seed}: {}\n{}\n{}", shrunk.failure, shrunk.token, shrunk.plan);
            }
        }
    }
    println!("{coverage}{:?} {frames} frames", begin.elapsed());
    for (key, (count, text)) in &found {
        println!("==== {count} x {key}\n{text}");
    }
    assert!(found.is_empty());
}

#[test]
fn every_canary_is_found() {
    use rivus_core::canary::{Canary, switch};
    let mut missed = Vec::new();
    for canary in Canary::ALL {
        switch(Some(canary));
        let found = (0..4000).find_map(|seed| {
            let failure = run(&Plan::new(Flavour::Core, seed)).failure?;
            Some((seed, failure))
        });
        switch(None);
        match found {
            Some((seed, failure)) => println!("{canary:?}: {:?} after {} runs: {failure}", failure.oracle, seed + 1),
            None => missed.push(canary),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
