//! Rules and aliases of entities that move.

use super::*;

/// Timers in lists, of which one runs in each list, and which may turn out to be one.
fn timers() -> Arc<Schema> {
    let timer = |k: crate::schema::KindBuilder| {
        let k = k.value("list").scope("list").value("start").value("stop").value("title").aliases();
        k.at_most_one("one running", ["list"], "stop", "start")
    };
    Arc::new(Schema::builder().kind("timer", timer).build().unwrap())
}

fn open_timers(n: u64, admission: Admission) -> Device {
    let options = OpenOptions { seeds: seeds(n), slot: 0, admission, rank: 0 };
    Replica::open(MemoryStore::new(), timers(), options).unwrap()
}

fn timers_hub() -> Device {
    let mut hub = open_timers(1, Admission::Refuse { drift_ms_max: 60_000 });
    hub.become_authority().unwrap();
    hub
}

fn member(n: u64, wants: &[&str]) -> Member {
    let mut member = Member::new(n, wants);
    member.device = open_timers(n, Admission::Quarantine { drift_ms_max: 60_000 });
    member
}

fn timer(list: &str, start: i64) -> Action {
    Action::Put(vec![
        ("list".to_owned(), list.into()),
        ("start".to_owned(), start.into()),
        ("stop".to_owned(), Value::Null),
    ])
}

fn stop(of: &Device, id: &str) -> Value {
    match of.view("timer", id).unwrap().unwrap().fields.get("stop") {
        Some(Shown::Value(value)) => value.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_timer_that_moves_brings_its_claim_and_stops_the_one_that_runs_there() {
    let (mut hub, rights) = (timers_hub(), Rights::default());
    rights.grant_all("member 2", &["b"]);
    rights.grant_all("member 3", &["a", "b"]);
    let (mut one, mut both) = (member(2, &["b"]), member(3, &["a", "b"]));
    edit(&mut hub, &[("timer", "x", timer("a", 50))]).unwrap();
    edit(&mut hub, &[("timer", "y", timer("b", 10))]).unwrap();
    for member in [&mut one, &mut both] {
        member.connect(&rights);
        member.settle(&mut hub, &rights);
    }
    edit(&mut both.device, &[("timer", "x", field("list", "b"))]).unwrap();
    for _ in 0..2 {
        both.settle(&mut hub, &rights);
        one.settle(&mut hub, &rights);
    }
    for replica in [&one.device, &both.device, &hub] {
        assert_eq!((stop(replica, "y"), stop(replica, "x")), (50.into(), Value::Null));
        let claims = |id: &str| {
            let mut claims = 0;
            let count = &mut |parts: crate::address::Parts<'_>, _: &crate::row::State<'_>| {
                claims += usize::from(parts.class == crate::address::class::CLAIM);
            };
            replica.registers("timer", id, count).unwrap();
            claims
        };
        assert_eq!((claims("x"), claims("y")), (2, 1), "one for each list that it was in");
    }
    // And back: where it is not followed nothing stops the other any more, here or at the hub.
    edit(&mut hub, &[("timer", "x", field("list", "a"))]).unwrap();
    one.settle(&mut hub, &rights);
    both.settle(&mut hub, &rights);
    assert_eq!(one.device.view("timer", "x").unwrap(), None);
    assert_eq!(stop(&both.device, "y"), stop(&hub, "y"), "who follows both shows what the hub does");
    for member in [&one, &both] {
        assert!(member.device.verify().unwrap().is_sound());
    }
}

#[test]
fn an_alias_leads_to_its_entity_wherever_that_has_moved() {
    let (mut hub, rights) = (timers_hub(), Rights::default());
    rights.grant_all("member 2", &["a", "b"]);
    rights.grant_all("member 3", &["a", "b"]);
    let (mut one, mut both) = (member(2, &["a"]), member(3, &["a", "b"]));
    edit(&mut hub, &[("timer", "loser", timer("a", 1))]).unwrap();
    edit(&mut hub, &[("timer", "winner", timer("a", 2))]).unwrap();
    edit(&mut hub, &[("timer", "loser", Action::Alias { to: "winner".to_owned() })]).unwrap();
    for member in [&mut one, &mut both] {
        member.connect(&rights);
        member.settle(&mut hub, &rights);
    }
    edit(&mut hub, &[("timer", "winner", field("list", "b"))]).unwrap();
    for member in [&mut one, &mut both] {
        member.settle(&mut hub, &rights);
    }
    assert_eq!(one.device.view("timer", "winner").unwrap(), None, "it has left");
    // What is written under the former name comes where the entity is, also from where that is not held.
    edit(&mut both.device, &[("timer", "loser", field("title", "of both"))]).unwrap();
    both.settle(&mut hub, &rights);
    let shown = |of: &Device| of.view("timer", "winner").unwrap().unwrap().fields.get("title").cloned();
    assert_eq!((shown(&hub), shown(&both.device)), (text("of both"), text("of both")));
    let later = Millis(NOW.0 + 1);
    one.device.edit(later, &[Op::new("timer", "loser", field("title", "of one"))]).unwrap();
    for _ in 0..2 {
        one.settle(&mut hub, &rights);
        both.settle(&mut hub, &rights);
    }
    assert_eq!((shown(&hub), shown(&both.device)), (text("of one"), text("of one")));
    assert_eq!(hub.scope_of("timer", "winner").unwrap(), "b");
    assert!(one.device.rejected().unwrap().is_empty() && one.device.pending_count() == Ok(0));
    for (member, scopes) in [(&one, &["a"][..]), (&both, &["a", "b"])] {
        for scope in scopes {
            let (here, there) = (member.device.digest_of(scope).unwrap(), hub.digest_of(scope).unwrap());
            assert_eq!(here.confirmed, there.confirmed, "{} in `{scope}`", member.name);
        }
    }
}
