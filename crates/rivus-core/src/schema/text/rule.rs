//! A rule as text.

use serde::{Deserialize, Serialize};

use super::given;
use crate::schema::{
    AtMostOne, Bound, Expr, OnClash, OnGone, OrderTime, Reference, Rule, RuleType, SchemaError, Side, Unique,
};
use crate::value::{Json, Value};

/// The keys of all types of rules.
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleTree {
    rule: String,
    name: String,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    group: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    holds: Option<Holds>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    open_field: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    order_field: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    on_clash: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    on_gone: Option<String>,
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none",
        serialize_with = "value"
    )]
    min: Option<Value>,
    #[serde(
        default,
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none",
        serialize_with = "value"
    )]
    max: Option<Value>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    at_least: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    at_most: Option<String>,
}

/// When an entity is in the running: while a field is null.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Holds {
    field: String,
    is: String,
}

/// Each key, and which types of rules take it.
const KEYS: [(&str, &[&str]); 13] = [
    ("group", &["at_most_one", "unique"]),
    ("holds", &["at_most_one"]),
    ("open_field", &["at_most_one"]),
    ("order_field", &["at_most_one"]),
    ("time", &["at_most_one"]),
    ("field", &["unique", "reference", "bound", "expr"]),
    ("on_clash", &["unique"]),
    ("to", &["reference"]),
    ("on_gone", &["reference"]),
    ("min", &["bound"]),
    ("max", &["bound"]),
    ("at_least", &["expr"]),
    ("at_most", &["expr"]),
];

const WORDS: &str = "at_most_one, unique, reference, bound or expr";

impl RuleTree {
    pub(super) fn of(rule: &Rule) -> Self {
        let tree = Self { rule: rule.word().to_owned(), name: rule.name.clone(), ..Self::default() };
        let unless = |is_default: bool, word: String| (!is_default).then_some(word);
        match rule.what.clone() {
            RuleType::AtMostOne(AtMostOne { group, open, order, time }) => Self {
                group: Some(group),
                open_field: Some(open),
                order_field: Some(order),
                time: unless(time == OrderTime::default(), time.to_string()),
                ..tree
            },
            RuleType::Unique(Unique { group, field, on_clash }) => Self {
                group: Some(group),
                field: Some(field),
                on_clash: unless(on_clash == OnClash::default(), on_clash.to_string()),
                ..tree
            },
            RuleType::Reference(Reference { field, to, on_gone }) => Self {
                field: Some(field),
                to: Some(to),
                on_gone: unless(on_gone == OnGone::default(), on_gone.to_string()),
                ..tree
            },
            RuleType::Bound(Bound { field, min, max }) => Self { field: Some(field), min, max, ..tree },
            RuleType::Expr(Expr { field, side: Side::AtLeast, other }) => {
                Self { field: Some(field), at_least: Some(other), ..tree }
            }
            RuleType::Expr(Expr { field, side: Side::AtMost, other }) => {
                Self { field: Some(field), at_most: Some(other), ..tree }
            }
            RuleType::Custom(_) => tree,
        }
    }

    pub(super) fn read(self, kind: &str) -> Result<(String, RuleType), SchemaError> {
        let (kind, name) = (kind.to_owned(), self.name.clone());
        if self.rule == "custom" {
            let why = "it is a function: declare this schema in Rust".to_owned();
            return Err(SchemaError::RuleKeys { kind, name, why });
        }
        if !KEYS.iter().any(|(_, words)| words.contains(&self.rule.as_str())) {
            return Err(SchemaError::UnknownRule { kind, rule: self.rule, name, known: WORDS });
        }
        let misplaced = KEYS
            .iter()
            .zip(self.given())
            .find(|((_, words), given)| *given && !words.contains(&self.rule.as_str()));
        if let Some(((key, words), _)) = misplaced {
            let why =
                format!("`{key}` belongs to {}, and this is a {}: remove it", words.join(", "), self.rule);
            return Err(SchemaError::RuleKeys { kind, name, why });
        }
        let what = self.what().map_err(|why| SchemaError::RuleKeys { kind, name: name.clone(), why })?;
        Ok((name, what))
    }

    /// Which of [`KEYS`] are there.
    fn given(&self) -> [bool; KEYS.len()] {
        [
            self.group.is_some(),
            self.holds.is_some(),
            self.open_field.is_some(),
            self.order_field.is_some(),
            self.time.is_some(),
            self.field.is_some(),
            self.on_clash.is_some(),
            self.to.is_some(),
            self.on_gone.is_some(),
            self.min.is_some(),
            self.max.is_some(),
            self.at_least.is_some(),
            self.at_most.is_some(),
        ]
    }

    fn what(self) -> Result<RuleType, String> {
        let lacks = |key: &str| format!("it lacks `{key}`: add it");
        let field = |field: Option<String>| field.ok_or_else(|| lacks("field"));
        Ok(match self.rule.as_str() {
            "at_most_one" => {
                let open = self.open_field.ok_or_else(|| lacks("open_field"))?;
                if let Some(Holds { field, is }) = self.holds
                    && (field != open || is != "null")
                {
                    return Err(format!(
                        "it holds while `{field}` is `{is}`, and shows `{open}` of those that must not: use \
                         `{open}` and `null`"
                    ));
                }
                RuleType::AtMostOne(AtMostOne {
                    group: self.group.ok_or_else(|| lacks("group"))?,
                    open,
                    order: self.order_field.ok_or_else(|| lacks("order_field"))?,
                    time: word(OrderTime::ALL, "time", self.time)?,
                })
            }
            "unique" => RuleType::Unique(Unique {
                group: self.group.ok_or_else(|| lacks("group"))?,
                field: field(self.field)?,
                on_clash: word(OnClash::ALL, "on_clash", self.on_clash)?,
            }),
            "reference" => RuleType::Reference(Reference {
                field: field(self.field)?,
                to: self.to.ok_or_else(|| lacks("to"))?,
                on_gone: word(OnGone::ALL, "on_gone", self.on_gone)?,
            }),
            "bound" => RuleType::Bound(Bound { field: field(self.field)?, min: self.min, max: self.max }),
            _ => {
                let (side, other) = match (self.at_least, self.at_most) {
                    (Some(other), None) => (Side::AtLeast, other),
                    (None, Some(other)) => (Side::AtMost, other),
                    _ => {
                        return Err(
                            "it needs either `at_least` or `at_most`: name the other field".to_owned()
                        );
                    }
                };
                RuleType::Expr(Expr { field: field(self.field)?, side, other })
            }
        })
    }
}

fn word<T: Copy + Default + std::fmt::Display>(
    all: &[T],
    key: &str,
    word: Option<String>,
) -> Result<T, String> {
    let Some(word) = word else { return Ok(T::default()) };
    all.iter().copied().find(|one| one.to_string() == word).ok_or_else(|| {
        let known: Vec<_> = all.iter().map(T::to_string).collect();
        format!("`{key}` is `{word}`: use {}", known.join(" or "))
    })
}

pub(super) fn value<S: serde::Serializer>(value: &Option<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(Json).serialize(serializer)
}
