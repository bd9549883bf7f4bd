//! LEASE: how far everybody is, and what was collected.

use super::fetch::{put_names, read_names};
use super::{COLLECTED_MAX, Frame, tag};
use crate::bytes::{Cut, Put, Reader};

const CUT: u8 = 0;
const COLLECTED: u8 = 1;

pub(super) fn put_cut(seq: u64, out: &mut Vec<u8>) {
    out.extend([tag::LEASE, CUT]);
    out.varint(seq);
}

pub(super) fn put_collected(seq: u64, entities: &[(String, String)], out: &mut Vec<u8>) {
    out.extend([tag::LEASE, COLLECTED]);
    out.varint(seq);
    put_names(entities, out);
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Frame, Cut> {
    match reader.u8()? {
        CUT => Ok(Frame::Cut { seq: reader.varint()? }),
        COLLECTED => {
            let (seq, entities) = (reader.varint()?, read_names(reader, COLLECTED_MAX)?);
            Ok(Frame::Collected { seq, entities })
        }
        _ => Err(Cut),
    }
}
