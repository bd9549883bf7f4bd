//! Resolvers that every replica resolves alike.

use std::collections::{BTreeMap, BTreeSet};

use rivus_core::schema::Candidate;
use rivus_core::value::Value;

use super::resolvers::exhibit;
use super::{Exhibit, first, text};
use crate::law::resolver::{check, oldest_first};
use crate::strategy::candidates;

fn by<K: Ord>(candidates: &[Candidate<'_>], key: impl Fn(&Candidate<'_>) -> K) -> Value {
    candidates.iter().max_by_key(|c| key(c)).map_or(Value::Null, |c| c.value.clone())
}

fn last(candidates: &[Candidate<'_>]) -> Value {
    candidates.last().map_or(Value::Null, |c| c.value.clone())
}

fn most_frequent(candidates: &[Candidate<'_>]) -> Value {
    let mut counts: BTreeMap<&Value, usize> = BTreeMap::new();
    candidates.iter().for_each(|c| *counts.entry(c.value).or_default() += 1);
    counts
        .into_iter()
        .max_by_key(|(value, count)| (*count, *value))
        .map_or(Value::Null, |(value, _)| value.clone())
}

fn union_of_lists(candidates: &[Candidate<'_>]) -> Value {
    let lists =
        candidates.iter().filter_map(|c| if let Value::List(list) = c.value { Some(list) } else { None });
    let all: BTreeSet<&Value> = lists.flatten().collect();
    Value::List(all.into_iter().cloned().collect())
}

pub(super) fn exhibits() -> Vec<Exhibit> {
    vec![
        exhibit!("newest", |c: &[Candidate<'_>]| by(c, |c| c.stamp), "by the whole stamp", "the default"),
        exhibit!(
            "oldest",
            |c: &[Candidate<'_>]| by(c, |c| std::cmp::Reverse(c.stamp)),
            "by the whole stamp",
            "bookings"
        ),
        exhibit!(
            "rank, then newest",
            |c: &[Candidate<'_>]| by(c, |c| (c.rank, c.stamp)),
            "a tie-break",
            "approvals"
        ),
        exhibit!(
            "greatest value",
            |c: &[Candidate<'_>]| by(c, |c| c.value.clone()),
            "by the total order",
            "bids"
        ),
        exhibit!(
            "longest, then newest",
            |c: &[Candidate<'_>]| by(c, |c| (text(c.value).len(), c.stamp)),
            "a tie-break",
            "notes"
        ),
        exhibit!(
            "last, oldest first",
            oldest_first(last),
            "leans on the order that the engine promises",
            "the default"
        ),
        exhibit!("most frequent, then greatest", most_frequent, "an ordered map and a tie-break", "voting"),
        exhibit!("union of lists", union_of_lists, "an ordered set, no deeper than its parts", "labels"),
    ]
}
