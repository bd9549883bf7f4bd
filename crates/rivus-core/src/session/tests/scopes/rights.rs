//! Who may read and write which scope, and what becomes of what a device had when that ends.

use super::*;
use crate::session::{Restore, Scopes};

/// The hub's side, where tokens of member 2 are for these scopes, to read and to write, and whoever comes may restore.
fn granting(tokens: &[(&str, &[&str], &[&str])]) -> Session {
    let of = |patterns: &[&str]| Scopes::of(patterns.iter().copied()).unwrap();
    let grants = tokens.iter().fold(Grants::nobody(), |grants, (token, read, write)| {
        let rights = crate::session::Rights { read: of(read), write: of(write) };
        grants.grant_with(*token, Grant { subject: "member 2".to_owned(), rights, ..Grant::default() })
    });
    options(Role::Server { gate: Arc::new(Gate::new(grants).restore(Restore::Everybody)) }, Want::Live)
}

/// What a member may read, for those who overhear it.
fn reading(scopes: &[&str]) -> Rights {
    let rights = Rights::default();
    scopes.iter().for_each(|scope| rights.grant("member 2", Access::Read, scope));
    rights
}

#[test]
fn lost_access_takes_out_what_was_synced_and_keeps_unsent_edits() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    edit(&mut hub, &[("note", "x", note("a", "X"))]).unwrap();
    edit(&mut hub, &[("note", "y", note("b", "Y"))]).unwrap();
    rights.grant_all("member 2", &["a", "b"]);
    let mut one = Member::new(2, &["a", "b"]);
    one.sync(&mut hub, &rights);
    edit(&mut one.device, &[("note", "x", field("title", "unsent"))]).unwrap();
    edit(&mut one.device, &[("note", "new", note("a", "unsent, too"))]).unwrap();
    rights.revoke_all("member 2", "a");
    one.device.poll_events();
    let events = one.sync(&mut hub, &rights);
    assert!(events.contains(&SessionEvent::Denied { scope: "a".to_owned() }), "{events:?}");
    assert_holds(&one.device, &hub, &["b"]);
    assert_eq!(held(&one.device).into_keys().collect::<Vec<_>>(), ["b"]);
    let told = one.device.poll_events();
    assert!(told.contains(&Event::Revoked { scope: "a".to_owned(), entities: 1 }), "{told:?}");
    let rejected = one.device.rejected().unwrap();
    let kept: Vec<_> = rejected.iter().map(|rejected| (rejected.code, &rejected.ops[0].action)).collect();
    assert_eq!(kept, [(Code::SCOPE, &field("title", "unsent")), (Code::SCOPE, &note("a", "unsent, too"))]);
    assert_eq!(title(&hub, "x").as_deref(), Some("X"));
    // Granted again it comes back whole.
    rights.grant_all("member 2", &["a"]);
    one.sync(&mut hub, &rights);
    assert_holds(&one.device, &hub, &["a", "b"]);
}

#[test]
fn a_right_that_is_taken_away_ends_a_live_subscription() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    edit(&mut hub, &[("note", "x", note("a", "X"))]).unwrap();
    rights.grant_all("member 2", &["a", "b"]);
    let mut one = Member::new(2, &["a", "b"]);
    one.connect(&rights);
    one.settle(&mut hub, &rights);
    rights.revoke("member 2", Access::Read, "a");
    edit(&mut hub, &[("note", "x", field("title", "secret"))]).unwrap();
    one.settle(&mut hub, &rights);
    assert_eq!((held(&one.device).len(), one.follows()), (0, vec!["b".to_owned()]));
    rights.grant("member 2", Access::Read, "a");
    one.subscribe("a");
    one.settle(&mut hub, &rights);
    assert_holds(&one.device, &hub, &["a", "b"]);
}

#[test]
fn a_move_needs_the_right_to_write_where_it_comes_from_and_where_it_goes() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    edit(&mut hub, &[("note", "x", note("a", "X"))]).unwrap();
    rights.grant_all("member 2", &["a"]);
    rights.grant("member 2", Access::Read, "b");
    let mut one = Member::new(2, &["a", "b"]);
    one.sync(&mut hub, &rights);
    edit(&mut one.device, &[("note", "x", field("list", "b"))]).unwrap();
    one.sync(&mut hub, &rights);
    assert_eq!((hub.scope_of("note", "x").unwrap().as_str(), one.device.rejected().unwrap().len()), ("a", 1));
    assert_eq!(one.device.scope_of("note", "x").unwrap(), "a", "it is back where it was");
    rights.grant("member 2", Access::Write, "b");
    rights.revoke("member 2", Access::Write, "a");
    edit(&mut one.device, &[("note", "x", field("list", "b"))]).unwrap();
    one.sync(&mut hub, &rights);
    assert_eq!(hub.scope_of("note", "x").unwrap(), "a");
    rights.grant("member 2", Access::Write, "a");
    edit(&mut one.device, &[("note", "x", field("list", "b"))]).unwrap();
    one.sync(&mut hub, &rights);
    assert_eq!(hub.scope_of("note", "x").unwrap(), "b");
    assert_holds(&one.device, &hub, &["a", "b"]);
}

#[test]
fn who_may_not_read_everything_is_told_to_follow_by_name() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    edit(&mut hub, &[("note", "x", note("a", "X"))]).unwrap();
    rights.grant_all("member 2", &["", "b"]);
    let all = |rights: &Rights, hub: &mut Device, device: &mut Device| {
        let (mut a, mut b) = (named("member 2", Want::Once), guarded(rights));
        let mut ends = (
            End { replica: device, session: &mut a, now: NOW },
            End { replica: hub, session: &mut b, now: NOW },
        );
        run(&mut ends.0, &mut ends.1, usize::MAX)
    };
    let mut device = notes_device(2);
    let error = all(&rights, &mut hub, &mut device).unwrap_err();
    assert!(matches!(&error, SessionError::Refused { code: Code::SCOPE, .. }), "{error}");
    assert_eq!(held(&device).len(), 0);
    rights.grant_all("member 2", &["a"]);
    all(&rights, &mut hub, &mut device).unwrap();
    assert_holds(&device, &hub, &["a", ""]);
}

#[test]
fn what_may_not_be_read_is_not_fetched() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    edit(&mut hub, &[("note", "x", note("a", "X"))]).unwrap();
    edit(&mut hub, &[("note", "y", note("b", "Y"))]).unwrap();
    rights.grant_all("member 2", &["b", "c"]);
    let mut one = Member::new(2, &["c"]);
    one.connect(&rights);
    one.settle(&mut hub, &rights);
    let name = |id: &str| ("note".to_owned(), id.to_owned());
    one.wire.as_mut().unwrap().client.fetch([name("x"), name("y")]);
    let events = one.settle(&mut hub, &rights);
    let missing = vec![name("x")];
    assert!(events.iter().any(
        |event| matches!(event, SessionEvent::Fetched { entities: 1, missing: m, .. } if *m == missing)
    ));
    assert_eq!((title(&one.device, "x"), title(&one.device, "y").as_deref()), (None, Some("Y")));
}

#[test]
fn nobody_is_told_what_has_left_before_they_came() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    edit(&mut hub, &[("note", "x", note("a", "X"))]).unwrap();
    edit(&mut hub, &[("note", "x", field("list", "b"))]).unwrap();
    rights.grant_all("member 2", &["a"]);
    let mut one = Member::new(2, &["a"]);
    one.connect(&rights);
    let wire = one.wire.as_mut().unwrap();
    loop {
        let up = wire.client.poll_transmit(&mut one.device, NOW).unwrap();
        if let Some(frame) = &up {
            wire.server.handle(&mut hub, frame, NOW).unwrap();
        }
        let down = wire.server.poll_transmit(&mut hub, NOW).unwrap();
        if let Some(frame) = &down {
            assert!(frame[0] != tag::SCOPED || Scoped::decode(frame).unwrap().frame[0] != tag::LEFT);
            wire.client.handle(&mut one.device, frame, NOW).unwrap();
        }
        if up.is_none() && down.is_none() {
            break;
        }
    }
}

#[test]
fn who_brings_back_what_was_lost_does_so_where_it_may_write() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    rights.grant_all("member 2", &["a"]);
    rights.grant("member 2", Access::Read, "b");
    let mut one = Member::new(2, &["a", "b"]);
    // Made before it met the hub, and so confirmed by nobody but itself.
    edit(&mut one.device, &[("note", "x", note("a", "X"))]).unwrap();
    edit(&mut one.device, &[("note", "y", note("b", "Y"))]).unwrap();
    one.sync(&mut hub, &rights);
    assert_eq!((title(&hub, "x").as_deref(), title(&hub, "y")), (Some("X"), None));
}

#[test]
fn more_scopes_than_a_connection_holds_are_refused() {
    let mut session = client(Want::Live);
    session.follow_scopes((0..64).map(|n| n.to_string())).unwrap();
    assert_eq!(session.subscribe("one more"), Err(TooManyScopes { most: 64 }));
    assert_eq!(session.subscribe("3"), Ok(()), "it is followed already");
    session.unsubscribe(&mut notes_device(2), "3", Kept::Yes).unwrap();
    assert_eq!(session.subscribe(&"x".repeat(256)), Err(TooManyScopes { most: 64 }));
    session.subscribe("one more").unwrap();
}

#[test]
fn what_is_not_wanted_any_more_leaves_or_stays_as_it_is() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    rights.grant_all("member 2", &["a", "b", "c"]);
    for list in ["a", "b", "c"] {
        edit(&mut hub, &[("note", list, note(list, "1"))]).unwrap();
    }
    let mut one = Member::new(2, &["a", "b", "c"]);
    one.connect(&rights);
    one.settle(&mut hub, &rights);
    one.unsubscribe("a", Kept::No);
    one.unsubscribe("b", Kept::Yes);
    one.settle(&mut hub, &rights);
    for list in ["a", "b", "c"] {
        edit(&mut hub, &[("note", list, field("title", "2"))]).unwrap();
    }
    one.settle(&mut hub, &rights);
    let titles = ["a", "b", "c"].map(|id| title(&one.device, id));
    assert_eq!(titles, [None, Some("1".to_owned()), Some("2".to_owned())]);
    one.subscribe("a");
    one.subscribe("b");
    one.settle(&mut hub, &rights);
    assert_holds(&one.device, &hub, &["a", "b", "c"]);
}

#[test]
fn who_follows_nothing_for_a_while_need_not_bring_everything_again() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    rights.grant_all("member 2", &["a"]);
    let mut one = Member::new(2, &["a"]);
    edit(&mut hub, &[("note", "x", note("a", "X"))]).unwrap();
    one.sync(&mut hub, &rights);
    one.unsubscribe("a", Kept::Yes);
    one.sync(&mut hub, &rights);
    // What it has kept has moved to where it may not even write.
    edit(&mut hub, &[("note", "x", field("list", "b"))]).unwrap();
    one.subscribe("a");
    one.sync(&mut hub, &rights);
    assert_holds(&one.device, &hub, &["a"]);
    assert_eq!(held(&one.device).len(), 0);
}

#[test]
fn a_hub_says_how_many_scopes_it_takes_and_takes_no_more() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    rights.grant_all("member 2", &["a", "b", "c"]);
    let limits = Limits { scopes_max: 2, ..Limits::default() };
    let greet = |hub: &mut Device, wants: &[&str]| {
        let (mut device, mut client, mut server) =
            (notes_device(2), named("member 2", Want::Live), bounded(&rights, limits));
        client.follow_scopes(wants.iter().map(|scope| (*scope).to_owned())).unwrap();
        let mut ends = (
            End { replica: &mut device, session: &mut client, now: NOW },
            End { replica: hub, session: &mut server, now: NOW },
        );
        run(&mut ends.0, &mut ends.1, usize::MAX).map(|_| (client, server))
    };
    let error = greet(&mut hub, &["a", "b", "c"]).unwrap_err();
    assert_eq!(error.code(), Some(Code::TOO_LARGE), "{error}");
    let (mut client, mut server) = greet(&mut hub, &["a", "b"]).unwrap();
    assert_eq!(client.subscribe("c"), Err(TooManyScopes { most: 2 }));
    // Who does not care is told so by the hub.
    let frame = Scoped { slot: 3, scope: "c", frame: &from_the_start() }.encode();
    let error = server.handle(&mut hub, &frame, NOW).unwrap_err();
    assert_eq!(error.code(), Some(Code::TOO_LARGE), "{error}");
}

#[test]
fn a_refusal_does_not_tell_where_an_entity_is_that_may_not_be_read() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    rights.grant_all("member 2", &["a"]);
    edit(&mut hub, &[("note", "x", note("secret project", "X"))]).unwrap();
    let mut one = Member::new(2, &["a"]);
    one.sync(&mut hub, &rights);
    edit(&mut one.device, &[("note", "x", note("a", "mine"))]).unwrap();
    edit(&mut one.device, &[("note", "y", note("b", "mine"))]).unwrap();
    one.sync(&mut hub, &rights);
    let rejected = one.device.rejected().unwrap();
    let told: Vec<_> = rejected.iter().map(|rejected| rejected.message.as_str()).collect();
    assert!(!told[0].contains("secret") && told[1].contains("`b`"), "{told:?}");
}

#[test]
fn who_missed_a_move_while_a_hub_was_set_back_hears_of_it_and_keeps_what_the_hub_has_lost() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    rights.grant_all("member 2", &["a"]);
    let mut one = Member::new(2, &["a"]);
    edit(&mut hub, &[("note", "x", note("a", "X"))]).unwrap();
    let backup = hub.store().copy();
    edit(&mut hub, &[("note", "lost", note("a", "after the backup"))]).unwrap();
    one.sync(&mut hub, &rights);
    let options = OpenOptions {
        seeds: Seeds { incarnation: Incarnation(77), ..seeds(1) },
        slot: 0,
        admission: Admission::Refuse { drift_ms_max: 60_000 },
        rank: 0,
    };
    let mut restored = Replica::open(backup, notes(), options).unwrap();
    edit(&mut restored, &[("note", "x", field("list", "b"))]).unwrap();
    one.sync(&mut restored, &rights);
    assert_eq!(title(&one.device, "x"), None, "it is in another scope now");
    assert_eq!(title(&one.device, "lost").as_deref(), Some("after the backup"), "nobody else has it");
}

#[test]
fn a_grant_is_for_the_scopes_that_it_names() {
    let mut hub = notes_hub();
    edit(&mut hub, &[("note", "x", note("a", "X"))]).unwrap();
    edit(&mut hub, &[("note", "y", note("b", "Y"))]).unwrap();
    edit(&mut hub, &[("note", "z", note("c/1", "Z"))]).unwrap();
    let server = || granting(&[("member 2", &["a", "b"], &["a", "c/*"])]);
    let (mut one, reads) = (Member::new(2, &["a", "b", "c/1"]), reading(&["a", "b"]));
    one.connect_to(server());
    let events = one.settle(&mut hub, &reads);
    assert!(events.contains(&SessionEvent::Denied { scope: "c/1".to_owned() }), "{events:?}");
    assert_eq!(one.follows(), ["a", "b"]);
    assert_holds(&one.device, &hub, &["a", "b"]);
    edit(&mut one.device, &[("note", "x", field("title", "mine"))]).unwrap();
    edit(&mut one.device, &[("note", "y", field("title", "mine"))]).unwrap();
    one.settle(&mut hub, &reads);
    assert_eq!((title(&hub, "x").as_deref(), title(&hub, "y").as_deref()), (Some("mine"), Some("Y")));
    let codes = |device: &Device| device.rejected().unwrap().iter().map(|edit| edit.code).collect::<Vec<_>>();
    assert_eq!(codes(&one.device), [Code::SCOPE]);
    // Everything is more than is granted.
    let mut other = notes_device(3);
    let (mut a, mut b) = (named("member 2", Want::Once), server());
    let mut client = End { replica: &mut other, session: &mut a, now: NOW };
    let error = run(&mut client, &mut End { replica: &mut hub, session: &mut b, now: NOW }, usize::MAX);
    assert!(matches!(&error, Err(SessionError::Refused { code: Code::SCOPE, .. })), "{error:?}");
    assert_eq!(held(&other).len(), 0);
}

#[test]
fn what_is_written_where_it_may_not_be_read_leaves_its_device_once_the_hub_has_it() {
    let mut hub = notes_hub();
    edit(&mut hub, &[("note", "x", note("a", "X"))]).unwrap();
    let server = || granting(&[("member 2", &["a"], &["a", "b"])]);
    let (mut one, reads) = (Member::new(2, &["a", "b"]), reading(&["a"]));
    one.connect_to(server());
    one.settle(&mut hub, &reads);
    edit(&mut one.device, &[("note", "new", note("b", "handed in"))]).unwrap();
    edit(&mut one.device, &[("note", "x", field("list", "b"))]).unwrap();
    one.settle(&mut hub, &reads);
    assert_eq!(title(&hub, "new").as_deref(), Some("handed in"));
    assert_eq!(hub.scope_of("note", "x").unwrap(), "b");
    one.connect_to(server());
    one.settle(&mut hub, &reads);
    assert_eq!((held(&one.device).len(), one.device.rejected().unwrap().len()), (0, 0));
}

#[test]
fn another_token_brings_its_own_rights() {
    let mut hub = notes_hub();
    edit(&mut hub, &[("note", "x", note("a", "X"))]).unwrap();
    edit(&mut hub, &[("note", "y", note("b", "Y"))]).unwrap();
    let (both, one_of_them): (&[&str], &[&str]) = (&["a", "b"], &["b"]);
    let mut one = Member::new(2, &["a", "b"]);
    one.connect_to(granting(&[("member 2", both, both), ("less", one_of_them, one_of_them)]));
    one.settle(&mut hub, &reading(both));
    assert_holds(&one.device, &hub, both);
    one.wire.as_mut().unwrap().client.refresh_token("less");
    one.settle(&mut hub, &reading(both));
    edit(&mut hub, &[("note", "x", field("title", "secret"))]).unwrap();
    edit(&mut one.device, &[("note", "y", field("title", "mine"))]).unwrap();
    one.settle(&mut hub, &reading(one_of_them));
    assert_eq!((one.follows(), title(&hub, "y").as_deref()), (vec!["b".to_owned()], Some("mine")));
    assert_holds(&one.device, &hub, one_of_them);
    assert_eq!(title(&one.device, "x"), None);
    one.wire.as_mut().unwrap().client.refresh_token("member 2");
    one.settle(&mut hub, &reading(one_of_them));
    one.subscribe("a");
    one.settle(&mut hub, &reading(both));
    assert_holds(&one.device, &hub, both);
}

#[test]
fn who_may_restore_does_so_in_the_scopes_of_its_grant() {
    let mut hub = notes_hub();
    let mut one = Member::new(2, &["a", "b"]);
    // Made before it met the hub, and so confirmed by nobody but itself.
    edit(&mut one.device, &[("note", "x", note("a", "X"))]).unwrap();
    edit(&mut one.device, &[("note", "y", note("b", "Y"))]).unwrap();
    one.connect_to(granting(&[("member 2", &["*"], &["a"])]));
    one.settle(&mut hub, &reading(&["", "a", "b"]));
    assert_eq!((title(&hub, "x").as_deref(), title(&hub, "y")), (Some("X"), None));
}

/// Syncs everything once, in vain, and hears why.
fn in_vain(device: &mut Device, hub: &mut Device, rights: &Rights) -> SessionError {
    let now = Millis(100_000);
    let (mut s, mut t) = (named("member 2", Want::Once), guarded(rights));
    let mut far = End { replica: hub, session: &mut t, now };
    run(&mut End { replica: device, session: &mut s, now }, &mut far, usize::MAX).unwrap_err();
    loop {
        let frame = t.poll_transmit(hub, now).unwrap().unwrap();
        if let Err(error) = s.handle(device, &frame, now) {
            return error;
        }
    }
}

/// Syncs everything once.
fn in_full(device: &mut Device, hub: &mut Device, rights: &Rights) -> Vec<SessionEvent> {
    let now = Millis(100_000);
    let (mut s, mut t) = (named("member 2", Want::Once), guarded(rights));
    let mut far = End { replica: hub, session: &mut t, now };
    run(&mut End { replica: device, session: &mut s, now }, &mut far, usize::MAX).unwrap();
    s.poll_events().collect()
}

#[test]
fn who_follows_everything_loses_what_it_may_not_read_and_nothing_else() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    for (id, list) in [("x", "a"), ("y", "b"), ("z", "b")] {
        edit(&mut hub, &[("note", id, note(list, id))]).unwrap();
    }
    rights.grant_all("member 2", &["", "a", "b"]);
    let mut device = notes_device(2);
    device.watch(Watching::Yes);
    in_full(&mut device, &mut hub, &rights);
    assert_holds(&device, &hub, &["a", "b"]);
    // One of them is changed here, and may be written still.
    edit(&mut device, &[("note", "y", field("title", "unsent"))]).unwrap();
    rights.revoke("member 2", Access::Read, "b");
    device.poll_events();
    let why = in_vain(&mut device, &mut hub, &rights);
    assert!(matches!(why, SessionError::Goaway { code: Code::SCOPE, .. }), "{why}");
    assert_eq!(held(&device).into_keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(title(&hub, "y").as_deref(), Some("unsent"));
    let told = device.poll_events();
    assert!(told.contains(&Event::Revoked { scope: "b".to_owned(), entities: 2 }), "{told:?}");
    assert!(device.verify().unwrap().is_sound());
    // Given back, it is there again, and nobody finds a fault.
    rights.grant("member 2", Access::Read, "b");
    let events = in_full(&mut device, &mut hub, &rights);
    assert!(!events.iter().any(|event| matches!(event, SessionEvent::Diverged { .. })), "{events:?}");
    assert!(events.iter().any(|event| matches!(event, SessionEvent::Verified { .. })), "{events:?}");
    assert_holds(&device, &hub, &["a", "b"]);
}

#[test]
fn what_was_to_leave_stays_when_the_right_is_back_before_it_has_left() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    for id in ["x", "y"] {
        edit(&mut hub, &[("note", id, note("b", id))]).unwrap();
    }
    rights.grant_all("member 2", &["", "b"]);
    let mut device = notes_device(2);
    // Live, so that the right ends while an edit is pending.
    let now = Millis(100_000);
    let (mut s, mut t) = (named("member 2", Want::Live), guarded(&rights));
    let mut far = End { replica: &mut hub, session: &mut t, now };
    run(&mut End { replica: &mut device, session: &mut s, now }, &mut far, usize::MAX).unwrap();
    edit(&mut device, &[("note", "x", field("title", "pending"))]).unwrap();
    rights.revoke("member 2", Access::Read, "b");
    edit(&mut hub, &[("note", "y", field("title", "secret"))]).unwrap();
    s.hold_pushes(true);
    loop {
        let frame = t.poll_transmit(&mut hub, now).unwrap().unwrap();
        if s.handle(&mut device, &frame, now).is_err() {
            break;
        }
    }
    // What is pending keeps its entity for the time being; the other has left.
    let here = held(&device);
    assert_eq!(here.into_values().flatten().map(|(_, id)| id).collect::<Vec<_>>(), ["x"]);
    rights.grant("member 2", Access::Read, "b");
    in_full(&mut device, &mut hub, &rights);
    assert_holds(&device, &hub, &["b"]);
    assert_eq!((title(&device, "x").as_deref(), device.pending_count().unwrap()), (Some("pending"), 0));
    assert_eq!(title(&device, "y").as_deref(), Some("secret"));
}
