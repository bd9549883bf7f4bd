//! Pending edits as the outbox keeps them: the operations, beside the delta that they made.
//!
//! Owns the byte form. The delta is what is pushed; the operations are what is done again when an earlier edit
//! was refused and this one must be rebuilt on what remains.

use crate::address::{Parts, class};
use crate::bytes::{Cut, Put, Reader};
use crate::clock::{Force, Stamp};
use crate::edit::{Action, Op};
use crate::id::{Incarnation, ReplicaId};
use crate::register::{Candidate, Register, Saw};
use crate::row::{Change, decode_register, encode_register};
use crate::value::Value;

/// What all registers of an edit share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The edit's stamp.
    pub stamp: Stamp,
    /// Its author's rank.
    pub rank: u8,
    /// What its author had seen at the authority.
    pub saw: Option<Saw>,
    /// Whether it was forced.
    pub force: Force,
}

mod mark {
    pub(super) const FORCE: u8 = 1;
    pub(super) const SAW: u8 = 2;
    /// The edit is a put of one plain field that is all of its delta: neither is written twice.
    pub(super) const ONE_PUT: u8 = 4;
    /// Later edits were sent before it.
    pub(super) const PASSED: u8 = 8;
    pub(super) const KNOWN: u8 = 15;
}

impl Header {
    fn encode(self, out: &mut Vec<u8>, marks: u8) {
        let force = if self.force == Force::Yes { mark::FORCE } else { 0 };
        let saw = if self.saw.is_some() { mark::SAW } else { 0 };
        out.push(marks | force | saw);
        out.stamp(self.stamp);
        out.push(self.rank);
        if let Some(saw) = self.saw {
            out.extend_from_slice(&saw.incarnation.0.to_be_bytes());
            out.varint(saw.done);
        }
    }

    /// Writes the whole outbox record of an edit that puts `value`, as canonical bytes, into one plain field.
    pub(crate) fn record_one_put(
        self,
        kind: &str,
        id: &str,
        address: &[u8],
        value: &[u8],
        out: &mut Vec<u8>,
    ) {
        self.encode(out, mark::ONE_PUT);
        out.slice(kind.as_bytes());
        out.slice(id.as_bytes());
        out.slice(address);
        out.extend_from_slice(value);
    }
}

/// The operations of an edit in their stored form.
#[derive(Debug, Default)]
pub(crate) struct Ops {
    count: u64,
    bytes: Vec<u8>,
    is_one_put: bool,
}

impl Ops {
    /// Appends an operation.
    pub(crate) fn push(&mut self, op: &Op) {
        self.is_one_put = self.count == 0 && matches!(&op.action, Action::Put(fields) if fields.len() == 1);
        self.count += 1;
        put_op(&mut self.bytes, op);
    }

    /// Writes the outbox record.
    pub(crate) fn record(&self, header: Header, delta: &[(&str, &str, &[(&[u8], Change<'_>)])]) -> Vec<u8> {
        let mut out = Vec::new();
        if self.is_one_put
            && let [(kind, id, [(address, change)])] = delta
            && Parts::parse(address).is_some_and(|parts| parts.class == class::FIELD)
            && let Some(only) = change.register().and_then(Register::as_plain)
        {
            header.record_one_put(kind, id, address, only.value, &mut out);
            return out;
        }
        header.encode(&mut out, 0);
        out.varint(self.count);
        out.slice(&self.bytes);
        for (kind, id, changes) in delta {
            put_entity(&mut out, kind, id, changes);
        }
        out
    }
}

/// Appends one entity of the delta to an outbox record.
fn put_entity(out: &mut Vec<u8>, kind: &str, id: &str, changes: &[(&[u8], Change<'_>)]) {
    out.slice(kind.as_bytes());
    out.slice(id.as_bytes());
    out.varint(changes.len() as u64);
    for (address, change) in changes {
        let Some(register) = change.register() else { continue };
        out.slice(address);
        out.sized(|out| encode_register(register, out));
    }
}

/// One entity's part of a delta.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingEntity<'a> {
    /// The entity's kind.
    pub kind: &'a str,
    /// The entity's id.
    pub id: &'a str,
    /// Its registers, ascending by address.
    pub registers: Vec<(&'a [u8], Register<'a>)>,
}

/// A pending edit as read from the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pending<'a> {
    /// Stamp, rank and the rest.
    pub header: Header,
    /// Whether later edits were sent before it: it needs a new stamp.
    pub(crate) passed: bool,
    /// None if they follow from the delta.
    ops: Option<(u64, &'a [u8])>,
    /// The delta.
    pub entities: Vec<PendingEntity<'a>>,
}

impl<'a> Pending<'a> {
    /// Reads a record.
    ///
    /// # Errors
    /// [`Cut`] if the bytes are none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Cut> {
        let mut reader = Reader::new(bytes);
        let marks = reader.u8()?;
        if marks & !mark::KNOWN != 0 {
            return Err(Cut);
        }
        let passed = marks & mark::PASSED != 0;
        let stamp = reader.stamp()?;
        let rank = reader.u8()?;
        let saw = if marks & mark::SAW == 0 {
            None
        } else {
            Some(Saw { incarnation: Incarnation(reader.u64()?), done: reader.varint()? })
        };
        let force = if marks & mark::FORCE == 0 { Force::No } else { Force::Yes };
        let header = Header { stamp, rank, saw, force };
        if marks & mark::ONE_PUT != 0 {
            let (kind, id, address) = (reader.str()?, reader.str()?, reader.slice()?);
            let register = Register::plain(Candidate { stamp, rank, saw, value: reader.rest() });
            let entity = PendingEntity { kind, id, registers: vec![(address, register)] };
            return Ok(Self { header, passed, ops: None, entities: vec![entity] });
        }
        let ops = (reader.varint()?, reader.slice()?);
        let mut entities = Vec::new();
        while !reader.is_empty() {
            let (kind, id) = (reader.str()?, reader.str()?);
            let count = reader.count(2)?;
            let mut registers = Vec::with_capacity(count);
            for _ in 0..count {
                registers.push((reader.slice()?, decode_register(reader.slice()?)?));
            }
            entities.push(PendingEntity { kind, id, registers });
        }
        Ok(Self { header, passed, ops: Some(ops), entities })
    }

    /// The record of an edit that later ones go past; `None` if it says so already.
    pub(crate) fn passed_over(record: &[u8]) -> Option<Vec<u8>> {
        let mut passed = record.to_vec();
        let marks = passed.first_mut().filter(|marks| **marks & mark::PASSED == 0)?;
        *marks |= mark::PASSED;
        Some(passed)
    }

    /// The stamp of the edit in a record.
    pub(crate) fn stamp(record: &[u8]) -> Result<Stamp, Cut> {
        let mut reader = Reader::new(record);
        reader.u8()?;
        reader.stamp()
    }

    /// The operations, in order.
    ///
    /// # Errors
    /// [`Cut`] if they are unreadable.
    pub fn ops(&self) -> Result<Vec<Op>, Cut> {
        let Some((count, bytes)) = self.ops else { return self.put().map(|op| vec![op]) };
        let mut reader = Reader::new(bytes);
        let ops = (0..count).map(|_| op(&mut reader)).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(ops)
    }

    /// The put that made the only register.
    fn put(&self) -> Result<Op, Cut> {
        let entity = self.entities.first().ok_or(Cut)?;
        let (address, register) = entity.registers.first().ok_or(Cut)?;
        let name = Parts::parse(address).ok_or(Cut)?.name.to_owned();
        let value = Value::decode(register.newest().value).map_err(|_| Cut)?;
        Ok(Op::new(entity.kind, entity.id, Action::Put(vec![(name, value)])))
    }

    /// The replica that made the edit.
    #[must_use]
    pub fn author(&self) -> ReplicaId {
        self.header.stamp.replica
    }
}

fn put_op(out: &mut Vec<u8>, op: &Op) {
    let field = |out: &mut Vec<u8>, tag: u8, field: &str| {
        out.push(tag);
        out.slice(field.as_bytes());
    };
    out.slice(op.kind.as_bytes());
    out.slice(op.id.as_bytes());
    match &op.action {
        Action::Put(fields) => {
            out.push(0);
            out.varint(fields.len() as u64);
            for (name, value) in fields {
                out.slice(name.as_bytes());
                put_value(out, value);
            }
        }
        Action::Add { field: name, key } => {
            field(out, 1, name);
            out.slice(key.as_bytes());
        }
        Action::Remove { field: name, key } => {
            field(out, 2, name);
            out.slice(key.as_bytes());
        }
        Action::SetKey { field: name, key, value } => {
            field(out, 3, name);
            out.slice(key.as_bytes());
            put_value(out, value);
        }
        Action::Inc { field: name, by } => {
            field(out, 4, name);
            out.extend_from_slice(&by.to_be_bytes());
        }
        Action::Delete => out.push(5),
        Action::Revive => out.push(6),
        Action::Alias { to } => field(out, 7, to),
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    // The length goes in front: values end nowhere by themselves to a reader that does not decode them.
    out.sized(|out| value.encode(out));
}

fn op(reader: &mut Reader<'_>) -> Result<Op, Cut> {
    let text = |reader: &mut Reader<'_>| reader.str().map(str::to_owned);
    let value = |reader: &mut Reader<'_>| Value::decode(reader.slice()?).map_err(|_| Cut);
    let (kind, id) = (text(reader)?, text(reader)?);
    let action = match reader.u8()? {
        0 => {
            let count = reader.count(2)?;
            let fields = (0..count).map(|_| Ok((text(reader)?, value(reader)?)));
            Action::Put(fields.collect::<Result<_, Cut>>()?)
        }
        1 => Action::Add { field: text(reader)?, key: text(reader)? },
        2 => Action::Remove { field: text(reader)?, key: text(reader)? },
        3 => Action::SetKey { field: text(reader)?, key: text(reader)?, value: value(reader)? },
        4 => Action::Inc { field: text(reader)?, by: i64::from_be_bytes(reader.array()?) },
        5 => Action::Delete,
        6 => Action::Revive,
        7 => Action::Alias { to: text(reader)? },
        _ => return Err(Cut),
    };
    Ok(Op { kind, id, action })
}
