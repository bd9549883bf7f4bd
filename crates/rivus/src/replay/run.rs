//! The runner: replicas with clocks that stand still unless a step moves them.

use std::io::Write;
use std::sync::{Arc, Mutex};

use rivus_core::clock::{Admission, Millis};
use rivus_core::edit::{EditError, Op};
use rivus_core::id::{Incarnation, ReplicaId, StoreId};
use rivus_core::identity::Seeds;
use rivus_core::replica::{Edited, OpenOptions, Replica};
use rivus_core::store::StoreError;
use rivus_sqlite::{Options, SqliteStore};
use tempfile::TempDir;

use super::script::{Act, Line, Step};
use super::show::{ShowError, show};
use super::{End, Failure, ReplayError, Script, Transport, Way};
use crate::any_store::AnyStore;

/// Where the replicas of a run keep their data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreChoice {
    /// In memory.
    Memory,
    /// In an SQLite file each, in a temporary directory that is removed at the end.
    Sqlite,
}

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// Steps done.
    pub steps: usize,
    /// Edits that were committed.
    pub edits: usize,
    /// Edits that changed nothing, because everything showed that already.
    pub unchanged: usize,
    /// Edits that were refused.
    pub refused: usize,
    /// Registers received in syncs: those that cross each other on a real network come twice.
    pub moved: usize,
}

/// Runs a script to its end.
///
/// What replicas show goes to `out`, a line each; a refused edit is a line on `err`, and the run goes on.
/// `progress` hears after each step how many are done, and of how many.
///
/// # Errors
/// [`ReplayError`]: the run ends at that step; what was shown before is in `out`.
pub fn run(
    script: &Script,
    store: StoreChoice,
    transport: &mut dyn Transport,
    out: &mut dyn Write,
    err: &mut dyn Write,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Summary, ReplayError> {
    let folder = match store {
        StoreChoice::Memory => None,
        StoreChoice::Sqlite => {
            let folder = tempfile::Builder::new().prefix("rivus-replay-").tempdir();
            Some(folder.map_err(ReplayError::Folder)?)
        }
    };
    let mut run =
        Run { script, members: Vec::new(), folder, transport, out, err, summary: Summary::default() };
    for line in &script.steps {
        run.step(line).map_err(|stop| match stop {
            Stop::Failed(failure) => ReplayError::Run { line: line.number, failure },
            Stop::Write(error) => ReplayError::Write(error),
        })?;
        run.summary.steps += 1;
        progress(run.summary.steps, script.steps.len());
    }
    Ok(run.summary)
}

struct Run<'r> {
    script: &'r Script,
    /// In order of declaration. Before the folder, so that files are closed before they are removed.
    members: Vec<Member<'r>>,
    folder: Option<TempDir>,
    transport: &'r mut dyn Transport,
    out: &'r mut dyn Write,
    err: &'r mut dyn Write,
    summary: Summary,
}

/// One replica of the run.
struct Member<'r> {
    name: &'r str,
    /// From 1: its ids.
    number: u64,
    rank: u8,
    /// How often its store was opened.
    openings: u64,
    end: End,
}

impl<'r> Run<'r> {
    fn step(&mut self, line: &'r Line) -> Result<(), Stop> {
        match &line.step {
            Step::Replica { name, rank } => self.declare(name, *rank),
            Step::On { replica, at, act } => {
                self.wind(*replica, *at)?;
                match act {
                    Act::Edit(op) => self.edit(*replica, op, line.number),
                    Act::Restart => self.restart(*replica),
                    Act::Show => self.show(*replica),
                }
            }
            Step::Sync { from, to, way } => self.sync(*from, *to, *way).map(drop),
            Step::Converge => self.converge(),
        }
    }

    fn declare(&mut self, name: &'r str, rank: u8) -> Result<(), Stop> {
        let number = self.members.len() as u64 + 1;
        let replica = self.open(self.store(number)?, number, 1, rank)?;
        let end = End { replica: Arc::new(Mutex::new(replica)), now: Millis(0) };
        self.members.push(Member { name, number, rank, openings: 1, end });
        Ok(())
    }

    /// Sets the clock, and takes in what was set aside until then.
    fn wind(&mut self, replica: usize, at: Option<Millis>) -> Result<(), Stop> {
        let member = member_mut(&mut self.members, replica);
        let Some(at) = at else { return Ok(()) };
        member.end.now = at;
        if self.script.drift_ms_max.is_some() {
            member.end.lock().release(at).map_err(Failure::from)?;
        }
        Ok(())
    }

    fn edit(&mut self, replica: usize, op: &Op, line: usize) -> Result<(), Stop> {
        let end = &member(&self.members, replica).end;
        let edited = end.lock().edit(end.now, std::slice::from_ref(op));
        match edited {
            Ok(Edited::Committed { .. }) => self.summary.edits += 1,
            Ok(Edited::Nothing) => self.summary.unchanged += 1,
            Err(EditError::Commit(error)) => return Err(Failure::from(error).into()),
            Err(refusal) => {
                self.summary.refused += 1;
                // Names are the script's own, and may have line breaks in them.
                let refusal = refusal.to_string().replace(char::is_control, " ");
                writeln!(self.err, "line {line}: refused: {refusal}").map_err(Stop::Write)?;
            }
        }
        Ok(())
    }

    fn restart(&mut self, replica: usize) -> Result<(), Stop> {
        let Member { number, rank, openings, .. } = *member(&self.members, replica);
        let end = member(&self.members, replica).end.clone();
        let mut running = end.lock();
        // The store leaves the replica, which ends below.
        let store = std::mem::replace(running.store_mut(), AnyStore::Memory(Box::default()));
        let store = match store {
            AnyStore::Memory(kept) => AnyStore::Memory(kept),
            AnyStore::Sqlite(open, _) => {
                drop(open);
                self.store(number)?
            }
        };
        *running = self.open(store, number, openings + 1, rank)?;
        member_mut(&mut self.members, replica).openings += 1;
        Ok(())
    }

    fn show(&mut self, replica: usize) -> Result<(), Stop> {
        let member = member(&self.members, replica);
        show(&member.end.lock(), member.name, self.out).map_err(|error| match error {
            ShowError::Store(error) => Failure::from(error).into(),
            ShowError::Write(error) => Stop::Write(error),
        })
    }

    fn sync(&mut self, from: usize, to: usize, way: Way) -> Result<usize, Stop> {
        let ends = (&member(&self.members, from).end, &member(&self.members, to).end);
        let moved = self.transport.sync(ends.0, ends.1, way).map_err(Failure::from)?;
        self.summary.moved += moved.registers;
        Ok(moved.registers)
    }

    fn converge(&mut self) -> Result<(), Stop> {
        for _ in 0..ROUNDS_MAX {
            let mut moved = 0;
            for from in 0..self.members.len() {
                for to in from + 1..self.members.len() {
                    moved += self.sync(from, to, Way::Both)?;
                }
            }
            if moved == 0 {
                return (0..self.members.len()).try_for_each(|replica| self.show(replica));
            }
        }
        Err(Failure::Unsettled { rounds: ROUNDS_MAX }.into())
    }

    /// An empty store in memory, or the one in the replica's file.
    fn store(&self, number: u64) -> Result<AnyStore, Failure> {
        Ok(match &self.folder {
            None => AnyStore::Memory(Box::default()),
            Some(folder) => {
                let path = folder.path().join(format!("{number}.db"));
                SqliteStore::open(path, Options::default())?.into()
            }
        })
    }

    fn open(
        &self,
        store: AnyStore,
        number: u64,
        opening: u64,
        rank: u8,
    ) -> Result<Replica<AnyStore>, Failure> {
        let seeds = Seeds {
            store: StoreId(number),
            replica: ReplicaId::from_u128(number.into()),
            incarnation: Incarnation(number << 32 | opening),
        };
        let admission = match self.script.drift_ms_max {
            Some(drift_ms_max) => Admission::Quarantine { drift_ms_max },
            None => Admission::Off,
        };
        let options = OpenOptions { seeds, slot: 0, admission, rank };
        Ok(Replica::open(store, Arc::clone(&self.script.schema), options)?)
    }
}

#[expect(clippy::expect_used, reason = "the parser refuses names that no line above declares")]
fn member<'m, 'r>(members: &'m [Member<'r>], replica: usize) -> &'m Member<'r> {
    members.get(replica).expect("the replica is declared")
}

#[expect(clippy::expect_used, reason = "the parser refuses names that no line above declares")]
fn member_mut<'m, 'r>(members: &'m mut [Member<'r>], replica: usize) -> &'m mut Member<'r> {
    members.get_mut(replica).expect("the replica is declared")
}

/// How often `converge` syncs all pairs. After the first round everybody has everything, so three do.
const ROUNDS_MAX: usize = 8;

/// Why a step ends the run.
enum Stop {
    Failed(Failure),
    Write(std::io::Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}
