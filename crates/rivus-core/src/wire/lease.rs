//! LEASE: how far everybody is, and what was collected.

use super::{COLLECTED_MAX, Frame, tag};
use crate::address::{ID_BYTES_MAX, KIND_BYTES_MAX};
use crate::bytes::{Cut, Put, Reader};

const CUT: u8 = 0;
const COLLECTED: u8 = 1;

pub(super) fn put_cut(seq: u64, out: &mut Vec<u8>) {
    out.extend([tag::LEASE, CUT]);
    out.varint(seq);
}

pub(super) fn put_collected(entities: &[(String, String)], out: &mut Vec<u8>) {
    out.extend([tag::LEASE, COLLECTED]);
    out.varint(entities.len() as u64);
    for (kind, id) in entities {
        out.slice(kind.as_bytes());
        out.slice(id.as_bytes());
    }
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Frame, Cut> {
    match reader.u8()? {
        CUT => Ok(Frame::Cut { seq: reader.varint()? }),
        COLLECTED => {
            let count = reader.count(2)?;
            if count == 0 || count > COLLECTED_MAX {
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
            Ok(Frame::Collected(entities))
        }
        _ => Err(Cut),
    }
}
