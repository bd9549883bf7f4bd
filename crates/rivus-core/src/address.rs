//! Addresses: where in an entity a register is.
//!
//! An address is (class, name, key), kept in one encoded form: class byte, length of the name as 16 bits
//! big-endian, name, key. Registers of an entity are ordered by these bytes, so that the life register comes
//! first and all keys of one set, map or counter lie together. Unknown classes are kept and forwarded.

use crate::id::ReplicaId;

/// What kind of register an address names. Other numbers come from newer versions.
pub mod class {
    /// Whether the entity is alive: one register, without name and key.
    pub const LIFE: u8 = 0;
    /// A plain field.
    pub const FIELD: u8 = 1;
    /// A group of fields, by the group's name; the value is a map by member.
    pub const GROUP: u8 = 2;
    /// One key of a set or map field.
    pub const KEY: u8 = 3;
    /// One replica's running total of a counter field; the key is the replica id.
    pub const COUNT: u8 = 4;
    /// When an entity took its place in a group of a rule; the key is the group.
    pub const CLAIM: u8 = 5;
    /// Which entity stands for this one: one register, without name and key.
    pub const ALIAS: u8 = 6;
}

/// The address of the life register.
pub const LIFE: &[u8] = &[class::LIFE, 0, 0];

/// The address of the register that names the entity that stands for this one.
pub const ALIAS: &[u8] = &[class::ALIAS, 0, 0];

/// The longest name of a field or group, in bytes: its length is kept in 16 bits.
pub const NAME_BYTES_MAX: usize = u16::MAX as usize;
/// The longest key of a set or map, in bytes.
pub const KEY_BYTES_MAX: usize = 4096;
/// The longest kind name, in bytes.
pub const KIND_BYTES_MAX: usize = 255;
/// The longest entity id, in bytes.
pub const ID_BYTES_MAX: usize = 1024;

/// The parts of an encoded address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts<'a> {
    /// See [`class`].
    pub class: u8,
    /// The field's or group's name; empty for life.
    pub name: &'a str,
    /// The key's UTF-8 bytes, or a replica id; empty otherwise.
    pub key: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Takes an encoded address apart; `None` if it is malformed.
    #[must_use]
    pub fn parse(address: &'a [u8]) -> Option<Self> {
        let ([class, high, low], rest) = address.split_first_chunk::<3>()?;
        let (name, key) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        Some(Self { class: *class, name: std::str::from_utf8(name).ok()?, key })
    }

    /// The key as text.
    #[must_use]
    pub fn text_key(&self) -> Option<&'a str> {
        std::str::from_utf8(self.key).ok()
    }
}

/// Whether the bytes are an address that a store takes in, of a known class or not.
#[must_use]
pub fn is_well_formed(address: &[u8]) -> bool {
    Parts::parse(address)
        .is_some_and(|parts| is_name(parts.class, parts.name) && is_key(parts.class, parts.key))
}

/// Whether an address of this class may bear the name.
pub(crate) fn is_name(class: u8, name: &str) -> bool {
    class != class::LIFE || name.is_empty()
}

/// Whether an address of this class may bear the key.
pub(crate) fn is_key(class: u8, key: &[u8]) -> bool {
    key.len() <= KEY_BYTES_MAX
        && match class {
            class::LIFE | class::FIELD | class::GROUP => key.is_empty(),
            class::KEY => std::str::from_utf8(key).is_ok(),
            class::COUNT => key.len() == 16,
            _ => true,
        }
}

/// Appends an encoded address.
pub fn encode(out: &mut Vec<u8>, class: u8, name: &str, key: &[u8]) {
    debug_assert!(name.len() <= NAME_BYTES_MAX, "names are checked before they become addresses");
    out.push(class);
    out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(key);
}

/// The address of a plain field.
#[must_use]
pub fn field(name: &str) -> Vec<u8> {
    build(class::FIELD, name, &[])
}

/// The address of a group.
#[must_use]
pub fn group(name: &str) -> Vec<u8> {
    build(class::GROUP, name, &[])
}

/// The address of one key of a set or map field.
#[must_use]
pub fn key(name: &str, key: &str) -> Vec<u8> {
    build(class::KEY, name, key.as_bytes())
}

/// The address of `replica`'s total of a counter field.
#[must_use]
pub fn count(name: &str, replica: ReplicaId) -> Vec<u8> {
    build(class::COUNT, name, &replica.0)
}

/// The address of an entity's claim of a place in a group of a rule.
#[must_use]
pub fn claim(rule: &str, group: &[u8]) -> Vec<u8> {
    build(class::CLAIM, rule, group)
}

fn build(class: u8, name: &str, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(3 + name.len() + key.len());
    encode(&mut out, class, name, key);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_take_apart_into_what_made_them() {
        let address = key("labels", "k");
        assert_eq!(Parts::parse(&address), Some(Parts { class: class::KEY, name: "labels", key: b"k" }));
        assert_eq!(Parts::parse(LIFE), Some(Parts { class: class::LIFE, name: "", key: b"" }));
        assert!(is_well_formed(&[200, 0, 1, b'x', 9, 9]));
        for bad in [&[][..], &[1, 0], &[1, 0, 2, b'x'], &[1, 0, 1, 0xff], &[0, 0, 0, 1], &[4, 0, 1, b'x', 1]]
        {
            assert!(!is_well_formed(bad), "{bad:?}");
        }
        assert!(LIFE < field("").as_slice());
        assert!(field("zz") < key("a", ""));
    }
}
