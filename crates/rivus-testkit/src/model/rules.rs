//! What rules show, computed from the registers alone: no index, no strata, no memory of what was before.
//!
//! Owns the reference that the engine's rules are compared with, written from `docs/semantics.md`. Every rule is asked
//! about every entity, again and again, until what the others show no longer changes its answer: as rules do not go in
//! circles, that ends in the one answer there is. It takes the square of the time that an index would.

mod rivals;
mod single;
mod writes;

use std::collections::{BTreeMap, BTreeSet};

use rivus_core::address::{Parts, class};
use rivus_core::clock::Stamp;
use rivus_core::register::Register;
use rivus_core::schema::{FieldType, Kind, OnClash, Rule, RuleType, Schema, Slot};
use rivus_core::value::{ABSENT, Value};
use rivus_core::view;

pub(crate) use single::is_above;
pub use writes::{Author, Writes, root, writes};

/// What the registers of an entity hold, as far as rules are concerned.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Registers {
    /// Whether the life register says so.
    pub deleted: bool,
    /// By field: the newest stamp of its register, and what it holds.
    pub fields: BTreeMap<String, (Stamp, Value)>,
    /// By rule and group.
    pub claims: BTreeMap<(String, Vec<Value>), Stamp>,
}

/// The entities that are held, by kind and id.
pub type Entities = BTreeMap<String, BTreeMap<String, Registers>>;

impl Registers {
    /// What a field holds; absent and null are the same.
    #[must_use]
    pub fn value(&self, field: &str) -> &Value {
        self.fields.get(field).map_or(&Value::Null, |(_, value)| value)
    }

    fn stamp(&self, field: &str) -> Stamp {
        self.fields.get(field).map_or(Stamp::LOWEST, |(stamp, _)| *stamp)
    }

    /// Takes in a register; one that no rule reads changes nothing.
    pub fn take(&mut self, kind: &Kind, at: Parts<'_>, register: &Register<'_>) {
        let stamp = register.newest().stamp;
        let decode = |bytes: &[u8]| {
            if bytes == ABSENT { Value::Null } else { Value::decode(bytes).unwrap_or(Value::Null) }
        };
        match at.class {
            class::LIFE => self.deleted = view::is_dead(kind.life, register),
            class::FIELD => {
                let ty = match kind.slot(at.name) {
                    Slot::Field(field) => field.ty.clone(),
                    _ => FieldType::PLAIN,
                };
                let value = view::resolve(&ty, register).map_or(Value::Null, |bytes| decode(&bytes));
                self.fields.insert(at.name.to_owned(), (stamp, value));
            }
            class::GROUP => {
                let members = kind.group(at.name).map(|group| group.members.clone()).unwrap_or_default();
                let Value::Map(mut held) = decode(register.newest().value) else { return };
                for member in members {
                    let value = held.remove(&member).unwrap_or(Value::Null);
                    self.fields.insert(member, (stamp, value));
                }
            }
            class::CLAIM => {
                if let Ok(Value::List(group)) = Value::decode(at.key) {
                    self.claims.insert((at.name.to_owned(), group), stamp);
                }
            }
            _ => {}
        }
    }
}

/// One value that shows in place of what a register holds.
#[derive(Clone, PartialEq, Debug)]
pub struct Overlay {
    /// The rule.
    pub rule: String,
    /// On account of whom.
    pub rival: Option<String>,
    /// What shows; for life `false` for an entity that shows as deleted.
    pub shown: Value,
    /// What is held.
    pub hidden: Value,
}

/// Overlays by kind, id and field; no field means life.
pub type Overlays = BTreeMap<(String, String, Option<String>), Overlay>;

/// A rare situation in which a rule was found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[expect(missing_docs, reason = "each says what it is, and the simulator says it in words")]
pub enum Sight {
    PassedOver,
    ThreeLosers,
    ClaimTie,
    OneEdit,
    LeftBehind,
    StoppedSuccessor,
    DeletedSuccessor,
    Claimless,
    BackDated,
    Renamed,
    LongerPrefix,
    Alias,
    Nullified,
    Cascaded,
    CascadedFurther,
    Kept,
    KeptFurther,
    Clamped,
    Turned,
    Custom,
}

/// What all rules show.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Evaluated {
    /// All overlays, also of the fields of what does not show.
    pub overlays: Overlays,
    /// Situations that came up.
    pub sights: BTreeSet<Sight>,
}

impl Evaluated {
    /// The overlays that are told of: what does not show shows no field otherwise.
    #[must_use]
    pub fn told(&self, entities: &Entities) -> Overlays {
        let shows = |kind: &String, id: &String| {
            let life = self.overlays.get(&(kind.clone(), id.clone(), None));
            let held = entities.get(kind).and_then(|ids| ids.get(id));
            life.map_or(held.is_some_and(|held| !held.deleted), |life| life.shown == Value::Bool(true))
        };
        let told = self.overlays.iter().filter(|((kind, id, field), _)| field.is_none() || shows(kind, id));
        told.map(|(spot, overlay)| (spot.clone(), overlay.clone())).collect()
    }
}

/// What one rule shows, by kind, id and field.
type Layer = BTreeMap<(String, String, Option<String>), Laid>;

#[derive(Clone, PartialEq, Debug)]
struct Laid {
    shown: Value,
    rival: Option<String>,
}

/// What all rules of a schema show of these registers.
#[must_use]
pub fn evaluate(schema: &Schema, entities: &Entities) -> Evaluated {
    let rules: Vec<(&Kind, &Rule)> =
        schema.kinds().flat_map(|kind| kind.rules().map(move |rule| (kind, rule))).collect();
    let mut layers: Vec<Layer> = vec![Layer::new(); rules.len()];
    let mut sights = BTreeSet::new();
    for _ in 0..=rules.len() {
        sights.clear();
        let mut below = Below { entities, rules: &rules, laid: BTreeMap::new() };
        for (at, layer) in layers.iter().enumerate() {
            for ((kind, id, field), laid) in layer {
                below.laid.entry((kind, id, field.as_deref())).or_default().push((at, &laid.shown));
            }
        }
        let next: Vec<_> = (0..rules.len()).map(|at| below.layer(at, &mut sights)).collect();
        if next == layers {
            break;
        }
        layers = next;
    }
    Evaluated { overlays: together(entities, &rules, layers), sights }
}

/// All layers as one: where two show the same field, the one that reads the other is above. Of two that keep an entity
/// the one that reads the other has nothing left to do.
fn together(entities: &Entities, rules: &[(&Kind, &Rule)], layers: Vec<Layer>) -> Overlays {
    let mut overlays = Overlays::new();
    let is_lower = |(kind, rule): &(&Kind, &Rule)| match &rule.what {
        RuleType::AtMostOne(_) => true,
        RuleType::Reference(what) => what.to != kind.name,
        _ => false,
    };
    let mut ordered: Vec<_> = rules.iter().zip(layers).collect();
    ordered.sort_by_key(|(rule, _)| !is_lower(rule));
    for ((_, rule), layer) in ordered {
        for ((kind, id, field), laid) in layer {
            let held = entities.get(&kind).and_then(|ids| ids.get(&id));
            let Some(held) = held else { continue };
            let hidden = match &field {
                None => Value::Bool(!held.deleted),
                Some(field) => held.value(field).clone(),
            };
            let overlay = Overlay { rule: rule.name.clone(), rival: laid.rival, shown: laid.shown, hidden };
            let is_kept = field.is_none() && overlay.shown == Value::Bool(true);
            let spot = (kind, id, field);
            if is_kept && overlays.contains_key(&spot) {
                continue;
            }
            overlays.insert(spot, overlay);
        }
    }
    overlays.retain(|_, overlay| overlay.shown != overlay.hidden);
    overlays
}

/// The registers, and what every rule showed of them in the round before.
struct Below<'b> {
    entities: &'b Entities,
    rules: &'b [(&'b Kind, &'b Rule)],
    laid: BTreeMap<(&'b str, &'b str, Option<&'b str>), Vec<(usize, &'b Value)>>,
}

impl<'b> Below<'b> {
    fn of(&self, kind: &str) -> impl Iterator<Item = (&'b str, &'b Registers)> {
        self.entities.get(kind).into_iter().flatten().map(|(id, held)| (id.as_str(), held))
    }

    fn held(&self, kind: &str, id: &str) -> Option<&'b Registers> {
        self.entities.get(kind)?.get(id)
    }

    /// Whether an entity shows, apart from what the rule `at` does to it; `None` if it is not held.
    fn is_there(&self, at: usize, kind: &str, id: &str) -> Option<bool> {
        let held = self.held(kind, id)?;
        let laid = self.laid.get(&(kind, id, None)).into_iter().flatten().rfind(|(rule, _)| *rule != at);
        Some(laid.map_or(!held.deleted, |(_, shown)| **shown != Value::Bool(false)))
    }

    /// Whether an entity is there, or another one in its place.
    fn stands(&self, at: usize, kind: &str, id: &str) -> bool {
        let mut laid = self.laid.get(&(kind, id, None)).into_iter().flatten();
        let last = laid.rfind(|(rule, _)| *rule != at).and_then(|(rule, _)| self.rules.get(*rule));
        let is_alias =
            |rule: &Rule| matches!(&rule.what, RuleType::Unique(what) if what.on_clash == OnClash::Alias);
        last.is_some_and(|(_, rule)| is_alias(rule)) || self.is_there(at, kind, id) == Some(true)
    }

    /// What a field shows, apart from what the rule `at` does to it.
    fn value(&self, at: usize, kind: &str, id: &str, field: &str) -> &'b Value {
        let held = self.held(kind, id).map_or(&Value::Null, |held| held.value(field));
        let others = self.laid.get(&(kind, id, Some(field))).into_iter().flatten();
        let others = others.filter(|(rule, _)| *rule != at);
        let is_lowest = |rule: usize| {
            self.rules.get(rule).is_some_and(|(_, rule)| matches!(rule.what, RuleType::AtMostOne(_)))
        };
        others.max_by_key(|(rule, _)| !is_lowest(*rule)).map_or(held, |(_, shown)| *shown)
    }

    /// What a field shows that the rule may show otherwise: its register, or where that is null what fills it.
    fn own(&self, kind: &str, id: &str, field: &str) -> &'b Value {
        let held = self.held(kind, id).map_or(&Value::Null, |held| held.value(field));
        let fills = |(rule, _): &&(usize, &Value)| {
            self.rules.get(*rule).is_some_and(|(_, rule)| matches!(rule.what, RuleType::AtMostOne(_)))
        };
        let laid = self.laid.get(&(kind, id, Some(field))).into_iter().flatten().find(fills);
        laid.map_or(held, |(_, shown)| *shown)
    }

    /// The values that rivals share; `None` if one is null.
    fn group(&self, at: usize, kind: &str, id: &str, fields: &[String]) -> Option<Vec<Value>> {
        let values: Vec<_> = fields.iter().map(|field| self.value(at, kind, id, field).clone()).collect();
        (!values.contains(&Value::Null)).then_some(values)
    }

    fn layer(&self, at: usize, sights: &mut BTreeSet<Sight>) -> Layer {
        let Some((kind, rule)) = self.rules.get(at) else { return Layer::new() };
        match &rule.what {
            RuleType::AtMostOne(what) => self.at_most_one(at, kind, &rule.name, what, sights),
            RuleType::Unique(what) => self.unique(at, kind, &rule.name, what, sights),
            RuleType::Reference(what) => self.reference(at, kind, what, sights),
            RuleType::Bound(what) => self.bound(kind, what, sights),
            RuleType::Expr(what) => self.expr(at, kind, what, sights),
            RuleType::Custom(what) => self.custom(at, kind, &rule.name, &*what.0, sights),
        }
    }
}
