//! What is shipped to run a hub with uses options and variables that there are.

use std::collections::BTreeSet;

use clap::{CommandFactory, Parser};

use super::settings::Serve;
use crate::args::{Arguments, Command, Global};

const UNIT: &str = include_str!("../../../../packaging/rivus.service");
const DOCKERFILE: &str = include_str!("../../../../packaging/Dockerfile");
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/hub.toml");

fn parse(words: &[&str]) -> Arguments {
    Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn setting<'t>(text: &'t str, name: &str) -> &'t str {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap()
}

/// The words of a list in JSON after an instruction, which may follow others on its line.
fn list(instruction: &str) -> Vec<String> {
    let line = DOCKERFILE.lines().find(|line| line.trim_start().starts_with(instruction)).unwrap();
    serde_json::from_str(&line[line.find('[').unwrap()..]).unwrap()
}

#[test]
fn the_unit_starts_what_the_program_understands_and_reloads_it() {
    let words: Vec<&str> = setting(UNIT, "ExecStart").split(' ').collect();
    let Command::Serve(serve) = parse(&words).command else { panic!("{words:?}") };
    assert!(serve.config.is_some());
    let check: Vec<&str> = setting(UNIT, "ExecStartPre").split(' ').collect();
    let Command::Serve(serve) = parse(&check).command else { panic!("{check:?}") };
    assert!(serve.check_config);
    assert_eq!(setting(UNIT, "ExecReload"), "/bin/kill -HUP $MAINPID");
    // The manager waits longer than the hub does.
    assert_eq!(setting(UNIT, "TimeoutStopSec"), "30");
}

#[test]
fn the_image_runs_and_checks_what_the_program_understands() {
    let command = [list("ENTRYPOINT"), list("CMD [\"serve")].concat();
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    assert!(matches!(parse(&words).command, Command::Serve(_)));
    let health = list("CMD [\"rivus\", \"health");
    let words: Vec<&str> = health.iter().map(String::as_str).collect();
    assert!(matches!(parse(&words).command, Command::Health { .. }));
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut command = Arguments::command();
    command.build();
    let serve = command.find_subcommand("serve").unwrap();
    known.extend(serve.get_arguments().filter_map(|a| Some(a.get_env()?.to_str()?.to_owned())));
    let used: Vec<&str> = DOCKERFILE
        .split(|c: char| !c.is_ascii_uppercase() && c != '_')
        .filter(|word| word.starts_with("RIVUS_"))
        .collect();
    assert!(used.len() > 2 && used.iter().all(|name| known.contains(*name)), "{used:?}");
}

#[test]
fn the_example_of_a_configuration_is_understood() {
    let mut serve = Serve { config: Some(CONFIG.into()), ..Serve::default() };
    let mut global = Global::default();
    serve.read_file(&mut global).unwrap();
    assert!(serve.admin.is_some() && serve.listen.is_some());
    assert!(serve.grants.is_empty() && serve.open.is_none(), "nobody gets in as it is shipped");
}
