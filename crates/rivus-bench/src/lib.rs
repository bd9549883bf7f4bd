//! How fast and how small Rivus is, each figure beside what bounds it.
//!
//! Owns the workload ([`workload`]), the floors ([`floor`]) and the races between the two ([`race`]). The
//! criterion benches and the `measure` program only run and print them. A failure here is a fault of the
//! measurement, so it panics.

#![expect(clippy::unwrap_used, reason = "a measurement that fails has nothing to say")]
#![expect(clippy::missing_panics_doc, reason = "every function here panics where the measurement fails")]

pub mod floor;
pub mod race;
pub mod workload;
