//! Rules over those that share a group.

use std::collections::{BTreeMap, BTreeSet};

use rivus_core::clock::Stamp;
use rivus_core::rules::{CustomRule, Entity, Field};
use rivus_core::schema::{AtMostOne, Kind, OnClash, OrderTime, Unique};
use rivus_core::value::{Json, Value};
use xxhash_rust::xxh3::xxh3_128;

use super::{Below, Laid, Layer, Registers, Sight};

/// Milliseconds since 1970, rounded to nearest, of a time in units of 2^-32 s.
fn claimed_ms(claim: Stamp) -> Value {
    let part = f64::from(u32::try_from(claim.time & 0xffff_ffff).unwrap_or(0));
    #[expect(clippy::cast_possible_truncation, reason = "at most 1000")]
    let part = (part * 1000.0 / 4_294_967_296.0).round() as i64;
    Value::Int(i64::try_from(claim.time >> 32).unwrap_or(0) * 1000 + part)
}

/// One that takes part in an [`AtMostOne`].
struct Timer<'t> {
    held: &'t Registers,
    group: Option<Vec<Value>>,
    /// Since when.
    order: &'t Value,
    is_there: bool,
}

type Timers<'t> = BTreeMap<&'t str, Timer<'t>>;

impl<'b> Below<'b> {
    pub(super) fn at_most_one(
        &self,
        at: usize,
        kind: &Kind,
        rule: &str,
        what: &AtMostOne,
        sights: &mut BTreeSet<Sight>,
    ) -> Layer {
        let timer = |(id, held)| {
            let group = self.group(at, &kind.name, id, &what.group);
            let order = self.value(at, &kind.name, id, &what.order);
            let is_there = self.is_there(at, &kind.name, id) == Some(true);
            (id, Timer { held, group, order, is_there })
        };
        let timers: Timers<'b> = self.of(&kind.name).map(timer).collect();
        let mut layer = Layer::new();
        for (group, order) in &claimants(&timers, rule, &what.open, sights) {
            let mut losers = 0;
            for place in order {
                let Some(timer) = timers.get(place.1) else { continue };
                let is_open = *timer.held.value(&what.open) == Value::Null;
                if !timer.is_there || !is_open || timer.group.as_deref() != Some(group) {
                    continue;
                }
                let Some((claim, id, next)) = successor(&timers, order, *place, what, sights) else {
                    continue;
                };
                losers += 1;
                let shown = end(timer.order, next.order, claim, what.time, sights);
                if claim.time == place.0.time {
                    sights.insert(if claim == place.0 { Sight::OneEdit } else { Sight::ClaimTie });
                }
                let laid = Laid { shown, rival: Some(id.to_owned()) };
                layer.insert((kind.name.clone(), place.1.to_owned(), Some(what.open.clone())), laid);
            }
            if losers > 2 {
                sights.insert(Sight::ThreeLosers);
            }
        }
        layer
    }

    pub(super) fn unique(
        &self,
        at: usize,
        kind: &Kind,
        rule: &str,
        what: &Unique,
        sights: &mut BTreeSet<Sight>,
    ) -> Layer {
        let mut groups: BTreeMap<Vec<Value>, Vec<(Stamp, &str, &Value)>> = BTreeMap::new();
        for (id, held) in self.of(&kind.name) {
            let name = held.value(&what.field);
            let Some(group) = self.group(at, &kind.name, id, &what.group) else { continue };
            if *name != Value::Null && self.is_there(at, &kind.name, id) == Some(true) {
                let claim = held.claims.get(&(rule.to_owned(), group.clone())).copied();
                let claim = claim.unwrap_or_else(|| held.stamp(&what.field));
                groups.entry(group).or_default().push((claim, id, name));
            }
        }
        let mut layer = Layer::new();
        for bearers in groups.values_mut() {
            bearers.sort_unstable_by_key(|(claim, id, _)| (*claim, *id));
            let mut taken: BTreeSet<Value> = bearers.iter().map(|(_, _, name)| (*name).clone()).collect();
            let mut first: BTreeMap<&Value, &str> = BTreeMap::new();
            for (_, id, name) in bearers.iter() {
                let Some(winner) = first.get(name) else {
                    first.insert(name, id);
                    continue;
                };
                let rival = Some((*winner).to_owned());
                let spot = |field| (kind.name.clone(), (*id).to_owned(), field);
                if what.on_clash == OnClash::Alias {
                    sights.insert(Sight::Alias);
                    layer.insert(spot(None), Laid { shown: Value::Bool(false), rival });
                    continue;
                }
                sights.insert(Sight::Renamed);
                let shown = free(name, id, &taken, sights);
                taken.insert(shown.clone());
                layer.insert(spot(Some(what.field.clone())), Laid { shown, rival });
            }
        }
        layer
    }

    pub(super) fn custom(
        &self,
        at: usize,
        kind: &Kind,
        name: &str,
        rule: &dyn CustomRule,
        sights: &mut BTreeSet<Sight>,
    ) -> Layer {
        let fields: Vec<String> = rule.group().into_iter().map(str::to_owned).collect();
        let owns = rule.owns();
        let mut groups: BTreeMap<Vec<Value>, Vec<Entity>> = BTreeMap::new();
        for (id, held) in self.of(&kind.name) {
            let Some(group) = self.group(at, &kind.name, id, &fields) else { continue };
            let is_there = self.is_there(at, &kind.name, id) == Some(true);
            let entity = entity(rule, id, held, !is_there, |field| {
                if owns.contains(&field) { held.value(field) } else { self.value(at, &kind.name, id, field) }
            });
            let claim = held.claims.get(&(name.to_owned(), group.clone())).copied();
            groups.entry(group).or_default().push(Entity { claim, ..entity });
        }
        let mut layer = Layer::new();
        for entities in groups.values() {
            for ((id, field), shown) in rule.evaluate(entities).0 {
                let is_there = entities.iter().any(|e| e.id == id && !e.deleted);
                if is_there && owns.contains(&field.as_str()) {
                    sights.insert(Sight::Custom);
                    layer.insert((kind.name.clone(), id, Some(field)), Laid { shown, rival: None });
                }
            }
        }
        layer
    }
}

/// An entity as a custom rule sees it, but for its claim.
pub(super) fn entity<'v>(
    rule: &dyn CustomRule,
    id: &str,
    held: &Registers,
    deleted: bool,
    value: impl Fn(&str) -> &'v Value,
) -> Entity {
    let fields = rule.group().into_iter().chain(rule.reads()).chain(rule.owns());
    let fields = fields.filter_map(|field| {
        let is_there = held.fields.contains_key(field) || *value(field) != Value::Null;
        let field_of = || Field { stamp: held.stamp(field), value: value(field).clone() };
        is_there.then(|| (field.to_owned(), field_of()))
    });
    Entity { id: id.to_owned(), deleted, fields: fields.collect(), claim: None }
}

/// By group those that claimed it, former ones and deleted ones included, and those that are open in it without.
fn claimants<'t>(
    timers: &'t Timers<'t>,
    rule: &str,
    open: &str,
    sights: &mut BTreeSet<Sight>,
) -> BTreeMap<&'t [Value], BTreeSet<(Stamp, &'t str)>> {
    let mut order: BTreeMap<&[Value], BTreeSet<(Stamp, &str)>> = BTreeMap::new();
    for (id, timer) in timers {
        for ((of, group), claim) in &timer.held.claims {
            if of == rule {
                order.entry(group).or_default().insert((*claim, id));
            }
        }
        if let Some(group) = &timer.group
            && *timer.held.value(open) == Value::Null
            && !timer.held.claims.contains_key(&(rule.to_owned(), group.clone()))
        {
            sights.insert(Sight::Claimless);
            order.entry(group).or_default().insert((timer.held.stamp(open), id));
        }
    }
    order
}

/// The next in order that did not end before this one began.
fn successor<'t>(
    timers: &'t Timers<'t>,
    order: &BTreeSet<(Stamp, &'t str)>,
    place: (Stamp, &'t str),
    what: &AtMostOne,
    sights: &mut BTreeSet<Sight>,
) -> Option<(Stamp, &'t str, &'t Timer<'t>)> {
    let own = timers.get(place.1)?;
    for (claim, id) in order.iter().skip_while(|other| **other <= place) {
        let Some(other) = timers.get(id) else { continue };
        let end = other.held.value(&what.open);
        let is_here = other.group == own.group;
        if is_here && *end != Value::Null && end <= own.order {
            sights.insert(Sight::PassedOver);
            continue;
        }
        if !is_here {
            sights.insert(Sight::LeftBehind);
        } else if *end != Value::Null {
            sights.insert(Sight::StoppedSuccessor);
        }
        if !other.is_there {
            sights.insert(Sight::DeletedSuccessor);
        }
        return Some((*claim, id, other));
    }
    None
}

/// The end of one that began at `own`, whose successor began at `begins` and claimed the group at `claim`.
fn end(own: &Value, begins: &Value, claim: Stamp, time: OrderTime, sights: &mut BTreeSet<Sight>) -> Value {
    let claimed = claimed_ms(claim);
    if time == OrderTime::Ms {
        if begins > own && *begins <= claimed {
            return begins.clone();
        }
        sights.insert(Sight::BackDated);
        return own.max(&claimed).clone();
    }
    match own.max(begins) {
        Value::Null => claimed,
        later => later.clone(),
    }
}

/// The name with the shortest beginning of the id's hash that nobody has.
fn free(name: &Value, id: &str, taken: &BTreeSet<Value>, sights: &mut BTreeSet<Sight>) -> Value {
    let text = match name {
        Value::Text(text) => text.clone(),
        other => serde_json::to_string(&Json(other)).unwrap_or_default(),
    };
    let hash = format!("{:032x}", xxh3_128(id.as_bytes()));
    let name = |digits: usize| Value::Text(format!("{text} #{}", hash.get(..digits).unwrap_or(&hash)));
    let digits = (4..hash.len()).find(|digits| !taken.contains(&name(*digits)));
    if digits != Some(4) {
        sights.insert(Sight::LongerPrefix);
    }
    name(digits.unwrap_or(hash.len()))
}
