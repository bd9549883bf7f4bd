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

/// Every value of a setting that may be there several times.
fn settings<'t>(text: &'t str, name: &'t str) -> impl Iterator<Item = &'t str> {
    text.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix('='))
}

/// The variables that `serve` knows.
fn variables() -> BTreeSet<String> {
    let mut command = Arguments::command();
    command.build();
    let serve = command.find_subcommand("serve").unwrap();
    serve.get_arguments().filter_map(|a| Some(a.get_env()?.to_str()?.to_owned())).collect()
}

/// The names of variables in a text.
fn named(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    words.filter(|word| word.starts_with("RIVUS_")).collect()
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
    let (known, used) = (variables(), named(DOCKERFILE));
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

/// What is written in the example of a configuration, in comments too.
fn example(key: &str) -> String {
    let text = std::fs::read_to_string(CONFIG).unwrap();
    let line =
        text.lines().find_map(|line| line.trim_start_matches("# ").strip_prefix(key)?.strip_prefix(" = "));
    line.unwrap().trim_matches('"').to_owned()
}

#[test]
fn the_unit_and_the_example_agree_on_paths_times_and_variables() {
    // The program may write in one folder alone, and that is where the database is.
    assert_eq!((setting(UNIT, "ProtectSystem"), settings(UNIT, "ReadWritePaths").count()), ("strict", 0));
    let data = format!("/var/lib/{}/", setting(UNIT, "StateDirectory"));
    assert!(example("db").starts_with(&data), "{data}");
    assert_eq!(format!("{}/", setting(UNIT, "WorkingDirectory")), data);
    let config = format!("/etc/{}/", setting(UNIT, "ConfigurationDirectory"));
    for name in ["ExecStart", "ExecStartPre"] {
        let mut words = setting(UNIT, name).split(' ');
        assert_eq!(words.next(), Some("/usr/bin/rivus"), "{name}");
        assert!(words.any(|word| word.starts_with(&config)), "{name}");
    }
    assert!(setting(UNIT, "EnvironmentFile").trim_start_matches('-').starts_with(&config));
    // The manager waits longer than the hub does.
    let seconds = |text: &str| text.parse::<u32>().unwrap();
    let needs = seconds(&example("announce")) + seconds(&example("drain"));
    assert!(seconds(setting(UNIT, "TimeoutStopSec")) > needs);
    // In comments too: whoever reads them copies them.
    let (known, used) = (variables(), named(UNIT));
    assert!(!used.is_empty() && used.iter().all(|name| known.contains(*name)), "{used:?}");
    for pair in settings(UNIT, "Environment") {
        let (name, _) = pair.split_once('=').unwrap();
        assert!(name == "RUST_LOG" || known.contains(name), "{name}");
    }
}

/// What the image sets, as the variables that the program would see.
fn environment() -> Vec<(String, String)> {
    let begin = DOCKERFILE.find("ENV ").unwrap() + 4;
    let end = begin + DOCKERFILE[begin..].find("EXPOSE").unwrap();
    let pairs = DOCKERFILE[begin..end].split_whitespace().filter(|word| *word != "\\");
    pairs.map(|pair| pair.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap()).collect()
}

#[test]
fn the_image_has_its_data_in_its_volume_its_port_open_and_its_program_where_it_is_built() {
    let instruction = |name: &str| {
        let line = DOCKERFILE.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().to_owned()
    };
    let environment = environment();
    let value = |name: &str| {
        let pair = environment.iter().find(|(known, _)| known == name);
        pair.map(|(_, value)| value.clone()).unwrap_or_else(|| panic!("{name} is not set"))
    };
    assert!(value("RIVUS_DB").starts_with(&format!("{}/", instruction("VOLUME"))));
    let folder = DOCKERFILE.lines().filter_map(|line| line.strip_prefix("WORKDIR ")).next_back();
    assert_eq!(folder, Some(instruction("VOLUME").as_str()));
    let port = |address: String| address.rsplit_once(':').unwrap().1.to_owned();
    assert_eq!(port(value("RIVUS_LISTEN")), instruction("EXPOSE"));
    // `rivus health` asks where the hub tells without being told.
    let mut health = Arguments::command();
    health.build();
    let health = health.find_subcommand("health").unwrap();
    let asks = health.get_arguments().find(|a| a.get_env().is_some_and(|env| env == "RIVUS_ADMIN")).unwrap();
    assert_eq!(asks.get_default_values(), [value("RIVUS_ADMIN").as_str()]);
    // What is set is taken as options are.
    let mut words = vec!["rivus".to_owned(), "serve".to_owned()];
    for (name, value) in &environment {
        if let Some(option) = name.strip_prefix("RIVUS_") {
            words.push(format!("--{}={value}", option.to_lowercase().replace('_', "-")));
        }
    }
    assert!(words.len() > 4);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert!(matches!(parse(&words).command, Command::Serve(_)));
    // The package that is built makes the program that is copied.
    assert!(DOCKERFILE.contains(concat!("--package ", env!("CARGO_PKG_NAME"))));
    let copied = DOCKERFILE.lines().find(|line| line.starts_with("COPY --from=build")).unwrap();
    let mut paths = copied.split(' ').skip(2);
    assert_eq!((paths.next(), paths.next()), (Some("/src/target/release/rivus"), Some("/usr/bin/rivus")));
    assert_eq!(Arguments::command().get_name(), "rivus");
}
