//! The task behind a connection: when to connect, for what, and what to do when that ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rivus_core::session::Want;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::backoff::{Backoff, Bucket, PAUSE_MAX};
use super::fetch::Asks;
use super::leader::{Turn, turn};
use super::levers::{Gate, Levers, Mode, Pauses, Spent, over_budget};
use super::pump::{Bounds, Ended, Synced, told_to};
use super::reaction::Reaction;
use super::{Phase, Remote, SyncError, SyncState, Why};
use crate::Db;
use crate::machine::random_u64;

/// Keeps one connection.
pub(super) struct Keeper {
    db: Db,
    remote: Remote,
    state: Arc<watch::Sender<SyncState>>,
    asks: Arc<Asks>,
    stop: watch::Receiver<bool>,
    backoff: Backoff,
    bucket: Bucket,
    spent: Arc<Mutex<Spent>>,
    levers: watch::Receiver<Levers>,
    pauses: watch::Receiver<Pauses>,
    nudges: watch::Receiver<u64>,
    edits: watch::Receiver<u64>,
    /// The source of tokens was asked, and nothing was exchanged since.
    refreshed: bool,
}

/// What ended a rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Woken {
    /// Its time is over, or edits have waited long enough.
    Due,
    /// Somebody asked for a sync.
    Nudged,
    /// Levers or guards have changed.
    Changed,
    /// The application is done with the connection.
    Stopped,
}

/// Whether a task goes on.
enum Next {
    On,
    /// Others of this file may connect meanwhile.
    Yield,
    Stop(Option<SyncError>),
}

impl Keeper {
    pub(super) fn new(
        db: Db,
        remote: Remote,
        state: watch::Sender<SyncState>,
        asks: Arc<Asks>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let control = &db.shared.sync;
        let (levers, pauses) = (control.levers.subscribe(), control.pauses.subscribe());
        let (nudges, edits) = (control.nudges(remote.url()), control.edits.subscribe());
        let spent = Arc::clone(&control.spent);
        Self {
            levers,
            pauses,
            nudges,
            edits,
            db,
            remote,
            state: Arc::new(state),
            asks,
            stop,
            backoff: Backoff::new(),
            bucket: Bucket::full(),
            spent,
            refreshed: false,
        }
    }

    /// Runs until it is told to stop or has to give up.
    pub(super) async fn run(mut self) {
        let ending = Ending { state: Arc::clone(&self.state), asks: Arc::clone(&self.asks) };
        let error = self.lead().await;
        if let Some(error) = &error {
            tracing::warn!(url = self.remote.url(), %error, "sync stopped");
        }
        self.tell(|state| state.why = error.map(Why::Error));
        drop(ending);
    }

    /// Connects again and again once it is this one's turn; says why it gave up.
    async fn lead(&mut self) -> Option<SyncError> {
        let _listening = self.db.shared.listen();
        loop {
            if self.is_paused().await {
                self.rests(Phase::Paused, Some(Why::Paused));
                if self.rest(None, false).await == Woken::Stopped {
                    return None;
                }
                continue;
            }
            let _turn = self.turn().await?;
            loop {
                match self.once().await {
                    Next::On => {}
                    Next::Yield => break,
                    Next::Stop(error) => return error,
                }
            }
        }
    }

    /// Waits until no other process has the connection, and keeps count of what is pending meanwhile.
    async fn turn(&self) -> Option<Turn> {
        let (state, mut stop) = (Arc::clone(&self.state), self.stop.clone());
        let following = move || {
            state.send_modify(|state| (state.phase, state.why) = (Phase::Following, None));
        };
        let mut edits = self.edits.clone();
        let counting = async {
            loop {
                self.count().await;
                if edits.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            turn = turn(&self.db, &self.remote, &self.asks, &mut stop, following) => turn,
            () = counting => None,
        }
    }

    /// Whether guards leave nothing to connect for. What changes from here on is noticed in the rest behind it.
    async fn is_paused(&mut self) -> bool {
        let pauses = *self.pauses.borrow_and_update();
        pauses.stop_all() || pauses.uploads > 0 && !self.db.has_met().await
    }

    /// One connection, and the rest behind it.
    async fn once(&mut self) -> Next {
        // What changes from here on is noticed in the rest behind the connection.
        let (pauses, levers) = (*self.pauses.borrow_and_update(), *self.levers.borrow_and_update());
        self.nudges.mark_unchanged();
        self.edits.mark_unchanged();
        if self.is_paused().await {
            return Next::Yield;
        }
        if let Some(until) = over_budget(&self.spent, levers.budget) {
            tracing::info!("the budget is used up");
            self.rests(Phase::Waiting, Some(Why::Budget));
            return self.rest(until, false).await.into();
        }
        if let Err(token) = self.bucket.take() {
            let why = self.state.borrow().why.clone();
            self.rests(Phase::Waiting, why);
            return self.rest(Some(token), false).await.into();
        }
        let pulls = pauses.downloads == 0;
        let live = levers.mode == Mode::Live && pulls;
        let want = match (live, pulls) {
            (true, _) => Want::Live,
            (false, true) => Want::Once,
            (false, false) => Want::Nothing,
        };
        let result = self.session(want).await;
        if *self.stop.borrow() {
            return Next::Stop(None);
        }
        match result {
            // What has ended it is looked at before the next one.
            Ok(Ended::Shut | Ended::Spent | Ended::Stopped) => Next::On,
            Ok(Ended::Done | Ended::Bounded) if live => {
                self.failed(SyncError::Broken("the other side closed".to_owned())).await
            }
            Ok(Ended::Done | Ended::Bounded) => {
                self.rests(Phase::Idle, None);
                let until = match levers.mode {
                    Mode::Periodic { every } => Instant::now().checked_add(every),
                    Mode::Live => None,
                };
                self.rest(until, true).await.into()
            }
            Err(error) => self.failed(error).await,
        }
    }

    async fn session(&mut self, want: Want) -> Result<Ended, SyncError> {
        self.tell(|state| {
            state.phase = Phase::Connecting;
            state.why = None;
        });
        let bounds = Bounds::default();
        let gate = Gate::new(&self.db.shared.sync, want == Want::Live, want != Want::Nothing, true);
        let gate = gate.on_budget(Arc::clone(&self.spent));
        let (state, db) = (Arc::clone(&self.state), self.db.clone());
        let was_synced = Arc::new(AtomicBool::new(false));
        let note_synced = Arc::clone(&was_synced);
        let listen = move |synced: Synced| {
            note_synced.fetch_or(synced.up_to.is_some(), Ordering::Relaxed);
            listen(&db, &state, synced);
        };
        let started = Instant::now();
        let done =
            self.db.session_with(&self.remote, want, (bounds, gate), listen, &self.asks, self.stop.clone());
        let (report, result) = done.await;
        // A greeting alone is no progress: a hub may fail behind it each time.
        let went_on = report.moved() || was_synced.load(Ordering::Relaxed) || result == Ok(Ended::Done);
        let stood = !report.peer.is_empty() && started.elapsed() >= PAUSE_MAX;
        if went_on || stood {
            self.backoff = Backoff::new();
            self.refreshed = false;
        }
        result
    }

    async fn failed(&mut self, error: SyncError) -> Next {
        match error.reaction(self.remote.has_source() && !self.refreshed) {
            Reaction::Again => Next::On,
            Reaction::FreshToken => {
                self.refreshed = true;
                let refreshed = tokio::select! {
                    refreshed = self.remote.refresh() => refreshed,
                    () = told_to(&mut self.stop) => return Next::Stop(None),
                };
                match refreshed {
                    Ok(()) => Next::On,
                    Err(error) => {
                        // The next time it is asked again.
                        self.refreshed = false;
                        self.wait(error, Duration::ZERO).await
                    }
                }
            }
            Reaction::Wait { at_least } => self.wait(error, at_least).await,
            Reaction::Stop | Reaction::SetAside => Next::Stop(Some(error)),
        }
    }

    async fn wait(&mut self, error: SyncError, at_least: Duration) -> Next {
        tracing::info!(url = self.remote.url(), %error, "connection lost");
        self.nudges.mark_unchanged();
        self.rests(Phase::Waiting, Some(Why::Error(error)));
        let until = Instant::now() + self.backoff.next(at_least, random_u64());
        self.pause(until).await.into()
    }

    /// Rests, whatever else happens, until this moment or a call by hand.
    async fn pause(&mut self, until: Instant) -> Woken {
        loop {
            match self.rest(Some(until), false).await {
                Woken::Changed if !self.pauses.borrow().stop_all() => {}
                woken => return woken,
            }
        }
    }

    /// Rests until this moment, or until something asks for going on. With `edits`, edits do once no more follow.
    async fn rest(&mut self, until: Option<Instant>, edits: bool) -> Woken {
        let mut waiting: Option<(Instant, Instant)> = None;
        self.count().await;
        loop {
            let levers = *self.levers.borrow();
            let due = match (waiting, levers.debounce, levers.mode) {
                (Some((first, last)), Some(wait), _) => wait.due(first, last),
                (Some((first, _)), None, Mode::Live) => Some(first),
                _ => None,
            };
            let due = [until, due].into_iter().flatten().min();
            tokio::select! {
                () = told_to(&mut self.stop) => return Woken::Stopped,
                _ = self.nudges.changed() => return Woken::Nudged,
                _ = self.levers.changed() => return Woken::Changed,
                _ = self.pauses.changed() => return Woken::Changed,
                _ = self.edits.changed() => {
                    self.count().await;
                    let now = Instant::now();
                    if edits {
                        waiting = Some((waiting.map_or(now, |(first, _)| first), now));
                    }
                }
                () = sleep(due) => return Woken::Due,
            }
        }
    }

    fn rests(&self, phase: Phase, why: Option<Why>) {
        self.tell(|state| {
            state.connected = false;
            state.phase = phase;
            state.why = why;
            state.progress = None;
            state.synced &= phase == Phase::Idle;
            state.up_to = state.up_to.filter(|_| phase == Phase::Idle);
        });
    }

    /// Notes how many edits are pending.
    async fn count(&self) {
        if let Some((pending, since, success)) = self.db.pending_now().await {
            self.tell(|state| {
                (state.pending, state.pending_since) = (pending, since);
                state.last_success = state.last_success.max(success);
                state.synced &= pending == 0;
            });
        }
    }

    fn tell(&self, change: impl FnOnce(&mut SyncState)) {
        tell(&self.state, change);
    }
}

impl From<Woken> for Next {
    fn from(woken: Woken) -> Self {
        if woken == Woken::Stopped { Self::Stop(None) } else { Self::On }
    }
}

/// Tells, however the task ends, that nothing more will come.
struct Ending {
    state: Arc<watch::Sender<SyncState>>,
    asks: Arc<Asks>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        tell(&self.state, |state| {
            (state.connected, state.synced, state.up_to) = (false, false, None);
            (state.phase, state.progress) = (Phase::Stopped, None);
        });
        self.asks.close();
    }
}

/// Takes over what a session says of itself.
fn listen(db: &Db, state: &watch::Sender<SyncState>, synced: Synced) {
    let now = db.shared.clock.now();
    let is_done = synced.up_to.is_some();
    if is_done && db.shared.sync.succeeded(now) {
        drop(db.note_success(now));
    }
    tell(state, |state| {
        state.connected = synced.opened;
        if let Some(stand) = synced.stand {
            state.phase = stand.doing.into();
            state.progress = Some(stand.read).filter(|_| state.phase == Phase::Pulling);
        }
        state.up_to = synced.up_to;
        state.synced = is_done && synced.pending == 0;
        (state.pending, state.pending_since) = (synced.pending, synced.pending_since);
        state.seen = synced.seen.max(state.seen);
        if is_done {
            state.last_success = Some(now);
        }
    });
}

/// Changes the state, and tells those who watch it if that makes a difference.
fn tell(state: &watch::Sender<SyncState>, change: impl FnOnce(&mut SyncState)) {
    state.send_if_modified(|state| {
        let before = state.clone();
        change(state);
        *state != before
    });
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
