//! Refused edits: written again, taken off the list, and what they leave behind.
//!
//! A refused edit was taken back when its verdict came. Its record stays until somebody says what becomes of it: a new
//! edit of the same fields, the same edit once more, or nothing.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::verdict::Fallen;
use super::{Edited, Event, Rejected, Replica, Spot, commit_records, unreadable};
use crate::address::{self, LIFE, Parts, class};
use crate::bytes::{Cut, Put, Reader};
use crate::clock::{Force, Millis};
use crate::code::Code;
use crate::edit::{Action, EditError, Op};
use crate::pending::Pending;
use crate::schema::Slot;
use crate::store::{RecordKey, RecordWrite, Store, StoreError, Table};
use crate::view;

/// Ends the key of the record that says what of a refused edit was written since.
const WRITTEN: u8 = b'w';
/// Ends the key of the record that stays of a refused edit once it is off the list: it was never accepted.
const SETTLED: u8 = b's';
/// Of so many the last ones are remembered.
const SETTLED_MAX: usize = 4096;

/// Ends the words of a refusal in its record if what they are about follows.
const SPOT_FOLLOWS: u8 = 0xff;

/// Kind, id and address of a register.
type Place = (String, String, Vec<u8>);

impl<S: Store> Replica<S> {
    /// Does what a refused edit was to do once more, as a new edit, and takes it off the list; what was written anew
    /// since stays as it is. `None` if there is no refused edit with this key.
    ///
    /// # Errors
    /// [`EditError`]: it is listed still.
    pub fn retry_rejected(&mut self, now: Millis, key: u64) -> Result<Option<Edited>, EditError> {
        let Some(record) = self.store.record(Table::Rejected, &key.to_be_bytes())? else { return Ok(None) };
        let corrupt = |Cut| unreadable("a refused edit");
        let mut ops = edit_of(&record).and_then(|edit| edit.ops()).map_err(corrupt)?;
        if let Some(written) = self.store.record(Table::Rejected, &written_key(key))? {
            let written = read_places(&written).map_err(corrupt)?;
            ops.retain_mut(|op| self.still_to_do(op, &written));
        }
        let (_, edited) = self.transact(now, Force::No, |tx| ops.iter().try_for_each(|op| tx.apply(op)))?;
        self.discard_rejected(key)?;
        Ok(Some(edited))
    }

    /// Takes a refused edit off the list: what shows, without it, is right. `false` if there is none with this key.
    ///
    /// # Errors
    /// [`StoreError`]; it is listed still.
    pub fn discard_rejected(&mut self, key: u64) -> Result<bool, StoreError> {
        let listed = self.is_rejected(key)?;
        if listed {
            let mut records = Vec::new();
            self.settle(key, &mut records)?;
            commit_records(&mut self.store, records)?;
            self.events.push(Event::Settled { key });
            self.look_for_refusals()?;
        }
        Ok(listed)
    }

    /// Notes whether there are refused edits, and that they may be others than before.
    pub(super) fn look_for_refusals(&mut self) -> Result<(), StoreError> {
        let mut any = false;
        self.store.records(Table::Rejected, &[], &mut |key, _| {
            any = key.len() == size_of::<u64>();
            if any { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        self.has_rejected = any;
        self.refusals += 1;
        Ok(())
    }

    /// What becomes of the list with a new edit, given as its record: what was refused and is written anew now is off.
    pub(super) fn written_anew(&self, edit: &[u8]) -> Result<Vec<RecordWrite>, StoreError> {
        let corrupt = |Cut| unreadable("a refused edit");
        let edit = Pending::decode(edit).map_err(corrupt)?;
        let now: BTreeSet<Place> = places(&edit);
        let mut records = Vec::new();
        let mut read = |key: &[u8], value: &[u8]| -> Result<(), StoreError> {
            let Ok(key) = <[u8; 8]>::try_from(key).map(u64::from_be_bytes) else { return Ok(()) };
            let refused = places(&edit_of(value).map_err(corrupt)?);
            if refused.is_disjoint(&now) {
                return Ok(());
            }
            let before = self.store.record(Table::Rejected, &written_key(key))?;
            let mut written =
                before.map_or(Ok(BTreeSet::new()), |bytes| read_places(&bytes)).map_err(corrupt)?;
            written.extend(now.intersection(&refused).cloned());
            if written == refused {
                self.settle(key, &mut records)?;
            } else {
                records.push(RecordWrite::put(Table::Rejected, written_key(key), put_places(&written)));
            }
            Ok(())
        };
        let mut failed = None;
        self.store.records(Table::Rejected, &[], &mut |key, value| match read(key, value) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(records), Err)
    }

    /// Whether the authority refused the edit with this key, on the list still or not.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn was_refused(&self, key: u64) -> Result<bool, StoreError> {
        let settled = self.store.record(Table::Rejected, &key_with(key, SETTLED))?;
        Ok(settled.is_some() || self.is_rejected(key)?)
    }

    /// Takes a refused edit off the list, and remembers that it was refused.
    fn settle(&self, key: u64, records: &mut Vec<RecordWrite>) -> Result<(), StoreError> {
        let (mut before, mut oldest) = (0, None);
        self.store.records(Table::Rejected, &[], &mut |found, _| {
            if found.len() > size_of::<u64>() && found.last() == Some(&SETTLED) {
                before += 1;
                oldest.get_or_insert_with(|| found.to_vec());
            }
            ControlFlow::Continue(())
        })?;
        records.extend(
            oldest
                .filter(|_| before >= SETTLED_MAX)
                .map(|oldest| RecordWrite::remove(Table::Rejected, oldest)),
        );
        records.push(RecordWrite::remove(Table::Rejected, key.to_be_bytes()));
        records.push(RecordWrite::remove(Table::Rejected, written_key(key)));
        records.push(RecordWrite::put(Table::Rejected, key_with(key, SETTLED), Vec::new()));
        Ok(())
    }

    /// Takes out of an operation what was written since, and says whether anything is left.
    fn still_to_do(&self, op: &mut Op, written: &BTreeSet<Place>) -> bool {
        let (kind, id) = (op.kind.clone(), op.id.clone());
        let is_written = |address: Vec<u8>| written.contains(&(kind.clone(), id.clone(), address));
        match &mut op.action {
            Action::Put(fields) => {
                let declared = self.schema.kind(&kind);
                fields.retain(|(field, _)| {
                    let slot = declared.map(|declared| declared.slot(field));
                    !is_written(match slot {
                        Some(Slot::Member(group)) => address::group(&group.name),
                        _ => address::field(field),
                    })
                });
                !fields.is_empty()
            }
            Action::Add { field, key }
            | Action::Remove { field, key }
            | Action::SetKey { field, key, .. } => !is_written(address::key(field, key)),
            _ => true,
        }
    }
}

/// Events of the refused edits that these records take off the list.
pub(super) fn settled(records: &[RecordWrite]) -> Vec<Event> {
    let removed = records.iter().filter(|record| record.table == Table::Rejected && record.value.is_none());
    let keys = removed.filter_map(|record| match &record.key {
        RecordKey::Bytes(bytes) => <[u8; 8]>::try_from(bytes.as_slice()).ok().map(u64::from_be_bytes),
        RecordKey::CommitSeq => None,
    });
    keys.map(|key| Event::Settled { key }).collect()
}

/// The entities that refused edits were to create.
pub(super) fn creations<S: Store>(store: &S) -> Result<BTreeSet<(String, String)>, StoreError> {
    let (mut all, mut failed) = (BTreeSet::new(), false);
    store.records(Table::Rejected, &[], &mut |key, value| {
        if key.len() != size_of::<u64>() {
            return ControlFlow::Continue(());
        }
        // What is gone is nothing that others wait for.
        if value.starts_with(&Code::GONE.0.to_be_bytes()) {
            return ControlFlow::Continue(());
        }
        match edit_of(value) {
            Ok(edit) => {
                let creates = |(address, register): &(&[u8], crate::register::Register<'_>)| {
                    *address == LIFE && register.newest().value == view::TRUE
                };
                let created = edit.entities.iter().filter(|entity| entity.registers.iter().any(creates));
                all.extend(created.map(|entity| (entity.kind.to_owned(), entity.id.to_owned())));
            }
            Err(Cut) => failed = true,
        }
        ControlFlow::Continue(())
    })?;
    if failed { Err(unreadable("a refused edit")) } else { Ok(all) }
}

/// The edit in the record of a refused one: behind the code and the words.
fn edit_of(record: &[u8]) -> Result<Pending<'_>, Cut> {
    let mut reader = Reader::new(record);
    reader.array::<2>()?;
    reader.slice()?;
    Pending::decode(reader.rest())
}

/// What an edit writes, as users see it: neither claims, which follow from it, nor the life that goes along with fields.
fn places(edit: &Pending<'_>) -> BTreeSet<Place> {
    let mut places = BTreeSet::new();
    for entity in &edit.entities {
        let is_claim =
            |address: &[u8]| Parts::parse(address).is_some_and(|parts| parts.class == class::CLAIM);
        let addresses = entity.registers.iter().map(|(address, _)| *address);
        let mut fields =
            addresses.clone().filter(|address| *address != LIFE && !is_claim(address)).peekable();
        let life = if fields.peek().is_none() { Some(LIFE) } else { None };
        let place = |address: &[u8]| (entity.kind.to_owned(), entity.id.to_owned(), address.to_vec());
        places.extend(fields.chain(life).map(place));
    }
    places
}

fn put_places(places: &BTreeSet<Place>) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, id, address) in places {
        out.slice(kind.as_bytes());
        out.slice(id.as_bytes());
        out.slice(address);
    }
    out
}

fn read_places(bytes: &[u8]) -> Result<BTreeSet<Place>, Cut> {
    let (mut reader, mut places) = (Reader::new(bytes), BTreeSet::new());
    while !reader.is_empty() {
        places.insert((reader.str()?.to_owned(), reader.str()?.to_owned(), reader.slice()?.to_vec()));
    }
    Ok(places)
}

fn written_key(key: u64) -> Vec<u8> {
    key_with(key, WRITTEN)
}

fn key_with(key: u64, last: u8) -> Vec<u8> {
    let mut record = key.to_be_bytes().to_vec();
    record.push(last);
    record
}

/// Keeps a refused edit, given as the record of a pending one, with its reason.
pub(super) fn rejected_record(Fallen { key, code, message, spot }: &Fallen, edit: &[u8]) -> RecordWrite {
    let mut value = Vec::new();
    value.extend_from_slice(&code.0.to_be_bytes());
    value.sized(|out| {
        out.extend_from_slice(message.as_bytes());
        // No text has this byte.
        out.extend(spot.iter().map(|_| SPOT_FOLLOWS));
        spot.iter().for_each(|spot| spot.encode(out));
    });
    value.extend_from_slice(edit);
    RecordWrite::put(Table::Rejected, key.to_be_bytes(), value)
}

pub(super) fn read_rejected(key: &[u8], value: &[u8]) -> Result<Rejected, Cut> {
    let mut reader = Reader::new(value);
    let code = Code(u16::from_be_bytes(reader.array()?));
    let why = reader.slice()?;
    let end = why.iter().position(|byte| *byte == SPOT_FOLLOWS).unwrap_or(why.len());
    let (message, rest) = why.split_at_checked(end).ok_or(Cut)?;
    let message = std::str::from_utf8(message).map_err(|_| Cut)?.to_owned();
    let spot = rest.get(1..).map(|rest| Spot::read(&mut Reader::new(rest))).transpose()?;
    let ops = Pending::decode(reader.rest())?.ops()?;
    Ok(Rejected { key: Reader::new(key).u64()?, code, message, spot, ops })
}
