//! Sync over WebSocket: the shell around the sessions of `rivus_core`.
//!
//! Owns sockets, compression, timeouts and redialling. Knows nothing of frames but that they are bytes. One task
//! owns a session; the replica is locked only while a frame is made or taken, on a blocking thread, never across
//! an `.await`.

mod client;
mod error;
pub(crate) mod fetch;
mod hub;
mod packing;
pub(crate) mod pump;
pub(crate) mod scopes;

use std::time::Duration;

pub use client::{Connection, ConnectionState, Remote};
pub use error::SyncError;
pub use hub::{Hub, HubOptions};
pub use rivus_core::session::Grants;

/// What one sync did.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
#[non_exhaustive]
pub struct SyncReport {
    /// The other store, in hexadecimal digits.
    pub peer: String,
    /// Whether the other side judges this store's edits.
    pub is_authority: bool,
    /// Edits of this store that the authority accepted.
    pub accepted: usize,
    /// Edits of this store that it refused, or that were built anew and pushed again.
    pub excepted: usize,
    /// Registers received.
    pub received: usize,
    /// Registers among them that were set aside because they are stamped in the future.
    pub quarantined: usize,
    /// Whether the digests were compared at one position and were equal.
    pub verified: bool,
    /// Whether they were compared and differed at some time.
    pub diverged: bool,
    /// The scopes that were asked for by name and may not be read.
    pub denied: Vec<String>,
    /// Bytes sent, after compression, without the framing of WebSocket.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
}

/// Frames longer than this are compressed, if the other side can read that.
const COMPRESS_BYTES_MIN: usize = 512;
/// After so long without a frame the session is told that it is quiet.
const QUIET: Duration = Duration::from_secs(1);
/// So often a silent connection is probed.
const PING: Duration = Duration::from_secs(15);
/// A connection that is silent for so long, probes included, is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// So long the handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
