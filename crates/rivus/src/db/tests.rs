//! What two databases show that hear of each other's edits.

use futures_core::Stream;
use rivus_core::address;
use rivus_core::id::StoreId;
use rivus_core::replica::{Event, Incoming, Origin, Trust};
use rivus_core::row::Change;

use super::*;
use crate::Candidate;

#[derive(Entity, Debug, Clone, Default, PartialEq)]
#[rivus(kind = "note")]
struct Note {
    #[rivus(id)]
    id: String,
    #[rivus(margin_ms = 60_000, resolver = longest)]
    text: String,
    #[rivus(multi)]
    titles: Vec<String>,
    #[rivus(counter)]
    views: i64,
    #[rivus(group = "span")]
    start: i64,
    #[rivus(group = "span")]
    stop: i64,
}

fn longest(candidates: &[Candidate<'_>]) -> Value {
    let length = |value: &Value| if let Value::Text(text) = value { text.len() } else { 0 };
    candidates.iter().map(|c| c.value).max_by_key(|value| length(value)).cloned().unwrap_or(Value::Null)
}

fn db() -> Db {
    Db::builder().entity::<Note>().memory().unwrap()
}

/// Joins all that `from` holds of the note into `to`.
fn join(from: &Db, to: &Db) {
    let store = from.lock().unwrap().identity().store;
    join_from(store, from, to);
}

/// The same, as if another store had sent it.
fn join_from(store: StoreId, from: &Db, to: &Db) {
    from.registers("note", "n", |at, state| {
        let mut address = Vec::new();
        address::encode(&mut address, at.class, at.name, at.key);
        let change = Change::Join { register: state.shown.clone(), source: Some(store) };
        let changes = vec![(address.into(), change)];
        let page = [Incoming { kind: "note".into(), id: "n".into(), changes }];
        let now = to.shared.clock.now();
        to.lock().unwrap().join(now, &page, Some(store), Trust::Peer, None).unwrap();
    })
    .unwrap();
}

/// Two databases that hold the same note and then each edit it.
fn edited(one: impl FnMut(&mut Note), other: impl FnMut(&mut Note)) -> [Db; 2] {
    let (a, b) = (db(), db());
    a.insert(&Note { id: "n".into(), titles: vec!["first".into()], ..Note::default() }).unwrap();
    join(&a, &b);
    a.edit("n", one).unwrap();
    b.edit("n", other).unwrap();
    join(&a, &b);
    join(&b, &a);
    [a, b]
}

/// What both show.
fn shown(dbs: &[Db; 2]) -> Note {
    let [a, b] = dbs.each_ref().map(|db| db.get::<Note>("n").unwrap().unwrap());
    assert_eq!(a, b);
    let [x, y] = dbs.each_ref().map(|db| db.status().unwrap().digest);
    assert_eq!(x, y);
    a
}

#[test]
fn concurrent_edits_of_different_fields_both_stay() {
    let dbs = edited(|n| n.views += 2, |n| n.views += 3);
    assert_eq!(shown(&dbs).views, 5);
    let dbs = edited(|n| n.views += 2, |n| n.text = "x".into());
    assert_eq!((shown(&dbs).views, shown(&dbs).text.as_str()), (2, "x"));
}

#[test]
fn a_resolver_of_ones_own_decides_within_the_margin() {
    let dbs = edited(|n| n.text = "much longer".into(), |n| n.text = "short".into());
    assert_eq!(shown(&dbs).text, "much longer");
    // What was seen is replaced, be it shorter.
    dbs[0].edit::<Note>("n", |n| n.text = "new".into()).unwrap();
    join(&dbs[0], &dbs[1]);
    assert_eq!(shown(&dbs).text, "new");
}

#[test]
fn a_group_is_never_torn() {
    let dbs = edited(|n| n.start = 1, |n| n.stop = 9);
    let note = shown(&dbs);
    assert!([(1, 0), (0, 9)].contains(&(note.start, note.stop)), "{note:?}");
}

#[test]
fn a_multi_field_shows_all_and_is_settled_by_one() {
    let dbs = edited(|n| n.titles = vec!["a".into()], |n| n.titles = vec!["b".into()]);
    let mut titles = shown(&dbs).titles;
    titles.sort();
    assert_eq!(titles, ["a", "b"]);
    // Another field is edited: both candidates stay.
    dbs[0].edit::<Note>("n", |n| n.views += 1).unwrap();
    assert_eq!(dbs[0].get::<Note>("n").unwrap().unwrap().titles.len(), 2);
    dbs[0].edit::<Note>("n", |n| n.titles.truncate(1)).unwrap();
    join(&dbs[0], &dbs[1]);
    assert_eq!(shown(&dbs).titles.len(), 1);
}

#[test]
fn events_say_where_a_change_came_from_and_wake_who_waits() {
    let (a, b) = (db(), db());
    a.put("note", "n", [("text", "x".into())]).unwrap();
    let mut events = Box::pin(b.subscribe());
    let mut changes = b.shared.changes.subscribe();
    join(&a, &b);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let store = a.lock().unwrap().identity().store;
    let std::task::Poll::Ready(event) = events.as_mut().poll_next(&mut context) else { panic!("no event") };
    let expected = Event::Changed { kind: "note".into(), id: "n".into(), origin: Origin::Remote(store) };
    assert_eq!(event, Some(Ok(expected)));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    // The same again changes nothing and wakes nobody.
    join(&a, &b);
    assert!(!changes.has_changed().unwrap());
}

/// What a hub believes to have from the device it never sends to it: the digests tell, and the sync says what it did.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_exchanges_the_registers_that_differ_and_counts_them() {
    let (hub, device, other) = (db(), db(), db());
    let served = hub.serve("127.0.0.1:0", crate::HubOptions::open()).await.unwrap();
    let remote = crate::Remote::new(served.url());
    for n in 0..500 {
        device.insert(&Note { id: format!("{n}"), text: "text".into(), ..Note::default() }).unwrap();
    }
    let report = device.sync(&remote).await.unwrap();
    assert_eq!((report.diverged, report.repaired), (false, 0));
    other.insert(&Note { id: "n".into(), text: "lost".into(), ..Note::default() }).unwrap();
    let store = device.lock().unwrap().identity().store;
    join_from(store, &other, &hub);
    let report = device.sync(&remote).await.unwrap();
    assert!(report.diverged && report.verified && !report.peer.is_empty(), "{report:?}");
    assert!((1..10).contains(&report.repaired) && report.pulled.received == report.repaired, "{report:?}");
    assert!(report.bytes_sent + report.bytes_received < 3000, "{report:?}");
    assert_eq!(device.get::<Note>("n").unwrap().unwrap().text, "lost");
    let report = device.sync(&remote).await.unwrap();
    assert!(!report.diverged && report.verified && report.repaired == 0, "{report:?}");
    served.shutdown().await;
}
