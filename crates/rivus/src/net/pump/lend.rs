//! Lending session and replica to the thread that works with them, when it is the connection's turn.

use std::sync::Arc;
use std::time::Duration;

use rivus_core::clock::Millis;
use rivus_core::replica::Replica;
use rivus_core::session::{PageAim, Session};
use rivus_core::store::Store as _;
use rivus_core::wire::PAGE_BYTES_AIM;
use tokio::time::Instant;

use super::{Host, Pump, Sight};
use crate::net::SyncError;
use crate::net::client::pending;
use crate::net::turns::Size;

/// For how long the replica is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Length {
    /// So short that changing threads would take longer.
    Moment,
    /// Perhaps long enough to hold up other tasks.
    Unknown,
}

/// What is done at the replica in one turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) length: Length,
    pub(super) size: Size,
    /// The connection does not pay for it.
    pub(super) is_free: bool,
}

impl Work {
    pub(super) const UNKNOWN: Self = Self { length: Length::Unknown, size: Size::Full, is_free: false };
}

/// How much a page tells.
fn aim(size: Size) -> PageAim {
    match size {
        Size::Short => PageAim { bytes: SHORT_BYTES_MAX, rows: SHORT_ROWS_MAX },
        Size::Full => PageAim { bytes: PAGE_BYTES_AIM, rows: PAGE_BYTES_AIM / ROW_BYTES },
    }
}

/// Frames up to this length, in bytes, take a short turn.
pub(super) const SHORT_BYTES_MAX: usize = 16 << 10;

/// Rows of which nothing is told take as long as so many bytes that are.
const ROW_BYTES: usize = 16;
const SHORT_ROWS_MAX: usize = SHORT_BYTES_MAX / ROW_BYTES;

/// How long a connection keeps its thread, frame after frame, before others have it.
const KEPT_MAX: Duration = Duration::from_millis(1);

/// Frames up to this length are made and taken in a moment.
pub(super) const MOMENT_BYTES_MAX: usize = 4096;

impl<H: Host> Pump<H> {
    /// Lends session and replica to a blocking thread, when it is this connection's turn. What comes `before` and `after`
    /// needs neither: others have the replica meanwhile.
    pub(super) async fn blocking<B, D, R: Send + 'static>(
        &mut self,
        Work { length, size, is_free }: Work,
        (before, after): (
            impl FnOnce() -> Result<B, SyncError> + Send + 'static,
            impl FnOnce(D) -> R + Send + 'static,
        ),
        act: impl FnOnce(&mut Session, &mut Replica<H::Store>, Millis, B) -> D + Send + 'static,
    ) -> Result<R, SyncError> {
        let pass = match &self.turn {
            Some(turn) => {
                let since = Instant::now();
                let pass = turn.come(size).await;
                self.waited += since.elapsed();
                Some(pass)
            }
            None => None,
        };
        let Some(mut session) = self.session.take() else {
            return Err(SyncError::Broken("the session was lost in a panic".to_owned()));
        };
        if let Some(pass) = &pass {
            session.set_page_aim(aim(pass.size));
        }
        let (host, tells) = (Arc::clone(&self.host), self.tells);
        // Reading the head takes as long as a short frame.
        let lags = self.watch.is_some() && length == Length::Unknown;
        let span = tracing::Span::current();
        let work = move || {
            let _entered = span.enter();
            let begun = std::time::Instant::now();
            let before = match before() {
                Ok(before) => before,
                Err(error) => return (Err(error), session, begun.elapsed()),
            };
            let mut used = begun.elapsed();
            let done = host.with(|replica, now| {
                // Waiting for others is free.
                let begun = std::time::Instant::now();
                replica.store().begin_reading();
                let done = act(&mut session, replica, now, before);
                replica.store().end_reading();
                let head = (tells || lags).then(|| replica.head().ok().map(|head| head.seq)).flatten();
                let lag = head.filter(|_| lags).and_then(|head| session.lag(head));
                used += begun.elapsed();
                if !tells {
                    return (done, None, (0, None), lag);
                }
                // An edit that came in since the last frame is pending, though the session has not met it yet.
                let pending = pending(replica).unwrap_or((usize::MAX, None));
                // What waits for somebody to decide about a refused edit does not hold up whoever waits for a sync.
                let is_left = || session.left_over(replica).map_or(true, |left| left.deferred > 0);
                let is_synced = |seq: &u64| {
                    let is_done = session.reads() && session.is_synced(*seq) && !session.withholds(*seq);
                    is_done && (pending.0 == 0 || !is_left())
                };
                (done, head.filter(is_synced), pending, lag)
            });
            let begun = std::time::Instant::now();
            let done = done.map(|(done, up_to, pending, lag)| (after(done), up_to, pending, lag));
            (done, session, used + begun.elapsed())
        };
        let is_inline = length == Length::Moment && self.host.is_free();
        let (done, mut session, used) = if is_inline {
            work()
        } else {
            tokio::task::spawn_blocking(work).await.map_err(|error| SyncError::Broken(error.to_string()))?
        };
        if let (Some(turn), Some(pass)) = (&self.turn, pass) {
            turn.pay(pass, if is_free { Duration::ZERO } else { used });
        }
        let mut synced = self.hear(&mut session);
        let stand = session.stand();
        synced.stand = Some(stand);
        self.report.pulled.position = self.report.pulled.position.max(stand.read.done);
        self.session = Some(session);
        let (done, up_to, pending, lag) = done?;
        if let (Some(watch), Some(lag)) = (&mut self.watch, lag) {
            watch(Sight::Lag(lag));
        }
        synced.up_to = up_to;
        (synced.pending, synced.pending_since) = pending;
        if synced != self.synced {
            self.synced = synced;
            (self.listen)(synced);
        }
        // A flood must not keep a thread to itself, whatever its frames are.
        self.kept = if is_inline { self.kept + used } else { Duration::ZERO };
        if self.turn.is_some() && self.kept >= KEPT_MAX {
            self.kept = Duration::ZERO;
            tokio::task::yield_now().await;
        }
        Ok(done)
    }
}
