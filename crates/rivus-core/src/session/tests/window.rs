//! How much of the pages may be on its way.

use super::*;
use crate::wire::{PAGE_BYTES_AIM, WINDOW_BYTES};

/// A page is filled until it is beyond its aim: by one row at most, of 10 KB here.
const PAGE_BYTES_MOST: u64 = PAGE_BYTES_AIM as u64 + 12_000;

fn filled(on: &mut Device, now: i64) {
    for n in 0..400 {
        put(on, now + n, &format!("t{n}"), "title", format!("{n}{}", "x".repeat(10_000)));
    }
}

/// All that a side can send now.
fn sent(session: &mut Session, replica: &mut Device) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| session.poll_transmit(replica, Millis(100_000)).unwrap()).collect()
}

fn take(session: &mut Session, replica: &mut Device, frames: &[Vec<u8>]) {
    for frame in frames {
        session.handle(replica, frame, Millis(100_000)).unwrap();
    }
}

fn page_bytes(frames: &[Vec<u8>]) -> u64 {
    frames.iter().filter(|frame| frame[0] == tag::DELTA).map(|frame| frame.len() as u64).sum()
}

/// Both sides, when the reader has subscribed and the writer has got that.
fn subscribed(reads: &mut Device, writes: &mut Device) -> (Session, Session) {
    let (mut reader, mut writer) = (client(Want::Live), server());
    for _ in 0..2 {
        let frames = sent(&mut reader, reads);
        take(&mut writer, writes, &frames);
        if writer.writing.is_some() {
            return (reader, writer);
        }
        let frames = sent(&mut writer, writes);
        take(&mut reader, reads, &frames);
    }
    panic!("not subscribed after two round trips");
}

#[test]
fn no_more_than_a_window_of_pages_is_on_its_way() {
    let (mut a, mut h) = (device(1), hub(9));
    filled(&mut h, 1000);
    let (mut reader, mut writer) = subscribed(&mut a, &mut h);
    let mut rounds = 0;
    while !reader.is_synced(a.head().unwrap().seq) {
        let pages = sent(&mut writer, &mut h);
        assert!(page_bytes(&pages) < WINDOW_BYTES + PAGE_BYTES_MOST, "{} bytes", page_bytes(&pages));
        // A reader that takes one frame gives room for one.
        let (first, rest) = pages.split_first().expect("a full window empties as its pages are taken");
        take(&mut reader, &mut a, std::slice::from_ref(first));
        let told = sent(&mut reader, &mut a);
        take(&mut writer, &mut h, &told);
        let more = sent(&mut writer, &mut h);
        assert!(page_bytes(&more) <= PAGE_BYTES_MOST, "{} bytes", page_bytes(&more));
        take(&mut reader, &mut a, rest);
        take(&mut reader, &mut a, &more);
        let told = sent(&mut reader, &mut a);
        take(&mut writer, &mut h, &told);
        rounds += 1;
        assert!(rounds < 20, "it comes to an end");
    }
    assert!(rounds >= 3, "4 MB are several windows");
    assert_same(&[&a, &h]);
}

#[test]
fn a_reader_that_tells_nothing_is_sent_one_window_and_what_it_wrote_is_judged_all_the_same() {
    let (mut a, mut h) = (device(1), hub(9));
    filled(&mut h, 1000);
    let (mut reader, mut writer) = subscribed(&mut a, &mut h);
    let pages = sent(&mut writer, &mut h);
    assert!(page_bytes(&pages) >= WINDOW_BYTES);
    put(&mut h, 50_000, "t0", "title", "later");
    writer.handle_quiet();
    assert_eq!(sent(&mut writer, &mut h), Vec::<Vec<u8>>::new());
    // The device has joined nothing yet, and pushes.
    put(&mut a, 60_000, "mine", "title", "pushed");
    let push = sent(&mut reader, &mut a);
    assert_eq!(push.iter().map(|frame| frame[0]).collect::<Vec<_>>(), [tag::PUSH]);
    take(&mut writer, &mut h, &push);
    let answer = sent(&mut writer, &mut h);
    assert_eq!(answer.iter().map(|frame| frame[0]).collect::<Vec<_>>(), [tag::ACK]);
    assert_eq!(shows(&h, "mine", "title"), text("pushed"));
}

#[test]
fn short_syncs_say_nothing_of_windows() {
    let (mut a, mut h) = (device(1), hub(9));
    for n in 0..100 {
        put(&mut h, 1000 + n, &format!("t{n}"), "title", "x");
    }
    let (mut reader, mut writer) = subscribed(&mut a, &mut h);
    let pages = sent(&mut writer, &mut h);
    take(&mut reader, &mut a, &pages);
    let answers = sent(&mut reader, &mut a);
    assert!(answers.iter().all(|frame| frame[0] != tag::WINDOW), "{answers:?}");
    assert!(reader.is_synced(a.head().unwrap().seq));
}

#[test]
fn a_window_cannot_be_widened_by_naming_what_was_not_sent_or_less_than_before() {
    for named in [|taken: u64| taken + 1, |_: u64| 0] {
        let (mut a, mut h) = (device(1), hub(9));
        filled(&mut h, 1000);
        let (_, mut writer) = subscribed(&mut a, &mut h);
        let taken = page_bytes(&sent(&mut writer, &mut h));
        let mut tell = |taken| writer.handle(&mut h, &Frame::Window { taken }.encode(), Millis(1));
        tell(taken).unwrap();
        assert!(tell(named(taken)).unwrap_err().to_string().contains("WINDOW beyond"));
    }
}
