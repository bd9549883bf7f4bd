//! The harnesses on stable: the corpus, damaged and random bytes; and the frames that take the most memory.

use rivus_testkit::fuzz;

use super::*;

mod memory;

/// How many inputs a harness gets.
const INPUTS: usize = 20_000;

fn feed(name: &str, inputs: usize) {
    let (_, harness) = TARGETS.into_iter().find(|(target, _)| *target == name).expect("it is a target");
    let corpus = fuzz::corpus(&corpus_of(name));
    assert!(!corpus.is_empty(), "{name} has a corpus");
    println!("{name}: {} files", corpus.len());
    fuzz::run(harness, &corpus, fuzz::seed(), inputs);
}

#[test]
fn frames_of_any_bytes_are_read_or_refused() {
    feed("frame_decode", INPUTS);
}

#[test]
fn files_of_any_bytes_are_imported_or_refused() {
    feed("import_file", INPUTS);
}

#[test]
fn registers_of_any_bytes_keep_the_laws_of_the_join() {
    feed("register_join", 5 * INPUTS);
}

#[test]
fn scripts_of_any_bytes_run_or_are_refused() {
    feed("replay_script", INPUTS / 10);
}

#[test]
fn rows_of_any_bytes_are_read_or_refused() {
    feed("row", INPUTS);
}

#[test]
fn schemas_of_any_bytes_are_read_or_refused() {
    feed("schema_json", INPUTS);
    feed("schema_toml", INPUTS / 2);
}

#[test]
fn connections_of_any_bytes_leave_a_sound_store() {
    feed("session", INPUTS / 4);
}

#[test]
fn stores_do_as_their_model_does() {
    feed("store_memory", INPUTS / 4);
    feed("store_sqlite", INPUTS / 100);
}

#[test]
fn a_users_merge_keeps_its_laws() {
    feed("user_merge", INPUTS);
}

#[test]
fn values_of_any_bytes_are_read_or_refused() {
    feed("value_decode", 5 * INPUTS);
    feed("value_json", INPUTS);
}

#[test]
fn the_corpus_is_small_and_holds_the_samples() {
    let mut total = 0;
    for (target, _) in TARGETS {
        let corpus = fuzz::corpus(&corpus_of(target));
        total += corpus.iter().map(Vec::len).sum::<usize>();
        for sample in samples::of(target) {
            assert!(corpus.contains(&sample), "{target}: run `cargo run --bin write_corpus`");
        }
    }
    assert!(total < 300_000, "{total} bytes");
}

#[test]
fn each_target_has_a_program() {
    let manifest = include_str!("../Cargo.toml");
    for (target, _) in TARGETS {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
    }
}
