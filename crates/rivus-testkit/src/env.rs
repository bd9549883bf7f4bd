//! Numbers from the environment.

use std::env::{VarError, var};
use std::fmt::Display;
use std::str::FromStr;

/// The number that the environment variable `name` holds, or `usual` if there is none.
///
/// # Panics
/// If it holds something else: another number must not pass for it.
pub(crate) fn number<T: FromStr<Err: Display>>(name: &str, usual: T) -> T {
    read(name, var(name), usual)
}

fn read<T: FromStr<Err: Display>>(name: &str, variable: Result<String, VarError>, usual: T) -> T {
    match variable {
        Ok(text) => text.trim().parse().unwrap_or_else(|error| panic!("{name} is {text:?}: {error}")),
        Err(VarError::NotPresent) => usual,
        Err(error) => panic!("{name}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_or_the_usual_one_taken() {
        assert_eq!(read("SEED", Ok(" 42".to_owned()), 7_u64), 42);
        assert_eq!(read("SEED", Err(VarError::NotPresent), 7_u64), 7);
    }

    #[test]
    #[should_panic(expected = "SEED is \"0x2a\": invalid digit")]
    fn what_is_no_number_does_not_pass_for_the_usual_one() {
        let _ = read("SEED", Ok("0x2a".to_owned()), 7_u64);
    }
}
