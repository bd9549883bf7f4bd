//! What time trackers got wrong with two running timers, each as a test.

use super::*;

/// Every order of these numbers.
fn orders(of: &[usize]) -> Vec<Vec<usize>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (at, first) in of.iter().enumerate() {
        let mut rest = of.to_vec();
        rest.remove(at);
        all.extend(orders(&rest).into_iter().map(|mut order| {
            order.insert(0, *first);
            order
        }));
    }
    all
}

/// What shows of each entry, by id.
fn stops(replica: &Replica<MemoryStore>, ids: &[&str]) -> Vec<Value> {
    ids.iter().map(|id| shown(replica, id, "stop")).collect()
}

#[test]
fn three_and_five_timers_show_one_result_in_every_order_of_arrival() {
    let schema = timers();
    let ids = ["a", "b", "c", "d", "e"];
    for count in [3, 5] {
        let mut devices: Vec<_> = (0..count).map(|n| replica(n + 1, &schema)).collect();
        // Later ones are started earlier by their own clocks, and all of them run.
        for ((device, id), at) in devices.iter_mut().zip(ids).zip([50, 20, 40, 10, 30]) {
            start(device, at, id);
        }
        let mut results = std::collections::BTreeSet::new();
        for (n, order) in orders(&(0..devices.len()).collect::<Vec<_>>()).into_iter().enumerate() {
            let mut reader = replica(100 + n as u64, &schema);
            for device in order {
                sync(&mut reader, &mut devices[device]);
                let open = ids.iter().filter(|id| {
                    reader.view("entry", id).unwrap().is_some() && shown(&reader, id, "stop") == Value::Null
                });
                assert_eq!(open.count(), 1, "one runs at every moment");
            }
            results.insert(stops(&reader, ids.get(..devices.len()).unwrap()));
            // What it read stays out of the others: they would pass it on.
            devices.iter_mut().zip(ids).zip([50, 20, 40, 10, 30]).enumerate().for_each(
                |(n, ((device, id), at))| {
                    *device = replica(n as u64 + 1, &schema);
                    start(device, at, id);
                },
            );
        }
        assert_eq!(results.len(), 1, "{results:?}");
    }
}

#[test]
fn timers_of_one_stamp_and_of_one_time_are_told_apart() {
    let schema = timers();
    let mut one = replica(1, &schema);
    let start = |id: &str| {
        let fields = [("user", "u".into()), ("start", 5.into()), ("stop", Value::Null)];
        let fields = fields.map(|(field, value): (&str, Value)| (field.to_owned(), value)).to_vec();
        Op::new("entry", id, Action::Put(fields))
    };
    one.edit(Millis(5), &[start("b"), start("a")]).unwrap();
    assert_eq!(stops(&one, &["a", "b"]), [5.into(), Value::Null], "of one stamp the greater id is the later");
    let (mut first, mut second) = (replica(2, &schema), replica(3, &schema));
    super::start(&mut first, 5, "z");
    super::start(&mut second, 5, "y");
    sync(&mut first, &mut second);
    for replica in [&first, &second] {
        assert_eq!(stops(replica, &["y", "z"]), [Value::Null, 5.into()], "of one time the greater replica");
    }
}

#[test]
fn renaming_an_old_entry_does_not_make_it_win() {
    let schema = timers();
    let (mut one, mut other) = (replica(1, &schema), replica(2, &schema));
    start(&mut one, 10, "old");
    start(&mut other, 20, "new");
    // It does not know of the new one.
    put(&mut one, 1000, "old", &[("text", "renamed".into())]);
    sync(&mut one, &mut other);
    assert_eq!(stops(&one, &["old", "new"]), [20.into(), Value::Null]);
}

#[test]
fn an_end_comes_from_the_successor_and_from_nothing_else() {
    let schema = timers();
    let mut one = replica(1, &schema);
    put(&mut one, 1, "unrelated", &[("user", "v".into()), ("start", 77.into()), ("stop", Value::Null)]);
    // Clocks that are far from what is entered.
    put(&mut one, 500_000, "a", &[("user", "u".into()), ("start", 10.into()), ("stop", Value::Null)]);
    put(&mut one, 900_000, "b", &[("user", "u".into()), ("start", 30.into()), ("stop", Value::Null)]);
    assert_eq!(stops(&one, &["a", "b", "unrelated"]), [30.into(), Value::Null, Value::Null]);
    // One that starts before it ends it where it began.
    put(&mut one, 950_000, "c", &[("user", "u".into()), ("start", 20.into()), ("stop", Value::Null)]);
    assert_eq!(stops(&one, &["a", "b", "c"]), [30.into(), 30.into(), Value::Null]);
}

#[test]
fn stopping_or_deleting_the_winner_restarts_no_loser() {
    for deletes in [false, true] {
        let schema = timers();
        let (mut one, mut other) = (replica(1, &schema), replica(2, &schema));
        start(&mut one, 10, "loser");
        start(&mut other, 20, "winner");
        if deletes {
            other.edit(Millis(30), &[Op::new("entry", "winner", Action::Delete)]).unwrap();
        } else {
            put(&mut other, 30, "winner", &[("stop", 30.into())]);
        }
        sync(&mut one, &mut other);
        assert_eq!(stops(&one, &["loser"]), [20.into()]);
        assert_eq!(stops(&other, &["loser"]), [20.into()]);
    }
}

#[test]
fn an_entry_made_by_hand_for_the_past_cuts_no_running_timer() {
    let schema = timers();
    let mut one = replica(1, &schema);
    start(&mut one, 100, "running");
    put(&mut one, 200, "past", &[("user", "u".into()), ("start", 20.into()), ("stop", 50.into())]);
    assert_eq!(stops(&one, &["running"]), [Value::Null]);
    // Nor one that was started, set back and stopped.
    put(&mut one, 300, "set back", &[("user", "u".into()), ("start", 300.into()), ("stop", Value::Null)]);
    assert_eq!(stops(&one, &["running"]), [300.into()]);
    put(&mut one, 310, "set back", &[("start", 20.into()), ("stop", 60.into())]);
    assert_eq!(stops(&one, &["running"]), [Value::Null]);
}

#[test]
fn what_the_user_enters_beats_the_overlay() {
    let schema = timers();
    let (mut one, mut other) = (replica(1, &schema), replica(2, &schema));
    start(&mut one, 10, "a");
    start(&mut other, 20, "b");
    put(&mut one, 15, "a", &[("stop", 12.into())]);
    sync(&mut one, &mut other);
    assert_eq!(stops(&other, &["a", "b"]), [12.into(), Value::Null]);
    // Opened again by its user, it is the last that was opened.
    put(&mut other, 40, "a", &[("stop", Value::Null)]);
    assert_eq!(stops(&other, &["a", "b"]), [Value::Null, 20.into()]);
    // What shows is confirmed by naming it, and stays when the successor moves.
    put(&mut other, 50, "b", &[("stop", 20.into())]);
    put(&mut other, 60, "a", &[("start", 5.into())]);
    assert_eq!(stops(&other, &["a", "b"]), [Value::Null, 20.into()]);
    assert!(other.overlays("entry", "b").unwrap().is_empty());
}

#[test]
fn beginnings_after_their_ends_never_show() {
    let kind = |k: crate::schema::KindBuilder| {
        let k = k.value("user").value("start").value("stop");
        k.at_most_one("one running", ["user"], "stop", "start").expr("order", "stop", Side::AtLeast, "start")
    };
    let schema = Schema::builder().kind("entry", kind).build().unwrap();
    let (mut one, mut other) = (replica(1, &schema), replica(2, &schema));
    put(&mut one, 1, "a", &[("user", "u".into()), ("start", 10.into()), ("stop", 20.into())]);
    sync(&mut one, &mut other);
    put(&mut one, 2, "a", &[("start", 18.into())]);
    put(&mut other, 3, "a", &[("stop", 12.into())]);
    sync(&mut one, &mut other);
    for replica in [&one, &other] {
        assert_eq!((shown(replica, "a", "start"), shown(replica, "a", "stop")), (18.into(), 18.into()));
    }
}

#[test]
fn a_timer_moves_to_another_user_with_a_claim_of_its_own() {
    let schema = timers();
    let mut one = replica(1, &schema);
    let of = |user: &str, start: i64| [("user", user.into()), ("start", start.into()), ("stop", Value::Null)];
    put(&mut one, 10, "a", &of("u", 10));
    put(&mut one, 20, "b", &of("v", 20));
    put(&mut one, 30, "a", &[("user", "v".into())]);
    assert_eq!(stops(&one, &["a", "b"]), [Value::Null, 20.into()]);
    // It left its claim with the first user: what was before it there stays stopped.
    let mut two = replica(2, &schema);
    put(&mut two, 10, "x", &of("u", 10));
    put(&mut two, 20, "y", &of("u", 20));
    put(&mut two, 30, "y", &[("user", "w".into())]);
    assert_eq!(stops(&two, &["x", "y"]), [20.into(), Value::Null]);
}

#[test]
fn with_time_in_ms_an_end_lies_between_the_beginning_and_the_claim_that_took_over() {
    let kind = |k: crate::schema::KindBuilder| {
        let k = k.value("user").value("start").value("stop");
        k.at_most_one_ms("one running", ["user"], "stop", "start")
    };
    let schema = Schema::builder().kind("entry", kind).build().unwrap();
    for (start, expected) in [(1500, 1500), (500, 2000), (5000, 2000), (1000, 2000)] {
        let mut one = replica(1, &schema);
        put(&mut one, 1000, "a", &[("user", "u".into()), ("start", 1000.into()), ("stop", Value::Null)]);
        put(&mut one, 2000, "b", &[("user", "u".into()), ("start", start.into()), ("stop", Value::Null)]);
        assert_eq!(stops(&one, &["a"]), [expected.into()], "a successor that began at {start}");
    }
}

#[test]
fn a_user_accepts_also_an_end_that_a_later_rule_has_moved() {
    let kind = |k: crate::schema::KindBuilder| {
        let k = ["user", "text", "start", "stop", "n"].into_iter().fold(k, crate::schema::KindBuilder::value);
        k.at_most_one("one running", ["user"], "stop", "n").expr("order", "stop", Side::AtLeast, "start")
    };
    let mut one = replica(1, &Schema::builder().kind("entry", kind).build().unwrap());
    put(&mut one, 4, "a", &[("start", 7.into()), ("n", 1.into()), ("user", "u".into())]);
    put(&mut one, 5, "b", &[("n", 2.into()), ("user", "u".into())]);
    let overlay = one.overlays("entry", "a").unwrap().remove(0);
    assert_eq!((overlay.shown, overlay.rule.as_str(), overlay.rival), (7.into(), "order", None));
    put(&mut one, 8, "a", &[("text", "accepted".into())]);
    put(&mut one, 9, "b", &[("n", 20.into())]);
    assert_eq!((shown(&one, "a", "stop"), one.overlays("entry", "a").unwrap().len()), (7.into(), 0));
}
