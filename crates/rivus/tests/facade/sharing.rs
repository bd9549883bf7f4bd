//! Threads, several openings of one file, and closures that misbehave.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rivus::{Candidate, Db, Entity, Error, Millis, Schema, SqliteOptions, Synchronous, Value};

#[derive(Entity, Debug, Default, PartialEq)]
struct Page {
    #[rivus(id)]
    id: String,
    text: String,
    #[rivus(counter)]
    views: i64,
    edits: i64,
}

fn page() -> Page {
    Page { id: "p".into(), ..Page::default() }
}

/// Counts in a counter and in a plain value from this many threads, each with the database that `of` gives it.
fn count(threads: usize, times: usize, of: impl Fn(usize) -> Db) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let db = of(thread);
            scope.spawn(move || {
                for _ in 0..times {
                    db.edit::<Page>("p", |page| {
                        page.views += 1;
                        page.edits += 1;
                    })
                    .unwrap();
                }
            });
        }
    });
}

#[test]
fn a_handle_may_be_anywhere() {
    fn check<T: Clone + Send + Sync + 'static>() {}
    check::<Db>();
}

#[test]
fn threads_lose_no_increment() {
    let db = Db::builder().entity::<Page>().memory().unwrap();
    db.insert(&page()).unwrap();
    count(8, 200, |_| db.clone());
    let page = db.get::<Page>("p").unwrap().unwrap();
    assert_eq!((page.views, page.edits), (1600, 1600));
}

#[test]
fn openings_of_one_file_lose_no_increment_and_have_ids_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let sqlite = SqliteOptions { synchronous: Synchronous::Off, ..SqliteOptions::default() };
        Db::builder().entity::<Page>().sqlite(sqlite).open(folder.path().join("app.db")).unwrap()
    };
    let openings = [open(), open()];
    openings[0].insert(&page()).unwrap();
    count(4, 50, |thread| openings[thread % 2].clone());
    for db in &openings {
        let page = db.get::<Page>("p").unwrap().unwrap();
        assert_eq!((page.views, page.edits), (200, 200));
    }
    let [one, other] = openings.map(|db| db.status().unwrap());
    assert_eq!(one.store, other.store);
    assert_ne!(one.replica, other.replica);
}

#[test]
fn a_file_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let open = || Db::builder().entity::<Page>().open(&path).unwrap();
    let db = open();
    db.insert(&Page { text: "hello".into(), views: 3, ..page() }).unwrap();
    let before = db.status().unwrap();
    drop(db);
    let db = open();
    assert_eq!(db.status().unwrap(), before);
    assert_eq!(db.get::<Page>("p").unwrap().unwrap().views, 3);
}

#[test]
fn a_panic_in_a_closure_changes_nothing() {
    let db = Db::builder().entity::<Page>().memory().unwrap();
    db.insert(&page()).unwrap();
    let before = db.status().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        db.edit::<Page>("p", |page| {
            page.views += 1;
            panic!("in the middle");
        })
    }));
    assert!(panicked.is_err());
    let transaction = catch_unwind(AssertUnwindSafe(|| {
        db.transaction::<()>(|tx| {
            tx.delete::<Page>("p")?;
            panic!("in the middle");
        })
    }));
    assert!(transaction.is_err());
    assert_eq!(db.status().unwrap(), before);
    db.edit::<Page>("p", |page| page.views += 1).unwrap();
    assert_eq!(db.get::<Page>("p").unwrap().unwrap().views, 1);
}

#[test]
fn a_call_from_inside_an_edit_is_refused_and_another_database_is_not() {
    let (db, other) = (Db::memory(Schema::open()).unwrap(), Db::memory(Schema::open()).unwrap());
    let put = |db: &Db| db.put("task", "t1", [("title", "x".into())]);
    db.transaction(|tx| {
        assert_eq!(put(&db), Err(Error::Reentrant));
        assert_eq!(db.status(), Err(Error::Reentrant));
        put(&other)?;
        tx.put("task", "t2", [("title", "y".into())])
    })
    .unwrap();
    assert_eq!(db.view("task", "t1").unwrap(), None);
    assert!(db.view("task", "t2").unwrap().is_some() && other.view("task", "t1").unwrap().is_some());
    let failed = db.transaction(|_| put(&db).map(|_| ()));
    assert_eq!(failed, Err(Error::Reentrant));
    put(&db).unwrap();
}

#[test]
fn a_resolver_that_calls_back_is_refused() {
    let slot: Arc<std::sync::OnceLock<Db>> = Arc::default();
    let inside = Arc::clone(&slot);
    let resolver = move |candidates: &[Candidate<'_>]| {
        let called = inside.get().map(|db| db.view("task", "t1"));
        assert_eq!(called, Some(Err(Error::Reentrant)));
        candidates.last().map_or(Value::Null, |newest| newest.value.clone())
    };
    let schema =
        Schema::builder().kind("task", |k| k.custom("title", "calls back", resolver)).build().unwrap();
    let db = Db::memory(schema).unwrap();
    slot.set(db.clone()).unwrap();
    db.put("task", "t1", [("title", "x".into())]).unwrap();
    assert!(db.view("task", "t1").unwrap().is_some());
}

#[test]
fn stamps_follow_the_given_clock_and_never_step_back() {
    let now = Arc::new(AtomicI64::new(10_000));
    let clock = Arc::clone(&now);
    let db = Db::builder()
        .schema(Schema::open())
        .clock(move || Millis(clock.load(Ordering::Relaxed)))
        .memory()
        .unwrap();
    let stamp = |number: i64| {
        let rivus::Edited::Committed { stamp, .. } = db.put("n", "n", [("n", number.into())]).unwrap() else {
            panic!("nothing was written")
        };
        stamp
    };
    let first = stamp(1);
    assert_eq!(first.time, 10 << 32);
    now.store(5_000, Ordering::Relaxed);
    assert_eq!(stamp(2).time, first.time + 1);
}
