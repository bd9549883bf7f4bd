//! The journal and taking edits back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rivus::{
    Action, Builder, Db, Edited, Error, HubOptions, JournalKeep, LogEntry, LogFilter, LogWhat, Millis, Op,
    Origin, Schema, Shown, UndoError, Value,
};

fn schema() -> Schema {
    let task = |k: rivus::KindBuilder| {
        k.value("title")
            .value("done")
            .value("start")
            .value("stop")
            .group("interval", ["start", "stop"])
            .set("tags")
            .map("labels")
            .counter("views")
            .multi("notes")
    };
    Schema::builder().kind("task", task).build().unwrap()
}

fn builder() -> Builder {
    Db::builder().schema(schema()).journal(JournalKeep::default())
}

fn db() -> Db {
    builder().memory().unwrap()
}

fn log(db: &Db) -> Vec<LogEntry> {
    db.log(&LogFilter::default()).unwrap()
}

fn last(db: &Db) -> u64 {
    log(db).last().unwrap().number
}

fn fields(db: &Db) -> std::collections::BTreeMap<String, Shown> {
    db.view("task", "t").unwrap().unwrap().fields
}

fn act(db: &Db, action: Action) {
    assert_ne!(db.apply(&[Op::new("task", "t", action)]).unwrap(), Edited::Nothing);
}

#[test]
fn each_entry_says_what_was_before_and_what_is_since() {
    let db = db();
    db.put("task", "t", [("title", "a".into())]).unwrap();
    db.put("task", "t", [("title", "b".into()), ("start", 5.into())]).unwrap();
    act(&db, Action::Add { field: "tags".into(), key: "red".into() });
    act(&db, Action::SetKey { field: "labels".into(), key: "k".into(), value: 1.into() });
    act(&db, Action::Inc { field: "views".into(), by: 2 });
    act(&db, Action::Delete);
    let log = log(&db);
    assert!(log.is_sorted_by_key(|entry| entry.number));
    assert!(log.iter().all(|entry| entry.origin == Origin::Local));
    let told: Vec<Vec<_>> = log
        .iter()
        .map(|entry| {
            let told = |c: &rivus::LogChange| (c.what.clone(), c.before.clone(), c.after.clone());
            entry.changes.iter().map(told).collect()
        })
        .collect();
    let field = |name: &str| LogWhat::Field(name.to_owned());
    let (yes, no) = (Some(Value::Bool(true)), Some(Value::Bool(false)));
    assert_eq!(told[0], [(LogWhat::Life, None, yes.clone()), (field("title"), None, Some("a".into()))]);
    let interval = [("start".to_owned(), 5.into()), ("stop".to_owned(), Value::Null)];
    let interval = (LogWhat::Group("interval".to_owned()), None, Some(Value::Map(interval.into())));
    assert_eq!(told[1], [(field("title"), Some("a".into()), Some("b".into())), interval]);
    let key = |field: &str, key: &str| LogWhat::Key { field: field.to_owned(), key: key.to_owned() };
    assert_eq!(told[2], [(key("tags", "red"), None, yes.clone())]);
    assert_eq!(told[3], [(key("labels", "k"), None, Some(1.into()))]);
    assert!(matches!(&told[4][..], [(LogWhat::Count { .. }, None, Some(Value::Int(2)))]));
    assert_eq!(told[5], [(LogWhat::Life, yes, no)]);
}

#[test]
fn what_changes_nothing_is_not_told_and_without_a_journal_nothing_is() {
    let db = db();
    db.put("task", "t", [("title", "a".into())]).unwrap();
    act(&db, Action::Add { field: "tags".into(), key: "red".into() });
    let before = log(&db);
    // It is written, but shows already.
    act(&db, Action::Add { field: "tags".into(), key: "red".into() });
    assert_eq!(log(&db), before);
    db.keep_journal(None).unwrap();
    assert!(log(&db).is_empty());
    db.put("task", "t", [("title", "b".into())]).unwrap();
    assert!(log(&db).is_empty());
    let none = Db::builder().schema(schema()).memory().unwrap();
    none.put("task", "t", [("title", "x".into())]).unwrap();
    assert!(matches!(none.undo(1), Err(Error::Undo(UndoError::NoJournal))));
}

#[test]
fn a_journal_is_bounded_by_entries_bytes_and_age() {
    let clock = Arc::new(AtomicI64::new(1_000_000));
    let now = Arc::clone(&clock);
    let none = JournalKeep { days: None, bytes: None, entries: None };
    let db = builder().clock(move || Millis(now.load(Ordering::Relaxed))).journal(none).memory().unwrap();
    let put = |n: i64| {
        db.put("task", "t", [("title", n.into())]).unwrap();
    };
    (0..50).for_each(put);
    assert_eq!(log(&db).len(), 50);
    db.keep_journal(JournalKeep { entries: Some(10), ..none }).unwrap();
    put(50);
    assert_eq!(log(&db).len(), 10);
    put(51);
    let titles: Vec<_> = log(&db).iter().map(|entry| entry.changes[0].after.clone().unwrap()).collect();
    assert_eq!(titles, (42..52).map(Value::from).collect::<Vec<_>>());
    db.keep_journal(JournalKeep { bytes: Some(200), ..none }).unwrap();
    (52..90).for_each(put);
    let few = log(&db).len();
    assert!((1..6).contains(&few), "{few} entries are more than 200 bytes");
    db.keep_journal(JournalKeep { days: Some(1), ..none }).unwrap();
    clock.fetch_add(24 * 60 * 60 * 1000, Ordering::Relaxed);
    put(90);
    assert_eq!(log(&db).len(), few + 1, "a day old is not older than a day");
    clock.fetch_add(1, Ordering::Relaxed);
    put(91);
    assert_eq!(log(&db).len(), 2);
}

#[test]
fn an_undo_brings_back_what_was_before_of_every_type() {
    let db = db();
    db.put(
        "task",
        "t",
        [("title", "a".into()), ("start", 1.into()), ("stop", 2.into()), ("notes", "n".into())],
    )
    .unwrap();
    act(&db, Action::SetKey { field: "labels".into(), key: "k".into(), value: 1.into() });
    act(&db, Action::SetKey { field: "labels".into(), key: "l".into(), value: 2.into() });
    act(&db, Action::Add { field: "tags".into(), key: "red".into() });
    act(&db, Action::Inc { field: "views".into(), by: 4 });
    let before = fields(&db);
    db.transaction(|tx| {
        tx.put("task", "t", [("title", "b".into()), ("stop", 3.into()), ("notes", "m".into())])?;
        for action in [
            Action::SetKey { field: "labels".into(), key: "k".into(), value: 9.into() },
            Action::Remove { field: "labels".into(), key: "l".into() },
            Action::Remove { field: "tags".into(), key: "red".into() },
            Action::Add { field: "tags".into(), key: "blue".into() },
            Action::Inc { field: "views".into(), by: 10 },
        ] {
            tx.apply(&Op::new("task", "t", action))?;
        }
        Ok(())
    })
    .unwrap();
    assert_ne!(fields(&db), before);
    let done = last(&db);
    let undone = db.undo(done).unwrap();
    assert!(undone.left.is_empty(), "{:?}", undone.left);
    assert_eq!(fields(&db), before);
    // It is an edit like any other: it can be taken back, too.
    assert!(last(&db) > done);
    db.undo(last(&db)).unwrap();
    assert_eq!(fields(&db)["title"], Shown::Value("b".into()));
    assert_eq!(fields(&db)["views"], Shown::Counter(14));
}

#[test]
fn an_undo_leaves_what_has_changed_since_and_says_so() {
    let db = db();
    db.put("task", "t", [("title", "a".into()), ("start", 1.into()), ("stop", 2.into())]).unwrap();
    db.put(
        "task",
        "t",
        [("title", "b".into()), ("done", true.into()), ("start", 5.into()), ("stop", 6.into())],
    )
    .unwrap();
    let done = last(&db);
    db.put("task", "t", [("title", "c".into()), ("stop", 7.into())]).unwrap();
    let undone = db.undo(done).unwrap();
    let left: Vec<_> = undone.left.iter().filter_map(|change| change.what.name()).collect();
    assert_eq!(left, ["title", "interval"]);
    let fields = fields(&db);
    assert_eq!(fields["title"], Shown::Value("c".into()));
    assert_eq!(fields["done"], Shown::Value(Value::Null));
    assert_eq!((&fields["start"], &fields["stop"]), (&Shown::Value(1.into()), &Shown::Value(7.into())));
    let again = db.undo(done).unwrap();
    assert_eq!(again.edited, Edited::Nothing);
    assert_eq!(db.undo(9_999).unwrap_err(), Error::Undo(UndoError::Missing { number: 9_999 }));
}

#[test]
fn an_undo_takes_a_creation_a_deletion_and_a_revival_back() {
    let db = db();
    let is_deleted = || db.view("task", "t").unwrap().unwrap().deleted;
    db.put("task", "t", [("title", "a".into())]).unwrap();
    let made = last(&db);
    act(&db, Action::Delete);
    let deleted = last(&db);
    assert_eq!(db.undo(made).unwrap().left.len(), 2, "it is deleted already");
    db.undo(deleted).unwrap();
    assert!(!is_deleted());
    db.undo(last(&db)).unwrap();
    assert!(is_deleted());
    act(&db, Action::Revive);
    let revived = last(&db);
    db.undo(revived).unwrap();
    assert!(is_deleted());
    act(&db, Action::Revive);
    db.undo(made).unwrap();
    assert!(is_deleted());
    act(&db, Action::Revive);
    db.put("task", "t", [("title", "b".into())]).unwrap();
    assert_eq!(db.undo(made).unwrap().left.len(), 2, "its title is another");
    assert!(!is_deleted());
}

#[tokio::test]
async fn what_others_sent_is_told_as_theirs_and_is_theirs_to_take_back() {
    let (hub, phone) = (db(), db());
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await.unwrap();
    phone.put("task", "t", [("title", "a".into())]).unwrap();
    phone.sync(&served.url().into()).await.unwrap();
    hub.put("task", "t", [("title", "b".into())]).unwrap();
    phone.sync(&served.url().into()).await.unwrap();
    let origins = |db: &Db| log(db).iter().map(|entry| entry.origin).collect::<Vec<_>>();
    assert!(matches!(origins(&hub)[..], [Origin::Remote(_), Origin::Local]));
    assert!(matches!(origins(&phone)[..], [Origin::Local, Origin::Remote(_)]));
    let number = last(&phone);
    assert_eq!(phone.undo(number).unwrap_err(), Error::Undo(UndoError::NotOwn { number }));
    served.shutdown().await;
}

#[test]
fn a_journal_is_the_stores_and_every_opening_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let one = builder().open(&path).unwrap();
    let other = Db::open(&path, schema()).unwrap();
    one.put("task", "t", [("title", "a".into())]).unwrap();
    other.put("task", "t", [("title", "b".into())]).unwrap();
    one.put("task", "t", [("title", "c".into())]).unwrap();
    let entity = LogFilter::default().entity("task", "t");
    assert_eq!(other.log(&entity).unwrap().len(), 3);
    assert!(other.log(&LogFilter::default().entity("task", "u")).unwrap().is_empty());
    assert_eq!(other.log(&entity.clone().last(2)).unwrap()[0].changes[0].after, Some("b".into()));
    let second = other.log(&entity).unwrap()[1].number;
    assert_eq!(other.log(&entity.from(second)).unwrap().len(), 2);
    drop((one, other));
    assert!(Db::open(&path, schema()).unwrap().journal_keep().unwrap().is_some());
    let ended = Db::builder().schema(schema()).journal(None).open(&path).unwrap();
    assert!(log(&ended).is_empty());
}

#[test]
fn an_undo_of_a_note_leaves_the_end_that_a_rule_had_shown() {
    for group in [false, true] {
        let timer = |k: rivus::KindBuilder| {
            let k = ["user", "note", "start", "stop"].into_iter().fold(k, rivus::KindBuilder::value);
            let k = if group { k.group("interval", ["start", "stop"]) } else { k };
            k.at_most_one("one running", ["user"], "stop", "start")
        };
        let schema = Schema::builder().kind("timer", timer).build().unwrap();
        let db = Db::builder().schema(schema).journal(JournalKeep::default()).memory().unwrap();
        for (id, start) in [("a", 1000), ("b", 5000)] {
            let fields = [("user", "ann".into()), ("start", start.into()), ("stop", Value::Null)];
            db.put("timer", id, fields).unwrap();
        }
        let stops = || {
            let stop = |id| db.view("timer", id).unwrap().unwrap().fields["stop"].clone();
            [stop("a"), stop("b")]
        };
        let before = [Shown::Value(5000.into()), Shown::Value(Value::Null)];
        assert_eq!(stops(), before);
        db.put("timer", "a", [("note", "typo".into())]).unwrap();
        let entry = log(&db).pop().unwrap();
        assert_eq!(entry.changes.len(), 1, "the end showed before: {entry:?}");
        assert!(db.undo(entry.number).unwrap().left.is_empty());
        let note = db.view("timer", "a").unwrap().unwrap().fields.get("note").cloned();
        assert_eq!((note, stops()), (Some(Shown::Value(Value::Null)), before));
        // What the user has set is another matter.
        db.put("timer", "b", [("stop", 6000.into())]).unwrap();
        db.undo(last(&db)).unwrap();
        assert_eq!(stops()[1], Shown::Value(Value::Null));
    }
}

#[test]
fn an_undo_of_a_creation_leaves_an_entity_that_has_got_more_since() {
    let db = db();
    db.put("task", "t", [("title", "one".into())]).unwrap();
    let made = last(&db);
    db.put("task", "t", [("done", true.into())]).unwrap();
    let later = last(&db);
    let undone = db.undo(made).unwrap();
    assert!(undone.edited == Edited::Nothing && !undone.left.is_empty(), "{undone:?}");
    assert_eq!(fields(&db)["done"], Shown::Value(true.into()));
    db.undo(later).unwrap();
    assert!(db.undo(made).unwrap().left.is_empty());
    assert!(db.view("task", "t").unwrap().unwrap().deleted);
}
