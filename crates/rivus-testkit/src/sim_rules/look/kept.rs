//! What rules promise, asked of the views alone.

use std::collections::{BTreeMap, BTreeSet};

use rivus_core::schema::{OnClash, OnGone, RuleType, Schema};
use rivus_core::value::Value;
use rivus_core::view::View;

use super::super::schema::has_star;
use super::super::site::{Key, Seen};
use super::super::{Finding, Oracle};
use super::shown;
use crate::model::rules::is_above;

/// Every rule holds in the views.
pub(super) fn check(schema: &Schema, seen: &Seen) -> Result<(), Finding> {
    let there: BTreeMap<&Key, &View> = seen.views.iter().filter(|(_, view)| !view.deleted).collect();
    for kind in schema.kinds() {
        for rule in kind.rules() {
            let own =
                there.iter().filter(|(key, _)| key.0 == kind.name).map(|(key, view)| (key.1.as_str(), *view));
            let own: Vec<(&str, &View)> = own.collect();
            let kept = match &rule.what {
                RuleType::AtMostOne(what) => {
                    let open = own.iter().filter(|(_, view)| shown(view, &what.open) == Value::Null);
                    no_two(open.filter_map(|(id, view)| Some((*id, group(view, &what.group)?))))
                }
                RuleType::Unique(what) => {
                    let named = own.iter().filter(|(_, view)| shown(view, &what.field) != Value::Null);
                    no_two(named.filter_map(|(id, view)| {
                        let mut name = group(view, &what.group)?;
                        name.push(shown(view, &what.field));
                        Some((*id, name))
                    }))
                }
                RuleType::Custom(_) => {
                    let star = own.iter().filter(|(_, view)| has_star(&shown(view, "star")));
                    no_two(star.filter_map(|(id, view)| Some((*id, group(view, &["user".to_owned()])?))))
                }
                RuleType::Reference(what) => {
                    let target = |view: &View| (what.to.clone(), text(&shown(view, &what.field)));
                    let dangles = |view: &View| {
                        let value = shown(view, &what.field);
                        let is_absent = !seen.views.contains_key(&target(view));
                        let may_be_absent = what.on_gone == OnGone::Keep && is_absent;
                        let stands = |key: &Key| there.contains_key(&in_place_of(schema, seen, key));
                        value != Value::Null && !stands(&target(view)) && !may_be_absent
                    };
                    let found = own.iter().find(|(_, view)| dangles(view));
                    found.map(|(id, view)| format!("`{id}` names {:?}", shown(view, &what.field)))
                }
                RuleType::Bound(what) => {
                    let outside = |view: &View| {
                        let value = shown(view, &what.field);
                        what.min.as_ref().is_some_and(|min| is_above(min, &value))
                            || what.max.as_ref().is_some_and(|max| is_above(&value, max))
                    };
                    own.iter().find(|(_, view)| outside(view)).map(|(id, _)| format!("`{id}` is outside"))
                }
                RuleType::Expr(what) => {
                    let wrong = |view: &View| is_above(&shown(view, &what.other), &shown(view, &what.field));
                    own.iter().find(|(_, view)| wrong(view)).map(|(id, _)| format!("`{id}` ends too early"))
                }
            };
            if let Some(text) = kept {
                return Err((Oracle::Rule, format!("`{}` does not hold: {text}", rule.name)));
            }
        }
    }
    Ok(())
}

/// The entity that a rule shows in the place of this one, or else itself.
fn in_place_of(schema: &Schema, seen: &Seen, (kind, id): &Key) -> Key {
    let overlay = seen.evaluated.overlays.get(&(kind.clone(), id.clone(), None));
    let rival = overlay.filter(|overlay| {
        let mut rules = schema.kind(kind).into_iter().flat_map(|kind| kind.rules());
        rules.any(|rule| {
            let is_alias = matches!(&rule.what, RuleType::Unique(what) if what.on_clash == OnClash::Alias);
            rule.name == overlay.rule && is_alias
        })
    });
    (kind.clone(), rival.and_then(|overlay| overlay.rival.clone()).unwrap_or_else(|| id.clone()))
}

/// The group that an entry is in as a timer, in words.
pub(super) fn timer_group(schema: &Schema, view: &View) -> String {
    let rules = schema.kind("entry").into_iter().flat_map(|kind| kind.rules());
    let fields = rules.filter_map(|rule| {
        if let RuleType::AtMostOne(what) = &rule.what { Some(what.group.clone()) } else { None }
    });
    let values: Vec<_> = fields.flatten().map(|field| shown(view, &field)).collect();
    format!("{values:?}")
}

fn group(view: &View, fields: &[String]) -> Option<Vec<Value>> {
    let values: Vec<_> = fields.iter().map(|field| shown(view, field)).collect();
    (!values.contains(&Value::Null)).then_some(values)
}

fn text(value: &Value) -> String {
    if let Value::Text(text) = value { text.clone() } else { String::new() }
}

fn no_two<'s>(mut all: impl Iterator<Item = (&'s str, Vec<Value>)>) -> Option<String> {
    let mut seen = BTreeSet::new();
    all.find(|(_, place)| !seen.insert(place.clone()))
        .map(|(id, place)| format!("`{id}` is the second in {place:?}"))
}
