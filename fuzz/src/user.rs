//! A merge function of a user's own, as its author would fuzz it.

use std::collections::BTreeSet;

/// A set of words that only grows.
fn join(one: &BTreeSet<u8>, two: &BTreeSet<u8>) -> BTreeSet<u8> {
    one.union(two).copied().collect()
}

/// The laws of a merge, over three states out of the bytes.
pub fn user_merge(data: &[u8]) {
    let mut thirds = data.chunks(data.len().div_ceil(3).max(1));
    let [a, b, c] =
        [(); 3].map(|()| thirds.next().unwrap_or_default().iter().copied().collect::<BTreeSet<u8>>());
    assert_eq!(join(&a, &b), join(&b, &a), "commutative");
    assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)), "associative");
    assert_eq!(join(&a, &a), a, "idempotent");
}
