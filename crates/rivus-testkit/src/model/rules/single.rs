//! Rules that look at one entity, and at those that it names.

use std::collections::{BTreeMap, BTreeSet};

use rivus_core::schema::{Bound, Expr, Kind, OnGone, Reference, Side};
use rivus_core::value::Value;

use super::{Below, Laid, Layer, Sight};

impl Below<'_> {
    pub(super) fn reference(
        &self,
        at: usize,
        kind: &Kind,
        what: &Reference,
        sights: &mut BTreeSet<Sight>,
    ) -> Layer {
        match what.on_gone {
            OnGone::Nullify => self.nullify(at, kind, what, sights),
            OnGone::Cascade => self.cascade(at, kind, what, sights),
            OnGone::Keep => self.keep(at, kind, what, sights),
        }
    }

    fn nullify(&self, at: usize, kind: &Kind, what: &Reference, sights: &mut BTreeSet<Sight>) -> Layer {
        let mut layer = Layer::new();
        for (id, held) in self.of(&kind.name) {
            let value = held.value(&what.field);
            let target = text(value);
            let names_one = target.as_ref().is_some_and(|target| self.stands(at, &what.to, target));
            if *value != Value::Null && !names_one {
                sights.insert(Sight::Nullified);
                let laid = Laid { shown: Value::Null, rival: target };
                layer.insert((kind.name.clone(), id.to_owned(), Some(what.field.clone())), laid);
            }
        }
        layer
    }

    /// Who names what is gone is gone, until nobody is added.
    fn cascade(&self, at: usize, kind: &Kind, what: &Reference, sights: &mut BTreeSet<Sight>) -> Layer {
        let mut gone: BTreeMap<&str, Option<String>> = BTreeMap::new();
        let mut round = 0;
        loop {
            let mut more = Vec::new();
            for (id, _) in self.of(&kind.name) {
                let value = self.value(at, &kind.name, id, &what.field);
                let is_out = gone.contains_key(id) || self.is_there(at, &kind.name, id) != Some(true);
                if is_out || *value == Value::Null {
                    continue;
                }
                let target = text(value);
                let names_one = target.as_ref().is_some_and(|target| {
                    let is_gone = what.to == kind.name && gone.contains_key(target.as_str());
                    !is_gone && self.stands(at, &what.to, target)
                });
                if !names_one {
                    more.push((id, target));
                }
            }
            if more.is_empty() {
                break;
            }
            sights.insert(if round == 0 { Sight::Cascaded } else { Sight::CascadedFurther });
            round += 1;
            gone.extend(more);
        }
        let spot = |id: &str| (kind.name.clone(), id.to_owned(), None);
        gone.into_iter().map(|(id, rival)| (spot(id), Laid { shown: Value::Bool(false), rival })).collect()
    }

    /// What is named by what is there is there, until nothing is added.
    fn keep(&self, at: usize, kind: &Kind, what: &Reference, sights: &mut BTreeSet<Sight>) -> Layer {
        let mut layer = Layer::new();
        for target in self.kept(at, kind, what, None, sights) {
            // Nobody is kept by those that are kept on its account.
            let others = self.kept(at, kind, what, Some(&target), sights);
            let mut keepers = self.keepers(at, kind, what, &others).into_iter();
            let keeper = keepers.find(|(of, id, _)| *of == target && (what.to != kind.name || *id != target));
            let laid = Laid { shown: Value::Bool(true), rival: keeper.map(|(_, id, _)| id) };
            layer.insert((what.to.clone(), target, None), laid);
        }
        layer
    }

    fn kept(
        &self,
        at: usize,
        kind: &Kind,
        what: &Reference,
        without: Option<&str>,
        sights: &mut BTreeSet<Sight>,
    ) -> BTreeSet<String> {
        let mut kept: BTreeSet<String> = BTreeSet::new();
        loop {
            let mut more = BTreeSet::new();
            for (target, _, is_kept) in self.keepers(at, kind, what, &kept) {
                let is_deleted = self.held(&what.to, &target).is_some_and(|held| held.deleted);
                if !kept.contains(&target) && is_deleted && without != Some(&target) {
                    sights.insert(if is_kept { Sight::KeptFurther } else { Sight::Kept });
                    more.insert(target);
                }
            }
            if more.is_empty() {
                return kept;
            }
            kept.extend(more);
        }
    }

    /// Who names whom, of those that are there or kept, and whether it is there only because it is kept.
    fn keepers(
        &self,
        at: usize,
        kind: &Kind,
        what: &Reference,
        kept: &BTreeSet<String>,
    ) -> Vec<(String, String, bool)> {
        let mut all = Vec::new();
        for (id, _) in self.of(&kind.name) {
            let is_there = self.is_there(at, &kind.name, id) == Some(true);
            let is_kept = what.to == kind.name && kept.contains(id);
            if let Some(target) = text(self.value(at, &kind.name, id, &what.field))
                && (is_there || is_kept)
            {
                all.push((target, id.to_owned(), !is_there));
            }
        }
        all
    }

    pub(super) fn bound(&self, kind: &Kind, what: &Bound, sights: &mut BTreeSet<Sight>) -> Layer {
        let mut layer = Layer::new();
        for (id, _) in self.of(&kind.name) {
            let value = self.own(&kind.name, id, &what.field);
            let low = what.min.as_ref().filter(|min| is_above(min, value));
            let high = what.max.as_ref().filter(|max| is_above(value, max));
            if let Some(shown) = low.or(high) {
                sights.insert(Sight::Clamped);
                let laid = Laid { shown: shown.clone(), rival: None };
                layer.insert((kind.name.clone(), id.to_owned(), Some(what.field.clone())), laid);
            }
        }
        layer
    }

    pub(super) fn expr(&self, at: usize, kind: &Kind, what: &Expr, sights: &mut BTreeSet<Sight>) -> Layer {
        let mut layer = Layer::new();
        for (id, _) in self.of(&kind.name) {
            let value = self.own(&kind.name, id, &what.field);
            let other = self.value(at, &kind.name, id, &what.other);
            let is_wrong = match what.side {
                Side::AtLeast => is_above(other, value),
                Side::AtMost => is_above(value, other),
            };
            if is_wrong {
                sights.insert(Sight::Turned);
                let laid = Laid { shown: other.clone(), rival: None };
                layer.insert((kind.name.clone(), id.to_owned(), Some(what.field.clone())), laid);
            }
        }
        layer
    }
}

fn text(value: &Value) -> Option<String> {
    if let Value::Text(text) = value { Some(text.clone()) } else { None }
}

/// Whether one is more than the other by what they mean; values of different types are not. For numbers below 2^53.
pub(crate) fn is_above(one: &Value, other: &Value) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "the numbers of the simulator are small")]
    match (one, other) {
        (Value::Int(one), Value::Float(other)) => *one as f64 > *other,
        (Value::Float(one), Value::Int(other)) => *one > *other as f64 || one.is_nan(),
        _ => std::mem::discriminant(one) == std::mem::discriminant(other) && one > other,
    }
}
