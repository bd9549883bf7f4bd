use std::collections::BTreeSet;
use std::ops::ControlFlow;

use rivus_core::replica::Replica;
use rivus_core::store::{Head, MemoryStore, Store, Table};
use rivus_core::wire::Frame;

use super::*;

/// A row: kind, id, seq, bytes.
type Row = (String, String, u64, Vec<u8>);
/// A record: table, key, value.
type Record = (Table, Vec<u8>, Vec<u8>);

/// Everything that a store holds.
fn content(replica: &Replica<MemoryStore>) -> (Head, Vec<Row>, Vec<Record>) {
    let store = replica.store();
    let mut rows = Vec::new();
    let head = store.changes(0, &mut |row| {
        rows.push((row.kind.to_owned(), row.id.to_owned(), row.seq, row.bytes.to_vec()));
        ControlFlow::Continue(())
    });
    let mut records = Vec::new();
    for table in Table::ALL {
        let read = store.records(table, &[], &mut |key, value| {
            records.push((table, key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        });
        read.unwrap();
    }
    (head.unwrap(), rows, records)
}

#[test]
fn each_bad_frame_brings_its_error_changes_nothing_and_ends_the_connection() {
    let mut wrong = Vec::new();
    for bad in all() {
        let (mut replica, mut session) = bad.state.reach();
        let before = content(&replica);
        let outcome = session.handle(&mut replica, &bad.bytes, NOW);
        if !outcome.as_ref().is_err_and(|error| bad.expect.is(error)) {
            wrong.push(format!("{}: {:?}, not {outcome:?}", bad.name, bad.expect));
            continue;
        }
        assert_eq!(content(&replica), before, "{}: the store has changed", bad.name);
        assert_eq!(session.poll_events().next(), None, "{}", bad.name);
        let last = session.poll_transmit(&mut replica, NOW).unwrap();
        let Some(Ok(Frame::Goaway { code, .. })) = last.map(|frame| Frame::decode(&frame)) else {
            panic!("{}: the other side is not told", bad.name);
        };
        assert_eq!(code, bad.expect.code(), "{}", bad.name);
        assert!(session.is_closed(), "{}", bad.name);
        assert_eq!(session.poll_transmit(&mut replica, NOW), Ok(None), "{}", bad.name);
        assert_eq!(session.handle(&mut replica, &bad.bytes, NOW), Ok(()), "{}: over is over", bad.name);
        assert_eq!(content(&replica), before, "{}: the store has changed", bad.name);
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn each_has_a_name_of_its_own_and_the_manual_tells_how_many_there_are() {
    let all = all();
    let names: BTreeSet<&str> = all.iter().map(|bad| bad.name.as_str()).collect();
    assert_eq!(names.len(), all.len());
    assert!(all.len() >= 300, "{}", all.len());
    let manual = include_str!("../../../../docs/testing.md");
    let expected = format!("`rivus_testkit::bad_frames` has {} named frames", all.len());
    assert!(manual.contains(&expected), "docs/testing.md tells of another number than this: {expected}");
}

#[test]
fn two_bad_frames_differ_in_more_than_their_name() {
    let all = all();
    let different: BTreeSet<_> = all.iter().map(|bad| (bad.state, &bad.bytes)).collect();
    let mut twice = Vec::new();
    for (at, bad) in all.iter().enumerate() {
        let same = |other: &&BadFrame| (other.state, &other.bytes) == (bad.state, &bad.bytes);
        twice.extend(all.iter().skip(at + 1).find(same).map(|other| (&bad.name, &other.name)));
    }
    assert_eq!(different.len(), all.len(), "{twice:#?}");
}

#[test]
fn the_sound_frames_are_taken() {
    for (name, state, bytes) in good() {
        let (mut replica, mut session) = state.reach();
        assert_eq!(session.handle(&mut replica, &bytes, NOW), Ok(()), "{name}");
    }
}
