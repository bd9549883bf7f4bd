//! Rows of entities that move to another scope, or leave the store.

use super::change::{Digested, Sums};
use super::evicted::begin;
use super::{Corrupt, Row, VERSION, flag};
use crate::bytes::{Put, Reader};

/// What a row's registers are in the digests.
pub(crate) fn sums(row: Row<'_>, digested: &mut Digested<'_>) -> Result<Sums, Corrupt> {
    let mut sums = Sums::default();
    for entry in row.all_entries() {
        let entry = entry?;
        if entry.is_share() {
            let share = entry.share()?;
            sums.add(Sums { shown: share, confirmed: share, count: 1 });
            continue;
        }
        let state = entry.state()?;
        let shown = digested.hash(entry.address, &state.shown);
        let confirmed = match state.confirmed() {
            Some(register) if *register == state.shown => Some(shown),
            Some(register) => Some(digested.hash(entry.address, register)),
            None => None,
        };
        let count = i64::from(confirmed.is_some());
        sums.add(Sums { shown, confirmed: confirmed.unwrap_or(0), count });
    }
    Ok(sums)
}

/// A row with every register in it changed as of the row, and from nobody: whoever reads the order of changes gets all
/// of it.
pub(crate) fn touch(row: Row<'_>) -> Result<Vec<u8>, Corrupt> {
    let mut bytes = begin(row, if row.evicted { super::EVICTED } else { VERSION });
    for entry in row.all_entries() {
        let entry = entry?;
        let mut tail = Reader::new(entry.tail);
        if !entry.is_share() {
            if entry.flags & flag::SEQ != 0 {
                tail.varint()?;
            }
            if entry.flags & flag::SOURCE != 0 {
                tail.u64()?;
            }
        }
        bytes.sized(|out| {
            out.push(entry.flags & !(flag::SEQ | flag::SOURCE));
            out.slice(entry.address);
            out.extend_from_slice(tail.rest());
        });
    }
    Ok(bytes)
}

/// Takes a row out of the digests; what is left is empty.
pub(crate) fn leave(row: Row<'_>, digested: &mut Digested<'_>) -> Result<Vec<u8>, Corrupt> {
    let sums = sums(row, digested)?;
    digested.sums.add(Sums::default().minus(sums));
    Ok(begin(row, VERSION))
}
