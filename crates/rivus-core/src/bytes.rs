//! Reading and writing of small binary forms: the row format of stores and the row coding of the wire.
//!
//! Owns variable-length integers and bounded slices. A reader never allocates and never reads past its end.

use crate::clock::{Instant, Stamp, TIME_END};
use crate::id::ReplicaId;

/// A cursor over borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline(always)]
    pub(crate) fn u8(&mut self) -> Result<u8, Cut> {
        let (first, rest) = self.rest.split_first().ok_or(Cut)?;
        self.rest = rest;
        Ok(*first)
    }

    #[inline(always)]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Cut> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Cut)?;
        self.rest = rest;
        Ok(head)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Cut> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Cut)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Cut> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Cut> {
        self.array().map(u128::from_be_bytes)
    }

    /// LEB128, shortest form only.
    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, Cut> {
        match self.rest {
            [first @ ..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*first))
            }
            [first, second @ 1..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*second) << 7 | u64::from(*first & 0x7f))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Cut> {
        let first = self.u8()?;
        let mut value = u64::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 || byte == 0 {
                return Err(Cut);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
            if shift > 63 {
                return Err(Cut);
            }
        }
    }

    #[inline(always)]
    pub(crate) fn len(&mut self) -> Result<usize, Cut> {
        usize::try_from(self.varint()?).map_err(|_| Cut)
    }

    /// A length and as many bytes.
    #[inline(always)]
    pub(crate) fn slice(&mut self) -> Result<&'a [u8], Cut> {
        let len = self.len()?;
        self.take(len)
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, Cut> {
        std::str::from_utf8(self.slice()?).map_err(|_| Cut)
    }

    /// A count of things of at least `each` bytes: more than fit in the rest are refused before any is read.
    pub(crate) fn count(&mut self, each: usize) -> Result<usize, Cut> {
        let count = self.len()?;
        if count > self.remaining() / each.max(1) { Err(Cut) } else { Ok(count) }
    }

    #[inline]
    pub(crate) fn instant(&mut self) -> Result<Instant, Cut> {
        let generation = u16::try_from(self.varint()?).map_err(|_| Cut)?;
        let time = self.u64()?;
        if time >= TIME_END { Err(Cut) } else { Ok(Instant { generation, time }) }
    }

    #[inline]
    pub(crate) fn stamp(&mut self) -> Result<Stamp, Cut> {
        let instant = self.instant()?;
        Ok(instant.by(ReplicaId(self.array()?)))
    }

    pub(crate) fn end(&self) -> Result<(), Cut> {
        if self.rest.is_empty() { Ok(()) } else { Err(Cut) }
    }
}

/// Bytes end early, or are not of the form that they should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bytes are cut short or malformed")]
pub struct Cut;

/// The writing side, on a plain vector.
pub(crate) trait Put {
    fn varint(&mut self, value: u64);
    fn slice(&mut self, bytes: &[u8]);
    /// A length and as many bytes, which `fill` appends.
    fn sized(&mut self, fill: impl FnOnce(&mut Self));
    fn instant(&mut self, instant: Instant);
    fn stamp(&mut self, stamp: Stamp);
}

impl Put for Vec<u8> {
    #[inline]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(low7(value) | 0x80);
            value >>= 7;
        }
        self.push(low7(value));
    }

    #[inline]
    fn slice(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.extend_from_slice(bytes);
    }

    /// What is short needs no second pass: only a length above one byte moves what was appended.
    #[inline]
    fn sized(&mut self, fill: impl FnOnce(&mut Self)) {
        let mut at = self.len();
        self.push(0);
        fill(self);
        let mut len = self.len() - at - 1;
        while len >= 0x80 {
            self.insert(at, low7(len as u64) | 0x80);
            len >>= 7;
            at += 1;
        }
        if let Some(last) = self.get_mut(at) {
            *last = low7(len as u64);
        }
    }

    fn instant(&mut self, instant: Instant) {
        self.varint(u64::from(instant.generation));
        self.extend_from_slice(&instant.time.to_be_bytes());
    }

    fn stamp(&mut self, stamp: Stamp) {
        self.instant(stamp.instant());
        self.extend_from_slice(&stamp.replica.0);
    }
}

/// The low seven bits.
#[inline]
fn low7(value: u64) -> u8 {
    (value & 0x7f) as u8
}

/// Signed differences as small unsigned numbers.
#[expect(clippy::cast_sign_loss, reason = "zigzag reinterprets the bits")]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[expect(clippy::cast_possible_wrap, reason = "zigzag reinterprets the bits")]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_only_their_shortest_form_is_read() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), 1 << 63, u64::MAX] {
            let mut out = Vec::new();
            out.varint(value);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.is_empty());
            for cut in 0..out.len() {
                assert_eq!(Reader::new(&out[..cut]).varint(), Err(Cut));
            }
        }
        assert_eq!(Reader::new(&[0x80, 0x00]).varint(), Err(Cut));
        assert_eq!(Reader::new(&[0xff; 10]).varint(), Err(Cut));
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn what_is_appended_with_its_length_reads_as_a_slice() {
        for len in [0, 1, 127, 128, 300, 16_383, 16_384] {
            let content: Vec<u8> = (0..len).map(|n: u32| n.to_le_bytes()[0]).collect();
            let (mut by_slice, mut by_sized) = (vec![9], vec![9]);
            by_slice.slice(&content);
            by_sized.sized(|out| out.extend_from_slice(&content));
            assert_eq!(by_sized, by_slice);
        }
    }

    #[test]
    fn a_count_beyond_the_rest_is_refused() {
        assert_eq!(Reader::new(&[5, 0, 0]).count(1), Err(Cut));
        assert_eq!(Reader::new(&[2, 0, 0]).count(1), Ok(2));
    }
}
