//! The liveness phase: faults end, clocks stay odd, and everybody must come to show the same.

use std::collections::BTreeSet;

use rivus_core::session::Want;
use rivus_core::view::Shown;

use super::coverage::Sometimes;
use super::plan::{Fault, Flavour, Shape, Version};
use super::witness::{Edit, Finding, Look};
use super::world::World;
use super::{Invariant, Oracle, name};

/// How often everybody meets everybody, at most, until all is equal.
const ROUNDS_MAX: usize = 12;

/// Longer than any two clocks are apart: what was set aside comes due. In ms.
const DUE_MS: i64 = 40 * 365 * 86_400_000;

/// Lets the world come to rest and checks what it then shows.
pub(super) fn settle(world: &mut World<'_>, invariants: &[&dyn Invariant]) -> Result<(), Finding> {
    world.heal()?;
    let sites: Vec<usize> = (0..world.places.len()).filter(|n| world.places[*n].replica.is_some()).collect();
    let mut round = 0;
    while let Some(why) = difference(world, &sites)? {
        if round == ROUNDS_MAX {
            return Err((Oracle::Liveness, format!("after {ROUNDS_MAX} rounds without faults {why}")));
        }
        round += 1;
        if round == 3 {
            world.passed_ms += DUE_MS;
        }
        meet(world, &sites)?;
    }
    finish(world, &sites, invariants)
}

fn meet(world: &mut World<'_>, sites: &[usize]) -> Result<(), Finding> {
    let peers = world.plan.shape == Shape::Peers;
    for (at, from) in sites.iter().copied().enumerate() {
        let to = if peers { sites[(at + 1) % sites.len()] } else { 0 };
        if from == to {
            continue;
        }
        world.passed_ms += 10;
        world.connect(from, to, Fault::None, Want::Once);
        world.carry(from, 20_000)?;
        world.cut(from);
        world.look()?;
    }
    Ok(())
}

/// What is not equal yet.
fn difference(world: &World<'_>, sites: &[usize]) -> Result<Option<String>, Finding> {
    let mut first: Option<(usize, u128)> = None;
    for site in sites {
        let Some(replica) = &world.places[*site].replica else { continue };
        let store = |error| (Oracle::Store, format!("{} cannot be read: {error}", name(*site)));
        let pending = replica.pending_count().map_err(store)?;
        if pending > 0 {
            return Ok(Some(format!("{} has {pending} edits pending", name(*site))));
        }
        let aside = replica.quarantined().map_err(store)?;
        if aside > 0 {
            return Ok(Some(format!("{} keeps {aside} registers aside", name(*site))));
        }
        let digest = replica.head().map_err(store)?.digest.shown;
        match first {
            None => first = Some((*site, digest)),
            Some((other, theirs)) if theirs != digest => {
                return Ok(Some(format!("{} and {} have different digests", name(other), name(*site))));
            }
            Some(_) => {}
        }
    }
    Ok(None)
}

fn finish(world: &mut World<'_>, sites: &[usize], invariants: &[&dyn Invariant]) -> Result<(), Finding> {
    let mut shown: Vec<(usize, Version, u64)> = Vec::new();
    for site in sites.iter().copied() {
        let store = |error| (Oracle::Store, format!("{} cannot be read: {error}", name(site)));
        // Another process of its store may have been there last.
        world.look_at(site, Look::Onward)?;
        let Some(replica) = &world.places[site].replica else { continue };
        let kept = replica.head().map_err(store)?.digest;
        let computed = replica.recompute_digest().map_err(store)?;
        if kept != computed {
            let text = format!("{} keeps {kept:?}, its rows make {computed:?}", name(site));
            return Err((Oracle::Digest, text));
        }
        for invariant in invariants {
            invariant
                .check(replica)
                .map_err(|text| (Oracle::Invariant, format!("at {}: {text}", name(site))))?;
        }
        let version = world.places[site].plan.version;
        let hash = super::views::hash(replica).map_err(store)?;
        let same = shown.iter().find(|(_, v, h)| *v == version && *h != hash);
        if let Some((other, ..)) = same {
            let text =
                format!("{} and {} have equal digests and show different views", name(*other), name(site));
            return Err((Oracle::Convergence, text));
        }
        shown.push((site, version, hash));
        world.note(&hash.to_le_bytes());
    }
    count_unknown(world, sites);
    kept(world, sites)
}

/// Every acknowledged edit is there, or among the rejected, or was written anew by somebody who saw that.
fn kept(world: &World<'_>, sites: &[usize]) -> Result<(), Finding> {
    let Some(site) = sites.first().copied() else { return Ok(()) };
    let mut rejected: BTreeSet<(usize, u64)> = BTreeSet::new();
    for site in sites.iter().copied() {
        let all = world.places[site].replica.as_ref().map_or(Ok(Vec::new()), |replica| replica.rejected());
        let all = all.map_err(|error| (Oracle::Store, format!("{} cannot be read: {error}", name(site))))?;
        rejected.extend(all.iter().map(|edit| (site, edit.key)));
        // Somebody saw that it was refused, and wrote the same fields.
        rejected.extend(world.places[site].settled.iter().map(|key| (site, *key)));
        let lost = world.places[site].refused.iter().find(|key| !rejected.contains(&(site, **key)));
        if let Some(key) = lost {
            let text = format!("{} was told that its edit {key} is refused, and has not kept it", name(site));
            return Err((Oracle::Acknowledged, text));
        }
    }
    let is_rejected = |edit: &Edit| rejected.contains(&(edit.site, edit.seq));
    counters(world, site, is_rejected)?;
    world.witness.kept(site, is_rejected)
}

/// What a site holds beyond its schema it has passed on, or had from somebody who did.
fn count_unknown(world: &mut World<'_>, sites: &[usize]) {
    let mut unknown = false;
    for site in sites {
        let place = &world.places[*site];
        if place.plan.version == Version::Old
            && let Some(replica) = &place.replica
        {
            let kinds = rivus_core::store::Store::kinds(replica.store()).unwrap_or_default();
            unknown |= kinds.iter().any(|kind| replica.schema().kind(kind).is_none());
        }
    }
    if unknown && world.plan.flavour <= Flavour::Full {
        world.coverage.hit(Sometimes::UnknownForwarded);
    }
}

/// Every counter stands at the sum of what was added to it.
fn counters(world: &World<'_>, site: usize, is_rejected: impl Fn(&Edit) -> bool) -> Result<(), Finding> {
    let new = world.places.iter().find(|place| place.plan.version == Version::New && place.replica.is_some());
    let Some(replica) = new.and_then(|place| place.replica.as_ref()) else { return Ok(()) };
    for ((kind, id, field), sum) in world.witness.counters(is_rejected) {
        let view = replica.view(kind, id);
        let view =
            view.map_err(|error| (Oracle::Store, format!("{} cannot be read: {error}", name(site))))?;
        let shown = match view.as_ref().and_then(|view| view.fields.get(field)) {
            Some(Shown::Counter(shown)) => *shown,
            _ => 0,
        };
        if shown != sum {
            let text = format!("counter {field} of {kind} {id} stands at {shown}, and {sum} was added to it");
            return Err((Oracle::Acknowledged, text));
        }
    }
    Ok(())
}
