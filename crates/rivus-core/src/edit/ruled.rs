//! What rules add to an edit: the claim of a place that it takes, and what a user accepts by going on from it.

use super::intents::Intents;
use super::{EditError, Tx};
use crate::address;
use crate::canary::{Canary, is_on};
use crate::register::Reach;
use crate::rules::{Facts, Laid, Rules, Watch};
use crate::schema::Slot;
use crate::store::Store;
use crate::value::Value;
use crate::view::{self, reach};
use crate::work::At;

/// An entity of a kind with rules: what the user saw, and what the edit makes of it.
#[derive(Clone, Debug)]
pub(super) struct Before {
    /// As it showed before the edit.
    shown: Facts,
    laid: Vec<Laid>,
    /// As the edit leaves it.
    after: Facts,
    /// Whether the edit writes to its fields.
    touched: bool,
    /// The fields that the edit names, by position in the watch.
    named: Vec<usize>,
}

/// What a field shows by a rule.
pub(super) enum ByRule<'b> {
    /// A value that the user accepts by naming it.
    Accepted,
    /// A value that is there as if a register held it.
    Shown(&'b Value),
}

impl<'s, S: Store> Tx<'s, S> {
    fn watch(&self, at: At) -> Option<(&'s Rules, &'s Watch)> {
        let rules = self.work.rules()?;
        Some((rules, rules.watch(self.work.staged(at).kind())?))
    }

    /// Looks at an entity before the edit does anything to it.
    pub(super) fn look_before(&mut self, at: At) -> Result<(), EditError> {
        let Some((rules, _)) = self.watch(at) else { return Ok(()) };
        if self.befores.get(at.index()).is_some_and(Option::is_some) {
            return Ok(());
        }
        self.work.settle()?;
        let staged = self.work.staged(at);
        let (kind, id) = (staged.kind().to_owned(), staged.id().to_owned());
        let (shown, laid) = self.work.shown(rules, &kind, &id, usize::MAX)?;
        if self.befores.len() <= at.index() {
            self.befores.resize_with(at.index() + 1, || None);
        }
        if let Some(slot) = self.befores.get_mut(at.index()) {
            let after = shown.clone();
            *slot = Some(Box::new(Before { shown, laid, after, touched: false, named: Vec::new() }));
        }
        Ok(())
    }

    fn before(&self, at: At) -> Option<&Before> {
        self.befores.get(at.index())?.as_deref()
    }

    fn before_mut(&mut self, at: At) -> Option<&mut Before> {
        self.befores.get_mut(at.index())?.as_deref_mut()
    }

    /// Whether the entity was held, and showed as deleted.
    pub(super) fn shown_before(&self, at: At) -> Option<(bool, bool)> {
        self.before(at).map(|before| (before.shown.held, before.shown.deleted))
    }

    /// What the field shows in place of what its register holds.
    pub(super) fn by_rule(&self, at: At, field: &str) -> Option<ByRule<'_>> {
        let (_, watch) = self.watch(at)?;
        let place = watch.field(field)?;
        let laid = self.before(at)?.laid.iter().find(|laid| laid.field == Some(place))?;
        Some(if laid.pins { ByRule::Accepted } else { ByRule::Shown(&laid.shown) })
    }

    /// Notes that the edit names fields of the entity.
    pub(super) fn note_named(&mut self, at: At, fields: &[(String, Value)]) {
        let Some((_, watch)) = self.watch(at) else { return };
        let Some(before) = self.before_mut(at) else { return };
        for (name, value) in fields {
            if let Some(place) = watch.field(name) {
                before.after.set(place, value.clone());
                before.named.push(place);
            }
        }
    }

    /// Notes that the edit writes to the entity's fields.
    pub(super) fn note_touched(&mut self, at: At) {
        if let Some(before) = self.before_mut(at) {
            before.touched = true;
        }
    }

    /// Writes what the user accepted, and the claims of the places that the edit takes.
    pub(super) fn intend_by_rules(&mut self, at: At) -> Result<(), EditError> {
        let Some((rules, watch)) = self.watch(at) else { return Ok(()) };
        if self.intents(at).is_none_or(Intents::is_empty) {
            return Ok(());
        }
        let Some(before) = self.before(at).cloned() else { return Ok(()) };
        let mut after = before.after;
        if before.touched && !is_on(Canary::NothingPinned) {
            for laid in before.laid.iter().filter(|laid| laid.pins) {
                let Some(place) = laid.field.filter(|place| !before.named.contains(place)) else { continue };
                self.intend_value(at, watch, place, &laid.shown)?;
                self.note_shown(at, watch, place, &laid.shown)?;
                after.set(place, laid.shown.clone());
            }
        }
        if let Some(life) = self.intents(at).and_then(|intents| intents.get(address::LIFE)) {
            after.deleted = life.value == view::FALSE;
        }
        after.held = true;
        let id = self.work.staged(at).id().to_owned();
        let is_named = |laid: &&Laid| laid.field.is_some_and(|place| before.named.contains(&place));
        let laid: Vec<_> = before.laid.iter().filter(|laid| !is_named(laid)).collect();
        for (rule, group) in rules.places_taken(watch, &id, &before.shown, &after, &laid) {
            let address = address::claim(rule, &group);
            self.write(at, address, view::TRUE.to_vec(), Reach::None)?;
        }
        Ok(())
    }

    fn note_shown(&mut self, at: At, watch: &Watch, place: usize, shown: &Value) -> Result<(), EditError> {
        let (Some(name), Some(kind)) = (watch.name(place), self.schema.kind(self.work.staged(at).kind()))
        else {
            return Ok(());
        };
        match kind.slot(name) {
            Slot::Member(group) => {
                self.work.note_shown(at, address::group(&group.name), Some(name), shown)?
            }
            _ => self.work.note_shown(at, address::field(name), None, shown)?,
        }
        Ok(())
    }

    fn intend_value(&mut self, at: At, watch: &Watch, place: usize, value: &Value) -> Result<(), EditError> {
        let Some(name) = watch.name(place) else { return Ok(()) };
        let Some(kind) = self.schema.kind(self.work.staged(at).kind()) else { return Ok(()) };
        match kind.slot(name) {
            Slot::Member(group) => self.put_group(at, group, &[(name, value)]).map(drop),
            Slot::Field(field) => {
                self.write(at, address::field(name), value.to_bytes(), reach(field.ty.margin()))
            }
            Slot::Open | Slot::Undeclared => {
                self.write(at, address::field(name), value.to_bytes(), Reach::None)
            }
        }
    }

    /// Does something as if the edit ended here, with what rules add to it; then goes on as before.
    pub(super) fn with_rules<T>(
        &mut self,
        at: At,
        act: impl FnOnce(&mut Self) -> Result<T, EditError>,
    ) -> Result<T, EditError> {
        if self.watch(at).is_none() {
            return act(self);
        }
        let kept = (self.intents.get(at.index()).cloned(), self.registers, self.bytes);
        let done = self.intend_by_rules(at).and_then(|()| act(self));
        let (intents, registers, bytes) = kept;
        if let (Some(slot), Some(intents)) = (self.intents.get_mut(at.index()), intents) {
            *slot = intents;
        }
        (self.registers, self.bytes) = (registers, bytes);
        done
    }
}
