//! Rows put together by hand: what is found in them at a glance, and the edit of one entry against the general way.

use super::*;
use crate::clock::Stamp;
use crate::id::ReplicaId;
use crate::register::Register;
use crate::row::{apply, encode_register};
use crate::view::{FALSE, TRUE};

/// Where the chunk after these rows starts.
const END: &[u8] = b"\x09\x00\x01end";
const ROW_SEQ: u64 = 300;
const HELD: Stamp = Stamp { generation: 0, time: 5, replica: ReplicaId([2; 16]) };

/// Addresses of which some begin with others, and some are as long as others.
const ADDRESSES: [&[u8]; 4] = [LIFE, b"\x01\x00\x01ab", b"\x01\x00\x01abc", b"\x01\x00\x01abd"];

fn candidate(time: u64, value: &[u8]) -> Candidate<'_> {
    Candidate { stamp: Stamp { time, ..HELD }, rank: 0, saw: None, value }
}

/// A row of these registers; a seq of 0 is that of the row.
fn row_of(registers: &[(&[u8], u64, Register<'_>)]) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.slice(END);
    for (address, seq, register) in registers {
        out.sized(|out| {
            out.push(if *seq == 0 { 0 } else { flag::SEQ });
            out.slice(address);
            if *seq != 0 {
                out.varint(*seq);
            }
            encode_register(register, out);
        });
    }
    out
}

/// The four addresses, each with itself for a value. A bit of `own_seqs` gives an entry a seq of its own.
fn four(own_seqs: u64) -> Vec<u8> {
    let registers: Vec<_> = ADDRESSES
        .iter()
        .zip(0..)
        .map(|(address, n)| {
            (*address, (own_seqs >> n & 1) * 200, Register::plain(candidate(HELD.time, address)))
        })
        .collect();
    row_of(&registers)
}

#[test]
fn an_entry_is_found_by_its_whole_address() {
    for own_seqs in 0..16 {
        let bytes = four(own_seqs);
        let row = Row::new(&bytes, ROW_SEQ).unwrap();
        for address in ADDRESSES {
            let spot = spot(row, address).unwrap();
            assert_eq!((spot.entry.address, spot.shown.value), (address, address));
            assert_eq!(spot.entry.state(), row.find(address).unwrap().unwrap().state());
        }
        for absent in [&b"\x01\x00\x01a"[..], b"\x01\x00\x01abe", b"\x01\x00\x01abcd", b"\x00\x00"] {
            assert!(spot(row, absent).is_none(), "{absent:?}");
        }
    }
}

#[test]
fn an_edit_of_one_entry_writes_the_row_that_the_general_way_writes() {
    let later = Register::plain(candidate(HELD.time + 1, b"later"));
    let source = Some(StoreId(3));
    for (own_seqs, address) in (0..16).flat_map(|own_seqs| ADDRESSES.map(|address| (own_seqs, address))) {
        for change in [Change::Pend(later.clone()), Change::Join { register: later.clone(), source }] {
            let bytes = four(own_seqs);
            let row = Row::new(&bytes, ROW_SEQ).unwrap();
            let (mut one, mut two) = (Vec::new(), Vec::new());
            let mut by_spot = Digested::new(&mut one, "task", "t");
            let mut by_rewrite = Digested::new(&mut two, "task", "t");
            let (mut quick, mut packing) = (b"what was here".to_vec(), Vec::new());
            assert!(spot(row, address).unwrap().apply(&change, &mut quick, &mut by_spot));
            let applied = apply(row, &[(address, change)], &mut packing, &mut by_rewrite).unwrap();
            assert_eq!(applied.rows.as_slice(), [(Vec::new(), quick)], "{own_seqs:#b}, {address:?}");
            assert_eq!(by_spot.sums, by_rewrite.sums);
        }
    }
}

#[test]
fn what_is_no_usual_change_writes_nothing() {
    let bytes = four(0);
    let row = Row::new(&bytes, ROW_SEQ).unwrap();
    let same = Register::plain(candidate(HELD.time, b"another"));
    let earlier = Register::plain(candidate(HELD.time - 1, b"earlier"));
    let unusual = [
        Change::Pend(same),
        Change::Pend(earlier.clone()),
        Change::Join { register: earlier.clone(), source: None },
        Change::Accept(earlier),
        Change::Withdraw,
    ];
    for change in unusual {
        let (mut buffer, mut out) = (Vec::new(), b"what was here".to_vec());
        let mut digested = Digested::new(&mut buffer, "task", "t");
        assert!(!spot(row, LIFE).unwrap().apply(&change, &mut out, &mut digested), "{change:?}");
        assert_eq!((out.as_slice(), digested.sums), (&b"what was here"[..], Sums::default()));
    }
}

#[test]
fn a_join_beneath_a_pending_edit_is_usual_unless_a_stamp_is_met_twice() {
    let plain = |time| Register::plain(candidate(time, b"other"));
    let bytes = four(0);
    let row = Row::new(&bytes, ROW_SEQ).unwrap();
    let (mut buffer, mut pended) = (Vec::new(), Vec::new());
    let mut digested = Digested::new(&mut buffer, "task", "t");
    let pend = Change::Pend(plain(HELD.time + 4));
    assert!(spot(row, LIFE).unwrap().apply(&pend, &mut pended, &mut digested));
    let entry = Row::new(&pended, ROW_SEQ).unwrap().find(LIFE).unwrap().unwrap();
    let mut joined = |time| {
        let change = Change::Join { register: plain(time), source: None };
        let after = usual(&entry, &change, &mut digested).unwrap()?;
        Some(after.map(|after| (after.shown_changed, after.confirmed.is_some())))
    };
    assert_eq!(joined(HELD.time - 1), Some(None), "already replaced");
    assert_eq!(joined(HELD.time), None, "the stamp that is confirmed");
    assert_eq!(joined(HELD.time + 1), Some(Some((false, true))), "between the two");
    assert_eq!(joined(HELD.time + 4), None, "the stamp that is pending");
    assert_eq!(joined(HELD.time + 5), Some(Some((true, false))), "above both");
}

#[test]
fn a_row_has_room_up_to_its_greatest_length() {
    let bytes = four(0);
    let row = Row::new(&bytes, ROW_SEQ).unwrap();
    let spot = spot(row, ADDRESSES[3]).unwrap();
    // Beside the new value: the entries, the end, two addresses and what an entry takes.
    let room = 4096 - row.entries.len() - 6 - 2 * 6 - 160;
    assert!(spot.has_room(room) && !spot.has_room(room + 1));
}

#[test]
fn an_entity_shows_at_a_glance_if_its_first_register_is_a_life_that_is_true() {
    let shown = |registers: &[(&[u8], u64, Register<'_>)]| {
        let bytes = row_of(registers);
        shows(Row::new(&bytes, ROW_SEQ).unwrap())
    };
    let life = |value| Register::plain(candidate(5, value));
    let open = |value| Register { floor: Stamp::LOWEST, ..life(value) };
    let one_of_two = open(TRUE).join(&Register {
        floor: Stamp::LOWEST,
        ..Register::plain(Candidate {
            stamp: Stamp { replica: ReplicaId([3; 16]), ..HELD },
            ..candidate(5, TRUE)
        })
    });
    assert!(shown(&[(LIFE, 0, life(TRUE))]));
    assert!(shown(&[(LIFE, 0, open(TRUE)), (ADDRESSES[1], 0, life(FALSE))]));
    assert!(!shown(&[(LIFE, 0, life(FALSE))]));
    assert!(!shown(&[(LIFE, 0, one_of_two)]));
    assert!(!shown(&[(ADDRESSES[1], 0, life(TRUE))]));
    assert!(!shown(&[]));
}
