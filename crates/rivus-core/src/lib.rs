//! Field-level merge without I/O: the engine of Rivus.
//!
//! An entity is a set of registers, one per field, per key of a set or map, per replica of a counter. Registers are
//! joined; a local edit is a delta from oneself; two stores that joined the same deltas hold the same bytes. This
//! crate does no I/O, reads no clock, draws no randomness and starts no thread: time, random ids and received bytes
//! are arguments, so that it runs the same in an application, a simulator and a fuzzer. Applications use the crate
//! `rivus`, which is the shell around this one.
//!
//! In reading order: [`id`] and [`clock`] (who and when), [`value`], [`register`] (the join and its laws, nothing
//! else), [`address`] and [`row`] (registers packed into rows), [`schema`] and [`view`] (what the application reads),
//! [`rules`] (what every view satisfies), [`edit`] and [`pending`] (what it writes), [`store`], [`identity`] and
//! [`replica`] (one commit at a time), [`projection`] and [`journal`] (what a commit keeps beside the rows), [`wire`],
//! [`code`] and [`session`] (anti-entropy with one other store).

pub mod address;
pub mod alias;
mod bytes;
pub mod canary;
pub mod clock;
pub mod code;
pub mod conflict;
pub mod edit;
#[cfg(test)]
mod golden;
pub mod id;
pub mod identity;
pub mod journal;
pub mod pending;
pub mod projection;
pub mod register;
pub mod replica;
pub mod row;
pub mod rules;
pub mod schema;
pub mod scope;
pub mod session;
pub mod sketch;
pub mod store;
pub mod value;
pub mod view;
pub mod wire;
mod work;

pub use bytes::Cut;
