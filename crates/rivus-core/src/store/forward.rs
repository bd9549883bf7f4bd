//! Stores around another store.

/// The methods of a [`Store`](crate::store::Store) that read and hand out nothing borrowed, asked of another store:
/// what is left to write are `load` and `commit`.
///
/// Takes the name of a macro that is given `self`, a name and what is to be done with the store of that name.
///
/// ```
/// use rivus_core::store::{Batch, Chunk, CommitError, MemoryStore, Store, StoreError};
///
/// /// A store that counts its commits.
/// struct Counted {
///     store: MemoryStore,
///     commits: usize,
/// }
///
/// macro_rules! inner {
///     ($self:expr, $store:ident => $do:expr) => {{
///         let $store = &$self.store;
///         $do
///     }};
/// }
///
/// impl Store for Counted {
///     rivus_core::forward_reads!(inner);
///
///     fn load(&self, kind: &str, id: &str, address: &[u8]) -> Result<Option<Chunk<'_>>, StoreError> {
///         self.store.load(kind, id, address)
///     }
///
///     fn commit(&mut self, batch: Batch<'_>) -> Result<u64, CommitError> {
///         self.commits += 1;
///         self.store.commit(batch)
///     }
/// }
///
/// let mut counted = Counted { store: MemoryStore::new(), commits: 0 };
/// counted.commit(Batch::default())?;
/// assert_eq!((counted.head()?.seq, counted.commits), (0, 1));
/// # Ok::<(), CommitError>(())
/// ```
#[macro_export]
macro_rules! forward_reads {
    ($inner:ident) => {
        fn head(&self) -> Result<$crate::store::Head, $crate::store::StoreError> {
            $inner!(self, store => store.head())
        }

        fn changes(
            &self,
            after: u64,
            visit: &mut dyn FnMut($crate::store::Changed<'_>) -> ::std::ops::ControlFlow<()>,
        ) -> Result<$crate::store::Head, $crate::store::StoreError> {
            $inner!(self, store => store.changes(after, visit))
        }

        fn changes_in(
            &self,
            scope: &str,
            after: u64,
            visit: &mut dyn FnMut($crate::store::ScopeChange<'_>) -> ::std::ops::ControlFlow<()>,
        ) -> Result<$crate::store::Head, $crate::store::StoreError> {
            $inner!(self, store => store.changes_in(scope, after, visit))
        }

        fn scopes(&self) -> Result<Vec<(String, $crate::store::Digest)>, $crate::store::StoreError> {
            $inner!(self, store => store.scopes())
        }

        fn has_left(&self, scope: &str, after: u64) -> Result<bool, $crate::store::StoreError> {
            $inner!(self, store => store.has_left(scope, after))
        }

        fn left_by(&self, kind: &str, id: &str) -> Result<Vec<String>, $crate::store::StoreError> {
            $inner!(self, store => store.left_by(kind, id))
        }

        fn kinds(&self) -> Result<Vec<String>, $crate::store::StoreError> {
            $inner!(self, store => store.kinds())
        }

        fn ids(
            &self,
            kind: &str,
            after: Option<&str>,
            limit: usize,
        ) -> Result<Vec<String>, $crate::store::StoreError> {
            $inner!(self, store => store.ids(kind, after, limit))
        }

        fn records(
            &self,
            table: $crate::store::Table,
            from: &[u8],
            visit: &mut dyn FnMut(&[u8], &[u8]) -> ::std::ops::ControlFlow<()>,
        ) -> Result<(), $crate::store::StoreError> {
            $inner!(self, store => store.records(table, from, visit))
        }

        fn record(
            &self,
            table: $crate::store::Table,
            key: &[u8],
        ) -> Result<Option<Vec<u8>>, $crate::store::StoreError> {
            $inner!(self, store => store.record(table, key))
        }

        fn last_record(
            &self,
            table: $crate::store::Table,
            below: &[u8],
        ) -> Result<Option<$crate::store::Record>, $crate::store::StoreError> {
            $inner!(self, store => store.last_record(table, below))
        }
    };
}
