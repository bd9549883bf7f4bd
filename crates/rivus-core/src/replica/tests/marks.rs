//! Fields that only some may write, that are written again when they have lost, that had another name, that show
//! something where nothing is held.

use proptest::prelude::*;

use super::sync::sync;
use super::*;
use crate::code::Code;
use crate::session::pair::{End, run};
use crate::session::{Grants, Role, Session, SessionOptions, Want};

fn schema_of(json: &str) -> Arc<Schema> {
    Arc::new(Schema::from_json_str(json).unwrap())
}

fn shop() -> Arc<Schema> {
    schema_of(
        r#"{"kinds":{"task":{"fields":{"title":{},"price":{"authority":true},
            "groups":{"type":"set","authority":true},"sold":{"type":"counter","authority":true}}}}}"#,
    )
}

fn with(n: u64, schema: &Arc<Schema>) -> Device {
    open_with(MemoryStore::new(), n, schema.clone())
}

fn sync_as(device: &mut Device, hub: &mut Device, token: Option<&str>) {
    let session = |role| {
        Session::new(SessionOptions {
            role,
            want: Want::Once,
            offers: true,
            seeds: seeds(777),
            capabilities: 0,
        })
    };
    let grants = Grants::everybody().grant("shop", 3);
    let mut client = session(Role::Client { token: token.map(str::to_owned) });
    let (mut server, now) = (session(Role::server(grants)), Millis(100_000));
    let mut one = End { replica: device, session: &mut client, now };
    run(&mut one, &mut End { replica: hub, session: &mut server, now }, usize::MAX).unwrap();
    assert!(client.is_closed());
}

#[test]
fn a_field_for_ranked_replicas_is_an_error_to_others() {
    let (mut a, mut hub) = (with(1, &shop()), with(9, &shop()));
    hub.become_authority().unwrap();
    let before = a.head().unwrap();
    for action in [field("price", 5), add("groups", "g"), inc("sold", 1)] {
        let refused = refused(&mut a, "task", action);
        assert!(matches!(refused, EditError::Ranked { .. }), "{refused}");
    }
    assert_eq!(a.head().unwrap(), before);
    act(&mut a, 1000, field("title", "chair"));
    act(&mut hub, 1000, field("price", 5));
    sync_as(&mut a, &mut hub, None);
    assert_eq!(shows(&a, "price"), value(5));
    assert!(matches!(refused(&mut a, "task", field("price", 6)), EditError::Ranked { .. }));
    // Who has the token gets a rank, and with it the right.
    sync_as(&mut a, &mut hub, Some("shop"));
    act(&mut a, 2000, field("price", 6));
    sync_as(&mut a, &mut hub, Some("shop"));
    assert_eq!((shows(&hub, "price"), a.rejected().unwrap().len()), (value(6), 0));
}

#[test]
fn a_hub_refuses_such_a_field_from_those_who_do_not_know_of_it() {
    let open = schema_of(r#"{"kinds":{"task":{"fields":{"title":{}},"open":true}}}"#);
    let (mut a, mut hub) = (with(1, &open), with(9, &shop()));
    hub.become_authority().unwrap();
    act(&mut hub, 1000, field("price", 5));
    sync_as(&mut a, &mut hub, None);
    act(&mut a, 2000, field("price", 1));
    act(&mut a, 3000, field("title", "chair"));
    sync_as(&mut a, &mut hub, None);
    let rejected = a.rejected().unwrap();
    assert!(matches!(&rejected[..], [only] if only.code == Code::RANK), "{rejected:?}");
    assert_eq!((shows(&a, "price"), shows(&hub, "price")), (value(5), value(5)));
    assert_eq!(shows(&hub, "title"), value("chair"));
}

#[test]
fn a_new_name_and_a_default_move_no_row() {
    let old = schema_of(r#"{"kinds":{"task":{"fields":{"name":{},"text":{}}}}}"#);
    let new = schema_of(
        r#"{"kinds":{"task":{"fields":{"title":{"was":"name"},"text":{},"size":{"default":3}},
            "rules":[{"rule":"unique","name":"titles","group":["size"],"field":"title"}]}}}"#,
    );
    let mut a = with(1, &old);
    for n in 0..1000 {
        on(&mut a, 1000, "task", &format!("{n:04}"), field("name", format!("n{n}")));
    }
    act(&mut a, 1000, field("name", "n1"));
    let before = a.head().unwrap();
    let mut a = open_with(a.into_store(), 1, new);
    let view = |a: &Device, id: &str| a.view("task", id).unwrap().unwrap().fields;
    for n in 0..1000 {
        let fields = view(&a, &format!("{n:04}"));
        assert_eq!(fields.get("title"), value(format!("n{n}")).as_ref());
        assert_eq!((fields.get("size"), fields.get("name")), (value(3).as_ref(), None));
    }
    assert!(matches!(shows(&a, "title"), Some(Shown::Value(Value::Text(t))) if t.starts_with("n1 #")));
    assert_eq!((a.head().unwrap().seq, a.head().unwrap().digest), (before.seq, before.digest));

    // What shows already is not written, and what is written is written under the new name.
    assert_eq!(on(&mut a, 2000, "task", "0002", field("title", "n2")), Edited::Nothing);
    assert_eq!(on(&mut a, 2000, "task", "0002", field("size", 3)), Edited::Nothing);
    on(&mut a, 2000, "task", "0002", field("title", "other"));
    on(&mut a, 2000, "task", "0003", field("size", Value::Null));
    assert_eq!(view(&a, "0002").get("title"), value("other").as_ref());
    assert_eq!(view(&a, "0003").get("size"), value(Value::Null).as_ref());
    // Going back to the old value is an edit like any other; nothing held of an entity shows nothing.
    assert_eq!(wrote(on(&mut a, 3000, "task", "0002", field("title", "n2"))), 2, "the title and its claim");
    assert_eq!(a.view("task", "new").unwrap(), None);
    assert_eq!(wrote(on(&mut a, 3000, "task", "new", field("size", 3))), 2, "life and the field");
}

#[test]
fn a_field_for_ranked_replicas_is_none_to_write_under_its_former_name_either() {
    let old = schema_of(r#"{"kinds":{"task":{"open":true,"fields":{"title":{}}}}}"#);
    let new =
        r#"{"kinds":{"task":{"open":true,"fields":{"title":{},"price":{"authority":true,"was":"cost"}}}}}"#;
    let (mut a, mut hub) = (with(1, &old), with(9, &schema_of(new)));
    hub.become_authority().unwrap();
    act(&mut a, 1000, field("title", "chair"));
    sync_as(&mut a, &mut hub, None);
    act(&mut a, 2000, field("cost", 1));
    sync_as(&mut a, &mut hub, None);
    let codes: Vec<_> = a.rejected().unwrap().iter().map(|rejected| rejected.code).collect();
    assert_eq!((codes, shows(&hub, "price")), (vec![Code::RANK], None));
}

fn stubborn() -> Arc<Schema> {
    schema_of(
        r#"{"kinds":{"task":{"fields":{"title":{"margin_ms":60000,"on_conflict":"restamp"},"text":{}}}}}"#,
    )
}

#[test]
fn a_value_that_lost_to_a_concurrent_one_is_written_again() {
    let (mut a, mut b) = (with(1, &stubborn()), with(2, &stubborn()));
    act(&mut a, 1000, field("title", "from a"));
    act(&mut b, 2000, field("title", "from b"));
    sync(&mut a, &mut b);
    sync(&mut a, &mut b);
    assert_eq!((shows(&a, "title"), shows(&b, "title")), (value("from a"), value("from a")));
    // Who has seen it may change it.
    act(&mut b, 3000, field("title", "b again"));
    sync(&mut a, &mut b);
    sync(&mut a, &mut b);
    assert_eq!((shows(&a, "title"), shows(&b, "title")), (value("b again"), value("b again")));
    // So does an authority with what is pushed.
    let (mut hub, mut c) = (with(9, &stubborn()), with(3, &stubborn()));
    hub.become_authority().unwrap();
    act(&mut hub, 1000, field("title", "hub"));
    act(&mut c, 2000, field("title", "from c"));
    sync(&mut c, &mut hub);
    sync(&mut c, &mut hub);
    assert_eq!((shows(&hub, "title"), shows(&c, "title")), (value("hub"), value("hub")));
    assert_eq!(c.pending_count().unwrap(), 0);
}

#[test]
fn what_another_stands_for_is_not_written_again_into_that() {
    let fields = r#""fields":{"title":{"margin_ms":60000,"on_conflict":"restamp"}}"#;
    let schema = schema_of(&format!(r#"{{"kinds":{{"task":{{"aliases":true,{fields}}}}}}}"#));
    let (mut a, mut b) = (with(1, &schema), with(2, &schema));
    for id in ["t", "winner"] {
        on(&mut a, 1000, "task", id, field("title", id));
    }
    sync(&mut a, &mut b);
    act(&mut a, 2000, field("title", "from a"));
    act(&mut a, 2001, Action::Alias { to: "winner".to_owned() });
    act(&mut b, 2500, field("title", "from b"));
    sync(&mut a, &mut b);
    sync(&mut a, &mut b);
    for device in [&a, &b] {
        let winner = device.view("task", "winner").unwrap().unwrap();
        assert_eq!(winner.fields.get("title"), value("winner").as_ref());
    }
}

#[test]
fn what_is_deleted_is_not_written_again() {
    let (mut a, mut b) = (with(1, &stubborn()), with(2, &stubborn()));
    act(&mut a, 1000, field("text", "x"));
    sync(&mut a, &mut b);
    act(&mut a, 2000, field("title", "from a"));
    act(&mut b, 3000, field("title", "from b"));
    act(&mut b, 3001, Action::Delete);
    sync(&mut a, &mut b);
    sync(&mut a, &mut b);
    assert!(is_deleted(&a, "task") && is_deleted(&b, "task"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn replicas_that_all_insist_come_to_rest(
        count in 2..5_usize,
        steps in prop::collection::vec((0..5_usize, 0..5_usize, 0..3_u8, 0..3000_i64), 1..40),
    ) {
        let mut all: Vec<Device> = (0..count).map(|n| with(n as u64 + 1, &stubborn())).collect();
        let meet = |all: &mut [Device], one: usize, other: usize| {
            let (low, high) = (one.min(other), one.max(other));
            if low < high {
                let (left, right) = all.split_at_mut(high);
                sync(&mut left[low], &mut right[0]);
            }
        };
        for (step, (one, other, what, ahead)) in steps.into_iter().enumerate() {
            let (one, other) = (one % count, other % count);
            if what == 0 {
                meet(&mut all, one, other);
            } else {
                let now = 10_000 + ahead + step as i64;
                act(&mut all[one], now, field("title", format!("{one} in step {step}")));
            }
        }
        // Every round each meets each. There are at most as many rounds with news as there are replicas, and one more
        // for the last of these to get about.
        let mut rounds = 0;
        loop {
            let before: Vec<_> = all.iter().map(|d| d.head().unwrap().digest).collect();
            for one in 0..count {
                for other in 0..one {
                    meet(&mut all, one, other);
                }
            }
            let after: Vec<_> = all.iter().map(|d| d.head().unwrap().digest).collect();
            if before == after {
                break;
            }
            rounds += 1;
            prop_assert!(rounds <= count + 1, "{rounds} rounds among {count}");
        }
        let shown: BTreeSet<_> = all.iter().map(|d| format!("{:?}", shows(d, "title"))).collect();
        prop_assert_eq!(shown.len(), 1);
    }
}
