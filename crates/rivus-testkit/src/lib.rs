//! Proof by machine that replicas converge, for Rivus itself and for merge functions of your own.

pub mod bad_frames;
pub mod fuzz;
pub mod law;
pub mod model;
pub mod sim;
pub mod strategy;
pub mod zoo;

/// The crate that the strategies are of, so that a test needs no other dependency.
pub use proptest;
