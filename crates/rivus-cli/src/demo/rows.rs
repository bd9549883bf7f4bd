//! Field by field: what each device typed, what all show, and why.
//!
//! Reads everything off the registers: a device's own write is the newest in a register that changed while the hub
//! was stopped; the reason follows from stamps, ranks and the field's policy.

use std::collections::BTreeMap;

use anyhow::Result;
use rivus::rivus_core::address::class;
use rivus::rivus_core::clock::whole_millis;
use rivus::{FieldType, Life, Margin, Resolver, Schema, SetWins, Shown, Value, View};
use serde::Serialize;

use super::NAMES;
use super::story::{KIND, Place, Snapshot, Told, Write, views};
use crate::table;

/// One field, or one key of it.
#[derive(Serialize, PartialEq, Debug)]
pub(super) struct Row {
    id: &'static str,
    field: String,
    /// By the phone and the laptop.
    typed: [Option<Typed>; 2],
    /// By the hub, the phone and the laptop.
    shown: [String; 3],
    why: String,
}

/// What a device did.
#[derive(Serialize, PartialEq, Debug)]
struct Typed {
    what: String,
    /// After the hub stopped.
    at_ms: i64,
}

impl Row {
    /// Whether all show the same.
    pub(super) fn is_agreed(&self) -> bool {
        let [hub, phone, laptop] = &self.shown;
        hub == phone && phone == laptop
    }

    pub(super) fn cells(&self) -> [String; 5] {
        let [phone, laptop] = self.typed.each_ref().map(|typed| match typed {
            Some(Typed { what, at_ms }) => format!("{what} (at {})", seconds(at_ms.unsigned_abs())),
            None => String::new(),
        });
        let [first, ..] = &self.shown;
        let shown = if self.is_agreed() {
            first.clone()
        } else {
            let each = NAMES.iter().zip(&self.shown).map(|(name, shown)| format!("{name}: {shown}"));
            each.collect::<Vec<_>>().join(", ")
        };
        [format!("{} {}", self.id, self.field), phone, laptop, shown, self.why.clone()]
    }
}

/// What a row is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Part {
    Life,
    Field(String),
    Key(String, String),
    Counter(String),
}

impl Part {
    fn of(place: &Place) -> Self {
        let name = place.name.clone();
        match place.class {
            class::LIFE => Self::Life,
            class::KEY => Self::Key(name, String::from_utf8_lossy(&place.key).into_owned()),
            class::COUNT => Self::Counter(name),
            _ => Self::Field(name),
        }
    }

    fn title(&self) -> String {
        match self {
            Self::Life => "(whole)".to_owned(),
            Self::Field(name) | Self::Counter(name) => name.clone(),
            Self::Key(name, key) => format!("{name}: {key}"),
        }
    }

    fn what(&self, write: &Write) -> String {
        match (self, &write.value) {
            (Self::Life, Value::Bool(false)) => "deleted".to_owned(),
            (Self::Life, _) => "revived".to_owned(),
            (Self::Key(..), Value::Bool(false)) => "removed".to_owned(),
            (Self::Key(..), _) => "added".to_owned(),
            (Self::Counter(_), Value::Int(by)) => format!("{by:+}"),
            (_, value) => table::value(value),
        }
    }

    fn shown(&self, view: &View) -> String {
        match self {
            Self::Life if view.deleted => "deleted".to_owned(),
            Self::Life => "there".to_owned(),
            _ if view.deleted => "(hidden)".to_owned(),
            Self::Key(name, key) => {
                let is_in = matches!(view.fields.get(name), Some(Shown::Set(keys)) if keys.contains(key));
                if is_in { "in" } else { "not in" }.to_owned()
            }
            Self::Field(name) | Self::Counter(name) => {
                view.fields.get(name).map_or_else(|| "absent".to_owned(), table::shown)
            }
        }
    }
}

/// What happened to one part.
#[derive(Default)]
struct Happened {
    /// By the phone and the laptop. A counter's write holds the difference.
    writes: [Option<Write>; 2],
    /// What is in the running at the hub. Of a counter: the total of each replica.
    merged: Vec<Write>,
    /// Of a counter: the sum before.
    before: i64,
}

type Parts = BTreeMap<(&'static str, Part), Happened>;

/// The rows, in the order of the first write of each.
pub(super) fn of(told: &Told, schema: &Schema) -> Result<Vec<Row>> {
    let mut parts = Parts::new();
    for (device, (before, edited)) in told.before.iter().zip(&told.edited).enumerate() {
        for (place, writes) in edited {
            let part = parts.entry((place.id, Part::of(place))).or_default();
            if before.get(place) == Some(writes) {
                continue;
            }
            if let (Some(slot), Some(own)) = (part.writes.get_mut(device), writes.last()) {
                *slot = Some(difference(place, own, before));
            }
        }
    }
    for (place, writes) in &told.merged {
        if let Some(part) = parts.get_mut(&(place.id, Part::of(place))) {
            part.merged.extend(writes.iter().cloned());
        }
    }
    let [before, _] = &told.before;
    for (place, writes) in before.iter().filter(|(place, _)| place.class == class::COUNT) {
        if let Some(part) = parts.get_mut(&(place.id, Part::of(place))) {
            part.before += writes.last().map_or(0, total);
        }
    }
    parts.retain(|_, happened| happened.writes.iter().any(Option::is_some));
    let first_write = |happened: &Happened| happened.writes.iter().flatten().map(|write| write.stamp).min();
    let mut ordered: Vec<_> = parts.iter().collect();
    ordered.sort_by_key(|(_, happened)| first_write(happened));
    ordered.into_iter().map(|((id, part), happened)| row(told, schema, id, part, happened, &parts)).collect()
}

fn row(
    told: &Told,
    schema: &Schema,
    id: &'static str,
    part: &Part,
    happened: &Happened,
    parts: &Parts,
) -> Result<Row> {
    let views = views(told, id)?;
    let at_ms = |write: &Write| {
        i64::try_from(whole_millis(write.stamp.time)).unwrap_or(i64::MAX).saturating_sub(told.stopped_ms)
    };
    let mut typed = happened
        .writes
        .each_ref()
        .map(|write| write.as_ref().map(|write| Typed { what: part.what(write), at_ms: at_ms(write) }));
    if *part == Part::Life {
        // Against what others did to its fields.
        for (device, typed) in typed.iter_mut().enumerate().filter(|(_, typed)| typed.is_none()) {
            let edits = parts.iter().filter(|((of, part), _)| *of == id && *part != Part::Life);
            let mut writes = edits.filter_map(|((_, part), h)| Some((part, h.writes.get(device)?.as_ref()?)));
            *typed = writes
                .next()
                .map(|(part, write)| Typed { what: format!("edited {}", part.title()), at_ms: at_ms(write) });
        }
    }
    let shown = views.each_ref().map(|view| part.shown(view));
    let [hub, ..] = &views;
    let why = if hub.deleted && *part != Part::Life {
        "kept beneath the deletion: a revival shows it".to_owned()
    } else {
        why(schema, part, happened)
    };
    Ok(Row { id, field: part.title(), typed, shown, why })
}

/// A counter's register holds a total: what counts is by how much it rose.
fn difference(place: &Place, own: &Write, before: &Snapshot) -> Write {
    let mut write = own.clone();
    if place.class == class::COUNT {
        let was = before.get(place).and_then(|writes| writes.last()).map_or(0, total);
        write.value = Value::Int(total(own) - was);
    }
    write
}

fn total(write: &Write) -> i64 {
    match write.value {
        Value::Int(total) => total,
        _ => 0,
    }
}

/// Why the hub shows what it shows.
fn why(schema: &Schema, part: &Part, happened: &Happened) -> String {
    let kind = schema.kind(KIND);
    let ty = |name: &str| kind.and_then(|kind| kind.field(name)).map_or(&FieldType::PLAIN, |field| &field.ty);
    let [_, phone, laptop] = NAMES;
    match (part, &happened.writes) {
        (Part::Life, _) => why_life(kind.map_or(Life::default(), |kind| kind.life), &happened.merged),
        (Part::Counter(_), writes) => {
            let steps = writes.iter().flatten().map(|write| total(write).to_string());
            let before = (happened.before != 0).then(|| format!("{} before", happened.before));
            let sum = before.into_iter().chain(steps).collect::<Vec<_>>().join(" + ");
            format!("{sum}: every increment counts")
        }
        (_, [Some(_), None]) => format!("only the {phone} wrote it"),
        (_, [None, Some(_)]) => format!("only the {laptop} wrote it"),
        (Part::Key(name, _), [Some(_), Some(_)]) => why_key(ty(name), &happened.merged),
        (Part::Field(name), [Some(one), Some(two)]) => why_field(ty(name), one, two, &happened.merged),
        (_, [None, None]) => "nobody wrote it".to_owned(),
    }
}

fn why_life(life: Life, merged: &[Write]) -> String {
    let dead = merged.iter().any(|write| write.value == Value::Bool(false));
    match (life, dead) {
        (Life::DeleteWins, true) => "a delete wins over an edit that had not seen it",
        (Life::EditRevives, _) => "an edit that had not seen the delete wins over it",
        (Life::Newest, _) => "the newest delete or revival wins",
        (Life::DeleteWins, false) => "no delete is left that somebody had not seen",
    }
    .to_owned()
}

fn why_key(ty: &FieldType, merged: &[Write]) -> String {
    let says = |what: bool| merged.iter().any(|write| write.value == Value::Bool(what));
    match (says(true), says(false), ty) {
        (true, true, FieldType::Set { wins: SetWins::Add }) => {
            "both are kept: an add wins over a remove that had not seen it"
        }
        (true, true, _) => "both are kept: a remove wins over an add that had not seen it",
        (true, false, _) => "both added it",
        (false, ..) => "both removed it",
    }
    .to_owned()
}

fn why_field(ty: &FieldType, one: &Write, two: &Write, merged: &[Write]) -> String {
    let (older, newer) = if one.stamp < two.stamp { (one, two) } else { (two, one) };
    let apart = seconds(whole_millis(newer.stamp.time).saturating_sub(whole_millis(older.stamp.time)));
    let margin = match ty.margin() {
        Margin::Ms(ms) => seconds(ms),
        Margin::Infinite => "infinite".to_owned(),
    };
    if !merged.iter().any(|write| write.stamp == older.stamp) {
        let beyond =
            if ty.margin() == Margin::ZERO { String::new() } else { format!(", beyond the {margin} margin") };
        return format!("newer by {apart}{beyond}");
    }
    let inside = format!("inside the {margin} margin");
    let FieldType::Value { resolver, .. } = ty else {
        return format!("both are kept, as of a field that is {ty}");
    };
    match resolver {
        Resolver::Rank if older.rank != newer.rank => {
            let (high, low) = (older.rank.max(newer.rank), older.rank.min(newer.rank));
            format!("{inside} the higher rank wins ({high} over {low})")
        }
        Resolver::Rank => format!("{inside} and of equal rank: newer by {apart}"),
        Resolver::Newest => format!("{inside} the newer wins, by {apart}"),
        Resolver::Oldest => format!("{inside} the older wins, by {apart}"),
        Resolver::Min => format!("{inside} the lesser value wins"),
        Resolver::Max => format!("{inside} the greater value wins"),
        Resolver::Custom(custom) => format!("{inside} `{}` decides", custom.name),
    }
}

/// Tenths of seconds, as text.
fn seconds(ms: u64) -> String {
    match ms % 1000 {
        0 => format!("{} s", ms / 1000),
        rest => format!("{}.{} s", ms / 1000, rest / 100),
    }
}

#[cfg(test)]
mod tests {
    use rivus::rivus_core::clock::{Stamp, ticks};
    use rivus::rivus_core::id::ReplicaId;

    use super::*;

    fn write(ms: u64, replica: u128, rank: u8, value: impl Into<Value>) -> Write {
        let stamp = Stamp { generation: 0, time: ticks(ms), replica: ReplicaId::from_u128(replica) };
        Write { stamp, rank, value: value.into() }
    }

    #[test]
    fn the_reason_follows_from_stamps_ranks_and_policy() {
        let (old, new) = (write(1000, 1, 5, "a"), write(3500, 2, 0, "b"));
        let both = [old.clone(), new.clone()];
        let ranked = FieldType::Value { margin: Margin::Ms(5000), resolver: Resolver::Rank };
        assert_eq!(why_field(&FieldType::PLAIN, &old, &new, &both[1..]), "newer by 2.5 s");
        assert_eq!(
            why_field(&ranked, &new, &old, &both),
            "inside the 5 s margin the higher rank wins (5 over 0)"
        );
        assert_eq!(why_field(&ranked, &old, &new, &both[1..]), "newer by 2.5 s, beyond the 5 s margin");
        let oldest = FieldType::Value { margin: Margin::Ms(5000), resolver: Resolver::Oldest };
        assert_eq!(why_field(&oldest, &old, &new, &both), "inside the 5 s margin the older wins, by 2.5 s");
        let set = FieldType::Set { wins: SetWins::Add };
        let (added, removed) = (write(1, 1, 0, true), write(2, 2, 0, false));
        assert!(why_key(&set, &[added.clone(), removed]).contains("an add wins"));
        assert_eq!(why_key(&set, &[added]), "both added it");
    }

    #[test]
    fn a_row_that_is_not_agreed_names_who_shows_what() {
        let shown = ["1".to_owned(), "1".to_owned(), "2".to_owned()];
        let row = Row { id: "offer", field: "hours".into(), typed: [None, None], shown, why: String::new() };
        assert!(!row.is_agreed());
        assert_eq!(row.cells()[3], "hub: 1, phone: 1, laptop: 2");
    }
}
