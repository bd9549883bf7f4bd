//! Sync over WebSocket: the shell around the sessions of `rivus_core`.
//!
//! Owns sockets, compression, timeouts and redialling. Knows nothing of frames but that they are bytes. One task
//! owns a session; the replica is locked only while a frame is made or taken, on a blocking thread, never across
//! an `.await`.

mod backoff;
mod client;
mod closing;
mod dial;
mod error;
pub(crate) mod fetch;
mod files;
mod hub;
#[cfg(feature = "jwt")]
pub(crate) mod jwt;
mod keep;
mod leader;
mod levers;
mod narrow;
mod packing;
pub(crate) mod pump;
mod reaction;
mod remote;
mod renewal;
mod report;
mod rounds;
pub(crate) mod scopes;
mod state;
#[cfg(feature = "tls")]
mod tls;
pub(crate) mod turns;

use std::time::Duration;

pub use client::Connection;
pub(crate) use client::pending;
pub use error::SyncError;
pub use hub::{Account, Hub, HubOptions};
#[cfg(feature = "jwt")]
pub use jwt::Jwt;
pub(crate) use levers::Control;
pub use levers::{Budget, Debounce, Levers, Mode, Pause};
pub use reaction::{ErrorClass, Reaction};
pub use remote::Remote;
pub use report::{Pulled, Pushed, SyncReport};
pub use rivus_core::replica::{Proposed, ProposedEntity, Refusal, Spot, Write};
pub use rivus_core::session::{
    Access, Authenticator, Authorizer, By, Denial, FRAME_BYTES_LEAST, Grant, Grants, Limits, Restore, Rights,
    Scopes, ScopesError, Validator,
};
pub use rounds::Background;
pub use state::{Delivery, Phase, SyncState, Why};

/// Frames longer than this are compressed, if the other side can read that.
const COMPRESS_BYTES_MIN: usize = 512;
/// After so long without a frame the session is told that it is quiet.
const QUIET: Duration = Duration::from_secs(1);
/// So often a silent connection is probed.
const PING: Duration = Duration::from_secs(15);
/// A connection that is silent for so long, probes included, is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// A session in which something is due and no frame passes for so long has stalled, probes or not.
const STALL_MAX: Duration = Duration::from_secs(60);
/// So long the handshake may take, unless a hub is told otherwise.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// The header of a refusal that names its [`Code`](rivus_core::code::Code).
const CODE_HEADER: &str = "rivus-code";
