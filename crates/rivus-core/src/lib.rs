//! Field-level merge without I/O.
pub mod address;
mod bytes;
pub mod clock;
pub mod code;
pub mod edit;
pub mod id;
pub mod identity;
pub mod pending;
pub mod register;
pub mod replica;
pub mod row;
pub mod schema;
pub mod session;
pub mod store;
pub mod value;
pub mod view;
pub mod wire;
mod work;
