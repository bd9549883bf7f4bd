//! The row coding: registers in pages and pushes.
//!
//! A frame has three parts, so that compression meets like with like: the *shape* (which entities, which
//! addresses, which form), the *stamps* of edits, and the *values*. Kinds, fields, replicas, incarnations and
//! entities are named by dictionaries that live as long as the connection; an edit's stamp, rank and `saw` are
//! sent once a frame and shared by its registers. Times go as milliseconds since the stamp before and a remainder.

mod decode;
mod rows;

use super::dictionary::{Bounds, Told};
use super::tag;
use crate::address::{Parts, class};
use crate::bytes::{Put, zigzag};
use crate::clock::{Stamp, ticks, whole_millis};
use crate::id::{Incarnation, ReplicaId};
use crate::register::{Candidate, Register, Saw};

pub use decode::RowDecoder;
pub use rows::{Edits, Fetched, Page, Push, Rows};

/// The most registers in one frame, each candidate beyond a register's first counted as one more.
pub const REGISTERS_MAX: usize = 131_072;
/// The most `seen` entries in one frame.
pub const SEEN_MAX: usize = 1 << 20;

// A hub keeps these for every connection, in each direction: together they stay below 4 MiB.
const KINDS: Bounds = Bounds { entries: 1024, bytes: 128 << 10 };
const FIELDS: Bounds = Bounds { entries: 8192, bytes: 512 << 10 };
const REPLICAS: Bounds = Bounds { entries: 8192, bytes: 128 << 10 };
const INCARNATIONS: Bounds = Bounds { entries: 1024, bytes: 8 << 10 };
const ENTITIES: Bounds = Bounds { entries: 16_384, bytes: 1 << 20 };

/// After so many quiet seconds the dictionaries are dropped, and start anew with the next frame.
const QUIET_SECONDS_MAX: u32 = 10;
/// In the flags of a frame of rows: the sender's dictionaries, and what times are relative to, start anew with it.
const ANEW: u8 = 32;

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
/// How far back in a frame an edit can be named: a reader keeps no more.
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
    kinds: Told,
    fields: Told,
    replicas: Told,
    incarnations: Told,
    entities: Told,
    last: Last,
    edits: Vec<Edit>,
    shape: Vec<u8>,
    stamps: Vec<u8>,
    values: Vec<u8>,
    registers: usize,
    key: Vec<u8>,
    /// What was told before is forgotten, and the other side does not know yet.
    anew: bool,
    /// Quiet seconds since the last frame.
    quiet: u32,
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
            anew: false,
            quiet: 0,
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

    /// How many registers the frame has so far.
    #[must_use]
    pub fn registers(&self) -> usize {
        self.registers
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

    /// Tells the encoder that a second has passed without frames. A connection that stays quiet costs no memory for
    /// words that may never be told again.
    pub fn handle_quiet(&mut self) {
        self.quiet = self.quiet.saturating_add(1);
        if self.quiet == QUIET_SECONDS_MAX && self.is_empty() {
            *self = Self { anew: true, quiet: self.quiet, ..Self::default() };
        }
    }

    fn flags(&mut self, flags: u8) -> u8 {
        self.quiet = 0;
        if std::mem::take(&mut self.anew) { flags | ANEW } else { flags }
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
        let flags = flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag));
        out.push(self.flags(flags));
        out.varint(header.at);
        out.extend(header.incarnation.iter().flat_map(|i| i.0.to_be_bytes()));
        self.finish(out)
    }

    /// Ends the frame as a push. `heard` counts the answers heard on this connection; `head` is the sender's.
    pub fn finish_push(&mut self, heard: u64, head: u64, incarnation: Option<Incarnation>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() + 32);
        out.push(tag::PUSH);
        out.push(self.flags(u8::from(incarnation.is_some()) << 1));
        out.varint(heard);
        out.varint(head);
        out.extend(incarnation.iter().flat_map(|i| i.0.to_be_bytes()));
        self.finish(out)
    }

    /// Ends the frame as whole entities that were asked for.
    pub fn finish_fetched(&mut self, more: bool) -> Vec<u8> {
        self.finish_without_position(tag::FETCHED, more)
    }

    /// Ends the frame as registers that mend a difference.
    pub fn finish_repair(&mut self, more: bool) -> Vec<u8> {
        self.finish_without_position(tag::REPAIR, more)
    }

    fn finish_without_position(&mut self, tag: u8, more: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() + 16);
        out.push(tag);
        out.push(self.flags(u8::from(more)));
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
                self.kinds.add(kind.as_bytes(), kind.len());
            }
        }
        self.shape.slice(id.as_bytes());
        self.entities.add(&self.key, self.key.len());
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
                self.fields.add(prefix, prefix.len());
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
        match self.replicas.distance(&replica.0) {
            Some(distance) => self.shape.varint(distance),
            None => {
                self.shape.push(0);
                self.shape.extend_from_slice(&replica.0);
                self.replicas.add(&replica.0, 16);
            }
        }
    }

    fn replica_ref(&mut self, replica: ReplicaId) {
        match self.replicas.distance(&replica.0) {
            Some(distance) => self.stamps.varint(distance),
            None => {
                self.stamps.push(0);
                self.stamps.extend_from_slice(&replica.0);
                self.replicas.add(&replica.0, 16);
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
        let replica = self.replicas.distance(&stamp.replica.0);
        self.stamps.varint(replica.unwrap_or(0) << 2 | marks);
        if replica.is_none() {
            self.stamps.extend_from_slice(&stamp.replica.0);
            self.replicas.add(&stamp.replica.0, 16);
        }
        if ranked {
            self.stamps.varint(u64::from(stamp.generation));
            self.stamps.push(rank);
        }
        self.time(stamp.time);
        if let Some(saw) = saw {
            let incarnation = saw.incarnation.0.to_be_bytes();
            match self.incarnations.distance(&incarnation) {
                Some(distance) => self.stamps.varint(distance),
                None => {
                    self.stamps.push(0);
                    self.stamps.extend_from_slice(&incarnation);
                    self.incarnations.add(&incarnation, 8);
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
