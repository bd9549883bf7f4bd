//! What all handles of one database share, and the lock around it.
//!
//! Invariant: what a commit changed is told to subscribers and wake-ups before the lock is given back, so they
//! hear of commits in their order; and a thread that holds the lock gets an error, not a deadlock, when it asks
//! for it again.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rivus_core::clock::Millis;
use rivus_core::replica::{Event, Origin, Replica, Watching};
use rivus_core::schema::Schema;
use rivus_core::store::Store as _;
use tokio::sync::{broadcast, watch};

use crate::Error;
use crate::any_store::AnyStore;
use crate::machine::TimeSource;
use crate::net::Control;
use crate::others::Watch;

/// A replica and everybody who waits for it to change.
#[derive(Debug)]
pub(crate) struct Shared {
    replica: Mutex<Replica<AnyStore>>,
    /// The thread that holds the lock, 0 if none.
    holder: AtomicUsize,
    pub(crate) schema: Arc<Schema>,
    pub(crate) clock: TimeSource,
    /// Whether commits wait for a disk.
    slow: bool,
    pub(crate) events: broadcast::Sender<Event>,
    /// How many times what this store has to tell others has changed.
    pub(crate) changes: watch::Sender<u64>,
    /// Everything about syncing.
    pub(crate) sync: Arc<Control>,
    /// Who looks for commits of other processes.
    pub(crate) watch: Watch,
}

impl Shared {
    pub(crate) fn new(mut replica: Replica<AnyStore>, clock: TimeSource) -> Self {
        replica.watch(Watching::Yes);
        let slow = !matches!(replica.store(), AnyStore::Memory(_));
        Self {
            schema: Arc::clone(replica.schema()),
            replica: Mutex::new(replica),
            holder: AtomicUsize::new(0),
            clock,
            slow,
            events: broadcast::Sender::new(EVENTS_MAX),
            changes: watch::Sender::new(0),
            sync: Arc::default(),
            watch: Watch::default(),
        }
    }

    /// The replica, for this thread alone.
    ///
    /// # Errors
    /// [`Error::Reentrant`] if this thread has it already.
    pub(crate) fn lock(&self) -> Result<Locked<'_>, Error> {
        let me = this_thread();
        // Only this thread ever stores its own number, so no other can make it appear or vanish here.
        if self.holder.load(Ordering::Relaxed) == me {
            return Err(Error::Reentrant);
        }
        // A panic in somebody's closure left nothing half done: an edit changes the replica at its commit only.
        let replica = self.replica.lock().unwrap_or_else(PoisonError::into_inner);
        self.holder.store(me, Ordering::Relaxed);
        Ok(Locked { replica, shared: self })
    }
}

impl crate::net::pump::Host for Shared {
    type Store = AnyStore;

    fn with<R>(&self, act: impl FnOnce(&mut Replica<AnyStore>, Millis) -> R) -> Result<R, crate::SyncError> {
        let now = self.clock.now();
        let mut replica = self.lock().map_err(|_| crate::SyncError::Reentrant)?;
        Ok(act(&mut replica, now))
    }

    fn is_free(&self) -> bool {
        // Whoever has it is mostly done in a moment.
        (0..YIELDS_MAX).any(|_| {
            let free = self.holder.load(Ordering::Relaxed) == 0;
            if !free {
                std::thread::yield_now();
            }
            free
        })
    }

    fn is_slow(&self) -> bool {
        self.slow
    }

    fn note_sent(&self, edits: &[u64]) {
        self.sync.note_sent(edits);
    }

    fn note_answered(&self, edits: &[u64]) {
        self.sync.note_answered(edits);
    }
}

/// The replica while its lock is held. Not for keeping across an `.await`.
pub(crate) struct Locked<'a> {
    replica: MutexGuard<'a, Replica<AnyStore>>,
    shared: &'a Shared,
}

impl Deref for Locked<'_> {
    type Target = Replica<AnyStore>;

    fn deref(&self) -> &Self::Target {
        &self.replica
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.replica
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.replica.store().end_reading();
        let events = self.replica.poll_events();
        // First, so that whoever wakes knows that the edit may have to wait for more of them.
        if events.iter().any(|event| matches!(event, Event::Changed { origin: Origin::Local, .. })) {
            self.shared.sync.edits.send_modify(|edits| *edits += 1);
        }
        if events.iter().any(|event| matches!(event, Event::Changed { .. })) {
            self.shared.changes.send_modify(|changes| *changes += 1);
        }
        for event in events {
            // Nobody listens: then nobody misses it.
            let _ = self.shared.events.send(event);
        }
        self.shared.holder.store(0, Ordering::Relaxed);
    }
}

/// A number, not 0, that no other living thread has: where a variable of its own lies.
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

/// How often a task lets others run before it takes a lock that is held for one that will be.
const YIELDS_MAX: usize = 20;

/// How many events a subscriber may be behind before it loses the oldest. A bound, so that a subscriber that has
/// stopped reading neither holds up writers nor fills the memory.
pub(crate) const EVENTS_MAX: usize = 1024;
