//! From the writes in the running to what shows: resolvers, life, sets, maps, counters, groups.

use std::collections::{BTreeMap, BTreeSet};

use rivus_core::clock::Stamp;
use rivus_core::schema::{Candidate, FieldType, Kind, Life, Resolver, Schema, SetWins, Slot};
use rivus_core::value::Value;

use super::draft::Draft;
use super::{Address, Content, Entity, Member, Model, Shown, Views};

/// An entity as a replica sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) deleted: bool,
    /// Those of a deleted entity are what a revival would show.
    pub(super) fields: BTreeMap<String, Shown>,
}

/// A write in the running.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running<'w> {
    stamp: Stamp,
    rank: u8,
    content: &'w Content,
}

/// Everything that a replica shows: its registers, then what rules lay over them, without what is deleted.
pub(super) fn views(model: &Model, member: &Member) -> Views {
    let mut entities: BTreeMap<&Entity, Seen> = BTreeMap::new();
    let draft = Draft::default();
    for entity in member.known.entities.keys() {
        if let Some(kind) = member.schema.kind(&entity.0) {
            let running = running(model, member, &draft, entity);
            entities.insert(entity, registers(kind, &running));
        }
    }
    overlays(&member.schema, &mut entities);
    let mut views = Views::new();
    for ((kind, id), seen) in entities {
        if !seen.deleted {
            views.entry(kind.clone()).or_default().insert(id.clone(), seen.fields);
        }
    }
    views
}

/// One entity as an edit that has done `draft` so far sees it; `None` if nothing of it is held.
///
/// Without rules it depends on no other entity. With them it is what [`overlays`] makes of all.
pub(super) fn entity(
    model: &Model,
    member: &Member,
    draft: &Draft,
    entity: &Entity,
    kind: &Kind,
) -> Option<Seen> {
    let running = running(model, member, draft, entity);
    (!running.is_empty()).then(|| registers(kind, &running))
}

/// What is in the running at each address. A write of the draft has observed all else, and so stands alone.
pub(super) fn running<'m>(
    model: &'m Model,
    member: &Member,
    draft: &'m Draft,
    entity: &Entity,
) -> BTreeMap<Address, Vec<Running<'m>>> {
    let mut running = BTreeMap::new();
    for (address, known) in member.known.entities.get(entity).into_iter().flat_map(|writes| writes.iter()) {
        let alive = model.alive(known).into_iter();
        let alive = alive.map(|w| Running { stamp: w.stamp, rank: w.rank, content: &w.content });
        running.insert(address.clone(), alive.collect());
    }
    for (address, content) in draft.of(entity) {
        let own = Running { stamp: Stamp::LOWEST, rank: member.rank, content };
        running.insert(address.clone(), vec![own]);
    }
    running
}

/// What the registers of one entity show, each resolved by the reader's schema.
fn registers(kind: &Kind, running: &BTreeMap<Address, Vec<Running<'_>>>) -> Seen {
    let mut seen = Seen::default();
    for (address, running) in running {
        match address {
            Address::Life => seen.deleted = is_dead(kind.life, running),
            Address::Field(name) => {
                if let Some(shown) = resolve_field(kind, name, running) {
                    seen.fields.insert(name.clone(), shown);
                }
            }
            Address::Group(name) => {
                // A member that the author's schema lacked is absent until somebody who declares it writes.
                if let (Some(group), Value::Map(mut map)) = (kind.group(name), newest(running)) {
                    let member = |name: &String| Some((name.clone(), Shown::Value(map.remove(name)?)));
                    seen.fields.extend(group.members.iter().filter_map(member));
                }
            }
            Address::Key(name, key) => show_key(kind, name, key, running, &mut seen.fields),
            Address::Count(name, _) => {
                if let Slot::Field(field) = kind.slot(name)
                    && field.ty == FieldType::Counter
                {
                    let total = if let Value::Int(total) = newest(running) { i128::from(total) } else { 0 };
                    let sum = seen.fields.entry(name.clone()).or_insert(Shown::Count(0));
                    if let Shown::Count(sum) = sum {
                        *sum += total;
                    }
                }
            }
        }
    }
    seen
}

/// What rules lay over the fields of losers. There are no rules yet: a schema that names one is refused. When
/// there are, they are evaluated here, from scratch, stratum by stratum, over all entities, the deleted ones
/// included, and [`entity`] is read out of the result.
fn overlays(_schema: &Schema, _entities: &mut BTreeMap<&Entity, Seen>) {}

fn is_dead(life: Life, running: &[Running<'_>]) -> bool {
    let is_dead = |r: &Running<'_>| *r.content == Content::Value(Value::Bool(false));
    match life {
        Life::DeleteWins => running.iter().any(is_dead),
        Life::EditRevives => running.iter().all(is_dead),
        Life::Newest => running.last().is_some_and(is_dead),
    }
}

fn resolve_field(kind: &Kind, name: &str, running: &[Running<'_>]) -> Option<Shown> {
    let field = match kind.slot(name) {
        Slot::Field(field) => field,
        Slot::Open => return Some(Shown::Value(newest(running))),
        Slot::Member(_) | Slot::Undeclared => return None,
    };
    let shown = match &field.ty {
        FieldType::Value { resolver, .. } | FieldType::Custom { resolver } => resolve(resolver, running),
        FieldType::Max => resolve(&Resolver::Max, running),
        FieldType::Min => resolve(&Resolver::Min, running),
        // Without a true one, whatever was written last: a null stays a null.
        FieldType::Flag if running.iter().any(|r| *value(r) == Value::Bool(true)) => Value::Bool(true),
        FieldType::Flag => newest(running),
        FieldType::Multi => return Some(Shown::Many(running.iter().map(|r| value(r).clone()).collect())),
        FieldType::Set { .. } | FieldType::Map | FieldType::Counter => return None,
    };
    Some(Shown::Value(shown))
}

fn show_key(
    kind: &Kind,
    name: &str,
    key: &str,
    running: &[Running<'_>],
    fields: &mut BTreeMap<String, Shown>,
) {
    let ty = match kind.slot(name) {
        Slot::Field(field) => &field.ty,
        // Keys that somebody else declared show as they are, like other undeclared fields of an open kind.
        Slot::Open => &FieldType::Map,
        Slot::Member(_) | Slot::Undeclared => return,
    };
    match ty {
        FieldType::Set { wins } => {
            let mut says = running.iter().map(|r| *r.content == Content::Value(Value::Bool(true)));
            let is_in = match wins {
                SetWins::Add => says.any(|says| says),
                SetWins::Remove => says.all(|says| says),
            };
            if is_in
                && let Shown::Set(set) =
                    fields.entry(name.to_owned()).or_insert_with(|| Shown::Set(BTreeSet::new()))
            {
                set.insert(key.to_owned());
            }
        }
        FieldType::Map => {
            if let Some(Running { content: Content::Value(value), .. }) = running.last()
                && let Shown::Map(map) =
                    fields.entry(name.to_owned()).or_insert_with(|| Shown::Map(BTreeMap::new()))
            {
                map.insert(key.to_owned(), value.clone());
            }
        }
        _ => {}
    }
}

/// The resolver's choice; `running` is ascending by stamp, so the last of equals is the newest.
fn resolve(resolver: &Resolver, running: &[Running<'_>]) -> Value {
    let chosen = match resolver {
        Resolver::Newest => running.last(),
        Resolver::Oldest => running.first(),
        Resolver::Rank => running.iter().max_by_key(|r| (r.rank, r.stamp)),
        Resolver::Max => running.iter().max_by_key(|r| (value(r), r.stamp)),
        Resolver::Min => running.iter().min_by_key(|r| (value(r), std::cmp::Reverse(r.stamp))),
        Resolver::Custom(custom) => {
            let candidate = |r: &_| candidate(r);
            return (custom.f)(&running.iter().map(candidate).collect::<Vec<_>>());
        }
    };
    chosen.map_or(Value::Null, |r| value(r).clone())
}

fn candidate<'w>(running: &Running<'w>) -> Candidate<'w> {
    Candidate { stamp: running.stamp, rank: running.rank, value: value(running) }
}

pub(super) fn newest(running: &[Running<'_>]) -> Value {
    resolve(&Resolver::Newest, running)
}

fn value<'w>(running: &Running<'w>) -> &'w Value {
    match running.content {
        Content::Value(value) => value,
        Content::Absent => &Value::Null,
    }
}
