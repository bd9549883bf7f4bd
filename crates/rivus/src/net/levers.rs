//! What an application sets while it runs: when to sync, how much, and not now.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rivus_core::clock::Millis;
use rivus_core::replica::SUCCESS_NOTED_MS;
use tokio::sync::watch;
use tokio::time::Instant;

use super::rounds::Line;
use crate::Db;
use crate::shared::Shared;

/// When a device syncs, and how much at a time. It can be changed at any time and counts from then on; a sync that is
/// asked for by hand ([`Db::sync_once`] and the like) keeps to the batch size alone.
///
/// ```
/// use std::time::Duration;
/// use rivus::{Db, Mode, Schema};
/// let db = Db::memory(Schema::open())?;
/// db.set_levers(|levers| levers.mode = Mode::Periodic { every: Duration::from_secs(900) });
/// assert_ne!(db.levers().borrow().mode, Mode::Live);
/// # Ok::<(), rivus::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Levers {
    /// Live, or from time to time.
    pub mode: Mode,
    /// Edits are sent once no other was made for a while. Without it: at once if live, else with the next round.
    pub debounce: Option<Debounce>,
    /// The most edits that go in one message and are judged together; also bounded by bytes.
    pub batch_edits: usize,
    /// How many bytes a connection may use in a period; then it ends, and goes on with the next one.
    pub budget: Option<Budget>,
}

impl Default for Levers {
    fn default() -> Self {
        Self { mode: Mode::Live, debounce: None, batch_edits: usize::MAX, budget: None }
    }
}

/// Whether a connection stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// It stays, and changes go as they come.
    Live,
    /// It is made for a round from time to time.
    Periodic {
        /// From the end of a round to the next.
        every: Duration,
    },
}

/// How long edits wait for more of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Debounce {
    /// Sent once so long no further edit was made.
    pub quiet: Duration,
    /// Sent at the latest so long after the first, however many follow.
    pub most: Duration,
}

impl Debounce {
    /// When edits go of which these were the first and the last; `None` if that is never.
    pub(super) fn due(self, first: Instant, last: Instant) -> Option<Instant> {
        [last.checked_add(self.quiet), first.checked_add(self.most)].into_iter().flatten().min()
    }
}

/// How many bytes may go both ways together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// How many.
    pub bytes: u64,
    /// In how long a time.
    pub per: Duration,
}

/// How often each direction is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Pauses {
    pub(super) uploads: usize,
    pub(super) downloads: usize,
    pub(super) all: usize,
}

impl Pauses {
    /// Whether nothing may go either way.
    pub(super) fn stop_all(self) -> bool {
        self.all > 0 || self.uploads > 0 && self.downloads > 0
    }
}

/// When a sync last succeeded, and when that was noted in the store.
#[derive(Clone, Copy, Debug, Default)]
struct Success {
    at: Option<Millis>,
    noted: Option<Millis>,
}

/// Everything about syncing that the handles of one database share.
#[derive(Debug)]
pub(crate) struct Control {
    pub(super) levers: watch::Sender<Levers>,
    pub(super) pauses: watch::Sender<Pauses>,
    /// How many sessions of this device run.
    pub(super) running: watch::Sender<usize>,
    /// Counts calls by hand, by address: who waits to connect there goes on.
    nudges: Mutex<HashMap<String, watch::Sender<u64>>>,
    /// Counts commits of edits made here.
    pub(crate) edits: watch::Sender<u64>,
    last_success: Mutex<Success>,
    /// The keys of edits that were sent and not answered.
    pub(super) sent: Mutex<BTreeSet<u64>>,
    /// What connections have used of the budget.
    pub(super) spent: Arc<Mutex<Spent>>,
    /// The rounds under way, by remote.
    pub(super) lines: Mutex<HashMap<String, Line>>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            levers: watch::Sender::new(Levers::default()),
            pauses: watch::Sender::default(),
            running: watch::Sender::default(),
            nudges: Mutex::default(),
            edits: watch::Sender::default(),
            last_success: Mutex::default(),
            sent: Mutex::default(),
            spent: Arc::new(Mutex::new(Spent::new())),
            lines: Mutex::default(),
        }
    }
}

impl Control {
    /// Counts a session until it is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Running {
        self.running.send_modify(|running| *running += 1);
        Running { control: Arc::clone(self) }
    }

    /// Has those go on that wait to connect there.
    pub(super) fn nudge(&self, url: &str) {
        let nudges = self.nudges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nudges) = nudges.get(url) {
            nudges.send_modify(|nudges| *nudges += 1);
        }
    }

    /// Hears of calls by hand to that address.
    pub(super) fn nudges(&self, url: &str) -> watch::Receiver<u64> {
        let mut all = self.nudges.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, nudges| nudges.receiver_count() > 0);
        all.entry(url.to_owned()).or_default().subscribe()
    }

    /// Says whether that is to be noted in the store.
    pub(super) fn succeeded(&self, now: Millis) -> bool {
        let mut success = self.last_success.lock().unwrap_or_else(PoisonError::into_inner);
        success.at = Some(now);
        let is_due =
            success.noted.is_none_or(|noted| !(0..SUCCESS_NOTED_MS).contains(&now.0.saturating_sub(noted.0)));
        if is_due {
            success.noted = Some(now);
        }
        is_due
    }

    pub(super) fn last_success(&self) -> Option<Millis> {
        self.last_success.lock().unwrap_or_else(PoisonError::into_inner).at
    }

    /// Notes pending edits that were sent.
    pub(crate) fn note_sent(&self, edits: &[u64]) {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).extend(edits);
    }

    /// Notes that they were answered: what is pending then is sent again.
    pub(crate) fn note_answered(&self, edits: &[u64]) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.retain(|key| !edits.contains(key));
    }

    /// Whether an edit that is pending was sent.
    pub(crate) fn was_sent(&self, key: u64) -> bool {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).contains(&key)
    }
}

/// A session that runs.
#[derive(Debug)]
pub(super) struct Running {
    control: Arc<Control>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.control.running.send_modify(|running| *running = running.saturating_sub(1));
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Paused {
    Uploads,
    Downloads,
    All,
}

/// Holds something of the sync back until it is dropped. Several may be held at once.
///
/// ```
/// # use rivus::{Db, Schema};
/// # let db = Db::memory(Schema::open())?;
/// let saves_battery = db.pause_downloads();
/// drop(saves_battery);
/// # Ok::<(), rivus::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "the pause ends when this is dropped"]
pub struct Pause {
    shared: Arc<Shared>,
    paused: Paused,
}

impl Pause {
    fn new(db: &Db, paused: Paused) -> Self {
        let pause = Self { shared: Arc::clone(&db.shared), paused };
        pause.change(|count| count + 1);
        pause
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        self.shared.sync.pauses.send_modify(|pauses| {
            let count = match self.paused {
                Paused::Uploads => &mut pauses.uploads,
                Paused::Downloads => &mut pauses.downloads,
                Paused::All => &mut pauses.all,
            };
            *count = change(*count);
        });
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.change(|count| count.saturating_sub(1));
    }
}

impl Db {
    /// Changes when and how much this device syncs, from now on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use rivus::{Db, Debounce, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// let (quiet, most) = (Duration::from_millis(300), Duration::from_secs(5));
    /// db.set_levers(|levers| levers.debounce = Some(Debounce { quiet, most }));
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn set_levers(&self, change: impl FnOnce(&mut Levers)) {
        self.shared.sync.levers.send_modify(change);
    }

    /// The levers as they are set, and every change of them.
    ///
    /// ```
    /// # use rivus::{Db, Mode, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// assert_eq!(db.levers().borrow().mode, Mode::Live);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    #[must_use]
    pub fn levers(&self) -> watch::Receiver<Levers> {
        self.shared.sync.levers.subscribe()
    }

    /// Sends no edits until the guard is dropped. What others write comes still, except from a hub that this store has
    /// never met: there it waits.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// let drafting = db.pause_uploads();
    /// db.put("task", "t1", [("title", "not yet".into())])?;
    /// drop(drafting);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn pause_uploads(&self) -> Pause {
        Pause::new(self, Paused::Uploads)
    }

    /// Takes no changes until the guard is dropped. Edits are sent still.
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let db = Db::memory(Schema::open())?;
    /// let on_mobile_data = db.pause_downloads();
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn pause_downloads(&self) -> Pause {
        Pause::new(self, Paused::Downloads)
    }

    /// Stops every sync of this device and returns once nothing moves any more; nothing will until the guard is dropped.
    /// What is under way is cut between two frames, and goes on from there later. For the end of the time that an
    /// application may run in the background.
    ///
    /// It does not stop serving ([`Hub::shutdown`](crate::Hub::shutdown) does).
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let db = Db::memory(Schema::open())?;
    /// let frozen = db.freeze().await;
    /// let report = db.sync_once(&"ws://127.0.0.1:1".into()).await;
    /// assert_eq!(report.error, Some(rivus::SyncError::Paused));
    /// drop(frozen);
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn freeze(&self) -> Pause {
        let pause = Pause::new(self, Paused::All);
        let mut running = self.shared.sync.running.subscribe();
        let _ = running.wait_for(|running| *running == 0).await;
        pause
    }
}

/// What levers and guards mean for one session while it runs.
#[derive(Debug)]
pub(crate) struct Gate {
    levers: watch::Receiver<Levers>,
    pauses: watch::Receiver<Pauses>,
    edits: watch::Receiver<u64>,
    /// Whether the session is to stay.
    live: bool,
    pulls: bool,
    /// Whether the round is to bring nothing anyway.
    pushes: bool,
    /// Edits wait for more of them: since when, and the last one.
    waiting: Option<(Instant, Instant)>,
    /// What is used of the budget, if this session goes on it.
    spent: Option<Arc<Mutex<Spent>>>,
}

/// What was used of the budget.
#[derive(Debug)]
pub(crate) struct Spent {
    since: Instant,
    bytes: u64,
}

impl Spent {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), bytes: 0 }
    }

    /// Begins a period if the last one is over.
    fn roll(&mut self, budget: Budget) {
        let now = Instant::now();
        if self.since.checked_add(budget.per).is_some_and(|until| until <= now) {
            *self = Self { since: now, bytes: 0 };
        }
    }

    fn is_over(&mut self, budget: Budget) -> bool {
        self.roll(budget);
        self.bytes >= budget.bytes
    }
}

/// Until when nothing may go because of the budget, if so: `None` within is for ever.
pub(super) fn over_budget(spent: &Mutex<Spent>, budget: Option<Budget>) -> Option<Option<Instant>> {
    let budget = budget?;
    let mut spent = spent.lock().unwrap_or_else(PoisonError::into_inner);
    spent.is_over(budget).then(|| spent.since.checked_add(budget.per))
}

impl Gate {
    pub(super) fn new(control: &Control, live: bool, pulls: bool, pushes: bool) -> Self {
        let (levers, pauses) = (control.levers.subscribe(), control.pauses.subscribe());
        let edits = control.edits.subscribe();
        Self { levers, pauses, edits, live, pulls, pushes, waiting: None, spent: None }
    }

    /// Counts what goes, and ends the session with the frame that goes beyond the budget.
    pub(super) fn on_budget(mut self, spent: Arc<Mutex<Spent>>) -> Self {
        self.spent = Some(spent);
        self
    }

    pub(super) fn spend(&self, bytes: u64) {
        let Some(spent) = &self.spent else { return };
        let mut spent = spent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(budget) = self.levers.borrow().budget {
            spent.roll(budget);
        }
        spent.bytes += bytes;
    }

    pub(super) fn is_spent(&self) -> bool {
        let budget = self.levers.borrow().budget;
        self.spent.as_ref().is_some_and(|spent| over_budget(spent, budget).is_some())
    }

    /// Waits until the session must end.
    pub(super) async fn shut(&self) {
        let (mut levers, mut pauses) = (self.levers.clone(), self.pauses.clone());
        while !self.is_shut() {
            let changed = tokio::select! {
                changed = levers.changed() => changed,
                changed = pauses.changed() => changed,
            };
            if changed.is_err() {
                // The database is gone: nothing will change any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether the session must end.
    pub(super) fn is_shut(&self) -> bool {
        let pauses = *self.pauses.borrow();
        let left = self.live && self.levers.borrow().mode != Mode::Live;
        pauses.stop_all() || self.pulls && pauses.downloads > 0 || left
    }

    /// Whether edits are held back now.
    pub(super) fn holds(&mut self) -> bool {
        self.note_edits();
        let debounce = self.levers.borrow().debounce;
        let is_over = self.due().is_some_and(|due| due <= Instant::now());
        if is_over || debounce.is_none() {
            self.waiting = None;
        }
        !self.pushes || self.pauses.borrow().uploads > 0 || self.waiting.is_some()
    }

    /// Lets edits wait that were made since the last look. Asked before anything is sent, whatever woke the session.
    fn note_edits(&mut self) {
        if !self.edits.has_changed().unwrap_or(false) {
            return;
        }
        self.edits.mark_unchanged();
        if self.live && self.levers.borrow().debounce.is_some() {
            let now = Instant::now();
            self.waiting = Some((self.waiting.map_or(now, |(first, _)| first), now));
        }
    }

    /// Tells of edits that no look has noted yet, if such have to wait.
    pub(super) fn unseen(&self) -> Option<watch::Receiver<u64>> {
        let waits = self.live && self.levers.borrow().debounce.is_some();
        waits.then(|| self.edits.clone())
    }

    pub(super) fn batch_edits(&self) -> usize {
        self.levers.borrow().batch_edits
    }

    /// When edits that wait are sent.
    pub(super) fn due(&self) -> Option<Instant> {
        let (first, last) = self.waiting?;
        let debounce = self.levers.borrow().debounce?;
        debounce.due(first, last)
    }

    /// Waits until something has changed.
    pub(super) async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.levers.changed() => changed,
            changed = self.pauses.changed() => changed,
            changed = self.edits.changed(), if self.live => {
                // Not seen yet: that is noted before the next frame.
                self.edits.mark_changed();
                changed
            }
        };
        if changed.is_err() {
            // The database is gone: nothing will change any more.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(control: &Control) -> Gate {
        Gate::new(control, true, true, true)
    }

    #[tokio::test(start_paused = true)]
    async fn edits_wait_for_quiet_and_at_most_for_the_longest_wait() {
        let control = Control::default();
        let (quiet, most) = (Duration::from_millis(300), Duration::from_secs(1));
        control.levers.send_modify(|levers| levers.debounce = Some(Debounce { quiet, most }));
        let mut gate = gate(&control);
        let (start, step) = (Instant::now(), Duration::from_millis(200));
        assert!(!gate.holds(), "what was pending goes at once");
        let mut held = Vec::new();
        for _ in 0..7 {
            control.edits.send_modify(|edits| *edits += 1);
            held.push(gate.holds());
            tokio::time::advance(step).await;
        }
        assert_eq!(
            held,
            [true, true, true, true, true, false, true],
            "a second after the first, typing or not"
        );
        assert_eq!(gate.due(), Some(start + step * 6 + quiet));
        tokio::time::advance(quiet).await;
        assert!(!gate.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lever_that_is_pulled_back_lets_go_what_waits() {
        let control = Control::default();
        let wait = Duration::from_secs(3600);
        control.levers.send_modify(|levers| levers.debounce = Some(Debounce { quiet: wait, most: wait }));
        let mut gate = gate(&control);
        control.edits.send_modify(|edits| *edits += 1);
        assert!(gate.holds());
        control.levers.send_modify(|levers| levers.debounce = None);
        gate.changed().await;
        assert!(!gate.holds() && !gate.is_shut());
        control.levers.send_modify(|levers| levers.mode = Mode::Periodic { every: wait });
        assert!(gate.is_shut(), "a live session ends");
    }
}
