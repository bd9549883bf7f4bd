//! The row coding: registers in pages and pushes.
//!
//! A frame has three parts, so that compression meets like with like: the *shape* (which entities, which
//! addresses, which form), the *stamps* of edits, and the *values*. Kinds, fields, replicas, incarnations and
//! entities are named by dictionaries that live as long as the connection; an edit's stamp, rank and `saw` are
//! sent once a frame and shared by its registers. Times go as milliseconds since the stamp before and a remainder.

use std::sync::Arc;

use super::dictionary::{Bounds, Known, Told};
use super::{FRAME_BYTES_MAX, WireError, tag};
use crate::address::{self, Parts, class};
use crate::bytes::{Cut, Put, Reader, unzigzag, zigzag};
use crate::clock::{Instant, Stamp, TIME_END, ticks, whole_millis};
use crate::id::{Incarnation, ReplicaId, StoreId};
use crate::register::{Alive, Candidate, Register, Saw, Seen};
use crate::replica::{Incoming, Pushed};
use crate::row::Change;
use crate::value;

/// The most registers in one frame, each candidate beyond a register's first counted as one more.
pub const REGISTERS_MAX: usize = 131_072;
/// The most `seen` entries in one frame: a megabyte of them decodes to 32.
pub const SEEN_MAX: usize = 1 << 20;

const KINDS: Bounds = Bounds { entries: 4096, bytes: 1 << 20 };
const FIELDS: Bounds = Bounds { entries: 65_536, bytes: 4 << 20 };
const REPLICAS: Bounds = Bounds { entries: 65_536, bytes: 4 << 20 };
const INCARNATIONS: Bounds = Bounds { entries: 4096, bytes: 1 << 20 };
const ENTITIES: Bounds = Bounds { entries: 65_536, bytes: 8 << 20 };

/// How a register is written: the low three bits of its first byte. The other five name the field.
mod form {
    /// One candidate that is its own floor, of the same edit as the register before.
    pub(super) const PLAIN_SAME: u8 = 0;
    /// The same, of an edit whose header comes next among the stamps.
    pub(super) const PLAIN_NEW: u8 = 1;
    /// The same, of an earlier edit of this frame.
    pub(super) const PLAIN_BACK: u8 = 2;
    /// One candidate with the lowest floor and nothing else seen: margin without end.
    pub(super) const OPEN_SAME: u8 = 3;
    pub(super) const OPEN_NEW: u8 = 4;
    pub(super) const OPEN_BACK: u8 = 5;
    /// One candidate with a floor behind it: a finite margin.
    pub(super) const MARGIN: u8 = 6;
    /// Anything.
    pub(super) const FULL: u8 = 7;
}

const FIELD_INLINE_MAX: u64 = 30;
const FIELD_FOLLOWS: u8 = 31;
/// How far back in a frame the encoder looks for an edit that it has written.
const EDITS_BACK_MAX: usize = 16;

/// The header of an edit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Edit {
    stamp: Stamp,
    rank: u8,
    saw: Option<Saw>,
}

impl Edit {
    fn of(candidate: &Candidate<'_>) -> Self {
        Self { stamp: candidate.stamp, rank: candidate.rank, saw: candidate.saw }
    }

    fn with<'a>(&self, value: &'a [u8]) -> Candidate<'a> {
        Candidate { stamp: self.stamp, rank: self.rank, saw: self.saw, value }
    }
}

/// What the times of a connection's stamps are told relative to.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    ms: u64,
    rest: u64,
    done: u64,
}

/// The writing side of a connection's row coding.
#[derive(Debug)]
pub struct RowEncoder {
    kinds: Told<[u8]>,
    fields: Told<[u8]>,
    replicas: Told<ReplicaId>,
    incarnations: Told<u64>,
    entities: Told<[u8]>,
    last: Last,
    edits: Vec<Edit>,
    shape: Vec<u8>,
    stamps: Vec<u8>,
    values: Vec<u8>,
    registers: usize,
    key: Vec<u8>,
}

impl Default for RowEncoder {
    fn default() -> Self {
        Self {
            kinds: Told::new(KINDS),
            fields: Told::new(FIELDS),
            replicas: Told::new(REPLICAS),
            incarnations: Told::new(INCARNATIONS),
            entities: Told::new(ENTITIES),
            last: Last::default(),
            edits: Vec::new(),
            shape: Vec::new(),
            stamps: Vec::new(),
            values: Vec::new(),
            registers: 0,
            key: Vec::new(),
        }
    }
}

/// The header of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageHeader {
    /// The row seq up to which the pages of this pass have come.
    pub at: u64,
    /// Whether more pages follow in this pass.
    pub more: bool,
    /// The sender's newest incarnation, if it is not the one told before.
    pub incarnation: Option<Incarnation>,
    /// Whether this is the first page since the last SUBSCRIBE.
    pub start: bool,
    /// Whether a CHECKPOINT follows.
    pub checkpoint: bool,
}

impl RowEncoder {
    /// How many bytes the frame has so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.len() + self.stamps.len() + self.values.len()
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.registers == 0
    }

    /// Whether the frame has come to its aim and should be sent.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= super::PAGE_BYTES_AIM || self.registers >= REGISTERS_MAX / 2
    }

    /// Writes registers of one entity, ascending by address.
    pub fn entity<'r, 'v: 'r>(
        &mut self,
        kind: &str,
        id: &str,
        registers: impl ExactSizeIterator<Item = (&'r [u8], &'r Register<'v>)>,
    ) {
        self.entity_ref(kind, id);
        self.shape.varint(registers.len() as u64);
        self.registers += registers.len();
        for (address, register) in registers {
            self.register(address, register);
        }
    }

    /// Starts an edit of a push, of `entities` entities, `number` after the edit before.
    pub fn start_edit(&mut self, number: u64, entities: usize) {
        self.shape.varint(number);
        self.shape.varint(entities as u64);
    }

    /// Ends the frame as a page.
    pub fn finish_page(&mut self, header: PageHeader) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() + 32);
        out.push(tag::DELTA);
        let flags = [header.more, header.incarnation.is_some(), header.start, header.checkpoint];
        out.push(flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
        out.varint(header.at);
        out.extend(header.incarnation.iter().flat_map(|i| i.0.to_be_bytes()));
        self.finish(out)
    }

    /// Ends the frame as a push. `heard` counts the answers heard on this connection; `head` is the sender's.
    pub fn finish_push(&mut self, heard: u64, head: u64, incarnation: Option<Incarnation>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() + 32);
        out.push(tag::PUSH);
        out.push(u8::from(incarnation.is_some()) << 1);
        out.varint(heard);
        out.varint(head);
        out.extend(incarnation.iter().flat_map(|i| i.0.to_be_bytes()));
        self.finish(out)
    }

    fn finish(&mut self, mut out: Vec<u8>) -> Vec<u8> {
        out.slice(&self.shape);
        out.slice(&self.stamps);
        out.extend_from_slice(&self.values);
        self.shape.clear();
        self.stamps.clear();
        self.values.clear();
        self.edits.clear();
        self.registers = 0;
        out
    }

    fn entity_ref(&mut self, kind: &str, id: &str) {
        self.key.clear();
        self.key.slice(kind.as_bytes());
        self.key.extend_from_slice(id.as_bytes());
        if let Some(distance) = self.entities.distance(&self.key) {
            self.shape.varint(distance);
            return;
        }
        self.shape.push(0);
        match self.kinds.distance(kind.as_bytes()) {
            Some(distance) => self.shape.varint(distance),
            None => {
                self.shape.push(0);
                self.shape.slice(kind.as_bytes());
                self.kinds.add(Arc::from(kind.as_bytes()), kind.len());
            }
        }
        self.shape.slice(id.as_bytes());
        self.entities.add(Arc::from(self.key.as_slice()), self.key.len());
    }

    fn register(&mut self, address: &[u8], register: &Register<'_>) {
        let only = match &*register.alive {
            [only] if register.seen.is_empty() => Some(only),
            _ => None,
        };
        match only {
            Some(only) if register.floor == only.stamp => {
                self.single(address, only, [form::PLAIN_SAME, form::PLAIN_NEW, form::PLAIN_BACK]);
            }
            Some(only) if register.floor == Stamp::LOWEST => {
                self.single(address, only, [form::OPEN_SAME, form::OPEN_NEW, form::OPEN_BACK]);
            }
            Some(only) if is_margin(register.floor, only.stamp) => {
                self.head(address, form::MARGIN);
                self.edit(Edit::of(only));
                self.shape.varint(only.stamp.time - register.floor.time);
                self.values.extend_from_slice(only.value);
            }
            _ => self.full(address, register),
        }
    }

    fn single(&mut self, address: &[u8], only: &Candidate<'_>, [same, new, back]: [u8; 3]) {
        let edit = Edit::of(only);
        let found = self.edits.iter().rev().take(EDITS_BACK_MAX).position(|e| *e == edit);
        match found {
            Some(0) => self.head(address, same),
            Some(distance) => {
                self.head(address, back);
                self.shape.varint(distance as u64);
                self.edits.push(edit);
            }
            None => {
                self.head(address, new);
                self.header(edit);
            }
        }
        self.values.extend_from_slice(only.value);
    }

    fn full(&mut self, address: &[u8], register: &Register<'_>) {
        self.head(address, form::FULL);
        self.registers += register.alive.len().saturating_sub(1);
        self.shape.varint(register.alive.len() as u64);
        self.shape.varint(register.seen.len() as u64);
        let floor = register.floor;
        if floor == Stamp::LOWEST {
            self.shape.push(0);
        } else {
            self.shape.push(1);
            self.shape.instant(floor.instant());
            self.shape.extend_from_slice(&floor.replica.0);
        }
        for candidate in register.alive.iter() {
            self.edit(Edit::of(candidate));
            self.values.extend_from_slice(candidate.value);
        }
        for seen in &register.seen {
            self.replica_ref(seen.replica);
            self.stamps.varint(u64::from(seen.instant.generation));
            self.time(seen.instant.time);
        }
    }

    /// The register's first byte and its address.
    fn head(&mut self, address: &[u8], form: u8) {
        let parts = Parts::parse(address).unwrap_or(Parts { class: class::FIELD, name: "", key: &[] });
        let (prefix, key) = address.split_at(address.len() - parts.key.len());
        match self.fields.distance(prefix) {
            Some(distance) if distance <= FIELD_INLINE_MAX => {
                #[expect(clippy::cast_possible_truncation, reason = "at most 30")]
                self.shape.push(form | (distance as u8) << 3);
            }
            Some(distance) => {
                self.shape.push(form | FIELD_FOLLOWS << 3);
                self.shape.varint(distance);
            }
            None => {
                self.shape.push(form);
                self.shape.slice(prefix);
                self.fields.add(Arc::from(prefix), prefix.len());
            }
        }
        match parts.class {
            class::LIFE | class::FIELD | class::GROUP => {}
            class::COUNT => match key.try_into() {
                Ok(id) => self.count_ref(ReplicaId(id)),
                // From a damaged store: an entry that was never told, which the other side refuses.
                Err(_) => self.shape.varint(u64::MAX),
            },
            _ => self.shape.slice(key),
        }
    }

    fn count_ref(&mut self, replica: ReplicaId) {
        match self.replicas.distance(&replica) {
            Some(distance) => self.shape.varint(distance),
            None => {
                self.shape.push(0);
                self.shape.extend_from_slice(&replica.0);
                self.replicas.add(Arc::new(replica), 16);
            }
        }
    }

    fn replica_ref(&mut self, replica: ReplicaId) {
        match self.replicas.distance(&replica) {
            Some(distance) => self.stamps.varint(distance),
            None => {
                self.stamps.push(0);
                self.stamps.extend_from_slice(&replica.0);
                self.replicas.add(Arc::new(replica), 16);
            }
        }
    }

    /// A reference to an edit from the shape: 0 if its header comes next, else the distance.
    fn edit(&mut self, edit: Edit) {
        match self.edits.iter().rev().take(EDITS_BACK_MAX).position(|e| *e == edit) {
            Some(distance) => self.shape.varint(distance as u64 + 1),
            None => {
                self.shape.push(0);
                self.header(edit);
            }
        }
    }

    fn header(&mut self, edit: Edit) {
        self.edits.push(edit);
        let Edit { stamp, rank, saw } = edit;
        let ranked = stamp.generation != 0 || rank != 0;
        let marks = u64::from(saw.is_some()) | u64::from(ranked) << 1;
        let replica = self.replicas.distance(&stamp.replica);
        self.stamps.varint(replica.unwrap_or(0) << 2 | marks);
        if replica.is_none() {
            self.stamps.extend_from_slice(&stamp.replica.0);
            self.replicas.add(Arc::new(stamp.replica), 16);
        }
        if ranked {
            self.stamps.varint(u64::from(stamp.generation));
            self.stamps.push(rank);
        }
        self.time(stamp.time);
        if let Some(saw) = saw {
            match self.incarnations.distance(&saw.incarnation.0) {
                Some(distance) => self.stamps.varint(distance),
                None => {
                    self.stamps.push(0);
                    self.stamps.extend_from_slice(&saw.incarnation.0.to_be_bytes());
                    self.incarnations.add(Arc::new(saw.incarnation.0), 8);
                }
            }
            self.stamps.varint(zigzag(saw.done.wrapping_sub(self.last.done).cast_signed()));
            self.last.done = saw.done;
        }
    }

    fn time(&mut self, time: u64) {
        let ms = whole_millis(time);
        let rest = time - ticks(ms);
        self.stamps.varint(zigzag(ms.wrapping_sub(self.last.ms).cast_signed()));
        if ms == self.last.ms {
            self.stamps.varint(zigzag(rest.wrapping_sub(self.last.rest).cast_signed()));
        } else {
            self.stamps.varint(rest);
        }
        self.last.ms = ms;
        self.last.rest = rest;
    }
}

fn is_margin(floor: Stamp, own: Stamp) -> bool {
    floor.generation == own.generation && floor.replica == ReplicaId::default() && floor.time <= own.time
}

/// The reading side of a connection's row coding.
#[derive(Debug)]
pub struct RowDecoder {
    kinds: Known<Arc<str>>,
    fields: Known<Arc<[u8]>>,
    replicas: Known<ReplicaId>,
    incarnations: Known<Incarnation>,
    entities: Known<(Arc<str>, Arc<str>)>,
    last: Last,
}

impl Default for RowDecoder {
    fn default() -> Self {
        Self {
            kinds: Known::new(KINDS),
            fields: Known::new(FIELDS),
            replicas: Known::new(REPLICAS),
            incarnations: Known::new(INCARNATIONS),
            entities: Known::new(ENTITIES),
            last: Last::default(),
        }
    }
}

/// A page as decoded.
#[derive(Debug)]
pub struct Page<'a> {
    /// See [`PageHeader`].
    pub header: PageHeader,
    /// What to join.
    pub rows: Vec<Incoming<'a>>,
}

/// A push as decoded.
#[derive(Debug)]
pub struct Push<'a> {
    /// How many answers the sender had heard on this connection.
    pub heard: u64,
    /// The sender's head.
    pub head: u64,
    /// Its newest incarnation, if it is not the one told before.
    pub incarnation: Option<Incarnation>,
    /// The edits, in order.
    pub edits: Vec<Pushed<'a>>,
}

/// One frame being read.
struct Parse<'d, 'a> {
    decoder: &'d mut RowDecoder,
    shape: Reader<'a>,
    stamps: Reader<'a>,
    values: &'a [u8],
    edits: Vec<Edit>,
    registers: usize,
    seen: usize,
    source: StoreId,
}

impl RowDecoder {
    /// Reads a page from `source`. After an error the connection is of no use any more.
    ///
    /// # Errors
    /// [`WireError`], saying what is wrong.
    pub fn page<'a>(&mut self, bytes: &'a [u8], source: StoreId) -> Result<Page<'a>, WireError> {
        let cut = |Cut| WireError::Malformed { frame: "DELTA" };
        let mut reader = start(bytes, tag::DELTA).map_err(cut)?;
        let flags = reader.u8().map_err(cut)?;
        if flags > 15 {
            return Err(cut(Cut));
        }
        let at = reader.varint().map_err(cut)?;
        let incarnation = incarnation(&mut reader, flags).map_err(cut)?;
        let mut parse = Parse::new(self, reader, source).map_err(cut)?;
        let mut rows = Vec::new();
        while !parse.shape.is_empty() {
            rows.push(parse.entity().map_err(|error| error.named("DELTA"))?);
        }
        parse.end().map_err(cut)?;
        let (more, start, checkpoint) = (flags & 1 != 0, flags & 4 != 0, flags & 8 != 0);
        Ok(Page { header: PageHeader { at, more, incarnation, start, checkpoint }, rows })
    }

    /// Reads a push from `source`. After an error the connection is of no use any more.
    ///
    /// # Errors
    /// [`WireError`], saying what is wrong.
    pub fn push<'a>(&mut self, bytes: &'a [u8], source: StoreId) -> Result<Push<'a>, WireError> {
        let cut = |Cut| WireError::Malformed { frame: "PUSH" };
        let mut reader = start(bytes, tag::PUSH).map_err(cut)?;
        let flags = reader.u8().map_err(cut)?;
        if flags & !2 != 0 {
            return Err(cut(Cut));
        }
        let (heard, head) = (reader.varint().map_err(cut)?, reader.varint().map_err(cut)?);
        let incarnation = incarnation(&mut reader, flags).map_err(cut)?;
        let mut parse = Parse::new(self, reader, source).map_err(cut)?;
        let mut edits: Vec<Pushed<'a>> = Vec::new();
        let mut number = 0_u64;
        while !parse.shape.is_empty() {
            let step = parse.shape.varint().map_err(cut)?;
            number = number.checked_add(step).filter(|_| step > 0 || edits.is_empty()).ok_or(cut(Cut))?;
            let count = parse.shape.count(3).map_err(cut)?;
            let mut entities = Vec::with_capacity(count.min(1024));
            for _ in 0..count {
                entities.push(parse.entity().map_err(|error| error.named("PUSH"))?);
            }
            let first = entities.first().and_then(|e: &Incoming<'_>| e.changes.first());
            let Some((_, Change::Join { register, .. })) = first else { return Err(cut(Cut)) };
            let Candidate { stamp, rank, saw, .. } = *register.newest();
            edits.push(Pushed { number, stamp, rank, saw, entities });
        }
        parse.end().map_err(cut)?;
        Ok(Push { heard, head, incarnation, edits })
    }
}

fn start(bytes: &[u8], tag: u8) -> Result<Reader<'_>, Cut> {
    let mut reader = Reader::new(bytes);
    if bytes.len() <= FRAME_BYTES_MAX && reader.u8()? == tag { Ok(reader) } else { Err(Cut) }
}

fn incarnation(reader: &mut Reader<'_>, flags: u8) -> Result<Option<Incarnation>, Cut> {
    if flags & 2 == 0 { Ok(None) } else { Ok(Some(Incarnation(reader.u64()?))) }
}

/// An error inside a row: cut bytes have no name of their own yet.
enum RowError {
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

impl<'a> Parse<'_, 'a> {
    fn new<'d>(
        decoder: &'d mut RowDecoder,
        mut reader: Reader<'a>,
        source: StoreId,
    ) -> Result<Parse<'d, 'a>, Cut> {
        let shape = Reader::new(reader.slice()?);
        let stamps = Reader::new(reader.slice()?);
        let values = reader.rest();
        Ok(Parse { decoder, shape, stamps, values, edits: Vec::new(), registers: 0, seen: 0, source })
    }

    fn end(&self) -> Result<(), Cut> {
        if self.stamps.is_empty() && self.values.is_empty() { Ok(()) } else { Err(Cut) }
    }

    fn entity(&mut self) -> Result<Incoming<'a>, RowError> {
        let (kind, id) = self.entity_ref()?;
        let count = self.shape.count(1)?;
        if count == 0 {
            return Err(RowError::Cut);
        }
        self.spend(count)?;
        let mut changes: Vec<(Arc<[u8]>, Change<'a>)> = Vec::with_capacity(count);
        for _ in 0..count {
            let (address, register) = self.register()?;
            if changes.last().is_some_and(|(before, _)| *before >= address) {
                return Err(RowError::Cut);
            }
            changes.push((address, Change::Join { register, source: Some(self.source) }));
        }
        Ok(Incoming { kind, id, changes })
    }

    /// Counts registers and candidates before room is made for them.
    fn spend(&mut self, count: usize) -> Result<(), RowError> {
        self.registers = self.registers.saturating_add(count);
        if self.registers > REGISTERS_MAX {
            let bound = WireError::Bound { what: "registers in a frame", max: REGISTERS_MAX };
            return Err(RowError::Wire(bound));
        }
        Ok(())
    }

    fn entity_ref(&mut self) -> Result<(Arc<str>, Arc<str>), RowError> {
        let distance = self.shape.varint()?;
        if distance > 0 {
            return self.decoder.entities.at(distance).cloned().ok_or(RowError::Cut);
        }
        let kind = match self.shape.varint()? {
            0 => {
                let kind: Arc<str> = Arc::from(self.shape.str()?);
                if kind.is_empty() || kind.len() > address::KIND_BYTES_MAX {
                    return Err(RowError::Cut);
                }
                self.decoder.kinds.add(Arc::clone(&kind), kind.len());
                kind
            }
            distance => self.decoder.kinds.at(distance).cloned().ok_or(RowError::Cut)?,
        };
        let id: Arc<str> = Arc::from(self.shape.str()?);
        if id.len() > address::ID_BYTES_MAX {
            return Err(RowError::Cut);
        }
        let mut key = Vec::new();
        key.varint(kind.len() as u64);
        let bytes = key.len() + kind.len() + id.len();
        self.decoder.entities.add((Arc::clone(&kind), Arc::clone(&id)), bytes);
        Ok((kind, id))
    }

    fn register(&mut self) -> Result<(Arc<[u8]>, Register<'a>), RowError> {
        let head = self.shape.u8()?;
        let address = self.address(head >> 3)?;
        let register = match head & 7 {
            form @ form::PLAIN_SAME..=form::OPEN_BACK => {
                let edit = match form {
                    form::PLAIN_SAME | form::OPEN_SAME => self.edits.last().copied().ok_or(RowError::Cut)?,
                    form::PLAIN_NEW | form::OPEN_NEW => self.header()?,
                    _ => self.back()?,
                };
                let only = edit.with(self.value()?);
                let floor = if form <= form::PLAIN_BACK { only.stamp } else { Stamp::LOWEST };
                Register { floor, ..Register::plain(only) }
            }
            form::MARGIN => {
                let edit = self.edit()?;
                let reach = self.shape.varint()?;
                let time = edit.stamp.time.checked_sub(reach).ok_or(RowError::Cut)?;
                let floor = Stamp { time, replica: ReplicaId::default(), ..edit.stamp };
                Register { floor, ..Register::plain(edit.with(self.value()?)) }
            }
            _ => self.full()?,
        };
        register.check().map_err(|malformed| RowError::Wire(malformed.into()))?;
        Ok((address, register))
    }

    fn full(&mut self) -> Result<Register<'a>, RowError> {
        let alive_count = self.shape.count(1)?;
        let seen_count = self.shape.len()?;
        if seen_count > self.stamps.remaining() / 3 {
            return Err(RowError::Cut);
        }
        self.spend(alive_count.saturating_sub(1))?;
        self.seen += seen_count;
        if self.seen > SEEN_MAX {
            let bound = WireError::Bound { what: "seen entries in a frame", max: SEEN_MAX };
            return Err(RowError::Wire(bound));
        }
        let floor = match self.shape.u8()? {
            0 => Stamp::LOWEST,
            1 => self.shape.stamp()?,
            _ => return Err(RowError::Cut),
        };
        let mut alive = Vec::with_capacity(alive_count.min(64));
        for _ in 0..alive_count {
            let edit = self.edit()?;
            alive.push(edit.with(self.value()?));
        }
        let mut seen = Vec::with_capacity(seen_count.min(64));
        for _ in 0..seen_count {
            let distance = self.stamps.varint()?;
            let replica = self.replica(distance)?;
            let generation = u16::try_from(self.stamps.varint()?).map_err(|_| RowError::Cut)?;
            seen.push(Seen { replica, instant: Instant { generation, time: self.time()? } });
        }
        Ok(Register { floor, alive: Alive::from(alive), seen })
    }

    fn address(&mut self, field: u8) -> Result<Arc<[u8]>, RowError> {
        let prefix = match field {
            0 => {
                let prefix: Arc<[u8]> = Arc::from(self.shape.slice()?);
                let named = Parts::parse(&prefix).ok_or(RowError::Cut)?;
                if !named.key.is_empty() {
                    return Err(RowError::Cut);
                }
                self.decoder.fields.add(Arc::clone(&prefix), prefix.len());
                prefix
            }
            FIELD_FOLLOWS => {
                let distance = self.shape.varint()?;
                Arc::clone(self.decoder.fields.at(distance).ok_or(RowError::Cut)?)
            }
            distance => Arc::clone(self.decoder.fields.at(u64::from(distance)).ok_or(RowError::Cut)?),
        };
        let class = prefix.first().copied().unwrap_or(class::LIFE);
        let address = match class {
            // Without a key it is the address, and was checked when it came.
            class::LIFE | class::FIELD | class::GROUP if field != 0 => return Ok(prefix),
            class::LIFE | class::FIELD | class::GROUP => prefix,
            class::COUNT => {
                let replica = match self.shape.varint()? {
                    0 => {
                        let replica = ReplicaId(self.shape.array()?);
                        self.decoder.replicas.add(replica, 16);
                        replica
                    }
                    distance => *self.decoder.replicas.at(distance).ok_or(RowError::Cut)?,
                };
                [&*prefix, &replica.0].concat().into()
            }
            _ => [&*prefix, self.shape.slice()?].concat().into(),
        };
        if address::is_well_formed(&address) { Ok(address) } else { Err(RowError::Cut) }
    }

    fn value(&mut self) -> Result<&'a [u8], RowError> {
        let len = value::check_prefix(self.values).map_err(|error| RowError::Wire(error.into()))?;
        let (value, rest) = self.values.split_at_checked(len).ok_or(RowError::Cut)?;
        self.values = rest;
        Ok(value)
    }

    fn back(&mut self) -> Result<Edit, RowError> {
        let distance = self.shape.len()?;
        let at = self.edits.len().checked_sub(distance.saturating_add(1)).ok_or(RowError::Cut)?;
        let edit = self.edits.get(at).copied().ok_or(RowError::Cut)?;
        self.edits.push(edit);
        Ok(edit)
    }

    fn edit(&mut self) -> Result<Edit, RowError> {
        match self.shape.len()? {
            0 => self.header(),
            distance => {
                let at = self.edits.len().checked_sub(distance).ok_or(RowError::Cut)?;
                self.edits.get(at).copied().ok_or(RowError::Cut)
            }
        }
    }

    fn header(&mut self) -> Result<Edit, RowError> {
        let marks = self.stamps.varint()?;
        let replica = self.replica(marks >> 2)?;
        let (generation, rank) = if marks & 2 == 0 {
            (0, 0)
        } else {
            (u16::try_from(self.stamps.varint()?).map_err(|_| RowError::Cut)?, self.stamps.u8()?)
        };
        let time = self.time()?;
        let saw = if marks & 1 == 0 {
            None
        } else {
            let incarnation = match self.stamps.varint()? {
                0 => {
                    let incarnation = Incarnation(self.stamps.u64()?);
                    self.decoder.incarnations.add(incarnation, 8);
                    incarnation
                }
                distance => *self.decoder.incarnations.at(distance).ok_or(RowError::Cut)?,
            };
            let done = self.decoder.last.done.wrapping_add_signed(unzigzag(self.stamps.varint()?));
            self.decoder.last.done = done;
            Some(Saw { incarnation, done })
        };
        let edit = Edit { stamp: Stamp { generation, time, replica }, rank, saw };
        self.edits.push(edit);
        Ok(edit)
    }

    fn replica(&mut self, distance: u64) -> Result<ReplicaId, RowError> {
        if distance > 0 {
            return self.decoder.replicas.at(distance).copied().ok_or(RowError::Cut);
        }
        let replica = ReplicaId(self.stamps.array()?);
        self.decoder.replicas.add(replica, 16);
        Ok(replica)
    }

    fn time(&mut self) -> Result<u64, RowError> {
        let last = &mut self.decoder.last;
        let ms = last.ms.wrapping_add_signed(unzigzag(self.stamps.varint()?));
        let rest = self.stamps.varint()?;
        let rest = if ms == last.ms { last.rest.wrapping_add_signed(unzigzag(rest)) } else { rest };
        last.ms = ms;
        last.rest = rest;
        let time = ticks(ms).checked_add(rest).filter(|time| *time < TIME_END);
        time.ok_or(RowError::Cut)
    }
}
