//! Stores that sync: newer schemas through older hubs, many handles on one file, large entities, full disks.

use rivus::{Action, Db, Edited, Error, HubOptions, Op, Remote, Schema, SqliteOptions, StoreError, Value};
use rivus_core::address;
use rivus_core::row::encode_register;

type Result<T = ()> = std::result::Result<T, Error>;

/// The registers of an entity, byte for byte.
fn bytes_of(db: &Db, kind: &str, id: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    db.registers(kind, id, |parts, state| {
        let (mut address, mut form) = (Vec::new(), Vec::new());
        address::encode(&mut address, parts.class, parts.name, parts.key);
        encode_register(&state.shown, &mut form);
        all.push((address, form));
    })
    .unwrap();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_schema_writes_passes_an_older_hub_bit_for_bit() -> Result {
    let newer = || {
        let task = |k: rivus::KindBuilder| k.value("title").value("mood").set("tags").counter("views");
        Schema::builder().kind("task", task).kind("trip", |k| k.open()).build()
    };
    let older = Schema::builder().kind("task", |k| k.value("title")).build()?;
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, schema| Db::open(folder.path().join(name), schema);
    let (a, b, hub) = (open("a.db", newer()?)?, open("b.db", newer()?)?, open("hub.db", older)?);
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let remote = Remote::new(served.url());

    let future = Value::Unknown { tag: 4711, bytes: vec![1, 2, 3] };
    a.put("task", "t", [("title", "x".into()), ("mood", future)])?;
    a.apply(&[
        Op::new("task", "t", Action::Add { field: "tags".into(), key: "red".into() }),
        Op::new("task", "t", Action::Inc { field: "views".into(), by: 3 }),
        Op::new(
            "trip",
            "far",
            Action::Put(vec![("nested".into(), Value::List(vec![1.5.into(), Value::Null]))]),
        ),
    ])?;
    a.sync(&remote).await?;
    b.sync(&remote).await?;
    for (kind, id) in [("task", "t"), ("trip", "far")] {
        let there = bytes_of(&b, kind, id);
        assert!(there.len() >= 2 && there == bytes_of(&a, kind, id), "{kind}");
    }
    assert_eq!(b.view("task", "t")?, a.view("task", "t")?);
    assert_eq!(
        hub.view("trip", "far").err().map(|error| error.to_string().contains("not declared")),
        Some(true)
    );
    assert_eq!(hub.status()?.digest, b.status()?.digest);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_on_one_file_that_edit_and_sync_at_once_lose_nothing() -> Result {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shared.db");
    let schema = || Schema::builder().kind("task", |k| k.open().counter("views")).build();
    let hub = Db::memory(schema()?)?;
    let other = Db::memory(schema()?)?;
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let remote = Remote::new(served.url());
    other.sync(&remote).await?;
    for n in 0..300 {
        other.put("task", &format!("o{n}"), [("from", "other".into())])?;
        other.apply(&[Op::new("task", "sum", Action::Inc { field: "views".into(), by: 1 })])?;
    }
    other.sync(&remote).await?;
    let handles: Vec<Db> = (0..3).map(|_| Db::open(&file, schema()?)).collect::<Result<_>>()?;
    let mut tasks = Vec::new();
    for (number, db) in handles.iter().cloned().enumerate() {
        let remote = remote.clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..20 {
                let db = db.clone();
                let edited = tokio::task::spawn_blocking({
                    let db = db.clone();
                    move || -> Result {
                        db.put("task", &format!("h{number}-{round}"), [("n", (round as i64).into())])?;
                        db.apply(&[Op::new("task", "sum", Action::Inc { field: "views".into(), by: 1 })])?;
                        Ok(())
                    }
                });
                edited.await.unwrap()?;
                if round % 5 == 4 {
                    db.sync(&remote).await?;
                }
            }
            db.sync(&remote).await.map(|_| ())
        }));
    }
    for task in tasks {
        task.await.unwrap()?;
    }
    handles[0].sync(&remote).await?;
    other.sync(&remote).await?;
    for db in handles.iter().chain([&hub, &other]) {
        let sum = db.view("task", "sum")?.and_then(|view| view.fields.get("views").cloned());
        assert_eq!(sum, Some(rivus::Shown::Counter(360)));
        assert_eq!(db.views("task")?.len(), 361);
        assert_eq!(db.status()?.digest, hub.status()?.digest);
    }
    assert_eq!(handles[0].status()?.pending, 0);
    assert!(handles[0].rejected()?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_field_of_ten_thousand_is_one_register_on_the_wire() -> Result {
    let schema = || Schema::builder().kind("sheet", |k| k.open().set("keys")).build();
    let folder = tempfile::tempdir().unwrap();
    let (a, hub) = (Db::open(folder.path().join("a.db"), schema()?)?, Db::memory(schema()?)?);
    let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    let remote = Remote::new(served.url());
    let cells = (0..10_000_i64).map(|n| (format!("cell {n}"), n.into()));
    let keys = (0..10_000)
        .map(|n| Op::new("sheet", "s", Action::Add { field: "keys".into(), key: format!("key {n}") }));
    a.apply(&[Op::new("sheet", "s", Action::Put(cells.collect()))])?;
    a.apply(&keys.collect::<Vec<_>>())?;
    a.sync(&remote).await?;
    let mut b = Db::memory(schema()?)?.connect(remote.clone());
    b.synced().await?;
    drop(std::mem::replace(&mut b, a.connect(remote.clone())));
    b.synced().await?;
    b.close().await;
    let edits = [
        Action::Put(vec![("cell 5000".into(), (-1).into())]),
        Action::Add { field: "keys".into(), key: "one more".into() },
    ];
    for action in edits {
        let edited = a.apply(&[Op::new("sheet", "s", action)])?;
        assert!(matches!(edited, Edited::Committed { registers: 1, .. }), "{edited:?}");
        let c = Db::memory(schema()?)?;
        c.sync(&remote).await?;
        a.sync(&remote).await?;
        assert_eq!(c.sync(&remote).await?.pulled.received, 1);
    }
    Ok(())
}

#[test]
fn a_full_disk_is_a_clear_error_that_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("full.db");
    let sqlite = SqliteOptions { page_count_max: Some(60), ..SqliteOptions::default() };
    let db = Db::builder().schema(Schema::open()).sqlite(sqlite).open(&file).unwrap();
    let mut kept = 0;
    let full = loop {
        match db.put("task", &format!("t{kept:04}"), [("text", "x".repeat(1000).into())]) {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    let is_full = matches!(
        &full,
        Error::Store(StoreError::Full(_))
            | Error::Edit(rivus::EditError::Commit(rivus_core::store::CommitError::Store(StoreError::Full(
                _
            ))))
    );
    assert!(is_full && full.to_string().contains("free some space"), "{full:?}");
    assert_eq!(db.views("task").unwrap().len(), kept);
    drop(db);
    let db = Db::open(&file, Schema::open()).unwrap();
    assert_eq!(db.views("task").unwrap().len(), kept);
    db.put("task", "more", [("text", "there is room again".into())]).unwrap();
}
