//! That what is there can be had out of a database, whatever the schema says and whatever is damaged.

use serde_json::{Value, json};

use super::{Place, lines};

const WITH: [&str; 2] = ["--schema", "schema.toml"];

/// A task, which the schema has, and a note, which it does not.
fn with_a_kind_too_many() -> Place {
    let place = Place::new();
    place.ok(&[&WITH[..], &["put", "task", "t1", "title=x", "--add", "tags=a"]].concat());
    place.ok(&["put", "note", "n1", "text=y"]);
    place
}

/// Five tasks and a note; two of the tasks cannot be read.
fn damaged() -> Place {
    let place = Place::new();
    for id in ["t0", "t1", "t2", "t3", "t4"] {
        place.ok(&["put", "task", id, "title=x"]);
    }
    place.ok(&["put", "zebra", "z", "title=x"]);
    let file = rivus::rusqlite::Connection::open(place.path().join("rivus.db")).unwrap();
    let changed = file.execute("UPDATE entity SET state = x'ff' WHERE id IN ('t1', 't3')", []).unwrap();
    assert_eq!(changed, 2);
    place
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn kinds_that_the_schema_does_not_declare_are_exported_as_without_one() {
    let place = with_a_kind_too_many();
    let all = json!({ "note": { "n1": { "text": "y" } }, "task": { "t1": { "tags": ["a"], "title": "x" } } });
    assert_eq!(parsed(&place.ok(&[&WITH[..], &["export"]].concat())), all);
    let jsonl = place.ok(&[&WITH[..], &["export", "--format", "jsonl"]].concat());
    assert_eq!(lines(&jsonl).len(), 2);
    place.ok(&[&WITH[..], &["export", "-o", "all.json"]].concat());
    assert_eq!(parsed(&std::fs::read_to_string(place.path().join("all.json")).unwrap()), all);
    assert_eq!(place.ok(&[&WITH[..], &["export", "note", "--format", "csv"]].concat()), "id,text\nn1,y\n");
}

#[test]
fn a_kind_that_is_not_there_is_no_empty_export() {
    let place = with_a_kind_too_many();
    for arguments in [&["export", "nope"][..], &["export", "nope", "-o", "nope.csv"]] {
        for schema in [&[][..], &WITH] {
            let arguments = [schema, arguments].concat();
            assert_eq!(place.run(&arguments).out, "");
            assert!(place.fails(1, &arguments).contains("there is no kind `nope` here: `list` tells"));
        }
    }
    assert!(!place.path().join("nope.csv").exists());
    // One that is declared may be empty.
    place.ok(&["--db", "new.db", "put", "note", "n1", "text=y"]);
    let empty = place.ok(&["--db", "new.db", "--schema", "schema.toml", "export", "task"]);
    assert_eq!(parsed(&empty), json!({}));
}

#[test]
fn what_is_damaged_is_left_out_and_named_where_that_is_asked_for() {
    let place = damaged();
    for arguments in [&["export"][..], &["list", "task"], &["repair"], &["export", "-o", "all.json"]] {
        let told = place.fails(1, arguments);
        assert!(told.contains("task `t1`") && told.contains("`export --skip-damaged`"), "{told}");
        assert!(!told.contains("cannot be written"), "{told}");
    }
    assert_eq!(place.run(&["export"]).out, "", "nothing that is no JSON");

    let ran = place.run(&["export", "--skip-damaged"]);
    assert_eq!((ran.code, ran.err.as_str()), (1, ""));
    let x = json!({ "title": "x" });
    assert_eq!(parsed(&ran.out), json!({ "task": { "t0": x, "t2": x, "t4": x }, "zebra": { "z": x } }));
    let notes: Vec<_> = ran.notes.lines().collect();
    assert_eq!(notes.len(), 2);
    assert!(notes[0].starts_with("note: task `t1` is left out, it cannot be read: "), "{notes:?}");

    let ran = place.run(&["--json", "export", "--skip-damaged", "-o", "some.json"]);
    let done = parsed(&ran.out);
    assert_eq!((ran.code, &done["entities"]), (1, &4.into()));
    assert_eq!((&done["left_out"][1]["kind"], &done["left_out"][1]["id"]), (&"task".into(), &"t3".into()));
    assert!(lines(&ran.notes).iter().all(|line| line["note"].is_string()));
    place.ok(&["--db", "new.db", "import", "some.json"]);
    assert_eq!(place.json(&["--db", "new.db", "verify"])["sound"], true);
    place.ok(&["--db", "new.db", "export", "--skip-damaged"]);
}

#[test]
fn all_damaged_rows_are_named_by_verify() {
    let place = damaged();
    let ran = place.run(&["verify"]);
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!((ran.code, lines.len(), ran.err.as_str()), (1, 3, ""), "{}", ran.out);
    assert!(lines[0].starts_with("task `t1` cannot be read: "), "{lines:?}");
    assert!(lines[1].starts_with("task `t3` cannot be read: "), "{lines:?}");
    assert!(lines[2].contains("rivus export --skip-damaged"), "{lines:?}");
    let ran = place.run(&["--json", "verify"]);
    let told = parsed(&ran.out);
    assert_eq!((ran.code, &told["sound"], &told["more"]), (1, &false.into(), &false.into()));
    let ids: Vec<_> = told["damaged"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, ["t1", "t3"]);
}
