//! Whose stores and replicas are: an authority remembers under which name each of them first connected.
//!
//! An id belongs to the first principal with a name that shows it, and nobody else may name it from then on, nor may
//! those without a name. Until then it is anybody's. Owns the records; who somebody is was found out before.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{Replica, STALE_RETRIES_MAX, unreadable};
use crate::bytes::{Put, Reader};
use crate::id::{ReplicaId, StoreId};
use crate::store::{Batch, CommitError, RecordRead, RecordWrite, Store, StoreError, Table};

/// How many replicas and stores one principal may bring.
pub const OWNED_MAX: u64 = 65_536;

/// The records' keys begin with what they are of.
mod of {
    pub(super) const STORE: u8 = 0;
    pub(super) const REPLICA: u8 = 1;
    /// How many belong to a principal.
    pub(super) const COUNT: u8 = 2;
}

/// Why somebody may not connect as this store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnError {
    /// The store has connected as somebody else.
    #[error(
        "this database belongs to another account: connect as the one that it first connected as, or begin with a new \
         database"
    )]
    ForeignStore,
    /// A replica has connected as somebody else, or is this side's own.
    #[error(
        "replica {0} belongs to another account: connect as the one that it first connected as, or begin with a new \
         database"
    )]
    ForeignReplica(ReplicaId),
    /// More than one principal may have.
    #[error(
        "this account has brought {OWNED_MAX} databases and replicas: no more are taken until it is disowned"
    )]
    TooMany,
    /// The records could not be read or written; nothing has changed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<StoreError> for OwnError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

impl<S: Store> Replica<S> {
    /// Makes a store and its replicas those of `subject`, unless that is empty: then it looks only that they are
    /// nobody's.
    ///
    /// # Errors
    /// [`OwnError`]; nothing has changed.
    pub fn own(&mut self, subject: &str, store: StoreId, replicas: &[ReplicaId]) -> Result<(), OwnError> {
        if let Some(own) = self.identity.all_replicas().find(|own| replicas.contains(own)) {
            return Err(OwnError::ForeignReplica(own));
        }
        for _ in 0..STALE_RETRIES_MAX {
            match self.own_once(subject, store, replicas) {
                Err(OwnError::Commit(CommitError::Stale)) => {}
                done => return done,
            }
        }
        Err(CommitError::Stale.into())
    }

    fn own_once(&mut self, subject: &str, store: StoreId, replicas: &[ReplicaId]) -> Result<(), OwnError> {
        let (mut records, mut unchanged) = (Vec::new(), Vec::new());
        let of_store = std::iter::once((key(of::STORE, &store.0.to_be_bytes()), None));
        let of_replicas = replicas.iter().map(|replica| (key(of::REPLICA, &replica.0), Some(*replica)));
        for (key, replica) in of_store.chain(of_replicas) {
            match self.store.record(Table::Owner, &key)? {
                Some(owner) if owner == subject.as_bytes() => {}
                Some(_) => return Err(replica.map_or(OwnError::ForeignStore, OwnError::ForeignReplica)),
                None if subject.is_empty() => {}
                None => {
                    // Another process may be asked the same by somebody else at this moment.
                    unchanged.push(RecordRead { table: Table::Owner, key: key.clone(), value: None });
                    records.push(RecordWrite::put(Table::Owner, key, subject.as_bytes().to_vec()));
                }
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let counted = key(of::COUNT, subject.as_bytes());
        let value = self.store.record(Table::Owner, &counted)?;
        let before = value.as_deref().map_or(Ok(0), |value| Reader::new(value).varint());
        let before = before.map_err(|_| unreadable("how much an account owns"))?;
        let count = before.saturating_add(records.len() as u64);
        if count > OWNED_MAX {
            return Err(OwnError::TooMany);
        }
        unchanged.push(RecordRead { table: Table::Owner, key: counted.clone(), value });
        let mut value = Vec::new();
        value.varint(count);
        records.push(RecordWrite::put(Table::Owner, counted, value));
        self.store.commit(Batch {
            records: records.into(),
            unchanged: unchanged.into(),
            ..Batch::default()
        })?;
        Ok(())
    }

    /// Forgets what belongs to `subject`: whoever names it next has it. For accounts that are renamed or closed, and for
    /// databases that are handed on. Returns how many stores and replicas that were.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub fn disown(&mut self, subject: &str) -> Result<usize, StoreError> {
        let mut records = Vec::new();
        self.store.records(Table::Owner, &[], &mut |key, owner| {
            if key.first() != Some(&of::COUNT) && owner == subject.as_bytes() {
                records.push(RecordWrite::remove(Table::Owner, key));
            }
            ControlFlow::Continue(())
        })?;
        let forgotten = records.len();
        if forgotten > 0 {
            records.push(RecordWrite::remove(Table::Owner, key(of::COUNT, subject.as_bytes())));
            super::commit_records(&mut self.store, records)?;
        }
        Ok(forgotten)
    }

    /// The stores of each principal that has any, in the order of their names.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read; `Damaged` if a record says nothing that this version writes.
    pub fn accounts(&self) -> Result<BTreeMap<String, Vec<StoreId>>, StoreError> {
        let (mut accounts, mut wrong) = (BTreeMap::<String, Vec<StoreId>>::new(), None);
        self.store.records(Table::Owner, &[of::STORE], &mut |key, owner| {
            let Some((&of::STORE, id)) = key.split_first() else { return ControlFlow::Break(()) };
            match (<[u8; 8]>::try_from(id), std::str::from_utf8(owner)) {
                (Ok(id), Ok(owner)) => {
                    let store = StoreId(u64::from_be_bytes(id));
                    accounts.entry(owner.to_owned()).or_default().push(store);
                    ControlFlow::Continue(())
                }
                _ => {
                    wrong = Some(unreadable("whose a store is"));
                    ControlFlow::Break(())
                }
            }
        })?;
        wrong.map_or(Ok(accounts), Err)
    }

    /// Who has this replica, if it is anybody's.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn owner(&self, replica: ReplicaId) -> Result<Option<String>, StoreError> {
        let owner = self.store.record(Table::Owner, &key(of::REPLICA, &replica.0))?;
        let read = |owner| String::from_utf8(owner).map_err(|_| unreadable("whose a replica is"));
        owner.map(read).transpose()
    }
}

fn key(of: u8, id: &[u8]) -> Vec<u8> {
    let mut key = vec![of];
    key.extend_from_slice(id);
    key
}
