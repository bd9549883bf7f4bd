//! Schemas that change between two openings of a file.

use std::path::Path;

use rivus::{Db, Error, Schema, Shown};

const PLAIN: &str = r#""owner":{}"#;
const MARGIN: &str = r#""owner":{"margin_ms":5000}"#;
const MIGRATION: &str = concat!(
    r#"{"name":"within five seconds","field":"owner","#,
    r#""from":"value, margin 0 ms, newest","to":"value, margin 5000 ms, newest"}"#
);

fn open(path: &Path, fields: &str, migrations: &str) -> Result<Db, Error> {
    let json = format!(r#"{{"kinds":{{"task":{{"fields":{{{fields}}},"migrations":[{migrations}]}}}}}}"#);
    Db::open(path, Schema::from_json_str(&json)?)
}

#[test]
fn a_policy_changes_by_a_migration_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    open(&path, PLAIN, "").unwrap().put("task", "t", [("owner", "ann".into())]).unwrap();
    let refused = open(&path, MARGIN, "").unwrap_err();
    assert!(matches!(refused, Error::Migrate(_)), "{refused:?}");
    let said = refused.to_string();
    for part in ["`owner`", "`task`", "margin 0 ms", "margin 5000 ms", "migration"] {
        assert!(said.contains(part), "{said}");
    }
    // A refusal changes nothing.
    drop(open(&path, PLAIN, "").unwrap());
    let db = open(&path, MARGIN, MIGRATION).unwrap();
    let view = db.view("task", "t").unwrap().unwrap();
    assert_eq!(view.fields["owner"], Shown::Value("ann".into()));
    drop(db);
    // The way back is another change; the way there may stay declared.
    assert!(matches!(open(&path, PLAIN, ""), Err(Error::Migrate(_))));
    drop(open(&path, MARGIN, MIGRATION).unwrap());
    drop(open(&path, MARGIN, "").unwrap());
}

#[test]
fn what_only_one_schema_declares_is_no_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    open(&path, PLAIN, "").unwrap().put("task", "t", [("owner", "ann".into())]).unwrap();
    drop(Db::open(&path, Schema::open()).unwrap());
    open(&path, r#""title":{}"#, "").unwrap().put("task", "t", [("title", "x".into())]).unwrap();
    // It is remembered all the same.
    assert!(matches!(open(&path, MARGIN, ""), Err(Error::Migrate(_))));
}

#[test]
fn looking_with_a_wrong_schema_binds_nobody_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    Db::open(&path, Schema::open()).unwrap().put("task", "t", [("owner", "ann".into())]).unwrap();
    let wrong = open(&path, MARGIN, "").unwrap();
    assert!(wrong.view("task", "t").unwrap().is_some());
    wrong.views("task").unwrap();
    wrong.status().unwrap();
    drop(wrong);
    let right = open(&path, PLAIN, "").unwrap();
    assert_eq!(Db::open(&path, Schema::open()).unwrap().undeclared().unwrap(), 0);
    // One who has it open meanwhile and writes after it has been bound is told so.
    let meanwhile = open(&path, MARGIN, "").unwrap();
    right.put("task", "t", [("owner", "bob".into())]).unwrap();
    assert!(Db::open(&path, Schema::open()).unwrap().undeclared().unwrap() > 0);
    let refused = meanwhile.put("task", "t", [("owner", "cid".into())]).unwrap_err().to_string();
    assert!(refused.contains("another schema") && refused.contains("`owner`"), "{refused}");
    assert_eq!(right.view("task", "t").unwrap().unwrap().fields["owner"], Shown::Value("bob".into()));
    assert!(matches!(open(&path, MARGIN, ""), Err(Error::Migrate(_))));
}
