//! What stands on the command line for a change: `field=value` and its kin.

use std::str::FromStr;

use rivus::Value;
use serde_json::value::RawValue;

/// `FIELD=VALUE`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Assignment {
    pub(crate) field: String,
    pub(crate) value: Value,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, value) = halves(text, "FIELD=VALUE")?;
        Ok(Self { field: field.to_owned(), value: value_of(value)? })
    }
}

/// `FIELD=KEY`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Member {
    pub(crate) field: String,
    pub(crate) key: String,
}

impl FromStr for Member {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, key) = halves(text, "FIELD=KEY")?;
        Ok(Self { field: field.to_owned(), key: key.to_owned() })
    }
}

/// `FIELD.KEY=VALUE`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct KeyAssignment {
    pub(crate) field: String,
    pub(crate) key: String,
    pub(crate) value: Value,
}

impl FromStr for KeyAssignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, value) = halves(text, "FIELD.KEY=VALUE")?;
        let (field, key) = address.split_once('.').ok_or("give FIELD.KEY=VALUE")?;
        Ok(Self { field: field.to_owned(), key: key.to_owned(), value: value_of(value)? })
    }
}

/// `FIELD=N`.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Increment {
    pub(crate) field: String,
    pub(crate) by: i64,
}

impl FromStr for Increment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, by) = halves(text, "FIELD=N")?;
        let by = by.parse().map_err(|_| format!("`{by}` is not a whole number of 64 bits"))?;
        Ok(Self { field: field.to_owned(), by })
    }
}

/// `TOKEN=RANK` or `TOKEN=RANK:SUBJECT`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) token: String,
    pub(crate) rank: u8,
    pub(crate) subject: Option<String>,
}

impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A token may end in `=`, as base64 does, and have a `:` in it.
        let (token, rank) = text.rsplit_once('=').ok_or("give TOKEN=RANK or TOKEN=RANK:SUBJECT")?;
        if token.is_empty() {
            return Err("the token is empty: give TOKEN=RANK or TOKEN=RANK:SUBJECT".to_owned());
        }
        let (rank, subject) = match rank.split_once(':') {
            Some((_, "")) => {
                return Err("the subject is empty: give TOKEN=RANK:SUBJECT, or TOKEN=RANK".to_owned());
            }
            Some((rank, subject)) => (rank, Some(subject.to_owned())),
            None => (rank, None),
        };
        let rank = rank.parse().map_err(|_| format!("`{rank}` is not a rank: give 0 to 255"))?;
        Ok(Self { token: token.to_owned(), rank, subject })
    }
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is a secret.
        f.debug_struct("Grant").field("rank", &self.rank).finish_non_exhaustive()
    }
}

/// A value as people type it: JSON if it reads as JSON, else text.
///
/// # Errors
/// JSON that is no value, for example an integer beyond 64 bits.
pub(crate) fn value_of(text: &str) -> Result<Value, String> {
    if reads_as_json(text) {
        Value::from_json_str(text).map_err(|error| error.to_string())
    } else {
        Ok(text.into())
    }
}

/// Whether [`value_of`] would take the text for JSON.
pub(crate) fn reads_as_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

fn halves<'t>(text: &'t str, form: &str) -> Result<(&'t str, &'t str), String> {
    match text.split_once('=') {
        Some((name, rest)) if !name.is_empty() => Ok((name, rest)),
        _ => Err(format!("give {form}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_if_they_read_as_json_and_else_text() {
        let value = |text: &str| text.parse::<Assignment>().unwrap().value;
        assert_eq!(value("a=1"), Value::Int(1));
        assert_eq!(value("a=1.0"), Value::Float(1.0));
        assert_eq!(value("a=null"), Value::Null);
        assert_eq!(value("a=007"), "007".into());
        assert_eq!(value("a=\"007\""), "007".into());
        assert_eq!(value("a="), "".into());
        assert_eq!(value("a=b=c"), "b=c".into());
        assert_eq!(value("a=[1,\"x\"]"), Value::List(vec![1.into(), "x".into()]));
        assert!("a=99999999999999999999".parse::<Assignment>().is_err());
        assert!("a".parse::<Assignment>().is_err());
        assert!("=1".parse::<Assignment>().is_err());
    }

    #[test]
    fn a_key_ends_at_the_equals_sign_and_a_token_at_the_last_one() {
        let set: KeyAssignment = "labels.a.b=1".parse().unwrap();
        assert_eq!((set.field.as_str(), set.key.as_str(), set.value), ("labels", "a.b", 1.into()));
        let grant: Grant = "c2VjcmV0==5".parse().unwrap();
        assert_eq!((grant.token.as_str(), grant.rank, grant.subject), ("c2VjcmV0=", 5, None));
        let grant: Grant = "a:c2VjcmV0==5:ann:b".parse().unwrap();
        assert_eq!((grant.token.as_str(), grant.subject.as_deref()), ("a:c2VjcmV0=", Some("ann:b")));
        assert!("secret=5:".parse::<Grant>().is_err());
        assert!("secret=256".parse::<Grant>().is_err());
        assert!("=5".parse::<Grant>().is_err());
        assert!(!format!("{grant:?}").contains("c2"));
    }
}
