//! What is dead in entities that live: keys that were taken out, and writes that were replaced.

use super::collection::{delete, met, set, three};
use super::*;
use crate::address::class;
use crate::conflict::LostTo;

const KIND: &str = "plan";

fn keyed(on: &mut Device, now: i64, actions: &[Action]) {
    let ops: Vec<_> = actions.iter().map(|action| Op::new(KIND, "a", action.clone())).collect();
    on.edit(Millis(now), &ops).unwrap();
}

fn add(field: &str, key: &str) -> Action {
    Action::Add { field: field.to_owned(), key: key.to_owned() }
}

fn remove(field: &str, key: &str) -> Action {
    Action::Remove { field: field.to_owned(), key: key.to_owned() }
}

fn set_key(field: &str, key: &str, value: i64) -> Action {
    Action::SetKey { field: field.to_owned(), key: key.to_owned(), value: Value::Int(value) }
}

fn put_one(field: &str, value: i64) -> Action {
    Action::Put(vec![(field.to_owned(), Value::Int(value))])
}

/// The keys of sets and maps of which it has a register, with their fields.
fn keys(on: &Device) -> Vec<String> {
    let mut all = Vec::new();
    let note = &mut |parts: crate::address::Parts<'_>, _: &crate::row::State<'_>| {
        if parts.class == class::KEY {
            all.push(format!("{} {}", parts.name, parts.text_key().unwrap()));
        }
    };
    on.registers(KIND, "a", note).unwrap();
    all.sort();
    all
}

/// How many candidates its register of a field has, and how many entries of what it has seen.
fn wear(on: &Device, class: u8, name: &str) -> (usize, usize) {
    let mut found = None;
    let note = &mut |parts: crate::address::Parts<'_>, state: &crate::row::State<'_>| {
        if (parts.class, parts.name) == (class, name) {
            found = Some((state.shown.alive.len(), state.shown.seen.len()));
        }
    };
    on.registers(KIND, "a", note).unwrap();
    found.unwrap()
}

/// A sync that is cut off after so many frames.
fn once(on: &mut Device, hub: &mut Device, now: i64, frames: usize) -> Session {
    through(&Arc::new(Gate::new(Grants::everybody())), on, hub, now, frames)
}

/// Reads and sends nothing.
fn reads(on: &mut Device, hub: &mut Device, now: i64) {
    let (mut s, mut t) = (client(Want::Live), server());
    s.hold_pushes(true);
    let now = Millis(now);
    let mut end = End { replica: hub, session: &mut t, now };
    run(&mut End { replica: on, session: &mut s, now }, &mut end, usize::MAX).unwrap();
}

/// Two devices that know a plan with keys some of which were taken out.
fn taken_out() -> (Device, Device, Device) {
    let (mut one, mut two, mut hub) = three(100_000);
    let all = [("tags", "x"), ("tags", "y"), ("bars", "x"), ("bars", "y")];
    let adds: Vec<_> = all.iter().map(|(field, key)| add(field, key)).collect();
    keyed(&mut one, 2000, &adds);
    keyed(&mut one, 2001, &[set_key("notes", "x", 1), set_key("notes", "y", 0)]);
    keyed(&mut one, 3000, &[remove("tags", "x"), remove("bars", "x"), remove("notes", "x")]);
    met(&mut one, &mut hub, 4000);
    met(&mut two, &mut hub, 4000);
    (one, two, hub)
}

#[test]
fn a_key_that_was_taken_out_goes_everywhere_once_everybody_has_read_that() {
    let (mut one, mut two, mut hub) = taken_out();
    keyed(&mut one, 4500, &[remove("tags", "y")]);
    met(&mut one, &mut hub, 4500);
    let before = hub.view(KIND, "a").unwrap();
    assert_eq!(hub.collectable(Millis(5000), 3000).unwrap().keys, 0, "not so soon after");
    assert_eq!(hub.collectable(Millis(5000), 0).unwrap().keys, 3, "of the last the other has not read");
    met(&mut two, &mut hub, 5000);
    assert_eq!(hub.collectable(Millis(5000), 0).unwrap().keys, 4);
    let done = hub.collect(Millis(5000), 0).unwrap();
    assert_eq!((done.entities, done.keys, done.trimmed), (0, 4, 0));
    met(&mut one, &mut hub, 6000);
    met(&mut two, &mut hub, 6000);
    for on in [&one, &two, &hub] {
        assert_eq!(keys(on), ["bars y", "notes y"]);
        assert_eq!(on.view(KIND, "a").unwrap(), before);
        assert_eq!(on.head().unwrap().digest, on.recompute_digest().unwrap());
    }
    assert_same(&[&one, &two, &hub]);
    // The marks are forgotten as those of entities are.
    assert_eq!(hub.marks().unwrap().floor, 0);
    hub.collect(Millis(7000), 0).unwrap();
    assert!(hub.marks().unwrap().floor > 0);
    let mut left = 0;
    let count = &mut |_: &[u8], _: &[u8]| {
        left += 1;
        std::ops::ControlFlow::Continue(())
    };
    hub.store().records(crate::store::Table::Collected, &[], count).unwrap();
    assert_eq!(left, 1, "how far they went is all that is kept");
}

#[test]
fn a_key_is_put_in_again_by_whoever_has_read_that_it_went() {
    let (mut one, mut two, mut hub) = taken_out();
    met(&mut one, &mut hub, 5000);
    assert_eq!(hub.collect(Millis(5000), 0).unwrap().keys, 3);
    met(&mut two, &mut hub, 6000);
    keyed(&mut two, 6000, &[add("tags", "x"), add("bars", "x"), set_key("notes", "x", 2)]);
    met(&mut two, &mut hub, 6000);
    // Who hears of both at once has what came last.
    met(&mut one, &mut hub, 7000);
    for on in [&one, &two, &hub] {
        assert_eq!(keys(on), ["bars x", "bars y", "notes x", "notes y", "tags x", "tags y"]);
        let view = on.view(KIND, "a").unwrap().unwrap();
        assert_eq!(view.fields["tags"], Shown::Set(["x", "y"].map(str::to_owned).into()));
    }
    assert_same(&[&one, &two, &hub]);
}

#[test]
fn a_late_edit_of_a_key_that_went_is_refused_as_gone_and_can_be_retried() {
    // It is refused at the hub, or by the device where that hears of the mark before it sends.
    for reads_first in [false, true] {
        let (mut one, mut two, mut hub) = taken_out();
        // It cannot send for a while, and reads.
        keyed(&mut two, 4500, &[add("tags", "x"), put_one("v", 5)]);
        keyed(&mut two, 4501, &[put_one("top", 6)]);
        reads(&mut two, &mut hub, 5000);
        met(&mut one, &mut hub, 5000);
        assert_eq!(hub.collect(Millis(5000), 0).unwrap().keys, 3);
        if reads_first {
            reads(&mut two, &mut hub, 6000);
            assert_eq!(two.rejected().unwrap().len(), 1, "it knows by itself");
        }
        met(&mut two, &mut hub, 6000);
        met(&mut two, &mut hub, 6000);
        let rejected = two.rejected().unwrap();
        assert_eq!((rejected.len(), rejected[0].code), (1, Code::GONE));
        let spot = rejected[0].spot.as_ref().unwrap();
        assert_eq!((spot.id.as_str(), spot.field.as_deref()), ("a", Some("tags")));
        assert_eq!(
            rejected[0].ops,
            [Op::new(KIND, "a", add("tags", "x")), Op::new(KIND, "a", put_one("v", 5))]
        );
        for on in [&two, &hub] {
            let view = on.view(KIND, "a").unwrap().unwrap();
            assert_eq!(view.fields["tags"], Shown::Set(["y".to_owned()].into()));
            assert_eq!(view.fields["top"], Shown::Value(6.into()), "what was written beside it came in");
            assert!(!view.fields.contains_key("v"));
        }
        two.retry_rejected(Millis(7000), rejected[0].key).unwrap();
        met(&mut two, &mut hub, 7000);
        let view = hub.view(KIND, "a").unwrap().unwrap();
        assert_eq!(view.fields["tags"], Shown::Set(["x", "y"].map(str::to_owned).into()));
        assert_same(&[&two, &hub]);
    }
}

#[test]
fn what_was_replaced_goes_and_candidates_that_show_nothing_are_listed() {
    let (mut one, mut two, mut hub) = three(100_000);
    keyed(&mut one, 2000, &[put_one("v", 1), add("tags", "x")]);
    met(&mut one, &mut hub, 2500);
    met(&mut two, &mut hub, 2500);
    // Of `top` the greater stays, of `all` both do; the key was taken out by one and put in again by the other.
    keyed(&mut one, 3000, &[put_one("top", 1), put_one("all", 1), remove("tags", "x")]);
    keyed(&mut two, 3001, &[put_one("top", 9), put_one("all", 9), add("tags", "x")]);
    for _ in 0..2 {
        met(&mut one, &mut hub, 4000);
        met(&mut two, &mut hub, 4000);
    }
    let shape = |on: &Device| {
        [wear(on, class::FIELD, "top"), wear(on, class::FIELD, "all"), wear(on, class::KEY, "tags")]
    };
    assert_eq!(shape(&hub), [(2, 0), (2, 0), (2, 0)]);
    // One has seen both of `all`.
    keyed(&mut one, 5000, &[put_one("all", 5)]);
    met(&mut one, &mut hub, 5000);
    met(&mut two, &mut hub, 5000);
    met(&mut one, &mut hub, 5000);
    assert_eq!(shape(&hub), [(2, 0), (1, 1), (2, 0)]);
    let before = hub.view(KIND, "a").unwrap();
    let done = hub.collect(Millis(6000), 0).unwrap();
    assert_eq!((done.entities, done.keys, done.trimmed), (0, 0, 3));
    for _ in 0..2 {
        met(&mut one, &mut hub, 7000);
        met(&mut two, &mut hub, 7000);
    }
    for on in [&one, &two, &hub] {
        assert_eq!(shape(on), [(1, 0), (1, 0), (1, 0)]);
        assert_eq!(on.view(KIND, "a").unwrap(), before);
    }
    assert_same(&[&one, &two, &hub]);
    let lost = |on: &Device| -> Vec<(String, LostTo)> {
        let listed = on.conflicts().unwrap();
        listed.iter().map(|(_, lost)| (lost.parts().name.to_owned(), lost.to)).collect()
    };
    let mut of_one = lost(&one);
    of_one.sort();
    assert_eq!(of_one, [("tags".to_owned(), LostTo::Write), ("top".to_owned(), LostTo::Write)]);
    assert_eq!(lost(&two), []);
    assert_eq!(hub.collect(Millis(8000), 0).unwrap().trimmed, 0);
}

#[test]
fn a_state_from_before_brings_nothing_back_that_went_by_a_floor() {
    let (mut one, mut two, mut hub) = three(100_000);
    keyed(&mut one, 2000, &[put_one("v", 1), put_one("all", 1)]);
    met(&mut one, &mut hub, 2500);
    met(&mut two, &mut hub, 2500);
    let old = two.copy_as_peer(7);
    keyed(&mut two, 3000, &[put_one("all", 2)]);
    met(&mut two, &mut hub, 3500);
    met(&mut one, &mut hub, 3500);
    met(&mut two, &mut hub, 3500);
    assert_eq!(hub.collect(Millis(4000), 0).unwrap().trimmed, 1);
    let mut part = Vec::new();
    old.registers(KIND, "a", &mut |parts, state| {
        if parts.name == "all" {
            crate::row::encode_register(&state.shown, &mut part);
        }
    })
    .unwrap();
    let register = crate::row::decode_register(&part).unwrap();
    let changes = vec![(
        std::sync::Arc::<[u8]>::from(crate::address::field("all")),
        crate::row::Change::Join { register, source: None },
    )];
    let rows = [crate::replica::Incoming { kind: KIND.into(), id: "a".into(), changes }];
    let (before, trust) = (hub.head().unwrap().digest, crate::replica::Trust::Peer);
    hub.join(Millis(5000), rows.as_slice(), None, trust, None).unwrap();
    assert_eq!(hub.head().unwrap().digest, before);
    assert_eq!(
        hub.view(KIND, "a").unwrap().unwrap().fields["all"],
        Shown::Value(Value::List(vec![2.into()]))
    );
}

#[test]
fn a_key_of_an_evicted_entity_goes_as_well() {
    let (mut one, mut two, mut hub) = taken_out();
    met(&mut one, &mut hub, 5000);
    assert_eq!(two.evict(Millis(5000), &[(KIND.to_owned(), "a".to_owned())]).unwrap().entities, 1);
    assert_eq!(hub.collect(Millis(5000), 0).unwrap().keys, 3);
    met(&mut two, &mut hub, 6000);
    assert_eq!(two.head().unwrap().digest, hub.head().unwrap().digest);
    let (mut s, mut t) = (client(Want::Once), server());
    s.fetch(vec![(KIND.to_owned(), "a".to_owned())]);
    let now = Millis(7000);
    let mut end = End { replica: &mut hub, session: &mut t, now };
    run(&mut End { replica: &mut two, session: &mut s, now }, &mut end, usize::MAX).unwrap();
    assert_eq!(keys(&two), ["bars y", "notes y", "tags y"]);
    assert_same(&[&two, &hub]);
}

#[test]
fn what_was_accepted_unheard_beside_what_went_is_found_and_is_no_fault() {
    for whole in [false, true] {
        let (mut one, mut two, mut hub) = taken_out();
        set(&mut one, 4000, KIND, "b", &[("v", 1.into())]);
        met(&mut one, &mut hub, 4100);
        met(&mut two, &mut hub, 4100);
        let edit = [
            Op::new(KIND, "a", add("tags", "z")),
            Op::new(KIND, "b", put_one("v", 7)),
            Op::new(KIND, "a", put_one("v", 7)),
        ];
        two.edit(Millis(4200), &edit).unwrap();
        // HELLO, WELCOME, PUSH: the answer is lost.
        once(&mut two, &mut hub, 4300, 3);
        assert_eq!(two.pending_count(), Ok(1));
        met(&mut one, &mut hub, 4400);
        match whole {
            true => delete(&mut one, 4500, KIND, "a"),
            false => keyed(&mut one, 4500, &[remove("tags", "z")]),
        }
        met(&mut one, &mut hub, 4500);
        // No lease of two runs any more.
        met(&mut one, &mut hub, 200_000);
        let done = hub.collect(Millis(200_000), 0).unwrap();
        assert!(done.entities == usize::from(whole) && whole == (done.keys == 0), "{done:?}");
        met(&mut two, &mut hub, 200_001);
        met(&mut two, &mut hub, 200_002);
        assert_eq!(two.rejected().unwrap().iter().map(|edit| edit.code).collect::<Vec<_>>(), [Code::GONE]);
        assert_eq!(two.view(KIND, "b").unwrap().unwrap().fields["v"], Shown::Value(7.into()));
        assert_same(&[&two, &hub]);
    }
}

#[test]
fn many_keys_go_in_several_commits_and_frames() {
    let (mut one, mut two, mut hub) = three(100_000);
    keyed(&mut one, 2000, &[put_one("v", 1)]);
    let name = |n: usize| format!("{n:04}{}", "k".repeat(600));
    for part in 0..5 {
        let adds: Vec<_> = (0..1000).map(|n| add("tags", &name(part * 1000 + n))).collect();
        let removes: Vec<_> = (0..1000).map(|n| remove("tags", &name(part * 1000 + n))).collect();
        keyed(&mut one, 2100 + part as i64, &adds);
        keyed(&mut one, 2200 + part as i64, &removes);
    }
    for _ in 0..2 {
        met(&mut one, &mut hub, 3000);
        met(&mut two, &mut hub, 3000);
    }
    assert_eq!(hub.collect(Millis(4000), 0).unwrap().keys, 5000);
    let mut s = once(&mut two, &mut hub, 5000, usize::MAX);
    let told: Vec<usize> = s
        .poll_events()
        .filter_map(|event| match event {
            SessionEvent::Collected { keys, .. } => Some(keys),
            _ => None,
        })
        .collect();
    assert_eq!(told.iter().sum::<usize>(), 5000);
    assert!(told.len() >= 5 && told.iter().all(|keys| *keys <= crate::wire::COLLECTED_KEYS_MAX), "{told:?}");
    assert_eq!(keys(&two), Vec::<String>::new());
    assert_same(&[&two, &hub]);
}

#[test]
fn an_unsent_edit_of_a_key_that_went_while_its_device_was_away_for_too_long_is_listed() {
    let (mut one, mut two, mut hub) = three(10_000);
    keyed(&mut one, 2000, &[put_one("v", 1), add("tags", "x"), add("tags", "y"), set_key("notes", "x", 1)]);
    met(&mut one, &mut hub, 2500);
    met(&mut two, &mut hub, 2500);
    // Of what it knows to be in: one goes meanwhile and one stays; and one that nobody has put in yet.
    keyed(&mut two, 3000, &[set_key("notes", "x", 2)]);
    keyed(&mut two, 3001, &[add("tags", "y"), put_one("top", 4)]);
    keyed(&mut two, 3002, &[add("tags", "new")]);
    keyed(&mut one, 3100, &[Action::Remove { field: "notes".to_owned(), key: "x".to_owned() }]);
    keyed(&mut one, 3101, &[remove("tags", "x")]);
    met(&mut one, &mut hub, 3200);
    met(&mut one, &mut hub, 50_000);
    assert_eq!(hub.collect(Millis(50_000), 0).unwrap().keys, 2);
    met(&mut one, &mut hub, 50_001);
    hub.collect(Millis(50_001), 0).unwrap();
    assert!(hub.marks().unwrap().floor > 0);
    assert!(met(&mut two, &mut hub, 50_002), "it is fenced");
    met(&mut two, &mut hub, 50_003);
    met(&mut two, &mut hub, 50_004);
    let rejected = two.rejected().unwrap();
    assert_eq!((rejected.len(), rejected[0].code), (1, Code::GONE));
    assert_eq!(rejected[0].ops, [Op::new(KIND, "a", set_key("notes", "x", 2))]);
    let view = hub.view(KIND, "a").unwrap().unwrap();
    assert_eq!(view.fields["tags"], Shown::Set(["new", "y"].map(str::to_owned).into()));
    assert_eq!(view.fields["top"], Shown::Value(4.into()));
    assert!(!view.fields.contains_key("notes"));
    assert_same(&[&two, &hub]);
}

#[test]
fn what_rests_on_a_refused_edit_is_not_gone_because_its_entity_is_not_here_yet() {
    let (mut one, mut two, mut hub) = three(100_000);
    let gate = refusing(|edit| edit.time() == Millis(3000));
    keyed(&mut one, 2000, &[put_one("v", 1), add("tags", "x")]);
    met(&mut one, &mut hub, 2500);
    met(&mut two, &mut hub, 2500);
    set(&mut two, 3000, KIND, "a", &[("v", 2.into())]);
    let creates = [Op::new(KIND, "new", put_one("v", 3)), Op::new(KIND, "a", put_one("top", 3))];
    two.edit(Millis(3001), &creates).unwrap();
    set(&mut two, 3002, KIND, "new", &[("text", "kept".into())]);
    keyed(&mut one, 3100, &[remove("tags", "x")]);
    met(&mut one, &mut hub, 3200);
    reads(&mut two, &mut hub, 3300);
    met(&mut one, &mut hub, 3300);
    assert_eq!(hub.collect(Millis(4000), 0).unwrap().keys, 1);
    met(&mut one, &mut hub, 4100);
    reads(&mut two, &mut hub, 4100);
    hub.collect(Millis(4200), 0).unwrap();
    assert!(hub.marks().unwrap().floor > 0);
    for now in [5000, 6000, 7000] {
        through(&gate, &mut two, &mut hub, now, usize::MAX);
    }
    let codes: Vec<_> = two.rejected().unwrap().iter().map(|edit| edit.code).collect();
    assert_eq!(codes, [Code::INVALID]);
    assert_eq!(hub.view(KIND, "new").unwrap().unwrap().fields["text"], Shown::Value("kept".into()));
    assert_same(&[&two, &hub]);
}

#[test]
fn marks_beyond_what_is_told_at_once_are_told_before_the_page() {
    let (mut one, mut two, mut hub) = three(100_000);
    let ids: Vec<String> = (0..1500).map(|n| format!("n{n}")).collect();
    let edit = |on: &mut Device, now: i64, action: Action| {
        let ops: Vec<_> = ids.iter().map(|id| Op::new(KIND, id, action.clone())).collect();
        on.edit(Millis(now), &ops).unwrap();
    };
    edit(&mut one, 2000, add("tags", "x"));
    edit(&mut one, 2001, remove("tags", "x"));
    for _ in 0..2 {
        met(&mut one, &mut hub, 3000);
        met(&mut two, &mut hub, 3000);
    }
    assert_eq!(hub.collect(Millis(4000), 0).unwrap().keys, 1500);
    let mut s = once(&mut two, &mut hub, 5000, usize::MAX);
    let told = |event| matches!(event, SessionEvent::Collected { .. });
    assert!(s.is_closed() && s.poll_events().filter(|event| told(event.clone())).count() > 5);
    let mut left = 0;
    ids.iter().for_each(|id| two.registers(KIND, id, &mut |_, _| left += 1).unwrap());
    assert_eq!(left, 1500, "of each its life");
    assert_same(&[&two, &hub]);
}

#[test]
fn who_follows_live_is_past_the_marks_that_it_was_told_of() {
    let (mut one, mut two, mut hub) = three(100_000);
    // As many as make four marks, which are told at once.
    let ids: Vec<String> = (0..1024).map(|n| format!("n{n}")).collect();
    for (now, action) in [(2000, add("tags", "x")), (2001, remove("tags", "x"))] {
        let ops: Vec<_> = ids.iter().map(|id| Op::new(KIND, id, action.clone())).collect();
        one.edit(Millis(now), &ops).unwrap();
    }
    for _ in 0..2 {
        met(&mut one, &mut hub, 3000);
        met(&mut two, &mut hub, 3000);
    }
    let (mut s, mut t) = (client(Want::Live), server());
    let mut pump = |two: &mut Device, hub: &mut Device| {
        let now = Millis(4000);
        let mut end = End { replica: hub, session: &mut t, now };
        run(&mut End { replica: two, session: &mut s, now }, &mut end, usize::MAX).unwrap()
    };
    pump(&mut two, &mut hub);
    assert_eq!(hub.collect(Millis(4000), 0).unwrap().keys, 1024);
    pump(&mut two, &mut hub);
    assert_eq!(two.read_up_to(hub.identity().store).unwrap(), Some(hub.marks().unwrap().newest));
    let edit = Op::new(KIND, "n0", add("tags", "x"));
    two.edit(Millis(4001), &[edit]).unwrap();
    pump(&mut two, &mut hub);
    assert_eq!((two.rejected().unwrap(), two.pending_count()), (vec![], Ok(0)));
    assert_same(&[&two, &hub]);
}
