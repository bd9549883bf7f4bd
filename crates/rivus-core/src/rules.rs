//! Rules: what shows in place of what registers hold, so that every view satisfies the schema.
//!
//! A rule is a pure function of merged registers, evaluated whenever a view is read. It writes nothing, so there is
//! nothing to repair, to lose or to arrive late: two replicas with equal registers show the same, and every view in
//! between satisfies the rules too. Rules are evaluated in an order in which each reads only what earlier ones show
//! (strata), so that evaluation ends and what an earlier rule keeps is kept after the later ones.
//!
//! Who else is in a group is read from an index: records beside the rows, written in the commit that changes these.
//! From it a rule reads the neighbours of an entity, never the whole past of its group. What an overlay depends on is
//! in the index entirely; nothing that was computed is stored.

mod facts;
mod index;
mod local;
mod reference;
mod rivals;
mod settle;
mod unique;

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_128;

use crate::address;
use crate::clock::Stamp;
use crate::row::Row;
use crate::schema::{FieldType, Kind, Life, Resolver, RuleType, Slot, Spot};
use crate::value::{ABSENT, Value};
use crate::view;

pub(crate) use facts::{Facts, Laid};
pub(crate) use index::{COVER_KEY, Changes, Cover};
pub use rivals::{Rival, settle};
pub(crate) use settle::Dirt;

/// A rule of the application's own: a pure function over the entities of a group.
///
/// Every replica has to show the same of the same registers: no clock, no locale, no randomness, no order but that of
/// the entities. The test kit has the laws that it must obey. It is evaluated whenever an entity of its group is read,
/// on the whole group, so groups should be small.
pub trait CustomRule: Send + Sync {
    /// The fields whose values rivals share; an entity with a null among them is in no group. None: all entities of
    /// the kind are rivals.
    fn group(&self) -> Vec<&str>;

    /// The fields that sway it, beside those of the group and its own.
    fn reads(&self) -> Vec<&str>;

    /// The fields that it may show otherwise. It sees what their registers hold.
    fn owns(&self) -> Vec<&str>;

    /// Whether the entity takes a place in the group: an edit with which it begins to, or to in another group, writes
    /// down when that was ([`Entity::claim`]). The default: there is no such place.
    fn holds(&self, entity: &Entity) -> bool {
        let _ = entity;
        false
    }

    /// What shows otherwise, given all entities of a group, deleted ones among them, in byte order of their ids.
    /// Overlays of other fields than [`CustomRule::owns`] do not count.
    fn evaluate(&self, entities: &[Entity]) -> Overlays;
}

/// One entity as a rule sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entity {
    /// Its id.
    pub id: String,
    /// Whether it shows as deleted.
    pub deleted: bool,
    /// What the rule reads: absent ones are missing.
    pub fields: BTreeMap<String, Field>,
    /// When it last took its place in the group that it is in now.
    pub claim: Option<Stamp>,
}

/// One field as a rule sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Of the newest write of its register.
    pub stamp: Stamp,
    /// What it holds, or shows by an earlier rule.
    pub value: Value,
}

impl Entity {
    /// What a field holds; absent and null are the same to a rule.
    #[must_use]
    pub fn value(&self, field: &str) -> &Value {
        self.fields.get(field).map_or(&Value::Null, |f| &f.value)
    }
}

/// What a custom rule shows in place of what registers hold, by entity and field.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overlays(pub BTreeMap<(String, String), Value>);

impl Overlays {
    /// Shows `value` as `field` of the entity `id`.
    pub fn show(&mut self, id: impl Into<String>, field: impl Into<String>, value: Value) {
        self.0.insert((id.into(), field.into()), value);
    }
}

/// One value that a rule shows in place of a register's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Overlay {
    /// The entity's kind.
    pub kind: String,
    /// The entity's id.
    pub id: String,
    /// The field; `None` if it is whether the entity shows at all.
    pub field: Option<String>,
    /// The rule; where several have to do with the field, the last of them.
    pub rule: String,
    /// The entity on account of which that rule does, if it is another one.
    pub rival: Option<String>,
    /// What shows; for life `false` for an entity that shows as deleted.
    pub shown: Value,
    /// What the registers hold.
    pub hidden: Value,
}

/// The rules of a schema, as they are evaluated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// In order: each reads only what those before it show.
    strata: Vec<Stratum>,
    kinds: BTreeMap<String, Watch>,
    /// Of everything on which the index depends.
    fingerprint: u128,
}

/// One rule, with its fields as positions in its kind's [`Watch`].
#[derive(Clone, Debug)]
struct Stratum {
    kind: String,
    name: String,
    group: Vec<usize>,
    what: What,
    /// Whether a later rule reads what this one shows.
    is_read: bool,
}

#[derive(Clone, Debug)]
enum What {
    AtMostOne { open: usize, order: usize, time: crate::schema::OrderTime },
    Unique { field: usize, on_clash: crate::schema::OnClash },
    Reference { field: usize, to: String, on_gone: crate::schema::OnGone },
    Bound { field: usize, min: Option<Value>, max: Option<Value> },
    Expr { field: usize, side: crate::schema::Side, other: usize },
    Custom(crate::schema::Custom),
}

/// What rules read of a kind, and which.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    life: Life,
    /// Whether entities of it may stand for each other.
    aliases: bool,
    fields: Vec<Watched>,
    /// Those declared for the kind, in order.
    own: Vec<usize>,
    /// Those that may show an entity of it otherwise, in order.
    lay: Vec<usize>,
    /// Whether one of them may show one as deleted, or as alive.
    lays_life: bool,
    /// Those that are swayed by whether an entity of it is there, in order.
    targets: Vec<usize>,
}

/// How keys in the index depend on a field.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Key {
    No,
    /// An entity that has a value there has none; which value it is does not matter.
    WhileNull,
    Yes,
}

#[derive(Clone, Debug)]
struct Watched {
    name: String,
    address: Vec<u8>,
    /// The type, if it is not a member of a group.
    ty: Option<FieldType>,
    /// How keys in the index depend on it.
    key: Key,
    /// Where it was held under its former name.
    was: Option<Vec<u8>>,
    /// What shows where nothing is held.
    default: Option<Value>,
}

impl Rules {
    pub(crate) fn new(kinds: &[Kind], order: &[(usize, usize)]) -> Self {
        let mut rules = Self::default();
        if order.is_empty() {
            return rules;
        }
        let chosen = order.iter().filter_map(|(kind, rule)| {
            let kind = kinds.get(*kind)?;
            Some((kind, kind.rules().nth(*rule)?))
        });
        let chosen: Vec<_> = chosen.collect();
        for (kind, rule) in &chosen {
            let watch =
                rules.kinds.entry(kind.name.clone()).or_insert_with(|| Watch::new(kind.life, kind.aliases));
            let keys = rule.keys();
            for field in rule.fields() {
                let key = match &rule.what {
                    _ if !keys.contains(&field) => Key::No,
                    RuleType::AtMostOne(what) if what.open == field && !what.group.contains(&field) => {
                        Key::WhileNull
                    }
                    _ => Key::Yes,
                };
                watch.watch(kind, &field, key);
            }
            if let RuleType::Reference(reference) = &rule.what {
                let to = kinds.iter().find(|k| k.name == reference.to);
                let watch =
                    to.map_or(Watch::new(Life::default(), false), |to| Watch::new(to.life, to.aliases));
                rules.kinds.entry(reference.to.clone()).or_insert(watch);
            }
        }
        for (at, (kind, rule)) in chosen.iter().enumerate() {
            let owns = rule.owns(&kind.name);
            let later = chosen.iter().skip(at + 1);
            let is_read = later
                .clone()
                .any(|(kind, later)| later.reads(&kind.name).iter().any(|read| owns.contains(read)));
            rules.add(at, &kind.name, rule, is_read);
        }
        let mut all = String::new();
        for (kind, rule) in &chosen {
            all.push_str(&format!("{:?} {:?}\n", (&kind.name, kind.life, kind.aliases), rule));
            for field in rule.fields() {
                all.push_str(&format!("{:?}\n", kind.slot(&field)));
            }
        }
        rules.fingerprint = xxh3_128(all.as_bytes());
        rules
    }

    fn add(&mut self, at: usize, kind: &str, rule: &crate::schema::Rule, is_read: bool) {
        let Some(watch) = self.kinds.get_mut(kind) else { return };
        let place = |field: &String| watch.place(field);
        let group = rule.group().unwrap_or_default().iter().map(place).collect();
        let what = match rule.what.clone() {
            RuleType::AtMostOne(rule) => {
                What::AtMostOne { open: place(&rule.open), order: place(&rule.order), time: rule.time }
            }
            RuleType::Unique(rule) => What::Unique { field: place(&rule.field), on_clash: rule.on_clash },
            RuleType::Reference(rule) => {
                What::Reference { field: place(&rule.field), to: rule.to, on_gone: rule.on_gone }
            }
            RuleType::Bound(rule) => What::Bound { field: place(&rule.field), min: rule.min, max: rule.max },
            RuleType::Expr(rule) => {
                What::Expr { field: place(&rule.field), side: rule.side, other: place(&rule.other) }
            }
            RuleType::Custom(rule) => What::Custom(rule),
        };
        watch.own.push(at);
        for (of, spot) in rule.owns(kind) {
            if let Some(watch) = self.kinds.get_mut(of)
                && watch.lay.last() != Some(&at)
            {
                watch.lay.push(at);
                watch.lays_life |= spot == Spot::Life;
            }
        }
        if let What::Reference { to, .. } = &what
            && let Some(watch) = self.kinds.get_mut(to)
        {
            watch.targets.push(at);
        }
        self.strata.push(Stratum { kind: kind.to_owned(), name: rule.name.clone(), group, what, is_read });
    }

    pub(crate) fn fingerprint(&self) -> u128 {
        self.fingerprint
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.strata.is_empty()
    }

    /// What is watched of a kind, if rules have to do with it.
    pub(crate) fn watch(&self, kind: &str) -> Option<&Watch> {
        if self.kinds.is_empty() { None } else { self.kinds.get(kind) }
    }

    /// The kinds of which other entities may decide what shows.
    pub(crate) fn laid_across(&self) -> impl Iterator<Item = &str> {
        let is_across =
            |rule: &usize| !matches!(self.stratum(*rule).what, What::Bound { .. } | What::Expr { .. });
        let kinds = self.kinds.iter().filter(move |(_, watch)| watch.lay.iter().any(is_across));
        kinds.map(|(kind, _)| kind.as_str())
    }

    /// Names and addresses of the fields of a kind in which `at_most_one` shows ends.
    pub(crate) fn ends(&self, kind: &str) -> impl Iterator<Item = (&str, &[u8])> {
        let watch = self.watch(kind);
        let own = watch.into_iter().flat_map(move |watch| watch.own.iter().map(move |rule| (watch, *rule)));
        own.filter_map(|(watch, rule)| match self.stratum(rule).what {
            What::AtMostOne { open, .. } => watch.fields.get(open),
            _ => None,
        })
        .map(|watched| (watched.name.as_str(), watched.address.as_slice()))
    }

    /// Whether there is a rule of this name for a kind.
    pub(crate) fn has(&self, kind: &str, rule: &str) -> bool {
        self.strata.iter().any(|stratum| stratum.kind == kind && stratum.name == rule)
    }

    fn stratum(&self, at: usize) -> &Stratum {
        #[expect(clippy::expect_used, reason = "positions are made with the strata, which never change")]
        self.strata.get(at).expect("a rule's position is valid")
    }
}

impl Watch {
    fn new(life: Life, aliases: bool) -> Self {
        Self {
            life,
            aliases,
            fields: Vec::new(),
            own: Vec::new(),
            lay: Vec::new(),
            lays_life: false,
            targets: Vec::new(),
        }
    }

    fn watch(&mut self, kind: &Kind, field: &str, key: Key) {
        if let Some(watched) = self.fields.iter_mut().find(|watched| watched.name == field) {
            watched.key = watched.key.max(key);
            return;
        }
        let (address, ty) = match kind.slot(field) {
            Slot::Field(declared) => (address::field(field), Some(declared.ty.clone())),
            Slot::Member(group) => (address::group(&group.name), None),
            Slot::Open | Slot::Undeclared => (address::field(field), Some(FieldType::PLAIN)),
        };
        let declared = kind.field(field);
        let was = declared.and_then(|declared| declared.was.as_deref()).map(address::field);
        let default = declared.and_then(|declared| declared.default.clone());
        self.fields.push(Watched { name: field.to_owned(), address, ty, key, was, default });
    }

    fn place(&self, field: &str) -> usize {
        self.field(field).unwrap_or(usize::MAX)
    }

    /// Where a field is among those watched.
    pub(crate) fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|watched| watched.name == name)
    }

    /// The name of a field that is watched.
    pub(crate) fn name(&self, at: usize) -> Option<&str> {
        self.fields.get(at).map(|watched| watched.name.as_str())
    }

    /// Whether entities of the kind may stand for each other.
    pub(crate) fn aliases(&self) -> bool {
        self.aliases
    }

    /// Whether a rule may show an entity of the kind otherwise.
    pub(crate) fn lays(&self) -> bool {
        !self.lay.is_empty()
    }

    /// Whether an edit of the kind may have to do more than write a field: rules show it otherwise, or read it.
    pub(crate) fn concerns_edits(&self) -> bool {
        self.lays() || !self.own.is_empty()
    }

    /// Whether rules read the register at this address: it stays if its entity is evicted.
    pub(crate) fn reads(&self, at: &[u8]) -> bool {
        self.fields.iter().any(|watched| watched.address == at || watched.was.as_deref() == Some(at))
    }

    /// What a change at this address may change. `before` and `after` are the rows around it.
    pub(crate) fn dirt(&self, at: &[u8], before: Row<'_>, after: Row<'_>) -> Dirt {
        match at.first() {
            Some(&address::class::LIFE | &address::class::ALIAS) => {
                Dirt { any: true, keys: true, life: true }
            }
            Some(&address::class::CLAIM) => Dirt { any: true, keys: true, life: false },
            Some(&address::class::FIELD | &address::class::GROUP) => {
                let mut dirt = Dirt::default();
                let is_at = |watched: &&Watched| watched.address == at || watched.was.as_deref() == Some(at);
                for watched in self.fields.iter().filter(is_at) {
                    let keys = match watched.key {
                        Key::No => false,
                        Key::WhileNull => !(watched.is_set(at, before) && watched.is_set(at, after)),
                        Key::Yes => true,
                    };
                    dirt = Dirt { any: true, keys: dirt.keys | keys, life: false };
                }
                dirt
            }
            _ => Dirt::default(),
        }
    }
}

impl Watched {
    /// Whether it surely holds a value other than null in this row.
    fn is_set(&self, at: &[u8], row: Row<'_>) -> bool {
        let is_plain = match &self.ty {
            Some(FieldType::Value { resolver, .. }) => !matches!(resolver, Resolver::Custom(_)),
            _ => false,
        };
        if !is_plain || self.address != at {
            return false;
        }
        let held = row.find(at).ok().flatten().and_then(|entry| entry.shown().ok());
        let alone = held.filter(|register| register.alive.len() == 1).map(|register| register.newest().value);
        alone.is_some_and(|value| value != view::NULL && value != ABSENT)
    }
}

/// Milliseconds since 1970 of an NTP64 time, rounded to the nearest.
fn nearest_millis(time: u64) -> i64 {
    let ms = (u128::from(time) * 1000 + (1 << 31)) >> 32;
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// Whether `one` is above `other` by what they mean: 1 and 1.0 are equal here, and what is of another type is neither
/// above nor below.
fn is_above(one: &Value, other: &Value) -> bool {
    let is_number = |v: &Value| matches!(v, Value::Int(_) | Value::Float(_));
    if is_number(one) && is_number(other) {
        return match (one, other) {
            // Floats are ordered after integers of equal value: what lies between the two is equal to both.
            (Value::Float(float), Value::Int(_)) if is_integral(*float, other) => false,
            (Value::Int(_), Value::Float(float)) if is_integral(*float, one) => false,
            _ => one > other,
        };
    }
    std::mem::discriminant(one) == std::mem::discriminant(other) && one > other
}

/// Whether the float is the integer's value exactly.
fn is_integral(float: f64, int: &Value) -> bool {
    let Value::Int(int) = int else { return false };
    // What an i64 turns into and back without loss is equal to it.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "compared after going back"
    )]
    let (near, back) = (*int as f64, float as i64);
    near == float && back == *int
}

#[cfg(test)]
mod tests;
