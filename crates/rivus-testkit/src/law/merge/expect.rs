//! What "happened before" alone says about a view.

use std::collections::BTreeSet;

use rivus_core::edit::{Action, Op};
use rivus_core::value::Value;

use super::{Law, Made, View, What, Written, life};

/// Whether an operation deletes or revives, and what it writes, given what its author looked at.
pub(super) fn written(op: &Op, before: &View) -> (Option<bool>, Vec<Written>) {
    let shows = |slot: &str| before.get(&op.id).and_then(|slots| slots.get(slot));
    let write = |slot: String, value: Option<Value>| {
        let needless = shows(&slot).map(Vec::as_slice).unwrap_or_default() == value.as_slice();
        Written { slot, what: What::Value(value), needless }
    };
    let writes = match &op.action {
        Action::Put(fields) => fields.iter().map(|(f, v)| write(f.clone(), Some(v.clone()))).collect(),
        Action::Add { field, key } => vec![write(format!("{field}/{key}"), Some(Value::Bool(true)))],
        Action::Remove { field, key } => vec![write(format!("{field}/{key}"), None)],
        Action::SetKey { field, key, value } => vec![write(format!("{field}/{key}"), Some(value.clone()))],
        Action::Inc { field, by } => {
            vec![Written { slot: field.clone(), what: What::Count(*by), needless: false }]
        }
        Action::Delete | Action::Revive | Action::Alias { .. } => Vec::new(),
    };
    (life(&op.action), writes)
}

/// What the author of an edit does not see of it, and what shows instead.
pub(super) fn own_edit<S>(made: &Made<S>, op: &Op, before: &View, after: &View) -> Option<(String, String)> {
    let entity = after.get(&op.id);
    let told = |what: &str| Some((format!("after {op:?} its author sees {what}"), format!("{after:?}")));
    match made.life {
        Some(false) if entity.is_some() => return told("the entity still there"),
        Some(true) if entity.is_none() => return told("the entity still gone"),
        _ => {}
    }
    // An edit of what does not show may stay out of sight.
    let entity = entity.or_else(|| if before.contains_key(&op.id) { Some(NOTHING) } else { None })?;
    for write in &made.writes {
        let shown = entity.get(&write.slot).map(Vec::as_slice).unwrap_or_default();
        let right = match &write.what {
            What::Value(value) => shown == value.as_slice(),
            What::Count(by) => {
                let had = before.get(&op.id).and_then(|slots| slots.get(&write.slot));
                count(shown) == count(had.map(Vec::as_slice).unwrap_or_default()) + i128::from(*by)
            }
        };
        if !right {
            return told(&format!("another `{}`", write.slot));
        }
    }
    None
}

const NOTHING: &std::collections::BTreeMap<String, Vec<Value>> = &std::collections::BTreeMap::new();

/// The first thing in `view` that no merge may show to someone who received the edits of `set`; `whole` if every edit
/// that those saw is among them.
pub(super) fn implausible<S>(made: &[Made<S>], view: &View, set: u64, whole: bool) -> Option<(Law, String)> {
    let delivered = Delivered { made, set };
    let ids: BTreeSet<_> = delivered.edits().map(|(_, m)| m.id.as_str()).collect();
    if let Some(id) = view.keys().find(|id| !ids.contains(id.as_str())) {
        return Some((Law::NothingLost, format!("{id} shows, and nobody made it")));
    }
    ids.into_iter().find_map(|id| delivered.entity(id, view, whole))
}

/// Whether the edit numbered `lost` may be lost without anybody seeing a difference: whatever it wrote was written over
/// by somebody who had seen it.
pub(super) fn dispensable<S>(made: &[Made<S>], lost: usize) -> bool {
    let Some(gone) = made.get(lost) else { return false };
    let over = |slot: &str| {
        made.iter().any(|m| {
            let wrote = |w: &Written| w.slot == slot && !w.needless && matches!(w.what, What::Value(_));
            m.saw >> lost & 1 == 1 && m.id == gone.id && m.writes.iter().any(wrote)
        })
    };
    gone.life.is_none() && !gone.writes.is_empty() && gone.writes.iter().all(|w| over(&w.slot))
}

struct Delivered<'d, S> {
    made: &'d [Made<S>],
    set: u64,
}

impl<'d, S> Delivered<'d, S> {
    fn edits(&self) -> impl Iterator<Item = (usize, &'d Made<S>)> {
        let set = self.set;
        self.made.iter().enumerate().filter(move |(n, _)| set >> n & 1 == 1)
    }

    fn entity(&self, id: &str, view: &View, whole: bool) -> Option<(Law, String)> {
        let edits: Vec<_> = self.edits().filter(|(_, m)| m.id == id).collect();
        let all: u64 = edits.iter().fold(0, |all, (n, _)| all | 1 << n);
        let lives = |alive: bool| edits.iter().filter(move |(_, m)| m.life == Some(alive));
        let deletes: u64 = lives(false).fold(0, |all, (n, _)| all | 1 << n);
        let last = |n: &usize, m: &Made<S>, of: u64| of & !(m.saw | 1 << n) == 0;
        let Some(shown) = view.get(id) else {
            let revived = lives(true).any(|(n, m)| last(n, m, deletes));
            let made =
                edits.iter().any(|(_, m)| m.writes.iter().any(|w| !matches!(w.what, What::Value(None))));
            let must_show = made && (deletes == 0 || revived);
            return must_show
                .then(|| (Law::NothingLost, format!("{id} does not show, and no deletion stands")));
        };
        if lives(false).any(|(n, m)| last(n, m, all)) {
            return Some((
                Law::SeenIsReplaced,
                format!("{id} shows; who deleted it last had seen every edit"),
            ));
        }
        let slots: BTreeSet<_> =
            edits.iter().flat_map(|(_, m)| &m.writes).map(|write| write.slot.as_str()).collect();
        if let Some(slot) = shown.keys().find(|slot| !slots.contains(slot.as_str())) {
            return Some((Law::NothingLost, format!("`{slot}` of {id} shows, and nobody wrote it")));
        }
        slots.into_iter().find_map(|slot| {
            let got = shown.get(slot).map(Vec::as_slice).unwrap_or_default();
            self.slot(id, slot, got, whole)
        })
    }

    fn slot(&self, id: &str, slot: &str, got: &[Value], whole: bool) -> Option<(Law, String)> {
        let mut sum = None;
        let mut writes: Vec<(usize, u64, bool, Option<&Value>)> = Vec::new();
        for (n, made) in self.edits().filter(|(_, m)| m.id == id) {
            for write in made.writes.iter().filter(|w| w.slot == slot) {
                match &write.what {
                    What::Count(by) => sum = Some(sum.unwrap_or(0) + i128::from(*by)),
                    What::Value(value) => writes.push((n, made.saw, write.needless, value.as_ref())),
                }
            }
        }
        if let Some(sum) = sum {
            let wrong = whole && count(got) != sum;
            return wrong
                .then(|| (Law::NothingLost, format!("`{slot}` of {id} shows {got:?}, the sum is {sum}")));
        }
        // A needless write is one for some merges and none for others: either way is right.
        let seen = |needless: bool| {
            writes.iter().filter(|w| needless || !w.2).fold(0, |seen, w| seen | (w.1 & !(1 << w.0)))
        };
        let mut may: Vec<_> = writes
            .iter()
            .filter(|(n, _, needless, _)| {
                seen(true) >> n & 1 == 0 || (!needless && seen(false) >> n & 1 == 0)
            })
            .map(|w| w.3)
            .collect();
        if writes.iter().all(|w| w.2) {
            may.push(None);
        }
        if got.is_empty() && !may.contains(&None) {
            return Some((Law::NothingLost, format!("`{slot}` of {id} does not show; it may be {may:?}")));
        }
        let wrong = got.iter().find(|value| !may.contains(&Some(value)))?;
        let law =
            if writes.iter().any(|w| w.3 == Some(wrong)) { Law::SeenIsReplaced } else { Law::NothingLost };
        Some((law, format!("`{slot}` of {id} shows {wrong:?}; of what nobody replaced it may be {may:?}")))
    }
}

/// A counter's sum.
fn count(shown: &[Value]) -> i128 {
    match shown {
        [Value::Int(sum)] => i128::from(*sum),
        _ => 0,
    }
}
