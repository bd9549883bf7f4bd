//! What a sync did, in classes that add up.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::SyncError;
use crate::Error;

/// What one sync did, up to its end or to the error that ended it.
///
/// ```
/// # use rivus::{Db, HubOptions, Schema};
/// # let runtime = tokio::runtime::Runtime::new().unwrap();
/// # runtime.block_on(async {
/// # let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
/// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
/// # phone.sync(&served.url().into()).await?;
/// phone.put("task", "t1", [("title", "write".into())])?;
/// let report = phone.sync_once(&served.url().into()).await;
/// assert_eq!((report.pushed.offered, report.pushed.accepted), (1, 1));
/// assert_eq!(report.error, None);
/// # Ok::<(), rivus::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct SyncReport {
    /// The other store, in hexadecimal digits; empty if none was met.
    pub peer: String,
    /// Whether the other side judges this store's edits.
    pub is_authority: bool,
    /// What became of this store's edits.
    pub pushed: Pushed,
    /// What became of the other side's changes.
    pub pulled: Pulled,
    /// Registers that the other side has read here: of a peer what it lacked, of a hub at the first meeting what was
    /// written before. That is in no class of `pushed`, as it was never pending, but for edits of it that are refused.
    pub given: usize,
    /// Whether the digests were compared at one position and were equal.
    pub verified: bool,
    /// Whether they were compared and differed at some time.
    pub diverged: bool,
    /// Registers that were exchanged because they did. Where those could not be told apart, everything was read again
    /// and is counted as received.
    pub repaired: usize,
    /// The scopes that were asked for by name and may not be read.
    pub denied: Vec<String>,
    /// Bytes sent, after compression, without the framing of WebSocket.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// The first error; what was exchanged before is kept and counted.
    #[serde(serialize_with = "in_words")]
    pub error: Option<SyncError>,
    /// What guards have left out.
    #[serde(skip)]
    pub(super) held: Held,
}

/// What of a round was not done because a guard is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Held {
    pub(super) uploads: bool,
    pub(super) downloads: bool,
}

/// What became of the edits that a sync offered: each is in one class, so they add up to `offered`.
///
/// Among peers nobody judges, and there is nothing to offer: what is here is confirmed, and the other reads it.
///
/// ```
/// let pushed = rivus::Pushed::default();
/// assert_eq!(pushed.offered, pushed.in_classes());
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Pushed {
    /// Edits that were pending when the sync began. Those made while it ran are for the next.
    pub offered: usize,
    /// Accepted.
    pub accepted: usize,
    /// Accepted, and a write of theirs lost at once to one that had not seen it: [`Db::conflicts`](crate::Db::conflicts)
    /// has it.
    pub superseded: usize,
    /// Accepted before, in a sync that broke before the answer came. Where new ones went along in one push they count as
    /// accepted.
    pub duplicate: usize,
    /// Refused, by reason; [`Db::rejections`](crate::Db::rejections) has them.
    pub rejected: BTreeMap<String, usize>,
    /// Held back because they refer to an entity whose creation was refused.
    pub blocked: usize,
    /// Not sent, or not answered: pending still.
    pub deferred: usize,
    /// Done otherwise: by another process of this store, or nothing was left of them without a refused one.
    pub settled: usize,
}

impl Pushed {
    /// All classes together.
    ///
    /// ```
    /// assert_eq!(rivus::Pushed::default().in_classes(), 0);
    /// ```
    #[must_use]
    pub fn in_classes(&self) -> usize {
        self.judged() + self.blocked + self.deferred + self.settled
    }

    fn judged(&self) -> usize {
        self.accepted + self.superseded + self.duplicate + self.rejected.values().sum::<usize>()
    }

    /// Takes what is left at the end.
    pub(super) fn close(&mut self, blocked: usize, deferred: usize) {
        (self.blocked, self.deferred, self.settled) = (blocked, deferred, 0);
        self.settled = self.offered.saturating_sub(self.in_classes());
        // An edit may have been answered, made anew and be pending again.
        self.offered = self.in_classes();
    }
}

/// What became of the other side's changes.
///
/// ```
/// assert!(!rivus::Pulled::default().more);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Pulled {
    /// Registers received: those applied, own and set aside.
    pub received: usize,
    /// Registers of others that were joined.
    pub applied: usize,
    /// Registers that this store wrote itself and got back.
    pub own: usize,
    /// Registers set aside because they are stamped in the future.
    pub set_aside: usize,
    /// Entities that may show something else now.
    pub changed: usize,
    /// Up to where this store has the other's changes.
    pub position: u64,
    /// Whether more is waiting there, as the other side says.
    pub more: bool,
}

impl SyncReport {
    /// The report of a sync that went to its end.
    ///
    /// # Errors
    /// [`Error::Sync`] with the first error.
    ///
    /// ```
    /// assert!(rivus::SyncReport::default().ok().is_ok());
    /// ```
    pub fn ok(self) -> Result<Self, Error> {
        match self.error {
            Some(error) => Err(error.into()),
            None => Ok(self),
        }
    }

    /// The report for one of those that a round was for: what was left out is an error for who wanted that.
    pub(super) fn for_whom(mut self, pushes: bool, pulls: bool) -> Self {
        let missed = pushes && self.held.uploads || pulls && self.held.downloads;
        if self.error == Some(SyncError::Paused) && !missed {
            self.error = None;
        }
        self
    }

    /// Whether anything went either way.
    pub(super) fn moved(&self) -> bool {
        self.pushed.judged() > 0 || self.pulled.received > 0
    }

    /// Adds what came before: the same sync, over an earlier connection.
    pub(super) fn after(mut self, before: Self) -> Self {
        let (pushed, earlier) = (&mut self.pushed, before.pushed);
        pushed.offered += earlier.judged();
        pushed.accepted += earlier.accepted;
        pushed.superseded += earlier.superseded;
        pushed.duplicate += earlier.duplicate;
        for (reason, edits) in earlier.rejected {
            *pushed.rejected.entry(reason).or_default() += edits;
        }
        let (pulled, earlier) = (&mut self.pulled, before.pulled);
        pulled.received += earlier.received;
        pulled.applied += earlier.applied;
        pulled.own += earlier.own;
        pulled.set_aside += earlier.set_aside;
        pulled.changed += earlier.changed;
        self.diverged |= before.diverged;
        self.given += before.given;
        self.repaired += before.repaired;
        self.denied.extend(
            before.denied.into_iter().filter(|scope| !self.denied.contains(scope)).collect::<Vec<_>>(),
        );
        self.bytes_sent += before.bytes_sent;
        self.bytes_received += before.bytes_received;
        self
    }
}

#[expect(clippy::ref_option, reason = "serde hands it over so")]
fn in_words<S: Serializer>(error: &Option<SyncError>, serializer: S) -> Result<S::Ok, S::Error> {
    error.as_ref().map(ToString::to_string).serialize(serializer)
}
