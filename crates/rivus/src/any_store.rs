//! The store behind a database, chosen when it is opened, so that `Db` needs no type parameter.

use std::ops::ControlFlow;

use rivus_core::store::{
    Batch, Changed, Chunk, CommitError, Head, MemoryStore, Record, Store, StoreError, Table,
};
use rivus_sqlite::SqliteStore;

/// A store of either kind.
#[derive(Debug)]
pub(crate) enum AnyStore {
    Memory(Box<MemoryStore>),
    Sqlite(SqliteStore),
}

/// Calls the method of whichever store it is.
macro_rules! each {
    ($store:expr, $inner:ident => $call:expr) => {
        match $store {
            AnyStore::Memory($inner) => $call,
            AnyStore::Sqlite($inner) => $call,
        }
    };
}

impl Store for AnyStore {
    fn head(&self) -> Result<Head, StoreError> {
        each!(self, store => store.head())
    }

    fn load(&self, kind: &str, id: &str, address: &[u8]) -> Result<Option<Chunk<'_>>, StoreError> {
        each!(self, store => store.load(kind, id, address))
    }

    fn changes(
        &self,
        after: u64,
        visit: &mut dyn FnMut(Changed<'_>) -> ControlFlow<()>,
    ) -> Result<Head, StoreError> {
        each!(self, store => store.changes(after, visit))
    }

    fn kinds(&self) -> Result<Vec<String>, StoreError> {
        each!(self, store => store.kinds())
    }

    fn ids(&self, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        each!(self, store => store.ids(kind, after, limit))
    }

    fn records(
        &self,
        table: Table,
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        each!(self, store => store.records(table, from, visit))
    }

    fn commit(&mut self, batch: Batch<'_>) -> Result<u64, CommitError> {
        each!(self, store => store.commit(batch))
    }

    fn together<T>(&self, read: impl FnOnce() -> T) -> Result<T, StoreError> {
        each!(self, store => store.together(read))
    }

    fn others(&self) -> Result<Option<i64>, StoreError> {
        each!(self, store => store.others())
    }

    fn record(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        each!(self, store => store.record(table, key))
    }

    fn last_record(&self, table: Table, below: &[u8]) -> Result<Option<Record>, StoreError> {
        each!(self, store => store.last_record(table, below))
    }
}
