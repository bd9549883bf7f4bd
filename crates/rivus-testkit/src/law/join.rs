//! The laws of a type that merges by itself: a join-semilattice with one byte form.
//!
//! Owns [`Join`] and its checks. Source: Shapiro et al., *Conflict-free Replicated Data Types* (2011), section 2.2.

use std::fmt::Debug;

use super::{Broken, Law, Surroundings, caught};

/// A type whose states merge.
pub trait Join: Clone + PartialEq + Debug {
    /// The least state that holds both.
    #[must_use]
    fn join(&self, other: &Self) -> Self;

    /// The state as bytes: equal states, equal bytes.
    fn encode(&self) -> Vec<u8>;

    /// The state back, or `None` if the bytes are none.
    fn decode(bytes: &[u8]) -> Option<Self>;

    /// Whether this state holds all of `other`. Say it in the words of the type ("is at least as great", "has all
    /// its elements") where you can: the default asks the join itself, and so finds less.
    fn holds(&self, other: &Self) -> bool {
        self.join(other) == *self
    }
}

/// The laws, in the order in which [`check`] looks.
pub const LAWS: [Law; 9] = [
    Law::Total,
    Law::Reflexive,
    Law::Deterministic,
    Law::ClockFree,
    Law::Commutative,
    Law::Associative,
    Law::Idempotent,
    Law::UpperBound,
    Law::RoundTrip,
];

/// Checks every law on all pairs and triples of `states`. Three states are enough, more take the cube of the time.
///
/// # Errors
/// The first law that does not hold.
pub fn check<S: Join>(states: &[S]) -> Result<(), Broken> {
    LAWS.into_iter().try_for_each(|law| holds(law, states))
}

/// Checks one law of [`LAWS`] on all pairs and triples of `states`; the others hold of anything.
///
/// # Errors
/// That it does not hold, or that something panics.
pub fn holds<S: Join>(law: Law, states: &[S]) -> Result<(), Broken> {
    for a in states {
        match law {
            Law::Reflexive => equal(law, &[("a", a)], ("a", a.clone()), ("a again", a.clone()))?,
            Law::RoundTrip => round_trip(a)?,
            Law::Idempotent => equal(law, &[("a", a)], ("a ∨ a", join(a, a)?), ("a", a.clone()))?,
            _ => {}
        }
        for b in states {
            pair(law, a, b)?;
            if matches!(law, Law::Associative | Law::Deterministic | Law::Total) {
                states.iter().try_for_each(|c| triple(law, a, b, c))?;
            }
        }
    }
    Ok(())
}

fn pair<S: Join>(law: Law, a: &S, b: &S) -> Result<(), Broken> {
    let inputs = [("a", a), ("b", b)];
    let ab = join(a, b)?;
    match law {
        Law::Commutative => equal(law, &inputs, ("a ∨ b", ab), ("b ∨ a", join(b, a)?)),
        Law::Idempotent => {
            let again = ("(a ∨ b) ∨ b", join(&ab, b)?);
            equal(law, &inputs, again, ("a ∨ b", ab))
        }
        Law::Deterministic | Law::ClockFree => {
            let elsewhere = if law == Law::ClockFree { Surroundings::LATER } else { Surroundings::THERE };
            let there = elsewhere.around(|| join(a, b))?;
            let bytes = there.encode();
            equal(law, &inputs, ("a ∨ b", ab.clone()), ("a ∨ b on another machine or day", there))?;
            same_bytes(law, &inputs, ("the bytes of a ∨ b", ab.encode()), ("those made elsewhere", bytes))
        }
        Law::UpperBound => {
            let held =
                caught(|| (ab.holds(a), ab.holds(b))).map_err(|text| panicked(&inputs, "holds", &text))?;
            if held == (true, true) {
                return Ok(());
            }
            let lost = if held.0 { "does a ∨ b hold b?" } else { "does a ∨ b hold a?" };
            Err(Broken::new(law, &inputs, &[("a ∨ b", &ab), (lost, &false)]))
        }
        Law::Total => encoded(&inputs, &ab).map(drop),
        _ => Ok(()),
    }
}

fn triple<S: Join>(law: Law, a: &S, b: &S, c: &S) -> Result<(), Broken> {
    let inputs = [("a", a), ("b", b), ("c", c)];
    let left = join(&join(a, b)?, c)?;
    let right = join(a, &join(b, c)?)?;
    match law {
        Law::Associative => equal(law, &inputs, ("(a ∨ b) ∨ c", left), ("a ∨ (b ∨ c)", right)),
        // States that differ are another law's concern; equal ones must not show how they were made.
        Law::Deterministic if left == right => {
            let (one, two) = (encoded(&inputs, &left)?, encoded(&inputs, &right)?);
            same_bytes(law, &inputs, ("the bytes of (a ∨ b) ∨ c", one), ("those of a ∨ (b ∨ c)", two))
        }
        _ => Ok(()),
    }
}

fn round_trip<S: Join>(a: &S) -> Result<(), Broken> {
    let inputs = [("a", a)];
    let bytes = encoded(&inputs, a)?;
    let back = caught(|| S::decode(&bytes)).map_err(|text| panicked(&inputs, "decode(encode(a))", &text))?;
    let Some(back) = back else {
        return Err(Broken::new(Law::RoundTrip, &inputs, &[("decode(encode(a))", &"nothing")]));
    };
    let again = encoded(&inputs, &back)?;
    equal(Law::RoundTrip, &inputs, ("decode(encode(a))", back), ("a", a.clone()))?;
    same_bytes(Law::RoundTrip, &inputs, ("encode(a)", bytes), ("encode(decode(encode(a)))", again))
}

fn join<S: Join>(a: &S, b: &S) -> Result<S, Broken> {
    caught(|| a.join(b)).map_err(|text| panicked(&[("a", a), ("b", b)], "a ∨ b", &text))
}

fn encoded<S: Join>(inputs: &[(&str, &S)], state: &S) -> Result<Vec<u8>, Broken> {
    caught(|| state.encode()).map_err(|text| panicked(inputs, "encode", &text))
}

fn panicked<S: Join>(inputs: &[(&str, &S)], how: &str, text: &str) -> Broken {
    Broken::new(Law::Total, inputs, &[(how, &text)])
}

fn equal<S: Join>(law: Law, inputs: &[(&str, &S)], one: (&str, S), two: (&str, S)) -> Result<(), Broken> {
    if one.1 == two.1 {
        return Ok(());
    }
    Err(Broken::new(law, inputs, &[(one.0, &one.1), (two.0, &two.1)]))
}

fn same_bytes<S: Join>(
    law: Law,
    inputs: &[(&str, &S)],
    one: (&str, Vec<u8>),
    two: (&str, Vec<u8>),
) -> Result<(), Broken> {
    if one.1 == two.1 { Ok(()) } else { Err(Broken::new(law, inputs, &[(one.0, &one.1), (two.0, &two.1)])) }
}
