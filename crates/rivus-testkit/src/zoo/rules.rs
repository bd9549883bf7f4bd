//! Rules that do not hold, or not everywhere, or not for long.

use std::cell::Cell;
use std::collections::BTreeSet;

use rivus_core::clock::Stamp;
use rivus_core::id::ReplicaId;
use rivus_core::value::Value;

use super::sound_rules::exhibit;
use super::{AtMostOne, Bound, Exhibit, Nullify, Unique, first, float, in_map_order, text};
use crate::law::Surroundings;
use crate::law::rule::{Entity, LIFE, Overlays, Rule, check};
use crate::strategy::entities;

const RUNNING: AtMostOne = AtMostOne::RUNNING;
const NAMES: Unique = Unique { group: "user", field: "name" };

/// A rule that differs from a sound one in what it shows.
struct Instead<R, F> {
    sound: R,
    evaluate: F,
}

impl<R: Rule, F: Fn(&[Entity]) -> Overlays> Rule for Instead<R, F> {
    fn owns(&self) -> Vec<&str> {
        self.sound.owns()
    }
    fn reads(&self) -> Vec<&str> {
        self.sound.reads()
    }
    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        (self.evaluate)(entities)
    }
    fn satisfied(&self, registers: &[Entity], shown: &[Entity]) -> Result<(), String> {
        self.sound.satisfied(registers, shown)
    }
    fn groups(&self, entity: &Entity) -> Option<BTreeSet<Value>> {
        self.sound.groups(entity)
    }
    fn active(&self, shown: &Entity) -> bool {
        self.sound.active(shown)
    }
    fn released(&self, entity: &Entity) -> Option<Entity> {
        self.sound.released(entity)
    }
}

/// A sound rule that follows changes in another way than it starts over.
struct Following<R, F> {
    sound: R,
    update: F,
}

impl<R: Rule, F: Fn(&R, &Overlays, &[Entity], &str) -> Overlays> Rule for Following<R, F> {
    fn owns(&self) -> Vec<&str> {
        self.sound.owns()
    }
    fn reads(&self) -> Vec<&str> {
        self.sound.reads()
    }
    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        self.sound.evaluate(entities)
    }
    fn update(&self, before: &Overlays, entities: &[Entity], changed: &str) -> Overlays {
        (self.update)(&self.sound, before, entities, changed)
    }
    fn satisfied(&self, registers: &[Entity], shown: &[Entity]) -> Result<(), String> {
        self.sound.satisfied(registers, shown)
    }
}

fn stops_now(entities: &[Entity]) -> Overlays {
    let mut overlays = RUNNING.evaluate(entities);
    let now = Surroundings::current().now.0;
    overlays.0.values_mut().for_each(|end| *end = Value::Int(now));
    overlays
}

fn running(entities: &[Entity]) -> impl Iterator<Item = &Entity> {
    entities.iter().filter(|e| RUNNING.active(e))
}

/// Stops all but the last of each user, by some order.
fn all_but_last<K: Ord>(entities: &[Entity], key: impl Fn(&Entity) -> K) -> Overlays {
    let mut overlays = Overlays::default();
    for entity in running(entities) {
        let later = |e: &&Entity| e.value("user") == entity.value("user") && key(e) > key(entity);
        if let Some(later) = running(entities).filter(later).min_by_key(|e| key(e)) {
            overlays.show(&entity.id, "stop", entity.value("start").max(later.value("start")).clone());
        }
    }
    overlays
}

fn claim(entity: &Entity) -> Stamp {
    entity.claims.get(entity.value("user")).copied().unwrap_or_default()
}

fn open_ones_only(entities: &[Entity]) -> Overlays {
    all_but_last(entities, |e| (claim(e), e.id.clone()))
}

/// The entities as if each had claimed its groups when it last changed.
fn claimed_by_change(entities: &[Entity]) -> Vec<Entity> {
    let mut changed = entities.to_vec();
    for entity in &mut changed {
        let newest = entity.fields.values().map(|f| f.stamp).max().unwrap_or_default();
        entity.claims.values_mut().for_each(|claim| *claim = newest);
    }
    changed
}

fn equal_claims_stop_both(entities: &[Entity]) -> Overlays {
    let mut overlays = RUNNING.evaluate(entities);
    for entity in running(entities) {
        let tied = |e: &&Entity| {
            e.id != entity.id && e.value("user") == entity.value("user") && claim(e) == claim(entity)
        };
        if let Some(other) = running(entities).find(tied) {
            overlays.show(&entity.id, "stop", entity.value("start").max(other.value("start")).clone());
        }
    }
    overlays
}

fn stop_of_a_stranger(entities: &[Entity]) -> Overlays {
    let mut overlays = RUNNING.evaluate(entities);
    for ((id, _), end) in &mut overlays.0 {
        let own = entities.iter().find(|e| e.id == *id).map_or(&Value::Null, |e| e.value("start"));
        let starts = entities.iter().map(|e| e.value("start"));
        *end = starts.filter(|start| *start > own).min().unwrap_or(own).clone();
    }
    overlays
}

fn deleted_do_not_count(entities: &[Entity]) -> Overlays {
    let there: Vec<_> = entities.iter().filter(|e| !e.deleted).cloned().collect();
    RUNNING.evaluate(&there)
}

fn tie_by_map_order(entities: &[Entity]) -> Overlays {
    let mut shuffled = in_map_order(entities.to_vec(), |e| e.id.as_bytes().to_vec());
    for (place, entity) in (0..).zip(&mut shuffled) {
        for claim in entity.claims.values_mut() {
            *claim = Stamp { time: claim.time * 8 + place, replica: ReplicaId::default(), ..*claim };
        }
    }
    RUNNING.evaluate(&shuffled)
}

fn truncates_the_winner(entities: &[Entity]) -> Overlays {
    let mut overlays = RUNNING.evaluate(entities);
    for id in overlays.0.keys().map(|(id, _)| id.clone()).collect::<Vec<_>>() {
        overlays.show(&id, "note", "stopped".into());
    }
    overlays
}

/// Compares whoever came with the one that runs, and no one else.
fn pairwise(_: &AtMostOne, before: &Overlays, entities: &[Entity], changed: &str) -> Overlays {
    let mut overlays = before.clone();
    let shown = before.over(entities);
    let Some(newcomer) = running(&shown).find(|e| e.id == changed) else { return overlays };
    let same = |e: &&Entity| e.id != changed && e.value("user") == newcomer.value("user");
    if let Some(other) = running(&shown).find(same) {
        let newer = (claim(newcomer), &newcomer.id) > (claim(other), &other.id);
        let loser = if newer { other } else { newcomer };
        overlays.show(&loser.id, "stop", newcomer.value("start").max(other.value("start")).clone());
    }
    overlays
}

/// Writes what it shows, so that it stays.
fn emits_repairs(rule: &AtMostOne, before: &Overlays, entities: &[Entity], _: &str) -> Overlays {
    let mut repaired = before.clone();
    repaired.0.extend(rule.evaluate(&before.over(entities)).0);
    repaired
}

fn numbered_by_arrival(entities: &[Entity]) -> Overlays {
    let mut overlays = Overlays::default();
    for (at, entity) in entities.iter().enumerate().filter(|(_, e)| !e.deleted) {
        let same = |e: &&Entity| {
            let key = |e: &Entity| (e.value("user").clone(), e.value("name").clone());
            !e.deleted && key(e) == key(entity)
        };
        let before = entities.iter().take(at).filter(same).count();
        let named = *entity.value("user") != Value::Null && *entity.value("name") != Value::Null;
        if before > 0 && named {
            let name = format!("{} ({})", text(entity.value("name")), before + 1);
            overlays.show(&entity.id, "name", name.into());
        }
    }
    overlays
}

fn all_losers_alike(entities: &[Entity]) -> Overlays {
    let mut overlays = NAMES.evaluate(entities);
    for ((id, _), shown) in &mut overlays.0 {
        let name = entities.iter().find(|e| e.id == *id).map_or("", |e| text(e.value("name")));
        *shown = format!("{name} (copy)").into();
    }
    overlays
}

fn marked_again(entities: &[Entity]) -> Overlays {
    let mut overlays = NAMES.evaluate(entities);
    let loses = |e: &&Entity| e.claims.len() > 1 && !e.deleted && *e.value("user") != Value::Null;
    for entity in entities.iter().filter(loses) {
        let own = format!("{} from {}", text(entity.value("name")), entity.id);
        overlays.show(&entity.id, "name", own.into());
    }
    overlays
}

fn one_level_deep(entities: &[Entity]) -> Overlays {
    let orphans = Nullify { field: "parent" }.evaluate(entities);
    let mut overlays = Overlays::default();
    for (id, _) in orphans.0.keys() {
        if entities.iter().any(|e| e.id == *id && !e.deleted) {
            overlays.show(id, LIFE, Value::Bool(false));
        }
    }
    overlays
}

fn children_follow(entities: &[Entity]) -> Overlays {
    let mut overlays = super::Cascade { field: "parent" }.evaluate(entities);
    let shown = overlays.over(entities);
    for child in entities.iter().filter(|e| e.deleted) {
        if shown.iter().any(|e| !e.deleted && *child.value("parent") == Value::from(e.id.as_str())) {
            overlays.show(&child.id, LIFE, Value::Bool(true));
        }
    }
    overlays
}

#[expect(clippy::expect_used, reason = "that it panics is the mistake")]
fn parent_expected(entities: &[Entity]) -> Overlays {
    let mut overlays = Overlays::default();
    for entity in entities {
        if let Value::Text(parent) = entity.value("parent") {
            let parent = entities.iter().find(|e| e.id == *parent).expect("the parent is there");
            if parent.deleted {
                overlays.show(&entity.id, "parent", Value::Null);
            }
        }
    }
    overlays
}

fn clamped_as_floats(entities: &[Entity]) -> Overlays {
    let mut overlays = Overlays::default();
    for entity in entities {
        let amount = float(entity.value("amount"));
        if amount < 0.0 {
            overlays.show(&entity.id, "amount", Value::Int(0));
        } else if amount > 100.0 {
            overlays.show(&entity.id, "amount", Value::Int(100));
        }
    }
    overlays
}

/// Remembers what it stopped, in memory.
struct Memory {
    calls: Cell<i64>,
}

impl Rule for Memory {
    fn owns(&self) -> Vec<&str> {
        RUNNING.owns()
    }
    fn reads(&self) -> Vec<&str> {
        RUNNING.reads()
    }
    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        let mut overlays = RUNNING.evaluate(entities);
        self.calls.set(self.calls.get() + 1);
        overlays.0.values_mut().for_each(|end| *end = Value::Int(self.calls.get()));
        overlays
    }
    fn satisfied(&self, registers: &[Entity], shown: &[Entity]) -> Result<(), String> {
        RUNNING.satisfied(registers, shown)
    }
}

pub(super) fn exhibits() -> Vec<Exhibit> {
    let mut all = one_timer();
    all.extend(others());
    all
}

/// At most one time entry runs; or two, or none.
fn one_timer() -> Vec<Exhibit> {
    vec![
        exhibit!(
            "stops now",
            Instead { sound: RUNNING, evaluate: stops_now },
            "the loser's end is the clock of whoever looks",
            "Toggl's desktop and mobile clients"
        ),
        exhibit!(
            "rivals in pairs",
            Following { sound: RUNNING, update: pairwise },
            "each newcomer is compared with the one that runs: three entries in six orders, six outcomes",
            "Toggl's rivals resolver"
        ),
        exhibit!(
            "emitted repairs",
            Following { sound: RUNNING, update: emits_repairs },
            "the rule writes what it computed from half of the news, and the write outlives the other half",
            "sync hooks and database triggers that fix up"
        ),
        exhibit!(
            "last change wins",
            Instead { sound: RUNNING, evaluate: |e: &[Entity]| RUNNING.evaluate(&claimed_by_change(e)) },
            "rivals are ordered by their last change, so renaming an old entry stops the running one",
            "Toggl's rivals resolver"
        ),
        exhibit!(
            "equal stamps stop both",
            Instead { sound: RUNNING, evaluate: equal_claims_stop_both },
            "two rivals of one time stop each other, and nothing runs",
            "comparisons with `>=` and no id"
        ),
        exhibit!(
            "end of a stranger",
            Instead { sound: RUNNING, evaluate: stop_of_a_stranger },
            "the loser ends where the next entry of anybody begins",
            "a query that lacks its `WHERE user_id = …`"
        ),
        exhibit!(
            "only open ones compete",
            Instead { sound: RUNNING, evaluate: open_ones_only },
            "who has stopped does not count, so stopping the winner starts the loser again",
            "`… WHERE stop IS NULL ORDER BY start DESC LIMIT 1`"
        ),
        exhibit!(
            "deleted ones do not compete",
            Instead { sound: RUNNING, evaluate: deleted_do_not_count },
            "deleting the winner starts the loser again",
            "`… WHERE NOT deleted`"
        ),
        exhibit!(
            "tie-break by map order",
            Instead { sound: RUNNING, evaluate: tie_by_map_order },
            "rivals of one time are taken as a hash map has them",
            "`groupBy` and `maxBy`"
        ),
        exhibit!(
            "writes elsewhere",
            Instead { sound: RUNNING, evaluate: truncates_the_winner },
            "also sets a field that it does not own, where another rule or the user writes",
            "triggers"
        ),
        exhibit!(
            "counts its calls",
            Memory { calls: Cell::new(0) },
            "keeps something from one evaluation to the next",
            "memoized selectors, id generators"
        ),
    ]
}

fn others() -> Vec<Exhibit> {
    vec![
        exhibit!(
            "name by last change",
            Instead { sound: NAMES, evaluate: |e: &[Entity]| NAMES.evaluate(&claimed_by_change(e)) },
            "the name moves whenever somebody edits anything else",
            "`ORDER BY updated_at`"
        ),
        exhibit!(
            "numbered by arrival",
            Instead { sound: NAMES, evaluate: numbered_by_arrival },
            "the second to arrive becomes `name (2)`, and each replica has another second",
            "file sync: `report (2).txt`"
        ),
        exhibit!(
            "all losers alike",
            Instead { sound: NAMES, evaluate: all_losers_alike },
            "two losers get the same new name",
            "`name (copy)`"
        ),
        exhibit!(
            "marked again",
            Instead { sound: NAMES, evaluate: marked_again },
            "marks what is marked already",
            "`Re: Re: Fwd: Re:`"
        ),
        exhibit!(
            "one level deep",
            Instead { sound: super::Cascade { field: "parent" }, evaluate: one_level_deep },
            "the children go, their children stay",
            "cascades written by hand"
        ),
        exhibit!(
            "children follow",
            Instead { sound: super::Cascade { field: "parent" }, evaluate: children_follow },
            "what was deleted by itself comes back with its parent",
            "restoring a folder from the bin"
        ),
        exhibit!(
            "parent expected",
            Instead { sound: Nullify { field: "parent" }, evaluate: parent_expected },
            "panics while the parent has not arrived yet",
            "foreign keys, `find(…).unwrap()`"
        ),
        exhibit!(
            "clamped as floats",
            Instead {
                sound: Bound { field: "amount", least: 0, greatest: 100 },
                evaluate: clamped_as_floats,
            },
            "NaN is neither below nor above, and stays",
            "`if x < min … else if x > max …`"
        ),
    ]
}
