//! Whether a hub can do its work: its store can be written, the disk has room, and it is not about to stop.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rivus_core::store::Store;
use tokio::time::Instant;

use super::metrics::{Metrics, Readings};
use crate::Db;

/// What is known of a hub's health.
#[derive(Debug)]
pub(super) struct Health {
    db: Db,
    pub(super) metrics: Arc<Metrics>,
    path: Option<PathBuf>,
    disk_free_min: u64,
    stopping: AtomicBool,
    /// The last trial, so that asking often costs the disk nothing.
    tried: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Health {
    pub(super) fn new(db: Db, metrics: Arc<Metrics>, disk_free_min: u64) -> Self {
        let path = db.path();
        Self { db, metrics, path, disk_free_min, stopping: AtomicBool::new(false), tried: Mutex::default() }
    }

    /// From now on it is not ready.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Why it is not ready, if it is not. Touches the disk.
    pub(super) fn ready(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Acquire) {
            return Err("the hub is shutting down".to_owned());
        }
        if let Some(free) = self.disk_free()
            && free < self.disk_free_min
        {
            return Err(format!(
                "the disk is full: {free} bytes are free, {} are needed",
                self.disk_free_min
            ));
        }
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, result)) = &*tried
            && at.elapsed() < TRIAL_KEPT
        {
            return result.clone();
        }
        let result = self.try_store();
        *tried = Some((Instant::now(), result.clone()));
        result
    }

    /// Reads from the store, and writes beside it what a commit would write at least.
    fn try_store(&self) -> Result<(), String> {
        let read = self.db.lock().map_err(|error| error.to_string());
        read?.store().head().map_err(|error| format!("the store cannot be read: {error}"))?;
        let Some(path) = &self.path else { return Ok(()) };
        let mut name = path.clone().into_os_string();
        name.push("-probe");
        let probe = Path::new(&name);
        let written = write(probe);
        let removed = std::fs::remove_file(probe);
        written.and(removed).map_err(|error| format!("the store's folder cannot be written: {error}"))
    }

    /// The page of metrics. Touches the disk.
    pub(super) fn metrics(&self) -> String {
        let seq = self.db.lock().ok().and_then(|replica| replica.head().ok()).map_or(0, |head| head.seq);
        let leases = self.db.leases().unwrap_or_default();
        let running = leases.iter().filter(|lease| lease.running);
        let leases = (running.clone().count(), running.map(|lease| lease.behind).max().unwrap_or(0));
        let size = |ending: &str| {
            let mut name = self.path.clone()?.into_os_string();
            name.push(ending);
            std::fs::metadata(name).ok().map(|file| file.len())
        };
        self.metrics.text(Readings {
            is_ready: self.ready().is_ok(),
            seq,
            store_bytes: size("").map(|bytes| bytes + size("-wal").unwrap_or(0)),
            disk_free_bytes: self.disk_free(),
            leases,
        })
    }

    #[cfg(unix)]
    fn disk_free(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(self.path.as_ref()?.parent()?).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    #[cfg(not(unix))]
    fn disk_free(&self) -> Option<u64> {
        None
    }
}

fn write(probe: &Path) -> std::io::Result<()> {
    std::fs::write(probe, [0; PROBE_BYTES])?;
    std::fs::File::open(probe)?.sync_all()
}

/// How long a trial is good for.
const TRIAL_KEPT: Duration = Duration::from_secs(5);
/// How much is written: a page of the store, and a frame of its log around it.
const PROBE_BYTES: usize = 8 << 10;
