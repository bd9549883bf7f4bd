//! What an application shows of its sync.

use rivus_core::clock::Millis;
use rivus_core::session::{Doing, Progress};

use super::SyncError;

/// Where syncing stands.
///
/// ```
/// # use rivus::{Db, HubOptions, Schema};
/// # let runtime = tokio::runtime::Runtime::new().unwrap();
/// # runtime.block_on(async {
/// # let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
/// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
/// let connection = phone.connect(served.url().into());
/// let mut states = connection.states();
/// let state = states.wait_for(|state| state.synced).await.unwrap().clone();
/// assert!(state.connected && state.pending == 0 && state.last_success.is_some());
/// # Ok::<(), rivus::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SyncState {
    /// Whether the other side is there.
    pub connected: bool,
    /// What is going on.
    pub phase: Phase,
    /// Whether nothing is pending here and everything of the other side is here.
    pub synced: bool,
    /// The head of this store up to which each side has everything of the other; `None` while they exchange.
    pub up_to: Option<u64>,
    /// How many edits wait for the authority's verdict.
    pub pending: usize,
    /// When the oldest of them was made, by this machine's clock.
    pub pending_since: Option<Millis>,
    /// When each side last had everything of the other, whatever process of this database was connected; of one before this
    /// was opened, or of another process, give or take a minute.
    pub last_success: Option<Millis>,
    /// How far the other side's changes are read, while they are.
    pub progress: Option<Progress>,
    /// Up to which of the hub's changes every database with a running lease has everything, as the hub said last; 0 if it
    /// has not. What was [`Durable`](Delivery::Durable) there is [`Seen`](Delivery::Seen) then.
    pub seen: u64,
    /// Why it does not go on.
    pub why: Option<Why>,
}

impl SyncState {
    /// How long the oldest pending edit has been waiting at `now`, in ms.
    ///
    /// ```
    /// use rivus::{Millis, SyncState};
    /// assert_eq!(SyncState::default().pending_ms(Millis(5)), None);
    /// ```
    #[must_use]
    pub fn pending_ms(&self, now: Millis) -> Option<u64> {
        self.pending_since.map(|since| u64::try_from(now.0.saturating_sub(since.0)).unwrap_or(0))
    }

    /// The error that it waits or has stopped for.
    ///
    /// ```
    /// assert!(rivus::SyncState::default().error().is_none());
    /// ```
    #[must_use]
    pub fn error(&self) -> Option<&SyncError> {
        match &self.why {
            Some(Why::Error(error)) => Some(error),
            _ => None,
        }
    }
}

/// What a sync is doing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Phase {
    /// Nothing until the next round.
    #[default]
    Idle,
    /// Another process, or another opening of the file in this one, has the connection: this one takes over when that
    /// ends.
    Following,
    /// Dialling, or greeting each other.
    Connecting,
    /// Edits go to the other side.
    Pushing,
    /// Changes come.
    Pulling,
    /// Everything is exchanged, and changes go as they come.
    Live,
    /// The last try failed, or the budget is used up; it goes on by itself.
    Waiting,
    /// The application holds a guard that pauses it.
    Paused,
    /// Given up: trying again would not help before somebody changes something. Or closed by the application.
    Stopped,
}

impl From<Doing> for Phase {
    fn from(doing: Doing) -> Self {
        match doing {
            Doing::Greeting => Self::Connecting,
            Doing::Pushing => Self::Pushing,
            Doing::Pulling => Self::Pulling,
            Doing::Idle => Self::Live,
            Doing::Closed => Self::Idle,
        }
    }
}

/// Why a sync does not go on.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Why {
    /// The last try ended so.
    Error(SyncError),
    /// The bytes of this period are used up.
    Budget,
    /// [`Db::freeze`](crate::Db::freeze), or both directions are paused.
    Paused,
}

/// Where an edit is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Delivery {
    /// The authority refused it; [`Db::rejections`](crate::Db::rejections) has it until it is written anew.
    Rejected,
    /// On this device alone.
    Local,
    /// It was sent; no answer has come yet.
    Sent,
    /// The authority, or a peer, has it for good.
    Durable,
    /// So has every database that the authority waits for: whose lease runs. Told with a sync, or a moment after the last
    /// of them has it while there is a connection.
    Seen,
}
