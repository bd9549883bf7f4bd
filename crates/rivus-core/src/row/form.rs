//! The stored form of one register.

use crate::bytes::{Cut, Put, Reader};
use crate::id::{Incarnation, ReplicaId};
use crate::register::{Alive, Candidate, Register, Saw, Seen};

const PLAIN: u8 = 1;
const RANK: u8 = 2;
const SAW: u8 = 4;

fn marks(candidate: &Candidate<'_>) -> u8 {
    (if candidate.rank == 0 { 0 } else { RANK }) | (if candidate.saw.is_none() { 0 } else { SAW })
}

fn put_candidate(out: &mut Vec<u8>, candidate: &Candidate<'_>) {
    out.stamp(candidate.stamp);
    if candidate.rank != 0 {
        out.push(candidate.rank);
    }
    if let Some(saw) = candidate.saw {
        out.extend_from_slice(&saw.incarnation.0.to_be_bytes());
        out.varint(saw.done);
    }
}

#[inline(always)]
fn candidate<'a>(reader: &mut Reader<'a>, marks: u8) -> Result<Candidate<'a>, Cut> {
    let stamp = reader.stamp()?;
    let rank = if marks & RANK == 0 { 0 } else { reader.u8()? };
    let saw = if marks & SAW == 0 {
        None
    } else {
        Some(Saw { incarnation: Incarnation(reader.u64()?), done: reader.varint()? })
    };
    Ok(Candidate { stamp, rank, saw, value: &[] })
}

/// Appends a plain register.
pub(super) fn encode_plain(only: &Candidate<'_>, out: &mut Vec<u8>) {
    out.push(PLAIN | marks(only));
    put_candidate(out, only);
    out.extend_from_slice(only.value);
}

/// Reads a plain register; `None` if the form is another one, or none.
#[inline]
pub(super) fn plain(bytes: &[u8]) -> Option<Candidate<'_>> {
    let mut reader = Reader::new(bytes);
    let head = reader.u8().ok().filter(|head| head & PLAIN != 0)?;
    let only = candidate(&mut reader, head).ok()?;
    Some(Candidate { value: reader.rest(), ..only })
}

/// The value of the only candidate of a register that has one, found without reading stamps.
#[inline]
pub(super) fn sole_value(bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(bytes);
    let head = reader.u8().ok()?;
    if head & PLAIN != 0 {
        skip_candidate(&mut reader, head).ok()?;
        return Some(reader.rest());
    }
    skip_stamp(&mut reader).ok()?;
    let 1 = reader.varint().ok()? else { return None };
    let marks = reader.u8().ok()?;
    skip_candidate(&mut reader, marks).ok()?;
    reader.slice().ok()
}

#[inline(always)]
fn skip_stamp(reader: &mut Reader<'_>) -> Result<(), Cut> {
    reader.varint()?;
    reader.take(size_of::<u64>() + size_of::<ReplicaId>()).map(drop)
}

#[inline(always)]
fn skip_candidate(reader: &mut Reader<'_>, marks: u8) -> Result<(), Cut> {
    skip_stamp(reader)?;
    reader.take(usize::from(marks & RANK != 0))?;
    if marks & SAW != 0 {
        reader.take(size_of::<u64>())?;
        reader.varint()?;
    }
    Ok(())
}

/// Appends a register; its end is known from outside.
pub fn encode_register(register: &Register<'_>, out: &mut Vec<u8>) {
    if let Some(only) = register.as_plain() {
        encode_plain(only, out);
        return;
    }
    out.push(0);
    out.stamp(register.floor);
    out.varint(register.alive.len() as u64);
    for each in register.alive.iter() {
        out.push(marks(each));
        put_candidate(out, each);
        out.slice(each.value);
    }
    out.varint(register.seen.len() as u64);
    for entry in &register.seen {
        out.extend_from_slice(&entry.replica.0);
        out.instant(entry.instant);
    }
}

/// Reads a whole register. Its laws are not checked again: what is stored was checked when it came in.
///
/// # Errors
/// [`Cut`] if the bytes are no register.
pub fn decode_register(bytes: &[u8]) -> Result<Register<'_>, Cut> {
    let mut reader = Reader::new(bytes);
    let head = reader.u8()?;
    if head & PLAIN != 0 {
        let mut only = candidate(&mut reader, head)?;
        only.value = reader.rest();
        return Ok(Register::plain(only));
    }
    let floor = reader.stamp()?;
    let count = reader.count(10)?;
    let mut next = || -> Result<Candidate<'_>, Cut> {
        let marks = reader.u8()?;
        let each = candidate(&mut reader, marks)?;
        Ok(Candidate { value: reader.slice()?, ..each })
    };
    let alive = match count {
        0 => return Err(Cut),
        1 => Alive::One([next()?]),
        _ => Alive::Many((0..count).map(|_| next()).collect::<Result<_, _>>()?),
    };
    let count = reader.count(25)?;
    let mut seen = Vec::with_capacity(count);
    for _ in 0..count {
        let replica = ReplicaId(reader.array()?);
        seen.push(Seen { replica, instant: reader.instant()? });
    }
    reader.end()?;
    Ok(Register { floor, alive, seen })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;

    /// Candidates whose stored form has each part or lacks it, and lengths of one and two bytes.
    fn candidates() -> impl Iterator<Item = Candidate<'static>> {
        let stamp = |generation| Stamp { generation, time: 77, replica: ReplicaId::from_u128(9) };
        let saws = [None, Some(5), Some(300)];
        let parts = [0, 300].into_iter().flat_map(move |generation| saws.map(move |saw| (generation, saw)));
        parts.flat_map(move |(generation, saw)| {
            let saw = saw.map(|done| Saw { incarnation: Incarnation(7), done });
            [0, 3].map(|rank| Candidate { stamp: stamp(generation), rank, saw, value: b"value" })
        })
    }

    fn encoded(register: &Register<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode_register(register, &mut out);
        out
    }

    #[test]
    fn a_plain_register_is_read_whole_or_its_value_alone() {
        for only in candidates() {
            let bytes = encoded(&Register::plain(only));
            assert_eq!(decode_register(&bytes), Ok(Register::plain(only)));
            assert_eq!(plain(&bytes), Some(only));
            assert_eq!(sole_value(&bytes), Some(only.value));
            let head = bytes.len() - only.value.len();
            assert_eq!(sole_value(&bytes[..head]), Some(&[][..]));
            for cut in 0..head {
                assert_eq!(
                    (plain(&bytes[..cut]), sole_value(&bytes[..cut])),
                    (None, None),
                    "{cut} of {only:?}"
                );
                assert_eq!(decode_register(&bytes[..cut]), Err(Cut));
            }
        }
    }

    #[test]
    fn a_register_of_one_candidate_above_its_floor_has_a_sole_value_and_is_not_plain() {
        for only in candidates() {
            let seen = vec![Seen { replica: ReplicaId::from_u128(1), instant: Stamp::LOWEST.instant() }];
            let register = Register { floor: Stamp::LOWEST, seen, ..Register::plain(only) };
            let bytes = encoded(&register);
            let decoded = decode_register(&bytes).unwrap();
            assert_eq!(decoded, register);
            assert!(matches!(decoded.alive, Alive::One(_)), "one candidate needs no allocation");
            assert_eq!((plain(&bytes), sole_value(&bytes)), (None, Some(only.value)));
            assert!((0..bytes.len()).all(|cut| decode_register(&bytes[..cut]) == Err(Cut)));
        }
    }

    #[test]
    fn a_register_of_several_candidates_has_no_sole_value_and_one_of_none_is_no_register() {
        let alive: Vec<_> = candidates().collect();
        let register = Register { floor: Stamp::LOWEST, alive: alive.into(), seen: Vec::new() };
        let bytes = encoded(&register);
        assert_eq!(decode_register(&bytes), Ok(register.clone()));
        assert_eq!((plain(&bytes), sole_value(&bytes)), (None, None));
        let none = Register { alive: Vec::new().into(), ..register };
        assert_eq!(decode_register(&encoded(&none)), Err(Cut));
    }
}
