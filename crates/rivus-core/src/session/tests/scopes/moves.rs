//! Subscriptions to several scopes, and entities that move between them.

use super::*;

#[test]
fn a_device_has_what_it_follows_and_nothing_else() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    edit(&mut hub, &[("note", "x", note("a", "X"))]).unwrap();
    edit(&mut hub, &[("note", "y", note("b", "Y"))]).unwrap();
    edit(&mut hub, &[("setting", "s", field("title", "S"))]).unwrap();
    rights.grant_all("member 2", &["", "a", "b"]);
    let mut one = Member::new(2, &["a"]);
    one.sync(&mut hub, &rights);
    assert_holds(&one.device, &hub, &["a"]);
    assert_eq!(held(&one.device).len(), 1);
    edit(&mut one.device, &[("note", "x", field("title", "X2"))]).unwrap();
    edit(&mut hub, &[("note", "y", field("title", "Y2"))]).unwrap();
    one.wants.insert(String::new());
    one.sync(&mut hub, &rights);
    assert_eq!(title(&hub, "x").as_deref(), Some("X2"));
    assert_holds(&one.device, &hub, &["", "a"]);
    assert_eq!(held(&one.device).len(), 2);
    let events = one.sync(&mut hub, &rights);
    let equal = events.iter().filter(|event| matches!(event, SessionEvent::Verified { .. })).count();
    assert_eq!(equal, 2, "each scope is known to be equal: {events:?}");
}

#[test]
fn what_moves_leaves_those_who_do_not_follow_it_and_is_not_deleted() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    edit(&mut hub, &[("note", "x", note("a", "X"))]).unwrap();
    edit(&mut hub, &[("note", "stays", note("a", "stays"))]).unwrap();
    rights.grant_all("member 2", &["a", "b"]);
    rights.grant_all("member 3", &["a", "b"]);
    let (mut one, mut both) = (Member::new(2, &["a"]), Member::new(3, &["a", "b"]));
    for member in [&mut one, &mut both] {
        member.connect(&rights);
        member.settle(&mut hub, &rights);
    }
    one.device.poll_events();
    edit(&mut hub, &[("note", "x", field("list", "b"))]).unwrap();
    one.settle(&mut hub, &rights);
    assert_eq!(title(&one.device, "x"), None);
    assert_eq!(one.device.view("note", "x").unwrap(), None, "it is not deleted, it is not there");
    assert_eq!(one.device.store().ids("note", None, 9).unwrap(), ["stays"], "no row of it stays");
    let event = Event::Changed { kind: "note".into(), id: "x".into(), origin: Origin::Left };
    assert!(one.device.poll_events().contains(&event));
    assert_holds(&one.device, &hub, &["a"]);
    both.settle(&mut hub, &rights);
    assert_holds(&both.device, &hub, &["a", "b"]);
    // And back, with what has changed meanwhile.
    edit(&mut hub, &[("note", "x", field("title", "X2"))]).unwrap();
    edit(&mut hub, &[("note", "x", field("list", "a"))]).unwrap();
    for member in [&mut one, &mut both] {
        member.settle(&mut hub, &rights);
        assert_eq!(title(&member.device, "x").as_deref(), Some("X2"));
        assert_holds(&member.device, &hub, &["a"]);
    }
}

#[test]
fn a_member_of_both_never_sees_it_vanish_wherever_the_connection_is_cut() {
    for cut in 0..40 {
        let (mut hub, rights) = (notes_hub(), Rights::default());
        for n in 0..5 {
            edit(&mut hub, &[("note", &format!("n{n}"), note("a", "before"))]).unwrap();
        }
        rights.grant_all("member 2", &["a", "b"]);
        let mut both = Member::new(2, &["a", "b"]);
        both.sync(&mut hub, &rights);
        edit(&mut hub, &[("note", "n1", note("b", "after"))]).unwrap();
        edit(&mut hub, &[("note", "n2", note("b", "after"))]).unwrap();
        both.connect(&rights);
        for _ in 0..cut {
            both.exchange(&mut hub, &rights, 1);
            assert_eq!(both.device.store().ids("note", None, 9).unwrap().len(), 5, "cut at {cut}");
        }
        both.cut();
        edit(&mut hub, &[("note", "n1", note("a", "back"))]).unwrap();
        both.connect(&rights);
        while both.exchange(&mut hub, &rights, 1) > 0 {
            assert_eq!(both.device.store().ids("note", None, 9).unwrap().len(), 5, "cut at {cut}");
        }
        both.settle(&mut hub, &rights);
        assert_holds(&both.device, &hub, &["a", "b"]);
    }
}

#[test]
fn a_large_entity_moves_whole() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    rights.grant_all("member 2", &["a"]);
    rights.grant_all("member 3", &["a", "b"]);
    let (mut one, mut both) = (Member::new(2, &["a"]), Member::new(3, &["a", "b"]));
    edit(&mut one.device, &[("note", "large", note("a", "L"))]).unwrap();
    let tags: Vec<_> = (0..300).map(|n| ("note", "large", tag_with(format!("tag {n}")))).collect();
    edit(&mut one.device, &tags).unwrap();
    for member in [&mut one, &mut both] {
        member.connect(&rights);
        member.settle(&mut hub, &rights);
    }
    let rows = |of: &Device| {
        let mut rows = 0;
        let count = &mut |_: crate::store::Changed<'_>| {
            rows += 1;
            ControlFlow::Continue(())
        };
        of.store().changes(0, count).unwrap();
        rows
    };
    assert!(rows(&both.device) > 3, "it is in several rows");
    edit(&mut both.device, &[("note", "large", field("list", "b"))]).unwrap();
    both.settle(&mut hub, &rights);
    one.settle(&mut hub, &rights);
    assert_holds(&both.device, &hub, &["a", "b"]);
    assert_holds(&one.device, &hub, &["a"]);
    assert_eq!(rows(&one.device), 0);
    edit(&mut hub, &[("note", "large", field("list", "a"))]).unwrap();
    one.settle(&mut hub, &rights);
    assert_holds(&one.device, &hub, &["a"]);
    assert!(title(&one.device, "large").is_some());
}

#[test]
fn a_register_that_came_from_here_comes_back_with_its_entity() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    rights.grant_all("member 2", &["a"]);
    let mut one = Member::new(2, &["a"]);
    edit(&mut one.device, &[("note", "x", note("a", "mine"))]).unwrap();
    one.sync(&mut hub, &rights);
    edit(&mut hub, &[("note", "x", field("list", "b"))]).unwrap();
    one.sync(&mut hub, &rights);
    assert_eq!(title(&one.device, "x"), None);
    edit(&mut hub, &[("note", "x", field("list", "a"))]).unwrap();
    one.sync(&mut hub, &rights);
    assert_eq!(title(&one.device, "x").as_deref(), Some("mine"), "the hub does not take it for known here");
}

#[test]
fn an_entity_with_a_pending_edit_stays_until_that_has_its_verdict() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    edit(&mut hub, &[("note", "x", note("a", "X"))]).unwrap();
    rights.grant_all("member 2", &["a"]);
    let mut one = Member::new(2, &["a"]);
    one.connect(&rights);
    one.settle(&mut hub, &rights);
    edit(&mut hub, &[("note", "x", field("list", "b"))]).unwrap();
    // What has left comes in while an edit waits.
    let wire = one.wire.as_mut().unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = wire.server.poll_transmit(&mut hub, NOW).unwrap() {
        frames.push(frame);
    }
    edit(&mut one.device, &[("note", "x", field("title", "late"))]).unwrap();
    for frame in &frames {
        wire.client.handle(&mut one.device, frame, NOW).unwrap();
    }
    assert_eq!(title(&one.device, "x").as_deref(), Some("late"));
    one.settle(&mut hub, &rights);
    assert_eq!(one.device.view("note", "x").unwrap(), None);
    assert_eq!(title(&hub, "x").as_deref(), Some("X"));
    let rejected = one.device.rejected().unwrap();
    assert_eq!(rejected.len(), 1);
    assert_eq!((rejected[0].code, &rejected[0].ops[0].action), (Code::SCOPE, &field("title", "late")));
    assert_holds(&one.device, &hub, &["a"]);
}

#[test]
fn an_edit_lies_in_one_scope() {
    let mut device = notes_device(2);
    edit(&mut device, &[("note", "x", note("a", "X"))]).unwrap();
    edit(&mut device, &[("note", "y", note("b", "Y"))]).unwrap();
    let refused =
        edit(&mut device, &[("note", "x", field("title", "1")), ("note", "y", field("title", "2"))]);
    let message = refused.unwrap_err().to_string();
    assert_eq!(
        message,
        "the edit would reach into the scope `a` (note `x`) and into `b` (note `y`): make an edit of each"
    );
    assert_eq!(title(&device, "x").as_deref(), Some("X"), "nothing has changed");
    // A move counts as where it goes; what has no scope goes with any.
    edit(&mut device, &[("note", "x", field("list", "b")), ("note", "y", field("title", "2"))]).unwrap();
    edit(&mut device, &[("note", "x", field("title", "1")), ("setting", "s", field("title", "2"))]).unwrap();
}

#[test]
fn pages_of_several_scopes_go_out_in_turn() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    let long = "x".repeat(20_000);
    for n in 0..200 {
        edit(&mut hub, &[("note", &format!("n{n}"), note("large", &long))]).unwrap();
    }
    rights.grant_all("member 2", &["large", "live"]);
    let mut one = Member::new(2, &["large", "live"]);
    one.connect(&rights);
    while held(&one.device).is_empty() {
        one.exchange(&mut hub, &rights, 1);
    }
    edit(&mut hub, &[("note", "now", note("live", "now"))]).unwrap();
    let mut frames = 0;
    while title(&one.device, "now").is_none() {
        frames += one.exchange(&mut hub, &rights, 1);
    }
    let behind = held(&one.device)["large"].len();
    assert!(behind < 100 && frames <= 6, "{behind} of 200 came first, in {frames} frames");
    one.settle(&mut hub, &rights);
    assert_holds(&one.device, &hub, &["large", "live"]);
}

#[test]
fn what_one_commit_moves_by_the_thousand_goes_in_pages_that_a_reader_takes() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    rights.grant_all("member 2", &["a", "b"]);
    let ids: Vec<String> = (0..700).map(|n| format!("n{n}")).collect();
    for id in &ids {
        let tags = (0..200).map(|n| ("note", id.as_str(), tag_with(n.to_string())));
        let ops: Vec<_> = std::iter::once(("note", id.as_str(), note("a", "t"))).chain(tags).collect();
        edit(&mut hub, &ops).unwrap();
    }
    let mut one = Member::new(2, &["a", "b"]);
    one.connect(&rights);
    one.settle(&mut hub, &rights);
    let moves: Vec<_> = ids.iter().map(|id| ("note", id.as_str(), field("list", "b"))).collect();
    edit(&mut hub, &moves).unwrap();
    one.settle(&mut hub, &rights);
    assert_holds(&one.device, &hub, &["a", "b"]);
}

#[test]
fn what_is_to_be_kept_stays_though_it_was_about_to_be_read_again() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    rights.grant_all("member 2", &["a", "b"]);
    edit(&mut hub, &[("note", "x", note("b", "kept"))]).unwrap();
    let mut one = Member::new(2, &["a", "b"]);
    one.sync(&mut hub, &rights);
    one.connect(&rights);
    one.unsubscribe("b", Kept::Yes);
    one.settle(&mut hub, &rights);
    one.subscribe("b");
    let wire = one.wire.as_mut().unwrap();
    assert!(wire.client.poll_transmit(&mut one.device, NOW).unwrap().is_some(), "it asks for all of it");
    one.cut();
    one.unsubscribe("b", Kept::Yes);
    one.sync(&mut hub, &rights);
    assert_eq!(title(&one.device, "x").as_deref(), Some("kept"));
}

#[test]
fn a_scope_of_lower_priority_is_asked_for_once_the_others_are_read() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    let long = "x".repeat(20_000);
    for n in 0..100 {
        edit(&mut hub, &[("note", &format!("n{n}"), note("a", &long))]).unwrap();
        edit(&mut hub, &[("note", &format!("m{n}"), note("b", "short"))]).unwrap();
    }
    rights.grant_all("member 2", &["a", "b", "c"]);
    let mut one = Member::new(2, &["a", "b", "c"]);
    one.connect(&rights);
    one.wire.as_mut().unwrap().client.set_priority("b", -1);
    let mut between = 0;
    while held(&one.device).get("a").is_none_or(|notes| notes.len() < 100) {
        one.exchange(&mut hub, &rights, 1);
        between += usize::from(held(&one.device).contains_key("b"));
    }
    assert_eq!(between, 0, "it waits until all of the other is here");
    one.settle(&mut hub, &rights);
    assert_holds(&one.device, &hub, &["a", "b", "c"]);
    // What comes later waits for nothing, and who may not be read any more is not waited for.
    one.cut();
    rights.revoke_all("member 2", "a");
    edit(&mut hub, &[("note", "now", note("b", "now"))]).unwrap();
    one.connect(&rights);
    one.wire.as_mut().unwrap().client.set_priority("a", 1);
    one.settle(&mut hub, &rights);
    assert_eq!(title(&one.device, "now").as_deref(), Some("now"));
}

#[test]
fn another_scope_field_files_everything_anew() {
    let mut hub = notes_hub();
    edit(
        &mut hub,
        &[(
            "note",
            "x",
            Action::Put(vec![("list".to_owned(), "a".into()), ("title".to_owned(), "t".into())]),
        )],
    )
    .unwrap();
    let by_list = hub.digest_of("a").unwrap();
    let reopen = |store: MemoryStore, scope: Option<&str>| {
        let schema = Schema::builder().kind("note", |k| {
            let k = k.value("list").value("title");
            scope.into_iter().fold(k, |k, field| k.scope(field))
        });
        let admission = Admission::Refuse { drift_ms_max: 60_000 };
        let options = OpenOptions { seeds: seeds(1), slot: 0, admission, rank: 0 };
        Replica::open(store, Arc::new(schema.build().unwrap()), options).unwrap()
    };
    let hub = reopen(hub.into_store(), Some("title"));
    assert_eq!(hub.scopes().unwrap(), [("t".to_owned(), by_list)]);
    let options = OpenOptions { seeds: seeds(1), slot: 0, admission: Admission::Off, rank: 0 };
    let hub = Replica::open(hub.into_store(), Arc::new(Schema::open()), options).unwrap();
    assert_eq!(hub.scope_of("note", "x").unwrap(), "t", "who does not declare the kind leaves it as it is");
    let hub = reopen(hub.into_store(), None);
    assert_eq!((hub.scopes().unwrap(), hub.verify().unwrap().is_sound()), (Vec::new(), true));
    let hub = reopen(hub.into_store(), Some("list"));
    assert_eq!(hub.scopes().unwrap(), [("a".to_owned(), by_list)]);
}

#[test]
fn an_evicted_entity_of_a_scope_moves_and_is_fetched() {
    let (mut hub, rights) = (notes_hub(), Rights::default());
    edit(&mut hub, &[("note", "x", note("a", "X"))]).unwrap();
    edit(&mut hub, &[("note", "y", note("a", "Y"))]).unwrap();
    rights.grant_all("member 2", &["a", "b"]);
    rights.grant_all("member 3", &["a", "b"]);
    let (mut one, mut both) = (Member::new(2, &["a"]), Member::new(3, &["a", "b"]));
    let name = |id: &str| ("note".to_owned(), id.to_owned());
    for member in [&mut one, &mut both] {
        member.connect(&rights);
        member.settle(&mut hub, &rights);
        member.device.evict(NOW, &[name("x"), name("y")]).unwrap();
    }
    edit(&mut hub, &[("note", "x", field("list", "b"))]).unwrap();
    for member in [&mut one, &mut both] {
        let events = member.settle(&mut hub, &rights);
        assert!(!events.iter().any(|event| matches!(event, SessionEvent::Diverged { .. })), "{events:?}");
        assert!(member.device.verify().unwrap().is_sound());
    }
    assert_eq!(one.device.evicted().unwrap().entities, 1, "what has left is not evicted either");
    assert_eq!(both.device.scope_of("note", "x").unwrap(), "b");
    both.wire.as_mut().unwrap().client.fetch([name("x"), name("y")]);
    both.settle(&mut hub, &rights);
    assert_holds(&both.device, &hub, &["a", "b"]);
    assert_eq!(both.device.evicted().unwrap().entities, 0);
}
