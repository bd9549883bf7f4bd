//! The index: who claimed which group, who bears which name, who refers to whom.
//!
//! Records of [`Table::Rule`], by rule. A key begins with the rule's position, a letter, and what is looked for; what
//! follows puts those found in the order in which the rule wants them. Owns the keys and reading them as they will
//! be after the commit that is being made.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use xxhash_rust::xxh3::xxh3_128;

use crate::bytes::{Cut, Put, Reader};
use crate::clock::{Instant, Stamp};
use crate::id::ReplicaId;
use crate::store::{Store, StoreError, Table};
use crate::value::Value;

/// Changes of the index that are not committed yet; `None` removes.
pub(crate) type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Those that claimed a group, by claim.
pub(super) const CLAIMS: u8 = b'c';
/// Those of them that are open in it.
pub(super) const OPEN: u8 = b'o';
/// Those that bear a name in a group, by claim.
pub(super) const NAMES: u8 = b'n';
/// Those that refer to an entity.
pub(super) const REFERRERS: u8 = b'r';
/// Those that refer to what is no entity.
pub(super) const DANGLING: u8 = b'd';
/// Those that are in a custom rule's group.
pub(super) const MEMBERS: u8 = b'm';
/// By entity: the keys under which it is found.
pub(super) const ENTRIES: u8 = b'e';

/// Under which key the state of the whole index is.
pub(crate) const COVER_KEY: &[u8] = &[0xff, 0xff];

/// A value longer than this is in keys as its hash, in bytes.
const PLAIN_BYTES_MAX: usize = 512;

/// How far the index follows the rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cover {
    /// Of the rules that it is made for.
    pub(crate) fingerprint: u128,
    /// Up to which row it is made.
    pub(crate) seq: u64,
    /// The greatest version of the rules that anybody told of.
    pub(crate) epoch: u32,
}

impl Cover {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = self.fingerprint.to_be_bytes().to_vec();
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Cut> {
        let mut reader = Reader::new(bytes);
        let (fingerprint, seq) = (reader.u128()?, reader.u64()?);
        Ok(Self { fingerprint, seq, epoch: u32::from_be_bytes(reader.array()?) })
    }
}

/// How long the compact value is with which these bytes begin.
pub(super) fn value_len(bytes: &[u8]) -> Option<usize> {
    if bytes.first() == Some(&0xff) {
        return Some(1 + size_of::<u128>());
    }
    let mut decoder = minicbor::Decoder::new(bytes);
    decoder.skip().ok()?;
    Some(decoder.position())
}

/// Values in a form that tells where it ends; equal for equal values. One that is long counts by its hash, which
/// begins with a byte that no value begins with.
pub(super) fn compact(value: &Value) -> Vec<u8> {
    let bytes = value.to_bytes();
    if bytes.len() <= PLAIN_BYTES_MAX {
        return bytes;
    }
    let mut short = vec![0xff];
    short.extend_from_slice(&xxh3_128(&bytes).to_be_bytes());
    short
}

/// The beginning of keys.
pub(super) fn prefix(rule: usize, part: u8, rest: &[&[u8]]) -> Vec<u8> {
    let mut key = u16::try_from(rule).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    key.push(part);
    rest.iter().for_each(|bytes| key.extend_from_slice(bytes));
    key
}

/// The end of a key that is ordered by stamp and id.
pub(super) fn put_place(key: &mut Vec<u8>, stamp: Stamp, id: &str) {
    key.extend_from_slice(&stamp.generation.to_be_bytes());
    key.extend_from_slice(&stamp.time.to_be_bytes());
    key.extend_from_slice(&stamp.replica.0);
    key.extend_from_slice(id.as_bytes());
}

/// Stamp and id at the end of a key.
pub(super) fn place(end: &[u8]) -> Result<(Stamp, &str), StoreError> {
    let read = |end| -> Result<(Stamp, &str), Cut> {
        let mut reader = Reader::new(end);
        let generation = u16::from_be_bytes(reader.array()?);
        let instant = Instant { generation, time: reader.u64()? };
        let stamp = instant.by(ReplicaId(reader.array()?));
        Ok((stamp, std::str::from_utf8(reader.rest()).map_err(|_| Cut)?))
    };
    read(end).map_err(|_| damaged())
}

pub(super) fn damaged() -> StoreError {
    StoreError::Damaged("the index of the rules is unreadable".to_owned())
}

/// The keys under which an entity is found, in one record.
pub(super) fn encode_entries<'k>(keys: impl Iterator<Item = &'k [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    keys.for_each(|key| out.slice(key));
    out
}

pub(super) fn decode_entries(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut keys = Vec::new();
    while !bytes.is_empty() {
        let mut reader = Reader::new(bytes);
        keys.push(reader.slice().map_err(|_| damaged())?.to_vec());
        bytes = reader.rest();
    }
    Ok(keys)
}

/// The index as it will be.
#[derive(Debug)]
pub(super) struct Index<'i, S> {
    pub(super) store: &'i S,
    pub(super) changes: &'i Changes,
}

impl<S: Store> Index<'_, S> {
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.changes.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => self.store.record(Table::Rule, key),
        }
    }

    /// Visits what begins with `prefix` and comes after `after`, ascending, each with its end beyond the prefix, until
    /// the visitor breaks off.
    pub(super) fn visit(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let from = after.unwrap_or(prefix);
        let lower = if after.is_some() { Bound::Excluded(from) } else { Bound::Included(from) };
        let mut changed = self
            .changes
            .range::<[u8], _>((lower, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .peekable();
        let mut failed = Ok(());
        let mut call =
            |key: &[u8], value: &[u8]| match visit(key.get(prefix.len()..).unwrap_or_default(), value) {
                Ok(flow) => flow,
                Err(error) => {
                    failed = Err(error);
                    ControlFlow::Break(())
                }
            };
        let mut is_over = false;
        self.store.records(Table::Rule, from, &mut |key, value| {
            if after == Some(key) {
                return ControlFlow::Continue(());
            }
            if !key.starts_with(prefix) {
                return ControlFlow::Break(());
            }
            while let Some((before, new)) = changed.next_if(|(changed, _)| changed.as_slice() < key) {
                if let Some(new) = new
                    && call(before, new).is_break()
                {
                    is_over = true;
                    return ControlFlow::Break(());
                }
            }
            let flow = match changed.next_if(|(changed, _)| changed.as_slice() == key) {
                Some((_, Some(new))) => call(key, new),
                Some((_, None)) => ControlFlow::Continue(()),
                None => call(key, value),
            };
            is_over = flow.is_break();
            flow
        })?;
        if !is_over {
            for (key, new) in changed {
                if let Some(new) = new
                    && call(key, new).is_break()
                {
                    break;
                }
            }
        }
        failed
    }

    /// The end beyond the prefix of the least key that begins with it and is above `after`.
    pub(super) fn next_after(&self, prefix: &[u8], after: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut next = None;
        self.visit(prefix, Some(after), &mut |end, _| {
            next = Some(end.to_vec());
            Ok(ControlFlow::Break(()))
        })?;
        Ok(next)
    }

    /// The greatest key that begins with `prefix` and is below `below`: its end beyond the prefix, and its value.
    pub(super) fn last_below(
        &self,
        prefix: &[u8],
        below: &[u8],
    ) -> Result<Option<(Vec<u8>, Vec<u8>)>, StoreError> {
        let range = (Bound::Included(prefix), Bound::Excluded(below));
        let own = if prefix < below {
            self.changes
                .range::<[u8], _>(range)
                .rev()
                .find_map(|(key, new)| Some((key.clone(), new.clone()?)))
        } else {
            None
        };
        let mut limit = below.to_vec();
        let stored = loop {
            let found =
                self.store.last_record(Table::Rule, &limit)?.filter(|(key, _)| key.starts_with(prefix));
            match found {
                Some((key, _)) if self.changes.contains_key(&key) => limit = key,
                found => break found,
            }
        };
        let found = match (own, stored) {
            (Some(own), Some(stored)) => Some(if own.0 > stored.0 { own } else { stored }),
            (own, stored) => own.or(stored),
        };
        Ok(found.map(|(key, value)| (key.get(prefix.len()..).unwrap_or_default().to_vec(), value)))
    }
}
