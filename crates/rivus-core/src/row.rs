//! Packed rows: the registers of an entity, or of one chunk of a large entity, in one piece of bytes.
//!
//! Owns the stored form of registers and what one change does to one of them. Stores keep these bytes as they
//! are; only this module reads them. A row is a header (version, where the next chunk starts) and entries in
//! order of address. An entry carries the register's seq and source and, while pending edits touch it, its
//! confirmed form beside the shown one. Unknown classes, fields and value types are entries like any other.
//!
//! A seq of 0 inside an entry means "the seq of the row", so that rows are packed before their seq is known.

mod change;
mod form;

use std::fmt;

use crate::bytes::{Cut, Put, Reader};
use crate::id::StoreId;
use crate::register::Register;

pub use change::{Change, Digested, State, Sums};
pub use form::{decode_register, encode_register};

/// The first byte of every row.
const VERSION: u8 = 1;

/// A row longer than this is split into chunks, in bytes: a one-field edit rewrites one row.
pub const CHUNK_BYTES_MAX: usize = 4096;
/// How long the pieces of a split row are, about, in bytes.
const CHUNK_BYTES_AIM: usize = 2048;

mod flag {
    pub(super) const SEQ: u8 = 1;
    pub(super) const SOURCE: u8 = 2;
    pub(super) const CONFIRMED: u8 = 4;
    pub(super) const CONFIRMED_ABSENT: u8 = 8;
    pub(super) const KNOWN: u8 = 15;
}

/// A packed row, borrowed from a store.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// The address at which the entity's next chunk starts; empty if this is the last.
    pub end: &'a [u8],
    entries: &'a [u8],
    seq: u64,
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}

impl<'a> Row<'a> {
    /// Reads the header. `seq` is the row's own.
    ///
    /// # Errors
    /// [`Corrupt`] if the bytes are no row.
    pub fn new(bytes: &'a [u8], seq: u64) -> Result<Self, Corrupt> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Corrupt);
        }
        let end = reader.slice()?;
        Ok(Self { end, entries: reader.rest(), seq })
    }

    /// A chunk that does not exist yet.
    #[must_use]
    pub fn empty() -> Self {
        Row { end: &[], entries: &[], seq: 0 }
    }

    /// Whether no register is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries in order of address.
    #[must_use]
    pub fn entries(&self) -> Entries<'a> {
        Entries { reader: Reader::new(self.entries), row_seq: self.seq }
    }

    /// The entry at this address.
    ///
    /// # Errors
    /// [`Corrupt`] if the row is.
    pub fn find(&self, address: &[u8]) -> Result<Option<Entry<'a>>, Corrupt> {
        let mut entries = self.entries();
        while let Some(entry) = entries.next_entry()? {
            match entry.address.cmp(address) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(Some(entry)),
                std::cmp::Ordering::Greater => break,
            }
        }
        Ok(None)
    }

    /// Whether the address belongs to this chunk rather than to a later one.
    #[must_use]
    pub fn holds(&self, address: &[u8]) -> bool {
        self.end.is_empty() || address < self.end
    }
}

/// Iterator over a row's entries.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    reader: Reader<'a>,
    row_seq: u64,
}

impl<'a> Entries<'a> {
    #[inline]
    fn next_entry(&mut self) -> Result<Option<Entry<'a>>, Corrupt> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let body = self.reader.slice()?;
        let mut reader = Reader::new(body);
        let flags = reader.u8()?;
        let address = reader.slice()?;
        Ok(Some(Entry { address, flags, body, tail: reader.rest(), row_seq: self.row_seq }))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Corrupt>;
    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().transpose()
    }
}

/// One register of a row, not decoded yet.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// The encoded address.
    pub address: &'a [u8],
    flags: u8,
    body: &'a [u8],
    tail: &'a [u8],
    row_seq: u64,
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", crate::address::Parts::parse(self.address), self.state())
    }
}

impl<'a> Entry<'a> {
    /// Decodes the whole entry.
    ///
    /// # Errors
    /// [`Corrupt`] if the bytes are no entry.
    pub fn state(&self) -> Result<State<'a>, Corrupt> {
        let mut reader = Reader::new(self.tail);
        let flags = self.flags;
        let both = flag::CONFIRMED | flag::CONFIRMED_ABSENT;
        if flags & !flag::KNOWN != 0 || flags & both == both {
            return Err(Corrupt);
        }
        let seq = if flags & flag::SEQ == 0 { self.row_seq } else { reader.varint()? };
        let source = if flags & flag::SOURCE == 0 { None } else { Some(StoreId(reader.u64()?)) };
        let (shown, confirmed) = if flags & flag::CONFIRMED != 0 {
            let shown = decode_register(reader.slice()?)?;
            (shown, Confirmed::Register(decode_register(reader.rest())?))
        } else if flags & flag::CONFIRMED_ABSENT != 0 {
            (decode_register(reader.rest())?, Confirmed::Absent)
        } else {
            (decode_register(reader.rest())?, Confirmed::Same)
        };
        Ok(State { shown, confirmed, seq, source })
    }

    /// Decodes the register that the application sees.
    ///
    /// # Errors
    /// [`Corrupt`] if the bytes are no entry.
    pub fn shown(&self) -> Result<Register<'a>, Corrupt> {
        self.state().map(|state| state.shown)
    }
}

/// A register without the pending edits that touch it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Confirmed<'a> {
    /// No pending edit touches it: as shown.
    Same,
    /// Only pending edits made it.
    Absent,
    /// What is confirmed.
    Register(Register<'a>),
}

fn push_entry(out: &mut Vec<u8>, scratch: &mut Vec<u8>, address: &[u8], state: &State<'_>) {
    let mut flags = 0;
    if state.seq != 0 {
        flags |= flag::SEQ;
    }
    if state.source.is_some() {
        flags |= flag::SOURCE;
    }
    match state.confirmed {
        Confirmed::Same => {}
        Confirmed::Absent => flags |= flag::CONFIRMED_ABSENT,
        Confirmed::Register(_) => flags |= flag::CONFIRMED,
    }
    scratch.clear();
    scratch.push(flags);
    scratch.slice(address);
    if state.seq != 0 {
        scratch.varint(state.seq);
    }
    if let Some(source) = state.source {
        scratch.extend_from_slice(&source.0.to_be_bytes());
    }
    if let Confirmed::Register(confirmed) = &state.confirmed {
        let mut form = Vec::new();
        encode_register(&state.shown, &mut form);
        scratch.slice(&form);
        encode_register(confirmed, scratch);
    } else {
        encode_register(&state.shown, scratch);
    }
    out.slice(scratch);
}

/// Copies an entry that does not change, giving it its own seq if it shared the row's.
#[inline]
fn copy_entry(out: &mut Vec<u8>, entry: &Entry<'_>) {
    if entry.flags & flag::SEQ != 0 || entry.row_seq == 0 {
        out.slice(entry.body);
        return;
    }
    let seq_len = varint_len(entry.row_seq);
    out.varint((entry.body.len() + seq_len) as u64);
    out.push(entry.flags | flag::SEQ);
    out.slice(entry.address);
    out.varint(entry.row_seq);
    out.extend_from_slice(entry.tail);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// A row after changes, and what changed.
#[derive(Debug)]
pub struct Applied {
    /// The new bytes, by first address. The first keeps the row's start; others are new chunks. Empty if
    /// nothing changed.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether a shown register changed.
    pub shown_changed: bool,
}

/// Applies changes, ascending by address and all belonging to this chunk, in one pass.
///
/// `fresh` says that the row was already rewritten in this commit, so that its seq is not known yet (the row was
/// then read with seq 0). Several changes of one address are applied in their order.
///
/// # Errors
/// [`Corrupt`] if the row is.
pub fn apply<'a, A: AsRef<[u8]>>(
    row: Row<'a>,
    changes: &'a [(A, Change<'a>)],
    digested: &mut Digested<'_>,
) -> Result<Applied, Corrupt> {
    let mut out = Vec::with_capacity(row.entries.len() + row.end.len() + 8 + 96 * changes.len());
    out.push(VERSION);
    out.slice(row.end);
    let body = out.len();
    let mut scratch = Vec::with_capacity(128);
    let mut entries = row.entries();
    let mut next = entries.next_entry()?;
    let (mut changed, mut shown_changed) = (false, false);
    let mut rest = changes;
    while let Some((first, _)) = rest.first() {
        let address = first.as_ref();
        while let Some(entry) = next.filter(|e| e.address < address) {
            copy_entry(&mut out, &entry);
            next = entries.next_entry()?;
        }
        let here = rest.iter().take_while(|(a, _)| a.as_ref() == address).count();
        let (now, later) = rest.split_at(here);
        rest = later;
        let entry = next.filter(|e| e.address == address);
        let before = entry.map(|e| e.state()).transpose()?;
        let outcome = change::step(address, before, now.iter().map(|(_, change)| change), digested);
        changed |= outcome.changed;
        shown_changed |= outcome.shown_changed;
        match (outcome.changed, outcome.after, entry) {
            (true, Some(after), _) => push_entry(&mut out, &mut scratch, address, &after),
            (true, None, _) | (false, _, None) => {}
            (false, _, Some(entry)) => copy_entry(&mut out, &entry),
        }
        if entry.is_some() {
            next = entries.next_entry()?;
        }
    }
    if !changed {
        return Ok(Applied { rows: Vec::new(), shown_changed: false });
    }
    while let Some(entry) = next {
        copy_entry(&mut out, &entry);
        next = entries.next_entry()?;
    }
    let rows = if out.len() > CHUNK_BYTES_MAX { split(&out, body)? } else { vec![(Vec::new(), out)] };
    Ok(Applied { rows, shown_changed })
}

/// Cuts a row that has grown too long into pieces.
fn split(bytes: &[u8], body: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Corrupt> {
    let row = Row::new(bytes, 0)?;
    let pieces = (bytes.len() - body).div_ceil(CHUNK_BYTES_AIM);
    let aim = (bytes.len() - body) / pieces;
    let mut cuts: Vec<(&[u8], Vec<u8>)> = vec![(&[], Vec::new())];
    for entry in row.entries() {
        let entry = entry?;
        if let Some((_, piece)) = cuts.last()
            && !piece.is_empty()
            && piece.len() + entry.body.len() / 2 > aim
        {
            cuts.push((entry.address, Vec::new()));
        }
        if let Some((_, piece)) = cuts.last_mut() {
            piece.slice(entry.body);
        }
    }
    let ends = cuts.iter().skip(1).map(|(start, _)| *start).chain([row.end]);
    let rows = cuts.iter().zip(ends).map(|((start, piece), end)| {
        let mut out = Vec::with_capacity(piece.len() + end.len() + 4);
        out.push(VERSION);
        out.slice(end);
        out.extend_from_slice(piece);
        (start.to_vec(), out)
    });
    Ok(rows.collect())
}

/// A stored row does not have the form that this version writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a stored row is damaged or from a newer version: export what can be read, restore a backup, or update"
)]
pub struct Corrupt;

impl From<Cut> for Corrupt {
    fn from(_: Cut) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests;
