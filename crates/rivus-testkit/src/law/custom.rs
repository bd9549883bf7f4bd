//! The laws of a rule of your own: a [`CustomRule`], as the engine asks it.
//!
//! Owns the checks of rules that are written against the engine's trait. They are those of [`rule`], with two that
//! only the real thing can break: each rule is evaluated a second time in another thread, where hash maps have other
//! seeds, and once more when the clock of the machine has moved on.
//!
//! The engine hands over the entities of one group in byte order of their ids. A rule may lean on that; then say so
//! by testing it through [`by_id`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use rivus_core::rules::{self, CustomRule};
use rivus_core::value::Value;

use super::rule::{self, Entity, Field, Overlays, Rule};
use super::{Broken, Law, Surroundings, caught};

/// Whether who lost may show again as a holder once the winner is deleted or lets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Losers {
    /// As with names: the next in line gets it.
    #[default]
    MayReturn,
    /// As with timers: who was stopped stays stopped.
    StayOut,
}

/// The laws, in the order in which [`check`] looks. The engine sees to it that other groups do not sway a rule.
pub const LAWS: [Law; 10] = [
    Law::Total,
    Law::Deterministic,
    Law::ClockFree,
    Law::OrderFree,
    Law::OwnsItsWrites,
    Law::Establishes,
    Law::Idempotent,
    Law::Incremental,
    Law::ReadsWhatItNames,
    Law::NoRevival,
];

/// A rule and what it promises.
#[derive(Clone, Debug)]
pub struct Promise<R, P> {
    /// The rule.
    pub rule: R,
    /// What holds of the entities of a group as they show, or in words what does not.
    pub holds: P,
    /// What becomes of losers.
    pub losers: Losers,
}

/// Checks every law on these entities.
///
/// # Errors
/// The first law that does not hold.
pub fn check<R, P>(promise: &Promise<R, P>, entities: &[Entity]) -> Result<(), Broken>
where
    R: CustomRule,
    P: Fn(&[rules::Entity]) -> Result<(), String>,
{
    LAWS.into_iter().try_for_each(|law| holds(law, promise, entities))
}

/// Checks one law of [`LAWS`] on these entities; the others hold of anything.
///
/// # Errors
/// That it does not hold, or that the rule panics.
pub fn holds<R, P>(law: Law, promise: &Promise<R, P>, entities: &[Entity]) -> Result<(), Broken>
where
    R: CustomRule,
    P: Fn(&[rules::Entity]) -> Result<(), String>,
{
    if !LAWS.contains(&law) {
        return Ok(());
    }
    rule::holds(law, promise, entities)?;
    let (how, there) = match law {
        Law::Deterministic => ("in another thread, with other hash seeds", Surroundings::THERE),
        Law::ClockFree => {
            await_the_clock();
            ("a moment later, by the clock of this machine", Surroundings::LATER)
        }
        _ => return Ok(()),
    };
    let rule = &promise.rule;
    let here = evaluate(rule, entities);
    let elsewhere = std::thread::scope(|scope| {
        let elsewhere = scope.spawn(|| caught(|| there.around(|| evaluate(rule, entities))));
        elsewhere.join().unwrap_or_else(|_| Err("panic".to_owned()))
    });
    if elsewhere.as_ref() == Ok(&here) {
        return Ok(());
    }
    Err(Broken::new(law, &[("entities", &entities)], &[("the rule", &here), (how, &elsewhere)]))
}

/// Until the clock of the machine shows another millisecond: who reads it, reads something else then.
fn await_the_clock() {
    let reading = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_millis());
    let before = reading();
    while reading() == before {
        std::thread::yield_now();
    }
}

impl<R, P> Rule for Promise<R, P>
where
    R: CustomRule,
    P: Fn(&[rules::Entity]) -> Result<(), String>,
{
    fn owns(&self) -> Vec<&str> {
        self.rule.owns()
    }

    fn reads(&self) -> Vec<&str> {
        self.rule.group().into_iter().chain(self.rule.reads()).collect()
    }

    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        evaluate(&self.rule, entities)
    }

    fn satisfied(&self, _: &[Entity], shown: &[Entity]) -> Result<(), String> {
        groups(&self.rule, shown).values().try_for_each(|group| (self.holds)(group))
    }

    fn groups(&self, entity: &Entity) -> Option<BTreeSet<Value>> {
        Some(group(&self.rule, entity).into_iter().collect())
    }

    /// One that came without a claim may let go for good.
    fn active(&self, shown: &Entity) -> bool {
        let Some(group) = group(&self.rule, shown).filter(|_| self.losers == Losers::StayOut) else {
            return false;
        };
        let seen = seen(shown, &group);
        seen.claim.is_some() && self.rule.holds(&seen)
    }

    /// Its own fields are emptied.
    fn released(&self, entity: &Entity) -> Option<Entity> {
        let newest = entity.fields.values().map(|field| field.stamp).max().unwrap_or_default();
        let stamp = rivus_core::clock::Stamp { time: newest.time + 1, ..newest };
        let mut released = entity.clone();
        for field in self.rule.owns() {
            released.fields.insert(field.to_owned(), Field { stamp, value: Value::Null });
        }
        (!self.active(&released)).then_some(released)
    }
}

fn evaluate(rule: &impl CustomRule, entities: &[Entity]) -> Overlays {
    let mut overlays = Overlays::default();
    for group in groups(rule, entities).values() {
        overlays.0.extend(rule.evaluate(group).0);
    }
    overlays
}

/// The entities by group, each group in the order in which they are given.
fn groups(rule: &impl CustomRule, entities: &[Entity]) -> BTreeMap<Value, Vec<rules::Entity>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for entity in entities {
        if let Some(group) = group(rule, entity) {
            let seen = seen(entity, &group);
            groups.entry(group).or_default().push(seen);
        }
    }
    groups
}

/// The values that rivals share, one as it is, several as a list; `None` if one is null.
fn group(rule: &impl CustomRule, entity: &Entity) -> Option<Value> {
    let values: Vec<_> = rule.group().into_iter().map(|field| entity.value(field).clone()).collect();
    match <[Value; 1]>::try_from(values) {
        Ok([Value::Null]) => None,
        Ok([one]) => Some(one),
        Err(values) => (!values.contains(&Value::Null)).then_some(Value::List(values)),
    }
}

fn seen(entity: &Entity, group: &Value) -> rules::Entity {
    let fields = entity
        .fields
        .iter()
        .map(|(name, field)| (name.clone(), rules::Field { stamp: field.stamp, value: field.value.clone() }));
    rules::Entity {
        id: entity.id.clone(),
        deleted: entity.deleted,
        fields: fields.collect(),
        claim: entity.claims.get(group).copied(),
    }
}

/// The rule with its entities in byte order of their ids, as the engine hands them over.
pub fn by_id<R: CustomRule>(rule: R) -> impl CustomRule {
    ById(rule)
}

struct ById<R>(R);

impl<R: CustomRule> CustomRule for ById<R> {
    fn group(&self) -> Vec<&str> {
        self.0.group()
    }

    fn reads(&self) -> Vec<&str> {
        self.0.reads()
    }

    fn owns(&self) -> Vec<&str> {
        self.0.owns()
    }

    fn holds(&self, entity: &rules::Entity) -> bool {
        self.0.holds(entity)
    }

    fn evaluate(&self, entities: &[rules::Entity]) -> rules::Overlays {
        let mut sorted = entities.to_vec();
        sorted.sort_by(|a, b| a.id.cmp(&b.id));
        self.0.evaluate(&sorted)
    }
}
