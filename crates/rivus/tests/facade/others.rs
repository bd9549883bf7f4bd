//! Hearing of what another opening of the file commits.

use std::time::Duration;

use futures_util::StreamExt;
use rivus::{Db, Event, HubOptions, Origin, Phase, Schema, Subscription};

fn schema() -> Schema {
    let entry = |k: rivus::KindBuilder| {
        k.value("user").value("start").value("stop").at_most_one("one running", ["user"], "stop", "start")
    };
    Schema::builder().kind("entry", entry).kind("note", |k| k.value("text")).build().unwrap()
}

/// Two openings of one file.
fn two(folder: &tempfile::TempDir) -> [Db; 2] {
    [0, 1]
        .map(|_| Db::builder().schema(schema()).project("entry").open(folder.path().join("app.db")).unwrap())
}

fn put(db: &Db, id: &str) {
    db.put("note", id, [("text", "x".into())]).unwrap();
}

async fn next(events: &mut Subscription) -> Event {
    tokio::time::timeout(Duration::from_secs(20), events.next()).await.unwrap().unwrap().unwrap()
}

/// Everything that is heard of notes up to the last.
async fn heard(events: &mut Subscription) -> Vec<(String, Origin)> {
    let mut all = Vec::new();
    loop {
        let Event::Changed { id, origin, .. } = next(events).await else { continue };
        all.push((id.clone(), origin));
        if id == "last" {
            return all;
        }
    }
}

#[tokio::test]
async fn a_subscriber_hears_once_what_each_opening_of_the_file_commits() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = two(&folder);
    put(&one, "before");
    let (mut of_one, mut of_other) = (one.subscribe(), other.subscribe());
    put(&one, "a");
    put(&other, "b");
    put(&one, "c");
    put(&one, "d");
    put(&other, "last");
    let mut at_other = heard(&mut of_other).await;
    // Its own are told at once, what the other committed when that is noticed.
    one.put("note", "last", [("text", "y".into())]).unwrap();
    at_other.extend(heard(&mut of_other).await);
    let at_one = heard(&mut of_one).await;
    let (local, elsewhere) = (Origin::Local, Origin::OtherProcess);
    let named = |all: &[(&str, Origin)]| all.iter().map(|(id, o)| ((*id).to_owned(), *o)).collect::<Vec<_>>();
    let expected = [("b", local), ("last", local), ("a", elsewhere), ("c", elsewhere), ("d", elsewhere)];
    let (head, tail) = at_other.split_at(2);
    assert_eq!(head, named(&expected[..2]));
    let mut tail: Vec<_> = tail.to_vec();
    assert_eq!(tail.pop(), Some(("last".to_owned(), elsewhere)));
    assert_eq!(tail, named(&expected[2..]));
    assert_eq!(at_one.first(), Some(&("a".to_owned(), local)));
    assert!(!at_one.contains(&("a".to_owned(), elsewhere)) && !at_one.iter().any(|(id, _)| id == "before"));
}

#[tokio::test]
async fn when_a_sync_last_succeeded_is_known_after_a_restart_and_to_other_processes() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Db::memory(schema()).unwrap();
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await.unwrap();
    let [one, other] = two(&folder);
    put(&one, "a");
    assert_eq!(one.sync_state().unwrap().last_success, None);
    one.sync(&served.url().into()).await.unwrap();
    let success = one.sync_state().unwrap().last_success;
    assert!(success.is_some());
    assert_eq!(other.sync_state().unwrap().last_success, success);
    // With nobody there.
    served.shutdown().await;
    drop((one, other));
    let [one, _other] = two(&folder);
    assert_eq!(one.sync_state().unwrap().last_success, success);
    let connection = one.connect("ws://127.0.0.1:9".into());
    let mut states = connection.states();
    let state = states.wait_for(|state| state.phase == Phase::Waiting && state.last_success.is_some()).await;
    assert_eq!(state.unwrap().last_success, success);
}

#[tokio::test]
async fn a_query_runs_again_when_another_process_makes_a_rule_show_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = two(&folder);
    let start = |db: &Db, id: &str, at: i64| {
        db.put("entry", id, [("user", "u".into()), ("start", at.into()), ("stop", rivus::Value::Null)])
            .unwrap();
    };
    start(&one, "a", 1);
    let mut events = other.subscribe();
    let sql = "SELECT id FROM view_entry WHERE stop IS NULL ORDER BY id";
    let mut running = other.subscribe_query(&["entry"], sql, []).unwrap();
    let mut found = async || {
        let found = tokio::time::timeout(Duration::from_secs(20), running.next()).await;
        found.unwrap().unwrap().unwrap().rows
    };
    assert_eq!(found().await, [["a".to_owned().into()]]);
    start(&one, "b", 2);
    assert_eq!(found().await, [["b".to_owned().into()]]);
    let changed = Event::Changed { kind: "entry".into(), id: "b".into(), origin: Origin::OtherProcess };
    assert_eq!(next(&mut events).await, changed);
    assert_eq!(next(&mut events).await, Event::Swayed { kind: "entry".into() }, "`a` is shown stopped now");
}

#[tokio::test]
async fn who_looks_for_others_holds_no_database_open() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = two(&folder);
    let mut events = one.subscribe();
    put(&other, "a");
    assert!(matches!(next(&mut events).await, Event::Changed { origin: Origin::OtherProcess, .. }));
    drop(one);
    while let Some(event) = tokio::time::timeout(Duration::from_secs(20), events.next()).await.unwrap() {
        assert!(event.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_syncs_and_fetches_when_asked_and_leads_when_the_leader_closes() -> Result {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = two(&folder);
    let hub = Db::memory(schema())?;
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let leader = one.connect(served.url().into());
    leader.synced().await?;
    let follower = other.connect(served.url().into());
    let mut states = follower.states();
    states.wait_for(|state| state.phase == Phase::Following).await.unwrap();
    put(&other, "a");
    follower.synced().await?;
    assert!(hub.view("note", "a")?.is_some());
    other.evict(&[("note", "a")])?;
    assert_eq!(follower.fetch(&[("note", "a")]).await?.entities, 1);
    assert_eq!(follower.state().phase, Phase::Following);
    leader.close().await;
    states.wait_for(|state| state.connected).await.unwrap();
    follower.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_paused_leaves_the_connection_to_others_and_these_count_what_is_pending() -> Result {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = two(&folder);
    let hub = Db::memory(schema())?;
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let leader = one.connect(served.url().into());
    leader.synced().await?;
    let follower = other.connect(served.url().into());
    let mut states = follower.states();
    states.wait_for(|state| state.phase == Phase::Following).await.unwrap();
    let held = (one.pause_uploads(), other.pause_uploads());
    put(&other, "a");
    states.wait_for(|state| state.phase == Phase::Following && state.pending == 1).await.unwrap();
    drop(held);
    let frozen = one.freeze().await;
    states.wait_for(|state| state.phase == Phase::Live && state.synced).await.unwrap();
    drop(frozen);
    let mut states = leader.states();
    states.wait_for(|state| state.phase == Phase::Following).await.unwrap();
    Ok(())
}

type Result = std::result::Result<(), rivus::Error>;
