//! The facade as an application uses it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod dynamic;
mod events;
mod journal;
mod migrate;
mod others;
mod queries;
mod ruled;
mod save;
mod sharing;
mod typed;
