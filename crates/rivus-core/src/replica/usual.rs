//! The usual edit, without staging: one plain field of an entity that is held.
//!
//! Does what the general way does with a single put of one field, and leaves to it whatever is not as usual: other
//! operations and policies, entities or registers that are not held, and deleted ones. Typing into a
//! form makes nothing but such edits; a test holds the two ways to the same store, byte for byte.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{Edited, Event, Origin, Replica};
use crate::address::{self, LIFE, class};
use crate::clock::{Force, Millis};
use crate::edit::{Action, EditError, Op};
use crate::pending::Header;
use crate::register::{Candidate, Register};
use crate::row::{self, Change, Digested, Row};
use crate::schema::{FieldType, Life, Schema, Slot, Writers};
use crate::scope;
use crate::store::{
    Batch, Chunk, CommitError, HighWater, RecordKey, RecordWrite, RowRead, RowWrite, Store, Table,
};
use crate::value::Value;
use crate::work::Scratch;

impl<S: Store> Replica<S> {
    /// Makes the edit if it is a usual one; `None` if not, or if another writer was faster. Then nothing has changed.
    pub(super) fn edit_usual(&mut self, now: Millis, op: &Op) -> Result<Option<Edited>, EditError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let edited = self.edit_plain(now, op, &mut scratch);
        self.scratch = scratch;
        edited
    }

    fn edit_plain(
        &mut self,
        now: Millis,
        op: &Op,
        scratch: &mut Scratch,
    ) -> Result<Option<Edited>, EditError> {
        let Some((name, value)) = plain_put(&self.schema, op) else { return Ok(None) };
        if self.schema.rules().watch(&op.kind).is_some_and(crate::rules::Watch::concerns_edits) {
            return Ok(None);
        }
        self.refresh()?;
        if self.unbound || self.derived.follows(&op.kind) || self.has_rejected || self.leaving {
            return Ok(None);
        }
        scratch.address.clear();
        address::encode(&mut scratch.address, class::FIELD, name, &[]);
        let scope_at = self.scopes.address(&op.kind);
        if scope_at.is_some_and(|address| address == scratch.address) {
            return Ok(None);
        }
        scratch.value.clear();
        value.encode(&mut scratch.value);
        let load = |address| self.store.load(&op.kind, &op.id, address).map_err(CommitError::from);
        let Some(first) = load(LIFE)? else { return Ok(None) };
        // What cannot be read is for the general way to complain of.
        let Some(first_row) = Row::new(&first.bytes, first.seq).ok().filter(|row| row::shows(*row)) else {
            return Ok(None);
        };
        let other = if first_row.holds(&scratch.address) { None } else { load(&scratch.address)? };
        let chunk = other.as_ref().unwrap_or(&first);
        let row = Row::new(&chunk.bytes, chunk.seq).ok().filter(|row| row.holds(&scratch.address));
        let Some(scope) = scope_of(scope_at, [Some(first_row), row]) else { return Ok(None) };
        let Some(spot) = row.and_then(|row| row::spot(row, &scratch.address)) else { return Ok(None) };
        if spot.shown.value == scratch.value {
            return Ok(Some(Edited::Nothing));
        }
        if !spot.has_room(scratch.value.len()) {
            return Ok(None);
        }
        let rank = self.rank();
        let saw = match self.saws.get(&scope) {
            Some(saw) if !self.identity.is_authority => Some(*saw),
            _ => self.saw()?,
        };
        let stamp = self.clock.tick(now, Some(spot.shown.stamp.instant()), Force::No)?;
        let register = Register::plain(Candidate { stamp, rank, saw, value: &scratch.value });
        let pends = self.identity.authority.is_some();
        let change = if pends { Change::Pend(register) } else { Change::Join { register, source: None } };
        let records = pends.then(|| {
            let mut record = std::mem::take(&mut scratch.record);
            record.clear();
            let header = Header { stamp, rank, saw, force: Force::No };
            header.record_one_put(&op.kind, &op.id, &scratch.address, &scratch.value, &mut record);
            [RecordWrite { table: Table::Outbox, key: RecordKey::CommitSeq, value: Some(record) }]
        });
        let mut digested = Digested::new(&mut scratch.hashing, &op.kind, &op.id);
        if !spot.apply(&change, &mut scratch.packing, &mut digested) {
            return Ok(None);
        }
        let sums = digested.sums;
        let read = |chunk: &Chunk<'_>| RowRead {
            kind: &op.kind,
            id: &op.id,
            start: Cow::Owned(chunk.start.to_vec()),
            seq: chunk.seq,
            place: chunk.place,
        };
        let rows = [RowWrite { row: read(chunk), bytes: Cow::Borrowed(&scratch.packing), scope: &scope }];
        let scopes = [(scope.as_str(), sums)];
        let reads: SmallVec<[_; 1]> = other.iter().map(|_| read(&first)).collect();
        let batch = Batch {
            head: None,
            reads: Cow::Borrowed(&reads),
            unchanged: self.identity_read().into(),
            rows: Cow::Borrowed(&rows),
            records: Cow::Borrowed(records.as_ref().map_or(&[], |one| one.as_slice())),
            high_water: HighWater::AtLeast(self.clock.high_water()),
            sums,
            scopes: Cow::Borrowed(if scope.is_empty() { &[] } else { &scopes }),
            incarnation: self.incarnation,
            ..Batch::default()
        };
        let seq = match self.store.commit(batch) {
            Ok(seq) => seq,
            Err(CommitError::Stale) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.incarnation = None;
        if self.cover.seq + 1 == seq {
            self.cover.seq = seq;
        }
        self.views_follow(seq - 1, seq, &[]);
        scratch.record = records.and_then(|[record]| record.value).unwrap_or_default();
        if self.watching {
            let (kind, id) = (op.kind.clone(), op.id.clone());
            self.events.push(Event::Changed { kind, id, origin: Origin::Local });
        }
        Ok(Some(Edited::Committed { stamp, registers: 1, seq }))
    }
}

/// The scope of an entity with these rows; `None` if they do not tell.
fn scope_of(address: Option<&[u8]>, rows: [Option<Row<'_>>; 2]) -> Option<String> {
    let Some(address) = address else { return Some(String::new()) };
    let row = rows.into_iter().flatten().find(|row| row.holds(address))?;
    scope::confirmed(row, address).ok()
}

/// The field and its value, if the operation is a put of one plain field.
fn plain_put<'o>(schema: &Schema, op: &'o Op) -> Option<(&'o str, &'o Value)> {
    let Action::Put(fields) = &op.action else { return None };
    let [(name, value)] = fields.as_slice() else { return None };
    let kind = schema.kind(&op.kind).filter(|kind| kind.life != Life::EditRevives && !kind.aliases)?;
    let is_plain = match kind.slot(name) {
        Slot::Field(field) => field.ty == FieldType::PLAIN && field.writers == Writers::Everybody,
        Slot::Open => true,
        Slot::Member(_) | Slot::Undeclared => false,
    };
    (is_plain && value.depth_ok()).then_some((name.as_str(), value))
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Admission;
    use crate::id::{Incarnation, ReplicaId, StoreId};
    use crate::identity::Seeds;
    use crate::replica::{OpenOptions, Watching};
    use crate::schema::{Margin, Resolver};
    use crate::store::MemoryStore;

    fn replica() -> Replica<MemoryStore> {
        let schema = Schema::builder()
            .kind("task", |k| k.value("title").value_with("owner", Margin::Ms(5), Resolver::Rank).open())
            .kind("note", |k| k.life(Life::EditRevives).value("title"))
            .build()
            .unwrap();
        let seeds =
            Seeds { store: StoreId(1), replica: ReplicaId::from_u128(2), incarnation: Incarnation(3) };
        let options = OpenOptions { seeds, slot: 0, admission: Admission::Off, rank: 4 };
        let mut replica = Replica::open(MemoryStore::new(), Arc::new(schema), options).unwrap();
        replica.watch(Watching::Yes);
        replica
    }

    fn op() -> impl Strategy<Value = Op> {
        let kind = prop_oneof![4 => Just("task"), 1 => Just("note")];
        let field = prop_oneof![4 => Just("title"), 1 => Just("owner"), 2 => Just("free"), 1 => Just("f")];
        let value = prop_oneof![
            Just(Value::Null),
            (0..3_i64).prop_map(Value::Int),
            (0..3000_usize).prop_map(|len| Value::Text("x".repeat(len))),
        ];
        let put = (field, value).prop_map(|(field, value)| Action::Put(vec![(field.to_owned(), value)]));
        let action = prop_oneof![12 => put, 1 => Just(Action::Delete), 1 => Just(Action::Revive)];
        (kind, 0..3_u8, action).prop_map(|(kind, id, action)| Op::new(kind, id.to_string(), action))
    }

    /// Everything that is in the store.
    fn content(replica: &Replica<MemoryStore>) -> Vec<Vec<u8>> {
        let mut all = vec![format!("{:?}", replica.store().head().unwrap()).into_bytes()];
        let mut add_row = |changed: crate::store::Changed<'_>| {
            all.push(
                [changed.kind.as_bytes(), changed.id.as_bytes(), &changed.seq.to_be_bytes(), changed.bytes]
                    .concat(),
            );
            ControlFlow::Continue(())
        };
        replica.store().changes(0, &mut add_row).unwrap();
        for table in Table::ALL {
            let mut add_record = |key: &[u8], value: &[u8]| {
                all.push([key, value].concat());
                ControlFlow::Continue(())
            };
            replica.store().records(table, &[], &mut add_record).unwrap();
        }
        all
    }

    proptest! {
        #[test]
        fn the_usual_way_leaves_the_same_store(
            ops in proptest::collection::vec((op(), 0..3_i64), 1..40),
            meets in proptest::option::of(0..20_usize),
        ) {
            let (mut usual, mut general) = (replica(), replica());
            for (at, (op, now)) in ops.iter().enumerate() {
                if meets == Some(at) {
                    usual.meet_authority(StoreId(9), 5).unwrap();
                    general.meet_authority(StoreId(9), 5).unwrap();
                }
                let one = usual.edit(Millis(*now), std::slice::from_ref(op));
                let two = general.transact(Millis(*now), Force::No, |tx| tx.apply(op)).map(|((), edited)| edited);
                prop_assert_eq!(one, two);
                prop_assert_eq!(usual.poll_events(), general.poll_events());
            }
            prop_assert_eq!(content(&usual), content(&general));
            prop_assert_eq!(usual.recompute_digest(), Ok(usual.head().unwrap().digest));
        }
    }

    #[test]
    fn a_field_that_keeps_another_entity_is_not_usual() {
        use crate::schema::OnGone;
        let schema = Schema::builder()
            .kind("entry", |k| k.value("project").reference("kept", "project", "project", OnGone::Keep))
            .kind("project", |k| k.value("name"));
        let options = OpenOptions {
            seeds: Seeds { store: StoreId(1), replica: ReplicaId::from_u128(2), incarnation: Incarnation(3) },
            slot: 0,
            admission: Admission::Off,
            rank: 0,
        };
        let mut replica =
            Replica::open(MemoryStore::new(), Arc::new(schema.build().unwrap()), options).unwrap();
        let mut act = |kind: &str, action| {
            replica.edit(Millis(1), &[Op::new(kind, "a", action)]).unwrap();
            replica.view("project", "a").unwrap().map(|view| view.deleted)
        };
        let put = |field: &str, value: Value| Action::Put(vec![(field.to_owned(), value)]);
        act("project", put("name", "x".into()));
        act("entry", put("project", "a".into()));
        assert_eq!(act("project", Action::Delete), Some(false), "it is kept");
        assert_eq!(act("entry", put("project", Value::Null)), Some(true));
        assert_eq!(act("entry", put("project", "a".into())), Some(false));
    }
}
