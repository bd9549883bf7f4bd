//! Writing a row anew with changes in it.

use std::cmp::Ordering;

use smallvec::{SmallVec, smallvec};

use super::change::{self, Change, Digested, State};
use super::{
    CHUNK_BYTES_MAX, Confirmed, Corrupt, EVICTED, Entries, Entry, Row, VERSION, encode_register, evicted,
    flag, plain, put_head,
};
use crate::bytes::{Put, Reader};

/// How long the pieces of a split row are, about, in bytes.
const CHUNK_BYTES_AIM: usize = 2048;

/// A row after changes, and what changed.
#[derive(Debug)]
pub(crate) struct Applied {
    /// The new bytes, by first address. The first keeps the row's start; others are new chunks. Empty if
    /// nothing changed.
    pub(crate) rows: SmallVec<[(Vec<u8>, Vec<u8>); 1]>,
    /// Whether a shown register changed.
    pub(crate) shown_changed: bool,
}

/// Applies changes, ascending by address and all belonging to this chunk, in one pass; `buffer` is scratch space.
///
/// A row that was already rewritten in this commit, so that its seq is not known yet, is read with seq 0. Several
/// changes of one address are applied in their order.
///
/// # Errors
/// [`Corrupt`] if the row is.
pub(crate) fn apply<'a, A: AsRef<[u8]>>(
    row: Row<'a>,
    changes: &'a [(A, Change<'a>)],
    buffer: &mut Vec<u8>,
    digested: &mut Digested<'_>,
) -> Result<Applied, Corrupt> {
    let mut rewrite = Rewrite::new(row, buffer);
    let body = rewrite.out.len();
    let (mut changed, mut shown_changed) = (false, false);
    for now in changes.chunk_by(|(one, _), (two, _)| one.as_ref() == two.as_ref()) {
        let Some((first, _)) = now.first() else { break };
        let address = first.as_ref();
        let entry = rewrite.seek(address)?;
        if row.evicted && entry.map_or_else(|| !digested.keeps(address), |entry| entry.is_share()) {
            let changes = now.iter().map(|(_, change)| change);
            if let Some(share) = evicted::replace(address, entry.as_ref(), changes, digested)? {
                changed = true;
                rewrite.replace(|out| out.extend_from_slice(&share));
            }
            continue;
        }
        if let (Some(entry), [(_, change)]) = (&entry, now)
            && let Some(usual) = plain::usual(entry, change, digested)?
        {
            if let Some(after) = usual {
                changed = true;
                shown_changed |= after.shown_changed;
                rewrite.replace(|out| after.encode(address, out));
            }
            continue;
        }
        let before = entry.map(|e| e.state()).transpose()?;
        let outcome = change::step(address, before, now.iter().map(|(_, change)| change), digested);
        if outcome.changed {
            changed = true;
            shown_changed |= outcome.shown_changed;
            rewrite.replace(|out| {
                if let Some(after) = &outcome.after {
                    push_entry(out, address, after);
                }
            });
        }
    }
    if !changed {
        return Ok(Applied { rows: SmallVec::new(), shown_changed: false });
    }
    rewrite.finish()?;
    let rows = if buffer.len() > CHUNK_BYTES_MAX {
        split(buffer, body)?
    } else {
        smallvec![(Vec::new(), buffer.clone())]
    };
    Ok(Applied { rows, shown_changed: shown_changed && !row.evicted })
}

/// The order of two addresses. Mostly their first bytes decide, which are compared as a number.
#[inline(always)]
fn order(one: &[u8], two: &[u8]) -> Ordering {
    match (one.first_chunk(), two.first_chunk()) {
        (Some(one), Some(two)) if one != two => u64::from_be_bytes(*one).cmp(&u64::from_be_bytes(*two)),
        _ => one.cmp(two),
    }
}

/// A row being written. What does not change is copied in runs of entries.
struct Rewrite<'o, 'a> {
    out: &'o mut Vec<u8>,
    /// What is neither copied nor replaced yet.
    run: &'a [u8],
    /// What is not looked at yet: the end of `run`.
    rest: &'a [u8],
    /// What follows the entry that was sought, if it is there.
    after: &'a [u8],
    row_seq: u64,
}

impl<'o, 'a> Rewrite<'o, 'a> {
    fn new(row: Row<'a>, out: &'o mut Vec<u8>) -> Self {
        out.clear();
        out.push(if row.evicted { EVICTED } else { VERSION });
        out.slice(row.end);
        Self { out, run: row.entries, rest: row.entries, after: row.entries, row_seq: row.seq }
    }

    /// Copies what was passed over.
    fn flush(&mut self) {
        let passed = self.run.len() - self.rest.len();
        self.out.extend_from_slice(self.run.get(..passed).unwrap_or_default());
        self.run = self.rest;
    }

    /// Passes over everything before this address, and gives the entry that is there.
    fn seek(&mut self, address: &[u8]) -> Result<Option<Entry<'a>>, Corrupt> {
        loop {
            let mut entries = Entries { reader: Reader::new(self.rest), row_seq: self.row_seq, whole: false };
            let Some(entry) = entries.next_entry()? else { break };
            let after = entries.reader.rest();
            match order(entry.address, address) {
                Ordering::Less => self.pass(&entry, after),
                Ordering::Equal => {
                    self.after = after;
                    return Ok(Some(entry));
                }
                Ordering::Greater => break,
            }
        }
        self.after = self.rest;
        Ok(None)
    }

    /// Passes over an entry, giving it its own seq if it shares the row's.
    #[inline(always)]
    fn pass(&mut self, entry: &Entry<'a>, after: &'a [u8]) {
        if entry.flags & (flag::SEQ | flag::SHARE) == 0 && entry.row_seq != 0 {
            self.flush();
            entry.encode_with_seq(self.out);
            self.run = after;
        }
        self.rest = after;
    }

    /// Writes something in place of what was sought.
    #[inline]
    fn replace(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.flush();
        write(self.out);
        self.rest = self.after;
        self.run = self.after;
    }

    /// Copies everything else.
    fn finish(mut self) -> Result<(), Corrupt> {
        if self.row_seq != 0 {
            let mut entries = Entries { reader: Reader::new(self.rest), row_seq: self.row_seq, whole: false };
            while let Some(entry) = entries.next_entry()? {
                self.pass(&entry, entries.reader.rest());
            }
        }
        self.rest = &[];
        self.flush();
        Ok(())
    }
}

fn push_entry(out: &mut Vec<u8>, address: &[u8], state: &State<'_>) {
    let confirmed = match state.confirmed {
        Confirmed::Same => 0,
        Confirmed::Absent => flag::CONFIRMED_ABSENT,
        Confirmed::Register(_) => flag::CONFIRMED,
    };
    out.sized(|out| {
        put_head(out, confirmed, address, state.seq, state.source);
        if let Confirmed::Register(confirmed) = &state.confirmed {
            out.sized(|out| encode_register(&state.shown, out));
            encode_register(confirmed, out);
        } else {
            encode_register(&state.shown, out);
        }
    });
}

/// Cuts a row that has grown too long into pieces.
fn split(bytes: &[u8], body: usize) -> Result<SmallVec<[(Vec<u8>, Vec<u8>); 1]>, Corrupt> {
    let row = Row::new(bytes, 0)?;
    let pieces = (bytes.len() - body).div_ceil(CHUNK_BYTES_AIM);
    let aim = (bytes.len() - body) / pieces;
    let mut cuts: Vec<(&[u8], Vec<u8>)> = vec![(&[], Vec::new())];
    let mut entries = Entries { whole: false, ..row.entries() };
    let mut rest = row.entries;
    while let Some(entry) = entries.next_entry()? {
        let len = rest.len() - entries.reader.remaining();
        let (whole, after) = rest.split_at_checked(len).ok_or(Corrupt)?;
        rest = after;
        if let Some((_, piece)) = cuts.last()
            && !piece.is_empty()
            && piece.len() + len / 2 > aim
        {
            cuts.push((entry.address, Vec::new()));
        }
        if let Some((_, piece)) = cuts.last_mut() {
            piece.extend_from_slice(whole);
        }
    }
    let ends = cuts.iter().skip(1).map(|(start, _)| *start).chain([row.end]);
    let rows = cuts.iter().zip(ends).map(|((start, piece), end)| {
        let mut out = Vec::with_capacity(piece.len() + end.len() + 4);
        out.push(if row.evicted { EVICTED } else { VERSION });
        out.slice(end);
        out.extend_from_slice(piece);
        (start.to_vec(), out)
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Stamp;
    use crate::id::{Incarnation, ReplicaId, StoreId};
    use crate::register::{Candidate, Reach, Register, Saw};

    const VALUES: [&[u8]; 3] = [&[0xf4], &[0xf5], &[0x18, 0x63]];

    fn change() -> impl Strategy<Value = Change<'static>> {
        let saw = proptest::option::of((0..2_u64, 0..300_u64));
        (0..8_u8, 0..9_u64, 0..3_u128, 0..3_usize, 0..2_u8, saw).prop_map(
            |(what, time, replica, value, rank, saw)| {
                let stamp =
                    Stamp { generation: 0, time: 1000 + time, replica: ReplicaId::from_u128(replica) };
                let saw = saw.map(|(incarnation, done)| Saw { incarnation: Incarnation(incarnation), done });
                let own = Candidate { stamp, rank, saw, value: VALUES[value] };
                let register = Register::plain(own);
                match what {
                    0..3 => Change::Join { register, source: (what > 0).then_some(StoreId(u64::from(what))) },
                    3..6 => Change::Pend(register),
                    6 => Change::Accept(register),
                    _ if time < 2 => Change::Withdraw,
                    _ => Change::Join { register: Register::write(None, own, Reach::Infinite), source: None },
                }
            },
        )
    }

    /// A row of entries of these lengths, addresses ascending, that ends with `end`. Each is at least 136 bytes long.
    fn row_of(end: &[u8], lens: &[usize]) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.slice(end);
        for (len, n) in lens.iter().zip(0..) {
            let from = out.len();
            out.sized(|out| {
                out.push(0);
                out.slice(&[n]);
                // Two bytes of the length, the flags, and the address.
                out.resize(out.len() + len - 5, 0);
            });
            assert_eq!(out.len() - from, *len);
        }
        out
    }

    #[test]
    fn a_long_row_is_cut_into_pieces_of_about_the_same_length() {
        let cases: [(&[usize], &[usize]); 6] = [
            (&[800; 5], &[3, 2]),
            (&[500; 9], &[3, 3, 3]),
            (&[500; 10], &[3, 3, 3, 1]),
            (&[5000, 200, 200], &[1, 2]),
            (&[200, 5000, 200], &[1, 1, 1]),
            (&[1700, 600, 1700], &[2, 1]),
        ];
        for (lens, pieces) in cases {
            for end in [&[][..], &[9; 1500]] {
                let bytes = row_of(end, lens);
                let body = bytes.len() - lens.iter().sum::<usize>();
                let rows = split(&bytes, body).unwrap();
                let counts: Vec<_> =
                    rows.iter().map(|(_, row)| Row::new(row, 0).unwrap().entries().count()).collect();
                assert_eq!(counts, pieces, "{lens:?}");
                let last = rows.last().unwrap();
                assert_eq!(Row::new(&last.1, 0).unwrap().end, end);
            }
        }
    }

    #[test]
    fn a_row_of_the_greatest_length_stays_one_row() {
        fn own(value: &[u8]) -> Register<'_> {
            let stamp = Stamp { generation: 0, time: 9, replica: ReplicaId::from_u128(1) };
            Register::plain(Candidate { stamp, rank: 0, saw: None, value })
        }
        let pieces = |len: usize| {
            let (mut packing, mut buffer) = (Vec::new(), Vec::new());
            let mut digested = Digested::new(&mut buffer, "task", "t");
            let value = vec![0; len];
            let changes = [(b"a", Change::Pend(own(&[0; 1000]))), (b"b", Change::Pend(own(&value)))];
            let applied = apply(Row::empty(), &changes, &mut packing, &mut digested).unwrap();
            (packing.len(), applied.rows.len())
        };
        let (base, _) = pieces(2000);
        let longest = 2000 + CHUNK_BYTES_MAX - base;
        assert_eq!(pieces(longest), (CHUNK_BYTES_MAX, 1));
        assert_eq!(pieces(longest + 1), (CHUNK_BYTES_MAX + 1, 2));
    }

    #[test]
    fn addresses_are_in_the_order_of_their_bytes_however_many_they_share() {
        let addresses: [&[u8]; 8] =
            [b"", b"a", b"abcdefg", b"abcdefgh", b"abcdefgh1", b"abcdefgh2", b"abcdefgi", b"b"];
        for one in addresses {
            for two in addresses {
                assert_eq!(order(one, two), one.cmp(two), "{one:?} and {two:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_usual_way_makes_the_same_bytes_and_sums(changes in proptest::collection::vec((change(), any::<bool>()), 1..12)) {
            let address = crate::address::field("title");
            let (mut bytes, mut packing) = (Vec::new(), Vec::new());
            for (seq, (change, fresh)) in (200..).zip(&changes) {
                let row_seq = if *fresh { 0 } else { seq };
                let row = if bytes.is_empty() { Row::empty() } else { Row::new(&bytes, row_seq).unwrap() };
                let (mut one, mut two) = (Vec::new(), Vec::new());
                let mut by_usual = Digested::new(&mut one, "task", "t");
                let mut by_step = Digested::new(&mut two, "task", "t");
                let entry = row.find(&address).unwrap();
                let before = entry.map(|entry| entry.state().unwrap());
                let outcome = change::step(&address, before, [change].into_iter(), &mut by_step);
                if let Some(entry) = entry && let Some(usual) = plain::usual(&entry, change, &mut by_usual).unwrap() {
                    prop_assert_eq!(usual.is_some(), outcome.changed);
                    prop_assert_eq!(by_usual.sums, by_step.sums);
                    if let Some(after) = usual {
                        let (mut quick, mut slow) = (Vec::new(), Vec::new());
                        after.encode(&address, &mut quick);
                        push_entry(&mut slow, &address, outcome.after.as_ref().unwrap());
                        prop_assert_eq!(quick, slow);
                        prop_assert_eq!(after.shown_changed, outcome.shown_changed);
                    }
                }
                let applied = apply(row, &[(&address[..], change.clone())], &mut packing, &mut by_step).unwrap();
                if let Some((_, after)) = applied.rows.into_iter().next() {
                    bytes = after;
                }
            }
        }
    }
}
