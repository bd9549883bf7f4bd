//! Canonical bytes: the writer, and one reader that both [`check`] and [`Value::decode`] walk with.
//!
//! Source: RFC 8949, sections 3 and 4.2.1. The reader refuses whatever the writer would not have written, and
//! never trusts an announced length: every item is at least a byte long.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{ABSENT, DEPTH_MAX, Value, ValueError};

impl Value {
    /// Appends the canonical bytes to `out`. Needs no stack for nesting, however deep.
    pub fn encode(&self, out: &mut Vec<u8>) {
        // What is still to be written, last first: a value, after its key if it is in a map.
        let mut todo: Vec<(Option<&str>, &Self)> = Vec::new();
        let mut value = self;
        loop {
            match value {
                Self::Null => out.push(NULL),
                Self::Bool(false) => out.push(FALSE),
                Self::Bool(true) => out.push(TRUE),
                Self::Int(n) if *n < 0 => head(out, NEGATIVE, (!n).cast_unsigned()),
                Self::Int(n) => head(out, UNSIGNED, n.cast_unsigned()),
                Self::Float(float) => encode_float(out, *float),
                Self::Text(text) => encode_string(out, TEXT, text.as_bytes()),
                Self::Bytes(bytes) => encode_string(out, BYTES, bytes),
                Self::List(list) => {
                    head(out, LIST, list.len() as u64);
                    todo.extend(list.iter().rev().map(|value| (None, value)));
                }
                Self::Map(map) => {
                    head(out, MAP, map.len() as u64);
                    let first = todo.len();
                    todo.extend(map.iter().rev().map(|(key, value)| (Some(key.as_str()), value)));
                    // The encoded key begins with its length; equal lengths keep the order of the map.
                    let (_, entries) = todo.split_at_mut(first);
                    entries.sort_by_key(|(key, _)| Reverse(key.map(str::len)));
                }
                Self::Unknown { tag, bytes } => {
                    head(out, TAG, *tag);
                    encode_string(out, BYTES, bytes);
                }
            }
            let Some((key, next)) = todo.pop() else { return };
            if let Some(key) = key {
                encode_string(out, TEXT, key.as_bytes());
            }
            value = next;
        }
    }

    /// The canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let room = match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => 0,
        };
        let mut out = Vec::with_capacity(room + 9);
        self.encode(&mut out);
        out
    }

    /// Reads a value from the whole of `bytes`. Refused bytes cost no memory, whatever lengths they announce;
    /// an accepted value takes its text and bytes, 32 bytes an item, and a tree node of some 640 bytes for each map
    /// and every six of its entries: of a list of numbers at most 33 times its bytes, of the smallest maps 221 times.
    ///
    /// # Errors
    /// Bytes that are not exactly one canonical value; [`ABSENT`] is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, ValueError> {
        if bytes == ABSENT {
            return Err(ValueError::Absent);
        }
        check(bytes)?;
        Reader::new(bytes).value()
    }
}

/// Whether the whole of `bytes` is one canonical value or [`ABSENT`]. Allocates nothing.
///
/// # Errors
/// Says what is wrong, and at which byte.
#[inline]
pub fn check(bytes: &[u8]) -> Result<(), ValueError> {
    let short = match bytes {
        [0x00..=0x17 | 0x20..=0x37 | FALSE..=UNDEFINED] => true,
        [first @ 0x60..=0x77, text @ ..] => usize::from(*first & 0x1f) == text.len() && is_utf8(text),
        [0x78, len @ 24..=0xff, text @ ..] => usize::from(*len) == text.len() && is_utf8(text),
        [DOUBLE, float @ ..] => float.try_into().is_ok_and(is_double),
        _ => false,
    };
    if short { Ok(()) } else { check_slowly(bytes) }
}

/// The length of the one canonical value or [`ABSENT`] that `bytes` begin with. Allocates nothing.
///
/// # Errors
/// Says what is wrong, and at which byte.
pub fn check_prefix(bytes: &[u8]) -> Result<usize, ValueError> {
    let short = match bytes {
        [0x00..=0x17 | 0x20..=0x37 | FALSE..=UNDEFINED, ..] => 1,
        [first @ 0x60..=0x77, text @ ..] => match text.get(..usize::from(*first & 0x1f)) {
            Some(text) if is_utf8(text) => 1 + text.len(),
            _ => 0,
        },
        _ => 0,
    };
    if short > 0 {
        return Ok(short);
    }
    let mut reader = Reader::new(bytes);
    reader.skip(DEPTH_MAX)?;
    Ok(reader.at())
}

fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || str::from_utf8(text).is_ok()
}

fn is_double(bytes: [u8; 8]) -> bool {
    matches!(Shortest::of(f64::from_be_bytes(bytes)), Shortest::Double(_))
}

fn check_slowly(bytes: &[u8]) -> Result<(), ValueError> {
    let mut reader = Reader::new(bytes);
    reader.skip(DEPTH_MAX)?;
    if reader.rest.is_empty() { Ok(()) } else { Err(ValueError::Trailing { at: reader.at() }) }
}

/// One item; of a list or map only how many items or entries follow.
enum Item<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    List(usize),
    Map(usize),
    Unknown { tag: u64, bytes: &'a [u8] },
}

struct Reader<'a> {
    rest: &'a [u8],
    total: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, total: bytes.len() }
    }

    fn at(&self) -> usize {
        self.total - self.rest.len()
    }

    /// Reads one value without keeping it, with at most `levels` lists and maps around one another.
    fn skip(&mut self, levels: usize) -> Result<(), ValueError> {
        match self.item()? {
            Item::List(len) => {
                let inner = levels.checked_sub(1).ok_or(ValueError::TooDeep)?;
                (0..len).try_for_each(|_| self.skip(inner))
            }
            Item::Map(len) => {
                let inner = levels.checked_sub(1).ok_or(ValueError::TooDeep)?;
                let mut last = None;
                for _ in 0..len {
                    last = Some(self.key_after(last)?);
                    self.skip(inner)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Builds a value from bytes that [`check`] accepted: nesting and lengths are sound.
    fn value(&mut self) -> Result<Value, ValueError> {
        Ok(match self.item()? {
            Item::Null => Value::Null,
            Item::Bool(bool) => Value::Bool(bool),
            Item::Int(int) => Value::Int(int),
            Item::Float(float) => Value::Float(float),
            Item::Text(text) => Value::Text(text.to_owned()),
            Item::Bytes(bytes) => Value::Bytes(bytes.to_owned()),
            Item::Unknown { tag, bytes } => Value::Unknown { tag, bytes: bytes.to_owned() },
            Item::List(len) => {
                let mut list = Vec::with_capacity(len);
                for _ in 0..len {
                    list.push(self.value()?);
                }
                Value::List(list)
            }
            Item::Map(len) => {
                let mut map = BTreeMap::new();
                for _ in 0..len {
                    map.insert(self.key_after(None)?.to_owned(), self.value()?);
                }
                Value::Map(map)
            }
        })
    }

    /// A map key, which comes after `last` in the order of encoded bytes: shorter first, then by bytes.
    fn key_after(&mut self, last: Option<&str>) -> Result<&'a str, ValueError> {
        let at = self.at();
        let Item::Text(key) = self.item()? else { return Err(ValueError::KeyType { at }) };
        if last.is_some_and(|last| (last.len(), last) >= (key.len(), key)) {
            return Err(ValueError::NotCanonical {
                at,
                rule: "map keys rise in the order of their encoded bytes",
            });
        }
        Ok(key)
    }

    fn item(&mut self) -> Result<Item<'a>, ValueError> {
        let at = self.at();
        let (&first, rest) = self.rest.split_first().ok_or(ValueError::Truncated { at })?;
        let item = match first {
            NULL => Item::Null,
            FALSE => Item::Bool(false),
            TRUE => Item::Bool(true),
            HALF | SINGLE | DOUBLE => return self.float(at),
            _ => return self.headed(at),
        };
        self.rest = rest;
        Ok(item)
    }

    fn headed(&mut self, at: usize) -> Result<Item<'a>, ValueError> {
        let (major, argument) = self.argument(at)?;
        let int = || i64::try_from(argument).map_err(|_| ValueError::IntegerBytes { at });
        Ok(match major {
            UNSIGNED => Item::Int(int()?),
            NEGATIVE => Item::Int(!int()?),
            BYTES => Item::Bytes(self.take(argument, at)?),
            TEXT => {
                let text = str::from_utf8(self.take(argument, at)?);
                Item::Text(text.map_err(|_| ValueError::Utf8 { at })?)
            }
            LIST => Item::List(self.count(argument, 1, at)?),
            MAP => Item::Map(self.count(argument, 2, at)?),
            _ => {
                let inner = self.at();
                let (BYTES, len) = self.argument(inner)? else {
                    return Err(ValueError::NotCanonical {
                        at,
                        rule: "a tag stands directly over a byte string",
                    });
                };
                Item::Unknown { tag: argument, bytes: self.take(len, inner)? }
            }
        })
    }

    /// The major type (as the top three bits) and argument of a head, in its shortest form.
    fn argument(&mut self, at: usize) -> Result<(u8, u64), ValueError> {
        let (&byte, rest) = self.rest.split_first().ok_or(ValueError::Truncated { at })?;
        let (major, info) = (byte & 0xe0, byte & 0x1f);
        if major == SIMPLE {
            return Err(ValueError::Unsupported { at, byte });
        }
        self.rest = rest;
        let (argument, least) = match info {
            0..24 => return Ok((major, u64::from(info))),
            24 => (u64::from(u8::from_be_bytes(self.array(at)?)), 24),
            25 => (u64::from(u16::from_be_bytes(self.array(at)?)), 1 << 8),
            26 => (u64::from(u32::from_be_bytes(self.array(at)?)), 1 << 16),
            27 => (u64::from_be_bytes(self.array(at)?), 1 << 32),
            _ => return Err(ValueError::Unsupported { at, byte }),
        };
        if argument < least {
            return Err(ValueError::NotCanonical {
                at,
                rule: "integers and lengths take their shortest form",
            });
        }
        Ok((major, argument))
    }

    /// A float is canonical if writing it gives the same bytes again.
    fn float(&mut self, at: usize) -> Result<Item<'a>, ValueError> {
        let [first] = self.array(at)?;
        let (float, written) = match first {
            HALF => {
                let bytes = self.array(at)?;
                (widen(u16::from_be_bytes(bytes)), Shortest::Half(bytes))
            }
            SINGLE => {
                let bytes = self.array(at)?;
                (f64::from(f32::from_be_bytes(bytes)), Shortest::Single(bytes))
            }
            _ => {
                let bytes = self.array(at)?;
                (f64::from_be_bytes(bytes), Shortest::Double(bytes))
            }
        };
        if Shortest::of(float) != written {
            let rule = "floats take the shortest exact form, with one nan (f97e00) and one zero (f90000)";
            return Err(ValueError::NotCanonical { at, rule });
        }
        Ok(Item::Float(float))
    }

    /// A number of items of at least `size` bytes each, all of which can still follow.
    fn count(&self, argument: u64, size: usize, at: usize) -> Result<usize, ValueError> {
        let count = usize::try_from(argument).ok().filter(|count| *count <= self.rest.len() / size);
        count.ok_or(ValueError::Truncated { at })
    }

    fn take(&mut self, len: u64, at: usize) -> Result<&'a [u8], ValueError> {
        let split = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        let (taken, rest) = split.ok_or(ValueError::Truncated { at })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, at: usize) -> Result<[u8; N], ValueError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(ValueError::Truncated { at })?;
        self.rest = rest;
        Ok(*array)
    }
}

fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let bytes = argument.to_be_bytes();
    let [.., d, c, b, a] = bytes;
    match argument {
        0..24 => out.push(major | a),
        24..=0xff => out.extend([major | 24, a]),
        0x100..=0xffff => out.extend([major | 25, b, a]),
        0x1_0000..=0xffff_ffff => out.extend([major | 26, d, c, b, a]),
        _ => {
            out.push(major | 27);
            out.extend(bytes);
        }
    }
}

fn encode_string(out: &mut Vec<u8>, major: u8, bytes: &[u8]) {
    head(out, major, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn encode_float(out: &mut Vec<u8>, float: f64) {
    match Shortest::of(float) {
        Shortest::Half([a, b]) => out.extend([HALF, a, b]),
        Shortest::Single([a, b, c, d]) => out.extend([SINGLE, a, b, c, d]),
        Shortest::Double(bytes) => {
            out.push(DOUBLE);
            out.extend(bytes);
        }
    }
}

/// The shortest bytes that keep a float exactly.
#[derive(PartialEq)]
enum Shortest {
    Half([u8; 2]),
    Single([u8; 4]),
    Double([u8; 8]),
}

impl Shortest {
    fn of(float: f64) -> Self {
        if float.is_nan() {
            return Self::Half([0x7e, 0x00]);
        }
        #[expect(clippy::cast_possible_truncation, reason = "compared with the original below")]
        let single = float as f32;
        if f64::from(single) != float {
            return Self::Double(float.to_be_bytes());
        }
        // Adding zero turns -0.0 into 0.0 and leaves every other number alone.
        let single = single + 0.0;
        narrow(single).map_or_else(|| Self::Single(single.to_be_bytes()), Self::Half)
    }
}

/// The 16-bit float of the same value, if there is one. `single` is not NaN.
fn narrow(single: f32) -> Option<[u8; 2]> {
    let bits = single.to_bits();
    let (exponent, fraction) = ((bits >> 23) & 0xff, bits & 0x7f_ffff);
    let (half, lost) = match exponent {
        0 => (0, fraction),
        // Below 2^-14 a half is a multiple of 2^-24.
        103..=112 => {
            let (significand, shift) = (0x80_0000 | fraction, 126 - exponent);
            (significand >> shift, significand & ((1 << shift) - 1))
        }
        113..=142 => (((exponent - 112) << 10) | (fraction >> 13), fraction & 0x1fff),
        0xff => (0x7c00, 0),
        _ => return None,
    };
    let [_, _, high, low] = (((bits >> 16) & 0x8000) | half).to_be_bytes();
    (lost == 0).then_some([high, low])
}

/// The value of a 16-bit float.
fn widen(half: u16) -> f64 {
    const STEP: f64 = 1.0 / 16_777_216.0; // 2^-24
    let (exponent, fraction) = ((half >> 10) & 0x1f, half & 0x3ff);
    let magnitude = match exponent {
        0 => f64::from(fraction) * STEP,
        0x1f if fraction == 0 => f64::INFINITY,
        0x1f => f64::NAN,
        _ => f64::from_bits(((u64::from(exponent) + 1023 - 15) << 52) | (u64::from(fraction) << 42)),
    };
    if half & 0x8000 == 0 { magnitude } else { -magnitude }
}

// Major types as the top three bits of a head.
const UNSIGNED: u8 = 0x00;
const NEGATIVE: u8 = 0x20;
const BYTES: u8 = 0x40;
const TEXT: u8 = 0x60;
const LIST: u8 = 0x80;
const MAP: u8 = 0xa0;
const TAG: u8 = 0xc0;
const SIMPLE: u8 = 0xe0;

const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;
const UNDEFINED: u8 = 0xf7;
const HALF: u8 = 0xf9;
const SINGLE: u8 = 0xfa;
const DOUBLE: u8 = 0xfb;
