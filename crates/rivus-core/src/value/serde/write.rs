//! The serde serializer behind [`to_value`](super::to_value).

use std::collections::BTreeMap;

use ::serde::ser::{self, Impossible, Serialize, Serializer};

use crate::value::{DEPTH_MAX, Value, ValueError};

impl ser::Error for ValueError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Mismatch(message.to_string())
    }
}

/// Writes one value inside which so many lists and maps may still open.
#[derive(Clone, Copy)]
pub(super) struct Writer {
    levels: usize,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self { levels: DEPTH_MAX }
    }

    fn inner(self) -> Result<Self, ValueError> {
        Ok(Self { levels: self.levels.checked_sub(1).ok_or(ValueError::TooDeep)? })
    }

    fn list(self, variant: Option<&'static str>) -> Result<ListWriter, ValueError> {
        let writer = if variant.is_some() { self.inner()? } else { self };
        Ok(ListWriter { list: Vec::new(), inner: writer.inner()?, variant })
    }

    fn map(self, variant: Option<&'static str>) -> Result<MapWriter, ValueError> {
        let writer = if variant.is_some() { self.inner()? } else { self };
        Ok(MapWriter { map: BTreeMap::new(), key: None, inner: writer.inner()?, variant })
    }
}

macro_rules! integers {
    ($($method:ident $from:ty),*) => {$(
        fn $method(self, int: $from) -> Result<Value, ValueError> {
            i64::try_from(int).map(Value::Int).map_err(|_| ValueError::Integer(int.to_string()))
        }
    )*};
}

impl Serializer for Writer {
    type Ok = Value;
    type Error = ValueError;
    type SerializeSeq = ListWriter;
    type SerializeTuple = ListWriter;
    type SerializeTupleStruct = ListWriter;
    type SerializeTupleVariant = ListWriter;
    type SerializeMap = MapWriter;
    type SerializeStruct = MapWriter;
    type SerializeStructVariant = MapWriter;

    integers! { serialize_u64 u64, serialize_i128 i128, serialize_u128 u128 }

    fn serialize_bool(self, bool: bool) -> Result<Value, ValueError> {
        Ok(Value::Bool(bool))
    }

    fn serialize_i8(self, int: i8) -> Result<Value, ValueError> {
        Ok(Value::Int(int.into()))
    }

    fn serialize_i16(self, int: i16) -> Result<Value, ValueError> {
        Ok(Value::Int(int.into()))
    }

    fn serialize_i32(self, int: i32) -> Result<Value, ValueError> {
        Ok(Value::Int(int.into()))
    }

    fn serialize_i64(self, int: i64) -> Result<Value, ValueError> {
        Ok(Value::Int(int))
    }

    fn serialize_u8(self, int: u8) -> Result<Value, ValueError> {
        Ok(Value::Int(int.into()))
    }

    fn serialize_u16(self, int: u16) -> Result<Value, ValueError> {
        Ok(Value::Int(int.into()))
    }

    fn serialize_u32(self, int: u32) -> Result<Value, ValueError> {
        Ok(Value::Int(int.into()))
    }

    fn serialize_f32(self, float: f32) -> Result<Value, ValueError> {
        Ok(Value::Float(float.into()))
    }

    fn serialize_f64(self, float: f64) -> Result<Value, ValueError> {
        Ok(Value::Float(float))
    }

    fn serialize_char(self, char: char) -> Result<Value, ValueError> {
        Ok(Value::Text(char.into()))
    }

    fn serialize_str(self, text: &str) -> Result<Value, ValueError> {
        Ok(Value::from(text))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Value, ValueError> {
        Ok(Value::Bytes(bytes.to_owned()))
    }

    fn serialize_none(self) -> Result<Value, ValueError> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, ValueError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, ValueError> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, ValueError> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Value, ValueError> {
        Ok(Value::from(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Value, ValueError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, ValueError> {
        Ok(tagged(Some(variant), value.serialize(self.inner()?)?))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<ListWriter, ValueError> {
        self.list(None)
    }

    fn serialize_tuple(self, _: usize) -> Result<ListWriter, ValueError> {
        self.list(None)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<ListWriter, ValueError> {
        self.list(None)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<ListWriter, ValueError> {
        self.list(Some(variant))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<MapWriter, ValueError> {
        self.map(None)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<MapWriter, ValueError> {
        self.map(None)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<MapWriter, ValueError> {
        self.map(Some(variant))
    }
}

/// The content of an enum variant under the name of the variant.
fn tagged(variant: Option<&'static str>, content: Value) -> Value {
    match variant {
        Some(variant) => Value::Map(BTreeMap::from([(variant.to_owned(), content)])),
        None => content,
    }
}

pub(super) struct ListWriter {
    list: Vec<Value>,
    inner: Writer,
    variant: Option<&'static str>,
}

pub(super) struct MapWriter {
    map: BTreeMap<String, Value>,
    key: Option<String>,
    inner: Writer,
    variant: Option<&'static str>,
}

impl MapWriter {
    fn insert(&mut self, key: String, value: Value) -> Result<(), ValueError> {
        if self.map.contains_key(&key) {
            return Err(ValueError::DuplicateKey(key));
        }
        self.map.insert(key, value);
        Ok(())
    }
}

macro_rules! list_writer {
    ($($trait:ident $method:ident),*) => {$(
        impl ser::$trait for ListWriter {
            type Ok = Value;
            type Error = ValueError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
                self.list.push(value.serialize(self.inner)?);
                Ok(())
            }

            fn end(self) -> Result<Value, ValueError> {
                Ok(tagged(self.variant, Value::List(self.list)))
            }
        }
    )*};
}

list_writer! {
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
}

macro_rules! struct_writer {
    ($($trait:ident),*) => {$(
        impl ser::$trait for MapWriter {
            type Ok = Value;
            type Error = ValueError;

            fn serialize_field<T>(&mut self, key: &'static str, value: &T) -> Result<(), ValueError>
            where
                T: Serialize + ?Sized,
            {
                let value = value.serialize(self.inner)?;
                self.insert(key.to_owned(), value)
            }

            fn end(self) -> Result<Value, ValueError> {
                Ok(tagged(self.variant, Value::Map(self.map)))
            }
        }
    )*};
}

struct_writer! { SerializeStruct, SerializeStructVariant }

impl ser::SerializeMap for MapWriter {
    type Ok = Value;
    type Error = ValueError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), ValueError> {
        self.key = Some(key.serialize(KeyWriter)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
        let key =
            self.key.take().ok_or_else(|| ValueError::Mismatch("a map value came without its key".into()))?;
        let value = value.serialize(self.inner)?;
        self.insert(key, value)
    }

    fn end(self) -> Result<Value, ValueError> {
        Ok(tagged(self.variant, Value::Map(self.map)))
    }
}

/// Writes a map key as text.
struct KeyWriter;

macro_rules! keys_by_display {
    ($($method:ident $from:ty),*) => {$(
        fn $method(self, key: $from) -> Result<String, ValueError> {
            Ok(key.to_string())
        }
    )*};
}

macro_rules! refused_keys {
    ($($method:ident ($($argument:ty),*) -> $ok:ty, $what:literal;)*) => {$(
        fn $method(self, $(_: $argument),*) -> Result<$ok, ValueError> {
            Err(ValueError::Key($what))
        }
    )*};
}

impl Serializer for KeyWriter {
    type Ok = String;
    type Error = ValueError;
    type SerializeSeq = Impossible<String, ValueError>;
    type SerializeTuple = Impossible<String, ValueError>;
    type SerializeTupleStruct = Impossible<String, ValueError>;
    type SerializeTupleVariant = Impossible<String, ValueError>;
    type SerializeMap = Impossible<String, ValueError>;
    type SerializeStruct = Impossible<String, ValueError>;
    type SerializeStructVariant = Impossible<String, ValueError>;

    keys_by_display! {
        serialize_bool bool, serialize_char char, serialize_str &str,
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64, serialize_i128 i128,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64, serialize_u128 u128
    }

    refused_keys! {
        serialize_f32(f32) -> String, "float";
        serialize_f64(f64) -> String, "float";
        serialize_bytes(&[u8]) -> String, "byte string";
        serialize_none() -> String, "none";
        serialize_unit() -> String, "unit";
        serialize_unit_struct(&'static str) -> String, "unit struct";
        serialize_seq(Option<usize>) -> Self::SerializeSeq, "list";
        serialize_tuple(usize) -> Self::SerializeTuple, "tuple";
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct, "tuple";
        serialize_tuple_variant(&'static str, u32, &'static str, usize)
            -> Self::SerializeTupleVariant, "variant with content";
        serialize_map(Option<usize>) -> Self::SerializeMap, "map";
        serialize_struct(&'static str, usize) -> Self::SerializeStruct, "struct";
        serialize_struct_variant(&'static str, u32, &'static str, usize)
            -> Self::SerializeStructVariant, "variant with content";
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<String, ValueError> {
        Err(ValueError::Key("optional value"))
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<String, ValueError> {
        Ok(variant.to_owned())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<String, ValueError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<String, ValueError> {
        Err(ValueError::Key("variant with content"))
    }
}
