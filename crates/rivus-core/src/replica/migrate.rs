//! Whether the schema merges as the store did when it was last opened.

use std::collections::BTreeMap;

use super::{Replica, STALE_RETRIES_MAX, unreadable};
use crate::schema::Mismatch;
use crate::store::{Batch, CommitError, RecordRead, RecordWrite, Store, StoreError, Table};

/// The key of the policies under which a store was last opened.
const POLICIES_KEY: &[u8] = b"policies";

/// By kind and field (`None` for the kind's life), in words.
type Policies = BTreeMap<(String, Option<String>), String>;

/// Why a schema is not taken for a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// A policy has changed and no migration leads from the old one to the new one.
    #[error("{}: it was \"{theirs}\" in this store and is \"{ours}\" now: declare a migration", what(.0), theirs = .0.theirs, ours = .0.ours)]
    Policy(Mismatch),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Store(error) => error,
            policy @ MigrateError::Policy(_) => Self::Schema(policy.to_string()),
        }
    }
}

fn what(mismatch: &Mismatch) -> String {
    match &mismatch.field {
        Some(field) => format!("field `{field}` of kind `{}`", mismatch.kind),
        None => format!("life of kind `{}`", mismatch.kind),
    }
}

/// What a schema makes of a store's policies.
struct Binding {
    found: Option<Vec<u8>>,
    /// What is to be noted; `None` if that is there already.
    after: Option<Policies>,
    /// The migrations that are followed.
    names: Vec<String>,
}

impl<S: Store> Replica<S> {
    /// Checks the schema against that under which the store was last used, and follows the migrations that it declares.
    /// Returns their names. No data is rewritten.
    ///
    /// What only one of the two schemas declares does not matter; it is noted with the first rows that this replica
    /// writes, so that looking at a store with a wrong schema does not bind it to that.
    ///
    /// # Errors
    /// [`MigrateError`]; nothing has changed.
    pub fn migrate(&mut self) -> Result<Vec<String>, MigrateError> {
        let Binding { after, names, .. } = self.binding()?;
        if names.is_empty() {
            self.unbound = after.is_some();
            return Ok(names);
        }
        self.bind()
    }

    /// Notes how the store merges from now on.
    pub(super) fn bind(&mut self) -> Result<Vec<String>, MigrateError> {
        for _ in 0..STALE_RETRIES_MAX {
            let Binding { found, after, names } = self.binding()?;
            let Some(after) = after else {
                self.unbound = false;
                return Ok(names);
            };
            let unchanged = [RecordRead { table: Table::Identity, key: POLICIES_KEY.to_vec(), value: found }];
            let records = [RecordWrite::put(Table::Identity, POLICIES_KEY, encode(&after))];
            let (unchanged, records) = (unchanged.as_slice().into(), records.as_slice().into());
            match self.store.commit(Batch { unchanged, records, ..Batch::default() }) {
                Ok(_) => {
                    self.unbound = false;
                    return Ok(names);
                }
                Err(CommitError::Stale) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(StoreError::Busy("others keep changing the store's policies".to_owned()).into())
    }

    fn binding(&self) -> Result<Binding, MigrateError> {
        let found = self.store.record(Table::Identity, POLICIES_KEY)?;
        let before = found.as_deref().map_or(Ok(Policies::new()), decode)?;
        let (mut after, mut names) = (before.clone(), Vec::new());
        for (kind, field, now) in self.schema.policies() {
            let was = after.insert((kind.clone(), field.clone()), now.clone());
            let Some(was) = was.filter(|was| *was != now) else { continue };
            let declared = self.schema.kind(&kind);
            let Some(way) = declared.and_then(|declared| declared.way(field.as_deref(), &was)) else {
                return Err(MigrateError::Policy(Mismatch { kind, field, ours: now, theirs: was }));
            };
            names.extend(way.into_iter().map(str::to_owned));
        }
        Ok(Binding { found, after: (after != before).then_some(after), names })
    }
}

impl<S: Store> Replica<S> {
    /// How many fields, and lives of kinds, some program has declared for this store that this schema does not declare:
    /// what it shows of them, and writes into them, may not be what that program does.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn undeclared(&self) -> Result<usize, StoreError> {
        let found = self.store.record(Table::Identity, POLICIES_KEY)?;
        let mut declared = found.as_deref().map_or(Ok(Policies::new()), decode)?;
        for (kind, field, _) in self.schema.policies() {
            declared.remove(&(kind, field));
        }
        Ok(declared.len())
    }
}

/// As JSON: triples of kind, field or null, and policy.
fn encode(policies: &Policies) -> Vec<u8> {
    let triples: Vec<_> = policies.iter().map(|((kind, field), policy)| (kind, field, policy)).collect();
    #[expect(clippy::expect_used, reason = "lists of strings always have a JSON form")]
    serde_json::to_vec(&triples).expect("strings have a JSON form")
}

fn decode(bytes: &[u8]) -> Result<Policies, StoreError> {
    let triples: Vec<(String, Option<String>, String)> =
        serde_json::from_slice(bytes).map_err(|_| unreadable("the policies of the last opening"))?;
    Ok(triples.into_iter().map(|(kind, field, policy)| ((kind, field), policy)).collect())
}
