//! Where two sets differ, told in bytes that grow with the difference and not with the sets.
//!
//! Owns coded symbols and how they are taken apart. A set of keys becomes a row of symbols without end, each the sum of
//! the keys that fall on it: every key on the first, fewer and fewer on later ones. Of two sets' symbols the difference
//! is the row of the keys that only one of them has; a symbol with one key left tells it, which takes it off the others.
//! About 1.4 to 1.8 symbols are needed for each key that differs, and whoever cannot take them apart yet asks for more.
//! It finds faults, not adversaries: whoever lies makes the other find keys that nobody has, and no more of them than
//! there are symbols.
//!
//! After Yang, Gilad and Alizadeh, "Practical Rateless Set Reconciliation" (SIGCOMM 2024), whose mapping this is,
//! computed in integers.

use std::collections::BTreeSet;

/// The most symbols of one sketch. About 2,900 keys that differ can be told apart with them; beyond, reading everything
/// costs little more, and each side holds 24 bytes a symbol meanwhile.
pub const SYMBOLS_MAX: usize = 4096;

/// What stands for a register: the low half of its share of the digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Key(pub u64);

impl Key {
    /// The key of a register with this share of the digest.
    #[must_use]
    pub fn of(share: u128) -> Self {
        Self(u64::try_from(share & u128::from(u64::MAX)).unwrap_or(u64::MAX))
    }

    /// Tells a key from a sum of several.
    fn check(self) -> u32 {
        high(mix(self.0.wrapping_add(STEP)))
    }

    /// The symbols that the key falls on, ascending, from the first on.
    fn places(self) -> impl Iterator<Item = usize> {
        let mut state = self.0.wrapping_add(STEP);
        std::iter::successors(Some(0_u64), move |at| {
            state = state.wrapping_add(STEP);
            next_place(*at, high(mix(state)))
        })
        .filter_map(|at| usize::try_from(at).ok())
    }
}

/// The place after `at`, by a random number: a key falls on place i with a chance of 1 in 1 + i/2, so it passes over all
/// up to j with (at + 1)(at + 2) in (j + 1)(j + 2). `None` beyond the last.
fn next_place(at: u64, random: u32) -> Option<u64> {
    let passed = ((at + 1) * (at + 2)) << 32;
    let least = passed.div_ceil(u64::from(random) + 1);
    // The least number whose product with the next is not below that: one more than the place.
    let root = least.isqrt();
    let place = if root * (root + 1) >= least { root - 1 } else { root };
    Some(place.max(at + 1)).filter(|place| *place < SYMBOLS_MAX as u64)
}

/// The constants of SplitMix64.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(state: u64) -> u64 {
    let state = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ state >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ state >> 31
}

fn high(mixed: u64) -> u32 {
    u32::try_from(mixed >> 32).unwrap_or(u32::MAX)
}

/// The sum of the keys that fall on one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Symbol {
    /// The keys, by exclusive or.
    pub keys: u64,
    /// Their checks, by exclusive or.
    pub checks: u32,
    /// How many they are.
    pub count: u64,
}

/// The first symbols of a set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sketch {
    symbols: Vec<Symbol>,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { symbols: vec![Symbol::default(); SYMBOLS_MAX] }
    }
}

impl Sketch {
    /// Adds a key that is not in the set.
    pub fn add(&mut self, key: Key) {
        let check = key.check();
        for place in key.places() {
            let Some(symbol) = self.symbols.get_mut(place) else { break };
            symbol.keys ^= key.0;
            symbol.checks ^= check;
            symbol.count += 1;
        }
    }

    /// The symbols from the first on: [`SYMBOLS_MAX`] of them.
    #[must_use]
    pub fn symbols(&self) -> &[Symbol] {
        &self.symbols
    }
}

/// The keys that one of two sets has and the other has not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Difference {
    /// Those of this side alone.
    pub ours: BTreeSet<Key>,
    /// Those of the other side alone.
    pub theirs: BTreeSet<Key>,
}

/// A symbol of the difference; the count is theirs less ours.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Cell {
    keys: u64,
    checks: u32,
    count: i64,
}

impl Cell {
    fn between(ours: &Symbol, theirs: &Symbol) -> Self {
        Self {
            keys: ours.keys ^ theirs.keys,
            checks: ours.checks ^ theirs.checks,
            count: theirs.count.wrapping_sub(ours.count).cast_signed(),
        }
    }

    /// Its key, if it is the only one.
    fn only(self) -> Option<Key> {
        let key = Key(self.keys);
        (matches!(self.count, 1 | -1) && key.check() == self.checks).then_some(key)
    }
}

/// Takes two sets apart by as many symbols of both as the shorter list has; `None` if that takes more of them.
#[must_use]
pub fn difference(ours: &[Symbol], theirs: &[Symbol]) -> Option<Difference> {
    let mut cells: Vec<Cell> =
        ours.iter().zip(theirs).map(|(ours, theirs)| Cell::between(ours, theirs)).collect();
    let mut found = Difference::default();
    // No honest difference has more keys than it took symbols; a liar's might never end.
    let mut left = cells.len();
    let mut looked: Vec<usize> = (0..cells.len()).collect();
    while let Some(at) = looked.pop() {
        let Some(cell) = cells.get(at).copied() else { continue };
        let Some(key) = cell.only() else { continue };
        left = left.checked_sub(1)?;
        if cell.count > 0 {
            found.theirs.insert(key)
        } else {
            found.ours.insert(key)
        };
        for place in key.places() {
            let Some(other) = cells.get_mut(place) else { break };
            other.keys ^= key.0;
            other.checks ^= cell.checks;
            other.count = other.count.wrapping_sub(cell.count);
            looked.push(place);
        }
    }
    cells.iter().all(|cell| *cell == Cell::default()).then_some(found)
}

#[cfg(test)]
mod tests;
