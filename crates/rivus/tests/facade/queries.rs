//! Tables of views and subscribed queries.

use futures_util::{FutureExt, StreamExt};
use rivus::{Action, Db, Error, HubOptions, Op, ProjectionError, QuerySubscription, Schema};

fn schema() -> Schema {
    let entry = |k: rivus::KindBuilder| {
        k.value("user").value("start").value("stop").at_most_one("one running", ["user"], "stop", "start")
    };
    Schema::builder().kind("entry", entry).kind("note", |k| k.value("text")).build().unwrap()
}

fn open(path: &std::path::Path) -> Db {
    Db::builder().schema(schema()).project("entry").open(path).unwrap()
}

fn start(db: &Db, id: &str, at: i64) {
    db.put("entry", id, [("user", "u".into()), ("start", at.into()), ("stop", rivus::Value::Null)]).unwrap();
}

fn running(db: &Db) -> QuerySubscription<Vec<String>> {
    db.subscribe_query_with(&["entry"], |conn| {
        let mut query = conn.prepare_cached("SELECT id FROM view_entry WHERE stop IS NULL ORDER BY id")?;
        query.query_map([], |row| row.get(0))?.collect()
    })
    .unwrap()
}

fn next<T: Clone + PartialEq>(query: &mut QuerySubscription<T>) -> Option<T> {
    query.next().now_or_never().map(|found| found.unwrap().unwrap())
}

#[test]
fn a_query_runs_again_when_what_it_reads_changes_and_tells_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder.path().join("app.db"));
    let mut running = running(&db);
    assert_eq!(next(&mut running), Some(Vec::new()));
    assert_eq!(next(&mut running), None);
    db.put("note", "n", [("text", "x".into())]).unwrap();
    assert_eq!(next(&mut running), None);
    start(&db, "a", 1);
    assert_eq!(next(&mut running), Some(vec!["a".to_owned()]));
    // The rule ends the first one in the same commit: never are there two.
    start(&db, "b", 2);
    assert_eq!(next(&mut running), Some(vec!["b".to_owned()]));
    // Many changes, one run; what comes back to the same is not told.
    start(&db, "c", 3);
    db.apply(&[Op::new("entry", "c", Action::Delete)]).unwrap();
    let after = next(&mut running);
    assert_eq!(after, Some(Vec::new()), "a deleted winner restarts nobody");
    db.put("entry", "b", [("stop", 9.into())]).unwrap();
    assert_eq!(next(&mut running), None);
    drop(db);
    assert!(running.next().now_or_never().unwrap().is_none());
}

#[test]
fn a_query_that_fails_says_so_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder.path().join("app.db"));
    let mut query = db.subscribe_query(&["entry"], "SELECT nothing FROM view_entry", []).unwrap();
    assert!(matches!(query.next().now_or_never(), Some(Some(Err(Error::Query(_))))));
    assert!(query.next().now_or_never().is_none());
    start(&db, "a", 1);
    assert!(matches!(query.next().now_or_never(), Some(Some(Err(Error::Query(_))))));
    assert!(matches!(db.subscribe_query(&["x"], "SELECT 1", []), Err(Error::Edit(_))));
    let mut writes = db.subscribe_query(&["entry"], "DELETE FROM view_entry", []).unwrap();
    assert!(matches!(writes.next().now_or_never(), Some(Some(Err(Error::Query(_))))));
}

#[test]
fn tables_need_a_file() {
    let opened = Db::builder().schema(schema()).project("entry").memory();
    assert!(matches!(opened, Err(Error::Projection(ProjectionError::NoTables))));
    assert!(Db::memory(schema()).unwrap().read_connection().is_err());
}

#[tokio::test]
async fn a_query_hears_of_what_a_sync_brings() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Db::memory(schema()).unwrap();
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await.unwrap();
    let phone = open(&folder.path().join("phone.db"));
    let mut running = running(&phone);
    assert_eq!(running.next().await.unwrap().unwrap(), Vec::<String>::new());
    start(&hub, "a", 1);
    phone.sync(&served.url().into()).await.unwrap();
    assert_eq!(running.next().await.unwrap().unwrap(), ["a"]);
    served.shutdown().await;
}

#[test]
fn the_table_holds_what_another_opening_without_one_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let (keeper, other) = (open(&path), Db::open(&path, schema()).unwrap());
    start(&keeper, "a", 1);
    start(&other, "b", 2);
    let stop: i64 = keeper
        .read_connection()
        .unwrap()
        .query_row("SELECT stop FROM view_entry WHERE id = 'a'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(stop, 2);
}

#[test]
fn a_query_takes_nothing_an_array_a_tuple_or_a_list() {
    let folder = tempfile::tempdir().unwrap();
    let db = open(&folder.path().join("app.db"));
    start(&db, "a", 1);
    let count = |found: Option<rivus::QueryRows>| found.map(|found| found.rows.len());
    let all = "SELECT id FROM view_entry";
    let some = "SELECT id FROM view_entry WHERE user = ?1 AND start = ?2";
    assert_eq!(count(next(&mut db.subscribe_query(&["entry"], all, []).unwrap())), Some(1));
    assert_eq!(count(next(&mut db.subscribe_query(&["entry"], all, ()).unwrap())), Some(1));
    assert_eq!(count(next(&mut db.subscribe_query(&["entry"], some, ("u".to_owned(), 1)).unwrap())), Some(1));
    assert_eq!(
        count(next(&mut db.subscribe_query(&["entry"], some, ["u".to_owned(), "1".to_owned()]).unwrap())),
        Some(0)
    );
    let one = "SELECT id FROM view_entry WHERE start = ?1";
    assert_eq!(count(next(&mut db.subscribe_query(&["entry"], one, vec![1]).unwrap())), Some(1));
}

#[tokio::test]
async fn a_query_runs_again_when_rules_are_no_longer_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let phone = open(&folder.path().join("phone.db"));
    start(&phone, "a", 1);
    start(&phone, "b", 2);
    let mut running = running(&phone);
    assert_eq!(next(&mut running), Some(vec!["b".to_owned()]));
    // The hub's rules are of a later version, which the phone does not know; it brings no entry.
    let mut json: serde_json::Value = serde_json::from_str(&schema().to_json()).unwrap();
    json["epoch"] = 2.into();
    let hub = Db::memory(Schema::from_json_str(&json.to_string()).unwrap()).unwrap();
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await.unwrap();
    phone.sync(&served.url().into()).await.unwrap();
    assert!(phone.unresolved().unwrap().is_some());
    assert_eq!(next(&mut running), Some(vec!["a".to_owned(), "b".to_owned()]));
    served.shutdown().await;
}

#[test]
fn a_table_is_made_anew_when_entities_may_stand_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let schema = |aliases: bool| {
        let note =
            move |k: rivus::KindBuilder| if aliases { k.value("text").aliases() } else { k.value("text") };
        Schema::builder().kind("note", note).build().unwrap()
    };
    let open = |aliases| Db::builder().schema(schema(aliases)).project("note").open(&path).unwrap();
    let count = |db: &Db| -> i64 {
        let conn = db.read_connection().unwrap();
        conn.query_row("SELECT count(*) FROM view_note", [], |row| row.get(0)).unwrap()
    };
    let db = open(true);
    db.put("note", "a", [("text", "x".into())]).unwrap();
    db.put("note", "b", [("text", "x".into())]).unwrap();
    db.apply(&[Op::new("note", "a", Action::Alias { to: "b".into() })]).unwrap();
    assert_eq!(count(&db), 1);
    drop(db);
    let db = open(false);
    assert_eq!(count(&db), 2);
    drop(db);
    assert_eq!(count(&open(true)), 1);
}
