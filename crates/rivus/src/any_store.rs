//! The store behind a database, chosen when it is opened, so that `Db` needs no type parameter.

use rivus_core::store::{Batch, Chunk, CommitError, MemoryStore, Store, StoreError};
use rivus_sqlite::SqliteStore;

use crate::others::Own;

/// A store of either kind.
#[derive(Debug)]
pub(crate) enum AnyStore {
    Memory(Box<MemoryStore>),
    /// With the seqs that commits through it took.
    Sqlite(Box<SqliteStore>, Own),
}

/// Calls the method of whichever store it is.
macro_rules! each {
    ($store:expr, $inner:ident => $call:expr) => {
        match $store {
            AnyStore::Memory($inner) => $call,
            AnyStore::Sqlite($inner, _) => $call,
        }
    };
}

impl Store for AnyStore {
    rivus_core::forward_reads!(each);

    fn load(&self, kind: &str, id: &str, address: &[u8]) -> Result<Option<Chunk<'_>>, StoreError> {
        each!(self, store => store.load(kind, id, address))
    }

    fn commit(&mut self, batch: Batch<'_>) -> Result<u64, CommitError> {
        let rows = batch.rows.len() as u64;
        let seq = each!(self, store => store.commit(batch))?;
        if let Self::Sqlite(_, own) = self {
            own.note(seq, rows);
        }
        Ok(seq)
    }

    fn projects(&self) -> bool {
        each!(self, store => store.projects())
    }

    fn together<T>(&self, read: impl FnOnce() -> T) -> Result<T, StoreError> {
        each!(self, store => store.together(read))
    }

    fn begin_reading(&self) {
        each!(self, store => store.begin_reading());
    }

    fn end_reading(&self) {
        each!(self, store => store.end_reading());
    }

    fn others(&self) -> Result<Option<i64>, StoreError> {
        each!(self, store => store.others())
    }
}
