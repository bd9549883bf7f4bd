//! What a hub counts, and its form for Prometheus.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rivus_core::code::Code;
use rivus_core::session::SessionEvent;
use tokio::time::Instant;

use crate::net::pump::Sight;

/// What has happened since the hub was started, and what is.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) bytes_in: Counter,
    pub(super) bytes_out: Counter,
    pub(super) connections: Counter,
    pub(super) reloads_failed: Counter,
    pub(super) collected: Counter,
    pub(super) collected_registers: Counter,
    pub(super) collected_keys: Counter,
    pub(super) trimmed_registers: Counter,
    pub(super) collections_failed: Counter,
    /// By what failed.
    pub(super) handshakes_failed: Labels<&'static str>,
    /// By the code that was told.
    pub(super) turned_away: Labels<Code>,
    /// Sessions that this side or the other has ended with a code.
    pub(super) ended: Labels<Code>,
    pages_in: Counter,
    pages_out: Counter,
    registers_in: Counter,
    registers_out: Counter,
    edits_accepted: Counter,
    edits_refused: Labels<Code>,
    digests_differ: Counter,
    digests_equal: Counter,
    sessions: Mutex<BTreeMap<u64, Arc<Progress>>>,
    next_session: AtomicU64,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters by a label.
#[derive(Debug)]
pub(super) struct Labels<L>(Mutex<BTreeMap<L, u64>>);

impl<L> Default for Labels<L> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<L: Ord + Copy> Labels<L> {
    pub(super) fn one(&self, label: L) {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Some codes are chosen by others. So many are told apart, the rest is not counted.
        if counters.len() < LABELS_MAX || counters.contains_key(&label) {
            *counters.entry(label).or_default() += 1;
        }
    }

    fn each(&self, mut visit: impl FnMut(L, u64)) {
        let counters = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        counters.into_iter().for_each(|(label, count)| visit(label, count));
    }
}

/// One session, for as long as it lasts.
#[derive(Debug)]
struct Progress {
    opened: AtomicBool,
    /// How many changes it is behind.
    lag: AtomicU64,
    /// Since when it has been behind.
    since: Mutex<Option<Instant>>,
}

/// Counts what one session does. Dropping it ends the count.
#[derive(Debug)]
pub(super) struct Watcher {
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    number: u64,
}

impl Watcher {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        let progress = Arc::new(Progress {
            opened: AtomicBool::new(false),
            lag: AtomicU64::new(0),
            since: Mutex::default(),
        });
        let number = metrics.next_session.fetch_add(1, Ordering::Relaxed);
        metrics.lock_sessions().insert(number, Arc::clone(&progress));
        Self { metrics: Arc::clone(metrics), progress, number }
    }

    /// Takes what is seen of the session.
    pub(super) fn watch(&self, sight: Sight<'_>) {
        match sight {
            Sight::Event(event) => self.metrics.count(event, &self.progress),
            Sight::Lag(lag) => {
                self.progress.lag.store(lag, Ordering::Relaxed);
                let mut since = self.progress.since.lock().unwrap_or_else(PoisonError::into_inner);
                *since = if lag == 0 { None } else { Some(since.unwrap_or_else(Instant::now)) };
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.metrics.lock_sessions().remove(&self.number);
    }
}

/// What is read from elsewhere when somebody asks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Readings {
    pub(super) is_ready: bool,
    pub(super) seq: u64,
    pub(super) store_bytes: Option<u64>,
    pub(super) disk_free_bytes: Option<u64>,
    /// How many leases run, and how many changes not all of those have.
    pub(super) leases: (usize, u64),
}

impl Metrics {
    fn lock_sessions(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Progress>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, event: &SessionEvent, progress: &Progress) {
        match event {
            SessionEvent::Opened { .. } => progress.opened.store(true, Ordering::Relaxed),
            SessionEvent::Joined { registers, .. } => {
                self.pages_in.add(1);
                self.registers_in.add(*registers);
            }
            SessionEvent::Sent { registers } => {
                self.pages_out.add(1);
                self.registers_out.add(*registers);
            }
            SessionEvent::Judged { accepted, .. } => self.edits_accepted.add(*accepted),
            SessionEvent::Taken { registers, refused } => {
                self.registers_in.add(*registers);
                refused.iter().for_each(|code| self.edits_refused.one(*code));
            }
            // An authority compares nothing: it is asked where the two differ.
            SessionEvent::Diverged { .. } | SessionEvent::AskedToCompare => self.digests_differ.add(1),
            SessionEvent::Verified { .. } => self.digests_equal.add(1),
            _ => {}
        }
    }

    /// Everything in the text format of Prometheus, version 0.0.4.
    pub(super) fn text(&self, readings: Readings) -> String {
        let mut page = Page(String::with_capacity(4096));
        let (mut opened, mut lag, mut lag_seconds) = (0_u64, 0, 0.0_f64);
        for session in self.lock_sessions().values() {
            opened += u64::from(session.opened.load(Ordering::Relaxed));
            lag = lag.max(session.lag.load(Ordering::Relaxed));
            let since = *session.since.lock().unwrap_or_else(PoisonError::into_inner);
            lag_seconds = lag_seconds.max(since.map_or(0.0, |since| since.elapsed().as_secs_f64()));
        }
        page.gauge("ready", "Whether new connections are welcome", u8::from(readings.is_ready));
        page.gauge("connections", "Sessions that are open", opened);
        page.counter("connections_total", "Sockets that became a WebSocket", &self.connections);
        page.labels("turned_away_total", "Connections turned away, by code", &self.turned_away);
        page.labels(
            "handshakes_failed_total",
            "Sockets that did not become a WebSocket",
            &self.handshakes_failed,
        );
        page.labels("sessions_ended_total", "Sessions that ended with an error, by code", &self.ended);
        page.counter("bytes_in_total", "Bytes received, inside TLS", &self.bytes_in);
        page.counter("bytes_out_total", "Bytes sent, inside TLS", &self.bytes_out);
        page.counter("pages_in_total", "Pages joined", &self.pages_in);
        page.counter("pages_out_total", "Pages sent", &self.pages_out);
        page.counter("registers_in_total", "Registers received, in pages and pushes", &self.registers_in);
        page.counter("registers_out_total", "Registers sent", &self.registers_out);
        page.counter("edits_accepted_total", "Edits of devices that were accepted", &self.edits_accepted);
        page.labels(
            "edits_refused_total",
            "Edits of devices that were refused, by code",
            &self.edits_refused,
        );
        page.counter("digests_equal_total", "Digests compared and equal", &self.digests_equal);
        page.counter("digests_differ_total", "Digests compared and different: a fault", &self.digests_differ);
        page.counter(
            "reloads_failed_total",
            "Certificates or keys that could not be read again",
            &self.reloads_failed,
        );
        page.gauge("sync_lag_changes", "How many changes the slowest session is behind", lag);
        page.gauge("sync_lag_seconds", "How long the slowest session has been behind", lag_seconds);
        page.counter("collected_total", "Deleted entities that were forgotten", &self.collected);
        page.counter("collected_registers_total", "Registers of theirs", &self.collected_registers);
        page.counter("collected_keys_total", "Keys taken out that were forgotten", &self.collected_keys);
        page.counter(
            "trimmed_registers_total",
            "Registers without what was replaced",
            &self.trimmed_registers,
        );
        page.counter("collections_failed_total", "Collections that failed", &self.collections_failed);
        page.gauge("leases", "Databases that are waited for", readings.leases.0);
        page.gauge("leases_behind_changes", "How many changes not all of them have", readings.leases.1);
        page.gauge("store_seq", "The number of the last change", readings.seq);
        if let Some(bytes) = readings.store_bytes {
            page.gauge("store_bytes", "Bytes of the database and its log", bytes);
        }
        if let Some(bytes) = readings.disk_free_bytes {
            page.gauge("disk_free_bytes", "Bytes free where the database is", bytes);
        }
        page.0
    }
}

/// A page of metrics under way.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, help: &str, form: &str) {
        let _ = write!(self.0, "# HELP rivus_{name} {help}.\n# TYPE rivus_{name} {form}\n");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl fmt::Display) {
        self.head(name, help, "gauge");
        let _ = writeln!(self.0, "rivus_{name} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        self.head(name, help, "counter");
        let _ = writeln!(self.0, "rivus_{name} {}", counter.value());
    }

    fn labels<L: Ord + Copy + Label>(&mut self, name: &str, help: &str, labels: &Labels<L>) {
        self.head(name, help, "counter");
        labels.each(|label, count| {
            let _ = write!(self.0, "rivus_{name}{{");
            let _ = label.write(&mut self.0);
            let _ = writeln!(self.0, "}} {count}");
        });
    }
}

/// How a label is written.
trait Label {
    fn write(&self, to: &mut String) -> fmt::Result;
}

impl Label for Code {
    fn write(&self, to: &mut String) -> fmt::Result {
        if *self == OTHER {
            return to.write_str("code=\"other\",name=\"\"");
        }
        write!(to, "code=\"{}\",name=\"{}\"", self.0, self.name().unwrap_or_default())
    }
}

impl Label for &'static str {
    fn write(&self, to: &mut String) -> fmt::Result {
        write!(to, "reason=\"{self}\"")
    }
}

/// Stands for all codes that others tell and that are not known here.
pub(super) const OTHER: Code = Code(u16::MAX);
/// How many values of one label are told apart.
const LABELS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'t>(text: &'t str, name: &str) -> Option<&'t str> {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    }

    #[test]
    fn codes_are_told_apart_by_number_and_name_up_to_a_bound() {
        let metrics = Arc::new(Metrics::default());
        let watcher = Watcher::new(&metrics);
        let refused = vec![Code::RANK, Code::SEEN, Code::RANK];
        watcher.watch(Sight::Event(&SessionEvent::Taken { registers: 9, refused }));
        let text = metrics.text(Readings::default());
        assert_eq!(line(&text, "rivus_edits_refused_total{code=\"402\",name=\"RANK\"}"), Some("2"));
        assert_eq!(line(&text, "rivus_registers_in_total"), Some("9"));
        let all = (10_000..11_000).map(Code).collect();
        watcher.watch(Sight::Event(&SessionEvent::Taken { registers: 0, refused: all }));
        let text = metrics.text(Readings::default());
        assert_eq!(text.matches("\nrivus_edits_refused_total{").count(), LABELS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn lag_is_that_of_the_slowest_session_and_ends_with_it() {
        let metrics = Arc::new(Metrics::default());
        let lag = || {
            let text = metrics.text(Readings::default());
            ["rivus_sync_lag_changes", "rivus_sync_lag_seconds"]
                .map(|name| line(&text, name).unwrap().to_owned())
        };
        let (slow, fast) = (Watcher::new(&metrics), Watcher::new(&metrics));
        slow.watch(Sight::Lag(5));
        fast.watch(Sight::Lag(2));
        tokio::time::advance(std::time::Duration::from_secs(3)).await;
        slow.watch(Sight::Lag(7));
        fast.watch(Sight::Lag(0));
        assert_eq!(lag(), ["7", "3"]);
        drop(slow);
        assert_eq!(lag(), ["0", "0"]);
    }

    #[test]
    fn every_metric_has_help_and_type_and_a_name_of_its_own() {
        let readings = Readings { store_bytes: Some(1), disk_free_bytes: Some(2), ..Readings::default() };
        let text = Metrics::default().text(readings);
        let names = |of: &str| {
            let lines = text.lines().filter_map(|line| line.strip_prefix(of)?.split(' ').next());
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let (helps, types) = (names("# HELP "), names("# TYPE "));
        assert_eq!(helps, types);
        assert!(helps.len() > 20 && helps.iter().all(|name| name.starts_with("rivus_")));
        let distinct: std::collections::BTreeSet<_> = helps.iter().collect();
        assert_eq!(distinct.len(), helps.len());
    }
}
