//! A store that can die at a commit, and whose owner can be told that another writer was faster.
//!
//! Owns the faults and a running hash of everything that was committed. The content is in a real store.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rivus_core::store::{Batch, Chunk, CommitError, MemoryStore, RecordKey, Store, StoreError};
use rivus_sqlite::{Options, SqliteStore, Synchronous};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// When a process dies, seen from the commit that it dies at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// Nothing of the commit is in the store.
    Before,
    /// All of it is, and nobody was told.
    After,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a store that is read all the time is kept in place")]
enum Inner {
    Memory(MemoryStore),
    /// Several handles on one.
    Shared(Rc<Shared>),
    Sqlite {
        store: SqliteStore,
        path: PathBuf,
    },
}

/// A store in memory that two processes have open.
#[derive(Debug)]
struct Shared {
    store: RefCell<MemoryStore>,
    commits: Cell<i64>,
}

/// The store of one site.
#[derive(Debug)]
pub struct SimStore {
    inner: Inner,
    /// How many commits were made through this handle.
    own: i64,
    /// How many commits are still fine, and what then happens.
    fuse: Option<(u8, Death)>,
    died: Option<Death>,
    stale: Stale,
    trace: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stale {
    No,
    Due,
    Told,
}

/// Where a copy of a store waits.
#[derive(Debug)]
pub(super) enum Copy {
    Memory(Box<MemoryStore>),
    Sqlite(PathBuf),
}

impl SimStore {
    pub(super) fn in_memory() -> Self {
        Self::of(Inner::Memory(MemoryStore::new()))
    }

    /// A store in the SQLite file at `path`.
    pub(super) fn in_file(path: &Path) -> Result<Self, StoreError> {
        // The simulator's crashes are of processes, not of machines: what was written stays written.
        let options = Options {
            synchronous: Synchronous::Off,
            busy_timeout: Duration::from_millis(0),
            ..Options::default()
        };
        let store = SqliteStore::open(path, options)?;
        Ok(Self::of(Inner::Sqlite { store, path: path.to_owned() }))
    }

    fn of(inner: Inner) -> Self {
        Self { inner, own: 0, fuse: None, died: None, stale: Stale::No, trace: 0 }
    }

    /// The same store, so that others can have it open too.
    pub(super) fn shared(self) -> Self {
        let inner = match self.inner {
            Inner::Memory(store) => {
                Inner::Shared(Rc::new(Shared { store: RefCell::new(store), commits: Cell::new(0) }))
            }
            other => other,
        };
        Self { inner, ..self }
    }

    /// Another process's hold on the store.
    pub(super) fn handle(&self) -> Result<Self, StoreError> {
        match &self.inner {
            Inner::Memory(store) => Ok(Self::of(Inner::Memory(store.copy()))),
            Inner::Shared(shared) => Ok(Self::of(Inner::Shared(Rc::clone(shared)))),
            Inner::Sqlite { path, .. } => Self::in_file(path),
        }
    }

    /// Dies at a commit; `commits` go well before it.
    pub(super) fn arm(&mut self, commits: u8, death: Death) {
        self.fuse = Some((commits, death));
    }

    /// The next commit that depends on rows meets another writer.
    pub(super) fn overtake(&mut self) {
        self.stale = Stale::Due;
    }

    /// Whether a commit was overtaken and another has gone well since; asked once.
    pub(super) fn take_retried(&mut self) -> bool {
        let retried = self.stale == Stale::Told;
        if retried {
            self.stale = Stale::No;
        }
        retried
    }

    /// How the process died, if it did.
    pub(super) fn died(&self) -> Option<Death> {
        self.died
    }

    /// What is left when the process is gone: opened again, without faults.
    pub(super) fn reopened(self) -> Result<Self, StoreError> {
        let trace = self.trace;
        let fresh = match self.inner {
            inner @ (Inner::Memory(_) | Inner::Shared(_)) => Self::of(inner),
            Inner::Sqlite { store, path } => {
                drop(store);
                Self::in_file(&path)?
            }
        };
        Ok(Self { trace, ..fresh })
    }

    /// A copy of all of it, in a file at `path` where that is needed.
    pub(super) fn copy(&self, path: &Path) -> Result<Copy, StoreError> {
        match &self.inner {
            Inner::Memory(store) => Ok(Copy::Memory(Box::new(store.copy()))),
            Inner::Shared(shared) => Ok(Copy::Memory(Box::new(shared.store.borrow().copy()))),
            Inner::Sqlite { store, .. } => {
                store.backup_to(path)?;
                Ok(Copy::Sqlite(path.to_owned()))
            }
        }
    }

    pub(super) fn from_copy(copy: Copy) -> Result<Self, StoreError> {
        match copy {
            Copy::Memory(store) => Ok(Self::of(Inner::Memory(*store))),
            Copy::Sqlite(path) => Self::in_file(&path),
        }
    }

    /// A hash of all commits.
    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.died.is_some() { Err(StoreError::Io("the process died".to_owned())) } else { Ok(()) }
    }

    fn hash(&mut self, batch: &Batch<'_>) {
        let mut trace = self.trace;
        for row in batch.rows.iter() {
            trace = xxh3_64_with_seed(row.row.id.as_bytes(), xxh3_64_with_seed(&row.bytes, trace));
        }
        for record in batch.records.iter() {
            let key = match &record.key {
                RecordKey::Bytes(bytes) => bytes.as_slice(),
                RecordKey::CommitSeq => &[],
            };
            trace = xxh3_64_with_seed(record.value.as_deref().unwrap_or(&[]), xxh3_64_with_seed(key, trace));
        }
        self.trace = trace;
    }
}

macro_rules! each {
    ($self:expr, $store:ident => $do:expr) => {{
        $self.check()?;
        match &$self.inner {
            Inner::Memory($store) => $do,
            Inner::Shared(shared) => {
                let $store = &*shared.store.borrow();
                $do
            }
            Inner::Sqlite { store: $store, .. } => $do,
        }
    }};
}

impl Store for SimStore {
    rivus_core::forward_reads!(each);

    fn load(&self, kind: &str, id: &str, address: &[u8]) -> Result<Option<Chunk<'_>>, StoreError> {
        self.check()?;
        match &self.inner {
            Inner::Memory(store) => store.load(kind, id, address),
            Inner::Sqlite { store, .. } => store.load(kind, id, address),
            Inner::Shared(shared) => {
                let store = shared.store.borrow();
                let owned = |chunk: Chunk<'_>| Chunk {
                    start: chunk.start.into_owned().into(),
                    bytes: chunk.bytes.into_owned().into(),
                    ..chunk
                };
                Ok(store.load(kind, id, address)?.map(owned))
            }
        }
    }

    fn commit(&mut self, batch: Batch<'_>) -> Result<u64, CommitError> {
        self.check()?;
        if self.stale == Stale::Due && !batch.rows.is_empty() {
            self.stale = Stale::Told;
            return Err(CommitError::Stale);
        }
        let death = match &mut self.fuse {
            Some((0, death)) => Some(*death),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        };
        self.died = death;
        if death == Some(Death::Before) {
            return Err(StoreError::Io("the process died before a commit".to_owned()).into());
        }
        self.hash(&batch);
        let seq = match &mut self.inner {
            Inner::Memory(store) => store.commit(batch),
            Inner::Shared(shared) => shared.store.borrow_mut().commit(batch).inspect(|_| {
                self.own += 1;
                shared.commits.set(shared.commits.get() + 1);
            }),
            Inner::Sqlite { store, .. } => store.commit(batch),
        }?;
        if death == Some(Death::After) {
            return Err(StoreError::Io("the process died after a commit".to_owned()).into());
        }
        Ok(seq)
    }

    fn others(&self) -> Result<Option<i64>, StoreError> {
        self.check()?;
        match &self.inner {
            Inner::Memory(store) => store.others(),
            Inner::Shared(shared) => Ok(Some(shared.commits.get() - self.own)),
            Inner::Sqlite { store, .. } => store.others(),
        }
    }

    fn together<T>(&self, read: impl FnOnce() -> T) -> Result<T, StoreError> {
        self.check()?;
        match &self.inner {
            Inner::Sqlite { store, .. } => store.together(read),
            Inner::Memory(_) | Inner::Shared(_) => Ok(read()),
        }
    }
}
