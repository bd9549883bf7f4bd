//! What is said of a field beside how it merges: who may write it, whether a lost value is written again, what shows
//! where nothing is held.
//!
//! None of it changes what is stored or how that merges.

use super::{Declared, FIELD_NAME_BYTES_MAX, Field, FieldType, Margin, Resolver, SchemaError};
use crate::value::Value;

/// Who may write a field.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Writers {
    /// Every replica.
    #[default]
    Everybody,
    /// The authority, and replicas that it has granted a rank above 0.
    Ranked,
}

/// What a replica does whose value of a field has lost to a concurrent one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum OnConflict {
    /// Nothing.
    #[default]
    Yield,
    /// It writes its value again, as a new edit that has seen the other.
    Restamp,
}

/// One thing said of a field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Mark {
    Writers(Writers),
    OnConflict(OnConflict),
    Was(String),
    Default(Value),
}

impl Mark {
    fn put_on(self, field: &mut Field) {
        match self {
            Self::Writers(writers) => field.writers = writers,
            Self::OnConflict(on_conflict) => field.on_conflict = on_conflict,
            Self::Was(was) => field.was = Some(was),
            Self::Default(value) => field.default = Some(value),
        }
    }
}

impl Field {
    /// A field of which nothing more is said.
    #[must_use]
    pub fn new(name: impl Into<String>, ty: FieldType) -> Self {
        Self {
            name: name.into(),
            ty,
            writers: Writers::default(),
            on_conflict: OnConflict::default(),
            was: None,
            default: None,
        }
    }

    fn is_marked(&self) -> bool {
        *self != Self::new(self.name.clone(), self.ty.clone())
    }
}

/// Puts marks on the fields, ascending by name, and checks that they can be kept.
pub(super) fn put_on(
    kind: &str,
    fields: &mut [Declared],
    marks: Vec<(String, Mark)>,
) -> Result<(), SchemaError> {
    let refused = |field: &str, why: String| {
        Err(SchemaError::FieldMark { kind: kind.to_owned(), field: field.to_owned(), why })
    };
    for (name, mark) in marks {
        match fields.binary_search_by(|d| d.field.name.as_str().cmp(&name)).map(|at| fields.get_mut(at)) {
            Ok(Some(declared)) => mark.put_on(&mut declared.field),
            _ => return refused(&name, "it is no field of it: declare it".to_owned()),
        }
    }
    let mut former: Vec<&str> = Vec::new();
    for declared in fields.iter() {
        let field = &declared.field;
        if !field.is_marked() {
            continue;
        }
        if declared.group.is_some() {
            let why = "it is a member of a group, which is one register: take it out of the group";
            return refused(&field.name, why.to_owned());
        }
        if let Some(why) = field.objection() {
            return refused(&field.name, why);
        }
        let Some(was) = &field.was else { continue };
        if fields.iter().any(|other| other.field.name == *was) || former.contains(&was.as_str()) {
            return refused(&field.name, format!("it was `{was}`, which another field is or was: take one"));
        }
        former.push(was);
    }
    Ok(())
}

impl Field {
    /// Why its marks cannot be kept.
    fn objection(&self) -> Option<String> {
        let one = crate::view::holds_one(&self.ty) && self.ty != FieldType::Multi;
        let tells = matches!(&self.ty, FieldType::Value { margin, resolver: Resolver::Newest }
            if *margin != Margin::ZERO);
        if self.on_conflict == OnConflict::Restamp && !tells {
            let why = "to write a lost value again it needs a margin and the resolver newest: without a margin nobody \
                       can tell a concurrent write from one that has seen it";
            return Some(why.to_owned());
        }
        if (self.was.is_some() || self.default.is_some()) && !one {
            let ty = &self.ty;
            return Some(format!(
                "it is \"{ty}\": only a field of one value can be renamed or have a default"
            ));
        }
        if self.was.as_ref().is_some_and(|was| !(1..=FIELD_NAME_BYTES_MAX).contains(&was.len())) {
            return Some(format!("its former name is not of 1 to {FIELD_NAME_BYTES_MAX} bytes"));
        }
        self.default
            .as_ref()
            .is_some_and(|value| !value.depth_ok())
            .then(|| "its default is too deep".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Schema;
    use super::*;

    fn refusal(fields: &str) -> String {
        let json = format!(r#"{{"kinds":{{"task":{{"fields":{{{fields}}},"groups":{{"g":["a","b"]}}}}}}}}"#);
        Schema::from_json_str(&json).unwrap_err().to_string()
    }

    #[test]
    fn what_is_said_of_a_field_is_kept_in_text() {
        let schema = Schema::builder()
            .kind("task", |k| {
                k.value("price")
                    .ranked("price")
                    .value_with("note", Margin::Ms(5), Resolver::Newest)
                    .restamp("note")
                    .value("title")
                    .renamed("title", "name")
                    .value("size")
                    .default_value("size", Value::Int(3))
            })
            .build()
            .unwrap();
        let json = concat!(
            r#"{"kinds":{"task":{"fields":{"note":{"margin_ms":5,"on_conflict":"restamp"},"#,
            r#""price":{"authority":true},"size":{"default":3},"title":{"was":"name"}}}}}"#
        );
        assert_eq!(schema.to_json(), json);
        assert_eq!(Schema::from_json_str(json).unwrap().to_json(), json);
    }

    #[test]
    fn marks_that_cannot_be_kept_are_refused() {
        for (fields, why) in [
            (r#""a":{"default":1},"b":{}"#, "member of a group"),
            (r#""a":{},"b":{},"c":{"on_conflict":"restamp"}"#, "needs a margin"),
            (
                r#""a":{},"b":{},"c":{"margin_ms":5,"resolver":"min","on_conflict":"restamp"}"#,
                "needs a margin",
            ),
            (r#""a":{},"b":{},"c":{"on_conflict":"fight"}"#, "on_conflict `fight`"),
            (r#""a":{},"b":{},"c":{"type":"set","was":"d"}"#, "only a field of one value"),
            (r#""a":{},"b":{},"c":{"type":"multi","default":1}"#, "only a field of one value"),
            (r#""a":{},"b":{},"c":{"was":"b"}"#, "another field is or was"),
            (r#""a":{},"b":{},"c":{"was":"e"},"d":{"was":"e"}"#, "another field is or was"),
            (r#""a":{},"b":{},"c":{"was":""}"#, "former name"),
        ] {
            let said = refusal(fields);
            assert!(said.contains(why) && said.contains("kind `task`"), "{fields}: {said}");
        }
        let undeclared = Schema::builder().kind("task", |k| k.ranked("price")).build();
        assert!(undeclared.unwrap_err().to_string().contains("declare it"));
    }

    #[test]
    fn who_may_write_a_field_is_part_of_its_policy() {
        let schema =
            |field| Schema::from_json_str(&format!(r#"{{"kinds":{{"k":{{"fields":{{{field}}}}}}}}}"#));
        let (plain, ranked) = (schema(r#""f":{}"#).unwrap(), schema(r#""f":{"authority":true}"#).unwrap());
        let said = plain.compare(&ranked).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(said.contains("field `f` of kind `k`") && said.contains("newest, ranked only"), "{said}");
        let told = ranked.policies();
        let told = told.iter().map(|(kind, field, policy)| (&kind[..], field.as_deref(), &policy[..]));
        assert_eq!(plain.compare_policies(told).len(), 1);
        assert!(plain.compare(&schema(r#""f":{"default":1,"was":"g"}"#).unwrap()).is_empty());
    }
}
