//! A bounded share of `rivus-test-crash`: the rest runs by hand, as docs/testing.md says.

use std::path::PathBuf;

use rivus_sqlite::Synchronous;
use rivus_tests::crash::campaign::{Campaign, SEED};
use rivus_tests::random::seed;

fn campaign(synchronous: Synchronous) -> Campaign {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_rivus-test-crash"));
    let seed = seed(SEED);
    println!("RIVUS_TEST_SEED={seed}");
    Campaign { program, seed, synchronous }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod traced {
    use rivus_tests::crash::campaign::{Patience, Tally};

    use super::*;

    fn quiet(_: usize, _: usize) {}

    #[test]
    fn a_writer_killed_at_any_call_leaves_what_it_acknowledged() {
        let Tally { points, ahead, .. } = campaign(Synchronous::Full).kill(17, &mut quiet).unwrap();
        assert!(
            points >= 100 && ahead > 0,
            "{points} points, {ahead} of them between commit and acknowledgement"
        );
    }

    #[test]
    fn a_loss_of_power_leaves_what_was_acknowledged() {
        let tally = campaign(Synchronous::Full).power(1000, &mut quiet).unwrap();
        assert!(tally.lossy > 500 && tally.behind == 0, "{tally:?}");
    }

    #[test]
    fn without_syncing_each_commit_a_loss_of_power_leaves_a_whole_state_of_the_past() {
        let tally = campaign(Synchronous::Normal).power(400, &mut quiet).unwrap();
        assert!(tally.behind > 50, "{tally:?}: the last commits may be lost, so some are");
    }

    #[test]
    fn without_syncing_at_all_a_loss_of_power_is_found() {
        let found = campaign(Synchronous::Off).power(400, &mut quiet).unwrap_err();
        let text = format!("{found:#}");
        assert!(text.contains("no state that ever was") || text.contains("damaged"), "{text}");
    }

    #[test]
    fn a_failing_disk_is_reported_and_loses_nothing() {
        let tally = campaign(Synchronous::Full).fail(43, &mut quiet).unwrap();
        assert!(tally.reported > tally.absorbed && tally.points > 50, "{tally:?}");
    }

    #[test]
    fn a_lock_held_by_another_is_waited_for_or_reported() {
        let full = campaign(Synchronous::Full);
        let none = full.busy(29, Patience::None, &mut quiet).unwrap();
        assert!(none.reported > 0, "{none:?}");
        let some = full.busy(43, Patience::Some, &mut quiet).unwrap();
        assert!(some.absorbed == some.points && some.points > 10, "{some:?}");
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[test]
fn what_needs_system_calls_to_be_seen_runs_on_linux_on_x86_64_only() {
    let campaign = campaign(Synchronous::Full);
    eprintln!("kills at each call, losses of power and failing calls are not tested here");
    // The oracle itself is: it needs no other process.
    let oracle = rivus_tests::crash::oracle::Oracle::new(campaign.seed).unwrap();
    assert!(oracle.steps.len() > 50);
}
