//! Rules that structs declare.

use rivus::{Db, Entity, Error, OnClash, OnGone, Overlay, Ref, Schema, Side, Value};
use rivus_core::schema::{AtMostOne, OrderTime, RuleType};

#[derive(Entity, Debug, Clone, Default, PartialEq)]
#[rivus(at_most_one(group = (workspace, user), while_none = stop, order = start, time = ms))]
struct Entry {
    #[rivus(id)]
    id: String,
    #[rivus(scope)]
    workspace: String,
    user: String,
    #[rivus(group = "interval")]
    start: i64,
    #[rivus(group = "interval", rename = "end", at_least = start)]
    stop: Option<i64>,
    #[rivus(reference)]
    project: Option<Ref<Project>>,
    #[rivus(bound(min = -1.5, max = 100, name = "sane"))]
    percent: f64,
}

#[derive(Entity, Debug, Clone, Default, PartialEq)]
#[rivus(unique(group = workspace, field = code, on_clash = alias, name = "code"))]
struct Project {
    #[rivus(id)]
    id: String,
    workspace: String,
    #[rivus(unique(group = workspace))]
    name: String,
    code: Option<String>,
    #[rivus(bound(max = "z"))]
    color: String,
}

#[derive(Entity, Debug, Clone, Default, PartialEq)]
#[rivus(unique(field = text))]
struct Note {
    #[rivus(id)]
    id: String,
    text: String,
    #[rivus(reference(on_gone = cascade))]
    project: Ref<Project>,
}

fn db() -> Db {
    Db::builder().entity::<Entry>().entity::<Project>().entity::<Note>().epoch(3).memory().unwrap()
}

#[test]
fn the_rules_of_a_struct_are_those_of_the_builder() {
    let group = ["workspace", "user"];
    let declared = Schema::builder()
        .epoch(3)
        .kind("entry", |kind| {
            let fields = ["workspace", "user", "start", "end", "project", "percent"];
            let rule = RuleType::AtMostOne(AtMostOne {
                group: group.map(str::to_owned).to_vec(),
                open: "end".into(),
                order: "start".into(),
                time: OrderTime::Ms,
            });
            fields
                .into_iter()
                .fold(kind, rivus::KindBuilder::value)
                .group("interval", ["start", "end"])
                .scope("workspace")
                .rule("at_most_one_end", rule)
                .expr("at_least_end", "end", Side::AtLeast, "start")
                .reference("reference_project", "project", "project", OnGone::Nullify)
                .bound("sane", "percent", Value::Float(-1.5), Value::Int(100))
        })
        .kind("project", |kind| {
            ["workspace", "name", "code", "color"]
                .into_iter()
                .fold(kind, rivus::KindBuilder::value)
                .unique("unique_name", ["workspace"], "name")
                .unique_with("code", ["workspace"], "code", OnClash::Alias)
                .bound("bound_color", "color", None, Value::from("z"))
        })
        .kind("note", |kind| {
            kind.value("text").value("project").unique("unique_text", [] as [&str; 0], "text").reference(
                "reference_project",
                "project",
                "project",
                OnGone::Cascade,
            )
        })
        .build()
        .unwrap();
    assert_eq!(db().schema().to_json(), declared.to_json());
    assert_eq!(Schema::from_json_str(&declared.to_json()).unwrap().to_json(), declared.to_json());
}

#[test]
fn views_keep_the_rules_and_tell_what_they_hide() {
    let db = db();
    let workspace = || "w".to_owned();
    let entry = |id: &str, start| Entry {
        id: id.into(),
        workspace: workspace(),
        user: "ann".into(),
        start,
        percent: 200.0,
        ..Entry::default()
    };
    let project = |id: &str| Project {
        id: id.into(),
        workspace: workspace(),
        name: "garden".into(),
        ..Project::default()
    };
    db.insert(&project("p1")).unwrap();
    db.insert(&project("p2")).unwrap();
    db.insert(&Entry { project: Some(Ref::new("p1")), ..entry("e1", 10) }).unwrap();
    db.insert(&entry("e2", 50)).unwrap();
    db.insert(&Note { id: "n1".into(), text: "hello".into(), project: "p1".into() }).unwrap();
    db.insert(&Note { id: "n2".into(), text: "hello".into(), project: "p2".into() }).unwrap();

    let first = db.get::<Entry>("e1").unwrap().unwrap();
    assert_eq!((first.stop, first.percent, first.project.is_some()), (Some(50), 100.0, true));
    assert_ne!(db.get::<Project>("p2").unwrap().unwrap().name, "garden");
    assert_ne!(db.get::<Note>("n2").unwrap().unwrap().text, "hello");

    db.delete::<Project>("p1").unwrap();
    assert_eq!(db.get::<Entry>("e1").unwrap().unwrap().project, None);
    assert_eq!(db.get::<Note>("n1").unwrap(), None);
    // The names are free again.
    assert_eq!(db.get::<Project>("p2").unwrap().unwrap().name, "garden");
    assert_eq!(db.get::<Note>("n2").unwrap().unwrap().text, "hello");

    let told = |overlay: Overlay| (overlay.id, overlay.field, overlay.rule, overlay.rival);
    let (end, percent) = (Some("end".to_owned()), Some("percent".to_owned()));
    let expected = [
        ("e1".into(), end, "at_most_one_end".into(), Some("e2".into())),
        ("e1".into(), percent.clone(), "sane".into(), None),
        ("e1".into(), Some("project".into()), "reference_project".into(), Some("p1".into())),
        ("e2".into(), percent, "sane".into(), None),
        ("n1".into(), None, "reference_project".into(), Some("p1".into())),
    ];
    let all = db.overlays().unwrap();
    assert_eq!(all.into_iter().map(told).collect::<Vec<_>>(), expected);
    assert_eq!(db.overlays_of::<Entry>("e2").unwrap().len(), 1);
    assert_eq!(db.unresolved().unwrap(), None);
}

#[test]
fn rules_that_cannot_be_kept_are_refused_when_the_database_is_opened() {
    #[derive(Entity)]
    struct Lost {
        #[rivus(id)]
        id: String,
        #[rivus(reference)]
        project: Option<Ref<Project>>,
    }
    let refused = Db::builder().entity::<Lost>().memory();
    assert!(matches!(refused, Err(Error::Schema(_))), "{refused:?}");
}

#[test]
fn a_reference_is_its_id() {
    let reference: Ref<Project> = "p1".into();
    assert_eq!(serde_json::to_string(&reference).unwrap(), "\"p1\"");
    assert_eq!(serde_json::from_str::<Ref<Project>>("\"p1\"").unwrap(), reference);
    assert_eq!((reference.to_string(), reference.as_ref(), reference.id()), ("p1".into(), "p1", "p1"));
    assert!(reference < Ref::from("p2".to_owned()));
    assert_eq!(String::from(reference), "p1");
}

#[derive(Entity, Debug, Clone, Default, PartialEq)]
struct Ware {
    #[rivus(id)]
    id: String,
    #[rivus(margin_ms = 5000, on_conflict = restamp)]
    note: String,
    #[rivus(authority)]
    price: u32,
    #[rivus(authority, set)]
    labels: Vec<String>,
    #[rivus(authority, counter)]
    sold: u32,
    #[rivus(was = "name")]
    title: String,
    #[rivus(default = "plain", was = "type")]
    sort: String,
    #[rivus(default = true)]
    visible: bool,
}

#[test]
fn what_a_struct_says_of_its_fields_is_in_the_schema() {
    let db = Db::builder().entity::<Ware>().memory().unwrap();
    let json = concat!(
        r#"{"kinds":{"ware":{"fields":{"labels":{"type":"set","authority":true},"#,
        r#""note":{"margin_ms":5000,"on_conflict":"restamp"},"price":{"authority":true},"#,
        r#""sold":{"type":"counter","authority":true},"sort":{"was":"type","default":"plain"},"#,
        r#""title":{"was":"name"},"visible":{"default":true}}}}}"#
    );
    assert_eq!(db.schema().to_json(), json);
}

#[test]
fn who_may_not_write_a_field_may_still_create_the_entity() {
    let db = Db::builder().entity::<Ware>().memory().unwrap();
    db.insert(&Ware { id: "w".into(), ..Ware::default() }).unwrap();
    let mut shown = db.get::<Ware>("w").unwrap().unwrap();
    assert_eq!((shown.price, shown.visible, &shown.sort[..]), (0, false, ""), "as the struct says");
    let refused = [
        db.edit::<Ware>("w", |ware| ware.price = 5).unwrap_err(),
        db.edit::<Ware>("w", |ware| ware.sold = 5).unwrap_err(),
        db.edit::<Ware>("w", |ware| ware.labels.push("new".into())).unwrap_err(),
        db.insert(&Ware { id: "x".into(), price: 1, ..Ware::default() }).unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, Error::Edit(rivus::EditError::Ranked { .. })), "{error}");
    }
    db.edit::<Ware>("w", |ware| ware.title = "chair".into()).unwrap();
    shown.title = "chair".into();
    assert_eq!(db.get::<Ware>("w").unwrap(), Some(shown));
}

#[test]
fn where_nothing_is_held_a_default_shows() {
    let db = Db::builder().entity::<Ware>().memory().unwrap();
    db.put("ware", "w", [("note", "x".into())]).unwrap();
    let ware = db.get::<Ware>("w").unwrap().unwrap();
    assert_eq!((ware.visible, &ware.sort[..]), (true, "plain"));
    assert_eq!(db.edit::<Ware>("w", |ware| ware.visible = true).unwrap(), rivus::Edited::Nothing);
    db.edit::<Ware>("w", |ware| ware.visible = false).unwrap();
    assert!(!db.get::<Ware>("w").unwrap().unwrap().visible);
}
