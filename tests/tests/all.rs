//! Integration tests: several processes, real files, real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod comparison;
mod crash;
mod cuts;
#[cfg(target_os = "linux")]
mod fleet;
mod hostile;
mod leader;
#[cfg(target_os = "linux")]
mod memory;
mod process;
mod scope_lies;
mod sync;
mod traps;
