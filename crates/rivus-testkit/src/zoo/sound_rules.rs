//! Rules that hold on every replica at every moment. They are what `docs/semantics.md` will ask of the engine's own.

use std::collections::{BTreeMap, BTreeSet};

use rivus_core::clock::{Stamp, whole_millis};
use rivus_core::value::{Json, Value};
use xxhash_rust::xxh3::xxh3_128;

use super::{Exhibit, first};
use crate::law::rule::{Entity, Field, LIFE, Overlays, Rule, check};
use crate::strategy::entities;

/// At most one entity of a group is open: of those that claimed the group, in the order of claim and id, only the
/// last can be; the others show the start of their successor as their end.
#[derive(Clone, Copy, Debug)]
pub struct AtMostOne {
    /// The field that names the group; null is in none.
    pub group: &'static str,
    /// The field that is null while the entity is open.
    pub open: &'static str,
    /// The field that says since when.
    pub order: &'static str,
}

impl AtMostOne {
    /// One running time entry for each user.
    pub const RUNNING: Self = Self { group: "user", open: "stop", order: "start" };

    fn is_open(self, entity: &Entity) -> bool {
        *entity.value(self.open) == Value::Null
    }

    /// Everyone who claimed the group, by claim and id.
    pub(super) fn claimants<'e>(entities: &'e [Entity], group: &Value) -> Vec<(Stamp, &'e Entity)> {
        let claim = |e: &'e Entity| Some((*e.claims.get(group)?, e));
        let mut order: Vec<_> = entities.iter().filter_map(claim).collect();
        order.sort_by(|a, b| (a.0, &a.1.id).cmp(&(b.0, &b.1.id)));
        order
    }

    /// Where the end of `entity` shows, given those that claimed its group after it.
    pub(super) fn stopped<'e>(
        self,
        entity: &Entity,
        mut after: impl Iterator<Item = &'e (Stamp, &'e Entity)>,
    ) -> Option<Value> {
        let own = entity.value(self.order);
        let ended_before = |other: &Entity| {
            let end = other.value(self.open);
            other.value(self.group) == entity.value(self.group) && *end != Value::Null && end <= own
        };
        let (claim, successor) = after.find(|(_, other)| !ended_before(other))?;
        let shown = own.max(successor.value(self.order)).clone();
        if shown != Value::Null {
            return Some(shown);
        }
        i64::try_from(whole_millis(claim.time)).ok().map(Value::Int)
    }
}

impl Rule for AtMostOne {
    fn owns(&self) -> Vec<&str> {
        vec![self.open]
    }

    fn reads(&self) -> Vec<&str> {
        vec![self.group, self.open, self.order]
    }

    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        let mut overlays = Overlays::default();
        for entity in entities.iter().filter(|e| !e.deleted && self.is_open(e)) {
            let order = Self::claimants(entities, entity.value(self.group));
            let after = order.iter().skip_while(|(_, e)| e.id != entity.id).skip(1);
            if let Some(end) = self.stopped(entity, after) {
                overlays.show(&entity.id, self.open, end);
            }
        }
        overlays
    }

    fn satisfied(&self, registers: &[Entity], shown: &[Entity]) -> Result<(), String> {
        let groups: BTreeSet<_> = registers.iter().map(|e| e.value(self.group)).collect();
        for group in groups.into_iter().filter(|group| **group != Value::Null) {
            let running: Vec<_> = shown
                .iter()
                .filter(|e| self.active(e) && e.value(self.group) == group)
                .map(|e| &e.id)
                .collect();
            if running.len() > 1 {
                return Err(format!("{running:?} are open in {group:?}"));
            }
            if let Some((_, last)) = Self::claimants(registers, group).last()
                && last.value(self.group) == group
                && self.active(last)
                && !running.contains(&&last.id)
            {
                return Err(format!("{} claimed {group:?} last, and does not show as open", last.id));
            }
        }
        Ok(())
    }

    fn groups(&self, entity: &Entity) -> Option<BTreeSet<Value>> {
        Some(entity.claims.keys().cloned().collect())
    }

    fn active(&self, shown: &Entity) -> bool {
        !shown.deleted && self.is_open(shown) && *shown.value(self.group) != Value::Null
    }

    fn released(&self, entity: &Entity) -> Option<Entity> {
        let newest = entity.fields.values().map(|f| f.stamp).max().unwrap_or_default();
        let stamp = Stamp { time: newest.time + 1, ..newest };
        let mut released = entity.clone();
        // Later than everything: an entity that ended before another began does not stop it.
        released.fields.insert(self.open.to_owned(), Field { stamp, value: Value::Int(i64::MAX) });
        Some(released)
    }
}

/// One name in one group: of undeleted entities with equal names the earliest claim keeps it, the others show it with
/// `#` and the beginning of a hash of their id.
#[derive(Clone, Copy, Debug)]
pub struct Unique {
    /// The field that names the group; null is in none.
    pub group: &'static str,
    /// The field that is unique; null is no name.
    pub field: &'static str,
}

impl Unique {
    fn key(self, entity: &Entity) -> Option<(&Value, &Value)> {
        let key = (entity.value(self.group), entity.value(self.field));
        (!entity.deleted && *key.0 != Value::Null && *key.1 != Value::Null).then_some(key)
    }

    fn claim(self, entity: &Entity) -> Stamp {
        let named = || entity.fields.get(self.field).map(|f| f.stamp).unwrap_or_default();
        entity.claims.get(entity.value(self.group)).copied().unwrap_or_else(named)
    }

    /// The name with the shortest beginning of the hash that nobody has.
    fn renamed(name: &Value, id: &str, taken: &BTreeSet<Value>) -> Value {
        let name = match name {
            Value::Text(text) => text.clone(),
            other => serde_json::to_string(&Json(other)).unwrap_or_default(),
        };
        let hash = format!("{:032x}", xxh3_128(id.as_bytes()));
        let names =
            (4..=hash.len()).filter_map(|end| Some(Value::Text(format!("{name} #{}", hash.get(..end)?))));
        let mut names = names.skip_while(|name| taken.contains(name));
        names.next().unwrap_or_else(|| Value::Text(format!("{name} #{hash}")))
    }
}

impl Rule for Unique {
    fn owns(&self) -> Vec<&str> {
        vec![self.field]
    }

    fn reads(&self) -> Vec<&str> {
        vec![self.group, self.field]
    }

    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        let mut overlays = Overlays::default();
        let mut groups: BTreeMap<&Value, Vec<(Stamp, &Entity)>> = BTreeMap::new();
        for entity in entities {
            if let Some((group, _)) = self.key(entity) {
                groups.entry(group).or_default().push((self.claim(entity), entity));
            }
        }
        for mut members in groups.into_values() {
            members.sort_by(|a, b| (a.0, &a.1.id).cmp(&(b.0, &b.1.id)));
            let mut taken: BTreeSet<_> = members.iter().map(|(_, e)| e.value(self.field).clone()).collect();
            let mut kept = BTreeSet::new();
            for (_, entity) in members {
                let name = entity.value(self.field);
                if !kept.insert(name) {
                    let shown = Self::renamed(name, &entity.id, &taken);
                    taken.insert(shown.clone());
                    overlays.show(&entity.id, self.field, shown);
                }
            }
        }
        overlays
    }

    fn satisfied(&self, _: &[Entity], shown: &[Entity]) -> Result<(), String> {
        let mut names = BTreeSet::new();
        match shown.iter().filter_map(|e| self.key(e)).find(|key| !names.insert(*key)) {
            Some((group, name)) => Err(format!("{name:?} is there twice in {group:?}")),
            None => Ok(()),
        }
    }

    fn groups(&self, entity: &Entity) -> Option<BTreeSet<Value>> {
        Some(BTreeSet::from([entity.value(self.group).clone()]))
    }
}

/// A number lies within bounds: one outside shows as the bound.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Which field.
    pub field: &'static str,
    /// The least that shows.
    pub least: i64,
    /// The greatest that shows.
    pub greatest: i64,
}

impl Bound {
    fn outside(&self, value: &Value) -> Option<Value> {
        let (least, greatest) = (Value::Int(self.least), Value::Int(self.greatest));
        match value {
            Value::Int(_) | Value::Float(_) if *value < least => Some(least),
            Value::Int(_) | Value::Float(_) if *value > greatest && *value != self.greatest_float() => {
                Some(greatest)
            }
            _ => None,
        }
    }

    /// 100.0 is after 100 in the order of values, and no more than it.
    fn greatest_float(&self) -> Value {
        #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
        Value::Float(self.greatest as f64)
    }
}

impl Rule for Bound {
    fn owns(&self) -> Vec<&str> {
        vec![self.field]
    }

    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        let mut overlays = Overlays::default();
        for entity in entities {
            if let Some(bound) = self.outside(entity.value(self.field)) {
                overlays.show(&entity.id, self.field, bound);
            }
        }
        overlays
    }

    fn satisfied(&self, _: &[Entity], shown: &[Entity]) -> Result<(), String> {
        let outside = shown.iter().find(|e| self.outside(e.value(self.field)).is_some());
        outside.map_or(Ok(()), |e| Err(format!("{} shows {:?}", e.id, e.value(self.field))))
    }

    fn groups(&self, entity: &Entity) -> Option<BTreeSet<Value>> {
        Some(BTreeSet::from([entity.id.as_str().into()]))
    }
}

/// Whether the field names an entity that is there.
fn dangling<'e>(entities: &'e [Entity], field: &str, gone: &BTreeSet<&str>) -> Vec<&'e Entity> {
    let there: BTreeSet<_> = entities.iter().map(|e| e.id.as_str()).filter(|id| !gone.contains(id)).collect();
    let dangles = |e: &&Entity| match e.value(field) {
        Value::Null => false,
        Value::Text(target) => !there.contains(target.as_str()),
        _ => true,
    };
    entities.iter().filter(dangles).collect()
}

fn deleted(entities: &[Entity]) -> BTreeSet<&str> {
    entities.iter().filter(|e| e.deleted).map(|e| e.id.as_str()).collect()
}

/// A reference to an entity that is deleted or absent shows as null.
#[derive(Clone, Copy, Debug)]
pub struct Nullify {
    /// The field that names the other entity.
    pub field: &'static str,
}

impl Rule for Nullify {
    fn owns(&self) -> Vec<&str> {
        vec![self.field]
    }

    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        let mut overlays = Overlays::default();
        for entity in dangling(entities, self.field, &deleted(entities)) {
            overlays.show(&entity.id, self.field, Value::Null);
        }
        overlays
    }

    fn satisfied(&self, _: &[Entity], shown: &[Entity]) -> Result<(), String> {
        let dangling = dangling(shown, self.field, &deleted(shown));
        dangling.first().map_or(Ok(()), |e| Err(format!("{} refers to what is not there", e.id)))
    }
}

/// An entity whose reference is deleted or absent shows as deleted, and what refers to it too.
#[derive(Clone, Copy, Debug)]
pub struct Cascade {
    /// The field that names the other entity.
    pub field: &'static str,
}

impl Rule for Cascade {
    fn owns(&self) -> Vec<&str> {
        vec![LIFE]
    }

    fn reads(&self) -> Vec<&str> {
        vec![self.field]
    }

    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        let mut gone = deleted(entities);
        let mut overlays = Overlays::default();
        loop {
            let before = gone.len();
            gone.extend(dangling(entities, self.field, &gone).iter().map(|e| e.id.as_str()));
            if gone.len() == before {
                break;
            }
        }
        for entity in entities.iter().filter(|e| !e.deleted && gone.contains(e.id.as_str())) {
            overlays.show(&entity.id, LIFE, Value::Bool(false));
        }
        overlays
    }

    fn satisfied(&self, _: &[Entity], shown: &[Entity]) -> Result<(), String> {
        let dangling = dangling(shown, self.field, &deleted(shown));
        let orphan = dangling.iter().find(|e| !e.deleted);
        orphan.map_or(Ok(()), |e| Err(format!("{} shows without what it refers to", e.id)))
    }
}

/// An end does not lie before its start: it shows as the start.
#[derive(Clone, Copy, Debug)]
pub struct StopAfterStart;

impl StopAfterStart {
    fn wrong(entity: &Entity) -> Option<&Value> {
        let (start, stop) = (entity.value("start"), entity.value("stop"));
        (*start != Value::Null && *stop != Value::Null && stop < start).then_some(start)
    }
}

impl Rule for StopAfterStart {
    fn owns(&self) -> Vec<&str> {
        vec!["stop"]
    }

    fn reads(&self) -> Vec<&str> {
        vec!["start", "stop"]
    }

    fn evaluate(&self, entities: &[Entity]) -> Overlays {
        let mut overlays = Overlays::default();
        for entity in entities {
            if let Some(start) = Self::wrong(entity) {
                overlays.show(&entity.id, "stop", start.clone());
            }
        }
        overlays
    }

    fn satisfied(&self, _: &[Entity], shown: &[Entity]) -> Result<(), String> {
        let wrong = shown.iter().find(|e| Self::wrong(e).is_some());
        wrong.map_or(Ok(()), |e| Err(format!("{} ends before it starts", e.id)))
    }
}

macro_rules! exhibit {
    ($name:literal, $rule:expr, $what:literal, $seen:literal) => {
        Exhibit {
            name: $name,
            what: $what,
            seen: $seen,
            hunt: |effort| first(effort, &entities(), |entities| check(&$rule, entities)),
        }
    };
}
pub(super) use exhibit;

pub(super) fn exhibits() -> Vec<Exhibit> {
    vec![
        exhibit!(
            "at most one",
            AtMostOne::RUNNING,
            "ordered by claim, deleted ones included",
            "time tracking"
        ),
        exhibit!(
            "unique",
            Unique { group: "user", field: "name" },
            "the earliest claim keeps the name",
            "project names"
        ),
        exhibit!(
            "bound",
            Bound { field: "amount", least: 0, greatest: 100 },
            "clamped, NaN too",
            "percentages"
        ),
        exhibit!(
            "reference, nullified",
            Nullify { field: "parent" },
            "computed from what is there",
            "folders"
        ),
        exhibit!(
            "reference, cascading",
            Cascade { field: "parent" },
            "to a fixed point, over cycles too",
            "folders"
        ),
        exhibit!("stop after start", StopAfterStart, "one entity alone", "intervals"),
    ]
}
