//! Leases and collection over sockets: what is deleted is forgotten, and whoever was away for too long loses no edit.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use rivus::rivus_core::code::Code;
use rivus::{
    Action, Db, Delivery, Edited, Error, Event, Hub, HubOptions, Millis, Op, Presence, Remote, Schema,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A clock that all databases of a test share.
#[derive(Clone)]
struct Clock(Arc<AtomicI64>);

impl Clock {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_700_000_000_000)))
    }

    fn pass(&self, time: Duration) {
        self.0.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }

    fn db(&self) -> Db {
        let clock = self.clone();
        let db = Db::builder().schema(Schema::open()).clock(move || Millis(clock.0.load(Ordering::Relaxed)));
        db.memory().unwrap()
    }
}

async fn serve(hub: &Db) -> (Hub, Remote) {
    let served = hub.serve("127.0.0.1:0", HubOptions::open().lease(DAY * 30)).await.unwrap();
    let remote = Remote::new(served.url());
    (served, remote)
}

fn put(db: &Db, id: &str, value: &str) -> Edited {
    db.put("task", id, [("title", value.into())]).unwrap()
}

fn delete(db: &Db, id: &str) {
    db.apply(&[Op::new("task", id, Action::Delete)]).unwrap();
}

/// Waits until the hub has heard from all with a running lease but so many that they have everything.
async fn heard(hub: &Db, but: usize) {
    let behind =
        || hub.leases().unwrap().into_iter().filter(|lease| lease.running && lease.behind > 0).count();
    while behind() != but {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_deleted_is_forgotten_and_a_device_that_was_away_loses_no_edit() -> Result<(), Error> {
    let clock = Clock::new();
    let (one, two, hub) = (clock.db(), clock.db(), clock.db());
    let (served, remote) = serve(&hub).await;
    put(&one, "gone", "x");
    put(&one, "kept", "x");
    one.sync(&remote).await?;
    two.sync(&remote).await?;
    put(&two, "gone", "late");
    put(&two, "kept", "late too");
    clock.pass(DAY);
    delete(&one, "gone");
    one.sync(&remote).await?;
    heard(&hub, 1).await;
    clock.pass(5 * DAY);
    assert_eq!(hub.collect(DAY)?.entities, 0, "the other one is waited for");
    let status = hub.status()?.leases.unwrap();
    assert_eq!((status.running, status.ended), (2, 0));
    assert!(status.held_by.is_some() && status.cut < hub.status()?.seq);
    // Its lease runs out, and so the last trace goes.
    clock.pass(27 * DAY);
    one.sync(&remote).await?;
    heard(&hub, 0).await;
    assert_eq!(hub.collectable(DAY)?.entities, [("task".to_owned(), "gone".to_owned())]);
    assert_eq!(hub.collect(DAY)?.entities, 1);
    one.sync(&remote).await?;
    assert_eq!(one.presence("task", "gone")?, Presence::Absent);
    heard(&hub, 0).await;
    assert_eq!(hub.collect(DAY)?.forgotten, 1);
    assert!(hub.verify()?.is_sound() && one.verify()?.is_sound());
    let mut events = two.subscribe();
    let before = two.status()?.store;
    let report = two.sync(&remote).await?;
    assert!(!report.diverged, "{report:?}");
    assert_ne!(two.status()?.store, before);
    let fenced = loop {
        if let Event::Fenced { before, now } = events.next().await.unwrap().unwrap() {
            break (before.to_string(), now.to_string());
        }
    };
    assert_eq!(fenced, (before, two.status()?.store));
    let rejections = two.rejections()?;
    assert_eq!(rejections.iter().map(|one| one.code).collect::<Vec<_>>(), [Code::GONE]);
    assert_eq!(two.presence("task", "gone")?, Presence::Absent);
    assert_eq!(hub.view("task", "kept")?, two.view("task", "kept")?);
    assert_eq!(hub.status()?.digest, two.status()?.digest);
    assert!(two.verify()?.is_sound());
    let metrics = served.metrics();
    assert!(metrics.contains("rivus_leases 2\n"), "{metrics}");
    served.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_live_device_hears_that_everybody_has_its_edit() -> Result<(), Error> {
    let clock = Clock::new();
    let (one, two, hub) = (clock.db(), clock.db(), clock.db());
    let (_served, remote) = serve(&hub).await;
    let (here, there) = (one.connect(remote.clone()), two.connect(remote.clone()));
    let mut states = here.states();
    there.states().wait_for(|state| state.synced).await.unwrap();
    states.wait_for(|state| state.synced).await.unwrap();
    let edited = put(&one, "t", "x");
    // It is told in the quiet second after the other has said that it has it.
    while one.delivery(&edited)? != Delivery::Seen {
        states.changed().await.unwrap();
    }
    assert!(two.view("task", "t")?.is_some());
    let leases = hub.leases()?;
    assert_eq!(leases.len(), 2);
    assert!(hub.end_lease(&leases[0].store)?);
    assert_eq!(hub.leases()?.iter().filter(|lease| lease.running).count(), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_hub_collects_by_itself() -> Result<(), Error> {
    let clock = Clock::new();
    let hub = clock.db();
    hub.apply(&[Op::new("task", "t", Action::Put(vec![("title".to_owned(), "x".into())]))])?;
    delete(&hub, "t");
    let options = HubOptions::open().collect_every(Some(Duration::from_secs(60))).grace(DAY);
    let served = hub.serve("127.0.0.1:0", options).await?;
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(hub.presence("task", "t")?, Presence::Deleted, "it is kept for the grace");
    clock.pass(2 * DAY);
    while hub.presence("task", "t")? != Presence::Absent {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert!(served.metrics().contains("rivus_collected_total 1\n"));
    Ok(())
}
