//! Resolvers that different replicas resolve differently, or not at all.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use rivus_core::clock::whole_millis;
use rivus_core::schema::Candidate;
use rivus_core::value::Value;

use super::{Exhibit, first, float, in_locale, in_map_order, text};
use crate::law::Surroundings;
use crate::law::resolver::check;
use crate::strategy::candidates;

fn value_of(candidate: Option<&Candidate<'_>>) -> Value {
    candidate.map_or(Value::Null, |c| c.value.clone())
}

fn first_to_arrive(candidates: &[Candidate<'_>]) -> Value {
    value_of(candidates.first())
}

fn rank_without_tie_break(candidates: &[Candidate<'_>]) -> Value {
    value_of(candidates.iter().max_by_key(|c| c.rank))
}

fn mean(candidates: &[Candidate<'_>]) -> Value {
    let sum = candidates.iter().fold(0.0, |sum, c| sum + float(c.value));
    let count: f64 = candidates.iter().map(|_| 1.0).sum();
    Value::Float(sum / count)
}

/// `a > b` in JavaScript: a number and a text are compared as numbers, two texts as texts.
fn greater_in_javascript(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Text(text) if text.is_empty() => 0.0,
        Value::Text(text) => text.parse().unwrap_or(f64::NAN),
        other => float(other),
    };
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => a > b,
        _ => number(a) > number(b),
    }
}

fn javascript_max(candidates: &[Candidate<'_>]) -> Value {
    let greatest = candidates
        .iter()
        .reduce(|best, next| if greater_in_javascript(next.value, best.value) { next } else { best });
    value_of(greatest)
}

#[expect(clippy::unwrap_used, reason = "that it panics is the mistake")]
fn greatest_float(candidates: &[Candidate<'_>]) -> Value {
    value_of(
        candidates
            .iter()
            .max_by(|a, b| float(a.value).partial_cmp(&float(b.value)).unwrap().then(a.stamp.cmp(&b.stamp))),
    )
}

#[expect(clippy::panic, reason = "that it panics is the mistake")]
fn sum_of_integers(candidates: &[Candidate<'_>]) -> Value {
    let int = |c: &Candidate<'_>| {
        if let Value::Int(n) = c.value { i128::from(*n) } else { panic!("not an integer") }
    };
    let sum: i128 = candidates.iter().map(int).sum();
    i64::try_from(sum).map_or(Value::Null, Value::Int)
}

fn minutes_ago(candidates: &[Candidate<'_>]) -> Value {
    let newest = candidates.iter().map(|c| whole_millis(c.stamp.time)).max().unwrap_or_default();
    let age_ms = Surroundings::current().now.0.saturating_sub_unsigned(newest);
    Value::Int(age_ms / 60_000)
}

fn most_frequent(candidates: &[Candidate<'_>]) -> Value {
    let mut counts: BTreeMap<&Value, usize> = BTreeMap::new();
    candidates.iter().for_each(|c| *counts.entry(c.value).or_default() += 1);
    let counted = in_map_order(counts.into_iter().collect(), |(value, _)| value.to_bytes());
    counted.into_iter().max_by_key(|(_, count)| *count).map_or(Value::Null, |(value, _)| value.clone())
}

fn own_write(candidates: &[Candidate<'_>]) -> Value {
    let here = Surroundings::current().replica;
    let own = candidates.iter().find(|c| c.stamp.replica == here);
    value_of(own.or_else(|| candidates.iter().max_by_key(|c| c.stamp)))
}

fn last_in_alphabet(candidates: &[Candidate<'_>]) -> Value {
    let key = |c: &Candidate<'_>| (in_locale(text(c.value)), c.stamp);
    value_of(candidates.iter().max_by_key(|c| key(c)))
}

fn all_in_a_list(candidates: &[Candidate<'_>]) -> Value {
    let mut all: Vec<_> = candidates.iter().map(|c| c.value.clone()).collect();
    all.sort();
    Value::List(all)
}

fn newest_unless_tied(candidates: &[Candidate<'_>]) -> Value {
    let newest = candidates.iter().reduce(|best, next| match next.stamp.time.cmp(&best.stamp.time) {
        Ordering::Greater => next,
        _ => best,
    });
    value_of(newest)
}

fn with_most_marks(candidates: &[Candidate<'_>]) -> Value {
    let width = |c: &Candidate<'_>| text(c.value).len();
    value_of(candidates.iter().max_by_key(|c| width(c)))
}

macro_rules! exhibit {
    ($name:literal, $resolver:expr, $what:literal, $seen:literal) => {
        Exhibit {
            name: $name,
            what: $what,
            seen: $seen,
            hunt: |effort| first(effort, &candidates(), |writes| check(&$resolver, writes)),
        }
    };
}
pub(super) use exhibit;

pub(super) fn exhibits() -> Vec<Exhibit> {
    vec![
        exhibit!(
            "first to arrive",
            first_to_arrive,
            "takes the first candidate without saying by which order",
            "`conflicts[0]`"
        ),
        exhibit!(
            "rank without tie-break",
            rank_without_tie_break,
            "of two candidates of the highest rank it takes whichever comes last",
            "\"admin wins\", and two admins"
        ),
        exhibit!(
            "newest without tie-break",
            newest_unless_tied,
            "of two candidates of one time it takes whichever comes first",
            "`max(key=updated_at)`"
        ),
        exhibit!(
            "longest without tie-break",
            with_most_marks,
            "of two texts of one length it takes whichever comes last",
            "merging notes by size"
        ),
        exhibit!(
            "mean of floats",
            mean,
            "floats are added in the order in which they come, and rounding depends on it",
            "averaged readings"
        ),
        exhibit!(
            "JavaScript's greater-than",
            javascript_max,
            "\"10\" < \"9\" as texts, 9 < \"10\" as numbers, and \"9a\" is neither: no order at all",
            "`values.sort()` on mixed input"
        ),
        exhibit!(
            "unwrapped comparison",
            greatest_float,
            "`partial_cmp(…).unwrap()` panics at NaN, on every replica, at every read",
            "sorting floats"
        ),
        exhibit!(
            "one type expected",
            sum_of_integers,
            "panics at a value of another type, which an older or hostile peer may send",
            "`as_i64().unwrap()`"
        ),
        exhibit!(
            "minutes ago",
            minutes_ago,
            "asks the clock, so what shows depends on when and where one looks",
            "\"last seen\" fields"
        ),
        exhibit!(
            "most frequent, by a hash map",
            most_frequent,
            "of values that are equally frequent the map's order decides",
            "voting"
        ),
        exhibit!("own write first", own_write, "each machine prefers what was written on it", "`ClientWins`"),
        exhibit!(
            "alphabet of the machine",
            last_in_alphabet,
            "`Ä` sorts with `A` on one machine and after `Z` on another",
            "`localeCompare`, collations"
        ),
        exhibit!(
            "list around the candidates",
            all_in_a_list,
            "a value nested to the limit is nested deeper in the list, and cannot be stored",
            "keeping all versions"
        ),
    ]
}
