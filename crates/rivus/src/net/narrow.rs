//! What a client may send before it has said who it is.
//!
//! A WebSocket makes room for a frame as soon as it has read how long that is to be. So this looks at the headers of
//! frames (RFC 6455, section 5.2) before the WebSocket does, and at nothing else of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rivus_core::wire::GREETING_BYTES_MAX;

use super::pump::TooEarly;

/// The bound of one connection, and how much of it is left.
#[derive(Debug)]
pub(super) struct Narrow {
    narrows: Narrows,
    left: usize,
    header: Header,
}

/// Lifts the bound from elsewhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Narrows(Arc<AtomicBool>);

impl Narrows {
    /// The client has said who it is.
    pub(crate) fn lift(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_lifted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Narrow {
    fn default() -> Self {
        Self { narrows: Narrows::default(), left: BEFORE_GREETING_BYTES_MAX, header: Header::default() }
    }
}

impl Narrow {
    pub(super) fn narrows(&self) -> Narrows {
        self.narrows.clone()
    }

    /// Counts what has come in, and what the frames in it say is still to come.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), TooEarly> {
        if self.narrows.is_lifted() {
            return Ok(());
        }
        let too_early = || TooEarly { bytes_max: BEFORE_GREETING_BYTES_MAX };
        self.left = self.left.checked_sub(bytes.len()).ok_or_else(too_early)?;
        // What is announced beyond what is here already must fit into what is left.
        let announced = self.header.pass(bytes);
        if announced > self.left as u64 { Err(too_early()) } else { Ok(()) }
    }
}

/// The header of a frame, as far as it has come, and how much comes before the next one.
#[derive(Debug, Default)]
struct Header {
    part: Part,
    length: u64,
    mask: u64,
    /// What is passed over: the mask, and what is masked.
    skip: u64,
}

/// What the next byte of a header is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Part {
    #[default]
    Kind,
    Length,
    /// One of so many that tell the length.
    Long(u8),
}

impl Header {
    /// Passes over bytes, and says how many more the frame in which they end is to have.
    fn pass(&mut self, mut bytes: &[u8]) -> u64 {
        while let Some((first, rest)) = bytes.split_first() {
            if self.skip == 0 {
                self.push(*first);
                bytes = rest;
                continue;
            }
            let passed = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= passed as u64;
            bytes = bytes.get(passed..).unwrap_or_default();
        }
        self.skip
    }

    fn push(&mut self, byte: u8) {
        self.part = match self.part {
            Part::Kind => Part::Length,
            Part::Length => {
                self.mask = if byte & MASKED == 0 { 0 } else { MASK_BYTES };
                self.length = 0;
                match byte & !MASKED {
                    LENGTH_16 => Part::Long(2),
                    LENGTH_64 => Part::Long(8),
                    short => {
                        self.length = u64::from(short);
                        Part::Kind
                    }
                }
            }
            Part::Long(left) => {
                self.length = self.length << 8 | u64::from(byte);
                if left > 1 { Part::Long(left - 1) } else { Part::Kind }
            }
        };
        if self.part == Part::Kind {
            self.skip = self.mask.saturating_add(self.length);
        }
    }
}

/// How many bytes a client may send before its HELLO is accepted: the longest one, and probes.
const BEFORE_GREETING_BYTES_MAX: usize = GREETING_BYTES_MAX + (1 << 10);

const MASKED: u8 = 0x80;
const MASK_BYTES: u64 = 4;
/// Instead of a length: it is in the next 2, or 8, bytes.
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a frame with so many bytes, and its mask.
    fn header(length: u64) -> Vec<u8> {
        let mut bytes = vec![0x82];
        match length {
            0..126 => bytes.push(MASKED | u8::try_from(length).unwrap()),
            126..0x1_0000 => {
                bytes.push(MASKED | LENGTH_16);
                bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(MASKED | LENGTH_64);
                bytes.extend_from_slice(&length.to_be_bytes());
            }
        }
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn a_frame_that_is_to_be_too_long_is_refused_at_its_header_however_that_comes_in() {
        let most = BEFORE_GREETING_BYTES_MAX as u64;
        for (length, fits) in [
            (0, true),
            (125, true),
            (126, true),
            (65_535, true),
            (65_536, true),
            (most - 16, true),
            (most - 13, false),
            (u64::MAX, false),
        ] {
            // Behind other frames, and whole or byte by byte.
            let probes = [header(0), header(3), vec![0; 3]].concat();
            for probes in [Vec::new(), probes] {
                let bytes = [probes.clone(), header(length)].concat();
                let fits = fits && length + bytes.len() as u64 <= most;
                assert_eq!(Narrow::default().take(&bytes).is_ok(), fits, "{length}");
                let mut narrow = Narrow::default();
                let taken = bytes.iter().try_for_each(|byte| narrow.take(&[*byte]));
                assert_eq!(taken.is_ok(), fits, "{length}, byte by byte");
                let mut narrow = Narrow::default();
                narrow.narrows().lift();
                assert!(narrow.take(&bytes).is_ok(), "{length}, from somebody who is known");
            }
        }
    }

    #[test]
    fn many_short_frames_are_no_way_around_the_bound() {
        let mut narrow = Narrow::default();
        let frame = [header(100), vec![0; 100]].concat();
        let taken = (0..).take_while(|_| narrow.take(&frame).is_ok()).count();
        assert_eq!(taken, BEFORE_GREETING_BYTES_MAX / frame.len());
    }
}
