//! What a store may be found as after its writer was stopped.
//!
//! Two judges. The first runs the same steps on memory and notes the whole state after each commit: the store found
//! must be one of them, not older than what was acknowledged, not newer than the step under way. The second is
//! simple and shares nothing with the engine: it knows from the steps alone what must show. The second is needed
//! because the first would repeat a mistake of the engine itself.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rivus_core::address;
use rivus_core::clock::Stamp;
use rivus_core::edit::{Action, Op};
use rivus_core::replica::{Edited, Replica};
use rivus_core::row::Confirmed;
use rivus_core::store::{Batch, Chunk, CommitError, MemoryStore, Store, StoreError, Table};
use rivus_core::value::Value;
use rivus_core::view::{Shown, View};
use rivus_sqlite::{Options, SqliteStore, Synchronous};

use super::workload::{self, ALL_FRAMES, BATCH, Step, World, cell_name};

/// Which states are allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Promise {
    /// Everything acknowledged is there.
    Durable,
    /// Some state of the past, whole.
    Consistent,
}

/// Every state that the steps go through.
#[derive(Debug)]
pub struct Oracle {
    /// The steps.
    pub steps: Vec<Step>,
    /// Fingerprints: of the empty store, then after each commit.
    states: Vec<u64>,
    /// The clock in each of them.
    high_water: Vec<u64>,
    /// How many commits there were after so many steps.
    commits: Vec<usize>,
    /// The stamp of each step that edited.
    stamps: Vec<Option<Stamp>>,
    /// The hub's seq after each of its own edits, and the task.
    hub_puts: Vec<(u64, String, i64)>,
}

/// What a check found of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// How many commits it holds.
    pub commits: usize,
    /// How many commits were acknowledged.
    pub acknowledged: usize,
}

impl Oracle {
    /// Runs the steps of the seed on memory.
    ///
    /// # Errors
    /// If a step fails, which is a fault of the workload.
    pub fn new(seed: u64) -> Result<Self> {
        let steps = workload::steps(seed);
        let notes = Rc::new(RefCell::new(vec![(fingerprint(&MemoryStore::new())?, 0)]));
        let mut world = World::new(|store: Option<Noted>| {
            Ok(store.unwrap_or_else(|| Noted { store: MemoryStore::new(), notes: Rc::clone(&notes) }))
        })?;
        let (mut commits, mut stamps, mut hub_puts) = (vec![0], Vec::new(), Vec::new());
        for (number, step) in steps.iter().enumerate() {
            stamps.push(world.take(number, step).with_context(|| format!("step {number}, {step:?}"))?);
            commits.push(notes.borrow().len() - 1);
            if let Step::HubPut { id, n } = step {
                hub_puts.push((world.hub.head()?.seq, id.clone(), *n));
            }
        }
        drop(world);
        let (states, high_water) = notes.take().into_iter().unzip();
        Ok(Self { steps, states, high_water, commits, stamps, hub_puts })
    }

    /// Checks the store in `file` after `acked` steps were acknowledged, then lets it go on: it takes an edit, and
    /// syncs with the hub, which kept what it had been told or was restored
    /// from a backup.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, file: &Path, acked: usize, promise: Promise) -> Result<Found> {
        let options =
            Options { synchronous: Synchronous::Off, busy_timeout: Duration::ZERO, ..Options::default() };
        let store = SqliteStore::open(file, options)?;
        store.integrity_check()?;
        let found = self.locate(&store, acked, promise)?;
        let mut whole = acked;
        if found.commits < found.acknowledged {
            // The steps that the state holds whole count as acknowledged from here on.
            whole = self.commits.iter().rposition(|commits| *commits <= found.commits).unwrap_or(0);
        }
        // What a broken sync told the hub it keeps, unless a backup of it is restored.
        let at_hub = if found.commits % 2 == 0 { self.at_hub(acked) } else { acked };
        let mut hub = self.hub_after(at_hub)?;
        if at_hub == acked {
            hub = workload::open_hub(hub.into_store(), 2)?;
        }
        self.check_open(store, whole, at_hub, hub)?;
        Ok(found)
    }

    /// As [`Oracle::check`], for a writer that went on after a failed commit: then the stamps differ from those of
    /// an undisturbed run, and only what must show is checked.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_shown(&self, file: &Path, acked: usize) -> Result<()> {
        let store = SqliteStore::open(file, Options { synchronous: Synchronous::Off, ..Options::default() })?;
        store.integrity_check()?;
        // The hub of an undisturbed run never met these stamps; one that lost everything takes them back.
        self.check_open(store, acked, self.at_hub(acked), workload::open_hub(MemoryStore::new(), 2)?)
    }

    /// How many steps the hub has taken part in.
    fn at_hub(&self, acked: usize) -> usize {
        acked + usize::from(matches!(self.steps.get(acked), Some(Step::Sync(_))))
    }

    /// Which of the states it is.
    fn locate(&self, store: &SqliteStore, acked: usize, promise: Promise) -> Result<Found> {
        let acknowledged = at(&self.commits, acked)?;
        let last = at(&self.commits, (acked + 1).min(self.steps.len()))?;
        let first = if promise == Promise::Durable { acknowledged } else { 0 };
        let found = fingerprint(store)?;
        let Some(commits) = (first..=last).rev().find(|n| self.states.get(*n) == Some(&found)) else {
            let other = self.states.iter().position(|state| *state == found);
            bail!(
                "after {acked} steps the store must hold between {first} and {last} commits; it holds {}",
                other.map_or("no state that ever was".to_owned(), |n| format!("{n}"))
            );
        };
        ensure!(
            store.head()?.high_water == *self.high_water.get(commits).context("a state")?,
            "the clock differs"
        );
        Ok(Found { commits, acknowledged })
    }

    /// Checks what shows, the clock, outbox and cursor, and that the store can go on. The hub had seen `at_hub`
    /// steps.
    fn check_open(
        &self,
        store: SqliteStore,
        acked: usize,
        at_hub: usize,
        mut hub: Replica<MemoryStore>,
    ) -> Result<()> {
        let mut device = workload::open_device(store, 1000 + acked)?;
        self.check_rows(&device, acked)?;
        self.check_shows(&device, acked, acked + 1)?;
        let now = workload::now(acked);
        // Even with the clock at the beginning.
        let action = Action::Put(vec![("n".to_owned(), 1.into())]);
        let edited = device.edit(workload::now(0), &[Op::new("task", "after", action)])?;
        let Edited::Committed { stamp, .. } = edited else { bail!("the edit afterwards wrote nothing") };
        let newest = self.stamps.iter().take(acked).flatten().map(|stamp| stamp.time).max().unwrap_or(0);
        ensure!(stamp.time > newest, "the clock went back: {} after {newest}", stamp.time);
        // A store that lost what the hub has heard of finds that it is a copy, and connects again. One that finds
        // the hub restored after it had gone on may need another sync to bring back what was lost there.
        let mut synced = Ok(());
        for _ in 0..3 {
            synced = workload::sync(&mut device, &mut hub, now, ALL_FRAMES);
            if synced.is_ok() && device.head()?.digest.shown == hub.head()?.digest.shown {
                break;
            }
        }
        synced.context("syncing afterwards")?;
        ensure!(device.pending_count()? == 0, "edits are pending after a sync");
        let (here, there) = (device.head()?.digest, hub.head()?.digest);
        ensure!(here.shown == there.shown, "device and hub differ after a sync");
        ensure!(here == device.recompute_digest()?, "the digest is not that of the rows after a sync");
        self.check_shows(&device, acked, at_hub.max(acked + 1))?;
        for (_, id, n) in self.hub_puts.iter().filter(|(seq, ..)| *seq <= self.hub_seq_after(at_hub)) {
            ensure!(number(&device, "task", id, "n")? == Some(*n), "the hub's {id} did not come");
        }
        Ok(())
    }

    /// Digest, clock, cursor and outbox against the rows.
    fn check_rows(&self, device: &Replica<SqliteStore>, acked: usize) -> Result<()> {
        let head = device.head()?;
        ensure!(head.digest == device.recompute_digest()?, "the kept digest is not that of the rows");
        let newest = self.stamps.iter().take(acked).flatten().map(|stamp| stamp.time).max().unwrap_or(0);
        ensure!(head.high_water >= newest, "high-water {} is below an own stamp {newest}", head.high_water);
        if let Some(cursor) = device.cursor(workload::HUB)? {
            let read = cursor.done.max(cursor.at);
            for (_, id, n) in self.hub_puts.iter().filter(|(seq, ..)| *seq <= read) {
                ensure!(
                    number(device, "task", id, "n")? == Some(*n),
                    "the cursor is past {id}, which is not here"
                );
            }
        }
        let mut touched = BTreeSet::new();
        let mut wrong = None;
        device.pending(0, &mut |key, edit| {
            if key > head.seq || edit.header.stamp.time > head.high_water {
                wrong = Some(format!("edit {key} is pending, beyond the head or the clock"));
            }
            for entity in &edit.entities {
                let place = (entity.kind.to_owned(), entity.id.to_owned());
                touched.extend(entity.registers.iter().map(|(a, _)| (place.clone(), a.to_vec())));
            }
            ControlFlow::Continue(())
        })?;
        ensure!(wrong.is_none(), "{wrong:?}");
        let mut held = BTreeSet::new();
        let entities: BTreeSet<_> = entities(device.store())?;
        for (kind, id) in entities {
            let mut newest = 0;
            device.registers(&kind, &id, &mut |parts, state| {
                let mut address = Vec::new();
                address::encode(&mut address, parts.class, parts.name, parts.key);
                let place = ((kind.clone(), id.clone()), address);
                if state.confirmed != Confirmed::Same && !touched.contains(&place) {
                    wrong = Some(format!("{place:?} waits for a verdict that no pending edit asks for"));
                }
                newest = newest.max(state.shown.alive.iter().map(|c| c.stamp.time).max().unwrap_or(0));
                held.insert(place);
            })?;
            ensure!(newest <= head.high_water, "{kind} {id} bears a stamp above the high-water");
        }
        ensure!(wrong.is_none(), "{wrong:?}");
        ensure!(touched.is_subset(&held), "a pending edit's registers are not in the rows");
        Ok(())
    }

    /// What must show after so many steps, whatever became of those up to `end`.
    fn check_shows<S: Store>(&self, device: &Replica<S>, acked: usize, end: usize) -> Result<()> {
        let expected = Expected::after(self.steps.get(..acked).unwrap_or_default());
        let unsure = self.steps.get(acked..end.min(self.steps.len())).unwrap_or_default();
        let open: BTreeSet<_> = unsure.iter().flat_map(places).collect();
        let may_go: BTreeSet<_> = unsure.iter().filter_map(Step::deletes).collect();
        for ((kind, id), fields) in &expected.values {
            let gone = expected.deleted.contains(id);
            let view = device.view(kind, id)?.unwrap_or_else(|| View { deleted: true, ..View::default() });
            ensure!(
                view.deleted == gone || may_go.contains(id.as_str()),
                "{kind} {id}: deleted is {} and should be {gone}",
                view.deleted
            );
            let sure = fields
                .iter()
                .filter(|(field, _)| !gone && !open.contains(&(*kind, id.clone(), (*field).clone())));
            for (field, n) in sure {
                let found = view.fields.get(field);
                ensure!(
                    found == Some(&Shown::Value(Value::Int(*n))),
                    "{kind} {id} {field} is {found:?} and was acknowledged as {n}"
                );
            }
        }
        let batch = BATCH.map(|id| number(device, "task", id, "n").ok().flatten());
        ensure!(batch.iter().all(|n| *n == batch[0]), "a transaction is there in parts: {batch:?}");
        let views = device.view("task", "sum")?.and_then(|mut view| view.fields.remove("views"));
        let views = if let Some(Shown::Counter(views)) = views { views } else { 0 };
        let more = unsure.iter().filter(|step| **step == Step::Count).count() as i128;
        ensure!(
            (expected.views..=expected.views + more).contains(&views),
            "{views} counted, {} acknowledged",
            expected.views
        );
        Ok(())
    }

    /// The hub as it is after so many steps.
    fn hub_after(&self, steps: usize) -> Result<Replica<MemoryStore>> {
        let mut world = World::new(|store: Option<MemoryStore>| Ok(store.unwrap_or_default()))?;
        for (number, step) in self.steps.iter().take(steps).enumerate() {
            world.take(number, step)?;
        }
        Ok(world.hub)
    }

    fn hub_seq_after(&self, steps: usize) -> u64 {
        let edits = self.steps.iter().take(steps).filter(|step| matches!(step, Step::HubPut { .. })).count();
        edits.checked_sub(1).and_then(|last| self.hub_puts.get(last)).map_or(0, |(seq, ..)| *seq)
    }
}

/// What shows after some steps.
#[derive(Default)]
struct Expected {
    /// By kind and id, then by field.
    values: BTreeMap<(&'static str, String), BTreeMap<String, i64>>,
    deleted: BTreeSet<String>,
    views: i128,
}

impl Expected {
    fn after(steps: &[Step]) -> Self {
        let mut expected = Self::default();
        let mut at_hub = Vec::new();
        for step in steps {
            match step {
                Step::Put { n, .. } | Step::Batch(n) | Step::Cells { n, .. } => {
                    expected.put(places(step), *n);
                }
                Step::Count => expected.views += 1,
                Step::Delete(id) => drop(expected.deleted.insert(id.clone())),
                Step::HubPut { id, n } => at_hub.push((("task", id.clone(), "n".to_owned()), *n)),
                Step::Sync(ALL_FRAMES) => {
                    at_hub.drain(..).for_each(|(place, n)| expected.put(vec![place], n))
                }
                Step::Sync(_) | Step::Open => {}
            }
        }
        expected
    }
}

impl Expected {
    fn put(&mut self, places: Vec<(&'static str, String, String)>, n: i64) {
        for (kind, id, field) in places {
            self.values.entry((kind, id)).or_default().insert(field, n);
        }
    }
}

/// The fields that a step puts.
fn places(step: &Step) -> Vec<(&'static str, String, String)> {
    let task = |id: &str| ("task", id.to_owned(), "n".to_owned());
    match step {
        Step::Put { id, .. } | Step::Delete(id) => vec![task(id)],
        Step::Batch(_) => BATCH.map(task).to_vec(),
        Step::Cells { first, count, .. } => {
            (*first..first + count).map(|cell| ("sheet", "s".to_owned(), cell_name(cell))).collect()
        }
        Step::Open | Step::Count | Step::HubPut { .. } | Step::Sync(_) => Vec::new(),
    }
}

fn number<S: Store>(device: &Replica<S>, kind: &str, id: &str, field: &str) -> Result<Option<i64>> {
    let shown = device.view(kind, id)?.and_then(|mut view| view.fields.remove(field));
    Ok(if let Some(Shown::Value(Value::Int(n))) = shown { Some(n) } else { None })
}

fn entities(store: &SqliteStore) -> Result<BTreeSet<(String, String)>> {
    let mut found = BTreeSet::new();
    store.changes(0, &mut |changed| {
        found.insert((changed.kind.to_owned(), changed.id.to_owned()));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn at(list: &[usize], index: usize) -> Result<usize> {
    list.get(index).copied().with_context(|| format!("there are not {index} steps"))
}

/// A hash of all that a store holds.
fn fingerprint<S: Store>(store: &S) -> Result<u64, StoreError> {
    let mut hasher = DefaultHasher::new();
    let head = store.changes(0, &mut |row| {
        (row.kind, row.id, row.seq, row.bytes).hash(&mut hasher);
        ControlFlow::Continue(())
    })?;
    for (incarnation, first) in &head.incarnations {
        (incarnation.0, first).hash(&mut hasher);
    }
    (head.seq, head.high_water, head.digest.shown, head.digest.confirmed, head.digest.count)
        .hash(&mut hasher);
    for table in Table::ALL {
        store.records(table, &[], &mut |key, value| {
            (table as u8, key, value).hash(&mut hasher);
            ControlFlow::Continue(())
        })?;
    }
    Ok(hasher.finish())
}

/// A store that notes its state after each commit.
struct Noted {
    store: MemoryStore,
    notes: Rc<RefCell<Vec<(u64, u64)>>>,
}

macro_rules! noted {
    ($self:expr, $store:ident => $do:expr) => {{
        let $store = &$self.store;
        $do
    }};
}

impl Store for Noted {
    rivus_core::forward_reads!(noted);

    fn load(&self, kind: &str, id: &str, address: &[u8]) -> Result<Option<Chunk<'_>>, StoreError> {
        self.store.load(kind, id, address)
    }

    fn commit(&mut self, batch: Batch<'_>) -> Result<u64, CommitError> {
        let seq = self.store.commit(batch)?;
        self.notes.borrow_mut().push((fingerprint(&self.store)?, self.store.head()?.high_water));
        Ok(seq)
    }
}
