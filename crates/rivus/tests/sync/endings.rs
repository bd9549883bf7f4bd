//! How syncs end that do not get to their end, and what is said of them.

use super::*;

/// Somebody who takes the call and never says a word.
async fn mute() -> (TcpListener, Remote) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let remote = Remote::new(format!("ws://{}", listener.local_addr().unwrap()));
    (listener, remote)
}

/// Longer than what is waited for needs, shorter than what it must not wait for.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_the_hub_ends_in_order_is_no_success() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    a.pull_once(&to(&served), None, None).await.ok()?;
    let before = a.sync_state()?.last_success;
    let way = Gateway::to(&served, 2, Some(goaway(Code::CLOSED, Some(2000)))).await;
    put(&a, "t", "x");
    let report = a.sync_once(&way.remote()).await;
    adds_up(&report);
    let error = report.error.unwrap();
    assert_eq!((error.class(), error.retry_after()), (ErrorClass::Offline, Some(Duration::from_secs(2))));
    assert_eq!(report.pushed.deferred, 1);
    assert_eq!(a.run_once(&way.remote(), LONG).await, Background::Failed);
    assert_eq!((a.sync_state()?.last_success, before), (None, None));
    assert_eq!(a.run_once(&way.remote(), LONG).await, Background::NoData);
    assert!(a.sync_state()?.last_success.is_some() && has(&hub, "t"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guard_leaves_out_of_a_round_is_told_to_who_wanted_it() -> Result {
    let (hub, a) = (open(), open());
    let (served, remote) = (serve(&hub).await, Remote::new);
    let remote = remote(served.url());
    a.sync(&remote).await?;
    let before = a.sync_state()?.last_success;
    put(&a, "t", "x");
    put(&hub, "h", "x");
    let paused = a.pause_downloads();
    let report = a.sync_once(&remote).await;
    adds_up(&report);
    assert_eq!((report.pushed.accepted, report.error), (1, Some(SyncError::Paused)));
    put(&a, "u", "x");
    assert_eq!(a.run_once(&remote, LONG).await, Background::Partial);
    assert_eq!(a.run_once(&remote, LONG).await, Background::Failed);
    assert_eq!(a.sync_state()?.last_success, before);
    let (push, pull) = tokio::join!(a.push_once(&remote), a.pull_once(&remote, None, None));
    assert_eq!((push.error, pull.error), (None, Some(SyncError::Paused)));
    assert!(!has(&a, "h"));
    drop(paused);
    assert_eq!(a.run_once(&remote, LONG).await, Background::NewData);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guard_ends_while_it_dials_says_so_and_is_not_waited_for() -> Result {
    let (hub, a) = (open(), open());
    a.sync(&to(&serve(&hub).await)).await?;
    let (listener, remote) = mute().await;
    put(&a, "t", "x");
    let round = tokio::spawn({
        let (a, remote) = (a.clone(), remote.clone());
        async move { a.sync_once(&remote).await }
    });
    let _connection = a.connect(remote);
    let _calls = (listener.accept().await.unwrap(), listener.accept().await.unwrap());
    let frozen =
        tokio::time::timeout(SOON, a.freeze()).await.expect("nobody is waited for that says nothing");
    let report = round.await.unwrap();
    assert_eq!((report.pushed.deferred, report.error), (1, Some(SyncError::Paused)));
    drop(frozen);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_tokens_that_never_answers_holds_up_neither_the_end_nor_a_freeze() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let (asked, mut is_asked) = watch::channel(0);
    let remote = to(&served).token_source(move || {
        asked.send_modify(|asked| *asked += 1);
        std::future::pending()
    });
    let connection = a.connect(remote);
    is_asked.wait_for(|asked| *asked == 1).await.unwrap();
    drop(tokio::time::timeout(SOON, a.freeze()).await.expect("frozen"));
    is_asked.wait_for(|asked| *asked == 2).await.unwrap();
    tokio::time::timeout(SOON, connection.close()).await.expect("closed");
    Ok(())
}

/// Grants what ends soon.
#[derive(Debug)]
struct Brief;

impl rivus::Authenticator for Brief {
    fn authenticate(
        &self,
        token: Option<&str>,
        now: rivus::Millis,
    ) -> std::result::Result<rivus::Grant, rivus::Denial> {
        let token = token.ok_or_else(|| rivus::Denial::unauthorised("show a token"))?;
        let last = token == "token 3";
        let expires = (!last).then_some(rivus::Millis(now.0 + 500));
        Ok(rivus::Grant { subject: "ann".to_owned(), expires, ..rivus::Grant::default() })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_token_is_shown_before_the_grant_ends_and_the_connection_stays() -> Result {
    let (hub, a) = (open(), open());
    let served = hub.serve("127.0.0.1:0", HubOptions::closed().authenticator(Brief)).await?;
    let way = Gateway::to(&served, 0, None).await;
    let (asked, mut is_asked) = watch::channel(0);
    let remote = way.remote().token_source(move || {
        asked.send_modify(|asked| *asked += 1);
        let token = format!("token {}", *asked.borrow());
        async { Ok(token) }
    });
    let connection = a.connect(remote);
    connection.synced().await?;
    is_asked.wait_for(|asked| *asked == 3).await.unwrap();
    put(&a, "t", "x");
    connection.synced().await?;
    assert!(has(&hub, "t"));
    assert_eq!(way.count(), 1, "all on one connection");
    Ok(())
}

/// On one thread, where nothing happens between two steps of a session.
#[tokio::test]
async fn a_periodic_device_is_synced_while_it_rests() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    a.set_levers(|levers| levers.mode = Mode::Periodic { every: LONG });
    put(&a, "t", "x");
    let connection = a.connect(to(&served));
    tokio::time::timeout(SOON, connection.synced()).await.expect("within a round")?;
    let mut states = connection.states();
    let state =
        states.wait_for(|state| state.phase == Phase::Idle && !state.connected).await.unwrap().clone();
    assert!(state.synced && state.up_to.is_some(), "{state:?}");
    put(&a, "u", "x");
    let state = states.wait_for(|state| state.pending == 1).await.unwrap().clone();
    assert!(!state.synced, "{state:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fetches_nothing_is_never_synced() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    a.sync(&to(&served)).await?;
    put(&hub, "h", "x");
    let paused = a.pause_downloads();
    let connection = a.connect(to(&served));
    let mut states = connection.states();
    states.wait_for(|state| state.phase == Phase::Idle && state.why.is_none()).await.unwrap();
    let edited = put(&a, "t", "x");
    while a.delivery(&edited)? != Delivery::Durable {
        let state = states.borrow_and_update().clone();
        assert!(!state.synced && state.up_to.is_none(), "{state:?}");
        states.changed().await.unwrap();
    }
    drop(paused);
    states.wait_for(|state| state.synced).await.unwrap();
    assert!(has(&a, "h"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_counts_for_the_connection_that_is_there() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let connection = a.connect(to(&served));
    connection.synced().await?;
    a.set_levers(|levers| levers.budget = Some(Budget { bytes: 1, per: LONG }));
    let mut states = connection.states();
    states.wait_for(|state| state.why == Some(Why::Budget)).await.unwrap();
    put(&a, "t", "x");
    states.wait_for(|state| state.pending == 1).await.unwrap();
    assert!(!has(&hub, "t"));
    a.set_levers(|levers| levers.budget = Some(Budget { bytes: 1 << 30, per: Duration::MAX }));
    states.wait_for(|state| state.synced).await.unwrap();
    assert!(has(&hub, "t"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lever_of_the_longest_time_there_is_means_never() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let (quiet, most) = (Duration::MAX, Duration::MAX);
    a.set_levers(|levers| {
        levers.mode = Mode::Periodic { every: Duration::MAX };
        levers.debounce = Some(Debounce { quiet, most });
        levers.budget = Some(Budget { bytes: 1 << 30, per: Duration::MAX });
    });
    let connection = a.connect(to(&served));
    let mut states = connection.states();
    states.wait_for(|state| state.phase == Phase::Idle && state.synced).await.unwrap();
    put(&a, "t", "x");
    states.wait_for(|state| state.pending == 1 && state.phase == Phase::Idle).await.unwrap();
    a.set_levers(|levers| levers.mode = Mode::Live);
    states.wait_for(|state| state.phase == Phase::Live && state.synced).await.unwrap();
    put(&a, "u", "x");
    put(&hub, "h", "x");
    until(&a, || has(&a, "h")).await;
    assert!(has(&hub, "t") && !has(&hub, "u"), "it waits for ever");
    a.set_levers(|levers| levers.debounce = None);
    states.wait_for(|state| state.synced).await.unwrap();
    assert!(has(&hub, "u"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_are_held_towards_a_peer_too() -> Result {
    let (one, a) = (open(), open());
    let served = one.serve("127.0.0.1:0", HubOptions::open().as_peer()).await?;
    let connection = a.connect(to(&served));
    connection.synced().await?;
    let paused = a.pause_uploads();
    put(&a, "t", "x");
    put(&one, "h", "x");
    until(&a, || has(&a, "h")).await;
    let mut states = connection.states();
    states.wait_for(|state| !state.synced).await.unwrap();
    assert!(!has(&one, "t"));
    drop(paused);
    until(&one, || has(&one, "t")).await;
    let pulled = a.pull_once(&to(&served), None, None).await;
    assert_eq!(pulled.error, None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_edit_is_never_told_durable_and_a_retry_leaves_what_was_written_since() -> Result {
    let (hub, a) = (open(), open());
    let options = HubOptions::closed().grant_as("ann", "boss", 9).grant_as("ann", "plain", 0);
    let served = hub.serve("127.0.0.1:0", options).await?;
    let (boss, plain) = (to(&served).token("boss"), to(&served).token("plain"));
    a.sync(&boss).await?;
    let discarded = put(&a, "t", "x");
    let anew = put(&a, "u", "x");
    let retried = a.put("task", "v", [("title", "old".into()), ("note", "n".into())])?;
    a.sync_once(&plain).await;
    let rejections = a.rejections()?;
    assert_eq!(rejections.len(), 3);
    a.discard_rejected(rejections[0].key)?;
    let later = put(&a, "u", "y");
    put(&a, "v", "new");
    a.retry_rejected(rejections[2].key)?;
    a.sync(&plain).await?;
    for edited in [&discarded, &anew, &retried] {
        assert_eq!(a.delivery(edited)?, Delivery::Rejected);
    }
    assert_eq!(a.delivery(&later)?, Delivery::Durable);
    let shown = hub.view("task", "v")?.unwrap();
    assert_eq!(
        serde_json::to_value(&shown.fields).unwrap(),
        serde_json::json!({"title": "new", "note": "n"})
    );
    Ok(())
}
