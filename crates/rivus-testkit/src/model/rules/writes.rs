//! Which registers an edit writes where there are rules: what the user sets, what the user accepts, and claims.

use std::collections::BTreeMap;

use rivus_core::address;
use rivus_core::edit::{Action, Op};
use rivus_core::id::ReplicaId;
use rivus_core::rules::Entity;
use rivus_core::schema::{Group, Kind, Life, Rule, RuleType, Schema, Slot};
use rivus_core::value::Value;

use super::rivals::entity;
use super::{Entities, Overlay, Overlays, Registers};

/// By kind and id, by address: what is written, or `None` if that depends on what rules do not read.
pub type Writes = BTreeMap<(String, String), BTreeMap<Vec<u8>, Option<Value>>>;

/// Who edits, and what is seen.
#[derive(Clone, Copy, Debug)]
pub struct Author<'a> {
    /// By which schema.
    pub schema: &'a Schema,
    /// The registers held.
    pub entities: &'a Entities,
    /// What rules show in their place.
    pub overlays: &'a Overlays,
    /// Who.
    pub replica: ReplicaId,
    /// Whether rules are evaluated at all.
    pub is_ruled: bool,
}

/// What an edit writes, or `None` if it is refused. No two operations may be of one entity.
#[must_use]
pub fn writes(author: Author<'_>, ops: &[Op]) -> Option<Writes> {
    let mut all = Writes::new();
    for op in ops {
        let kind = author.schema.kind(&op.kind)?;
        let root = root(author.overlays, kind, &op.id);
        let written = Edit::new(author, kind, root).apply(&op.action)?;
        if !written.is_empty() {
            all.insert((op.kind.clone(), root.to_owned()), written);
        }
    }
    Some(all)
}

/// The entity that an edit of `id` is an edit of: the one that bears its name, where a rule shows that in its place.
#[must_use]
pub fn root<'r>(overlays: &'r Overlays, kind: &Kind, id: &'r str) -> &'r str {
    let aside = overlays.get(&(kind.name.clone(), id.to_owned(), None)).filter(|overlay| {
        let mut rules = kind.rules().filter(|rule| rule.name == overlay.rule);
        rules.any(|rule| matches!(rule.what, RuleType::Unique(_)))
    });
    aside.and_then(|overlay| overlay.rival.as_deref()).unwrap_or(id)
}

/// An entity as it shows.
#[derive(Clone)]
struct Seen {
    held: bool,
    deleted: bool,
    values: BTreeMap<String, Value>,
}

struct Edit<'a> {
    author: Author<'a>,
    kind: &'a Kind,
    id: &'a str,
    registers: Registers,
    before: Seen,
    after: Seen,
    writes: BTreeMap<Vec<u8>, Option<Value>>,
    groups: BTreeMap<String, BTreeMap<String, Value>>,
}

impl<'a> Edit<'a> {
    fn new(author: Author<'a>, kind: &'a Kind, id: &'a str) -> Self {
        let held = author.entities.get(&kind.name).and_then(|ids| ids.get(id));
        let registers = held.cloned().unwrap_or_default();
        let values = registers.fields.iter().map(|(name, (_, value))| (name.clone(), value.clone()));
        let mut before = Seen { held: held.is_some(), deleted: registers.deleted, values: values.collect() };
        for (field, overlay) in overlays(author, kind, id) {
            match field {
                None => before.deleted = overlay.shown == Value::Bool(false),
                Some(field) => drop(before.values.insert(field.to_owned(), overlay.shown.clone())),
            }
        }
        let after = before.clone();
        Self { author, kind, id, registers, before, after, writes: BTreeMap::new(), groups: BTreeMap::new() }
    }

    fn apply(mut self, action: &Action) -> Option<BTreeMap<Vec<u8>, Option<Value>>> {
        let is_there = self.before.held && !self.before.deleted;
        match action {
            Action::Delete if !is_there => return None,
            Action::Revive if !self.before.deleted => return None,
            Action::Delete | Action::Revive => {
                self.after.deleted = *action == Action::Delete;
                self.write(address::LIFE.to_vec(), Some(Value::Bool(*action == Action::Revive)));
            }
            _ if self.before.deleted && self.kind.life != Life::EditRevives => return None,
            _ => self.fields(action),
        }
        if self.writes.is_empty() {
            return Some(self.writes);
        }
        self.after.held = true;
        for rule in self.kind.rules().filter(|_| self.author.is_ruled) {
            let was = if self.before.held { self.place(rule, &self.before) } else { None };
            let is = self.place(rule, &self.after);
            if is != was
                && let Some((group, _)) = is
            {
                let group = Value::List(group).to_bytes();
                self.writes.insert(address::claim(&rule.name, &group), Some(Value::Bool(true)));
            }
        }
        Some(self.writes)
    }

    fn fields(&mut self, action: &Action) {
        let mut named: Vec<&str> = Vec::new();
        match action {
            Action::Put(fields) => {
                self.put(fields);
                named = fields.iter().map(|(field, _)| field.as_str()).collect();
            }
            Action::Add { field, key } => self.write(address::key(field, key), Some(Value::Bool(true))),
            Action::Remove { field, key } => self.write(address::key(field, key), None),
            Action::SetKey { field, key, value } => {
                self.write(address::key(field, key), Some(value.clone()));
            }
            Action::Inc { field, .. } => self.write(address::count(field, self.author.replica), None),
            Action::Delete | Action::Revive | Action::Alias { .. } => {}
        }
        let revives = self.kind.life == Life::EditRevives && (!self.writes.is_empty() || self.before.deleted);
        if !self.before.held || revives {
            self.write(address::LIFE.to_vec(), Some(Value::Bool(true)));
            self.after.deleted = false;
        }
        if self.writes.is_empty() {
            return;
        }
        let accepted = overlays(self.author, self.kind, self.id)
            .filter(|(field, overlay)| {
                field.is_some_and(|field| !named.contains(&field) && self.is_pinned(field, overlay))
            })
            .filter_map(|(field, overlay)| Some((field?.to_owned(), overlay.shown.clone())));
        for (field, shown) in accepted.collect::<Vec<_>>() {
            self.set(&field, &shown);
        }
        let groups = std::mem::take(&mut self.groups);
        for (name, members) in groups {
            self.write(address::group(&name), Some(Value::Map(members)));
        }
    }

    fn put(&mut self, fields: &[(String, Value)]) {
        let is_new = |edit: &Self, field: &String, value: &Value| {
            let overlay = overlays(edit.author, edit.kind, edit.id).find(|(of, _)| *of == Some(field));
            let accepts = overlay.is_some_and(|(_, overlay)| edit.is_pinned(field, overlay));
            accepts || edit.before.values.get(field) != Some(value)
        };
        for (field, value) in fields {
            // A member that is named as it shows stays what the group's register holds, also if another is written.
            if is_new(self, field, value) {
                self.set(field, value);
            }
            self.after.values.insert(field.clone(), value.clone());
        }
    }

    fn set(&mut self, field: &str, value: &Value) {
        match self.kind.slot(field) {
            Slot::Member(group) => {
                let held = self.members(group);
                let members = self.groups.entry(group.name.clone()).or_insert(held);
                members.insert(field.to_owned(), value.clone());
                self.write(address::group(&group.name), None);
            }
            _ => self.write(address::field(field), Some(value.clone())),
        }
        self.after.values.insert(field.to_owned(), value.clone());
    }

    fn members(&self, group: &Group) -> BTreeMap<String, Value> {
        group.members.iter().map(|member| (member.clone(), self.registers.value(member).clone())).collect()
    }

    fn write(&mut self, address: Vec<u8>, value: Option<Value>) {
        self.writes.insert(address, value);
    }

    /// Whether it is the end of one that a rival stopped, or what a later rule made of that.
    fn is_pinned(&self, field: &str, overlay: &Overlay) -> bool {
        let stops = |rule: &Rule| matches!(&rule.what, RuleType::AtMostOne(what) if what.open == field);
        overlay.hidden == Value::Null && self.kind.rules().any(stops)
    }

    /// The group in which the entity takes a place, and what else makes it another place.
    fn place(&self, rule: &Rule, seen: &Seen) -> Option<(Vec<Value>, Value)> {
        let value = |field: &str| seen.values.get(field).cloned().unwrap_or(Value::Null);
        let group = |fields: &[String]| {
            let values: Vec<_> = fields.iter().map(|field| value(field)).collect();
            (!values.contains(&Value::Null)).then_some(values)
        };
        match &rule.what {
            RuleType::AtMostOne(what) => {
                let group = group(&what.group)?;
                (value(&what.open) == Value::Null).then_some((group, Value::Null))
            }
            RuleType::Unique(what) => {
                let (group, name) = (group(&what.group)?, value(&what.field));
                (!seen.deleted && name != Value::Null).then_some((group, name))
            }
            RuleType::Custom(what) => {
                let fields: Vec<String> = what.0.group().into_iter().map(str::to_owned).collect();
                let group = group(&fields)?;
                let held = self.held(seen);
                let entity = entity(&*what.0, self.id, &held, seen.deleted, |field| held.value(field));
                what.0.holds(&Entity { claim: None, ..entity }).then_some((group, Value::Null))
            }
            _ => None,
        }
    }

    /// The entity as if registers held what is seen.
    fn held(&self, seen: &Seen) -> Registers {
        let mut held = self.registers.clone();
        for (field, value) in &seen.values {
            let stamp = held.stamp(field);
            held.fields.insert(field.clone(), (stamp, value.clone()));
        }
        held
    }
}

fn overlays<'a>(
    author: Author<'a>,
    kind: &'a Kind,
    id: &'a str,
) -> impl Iterator<Item = (Option<&'a str>, &'a Overlay)> {
    let from = (kind.name.clone(), id.to_owned(), None);
    let range = author.overlays.range(from..);
    let own = range.take_while(move |((of, other, _), _)| *of == kind.name && other == id);
    own.map(|((_, _, field), overlay)| (field.as_deref(), overlay))
}
