//! Leases on the wire: how far everybody is, what was collected, and who has missed that.

use super::{Access, Known, Session, SessionError, SessionEvent, Want, unexpected};
use crate::clock::Millis;
use crate::code::Code;
use crate::identity::Cursor;
use crate::replica::{Keys, Marked, Marks, Replica, position_of};
use crate::store::Store;
use crate::wire::{COLLECTED_KEYS_BYTES, COLLECTED_KEYS_MAX, COLLECTED_MAX, Frame, Leases, capability};

/// How far telling and hearing of leases are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Leasing {
    /// What the authority told in its greeting.
    told: Option<Leases>,
    /// The store is on its way back: it sends nothing before it has read everything.
    rejoins: bool,
    /// Up to which mark the subscriber was told.
    marked: u64,
    /// Up to where marks were removed already when it was greeted: it has gone on from there.
    floor: u64,
    /// The greatest head at which an edit of the subscriber was accepted on this connection.
    accepted: u64,
    /// The cut that the subscriber was told last; none before it has caught up.
    cut: Option<u64>,
    /// A quiet second has passed since the cut was looked at.
    due: bool,
    /// The machine's clock as it was told last.
    now: Millis,
}

impl Leasing {
    /// Takes over what the machine's clock reads.
    pub(super) fn at(&mut self, now: Millis) {
        self.now = now;
    }

    /// Takes over what the authority told in its greeting.
    pub(super) fn hear(&mut self, told: Option<Leases>) {
        self.told = told;
    }

    /// Up to where collections are told of no more.
    pub(super) fn floor_told(&self) -> u64 {
        self.told.and_then(|told| told.floor).unwrap_or(0)
    }

    /// Whether the store is on its way back.
    pub(super) fn rejoins(&self) -> bool {
        self.rejoins
    }

    /// Whether the authority has ever collected anything, as far as it has told.
    pub(super) fn collects(&self) -> bool {
        self.told.is_some_and(|told| told.newest.is_some())
    }

    /// Whether the cut is to be looked at.
    pub(super) fn is_due(&self) -> bool {
        self.due
    }

    pub(super) fn handle_quiet(&mut self) {
        self.due = self.cut.is_some_and(|cut| cut < self.accepted);
    }

    /// Notes that edits of the subscriber were accepted.
    pub(super) fn note_accepted(&mut self, seq: u64) {
        self.accepted = self.accepted.max(seq);
    }
}

impl Session {
    /// What an authority tells a store that it greets, after it has renewed its lease.
    pub(super) fn tell_leases<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        store: crate::id::StoreId,
        now: Millis,
    ) -> Result<Option<Leases>, SessionError> {
        if !replica.identity().is_authority {
            return Ok(None);
        }
        let Marks { newest, floor } = replica.marks()?;
        // One that is about to be fenced goes on as another store; else it renews its lease when it subscribes.
        if !replica.has_lapsed(store, now, floor)? {
            replica.renew_lease(store, now)?;
        }
        self.leasing.floor = floor;
        let some = |seq: u64| (seq > 0).then_some(seq);
        Ok(Some(Leases { lasts_ms: replica.lease_ms(), newest: some(newest), floor: some(floor) }))
    }

    /// Whether this store has missed what its authority has collected: then it begins anew, and connects again.
    pub(super) fn check_fence<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        peer: &Known,
        now: Millis,
    ) -> Result<(), SessionError> {
        self.leasing.rejoins = replica.is_rejoining()?;
        let Some(Leases { floor, .. }) = self.leasing.told else { return Ok(()) };
        let floor = floor.unwrap_or(0);
        let known = replica.read_up_to(peer.store)?;
        let read = if known.is_some() { known } else { replica.read_before()? };
        let has_missed = match read {
            // What it has is of some time; where it is not on its way back, nothing says of which.
            _ if known.is_none() && self.leasing.rejoins => false,
            Some(read) => read < floor,
            None => {
                // Before all that it had confirmed was brought there is nothing of the authority's in it.
                let has_met = replica.identity().authority.is_some_and(|authority| authority.met);
                let told = replica.peer(peer.store)?.unwrap_or_default().position.seq > 0;
                has_met && told && floor > 0 && replica.head()?.digest.count > 0
            }
        };
        if !has_missed {
            return Ok(());
        }
        replica.rejoin(now, self.options.seeds, self.told_store)?;
        self.events.push_back(SessionEvent::Fenced);
        Err(SessionError::Fenced)
    }

    /// On its way back a store reads first. Says whether it is.
    pub(super) fn rejoins<S: Store>(&mut self, replica: &mut Replica<S>) -> Result<bool, SessionError> {
        if !self.leasing.rejoins {
            return Ok(false);
        }
        replica.update_authority(|authority| authority.met = true)?;
        let want = if self.options.want == Want::Nothing { Want::Once } else { self.options.want };
        self.plan_reading(want);
        Ok(true)
    }

    /// Makes what was pending anew once everything is read, and begins to send it.
    pub(super) fn end_rejoining<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        now: Millis,
    ) -> Result<(), SessionError> {
        if !self.leasing.rejoins || !self.is_caught_up() {
            return Ok(());
        }
        replica.rejoined(now, self.scopes().as_deref())?;
        self.leasing.rejoins = false;
        self.begin_pushing(replica)
    }

    /// Takes a new subscription: it has been told of the marks up to its position.
    pub(super) fn lease_subscribed<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        cursor: Cursor,
    ) -> Result<(), SessionError> {
        if !replica.identity().is_authority {
            return Ok(());
        }
        let (floor, told) = (replica.marks()?.floor, self.leasing.floor);
        if self.scope.is_none() {
            if (1..floor).contains(&cursor.at) {
                return Err(is_gone());
            }
            self.leasing.marked = self.leasing.marked.max(cursor.at).max(floor);
        } else if !self.lanes.are_read() {
            // Of several scopes any position will do: whoever has read one of them up to there was told of what was
            // collected until then in all that it may read. Its greatest was not below the floor of the greeting.
            if floor > told || (1..told).contains(&cursor.at) {
                return Err(is_gone());
            }
            self.leasing.marked = self.leasing.marked.max(cursor.at).max(told);
        }
        Ok(replica.renew_lease(self.peer()?.store, self.leasing.now)?)
    }

    /// Takes it that the subscriber has everything up to some seq for a sign of life.
    pub(super) fn lease_synced<S: Store>(&self, replica: &mut Replica<S>) -> Result<(), SessionError> {
        if replica.identity().is_authority {
            replica.renew_lease(self.peer()?.store, self.leasing.now)?;
        }
        Ok(())
    }

    /// As [`Session::lease_synced`], of one of several scopes: of them all the store has what it has of each.
    pub(super) fn lease_followed<S: Store>(&self, replica: &mut Replica<S>) -> Result<(), SessionError> {
        let peer = self.peer()?;
        let here = self.peer_synced.unwrap_or(0);
        let seq = self.lanes.synced().map_or(here, |others| others.min(here));
        let mut remembered = peer.remembered(replica.peer(peer.store)?);
        if seq > remembered.read.done {
            let incarnation = position_of(&replica.head()?).incarnation;
            remembered.read = Cursor { incarnation, done: seq, at: seq };
            replica.remember(peer.store, &remembered)?;
        }
        self.lease_synced(replica)
    }

    /// Frames that tell of what was collected up to `until`, as far as that was not told.
    pub(super) fn collected_until<S: Store>(
        &mut self,
        replica: &Replica<S>,
        until: u64,
    ) -> Result<Vec<Vec<u8>>, SessionError> {
        Ok(self.some_collected(replica, until, usize::MAX)?.0)
    }

    /// The frames of at most `most` marks of what was collected up to `until`, oldest first, and whether there may be
    /// more of them.
    pub(super) fn some_collected<S: Store>(
        &mut self,
        replica: &Replica<S>,
        until: u64,
        most: usize,
    ) -> Result<(Vec<Vec<u8>>, bool), SessionError> {
        if !replica.identity().is_authority || !self.hears_of_leases() || until <= self.leasing.marked {
            return Ok((Vec::new(), false));
        }
        let Marks { newest, floor } = replica.marks()?;
        if self.leasing.marked < floor {
            return Err(is_gone());
        }
        let after = self.leasing.marked;
        let marks = if newest > after { replica.marks_after(after, until, most)? } else { Vec::new() };
        let more = marks.len() == most;
        self.leasing.marked = marks.last().filter(|_| more).map_or(until, |(seq, _)| *seq);
        let mut frames = Vec::new();
        for (seq, marked) in marks {
            let (mut names, mut keys) = (Vec::with_capacity(marked.len()), Vec::new());
            for marked in marked {
                if !self.may_be_told(replica, &marked)? {
                    continue;
                }
                match marked.addresses.is_empty() {
                    true => names.push(marked.name),
                    false => keys.push((marked.name, marked.addresses)),
                }
            }
            let parts = names.chunks(COLLECTED_MAX);
            frames.extend(parts.map(|part| Frame::Collected { seq, entities: part.to_vec() }.encode()));
            frames.extend(in_parts(keys).into_iter().map(|keys| Frame::CollectedKeys { seq, keys }.encode()));
        }
        Ok((frames, more))
    }

    /// Whether the other side may read where a collected entity was, be that followed now or not, or where it is by now:
    /// what was read of it before may still be there. So is what it was told of until now.
    fn may_be_told<S: Store>(&self, replica: &Replica<S>, marked: &Marked) -> Result<bool, SessionError> {
        let reads = |scope: &String| self.allows(Access::Read, scope);
        let told = |scope: &String| self.lanes.tell(scope) || self.scope.as_ref() == Some(scope);
        if !self.is_asking() || marked.scopes.iter().any(|scope| reads(scope) || told(scope)) {
            return Ok(true);
        }
        let (kind, id) = &marked.name;
        Ok(replica.place_of(kind, id)?.is_some_and(|scope| reads(&scope)))
    }

    fn hears_of_leases(&self) -> bool {
        self.peer.as_ref().is_some_and(|peer| peer.capabilities & capability::LEASE != 0)
    }

    /// How far everybody is, for a subscriber that is about to have caught up: it may end the connection then.
    pub(super) fn first_cut<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
    ) -> Result<Option<Vec<u8>>, SessionError> {
        if self.leasing.cut.is_some() || !replica.identity().is_authority || !self.hears_of_leases() {
            return Ok(None);
        }
        let seq = replica.recent_cut(self.leasing.now)?;
        self.leasing.cut = Some(seq);
        Ok((seq > 0).then(|| Frame::Cut { seq }.encode()))
    }

    /// Tells the subscriber how far everybody is, if that is news of its own edits.
    pub(super) fn tell_cut<S: Store>(&mut self, replica: &mut Replica<S>) -> Result<(), SessionError> {
        let Some(before) = self.leasing.cut.filter(|_| std::mem::take(&mut self.leasing.due)) else {
            return Ok(());
        };
        let seq = replica.recent_cut(self.leasing.now)?;
        if seq > before {
            self.leasing.cut = Some(seq);
            self.send(&Frame::Cut { seq });
        }
        Ok(())
    }

    pub(super) fn handle_cut<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        seq: u64,
    ) -> Result<(), SessionError> {
        self.check_authority("LEASE")?;
        replica.note_cut(seq)?;
        self.events.push_back(SessionEvent::Cut { seq });
        Ok(())
    }

    pub(super) fn handle_collected<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        seq: u64,
        names: &[(String, String)],
        now: Millis,
    ) -> Result<(), SessionError> {
        if let Some(store) = self.hear_mark(replica, seq)? {
            let refused = replica.follow_collection(now, store, names)?;
            self.note_collected(names.len(), 0, refused);
        }
        Ok(())
    }

    pub(super) fn handle_collected_keys<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        seq: u64,
        keys: &[Keys],
        now: Millis,
    ) -> Result<(), SessionError> {
        if let Some(store) = self.hear_mark(replica, seq)? {
            let refused = replica.follow_trimming(now, store, keys)?;
            self.note_collected(0, keys.iter().map(|(_, _, addresses)| addresses.len()).sum(), refused);
        }
        Ok(())
    }

    /// Hears of a mark. Gives the authority if it is news here.
    fn hear_mark<S: Store>(
        &mut self,
        replica: &Replica<S>,
        seq: u64,
    ) -> Result<Option<crate::id::StoreId>, SessionError> {
        let store = self.check_authority("LEASE")?;
        // Whoever asked by name may have thought better of it.
        if !self.reading.is_subscribed() && !self.lanes.are_named() {
            return Err(unexpected("what was collected, though nobody asked"));
        }
        if let Some(told) = &mut self.leasing.told {
            told.newest = told.newest.max(Some(seq));
        }
        // Done when a subscription was read so far, be it of another scope: what is here of these has come since.
        let is_read = replica.read_up_to(store)?.is_some_and(|read| read >= seq);
        Ok((!is_read).then_some(store))
    }

    fn note_collected(&mut self, entities: usize, keys: usize, refused: usize) {
        if refused > 0
            && let Some(pushing) = &mut self.pushing
        {
            pushing.look_again();
        }
        self.events.push_back(SessionEvent::Collected { entities, keys, refused });
    }

    /// The authority that the other side is.
    fn check_authority(&self, frame: &str) -> Result<crate::id::StoreId, SessionError> {
        let peer = self.peer()?;
        if self.is_server() || !peer.is_authority {
            return Err(unexpected(&format!("{frame} from a side that is no authority")));
        }
        Ok(peer.store)
    }
}

/// Keys in as many parts as frames need.
fn in_parts(all: Vec<((String, String), Vec<Vec<u8>>)>) -> Vec<Vec<Keys>> {
    let (mut parts, mut part): (Vec<Vec<Keys>>, Vec<Keys>) = (Vec::new(), Vec::new());
    let (mut count, mut bytes) = (0, 0);
    for ((kind, id), addresses) in all {
        let mut is_new = true;
        for address in addresses {
            if count == COLLECTED_KEYS_MAX || bytes > COLLECTED_KEYS_BYTES {
                parts.push(std::mem::take(&mut part));
                (count, bytes, is_new) = (0, 0, true);
            }
            (count, bytes) = (count + 1, bytes + address.len());
            match part.last_mut().filter(|_| !is_new) {
                Some((_, _, addresses)) => addresses.push(address),
                None => part.push((kind.clone(), id.clone(), vec![address])),
            }
            is_new = false;
        }
    }
    parts.extend((!part.is_empty()).then_some(part));
    parts
}

fn is_gone() -> SessionError {
    let message =
        "what was collected since cannot be told any more: connect again, and read everything".to_owned();
    SessionError::Refused { code: Code::FENCED, message }
}
