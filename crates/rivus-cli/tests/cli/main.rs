//! The program as people and programs use it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

mod accounts;
mod export;
#[path = "../place/mod.rs"]
mod place;
mod words;

use place::Place;

const SCHEMA: &str = r#"
[kinds.task.fields]
title = {}
owner = { margin_ms = 5000, resolver = "rank" }
tags = { type = "set" }
labels = { type = "map" }
views = { type = "counter" }
notes = { type = "multi" }
start = {}
stop = {}

[kinds.task.groups]
interval = ["start", "stop"]
"#;

struct Ran {
    code: i32,
    out: String,
    err: String,
    /// What standard error says that is no error.
    notes: String,
}

impl Place {
    fn new() -> Self {
        let place = Self::empty();
        place.write("schema.toml", SCHEMA);
        place
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// Runs what must succeed, without a word on standard error.
    fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}: {}", ran.out);
        ran.out
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[&["--json"], arguments].concat())).unwrap()
    }

    /// Runs what must fail with this code, and returns what it says.
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}{}", ran.out, ran.err);
        assert!(ran.err.starts_with("error: "), "{}", ran.err);
        let told: Value = {
            let ran = self.run(&[&["--json"], arguments].concat());
            assert_eq!(ran.code, code);
            serde_json::from_str(&ran.err).unwrap()
        };
        let message = told["error"].as_str().unwrap();
        assert!(ran.err.contains(message.lines().next().unwrap()), "{} has not {message}", ran.err);
        ran.err
    }

    fn start(&self, arguments: &[&str]) -> Running {
        Running::new(self.command(&[&["--json"], arguments].concat()))
    }
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let is_note = |line: &&str| line.starts_with("note: ") || line.starts_with("{\"note\":");
        let (notes, err): (Vec<_>, Vec<_>) = text(output.stderr)
            .split_inclusive('\n')
            .map(str::to_owned)
            .partition(|line| is_note(&line.as_str()));
        let code = output.status.code().unwrap();
        Self { code, out: text(output.stdout), err: err.concat(), notes: notes.concat() }
    }
}

/// A process that runs until it is told to end.
struct Running {
    child: Child,
    lines: Receiver<Value>,
}

impl Running {
    fn new(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines() {
                let _ = sender.send(serde_json::from_str(&line.unwrap()).unwrap());
            }
        });
        Self { child, lines }
    }

    fn next(&self) -> Value {
        self.lines.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    /// The next line that has this key.
    fn next_with(&self, key: &str) -> Value {
        loop {
            let line = self.next();
            if line.get(key).is_some() {
                return line;
            }
        }
    }

    /// Asks it to end, as service managers do, and waits until it has.
    fn end(mut self) -> (i32, Vec<Value>) {
        let done = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
        let code = self.child.wait().unwrap().code().unwrap();
        (code, self.lines.iter().collect())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_demo_ends_with_equal_digests_and_says_why_each_value_won() {
    let place = Place::new();
    let out = place.ok(&["demo"]);
    let words = out.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in [
        "offer status \"sent\" (at 12 s) \"in review\" (at 10 s) \"sent\" newer by 2 s",
        "inside the 5 s margin the higher rank",
        "newer by 8 s, beyond the 5 s margin",
        "an add wins over a",
        "6 1 before + 2 + 3",
        "a delete wins over an edit",
        "only the phone wrote it",
        "cannot be reached",
    ] {
        assert!(words.contains(said), "{said}: {out}");
    }
    let digest = |name: &str| {
        let found = out.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
        found.trim().to_owned()
    };
    assert_eq!(digest("hub  ").len(), 32);
    assert_eq!(digest("hub  "), digest("phone  "));
    assert_eq!(digest("hub  "), digest("laptop  "));
    assert_eq!(place.json(&["--db", "rivus-demo-1/laptop.db", "status"])["digest"], digest("hub  "));
    assert!(place.ok(&["demo"]).contains("rivus-demo-2"));
    assert!(place.fails(1, &["demo", "--dir", "rivus-demo-1"]).contains("exists already"));
}

#[test]
fn the_commands_that_the_demo_prints_work() {
    let place = Place::new();
    let out = place.ok(&["demo", "--dir", "it's here"]);
    let program = env!("CARGO_BIN_EXE_rivus");
    let commands: Vec<_> = out.lines().map(str::trim).filter(|line| line.starts_with(program)).collect();
    assert_eq!(commands.len(), 7);
    let ran = |command: &str| {
        let output = Command::new("sh").args(["-c", command]).current_dir(place.path()).output().unwrap();
        let ran = Ran::of(output);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{command}");
        ran.out
    };
    assert!(ran(commands[0]).contains("beside \"Bo\", rank 0"));
    assert!(ran(commands[1]).contains("offer for Ann"));
    assert!(ran(commands[2]).contains("revived"));
    assert!(ran(commands[3]).contains("written"));
    // The same, on a port that is free.
    let mut serve = Command::new("sh");
    let command = format!("exec {} --listen 127.0.0.1:0 --json", commands[4]);
    serve.args(["-c", &command]).current_dir(place.path());
    let hub = Running::new(serve);
    let url = hub.next()["url"].as_str().unwrap().to_owned();
    for command in &commands[5..] {
        assert!(ran(&command.replace("ws://127.0.0.1:7171", &url)).contains("synced with the authority"));
    }
    assert!(ran(commands[0]).contains("accepted"));
    let digest = |db: &str| place.json(&["--db", &format!("it's here/{db}"), "status"])["digest"].clone();
    assert_eq!(digest("phone.db"), digest("laptop.db"));
}

#[test]
fn the_demo_for_programs_holds_the_same_story() {
    let place = Place::new();
    let demo = place.json(&["demo"]);
    assert_eq!(demo["equal"], true);
    let rival =
        |id: &str| demo["rivals"].as_array().unwrap().iter().find(|rival| rival["id"] == id).unwrap().clone();
    assert_eq!(
        rival("call")["shown"],
        serde_json::json!(["stopped at 70 s", "stopped at 70 s", "stopped at 70 s"])
    );
    assert_eq!(rival("report")["shown"][1], "running");
    assert_eq!(rival("garden-2")["why"], "rule `one name`: garden-1 had the name first");
    assert_eq!(demo["rows"].as_array().unwrap().len(), 11);
    for row in demo["rows"].as_array().unwrap() {
        let shown = row["shown"].as_array().unwrap();
        assert!(shown.iter().all(|one| *one == shown[0]), "{row}");
        assert!(!row["why"].as_str().unwrap().is_empty());
    }
}

#[test]
fn an_entity_is_put_shown_listed_deleted_and_revived() {
    let place = Place::new();
    place.ok(&["put", "task", "t1", "title=Write it", "done=false", "size=2.5", "code=\"007\""]);
    let shown = place.json(&["show", "task", "t1"]);
    assert_eq!(shown["fields"].to_string(), r#"{"code":"007","done":false,"size":2.5,"title":"Write it"}"#);
    assert_eq!(shown["registers"].as_array().unwrap().len(), 5);
    let table = place.ok(&["show", "task", "t1"]);
    assert!(table.contains("title") && table.contains("\"Write it\"") && table.contains("written by"));
    assert!(place.ok(&["put", "task", "t1", "done=false"]).contains("nothing written"));
    place.ok(&["put", "note", "n1", "text=x"]);
    let kinds = lines(&place.ok(&["--json", "list"]));
    assert_eq!((&kinds[0]["kind"], &kinds[1]["entities"]), (&"note".into(), &1.into()));
    assert!(place.ok(&["list", "task"]).starts_with("t1  {\"code\":"));

    assert!(place.ok(&["delete", "task", "t1"]).contains("deleted"));
    assert_eq!(place.ok(&["list", "task"]), "no entities of kind `task`\n");
    assert!(place.ok(&["show", "task", "t1"]).contains("DELETED"));
    assert_eq!(place.json(&["show", "task", "t1"])["deleted"], true);
    assert!(place.fails(1, &["put", "task", "t1", "done=true"]).contains("revive it first"));
    assert!(place.fails(1, &["delete", "task", "t1"]).contains("or is deleted"));
    place.ok(&["revive", "task", "t1"]);
    assert_eq!(place.json(&["show", "task", "t1"])["fields"]["done"], false);
    assert!(place.fails(1, &["revive", "task", "t1"]).contains("not deleted"));
    assert!(place.fails(1, &["show", "task", "t2"]).contains("`t2` is not in"));
}

#[test]
fn keys_and_counters_are_edited_by_their_policy() {
    let place = Place::new();
    let with = |arguments: &[&str]| place.ok(&[&["--schema", "schema.toml"], arguments].concat());
    with(&["put", "task", "t1", "title=x", "--add", "tags=a", "--add", "tags=b", "--inc", "views=3"]);
    with(&["put", "task", "t1", "--remove", "tags=a", "--set-key", "labels.k=[1]", "--inc", "views=-1"]);
    let shown = with(&["--json", "show", "task", "t1"]);
    assert!(shown.contains(r#""fields":{"labels":{"k":[1]},"tags":["b"],"title":"x","views":2}"#), "{shown}");
    with(&["put", "task", "t1", "title=y", "--force"]);
    let forced = lines(&with(&["--json", "show", "task", "t1"]));
    let title = forced[0]["registers"].as_array().unwrap().iter().find(|r| r["name"] == "title").unwrap();
    assert!(title["candidates"][0]["stamp"].as_str().unwrap().starts_with("1."));
    let wrong = place.fails(1, &["--schema", "schema.toml", "put", "task", "t1", "views=3"]);
    assert!(wrong.contains("`put` does not fit field `views`"));
}

/// Two tasks with whatever a field can hold, and a note.
fn furnish(place: &Place) {
    for arguments in [
        &["put", "task", "t1", "title=42", "start=1", "stop=null"][..],
        &["put", "task", "t1", "title=\"42\"", "owner=\"\"", "notes={\"a\":[1.0,null,true]}"],
        &["put", "task", "t1", "--add", "tags=x y", "--add", "tags=z", "--set-key", "labels.k=1"],
        &["put", "task", "t2", "title=a, \"b\"\nc", "owner=null", "--inc", "views=-7"],
        &["put", "task", "t3", "title=gone"],
        &["delete", "task", "t3"],
    ] {
        place.ok(&[&["--db", "one.db", "--schema", "schema.toml"], arguments].concat());
    }
}

#[test]
fn what_is_exported_and_imported_shows_the_same_in_every_format() {
    let place = Place::new();
    furnish(&place);
    let schema = ["--schema", "schema.toml"];
    let json = place.ok(&[&["--db", "one.db"], &schema[..], &["export"]].concat());
    assert!(json.contains(r#""t1":{"labels":{"k":1},"notes":[{"a":[1.0,null,true]}],"owner":"","start":1,"#));
    for (file, infer) in [("all.json", None), ("all.jsonl", None), ("all.csv", Some("--infer"))] {
        place.ok(&[&["--db", "one.db"], &schema[..], &["export", "task", "-o", file]].concat());
        let db = format!("{file}.db");
        let mut import = vec!["--db", &db, "import", file, "--kind", "task"];
        import.extend(schema.iter().chain(&infer));
        assert!(place.ok(&import).contains("imported 2 entities"));
        assert_eq!(place.ok(&[&["--db", &db], &schema[..], &["export"]].concat()), json, "{file}");
        let before = place.json(&["--db", &db, "status"]);
        place.ok(&import);
        assert_eq!(place.json(&["--db", &db, "status"]), before, "{file} was written twice");
    }
    let left: Vec<_> =
        std::fs::read_dir(place.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("rivus-export")), "{left:?}");
}

#[test]
fn csv_cells_are_text_unless_told_otherwise_and_empty_ones_change_nothing() {
    let place = Place::new();
    place.write("p.csv", "\u{feff}mail,age,name\na@x,7,\nb@x,,\"\"\"Bo\"\"\"\n");
    place.ok(&["import", "p.csv", "--kind", "person", "--id", "mail"]);
    let listed = place.ok(&["list", "person"]);
    assert_eq!(listed, "a@x  {\"age\":\"7\"}\nb@x  {\"name\":\"\\\"Bo\\\"\"}\n");
    place.ok(&["import", "p.csv", "--kind", "person", "--id", "mail", "--infer"]);
    assert_eq!(place.ok(&["list", "person"]), "a@x  {\"age\":7}\nb@x  {\"name\":\"Bo\"}\n");
}

#[test]
fn flat_objects_take_kind_and_id_from_the_options_or_get_new_ids() {
    let place = Place::new();
    place.write("a.json", "\u{feff}[{\"id\":7,\"n\":1},{\"n\":2},{\"id\":null,\"n\":3}]");
    place.ok(&["import", "a.json", "--kind", "k"]);
    let listed = lines(&place.ok(&["--json", "list", "k"]));
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().any(|one| one["id"] == "7" && one["fields"]["n"] == 1));
    assert!(listed.iter().filter(|one| one["id"].as_str().unwrap().len() == 36).count() == 2);
    assert!(place.fails(1, &["import", "a.json"]).contains("entry 1: the object does not say its kind"));
    let mut command = place.command(&["import", "-", "--format", "jsonl"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let line = b"{\"kind\":\"k\",\"id\":\"s\",\"fields\":{\"n\":4}}\n";
    child.stdin.take().unwrap().write_all(line).unwrap();
    assert_eq!(Ran::of(child.wait_with_output().unwrap()).code, 0);
    assert_eq!(place.json(&["show", "k", "s"])["fields"]["n"], 4);
}

#[test]
fn an_import_stops_at_a_bad_line_and_keeps_whole_transactions_only() {
    let place = Place::new();
    let line = |n: usize| match n {
        2400 => "{\"id\":\"x\",\"n\":}\n".to_owned(),
        _ => format!("{{\"id\":\"{n}\",\"n\":{n}}}\n"),
    };
    place.write("a.jsonl", &(1..=2500).map(line).collect::<String>());
    let told = place.fails(1, &["import", "a.jsonl", "--kind", "k"]);
    assert!(told.contains("line 2400: ") && told.contains("2000 entities before that went in"), "{told}");
    assert_eq!(place.json(&["status"])["entities"], 2000);

    place.write("b.csv", "id,n\na,1\nb,2,3\n");
    let told = place.fails(1, &["import", "b.csv", "--kind", "k"]);
    assert!(told.contains("line 3: 3 cells where the header has 2; 0 entities"), "{told}");
    place.write("c.json", "{\"k\":{\"a\":{\"n\":1},\"b\":{\"n\":1,\"n\":2}}}");
    let told = place.fails(1, &["import", "c.json"]);
    assert!(told.contains("entry 2: field `n` is there twice"), "{told}");
    place.write("d.jsonl", "{\"id\":\"a\"}\n{\"id\":\"b\",\"tags\":[1]}\n");
    let told = place.fails(1, &["--schema", "schema.toml", "import", "d.jsonl", "--kind", "task"]);
    assert!(told.contains("line 2: field `tags` is a set: give a list of texts"), "{told}");
    place.write("e.jsonl", "{\"id\":\"a\"}\n{\"id\":\"b\",\"other\":1}\n");
    let told = place.fails(1, &["--schema", "schema.toml", "import", "e.jsonl", "--kind", "task"]);
    assert!(told.contains("line 2: kind `task` has no field `other`"), "{told}");
    assert!(place.fails(2, &["import", "f.txt"]).contains("--format"));
    assert!(place.fails(1, &["import", "f.json"]).contains("f.json cannot be read"));
}

#[test]
fn a_transaction_of_too_many_registers_is_made_in_parts() {
    let place = Place::new();
    let tags = |n: usize| (0..30_000).map(|tag| format!("\"{n}{tag}\"")).collect::<Vec<_>>().join(",");
    let line = |n: usize| format!("{{\"id\":\"{n}\",\"tags\":[{}]}}\n", tags(n));
    place.write("a.jsonl", &(0..3).map(line).collect::<String>());
    place.ok(&["--schema", "schema.toml", "import", "a.jsonl", "--kind", "task"]);
    assert_eq!(place.json(&["status"])["registers"], 90_003);
}

#[test]
fn failures_say_what_to_do_and_have_their_exit_code() {
    let place = Place::new();
    assert!(place.fails(1, &["list"]).contains("there is no database at rivus.db"));
    place.write("junk.db", &"junk ".repeat(2000));
    assert!(place.fails(1, &["--db", "junk.db", "list"]).contains("not a Rivus store"));
    assert_eq!(std::fs::read_to_string(place.path().join("junk.db")).unwrap(), "junk ".repeat(2000));
    assert!(place.fails(1, &["--db", "no/such.db", "put", "k", "i", "f=1"]).contains("there is no folder"));

    place.write("bad.toml", "[kinds.task.fields]\ntitle = { typ = \"set\" }\n");
    let told = place.fails(1, &["--schema", "bad.toml", "put", "task", "t1", "title=x"]);
    assert!(told.contains("schema bad.toml: ") && told.contains("typ"), "{told}");
    assert!(place.fails(1, &["--schema", "no.toml", "list"]).contains("no database"));
    assert!(place.fails(1, &["--schema", "no.toml", "put", "k", "i", "f=1"]).contains("cannot be read"));
    assert!(place.fails(1, &["--schema", "schema.xml", "put", "k", "i", "f=1"]).contains(".toml or .json"));
    let told = place.fails(1, &["--schema", "schema.toml", "put", "other", "t1", "title=x"]);
    assert!(told.contains("kind `other` is not declared"));
    assert_eq!(place.json(&["--schema", "schema.toml", "status"])["entities"], 0);

    let told = place.fails(1, &["sync", "ws://127.0.0.1:1"]);
    assert!(told.contains("cannot be reached") && told.contains("is the hub running"));
    assert!(place.fails(1, &["sync", "http://127.0.0.1:1"]).contains("ws://HOST:PORT"));
    assert!(place.fails(1, &["live", "http://127.0.0.1:1"]).contains("ws://HOST:PORT"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert!(place.fails(1, &["serve", "--listen", &address]).contains("choose another port"));

    for usage in [
        &["put", "task", "t1"][..],
        &["put", "task", "t1", "title"],
        &["put", "task", "t1", "n=99999999999999999999"],
        &["put", "task", "t1", "--inc", "n=x"],
        &["serve", "--listen", "0.0.0.0:0"],
        &["serve", "--grant", "secret"],
        &["export", "--format", "csv"],
        &["import", "a.csv"],
        &["nonsense"],
        &[],
    ] {
        let told = place.run(usage);
        assert_eq!(told.code, 2, "{usage:?}: {}", told.err);
    }
    let told = place.fails(2, &["serve", "--listen", "0.0.0.0:0"]);
    assert!(told.contains("--grant TOKEN=RANK"), "{told}");
}

#[test]
fn two_files_sync_through_a_hub_that_wants_a_token() {
    let place = Place::new();
    place.ok(&["--db", "a.db", "put", "task", "t1", "title=from a"]);
    let hub = place.start(&["--db", "hub.db", "serve", "--listen", "127.0.0.1:0", "--grant", "secret=5"]);
    let url = hub.next()["url"].as_str().unwrap().to_owned();

    assert!(place.fails(1, &["--db", "b.db", "sync", &url]).contains("token"));
    assert!(place.fails(1, &["--db", "b.db", "sync", &url, "--token", "guess"]).contains("token"));
    let text = place.ok(&["--db", "a.db", "sync", &url, "--token", "secret"]);
    assert!(text.contains("synced with the authority"), "{text}");
    let mut command = place.command(&["--json", "--db", "b.db", "sync", &url]);
    let report = Ran::of(command.env("RIVUS_TOKEN", "secret").output().unwrap());
    let report: Value = serde_json::from_str(&report.out).unwrap();
    assert_eq!((&report["is_authority"], &report["pulled"]["received"]), (&true.into(), &2.into()));
    assert_eq!(place.json(&["--db", "b.db", "show", "task", "t1"])["fields"]["title"], "from a");
    let (a, b) = (place.json(&["--db", "a.db", "status"]), place.json(&["--db", "b.db", "status"]));
    assert_eq!((&a["digest"], &b["authority"]["rank"]), (&b["digest"], &5.into()));

    let (code, last) = hub.end();
    assert_eq!((code, &last[0]["stopped"], &last[0]["digest"]), (0, &true.into(), &a["digest"]));
    assert!(place.fails(1, &["--db", "a.db", "sync", &url]).contains("cannot be reached"));
}

#[test]
fn what_is_evicted_is_at_the_hub_and_fetched_again() {
    let place = Place::new();
    let hub = place.start(&["--db", "hub.db", "serve", "--listen", "127.0.0.1:0"]);
    let url = hub.next()["url"].as_str().unwrap().to_owned();
    place.ok(&["--db", "a.db", "put", "task", "t1", "title=long done", "notes=n"]);
    assert!(place.fails(1, &["--db", "a.db", "evict", "task", "t1"]).contains("synced with its hub"));
    place.ok(&["--db", "a.db", "sync", &url]);
    let digest = place.json(&["--db", "a.db", "status"])["digest"].clone();
    let evicted = place.json(&["--db", "a.db", "evict", "task", "t1"]);
    assert_eq!((&evicted["evicted"], &evicted["registers"]), (&1.into(), &2.into()));
    let status = place.json(&["--db", "a.db", "status"]);
    assert_eq!((&status["digest"], &status["entities"], &status["evicted"]), (&digest, &0.into(), &1.into()));
    assert!(place.ok(&["--db", "a.db", "status"]).contains("1 entity more at the hub, with 2 registers"));
    assert!(place.fails(1, &["--db", "a.db", "put", "task", "t1", "title=x"]).contains("fetch it first"));
    assert!(place.ok(&["--db", "a.db", "verify"]).contains(digest.as_str().unwrap()));
    let fetched = place.json(&["--db", "a.db", "fetch", &url, "task", "t1", "t2"]);
    assert_eq!((&fetched["entities"], &fetched["missing"][0][1]), (&1.into(), &"t2".into()));
    assert_eq!(place.json(&["--db", "a.db", "show", "task", "t1"])["fields"]["title"], "long done");
    hub.end();
}

#[test]
fn what_is_deleted_for_everybody_is_forgotten_and_leases_are_listed_and_ended() {
    let place = Place::new();
    let hub = place.start(&["--db", "hub.db", "serve", "--listen", "127.0.0.1:0", "--collect", "0"]);
    let url = hub.next()["url"].as_str().unwrap().to_owned();
    place.ok(&["--db", "a.db", "put", "task", "t1", "title=x", "notes=n"]);
    place.ok(&["--db", "a.db", "put", "task", "t2", "title=y"]);
    assert!(place.fails(1, &["--db", "a.db", "collect"]).contains("only an authority collects"));
    place.ok(&["--db", "a.db", "sync", &url]);
    place.ok(&["--db", "b.db", "sync", &url]);
    place.ok(&["--db", "a.db", "delete", "task", "t1"]);
    place.ok(&["--db", "a.db", "sync", &url]);
    let dry = ["--db", "hub.db", "collect", "--grace", "0", "--dry-run"];
    assert!(place.ok(&dry).contains("0 entities would be forgotten"), "the other one is waited for");
    assert!(place.ok(&["--db", "hub.db", "status"]).contains("2 running, 0 ended"));
    let listed = place.ok(&["--json", "--db", "hub.db", "leases"]);
    let leases: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let late = place.json(&["--db", "b.db", "status"])["store"].clone();
    let late = late.as_str().unwrap();
    assert!(leases.iter().any(|lease| lease["store"] == late && lease["behind"] != 0), "{leases:?}");
    assert!(place.fails(1, &["--db", "hub.db", "leases", "--end", "0"]).contains("no lease of store 0"));
    place.ok(&["--db", "hub.db", "leases", "--end", late]);
    assert!(place.ok(&dry).contains("task `t1`"));
    let kept = place.json(&["--db", "hub.db", "collect"]);
    assert_eq!(kept["entities"], 0, "not before 30 days");
    let done = place.json(&["--db", "hub.db", "collect", "--grace", "0"]);
    assert_eq!((&done["entities"], &done["registers"]), (&1.into(), &3.into()));
    for name in ["a.db", "b.db"] {
        place.ok(&["--db", name, "sync", &url]);
    }
    let digest = place.json(&["--db", "hub.db", "status"])["digest"].clone();
    for name in ["hub.db", "a.db", "b.db"] {
        assert!(place.ok(&["--db", name, "verify"]).contains(digest.as_str().unwrap()), "{name}");
    }
    assert_eq!(place.json(&["--db", "hub.db", "collect", "--grace", "0"])["forgotten"], 1);
    assert_eq!(hub.end().0, 0);
}

#[test]
fn a_live_connection_tells_what_comes_and_sends_what_other_processes_write() {
    let place = Place::new();
    let hub = place.start(&["--db", "hub.db", "serve", "--listen", "127.0.0.1:0"]);
    let url = hub.next()["url"].as_str().unwrap().to_owned();
    let live = place.start(&["--db", "a.db", "live", &url]);
    while live.next_with("state")["state"] != "synced" {}

    place.ok(&["--db", "b.db", "put", "task", "t1", "title=from b"]);
    place.ok(&["--db", "b.db", "sync", &url]);
    let changed = live.next_with("changed");
    let expected = r#"{"id":"t1","kind":"task","origin":"remote"}"#;
    assert_eq!(changed["changed"], serde_json::from_str::<Value>(expected).unwrap());
    assert_eq!(place.json(&["--db", "a.db", "show", "task", "t1"])["fields"]["title"], "from b");

    let watch = place.start(&["--db", "c.db", "live", &url]);
    assert_eq!(watch.next_with("changed")["changed"]["id"], "t1");
    place.ok(&["--db", "a.db", "put", "task", "t2", "title=from a"]);
    assert_eq!(watch.next_with("changed")["changed"]["id"], "t2");

    let (code, last) = live.end();
    assert_eq!((code, &last.last().unwrap()["state"]), (0, &"closed".into()));
    // The hub's end of it is told as a state, and the client goes on trying.
    assert_eq!(hub.end().0, 0);
    while watch.next_with("state")["state"] != "waiting" {}
    assert_eq!(watch.end().0, 0);
}

#[test]
fn of_two_live_commands_on_one_file_one_connects_and_the_other_takes_over() {
    let place = Place::new();
    let hub = place.start(&["--db", "hub.db", "serve", "--listen", "127.0.0.1:0"]);
    let url = hub.next()["url"].as_str().unwrap().to_owned();
    let first = place.start(&["--db", "a.db", "live", &url]);
    while first.next_with("state")["state"] != "synced" {}
    let second = place.start(&["--db", "a.db", "live", &url]);
    while second.next_with("state")["state"] != "following" {}

    place.ok(&["--db", "hub.db", "put", "task", "t1", "title=from the hub's file"]);
    assert_eq!(first.next_with("changed")["changed"]["origin"], "remote");
    assert_eq!(second.next_with("changed")["changed"]["origin"], "other-process");
    assert_eq!(first.end().0, 0);
    while second.next_with("state")["state"] != "synced" {}
    assert_eq!(second.end().0, 0);
    assert_eq!(hub.end().0, 0);
}

#[test]
fn a_replay_prints_the_same_on_every_store_and_transport() {
    let place = Place::new();
    place.write(
        "s.jsonl",
        r#"{"rivus":"replay/1","schema":{"kinds":{"task":{"fields":{"title":{}}}}}}
{"do":"replica","name":"a"}
{"do":"replica","name":"b"}
{"do":"put","on":"a","at":1000,"kind":"task","id":"t1","set":{"title":"x"}}
{"do":"put","on":"b","at":2000,"kind":"task","id":"t1","set":{"title":"y"}}
{"do":"revive","on":"b","kind":"task","id":"t1"}
{"do":"converge"}
"#,
    );
    let mut outputs = Vec::new();
    for store in ["memory", "sqlite"] {
        for transport in ["direct", "websocket"] {
            let ran = place.run(&["replay", "s.jsonl", "--store", store, "--transport", transport]);
            assert_eq!(ran.code, 0, "{}", ran.err);
            assert!(ran.err.starts_with("line 6: refused: task `t1` is not deleted\n"), "{}", ran.err);
            assert_eq!(lines(&ran.out)[1]["view"]["task"]["t1"]["title"], "y");
            outputs.push(ran.out);
        }
    }
    outputs.dedup();
    assert_eq!(outputs.len(), 1);

    place.write("bad.jsonl", "{\"rivus\":\"replay/2\",\"schema\":{\"kinds\":{}}}\n");
    assert!(place.fails(1, &["replay", "bad.jsonl"]).contains("bad.jsonl: line 1: "));
    assert!(place.fails(1, &["replay", "none.jsonl"]).contains("cannot be read"));
}

#[test]
fn completions_and_help_are_there_for_everything() {
    let place = Place::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(place.ok(&["completions", shell]).contains("import"), "{shell}");
    }
    let help = place.ok(&["--help"]);
    assert!(help.contains("rivus demo") && help.contains("Exit codes"));
    for command in [
        "demo",
        "put",
        "show",
        "list",
        "explain",
        "conflicts",
        "overlays",
        "accounts",
        "disown",
        "delete",
        "revive",
        "status",
        "import",
        "export",
        "serve",
        "health",
        "sync",
        "live",
        "replay",
        "verify",
        "repair",
        "backup",
        "restore",
        "completions",
    ] {
        assert!(place.ok(&[command, "--help"]).contains("Example"), "{command}");
    }
    assert!(place.ok(&["--version"]).starts_with("rivus "));
}

#[test]
fn a_pipe_that_closes_early_ends_the_program_quietly() {
    let place = Place::new();
    // More than a pipe holds, so that the program is still writing when it closes.
    let line = |n: usize| format!("{{\"id\":\"{n}\",\"text\":\"{}\"}}\n", "x".repeat(1000));
    place.write("a.jsonl", &(0..500).map(line).collect::<String>());
    place.ok(&["import", "a.jsonl", "--kind", "k"]);
    for arguments in [
        &["list", "k"][..],
        &["export"],
        &["export", "--format", "jsonl"],
        &["export", "k", "--format", "csv"],
    ] {
        let mut command = place.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
    }
}

/// Two devices that have synced through a hub, and its address.
fn two_devices(place: &Place) -> (Running, String) {
    let hub = place.start(&["--db", "hub.db", "--schema", "schema.toml", "serve", "--listen", "127.0.0.1:0"]);
    let url = hub.next()["url"].as_str().unwrap().to_owned();
    on(place, "a", &["put", "task", "t1", "title=old", "start=1", "stop=null"]);
    for name in ["a", "b"] {
        on(place, name, &["sync", &url]);
    }
    (hub, url)
}

fn on(place: &Place, name: &str, arguments: &[&str]) -> String {
    let db = format!("{name}.db");
    place.ok(&[&["--db", &db, "--schema", "schema.toml"], arguments].concat())
}

fn json_on(place: &Place, name: &str, arguments: &[&str]) -> Vec<Value> {
    lines(&on(place, name, &[&["--json"], arguments].concat()))
}

#[test]
fn a_lost_write_is_listed_restored_and_dismissed() {
    let place = Place::new();
    let (_hub, url) = two_devices(&place);
    on(&place, "a", &["put", "task", "t1", "title=mine"]);
    on(&place, "b", &["put", "task", "t1", "title=theirs"]);
    on(&place, "b", &["sync", &url]);
    on(&place, "a", &["sync", &url]);
    // Whoever wrote last has won.
    let lists = ["a", "b"].map(|name| json_on(&place, name, &["conflicts"]));
    let (name, list) = if lists[0].is_empty() { ("b", &lists[1]) } else { ("a", &lists[0]) };
    assert_eq!(lists[0].len() + lists[1].len(), 1, "{lists:?}");
    let conflict = &list[0];
    let expected = if name == "a" { ("mine", "theirs") } else { ("theirs", "mine") };
    assert_eq!((&conflict["value"], &conflict["winner_value"]), (&expected.0.into(), &expected.1.into()));
    assert_eq!((&conflict["field"], &conflict["number"]), (&"title".into(), &1.into()));
    let text = on(&place, name, &["conflicts"]);
    assert!(text.contains(expected.0) && text.contains(expected.1) && text.contains("lost"), "{text}");

    assert!(on(&place, name, &["conflicts", "--restore", "1"]).contains("again"));
    assert_eq!(json_on(&place, name, &["show", "task", "t1"])[0]["fields"]["title"], expected.0);
    assert_eq!(on(&place, name, &["conflicts"]), "no conflicts\n");
    let db = format!("{name}.db");
    assert!(place.fails(1, &["--db", &db, "conflicts", "--dismiss", "1"]).contains("no conflict 1"));
}

/// A stamp as it is printed, so that it can be compared.
fn stamp(text: &Value) -> (u16, u64, u128) {
    let (instant, replica) = text.as_str().unwrap().split_once('@').unwrap();
    let (generation, time) = instant.split_once('.').unwrap();
    (generation.parse().unwrap(), time.parse().unwrap(), u128::from_str_radix(replica, 16).unwrap())
}

/// What an explained field shows, by its policy and candidates alone.
fn resolved(field: &Value) -> Value {
    let registers = field["registers"].as_array().unwrap();
    let candidates = |register: &Value| {
        let mut all = register["candidates"].as_array().unwrap().clone();
        let floor = stamp(&register["floor"]);
        assert!(all.iter().all(|candidate| stamp(&candidate["stamp"]) >= floor));
        all.sort_by_key(|candidate| stamp(&candidate["stamp"]));
        all
    };
    let newest = |register: &Value| candidates(register).pop().unwrap();
    let policy = field["policy"].as_str().unwrap();
    let by_key = |register: &Value| register["key"].as_str().unwrap().to_owned();
    match policy {
        "set, add wins" => {
            let is_in = |r: &&Value| candidates(r).iter().any(|candidate| candidate["value"] == true);
            registers.iter().filter(is_in).map(by_key).collect()
        }
        "map" => {
            let there = registers.iter().filter(|register| newest(register)["absent"] == false);
            let entries = there.map(|register| (by_key(register), newest(register)["value"].clone()));
            Value::Object(entries.collect())
        }
        "counter" => {
            registers.iter().map(|register| newest(register)["value"].as_i64().unwrap()).sum::<i64>().into()
        }
        "multi" => candidates(&registers[0]).iter().map(|candidate| candidate["value"].clone()).collect(),
        "value, margin 5000 ms, rank" => {
            let all = candidates(&registers[0]);
            let best = all.iter().max_by_key(|c| (c["rank"].as_u64().unwrap(), stamp(&c["stamp"])));
            best.unwrap()["value"].clone()
        }
        // Deletions win; each of the others has one candidate that counts.
        "delete-wins" => candidates(&registers[0]).iter().all(|candidate| candidate["value"] == true).into(),
        "value, margin 0 ms, newest" | "member of group interval, newest" => {
            newest(&registers[0])["value"].clone()
        }
        other => panic!("{other}: {field}"),
    }
}

#[test]
fn what_a_rule_shows_bears_the_name_of_the_rule_and_of_no_writer() {
    let place = Place::new();
    let schema = r#"{"kinds":{"entry":{"fields":{"user":{},"start":{},"stop":{},"project":{}},"rules":[
        {"rule":"at_most_one","name":"one running","group":["user"],"holds":{"field":"stop","is":"null"},
         "open_field":"stop","order_field":"start"},
        {"rule":"reference","name":"of a project","field":"project","to":"project","on_gone":"cascade"}]},
        "project":{"fields":{"name":{}}}}}"#;
    place.write("s.json", schema);
    let ok = |args: &[&str]| place.ok(&[&["--schema", "s.json"], args].concat());
    ok(&["put", "project", "p", "name=x"]);
    ok(&["put", "entry", "a", "user=u", "start=1", "stop=null", "project=p"]);
    ok(&["put", "entry", "b", "user=u", "start=7", "stop=null"]);
    let shown = ok(&["show", "entry", "a"]);
    let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap().trim_end().to_owned();
    assert!(line("stop").contains('7') && line("stop").ends_with("rule `one running`"), "{shown}");
    assert!(!line("start").contains("rule"), "{shown}");
    let explained = ok(&["explain", "entry", "a", "stop"]);
    let at = |text: &str| explained.find(text).unwrap_or_else(|| panic!("no `{text}` in {explained}"));
    assert!(at("stop shows 7") < at("null written by"), "{explained}");
    assert!(
        explained.contains("rule `one running` shows 7 in place of null on account of `b`"),
        "{explained}"
    );
    let line = "entry `a` stop shows 7 in place of null: rule `one running`, on account of `b`\n";
    assert_eq!((ok(&["overlays"]), ok(&["overlays", "entry", "a"])), (line.to_owned(), line.to_owned()));
    let none = "rules show nothing in place of what was written\n";
    assert_eq!((ok(&["overlays", "entry", "b"]), ok(&["overlays", "project"])), (none.into(), none.into()));
    let told = lines(&ok(&["--json", "overlays"])).remove(0);
    let expected = r#"{"kind":"entry","id":"a","field":"stop","rule":"one running","rival":"b","shown":7,"hidden":null}"#;
    assert_eq!(told, serde_json::from_str::<Value>(expected).unwrap());
    ok(&["delete", "project", "p"]);
    assert!(ok(&["show", "entry", "a"]).contains("DELETED by rule `of a project`"));
    assert!(
        ok(&["overlays"]).contains("entry `a` shows as deleted: rule `of a project`"),
        "{}",
        ok(&["overlays"])
    );
    ok(&["delete", "entry", "b"]);
    assert!(!ok(&["show", "entry", "b"]).contains("rule `"), "a user deleted it");
}

#[test]
fn what_explain_prints_for_programs_is_enough_to_resolve_it_again() {
    let place = Place::new();
    let (_hub, url) = two_devices(&place);
    let edits: [&[&str]; 2] = [&["owner=ann", "notes=n1", "stop=5"], &["owner=bob", "notes=n2", "title=new"]];
    for (name, fields) in ["a", "b"].into_iter().zip(edits) {
        let put = [&["put", "task", "t1"], fields].concat();
        on(&place, name, &[put.as_slice(), &["--add", &format!("tags={name}"), "--inc", "views=2"]].concat());
        on(&place, name, &["put", "task", "t1", "--set-key", &format!("labels.{name}=1")]);
    }
    for name in ["a", "b", "a"] {
        on(&place, name, &["sync", &url]);
    }
    on(&place, "a", &["put", "task", "t1", "title=later", "--remove", "tags=a"]);
    let explained = json_on(&place, "a", &["explain", "task", "t1"]).remove(0);
    let shown = json_on(&place, "a", &["show", "task", "t1"]).remove(0);
    let fields = explained["fields"].as_array().unwrap();
    assert_eq!(fields.len(), 9, "{explained}");
    for field in fields {
        let by_hand = resolved(field);
        assert_eq!(field["resolved"], by_hand, "{field}");
        assert_eq!((&field["shown"], &field["overlays"]), (&by_hand, &Value::Array(Vec::new())));
        if let Some(name) = field["field"].as_str() {
            assert_eq!(shown["fields"][name], by_hand, "{name}");
        }
    }
    let of = |name: &str| fields.iter().find(|field| field["field"] == name).unwrap();
    assert_eq!(of("title")["registers"][0]["candidates"][0]["pending"], true);
    assert_eq!(of("notes")["registers"][0]["candidates"].as_array().unwrap().len(), 2);
    assert_eq!(of("owner")["registers"][0]["candidates"][0]["pending"], false);
    assert_eq!(json_on(&place, "a", &["explain", "task", "t1", "title"])[0]["fields"][0], *of("title"));

    let text = on(&place, "a", &["explain", "task", "t1"]);
    assert!(text.contains("title shows \"later\"") && text.contains("pending"), "{text}");
    assert!(text.contains("2 writes in the running"), "{text}");
    assert!(
        place.fails(1, &["--db", "a.db", "explain", "task", "t1", "nothing"]).contains("no field `nothing`")
    );
    assert!(place.fails(1, &["--db", "a.db", "explain", "task", "t9"]).contains("is not in"));
}

#[test]
fn a_journal_tells_what_changed_and_takes_edits_back() {
    let place = Place::new();
    let ok = |arguments: &[&str]| place.ok(&[&["--schema", "schema.toml"], arguments].concat());
    ok(&["put", "task", "t1", "title=write"]);
    assert!(place.fails(1, &["log"]).contains("log --keep DAYS"));
    assert_eq!(ok(&["log", "--keep", "90"]), "changes are kept for 90 days, up to 16 MiB of them\n");
    ok(&["put", "task", "t1", "title=\u{1b}[2J", "start=1"]);
    ok(&["put", "task", "t2", "--add", "tags=red", "--inc", "views=2"]);
    let log = ok(&["log", "task", "t1"]);
    assert!(log.contains("\"write\"") && !log.contains('\u{1b}') && !log.contains("t2"), "{log}");
    assert_eq!(place.ok(&["--json", "log"]).lines().count(), 2);
    let entry = place.json(&["log", "task", "t1"]);
    assert_eq!((&entry["origin"], &entry["number"]), (&"local".into(), &2.into()));
    assert_eq!(entry["changes"][0]["before"], "write");
    let entry = place.json(&["log", "--last", "1"]);
    let told: Vec<_> =
        entry["changes"].as_array().unwrap().iter().map(|c| c["what"].as_str().unwrap()).collect();
    assert_eq!(told, ["life", "key", "count"]);
    assert_eq!(entry["changes"][1]["key"], "red");

    ok(&["put", "task", "t1", "start=5"]);
    let undone = ok(&["undo", "2"]);
    assert_eq!(undone, "edit 2 is taken back\nleft as it is, having changed since: task `t1` interval\n");
    let shown = place.json(&["--schema", "schema.toml", "show", "task", "t1"]);
    assert_eq!((&shown["fields"]["title"], &shown["fields"]["start"]), (&"write".into(), &5.into()));
    assert!(place.fails(1, &["undo", "77"]).contains("no entry 77"));
    assert!(place.json(&["--schema", "schema.toml", "undo", "3"])["stamp"].is_string());
    ok(&["log", "--off"]);
    place.fails(1, &["log"]);
}

#[test]
fn without_the_schema_of_a_database_it_is_said_that_there_is_one() {
    let place = Place::new();
    let with = ["--schema", "schema.toml"];
    place.ok(&[&with[..], &["put", "task", "t1", "--add", "tags=red"]].concat());
    let told = |arguments: &[&str]| place.run(arguments).notes;
    assert!(told(&["list", "task"]).contains("--schema"));
    assert!(told(&["--json", "list", "task"]).starts_with("{\"note\":"));
    assert_eq!(told(&[&with[..], &["list", "task"]].concat()), "");
    // Where a schema changes nothing.
    for arguments in [
        &["verify"][..],
        &["backup", "b.db"],
        &["--db", "c.db", "restore", "b.db"],
        &["collect"],
        &["leases"],
    ] {
        assert_eq!(told(arguments), "", "{arguments:?}");
    }
    assert_eq!(place.json(&[&with[..], &["status"]].concat())["undeclared"], 0);
    assert!(place.json(&["status"])["undeclared"].as_u64().unwrap() > 0);
    place.ok(&["--db", "open.db", "put", "task", "t1", "title=x"]);
    assert_eq!(told(&["--db", "open.db", "list"]), "");
}

#[test]
fn a_database_is_checked_mended_backed_up_and_restored() {
    let place = Place::new();
    for n in 0..5 {
        place.ok(&["put", "task", &format!("t{n}"), "title=write"]);
    }
    assert_eq!(place.json(&["verify"])["sound"], true);
    place.ok(&["backup", "monday.db"]);
    assert!(place.fails(1, &["backup", "monday.db"]).contains("is there already"));

    let shown = place.json(&["status"])["digest"].clone();
    let file = rivus::rusqlite::Connection::open(place.path().join("rivus.db")).unwrap();
    file.execute("UPDATE head SET shown = zeroblob(16), count = count + 1", []).unwrap();
    drop(file);
    let wrong = place.run(&["verify"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.out.contains("the rows make") && wrong.out.contains("rivus repair"), "{}", wrong.out);
    assert!(place.ok(&["repair"]).contains("11 registers are counted, and there are 10"));
    assert_eq!(place.json(&["verify"])["sound"], true);
    assert_eq!(place.json(&["status"])["digest"], shown);

    place.ok(&["put", "task", "t0", "title=after the backup"]);
    assert!(place.fails(1, &["restore", "monday.db"]).contains("move it away first"));
    assert!(place.fails(1, &["restore", "tuesday.db", "--db", "new.db"]).contains("no backup at tuesday.db"));
    assert!(place.fails(1, &["restore", "schema.toml", "--db", "new.db"]).contains("not a Rivus store"));
    place.ok(&["restore", "monday.db", "--db", "new.db"]);
    assert_eq!(place.json(&["status", "--db", "new.db"])["digest"], shown);

    // A row that cannot be read is said by name.
    let file = rivus::rusqlite::Connection::open(place.path().join("new.db")).unwrap();
    file.execute("UPDATE entity SET state = x'ff' WHERE id = 't3'", []).unwrap();
    drop(file);
    let damaged = place.run(&["verify", "--db", "new.db"]);
    assert!(damaged.code == 1 && damaged.out.starts_with("task `t3` cannot be read: "), "{}", damaged.out);
}

#[test]
fn a_scope_whose_digest_alone_is_wrong_is_named_and_mended() {
    let place = Place::empty();
    place
        .write("schema.toml", "[kinds.note]\nscope = \"list\"\n[kinds.note.fields]\nlist = {}\ntitle = {}\n");
    let with = ["--schema", "schema.toml"];
    for (id, list) in [("n1", "home"), ("n2", "work")] {
        place.ok(&[&with[..], &["put", "note", id, &format!("list={list}"), "title=x"]].concat());
    }
    let verify = [&with[..], &["verify"]].concat();
    let sound = place.json(&verify);
    assert_eq!((&sound["sound"], &sound["scopes"]), (&true.into(), &Value::Array(Vec::new())));
    let change = |sql: &str| {
        let file = rivus::rusqlite::Connection::open(place.path().join("rivus.db")).unwrap();
        assert_eq!(file.execute(sql, []).unwrap(), 1);
    };
    let found = || {
        let ran = place.run(&verify);
        let told = place.run(&[&["--json"], &verify[..]].concat());
        assert_eq!((ran.code, told.code), (1, 1), "{}", ran.out);
        let told: Value = serde_json::from_str(&told.out).unwrap();
        (ran.out.lines().map(str::to_owned).collect::<Vec<_>>(), told)
    };
    change("UPDATE scope SET shown = zeroblob(16) WHERE name = 'work'");
    let (lines, told) = found();
    let line = "the digest of scope `work` is not that of its rows";
    assert_eq!(lines, [line, "mend it with `rivus repair`, then sync"]);
    assert_eq!((&told["sound"], &told["scopes"]), (&false.into(), &serde_json::json!(["work"])));
    assert_eq!(told["digest"], sound["digest"]);
    assert!(place.ok(&[&with[..], &["repair"]].concat()).contains(&format!("mended: {line}\n")));
    assert_eq!(place.json(&verify), sound);

    // What is confirmed alone is told with both figures, too.
    change("UPDATE head SET confirmed = zeroblob(16)");
    let (lines, told) = found();
    let zero = "0".repeat(32);
    assert!(lines[0].starts_with(&format!("the digest of what is confirmed is {zero}, and")), "{lines:?}");
    assert_eq!((&told["confirmed"][0], &told["digest"]), (&zero.into(), &sound["digest"]));
    assert_eq!(told["scopes"], sound["scopes"]);
}
