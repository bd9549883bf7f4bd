//! What a register holds: a closed enum with a total order and one canonical byte form.
//!
//! Owns the order, the bytes ([`Value::encode`], [`check`]), the JSON form ([`Json`]) and the bridge to
//! serde ([`to_value`], [`from_value`]). It deliberately knows nothing of registers and stamps: merging
//! compares and carries the bytes and never decodes them.
//!
//! Invariant: equal values have equal bytes, and bytes that [`check`] accepts are the bytes of one value. The
//! form is deterministic CBOR (RFC 8949, section 4.2.1) without indefinite lengths, with text keys only and
//! integers of 64 bits; a tag over a byte string is a value type of a later version, kept bit for bit.

mod cbor;
mod json;
mod serde;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;

pub use self::serde::{from_value, to_value};
pub use cbor::{check, check_prefix};
pub use json::Json;

/// The greatest number of lists and maps around one another in a value. It bounds the stack of every reader.
pub const DEPTH_MAX: usize = 32;

/// The bytes that stand for "not there" in a map entry: CBOR `undefined`. They are no [`Value`].
pub const ABSENT: &[u8] = &[0xf7];

/// One value of a field.
///
/// Equality is that of the total order: null, false, true, numbers by their exact value (an integer before
/// an equal float, one NaN above all numbers, `-0.0` is `0.0`), text by UTF-8 bytes, bytes, lists, maps, and
/// values of unknown type. So `Int(1)` and `Float(1.0)` differ, and NaN equals NaN.
///
/// ```
/// use rivus_core::value::Value;
/// assert!(Value::from(1) < Value::from(1.0) && Value::from(1.0) < Value::from(2));
/// assert_eq!(Value::decode(&Value::from("a").to_bytes()), Ok(Value::from("a")));
/// ```
#[derive(Clone, Debug)]
pub enum Value {
    /// No value, which is not the same as an absent one.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A binary floating-point number; a whole one stays a float.
    Float(f64),
    /// Unicode text.
    Text(String),
    /// A byte string.
    Bytes(Vec<u8>),
    /// Values in an order of their own.
    List(Vec<Self>),
    /// Values by key.
    Map(BTreeMap<String, Self>),
    /// A value of a type that this version does not know: kept, ordered and forwarded, never interpreted.
    Unknown {
        /// The CBOR tag that names the type.
        tag: u64,
        /// The content.
        bytes: Vec<u8>,
    },
}

impl Value {
    /// Whether at most [`DEPTH_MAX`] lists and maps lie around one another. Whoever takes values from an
    /// application checks this first: a deeper value can be encoded, but every reader refuses the bytes, and
    /// to compare, clone or drop it takes stack by its depth.
    #[must_use]
    pub fn depth_ok(&self) -> bool {
        self.fits(DEPTH_MAX)
    }

    fn fits(&self, levels: usize) -> bool {
        let inner = levels.checked_sub(1);
        match self {
            Self::List(list) => inner.is_some_and(|n| list.iter().all(|value| value.fits(n))),
            Self::Map(map) => inner.is_some_and(|n| map.values().all(|value| value.fits(n))),
            _ => true,
        }
    }

    /// The place of the type in the order; both kinds of number share one.
    fn class(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) | Self::Float(_) => 2,
            Self::Text(_) => 3,
            Self::Bytes(_) => 4,
            Self::List(_) => 5,
            Self::Map(_) => 6,
            Self::Unknown { .. } => 7,
        }
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => cmp_floats(*a, *b),
            (Self::Int(a), Self::Float(b)) => cmp_int_float(*a, *b),
            (Self::Float(a), Self::Int(b)) => cmp_int_float(*b, *a).reverse(),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::List(a), Self::List(b)) => a.cmp(b),
            (Self::Map(a), Self::Map(b)) => a.cmp(b),
            (Self::Unknown { tag: a, bytes: x }, Self::Unknown { tag: b, bytes: y }) => (a, x).cmp(&(b, y)),
            _ => self.class().cmp(&other.class()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value {}

/// NaN is above all else; the two zeros are one.
fn cmp_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// By exact value: an integer above 2^53 has no float of its own, so neither side is converted blindly.
fn cmp_int_float(int: i64, float: f64) -> Ordering {
    const TWO_63: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() || float >= TWO_63 {
        return Ordering::Less;
    }
    if float < -TWO_63 {
        return Ordering::Greater;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the fraction is compared below, the range above")]
    let whole = float.trunc() as i64;
    // With equal whole parts the fraction decides; without one the integer comes first.
    int.cmp(&whole).then(if float.fract() < 0.0 { Ordering::Greater } else { Ordering::Less })
}

macro_rules! value_from {
    ($($from:ty => $to:expr;)*) => {$(
        impl From<$from> for Value {
            fn from(from: $from) -> Self {
                $to(from)
            }
        }
    )*};
}

value_from! {
    () => |()| Self::Null;
    bool => Self::Bool;
    i32 => |n| Self::Int(i64::from(n));
    u32 => |n| Self::Int(i64::from(n));
    i64 => Self::Int;
    f64 => Self::Float;
    &str => |text: &str| Self::Text(text.to_owned());
    String => Self::Text;
    Vec<u8> => Self::Bytes;
    Vec<Self> => Self::List;
    BTreeMap<String, Self> => Self::Map;
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(from: Option<T>) -> Self {
        from.map_or(Self::Null, Into::into)
    }
}

/// Why bytes, JSON or a Rust value are not a [`Value`], or a [`Value`] is not the Rust type asked for.
///
/// Nothing was changed. Offsets count from the start of the bytes that were given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// More bytes are announced than there are.
    #[error("the value breaks off: the item at byte {at} needs more bytes than follow; send it whole")]
    Truncated {
        /// Where the item that lacks bytes begins.
        at: usize,
    },
    /// Bytes after the end of the value.
    #[error("the value ends before byte {at} but more bytes follow; send one value only")]
    Trailing {
        /// The first byte too many.
        at: usize,
    },
    /// A form that the canonical encoding rules out.
    #[error("the item at byte {at} is not canonical: {rule}")]
    NotCanonical {
        /// Where the item begins.
        at: usize,
        /// What it should be.
        rule: &'static str,
    },
    /// A CBOR item that no value may hold.
    #[error(
        "byte {byte:#04x} at {at} begins no value: use null, booleans, numbers, text, bytes, lists, maps \
         or a tag over bytes"
    )]
    Unsupported {
        /// Where the item begins.
        at: usize,
        /// Its first byte.
        byte: u8,
    },
    /// Text that is not UTF-8.
    #[error("the text at byte {at} is not utf-8; send it as bytes")]
    Utf8 {
        /// Where the text begins.
        at: usize,
    },
    /// A map key of another type.
    #[error("the map key at byte {at} is not text; write it as text")]
    KeyType {
        /// Where the key begins.
        at: usize,
    },
    /// An integer in bytes outside the signed 64-bit range.
    #[error("the integer at byte {at} is outside the range -2^63 to 2^63-1; send it as text or bytes")]
    IntegerBytes {
        /// Where the integer begins.
        at: usize,
    },
    /// Lists and maps nested beyond [`DEPTH_MAX`].
    #[error("the value is nested deeper than {DEPTH_MAX} lists and maps; flatten it")]
    TooDeep,
    /// The [`ABSENT`] marker where a value is needed.
    #[error("the bytes are the marker of an absent entry (0xf7), not a value; treat the entry as removed")]
    Absent,
    /// An integer outside the signed 64-bit range.
    #[error(
        "the integer {0} is outside -9223372036854775808 to 9223372036854775807; \
         write it with a fraction or as text"
    )]
    Integer(String),
    /// A JSON number too great for a 64-bit float.
    #[error(
        "the number {0} is too great for a 64-bit float; write {{\"$f64\":\"Infinity\"}} if that is meant"
    )]
    NotFinite(String),
    /// Text that is not JSON.
    #[error("not json: {0}")]
    Json(String),
    /// An object with a reserved key and content that does not fit it.
    #[error(
        "{{\"{key}\":{found}}} is malformed: the key takes {takes}; wrap a map of your own in {{\"$map\":…}}"
    )]
    Escape {
        /// The reserved key.
        key: &'static str,
        /// The content, shortened.
        found: String,
        /// What the key takes.
        takes: &'static str,
    },
    /// A key that appears twice in one map.
    #[error("the key {0:?} appears twice in one map; keep one of them")]
    DuplicateKey(String),
    /// A Rust map key that has no text form.
    #[error("a {0} cannot be a map key; use text, an integer, a boolean, a char or a unit variant")]
    Key(&'static str),
    /// A value of unknown type where its meaning is needed.
    #[error("the value has a type that this version does not know (tag {0}); update, or pass it on as it is")]
    UnknownType(u64),
    /// A Rust type refused the value, or refused to be one.
    #[error("{0}")]
    Mismatch(String),
}
