//! Leases: which stores an authority waits for, how far all of them are, and what a device knows of that.
//!
//! A lease is a promise not to forget what was collected while the store may still have to be told. Owns the records at
//! the authority, and a device's memory of which of its edits everybody has.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::{Replica, commit_records, unreadable};
use crate::bytes::Reader;
use crate::clock::Millis;
use crate::id::StoreId;
use crate::store::{RecordWrite, Store, StoreError, Table};

/// How long a lease runs unless the hub is told otherwise, in ms: 90 days.
pub const LEASE_DEFAULT_MS: u64 = 90 * 24 * 3_600_000;

/// A lease is renewed once this part of it is over: who connects often costs no commit each time.
const RENEWED_PART: u64 = 64;

/// How long the cut is not looked up again while nobody tells anything, in ms: leases end seldom.
const RECENT_MS: i64 = 60_000;

/// How many answers of the authority a device remembers until everybody has what they accepted.
const ACCEPTED_MAX: usize = 1024;

/// The key of the note when this store and another last had everything of each other.
const SUCCESS_KEY: &[u8] = b"success";

/// So long the success of a sync is not noted again, in ms: who is connected succeeds with each edit.
pub const SUCCESS_NOTED_MS: i64 = 60_000;

/// A store's lease at its authority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The store.
    pub store: StoreId,
    /// When it ends.
    pub until: Millis,
    /// Up to which seq of the authority the store has said that it has everything.
    pub read: u64,
}

impl Lease {
    /// Whether it runs at `now`.
    #[must_use]
    pub fn is_running(self, now: Millis) -> bool {
        now < self.until
    }
}

/// How far every store with a running lease is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Up to which seq each of them has everything; the head if there is none.
    pub seq: u64,
    /// One that has no more than that.
    pub held_by: Option<StoreId>,
}

/// What a replica remembers of leases while it runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Leasing {
    /// How long the authority's leases run, in ms, if not as usual.
    lasts_ms: Option<u64>,
    /// What was accepted and not everybody is known to have.
    accepted: VecDeque<Accepted>,
    /// The cut as it was at that time, until somebody tells how far it is.
    recent: Option<(Millis, u64)>,
    /// Edits with keys up to here that are neither pending nor among those are with everybody.
    seen: u64,
}

/// Edits that one answer accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Accepted {
    first: u64,
    last: u64,
    /// The authority's head at the answer.
    seq: u64,
}

impl<S: Store> Replica<S> {
    /// How long the leases that this authority grants run, in ms. Without this [`LEASE_DEFAULT_MS`].
    pub fn lease_for(&mut self, lasts_ms: u64) {
        self.leasing.lasts_ms = Some(lasts_ms);
    }

    /// How long the leases that this authority grants run, in ms.
    pub fn lease_ms(&self) -> u64 {
        self.leasing.lasts_ms.unwrap_or(LEASE_DEFAULT_MS)
    }

    /// Renews the lease of a store, or grants one, from `now` on.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub(crate) fn renew_lease(&mut self, store: StoreId, now: Millis) -> Result<(), StoreError> {
        let lasts = self.lease_ms();
        let until = now.0.saturating_add_unsigned(lasts);
        let key = store.0.to_be_bytes();
        let before = self.store.record(Table::Lease, &key)?;
        let before =
            before.map(|bytes| read_until(&bytes).ok_or_else(|| unreadable("a lease"))).transpose()?;
        let enough = until.saturating_sub_unsigned(lasts / RENEWED_PART);
        if before.is_some_and(|before| (enough..=until).contains(&before.0)) {
            return Ok(());
        }
        let value = until.to_be_bytes().to_vec();
        self.forget_recent_cut();
        commit_records(&mut self.store, vec![RecordWrite::put(Table::Lease, key, value)])
    }

    /// When this store and another last had everything of each other, by this machine's clock, give or take a minute; whatever
    /// process of this store connected.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn last_success(&self) -> Result<Option<Millis>, StoreError> {
        let noted = self.store.record(Table::Lease, SUCCESS_KEY)?;
        noted
            .map(|bytes| read_until(&bytes).ok_or_else(|| unreadable("when a sync last succeeded")))
            .transpose()
    }

    /// Notes that a sync succeeds at `now`, unless that was noted within the last minute.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub fn note_success(&mut self, now: Millis) -> Result<(), StoreError> {
        let recent = self
            .last_success()?
            .is_some_and(|before| (0..SUCCESS_NOTED_MS).contains(&now.0.saturating_sub(before.0)));
        if recent {
            return Ok(());
        }
        let value = now.0.to_be_bytes().to_vec();
        commit_records(&mut self.store, vec![RecordWrite::put(Table::Lease, SUCCESS_KEY, value)])
    }

    /// Whether the lease of a store has run out, and it has not said to have read what was collected up to `floor`.
    pub(crate) fn has_lapsed(&self, store: StoreId, now: Millis, floor: u64) -> Result<bool, StoreError> {
        let until = self.store.record(Table::Lease, &store.0.to_be_bytes())?;
        let until = until.and_then(|bytes| read_until(&bytes));
        let has_ended = until.is_some_and(|until| until <= now);
        Ok(has_ended && self.peer(store)?.unwrap_or_default().read.done < floor)
    }

    /// Grants a lease to each store that has connected and has none: it did so before there were leases.
    pub(super) fn lease_all(&mut self, now: Millis) -> Result<(), StoreError> {
        for (store, _) in self.peers()? {
            if self.store.record(Table::Lease, &store.0.to_be_bytes())?.is_none() {
                self.renew_lease(store, now)?;
            }
        }
        Ok(())
    }

    /// The leases that this authority has granted, those that have run out among them.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        let (mut leases, mut failed) = (Vec::new(), false);
        self.store.records(Table::Lease, &[], &mut |key, value| {
            let Ok(key) = <[u8; 8]>::try_from(key) else { return ControlFlow::Continue(()) };
            match read_until(value) {
                Some(until) => leases.push((StoreId(u64::from_be_bytes(key)), until)),
                None => failed = true,
            }
            ControlFlow::Continue(())
        })?;
        if failed {
            return Err(unreadable("a lease"));
        }
        let lease = |(store, until)| {
            let read = self.peer(store)?.unwrap_or_default().read.done;
            Ok(Lease { store, until, read })
        };
        leases.into_iter().map(lease).collect()
    }

    /// Ends the lease of a store: nothing waits for it any more. Says whether it had one.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed.
    pub fn end_lease(&mut self, store: StoreId) -> Result<bool, StoreError> {
        let key = store.0.to_be_bytes();
        let before = self.store.record(Table::Lease, &key)?;
        if before.is_none_or(|bytes| read_until(&bytes) == Some(Millis(i64::MIN))) {
            return Ok(false);
        }
        let value = i64::MIN.to_be_bytes().to_vec();
        self.forget_recent_cut();
        commit_records(&mut self.store, vec![RecordWrite::put(Table::Lease, key, value)])?;
        Ok(true)
    }

    /// How far every store with a running lease is.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn stable_cut(&self, now: Millis) -> Result<Cut, StoreError> {
        let head = self.store.head()?.seq;
        let running = self.leases()?.into_iter().filter(|lease| lease.is_running(now));
        let last = running.min_by_key(|lease| lease.read).filter(|lease| lease.read < head);
        Ok(Cut { seq: last.map_or(head, |lease| lease.read), held_by: last.map(|lease| lease.store) })
    }

    /// The cut, as of a moment ago: sessions ask again and again.
    pub(crate) fn recent_cut(&mut self, now: Millis) -> Result<u64, StoreError> {
        if let Some((at, cut)) = self.leasing.recent
            && (0..RECENT_MS).contains(&now.0.saturating_sub(at.0))
        {
            return Ok(cut);
        }
        let cut = self.stable_cut(now)?.seq;
        self.leasing.recent = Some((now, cut));
        Ok(cut)
    }

    /// Looks the cut up again: somebody has told how far it is.
    pub(super) fn forget_recent_cut(&mut self) {
        self.leasing.recent = None;
    }

    /// Notes at which head of the authority edits were accepted, by their keys.
    pub(crate) fn note_accepted(&mut self, keys: &[u64], seq: u64) {
        let (Some(first), Some(last)) = (keys.first().copied(), keys.last().copied()) else { return };
        let accepted = &mut self.leasing.accepted;
        accepted.push_back(Accepted { first, last, seq });
        if accepted.len() > ACCEPTED_MAX
            && let (Some(one), Some(two)) = (accepted.pop_front(), accepted.front_mut())
        {
            let (first, last) = (one.first.min(two.first), one.last.max(two.last));
            *two = Accepted { first, last, seq: one.seq.max(two.seq) };
        }
    }

    /// Takes over up to which seq of the authority everybody with a lease has everything.
    pub(crate) fn note_cut(&mut self, cut: u64) -> Result<(), StoreError> {
        let Leasing { accepted, seen, .. } = &mut self.leasing;
        let now = accepted.iter().filter(|one| one.seq <= cut).map(|one| one.last).max();
        *seen = (*seen).max(now.unwrap_or(0));
        accepted.retain(|one| one.seq > cut);
        if accepted.is_empty() && self.identity.authority.is_some_and(|authority| authority.acked <= cut) {
            // Also what was accepted before this opening.
            self.leasing.seen = self.store.head()?.seq;
        }
        Ok(())
    }

    /// Whether everybody with a lease is known to have an edit of this store, by its key. Whether it is pending or refused
    /// is asked first.
    #[must_use]
    pub fn is_seen(&self, key: u64) -> bool {
        let Leasing { accepted, seen, .. } = &self.leasing;
        key <= *seen && !accepted.iter().any(|one| (one.first..=one.last).contains(&key))
    }
}

fn read_until(value: &[u8]) -> Option<Millis> {
    let mut reader = Reader::new(value);
    let until = i64::from_be_bytes(reader.array().ok()?);
    reader.is_empty().then_some(Millis(until))
}
