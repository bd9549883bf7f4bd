//! What rules see of one entity.

use std::collections::BTreeSet;

use super::index::{Index, compact};
use super::{Entity, Field, Overlay, Rules, Stratum, Watch, What};
use crate::address::{Parts, class};
use crate::canary::{Canary, is_on};
use crate::clock::Stamp;
use crate::row::{Corrupt, Entry, Row};
use crate::schema::{FieldType, Kind};
use crate::store::{CommitError, Store};
use crate::value::{self, Value};
use crate::view::{self, Shown, View};
use crate::work::{At, Work, damaged};

/// What rules see of one entity: its registers, and what earlier rules show in their place.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Facts {
    /// Whether any register of it is held.
    pub(crate) held: bool,
    pub(crate) deleted: bool,
    /// Whether another entity stands for it: it does not show, and yet is not gone.
    pub(super) aside: bool,
    /// By position in the kind's watch.
    pub(crate) values: Vec<Value>,
    /// The newest of the register's, by position.
    stamps: Vec<Option<Stamp>>,
    claims: Vec<Claim>,
}

/// When an entity claimed a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Claim {
    pub(super) rule: usize,
    pub(super) group: Vec<u8>,
    pub(super) stamp: Stamp,
}

/// One overlay of an entity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Laid {
    pub(crate) rule: usize,
    /// The field's position in the kind's watch; `None` for life.
    pub(crate) field: Option<usize>,
    pub(crate) shown: Value,
    pub(crate) hidden: Value,
    pub(crate) rival: Option<String>,
    /// Whether an edit that touches the entity makes it true: then the user has accepted it.
    pub(crate) pins: bool,
}

impl Facts {
    /// Whether an entity shows.
    pub(super) fn is_there(&self) -> bool {
        self.held && !self.deleted
    }

    /// Takes over what an entry of the entity's row holds.
    fn read(&mut self, entry: &Entry<'_>, rules: &Rules, watch: &Watch) -> Result<(), Corrupt> {
        match entry.address.first() {
            Some(&class::LIFE) => self.deleted = view::is_dead(watch.life, &entry.shown()?),
            Some(&class::CLAIM) => {
                let parts = Parts::parse(entry.address).ok_or(Corrupt)?;
                let is_of = |rule: &&usize| {
                    let stratum = rules.stratum(**rule);
                    stratum.name == parts.name && stratum.has_claims()
                };
                if let Some(rule) = watch.own.iter().find(is_of) {
                    let stamp = entry.shown()?.newest().stamp;
                    self.claims.push(Claim { rule: *rule, group: parts.key.to_vec(), stamp });
                }
            }
            Some(&class::FIELD | &class::GROUP) => {
                let places = self.values.iter_mut().zip(&mut self.stamps).zip(&watch.fields);
                for ((value, stamp), watched) in places {
                    // What is under the former name counts only where nothing is under the new one.
                    let is_former = stamp.is_none() && watched.was.as_deref() == Some(entry.address);
                    if watched.address == entry.address || is_former {
                        let (held, by) = field(entry, &watched.name, watched.ty.as_ref())?;
                        (*value, *stamp) = (held, Some(by));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn value(&self, at: usize) -> &Value {
        self.values.get(at).unwrap_or(&Value::Null)
    }

    pub(super) fn stamp(&self, at: usize) -> Stamp {
        self.stamps.get(at).copied().flatten().unwrap_or(Stamp::LOWEST)
    }

    /// The group that the entity is in, as it is in keys; `None` if a field of it is null.
    pub(super) fn group(&self, fields: &[usize]) -> Option<Vec<u8>> {
        let values = fields.iter().map(|at| self.value(*at));
        let known = values.clone().all(|value| *value != Value::Null);
        known.then(|| compact(&Value::List(values.cloned().collect())))
    }

    pub(super) fn claims(&self, rule: usize) -> impl Iterator<Item = &Claim> {
        self.claims.iter().filter(move |claim| claim.rule == rule)
    }

    pub(super) fn claim(&self, rule: usize, group: &[u8]) -> Option<Stamp> {
        self.claims(rule).find(|claim| claim.group == group).map(|claim| claim.stamp)
    }

    pub(crate) fn set(&mut self, at: usize, value: Value) {
        if let Some(slot) = self.values.get_mut(at) {
            *slot = value;
        }
        if let Some(stamp) = self.stamps.get_mut(at) {
            // It shows from now on, though no register may hold it yet.
            stamp.get_or_insert(Stamp::LOWEST);
        }
    }

    /// Lays an overlay on.
    pub(super) fn lay(&mut self, laid: &Laid) {
        match laid.field {
            None => self.deleted = laid.shown == Value::Bool(false),
            Some(at) => self.set(at, laid.shown.clone()),
        }
    }

    /// As a custom rule sees it.
    pub(super) fn entity(&self, id: &str, watch: &Watch, rule: usize, stratum: &Stratum) -> Entity {
        let named = watch.fields.iter().zip(&self.values).zip(&self.stamps);
        let fields = named.filter_map(|((watched, value), stamp)| {
            Some((watched.name.clone(), Field { stamp: (*stamp)?, value: value.clone() }))
        });
        let claim = self.group(&stratum.group).and_then(|group| self.claim(rule, &group));
        Entity { id: id.to_owned(), deleted: self.deleted, fields: fields.collect(), claim }
    }
}

impl Laid {
    /// As it is told to the application.
    pub(crate) fn told(&self, rules: &Rules, kind: &str, id: &str) -> Overlay {
        let watched = |at: usize| rules.watch(kind).and_then(|watch| watch.fields.get(at));
        Overlay {
            kind: kind.to_owned(),
            id: id.to_owned(),
            field: self.field.and_then(watched).map(|watched| watched.name.clone()),
            rule: rules.stratum(self.rule).name.clone(),
            rival: self.rival.clone(),
            shown: self.shown.clone(),
            hidden: self.hidden.clone(),
        }
    }

    /// Shows it in a view.
    pub(crate) fn lay(&self, watch: &Watch, view: &mut View) {
        match self.field.and_then(|at| watch.fields.get(at)) {
            None => view.deleted = self.shown == Value::Bool(false),
            Some(watched) => drop(view.fields.insert(watched.name.clone(), Shown::Value(self.shown.clone()))),
        }
    }

    /// Whether the rival shows in the place of the entity.
    pub(crate) fn stands_aside(&self, rules: &Rules) -> bool {
        let alias = crate::schema::OnClash::Alias;
        self.field.is_none()
            && matches!(rules.stratum(self.rule).what, What::Unique { on_clash, .. } if on_clash == alias)
    }
}

impl Rules {
    /// The groups in which an entity takes a place by going from one state to the other, by name of the rule. `laid` is
    /// what was laid on the first, beside the fields that the edit names.
    pub(crate) fn places_taken<'r>(
        &'r self,
        watch: &Watch,
        id: &str,
        before: &Facts,
        after: &Facts,
        laid: &[&Laid],
    ) -> Vec<(&'r str, Vec<u8>)> {
        let mut taken = Vec::new();
        for rule in watch.own.iter().copied() {
            let stratum = self.stratum(rule);
            let was = if before.held { stratum.place_in(rule, id, watch, before) } else { None };
            let is = stratum.place_in(rule, id, watch, &self.beside(watch, rule, after, laid));
            if (is != was || is_on(Canary::ClaimRewritten))
                && let Some((group, _)) = is
            {
                taken.push((stratum.name.as_str(), group));
            }
        }
        taken
    }

    /// An entity that has been edited as earlier rules between its own fields show it to this one.
    fn beside<'f>(
        &self,
        watch: &Watch,
        until: usize,
        after: &'f Facts,
        laid: &[&Laid],
    ) -> std::borrow::Cow<'f, Facts> {
        let is_local =
            |rule: usize| matches!(self.stratum(rule).what, What::Bound { .. } | What::Expr { .. });
        let mut after = std::borrow::Cow::Borrowed(after);
        let earlier = |rule: &usize| *rule < until && is_local(*rule);
        // What they showed may have been on account of a field that is another now.
        for laid in laid.iter().filter(|laid| earlier(&laid.rule) && !laid.pins) {
            if let Some(place) = laid.field {
                after.to_mut().set(place, laid.hidden.clone());
            }
        }
        for rule in watch.lay.iter().copied().filter(earlier) {
            let laid = match &self.stratum(rule).what {
                What::Bound { field, min, max } => {
                    super::local::bounded(rule, *field, min.as_ref(), max.as_ref(), &after)
                }
                What::Expr { field, side, other } => {
                    super::local::beside(rule, *field, *side, *other, &after)
                }
                _ => None,
            };
            if let Some(laid) = laid {
                after.to_mut().lay(&laid);
            }
        }
        after
    }
}

impl<S: Store> Work<'_, S> {
    /// The entity as it shows, registers and overlays; `None` if it is not held.
    pub(crate) fn view(
        &mut self,
        declared: &Kind,
        kind: &str,
        id: &str,
    ) -> Result<Option<View>, CommitError> {
        let at = self.entity(kind, id);
        let rows = self.rows(at)?;
        if rows.first().is_some_and(Row::is_evicted) {
            return Ok(None);
        }
        let view = View::read(declared, rows).map_err(|corrupt| damaged(kind, id, corrupt))?;
        let Some(mut view) = view else { return Ok(None) };
        if declared.aliases {
            view.deleted |= self.alias_root(kind, id)? != id;
        }
        if let Some(rules) = self.rules()
            && let Some(watch) = rules.watch(kind).filter(|watch| watch.lays())
        {
            let (_, laid) = self.shown(rules, kind, id, usize::MAX)?;
            laid.iter().for_each(|laid| laid.lay(watch, &mut view));
        }
        Ok(Some(view))
    }

    /// What the registers of a staged entity hold of what is watched.
    pub(crate) fn facts(&mut self, at: At, rules: &Rules, watch: &Watch) -> Result<Facts, CommitError> {
        let mut facts = Facts {
            values: vec![Value::Null; watch.fields.len()],
            stamps: vec![None; watch.fields.len()],
            ..Facts::default()
        };
        let row = self.row(at, crate::address::LIFE)?;
        facts.held = !row.is_empty() || !row.end.is_empty();
        let is_rare = row.is_evicted() || row.is_empty();
        if !facts.held || is_rare && !self.is_readable(at, watch)? {
            return Ok(Facts { held: false, ..facts });
        }
        let row = self.row(at, crate::address::LIFE)?;
        if row.end.is_empty() {
            let read = row.entries().try_for_each(|entry| facts.read(&entry?, rules, watch));
            read.map_err(|corrupt| self.damage_at(at, corrupt))?;
        } else {
            self.read_chunks(at, rules, watch, &mut facts)?;
        }
        if watch.aliases() {
            let (kind, id) = (self.staged(at).kind().to_owned(), self.staged(at).id().to_owned());
            facts.aside = self.alias_root(&kind, &id)? != id;
            facts.deleted |= facts.aside;
        }
        let places = facts.values.iter_mut().zip(&mut facts.stamps).zip(&watch.fields);
        for ((value, stamp), watched) in places {
            if let (None, Some(default)) = (&stamp, &watched.default) {
                (*value, *stamp) = (default.clone(), Some(Stamp::LOWEST));
            }
        }
        Ok(facts)
    }

    /// Whether anything is held of an entity whose first row is empty, and all that rules read of an evicted one.
    fn is_readable(&mut self, at: At, watch: &Watch) -> Result<bool, CommitError> {
        if !self.is_held(at)? || !self.is_evicted(at)? {
            return self.is_held(at);
        }
        let addresses = watch.fields.iter().flat_map(|watched| watched.was.iter().chain([&watched.address]));
        for address in addresses {
            // It was evicted when rules did not read as much of it. They go without it.
            let lacks = self.row(at, address)?.lacks(address);
            if lacks.map_err(|corrupt| self.damage_at(at, corrupt))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads what is watched of an entity in chunks, and no other chunk of it.
    fn read_chunks(
        &mut self,
        at: At,
        rules: &Rules,
        watch: &Watch,
        facts: &mut Facts,
    ) -> Result<(), CommitError> {
        let fields = watch.fields.iter().flat_map(|watched| watched.was.iter().chain([&watched.address]));
        for address in std::iter::once(crate::address::LIFE).chain(fields.map(Vec::as_slice)) {
            let found = self.row(at, address)?.find(address);
            let read = found.and_then(|entry| entry.map_or(Ok(()), |entry| facts.read(&entry, rules, watch)));
            read.map_err(|corrupt| self.damage_at(at, corrupt))?;
        }
        let mut from = vec![class::CLAIM, 0, 0];
        while !from.is_empty() {
            let row = self.row(at, &from)?;
            let end = row.end.to_vec();
            let read = row.entries().try_for_each(|entry| {
                let entry = entry?;
                let is_claim = entry.address.first() == Some(&class::CLAIM);
                if is_claim { facts.read(&entry, rules, watch) } else { Ok(()) }
            });
            read.map_err(|corrupt| self.damage_at(at, corrupt))?;
            from = end;
        }
        Ok(())
    }

    fn damage_at(&self, at: At, corrupt: Corrupt) -> CommitError {
        let staged = self.staged(at);
        damaged(staged.kind(), staged.id(), corrupt).into()
    }

    pub(super) fn index(&self) -> Index<'_, S> {
        Index { store: self.store(), changes: &self.entered }
    }

    /// An entity as it shows after the rules before `until`, with what these show.
    pub(crate) fn shown(
        &mut self,
        rules: &Rules,
        kind: &str,
        id: &str,
        until: usize,
    ) -> Result<(Facts, Vec<Laid>), CommitError> {
        let Some(watch) = rules.watch(kind) else { return Ok((Facts::default(), Vec::new())) };
        let at = self.entity(kind, id);
        let facts = self.facts(at, rules, watch)?;
        self.lay_on(rules, watch, id, facts, until)
    }

    /// A staged entity as it shows after the rules before `until`.
    pub(super) fn shown_at(&mut self, rules: &Rules, at: At, until: usize) -> Result<Facts, CommitError> {
        let Some(watch) = rules.watch(self.staged(at).kind()) else { return Ok(Facts::default()) };
        let facts = self.facts(at, rules, watch)?;
        if watch.lay.first().is_none_or(|first| *first >= until) {
            return Ok(facts);
        }
        let id = self.staged(at).id().to_owned();
        Ok(self.lay_on(rules, watch, &id, facts, until)?.0)
    }

    /// What the rules before `until` show of an entity.
    fn lay_on(
        &mut self,
        rules: &Rules,
        watch: &Watch,
        id: &str,
        mut facts: Facts,
        until: usize,
    ) -> Result<(Facts, Vec<Laid>), CommitError> {
        let mut all: Vec<Laid> = Vec::new();
        if !facts.held {
            return Ok((facts, all));
        }
        for rule in watch.lay.iter().copied().take_while(|rule| *rule < until) {
            for mut laid in self.overlays_of(rules, rule, id, &facts)? {
                facts.lay(&laid);
                // What the registers hold is what is hidden, whoever laid something on it before.
                if let Some(before) = all.iter().position(|before| before.field == laid.field) {
                    let before = all.remove(before);
                    laid.hidden = before.hidden;
                    laid.pins |= before.pins;
                }
                if laid.shown != laid.hidden {
                    all.push(laid);
                }
            }
        }
        Ok((facts, all))
    }

    /// What one rule shows of one entity, given what shows before it.
    fn overlays_of(
        &mut self,
        rules: &Rules,
        rule: usize,
        id: &str,
        facts: &Facts,
    ) -> Result<Vec<Laid>, CommitError> {
        let stratum = rules.stratum(rule);
        let one = |laid: Option<Laid>| laid.into_iter().collect();
        Ok(match &stratum.what {
            What::AtMostOne { .. } => one(self.stopped(rules, rule, id, facts)?),
            What::Unique { field, on_clash } => {
                one(self.clashing(rule, &stratum.group, *field, *on_clash, id, facts)?)
            }
            What::Reference { .. } => one(self.referring(rules, rule, stratum, id, facts)?),
            What::Bound { field, min, max } => {
                one(super::local::bounded(rule, *field, min.as_ref(), max.as_ref(), facts))
            }
            What::Expr { field, side, other } => {
                one(super::local::beside(rule, *field, *side, *other, facts))
            }
            What::Custom(custom) => self.customised(rules, rule, stratum, custom, id, facts)?,
        })
    }

    fn customised(
        &mut self,
        rules: &Rules,
        rule: usize,
        stratum: &Stratum,
        custom: &crate::schema::Custom,
        id: &str,
        facts: &Facts,
    ) -> Result<Vec<Laid>, CommitError> {
        let Some(watch) = rules.watch(&stratum.kind) else { return Ok(Vec::new()) };
        let Some(group) = facts.group(&stratum.group).filter(|_| !facts.deleted) else {
            return Ok(Vec::new());
        };
        let ids = self.members(rule, &group)?;
        let mut entities = Vec::with_capacity(ids.len());
        for member in ids {
            let (facts, _) = self.shown(rules, &stratum.kind, &member, rule)?;
            entities.push(facts.entity(&member, watch, rule, stratum));
        }
        let owned: BTreeSet<&str> = custom.0.owns().into_iter().collect();
        let overlays = custom.0.evaluate(&entities);
        let own =
            overlays.0.into_iter().filter(|((of, field), _)| of == id && owned.contains(field.as_str()));
        let laid = own.filter_map(|((_, field), shown)| {
            let field = watch.field(&field)?;
            let hidden = facts.value(field).clone();
            Some(Laid { rule, field: Some(field), shown, hidden, rival: None, pins: false })
        });
        Ok(laid.collect())
    }
}

impl Stratum {
    /// Whether entities claim its groups.
    pub(super) fn has_claims(&self) -> bool {
        matches!(self.what, What::AtMostOne { .. } | What::Unique { .. } | What::Custom(_))
    }

    /// The group that an entity with these facts takes a place in.
    pub(super) fn place_in(
        &self,
        rule: usize,
        id: &str,
        watch: &Watch,
        facts: &Facts,
    ) -> Option<(Vec<u8>, Value)> {
        let group = facts.group(&self.group)?;
        match &self.what {
            What::AtMostOne { open, .. } => {
                (*facts.value(*open) == Value::Null).then_some((group, Value::Null))
            }
            What::Unique { field, .. } => {
                let name = facts.value(*field);
                let name =
                    if is_on(Canary::NameClaimStays) { &Value::Bool(*name != Value::Null) } else { name };
                (facts.is_there() && *name != Value::Null).then(|| (group, name.clone()))
            }
            What::Custom(custom) => {
                custom.0.holds(&facts.entity(id, watch, rule, self)).then_some((group, Value::Null))
            }
            _ => None,
        }
    }
}

/// What a field's register holds, and its newest stamp.
fn field(entry: &Entry<'_>, name: &str, ty: Option<&FieldType>) -> Result<(Value, Stamp), Corrupt> {
    let register = entry.shown()?;
    let stamp = register.newest().stamp;
    let value = match ty {
        Some(ty) => {
            let bytes = view::resolve(ty, &register)?;
            if *bytes == *value::ABSENT { Value::Null } else { Value::decode(&bytes).map_err(|_| Corrupt)? }
        }
        None => match Value::decode(register.newest().value) {
            Ok(Value::Map(mut members)) => members.remove(name).unwrap_or(Value::Null),
            _ => Value::Null,
        },
    };
    Ok((value, stamp))
}
