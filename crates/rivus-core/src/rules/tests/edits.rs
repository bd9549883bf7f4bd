//! What edits, views within them, verdicts and peers do to rules.

use super::*;
use crate::clock::Force;
use crate::edit::EditError;
use crate::view::Shown;

#[test]
fn an_entity_claims_the_group_that_earlier_rules_show_it_in() {
    let kind = |k: crate::schema::KindBuilder| {
        let k = k.value("lane").value("least").value("start").value("stop");
        k.at_most_one("one in a lane", ["lane"], "stop", "start")
            .bound("lanes", "lane", None, Value::Int(3))
            .expr("beside", "lane", Side::AtLeast, "least")
    };
    let refused = Schema::builder().kind("entry", kind).build();
    assert!(refused.is_err(), "two rules that own one field");
    for expr in [false, true] {
        let kind = |k: crate::schema::KindBuilder| {
            let k = k.value("lane").value("least").value("start").value("stop");
            let k = k.at_most_one("one in a lane", ["lane"], "stop", "start");
            if expr {
                k.expr("beside", "lane", Side::AtMost, "least")
            } else {
                k.bound("lanes", "lane", None, Value::Int(3))
            }
        };
        let mut one = replica(1, &Schema::builder().kind("entry", kind).build().unwrap());
        let begin = |one: &mut Replica<MemoryStore>, now: i64, id: &str, lane: i64| {
            let fields =
                [("lane", lane.into()), ("least", 3.into()), ("start", now.into()), ("stop", Value::Null)];
            put(one, now, id, &fields);
        };
        begin(&mut one, 1000, "a", 3);
        begin(&mut one, 2000, "b", 7);
        assert_eq!((shown(&one, "b", "lane"), shown(&one, "a", "stop")), (3.into(), 2000.into()));
        // It took its place there: stopping it brings nobody back.
        put(&mut one, 3000, "b", &[("stop", 3000.into())]);
        assert_eq!(shown(&one, "a", "stop"), 2000.into(), "expr: {expr}");
        let claims = |one: &Replica<MemoryStore>| {
            let mut claims = 0;
            one.registers("entry", "b", &mut |parts, _| {
                claims += usize::from(parts.class == address::class::CLAIM);
            })
            .unwrap();
            claims
        };
        assert_eq!(claims(&one), 1);
        // Another number beyond the bound is the same place, and no new claim.
        put(&mut one, 4000, "b", &[("lane", 9.into()), ("stop", Value::Null)]);
        let before = claims(&one);
        put(&mut one, 5000, "b", &[("lane", 8.into())]);
        assert_eq!((before, claims(&one)), (1, 1));
        if expr {
            // What the rule shows moves with the other field, and the entity with it.
            put(&mut one, 6000, "b", &[("least", 5.into())]);
            assert_eq!((shown(&one, "b", "lane"), claims(&one)), (5.into(), 2));
        }
    }
}

#[test]
fn views_within_an_edit_satisfy_the_rules_too() {
    let named = |k: crate::schema::KindBuilder| k.value("name").unique("one name", [] as [&str; 0], "name");
    let timers = timers().to_json();
    let mut json: serde_json::Value = serde_json::from_str(&timers).unwrap();
    let projects = Schema::builder().kind("project", named).build().unwrap().to_json();
    let projects: serde_json::Value = serde_json::from_str(&projects).unwrap();
    json["kinds"]["project"] = projects["kinds"]["project"].clone();
    let schema = Schema::from_json_str(&json.to_string()).unwrap();
    let mut one = replica(1, &schema);
    start(&mut one, 1000, "z");
    let op = |kind: &str, id: &str, fields: &[(&str, Value)]| {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Op::new(kind, id, Action::Put(fields))
    };
    let begin = |id: &str, at: i64| {
        op("entry", id, &[("user", "u".into()), ("start", at.into()), ("stop", Value::Null)])
    };
    let mut within = BTreeMap::new();
    let ids = ["z", "a", "b", "c"];
    let ((), _) = one
        .transact(Millis(5000), Force::No, |tx| {
            within.clear();
            for (id, at) in [("a", 2000), ("c", 4000), ("b", 3000)] {
                tx.apply(&begin(id, at))?;
                let open = ids.map(|id| Ok(tx.view("entry", id)?.map(|view| view.fields["stop"].clone())));
                let open = open.into_iter().collect::<Result<Vec<_>, EditError>>()?;
                let open = open.iter().filter(|stop| **stop == Some(Shown::Value(Value::Null)));
                assert_eq!(open.count(), 1, "after {id}");
            }
            // What an operation takes back is not there any more.
            tx.apply(&op("entry", "c", &[("stop", 4500.into())]))?;
            tx.apply(&op("project", "p", &[("name", "x".into())]))?;
            tx.apply(&op("project", "q", &[("name", "x".into())]))?;
            for id in ids {
                within.insert(("entry", id), tx.view("entry", id)?);
            }
            for id in ["p", "q"] {
                within.insert(("project", id), tx.view("project", id)?);
            }
            Ok(())
        })
        .unwrap();
    for ((kind, id), within) in within {
        assert_eq!(one.view(kind, id).unwrap(), within, "{kind} {id}: as it shows after the edit");
    }
    let name = |id: &str| one.view("project", id).unwrap().unwrap().fields["name"].clone();
    assert_ne!(name("q"), name("p"));
}

#[test]
fn an_end_that_was_accepted_on_account_of_a_refused_edit_goes_with_it() {
    use crate::code::Code;
    use crate::replica::{Answer, Verdict, Verdicts};
    let mut one = replica(1, &timers());
    one.meet_authority(StoreId(9), 0).unwrap();
    start(&mut one, 1000, "a");
    start(&mut one, 2000, "b");
    start(&mut one, 2500, "c");
    put(&mut one, 3000, "a", &[("text", "goes on".into())]);
    put(&mut one, 4000, "c", &[("stop", 4000.into())]);
    // The user names this end, whoever showed it.
    put(&mut one, 5000, "b", &[("stop", 2500.into()), ("text", "over".into())]);
    let mut edits = Vec::new();
    one.pending(0, &mut |key, edit| {
        edits.push((key, edit.header.stamp));
        ControlFlow::Continue(())
    })
    .unwrap();
    let refuse = |one: &mut Replica<MemoryStore>, (key, stamp): (u64, Stamp)| {
        let refused = Verdict::Refused { code: Code::RANK, message: "no".to_owned(), spot: None };
        let verdicts = Verdicts { seq: 0, exceptions: vec![(key, refused)] };
        let answer = Answer { edits: vec![(key, stamp)], verdicts, clock: Millis(6000) };
        one.verdicts(Millis(6000), &answer).unwrap();
        assert_eq!(one.head().unwrap().digest, one.recompute_digest().unwrap());
    };
    assert_eq!(shown(&one, "a", "stop"), 2000.into());
    refuse(&mut one, edits[1]);
    // It shows as stopped by the third now, and the end moves with that.
    assert_eq!((shown(&one, "a", "stop"), shown(&one, "a", "text")), (2500.into(), "goes on".into()));
    let last = edits[2];
    refuse(&mut one, last);
    assert_eq!(shown(&one, "a", "stop"), Value::Null, "nobody has stopped it");
    assert_eq!(shown(&one, "a", "text"), "goes on".into());
}
