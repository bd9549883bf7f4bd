//! Entities that stand for others.

use proptest::prelude::*;

use super::sync::sync;
use super::*;

fn notes() -> Arc<Schema> {
    let json = r#"{"kinds":{"task":{"aliases":true,"fields":{"title":{},"text":{},"views":{"type":"counter"}},
        "rules":[{"rule":"unique","name":"titles","group":[],"field":"title"}]}}}"#;
    Arc::new(Schema::from_json_str(json).unwrap())
}

fn with(n: u64) -> Device {
    open_with(MemoryStore::new(), n, notes())
}

fn alias(to: &str) -> Action {
    Action::Alias { to: to.to_owned() }
}

fn title(device: &Device, id: &str) -> Option<String> {
    let view = device.view("task", id).unwrap().filter(|view| !view.deleted)?;
    match view.fields.get("title") {
        Some(Shown::Value(Value::Text(title))) => Some(title.clone()),
        _ => None,
    }
}

fn root(device: &Device, id: &str) -> Option<String> {
    device.root("task", id).unwrap()
}

#[test]
fn edits_of_the_loser_go_to_the_winner() {
    let mut a = with(1);
    on(&mut a, 1000, "task", "old", field("title", "garden"));
    on(&mut a, 1001, "task", "new", field("title", "garden"));
    assert!(title(&a, "new").unwrap().starts_with("garden #"));
    on(&mut a, 1002, "task", "old", alias("new"));
    assert_eq!((root(&a, "old"), root(&a, "new")), (Some("new".into()), None));
    // The loser does not show, and its name is free.
    assert_eq!((title(&a, "old"), title(&a, "new")), (None, Some("garden".into())));
    on(&mut a, 1003, "task", "old", field("text", "more"));
    on(&mut a, 1004, "task", "old", inc("views", 2));
    let view = a.view("task", "new").unwrap().unwrap();
    assert_eq!(view.fields.get("text"), value("more").as_ref());
    assert_eq!(view.fields.get("views"), Some(&Shown::Counter(2)));
    // Deleting it deletes the one that stands for it.
    on(&mut a, 1005, "task", "old", Action::Delete);
    assert!(a.view("task", "new").unwrap().unwrap().deleted);
}

#[test]
fn what_an_edit_aliases_it_edits_under_the_new_id() {
    let mut a = with(1);
    let op = |id: &str, action| Op::new("task", id, action);
    let ops = [
        op("old", field("title", "x")),
        op("new", field("title", "y")),
        op("old", alias("new")),
        op("old", field("title", "z")),
    ];
    a.edit(Millis(1000), &ops).unwrap();
    assert_eq!((title(&a, "old"), title(&a, "new")), (None, Some("z".into())));
    let head = a.head().unwrap();
    assert_eq!(on(&mut a, 2000, "task", "old", alias("new")), Edited::Nothing);
    assert_eq!(on(&mut a, 2000, "task", "new", alias("old")), Edited::Nothing, "they are one already");
    assert_eq!(a.head().unwrap(), head);
}

#[test]
fn aliases_that_cannot_be_are_refused() {
    let (mut a, mut plain) = (with(1), device(2));
    on(&mut a, 1000, "task", "t", field("title", "x"));
    act(&mut plain, 1000, field("title", "x"));
    assert!(
        matches!(refused(&mut a, "task", alias("nobody")), EditError::NotThere { id, .. } if id == "nobody")
    );
    let absent = a.edit(Millis(1), &[Op::new("task", "nobody", alias("t"))]).unwrap_err();
    assert!(matches!(absent, EditError::NotThere { .. }), "{absent}");
    assert!(matches!(refused(&mut plain, "task", alias("u")), EditError::NoAliases { .. }));
}

#[test]
fn of_a_circle_the_least_id_is_the_root() {
    let (mut a, mut b) = (with(1), with(2));
    for id in ["x", "y"] {
        on(&mut a, 1000, "task", id, field("title", id));
    }
    sync(&mut a, &mut b);
    on(&mut a, 2000, "task", "x", alias("y"));
    on(&mut b, 2001, "task", "y", alias("x"));
    assert_eq!((title(&a, "x"), title(&b, "y")), (None, None));
    sync(&mut a, &mut b);
    for device in [&a, &b] {
        assert_eq!((root(device, "x"), root(device, "y")), (None, Some("x".into())));
        assert_eq!((title(device, "x"), title(device, "y")), (Some("x".into()), None));
    }
    assert_eq!(a.head().unwrap().digest, b.head().unwrap().digest);
}

#[test]
fn a_unique_rule_that_aliases_redirects_as_well() {
    let json = r#"{"kinds":{"task":{"fields":{"title":{},"text":{}},"rules":[
        {"rule":"unique","name":"titles","group":[],"field":"title","on_clash":"alias"}]}}}"#;
    let schema = Arc::new(Schema::from_json_str(json).unwrap());
    let mut a = open_with(MemoryStore::new(), 1, schema);
    on(&mut a, 1000, "task", "first", field("title", "garden"));
    on(&mut a, 1001, "task", "second", field("title", "garden"));
    assert_eq!((root(&a, "second"), title(&a, "second")), (Some("first".into()), None));
    on(&mut a, 1002, "task", "second", field("text", "more"));
    let view = a.view("task", "first").unwrap().unwrap();
    assert_eq!(view.fields.get("text"), value("more").as_ref());
    // Once the first has another name, the second is itself again.
    on(&mut a, 1003, "task", "first", field("title", "house"));
    assert_eq!((root(&a, "second"), title(&a, "second")), (None, Some("garden".into())));
}

#[test]
fn a_reference_to_a_loser_is_to_somebody_who_is_there() {
    let json = r#"{"kinds":{"project":{"aliases":true,"fields":{"name":{}}},"task":{"fields":{"project":{},"title":{}},
        "rules":[{"rule":"reference","name":"projects","field":"project","to":"project"}]}}}"#;
    let mut a = open_with(MemoryStore::new(), 1, Arc::new(Schema::from_json_str(json).unwrap()));
    for id in ["p", "q"] {
        on(&mut a, 1000, "project", id, field("name", id));
    }
    act(&mut a, 1001, field("project", "p"));
    on(&mut a, 1002, "project", "p", alias("q"));
    assert_eq!(shows(&a, "project"), value("p"));
    assert_eq!(a.root("project", "p").unwrap(), Some("q".into()));
    assert!(a.view("project", "p").unwrap().unwrap().deleted);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]
    #[test]
    fn replicas_agree_on_roots_and_rules_follow_them(
        steps in prop::collection::vec((0..3_usize, 0..4_u8, 0..4_u8, 0..6_u8), 1..40),
    ) {
        let mut all = [with(1), with(2), with(3)];
        for (step, (who, one, other, what)) in steps.into_iter().enumerate() {
            let (id, to, now) = (one.to_string(), other.to_string(), 1000 + step as i64);
            let action = match what {
                0 | 1 => alias(&to),
                2 | 3 => field("title", if other % 2 == 0 { "even" } else { "odd" }),
                4 => Action::Delete,
                _ => {
                    let (left, right) = all.split_at_mut(1);
                    sync(&mut left[0], &mut right[usize::from(one % 2)]);
                    continue;
                }
            };
            // What cannot be is refused; the others count.
            let _ = all[who].edit(Millis(now), &[Op::new("task", id, action)]);
            for device in &all {
                let titles: Vec<_> = (0..4).filter_map(|id| title(device, &id.to_string())).collect();
                let distinct: BTreeSet<_> = titles.iter().collect();
                prop_assert_eq!(distinct.len(), titles.len(), "{:?}", titles);
                for id in 0..4 {
                    let root = root(device, &id.to_string());
                    if let Some(root) = root {
                        prop_assert_eq!(device.root("task", &root).unwrap(), None, "a root stands for itself");
                        prop_assert_eq!(title(device, &id.to_string()), None);
                    }
                }
            }
        }
        for _ in 0..2 {
            let [a, b, c] = &mut all;
            sync(a, b);
            sync(a, c);
        }
        let shown = |device: &Device| {
            let ids = (0..4).map(|id| id.to_string());
            ids.map(|id| (root(device, &id), title(device, &id))).collect::<Vec<_>>()
        };
        prop_assert_eq!(shown(&all[0]), shown(&all[1]));
        prop_assert_eq!(shown(&all[0]), shown(&all[2]));
        // The index that followed each step says what one made from nothing says.
        let [a, _, _] = all;
        let before = shown(&a);
        let mut store = a.into_store();
        let mut keys = Vec::new();
        store.records(Table::Rule, &[], &mut |key, _| {
            keys.push(RecordWrite::remove(Table::Rule, key));
            ControlFlow::Continue(())
        }).unwrap();
        store.commit(Batch { records: keys.into(), ..Batch::default() }).unwrap();
        prop_assert_eq!(shown(&open_with(store, 1, notes())), before);
    }
}
