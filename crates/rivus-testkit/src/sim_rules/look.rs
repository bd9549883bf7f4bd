//! What is looked at after a step, on each site that it touched: the others are as they were.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use rivus_core::address::class;
use rivus_core::clock::Stamp;
use rivus_core::edit::{Action, Op};
use rivus_core::replica::{Event, Replica};
use rivus_core::row::{decode_register, encode_register};
use rivus_core::store::{MemoryStore, Store, StoreError, Table};
use rivus_core::value::Value;
use rivus_core::view::{Shown, View};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::coverage::Sometimes;
use super::site::{Held, Key, Seen, Site, Timer, newest};
use super::world::{World, broken};
use super::{Finding, Oracle};
use crate::model::rules::{Evaluated, Overlay, Overlays, Writes, evaluate};
use crate::sim::plan::name;

mod kept;

/// What a step may have done to the registers of a site.
pub(super) enum Expected<'e> {
    /// Nothing.
    Same,
    /// Exactly this, under one stamp.
    Edit { stamp: Stamp, writes: Writes, ops: &'e [Op] },
    /// Exactly this, and nothing elsewhere.
    Join(BTreeMap<Key, Held>),
    /// Each register is as before, or joined with the other's.
    Between { other: BTreeMap<Key, Arc<Held>> },
    /// Whatever it takes.
    Any,
    /// Whatever it takes, by a program that has ended: nobody is told.
    Anew,
}

impl World<'_> {
    /// Looks at a site.
    pub(super) fn look(&mut self, on: usize, expected: &Expected<'_>) -> Result<(), Finding> {
        let at = |(oracle, text): Finding| (oracle, format!("{}: {text}", name(on)));
        let site = &mut self.sites[on];
        let mut seen = std::mem::take(&mut site.seen);
        let changed = seen.read(&site.replica).map_err(|error| broken(&error))?;
        let told: BTreeSet<Key> = site.replica.poll_events().into_iter().filter_map(changed_key).collect();
        let is_ruled = site.replica.unresolved().is_none();
        let resolves = is_ruled != seen.is_ruled;
        seen.is_ruled = is_ruled;
        registers(expected, &seen, &changed).map_err(at)?;
        let has_received = std::mem::take(&mut site.has_received) && is_ruled;
        let is_idle = changed.is_empty() && told.is_empty() && !resolves;
        if is_idle && !has_received && !matches!(expected, Expected::Same) {
            self.sites[on].seen = seen;
            return Ok(());
        }
        // Rows and rules are those of the last look: so is what is computed of them alone.
        let is_known = has_received && is_idle;
        let evaluated = Arc::clone(&seen.evaluated);
        let views = std::mem::take(&mut seen.views);
        if !is_known {
            seen.evaluated = self.evaluated(on, &seen);
        }
        self.shown(on, &mut seen).map_err(at)?;
        if resolves {
            seen.timers.clear();
        } else if !matches!(expected, Expected::Same | Expected::Anew) {
            who_is_told(&views, &seen, &told).map_err(at)?;
        }
        if is_ruled {
            kept::check(self.sites[on].replica.schema(), &seen).map_err(at)?;
            self.timers(on, &mut seen).map_err(at)?;
            self.index(on, &mut seen, is_known).map_err(at)?;
        }
        self.digest(on).map_err(at)?;
        self.sights(expected, &evaluated, &changed, &seen);
        for ((kind, id, field), overlay) in &seen.evaluated.overlays {
            let text = format!("{on} {kind} {id} {field:?} {:?}", overlay.shown);
            self.trace = xxh3_64_with_seed(text.as_bytes(), self.trace);
        }
        for bytes in changed.keys().filter_map(|key| seen.held.get(key)).flat_map(|held| held.values()) {
            self.trace = xxh3_64_with_seed(bytes, self.trace);
        }
        self.sites[on].seen = seen;
        Ok(())
    }

    /// What the reference shows of these registers; where another site is known to hold the same, that is known, too.
    fn evaluated(&self, on: usize, seen: &Seen) -> Arc<Evaluated> {
        if !seen.is_ruled {
            return Arc::default();
        }
        let schema = self.sites[on].replica.schema();
        let is_same = |other: &&Site| {
            let has_rules = other.seen.is_ruled && Arc::ptr_eq(other.replica.schema(), schema);
            has_rules && other.seen.entities == seen.entities
        };
        let others = self.sites.iter().enumerate().filter(|(number, _)| *number != on);
        let known = others.map(|(_, other)| other).find(is_same).map(|other| &other.seen.evaluated);
        known.map_or_else(|| Arc::new(evaluate(schema, &seen.entities)), Arc::clone)
    }

    /// Overlays are those of the reference, and views are registers under them.
    fn shown(&self, on: usize, seen: &mut Seen) -> Result<(), Finding> {
        let replica = &self.sites[on].replica;
        let overlays = overlays(replica).map_err(|error| broken(&error))?;
        if let Some(text) = difference(&overlays, &seen.evaluated.told(&seen.entities)) {
            return Err((Oracle::Model, text));
        }
        for (kind, ids) in &seen.entities {
            for (id, registers) in ids {
                let view = replica.view(kind, id).map_err(|error| broken(&error))?.unwrap_or_default();
                let expected = |field: Option<&str>, held: &Value| {
                    let spot = (kind.clone(), id.clone(), field.map(str::to_owned));
                    let overlay = seen.evaluated.overlays.get(&spot);
                    overlay.map_or_else(|| held.clone(), |overlay| overlay.shown.clone())
                };
                let shown_life = Value::Bool(!view.deleted);
                let wrong_life = expected(None, &Value::Bool(!registers.deleted)) != shown_life;
                let wrong = registers
                    .fields
                    .iter()
                    .find(|(field, (_, held))| shown(&view, field) != expected(Some(field), held));
                if wrong_life || wrong.is_some() {
                    let text = format!("{kind} `{id}` shows {view:?} of {registers:?}");
                    return Err((Oracle::View, text));
                }
                seen.views.insert((kind.clone(), id.clone()), view);
            }
        }
        Ok(())
    }

    /// Nobody is back who has stopped or lost.
    fn timers(&mut self, on: usize, seen: &mut Seen) -> Result<(), Finding> {
        let rejected = self.sites[on].replica.rejected().map_err(|error| broken(&error))?.len();
        let withdrawn = rejected != seen.rejected;
        seen.rejected = rejected;
        if withdrawn {
            self.coverage.hit(Sometimes::Refused);
        }
        let is_judged = self.plan.shape == super::plan::Shape::Hub;
        let schema = self.sites[on].replica.schema().clone();
        let Some(entries) = seen.entities.get("entry") else { return Ok(()) };
        for (id, registers) in entries {
            let key = ("entry".to_owned(), id.clone());
            let (Some(view), Some(held)) = (seen.views.get(&key), seen.held.get(&key)) else { continue };
            if view.deleted {
                continue;
            }
            let group = kept::timer_group(&schema, view);
            let overlay = seen.evaluated.overlays.get(&(key.0, key.1, Some("stop".to_owned())));
            let rival = overlay.and_then(|overlay| overlay.rival.clone());
            let claim = |rival: &String| {
                let registers = entries.get(rival)?;
                registers.claims.keys().find(|(rule, of)| rule == "one timer" && format!("{of:?}") == group)
            };
            let has_claim = rival.as_ref().is_none_or(|rival| claim(rival).is_some());
            let is_closed = shown(view, "stop") != Value::Null;
            let now = Timer { is_closed, group, rival, has_claim, held: held.clone() };
            let Some(last) = seen.timers.insert(id.clone(), now.clone()) else { continue };
            if !last.is_closed || now.is_closed || last.held != now.held || last.group != now.group {
                continue;
            }
            let begins = registers.value("start");
            let is_passed = last.rival.as_ref().and_then(|rival| entries.get(rival)).is_some_and(|rival| {
                let end = rival.value("stop");
                *end != Value::Null && end <= begins
            });
            if withdrawn && is_judged {
                self.coverage.hit(Sometimes::RunsAgain);
            } else if !is_passed && last.has_claim && !self.is_rebuilt(on) {
                let text = format!(
                    "entry `{id}` had lost to {:?} and is open again, though nobody has edited it",
                    last.rival
                );
                return Err((Oracle::Zombie, text));
            }
        }
        Ok(())
    }

    /// Whether pending edits may have been made anew here.
    fn is_rebuilt(&self, on: usize) -> bool {
        self.plan.shape == super::plan::Shape::Hub && on > 0
    }

    /// The index is what a new one would be.
    fn index(&self, on: usize, seen: &mut Seen, is_known: bool) -> Result<(), Finding> {
        let kept = records(&self.sites[on].replica).map_err(|error| broken(&error))?;
        let is_asked = self.trace.is_multiple_of(8);
        let anew = || self.sites[on].anew().map_err(|error| broken(&error));
        let scratch = if is_known && !is_asked { None } else { Some(anew()?) };
        if let Some(scratch) = &scratch {
            seen.made = records(scratch).map_err(|error| broken(&error))?;
        }
        let made = &seen.made;
        if kept != *made {
            let only = |one: &BTreeMap<Vec<u8>, Vec<u8>>, other: &BTreeMap<Vec<u8>, Vec<u8>>| {
                let only = one.iter().filter(|(key, value)| other.get(*key) != Some(value));
                only.map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect::<Vec<_>>()
            };
            let text = format!("the index has {:?}, a new one {:?}", only(&kept, made), only(made, &kept));
            return Err((Oracle::Index, text));
        }
        // The same rows under the same index show the same.
        let Some(scratch) = scratch.filter(|_| is_asked) else { return Ok(()) };
        let anew = overlays(&scratch).map_err(|error| broken(&error))?;
        match difference(&anew, &seen.evaluated.told(&seen.entities)) {
            Some(text) => Err((Oracle::Index, format!("from scratch: {text}"))),
            None => Ok(()),
        }
    }

    fn digest(&self, on: usize) -> Result<(), Finding> {
        let replica = &self.sites[on].replica;
        let kept = replica.head().map_err(|error| broken(&error))?.digest;
        let made = replica.recompute_digest().map_err(|error| broken(&error))?;
        if kept == made {
            return Ok(());
        }
        Err((Oracle::Digest, format!("it keeps {kept:?}, and its rows have {made:?}")))
    }

    fn sights(
        &mut self,
        expected: &Expected<'_>,
        before: &Evaluated,
        changed: &BTreeMap<Key, Arc<Held>>,
        seen: &Seen,
    ) {
        for sight in &seen.evaluated.sights {
            self.coverage.hit(*sight);
        }
        let Expected::Edit { ops, .. } = expected else { return };
        for op in *ops {
            let key = (op.kind.clone(), op.id.clone());
            let stop = (key.0.clone(), key.1.clone(), Some("stop".to_owned()));
            let was_shown = before.overlays.get(&stop).is_some_and(|overlay| overlay.rule == "one timer");
            let named =
                matches!(&op.action, Action::Put(fields) if fields.iter().any(|(name, _)| name == "stop"));
            let goes_on = !named && !matches!(op.action, Action::Delete | Action::Revive);
            if was_shown && goes_on && !seen.evaluated.overlays.contains_key(&stop) {
                self.coverage.hit(Sometimes::Pinned);
            }
            let claims =
                |held: &Arc<Held>| held.keys().filter(|at| at.first() == Some(&class::CLAIM)).count();
            let (was, is) = (changed.get(&key).map_or(0, claims), seen.held.get(&key).map_or(0, claims));
            if was > 0 && is > was {
                self.coverage.hit(Sometimes::MovedGroup);
            }
        }
    }
}

/// Whose view is another than before, is told of.
fn who_is_told(before: &BTreeMap<Key, View>, seen: &Seen, told: &BTreeSet<Key>) -> Result<(), Finding> {
    for key in before.keys().chain(seen.views.keys()) {
        let (was, is) = (before.get(key), seen.views.get(key));
        if was != is && !told.contains(key) {
            let text = format!("{} `{}` shows {is:?} and not {was:?}, and nobody is told", key.0, key.1);
            return Err((Oracle::Told, text));
        }
    }
    Ok(())
}

fn changed_key(event: Event) -> Option<Key> {
    if let Event::Changed { kind, id, .. } = event { Some((kind, id)) } else { None }
}

/// What a field shows; absent is null.
pub(super) fn shown(view: &View, field: &str) -> Value {
    match view.fields.get(field) {
        Some(Shown::Value(value)) => value.clone(),
        _ => Value::Null,
    }
}

/// The registers are what the step ought to leave.
fn registers(
    expected: &Expected<'_>,
    seen: &Seen,
    changed: &BTreeMap<Key, Arc<Held>>,
) -> Result<(), Finding> {
    let now = changed.iter().filter_map(|(key, before)| Some((key, before, seen.held.get(key)?)));
    match expected {
        Expected::Any | Expected::Anew => {}
        Expected::Same => {
            if let Some(key) = changed.keys().next() {
                return Err((Oracle::Join, format!("{} `{}` has changed by itself", key.0, key.1)));
            }
        }
        Expected::Edit { stamp, writes, .. } => {
            let mut written: Writes = Writes::new();
            for (key, before, now) in now {
                for (address, bytes) in now.iter() {
                    if newest(bytes) == Some(*stamp) {
                        let value = decode_register(bytes).ok();
                        let value = value.and_then(|r| Value::decode(r.newest().value).ok());
                        written.entry(key.clone()).or_default().insert(address.clone(), value);
                    } else if before.get(address) != Some(bytes) {
                        let text = format!("an edit changes {address:?} of {key:?} under another stamp");
                        return Err((Oracle::Edit, text));
                    }
                }
            }
            edit(writes, &written)?;
        }
        Expected::Join(joined) => {
            for (key, _, now) in now {
                if joined.get(key) != Some(&**now) {
                    return Err((Oracle::Join, format!("{key:?} is not the join of its registers")));
                }
            }
            for (key, joined) in joined {
                if seen.held.get(key).map(|held| &**held) != Some(joined) {
                    return Err((Oracle::Join, format!("{key:?} was received and has not changed")));
                }
            }
        }
        Expected::Between { other } => {
            for (key, before, now) in now {
                for (address, bytes) in now.iter() {
                    let own = before.get(address);
                    let theirs = other.get(key).and_then(|held| held.get(address));
                    if own != Some(bytes) && joined(own, theirs).as_ref() != Some(bytes) {
                        let text = format!("{key:?} is neither as it was nor the join of the two");
                        return Err((Oracle::Join, text));
                    }
                }
            }
        }
    }
    Ok(())
}

fn joined(own: Option<&Vec<u8>>, theirs: Option<&Vec<u8>>) -> Option<Vec<u8>> {
    let (Some(own), Some(theirs)) = (own, theirs) else { return own.or(theirs).cloned() };
    let mut bytes = Vec::new();
    encode_register(&decode_register(own).ok()?.join(&decode_register(theirs).ok()?), &mut bytes);
    Some(bytes)
}

fn edit(expected: &Writes, written: &Writes) -> Result<(), Finding> {
    let readable = |address: &[u8]| {
        rivus_core::address::Parts::parse(address)
            .map_or_else(String::new, |at| format!("{}:{}", at.class, at.name))
    };
    let none = BTreeMap::new();
    let keys: BTreeSet<&Key> = expected.keys().chain(written.keys()).collect();
    for key in keys {
        let (due, done) = (expected.get(key).unwrap_or(&none), written.get(key).unwrap_or(&none));
        let addresses: BTreeSet<&Vec<u8>> = due.keys().chain(done.keys()).collect();
        for address in addresses {
            let (due, done) = (due.get(address), done.get(address));
            let matches = match (due, done) {
                (Some(None), Some(_)) => true,
                (Some(due), Some(done)) => due == done,
                _ => false,
            };
            if !matches {
                let text = format!(
                    "the edit of {} `{}` leaves {done:?} at {}, and ought to write {due:?}",
                    key.0,
                    key.1,
                    readable(address)
                );
                return Err((Oracle::Edit, text));
            }
        }
    }
    Ok(())
}

/// What the engine shows in place of registers.
fn overlays(replica: &Replica<MemoryStore>) -> Result<Overlays, StoreError> {
    let mut overlays = Overlays::new();
    replica.each_overlay(&mut |overlay| {
        take(&mut overlays, overlay);
        ControlFlow::Continue(())
    })?;
    Ok(overlays)
}

fn take(overlays: &mut Overlays, overlay: rivus_core::rules::Overlay) {
    let rivus_core::rules::Overlay { kind, id, field, rule, rival, shown, hidden } = overlay;
    overlays.insert((kind, id, field), Overlay { rule, rival, shown, hidden });
}

fn difference(engine: &Overlays, reference: &Overlays) -> Option<String> {
    if engine == reference {
        return None;
    }
    let spots: BTreeSet<_> = engine.keys().chain(reference.keys()).collect();
    let spot = spots.into_iter().find(|spot| engine.get(*spot) != reference.get(*spot))?;
    let (kind, id, field) = spot;
    let field = field.as_deref().unwrap_or("life");
    let (engine, reference) = (engine.get(spot), reference.get(spot));
    Some(format!("{field} of {kind} `{id}`: {engine:?}, and the reference has {reference:?}"))
}

/// The records of the index, but for how far it goes.
fn records(replica: &Replica<MemoryStore>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, StoreError> {
    let mut all = BTreeMap::new();
    replica.store().records(Table::Rule, &[], &mut |key, value| {
        if key != [0xff, 0xff] {
            all.insert(key.to_vec(), value.to_vec());
        }
        ControlFlow::Continue(())
    })?;
    Ok(all)
}
