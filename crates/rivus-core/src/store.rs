//! What a store must do: keep packed rows and small records, and commit all of a change or nothing.
//!
//! A store understands neither rows nor records; it orders commits. Each row that a commit writes takes its own
//! seq, consecutive, in commit order. A commit names the seq at which every row it depends on was read and fails
//! as [`CommitError::Stale`], changing nothing, if another writer moved one. One conformance suite
//! ([`conformance`]) runs against every implementation.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod forward;
mod memory;

use std::borrow::Cow;
use std::ops::ControlFlow;

use crate::id::Incarnation;
use crate::projection::ViewWrite;
use crate::row::Sums;

pub use memory::MemoryStore;

/// Small keyed records, by purpose. Replicas encode and read them; stores keep them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Table {
    /// Who the store and its replicas are, and its authority.
    Identity = 0,
    /// Where this store is in others' changes.
    Cursor = 1,
    /// What is known of other stores.
    Peer = 2,
    /// Pending edits in order, by the seq of their commit.
    Outbox = 3,
    /// Edits that an authority refused, with the reason.
    Rejected = 4,
    /// Registers from the future, by the time when they are due.
    Quarantine = 5,
    /// The newest instant known of each replica.
    Newest = 6,
    /// The index of the rules: who is in which group; and how far tables of views follow the rows.
    Rule = 7,
    /// Writes that lost to ones that had not seen them.
    Conflict = 8,
    /// What each commit changed, by the seq of the commit.
    Journal = 9,
    /// Entities that are evicted, with what left with them.
    Evicted = 10,
    /// Whose stores and replicas are.
    Owner = 11,
    /// At an authority: which stores it waits for, and until when. At a device: what it has to make anew once it has read
    /// everything.
    Lease = 12,
    /// Which entities were collected, by the seq of the commit.
    Collected = 13,
    /// Entities and scopes that are to be removed as soon as no pending edit touches them.
    Leaving = 14,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 15] = [
        Self::Identity,
        Self::Cursor,
        Self::Peer,
        Self::Outbox,
        Self::Rejected,
        Self::Quarantine,
        Self::Newest,
        Self::Rule,
        Self::Conflict,
        Self::Journal,
        Self::Evicted,
        Self::Owner,
        Self::Lease,
        Self::Collected,
        Self::Leaving,
    ];
}

/// A store's digest: additive multiset hashes of its registers (see the semantics, section on digests).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Digest {
    /// Of the registers as shown.
    pub shown: u128,
    /// Of the registers without pending edits.
    pub confirmed: u128,
    /// How many registers are confirmed.
    pub count: u64,
}

impl Digest {
    /// What is left without a part of it.
    #[must_use]
    pub fn minus(self, part: Self) -> Self {
        Self {
            shown: self.shown.wrapping_sub(part.shown),
            confirmed: self.confirmed.wrapping_sub(part.confirmed),
            count: self.count.wrapping_sub(part.count),
        }
    }

    /// What has to be added to come from another digest to this one.
    #[must_use]
    pub fn from(self, other: Self) -> Sums {
        let Self { shown, confirmed, count } = self.minus(other);
        Sums { shown, confirmed, count: count.cast_signed() }
    }

    /// The digest after a change.
    #[must_use]
    pub fn plus(self, sums: Sums) -> Self {
        Self {
            shown: self.shown.wrapping_add(sums.shown),
            confirmed: self.confirmed.wrapping_add(sums.confirmed),
            count: self.count.wrapping_add_signed(sums.count),
        }
    }
}

/// Where a store stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// The seq of the last row written; 0 in an empty store.
    pub seq: u64,
    /// Every opening that wrote, with its first seq, oldest first.
    pub incarnations: Vec<(Incarnation, u64)>,
    /// The clock's high-water, NTP64.
    pub high_water: u64,
    /// See [`Digest`].
    pub digest: Digest,
}

/// Where a store has found a row, in a number of its own, so that the commit need not look for it again.
///
/// A hint: it counts only while the row there bears the seq that goes with it, which no two rows share. At
/// worst the commit is stale. 0 says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place(pub u64);

/// One row as loaded: an entity, or one chunk of a large one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk<'s> {
    /// The first address that belongs to it; empty for an entity's first chunk.
    pub start: Cow<'s, [u8]>,
    /// The seq of its last write.
    pub seq: u64,
    /// Where it is.
    pub place: Place,
    /// The packed row.
    pub bytes: Cow<'s, [u8]>,
}

/// One row met while going through changes.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'s> {
    /// The entity's kind.
    pub kind: &'s str,
    /// The entity's id.
    pub id: &'s str,
    /// The seq of its last write.
    pub seq: u64,
    /// The packed row.
    pub bytes: &'s [u8],
}

/// What is met while going through the changes of one scope.
#[derive(Clone, Copy, Debug)]
pub enum ScopeChange<'s> {
    /// A row of an entity that is in the scope.
    Row(Changed<'s>),
    /// An entity that was in the scope, and is in another one now.
    Left {
        /// The entity's kind.
        kind: &'s str,
        /// The entity's id.
        id: &'s str,
        /// The seq of the last row of the commit that moved it. Others may share it.
        seq: u64,
    },
}

impl ScopeChange<'_> {
    /// Where it stands in the order of changes.
    #[must_use]
    pub fn seq(&self) -> u64 {
        match self {
            Self::Row(changed) => changed.seq,
            Self::Left { seq, .. } => *seq,
        }
    }
}

/// An entity that a commit moves from one scope to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move<'b> {
    /// The entity's kind.
    pub kind: &'b str,
    /// The entity's id.
    pub id: &'b str,
    /// Where it was; `None` if nobody has to be told that it has left.
    pub from: Option<&'b str>,
    /// Where it is now.
    pub to: &'b str,
}

/// A row that a commit depends on without writing it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowRead<'b> {
    /// The entity's kind.
    pub kind: &'b str,
    /// The entity's id.
    pub id: &'b str,
    /// The chunk's first address.
    pub start: Cow<'b, [u8]>,
    /// The seq at which it was read; 0 if it was not there.
    pub seq: u64,
    /// Where it was read.
    pub place: Place,
}

/// A row to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowWrite<'b> {
    /// The row, and the seq at which it was read.
    pub row: RowRead<'b>,
    /// The new packed row; empty if the row goes. It takes a seq all the same.
    pub bytes: Cow<'b, [u8]>,
    /// The scope that its entity is in; empty for the one that has no name.
    pub scope: &'b str,
}

/// A record's key and content.
pub type Record = (Vec<u8>, Vec<u8>);

/// The key of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordKey {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The seq of the commit's last row, written or removed, 8 bytes big-endian.
    CommitSeq,
}

/// A record to write, or to remove.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordWrite {
    /// Where.
    pub table: Table,
    /// Under which key.
    pub key: RecordKey,
    /// The new content; `None` removes it.
    pub value: Option<Vec<u8>>,
}

impl RecordWrite {
    /// A record to write under a key that is known already.
    #[must_use]
    pub fn put(table: Table, key: impl Into<Vec<u8>>, value: Vec<u8>) -> Self {
        Self { table, key: RecordKey::Bytes(key.into()), value: Some(value) }
    }

    /// A record to remove.
    #[must_use]
    pub fn remove(table: Table, key: impl Into<Vec<u8>>) -> Self {
        Self { table, key: RecordKey::Bytes(key.into()), value: None }
    }
}

/// A record that a commit depends on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordRead {
    /// Where.
    pub table: Table,
    /// Under which key.
    pub key: Vec<u8>,
    /// What it held when it was read; `None` if it was not there.
    pub value: Option<Vec<u8>>,
}

/// What a commit does to the clock's high-water.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HighWater {
    /// Not below this.
    AtLeast(u64),
    /// Exactly this: stamps that nobody else holds were taken back.
    Set(u64),
}

/// One commit: all of it or nothing.
#[derive(Clone, PartialEq, Debug)]
pub struct Batch<'b> {
    /// The seq that the head must still have: then nobody has written any row. `None` if that does not matter.
    pub head: Option<u64>,
    /// Rows that must not have moved.
    pub reads: Cow<'b, [RowRead<'b>]>,
    /// Records that must not have changed.
    pub unchanged: Cow<'b, [RecordRead]>,
    /// Rows to write, in the order in which they take their seqs. No row twice.
    pub rows: Cow<'b, [RowWrite<'b>]>,
    /// Entities that move. All of their rows are among those to write.
    pub moves: Cow<'b, [Move<'b>]>,
    /// Records to write, in order.
    pub records: Cow<'b, [RecordWrite]>,
    /// The clock.
    pub high_water: HighWater,
    /// Added to the digest.
    pub sums: Sums,
    /// Added to the digests of scopes that have a name, each once. They are part of the store's.
    pub scopes: Cow<'b, [(&'b str, Sums)]>,
    /// Appended with the commit's first seq if the commit writes or removes rows.
    pub incarnation: Option<Incarnation>,
    /// Changes of tables of views, in order. A store that keeps none passes over them.
    pub views: Cow<'b, [ViewWrite<'b>]>,
}

impl Default for Batch<'_> {
    fn default() -> Self {
        Self {
            head: None,
            reads: Cow::Borrowed(&[]),
            unchanged: Cow::Borrowed(&[]),
            rows: Cow::Borrowed(&[]),
            moves: Cow::Borrowed(&[]),
            records: Cow::Borrowed(&[]),
            high_water: HighWater::AtLeast(0),
            sums: Sums::default(),
            scopes: Cow::Borrowed(&[]),
            incarnation: None,
            views: Cow::Borrowed(&[]),
        }
    }
}

/// A place for a replica's state.
///
/// Reading methods see the last commit. Implementations exist for memory ([`MemoryStore`]) and SQLite.
pub trait Store {
    /// Where the store stands.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn head(&self) -> Result<Head, StoreError>;

    /// The chunk to which `address` belongs: the one with the greatest start at or below it. `None` if the
    /// entity has no row at all.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn load(&self, kind: &str, id: &str, address: &[u8]) -> Result<Option<Chunk<'_>>, StoreError>;

    /// Visits the rows with a seq above `after`, ascending, until the visitor breaks off, and returns the head of
    /// the same snapshot.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn changes(
        &self,
        after: u64,
        visit: &mut dyn FnMut(Changed<'_>) -> ControlFlow<()>,
    ) -> Result<Head, StoreError>;

    /// As [`Store::changes`], of one scope alone: visits its rows, and what has left it, at equal seqs rows first. The
    /// digest of the head that it returns is the scope's.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn changes_in(
        &self,
        scope: &str,
        after: u64,
        visit: &mut dyn FnMut(ScopeChange<'_>) -> ControlFlow<()>,
    ) -> Result<Head, StoreError>;

    /// The scopes with a name that have registers, sorted, each with its digest. What is left of the store's digest is
    /// that of the scope without a name.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn scopes(&self) -> Result<Vec<(String, Digest)>, StoreError>;

    /// Whether anything has left a scope above a seq.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn has_left(&self, scope: &str, after: u64) -> Result<bool, StoreError>;

    /// The scopes that an entity has left, as far as that is remembered, sorted.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn left_by(&self, kind: &str, id: &str) -> Result<Vec<String>, StoreError>;

    /// The kinds that have rows, sorted.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn kinds(&self) -> Result<Vec<String>, StoreError>;

    /// Up to `limit` ids of a kind above `after`, in byte order.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn ids(&self, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError>;

    /// Visits a table's records with keys at or above `from`, ascending, until the visitor breaks off.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn records(
        &self,
        table: Table,
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// The record with the greatest key below `below`. The default goes through all of them.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn last_record(&self, table: Table, below: &[u8]) -> Result<Option<Record>, StoreError> {
        let mut last = None;
        self.records(table, &[], &mut |key, value| {
            if key >= below {
                return ControlFlow::Break(());
            }
            last = Some((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        Ok(last)
    }

    /// Commits all of the batch, durably as the store is set up, and returns the head seq after it.
    ///
    /// # Errors
    /// [`CommitError`]; nothing of the batch is then in the store.
    fn commit(&mut self, batch: Batch<'_>) -> Result<u64, CommitError>;

    /// Whether it keeps tables of views.
    fn projects(&self) -> bool {
        false
    }

    /// A number that differs from the one before whenever another writer has committed since; `None` if there can
    /// be no other writer.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn others(&self) -> Result<Option<i64>, StoreError> {
        Ok(None)
    }

    /// Does what reads several things, as of one moment if the store can: reading is then cheaper, too. Must not be
    /// held while anything else is waited for.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn together<T>(&self, read: impl FnOnce() -> T) -> Result<T, StoreError>
    where
        Self: Sized,
    {
        Ok(read())
    }

    /// Whatever is read from here to [`Store::end_reading`], or to the next commit, may be as of one moment: reading is
    /// then cheaper. Must not be held while anything else is waited for. A store that cannot begin reads one by one.
    fn begin_reading(&self) {}

    /// Reading is as of now again, each time.
    fn end_reading(&self) {}

    /// One record.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn record(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut found = None;
        self.records(table, key, &mut |at, value| {
            if at == key {
                found = Some(value.to_vec());
            }
            ControlFlow::Break(())
        })?;
        Ok(found)
    }
}

/// Why a store cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No room left.
    #[error("the store is full ({0}): nothing was written; free some space and try again")]
    Full(String),
    /// The content is not what this version writes.
    #[error("the store is damaged or not a Rivus store ({0}): restore a backup, or export what can be read")]
    Damaged(String),
    /// A newer version wrote it.
    #[error("the store has format {found}, this version reads up to {known}: update this program")]
    TooNew {
        /// What the store says.
        found: i64,
        /// What this version knows.
        known: i64,
    },
    /// Since it was opened, another program has written into it with a schema that merges otherwise.
    #[error("nothing was written, another program uses this store with another schema by now: {0}")]
    Schema(String),
    /// Another process holds it for too long.
    #[error("the store is busy ({0}): another process holds it; close that or try again")]
    Busy(String),
    /// What was to be joined is from the future, and as much as may be is set aside already.
    #[error(
        "it is stamped in the future, and as much of that as may be is set aside already: \
         is the clock right that stamped it, and the one here?"
    )]
    Aside,
    /// Nothing can be there, or something is there already.
    #[error("{0}")]
    Place(String),
    /// Anything else the system said.
    #[error("the store cannot be used ({0}): check that the path exists and may be written")]
    Io(String),
}

/// Why a commit did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Another writer moved a row that was read: load again and retry.
    #[error("another writer was faster: load again and retry")]
    Stale,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
