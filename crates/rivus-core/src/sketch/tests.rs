use proptest::prelude::*;

use super::*;

/// Keys that a seed makes.
fn keys(seed: u64, count: usize) -> impl Iterator<Item = Key> {
    (1..=count as u64).map(move |n| Key(mix(seed.wrapping_mul(STEP).wrapping_add(n.wrapping_mul(STEP)))))
}

fn sketch(keys: impl Iterator<Item = Key>) -> Sketch {
    let mut sketch = Sketch::default();
    keys.for_each(|key| sketch.add(key));
    sketch
}

/// Two sets with some keys in common.
fn sets(seed: u64, common: usize, ours: usize, theirs: usize) -> ([Sketch; 2], Difference) {
    let all: Vec<_> = keys(seed, common + ours + theirs).collect();
    let (shared, rest) = all.split_at(common);
    let (own, other) = rest.split_at(ours);
    let of = |own: &[Key]| sketch(shared.iter().chain(own).copied());
    let truth = Difference { ours: own.iter().copied().collect(), theirs: other.iter().copied().collect() };
    assert_eq!((truth.ours.len(), truth.theirs.len()), (ours, theirs), "no key twice");
    ([of(own), of(other)], truth)
}

/// How many symbols it takes.
fn needed([ours, theirs]: &[Sketch; 2]) -> Option<usize> {
    let apart = |count: usize| difference(&ours.symbols()[..count], &theirs.symbols()[..count]).is_some();
    (1..=SYMBOLS_MAX).find(|count| apart(*count))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// As many symbols as there are tell all of the difference and nothing else, or that they are too few.
    #[test]
    fn the_difference_is_found_whole_or_more_symbols_are_wanted(
        seed in any::<u64>(),
        common in 0..3000_usize,
        ours in 0..1000_usize,
        theirs in 0..1000_usize,
        few in 1..200_usize,
    ) {
        let ([one, two], truth) = sets(seed, common, ours, theirs);
        if let Some(found) = difference(&one.symbols()[..few], &two.symbols()[..few]) {
            prop_assert_eq!(&found, &truth);
        }
        let enough = (2 * (ours + theirs) + 128).min(SYMBOLS_MAX);
        let found = difference(&one.symbols()[..enough], &two.symbols()[..enough]);
        prop_assert_eq!(found, Some(truth));
    }

    /// Whatever somebody makes up, it ends, and finds no more keys than there are symbols.
    #[test]
    fn symbols_of_a_liar_end(
        lies in prop::collection::vec((0..4_u64, 0..4_u64, any::<bool>()), 0..200),
        seed in any::<u64>(),
    ) {
        let mut theirs: Vec<Symbol> = lies.iter().map(|(key, count, sound)| {
            let key = Key(mix(*key));
            Symbol { keys: key.0, checks: if *sound { key.check() } else { 7 }, count: *count }
        }).collect();
        let ours = sketch(keys(seed, 3));
        for symbols in [&theirs.clone()[..], ours.symbols()] {
            if let Some(found) = difference(ours.symbols(), symbols) {
                prop_assert!(found.ours.len() + found.theirs.len() <= symbols.len());
            }
        }
        theirs.reverse();
        prop_assert!(difference(&theirs, &theirs) == Some(Difference::default()));
    }
}

#[test]
fn more_than_a_sketch_can_tell_apart_is_told_to_be_more() {
    let ([one, two], _) = sets(1, 100, 3000, 3000);
    assert_eq!(difference(one.symbols(), two.symbols()), None);
}

#[test]
fn equal_sets_differ_in_nothing_by_their_first_symbol() {
    let ([one, two], truth) = sets(1, 5000, 0, 0);
    assert_eq!(difference(&one.symbols()[..1], &two.symbols()[..1]), Some(truth));
}

/// What the bound on bytes rests on: twenty keys that differ take 33 symbols in the mean, and 96 nearly always.
#[test]
fn twenty_keys_take_few_symbols() {
    let mut all: Vec<usize> = (0..1000).filter_map(|seed| needed(&sets(seed, 20, 10, 10).0)).collect();
    all.sort_unstable();
    let mean = all.iter().sum::<usize>() / all.len();
    assert!(all.len() == 1000 && mean <= 35, "{mean} in the mean");
    assert!(all[990] <= 64 && all[997] <= 96, "{} of a thousand, {}", all[990], all[997]);
}

#[test]
fn thousands_take_less_than_one_and_a_half_symbols_each() {
    for seed in 0..5 {
        let ([one, two], truth) = sets(seed, 1000, 1000, 1000);
        let found = difference(&one.symbols()[..3000], &two.symbols()[..3000]);
        assert_eq!(found, Some(truth));
    }
}

/// A key falls on place i with a chance of 1 in 1 + i/2.
#[test]
fn keys_fall_on_places_as_often_as_they_should() {
    let count = 20_000;
    let symbols = sketch(keys(3, count));
    for (place, symbol) in symbols.symbols().iter().enumerate().take(200) {
        let expected = count as f64 / (1.0 + place as f64 / 2.0);
        let off = (symbol.count as f64 - expected).abs();
        assert!(off <= 5.0 * expected.sqrt(), "place {place}: {}, not {expected}", symbol.count);
    }
}

/// Another implementation must fall on the same places.
#[test]
fn the_places_of_keys_are_these() {
    let places = |key: u64| Key(key).places().take(8).collect::<Vec<_>>();
    assert_eq!(places(0), [0, 1, 14, 15, 50, 89, 216, 247]);
    assert_eq!(places(1), [0, 1, 2, 4, 7, 9, 10, 15]);
    assert_eq!(places(0xfeed_beef), [0, 1, 7, 74, 199, 574, 729, 1293]);
    assert_eq!((Key(0).check(), Key(1).check()), (0xe220_a839, 0x910a_2dec));
}
