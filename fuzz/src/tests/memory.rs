//! Frames made to take as much memory for their bytes as can be.

use rivus_core::id::StoreId;
use rivus_core::wire::page::{REGISTERS_MAX, RowDecoder, SEEN_MAX};
use rivus_core::wire::{Frame, WireError};

use super::*;
use crate::allocation::peak;

fn varint(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

fn slice(bytes: &[u8]) -> Vec<u8> {
    [&varint(bytes.len())[..], bytes].concat()
}

fn page(shape: &[u8], stamps: &[u8], values: &[u8]) -> Vec<u8> {
    [&[7, 4, 1][..], &slice(shape), &slice(stamps), values].concat()
}

/// A new entity of kind k and id t, without its registers.
fn entity(count: usize) -> Vec<u8> {
    [&[0, 0, 1, b'k', 1, b't'][..], &varint(count)].concat()
}

/// The header of an edit of a new replica.
const EDIT: [u8; 19] = [0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 2, 0];

/// The prefix of field f, told.
const FIELD: [u8; 5] = [4, 1, 0, 1, b'f'];

/// That many registers of one set, with keys of three bytes.
fn keys(count: usize) -> Vec<u8> {
    let mut shape = entity(count);
    for n in 0..count {
        shape.extend(if n == 0 { vec![1, 4, 200, 0, 1, b's'] } else { vec![1 << 3] });
        shape.extend([3, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
    }
    page(&shape, &EDIT, &vec![0xf6; count])
}

/// Entities of one register each, of six bytes.
fn entities(count: usize) -> Vec<u8> {
    let mut shape = [&entity(1)[..], &[1], &FIELD].concat();
    shape.extend([0, 1, 0, 1, 1 << 3].repeat(count - 1));
    page(&shape, &EDIT, &vec![0xf6; count])
}

/// Entities of a kind of their own, of one byte, which need not differ.
fn kinds(count: usize) -> Vec<u8> {
    let mut shape = [&entity(1)[..], &[1], &FIELD].concat();
    shape.extend([0, 0, 1, b'k', 0, 1, 1 << 3].repeat(count - 1));
    page(&shape, &EDIT, &vec![0xf6; count])
}

/// Entities with a field of their own, of no name.
fn fields(count: usize) -> Vec<u8> {
    let mut shape = [&entity(1)[..], &[1, 3, 1, 0, 0]].concat();
    shape.extend([1, 1, 0, 3, 1, 0, 0].repeat(count - 1));
    page(&shape, &EDIT, &vec![0xf6; count])
}

/// A known entity again and again, each time of an edit that is named once more.
fn edits(count: usize) -> Vec<u8> {
    let mut shape = [&entity(1)[..], &[1], &FIELD].concat();
    shape.extend([1, 1, 2 | 1 << 3, 0].repeat(count - 1));
    page(&shape, &EDIT, &vec![0xf6; count])
}

/// Edits of new replicas that saw new incarnations.
fn headers(count: usize) -> Vec<u8> {
    let mut shape = [&entity(1)[..], &[1], &FIELD].concat();
    shape.extend([1, 1, 1 | 1 << 3].repeat(count - 1));
    let header = [&[1][..], &[7; 16], &[2, 0, 0], &[9; 8], &[0]].concat();
    page(&shape, &header.repeat(count), &vec![0xf6; count])
}

/// A register of candidates of new replicas.
fn candidates(count: usize) -> Vec<u8> {
    let shape = [&entity(1)[..], &[7], &FIELD, &varint(count), &[0, 0], &vec![0; count]].concat();
    let mut stamps = Vec::new();
    for n in 0..count {
        stamps.push(0);
        stamps.extend((n as u128).to_be_bytes());
        stamps.extend([2, 0]);
    }
    page(&shape, &stamps, &vec![0xf6; count])
}

/// The same of known replicas, oldest first.
fn known_candidates(count: usize) -> Vec<u8> {
    let shape = [&[1, 1, 7 | 1 << 3][..], &varint(count), &[0, 0], &vec![0; count]].concat();
    let mut stamps = Vec::new();
    for n in 0..count {
        stamps.extend([&varint((count - n) << 2)[..], &[2, 0]].concat());
    }
    page(&shape, &stamps, &vec![0xf6; count])
}

/// One candidate and as many seen entries as may be, of replicas told before.
fn seen(count: usize) -> Vec<u8> {
    let shape = [&[1, 1, 7 | 1 << 3, 1][..], &varint(count), &[0, 0]].concat();
    let mut stamps = EDIT.to_vec();
    for n in 0..count {
        // The first a millisecond before the candidate, all others with it.
        stamps.extend([&varint(count + 1 - n)[..], &[0, u8::from(n == 0), 0]].concat());
    }
    page(&shape, &stamps, &[0xf6])
}

/// Counts that promise what does not follow.
fn promises() -> Vec<Vec<u8>> {
    let long = 1 << 20;
    let alive =
        [&entity(1)[..], &[7], &FIELD, &varint(REGISTERS_MAX), &[0, 0], &vec![0; REGISTERS_MAX]].concat();
    let many = [&entity(1)[..], &[7], &FIELD, &[1], &varint(SEEN_MAX), &[0, 0]].concat();
    vec![
        page(&alive, &EDIT, &vec![0xf6; REGISTERS_MAX]),
        page(&many, &vec![1; 4 * SEEN_MAX], &[0xf6]),
        page(&[&entity(REGISTERS_MAX)[..], &vec![0; REGISTERS_MAX]].concat(), &[], &[]),
        page(&entity(1), &EDIT, &vec![0x81; long]),
    ]
}

#[test]
fn pages_take_no_more_than_8_times_their_bytes_to_read() {
    let most = REGISTERS_MAX;
    let connections: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("registers of three bytes", vec![keys(most)]),
        ("entities of six bytes", vec![entities(most)]),
        ("entities of six bytes, in many frames", vec![entities(500); 300]),
        ("kinds of one byte", vec![kinds(most)]),
        ("kinds of one byte, in many frames", vec![kinds(500); 300]),
        ("fields without a name", vec![fields(most)]),
        ("edits named again", vec![edits(most)]),
        ("edits of new replicas and incarnations", vec![headers(most)]),
        ("the same in many frames", vec![headers(500); 300]),
        ("candidates of new replicas", vec![candidates(8192)]),
        ("candidates of known replicas", vec![candidates(8192), known_candidates(8192)]),
        ("seen entries of known replicas", vec![candidates(8191), seen(8191)]),
    ];
    for (name, frames) in connections {
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let bytes: usize = frames.iter().map(|frame| frame.len()).sum();
        let (decoder, taken) = peak(|| {
            let mut decoder = RowDecoder::default();
            frames.iter().for_each(|frame| drop(decoder.page(frame, StoreId(1))));
            decoder
        });
        drop(decoder);
        println!("{name}: {bytes} bytes, {taken} of memory, {:.2} times", taken as f64 / bytes as f64);
        assert_eq!(rows_decode(&frames)[0], frames.len(), "{name}: all are sound");
        // The same with a fault at its very end.
        let (last, before) = frames.split_last().expect("at least one");
        let cut: Vec<&[u8]> = before.iter().copied().chain([&last[..last.len() - 1]]).collect();
        assert_eq!(rows_decode(&cut)[0], before.len(), "{name}: the last one is cut");
    }
    for frame in promises() {
        assert_eq!(rows_decode(&[&frame]), [0, 0]);
    }
}

#[test]
fn control_frames_take_no_more_than_8_times_their_bytes_to_read() {
    let within = |frame: &[u8], what: &str| within(TIMES_MAX, frame.len(), what, || Frame::decode(frame));
    let exceptions = [&[10, 5][..], &varint(REGISTERS_MAX), &[0; 8], &[0; 3 * REGISTERS_MAX]].concat();
    assert!(within(&exceptions, "ACK of many exceptions").is_ok());
    let policies = |count: usize| {
        let count_bytes = u32::try_from(count).unwrap().to_be_bytes();
        [&[4, 0xa1, 0, 0x9a][..], &count_bytes, &[0x83, 0x60, 0xf6, 0x60].repeat(count)].concat()
    };
    assert!(within(&policies(1 << 20)[..4 << 20], "policies cut short").is_err());
    assert!(within(&policies((1 << 20) - 10), "a million policies").is_ok());
    let history = [&[12, 0xa3, 0, 0, 1, 0, 2, 0x99, 0x50, 0][..], &[0x82, 0, 1].repeat(0x5000)].concat();
    let bound = WireError::Bound { what: "incarnations", max: 32 };
    assert_eq!(within(&history, "a list of incarnations"), Err(bound));
    for nest in [
        &[0x81][..],
        &[0x9f],
        &[0x82, 0x9f],
        &[0xa1, 0x00],
        &[0xbf, 0x00],
        &[0xd9, 0xff, 0x00],
        &[0x83, 0x9f, 0xbf],
    ] {
        let deep = [&[4, 0xa1, 9][..], &nest.repeat((4 << 20) / nest.len() - 3)].concat();
        let bound = WireError::Bound { what: "levels of nesting", max: 16 };
        assert_eq!(within(&deep, "nesting"), Err(bound), "{nest:?}");
    }
}

#[test]
fn a_list_of_100_000_small_integers_is_a_value() {
    let list = Value::List((0..100_000).map(|n| Value::from(n % 20)).collect());
    let bytes = list.to_bytes();
    let (read, peak) = peak(|| Value::decode(&bytes));
    assert_eq!(read, Ok(list));
    assert!(peak <= 33 * bytes.len(), "32 bytes an item: {peak} for {}", bytes.len());
}

#[test]
fn a_list_of_the_smallest_maps_takes_most() {
    let map = Value::Map([(String::new(), Value::from(0))].into());
    let bytes = Value::List(vec![map; 10_000]).to_bytes();
    let (read, peak) = peak(|| Value::decode(&bytes));
    assert!(read.is_ok());
    assert!((200 * bytes.len()..VALUE_TIMES_MAX * bytes.len()).contains(&peak), "{peak} for {}", bytes.len());
}
