//! Field-level merge without I/O.
pub mod id;
pub mod clock;
pub mod value;
pub mod register;
pub mod address;
mod bytes;
pub mod code;
pub mod replica;
pub mod edit;
pub mod identity;
pub mod pending;
pub mod view;
mod work;
pub mod row;
pub mod store;
pub mod schema;
