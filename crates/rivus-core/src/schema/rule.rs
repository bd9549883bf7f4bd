//! Rules: what every view satisfies, whatever was merged.
//!
//! Owns their declarations, and the checks that a schema passes before it has them: each names fields that can hold
//! what the rule reads, no two show the same field otherwise, and they can be put in an order in which each reads
//! only what earlier ones show (strata). Evaluates none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::{FieldType, Kind, SchemaError, Slot};
use crate::rules::CustomRule;
use crate::value::Value;

/// A rule of one kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Its name, unlike that of any other rule of the kind.
    pub name: String,
    /// What it keeps.
    pub what: RuleType,
}

/// What a rule keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RuleType {
    /// At most one entity of a group is open: that which claimed it last.
    AtMostOne(AtMostOne),
    /// No two entities of a group show the same value in a field.
    Unique(Unique),
    /// A field names an entity that is there.
    Reference(Reference),
    /// A field shows nothing outside of bounds.
    Bound(Bound),
    /// A field shows nothing beyond another of the same entity.
    Expr(Expr),
    /// A rule of the application's own.
    Custom(Custom),
}

/// At most one entity of a group is open. The one that claimed the group last may be; of those before it each shows
/// the beginning of its successor as its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AtMostOne {
    /// The fields whose values rivals share; an entity with a null among them is in no group.
    pub group: Vec<String>,
    /// The field that is null while an entity is open, and that shows the end otherwise.
    pub open: String,
    /// The field that says since when.
    pub order: String,
    /// What the order field holds.
    pub time: OrderTime,
}

/// What the order field of an [`AtMostOne`] holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OrderTime {
    /// Anything that has an order.
    #[default]
    Any,
    /// Milliseconds since 1970: an end that would lie outside is taken from the successor's claim.
    Ms,
}

/// No two undeleted entities of a group show the same value: the first that claimed it keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unique {
    /// The fields whose values rivals share; an entity with a null among them is in no group.
    pub group: Vec<String>,
    /// The field that is unique; null is in nobody's way.
    pub field: String,
    /// What becomes of the others.
    pub on_clash: OnClash,
}

/// What a [`Unique`] shows of an entity that came too late.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum OnClash {
    /// It shows its value with `#` and the beginning of a hash of its id.
    #[default]
    Rename,
    /// It does not show: it stands for the one that came first.
    Alias,
}

/// A field names an entity of another kind (or of its own) that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    /// The field; it holds the other's id as text. Null names nobody.
    pub field: String,
    /// The kind of what it names.
    pub to: String,
    /// What shows if that is deleted or absent.
    pub on_gone: OnGone,
}

/// What a [`Reference`] does where the entity that is named is deleted or absent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum OnGone {
    /// The field shows null.
    #[default]
    Nullify,
    /// The entity that names it shows as deleted, and so on.
    Cascade,
    /// What is named shows as alive as long as something alive names it. What is absent stays so.
    Keep,
}

/// A field shows nothing below the least, nor above the greatest value. Values of another type, null among them, show
/// as they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// The field.
    pub field: String,
    /// The least that shows.
    pub min: Option<Value>,
    /// The greatest that shows.
    pub max: Option<Value>,
}

/// A field shows nothing below (or above) another field of the same entity, unless one of the two is null or they are
/// of different types.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expr {
    /// The field that shows otherwise.
    pub field: String,
    /// On which side of the other it stays.
    pub side: Side,
    /// The other.
    pub other: String,
}

/// On which side of the other field an [`Expr`] keeps its field.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// Equal or greater.
    AtLeast,
    /// Equal or less.
    AtMost,
}

/// A rule of the application's own, known to peers by its name alone.
#[derive(Clone)]
pub struct Custom(pub Arc<dyn CustomRule>);

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Custom {}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Custom").field("reads", &self.0.reads()).field("owns", &self.0.owns()).finish()
    }
}

macro_rules! words {
    ($($ty:ident { $($variant:ident = $word:literal),+ })+) => {$(
        impl $ty {
            pub(super) const ALL: &[Self] = &[$(Self::$variant),+];
        }
        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }
    )+};
}

words! {
    OnClash { Rename = "rename", Alias = "alias" }
    OnGone { Nullify = "nullify", Cascade = "cascade", Keep = "keep" }
    OrderTime { Any = "any", Ms = "ms" }
}

/// Something that a rule may show otherwise, or that sways it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Spot {
    /// A field, where it is null.
    Null(String),
    /// A field, where it is not null.
    Value(String),
    /// Whether the entity is deleted.
    Life,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null(field) | Self::Value(field) => write!(f, "field `{field}`"),
            Self::Life => f.write_str("life"),
        }
    }
}

fn both(field: &str) -> [Spot; 2] {
    [Spot::Null(field.to_owned()), Spot::Value(field.to_owned())]
}

impl Rule {
    /// The word for its type in the text forms.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match &self.what {
            RuleType::AtMostOne(_) => "at_most_one",
            RuleType::Unique(_) => "unique",
            RuleType::Reference(_) => "reference",
            RuleType::Bound(_) => "bound",
            RuleType::Expr(_) => "expr",
            RuleType::Custom(_) => "custom",
        }
    }

    /// The fields of its own kind that sway it or that it shows otherwise.
    pub(crate) fn fields(&self) -> BTreeSet<String> {
        let mut fields = BTreeSet::new();
        match &self.what {
            RuleType::AtMostOne(AtMostOne { group, open, order, .. }) => {
                fields.extend(group.iter().cloned());
                fields.extend([open.clone(), order.clone()]);
            }
            RuleType::Unique(Unique { group, field, .. }) => {
                fields.extend(group.iter().cloned());
                fields.insert(field.clone());
            }
            RuleType::Reference(Reference { field, .. }) | RuleType::Bound(Bound { field, .. }) => {
                fields.insert(field.clone());
            }
            RuleType::Expr(Expr { field, other, .. }) => fields.extend([field.clone(), other.clone()]),
            RuleType::Custom(Custom(rule)) => {
                let named = rule.group().into_iter().chain(rule.reads()).chain(rule.owns());
                fields.extend(named.map(str::to_owned));
            }
        }
        fields
    }

    /// Those of its fields that say where an entity is found in the index.
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut keys = self.group().unwrap_or_default();
        match &self.what {
            RuleType::AtMostOne(AtMostOne { open: field, .. })
            | RuleType::Unique(Unique { field, .. })
            | RuleType::Reference(Reference { field, .. }) => keys.push(field.clone()),
            RuleType::Bound(_) | RuleType::Expr(_) | RuleType::Custom(_) => {}
        }
        keys
    }

    /// The fields that make its group.
    pub(crate) fn group(&self) -> Option<Vec<String>> {
        match &self.what {
            RuleType::AtMostOne(AtMostOne { group, .. }) | RuleType::Unique(Unique { group, .. }) => {
                Some(group.clone())
            }
            RuleType::Custom(Custom(rule)) => Some(rule.group().into_iter().map(str::to_owned).collect()),
            _ => None,
        }
    }

    /// What it shows otherwise, and of which kind.
    pub(crate) fn owns<'r>(&'r self, kind: &'r str) -> Vec<(&'r str, Spot)> {
        let of = |spots: Vec<Spot>| spots.into_iter().map(|spot| (kind, spot)).collect();
        let value = |field: &String| vec![Spot::Value(field.clone())];
        match &self.what {
            RuleType::AtMostOne(AtMostOne { open, .. }) => of(vec![Spot::Null(open.clone())]),
            RuleType::Unique(Unique { on_clash: OnClash::Alias, .. }) => of(vec![Spot::Life]),
            RuleType::Unique(Unique { field, .. })
            | RuleType::Bound(Bound { field, .. })
            | RuleType::Expr(Expr { field, .. }) => of(value(field)),
            RuleType::Reference(Reference { field, to, on_gone }) => match on_gone {
                OnGone::Nullify => of(value(field)),
                OnGone::Cascade => of(vec![Spot::Life]),
                OnGone::Keep => vec![(to, Spot::Life)],
            },
            RuleType::Custom(Custom(rule)) => of(rule.owns().into_iter().flat_map(both).collect()),
        }
    }

    /// What sways it as it shows, and of which kind: of its own fields it reads the registers.
    pub(crate) fn reads<'r>(&'r self, kind: &'r str) -> Vec<(&'r str, Spot)> {
        let life = std::iter::once((kind, Spot::Life));
        let fields = |fields: Vec<&'r str>| fields.into_iter().flat_map(both).map(move |spot| (kind, spot));
        match &self.what {
            RuleType::AtMostOne(AtMostOne { group, order, .. }) => {
                fields(group.iter().chain([order]).map(String::as_str).collect()).chain(life).collect()
            }
            RuleType::Unique(Unique { group, .. }) => {
                fields(group.iter().map(String::as_str).collect()).chain(life).collect()
            }
            RuleType::Reference(Reference { field, to, on_gone }) => {
                let of_target = std::iter::once((to.as_str(), Spot::Life));
                match on_gone {
                    OnGone::Nullify => of_target.chain([(kind, Spot::Null(field.clone()))]).collect(),
                    OnGone::Cascade => fields(vec![field]).chain(of_target).collect(),
                    // Whether what it keeps is deleted it asks of the register; for an entity of its own kind that is
                    // also whether that keeps others.
                    OnGone::Keep => fields(vec![field]).chain(life).collect(),
                }
            }
            RuleType::Bound(Bound { field, .. }) => vec![(kind, Spot::Null(field.clone()))],
            RuleType::Expr(Expr { field, other, .. }) => {
                fields(vec![other]).chain([(kind, Spot::Null(field.clone()))]).collect()
            }
            RuleType::Custom(Custom(rule)) => {
                let owned = rule.owns();
                let read = rule.group().into_iter().chain(rule.reads());
                fields(read.filter(|field| !owned.contains(field)).collect()).chain(life).collect()
            }
        }
    }

    /// Whether it only ever shows an entity as gone: several of these are one.
    fn hides(&self) -> bool {
        matches!(&self.what, RuleType::Reference(Reference { on_gone: OnGone::Cascade, .. }))
            || self.aliases()
    }

    /// Whether it shows one entity in the place of another.
    pub(super) fn aliases(&self) -> bool {
        matches!(&self.what, RuleType::Unique(Unique { on_clash: OnClash::Alias, .. }))
    }

    fn keeps(&self) -> bool {
        matches!(&self.what, RuleType::Reference(Reference { on_gone: OnGone::Keep, .. }))
    }
}

/// Checks a kind's rules as far as that needs no other kind.
pub(super) fn check(kind: &Kind) -> Result<(), SchemaError> {
    for rule in &kind.rules {
        let name = || (kind.name.clone(), rule.name.clone());
        for field in rule.fields() {
            let ty = match kind.slot(&field) {
                Slot::Undeclared => {
                    let (kind, rule) = name();
                    return Err(SchemaError::RuleFieldUndeclared { kind, rule, field });
                }
                Slot::Field(declared) => &declared.ty,
                Slot::Member(_) | Slot::Open => &FieldType::PLAIN,
            };
            if !crate::view::holds_one(ty) || *ty == FieldType::Multi {
                let (kind, rule) = name();
                return Err(SchemaError::RuleFieldType { kind, rule, field, ty: ty.to_string() });
            }
        }
        if let (Some(scope), Some(group)) = (&kind.scope, rule.group())
            && !group.contains(scope)
        {
            let (kind, rule) = name();
            return Err(SchemaError::RuleScope { kind, rule, scope: scope.clone() });
        }
        let refused = match &rule.what {
            RuleType::AtMostOne(AtMostOne { group, open, order, .. }) => {
                if open == order {
                    Some(format!("`{open}` is its open and its order field: take two"))
                } else {
                    group.contains(open).then(|| format!("its open field `{open}` is in its group"))
                }
            }
            RuleType::Unique(Unique { group, field, .. }) => {
                group.contains(field).then(|| format!("its field `{field}` is in its group"))
            }
            RuleType::Bound(Bound { min: Some(min), max: Some(max), .. }) if min > max => {
                Some("its min is above its max".to_owned())
            }
            RuleType::Bound(Bound { min: None, max: None, .. }) => {
                Some("it has no min and no max".to_owned())
            }
            RuleType::Expr(Expr { field, other, .. }) => {
                (field == other).then(|| format!("it compares `{field}` with itself"))
            }
            _ => None,
        };
        if let Some(why) = refused {
            let (kind, rule) = name();
            return Err(SchemaError::RuleImpossible { kind, rule, why });
        }
    }
    Ok(())
}

/// Puts the rules of all kinds in an order in which each reads only what earlier ones show, as (kind, rule) by
/// position. Of those that could come next the first by name does.
pub(super) fn order(kinds: &[Kind], is_open: bool) -> Result<Vec<(usize, usize)>, SchemaError> {
    let all: Vec<_> =
        kinds.iter().enumerate().flat_map(|(k, kind)| (0..kind.rules.len()).map(move |r| (k, r))).collect();
    let rules: Vec<(&Kind, &Rule)> =
        kinds.iter().flat_map(|kind| kind.rules.iter().map(move |rule| (kind, rule))).collect();
    let mut owners: BTreeMap<(&str, Spot), Vec<usize>> = BTreeMap::new();
    for (at, (kind, rule)) in rules.iter().enumerate() {
        if let RuleType::Reference(Reference { to, .. }) = &rule.what
            && !is_open
            && !kinds.iter().any(|kind| kind.name == *to)
        {
            let (kind, rule, to) = (kind.name.clone(), rule.name.clone(), to.clone());
            return Err(SchemaError::RuleTarget { kind, rule, to });
        }
        for (of, spot) in rule.owns(&kind.name) {
            let owned = owners.entry((of, spot.clone())).or_default();
            let alike =
                |other: &&(&Kind, &Rule)| other.1.hides() && rule.hides() || other.1.keeps() && rule.keeps();
            let others = owned.iter().filter_map(|other| rules.get(*other));
            if let Some((_, other)) = others.clone().find(|other| !alike(other)) {
                return Err(SchemaError::RulesOwnOne {
                    kind: of.to_owned(),
                    what: spot.to_string(),
                    one: other.name.clone(),
                    other: rule.name.clone(),
                });
            }
            owned.push(at);
        }
    }
    let before: Vec<BTreeSet<usize>> = rules
        .iter()
        .enumerate()
        .map(|(at, (kind, rule))| {
            let read = rule.reads(&kind.name).into_iter();
            read.flat_map(|spot| owners.get(&spot).into_iter().flatten().copied())
                .filter(|other| *other != at)
                .collect()
        })
        .collect();
    sort(&rules, &all, &before)
}

fn sort(
    rules: &[(&Kind, &Rule)],
    all: &[(usize, usize)],
    before: &[BTreeSet<usize>],
) -> Result<Vec<(usize, usize)>, SchemaError> {
    let (mut done, mut order) = (BTreeSet::new(), Vec::new());
    while order.len() < rules.len() {
        let mut left = before.iter().enumerate().filter(|(at, _)| !done.contains(at));
        let Some((next, _)) = left.find(|(_, before)| before.is_subset(&done)) else {
            let left = rules.iter().enumerate().filter(|(at, _)| !done.contains(at));
            let names = left.map(|(_, (kind, rule))| format!("`{}` of kind `{}`", rule.name, kind.name));
            return Err(SchemaError::RulesCycle { rules: names.collect::<Vec<_>>().join(", ") });
        };
        done.insert(next);
        order.extend(all.get(next));
    }
    Ok(order)
}
