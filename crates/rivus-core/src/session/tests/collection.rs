//! Leases and collection, case by case.

use super::leases::{open_timers, timers};
use super::*;
use crate::edit::Presence;

/// A hub whose leases run for `lease_ms`, and two devices that have met it.
pub(super) fn three(lease_ms: u64) -> (Device, Device, Device) {
    let (mut one, mut two, mut hub) = (open_timers(1), open_timers(2), open_timers(9));
    hub.serve_as_authority().unwrap();
    hub.lease_for(lease_ms);
    met(&mut one, &mut hub, 1000);
    met(&mut two, &mut hub, 1000);
    (one, two, hub)
}

/// A whole sync; whether the device was fenced and began anew.
pub(super) fn met(device: &mut Device, hub: &mut Device, now: i64) -> bool {
    match sync_at(device, hub, now) {
        Ok(events) => {
            let differs = |event: &SessionEvent| matches!(event, SessionEvent::Diverged { .. });
            assert!(!events.iter().any(differs), "{events:?}");
            false
        }
        Err(SessionError::Fenced) => {
            assert!(!met(device, hub, now));
            true
        }
        Err(other) => panic!("{other}"),
    }
}

pub(super) fn set(on: &mut Device, now: i64, kind: &str, id: &str, fields: &[(&str, Value)]) {
    let fields = fields.iter().map(|(field, value)| ((*field).to_owned(), value.clone())).collect();
    on.edit(Millis(now), &[Op::new(kind, id, Action::Put(fields))]).unwrap();
}

/// The entities that would be collected.
fn collectable(hub: &Device, now: i64, grace_ms: u64) -> Vec<(String, String)> {
    hub.collectable(Millis(now), grace_ms).unwrap().entities
}

pub(super) fn delete(on: &mut Device, now: i64, kind: &str, id: &str) {
    on.edit(Millis(now), &[Op::new(kind, id, Action::Delete)]).unwrap();
}

fn key_of(edited: crate::replica::Edited) -> u64 {
    let crate::replica::Edited::Committed { seq, .. } = edited else { panic!("{edited:?}") };
    seq
}

#[test]
fn an_edit_is_seen_by_all_once_every_store_with_a_lease_has_it() {
    let (mut one, mut two, mut hub) = three(50_000);
    let ops = [Op::new("note", "n", Action::Put(vec![("v".to_owned(), 1.into())]))];
    let key = key_of(one.edit(Millis(2000), &ops).unwrap());
    assert!(!one.is_seen(key));
    met(&mut one, &mut hub, 3000);
    met(&mut one, &mut hub, 3000);
    assert!(one.is_received(key).unwrap() && !one.is_seen(key), "the other one has not been here");
    met(&mut two, &mut hub, 4000);
    assert!(!one.is_seen(key), "nobody has told it");
    met(&mut one, &mut hub, 5000);
    assert!(one.is_seen(key));
    // Also after a restart, and without the one whose lease has run out.
    let mut one = Replica::open(
        one.into_store(),
        timers(),
        OpenOptions { seeds: seeds(3), slot: 0, admission: Admission::Off, rank: 0 },
    )
    .unwrap();
    assert!(!one.is_seen(key), "that is not kept");
    met(&mut one, &mut hub, 5000);
    assert!(one.is_seen(key));
    let key = key_of(one.edit(Millis(6000), &ops.map(|op| Op { id: "m".to_owned(), ..op })).unwrap());
    met(&mut one, &mut hub, 90_000);
    met(&mut one, &mut hub, 90_000);
    assert!(one.is_seen(key));
}

#[test]
fn whoever_edits_hears_live_when_everybody_has_it_and_nobody_else_hears_anything() {
    let (mut one, mut two, mut hub) = three(50_000);
    let now = Millis(5000);
    let (mut s, mut t) = (client(Want::Live), server());
    let (mut u, mut v) = (client(Want::Live), server());
    let mut pump = |one: &mut Device, two: &mut Device, hub: &mut Device| {
        let mut frames = [0, 0];
        for _ in 0..3 {
            let mut end = End { replica: hub, session: &mut t, now };
            frames[0] += run(&mut End { replica: one, session: &mut s, now }, &mut end, usize::MAX).unwrap();
            let mut end = End { replica: hub, session: &mut v, now };
            frames[1] += run(&mut End { replica: two, session: &mut u, now }, &mut end, usize::MAX).unwrap();
        }
        [&mut s, &mut t, &mut u, &mut v].into_iter().for_each(Session::handle_quiet);
        frames
    };
    pump(&mut one, &mut two, &mut hub);
    pump(&mut one, &mut two, &mut hub);
    let ops = [Op::new("note", "n", Action::Put(vec![("v".to_owned(), 1.into())]))];
    let key = key_of(one.edit(now, &ops).unwrap());
    for _ in 0..5 {
        pump(&mut one, &mut two, &mut hub);
    }
    assert!(one.is_seen(key));
    assert_eq!(pump(&mut one, &mut two, &mut hub), [0, 0], "it is quiet then");
}

#[test]
fn a_device_that_was_away_for_too_long_comes_back_under_a_new_id_with_its_unsent_edits() {
    let (mut one, mut two, mut hub) = three(10_000);
    for id in ["a", "b", "c"] {
        set(&mut one, 2000, "plan", id, &[("v", 1.into()), ("text", id.into())]);
    }
    inc_views(&mut two, 2001, "a");
    met(&mut one, &mut hub, 3000);
    met(&mut two, &mut hub, 3000);
    met(&mut one, &mut hub, 3000);
    // Away: an edit of what goes, one of what stays, one of something new, and an increment.
    set(&mut two, 4000, "plan", "a", &[("v", 2.into())]);
    set(&mut two, 4001, "plan", "b", &[("v", 3.into())]);
    set(&mut two, 4002, "plan", "new", &[("v", 4.into())]);
    inc_views(&mut two, 4003, "b");
    let before = (two.identity().store, two.id());
    delete(&mut one, 5000, "plan", "a");
    met(&mut one, &mut hub, 6000);
    assert_eq!(hub.collect(Millis(7000), 0).unwrap().entities, 0, "its lease runs");
    met(&mut one, &mut hub, 30_000);
    let done = hub.collect(Millis(30_000), 0).unwrap();
    assert_eq!((done.entities, done.forgotten), (1, 0));
    met(&mut one, &mut hub, 30_001);
    assert_eq!(hub.collect(Millis(30_001), 0).unwrap().forgotten, 1, "nobody has to be told any more");
    assert_eq!(hub.store().load("plan", "a", &[]).unwrap(), None, "no trace is left");
    assert!(met(&mut two, &mut hub, 31_000), "it is told");
    assert_ne!((two.identity().store, two.id()), before);
    assert!(two.identity().former.contains(&before.1));
    let running = hub.leases().unwrap().into_iter().filter(|lease| lease.is_running(Millis(31_000)));
    let stores: Vec<_> = running.map(|lease| lease.store).collect();
    assert!(
        !stores.contains(&before.0) && stores.contains(&two.identity().store),
        "the old id is not waited for"
    );
    let rejected = two.rejected().unwrap();
    assert_eq!(rejected.len(), 1);
    assert_eq!((rejected[0].code, rejected[0].ops[0].id.as_str()), (Code::GONE, "a"));
    assert_eq!(two.presence("plan", "a"), Ok(Presence::Absent));
    for (id, number) in [("b", 3), ("new", 4)] {
        assert_eq!(shows_number(&hub, id), Some(number), "{id}");
        assert_eq!(shows_number(&two, id), Some(number), "{id}");
    }
    assert_eq!(hub.view("plan", "b").unwrap().unwrap().fields["views"], Shown::Counter(1));
    assert_same(&[&two, &hub]);
    assert!(!met(&mut two, &mut hub, 32_000), "once");
    // What it was to say can be said anew.
    two.retry_rejected(Millis(33_000), rejected[0].key).unwrap();
    met(&mut two, &mut hub, 33_000);
    assert_eq!(shows_number(&hub, "a"), Some(2));
}

fn inc_views(on: &mut Device, now: i64, id: &str) {
    let inc = Action::Inc { field: "views".to_owned(), by: 1 };
    on.edit(Millis(now), &[Op::new("plan", id, inc)]).unwrap();
}

fn shows_number(on: &Device, id: &str) -> Option<i64> {
    match on.view("plan", id).unwrap()?.fields.get("v") {
        Some(Shown::Value(Value::Int(number))) => Some(*number),
        _ => None,
    }
}

#[test]
fn a_device_whose_lease_ran_out_and_that_missed_nothing_goes_on_as_before() {
    let (mut one, mut two, mut hub) = three(10_000);
    set(&mut one, 2000, "plan", "a", &[("v", 1.into())]);
    met(&mut one, &mut hub, 3000);
    met(&mut two, &mut hub, 3000);
    delete(&mut one, 4000, "plan", "a");
    met(&mut one, &mut hub, 50_000);
    hub.collect(Millis(50_000), 0).unwrap();
    // The mark is there still.
    let before = two.identity().store;
    assert!(!met(&mut two, &mut hub, 60_000));
    assert_eq!((two.identity().store, two.presence("plan", "a")), (before, Ok(Presence::Absent)));
    assert_same(&[&two, &hub]);
}

#[test]
fn a_late_edit_of_what_was_collected_is_refused_as_gone_whatever_the_policy() {
    for kind in ["entry", "note", "plan"] {
        let (mut one, mut two, mut hub) = three(100_000);
        set(&mut one, 2000, kind, "a", &[("v", 1.into())]);
        met(&mut one, &mut hub, 3000);
        met(&mut two, &mut hub, 3000);
        // It cannot send for a while, and reads.
        set(&mut two, 3500, kind, "a", &[("v", 2.into())]);
        delete(&mut one, 4000, kind, "a");
        met(&mut one, &mut hub, 4000);
        for _ in 0..2 {
            let (mut s, mut t) = (client(Want::Live), server());
            s.hold_pushes(true);
            let now = Millis(5000);
            let mut end = End { replica: &mut hub, session: &mut t, now };
            run(&mut End { replica: &mut two, session: &mut s, now }, &mut end, usize::MAX).unwrap();
        }
        assert_eq!(hub.collect(Millis(6000), 0).unwrap().entities, 1, "everybody has read the deletion");
        met(&mut two, &mut hub, 7000);
        let rejected = two.rejected().unwrap();
        assert_eq!((rejected.len(), rejected[0].code), (1, Code::GONE), "{kind}");
        for on in [&two, &hub] {
            assert_eq!(on.presence(kind, "a"), Ok(Presence::Absent), "{kind}");
        }
        assert_same(&[&two, &hub]);
    }
}

#[test]
fn a_late_edit_is_gone_also_where_its_entity_was_created_anew() {
    let (mut one, mut two, mut hub) = three(100_000);
    set(&mut one, 2000, "plan", "a", &[("v", 1.into())]);
    met(&mut one, &mut hub, 3000);
    met(&mut two, &mut hub, 3000);
    set(&mut two, 3500, "plan", "a", &[("v", 2.into())]);
    delete(&mut one, 4000, "plan", "a");
    met(&mut one, &mut hub, 4000);
    let (mut s, mut t) = (client(Want::Live), server());
    s.hold_pushes(true);
    let now = Millis(5000);
    let mut end = End { replica: &mut hub, session: &mut t, now };
    run(&mut End { replica: &mut two, session: &mut s, now }, &mut end, usize::MAX).unwrap();
    assert_eq!(hub.collect(Millis(6000), 0).unwrap().entities, 1);
    met(&mut one, &mut hub, 7000);
    set(&mut one, 8000, "plan", "a", &[("v", 9.into())]);
    met(&mut one, &mut hub, 8000);
    // Older than what is there now, it would change nothing: its author hears of it all the same.
    met(&mut two, &mut hub, 9000);
    let rejected = two.rejected().unwrap();
    assert_eq!((rejected.len(), rejected[0].code), (1, Code::GONE));
    assert_eq!((shows_number(&hub, "a"), shows_number(&two, "a")), (Some(9), Some(9)));
    assert_same(&[&one, &two, &hub]);
}

#[test]
fn the_claim_of_a_deleted_rival_stays_while_its_predecessor_is_open() {
    let (mut one, mut two, mut hub) = three(100_000);
    let timer = |now: i64| [("user", 1.into()), ("start", now.into()), ("stop", Value::Null)];
    set(&mut one, 2000, "entry", "a", &timer(2000));
    set(&mut two, 3000, "entry", "b", &timer(3000));
    for device in [&mut one, &mut two] {
        met(device, &mut hub, 4000);
    }
    met(&mut one, &mut hub, 4000);
    let stop = |on: &Device| on.view("entry", "a").unwrap().unwrap().fields.remove("stop");
    assert_eq!(stop(&hub), Some(Shown::Value(3000.into())), "stopped by the other");
    delete(&mut two, 5000, "entry", "b");
    for device in [&mut two, &mut one] {
        met(device, &mut hub, 6000);
    }
    assert_eq!(hub.collect(Millis(7000), 0).unwrap().entities, 0);
    assert_eq!(stop(&hub), Some(Shown::Value(3000.into())), "or it would run again");
    // It is closed in its own register: nothing rests on the claim.
    set(&mut one, 8000, "entry", "a", &[("stop", 2500.into())]);
    for device in [&mut one, &mut two] {
        met(device, &mut hub, 9000);
    }
    assert_eq!(hub.collect(Millis(10_000), 0).unwrap().entities, 1);
    assert_eq!(stop(&hub), Some(Shown::Value(2500.into())));
}

#[test]
fn what_somebody_refers_to_and_what_an_alias_is_about_stays() {
    let (mut one, mut two, mut hub) = three(100_000);
    set(&mut one, 2000, "project", "p", &[("name", "p".into())]);
    set(&mut one, 2001, "entry", "e", &[("project", "p".into())]);
    set(&mut one, 2002, "project", "q", &[("name", "q".into())]);
    set(&mut one, 2003, "project", "r", &[("name", "r".into())]);
    let alias = Action::Alias { to: "r".to_owned() };
    one.edit(Millis(2500), &[Op::new("project", "q", alias)]).unwrap();
    for id in ["p", "r"] {
        delete(&mut one, 3000, "project", id);
    }
    met(&mut one, &mut hub, 4000);
    met(&mut two, &mut hub, 4000);
    assert_eq!(collectable(&hub, 5000, 0), Vec::new());
    set(&mut one, 6000, "entry", "e", &[("project", "z".into())]);
    met(&mut one, &mut hub, 7000);
    met(&mut two, &mut hub, 7000);
    assert_eq!(collectable(&hub, 8000, 0), vec![("project".to_owned(), "p".to_owned())]);
    assert_eq!(collectable(&hub, 8000, 6000), Vec::new(), "not so long after");
}

#[test]
fn only_an_authority_collects_and_not_while_rules_are_unresolved() {
    use crate::replica::CollectError;
    let (mut one, ..) = three(1);
    assert_eq!(one.collect(Millis(5), 0), Err(CollectError::NoAuthority));
    assert_eq!(open_timers(7).collect(Millis(5), 0), Err(CollectError::NoAuthority));
    // Somebody has told of later rules: what they read of the dead is not known here.
    let (mut one, mut two, mut hub) = three(100_000);
    set(&mut one, 2000, "plan", "a", &[("v", 1.into())]);
    delete(&mut one, 3000, "plan", "a");
    for _ in 0..2 {
        met(&mut one, &mut hub, 4000);
        met(&mut two, &mut hub, 4000);
    }
    assert_eq!(collectable(&hub, 5000, 0).len(), 1);
    hub.hear_epoch(1).unwrap();
    assert!(matches!(hub.collect(Millis(5000), 0), Err(CollectError::Rules(_))));
    assert!(matches!(hub.collectable(Millis(5000), 0), Err(CollectError::Rules(_))));
    assert_eq!(hub.presence("plan", "a"), Ok(Presence::Deleted));
}

#[test]
fn a_hub_without_the_schema_keeps_what_has_claims() {
    let (mut one, mut two, hub) = three(100_000);
    let options = OpenOptions { seeds: seeds(9), slot: 0, admission: Admission::Off, rank: 0 };
    let bare = Arc::new(Schema::builder().open().build().unwrap());
    let mut hub = Replica::open(hub.into_store(), bare, options).unwrap();
    set(&mut one, 2000, "entry", "timer", &[("user", 1.into()), ("start", 1.into()), ("stop", Value::Null)]);
    set(&mut one, 2001, "plan", "x", &[("v", 1.into())]);
    delete(&mut one, 3000, "entry", "timer");
    delete(&mut one, 3001, "plan", "x");
    met(&mut one, &mut hub, 4000);
    met(&mut two, &mut hub, 4000);
    assert_eq!(collectable(&hub, 5000, 0), vec![("plan".to_owned(), "x".to_owned())]);
}

#[test]
fn a_subscription_from_below_what_is_told_is_ended() {
    let (mut one, mut two, mut hub) = three(10_000);
    set(&mut one, 2000, "plan", "a", &[("v", 1.into())]);
    met(&mut one, &mut hub, 3000);
    met(&mut two, &mut hub, 3000);
    let old = two.cursor(StoreId(9)).unwrap().unwrap();
    delete(&mut one, 4000, "plan", "a");
    for now in [50_000, 50_001] {
        met(&mut one, &mut hub, now);
        hub.collect(Millis(now), 0).unwrap();
    }
    // One that does not look at what the greeting says.
    let (mut s, mut t) = (client(Want::Live), server());
    let now = Millis(60_000);
    let mut fresh = open_timers(5);
    let mut end = End { replica: &mut hub, session: &mut t, now };
    run(&mut End { replica: &mut fresh, session: &mut s, now }, &mut end, usize::MAX).unwrap();
    let subscribe = crate::wire::Subscribe {
        cursor: old,
        incarnation: Some(0),
        live: true,
        everything: false,
        digest: None,
    };
    let refused = t.handle(&mut hub, &Frame::Subscribe(subscribe).encode(), now);
    assert!(matches!(refused, Err(SessionError::Refused { code: Code::FENCED, .. })), "{refused:?}");
}
