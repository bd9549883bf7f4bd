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

#[cfg(test)]
mod tests {
    use crate::schema::{OnClash, OnGone, Schema, Side};
    use crate::value::Value;

    /// Every type of rule, with every key, in canonical form.
    const ALL: &str = concat!(
        r#"{"kinds":{"entry":{"fields":{"a":{},"b":{},"c":{},"d":{},"e":{},"f":{},"g":{},"h":{},"user":{}},"#,
        r#""scope":"user","rules":["#,
        r#"{"rule":"unique","name":"alias","group":["user"],"field":"h","on_clash":"alias"},"#,
        r#"{"rule":"bound","name":"bound","field":"e","min":-1.5,"max":"z"},"#,
        r#"{"rule":"reference","name":"keep","field":"d","to":"project","on_gone":"keep"},"#,
        r#"{"rule":"expr","name":"least","field":"b","at_least":"a"},"#,
        r#"{"rule":"expr","name":"most","field":"f","at_most":"a"},"#,
        r#"{"rule":"at_most_one","name":"one","group":["user"],"open_field":"b","order_field":"a","time":"ms"},"#,
        r#"{"rule":"reference","name":"plain","field":"c","to":"project"},"#,
        r#"{"rule":"unique","name":"unique","group":["user"],"field":"g"}]},"#,
        r#""project":{},"todo":{"fields":{"project":{}},"rules":["#,
        r#"{"rule":"reference","name":"cascade","field":"project","to":"project","on_gone":"cascade"}]}},"epoch":4}"#
    );

    #[test]
    fn each_rule_comes_back_from_text_as_it_was() {
        let schema = Schema::from_json_str(ALL).unwrap();
        assert_eq!(schema.to_json(), ALL);
        let built = Schema::builder()
            .epoch(4)
            .kind("entry", |k| {
                let fields = ["a", "b", "c", "d", "e", "f", "g", "h", "user"];
                fields
                    .into_iter()
                    .fold(k, crate::schema::KindBuilder::value)
                    .scope("user")
                    .at_most_one_ms("one", ["user"], "b", "a")
                    .unique("unique", ["user"], "g")
                    .unique_with("alias", ["user"], "h", OnClash::Alias)
                    .reference("plain", "c", "project", OnGone::Nullify)
                    .reference("keep", "d", "project", OnGone::Keep)
                    .bound("bound", "e", Value::Float(-1.5), Value::from("z"))
                    .expr("least", "b", Side::AtLeast, "a")
                    .expr("most", "f", Side::AtMost, "a")
            })
            .kind("project", |k| k)
            .kind("todo", |k| k.value("project").reference("cascade", "project", "project", OnGone::Cascade))
            .build()
            .unwrap();
        assert_eq!(built.to_json(), ALL);
        assert_eq!(built.fingerprint(), schema.fingerprint());
    }

    #[test]
    #[cfg(feature = "toml")]
    fn rules_in_toml_are_those_in_json() {
        let value: serde_json::Value = serde_json::from_str(ALL).unwrap();
        let toml = toml::to_string(&value).unwrap();
        assert!(toml.contains("[[kinds.entry.rules]]"), "{toml}");
        assert_eq!(Schema::from_toml_str(&toml).unwrap().to_json(), ALL);
    }

    #[test]
    fn rules_of_another_form_are_refused_by_name() {
        for (rule, why) in [
            (r#"{"rule":"unique","name":"r","field":"a"}"#, "it lacks `group`"),
            (r#"{"rule":"at_most_one","name":"r","group":[],"open_field":"a"}"#, "it lacks `order_field`"),
            (r#"{"rule":"reference","name":"r","field":"a"}"#, "it lacks `to`"),
            (r#"{"rule":"bound","name":"r","field":"a"}"#, "no min and no max"),
            (r#"{"rule":"bound","name":"r","field":"a","min":2,"max":1}"#, "min is above its max"),
            (r#"{"rule":"bound","name":"r","field":"a","min":2,"group":[]}"#, "`group` belongs to"),
            (r#"{"rule":"expr","name":"r","field":"a"}"#, "either `at_least` or `at_most`"),
            (r#"{"rule":"expr","name":"r","field":"a","at_least":"a"}"#, "with itself"),
            (r#"{"rule":"unique","name":"r","group":[],"field":"a","on_clash":"fight"}"#, "rename or alias"),
            (r#"{"rule":"reference","name":"r","field":"a","to":"nobody"}"#, "kind `nobody`"),
            (r#"{"rule":"none","name":"r"}"#, "at_most_one, unique, reference, bound or expr"),
            (r#"{"rule":"custom","name":"r"}"#, "it is a function"),
            (
                r#"{"rule":"at_most_one","name":"r","group":[],"open_field":"a","order_field":"b",
                    "holds":{"field":"b","is":"null"}}"#,
                "use `a` and `null`",
            ),
        ] {
            let json = format!(r#"{{"kinds":{{"k":{{"fields":{{"a":{{}},"b":{{}}}},"rules":[{rule}]}}}}}}"#);
            let said = Schema::from_json_str(&json).unwrap_err().to_string();
            assert!(said.contains(why) && said.contains("`r`") && said.contains("`k`"), "{rule}: {said}");
        }
    }
}
