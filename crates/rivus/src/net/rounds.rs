//! Syncs that an application asks for, one round at a time.
//!
//! Calls to one remote coalesce: one round runs, and at most one waits, which does what all who wait have asked for.
//! So a write made while a round runs goes with the next, however many call.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rivus_core::session::{SessionError, Want};
use tokio::sync::watch;
use tokio::time::timeout;

use super::fetch::Asks;
use super::levers::Gate;
use super::pump::{Bounds, Ended};
use super::reaction::Reaction;
use super::report::Held;
use super::{Remote, SyncError, SyncReport};
use crate::{Db, Error};

/// How often a round starts over because the store was found to be a copy, or has a new writer.
const STARTS_MAX: usize = 8;

/// How much of the other side's changes is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Pull {
    registers: Option<usize>,
    until: Option<u64>,
}

/// What a round is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    push: bool,
    pull: Option<Pull>,
}

impl Wanted {
    pub(super) const ALL: Self = Self { push: true, pull: Some(Pull { registers: None, until: None }) };

    /// What does both.
    fn and(self, other: Self) -> Self {
        let pull = match (self.pull, other.pull) {
            (Some(one), Some(two)) => Some(Pull {
                registers: one.registers.zip(two.registers).map(|(one, two)| one.max(two)),
                until: one.until.zip(two.until).map(|(one, two)| one.max(two)),
            }),
            (one, two) => one.or(two),
        };
        Self { push: self.push || other.push, pull }
    }
}

type Report = watch::Sender<Option<SyncReport>>;

/// The round that waits behind the one that runs.
#[derive(Debug, Default)]
pub(super) struct Line {
    next: Option<(Wanted, Report)>,
}

/// What came of a sync in the background.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Background {
    /// Everything is exchanged, and others' changes came.
    NewData,
    /// Everything is exchanged, and there was nothing new.
    NoData,
    /// Something was exchanged, not all: the time was over, or the connection broke.
    Partial,
    /// Nothing was exchanged.
    Failed,
}

impl Db {
    /// Sends everything that is pending to a hub, and fetches nothing.
    ///
    /// Like every such call it never fails as a whole: the report says how far it came, and has the first error. It may
    /// be called at any time, from anywhere at once and again: what was interrupted is taken up, and nothing goes twice.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
    /// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// # let remote = served.url().into();
    /// # phone.sync(&remote).await?;
    /// phone.put("task", "t1", [("title", "write".into())])?;
    /// hub.put("task", "t2", [("title", "read".into())])?;
    /// let report = phone.push_once(&remote).await;
    /// assert_eq!((report.pushed.accepted, report.pulled.received), (1, 0));
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn push_once(&self, remote: &Remote) -> SyncReport {
        self.round(remote, Wanted { push: true, pull: None }).await
    }

    /// Fetches others' changes, and sends nothing: all of them, or up to the end of the page with which `limit` registers
    /// are here, or which reaches the position `until`. [`Pulled::more`](crate::Pulled::more) says whether more is
    /// waiting; the next call goes on there.
    ///
    /// At the very first meeting with a hub, what this store has goes there first.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
    /// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// # let remote = served.url().into();
    /// # for n in 0..3 { hub.put("task", &n.to_string(), [("text", "x".repeat(200_000).into())])?; }
    /// let first = phone.pull_once(&remote, Some(1), None).await;
    /// assert!(first.pulled.more);
    /// let rest = phone.pull_once(&remote, None, None).await;
    /// assert!(!rest.pulled.more && rest.pulled.position > first.pulled.position);
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn pull_once(&self, remote: &Remote, limit: Option<usize>, until: Option<u64>) -> SyncReport {
        let pull = Some(Pull { registers: limit, until });
        self.round(remote, Wanted { push: false, pull }).await
    }

    /// Sends everything, then fetches everything.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
    /// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// let report = phone.sync_once(&served.url().into()).await;
    /// assert!(report.error.is_none() && report.is_authority);
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn sync_once(&self, remote: &Remote) -> SyncReport {
        self.round(remote, Wanted::ALL).await
    }

    /// Syncs with another store once, as [`Db::sync_once`] does, for those who want an error as such.
    ///
    /// # Errors
    /// [`Error::Sync`]. What was exchanged before is kept.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
    /// let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// phone.put("task", "t1", [("title", "write".into())])?;
    /// let report = phone.sync(&served.url().into()).await?;
    /// assert!(report.is_authority);
    /// assert!(hub.view("task", "t1")?.is_some());
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn sync(&self, remote: &Remote) -> Result<SyncReport, Error> {
        self.sync_once(remote).await.ok()
    }

    /// Syncs within a time that the system allows a job in the background, and says what came of it. What is under way
    /// when the time is over is cut between two frames and goes on from there the next time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use rivus::{Background, Db, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
    /// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// let done = phone.run_once(&served.url().into(), Duration::from_secs(20)).await;
    /// assert_eq!(done, Background::NoData);
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn run_once(&self, remote: &Remote, within: Duration) -> Background {
        let before = self.standing().await;
        // Ending it in order takes a moment, too.
        let reserve = (within / 8).min(super::QUIET);
        match timeout(within.saturating_sub(reserve), self.sync_once(remote)).await {
            Ok(report) => match (&report.error, report.moved()) {
                (None, _) if report.pulled.more || report.pushed.deferred > 0 => Background::Partial,
                (None, _) if report.pulled.applied > 0 => Background::NewData,
                (None, _) => Background::NoData,
                (Some(_), true) => Background::Partial,
                (Some(_), false) => Background::Failed,
            },
            Err(_) => {
                // It ends after the frame that is under way.
                let _ = timeout(reserve, self.line_ends(&remote.key())).await;
                if self.standing().await == before { Background::Failed } else { Background::Partial }
            }
        }
    }

    /// Waits until no round to this remote is under way.
    async fn line_ends(&self, key: &str) {
        let mut running = self.shared.sync.running.subscribe();
        loop {
            running.mark_unchanged();
            let lines = &self.shared.sync.lines;
            if !lines.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key) {
                return;
            }
            if running.changed().await.is_err() {
                return;
            }
        }
    }

    /// Joins the round to this remote that waits, or starts one.
    async fn round(&self, remote: &Remote, wanted: Wanted) -> SyncReport {
        let key = remote.key();
        // Who waits for its pause to end goes on.
        self.shared.sync.nudge(remote.url());
        let mut waits = {
            let mut lines = self.shared.sync.lines.lock().unwrap_or_else(PoisonError::into_inner);
            match lines.get_mut(&key) {
                Some(Line { next: Some((asked, report)) }) if report.receiver_count() > 0 => {
                    *asked = asked.and(wanted);
                    report.subscribe()
                }
                Some(Line { next }) => {
                    let (report, waits) = watch::channel(None);
                    *next = Some((wanted, report));
                    waits
                }
                None => {
                    let (report, waits) = watch::channel(None);
                    lines.insert(key.clone(), Line::default());
                    let (db, remote) = (self.clone(), remote.clone());
                    tokio::spawn(async move { db.run_line(key, remote, wanted, report).await });
                    waits
                }
            }
        };
        match waits.wait_for(Option::is_some).await {
            Ok(report) => report.clone().unwrap_or_default().for_whom(wanted.push, wanted.pull.is_some()),
            // The runtime is being shut down.
            Err(_) => ended_early(),
        }
    }

    /// Runs rounds until nobody waits for one.
    async fn run_line(self, key: String, remote: Remote, mut wanted: Wanted, mut report: Report) {
        let cleared = Cleared { db: &self, key: &key };
        loop {
            let (stop, stopped) = watch::channel(false);
            let asks = Arc::new(Asks::following(remote.scopes_wanted()));
            let mut round = std::pin::pin!(self.attempts(&remote, wanted, &asks, stopped));
            let done = tokio::select! {
                done = &mut round => done,
                // Nobody waits any more: it ends in order, and what was exchanged is kept.
                () = report.closed() => {
                    stop.send_replace(true);
                    round.await
                }
            };
            report.send_replace(Some(done));
            let mut lines = self.shared.sync.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let next = lines.get_mut(&key).and_then(|line| line.next.take());
            let Some(next) = next else {
                lines.remove(&key);
                drop(lines);
                std::mem::forget(cleared);
                // Whoever waits for its end looks again.
                self.shared.sync.running.send_modify(|_| {});
                return;
            };
            (wanted, report) = next;
        }
    }

    /// One round: over as many connections as it takes where a store has got new ids, or a token has run out.
    pub(super) async fn attempts(
        &self,
        remote: &Remote,
        wanted: Wanted,
        asks: &Arc<Asks>,
        stop: watch::Receiver<bool>,
    ) -> SyncReport {
        let mut total = SyncReport::default();
        let mut refreshed = false;
        for _ in 0..STARTS_MAX {
            let (report, result) = self.attempt(remote, wanted, asks, stop.clone()).await;
            total = report.after(total);
            let error = match result {
                Ok(Ended::Stopped) => return SyncReport { error: ended_early().error, ..total },
                Ok(Ended::Shut) => SyncError::Paused,
                Ok(_) => return total,
                Err(error) => error,
            };
            match error.reaction(remote.has_source() && !refreshed) {
                Reaction::Again => {}
                Reaction::FreshToken => {
                    refreshed = true;
                    if let Err(error) = remote.refresh().await {
                        total.error = Some(error);
                        return total;
                    }
                }
                _ => {
                    total.error = Some(error);
                    return total;
                }
            }
        }
        total.error = Some(SyncError::Session(SessionError::Copied));
        total
    }

    async fn attempt(
        &self,
        remote: &Remote,
        wanted: Wanted,
        asks: &Arc<Asks>,
        stop: watch::Receiver<bool>,
    ) -> (SyncReport, Result<Ended, SyncError>) {
        let pauses = *self.shared.sync.pauses.borrow();
        let push = wanted.push && pauses.uploads == 0;
        let pull = wanted.pull.filter(|_| pauses.downloads == 0);
        let held = Held { uploads: wanted.push && !push, downloads: wanted.pull.is_some() && pull.is_none() };
        // What a hub has never met it first takes.
        let uploads = pauses.uploads > 0 && !self.has_met().await;
        if pauses.all > 0 || uploads || !push && pull.is_none() {
            let held = Held { uploads: wanted.push, downloads: wanted.pull.is_some() };
            return (SyncReport { held, ..self.offered(push).await }, Err(SyncError::Paused));
        }
        let want = if pull.is_some() { Want::Once } else { Want::Nothing };
        let Pull { registers, until } = pull.unwrap_or_default();
        let bounds = Bounds { registers, until };
        let gate = Gate::new(&self.shared.sync, false, pull.is_some(), push);
        let (mut report, result) = self.session_with(remote, want, (bounds, gate), |_| {}, asks, stop).await;
        if report.peer.is_empty() {
            report = self.offered(push).await;
        }
        let is_whole = push && pull.is_some() && !report.pulled.more && report.pushed.deferred == 0;
        if result == Ok(Ended::Done) && is_whole {
            let now = self.shared.clock.now();
            if self.shared.sync.succeeded(now) {
                let _ = self.note_success(now).await;
            }
        }
        report.held = held;
        if result == Ok(Ended::Shut) {
            // Which of the two it was does not matter: whoever wanted either has not got all of it.
            report.held = Held { uploads: wanted.push, downloads: wanted.pull.is_some() };
        }
        // What a guard leaves out is not done, though the rest is.
        let result = if result.is_ok() && report.held != Held::default() { Ok(Ended::Shut) } else { result };
        (report, result)
    }

    /// The report of a sync that met nobody: what was to be sent is pending still.
    async fn offered(&self, push: bool) -> SyncReport {
        let mut report = SyncReport::default();
        if push && let Some((pending, ..)) = self.pending_now().await {
            (report.pushed.offered, report.pushed.deferred) = (pending, pending);
        }
        report
    }

    /// Where the store is: this changes with everything that is exchanged.
    async fn standing(&self) -> Option<(usize, u64)> {
        let (pending, ..) = self.pending_now().await?;
        Some((pending, self.head_seq().await.ok()?))
    }
}

/// Takes the line away if its task ends otherwise than in order, so that the next call starts one.
struct Cleared<'d> {
    db: &'d Db,
    key: &'d str,
}

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        let lines: &mut HashMap<String, Line> =
            &mut self.db.shared.sync.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.remove(self.key);
    }
}

fn ended_early() -> SyncReport {
    let error = SyncError::Broken("it was given up before its end".to_owned());
    SyncReport { error: Some(error), ..SyncReport::default() }
}
