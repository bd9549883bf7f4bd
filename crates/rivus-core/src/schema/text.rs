//! The text forms: JSON, canonical and read exactly, and the same tree in TOML.
//!
//! Owns the shape of the tree. What the declarations mean together is for the builder to check, so that
//! names that repeat reach it as they are written.

mod rule;

use std::fmt;

use serde::de::{self, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::build::KindBuilder;
use super::policy::{CUSTOM_PREFIX, FieldType, Life, Margin, Resolver, SetWins};
use super::{Field, Kind, Migration, OnConflict, Schema, SchemaError, Writers};
use crate::value::Value;
use rule::RuleTree;

impl Schema {
    /// Reads a schema from JSON.
    ///
    /// The keys of a field, all optional: `type` (`value` if absent, `multi`, `set`, `map`, `counter`, `max`,
    /// `min`, `flag`); of a value `margin_ms` (a whole number or `"inf"`) and `resolver` (`newest`, `oldest`,
    /// `rank`, `min`, `max`); of a set `wins` (`add`, `remove`); of any `authority` (`true`: only the authority and replicas with
    /// a rank write it), `on_conflict` (`restamp`), `was` (the former name) and `default`. Those of a kind: `life` (`delete-wins`,
    /// `edit-revives`, `newest`), `open`, `aliases` (`true`), `fields`, `groups`, `scope`, `rules`, `migrations` (each `name`, `field`
    /// unless it is about the life, `from` and `to`, policies in words). Beside `kinds`, `"open": true` takes
    /// undeclared kinds, and `epoch` is the version of the rules. Any other key is refused.
    ///
    /// A rule has `rule` and `name`; an `at_most_one` also `group`, `holds` (`{"field": …, "is": "null"}`, the open
    /// field), `open_field`, `order_field`, `time` (`ms`); a `unique` `group`, `field`, `on_clash` (`rename`,
    /// `alias`); a `reference` `field`, `to`, `on_gone` (`nullify`, `cascade`, `keep`); a `bound` `field`, `min`,
    /// `max`; an `expr` `field` and either `at_least` or `at_most`, the other field.
    ///
    /// ```
    /// # use rivus_core::schema::Schema;
    /// let schema = Schema::from_json_str(r#"{"kinds":{
    ///     "task":{"life":"edit-revives","fields":{
    ///         "title":{}, "owner":{"margin_ms":5000,"resolver":"rank"}, "tags":{"type":"set"}}},
    ///     "time_entry":{"fields":{"start":{},"stop":{}},"groups":{"interval":["start","stop"]}}}}"#)?;
    /// assert_eq!(schema.kinds().count(), 2);
    /// # Ok::<(), rivus_core::schema::SchemaError>(())
    /// ```
    ///
    /// # Errors
    /// [`SchemaError`]: text that is not of this form, with line and column, or a declaration that does not
    /// hold, with its kind and field.
    pub fn from_json_str(json: &str) -> Result<Self, SchemaError> {
        let tree: Tree = serde_json::from_str(json).map_err(|e| SchemaError::Syntax(e.to_string()))?;
        tree.schema()
    }

    /// Reads a schema from TOML: the tree of [`Schema::from_json_str`].
    ///
    /// ```
    /// # use rivus_core::schema::Schema;
    /// let schema = Schema::from_toml_str(r#"
    ///     [kinds.task]
    ///     life = "edit-revives"
    ///     open = true
    ///
    ///     [kinds.task.fields]
    ///     title = {}
    ///     owner = { margin_ms = 5000, resolver = "rank" }
    ///     tags = { type = "set", wins = "remove" }
    ///
    ///     [kinds.time_entry.fields.start]
    ///     type = "value"
    ///
    ///     [kinds.time_entry.fields.stop]
    ///
    ///     [kinds.time_entry.groups]
    ///     interval = ["start", "stop"]
    /// "#)?;
    /// assert_eq!(schema.kinds().count(), 2);
    /// # Ok::<(), rivus_core::schema::SchemaError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Schema::from_json_str`].
    #[cfg(feature = "toml")]
    pub fn from_toml_str(toml: &str) -> Result<Self, SchemaError> {
        let tree: Tree =
            toml::from_str(toml).map_err(|e| SchemaError::Syntax(e.to_string().trim_end().to_owned()))?;
        tree.schema()
    }

    /// The canonical JSON: names ascending, defaults left out, no white space.
    ///
    /// [`Schema::from_json_str`] reads it back, except that a resolver of the user's is written as `custom:`
    /// and its name, which reading refuses: text cannot hold the function.
    ///
    /// # Panics
    /// Never: strings, numbers and maps with string keys have a JSON form.
    #[must_use]
    pub fn to_json(&self) -> String {
        let kinds = self.kinds().map(|kind| (kind.name.clone(), KindTree::of(kind))).collect();
        let tree = Tree { kinds: Entries(kinds), open: self.any.is_some(), epoch: self.epoch };
        #[expect(clippy::expect_used, reason = "strings, numbers and maps with string keys always serialize")]
        serde_json::to_string(&tree).expect("a schema has a JSON form")
    }
}

/// A whole schema as text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    kinds: Entries<KindTree>,
    #[serde(default, skip_serializing_if = "is_false")]
    open: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    epoch: u32,
}

impl Tree {
    fn schema(self) -> Result<Schema, SchemaError> {
        let mut builder = Schema::builder().epoch(self.epoch);
        if self.open {
            builder = builder.open();
        }
        for (name, kind) in self.kinds.0 {
            builder = builder.push(kind.builder(name)?);
        }
        builder.build()
    }
}

/// A kind as text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KindTree {
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    life: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    open: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    aliases: bool,
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    fields: Entries<FieldTree>,
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    groups: Entries<Vec<String>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rules: Vec<RuleTree>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    migrations: Vec<MigrationTree>,
}

/// A change of policy as text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MigrationTree {
    name: String,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    from: String,
    to: String,
}

impl MigrationTree {
    fn of(migration: &Migration) -> Self {
        let Migration { name, field, from, to } = migration.clone();
        Self { name, field, from, to }
    }
}

impl KindTree {
    fn of(kind: &Kind) -> Self {
        Self {
            life: (kind.life != Life::default()).then(|| kind.life.to_string()),
            open: kind.open,
            aliases: kind.aliases,
            fields: Entries(kind.fields().map(|f| (f.name.clone(), FieldTree::of(f))).collect()),
            groups: Entries(kind.groups().map(|g| (g.name.clone(), g.members.clone())).collect()),
            scope: kind.scope.clone(),
            rules: kind.rules().map(RuleTree::of).collect(),
            migrations: kind.migrations().map(MigrationTree::of).collect(),
        }
    }

    fn builder(self, kind: String) -> Result<KindBuilder, SchemaError> {
        let mut builder = KindBuilder::new(kind.clone());
        if let Some(word) = self.life {
            let Some(life) = named(Life::ALL, &word) else {
                return Err(SchemaError::UnknownLife { kind, word });
            };
            builder = builder.life(life);
        }
        if self.open {
            builder = builder.open();
        }
        if self.aliases {
            builder = builder.aliases();
        }
        for (name, field) in self.fields.0 {
            builder = field.declare(builder, &kind, &name)?;
        }
        for (name, members) in self.groups.0 {
            builder = builder.group(name, members);
        }
        if let Some(field) = self.scope {
            builder = builder.scope(field);
        }
        for rule in self.rules {
            let (name, what) = rule.read(&kind)?;
            builder = builder.rule(name, what);
        }
        for MigrationTree { name, field, from, to } in self.migrations {
            builder = builder.migration(name, field.as_deref(), from, to);
        }
        Ok(builder)
    }
}

/// A field as text.
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct FieldTree {
    #[serde(default, deserialize_with = "given", rename = "type", skip_serializing_if = "Option::is_none")]
    ty: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    margin_ms: Option<MarginMs>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    resolver: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    wins: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    authority: bool,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    on_conflict: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    was: Option<String>,
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none",
        serialize_with = "rule::value"
    )]
    default: Option<Value>,
}

impl FieldTree {
    fn of(field: &Field) -> Self {
        Self {
            authority: field.writers == Writers::Ranked,
            on_conflict: (field.on_conflict == OnConflict::Restamp).then(|| RESTAMP.to_owned()),
            was: field.was.clone(),
            default: field.default.clone(),
            ..Self::of_type(&field.ty)
        }
    }

    fn declare(mut self, builder: KindBuilder, kind: &str, name: &str) -> Result<KindBuilder, SchemaError> {
        let (is_ranked, on_conflict) = (self.authority, self.on_conflict.take());
        let (was, default) = (self.was.take(), self.default.take());
        let mut builder = builder.field(name, self.ty(kind, name)?);
        if is_ranked {
            builder = builder.ranked(name);
        }
        match on_conflict {
            None => {}
            Some(word) if word == RESTAMP => builder = builder.restamp(name),
            Some(word) => {
                let (kind, field) = (kind.to_owned(), name.to_owned());
                let (key, expected) = ("on_conflict", RESTAMP);
                return Err(SchemaError::UnknownWord { kind, field, key, word, expected });
            }
        }
        if let Some(was) = was {
            builder = builder.renamed(name, was);
        }
        if let Some(default) = default {
            builder = builder.default_value(name, default);
        }
        Ok(builder)
    }

    fn of_type(ty: &FieldType) -> Self {
        let typed = || Self { ty: Some(ty.name().to_owned()), ..Self::default() };
        match ty {
            FieldType::Value { margin, resolver } => Self {
                margin_ms: (*margin != Margin::ZERO).then_some(MarginMs(*margin)),
                resolver: (*resolver != Resolver::Newest).then(|| resolver.to_string()),
                ..Self::default()
            },
            FieldType::Set { wins } => {
                Self { wins: (*wins != SetWins::default()).then(|| wins.to_string()), ..typed() }
            }
            FieldType::Custom { resolver } => Self { resolver: Some(resolver.to_string()), ..typed() },
            _ => typed(),
        }
    }

    fn ty(self, kind: &str, field: &str) -> Result<FieldType, SchemaError> {
        let (kind, field) = (kind.to_owned(), field.to_owned());
        let ty = self.ty.unwrap_or_else(|| "value".to_owned());
        let function = |r: &String| r.starts_with(CUSTOM_PREFIX);
        if ty == "custom" || (ty == "value" && self.resolver.as_ref().is_some_and(function)) {
            return Err(SchemaError::FunctionInText { kind, field });
        }
        let only_in = [
            ("margin_ms", self.margin_ms.is_some(), "value"),
            ("resolver", self.resolver.is_some(), "value"),
            ("wins", self.wins.is_some(), "set"),
        ];
        let misplaced = only_in.into_iter().find(|(_, is_given, owner)| *is_given && ty != *owner);
        let resolver = self.resolver.map_or(Ok(Resolver::Newest), |w| named(Resolver::BUILT_IN, &w).ok_or(w));
        let wins = self.wins.map_or(Ok(SetWins::default()), |w| named(SetWins::ALL, &w).ok_or(w));
        let known = match ty.as_str() {
            "value" => resolver
                .map(|resolver| FieldType::Value {
                    margin: self.margin_ms.map_or(Margin::ZERO, |m| m.0),
                    resolver,
                })
                .map_err(|word| ("resolver", word, "newest, oldest, rank, min or max")),
            "set" => wins.map(|wins| FieldType::Set { wins }).map_err(|word| ("wins", word, "add or remove")),
            "multi" => Ok(FieldType::Multi),
            "map" => Ok(FieldType::Map),
            "counter" => Ok(FieldType::Counter),
            "max" => Ok(FieldType::Max),
            "min" => Ok(FieldType::Min),
            "flag" => Ok(FieldType::Flag),
            _ => Err(("type", ty.clone(), "value, multi, set, map, counter, max, min or flag")),
        };
        match (known, misplaced) {
            (Err((key, word, expected)), _) => {
                Err(SchemaError::UnknownWord { kind, field, key, word, expected })
            }
            (Ok(_), Some((key, _, owner))) => Err(SchemaError::KeyMisplaced { kind, field, ty, key, owner }),
            (Ok(known), None) => Ok(known),
        }
    }
}

/// The word for a lost value that is written again.
const RESTAMP: &str = "restamp";

/// A map as it is written: in order, with names that repeat.
#[derive(Clone)]
struct Entries<T>(Vec<(String, T)>);

impl<T> Entries<T> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Serialize> Serialize for Entries<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, entry)| (name, entry)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(Vec<(String, T)>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map by name")
            }

            fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Entries<T>, A::Error> {
                while let Some(entry) = map.next_entry()? {
                    self.0.push(entry);
                }
                Ok(Entries(self.0))
            }
        }

        deserializer.deserialize_map(Reader(Vec::new()))
    }
}

/// A margin as text: a whole number of milliseconds or `"inf"`.
struct MarginMs(Margin);

impl Serialize for MarginMs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Margin::Ms(ms) => serializer.serialize_u64(ms),
            Margin::Infinite => serializer.collect_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for MarginMs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = MarginMs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a margin: a whole number of milliseconds, 0 or more, or \"inf\"")
            }

            fn visit_u64<E: de::Error>(self, ms: u64) -> Result<MarginMs, E> {
                Ok(MarginMs(Margin::Ms(ms)))
            }

            fn visit_i64<E: de::Error>(self, ms: i64) -> Result<MarginMs, E> {
                match u64::try_from(ms) {
                    Ok(ms) => self.visit_u64(ms),
                    Err(_) => Err(E::invalid_value(Unexpected::Signed(ms), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<MarginMs, E> {
                match word {
                    "inf" => Ok(MarginMs(Margin::Infinite)),
                    _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
                }
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// A key that may be absent but, if it is there, has a value: null is refused.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The one of `all` that is written `word`.
fn named<T: fmt::Display, const N: usize>(all: [T; N], word: &str) -> Option<T> {
    all.into_iter().find(|one| one.to_string() == word)
}
