//! A plan as a replay script, as far as that can tell it.

use std::fmt::Write;

use rivus_core::edit::{Action as EditAction, Op};
use rivus_core::value::Json;
use serde_json::{Map, Value as JsonValue, json};

use super::plan::{Action, Fault, Plan, Version, name};

/// The nearest replay script of a plan: its edits, whole syncs and restarts. `None` if its sites have different
/// schemas, which a script cannot tell.
///
/// A script has peers alone, and neither faults nor copies: whether it still shows the failure has to be tried.
#[must_use]
pub fn replay_script(plan: &Plan) -> Option<String> {
    if plan.sites.iter().any(|site| site.version != Version::New) {
        return None;
    }
    let schema: JsonValue = serde_json::from_str(&Version::New.schema().to_json()).ok()?;
    let mut script = format!("{}\n", json!({"rivus": "replay/1", "schema": schema}));
    for (number, site) in plan.sites.iter().enumerate() {
        line(&mut script, &json!({"do": "replica", "name": name(number), "rank": site.rank}));
    }
    let (mut passed, mut set) = (0_i64, vec![0_i64; plan.sites.len()]);
    for step in plan.steps.iter().flatten() {
        passed += i64::from(step.wait_ms);
        match &step.action {
            Action::Edit { on, ops } => {
                let at = super::site::BEGIN_MS + passed + plan.sites[*on].skew_ms + set[*on];
                for op in ops {
                    line(&mut script, &edit(op, &name(*on), at));
                }
            }
            Action::Sync { from, to, fault: Fault::None } => {
                line(&mut script, &json!({"do": "sync", "between": [name(*from), name(*to)]}));
            }
            Action::Restart { on } => line(&mut script, &json!({"do": "restart", "on": name(*on)})),
            Action::SetClock { on, by_ms } => set[*on] += by_ms,
            _ => {}
        }
    }
    line(&mut script, &json!({"do": "converge"}));
    Some(script)
}

pub(crate) fn line(script: &mut String, value: &JsonValue) {
    let _ = writeln!(script, "{value}");
}

pub(crate) fn edit(op: &Op, on: &str, at: i64) -> JsonValue {
    let value = |value: &rivus_core::value::Value| serde_json::to_value(Json(value)).unwrap_or_default();
    let mut step = Map::new();
    let mut put = |key: &str, value: JsonValue| step.insert(key.to_owned(), value);
    put("on", on.into());
    put("at", at.into());
    put("kind", op.kind.as_str().into());
    put("id", op.id.as_str().into());
    let verb = match &op.action {
        EditAction::Put(fields) => {
            let set: Map<_, _> = fields.iter().map(|(name, v)| (name.clone(), value(v))).collect();
            put("set", JsonValue::Object(set));
            "put"
        }
        EditAction::Add { field, key } | EditAction::Remove { field, key } => {
            put("field", field.as_str().into());
            put("key", key.as_str().into());
            if matches!(op.action, EditAction::Add { .. }) { "add" } else { "remove" }
        }
        EditAction::SetKey { field, key, value: v } => {
            put("field", field.as_str().into());
            put("key", key.as_str().into());
            put("value", value(v));
            "set_key"
        }
        EditAction::Inc { field, by } => {
            put("field", field.as_str().into());
            put("by", (*by).into());
            "inc"
        }
        EditAction::Delete => "delete",
        EditAction::Revive => "revive",
        EditAction::Alias { to } => {
            put("to", to.as_str().into());
            "alias"
        }
    };
    put("do", verb.into());
    JsonValue::Object(step)
}
