//! Forgetting what is deleted for everybody, from time to time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::metrics::Metrics;
use crate::Db;

/// How a hub collects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Collecting {
    pub(super) lease: Duration,
    pub(super) every: Option<Duration>,
    pub(super) grace: Duration,
}

impl Default for Collecting {
    fn default() -> Self {
        Self {
            lease: Duration::from_millis(rivus_core::replica::LEASE_DEFAULT_MS),
            every: Some(EVERY),
            grace: Duration::from_millis(rivus_core::replica::GRACE_DEFAULT_MS),
        }
    }
}

/// Collects for as long as the hub runs.
pub(super) async fn run(
    db: Db,
    collecting: Collecting,
    metrics: Arc<Metrics>,
    mut stopped: watch::Receiver<bool>,
) {
    let Some(every) = collecting.every else { return };
    // A hub that is started anew every day collects as well.
    let mut wait = every.min(FIRST);
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        wait = every;
        let (db, grace) = (db.clone(), collecting.grace);
        match tokio::task::spawn_blocking(move || db.collect(grace)).await {
            Ok(Ok(done)) => {
                metrics.collected.add(done.entities);
                metrics.collected_registers.add(usize::try_from(done.registers).unwrap_or(usize::MAX));
                metrics.collected_keys.add(done.keys);
                metrics.trimmed_registers.add(done.trimmed);
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "nothing is collected");
                metrics.collections_failed.add(1);
            }
            // The runtime is going down.
            Err(_) => return,
        }
    }
}

/// How often, unless told otherwise.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long after its start a hub collects first, at the latest.
const FIRST: Duration = Duration::from_secs(10 * 60);
