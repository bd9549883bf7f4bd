//! At most one of a group is open.
//!
//! Those that claimed a group are in the order of their claims. One that is open and has a successor shows the
//! beginning of that as its end, so that only the last can show as open. Who is stopped, deleted or has moved to
//! another group keeps its place: that is what keeps a loser from coming back.

use super::index::{self, CLAIMS, OPEN, place, prefix, put_place};
use super::{Facts, Laid, Rules, What, nearest_millis};
use crate::canary::{Canary, is_on};
use crate::clock::Stamp;
use crate::schema::OrderTime;
use crate::store::{CommitError, Store, StoreError};
use crate::value::Value;
use crate::work::Work;

/// The place of an entity in the group that it is open in: where it claimed it, or where it would have.
fn own_place(rule: usize, group: &[u8], open: usize, facts: &Facts) -> Stamp {
    let claim = facts.claim(rule, group).filter(|_| !is_on(Canary::ClaimIgnored));
    claim.unwrap_or_else(|| facts.stamp(open))
}

/// Under which keys an entity is found. What it holds is read from itself.
pub(super) fn entries(rule: usize, fields: &[usize], open: usize, id: &str, facts: &Facts) -> Vec<Vec<u8>> {
    if !facts.held || facts.deleted && is_on(Canary::DeletedLeave) {
        return Vec::new();
    }
    let key = |part, group: &[u8], stamp| {
        let mut key = prefix(rule, part, &[group]);
        put_place(&mut key, stamp, id);
        key
    };
    let claims = facts.claims(rule).filter(|claim| {
        !is_on(Canary::ClaimIgnored)
            && (!is_on(Canary::MovedLeave) || facts.group(fields).as_ref() == Some(&claim.group))
    });
    let mut keys: Vec<_> = claims.map(|claim| key(CLAIMS, &claim.group, claim.stamp)).collect();
    if *facts.value(open) == Value::Null
        && let Some(group) = facts.group(fields)
    {
        let stamp = own_place(rule, &group, open, facts);
        if facts.claim(rule, &group).is_none() || is_on(Canary::ClaimIgnored) {
            keys.push(key(CLAIMS, &group, stamp));
        }
        keys.push(key(OPEN, &group, stamp));
    }
    keys
}

impl<S: Store> Work<'_, S> {
    /// The end that an open entity shows, if it has a successor.
    pub(super) fn stopped(
        &mut self,
        rules: &Rules,
        rule: usize,
        id: &str,
        facts: &Facts,
    ) -> Result<Option<Laid>, CommitError> {
        let stratum = rules.stratum(rule);
        let What::AtMostOne { open, order, time } = stratum.what else { return Ok(None) };
        if !facts.is_there() || *facts.value(open) != Value::Null {
            return Ok(None);
        }
        let Some(group) = facts.group(&stratum.group) else { return Ok(None) };
        let own = facts.value(order);
        let prefix = prefix(rule, CLAIMS, &[&group]);
        let mut after = prefix.clone();
        put_place(&mut after, own_place(rule, &group, open, facts), id);
        loop {
            let Some(end) = self.index().next_after(&prefix, &after)? else { return Ok(None) };
            let (claim, rival) = place(&end)?;
            let (theirs, _) = self.shown(rules, &stratum.kind, rival, rule)?;
            // One of this group that ended before this one began was no successor.
            let ended = theirs.value(open);
            let is_before = *ended != Value::Null && ended <= own && !is_on(Canary::NothingPassedOver);
            if is_before && theirs.group(&stratum.group).as_ref() == Some(&group) {
                after.truncate(prefix.len());
                after.extend_from_slice(&end);
                continue;
            }
            let shown = self::end(own, theirs.value(order), claim, time);
            let rival = Some(rival.to_owned());
            return Ok(Some(Laid { rule, field: Some(open), shown, hidden: Value::Null, rival, pins: true }));
        }
    }

    /// The open ones whose end an entry at this key may sway: there is at most one, since what is open is the
    /// successor of whatever is open before it.
    pub(super) fn stopped_by(&self, rule: usize, key: &[u8]) -> Result<Option<String>, StoreError> {
        // The key of a claim is that of an open one but for the letter.
        let Some(end) = key.get(3..).filter(|_| !is_on(Canary::SwayedNotTold)) else { return Ok(None) };
        let below = prefix(rule, OPEN, &[end]);
        let Some((found, _)) = self.index().last_below(&prefix(rule, OPEN, &[]), &below)? else {
            return Ok(None);
        };
        let group = |end: &[u8]| -> Option<usize> { index::value_len(end) };
        match (group(&found), group(end)) {
            (Some(one), Some(other)) if found.get(..one) == end.get(..other) => {
                Ok(Some(place(found.get(one..).unwrap_or_default())?.1.to_owned()))
            }
            _ => Ok(None),
        }
    }
}

/// One that claimed a group, for [`settle`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rival<'v> {
    /// When.
    pub claim: Stamp,
    /// Its id.
    pub id: &'v str,
    /// Its order value.
    pub order: &'v Value,
    /// What its register holds as its end; null while it is open.
    pub end: &'v Value,
    /// Whether it is still in the group.
    pub is_here: bool,
}

/// Evaluates a whole group from scratch: puts it in order and gives, for each that is open in it, what it shows as its
/// end and the position of its successor.
///
/// The engine asks for one successor at a time; this is the same in one go, for checks. Takes little more than sorting.
pub fn settle(rivals: &mut [Rival<'_>], time: OrderTime) -> Vec<Option<(Value, usize)>> {
    rivals.sort_unstable_by(|a, b| (a.claim, a.id).cmp(&(b.claim, b.id)));
    // How far a rival reaches: one that is open, or has moved on, beyond everything.
    let reach = |rival: &Rival<'_>| (rival.is_here && *rival.end != Value::Null).then(|| rival.end.clone());
    let exceeds = |one: &Option<Value>, other: &Value| one.as_ref().is_none_or(|one| one > other);
    let mut ends = vec![None; rivals.len()];
    // Those to the right that can be somebody's successor, the nearest last: each reaches less far than those before.
    let mut ahead: Vec<(Option<Value>, usize)> = Vec::new();
    for (at, rival) in rivals.iter().enumerate().rev() {
        if rival.is_here && *rival.end == Value::Null {
            let found = ahead.partition_point(|(reach, _)| exceeds(reach, rival.order));
            let next = found.checked_sub(1).and_then(|last| ahead.get(last)).map(|(_, next)| *next);
            if let (Some(next), Some(slot)) = (next, ends.get_mut(at)) {
                *slot = rivals.get(next).map(|r| (end(rival.order, r.order, r.claim, time), next));
            }
        }
        let own = reach(rival);
        while ahead.last().is_some_and(|(last, _)| match (last, &own) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(last), Some(own)) => last <= own,
        }) {
            ahead.pop();
        }
        ahead.push((own, at));
    }
    ends
}

/// What an open entity that began at `own` shows as its end if its successor begins at `begins`.
fn end(own: &Value, begins: &Value, claim: Stamp, time: OrderTime) -> Value {
    let claimed = || Value::Int(nearest_millis(claim.time));
    let shown = match time {
        OrderTime::Any => own.max(begins).clone(),
        OrderTime::Ms if begins > own && *begins <= claimed() => begins.clone(),
        OrderTime::Ms => own.clone().max(claimed()),
    };
    if shown == Value::Null { claimed() } else { shown }
}
