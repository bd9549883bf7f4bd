//! What an upload has brought and the authority does not take.
//!
//! Without an authority every edit is confirmed at once, and the first meeting brings all of it up. What is refused then
//! goes out of the rows as if it had never been written here, and is kept with its reason among the refused edits. What
//! was refused for its stamp is made anew, before the edits that are pending by now. All in one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::conflicts::action_of;
use super::verdict::{Fallen, Rebuild, Waiting};
use super::{Meanwhile, Replica, STALE_RETRIES_MAX, unreadable};
use crate::address::{LIFE, Parts, class};
use crate::bytes::Cut;
use crate::clock::{Force, Millis, Stamp};
use crate::code::Code;
use crate::edit::{Action, Op};
use crate::pending::{Header, Ops};
use crate::row::{Change, decode_register, encode_register};
use crate::schema::Schema;
use crate::store::{CommitError, Store, StoreError, Table};
use crate::value::Value;
use crate::view::FALSE;
use crate::wire::Refused;
use crate::work::{Scratch, Work, damaged};

/// Kind, id, and what one edit wrote there: addresses and registers in their stored form.
type Written = (String, String, Vec<(Vec<u8>, Vec<u8>)>);

/// From here on keys are those of no seq.
const KEYS_BEYOND: u64 = 1 << 62;

/// Entities, by kind and id, that an edit of this stamp wrote, and why it is refused.
struct Part<'r> {
    why: &'r Refused,
    entities: BTreeSet<&'r (String, String)>,
}

impl<S: Store> Replica<S> {
    /// Takes out what the authority, whose clock reads `clock`, has refused of an upload, and returns how many edits that
    /// were, by reason.
    ///
    /// # Errors
    /// [`CommitError`]; nothing has changed, and it is brought again with the next upload.
    pub(crate) fn take_out(
        &mut self,
        now: Millis,
        clock: Millis,
        refused: &[Refused],
    ) -> Result<BTreeMap<Code, usize>, CommitError> {
        self.now = now;
        // An edit of many entities comes in several parts.
        let mut parts: BTreeMap<Stamp, Part<'_>> = BTreeMap::new();
        for why in refused {
            let part = parts.entry(why.stamp).or_insert_with(|| Part { why, entities: BTreeSet::new() });
            part.entities.extend(&why.entities);
        }
        if refused.iter().any(|part| part.code == Code::CLOCK_SKEW) {
            let correction_ms = clock.0.saturating_sub(now.0);
            self.update_authority(|authority| authority.correction_ms = correction_ms)?;
        }
        for _ in 0..STALE_RETRIES_MAX {
            // What others commit from here on is noticed.
            let since = self.store.head()?.seq;
            self.refresh()?;
            match self.take_out_once(now, clock, since, &parts) {
                Err(CommitError::Stale) => {}
                other => return other,
            }
        }
        Err(CommitError::Stale)
    }

    fn take_out_once(
        &mut self,
        now: Millis,
        authority: Millis,
        since: u64,
        parts: &BTreeMap<Stamp, Part<'_>>,
    ) -> Result<BTreeMap<Code, usize>, CommitError> {
        let corrupt = |Cut| unreadable("a pending edit");
        let mut later = Vec::new();
        self.outbox(0, &mut |key, record| {
            later.push(Waiting::read(key, record)?);
            Ok(ControlFlow::Continue(()))
        })?;
        let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
        let (mut brought, mut rejected, mut again) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut used = BTreeSet::new();
        for (stamp, Part { why, entities }) in parts {
            let (mut written, mut seq) = (Vec::new(), 0);
            for (kind, id) in entities {
                let (registers, last) = written_by(&mut work, kind, id, *stamp)?;
                if registers.is_empty() {
                    continue;
                }
                written.push((kind.clone(), id.clone(), registers));
                seq = last.max(seq);
            }
            let Some(record) = record(&self.schema, *stamp, &written).map_err(corrupt)? else { continue };
            let key = self.free_key(seq, &used)?;
            used.insert(key);
            brought.push((seq, Waiting::read(key, &record).map_err(corrupt)?));
            if why.code == Code::CLOCK_SKEW {
                again.insert(key);
            } else {
                let (message, spot) = (why.message.to_string(), why.spot.as_deref().cloned());
                rejected.push(Fallen { key, code: why.code, message, spot });
            }
        }
        if brought.is_empty() {
            return Ok(BTreeMap::new());
        }
        // In the order in which they were made, and before what is pending by now.
        brought.sort_by_key(|(seq, edit)| (*seq, edit.key));
        let waiting: Vec<Waiting> = brought.into_iter().map(|(_, edit)| edit).chain(later).collect();
        let (mut clock, mut identity) = (self.clock.clone(), self.identity.clone());
        let mut high_water = None;
        if !again.is_empty() {
            self.lower(&mut clock, &waiting, &again, authority)?;
        }
        let refused: BTreeSet<u64> = rejected.iter().map(|fallen| fallen.key).collect();
        // Whatever is pending was stamped by the same clock.
        let all_from = again.first().copied();
        let authors = &identity.replicas;
        let rebuild = Rebuild { refused: &refused, again: &again, brought: &used, all_from, authors };
        let mut records = Vec::new();
        let (work, rebuilt) = self.rebuild(work, &mut clock, now, &waiting, rebuild, &mut records)?;
        rejected.extend(rebuilt.fallen);
        if let Some(authority) = &mut identity.authority {
            authority.restamped += u64::from(!again.is_empty() || rebuilt.of_others);
        }
        if !again.is_empty() {
            high_water = Some(clock.high_water());
        }
        // Of what was pending others tell: it was offered as such.
        let mut counts = BTreeMap::new();
        for fallen in rejected.iter().filter(|fallen| used.contains(&fallen.key)) {
            *counts.entry(fallen.code).or_default() += 1;
        }
        let finished = work.finish()?;
        let meanwhile = Meanwhile::Nothing { since, high_water };
        self.commit_withdrawn(finished, records, meanwhile, (clock, identity), (&waiting, rejected))?;
        Ok(counts)
    }

    /// A key that no edit has or will have: the seq at which it was written, or one before it.
    fn free_key(&self, seq: u64, used: &BTreeSet<u64>) -> Result<u64, StoreError> {
        let is_free = |key: u64| -> Result<bool, StoreError> {
            let is_pending = || self.store.record(Table::Outbox, &key.to_be_bytes());
            Ok(!used.contains(&key) && !self.was_refused(key)? && is_pending()?.is_none())
        };
        for key in (1..=seq).rev().chain(KEYS_BEYOND..) {
            if is_free(key)? {
                return Ok(key);
            }
        }
        Ok(u64::MAX)
    }
}

/// The registers of an entity that hold nothing but what the edit of this stamp wrote, in their stored form, and the
/// greatest seq at which one of them changed.
fn written_by<S: Store>(
    work: &mut Work<'_, S>,
    kind: &str,
    id: &str,
    stamp: Stamp,
) -> Result<(Vec<(Vec<u8>, Vec<u8>)>, u64), CommitError> {
    let (mut registers, mut last) = (Vec::new(), 0);
    let at = work.entity(kind, id);
    for row in work.rows(at)? {
        for entry in row.entries() {
            let found = entry.and_then(|entry| Ok((entry.address, entry.state()?)));
            let (address, state) = found.map_err(|corrupt| damaged(kind, id, corrupt))?;
            if let Some(confirmed) = state.confirmed()
                && let [only] = &*confirmed.alive
                && only.stamp == stamp
            {
                let mut bytes = Vec::new();
                encode_register(confirmed, &mut bytes);
                registers.push((address.to_vec(), bytes));
                last = last.max(state.seq);
            }
        }
    }
    Ok((registers, last))
}

/// What an edit wrote, as the record of a pending one; `None` if it was nothing.
fn record(schema: &Schema, stamp: Stamp, written: &[Written]) -> Result<Option<Vec<u8>>, Cut> {
    let (mut ops, mut delta, mut header) = (Ops::default(), Vec::new(), None);
    for (kind, id, registers) in written {
        let mut changes = Vec::new();
        for (address, bytes) in registers {
            let register = decode_register(bytes)?;
            let only = register.newest();
            header = header.or(Some((only.rank, only.saw)));
            changes.push((address.as_slice(), Change::Join { register, source: None }));
        }
        for action in actions(schema, kind, &changes) {
            ops.push(&Op::new(kind, id, action));
        }
        delta.push((kind.as_str(), id.as_str(), changes));
    }
    let delta: Vec<_> = delta.iter().map(|(kind, id, changes)| (*kind, *id, changes.as_slice())).collect();
    Ok(header.map(|(rank, saw)| ops.record(Header { stamp, rank, saw, force: Force::No }, &delta)))
}

/// What somebody does who writes these registers of one entity. Claims follow from the rest.
fn actions(schema: &Schema, kind: &str, changes: &[(&[u8], Change<'_>)]) -> Vec<Action> {
    let declared = schema.kind(kind);
    let (mut put, mut others, mut is_dead) = (Vec::new(), Vec::new(), false);
    for (address, change) in changes {
        let (Some(parts), Some(register)) = (Parts::parse(address), change.register()) else { continue };
        let value = register.newest().value;
        if *address == LIFE {
            is_dead = value == FALSE;
            continue;
        }
        let field = || parts.name.to_owned();
        match (parts.class, Value::decode(value)) {
            // The share of a replica of this store: without it the count is less by as much.
            (class::COUNT, Ok(Value::Int(by))) => others.push(Action::Inc { field: field(), by }),
            (class::ALIAS, Ok(Value::Text(to))) => others.push(Action::Alias { to: to.to_string() }),
            _ => match action_of(declared, parts, value) {
                Ok(Some(Action::Put(fields))) => put.extend(fields),
                Ok(action) => others.extend(action),
                // Of a later version; the register itself is kept.
                Err(_) => {}
            },
        }
    }
    // A creation without a field is one, too.
    let creates = !is_dead && others.is_empty();
    let put = (creates || !put.is_empty()).then_some(Action::Put(put));
    put.into_iter().chain(others).chain(is_dead.then_some(Action::Delete)).collect()
}
