//! What a device wrote before it met its hub, and the hub does not take.

use super::grants::{Bench, validating};
use super::*;
use crate::clock::Force;
use crate::replica::{Event, Proposed, Refusal, Rejected, Spot};

/// The only refused edit.
fn only_refused(device: &Device) -> Rejected {
    let mut refused = device.rejected().unwrap();
    assert_eq!(refused.len(), 1, "{refused:?}");
    refused.remove(0)
}

fn act(device: &mut Device, ms: i64, id: &str, actions: Vec<Action>) {
    let apply = |tx: &mut crate::edit::Tx<'_, MemoryStore>| {
        actions.iter().try_for_each(|action| tx.apply(&Op::new("task", id, action.clone())))
    };
    device.transact(Millis(ms), Force::No, apply).unwrap();
}

fn title(value: &str) -> Action {
    Action::Put(vec![("title".to_owned(), value.into())])
}

/// An edit of every kind of field, which the hub refuses for its title.
fn refused_edit() -> Vec<Action> {
    let (field, key) = (|name: &str| name.to_owned(), || "k".to_owned());
    vec![
        Action::Put(vec![
            (field("title"), "bad".into()),
            (field("owner"), "ann".into()),
            (field("unknown"), 7.into()),
        ]),
        Action::Add { field: field("tags"), key: key() },
        Action::SetKey { field: field("labels"), key: key(), value: "red".into() },
        Action::Inc { field: field("views"), by: 3 },
    ]
}

#[test]
fn what_is_refused_of_the_first_meeting_is_listed_and_shows_no_more() {
    let mut bench = Bench::new(validating());
    act(&mut bench.device, 1000, "t", refused_edit());
    act(&mut bench.device, 1001, "u", vec![title("fine")]);
    bench.device.poll_events();
    let events = bench.meet(50_000);
    // The hub has none of it, the device shows none of it, and nothing differs.
    assert_eq!((shows(&bench.device, "t", "title"), shows(&bench.hub, "t", "title")), (None, None));
    assert_eq!(
        (shows(&bench.device, "u", "title"), shows(&bench.hub, "u", "title")),
        (text("fine"), text("fine"))
    );
    assert_eq!(bench.device.head().unwrap().digest.shown, bench.hub.head().unwrap().digest.shown);
    let diverged = |event: &SessionEvent| matches!(event, SessionEvent::Diverged { .. });
    assert!(!events.iter().any(diverged), "{events:?}");
    assert!(events.contains(&SessionEvent::Returned([(Code::INVALID, 1)].into())), "{events:?}");
    // It is kept with its reason, and with all that it wrote.
    let refused = only_refused(&bench.device);
    let (kind, id, field) = ("task".to_owned(), "t".to_owned(), Some("title".to_owned()));
    assert_eq!((refused.code, &*refused.message), (Code::INVALID, "not that title"));
    assert_eq!(refused.spot, Some(Spot { kind, id, field }));
    let told = bench.device.poll_events();
    assert!(told.contains(&Event::Rejected(refused)), "{told:?}");
    assert!(bench.device.verify().unwrap().is_sound());
    // Another connection says nothing new.
    let again = bench.meet(60_000);
    assert!(!again.iter().any(|event| diverged(event) || matches!(event, SessionEvent::Returned(_))));
    assert_eq!(bench.device.rejected().unwrap().len(), 1);
}

#[test]
fn what_was_refused_of_the_first_meeting_is_written_again_as_it_was() {
    let (mut bench, mut fresh) = (Bench::new(validating()), device(3));
    act(&mut bench.device, 1000, "t", refused_edit());
    act(&mut fresh, 1000, "t", refused_edit());
    let shown = fresh.view("task", "t").unwrap();
    bench.meet(50_000);
    assert_eq!(bench.device.view("task", "t").unwrap(), None);
    let key = only_refused(&bench.device).key;
    bench.device.retry_rejected(Millis(60_000), key).unwrap().unwrap();
    assert_eq!(bench.device.view("task", "t").unwrap(), shown);
    // To a hub that takes it.
    bench.gate = super::grants::gate();
    bench.meet(70_000);
    assert_eq!(bench.hub.view("task", "t").unwrap(), shown);
    assert!(bench.device.rejected().unwrap().is_empty());
}

#[test]
fn what_was_refused_of_the_first_meeting_can_be_discarded_or_written_over() {
    let mut bench = Bench::new(validating());
    act(&mut bench.device, 1000, "t", vec![title("bad")]);
    act(&mut bench.device, 1001, "u", vec![title("bad")]);
    bench.meet(50_000);
    let keys: Vec<u64> = bench.device.rejected().unwrap().iter().map(|refused| refused.key).collect();
    assert_eq!(keys, [1, 2]);
    assert!(bench.device.discard_rejected(1).unwrap());
    act(&mut bench.device, 60_000, "u", vec![title("good")]);
    assert!(bench.device.rejected().unwrap().is_empty());
    bench.meet(70_000);
    assert_eq!((shows(&bench.hub, "t", "title"), shows(&bench.hub, "u", "title")), (None, text("good")));
}

#[test]
fn edits_made_while_the_hub_looks_at_what_was_before_stand_on_what_remains() {
    let mut bench = Bench::new(validating());
    act(&mut bench.device, 1000, "t", vec![title("bad")]);
    act(&mut bench.device, 1001, "t", vec![Action::Put(vec![("owner".to_owned(), "ann".into())])]);
    let (mut s, mut t) = bench.sessions();
    // It knows its hub by now, so that what it writes is pending.
    while bench.device.identity().authority.is_none() {
        bench.pass(&mut s, &mut t, 50_000);
    }
    let tag = Action::Add { field: "tags".to_owned(), key: "late".to_owned() };
    act(&mut bench.device, 50_001, "t", vec![Action::Put(vec![("title".to_owned(), "good".into())]), tag]);
    assert_eq!(bench.device.pending_count().unwrap(), 1);
    bench.run(&mut s, &mut t, 50_002);
    let (here, there) = (bench.device.view("task", "t").unwrap(), bench.hub.view("task", "t").unwrap());
    assert_eq!(here, there);
    assert_eq!(
        (shows(&bench.hub, "t", "title"), shows(&bench.hub, "t", "owner")),
        (text("good"), text("ann"))
    );
    assert_eq!(bench.device.head().unwrap().digest.shown, bench.hub.head().unwrap().digest.shown);
    assert!(bench.device.verify().unwrap().is_sound());
}

#[test]
fn what_is_pending_is_newer_than_what_is_written_again() {
    let mut bench = Bench::new(super::grants::gate_without_restore());
    act(&mut bench.device, 3_650_000, "t", vec![title("old")]);
    let (mut s, mut t) = bench.sessions();
    while bench.device.identity().authority.is_none() {
        bench.pass_at(&mut s, 3_650_100, &mut t, 50_000);
    }
    act(&mut bench.device, 3_650_200, "t", vec![title("new")]);
    bench.run_at(&mut s, Millis(3_650_300), &mut t, Millis(50_200));
    assert_eq!(
        (shows(&bench.hub, "t", "title"), shows(&bench.device, "t", "title")),
        (text("new"), text("new"))
    );
    assert!(bench.device.rejected().unwrap().is_empty());
    assert_eq!(bench.device.pending_count().unwrap(), 0);
    assert_eq!(bench.device.head().unwrap().digest.shown, bench.hub.head().unwrap().digest.shown);
}

#[test]
fn what_is_pending_holds_nothing_of_what_is_refused() {
    let mut bench = Bench::new(validating());
    let inc = |by| Action::Inc { field: "views".to_owned(), by };
    act(&mut bench.device, 1000, "t", vec![title("bad"), inc(5)]);
    let (mut s, mut t) = bench.sessions();
    while bench.device.identity().authority.is_none() {
        bench.pass(&mut s, &mut t, 50_000);
    }
    act(&mut bench.device, 50_001, "t", vec![inc(2)]);
    bench.run(&mut s, &mut t, 50_002);
    assert_eq!(shows(&bench.hub, "t", "views"), Some(Shown::Counter(2)));
    assert_eq!(bench.device.view("task", "t").unwrap(), bench.hub.view("task", "t").unwrap());
    // Done again, it counts once.
    let key = only_refused(&bench.device).key;
    bench.device.retry_rejected(Millis(60_000), key).unwrap();
    assert_eq!(shows(&bench.device, "t", "views"), Some(Shown::Counter(7)));
}

#[test]
fn an_edit_of_many_entities_is_refused_as_one() {
    let mut bench = Bench::new(validating());
    let ops: Vec<Op> = (0..100).map(|n| Op::new("task", format!("{n:0>1000}"), title("bad"))).collect();
    bench.device.edit(Millis(1000), &ops).unwrap();
    let events = bench.meet(50_000);
    assert!(events.contains(&SessionEvent::Returned([(Code::INVALID, 1)].into())), "{events:?}");
    assert_eq!(only_refused(&bench.device).ops.len(), 100);
    assert_eq!(bench.device.head().unwrap().digest.count, 0);
}

#[test]
fn long_words_of_a_refusal_are_cut() {
    let words = |_: &str, _: &Proposed<'_>| Err(Refusal::new("no ".repeat(100_000)));
    let mut bench = Bench::new(super::grants::validating_by(words));
    act(&mut bench.device, 1000, "t", vec![title("x")]);
    bench.meet(50_000);
    let refused = only_refused(&bench.device);
    assert!(
        refused.message.starts_with("no no") && refused.message.len() <= 4096,
        "{}",
        refused.message.len()
    );
}

#[test]
fn what_was_stamped_by_a_clock_far_ahead_is_written_again_by_the_hubs() {
    let mut bench = Bench::new(super::grants::gate_without_restore());
    // An hour ahead.
    act(&mut bench.device, 3_650_000, "t", refused_edit());
    act(&mut bench.device, 3_650_001, "u", vec![title("late")]);
    let shown = bench.device.view("task", "t").unwrap();
    let (mut s, mut t) = bench.sessions();
    bench.run_at(&mut s, Millis(3_650_100), &mut t, Millis(50_000));
    assert!(bench.device.rejected().unwrap().is_empty(), "{:?}", bench.device.rejected());
    assert_eq!(
        (bench.device.view("task", "t").unwrap(), bench.hub.view("task", "t").unwrap()),
        (shown.clone(), shown)
    );
    assert_eq!(shows(&bench.hub, "u", "title"), text("late"));
    assert_eq!(bench.device.pending_count().unwrap(), 0);
}

#[test]
fn nobody_is_told_of_refusals_who_brought_nothing() {
    let mut bench = Bench::new(super::grants::gate());
    bench.meet(50_000);
    act(&mut bench.device, 51_000, "t", vec![title("mine")]);
    bench.meet(52_000);
    let (mut s, mut t) = bench.sessions();
    bench.run(&mut s, &mut t, 60_000);
    let stamp = bench.device.explain("task", "t", Some("title")).unwrap().unwrap().fields[0].registers[0]
        .candidates[0]
        .stamp;
    let (mut s, _) = bench.sessions();
    let mut t = super::grants::serve(&bench.gate);
    while !s.has_greeted() {
        bench.pass(&mut s, &mut t, 61_000);
    }
    let part = crate::wire::Refused {
        stamp,
        code: Code::INVALID,
        message: "".into(),
        spot: None,
        entities: vec![("task".to_owned(), "t".to_owned())],
    };
    let frame = Frame::Refused { clock_ms: 0, parts: vec![part] };
    let refused = s.handle(&mut bench.device, &frame.encode(), Millis(62_000));
    assert_eq!(super::grants::code(refused), Code::UNEXPECTED);
    assert_eq!(shows(&bench.device, "t", "title"), text("mine"));
}
