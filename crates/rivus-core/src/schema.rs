//! What an application stores and how each part of it merges: kinds, their fields, and a policy for each.
//!
//! Owns the declarations, their text forms and their comparison with a peer's. Knows nothing of registers,
//! entities or stores: those ask it. Invariant: a [`Schema`] that exists is consistent (every group member is
//! a plain field of its kind and in no other group, every name and margin is within bounds), because the
//! [`SchemaBuilder`] is the only way to make one, and the text forms go through it.
//!
//! A field, a group and a kind are addresses of different classes, so a group may bear the name of a field.

use std::fmt;
use std::sync::OnceLock;

mod build;
mod error;
mod mark;
mod migration;
mod policy;
mod rule;
mod text;

pub use build::{KindBuilder, SchemaBuilder};
pub use error::SchemaError;
pub use mark::{OnConflict, Writers};
pub use migration::Migration;
pub use policy::{Candidate, CustomResolver, FieldType, Life, Margin, Resolver, SetWins};
pub(crate) use rule::Spot;
pub use rule::{
    AtMostOne, Bound, Custom, Expr, OnClash, OnGone, OrderTime, Reference, Rule, RuleType, Side, Unique,
};

use crate::address::Parts;
use crate::address::class::{COUNT, FIELD, KEY};
use crate::rules::Rules;
use crate::value::Value;

/// The longest name of a kind, in bytes of UTF-8. Every name has at least one byte.
pub const KIND_NAME_BYTES_MAX: usize = 255;

/// The longest name of a field or a group, in bytes of UTF-8: its length fits 16 bits in an address.
pub const FIELD_NAME_BYTES_MAX: usize = 65_535;

/// The longest finite margin, in ms: all the time that a stamp can tell (2^32 s, 136 years).
pub const MARGIN_MS_MAX: u64 = 1000 << 32;

/// The kinds of an application, their fields and their policies.
///
/// ```
/// # use rivus_core::schema::{Life, Margin, Resolver, Schema, SchemaError};
/// # fn main() -> Result<(), SchemaError> {
/// let schema = Schema::builder()
///     .kind("task", |k| {
///         k.life(Life::EditRevives)
///             .value("title")
///             .value_with("owner", Margin::Ms(5000), Resolver::Rank)
///             .set("tags")
///     })
///     .kind("time_entry", |k| k.value("start").value("stop").group("interval", ["start", "stop"]))
///     .build()?;
/// assert_eq!(Schema::from_json_str(&schema.to_json())?.fingerprint(), schema.fingerprint());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Schema {
    /// Ascending by name.
    kinds: Vec<Kind>,
    /// What undeclared kinds are, where they are taken.
    any: Option<Kind>,
    /// Which version of the rules this is.
    epoch: u32,
    rules: Rules,
    /// Every greeting asks for it.
    fingerprint: OnceLock<u128>,
    marks: Marks,
}

impl Schema {
    /// Starts an empty schema.
    #[must_use]
    pub fn builder() -> SchemaBuilder {
        SchemaBuilder::default()
    }

    /// The schema that declares nothing and takes everything: every kind is open, with the default policies.
    ///
    /// For hubs and tools that store what they do not interpret.
    #[must_use]
    pub fn open() -> Self {
        Self {
            kinds: Vec::new(),
            any: Some(Kind::undeclared()),
            epoch: 0,
            rules: Rules::default(),
            fingerprint: OnceLock::new(),
            marks: Marks::default(),
        }
    }

    /// The kind of this name, or `None` where the schema does not take it.
    ///
    /// An undeclared kind of an open schema is one shared [`Kind`] whose `name` is empty: go on with the name
    /// that you asked for.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<&Kind> {
        let any = || self.any.as_ref().filter(|_| (1..=KIND_NAME_BYTES_MAX).contains(&name.len()));
        self.declared(name).or_else(any)
    }

    /// The declared kinds, ascending by name.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.iter()
    }

    /// Which version of the rules this is: higher ones know all rules of lower ones.
    ///
    /// A replica that has met a higher one shows registers without rules, and says so, until its own schema knows it.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The rules, as they are evaluated.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether any field is for replicas with a rank alone.
    pub(crate) fn has_ranked(&self) -> bool {
        self.marks.ranked
    }

    /// Whether a value of any field is written again when it has lost.
    pub(crate) fn restamps(&self) -> bool {
        self.marks.restamp
    }

    /// XXH3-128 of [`Schema::to_json`]: equal for equal policies, whatever the order of declaration.
    ///
    /// Functions count by their names.
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        *self.fingerprint.get_or_init(|| xxhash_rust::xxh3::xxh3_128(self.to_json().as_bytes()))
    }

    /// Where this schema and `theirs` would merge the same data differently, by kind and field.
    ///
    /// Only kinds and fields that both declare are compared: each side passes on what it does not know.
    #[must_use]
    pub fn compare(&self, theirs: &Self) -> Vec<Mismatch> {
        let mut found = Vec::new();
        for (ours, theirs) in self.kinds().filter_map(|k| Some((k, theirs.declared(&k.name)?))) {
            let life = (None, ours.life.to_string(), theirs.life.to_string());
            let fields = ours.fields.iter().filter_map(|d| {
                let policy = theirs.policy(theirs.declared(&d.field.name)?);
                Some((Some(d.field.name.clone()), ours.policy(d), policy))
            });
            found.extend(
                std::iter::once(life)
                    .chain(fields)
                    .filter(|(_, a, b)| a != b)
                    .map(|(field, a, b)| Mismatch { kind: ours.name.clone(), field, ours: a, theirs: b }),
            );
        }
        found
    }

    /// Every declared policy: kind, field (none for the kind's life), and the policy in words.
    #[must_use]
    pub fn policies(&self) -> Vec<(String, Option<String>, String)> {
        let of = |kind: &Kind| {
            let life = (kind.name.clone(), None, kind.life.to_string());
            let field = |d: &Declared| (kind.name.clone(), Some(d.field.name.clone()), kind.policy(d));
            std::iter::once(life).chain(kind.fields.iter().map(field)).collect::<Vec<_>>()
        };
        self.kinds().flat_map(of).collect()
    }

    /// As [`Schema::compare`], with what a peer told as [`Schema::policies`]: kind, field, policy. Each declared
    /// thing is compared once, however often the peer repeats itself.
    #[must_use]
    pub fn compare_policies<'a>(
        &self,
        theirs: impl Iterator<Item = (&'a str, Option<&'a str>, &'a str)>,
    ) -> Vec<Mismatch> {
        let policies = self.policies();
        let ours = policies.iter().map(|(kind, field, ours)| ((kind.as_str(), field.as_deref()), ours));
        let mut ours: std::collections::BTreeMap<_, _> = ours.collect();
        let mut found = Vec::new();
        for (kind, field, theirs) in theirs {
            if let Some(ours) = ours.remove(&(kind, field))
                && ours != theirs
            {
                let (kind, field) = (kind.to_owned(), field.map(str::to_owned));
                found.push(Mismatch { kind, field, ours: ours.clone(), theirs: theirs.to_owned() });
            }
        }
        found
    }

    fn declared(&self, name: &str) -> Option<&Kind> {
        let at = self.kinds.binary_search_by(|k| k.name.as_str().cmp(name)).ok()?;
        self.kinds.get(at)
    }
}

/// One kind of entity.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Its name; empty for the kind that stands for all undeclared ones of an open schema.
    pub name: String,
    /// How its deletes and edits merge.
    pub life: Life,
    /// Whether it takes undeclared fields.
    pub open: bool,
    /// Whether its entities may stand for each other.
    pub aliases: bool,
    /// Ascending by name.
    fields: Vec<Declared>,
    /// XXH3-64 of each field's name and the field's position, ascending: every local edit looks fields up, and
    /// comparing numbers takes less than half the time of comparing names.
    index: Vec<(u64, usize)>,
    /// Ascending by name.
    groups: Vec<Group>,
    /// The field that names the scope of an entity, if it is not one scope for all.
    pub scope: Option<String>,
    /// Ascending by name.
    rules: Vec<Rule>,
    marks: Marks,
    /// In order of declaration.
    migrations: Vec<Migration>,
}

/// What is said of any field of a kind, or of all kinds: where it is nothing, nobody has to look.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    ranked: bool,
    restamp: bool,
    stands_in: bool,
}

impl Marks {
    fn or(self, other: Self) -> Self {
        Self {
            ranked: self.ranked || other.ranked,
            restamp: self.restamp || other.restamp,
            stands_in: self.stands_in || other.stands_in,
        }
    }
}

/// A field and the position of its group among the kind's.
#[derive(Clone, Debug)]
struct Declared {
    field: Field,
    group: Option<usize>,
}

impl Kind {
    /// Where writes of `field` go.
    #[must_use]
    pub fn slot(&self, field: &str) -> Slot<'_> {
        let Some(declared) = self.declared(field) else {
            let taken = self.open && (1..=FIELD_NAME_BYTES_MAX).contains(&field.len());
            return if taken { Slot::Open } else { Slot::Undeclared };
        };
        self.group_of(declared).map_or(Slot::Field(&declared.field), Slot::Member)
    }

    /// The declared fields, group members among them, ascending by name.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().map(|d| &d.field)
    }

    /// The groups, ascending by name.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    /// The rules, ascending by name.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The changes of policy that have a name, in order of declaration.
    pub fn migrations(&self) -> impl Iterator<Item = &Migration> {
        self.migrations.iter()
    }

    /// The declared field of this name, whether or not it is in a group.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.declared(name).map(|d| &d.field)
    }

    /// The group of this name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Group> {
        let at = self.groups.binary_search_by(|g| g.name.as_str().cmp(name)).ok()?;
        self.groups.get(at)
    }

    /// A kind of checked parts, `fields` and `groups` ascending by name.
    fn new(name: String, life: Life, open: bool, fields: Vec<Declared>, groups: Vec<Group>) -> Self {
        let mut index: Vec<_> = fields.iter().map(|d| hash(&d.field.name)).zip(0..).collect();
        index.sort_unstable();
        let any = |is_marked: fn(&Field) -> bool| fields.iter().any(|d| is_marked(&d.field));
        let marks = Marks {
            ranked: any(|field| field.writers == Writers::Ranked),
            restamp: any(|field| field.on_conflict == OnConflict::Restamp),
            stands_in: any(|field| field.was.is_some() || field.default.is_some()),
        };
        Self {
            name,
            life,
            open,
            aliases: false,
            fields,
            index,
            groups,
            scope: None,
            rules: Vec::new(),
            marks,
            migrations: Vec::new(),
        }
    }

    /// What an open schema takes undeclared kinds for.
    fn undeclared() -> Self {
        Self::new(String::new(), Life::default(), true, Vec::new(), Vec::new())
    }

    /// Whether a rule shows one entity in the place of another.
    pub(crate) fn aliases_by_rule(&self) -> bool {
        self.rules.iter().any(Rule::aliases)
    }

    /// Whether only the authority and replicas with a rank may write what is at this address.
    pub(crate) fn is_ranked(&self, address: &[u8]) -> bool {
        let parts = || Parts::parse(address).filter(|parts| matches!(parts.class, FIELD | KEY | COUNT));
        self.marks.ranked
            && parts()
                .and_then(|p| self.field(p.name).or_else(|| self.once(p.name)))
                .is_some_and(|field| field.writers == Writers::Ranked)
    }

    /// Whether a value that is lost is written again in any field.
    pub(crate) fn restamps(&self) -> bool {
        self.marks.restamp
    }

    /// The field that was once called `name`.
    pub(crate) fn once(&self, name: &str) -> Option<&Field> {
        self.stand_ins().find(|field| field.was.as_deref() == Some(name))
    }

    /// The fields that show something where nothing is held under their names.
    pub(crate) fn stand_ins(&self) -> impl Iterator<Item = &Field> {
        let any = self.marks.stands_in.then(|| self.fields());
        any.into_iter().flatten().filter(|field| field.was.is_some() || field.default.is_some())
    }

    fn declared(&self, name: &str) -> Option<&Declared> {
        let hash = hash(name);
        let first = self.index.partition_point(|(h, _)| *h < hash);
        let equal = self.index.iter().skip(first).take_while(|(h, _)| *h == hash);
        equal.filter_map(|(_, at)| self.fields.get(*at)).find(|d| d.field.name == name)
    }

    fn group_of(&self, declared: &Declared) -> Option<&Group> {
        declared.group.and_then(|at| self.groups.get(at))
    }

    /// The field's policy in words. Members of one group agree however many others each side declares: a
    /// writer carries over the members that it does not know.
    fn policy(&self, declared: &Declared) -> String {
        match self.group_of(declared) {
            Some(group) => format!("member of group `{}`", group.name),
            None if declared.field.writers == Writers::Ranked => {
                format!("{}, ranked only", declared.field.ty)
            }
            None => declared.field.ty.to_string(),
        }
    }
}

/// Where the writes of a field go.
#[derive(Clone, Copy, Debug)]
pub enum Slot<'a> {
    /// To registers of its own.
    Field(&'a Field),
    /// To the one register of its group.
    Member(&'a Group),
    /// An undeclared field of an open kind: a plain value, margin 0, the newest wins.
    Open,
    /// Nowhere: the kind does not take it.
    Undeclared,
}

/// One field of a kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// How it merges.
    pub ty: FieldType,
    /// Who may write it.
    pub writers: Writers,
    /// What a replica does whose value has lost to a concurrent one.
    pub on_conflict: OnConflict,
    /// The name that it had before: what is held under it shows where nothing is held under the new one.
    pub was: Option<String>,
    /// What shows where nothing is held.
    pub default: Option<Value>,
}

/// Fields that are written and replaced together: one register, margin 0, the newest wins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The names of its fields, ascending; never empty.
    pub members: Vec<String>,
}

/// A kind or field that two schemas merge differently.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// The kind.
    pub kind: String,
    /// The field, or `None` if it is the kind's life that differs.
    pub field: Option<String>,
    /// Our policy, in words.
    pub ours: String,
    /// Their policy, in words.
    pub theirs: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, field, ours, theirs } = self;
        match field {
            Some(field) => write!(f, "field `{field}` of kind `{kind}`")?,
            None => write!(f, "life of kind `{kind}`")?,
        }
        write!(f, " merges as \"{ours}\" here and as \"{theirs}\" there: declare it alike on both sides")
    }
}

fn hash(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
}

#[cfg(test)]
mod tests;
