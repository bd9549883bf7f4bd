//! What an operation writes into the fields of an entity.

use std::collections::BTreeMap;

use super::intents::Intent;
use super::ruled::ByRule;
use super::{Action, EditError, Op, Presence, Tx};
use crate::address;
use crate::register::Reach;
use crate::schema::{Field, FieldType, Group, Kind, Slot};
use crate::store::Store;
use crate::value::{self, Value};
use crate::view::{self, reach};
use crate::work::At;

impl<S: Store> Tx<'_, S> {
    pub(super) fn write_fields(
        &mut self,
        at: At,
        kind: &Kind,
        op: &Op,
        action: &Action,
    ) -> Result<bool, EditError> {
        match action {
            Action::Put(fields) => self.put(at, kind, op, fields),
            Action::Add { field, key } => {
                let ty = self.field(kind, op, field)?;
                if !matches!(ty, FieldType::Set { .. }) {
                    return Err(wrong(op, field, ty, "add"));
                }
                self.write(at, keyed(field, key)?, view::TRUE.to_vec(), Reach::Infinite)?;
                Ok(true)
            }
            Action::Remove { field, key } => {
                let (value, reach) = match self.field(kind, op, field)? {
                    FieldType::Set { .. } => (view::FALSE, Reach::Infinite),
                    FieldType::Map => (value::ABSENT, Reach::None),
                    ty => return Err(wrong(op, field, ty, "remove")),
                };
                self.write(at, keyed(field, key)?, value.to_vec(), reach)?;
                Ok(true)
            }
            Action::SetKey { field, key, value } => {
                let ty = self.field(kind, op, field)?;
                if *ty != FieldType::Map {
                    return Err(wrong(op, field, ty, "set_key"));
                }
                self.write(at, keyed(field, key)?, encode(field, value)?, Reach::None)?;
                Ok(true)
            }
            Action::Inc { field, by } => {
                let ty = self.field(kind, op, field)?;
                if *ty != FieldType::Counter {
                    return Err(wrong(op, field, ty, "inc"));
                }
                let address = address::count(field, self.replica);
                let (total, newest) = self.look(at, &address, |r| Ok(r.map_or(0, view::total)))?;
                let total = total.checked_add(*by).ok_or_else(|| EditError::Overflow {
                    field: field.clone(),
                    total,
                    by: *by,
                })?;
                let value = Value::Int(total).to_bytes();
                self.intend(at, address, Intent { value, reach: Reach::None, newest })?;
                Ok(true)
            }
            Action::Delete | Action::Revive | Action::Alias { .. } => Ok(false),
        }
    }

    /// The type of a declared field of its own; an undeclared one of an open kind is a plain value.
    fn field<'k>(&self, kind: &'k Kind, op: &Op, field: &str) -> Result<&'k FieldType, EditError> {
        match kind.slot(field) {
            Slot::Field(Field { ty, .. }) => Ok(ty),
            Slot::Member(_) | Slot::Open => Ok(&FieldType::PLAIN),
            Slot::Undeclared => {
                Err(EditError::UndeclaredField { kind: op.kind.clone(), field: field.to_owned() })
            }
        }
    }

    fn put(&mut self, at: At, kind: &Kind, op: &Op, fields: &[(String, Value)]) -> Result<bool, EditError> {
        let mut wrote = false;
        let mut groups: BTreeMap<&str, (&Group, Vec<(&str, &Value)>)> = BTreeMap::new();
        for (name, value) in fields {
            let ty = self.field(kind, op, name)?;
            if let Slot::Member(group) = kind.slot(name) {
                groups.entry(&group.name).or_insert((group, Vec::new())).1.push((name, value));
                continue;
            }
            if !view::holds_one(ty) {
                return Err(wrong(op, name, ty, "put"));
            }
            let address = address::field(name);
            let encoded = encode(name, value)?;
            let (shows_it, newest) = self.look(at, &address, |register| match register {
                None => Ok(None),
                Some(one) if *ty == FieldType::Multi => {
                    Ok(Some(one.alive.len() == 1 && one.newest().value == encoded))
                }
                Some(register) => Ok(Some(*view::resolve(ty, register)? == *encoded)),
            })?;
            let shows_it = match (shows_it, kind.slot(name)) {
                (None, Slot::Field(field)) => self.stands_in(at, kind, field, &encoded)?,
                (shows_it, _) => shows_it.unwrap_or(false),
            };
            let is_written = self.intents(at).is_some_and(|intents| intents.get(&address).is_some());
            let shows_it = match self.by_rule(at, name).filter(|_| !is_written) {
                None => shows_it,
                Some(ByRule::Accepted) => false,
                Some(ByRule::Shown(shown)) => shown == value,
            };
            if !shows_it {
                self.intend(at, address, Intent { value: encoded, reach: reach(ty.margin()), newest })?;
                wrote = true;
            }
        }
        for (group, members) in groups.into_values() {
            wrote |= self.put_group(at, group, &members)?;
        }
        Ok(wrote)
    }

    /// Whether the field, of which nothing is held, shows this value all the same.
    fn stands_in(&mut self, at: At, kind: &Kind, field: &Field, encoded: &[u8]) -> Result<bool, EditError> {
        let Field { was, default, ty, .. } = field;
        if was.is_none() && default.is_none() || self.presence_at(at, kind)? == Presence::Absent {
            return Ok(false);
        }
        if let Some(was) = was {
            let (shown, _) = self.look(at, &address::field(was), |register| {
                register.map(|register| Ok(*view::resolve(ty, register)? == *encoded)).transpose()
            })?;
            if let Some(shown) = shown {
                return Ok(shown);
            }
        }
        Ok(default.as_ref().is_some_and(|default| default.to_bytes() == encoded))
    }

    pub(super) fn put_group(
        &mut self,
        at: At,
        group: &Group,
        named: &[(&str, &Value)],
    ) -> Result<bool, EditError> {
        let address = address::group(&group.name);
        let (before, newest) = self.look(at, &address, |register| {
            Ok(match register.map(|r| Value::decode(r.newest().value)) {
                Some(Ok(Value::Map(members))) => members,
                _ => BTreeMap::new(),
            })
        })?;
        let is_written = self.intents(at).is_some_and(|intents| intents.get(&address).is_some());
        let shows = |member: &str, value: &Value| match self.by_rule(at, member).filter(|_| !is_written) {
            None => before.get(member) == Some(value),
            Some(ByRule::Accepted) => false,
            Some(ByRule::Shown(shown)) => shown == value,
        };
        if named.iter().all(|(member, value)| shows(member, value)) {
            return Ok(false);
        }
        let mut after = before;
        for member in &group.members {
            after.entry(member.clone()).or_insert(Value::Null);
        }
        for (member, value) in named {
            // What a rule shows is not written by naming it.
            let is_shown = matches!(self.by_rule(at, member), Some(ByRule::Shown(shown)) if shown == *value);
            if is_written || !is_shown {
                after.insert((*member).to_owned(), (*value).clone());
            }
        }
        let value = encode(&group.name, &Value::Map(after))?;
        self.intend(at, address, Intent { value, reach: Reach::None, newest })?;
        Ok(true)
    }
}

fn keyed(field: &str, key: &str) -> Result<Vec<u8>, EditError> {
    if key.len() > address::KEY_BYTES_MAX {
        return Err(EditError::TooLong { what: "a key", bytes: key.len(), max: address::KEY_BYTES_MAX });
    }
    Ok(address::key(field, key))
}

fn encode(field: &str, value: &Value) -> Result<Vec<u8>, EditError> {
    if !value.depth_ok() {
        return Err(EditError::TooDeep { field: field.to_owned() });
    }
    Ok(value.to_bytes())
}

fn wrong(op: &Op, field: &str, ty: &FieldType, tried: &'static str) -> EditError {
    EditError::WrongType { kind: op.kind.clone(), field: field.to_owned(), ty: ty.to_string(), tried }
}
