//! Reading pages and pushes without unpacking them.
//!
//! A frame is read twice. The first time it is checked from end to end and the dictionaries learn its words; nothing
//! else of it is kept, so that decoding takes no more than a small multiple of the frame's bytes, whatever they say.
//! The second time ([`Rows`], [`Edits`]) it is read from its start, with the dictionaries as they were there, by
//! whoever wants its registers, some at a time.

mod parse;

use super::rows::{Edits, Fetched, Page, Push, Rows};
use super::{
    ANEW, ENTITIES, Edit, FIELDS, INCARNATIONS, KINDS, Last, PageHeader, REGISTERS_MAX, REPLICAS, SEEN_MAX,
    form,
};
use crate::bytes::{Cut, Reader};
use crate::id::{Incarnation, ReplicaId, StoreId};
use crate::register::Malformed;
use crate::wire::dictionary::{Known, Span};
use crate::wire::{FRAME_BYTES_MAX, WireError, tag};

use parse::{FullHead, Recent};
pub(super) use parse::{Parse, Place};

/// The reading side of a connection's row coding.
#[derive(Debug, Default)]
pub struct RowDecoder {
    words: Words,
    known: Spans,
    last: Last,
}

/// The dictionaries. An entity is the number of its kind, in 8 bytes, and its id.
#[derive(Debug)]
pub(super) struct Words {
    kinds: Known,
    pub(super) fields: Known,
    replicas: Known,
    incarnations: Known,
    entities: Known,
}

impl Default for Words {
    fn default() -> Self {
        let [kinds, fields, replicas, incarnations, entities] =
            [KINDS, FIELDS, REPLICAS, INCARNATIONS, ENTITIES].map(Known::new);
        Self { kinds, fields, replicas, incarnations, entities }
    }
}

impl Words {
    /// Kind and id of an entity.
    pub(super) fn names(&self, entity: u64) -> Result<(&str, &str), Cut> {
        let (kind, id) = self.entity(entity)?;
        let kind = self.kinds.word(kind).ok_or(Cut)?;
        Ok((std::str::from_utf8(kind).map_err(|_| Cut)?, std::str::from_utf8(id).map_err(|_| Cut)?))
    }

    fn entity(&self, entity: u64) -> Result<(u64, &[u8]), Cut> {
        let (kind, id) = self.entities.word(entity).and_then(<[u8]>::split_first_chunk).ok_or(Cut)?;
        Ok((u64::from_be_bytes(*kind), id))
    }

    fn trim(&mut self, known: &Spans) {
        self.fields.trim(known.fields.first());
        self.replicas.trim(known.replicas.first());
        self.incarnations.trim(known.incarnations.first());
        self.entities.trim(known.entities.first());
        if self.kinds.has_waste(known.kinds) {
            // Entities name kinds that can no longer be named otherwise.
            let named = known.entities.numbers().filter_map(|entity| Some(self.entity(entity).ok()?.0));
            let first = named.min().unwrap_or(u64::MAX).min(known.kinds.first());
            self.kinds.trim(first);
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Spans {
    kinds: Span,
    fields: Span,
    replicas: Span,
    incarnations: Span,
    entities: Span,
}

/// Where the words of a frame come from, and go to.
pub(super) trait Memory {
    fn words(&self) -> &Words;
    /// Keeps a new word, in the dictionary that `which` picks.
    fn keep(
        &mut self,
        which: fn(&mut Words) -> &mut Known,
        parts: [&[u8]; 2],
        cost: usize,
    ) -> Result<(), Cut>;
}

/// The first reading learns.
impl Memory for &mut Words {
    fn words(&self) -> &Words {
        self
    }

    fn keep(
        &mut self,
        which: fn(&mut Words) -> &mut Known,
        parts: [&[u8]; 2],
        cost: usize,
    ) -> Result<(), Cut> {
        which(self).append(parts, cost)
    }
}

/// The second finds what the first has learnt.
impl Memory for &Words {
    fn words(&self) -> &Words {
        self
    }

    #[inline(always)]
    fn keep(&mut self, _: fn(&mut Words) -> &mut Known, _: [&[u8]; 2], _: usize) -> Result<(), Cut> {
        Ok(())
    }
}

impl RowDecoder {
    /// Reads a page from `source`. After an error the connection is of no use any more.
    ///
    /// The memory taken is at most 8 times the bytes of all frames that were given, and 64 KiB.
    ///
    /// # Errors
    /// [`WireError`], saying what is wrong.
    pub fn page<'d, 'a>(&'d mut self, bytes: &'a [u8], source: StoreId) -> Result<Page<'d, 'a>, WireError> {
        let cut = |Cut| WireError::Malformed { frame: "DELTA" };
        let mut reader = start(bytes, tag::DELTA).map_err(cut)?;
        let flags = reader.u8().map_err(cut)?;
        if flags & !(15 | ANEW) != 0 {
            return Err(cut(Cut));
        }
        self.start_anew(flags);
        let at = reader.varint().map_err(cut)?;
        let incarnation = incarnation(&mut reader, flags).map_err(cut)?;
        let mut check = Check::default();
        let parse = self.check(reader, "DELTA", |parse| {
            while !parse.shape.is_empty() {
                check.entity(parse)?;
            }
            Ok(())
        })?;
        let (more, start, checkpoint) = (flags & 1 != 0, flags & 4 != 0, flags & 8 != 0);
        let header = PageHeader { at, more, incarnation, start, checkpoint };
        Ok(Page { header, rows: Rows::page(parse, source, &check) })
    }

    /// Reads an answer to FETCH from `source`. After an error the connection is of no use any more.
    ///
    /// The memory taken is as bounded as [`RowDecoder::page`] says.
    ///
    /// # Errors
    /// [`WireError`], saying what is wrong.
    pub fn fetched<'d, 'a>(
        &'d mut self,
        bytes: &'a [u8],
        source: StoreId,
    ) -> Result<Fetched<'d, 'a>, WireError> {
        self.without_position(bytes, source, (tag::FETCHED, "FETCHED"))
    }

    /// Reads registers that mend a difference, from `source`. After an error the connection is of no use any more.
    ///
    /// The memory taken is as bounded as [`RowDecoder::page`] says.
    ///
    /// # Errors
    /// [`WireError`], saying what is wrong.
    pub fn repair<'d, 'a>(
        &'d mut self,
        bytes: &'a [u8],
        source: StoreId,
    ) -> Result<Fetched<'d, 'a>, WireError> {
        self.without_position(bytes, source, (tag::REPAIR, "REPAIR"))
    }

    /// Drops the words that can no longer be named, once the last frame has been used. Else they stay until the next.
    pub fn trim(&mut self) {
        self.words.trim(&self.known);
    }

    fn without_position<'d, 'a>(
        &'d mut self,
        bytes: &'a [u8],
        source: StoreId,
        (tag, frame): (u8, &'static str),
    ) -> Result<Fetched<'d, 'a>, WireError> {
        let cut = |Cut| WireError::Malformed { frame };
        let mut reader = start(bytes, tag).map_err(cut)?;
        let flags = reader.u8().map_err(cut)?;
        if flags & !(1 | ANEW) != 0 {
            return Err(cut(Cut));
        }
        self.start_anew(flags);
        let mut check = Check::default();
        let parse = self.check(reader, frame, |parse| {
            while !parse.shape.is_empty() {
                check.entity(parse)?;
            }
            Ok(())
        })?;
        Ok(Fetched { more: flags & 1 != 0, rows: Rows::page(parse, source, &check) })
    }

    /// Reads a push from `source`. After an error the connection is of no use any more.
    ///
    /// The memory taken is as bounded as [`RowDecoder::page`] says.
    ///
    /// # Errors
    /// [`WireError`], saying what is wrong.
    pub fn push<'d, 'a>(&'d mut self, bytes: &'a [u8], source: StoreId) -> Result<Push<'d, 'a>, WireError> {
        let cut = |Cut| WireError::Malformed { frame: "PUSH" };
        let mut reader = start(bytes, tag::PUSH).map_err(cut)?;
        let flags = reader.u8().map_err(cut)?;
        if flags & !(2 | ANEW) != 0 {
            return Err(cut(Cut));
        }
        self.start_anew(flags);
        let (heard, head) = (reader.varint().map_err(cut)?, reader.varint().map_err(cut)?);
        let incarnation = incarnation(&mut reader, flags).map_err(cut)?;
        let (mut check, mut number, mut count) = (Check::default(), 0, 0);
        let parse = self.check(reader, "PUSH", |parse| {
            while !parse.shape.is_empty() {
                let (next, entities) = parse.edit_head(number)?;
                if count > 0 && next == number || entities == 0 {
                    return Err(RowError::Cut);
                }
                (number, count) = (next, count + 1);
                (0..entities).try_for_each(|_| check.entity(parse))?;
            }
            Ok(())
        })?;
        Ok(Push { heard, head, incarnation, edits: Edits::new(parse, source, count) })
    }

    /// Forgets what the sender has forgotten, if the frame's flags say so.
    fn start_anew(&mut self, flags: u8) {
        if flags & ANEW != 0 {
            *self = Self::default();
        }
    }

    /// Checks a frame from end to end and returns it to be read once more.
    fn check<'d, 'a>(
        &'d mut self,
        mut reader: Reader<'a>,
        frame: &'static str,
        check: impl FnOnce(&mut Parse<'a, &mut Words>) -> Result<(), RowError>,
    ) -> Result<Parse<'a, &'d Words>, WireError> {
        let cut = |Cut| WireError::Malformed { frame };
        self.words.trim(&self.known);
        let shape = Reader::new(reader.slice().map_err(cut)?);
        let stamps = Reader::new(reader.slice().map_err(cut)?);
        let (values, edits) = (reader.rest(), Recent::default());
        let (known, last) = (self.known, self.last);
        let words = &mut self.words;
        let mut parse = Parse { words, known, last, shape, stamps, values, edits: edits.clone() };
        check(&mut parse).map_err(|error| error.named(frame))?;
        if !parse.stamps.is_empty() || !parse.values.is_empty() {
            return Err(cut(Cut));
        }
        (self.known, self.last) = (parse.known, parse.last);
        Ok(Parse { words: &self.words, known, last, shape, stamps, values, edits })
    }
}

fn start(bytes: &[u8], tag: u8) -> Result<Reader<'_>, Cut> {
    let mut reader = Reader::new(bytes);
    if bytes.len() <= FRAME_BYTES_MAX && reader.u8()? == tag { Ok(reader) } else { Err(Cut) }
}

fn incarnation(reader: &mut Reader<'_>, flags: u8) -> Result<Option<Incarnation>, Cut> {
    if flags & 2 == 0 { Ok(None) } else { Ok(Some(Incarnation(reader.u64()?))) }
}

/// The first reading of a frame: its bounds, and the laws of its registers.
#[derive(Debug, Default)]
pub(super) struct Check {
    registers: usize,
    seen: usize,
    /// The newest time of any candidate.
    pub(super) latest: Option<u64>,
    /// Whose the candidates of one register are.
    authors: Vec<ReplicaId>,
}

impl Check {
    /// One entity with all its registers.
    pub(super) fn entity<W: Memory>(&mut self, parse: &mut Parse<'_, W>) -> Result<(), RowError> {
        let (_, count) = parse.entity()?;
        self.spend(count)?;
        let mut last: Option<Place<'_>> = None;
        for _ in 0..count {
            let (form, place) = parse.head()?;
            if last.is_some_and(|last| !rises(parse.words.words(), &last, &place)) {
                return Err(RowError::Cut);
            }
            last = Some(place);
            if form == form::FULL {
                self.full(parse)?;
            } else {
                let (edit, _) = parse.single(form)?;
                self.candidate(edit);
                parse.value()?;
            }
        }
        Ok(())
    }

    fn candidate(&mut self, edit: Edit) {
        self.latest = self.latest.max(Some(edit.stamp.time));
    }

    /// What [`Register::check`](crate::register::Register::check) checks, without the register.
    fn full<W: Memory>(&mut self, parse: &mut Parse<'_, W>) -> Result<(), RowError> {
        let FullHead { alive, seen, floor } = parse.full_head()?;
        self.spend(alive.saturating_sub(1))?;
        self.seen += seen;
        if self.seen > SEEN_MAX {
            return Err(WireError::Bound { what: "seen entries in a frame", max: SEEN_MAX }.into());
        }
        self.authors.clear();
        self.authors.reserve_exact(alive);
        let (mut first, mut newest, mut sorted) = (None, None, true);
        for _ in 0..alive {
            let edit = parse.edit()?;
            self.candidate(edit);
            parse.value()?;
            sorted &= newest < Some(edit.stamp);
            first = first.or(Some(edit.stamp));
            newest = Some(edit.stamp);
            self.authors.push(edit.stamp.replica);
        }
        let (Some(first), Some(newest)) = (first, newest) else { return Err(Malformed::NoCandidate.into()) };
        if floor > newest {
            return Err(Malformed::FloorAboveNewest.into());
        }
        if first < floor {
            return Err(Malformed::BelowFloor.into());
        }
        if !sorted {
            return Err(Malformed::Unsorted.into());
        }
        self.authors.sort_unstable();
        if self.authors.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(Malformed::TwoOfOneReplica.into());
        }
        let mut last = None;
        for _ in 0..seen {
            let entry = parse.seen()?;
            if last >= Some(entry.replica) {
                return Err(Malformed::Unsorted.into());
            }
            last = Some(entry.replica);
            if entry.instant.by(entry.replica) < floor {
                return Err(Malformed::BelowFloor.into());
            }
            if self.authors.binary_search(&entry.replica).is_ok() {
                return Err(Malformed::SeenOfCandidate.into());
            }
            if entry.instant >= newest.instant() {
                return Err(Malformed::SeenAboveNewest.into());
            }
        }
        Ok(())
    }

    /// Counts registers and candidates before they are read.
    fn spend(&mut self, count: usize) -> Result<(), RowError> {
        self.registers = self.registers.saturating_add(count);
        if self.registers > REGISTERS_MAX {
            return Err(WireError::Bound { what: "registers in a frame", max: REGISTERS_MAX }.into());
        }
        Ok(())
    }
}

/// Whether an address comes after another. A prefix holds its own length: addresses are in the order of prefixes,
/// then of keys.
#[inline]
fn rises(words: &Words, last: &Place<'_>, next: &Place<'_>) -> bool {
    if last.prefix == next.prefix {
        return last.key.bytes() < next.key.bytes();
    }
    let prefixes = (words.fields.word(last.prefix), words.fields.word(next.prefix));
    (prefixes.0, last.key.bytes()) < (prefixes.1, next.key.bytes())
}

/// An error inside a row: cut bytes have no name of their own yet.
#[derive(Debug)]
pub(super) enum RowError {
    Cut,
    Wire(WireError),
}

impl RowError {
    fn named(self, frame: &'static str) -> WireError {
        match self {
            Self::Cut => WireError::Malformed { frame },
            Self::Wire(error) => error,
        }
    }
}

impl From<Cut> for RowError {
    fn from(_: Cut) -> Self {
        Self::Cut
    }
}

impl From<WireError> for RowError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<Malformed> for RowError {
    fn from(malformed: Malformed) -> Self {
        Self::Wire(malformed.into())
    }
}
