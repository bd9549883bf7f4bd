//! The JSON form: what scripts, files and the command line write and read. Lossless in both directions.
//!
//! Numbers with `.`, `e` or `E` are floats, all others integers. What JSON lacks is an object with one
//! reserved key: `{"$f64":"NaN"}` (also `Infinity`, `-Infinity`), `{"$bytes":"<base64>"}`,
//! `{"$tag":[number,"<base64>"]}` for a value of unknown type, and `{"$map":{…}}` around a map of the
//! user's own whose only key begins with `$`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use ::serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use ::serde::ser::{Error as _, Serialize, SerializeMap, Serializer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::{DEPTH_MAX, Value, ValueError};

impl Value {
    /// Reads a value from JSON. Whether a number is an integer is decided by its text.
    ///
    /// # Errors
    /// Integers beyond 64 bits, numbers too great for a float, malformed reserved objects, a key twice in one
    /// object, nesting beyond [`DEPTH_MAX`].
    pub fn from_json(raw: &RawValue) -> Result<Self, ValueError> {
        read(raw, DEPTH_MAX)
    }

    /// Reads a value from JSON text; as [`Value::from_json`].
    ///
    /// # Errors
    /// Those of [`Value::from_json`], and text that is not one JSON value.
    pub fn from_json_str(s: &str) -> Result<Self, ValueError> {
        Self::from_json(parse(s)?)
    }
}

fn read(raw: &RawValue, levels: usize) -> Result<Value, ValueError> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'n') => Ok(Value::Null),
        Some(b't') => Ok(Value::Bool(true)),
        Some(b'f') => Ok(Value::Bool(false)),
        Some(b'"') => Ok(Value::Text(parse(text)?)),
        Some(b'{') => read_object(parse(text)?, levels),
        Some(b'[') => {
            let inner = levels.checked_sub(1).ok_or(ValueError::TooDeep)?;
            let items: Vec<&RawValue> = parse(text)?;
            Ok(Value::List(items.into_iter().map(|item| read(item, inner)).collect::<Result<_, _>>()?))
        }
        _ => read_number(text),
    }
}

fn read_number(text: &str) -> Result<Value, ValueError> {
    if !text.contains(['.', 'e', 'E']) {
        return text.parse().map(Value::Int).map_err(|_| ValueError::Integer(shortened(text)));
    }
    let float = text.parse().ok().filter(|float: &f64| float.is_finite());
    float.map(Value::Float).ok_or_else(|| ValueError::NotFinite(shortened(text)))
}

fn read_object(object: Object<'_>, levels: usize) -> Result<Value, ValueError> {
    if object.0.len() == 1
        && let Some((key, content)) = object.0.first_key_value()
    {
        match key.as_str() {
            "$f64" => return read_float(content),
            "$bytes" => return read_bytes(content),
            "$tag" => return read_unknown(content),
            "$map" => return read_map(inner_object(content)?, levels),
            _ => {}
        }
    }
    read_map(object, levels)
}

fn read_map(object: Object<'_>, levels: usize) -> Result<Value, ValueError> {
    let inner = levels.checked_sub(1).ok_or(ValueError::TooDeep)?;
    let entries = object.0.into_iter().map(|(key, value)| Ok((key, read(value, inner)?)));
    Ok(Value::Map(entries.collect::<Result<_, ValueError>>()?))
}

fn inner_object(content: &RawValue) -> Result<Object<'_>, ValueError> {
    if !content.get().starts_with('{') {
        return Err(malformed("$map", "an object", content));
    }
    parse(content.get())
}

fn read_float(content: &RawValue) -> Result<Value, ValueError> {
    match content.get() {
        r#""NaN""# => Ok(Value::Float(f64::NAN)),
        r#""Infinity""# | r#""inf""# => Ok(Value::Float(f64::INFINITY)),
        r#""-Infinity""# | r#""-inf""# => Ok(Value::Float(f64::NEG_INFINITY)),
        _ => Err(malformed("$f64", r#""NaN", "Infinity" or "-Infinity""#, content)),
    }
}

fn read_bytes(content: &RawValue) -> Result<Value, ValueError> {
    let bytes = parse::<String>(content.get()).ok().and_then(|text| STANDARD.decode(text).ok());
    bytes
        .map(Value::Bytes)
        .ok_or_else(|| malformed("$bytes", "standard base64 with padding, as text", content))
}

fn read_unknown(content: &RawValue) -> Result<Value, ValueError> {
    let pair: Option<(u64, String)> = parse(content.get()).ok();
    let value = pair.and_then(|(tag, text)| Some(Value::Unknown { tag, bytes: STANDARD.decode(text).ok()? }));
    value.ok_or_else(|| malformed("$tag", "a list of a tag number and base64 text", content))
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ValueError> {
    serde_json::from_str(text).map_err(|error| ValueError::Json(error.to_string()))
}

fn malformed(key: &'static str, takes: &'static str, content: &RawValue) -> ValueError {
    ValueError::Escape { key, takes, found: shortened(content.get()) }
}

/// Enough of an offending text to find it, so that an error does not grow with its cause.
fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    match text.char_indices().nth(CHARS_MAX) {
        Some(_) => text.chars().take(CHARS_MAX).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// The entries of an object, still unread; a key twice is refused rather than dropped.
struct Object<'a>(BTreeMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Object<'de>, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, value)) = access.next_entry::<String, &RawValue>()? {
            if entries.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(ValueError::DuplicateKey(key)));
            }
        }
        Ok(Object(entries))
    }
}

/// Serializes a value in its JSON form; [`Value::from_json`] reads it back. Meant for `serde_json`.
///
/// Keys are sorted by their bytes and floats always carry a `.` or an `e`, so that equal values print alike.
/// A value nested deeper than [`DEPTH_MAX`] is an error of the serializer.
#[derive(Clone, Copy, Debug)]
pub struct Json<'a>(pub &'a Value);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Printed { value: self.0, levels: DEPTH_MAX }.serialize(serializer)
    }
}

struct Printed<'a> {
    value: &'a Value,
    levels: usize,
}

impl Serialize for Printed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner = || self.levels.checked_sub(1).ok_or_else(|| S::Error::custom(ValueError::TooDeep));
        match self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(bool) => serializer.serialize_bool(*bool),
            Value::Int(int) => serializer.serialize_i64(*int),
            Value::Float(float) if float.is_nan() => reserved(serializer, "$f64", "NaN"),
            Value::Float(f64::INFINITY) => reserved(serializer, "$f64", "Infinity"),
            Value::Float(f64::NEG_INFINITY) => reserved(serializer, "$f64", "-Infinity"),
            // Adding zero makes -0.0 the one zero that there is.
            Value::Float(float) => serializer.serialize_f64(float + 0.0),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Bytes(bytes) => reserved(serializer, "$bytes", &STANDARD.encode(bytes)),
            Value::Unknown { tag, bytes } => reserved(serializer, "$tag", &(tag, STANDARD.encode(bytes))),
            Value::List(list) => {
                let levels = inner()?;
                serializer.collect_seq(list.iter().map(|value| Printed { value, levels }))
            }
            Value::Map(map) => {
                let entries = Entries { map, levels: inner()? };
                let reserves = map.len() == 1 && map.keys().any(|key| key.starts_with('$'));
                if reserves { reserved(serializer, "$map", &entries) } else { entries.serialize(serializer) }
            }
        }
    }
}

struct Entries<'a> {
    map: &'a BTreeMap<String, Value>,
    levels: usize,
}

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer
            .collect_map(self.map.iter().map(|(key, value)| (key, Printed { value, levels: self.levels })))
    }
}

fn reserved<S: Serializer, T>(serializer: S, key: &str, content: &T) -> Result<S::Ok, S::Error>
where
    T: Serialize + ?Sized,
{
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(key, content)?;
    map.end()
}
