//! What the application sees of an entity: registers resolved by the reader's schema.
//!
//! Owns the resolvers and the shape of a view. Reading is a pure function of the registers: nothing is written
//! back, so replicas with different schemas still converge.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::address::{Parts, class};
use crate::register::{Candidate, Reach, Register};
use crate::row::{Corrupt, Row};
use crate::schema::{self, FieldType, Kind, Life, Margin, Resolver, SetWins, Slot};
use crate::value::{self, Json, Value};

/// Canonical bytes of `true` and `false`.
pub(crate) const NULL: &[u8] = &[0xf6];
pub(crate) const TRUE: &[u8] = &[0xf5];
pub(crate) const FALSE: &[u8] = &[0xf4];

/// One entity as the application sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct View {
    /// Whether it is deleted; then the fields are what a revival would show.
    pub deleted: bool,
    /// The fields that are present, sets and maps only if they are not empty.
    pub fields: BTreeMap<String, Shown>,
}

/// One field as the application sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shown {
    /// A value; for a multi field the list of all candidates, oldest first.
    Value(Value),
    /// The keys of a set.
    Set(BTreeSet<String>),
    /// The entries of a map.
    Map(BTreeMap<String, Value>),
    /// The sum of a counter.
    Counter(i128),
}

impl View {
    /// Resolves the registers of an entity's rows; `None` if there are none.
    ///
    /// # Errors
    /// [`Corrupt`] if a row is.
    pub fn read<'a>(kind: &Kind, rows: impl IntoIterator<Item = Row<'a>>) -> Result<Option<Self>, Corrupt> {
        let (mut view, mut former) = (Self::default(), Self::default());
        let mut held = false;
        for row in rows {
            for entry in row.entries() {
                let entry = entry?;
                let parts = Parts::parse(entry.address).ok_or(Corrupt)?;
                held = true;
                match (parts.class, kind.once(parts.name)) {
                    (class::FIELD, Some(field)) => former.add_one(&field.name, &field.ty, &entry.shown()?)?,
                    _ => view.add(kind, parts, &entry.shown()?)?,
                }
            }
        }
        for field in kind.stand_ins().filter(|_| held) {
            let found = former.fields.remove(&field.name);
            if let Some(shown) = found.or_else(|| field.default.clone().map(Shown::Value)) {
                view.fields.entry(field.name.clone()).or_insert(shown);
            }
        }
        Ok(held.then_some(view))
    }

    fn add(&mut self, kind: &Kind, parts: Parts<'_>, register: &Register<'_>) -> Result<(), Corrupt> {
        match (parts.class, kind.slot(parts.name)) {
            (class::LIFE, _) => self.deleted = is_dead(kind.life, register),
            (class::GROUP, _) => self.add_group(kind, parts.name, register)?,
            (class::FIELD, Slot::Field(field)) if holds_one(&field.ty) => {
                self.add_one(parts.name, &field.ty, register)?;
            }
            (class::FIELD, Slot::Open) => self.set(parts.name, register.newest().value)?,
            (class::KEY, Slot::Field(schema::Field { ty: FieldType::Set { wins }, .. })) => {
                let key = parts.text_key().ok_or(Corrupt)?;
                if is_in_set(*wins, register) {
                    let set = self.fields.entry(parts.name.to_owned()).or_insert(Shown::Set(BTreeSet::new()));
                    if let Shown::Set(keys) = set {
                        keys.insert(key.to_owned());
                    }
                }
            }
            (class::KEY, Slot::Field(schema::Field { ty: FieldType::Map, .. }) | Slot::Open) => {
                let bytes = register.newest().value;
                if bytes != value::ABSENT {
                    let entry = (parts.text_key().ok_or(Corrupt)?.to_owned(), decode(bytes)?);
                    let map = self.fields.entry(parts.name.to_owned()).or_insert(Shown::Map(BTreeMap::new()));
                    if let Shown::Map(entries) = map {
                        entries.insert(entry.0, entry.1);
                    }
                }
            }
            (class::COUNT, Slot::Field(schema::Field { ty: FieldType::Counter, .. }) | Slot::Open) => {
                let sum = self.fields.entry(parts.name.to_owned()).or_insert(Shown::Counter(0));
                if let Shown::Counter(sum) = sum {
                    *sum += i128::from(total(register));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add_one(&mut self, name: &str, ty: &FieldType, register: &Register<'_>) -> Result<(), Corrupt> {
        match computed(ty, register)? {
            Some(value) => drop(self.fields.insert(name.to_owned(), Shown::Value(value))),
            None => self.set(name, &resolve(ty, register)?)?,
        }
        Ok(())
    }

    fn add_group(&mut self, kind: &Kind, name: &str, register: &Register<'_>) -> Result<(), Corrupt> {
        let Some(group) = kind.group(name) else { return Ok(()) };
        let Ok(Value::Map(members)) = Value::decode(register.newest().value) else { return Ok(()) };
        for (member, value) in members {
            if group.members.contains(&member) {
                self.fields.insert(member, Shown::Value(value));
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &str, bytes: &[u8]) -> Result<(), Corrupt> {
        if bytes != value::ABSENT {
            self.fields.insert(name.to_owned(), Shown::Value(decode(bytes)?));
        }
        Ok(())
    }
}

/// As 4-replay and the command line print it: an object of the fields.
impl Serialize for View {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(&self.fields)
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // One by one: around the values of a multi field the list may be a level more than a value may have.
            Self::Value(Value::List(values)) => serializer.collect_seq(values.iter().map(Json)),
            Self::Value(value) => Json(value).serialize(serializer),
            Self::Set(keys) => serializer.collect_seq(keys),
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, &Json(value))?;
                }
                map.end()
            }
            Self::Counter(sum) => serializer.serialize_i128(*sum),
        }
    }
}

/// How far back a write with this margin reaches.
#[must_use]
pub fn reach(margin: Margin) -> Reach {
    match margin {
        Margin::Ms(0) => Reach::None,
        Margin::Ms(ms) => Reach::Ticks(crate::clock::ticks(ms)),
        Margin::Infinite => Reach::Infinite,
    }
}

/// How far back a write of the life register reaches.
pub(crate) fn life_reach(life: Life) -> Reach {
    if life == Life::Newest { Reach::None } else { Reach::Infinite }
}

/// Whether the life register says that the entity is deleted.
#[must_use]
pub fn is_dead(life: Life, register: &Register<'_>) -> bool {
    let dead = |c: &Candidate<'_>| c.value == FALSE;
    match life {
        Life::DeleteWins => register.alive.iter().any(dead),
        Life::EditRevives => register.alive.iter().all(dead),
        Life::Newest => dead(register.newest()),
    }
}

/// A replica's running total: any value but an integer counts 0.
pub(crate) fn total(register: &Register<'_>) -> i64 {
    match Value::decode(register.newest().value) {
        Ok(Value::Int(total)) => total,
        _ => 0,
    }
}

pub(crate) fn is_in_set(wins: SetWins, register: &Register<'_>) -> bool {
    match wins {
        SetWins::Add => register.alive.iter().any(|c| c.value == TRUE),
        SetWins::Remove => register.alive.iter().all(|c| c.value == TRUE),
    }
}

/// Whether the field is one register that holds a value.
pub(crate) fn holds_one(ty: &FieldType) -> bool {
    !matches!(ty, FieldType::Set { .. } | FieldType::Map | FieldType::Counter)
}

/// The canonical bytes that a field of one register shows.
///
/// # Errors
/// [`Corrupt`] if a candidate's value cannot be decoded where the resolver must look into it.
pub fn resolve<'a>(ty: &FieldType, register: &Register<'a>) -> Result<Cow<'a, [u8]>, Corrupt> {
    if let Some(chosen) = chosen(ty, register)? {
        return Ok(Cow::Borrowed(chosen.value));
    }
    let folded = computed(ty, register)?.unwrap_or(Value::Null);
    Ok(Cow::Owned(folded.to_bytes()))
}

/// The candidate that a field of one register shows; `None` if it shows what is made of all of them.
///
/// # Errors
/// [`Corrupt`] if a candidate's value cannot be decoded where the resolver must look into it.
pub(crate) fn chosen<'r, 'a>(
    ty: &FieldType,
    register: &'r Register<'a>,
) -> Result<Option<&'r Candidate<'a>>, Corrupt> {
    let alive = &register.alive;
    let resolver = match ty {
        FieldType::Value { resolver, .. } | FieldType::Custom { resolver } => resolver,
        FieldType::Max => &Resolver::Max,
        FieldType::Min => &Resolver::Min,
        FieldType::Flag => {
            let set = alive.iter().rfind(|c| c.value == TRUE);
            return Ok(Some(set.unwrap_or(register.newest())));
        }
        FieldType::Multi => return Ok(None),
        FieldType::Set { .. } | FieldType::Map | FieldType::Counter => &Resolver::Newest,
    };
    Ok(Some(match resolver {
        Resolver::Custom(_) => return Ok(None),
        _ if alive.len() == 1 => register.newest(),
        Resolver::Newest => register.newest(),
        Resolver::Oldest => alive.first().unwrap_or(register.newest()),
        Resolver::Rank => alive.iter().max_by_key(|c| (c.rank, c.stamp)).unwrap_or(register.newest()),
        Resolver::Min | Resolver::Max => {
            let mut ranked =
                alive.iter().map(|c| Ok((decode(c.value)?, c))).collect::<Result<Vec<_>, Corrupt>>()?;
            // Stable and ascending by stamp: of equal values the last is the newest.
            ranked.sort_by(|a, b| if *resolver == Resolver::Max { a.0.cmp(&b.0) } else { b.0.cmp(&a.0) });
            ranked.last().map_or(register.newest(), |(_, c)| *c)
        }
    }))
}

/// What the field shows where that is made of the candidates and not one of them. It may be nested deeper than what is
/// stored, so it does not go through bytes, whose reader refuses that.
fn computed(ty: &FieldType, register: &Register<'_>) -> Result<Option<Value>, Corrupt> {
    match ty {
        FieldType::Multi => all(register).map(Some),
        FieldType::Value { resolver: Resolver::Custom(custom), .. }
        | FieldType::Custom { resolver: Resolver::Custom(custom) } => fold(custom, register).map(Some),
        _ => Ok(None),
    }
}

fn all(register: &Register<'_>) -> Result<Value, Corrupt> {
    register.alive.iter().map(|c| decode(c.value)).collect::<Result<_, _>>().map(Value::List)
}

fn fold(custom: &schema::CustomResolver, register: &Register<'_>) -> Result<Value, Corrupt> {
    let values = register.alive.iter().map(|c| decode(c.value)).collect::<Result<Vec<_>, _>>()?;
    let candidates: Vec<_> = register
        .alive
        .iter()
        .zip(&values)
        .map(|(c, value)| schema::Candidate { stamp: c.stamp, rank: c.rank, value })
        .collect();
    Ok((custom.f)(&candidates))
}

/// A stored value; the absent marker where only a value makes sense reads as null.
fn decode(bytes: &[u8]) -> Result<Value, Corrupt> {
    if bytes == value::ABSENT { Ok(Value::Null) } else { Value::decode(bytes).map_err(|_| Corrupt) }
}
