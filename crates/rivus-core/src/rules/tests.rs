use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

mod edits;
mod timers;

use proptest::prelude::*;

use super::*;
use crate::clock::{Admission, Millis};
use crate::edit::{Action, Op};
use crate::id::{Incarnation, ReplicaId, StoreId};
use crate::identity::Seeds;
use crate::replica::{Edited, OpenOptions, Replica};
use crate::schema::{OnGone, Schema, Side};
use crate::session::pair::{End, run};
use crate::session::{Grants, Role, Session, SessionOptions, Want};
use crate::store::{Batch, MemoryStore, RecordWrite, Store, Table};

fn replica(n: u64, schema: &Schema) -> Replica<MemoryStore> {
    let seeds =
        Seeds { store: StoreId(n), replica: ReplicaId::from_u128(n.into()), incarnation: Incarnation(n) };
    let options = OpenOptions { seeds, slot: 0, admission: Admission::Off, rank: 0 };
    Replica::open(MemoryStore::new(), Arc::new(schema.clone()), options).unwrap()
}

fn sync(one: &mut Replica<MemoryStore>, other: &mut Replica<MemoryStore>) {
    let session = |role| {
        let seeds =
            Seeds { store: StoreId(7), replica: ReplicaId::from_u128(7), incarnation: Incarnation(7) };
        Session::new(SessionOptions { role, want: Want::Once, offers: true, seeds, capabilities: 0 })
    };
    let mut client = session(Role::Client { token: None });
    let mut server = session(Role::server(Grants::everybody()));
    let now = Millis(1_000_000);
    let mut one = End { replica: one, session: &mut client, now };
    run(&mut one, &mut End { replica: other, session: &mut server, now }, usize::MAX).unwrap();
    assert!(client.is_closed());
}

fn timers() -> Schema {
    let kind = |k: crate::schema::KindBuilder| {
        let fields = ["user", "text", "start", "stop"];
        let k = fields.into_iter().fold(k, crate::schema::KindBuilder::value);
        k.at_most_one("one running", ["user"], "stop", "start")
    };
    Schema::builder().kind("entry", kind).build().unwrap()
}

fn put(replica: &mut Replica<MemoryStore>, now: i64, id: &str, fields: &[(&str, Value)]) -> Edited {
    let fields = fields.iter().map(|(field, value)| ((*field).to_owned(), value.clone())).collect();
    let kind = replica.schema().kinds().next().unwrap().name.clone();
    replica.edit(Millis(now), &[Op::new(kind, id, Action::Put(fields))]).unwrap()
}

fn start(replica: &mut Replica<MemoryStore>, now: i64, id: &str) {
    put(replica, now, id, &[("user", "u".into()), ("start", now.into()), ("stop", Value::Null)]);
}

fn shown(replica: &Replica<MemoryStore>, id: &str, field: &str) -> Value {
    let kind = replica.schema().kinds().next().unwrap().name.clone();
    let view = replica.view(&kind, id).unwrap().unwrap();
    match view.fields.get(field) {
        Some(crate::view::Shown::Value(value)) => value.clone(),
        _ => Value::Null,
    }
}

#[test]
fn of_two_timers_the_later_runs_and_the_other_ends_where_it_began() {
    let schema = timers();
    let (mut phone, mut tablet) = (replica(1, &schema), replica(2, &schema));
    start(&mut phone, 1000, "a");
    start(&mut tablet, 2000, "b");
    sync(&mut phone, &mut tablet);
    for one in [&phone, &tablet] {
        assert_eq!((shown(one, "a", "stop"), shown(one, "b", "stop")), (2000.into(), Value::Null));
        let overlays = one.overlays("entry", "a").unwrap();
        assert_eq!(overlays.len(), 1);
        assert_eq!((overlays[0].rival.as_deref(), &overlays[0].hidden), (Some("b"), &Value::Null));
    }
    // Renaming the old one neither restarts it nor leaves its end open: it is the user's now.
    put(&mut phone, 4000, "a", &[("text", "write".into())]);
    assert_eq!(shown(&phone, "a", "stop"), 2000.into());
    assert!(phone.overlays("entry", "a").unwrap().is_empty());
    // Stopping the winner brings nobody back.
    put(&mut phone, 5000, "b", &[("stop", 5000.into())]);
    sync(&mut phone, &mut tablet);
    assert_eq!((shown(&tablet, "a", "stop"), shown(&tablet, "b", "stop")), (2000.into(), 5000.into()));
}

#[test]
fn a_deleted_winner_brings_no_loser_back() {
    let schema = timers();
    let mut one = replica(1, &schema);
    start(&mut one, 1000, "a");
    start(&mut one, 2000, "b");
    one.edit(Millis(3000), &[Op::new("entry", "b", Action::Delete)]).unwrap();
    assert_eq!(shown(&one, "a", "stop"), 2000.into());
}

#[test]
fn names_clash_and_the_first_keeps_its_own() {
    let kind = |k: crate::schema::KindBuilder| {
        k.value("workspace").value("name").unique("name", ["workspace"], "name")
    };
    let schema = Schema::builder().kind("project", kind).build().unwrap();
    let (mut one, mut other) = (replica(1, &schema), replica(2, &schema));
    put(&mut one, 1000, "p1", &[("workspace", "w".into()), ("name", "Home".into())]);
    put(&mut other, 2000, "p2", &[("workspace", "w".into()), ("name", "Home".into())]);
    sync(&mut one, &mut other);
    let hash = format!("{:032x}", xxh3_128(b"p2"));
    for replica in [&one, &other] {
        assert_eq!(shown(replica, "p1", "name"), "Home".into());
        assert_eq!(shown(replica, "p2", "name"), format!("Home #{}", &hash[..4]).into());
    }
    one.edit(Millis(4000), &[Op::new("project", "p1", Action::Delete)]).unwrap();
    assert_eq!(shown(&one, "p2", "name"), "Home".into());
}

#[test]
fn a_member_of_a_group_that_is_named_as_a_rule_shows_it_stays_as_it_is() {
    let kind = |k: crate::schema::KindBuilder| {
        let k = k.value("workspace").value("name").value("remark").group("both", ["name", "remark"]);
        k.unique("name", ["workspace"], "name")
    };
    let mut one = replica(1, &Schema::builder().kind("project", kind).build().unwrap());
    for (now, id) in [(1, "p1"), (2, "p2")] {
        put(&mut one, now, id, &[("workspace", "w".into()), ("name", "Home".into())]);
    }
    let name = shown(&one, "p2", "name");
    put(&mut one, 3, "p2", &[("name", name.clone()), ("remark", "new".into())]);
    assert_eq!((shown(&one, "p2", "name"), shown(&one, "p2", "remark")), (name, "new".into()));
    assert_eq!(one.overlays("project", "p2").unwrap()[0].hidden, "Home".into());
}

#[test]
fn references_to_what_is_gone() {
    let kinds = Schema::builder()
        .kind("entry", |k| k.value("project").reference("project", "project", "project", OnGone::Nullify))
        .kind("project", |k| k.value("parent").reference("parent", "parent", "project", OnGone::Cascade));
    let mut one = replica(1, &kinds.build().unwrap());
    let ops = [
        Op::new("project", "p1", Action::Put(vec![("parent".into(), Value::Null)])),
        Op::new("project", "p2", Action::Put(vec![("parent".into(), "p1".into())])),
        Op::new("project", "p3", Action::Put(vec![("parent".into(), "p2".into())])),
        Op::new("entry", "e", Action::Put(vec![("project".into(), "p3".into())])),
    ];
    one.edit(Millis(1000), &ops).unwrap();
    assert_eq!(shown(&one, "e", "project"), "p3".into());
    one.edit(Millis(2000), &[Op::new("project", "p1", Action::Delete)]).unwrap();
    assert!(one.view("project", "p3").unwrap().unwrap().deleted);
    assert_eq!(shown(&one, "e", "project"), Value::Null);
    one.edit(Millis(3000), &[Op::new("project", "p1", Action::Revive)]).unwrap();
    assert_eq!(shown(&one, "e", "project"), "p3".into());
}

#[test]
fn an_end_is_not_before_its_beginning() {
    let kind = |k: crate::schema::KindBuilder| {
        let k = k.value("user").value("start").value("stop");
        k.at_most_one("one running", ["user"], "stop", "start").expr("order", "stop", Side::AtLeast, "start")
    };
    let schema = Schema::builder().kind("entry", kind).build().unwrap();
    let mut one = replica(1, &schema);
    put(&mut one, 1, "a", &[("start", 10.into()), ("stop", 5.into())]);
    assert_eq!(shown(&one, "a", "stop"), 10.into());
    put(&mut one, 2, "a", &[("stop", 12.into())]);
    assert_eq!(shown(&one, "a", "stop"), 12.into());
}

#[test]
fn who_does_not_know_the_latest_rules_evaluates_none_and_says_so() {
    let schema = timers();
    let later = |epoch: u32| {
        let mut json: serde_json::Value = serde_json::from_str(&schema.to_json()).unwrap();
        json["epoch"] = epoch.into();
        Schema::from_json_str(&json.to_string()).unwrap()
    };
    let (mut old, mut between, mut new) =
        (replica(1, &later(1)), replica(2, &Schema::open()), replica(3, &later(2)));
    start(&mut old, 1000, "a");
    start(&mut new, 2000, "b");
    sync(&mut new, &mut between);
    old.watch(crate::replica::Watching::Yes);
    sync(&mut old, &mut between);
    let told = old.poll_events();
    assert!(told.contains(&crate::replica::Event::Rules { unresolved: old.unresolved() }), "{told:?}");
    assert_eq!(old.unresolved(), Some(crate::replica::Unresolved::Epoch { ours: 1, known: 2 }));
    assert_eq!((shown(&old, "a", "stop"), shown(&old, "b", "stop")), (Value::Null, Value::Null));
    // It synchronises all the same, and who knows the rules evaluates them.
    sync(&mut new, &mut between);
    assert_eq!((shown(&new, "a", "stop"), new.unresolved()), (2000.into(), None));
    // Its program is updated.
    let options = OpenOptions {
        seeds: Seeds { store: StoreId(9), replica: ReplicaId::from_u128(9), incarnation: Incarnation(9) },
        slot: 0,
        admission: Admission::Off,
        rank: 0,
    };
    let old = Replica::open(old.into_store(), Arc::new(later(2)), options).unwrap();
    assert_eq!((shown(&old, "a", "stop"), old.unresolved()), (2000.into(), None));
}

#[test]
fn a_peer_cannot_name_rules_of_a_version_that_no_update_reaches() {
    use crate::replica::{EPOCH_AHEAD_MAX, Unresolved};
    use crate::session::SessionError;
    use crate::wire::{About, Frame, Hello};
    let mut one = replica(1, &timers());
    let fingerprint = one.schema().fingerprint();
    let greet = |one: &mut Replica<MemoryStore>, epoch: u32| {
        let id = ReplicaId::from_u128(66);
        let about = About::new(StoreId(66), [id].into_iter(), &[], 0, fingerprint, 0).with_epoch(epoch);
        let (version_min, version_max) = (1, 1);
        let hello = Hello { version_min, version_max, capabilities: 0, about, token: None, offers: true };
        let seeds =
            Seeds { store: StoreId(7), replica: ReplicaId::from_u128(7), incarnation: Incarnation(7) };
        let role = Role::server(Grants::everybody());
        let options = SessionOptions { role, want: Want::Live, offers: true, seeds, capabilities: 0 };
        Session::new(options).handle(one, &Frame::Hello(hello).encode(), Millis(1))
    };
    for epoch in [EPOCH_AHEAD_MAX + 1, u32::MAX] {
        let refused = greet(&mut one, epoch).unwrap_err();
        assert!(
            matches!(&refused, SessionError::Refused { code: crate::code::Code::SCHEMA, .. }),
            "{refused}"
        );
        assert!(refused.to_string().contains("above this program's 0"), "{refused}");
        assert_eq!((one.unresolved(), one.epoch()), (None, 0));
    }
    // Within the bound a peer is believed, and passed on as less: those whose own version is older take that too.
    greet(&mut one, EPOCH_AHEAD_MAX).unwrap();
    assert_eq!(one.unresolved(), Some(Unresolved::Epoch { ours: 0, known: EPOCH_AHEAD_MAX }));
    assert_eq!(one.epoch_told(), EPOCH_AHEAD_MAX / 2);
    // An authority is believed.
    one.hear_epoch(u32::MAX).unwrap();
    assert_eq!(one.epoch(), u32::MAX);
}

#[test]
fn rules_that_come_later_and_rows_written_without_them_are_followed() {
    let schema = timers();
    let options = |n: u64| OpenOptions {
        seeds: Seeds {
            store: StoreId(n),
            replica: ReplicaId::from_u128(n.into()),
            incarnation: Incarnation(n),
        },
        slot: 0,
        admission: Admission::Off,
        rank: 0,
    };
    let mut open = Replica::open(MemoryStore::new(), Arc::new(Schema::open()), options(1)).unwrap();
    let put = |id: &str, start: i64| {
        let fields =
            vec![("user".into(), "u".into()), ("start".into(), start.into()), ("stop".into(), Value::Null)];
        Op::new("entry", id, Action::Put(fields))
    };
    open.edit(Millis(1), &[put("a", 10)]).unwrap();
    open.edit(Millis(2), &[put("b", 20)]).unwrap();
    let ruled = Replica::open(open.into_store(), Arc::new(schema.clone()), options(2)).unwrap();
    assert_eq!((shown(&ruled, "a", "stop"), shown(&ruled, "b", "stop")), (20.into(), Value::Null));
    let mut open = Replica::open(ruled.into_store(), Arc::new(Schema::open()), options(3)).unwrap();
    open.edit(Millis(3), &[put("c", 30)]).unwrap();
    let ruled = Replica::open(open.into_store(), Arc::new(schema), options(4)).unwrap();
    assert_eq!(shown(&ruled, "b", "stop"), 30.into());
}

#[test]
fn rules_that_cannot_be_kept_together_are_refused_with_their_names() {
    let refused = |kinds: crate::schema::SchemaBuilder| kinds.build().unwrap_err().to_string();
    let fields = |k: crate::schema::KindBuilder| {
        ["a", "b", "c"].into_iter().fold(k, crate::schema::KindBuilder::value)
    };
    let two = Schema::builder()
        .kind("k", |k| fields(k).unique("one", ["b"], "a").bound("two", "a", Some(1.into()), None));
    assert_eq!(
        refused(two),
        "the rules `one` and `two` both own field `a` of kind `k`: leave it to one of them"
    );
    let circle = Schema::builder()
        .kind("k", |k| fields(k).reference("up", "a", "l", OnGone::Cascade))
        .kind("l", |k| fields(k).reference("down", "a", "k", OnGone::Cascade));
    assert_eq!(
        refused(circle),
        "the rules `up` of kind `k`, `down` of kind `l` read what each other show, in a circle: let one of them read another field"
    );
    let scope = Schema::builder().kind("k", |k| fields(k).scope("c").unique("one", ["b"], "a"));
    assert_eq!(
        refused(scope),
        "rule `one` of kind `k` has a group without the scope field `c`: add it to the group"
    );
    let set = Schema::builder().kind("k", |k| fields(k).set("tags").unique("one", ["tags"], "a"));
    assert!(refused(set).contains("names `tags`, which is \"set, add wins\""));
    let nowhere = Schema::builder().kind("k", |k| fields(k).reference("r", "a", "l", OnGone::Keep));
    assert_eq!(
        refused(nowhere),
        "rule `r` of kind `k` refers to kind `l`, which is not declared: declare it"
    );
}

/// What the definition says, rival by rival.
fn by_definition(rivals: &[Rival<'_>]) -> Vec<Option<(Value, usize)>> {
    let of = |(at, rival): (usize, &Rival<'_>)| {
        if !rival.is_here || *rival.end != Value::Null {
            return None;
        }
        let later = rivals.iter().enumerate().skip(at + 1);
        let mut later = later.filter(|(_, r)| !(r.is_here && *r.end != Value::Null && r.end <= rival.order));
        let (next, successor) = later.next()?;
        let end = rival.order.max(successor.order).clone();
        Some((if end == Value::Null { Value::Int(nearest_millis(successor.claim.time)) } else { end }, next))
    };
    rivals.iter().enumerate().map(of).collect()
}

proptest! {
    #[test]
    fn a_group_in_one_go_is_as_the_definition_says(
        group in proptest::collection::vec((0..6_u64, 0..8_i64, proptest::option::of(0..8_i64), 0..4_u8), 0..14),
    ) {
        let values: Vec<_> = group.iter().map(|(_, order, end, _)| (Value::Int(*order), Value::from(*end))).collect();
        let ids: Vec<_> = (0..group.len()).map(|n| n.to_string()).collect();
        let rivals = group.iter().zip(&values).zip(&ids).map(|(((time, _, _, here), (order, end)), id)| {
            let order = if *time == 5 { &Value::Null } else { order };
            Rival { claim: Stamp { time: *time << 32, ..Stamp::LOWEST }, id, order, end, is_here: *here > 0 }
        });
        let mut rivals: Vec<_> = rivals.collect();
        let settled = settle(&mut rivals, crate::schema::OrderTime::Any);
        prop_assert_eq!(settled, by_definition(&rivals));
    }
}

#[test]
fn the_index_tells_every_entity_on_which_something_is_laid() {
    let schema = Schema::builder()
        .kind("entry", |k| {
            let k = k.value("a").value("b").reference("nulls", "a", "project", OnGone::Nullify);
            k.reference("hides", "b", "project", OnGone::Cascade)
        })
        .kind("project", |k| k.value("n").unique("one name", [] as [&str; 0], "n"));
    let mut one = replica(1, &schema.build().unwrap());
    let put = |kind: &str, id: &str, field: &str, value: Value| {
        Op::new(kind, id, Action::Put(vec![(field.to_owned(), value)]))
    };
    let ops = [
        put("entry", "no text", "a", 3.into()),
        put("entry", "hidden", "b", 3.into()),
        put("entry", "nobody", "a", "gone".into()),
        put("project", "p1", "n", "x".into()),
        put("project", "p2", "n", "x".into()),
    ];
    for (now, op) in (1..).zip(&ops) {
        one.edit(Millis(now), std::slice::from_ref(op)).unwrap();
    }
    let mut told = Vec::new();
    one.each_overlay(&mut |overlay| {
        told.push((overlay.id, overlay.field, overlay.hidden));
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    let a = || Some("a".to_owned());
    let expected = [
        ("hidden", None, true.into()),
        ("no text", a(), 3.into()),
        ("nobody", a(), "gone".into()),
        ("p2", Some("n".to_owned()), "x".into()),
    ];
    assert_eq!(told, expected.map(|(id, field, hidden): (&str, _, Value)| (id.to_owned(), field, hidden)));
}

#[test]
fn several_references_keep_one_entity_and_what_is_deleted_shows_nothing_otherwise() {
    let schema = Schema::builder()
        .kind("entry", |k| {
            let k = k.value("a").value("b").value("n").bound("at least one", "n", Some(1.into()), None);
            k.reference("one", "a", "project", OnGone::Keep).reference("two", "b", "project", OnGone::Keep)
        })
        .kind("project", |k| k.value("n"));
    let mut one = replica(1, &schema.build().unwrap());
    let ops = [
        Op::new("project", "p", Action::Put(vec![("n".into(), 1.into())])),
        Op::new("entry", "e", Action::Put(vec![("b".into(), "p".into()), ("n".into(), 0.into())])),
    ];
    one.edit(Millis(1), &ops).unwrap();
    one.edit(Millis(2), &[Op::new("project", "p", Action::Delete)]).unwrap();
    assert!(!one.view("project", "p").unwrap().unwrap().deleted);
    assert_eq!(one.overlays("project", "p").unwrap()[0].rival.as_deref(), Some("e"));
    assert_eq!(one.overlays("entry", "e").unwrap().len(), 1);
    one.edit(Millis(3), &[Op::new("entry", "e", Action::Delete)]).unwrap();
    assert!(one.view("project", "p").unwrap().unwrap().deleted);
    assert_eq!(one.overlays("entry", "e").unwrap(), []);
}

/// The last that took the star has it.
struct OneStar;

impl CustomRule for OneStar {
    fn group(&self) -> Vec<&str> {
        vec!["user"]
    }

    fn reads(&self) -> Vec<&str> {
        Vec::new()
    }

    fn owns(&self) -> Vec<&str> {
        vec!["star"]
    }

    fn holds(&self, entity: &Entity) -> bool {
        *entity.value("star") == Value::Bool(true)
    }

    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        let last = entities.iter().filter_map(|e| Some((e.claim?, &e.id))).max();
        let mut overlays = Overlays::default();
        for entity in entities.iter().filter(|e| self.holds(e) && last.is_some_and(|(_, id)| *id != e.id)) {
            overlays.show(entity.id.as_str(), "star", Value::Bool(false));
        }
        overlays
    }
}

#[test]
fn a_rule_of_the_application_claims_also_by_a_field_that_is_new() {
    let kind = |k: crate::schema::KindBuilder| {
        k.value("user").value("star").value("text").custom_rule("one star", OneStar)
    };
    let mut one = replica(1, &Schema::builder().kind("entry", kind).build().unwrap());
    put(&mut one, 1, "a", &[("user", "u".into()), ("star", true.into())]);
    put(&mut one, 2, "b", &[("user", "u".into())]);
    put(&mut one, 3, "b", &[("star", true.into())]);
    assert_eq!((shown(&one, "a", "star"), shown(&one, "b", "star")), (false.into(), true.into()));
}

/// Two ids whose hashes begin alike.
const ALIKE: [&str; 2] = ["p28", "p208"];

fn projects() -> Schema {
    let kind = |k: crate::schema::KindBuilder| k.value("w").value("name").unique("name", ["w"], "name");
    Schema::builder().kind("project", kind).build().unwrap()
}

#[test]
fn names_that_read_alike_are_told_apart() {
    let mut one = replica(1, &projects());
    let named = [("pa", 1.into()), ("pb", "1".into()), (ALIKE[0], 1.into()), (ALIKE[1], Value::from("1"))];
    for (now, (id, name)) in (1..).zip(named) {
        put(&mut one, now, id, &[("w", "w".into()), ("name", name)]);
    }
    let expected = ["1 #afa4", "1 #afa4a"].map(Value::from);
    assert_eq!(ALIKE.map(|id| shown(&one, id, "name")), expected);
}

#[test]
fn a_winner_that_loses_its_name_takes_that_of_a_loser_who_is_told() {
    let (mut one, mut other) = (replica(1, &projects()), replica(2, &projects()));
    for (now, id) in (1000..).zip(ALIKE) {
        put(&mut one, now, id, &[("w", "w".into()), ("name", "Home".into())]);
    }
    put(&mut other, 1, "pa", &[("w", "w".into()), ("name", "Home".into())]);
    one.watch(crate::replica::Watching::Yes);
    sync(&mut one, &mut other);
    let expected = ["Home #afa4", "Home #afa4a"].map(Value::from);
    assert_eq!(ALIKE.map(|id| shown(&one, id, "name")), expected);
    let told = one.poll_events();
    for id in ALIKE {
        let is_it = |e: &crate::replica::Event| matches!(e, crate::replica::Event::Changed { id: of, .. } if of == id);
        assert!(told.iter().any(is_it), "{id}: {told:?}");
    }
}

fn from_json(n: u64, schema: &str) -> Replica<MemoryStore> {
    replica(n, &Schema::from_json_str(schema).unwrap())
}

fn act(replica: &mut Replica<MemoryStore>, now: i64, kind: &str, id: &str, action: Action) {
    replica.edit(Millis(now), &[Op::new(kind, id, action)]).unwrap();
}

fn set(field: &str, value: impl Into<Value>) -> Action {
    Action::Put(vec![(field.to_owned(), value.into())])
}

#[test]
fn a_group_that_an_earlier_rule_shows_otherwise_is_followed() {
    let schema = r#"{"kinds":{"p":{"fields":{"level":{},"cap":{},"name":{}},"rules":[
        {"rule":"expr","name":"lvl","field":"level","at_most":"cap"},
        {"rule":"unique","name":"u","group":["level"],"field":"name"}]}}}"#;
    let (mut one, mut other) = (from_json(1, schema), from_json(2, schema));
    for (now, id, level) in [(1000, "x", 9), (1001, "y", 5)] {
        put(&mut one, now, id, &[("level", level.into()), ("cap", 9.into()), ("name", "N".into())]);
    }
    // It is in the other's group now, though only what its level is bounded by was written.
    put(&mut one, 1002, "x", &[("cap", 5.into())]);
    sync(&mut one, &mut other);
    for replica in [&one, &other] {
        let names = [shown(replica, "x", "name"), shown(replica, "y", "name")];
        assert_ne!(names[0], names[1]);
        assert_eq!(names, [shown(&one, "x", "name"), shown(&one, "y", "name")]);
    }
    assert_eq!(index(one.store()), index_made_anew(&one));
}

/// Projects, and what refers to them: notes that lose the reference, entries that go with it.
const REFERRING: &str = r#"{"kinds":{
    "project":{ALIASES"fields":{"ws":{},"name":{}}},
    "note":{"fields":{"project":{}},"rules":[
        {"rule":"reference","name":"r","field":"project","to":"project","on_gone":"nullify"}]},
    "entry":{"fields":{"project":{}},"rules":[
        {"rule":"reference","name":"r","field":"project","to":"project","on_gone":"cascade"}]}}}"#;

/// What a note and an entry that refer to a project show: the reference, and whether it is there.
fn referring(replica: &Replica<MemoryStore>) -> (Value, bool) {
    let note = replica.view("note", "n").unwrap().unwrap();
    let entry = replica.view("entry", "e").unwrap().unwrap();
    let Some(crate::view::Shown::Value(project)) = note.fields.get("project") else { panic!("{note:?}") };
    (project.clone(), !entry.deleted)
}

#[test]
fn a_reference_by_way_of_an_alias_is_as_good_as_the_one_that_stands_there() {
    let mut one = from_json(1, &REFERRING.replace("ALIASES", r#""aliases":true,"#));
    for id in ["l", "w"] {
        act(&mut one, 1000, "project", id, set("name", id));
    }
    for (kind, id) in [("note", "n"), ("entry", "e")] {
        act(&mut one, 1001, kind, id, set("project", "l"));
    }
    act(&mut one, 1002, "project", "l", Action::Alias { to: "w".to_owned() });
    assert_eq!(referring(&one), ("l".into(), true));
    act(&mut one, 1003, "project", "w", Action::Delete);
    assert_eq!(referring(&one), (Value::Null, false), "who stood for it is deleted");
    act(&mut one, 1004, "project", "w", Action::Revive);
    assert_eq!(referring(&one), ("l".into(), true));
}

#[test]
fn who_refers_to_one_that_a_rule_shows_as_another_refers_to_somebody_who_is_there() {
    let unique =
        r#""rules":[{"rule":"unique","name":"u","group":["ws"],"field":"name","on_clash":"alias"}],"#;
    let schema = REFERRING.replace("ALIASES", unique);
    let (mut one, mut other) = (from_json(1, &schema), from_json(2, &schema));
    let acme = || Action::Put(vec![("ws".to_owned(), "w".into()), ("name".to_owned(), "Acme".into())]);
    act(&mut one, 1000, "project", "p1", acme());
    act(&mut other, 1001, "project", "p2", acme());
    for (kind, id) in [("note", "n"), ("entry", "e")] {
        act(&mut other, 1002, kind, id, set("project", "p2"));
    }
    sync(&mut one, &mut other);
    for replica in [&one, &other] {
        assert_eq!(replica.root("project", "p2").unwrap().as_deref(), Some("p1"));
        assert_eq!(referring(replica), ("p2".into(), true));
    }
    act(&mut one, 2000, "project", "p1", Action::Delete);
    assert_eq!(referring(&one), ("p2".into(), true), "it bears the name alone now");
    act(&mut one, 2001, "project", "p2", Action::Delete);
    assert_eq!(referring(&one), (Value::Null, false));
}

/// The index of a store, but for how far it follows.
fn index(store: &MemoryStore) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut index = BTreeMap::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        index.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    };
    store.records(Table::Rule, &[], visit).unwrap();
    index.remove(index::COVER_KEY);
    index
}

/// The index that is made of the same rows from nothing.
fn index_made_anew(replica: &Replica<MemoryStore>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut copy = replica.store().copy();
    let gone = index(&copy).into_keys().chain([index::COVER_KEY.to_vec()]);
    let records: Vec<_> = gone.map(|key| RecordWrite::remove(Table::Rule, key)).collect();
    copy.commit(Batch { records: records.into(), ..Batch::default() }).unwrap();
    let seeds = Seeds { store: StoreId(9), replica: ReplicaId::from_u128(9), incarnation: Incarnation(9) };
    let options = OpenOptions { seeds, slot: 0, admission: Admission::Off, rank: 0 };
    let anew = Replica::open(copy, Arc::clone(replica.schema()), options).unwrap();
    index(anew.store())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Some writes come with claims, others from a program that knows no rules.
    #[test]
    fn the_index_follows_every_write_and_is_as_if_made_anew(
        steps in proptest::collection::vec((any::<bool>(), 0..3_usize, 0..4_usize, 0..4_usize), 1..30),
    ) {
        let mut ruled = replica(1, &timers());
        let plain = |k| ["user", "text", "start", "stop"].into_iter().fold(k, crate::schema::KindBuilder::value);
        let mut other = replica(2, &Schema::builder().kind("entry", plain).build().unwrap());
        for (now, (is_own, id, stop, user)) in steps.into_iter().enumerate() {
            let values = |of: [Value; 2], at: usize| of.get(at).cloned().unwrap_or(Value::Null);
            let mut fields = vec![("stop", values([1.into(), 2.into()], stop))];
            // Mostly the end alone is written.
            fields.extend((user < 3).then(|| ("user", values(["u".into(), "v".into()], user))));
            let now = 1000 + i64::try_from(now).unwrap();
            put(if is_own { &mut ruled } else { &mut other }, now, ["a", "b", "c"][id], &fields);
            sync(&mut ruled, &mut other);
            prop_assert_eq!(index(ruled.store()), index_made_anew(&ruled));
        }
    }
}
