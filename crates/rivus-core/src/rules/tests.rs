use std::sync::Arc;

use super::*;
use crate::clock::{Admission, Millis};
use crate::edit::{Action, Op};
use crate::id::{Incarnation, ReplicaId, StoreId};
use crate::identity::Seeds;
use crate::replica::{Edited, OpenOptions, Replica};
use crate::schema::{OnGone, Schema, Side};
use crate::session::pair::{End, run};
use crate::session::{Grants, Role, Session, SessionOptions, Want};
use crate::store::MemoryStore;

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
    let mut server = session(Role::Server { grants: Grants::everybody() });
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
