//! Use by kind, id and field, without structs.

use rivus::{Action, Db, EditError, Edited, Error, Op, Schema, Shown, Value};

fn db() -> Db {
    let kind = |k: rivus::KindBuilder| k.value("title").set("tags").map("labels").counter("views");
    Db::memory(Schema::builder().kind("task", kind).build().unwrap()).unwrap()
}

#[test]
fn every_operation_works_by_name() {
    let db = db();
    let op = |action| Op::new("task", "t1", action);
    let (field, key) = (|name: &str| name.to_owned(), || "k".to_owned());
    db.put("task", "t1", [("title", Value::from("x"))]).unwrap();
    db.apply(&[
        op(Action::Add { field: field("tags"), key: key() }),
        op(Action::SetKey { field: field("labels"), key: key(), value: 3.into() }),
        op(Action::Inc { field: field("views"), by: 2 }),
    ])
    .unwrap();
    let view = db.view("task", "t1").unwrap().unwrap();
    let json = |shown: &Shown| format!("{shown:?}");
    let fields: Vec<_> = view.fields.iter().map(|(name, shown)| format!("{name}={}", json(shown))).collect();
    assert_eq!(
        fields,
        ["labels=Map({\"k\": Int(3)})", "tags=Set({\"k\"})", "title=Value(Text(\"x\"))", "views=Counter(2)"]
    );
    assert_eq!(db.put("task", "t1", [("title", "x".into())]).unwrap(), Edited::Nothing);
    db.apply(&[op(Action::Delete)]).unwrap();
    assert!(db.view("task", "t1").unwrap().unwrap().deleted);
    assert!(db.views("task").unwrap().is_empty());
    assert_eq!(db.kinds().unwrap(), ["task"]);
    db.apply(&[op(Action::Revive)]).unwrap();
    assert_eq!(db.views("task").unwrap(), [("t1".to_owned(), view)]);
}

#[test]
fn an_undeclared_kind_is_an_error_and_not_empty() {
    let undeclared = Error::Edit(EditError::UndeclaredKind { kind: "taks".into() });
    assert_eq!(db().view("taks", "t1"), Err(undeclared.clone()));
    assert_eq!(db().views("taks"), Err(undeclared.clone()));
    assert_eq!(db().put("taks", "t1", [("title", "x".into())]), Err(undeclared));
    let open = Db::memory(Schema::open()).unwrap();
    assert_eq!(open.view("taks", "t1"), Ok(None));
}

#[test]
fn all_pages_of_ids_are_listed() {
    let db = db();
    let ids: Vec<_> = (0..2_500).map(|number| format!("{number:05}")).collect();
    let ops: Vec<_> = ids.iter().map(|id| Op::new("task", id, Action::Put(Vec::new()))).collect();
    db.apply(&ops).unwrap();
    let listed: Vec<_> = db.views("task").unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(listed, ids);
    assert_eq!(db.status().unwrap().entities, 2_500);
}

#[test]
fn status_tells_where_the_store_stands() {
    let db = db();
    let empty = db.status().unwrap();
    assert_eq!((empty.seq, empty.entities, empty.digest.as_str()), (0, 0, "0".repeat(32).as_str()));
    db.put("task", "t1", [("title", "x".into())]).unwrap();
    let after = db.status().unwrap();
    assert_eq!((after.seq, after.registers, after.entities), (1, 2, 1));
    assert_eq!((after.store, after.replica), (empty.store, empty.replica));
    assert_ne!(after.digest, empty.digest);
}
