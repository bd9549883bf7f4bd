//! Packed rows: the registers of an entity, or of one chunk of a large entity, in one piece of bytes.
//!
//! Owns the stored form of registers and what one change does to one of them. Stores keep these bytes as they
//! are; only this module reads them. A row is a header (version, where the next chunk starts) and entries in
//! order of address. An entry carries the register's seq and source and, while pending edits touch it, its
//! confirmed form beside the shown one. Unknown classes, fields and value types are entries like any other.
//!
//! A seq of 0 inside an entry means "the seq of the row", so that rows are packed before their seq is known.

mod change;
mod evicted;
mod form;
mod moved;
mod plain;
mod rewrite;

use std::fmt;

use crate::bytes::{Cut, Put, Reader};
use crate::id::StoreId;
use crate::register::Register;

pub use change::{Change, Digested, State, Sums};
pub(crate) use evicted::{evict, forget, restore, wipe};
pub use form::{decode_register, encode_register};
pub(crate) use moved::{leave, sums, touch};
pub(crate) use plain::{shows, spot};
pub(crate) use rewrite::apply;

/// The first byte of a row.
const VERSION: u8 = 1;

/// The first byte of a row of an entity that is evicted.
const EVICTED: u8 = 2;

/// A row longer than this is split into chunks, in bytes: a one-field edit rewrites one row.
pub const CHUNK_BYTES_MAX: usize = 4096;

mod flag {
    pub(super) const SEQ: u8 = 1;
    pub(super) const SOURCE: u8 = 2;
    pub(super) const CONFIRMED: u8 = 4;
    pub(super) const CONFIRMED_ABSENT: u8 = 8;
    pub(super) const KNOWN: u8 = 15;
    /// Not at hand: what follows the address is its share of the digest.
    pub(super) const SHARE: u8 = 16;
}

/// A packed row, borrowed from a store.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// The address at which the entity's next chunk starts; empty if this is the last.
    pub end: &'a [u8],
    entries: &'a [u8],
    seq: u64,
    evicted: bool,
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}

impl<'a> Row<'a> {
    /// How long its registers are, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Reads the header. `seq` is the row's own.
    ///
    /// # Errors
    /// [`Corrupt`] if the bytes are no row.
    pub fn new(bytes: &'a [u8], seq: u64) -> Result<Self, Corrupt> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION && version != EVICTED {
            return Err(Corrupt);
        }
        let end = reader.slice()?;
        Ok(Self { end, entries: reader.rest(), seq, evicted: version == EVICTED })
    }

    /// A chunk that does not exist yet.
    #[must_use]
    pub fn empty() -> Self {
        Row { end: &[], entries: &[], seq: 0, evicted: false }
    }

    /// Whether no register is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries in order of address; of an evicted entity those that are at hand.
    #[must_use]
    pub fn entries(&self) -> Entries<'a> {
        Entries { reader: Reader::new(self.entries), row_seq: self.seq, whole: self.evicted }
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

    /// The register at this address, decoded as a whole.
    ///
    /// # Errors
    /// [`Corrupt`] if the row is.
    pub(crate) fn state(&self, address: &[u8]) -> Result<Option<State<'a>>, Corrupt> {
        self.find(address)?.map(|entry| entry.state()).transpose()
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
    /// Whether those that are not at hand are passed over.
    whole: bool,
}

impl<'a> Entries<'a> {
    #[inline(always)]
    fn next_entry(&mut self) -> Result<Option<Entry<'a>>, Corrupt> {
        loop {
            if self.reader.is_empty() {
                return Ok(None);
            }
            let mut reader = Reader::new(self.reader.slice()?);
            let flags = reader.u8()?;
            let address = reader.slice()?;
            let entry = Entry { address, flags, tail: reader.rest(), row_seq: self.row_seq };
            if !self.whole || !entry.is_share() {
                return Ok(Some(entry));
            }
        }
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
    tail: &'a [u8],
    row_seq: u64,
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", crate::address::Parts::parse(self.address), self.state())
    }
}

impl<'a> Entry<'a> {
    /// Takes the entry apart without decoding its registers.
    #[inline]
    fn forms(&self) -> Result<Forms<'a>, Corrupt> {
        let mut reader = Reader::new(self.tail);
        let flags = self.flags;
        let both = flag::CONFIRMED | flag::CONFIRMED_ABSENT;
        if flags & !flag::KNOWN != 0 || flags & both == both {
            return Err(Corrupt);
        }
        let seq = if flags & flag::SEQ == 0 { self.row_seq } else { reader.varint()? };
        let source = if flags & flag::SOURCE == 0 { None } else { Some(StoreId(reader.u64()?)) };
        let shown = if flags & flag::CONFIRMED == 0 { reader.rest() } else { reader.slice()? };
        let confirmed = match flags & both {
            flag::CONFIRMED => ConfirmedForm::Register(reader.rest()),
            flag::CONFIRMED_ABSENT => ConfirmedForm::Absent,
            _ => ConfirmedForm::Same,
        };
        Ok(Forms { seq, source, shown, confirmed })
    }

    /// Decodes the whole entry.
    ///
    /// # Errors
    /// [`Corrupt`] if the bytes are no entry.
    pub fn state(&self) -> Result<State<'a>, Corrupt> {
        let Forms { seq, source, shown, confirmed } = self.forms()?;
        let confirmed = match confirmed {
            ConfirmedForm::Same => Confirmed::Same,
            ConfirmedForm::Absent => Confirmed::Absent,
            ConfirmedForm::Register(form) => Confirmed::Register(decode_register(form)?),
        };
        Ok(State { shown: decode_register(shown)?, confirmed, seq, source })
    }

    /// Appends the entry as it is in another row.
    fn put(&self, out: &mut Vec<u8>) {
        if self.flags & flag::SEQ == 0 && self.row_seq != 0 {
            self.encode_with_seq(out);
        } else {
            out.sized(|out| {
                out.push(self.flags);
                out.slice(self.address);
                out.extend_from_slice(self.tail);
            });
        }
    }

    /// Appends the entry with its own seq, as it no longer shares the row's.
    fn encode_with_seq(&self, out: &mut Vec<u8>) {
        out.sized(|out| {
            out.push(self.flags | flag::SEQ);
            out.slice(self.address);
            out.varint(self.row_seq);
            out.extend_from_slice(self.tail);
        });
    }

    /// Decodes the register that the application sees.
    ///
    /// # Errors
    /// [`Corrupt`] if the bytes are no entry.
    pub fn shown(&self) -> Result<Register<'a>, Corrupt> {
        Ok(decode_register(self.forms()?.shown)?)
    }
}

/// Appends how an entry begins; `confirmed` is the flag of its confirmed form.
fn put_head(out: &mut Vec<u8>, confirmed: u8, address: &[u8], seq: u64, source: Option<StoreId>) {
    let own_seq = if seq == 0 { 0 } else { flag::SEQ };
    out.push(confirmed | own_seq | if source.is_none() { 0 } else { flag::SOURCE });
    out.slice(address);
    if seq != 0 {
        out.varint(seq);
    }
    if let Some(source) = source {
        out.extend_from_slice(&source.0.to_be_bytes());
    }
}

/// An entry's parts, registers in their stored form.
struct Forms<'a> {
    seq: u64,
    source: Option<StoreId>,
    shown: &'a [u8],
    confirmed: ConfirmedForm<'a>,
}

#[derive(Clone, Copy)]
enum ConfirmedForm<'a> {
    Same,
    Absent,
    Register(&'a [u8]),
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
