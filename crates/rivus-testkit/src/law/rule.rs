//! The laws of a rule: a pure function over several entities that shows other values than their registers hold.
//!
//! Owns the words a rule is written in here ([`Entity`], [`Overlays`], [`Rule`]) and its checks. A rule never writes:
//! what it shows instead is computed from the merged registers whenever a view is read, so that nothing has to be
//! repaired, and no repair can arrive late. The words are the test kit's own, as small as the laws allow.

use std::collections::{BTreeMap, BTreeSet};

use rivus_core::clock::Stamp;
use rivus_core::value::Value;

use super::resolver::orders;
use super::{Broken, Law, Surroundings, caught};

/// One merged field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Of the write that shows.
    pub stamp: Stamp,
    /// What it shows.
    pub value: Value,
}

/// One entity: its merged registers, before any rule.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entity {
    /// Its id, unlike that of any other.
    pub id: String,
    /// Whether it is deleted; rules still see it.
    pub deleted: bool,
    /// The fields that are present.
    pub fields: BTreeMap<String, Field>,
    /// By group: when the entity last entered it.
    pub claims: BTreeMap<Value, Stamp>,
}

impl Entity {
    /// What a field holds; absent and null are the same to a rule.
    #[must_use]
    pub fn value(&self, field: &str) -> &Value {
        self.fields.get(field).map_or(&Value::Null, |f| &f.value)
    }
}

/// What shows in place of what the registers hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overlays(pub BTreeMap<(String, String), Value>);

impl Overlays {
    /// Shows `value` as `field` of the entity `id`; the field [`LIFE`] says whether it is there at all.
    pub fn show(&mut self, id: &str, field: &str, value: Value) {
        self.0.insert((id.to_owned(), field.to_owned()), value);
    }

    /// The entities as they show under these overlays.
    #[must_use]
    pub fn over(&self, entities: &[Entity]) -> Vec<Entity> {
        let mut shown = entities.to_vec();
        for entity in &mut shown {
            let from = (entity.id.clone(), String::new());
            for ((_, field), value) in self.0.range(from..).take_while(|((id, _), _)| *id == entity.id) {
                if field == LIFE {
                    entity.deleted = *value == Value::Bool(false);
                } else {
                    let stamp = entity.fields.get(field).map_or(Stamp::LOWEST, |f| f.stamp);
                    entity.fields.insert(field.clone(), Field { stamp, value: value.clone() });
                }
            }
        }
        shown
    }

    fn of(&self, id: &str) -> Vec<(&(String, String), &Value)> {
        self.0.iter().filter(|((of, _), _)| of == id).collect()
    }
}

/// The name under which an overlay shows an entity as deleted (`false`); no field bears it.
pub const LIFE: &str = "$life";

/// A rule over several entities.
pub trait Rule {
    /// The fields that the rule may show otherwise, [`LIFE`] among them if it hides entities.
    fn owns(&self) -> Vec<&str>;

    /// The fields that sway it, beside life and claims. The default: its own.
    fn reads(&self) -> Vec<&str> {
        self.owns()
    }

    /// What shows otherwise. A pure function: no clock, no locale, no order of the entities, no memory.
    fn evaluate(&self, entities: &[Entity]) -> Overlays;

    /// What shows otherwise after the entity `changed` came or changed, given what did before. Where rules are
    /// evaluated step by step this is the step; the default starts over.
    fn update(&self, before: &Overlays, entities: &[Entity], changed: &str) -> Overlays {
        let _ = (before, changed);
        self.evaluate(entities)
    }

    /// Whether what shows satisfies the rule, given the registers below it.
    ///
    /// # Errors
    /// What does not, in words.
    fn satisfied(&self, registers: &[Entity], shown: &[Entity]) -> Result<(), String>;

    /// The groups in which an entity counts, former ones included. `None` (the default): all may sway all.
    fn groups(&self, entity: &Entity) -> Option<BTreeSet<Value>> {
        let _ = entity;
        None
    }

    /// Whether an entity that shows holds what only one may hold. Default: there is no such thing.
    fn active(&self, shown: &Entity) -> bool {
        let _ = shown;
        false
    }

    /// The entity after its user let go of what only one may hold. Default: there is no such thing.
    fn released(&self, entity: &Entity) -> Option<Entity> {
        let _ = entity;
        None
    }
}

/// The laws, in the order in which [`check`] looks.
pub const LAWS: [Law; 11] = [
    Law::Total,
    Law::Deterministic,
    Law::ClockFree,
    Law::OrderFree,
    Law::OwnsItsWrites,
    Law::Establishes,
    Law::Idempotent,
    Law::Incremental,
    Law::ReadsWhatItNames,
    Law::GroupOnly,
    Law::NoRevival,
];

/// Checks every law on these entities.
///
/// # Errors
/// The first law that does not hold.
pub fn check(rule: &impl Rule, entities: &[Entity]) -> Result<(), Broken> {
    LAWS.into_iter().try_for_each(|law| holds(law, rule, entities))
}

/// Checks one law of [`LAWS`] on these entities; the others hold of anything.
///
/// # Errors
/// That it does not hold, or that the rule panics.
pub fn holds(law: Law, rule: &impl Rule, entities: &[Entity]) -> Result<(), Broken> {
    let case = Case { law, rule, entities, overlays: evaluate(rule, entities)? };
    match law {
        Law::Total => {
            let deep = case.overlays.0.values().find(|value| !value.depth_ok());
            deep.map_or(Ok(()), |deep| case.broken("a value nested deeper than is stored", deep))
        }
        Law::Deterministic => case.elsewhere(Surroundings::THERE, "on another machine"),
        Law::ClockFree => case.elsewhere(Surroundings::LATER, "a year later"),
        Law::OrderFree => orders(entities).iter().try_for_each(|order| {
            let ids: Vec<_> = order.iter().map(|e| e.id.as_str()).collect();
            case.same(&evaluate(rule, order)?, &format!("with the entities in the order {}", ids.join(", ")))
        }),
        Law::OwnsItsWrites => case.owns_its_writes(),
        Law::Establishes => match rule.satisfied(entities, &case.overlays.over(entities)) {
            Ok(()) => Ok(()),
            Err(why) => case.broken("what shows does not satisfy the rule", &why),
        },
        Law::Idempotent => {
            let shown = case.overlays.over(entities);
            let again = evaluate(rule, &shown)?.over(&shown);
            if again == shown {
                Ok(())
            } else {
                case.broken("if registers held what shows, this would show", &again)
            }
        }
        Law::Incremental => case.incremental(),
        Law::ReadsWhatItNames => case.reads_what_it_names(),
        Law::GroupOnly => case.group_only(),
        Law::NoRevival => case.no_revival(),
        _ => Ok(()),
    }
}

/// One rule on one input.
struct Case<'c, R> {
    law: Law,
    rule: &'c R,
    entities: &'c [Entity],
    overlays: Overlays,
}

impl<R: Rule> Case<'_, R> {
    fn broken<T>(&self, how: &str, other: &dyn std::fmt::Debug) -> Result<T, Broken> {
        let outcomes: [(&str, &dyn std::fmt::Debug); 2] = [("the rule", &self.overlays), (how, other)];
        Err(Broken::new(self.law, &[("entities", &self.entities)], &outcomes))
    }

    fn same(&self, other: &Overlays, how: &str) -> Result<(), Broken> {
        if *other == self.overlays { Ok(()) } else { self.broken(how, other) }
    }

    fn elsewhere(&self, there: Surroundings, how: &str) -> Result<(), Broken> {
        self.same(&there.around(|| evaluate(self.rule, self.entities))?, how)
    }

    fn owns_its_writes(&self) -> Result<(), Broken> {
        let owned = self.rule.owns();
        for (id, field) in self.overlays.0.keys() {
            if !owned.contains(&field.as_str()) {
                return self.broken("a field that the rule does not own is shown otherwise", field);
            }
            if !self.entities.iter().any(|e| e.id == *id) {
                return self.broken("an entity that is not there is shown otherwise", id);
            }
        }
        Ok(())
    }

    /// Entities come one by one, in several orders; then each changes from what it was without its newest write.
    fn incremental(&self) -> Result<(), Broken> {
        for order in orders(self.entities) {
            let mut overlays = Overlays::default();
            let mut held: Vec<Entity> = Vec::new();
            for entity in &order {
                held.push(entity.clone());
                overlays = self.update(&overlays, &held, &entity.id)?;
            }
            let ids: Vec<_> = order.iter().map(|e| e.id.as_str()).collect();
            self.same(&overlays, &format!("step by step, as {} come", ids.join(", ")))?;
        }
        for (at, entity) in self.entities.iter().enumerate() {
            let Some(newest) =
                entity.fields.iter().max_by_key(|(_, f)| f.stamp).map(|(name, _)| name.clone())
            else {
                continue;
            };
            let mut before = self.entities.to_vec();
            if let Some(entity) = before.get_mut(at) {
                entity.fields.remove(&newest);
            }
            let step = self.update(&evaluate(self.rule, &before)?, self.entities, &entity.id)?;
            self.same(&step, &format!("step by step, {} having come to {} last", newest, entity.id))?;
        }
        Ok(())
    }

    fn update(&self, before: &Overlays, entities: &[Entity], changed: &str) -> Result<Overlays, Broken> {
        caught(|| self.rule.update(before, entities, changed))
            .map_err(|text| panicked(entities, "update", &text))
    }

    /// Each entity in turn gets a newest write in a field that the rule does not name.
    fn reads_what_it_names(&self) -> Result<(), Broken> {
        let named: BTreeSet<_> = self.rule.owns().into_iter().chain(self.rule.reads()).collect();
        let others = self.entities.iter().flat_map(|e| e.fields.keys()).map(String::as_str);
        let Some(other) = others.chain(["another field"]).find(|field| !named.contains(field)) else {
            return Ok(());
        };
        let newest =
            self.entities.iter().flat_map(|e| e.fields.values()).map(|f| f.stamp).max().unwrap_or_default();
        let stamp = Stamp { time: newest.time + 1, ..newest };
        for (at, entity) in self.entities.iter().enumerate() {
            let mut edited = self.entities.to_vec();
            if let Some(edited) = edited.get_mut(at) {
                edited.fields.insert(other.to_owned(), Field { stamp, value: "another value".into() });
            }
            let how = format!("after an edit of `{other}` of {}", entity.id);
            self.same(&evaluate(self.rule, &edited)?, &how)?;
        }
        Ok(())
    }

    /// For each entity, those that share a group with it are all that counts.
    fn group_only(&self) -> Result<(), Broken> {
        for entity in self.entities {
            let Some(groups) = self.rule.groups(entity) else { return Ok(()) };
            let shares = |e: &&Entity| {
                e.id == entity.id || self.rule.groups(e).is_some_and(|g| !g.is_disjoint(&groups))
            };
            let near: Vec<_> = self.entities.iter().filter(shares).cloned().collect();
            let alone = evaluate(self.rule, &near)?;
            if alone.of(&entity.id) != self.overlays.of(&entity.id) {
                return self.broken(&format!("without those of other groups than {}'s", entity.id), &alone);
            }
        }
        Ok(())
    }

    fn no_revival(&self) -> Result<(), Broken> {
        let shown = self.overlays.over(self.entities);
        for (below, above) in self.entities.iter().zip(&shown) {
            if below.deleted && !above.deleted {
                return self.broken("a deleted entity shows", &below.id);
            }
        }
        let active = self.active(&shown);
        for (at, entity) in self.entities.iter().enumerate().filter(|(_, e)| active.contains(&e.id)) {
            let deleted = Entity { deleted: true, ..entity.clone() };
            let gone = [("deleted", Some(deleted)), ("released", self.rule.released(entity))];
            for (how, entity) in gone.into_iter().filter_map(|(how, e)| Some((how, e?))) {
                let mut after = self.entities.to_vec();
                if let Some(slot) = after.get_mut(at) {
                    *slot = entity.clone();
                }
                let later = evaluate(self.rule, &after)?;
                if let Some(revived) = self.active(&later.over(&after)).difference(&active).next() {
                    return self.broken(&format!("{} is {how}, and {revived} is back", entity.id), &later);
                }
            }
        }
        Ok(())
    }

    fn active(&self, shown: &[Entity]) -> BTreeSet<String> {
        shown.iter().filter(|e| !e.deleted && self.rule.active(e)).map(|e| e.id.clone()).collect()
    }
}

fn evaluate(rule: &impl Rule, entities: &[Entity]) -> Result<Overlays, Broken> {
    caught(|| rule.evaluate(entities)).map_err(|text| panicked(entities, "evaluate", &text))
}

fn panicked(entities: &[Entity], how: &str, text: &str) -> Broken {
    Broken::new(Law::Total, &[("entities", &entities)], &[(how, &text)])
}
