//! An edit as the application's own check sees it before the authority joins it.
//!
//! Owns the decoded form: entities with values by field, as this store's schema shows them. Merging knows nothing of it
//! and decodes no value.

use std::collections::BTreeMap;

use super::{Delta, Pushed};
use crate::address::{Parts, class};
use crate::bytes::{Cut, Put, Reader};
use crate::clock::{Millis, whole_millis};
use crate::schema::{Field, FieldType, Kind, Schema, Slot};
use crate::store::StoreError;
use crate::value::{self, Value};
use crate::view::{View, holds_one};

/// An edit that waits to be accepted.
pub struct Proposed<'a> {
    rank: u8,
    time: Millis,
    entities: Vec<ProposedEntity>,
    view: &'a dyn Fn(&str, &str) -> Result<Option<View>, StoreError>,
}

/// What an edit writes of one entity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProposedEntity {
    /// The entity's kind, declared or not.
    pub kind: String,
    /// The entity's id.
    pub id: String,
    /// What it writes, each address once.
    pub writes: Vec<Write>,
}

/// What an edit writes in one register.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Write {
    /// Whether the entity is to be there.
    Life {
        /// `false` deletes it.
        alive: bool,
    },
    /// A field.
    Field {
        /// Its name today, also if it was written under its former one.
        name: String,
        /// What it is to be.
        value: Value,
    },
    /// All members of a group.
    Group {
        /// The group's name.
        name: String,
        /// What they are to be, by name; those that this store's schema has in the group.
        members: BTreeMap<String, Value>,
    },
    /// A key of a set or map.
    Key {
        /// The field.
        name: String,
        /// The key.
        key: String,
        /// True or false in a set; in a map the value, none to take the key out.
        value: Option<Value>,
    },
    /// What the author has added to a counter, ever.
    Count {
        /// The field.
        name: String,
        /// The author's share of the sum; anything but an integer counts 0.
        total: Value,
    },
    /// What keeps rules and aliases, what later versions write, and what this store's schema shows nowhere: a member of a
    /// group beside the group, a group that is not declared, a field under its former name beside its new one.
    Other {
        /// See [`class`](crate::address::class).
        class: u8,
        /// The rule's, group's or field's name.
        name: String,
        /// What it holds.
        value: Value,
    },
}

/// An entity of an edit being read.
struct Reading<'k> {
    kind: Option<&'k Kind>,
    entity: ProposedEntity,
    /// What is written under former names: the name today, the former one, the value.
    former: Vec<(String, String, Value)>,
}

impl<'k> Reading<'k> {
    fn new(schema: &'k Schema, kind: &str, id: &str) -> Self {
        let entity = ProposedEntity { kind: kind.to_owned(), id: id.to_owned(), writes: Vec::new() };
        Self { kind: schema.kind(kind), entity, former: Vec::new() }
    }

    /// Takes what a view would make of the register, were there no other; see [`View::read`]. `None` if it cannot be
    /// read, or is a field without a value: no edit writes that, and what was held before under a former name would show.
    fn add(&mut self, address: &[u8], bytes: &[u8]) -> Option<()> {
        let parts = Parts::parse(address)?;
        let name = parts.name.to_owned();
        let value = if bytes == value::ABSENT { None } else { Some(Value::decode(bytes).ok()?) };
        let or_null = |value: Option<Value>| value.unwrap_or(Value::Null);
        let kind = self.kind;
        let slot = kind.map_or(Slot::Open, |kind| kind.slot(&name));
        let write = match (parts.class, slot, value) {
            (class::LIFE, _, value) => Write::Life { alive: value != Some(Value::Bool(false)) },
            (class::FIELD, slot, value) => {
                let value = value?;
                if let Some(field) = kind.and_then(|kind| kind.once(&name)) {
                    self.former.push((field.name.clone(), name, value));
                    return Some(());
                }
                if shows_one(slot) {
                    Write::Field { name, value }
                } else {
                    Write::Other { class: class::FIELD, name, value }
                }
            }
            (class::GROUP, _, Some(Value::Map(mut members))) => match kind.and_then(|kind| kind.group(&name))
            {
                Some(group) => {
                    members.retain(|member, _| group.members.contains(member));
                    Write::Group { name, members }
                }
                None => Write::Other { class: class::GROUP, name, value: Value::Map(members) },
            },
            (
                class::KEY,
                Slot::Field(Field { ty: FieldType::Set { .. } | FieldType::Map, .. }) | Slot::Open,
                value,
            ) => Write::Key { name, key: parts.text_key()?.to_owned(), value },
            (class::COUNT, Slot::Field(Field { ty: FieldType::Counter, .. }) | Slot::Open, value) => {
                Write::Count { name, total: or_null(value) }
            }
            (class, _, value) => Write::Other { class, name, value: or_null(value) },
        };
        self.entity.writes.push(write);
        Some(())
    }

    /// The entity with all that is written of it. What is written under a former name shows unless the field is written
    /// under its own.
    fn finish(mut self) -> ProposedEntity {
        for (today, former, value) in self.former {
            let is_it = |write: &Write| matches!(write, Write::Field { name, .. } if *name == today);
            self.entity.writes.push(if self.entity.writes.iter().any(is_it) {
                Write::Other { class: class::FIELD, name: former, value }
            } else {
                Write::Field { name: today, value }
            });
        }
        self.entity
    }
}

/// Whether a field's own register shows.
fn shows_one(slot: Slot<'_>) -> bool {
    match slot {
        Slot::Field(field) => holds_one(&field.ty),
        Slot::Open => true,
        Slot::Member(_) | Slot::Undeclared => false,
    }
}

impl ProposedEntity {
    /// The value that the edit gives to a field, or to a member of a group, as this store's schema shows it; none if it
    /// leaves that as it is. Members of groups are known of declared kinds alone.
    #[must_use]
    pub fn field(&self, field: &str) -> Option<&Value> {
        self.writes.iter().find_map(|write| match write {
            Write::Field { name, value } if name == field => Some(value),
            Write::Group { members, .. } => members.get(field),
            _ => None,
        })
    }

    /// Whether the edit deletes the entity.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.writes.contains(&Write::Life { alive: false })
    }
}

impl<'a> Proposed<'a> {
    /// The edit as it was pushed, which names each address once, and where its author's view of the authority can be
    /// looked up. `None` if a register cannot be read: then it is no edit.
    pub(super) fn read<D: Delta>(
        edit: &Pushed<D>,
        schema: &Schema,
        view: &'a dyn Fn(&str, &str) -> Result<Option<View>, StoreError>,
    ) -> Option<Self> {
        let mut readings: Vec<Reading<'_>> = Vec::new();
        let read = edit.delta.each(|part| {
            let is_it = |last: &Reading<'_>| (&*last.entity.kind, &*last.entity.id) == (part.kind, part.id);
            if !readings.last().is_some_and(is_it) {
                readings.push(Reading::new(schema, part.kind, part.id));
            }
            let Some(reading) = readings.last_mut() else { return Err(()) };
            part.changes.iter().try_for_each(|(address, change)| {
                let register = change.register().ok_or(())?;
                reading.add(address.as_ref(), register.newest().value).ok_or(())
            })
        });
        let time = Millis(i64::try_from(whole_millis(edit.stamp.time)).unwrap_or(i64::MAX));
        let entities = readings.into_iter().map(Reading::finish).collect();
        read.ok().map(|()| Self { rank: edit.rank, time, entities, view })
    }

    /// The rank that the edit bears; never more than is granted.
    #[must_use]
    pub fn rank(&self) -> u8 {
        self.rank
    }

    /// When the edit was made by its stamp, in ms since 1970.
    #[must_use]
    pub fn time(&self) -> Millis {
        self.time
    }

    /// What it writes, entity by entity.
    #[must_use]
    pub fn entities(&self) -> &[ProposedEntity] {
        &self.entities
    }

    /// What the hub shows of an entity before this edit, with the edits of the same push that it has accepted; `None` if
    /// it has none of the kind and id, or the kind is not declared.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read. The push is judged again later, whatever is said of the edit.
    pub fn view(&self, kind: &str, id: &str) -> Result<Option<View>, StoreError> {
        (self.view)(kind, id)
    }
}

impl std::fmt::Debug for Proposed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rank, time, entities, view: _ } = self;
        f.debug_struct("Proposed")
            .field("rank", rank)
            .field("time", time)
            .field("entities", entities)
            .finish()
    }
}

/// Which part of an edit a refusal is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spot {
    /// The entity's kind.
    pub kind: String,
    /// The entity's id.
    pub id: String,
    /// The field, if it is about one.
    pub field: Option<String>,
}

impl Spot {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.slice(self.kind.as_bytes());
        out.slice(self.id.as_bytes());
        out.push(u8::from(self.field.is_some()));
        self.field.iter().for_each(|field| out.slice(field.as_bytes()));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Cut> {
        let (kind, id) = (reader.str()?.to_owned(), reader.str()?.to_owned());
        let field = match reader.u8()? {
            0 => None,
            1 => Some(reader.str()?.to_owned()),
            _ => return Err(Cut),
        };
        Ok(Self { kind, id, field })
    }
}

/// Why the application does not take an edit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why, in words, and what to do. Its author's device is told at most 4 KiB of it.
    pub message: String,
    /// What it is about.
    pub spot: Option<Spot>,
}

impl Refusal {
    /// A refusal of the whole edit.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), spot: None }
    }

    /// A refusal for what the edit makes of one entity.
    #[must_use]
    pub fn of(entity: &ProposedEntity, message: impl Into<String>) -> Self {
        let spot = Spot { kind: entity.kind.clone(), id: entity.id.clone(), field: None };
        Self { message: message.into(), spot: Some(spot) }
    }

    /// A refusal for what the edit makes of one field.
    #[must_use]
    pub fn of_field(entity: &ProposedEntity, field: &str, message: impl Into<String>) -> Self {
        let spot = Spot { kind: entity.kind.clone(), id: entity.id.clone(), field: Some(field.to_owned()) };
        Self { message: message.into(), spot: Some(spot) }
    }
}
