//! Identities: who wrote, which database, which run of it.
//!
//! All of them are plain numbers given from outside; this module draws no randomness.

use std::fmt;
use std::str::FromStr;

/// One running writer into a store: a random 128-bit number, compared by its big-endian bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReplicaId(pub [u8; 16]);

impl ReplicaId {
    /// The replica id with this number.
    #[must_use]
    pub fn from_u128(number: u128) -> Self {
        Self(number.to_be_bytes())
    }

    /// The id as a number; its order is the order of ids.
    #[must_use]
    pub fn as_u128(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.as_u128())
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{:x}", self.as_u128())
    }
}

impl FromStr for ReplicaId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        u128::from_str_radix(text, 16).map(Self::from_u128).map_err(|_| BadId(text.to_owned()))
    }
}

/// uhlc orders ids by their little-endian bytes and has no zero id; here the bytes are big-endian, so they
/// turn round on the way.
impl TryFrom<ReplicaId> for uhlc::ID {
    type Error = BadId;
    fn try_from(id: ReplicaId) -> Result<Self, BadId> {
        let mut bytes = id.0;
        bytes.reverse();
        Self::try_from(bytes).map_err(|_| BadId(id.to_string()))
    }
}

impl From<uhlc::ID> for ReplicaId {
    fn from(id: uhlc::ID) -> Self {
        let mut bytes = id.to_le_bytes();
        bytes.reverse();
        Self(bytes)
    }
}

macro_rules! id64 {
    ($(#[$doc:meta])* $name:ident, $short:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($short, "{:x}"), self.0)
            }
        }
    };
}

id64! {
    /// One database: a random 64-bit number. A store may be served by several replicas.
    StoreId, "s"
}

id64! {
    /// One opening of a store that has written: a random 64-bit number that cursors carry, so that a store
    /// restored from a backup cannot be mistaken for the one that it was.
    Incarnation, "i"
}

/// A text that is no id, or an id that the other type cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a usable id: give 1 to 32 hexadecimal digits, not all zero")]
pub struct BadId(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_ids_order_by_their_number_and_survive_uhlc() {
        let small = ReplicaId::from_u128(0x0100);
        let large = ReplicaId::from_u128(0x01_0000_0000);
        assert!(small < large);
        let through = ReplicaId::from(uhlc::ID::try_from(large).unwrap());
        assert_eq!(through, large);
        assert!(uhlc::ID::try_from(ReplicaId::default()).is_err());
        assert_eq!(large.to_string().parse(), Ok(large));
    }
}
