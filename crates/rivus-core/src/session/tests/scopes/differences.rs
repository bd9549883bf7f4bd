//! Faults in a scope: found and mended there, and nobody learns of another scope by it.

use super::*;
use crate::address;
use crate::session::tests::repair::{Fault, damage_in};
use crate::sketch::Key;

/// A hub with notes in `a` and `b`, and a member who may read these, and follows what it wants.
fn synced(reads: &[&str], wants: &[&str]) -> (Device, Rights, Member) {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    for n in 0..20 {
        edit(&mut hub, &[("note", &format!("a{n}"), note("a", &format!("A {n}")))]).unwrap();
        edit(&mut hub, &[("note", &format!("b{n}"), note("b", &format!("secret {n}")))]).unwrap();
    }
    rights.grant_all("member 2", reads);
    let mut one = Member::new(2, wants);
    one.sync(&mut hub, &rights);
    assert_holds(&one.device, &hub, wants);
    (hub, rights, one)
}

fn drop_title(of: &mut Device, scope: &str, id: &str) {
    damage_in(of, scope, ("note", id), &[(address::field("title"), Fault::Drop)].into());
}

/// The keys of the hub's registers in a scope.
fn keys_of(hub: &Device, scope: &str) -> Vec<Key> {
    let (whole, mut keys) = (hub.sketch_of(Some(scope)).unwrap(), Vec::new());
    let found = crate::sketch::difference(whole.symbols(), crate::sketch::Sketch::default().symbols());
    keys.extend(found.unwrap().ours);
    keys
}

#[test]
fn a_difference_in_a_scope_is_mended_there() {
    let (mut hub, rights, mut one) = synced(&["a", "b"], &["a", "b"]);
    drop_title(&mut one.device, "a", "a3");
    drop_title(&mut one.device, "b", "b5");
    drop_title(&mut one.device, "b", "b6");
    one.connect(&rights);
    hear(&mut one, &mut hub);
    let events: Vec<_> = one.wire.as_mut().unwrap().client.poll_events().collect();
    let repaired = events.iter().filter_map(|event| match event {
        SessionEvent::Repaired { registers, rounds, .. } => Some((*registers, *rounds)),
        _ => None,
    });
    assert_eq!(repaired.collect::<Vec<_>>(), [(1, 2), (2, 2)], "each scope by itself: {events:?}");
    let verified = events.iter().filter(|event| matches!(event, SessionEvent::Verified { .. })).count();
    assert_eq!(verified, 2, "{events:?}");
    assert_holds(&one.device, &hub, &["a", "b"]);
}

#[test]
fn a_sketch_of_a_scope_holds_its_registers_alone() {
    let (mut hub, rights, mut one) = synced(&["a"], &["a"]);
    drop_title(&mut one.device, "a", "a3");
    one.connect(&rights);
    let heard = hear(&mut one, &mut hub);
    let told: Vec<_> = heard
        .iter()
        .filter_map(|frame| match Frame::decode(frame) {
            Ok(Frame::Sketch(symbols)) => Some(symbols),
            _ => None,
        })
        .flatten()
        .collect();
    let (of_scope, of_all) = (hub.sketch_of(Some("a")).unwrap(), hub.sketch().unwrap());
    assert_eq!(told, of_scope.symbols()[..told.len()]);
    assert_ne!(told, of_all.symbols()[..told.len()]);
    assert!(!told.is_empty());
    assert_holds(&one.device, &hub, &["a"]);
}

/// A client that follows `a` and has asked for symbols of it, and then names the registers that it wants.
fn names(hub: &mut Device, rights: &Rights, one: &mut Member, keys: Vec<Key>) -> Vec<Vec<u8>> {
    one.connect(rights);
    hear(one, hub);
    let server = &mut one.wire.as_mut().unwrap().server;
    let mut heard = Vec::new();
    for frame in [Frame::AskSketch { count: 1 }, Frame::Lacks(keys)] {
        let frame = Scoped { slot: 1, scope: "", frame: &frame.encode() }.encode();
        server.handle(hub, &frame, NOW).unwrap();
        while let Some(frame) = server.poll_transmit(hub, NOW).unwrap() {
            heard.push(bare(&frame));
        }
    }
    heard
}

#[test]
fn keys_of_another_scope_find_nothing() {
    let (mut hub, rights, mut one) = synced(&["a"], &["a"]);
    let secret = keys_of(&hub, "b");
    assert_eq!(secret.len(), 60);
    let registers = |heard: &[Vec<u8>]| {
        let repairs = heard.iter().filter(|frame| frame[0] == tag::REPAIR);
        let lengths: Vec<_> = repairs.map(Vec::len).collect();
        assert_eq!(lengths.len(), 1);
        lengths[0]
    };
    let nothing = registers(&names(&mut hub, &rights, &mut one, Vec::new()));
    assert_eq!(registers(&names(&mut hub, &rights, &mut one, secret)), nothing);
    let own = keys_of(&hub, "a");
    assert!(registers(&names(&mut hub, &rights, &mut one, own)) > nothing + 100);
}

#[test]
fn a_right_that_is_taken_away_ends_a_comparison() {
    let (mut hub, rights, mut one) = synced(&["a"], &["a"]);
    for asked in [0, 1] {
        rights.grant("member 2", Access::Read, "a");
        one.subscribe("a");
        one.connect(&rights);
        hear(&mut one, &mut hub);
        let keys = keys_of(&hub, "a");
        let server = &mut one.wire.as_mut().unwrap().server;
        let in_slot = |frame: Frame| Scoped { slot: 1, scope: "", frame: &frame.encode() }.encode();
        if asked > 0 {
            server.handle(&mut hub, &in_slot(Frame::AskSketch { count: 1 }), NOW).unwrap();
            while server.poll_transmit(&mut hub, NOW).unwrap().is_some() {}
            server.handle(&mut hub, &in_slot(Frame::Lacks(keys)), NOW).unwrap();
        }
        rights.revoke("member 2", Access::Read, "a");
        if asked == 0 {
            server.handle(&mut hub, &in_slot(Frame::AskSketch { count: 1 }), NOW).unwrap();
        }
        let mut heard = Vec::new();
        while let Some(frame) = server.poll_transmit(&mut hub, NOW).unwrap() {
            heard.push(frame);
        }
        assert_eq!(heard, [Frame::Denied { slot: 1 }.encode()]);
    }
}

#[test]
fn everything_is_compared_with_those_alone_who_may_read_everything() {
    let (mut hub, rights, mut one) = synced(&["", "a", "b"], &["a"]);
    one.wants.clear();
    let all = |rights: &Rights, hub: &mut Device, one: &mut Member| {
        let (mut client, mut server) = (named("member 2", Want::Live), guarded(rights));
        let mut ends = (
            End { replica: &mut one.device, session: &mut client, now: NOW },
            End { replica: hub, session: &mut server, now: NOW },
        );
        run(&mut ends.0, &mut ends.1, usize::MAX).unwrap();
        server
    };
    let mut server = all(&rights, &mut hub, &mut one);
    let ask = Frame::AskSketch { count: 1 }.encode();
    rights.revoke("member 2", Access::Read, "b");
    let error = server.handle(&mut hub, &ask, NOW).unwrap_err();
    assert!(matches!(&error, SessionError::Refused { code: Code::SCOPE, .. }), "{error}");
    // Who follows by name has nothing to compare outside of the slots.
    one.wants.insert("a".to_owned());
    one.connect(&rights);
    hear(&mut one, &mut hub);
    let error = one.wire.as_mut().unwrap().server.handle(&mut hub, &ask, NOW).unwrap_err();
    assert!(matches!(&error, SessionError::Refused { code: Code::UNEXPECTED, .. }), "{error}");
}

#[test]
fn one_scope_at_a_time_is_compared_and_no_more_often_than_there_may_be_scopes() {
    let (mut hub, rights, mut one) = synced(&["a", "b"], &["a", "b"]);
    one.connect(&rights);
    hear(&mut one, &mut hub);
    let server = &mut one.wire.as_mut().unwrap().server;
    let ask = |slot| Scoped { slot, scope: "", frame: &Frame::AskSketch { count: 1 }.encode() }.encode();
    server.handle(&mut hub, &ask(1), NOW).unwrap();
    let error = server.handle(&mut hub, &ask(2), NOW).unwrap_err();
    assert!(error.to_string().contains("several scopes at a time"), "{error}");
    // Slots are cheap: whoever opens one after the other has no more sketches made for it.
    one.connect(&rights);
    hear(&mut one, &mut hub);
    let server = &mut one.wire.as_mut().unwrap().server;
    let subscribe = from_the_start();
    let mut made = 0;
    let error = loop {
        let slot = 3 + made;
        let open = Scoped { slot, scope: "a", frame: &subscribe }.encode();
        server.handle(&mut hub, &open, NOW).unwrap();
        if let Err(error) = server.handle(&mut hub, &ask(slot), NOW) {
            break error;
        }
        made += 1;
        while server.poll_transmit(&mut hub, NOW).unwrap().is_some() {}
        server.handle(&mut hub, &Frame::Denied { slot }.encode(), NOW).unwrap();
    };
    assert!(error.to_string().contains("too many") && made == 65, "{made}: {error}");
}
