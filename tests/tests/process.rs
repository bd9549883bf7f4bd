//! Processes that are killed, share a file, or run out of disk.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rivus::{Db, Shown, SqliteOptions, Value};
use rivus_core::clock::Admission;
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::Seeds;
use rivus_core::replica::{OpenOptions, Replica};
use rivus_core::store::Store;
use rivus_sqlite::SqliteStore;
use rivus_testkit::random::Random;

fn writer(file: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rivus-test-writer"));
    command.arg(file).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn lines(child: &mut Child) -> impl Iterator<Item = (i64, u64)> + use<> {
    BufReader::new(child.stdout.take().unwrap()).lines().map(|line| {
        let line = line.unwrap();
        let mut words =
            line.strip_prefix("ack ").unwrap().split(' ').map(|word| word.parse::<u64>().unwrap());
        (i64::try_from(words.next().unwrap()).unwrap(), words.next().unwrap())
    })
}

fn shown(db: &Db, id: &str, field: &str) -> Option<Shown> {
    db.view("task", id).unwrap().and_then(|mut view| view.fields.remove(field))
}

#[test]
fn a_killed_writer_loses_nothing_that_it_was_told_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let mut random = Random::new(0x5eed_0001);
    let mut last_stamp = 0;
    for round in 0..50 {
        let id = format!("t{round}");
        let mut child = writer(&file, &["write", &id]).spawn().unwrap();
        let kill_after = 1 + random.below(60);
        let mut acked = (0, 0);
        let mut acks = lines(&mut child);
        for _ in 0..kill_after {
            acked = acks.next().expect("the writer writes until it is killed");
        }
        child.kill().unwrap();
        // What it said between the last line read and the kill counts as well.
        acked = acks.last().unwrap_or(acked);
        child.wait().unwrap();

        let store = SqliteStore::open(&file, SqliteOptions::default()).unwrap();
        store.integrity_check().unwrap();
        let head = store.head().unwrap();
        assert!(head.high_water >= acked.1, "round {round}: the clock went back");
        assert!(acked.1 > last_stamp, "round {round}: stamps rise over restarts");
        last_stamp = acked.1;
        drop(store);
        let db = Db::open(&file, rivus_tests::schema()).unwrap();
        let Some(Shown::Value(Value::Int(kept))) = shown(&db, &id, "n") else {
            panic!("round {round}: nothing")
        };
        // One more may be durable than was acknowledged: killed between the two.
        assert!(
            kept == acked.0 || kept == acked.0 + 1,
            "round {round}: {kept} kept, {} acknowledged",
            acked.0
        );
        assert_eq!(
            db.status().unwrap().digest,
            digest_of(&file),
            "round {round}: the digest is that of the rows"
        );
    }
}

fn digest_of(file: &Path) -> String {
    let seeds = Seeds { store: StoreId(1), replica: ReplicaId::from_u128(1), incarnation: Incarnation(1) };
    let options = OpenOptions { seeds, slot: 0, admission: Admission::Off, rank: 0 };
    let store = SqliteStore::open(file, SqliteOptions::default()).unwrap();
    let schema = std::sync::Arc::new(rivus_tests::schema());
    let replica = Replica::open(store, schema, options).unwrap();
    format!("{:032x}", replica.recompute_digest().unwrap().shown)
}

#[test]
fn processes_that_share_a_file_lose_no_increment_and_have_ids_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let db = Db::open(&file, rivus_tests::schema()).unwrap();
    let mut children: Vec<Child> =
        (0..3).map(|_| writer(&file, &["count", "t", "200"]).spawn().unwrap()).collect();
    for _ in 0..100 {
        db.apply(&[rivus::Op::new("task", "t", rivus::Action::Inc { field: "views".to_owned(), by: 1 })])
            .unwrap();
    }
    for child in &mut children {
        assert_eq!(lines(child).count(), 200);
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(shown(&db, "t", "views"), Some(Shown::Counter(700)));
    let mut shares = 0;
    db.registers("task", "t", |parts, _| shares += i32::from(parts.name == "views")).unwrap();
    assert_eq!(shares, 4, "one running total a process");
    assert_eq!(db.status().unwrap().digest, digest_of(&file));
}

#[test]
fn a_limit_on_the_file_size_is_a_clear_error_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    // The signal that the limit sends is ignored, so that the write itself fails.
    let script = "trap '' XFSZ; ulimit -f 300; exec \"$0\" \"$@\"";
    let mut command = Command::new("bash");
    command.args(["-c", script, env!("CARGO_BIN_EXE_rivus-test-writer")]).arg(&file).args(["write", "t"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let acked = lines(&mut child).last().expect("some writes fit").0;
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("full"), "{error}");
    let db = Db::open(&file, rivus_tests::schema()).unwrap();
    let kept = shown(&db, "t", "n");
    let expected = [acked, acked + 1].map(|n| Some(Shown::Value(Value::Int(n))));
    assert!(expected.contains(&kept), "{kept:?} kept, {acked} acknowledged");
    assert_eq!(db.status().unwrap().digest, digest_of(&file));
    db.put("task", "t", [("n", 0.into())]).unwrap();
}
