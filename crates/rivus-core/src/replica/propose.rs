//! An edit as the application's own check sees it before the authority joins it.
//!
//! Owns the decoded form: entities with values by field. Merging knows nothing of it and decodes no value.

use super::{Delta, Pushed};
use crate::address::{Parts, class};
use crate::bytes::{Cut, Put, Reader};
use crate::clock::{Millis, whole_millis};
use crate::store::StoreError;
use crate::value::{self, Value};
use crate::view::View;

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
    /// What it writes, ascending by address.
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
    /// A field, or all members of a group as a map.
    Field {
        /// The field's or the group's name.
        name: String,
        /// What it is to be.
        value: Value,
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
    /// What keeps rules and aliases, and what later versions write.
    Other {
        /// See [`class`](crate::address::class).
        class: u8,
        /// The rule's or field's name.
        name: String,
        /// What it holds.
        value: Value,
    },
}

impl Write {
    fn read(address: &[u8], bytes: &[u8]) -> Option<Self> {
        let parts = Parts::parse(address)?;
        let name = parts.name.to_owned();
        let value = if bytes == value::ABSENT { None } else { Some(Value::decode(bytes).ok()?) };
        let or_null = |value: Option<Value>| value.unwrap_or(Value::Null);
        Some(match parts.class {
            class::LIFE => Self::Life { alive: value != Some(Value::Bool(false)) },
            class::FIELD | class::GROUP => Self::Field { name, value: or_null(value) },
            class::KEY => Self::Key { name, key: parts.text_key()?.to_owned(), value },
            class::COUNT => Self::Count { name, total: or_null(value) },
            class => Self::Other { class, name, value: or_null(value) },
        })
    }
}

impl ProposedEntity {
    /// The value that the edit gives to a field, or to a member of a group; none if it leaves that as it is.
    #[must_use]
    pub fn field(&self, field: &str) -> Option<&Value> {
        self.writes.iter().find_map(|write| match write {
            Write::Field { name, value } if name == field => Some(value),
            Write::Field { value: Value::Map(members), .. } => members.get(field),
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
    /// The edit as it was pushed, and where its author's view of the authority can be looked up. `None` if a register
    /// cannot be read: then it is no edit.
    pub(super) fn read<D: Delta>(
        edit: &Pushed<D>,
        view: &'a dyn Fn(&str, &str) -> Result<Option<View>, StoreError>,
    ) -> Option<Self> {
        let mut entities: Vec<ProposedEntity> = Vec::new();
        let read = edit.delta.each(|part| {
            if entities.last().is_none_or(|last| (&*last.kind, &*last.id) != (part.kind, part.id)) {
                let (kind, id) = (part.kind.to_owned(), part.id.to_owned());
                entities.push(ProposedEntity { kind, id, writes: Vec::new() });
            }
            for (address, change) in part.changes {
                let write = change.register().and_then(|r| Write::read(address.as_ref(), r.newest().value));
                let (Some(write), Some(entity)) = (write, entities.last_mut()) else { return Err(()) };
                entity.writes.push(write);
            }
            Ok(())
        });
        let time = Millis(i64::try_from(whole_millis(edit.stamp.time)).unwrap_or(i64::MAX));
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
