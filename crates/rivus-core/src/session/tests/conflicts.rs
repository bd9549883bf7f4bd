//! Which writes are listed as lost, and how their authors hear of it.

use super::*;
use crate::conflict::{Conflict, LostTo};
use crate::replica::Event;

fn lost(on: &Device) -> Vec<(String, String, LostTo)> {
    let value = |bytes: &[u8]| match Value::decode(bytes) {
        Ok(Value::Text(text)) => text,
        other => format!("{other:?}"),
    };
    let conflicts = on.conflicts().unwrap();
    conflicts.iter().map(|(_, c)| (value(&c.value), value(&c.winner_value), c.to)).collect()
}

fn write(loser: &str, winner: &str) -> (String, String, LostTo) {
    (loser.to_owned(), winner.to_owned(), LostTo::Write)
}

fn only(on: &Device) -> (u64, Conflict) {
    let mut all = on.conflicts().unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn nobody_lost(devices: &[&Device]) {
    devices.iter().for_each(|device| assert_eq!(lost(device), []));
}

#[test]
fn what_was_seen_is_replaced_and_what_was_not_is_a_conflict_of_its_author() {
    let (mut a, mut b, mut hub) = (device(1), device(2), hub(9));
    sync(&mut a, &mut hub);
    sync(&mut b, &mut hub);
    put(&mut a, 1000, "t", "title", "one");
    sync(&mut a, &mut hub);
    sync(&mut b, &mut hub);
    put(&mut b, 2000, "t", "title", "two");
    sync(&mut b, &mut hub);
    sync(&mut a, &mut hub);
    nobody_lost(&[&a, &b, &hub]);

    put(&mut a, 3000, "t", "title", "three");
    put(&mut b, 3500, "t", "title", "four");
    sync(&mut a, &mut hub);
    sync(&mut b, &mut hub);
    nobody_lost(&[&b, &hub]);
    sync(&mut a, &mut hub);
    assert_eq!(lost(&a), [write("three", "four")]);
    nobody_lost(&[&b, &hub]);
    let (_, conflict) = only(&a);
    assert_eq!((conflict.gap_ms(), conflict.parts().name), (500, "title"));
    sync(&mut a, &mut hub);
    assert_eq!(lost(&a), [write("three", "four")], "it is told once");
}

#[test]
fn an_edit_that_comes_too_late_is_a_conflict_when_it_is_judged() {
    let (mut a, mut b, mut hub) = (device(1), device(2), hub(9));
    sync(&mut a, &mut hub);
    sync(&mut b, &mut hub);
    put(&mut a, 3000, "t", "title", "early");
    put(&mut b, 3500, "t", "title", "late");
    sync(&mut b, &mut hub);
    a.watch(Watching::Yes);
    sync(&mut a, &mut hub);
    assert_eq!(lost(&a), [write("early", "late")]);
    assert!(a.poll_events().iter().any(|event| matches!(event, Event::Conflict { number: 1, .. })));
    nobody_lost(&[&b, &hub]);
}

#[test]
fn the_authoritys_own_lost_writes_are_on_its_own_list() {
    let (mut a, mut hub) = (device(1), hub(9));
    sync(&mut a, &mut hub);
    put(&mut hub, 1000, "t", "title", "hub");
    put(&mut a, 1001, "t", "title", "device");
    sync(&mut a, &mut hub);
    assert_eq!(lost(&hub), [write("hub", "device")]);
    put(&mut hub, 2000, "t", "title", "hub again");
    sync(&mut a, &mut hub);
    assert_eq!(lost(&hub).len(), 1);
    nobody_lost(&[&a]);
}

#[test]
fn a_deletion_hides_what_its_author_had_not_seen_and_nothing_else() {
    let (mut a, mut b, mut hub) = (device(1), device(2), hub(9));
    sync(&mut b, &mut hub);
    put(&mut a, 1000, "t", "title", "seen");
    sync(&mut a, &mut hub);
    sync(&mut b, &mut hub);
    put(&mut a, 2000, "t", "owner", "unseen");
    sync(&mut a, &mut hub);
    act(&mut b, 1500, "t", Action::Delete);
    put(&mut a, 2500, "t", "free", "too late");
    sync(&mut b, &mut hub);
    sync(&mut a, &mut hub);
    let mut hidden: Vec<_> = lost(&a).into_iter().map(|(value, _, to)| (value, to)).collect();
    hidden.sort();
    let expected = [("too late".to_owned(), LostTo::Delete), ("unseen".to_owned(), LostTo::Delete)];
    assert_eq!(hidden, expected);
    nobody_lost(&[&b, &hub]);
}

#[test]
fn a_lost_write_is_written_again_or_dismissed() {
    let (mut a, mut b) = (device(1), device(2));
    put(&mut a, 1000, "t", "title", "a");
    act(&mut a, 1000, "t", Action::SetKey { field: "labels".into(), key: "k".into(), value: "x".into() });
    put(&mut b, 2000, "t", "title", "b");
    act(&mut b, 2000, "t", Action::Remove { field: "labels".into(), key: "k".into() });
    sync(&mut a, &mut b);
    let numbers: Vec<_> = a.conflicts().unwrap().into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers.len(), 2, "{:?}", lost(&a));
    for number in &numbers {
        assert!(a.restore_conflict(Millis(3000), *number).unwrap().is_some());
        assert_eq!(a.restore_conflict(Millis(3000), *number), Ok(None));
    }
    nobody_lost(&[&a]);
    assert_eq!(shows(&a, "t", "title"), text("a"));
    let labels = Shown::Map([("k".to_owned(), Value::from("x"))].into());
    assert_eq!(shows(&a, "t", "labels"), Some(labels));
    sync(&mut a, &mut b);
    assert_eq!(shows(&b, "t", "title"), text("a"));
    let number = b.conflicts().unwrap()[0].0;
    assert_eq!((b.dismiss_conflict(number), b.dismiss_conflict(number)), (Ok(true), Ok(false)));
}

#[test]
fn restoring_what_a_deletion_hid_revives_the_entity() {
    let (mut a, mut b) = (device(1), device(2));
    put(&mut a, 1000, "t", "title", "a");
    sync(&mut a, &mut b);
    put(&mut a, 2000, "t", "title", "more");
    act(&mut b, 2000, "t", Action::Delete);
    sync(&mut a, &mut b);
    let (number, conflict) = only(&a);
    assert_eq!(conflict.to, LostTo::Delete);
    a.restore_conflict(Millis(3000), number).unwrap().unwrap();
    sync(&mut a, &mut b);
    assert_eq!(shows(&b, "t", "title"), text("more"));
}

#[test]
fn deleting_what_was_created_elsewhere_and_not_changed_since_loses_nothing() {
    let (mut a, mut b) = (device(1), device(2));
    put(&mut a, 1000, "t", "title", "a");
    sync(&mut a, &mut b);
    act(&mut b, 2000, "t", Action::Delete);
    sync(&mut a, &mut b);
    nobody_lost(&[&a, &b]);
}

#[test]
fn without_an_authority_a_write_that_may_not_have_been_seen_is_listed() {
    let (mut a, mut b) = (device(1), device(2));
    put(&mut a, 1000, "t", "title", "one");
    put(&mut a, 1000, "t", "owner", "one");
    sync(&mut a, &mut b);
    put(&mut b, 2000, "t", "title", "two");
    put(&mut b, 2000, "t", "owner", "two");
    sync(&mut a, &mut b);
    // Within the margin a register tells what was seen; without a margin it does not.
    assert_eq!(lost(&a), [write("one", "two")]);
    assert_eq!(only(&a).1.parts().name, "title");
    nobody_lost(&[&b]);
}

#[test]
fn the_same_value_written_twice_is_no_loss() {
    let (mut a, mut b) = (device(1), device(2));
    put(&mut a, 1000, "t", "title", "same");
    put(&mut b, 2000, "t", "title", "same");
    sync(&mut a, &mut b);
    nobody_lost(&[&a, &b]);
}

#[test]
fn a_loss_waits_until_its_author_has_heard_of_it() {
    let (mut a, mut b, mut hub) = (device(1), device(2), hub(9));
    sync(&mut a, &mut hub);
    sync(&mut b, &mut hub);
    put(&mut a, 3000, "t", "title", "three");
    sync(&mut a, &mut hub);
    put(&mut b, 3500, "t", "title", "four");
    sync(&mut b, &mut hub);
    // Cut off after each number of frames: whatever was lost on the way comes with the next connection.
    for frames in 1..12 {
        let (mut one, mut two) = (client(Want::Once), server());
        let now = Millis(100_000);
        let ends = (
            &mut End { replica: &mut a, session: &mut one, now },
            &mut End { replica: &mut hub, session: &mut two, now },
        );
        run(ends.0, ends.1, frames).unwrap();
        assert!(a.conflicts().unwrap().len() <= 1);
    }
    sync(&mut a, &mut hub);
    assert_eq!(lost(&a), [write("three", "four")]);
    assert_eq!(hub.losses_of(a.id(), 0, usize::MAX), Ok(None), "nothing is left to tell");
}

#[test]
fn of_several_writes_in_a_row_the_last_is_listed() {
    let (mut a, mut b, mut hub) = (device(1), device(2), hub(9));
    sync(&mut a, &mut hub);
    sync(&mut b, &mut hub);
    put(&mut a, 3000, "t", "title", "r");
    put(&mut a, 3001, "t", "title", "ri");
    put(&mut b, 3500, "t", "title", "late");
    sync(&mut b, &mut hub);
    sync(&mut a, &mut hub);
    assert_eq!(lost(&a), [write("ri", "late")]);
    // The first of two is with the hub already, the second is not.
    put(&mut a, 4000, "t", "title", "v");
    sync(&mut a, &mut hub);
    put(&mut a, 4001, "t", "title", "vu");
    put(&mut b, 4500, "t", "title", "later");
    sync(&mut b, &mut hub);
    sync(&mut a, &mut hub);
    let all = lost(&a);
    assert_eq!(all.last(), Some(&write("vu", "later")), "{all:?}");
    nobody_lost(&[&hub]);
}

/// Sessions that are open, with nothing more to send.
fn open_line(one: &mut Device, two: &mut Device) -> (Session, Session) {
    let (mut a, mut b) = (client(Want::Live), server());
    let now = Millis(100_000);
    let ends =
        (&mut End { replica: one, session: &mut a, now }, &mut End { replica: two, session: &mut b, now });
    run(ends.0, ends.1, usize::MAX).unwrap();
    (a, b)
}

#[test]
fn losses_are_told_by_the_authority_alone_and_of_ones_own_writes() {
    use crate::wire::Frame;
    let told = |replica| {
        let conflicts = Vec::new();
        Frame::Lost(crate::replica::Losses { replica, last: 1, dropped: 0, conflicts }).encode()
    };
    let is_refused = |result: Result<(), SessionError>| {
        matches!(result, Err(SessionError::Refused { code: Code::UNEXPECTED, .. }))
    };
    let now = Millis(100_000);
    let (mut a, mut b) = (device(1), device(2));
    let (mut session, _) = open_line(&mut a, &mut b);
    assert!(is_refused(session.handle(&mut a, &told(ReplicaId::from_u128(1)), now)), "of a peer");

    let (mut c, mut hub) = (device(3), hub(9));
    let (mut session, _) = open_line(&mut c, &mut hub);
    let own = c.id();
    session.handle(&mut c, &told(own), now).unwrap();
    assert!(is_refused(session.handle(&mut c, &told(a.id()), now)), "of another replica's writes");

    let heard = Frame::Heard { replica: own, last: 1 }.encode();
    let (_, mut session) = open_line(&mut c, &mut hub);
    assert!(is_refused(session.handle(&mut hub, &heard, now)), "what was not told");
}

#[test]
fn a_live_connection_tells_of_a_loss_at_once() {
    let (mut a, mut b, mut hub) = (device(1), device(2), hub(9));
    sync(&mut a, &mut hub);
    sync(&mut b, &mut hub);
    put(&mut a, 3000, "t", "title", "three");
    let (mut one, mut two) = open_line(&mut a, &mut hub);
    put(&mut b, 3500, "t", "title", "four");
    sync(&mut b, &mut hub);
    let now = Millis(100_000);
    let ends = (
        &mut End { replica: &mut a, session: &mut one, now },
        &mut End { replica: &mut hub, session: &mut two, now },
    );
    run(ends.0, ends.1, usize::MAX).unwrap();
    assert_eq!(lost(&a), [write("three", "four")]);
    assert_eq!(shows(&a, "t", "title"), text("four"));
}

#[test]
fn processes_that_share_a_store_see_each_others_writes() {
    let (mut a, mut hub) = (device(1), hub(9));
    sync(&mut a, &mut hub);
    put(&mut a, 3000, "t", "title", "by one");
    let one = a.id();
    let options = OpenOptions {
        seeds: Seeds { replica: ReplicaId::from_u128(11), ..seeds(1) },
        slot: 1,
        admission: a.admission(),
        rank: 0,
    };
    let mut a = Replica::open(a.into_store(), schema(), options).unwrap();
    assert_ne!(a.id(), one);
    put(&mut a, 3001, "t", "title", "by the other");
    sync(&mut a, &mut hub);
    assert_eq!(shows(&hub, "t", "title"), text("by the other"));
    nobody_lost(&[&a, &hub]);
}
