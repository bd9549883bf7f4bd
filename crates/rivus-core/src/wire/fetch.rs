//! The byte form of FETCH and LEFT: which entities are wanted, and which have left a scope.

use super::FETCH_ENTITIES_MAX;
use crate::address::{ID_BYTES_MAX, KIND_BYTES_MAX};
use crate::bytes::{Cut, Put, Reader};

pub(super) fn put(tag: u8, entities: &[(String, String)], out: &mut Vec<u8>) {
    out.push(tag);
    put_names(entities, out);
}

/// Writes kinds and ids, and how many there are.
pub(super) fn put_names(entities: &[(String, String)], out: &mut Vec<u8>) {
    out.varint(entities.len() as u64);
    for (kind, id) in entities {
        out.slice(kind.as_bytes());
        out.slice(id.as_bytes());
    }
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>, Cut> {
    read_names(reader, FETCH_ENTITIES_MAX)
}

/// Reads kinds and ids: at least one, and at most so many.
pub(super) fn read_names(reader: &mut Reader<'_>, most: usize) -> Result<Vec<(String, String)>, Cut> {
    let count = reader.count(2)?;
    if count == 0 || count > most {
        return Err(Cut);
    }
    let mut entities = Vec::with_capacity(count);
    for _ in 0..count {
        let (kind, id) = (reader.str()?, reader.str()?);
        if kind.len() > KIND_BYTES_MAX || id.len() > ID_BYTES_MAX {
            return Err(Cut);
        }
        entities.push((kind.to_owned(), id.to_owned()));
    }
    Ok(entities)
}
