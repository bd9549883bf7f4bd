//! What an upload has brought and the authority does not take.
//!
//! Without an authority every edit is confirmed at once, and the first meeting brings all of it up. What is refused then
//! goes out of the rows as if it had never been written here, and is kept with its reason among the refused edits.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::verdict::{Fallen, rejected_record};
use super::{Event, Meanwhile, Origin, Rejected, Replica, STALE_RETRIES_MAX, unreadable};
use crate::address::{LIFE, Parts, class};
use crate::bytes::Cut;
use crate::clock::{Force, Millis, Stamp};
use crate::code::Code;
use crate::edit::{Action, Op};
use crate::pending::{Header, Ops, Pending};
use crate::row::{Change, decode_register, encode_register};
use crate::schema::{FieldType, Schema, Slot};
use crate::store::{CommitError, Store, StoreError, Table};
use crate::value::{ABSENT, Value};
use crate::view::{FALSE, TRUE};
use crate::wire::Refused;
use crate::work::{Scratch, Work, damaged};

/// Kind, id, and what one edit wrote there: addresses and registers in their stored form.
type Written = (String, String, Vec<(Vec<u8>, Vec<u8>)>);

/// From here on keys are those of no seq.
const KEYS_BEYOND: u64 = 1 << 62;

impl<S: Store> Replica<S> {
    /// Takes out what the authority, whose clock reads `clock`, has refused of an upload, and returns how many edits that
    /// were, by reason. What was refused for its stamp is written again instead, to be pushed.
    ///
    /// # Errors
    /// [`CommitError`]; what is not taken out yet is brought again with the next upload.
    pub(crate) fn take_out(
        &mut self,
        now: Millis,
        clock: Millis,
        parts: &[Refused],
    ) -> Result<BTreeMap<Code, usize>, CommitError> {
        self.now = now;
        let fallen = self.take_out_of_rows(parts)?;
        if fallen.iter().any(|(fallen, _)| fallen.code == Code::CLOCK_SKEW) {
            let correction_ms = clock.0.saturating_sub(now.0);
            self.update_authority(|authority| authority.correction_ms = correction_ms)?;
        }
        let mut refused = BTreeMap::new();
        for (Fallen { key, code, message, spot }, ops) in fallen {
            // What cannot be written again stays on the list.
            if code == Code::CLOCK_SKEW && self.retry_rejected(now, key).is_ok() {
                continue;
            }
            *refused.entry(code).or_default() += 1;
            self.events.push(Event::Rejected(Rejected { key, code, message, spot, ops }));
        }
        Ok(refused)
    }

    fn take_out_of_rows(&mut self, parts: &[Refused]) -> Result<Vec<(Fallen, Vec<Op>)>, CommitError> {
        for _ in 0..STALE_RETRIES_MAX {
            // What others commit from here on is noticed.
            let since = self.store.head()?.seq;
            self.refresh()?;
            match self.take_out_once(since, parts) {
                Err(CommitError::Stale) => {}
                other => return other,
            }
        }
        Err(CommitError::Stale)
    }

    fn take_out_once(
        &mut self,
        since: u64,
        parts: &[Refused],
    ) -> Result<Vec<(Fallen, Vec<Op>)>, CommitError> {
        let names: BTreeSet<(&str, &str)> = parts
            .iter()
            .flat_map(|part| part.entities.iter().map(|(kind, id)| (kind.as_str(), id.as_str())))
            .collect();
        let mut later = Vec::new();
        self.outbox(0, &mut |_, record| {
            if Pending::decode(record)?.entities.iter().any(|each| names.contains(&(each.kind, each.id))) {
                later.push(record.to_vec());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let later: Vec<Pending<'_>> = later
            .iter()
            .map(|record| Pending::decode(record))
            .collect::<Result<_, Cut>>()
            .map_err(|_| unreadable("a pending edit"))?;
        let touched = || {
            let entities = later.iter().flat_map(|edit| &edit.entities);
            entities.filter(|each| names.contains(&(each.kind, each.id)))
        };
        let mut work = Work::with(&self.store, self.ruled()?, Scratch::default());
        for entity in touched() {
            let at = work.entity(entity.kind, entity.id);
            let changes: Vec<_> = entity.registers.iter().map(|(a, _)| (*a, Change::Withdraw)).collect();
            work.apply(at, &changes)?;
        }
        let (mut fallen, mut records, mut used) = (Vec::new(), Vec::new(), BTreeSet::new());
        for part in parts {
            let (mut written, mut seq) = (Vec::new(), 0);
            for (kind, id) in &part.entities {
                let (registers, last) = written_by(&mut work, kind, id, part.stamp)?;
                if registers.is_empty() {
                    continue;
                }
                let at = work.entity(kind, id);
                let changes: Vec<_> = registers.iter().map(|(a, _)| (a, Change::Forget)).collect();
                work.apply(at, &changes)?;
                written.push((kind.clone(), id.clone(), registers));
                seq = last.max(seq);
            }
            let corrupt = |Cut| unreadable("a register");
            let Some(record) = record(&self.schema, part.stamp, &written).map_err(corrupt)? else { continue };
            let ops = Pending::decode(&record).and_then(|edit| edit.ops()).map_err(corrupt)?;
            let key = self.free_key(seq, &used)?;
            used.insert(key);
            let (message, spot) = (part.message.to_string(), part.spot.as_deref().cloned());
            let one = Fallen { key, code: part.code, message, spot };
            records.push(rejected_record(&one, &record));
            fallen.push((one, ops));
        }
        for entity in touched() {
            let at = work.entity(entity.kind, entity.id);
            let changes: Vec<_> =
                entity.registers.iter().map(|(a, r)| (*a, Change::Pend(r.clone()))).collect();
            work.apply(at, &changes)?;
        }
        if fallen.is_empty() {
            return Ok(fallen);
        }
        let finished = work.finish()?;
        let meanwhile = Meanwhile::Nothing { since, high_water: None };
        self.commit(finished, records, meanwhile, Origin::Withdrawn)?;
        self.has_rejected = true;
        self.refusals += 1;
        Ok(fallen)
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
            if let [only] = &*state.shown.alive
                && only.stamp == stamp
            {
                let mut bytes = Vec::new();
                encode_register(&state.shown, &mut bytes);
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
        let (field, decoded) = (parts.name.to_owned(), Value::decode(value));
        match (parts.class, decoded) {
            (class::FIELD, Ok(value)) => put.push((field, value)),
            (class::FIELD, Err(_)) if value == ABSENT => put.push((field, Value::Null)),
            (class::GROUP, Ok(Value::Map(members))) => {
                let group = declared.and_then(|kind| kind.group(&field));
                let is_member = |name: &String| group.is_some_and(|group| group.members.contains(name));
                put.extend(members.into_iter().filter(|(name, _)| is_member(name)));
            }
            (class::KEY, decoded) => {
                let key = parts.text_key().unwrap_or_default().to_owned();
                let slot = declared.map(|kind| kind.slot(&field));
                let is_set =
                    matches!(slot, Some(Slot::Field(field)) if matches!(field.ty, FieldType::Set { .. }));
                others.extend(match decoded {
                    _ if is_set && value == TRUE => Some(Action::Add { field, key }),
                    _ if is_set || value == ABSENT => Some(Action::Remove { field, key }),
                    Ok(value) => Some(Action::SetKey { field, key, value }),
                    Err(_) => None,
                });
            }
            // The share of a replica of this store: without it the count is less by as much.
            (class::COUNT, Ok(Value::Int(by))) => others.push(Action::Inc { field, by }),
            (class::ALIAS, Ok(Value::Text(to))) => others.push(Action::Alias { to: to.to_string() }),
            _ => {}
        }
    }
    // A creation without a field is one, too.
    let creates = !is_dead && others.is_empty();
    let put = (creates || !put.is_empty()).then_some(Action::Put(put));
    put.into_iter().chain(others).chain(is_dead.then_some(Action::Delete)).collect()
}
