#![expect(clippy::cast_possible_truncation, reason = "the models of the order and of narrowing are casts")]

use std::cmp::Ordering;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

pub(super) fn json_of(value: &Value) -> String {
    serde_json::to_string(&Json(value)).unwrap()
}

pub(super) fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.map(|(key, value)| (key.to_owned(), value)).into())
}

pub(super) fn unknown(tag: u64, bytes: &[u8]) -> Value {
    Value::Unknown { tag, bytes: bytes.to_vec() }
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |value, _| Value::List(vec![value]))
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Numbers where a careless comparison or conversion goes wrong.
fn edgy_int() -> impl Strategy<Value = i64> {
    let near = [0, 1 << 24, 1 << 53, -(1 << 53), 1 << 62, i64::MAX, i64::MIN, 24, 256, 1 << 16, 1 << 32, -25];
    prop_oneof![
        any::<i64>(),
        (prop::sample::select(near.to_vec()), -3..4i64).prop_map(|(n, d)| n.saturating_add(d))
    ]
}

fn edgy_float() -> impl Strategy<Value = f64> {
    let special =
        [f64::NAN, f64::INFINITY, -f64::INFINITY, 0.0, -0.0, 65504.0, 65536.0, 5e-324, 3.4e38, f64::MAX];
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        any::<f32>().prop_map(f64::from),
        prop::sample::select(special.to_vec()),
        edgy_int().prop_map(|n| n as f64),
        (edgy_int(), -4..5i32).prop_map(|(n, quarters)| n as f64 + f64::from(quarters) / 4.0),
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        edgy_int().prop_map(Value::Int),
        edgy_float().prop_map(Value::Float),
        "\\PC{0,4}|[ab]{0,30}".prop_map(Value::Text),
        vec(any::<u8>(), 0..30).prop_map(Value::Bytes),
        (any::<u64>(), vec(any::<u8>(), 0..4)).prop_map(|(tag, bytes)| Value::Unknown { tag, bytes }),
    ]
}

pub(super) fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 40, 6, |inner| {
        let key = prop_oneof!["[ab]{0,3}", "\\$(f64|bytes|tag|map|x)?", "\\PC{0,3}"];
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::List),
            btree_map(key, inner, 0..5).prop_map(Value::Map),
        ]
    })
}

/// What must hold of any bytes at all.
fn assert_judged(bytes: &[u8]) {
    let decoded = Value::decode(bytes);
    assert_eq!(check(bytes).is_ok(), decoded.is_ok() || bytes == ABSENT, "{bytes:02x?}");
    // Inside a list no shortcut is taken.
    let in_list = [&[0x81], bytes].concat();
    assert_eq!(check(&in_list).is_ok(), decoded.as_ref().is_ok_and(|value| value.fits(DEPTH_MAX - 1)));
    if let Ok(value) = decoded {
        assert_eq!(value.to_bytes(), bytes, "accepted, so canonical");
    }
}

proptest! {
    #[test]
    fn bytes_and_back(value in value()) {
        let bytes = value.to_bytes();
        prop_assert_eq!(check(&bytes), Ok(()));
        prop_assert_eq!(Value::decode(&bytes).unwrap(), value);
        for end in 0..bytes.len() {
            prop_assert!(check(&bytes[..end]).is_err());
        }
        prop_assert_eq!(check(&[&bytes[..], &[0]].concat()), Err(ValueError::Trailing { at: bytes.len() }));
    }

    #[test]
    fn equal_values_have_equal_bytes(a in value(), b in value()) {
        prop_assert_eq!(a == b, a.to_bytes() == b.to_bytes());
        prop_assert_eq!(a == b, json_of(&a) == json_of(&b));
    }

    #[test]
    fn the_order_is_total(a in value(), b in value(), c in value()) {
        assert_ordered(&a, &b, &c);
    }

    #[test]
    fn the_order_of_numbers_is_total(values in vec(prop_oneof![
        edgy_int().prop_map(Value::Int), edgy_float().prop_map(Value::Float)
    ], 3)) {
        assert_ordered(&values[0], &values[1], &values[2]);
    }

    #[test]
    fn numbers_order_by_exact_value(int in edgy_int(), base in edgy_int(), quarters in -8..9i32) {
        let float = base as f64 + f64::from(quarters) / 4.0;
        // Both in quarters, exactly.
        let exact = (i128::from(int) * 4).cmp(&((float * 4.0) as i128));
        prop_assert_eq!(Value::Int(int).cmp(&Value::Float(float)), exact.then(Ordering::Less));
    }

    #[test]
    fn random_bytes_are_judged_alike(bytes in vec(any::<u8>(), 0..24)) {
        assert_judged(&bytes);
    }

    #[test]
    fn damaged_values_are_judged_alike(
        value in value(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..3),
    ) {
        let mut bytes = value.to_bytes();
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {}
            }
        }
        assert_judged(&bytes);
    }

    #[test]
    fn floats_take_the_shortest_form_that_keeps_them(float in edgy_float()) {
        let bytes = Value::Float(float).to_bytes();
        let single = f64::from(float as f32) == float;
        prop_assert!(bytes.len() == 9 && !single || bytes.len() == 5 && single || bytes.len() == 3);
        let Value::Float(read) = Value::decode(&bytes).unwrap() else { panic!("a float stays a float") };
        prop_assert!(read == float || read.is_nan() && float.is_nan());
        prop_assert!(read != 0.0 || read.is_sign_positive());
    }
}

fn assert_ordered(a: &Value, b: &Value, c: &Value) {
    assert_eq!(a.cmp(b), b.cmp(a).reverse());
    assert_eq!(a.cmp(a), Ordering::Equal);
    assert_eq!(a == b, a.cmp(b).is_eq());
    if a <= b && b <= c {
        assert!(a <= c, "{a:?} {b:?} {c:?}");
        assert_eq!(a == c, a == b && b == c, "{a:?} {b:?} {c:?}");
    }
}

#[test]
fn the_order_is_the_documented_one() {
    let two_53 = 9_007_199_254_740_992;
    let ascending = [
        Value::Null,
        false.into(),
        true.into(),
        f64::NEG_INFINITY.into(),
        (-1e19).into(),
        i64::MIN.into(),
        (-9_223_372_036_854_775_808.0).into(),
        (i64::MIN + 1).into(),
        (-1.5).into(),
        (-1).into(),
        (-1.0).into(),
        (-0.5).into(),
        0.into(),
        0.0.into(),
        5e-324.into(),
        1.into(),
        1.0.into(),
        Value::Int(two_53),
        (two_53 as f64).into(),
        Value::Int(two_53 + 1),
        i64::MAX.into(),
        9_223_372_036_854_775_808.0.into(),
        f64::INFINITY.into(),
        f64::NAN.into(),
        "".into(),
        "Z".into(),
        "a".into(),
        "aa".into(),
        "b".into(),
        "é".into(),
        Value::Bytes(vec![]),
        Value::Bytes(vec![0, 9]),
        Value::Bytes(vec![1]),
        Value::List(vec![]),
        Value::List(vec![1.into(), 9.into()]),
        Value::List(vec![2.into()]),
        map([]),
        map([("a", 1.into()), ("b", 1.into())]),
        map([("a", 2.into())]),
        map([("aa", 0.into())]),
        map([("b", 0.into())]),
        unknown(0, b"z"),
        unknown(1, b""),
        unknown(1, b"a"),
    ];
    for (i, a) in ascending.iter().enumerate() {
        for (j, b) in ascending.iter().enumerate() {
            assert_eq!(a.cmp(b), i.cmp(&j), "{a:?} {b:?}");
        }
    }
    assert_eq!(Value::Float(-0.0), Value::Float(0.0));
    assert_eq!(Value::Float(-f64::NAN), Value::Float(f64::NAN));
}

#[test]
fn the_examples_of_rfc_8949_have_their_bytes() {
    let ints = [
        (0, "00"),
        (1, "01"),
        (10, "0a"),
        (23, "17"),
        (24, "1818"),
        (25, "1819"),
        (100, "1864"),
        (1000, "1903e8"),
        (1_000_000, "1a000f4240"),
        (1_000_000_000_000, "1b000000e8d4a51000"),
        (-1, "20"),
        (-10, "29"),
        (-100, "3863"),
        (-1000, "3903e7"),
        (i64::MAX, "1b7fffffffffffffff"),
        (i64::MIN, "3b7fffffffffffffff"),
    ];
    let floats = [
        (0.0, "f90000"),
        (-0.0, "f90000"),
        (1.0, "f93c00"),
        (1.1, "fb3ff199999999999a"),
        (1.5, "f93e00"),
        (65504.0, "f97bff"),
        (100_000.0, "fa47c35000"),
        (3.402_823_466_385_288_6e38, "fa7f7fffff"),
        (1.0e300, "fb7e37e43c8800759c"),
        (5.960_464_477_539_063e-8, "f90001"),
        (6.103_515_625e-5, "f90400"),
        (-4.0, "f9c400"),
        (-4.1, "fbc010666666666666"),
        (f64::INFINITY, "f97c00"),
        (f64::NAN, "f97e00"),
        (f64::NEG_INFINITY, "f9fc00"),
    ];
    let texts = [
        ("", "60"),
        ("a", "6161"),
        ("IETF", "6449455446"),
        ("\"\\", "62225c"),
        ("\u{fc}", "62c3bc"),
        ("\u{6c34}", "63e6b0b4"),
        ("\u{10151}", "64f0908591"),
    ];
    let list = |items: &[i64]| Value::List(items.iter().copied().map(Value::Int).collect());
    let others = [
        (Value::Null, "f6"),
        (false.into(), "f4"),
        (true.into(), "f5"),
        (Value::Bytes(vec![]), "40"),
        (Value::Bytes(vec![1, 2, 3, 4]), "4401020304"),
        (unknown(23, &[1, 2, 3, 4]), "d74401020304"),
        (unknown(24, b"dIETF"), "d818456449455446"),
        (unknown(2, &[1, 0, 0, 0, 0, 0, 0, 0, 0]), "c249010000000000000000"),
        (list(&[]), "80"),
        (list(&[1, 2, 3]), "83010203"),
        (Value::List(vec![1.into(), list(&[2, 3]), list(&[4, 5])]), "8301820203820405"),
        (list(&(1..26).collect::<Vec<_>>()), "98190102030405060708090a0b0c0d0e0f101112131415161718181819"),
        (map([]), "a0"),
        (map([("a", 1.into()), ("b", list(&[2, 3]))]), "a26161016162820203"),
        (Value::List(vec!["a".into(), map([("b", "c".into())])]), "826161a161626163"),
        // Shorter keys first, which is not the order of the map.
        (map([("aa", 1.into()), ("b", 2.into()), ("c", 3.into())]), "a361620261630362616101"),
    ];
    let all = ints.map(|(int, hex)| (Value::Int(int), hex)).into_iter();
    let all = all.chain(floats.map(|(float, hex)| (Value::Float(float), hex)));
    let all = all.chain(texts.map(|(text, hex)| (Value::from(text), hex))).chain(others);
    for (value, text) in all {
        assert_eq!(value.to_bytes(), hex(text), "{value:?}");
        assert_eq!(Value::decode(&hex(text)), Ok(value));
    }
}

#[test]
fn other_cbor_is_refused() {
    let refused = [
        "",
        "1bffffffffffffffff",
        "3bffffffffffffffff",
        "3b8000000000000000", // integers outside i64
        "1800",
        "1817",
        "190018",
        "1900ff",
        "1a0000ffff",
        "1b00000000ffffffff",
        "5800",
        "7801",
        "9800",
        "b800", // long heads
        "f98000",
        "f97e01",
        "f9fe00",
        "f97d00",
        "fa3fc00000",
        "fa7fc00000",
        "fa00000000",
        "fa7f800000", // long or odd floats
        "fb3ff0000000000000",
        "fb7ff8000000000000",
        "fb8000000000000000",
        "fb47efffffe0000000",
        "e0",
        "f0",
        "f818",
        "f8ff",
        "f814",
        "fc",
        "ff",
        "1c",
        "1f",
        "5c",
        "dc", // simple values, break, reserved
        "5f42010243030405ff",
        "7f657374726561646d696e67ff",
        "9fff",
        "bfff", // indefinite lengths
        "c074323031332d30332d32315432303a30343a30305a",
        "c11a514b67b0",
        "c0",
        "c0c040",
        "d80140", // tags
        "a10102",
        "a1f600",
        "a1416100", // keys that are not text
        "a2616100616101",
        "a2616200616101",
        "a262616100616200", // keys out of order or twice
        "61ff",
        "62c328",
        "63eda080",
        "81f7",
        "a16161f7",
        "f7f7", // not UTF-8; absent inside
        "6261",
        "8201",
        "a16161",
        "4401",
        "19",
        "f9",
        "fa0000",
        "00f6", // cut short; too long
    ];
    for text in refused {
        let bytes = hex(text);
        assert!(check(&bytes).is_err() && Value::decode(&bytes).is_err(), "{text}");
        assert_judged(&bytes);
    }
    assert_eq!(check(ABSENT), Ok(()));
    assert_eq!(Value::decode(ABSENT), Err(ValueError::Absent));
}

#[test]
fn every_short_input_and_every_half_float_is_judged_alike() {
    assert_judged(&[]);
    let mut halves = 0;
    for pair in 0..=u16::MAX {
        let [a, b] = pair.to_be_bytes();
        assert_judged(&[b]);
        assert_judged(&[a, b]);
        let half = [0xf9, a, b];
        assert_judged(&half);
        halves += u32::from(check(&half).is_ok());
    }
    // All but one zero and, of both signs, 1023 NaNs, of which one is accepted.
    assert_eq!(halves, 65536 - 1 - 2 * 1023 + 1);
}

#[test]
fn a_value_ends_where_it_ends_whatever_follows() {
    for len in 0..40 {
        let text = Value::from("x".repeat(len)).to_bytes();
        let more = [&text[..], &[b'y'; 300]].concat();
        assert_eq!(check_prefix(&more), Ok(text.len()));
    }
    assert_eq!(check_prefix(&[ABSENT, b"y"].concat()), Ok(ABSENT.len()));
}

#[test]
fn announced_lengths_are_not_believed() {
    for major in [0x40, 0x60, 0x80, 0xa0] {
        for len in [24, 1 << 20, u64::from(u32::MAX), 1 << 40, u64::MAX] {
            let mut bytes = vec![major | 27];
            bytes.extend(len.to_be_bytes());
            let short = [major | 26, 0x7f, 0xff, 0xff, 0xff, 0x00];
            assert!(Value::decode(&bytes).is_err());
            assert_eq!(Value::decode(&short), Err(ValueError::Truncated { at: 0 }));
        }
    }
    // Two entries of two items each cannot be in three bytes, nor two items in one.
    for bytes in [&b"\xa2\x61a\x01"[..], b"\x82\x01"] {
        assert_eq!(Value::decode(bytes), Err(ValueError::Truncated { at: 0 }));
    }
    // Each level claims all that follows; refused before anything is reserved.
    let mut bytes = [0x99, 0xff, 0x00].repeat(DEPTH_MAX);
    bytes.extend([0xf6; 0x1_0000]);
    assert!(matches!(Value::decode(&bytes), Err(ValueError::Truncated { .. })));
}

#[test]
fn nesting_is_bounded_everywhere() {
    let (deepest, too_deep) = (nested(DEPTH_MAX), nested(DEPTH_MAX + 1));
    assert!(deepest.depth_ok() && !too_deep.depth_ok());
    assert_eq!(Value::decode(&deepest.to_bytes()), Ok(deepest.clone()));
    assert_eq!(Value::from_json_str(&json_of(&deepest)), Ok(deepest.clone()));
    assert_eq!(to_value(&deepest), Ok(deepest));

    assert_eq!(check(&too_deep.to_bytes()), Err(ValueError::TooDeep));
    assert!(serde_json::to_string(&Json(&too_deep)).is_err());
    assert_eq!(to_value(&too_deep), Err(ValueError::TooDeep));
    for depth in [DEPTH_MAX + 1, 100, 100_000] {
        let json = "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(Value::from_json_str(&json), Err(ValueError::TooDeep));
        assert!(check(&vec![0x81; depth]).is_err());
        let json = r#"{"$map":"#.repeat(depth) + "{}" + &"}".repeat(depth);
        assert!(depth < 100 || Value::from_json_str(&json) == Err(ValueError::TooDeep));
    }
    assert!(serde_json::from_str::<Value>(&("[".repeat(33) + &"]".repeat(33))).is_err());

    let maps = |levels| (0..levels).fold(Value::Null, |value, _| map([("k", value)]));
    assert!(maps(DEPTH_MAX).depth_ok() && !maps(DEPTH_MAX + 1).depth_ok());

    let mut deep = nested(100_000);
    assert!(!deep.depth_ok());
    assert_eq!(deep.to_bytes().len(), 100_001);
    while let Value::List(mut list) = deep {
        deep = list.pop().unwrap();
    }
}

#[test]
fn plain_rust_values_convert() {
    assert_eq!(Value::from(()), Value::Null);
    assert_eq!(Value::from(None::<i64>), Value::Null);
    assert_eq!(Value::from(Some("a")), Value::Text("a".into()));
    assert_eq!(Value::from(u32::MAX), Value::Int(4_294_967_295));
    assert_eq!(Value::from(vec![1u8]), Value::Bytes(vec![1]));
    assert_eq!(Value::from(vec![Value::Null]), Value::List(vec![Value::Null]));
}
