//! What the writer does: a fixed row of steps, drawn from a seed.
//!
//! The same steps run in the process under test, on SQLite, and in the oracle, on memory. Ids, clock and sessions
//! come from the step's number alone, so both go through the same commits, byte for byte.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use rivus_core::clock::{Admission, Millis, Stamp};
use rivus_core::edit::{Action, Op};
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::Seeds;
use rivus_core::replica::{Edited, OpenOptions, Replica};
use rivus_core::schema::{Life, Schema};
use rivus_core::session::pair::{End, run};
use rivus_core::session::{Grants, Role, Session, SessionOptions, Want};
use rivus_core::store::{MemoryStore, Store};

use rivus_testkit::random::Random;

/// One thing that the writer does, then says that it is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Opens the store; closes it first if it is open.
    Open,
    /// Puts a number into a task's field.
    Put {
        /// The task.
        id: String,
        /// The number.
        n: i64,
    },
    /// Counts one more on the task `sum`.
    Count,
    /// Puts one number into three tasks: all of them or none.
    Batch(i64),
    /// Puts so many cells, from the first on, into the large entity.
    Cells {
        /// The first cell's number.
        first: usize,
        /// How many.
        count: usize,
        /// What they hold.
        n: i64,
    },
    /// Deletes a task.
    Delete(String),
    /// An edit on the hub, of a task that the device has not.
    HubPut {
        /// The task.
        id: String,
        /// The number.
        n: i64,
    },
    /// Syncs with the hub; the connection breaks after so many frames.
    Sync(usize),
}

impl Step {
    /// The task that it deletes.
    #[must_use]
    pub fn deletes(&self) -> Option<&str> {
        if let Self::Delete(id) = self { Some(id) } else { None }
    }
}

/// The three tasks of [`Step::Batch`].
pub const BATCH: [&str; 3] = ["b0", "b1", "b2"];
/// The hub's store id.
pub const HUB: StoreId = StoreId(0xb0b);
/// How many pages the log may have: a checkpoint every few commits.
pub const LOG_PAGES: u32 = 12;
/// How many steps there are.
const STEPS: usize = 56;
/// A session that nobody cuts.
pub const ALL_FRAMES: usize = usize::MAX;

/// The steps of a seed. Each kind of step is there, whatever the seed.
#[must_use]
pub fn steps(seed: u64) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut steps = vec![Step::Open, Step::Put { id: "t0".into(), n: 1 }, Step::Batch(2), Step::Count];
    let mut alive: BTreeSet<u64> = BTreeSet::new();
    let (mut made, mut hub) = (0, 0);
    let mut n = 2;
    while steps.len() < STEPS {
        n += 1;
        let at = steps.len();
        steps.push(match (at, random.below(100)) {
            (8, _) => Step::Cells { first: 0, count: 220, n },
            (14 | 30 | 48, _) | (15.., 0..8) => Step::Sync(ALL_FRAMES),
            (22 | 40, _) => Step::Open,
            (15.., 8..16) => Step::Sync(2 + random.below(8)),
            (_, 16..26) => Step::Batch(n),
            (_, 26..34) => Step::Count,
            (9.., 34..46) => Step::Cells { first: random.below(220), count: 1, n },
            (_, 46..60) => {
                hub += 1;
                Step::HubPut { id: format!("h{hub}"), n }
            }
            (9.., 60..68) if !alive.is_empty() => {
                let id = alive.iter().copied().nth(random.below(alive.len())).unwrap_or_default();
                alive.remove(&id);
                Step::Delete(format!("t{id}"))
            }
            (_, 68..80) if !alive.is_empty() => {
                let id = alive.iter().nth(random.below(alive.len())).copied().unwrap_or_default();
                Step::Put { id: format!("t{id}"), n }
            }
            _ => {
                made += 1;
                alive.insert(made);
                Step::Put { id: format!("t{made}"), n }
            }
        });
    }
    steps.extend([Step::Sync(ALL_FRAMES), Step::Count, Step::Open]);
    steps
}

/// The device's store, the hub in memory, and how far the steps are.
pub struct World<S, F> {
    device: Option<Replica<S>>,
    /// The authority that the device syncs with; lost with the process.
    pub hub: Replica<MemoryStore>,
    open: F,
}

impl<S: Store, F: FnMut(Option<S>) -> Result<S>> World<S, F> {
    /// Nothing is open yet. `open` makes the device's store, or closes the given one and opens it again.
    ///
    /// # Errors
    /// None that a sound machine gives.
    pub fn new(open: F) -> Result<Self> {
        Ok(Self { device: None, hub: open_hub(MemoryStore::new(), 1)?, open })
    }

    /// Takes step `number`; an edit gives its stamp.
    ///
    /// # Errors
    /// What the store or the session said. The step may be taken again.
    pub fn take(&mut self, number: usize, step: &Step) -> Result<Option<Stamp>> {
        let now = now(number);
        match step {
            Step::Open => {
                let store = self.device.take().map(Replica::into_store);
                self.device = Some(open_device((self.open)(store)?, number)?);
                return Ok(None);
            }
            Step::HubPut { id, n } => {
                self.hub.edit(now, &[put("task", id, "n".to_owned(), *n)])?;
                return Ok(None);
            }
            Step::Sync(frames) => {
                if self.device.is_none() {
                    self.take(number, &Step::Open)?;
                }
                let device = self.device.as_mut().context("the store is open")?;
                sync(device, &mut self.hub, now, *frames)?;
                return Ok(None);
            }
            _ => {}
        }
        let device = self.device.as_mut().context("the store is open")?;
        match device.edit(now, &ops(step))? {
            Edited::Committed { stamp, .. } => Ok(Some(stamp)),
            Edited::Nothing => Ok(None),
        }
    }

    /// The device, if it is open.
    pub fn device(&self) -> Option<&Replica<S>> {
        self.device.as_ref()
    }
}

impl<S, F> std::fmt::Debug for World<S, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

fn put(kind: &str, id: &str, field: String, n: i64) -> Op {
    Op::new(kind, id, Action::Put(vec![(field, n.into())]))
}

/// The operations of a step that edits.
fn ops(step: &Step) -> Vec<Op> {
    match step {
        Step::Put { id, n } => vec![put("task", id, "n".to_owned(), *n)],
        Step::Count => vec![Op::new("task", "sum", Action::Inc { field: "views".to_owned(), by: 1 })],
        Step::Batch(n) => BATCH.iter().map(|id| put("task", id, "n".to_owned(), *n)).collect(),
        Step::Cells { first, count, n } => {
            let cells = (*first..first + count).map(|cell| (cell_name(cell), (*n).into()));
            vec![Op::new("sheet", "s", Action::Put(cells.collect()))]
        }
        Step::Delete(id) => vec![Op::new("task", id.as_str(), Action::Delete)],
        Step::Open | Step::HubPut { .. } | Step::Sync(_) => Vec::new(),
    }
}

/// The field of a cell of the large entity.
#[must_use]
pub fn cell_name(cell: usize) -> String {
    format!("cell{cell:03}")
}

/// The clock's reading at a step.
#[must_use]
pub fn now(step: usize) -> Millis {
    Millis(1_700_000_000_000 + i64::try_from(step).unwrap_or(0) * 10)
}

/// Opens the device's replica. `opening` makes its random numbers.
///
/// # Errors
/// If the store cannot be read or written.
pub fn open_device<S: Store>(store: S, opening: usize) -> Result<Replica<S>> {
    let options = OpenOptions {
        seeds: seeds(0xd, opening),
        slot: 0,
        admission: Admission::Quarantine { drift_ms_max: 60_000 },
        rank: 0,
    };
    Ok(Replica::open(store, schema()?, options)?)
}

/// Opens the hub. `opening` makes its random numbers.
///
/// # Errors
/// None that a sound machine gives.
pub fn open_hub(store: MemoryStore, opening: usize) -> Result<Replica<MemoryStore>> {
    let options = OpenOptions {
        seeds: Seeds { store: HUB, ..seeds(0xb, opening) },
        slot: 0,
        admission: Admission::Refuse { drift_ms_max: 60_000 },
        rank: 0,
    };
    let mut hub = Replica::open(store, schema()?, options)?;
    hub.become_authority()?;
    Ok(hub)
}

/// Runs one session until it ends or breaks off after so many frames.
///
/// # Errors
/// The session's error.
pub fn sync<S: Store>(
    device: &mut Replica<S>,
    hub: &mut Replica<MemoryStore>,
    now: Millis,
    frames: usize,
) -> Result<()> {
    let session = |role, want| {
        Session::new(SessionOptions { role, want, offers: true, seeds: seeds(0xc, 0), capabilities: 0 })
    };
    let mut client = session(Role::Client { token: None }, Want::Once);
    let mut server = session(Role::server(Grants::everybody()), Want::Live);
    let one = &mut End { replica: device, session: &mut client, now };
    let two = &mut End { replica: hub, session: &mut server, now };
    run(one, two, frames)?;
    Ok(())
}

fn seeds(who: u64, opening: usize) -> Seeds {
    let number = (who << 32) + opening as u64;
    Seeds {
        store: StoreId(number),
        replica: ReplicaId::from_u128(u128::from(number)),
        incarnation: Incarnation(number),
    }
}

fn schema() -> Result<Arc<Schema>> {
    let schema = Schema::builder()
        .kind("task", |kind| kind.life(Life::DeleteWins).value("n").counter("views"))
        .kind("sheet", |kind| kind.open())
        .build()?;
    Ok(Arc::new(schema))
}
