//! Joins that are joins.

use std::collections::{BTreeMap, BTreeSet};

use proptest::array::uniform3;
use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;

use super::joins::{exhibit, joins};
use super::{Exhibit, first};
use crate::law::join::check;
use crate::strategy::floats;

fn pointwise<V: Copy + Ord>(a: &BTreeMap<u8, V>, b: &BTreeMap<u8, V>) -> BTreeMap<u8, V> {
    let mut joined = a.clone();
    for (key, value) in b {
        let slot = joined.entry(*key).or_insert(*value);
        *slot = (*slot).max(*value);
    }
    joined
}

joins! {
    /// Last writer wins: (time, replica, value), compared in this order.
    pub Newest((u64, u8, i64)): |a, b| (*a).max(*b)
    /// The greatest number.
    pub Greatest(i64): |a, b| *a.max(b)
    /// The least number.
    pub Least(i64): |a, b| *a.min(b)
    /// A flag that stays up once it is.
    pub Enabled(bool): |a, b| *a || *b
    /// A set that only grows.
    pub GrowOnlySet(BTreeSet<u8>): |a, b| a | b
    /// By replica, how often it counted.
    pub GrowOnlyCounter(BTreeMap<u8, u64>): |a, b| pointwise(a, b)
    /// By replica, how often it changed its part, and its part.
    pub PnCounter(BTreeMap<u8, (u64, i64)>): |a, b| pointwise(a, b)
    /// By replica, its latest write: a multi-value register.
    pub LatestOfEach(BTreeMap<u8, (u64, i64)>): |a, b| pointwise(a, b)
    /// Elements with the tags of their additions, and the tags that were removed.
    pub ObservedRemoveSet((BTreeSet<(u8, u8)>, BTreeSet<(u8, u8)>)): |a, b| (&a.0 | &b.0, &a.1 | &b.1)
}

/// The greatest float in the total order of IEEE 754, by its bits.
#[derive(Clone, Debug)]
pub struct GreatestFloat(pub f64);

impl PartialEq for GreatestFloat {
    fn eq(&self, other: &Self) -> bool {
        self.0.total_cmp(&other.0).is_eq()
    }
}

impl crate::law::join::Join for GreatestFloat {
    fn join(&self, other: &Self) -> Self {
        if self.holds(other) { self.clone() } else { other.clone() }
    }
    fn encode(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self(f64::from_be_bytes(bytes.try_into().ok()?)))
    }
    fn holds(&self, other: &Self) -> bool {
        self.0.total_cmp(&other.0).is_ge()
    }
}

pub(super) fn exhibits() -> Vec<Exhibit> {
    vec![
        exhibit!(
            "last writer wins",
            Newest,
            (0..20_u64, 0..3_u8, 0..4_i64),
            "ties go to the replica",
            "everywhere"
        ),
        exhibit!("greatest", Greatest, any::<i64>(), "a total order", "high scores"),
        exhibit!("least", Least, any::<i64>(), "a total order", "earliest dates"),
        exhibit!("flag", Enabled, any::<bool>(), "or", "read marks"),
        exhibit!("grow-only set", GrowOnlySet, btree_set(0..9_u8, 0..6), "union", "logs"),
        exhibit!(
            "grow-only counter",
            GrowOnlyCounter,
            btree_map(0..3_u8, 0..5_u64, 0..3),
            "a part for each replica",
            "views"
        ),
        exhibit!(
            "counter of running totals",
            PnCounter,
            btree_map(0..3_u8, (0..4_u64, -3..4_i64), 0..3),
            "a part for each replica, numbered by it",
            "stock"
        ),
        exhibit!(
            "multi-value register",
            LatestOfEach,
            btree_map(0..3_u8, (0..4_u64, -3..4_i64), 0..3),
            "concurrent writes stay side by side",
            "shopping carts"
        ),
        exhibit!(
            "observed-remove set",
            ObservedRemoveSet,
            (btree_set((0..3_u8, 0..3_u8), 0..5), btree_set((0..3_u8, 0..3_u8), 0..5)),
            "a removal takes out the additions that it saw",
            "tags"
        ),
        exhibit!("greatest float", GreatestFloat, floats(), "by the total order of the bits", "sensors"),
    ]
}
