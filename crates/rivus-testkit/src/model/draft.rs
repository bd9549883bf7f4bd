//! An edit judged on what its author sees: what it writes where, or why it is refused.

use std::collections::BTreeMap;

use rivus_core::edit::{Action, Op};
use rivus_core::schema::{FieldType, Group, Kind, Life, Slot};
use rivus_core::value::Value;

use super::show::{self, Seen};
use super::{Address, Content, Entity, Member, Model, Shown};

/// What an edit writes, as far as its operations are done.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    writes: BTreeMap<Entity, BTreeMap<Address, Content>>,
}

impl Draft {
    /// Does the operations one after the other, each on what the ones before it left; an error is a refusal.
    pub(super) fn judge(model: &Model, member: &Member, ops: &[Op]) -> Result<Self, String> {
        let mut draft = Self::default();
        for op in ops {
            let kind =
                member.schema.kind(&op.kind).ok_or_else(|| format!("kind `{}` is undeclared", op.kind))?;
            let entity = (op.kind.clone(), op.id.clone());
            Author { model, member, kind, entity, draft: &mut draft }.apply(&op.action)?;
        }
        Ok(draft)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writes.values().all(BTreeMap::is_empty)
    }

    /// What is written to one entity.
    pub(super) fn of(&self, entity: &Entity) -> impl Iterator<Item = (&Address, &Content)> {
        self.writes.get(entity).into_iter().flatten()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Entity, &Address, &Content)> {
        self.writes.iter().flat_map(|(entity, at)| at.iter().map(move |(a, c)| (entity, a, c)))
    }

    pub(super) fn into_writes(self) -> impl Iterator<Item = (Entity, Address, Content)> {
        let each = |(entity, at): (Entity, BTreeMap<_, _>)| {
            at.into_iter().map(move |(address, content)| (entity.clone(), address, content))
        };
        self.writes.into_iter().flat_map(each)
    }
}

/// One operation being done.
struct Author<'a> {
    model: &'a Model,
    member: &'a Member,
    kind: &'a Kind,
    entity: Entity,
    draft: &'a mut Draft,
}

impl Author<'_> {
    fn apply(mut self, action: &Action) -> Result<(), String> {
        let before = self.seen();
        let is_deleted = before.as_ref().is_some_and(|seen| seen.deleted);
        match action {
            Action::Delete if before.is_none() || is_deleted => {
                return Err("there is nothing to delete".to_owned());
            }
            Action::Delete => {
                self.write(Address::Life, Value::Bool(false));
                return Ok(());
            }
            Action::Revive if !is_deleted => return Err("there is nothing to revive".to_owned()),
            Action::Revive => {
                self.write(Address::Life, Value::Bool(true));
                return Ok(());
            }
            _ if is_deleted && self.kind.life != Life::EditRevives => return Err("it is deleted".to_owned()),
            _ => {}
        }
        let is_written = self.fields(action)?;
        let revives = self.kind.life == Life::EditRevives && (is_written || is_deleted);
        if before.is_none() || revives {
            self.write(Address::Life, Value::Bool(true));
        }
        Ok(())
    }

    /// Does an operation on fields; says whether it writes.
    fn fields(&mut self, action: &Action) -> Result<bool, String> {
        let content = match action {
            Action::Put(fields) => {
                let mut is_written = false;
                for (field, value) in fields {
                    is_written |= self.put(field, value)?;
                }
                return Ok(is_written);
            }
            Action::Add { field, key } => match self.ty(field)? {
                FieldType::Set { .. } => (Address::Key(field.clone(), key.clone()), Value::Bool(true).into()),
                _ => return Err(format!("`{field}` is no set")),
            },
            Action::Remove { field, key } => match self.ty(field)? {
                FieldType::Set { .. } => {
                    (Address::Key(field.clone(), key.clone()), Value::Bool(false).into())
                }
                FieldType::Map => (Address::Key(field.clone(), key.clone()), Content::Absent),
                _ => return Err(format!("`{field}` is no set and no map")),
            },
            Action::SetKey { field, key, value } => match self.ty(field)? {
                FieldType::Map => (Address::Key(field.clone(), key.clone()), value.clone().into()),
                _ => return Err(format!("`{field}` is no map")),
            },
            Action::Inc { field, by } => match self.ty(field)? {
                FieldType::Counter => {
                    let address = Address::Count(field.clone(), self.member.id);
                    let total = if let Some(Value::Int(total)) = self.newest(&address) { total } else { 0 };
                    let total = total.checked_add(*by).ok_or_else(|| format!("`{field}` would overflow"))?;
                    (address, Value::Int(total).into())
                }
                _ => return Err(format!("`{field}` is no counter")),
            },
            Action::Delete | Action::Revive => return Ok(false),
            Action::Alias { .. } => return Err("the model has no aliases".to_owned()),
        };
        self.write(content.0, content.1);
        Ok(true)
    }

    /// Writes a field unless the view shows the value already; says whether it does.
    fn put(&mut self, field: &str, value: &Value) -> Result<bool, String> {
        let address = match self.kind.slot(field) {
            Slot::Undeclared => return Err(format!("field `{field}` is undeclared")),
            Slot::Field(declared)
                if matches!(declared.ty, FieldType::Set { .. } | FieldType::Map | FieldType::Counter) =>
            {
                return Err(format!("`{field}` takes no plain value"));
            }
            Slot::Member(group) => Address::Group(group.name.clone()),
            Slot::Field(_) | Slot::Open => Address::Field(field.to_owned()),
        };
        let is_shown = match self.seen().and_then(|mut seen| seen.fields.remove(field)) {
            Some(Shown::Value(shown)) => shown == *value,
            Some(Shown::Many(shown)) => shown == std::slice::from_ref(value),
            _ => false,
        };
        if is_shown {
            return Ok(false);
        }
        let content = match self.kind.slot(field) {
            Slot::Member(group) => self.regroup(&address, group, field, value),
            _ => value.clone(),
        };
        self.write(address, content);
        Ok(true)
    }

    /// All members of a group with one of them changed. Members that only others declare are carried over.
    fn regroup(&self, address: &Address, group: &Group, field: &str, value: &Value) -> Value {
        let mut members = match self.newest(address) {
            Some(Value::Map(members)) => members,
            _ => BTreeMap::new(),
        };
        for member in &group.members {
            members.entry(member.clone()).or_insert(Value::Null);
        }
        members.insert(field.to_owned(), value.clone());
        Value::Map(members)
    }

    fn ty(&self, field: &str) -> Result<FieldType, String> {
        match self.kind.slot(field) {
            Slot::Field(field) => Ok(field.ty.clone()),
            Slot::Member(_) | Slot::Open => Ok(FieldType::PLAIN),
            Slot::Undeclared => Err(format!("field `{field}` is undeclared")),
        }
    }

    fn seen(&self) -> Option<Seen> {
        show::entity(self.model, self.member, self.draft, &self.entity, self.kind)
    }

    fn newest(&self, address: &Address) -> Option<Value> {
        let mut running = show::running(self.model, self.member, self.draft, &self.entity);
        running.remove(address).map(|running| show::newest(&running))
    }

    fn write(&mut self, address: Address, content: impl Into<Content>) {
        self.draft.writes.entry(self.entity.clone()).or_default().insert(address, content.into());
    }
}

impl From<Value> for Content {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}
