//! Evicting: a device frees the room of entities that it does not want at hand, without deleting anything, and has
//! them back from its authority when it asks.
//!
//! What rules read of an evicted entity stays whole, so that no other entity shows otherwise; of each other register
//! its share of the digest stays, so that the digests still tell whether the stores agree. Views, lists and edits
//! pass over it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::read::unsettled;
use super::{Meanwhile, Origin, Replica, STALE_RETRIES_MAX, unreadable};
use crate::address::LIFE;
use crate::bytes::{Cut, Put, Reader};
use crate::clock::Millis;
use crate::edit::Presence;
use crate::register::Register;
use crate::row::Row;
use crate::store::{CommitError, Digest, RecordWrite, Store, StoreError, Table};
use crate::wire::FRAME_BYTES_MAX;
use crate::wire::page::REGISTERS_MAX;
use crate::work::{Left, Scratch, Work, damaged};

/// How much is evicted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Evicted {
    /// How many entities.
    pub entities: usize,
    /// How many registers of theirs are at the authority alone.
    pub registers: u64,
}

/// The key of the note that everything is to be read again, whoever sent it: the key of no entity.
const ALL_WANTED: &[u8] = &[0xff];

impl<S: Store> Replica<S> {
    /// Evicts entities, by kind and id: all of them in one commit, or none. Those that are evicted already stay so.
    /// Says how much left.
    ///
    /// # Errors
    /// [`EvictError`]; nothing has changed.
    pub fn evict(&mut self, now: Millis, entities: &[(String, String)]) -> Result<Evicted, EvictError> {
        self.now = now;
        for _ in 0..STALE_RETRIES_MAX {
            self.refresh()?;
            if self.identity.is_authority || !self.identity.authority.is_some_and(|authority| authority.met) {
                return Err(EvictError::NoAuthority);
            }
            if let Some(unresolved) = self.unresolved {
                return Err(EvictError::Rules(unresolved.to_string()));
            }
            let names: BTreeSet<(&str, &str)> =
                entities.iter().map(|(kind, id)| (kind.as_str(), id.as_str())).collect();
            self.refuse_unconfirmed(&names)?;
            let staged = self.store.together(|| {
                let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
                let (mut records, mut evicted) = (Vec::new(), Evicted::default());
                for (kind, id) in &names {
                    if let Some(left) = self.stage_eviction(&mut work, kind, id)? {
                        records.push(RecordWrite::put(Table::Evicted, key(kind, id), encode(left)));
                        evicted.entities += 1;
                        evicted.registers += left.registers;
                    }
                }
                Ok::<_, EvictError>((work.finish()?, records, evicted))
            })?;
            let (finished, records, evicted) = match staged {
                Err(EvictError::Commit(CommitError::Stale)) => continue,
                staged => staged?,
            };
            if evicted.entities == 0 {
                return Ok(evicted);
            }
            match self.commit(finished, records, Meanwhile::Any, Origin::Evicted) {
                Ok(_) => return Ok(evicted),
                Err(CommitError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Stale.into())
    }

    /// Stages one eviction; `None` if the entity is evicted already.
    fn stage_eviction(
        &self,
        work: &mut Work<'_, S>,
        kind: &str,
        id: &str,
    ) -> Result<Option<Left>, EvictError> {
        let name = || (kind.to_owned(), id.to_owned());
        let at = work.entity(kind, id);
        if work.is_evicted(at)? {
            return Ok(None);
        }
        if !work.is_held(at)? {
            let (kind, id) = name();
            return Err(EvictError::Unknown { kind, id });
        }
        let Some(left) = work.evict(at, self.schema.rules().watch(kind))? else {
            let (kind, id) = name();
            return Err(EvictError::Pending { kind, id });
        };
        // The authority hands it out in one frame, which names it and codes it a little otherwise.
        if left.bytes > FRAME_BYTES_MAX / 2 || left.candidates > REGISTERS_MAX / 2 {
            let (kind, id) = name();
            return Err(EvictError::TooLarge { kind, id, bytes: left.bytes });
        }
        Ok(Some(left))
    }

    /// Refuses entities of which the authority has not confirmed everything.
    fn refuse_unconfirmed(&self, names: &BTreeSet<(&str, &str)>) -> Result<(), EvictError> {
        let mut found: Option<(String, String)> = None;
        let mut look = |kind: &str, id: &str| {
            let is_one = names.contains(&(kind, id));
            if is_one {
                found = Some((kind.to_owned(), id.to_owned()));
            }
            if is_one { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.pending(0, &mut |_, edit| edit.entities.iter().try_for_each(|each| look(each.kind, each.id)))?;
        let mut failed = false;
        self.store.records(Table::Quarantine, &[], &mut |_, value| {
            let mut reader = Reader::new(value);
            let mut name = || -> Result<_, Cut> { Ok((reader.str()?, reader.str()?)) };
            match name() {
                Ok((kind, id)) => look(kind, id),
                Err(Cut) => {
                    failed = true;
                    ControlFlow::Break(())
                }
            }
        })?;
        if failed {
            return Err(unreadable("a record of the quarantine").into());
        }
        found.map_or(Ok(()), |(kind, id)| Err(EvictError::Pending { kind, id }))
    }

    /// How much is evicted.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn evicted(&self) -> Result<Evicted, StoreError> {
        let mut names = Vec::new();
        self.each_evicted(&mut |kind, id, _| names.push((kind.to_owned(), id.to_owned())))?;
        let (_, registers) = self.shares_of(&names)?;
        Ok(Evicted { entities: names.len(), registers })
    }

    /// Visits the evicted entities.
    pub(super) fn each_evicted(&self, visit: &mut dyn FnMut(&str, &str, Left)) -> Result<(), StoreError> {
        let mut failed = false;
        self.store.records(Table::Evicted, &[], &mut |key, value| {
            if key == ALL_WANTED {
                return ControlFlow::Continue(());
            }
            let mut read = || -> Result<(), Cut> {
                let mut reader = Reader::new(key);
                let kind = reader.str()?;
                let id = std::str::from_utf8(reader.rest()).map_err(|_| Cut)?;
                visit(kind, id, decode(value)?);
                Ok(())
            };
            failed = read().is_err();
            if failed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if failed { Err(unreadable("the record of an evicted entity")) } else { Ok(()) }
    }

    /// The greatest time that is not above `believable` of entities when they were evicted.
    pub(super) fn evicted_high_water(&self, believable: u64) -> Result<u64, StoreError> {
        let mut time = 0;
        self.each_evicted(&mut |_, _, left| {
            time = time.max(if left.newest <= believable { left.newest } else { 0 });
        })?;
        Ok(time)
    }

    /// Hands an entity's confirmed registers to the visitor, ascending by address, if there are any.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub(crate) fn hand_out(
        &self,
        kind: &str,
        id: &str,
        visit: &mut dyn FnMut(&[(&[u8], Register<'_>)]),
    ) -> Result<(), StoreError> {
        let mut work = Work::new(&self.store);
        let at = work.entity(kind, id);
        let rows = work.rows(at).map_err(|error| unsettled(kind, id, error))?;
        let mut registers: Vec<(&[u8], Register<'_>)> = Vec::new();
        for entry in rows.iter().flat_map(Row::entries) {
            let read = entry.and_then(|entry| Ok((entry.address, entry.state()?.into_confirmed())));
            let (address, confirmed) = read.map_err(|corrupt| damaged(kind, id, corrupt))?;
            registers.extend(confirmed.map(|register| (address, register)));
        }
        if !registers.is_empty() {
            visit(&registers);
        }
        Ok(())
    }

    /// Whether the entity shows, is deleted, evicted, or not known.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn presence(&self, kind: &str, id: &str) -> Result<Presence, StoreError> {
        if self.is_evicted(kind, id)? {
            return Ok(Presence::Evicted);
        }
        Ok(match self.view(kind, id)? {
            None if self.is_partial && self.is_named(kind, id)? => Presence::Referenced,
            None => Presence::Absent,
            Some(view) if view.deleted => Presence::Deleted,
            Some(_) => Presence::Alive,
        })
    }

    fn is_named(&self, kind: &str, id: &str) -> Result<bool, StoreError> {
        self.rules().map_or(Ok(false), |rules| self.reading().is_named(rules, kind, id))
    }

    pub(super) fn is_evicted(&self, kind: &str, id: &str) -> Result<bool, StoreError> {
        let Some(chunk) = self.store.load(kind, id, LIFE)? else { return Ok(false) };
        let row = Row::new(&chunk.bytes, chunk.seq).map_err(|corrupt| damaged(kind, id, corrupt))?;
        Ok(row.is_evicted())
    }

    /// Forgets all that is evicted, so that the digest is that of what is held: the authority may not have it any more,
    /// or this store may have it otherwise. Everything is read again then.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed.
    pub(crate) fn forget_evicted(&mut self) -> Result<(), CommitError> {
        for _ in 0..STALE_RETRIES_MAX {
            self.refresh()?;
            let (mut names, mut records) = (Vec::new(), Vec::new());
            self.each_evicted(&mut |kind, id, _| {
                records.push(RecordWrite::remove(Table::Evicted, key(kind, id)));
                names.push((kind.to_owned(), id.to_owned()));
            })?;
            if names.is_empty() {
                return Ok(());
            }
            tracing::info!(entities = names.len(), "evicted entities are forgotten and read again");
            records.push(RecordWrite::put(Table::Evicted, ALL_WANTED, Vec::new()));
            let staged = self.store.together(|| {
                let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
                for (kind, id) in &names {
                    let at = work.entity(kind, id);
                    work.forget(at)?;
                }
                work.finish()
            })?;
            let finished = match staged {
                Err(CommitError::Stale) => continue,
                staged => staged?,
            };
            match self.commit(finished, records, Meanwhile::Any, Origin::Evicted) {
                Err(CommitError::Stale) => {}
                done => return done.map(drop),
            }
        }
        Err(CommitError::Stale)
    }

    /// Whether everything is to be read from the authority again, since evicted entities were forgotten.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub(crate) fn wants_all(&self) -> Result<bool, StoreError> {
        Ok(self.store.record(Table::Evicted, ALL_WANTED)?.is_some())
    }

    /// Notes that everything was read.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub(crate) fn has_all(&mut self) -> Result<(), StoreError> {
        if self.wants_all()? {
            super::commit_records(&mut self.store, vec![RecordWrite::remove(Table::Evicted, ALL_WANTED)])?;
        }
        Ok(())
    }

    /// The share of the digest of what is not at hand.
    pub(super) fn evicted_digest(&self) -> Result<Digest, StoreError> {
        let mut names = Vec::new();
        self.each_evicted(&mut |kind, id, _| names.push((kind.to_owned(), id.to_owned())))?;
        let (sum, count) = self.shares_of(&names)?;
        Ok(Digest { shown: sum, confirmed: sum, count })
    }

    /// The sum and the number of the shares of entities.
    fn shares_of(&self, names: &[(String, String)]) -> Result<(u128, u64), StoreError> {
        let (mut sum, mut count) = (0_u128, 0);
        for (kind, id) in names {
            let mut work = Work::new(&self.store);
            let at = work.entity(kind, id);
            let rows = work.rows(at).map_err(|error| unsettled(kind, id, error))?;
            for share in rows.iter().flat_map(Row::shares) {
                let (_, share) = share.map_err(|corrupt| damaged(kind, id, corrupt))?;
                sum = sum.wrapping_add(share);
                count += 1;
            }
        }
        Ok((sum, count))
    }
}

/// Under which key the record of an evicted entity is.
pub(super) fn key(kind: &str, id: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(kind.len() + id.len() + 2);
    key.slice(kind.as_bytes());
    key.extend_from_slice(id.as_bytes());
    key
}

fn encode(left: Left) -> Vec<u8> {
    let mut out = Vec::new();
    out.varint(left.registers);
    out.varint(left.newest);
    out
}

fn decode(value: &[u8]) -> Result<Left, Cut> {
    let mut reader = Reader::new(value);
    Ok(Left { registers: reader.varint()?, newest: reader.varint()?, ..Left::default() })
}

/// Why entities were not evicted; none was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvictError {
    /// The store has not met an authority, or has something to bring it first, or is one itself.
    #[error(
        "nobody else is known to have what would leave: only a store that has synced with its hub evicts"
    )]
    NoAuthority,
    /// An edit that the authority has not judged, or a register that is set aside, is of this entity.
    #[error("{kind} `{id}` has changes that the authority has not confirmed: sync first")]
    Pending {
        /// The entity's kind.
        kind: String,
        /// The entity's id.
        id: String,
    },
    /// The entity is not here.
    #[error("{kind} `{id}` is not here: there is nothing to evict")]
    Unknown {
        /// The entity's kind.
        kind: String,
        /// The entity's id.
        id: String,
    },
    /// The entity could not be fetched in one piece.
    #[error("{kind} `{id}` has {bytes} bytes, too many to be fetched again in one piece: keep it")]
    TooLarge {
        /// The entity's kind.
        kind: String,
        /// The entity's id.
        id: String,
        /// How many bytes it has.
        bytes: usize,
    },
    /// Rules are not evaluated, so what they read is not known.
    #[error("what rules need of an entity is not known: {0}")]
    Rules(String),
    /// The store failed, or others kept changing it.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<StoreError> for EvictError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}
