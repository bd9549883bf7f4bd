//! What went wrong in other systems that sync, each as the application sees it. The cases were found by their users, in
//! their trackers, or in tests that others published; `docs/comparison.md` names them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rivus::{Action, Db, Error, HubOptions, Millis, Op, Origin, Remote, Schema, Shown, Value};

type Result<T = ()> = std::result::Result<T, Error>;

const NOW: i64 = 1_700_000_000_000;
const YEAR: i64 = 365 * 86_400_000;

/// A database whose clock the test sets.
fn with_clock(schema: Schema) -> Result<(Db, Arc<AtomicI64>)> {
    let clock = Arc::new(AtomicI64::new(NOW));
    let reading = Arc::clone(&clock);
    let db = Db::builder().schema(schema).clock(move || Millis(reading.load(Ordering::Relaxed))).memory()?;
    Ok((db, clock))
}

fn open() -> Result<(Db, Arc<AtomicI64>)> {
    with_clock(Schema::open())
}

fn field(db: &Db, kind: &str, id: &str, field: &str) -> Result<Option<Value>> {
    let shown = db.view(kind, id)?.and_then(|view| view.fields.get(field).cloned());
    Ok(shown.map(|shown| match shown {
        Shown::Value(value) => value,
        other => panic!("{field} is a value, not {other:?}"),
    }))
}

fn assert_equal(one: &Db, other: &Db) -> Result {
    assert_eq!(one.status()?.digest, other.status()?.digest);
    Ok(())
}

/// Paging by `updated_at > last` skips or repeats for ever when more records than a page share one time.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_one_millisecond_fill_many_pages_and_come_once() -> Result {
    let ((hub, _), (device, _)) = (open()?, open()?);
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let text = "x".repeat(200);
    for id in 0..5000 {
        hub.put("task", &format!("t{id}"), [("text", text.as_str().into())])?;
    }
    let report = device.sync(&served.url().into()).await?;
    assert_eq!((report.pulled.received, report.verified), (10_000, true), "a life and a text of each");
    assert!(device.sync(&served.url().into()).await?.pulled.received == 0, "and not again");
    assert_equal(&hub, &device)
}

/// A loop that ends on a page in which everything is one's own misses what comes behind it.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_ones_own_rows_do_not_end_the_reading() -> Result {
    let ((hub, _), (one, _), (other, _)) = (open()?, open()?, open()?);
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let remote = Remote::new(served.url());
    let text = "x".repeat(200);
    for id in 0..5000 {
        one.put("task", &format!("t{id}"), [("text", text.as_str().into())])?;
    }
    one.sync(&remote).await?;
    other.put("task", "behind", [("text", "all of them".into())])?;
    other.sync(&remote).await?;
    let report = one.sync(&remote).await?;
    assert_eq!(report.pulled.received, 2, "the other's entity, and nothing of its own");
    assert_equal(&one, &other)
}

/// A row that the server refuses stops the queue behind it, or is dropped, or is overwritten by the next download
/// without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_edit_blocks_nothing_and_is_kept_with_its_value_and_reason() -> Result {
    let schema = || {
        let task = |kind: rivus::KindBuilder| kind.open().value("price").ranked("price");
        Schema::builder().kind("task", task).build()
    };
    let hub = Db::memory(schema()?)?;
    // The device's program is older and knows of no such restriction.
    let device = Db::memory(Schema::builder().kind("task", |kind| kind.open()).build()?)?;
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let remote = Remote::new(served.url());
    hub.put("task", "t1", [("price", 100.into())])?;
    device.sync(&remote).await?;

    let mut events = device.subscribe();
    device.put("task", "before", [("title", "first".into())])?;
    device.put("task", "t1", [("price", 1.into())])?;
    device.put("task", "after", [("title", "last".into())])?;
    let report = device.sync(&remote).await?;
    assert_eq!((report.pushed.accepted, report.pushed.rejected.values().sum::<usize>()), (2, 1));
    assert_eq!(device.status()?.pending, 0, "nothing waits behind it");
    for id in ["before", "after"] {
        assert!(hub.view("task", id)?.is_some(), "{id}");
    }
    assert_eq!(field(&device, "task", "t1", "price")?, Some(100.into()), "what the hub shows");

    hub.put("task", "t1", [("price", 120.into())])?;
    device.sync(&remote).await?;
    let rejected = device.rejected()?;
    assert_eq!(rejected.len(), 1, "it is kept after later downloads, too");
    assert!(rejected[0].message.contains("needs a rank"), "{}", rejected[0].message);
    assert_eq!(rejected[0].ops, [Op::new("task", "t1", Action::Put(vec![("price".into(), 1.into())]))]);
    let mut told = false;
    while let Ok(Some(Ok(event))) =
        tokio::time::timeout(std::time::Duration::ZERO, futures_util::StreamExt::next(&mut events)).await
    {
        told |= matches!(event, rivus::Event::Rejected { .. });
    }
    assert!(told, "whoever listens hears of it");
    assert_equal(&hub, &device)
}

/// One cell from the far future makes the receiver drop the whole batch that it came in, silently.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_from_the_far_future_is_set_aside_alone() -> Result {
    let ((peer, _), (device, clock)) = (open()?, open()?);
    let served = peer.serve("127.0.0.1:0", HubOptions::open().as_peer()).await?;
    device.put("task", "t1", [("title", "write".into())])?;
    clock.store(NOW + 100 * YEAR, Ordering::Relaxed);
    device.put("task", "t2", [("title", "from 2123".into())])?;
    clock.store(NOW, Ordering::Relaxed);
    device.put("task", "t3", [("title", "read".into())])?;
    let report = device.sync(&served.url().into()).await?;
    assert!(!report.diverged);
    assert!(peer.view("task", "t1")?.is_some());
    let status = peer.status()?;
    assert!(status.quarantined > 0, "kept until it is due, and counted");
    assert!(peer.view("task", "t2")?.is_none());
    Ok(())
}

/// With an authority the device hears of its clock, and what it wrote under the wrong one counts from now.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_from_the_future_is_corrected_and_loses_nothing() -> Result {
    let ((hub, _), (device, clock)) = (open()?, open()?);
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    device.sync(&served.url().into()).await?;
    clock.store(NOW + 100 * YEAR, Ordering::Relaxed);
    for id in 0..10 {
        device.put("task", &format!("t{id}"), [("title", "from 2123".into())])?;
    }
    device.sync(&served.url().into()).await?;
    assert_eq!((device.status()?.pending, device.rejected()?.len()), (0, 0));
    assert_eq!(hub.views("task")?.len(), 10);
    // Nobody has to wait for 2123 to write over it.
    hub.put("task", "t1", [("title", "now".into())])?;
    device.sync(&served.url().into()).await?;
    assert_eq!(field(&device, "task", "t1", "title")?, Some("now".into()));
    assert_equal(&hub, &device)
}

/// A clock that is set back makes later writes lose against earlier ones, or empties the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_loses_no_later_write() -> Result {
    let ((hub, _), (device, clock)) = (open()?, open()?);
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    device.put("task", "t1", [("title", "first".into())])?;
    device.sync(&served.url().into()).await?;
    clock.store(NOW - 10 * YEAR, Ordering::Relaxed);
    device.put("task", "t1", [("title", "second".into())])?;
    device.put("task", "t2", [("title", "new".into())])?;
    device.sync(&served.url().into()).await?;
    for db in [&hub, &device] {
        assert_eq!(field(db, "task", "t1", "title")?, Some("second".into()));
        assert_eq!(field(db, "task", "t2", "title")?, Some("new".into()));
    }
    assert_equal(&hub, &device)
}

/// A row that one device deletes while another edits it is left with the edited cells alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_against_an_edit_leaves_no_half_of_an_entity() -> Result {
    let ((hub, _), (one, _), (other, clock)) = (open()?, open()?, open()?);
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let remote = Remote::new(served.url());
    one.put("task", "t1", [("title", "write".into()), ("owner", "ann".into()), ("done", false.into())])?;
    one.sync(&remote).await?;
    other.sync(&remote).await?;
    one.apply(&[Op::new("task", "t1", Action::Delete)])?;
    clock.fetch_add(1000, Ordering::Relaxed);
    other.put("task", "t1", [("done", true.into())])?;
    for db in [&one, &other, &one] {
        db.sync(&remote).await?;
    }
    for db in [&hub, &one, &other] {
        assert_eq!(db.view("task", "t1")?.map(|view| view.deleted), Some(true), "gone as a whole");
    }
    assert_eq!(other.conflicts()?.len(), 1, "and the edit that it hid is listed with its author");
    one.apply(&[Op::new("task", "t1", Action::Revive)])?;
    one.sync(&remote).await?;
    other.sync(&remote).await?;
    for db in [&hub, &one, &other] {
        let view = db.view("task", "t1")?;
        assert_eq!(view.map(|view| (view.deleted, view.fields.len())), Some((false, 3)), "back as a whole");
    }
    assert_equal(&one, &other)
}

/// A unique index cannot be kept by a merge of columns: the sync fails, or the names are equal.
#[tokio::test(flavor = "multi_thread")]
async fn two_devices_that_take_one_name_offline_show_two_names() -> Result {
    let schema = || {
        let project = |kind: rivus::KindBuilder| {
            kind.value("workspace").value("name").unique("one name", ["workspace"], "name")
        };
        Schema::builder().kind("project", project).build()
    };
    let (hub, one, other) = (Db::memory(schema()?)?, Db::memory(schema()?)?, Db::memory(schema()?)?);
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let remote = Remote::new(served.url());
    for (db, id) in [(&one, "p1"), (&other, "p2")] {
        db.put("project", id, [("workspace", "w".into()), ("name", "Rivus".into())])?;
        db.sync(&remote).await?;
    }
    one.sync(&remote).await?;
    for db in [&hub, &one, &other] {
        let names = [field(db, "project", "p1", "name")?, field(db, "project", "p2", "name")?];
        assert_eq!(names[0], Some("Rivus".into()), "who came first keeps it");
        assert!(matches!(&names[1], Some(Value::Text(name)) if name.starts_with("Rivus #")), "{names:?}");
    }
    assert_equal(&one, &other)
}

/// A client that is older than a kind skips it, marks it as read, and has lost it for ever once it is updated.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_client_keeps_what_it_does_not_know_for_its_successor() -> Result {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("device.db");
    let old = || Schema::builder().kind("task", |kind| kind.value("title")).build();
    let new = || {
        Schema::builder().kind("task", |kind| kind.value("title")).kind("trip", |kind| kind.open()).build()
    };
    let hub = Db::memory(new()?)?;
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    hub.put("trip", "far", [("to", "Tromsø".into())])?;
    let device = Db::open(&file, old()?)?;
    device.sync(&served.url().into()).await?;
    drop(device);
    let device = Db::open(&file, new()?)?;
    assert_eq!(field(&device, "trip", "far", "to")?, Some("Tromsø".into()), "without another sync");
    assert_equal(&hub, &device)
}

/// Whoever deletes what it has just read from others must not hear of its own edits as if they were the others'.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_from_the_hub_is_no_news_of_others() -> Result {
    let ((hub, _), (device, _)) = (open()?, open()?);
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let connection = device.connect(served.url().into());
    connection.synced().await?;
    let mut events = device.subscribe();
    device.put("task", "t1", [("title", "write".into())])?;
    connection.synced().await?;
    hub.put("task", "t2", [("title", "the hub's".into())])?;
    let mut origins = Vec::new();
    while !origins.contains(&("t2".to_owned(), true)) {
        if let Some(Ok(rivus::Event::Changed { id, origin, .. })) =
            futures_util::StreamExt::next(&mut events).await
        {
            origins.push((id, matches!(origin, Origin::Remote(_))));
        }
    }
    assert!(!origins.contains(&("t1".to_owned(), true)), "{origins:?}");
    Ok(())
}
