//! Edits that are made while others are on their way: an acknowledgement confirms what was sent, and nothing that was
//! written since.

use super::engine::round;
use super::*;
use crate::schema::{Candidate, KindBuilder};

/// A field of every type, of every life an entity, and a rule that writes claims.
fn every() -> Arc<Schema> {
    let last = |candidates: &[Candidate<'_>]| {
        candidates.iter().max_by_key(|one| one.stamp).map_or(Value::Null, |one| one.value.clone())
    };
    let thing = move |k: KindBuilder| {
        k.life(Life::EditRevives)
            .open()
            .value("list")
            .scope("list")
            .value("plain")
            .value_with("margin", Margin::Ms(5000), Resolver::Rank)
            .custom("custom", "last", last)
            .multi("multi")
            .value("street")
            .value("city")
            .group("place", ["street", "city"])
            .set("set")
            .map("map")
            .counter("counter")
            .max("max")
            .min("min")
            .flag("flag")
    };
    let entry = |k: KindBuilder| {
        let fields = ["list", "start", "stop"].into_iter().fold(k.scope("list"), KindBuilder::value);
        fields.at_most_one("one running", ["list"], "stop", "start")
    };
    let lives = [("thing 2", Life::DeleteWins), ("thing 3", Life::Newest)];
    let lives = lives
        .into_iter()
        .fold(Schema::builder(), |schema, (kind, life)| schema.kind(kind, |k| k.life(life).value("plain")));
    Arc::new(lives.kind("thing", thing).kind("entry", entry).build().unwrap())
}

fn open_every(n: u64, admission: Admission) -> Device {
    let options = OpenOptions { seeds: seeds(n), slot: 0, admission, rank: 0 };
    Replica::open(MemoryStore::new(), every(), options).unwrap()
}

fn device_and_hub() -> (Device, Device) {
    let mut a = open_every(1, Admission::Quarantine { drift_ms_max: 60_000 });
    let mut h = open_every(9, Admission::Refuse { drift_ms_max: 60_000 });
    h.become_authority().unwrap();
    sync(&mut a, &mut h);
    (a, h)
}

const LIVES: [&str; 3] = ["thing", "thing 2", "thing 3"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Time {
    First,
    Second,
}

/// What a user does to everything there is, once and then again: an edit each, and how many these are.
fn write(on: &mut Device, time: Time) -> usize {
    let again = time == Time::Second;
    let one = |first: Value, second: Value| if again { second } else { first };
    let put =
        |field: &str, first: Value, second: Value| Action::Put(vec![(field.to_owned(), one(first, second))]);
    let texts = |field: &str| put(field, "one".into(), "two".into());
    let key = if again { "two" } else { "one" };
    let (set, map, counter) = ("set".to_owned(), "map".to_owned(), "counter".to_owned());
    let mut actions =
        ["list", "undeclared", "plain", "margin", "custom", "multi", "street", "city"].map(texts).to_vec();
    actions.extend([
        Action::Add { field: set.clone(), key: key.to_owned() },
        if again {
            Action::Remove { field: set, key: "one".to_owned() }
        } else {
            Action::Add { field: set, key: "stays".to_owned() }
        },
        Action::SetKey { field: map.clone(), key: "k".to_owned(), value: key.into() },
        Action::SetKey { field: map, key: key.to_owned(), value: 1.into() },
        Action::Inc { field: counter, by: if again { 10 } else { 1 } },
        // What was greatest, least or true shows no more once it was seen and written over.
        put("max", 2.into(), 1.into()),
        put("min", 1.into(), 2.into()),
        put("flag", true.into(), false.into()),
    ]);
    let mut ops: Vec<_> = actions.into_iter().map(|action| Op::new("thing", "t", action)).collect();
    for kind in LIVES {
        let create = Action::Put(vec![("plain".to_owned(), "x".into())]);
        // Of each kind one is there and goes, and one was deleted and comes back.
        let does = if again {
            vec![("goes", Action::Delete), ("comes", Action::Revive)]
        } else {
            vec![("goes", create.clone()), ("comes", create), ("comes", Action::Delete)]
        };
        ops.extend(does.into_iter().map(|(id, action)| Op::new(kind, id, action)));
    }
    let starts = |id: &str, start: i64| {
        let fields = [("list", "l".into()), ("start", start.into()), ("stop", Value::Null)];
        Op::new("entry", id, Action::Put(fields.map(|(name, value)| (name.to_owned(), value)).into()))
    };
    let stops = Action::Put(vec![("stop".to_owned(), 1999.into())]);
    ops.push(if again { starts("second", 2000) } else { starts("first", 1000) });
    if again {
        // Its end shows on account of the second; now it is its own.
        ops.push(Op::new("entry", "first", stops));
    }
    let before = on.pending_count().unwrap();
    for op in &ops {
        on.edit(Millis(if again { 2000 } else { 1000 }), std::slice::from_ref(op)).unwrap();
    }
    on.pending_count().unwrap() - before
}

/// What shows of all that is written, with what rules show in place of it.
fn sights(of: &Device) -> impl PartialEq + std::fmt::Debug + use<> {
    let lives = LIVES.into_iter().flat_map(|kind| [(kind, "goes"), (kind, "comes")]);
    let all = lives.chain([("thing", "t"), ("entry", "first"), ("entry", "second")]);
    let see = |(kind, id)| (of.view(kind, id).unwrap(), of.overlays(kind, id).unwrap());
    all.map(see).collect::<Vec<_>>()
}

/// The fields of everything, as they are after both.
fn assert_written(on: &Device) {
    let view = on.view("thing", "t").unwrap().unwrap();
    let set: std::collections::BTreeSet<_> = ["stays", "two"].map(str::to_owned).into();
    for field in ["list", "undeclared", "plain", "margin", "custom", "street", "city"] {
        assert_eq!(view.fields[field], Shown::Value("two".into()), "{field}");
    }
    assert_eq!(view.fields["multi"], Shown::Value(Value::List(vec!["two".into()])));
    assert_eq!(view.fields["set"], Shown::Set(set));
    let map = [("k", "two".into()), ("one", 1.into()), ("two", 1.into())];
    assert_eq!(view.fields["map"], Shown::Map(map.map(|(key, value)| (key.to_owned(), value)).into()));
    assert_eq!(view.fields["counter"], Shown::Counter(11));
    for (field, value) in [("max", 1.into()), ("min", 2.into()), ("flag", false.into())] {
        assert_eq!(view.fields[field], Shown::Value(value), "{field}");
    }
    for kind in LIVES {
        let is_deleted = |id: &str| on.view(kind, id).unwrap().unwrap().deleted;
        assert_eq!((is_deleted("goes"), is_deleted("comes")), (true, false), "{kind}");
    }
    let stop = |id: &str| on.view("entry", id).unwrap().unwrap().fields["stop"].clone();
    assert_eq!((stop("first"), stop("second")), (Shown::Value(1999.into()), Shown::Value(Value::Null)));
}

/// What the authority accepted. It has nothing against any edit.
fn accepted(events: &[SessionEvent]) -> usize {
    let answered = events.iter().filter_map(|event| match event {
        SessionEvent::Answered(answered) => Some(answered.clone()),
        _ => None,
    });
    answered
        .map(|answered| {
            assert_eq!(answered, Answered { accepted: answered.accepted, ..Answered::default() });
            answered.accepted
        })
        .sum()
}

#[test]
fn an_edit_of_every_field_during_a_push_takes_exactly_one_more_and_loses_nothing() {
    for want in [Want::Live, Want::Once] {
        let small = || {
            let mut client = client(want);
            client.set_push_edits_max(4);
            client
        };
        let (mut a, mut h) = device_and_hub();
        let first = write(&mut a, Time::First);
        let (passed, _) = round(&mut a, &mut h, small(), usize::MAX, |_, _| {});
        let begin = passed.iter().position(|tag| *tag == tag::PUSH).unwrap();
        let end = passed.iter().rposition(|tag| *tag == tag::ACK).unwrap();
        assert!(end > begin + 10, "{passed:?}");
        for at in begin..=end {
            let when = format!("{want:?}, after frame {at} of {passed:?}");
            let (mut a, mut b, mut h) = {
                let (a, h) = device_and_hub();
                (a, open_every(2, Admission::Quarantine { drift_ms_max: 60_000 }), h)
            };
            write(&mut a, Time::First);
            let (mut passed, mut second, mut seen) = (0, 0, None);
            let during = |device: &mut Device, _| {
                if passed == at {
                    second = write(device, Time::Second);
                    seen = Some(sights(device));
                }
                passed += 1;
            };
            let (_, events) = round(&mut a, &mut h, small(), usize::MAX, during);
            assert_written(&a);
            if want == Want::Once {
                // A round takes what was there when it began, so that it ends.
                assert_eq!((accepted(&events), a.pending_count().unwrap()), (first, second), "{when}");
                let (_, events) = round(&mut a, &mut h, small(), usize::MAX, |_, _| {});
                assert_eq!(accepted(&events), second, "{when}");
            } else {
                assert_eq!(accepted(&events), first + second, "{when}");
            }
            assert_eq!(a.pending_count(), Ok(0), "{when}");
            let (passed, _) = round(&mut a, &mut h, client(Want::Once), usize::MAX, |_, _| {});
            assert!(!passed.contains(&tag::PUSH), "{when}: {passed:?}");
            sync(&mut b, &mut h);
            assert_same(&[&a, &b, &h]);
            for device in [&a, &b, &h] {
                assert_written(device);
                assert_eq!(Some(sights(device)), seen, "{when}");
                assert_eq!(device.scope_of("thing", "t").unwrap(), "two");
            }
        }
    }
}
