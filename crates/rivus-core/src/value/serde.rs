//! Values from and to Rust types, by the conventions of `serde_json`: enums are tagged from outside, `None`
//! and unit are null; integers, booleans, chars and unit variants used as map keys are written as text.
//!
//! Unlike JSON, bytes stay bytes and non-finite floats stay floats. [`Value`] itself is read from and
//! written to any self-describing format in the obvious way; for lossless JSON use [`Json`](super::Json).

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::fmt;

use ::serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use ::serde::ser::{Error as _, Serializer};
use ::serde::{Deserialize, Serialize};

use super::{DEPTH_MAX, Value, ValueError};

/// Writes a Rust value as a [`Value`].
///
/// # Errors
/// Integers outside `i64`, map keys without a text form, a key twice in one map, nesting beyond
/// [`DEPTH_MAX`], and whatever the type itself refuses.
pub fn to_value<T: Serialize + ?Sized>(t: &T) -> Result<Value, ValueError> {
    t.serialize(write::Writer::new())
}

/// Reads a Rust value out of a [`Value`]. As lenient as `serde_json`: an integer does for a float, a list of
/// numbers for bytes, and the other way round; unknown fields are passed over.
///
/// # Errors
/// A value of another shape, a number that does not fit, a value of unknown type.
pub fn from_value<T: DeserializeOwned>(v: Value) -> Result<T, ValueError> {
    T::deserialize(read::Reader(v))
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(bool) => serializer.serialize_bool(*bool),
            Self::Int(int) => serializer.serialize_i64(*int),
            Self::Float(float) => serializer.serialize_f64(*float),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(list) => serializer.collect_seq(list),
            Self::Map(map) => serializer.collect_map(map),
            Self::Unknown { tag, .. } => Err(S::Error::custom(ValueError::UnknownType(*tag))),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Levels(DEPTH_MAX).deserialize(deserializer)
    }
}

/// Reads any value with at most so many lists and maps around one another.
struct Levels(usize);

impl Levels {
    fn inner<E: ::serde::de::Error>(&self) -> Result<usize, E> {
        self.0.checked_sub(1).ok_or_else(|| E::custom(ValueError::TooDeep))
    }
}

impl<'de> DeserializeSeed<'de> for Levels {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Levels {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a boolean, a number, text, bytes, a list or a map with text keys")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Value, E> {
        Ok(Value::Bool(bool))
    }

    fn visit_i64<E>(self, int: i64) -> Result<Value, E> {
        Ok(Value::Int(int))
    }

    fn visit_u64<E: ::serde::de::Error>(self, int: u64) -> Result<Value, E> {
        let narrow = i64::try_from(int).map(Value::Int);
        narrow.map_err(|_| E::custom(ValueError::Integer(int.to_string())))
    }

    fn visit_f64<E>(self, float: f64) -> Result<Value, E> {
        Ok(Value::Float(float))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.to_owned()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Value, E> {
        Ok(Value::Bytes(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(Self(inner))? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map = BTreeMap::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(Self(inner))?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(ValueError::DuplicateKey(key)));
            }
            map.insert(key, value);
        }
        Ok(Value::Map(map))
    }
}
