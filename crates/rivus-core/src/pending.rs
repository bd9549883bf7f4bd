//! Pending edits as the outbox keeps them: the operations, beside the delta that they made.
//!
//! Owns the byte form. The delta is what is pushed; the operations are what is done again when an earlier edit
//! was refused and this one must be rebuilt on what remains.

use crate::bytes::{Cut, Put, Reader};
use crate::clock::{Force, Stamp};
use crate::edit::{Action, Op};
use crate::id::{Incarnation, ReplicaId};
use crate::register::{Register, Saw};
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

impl Header {
    /// Goes on with an outbox record that has its operations; the entities follow.
    pub(crate) fn record(self, op_count: u64, ops: Vec<u8>) -> Vec<u8> {
        let mut out = ops;
        let len = u32::try_from(out.len().saturating_sub(OPS_START.len())).unwrap_or(u32::MAX);
        if let Some(start) = out.first_chunk_mut() {
            *start = len.to_be_bytes();
        }
        out.push(u8::from(self.force == Force::Yes) | u8::from(self.saw.is_some()) << 1);
        out.stamp(self.stamp);
        out.push(self.rank);
        if let Some(saw) = self.saw {
            out.extend_from_slice(&saw.incarnation.0.to_be_bytes());
            out.varint(saw.done);
        }
        out.varint(op_count);
        out
    }
}

/// Appends one entity of the delta to an outbox record.
pub(crate) fn put_entity(out: &mut Vec<u8>, kind: &str, id: &str, changes: &[(&[u8], Change<'_>)]) {
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
    op_count: u64,
    ops: &'a [u8],
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
        let len = u32::from_be_bytes(reader.array()?);
        let ops = reader.take(usize::try_from(len).map_err(|_| Cut)?)?;
        let marks = reader.u8()?;
        let stamp = reader.stamp()?;
        let rank = reader.u8()?;
        let saw = if marks & 2 == 0 {
            None
        } else {
            Some(Saw { incarnation: Incarnation(reader.u64()?), done: reader.varint()? })
        };
        let force = if marks & 1 == 0 { Force::No } else { Force::Yes };
        let op_count = reader.varint()?;
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
        Ok(Self { header: Header { stamp, rank, saw, force }, op_count, ops, entities })
    }

    /// The operations, in order.
    ///
    /// # Errors
    /// [`Cut`] if they are unreadable.
    pub fn ops(&self) -> Result<Vec<Op>, Cut> {
        let mut reader = Reader::new(self.ops);
        let ops = (0..self.op_count).map(|_| op(&mut reader)).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(ops)
    }

    /// The replica that made the edit.
    #[must_use]
    pub fn author(&self) -> ReplicaId {
        self.header.stamp.replica
    }
}

/// With what a record begins: the length of its operations, once that is known.
const OPS_START: [u8; 4] = [0; 4];
/// How much room a record gets to begin with, in bytes.
const RECORD_BYTES_USUAL: usize = 192;

/// Starts a record; the operations follow.
pub(crate) fn start() -> Vec<u8> {
    let mut out = Vec::with_capacity(RECORD_BYTES_USUAL);
    out.extend_from_slice(&OPS_START);
    out
}

/// Appends an operation.
pub(crate) fn put_op(out: &mut Vec<u8>, op: &Op) {
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
        _ => return Err(Cut),
    };
    Ok(Op { kind, id, action })
}
