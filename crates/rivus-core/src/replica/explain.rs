//! Why a field shows what it shows: everything that is known of it, complete enough to resolve it again by hand.

use super::Replica;
use super::read::unsettled;
use crate::address::{Parts, class};
use crate::register::{Candidate, Seen};
use crate::row::{Row, State};
use crate::rules::Overlay;
use crate::schema::{Kind, Slot};
use crate::store::{Store, StoreError};
use crate::value::{ABSENT, Value};
use crate::view::{Shown, View};
use crate::work::{Work, damaged};
use crate::{clock::Stamp, register::Saw};

/// Why an entity shows as it does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The entity's kind.
    pub kind: String,
    /// The entity's id: that of the one that stands for it, if it is an alias.
    pub id: String,
    /// Whether it shows as deleted.
    pub deleted: bool,
    /// Each field that has a register; the entity's life first.
    pub fields: Vec<FieldExplanation>,
}

/// Why a field shows what it does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldExplanation {
    /// The field; `None` for whether the entity is alive.
    pub field: Option<String>,
    /// How its writes merge, in the words of the schema: type, margin, resolver.
    pub policy: String,
    /// The registers that it is made of: several for sets, maps and counters.
    pub registers: Vec<RegisterExplanation>,
    /// What the registers alone show; `None` if nothing.
    pub resolved: Option<Shown>,
    /// What rules show in its place, and why.
    pub overlays: Vec<Overlay>,
    /// What the application sees; `None` if nothing.
    pub shown: Option<Shown>,
}

/// One register: what is in the running, and what no longer is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegisterExplanation {
    /// The key of a set or map, the replica of a counter's share in hexadecimal; empty otherwise.
    pub key: String,
    /// The group, if its fields share one register.
    pub group: Option<String>,
    /// The field's former name, if the register bears that still.
    pub was: Option<String>,
    /// Nothing below it is in the running.
    pub floor: Stamp,
    /// Up to when others' writes were seen, beside those in the running.
    pub seen: Vec<Seen>,
    /// The writes in the running, oldest first.
    pub candidates: Vec<CandidateExplanation>,
}

/// A write in the running.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CandidateExplanation {
    /// When and by whom.
    pub stamp: Stamp,
    /// The writer's authority.
    pub rank: u8,
    /// What its author had seen at the authority.
    pub saw: Option<Saw>,
    /// What it wrote; `None` if it took a key out.
    pub value: Option<Value>,
    /// Whether it awaits the authority's verdict.
    pub pending: bool,
}

impl<S: Store> Replica<S> {
    /// Why an entity shows as it does, or one field of it; `None` if it is not held or its kind not declared.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn explain(
        &self,
        kind: &str,
        id: &str,
        field: Option<&str>,
    ) -> Result<Option<Explanation>, StoreError> {
        let Some(declared) = self.schema().kind(kind) else { return Ok(None) };
        let root = self.root(kind, id)?;
        let id = root.as_deref().unwrap_or(id);
        let read = || -> Result<Option<(View, View, Vec<FieldExplanation>)>, StoreError> {
            let Some(view) = self.view(kind, id)? else { return Ok(None) };
            let mut work = Work::new(&self.store);
            let at = work.entity(kind, id);
            let rows = work.rows(at).map_err(|error| unsettled(kind, id, error))?;
            let fields = fields(declared, &rows).map_err(|corrupt| damaged(kind, id, corrupt))?;
            let resolved = View::read(declared, rows).map_err(|corrupt| damaged(kind, id, corrupt))?;
            Ok(Some((view, resolved.unwrap_or_default(), fields)))
        };
        let Some((view, resolved, mut fields)) = self.store.together(read)?? else { return Ok(None) };
        for overlay in self.overlays(kind, id)? {
            match fields.iter_mut().find(|each| each.field == overlay.field) {
                Some(each) => each.overlays.push(overlay),
                None => {
                    let policy = policy(declared, overlay.field.as_deref());
                    let mut empty = FieldExplanation::new(overlay.field.clone(), policy);
                    empty.overlays.push(overlay);
                    fields.push(empty);
                }
            }
        }
        // A default has no register.
        for name in view.fields.keys() {
            if !fields.iter().any(|each| each.field.as_ref() == Some(name)) {
                fields.push(FieldExplanation::new(Some(name.clone()), policy(declared, Some(name))));
            }
        }
        for each in &mut fields {
            match &each.field {
                Some(name) => {
                    each.resolved = resolved.fields.get(name).cloned();
                    each.shown = view.fields.get(name).cloned();
                }
                None => {
                    each.resolved = Some(Shown::Value(Value::Bool(!resolved.deleted)));
                    each.shown = Some(Shown::Value(Value::Bool(!view.deleted)));
                }
            }
        }
        fields.retain(|each| field.is_none() || each.field.as_deref() == field);
        fields.sort_by(|a, b| a.field.cmp(&b.field));
        Ok(Some(Explanation { kind: kind.to_owned(), id: id.to_owned(), deleted: view.deleted, fields }))
    }
}

impl FieldExplanation {
    fn new(field: Option<String>, policy: String) -> Self {
        Self { field, policy, registers: Vec::new(), resolved: None, overlays: Vec::new(), shown: None }
    }
}

/// The registers of an entity, by field. A group's stands with each of its members.
fn fields(kind: &Kind, rows: &[Row<'_>]) -> Result<Vec<FieldExplanation>, crate::row::Corrupt> {
    let mut fields: Vec<FieldExplanation> = Vec::new();
    for entry in rows.iter().flat_map(Row::entries) {
        let entry = entry?;
        let parts = Parts::parse(entry.address).ok_or(crate::row::Corrupt)?;
        let state = entry.state()?;
        let names: Vec<Option<String>> = match parts.class {
            class::LIFE => vec![None],
            class::GROUP => {
                let group = kind.group(parts.name);
                group.into_iter().flat_map(|group| group.members.iter().cloned().map(Some)).collect()
            }
            class::FIELD => {
                let name = kind.once(parts.name).map_or(parts.name, |field| field.name.as_str());
                vec![Some(name.to_owned())]
            }
            class::KEY | class::COUNT => vec![Some(parts.name.to_owned())],
            _ => Vec::new(),
        };
        for name in names {
            let register = register(parts, &state, name.as_deref());
            match fields.iter_mut().find(|each| each.field == name) {
                Some(each) => each.registers.push(register),
                None => {
                    let policy = policy(kind, name.as_deref());
                    let mut each = FieldExplanation::new(name, policy);
                    each.registers.push(register);
                    fields.push(each);
                }
            }
        }
    }
    for field in &mut fields {
        // What is under the former name counts only where nothing is under the new one.
        let is_new = field.registers.iter().any(|register| register.was.is_none());
        field.registers.retain(|register| !is_new || register.was.is_none());
    }
    Ok(fields)
}

fn policy(kind: &Kind, field: Option<&str>) -> String {
    let Some(name) = field else { return kind.life.to_string() };
    match kind.slot(name) {
        Slot::Field(field) => field.ty.to_string(),
        Slot::Member(group) => format!("member of group {}, newest", group.name),
        Slot::Open => "undeclared, newest".to_owned(),
        Slot::Undeclared => "undeclared".to_owned(),
    }
}

fn register(parts: Parts<'_>, state: &State<'_>, field: Option<&str>) -> RegisterExplanation {
    let is_group = parts.class == class::GROUP;
    let key = match (parts.class, parts.text_key()) {
        (class::COUNT, _) => parts.key.iter().map(|byte| format!("{byte:02x}")).collect(),
        (_, key) => key.unwrap_or_default().to_owned(),
    };
    let member = field.filter(|_| is_group);
    let candidate = |c: &Candidate<'_>| {
        let confirmed = state.confirmed().is_some_and(|register| register.alive.contains(c));
        let value = if c.value == ABSENT { None } else { Value::decode(c.value).ok() };
        let value = match (member, value) {
            (Some(member), Some(Value::Map(members))) => {
                members.into_iter().find(|(name, _)| name == member).map(|(_, value)| value)
            }
            (_, value) => value,
        };
        CandidateExplanation { stamp: c.stamp, rank: c.rank, saw: c.saw, value, pending: !confirmed }
    };
    RegisterExplanation {
        key,
        group: is_group.then(|| parts.name.to_owned()),
        was: field
            .filter(|name| parts.class == class::FIELD && *name != parts.name)
            .map(|_| parts.name.to_owned()),
        floor: state.shown.floor,
        seen: state.shown.seen.clone(),
        candidates: state.shown.alive.iter().map(candidate).collect(),
    }
}
