//! What an application sets and is shown while frames are under way, seen by somebody between device and hub who reads
//! each and may keep it back.

use std::sync::atomic::AtomicI64;

use rivus::rivus_core::wire::{Scoped, tag};
use rivus::{Connection, Levers, Millis};

use super::*;

/// Which way a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Up,
    Down,
}

/// A frame, without what it is wrapped in.
#[derive(Clone, Debug)]
struct Look {
    way: Way,
    tag: u8,
    /// The subscription that it is of; 0 if that has no name.
    slot: u32,
    /// What it subscribes to.
    scope: String,
}

/// Which frames from the hub wait, and all behind them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hold {
    Nothing,
    /// Those of a type beyond so many in all.
    Beyond(u8, usize),
    /// What says that a scope is read to the end, of all but these.
    EndsBut(&'static [&'static str]),
}

/// A way to a hub on which each frame is looked at.
pub(super) struct Toll {
    url: String,
    /// What has passed, in order.
    passed: watch::Receiver<Vec<Look>>,
    hold: watch::Sender<Hold>,
}

impl Toll {
    pub(super) async fn to(served: &Hub) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let ((log, passed), (hold, held)) = (watch::channel(Vec::new()), watch::channel(Hold::Nothing));
        let (log, target) = (Arc::new(log), served.url());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let device = tokio_tungstenite::accept_async(socket).await.unwrap();
                let (hub, _) = tokio_tungstenite::connect_async(&target).await.unwrap();
                let ((to_device, from_device), (to_hub, from_hub)) = (device.split(), hub.split());
                tokio::spawn(carry(from_device, to_hub, Way::Up, Arc::clone(&log), held.clone()));
                tokio::spawn(carry(from_hub, to_device, Way::Down, Arc::clone(&log), held.clone()));
            }
        });
        Self { url, passed, hold }
    }

    pub(super) fn remote(&self) -> Remote {
        Remote::new(&self.url)
    }

    pub(super) fn hold(&self, hold: Hold) {
        self.hold.send_replace(hold);
    }

    pub(super) fn count(&self, way: Way, tag: u8) -> usize {
        count(&self.passed.borrow(), way, tag)
    }

    /// Waits until so many of them have passed.
    pub(super) async fn until(&self, way: Way, tag: u8, frames: usize) {
        self.passed.clone().wait_for(|passed| count(passed, way, tag) >= frames).await.unwrap();
    }

    /// The scopes that the device has subscribed to, in order.
    fn subscribed(&self) -> Vec<String> {
        let passed = self.passed.borrow();
        let scopes = passed.iter().filter(|look| (look.way, look.tag) == (Way::Up, tag::SUBSCRIBE));
        scopes.map(|look| look.scope.clone()).collect()
    }
}

fn count(passed: &[Look], way: Way, tag: u8) -> usize {
    passed.iter().filter(|look| (look.way, look.tag) == (way, tag)).count()
}

/// Whether a frame from the hub waits, after these.
fn waits(look: &Look, hold: Hold, passed: &[Look]) -> bool {
    match hold {
        Hold::Nothing => false,
        Hold::Beyond(tag, most) => look.tag == tag && count(passed, Way::Down, tag) >= most,
        Hold::EndsBut(scopes) => {
            let of = passed.iter().rfind(|one| one.tag == tag::SUBSCRIBE && one.slot == look.slot);
            look.tag == tag::CHECKPOINT && of.is_some_and(|of| !scopes.contains(&of.scope.as_str()))
        }
    }
}

async fn carry<F, T>(
    mut from: F,
    mut to: T,
    way: Way,
    log: Arc<watch::Sender<Vec<Look>>>,
    mut held: watch::Receiver<Hold>,
) where
    F: futures_util::Stream<Item = std::result::Result<Message, tokio_tungstenite::tungstenite::Error>>
        + Unpin,
    T: futures_util::Sink<Message> + Unpin,
{
    while let Some(Ok(message)) = from.next().await {
        if let Message::Binary(bytes) = &message {
            let look = look(way, bytes);
            let may = |hold: &Hold| way == Way::Up || !waits(&look, *hold, &log.borrow());
            if held.wait_for(may).await.is_err() {
                return;
            }
            log.send_modify(|log| log.push(look));
        }
        if to.send(message).await.is_err() {
            return;
        }
    }
    let _ = to.close().await;
}

fn look(way: Way, bytes: &[u8]) -> Look {
    let (tag, rest) = bytes.split_first().unwrap();
    match *tag {
        tag::COMPRESSED => {
            // Behind the length, of which each byte but the last has the highest bit.
            let mut parts = rest.splitn(2, |byte| byte & 0x80 == 0);
            look(way, &zstd::bulk::decompress(parts.nth(1).unwrap(), 32 << 20).unwrap())
        }
        tag::SCOPED => {
            let Scoped { slot, scope, frame } = Scoped::decode(bytes).unwrap();
            Look { slot, scope: scope.to_owned(), ..look(way, frame) }
        }
        tag => Look { way, tag, slot: 0, scope: String::new() },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_has_as_many_edits_as_the_lever_says() -> Result {
    for (most, pushes) in [(0, 10), (1, 10), (3, 4), (10, 1), (Levers::default().batch_edits, 1)] {
        let (hub, a) = (open(), open());
        let served = serve(&hub).await;
        let way = Toll::to(&served).await;
        // What was written before the first meeting goes otherwise.
        a.sync(&to(&served)).await?;
        a.set_levers(|levers| levers.batch_edits = most);
        let puts = |from: usize| {
            for n in from..from + 10 {
                put(&a, &format!("t{n}"), "x");
            }
        };
        puts(0);
        let report = a.sync_once(&way.remote()).await.ok()?;
        assert_eq!((report.pushed.accepted, way.count(Way::Up, tag::PUSH)), (10, pushes), "{most}");
        assert_eq!(way.count(Way::Down, tag::ACK), pushes, "each is judged apart");
        // And on a connection that is live, where it is pulled while that is up.
        a.set_levers(|levers| levers.batch_edits = 7);
        let connection = a.connect(way.remote());
        connection.synced().await?;
        a.set_levers(|levers| levers.batch_edits = most);
        let paused = a.pause_uploads();
        puts(10);
        drop(paused);
        connection.synced().await?;
        assert_eq!(way.count(Way::Up, tag::PUSH), 2 * pushes, "{most}");
        assert!(has(&hub, "t19"));
    }
    Ok(())
}

/// A hub with two notes in each of these lists, and a device.
fn lists(names: &[&str]) -> (Db, Db) {
    let open = || {
        let note = |kind: rivus::KindBuilder| kind.value("list").scope("list").value("title");
        Db::memory(Schema::builder().kind("note", note).build().unwrap()).unwrap()
    };
    let (hub, device) = (open(), open());
    for (list, n) in names.iter().flat_map(|list| [0, 1].map(|n| (*list, n))) {
        let title = format!("{list}{n}");
        hub.put("note", &title, [("list", list.into()), ("title", title.as_str().into())]).unwrap();
    }
    (hub, device)
}

/// Makes an edit and waits until it has gone out: the device has sent before all that it could.
async fn sends(device: &Db, way: &Toll, pushes: usize) {
    device.put("note", "mine", [("list", "mine".into()), ("title", (pushes as i64).into())]).unwrap();
    way.until(Way::Up, tag::PUSH, pushes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_of_lower_priority_is_asked_for_behind_those_of_higher_by_a_remote_and_by_a_connection()
-> Result {
    let (hub, a) = lists(&["a", "b", "c", "d"]);
    let served = serve(&hub).await;
    let way = Toll::to(&served).await;
    way.hold(Hold::EndsBut(&[]));
    let connection = a.connect(way.remote().scopes(["b", "c"]).scope("a", -1).scope("d", 1));
    way.until(Way::Up, tag::SUBSCRIBE, 1).await;
    sends(&a, &way, 1).await;
    assert_eq!(way.subscribed(), ["d"], "nothing else before that is read");
    // Of two that are equal one is to wait for the other now.
    connection.set_priority("b", -2)?;
    sends(&a, &way, 2).await;
    way.hold(Hold::EndsBut(&["d"]));
    way.until(Way::Up, tag::SUBSCRIBE, 2).await;
    sends(&a, &way, 3).await;
    assert_eq!(way.subscribed(), ["d", "c"]);
    way.hold(Hold::EndsBut(&["d", "c"]));
    way.until(Way::Up, tag::SUBSCRIBE, 3).await;
    sends(&a, &way, 4).await;
    assert_eq!(way.subscribed(), ["d", "c", "a"]);
    way.hold(Hold::Nothing);
    connection.synced().await?;
    assert_eq!(way.subscribed(), ["d", "c", "a", "b"]);
    for note in ["a0", "b1", "c0", "d1"] {
        assert!(a.view("note", note)?.is_some(), "{note}");
    }
    // What was said stays said: the next connection of this one asks alike.
    drop(a.freeze().await);
    way.until(Way::Up, tag::SUBSCRIBE, 8).await;
    assert_eq!(way.subscribed()[4..], ["d", "c", "a", "b"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_local_then_sent_then_durable() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let way = Toll::to(&served).await;
    let connection = a.connect(way.remote());
    connection.synced().await?;
    let acks = way.count(Way::Down, tag::ACK);
    way.hold(Hold::Beyond(tag::ACK, acks));
    let paused = a.pause_uploads();
    let edited = put(&a, "t", "x");
    assert_eq!(a.delivery(&edited)?, Delivery::Local);
    let pushes = way.count(Way::Up, tag::PUSH);
    drop(paused);
    way.until(Way::Up, tag::PUSH, pushes + 1).await;
    assert_eq!(a.delivery(&edited)?, Delivery::Sent);
    // The hub has it, and the device does not know; what is written now is another edit.
    until(&hub, || has(&hub, "t")).await;
    let paused = a.pause_uploads();
    let later = put(&a, "t", "y");
    assert_eq!((a.delivery(&edited)?, a.delivery(&later)?), (Delivery::Sent, Delivery::Local));
    let mut states = connection.states();
    states.wait_for(|state| state.pending == 2).await.unwrap();
    way.hold(Hold::Nothing);
    states.wait_for(|state| state.pending == 1).await.unwrap();
    assert_eq!((a.delivery(&edited)?, a.delivery(&later)?), (Delivery::Durable, Delivery::Local));
    drop(paused);
    connection.synced().await?;
    assert_eq!(a.delivery(&later)?, Delivery::Durable);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_says_what_goes_what_comes_and_how_far_that_is() -> Result {
    let (hub, a) = (open(), open());
    let served = serve(&hub).await;
    let way = Toll::to(&served).await;
    a.sync(&way.remote()).await?;
    let text = "x".repeat(60_000);
    for n in 0..30 {
        put(&hub, &format!("h{n}"), &text);
    }
    put(&a, "t", "x");
    let (acks, pages) = (way.count(Way::Down, tag::ACK), way.count(Way::Down, tag::DELTA));
    way.hold(Hold::Beyond(tag::ACK, acks));
    let connection: Connection = a.connect(way.remote());
    let mut states = connection.states();
    let state = states.wait_for(|state| state.phase == Phase::Pushing).await.unwrap().clone();
    assert!(state.connected && !state.synced && state.up_to.is_none(), "{state:?}");
    assert_eq!((state.pending, state.progress), (1, None), "{state:?}");
    until(&hub, || has(&hub, "t")).await;
    let total = hub.status()?.seq;
    let (mut done, mut seen) = (0, 0);
    for page in 0.. {
        way.hold(Hold::Beyond(tag::DELTA, pages + page));
        let moves = |state: &rivus::SyncState| match state.progress {
            Some(progress) => page == 0 || progress.done > done,
            None => state.synced,
        };
        let state = states.wait_for(moves).await.unwrap().clone();
        let Some(progress) = state.progress else {
            assert_eq!((state.phase, state.pending, state.synced), (Phase::Live, 0, true), "{state:?}");
            break;
        };
        assert_eq!((state.phase, state.pending, state.synced), (Phase::Pulling, 0, false), "{state:?}");
        // The device's own edit is behind what the hub told first.
        assert!([total - 1, total].contains(&progress.total), "{progress:?} of {total}");
        assert!(progress.done <= progress.total, "{progress:?}");
        (done, seen) = (progress.done, seen + 1);
    }
    assert!(seen > 4 && done > 0, "{seen} pages, the last at {done}");
    assert_eq!(a.status()?.digest, hub.status()?.digest);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_says_for_how_long_the_oldest_edit_is_pending() -> Result {
    const NOW: i64 = 1_700_000_000_000;
    let clock = Arc::new(AtomicI64::new(NOW));
    let reading = Arc::clone(&clock);
    let clocked = Db::builder().schema(Schema::open()).clock(move || Millis(reading.load(Ordering::Relaxed)));
    let (hub, a) = (open(), clocked.memory()?);
    let served = serve(&hub).await;
    a.sync(&to(&served)).await?;
    let ms = |later: i64| Ok::<_, Error>(a.sync_state()?.pending_ms(Millis(NOW + later)));
    assert_eq!(ms(0)?, None);
    put(&a, "t", "x");
    clock.store(NOW + 2000, Ordering::Relaxed);
    put(&a, "t", "y");
    assert_eq!((a.sync_state()?.pending, ms(0)?, ms(2500)?), (2, Some(0), Some(2500)));
    assert_eq!(ms(-1)?, Some(0), "the clock was set back since");
    let paused = a.pause_uploads();
    let connection = a.connect(to(&served));
    let mut states = connection.states();
    let state = states.wait_for(|state| state.pending == 2).await.unwrap().clone();
    assert_eq!(state.pending_ms(Millis(NOW + 2500)), Some(2500), "a connection says the same");
    drop(paused);
    let state = states.wait_for(|state| state.synced).await.unwrap().clone();
    assert_eq!((state.pending_ms(Millis(NOW + 2500)), ms(2500)?), (None, None));
    Ok(())
}
