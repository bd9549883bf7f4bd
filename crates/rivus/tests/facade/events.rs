//! Subscriptions.

use futures_util::{FutureExt, StreamExt};
use rivus::{Action, Db, Event, Lagged, Op, Origin, Schema, Subscription};

fn db() -> Db {
    Db::memory(Schema::open()).unwrap()
}

/// What there is to hear now: the id of each changed entity, all of them edited here.
fn heard(events: &mut Subscription) -> Vec<String> {
    let mut heard = Vec::new();
    while let Some(Some(event)) = events.next().now_or_never() {
        let Event::Changed { id, origin, .. } = event.unwrap() else { panic!("an edit only changes") };
        assert_eq!(origin, Origin::Local);
        heard.push(id);
    }
    heard
}

fn put(db: &Db, id: &str, number: i64) {
    db.put("task", id, [("number", number.into()), ("other", number.into())]).unwrap();
}

#[test]
fn there_is_one_event_per_transaction_and_entity() {
    let db = db();
    let (mut one, mut other) = (db.subscribe(), db.subscribe());
    put(&db, "a", 1);
    db.transaction(|tx| {
        tx.put("task", "a", [("number", 2.into())])?;
        tx.put("task", "b", [("number", 2.into())])?;
        tx.put("task", "a", [("other", 2.into())])
    })
    .unwrap();
    db.apply(&[Op::new("task", "a", Action::Delete)]).unwrap();
    for events in [&mut one, &mut other] {
        assert_eq!(heard(events), ["a", "a", "b", "a"]);
    }
}

#[test]
fn what_changed_nothing_or_failed_is_not_heard() {
    let db = db();
    put(&db, "a", 1);
    let mut events = db.subscribe();
    put(&db, "a", 1);
    db.transaction(|tx| {
        tx.put("task", "b", [("number", 1.into())])?;
        Err::<(), _>(rivus::Error::app("no"))
    })
    .unwrap_err();
    db.view("task", "a").unwrap();
    assert_eq!(heard(&mut events), Vec::<String>::new());
}

#[test]
fn a_slow_subscriber_is_told_once_what_it_missed() {
    let db = db();
    let mut events = db.subscribe();
    let kept = 1024;
    for number in 0..kept + 10 {
        put(&db, &number.to_string(), number);
    }
    let first = events.next().now_or_never().flatten().unwrap();
    assert_eq!(first, Err(Lagged { missed: 10 }));
    let expected: Vec<_> = (10..kept + 10).map(|number| number.to_string()).collect();
    assert_eq!(heard(&mut events), expected);
}

#[test]
fn a_waiting_subscriber_is_woken_and_ends_with_the_database() {
    let db = db();
    let mut events = db.subscribe();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let waiting = tokio::spawn(async move {
            let mut ids = Vec::new();
            while let Some(event) = events.next().await {
                if let Ok(Event::Changed { id, .. }) = event {
                    ids.push(id);
                }
            }
            ids
        });
        // Let it begin to wait.
        tokio::task::yield_now().await;
        put(&db, "a", 1);
        tokio::task::yield_now().await;
        put(&db, "b", 1);
        drop(db);
        assert_eq!(waiting.await.unwrap(), ["a", "b"]);
    });
}
