//! Frames of any bytes.

use rivus_core::id::StoreId;
use rivus_core::replica::Delta;
use rivus_core::row::Change;
use rivus_core::value;
use rivus_core::wire::page::{RowDecoder, Rows};
use rivus_core::wire::{Frame, Scoped};

use crate::allocation::within;
use crate::samples;

/// How many times its bytes decoding may take, beside 64 KiB.
pub const TIMES_MAX: usize = 8;
/// How many times its bytes handing out may take: one part of a page is in memory, and a register of many candidates
/// is one.
const HAND_OUT_TIMES_MAX: usize = 24;

const SENDER: StoreId = StoreId(1);

/// Any frame, to a decoder that has read nothing and to one that has read a page.
pub fn frame_decode(data: &[u8]) {
    let frame = within(TIMES_MAX, data.len(), "a frame", || Frame::decode(data));
    if let Ok(frame) = frame
        && frame != Frame::Ignored
    {
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame), "what was read is written and read again");
    }
    if let Ok(scoped) = within(TIMES_MAX, data.len(), "an envelope", || Scoped::decode(data)) {
        assert_eq!(Scoped::decode(&scoped.encode()), Ok(scoped), "what was read is written and read again");
        rows_decode(&[samples::page(), scoped.frame, scoped.frame]);
    }
    rows_decode(&[data]);
    rows_decode(&[samples::page(), data, data]);
}

/// The frames of one connection, as pages and as pushes: how many of them are read.
pub fn rows_decode(frames: &[&[u8]]) -> [usize; 2] {
    let total: usize = frames.iter().map(|frame| frame.len()).sum();
    let read = |read: &dyn Fn(&mut RowDecoder, &[u8]) -> bool| {
        within(TIMES_MAX, total, "the frames of a connection", || {
            let mut decoder = RowDecoder::default();
            frames.iter().take_while(|frame| read(&mut decoder, frame)).count()
        })
    };
    let pages = read(&|decoder, frame| decoder.page(frame, SENDER).is_ok());
    let pushes = read(&|decoder, frame| decoder.push(frame, SENDER).is_ok());
    let (mut decoder, mut judge) = (RowDecoder::default(), RowDecoder::default());
    for frame in frames.iter().take(pages) {
        let page = decoder.page(frame, SENDER).expect("it was read before");
        within(HAND_OUT_TIMES_MAX, total, "handing out a page", || check_rows(&page.rows));
    }
    for frame in frames.iter().take(pushes) {
        let push = judge.push(frame, SENDER).expect("it was read before");
        let numbers: Vec<u64> = push.edits.clone().map(|edit| edit.number).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b) && numbers.len() == push.edits.len());
        within(HAND_OUT_TIMES_MAX, total, "handing out a push", || {
            push.edits.for_each(|edit| check_rows(&edit.delta));
        });
    }
    [pages, pushes]
}

fn check_rows(rows: &Rows<'_, '_>) {
    let mut latest = None;
    let read = rows.each::<()>(|part| {
        assert!(!part.changes.is_empty() && part.changes.is_sorted_by(|a, b| a.0 < b.0));
        for (address, change) in part.changes {
            assert!(rivus_core::address::is_well_formed(address));
            let Change::Join { register, .. } = change else { panic!("a frame holds joins: {change:?}") };
            assert_eq!(register.check(), Ok(()));
            for candidate in register.alive.iter() {
                assert_eq!(value::check(candidate.value), Ok(()));
                latest = latest.max(Some(candidate.stamp.time));
            }
        }
        Ok(())
    });
    assert_eq!((read, latest), (Ok(()), rows.latest()));
}
