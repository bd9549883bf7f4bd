//! `rivus serve` as those who run a hub use it: its configuration, its signals, its health.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};

mod place;

use place::Place;

impl Place {
    fn json(&self, arguments: &[&str]) -> Command {
        self.command(&[&["--json"], arguments].concat())
    }

    /// Code, what is printed, and what is said of errors.
    fn run(&self, arguments: &[&str]) -> (i32, Value, String) {
        ran(&mut self.json(arguments))
    }
}

fn ran(command: &mut Command) -> (i32, Value, String) {
    let output = command.output().unwrap();
    let out = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap(), out, String::from_utf8(output.stderr).unwrap())
}

/// A hub that runs.
struct Hub {
    child: Child,
    out: BufReader<ChildStdout>,
    started: Value,
}

impl Hub {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let started = serde_json::from_str(&line).unwrap_or(Value::Null);
        let hub = Self { child, out, started };
        assert!(!hub.started.is_null(), "{}", hub.end_of_log());
        hub
    }

    fn url(&self) -> &str {
        self.started["url"].as_str().unwrap()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn end_of_log(mut self) -> String {
        let _ = self.child.kill();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }

    /// Waits until it has ended by itself: its code, its last line, and all that it logged.
    fn end(mut self) -> (i32, Value, String) {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        let last = serde_json::from_str(&line).unwrap_or(Value::Null);
        (self.child.wait().unwrap().code().unwrap(), last, log)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_option_goes_before_its_variable_and_that_before_the_file() {
    let place = Place::empty();
    place.write(
        "hub.toml",
        "listen = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:11\"\ndb = \"file.db\"\nopen = true\n",
    );
    let checked = |arguments: &[&str], variables: &[(&str, &str)]| {
        let all = [&["serve", "--config", "hub.toml", "--check-config"], arguments].concat();
        let (code, out, err) = ran(place.json(&all).envs(variables.iter().copied()));
        assert_eq!((code, err.as_str()), (0, ""));
        out
    };
    let out = checked(&[], &[]);
    assert_eq!(
        (&out["listen"], &out["db"], &out["open"]),
        (&"127.0.0.1:1".into(), &"file.db".into(), &true.into())
    );
    let variables = [("RIVUS_LISTEN", "127.0.0.1:2"), ("RIVUS_DB", "variable.db"), ("RIVUS_OPEN", "false")];
    let out = checked(&[], &variables);
    assert_eq!(
        (&out["listen"], &out["db"], &out["open"]),
        (&"127.0.0.1:2".into(), &"variable.db".into(), &false.into())
    );
    assert_eq!(out["admin"], "127.0.0.1:11");
    let out = checked(&["--listen", "127.0.0.1:3", "--db", "option.db", "--open"], &variables);
    assert_eq!(
        (&out["listen"], &out["db"], &out["open"]),
        (&"127.0.0.1:3".into(), &"option.db".into(), &true.into())
    );
    assert!(!place.path().join("option.db").exists(), "checking makes no database");
}

#[test]
fn a_configuration_that_cannot_work_is_found_by_checking_it() {
    let place = Place::empty();
    let fails = |text: &str| {
        place.write("hub.toml", text);
        let (code, _, err) = place.run(&["serve", "--config", "hub.toml", "--check-config"]);
        assert_ne!(code, 0, "{text}");
        err
    };
    assert!(
        fails("listen = \"127.0.0.1:1\"\nlisten_at = 1\n")
            .contains("hub.toml, line 2: unknown field `listen_at`")
    );
    assert!(fails("listen = \"0.0.0.0:7171\"\n").contains("say who may connect"));
    let empty = fails("listen = \"0.0.0.0:7171\"\n[[grants]]\ntoken = \"\"\nrank = 0\n");
    assert!(empty.contains("a token in [[grants]] is empty"), "{empty}");
    let granted =
        |keys: &str| fails(&format!("[[grants]]\ntoken = \"s3cret\"\nrank = 0\nsubject = \"ann\"\n{keys}"));
    for (keys, wrong) in [
        ("read = []\n", "grant 1 (ann): `read` is an empty list"),
        ("write = [\"ho*me\"]\n", "grant 1 (ann): in `write` `ho*me` has a * before its end"),
        ("reads = [\"home\"]\n", "hub.toml, line 5, grant 1: unknown field `reads`"),
        ("[[grants]]\ntoken = \"s3cret\"\nrank = 1\n", "grant 2: its token is that of grant 1"),
    ] {
        let told = granted(keys);
        assert!(told.contains(wrong) && !told.contains("s3cret"), "{told}");
    }
    assert!(fails("scopes_max = 65\n").contains("--scopes-max 65 is out of bounds: give 1 to 64"));
    assert!(fails("tls_cert = \"hub.pem\"\n").contains("needs both"));
    assert!(fails("tls_cert = \"hub.pem\"\ntls_key = \"key.pem\"\n").contains("hub.pem cannot be read"));
    assert!(fails("jwt_keys = \"jwks.json\"\n").contains("jwks.json"));
    assert!(fails("jwt_audience = \"rivus\"\n").contains("need --jwt-keys"));
    assert!(fails("schema = \"none.toml\"\n").contains("none.toml cannot be read"));
    assert!(fails("listen = \"nonsense\"\nopen = true\n").contains("nonsense is no address"));
    let (code, _, err) = place.run(&["serve", "--config", "none.toml"]);
    assert!(code == 1 && err.contains("none.toml cannot be read"), "{err}");
}

#[test]
fn a_hub_with_a_certificate_is_synced_with_reloaded_watched_and_ended() {
    let place = Place::empty();
    let certify = || {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        place.write("hub.pem", &certified.cert.pem());
        place.write("hub-key.pem", &certified.signing_key.serialize_pem());
    };
    certify();
    place.write(
        "hub.toml",
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\ndb = \"hub.db\"\ntls_cert = \"hub.pem\"\n\
         tls_key = \"hub-key.pem\"\n[[grants]]\ntoken = \"fd5c-secret\"\nrank = 4\nsubject = \"ann\"\n",
    );
    let mut command = place.json(&["serve", "--config", "hub.toml"]);
    command.env("RUST_LOG", "trace");
    let hub = Hub::start(command);
    let url = hub.url().replace("127.0.0.1", "localhost");
    let admin = hub.started["admin"].as_str().unwrap().to_owned();
    assert!(url.starts_with("wss://"), "{url}");
    let sync = |token: &str| place.run(&["--db", "a.db", "sync", &url, "--ca", "hub.pem", "--token", token]);
    assert_eq!(place.run(&["--db", "a.db", "put", "task", "t", "title=one"]).0, 0);
    let (code, out, err) = sync("fd5c-secret");
    assert_eq!((code, &out["is_authority"]), (0, &true.into()), "{err}");
    let (code, _, err) = sync("fd5c-wrong");
    assert!(code == 1 && err.contains("UNAUTHORISED"), "{err}");
    let (code, out, _) = place.run(&["health", "--admin", &admin]);
    assert_eq!((code, &out["ready"]), (0, &true.into()));

    // A renewed certificate, at once.
    certify();
    hub.signal("-HUP");
    let since = Instant::now();
    while sync("fd5c-secret").0 != 0 {
        assert!(since.elapsed() < Duration::from_secs(60), "the new certificate is not used");
    }
    hub.signal("-TERM");
    let (code, last, log) = hub.end();
    assert_eq!((code, &last["stopped"]), (0, &true.into()), "{log}");
    assert!(log.contains("certificates and keys were read again"), "{log}");
    assert!(log.contains("connection ended") && log.contains("ann"), "{log}");
    assert!(!log.contains("fd5c"), "a token was logged: {log}");
    let (code, _, err) = place.run(&["health", "--admin", &admin]);
    assert!(code == 1 && err.contains("nobody tells"), "{err}");
}

#[test]
fn a_second_signal_ends_at_once_what_the_first_one_ends_in_order() {
    let place = Place::empty();
    let hub = Hub::start(place.json(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--announce",
        "60",
    ]));
    let admin = hub.started["admin"].as_str().unwrap().to_owned();
    let guest = TcpStream::connect(hub.url().trim_start_matches("ws://")).unwrap();
    hub.signal("-TERM");
    let since = Instant::now();
    // It says that it is about to stop, and goes on to serve.
    while place.run(&["health", "--admin", &admin]).0 == 0 {
        assert!(since.elapsed() < Duration::from_secs(60), "it is still ready");
    }
    let (code, out, _) = place.run(&["health", "--admin", &admin]);
    assert_eq!((code, &out["text"]), (1, &"the hub is shutting down".into()));
    assert_eq!(place.run(&["--db", "a.db", "sync", hub.url()]).0, 0);
    let second = Instant::now();
    hub.signal("-TERM");
    let (code, last, log) = hub.end();
    assert_eq!((code, &last["stopped"]), (0, &true.into()), "{log}");
    assert!(second.elapsed() < Duration::from_secs(30) && log.contains("told to end twice"), "{log}");
    drop(guest);
}

#[test]
fn what_a_hub_is_to_take_has_bounds_wherever_it_is_said() {
    let place = Place::empty();
    let check = |option: &str, value: &str| {
        let variable = format!("RIVUS_{}", option.to_uppercase().replace('-', "_"));
        place.write("hub.toml", &format!("{} = {value}\n", option.replace('-', "_")));
        let said = [
            ran(&mut place.json(&["serve", "--check-config", &format!("--{option}={value}")])),
            ran(place.json(&["serve", "--check-config"]).env(variable, value)),
            ran(&mut place.json(&["serve", "--check-config", "--config", "hub.toml"])),
        ];
        assert!(said.iter().all(|each| each == &said[0]), "{said:?}");
        let [(code, _, err), ..] = said;
        (code, err)
    };
    for (option, least, most) in [
        ("frame-bytes-max", 524_288, 33_554_432),
        ("value-bytes-max", 1, 4_194_304),
        ("registers-max", 1, 131_072),
        ("scopes-max", 1, 64),
        ("handshake-max", 1, 300),
        ("connections-max", 1, 1_048_576),
        ("address-connections-max", 1, 1_048_576),
        ("address-rate", 1, 4_294_967_295),
        ("address-burst", 1, 4_294_967_295),
        ("registers-rate", 1, 4_294_967_295_u64),
    ] {
        for within in [least, most] {
            assert_eq!(check(option, &within.to_string()), (0, String::new()), "{option}");
        }
        let (code, err) = check(option, &(least - 1).to_string());
        let told = format!("--{option} {} is out of bounds: give {least} to {most}", least - 1);
        assert!(code == 2 && err.contains(&told), "{err}");
        if most < u64::from(u32::MAX) {
            let (code, err) = check(option, &(most + 1).to_string());
            assert!(code == 2 && err.contains("is out of bounds"), "{err}");
        }
    }
    let both = ["serve", "--check-config", "--frame-bytes-max=600000", "--value-bytes-max=600001"];
    let (code, _, err) = place.run(&both);
    assert!(code == 2 && err.contains("does not go into a frame"), "{err}");
}

/// Notes in lists, which are scopes.
const NOTES: &str = "[kinds.note]\nscope = \"list\"\n[kinds.note.fields]\nlist = {}\ntitle = {}\n";

/// A device that shows a token at a hub.
struct Device<'p> {
    place: &'p Place,
    file: String,
    token: String,
}

impl<'p> Device<'p> {
    fn new(place: &'p Place, name: &str, token: &str) -> Self {
        Self { place, file: format!("{name}.db"), token: token.to_owned() }
    }

    fn run(&self, arguments: &[&str]) -> (i32, Value, String) {
        self.place.run(&[&["--db", &self.file, "--schema", "schema.toml"], arguments].concat())
    }

    fn put(&self, id: &str, list: &str, title: &str) {
        let (code, _, err) =
            self.run(&["put", "note", id, &format!("list={list}"), &format!("title={title}")]);
        assert_eq!(code, 0, "{err}");
    }

    /// Follows these scopes for a moment, and says what is shown then, by id.
    fn sync(&self, hub: &Hub, scopes: &[&str]) -> Value {
        let scopes = scopes.iter().flat_map(|scope| ["--scope", scope]);
        let arguments: Vec<&str> =
            ["sync", hub.url(), "--token", &self.token].into_iter().chain(scopes).collect();
        let (code, out, err) = self.run(&arguments);
        assert_eq!(code, 0, "{out} {err}");
        self.titles()
    }

    fn titles(&self) -> Value {
        let (code, all, err) = self.run(&["export", "note"]);
        assert_eq!(code, 0, "{err}");
        let notes = all["note"].as_object().cloned().unwrap_or_default();
        notes.into_iter().map(|(id, fields)| (id, fields["title"].clone())).collect()
    }

    /// The edits that were refused.
    fn rejected(&self) -> Vec<Value> {
        let output = self.place.json(&["--db", &self.file, "--schema", "schema.toml", "rejected"]).output();
        let out = String::from_utf8(output.unwrap().stdout).unwrap();
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A hub with a note in each of four scopes, one of them without a name.
fn start_with_notes(place: &Place, options: &str) -> Hub {
    place.write("schema.toml", NOTES);
    place.write(
        "hub.toml",
        &format!("listen = \"127.0.0.1:0\"\ndb = \"hub.db\"\nschema = \"schema.toml\"\n{options}"),
    );
    let hub = Device::new(place, "hub", "");
    for (id, list) in [("h", "home"), ("w", "work/plans"), ("i", "inbox"), ("n", "")] {
        hub.put(id, list, "hub");
    }
    Hub::start(place.json(&["serve", "--config", "hub.toml"]))
}

/// Two devices at such a hub, the first reading `home` and `work/*` and writing `home`, the second reading `work/*` and
/// writing that and `inbox`.
fn each_reads_and_writes_its_own(place: &Place, hub: Hub, ann: &Device<'_>, bob: &Device<'_>) {
    let all = ["home", "work/plans", "inbox", ""];
    assert_eq!(ann.sync(&hub, &all), json!({ "h": "hub", "w": "hub" }));
    assert_eq!(bob.sync(&hub, &all), json!({ "w": "hub" }));
    ann.put("h", "home", "ann");
    ann.put("w", "work/plans", "ann");
    ann.put("a", "inbox", "ann");
    assert_eq!(ann.sync(&hub, &all), json!({ "h": "ann", "w": "hub" }));
    bob.put("w", "work/plans", "bob");
    bob.put("b", "inbox", "bob");
    bob.put("x", "home", "bob");
    // What it hands in where it may not read is the hub's alone.
    assert_eq!(bob.sync(&hub, &all), json!({ "w": "bob" }));
    assert_eq!(ann.sync(&hub, &all), json!({ "h": "ann", "w": "bob" }));
    // A move needs both: `bob` may write where it comes from and not where it goes.
    bob.put("w", "home", "moved");
    assert_eq!(bob.sync(&hub, &all), json!({ "w": "bob" }));
    for (device, refused) in [(ann, 2), (bob, 2)] {
        let told = device.rejected();
        let codes: Vec<_> = told.iter().map(|edit| &edit["code"]).collect();
        assert_eq!(codes, vec![&json!(404); refused], "{told:?}");
    }
    let (code, _, err) = ann.run(&["sync", hub.url(), "--token", &ann.token]);
    assert!(
        code == 1 && err.contains("SCOPE (404): not everything here may be read: follow by name"),
        "{err}"
    );
    hub.signal("-TERM");
    assert_eq!(hub.end().0, 0);
    let held = Device::new(place, "hub", "").titles();
    assert_eq!(held, json!({ "h": "ann", "w": "bob", "i": "hub", "n": "hub", "b": "bob" }));
}

#[test]
fn a_token_of_the_file_reads_and_writes_the_scopes_of_its_grant_alone() {
    let place = Place::empty();
    let grants = "[[grants]]\ntoken = \"ann-secret\"\nrank = 0\nsubject = \"ann\"\nread = [\"home\", \"work/*\"]\n\
                  write = [\"home\"]\n[[grants]]\ntoken = \"bob-secret\"\nrank = 0\nread = [\"work/*\"]\n\
                  write = [\"work/*\", \"inbox\"]\n";
    let hub = start_with_notes(&place, grants);
    let (code, told, err) = place.run(&["serve", "--config", "hub.toml", "--check-config"]);
    assert_eq!((code, told["tokens"].as_u64()), (0, Some(2)), "{err}");
    assert_eq!(
        told["grants"][0],
        json!({ "subject": "ann", "rank": 0, "read": ["home", "work/*"], "write": ["home"] })
    );
    let (ann, bob) = (Device::new(&place, "ann", "ann-secret"), Device::new(&place, "bob", "bob-secret"));
    each_reads_and_writes_its_own(&place, hub, &ann, &bob);
}

/// A token with these claims, and the set of keys in which the key of its issuer is.
fn signed(issuer: &rcgen::KeyPair, claims: &Value) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", part(&json!({ "alg": "EdDSA" })), part(claims));
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(issuer.sign(message.as_bytes()).unwrap()))
}

#[test]
fn a_signed_token_reads_and_writes_the_scopes_of_its_claims_alone() {
    let place = Place::empty();
    let issuer = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let key = json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(issuer.der_bytes()) });
    place.write("jwks.json", &json!({ "keys": [key] }).to_string());
    let hub = start_with_notes(&place, "jwt_keys = \"jwks.json\"\n");
    let token = |name: &str, read: Value, write: Value| {
        let end = 4_102_444_800_u64; // the year 2100
        signed(&issuer, &json!({ "sub": name, "exp": end, "rivus_read": read, "rivus_write": write }))
    };
    let ann = token("ann", json!(["home", "work/*"]), json!(["home"]));
    let bob = token("bob", json!(["work/*"]), json!(["work/*", "inbox"]));
    let refused = token("cid", json!("home"), json!([]));
    let (code, _, err) = Device::new(&place, "cid", "").run(&["sync", hub.url(), "--token", &refused]);
    assert!(code == 1 && err.contains("`rivus_read` is no list"), "{err}");
    each_reads_and_writes_its_own(
        &place,
        hub,
        &Device::new(&place, "ann", &ann),
        &Device::new(&place, "bob", &bob),
    );
}

#[test]
fn a_hub_takes_no_more_than_it_is_told_to() {
    let place = Place::empty();
    let limits = "frame_bytes_max = 524288\nregisters_max = 2\nscopes_max = 1\nhandshake_max = 1\n";
    let hub = start_with_notes(&place, limits);
    let device = Device::new(&place, "ann", "");
    let sync = |scopes: &[&str]| device.run(&[&["sync", hub.url()], scopes].concat());
    assert_eq!(sync(&["--scope", "home"]).0, 0);
    let (code, _, err) = sync(&["--scope", "home", "--scope", "inbox"]);
    assert!(code == 1 && err.contains("at most 1"), "{err}");
    // Three registers: life, list, title.
    device.put("many", "home", "x");
    let long = json!({ "kind": "note", "id": "h", "fields": { "title": "x".repeat(600_000) } });
    place.write("long.jsonl", &long.to_string());
    assert_eq!(device.run(&["import", "long.jsonl"]).0, 0);
    assert_eq!(sync(&["--scope", "home"]).0, 0);
    let told = device.rejected();
    let reason = |at: usize| told[at]["reason"].as_str().unwrap();
    assert!(reason(0).contains("3 registers: the hub takes at most 2"), "{told:?}");
    assert!(reason(1).contains("bytes: the hub takes at most 524288"), "{told:?}");
    // Who says nothing is gone after a second.
    let mut silent = TcpStream::connect(hub.url().trim_start_matches("ws://")).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let since = Instant::now();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    assert!(since.elapsed() < Duration::from_secs(10), "that is how long it is without the setting");
}
