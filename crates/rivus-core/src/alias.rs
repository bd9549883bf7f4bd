//! Aliases: entities that stand for others, so that two that turn out to be one become one.
//!
//! Owns the way from an entity to the one that stands for it, its *root*. An alias is one register of margin 0 of the
//! entity that gives way; nothing else of it changes. Two replicas may alias in opposite directions: of a circle the
//! entity with the least id is the root.

use crate::address::ALIAS;
use crate::register::Register;
use crate::row::Entry;
use crate::schema::Kind;
use crate::store::{CommitError, Store};
use crate::value::Value;
use crate::work::{Work, damaged};

/// How many aliases are followed from one to the next; where there are more, the way ends after so many.
pub const ALIAS_STEPS_MAX: usize = 1000;

/// The root of `id`, `next` being the alias of an entity, if it has one.
pub(crate) fn root<E>(
    id: &str,
    mut next: impl FnMut(&str) -> Result<Option<String>, E>,
) -> Result<String, E> {
    let mut way = vec![id.to_owned()];
    let mut at = id.to_owned();
    while way.len() <= ALIAS_STEPS_MAX {
        let Some(to) = next(&at)? else { break };
        if let Some(start) = way.iter().position(|one| *one == to) {
            return Ok(way.drain(start..).min().unwrap_or(to));
        }
        way.push(to.clone());
        at = to;
    }
    Ok(at)
}

/// Which entity an alias names.
pub(crate) fn target(register: &Register<'_>) -> Option<String> {
    match Value::decode(register.newest().value) {
        Ok(Value::Text(target)) => Some(target),
        _ => None,
    }
}

impl<S: Store> Work<'_, S> {
    /// The alias of one entity, by its register.
    pub(crate) fn alias(&mut self, kind: &str, id: &str) -> Result<Option<String>, CommitError> {
        let at = self.entity(kind, id);
        let row = self.row(at, ALIAS)?;
        let entry = row.find(ALIAS).and_then(|found| found.as_ref().map(Entry::shown).transpose());
        let register = entry.map_err(|corrupt| damaged(kind, id, corrupt))?;
        Ok(register.as_ref().and_then(target))
    }

    /// The root of an entity as far as aliases tell.
    pub(crate) fn alias_root(&mut self, kind: &str, id: &str) -> Result<String, CommitError> {
        root(id, |id| self.alias(kind, id))
    }

    /// The entity that stands for this one, if it is another.
    pub(crate) fn root(
        &mut self,
        declared: &Kind,
        kind: &str,
        id: &str,
    ) -> Result<Option<String>, CommitError> {
        let mut root = if declared.aliases { self.alias_root(kind, id)? } else { id.to_owned() };
        if let Some(first) = self.first_of_name(declared, kind, &root)? {
            root = first;
        }
        Ok((root != id).then_some(root))
    }

    /// The entity that a rule shows in the place of this one, because it had its name first.
    pub(crate) fn first_of_name(
        &mut self,
        declared: &Kind,
        kind: &str,
        id: &str,
    ) -> Result<Option<String>, CommitError> {
        let Some(rules) = self.rules().filter(|_| declared.aliases_by_rule()) else { return Ok(None) };
        let (_, laid) = self.shown(rules, kind, id, usize::MAX)?;
        Ok(laid.into_iter().find(|laid| laid.stands_aside(rules)).and_then(|laid| laid.rival))
    }

    /// Asks the rules about every entity on the way from this one: who is the root may have changed.
    pub(crate) fn mark_way(&mut self, kind: &str, id: &str) -> Result<(), CommitError> {
        let mut way = vec![id.to_owned()];
        root(id, |id| {
            let next = self.alias(kind, id)?;
            way.extend(next.clone());
            Ok::<_, CommitError>(next)
        })?;
        way.iter().for_each(|id| self.mark(kind, id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn root_of(id: &str, aliases: &[(&str, &str)]) -> String {
        let next = |id: &str| {
            let found = aliases.iter().find(|(from, _)| *from == id);
            Ok::<_, Infallible>(found.map(|(_, to)| (*to).to_owned()))
        };
        root(id, next).unwrap_or_default()
    }

    #[test]
    fn the_root_is_at_the_end_of_the_way_or_the_least_of_a_circle() {
        assert_eq!(root_of("a", &[]), "a");
        assert_eq!(root_of("a", &[("a", "b"), ("b", "c")]), "c");
        assert_eq!(root_of("a", &[("a", "a")]), "a");
        for id in ["b", "c", "d"] {
            assert_eq!(root_of(id, &[("d", "c"), ("c", "b"), ("b", "d")]), "b");
        }
        // Who leads into a circle without being of it is not its root.
        assert_eq!(root_of("a", &[("a", "c"), ("c", "b"), ("b", "c")]), "b");
    }

    #[test]
    fn a_way_without_end_ends() {
        let next = |id: &str| Ok::<_, Infallible>(Some(format!("{}", id.parse::<u64>().unwrap_or(0) + 1)));
        assert_eq!(root("0", next), Ok("1000".to_owned()));
    }
}
