//! Rows of entities that are not at hand: what rules read of them stays whole, of the rest a share of the digest.
//!
//! Owns the form of a share and what becomes of it. A row of an evicted entity has a version of its own, so that a
//! program that does not know of eviction refuses the store instead of taking half an entity for a whole one.

use super::change::{Change, Digested, Sums};
use super::{Confirmed, Corrupt, EVICTED, Entries, Entry, Row, VERSION, flag};
use crate::bytes::{Put, Reader};
use crate::register::Register;

/// What became of a row.
#[derive(Debug)]
pub(crate) struct Rewritten {
    /// The new bytes.
    pub(crate) bytes: Vec<u8>,
    /// How many registers became shares, or were shares.
    pub(crate) shares: u64,
    /// How many candidates they have in all.
    pub(crate) candidates: usize,
    /// The newest time of any candidate that went.
    pub(crate) newest: u64,
}

impl<'a> Row<'a> {
    /// Whether the entity is evicted: its registers are at the authority, and here only what rules read of them.
    #[must_use]
    pub fn is_evicted(&self) -> bool {
        self.evicted
    }

    /// The registers that are not at hand: each one's address and share of the digest.
    pub(crate) fn shares(&self) -> impl Iterator<Item = Result<(&'a [u8], u128), Corrupt>> + use<'a> {
        let shares = self.all_entries().filter(|entry| entry.as_ref().map_or(true, Entry::is_share));
        shares.map(|entry| entry.and_then(|entry| Ok((entry.address, entry.share()?))))
    }

    /// Whether the register at this address is one of them.
    pub(crate) fn lacks(&self, address: &[u8]) -> Result<bool, Corrupt> {
        let mut shares = self.shares();
        shares.try_fold(false, |found, share| Ok(found || share?.0 == address))
    }

    pub(super) fn all_entries(&self) -> Entries<'a> {
        Entries { reader: Reader::new(self.entries), row_seq: self.seq, whole: false }
    }
}

impl Entry<'_> {
    pub(super) fn is_share(&self) -> bool {
        self.flags & flag::SHARE != 0
    }

    pub(super) fn share(&self) -> Result<u128, Corrupt> {
        Ok(u128::from_be_bytes(self.tail.try_into().map_err(|_| Corrupt)?))
    }
}

fn put_share(out: &mut Vec<u8>, address: &[u8], share: u128) {
    out.sized(|out| {
        out.push(flag::SHARE);
        out.slice(address);
        out.extend_from_slice(&share.to_be_bytes());
    });
}

/// Makes a row one of an evicted entity; `None` if an edit that is not confirmed touches it.
pub(crate) fn evict(row: Row<'_>, digested: &mut Digested<'_>) -> Result<Option<Rewritten>, Corrupt> {
    let mut to = Rewritten { bytes: begin(row, EVICTED), shares: 0, candidates: 0, newest: 0 };
    for entry in row.all_entries() {
        let entry = entry?;
        let state = entry.state()?;
        if state.confirmed != Confirmed::Same {
            return Ok(None);
        }
        to.candidates += state.shown.alive.len();
        if digested.keeps(entry.address) {
            entry.put(&mut to.bytes);
            continue;
        }
        to.shares += 1;
        to.newest = to.newest.max(state.shown.newest().stamp.time);
        put_share(&mut to.bytes, entry.address, digested.hash(entry.address, &state.shown));
    }
    Ok(Some(to))
}

/// Makes a row of an evicted entity one that holds what it has, and takes its shares out of the digest.
pub(crate) fn restore(row: Row<'_>, digested: &mut Digested<'_>) -> Result<Vec<u8>, Corrupt> {
    let mut bytes = begin(row, VERSION);
    for entry in row.all_entries() {
        let entry = entry?;
        if entry.is_share() {
            digested.sums.add(without(entry.share()?));
        } else {
            entry.put(&mut bytes);
        }
    }
    Ok(bytes)
}

/// Empties a row of an evicted entity and takes all that it stood for out of the digest.
pub(crate) fn forget(row: Row<'_>, digested: &mut Digested<'_>) -> Result<Vec<u8>, Corrupt> {
    for entry in row.all_entries() {
        let entry = entry?;
        let share =
            if entry.is_share() { entry.share()? } else { digested.hash(entry.address, &entry.shown()?) };
        digested.sums.add(without(share));
    }
    Ok(begin(row, VERSION))
}

/// Empties a row and takes all that it holds out of the digest, pending edits among it; says whether there were any.
pub(crate) fn wipe(row: Row<'_>, digested: &mut Digested<'_>) -> Result<(Vec<u8>, bool), Corrupt> {
    let mut is_pending = false;
    for entry in row.all_entries() {
        let entry = entry?;
        if entry.is_share() {
            digested.sums.add(without(entry.share()?));
            continue;
        }
        let state = entry.state()?;
        is_pending |= state.confirmed != Confirmed::Same;
        let shown = digested.hash(entry.address, &state.shown);
        let confirmed = match &state.confirmed {
            Confirmed::Same => Some(shown),
            Confirmed::Absent => None,
            Confirmed::Register(register) => Some(digested.hash(entry.address, register)),
        };
        digested.sums.add(Sums {
            shown: shown.wrapping_neg(),
            confirmed: confirmed.unwrap_or(0).wrapping_neg(),
            count: -i64::from(confirmed.is_some()),
        });
    }
    Ok((begin(row, VERSION), is_pending))
}

/// Replaces the share of an address by that of a register which the authority has told of, or drops it if that was
/// collected. The authority knows everything that was confirmed here, so its register holds whatever the share stood for.
pub(super) fn replace<'a>(
    address: &[u8],
    entry: Option<&Entry<'_>>,
    changes: impl Iterator<Item = &'a Change<'a>>,
    digested: &mut Digested<'_>,
) -> Result<Option<Vec<u8>>, Corrupt> {
    let mut register: Option<Register<'_>> = None;
    for change in changes {
        if matches!(change, Change::Forget) {
            let Some(entry) = entry else { return Ok(None) };
            digested.sums.add(without(entry.share()?));
            return Ok(Some(Vec::new()));
        }
        // Edits of what is not at hand are refused where they are made.
        let Change::Join { register: told, .. } = change else { return Err(Corrupt) };
        register = Some(register.map_or_else(|| told.clone(), |before| before.join(told)));
    }
    let (Some(register), before) = (register, entry.map(Entry::share).transpose()?) else { return Ok(None) };
    let share = digested.hash(address, &register);
    if before == Some(share) {
        return Ok(None);
    }
    let sum = share.wrapping_sub(before.unwrap_or(0));
    digested.sums.add(Sums { shown: sum, confirmed: sum, count: i64::from(before.is_none()) });
    let mut bytes = Vec::new();
    put_share(&mut bytes, address, share);
    Ok(Some(bytes))
}

fn without(share: u128) -> Sums {
    let sum = share.wrapping_neg();
    Sums { shown: sum, confirmed: sum, count: -1 }
}

pub(super) fn begin(row: Row<'_>, version: u8) -> Vec<u8> {
    let mut bytes = vec![version];
    bytes.slice(row.end);
    bytes
}
