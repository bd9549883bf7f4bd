//! LEASE: how far everybody is, and what was collected.

use super::fetch::{put_names, read_names};
use super::{COLLECTED_KEYS_MAX, COLLECTED_MAX, Frame, tag};
use crate::address::{self, ID_BYTES_MAX, KIND_BYTES_MAX, class};
use crate::bytes::{Cut, Put, Reader};
use crate::replica::Keys;

const CUT: u8 = 0;
const COLLECTED: u8 = 1;
const KEYS: u8 = 2;

pub(super) fn put_cut(seq: u64, out: &mut Vec<u8>) {
    out.extend([tag::LEASE, CUT]);
    out.varint(seq);
}

pub(super) fn put_collected(seq: u64, entities: &[(String, String)], out: &mut Vec<u8>) {
    out.extend([tag::LEASE, COLLECTED]);
    out.varint(seq);
    put_names(entities, out);
}

pub(super) fn put_keys(seq: u64, keys: &[Keys], out: &mut Vec<u8>) {
    out.extend([tag::LEASE, KEYS]);
    out.varint(seq);
    out.varint(keys.len() as u64);
    for (kind, id, addresses) in keys {
        out.slice(kind.as_bytes());
        out.slice(id.as_bytes());
        out.varint(addresses.len() as u64);
        addresses.iter().for_each(|address| out.slice(address));
    }
}

fn read_keys(reader: &mut Reader<'_>) -> Result<Vec<Keys>, Cut> {
    let count = reader.count(3)?;
    let mut left = COLLECTED_KEYS_MAX;
    if count == 0 || count > left {
        return Err(Cut);
    }
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let (kind, id) = (reader.str()?, reader.str()?);
        let count = reader.count(1)?;
        left = left.checked_sub(count).filter(|_| count > 0).ok_or(Cut)?;
        let addresses = (0..count).map(|_| Ok(reader.slice()?.to_vec())).collect::<Result<Vec<_>, Cut>>()?;
        let are_keys =
            addresses.iter().all(|one| one.first() == Some(&class::KEY) && address::is_well_formed(one));
        if kind.len() > KIND_BYTES_MAX || id.len() > ID_BYTES_MAX || !are_keys || !addresses.is_sorted() {
            return Err(Cut);
        }
        all.push((kind.to_owned(), id.to_owned(), addresses));
    }
    Ok(all)
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Frame, Cut> {
    match reader.u8()? {
        CUT => Ok(Frame::Cut { seq: reader.varint()? }),
        COLLECTED => {
            let (seq, entities) = (reader.varint()?, read_names(reader, COLLECTED_MAX)?);
            Ok(Frame::Collected { seq, entities })
        }
        KEYS => {
            let (seq, keys) = (reader.varint()?, read_keys(reader)?);
            Ok(Frame::CollectedKeys { seq, keys })
        }
        _ => Err(Cut),
    }
}
