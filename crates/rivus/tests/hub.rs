//! A hub as those who run it see it: whom it lets in, what it bounds, what it tells, how it ends.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use rivus::rivus_core::code::Code;
use rivus::{By, Db, Denial, Error, Grant, Hub, HubOptions, Remote, Schema, SyncError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Result<T = ()> = std::result::Result<T, Error>;

fn open() -> Db {
    Db::memory(Schema::open()).unwrap()
}

fn remote(hub: &Hub) -> Remote {
    Remote::new(hub.url())
}

async fn refused(remote: &Remote) -> SyncError {
    match open().sync(remote).await {
        Err(Error::Sync(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// What is sent and what comes back until the other side closes.
async fn talk(to: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(to).await.unwrap();
    // The other side may close before it has read everything.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn get(hub: &Hub, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: hub\r\n\r\n");
    let answer = talk(hub.admin_address().unwrap(), request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    (status, body.to_owned())
}

fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_full_says_so_and_takes_others_in_when_one_has_gone() -> Result {
    let served = open().serve("127.0.0.1:0", HubOptions::open().connections_max(1)).await?;
    let first = open().connect(remote(&served));
    first.synced().await?;
    let error = refused(&remote(&served)).await;
    let SyncError::TurnedAway { code, retry_after, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*code, *retry_after), (Code::BUSY, None));
    assert!(error.is_retryable() && error.to_string().contains("as many connections"), "{error}");
    assert_eq!(metric(&served.metrics(), "rivus_turned_away_total{code=\"501\",name=\"BUSY\"}"), 1.0);
    first.close().await;
    let second = open().connect(remote(&served));
    second.synced().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_so_many_connections_and_makes_them_only_so_fast() -> Result {
    let served = open().serve("127.0.0.1:0", HubOptions::open().address_max(1, 1, 1000)).await?;
    let first = open().connect(remote(&served));
    first.synced().await?;
    let error = refused(&remote(&served)).await;
    assert!(matches!(&error, SyncError::TurnedAway { code: Code::BUSY, .. }), "{error:?}");
    assert!(error.to_string().contains("this address has"), "{error}");
    let served = open().serve("127.0.0.1:0", HubOptions::open().address_max(1000, 1, 2)).await?;
    open().sync(&remote(&served)).await?;
    open().sync(&remote(&served)).await?;
    let error = refused(&remote(&served)).await;
    let SyncError::TurnedAway { code: Code::RATE, retry_after: Some(wait), .. } = error else {
        panic!("{error:?}")
    };
    assert!(wait >= Duration::from_secs(1) && wait <= Duration::from_secs(2), "{wait:?}");
    assert_eq!(metric(&served.metrics(), "rivus_turned_away_total{code=\"503\",name=\"RATE\"}"), 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_grows_without_end_is_cut_off_before_it_is_read() -> Result {
    let served = open().serve("127.0.0.1:0", HubOptions::open()).await?;
    let line = format!("X-Pad: {}\r\n", "x".repeat(1000));
    let request = format!("GET / HTTP/1.1\r\n{}", line.repeat(40));
    assert_eq!(talk(served.address(), request.as_bytes()).await, "");
    assert_eq!(metric(&served.metrics(), "rivus_handshakes_failed_total{reason=\"websocket\"}"), 1.0);
    assert!(metric(&served.metrics(), "rivus_bytes_in_total") < 24_000.0);
    open().sync(&remote(&served)).await?;
    Ok(())
}

/// The answer to a request for a WebSocket, without its body.
async fn upgraded(to: SocketAddr, headers: &str) -> String {
    let mut socket = TcpStream::connect(to).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.contains("\r\n\r\n") {
        answer.push(char::from(socket.read_u8().await.unwrap()));
    }
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_browser_connects_only_if_its_origin_is_allowed() -> Result {
    let options = HubOptions::open().allow_origin("https://app.example.org");
    let served = open().serve("127.0.0.1:0", options).await?;
    for headers in ["", "Origin: https://app.example.org\r\n", "origin: HTTPS://app.example.org\r\n"] {
        let answer = upgraded(served.address(), headers).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{headers}: {answer}");
    }
    for headers in [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: https://app.example.org\r\nOrigin: https://evil.example\r\n",
        "Origin: https://app.example.org.evil.example\r\n",
    ] {
        let answer = upgraded(served.address(), headers).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("rivus-code: 200\r\n"), "{answer}");
    }
    let name = "rivus_handshakes_failed_total{reason=\"origin\"}";
    let counted = || served.metrics().lines().any(|line| line == format!("{name} 4"));
    let all = async {
        while !counted() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compressed_before_anybody_has_said_hello_is_refused() -> Result {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;

    let served = open().serve("127.0.0.1:0", HubOptions::open()).await?;
    let (mut socket, _) = tokio_tungstenite::connect_async(served.url()).await.unwrap();
    // A bomb of 32 MiB, and as sound as one.
    let zeros = zstd::bulk::compress(&vec![0; 32 << 20], 3).unwrap();
    let frame = [&[0, 0x80, 0x80, 0x80, 0x10][..], &zeros].concat();
    socket.send(Message::Binary(frame.into())).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        assert!(!message.is_binary(), "{message:?}");
    }
    let name = "rivus_sessions_ended_total{code=\"100\",name=\"BAD_FRAME\"} 1";
    let all = async {
        while !served.metrics().contains(name) {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn whoever_connects_and_says_nothing_is_dropped_in_time() -> Result {
    let served = open().serve("127.0.0.1:0", HubOptions::open()).await?;
    let mut socket = TcpStream::connect(served.address()).await.unwrap();
    let since = tokio::time::Instant::now();
    assert_eq!(socket.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(since.elapsed().as_secs(), 10);
    assert_eq!(metric(&served.metrics(), "rivus_handshakes_failed_total{reason=\"slow\"}"), 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_never_says_hello_is_told_why_it_is_closed_in_the_time_that_is_set() -> Result {
    use futures_util::StreamExt;
    use tokio_tungstenite::tungstenite::Message;

    let options = HubOptions::open().handshake_max(Duration::from_millis(500));
    let served = open().serve("127.0.0.1:0", options).await?;
    let since = std::time::Instant::now();
    let (mut socket, _) = tokio_tungstenite::connect_async(served.url()).await.unwrap();
    let mut told = Vec::new();
    let all = async {
        while let Some(Ok(message)) = socket.next().await {
            told.push(message);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    let [Message::Close(Some(last))] = &told[..] else { panic!("{told:?}") };
    assert_eq!((u16::from(last.code), last.reason.as_str()), (4502, "TIMEOUT (502)"));
    assert!(since.elapsed() < Duration::from_secs(10), "it was closed when it is unless something is set");
    let name = "rivus_sessions_ended_total{code=\"502\",name=\"TIMEOUT\"} 1";
    let counted = async {
        while !served.metrics().contains(name) {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(60), counted).await.unwrap();
    // Nobody gets in so fast that this would be too short, and it is for the greeting alone.
    open().sync(&remote(&served)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_told_at_an_address_of_their_own_within_bounds() -> Result {
    let served = open().serve("127.0.0.1:0", HubOptions::open().admin("127.0.0.1:0")).await?;
    assert_eq!(get(&served, "/health/live").await, (200, "live\n".to_owned()));
    assert_eq!(get(&served, "/health/ready").await, (200, "ready\n".to_owned()));
    let (status, text) = get(&served, "/metrics?x=1").await;
    assert_eq!((status, metric(&text, "rivus_ready")), (200, 1.0));
    assert_eq!(get(&served, "/").await.0, 404);
    let admin = served.admin_address().unwrap();
    assert!(talk(admin, b"POST /metrics HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 405 "));
    assert!(talk(admin, b"nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    let head = talk(admin, b"HEAD /health/live HTTP/1.1\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"), "{head}");
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(8 << 10));
    assert!(talk(admin, endless.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    // Nothing of that is at the address that strangers reach.
    assert!(
        !talk(served.address(), b"GET /metrics HTTP/1.1\r\nHost: hub\r\n\r\n").await.contains("rivus_ready")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_is_not_ready_when_its_disk_is_full_or_its_folder_gone_or_it_is_about_to_stop() -> Result {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let db = Db::open(inner.join("hub.db"), Schema::open())?;
    db.put("task", "t", [("title", "one".into())])?;
    let options = || HubOptions::open().admin("127.0.0.1:0");
    let full = db.serve("127.0.0.1:0", options().disk_free_min(u64::MAX)).await?;
    let (status, why) = get(&full, "/health/ready").await;
    assert!(status == 503 && why.starts_with("the disk is full: "), "{why}");
    let served = db.serve("127.0.0.1:0", options()).await?;
    let (_, text) = get(&served, "/metrics").await;
    assert!(metric(&text, "rivus_store_bytes") > 4096.0 && metric(&text, "rivus_disk_free_bytes") > 0.0);
    assert!(metric(&text, "rivus_store_seq") >= 1.0);
    assert_eq!(
        std::fs::read_dir(&inner)
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().contains("probe") })
            .count(),
        0
    );
    served.announce_shutdown();
    let (status, why) = get(&served, "/health/ready").await;
    assert_eq!((status, why.as_str()), (503, "the hub is shutting down\n"));
    // It still serves, and lives.
    open().sync(&remote(&served)).await?;
    assert_eq!(get(&served, "/health/live").await.0, 200);
    let gone = db.serve("127.0.0.1:0", options().disk_free_min(0)).await?;
    std::fs::remove_dir_all(&inner).unwrap();
    let (status, why) = get(&gone, "/health/ready").await;
    assert!(status == 503 && why.contains("cannot be written"), "{why}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_devices_do_is_counted() -> Result {
    // The hub alone knows that not everybody may write this.
    let schema = Schema::builder().kind("secret", |kind| kind.open().value("x").ranked("x")).build()?;
    let (hub, phone, desk) = (Db::memory(schema)?, open(), open());
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    // What is there before the two have met is brought unjudged.
    phone.put("task", "before", [("title", "zero".into())])?;
    phone.sync(&remote(&served)).await?;
    assert!(metric(&served.metrics(), "rivus_pages_in_total") >= 1.0);
    phone.put("task", "t", [("title", "one".into()), ("note", "two".into())])?;
    phone.put("secret", "s", [("x", 1.into())])?;
    phone.sync(&remote(&served)).await?;
    let live = desk.connect(remote(&served));
    live.synced().await?;
    // That the others have gone the hub notes in its own time.
    let noted = async {
        while metric(&served.metrics(), "rivus_connections") != 1.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), noted).await.unwrap();
    let text = served.metrics();
    for (name, count) in [
        ("rivus_connections_total", 3.0),
        ("rivus_edits_accepted_total", 1.0),
        ("rivus_edits_refused_total{code=\"402\",name=\"RANK\"}", 1.0),
        ("rivus_digests_differ_total", 0.0),
    ] {
        assert_eq!(metric(&text, name), count, "{name} in {text}");
    }
    assert!(metric(&text, "rivus_registers_in_total") >= 4.0, "{text}");
    assert!(metric(&text, "rivus_registers_out_total") >= 2.0, "{text}");
    assert!(metric(&text, "rivus_pages_out_total") >= 1.0, "{text}");
    assert!(metric(&text, "rivus_bytes_in_total") > 100.0 && metric(&text, "rivus_bytes_out_total") > 100.0);
    live.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_everybody_is_told_goodbye_and_whoever_does_not_go_is_cut_off() -> Result {
    let hub = open();
    let served = hub.serve("127.0.0.1:0", HubOptions::open().drain_max(Duration::from_secs(60))).await?;
    let polite = open().connect(remote(&served));
    polite.synced().await?;
    let mut states = polite.states();
    served.shutdown().await;
    states.wait_for(|state| !state.connected).await.unwrap();
    polite.close().await;

    let options = HubOptions::open().drain_max(Duration::from_millis(50));
    let served = hub.serve("127.0.0.1:0", options).await?;
    // The hub would wait 10 s for its first word.
    let mut stubborn = TcpStream::connect(served.address()).await.unwrap();
    let address = served.address();
    let since = std::time::Instant::now();
    served.shutdown().await;
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    // Closed, or reset.
    assert!(!matches!(stubborn.read(&mut [0]).await, Ok(1)));
    assert!(TcpStream::connect(address).await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_says_by_itself_who_is_let_in() -> Result {
    let options = HubOptions::closed().authenticator(By(|token: Option<&str>, _now| match token {
        Some("sesame") => Ok(Grant { subject: "ali".to_owned(), rank: 3, ..Grant::default() }),
        _ => Err(Denial::unauthorised("say the words")),
    }));
    let served = open().serve("127.0.0.1:0", options).await?;
    let phone = open();
    phone.sync(&remote(&served).token("sesame")).await?;
    assert_eq!(phone.status()?.authority.map(|authority| authority.rank), Some(3));
    let error = refused(&remote(&served).token("other")).await;
    assert!(error.to_string().contains("UNAUTHORISED (200): say the words"), "{error}");
    assert_eq!(
        metric(&served.metrics(), "rivus_sessions_ended_total{code=\"200\",name=\"UNAUTHORISED\"}"),
        1.0
    );
    Ok(())
}

#[cfg(feature = "jwt")]
mod jwt {
    use rivus::{Jwt, Millis};

    use super::*;

    /// Tokens of subject `ann` with rank 7, made by another implementation, and the keys of their issuer.
    const TOKENS: &str = include_str!("../src/net/jwt/vectors.txt");
    const KEYS: &str = include_str!("../src/net/jwt/vectors.jwks.json");

    fn at(seconds: i64) -> Result<Db> {
        Db::builder().schema(Schema::open()).clock(move || Millis(seconds * 1000)).memory()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_signed_token_opens_the_door_with_the_rank_in_it_until_it_ends() -> Result {
        let options = || HubOptions::closed().grant("granted", 1).jwt(Jwt::from_jwks(KEYS).unwrap());
        let served = at(1_900_000_000)?.serve("127.0.0.1:0", options()).await?;
        for token in TOKENS.lines() {
            let phone = at(1_900_000_000)?;
            phone.sync(&remote(&served).token(token)).await?;
            assert_eq!(phone.status()?.authority.map(|authority| authority.rank), Some(7));
        }
        open().sync(&remote(&served).token("granted")).await?;
        let error = refused(&remote(&served)).await;
        assert!(error.to_string().contains("UNAUTHORISED (200): a token is needed"), "{error}");
        let forged = TOKENS.lines().next().unwrap().replace("PyW", "PyX");
        let error = refused(&remote(&served).token(forged)).await;
        assert!(error.to_string().contains("UNAUTHORISED (200): the token's signature is wrong"), "{error}");
        let late = at(2_000_000_060)?.serve("127.0.0.1:0", options()).await?;
        let error = refused(&remote(&late).token(TOKENS.lines().next().unwrap())).await;
        assert!(error.to_string().contains("EXPIRED (206)"), "{error}");
        Ok(())
    }
}
