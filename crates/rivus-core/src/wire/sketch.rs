//! The byte form of SKETCH: what is asked for, symbols, and the keys of registers that the sender lacks.

use super::{Frame, tag};
use crate::bytes::{Cut, Put, Reader};
use crate::sketch::{Key, SYMBOLS_MAX, Symbol};

/// What follows the type.
mod form {
    pub(super) const ASK: u8 = 0;
    pub(super) const SYMBOLS: u8 = 1;
    pub(super) const LACKS: u8 = 2;
}

/// The least that a symbol takes, in bytes.
const SYMBOL_BYTES_MIN: usize = 8 + 4 + 1;

pub(super) fn put_ask(count: usize, out: &mut Vec<u8>) {
    out.extend([tag::SKETCH, form::ASK]);
    out.varint(count as u64);
}

pub(super) fn put(symbols: &[Symbol], out: &mut Vec<u8>) {
    out.extend([tag::SKETCH, form::SYMBOLS]);
    out.varint(symbols.len() as u64);
    for symbol in symbols {
        out.extend_from_slice(&symbol.keys.to_be_bytes());
        out.extend_from_slice(&symbol.checks.to_be_bytes());
        out.varint(symbol.count);
    }
}

pub(super) fn put_lacks(keys: &[Key], out: &mut Vec<u8>) {
    out.extend([tag::SKETCH, form::LACKS]);
    out.varint(keys.len() as u64);
    keys.iter().for_each(|key| out.extend_from_slice(&key.0.to_be_bytes()));
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Frame, Cut> {
    match reader.u8()? {
        form::ASK => {
            let count = reader.len()?;
            if (1..=SYMBOLS_MAX).contains(&count) { Ok(Frame::AskSketch { count }) } else { Err(Cut) }
        }
        form::SYMBOLS => {
            let count = reader.count(SYMBOL_BYTES_MIN)?;
            if !(1..=SYMBOLS_MAX).contains(&count) {
                return Err(Cut);
            }
            let mut symbol = || -> Result<Symbol, Cut> {
                let (keys, checks) = (reader.u64()?, u32::from_be_bytes(reader.array()?));
                Ok(Symbol { keys, checks, count: reader.varint()? })
            };
            (0..count).map(|_| symbol()).collect::<Result<_, _>>().map(Frame::Sketch)
        }
        form::LACKS => {
            let count = reader.count(size_of::<u64>())?;
            if count > SYMBOLS_MAX {
                return Err(Cut);
            }
            let keys: Vec<Key> = (0..count).map(|_| reader.u64().map(Key)).collect::<Result<_, _>>()?;
            if keys.is_sorted_by(|one, two| one < two) { Ok(Frame::Lacks(keys)) } else { Err(Cut) }
        }
        _ => Err(Cut),
    }
}
