//! The serde deserializer behind [`from_value`](super::from_value).

use std::collections::BTreeMap;

use ::serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use ::serde::de::{self, Deserializer, IntoDeserializer, Visitor};
use ::serde::forward_to_deserialize_any;

use crate::value::{Value, ValueError};

impl de::Error for ValueError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Mismatch(message.to_string())
    }
}

/// Reads one value.
pub(super) struct Reader(pub(super) Value);

impl<'de> Deserializer<'de> for Reader {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(bool) => visitor.visit_bool(bool),
            // Many visitors take one sign only; the type of a small positive number is anyone's guess.
            Value::Int(int) => match u64::try_from(int) {
                Ok(int) => visitor.visit_u64(int),
                Err(_) => visitor.visit_i64(int),
            },
            Value::Float(float) => visitor.visit_f64(float),
            Value::Text(text) => visitor.visit_string(text),
            Value::Bytes(bytes) => visitor.visit_byte_buf(bytes),
            Value::List(list) => read_list(list.into_iter().map(Reader), visitor),
            Value::Map(map) => {
                let mut access = entries(map);
                let read = visitor.visit_map(&mut access)?;
                access.end()?;
                Ok(read)
            }
            Value::Unknown { tag, .. } => Err(ValueError::UnknownType(tag)),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::Bytes(bytes) => read_list(bytes.into_iter(), visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ValueError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::Text(text) => text.into_deserializer().deserialize_enum(name, variants, visitor),
            Value::Map(map) if map.len() == 1 => {
                MapAccessDeserializer::new(entries(map)).deserialize_enum(name, variants, visitor)
            }
            Value::Map(map) => Err(ValueError::Mismatch(format!(
                "{} keys where {name} takes one, the name of a variant: {}",
                map.len(),
                variants.join(", ")
            ))),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct tuple_struct map struct identifier
    }
}

impl IntoDeserializer<'_, ValueError> for Reader {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Hands over a list and refuses one that was not read to its end.
fn read_list<'de, I, V>(items: I, visitor: V) -> Result<V::Value, ValueError>
where
    I: Iterator<Item: IntoDeserializer<'de, ValueError>>,
    V: Visitor<'de>,
{
    let mut access = SeqDeserializer::new(items);
    let read = visitor.visit_seq(&mut access)?;
    access.end()?;
    Ok(read)
}

type Entries<'de> =
    MapDeserializer<'de, std::iter::Map<IntoEntries, fn((String, Value)) -> (Key, Reader)>, ValueError>;
type IntoEntries = std::collections::btree_map::IntoIter<String, Value>;

fn entries<'de>(map: BTreeMap<String, Value>) -> Entries<'de> {
    MapDeserializer::new(map.into_iter().map(|(key, value)| (Key(key), Reader(value))))
}

/// Reads a map key: text, or what the text says where a number or boolean is asked for.
struct Key(String);

macro_rules! parsed_keys {
    ($($method:ident $visit:ident $to:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            match self.0.parse::<$to>() {
                Ok(key) => visitor.$visit(key),
                Err(_) => visitor.visit_string(self.0),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Key {
    type Error = ValueError;

    parsed_keys! {
        deserialize_bool visit_bool bool,
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_u128 visit_u128 u128
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.0.into_deserializer().deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

impl IntoDeserializer<'_, ValueError> for Key {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
