//! ACK and REFUSED: what an authority has decided.

use super::{fetch, page, tag};
use crate::bytes::{Cut, Put, Reader};
use crate::clock::Stamp;
use crate::code::Code;
use crate::replica::Spot;

/// The authority's answer to one PUSH, sent when the accepted edits are durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ack {
    /// The authority's head.
    pub seq: u64,
    /// Its clock, in ms; told only with exceptions, else 0.
    pub clock_ms: i64,
    /// The edits that were not accepted.
    pub exceptions: Vec<Exception>,
}

/// An edit that was not accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exception {
    /// Its place in the push, from 0.
    pub index: u32,
    /// Why; none for "again".
    pub code: Option<Code>,
    /// Why, in words, and what to do.
    pub message: Words,
    /// What of the edit it is about, if it is about a part.
    pub spot: Option<Box<Spot>>,
}

/// Words that mostly are none: then they take no more than a pointer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Words(Option<Box<Box<str>>>);

impl std::ops::Deref for Words {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.as_deref().map_or("", |words| words)
    }
}

impl From<&str> for Words {
    fn from(words: &str) -> Self {
        Self((!words.is_empty()).then(|| Box::new(words.into())))
    }
}

impl From<String> for Words {
    fn from(words: String) -> Self {
        words.as_str().into()
    }
}

/// Of an upload, what one edit wrote and was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The edit's stamp.
    pub stamp: Stamp,
    /// Why.
    pub code: Code,
    /// Why, in words, and what to do.
    pub message: Words,
    /// What of the edit it is about, if it is about a part.
    pub spot: Option<Box<Spot>>,
    /// The entities that it wrote, by kind and id: at least one, and at most
    /// [`FETCH_ENTITIES_MAX`](super::FETCH_ENTITIES_MAX).
    pub entities: Vec<(String, String)>,
}

/// What is added to the code of an exception if what it is about follows: codes have 16 bits.
const SPOT_FOLLOWS: u64 = 1 << 16;

impl Ack {
    /// How many exceptions a frame says that it has; 0 if it is no ACK.
    pub(crate) fn announced(frame: &[u8]) -> u64 {
        let Some((&tag::ACK, body)) = frame.split_first() else { return 0 };
        let mut reader = Reader::new(body);
        reader.varint().and_then(|_| reader.varint()).unwrap_or(0)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(tag::ACK);
        out.varint(self.seq);
        out.varint(self.exceptions.len() as u64);
        if self.exceptions.is_empty() {
            return;
        }
        out.extend_from_slice(&self.clock_ms.to_be_bytes());
        for Exception { index, code, message, spot } in &self.exceptions {
            out.varint(u64::from(*index));
            put_why(*code, message, spot.as_deref(), out);
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Cut> {
        let seq = reader.varint()?;
        let count = reader.count(3)?;
        if count > page::REGISTERS_MAX {
            return Err(Cut);
        }
        let clock_ms = if count == 0 { 0 } else { i64::from_be_bytes(reader.array()?) };
        let mut exceptions = Vec::with_capacity(count);
        for _ in 0..count {
            let index = u32::try_from(reader.varint()?).map_err(|_| Cut)?;
            let (code, message, spot) = read_why(reader)?;
            exceptions.push(Exception { index, code, message, spot });
        }
        Ok(Self { seq, clock_ms, exceptions })
    }
}

/// The least that one part of a REFUSED takes, in bytes: a stamp, three lengths and an entity.
const REFUSED_BYTES_MIN: usize = 25 + 3 + 2;

pub(super) fn put_refused(clock_ms: i64, parts: &[Refused], out: &mut Vec<u8>) {
    out.push(tag::REFUSED);
    out.extend_from_slice(&clock_ms.to_be_bytes());
    out.varint(parts.len() as u64);
    for Refused { stamp, code, message, spot, entities } in parts {
        out.stamp(*stamp);
        put_why(Some(*code), message, spot.as_deref(), out);
        fetch::put_names(entities, out);
    }
}

pub(super) fn read_refused(reader: &mut Reader<'_>) -> Result<(i64, Vec<Refused>), Cut> {
    let clock_ms = i64::from_be_bytes(reader.array()?);
    let count = reader.count(REFUSED_BYTES_MIN)?;
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        let stamp = reader.stamp()?;
        let (code, message, spot) = read_why(reader)?;
        let code = code.ok_or(Cut)?;
        let entities = fetch::read(reader)?;
        parts.push(Refused { stamp, code, message, spot, entities });
    }
    Ok((clock_ms, parts))
}

fn put_why(code: Option<Code>, message: &str, spot: Option<&Spot>, out: &mut Vec<u8>) {
    let follows = if spot.is_some() { SPOT_FOLLOWS } else { 0 };
    out.varint(code.map_or(0, |code| u64::from(code.0)) + follows);
    out.slice(message.as_bytes());
    spot.iter().for_each(|spot| spot.encode(out));
}

/// Why, in words, and about what.
type Why = (Option<Code>, Words, Option<Box<Spot>>);

fn read_why(reader: &mut Reader<'_>) -> Result<Why, Cut> {
    let code = reader.varint()?;
    let placed = code.checked_sub(SPOT_FOLLOWS);
    let code = u16::try_from(placed.unwrap_or(code)).map_err(|_| Cut)?;
    let message = reader.str()?.into();
    let spot = if placed.is_some() { Some(Box::new(Spot::read(reader)?)) } else { None };
    Ok(((code != 0).then_some(Code(code)), message, spot))
}
