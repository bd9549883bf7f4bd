//! Joins that are none.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use proptest::array::uniform3;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use rivus_core::clock::{ticks, whole_millis};
use xxhash_rust::xxh3::xxh3_64;

use super::{Exhibit, first, in_map_order};
use crate::law::Surroundings;
use crate::law::join::{Join, check};
use crate::strategy::floats;

/// A newtype around its state, joined as written, with JSON for bytes.
macro_rules! joins {
    ($($(#[$doc:meta])* $vis:vis $name:ident($state:ty): |$a:ident, $b:ident| $join:expr)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Debug)]
        $vis struct $name(pub $state);

        impl $crate::law::join::Join for $name {
            fn join(&self, other: &Self) -> Self {
                let join: fn(&$state, &$state) -> $state = |$a, $b| $join;
                Self(join(&self.0, &other.0))
            }
            fn encode(&self) -> Vec<u8> {
                serde_json::to_vec(&self.0).unwrap_or_default()
            }
            fn decode(bytes: &[u8]) -> Option<Self> {
                serde_json::from_slice(bytes).ok().map(Self)
            }
        }
    )*};
}
pub(super) use joins;

/// Time in ms, replica or rank, value.
type Written = (u64, u8, i64);

joins! {
    MarginWindow(Written): |a, b| match a.0.abs_diff(b.0) < 5 && a.1 != b.1 {
        true => if a.1 > b.1 { *a } else { *b },
        false => (*a).max(*b),
    }
    NoTieBreak(Written): |a, b| if b.0 > a.0 { *b } else { *a }
    LastToArrive(Written): |a, b| if b.0 >= a.0 { *b } else { *a }
    LocalWins(Written): |a, b| match a.0.cmp(&b.0) {
        Ordering::Equal if [a.1, b.1].contains(&here()) => if a.1 == here() { *a } else { *b },
        _ => (*a).max(*b),
    }
    Concatenated(String): |a, b| format!("{a}{b}")
    Averaged(i64): |a, b| (a + b) / 2
    LinesInOrder(Vec<String>): |a, b| {
        let new = b.iter().filter(|line| !a.contains(line));
        a.iter().chain(new).cloned().collect()
    }
    SequenceNumber((u64, i64)): |a, b| if b.0 > a.0 { *b } else { *a }
    DeltaSum(i64): |a, b| a + b
    NoTombstones((BTreeSet<u8>, BTreeSet<u8>)): |a, b| {
        let removed = &a.1 | &b.1;
        (&(&a.0 | &b.0) - &removed, BTreeSet::new())
    }
    MergePatch(BTreeMap<String, Option<i64>>): |a, b| {
        let mut patched = a.clone();
        patched.extend(b.clone());
        patched.retain(|_, value| value.is_some());
        patched
    }
    FloatEquality(f64): |a, b| if a >= b { *a } else { *b }
    Tolerance((f64, u8)): |a, b| match (a.0 - b.0).abs() < 0.5 {
        true => if (a.1, a.0) <= (b.1, b.0) { *a } else { *b },
        false => if a.0 > b.0 { *a } else { *b },
    }
    DebugHash((u64, BTreeSet<u8>)): |a, b| match a.0.cmp(&b.0) {
        Ordering::Less => b.clone(),
        Ordering::Greater => a.clone(),
        Ordering::Equal => if debug_hash(&a.1) > debug_hash(&b.1) { a.clone() } else { b.clone() },
    }
    StampedByJoin((i64, i64)): |a, b| (Surroundings::current().now.0, a.1.max(b.1))
    FirstExpected(Vec<u8>): |a, b| if first_of(b) > first_of(a) { b.clone() } else { a.max(b).clone() }
    Longest(Vec<u8>): |a, b| if b.len() > a.len() { b.clone() } else { a.clone() }
}

#[expect(clippy::expect_used, reason = "that it panics is the mistake")]
fn first_of(list: &[u8]) -> u8 {
    *list.first().expect("an element")
}

fn here() -> u8 {
    Surroundings::current().replica.0.last().copied().unwrap_or_default()
}

fn debug_hash(set: &BTreeSet<u8>) -> u64 {
    let printed = in_map_order(set.iter().collect(), |item| vec![**item]);
    xxh3_64(format!("{printed:?}").as_bytes())
}

/// A number, compared as text.
#[derive(Clone, PartialEq, Debug)]
struct LexicographicMax(u32);

impl Join for LexicographicMax {
    fn join(&self, other: &Self) -> Self {
        if self.0.to_string() >= other.0.to_string() { self.clone() } else { other.clone() }
    }
    fn encode(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        str::from_utf8(bytes).ok()?.parse().ok().map(Self)
    }
    fn holds(&self, other: &Self) -> bool {
        self.0 >= other.0
    }
}

/// Time in NTP64 units; the bytes have ms.
#[derive(Clone, PartialEq, Debug)]
struct TruncatedTime(Written);

impl Join for TruncatedTime {
    fn join(&self, other: &Self) -> Self {
        Self(self.0.max(other.0))
    }
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&(whole_millis(self.0.0), self.0.1, self.0.2)).unwrap_or_default()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (ms, replica, value) = serde_json::from_slice::<Written>(bytes).ok()?;
        Some(Self((ticks(ms), replica, value)))
    }
}

/// A float that equals itself.
#[derive(Clone, Debug)]
struct Bits(f64);

impl PartialEq for Bits {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

/// The greater of two floats; where neither is, the left.
#[derive(Clone, PartialEq, Debug)]
struct PartialCompare(Bits);

impl Join for PartialCompare {
    fn join(&self, other: &Self) -> Self {
        if self.0.0.partial_cmp(&other.0.0) == Some(Ordering::Less) { other.clone() } else { self.clone() }
    }
    fn encode(&self) -> Vec<u8> {
        self.0.0.to_be_bytes().to_vec()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self(Bits(f64::from_be_bytes(bytes.try_into().ok()?))))
    }
}

/// The greater of two floats in a total order; the bytes are JSON.
#[derive(Clone, PartialEq, Debug)]
struct NanInJson(Bits);

impl Join for NanInJson {
    fn join(&self, other: &Self) -> Self {
        if self.0.0.total_cmp(&other.0.0).is_lt() { other.clone() } else { self.clone() }
    }
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0.0).unwrap_or_default()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().map(|float| Self(Bits(float)))
    }
}

/// The greatest value of each key; reading leaves out the keys of a later version.
#[derive(Clone, PartialEq, Debug)]
struct UnknownDropped(BTreeMap<String, u8>);

impl Join for UnknownDropped {
    fn join(&self, other: &Self) -> Self {
        let mut joined = self.0.clone();
        for (key, value) in &other.0 {
            let slot = joined.entry(key.clone()).or_insert(*value);
            *slot = (*slot).max(*value);
        }
        Self(joined)
    }
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).unwrap_or_default()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut read: BTreeMap<String, u8> = serde_json::from_slice(bytes).ok()?;
        read.retain(|key, _| key != "new");
        Some(Self(read))
    }
}

fn writes() -> impl Strategy<Value = Written> {
    (0..20_u64, 0..3_u8, 0..4_i64)
}

fn sets() -> impl Strategy<Value = BTreeSet<u8>> {
    btree_set(0..4_u8, 0..4)
}

/// An exhibit of a join, hunted on triples of what the strategy makes.
macro_rules! exhibit {
    ($name:literal, $type:ident, $strategy:expr, $what:literal, $seen:literal) => {
        Exhibit {
            name: $name,
            what: $what,
            seen: $seen,
            hunt: |effort| first(effort, &uniform3($strategy.prop_map($type)), |states| check(states)),
        }
    };
}
pub(super) use exhibit;

pub(super) fn exhibits() -> Vec<Exhibit> {
    let mut all = times();
    all.extend(contents());
    all
}

/// Those that order writes wrongly.
fn times() -> Vec<Exhibit> {
    vec![
        exhibit!(
            "symmetric margin",
            MarginWindow,
            (0..12_u64, 0..4_u8, 0..2_i64),
            "writes less than the margin apart are compared by rank, others by time: not transitive",
            "`PreferNewer` with a margin of error"
        ),
        exhibit!(
            "no tie-break",
            NoTieBreak,
            writes(),
            "the later wall clock wins, and on equal times whoever was there first",
            "`updated_at` columns with a resolution of seconds"
        ),
        exhibit!(
            "tie-break by arrival",
            LastToArrive,
            writes(),
            "the later wall clock wins, and on equal times whoever came last",
            "`INSERT OR REPLACE … WHERE updated_at >= …`"
        ),
        exhibit!(
            "local wins",
            LocalWins,
            writes(),
            "on equal times each machine keeps its own",
            "`KeepLocal` and `ClientWins` conflict strategies"
        ),
        exhibit!(
            "sequence number",
            SequenceNumber,
            (0..4_u64, 0..4_i64),
            "the higher version number wins; two replicas both make version 4",
            "a `version` column counted up on every device"
        ),
        Exhibit {
            name: "time cut to milliseconds",
            what: "one side keeps finer times than the other can read, so what comes back is older",
            seen: "JavaScript dates beside database timestamps",
            hunt: |effort| {
                let written = (0..20_u64, 0..3_u64, 0..3_u8, 0..4_i64);
                let state = written.prop_map(|(ms, off, r, v)| TruncatedTime((ticks(ms) + off, r, v)));
                first(effort, &uniform3(state), |states| check(states))
            },
        },
        exhibit!(
            "stamped by the merge",
            StampedByJoin,
            (0..9_i64, 0..4_i64),
            "the merge sets `updated_at` to now, so every merge is news to somebody",
            "database triggers that touch `updated_at` on sync as well"
        ),
        exhibit!(
            "debug hash",
            DebugHash,
            (0..3_u64, sets()),
            "a tie is broken by a hash of what a debugger would print, which goes through a hash map",
            "content hashes over a serialized `HashMap`"
        ),
    ]
}

/// Those that put contents together wrongly.
fn contents() -> Vec<Exhibit> {
    let mut all = vec![
        exhibit!(
            "greatest number as text",
            LexicographicMax,
            0..200_u32,
            "numbers are compared by their digits, so 9 beats 10",
            "`max()` over a text column"
        ),
        exhibit!(
            "concatenation",
            Concatenated,
            "[ab]{0,3}",
            "both texts are kept, one behind the other, again at every sync",
            "conflicted copies put together by a script"
        ),
        exhibit!(
            "average",
            Averaged,
            -50..50_i64,
            "the mean of two; of three it depends on who met first",
            "position and slider fields"
        ),
        exhibit!(
            "lines in order",
            LinesInOrder,
            vec("[a-c]", 0..4),
            "our lines first, then theirs that we lack",
            "three-way text merges on both sides"
        ),
        exhibit!(
            "sum of deltas",
            DeltaSum,
            -5..9_i64,
            "increments are added when they arrive, and arrive twice",
            "`UPDATE … SET n = n + ?` on a retried request"
        ),
        exhibit!(
            "union without tombstones",
            NoTombstones,
            (sets(), sets()),
            "removals are applied and forgotten, and the next union brings the element back",
            "shopping carts that refill themselves"
        ),
        exhibit!(
            "merge patch",
            MergePatch,
            btree_map("[a-c]", prop::option::of(0..3_i64), 0..3),
            "a null removes the key, leaving nothing that says so",
            "JSON merge patch (RFC 7396) used to sync"
        ),
        exhibit!(
            "float equality",
            FloatEquality,
            floats(),
            "NaN is not equal to itself, so two replicas that hold it never agree",
            "`==` on sensor values"
        ),
        exhibit!(
            "equal within a tolerance",
            Tolerance,
            ((0..12_u8).prop_map(|n| f64::from(n) / 4.0), 0..3_u8),
            "floats that are nearly equal count as equal: not transitive",
            "`abs(a - b) < EPSILON`"
        ),
        exhibit!(
            "first element expected",
            FirstExpected,
            vec(0..3_u8, 0..4),
            "compares the first elements, and panics where there is none",
            "`list[0]`"
        ),
        exhibit!(
            "longest wins",
            Longest,
            vec(0..3_u8, 0..4),
            "of two lists of one length each side keeps its own",
            "document merges by size"
        ),
    ];
    all.extend([exhibit!(
        "unknown keys dropped",
        UnknownDropped,
        btree_map("a|b|new", 0..4_u8, 0..3),
        "an older program reads, forgets what it does not know, and writes",
        "strict deserializers in front of a shared document"
    )]);
    all.extend(float_exhibits());
    all
}

fn float_exhibits() -> [Exhibit; 2] {
    [
        Exhibit {
            name: "partial comparison",
            what: "where neither float is greater, the left stays: with NaN on one side, each keeps its own",
            seen: "`partial_cmp(…).unwrap_or(Equal)`",
            hunt: |effort| {
                first(effort, &uniform3(floats().prop_map(|f| PartialCompare(Bits(f)))), |states| {
                    check(states)
                })
            },
        },
        Exhibit {
            name: "NaN in JSON",
            what: "what cannot be written is written as null, and null is not read",
            seen: "`JSON.stringify`",
            hunt: |effort| {
                first(effort, &uniform3(floats().prop_map(|f| NanInJson(Bits(f)))), |states| check(states))
            },
        },
    ]
}
