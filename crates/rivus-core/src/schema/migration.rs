//! Changes of policy that have a name.
//!
//! A store remembers how it merged when it was last opened. A program whose schema merges otherwise is refused unless
//! it declares the way from there: so nobody changes a policy by mistake, on one device of many. No data is rewritten.

use super::{Kind, SchemaError};

/// One change of the policy of a field, or of the life of a kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Migration {
    /// Its name, unlike that of any other of the kind.
    pub name: String,
    /// The field; `None` for the kind's life.
    pub field: Option<String>,
    /// The policy before, in words; see [`Schema::policies`](super::Schema::policies).
    pub from: String,
    /// The policy after, in words.
    pub to: String,
}

impl Kind {
    /// The declared policy, in words.
    fn policy_of(&self, field: Option<&str>) -> Option<String> {
        match field {
            None => Some(self.life.to_string()),
            Some(field) => self.declared(field).map(|declared| self.policy(declared)),
        }
    }

    /// The names of the migrations that lead from a policy to what is declared now, if there are such.
    #[must_use]
    pub fn way(&self, field: Option<&str>, from: &str) -> Option<Vec<&str>> {
        let now = self.policy_of(field)?;
        let (mut names, mut at) = (Vec::new(), from);
        while at != now {
            let next =
                self.migrations.iter().find(|next| next.field.as_deref() == field && next.from == at)?;
            if names.contains(&next.name.as_str()) {
                return None;
            }
            names.push(next.name.as_str());
            at = &next.to;
        }
        Some(names)
    }
}

/// Checks that each leads to what is declared.
pub(super) fn check(kind: &Kind) -> Result<(), SchemaError> {
    for (at, migration) in kind.migrations.iter().enumerate() {
        let refused = |why: &str| {
            let (kind, name, why) = (kind.name.clone(), migration.name.clone(), why.to_owned());
            Err(SchemaError::Migration { kind, name, why })
        };
        let others = || kind.migrations.iter().take(at);
        if others().any(|other| other.name == migration.name) {
            return refused("it is declared twice: name one otherwise");
        }
        if others().any(|other| (&other.field, &other.from) == (&migration.field, &migration.from)) {
            return refused("another one starts from the same policy: remove one");
        }
        if kind.way(migration.field.as_deref(), &migration.from).is_none() {
            return refused(
                "it does not lead to the policy that is declared: change its `to`, or add what follows",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Schema;
    use super::*;

    const PLAIN: &str = "value, margin 0 ms, newest";

    fn schema(migrations: &str) -> Result<Schema, SchemaError> {
        Schema::from_json_str(&format!(
            r#"{{"kinds":{{"task":{{"fields":{{"owner":{{"margin_ms":5}}}},"migrations":[{migrations}]}}}}}}"#
        ))
    }

    fn step(name: &str, from: &str, to: &str) -> String {
        format!(r#"{{"name":"{name}","field":"owner","from":"{from}","to":"{to}"}}"#)
    }

    #[test]
    fn migrations_lead_from_older_policies_to_the_declared_one() {
        let now = "value, margin 5 ms, newest";
        let steps = [step("first", PLAIN, "multi"), step("second", "multi", now)].join(",");
        let schema = schema(&steps).unwrap();
        let task = schema.kind("task").unwrap();
        assert_eq!(task.way(Some("owner"), PLAIN), Some(vec!["first", "second"]));
        assert_eq!(task.way(Some("owner"), "multi"), Some(vec!["second"]));
        assert_eq!(task.way(Some("owner"), now), Some(vec![]));
        assert_eq!((task.way(Some("owner"), "max"), task.way(None, "newest")), (None, None));
        assert_eq!(Schema::from_json_str(&schema.to_json()).unwrap().to_json(), schema.to_json());
    }

    #[test]
    fn migrations_that_lead_nowhere_are_refused() {
        let now = "value, margin 5 ms, newest";
        for (steps, why) in [
            (step("a", PLAIN, "multi"), "does not lead"),
            ([step("a", PLAIN, now), step("a", "multi", now)].join(","), "declared twice"),
            ([step("a", PLAIN, now), step("b", PLAIN, now)].join(","), "same policy"),
            ([step("a", PLAIN, "multi"), step("b", "multi", PLAIN)].join(","), "does not lead"),
        ] {
            let said = schema(&steps).unwrap_err().to_string();
            assert!(said.contains(why) && said.contains("`task`"), "{said}");
        }
    }
}
