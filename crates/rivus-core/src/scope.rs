//! Scopes: which part of a store an entity is in, as the unit of subscription and permission.
//!
//! A scope is a text. That of an entity is what its kind's scope field holds, in its confirmed form: a register like
//! any other, so that moving an entity is an ordinary edit. Which field that is says the schema; a store remembers it
//! for programs that do not declare the kind.

use std::collections::BTreeMap;

use crate::address;
use crate::bytes::{Cut, Put, Reader};
use crate::register::Register;
use crate::row::{Corrupt, Row};
use crate::schema::Schema;
use crate::value::Value;

/// The longest name of a scope, in bytes of UTF-8. What is longer names none.
pub const SCOPE_BYTES_MAX: usize = 255;

/// Where the scope of each kind's entities stands. Kinds that are not named are in the scope without a name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Scopes {
    addresses: BTreeMap<String, Vec<u8>>,
}

impl Scopes {
    /// The address that names the scope of entities of this kind.
    pub(crate) fn address(&self, kind: &str) -> Option<&[u8]> {
        self.addresses.get(kind).map(Vec::as_slice)
    }

    /// As declared, and for kinds that the schema does not declare as before.
    pub(crate) fn declared(&self, schema: &Schema) -> Self {
        let mut addresses = self.addresses.clone();
        for kind in schema.kinds() {
            match &kind.scope {
                Some(field) => addresses.insert(kind.name.clone(), address::field(field)),
                None => addresses.remove(&kind.name),
            };
        }
        Self { addresses }
    }

    /// The kinds of which the two differ.
    pub(crate) fn differing<'k>(&'k self, other: &'k Self) -> impl Iterator<Item = &'k str> {
        let differ = |kind: &&String| self.addresses.get(*kind) != other.addresses.get(*kind);
        let gone = self.addresses.keys().filter(differ);
        let new = other.addresses.keys().filter(|kind| !self.addresses.contains_key(*kind));
        gone.chain(new).map(String::as_str)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, address) in &self.addresses {
            out.slice(kind.as_bytes());
            out.slice(address);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Cut> {
        let mut reader = Reader::new(bytes);
        let mut addresses = BTreeMap::new();
        while !reader.is_empty() {
            addresses.insert(reader.str()?.to_owned(), reader.slice()?.to_vec());
        }
        Ok(Self { addresses })
    }
}

/// The scope that a register names.
pub(crate) fn named(register: &Register<'_>) -> String {
    match Value::decode(register.newest().value) {
        Ok(Value::Text(name)) if name.len() <= SCOPE_BYTES_MAX => name,
        _ => String::new(),
    }
}

/// The scope that the confirmed form of a row's register names; the one without a name if there is none.
pub(crate) fn confirmed(row: Row<'_>, address: &[u8]) -> Result<String, Corrupt> {
    Ok(says(row, address)?.unwrap_or_default())
}

/// The scope that the confirmed form of a row's register names, if there is one.
pub(crate) fn says(row: Row<'_>, address: &[u8]) -> Result<Option<String>, Corrupt> {
    let state = row.find(address)?.map(|entry| entry.state()).transpose()?;
    Ok(state.and_then(|state| state.confirmed().map(named)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(scope: Option<&str>) -> Schema {
        let builder = Schema::builder().kind("task", |k| {
            let k = k.value("list").value("owner");
            scope.into_iter().fold(k, |k, field| k.scope(field))
        });
        builder.build().unwrap()
    }

    #[test]
    fn what_is_not_declared_stays_as_it_was() {
        let none = Scopes::default();
        let by_list = none.declared(&schema(Some("list")));
        assert_eq!(by_list.address("task"), Some(&*address::field("list")));
        assert_eq!(by_list.declared(&Schema::open()), by_list);
        assert_eq!(by_list.declared(&schema(None)), none);
        let by_owner = by_list.declared(&schema(Some("owner")));
        assert_eq!(by_list.differing(&by_owner).collect::<Vec<_>>(), ["task"]);
        assert_eq!(none.differing(&by_owner).collect::<Vec<_>>(), ["task"]);
        assert_eq!(by_owner.differing(&none).collect::<Vec<_>>(), ["task"]);
        assert_eq!(by_owner.differing(&by_owner).count(), 0);
        assert_eq!(Scopes::decode(&by_owner.encode()), Ok(by_owner));
    }

    #[test]
    fn only_text_that_is_not_too_long_names_a_scope() {
        let named_by = |value: Value| {
            let bytes = value.to_bytes();
            let stamp = crate::clock::Stamp::LOWEST;
            named(&Register::plain(crate::register::Candidate { stamp, rank: 0, saw: None, value: &bytes }))
        };
        assert_eq!(named_by("a".into()), "a");
        assert_eq!(named_by(Value::Int(3)), "");
        assert_eq!(named_by("x".repeat(SCOPE_BYTES_MAX).into()).len(), SCOPE_BYTES_MAX);
        assert_eq!(named_by("x".repeat(SCOPE_BYTES_MAX + 1).into()), "");
    }
}
