//! The sync engine that an application lives on: operations and their reports, state, levers, errors by class.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt, future::join_all};
use rivus::rivus_core::code::Code;
use rivus::rivus_core::wire::Frame;
use rivus::{
    Background, Budget, Db, Debounce, Delivery, Error, ErrorClass, Hub, HubOptions, Mode, Phase, Proposed,
    Refusal, Remote, Schema, SyncError, SyncReport, Value, Why,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

mod endings;
mod levers;
mod timers;

type Result<T = ()> = std::result::Result<T, Error>;

const LONG: Duration = Duration::from_secs(3600);

fn open() -> Db {
    let schema = Schema::builder().kind("task", |kind| kind.open().counter("views"));
    Db::memory(schema.build().unwrap()).unwrap()
}

fn put(db: &Db, id: &str, value: &str) -> rivus::Edited {
    db.put("task", id, [("title", value.into())]).unwrap()
}

fn has(db: &Db, id: &str) -> bool {
    db.view("task", id).unwrap().is_some()
}

/// Waits until a commit makes it true.
async fn until(db: &Db, mut done: impl FnMut() -> bool) {
    let mut events = db.subscribe();
    while !done() {
        events.next().await;
    }
}

async fn serve(hub: &Db) -> Hub {
    hub.serve("127.0.0.1:0", HubOptions::open()).await.unwrap()
}

fn to(served: &Hub) -> Remote {
    Remote::new(served.url())
}

fn adds_up(report: &SyncReport) {
    assert_eq!(report.pushed.offered, report.pushed.in_classes(), "{report:?}");
    let pulled = &report.pulled;
    assert_eq!(pulled.received, pulled.applied + pulled.own + pulled.set_aside, "{report:?}");
}

/// A way to a hub that counts who comes, and may turn the first ones away with a frame.
struct Gateway {
    url: String,
    connections: Arc<AtomicUsize>,
    came: watch::Receiver<usize>,
}

impl Gateway {
    async fn to(served: &Hub, turned_away: usize, goodbye: Option<Frame>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let (connections, target) = (Arc::new(AtomicUsize::new(0)), served.address());
        let (told, came) = watch::channel(0);
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let number = counted.fetch_add(1, Ordering::Relaxed);
                told.send_replace(number + 1);
                let goodbye = goodbye.clone().filter(|_| number < turned_away);
                tokio::spawn(async move {
                    if let Some(goodbye) = goodbye {
                        let mut socket = tokio_tungstenite::accept_async(socket).await.unwrap();
                        let _hello = socket.next().await;
                        socket.send(Message::Binary(goodbye.encode().into())).await.unwrap();
                        while let Some(Ok(_)) = socket.next().await {}
                        return;
                    }
                    let mut hub = TcpStream::connect(target).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut socket, &mut hub).await;
                });
            }
        });
        Self { url, connections, came }
    }

    fn remote(&self) -> Remote {
        Remote::new(&self.url)
    }

    fn count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn goaway(code: Code, retry_after_ms: Option<u64>) -> Frame {
    Frame::Goaway { code, message: "not now".to_owned(), retry_after_ms }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_classes_of_a_report_add_up_to_what_was_offered() -> Result {
    let (hub, a, b) = (open(), open(), open());
    let options = HubOptions::closed().grant_as("ann", "boss", 9).grant_as("ann", "plain", 0);
    let served = hub.serve("127.0.0.1:0", options).await?;
    let (boss, plain) = (to(&served).token("boss"), to(&served).token("plain"));
    put(&a, "shared", "one");
    adds_up(&a.sync_once(&boss).await);
    b.sync(&plain).await?;
    // Two under a rank that is granted no more by the time they are sent, three without, one of which loses.
    put(&a, "high1", "x");
    put(&a, "high2", "x");
    a.pull_once(&plain, None, None).await.ok()?;
    put(&a, "low1", "x");
    put(&a, "low2", "x");
    put(&a, "shared", "two");
    // Later by the clock, whatever that shows.
    b.force_set("task", "shared", [("title", "three".into())])?;
    b.sync(&plain).await?;
    let report = a.sync_once(&plain).await;
    adds_up(&report);
    let pushed = &report.pushed;
    assert_eq!((pushed.offered, pushed.accepted, pushed.superseded), (5, 2, 1), "{report:?}");
    assert_eq!(pushed.rejected, [("RANK".to_owned(), 2)].into());
    assert_eq!((pushed.blocked, pushed.deferred, pushed.settled), (0, 0, 0));
    assert_eq!((report.error.clone(), a.conflicts()?.len()), (None, 1));
    // With nobody there everything waits, and the report says both.
    served.shutdown().await;
    put(&a, "low1", "y");
    let report = a.sync_once(&plain).await;
    adds_up(&report);
    assert_eq!((report.pushed.offered, report.pushed.deferred), (1, 1));
    assert_eq!(report.error.map(|error| error.class()), Some(ErrorClass::Offline));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_fetches_nothing_and_a_pull_sends_nothing() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    a.sync(&to(&served)).await?;
    put(&a, "a", "x");
    put(&hub, "h", "x");
    let pulled = a.pull_once(&to(&served), None, None).await;
    adds_up(&pulled);
    assert_eq!((pulled.pulled.applied, pulled.pulled.more, pulled.pushed.accepted), (2, false, 0));
    assert!(has(&a, "h") && !has(&hub, "a"));
    put(&hub, "h2", "x");
    let pushed = a.push_once(&to(&served)).await;
    adds_up(&pushed);
    assert_eq!((pushed.pushed.offered, pushed.pushed.accepted, pushed.pulled.received), (1, 1, 0));
    assert!(has(&hub, "a") && !has(&a, "h2"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_stops_after_any_page_goes_on_there_and_the_sender_says_when_there_is_no_more() -> Result
{
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let text = "x".repeat(60_000);
    for n in 0..30 {
        put(&hub, &format!("h{n}"), &text);
    }
    let (mut pulls, mut received, mut position) = (0, 0, 0);
    loop {
        let report = a.pull_once(&to(&served), Some(1), None).await;
        adds_up(&report);
        let report = report.ok()?;
        assert!(report.pulled.position > position, "it goes on: {report:?}");
        (pulls, position) = (pulls + 1, report.pulled.position);
        received += report.pulled.received;
        if !report.pulled.more {
            break;
        }
    }
    assert!(pulls > 4, "{pulls}");
    assert_eq!(received, 60, "nothing came twice");
    assert_eq!(a.status()?.digest, hub.status()?.digest);
    // Up to a position that the hub had.
    let until = hub.status()?.seq + 1;
    for n in 0..30 {
        put(&hub, &format!("h{n}"), &format!("{text}y"));
    }
    let report = a.pull_once(&to(&served), None, Some(until)).await.ok()?;
    assert!(report.pulled.more && report.pulled.position >= until && report.pulled.received < 30);
    a.pull_once(&to(&served), None, None).await.ok()?;
    assert_eq!(a.status()?.digest, hub.status()?.digest);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_once_make_one_round_and_at_most_one_more() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    a.sync(&to(&served)).await?;
    put(&hub, "h", "x");
    let way = Gateway::to(&served, 0, None).await;
    put(&a, "t", "x");
    let remote = way.remote();
    let reports = join_all((0..40).map(|n| {
        let (a, remote) = (a.clone(), remote.clone());
        async move {
            match n % 3 {
                0 => a.sync_once(&remote).await,
                1 => a.push_once(&remote).await,
                _ => a.pull_once(&remote, Some(1), None).await,
            }
        }
    }))
    .await;
    for report in &reports {
        adds_up(report);
        assert_eq!(report.error, None);
    }
    assert_eq!(way.count(), 2, "one round, and one for all who came while it ran");
    assert!(has(&hub, "t") && has(&a, "h"));
    Ok(())
}

/// On one thread, so that all calls are made before the first round is over.
#[tokio::test]
async fn a_write_made_during_a_sync_goes_with_exactly_one_more_round() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    a.sync(&to(&served)).await?;
    let way = Gateway::to(&served, 0, None).await;
    put(&a, "t", "x");
    let (remote, one) = (way.remote(), a.clone());
    let first = tokio::spawn({
        let remote = remote.clone();
        async move { one.sync_once(&remote).await }
    });
    way.came.clone().wait_for(|came| *came > 0).await.unwrap();
    put(&a, "u", "x");
    // However many ask after the write.
    join_all((0..8).map(|_| a.sync_once(&remote))).await;
    let first = first.await.unwrap();
    adds_up(&first);
    assert!(has(&hub, "t") && has(&hub, "u"));
    assert!(way.count() <= 2, "{} rounds", way.count());
    assert_eq!(a.sync_state()?.pending, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_says_what_is_pending_and_synced_only_when_nothing_is() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    a.sync(&to(&served)).await?;
    let pause = a.pause_uploads();
    let connection = a.connect(to(&served));
    let mut states = connection.states();
    states.wait_for(|state| state.synced).await.unwrap();
    let edited = put(&a, "t", "x");
    put(&a, "u", "x");
    let state = states.wait_for(|state| state.pending == 2).await.unwrap().clone();
    assert!(!state.synced && state.connected && state.pending_since.is_some(), "{state:?}");
    assert_eq!(a.delivery(&edited)?, Delivery::Local);
    put(&hub, "h", "x");
    until(&a, || has(&a, "h")).await;
    assert!(!has(&hub, "t") && !states.borrow().synced, "edits are held back, changes come");
    drop(pause);
    let state = states.wait_for(|state| state.synced).await.unwrap().clone();
    assert_eq!((state.pending, state.pending_since, state.phase), (0, None, Phase::Live));
    assert!(state.last_success.is_some() && has(&hub, "t"));
    assert_eq!(a.delivery(&edited)?, Delivery::Durable);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_downloads_paused_edits_go_and_nothing_comes() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    a.sync(&to(&served)).await?;
    let pause = a.pause_downloads();
    let connection = a.connect(to(&served));
    let mut states = connection.states();
    put(&hub, "h", "x");
    let edited = put(&a, "t", "x");
    while a.delivery(&edited)? != Delivery::Durable {
        states.changed().await.unwrap();
    }
    assert!(has(&hub, "t") && !has(&a, "h"));
    drop(pause);
    connection.synced().await?;
    until(&a, || has(&a, "h")).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_nothing_moves_until_thawed() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let connection = a.connect(to(&served));
    connection.synced().await?;
    let mut states = connection.states();
    let frozen = a.freeze().await;
    put(&a, "t", "x");
    put(&hub, "h", "x");
    states.wait_for(|state| state.phase == Phase::Paused).await.unwrap();
    assert_eq!(states.borrow().why, Some(Why::Paused));
    assert_eq!(a.sync_once(&to(&served)).await.error, Some(SyncError::Paused));
    assert_eq!(a.run_once(&to(&served), LONG).await, Background::Failed);
    assert!(!has(&hub, "t") && !has(&a, "h"));
    drop(frozen);
    connection.synced().await?;
    states.wait_for(|state| state.synced).await.unwrap();
    assert!(has(&hub, "t") && has(&a, "h"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_periodic_device_keeps_edits_for_the_round_and_live_ones_for_the_end_of_typing() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let way = Gateway::to(&served, 0, None).await;
    a.set_levers(|levers| levers.mode = Mode::Periodic { every: LONG });
    let connection = a.connect(way.remote());
    let mut states = connection.states();
    states.wait_for(|state| state.phase == Phase::Idle && state.last_success.is_some()).await.unwrap();
    put(&a, "t", "x");
    states.wait_for(|state| state.pending == 1 && state.phase == Phase::Idle).await.unwrap();
    assert_eq!((way.count(), has(&hub, "t")), (1, false));
    // By hand it goes at once.
    connection.nudge();
    states.wait_for(|state| state.pending == 0 && state.phase == Phase::Idle).await.unwrap();
    assert!(has(&hub, "t"));
    // Live, but edits wait for an hour of quiet.
    a.set_levers(|levers| {
        levers.mode = Mode::Live;
        levers.debounce = Some(Debounce { quiet: LONG, most: LONG });
    });
    states.wait_for(|state| state.phase == Phase::Live && state.synced).await.unwrap();
    put(&a, "u", "x");
    states.wait_for(|state| state.pending == 1).await.unwrap();
    put(&hub, "h", "x");
    until(&a, || has(&a, "h")).await;
    assert!(!has(&hub, "u"), "a page passed, the edit waits");
    let (quiet, most) = (LONG, Duration::from_millis(1));
    a.set_levers(|levers| levers.debounce = Some(Debounce { quiet, most }));
    states.wait_for(|state| state.synced).await.unwrap();
    assert!(has(&hub, "u"), "the longest wait counts, too");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_used_up_its_bytes_waits_for_the_next_period() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    for n in 0..8 {
        let text: String = (0..6000).map(|_| rivus::new_id()).collect();
        put(&hub, &format!("h{n}"), &text);
    }
    a.set_levers(|levers| levers.budget = Some(Budget { bytes: 40_000, per: LONG }));
    let connection = a.connect(to(&served));
    let mut states = connection.states();
    states.wait_for(|state| state.why == Some(Why::Budget)).await.unwrap();
    assert!(has(&a, "h0") && !has(&a, "h7"));
    a.set_levers(|levers| levers.budget = None);
    states.wait_for(|state| state.synced).await.unwrap();
    assert_eq!(a.status()?.digest, hub.status()?.digest);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_asks_for_an_hour_gets_it_unless_somebody_asks_by_hand() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let way = Gateway::to(&served, 1, Some(goaway(Code::RATE, Some(3_600_000)))).await;
    put(&a, "t", "x");
    let connection = a.connect(way.remote());
    let mut states = connection.states();
    let state = states.wait_for(|state| state.phase == Phase::Waiting).await.unwrap().clone();
    let error = state.error().unwrap();
    assert_eq!((error.class(), error.retry_after()), (ErrorClass::RateLimited, Some(LONG)));
    assert_eq!(way.count(), 1);
    connection.nudge();
    connection.synced().await?;
    assert!(has(&hub, "t"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_is_fetched_anew_once() -> Result {
    let (hub, a) = (open(), open());
    let served = hub.serve("127.0.0.1:0", HubOptions::closed().grant("good", 3)).await?;
    let source = |token: &'static str| {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let source = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async move { Ok(token.to_owned()) }
        };
        (source, calls)
    };
    let (fresh, calls) = source("good");
    let remote = to(&served).token("stale").token_source(fresh);
    a.sync(&remote).await?;
    a.sync(&remote).await?;
    assert_eq!(calls.load(Ordering::Relaxed), 1, "what it gave is kept");
    let (useless, calls) = source("bad");
    let connection = a.connect(to(&served).token_source(useless));
    let stopped = connection.synced().await.unwrap_err();
    assert!(stopped.to_string().contains("UNAUTHORISED"), "{stopped}");
    assert_eq!(calls.load(Ordering::Relaxed), 2, "to begin with, and once more");
    let failing = to(&served).token_source(|| async { Err("no network".to_owned()) });
    let error = a.sync_once(&failing).await.error.unwrap();
    assert_eq!(
        (error.class(), error),
        (ErrorClass::Offline, SyncError::Token { reason: "no network".to_owned() })
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_the_background_says_what_came_of_it() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let remote = to(&served);
    assert_eq!(a.run_once(&remote, LONG).await, Background::NoData);
    put(&hub, "h", "x");
    assert_eq!(a.run_once(&remote, LONG).await, Background::NewData);
    put(&a, "t", "x");
    // Somebody who takes the call and never says a word.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = Remote::new(format!("ws://{}", mute.local_addr().unwrap()));
    assert_eq!(a.run_once(&nobody, Duration::from_millis(50)).await, Background::Failed);
    assert_eq!(a.run_once(&remote, LONG).await, Background::NoData, "nothing new came");
    assert!(has(&hub, "t"));
    served.shutdown().await;
    assert_eq!(a.run_once(&remote, LONG).await, Background::Failed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_is_retried_or_discarded_and_exported_meanwhile() -> Result {
    let (hub, a) = (open(), open());
    let served = hub
        .serve("127.0.0.1:0", HubOptions::closed().grant_as("ann", "boss", 9).grant_as("ann", "plain", 0))
        .await?;
    let (boss, plain) = (to(&served).token("boss"), to(&served).token("plain"));
    a.sync(&boss).await?;
    put(&a, "t", "x");
    put(&a, "u", "x");
    let edited = put(&a, "v", "x");
    let report = a.sync_once(&plain).await;
    assert_eq!((report.pushed.rejected.get("RANK"), report.error), (Some(&3), None), "a refusal is no error");
    assert_eq!(a.delivery(&edited)?, Delivery::Rejected);
    let rejections = a.rejections()?;
    let found: Vec<_> = rejections.iter().map(|r| (r.code, r.id.as_str(), r.field.as_deref())).collect();
    assert_eq!(found, ["t", "u", "v"].map(|id| (Code::RANK, id, Some("title"))));
    assert!(!has(&a, "t"), "it was taken back");
    let json = serde_json::to_value(a.export_pending()?).unwrap();
    assert_eq!(json["rejected"][0]["ops"][0]["action"]["put"]["title"], "x", "{json}");
    a.retry_rejected(rejections[0].key)?;
    assert!(a.discard_rejected(rejections[1].key)?);
    put(&a, "v", "y");
    assert!(a.rejections()?.is_empty());
    assert_eq!(serde_json::to_value(a.export_pending()?).unwrap()["pending"].as_array().unwrap().len(), 2);
    adds_up(&a.sync_once(&plain).await);
    assert!(has(&hub, "t") && !has(&hub, "u") && has(&hub, "v"));
    assert_eq!(a.status()?.digest, hub.status()?.digest);
    Ok(())
}

/// Refuses tasks without a title that counts.
fn untitled(_: &str, edit: &Proposed<'_>) -> std::result::Result<(), Refusal> {
    let bad = edit.entities().iter().find(|task| task.field("title") == Some(&Value::from("bad")));
    bad.map_or(Ok(()), |task| Err(Refusal::of_field(task, "title", "say what is to be done")))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hub_refuses_of_before_the_first_meeting_is_told_like_any_refusal() -> Result {
    let (hub, a) = (open(), open());
    let served = hub.serve("127.0.0.1:0", HubOptions::open().validator(untitled)).await?;
    let (bad, good) = (put(&a, "t", "bad"), put(&a, "u", "x"));
    let report = a.sync_once(&to(&served)).await;
    adds_up(&report);
    assert_eq!((report.pushed.offered, report.pushed.rejected.get("INVALID")), (1, Some(&1)), "{report:?}");
    assert_eq!((report.diverged, report.error.as_ref(), report.given > 2), (false, None, true), "{report:?}");
    let rejections = a.rejections()?;
    assert_eq!((rejections.len(), rejections[0].id.as_str()), (1, "t"));
    assert_eq!((a.delivery(&bad)?, a.delivery(&good)?), (Delivery::Rejected, Delivery::Durable));
    assert!(!has(&a, "t") && has(&a, "u") && has(&hub, "u") && !has(&hub, "t"));
    assert_eq!(a.status()?.digest, hub.status()?.digest);
    // It can be put right.
    put(&a, "t", "better");
    assert!(a.rejections()?.is_empty());
    a.sync(&to(&served)).await?;
    assert!(has(&hub, "t"));
    Ok(())
}
