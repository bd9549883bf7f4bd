//! Proof by machine that replicas converge, for Rivus itself and for merge functions of your own.

pub mod bad_frames;
mod env;
pub mod fuzz;
#[cfg(feature = "laws")]
pub mod law;
pub mod model;
pub mod random;
pub mod sim;
pub mod sim_rules;
pub mod sometimes;
#[cfg(feature = "laws")]
pub mod strategy;
#[cfg(feature = "laws")]
pub mod zoo;

/// The crate that the strategies are of, so that a test needs no other dependency.
#[cfg(feature = "laws")]
pub use proptest;
