//! Coming back after a lease has run out: a device that missed collections begins anew, but for its unsent edits.
//!
//! What it holds cannot be told from what was collected meanwhile, so it drops all of it and reads everything again, under
//! new ids. Its pending edits stay in the outbox, shown to nobody, until that is done; then they are made anew in order.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::marks::{Marked, gone, mark, removed};
use super::verdict::{Fallen, Rebuild, Waiting, renewed};
use super::{Event, Meanwhile, Origin, Replica, STALE_RETRIES_MAX, Spot, Verdict, unreadable};
use crate::address::class;
use crate::bytes::{Put, Reader};
use crate::clock::{Clock, Millis};
use crate::code::Code;
use crate::id::StoreId;
use crate::identity::{Cursor, IDENTITY_KEY, Peer, Seeds};
use crate::pending::{Pending, PendingEntity};
use crate::row::{Confirmed, State};
use crate::store::{CommitError, RecordWrite, Store, StoreError, Table};
use crate::value::ABSENT;
use crate::view::FALSE;
use crate::work::{Drop, Scratch, Work, damaged};

/// The key of the note that a device is on its way back.
const REJOIN_KEY: &[u8] = b"rejoin";

/// The key of what that note says of keys of sets and maps.
const REJOIN_KEYS_KEY: &[u8] = b"rejoin keys";

/// The key of the note how far a device had read its authority before it forgot that.
const READ_KEY: &[u8] = b"read";

/// What a device has to know once it has read everything.
struct Parked {
    /// The key of the last edit that was pending when it began anew.
    until: u64,
    /// Those of the entities of such edits that were confirmed here, each with its scope.
    known: BTreeMap<(String, String), String>,
    /// Those of the keys of sets and maps in such edits that were confirmed to be in, by kind, id and address.
    keys: BTreeSet<(String, String, Vec<u8>)>,
}

impl<S: Store> Replica<S> {
    /// Whether the store is on its way back: it reads everything before it sends anything.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn is_rejoining(&self) -> Result<bool, StoreError> {
        Ok(self.store.record(Table::Lease, REJOIN_KEY)?.is_some())
    }

    /// Begins anew under new ids: the store, known as `fenced`, has missed what was collected. If another process has done
    /// so already, this takes its ids over and changes nothing.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed.
    pub fn rejoin(&mut self, now: Millis, seeds: Seeds, fenced: StoreId) -> Result<(), CommitError> {
        self.now = now;
        for _ in 0..STALE_RETRIES_MAX {
            let since = self.store.head()?.seq;
            self.refresh()?;
            if self.identity.store != fenced {
                return Ok(());
            }
            match self.rejoin_once(seeds, since) {
                Err(CommitError::Stale) => {}
                other => return other,
            }
        }
        Err(CommitError::Stale)
    }

    fn rejoin_once(&mut self, seeds: Seeds, since: u64) -> Result<(), CommitError> {
        let before = self.identity.clone();
        let identity = renewed(&before, seeds, self.slot);
        let replica = identity.replicas.get(self.slot as usize).copied().unwrap_or(seeds.replica);
        let mut clock = Clock::new(replica, self.clock.high_water());
        clock.correct(self.clock.correction_ms());
        let mut records = vec![RecordWrite::put(Table::Identity, IDENTITY_KEY, identity.encode())];
        for table in [Table::Cursor, Table::Evicted] {
            self.store.records(table, &[], &mut |key, _| {
                records.push(RecordWrite::remove(table, key));
                ControlFlow::Continue(())
            })?;
        }
        for (store, peer) in self.peers()? {
            // Nobody has read the new store.
            let peer = Peer { read: Cursor::default(), ..peer };
            records.push(RecordWrite::put(Table::Peer, store.0.to_be_bytes(), peer.encode()));
        }
        records.extend(self.park(since)?.records());
        // Nothing that was read is here any more.
        records.push(RecordWrite::remove(Table::Lease, READ_KEY));
        let mut names = BTreeSet::new();
        self.store.changes(0, &mut |changed| {
            names.insert((changed.kind.to_owned(), changed.id.to_owned()));
            ControlFlow::Continue(())
        })?;
        let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
        for (kind, id) in &names {
            let at = work.entity(kind, id);
            work.wipe(at, Drop::All)?;
        }
        let finished = work.finish()?;
        // What does not come again leaves nothing behind, as if it had been collected.
        let marked: Vec<_> = names.iter().map(|(kind, id)| Marked::of(kind, id)).collect();
        records.push(mark(since + finished.written(), &marked));
        let old_clock = std::mem::replace(&mut self.clock, clock);
        // A new incarnation: what others remember of the old ones is not about this store.
        self.incarnation = Some(seeds.incarnation);
        let meanwhile = Meanwhile::Nothing { since, high_water: None };
        if let Err(error) = self.commit(finished, records, meanwhile, Origin::Withdrawn) {
            self.clock = old_clock;
            return Err(error);
        }
        tracing::warn!(before = %before.store, now = %identity.store, "the lease has run out: everything is read again");
        self.events.push(Event::Fenced { before: before.store, now: identity.store });
        self.identity = identity;
        self.saw = None;
        self.saws.clear();
        Ok(())
    }

    /// What is pending, for the time being. If the store is on its way back already, what was pending then counts too.
    fn park(&self, since: u64) -> Result<Parked, CommitError> {
        let parked = self.parked()?;
        let (before, mut known, mut keys) =
            parked.map_or_else(Default::default, |parked| (parked.until, parked.known, parked.keys));
        let (mut touched, mut keyed) = (BTreeSet::new(), BTreeSet::new());
        self.pending(0, &mut |key, edit| {
            // What an edit of before rests on was seen then.
            for one in edit.entities.iter().filter(|_| key > before) {
                touched.insert((one.kind.to_owned(), one.id.to_owned()));
                keyed.extend(keys_of(one));
            }
            ControlFlow::Continue(())
        })?;
        for (kind, id, address) in keyed {
            if self.is_in(&kind, &id, &address)? {
                keys.insert((kind, id, address));
            }
        }
        for (kind, id) in touched {
            if self.is_confirmed(&kind, &id)? {
                let scope = self.scope_of(&kind, &id)?;
                known.insert((kind, id), scope);
            }
        }
        Ok(Parked { until: since, known, keys })
    }

    /// Why an edit of before is not made anew, if it is not: what it is of was here then, and is not any more.
    fn late(
        &self,
        edit: &Waiting,
        parked: &Parked,
        follows: Option<&[&str]>,
    ) -> Result<Option<Verdict>, CommitError> {
        for name in &edit.entities {
            let Some(scope) = parked.known.get(name) else { continue };
            if !self.is_confirmed(&name.0, &name.1)? {
                let (kind, id) = name.clone();
                return Ok(Some(match follows {
                    Some(follows) if !follows.contains(&scope.as_str()) => not_followed(kind, id, scope),
                    _ => gone(kind, id),
                }));
            }
        }
        let pending = Pending::decode(&edit.record).map_err(|_| unreadable("a pending edit"))?;
        for place in pending.entities.iter().flat_map(keys_of).filter(|place| parked.keys.contains(place)) {
            let (kind, id, address) = place;
            if !self.look_at(&kind, &id, &address, |state| state.is_some())? {
                return Ok(Some(removed(kind, id, &address)));
            }
        }
        Ok(None)
    }

    /// Whether it is confirmed here that the key is in its set or map.
    fn is_in(&self, kind: &str, id: &str, address: &[u8]) -> Result<bool, CommitError> {
        self.look_at(kind, id, address, |state| {
            let confirmed = state.and_then(State::confirmed);
            confirmed.is_some_and(|held| held.alive.iter().any(|c| c.value != FALSE && c.value != ABSENT))
        })
    }

    /// Looks at one register.
    fn look_at<R>(
        &self,
        kind: &str,
        id: &str,
        address: &[u8],
        look: impl FnOnce(Option<&State<'_>>) -> R,
    ) -> Result<R, CommitError> {
        let mut work = Work::new(&self.store);
        let at = work.entity(kind, id);
        let state = work.row(at, address)?.state(address).map_err(|corrupt| damaged(kind, id, corrupt))?;
        Ok(look(state.as_ref()))
    }

    /// A note of how far this store has read its authority, to be kept when that is forgotten.
    pub(super) fn note_read(&self) -> Result<Option<RecordWrite>, StoreError> {
        let Some(authority) = self.identity.authority else { return Ok(None) };
        let read = self.read_up_to(authority.store)?.max(self.read_before()?);
        let Some(read) = read else { return Ok(None) };
        let mut value = Vec::new();
        value.varint(read);
        Ok(Some(RecordWrite::put(Table::Lease, READ_KEY, value)))
    }

    /// How far this store had read its authority when it forgot that, if it ever did.
    pub(crate) fn read_before(&self) -> Result<Option<u64>, StoreError> {
        let bytes = self.store.record(Table::Lease, READ_KEY)?;
        let read = bytes.map(|bytes| Reader::new(&bytes).varint()).transpose();
        read.map_err(|_| unreadable("how far the hub was read"))
    }

    /// Whether anything of the entity is confirmed here.
    pub(crate) fn is_confirmed(&self, kind: &str, id: &str) -> Result<bool, CommitError> {
        let mut work = Work::new(&self.store);
        let at = work.entity(kind, id);
        for row in work.rows(at)? {
            if row.is_evicted() {
                return Ok(true);
            }
            for entry in row.entries() {
                let state = entry.and_then(|entry| entry.state());
                if state.map_err(|corrupt| damaged(kind, id, corrupt))?.confirmed != Confirmed::Absent {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn parked(&self) -> Result<Option<Parked>, StoreError> {
        let Some(bytes) = self.store.record(Table::Lease, REJOIN_KEY)? else { return Ok(None) };
        let keyed = self.store.record(Table::Lease, REJOIN_KEYS_KEY)?;
        let mut reader = Reader::new(&bytes);
        let mut read = || -> Result<Parked, crate::bytes::Cut> {
            let (until, mut known) = (reader.varint()?, BTreeMap::new());
            while !reader.is_empty() {
                let name = (reader.str()?.to_owned(), reader.str()?.to_owned());
                known.insert(name, reader.str()?.to_owned());
            }
            let (mut reader, mut keys) = (Reader::new(keyed.as_deref().unwrap_or_default()), BTreeSet::new());
            while !reader.is_empty() {
                let (kind, id) = (reader.str()?.to_owned(), reader.str()?.to_owned());
                keys.insert((kind, id, reader.slice()?.to_vec()));
            }
            Ok(Parked { until, known, keys })
        };
        read().map(Some).map_err(|_| unreadable("what is to be made anew"))
    }

    /// Everything is read: makes the pending edits anew on it, in order. Those of what is not there any more are refused, and
    /// listed.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed.
    pub(crate) fn rejoined(&mut self, now: Millis, follows: Option<&[&str]>) -> Result<(), CommitError> {
        self.now = now;
        for _ in 0..STALE_RETRIES_MAX {
            let since = self.store.head()?.seq;
            self.refresh()?;
            let Some(parked) = self.parked()? else { return Ok(()) };
            match self.rejoined_once((now, since), &parked, follows) {
                Err(CommitError::Stale) => {}
                other => return other,
            }
        }
        Err(CommitError::Stale)
    }

    fn rejoined_once(
        &mut self,
        (now, since): (Millis, u64),
        parked: &Parked,
        follows: Option<&[&str]>,
    ) -> Result<(), CommitError> {
        let mut waiting = Vec::new();
        self.outbox(0, &mut |key, record| {
            waiting.push(Waiting::read(key, record)?);
            Ok(ControlFlow::Continue(()))
        })?;
        let mut fallen = Vec::new();
        for edit in waiting.iter().filter(|edit| edit.key <= parked.until) {
            if let Some(Verdict::Refused { code, message, spot }) = self.late(edit, parked, follows)? {
                fallen.push(Fallen { key: edit.key, code, message, spot });
            }
        }
        let refused: BTreeSet<u64> = fallen.iter().map(|fallen| fallen.key).collect();
        let none = BTreeSet::new();
        let rebuild =
            Rebuild { refused: &refused, again: &none, brought: &none, all_from: Some(0), authors: &[] };
        let mut records =
            [REJOIN_KEY, REJOIN_KEYS_KEY].map(|key| RecordWrite::remove(Table::Lease, key)).to_vec();
        let mut clock = self.clock.clone();
        let work = Work::with(&self.store, self.ruled()?, Scratch::default());
        let (work, rebuilt) = self.rebuild(work, &mut clock, now, &waiting, rebuild, &mut records)?;
        fallen.extend(rebuilt.fallen);
        let finished = work.finish()?;
        let meanwhile = Meanwhile::Nothing { since, high_water: None };
        let after = (clock, self.identity.clone());
        self.commit_withdrawn(finished, records, meanwhile, after, (&waiting, fallen))
    }
}

/// The keys of sets and maps that an edit writes in an entity.
fn keys_of(one: &PendingEntity<'_>) -> Vec<(String, String, Vec<u8>)> {
    let keys = one.registers.iter().filter(|(address, _)| address.first() == Some(&class::KEY));
    keys.map(|(address, _)| (one.kind.to_owned(), one.id.to_owned(), address.to_vec())).collect()
}

/// Why an edit of what was in a scope that is not followed any more is not made anew: it would make half an entity.
fn not_followed(kind: String, id: String, scope: &str) -> Verdict {
    let message = format!(
        "{kind} `{id}` was in the scope `{scope}`, which was not followed when this database began anew: follow it, and \
         retry"
    );
    let spot = Some(Spot { kind, id, field: None });
    Verdict::Refused { code: Code::SCOPE, message, spot }
}

impl Parked {
    fn records(&self) -> [RecordWrite; 2] {
        let (mut value, mut keyed) = (Vec::new(), Vec::new());
        value.varint(self.until);
        for ((kind, id), scope) in &self.known {
            [kind, id, scope].into_iter().for_each(|text| value.slice(text.as_bytes()));
        }
        for (kind, id, address) in &self.keys {
            [kind.as_bytes(), id.as_bytes(), address].into_iter().for_each(|part| keyed.slice(part));
        }
        let put = |key: &[u8], value| RecordWrite::put(Table::Lease, key, value);
        [put(REJOIN_KEY, value), put(REJOIN_KEYS_KEY, keyed)]
    }
}
