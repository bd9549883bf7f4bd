//! The task behind a connection: when to connect, for what, and what to do when that ends.

use std::sync::Arc;
use std::time::Duration;

use rivus_core::session::Want;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::backoff::{Backoff, Bucket};
use super::fetch::Asks;
use super::leader::turn;
use super::levers::{Budget, Gate, Levers, Mode, Pauses};
use super::pump::{Bounds, Synced, told_to};
use super::reaction::Reaction;
use super::{Phase, Remote, SyncError, SyncReport, SyncState, Why};
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
    spent: Spent,
    levers: watch::Receiver<Levers>,
    pauses: watch::Receiver<Pauses>,
    nudges: watch::Receiver<u64>,
    edits: watch::Receiver<u64>,
    /// The source of tokens was asked, and no session has opened since.
    refreshed: bool,
}

/// What was used of the budget.
struct Spent {
    since: Instant,
    bytes: u64,
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
        let (nudges, edits) = (control.nudges.subscribe(), control.edits.subscribe());
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
            spent: Spent { since: Instant::now(), bytes: 0 },
            refreshed: false,
        }
    }

    /// Runs until it is told to stop or has to give up.
    pub(super) async fn run(mut self) {
        let error = self.lead().await;
        if let Some(error) = &error {
            tracing::warn!(url = self.remote.url(), %error, "sync stopped");
        }
        self.tell(|state| {
            state.connected = false;
            state.phase = Phase::Stopped;
            state.why = error.map(Why::Error);
        });
        self.asks.close();
    }

    /// Connects again and again once it is this one's turn; says why it gave up.
    async fn lead(&mut self) -> Option<SyncError> {
        let _listening = self.db.shared.listen();
        let state = Arc::clone(&self.state);
        let following = move || {
            state.send_modify(|state| (state.phase, state.why) = (Phase::Following, None));
        };
        let _turn = turn(&self.db, &self.remote, &self.asks, &mut self.stop, following).await?;
        loop {
            if let Next::Stop(error) = self.once().await {
                return error;
            }
        }
    }

    /// One connection, and the rest behind it.
    async fn once(&mut self) -> Next {
        // What changes from here on is noticed in the rest behind the connection.
        let (pauses, levers) = (*self.pauses.borrow_and_update(), *self.levers.borrow_and_update());
        self.nudges.mark_unchanged();
        self.edits.mark_unchanged();
        let first = pauses.uploads > 0 && !self.db.has_met().await;
        if pauses.stop_all() || first {
            self.rests(Phase::Paused, Some(Why::Paused));
            return self.rest(None, false).await.into();
        }
        if let Some((budget, until)) = self.over_budget(levers.budget) {
            tracing::info!(bytes = budget.bytes, "the budget is used up");
            self.rests(Phase::Waiting, Some(Why::Budget));
            return self.rest(Some(until), false).await.into();
        }
        let token = self.bucket.take();
        if token > Instant::now() && self.pause(token).await == Woken::Stopped {
            return Next::Stop(None);
        }
        let pulls = pauses.downloads == 0;
        let live = levers.mode == Mode::Live && pulls;
        let want = match (live, pulls) {
            (true, _) => Want::Live,
            (false, true) => Want::Once,
            (false, false) => Want::Nothing,
        };
        let (report, result) = self.session(want, levers.budget).await;
        self.spent.bytes += report.bytes_sent + report.bytes_received;
        if *self.stop.borrow() {
            return Next::Stop(None);
        }
        match result {
            Ok(()) => self.succeeded(live, levers.mode).await,
            Err(error) => self.failed(error).await,
        }
    }

    async fn session(&mut self, want: Want, budget: Option<Budget>) -> (SyncReport, Result<(), SyncError>) {
        self.tell(|state| {
            state.phase = Phase::Connecting;
            state.why = None;
        });
        let bytes = budget.map(|budget| budget.bytes.saturating_sub(self.spent.bytes));
        let bounds = Bounds { bytes, ..Bounds::default() };
        let gate = Gate::new(&self.db.shared.sync, want == Want::Live, want != Want::Nothing, true);
        let (state, db) = (Arc::clone(&self.state), self.db.clone());
        let listen = move |synced: Synced| listen(&db, &state, synced);
        let done =
            self.db.session_with(&self.remote, want, (bounds, gate), listen, &self.asks, self.stop.clone());
        let (report, result) = done.await;
        if !report.peer.is_empty() {
            self.backoff = Backoff::new();
            self.refreshed = false;
        }
        (report, result)
    }

    /// The session ended in order.
    async fn succeeded(&mut self, live: bool, mode: Mode) -> Next {
        if live {
            let (pauses, levers) = (*self.pauses.borrow(), *self.levers.borrow());
            let budget = levers.budget;
            let changed = pauses.downloads > 0
                || pauses.stop_all()
                || levers.mode != Mode::Live
                || self.over_budget(budget).is_some();
            if changed {
                return Next::On;
            }
            let error = SyncError::Broken("the other side closed".to_owned());
            return self.failed(error).await;
        }
        self.rests(Phase::Idle, None);
        let until = match mode {
            Mode::Periodic { every } => Some(Instant::now() + every),
            Mode::Live => None,
        };
        self.rest(until, true).await.into()
    }

    async fn failed(&mut self, error: SyncError) -> Next {
        match error.reaction(self.remote.has_source() && !self.refreshed) {
            Reaction::Again => Next::On,
            Reaction::FreshToken => {
                self.refreshed = true;
                match self.remote.refresh().await {
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
                (Some((first, last)), Some(wait), _) => Some((last + wait.quiet).min(first + wait.most)),
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

    /// What is over the budget, and until when.
    fn over_budget(&mut self, budget: Option<Budget>) -> Option<(Budget, Instant)> {
        let budget = budget?;
        let until = self.spent.since + budget.per;
        if until <= Instant::now() {
            self.spent = Spent { since: Instant::now(), bytes: 0 };
        }
        (self.spent.bytes >= budget.bytes).then_some((budget, until))
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
        if let Some((pending, since)) = self.db.pending_now().await {
            self.tell(|state| {
                (state.pending, state.pending_since) = (pending, since);
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

/// Takes over what a session says of itself.
fn listen(db: &Db, state: &watch::Sender<SyncState>, synced: Synced) {
    let now = db.shared.clock.now();
    let is_done = synced.up_to.is_some();
    if is_done {
        db.shared.sync.succeeded(now);
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
