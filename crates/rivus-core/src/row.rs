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

use std::cmp::Ordering;
use std::fmt;

use smallvec::{SmallVec, smallvec};

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
            // Quicker than the order, which would find out earlier that there is none.
            if entry.address == address {
                return Ok(Some(entry));
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
    #[inline(always)]
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

fn push_entry(out: &mut Vec<u8>, address: &[u8], state: &State<'_>) {
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
    out.sized(|out| {
        out.push(flags);
        out.slice(address);
        if state.seq != 0 {
            out.varint(state.seq);
        }
        if let Some(source) = state.source {
            out.extend_from_slice(&source.0.to_be_bytes());
        }
        if let Confirmed::Register(confirmed) = &state.confirmed {
            out.sized(|out| encode_register(&state.shown, out));
            encode_register(confirmed, out);
        } else {
            encode_register(&state.shown, out);
        }
    });
}

/// A row being written anew. What does not change is copied in runs of entries.
struct Rewrite<'o, 'a> {
    out: &'o mut Vec<u8>,
    row: Row<'a>,
    entries: Entries<'a>,
    next: Option<Entry<'a>>,
    /// Up to where the old entries are dealt with: copied or replaced.
    done: usize,
    /// Where `next` begins.
    at: usize,
}

impl<'o, 'a> Rewrite<'o, 'a> {
    fn new(row: Row<'a>, out: &'o mut Vec<u8>) -> Result<Self, Corrupt> {
        out.clear();
        out.push(VERSION);
        out.slice(row.end);
        let mut rewrite = Self { out, row, entries: row.entries(), next: None, done: 0, at: 0 };
        rewrite.advance()?;
        Ok(rewrite)
    }

    #[inline]
    fn advance(&mut self) -> Result<(), Corrupt> {
        self.at = self.row.entries.len() - self.entries.reader.remaining();
        self.next = self.entries.next_entry()?;
        Ok(())
    }

    /// Copies what was passed over.
    fn flush(&mut self) {
        self.out.extend_from_slice(self.row.entries.get(self.done..self.at).unwrap_or_default());
        self.done = self.at;
    }

    /// Passes over `next`, giving it its own seq if it shares the row's.
    #[inline]
    fn keep(&mut self, entry: &Entry<'a>) -> Result<(), Corrupt> {
        if entry.flags & flag::SEQ == 0 && entry.row_seq != 0 {
            self.flush();
            self.out.sized(|out| {
                out.push(entry.flags | flag::SEQ);
                out.slice(entry.address);
                out.varint(entry.row_seq);
                out.extend_from_slice(entry.tail);
            });
            return self.drop_next();
        }
        self.advance()
    }

    /// Leaves `next` out.
    fn drop_next(&mut self) -> Result<(), Corrupt> {
        self.flush();
        self.advance()?;
        self.done = self.at;
        Ok(())
    }

    /// Keeps everything before this address, and gives the entry that is there.
    fn seek(&mut self, address: &[u8]) -> Result<Option<Entry<'a>>, Corrupt> {
        while let Some(entry) = self.next {
            match entry.address.cmp(address) {
                Ordering::Less => self.keep(&entry)?,
                Ordering::Equal => return Ok(Some(entry)),
                Ordering::Greater => break,
            }
        }
        Ok(None)
    }

    /// Keeps everything else.
    fn finish(mut self) -> Result<(), Corrupt> {
        while let Some(entry) = self.next.filter(|entry| entry.row_seq != 0) {
            self.keep(&entry)?;
        }
        self.at = self.row.entries.len();
        self.flush();
        Ok(())
    }
}

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
    let mut rewrite = Rewrite::new(row, buffer)?;
    let body = rewrite.out.len();
    let (mut changed, mut shown_changed) = (false, false);
    for now in changes.chunk_by(|(one, _), (two, _)| one.as_ref() == two.as_ref()) {
        let Some((first, _)) = now.first() else { break };
        let address = first.as_ref();
        let entry = rewrite.seek(address)?;
        let before = entry.map(|e| e.state()).transpose()?;
        let outcome = change::step(address, before, now.iter().map(|(_, change)| change), digested);
        if !outcome.changed {
            continue;
        }
        changed = true;
        shown_changed |= outcome.shown_changed;
        rewrite.flush();
        if let Some(after) = &outcome.after {
            push_entry(rewrite.out, address, after);
        }
        if entry.is_some() {
            rewrite.drop_next()?;
        }
    }
    if !changed {
        return Ok(Applied { rows: SmallVec::new(), shown_changed: false });
    }
    rewrite.finish()?;
    let rows =
        if buffer.len() > CHUNK_BYTES_MAX { split(buffer, body)? } else { smallvec![(Vec::new(), buffer.clone())] };
    Ok(Applied { rows, shown_changed })
}

/// Cuts a row that has grown too long into pieces.
fn split(bytes: &[u8], body: usize) -> Result<SmallVec<[(Vec<u8>, Vec<u8>); 1]>, Corrupt> {
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
