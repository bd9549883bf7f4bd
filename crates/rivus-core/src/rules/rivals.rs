//! At most one of a group is open.
//!
//! Those that claimed a group are in the order of their claims. One that is open and has a successor shows the
//! beginning of that as its end, so that only the last can show as open. Who is stopped, deleted or has moved to
//! another group keeps its place: that is what keeps a loser from coming back.

use std::ops::ControlFlow;

use super::index::{self, CLAIMS, OPEN, damaged, place, prefix, put_place};
use super::{Facts, Laid, nearest_millis};
use crate::bytes::{Cut, Put, Reader};
use crate::clock::Stamp;
use crate::schema::OrderTime;
use crate::store::{CommitError, Store, StoreError};
use crate::value::Value;
use crate::work::Work;

/// Whether the entity is in the group now.
const HERE: u8 = 1;
/// Whether it is open.
const IS_OPEN: u8 = 2;

/// One that claimed a group, as the index has it.
struct Claimant<'v> {
    flags: u8,
    order: &'v [u8],
    end: &'v [u8],
}

impl<'v> Claimant<'v> {
    fn read(value: &'v [u8]) -> Result<Self, StoreError> {
        let read = || -> Result<Self, Cut> {
            let mut reader = Reader::new(value);
            Ok(Self { flags: reader.u8()?, order: reader.slice()?, end: reader.rest() })
        };
        read().map_err(|_| damaged())
    }

    fn order(&self) -> Result<Value, StoreError> {
        Value::decode(self.order).map_err(|_| damaged())
    }

    /// Whether it ended before one that began at `start`, in the same group.
    fn is_before(&self, start: &Value) -> Result<bool, StoreError> {
        if self.flags != HERE {
            return Ok(false);
        }
        Ok(Value::decode(self.end).map_err(|_| damaged())? <= *start)
    }
}

/// The place of an entity in the group that it is open in: where it claimed it, or where it would have.
fn own_place(rule: usize, group: &[u8], open: usize, facts: &Facts) -> Stamp {
    facts.claim(rule, group).unwrap_or_else(|| facts.stamp(open))
}

/// Under which keys an entity is found.
pub(super) fn entries(
    rule: usize,
    fields: &[usize],
    [open, order]: [usize; 2],
    id: &str,
    facts: &Facts,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    if !facts.held {
        return Vec::new();
    }
    let now = facts.group(fields);
    let is_open = *facts.value(open) == Value::Null;
    let mut places: Vec<(&[u8], Stamp)> =
        facts.claims(rule).map(|claim| (claim.group.as_slice(), claim.stamp)).collect();
    if let Some(group) = now.as_deref().filter(|group| is_open && facts.claim(rule, group).is_none()) {
        places.push((group, own_place(rule, group, open, facts)));
    }
    let mut all = Vec::with_capacity(2);
    for (group, stamp) in places {
        let is_here = now.as_deref() == Some(group);
        let flags = if is_here { HERE } else { 0 } | if is_open { IS_OPEN } else { 0 };
        let mut value = vec![flags];
        value.slice(&facts.value(order).to_bytes());
        value.extend_from_slice(&facts.value(open).to_bytes());
        let mut key = prefix(rule, CLAIMS, &[group]);
        put_place(&mut key, stamp, id);
        if is_here && is_open {
            let mut key = prefix(rule, OPEN, &[group]);
            put_place(&mut key, stamp, id);
            all.push((key, Vec::new()));
        }
        all.push((key, value));
    }
    all
}

impl<S: Store> Work<'_, S> {
    /// The end that an open entity shows, if it has a successor.
    pub(super) fn stopped(
        &mut self,
        rule: usize,
        fields: &[usize],
        [open, order]: [usize; 2],
        time: OrderTime,
        id: &str,
        facts: &Facts,
    ) -> Result<Option<Laid>, CommitError> {
        if !facts.is_there() || *facts.value(open) != Value::Null {
            return Ok(None);
        }
        let Some(group) = facts.group(fields) else { return Ok(None) };
        let own = facts.value(order);
        let prefix = prefix(rule, CLAIMS, &[&group]);
        let mut after = prefix.clone();
        put_place(&mut after, own_place(rule, &group, open, facts), id);
        let mut successor = None;
        self.index().visit(&prefix, Some(&after), &mut |end, value| {
            let claimant = Claimant::read(value)?;
            if claimant.is_before(own)? {
                return Ok(ControlFlow::Continue(()));
            }
            let (claim, rival) = place(end)?;
            successor = Some((claim, rival.to_owned(), claimant.order()?));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(successor.map(|(claim, rival, begins)| {
            let shown = end(own, &begins, claim, time);
            Laid { rule, field: Some(open), shown, hidden: Value::Null, rival: Some(rival) }
        }))
    }

    /// The open ones whose end an entry at this key may sway: there is at most one, since what is open is the
    /// successor of whatever is open before it.
    pub(super) fn stopped_by(&self, rule: usize, key: &[u8]) -> Result<Option<String>, StoreError> {
        // The key of a claim is that of an open one but for the letter.
        let Some(end) = key.get(3..) else { return Ok(None) };
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
