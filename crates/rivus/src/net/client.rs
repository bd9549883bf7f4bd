//! Staying connected to another store for as long as the application likes.

use std::sync::Arc;

use rivus_core::clock::{Millis, whole_millis};
use rivus_core::replica::{Edited, Kept};
use rivus_core::session::{SessionError, Want};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::dial::dial;
use super::fetch::Asks;
use super::keep::Keeper;
use super::levers::Gate;
use super::pump::{Bounds, Ended, Pump, Synced, Wakes, told_to};
use super::renewal::Renewal;
use super::{Delivery, Phase, Remote, SyncError, SyncReport, SyncState};
use crate::shared::Shared;
use crate::{Db, Error};

/// A connection that lasts: syncs as the [`Levers`](crate::Levers) say, and redials by itself. Dropping it ends it.
#[derive(Debug)]
#[must_use = "the connection ends when this is dropped"]
pub struct Connection {
    db: Db,
    remote: Remote,
    state: watch::Receiver<SyncState>,
    stop: watch::Sender<bool>,
    asks: Arc<Asks>,
    task: JoinHandle<()>,
}

impl Connection {
    /// Where it stands now.
    #[must_use]
    pub fn state(&self) -> SyncState {
        self.state.borrow().clone()
    }

    /// Hears of every change of that.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<SyncState> {
        self.state.clone()
    }

    /// Waits until each side has everything that the other had when this was called. While another process has the
    /// connection, this syncs once by itself.
    ///
    /// # Errors
    /// [`Error::Sync`] if the connection was given up, or another has it and this sync fails; [`Error::Store`] if the
    /// store cannot be read.
    pub async fn synced(&self) -> Result<(), Error> {
        let head = self.db.head_seq().await?;
        let mut states = self.state.clone();
        let reached = states.wait_for(|state| {
            matches!(state.phase, Phase::Stopped | Phase::Following)
                || state.up_to.is_some_and(|up_to| up_to >= head)
        });
        match reached.await.map(|state| state.clone()) {
            // What the leader has exchanged is not known here.
            Ok(SyncState { phase: Phase::Following, .. }) => self.db.sync(&self.remote).await.map(drop),
            Ok(state) if state.phase != Phase::Stopped => Ok(()),
            Ok(SyncState { why: Some(super::Why::Error(error)), .. }) => Err(error.into()),
            _ => Err(SyncError::Broken("the connection was closed".to_owned()).into()),
        }
    }

    /// Ends the pause between two tries or rounds, if there is one.
    pub fn nudge(&self) {
        self.db.shared.sync.nudge(self.remote.url());
    }

    pub(super) fn asks(&self) -> &Asks {
        &self.asks
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    /// Ends the connection in order and waits until it has ended.
    pub async fn close(mut self) {
        self.stop.send_replace(true);
        let _ = (&mut self.task).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Db {
    /// Connects to another store and stays connected: changes go both ways as they come, or as the
    /// [`Levers`](crate::Levers) say. Redials by itself, after growing, random pauses; a sync that is asked for by hand
    /// ([`Db::sync_once`] and the like) ends such a pause.
    ///
    /// Of several processes that connect from one file to one address one does, and syncs for all: the others follow
    /// ([`Phase::Following`]), and one takes over within a second when it ends, however that ends.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let hub = Db::memory(Schema::open())?;
    /// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// let phone = Db::memory(Schema::open())?;
    /// let connection = phone.connect(served.url().into());
    /// phone.put("task", "t1", [("title", "write".into())])?;
    /// connection.synced().await?;
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn connect(&self, remote: Remote) -> Connection {
        let (state, states) = watch::channel(SyncState { phase: Phase::Connecting, ..SyncState::default() });
        let (stop, stopped) = stop_never();
        let asks = Arc::new(Asks::following(remote.scopes_wanted()));
        let keeper = Keeper::new(self.clone(), remote.clone(), state, Arc::clone(&asks), stopped);
        let task = tokio::spawn(keeper.run());
        Connection { db: self.clone(), remote, state: states, stop, asks, task }
    }

    /// Where syncing stands, without a connection to ask: what is pending, and since when.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// assert_eq!(db.sync_state()?.pending, 0);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn sync_state(&self) -> Result<SyncState, Error> {
        let replica = self.lock()?;
        let (pending, pending_since) = pending(&replica)?;
        let last_success = self.shared.sync.last_success().max(replica.last_success()?);
        Ok(SyncState { pending, pending_since, last_success, ..SyncState::default() })
    }

    /// Where an edit is. Without an authority it is durable as soon as any peer has it.
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// ```
    /// # use rivus::{Db, Delivery, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
    /// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// let edited = phone.put("task", "t1", [("title", "write".into())])?;
    /// assert_eq!(phone.delivery(&edited)?, Delivery::Local);
    /// phone.sync(&served.url().into()).await?;
    /// assert_eq!(phone.delivery(&edited)?, Delivery::Durable);
    /// // Nobody but this phone has ever connected.
    /// phone.sync(&served.url().into()).await?;
    /// assert_eq!(phone.delivery(&edited)?, Delivery::Seen);
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn delivery(&self, edited: &Edited) -> Result<Delivery, Error> {
        // What changed nothing is where what it found is: nothing more is known of it.
        let Edited::Committed { seq, .. } = *edited else { return Ok(Delivery::Local) };
        let replica = self.lock()?;
        Ok(if replica.is_pending(seq)? {
            if self.shared.sync.was_sent(seq) { Delivery::Sent } else { Delivery::Local }
        } else if replica.was_refused(seq)? {
            Delivery::Rejected
        } else if replica.is_received(seq)? {
            if replica.is_seen(seq) { Delivery::Seen } else { Delivery::Durable }
        } else {
            Delivery::Local
        })
    }

    pub(super) async fn head_seq(&self) -> Result<u64, Error> {
        let db = self.clone();
        let read = tokio::task::spawn_blocking(move || Ok(db.lock()?.head()?.seq)).await;
        read.map_err(|error| SyncError::Broken(error.to_string()))?
    }

    /// How many edits are pending, since when, and when a sync last succeeded; `None` if that cannot be read.
    pub(super) async fn pending_now(&self) -> Option<(usize, Option<Millis>, Option<Millis>)> {
        let db = self.clone();
        let read = move || {
            let replica = db.lock().ok()?;
            let (pending, since) = pending(&replica).ok()?;
            Some((pending, since, db.shared.sync.last_success().max(replica.last_success().ok()?)))
        };
        tokio::task::spawn_blocking(read).await.ok()?
    }

    /// Notes in the store that a sync succeeds at `now`, for who opens it next.
    pub(super) fn note_success(&self, now: Millis) -> tokio::task::JoinHandle<()> {
        let db = self.clone();
        tokio::task::spawn_blocking(move || {
            let noted = db.lock().map(|mut replica| replica.note_success(now));
            if let Ok(Err(error)) = noted {
                tracing::warn!(%error, "when a sync last succeeded is not noted");
            }
        })
    }

    /// Whether the authority has had everything of before their first meeting.
    pub(super) async fn has_met(&self) -> bool {
        let db = self.clone();
        let met = move || {
            let authority = db.lock().ok()?.identity().authority?;
            Some(authority.met)
        };
        tokio::task::spawn_blocking(met).await.ok().flatten().unwrap_or(false)
    }

    /// One session over one connection.
    pub(super) async fn session_with(
        &self,
        remote: &Remote,
        want: Want,
        (bounds, gate): (Bounds, Gate),
        listen: impl FnMut(Synced) + Send + 'static,
        asks: &Arc<Asks>,
        mut stop: watch::Receiver<bool>,
    ) -> (SyncReport, Result<Ended, SyncError>) {
        let _running = self.shared.sync.begin();
        let connect = async {
            if remote.lacks_token() {
                remote.refresh().await?;
            }
            dial(remote).await
        };
        // A guard that was taken before this began is seen here, and one that comes later waits for the end of it.
        let socket = tokio::select! {
            biased;
            () = told_to(&mut stop) => return (SyncReport::default(), Ok(Ended::Stopped)),
            () = gate.shut() => return (SyncReport::default(), Ok(Ended::Shut)),
            connected = connect => connected,
        };
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => return (SyncReport::default(), Err(error)),
        };
        let wakes = Wakes { changes: self.shared.changes.subscribe(), stop, asks: Arc::clone(asks) };
        let host: Arc<Shared> = Arc::clone(&self.shared);
        let (wanted, unheard) = asks.follow();
        let session = match self.unfollow(unheard).and_then(|()| remote.session(want, wanted)) {
            Ok(session) => session,
            Err(error) => return (SyncReport::default(), Err(error)),
        };
        Pump::new(host, session, listen)
            .within(bounds, gate)
            .renewing(Renewal::new(remote, &self.shared))
            .run(socket, wakes)
            .await
    }
}

impl Db {
    /// Does once more what the last session may have undone by a page that it took meanwhile.
    fn unfollow(&self, scopes: Vec<(String, Kept)>) -> Result<(), SyncError> {
        if scopes.is_empty() {
            return Ok(());
        }
        // Whoever asks from within its own transaction is told so elsewhere.
        let Ok(mut replica) = self.lock() else { return Ok(()) };
        for (scope, kept) in scopes {
            replica.unfollow(&scope, kept).map_err(SessionError::from)?;
        }
        Ok(())
    }
}

/// How many edits of a replica are pending, and when the oldest was made.
pub(crate) fn pending<S: rivus_core::store::Store>(
    replica: &rivus_core::replica::Replica<S>,
) -> Result<(usize, Option<Millis>), rivus_core::store::StoreError> {
    let mut oldest = None;
    replica.pending(0, &mut |_, edit| {
        oldest = Some(edit.header.stamp);
        std::ops::ControlFlow::Break(())
    })?;
    let since = oldest.map(|stamp| Millis(i64::try_from(whole_millis(stamp.time)).unwrap_or(i64::MAX)));
    Ok((replica.pending_count()?, since))
}

pub(super) fn stop_never() -> (watch::Sender<bool>, watch::Receiver<bool>) {
    watch::channel(false)
}
