//! What the machine lends: a clock and random numbers. Core takes both as arguments; here they come from.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rivus_core::clock::Millis;
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::Seeds;
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

/// Where readings of the clock come from.
#[derive(Clone)]
pub(crate) struct TimeSource(Arc<dyn Fn() -> Millis + Send + Sync>);

impl TimeSource {
    pub(crate) fn new(read: impl Fn() -> Millis + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    pub(crate) fn now(&self) -> Millis {
        (self.0)()
    }
}

impl Default for TimeSource {
    fn default() -> Self {
        Self::new(system_time)
    }
}

impl fmt::Debug for TimeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimeSource")
    }
}

/// The system's clock, which may be set wrong, also to before 1970.
fn system_time() -> Millis {
    let saturated = |since: std::time::Duration| i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    Millis(match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => saturated(since),
        Err(before) => -saturated(before.duration()),
    })
}

/// 128 random bits: the few fixed bits of one UUID meet random ones of the other.
fn random() -> u128 {
    Uuid::new_v4().as_u128() ^ Uuid::new_v4().as_u128().rotate_left(64)
}

/// 64 random bits.
pub(crate) fn random_u64() -> u64 {
    let (high, low) = Uuid::from_u128(random()).as_u64_pair();
    high ^ low
}

/// Random numbers for one opening of a store.
pub(crate) fn seeds() -> Seeds {
    Seeds {
        store: StoreId(random_u64()),
        replica: ReplicaId::from_u128(random()),
        incarnation: Incarnation(random_u64()),
    }
}

/// A new id for an entity: a UUID of version 7 as text. Later ids sort after earlier ones of the same machine.
///
/// # Panics
/// If the system has no random numbers.
///
/// ```
/// let (first, second) = (rivus::new_id(), rivus::new_id());
/// assert_eq!(first.len(), 36);
/// assert!(first < second);
/// ```
#[must_use]
pub fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// The id that everybody derives from the same parts, for entities with a natural key: two replicas that create
/// the same one offline create one entity, not two.
///
/// It is the XXH3-128 (seed 0) in 32 hexadecimal digits of `namespace` and each of `parts`, each led by its length
/// in bytes as 64 bits big-endian.
///
/// ```
/// let id = rivus::derived_id("day", &["ann", "2024-02-29"]);
/// assert_eq!(id, rivus::derived_id("day", &["ann", "2024-02-29"]));
/// assert_ne!(id, rivus::derived_id("day", &["ann2024-02-29"]));
/// assert_eq!(id.len(), 32);
/// ```
#[must_use]
pub fn derived_id(namespace: &str, parts: &[&str]) -> String {
    let mut hash = Xxh3::new();
    for part in std::iter::once(&namespace).chain(parts) {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    format!("{:032x}", hash.digest128())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_have_no_fixed_bits() {
        let (mut ones, mut zeros) = (0, 0);
        for _ in 0..200 {
            let number = random();
            ones |= number;
            zeros |= !number;
        }
        assert_eq!((ones, zeros), (u128::MAX, u128::MAX));
    }

    #[test]
    fn a_derived_id_never_changes() {
        // Ids are stored and shared: what they are made of is for ever.
        assert_eq!(derived_id("day", &["ann", "2024-02-29"]), "a99cb4e9bb26a0387e5b62b50f5b6867");
    }
}
