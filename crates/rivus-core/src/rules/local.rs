//! Rules between the fields of one entity.

use super::{Facts, Laid, is_above};
use crate::schema::Side;
use crate::value::Value;

/// A value within bounds.
pub(super) fn bounded(
    rule: usize,
    field: usize,
    min: Option<&Value>,
    max: Option<&Value>,
    facts: &Facts,
) -> Option<Laid> {
    let value = facts.value(field);
    let low = min.filter(|min| is_above(min, value));
    let shown = low.or(max.filter(|max| is_above(value, max)))?.clone();
    Some(Laid { rule, field: Some(field), shown, hidden: value.clone(), rival: None, pins: false })
}

/// A value on the right side of another.
pub(super) fn beside(rule: usize, field: usize, side: Side, other: usize, facts: &Facts) -> Option<Laid> {
    let (value, other) = (facts.value(field), facts.value(other));
    let is_beyond = match side {
        Side::AtLeast => is_above(other, value),
        Side::AtMost => is_above(value, other),
    };
    is_beyond.then(|| Laid {
        rule,
        field: Some(field),
        shown: other.clone(),
        hidden: value.clone(),
        rival: None,
        pins: false,
    })
}
