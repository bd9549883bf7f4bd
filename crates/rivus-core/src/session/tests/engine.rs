//! Rounds as an application makes them: cut anywhere, written into while they run, and what is refused in them.

use std::collections::BTreeMap;

use super::*;
use crate::replica::{Event, Origin};
use crate::schema::OnGone;

/// Syncs once, or until so many frames have passed, and tells `between` of each when the client has made it or taken it.
/// Returns those that passed, by type, and what the client heard.
pub(super) fn round(
    one: &mut Device,
    two: &mut Device,
    mut client: Session,
    frames: usize,
    mut between: impl FnMut(&mut Device, u8),
) -> (Vec<u8>, Vec<SessionEvent>) {
    let (mut server, now, mut passed) = (server(), Millis(100_000), Vec::new());
    loop {
        let before = passed.len();
        while passed.len() < frames
            && let Some(frame) = client.poll_transmit(one, now).unwrap()
        {
            passed.push(frame[0]);
            between(one, frame[0]);
            let _ = server.handle(two, &frame, now);
        }
        while passed.len() < frames
            && let Some(frame) = server.poll_transmit(two, now).unwrap()
        {
            passed.push(frame[0]);
            client.handle(one, &frame, now).unwrap();
            between(one, frame[0]);
        }
        if passed.len() == before {
            return (passed, client.poll_events().collect());
        }
    }
}

#[test]
fn killed_after_every_frame_in_every_direction_nothing_is_lost_and_nothing_counts_twice() {
    let build = || {
        let (mut a, mut b, mut h) = (device(1), device(2), hub(9));
        inc(&mut a, 500, "t", 1);
        sync(&mut a, &mut h);
        sync(&mut b, &mut h);
        for n in 0..12 {
            inc(&mut a, 1000 + n, "t", 1);
            inc(&mut b, 1000 + n, "t", 1);
            put(&mut a, 2000 + n, &format!("a{n}"), "title", "x".repeat(40_000));
            put(&mut b, 2000 + n, &format!("b{n}"), "title", "y".repeat(40_000));
        }
        sync(&mut b, &mut h);
        (a, b, h)
    };
    let small = || {
        let mut client = client(Want::Once);
        client.set_push_edits_max(3);
        client
    };
    let (mut a, _, mut h) = build();
    let (all, _) = round(&mut a, &mut h, small(), usize::MAX, |_, _| {});
    let of = |tag| all.iter().filter(|frame| **frame == tag).count();
    assert!(of(tag::PUSH) >= 8 && of(tag::ACK) >= 8 && of(tag::DELTA) >= 2, "{all:?}");
    for cut in 0..=all.len() {
        let (mut a, mut b, mut h) = build();
        round(&mut a, &mut h, small(), cut, |_, _| {});
        // The next one is cut as well, one frame later.
        round(&mut a, &mut h, small(), cut + 1, |_, _| {});
        round(&mut a, &mut h, small(), usize::MAX, |_, _| {});
        sync(&mut b, &mut h);
        assert_same(&[&a, &b, &h]);
        assert_eq!(a.pending_count().unwrap(), 0, "cut after {cut}");
        for device in [&a, &b, &h] {
            assert_eq!(shows(device, "t", "views"), Some(Shown::Counter(25)), "cut after {cut}");
            assert_eq!(shows(device, "a11", "title"), Some(Shown::Value("x".repeat(40_000).into())));
        }
    }
}

#[test]
fn a_push_that_was_accepted_unheard_counts_as_a_duplicate() {
    let (mut a, mut h) = (device(1), hub(9));
    sync(&mut a, &mut h);
    put(&mut a, 1000, "t", "title", "x");
    // HELLO, WELCOME, PUSH.
    round(&mut a, &mut h, client(Want::Once), 3, |_, _| {});
    let (_, events) = round(&mut a, &mut h, client(Want::Once), usize::MAX, |_, _| {});
    let answered = events.iter().find_map(|event| match event {
        SessionEvent::Answered(answered) => Some(answered.clone()),
        _ => None,
    });
    assert_eq!(answered, Some(Answered { duplicate: 1, ..Answered::default() }));
}

#[test]
fn while_pushes_are_held_changes_come_and_the_session_ends() {
    let (mut a, mut h) = (device(1), hub(9));
    sync(&mut a, &mut h);
    put(&mut a, 1000, "mine", "title", "x");
    put(&mut h, 1000, "theirs", "title", "y");
    let mut held = client(Want::Once);
    held.hold_pushes(true);
    let (passed, _) = round(&mut a, &mut h, held, usize::MAX, |_, _| {});
    assert!(!passed.contains(&tag::PUSH) && passed.contains(&tag::GOAWAY), "{passed:?}");
    assert_eq!((shows(&a, "theirs", "title"), a.pending_count().unwrap()), (text("y"), 1));
}

/// Projects and tasks that refer to them.
fn referring(n: u64, admission: Admission) -> Device {
    let schema = Schema::builder().kind("project", |k| k.open().value("name")).kind("task", |k| {
        k.open().value("title").value("project").reference("in", "project", "project", OnGone::Nullify)
    });
    let options = OpenOptions { seeds: seeds(n), slot: 0, admission, rank: 0 };
    Replica::open(MemoryStore::new(), Arc::new(schema.build().unwrap()), options).unwrap()
}

fn boss() -> Session {
    options(Role::Client { token: Some("boss".to_owned()) }, Want::Once)
}

/// A device on which project `p` will be refused, with a task in it, one about that task, and one apart.
fn with_a_refused_project() -> (Device, Device) {
    let mut a = referring(1, Admission::Quarantine { drift_ms_max: 60_000 });
    let mut h = referring(9, Admission::Refuse { drift_ms_max: 60_000 });
    h.become_authority().unwrap();
    round(&mut a, &mut h, boss(), usize::MAX, |_, _| {});
    let fields = |name: &str, value: &str| Action::Put(vec![(name.to_owned(), value.into())]);
    a.edit(Millis(1000), &[Op::new("project", "p", fields("name", "garden"))]).unwrap();
    // From here on the device has no rank, and that edit claims one.
    let mut held = client(Want::Once);
    held.hold_pushes(true);
    round(&mut a, &mut h, held, usize::MAX, |_, _| {});
    a.edit(Millis(2000), &[Op::new("task", "t", fields("project", "p"))]).unwrap();
    a.edit(Millis(2001), &[Op::new("task", "t", fields("title", "dig"))]).unwrap();
    a.edit(Millis(2002), &[Op::new("task", "apart", fields("title", "rest"))]).unwrap();
    (a, h)
}

fn is_there(on: &Device, kind: &str, id: &str) -> bool {
    on.view(kind, id).unwrap().is_some()
}

#[test]
fn what_refers_to_a_refused_entity_is_blocked_and_flows_by_itself_once_that_does() {
    let (mut a, mut h) = with_a_refused_project();
    for _ in 0..3 {
        round(&mut a, &mut h, client(Want::Once), usize::MAX, |_, _| {});
        let rejected = a.rejected().unwrap();
        assert_eq!(rejected.iter().map(|r| r.code).collect::<Vec<_>>(), [Code::RANK]);
        let blocked = a.blocked().unwrap();
        let root = ("project".to_owned(), "p".to_owned());
        assert_eq!(
            blocked.iter().map(|b| (&b.root, b.ops.len())).collect::<Vec<_>>(),
            [(&root, 1), (&root, 1)]
        );
        assert!(!is_there(&h, "project", "p") && !is_there(&h, "task", "t"));
        assert!(is_there(&h, "task", "apart"), "nothing else is held up");
    }
    // Later edits went past: they are accepted, and what was blocked gets new stamps.
    let later = Action::Put(vec![("title".to_owned(), "later".into())]);
    a.edit(Millis(3000), &[Op::new("task", "apart", later)]).unwrap();
    round(&mut a, &mut h, client(Want::Once), usize::MAX, |_, _| {});
    let key = a.rejected().unwrap()[0].key;
    a.retry_rejected(Millis(4000), key).unwrap().unwrap();
    assert!(a.rejected().unwrap().is_empty() && a.blocked().unwrap().is_empty());
    let (_, events) = round(&mut a, &mut h, client(Want::Once), usize::MAX, |_, _| {});
    assert_eq!(a.pending_count().unwrap(), 0, "{events:?}");
    let title = |on: &Device| on.view("task", "t").unwrap().unwrap().fields["title"].clone();
    assert_eq!(title(&h), Shown::Value("dig".into()));
    assert_same(&[&a, &h]);
    let mut newest = BTreeMap::new();
    for (kind, id) in [("task", "apart"), ("project", "p"), ("task", "t")] {
        h.registers(kind, id, &mut |_, state| {
            let stamp = state.shown.newest().stamp;
            newest
                .entry((kind, id))
                .and_modify(|known: &mut crate::clock::Stamp| *known = stamp.max(*known))
                .or_insert(stamp);
        })
        .unwrap();
    }
    assert!(
        newest[&("task", "t")] > newest[&("project", "p")],
        "an authority takes edits in the order of stamps"
    );
    assert!(newest[&("project", "p")] > newest[&("task", "apart")]);
}

#[test]
fn what_waits_for_a_refused_entity_flows_on_a_live_connection_once_somebody_else_creates_it() {
    let (mut a, mut h) = with_a_refused_project();
    let now = Millis(100_000);
    let (mut one, mut two) = (client(Want::Live), server());
    let mut exchange = |a: &mut Device, h: &mut Device| {
        let ends = (
            &mut End { replica: a, session: &mut one, now },
            &mut End { replica: h, session: &mut two, now },
        );
        run(ends.0, ends.1, usize::MAX).unwrap();
        one.is_synced(a.head().unwrap().seq)
    };
    exchange(&mut a, &mut h);
    assert_eq!((a.blocked().unwrap().len(), is_there(&h, "task", "t")), (2, false));
    let fields = Action::Put(vec![("name".to_owned(), "park".into())]);
    h.edit(Millis(5000), &[Op::new("project", "p", fields)]).unwrap();
    assert!(exchange(&mut a, &mut h));
    assert_eq!((a.pending_count().unwrap(), a.blocked().unwrap().len()), (0, 0));
    assert!(is_there(&h, "task", "t"));
    assert_same(&[&a, &h]);
}

#[test]
fn a_discarded_root_lets_what_refers_to_it_go_and_the_rule_shows_nothing() {
    let (mut a, mut h) = with_a_refused_project();
    round(&mut a, &mut h, client(Want::Once), usize::MAX, |_, _| {});
    let key = a.rejected().unwrap()[0].key;
    assert!(a.discard_rejected(key).unwrap() && !a.discard_rejected(key).unwrap());
    round(&mut a, &mut h, client(Want::Once), usize::MAX, |_, _| {});
    assert_eq!((a.pending_count().unwrap(), is_there(&h, "task", "t")), (0, true));
    assert_eq!(h.view("task", "t").unwrap().unwrap().fields["project"], Shown::Value(Value::Null));
    assert_same(&[&a, &h]);
}

#[test]
fn a_rejection_is_cleared_once_each_of_its_fields_is_written_anew() {
    let (mut a, mut h) = (device(1), hub(9));
    round(&mut a, &mut h, boss(), usize::MAX, |_, _| {});
    let both = Action::Put(vec![("title".to_owned(), "x".into()), ("note".to_owned(), "y".into())]);
    act(&mut a, 1000, "t", both);
    put(&mut a, 1001, "u", "title", "x");
    sync(&mut a, &mut h);
    assert_eq!(a.rejected().unwrap().len(), 2);
    put(&mut a, 2000, "t", "title", "z");
    put(&mut a, 2001, "t", "other", "z");
    assert_eq!(a.rejected().unwrap().len(), 2, "one of two fields");
    put(&mut a, 2002, "t", "note", "z");
    let left: Vec<_> = a.rejected().unwrap().into_iter().map(|r| r.ops[0].id.clone()).collect();
    assert_eq!(left, ["u"]);
    let key = a.rejected().unwrap()[0].key;
    assert_eq!((a.is_rejected(key), a.is_pending(key)), (Ok(true), Ok(false)));
    a.retry_rejected(Millis(3000), key).unwrap();
    assert!(a.rejected().unwrap().is_empty());
    assert_eq!(a.retry_rejected(Millis(3000), key), Ok(None));
    sync(&mut a, &mut h);
    assert_eq!((shows(&h, "u", "title"), shows(&h, "t", "note")), (text("x"), text("z")));
    assert_same(&[&a, &h]);
}

/// Time entries, of which one runs for each user, in projects.
fn timing(n: u64, admission: Admission) -> Device {
    let schema = Schema::builder().kind("project", |k| k.open().value("name")).kind("entry", |k| {
        let fields = ["text", "user", "project", "start", "stop"].into_iter();
        fields
            .fold(k.open(), crate::schema::KindBuilder::value)
            .reference("in", "project", "project", OnGone::Nullify)
            .at_most_one("one running", ["user"], "stop", "start")
    });
    let options = OpenOptions { seeds: seeds(n), slot: 0, admission, rank: 0 };
    Replica::open(MemoryStore::new(), Arc::new(schema.build().unwrap()), options).unwrap()
}

fn timing_device_and_hub() -> (Device, Device) {
    let mut a = timing(1, Admission::Quarantine { drift_ms_max: 60_000 });
    let mut h = timing(9, Admission::Refuse { drift_ms_max: 60_000 });
    h.become_authority().unwrap();
    sync(&mut a, &mut h);
    (a, h)
}

/// The entry of a user who starts it now.
fn starts(id: &str, now: i64) -> Op {
    let fields = [("user", "u".into()), ("start", now.into()), ("stop", Value::Null)];
    Op::new("entry", id, Action::Put(fields.map(|(name, value)| (name.to_owned(), value)).into()))
}

fn is_unheard(device: &Device) -> bool {
    device.identity().authority.unwrap().unheard
}

/// The digests became equal, without the alarm of a fault.
fn assert_equal_without_alarm(events: &[SessionEvent]) {
    let alarm = events.iter().find(|event| matches!(event, SessionEvent::Diverged { .. }));
    assert_eq!(alarm, None, "{events:?}");
    assert!(events.iter().any(|event| matches!(event, SessionEvent::Verified { .. })), "{events:?}");
}

#[test]
fn a_claim_that_was_accepted_unheard_is_had_back_when_its_edit_is_made_anew_without_it() {
    let (mut a, mut h) = timing_device_and_hub();
    let project = Action::Put(vec![("project".to_owned(), "p".into())]);
    a.edit(Millis(1000), &[starts("e", 1000), Op::new("entry", "e", project)]).unwrap();
    // HELLO, WELCOME, PUSH.
    round(&mut a, &mut h, client(Want::Once), 3, |_, _| {});
    // From here on no edit of the device takes a claim; and the entry's waits for that of its project.
    a.hear_epoch(2).unwrap();
    let name = Action::Put(vec![("name".to_owned(), "garden".into())]);
    a.edit(Millis(2000), &[Op::new("project", "p", name)]).unwrap();
    // HELLO, WELCOME, and twice PUSH and ACK: it is to be had back by whoever connects next.
    let (passed, _) = round(&mut a, &mut h, client(Want::Once), 6, |_, _| {});
    assert_eq!(passed[2..], [tag::PUSH, tag::ACK, tag::PUSH, tag::ACK]);
    assert_eq!((a.pending_count().unwrap(), is_unheard(&a)), (0, true));
    let (_, events) = round(&mut a, &mut h, client(Want::Once), usize::MAX, |_, _| {});
    assert_equal_without_alarm(&events);
    assert_eq!((a.pending_count().unwrap(), is_unheard(&a)), (0, false));
    assert_eq!(a.head().unwrap().digest.confirmed, h.head().unwrap().digest.confirmed);
}

#[test]
fn an_end_that_was_accepted_before_its_edit_was_made_anew_without_it_is_no_fault() {
    let (mut a, mut h) = timing_device_and_hub();
    a.edit(Millis(1000), &[starts("e", 1000)]).unwrap();
    round(&mut a, &mut h, boss(), usize::MAX, |_, _| {});
    // It claims a rank that it will not be granted.
    a.edit(Millis(2000), &[starts("rival", 2000)]).unwrap();
    let mut held = client(Want::Once);
    held.hold_pushes(true);
    round(&mut a, &mut h, held, usize::MAX, |_, _| {});
    // The user goes on from the end that shows on account of the rival.
    let text = Action::Put(vec![("text".to_owned(), "dig".into())]);
    a.edit(Millis(3000), &[Op::new("entry", "e", text)]).unwrap();
    // Both are under way before the first is answered.
    let mut small = client(Want::Once);
    small.set_push_edits_max(1);
    let (_, events) = round(&mut a, &mut h, small, usize::MAX, |_, _| {});
    assert_equal_without_alarm(&events);
    assert_eq!(a.rejected().unwrap().iter().map(|r| r.code).collect::<Vec<_>>(), [Code::RANK]);
    assert_eq!((a.pending_count().unwrap(), is_unheard(&a)), (0, false));
    for device in [&a, &h] {
        let view = device.view("entry", "e").unwrap().unwrap();
        assert_eq!(view.fields["stop"], Shown::Value(2000.into()), "the authority has taken it");
    }
    assert_same(&[&a, &h]);
}

#[test]
fn an_edit_that_is_accepted_is_no_news_though_rules_read_what_it_wrote() {
    let (mut a, mut h) = timing_device_and_hub();
    a.watch(Watching::Yes);
    a.edit(Millis(1000), &[starts("e", 1000)]).unwrap();
    let own = Event::Changed { kind: "entry".to_owned(), id: "e".to_owned(), origin: Origin::Local };
    assert_eq!(a.poll_events(), [own]);
    sync(&mut a, &mut h);
    assert_eq!((a.poll_events(), a.pending_count().unwrap()), (vec![], 0));
}
