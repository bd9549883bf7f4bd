//! No two of a group show the same name.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use xxhash_rust::xxh3::xxh3_128;

use super::index::{NAMES, compact, place, prefix, put_place, value_len};
use super::{Facts, Laid};
use crate::canary::{Canary, is_on};
use crate::clock::Stamp;
use crate::schema::OnClash;
use crate::store::{CommitError, Store, StoreError};
use crate::value::{Json, Value};
use crate::work::Work;

/// How many hexadecimal digits of its hash a loser shows at least.
const DIGITS_MIN: usize = 4;

/// Under which key an entity is found, if it bears a name.
pub(super) fn entries(rule: usize, fields: &[usize], field: usize, id: &str, facts: &Facts) -> Vec<Vec<u8>> {
    let name = facts.value(field);
    let Some(group) = facts.group(fields).filter(|_| facts.is_there() && *name != Value::Null) else {
        return Vec::new();
    };
    let mut key = prefix(rule, NAMES, &[&group, &compact(name)]);
    put_place(&mut key, facts.claim(rule, &group).unwrap_or_else(|| facts.stamp(field)), id);
    vec![key]
}

fn digits(id: &str) -> String {
    format!("{:032x}", xxh3_128(id.as_bytes()))
}

fn as_text(name: &Value) -> String {
    match name {
        Value::Text(text) => text.clone(),
        other => serde_json::to_string(&Json(other)).unwrap_or_default(),
    }
}

/// The other name that reads like this one: `1` and "1" do.
fn reads_alike(name: &Value) -> Option<Value> {
    match name {
        Value::Text(text) => Value::from_json_str(text).ok().filter(|other| as_text(other) == *text),
        other => Some(Value::Text(as_text(other))),
    }
    .filter(|other| other != name)
}

impl<S: Store> Work<'_, S> {
    /// What an entity shows whose name another one claimed before it.
    pub(super) fn clashing(
        &mut self,
        rule: usize,
        fields: &[usize],
        field: usize,
        on_clash: OnClash,
        id: &str,
        facts: &Facts,
    ) -> Result<Option<Laid>, CommitError> {
        let name = facts.value(field);
        let Some(group) = facts.group(fields).filter(|_| facts.is_there() && *name != Value::Null) else {
            return Ok(None);
        };
        let own = digits(id);
        let short = |digits: &str| digits.get(..DIGITS_MIN).map(str::to_owned);
        let mut first = None;
        let own_place = (facts.claim(rule, &group).unwrap_or_else(|| facts.stamp(field)), id);
        // Only one whose digits begin like these could show the same: of this name, or of one that reads like it.
        let mut alike: Vec<(Stamp, String, String)> = Vec::new();
        for (number, name) in [Some(name.clone()), reads_alike(name)].into_iter().flatten().enumerate() {
            let family = prefix(rule, NAMES, &[&group, &compact(&name)]);
            let mut is_first = true;
            self.index().visit(&family, None, &mut |end, _| {
                let (claim, other) = place(end)?;
                if (claim, other) >= own_place {
                    return Ok(ControlFlow::Break(()));
                }
                let theirs = digits(other);
                if std::mem::take(&mut is_first) {
                    first = first.take().or((number == 0).then(|| other.to_owned()));
                } else if short(&theirs) == short(&own) {
                    alike.push((claim, other.to_owned(), theirs));
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        alike.sort();
        let Some(rival) = first else { return Ok(None) };
        if on_clash == OnClash::Alias {
            let (shown, hidden) = (Value::Bool(false), Value::Bool(true));
            return Ok(Some(Laid { rule, field: None, shown, hidden, rival: Some(rival), pins: false }));
        }
        let text = as_text(name);
        let mut taken = BTreeSet::new();
        let mut shown = String::new();
        for digits in alike.into_iter().map(|(_, _, digits)| digits).chain([own]) {
            shown = self.free_name(rule, &group, &text, &digits, &taken)?;
            taken.insert(shown.clone());
        }
        let shown = Value::Text(shown);
        Ok(Some(Laid {
            rule,
            field: Some(field),
            shown,
            hidden: name.clone(),
            rival: Some(rival),
            pins: false,
        }))
    }

    fn free_name(
        &self,
        rule: usize,
        group: &[u8],
        text: &str,
        digits: &str,
        taken: &BTreeSet<String>,
    ) -> Result<String, StoreError> {
        for len in DIGITS_MIN..digits.len() {
            let name = format!("{text} #{}", digits.get(..len).unwrap_or_default());
            if !taken.contains(&name) && !self.is_borne(rule, group, &name)? {
                return Ok(name);
            }
        }
        Ok(format!("{text} #{digits}"))
    }

    /// Whether somebody's register holds this name.
    fn is_borne(&self, rule: usize, group: &[u8], name: &str) -> Result<bool, StoreError> {
        if is_on(Canary::NamesNotLookedUp) {
            return Ok(false);
        }
        let name = compact(&Value::Text(name.to_owned()));
        let mut is_borne = false;
        self.index().visit(&prefix(rule, NAMES, &[group, &name]), None, &mut |_, _| {
            is_borne = true;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(is_borne)
    }

    /// Whose name may show otherwise after the entry of `id` at this key came or went.
    pub(super) fn renamed_by(&self, rule: usize, key: &[u8], id: &str) -> Result<Vec<String>, StoreError> {
        let rest = key.get(3..).unwrap_or_default();
        let group = value_len(rest).unwrap_or(rest.len());
        let name = rest.get(group..).and_then(value_len).unwrap_or_default();
        let (group, name) =
            (rest.get(..group).unwrap_or_default(), rest.get(group..group + name).unwrap_or_default());
        let digits_of = digits(id);
        let begin = digits_of.get(..DIGITS_MIN).unwrap_or_default();
        let mut renamed = self.family(rule, group, name, &[begin], 2)?;
        let Ok(name) = Value::decode(name) else { return Ok(renamed) };
        // Those that could show the same though they bear another name that reads alike.
        if let Some(other) = reads_alike(&name) {
            let begins: Vec<_> = renamed.iter().map(|id| digits(id)).chain([digits_of.clone()]).collect();
            let begins: Vec<_> = begins.iter().filter_map(|digits| digits.get(..DIGITS_MIN)).collect();
            renamed.extend(self.family(rule, group, &compact(&other), &begins, 0)?);
        }
        // A name may be what a loser of another name would show.
        if let Value::Text(text) = name
            && let Some((base, digits)) = text.rsplit_once(" #")
            && let Some(digits) = digits.get(..DIGITS_MIN)
        {
            let base = Value::Text(base.to_owned());
            for base in [reads_alike(&base), Some(base)].into_iter().flatten() {
                renamed.extend(self.family(rule, group, &compact(&base), &[digits], 0)?);
            }
        }
        Ok(renamed)
    }

    /// The first few of those that bear a name, and those whose digits begin like these, or like those of the first few.
    fn family(
        &self,
        rule: usize,
        group: &[u8],
        name: &[u8],
        begins: &[&str],
        first: usize,
    ) -> Result<Vec<String>, StoreError> {
        let (mut found, mut seen) = (Vec::new(), 0);
        let mut begins: Vec<String> = begins.iter().map(|begin| (*begin).to_owned()).collect();
        self.index().visit(&prefix(rule, NAMES, &[group, name]), None, &mut |end, _| {
            let (_, other) = place(end)?;
            let theirs = digits(other);
            if seen < first {
                begins.extend(theirs.get(..DIGITS_MIN).map(str::to_owned));
            }
            if begins.iter().any(|begin| theirs.starts_with(begin.as_str())) {
                found.push(other.to_owned());
            }
            seen += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }
}
