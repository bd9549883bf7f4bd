use proptest::prelude::*;

use crate::value::Value;
use crate::value::tests::{json_of, map, unknown, value};

proptest! {
    #[test]
    fn json_and_back(value in value()) {
        prop_assert_eq!(Value::from_json_str(&json_of(&value)), Ok(value));
    }
}

#[test]
fn json_has_one_form_for_each_value() {
    let exact = [
        (Value::Null, "null"),
        (1.into(), "1"),
        (1.0.into(), "1.0"),
        ((-0.0).into(), "0.0"),
        (i64::MIN.into(), "-9223372036854775808"),
        (9_007_199_254_740_993i64.into(), "9007199254740993"),
        (f64::NAN.into(), r#"{"$f64":"NaN"}"#),
        (f64::INFINITY.into(), r#"{"$f64":"Infinity"}"#),
        (f64::NEG_INFINITY.into(), r#"{"$f64":"-Infinity"}"#),
        ("a\"\u{e9}\n".into(), "\"a\\\"\u{e9}\\n\""),
        (vec![0xffu8, 0xfe].into(), r#"{"$bytes":"//4="}"#),
        (unknown(u64::MAX, b"x"), r#"{"$tag":[18446744073709551615,"eA=="]}"#),
        (map([("b", 1.into()), ("aa", 2.into())]), r#"{"aa":2,"b":1}"#),
        (map([("$f64", "NaN".into())]), r#"{"$map":{"$f64":"NaN"}}"#),
        (map([("$x", 1.into())]), r#"{"$map":{"$x":1}}"#),
        (map([("$map", map([("$map", map([]))]))]), r#"{"$map":{"$map":{"$map":{"$map":{}}}}}"#),
        (map([("$a", 1.into()), ("b", 2.into())]), r#"{"$a":1,"b":2}"#),
    ];
    for (value, text) in exact {
        assert_eq!(json_of(&value), text);
        assert_eq!(Value::from_json_str(text), Ok(value));
    }
    for float in [1e21, 1e300, 1e-7, 123_456_789_012_345_680_000.0, f64::MAX, 5e-324] {
        assert!(json_of(&Value::Float(float)).contains(['.', 'e']));
    }
}

#[test]
fn json_is_read_by_its_text() {
    let read = [
        ("-0", Value::Int(0)),
        (" 1e2 ", Value::Float(100.0)),
        ("1E2", Value::Float(100.0)),
        ("-0.0", Value::Float(0.0)),
        ("1e-400", Value::Float(0.0)),
        (r#"{ "$f64" : "-inf" }"#, Value::Float(f64::NEG_INFINITY)),
        (r#"{"$f64":"inf"}"#, Value::Float(f64::INFINITY)),
        (r#"{"\u0024bytes":"AA\u003d="}"#, Value::Bytes(vec![0])),
        (r#"{"$x":[true,false]}"#, map([("$x", Value::List(vec![true.into(), false.into()]))])),
        (r#"{"$map":{"a":1}}"#, map([("a", 1.into())])),
        (r#"{"$f64":"zzz","b":null}"#, map([("$f64", "zzz".into()), ("b", Value::Null)])),
        ("\"\\ud83d\\ude00\"", "😀".into()),
    ];
    for (text, value) in read {
        assert_eq!(Value::from_json_str(text), Ok(value), "{text}");
    }
    let raw: Box<serde_json::value::RawValue> = serde_json::from_str("{\"a\": [1, 2.0]}").unwrap();
    let list = Value::List(vec![1.into(), 2.0.into()]);
    assert_eq!(Value::from_json(&raw), Ok(map([("a", list)])));
}

#[test]
fn bad_json_is_refused_with_the_reason() {
    let refused = [
        ("9223372036854775808", "the integer 9223372036854775808 is outside"),
        ("-9223372036854775809", "the integer -9223372036854775809 is outside"),
        ("1e400", "the number 1e400 is too great"),
        ("-1e400", "the number -1e400 is too great"),
        (r#"{"$f64":"zzz"}"#, r#"{"$f64":"zzz"} is malformed"#),
        (r#"{"$f64":1.0}"#, "$f64"),
        (r#"{"$bytes":"!!"}"#, r#"{"$bytes":"!!"} is malformed"#),
        (r#"{"$bytes":"AA"}"#, "padding"),
        (r#"{"$bytes":"AB=="}"#, "base64"),
        (r#"{"$tag":[1]}"#, "$tag"),
        (r#"{"$tag":[-1,""]}"#, "$tag"),
        (r#"{"$tag":[1,"!"]}"#, "$tag"),
        (r#"{"$map":1}"#, "an object"),
        (r#"{"a":1,"a":2}"#, r#"the key "a" appears twice"#),
        ("\"\\ud800\"", "not json"),
        ("01", "not json"),
        ("NaN", "not json"),
        ("", "not json"),
        ("1 2", "not json"),
        ("[1,]", "not json"),
    ];
    for (text, reason) in refused {
        let error = Value::from_json_str(text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    let long = Value::from_json_str(&"9".repeat(10_000)).unwrap_err().to_string();
    assert!(long.len() < 300, "an error does not grow with its cause");
}
