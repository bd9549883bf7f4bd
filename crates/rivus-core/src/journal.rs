//! The journal: what each commit changed of what registers show, with before, after and origin.
//!
//! Optional, and bounded by age, bytes or entries. One record a commit, written in that commit. Owns the byte form of
//! an entry and which entries are too old. What rules show is not in it: nobody wrote it.

use crate::address::{Parts, class};
use crate::bytes::{Cut, Put, Reader};
use crate::clock::{Millis, Stamp};
use crate::id::{ReplicaId, StoreId};
use crate::replica::Origin;
use crate::value::Value;
use crate::view;

/// How much of the past a journal keeps. What is beyond any of the bounds goes, oldest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// For how many days.
    pub days: Option<u32>,
    /// How many bytes.
    pub bytes: Option<u64>,
    /// How many entries.
    pub entries: Option<u64>,
}

impl Default for Keep {
    /// 90 days, at most 16 MiB.
    fn default() -> Self {
        Self { days: Some(90), bytes: Some(16 << 20), entries: None }
    }
}

/// What one commit changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its number: the store's seq after the commit. Later entries have greater ones.
    pub number: u64,
    /// When the change was applied here, by this machine's clock.
    pub at: Millis,
    /// Whose doing it was.
    pub origin: Origin,
    /// What changed, by kind, id and address.
    pub changes: Vec<Change>,
}

/// What changed of one register.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The entity's kind.
    pub kind: String,
    /// The entity's id.
    pub id: String,
    /// What of the entity.
    pub what: What,
    /// What it showed; `None` if it was not there.
    pub before: Option<Value>,
    /// What it shows since; `None` if it is not there any more.
    pub after: Option<Value>,
    /// Of the newest write in the register since.
    pub stamp: Stamp,
}

/// What of an entity a change is about.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum What {
    /// Whether it is alive: true or false.
    Life,
    /// A field.
    Field(String),
    /// A group of fields: a map by field.
    Group(String),
    /// A key of a set (true if it is in it) or of a map.
    Key {
        /// The set or map.
        field: String,
        /// The key.
        key: String,
    },
    /// Whether the entity is at hand: true or false. It was evicted or fetched.
    AtHand,
    /// What one replica has added to a counter.
    Count {
        /// The counter.
        field: String,
        /// The replica.
        replica: ReplicaId,
    },
}

impl What {
    /// The field, or the group.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Life | Self::AtHand => None,
            Self::Field(name) | Self::Group(name) => Some(name),
            Self::Key { field, .. } | Self::Count { field, .. } => Some(field),
        }
    }

    fn of(address: &[u8]) -> Option<Self> {
        if address == AT_HAND {
            return Some(Self::AtHand);
        }
        let parts = Parts::parse(address)?;
        let name = || parts.name.to_owned();
        Some(match parts.class {
            class::LIFE => Self::Life,
            class::FIELD => Self::Field(name()),
            class::GROUP => Self::Group(name()),
            class::KEY => Self::Key { field: name(), key: parts.text_key()?.to_owned() },
            class::COUNT => Self::Count { field: name(), replica: ReplicaId(parts.key.try_into().ok()?) },
            _ => return None,
        })
    }
}

/// What a commit changed of one entity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct EntityChange {
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) registers: Vec<RegisterChange>,
}

/// What a commit changed of one register: canonical bytes before and after.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RegisterChange {
    pub(crate) address: Vec<u8>,
    pub(crate) before: Option<Vec<u8>>,
    pub(crate) after: Option<Vec<u8>>,
    pub(crate) stamp: Stamp,
}

impl EntityChange {
    /// An entity that is at hand from now on, or no longer.
    pub(crate) fn moved(kind: &str, id: &str, at_hand: bool) -> Self {
        let shown = |at_hand| Some(if at_hand { view::TRUE } else { view::FALSE }.to_vec());
        let (before, after) = (shown(!at_hand), shown(at_hand));
        let register = RegisterChange { address: AT_HAND.to_vec(), before, after, stamp: Stamp::LOWEST };
        Self { kind: kind.to_owned(), id: id.to_owned(), registers: vec![register] }
    }
}

/// In place of an address: that of no register.
const AT_HAND: &[u8] = &[];

/// The beginning of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) at: Millis,
    pub(crate) origin: Origin,
    /// How many entries there have been ever, this one among them.
    pub(crate) entries: u64,
    /// How many bytes they had, without their heads.
    pub(crate) bytes: u64,
}

/// Under which key is how much is kept: below those of all entries.
pub(crate) const KEEP_KEY: &[u8] = &[];

/// Above the keys of all entries.
pub(crate) const KEYS_END: &[u8] = &[0xff; 9];

/// How many entries one commit takes out at most: a bound that was lowered is reached bit by bit.
pub(crate) const TRIMMED_MAX: usize = 1_000;

const MS_A_DAY: i64 = 24 * 60 * 60 * 1000;

impl Keep {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Vec::new();
        for bound in [self.days.map(u64::from), self.bytes, self.entries] {
            out.push(u8::from(bound.is_some()));
            out.varint(bound.unwrap_or(0));
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Cut> {
        let mut reader = Reader::new(bytes);
        let mut bound = || -> Result<Option<u64>, Cut> {
            let is_some = reader.u8()? == 1;
            Ok(Some(reader.varint()?).filter(|_| is_some))
        };
        let days = bound()?.map(|days| u32::try_from(days).unwrap_or(u32::MAX));
        Ok(Self { days, bytes: bound()?, entries: bound()? })
    }

    /// Whether an old entry of this size is beyond a bound once there is the newest.
    pub(crate) fn is_beyond(&self, old: &Head, size: u64, newest: &Head) -> bool {
        let age = newest.at.0.saturating_sub(old.at.0);
        let (entries, bytes) = (
            (newest.entries + 1).saturating_sub(old.entries),
            (newest.bytes + size).saturating_sub(old.bytes),
        );
        self.days.is_some_and(|days| age > i64::from(days) * MS_A_DAY)
            || self.entries.is_some_and(|most| entries > most)
            || self.bytes.is_some_and(|most| bytes > most)
    }
}

/// The bytes of an entry, without its head.
pub(crate) fn encode_changes(changes: &[EntityChange]) -> Vec<u8> {
    let mut out = Vec::new();
    for entity in changes {
        out.slice(entity.kind.as_bytes());
        out.slice(entity.id.as_bytes());
        out.varint(entity.registers.len() as u64);
        for register in &entity.registers {
            out.slice(&register.address);
            out.stamp(register.stamp);
            for value in [&register.before, &register.after] {
                out.slice(value.as_deref().unwrap_or_default());
            }
        }
    }
    out
}

impl Head {
    pub(crate) fn encode(&self, changes: &[u8]) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.at.0.to_be_bytes());
        match self.origin {
            Origin::Local => out.push(0),
            Origin::Remote(store) => {
                out.push(1);
                out.extend_from_slice(&store.0.to_be_bytes());
            }
            Origin::Withdrawn => out.push(2),
            Origin::Evicted => out.push(3),
            Origin::OtherProcess => out.push(4),
            Origin::Left => out.push(5),
        }
        out.varint(self.entries);
        out.varint(self.bytes);
        out.extend_from_slice(changes);
        out
    }

    /// The head, and what follows it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Cut> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Cut);
        }
        let at = Millis(i64::from_be_bytes(reader.array()?));
        let origin = match reader.u8()? {
            0 => Origin::Local,
            1 => Origin::Remote(StoreId(reader.u64()?)),
            2 => Origin::Withdrawn,
            3 => Origin::Evicted,
            4 => Origin::OtherProcess,
            5 => Origin::Left,
            _ => return Err(Cut),
        };
        let head = Self { at, origin, entries: reader.varint()?, bytes: reader.varint()? };
        Ok((head, reader.rest()))
    }
}

impl Entry {
    pub(crate) fn decode(key: &[u8], record: &[u8]) -> Result<Self, Cut> {
        let number = Reader::new(key).u64()?;
        let (head, mut rest) = Head::decode(record)?;
        let mut changes = Vec::new();
        while !rest.is_empty() {
            let mut reader = Reader::new(rest);
            let (kind, id) = (reader.str()?, reader.str()?);
            for _ in 0..reader.count(3)? {
                let address = reader.slice()?;
                let stamp = reader.stamp()?;
                let mut value = || -> Result<Option<Value>, Cut> {
                    let bytes = reader.slice()?;
                    // What a resolver made may be nested deeper than what is stored.
                    Ok((!bytes.is_empty()).then(|| Value::decode(bytes).unwrap_or(Value::Null)))
                };
                let (before, after) = (value()?, value()?);
                let what = What::of(address).ok_or(Cut)?;
                changes.push(Change { kind: kind.to_owned(), id: id.to_owned(), what, before, after, stamp });
            }
            rest = reader.rest();
        }
        Ok(Self { number, at: head.at, origin: head.origin, changes })
    }
}

const VERSION: u8 = 1;
