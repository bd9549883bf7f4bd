//! Where the seed of a random test comes from.

use std::env::{VarError, var};

/// The seed of a random test: from `RIVUS_TEST_SEED`, else `usual`.
///
/// # Panics
/// If the variable is no number: another seed must not pass for it.
#[must_use]
pub fn seed(usual: u64) -> u64 {
    read(var("RIVUS_TEST_SEED"), usual)
}

fn read(variable: Result<String, VarError>, usual: u64) -> u64 {
    match variable {
        Ok(seed) => seed.parse().unwrap_or_else(|error| panic!("RIVUS_TEST_SEED is {seed:?}: {error}")),
        Err(VarError::NotPresent) => usual,
        Err(error) => panic!("RIVUS_TEST_SEED: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_read_or_the_usual_one_taken() {
        assert_eq!(read(Ok("42".to_owned()), 7), 42);
        assert_eq!(read(Err(VarError::NotPresent), 7), 7);
    }

    #[test]
    #[should_panic(expected = "RIVUS_TEST_SEED is \"0x2a\": invalid digit")]
    fn a_seed_that_is_no_number_does_not_pass_for_the_usual_one() {
        let _ = read(Ok("0x2a".to_owned()), 7);
    }
}
