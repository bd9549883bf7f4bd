//! The laws of a resolver: a function from the candidates of one register to the value that shows.
//!
//! Owns the checks. The engine hands candidates over oldest first, so a resolver may lean on that order; then say so
//! by testing it through [`oldest_first`]. A resolver that passes bare needs no order at all.

use rivus_core::clock::Stamp;
use rivus_core::schema::Candidate;
use rivus_core::value::Value;

use super::{Broken, Law, Surroundings, caught};

/// One candidate, with a value of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// When and by whom.
    pub stamp: Stamp,
    /// The writer's authority, 0 without one.
    pub rank: u8,
    /// What was written.
    pub value: Value,
}

impl Write {
    /// The candidate as a resolver sees it.
    #[must_use]
    pub fn candidate(&self) -> Candidate<'_> {
        Candidate { stamp: self.stamp, rank: self.rank, value: &self.value }
    }
}

/// The laws, in the order in which [`check`] looks.
pub const LAWS: [Law; 4] = [Law::Total, Law::Deterministic, Law::ClockFree, Law::OrderFree];

/// Checks every law on these candidates, at least one.
///
/// # Errors
/// The first law that does not hold.
pub fn check(resolver: &impl Fn(&[Candidate<'_>]) -> Value, writes: &[Write]) -> Result<(), Broken> {
    LAWS.into_iter().try_for_each(|law| holds(law, resolver, writes))
}

/// Checks one law of [`LAWS`] on these candidates; the others hold of anything.
///
/// # Errors
/// That it does not hold, or that the resolver panics.
pub fn holds(
    law: Law,
    resolver: &impl Fn(&[Candidate<'_>]) -> Value,
    writes: &[Write],
) -> Result<(), Broken> {
    let candidates: Vec<_> = writes.iter().map(Write::candidate).collect();
    let resolve = |candidates: &[Candidate<'_>]| {
        caught(|| resolver(candidates)).map_err(|text| {
            Broken::new(Law::Total, &[("candidates", &candidates)], &[("the resolver", &text)])
        })
    };
    let value = resolve(&candidates)?;
    let broken = |how: &str, other: &Value| {
        let outcomes: [(&str, &dyn std::fmt::Debug); 2] = [("the resolver", &value), (how, other)];
        Broken::new(law, &[("candidates", &candidates)], &outcomes)
    };
    match law {
        Law::Total if !value.depth_ok() => {
            Err(broken("a value nested deeper than is stored, not one like", &Value::Null))
        }
        Law::Deterministic | Law::ClockFree => {
            let elsewhere = if law == Law::ClockFree { Surroundings::LATER } else { Surroundings::THERE };
            let there = elsewhere.around(|| resolve(&candidates))?;
            if there == value {
                Ok(())
            } else {
                Err(broken("the resolver on another machine or day", &there))
            }
        }
        Law::OrderFree => {
            for order in orders(&candidates) {
                let other = resolve(&order)?;
                if other != value {
                    let stamps: Vec<_> = order.iter().map(|c| c.stamp.to_string()).collect();
                    return Err(broken(
                        &format!("with the candidates in the order {}", stamps.join(", ")),
                        &other,
                    ));
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The resolver with its candidates sorted, oldest first, as the engine hands them over.
///
/// ```
/// use rivus_core::schema::Candidate;
/// use rivus_core::value::Value;
/// use rivus_testkit::law::resolver::oldest_first;
///
/// fn newest(candidates: &[Candidate<'_>]) -> Value {
///     candidates.last().map_or(Value::Null, |c| c.value.clone())
/// }
///
/// rivus_testkit::resolver_laws!(newest_obeys, oldest_first(newest));
/// # fn main() { newest_obeys::prove_all() }
/// ```
pub fn oldest_first(resolver: impl Fn(&[Candidate<'_>]) -> Value) -> impl Fn(&[Candidate<'_>]) -> Value {
    move |candidates| {
        let mut sorted = candidates.to_vec();
        sorted.sort_by_key(|c| c.stamp);
        resolver(&sorted)
    }
}

/// All rotations of the items, and all rotations of their reverse: of up to three items every order.
pub(super) fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    let mut orders = Vec::new();
    let mut order = items.to_vec();
    for _ in 0..2 {
        for _ in 0..items.len() {
            orders.push(order.clone());
            order.rotate_left(1);
        }
        order.reverse();
    }
    orders
}
