//! Hearing of what other processes commit to the file.
//!
//! A thread looks while somebody listens, and only then. It holds no handle of the database: it ends by itself once
//! the last one is gone, or nobody listens any more, and keeps no process alive.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rivus_core::store::Store;
use tokio::sync::watch;

use crate::Error;
use crate::any_store::AnyStore;
use crate::shared::Shared;

/// What listens for as long as it is held.
#[derive(Debug)]
pub(crate) struct Listening {
    _changes: watch::Receiver<u64>,
}

/// Whether a thread is looking.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    is_on: Mutex<bool>,
}

/// How far a thread has looked.
#[derive(Clone, Copy, Debug)]
struct Seen {
    others: Option<i64>,
    seq: u64,
}

impl Shared {
    /// Counts as a listener until it is dropped, beside subscribers.
    pub(crate) fn listen(self: &Arc<Self>) -> Listening {
        let listening = Listening { _changes: self.changes.subscribe() };
        self.look();
        listening
    }

    /// Has a thread look for commits of others, from this moment on, if none does. Called after the listener has
    /// subscribed.
    pub(crate) fn look(self: &Arc<Self>) {
        let mut is_on = self.watch.is_on.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_on {
            return;
        }
        let seen = match self.seen() {
            Ok(Some(seen)) => Some(seen),
            // Nobody else can write.
            Ok(None) => return,
            // From inside an edit, or the file cannot be read just now: the thread begins as soon as it can.
            Err(_) => None,
        };
        let weak = Arc::downgrade(self);
        let look = move || {
            let mut seen = seen;
            loop {
                std::thread::sleep(LOOK_EVERY);
                let Some(shared) = weak.upgrade() else { return };
                if !shared.is_heard() {
                    return;
                }
                shared.catch_up(&mut seen);
            }
        };
        match std::thread::Builder::new().name("rivus-others".to_owned()).spawn(look) {
            Ok(_) => *is_on = true,
            Err(error) => tracing::warn!(%error, "commits of other processes are not told"),
        }
    }

    /// Whether anybody listens; if not, whoever comes next needs a new thread.
    fn is_heard(&self) -> bool {
        let mut is_on = self.watch.is_on.lock().unwrap_or_else(PoisonError::into_inner);
        *is_on = self.events.receiver_count() + self.changes.receiver_count() > 0;
        *is_on
    }

    /// Where the file stands; `None` if nobody else can write it.
    fn seen(&self) -> Result<Option<Seen>, Error> {
        let replica = self.lock()?;
        // In this order: a commit in between is looked at once more, and found to be seen.
        let others = replica.store().others()?;
        let seq = replica.head()?.seq;
        Ok(others.is_some().then_some(Seen { others, seq }))
    }

    /// Tells of what others have committed. What cannot be read now is read the next time.
    fn catch_up(&self, seen: &mut Option<Seen>) {
        if seen.is_none() {
            *seen = self.seen().ok().flatten();
        }
        let Some(seen) = seen else { return };
        // The lock is given back after each step, so that nobody waits for all of them.
        while self.step(seen).unwrap_or_else(|error| {
            tracing::debug!(%error, "commits of other processes are told later");
            false
        }) {}
    }

    /// One step; whether there is more.
    fn step(&self, seen: &mut Seen) -> Result<bool, Error> {
        let mut replica = self.lock()?;
        let others = replica.store().others()?;
        if others == seen.others {
            return Ok(false);
        }
        let own = replica.store().own();
        let noticed = replica.notice(seen.seq, |seq| own.contains(seq))?;
        seen.seq = noticed.seq;
        // Told even if no row has changed: edits may be pending no more.
        self.sync.edits.send_modify(|edits| *edits += 1);
        self.changes.send_modify(|changes| *changes += 1);
        if noticed.is_all {
            seen.others = others;
        }
        Ok(!noticed.is_all)
    }
}

/// The seqs that commits through this opening took, those of late.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own {
    /// First and last of each run, ascending.
    runs: VecDeque<(u64, u64)>,
}

impl Own {
    /// Notes a commit of so many rows, the last of which took `seq`.
    pub(crate) fn note(&mut self, seq: u64, rows: u64) {
        if rows == 0 {
            return;
        }
        let first = seq.saturating_sub(rows) + 1;
        match self.runs.back_mut() {
            Some((_, last)) if *last + 1 == first => *last = seq,
            _ => self.runs.push_back((first, seq)),
        }
        if self.runs.len() > RUNS_MAX {
            self.runs.pop_front();
        }
    }

    fn contains(&self, seq: u64) -> bool {
        self.runs.iter().rev().any(|(first, last)| (*first..=*last).contains(&seq))
    }
}

impl AnyStore {
    /// The seqs that this opening's commits took.
    fn own(&self) -> Own {
        match self {
            Self::Memory(_) => Own::default(),
            Self::Sqlite(_, own) => own.clone(),
        }
    }
}

impl From<rivus_sqlite::SqliteStore> for AnyStore {
    fn from(store: rivus_sqlite::SqliteStore) -> Self {
        Self::Sqlite(Box::new(store), Own::default())
    }
}

/// So often a thread looks: a hundredth of a millisecond's work.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How many runs of own seqs are remembered. What is forgotten is told twice.
const RUNS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Db, Schema};

    #[test]
    fn the_last_runs_of_own_seqs_are_known_and_join() {
        let mut own = Own::default();
        own.note(3, 2);
        own.note(3, 0);
        own.note(5, 2);
        own.note(9, 1);
        assert_eq!(own.runs, [(2, 5), (9, 9)]);
        assert_eq!([1, 2, 5, 6, 9, 10].map(|seq| own.contains(seq)), [false, true, true, false, true, false]);
        for seq in 1..=1000 {
            own.note(10 + 2 * seq, 1);
        }
        assert_eq!((own.runs.len(), own.contains(2010), own.contains(9)), (RUNS_MAX, true, false));
    }

    #[tokio::test]
    async fn connections_are_woken_by_what_other_openings_commit_and_not_after_they_end() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = [0, 1].map(|_| Db::open(folder.path().join("app.db"), Schema::open()).unwrap());
        let mut changes = one.shared.changes.subscribe();
        let listening = one.shared.listen();
        other.put("task", "t", [("n", 1.into())]).unwrap();
        tokio::time::timeout(Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
        // Commits that write no rows count as well: here the ids of a third opening.
        changes.mark_unchanged();
        let _third = Db::open(folder.path().join("app.db"), Schema::open()).unwrap();
        tokio::time::timeout(Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
        drop((changes, listening));
        assert!(!one.shared.is_heard());
        // Whoever listens then is told again.
        let mut changes = one.shared.changes.subscribe();
        one.shared.look();
        other.put("task", "t", [("n", 2.into())]).unwrap();
        tokio::time::timeout(Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
    }
}
