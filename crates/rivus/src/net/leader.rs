//! Whose turn it is: of the connections that processes keep from one file to one address, one at a time connects.
//!
//! Owns the wait of the others. Knows nothing of sessions: two of them at once, from two openings of one file, are
//! safe, so that the lead is a matter of economy and needs no fence.

use std::time::Duration;

use rivus_core::session::Want;
use rivus_sqlite::Lead;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use xxhash_rust::xxh3::xxh3_64;

use super::Remote;
use super::fetch::Asks;
use super::levers::Gate;
use super::pump::{Bounds, Ended, told_to};
use crate::Db;
use crate::any_store::AnyStore;

/// The turn to connect, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _lead: Option<Lead>,
}

/// Waits for the turn to keep a connection from this database to `remote`; `None` if told to stop before. Calls
/// `following` if it has to wait.
///
/// What is asked of the connection meanwhile is done in sessions of its own.
pub(super) async fn turn(
    db: &Db,
    remote: &Remote,
    asks: &std::sync::Arc<Asks>,
    stop: &mut watch::Receiver<bool>,
    following: impl FnOnce(),
) -> Option<Turn> {
    let Some(mut lead) = lead(db.clone(), remote).await else { return Some(Turn { _lead: None }) };
    let (mut following, mut not_before) = (Some(following), Instant::now());
    loop {
        match lead.try_take() {
            Ok(true) => return Some(Turn { _lead: Some(lead) }),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "syncing beside other processes");
                return Some(Turn { _lead: None });
            }
        }
        if let Some(following) = following.take() {
            tracing::info!(url = remote.url(), "another process syncs this file");
            following();
        }
        let gate = Gate::new(&db.shared.sync, false, true, true);
        tokio::select! {
            () = told_to(stop) => return None,
            () = asks.notify.notified(), if Instant::now() >= not_before && !gate.is_shut() => {
                let within = (Bounds::default(), gate);
                let session = db.session_with(remote, Want::Once, within, |_| {}, asks, stop.clone());
                let ended = session.await.1;
                if let Err(error) = &ended {
                    tracing::info!(url = remote.url(), %error, "cannot fetch yet");
                }
                if ended != Ok(Ended::Done) {
                    asks.notify.notify_one();
                    not_before = Instant::now() + ASK_AGAIN;
                }
            }
            () = sleep(TRY_EVERY) => {}
        }
    }
}

/// A place in the queue; `None` if there is none, so that nobody is waited for.
async fn lead(db: Db, remote: &Remote) -> Option<Lead> {
    let task = format!("sync-{:016x}", xxh3_64(remote.place().as_bytes()));
    let queue = move || match db.lock().ok()?.store() {
        AnyStore::Sqlite(store, _) => match store.lead(&task) {
            Ok(lead) => lead,
            Err(error) => {
                tracing::warn!(%error, "syncing beside other processes");
                None
            }
        },
        AnyStore::Memory(_) => None,
    };
    tokio::task::spawn_blocking(queue).await.ok().flatten()
}

/// So often a follower asks for the lead: it has it at most so long after the leader has ended. A wait for the lock
/// itself would be sooner and cannot be given up.
const TRY_EVERY: Duration = Duration::from_millis(100);
/// So long what could not be fetched waits for the next try.
const ASK_AGAIN: Duration = Duration::from_secs(1);
