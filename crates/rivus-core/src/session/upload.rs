//! What a client brings back who may not do so unjudged.
//!
//! An upload is made of registers, not of edits. Those that bear one stamp of the sender's are taken for the edit that
//! they once were, and judged as if that was pushed.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use super::answer::REASON_BYTES_MAX;
use super::fetch::Name;
use super::grant::cut;
use super::{Access, Session, SessionError, SessionEvent, unexpected};
use crate::clock::{Millis, Stamp};
use crate::code::Code;
use crate::register::{Alive, Candidate, Register, Saw, Seen};
use crate::replica::{
    Chosen, Delta, Follows, Incoming, Joined, Principal, Pushed, Replica, Spot, Taint, Trust, Verdict,
};
use crate::row::Change;
use crate::store::Store;
use crate::wire::{Frame, IGNORED_BYTES_MAX, Refused};

/// How many uploaded entities are remembered that are elsewhere by now.
const ELSEWHERE_MAX: usize = 10_000;

/// How many parts are taken out at a time at least, if there are more.
const RETURNED_MAX: usize = 10_000;

/// How many entities one part of a REFUSED names: with the longest ids, reason and place it is no longer than a frame
/// that may be ignored.
const REFUSED_ENTITIES_MAX: usize = 40;

/// What else such a part takes at most, in bytes: a stamp, lengths, why, and where it was.
const REFUSED_BYTES: usize = 2 * REASON_BYTES_MAX + 64;

/// One register with a single candidate, of which nothing is borrowed.
struct Kept {
    kind: Arc<str>,
    id: Arc<str>,
    address: Arc<[u8]>,
    rank: u8,
    saw: Option<Saw>,
    value: Vec<u8>,
    floor: Stamp,
    seen: Vec<Seen>,
}

impl Kept {
    fn place(&self) -> (&str, &str, &[u8]) {
        (&self.kind, &self.id, &self.address)
    }

    fn incoming(&self, stamp: Stamp) -> Incoming<'_> {
        let only = Candidate { stamp, rank: self.rank, saw: self.saw, value: &self.value };
        let register =
            Register { floor: self.floor, alive: Alive::from(vec![only]), seen: self.seen.clone() };
        let change = Change::Join { register, source: None };
        let (kind, id) = (Arc::clone(&self.kind), Arc::clone(&self.id));
        Incoming { kind, id, changes: vec![(Arc::clone(&self.address), change)] }
    }
}

impl Session {
    /// Joins a page of an upload. What is in scopes where the sender may not bring back what others wrote is judged.
    pub(super) fn join_upload<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        rows: &impl Delta,
        follows: Option<Follows<'_>>,
        now: Millis,
    ) -> Result<Joined, SessionError> {
        let store = self.peer()?.store;
        let is_open = !self.is_asking() && self.allows(Access::Restore, "");
        let may = |scope: &str| self.allows(Access::Restore, scope);
        let judged = if is_open { BTreeSet::new() } else { replica.misplaced_in(rows, &may)? };
        if judged.is_empty() {
            return Ok(replica.follow_page(now, rows, store, Trust::Peer, follows)?);
        }
        let of_judged = Chosen { delta: rows, entities: &judged, are_in: true };
        self.judge_upload(replica, &of_judged, now)?;
        self.note_elsewhere(replica, &of_judged)?;
        let rest = Chosen { are_in: false, ..of_judged };
        Ok(replica.follow_page(now, &rest, store, Trust::Peer, follows)?)
    }

    /// Notes of uploaded entities that they are not where the sender has them: it missed that they have left, and is told
    /// once it reads that scope. What was taken of them leaves its mark in the order of changes, what was not does not.
    fn note_elsewhere<S: Store>(
        &mut self,
        replica: &Replica<S>,
        rows: &impl Delta,
    ) -> Result<(), SessionError> {
        let elsewhere = &mut self.elsewhere;
        rows.each(|part| {
            if elsewhere.len() < ELSEWHERE_MAX
                && let Some(scope) = replica.scope_left(&part)?
            {
                elsewhere.insert((scope, (part.kind.to_owned(), part.id.to_owned())));
            }
            Ok(())
        })
    }

    /// What is not in the scope in hand, though its reader has brought it as such.
    pub(super) fn take_elsewhere(&mut self) -> Vec<Name> {
        let Some(scope) = self.scope.clone().filter(|_| !self.elsewhere.is_empty()) else {
            return Vec::new();
        };
        let (here, rest) = std::mem::take(&mut self.elsewhere).into_iter().partition(|(of, _)| *of == scope);
        self.elsewhere = rest;
        let here: BTreeSet<(String, Name)> = here;
        here.into_iter().map(|(_, name)| name).collect()
    }

    /// What this side has brought and the authority does not take: its own edits alone, and once it was asked for them.
    pub(super) fn handle_refused<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        clock_ms: i64,
        mut parts: Vec<Refused>,
        now: Millis,
    ) -> Result<(), SessionError> {
        let is_own = |part: &Refused| self.told_replicas.contains(&part.stamp.replica);
        if self.is_server() || !self.peer()?.is_authority || !self.uploaded || !parts.iter().all(is_own) {
            return Err(unexpected("REFUSED of what was not brought"));
        }
        self.returned.append(&mut parts);
        self.hub_clock = Millis(clock_ms);
        // What one edit wrote may come in several frames: it is taken out as one, unless there is too much of it.
        if self.returned.len() > RETURNED_MAX { self.take_returned(replica, now) } else { Ok(()) }
    }

    /// Takes out what was refused of an upload.
    pub(super) fn take_returned<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        now: Millis,
    ) -> Result<(), SessionError> {
        let parts = std::mem::take(&mut self.returned);
        if !parts.is_empty() {
            let refused = replica.take_out(now, self.hub_clock, &parts)?;
            self.events.push_back(SessionEvent::Returned(refused));
        }
        Ok(())
    }

    /// Tells what was refused of an upload, in frames that whoever does not know them may pass over.
    fn tell_refused(&mut self, parts: Vec<Refused>, now: Millis) {
        let (mut frame, mut bytes) = (Vec::new(), 0);
        for part in parts {
            let names: usize = part.entities.iter().map(|(kind, id)| kind.len() + id.len() + 8).sum();
            let more = names + REFUSED_BYTES;
            if bytes + more > IGNORED_BYTES_MAX && !frame.is_empty() {
                self.send(&Frame::Refused { clock_ms: now.0, parts: std::mem::take(&mut frame) });
                bytes = 0;
            }
            bytes += more;
            frame.push(part);
        }
        if !frame.is_empty() {
            self.send(&Frame::Refused { clock_ms: now.0, parts: frame });
        }
    }

    /// Judges a page of such an upload, and tells what is refused. What others wrote is passed over: the sender hears of
    /// that by the digest alone.
    fn judge_upload<S: Store>(
        &mut self,
        replica: &mut Replica<S>,
        rows: &impl Delta,
        now: Millis,
    ) -> Result<(), SessionError> {
        let gate = self.gate().cloned().ok_or_else(|| unexpected("an upload to a client"))?;
        let peer = self.peer()?;
        let replicas = peer.about.replicas();
        // In the order in which they were made: see `Replica::judge`.
        let mut kept: BTreeMap<(u64, Stamp), Vec<Kept>> = BTreeMap::new();
        let mut foreign = 0;
        let read = rows.each::<Infallible>(|part| {
            let (kind, id): (Arc<str>, Arc<str>) = (part.kind.into(), part.id.into());
            for (address, change) in part.changes {
                let Some((register, only)) = change.register().and_then(|register| match &*register.alive {
                    [only] if replicas.contains(&only.stamp.replica) => Some((register, only)),
                    _ => None,
                }) else {
                    foreign += 1;
                    continue;
                };
                kept.entry((only.stamp.time, only.stamp)).or_default().push(Kept {
                    kind: Arc::clone(&kind),
                    id: Arc::clone(&id),
                    address: address.as_ref().into(),
                    rank: only.rank,
                    saw: only.saw,
                    value: only.value.to_vec(),
                    floor: register.floor,
                    seen: register.seen.clone(),
                });
            }
            Ok(())
        });
        read.unwrap_or_else(|never| match never {});
        // Of one entity together and in order, wherever in the page its rows were.
        kept.values_mut().for_each(|registers| registers.sort_by(|a, b| a.place().cmp(&b.place())));
        let edits = (0..).zip(&kept).filter_map(|(number, ((_, stamp), registers))| {
            let first = registers.first()?;
            let delta: Vec<_> = registers.iter().map(|register| register.incoming(*stamp)).collect();
            Some(Pushed { number, stamp: *stamp, rank: first.rank, saw: first.saw, delta })
        });
        let asked = self.asked(gate);
        let (may_write, validate) = (asked.may_write(), asked.validate());
        let review = asked.review(&may_write, &validate);
        let principal = Principal { store: peer.store, replicas, rank_max: peer.rank, review };
        let remembered = peer.remembered(replica.peer(peer.store)?);
        let verdicts = replica.judge(now, edits, &principal, &remembered, &mut Taint::off(), 0, 1)?;
        let excepted = verdicts.exceptions.len();
        let judged: Vec<_> = kept.iter().collect();
        let refused = verdicts.exceptions.into_iter().filter_map(|(number, verdict)| {
            let ((_, stamp), registers) = judged.get(usize::try_from(number).ok()?)?;
            let Verdict::Refused { code, mut message, spot } = verdict else { return None };
            // A restored hub does not know what it had accepted: what its author had seen then is no fault.
            if code == Code::SEEN {
                return None;
            }
            cut(&mut message, REASON_BYTES_MAX);
            let named =
                |spot: &Spot| spot.kind.len() + spot.id.len() + spot.field.as_ref().map_or(0, String::len);
            let spot = spot.filter(|spot| named(spot) <= REASON_BYTES_MAX);
            let names: BTreeSet<Name> =
                registers.iter().map(|kept| (kept.kind.to_string(), kept.id.to_string())).collect();
            Some((*stamp, code, message, spot, names))
        });
        let mut parts = Vec::new();
        for (stamp, code, message, spot, names) in refused {
            let names: Vec<Name> = names.into_iter().collect();
            parts.extend(names.chunks(REFUSED_ENTITIES_MAX).map(|entities| Refused {
                stamp,
                code,
                message: message.as_str().into(),
                spot: spot.clone().map(Box::new),
                entities: entities.to_vec(),
            }));
        }
        self.tell_refused(parts, now);
        if excepted + foreign > 0 {
            tracing::warn!(subject = asked.subject, excepted, foreign, "parts of an upload were not taken");
        }
        self.events.push_back(SessionEvent::Judged { accepted: kept.len() - excepted, excepted });
        Ok(())
    }
}
