//! Entities as structs.

use std::collections::{BTreeMap, BTreeSet};

use rivus::{
    Action, Candidate, Db, EditError, Edited, Entity, Error, FieldType, Life, Margin, Op, Resolver, Schema,
    SetWins, Shown, Value,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    #[default]
    Open,
    Done,
}

#[derive(Entity, Debug, Clone, Default, PartialEq)]
#[rivus(life = "edit-revives")]
pub(crate) struct Task {
    #[rivus(id)]
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) state: State,
    #[rivus(margin_ms = 5000, resolver = "rank")]
    pub(crate) owner: Option<String>,
    #[rivus(group = "interval")]
    pub(crate) start: u64,
    #[rivus(group = "interval")]
    pub(crate) stop: Option<u64>,
    #[rivus(set)]
    pub(crate) tags: BTreeSet<String>,
    #[rivus(set, wins = "remove")]
    pub(crate) hidden_from: Vec<String>,
    #[rivus(map)]
    pub(crate) labels: BTreeMap<String, i64>,
    #[rivus(counter)]
    pub(crate) views: u32,
    #[rivus(multi)]
    pub(crate) notes: Vec<String>,
    #[rivus(max)]
    pub(crate) best: i64,
    #[rivus(min)]
    pub(crate) least: i64,
    #[rivus(flag)]
    pub(crate) starred: bool,
    #[rivus(margin = "inf", resolver = self::longest)]
    pub(crate) text: String,
    #[rivus(custom = count)]
    pub(crate) candidates: i64,
    #[rivus(rename = "type")]
    pub(crate) sort: String,
    pub(crate) r#ref: Option<Vec<u8>>,
}

fn longest(candidates: &[Candidate<'_>]) -> Value {
    let length = |value: &Value| if let Value::Text(text) = value { text.len() } else { 0 };
    candidates.iter().map(|c| c.value).max_by_key(|value| length(value)).cloned().unwrap_or(Value::Null)
}

fn count(candidates: &[Candidate<'_>]) -> Value {
    Value::Int(i64::try_from(candidates.len()).unwrap_or(i64::MAX))
}

/// Life not named: deletes win. A second kind, whose name is made of the struct's.
#[derive(Entity, Debug, Clone, Default, PartialEq)]
struct TimeEntry {
    #[rivus(id)]
    id: String,
    text: String,
}

fn task() -> Task {
    Task {
        id: "t1".into(),
        title: "write".into(),
        state: State::Done,
        owner: Some("ann".into()),
        start: 5,
        stop: None,
        tags: ["red".into(), "blue".into()].into(),
        hidden_from: vec!["bob".into()],
        labels: [("a".into(), 1), ("b".into(), 2)].into(),
        views: 7,
        notes: vec!["note".into()],
        best: 9,
        least: -9,
        starred: true,
        text: "text".into(),
        candidates: 1,
        sort: "chore".into(),
        r#ref: Some(vec![1, 2]),
    }
}

fn db() -> Db {
    Db::builder().entity::<Task>().entity::<TimeEntry>().memory().unwrap()
}

fn with_task() -> Db {
    let db = db();
    db.insert(&task()).unwrap();
    db
}

/// How many registers the edit wrote.
fn registers(edited: &Edited) -> usize {
    match edited {
        Edited::Nothing => 0,
        Edited::Committed { registers, .. } => *registers,
    }
}

/// Each register's name and key, with the stamp of its newest write.
fn stamps(db: &Db) -> BTreeMap<(u8, String, Vec<u8>), String> {
    let mut stamps = BTreeMap::new();
    db.registers("task", "t1", |at, state| {
        let stamp = state.shown.newest().stamp.to_string();
        stamps.insert((at.class, at.name.to_owned(), at.key.to_owned()), stamp);
    })
    .unwrap();
    stamps
}

/// The registers that the edit wrote, by name and key.
fn written(db: &Db, edit: impl FnMut(&mut Task)) -> Vec<String> {
    let before = stamps(db);
    let edited = db.edit::<Task>("t1", edit).unwrap();
    let after = stamps(db);
    let changed = after.iter().filter(|(at, stamp)| before.get(at) != Some(stamp));
    let names = changed.map(|((class, name, key), _)| match class {
        0 => "life".to_owned(),
        4 => format!("{name}+"),
        _ if key.is_empty() => name.clone(),
        _ => format!("{name}.{}", String::from_utf8_lossy(key)),
    });
    let names: Vec<_> = names.collect();
    assert_eq!(names.len(), registers(&edited));
    names
}

#[test]
fn the_struct_declares_the_schema() {
    let schema = db().schema().clone();
    let task = schema.kind("task").unwrap();
    assert_eq!((task.life, task.open), (Life::EditRevives, false));
    let ty = |name: &str| task.field(name).unwrap().ty.clone();
    assert_eq!(ty("owner"), FieldType::Value { margin: Margin::Ms(5000), resolver: Resolver::Rank });
    assert_eq!(ty("tags"), FieldType::Set { wins: SetWins::Add });
    assert_eq!(ty("hidden_from"), FieldType::Set { wins: SetWins::Remove });
    assert_eq!(ty("labels"), FieldType::Map);
    assert_eq!(ty("views"), FieldType::Counter);
    assert_eq!(ty("notes"), FieldType::Multi);
    assert_eq!((ty("best"), ty("least"), ty("starred")), (FieldType::Max, FieldType::Min, FieldType::Flag));
    assert_eq!(ty("text").to_string(), "value, margin inf, custom:longest");
    assert_eq!(ty("candidates").to_string(), "custom, custom:count");
    assert_eq!(task.group("interval").unwrap().members, ["start", "stop"]);
    assert!(task.field("sort").is_none() && task.field("type").is_some() && task.field("ref").is_some());
    assert_eq!(schema.kind("time_entry").unwrap().life, Life::DeleteWins);
}

#[test]
fn what_was_inserted_is_read_back() {
    let db = with_task();
    assert_eq!(db.get::<Task>("t1").unwrap(), Some(task()));
    assert_eq!(db.list::<Task>().unwrap(), [task()]);
    assert_eq!(db.get::<Task>("t2").unwrap(), None);
    let empty = Task { id: "t2".into(), candidates: 1, ..Task::default() };
    db.insert(&empty).unwrap();
    assert_eq!(db.get::<Task>("t2").unwrap(), Some(empty));
}

#[test]
fn an_edit_writes_only_what_changed() {
    let db = with_task();
    assert_eq!(written(&db, |_| {}), Vec::<String>::new());
    // Under `edit-revives` an edit also says that the entity lives.
    assert_eq!(written(&db, |t| t.title = "read".into()), ["life", "title"]);
    assert_eq!(written(&db, |t| t.owner = None), ["life", "owner"]);
    let keys = |t: &mut Task| {
        t.tags.remove("red");
        t.tags.insert("green".into());
    };
    assert_eq!(written(&db, keys), ["life", "tags.green", "tags.red"]);
    let entries = |t: &mut Task| {
        t.labels.insert("b".into(), 3);
        t.labels.insert("c".into(), 4);
        t.labels.remove("a");
    };
    assert_eq!(written(&db, entries), ["life", "labels.a", "labels.b", "labels.c"]);
    assert_eq!(written(&db, |t| t.views += 3), ["life", "views+"]);
    assert_eq!(written(&db, |t| t.notes = vec!["other".into()]), ["life", "notes"]);
    let mut expected = task();
    expected.title = "read".into();
    expected.owner = None;
    expected.tags = ["blue".into(), "green".into()].into();
    expected.labels = [("b".into(), 3), ("c".into(), 4)].into();
    expected.views = 10;
    expected.notes = vec!["other".into()];
    assert_eq!(db.get::<Task>("t1").unwrap(), Some(expected));
}

#[test]
fn a_group_is_written_whole() {
    let db = with_task();
    assert_eq!(written(&db, |t| t.stop = Some(8)), ["life", "interval"]);
    let read = db.get::<Task>("t1").unwrap().unwrap();
    assert_eq!((read.start, read.stop), (5, Some(8)));
    // One member named alone: the other is stored beside it all the same.
    db.put("task", "t2", [("stop", 3.into())]).unwrap();
    let view = db.view("task", "t2").unwrap().unwrap();
    assert_eq!(view.fields.get("start"), Some(&Shown::Value(Value::Null)));
    assert_eq!(db.get::<Task>("t2").unwrap().unwrap().start, 0);
}

#[test]
fn fields_that_are_not_held_show_as_default_and_are_not_written() {
    let db = db();
    db.put("task", "t1", [("title", "write".into())]).unwrap();
    let read = db.get::<Task>("t1").unwrap().unwrap();
    assert_eq!(read, Task { id: "t1".into(), title: "write".into(), ..Task::default() });
    assert_eq!(written(&db, |t| t.state = State::Done), ["life", "state"]);
}

#[test]
fn an_entity_exists_once() {
    let db = with_task();
    let exists = Err(Error::Edit(EditError::Exists { kind: "task".into(), id: "t1".into() }));
    assert_eq!(db.insert(&task()), exists);
}

#[test]
fn an_insert_of_a_deleted_id_says_that_it_is_deleted_and_what_to_do() {
    let db = with_task();
    db.delete::<Task>("t1").unwrap();
    let deleted = EditError::Deleted { kind: "task".into(), id: "t1".into() };
    assert_eq!(db.insert(&task()), Err(Error::Edit(deleted.clone())));
    assert_eq!(deleted.to_string(), "task `t1` is deleted: revive it first");
    db.revive::<Task>("t1").unwrap();
    assert_eq!(db.get::<Task>("t1").unwrap(), Some(task()));
}

#[test]
fn a_deleted_entity_is_hidden_until_it_is_revived() {
    let db = db();
    let entry = TimeEntry { id: "e1".into(), text: "x".into() };
    let edit = |db: &Db| db.edit::<TimeEntry>("e1", |e| e.text = "y".into());
    let not_there = Error::Edit(EditError::NotThere { kind: "time_entry".into(), id: "e1".into() });
    assert_eq!(edit(&db), Err(not_there.clone()));
    db.insert(&entry).unwrap();
    db.delete::<TimeEntry>("e1").unwrap();
    assert_eq!(db.get::<TimeEntry>("e1").unwrap(), None);
    assert_eq!(db.list::<TimeEntry>().unwrap(), []);
    let deleted = Error::Edit(EditError::Deleted { kind: "time_entry".into(), id: "e1".into() });
    assert_eq!(edit(&db), Err(deleted.clone()));
    assert_eq!(db.edit::<TimeEntry>("e1", |_| {}), Err(deleted));
    assert_eq!(db.delete::<TimeEntry>("e1"), Err(not_there));
    db.revive::<TimeEntry>("e1").unwrap();
    assert_eq!(db.get::<TimeEntry>("e1").unwrap(), Some(entry));
    assert!(matches!(db.revive::<TimeEntry>("e1"), Err(Error::Edit(EditError::NotDeleted { .. }))));
}

#[test]
fn where_edits_revive_an_edit_starts_from_what_was_hidden() {
    let db = with_task();
    db.delete::<Task>("t1").unwrap();
    db.edit::<Task>("t1", |t| {
        assert_eq!(*t, task());
        t.best += 1;
    })
    .unwrap();
    assert_eq!(db.get::<Task>("t1").unwrap(), Some(Task { best: 10, ..task() }));
}

#[test]
fn an_id_stays() {
    let db = with_task();
    let changed = db.edit::<Task>("t1", |t| t.id = "t2".into());
    let expected = Error::IdChanged { kind: "task".into(), id: "t1".into(), now: "t2".into() };
    assert_eq!(changed, Err(expected));
    assert_eq!(db.list::<Task>().unwrap(), [task()]);
}

#[test]
fn what_does_not_fit_the_struct_is_named() {
    let db = with_task();
    db.put("task", "t1", [("state", "paused".into())]).unwrap();
    let message = db.get::<Task>("t1").unwrap_err().to_string();
    for part in ["`state`", "task `t1`", "paused"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert!(db.edit::<Task>("t1", |t| t.best += 1).is_err());
    let inc = Action::Inc { field: "views".into(), by: -100 };
    db.put("task", "t1", [("state", "done".into())]).unwrap();
    db.apply(&[Op::new("task", "t1", inc)]).unwrap();
    let error = db.get::<Task>("t1").unwrap_err();
    assert!(matches!(&error, Error::Field { field, .. } if field == "views"), "{error}");
}

#[test]
fn a_multi_field_is_written_as_one_value() {
    let db = with_task();
    for notes in [vec![], vec!["a".to_owned(), "b".to_owned()]] {
        let refused = db.edit::<Task>("t1", |t| t.notes.clone_from(&notes)).unwrap_err();
        assert!(matches!(&refused, Error::Field { field, .. } if field == "notes"), "{refused}");
    }
    assert_eq!(db.get::<Task>("t1").unwrap(), Some(task()));
}

#[test]
fn a_struct_that_merges_otherwise_than_the_schema_is_refused() {
    let other =
        Schema::builder().kind("time_entry", |k| k.value_with("text", Margin::Ms(1), Resolver::Newest));
    let refused = Db::builder().schema(other.build().unwrap()).entity::<TimeEntry>().memory().unwrap_err();
    let message = refused.to_string();
    assert!(message.contains("\"value, margin 0 ms, newest\" here"), "{message}");
    let more = Schema::builder().kind("time_entry", |k| k.value("text").value("more"));
    let db = Db::builder().schema(more.build().unwrap()).entity::<TimeEntry>().memory().unwrap();
    assert!(db.schema().kind("time_entry").unwrap().field("more").is_some());
}

#[test]
fn a_transaction_is_all_or_nothing_and_reads_what_it_did() {
    let db = with_task();
    let (entry, mut stamps) = (TimeEntry { id: "e1".into(), text: "x".into() }, BTreeSet::new());
    let views = db.transaction(|tx| {
        tx.insert(&entry)?;
        tx.edit::<Task>("t1", |t| t.views += 1)?;
        tx.edit::<Task>("t1", |t| t.views += 1)?;
        Ok(tx.get::<Task>("t1")?.unwrap().views)
    });
    assert_eq!(views, Ok(9));
    for (kind, id, name) in [("task", "t1", "views"), ("time_entry", "e1", "text")] {
        db.registers(kind, id, |at, state| {
            if at.name == name {
                stamps.insert(state.shown.newest().stamp);
            }
        })
        .unwrap();
    }
    assert_eq!(stamps.len(), 1, "one edit has one stamp");

    let before = db.status().unwrap();
    let refused = db.transaction(|tx| {
        tx.delete::<TimeEntry>("e1")?;
        tx.edit::<Task>("t2", |_| {})
    });
    assert!(matches!(refused, Err(Error::Edit(EditError::NotThere { .. }))));
    let given_up = db.transaction(|tx| {
        tx.delete::<TimeEntry>("e1")?;
        Err::<(), _>(Error::app("no"))
    });
    assert_eq!(given_up, Err(Error::app("no")));
    assert_eq!(db.status().unwrap(), before);
}

#[test]
fn a_write_that_failed_in_part_cannot_be_passed_over() {
    let db = with_task();
    let before = db.status().unwrap();
    let done = db.transaction(|tx| {
        // The title is noted before the unknown field is met.
        let ignored = tx.put("task", "t1", [("title", "half".into()), ("unknown", 1.into())]);
        assert!(ignored.is_err());
        Ok(())
    });
    assert!(matches!(done, Err(Error::Edit(EditError::UndeclaredField { .. }))), "{done:?}");
    assert_eq!(db.status().unwrap(), before);
    // One that was refused before it wrote anything can.
    let done = db.transaction(|tx| tx.insert(&task()).or_else(|_| tx.edit::<Task>("t1", |t| t.best = 1)));
    assert_eq!(done, Ok(()));
    assert_eq!(db.get::<Task>("t1").unwrap().unwrap().best, 1);
}

macro_rules! entity {
    ($name:ident { $($field:ident: $ty:ty),* }) => {
        #[derive(rivus::Entity, Debug, PartialEq, Clone)]
        struct $name {
            #[rivus(id)]
            id: String,
            $($field: $ty,)*
        }
    };
}

entity!(Made { text: String, count: Option<i64> });

#[test]
fn the_derive_works_in_what_a_macro_writes() {
    let db = rivus::Db::builder().entity::<Made>().memory().unwrap();
    let made = Made { id: "m".into(), text: "x".into(), count: Some(3) };
    db.insert(&made).unwrap();
    assert_eq!(db.get::<Made>("m").unwrap(), Some(made.clone()));
    let nameless = db.insert(&Made { id: String::new(), ..made });
    assert!(nameless.unwrap_err().to_string().contains("has no id"));
}
