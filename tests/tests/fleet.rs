//! A few fleets of real processes under faults.

use std::path::Path;
use std::time::Duration;

use rivus_tests::fleet::run;
use rivus_tests::random::seed;

/// How many fleets are run.
const RUNS: u64 = 16;

#[test]
fn a_fleet_under_faults_loses_nothing_and_converges_once_it_heals() {
    let program = Path::new(env!("CARGO_BIN_EXE_rivus-test-crash"));
    let first = seed(0x5eed_0004);
    println!("RIVUS_TEST_SEED={first}");
    let (mut kills, mut open) = (0, 0);
    for seed in first..first + RUNS {
        let healed = run(program, seed).unwrap_or_else(|error| panic!("RIVUS_TEST_SEED={seed}: {error:#}"));
        assert!(healed.time < Duration::from_secs(2), "RIVUS_TEST_SEED={seed}: {healed:?}");
        if let Some(trips) = healed.trips_open {
            assert!(trips < 2.0, "RIVUS_TEST_SEED={seed}: {healed:?}");
            open += 1;
        }
        kills += healed.kills;
    }
    assert!(kills > 0 && open > 0, "{kills} kills, {open} blackouts");
}
