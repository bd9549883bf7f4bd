//! Compression of long frames. Core has no C code; this is the hook that it leaves to the shell.

use std::io::Read;

use rivus_core::wire::{FRAME_BYTES_MAX, tag};

use super::{COMPRESS_BYTES_MIN, SyncError};

/// Shorter than this part of its length no frame gets that says something.
const BOMB_RATIO: usize = 32;

/// The level at which zstd is fast enough for every page.
const LEVEL: i32 = 3;

/// The frame as it goes out.
pub(super) fn pack(frame: Vec<u8>, zstd: bool) -> Vec<u8> {
    if !zstd || frame.len() < COMPRESS_BYTES_MIN {
        return frame;
    }
    let Ok(compressed) = zstd::bulk::compress(&frame, LEVEL) else { return frame };
    let mut packed = Vec::with_capacity(compressed.len() + 6);
    packed.push(tag::COMPRESSED);
    let mut len = frame.len();
    while len >= 0x80 {
        packed.push(u8::try_from(len & 0x7f).unwrap_or(0) | 0x80);
        len >>= 7;
    }
    packed.push(u8::try_from(len).unwrap_or(0));
    packed.extend_from_slice(&compressed);
    if packed.len() < frame.len() { packed } else { frame }
}

/// How long the frame says that it is, unpacked.
pub(super) fn unpacked_len(bytes: &[u8]) -> usize {
    match bytes.split_first() {
        Some((&tag::COMPRESSED, rest)) => announced(rest).map_or(0, |(len, _)| len),
        _ => bytes.len(),
    }
}

/// The announced length, and what is behind it.
fn announced(mut rest: &[u8]) -> Result<(usize, &[u8]), SyncError> {
    let mut len = 0_usize;
    for shift in [0, 7, 14, 21] {
        let (byte, tail) = rest.split_first().ok_or(SyncError::Packing)?;
        rest = tail;
        len |= usize::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok((len, rest));
        }
    }
    Err(SyncError::Packing)
}

/// Whether a frame is of a type that nobody knows here: nothing would be done with it but unpack it.
fn is_unheard(compressed: &[u8]) -> Result<bool, SyncError> {
    let mut first = [0];
    let mut unpacking = zstd::Decoder::with_buffer(compressed).map_err(|_| SyncError::Packing)?;
    unpacking.read_exact(&mut first).map_err(|_| SyncError::Packing)?;
    let [first] = first;
    Ok(first >= tag::OPTIONAL && ![tag::LOST, tag::HEARD, tag::REFUSED, tag::READABLE].contains(&first))
}

/// The frame as it was before packing. Its announced length bounds what is allocated.
pub(super) fn unpack(bytes: Vec<u8>) -> Result<Vec<u8>, SyncError> {
    let Some((&tag::COMPRESSED, rest)) = bytes.split_first() else { return Ok(bytes) };
    let (len, rest) = announced(rest)?;
    if len > FRAME_BYTES_MAX {
        return Err(SyncError::Packing);
    }
    // A frame tells its own length before it is trusted: zstd stores at most some 2^17 bytes per block of 3.
    if len / 65_536 > rest.len() {
        return Err(SyncError::Packing);
    }
    if len / BOMB_RATIO > rest.len() && is_unheard(rest)? {
        return Err(SyncError::Packing);
    }
    match zstd::bulk::decompress(rest, len) {
        Ok(frame) if frame.len() == len => Ok(frame),
        _ => Err(SyncError::Packing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_were_and_damaged_ones_are_refused() {
        let long = b"a long frame of many words. ".repeat(100);
        let packed = pack(long.clone(), true);
        assert!(packed.len() < 200 && packed[0] == tag::COMPRESSED);
        assert_eq!(unpack(packed.clone()), Ok(long.clone()));
        assert_eq!(pack(long.clone(), false), long);
        assert_eq!(unpack(vec![7, 1, 2]), Ok(vec![7, 1, 2]));
        for cut in 1..packed.len() {
            assert_eq!(unpack(packed[..cut].to_vec()), Err(SyncError::Packing), "cut at {cut}");
        }
        let unheard = [vec![tag::OPTIONAL + 70], vec![0; 60_000]].concat();
        assert_eq!(unpack(pack(unheard, true)), Err(SyncError::Packing), "nobody reads that");
        let said = [vec![tag::LOST], vec![0; 60_000]].concat();
        assert_eq!(unpack(pack(said.clone(), true)), Ok(said));
        let mut lie = packed;
        lie[1] ^= 1;
        assert_eq!(unpack(lie), Err(SyncError::Packing));
        assert_eq!(unpack(vec![tag::COMPRESSED, 0xff, 0xff, 0xff, 0xff, 1]), Err(SyncError::Packing));
    }
}
