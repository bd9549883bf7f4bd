//! Fuzzing on stable and with cargo-fuzz alike: one check over bytes, fed from a corpus.
//!
//! A target is a function that takes any bytes and panics if something is wrong. [`fuzz_merge!`](crate::fuzz_merge)
//! makes a program of it; [`run`] feeds it samples, damaged samples and random bytes in a test. Everything comes from
//! the seed, which is printed.

use std::path::Path;

use crate::random::Random;

impl Random {
    fn byte(&mut self) -> u8 {
        self.next_u64().to_be_bytes().first().copied().unwrap_or_default()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    /// The sample with a few faults: bytes changed, put in, taken out, or a part of another sample.
    fn damage(&mut self, sample: &[u8], other: &[u8]) -> Vec<u8> {
        let mut data = sample.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(data.len());
            match (self.below(6), data.get_mut(at)) {
                (0, Some(byte)) => *byte = self.byte(),
                (1, Some(byte)) => *byte ^= 1 << self.below(8),
                (2, _) => data.insert(at, self.byte()),
                (3, Some(_)) => drop(data.remove(at)),
                (4, _) => data.truncate(at),
                _ => {
                    let from = self.below(other.len());
                    let len = self.below(other.len() - from).min(64);
                    data.splice(at..at, other.iter().skip(from).take(len).copied());
                }
            }
        }
        data
    }
}

/// The seed that the environment variable `RIVUS_SEED` names, or 1.
///
/// # Panics
/// If the variable is no number.
#[must_use]
pub fn seed() -> u64 {
    crate::env::number("RIVUS_SEED", 1)
}

/// Feeds a check all samples and then `inputs` damaged samples and random bytes.
///
/// # Panics
/// If the check does; the seed was printed before.
pub fn run(check: impl Fn(&[u8]), samples: &[Vec<u8>], seed: u64, inputs: usize) {
    println!("repeat with RIVUS_SEED={seed}");
    let mut random = Random::new(seed);
    samples.iter().for_each(|sample| check(sample));
    for _ in 0..inputs {
        let (one, other) = (random.below(samples.len()), random.below(samples.len()));
        let data = match (samples.get(one), samples.get(other)) {
            (Some(sample), Some(other)) if random.below(8) > 0 => random.damage(sample, other),
            _ => {
                let len = random.below(200);
                random.bytes(len)
            }
        };
        check(&data);
    }
}

/// The files of a folder, by name: the corpus of a target.
///
/// # Panics
/// If the folder cannot be read.
#[must_use]
#[expect(clippy::expect_used, reason = "without its corpus a target tests little")]
pub fn corpus(folder: &Path) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(folder).expect("the corpus is a folder");
    let mut paths: Vec<_> = files.map(|file| file.expect("the corpus can be read").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("the corpus can be read")).collect()
}

/// The program of a target without cargo-fuzz: checks the files named on the command line, or without any,
/// 100,000 random inputs.
///
/// # Panics
/// If the check does, or a file cannot be read.
#[expect(clippy::expect_used, reason = "a program for a developer's terminal")]
pub fn main(check: impl Fn(&[u8])) {
    let paths: Vec<_> = std::env::args_os().skip(1).collect();
    for path in &paths {
        println!("{}", path.display());
        check(&std::fs::read(path).expect("the file can be read"));
    }
    if paths.is_empty() {
        run(check, &[], seed(), 100_000);
    }
}

/// Makes a fuzz target of a check over bytes: for cargo-fuzz, and without it a program that repeats the files named on
/// the command line. The crate must start with `#![cfg_attr(fuzzing, no_main)]` and, for cargo-fuzz, depend on
/// `libfuzzer-sys`.
///
/// ```
/// /// The greater of two is a merge: commutative, associative, idempotent.
/// fn laws(data: &[u8]) {
///     if let [a, b, c, ..] = data {
///         assert_eq!(a.max(b).max(c), a.max(b.max(c)));
///         assert_eq!(a.max(b), b.max(a));
///     }
/// }
/// rivus_testkit::fuzz_merge!(laws);
/// ```
#[macro_export]
macro_rules! fuzz_merge {
    ($check:expr) => {
        #[cfg(fuzzing)]
        ::libfuzzer_sys::fuzz_target!(|data: &[u8]| $check(data));

        #[cfg(not(fuzzing))]
        fn main() {
            $crate::fuzz::main($check);
        }
    };
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn fed(seed: u64) -> Vec<Vec<u8>> {
        let fed = RefCell::new(Vec::new());
        let samples = [b"a sample".to_vec(), Vec::new(), b"another".to_vec()];
        run(|data| fed.borrow_mut().push(data.to_vec()), &samples, seed, 500);
        fed.into_inner()
    }

    #[test]
    fn inputs_come_from_the_seed_alone_and_begin_with_the_samples() {
        assert_eq!(fed(5), fed(5));
        assert_ne!(fed(5), fed(6));
        assert_eq!((fed(5).len(), fed(5)[0].as_slice()), (503, &b"a sample"[..]));
        let different: std::collections::BTreeSet<_> = fed(5).into_iter().collect();
        assert!(different.len() > 300, "{}", different.len());
    }
}
