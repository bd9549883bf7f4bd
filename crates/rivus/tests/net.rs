//! Databases that sync over real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use rivus::{
    Access, Db, Entity, Error, Event, HubOptions, OnGone, Origin, Phase, Presence, Remote, Schema, Shown,
    SyncError, Value,
};

type Result<T = ()> = std::result::Result<T, Error>;

fn open() -> Db {
    let schema =
        Schema::builder().kind("task", |kind| kind.open().value("title").counter("views").set("tags"));
    Db::memory(schema.build().unwrap()).unwrap()
}

fn put(db: &Db, id: &str, field: &str, value: &str) {
    db.put("task", id, [(field, value.into())]).unwrap();
}

fn shown(db: &Db, id: &str) -> String {
    serde_json::to_string(&db.view("task", id).unwrap().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_and_a_hub_converge() -> Result {
    let (hub, a, b) = (open(), open(), open());
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let remote = Remote::new(served.url());
    put(&a, "t", "title", "from a");
    for n in 0..2000 {
        put(&b, &format!("b{n}"), "title", "a text that compresses well, as texts do");
    }
    a.sync(&remote).await?;
    let report = b.sync(&remote).await?;
    assert!(report.pulled.received >= 2);
    a.sync(&remote).await?;
    put(&a, "t", "note", "one");
    put(&b, "t", "title", "two");
    a.sync(&remote).await?;
    b.sync(&remote).await?;
    let report = a.sync(&remote).await?;
    assert!(report.is_authority && !report.diverged);
    assert_eq!(shown(&a, "t"), r#"{"note":"one","title":"two"}"#);
    let digests = [&a, &b, &hub].map(|db| db.status().unwrap().digest);
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    served.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_edit_reaches_the_other_device_and_its_subscribers() -> Result {
    let (hub, a, b) = (open(), open(), open());
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let (to_a, to_b) = (a.connect(served.url().as_str().into()), b.connect(served.url().as_str().into()));
    let mut events = b.subscribe();
    put(&a, "t", "title", "live");
    to_a.synced().await?;
    let event = events.next().await.unwrap().unwrap();
    let Event::Changed { id, origin: Origin::Remote(_), .. } = event else { panic!("{event:?}") };
    assert_eq!(id, "t");
    assert_eq!(shown(&b, "t"), r#"{"title":"live"}"#);
    to_b.synced().await?;
    to_a.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_redials_when_the_hub_comes_back() -> Result {
    let (hub, a) = (open(), open());
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let (address, url) = (served.address().to_string(), served.url());
    let connection = a.connect(url.as_str().into());
    put(&a, "t", "title", "one");
    connection.synced().await?;
    served.shutdown().await;
    put(&a, "t", "title", "two");
    let mut states = connection.states();
    states.wait_for(|state| state.phase == Phase::Waiting).await.unwrap();
    let served = hub.serve(&address, HubOptions::open()).await?;
    connection.synced().await?;
    assert_eq!(shown(&hub, "t"), r#"{"title":"two"}"#);
    drop(served);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_sync_without_an_authority() -> Result {
    let (a, b) = (open(), open());
    let served = b.serve("127.0.0.1:0", HubOptions::open().as_peer()).await?;
    put(&a, "t", "title", "a");
    put(&b, "u", "title", "b");
    let report = a.sync(&served.url().as_str().into()).await?;
    assert!(!report.is_authority);
    assert_eq!(a.status()?.digest, b.status()?.digest);
    let connection = a.connect(served.url().as_str().into());
    put(&a, "t", "note", "live");
    connection.synced().await?;
    assert_eq!(shown(&b, "t"), r#"{"note":"live","title":"a"}"#);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_or_listened_on_says_so() -> Result {
    let a = open();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    let taken = a.serve(&address, HubOptions::open()).await.map(|_| ());
    assert!(matches!(&taken, Err(Error::Sync(SyncError::Listen { .. }))), "{taken:?}");
    drop(free);
    let down = a.sync(&Remote::new(format!("ws://{address}"))).await;
    assert!(matches!(&down, Err(Error::Sync(SyncError::Unreachable { .. }))), "{down:?}");
    let wrong = a.sync(&Remote::new("http://localhost")).await;
    assert!(matches!(&wrong, Err(Error::Sync(SyncError::BadAddress { .. }))), "{wrong:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_hub_wants_a_token_and_a_refused_connection_stops() -> Result {
    let (hub, a) = (open(), open());
    let served = hub.serve("127.0.0.1:0", HubOptions::closed().grant("secret", 7)).await?;
    let refused = a.sync(&served.url().as_str().into()).await.unwrap_err();
    assert!(refused.to_string().contains("UNAUTHORISED"), "{refused}");
    let connection = a.connect(Remote::new(served.url()).token("wrong"));
    let stopped = connection.synced().await.unwrap_err();
    assert!(stopped.to_string().contains("UNAUTHORISED"), "{stopped}");
    a.sync(&Remote::new(served.url()).token("secret")).await?;
    assert_eq!(a.status()?.authority.map(|authority| authority.rank), Some(7));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_from_strangers_leaves_the_hub_serving() -> Result {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_tungstenite::tungstenite::Message;
    let (hub, a) = (open(), open());
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let mut raw = tokio::net::TcpStream::connect(served.address()).await.unwrap();
    raw.write_all(b"this is no websocket at all\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = raw.read_to_end(&mut answer).await;
    for junk in [vec![], vec![1], vec![7, 0, 0], vec![0, 0xff, 0xff, 0xff, 0x7f, 1], vec![66; 100]] {
        let (mut socket, _) = tokio_tungstenite::connect_async(served.url()).await.unwrap();
        futures_util::SinkExt::send(&mut socket, Message::Binary(junk.clone().into())).await.unwrap();
        // The hub says why and closes.
        while let Some(Ok(_)) = socket.next().await {}
    }
    put(&a, "t", "title", "still there");
    a.sync(&served.url().as_str().into()).await?;
    assert_eq!(shown(&hub, "t"), r#"{"title":"still there"}"#);
    Ok(())
}

#[derive(Entity, Clone, Debug, Default, PartialEq)]
struct Note {
    #[rivus(id)]
    id: String,
    title: String,
    text: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_saved_after_a_sync_keeps_what_came_with_it() -> Result {
    let open = || Db::builder().entity::<Note>().memory();
    let (hub, a, b) = (open()?, open()?, open()?);
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let remote = Remote::new(served.url());
    a.insert(&Note { id: "n".into(), ..Note::default() })?;
    a.sync(&remote).await?;
    b.sync(&remote).await?;
    let loaded = a.get::<Note>("n")?.unwrap();
    b.edit::<Note>("n", |note| note.text = "from b".into())?;
    b.sync(&remote).await?;
    a.sync(&remote).await?;
    let form = Note { title: "from a".into(), ..loaded.clone() };
    let saved = a.save(&loaded, &form)?;
    assert_eq!(saved.underneath.iter().map(|changed| &changed.field[..]).collect::<Vec<_>>(), ["text"]);
    a.sync(&remote).await?;
    b.sync(&remote).await?;
    let expected = Some(Note { text: "from b".into(), ..form });
    for db in [&a, &b, &hub] {
        assert_eq!(db.get::<Note>("n")?, expected);
    }
    served.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_evicts_it_fetches_again_over_a_socket() -> Result {
    let open = || Db::builder().entity::<Note>().memory();
    let (hub, phone) = (open()?, open()?);
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let remote = Remote::new(served.url());
    let note = |id: &str| Note { id: id.into(), title: "long done".into(), text: "x".repeat(20_000) };
    phone.insert(&note("n"))?;
    phone.insert(&note("m"))?;
    assert!(matches!(phone.evict(&[("note", "n")]), Err(rivus::Error::Evict(_))), "it has met no hub");
    phone.sync(&remote).await?;
    assert_eq!(phone.evict(&[("note", "n"), ("note", "m")])?.entities, 2);
    let status = phone.status()?;
    assert_eq!((status.entities, status.evicted, status.evicted_registers), (0, 2, 4));
    assert_eq!(status.digest, hub.status()?.digest);
    assert!(phone.list::<Note>()?.is_empty());
    let refused = phone.edit::<Note>("n", |note| note.title.clear());
    assert!(matches!(refused, Err(rivus::Error::Edit(rivus::EditError::Evicted { .. }))), "{refused:?}");
    let refused = phone.insert(&note("n"));
    assert!(matches!(refused, Err(rivus::Error::Edit(rivus::EditError::Evicted { .. }))), "{refused:?}");

    // On a connection of its own, and on one that lives.
    let fetched = phone.fetch(&remote, &[("note", "n"), ("note", "none")]).await?;
    assert_eq!((fetched.entities, fetched.missing), (1, vec![("note".to_owned(), "none".to_owned())]));
    assert_eq!(phone.get::<Note>("n")?, Some(note("n")));
    let connection = phone.connect(remote.clone());
    hub.edit::<Note>("m", |note| note.title = "not yet".into())?;
    assert_eq!(connection.fetch(&[("note", "m")]).await?.entities, 1);
    assert_eq!(phone.get::<Note>("m")?.map(|note| note.title).as_deref(), Some("not yet"));
    connection.synced().await?;
    assert_eq!(phone.status()?.digest, hub.status()?.digest);
    connection.close().await;

    // A peer hands out nothing.
    let (one, other) = (open()?, open()?);
    let peer = other.serve("127.0.0.1:0", HubOptions::open().as_peer()).await?;
    let refused = one.fetch(&Remote::new(peer.url()), &[("note", "n")]).await;
    assert!(matches!(refused, Err(rivus::Error::Sync(rivus::SyncError::CannotFetch))), "{refused:?}");
    served.shutdown().await;
    peer.shutdown().await;
    Ok(())
}

fn open_lists() -> Db {
    let note = |kind: rivus::KindBuilder| kind.value("list").scope("list").value("text");
    Db::memory(Schema::builder().kind("note", note).build().unwrap()).unwrap()
}

fn put_in(db: &Db, id: &str, list: &str) {
    db.put("note", id, [("list", list.into()), ("text", "x".into())]).unwrap();
}

fn ids(db: &Db) -> Vec<String> {
    db.views("note").unwrap().into_iter().map(|(id, _)| id).collect()
}

/// Waits for the event that an entity has come or gone.
async fn wait_for(events: &mut rivus::Subscription, id: &str, is_right: impl Fn(Origin) -> bool) {
    loop {
        let event = events.next().await.unwrap().unwrap();
        if matches!(&event, Event::Changed { id: of, origin, .. } if of == id && is_right(*origin)) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_follows_scopes_by_name_and_more_or_fewer_while_connected() -> Result {
    let (hub, phone) = (open_lists(), open_lists());
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    for (id, list) in [("h", "home"), ("w", "work"), ("g", "garden")] {
        put_in(&hub, id, list);
    }
    let mut events = phone.subscribe();
    let connection = phone.connect(Remote::new(served.url()).scopes(["home"]));
    let came = |origin| matches!(origin, Origin::Remote(_));
    wait_for(&mut events, "h", came).await;
    connection.synced().await?;
    assert_eq!(ids(&phone), ["h"]);
    connection.subscribe("work")?;
    wait_for(&mut events, "w", came).await;
    // It moves on the hub: to where it is followed, and from there.
    hub.put("note", "g", [("list", "home".into())])?;
    wait_for(&mut events, "g", came).await;
    hub.put("note", "g", [("list", "garden".into())])?;
    wait_for(&mut events, "g", |origin| origin == Origin::Left).await;
    connection.unsubscribe("home", rivus::Kept::No)?;
    wait_for(&mut events, "h", |origin| origin == Origin::Left).await;
    assert_eq!(ids(&phone), ["w"]);
    let followed: Vec<_> = phone.scopes()?.into_iter().filter(|s| s.followed).map(|s| s.name).collect();
    assert_eq!(followed, ["work"]);
    assert_eq!(hub.scopes()?.len(), 3, "nothing is deleted at the hub");
    connection.close().await;
    let whole = phone.connect(served.url().as_str().into());
    assert!(matches!(whole.subscribe("home"), Err(Error::Sync(SyncError::FollowsEverything))));
    Ok(())
}

/// Projects in areas, and tasks in lists, each of which is a scope.
fn open_tasks() -> Db {
    let schema = Schema::builder()
        .kind("project", |kind| {
            kind.value("area").scope("area").value("name").default_value("name", "unnamed")
        })
        .kind("task", |kind| {
            kind.value("list").scope("list").value("project").reference(
                "known",
                "project",
                "project",
                OnGone::Nullify,
            )
        });
    Db::memory(schema.build().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_to_what_is_in_another_scope_shows_as_it_is_and_is_fetched_on_demand() -> Result {
    let (hub, phone) = (open_tasks(), open_tasks());
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    hub.put("project", "p", [("area", "work".into())])?;
    hub.put("task", "t", [("list", "home".into()), ("project", "p".into())])?;
    hub.put("task", "u", [("list", "home".into()), ("project", "nobody".into())])?;
    let home = Remote::new(served.url()).scopes(["home"]);
    phone.sync(&home).await?;
    let project = |db: &Db, id: &str| match db.view("task", id).unwrap().unwrap().fields.get("project") {
        Some(Shown::Value(value)) => Some(value.clone()),
        _ => None,
    };
    assert_eq!(project(&phone, "t"), Some("p".into()), "it is not taken for gone");
    assert_eq!(phone.presence("project", "p")?, Presence::Referenced);
    assert_eq!(phone.view("project", "p")?, None, "nothing stands in for it, no default either");
    assert_eq!(phone.presence("project", "q")?, Presence::Absent, "nobody names it");
    let fetched = phone.fetch(&home, &[("project", "p"), ("project", "nobody")]).await?;
    assert_eq!((fetched.entities, fetched.missing.len()), (1, 1));
    assert_eq!(phone.presence("project", "p")?, Presence::Alive);
    assert_eq!(phone.view("project", "p")?, hub.view("project", "p")?);
    assert_eq!(project(&phone, "u"), Some("nobody".into()), "it may be somewhere");
    // Who has read everything knows what is not there.
    phone.sync(&served.url().as_str().into()).await?;
    assert_eq!(phone.presence("project", "nobody")?, Presence::Absent);
    assert_eq!(project(&phone, "u"), Some(Value::Null));
    assert_eq!(project(&phone, "u"), project(&hub, "u"));
    Ok(())
}

/// Lets everybody do everything with the scopes that are named, and nobody anything else.
fn within(scopes: &Arc<Mutex<BTreeSet<String>>>) -> HubOptions {
    let scopes = Arc::clone(scopes);
    let allows = move |_: &str, _: Access, scope: &str| scopes.lock().unwrap().contains(scope);
    HubOptions::open().authorizer(allows)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_sent_when_access_ended_is_listed_exported_and_done_once_it_is_back() -> Result {
    let (hub, phone) = (open_lists(), open_lists());
    let granted = Arc::new(Mutex::new(["home".to_owned(), "work".to_owned()].into()));
    let served = hub.serve("127.0.0.1:0", within(&granted)).await?;
    for (id, list) in [("h", "home"), ("w", "work")] {
        put_in(&hub, id, list);
    }
    let both = Remote::new(served.url()).scopes(["home", "work"]);
    phone.sync(&both).await?;
    assert_eq!(ids(&phone), ["h", "w"]);
    phone.put("note", "w", [("text", "unsent".into())])?;
    granted.lock().unwrap().remove("work");
    let mut events = phone.subscribe();
    let report = phone.sync(&both).await?;
    assert_eq!(report.denied, ["work"]);
    assert_eq!(report.pushed.rejected.get("SCOPE"), Some(&1));
    assert_eq!(ids(&phone), ["h"], "what was synced has left");
    let (mut denied, mut revoked) = (0, 0);
    while denied + revoked < 2 {
        match events.next().await.unwrap().unwrap() {
            Event::Denied { scope } if scope == "work" => denied += 1,
            Event::Revoked { scope, entities: 1 } if scope == "work" => revoked += 1,
            _ => {}
        }
    }
    assert_eq!((denied, revoked), (1, 1));
    let exported = serde_json::to_string(&phone.export_pending()?).unwrap();
    assert!(exported.contains("unsent"), "{exported}");
    let rejections = phone.rejections()?;
    assert_eq!((rejections.len(), rejections[0].id.as_str()), (1, "w"));
    granted.lock().unwrap().insert("work".to_owned());
    phone.sync(&both).await?;
    phone.retry_rejected(rejections[0].key)?;
    phone.sync(&both).await?;
    assert_eq!(hub.view("note", "w")?, phone.view("note", "w")?);
    assert_eq!(phone.rejections()?.len(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_are_had_from_an_authority_alone() -> Result {
    let (hub, phone) = (open_lists(), open_lists());
    let served = hub.serve("127.0.0.1:0", HubOptions::open().as_peer()).await?;
    let error = phone.sync(&Remote::new(served.url()).scopes(["home"])).await.unwrap_err();
    assert!(error.to_string().contains("from an authority alone"), "{error}");
    let many = (0..65).map(|n| n.to_string());
    let error = phone.sync(&Remote::new(served.url()).scopes(many)).await.unwrap_err();
    assert!(matches!(error, Error::Sync(SyncError::TooManyScopes(_))), "{error}");
    Ok(())
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn below(state: &mut u64, end: u64) -> usize {
    usize::try_from(random(state) % end).unwrap()
}

/// Entities with random ids and fields of several types, made some seconds apart; of a third, one field was written
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_device_reads_everything_in_at_most_12_bytes_a_register_and_nothing_in_little() -> Result {
    const ENTITIES: i64 = 2_000;
    const WORDS: [&str; 6] = ["write", "call back", "invoice", "meeting with the team", "travel", "review"];
    let seconds = Arc::new(Mutex::new(0));
    let now = Arc::clone(&seconds);
    let clock = move || rivus::Millis(1_700_000_000_000 + *now.lock().unwrap() * 1000);
    let hub = Db::builder().schema(Schema::open()).clock(clock).memory()?;
    let mut state = 7;
    let mut ids = Vec::new();
    for n in 0..ENTITIES {
        *seconds.lock().unwrap() += 3 + n % 5;
        let id = format!("{:016x}{:016x}", random(&mut state), random(&mut state));
        let phrase = |n: usize| format!("{} {}", WORDS[n % WORDS.len()], n % 1000);
        let mut fields: Vec<(String, Value)> = (0..2)
            .map(|at| (format!("text {at}"), phrase(below(&mut state, 6_000)).as_str().into()))
            .collect();
        fields.push(("done".to_owned(), Value::Bool(n % 2 == 0)));
        let numbers =
            (0..6).map(|at| (format!("n{at}"), i64::try_from(below(&mut state, 10_000)).unwrap().into()));
        fields.extend(numbers);
        hub.put("task", &id, fields.iter().map(|(name, value)| (name.as_str(), value.clone())))?;
        ids.push(id);
    }
    for id in ids.iter().step_by(3) {
        *seconds.lock().unwrap() += 2;
        hub.put("task", id, [("n0", Value::Int(-1))])?;
    }
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let phone = Db::memory(Schema::open())?;
    let report = phone.sync(&served.url().into()).await?;
    let (received, bytes) = (report.pulled.received as u64, report.bytes_received);
    assert_eq!((received, report.verified), (10 * ENTITIES.unsigned_abs(), true));
    assert!(bytes <= 12 * received, "{bytes} bytes for {received} registers");
    let report = phone.sync(&served.url().into()).await?;
    // With the handshake: ids, clocks, schemas and positions.
    assert!(report.bytes_sent <= 112 && report.bytes_received <= 112, "{report:?}");
    Ok(())
}
