//! Merges and rules that look right and are not, and some that are.
//!
//! Owns the exhibits. [`broken`] lists mistakes that are made again and again, each small enough to read at a glance;
//! the laws catch every one of them within [`CASES_MAX`] inputs. [`sound`] lists what the laws must not complain
//! about. So the zoo checks the checks: a law that no exhibit breaks has never been seen to work. It is also a list of
//! what to look for in a merge of your own.

mod custom_rules;
#[cfg(test)]
mod engine_rules;
mod joins;
mod merges;
mod registers;
mod resolvers;
mod rules;
mod sound_joins;
mod sound_resolvers;
mod sound_rules;

use std::collections::BTreeSet;

use proptest::strategy::{Strategy, ValueTree};
use rivus_core::value::Value;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use custom_rules::OneStar;
pub use registers::{Engine, Entities, Floor, Register};
pub use sound_joins::{
    Enabled, Greatest, GreatestFloat, GrowOnlyCounter, GrowOnlySet, LatestOfEach, Least, Newest,
    ObservedRemoveSet, PnCounter,
};
pub use sound_rules::{AtMostOne, Bound, Cascade, Nullify, StopAfterStart, Unique};

use crate::law::{Broken, Effort, Surroundings};

/// A merge, a resolver or a rule with what the laws say about it.
#[derive(Clone, Copy, Debug)]
pub struct Exhibit {
    /// Its name, in words.
    pub name: &'static str,
    /// The mistake, or what is right about it.
    pub what: &'static str,
    /// Where it is met.
    pub seen: &'static str,
    hunt: fn(Effort) -> Option<Caught>,
}

/// An input on which a law does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caught {
    /// Which input of the run, from 1.
    pub case: u32,
    /// What it breaks.
    pub broken: Broken,
}

impl Exhibit {
    /// The first input that breaks a law, or `None` if none does.
    #[must_use]
    pub fn hunt(&self, effort: Effort) -> Option<Caught> {
        (self.hunt)(effort)
    }
}

/// Within how many inputs every mistake is caught.
pub const CASES_MAX: u32 = 1000;

/// The mistakes.
#[must_use]
pub fn broken() -> Vec<Exhibit> {
    [
        joins::exhibits(),
        resolvers::exhibits(),
        merges::exhibits(),
        rules::exhibits(),
        custom_rules::exhibits(),
    ]
    .concat()
}

/// What is right.
#[must_use]
pub fn sound() -> Vec<Exhibit> {
    [
        sound_joins::exhibits(),
        sound_resolvers::exhibits(),
        registers::exhibits(),
        sound_rules::exhibits(),
        custom_rules::sound(),
    ]
    .concat()
}

/// The first of the inputs on which `check` fails.
fn first<S: Strategy>(
    effort: Effort,
    strategy: &S,
    check: impl Fn(&S::Value) -> Result<(), Broken>,
) -> Option<Caught> {
    let mut runner = effort.runner();
    (1..=effort.cases).find_map(|case| {
        let input = strategy.new_tree(&mut runner).ok()?.current();
        check(&input).err().map(|broken| Caught { case, broken })
    })
}

/// The items in the order in which a hash map with random keys would go through them: another one on each machine.
fn in_map_order<T>(mut items: Vec<T>, bytes: impl Fn(&T) -> Vec<u8>) -> Vec<T> {
    let salt = Surroundings::current().salt;
    items.sort_by_cached_key(|item| xxh3_64_with_seed(&bytes(item), salt));
    items
}

/// Two values as a computer set up in German or Swedish sorts them: `Ä` with `A`, or after `Z`.
fn in_locale(text: &str) -> String {
    let umlaut = if Surroundings::current().salt.is_multiple_of(2) { "a" } else { "zz" };
    text.to_lowercase().replace(['ä', 'å'], umlaut)
}

/// The text of a value, as its author typed it.
fn text(value: &Value) -> &str {
    if let Value::Text(text) = value { text } else { "" }
}

/// A number as a float; all else is 0.
fn float(value: &Value) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "that this loses is part of the mistakes")]
    match value {
        Value::Int(int) => *int as f64,
        Value::Float(float) => *float,
        _ => 0.0,
    }
}

/// The names, to see that none is there twice.
#[must_use]
pub fn names() -> BTreeSet<&'static str> {
    broken().iter().chain(&sound()).map(|exhibit| exhibit.name).collect()
}

#[cfg(test)]
mod tests;
