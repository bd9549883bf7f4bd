//! What is deleted and collected, for those who follow scopes by name.

use super::*;

/// What was deleted at `NOW` is old enough, and every lease runs.
const SOON: Millis = Millis(NOW.0 + 1);

/// No lease runs any more.
const LONG_AFTER: Millis = Millis(NOW.0 + 200 * 86_400_000);

/// A hub with a note in each list and a setting, and who may do everything with `a` and `b` and what is in no list.
fn filled_hub() -> (Device, Rights) {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    for name in ["member 2", "member 3"] {
        rights.grant_all(name, &["", "a", "b"]);
    }
    edit(&mut hub, &[("note", "of a", note("a", "milk"))]).unwrap();
    edit(&mut hub, &[("note", "of b", note("b", "stamps")), ("note", "of b", tag_with("old"))]).unwrap();
    edit(&mut hub, &[("setting", "of none", field("title", "dark"))]).unwrap();
    (hub, rights)
}

fn delete(hub: &mut Device, kind: &str, id: &str) {
    edit(hub, &[(kind, id, Action::Delete)]).unwrap();
}

fn delete_all(hub: &mut Device) {
    for (kind, id) in [("note", "of a"), ("note", "of b"), ("setting", "of none")] {
        delete(hub, kind, id);
    }
}

/// The names in what the hub sends about collections from here on.
fn told_of_collections(member: &mut Member, hub: &mut Device) -> Vec<String> {
    let mut told = Vec::new();
    for frame in hear(member, hub) {
        match Frame::decode(&frame) {
            Ok(Frame::Collected { entities, .. }) => told.extend(entities.into_iter().map(|(_, id)| id)),
            Ok(Frame::CollectedKeys { keys, .. }) => told.extend(keys.into_iter().map(|(_, id, _)| id)),
            _ => {}
        }
    }
    told
}

#[test]
fn what_is_collected_goes_from_all_who_follow_where_it_was() {
    let (mut hub, rights) = filled_hub();
    let (mut one, mut all) = (Member::new(2, &["a"]), Member::new(3, &["", "a", "b"]));
    for member in [&mut one, &mut all] {
        member.connect(&rights);
        member.settle(&mut hub, &rights);
    }
    delete_all(&mut hub);
    for member in [&mut one, &mut all] {
        member.settle(&mut hub, &rights);
    }
    assert_eq!(hub.collect(SOON, 0).unwrap().entities, 3);
    for (member, scopes) in [(&mut one, &["a"][..]), (&mut all, &["", "a", "b"])] {
        member.settle(&mut hub, &rights);
        assert_holds(&member.device, &hub, scopes);
        assert_eq!(held(&member.device), BTreeMap::new(), "{}", member.name);
        assert_eq!(member.device.digest_of(scopes[0]).unwrap().count, 0);
    }
}

#[test]
fn who_follows_several_scopes_is_waited_for_until_it_has_read_them_all() {
    let (mut hub, rights) = filled_hub();
    let mut member = Member::new(2, &["a", "b"]);
    member.sync(&mut hub, &rights);
    delete(&mut hub, "note", "of b");
    assert_eq!(hub.collect(SOON, 0).unwrap().entities, 0, "it may have an edit of that");
    // One of the two is read.
    member.connect(&rights);
    let of_a = |frame: &[u8]| Scoped::decode(frame).is_ok_and(|scoped| scoped.slot == 1);
    let wire = member.wire.as_mut().unwrap();
    for _ in 0..20 {
        if let Some(up) = wire.client.poll_transmit(&mut member.device, NOW).unwrap() {
            wire.server.handle(&mut hub, &up, NOW).unwrap();
        }
        if let Some(down) = wire.server.poll_transmit(&mut hub, NOW).unwrap()
            && (down[0] != tag::SCOPED || of_a(&down))
        {
            wire.client.handle(&mut member.device, &down, NOW).unwrap();
        }
    }
    assert_eq!(hub.collect(SOON, 0).unwrap().entities, 0, "of the other scope it has heard nothing");
    member.sync(&mut hub, &rights);
    assert_eq!(hub.collect(SOON, 0).unwrap().entities, 1);
}

#[test]
fn an_unsent_edit_of_what_was_collected_meanwhile_is_refused_and_listed() {
    let (mut hub, rights) = filled_hub();
    let mut member = Member::new(2, &["a", "b"]);
    member.sync(&mut hub, &rights);
    edit(&mut member.device, &[("note", "of b", field("title", "late"))]).unwrap();
    delete_all(&mut hub);
    assert_eq!(hub.collect(LONG_AFTER, 0).unwrap().entities, 3);
    member.sync(&mut hub, &rights);
    let rejected = member.device.rejected().unwrap();
    let codes: Vec<_> = rejected.iter().map(|edit| (edit.code, edit.ops.len())).collect();
    assert_eq!(codes, [(Code::GONE, 1)]);
    assert_holds(&member.device, &hub, &["a", "b"]);
    assert_eq!(hub.view("note", "of b").unwrap(), None, "nothing of it has come back");
}

#[test]
fn what_is_made_anew_elsewhere_holds_nothing_of_what_was_collected() {
    // Which of the two scopes is read first makes no difference, nor does where the connection breaks.
    for frames in 1..40 {
        let (mut hub, rights) = filled_hub();
        let mut member = Member::new(2, &["a", "b"]);
        member.sync(&mut hub, &rights);
        delete(&mut hub, "note", "of b");
        assert_eq!(hub.collect(LONG_AFTER, 0).unwrap().entities, 1);
        edit(&mut hub, &[("note", "of b", note("a", "new"))]).unwrap();
        member.connect(&rights);
        member.exchange(&mut hub, &rights, frames);
        member.sync(&mut hub, &rights);
        assert_holds(&member.device, &hub, &["a", "b"]);
        let view = member.device.view("note", "of b").unwrap().unwrap();
        assert!(!format!("{view:?}").contains("old"), "cut after {frames}: {view:?}");
    }
}

#[test]
fn nobody_is_told_of_a_collection_where_it_may_not_read() {
    let (mut hub, rights) = filled_hub();
    rights.revoke_all("member 2", "b");
    let (mut one, mut all) = (Member::new(2, &["a"]), Member::new(3, &["a"]));
    for member in [&mut one, &mut all] {
        member.sync(&mut hub, &rights);
    }
    delete_all(&mut hub);
    hub.collect(LONG_AFTER, 0).unwrap();
    one.connect(&rights);
    all.connect(&rights);
    let sorted = |mut names: Vec<String>| {
        names.sort_unstable();
        names
    };
    assert_eq!(sorted(told_of_collections(&mut one, &mut hub)), ["of a", "of none"]);
    assert_eq!(sorted(told_of_collections(&mut all, &mut hub)), ["of a", "of b", "of none"]);
}

#[test]
fn keys_that_were_taken_out_go_where_they_were_and_nobody_else_is_told() {
    let (mut hub, rights) = filled_hub();
    rights.revoke_all("member 2", "b");
    let (mut one, mut all) = (Member::new(2, &["a"]), Member::new(3, &["", "a", "b"]));
    edit(&mut hub, &[("note", "of a", tag_with("old"))]).unwrap();
    for member in [&mut one, &mut all] {
        member.sync(&mut hub, &rights);
    }
    for id in ["of a", "of b"] {
        let remove = Action::Remove { field: "tags".to_owned(), key: "old".to_owned() };
        edit(&mut hub, &[("note", id, remove)]).unwrap();
    }
    for member in [&mut one, &mut all] {
        member.sync(&mut hub, &rights);
    }
    assert_eq!(hub.collect(SOON, 0).unwrap().keys, 2);
    one.connect(&rights);
    all.connect(&rights);
    assert_eq!(told_of_collections(&mut one, &mut hub), ["of a"]);
    let mut told = told_of_collections(&mut all, &mut hub);
    told.sort_unstable();
    assert_eq!(told, ["of a", "of b"]);
    for (member, scopes) in [(&mut one, &["a"][..]), (&mut all, &["", "a", "b"])] {
        member.settle(&mut hub, &rights);
        assert_holds(&member.device, &hub, scopes);
    }
}

#[test]
fn who_was_away_for_too_long_begins_anew_and_keeps_its_unsent_edits() {
    let (mut hub, rights) = filled_hub();
    let mut member = Member::new(2, &["a", "b"]);
    member.sync(&mut hub, &rights);
    edit(&mut member.device, &[("note", "of a", field("title", "kept"))]).unwrap();
    edit(&mut member.device, &[("note", "of b", field("title", "late"))]).unwrap();
    let before = member.device.identity().store;
    delete(&mut hub, "note", "of b");
    hub.collect(LONG_AFTER, 0).unwrap();
    hub.collect(LONG_AFTER, 0).unwrap();
    assert!(hub.marks().unwrap().floor > 0, "nobody can be told of it any more");
    member.sync(&mut hub, &rights);
    assert_eq!(member.fenced, 1);
    assert_ne!(member.device.identity().store, before);
    member.sync(&mut hub, &rights);
    member.sync(&mut hub, &rights);
    assert_eq!(title(&hub, "of a").as_deref(), Some("kept"));
    let rejected = member.device.rejected().unwrap();
    assert_eq!(rejected.iter().map(|edit| edit.code).collect::<Vec<_>>(), [Code::GONE]);
    assert_holds(&member.device, &hub, &["a", "b"]);
}

#[test]
fn an_edit_in_a_scope_that_is_not_followed_when_its_device_begins_anew_is_listed_and_not_made_by_half() {
    let (mut hub, rights) = filled_hub();
    let mut member = Member::new(2, &["a", "b"]);
    member.sync(&mut hub, &rights);
    edit(&mut member.device, &[("note", "of b", field("title", "later"))]).unwrap();
    delete(&mut hub, "note", "of a");
    hub.collect(LONG_AFTER, 0).unwrap();
    hub.collect(LONG_AFTER, 0).unwrap();
    member.wants.remove("b");
    for _ in 0..3 {
        member.sync(&mut hub, &rights);
    }
    assert_eq!(member.fenced, 1);
    let codes: Vec<_> =
        member.device.rejected().unwrap().iter().map(|edit| (edit.code, edit.ops.len())).collect();
    assert_eq!(codes, [(Code::SCOPE, 1)]);
    assert_eq!(title(&hub, "of b").as_deref(), Some("stamps"));
    // Once it is followed the same edit is done again.
    member.wants.insert("b".to_owned());
    member.sync(&mut hub, &rights);
    let key = member.device.rejected().unwrap()[0].key;
    member.device.retry_rejected(NOW, key).unwrap();
    member.sync(&mut hub, &rights);
    assert_eq!(title(&hub, "of b").as_deref(), Some("later"));
}

#[test]
fn a_scope_that_is_followed_while_a_device_begins_anew_holds_up_nothing() {
    let (mut hub, rights) = filled_hub();
    let mut member = Member::new(2, &["a"]);
    member.sync(&mut hub, &rights);
    edit(&mut member.device, &[("note", "of a", field("title", "kept"))]).unwrap();
    delete(&mut hub, "note", "of b");
    hub.collect(LONG_AFTER, 0).unwrap();
    hub.collect(LONG_AFTER, 0).unwrap();
    member.sync(&mut hub, &rights);
    assert_eq!(member.fenced, 1);
    member.connect(&rights);
    member.exchange(&mut hub, &rights, 3);
    member.subscribe("");
    member.settle(&mut hub, &rights);
    assert_eq!((title(&hub, "of a").as_deref(), member.device.pending_count()), (Some("kept"), Ok(0)));
    assert_holds(&member.device, &hub, &["", "a"]);
}

#[test]
fn who_follows_nothing_for_a_while_is_not_taken_for_one_who_was_away_for_too_long() {
    let (mut hub, rights) = filled_hub();
    let mut member = Member::new(2, &["a"]);
    member.sync(&mut hub, &rights);
    let before = member.device.identity().store;
    member.connect(&rights);
    member.unsubscribe("a", Kept::Yes);
    member.settle(&mut hub, &rights);
    delete(&mut hub, "note", "of b");
    hub.collect(LONG_AFTER, 0).unwrap();
    for _ in 0..3 {
        member.sync(&mut hub, &rights);
    }
    assert_eq!((member.fenced, member.device.identity().store), (0, before));
    assert_eq!(title(&member.device, "of a").as_deref(), Some("milk"), "what was kept");
}

#[test]
fn what_was_accepted_unheard_where_writing_is_granted_no_more_is_no_fault() {
    let (mut hub, rights) = filled_hub();
    let mut member = Member::new(2, &["a", "b"]);
    member.sync(&mut hub, &rights);
    edit(&mut member.device, &[("note", "of b", tag_with("new")), ("note", "of b", field("title", "mine"))])
        .unwrap();
    // Up to where the answer is on its way.
    member.connect(&rights);
    let wire = member.wire.as_mut().unwrap();
    while title(&hub, "of b").as_deref() != Some("mine") {
        if let Some(up) = wire.client.poll_transmit(&mut member.device, NOW).unwrap() {
            wire.server.handle(&mut hub, &up, NOW).unwrap();
        } else if let Some(down) = wire.server.poll_transmit(&mut hub, NOW).unwrap() {
            wire.client.handle(&mut member.device, &down, NOW).unwrap();
        }
    }
    assert_eq!(member.device.pending_count(), Ok(1));
    let remove = Action::Remove { field: "tags".to_owned(), key: "new".to_owned() };
    edit(&mut hub, &[("note", "of b", remove)]).unwrap();
    assert_eq!(hub.collect(LONG_AFTER, 0).unwrap().keys, 1);
    rights.revoke("member 2", Access::Write, "b");
    member.connect(&rights);
    let mut events = Vec::new();
    for _ in 0..200 {
        let wire = member.wire.as_mut().unwrap();
        if let Some(up) = wire.client.poll_transmit(&mut member.device, NOW).unwrap() {
            wire.server.handle(&mut hub, &up, NOW).unwrap();
        }
        if let Some(down) = wire.server.poll_transmit(&mut hub, NOW).unwrap() {
            wire.client.handle(&mut member.device, &down, NOW).unwrap();
        }
        events.extend(wire.client.poll_events());
    }
    let differs = |event: &SessionEvent| matches!(event, SessionEvent::Diverged { .. });
    assert!(!events.iter().any(differs), "{events:?}");
    assert_eq!(member.device.rejected().unwrap().len(), 1);
    assert_eq!(title(&member.device, "of b").as_deref(), Some("mine"), "that much had been accepted");
    assert_holds(&member.device, &hub, &["a", "b"]);
}
