//! What is said to people and programs: nothing but what is true, and where programs read along, nothing but JSON.

use super::{Place, Ran, lines, two_devices};

const OTHER: &str = "[kinds.task.fields]\ntitle = { type = \"counter\" }\n";

#[test]
fn a_sync_that_comes_to_nothing_says_so_alone() {
    let place = Place::new();
    place.write("other.toml", OTHER);
    let (hub, url) = two_devices(&place);
    for command in ["sync", "live"] {
        let ran = place.run(&["--db", "c.db", "--schema", "other.toml", command, &url]);
        assert!(ran.code == 1 && ran.err.contains("SCHEMA"), "{}", ran.err);
        assert!(!ran.out.contains("synced") && !ran.out.contains("digests"), "{}", ran.out);
        assert!(!ran.out.contains("trying again") && !ran.out.contains("SCHEMA"), "{}", ran.out);
    }
    hub.end();
}

#[test]
fn what_was_written_before_the_first_meeting_is_told_as_brought() {
    let place = Place::new();
    let hub = place.start(&["--db", "hub.db", "serve", "--listen", "127.0.0.1:0"]);
    let url = hub.next()["url"].as_str().unwrap().to_owned();
    place.ok(&["put", "task", "t1", "title=x"]);
    assert!(place.ok(&["status"]).contains("holds        1 entity in 2 registers\n"));
    let told = place.ok(&["sync", &url]);
    assert!(told.contains("brought   2 registers written before the first meeting\n"), "{told}");
    assert!(!place.ok(&["sync", &url]).contains("brought"));
    hub.end();
}

#[test]
fn standard_error_is_json_where_output_is_and_has_no_log_that_nobody_asked_for() {
    let place = Place::new();
    let (hub, url) = two_devices(&place);
    let differ = || {
        let file = rivus::rusqlite::Connection::open(place.path().join("a.db")).unwrap();
        assert_eq!(file.execute("UPDATE head SET confirmed = zeroblob(16)", []).unwrap(), 1);
    };
    let sync = ["--json", "--db", "a.db", "--schema", "schema.toml", "sync", &url];
    differ();
    let ran = place.run(&sync);
    assert_eq!((lines(&ran.out)[0]["diverged"].as_bool(), ran.err.as_str()), (Some(true), ""));
    differ();
    let logged = Ran::of(place.command(&sync).env("RUST_LOG", "error").output().unwrap());
    assert!(lines(&logged.err)[0]["fields"]["message"].as_str().unwrap().contains("digests differ"));
    hub.end();
}

#[test]
fn a_database_that_a_failed_sync_made_is_mentioned() {
    let place = Place::new();
    let sync = ["--db", "new.db", "sync", "ws://127.0.0.1:1"];
    assert_eq!(place.run(&sync).notes, "note: new.db was made, and nothing is in it yet\n");
    assert_eq!(place.run(&sync).notes, "");
}

#[test]
fn errors_name_the_options_that_help() {
    let place = Place::new();
    let with = ["--schema", "schema.toml", "put", "task", "t1"];
    let put = |field: &str| place.fails(1, &[&with[..], &[field]].concat());
    assert!(put("views=3").contains("--inc views=N"));
    assert!(put("tags=a").contains("--add tags=KEY, --remove tags=KEY"));
    let hub = place.start(&["--db", "hub.db", "serve", "--listen", "127.0.0.1:0", "--grant", "secret=5"]);
    let url = hub.next()["url"].as_str().unwrap().to_owned();
    assert!(place.fails(1, &["sync", &url]).contains("--token or in RIVUS_TOKEN"));
    assert_eq!(place.ok(&["--db", "hub.db", "leases"]), "no leases: no database has connected to this one\n");
    hub.end();
}

#[test]
fn wrong_usage_has_its_exit_code_and_makes_nothing() {
    let place = Place::new();
    assert!(place.fails(2, &["put", "task", "", "title=x"]).contains("the id is empty"));
    assert!(!place.path().join("rivus.db").exists());
    for address in ["127.0.0.1", "127.0.0.1:", ":7171", "127.0.0.1:70000"] {
        let told = place.fails(2, &["serve", "--listen", address]);
        assert!(told.contains(&format!("--listen {address} is no address")), "{told}");
        place.fails(2, &["health", "--admin", address]);
    }
    let usage = place.ok(&["put", "--help"]);
    assert!(usage.contains("Usage: rivus put [OPTIONS] <KIND> <ID> [FIELD=VALUE]..."), "{usage}");
}

#[cfg(unix)]
#[test]
fn an_import_that_finds_no_room_does_not_blame_the_file() {
    let place = Place::new();
    let line = |n: usize| format!("{{\"id\":\"{n}\",\"text\":\"{}\"}}\n", "x".repeat(1000));
    place.write("a.jsonl", &(0..3000).map(line).collect::<String>());
    place.ok(&["put", "k", "first", "text=x"]);
    // Files of at most 1 MiB.
    let script =
        format!("trap '' XFSZ; ulimit -f 2048; exec {} import a.jsonl --kind k", env!("CARGO_BIN_EXE_rivus"));
    let mut command = std::process::Command::new("sh");
    let ran = Ran::of(command.args(["-c", &script]).current_dir(place.path()).output().unwrap());
    assert!(ran.code == 1 && ran.err.contains("the store is full"), "{}", ran.err);
    assert!(ran.err.contains("then import it again") && !ran.err.contains("mend"), "{}", ran.err);
}
