//! Where the seed of a random test comes from.

/// The seed of a random test: from `RIVUS_TEST_SEED`, else `usual`.
#[must_use]
pub fn seed(usual: u64) -> u64 {
    std::env::var("RIVUS_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(usual)
}
