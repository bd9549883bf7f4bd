//! LOST and HEARD: which writes were lost, and that their author knows.

use super::{Frame, tag};
use crate::bytes::{Cut, Put, Reader};
use crate::conflict::Conflict;
use crate::id::ReplicaId;
use crate::replica::Losses;

/// The least that a conflict takes, in bytes: five lengths, an address and two stamps.
const CONFLICT_BYTES_MIN: usize = 1 + 5 + 3 + 2 * 25;

pub(super) fn put(losses: &Losses, out: &mut Vec<u8>) {
    out.push(tag::LOST);
    out.extend_from_slice(&losses.replica.0);
    out.varint(losses.last);
    out.varint(losses.dropped);
    out.varint(losses.conflicts.len() as u64);
    for conflict in &losses.conflicts {
        out.sized(|out| conflict.encode(out));
    }
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Losses, Cut> {
    let replica = ReplicaId(reader.array()?);
    let (last, dropped) = (reader.varint()?, reader.varint()?);
    let count = reader.count(CONFLICT_BYTES_MIN)?;
    let mut conflicts = Vec::with_capacity(count);
    for _ in 0..count {
        conflicts.push(Conflict::decode(reader.slice()?)?);
    }
    Ok(Losses { replica, last, dropped, conflicts })
}

pub(super) fn put_heard(replica: ReplicaId, last: u64, out: &mut Vec<u8>) {
    out.push(tag::HEARD);
    out.extend_from_slice(&replica.0);
    out.varint(last);
}

pub(super) fn read_heard(reader: &mut Reader<'_>) -> Result<Frame, Cut> {
    Ok(Frame::Heard { replica: ReplicaId(reader.array()?), last: reader.varint()? })
}
