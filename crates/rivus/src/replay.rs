//! Replay scripts: histories with explicit clocks and deliveries, run on the real engine.
//!
//! Owns the script format `replay/1` (JSON Lines) and the runner. Knows nothing of sockets: a [`Transport`] moves
//! the frames of one sync. Invariant: what a script prints depends on the script alone, not on the store, the
//! transport, the machine or its clock.
//!
//! ```
//! use rivus::replay::{Direct, Script, StoreChoice, run};
//!
//! let script = Script::parse(&br#"
//! {"rivus":"replay/1","schema":{"kinds":{"task":{"fields":{"title":{}}}}}}
//! {"do":"replica","name":"a"}
//! {"do":"replica","name":"b"}
//! {"do":"put","on":"a","at":1000,"kind":"task","id":"t1","set":{"title":"x"}}
//! {"do":"sync","from":"a","to":"b"}
//! {"do":"show","on":"b"}
//! "#[..])?;
//! let (mut out, mut err) = (Vec::new(), Vec::new());
//! let summary = run(&script, StoreChoice::Memory, &mut Direct, &mut out, &mut err, &mut |_, _| {})?;
//! assert_eq!((summary.edits, summary.refused), (1, 0));
//! let shown = String::from_utf8(out).unwrap();
//! assert!(shown.starts_with(r#"{"on":"b","digest":""#));
//! assert!(shown.ends_with("\"view\":{\"task\":{\"t1\":{\"title\":\"x\"}}},\"conflicts\":[],\"overlays\":[]}\n"));
//! # Ok::<(), rivus::replay::ReplayError>(())
//! ```

mod run;
mod script;
mod show;
#[cfg(test)]
mod tests;
mod transport;
mod websocket;

use std::io;

use rivus_core::store::{CommitError, StoreError};

pub use run::{StoreChoice, Summary, run};
pub use script::{Fault, Script};
pub use transport::{Direct, End, Moved, Transport, TransportError, Way};
pub use websocket::WebSocket;

/// Why a script cannot be read or run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The reader failed.
    #[error("the script cannot be read: {0}")]
    Read(io::Error),
    /// There is no line.
    #[error("the script is empty: its first line is {{\"rivus\":\"replay/1\",\"schema\":…}}")]
    Empty,
    /// A line is not as the format says. Nothing was run.
    #[error("line {line}: {fault}")]
    Script {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        fault: Fault,
    },
    /// A step could not be done. The steps before it were.
    #[error("line {line}: {failure}")]
    Run {
        /// The line, from 1.
        line: usize,
        /// Why not.
        failure: Failure,
    },
    /// The temporary directory cannot be made.
    #[error("no temporary directory can be made ({0}): free some space, or set TMPDIR")]
    Folder(io::Error),
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Write(io::Error),
}

/// Why a step could not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A store failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A sync failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// `converge` went on and on.
    #[error("after {rounds} rounds of syncs something still moves: this is a fault of the engine, report it")]
    Unsettled {
        /// How often all pairs were synced.
        rounds: usize,
    },
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}
