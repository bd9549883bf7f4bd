//! `rivus serve` as those who run a hub use it: its configuration, its signals, its health.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

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
