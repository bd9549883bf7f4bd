//! Forms that are open while others edit, and kinds that are cleared.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rivus::{Db, EditError, Edited, Entity, Error, Schema};

#[derive(Entity, Debug, Clone, Default, PartialEq)]
struct Form {
    #[rivus(id)]
    id: String,
    title: String,
    owner: Option<u8>,
    #[rivus(group = "interval")]
    start: u8,
    #[rivus(group = "interval")]
    stop: Option<u8>,
    #[rivus(set)]
    tags: BTreeSet<String>,
    #[rivus(map)]
    labels: BTreeMap<String, u8>,
    #[rivus(counter)]
    views: i32,
}

/// Few values, so that both sides often do the same.
fn form() -> impl Strategy<Value = Form> {
    let keys = || prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned);
    (
        prop::sample::select(vec!["x", "y"]),
        prop::option::of(0..2_u8),
        0..2_u8,
        prop::option::of(0..2_u8),
        prop::collection::btree_set(keys(), 0..3),
        prop::collection::btree_map(keys(), 0..2_u8, 0..3),
        0..3_i32,
    )
        .prop_map(|(title, owner, start, stop, tags, labels, views)| {
            let (id, title) = ("f".to_owned(), title.to_owned());
            Form { id, title, owner, start, stop, tags, labels, views }
        })
}

/// What a form's side makes of a field: its own if it changed it.
fn pick<T: PartialEq + Clone>(loaded: &T, now: &T, edited: &T) -> T {
    if edited == loaded { now.clone() } else { edited.clone() }
}

/// The union of what both sides did since `loaded`.
fn merged(loaded: &Form, now: &Form, edited: &Form) -> Form {
    let has = |key: &String| {
        let (then, here) = (loaded.tags.contains(key), edited.tags.contains(key));
        if then == here { now.tags.contains(key) } else { here }
    };
    let label = |key: &String| {
        let value = pick(&loaded.labels.get(key), &now.labels.get(key), &edited.labels.get(key));
        value.map(|value| (key.clone(), *value))
    };
    let keys = ["a", "b", "c"].map(str::to_owned);
    Form {
        id: loaded.id.clone(),
        title: pick(&loaded.title, &now.title, &edited.title),
        owner: pick(&loaded.owner, &now.owner, &edited.owner),
        start: pick(&loaded.start, &now.start, &edited.start),
        stop: pick(&loaded.stop, &now.stop, &edited.stop),
        tags: keys.iter().filter(|key| has(key)).cloned().collect(),
        labels: keys.iter().filter_map(label).collect(),
        views: now.views + edited.views - loaded.views,
    }
}

fn differing(loaded: &Form, now: &Form) -> Vec<&'static str> {
    let fields = [
        ("labels", loaded.labels != now.labels),
        ("owner", loaded.owner != now.owner),
        ("start", loaded.start != now.start),
        ("stop", loaded.stop != now.stop),
        ("tags", loaded.tags != now.tags),
        ("title", loaded.title != now.title),
        ("views", loaded.views != now.views),
    ];
    fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

proptest! {
    #[test]
    fn a_form_writes_what_its_user_changed_and_nothing_else(
        loaded in form(), now in form(), edited in form(),
    ) {
        let db = Db::builder().entity::<Form>().memory().unwrap();
        db.insert(&loaded).unwrap();
        db.edit::<Form>("f", |form| *form = now.clone()).unwrap();
        let saved = db.save(&loaded, &edited).unwrap();
        prop_assert_eq!(db.get::<Form>("f").unwrap().unwrap(), merged(&loaded, &now, &edited));
        let told: Vec<_> = saved.underneath.iter().map(|changed| changed.field.as_str()).collect();
        prop_assert_eq!(told, differing(&loaded, &now));
        if edited == loaded {
            prop_assert_eq!(saved.edited, Edited::Nothing);
        }
    }
}

#[test]
fn what_is_gone_cannot_be_saved() {
    let db = Db::builder().entity::<Form>().memory().unwrap();
    let form = Form { id: "f".into(), ..Form::default() };
    let edited = Form { title: "x".into(), ..form.clone() };
    assert!(matches!(db.save(&form, &edited), Err(Error::Edit(EditError::NotThere { .. }))));
    db.insert(&form).unwrap();
    db.delete::<Form>("f").unwrap();
    assert!(matches!(db.save(&form, &edited), Err(Error::Edit(EditError::Deleted { .. }))));
    let other = Form { id: "g".into(), ..form.clone() };
    assert!(matches!(db.save(&form, &other), Err(Error::IdChanged { .. })));
}

#[test]
fn a_kind_is_deleted_in_as_many_edits_as_it_needs() {
    let db = Db::memory(Schema::open()).unwrap();
    // Long ids: what bounds an edit are its bytes.
    let id = |n: u32| format!("{n:01000}");
    for from in [0, 3000, 6000] {
        db.transaction(|tx| {
            (from..from + 3000).try_for_each(|n| tx.put("task", &id(n), [("n", i64::from(n).into())]))
        })
        .unwrap();
    }
    db.put("note", "n", [("n", 1.into())]).unwrap();
    db.transaction(|tx| tx.apply(&rivus::Op::new("task", id(7), rivus::Action::Delete))).unwrap();
    assert_eq!(db.delete_all("task").unwrap(), 8999);
    assert_eq!((db.views("task").unwrap().len(), db.views("note").unwrap().len()), (0, 1));
    assert_eq!(db.delete_all("task").unwrap(), 0);
    assert!(db.view("task", &id(8999)).unwrap().unwrap().deleted);
}
