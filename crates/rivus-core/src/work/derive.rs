//! What a commit keeps beside the rows: tables of views, and the journal.
//!
//! Both are made from the staged rows before the commit, and are part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::evict::Moved;
use super::{At, Work, damaged};
use crate::address::{Parts, class};
use crate::clock::Stamp;
use crate::journal::{EntityChange, Keep, RegisterChange};
use crate::projection::{Cell, Layout, ViewWrite, Which};
use crate::register::Register;
use crate::row::{Change, Corrupt};
use crate::schema::{FieldType, Schema, Slot};
use crate::store::{CommitError, Store};
use crate::value::{self, Value};
use crate::view;

/// What is kept beside the rows.
#[derive(Debug)]
pub(crate) struct Derived {
    pub(crate) schema: Arc<Schema>,
    /// The tables that this program keeps, by kind.
    pub(crate) layouts: BTreeMap<String, Arc<Layout>>,
    /// The kinds of which other programs keep tables in this store.
    pub(crate) others: BTreeSet<String>,
    pub(crate) journal: Option<Keep>,
}

impl Derived {
    pub(crate) fn new(schema: Arc<Schema>) -> Self {
        Self { schema, layouts: BTreeMap::new(), others: BTreeSet::new(), journal: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.layouts.is_empty() && self.others.is_empty() && self.journal.is_none()
    }

    /// Whether tables are kept, by whomever.
    pub(crate) fn projects(&self) -> bool {
        !self.layouts.is_empty() || !self.others.is_empty()
    }

    /// Whether edits of this kind leave anything beside the rows.
    pub(crate) fn follows(&self, kind: &str) -> bool {
        self.journal.is_some() || self.layouts.contains_key(kind)
    }
}

/// What a commit adds to it.
#[derive(Debug)]
pub(crate) struct Derivation {
    /// The head's seq before anything was read.
    pub(crate) since: u64,
    pub(crate) rows: Vec<ViewRow>,
    pub(crate) journal: Vec<EntityChange>,
}

impl Derivation {
    /// Whether it adds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.journal.is_empty()
    }

    /// What it writes into tables.
    pub(crate) fn writes(&self) -> impl Iterator<Item = ViewWrite<'_>> {
        self.rows.iter().map(|row| row.write(Which::Table))
    }
}

/// One row of a table of views.
#[derive(Debug)]
pub(crate) struct ViewRow {
    pub(crate) layout: Arc<Layout>,
    pub(crate) id: String,
    pub(crate) cells: Option<Vec<Cell>>,
}

impl ViewRow {
    /// As a write into a table.
    pub(crate) fn write(&self, of: Which) -> ViewWrite<'_> {
        ViewWrite::Row { layout: &self.layout, of, id: &self.id, cells: self.cells.clone() }
    }
}

/// What registers showed before the commit, by entity and address.
pub(crate) type Noted = BTreeMap<(usize, Vec<u8>), Option<Vec<u8>>>;

impl<S: Store> Work<'_, S> {
    /// Notes what registers show that are about to be changed.
    pub(super) fn note_before<A: AsRef<[u8]>>(
        &mut self,
        at: At,
        changes: &[(A, Change<'_>)],
    ) -> Result<(), CommitError> {
        let Some(derived) = self.rules.derived.filter(|derived| derived.journal.is_some()) else {
            return Ok(());
        };
        for (address, _) in changes {
            let address = address.as_ref();
            // What is told of an entity that is not at hand, or was not, is that.
            if self.moved.contains_key(&at.0) || self.row(at, address)?.is_evicted() {
                return Ok(());
            }
            if self.noted.contains_key(&(at.0, address.to_vec())) {
                continue;
            }
            let before = self.shows(derived, at, address)?.and_then(|(value, _)| value);
            self.noted.insert((at.0, address.to_vec()), before);
        }
        Ok(())
    }

    /// Notes that a register is about to be given what a rule shows already: for whoever looks, nothing changes.
    /// `member` is the field's name if the register is that of a group.
    pub(crate) fn note_shown(
        &mut self,
        at: At,
        address: Vec<u8>,
        member: Option<&str>,
        shown: &Value,
    ) -> Result<(), CommitError> {
        let Some(derived) = self.rules.derived.filter(|derived| derived.journal.is_some()) else {
            return Ok(());
        };
        let value = match member {
            None => shown.clone(),
            Some(member) => {
                let held = self.shows(derived, at, &address)?.and_then(|(value, _)| value);
                let members = held.and_then(|bytes| Value::decode(&bytes).ok());
                let Some(Value::Map(mut members)) = members else { return Ok(()) };
                members.insert(member.to_owned(), shown.clone());
                Value::Map(members)
            }
        };
        self.noted.insert((at.0, address), Some(value.to_bytes()));
        Ok(())
    }

    /// What a register shows, in canonical bytes, and the stamp of its newest write; `None` if there is no register.
    fn shows(
        &mut self,
        derived: &Derived,
        at: At,
        address: &[u8],
    ) -> Result<Option<(Option<Vec<u8>>, Stamp)>, CommitError> {
        let kind = self.staged(at).kind().to_owned();
        let row = self.row(at, address)?;
        let read = || -> Result<_, Corrupt> {
            let Some(entry) = row.find(address)? else { return Ok(None) };
            let (parts, register) = (Parts::parse(address).ok_or(Corrupt)?, entry.shown()?);
            let value = resolved(&derived.schema, &kind, parts, &register)?;
            Ok(Some((value, register.newest().stamp)))
        };
        let shown = read();
        shown.map_err(|corrupt| damaged(&kind, self.staged(at).id(), corrupt).into())
    }

    /// What the staged changes add to what is kept beside the rows.
    pub(super) fn derive(&mut self) -> Result<Option<Derivation>, CommitError> {
        let Some(derived) = self.rules.derived else { return Ok(None) };
        let mut derivation =
            Derivation { since: self.rules.since, rows: Vec::new(), journal: self.changes(derived)? };
        if derived.layouts.is_empty() {
            return Ok(Some(derivation));
        }
        let all = self.entities.iter().enumerate();
        let affected = all.filter(|(at, staged)| staged.shown_changed || self.swayed.contains(at));
        let names = affected.map(|(_, staged)| (staged.kind().to_owned(), staged.id().to_owned()));
        let all: BTreeSet<_> = names.filter(|(kind, _)| derived.layouts.contains_key(kind)).collect();
        for (kind, id) in all {
            if let Some(row) = self.view_row(derived, &kind, &id)? {
                derivation.rows.push(row);
            }
        }
        Ok(Some(derivation))
    }

    /// The entity's row in the table of its kind; `None` if there is no such table.
    pub(crate) fn view_row(
        &mut self,
        derived: &Derived,
        kind: &str,
        id: &str,
    ) -> Result<Option<ViewRow>, CommitError> {
        let (Some(layout), Some(declared)) = (derived.layouts.get(kind), derived.schema.kind(kind)) else {
            return Ok(None);
        };
        let cells = self.view(declared, kind, id)?.and_then(|view| layout.cells(&view));
        Ok(Some(ViewRow { layout: Arc::clone(layout), id: id.to_owned(), cells }))
    }

    /// What changed of what registers show, by entity.
    fn changes(&mut self, derived: &Derived) -> Result<Vec<EntityChange>, CommitError> {
        let mut changes: Vec<(usize, EntityChange)> = Vec::new();
        for ((entity, address), before) in std::mem::take(&mut self.noted) {
            let now = self.shows(derived, At(entity), &address)?;
            let (after, stamp) = now.unwrap_or((None, Stamp::LOWEST));
            if after == before || !is_told(&address) {
                continue;
            }
            let register = RegisterChange { address, before, after, stamp };
            match changes.last_mut().filter(|(last, _)| *last == entity) {
                Some((_, change)) => change.registers.push(register),
                None => {
                    let staged = self.staged(At(entity));
                    let (kind, id) = (staged.kind().to_owned(), staged.id().to_owned());
                    changes.push((entity, EntityChange { kind, id, registers: vec![register] }));
                }
            }
        }
        let mut changes: Vec<_> = changes.into_iter().map(|(_, change)| change).collect();
        if derived.journal.is_some() {
            changes.extend(self.moved.iter().map(|(at, moved)| {
                let staged = self.staged(At(*at));
                EntityChange::moved(staged.kind(), staged.id(), *moved == Moved::Back)
            }));
        }
        Ok(changes)
    }
}

/// Whether a register is what an application has set.
fn is_told(address: &[u8]) -> bool {
    let told = [class::LIFE, class::FIELD, class::GROUP, class::KEY, class::COUNT];
    address.first().is_some_and(|class| told.contains(class))
}

/// What a register shows, in canonical bytes; `None` if that is nothing.
fn resolved(
    schema: &Schema,
    kind: &str,
    parts: Parts<'_>,
    register: &Register<'_>,
) -> Result<Option<Vec<u8>>, Corrupt> {
    let newest = || register.newest().value.to_vec();
    let kind = schema.kind(kind);
    let field = kind.map(|kind| kind.slot(parts.name));
    let shown = match (parts.class, field) {
        (class::LIFE, _) => {
            let dead = kind.map(|kind| view::is_dead(kind.life, register));
            dead.map_or_else(newest, |dead| if dead { view::FALSE } else { view::TRUE }.to_vec())
        }
        (class::FIELD, Some(Slot::Field(field))) if view::holds_one(&field.ty) => {
            view::resolve(&field.ty, register)?.into_owned()
        }
        (class::KEY, Some(Slot::Field(field))) => match field.ty {
            FieldType::Set { wins } if view::is_in_set(wins, register) => view::TRUE.to_vec(),
            FieldType::Set { .. } => value::ABSENT.to_vec(),
            _ => newest(),
        },
        (class::COUNT, _) => Value::Int(view::total(register)).to_bytes(),
        _ => newest(),
    };
    Ok((shown != value::ABSENT).then_some(shown))
}
