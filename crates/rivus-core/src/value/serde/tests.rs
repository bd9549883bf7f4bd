use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;

use ::serde::de::{DeserializeOwned, IgnoredAny};
use ::serde::{Deserialize, Serialize};
use proptest::prelude::*;

use crate::value::tests::{map, unknown, value};
use crate::value::{DEPTH_MAX, Value, ValueError, from_value, to_value};

/// Whether a value holds one of unknown type, which serde cannot carry.
fn holds_unknown(value: &Value) -> bool {
    match value {
        Value::Unknown { .. } => true,
        Value::List(list) => list.iter().any(holds_unknown),
        Value::Map(map) => map.values().any(holds_unknown),
        _ => false,
    }
}

proptest! {
    #[test]
    fn serde_and_back(value in value()) {
        let written = to_value(&value);
        if holds_unknown(&value) {
            prop_assert!(written.is_err());
        } else {
            prop_assert_eq!(written.as_ref(), Ok(&value));
            prop_assert_eq!(from_value::<Value>(value.clone()), Ok(value));
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Unit,
    Newtype(u8),
    Optional(Option<u8>),
    Tuple(i8, String),
    Struct { a: Option<f64> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Name {
    Red,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Number(i32);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    flag: bool,
    small: i8,
    wide: u64,
    single: f32,
    double: f64,
    char: char,
    text: String,
    none: Option<i32>,
    some: Option<i32>,
    unit: (),
    unit_struct: Unit,
    pair: (u16, String),
    list: Vec<Vec<i16>>,
    shapes: Vec<Shape>,
    by_int: BTreeMap<i64, String>,
    by_bool: BTreeMap<bool, u8>,
    by_char: BTreeMap<char, u8>,
    by_name: BTreeMap<Name, u8>,
    by_number: BTreeMap<Number, u8>,
}

fn everything() -> Everything {
    Everything {
        flag: true,
        small: -7,
        wide: 1 << 40,
        single: 0.5,
        double: 2.0,
        char: 'ß',
        text: "x".into(),
        none: None,
        some: Some(-1),
        unit: (),
        unit_struct: Unit,
        pair: (1, "y".into()),
        list: vec![vec![], vec![1, 2]],
        shapes: vec![
            Shape::Unit,
            Shape::Newtype(3),
            Shape::Optional(None),
            Shape::Tuple(-1, "z".into()),
            Shape::Struct { a: Some(1.0) },
        ],
        by_int: BTreeMap::from([(-5, "m".into())]),
        by_bool: BTreeMap::from([(true, 1)]),
        by_char: BTreeMap::from([('c', 1)]),
        by_name: BTreeMap::from([(Name::Red, 1)]),
        by_number: BTreeMap::from([(Number(9), 1)]),
    }
}

fn reads<T: DeserializeOwned + PartialEq + Debug>(value: impl Into<Value>, expected: T) {
    assert_eq!(from_value::<T>(value.into()), Ok(expected));
}

#[test]
fn rust_types_map_as_in_serde_json() {
    let written = to_value(&everything()).unwrap();
    let json = serde_json::to_string(&everything()).unwrap();
    assert_eq!(Value::from_json_str(&json), Ok(written.clone()));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), written);
    assert_eq!(from_value(written), Ok(everything()));
    assert_eq!(to_value("a"), Ok("a".into()));
    assert_eq!(to_value(&[0.1f32][..]), Ok(Value::List(vec![f64::from(0.1f32).into()])));
}

#[test]
fn the_tag_of_a_variant_counts_as_a_level() {
    struct Wrapped<'a>(usize, &'a Shape);

    impl Serialize for Wrapped<'_> {
        fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0.checked_sub(1) {
                Some(inner) => serializer.collect_seq([Wrapped(inner, self.1)]),
                None => self.1.serialize(serializer),
            }
        }
    }

    for (shape, levels) in everything().shapes.iter().zip([0, 1, 1, 2, 2]) {
        let deepest = to_value(&Wrapped(DEPTH_MAX - levels, shape)).unwrap();
        assert!(deepest.depth_ok());
        assert_eq!(to_value(&Wrapped(DEPTH_MAX - levels + 1, shape)), Err(ValueError::TooDeep));
    }
}

#[test]
fn what_has_no_value_is_refused() {
    let integer = |text: &str| Err(ValueError::Integer(text.to_owned()));
    assert_eq!(to_value(&(i64::MAX as u64)), Ok(i64::MAX.into()));
    assert_eq!(to_value(&(i64::MAX as u64 + 1)), integer("9223372036854775808"));
    assert_eq!(to_value(&i128::MIN), integer("-170141183460469231731687303715884105728"));
    assert_eq!(to_value(&u128::MAX), integer("340282366920938463463374607431768211455"));
    assert_eq!(to_value(&BTreeMap::from([((1, 2), 3)])), Err(ValueError::Key("tuple")));
    assert_eq!(to_value(&BTreeMap::from([(Some(1), 3)])), Err(ValueError::Key("optional value")));
    assert_eq!(to_value(&unknown(7, b"")), Err(ValueError::Mismatch(ValueError::UnknownType(7).to_string())));
    assert_eq!(from_value::<String>(unknown(7, b"")), Err(ValueError::UnknownType(7)));
    assert_eq!(from_value::<IgnoredAny>(unknown(7, b"")).map(|_| ()), Ok(()));
    assert!(serde_json::from_str::<Value>("9223372036854775808").is_err());
    assert!(serde_json::from_str::<Value>(r#"{"a":1,"a":1}"#).is_err());
}

#[test]
fn a_type_that_no_value_has_is_refused_with_those_that_have_one() {
    let wide = ::serde::de::value::U128Deserializer::<ValueError>::new(1);
    let error = Value::deserialize(wide).unwrap_err().to_string();
    assert!(error.contains("a list or a map with text keys"), "{error}");
}

#[test]
fn reading_is_lenient_where_nothing_is_lost() {
    reads(3, 3.0f64);
    reads(3, 3u64);
    reads(-3, -3i128);
    reads("c", 'c');
    reads(Value::Null, None::<u8>);
    reads(vec![1u8, 2], vec![1u8, 2]);
    reads(Value::Bytes(vec![1, 2]), [1u8, 2]);
    reads(Value::List(vec![1.into(), 2.into()]), VecDeque::from([1u8, 2]));
    reads(map([("1", true.into())]), BTreeMap::from([(1u8, true)]));
    reads(map([("Newtype", 1.into())]), Shape::Newtype(1));
    reads(map([("Unit", Value::Null)]), Shape::Unit);

    assert!(from_value::<u8>(300.into()).is_err());
    assert!(from_value::<u8>((-1).into()).is_err());
    assert!(from_value::<i64>(1.0.into()).is_err());
    assert!(from_value::<String>(1.into()).is_err());
    assert!(from_value::<char>("ab".into()).is_err());
    assert!(from_value::<(u8, u8)>(Value::List(vec![1.into(), 2.into(), 3.into()])).is_err());
    assert!(from_value::<BTreeMap<u8, u8>>(map([("x", 1.into())])).is_err());
    assert!(from_value::<Shape>("Newtype".into()).is_err());
    assert!(from_value::<Shape>("Other".into()).is_err());
    assert!(from_value::<Shape>(map([("Unit", Value::Null), ("Newtype", 1.into())])).is_err());
}

#[test]
fn bytes_stay_bytes_and_byte_buffers_take_lists() {
    #[derive(Debug, PartialEq)]
    struct Buffer(Vec<u8>);

    impl Serialize for Buffer {
        fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&self.0)
        }
    }

    struct Bytes;

    impl<'de> ::serde::de::Visitor<'de> for Bytes {
        type Value = Buffer;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("bytes")
        }

        fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Buffer, E> {
            Ok(Buffer(bytes))
        }

        fn visit_seq<A: ::serde::de::SeqAccess<'de>>(self, mut access: A) -> Result<Buffer, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = access.next_element()? {
                bytes.push(byte);
            }
            Ok(Buffer(bytes))
        }
    }

    impl<'de> Deserialize<'de> for Buffer {
        fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_byte_buf(Bytes)
        }
    }

    assert_eq!(to_value(&Buffer(vec![1, 2])), Ok(Value::Bytes(vec![1, 2])));
    reads(Value::Bytes(vec![1, 2]), Buffer(vec![1, 2]));
    reads(Value::List(vec![1.into(), 2.into()]), Buffer(vec![1, 2]));
}
