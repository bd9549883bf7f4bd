use std::time::Duration;

use rivus_core::replica::Event;
use rivus_core::schema::Schema;
use rivus_core::session::{Access, By, Gate, Grants, Role, SessionOptions, Want};
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::protocol::Role as SocketRole;

use super::*;
use crate::Db;
use crate::machine::seeds;

fn session(role: Role, want: Want) -> Session {
    Session::new(SessionOptions { role, want, offers: true, seeds: seeds(), capabilities: 0 })
}

async fn pair() -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
    narrow(1 << 20).await
}

/// The two ends of a connection on whose way so many bytes have room.
async fn narrow(bytes: usize) -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
    let (one, two) = tokio::io::duplex(bytes);
    let one = WebSocketStream::from_raw_socket(one, SocketRole::Client, Some(socket_config())).await;
    (one, WebSocketStream::from_raw_socket(two, SocketRole::Server, Some(socket_config())).await)
}

fn wakes() -> (watch::Sender<u64>, watch::Sender<bool>, Wakes) {
    let ((changed, changes), (stopper, stop)) = (watch::channel(0), watch::channel(false));
    (changed, stopper, Wakes { changes, stop, asks: Arc::default() })
}

/// A side that greets, answers probes, and does nothing else. Returns the last frame that it got.
async fn sloth(db: Db, role: Role, mut socket: WebSocketStream<DuplexStream>) -> Vec<u8> {
    let mut session = session(role, Want::Live);
    let (mut last, mut greeted) = (Vec::new(), false);
    loop {
        if !greeted {
            let frame = session.poll_transmit(&mut db.lock().unwrap(), Millis(1)).unwrap();
            if let Some(frame) = frame {
                socket.send(Message::Binary(frame.into())).await.unwrap();
            }
        }
        match socket.next().await {
            Some(Ok(Message::Binary(frame))) => {
                last = frame.to_vec();
                if !greeted {
                    session.handle(&mut db.lock().unwrap(), &frame, Millis(1)).unwrap();
                    let reply = session.poll_transmit(&mut db.lock().unwrap(), Millis(1)).unwrap();
                    if let Some(reply) = reply {
                        socket.send(Message::Binary(reply.into())).await.unwrap();
                    }
                    greeted = true;
                }
            }
            Some(Ok(_)) => {}
            _ => return last,
        }
    }
}

fn is_stalled(last: &[u8]) -> bool {
    matches!(
        rivus_core::wire::Frame::decode(last),
        Ok(rivus_core::wire::Frame::Goaway { code: Code::STALLED, .. })
    )
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_answers_probes_and_nothing_else_has_stalled() {
    let (hub, phone) = (Db::memory(Schema::open()).unwrap(), Db::memory(Schema::open()).unwrap());
    hub.lock().unwrap().serve_as_authority().unwrap();
    let (one, two) = pair().await;
    let hub = tokio::spawn(sloth(hub, Role::server(Grants::everybody()), two));
    let (_changed, _stop, wakes) = wakes();
    let started = Instant::now();
    let client = session(Role::Client { token: None }, Want::Once);
    let (_, ended) = Pump::new(Arc::clone(&phone.shared), client, |_| {}).run(one, wakes).await;
    assert_eq!(ended, Err(SyncError::Stalled));
    let after = started.elapsed();
    assert!(after >= STALL_MAX && after < STALL_MAX + Duration::from_secs(5), "{after:?}");
    assert!(is_stalled(&hub.await.unwrap()), "the other side is told");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_never_sends_what_a_hub_asks_for_has_stalled() {
    let (hub, phone) = (Db::memory(Schema::open()).unwrap(), Db::memory(Schema::open()).unwrap());
    let (one, two) = pair().await;
    let device = tokio::spawn(sloth(phone, Role::Client { token: None }, one));
    let (_changed, _stop, wakes) = wakes();
    // Among peers the server reads its client.
    let server = session(Role::server(Grants::everybody()), Want::Live);
    let (_, ended) = Pump::new(Arc::clone(&hub.shared), server, |_| {}).run(two, wakes).await;
    assert_eq!(ended, Err(SyncError::Stalled));
    assert!(is_stalled(&device.await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_live_connection_with_nothing_to_do_stalls_never() {
    let (hub, phone) = (Db::memory(Schema::open()).unwrap(), Db::memory(Schema::open()).unwrap());
    hub.lock().unwrap().serve_as_authority().unwrap();
    let (one, two) = pair().await;
    let (_hub_changed, _hub_stop, hub_wakes) = wakes();
    let server = session(Role::server(Grants::everybody()), Want::Live);
    let hub_pump = Pump::new(Arc::clone(&hub.shared), server, |_| {});
    let served = tokio::spawn(async move { hub_pump.run(two, hub_wakes).await.1 });
    let (_changed, stop, wakes) = wakes();
    let client = session(Role::Client { token: None }, Want::Live);
    let (told, mut synced) = watch::channel(Synced::default());
    let listen = move |now: Synced| {
        told.send_replace(now);
    };
    let pump = Pump::new(Arc::clone(&phone.shared), client, listen);
    let ran = tokio::spawn(async move { pump.run(one, wakes).await.1 });
    synced.wait_for(|synced| synced.up_to.is_some()).await.unwrap();
    // The clock is stopped: it goes on by itself, from probe to probe.
    // Between two probes: one that is under way when the other side goes would break.
    tokio::time::sleep(STALL_MAX * 3 + PING / 2).await;
    stop.send_replace(true);
    assert_eq!(ran.await.unwrap(), Ok(Ended::Stopped));
    assert_eq!(served.await.unwrap(), Ok(Ended::Done));
}

/// A hub's side of a connection, until it ends.
fn serve(
    hub: &Db,
    socket: WebSocketStream<DuplexStream>,
) -> tokio::task::JoinHandle<Result<Ended, SyncError>> {
    let pump =
        Pump::new(Arc::clone(&hub.shared), session(Role::server(Grants::everybody()), Want::Live), |_| {});
    tokio::spawn(async move {
        let (_changed, _stop, wakes) = wakes();
        pump.run(socket, wakes).await.1
    })
}

/// It asks for everything, says now and then that it is there, and takes nothing.
#[tokio::test(start_paused = true)]
async fn who_asks_for_much_and_reads_nothing_has_stalled_and_others_are_served_meanwhile() {
    let (hub, mute, phone) = (
        Db::memory(Schema::open()).unwrap(),
        Db::memory(Schema::open()).unwrap(),
        Db::memory(Schema::open()).unwrap(),
    );
    hub.lock().unwrap().serve_as_authority().unwrap();
    for n in 0..20 {
        hub.put("task", &format!("t{n}"), [("title", "x".repeat(50_000).into())]).unwrap();
    }
    let (mut one, two) = narrow(16 << 10).await;
    let mut stalls = serve(&hub, two);
    let mut client = session(Role::Client { token: None }, Want::Live);
    for round in 0..2 {
        while let Some(frame) = client.poll_transmit(&mut mute.lock().unwrap(), Millis(1)).unwrap() {
            one.send(Message::Binary(frame.into())).await.unwrap();
        }
        if round == 0 {
            let Some(Ok(Message::Binary(welcome))) = one.next().await else { panic!("no WELCOME") };
            client.handle(&mut mute.lock().unwrap(), &welcome, Millis(1)).unwrap();
        }
    }
    assert!(client.stand().awaits, "it has asked");
    let started = Instant::now();

    let (there, here) = pair().await;
    let served = serve(&hub, here);
    let (_changed, _stop, wakes) = wakes();
    let client = session(Role::Client { token: None }, Want::Once);
    let (report, ended) = Pump::new(Arc::clone(&phone.shared), client, |_| {}).run(there, wakes).await;
    assert_eq!((ended, report.pulled.applied), (Ok(Ended::Done), 40));
    assert_eq!(served.await.unwrap(), Ok(Ended::Done));
    assert!(!stalls.is_finished() && started.elapsed() < STALL_MAX, "it waits still");

    let mut beats = tokio::time::interval(PING);
    let ended = loop {
        tokio::select! {
            ended = &mut stalls => break ended.unwrap(),
            _ = beats.tick() => one.send(Message::Ping(Vec::new().into())).await.unwrap(),
        }
    };
    assert_eq!(ended, Err(SyncError::Stalled));
    let after = started.elapsed();
    assert!(after >= STALL_MAX && after < STALL_MAX + Duration::from_secs(5), "{after:?}");
}

/// Whoever asks much and reads little is listened to only as far as the answers are read.
#[tokio::test(start_paused = true)]
async fn answers_that_are_not_read_are_bounded() {
    const SOCKET_BYTES: usize = 16 << 10;
    const ANSWER_BYTES: usize = 6;
    let hub = Db::memory(Schema::open()).unwrap();
    hub.lock().unwrap().serve_as_authority().unwrap();
    let (mut one, two) = narrow(SOCKET_BYTES).await;
    let (_changed, _stop, wakes) = wakes();
    let server = session(Role::server(Grants::nobody().grant_as("ann", "a", 0)), Want::Live);
    let pump = Pump::new(Arc::clone(&hub.shared), server, |_| {});
    let served = tokio::spawn(async move { pump.run(two, wakes).await.1 });
    let phone = Db::memory(Schema::open()).unwrap();
    let mut client = session(Role::Client { token: Some("a".to_owned()) }, Want::Live);
    let hello = client.poll_transmit(&mut phone.lock().unwrap(), Millis(1)).unwrap().unwrap();
    one.send(Message::Binary(hello.into())).await.unwrap();
    one.next().await.unwrap().unwrap();
    // A map with a token and what nobody knows and everybody skips: a long question with a short answer.
    let question = [&[16, 0xa2, 0, 0x61, b'a', 0x19, 0x03, 0xe8, 0x59, 0x0f, 0xa0][..], &[0; 4000]].concat();
    let mut unread = 0_i64;
    // Sixteen questions for each answer that is read.
    for n in 0..20_000 {
        let sent = timeout(QUIET, one.send(Message::Binary(question.clone().into()))).await;
        if sent.is_err() {
            // What the socket holds, what is taken while one is sent, and what waits.
            let most = i64::try_from(SOCKET_BYTES / ANSWER_BYTES + 16 + 64 + 16 + 8).unwrap();
            assert!(unread <= most, "{unread} of {most}");
            drop(one);
            served.await.unwrap().unwrap_err();
            return;
        }
        sent.unwrap().unwrap();
        unread += 1;
        if n % 16 == 0 && timeout(QUIET, one.next()).await.is_ok() {
            unread -= 1;
        }
    }
    panic!("{unread} answers wait, and it listens still");
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_was_denied_is_asked_for_again_and_read_once_the_right_is_there() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let schema = || Schema::builder().kind("note", |k| k.value("list").scope("list").value("text")).build();
    let (hub, phone) = (Db::memory(schema().unwrap()).unwrap(), Db::memory(schema().unwrap()).unwrap());
    hub.lock().unwrap().serve_as_authority().unwrap();
    hub.put("note", "n", [("list", "home".into()), ("text", "at last".into())]).unwrap();
    let may = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&may);
    let allows = move |_: &str, _: Access, scope: &str| scope != "home" || asked.load(Ordering::Relaxed);
    let gate = Gate::new(Grants::everybody()).authorizer(Arc::new(By(allows)));
    let (one, two) = pair().await;
    let (_hub_changed, _hub_stop, hub_wakes) = wakes();
    let server = session(Role::Server { gate: Arc::new(gate) }, Want::Live);
    let served = tokio::spawn(Pump::new(Arc::clone(&hub.shared), server, |_| {}).run(two, hub_wakes));
    let (_changed, stop, wakes) = wakes();
    let wanted = [("home".to_owned(), 0), ("work".to_owned(), 0)];
    let wakes = Wakes { asks: Arc::new(Asks::following(Some(wanted.into()))), ..wakes };
    let mut client = session(Role::Client { token: None }, Want::Live);
    client.follow_scopes(["home".to_owned(), "work".to_owned()]).unwrap();
    let mut events = phone.subscribe();
    let ran = tokio::spawn(Pump::new(Arc::clone(&phone.shared), client, |_| {}).run(one, wakes));
    let denied = Event::Denied { scope: "home".to_owned() };
    assert_eq!(events.next().await, Some(Ok(denied)));
    may.store(true, Ordering::Relaxed);
    let started = Instant::now();
    let came = events.next().await;
    assert!(matches!(&came, Some(Ok(Event::Changed { id, .. })) if id == "n"), "{came:?}");
    assert!(started.elapsed() >= DENIED_PAUSE, "not at once, and not again and again");
    stop.send_replace(true);
    assert_eq!(ran.await.unwrap().1, Ok(Ended::Stopped));
    assert_eq!(served.await.unwrap().1, Ok(Ended::Done));
}
